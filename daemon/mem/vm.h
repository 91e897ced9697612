/* A VM: a payer, its leases and its stores.
 *
 * Ownership: vm_new gives it, vm_stop ends its threads, vm_free destroys it.  The leases belong to it.
 * Threads: vm_* and lease_* calls come from the control thread unless said otherwise; numbers may be read
 * from any thread. */
#pragma once

#include "base/histogram.h"
#include "base/problem.h"
#include "mem/arena.h"
#include "mem/page.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vm;
struct lease;
struct pool;

/* What is atomic may change while the VM runs (vm_set_config). */
struct vm_config {
	char name[64];
	uint64_t size_bytes;
	_Atomic uint64_t reservation_bytes;
	_Atomic uint64_t limit_bytes;		/* 0: none */
	_Atomic uint32_t shares;		/* 0: nothing above its reservation when memory is short */
	char swap_dir[256];
	bool keep_swap_sparse;			/* tests only: do not preallocate */
	uint64_t break_reserve_frames;		/* promised for writes to shared pages; a run of pages at least */
	_Atomic uint64_t balloon_max_bytes;	/* VM_OWN | bytes; 0: the host's setting */
	_Atomic uint64_t stall_budget_permille;	/* VM_OWN | permille; 0: the host's setting */
};
#define VM_OWN (1ull << 63)

/* Settings of reclaim that are live: read by the workers at each use. */
enum victim_kind { VICTIM_SECOND_CHANCE, VICTIM_FILL_ORDER, VICTIM_RANDOM };
struct mem_settings {
	_Atomic int zstd_level;
	_Atomic unsigned victim;		/* enum victim_kind */
	_Atomic unsigned zip_max_pct;		/* cap of a cache, % of the VM's size; 0: no compression */
	_Atomic unsigned zip_max_alloc_pct;	/* and % of what the VM is charged */
	_Atomic unsigned swap_spin_us;		/* how long a read from disk is waited for awake; 0: asleep at once */
	_Atomic unsigned fault_around_pages;	/* most pages brought in at a sequential fault; 1: off */
	_Atomic unsigned share_rate_max;	/* pages a second and VM that may be read or protected for sharing; 0: off */
	_Atomic unsigned ctl_max_pct;		/* cap of a balloon, % of the VM's size, where the VM has none of its own */
	_Atomic unsigned stall_budget_permille;	/* a VM whose guests wait for more of the time is spared; 0: none is */
	_Atomic bool park;			/* this process ends: no thread may go where a client could hold it */
};

struct vm_numbers {
#define NUMBER(name, kind, unit, sentence) uint64_t name;
#include "mem/vm_numbers.def"
#undef NUMBER
};

/* Why a fault was served, for the latency histograms; "protected" = an access that
 * met a page while it was evicted, moved or audited, and waited for that; "shared" = content of the pool, "break" = the
 * first write to a shared page. */
enum fault_cause { FAULT_ZERO, FAULT_COMPRESSED, FAULT_SWAPPED, FAULT_PROTECTED, FAULT_SHARED, FAULT_BREAK, FAULT_CAUSES };
extern const char *const fault_cause_names[FAULT_CAUSES];

/* Admission (arena_reserve of reservation + overhead) and swap preallocation happen here. */
int vm_new(struct vm **ret, struct arena *a, const struct mem_settings *settings, const struct vm_config *c,
	struct problem *p);
/* Ask all threads of the VM to end.  `gone` is called from one of them (or before vm_stop returns, if there is
 * none) when the last has ended; after that vm_free does not block.  Idempotent. */
void vm_stop(struct vm *vm, void (*gone)(void *userdata), void *userdata);
void vm_free(struct vm *vm);

/* What the VM's owner wants to find with it at a restart; with the first one the VM is there at all. */
#define VM_CLIENT_MAX 1024
void vm_keep(struct vm *vm, const void *client, size_t bytes);
/* The same, and how much it is. */
const void *vm_client(const struct vm *vm, size_t *ret_bytes);

const struct vm_config *vm_config(const struct vm *vm);
/* Change what may change: all of it, or nothing.  As vm_new: a larger reservation must find its frames, a smaller one the room in the
 * swap file that takes its place; not below what is pinned.  Name, size and swap_dir are as they were. */
