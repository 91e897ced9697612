/* policy/activity, policy/balloon, policy/admission: what goes into a plan. */
#include "policy/activity.h"
#include "policy/admission.h"
#include "policy/balloon.h"
#include "tests/lib/check.h"

#include <math.h>

#define S 1000000000ull

static const struct policy_activity_settings minute = { .period_ns = 60 * S, .min_pct = 1 };

static struct policy_active active(const struct policy_activity *a)
{
	struct policy_active r;

	policy_activity_get(a, &minute, 10000, &r);
	return r;
}

/* A whole period in which `touched` of 100 pages were touched, all of them early. */
static uint64_t period(struct policy_activity *a, uint64_t now, unsigned touched)
{
	CHECK_EQ(policy_activity_step(a, &minute, now), POLICY_SAMPLE_BEGIN);
	policy_activity_began(a, now, POLICY_SAMPLE_PAGES);
	for (unsigned look = 1; look <= POLICY_SAMPLE_LOOKS; look++) {
		CHECK_EQ(policy_activity_step(a, &minute, now + (15 * look - 1) * S), POLICY_SAMPLE_NONE);
		CHECK_EQ(policy_activity_step(a, &minute, now + 15 * look * S), POLICY_SAMPLE_LOOK);
		CHECK_EQ(policy_activity_step(a, &minute, now + 15 * look * S), POLICY_SAMPLE_NONE);
		policy_activity_looked(a, &minute, now + 15 * look * S, touched);
	}
	return now + 60 * S;
}

static void nothing_is_known_before_the_first_look(void)
{
	struct policy_activity a = { 0 };

	CHECK(active(&a).frames == POLICY_ACTIVE_UNKNOWN && active(&a).active_pct == 100);
	CHECK_EQ(policy_activity_step(&a, &minute, 5 * S), POLICY_SAMPLE_BEGIN);
	policy_activity_began(&a, 5 * S, 100);
	CHECK(active(&a).frames == POLICY_ACTIVE_UNKNOWN);
	CHECK_EQ(policy_activity_step(&a, &minute, 20 * S), POLICY_SAMPLE_LOOK);
	policy_activity_looked(&a, &minute, 20 * S, 30);
	CHECK_EQ(active(&a).frames, 3000);
	/* without sampling it stays so */
	CHECK_EQ(policy_activity_step(&a, &(struct policy_activity_settings){ 0 }, 21 * S), POLICY_SAMPLE_NONE);
	CHECK(active(&a).frames == POLICY_ACTIVE_UNKNOWN);
}

static void up_at_once_down_slowly(void)
{
	struct policy_activity a = { 0 };
	uint64_t now = S;
	double before = 100;

	now = period(&a, now, 10);
	CHECK_EQ(active(&a).frames, 1000);
	/* up: a look in the middle of the period counts already */
	CHECK_EQ(policy_activity_step(&a, &minute, now), POLICY_SAMPLE_BEGIN);
	policy_activity_began(&a, now, 100);
	CHECK_EQ(policy_activity_step(&a, &minute, now + 15 * S), POLICY_SAMPLE_LOOK);
	policy_activity_looked(&a, &minute, now + 15 * S, 90);
	CHECK(fabs(active(&a).next_pct - 50) < 1e-9 && active(&a).frames == 5000);
	CHECK(fabs(active(&a).fast_pct - 10) < 1e-9);
	policy_activity_looked(&a, &minute, now + 60 * S, 90);
	now += 60 * S;
	now = period(&a, now, 90);
	now = period(&a, now, 90);
	CHECK(active(&a).active_pct > 75);
	/* down: as slow as the slow average */
	for (int i = 0; i < 40; i++) {
		now = period(&a, now, 0);
		CHECK(active(&a).active_pct <= before);
		before = active(&a).active_pct;
		if (i == 4)
			CHECK(before > 14 && fabs(before - active(&a).slow_pct) < 1e-9);
	}
	CHECK(before == 1); /* the floor */
}

static void averages_are_what_they_say(void)
{
	struct policy_activity a = { 0 };
	uint64_t now = period(&a, S, 40);

	CHECK(active(&a).slow_pct == 40 && active(&a).fast_pct == 40);
	period(&a, now, 80);
	CHECK(fabs(active(&a).slow_pct - 45) < 1e-9 && fabs(active(&a).fast_pct - 60) < 1e-9);
}

static void pages_once_touched_stay_touched(void)
{
	struct policy_activity a = { 0 };

	policy_activity_began(&a, 0, 50);
	policy_activity_looked(&a, &minute, 15 * S, 25);
	policy_activity_looked(&a, &minute, 30 * S, 5); /* evicted since */
	CHECK(fabs(active(&a).next_pct - 50) < 1e-9);
	policy_activity_looked(&a, &minute, 45 * S, 5000); /* a library that says nonsense */
	CHECK(fabs(active(&a).next_pct - 100) < 1e-9);
}

