/* Sharing: pages of a lease whose content other guest pages have as well are mapped from the *pool*, a file of frames
 * that the daemon wrote and nobody changes, instead of from the lease.
 *
 *	            before                        shared                       broken
 *	address     MAP_SHARED of the lease       MAP_PRIVATE of the pool      the same mapping
 *	a read      the lease's frame             the pool's frame             the private copy
 *	a write     the lease's frame             waits: write-protected       the private copy
 *	memfd       the guest's bytes             a hole                       a hole
 *
 * A write to a shared page waits for the daemon, which lifts the protection; the kernel then makes a private copy
 * ("broken").  It is memory of this process that no daemon can take, so an order brings such pages home later.
 *
 * THE LAW.  What the guest last wrote is what it sees at the address: never the pool's frame by itself, never the
 * lease's.  So content is only ever taken from this process's own view, and the daemon drops the lease's frame only
 * after we answered.  Everything else follows.
 *
 * Order "share", each step for all its runs.  The daemon has the pages write-protected, their words locked (it serves
 * nothing and takes nothing there), and keeps both the lease's frames and the pool's, which hold the same bytes.
 *
 *	0 zap the old mappings       page tables only, the protection stays: so that other processors are told once, and not
 *	                             by each mmap
 *	1 mmap the pool there        one system call a run: another thread sees the old page or the new one, never a gap
 *	2 DONTFORK, DONTDUMP, NOHUGEPAGE
 *	3 register MISSING|WP        mmap has dropped the registration; from the first run to the last at once: what lies
 *	                             between is registered, which is no change
 *	4 write-protect              what is not mapped yet gets a marker, and no processor need be told
 *	5 touch each page            so that "protected" below is a mapped page and not a marker, which looks like a
 *	                             private copy that the host has swapped out; nor do later breaks copy twice
 *	6 pagemap: present, of a file, protected: clean.  All else: dirty
 *
 * Between 1 and 4 guest threads write without anybody hearing of it.  Each such write makes a private copy, which is
 * the page from then on: no byte is lost, but the ledger is wrong, so 6 tells.  (After 4 a write waits for the daemon,
 * though its copy may be made before it waits: to be called dirty then is as right as to be clean.)  Two threads that write one page there meet in the kernel, which copies once.  If 5's return value were
 * not looked at, or 6 came before 5, a page would be called clean that is not: a private copy that nobody is
 * charged for; by the law even that would lose nothing.
 *
 * Order "home".  The words are locked, the lease has holes there (by the daemon's word; 2 finds out).
 *
 *	1 write-protect              from here on the private copies stand still: writers wait
 *	2 UFFDIO_COPY the view into the lease, through a second mapping: fills holes only, atomically, never by a
 *	  huge page; the second mapping is registered with a userfaultfd that nobody reads, so a stray access would
 *	  wait instead of making a page of zeros
 *	3 mmap the lease there       the waiting writers will find it when they are woken
 *	4 DONTFORK ..., register MISSING|WP
 *	5 UFFDIO_CONTINUE            maps the pages at once; saves each a kernel fault
 *	6 zap the second mapping     page tables only
 *
 * Between 3 and 4 the lease is not registered there: a page that was absent would read as zeros.  None is, because 2
 * has filled all of the run, and the locked words keep them.  Writes between 3 and 4 go where they belong.
 *
 * A fork.  A child must not have either mapping: its touch of an absent page would put zeros where the parent waits.
 * mmap drops DONTFORK, so a lock is held over mmap and madvise which pthread_atfork takes around every fork.  (A
 * fork by the bare system call goes past it; vfork and posix_spawn copy no address space.)
 *
 * Death.  Of this process, at any line: its private copies and mappings go with it, and nobody else has them.  Of the
 * daemon: frames stay as they are while we live, since the kernel keeps files that are mapped; a writer that waits
 * goes on waiting.  Its successor asks by order "settle" about the pages that an order was about, or a break.
 *
 * Order "settle".  The words are locked as they were when the daemon died.  Where the pool is mapped is what `pooled` says: it
 * is set with each mmap.  Those pages are protected again (a break may have lifted it; a share may have died before 4), touched,
 * and looked at: steps 4 to 6 of "share", with the same argument.  The others are the lease's own, and the daemon knows of those
 * by the memfd alone.
 *
 * Failure.  mmap fails at the kernel's limit of mappings (each run alone makes two more), and has then changed
 * nothing: the order ends there, and Done says for how many pages it was carried out.  Home then empties the holes
 * that it has filled.  After a mapping is replaced there is no way back, so registering it is tried for a second (only
 * want of kernel memory can refuse it); if it cannot be done the order is never answered, and the daemon leaves the
 * locked words alone: right, and stuck.
 *
 * What an order may not do, whatever the daemon says: `pooled` remembers where the pool is mapped, so a page is not
 * shared again (a new mapping would throw its private copy away), nor zapped, and only such pages come home. */
