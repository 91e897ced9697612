/* Frames of the pool out, into its own stores; and the proof that its books are right.
 *
 *	take references, so that the entries live on > copy each frame into a store, error known > lock the word > is it resident,
 *	and held by nobody? > record, moving > punch > verify the hole > record > unlock
 *
 * A frame does not change, so the copy that is made before the lock is its content, and nobody is kept from it while it is
 * compressed.  A member that maps it gets a missing fault at its next access, and its fault thread brings the page back. */
#include "mem/pool_impl.h"

#include "mem/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PICK_STEPS 1024u

struct victims_of_pool {
	unsigned count;
	uint64_t entry[RUN_MAX], words[RUN_MAX];
};

/* The next entries that have a frame which nobody holds and that was not brought back since the hand was here; a reference
 * to each. */
static void pick(struct pool *p, struct victims_of_pool *v)
{
	v->count = 0;
	if (!atomic_load(&p->n[PAGE_RESIDENT]))
		return;
	pthread_mutex_lock(&p->lock);
	for (uint64_t n = 0; n < 2 * p->pages && v->count < RUN_MAX; n++) {
		/* fault threads want the lock as well */
		if (n % PICK_STEPS == PICK_STEPS - 1) {
			pthread_mutex_unlock(&p->lock);
			pthread_mutex_lock(&p->lock);
		}
		uint64_t e = p->hand = p->hand + 1 < p->pages ? p->hand + 1 : 1, w;

		if (e % 64 == 0 && !p->used[e / 64] && e + 63 < p->pages) {
			p->hand += 63;
			n += 63;
			continue;
		}
		if (!entry_is_used(p, e) || !p->entries[e].references || p->entries[e].holds)
			continue;
		w = entry_word(p, e);
		if ((w & WORD_BUSY) || word_state(w) != PAGE_RESIDENT)
			continue;
		if (w & WORD_USE_MASK) {
			atomic_compare_exchange_strong(&p->map.words[e], &w, w & ~WORD_USE_MASK);
			continue;
		}
		entry_count_reference(p, e, 1);
		v->entry[v->count++] = e;
	}
	pthread_mutex_unlock(&p->lock);
}

/* Lock those that may be taken; the others' stored copies go.  The frame is immutable, so a copy that was made before the
 * lock is the content. */
static uint64_t lock_victims(struct pool *p, const struct victims_of_pool *v, uint64_t stored)
{
	uint64_t locked = 0;

	for (unsigned i = 0; i < v->count; i++) {
		uint64_t w;
		bool mine;

		if (!(stored >> i & 1))
			continue;
		if (!word_lock(&p->map.words[v->entry[i]], &w)) {
			store_forget(&p->stores, v->words[i]);
			continue;
		}
		pthread_mutex_lock(&p->lock);
		mine = word_state(w) == PAGE_RESIDENT && !p->entries[v->entry[i]].holds;
		pthread_mutex_unlock(&p->lock);
		if (!mine) {
			word_unlock(&p->map.words[v->entry[i]], w);
			store_forget(&p->stores, v->words[i]);
			continue;
		}
		word_record(&p->map.words[v->entry[i]], v->words[i] | WORD_MOVING);
		locked |= 1ull << i;
	}
	return locked;
}

static bool punch_entries(struct pool *p, uint64_t first, unsigned count)
{
	(void)segment_make_hole(p->memory, first * PAGE_SIZE, count * PAGE_SIZE);
	return segment_is_hole(p->memory, first * PAGE_SIZE, count * PAGE_SIZE);
}

/* The kernel has zeroed the page and kept it, which it does in a huge page that a member made of free entries and has in its
 * hands.  The content goes back to where it was. */
static void put_back(struct pool *p, struct bench *b, uint64_t e, uint64_t stored)
{
	if (store_read(&p->stores, b, 0, e, stored, b->spare, false, &p->never) == 0)
		memcpy(entry_frame(p, e), b->spare, PAGE_SIZE);
	word_unlock(&p->map.words[e], word_make(PAGE_RESIDENT, 0) | WORD_USE_MASK);
	store_forget(&p->stores, stored);
}

/* Punch neighbours together, verify the holes. */
static unsigned take_frames(struct pool *p, struct bench *b, const struct victims_of_pool *v, uint64_t locked)
{
	unsigned taken = 0;

	for (unsigned i = 0, n; i < v->count; i += n) {
		bool hole;

		n = 1;
		if (!(locked >> i & 1))
			continue;
		while (i + n < v->count && (locked >> (i + n) & 1) && v->entry[i + n] == v->entry[i] + n)
			n++;
		CRASH_POINT("pool_evict.recorded");
		hole = punch_entries(p, v->entry[i], n);
		CRASH_POINT("pool_evict.punched");
		for (unsigned k = i; k < i + n; k++) {
			if (!hole && !punch_entries(p, v->entry[k], 1)) {
				put_back(p, b, v->entry[k], v->words[k]);
				continue;
			}
			pool_count_move(p, PAGE_RESIDENT, word_state(v->words[k]));
			word_unlock(&p->map.words[v->entry[k]], v->words[k]);
			taken++;
		}
	}
	CRASH_POINT("pool_evict.settled");
	segment_uncharge(p->memory, taken);
	return taken;
}

