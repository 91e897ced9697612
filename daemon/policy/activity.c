#include "policy/activity.h"

#include "policy/plan.h"

#define SLOW 0.125
#define FAST 0.5

static double average(const struct policy_activity *a, double before, double weight, double part)
{
	return a->periods ? before + weight * (part - before) : part;
}

/* Of the pages that were looked at, the part that was touched. */
static double touched_part(const struct policy_activity *a)
{
	return a->sampled ? (double)a->touched / a->sampled : 0;
}

static void end_period(struct policy_activity *a, double part, bool estimated)
{
	a->slow = average(a, a->slow, SLOW, part);
	a->fast = average(a, a->fast, FAST, part);
	a->periods++;
	a->known = true;
	a->estimated = estimated;
	a->running = false;
	a->looks = a->touched = 0;
}

enum policy_sample policy_activity_step(struct policy_activity *a, const struct policy_activity_settings *s, uint64_t now_ns)
{
	uint64_t since;

	if (!s->period_ns) {
		*a = (struct policy_activity){ 0 };
		return POLICY_SAMPLE_NONE;
	}
	if (!a->running)
		return POLICY_SAMPLE_BEGIN;
	since = now_ns - a->begun_ns;
	if (since >= s->period_ns + POLICY_SAMPLE_GRACE_NS)
		return POLICY_SAMPLE_MUTE;
	if (a->looks >= POLICY_SAMPLE_LOOKS || since < s->period_ns / POLICY_SAMPLE_LOOKS * (a->looks + 1))
		return POLICY_SAMPLE_NONE;
	/* looks that were missed are not made up for */
	a->looks = since >= s->period_ns ? POLICY_SAMPLE_LOOKS : (unsigned)(since / (s->period_ns / POLICY_SAMPLE_LOOKS));
	return POLICY_SAMPLE_LOOK;
}

void policy_activity_began(struct policy_activity *a, uint64_t now_ns, unsigned sampled)
{
	a->running = true;
	a->begun_ns = now_ns;
	a->looks = a->touched = 0;
	a->sampled = sampled;
}

void policy_activity_looked(struct policy_activity *a, const struct policy_activity_settings *s, uint64_t now_ns,
	unsigned touched)
{
	if (!a->running)
		return;
	/* who was touched once stays touched, even if it has been evicted since */
	if (touched > a->touched)
		a->touched = touched < a->sampled ? touched : a->sampled;
	a->known = true;
	if (now_ns - a->begun_ns >= s->period_ns)
		end_period(a, touched_part(a), false);
}

void policy_activity_estimate(struct policy_activity *a, uint64_t used, uint64_t pages)
{
	end_period(a, !pages ? 0 : used < pages ? (double)used / (double)pages : 1, true);
}

static double max_double(double a, double b)
{
	return a > b ? a : b;
}

void policy_activity_get(const struct policy_activity *a, const struct policy_activity_settings *s, uint64_t pages,
	struct policy_active *ret)
{
	double next = a->running ? average(a, a->fast, FAST, touched_part(a)) : a->fast;
	double most = max_double(max_double(max_double(a->slow, a->fast), next), s->min_pct / 100.0);

	*ret = (struct policy_active){ .frames = POLICY_ACTIVE_UNKNOWN, .active_pct = 100 };
	if (!a->known || !s->period_ns)
		return;
	if (most > 1)
		most = 1;
	*ret = (struct policy_active){ .frames = (uint64_t)(most * (double)pages), .estimated = a->estimated,
		.active_pct = 100 * most, .slow_pct = 100 * a->slow, .fast_pct = 100 * a->fast, .next_pct = 100 * next };
}