#include "libclient/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef PR_GET_MEMORY_MERGE
#define PR_GET_MEMORY_MERGE 68
#endif

#define PAGEMAP_PRESENT	  (1ull << 63)
#define PAGEMAP_SWAPPED	  (1ull << 62)
#define PAGEMAP_FILE	  (1ull << 61)
#define PAGEMAP_PROTECTED (1ull << 57)
#define ENTRIES		  512
#ifndef PIDFD_SELF
#define PIDFD_SELF -10000 /* Linux 6.14; before, process_madvise refuses it */
#endif

#define ZAP_RUNS     4	/* runs near one another that are worth a zap ahead, */
#define ZAP_GAP	     16 /* and pages between two of them that may be zapped as well */

#define TRIES	     100
#define TRY_AGAIN_US 10000

/* ---- joining ---- */

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_r;

static void before_fork(void)
{
	pthread_mutex_lock(&fork_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&fork_lock);
}

static void watch_forks(void)
{
	fork_r = -pthread_atfork(before_fork, after_fork, after_fork);
}

uint64_t share_count_maps(void)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	uint64_t lines = 0;
	char text[4096];
	ssize_t n;

	if (fd < 0)
		return 0;
	while ((n = read(fd, text, sizeof text)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += text[i] == '\n';
	close(fd);
	return lines;
}

/* Why this process cannot share; NULL: it can. */
static const char *obstacle(const struct memctl *m)
{
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
	char mode = 0;

	if (fd >= 0) {
		if (read(fd, &mode, 1) < 1)
			mode = 0;
		close(fd);
	}
	if (m->pagemap_fd < 0)
		return "/proc/self/pagemap cannot be read, so nobody knows what was written meanwhile";
	if (prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1)
		return "kernel same-page merging is on for this process, which drops the protection of private pages";
	if (mode == '2')
		return "vm.overcommit_memory is 2, under which a mapping that is replaced may be lost";
	if (fork_r < 0)
		return "no handlers for fork";
	return NULL;
}

bool share_possible(const char *sharing)
{
	return !strcmp(sharing, "vm") || !strncmp(sharing, "group:", 6);
}

int memctl_share(struct memctl *m, struct memctl_error *e)
{
	struct op_join_pool_in in = { 0 };
	struct op_join_pool_out out = { 0 };
	const char *why;
	bool wanted;
	int fd, r;

	if (!m->registered)
		return fail(e, -EINVAL, ERROR_INVALID, "no VM is registered on this connection");
	pthread_mutex_lock(&m->leases_lock);
	wanted = m->pool_fd < 0 && share_possible(m->sharing);
	pthread_mutex_unlock(&m->leases_lock);
	if (m->plain || !wanted)
		return 0;
	pthread_once(&fork_once, watch_forks);
	why = obstacle(m);
	if (why)
		return fail(e, -EOPNOTSUPP, ERROR_SYSTEM, "this process shares no pages: %s", why);
	in.maps = share_count_maps();
	r = call(m, OP_join_pool, &in, -1, &out, &fd, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->leases_lock);
	if (m->pool_fd >= 0)
		close(m->pool_fd);
	m->pool_fd = fd;
	m->pool_pages = out.pool_pages;
	pthread_mutex_unlock(&m->leases_lock);
	return 0;
}

/* ---- where the pool is mapped ---- */

static bool pooled(const struct memctl_lease *l, uint64_t page)
{
	return l->pooled && l->pooled[page / 64] >> page % 64 & 1;
}

static void set_pooled(struct memctl_lease *l, const struct op_run *run, bool yes)
{
	for (uint64_t page = run->page; page < run->page + run->count; page++)
		if (yes)
			l->pooled[page / 64] |= 1ull << page % 64;
		else
			l->pooled[page / 64] &= ~(1ull << page % 64);
}

uint64_t share_unshared(const struct memctl_lease *l, uint64_t page, uint64_t count)
{
	uint64_t n = 0;

	if (!l->pooled)
		return count;
	while (n < count && !pooled(l, page + n))
		n++;
	return n;
}

static bool all_pooled(const struct memctl_lease *l, const struct op_run *run)
{
	uint64_t n = 0;

	while (n < run->count && pooled(l, run->page + n))
		n++;
	return n == run->count;
}

/* ---- mapping ---- */

static char *address_of(const struct memctl_lease *l, const struct op_run *run)
{
	return l->address + run->page * PAGE_SIZE;
}

/* One advice for all runs, in one call if the kernel can (Linux 6.13 for one's own memory).  -errno of the first that
 * fails otherwise. */
static int advise(struct memctl_lease *l, const struct op_run *runs, unsigned n, int advice)
{
	struct iovec v[OP_RUNS_MAX];
	size_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		v[i] = (struct iovec){ address_of(l, &runs[i]), runs[i].count * PAGE_SIZE };
		bytes += v[i].iov_len;
	}
	if (n > 1 && syscall(SYS_process_madvise, PIDFD_SELF, v, n, advice, 0) == (long)bytes)
		return 0;
	for (unsigned i = 0; i < n; i++)
		if (madvise(v[i].iov_base, v[i].iov_len, advice) < 0)
			return -errno;
	return 0;
}