int vm_set_config(struct vm *vm, const struct vm_config *c, struct problem *p);
/* What the arena has to have for a VM beside its reservation, at the worst: page map, checksums of a swap file of `swap_frames` or
 * what it needs, its state, one block of the cache that is being filled and one of survivors; and the frames for breaks. */
uint64_t vm_overhead_frames(const struct vm_config *c, uint64_t swap_frames);
uint64_t vm_break_reserve_frames(const struct vm_config *c);
struct vm_promise {
	uint64_t frames;		/* of the arena: all of the above */
	uint64_t swap_frames;		/* set aside on the disk */
};
void vm_promise(struct vm *vm, struct vm_promise *ret);
/* The most that its balloon may hold, by its own cap or CtlMaxPercent.  Any thread. */
uint64_t vm_balloon_max_frames(const struct vm *vm);
/* Its guests may wait for pages for so much of the time before it is spared; 0: no budget.  Any thread. */
unsigned vm_stall_budget_permille(const struct vm *vm);
void vm_numbers(struct vm *vm, struct vm_numbers *ret);
/* What others have found out about it, for its numbers.  Any thread.  VM_ACTIVE_BYTES beyond what is leased: all of that. */
enum vm_gauge { VM_ACTIVE_BYTES, VM_ACTIVE_ESTIMATED, VM_ACTIVE_SLOW_PCT, VM_ACTIVE_FAST_PCT, VM_ACTIVE_NEXT_PCT,
	VM_STALL_PERMILLE, VM_TARGET_BYTES, VM_BLOCKED };
void vm_tell(struct vm *vm, enum vm_gauge gauge, uint64_t value);
/* Wall time in which at least one guest thread waited for a page, until now.  Any thread. */
uint64_t vm_stall_wall_ns(struct vm *vm);
/* Histogram of one cause over all leases. */
void vm_fault_histogram(struct vm *vm, enum fault_cause cause, struct histogram_copy *ret);
struct account *vm_account(struct vm *vm);
/* "" or why the VM cannot go on (a page was lost and the kernel cannot poison it). */
const char *vm_trouble(const struct vm *vm);
/* Whether that reason is the client's own doing (it took memory that is not there): end its session. */
bool vm_must_end(const struct vm *vm);
/* Since when a thread of the VM is in a system call that takes locks of its client; 0: none is.  The longest. */
uint64_t vm_held_since_ns(struct vm *vm);

/* Ask the VM's leases to evict `frames` in all; `limit`: because of its own limit.  Never blocks; the work is
 * spread over the lease workers.  Replaces an earlier unfinished request. */
void vm_reclaim(struct vm *vm, uint64_t frames, bool limit);
/* How many pages are in its stores: what JOB_PAGE_IN could bring in. */
uint64_t vm_stored_pages(struct vm *vm);
/* So many are still to be brought in (page_in_left_bytes). */
void vm_set_page_in_left(struct vm *vm, uint64_t pages);

/* Compare what the client's memfds hold with what it is charged; charges what it took behind our back. */
uint64_t vm_check_wall(struct vm *vm);

/* ---- balloon (balloon.c) ---- */

struct vm_balloon {
	bool driver;		/* there is somebody to be asked: the guest's own driver, or an agent that was heard of lately */
	uint64_t frames;	/* in the balloon now, claims included as far as they are believed */
	uint64_t max_frames;	/* the most it may hold; 0: no driver */
	bool planned;		/* a target was set; until then it is what the balloon holds (after a restart nothing moves before a plan) */
	uint64_t target_frames;	/* at most max_frames */
};
/* Any thread. */
void vm_get_balloon(struct vm *vm, struct vm_balloon *ret);
/* What the balloon should hold.  Any thread, never blocks; who tells the driver looks ten times a second (root: balloons.c). */
void vm_set_balloon_target(struct vm *vm, uint64_t frames);
/* The guest's own driver is there. */
void vm_set_balloon_driver(struct vm *vm);
/* An agent outside says that a balloon which we do not see holds so much: believed until `until_ns` (0: it is gone), and at most
 * as far as the VM has zero pages, because what such a balloon took has been discarded. */
