/* How long guests wait in vain: the daemon may be gone, or hang.
 *
 * The kernel says of each userfaultfd how many threads wait by it (fdinfo of the descriptor, "total": faults that nobody read and
 * faults that were read and not answered).  Not so poll(2), which knows only the former, and refuses to tell of a
 * userfaultfd that blocks in read, as ours does.
 *
 * That somebody waits is nothing: of a VM that is short of memory some thread nearly always does.  So the clock of a lease runs
 * while somebody waits and nobody is served, and begins anew when the lease's file has got or lost pages, or fewer wait than at
 * the last look.  A look a second where nobody waits; ten a second where somebody does, so that two looks that happen to
 * show the same number of pages are not taken for a second of nothing.  It is a lower bound: a page that is forgotten while others
 * are served does not show. */
#include "libclient/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MS		 1000000ull
#define LOOK_NS		 (1000 * MS)
#define LOOK_CLOSELY_NS	 (100 * MS)
#define STALLED_AFTER_NS (1000 * MS)

void stall_watch(struct memctl_lease *l)
{
	char path[48];

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", l->uffd);
	l->waits_fd = open(path, O_RDONLY | O_CLOEXEC);
}

void stall_unwatch(struct memctl_lease *l)
{
	if (l->waits_fd >= 0)
		close(l->waits_fd);
	l->waits_fd = -1;
	l->waits_since_ns = 0;
}

static uint64_t count_waits(const struct memctl_lease *l)
{
	char text[512];
	ssize_t n = pread(l->waits_fd, text, sizeof text - 1, 0);
	const char *total;

	text[n > 0 ? n : 0] = 0;
	total = strstr(text, "total:");
	return total ? strtoull(total + strlen("total:"), NULL, 10) : 0;
}

static void look(struct memctl_lease *l, uint64_t now)
{
	uint64_t waits = count_waits(l), blocks = 0;
	struct stat st;

	if (!fstat(l->memfd, &st))
		blocks = (uint64_t)st.st_blocks;
	if (!waits)
		l->waits_since_ns = 0;
	else if (!l->waits_since_ns || waits < l->waits || blocks != l->blocks)
		l->waits_since_ns = now;
	l->waits = waits;
	l->blocks = blocks;
}

uint64_t stall_look(struct memctl *m)
{
	uint64_t now = now_ns(), oldest = 0;

	pthread_mutex_lock(&m->leases_lock);
	for (struct memctl_lease *l = m->leases; l; l = l->next) {
		if (l->waits_fd < 0)
			continue;
		look(l, now);
		if (l->waits_since_ns && (!oldest || l->waits_since_ns < oldest))
			oldest = l->waits_since_ns;
	}
	pthread_mutex_unlock(&m->leases_lock);
	m->stalled_since_ns = oldest;
	if (m->stall_began_ns && oldest != m->stall_began_ns) {
		note_event(m, MEMCTL_EVENT_SERVED, (now - m->stall_began_ns) / MS);
		m->stall_began_ns = 0;
	}
	if (!m->stall_began_ns && oldest && now - oldest > STALLED_AFTER_NS) {
		note_event(m, MEMCTL_EVENT_STALLED, (now - oldest) / MS);
		m->stall_began_ns = oldest;
	}
	return oldest || m->link == LINK_DOWN ? LOOK_CLOSELY_NS : LOOK_NS;
}

uint64_t memctl_stalled_ms(const struct memctl *m)
{
	uint64_t since = m->stalled_since_ns, now;

	if (!since)
		return 0;
	now = now_ns();
	return now > since ? (now - since) / MS : 0;
}
