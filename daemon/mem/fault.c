/* Faults: one thread per lease that reads one event at a time, blocking, and fills.
 *
 * One event per read, because a waiter that was woken before its event was read takes the event with it: reading
 * several at a time brings events of pages that were filled since.  Blocking and unpinned, because the wake-up is
 * cheapest on the core where the fault happened.
 *
 *	event	word		act
 *	MISSING	busy		drop: whoever clears busy wakes, and the access faults again
 *	MISSING	RESIDENT	the client punched it out itself (or the event is late): zero page unless there is one
 *	MISSING	ZERO ...	charge a frame, lock, fill
 *	MISSING	BALLOONED	the same, with zeros, and of this page only: its neighbours stay in the balloon
 *	MISSING	mapped		the pool's frame was taken: bring it back for all who share it (share.c)
 *	MISSING	LOST		poison again
 *	WP	busy		drop: un-protecting now would take the protection from under an eviction
 *	WP	SHARED, mapped	break (share.c)
 *	WP	else		lock, un-protect, unlock: a clean page is written to, or a marker outlived its eviction
 *
 * A fault waits for memory only when the arena is truly empty, and before it locks its word, so that the page can
 * meanwhile be audited, written back or discarded.  Nothing here allocates, logs, or waits for another VM's disk.
 *
 * Sequential readers: a fault that follows the last page of a run doubles the run (up to fault_around); any other
 * starts again with one page.  So a wrong guess is never repeated, and a stream of n pages costs about n / 64 events.
 * Pages of the run that are resident already are passed over.
 *
 * Of a stream that has its widest run the lease's worker brings in the next one meanwhile, all but its first page:
 *
 *	... in place | P | in place (worker, at the last fault) | P + 64 | the worker, from now on | P + 128
 *
 * So a stream makes an event at each 64th page only, finds the others in place, and what it reads is decompressed beside it,
 * on another processor if there is one.  No more is guessed than it would have asked for next.  What is only zeros costs
 * less than to ask.  Two threads on one range: each tries the words, and leaves alone those that the other has.  A guest that comes
 * to a page that the worker is at work on waits for it as for an eviction; if the worker has not come to it (it evicts, or its
 * client holds it), the fault is one like any other.
 *
 * Faults that follow no order but lie near one another (a guest that goes on to another part of its memory) get the rest of their
 * block of 64 from the worker: where each is an event of its own, the events are what takes the time.  That they lie near one
 * another is seen in the last 256: six of them in one block when memory is not short (chance alone makes that of one fault in
 * 250 on a guest of 64 MiB), two when more is free than reclaim would make.  Pages that were never
 * touched or hold zeros ask for nothing, so a sparse guest stays sparse. */
#include "mem/vm_impl.h"

#include "base/clock.h"
#include "mem/inject.h"
#include "mem/locked.h"
#include "mem/uffd.h"

#include <errno.h>
#include <time.h>

#define WAIT_NS	      (20 * NS_PER_MS)
#define BREAK_WAIT_NS (1 * NS_PER_S)
#define NEAR	      6u	/* of the last faults, in one block: the rest of it is wanted too; */
#define NEAR_ROOMY    2u	/* with so much free that nobody else would have it */

static unsigned stream_window(struct lease *l, uint64_t page, struct stream **ret)
{
	unsigned max = atomic_load_explicit(&l->vm->settings->fault_around_pages, memory_order_relaxed);
	struct stream *oldest = &l->streams[0];

	max = max < RUN_MAX ? max : RUN_MAX;
	l->stream_clock++;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *s = &l->streams[i];

		if (s->window && page >= s->next && page <= s->reach) {
			s->age = l->stream_clock;
			s->window = s->window * 2 < max ? s->window * 2 : max;
			*ret = s;
			return s->window;
		}
		if (s->age < oldest->age)
			oldest = s;
	}
	*oldest = (struct stream){ .window = 1, .age = l->stream_clock };
	*ret = oldest;
	return 1;
}

/* Wait for a frame, or for the end of a block, holding nothing.  0, or -ESHUTDOWN when the lease ends meanwhile. */
static int charge_or_wait(struct lease *l)
{
	struct vm *vm = l->vm;
	bool waited = false, blocked = false;
	int r;

	while ((r = segment_charge(l->memory, 1, CHARGE_GUEST)) < 0) {
		if (atomic_load(&l->fault_stop))
			return -ESHUTDOWN;
		if (r == -EBUSY) {
			COUNT(vm, blocked_waits, !blocked);
			blocked = true;
		} else {
			COUNT(vm, frame_waits, !waited);
			waited = true;
			arena_poke(vm->arena);
		}
		account_wait(&vm->account, WAIT_NS);
	}
	return 0;
}