uint64_t pool_evict(struct pool *p, struct bench *b, uint64_t frames)
{
	uint64_t before, now, stored, swap, won = 0;
	struct victims_of_pool v;
	unsigned taken;

	if (pthread_mutex_trylock(&p->evicting))
		return 0;
	pool_reap(p);
	before = cache_charged_frames(p->stores.cache);
	while (won < frames) {
		pick(p, &v);
		if (!v.count)
			break;
		CRASH_POINT("pool_evict.picked");
		store_keep_up(&p->stores, b);
		MOVES_BEGIN(&p->stores);
		stored = swap = 0;
		for (unsigned i = 0; i < v.count; i++) {
			/* resident while we have a reference, and nobody but us takes frames */
			const uint8_t *frame = entry_frame(p, v.entry[i]);

			if (store_compress(&p->stores, b->codec, 0, v.entry[i], frame, &v.words[i])) {
				stored |= 1ull << i;
			} else {
				memcpy(b->buf + i * PAGE_SIZE, frame, PAGE_SIZE);
				swap |= 1ull << i;
			}
		}
		stored |= store_swap(&p->stores, 0, v.entry, b->buf, swap, v.words);
		CRASH_POINT("pool_evict.stored");
		taken = take_frames(p, b, &v, lock_victims(p, &v, stored));
		MOVES_END(&p->stores);
		for (unsigned i = 0; i < v.count; i++)
			pool_put(p, v.entry[i]);
		atomic_fetch_add(&p->evicted, taken);
		cache_trim(p->stores.cache, 1);
		won += taken;
		if (!taken)
			break;
	}
	now = cache_charged_frames(p->stores.cache);
	pthread_mutex_unlock(&p->evicting);
	if (now > before)
		return won > now - before ? won - (now - before) : won > 0;
	return won + (before - now);
}

/* ---- audit ---- */

static void differ(struct pool_audit *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void differ(struct pool_audit *a, const char *fmt, ...)
{
	va_list ap;

	a->ok = false;
	if (*a->first_wrong)
		return;
	va_start(ap, fmt);
	vsnprintf(a->first_wrong, sizeof a->first_wrong, fmt, ap);
	va_end(ap);
}

static uint64_t apart(uint64_t x, uint64_t y)
{
	return x > y ? x - y : y - x;
}

void pool_run_audit(struct pool *p, uint64_t references, uint64_t in_hand, struct pool_audit *a)
{
	static const struct timespec pause = { .tv_nsec = 500000 };
	struct pool_numbers n;
	uint64_t slack = 16 * RUN_MAX, slots, compressed;
	struct cache_numbers c;
	bool still = false;

	*a = (struct pool_audit){ .ok = true };
	for (unsigned i = 0; i < 8 && !still; i++) {
		uint64_t ended = atomic_load(&p->stores.moves_ended), begun = atomic_load(&p->stores.moves_begun);

		if (i)
			nanosleep(&pause, NULL);
		pool_numbers(p, &n);
		cache_get_numbers(p->stores.cache, &c);
		slots = swap_used_slots(p->stores.swap);
		compressed = c.live_objects;
		a->blocks_frames = segment_blocks(p->memory);
		a->charged_frames = atomic_load(&p->memory->frames);
		still = begun == ended && atomic_load(&p->stores.moves_begun) == begun;
	}
	if (still)
		slack = 0;
	a->entries = n.entries;
	a->resident = n.resident;
	a->references = n.references;
	if (apart(n.resident + n.compressed + n.swapped + n.lost, n.entries) > slack)
		differ(a, "%llu entries, %llu by their words", (unsigned long long)n.entries,
			(unsigned long long)(n.resident + n.compressed + n.swapped + n.lost));
	if (apart(compressed, n.compressed) > slack)
		differ(a, "the pool's cache holds %llu pages, %llu words refer to it", (unsigned long long)compressed,
			(unsigned long long)n.compressed);
	if (apart(slots, n.swapped) > slack)
		differ(a, "%llu slots of the pool's swap file are used, %llu words refer to it", (unsigned long long)slots,
			(unsigned long long)n.swapped);
	if (apart(a->blocks_frames, n.resident) > slack)
		differ(a, "the pool's memfd holds %llu pages, %llu entries are resident", (unsigned long long)a->blocks_frames,
			(unsigned long long)n.resident);
	/* charges come before pages: what a fault has charged and not used yet is not in the words */
	if (a->charged_frames + slack < n.resident || a->charged_frames > n.resident + slack + RUN_MAX)
		differ(a, "%llu entries of the pool are resident, %llu frames are charged", (unsigned long long)n.resident,
			(unsigned long long)a->charged_frames);
	if (references != UINT64_MAX && apart(references, n.references) > in_hand)
		differ(a, "%llu references to the pool are counted, %llu words have one", (unsigned long long)n.references,
			(unsigned long long)references);
}
