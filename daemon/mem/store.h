/* The stores of a VM, or of a pool: a compression cache and a swap file, and what moves pages into them, out of them and
 * from one to the other.
 *
 * A page that is in a store has a word that says so; stores know the words only by their owner's three functions.  What a
 * store holds and what the words say change one after the other, inside an act that is counted at its begin and its end:
 * while the two counts are equal and stand still, both must be equal to the page (audit.c).
 *
 * Threads: any; whoever puts, reads or forgets a page holds its word. */
#pragma once

#include "mem/cache.h"
#include "mem/codec.h"
#include "mem/page_map.h"
#include "mem/swap.h"

#include <pthread.h>

/* What a thread that fills or evicts owns: two runs of pages, page-aligned, locked in memory, its codec, its reader. */
struct bench {
	uint8_t *buf;			/* RUN_MAX pages */
	uint8_t *spare;			/* RUN_MAX pages, of whoever compares */
	struct codec *codec;
	struct direct direct;
};
int bench_init(struct bench *b);
/* Its memory is there and stays, as far as we may say so. */
void bench_lock(struct bench *b);
void bench_fini(struct bench *b);

/* The page of an object of the cache, its word locked. */
struct owned {
	struct lease *lease;		/* NULL: of a pool */
	word *word;
	uint64_t page, before;
};

struct stores;
struct stores_owner {
	/* Lock the page that the object at `ref` belongs to, if the object is live and nobody is at work on it.  lock is held. */
	bool (*lock)(struct stores *s, uint64_t ref, struct owned *ret);
	/* Its word becomes `now`, of state `to` (the ledger counts it), still locked. */
	void (*move)(struct stores *s, const struct owned *o, enum page_state to, uint64_t now);
	void (*unlock)(struct stores *s, const struct owned *o, uint64_t now);
	/* Pages never change: their words are not locked while they are written to the disk, and looked at again afterwards. */
	bool immutable;
};

struct stores {
	struct cache *cache;
	struct swap *swap;
	const struct mem_settings *settings;
	const struct stores_owner *owner;
	pthread_mutex_t lock;		/* one thread at a time walks blocks of the cache; a lease's release waits */
	_Atomic uint64_t moves_begun, moves_ended;
	_Atomic uint64_t swap_out_pages, written_back_pages, cleaned_pages, swap_write_errors, swap_read_errors, checksum_errors;
};
#define MOVES_BEGIN(s) atomic_fetch_add(&(s)->moves_begun, 1)
#define MOVES_END(s)   atomic_fetch_add(&(s)->moves_ended, 1)

/* `size_bytes`: the most that may ever be stored. */
int stores_init(struct stores *s, struct arena *a, struct account *payer, const struct mem_settings *settings,
	const struct stores_owner *owner, struct kept_owner kept, uint64_t size_bytes, const char *swap_dir,
	const struct swap_room *room, struct problem *p);
/* Half-built ones too. */
void stores_fini(struct stores *s);
/* Stores that were found: a word refers to this.  false: there is nothing such. */
bool store_claim(struct stores *s, uint64_t w);

/* Into the cache.  false: it does not compress, or there is no room. */
bool store_compress(struct stores *s, struct codec *codec, uint16_t lease, uint64_t page, const uint8_t *content,
	uint64_t *ret_word);
/* Neighbouring slots for the pages of `mask`, one write each time; the bits of those that are on disk, and their words. */
uint64_t store_swap(struct stores *s, uint16_t lease, const uint64_t *pages, uint8_t *buf, uint64_t mask, uint64_t *words);

/* One page's content, verified; retried for about a second if a guest waits (until *stop).  0, -EBADMSG or another error. */
int store_read(struct stores *s, struct bench *b, uint16_t lease, uint64_t page, uint64_t w, void *to, bool guest_waits,
	const _Atomic bool *stop);
/* Drop what a word refers to.  The word no longer says so. */
void store_forget(struct stores *s, uint64_t word_before);

/* Make room from the oldest end of a cache at its cap, a few blocks at a time, so that a cap that was lowered at once does
 * not keep the caller from everything else; and close holes as far as it is due. */
#define STORE_KEEP_UP_BLOCKS 8u
void store_keep_up(struct stores *s, struct bench *b);
/* Write the cache's oldest block to the swap file.  Pages written, or -errno. */
int store_write_back(struct stores *s, struct bench *b);