static int keep_apart(struct memctl_lease *l, const struct op_run *runs, unsigned n)
{
	int r = advise(l, runs, n, MADV_DONTFORK);

	if (!r)
		r = advise(l, runs, n, MADV_DONTDUMP);
	/* EINVAL: a kernel without huge pages */
	if (!r && advise(l, runs, n, MADV_NOHUGEPAGE) == -EINVAL)
		return 0;
	return r;
}

/* By the bare system call: guest threads use the memory meanwhile and see the same bytes, which is not what somebody
 * who watches calls of mmap (a race detector) would believe. */
static int map_run(struct memctl_lease *l, const struct op_run *run, int type, int fd, uint64_t page)
{
	return syscall(SYS_mmap, address_of(l, run), run->count * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       type | MAP_FIXED | MAP_NORESERVE, fd, page * PAGE_SIZE) == -1 ? -errno : 0;
}

/* All from the first to the last: what lies between is registered already. */
static int register_runs(struct memctl_lease *l, const struct op_run *runs, unsigned n)
{
	char *first = address_of(l, &runs[0]), *end = first;

	for (unsigned i = 0; i < n; i++) {
		char *at = address_of(l, &runs[i]);

		first = at < first ? at : first;
		end = at + runs[i].count * PAGE_SIZE > end ? at + runs[i].count * PAGE_SIZE : end;
	}
	for (unsigned tries = 0; faults_register(l->uffd, first, (uint64_t)(end - first), NULL) < 0; tries++) {
		if (tries == TRIES)
			return SHARE_UNFINISHED;
		usleep(TRY_AGAIN_US);
	}
	return 0;
}

/* Another file in the place of the runs, registered: the pool's pages `to`, or the lease's own.  *ret_runs: how many runs.
 * SHARE_UNFINISHED: nobody may know what is there. */
static int replace(struct memctl_lease *l, const struct op_run *runs, unsigned n, bool pool, unsigned *ret_runs)
{
	unsigned done = 0;
	int r = 0;

	pthread_mutex_lock(&fork_lock);
	while (done < n && !(pool ? map_run(l, &runs[done], MAP_PRIVATE, l->m->pool_fd, runs[done].to)
				  : map_run(l, &runs[done], MAP_SHARED, l->memfd, runs[done].page)))
		set_pooled(l, &runs[done++], pool);
	if (done && keep_apart(l, runs, done) < 0)
		r = SHARE_UNFINISHED;
	pthread_mutex_unlock(&fork_lock);
	if (done && !r)
		r = register_runs(l, runs, done);
	*ret_runs = done;
	return r;
}

/* Map each page as a read would. */
static void touch(struct memctl_lease *l, const struct op_run *runs, unsigned n)
{
	if (!advise(l, runs, n, MADV_POPULATE_READ))
		return;
	/* An older kernel, or a fault that only user mode may wait for. */
	for (unsigned i = 0; i < n; i++)
		for (uint64_t k = 0; k < runs[i].count; k++)
			(void)*(const volatile char *)(address_of(l, &runs[i]) + k * PAGE_SIZE);
}

static bool look_at(const struct memctl_lease *l, const char *at, uint64_t count, uint64_t *entries)
{
	size_t bytes = count * sizeof *entries;
	off_t offset = (off_t)((uintptr_t)at / PAGE_SIZE * sizeof *entries);

	return pread(l->m->pagemap_fd, entries, bytes, offset) == (ssize_t)bytes;
}