static void missed_looks_are_not_made_up_for(void)
{
	struct policy_activity a = { 0 };

	policy_activity_began(&a, 0, 100);
	CHECK_EQ(policy_activity_step(&a, &minute, 50 * S), POLICY_SAMPLE_LOOK);
	CHECK_EQ(policy_activity_step(&a, &minute, 51 * S), POLICY_SAMPLE_NONE);
	CHECK_EQ(policy_activity_step(&a, &minute, 60 * S), POLICY_SAMPLE_LOOK);
}

static void who_does_not_answer_is_estimated(void)
{
	struct policy_activity a = { 0 };

	policy_activity_began(&a, 0, 100);
	CHECK_EQ(policy_activity_step(&a, &minute, 60 * S), POLICY_SAMPLE_LOOK);
	CHECK_EQ(policy_activity_step(&a, &minute, 60 * S + POLICY_SAMPLE_GRACE_NS - 1), POLICY_SAMPLE_NONE);
	CHECK_EQ(policy_activity_step(&a, &minute, 60 * S + POLICY_SAMPLE_GRACE_NS), POLICY_SAMPLE_MUTE);
	policy_activity_estimate(&a, 2000, 10000);
	CHECK(active(&a).estimated && active(&a).frames == 2000);
	CHECK_EQ(policy_activity_step(&a, &minute, 70 * S), POLICY_SAMPLE_BEGIN);
	policy_activity_estimate(&a, 90000, 10000); /* the same pages again and again */
	CHECK(active(&a).active_pct <= 100);
	policy_activity_estimate(&a, 0, 0);
	period(&a, 80 * S, 10);
	CHECK(!active(&a).estimated);
}

static void a_vm_without_pages_is_idle(void)
{
	struct policy_activity a = { 0 };
	struct policy_active r;

	policy_activity_began(&a, 0, 0);
	policy_activity_looked(&a, &minute, 60 * S, 0);
	policy_activity_get(&a, &minute, 0, &r);
	CHECK_EQ(r.frames, 0);
}

static void balloon_is(struct policy_balloon *b, uint64_t ms, uint64_t size, uint64_t target,
	enum policy_balloon_state state, uint64_t owed)
{
	policy_balloon_step(b, ms * 1000000, true, size, target);
	CHECK_MSG(b->state == state && b->owed_frames == owed, "at %llu ms it is %s and owes %llu", (unsigned long long)ms,
		policy_balloon_state_names[b->state], (unsigned long long)b->owed_frames);
}

static void a_stuck_balloon_is_known_in_time(void)
{
	struct policy_balloon b = { 0 };

	balloon_is(&b, 0, 0, 0, POLICY_BALLOON_RESPONSIVE, 0);
	balloon_is(&b, 99000, 0, 0, POLICY_BALLOON_RESPONSIVE, 0);
	balloon_is(&b, 100000, 0, 1000, POLICY_BALLOON_RESPONSIVE, 0);
	balloon_is(&b, 104999, 0, 1100, POLICY_BALLOON_RESPONSIVE, 0); /* asked for more: the clock goes on */
	balloon_is(&b, 105000, 0, 1100, POLICY_BALLOON_INACTIVE, 0);
	balloon_is(&b, 119999, 0, 1100, POLICY_BALLOON_INACTIVE, 0);
	balloon_is(&b, 120000, 0, 1100, POLICY_BALLOON_UNCOOPERATIVE, 1100);
	balloon_is(&b, 121000, 0, 500, POLICY_BALLOON_UNCOOPERATIVE, 500);
	balloon_is(&b, 122000, 0, 0, POLICY_BALLOON_INACTIVE, 0); /* forgotten, not forgiven */
	balloon_is(&b, 200000, 0, 800, POLICY_BALLOON_INACTIVE, 0);
	balloon_is(&b, 201000, 400, 800, POLICY_BALLOON_RESPONSIVE, 0);
	policy_balloon_step(&b, 202000 * 1000000ull, false, 400, 800);
	CHECK_EQ(b.state, POLICY_BALLOON_NONE);
	balloon_is(&b, 203000, 0, 800, POLICY_BALLOON_RESPONSIVE, 0); /* the guest booted again */
}

static void steady_progress_is_responsive(void)
{
	struct policy_balloon b = { 0 };

	/* 64 GiB at 16 MiB in four seconds: slow, but it comes */
	for (uint64_t i = 0; i < 200; i++)
		balloon_is(&b, 4000 * i, i * POLICY_BALLOON_STEP_FRAMES, 16777216, POLICY_BALLOON_RESPONSIVE, 0);
	/* small ones: an eighth of what is missing is enough */
	b = (struct policy_balloon){ 0 };
	for (uint64_t i = 0; i < 50; i++)
		balloon_is(&b, 4000 * i, 10 * i, 10 * i + 70, POLICY_BALLOON_RESPONSIVE, 0);
}

static void a_trickle_is_no_progress(void)
{
	struct policy_balloon b = { 0 };

	for (uint64_t i = 0; i <= 60; i++)
		policy_balloon_step(&b, i * S, true, i, 100000);
	CHECK_EQ(b.state, POLICY_BALLOON_UNCOOPERATIVE);
	CHECK_EQ(b.owed_frames, 100000 - 60);
}