static bool needs_frame(uint64_t w)
{
	return word_state(w) != PAGE_RESIDENT && word_state(w) != PAGE_LOST && !is_mapped(w);
}

/* A frame of the pool for the entry that `w` maps, if it has none now. */
static int charge_pool_or_wait(struct lease *l, uint64_t w, bool *ret_charged)
{
	struct pool *pool = atomic_load(&l->vm->pool);

	*ret_charged = false;
	while (pool_needs_frame(pool, word_ref(w))) {
		if (pool_charge(pool) == 0) {
			CRASH_POINT("fault.pool_charged");
			*ret_charged = true;
			return 0;
		}
		if (atomic_load(&l->fault_stop))
			return -ESHUTDOWN;
		arena_poke(l->vm->arena);
		account_wait(&l->vm->account, WAIT_NS);
	}
	return 0;
}

/* A frame of a pool is not the VM's own, but a VM that is blocked takes no more of those either. */
static int wait_for_block(struct lease *l)
{
	if (account_is_blocked(&l->vm->account))
		COUNT(l->vm, blocked_waits, 1);
	while (account_is_blocked(&l->vm->account)) {
		if (atomic_load(&l->fault_stop))
			return -ESHUTDOWN;
		account_wait(&l->vm->account, WAIT_NS);
	}
	return 0;
}

/* Whether the page still maps the entry that it did when frames were charged for it. */
static bool maps_same(uint64_t seen, uint64_t w)
{
	return is_mapped(w) && word_state(w) == word_state(seen) && word_ref(w) == word_ref(seen);
}

/* The access waits until whoever has the page is done with it.  For the measurement only: nobody is woken by it. */
static void note_wait(struct lease *l, uint64_t page, uint64_t began_ns)
{
	COUNT(l->vm, faults_busy, 1);
	pthread_mutex_lock(&l->ledger_lock);
	for (unsigned i = 0; i < WAITS; i++) {
		if (l->waits[i].began_ns)
			continue;
		l->waits[i] = (struct wait){ page, began_ns };
		stall_begin(&l->vm->stall, began_ns);
		atomic_fetch_add(&l->n_waits, 1);
		/* Either the holder sees the count after its unlock, or we see that it has unlocked. */
		atomic_thread_fence(memory_order_seq_cst);
		if (!(atomic_load(lease_word(l, page)) & WORD_BUSY)) {
			l->waits[i].began_ns = 0;
			stall_end(&l->vm->stall, began_ns);
			atomic_fetch_sub(&l->n_waits, 1);
		}
		break;
	}
	pthread_mutex_unlock(&l->ledger_lock);
}

static void missing_in_pool(struct lease *l, struct bench *b, uint64_t page, uint64_t seen, uint64_t began_ns)
{
	struct vm *vm = l->vm;
	uint64_t before;
	bool charged;

	if (wait_for_block(l) < 0 || charge_pool_or_wait(l, seen, &charged) < 0)
		return;
	if (!word_lock(lease_word(l, page), &before)) {
		if (charged)
			pool_uncharge(atomic_load(&vm->pool));
		note_wait(l, page, began_ns);
		return;
	}
	if (!maps_same(seen, before)) {
		word_unlock(lease_word(l, page), before);
		if (charged)
			pool_uncharge(atomic_load(&vm->pool));
		lease_wake(l, page, 1);
		return;
	}
	COUNT(vm, faults_shared, 1);
	share_fill(l, b, page, before, charged);
	began_ns = now_ns() - began_ns;
	histogram_add(&vm->latency[FAULT_SHARED], began_ns);
	COUNT(vm, stall_ns, began_ns);
}

/* A stream at its widest finds the window behind its next page in place. */
static void ask_ahead(struct lease *l, uint64_t next)
{
	uint64_t left = next < l->pages ? l->pages - next : 0;

	if (left > 1)
		lease_request_ahead(l, (struct run){ next + 1, (left < RUN_MAX ? left : RUN_MAX) - 1 });
}

