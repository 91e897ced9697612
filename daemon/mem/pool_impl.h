/* The inside of a pool, shared by pool.c (entries) and pool_evict.c (their frames out, and the proof). */
#pragma once

#include "mem/hints.h"
#include "mem/vm_impl.h"

/* What an entry needs beside its word.  The counts are written under pool.lock and may be read without. */
struct entry {
	uint64_t hash;
	_Atomic uint32_t references;
	uint32_t holds;
	uint32_t next;		/* with the same bucket; 0: none */
};

struct pool {
	_Atomic unsigned users;
	char name[72];
	struct arena *arena;
	uint64_t pages;
	struct account account;
	struct segment *memory;	/* mapped in the window, and registered for missing pages with: */
	int uffd;
	struct page_map map;
	struct stores stores;
	_Atomic bool never;	/* no fault thread waits for this stop */

	pthread_mutex_t lock;	/* entries, index, free ones */
	struct entry *entries;
	uint32_t *buckets;	/* first entry; a power of two of them */
	uint64_t n_buckets;
	uint64_t *used;		/* a bit an entry */
	uint64_t cursor;	/* where the last run was found */
	_Atomic uint64_t slots;	/* of the swap file, set aside */
	_Atomic uint32_t dead;	/* entries that nobody refers to, to be freed by pool_reap: linked by `next` */
	_Atomic uint64_t n_entries;
	uint64_t n_references, n_held;
	_Atomic uint64_t n[PAGE_STATES];	/* entries by place */

	pthread_mutex_t evicting;	/* one at a time; tried only */
	uint64_t hand;
	_Atomic uint64_t evicted, brought_back;

	struct hints *hints;
};

static inline uint64_t entry_word(struct pool *p, uint64_t e)
{
	return atomic_load_explicit(&p->map.words[e], memory_order_acquire);
}

static inline uint8_t *entry_frame(struct pool *p, uint64_t e)
{
	return p->memory->addr + e * PAGE_SIZE;
}

static inline bool entry_is_used(const struct pool *p, uint64_t e)
{
	return p->used[e / 64] >> (e % 64) & 1;
}

/* Count an entry that changes places. */
void pool_count_move(struct pool *p, enum page_state from, enum page_state to);
/* Under pool.lock. */
void entry_count_reference(struct pool *p, uint64_t e, int by);
