/* Who gives memory back, and how much: a view of the arena and its VMs in, a plan out.
 *
 * Two causes, never mixed.  *Limit*: a VM near its own limit gives back so much that its next faults find room;
 * that is between the VM and its setting: neither reservation nor the state of the host matters.  *Host*: the
 * arena is short; what is needed is split by min-funding revocation: always the VM with the fewest shares per
 * charged frame gives next, and its price rises with every frame it gives, until the need is met.  No VM is taken
 * below its reservation, nor below what cannot be taken from it (pinned pages, page maps).
 *
 * Pure: no allocation, no clock, no state of its own; what must be remembered between two calls is in struct
 * policy_memory.  10,000 VMs take a few milliseconds. */
#pragma once

#include "policy/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_NO_LIMIT UINT64_MAX

struct policy_vm {
	uint64_t size_frames;
	uint64_t reservation_frames;
	uint64_t limit_frames;		/* POLICY_NO_LIMIT: none */
	uint64_t shares;		/* 0: nothing above its reservation when memory is short */
	uint64_t charged_frames;	/* all it is charged: resident, cache, page maps */
	uint64_t reclaimable_frames;	/* of these, what eviction could free: at most charged - overhead - pinned */
};

struct policy_view {
	uint64_t capacity_frames;
	uint64_t free_frames;
	unsigned min_free_pct;		/* 0: the sliding scale */
	size_t n_vms;
	const struct policy_vm *vms;
};

/* Zero-initialised (state high, not reclaiming) at start. */
struct policy_memory {
	enum host_state state;
	bool reclaiming;		/* begun below soft, not yet at the goal */
};

/* Frames that should come free from one VM, by cause. */
struct policy_take {
	uint64_t limit_frames;
	uint64_t host_frames;
};

struct policy_plan {
	struct host_thresholds thresholds;
	uint64_t need_frames;		/* of the host: goal - free, 0 if not reclaiming */
	uint64_t unmet_frames;		/* of these, what no VM can give */
	uint64_t host_frames, limit_frames;	/* sums over the takes */
};

/* Fills takes[0..n_vms), in the order of the view. */
void policy_plan(const struct policy_view *view, struct policy_memory *memory, struct policy_plan *ret,
	struct policy_take *takes);
/* A VM is asked to stay so far below its limit, so that faults seldom wait for an eviction of their own. */
uint64_t policy_limit_margin_frames(uint64_t limit_frames);
