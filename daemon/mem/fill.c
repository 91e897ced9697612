/* Content in: from nothing, from the cache, from the swap file into a frame of the lease.
 *
 * The page is put into the memfd by UFFDIO_COPY (or ZEROPAGE) into a mapping of the daemon's own, registered
 * MISSING with a userfaultfd of the daemon, and the client is woken on its userfaultfd.  Why not otherwise:
 *  - pwrite: the guest can see the fresh page before its content (a source that is not mapped in the writer);
 *    it takes the inode lock, which a client can hold without bound; under shmem huge pages it fills 511 neighbours.
 *  - memcpy through a mapping: another guest thread sees half a page.
 *  - COPY into the client: takes the client's mmap_lock on older kernels, and charges its cgroup.
 * COPY is atomic, answers EEXIST instead of overwriting, and allocates one page whatever the huge page setting is.
 *
 * Order of one fill, with the crash rule of page_map.h in mind (moving: resident if the memfd has data):
 *
 *	lock word > record moving > content into private memory, verified > COPY > record RESIDENT
 *	> forget the stored copy > unlock > WAKE
 *
 * A crash before COPY leaves hole + moving: the old state.  After COPY, data + moving: resident.  The stored copy goes
 * only when the word says RESIDENT, so there is no instant at which the page is in neither place.  A stored copy that a crash leaves behind is
 * found by nobody's word and so is free when the stores are rebuilt.
 *
 * Races.  Two guest threads on one page: both wait in the kernel, the first event fills, the wake ends both waits; an
 * event of the second that was already read meets RESIDENT and is answered by fill_discarded, whose zero
 * page meets EEXIST: only a wake.  Evictor, store mover: the word is busy, they leave it alone.  A client that
 * wrote into the hole behind our back (write(2) on the memfd): EEXIST; its bytes stay and are counted as foreign.
 *
 * A run of several pages is finished by one UFFDIO_CONTINUE on the client's userfaultfd: it maps the pages and wakes,
 * so that the guest takes no further kernel fault for each.  The words are busy until it is done: CONTINUE erases
 * write protection, and on a page that an eviction has just protected that would lose a write. */
#include "mem/vm_impl.h"

#include "mem/checksum.h"
#include "mem/inject.h"
#include "mem/uffd.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#define READ_TRIES 10u