static void set_bit(uint8_t *bits, uint64_t n)
{
	bits[n / 8] |= (uint8_t)(1u << n % 8);
}

/* ---- share ---- */

static bool is_clean(uint64_t entry)
{
	const uint64_t clean = PAGEMAP_PRESENT | PAGEMAP_FILE | PAGEMAP_PROTECTED;

	return (entry & clean) == clean;
}

/* Of each page of the runs whether it is clean; `bits` as of the order.  Where it cannot be told a page is dirty: it comes
 * home, and all is well.  Runs are near one another, so the entries of many are read at once. */
static void find_clean(const struct memctl_lease *l, const struct op_run *runs, unsigned n, uint8_t *bits)
{
	uint64_t entries[ENTRIES], first = 0, have = 0, at = 0;

	for (unsigned i = 0; i < n; i++)
		for (uint64_t page = runs[i].page; page < runs[i].page + runs[i].count; page++, at++) {
			if (page < first || page >= first + have) {
				first = page;
				have = l->size / PAGE_SIZE - page < ENTRIES ? l->size / PAGE_SIZE - page : ENTRIES;
				if (!look_at(l, l->address + page * PAGE_SIZE, have, entries))
					return;
			}
			if (is_clean(entries[page - first]))
				set_bit(bits, at);
		}
}

/* Protect the runs, from the first on; how many it worked for. */
static unsigned protect(const struct memctl_lease *l, const struct op_run *runs, unsigned n)
{
	unsigned done = 0;

	while (done < n && !faults_protect(l->uffd, address_of(l, &runs[done]), runs[done].count * PAGE_SIZE))
		done++;
	return done;
}

/* Page tables of the lease where many short runs will be replaced: all at once, with what lies between them, which the guest
 * maps again by a kernel fault.  Each mmap would have to tell all processors otherwise. */
static void zap_ahead(struct memctl_lease *l, const struct op_run *runs, unsigned n)
{
	for (unsigned i = 0, k; i < n; i = k) {
		uint64_t first = runs[i].page, end = first + runs[i].count;

		for (k = i + 1; k < n && runs[k].page >= end && runs[k].page - end < ZAP_GAP; k++) {
			/* a private copy of a page that is mapped from the pool would be thrown away */
			if (share_unshared(l, end, runs[k].page - end) < runs[k].page - end)
				break;
			end = runs[k].page + runs[k].count;
		}
		if (k - i >= ZAP_RUNS)
			lease_zap(l, first, end - first);
	}
}

int share_order(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits, uint64_t *ret_pages)
{
	uint64_t pool_pages = l->m->pool_pages;
	unsigned n = 0;
	int r;

	for (unsigned i = 0; i < runs->n; i++) {
		const struct op_run *run = &runs->run[i];

		if (!run->to || run->to >= pool_pages || run->count > pool_pages - run->to)
			return -EINVAL;
	}
	if (!l->pooled)
		l->pooled = calloc((l->size / PAGE_SIZE + 63) / 64, sizeof *l->pooled);
	while (l->pooled && n < runs->n && share_unshared(l, runs->run[n].page, runs->run[n].count) == runs->run[n].count)
		n++;
	if (!n)
		return 0;
	zap_ahead(l, runs->run, n);
	r = replace(l, runs->run, n, true, &n);
	if (r)
		return r;
	for (unsigned i = 0; i < n; i++)
		*ret_pages += runs->run[i].count;
	/* a run that cannot be protected is dirty, and so are those after it */
	n = protect(l, runs->run, n);
	touch(l, runs->run, n);
	find_clean(l, runs->run, n, bits);
	return 0;
}

/* ---- home ---- */

/* The second mapping, made once. */
static int open_second(struct memctl_lease *l)
{
	enum memctl_faults faults;
	char *p;
	int r;

	if (l->second)
		return 0;
	p = mmap(NULL, l->size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, l->memfd, 0);
	if (p == MAP_FAILED)
		return -errno;
	r = lease_keep_apart(p, l->size);
	if (!r)
		r = faults_open(&l->second_uffd, &faults, NULL);
	if (!r)
		r = faults_register_missing(l->second_uffd, p, l->size);
	if (!r && mprotect(p, l->size, PROT_READ | PROT_WRITE) < 0)
		r = -errno;
	if (!r) {
		l->second = p;
		return 0;
	}
	munmap(p, l->size);
	if (l->second_uffd >= 0)
		close(l->second_uffd);
	l->second_uffd = -1;
	return r;
}

