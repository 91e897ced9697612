/* policy/: thresholds, host states, and who gives how much.  The properties are checked on random views. */
#include "base/clock.h"
#include "policy/plan.h"
#include "tests/lib/check.h"

#include <string.h>

#define MIB 256ull /* frames */
#define GIB 262144ull

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? seed % below : 0;
}

static void min_free_slides(void)
{
	static const struct {
		uint64_t capacity, pct, expect;
	} rows[] = {
		{ 0, 0, 0 },
		{ 256 * MIB, 0, 256 * MIB * 6 / 100 },
		{ 4 * GIB, 0, 4 * GIB * 6 / 100 },
		{ 12 * GIB, 0, 4 * GIB * 6 / 100 + 8 * GIB * 4 / 100 },
		{ 28 * GIB, 0, 4 * GIB * 6 / 100 + 8 * GIB * 4 / 100 + 16 * GIB * 2 / 100 },
		{ 128 * GIB, 0, 4 * GIB * 6 / 100 + 8 * GIB * 4 / 100 + 16 * GIB * 2 / 100 + GIB },
		{ 256 * MIB, 10, 256 * MIB / 10 },
		{ 256 * MIB, 1000, 256 * MIB },
	};

	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
		CHECK_MSG(policy_min_free_frames(rows[i].capacity, (unsigned)rows[i].pct) == rows[i].expect, "row %u", i);
}

static void thresholds_are_ordered(void)
{
	for (uint64_t capacity = 0; capacity < 1024 * GIB; capacity = capacity * 3 / 2 + 1) {
		struct host_thresholds t;

		policy_thresholds(capacity, 0, &t);
		CHECK(t.low_frames <= t.hard_frames && t.hard_frames <= t.soft_frames);
		CHECK(t.soft_frames <= t.min_free_frames && t.min_free_frames <= t.high_frames);
		CHECK(t.goal_frames <= capacity);
		CHECK(!capacity || t.goal_frames > t.min_free_frames);
		CHECK_EQ(policy_goal_free_frames(capacity, 0), t.goal_frames);
	}
}

/* minFree is 1000 frames here, so free memory is in tenths of a percent */
static void states_have_hysteresis(void)
{
	static const struct {
		enum host_state now;
		uint64_t free;
		enum host_state next;
	} rows[] = {
		{ HOST_HIGH, 4000, HOST_HIGH }, { HOST_HIGH, 3999, HOST_CLEAR }, { HOST_HIGH, 0, HOST_LOW },
		{ HOST_CLEAR, 4000, HOST_CLEAR }, { HOST_CLEAR, 4399, HOST_CLEAR }, { HOST_CLEAR, 4400, HOST_HIGH },
		{ HOST_CLEAR, 640, HOST_CLEAR }, { HOST_CLEAR, 639, HOST_SOFT },
		{ HOST_SOFT, 640, HOST_SOFT }, { HOST_SOFT, 703, HOST_SOFT }, { HOST_SOFT, 704, HOST_CLEAR },
		{ HOST_SOFT, 320, HOST_SOFT }, { HOST_SOFT, 319, HOST_HARD },
		{ HOST_HARD, 351, HOST_HARD }, { HOST_HARD, 352, HOST_SOFT }, { HOST_HARD, 159, HOST_LOW },
		{ HOST_LOW, 160, HOST_LOW }, { HOST_LOW, 175, HOST_LOW }, { HOST_LOW, 176, HOST_HARD },
		{ HOST_LOW, 1000, HOST_CLEAR }, { HOST_LOW, 100000, HOST_HIGH },
	};
	struct host_thresholds t;

	policy_thresholds(10000, 10, &t);
	CHECK_EQ(t.min_free_frames, 1000);
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		enum host_state next = policy_host_state(rows[i].now, rows[i].free, &t);

		CHECK_MSG(next == rows[i].next, "%s with %llu free becomes %s, not %s", host_state_names[rows[i].now],
			(unsigned long long)rows[i].free, host_state_names[next], host_state_names[rows[i].next]);
	}
}

/* A state is a fixed point: asked again with the same memory it stays. */
static void states_settle_at_once(void)
{
	struct host_thresholds t;

	policy_thresholds(256 * MIB, 0, &t);
	for (int i = 0; i < 100000; i++) {
		uint64_t free_frames = rnd(t.high_frames * 3 / 2);
		enum host_state once = policy_host_state((enum host_state)rnd(HOST_STATES), free_frames, &t);

		CHECK_EQ(policy_host_state(once, free_frames, &t), once);
	}
}

/* Plans, and remembers what is to be remembered. */
static void carry(struct policy_view *v, struct policy_plan *p, struct policy_vm_plan *vms)
{
	policy_plan(v, p, vms);
	v->state = p->next_state;
	v->reclaiming = p->next_reclaiming;
}

static struct policy_vm vm(uint64_t charged, uint64_t shares, uint64_t reservation)
{
	return (struct policy_vm){
		.size_frames = charged * 2, .reservation_frames = reservation, .limit_frames = POLICY_NO_LIMIT,
		.shares = shares, .charged_frames = charged, .reclaimable_frames = charged,
		.active_frames = POLICY_ACTIVE_UNKNOWN,
	};
}