int bench_init(struct bench *b)
{
	void *m = mmap(NULL, RUN_MAX * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int r;

	*b = (struct bench){ 0 };
	if (m == MAP_FAILED)
		return -errno;
	b->buf = m;
	madvise(m, RUN_MAX * PAGE_SIZE, MADV_DONTDUMP);
	/* best effort: RLIMIT_MEMLOCK may be small; the unit raises it */
	(void)mlock(m, RUN_MAX * PAGE_SIZE);
	direct_init(&b->direct);
	r = codec_new(&b->codec);
	if (r < 0)
		bench_fini(b);
	return r;
}

void bench_fini(struct bench *b)
{
	if (b->buf)
		munmap(b->buf, RUN_MAX * PAGE_SIZE);
	codec_free(b->codec);
	direct_fini(&b->direct);
	*b = (struct bench){ 0 };
}

int own_map(struct lease *l)
{
	uint64_t bytes = l->pages * PAGE_SIZE;
	int flags = MAP_SHARED | MAP_NORESERVE | (l->own ? MAP_FIXED : 0);
	void *m;

	/* zap first, under the read side of our mmap lock: replacing the mapping is then quick, and frees its
	 * page tables, which would cost 0.2 % of all that was ever filled */
	if (l->own)
		madvise(l->own, bytes, MADV_DONTNEED);
	m = mmap(l->own, bytes, PROT_READ | PROT_WRITE, flags, l->memory->fd, 0);
	if (m == MAP_FAILED)
		return -errno;
	if (!l->own)
		l->own = m; /* else it is the same, and the fault thread reads it */
	madvise(m, bytes, MADV_NOHUGEPAGE);
	madvise(m, bytes, MADV_DONTDUMP);
	madvise(m, bytes, MADV_DONTFORK);
	atomic_store(&l->own_filled, 0);
	/* until this is done a fill gets ENOENT, and tries again */
	return uffd_register_missing(l->own_uffd, (uint64_t)m, bytes);
}

/* A page that no store can give back. */
static void lose(struct lease *l, uint64_t page, uint64_t before, const char *why)
{
	struct vm *vm = l->vm;
	int r = uffd_poison(l->uffd, lease_client_address(l, page), PAGE_SIZE);
	bool cannot = r == -EINVAL || r == -ENOTTY;

	ledger_move(l, page, before, PAGE_LOST);
	word_unlock(lease_word(l, page), word_make(PAGE_LOST, 0) | (before & WORD_PIN_MASK));
	store_forget(vm, before);
	vm_set_trouble(vm, false, "guest page %#llx is lost (%s); whoever touches it %s",
		(unsigned long long)(l->gpa + page * PAGE_SIZE), why,
		cannot ? "waits: this kernel cannot poison pages" : "gets a machine check (SIGBUS)");
	/* whoever waits must try again to get its machine check; where there is none it goes on waiting */
	if (!cannot)
		lease_wake(l, page, 1);
}

static int from_cache(struct lease *l, struct bench *b, uint64_t page, uint64_t before, void *to)
{
	const struct cache_object *o = cache_look(l->vm->cache, word_ref(before));
	int r;

	if (o->page != (uint32_t)page || o->lease != l->id || o->length > CACHE_OBJECT_MAX)
		return -EBADMSG;
	r = codec_decompress(b->codec, o->data, o->length, to);
	if (r == 0 && inject.cache_corrupt)
		*(uint8_t *)to ^= 1;
	if (r == 0 && checksum_page(to) != o->checksum)
		r = -EBADMSG;
	return r;
}

/* A slot that a guest waits for.  An error may pass (a path that fails over, memory of the kernel): the page is given
 * up only after a second of them, or when what was read is wrong twice. */
static int read_slot(struct lease *l, struct bench *b, uint64_t slot, bool guest_waits)
{
	static const struct timespec pause = { .tv_nsec = 100000000 };
	unsigned spin_us = guest_waits ? atomic_load_explicit(&l->vm->settings->swap_spin_us, memory_order_relaxed) : 0;
	int r = swap_read(l->vm->swap, slot, 1, b->buf, &b->direct, spin_us);

	for (unsigned tries = 0; r < 0 && guest_waits && tries < READ_TRIES && !atomic_load(&l->fault_stop); tries++) {
		if (r == -EBADMSG)
			return swap_read(l->vm->swap, slot, 1, b->buf, NULL, 0);
		COUNT(l->vm, swap_read_errors, 1);
		nanosleep(&pause, NULL);
		r = swap_read(l->vm->swap, slot, 1, b->buf, NULL, 0);
		if (r == -ENOMEM || r == -EAGAIN)
			tries = 0;
	}
	return r;
}

/* Content of the pages into b->buf.  How many pages from the first on are there; *ret_error says why it stopped. */
static unsigned fetch(struct lease *l, struct bench *b, uint64_t page, unsigned count, const uint64_t *before,
	bool guest_waits, int *ret_error)
{
	struct vm *vm = l->vm;
	int r = 0;

	switch (word_state(before[0])) {
	case PAGE_COMPRESSED:
		for (unsigned i = 0; i < count; i++) {
			r = from_cache(l, b, page + i, before[i], b->buf + i * PAGE_SIZE);
			if (r < 0) {
				*ret_error = r;
				return i;
			}
		}
		return count;
	case PAGE_SWAPPED:
		if (count > 1 && swap_read(vm->swap, word_ref(before[0]), count, b->buf, NULL, 0) == 0)
			return count;
		/* one page by itself says which it is */
		count = 1;
		r = read_slot(l, b, word_ref(before[0]), guest_waits);
		*ret_error = r;
		return r < 0 ? 0 : count;
	default:
		return count;
	}
}

/* How many pages are in place: all, or fewer if the lease ends meanwhile.  Pages of the run that the memfd had already
 * (bits in *ret_foreign) count as put. */
static unsigned put_frames(struct lease *l, struct bench *b, uint64_t page, unsigned count, bool zero, uint64_t *ret_foreign)
{
	uint64_t to = (uint64_t)l->own + page * PAGE_SIZE, length = count * PAGE_SIZE, at = 0, done;
	static const struct timespec pause = { .tv_nsec = 1000000 };

	*ret_foreign = 0;
	while (at < length) {
		int r = zero ? uffd_zero(l->own_uffd, to + at, length - at, &done)
			     : uffd_copy(l->own_uffd, to + at, b->buf + at, length - at, &done);

		at += done;
		if (at >= length)
			break;
		if (r == -EEXIST) {
			*ret_foreign |= 1ull << (at / PAGE_SIZE);
			at += PAGE_SIZE;
		} else if (atomic_load(&l->fault_stop) || atomic_load(&l->ending)) {
			return (unsigned)(at / PAGE_SIZE);
		} else if (r == -ENOENT) {
			sched_yield(); /* own_map is at work */
		} else {
			/* the host itself has no page for us: wait, the guest waits too, nothing is lost */
			nanosleep(&pause, NULL);
		}
	}
	return count;
}

/* The frames of [page, page + count) are in place: the words say so, the stored copies go, and last of all the guest
 * goes on.  On one core it goes on when this thread blocks again, so what can be done before the wake is done before.
 *
 * A run, and a page that came from disk, is mapped by CONTINUE: it costs less than the kernel fault that the guest would
 * take, the more so when both have slept meanwhile.  Nobody but the fault thread drops events, so if it is the caller
 * and CONTINUE has mapped and woken all, nobody is left to be woken.  (A populating worker wakes always: a client may
 * punch a page of the run before it is unlocked, and touch it, and that event is dropped.) */
static void settle_run(struct lease *l, uint64_t page, unsigned count, const uint64_t *before, bool guest_waits)
{
	enum page_state from = word_state(before[0]);
	uint64_t mapped = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t epoch = ledger_move(l, page + i, before[i], PAGE_RESIDENT);
		uint64_t now = word_make(PAGE_RESIDENT, epoch & 0xffff) | (before[i] & WORD_PIN_MASK);

		/* needed again: it is in use */
		if (from != PAGE_ZERO)
			now |= 1ull << WORD_USE_SHIFT;
		word_record(lease_word(l, page + i), now);
		store_forget(l->vm, before[i]);
	}
	if (from == PAGE_SWAPPED)
		COUNT(l->vm, swap_in_pages, count);
	if (from != PAGE_ZERO)
		COUNT(l->vm, refault_pages, count);
	MOVES_END(l->vm);
	if (count > 1 || from == PAGE_SWAPPED)
		uffd_continue(l->uffd, lease_client_address(l, page), count * PAGE_SIZE, &mapped);
	for (unsigned i = 0; i < count; i++) {
		word *w = lease_word(l, page + i);

		word_unlock(w, atomic_load_explicit(w, memory_order_relaxed));
	}
	if (guest_waits && mapped == count * PAGE_SIZE)
		lease_end_waits(l, page, count);
	else
		lease_wake(l, page, count);
}

