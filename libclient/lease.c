/* A lease on this side: from the daemon's memfd to memory that a guest may touch, and back.
 *
 *	reserve address space, 2 MiB-aligned     (page tables of guest and host fall together), or take the caller's
 *	mmap the memfd there, PROT_NONE          nobody can touch it yet
 *	DONTFORK, NOHUGEPAGE, DONTDUMP           before the first page: see below
 *	register MISSING|WP, mprotect            from here on an access to an absent page waits ...
 *	Activate(address, userfaultfd)           ... and from here on the daemon serves it
 *
 * DONTFORK: a child's first touch of an absent page would put a zero page into the memfd, which the *parent*
 * would then read.  PROT_NONE until it is set closes the window in which a fork by another thread could inherit
 * the mapping.  NOHUGEPAGE: the daemon takes pages one by one; a hole punched into a huge page may stay and
 * read as zeros.  DONTDUMP: a core dump would bring in everything.
 *
 * The way back keeps one law: no instant at which an access reads zeros instead of waiting or dying.
 *
 *	Release                                  the daemon's threads end, its copy of the userfaultfd closes;
 *	                                         ours is open, so an access still waits.  (A daemon that is away
 *	                                         hears of it by the lease not being named when it is back.)
 *	munmap                                   from here on an access is a SIGSEGV (mappings of the pool go too)
 *	close the userfaultfd and the memfd
 *
 * Closing before munmap, or munmap while the daemon still fills through its own threads, breaks it. */
#include "libclient/internal.h"

#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGNMENT (2ull << 20)
#define ZAP_MAX	  (1ul << 20)	/* half of what a page table maps */
#define AGAIN_US  10000
#define AGAIN_NS  3000000000ull

/* Address space of `size` bytes, aligned; PROT_NONE, to be mapped over. */
static int reserve_aligned(uint64_t size, char **ret, struct memctl_error *e)
{
	uint64_t whole = size + ALIGNMENT;
	char *p, *start;
	uint64_t head;

	p = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		int r = -errno;

		return fail(e, r, ERROR_SYSTEM, "no address space for a lease of %llu bytes: %s",
			(unsigned long long)size, strerror(-r));
	}
	head = -(uintptr_t)p & (ALIGNMENT - 1);
	start = p + head;
	if (head)
		munmap(p, head);
	if (whole - head > size)
		munmap(start + size, whole - head - size);
	*ret = start;
	return 0;
}

int lease_keep_apart(void *address, uint64_t length)
{
	if (madvise(address, length, MADV_DONTFORK) < 0 || madvise(address, length, MADV_DONTDUMP) < 0)
		return -errno;
	/* EINVAL: a kernel without huge pages, which cannot do the harm either. */
	if (madvise(address, length, MADV_NOHUGEPAGE) < 0 && errno != EINVAL)
		return -errno;
	return 0;
}

/* In pieces that hold no page table whole.  Since Linux 6.14 MADV_DONTNEED frees a table that it has emptied, under the lock that
 * UFFDIO_WRITEPROTECT takes as well; a table that goes while the daemon protects pages in it is passed over, with success,
 * and a write beside the eviction would be lost. */
void lease_zap(struct memctl_lease *l, uint64_t page, uint64_t count)
{
	char *at = l->address + page * PAGE_SIZE, *end = at + count * PAGE_SIZE;

	while (at < end) {
		size_t n = ZAP_MAX - (uintptr_t)at % ZAP_MAX;

		n = n < (size_t)(end - at) ? n : (size_t)(end - at);
		(void)madvise(at, n, MADV_DONTNEED);
		at += n;
	}
}

