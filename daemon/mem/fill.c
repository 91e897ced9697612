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
 * EEXIST is looked into.  Since Linux 6.14 it also means that another thread has just taken away the page table: madvise(DONTNEED)
 * over 2 MiB or more frees the tables that it has emptied, under no more of a lock than COPY holds, and we make such calls
 * ourselves (own_map, batch_punch).  A page that was believed to be there for that reason was a hole: its stored copy went, and
 * the guest read zeros.  And room that the client has made in its memfd by fallocate(2) is in the way of COPY and a hole to SEEK_DATA until
 * somebody touches it, so this is not tried for ever: the page keeps its state, and an access that waits for it finds the client's room.
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

#include "mem/inject.h"
#include "mem/uffd.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define EXISTS_TRIES 200u	/* a zap is over after one or two */

int own_map(struct lease *l)
{
	uint64_t bytes = l->pages * PAGE_SIZE;
	int flags = MAP_SHARED | MAP_NORESERVE | (l->own ? MAP_FIXED : 0);
	void *m;

	/* zap first, under the read side of our mmap lock: replacing the mapping is then quick, and frees its
	 * page tables, which would cost 0.2 % of all that was ever filled */
	if (l->own)
		madvise(l->own, bytes, MADV_DONTNEED);
	CRASH_POINT("own.zapped");
	m = mmap(l->own, bytes, PROT_READ | PROT_WRITE, flags, l->memory->fd, 0);
	if (m == MAP_FAILED)
		return -errno;
	if (!l->own)
		l->own = m; /* else it is the same, and the fault thread reads it */
	madvise(m, bytes, MADV_NOHUGEPAGE);
	madvise(m, bytes, MADV_DONTDUMP);
	madvise(m, bytes, MADV_DONTFORK);
	atomic_store(&l->own_filled, 0);
	CRASH_POINT("own.mapped");
	/* until this is done a fill gets ENOENT, and tries again */
	return uffd_register_missing(l->own_uffd, (uint64_t)m, bytes);
}

/* A page that no store can give back. */
static void lose(struct lease *l, uint64_t page, uint64_t before, const char *why)
{
	struct vm *vm = l->vm;
	bool cannot;
	int r;

	lease_hold_begin(l, HOLD_FAULT);
	r = uffd_poison(l->uffd, lease_client_address(l, page), PAGE_SIZE);
	lease_hold_end(l, HOLD_FAULT);
	cannot = r == -EINVAL || r == -ENOTTY;

	CRASH_POINT("lose.poisoned");
	ledger_move(l, page, before, PAGE_LOST);
	word_unlock(lease_word(l, page), word_make(PAGE_LOST, 0) | (before & WORD_PIN_MASK));
	CRASH_POINT("lose.unlocked");
	vm_forget(vm, before);
	vm_set_trouble(vm, false, "guest page %#llx is lost (%s); whoever touches it %s",
		(unsigned long long)(l->gpa + page * PAGE_SIZE), why,
		cannot ? "waits: this kernel cannot poison pages" : "gets a machine check (SIGBUS)");
	/* whoever waits must try again to get its machine check; where there is none it goes on waiting */
	if (!cannot)
		lease_wake(l, page, 1);
}

/* It is the worker that does jobs. */
static enum holder holder_of(enum fill_for who)
{
	return who == FILL_JOB ? HOLD_WORKER : HOLD_FAULT;
}

static bool run_is_empty(const uint64_t *before, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!word_is_empty(before[i]))
			return false;
	return true;
}

/* Those of the pages that are on disk, by as few reads as there are places, all under way at once.  How many pages of the run,
 * from the first on, have nothing left to be read there. */
static unsigned fetch_swapped(struct lease *l, struct bench *b, uint64_t page, unsigned count, const uint64_t *before)
{
	struct swap_page want[RUN_MAX];
	unsigned at[RUN_MAX], n = 0, got;

	for (unsigned i = 0; i < count; i++)
		if (word_state(before[i]) == PAGE_SWAPPED) {
			want[n] = (struct swap_page){ word_ref(before[i]), swap_number((uint16_t)l->id, page + i),
				b->buf + i * PAGE_SIZE };
			at[n++] = i;
		}
	got = n ? swap_read_pages(l->vm->stores.swap, &b->direct, want, n) : 0;
	return got < n ? at[got] : count;
}

/* Content of the pages into b->buf.  How many pages from the first on are there; *ret_error says why it stopped. */
static unsigned fetch(struct lease *l, struct bench *b, uint64_t page, unsigned count, const uint64_t *before,
	bool guest_waits, int *ret_error)
{
	struct vm *vm = l->vm;
	unsigned read = count > 1 ? fetch_swapped(l, b, page, count, before) : 0;
	int r = 0;

	/* one page by itself says what is wrong with it */
	count = read ? read : 1;
	for (unsigned i = 0; i < count; i++) {
		uint8_t *to = b->buf + i * PAGE_SIZE;

		if (word_is_empty(before[i]))
			memset(to, 0, PAGE_SIZE);
		else if (word_state(before[i]) == PAGE_SHARED)
			r = pool_read(atomic_load(&vm->pool), b, word_ref(before[i]), to, guest_waits && i == 0);
		else if (word_state(before[i]) != PAGE_SWAPPED || !read)
			r = store_read(&vm->stores, b, (uint16_t)l->id, page + i, before[i], to, guest_waits, &l->fault_stop);
		if (r < 0) {
			*ret_error = r;
			return i;
		}
	}
	return count;
}