void vm_claim_balloon(struct vm *vm, uint64_t frames, uint64_t until_ns);
/* What of the target is the guest's driver's part, and what the agent's: a VM that has both is asked by its own. */
uint64_t vm_balloon_told(struct vm *vm, bool agent);

/* Its leases are gathered to leave the arena: what it needs for that is beyond capacity and limit. */
void vm_set_leaving(struct vm *vm, bool leaving);

/* ---- sharing (share.c) ---- */

enum sharing { SHARING_OFF, SHARING_ZERO, SHARING_POOL };
/* What may be shared; at first SHARING_OFF.  Before the first lease. */
void vm_set_sharing(struct vm *vm, enum sharing s);
/* Less of it, or all of it again: what is more than vm_set_sharing has said does not count.  What is shared already stays so until it is
 * written to or discarded. */
void vm_limit_sharing(struct vm *vm, enum sharing most);
/* What is shared now. */
enum sharing vm_sharing(const struct vm *vm);
/* Its pool (the VM takes a reference) and the mappings that sharing may add to the client (0: none, pages are shared only
 * while they are cold).  Once; leases may exist already.  -EBUSY: it has one; -ENOSPC: the pool has no room for a member. */
int vm_join_pool(struct vm *vm, struct pool *p, uint64_t vma_budget);
struct pool *vm_pool(struct vm *vm);
/* Pages that refer to it, by the ledger. */
uint64_t vm_pool_references(struct vm *vm);
/* A share of a pass: let the hand pass over `hand_pages` pages, of which at most `read_pages` are read or protected.
 * Adds to what was granted and not used, up to a second's worth.  It is also the time for what broke to come home, so it is called
 * when there is nothing to grant as well.  Never blocks. */
void vm_scan(struct vm *vm, uint64_t hand_pages, uint64_t read_pages);
/* Times that the hand went round all leases, the slowest of them. */
uint64_t vm_scan_passes(struct vm *vm);

/* An answer to a remap order (control thread; orders.c).  r < 0: it will never come.  `bits`: see proto; `pages`: how many
 * pages it was carried out for. */
void vm_remap_answered(struct vm *vm, uint32_t lease, uint64_t order, int r, const uint8_t *bits, unsigned pages);

struct pool_run {
	uint64_t page, count, pool_page;
};
enum remap { REMAP_SHARE, REMAP_HOME, REMAP_SETTLE };

/* The order channel to the client library (root: orders.c).  All are called on a lease worker. */
struct vm_orders {
	/* Drop the mappings (not the pages) of these runs, so that a later look shows which were used.  Sent,
	 * not waited for; orders are executed in the order they were sent.  0, or -errno if it was not sent. */
	int (*zap)(void *userdata, struct lease *l, const struct run *runs, unsigned n);
	/* Which of these pages are mapped again: one bit a page, in the order of the runs, at most
	 * RUN_MAX * 8 pages.  Waits, at most 100 ms.  0, or -errno when there is no answer. */
	int (*present)(void *userdata, struct lease *l, const struct run *runs, unsigned n, uint8_t *ret_bits);
	/* Which of these pages, mapped from the pool, are private copies.  As `present`. */
	int (*private_copies)(void *userdata, struct lease *l, const struct run *runs, unsigned n, uint8_t *ret_bits);
	/* Map these runs from the pool, or bring them home, or say what became of such an order (two bits a page: mapped from the
	 * pool, all of them, then clean): at most RUN_MAX * 8 pages.  Sent, not waited for: the answer comes
	 * by vm_remap_answered with *ret_order.  0, or -errno if it was not sent. */
	int (*remap)(void *userdata, struct lease *l, enum remap what, const struct pool_run *runs, unsigned n,
		uint64_t *ret_order);
	/* The whole lease, so many pages, is the client's from now on; waits, at most ten seconds.  0: it has it.  -ETIMEDOUT: nobody knows. */
	int (*hand_over)(void *userdata, struct lease *l, uint64_t pages);
	void *userdata;
};
/* NULL functions: no orders (the default). */
void vm_set_orders(struct vm *vm, const struct vm_orders *orders);
