/* Memory of the process that nobody manages: where there is no daemon from the beginning (plain_fallback), and where the daemon
 * has let a lease go.  It keeps the promises of memctl.h that are about content (zero-filled, discard reads zero, no fork)
 * and drops those that are about host memory.
 *
 * Order "plain": the lease is the client's own from now on.  The daemon has brought everything in before, home what was shared, and
 * takes nothing any more; then
 *
 *	UFFDIO_UNREGISTER	of the whole lease: accesses are the kernel's alone.  It wakes who waits, and ends protection
 *	close our userfaultfd	nothing is registered by it any more
 *	Done			now the daemon closes its copy, and forgets the lease without emptying it
 *
 * The law that no access reads zeros instead of waiting holds at each instant.  Before: an absent page is missing, its reader waits.
 * After: an absent page is a hole of the memfd, and the kernel makes a page of zeros in it.  A hole at that time is a page whose
 * content is zero, by the daemon's word that nothing is missing; it keeps that word because it evicts nothing of a lease from the
 * time it has brought everything in.  Who waited is woken, touches again and finds either the page or such a hole.  It is for
 * this that no part may be mapped from the pool any more: a hole of the pool is a page that was put away.  Where one is, the order
 * is refused, and everything is as it was. */
#include "libclient/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int plain_map(struct memctl_lease *l, struct memctl_error *e)
{
	int place = l->callers_place ? MAP_FIXED : 0;
	void *p = mmap(l->address, l->size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | place, -1, 0);
	int r;

	if (p == MAP_FAILED) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "no memory for a plain lease: %s", strerror(-r));
	}
	l->address = p;
	l->plain = true;
	if (madvise(p, l->size, MADV_DONTFORK) < 0) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "cannot keep the lease from being forked: %s", strerror(-r));
	}
	return 0;
}

int plain_range(struct memctl_lease *l, enum range_op op, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	int r = 0;

	switch (op) {
	case RANGE_DISCARD:	/* of a memfd, DONTNEED would keep the content */
		r = madvise(l->address + offset, length, l->memfd >= 0 ? MADV_REMOVE : MADV_DONTNEED);
		break;
	case RANGE_POPULATE:
	case RANGE_PIN:
		r = madvise(l->address + offset, length, MADV_POPULATE_WRITE);
		break;
	case RANGE_WILL_NEED:
	case RANGE_DONT_NEED:
	case RANGE_UNPIN:
		break;
	}
	if (r < 0) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "madvise: %s", strerror(-r));
	}
	return 0;
}

int plain_order(struct memctl_lease *l, const struct op_runs *runs, uint64_t *ret_pages)
{
	uint64_t pages = l->size / PAGE_SIZE;

	if (!l->plain) {
		if (runs->n != 1 || runs->run[0].count != pages || l->unfinished || share_unshared(l, 0, pages) < pages ||
			faults_unregister(l->uffd, l->address, l->size) < 0)
			return 0;
		l->plain = l->m->let_go = true;
		stall_unwatch(l);
		share_end(l);
		close(l->uffd);
		l->uffd = -1;
	}
	*ret_pages = pages;
	return 0;
}