static int map_memfd(struct memctl_lease *l, struct memctl_error *e)
{
	char *address = NULL;
	int r;

	if (!l->callers_place) {
		r = reserve_aligned(l->size, &address, e);
		if (r < 0)
			return r;
		l->address = address;
	}
	address = l->address;
	if (mmap(address, l->size, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, l->memfd, 0) == MAP_FAILED) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "cannot map the lease: %s", strerror(-r));
	}
	r = lease_keep_apart(address, l->size);
	if (r < 0)
		return fail(e, r, ERROR_SYSTEM, "cannot keep forks and huge pages off the lease: %s", strerror(-r));
	return 0;
}

static void unmap(struct memctl_lease *l)
{
	/* Whose the address space was, it stays: what another thread would map into a gap, the caller's own
	 * munmap would take away. */
	if (l->callers_place)
		(void)mmap(l->address, l->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
			-1, 0);
	else if (l->address)
		munmap(l->address, l->size);
	if (l->uffd >= 0) {
		/* Whoever still waits for a page must not wait for ever: it touches again, and dies. */
		faults_wake(l->uffd, l->address, l->size);
		close(l->uffd);
	}
	l->address = NULL;
	stall_unwatch(l);
	share_end(l);
	if (l->memfd >= 0)
		close(l->memfd);
	l->uffd = l->memfd = -1;
}

static void link_lease(struct memctl_lease *l)
{
	struct memctl *m = l->m;

	pthread_mutex_lock(&m->leases_lock);
	l->next = m->leases;
	m->leases = l;
	if (!l->plain)
		stall_watch(l);
	if ((int)l->faults > m->faults)	/* the weakest of all is what holds for the VM */
		m->faults = (int)l->faults;
	pthread_mutex_unlock(&m->leases_lock);
}

/* Map it and register it: memory that nobody serves yet.  On failure the caller undoes with unmap(). */
static int prepare(struct memctl_lease *l, struct memctl_error *e)
{
	int r;

	r = map_memfd(l, e);
	if (r < 0)
		return r;
	r = faults_open(&l->uffd, &l->faults, e);
	if (r < 0)
		return r;
	r = faults_register(l->uffd, l->address, l->size, e);
	if (r < 0)
		return r;
	if (mprotect(l->address, l->size, PROT_READ | PROT_WRITE) < 0) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "cannot open the lease for access: %s", strerror(-r));
	}
	return 0;
}

/* On the connection of its Lease, or CALL_LOST.  From then on the lease is named to the daemon's successors: no moment lies
 * between, because connections change under `turn`. */
static int activate(struct memctl_lease *l, struct memctl_error *e)
{
	struct op_activate_in in = { .lease = l->id, .address = (uintptr_t)l->address,
		.user_mode_only = l->faults == MEMCTL_FAULTS_USER_MODE };
	struct op_activate_out out;
	int r;

	pthread_mutex_lock(&l->m->turn);
	r = call_in_turn(l->m, OP_activate, &in, l->uffd, &out, NULL, &l->connection, e);
	if (!r)
		link_lease(l);
	pthread_mutex_unlock(&l->m->turn);
	return r;
}

/* CALL_LOST: the daemon has it no more, or will not when it is back. */
static int give_back(struct memctl_lease *l, struct memctl_error *e)
{
	struct op_release_in in = { .lease = l->id };
	struct op_release_out out;

	return call_on(l->m, OP_release, &in, -1, &out, NULL, &l->connection, e);
}

static int borrow_once(struct memctl_lease *l, struct memctl_error *e)
{
	struct op_lease_in in = { .gpa = l->gpa, .size = l->size };
	struct op_lease_out out = { 0 };
	int r;

	l->connection = 0;
	r = call_on(l->m, OP_lease, &in, -1, &out, &l->memfd, &l->connection, e);
	if (r)
		return r;
	l->id = out.lease;
	r = prepare(l, e);
	if (!r)
		r = activate(l, e);
	if (r < 0)
		give_back(l, NULL);
	return r;
}

/* Of a second try: the daemon has still to take back what the first one got. */
static bool may_pass(int r)
{
	return r == -EEXIST || r == -ENOSPC || r == -EDQUOT || r == -EBUSY;
}