/* What could not be brought in keeps its place, or is lost if a guest waits for it. */
static void settle_rest(struct lease *l, uint64_t page, unsigned have, unsigned count, const uint64_t *before,
	bool guest_waits, int error)
{
	if (error)
		COUNT(l->vm, swap_read_errors, error != -EBADMSG);
	if (error == -EBADMSG)
		COUNT(l->vm, checksum_errors, 1);
	for (unsigned i = have; i < count; i++) {
		if (i == 0 && error && guest_waits && !atomic_load(&l->fault_stop)) {
			lose(l, page, before[0], word_state(before[0]) == PAGE_SWAPPED ? "swap file" : "compression cache");
		} else {
			word_unlock(lease_word(l, page + i), before[i]);
			lease_wake(l, page + i, 1);
		}
	}
	segment_uncharge(l->memory, count - have);
}

unsigned fill_run(struct lease *l, struct bench *b, uint64_t page, unsigned count, const uint64_t *before,
	bool guest_waits)
{
	struct vm *vm = l->vm;
	uint64_t foreign = 0, filled;
	unsigned have;
	int error = 0;

	MOVES_BEGIN(vm);
	for (unsigned i = 0; i < count; i++)
		word_record(lease_word(l, page + i), before[i] | WORD_MOVING);
	have = fetch(l, b, page, count, before, guest_waits, &error);
	if (have)
		have = put_frames(l, b, page, have, word_state(before[0]) == PAGE_ZERO, &foreign);
	if (foreign)
		COUNT(vm, foreign_pages, (uint64_t)__builtin_popcountll(foreign));
	filled = atomic_fetch_add(&l->own_filled, have);
	if (filled < OWN_REFRESH_PAGES && filled + have >= OWN_REFRESH_PAGES)
		lease_request_refresh(l);
	if (have < count)
		settle_rest(l, page, have, count, before, guest_waits, error);
	if (have)
		settle_run(l, page, have, before, guest_waits);
	else
		MOVES_END(vm);
	return have;
}

void fill_discarded(struct lease *l, uint64_t page, uint64_t before)
{
	uint64_t foreign;

	/* The frame of this page is charged in either case: the client punched it, or it is there and the event
	 * was late.  A zero page that meets data changes nothing. */
	put_frames(l, NULL, page, 1, true, &foreign);
	if (!foreign)
		COUNT(l->vm, faults_discarded, 1);
	word_unlock(lease_word(l, page), before);
	lease_wake(l, page, 1);
}
