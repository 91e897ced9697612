#include "policy/state.h"

#include <stdbool.h>

#define FRAMES_PER_GIB 262144ull

const char *const host_state_names[HOST_STATES] = { "high", "clear", "soft", "hard", "low" };

/* Percent of a frame count without overflow: counts stay below 2^52 (an address space of 2^64 bytes). */
static uint64_t percent(uint64_t frames, unsigned pct)
{
	return frames * pct / 100;
}

uint64_t policy_min_free_frames(uint64_t capacity_frames, unsigned pct)
{
	static const struct {
		uint64_t frames;
		unsigned pct;
	} scale[] = {
		{ 4 * FRAMES_PER_GIB, 6 },
		{ 8 * FRAMES_PER_GIB, 4 },
		{ 16 * FRAMES_PER_GIB, 2 },
		{ UINT64_MAX, 1 },
	};
	uint64_t left = capacity_frames, sum = 0;

	if (pct)
		return percent(capacity_frames, pct > 100 ? 100 : pct);
	for (unsigned i = 0; left; i++) {
		uint64_t part = left < scale[i].frames ? left : scale[i].frames;

		sum += percent(part, scale[i].pct);
		left -= part;
	}
	return sum;
}

void policy_thresholds(uint64_t capacity_frames, unsigned pct, struct host_thresholds *ret)
{
	uint64_t min_free = policy_min_free_frames(capacity_frames, pct);
	uint64_t goal = percent(min_free, 110) + 1;

	*ret = (struct host_thresholds){
		.min_free_frames = min_free,
		.high_frames = percent(min_free, 400),
		.soft_frames = percent(min_free, 64),
		.hard_frames = percent(min_free, 32),
		.low_frames = percent(min_free, 16),
		.goal_frames = goal < capacity_frames ? goal : capacity_frames,
	};
}

uint64_t policy_goal_free_frames(uint64_t capacity_frames, unsigned pct)
{
	struct host_thresholds t;

	policy_thresholds(capacity_frames, pct, &t);
	return t.goal_frames;
}

/* The least free memory that still is state `s`. */
static uint64_t lower_bound(enum host_state s, const struct host_thresholds *t)
{
	switch (s) {
	case HOST_HIGH:
		return t->high_frames;
	case HOST_CLEAR:
		return t->soft_frames;
	case HOST_SOFT:
		return t->hard_frames;
	case HOST_HARD:
		return t->low_frames;
	case HOST_LOW:
		break;
	}
	return 0;
}

enum host_state policy_host_state(enum host_state now, uint64_t free_frames, const struct host_thresholds *t)
{
	while (now < HOST_LOW && free_frames < lower_bound(now, t))
		now++;
	/* the upper bound of a state is the lower bound of the next better one; who just fell below it stays */
	while (now > HOST_HIGH && free_frames >= percent(lower_bound(now - 1, t), 110))
		now--;
	return now;
}

int policy_told_state(struct policy_told *w, enum host_state now, uint64_t now_ns)
{
	if (now >= w->told) {
		bool worse = now > w->told;

		w->told = now;
		w->better_ns = 0;
		return worse ? (int)now : -1;
	}
	if (!w->better_ns) {
		w->better_ns = now_ns;
		w->worst = now;
	}
	if (now > w->worst)
		w->worst = now;
	if (now_ns - w->better_ns < POLICY_BETTER_NS)
		return -1;
	w->told = w->worst;
	w->better_ns = 0;
	return (int)w->told;
}