static int put(struct lease *l, uint64_t to, const uint8_t *content, uint64_t length, uint64_t *ret_done)
{
	static _Atomic unsigned n;

	if (inject.copy_exists && atomic_fetch_add(&n, 1) % 7 == 6) {
		*ret_done = 0;
		return -EEXIST;
	}
	return content ? uffd_copy(l->own_uffd, to, content, length, ret_done) : uffd_zero(l->own_uffd, to, length, ret_done);
}

/* What EEXIST says, if it is true. */
static bool is_there(struct lease *l, uint64_t page, enum holder h)
{
	bool hole;

	if (inject.twin_exists_believed)
		return true;
	lease_hold_begin(l, h);
	hole = segment_is_hole(l->memory, page * PAGE_SIZE, PAGE_SIZE);
	lease_hold_end(l, h);
	return !hole;
}

/* `content` NULL: zeros.  How many pages are in place: all, or fewer if the lease ends meanwhile, or one cannot be put.  Pages of the run
 * that the memfd had already (bits in *ret_foreign) count as put. */
static unsigned put_frames(struct lease *l, uint64_t page, const uint8_t *content, unsigned count, enum holder h,
	uint64_t *ret_foreign)
{
	uint64_t to = (uint64_t)l->own + page * PAGE_SIZE, length = count * PAGE_SIZE, at = 0, done;
	static const struct timespec pause = { .tv_nsec = 1000000 };
	unsigned holes = 0;

	*ret_foreign = 0;
	while (at < length) {
		int r = put(l, to + at, content ? content + at : NULL, length - at, &done);

		at += done;
		holes = r == -EEXIST && !done ? holes + 1 : 0;
		if (at >= length)
			break;
		if (r == -EEXIST && is_there(l, page + at / PAGE_SIZE, h)) {
			*ret_foreign |= 1ull << (at / PAGE_SIZE);
			at += PAGE_SIZE;
			holes = 0;
		} else if (holes > EXISTS_TRIES || atomic_load(&l->fault_stop) || atomic_load(&l->ending)) {
			return (unsigned)(at / PAGE_SIZE);
		} else if (r == -ENOENT || r == -EEXIST) {
			sched_yield(); /* own_map is at work, or a zap */
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
static void settle_run(struct lease *l, uint64_t page, unsigned count, const uint64_t *before, enum fill_for who)
{
	unsigned swapped = 0, refaults = 0, ballooned = 0;
	uint64_t mapped = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t epoch = ledger_move(l, page + i, before[i], PAGE_RESIDENT);
		uint64_t now = word_make(PAGE_RESIDENT, epoch & 0xffff) | (before[i] & WORD_PIN_MASK);

		swapped += word_state(before[i]) == PAGE_SWAPPED;
		ballooned += word_state(before[i]) == PAGE_BALLOONED;
		if (!word_is_empty(before[i])) {
			/* needed again: it is in use */
			now |= 1ull << WORD_USE_SHIFT;
			refaults++;
		}
		word_record(lease_word(l, page + i), now);
		CRASH_POINT("fill.settled");
		vm_forget(l->vm, before[i]);
	}
	CRASH_POINT("fill.forgotten");
	COUNT(l->vm, swap_in_pages, swapped);
	COUNT(l->vm, refault_pages, refaults);
	COUNT(l->vm, balloon_touched_pages, ballooned);
	MOVES_END(&l->vm->stores);
	if (count > 1 || swapped) {
		lease_hold_begin(l, holder_of(who));
		uffd_continue(l->uffd, lease_client_address(l, page), count * PAGE_SIZE, &mapped);
		lease_hold_end(l, holder_of(who));
	}
	CRASH_POINT("fill.continued");
	for (unsigned i = 0; i < count; i++) {
		word *w = lease_word(l, page + i);

		word_unlock(w, atomic_load_explicit(w, memory_order_relaxed));
	}
	CRASH_POINT("fill.unlocked");
	if (who != FILL_JOB && mapped == count * PAGE_SIZE)
		lease_end_waits(l, page, count);
	else
		lease_wake(l, page, count);
}

/* What could not be brought in keeps its place, or is lost if a guest waits for it. */
static void settle_rest(struct lease *l, uint64_t page, unsigned have, unsigned count, const uint64_t *before,
	bool guest_waits, int error)
{
	if (error)
		atomic_fetch_add(error == -EBADMSG ? &l->vm->stores.checksum_errors : &l->vm->stores.swap_read_errors, 1);
	for (unsigned i = have; i < count; i++) {
		if (i == 0 && error && guest_waits && !atomic_load(&l->fault_stop)) {
			lose(l, page, before[0], word_state(before[0]) == PAGE_SWAPPED ? "swap file" :
				word_state(before[0]) == PAGE_SHARED ? "pool" : "compression cache");
		} else {
			word_unlock(lease_word(l, page + i), before[i]);
			lease_wake(l, page + i, 1);
		}
	}
	segment_uncharge(l->memory, count - have);
}

unsigned fill_run(struct lease *l, struct bench *b, uint64_t page, unsigned count, const uint64_t *before,
	enum fill_for who)
{
	bool guest_waits = who == FILL_FAULT, zero = run_is_empty(before, count);
	struct vm *vm = l->vm;
	uint64_t foreign = 0, filled;
	unsigned have;
	int error = 0;

	MOVES_BEGIN(&vm->stores);
	for (unsigned i = 0; i < count; i++)
		word_record(lease_word(l, page + i), before[i] | WORD_MOVING);
	CRASH_POINT("fill.recorded");
	have = zero ? count : fetch(l, b, page, count, before, guest_waits, &error);
	CRASH_POINT("fill.fetched");
	if (have)
		have = put_frames(l, page, zero ? NULL : b->buf, have, holder_of(who), &foreign);
	CRASH_POINT("fill.put");
	if (foreign)
		COUNT(vm, foreign_pages, (uint64_t)__builtin_popcountll(foreign));
	filled = atomic_fetch_add(&l->own_filled, have);
	if (filled < OWN_REFRESH_PAGES && filled + have >= OWN_REFRESH_PAGES)
		lease_request_refresh(l);
	if (have < count)
		settle_rest(l, page, have, count, before, guest_waits, error);
	if (have)
		settle_run(l, page, have, before, who);
	else
		MOVES_END(&vm->stores);
	return have;
}

static bool may_join(uint64_t first, uint64_t w)
{
	return fill_joins(first, w) || (inject.twin_balloon_ahead && !(w & WORD_BUSY) && word_state(w) == PAGE_BALLOONED);
}

unsigned fill_gather(struct lease *l, uint64_t page, unsigned have, unsigned most, uint64_t *before)
{
	uint64_t first = have ? before[0] : word_make(PAGE_ZERO, 0), seen;
	bool disk = word_state(have ? before[0] : page_map_read(&l->map, page)) == PAGE_SWAPPED;
	unsigned n = have;

	for (; n < most && page + n < l->pages; n++) {
		word *w = lease_word(l, page + n);

		if (page_map_touch(&l->map, page + n) < 0)
			break;
		seen = atomic_load_explicit(w, memory_order_acquire);
		/* who waits for what is in memory does not wait for the disk */
		if (!may_join(first, seen) || (word_state(seen) == PAGE_SWAPPED) != disk || segment_charge(l->memory, 1, CHARGE_GUEST) < 0)
			break;
		if (!word_lock(w, &before[n])) {
			segment_uncharge(l->memory, 1);
			break;
		}
		if (!may_join(first, before[n]) || (word_state(before[n]) == PAGE_SWAPPED) != disk) {
			word_unlock(w, before[n]);
			lease_wake(l, page + n, 1);
			segment_uncharge(l->memory, 1);
			break;
		}
	}
	return n;
}

unsigned fill_ahead(struct lease *l, struct bench *b, struct run range, enum fill_for who)
{
	uint64_t page = range.page, end = range.page + range.count;
	unsigned brought = 0;

	while (page < end && page < l->pages && !arena_is_short(l->vm->arena) && !atomic_load(&l->ending)) {
		uint64_t before[RUN_MAX];
		unsigned n = fill_gather(l, page, 0, end - page < RUN_MAX ? (unsigned)(end - page) : RUN_MAX, before);

		if (!n && word_state(page_map_read(&l->map, page)) != PAGE_RESIDENT)
			break;	/* in the balloon, lost, mapped, or no frame */
		if (n) {
			CRASH_POINT("ahead.locked");
			n = fill_run(l, b, page, n, before, who);
			if (!n)
				break;
		}
		brought += n;
		page += n ? n : 1;
	}
	COUNT(l->vm, around_pages, brought);
	return brought;
}

void fill_discarded(struct lease *l, uint64_t page, uint64_t before)
{
	uint64_t foreign;

	/* The frame of this page is charged in either case: the client punched it, or it is there and the event
	 * was late.  A zero page that meets data changes nothing. */
	put_frames(l, page, NULL, 1, HOLD_FAULT, &foreign);
	CRASH_POINT("discarded.put");
	if (!foreign)
		COUNT(l->vm, faults_discarded, 1);
	if (before & WORD_CLEAN) {
		/* what was hashed is not there any more; the marker costs the next write an event, and no more */
		share_dirtied(l, page, true);
		before &= ~WORD_CLEAN;
	}
	word_unlock(lease_word(l, page), before);
	CRASH_POINT("discarded.unlocked");
	lease_wake(l, page, 1);
}