/* The runs' view into the lease, through the second mapping; how many runs.  A run that did not come whole is a hole again. */
static unsigned copy_home(struct memctl_lease *l, const struct op_run *runs, unsigned n)
{
	unsigned done = 0;

	for (; done < n; done++) {
		char *second = l->second + runs[done].page * PAGE_SIZE;
		uint64_t copied;

		if (faults_copy(l->second_uffd, second, address_of(l, &runs[done]), runs[done].count * PAGE_SIZE, &copied) < 0) {
			if (copied)
				(void)madvise(second, copied, MADV_REMOVE);
			break;
		}
	}
	return done;
}

int share_home(struct memctl_lease *l, const struct op_runs *runs, uint64_t *ret_pages)
{
	unsigned n = 0, copied, mapped;
	int r = open_second(l);

	if (r < 0)
		return r;
	while (n < runs->n && all_pooled(l, &runs->run[n]))
		n++;
	copied = copy_home(l, runs->run, protect(l, runs->run, n));
	if (!copied)
		return 0;
	r = replace(l, runs->run, copied, false, &mapped);
	for (unsigned i = mapped; i < copied; i++)
		(void)madvise(l->second + runs->run[i].page * PAGE_SIZE, runs->run[i].count * PAGE_SIZE, MADV_REMOVE);
	if (r)
		return r;
	for (unsigned i = 0; i < mapped; i++) {
		const struct op_run *run = &runs->run[i];

		faults_continue(l->uffd, address_of(l, run), run->count * PAGE_SIZE);
		(void)madvise(l->second + run->page * PAGE_SIZE, run->count * PAGE_SIZE, MADV_DONTNEED);
		*ret_pages += run->count;
	}
	return 0;
}

/* ---- private ---- */

/* Swapped out by the host, or a marker of protection: a touch tells which. */
static bool is_private(const struct memctl_lease *l, const char *at, uint64_t entry)
{
	if (!(entry & PAGEMAP_PRESENT) && entry & PAGEMAP_SWAPPED) {
		(void)*(const volatile char *)at;
		if (!look_at(l, at, 1, &entry) || !(entry & PAGEMAP_PRESENT))
			return true;
	}
	return entry & PAGEMAP_PRESENT && !(entry & PAGEMAP_FILE);
}

int share_private(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits)
{
	uint64_t n = 0, entry;

	for (unsigned i = 0; i < runs->n; i++)
		for (uint64_t page = runs->run[i].page; page < runs->run[i].page + runs->run[i].count; page++, n++) {
			const char *at = l->address + page * PAGE_SIZE;

			if (!pooled(l, page))
				continue;
			if (!look_at(l, at, 1, &entry))
				return -EIO;
			if (is_private(l, at, entry))
				set_bit(bits, n);
		}
	return 0;
}

/* ---- settle ---- */

/* `run` is mapped from the pool; its first page has bit `at`, and bit `at + apart` for clean. */
static int settle_run(struct memctl_lease *l, const struct op_run *run, uint8_t *bits, uint64_t at, uint64_t apart)
{
	uint64_t entries[ENTRIES];

	for (uint64_t i = 0; i < run->count; i++)
		set_bit(bits, at + i);
	if (!protect(l, run, 1))	/* then they are not clean, which brings them home */
		return 0;
	touch(l, run, 1);
	if (!look_at(l, address_of(l, run), run->count, entries))
		return -EIO;
	for (uint64_t i = 0; i < run->count; i++)
		if (is_clean(entries[i]))
			set_bit(bits, at + apart + i);
	return 0;
}

int share_settle(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits)
{
	uint64_t at = 0, pages = 0, n;
	int r = 0;

	if (l->unfinished)
		return SHARE_UNFINISHED;
	for (unsigned i = 0; i < runs->n; i++)
		pages += runs->run[i].count;
	for (unsigned i = 0; i < runs->n; i++)
		for (uint64_t page = runs->run[i].page, end = page + runs->run[i].count; page < end; page += n, at += n) {
			struct op_run run = { .page = page };

			n = share_unshared(l, page, end - page);
			if (n)
				continue;
			while (page + n < end && pooled(l, page + n))
				n++;
			run.count = n;
			r = settle_run(l, &run, bits, at, pages);
			if (r < 0)
				return r;
		}
	return 0;
}

void share_end(struct memctl_lease *l)
{
	if (l->second)
		munmap(l->second, l->size);
	if (l->second_uffd >= 0)
		close(l->second_uffd);
	free(l->pooled);
	l->pooled = NULL;
	l->second = NULL;
	l->second_uffd = -1;
}
