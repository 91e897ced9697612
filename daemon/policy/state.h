/* How short the host is: minFree's sliding scale and the five host states.  All thresholds live here.
 *
 *	          16 %      32 %      64 %     100 %           400 %  of minFree
 *	   low     |  hard   |  soft   |        clear           |  high       (free memory ->)
 *
 * What is allowed in each state, in addition to all states right of it:
 *	high	the background sharing scan
 *	clear	nothing more; below 100 % large pages are broken and a sharing pass runs at once
 *	soft	balloon; compress and swap where ballooning cannot work
 *	hard	compress and swap at once
 *	low	the same, and VMs above their target wait in their page allocations
 *
 * A state is left downwards at its lower bound and upwards at its upper bound x 1.1, so that free memory that
 * hovers at a bound does not flap.  Reclaim starts below *soft* and has more than minFree x 1.1 free as its goal:
 * a goal at *high* would keep a quarter of a small arena empty. */
#pragma once

#include <stdint.h>

enum host_state { HOST_HIGH, HOST_CLEAR, HOST_SOFT, HOST_HARD, HOST_LOW };
#define HOST_STATES (HOST_LOW + 1)
extern const char *const host_state_names[HOST_STATES];

struct host_thresholds {
	uint64_t min_free_frames;	/* 100 % */
	uint64_t high_frames;		/* 400 %: high at or above */
	uint64_t soft_frames;		/* 64 %: soft below; reclaim starts */
	uint64_t hard_frames;		/* 32 %: hard below */
	uint64_t low_frames;		/* 16 %: low below */
	uint64_t goal_frames;		/* reclaim ends when so many are free: the first number above 110 % */
};

/* 6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, 1 % of the rest; `pct` 1..100 overrides (0: automatic). */
uint64_t policy_min_free_frames(uint64_t capacity_frames, unsigned pct);
void policy_thresholds(uint64_t capacity_frames, unsigned pct, struct host_thresholds *ret);
/* Reclaim goes on until so many frames are free. */
uint64_t policy_goal_free_frames(uint64_t capacity_frames, unsigned pct);
/* The state after `now`, with so many frames free.  Start with HOST_HIGH. */
enum host_state policy_host_state(enum host_state now, uint64_t free_frames, const struct host_thresholds *t);

/* Which states are worth telling: one that is worse than what was told last, and one that is better and has been for
 * POLICY_BETTER_NS (the worst of that time).  While memory is short the state moves up and down by design, and that is no news. */
#define POLICY_BETTER_NS (60 * 1000000000ull)
/* Zero-initialised: high. */
struct policy_told {
	enum host_state told;
	enum host_state worst;		/* since it was last as bad as what was told */
	uint64_t better_ns;		/* when that was; 0: it is as bad now */
};
/* At each look.  The state to be told now; -1: none. */
int policy_told_state(struct policy_told *w, enum host_state now, uint64_t now_ns);
