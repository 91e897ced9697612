/* The compression cache of a VM: a log of compressed pages in the arena.
 *
 * Problem: pages compress to any length; the space must be dense (it is arena), the least recently used must be
 * found when the cache is full, and everything must be in a memfd so that a restart finds it.
 *
 * A page in the cache is not used: the first use takes it out.  So the least recently used page is the one that
 * was put in first, and a log in order of arrival *is* the LRU order.  The log is made of blocks of 64 KiB; each is
 * charged when it is opened.  Objects are a 16-byte header and the compressed bytes, in size classes of 16
 * bytes (8 bytes of rounding on average, against 32 with classes of 64).
 *
 *	block:  | seq | hdr data | hdr data | dead | hdr data | ...    |  objects never cross a block
 *
 * Taking an object out leaves a dead hole; a block without live objects is reused or given back.  When more than
 * 6 % of the cache is dead, the sparsest of the oldest blocks is cleaned: its live objects are moved to a block
 * of survivors.  When the cache is at its cap, the oldest block is written back to the swap file.  Both are done by
 * the evictor (store.c), which holds the pages' locks; this file moves no page and reads no word.
 *
 * A reference is the object's offset / 16, and what it takes, / 16, above that: so that counts can be rebuilt from
 * the page maps without looking at a single object.  An object is live if and only if its page's word says so:
 * the first object of a block is nobody's: its checksum is the
 * block's place in the log (seq).  Objects are written one after the other and referred to when they are whole, so
 * up to the end of the last one that a word refers to a block that was found is what it was.
 *
 * Threads: any; one mutex, held for a copy of at most 3 KiB, never over a system call but the charge of a
 * block.  Reading an object needs no lock: whoever holds its page's word keeps it in place. */
#pragma once

#include "mem/vm.h"

#include <stdbool.h>
#include <stdint.h>

#define CACHE_BLOCK_BYTES 65536u
#define CACHE_BLOCK_PAGES (CACHE_BLOCK_BYTES / PAGE_SIZE)
/* Longer than this is not worth keeping: less than a quarter would be saved. */
#define CACHE_OBJECT_MAX  3072u
#define CACHE_NO_BLOCK	  UINT32_MAX

struct cache;

struct cache_object {
	uint64_t checksum;	/* of the page */
	uint32_t page;		/* within the lease */
	uint16_t lease;		/* id within the VM */
	uint16_t length;
	uint8_t data[];
};

struct cache_numbers {
	uint64_t live_bytes;		/* objects with headers, rounded to their class */
	uint64_t live_objects;
	uint64_t held_bytes;		/* blocks charged */
	uint64_t cap_bytes;		/* now */
	uint64_t expected_frames;	/* pages that were written and not given back: the memfd's blocks, but for */
	uint64_t trimming_frames;	/* those that are on their way back */
	uint64_t blocks_frames, charged_frames;
};

/* Kept for the owner.  If it was found: its blocks are there, and hold nothing until it is claimed. */
int cache_new(struct cache **ret, struct arena *a, struct account *payer, struct kept_owner owner, uint64_t vm_size_bytes,
	const struct mem_settings *settings, struct problem *p);
/* A word that was found refers to this object.  false: it is not there.  (Whether it is this page's is found when it is read.) */
bool cache_claim(struct cache *c, uint64_t ref);
/* All claims have been made: the log is put together, what nobody claimed goes back. */
void cache_claimed(struct cache *c);
void cache_free(struct cache *c);

/* 0; -ENOSPC: at its cap; -ENOMEM: the arena is full. */
int cache_put(struct cache *c, const struct cache_object *header, const void *data, uint64_t *ret_ref);
const struct cache_object *cache_look(const struct cache *c, uint64_t ref);
/* Whether it takes what the reference says: one that was damaged may be longer than its place, and its end not in the cache. */
bool cache_is_whole(const struct cache_object *o, uint64_t ref);
/* Where it is, in bytes. */
uint64_t cache_offset(uint64_t ref);
/* What an object takes, header and rounding included. */
uint64_t cache_object_bytes(const struct cache_object *o);
/* The same for a page whose word the caller does not hold; 0 if it is not there any more. */
uint64_t cache_stored_bytes(struct cache *c, uint64_t ref, uint32_t page);
void cache_drop(struct cache *c, uint64_t ref);

/* Whether another `blocks` would bring the cache above its cap (which moves with what the VM is charged). */
bool cache_is_full(struct cache *c, unsigned blocks);
/* Whether cleaning is due. */
bool cache_wants_cleaning(struct cache *c);
/* Give back the blocks that hold nothing, all but `keep`. */
void cache_trim(struct cache *c, unsigned keep);

/* Take a block out of the log to write it back (oldest) or to clean it (sparsest); CACHE_NO_BLOCK: none.  It is
 * not reused until cache_end_block, which frees it if nothing in it lives any more. */
uint32_t cache_take_oldest(struct cache *c);
uint32_t cache_take_sparsest(struct cache *c);
/* Walk its objects, dead ones too: false at the end.  *cursor starts at 0. */
bool cache_next_object(const struct cache *c, uint32_t block, uint32_t *cursor, uint64_t *ret_ref);
void cache_end_block(struct cache *c, uint32_t block);
/* Put a moved object into the survivors' block. */
int cache_put_survivor(struct cache *c, const struct cache_object *o, uint64_t *ret_ref);

/* Frames charged for it now. */
uint64_t cache_charged_frames(const struct cache *c);
void cache_get_numbers(struct cache *c, struct cache_numbers *ret);