/* An arena of 100,000 frames with minFree 1000 (1 %): soft 640, goal 1101. */
static struct policy_view view_of(const struct policy_vm *vms, size_t n, uint64_t free_frames)
{
	return (struct policy_view){
		.capacity_frames = 100000, .free_frames = free_frames, .min_free_pct = 1, .n_vms = n, .vms = vms };
}

static void reclaim_starts_below_soft_and_ends_at_the_goal(void)
{
	struct policy_vm vms[1] = { vm(90000, 100, 0) };
	struct policy_vm_plan takes[1];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 1, 640);

	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 0);
	v.free_frames = 639;
	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 1101 - 639);
	CHECK_EQ(p.next_state, HOST_SOFT);
	v.free_frames = 1100; /* above soft, but begun */
	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 1);
	v.free_frames = 1101;
	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 0);
	v.free_frames = 1000; /* ended: starts again below soft only */
	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 0);
}

static void fewest_shares_per_frame_give_first(void)
{
	/* 10 frames a share, 20, 40: the last gives alone until it is at 20 */
	struct policy_vm vms[3] = { vm(10000, 1000, 0), vm(20000, 1000, 0), vm(40000, 1000, 0) };
	struct policy_vm_plan takes[3];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 3, 101);

	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 0);
	CHECK_EQ(takes[1].host_take_frames, 0);
	CHECK_EQ(takes[2].host_take_frames, 1000);
}

static void equals_give_equally(void)
{
	struct policy_vm vms[4] = { vm(20000, 500, 0), vm(20000, 500, 0), vm(20000, 500, 0), vm(20000, 500, 0) };
	struct policy_vm_plan takes[4];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 4, 101);

	carry(&v, &p, takes);
	CHECK_EQ(p.host_frames, 1000);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(takes[i].host_take_frames, 250);
}

static void reservation_is_kept(void)
{
	struct policy_vm vms[2] = { vm(40000, 1, 39900), vm(40000, 1000, 0) };
	struct policy_vm_plan takes[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 101);

	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 100);
	CHECK_EQ(takes[1].host_take_frames, 900);
	vms[1].reservation_frames = 40000;
	carry(&v, &p, takes);
	CHECK_EQ(takes[1].host_take_frames, 0);
	CHECK_EQ(p.unmet_frames, 900);
}

static void no_shares_give_all_above_the_reservation_first(void)
{
	struct policy_vm vms[2] = { vm(500, 0, 100), vm(90000, 10, 0) };
	struct policy_vm_plan takes[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 101);

	carry(&v, &p, takes);
	CHECK_EQ(takes[0].host_take_frames, 400);
	CHECK_EQ(takes[1].host_take_frames, 600);
}

static void limit_is_a_cause_of_its_own(void)
{
	struct policy_vm vms[2] = { vm(10000, 10, 10000), vm(50000, 10, 0) };
	struct policy_vm_plan takes[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 30000);
	uint64_t margin = policy_limit_margin_frames(10000);

	vms[0].limit_frames = 10000; /* at its limit, which equals its reservation: its faults wait otherwise */
	carry(&v, &p, takes);
	CHECK_EQ(takes[0].limit_take_frames, margin);
	CHECK_EQ(takes[0].host_take_frames, 0);
	CHECK_EQ(takes[1].limit_take_frames, 0);
	vms[0].charged_frames = 10000 - margin / 2; /* room enough for now */
	carry(&v, &p, takes);
	CHECK_EQ(takes[0].limit_take_frames, 0);

	/* when the host is short as well, what a limit frees is not taken twice */
	vms[0] = vm(10000, 10, 0);
	vms[0].limit_frames = 5000;
	v.free_frames = 101;
	carry(&v, &p, takes);
	CHECK_EQ(p.need_frames, 1000);
	CHECK(p.limit_frames > 5000);
	CHECK_EQ(p.host_frames, 0);
}

static struct policy_vm random_vm(void)
{
	uint64_t size = rnd(100000), charged = rnd(size + 1);
	struct policy_vm v = {
		.size_frames = size, .charged_frames = charged, .reclaimable_frames = rnd(charged + 1),
		.reservation_frames = rnd(4) ? rnd(size + 1) : 0, .shares = rnd(8) ? rnd(1000000) : 0,
		.limit_frames = rnd(2) ? POLICY_NO_LIMIT : rnd(size + 1),
	};

	if (!rnd(4))
		v.reclaimable_frames = charged;
	if (!rnd(16))
		v.shares = UINT32_MAX;
	return v;
}

