/* The arena: the memory we own, and who pays for which frame of it.
 *
 * All memfds of the daemon (leases, page maps, caches) are created, sealed, mapped and charged here and nowhere
 * else.  The arena is several memfds because a file descriptor is authority over its whole file: a client
 * gets the memfd of its lease and nothing else can be reached through it.
 *
 * The capacity is a wall: every frame is charged *before* the kernel is asked for it and uncharged *after* the
 * kernel gave it back (a verified hole), so at any instant the allocated blocks of all segments are at most the
 * charged frames, and those at most the capacity.  arena_check() compares the two sums.
 *
 * A charge names its payer, a struct account (a VM).  Guests may charge up to capacity - reserve; the reserve
 * is for stores, so that reclaim can always put away what it takes (it would dead-lock at a full arena
 * otherwise: compressing 64 pages needs some 30 frames before it frees 64).
 *
 * Threads: everything may be called from any thread.  Charging is one compare-and-swap on the arena and one on
 * the account: no lock, no system call, except the eventfd write of the one charge that crosses a threshold. */
#pragma once

#include "base/list.h"
#include "base/problem.h"
#include "mem/kept.h"
#include "mem/page.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum segment_kind {
	SEGMENT_STATE,		/* what of a VM or pool is in no map of it */
	SEGMENT_LEASE,		/* guest pages; a client holds it too */
	SEGMENT_POOL,		/* shared pages; clients have descriptors that can only read */
	SEGMENT_PAGE_MAP,	/* words of a lease, or of a pool; the hashes of its entries */
	SEGMENT_CACHE,		/* compressed pages of a VM or a pool */
	SEGMENT_SWAP_MAP,	/* checksums and slots in use of a VM's swap file */
};

enum charge_kind {
	CHARGE_GUEST,	/* a frame for a guest page: refused when only the reserve is left, at the account's limit, or
			 * while the account is blocked */
	CHARGE_ADOPT,	/* likewise, for a page that is there already: a block does not stop it */
	CHARGE_STORE,	/* a frame that reclaim or the ledger needs: may use the reserve and pass the limit */
};

struct arena;

/* A payer.  Its owner asserts that it is zero when it goes. */
struct account {
	struct arena *arena;
	_Atomic uint64_t frames;	/* charged now */
	_Atomic uint64_t peak;		/* the most it ever was */
	_Atomic uint64_t limit_frames;	/* UINT64_MAX: none */
	_Atomic bool pressed;		/* near its limit, and told so; cleared by account_rearm */
	_Atomic bool leaving;		/* its frames are on their way out of the arena: neither wall nor limit */
	_Atomic bool blocked;		/* account_set_blocked */
};

/* One memfd.  `addr` is its mapping in the reserved window (page maps, caches, swap maps), or the daemon's own
 * mapping of a lease, which lies outside the window and is managed by the lease. */
struct segment {
	struct list link;	/* of the arena, under its lock */
	enum segment_kind kind;
	struct arena *arena;
	struct account *payer;
	int fd;			/* ours; never -1 while the segment lives */
	uint8_t *addr;		/* NULL for leases */
	uint64_t size_bytes;
	_Atomic uint64_t frames;	/* charged for this segment now */
	int client_fd;			/* leases: the open file description that a client gets; else -1 */
	bool found;			/* it is of a process before us, with its content; charged by whoever owns it */
	char tag[KEPT_TAG];
};

struct arena_numbers {
	uint64_t capacity_frames, charged_frames, peak_frames, reserve_frames, reserved_frames;
	uint64_t free_frames;	/* capacity - charged */
	uint64_t segments;
};

/* Checks by act that the host can hold it: the address window, MemAvailable and the memory cgroup against `capacity_bytes`
 * (where something was found, what is missing is logged and no more), and that a memfd page costs one page (shmem huge
 * pages off: under them a page beside
 * the written one would read as zeros without anybody being told).  `kept` (NULL: none) outlives the arena: all segments are kept by
 * it, and what it has found counts as held already. */
int arena_new(struct arena **ret, uint64_t capacity_bytes, struct kept *kept, struct problem *p);
struct kept *arena_kept(const struct arena *a);
void arena_free(struct arena *a);

/* Whether a page written into a fresh memfd allocates one page only; -ENOTSUP with the setting to change
 * otherwise.  Called at start and now and then afterwards. */
int arena_probe_huge_pages(struct problem *p);

/* `crossed` is called by the charge that leaves fewer than `low_frames` free, once until re-armed by
 * arena_rearm(); it runs on a fault thread: it may write to an eventfd and nothing more. */
void arena_set_pressure(struct arena *a, uint64_t low_frames, void (*crossed)(void *), void *userdata);
/* The reserve, while threads are charging: at least 128 frames, and at most 1/128 of the capacity if that is more, which
 * is what admission goes by. */
