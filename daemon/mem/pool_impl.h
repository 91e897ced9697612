/* The inside of a pool, shared by pool.c (entries) and pool_evict.c (their frames out, and the proof). */
#pragma once

#include "mem/checksum.h"
#include "mem/hints.h"
#include "mem/vm_impl.h"

/* What an entry needs beside its word.  The counts are written under pool.lock and may be read without. */
struct entry {
	_Atomic uint32_t references;
	uint32_t holds;
	uint32_t next;		/* with the same bucket; 0: none */
};

/* What is kept of a pool (state.h).  It only grows. */
struct pool_card {
	char name[72];
	uint64_t pages;			/* entries, with the one that is none */
	uint8_t secret[CHECKSUM_SECRET];	/* of the hashes */
};

struct pool {
	_Atomic unsigned users;
	struct kept_owner owner;
	struct state state;
	char name[72];
	struct arena *arena;
	uint64_t pages;
	struct account account;
	struct segment *memory;	/* mapped in the window, and registered for missing pages with: */
	int uffd;
	struct page_map map;
	struct page_map hashes;	/* of the entries' contents, for the index */
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

static inline uint64_t entry_hash(const struct pool *p, uint64_t e)
{
	return page_map_read(&p->hashes, e);
}

/* A pool without anything; and what makes it one, as its card says.  -errno from pool_equip: pool_unref it. */
int pool_make(struct pool **ret, struct arena *a, struct kept_owner owner, struct problem *problem);
int pool_equip(struct pool *p, const struct mem_settings *settings, const struct pool_card *card, const char *swap_dir,
	struct problem *problem);
/* Under pool.lock: it can be found by its content from now on. */
void entry_link(struct pool *p, uint64_t e);
/* Under pool.lock. */
void entry_hold(struct pool *p, uint64_t e);
/* Nobody refers to it, nobody can find it: give back what it has. */
void entry_free(struct pool *p, uint64_t e);
/* Count an entry that changes places. */
void pool_count_move(struct pool *p, enum page_state from, enum page_state to);
/* Under pool.lock. */
void entry_count_reference(struct pool *p, uint64_t e, int by);