static uint64_t above(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* What must hold for any view at all. */
static void properties_hold_on_random_views(void)
{
	enum { MOST = 40 };

	for (int round = 0; round < 20000; round++) {
		struct policy_vm vms[MOST];
		struct policy_vm_plan takes[MOST];
		size_t n = rnd(MOST + 1);
		uint64_t charged = 0, can = 0, host = 0, limit = 0;
		struct policy_plan p;
		struct policy_view v;

		for (size_t i = 0; i < n; i++) {
			vms[i] = random_vm();
			charged += vms[i].charged_frames;
		}
		v = (struct policy_view){ .capacity_frames = charged + rnd(charged / 10 + 1), .n_vms = n, .vms = vms,
			.state = rnd(HOST_STATES), .reclaiming = rnd(2) };
		v.free_frames = v.capacity_frames - charged;
		carry(&v, &p, takes);
		for (size_t i = 0; i < n; i++) {
			const struct policy_vm *one = &vms[i];
			uint64_t after = one->charged_frames - takes[i].limit_take_frames - takes[i].host_take_frames;
			uint64_t left = one->charged_frames - takes[i].limit_take_frames;
			uint64_t most = above(left, one->reservation_frames);
			uint64_t rest = one->reclaimable_frames - takes[i].limit_take_frames;

			CHECK(takes[i].limit_take_frames + takes[i].host_take_frames <= one->reclaimable_frames);
			CHECK(!takes[i].host_take_frames || after >= one->reservation_frames);
			CHECK(!takes[i].limit_take_frames || one->limit_frames != POLICY_NO_LIMIT);
			CHECK(one->limit_frames == POLICY_NO_LIMIT || after <= one->limit_frames ||
				takes[i].limit_take_frames == one->reclaimable_frames);
			can += most < rest ? most : rest;
			host += takes[i].host_take_frames;
			limit += takes[i].limit_take_frames;
		}
		CHECK_EQ(p.host_frames, host);
		CHECK_EQ(p.limit_frames, limit);
		if (!p.next_reclaiming)
			CHECK_EQ(host, 0);
		else if (p.need_frames > limit)	/* exactly the need, or all there is */
			CHECK_EQ(host, can < p.need_frames - limit ? can : p.need_frames - limit);
		CHECK_EQ(p.unmet_frames, above(above(p.need_frames, limit), host));

		/* min-funding: who could give more holds no more frames a share than a giver still does */
		for (size_t i = 0; i < n; i++) {
			double held = (double)(vms[i].charged_frames - takes[i].limit_take_frames - takes[i].host_take_frames);

			if (!takes[i].host_take_frames || !vms[i].shares)
				continue;
			for (size_t j = 0; j < n; j++) {
				uint64_t has = vms[j].charged_frames - takes[j].limit_take_frames - takes[j].host_take_frames;
				uint64_t spare = vms[j].reclaimable_frames - takes[j].limit_take_frames - takes[j].host_take_frames;

				if (!spare || has <= vms[j].reservation_frames || !vms[j].shares)
					continue;
				CHECK((double)(has - 1) / (double)vms[j].shares <= (held + 2) / (double)vms[i].shares * 1.000001);
			}
		}
	}
}

static void the_same_view_gives_the_same_plan(void)
{
	struct policy_vm vms[30];
	struct policy_vm_plan first[30], second[30];
	struct policy_plan p;
	uint64_t charged = 0;

	for (int i = 0; i < 30; i++) {
		vms[i] = random_vm();
		charged += vms[i].charged_frames;
	}
	for (int i = 0; i < 2; i++) {
		struct policy_view v = { .capacity_frames = charged + 100, .free_frames = 100, .reclaiming = 1, .n_vms = 30, .vms = vms };

		carry(&v, &p, i ? second : first);
	}
	CHECK(!memcmp(first, second, sizeof first));
}

static void ten_thousand_vms_are_planned_in_time(void)
{
	static struct policy_vm vms[10000];
	static struct policy_vm_plan takes[10000];
	uint64_t charged = 0, begun;
	struct policy_plan p;
	struct policy_view v;

	for (int i = 0; i < 10000; i++) {
		vms[i] = random_vm();
		charged += vms[i].charged_frames;
	}
	v = (struct policy_view){ .capacity_frames = charged + 1, .free_frames = 1, .reclaiming = 1, .n_vms = 10000, .vms = vms };
	begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	carry(&v, &p, takes);
	begun = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun;
	CHECK(p.host_frames + p.limit_frames > 0);
	/* some 5 ms built with optimisation; generous for sanitizers */
	CHECK_MSG(begun < 200 * NS_PER_MS, "%llu ms", (unsigned long long)(begun / NS_PER_MS));
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(min_free_slides),
		SCENARIO(thresholds_are_ordered),
		SCENARIO(states_have_hysteresis),
		SCENARIO(states_settle_at_once),
		SCENARIO(reclaim_starts_below_soft_and_ends_at_the_goal),
		SCENARIO(fewest_shares_per_frame_give_first),
		SCENARIO(equals_give_equally),
		SCENARIO(reservation_is_kept),
		SCENARIO(no_shares_give_all_above_the_reservation_first),
		SCENARIO(limit_is_a_cause_of_its_own),
		SCENARIO(properties_hold_on_random_views),
		SCENARIO(the_same_view_gives_the_same_plan),
		SCENARIO(ten_thousand_vms_are_planned_in_time),
		{ 0 } });
}
