/* The pool of a sharing group: one copy of each distinct page that its VMs have in common (ESX: a salt).
 *
 * A pool is a memfd, a map and two stores.  *Entry* e is one distinct page, with its number for life: page e of the
 * memfd is where clients map it (read-only by descriptor, copy-on-write by mapping), word e of the map says where
 * its content is now.  The map has the words of page_map.h:
 *
 *	ZERO		a free entry
 *	RESIDENT	in the memfd, at page e; one frame, charged to the pool
 *	COMPRESSED	in the pool's own cache
 *	SWAPPED		in the pool's own swap file
 *	LOST		the disk lost it
 *
 * So shared pages are reclaimed once, whoever has them, and without any client: the frame is punched, those who map it
 * get a missing fault at their next access, and the first of them brings it back for all.
 *
 * A frame is written once, by UFFDIO_COPY into a hole of a mapping of ours that is registered for missing pages:
 * whoever reads it sees all of it or waits.  From then on it is immutable, so nobody is locked out while it is
 * compressed.  Nothing is ever read through that mapping that is not RESIDENT under its lock or held.
 *
 * References: each guest page whose word refers to an entry, and whoever works on it.  The last reference frees it, so
 * whoever has one may rely on the content.  *Holds* are references that also forbid taking the frame: pages in a share
 * or home order (the client touches the frame while their words are busy: a fault there would never be served) and
 * breaking pages (the kernel's copy may be still to come).  Counts live on the heap: they follow from the words.
 *
 * A frame enters with a slot of the swap file set aside for it: the file grows in extents before entries are handed out.
 *
 * Who pays: the pool's account, without limit; members are told their part, 1/n of an entry each (pool_part).
 *
 * The wall between groups is the descriptor.  The memfd is 0400 and handed out read-only, which binds clients of
 * another uid than ours, root excepted (the root decides who may join).  Members of one group trust each other: one that
 * reads a hole of the pool through an unregistered mapping of its own puts a page of zeros there.
 *
 * Locks: words are locked by their busy bit, by whoever has no other lock of mem/ but words of leases; pool.lock, after
 * them, guards counts, index and free entries, and is never held over a system call.
 * Threads: any. */
#pragma once

#include "mem/vm.h"

#include <stdbool.h>
#include <stdint.h>

struct pool;
struct bench;

/* `pages`: the most entries; `swap_dir` as for a VM.  The caller has the first reference. */
int pool_new(struct pool **ret, struct arena *a, const struct mem_settings *settings, const char *name, uint64_t pages,
	const char *swap_dir, struct problem *p);
struct pool *pool_ref(struct pool *p);
/* The last one frees it; all entries are free then.  NULL is fine. */
void pool_unref(struct pool *p);
const char *pool_name(const struct pool *p);
/* For life, and across restarts; never 0. */
uint32_t pool_number(const struct pool *p);
uint64_t pool_pages(const struct pool *p);
/* A descriptor that can only read, for a client; the caller's.  -errno. */
int pool_open(const struct pool *p);

struct pool_numbers {
	uint64_t entries;		/* distinct pages */
	uint64_t references;		/* guest pages that refer to them */
	uint64_t resident, compressed, swapped, lost;	/* entries by place */
	uint64_t held;			/* entries whose frame may not be taken */
	uint64_t stored_bytes;		/* what the compressed ones take */
	uint64_t charged_frames;	/* all that the pool's account holds */
	uint64_t evicted, brought_back;	/* entries, since the beginning */
};
void pool_numbers(struct pool *p, struct pool_numbers *ret);

/* ---- entries, by content (buf: a page that nobody writes to) ---- */

/* A reference to the entry with this content, compared byte by byte; *ret is it.  1: found; 0: there is none; -EAGAIN: there may
 * be one, but it is on disk, and what is looked at is locked meanwhile. */
int pool_find(struct pool *p, struct bench *b, uint64_t hash, const uint8_t *buf, uint64_t *ret);
/* The same for the pages of `buf` with a bit in `mask`: the bits of those that were found.  What is resident is read by runs of
 * entries, which is cheaper than to look through the mapping. */
uint64_t pool_find_many(struct pool *p, struct bench *b, uint64_t mask, const uint64_t *hash, const uint8_t *buf,
	uint64_t *ret);
/* A new entry, with a reference for the caller, if possible at `near` (0: anywhere that has room for a run of `run`).
 * -ENOMEM: no frame, -ENOSPC: no slot, -EEXIST: another was quicker to add the same. */
int pool_add(struct pool *p, uint64_t hash, const uint8_t *buf, uint64_t near, unsigned run, uint64_t *ret);
/* The last reference frees it, which takes a system call; or leaves that to whoever reaps (a fault thread's way). */
void pool_put(struct pool *p, uint64_t entry);
void pool_put_later(struct pool *p, uint64_t entry);
void pool_reap(struct pool *p);
bool pool_has_dead(const struct pool *p);

/* Make sure of the frame and hold it (a reference of its own).  The frame was charged by pool_charge if the entry was not
 * resident; a charge that was not needed is given back.  -EIO, -EBADMSG: the stores cannot give it back; it is LOST. */
int pool_hold(struct pool *p, struct bench *b, uint64_t entry, bool charged, bool guest_waits);
void pool_release(struct pool *p, uint64_t entry);
/* Whether bringing it back needs a frame now (a guess: pool_hold says for sure). */
bool pool_needs_frame(struct pool *p, uint64_t entry);
int pool_charge(struct pool *p);
void pool_uncharge(struct pool *p);
/* Its content, wherever it is, without bringing it back.  The caller has a reference. */
int pool_read(struct pool *p, struct bench *b, uint64_t entry, uint8_t *to, bool guest_waits);

/* Take up to `frames` frames, oldest first; how many were won for the arena, the growth of the stores subtracted. */
uint64_t pool_evict(struct pool *p, struct bench *b, uint64_t frames);

/* What one of its references pays: bytes << POOL_PART_SHIFT. */
#define POOL_PART_SHIFT 8
uint64_t pool_part(struct pool *p, uint64_t entry);
unsigned pool_references(struct pool *p, uint64_t entry);
enum page_state pool_state(struct pool *p, uint64_t entry);

/* The stores against the map, the memfd against the resident entries, the counts against `references`, the number of
 * words of all members that refer to the pool (UINT64_MAX: not known), which may differ by `in_hand`. */
struct pool_audit {
	uint64_t entries, resident, blocks_frames, charged_frames, references;
	bool ok;
	char first_wrong[200];
};
void pool_run_audit(struct pool *p, uint64_t references, uint64_t in_hand, struct pool_audit *ret);

/* What is known of pages that have no entry yet. */
struct hints;
struct hints *pool_hints(struct pool *p);