/* A lease of the daemon's into *l, whose gpa and size are set; begun anew if the daemon is restarted under it. */
static int borrow(struct memctl_lease *l, struct memctl_error *e)
{
	uint64_t deadline = deadline_ns(l->m), passes_ns = 0;
	char *place = l->address;

	for (;;) {
		int r = borrow_once(l, e);
		uint64_t now = now_ns();

		if (r != CALL_LOST && !(now < passes_ns && may_pass(r)))
			return r;
		if (now >= deadline)
			return r == CALL_LOST ? -ENOTCONN : r;
		unmap(l);
		l->address = place;
		if (r == CALL_LOST)
			passes_ns = now + AGAIN_NS;
		else
			usleep(AGAIN_US);
	}
}

/* Afterwards no order can find the lease, and none is acting on it. */
static void unlink_lease(struct memctl_lease *l)
{
	struct memctl *m = l->m;

	pthread_mutex_lock(&m->leases_lock);
	for (struct memctl_lease **p = &m->leases; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			break;
		}
	pthread_mutex_unlock(&m->leases_lock);
}

struct memctl_lease *lease_find(struct memctl *m, uint64_t id)
{
	struct memctl_lease *l;

	for (l = m->leases; l; l = l->next)
		if (l->id == id && l->address)
			return l;
	return NULL;
}

/* `address` NULL: anywhere. */
static int new_lease(struct memctl *m, uint64_t gpa, uint64_t size, void *address, struct memctl_lease **ret,
	struct memctl_error *e)
{
	struct memctl_lease *l;
	int r;

	if (!m || !ret)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_lease: a NULL argument");
	if (!size || size % PAGE_SIZE || gpa % PAGE_SIZE || gpa > INT64_MAX || size > INT64_MAX - gpa)
		return fail(e, -EINVAL, ERROR_INVALID,
			"gpa and size must be multiples of 4096, size not 0 and gpa + size below 2^63");
	if (!m->registered)
		return fail(e, -EINVAL, ERROR_INVALID, "no VM is registered on this connection");
	l = calloc(1, sizeof *l);
	if (!l)
		return fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
	l->m = m;
	l->gpa = gpa;
	l->size = size;
	l->memfd = l->uffd = l->second_uffd = l->waits_fd = -1;
	l->address = address;
	l->callers_place = address;
	r = m->plain ? plain_map(l, e) : borrow(l, e);
	if (r < 0) {
		unmap(l);
		free(l);
		return r;
	}
	if (l->plain && l->memfd < 0)
		link_lease(l);
	*ret = l;
	return 0;
}

int memctl_lease(struct memctl *m, uint64_t gpa, uint64_t size, struct memctl_lease **ret, struct memctl_error *e)
{
	return new_lease(m, gpa, size, NULL, ret, e);
}

int memctl_lease_at(struct memctl *m, uint64_t gpa, uint64_t size, void *address, struct memctl_lease **ret,
	struct memctl_error *e)
{
	if (!address || (uintptr_t)address % PAGE_SIZE || size > UINTPTR_MAX - (uintptr_t)address)
		return fail(e, -EINVAL, ERROR_INVALID, "the address must be a multiple of 4096, and not NULL");
	return new_lease(m, gpa, size, address, ret, e);
}

int memctl_release(struct memctl_lease *l, struct memctl_error *e)
{
	int r = 0;

	if (!l)
		return 0;
	unlink_lease(l);
	if (!l->plain)
		r = give_back(l, e);
	unmap(l);
	free(l);
	return r == CALL_LOST ? 0 : r;
}

void *memctl_lease_address(const struct memctl_lease *l)
{
	return l->address;
}

uint64_t memctl_lease_gpa(const struct memctl_lease *l)
{
	return l->gpa;
}

uint64_t memctl_lease_size(const struct memctl_lease *l)
{
	return l->size;
}