/* A page that was stored was needed, out of any order: perhaps its block is. */
static void ask_around(struct lease *l, uint64_t page)
{
	unsigned size = atomic_load_explicit(&l->vm->settings->fault_around_pages, memory_order_relaxed), near = 1;
	uint64_t block;

	size = size < RUN_MAX ? size : RUN_MAX;
	/* at its own limit what is brought would push out what is used: 4 to 6 times the pages were read and evicted so, for a
	 * twentieth of the faults */
	if (size < 2 || !account_is_roomy(&l->vm->account))
		return;
	block = page / size;
	for (unsigned i = 0; i < RECENT_FAULTS; i++)
		near += l->recent[i] == (uint32_t)block + 1;
	l->recent[l->recent_at++ % RECENT_FAULTS] = (uint32_t)block + 1;
	if (near >= (arena_is_roomy(l->vm->arena) ? NEAR_ROOMY : NEAR))
		lease_request_ahead(l, (struct run){ block * size, size });
}

static void missing(struct lease *l, struct bench *b, uint64_t page, uint64_t began_ns)
{
	struct vm *vm = l->vm;
	uint64_t before[RUN_MAX], client = lease_client_address(l, page);
	enum fault_cause cause;
	struct stream *s;
	unsigned window, n;
	bool charged, poisoned;

	/* words of a block that was never written need its charge first */
	while (page_map_touch(&l->map, page) < 0) {
		if (atomic_load(&l->fault_stop))
			return;
		arena_poke(vm->arena);
		account_wait(&vm->account, WAIT_NS);
	}
	before[0] = atomic_load_explicit(lease_word(l, page), memory_order_acquire);
	if (is_mapped(before[0]) && !(before[0] & WORD_BUSY)) {
		missing_in_pool(l, b, page, before[0], began_ns);
		return;
	}
	charged = !(before[0] & WORD_BUSY) && needs_frame(before[0]);
	if (charged && charge_or_wait(l) < 0)
		return;
	CRASH_POINT("fault.charged");
	/* The word may have changed since: what counts is what the lock finds. */
	if ((before[0] & WORD_BUSY) || !word_lock(lease_word(l, page), &before[0])) {
		segment_uncharge(l->memory, charged);
		note_wait(l, page, began_ns);
		return;
	}
	if (needs_frame(before[0]) != charged || is_mapped(before[0])) {
		/* it was evicted, filled or discarded in between: let the access come again */
		word_unlock(lease_word(l, page), before[0]);
		segment_uncharge(l->memory, charged);
		lease_wake(l, page, 1);
		return;
	}
	switch (word_state(before[0])) {
	case PAGE_RESIDENT:
		fill_discarded(l, page, before[0]);
		return;
	case PAGE_LOST:
		/* without UFFDIO_POISON the access stays blocked: never zeros */
		lease_hold_begin(l, HOLD_FAULT);
		poisoned = uffd_poison(l->uffd, client, PAGE_SIZE) == 0;
		lease_hold_end(l, HOLD_FAULT);
		if (poisoned) {
			word_unlock(lease_word(l, page), before[0]);
			lease_wake(l, page, 1);
		} else {
			word_unlock(lease_word(l, page), before[0]);
		}
		return;
	case PAGE_COMPRESSED:
		cause = FAULT_COMPRESSED;
		COUNT(vm, faults_compressed, 1);
		break;
	case PAGE_SWAPPED:
		cause = FAULT_SWAPPED;
		COUNT(vm, faults_swapped, 1);
		break;
	case PAGE_SHARED:
		cause = FAULT_SHARED;
		COUNT(vm, faults_shared, 1);
		break;
	default:
		cause = FAULT_ZERO;
		COUNT(vm, faults_zero, 1);
	}
	window = stream_window(l, page, &s);
	/* who touches one page of the balloon has not taken the next one back */
	if (word_state(before[0]) == PAGE_BALLOONED)
		window = 1;
	if (window > 1 && arena_is_short(vm->arena))
		window = 1;
	n = fill_gather(l, page, 1, window, before);
	CRASH_POINT("fault.locked");
	for (unsigned i = 0; i < n && !s->stored; i++)
		s->stored = !word_is_empty(before[i]);
	if (window == RUN_MAX && s->stored)
		ask_ahead(l, page + window);
	n = fill_run(l, b, page, n, before, FILL_FAULT);
	s->next = page + (n ? n : 1);
	s->reach = page + window;
	if (n > 1)
		COUNT(vm, around_pages, n - 1);
	began_ns = now_ns() - began_ns;
	histogram_add(&vm->latency[cause], began_ns);
	COUNT(vm, stall_ns, began_ns);
	if (n && n < window)
		fill_ahead(l, b, (struct run){ page + n, window - n }, FILL_AHEAD);
	else if (n && window == 1 && !word_is_empty(before[0]))
		ask_around(l, page);
}

