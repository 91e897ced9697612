#include "mem/cache.h"

#include "mem/inject.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLASS_BYTES	 16u
#define CLEAN_WINDOW	 256u	/* of the oldest blocks, searched for the sparsest */
#define CLEAN_DEAD_SHARE 16u	/* clean when more than 1/16 is dead */
#define CAP_BLOCKS_MIN	 4u
#define REF_CLASS_SHIFT	 40		/* of 48 bits: 16 TiB of cache, objects of up to 4 KiB */
#define SEQ_MIDDLE	 (1ull << 63)
#define SEQ_PAGE	 UINT32_MAX	/* the page of the object that holds it */

enum block_state { BLOCK_EMPTY, BLOCK_DEAD, BLOCK_OPEN, BLOCK_SEALED, BLOCK_TAKEN };

struct block {
	uint32_t live;		/* bytes of live objects */
	uint32_t fill;		/* bytes used from the start */
	uint32_t prev, next;	/* log order, or a free list */
	uint8_t state;
	uint8_t written;	/* pages of it that the memfd holds */
	bool ragged;		/* found with holes: nothing in it can be read */
};

struct cache {
	struct segment *segment;
	const struct mem_settings *settings;
	uint64_t vm_size_bytes;
	pthread_mutex_t lock;
	struct block *blocks;
	uint32_t n_blocks;
	uint32_t used_blocks;		/* blocks above were never touched */
	uint32_t oldest, newest;	/* the log of sealed blocks */
	uint32_t empty, dead;		/* free lists: not charged / charged */
	uint32_t n_dead;
	uint32_t open[2];		/* arrivals, survivors */
	uint64_t next_seq, first_seq;	/* of the next block at the new end, of the last at the old end */
	uint64_t held_blocks;		/* charged */
	uint64_t live_bytes, live_objects;
	uint64_t written_pages;
	uint64_t trimming_pages;	/* of these, in a block that is being given back */
};

static uint32_t object_bytes(unsigned length)
{
	return (uint32_t)(sizeof(struct cache_object) + length + CLASS_BYTES - 1) / CLASS_BYTES * CLASS_BYTES;
}

static uint64_t make_ref(uint64_t offset, uint32_t bytes)
{
	return offset / CLASS_BYTES | (uint64_t)(bytes / CLASS_BYTES) << REF_CLASS_SHIFT;
}

uint64_t cache_offset(uint64_t ref)
{
	return (ref & ((1ull << REF_CLASS_SHIFT) - 1)) * CLASS_BYTES;
}

static uint32_t ref_bytes(uint64_t ref)
{
	return (uint32_t)(ref >> REF_CLASS_SHIFT) * CLASS_BYTES;
}

uint64_t cache_object_bytes(const struct cache_object *o)
{
	return object_bytes(o->length);
}

bool cache_is_whole(const struct cache_object *o, uint64_t ref)
{
	return object_bytes(o->length) == ref_bytes(ref);
}

static struct cache_object *seq_object(const struct cache *c, uint32_t b)
{
	return (struct cache_object *)(c->segment->addr + (uint64_t)b * CACHE_BLOCK_BYTES);
}

/* The pages that there are of each block: from its first on, unless it was being given back. */
static void find_blocks(struct cache *c)
{
	uint64_t at = 0, to;

	while (segment_next_data(c->segment, at, &at, &to))
		for (; at < to; at += PAGE_SIZE) {
			struct block *k = &c->blocks[at / CACHE_BLOCK_BYTES];

			k->ragged = k->ragged || at % CACHE_BLOCK_BYTES / PAGE_SIZE != k->written;
			k->written++;
		}
}

