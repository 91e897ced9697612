/* The proof that the ledger is true, while the guest runs.
 *
 * A lease is walked in chunks.  The words of a chunk are locked, so nothing in it changes; each word is compared with
 * what the kernel says of the memfd: data if and only if resident.  Then they are unlocked
 * and woken: a guest waits for one chunk at the most.
 *
 * The sums are exact although the walk takes time: the ledger knows how far the hand has come, and counts every
 * change below it a second time (audit_moved).  At the end
 *
 *	sum of the words as they were seen + what moved below the hand = the ledger's counts now
 *
 * for each state, to the page.  Found and corrected, no failures: a resident word over a hole (the client punched
 * it: it reads as zero, as a discard does), and data under a page that is not resident (the client wrote to the memfd: what
 * it wrote is the page now, and it is charged).  Where no client does such a thing both must be 0: the torture
 * tests require it, because an eviction that left its page behind would look the same. */
#include "mem/share.h"

#include "base/clock.h"
#include "mem/inject.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOCK_NS (1 * NS_PER_S)

static void wrong(char *first, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void wrong(char *first, size_t size, const char *fmt, ...)
{
	va_list ap;

	if (*first)
		return;
	va_start(ap, fmt);
	vsnprintf(first, size, fmt, ap);
	va_end(ap);
}

/* Whether the memfd has data at this page, as the file system says. */
static bool has_data(struct lease *l, uint64_t page)
{
	off_t at = (off_t)(page * PAGE_SIZE), data;

	lease_hold_begin(l, HOLD_WORKER);
	data = lseek(l->memory->fd, at, SEEK_DATA);
	lease_hold_end(l, HOLD_WORKER);
	return data == at;
}

/* A bit for each page of [page, page + count) that is in the memfd, by the page cache.  SEEK_HOLE would walk to the end of
 * the data for every chunk: the square of a large lease.  mincore asks about these pages only; it does not see a page
 * that the host has swapped out, so has_data is asked where it disagrees with a word. */
static uint64_t cached_bits(struct lease *l, uint64_t page, unsigned count)
{
	unsigned char in[RUN_MAX];
	uint64_t bits = 0;

	if (!l->own || mincore(l->own + page * PAGE_SIZE, count * PAGE_SIZE, in) < 0)
		return 0;
	for (unsigned i = 0; i < count; i++)
		bits |= (uint64_t)(in[i] & 1) << i;
	return bits;
}

/* Whether no page of the range has data. */
static bool is_empty(struct lease *l, uint64_t page, unsigned count)
{
	bool empty;

	lease_hold_begin(l, HOLD_WORKER);
	empty = segment_is_hole(l->memory, page * PAGE_SIZE, count * PAGE_SIZE);
	lease_hold_end(l, HOLD_WORKER);
	return empty;
}

static void see(struct lease_audit *a, enum page_state s)
{
	a->zero += s == PAGE_ZERO;
	a->resident += s == PAGE_RESIDENT;
	a->shared += s == PAGE_SHARED;
	a->breaking += s == PAGE_BREAKING;
	a->compressed += s == PAGE_COMPRESSED;
	a->swapped += s == PAGE_SWAPPED;
	a->ballooned += s == PAGE_BALLOONED;
	a->lost += s == PAGE_LOST;
}

/* The client put a page where none was: it pays for it from now on. */
static uint64_t adopt(struct lease *l, uint64_t page, uint64_t before, struct lease_audit *a)
{
	uint64_t epoch;

	/* like any other page of a guest: it may not take what reclaim needs, nor pass the VM's limit */
	if (segment_charge(l->memory, 1, CHARGE_ADOPT) < 0) {
		vm_set_trouble(l->vm, true, "it wrote to its memory behind the daemon's back, and there is no frame for that");
		return before;
	}
	epoch = ledger_move(l, page, before, PAGE_RESIDENT);
	a->foreign++;
	COUNT(l->vm, foreign_pages, 1);
	return word_make(PAGE_RESIDENT, epoch & 0xffff) | (before & WORD_PIN_MASK);
}

/* The client punched it behind our back: it is what a discard would have left. */
static uint64_t drop(struct lease *l, uint64_t page, uint64_t before, struct lease_audit *a)
{
	if (before & WORD_CLEAN)
		atomic_store_explicit(&l->share->sights[page], 0, memory_order_relaxed);
	ledger_move(l, page, before, PAGE_ZERO);
	a->discarded++;
	return word_make(PAGE_ZERO, 0) | (before & WORD_PIN_MASK);
}

/* The client maps the pool there, and put a page into the lease behind our back: nobody reads it. */
static void take_out(struct lease *l, uint64_t page, struct lease_audit *a)
{
	struct batch b = { .count = 1, .page = { page } };

	a->foreign++;
	COUNT(l->vm, foreign_pages, 1);
	if (!batch_punch(l, &b, 1, NULL))
		vm_set_trouble(l->vm, true, "it wrote to its memory behind the daemon's back, and holds the page");
}

/* Pages whose words were never written: holes, or the client's doing.  false: look at the words. */
static bool audit_untouched(struct lease *l, uint64_t page, unsigned count, struct lease_audit *a)
{
	bool still;

	if (!is_empty(l, page, count))
		return false;
	/* a fault may have come first: it writes the block before it counts, and counts under this lock */
	pthread_mutex_lock(&l->ledger_lock);
	still = !page_map_has(&l->map, page);
	if (still) {
		a->zero += count;
		l->audit_hand = page + count;
	}
	pthread_mutex_unlock(&l->ledger_lock);
	return still;
}

/* Words that a client holds (it owes the answer to an order) are waited for once, not each by itself. */
static void audit_chunk(struct lease *l, uint64_t page, unsigned count, struct lease_audit *a)
{
	uint64_t words[RUN_MAX], locked = 0, data, unpaid = 0;

	if (!page_map_has(&l->map, page) && audit_untouched(l, page, count, a))
		return;
	if (page_map_touch(&l->map, page) < 0) {
		vm_set_trouble(l->vm, true, "it wrote to its memory behind the daemon's back, and there is no frame for that");
		a->in_transit += count;
		a->zero += count;
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		if (lease_lock_word(l, page + i, a->in_transit ? 1 : LOCK_NS, &words[i])) {
			locked |= 1ull << i;
		} else {
			words[i] = page_map_read(&l->map, page + i);
			a->in_transit++;
		}
	}
	data = cached_bits(l, page, count);
	for (unsigned i = 0; i < count; i++) {
		enum page_state s = word_state(words[i]);
		bool has = data >> i & 1;

		if (!has && (s == PAGE_RESIDENT || !l->own))
			has = has_data(l, page + i);

		if (locked >> i & 1) {
			if (s == PAGE_RESIDENT && !has) {
				words[i] = drop(l, page + i, words[i], a);
				word_record(lease_word(l, page + i), words[i]);
				CRASH_POINT("audit.dropped");
				unpaid++;
			} else if (is_mapped(words[i]) && has) {
				take_out(l, page + i, a);
				has = false;
			} else if (s != PAGE_RESIDENT && has) {
				uint64_t stored = words[i];

				MOVES_BEGIN(&l->vm->stores);
				words[i] = adopt(l, page + i, stored, a);
				word_record(lease_word(l, page + i), words[i]);
				CRASH_POINT("audit.adopted");
				if (word_state(words[i]) == PAGE_RESIDENT)
					vm_forget(l->vm, stored);
				MOVES_END(&l->vm->stores);
			}
			if (words[i] & WORD_MOVING) {
				a->wrong++;
				wrong(a->first_wrong, sizeof a->first_wrong, "page %llu is moving and nobody holds it",
					(unsigned long long)(page + i));
			}
		}
		see(a, word_state(words[i]));
		a->data += has;
	}
	segment_uncharge(l->memory, unpaid);
	pthread_mutex_lock(&l->ledger_lock);
	l->audit_hand = page + count;
	pthread_mutex_unlock(&l->ledger_lock);
	for (unsigned i = 0; i < count; i++)
		if (locked >> i & 1)
			word_unlock(lease_word(l, page + i), words[i]);
	if (locked)
		lease_wake(l, page, count);
}

static void compare(struct lease_audit *a, const char *what, uint64_t seen, int64_t moved, uint64_t counted)
{
	if ((int64_t)seen + moved == (int64_t)counted)
		return;
	a->wrong++;
	wrong(a->first_wrong, sizeof a->first_wrong, "%llu %s pages by the words, %llu by the ledger",
		(unsigned long long)((int64_t)seen + moved), what, (unsigned long long)counted);
}

/* Pages that are shared and not breaking must not have private copies: nobody was charged for one.  A write that has made its
 * copy and whose event is not read yet is seen again a moment later, as a breaking page.  Only where the pool has the frame: the
 * library may have to touch a page to tell, and that would bring it back. */
static void audit_private(struct lease *l, uint64_t page, unsigned count, struct lease_audit *a)
{
	static const struct timespec pause = { .tv_nsec = 2000000 };
	struct pool *pool = atomic_load(&l->vm->pool);
	uint64_t private_bits = UINT64_MAX, bits;

	for (unsigned tries = 0; private_bits && tries < 4; tries++) {
		uint64_t mask = 0;

		for (unsigned i = 0; i < count; i++) {
			uint64_t w = page_map_read(&l->map, page + i);

			if (word_state(w) == PAGE_SHARED && is_mapped(w) && !(w & (WORD_BUSY | WORD_MOVING)) &&
				pool_state(pool, word_ref(w)) == PAGE_RESIDENT)
				mask |= 1ull << i;
		}
		if (tries)
			nanosleep(&pause, NULL);
		private_bits &= mask;
		if (!private_bits || share_ask_private(l, page, private_bits, &bits) < 0)
			return;
		private_bits &= bits;
	}
	if (!private_bits)
		return;
	a->private_pages += (unsigned)__builtin_popcountll(private_bits);
	a->wrong++;
	wrong(a->first_wrong, sizeof a->first_wrong, "page %llu is shared, and its client has a private copy",
		(unsigned long long)(page + (uint64_t)__builtin_ctzll(private_bits)));
}

void lease_run_audit(struct lease *l, struct lease_audit *a)
{
	uint64_t charged, sum, held;

	*a = (struct lease_audit){ .pages = l->pages };
	pthread_mutex_lock(&l->ledger_lock);
	l->audit_hand = 0;
	memset(l->audit_moved, 0, sizeof l->audit_moved);
	pthread_mutex_unlock(&l->ledger_lock);

	for (uint64_t page = 0; page < l->pages; page += RUN_MAX) {
		audit_chunk(l, page, (unsigned)(l->pages - page < RUN_MAX ? l->pages - page : RUN_MAX), a);
		if (atomic_load(&l->vm->pages[PAGE_SHARED]) && atomic_load(&l->vm->has_orders))
			audit_private(l, page, (unsigned)(l->pages - page < RUN_MAX ? l->pages - page : RUN_MAX), a);
		lease_serve_reclaim(l);
	}

	pthread_mutex_lock(&l->ledger_lock);
	/* a page that could not be locked was counted as it looked, and may have settled before the hand passed */
	if (!a->in_transit) {
		compare(a, "zero", a->zero, l->audit_moved[PAGE_ZERO], l->count[PAGE_ZERO]);
		compare(a, "resident", a->resident, l->audit_moved[PAGE_RESIDENT], l->count[PAGE_RESIDENT]);
		compare(a, "shared", a->shared, l->audit_moved[PAGE_SHARED], l->count[PAGE_SHARED]);
		compare(a, "breaking", a->breaking, l->audit_moved[PAGE_BREAKING], l->count[PAGE_BREAKING]);
		compare(a, "compressed", a->compressed, l->audit_moved[PAGE_COMPRESSED], l->count[PAGE_COMPRESSED]);
		compare(a, "swapped", a->swapped, l->audit_moved[PAGE_SWAPPED], l->count[PAGE_SWAPPED]);
		compare(a, "ballooned", a->ballooned, l->audit_moved[PAGE_BALLOONED], l->count[PAGE_BALLOONED]);
		compare(a, "lost", a->lost, l->audit_moved[PAGE_LOST], l->count[PAGE_LOST]);
	}
	sum = l->count[PAGE_ZERO] + l->count[PAGE_RESIDENT] + l->count[PAGE_COMPRESSED] + l->count[PAGE_SWAPPED] +
		l->count[PAGE_LOST] + l->count[PAGE_SHARED] + l->count[PAGE_BREAKING] + l->count[PAGE_BALLOONED];
	charged = atomic_load(&l->memory->frames);
	held = l->count[PAGE_RESIDENT] + l->count[PAGE_BREAKING];
	if (charged < held) {
		a->wrong++;
		wrong(a->first_wrong, sizeof a->first_wrong, "%llu pages are resident or breaking, %llu frames are charged",
			(unsigned long long)held, (unsigned long long)charged);
	}
	/* what is charged and not held is in the hands of the fault thread, one run at the most, or of a home order */
	if (charged > held + RUN_MAX + (l->share && l->share->order.pending ? ORDER_PAGES : 0)) {
		a->wrong++;
		wrong(a->first_wrong, sizeof a->first_wrong, "%llu frames are charged for %llu resident or breaking pages",
			(unsigned long long)charged, (unsigned long long)held);
	}
	l->audit_hand = 0;
	pthread_mutex_unlock(&l->ledger_lock);
	if (sum != l->pages) {
		a->wrong++;
		wrong(a->first_wrong, sizeof a->first_wrong, "the states add up to %llu of %llu pages",
			(unsigned long long)sum, (unsigned long long)l->pages);
	}
}

static uint64_t difference(uint64_t x, uint64_t y)
{
	return x > y ? x - y : y - x;
}

/* A store's content and the words that refer to it change one after the other, inside an act that is counted at its
 * begin and its end.  If no act is under way and none has begun meanwhile, they are equal to the page; in all the
 * traffic of a busy VM there may be no such instant, and they differ by what is in the hands of its threads. */
static void compare_stores(struct vm *vm, struct vm_audit *a, struct cache_numbers *c)
{
	static const struct timespec pause = { .tv_nsec = 500000 };
	uint64_t slack = 0;
	bool still = false;

	for (unsigned i = 0; i < 8 && !still; i++) {
		uint64_t ended = atomic_load(&vm->stores.moves_ended), begun = atomic_load(&vm->stores.moves_begun);

		if (i)
			nanosleep(&pause, NULL);
		cache_get_numbers(vm->stores.cache, c);
		a->cache_live_pages = c->live_objects;
		a->cache_map_pages = atomic_load(&vm->pages[PAGE_COMPRESSED]);
		a->swap_used_slots = swap_used_slots(vm->stores.swap);
		a->swap_map_pages = atomic_load(&vm->pages[PAGE_SWAPPED]);
		still = begun == ended && atomic_load(&vm->stores.moves_begun) == begun;
	}
	if (!still)
		list_foreach(i, &vm->leases)
			slack += 4 * RUN_MAX;
	if (difference(a->cache_live_pages, a->cache_map_pages) > slack) {
		a->ok = false;
		wrong(a->first_wrong, sizeof a->first_wrong, "the cache holds %llu pages, %llu words refer to it",
			(unsigned long long)a->cache_live_pages, (unsigned long long)a->cache_map_pages);
	}
	if (difference(a->swap_used_slots, a->swap_map_pages) > slack) {
		a->ok = false;
		wrong(a->first_wrong, sizeof a->first_wrong, "%llu slots of the swap file are used, %llu words refer to it",
			(unsigned long long)a->swap_used_slots, (unsigned long long)a->swap_map_pages);
	}
}

void vm_audit_stores(struct vm *vm, struct vm_audit *a)
{
	struct cache_numbers c;

	a->ok = a->leases.wrong == 0;
	snprintf(a->first_wrong, sizeof a->first_wrong, "%s", a->leases.first_wrong);
	compare_stores(vm, a, &c);
	a->cache_blocks_frames = c.blocks_frames;
	a->cache_charged_frames = c.charged_frames;
	a->lease_blocks_frames = a->lease_charged_frames = 0;
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		a->lease_blocks_frames += segment_blocks(l->memory);
		a->lease_charged_frames += atomic_load(&l->memory->frames);
	}
	if (c.blocks_frames > c.expected_frames || c.blocks_frames + c.trimming_frames < c.expected_frames ||
		c.blocks_frames > c.charged_frames) {
		a->ok = false;
		wrong(a->first_wrong, sizeof a->first_wrong, "the cache has written %llu pages, its memfd holds %llu, %llu are charged",
			(unsigned long long)c.expected_frames, (unsigned long long)c.blocks_frames, (unsigned long long)c.charged_frames);
	}
}