/* The first write to a shared page.  Its frames are charged before the word is locked, like any other's. */
static void break_page(struct lease *l, struct bench *b, uint64_t page, uint64_t seen, uint64_t began_ns)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };
	struct vm *vm = l->vm;
	uint64_t before;
	bool pool_charged;

	/* What is not home yet can only be had from the client: it waits for its own library.  But not for ever, because
	 * the thread that writes may be the one that would answer. */
	if (!share_may_break(l)) {
		COUNT(vm, break_waits, 1);
		while (!share_may_break(l) && now_ns() - began_ns < BREAK_WAIT_NS && !atomic_load(&l->fault_stop))
			nanosleep(&pause, NULL);
	}
	if (charge_or_wait(l) < 0)
		return;
	if (charge_pool_or_wait(l, seen, &pool_charged) < 0) {
		segment_uncharge(l->memory, 1);
		return;
	}
	if (word_lock(lease_word(l, page), &before)) {
		if (maps_same(seen, before)) {
			CRASH_POINT("break.locked");
			share_break(l, b, page, before, pool_charged);
			began_ns = now_ns() - began_ns;
			histogram_add(&vm->latency[FAULT_BREAK], began_ns);
			COUNT(vm, stall_ns, began_ns);
			return;
		}
		word_unlock(lease_word(l, page), before);
		lease_wake(l, page, 1);
	} else {
		note_wait(l, page, began_ns);
	}
	segment_uncharge(l->memory, 1);
	if (pool_charged)
		pool_uncharge(atomic_load(&vm->pool));
}

static void protected_write(struct lease *l, struct bench *b, uint64_t page, uint64_t began_ns)
{
	struct vm *vm = l->vm;
	uint64_t before;

	COUNT(vm, faults_protected, 1);
	if (page_map_touch(&l->map, page) < 0)
		return;
	before = atomic_load_explicit(lease_word(l, page), memory_order_acquire);
	if (word_state(before) == PAGE_SHARED && is_mapped(before) && !(before & WORD_BUSY)) {
		break_page(l, b, page, before, began_ns);
		return;
	}
	if (!word_lock(lease_word(l, page), &before)) {
		note_wait(l, page, began_ns);
		return;
	}
	if (before & WORD_CLEAN) {
		share_dirtied(l, page, true);
		before &= ~WORD_CLEAN;
	}
	/* it was shared since we looked: the access comes again */
	if (word_state(before) != PAGE_SHARED || !is_mapped(before)) {
		lease_hold_begin(l, HOLD_FAULT);
		uffd_unprotect(l->uffd, lease_client_address(l, page), PAGE_SIZE);
		lease_hold_end(l, HOLD_FAULT);
	}
	CRASH_POINT("write.unprotected");
	word_unlock(lease_word(l, page), before);
	CRASH_POINT("write.unlocked");
	lease_wake(l, page, 1);
	histogram_add(&vm->latency[FAULT_PROTECTED], now_ns() - began_ns);
}

void *fault_main(void *arg)
{
	struct lease *l = arg;
	struct vm *vm = l->vm;
	struct bench *b = &l->fault_bench;

	locked_stack();
	bench_lock(b);
	while (!atomic_load(&l->fault_stop)) {
		struct uffd_fault f;
		uint64_t began_ns, page;
		int r = uffd_read(l->uffd, &f);

		if (r == -EINTR || r == 0)
			continue;
		if (r < 0)
			break; /* not a descriptor that we can read: only its own client waits */
		began_ns = now_ns();
		COUNT(vm, events, 1);
		page = (f.address - l->address) >> PAGE_SHIFT;
		if (f.address < l->address || page >= l->pages)
			continue; /* the client registered something else: nobody's business but its own */
		atomic_store_explicit(&l->serving_ns, began_ns, memory_order_relaxed);
		stall_begin(&vm->stall, began_ns);
		if (f.missing)
			missing(l, b, page, began_ns);
		else
			protected_write(l, b, page, began_ns);
		stall_end(&vm->stall, now_ns());
		atomic_store_explicit(&l->serving_ns, 0, memory_order_relaxed);
	}
	atomic_store(&l->fault_ended, true);
	return NULL;
}