int cache_new(struct cache **ret, struct arena *a, struct account *payer, struct kept_owner owner, uint64_t vm_size_bytes,
	const struct mem_settings *settings, struct problem *p)
{
	struct cache *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return problem_errno(p, "cache");
	c->settings = settings;
	c->vm_size_bytes = vm_size_bytes;
	c->n_blocks = (uint32_t)(vm_size_bytes / CACHE_BLOCK_BYTES) + CAP_BLOCKS_MIN;
	c->blocks = calloc(c->n_blocks, sizeof *c->blocks);
	c->oldest = c->newest = c->empty = c->dead = c->open[0] = c->open[1] = CACHE_NO_BLOCK;
	r = c->blocks ? segment_new(&c->segment, a, payer, SEGMENT_CACHE, owner, "c", (uint64_t)c->n_blocks * CACHE_BLOCK_BYTES, p)
		      : problem_errno(p, "cache");
	if (r < 0) {
		free(c->blocks);
		free(c);
		return r;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->next_seq = c->first_seq = SEQ_MIDDLE;
	if (c->segment->found)
		find_blocks(c);
	*ret = c;
	return 0;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	segment_free(c->segment);
	pthread_mutex_destroy(&c->lock);
	free(c->blocks);
	free(c);
}

static uint64_t cap_blocks(struct cache *c)
{
	uint64_t pct = atomic_load_explicit(&c->settings->zip_max_pct, memory_order_relaxed);
	uint64_t alloc_pct = atomic_load_explicit(&c->settings->zip_max_alloc_pct, memory_order_relaxed);
	uint64_t by_size = c->vm_size_bytes * pct / 100;
	uint64_t by_alloc = atomic_load(&c->segment->payer->frames) * PAGE_SIZE * alloc_pct / 100;
	uint64_t cap = (by_size < by_alloc ? by_size : by_alloc) / CACHE_BLOCK_BYTES;

	if (!pct)
		return 0;
	cap = cap < CAP_BLOCKS_MIN ? CAP_BLOCKS_MIN : cap;
	return cap < c->n_blocks ? cap : c->n_blocks;
}

/* ---- lists, under the lock ---- */

static uint32_t pop(struct cache *c, uint32_t *list)
{
	uint32_t b = *list;

	if (b != CACHE_NO_BLOCK)
		*list = c->blocks[b].next;
	return b;
}

static void push(struct cache *c, uint32_t *list, uint32_t b)
{
	c->blocks[b].next = *list;
	*list = b;
}

static void log_remove(struct cache *c, uint32_t b)
{
	struct block *k = &c->blocks[b];

	*(k->prev == CACHE_NO_BLOCK ? &c->oldest : &c->blocks[k->prev].next) = k->next;
	*(k->next == CACHE_NO_BLOCK ? &c->newest : &c->blocks[k->next].prev) = k->prev;
}

static void log_append(struct cache *c, uint32_t b)
{
	struct block *k = &c->blocks[b];

	k->next = CACHE_NO_BLOCK;
	k->prev = c->newest;
	*(c->newest == CACHE_NO_BLOCK ? &c->oldest : &c->blocks[c->newest].next) = b;
	c->newest = b;
}

/* Survivors came from the oldest blocks: they go back to that end. */
static void log_prepend(struct cache *c, uint32_t b)
{
	struct block *k = &c->blocks[b];

	k->prev = CACHE_NO_BLOCK;
	k->next = c->oldest;
	*(c->oldest == CACHE_NO_BLOCK ? &c->newest : &c->blocks[c->oldest].prev) = b;
	c->oldest = b;
}

static void to_dead(struct cache *c, uint32_t b)
{
	c->blocks[b].state = BLOCK_DEAD;
	push(c, &c->dead, b);
	c->n_dead++;
}

static void seal(struct cache *c, unsigned which)
{
	uint32_t b = c->open[which];

	if (b == CACHE_NO_BLOCK)
		return;
	c->open[which] = CACHE_NO_BLOCK;
	if (!c->blocks[b].live) {
		to_dead(c, b);
		return;
	}
	c->blocks[b].state = BLOCK_SEALED;
	if (which)
		log_prepend(c, b);
	else
		log_append(c, b);
}

/* Pages of the block are in the memfd up to here. */
static void wrote_to(struct cache *c, struct block *k, uint32_t bytes)
{
	uint32_t pages = (bytes + (uint32_t)PAGE_SIZE - 1) >> PAGE_SHIFT;

	if (pages > k->written) {
		c->written_pages += pages - k->written;
		k->written = (uint8_t)pages;
	}
	k->fill = bytes;
}

static void number_block(struct cache *c, uint32_t b, uint64_t seq)
{
	*seq_object(c, b) = (struct cache_object){ .checksum = seq, .page = SEQ_PAGE };
}

static int open_block(struct cache *c, unsigned which)
{
	uint32_t b;
	int r;

	seal(c, which);
	b = pop(c, &c->dead);
	if (b != CACHE_NO_BLOCK) {
		c->n_dead--;
	} else {
		/* survivors make room: they may pass the cap by the block that they are about to empty */
		if (c->held_blocks + 1 > cap_blocks(c) + which)
			return -ENOSPC;
		b = c->empty != CACHE_NO_BLOCK ? c->empty : c->used_blocks;
		if (b >= c->n_blocks)
			return -ENOSPC;
		r = segment_charge(c->segment, CACHE_BLOCK_PAGES, CHARGE_STORE);
		if (r < 0)
			return r;
		CRASH_POINT("cache.block_charged");
		if (b == c->empty)
			pop(c, &c->empty);
		else
			c->used_blocks++;
		c->blocks[b].written = 0;
		c->held_blocks++;
	}
	c->blocks[b].state = BLOCK_OPEN;
	c->blocks[b].live = 0;
	number_block(c, b, which ? --c->first_seq : c->next_seq++);
	wrote_to(c, &c->blocks[b], object_bytes(0));
	c->open[which] = b;
	return 0;
}

/* ---- objects ---- */

static int put(struct cache *c, unsigned which, const struct cache_object *header, const void *data, uint64_t *ret_ref)
{
	uint32_t bytes = object_bytes(header->length);
	struct cache_object *o;
	struct block *k;
	uint64_t offset;
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (c->open[which] == CACHE_NO_BLOCK || c->blocks[c->open[which]].fill + bytes > CACHE_BLOCK_BYTES)
		r = open_block(c, which);
	if (r == 0) {
		k = &c->blocks[c->open[which]];
		offset = (uint64_t)c->open[which] * CACHE_BLOCK_BYTES + k->fill;
		o = (struct cache_object *)(c->segment->addr + offset);
		*o = *header;
		CRASH_POINT("cache.header");
		memcpy(o->data, data, header->length);
		CRASH_POINT("cache.put");
		wrote_to(c, k, k->fill + bytes);
		k->live += bytes;
		c->live_bytes += bytes;
		c->live_objects++;
		*ret_ref = make_ref(offset, bytes);
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

int cache_put(struct cache *c, const struct cache_object *header, const void *data, uint64_t *ret_ref)
{
	return put(c, 0, header, data, ret_ref);
}

int cache_put_survivor(struct cache *c, const struct cache_object *o, uint64_t *ret_ref)
{
	return put(c, 1, o, o->data, ret_ref);
}

const struct cache_object *cache_look(const struct cache *c, uint64_t ref)
{
	return (const struct cache_object *)(c->segment->addr + cache_offset(ref));
}

uint64_t cache_stored_bytes(struct cache *c, uint64_t ref, uint32_t page)
{
	uint32_t b = (uint32_t)(cache_offset(ref) / CACHE_BLOCK_BYTES);
	uint64_t bytes = 0;

	pthread_mutex_lock(&c->lock);
	if (b < c->n_blocks && c->blocks[b].state >= BLOCK_OPEN && cache_offset(ref) % CACHE_BLOCK_BYTES < c->blocks[b].fill &&
		cache_look(c, ref)->page == page)
		bytes = object_bytes(cache_look(c, ref)->length);
	pthread_mutex_unlock(&c->lock);
	return bytes;
}

void cache_drop(struct cache *c, uint64_t ref)
{
	uint32_t b = (uint32_t)(cache_offset(ref) / CACHE_BLOCK_BYTES), bytes;
	struct block *k = &c->blocks[b];

	pthread_mutex_lock(&c->lock);
	bytes = ref_bytes(ref);
	assert(k->live >= bytes && c->live_objects);
	k->live -= bytes;
	c->live_bytes -= bytes;
	c->live_objects--;
	if (!k->live && k->state == BLOCK_SEALED) {
		log_remove(c, b);
		to_dead(c, b);
	}
	pthread_mutex_unlock(&c->lock);
}

/* ---- what was found ---- */

bool cache_claim(struct cache *c, uint64_t ref)
{
	uint64_t b = cache_offset(ref) / CACHE_BLOCK_BYTES, at = cache_offset(ref) % CACHE_BLOCK_BYTES, bytes = ref_bytes(ref);
	struct block *k;

	if (b >= c->n_blocks || at < object_bytes(0) || bytes <= object_bytes(0) || bytes > object_bytes(CACHE_OBJECT_MAX))
		return false;
	k = &c->blocks[b];
	if (k->ragged || at + bytes > k->written * PAGE_SIZE)
		return false;
	k->live += (uint32_t)bytes;
	k->fill = at + bytes > k->fill ? (uint32_t)(at + bytes) : k->fill;
	c->live_bytes += bytes;
	c->live_objects++;
	return true;
}

struct place {
	uint64_t seq;
	uint32_t block;
};

static int by_seq(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->seq != y->seq ? (x->seq > y->seq) - (x->seq < y->seq) : (x->block > y->block) - (x->block < y->block);
}

/* The order of the log is a guide to what was used least: where it cannot be had, any will do. */
static void put_log_together(struct cache *c, uint32_t n)
{
	struct place *place = calloc(n, sizeof *place);
	uint32_t at = 0;

	for (uint32_t b = 0; b < c->n_blocks; b++) {
		struct cache_object head;

		if (!c->blocks[b].live)
			continue;
		c->blocks[b].state = BLOCK_SEALED;
		if (!place) {
			log_append(c, b);
			continue;
		}
		/* by descriptor: that touches no page tables */
		if (pread(c->segment->fd, &head, sizeof head, (off_t)((uint64_t)b * CACHE_BLOCK_BYTES)) != sizeof head)
			head.checksum = SEQ_MIDDLE;
		place[at++] = (struct place){ head.checksum, b };
	}
	if (!place)
		return;
	qsort(place, n, sizeof *place, by_seq);
	for (uint32_t i = 0; i < n; i++)
		log_append(c, place[i].block);
	/* damage must not bring the numbers to an end */
	if (place[n - 1].seq < UINT64_MAX / 4 * 3 && place[0].seq > UINT64_MAX / 4) {
		c->next_seq = place[n - 1].seq + 1;
		c->first_seq = place[0].seq;
	}
	free(place);
}

void cache_claimed(struct cache *c)
{
	uint32_t n = 0;

	for (uint32_t b = 0; b < c->n_blocks; b++) {
		struct block *k = &c->blocks[b];

		if (!k->written)
			continue;
		c->used_blocks = b + 1;
		if (k->live) {
			segment_charge_found(c->segment, CACHE_BLOCK_PAGES);
			c->written_pages += k->written;
			c->held_blocks++;
			n++;
		} else {
			segment_charge_found(c->segment, CACHE_BLOCK_PAGES);
			if (segment_punch(c->segment, (uint64_t)b * CACHE_BLOCK_BYTES, CACHE_BLOCK_BYTES, CACHE_BLOCK_PAGES) < 0) {
				/* as after any punch that fails: cache_trim tries again */
				c->written_pages += k->written;
				c->held_blocks++;
				to_dead(c, b);
				continue;
			}
			k->written = 0;
		}
	}
	for (uint32_t b = c->used_blocks; b-- > 0;)
		if (!c->blocks[b].written)
			push(c, &c->empty, b);
	if (n)
		put_log_together(c, n);
}

/* ---- upkeep ---- */

bool cache_is_full(struct cache *c, unsigned blocks)
{
	bool full;

	pthread_mutex_lock(&c->lock);
	full = c->held_blocks - c->n_dead + blocks > cap_blocks(c);
	pthread_mutex_unlock(&c->lock);
	return full;
}

bool cache_wants_cleaning(struct cache *c)
{
	uint64_t full, dead;

	pthread_mutex_lock(&c->lock);
	full = (c->held_blocks - c->n_dead) * CACHE_BLOCK_BYTES;
	dead = full - c->live_bytes;
	pthread_mutex_unlock(&c->lock);
	/* what is still free in the two open blocks is not dead */
	return dead > full / CLEAN_DEAD_SHARE + 2 * CACHE_BLOCK_BYTES;
}

void cache_trim(struct cache *c, unsigned keep)
{
	for (;;) {
		uint32_t b = CACHE_NO_BLOCK;

		pthread_mutex_lock(&c->lock);
		if (c->n_dead > keep) {
			b = pop(c, &c->dead);
			c->n_dead--;
			/* from here on nobody reads it: a read through the mapping of a hole would make a page */
			c->blocks[b].state = BLOCK_EMPTY;
			c->trimming_pages += c->blocks[b].written;
		}
		pthread_mutex_unlock(&c->lock);
		if (b == CACHE_NO_BLOCK)
			return;
		CRASH_POINT("cache_trim.taken");
		/* ours alone: in no list; the punch is done outside the lock */
		if (segment_punch(c->segment, (uint64_t)b * CACHE_BLOCK_BYTES, CACHE_BLOCK_BYTES, CACHE_BLOCK_PAGES) < 0) {
			pthread_mutex_lock(&c->lock);
			c->trimming_pages -= c->blocks[b].written;
			to_dead(c, b);
			pthread_mutex_unlock(&c->lock);
			return;
		}
		CRASH_POINT("cache_trim.punched");
		pthread_mutex_lock(&c->lock);
		c->trimming_pages -= c->blocks[b].written;
		c->written_pages -= c->blocks[b].written;
		c->blocks[b].written = 0;
		c->held_blocks--;
		push(c, &c->empty, b);
		pthread_mutex_unlock(&c->lock);
	}
}

static void take(struct cache *c, uint32_t b)
{
	if (b == CACHE_NO_BLOCK)
		return;
	log_remove(c, b);
	c->blocks[b].state = BLOCK_TAKEN;
}

uint32_t cache_take_oldest(struct cache *c)
{
	uint32_t b;

	pthread_mutex_lock(&c->lock);
	if (c->oldest == CACHE_NO_BLOCK) {
		seal(c, 1);
		if (c->oldest == CACHE_NO_BLOCK)
			seal(c, 0);
	}
	b = c->oldest;
	take(c, b);
	pthread_mutex_unlock(&c->lock);
	return b;
}

uint32_t cache_take_sparsest(struct cache *c)
{
	uint32_t best = CACHE_NO_BLOCK, n = 0;

	pthread_mutex_lock(&c->lock);
	for (uint32_t b = c->oldest; b != CACHE_NO_BLOCK && n < CLEAN_WINDOW; b = c->blocks[b].next, n++)
		if (best == CACHE_NO_BLOCK || c->blocks[b].live < c->blocks[best].live)
			best = b;
	/* a block that is nearly full is not worth the copying */
	if (best != CACHE_NO_BLOCK && c->blocks[best].live > CACHE_BLOCK_BYTES - CACHE_BLOCK_BYTES / CLEAN_DEAD_SHARE)
		best = CACHE_NO_BLOCK;
	take(c, best);
	pthread_mutex_unlock(&c->lock);
	return best;
}

bool cache_next_object(const struct cache *c, uint32_t block, uint32_t *cursor, uint64_t *ret_ref)
{
	uint64_t offset;
	uint32_t bytes;

	/* the first is nobody's */
	*cursor = *cursor ? *cursor : object_bytes(0);
	offset = (uint64_t)block * CACHE_BLOCK_BYTES + *cursor;
	/* taken: nobody appends to it, so fill does not move */
	if (*cursor >= c->blocks[block].fill)
		return false;
	bytes = object_bytes(((const struct cache_object *)(c->segment->addr + offset))->length);
	*ret_ref = make_ref(offset, bytes);
	*cursor += bytes;
	return true;
}

void cache_end_block(struct cache *c, uint32_t block)
{
	pthread_mutex_lock(&c->lock);
	if (!c->blocks[block].live) {
		to_dead(c, block);
	} else {
		c->blocks[block].state = BLOCK_SEALED;
		number_block(c, block, c->next_seq++);
		log_append(c, block); /* what is left was busy: look at it again later, not at once */
	}
	pthread_mutex_unlock(&c->lock);
}

uint64_t cache_charged_frames(const struct cache *c)
{
	return atomic_load(&c->segment->frames);
}

void cache_get_numbers(struct cache *c, struct cache_numbers *ret)
{
	pthread_mutex_lock(&c->lock);
	*ret = (struct cache_numbers){
		.live_bytes = c->live_bytes, .live_objects = c->live_objects,
		.held_bytes = c->held_blocks * CACHE_BLOCK_BYTES, .cap_bytes = cap_blocks(c) * CACHE_BLOCK_BYTES,
		.expected_frames = c->written_pages, .trimming_frames = c->trimming_pages, .blocks_frames = segment_blocks(c->segment),
		.charged_frames = atomic_load(&c->segment->frames),
	};
	pthread_mutex_unlock(&c->lock);
}
