/* Who gives memory back, how much, and how: a view of the arena and its VMs in, a plan out.
 *
 * Two causes, never mixed.  *Limit*: a VM near its own limit gives back so much that its next faults find room; that is
 * between the VM and its setting: neither reservation nor host state, balloon nor stall budget matter.  *Host*: the
 * arena is short; what is needed is split by min-funding revocation with the idle tax:
 *
 *	rho = S / (P (f + k (1 - f)))		k = 1 / (1 - tau)
 *
 * S shares, P frames held, f the active part of them, tau the tax.  The lowest rho gives next, and its rho rises with
 * each frame it gives.  With A = f P active frames, the *price* of P frames is P up to A, and A + k (P - A) above; nobody
 * gives an active frame for less than it is worth.  IdleTaxType 1: tau is IdleTax times the idle part (P - A) / P, so a
 * little idleness costs next to nothing.
 *
 * Rules (each with a twin in tests/sim that breaks without it):
 *	floor		no VM is taken, or ballooned, below its reservation, nor below what cannot be taken from it
 *	hysteresis	reclaim begins below *soft* and ends at the goal, minFree x 1.1; states as in policy/state.h
 *	two phases	free first, then give: a balloon is let down only with free memory above the goal, by no more than that
 *	balance		not short: what a ballooned VM is entitled to now, as the others' activity or shares have changed, is taken from them
 *	techniques	soft: by balloon where it works, evict where it does not; hard and low: evict at once, balloon as well
 *	cooperation	what a balloon was asked for and refused counts as held, so who refuses gives next, by force
 *	budget		a VM above its stall budget is spared as long as the others can give
 *	block		in low, who is above its target waits for new pages, but only while somebody gives
 *
 * Pure: no allocation, no clock, no state of its own.  What must be remembered between two calls is in the plan
 * (next_state, next_reclaiming) and goes into the next view, so that a recorded row can be planned again by itself.
 * 10,000 VMs take a few milliseconds. */
#pragma once

#include "policy/state.h"

#include <stddef.h>
#include <stdint.h>

#define POLICY_NO_LIMIT UINT64_MAX
#define POLICY_ACTIVE_UNKNOWN UINT64_MAX

enum policy_balloon_state {
	POLICY_BALLOON_NONE,		/* no driver */
	POLICY_BALLOON_RESPONSIVE,
	POLICY_BALLOON_INACTIVE,	/* asked, and no progress for 5 s: not waited for */
	POLICY_BALLOON_UNCOOPERATIVE,	/* for 20 s: charged as if it had given */
};
#define POLICY_BALLOON_STATES (POLICY_BALLOON_UNCOOPERATIVE + 1)

enum policy_cause { POLICY_CAUSE_NONE, POLICY_CAUSE_LIMIT, POLICY_CAUSE_HOST };
#define POLICY_CAUSES (POLICY_CAUSE_HOST + 1)

enum policy_technique {
	POLICY_TECHNIQUE_NONE, POLICY_TECHNIQUE_SHARE, POLICY_TECHNIQUE_BALLOON, POLICY_TECHNIQUE_COMPRESS,
	POLICY_TECHNIQUE_SWAP, POLICY_TECHNIQUE_BLOCK,
};
#define POLICY_TECHNIQUES (POLICY_TECHNIQUE_BLOCK + 1)

/* Why a VM is asked for something, or for nothing: REASON(name, word, sentence about the VM). */
#define POLICY_REASONS(REASON) \
	REASON(AMPLE, "ample", "Memory is ample: nothing is asked of anybody.") \
	REASON(DEFLATE, "deflate", "Memory is ample again: its balloon is let down, as far as free memory goes.") \
	REASON(HOLD, "hold", "Memory is neither short nor ample: balloons stay as they are.") \
	REASON(BALANCE, "balance", "Memory is not short, but others have more shares for what they hold, and their balloons are not empty.") \
	REASON(OWN_LIMIT, "own-limit", "It is near its own limit.") \
	REASON(FEWEST_SHARES, "fewest-shares", "The host is short, and it has the fewest shares for what it holds.") \
	REASON(IDLE, "idle", "The host is short, and it has the fewest shares for what it holds, idle memory counted more.") \
	REASON(NO_SHARES, "no-shares", "The host is short, and it has no shares: all above its reservation goes first.") \
	REASON(REFUSED, "refused", "The host is short, and it was asked by its balloon and did not give: that counts as held.") \
	REASON(OVER_BUDGET, "over-budget", "It waits for its pages longer than its stall budget, but the others cannot give enough.") \
	REASON(SPARED, "spared", "The host is short, but this VM is above its stall budget, and others can give.") \
	REASON(BETTER_FUNDED, "better-funded", "The host is short, but others have fewer shares for what they hold.") \
	REASON(AT_RESERVATION, "at-reservation", "The host is short, but this VM holds no more than its reservation.") \
	REASON(NOTHING_TO_TAKE, "nothing-to-take", "The host is short, but nothing can be taken from this VM now.")
#define POLICY_REASON_ENUM(name, word, sentence) POLICY_REASON_##name,
enum policy_reason { POLICY_REASONS(POLICY_REASON_ENUM) POLICY_REASON_COUNT };

extern const char *const policy_balloon_state_names[POLICY_BALLOON_STATES];
extern const char *const policy_cause_names[POLICY_CAUSES];
extern const char *const policy_technique_names[POLICY_TECHNIQUES];
extern const char *const policy_reason_names[POLICY_REASON_COUNT];		/* the words */
extern const char *const policy_reason_sentences[POLICY_REASON_COUNT];

#define POLICY_IN(name, sentence) uint64_t name;
struct policy_vm {
#include "policy/plan_vm.def"
};

#define POLICY_OUT(name, sentence) uint64_t name;
struct policy_vm_plan {
#include "policy/plan_vm.def"
};

/* Zero-initialised (state high, not reclaiming) at start, afterwards with the last plan's next_state and next_reclaiming. */
#define POLICY_IN(name, sentence) uint64_t name;
struct policy_view {
#include "policy/plan_host.def"
	size_t n_vms;
	const struct policy_vm *vms;
};

#define POLICY_OUT(name, sentence) uint64_t name;
struct policy_plan {
#include "policy/plan_host.def"
};

/* Fills vms[0..view->n_vms), in the order of the view.  `vms` is only written. */
void policy_plan(const struct policy_view *view, struct policy_plan *ret, struct policy_vm_plan *vms);
/* A VM is asked to stay so far below its limit, so that faults seldom wait for an eviction of their own. */
uint64_t policy_limit_margin_frames(uint64_t limit_frames);