static void breathing_is_no_progress(void)
{
	struct policy_balloon b = { 0 };

	/* up to the target and down again every second */
	for (uint64_t i = 0; i <= 60; i++)
		policy_balloon_step(&b, i * S, true, i % 2 ? 1000 : 0, 1000);
	CHECK(b.state == POLICY_BALLOON_UNCOOPERATIVE && b.owed_frames == 1000);
	/* being asked for more every second, and giving it, is none of that */
	b = (struct policy_balloon){ 0 };
	for (uint64_t i = 0; i <= 600; i++)
		balloon_is(&b, i * 100, i * 10, i * 10 + (i % 10 == 0 ? 10 : 0), POLICY_BALLOON_RESPONSIVE, 0);
}

static void admission_says_the_numbers(void)
{
	static const struct {
		struct policy_admission a;
		enum policy_admission_verdict verdict;
		uint64_t need, have, swap_need;
	} rows[] = {
		{ { .capacity_frames = 1000, .reserved_frames = 500, .kept_frames = 100, .swap_free_frames = 1000, .limit_frames = UINT64_MAX,
			.size_frames = 800, .reservation_frames = 300, .overhead_frames = 60, .break_reserve_frames = 40 },
			POLICY_ADMITTED, 400, 400, 500 },
		{ { .capacity_frames = 1000, .reserved_frames = 500, .kept_frames = 101, .swap_free_frames = 1000, .limit_frames = UINT64_MAX,
			.size_frames = 800, .reservation_frames = 300, .overhead_frames = 60, .break_reserve_frames = 40 },
			POLICY_NO_ARENA, 400, 399, 500 },
		{ { .capacity_frames = 1000, .reserved_frames = 900, .kept_frames = 101, .limit_frames = UINT64_MAX, .swap_free_frames = 1000,
			.overhead_frames = 1 }, POLICY_NO_ARENA, 1, 0, 0 },
		/* over-promised: less, or the same, may be asked for; its swap file must fit all the same */
		{ { .capacity_frames = 1000, .reserved_frames = 900, .kept_frames = 101, .limit_frames = UINT64_MAX, .swap_free_frames = 1000,
			.promised_frames = 300, .size_frames = 800, .reservation_frames = 300 }, POLICY_ADMITTED, 300, 0, 500 },
		{ { .capacity_frames = 1000, .reserved_frames = 900, .kept_frames = 101, .limit_frames = UINT64_MAX, .swap_free_frames = 1000,
			.promised_frames = 299, .size_frames = 800, .reservation_frames = 300 }, POLICY_NO_ARENA, 300, 0, 500 },
		{ { .capacity_frames = 1000, .reserved_frames = 900, .kept_frames = 101, .limit_frames = UINT64_MAX, .swap_free_frames = 499,
			.promised_frames = 400, .size_frames = 800, .reservation_frames = 300 }, POLICY_NO_SWAP, 300, 0, 500 },
		{ { .capacity_frames = 1000, .swap_free_frames = 499, .limit_frames = UINT64_MAX, .size_frames = 800, .reservation_frames = 300 },
			POLICY_NO_SWAP, 300, 1000, 500 },
		{ { .capacity_frames = 1000, .limit_frames = UINT64_MAX, .size_frames = 200, .reservation_frames = 300 },
			POLICY_RESERVATION_ABOVE_SIZE, 300, 1000, 0 },
		{ { .capacity_frames = 1000, .limit_frames = 299, .size_frames = 300, .reservation_frames = 300 },
			POLICY_LIMIT_BELOW_RESERVATION, 300, 1000, 0 },
	};

	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct policy_admission a = rows[i].a;

		policy_admission(&a);
		CHECK_MSG(a.verdict == rows[i].verdict && a.need_frames == rows[i].need && a.have_frames == rows[i].have &&
			a.swap_need_frames == rows[i].swap_need && a.swap_have_frames == a.swap_free_frames, "row %u", i);
	}
	CHECK(policy_break_reserve_frames(1 << 20, 0) == 0 && policy_break_reserve_frames(100, 1) == 16);
	CHECK(policy_break_reserve_frames(6400, 1) == 100 && policy_break_reserve_frames(1 << 20, 1) == 1024);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(nothing_is_known_before_the_first_look),
		SCENARIO(up_at_once_down_slowly),
		SCENARIO(averages_are_what_they_say),
		SCENARIO(pages_once_touched_stay_touched),
		SCENARIO(missed_looks_are_not_made_up_for),
		SCENARIO(who_does_not_answer_is_estimated),
		SCENARIO(a_vm_without_pages_is_idle),
		SCENARIO(a_stuck_balloon_is_known_in_time),
		SCENARIO(steady_progress_is_responsive),
		SCENARIO(a_trickle_is_no_progress),
		SCENARIO(breathing_is_no_progress),
		SCENARIO(admission_says_the_numbers),
		{ 0 } });
}