void arena_set_reserve(struct arena *a, uint64_t frames);
/* Another threshold, while threads are charging. */
void arena_set_low(struct arena *a, uint64_t low_frames);
/* Re-arm, for the charge that leaves fewer than `wake_frames` free: low at first, less for who has been told of low
 * and waits for the next threshold below.  arena_is_short goes by low all the same.  True if free frames are below it
 * already (nobody will tell: the caller looks again). */
bool arena_rearm(struct arena *a, uint64_t wake_frames);

/* Admission: frames promised to VMs (reservations and overhead).  -ENOMEM with the numbers. */
int arena_reserve(struct arena *a, uint64_t frames, struct problem *p);
/* What was promised before us stays so. */
void arena_reserve_found(struct arena *a, uint64_t frames);
void arena_unreserve(struct arena *a, uint64_t frames);

/* Frames that somebody takes out of the arena with him: capacity for as long as that lasts. */
void arena_lend(struct arena *a, uint64_t frames);
/* He is gone, or has stayed.  What is charged beyond the capacity is let go as its frames are given back; until then nobody but
 * stores gets any. */
void arena_unlend(struct arena *a, uint64_t frames);

void account_init(struct account *acc, struct arena *a, uint64_t limit_frames);
/* Asserts zero. */
void account_fini(struct account *acc);
/* Frames that the account should give back to be clear of its own limit (a margin below it), 0 if it is. */
uint64_t account_over_limit(const struct account *acc);
/* Whether it is clear of it by twice that margin: more than reclaim leaves. */
bool account_is_roomy(const struct account *acc);
/* Report again when the account next comes near its limit. */
void account_rearm(struct account *acc);
/* Whether its guest charges wait, whatever is free (state *low*).  Who waits is woken when it ends.
 *
 * It cannot dead-lock.  A thread that is refused holds no word and no frame, as at a full arena, and what makes memory
 * free is charged as CHARGE_STORE (evictions, page maps, bringing home) or not at all.  Whoever blocks looks again by
 * itself for as long as anybody is blocked, so the end of a block depends on no charge and on no wake-up.  An account
 * that is leaving is not held up, and a thread that ends sees so within one of its waits. */
void account_set_blocked(struct account *acc, bool blocked);
bool account_is_blocked(const struct account *acc);

/* A segment of `size_bytes` (a multiple of the page size), sparse: it costs nothing until pages of it are
 * charged and written.  Sealed against shrinking, growing and further seals.  It is kept as `part` of the owner; if that was
 * found, it is what was found.  -EBADMSG: that is not such a segment. */
int segment_new(struct segment **ret, struct arena *a, struct account *payer, enum segment_kind kind,
	struct kept_owner owner, const char *part, uint64_t size_bytes, struct problem *p);
/* Unmaps, closes, uncharges what was charged for it.  NULL is fine. */
void segment_free(struct segment *s);
/* Frames that the kernel has allocated for it (st_blocks). */
uint64_t segment_blocks(const struct segment *s);

/* 0; -ENOMEM: the arena is full; -EDQUOT: the account is at its limit; -EBUSY: it is blocked. */
int segment_charge(struct segment *s, uint64_t frames, enum charge_kind kind);
void segment_uncharge(struct segment *s, uint64_t frames);
/* What it holds already, whatever the capacity or a limit says. */
void segment_charge_found(struct segment *s, uint64_t frames);
/* The next extent of data of a segment that no client holds, at or after `at` bytes: [*ret_from, *ret_to).  false: no more. */
bool segment_next_data(const struct segment *s, uint64_t at, uint64_t *ret_from, uint64_t *ret_to);
/* Whether nothing is there, what the host has swapped out included.  May wait for whoever holds the file's lock. */
bool segment_is_hole(const struct segment *s, uint64_t offset, uint64_t length);
/* Punch a hole, tried again if the kernel cannot just now.  0 or -errno; what it really did must be looked at. */
int segment_make_hole(struct segment *s, uint64_t offset, uint64_t length);
/* Give the pages back to the kernel, verify the hole, uncharge `charged` frames.  For segments that no client
 * holds; leases have their own way (evict.c). */
int segment_punch(struct segment *s, uint64_t offset, uint64_t length, uint64_t charged);

/* Its limit has changed: whoever waits looks again, and reclaim too. */
void account_changed(struct account *acc);
/* Wait until a guest charge of the account may succeed, at most `timeout_ns`; woken by uncharges. */
void account_wait(struct account *acc, uint64_t timeout_ns);
/* Ask for a look at the pressure now (a fault found the arena full; a worker finished). */
void arena_poke(struct arena *a);
/* Whether free frames are below the low threshold: no fault-around, no read-ahead then. */
bool arena_is_short(struct arena *a);
/* Whether they are at twice that at least: more than reclaim would make free. */
bool arena_is_roomy(struct arena *a);

/* Not charged. */
uint64_t arena_free_frames(struct arena *a);
void arena_numbers(struct arena *a, struct arena_numbers *ret);
/* The wall: sum of the blocks of all segments against the capacity and the charge. */
struct arena_check {
	uint64_t blocks_frames, charged_frames, capacity_frames;
};
void arena_check(struct arena *a, struct arena_check *ret);
