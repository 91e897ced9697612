/* The page map of a lease: one 8-byte word a page, in a memfd of the arena.  It is the ledger: every other
 * structure (free slots, cache blocks, totals) can be rebuilt from the words.
 *
 *	 63            16   15    14  12 11   8    7     6      5      4    3   0
 *	+----------------+--------+------+------+-------+------+------+----+-------+
 *	|   reference    | mapped | use  | pins | clean | aged |moving|busy| state |
 *	+----------------+--------+------+------+-------+------+------+----+-------+
 *
 * busy: the word is locked by one thread; nobody else changes it, and the fault thread drops events of the page.
 *	Whoever clears busy wakes the page, so a dropped event comes again.
 * moving: the content is on its way between the frame and the place that state and reference name.  It is the
 *	crash rule: a word with *moving* is resident if the lease's memfd has data there, and what state and
 *	reference say otherwise.  Filling and evicting share the rule, so one bit is enough.  SHARED and BREAKING with
 *	*moving*: the client was asked to map the page from the pool, or home; what it did, only it can say.
 * clean: RESIDENT, and write-protected since it was hashed for sharing; a write raises an event first.
 * mapped: SHARED (or LOST), and the client has a copy-on-write mapping of the pool there.
 *
 * What a state permits (without busy; a word is locked before anything is done):
 *	ZERO		no frame, no reference.  Fill with zeros.  Word 0, so an untouched map is all ZERO.
 *	RESIDENT	a frame, charged; reference = generation of its last fill or use (16 bits).  Evict, discard, pin, share.
 *	COMPRESSED	no frame; reference = place in the VM's cache.  Fill, move within the cache, write back, discard.
 *	SWAPPED		no frame; reference = slot of the VM's swap file.  Fill, discard.
 *	LOST		no frame; a store could not give the page back.  Discard.  Never filled with zeros.  Mapped: the pool could
 *			not, and the client maps the entry, which is kept therefore and never becomes another's.  Nothing at all.
 *	SHARED		no frame of the lease; reference = entry of the pool.  Mapped: break, bring home.  Not mapped: fill, discard.
 *	BREAKING	no frame of the lease, one charged for the client's private copy, which is the content; the entry is
 *			held, because the kernel's copy may be still to come.  Bring home, and nothing else.
 *	BALLOONED	no frame, no reference; the guest's balloon driver gave it (balloon.c).  Its content is zeros.  Fill (it has left
 *			the balloon then), deflate, discard.
 *
 * A block of 512 words is one page of the memfd.  It is charged before its first write; reading a word of a block
 * that was never charged is answered without touching the mapping (a read through it would allocate). */
#pragma once

#include "mem/lease.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint64_t word;

#define WORD_STATE_MASK	 0xfull
#define WORD_BUSY	 (1ull << 4)
#define WORD_MOVING	 (1ull << 5)
#define WORD_AGED	 (1ull << 6)
#define WORD_CLEAN	 (1ull << 7)
#define WORD_PIN_SHIFT	 8
#define WORD_PIN_MASK	 (0xfull << WORD_PIN_SHIFT)
#define WORD_PIN_MAX	 15
#define WORD_USE_SHIFT	 12
#define WORD_USE_MASK	 (7ull << WORD_USE_SHIFT)
#define WORD_MAPPED	 (1ull << 15)
#define WORD_REF_SHIFT	 16
#define WORD_REF_MAX	 ((1ull << 48) - 1)

static inline enum page_state word_state(uint64_t w)
{
	return (enum page_state)(w & WORD_STATE_MASK);
}

static inline uint64_t word_ref(uint64_t w)
{
	return w >> WORD_REF_SHIFT;
}

static inline unsigned word_pins(uint64_t w)
{
	return (unsigned)((w & WORD_PIN_MASK) >> WORD_PIN_SHIFT);
}

/* Its content is zeros, and is stored nowhere. */
static inline bool word_is_empty(uint64_t w)
{
	return word_state(w) == PAGE_ZERO || word_state(w) == PAGE_BALLOONED;
}

static inline uint64_t word_make(enum page_state state, uint64_t ref)
{
	return (uint64_t)state | ref << WORD_REF_SHIFT;
}

/* Lock: true, and *ret is the word as it was (never busy). */
static inline bool word_lock(word *w, uint64_t *ret)
{
	uint64_t old = atomic_load_explicit(w, memory_order_relaxed);

	do {
		if (old & WORD_BUSY)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(w, &old, old | WORD_BUSY, memory_order_acquire, memory_order_relaxed));
	*ret = old;
	return true;
}

/* A step of the holder of the lock, recorded: the word stays busy. */
static inline void word_record(word *w, uint64_t value)
{
	atomic_store_explicit(w, value | WORD_BUSY, memory_order_release);
}

static inline void word_unlock(word *w, uint64_t value)
{
	atomic_store_explicit(w, value & ~WORD_BUSY, memory_order_release);
}

struct page_map {
	struct segment *segment;
	word *words;
	uint64_t pages;
	_Atomic uint64_t *charged;	/* a bit a block of 512 words */
};

#define MAP_BLOCK_PAGES (PAGE_SIZE / sizeof(uint64_t))

/* Kept as `part` of the owner.  What was found there is charged, and its words are as they were left. */
int page_map_init(struct page_map *m, struct arena *a, struct account *payer, struct kept_owner owner, const char *part,
	uint64_t pages, struct problem *p);
void page_map_fini(struct page_map *m);

/* Whether the block of `page` was ever written; if not, its pages are ZERO. */
static inline bool page_map_has(const struct page_map *m, uint64_t page)
{
	uint64_t block = page / MAP_BLOCK_PAGES;

	return atomic_load_explicit(&m->charged[block / 64], memory_order_acquire) >> (block % 64) & 1;
}

/* Make the word writable (charge its block).  0 or -ENOMEM. */
int page_map_touch(struct page_map *m, uint64_t page);

/* The word's value now, without touching what is not there. */
static inline uint64_t page_map_read(const struct page_map *m, uint64_t page)
{
	return page_map_has(m, page) ? atomic_load_explicit(&m->words[page], memory_order_acquire) : 0;
}
