/* policy/plan: idle tax, techniques, balloons, budgets, blocking.  Min-funding itself is compared with what it stands for:
 * taking one frame at a time from whoever has the lowest rho. */
#include "policy/explain.h"
#include "policy/plan.h"
#include "tests/lib/check.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MOST 24

static uint64_t seed = 0x2545f4914f6cdd1d;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? seed % below : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t above(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static struct policy_vm vm(uint64_t charged, uint64_t active, uint64_t shares)
{
	return (struct policy_vm){ .size_frames = 2 * charged, .limit_frames = POLICY_NO_LIMIT, .shares = shares,
		.charged_frames = charged, .reclaimable_frames = charged, .active_frames = active };
}

static struct policy_vm with_balloon(struct policy_vm v, enum policy_balloon_state state, uint64_t frames)
{
	v.balloon_state = state;
	v.balloon_frames = frames;
	v.balloon_max_frames = v.size_frames * 65 / 100;
	return v;
}

/* An arena of 100,000 frames with minFree 1000: soft 640, hard 320, low 160, goal 1101. */
static struct policy_view view_of(const struct policy_vm *vms, size_t n, uint64_t free_frames)
{
	return (struct policy_view){ .capacity_frames = 100000, .free_frames = free_frames, .min_free_pct = 1,
		.idle_tax_pct = 75, .idle_tax_type = 1, .n_vms = n, .vms = vms };
}

static double price(const struct policy_view *v, double held, double active)
{
	double tau = (double)v->idle_tax_pct / 100;

	if (held <= active)
		return held;
	if (v->idle_tax_type)
		tau *= (held - active) / held;
	return active + (held - active) / (1 - tau);
}

static uint64_t held(const struct policy_vm *vm)
{
	return vm->charged_frames + vm->balloon_owed_frames;
}

/* What min-funding stands for, a frame at a time. */
static void one_by_one(const struct policy_view *v, uint64_t need, uint64_t *gives)
{
	memset(gives, 0, v->n_vms * sizeof *gives);
	while (need--) {
		double worst = INFINITY;
		size_t who = v->n_vms;

		for (size_t i = 0; i < v->n_vms; i++) {
			const struct policy_vm *vm = &v->vms[i];
			double rho = (double)vm->shares / price(v, (double)(held(vm) - gives[i]), (double)vm->active_frames);

			if (gives[i] == vm->reclaimable_frames || vm->charged_frames - gives[i] <= vm->reservation_frames)
				continue;
			if (rho < worst) {
				worst = rho;
				who = i;
			}
		}
		if (who == v->n_vms)
			return;
		gives[who]++;
	}
}

static void min_funding_is_what_taking_one_by_one_gives(void)
{
	for (int round = 0; round < 3000; round++) {
		struct policy_vm vms[6];
		struct policy_vm_plan plans[6];
		struct policy_plan p;
		uint64_t gives[6], charged = 0, capacity;
		struct policy_view v;

		for (int i = 0; i < 6; i++) {
			vms[i] = vm(1 + rnd(2000), rnd(2500), 1 + rnd(50));
			vms[i].reservation_frames = rnd(2) ? rnd(1500) : 0;
			vms[i].reclaimable_frames = rnd(3) ? vms[i].charged_frames : rnd(vms[i].charged_frames + 1);
			if (!rnd(4)) {
				vms[i] = with_balloon(vms[i], POLICY_BALLOON_UNCOOPERATIVE, rnd(100));
				vms[i].balloon_owed_frames = rnd(300);
			}
			charged += vms[i].charged_frames;
		}
		capacity = charged + rnd(50);
		v = (struct policy_view){ .capacity_frames = capacity, .free_frames = capacity - charged, .idle_tax_pct = rnd(100),
			.min_free_pct = 1 + rnd(60), .idle_tax_type = rnd(2), .reclaiming = 1, .n_vms = 6, .vms = vms };
		policy_plan(&v, &p, plans);
		if (!p.need_frames)
			continue;
		one_by_one(&v, p.need_frames, gives);
		for (int i = 0; i < 6; i++)
			CHECK_MSG(plans[i].host_take_frames <= gives[i] + 2 && gives[i] <= plans[i].host_take_frames + 2,
				"round %d, VM %d gives %llu, one by one %llu", round, i,
				(unsigned long long)plans[i].host_take_frames, (unsigned long long)gives[i]);
	}
}

/* Of many VMs a part is asked first: whatever those have, the plan is that of all. */
static void a_sample_that_misleads_changes_nothing(void)
{
	enum { N = 2000 };
	static struct policy_vm vms[N], turned[N];
	static struct policy_vm_plan plans[N], turned_plans[N];
	struct policy_plan p, q;
	struct policy_view v;

	for (int round = 0; round < 20; round++) {
		uint64_t charged = 0, given = 0;

		for (size_t i = 0; i < N; i++) {
			uint64_t size = i % 16 ? 1 + rnd(2000) : 20000;

			vms[i] = vm(size, i % 16 ? rnd(2500) : 0, i % 16 ? 1 + rnd(50) : 1 + rnd(3) * 5000);
			charged += vms[i].charged_frames;
		}
		for (size_t i = 0; i < N; i++)
			turned[(i + 1 + (size_t)round) % N] = vms[i];
		v = view_of(vms, N, charged / 50);
		v.capacity_frames = charged + v.free_frames;
		v.min_free_pct = 1 + rnd(60);
		v.idle_tax_pct = rnd(100);
		v.idle_tax_type = rnd(2);
		v.reclaiming = 1;
		policy_plan(&v, &p, plans);
		v.vms = turned;
		policy_plan(&v, &q, turned_plans);
		CHECK(p.need_frames && !p.unmet_frames);
		for (size_t i = 0; i < N; i++) {
			uint64_t a = plans[i].host_take_frames, b = turned_plans[(i + 1 + (size_t)round) % N].host_take_frames;

			given += a;
			CHECK_MSG(a <= b + 2 && b <= a + 2, "round %d, VM %zu gives %llu, or %llu", round, i, (unsigned long long)a,
				(unsigned long long)b);
		}
		CHECK_EQ(given, p.need_frames);
	}
}

static void idle_memory_is_taxed(void)
{
	static const struct {
		uint64_t active, type, pct, tax_milli, price;
	} rows[] = {
		{ 40000, 0, 75, 4000, 40000 }, { 0, 0, 75, 4000, 160000 }, { 20000, 0, 75, 4000, 100000 },
		{ 20000, 0, 0, 1000, 40000 }, { 20000, 1, 0, 1000, 40000 },
		/* tau is 0.75 x the idle half: k = 1 / (1 - 0.375) */
		{ 20000, 1, 75, 1600, 52000 }, { 0, 1, 75, 4000, 160000 }, { 40000, 1, 75, 1000, 40000 },
		{ 36000, 1, 75, 1081, 40324 }, { POLICY_ACTIVE_UNKNOWN, 1, 75, 1000, 40000 },
	};

	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct policy_vm one = vm(40000, rows[i].active, 1562500);
		struct policy_vm_plan plan;
		struct policy_plan p;
		struct policy_view v = view_of(&one, 1, 60000);

		v.idle_tax_type = rows[i].type;
		v.idle_tax_pct = rows[i].pct;
		policy_plan(&v, &p, &plan);
		CHECK_MSG(plan.tax_milli == rows[i].tax_milli && plan.price_frames == rows[i].price, "row %u: k %llu, price %llu", i,
			(unsigned long long)plan.tax_milli, (unsigned long long)plan.price_frames);
		/* 10,000,000 shares a MiB if it is all active */
		CHECK(fabs((double)plan.rho_milli - 10000000.0 * 40000 / (double)rows[i].price) < 2000);
	}
}

static void the_idle_give_to_the_busy(void)
{
	struct policy_vm vms[2] = { vm(40000, 400, 1000), vm(50000, 50000, 1000) };
	struct policy_vm_plan plans[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 101);

	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 1000);
	CHECK_EQ(plans[0].reason, POLICY_REASON_IDLE);
	CHECK_EQ(plans[1].host_take_frames, 0);
	CHECK_EQ(plans[1].reason, POLICY_REASON_BETTER_FUNDED);
	v.idle_tax_pct = 0; /* without the tax the larger one gives */
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 0);
	CHECK_EQ(plans[1].host_take_frames, 1000);
	/* and whoever is not known is not taxed */
	v.idle_tax_pct = 75;
	vms[0].active_frames = POLICY_ACTIVE_UNKNOWN;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 0);
}

/* Equal shares: both end where an idle page of the one is worth as much as the other's active ones. */
static void a_flat_tax_settles_at_equal_prices(void)
{
	struct policy_vm vms[2] = { vm(25000, 0, 1000), vm(60000, 60000, 1000) };
	struct policy_vm_plan plans[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 0);

	v.idle_tax_type = 0;
	v.min_free_pct = 30; /* goal 33,001 */
	policy_plan(&v, &p, plans);
	/* 4 x (25,000 - a) = 60,000 - b, a + b = 33,001 */
	CHECK_EQ(plans[0].host_take_frames + plans[1].host_take_frames, 33001);
	CHECK(llabs((long long)plans[0].host_take_frames - 14601) <= 2);
}

static void soft_asks_balloons_and_hard_does_not_wait(void)
{
	struct policy_vm vms[2] = { with_balloon(vm(40000, 0, 10), POLICY_BALLOON_RESPONSIVE, 0), vm(40000, 0, 10) };
	struct policy_vm_plan plans[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 639);

	policy_plan(&v, &p, plans);
	CHECK_EQ(p.next_state, HOST_SOFT);
	CHECK_EQ(p.need_frames, 462);
	CHECK_EQ(plans[0].balloon_target_frames, 231);
	CHECK_EQ(plans[0].host_take_frames, 0);
	CHECK_EQ(plans[0].technique, POLICY_TECHNIQUE_BALLOON);
	CHECK_EQ(plans[0].cause, POLICY_CAUSE_HOST);
	CHECK_EQ(plans[1].host_take_frames, 231);	/* no driver */
	CHECK_EQ(plans[1].balloon_target_frames, 0);
	CHECK_EQ(plans[1].technique, POLICY_TECHNIQUE_SWAP);
	CHECK_EQ(p.balloon_frames, 231);
	CHECK_EQ(p.host_frames, 231);
	CHECK_EQ(p.unmet_frames, 0);
	CHECK_EQ(p.share_pass, 1);
	vms[1].cache_room_frames = 200;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[1].compress_frames, 200);
	CHECK_EQ(plans[1].swap_frames, 31);

	v.free_frames = 319;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.next_state, HOST_HARD);
	CHECK_EQ(plans[0].host_take_frames, 391);
	CHECK_EQ(plans[0].balloon_target_frames, 391);
}

static void balloons_that_do_not_work_are_not_waited_for(void)
{
	struct policy_vm vms[2] = { with_balloon(vm(40000, 0, 10), POLICY_BALLOON_INACTIVE, 100),
		with_balloon(vm(40000, 0, 10), POLICY_BALLOON_RESPONSIVE, 100) };
	struct policy_vm_plan plans[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 639);

	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 231);
	CHECK_EQ(plans[0].balloon_target_frames, 331); /* it goes on being asked */
	CHECK_EQ(plans[1].host_take_frames, 0);
	CHECK_EQ(plans[1].balloon_target_frames, 331);
	/* beyond its cap the rest is evicted */
	vms[1].balloon_max_frames = 150;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[1].balloon_target_frames, 150);
	CHECK_EQ(plans[1].host_take_frames, 181);
	/* a cap that was lowered is obeyed, also while memory is short */
	vms[1].balloon_max_frames = 50;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[1].balloon_target_frames, 50);
	CHECK_EQ(plans[1].host_take_frames, 231);
}

static void balloons_leave_room_for_the_reservation(void)
{
	struct policy_vm one = with_balloon(vm(40000, 0, 10), POLICY_BALLOON_RESPONSIVE, 0);
	struct policy_vm_plan plan;
	struct policy_plan p;
	struct policy_view v = view_of(&one, 1, 400);

	one.size_frames = 40100;
	one.reservation_frames = 39900; /* 200 may be in the balloon, 100 may be taken */
	policy_plan(&v, &p, &plan);
	CHECK_EQ(plan.balloon_target_frames, 100);
	CHECK_EQ(p.unmet_frames, 601);
	one.charged_frames = one.reclaimable_frames = 40500; /* 600 with its page map and cache */
	policy_plan(&v, &p, &plan);
	CHECK_EQ(plan.balloon_target_frames, 200);
	CHECK_EQ(plan.host_take_frames, 400);
}

/* The balloon grows bit by bit; whenever the plan is made anew it asks for the same size. */
static void planning_again_asks_for_the_same(void)
{
	struct policy_vm vms[2] = { with_balloon(vm(40000, 0, 10), POLICY_BALLOON_RESPONSIVE, 0), vm(30000, 30000, 10) };
	struct policy_vm_plan plans[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 500);

	for (uint64_t size = 0; size < 601; size += 7) {
		struct policy_view now = v;

		vms[0].balloon_frames = size;
		vms[0].charged_frames = vms[0].reclaimable_frames = 40000 - size;
		now.free_frames = 500 + size;
		policy_plan(&now, &p, plans);
		CHECK_EQ(plans[0].balloon_target_frames, 601);
		CHECK_EQ(plans[0].host_take_frames, 0);
		v.state = p.next_state;
		v.reclaiming = p.next_reclaiming;
	}
}

static void what_is_owed_counts_as_held(void)
{
	struct policy_vm vms[2] = { with_balloon(vm(39800, 39800, 10), POLICY_BALLOON_UNCOOPERATIVE, 0),
		with_balloon(vm(40000, 40000, 10), POLICY_BALLOON_RESPONSIVE, 0) };
	struct policy_vm_plan plans[2];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 2, 501);

	vms[0].balloon_owed_frames = 700;
	policy_plan(&v, &p, plans);
	/* 600 are needed; 40,500 count as held against 40,000 */
	CHECK(llabs((long long)plans[0].host_take_frames - 550) <= 1);
	CHECK_EQ(plans[0].reason, POLICY_REASON_REFUSED);
	CHECK_EQ(plans[0].host_take_frames + plans[1].balloon_target_frames, 600);
	CHECK_EQ(plans[0].balloon_target_frames, 700);
	/* between soft and goal the debt stays, as others' balloons do */
	v.free_frames = 1000;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].balloon_target_frames, 700);
	CHECK_EQ(plans[0].host_take_frames, 0);
	/* a budget does not help who refuses */
	v.free_frames = 501;
	vms[0].stall_budget_permille = 1;
	vms[0].stall_permille = 900;
	policy_plan(&v, &p, plans);
	CHECK(llabs((long long)plans[0].host_take_frames - 550) <= 1);
}

static void balloons_are_let_down_when_memory_is_ample(void)
{
	struct policy_vm vms[4] = { with_balloon(vm(10000, POLICY_ACTIVE_UNKNOWN, 10), POLICY_BALLOON_RESPONSIVE, 5000),
		with_balloon(vm(12000, POLICY_ACTIVE_UNKNOWN, 10), POLICY_BALLOON_RESPONSIVE, 5000),
		with_balloon(vm(100, 100, 0), POLICY_BALLOON_RESPONSIVE, 300), vm(50, 0, 10) };
	struct policy_vm_plan plans[4];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 4, 1101);

	vms[2].size_frames = vms[2].balloon_max_frames = 1000;
	vms[2].reservation_frames = 100;
	policy_plan(&v, &p, plans); /* the goal alone gives nothing */
	CHECK_EQ(plans[0].balloon_target_frames, 5000);
	CHECK_EQ(plans[0].reason, POLICY_REASON_HOLD);
	v.free_frames = 1101 + 3000;
	policy_plan(&v, &p, plans); /* the first is 2000 poorer; then both alike; without shares: when nobody else wants it */
	CHECK(llabs((long long)plans[0].balloon_target_frames - 2500) <= 1);
	CHECK_EQ(plans[0].balloon_target_frames + plans[1].balloon_target_frames, 7000);
	CHECK_EQ(plans[0].reason, POLICY_REASON_DEFLATE);
	CHECK_EQ(plans[2].balloon_target_frames, 300);
	CHECK_EQ(plans[3].reason, POLICY_REASON_AMPLE);
	v.free_frames = 1101 + 10100;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].balloon_target_frames + plans[1].balloon_target_frames, 0);
	CHECK_EQ(plans[2].balloon_target_frames, 200);
	/* not while reclaim is going on */
	v.free_frames = 1100;
	v.reclaiming = 1;
	policy_plan(&v, &p, plans);
	CHECK(plans[0].balloon_target_frames >= 5000);
}

/* A busy VM that was ballooned makes no fault that tells of it; an idle one has what it needs. */
static void who_was_ballooned_gets_its_part_back(void)
{
	struct policy_vm vms[3] = { with_balloon(vm(20000, 20000, 10), POLICY_BALLOON_RESPONSIVE, 10000), vm(40000, 400, 10),
		with_balloon(vm(40000, 400, 10), POLICY_BALLOON_RESPONSIVE, 0) };
	struct policy_vm_plan plans[3];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 3, 1001);

	policy_plan(&v, &p, plans); /* a helping, and what is missing to the goal; not to be given before it is there */
	CHECK_EQ(p.need_frames, 0);
	CHECK(llabs((long long)p.balance_frames - 40000 / 32 - 100) <= 2);
	CHECK(plans[1].host_take_frames > 600 && plans[2].balloon_target_frames > 600 && !plans[2].host_take_frames);
	CHECK_EQ(plans[1].reason, POLICY_REASON_BALANCE);
	CHECK_EQ(plans[0].balloon_target_frames, 10000);
	v.free_frames = 1101 + 1250; /* that has come */
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].balloon_target_frames, 10000 - 1250);
	CHECK_EQ(p.balance_frames, 0);
	/* it has not used it yet: no more for now */
	v.free_frames = 1101;
	vms[0].untouched_frames = 1250;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.balance_frames, 0);
	vms[0].untouched_frames = 0;
	policy_plan(&v, &p, plans);
	CHECK(p.balance_frames > 1000);
	/* nobody is taken below its reservation, nor is who waits too long for its pages */
	vms[1].reservation_frames = 39900;
	vms[2].stall_budget_permille = 1;
	vms[2].stall_permille = 2;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.balance_frames, 100);
	/* within the band nothing is moved */
	vms[0].active_frames = 400;
	vms[0].charged_frames = 39000;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.balance_frames, 0);
}

static void own_limit_never_asks_a_balloon(void)
{
	struct policy_vm one = with_balloon(vm(10000, 10000, 10), POLICY_BALLOON_RESPONSIVE, 0);
	struct policy_vm_plan plan;
	struct policy_plan p;
	struct policy_view v = view_of(&one, 1, 1101);

	one.limit_frames = 10000;
	one.stall_budget_permille = 1;
	one.stall_permille = 500;
	policy_plan(&v, &p, &plan);
	CHECK_EQ(plan.limit_take_frames, policy_limit_margin_frames(10000));
	CHECK_EQ(plan.host_take_frames, 0);
	CHECK_EQ(plan.balloon_target_frames, 0);
	CHECK_EQ(plan.cause, POLICY_CAUSE_LIMIT);
	CHECK_EQ(plan.reason, POLICY_REASON_OWN_LIMIT);
	CHECK_EQ(plan.target_frames, 10000);
}

static void a_budget_spares_while_others_can_give(void)
{
	struct policy_vm vms[3] = { vm(50000, 0, 1), vm(20000, 20000, 1000), vm(20000, 20000, 1000) };
	struct policy_vm_plan plans[3];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 3, 101);

	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 1000);
	vms[0].stall_budget_permille = 50;
	vms[0].stall_permille = 50; /* at it, not above */
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 1000);
	vms[0].stall_permille = 51;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 0);
	CHECK_EQ(plans[0].reason, POLICY_REASON_SPARED);
	CHECK_EQ(plans[1].host_take_frames + plans[2].host_take_frames, 1000);
	/* the others can give 700 only */
	vms[1].reservation_frames = 19700;
	vms[2].reclaimable_frames = 400;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[1].host_take_frames, 300);
	CHECK_EQ(plans[2].host_take_frames, 400);
	CHECK_EQ(plans[0].host_take_frames, 300);
	CHECK_EQ(plans[0].reason, POLICY_REASON_OVER_BUDGET);
	/* all are above their budgets: as if nobody were */
	for (int i = 1; i < 3; i++)
		vms[i].stall_budget_permille = vms[i].stall_permille = 10, vms[i].stall_permille++;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[0].host_take_frames, 1000);
}

static void low_blocks_while_somebody_gives(void)
{
	/* the rich can give, the stuck are richer but cannot, the poor are below their target */
	struct policy_vm vms[3] = { vm(30000, 30000, 10), vm(50000, 50000, 10), vm(1000, 1000, 10) };
	struct policy_vm_plan plans[3];
	struct policy_plan p;
	struct policy_view v = view_of(vms, 3, 159);

	vms[1].reclaimable_frames = 0;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.next_state, HOST_LOW);
	CHECK_EQ(plans[0].blocked, 1);
	CHECK_EQ(plans[1].blocked, 1);
	CHECK_EQ(plans[1].reason, POLICY_REASON_NOTHING_TO_TAKE);
	CHECK_EQ(plans[1].technique, POLICY_TECHNIQUE_BLOCK);
	CHECK_EQ(plans[2].blocked, 0);
	CHECK(plans[2].target_frames > vms[2].charged_frames);
	CHECK_EQ(p.blocked_vms, 2);
	vms[0].reclaimable_frames = 0; /* nobody gives: nobody is hanged */
	vms[2].reclaimable_frames = 0;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.blocked_vms, 0);
	CHECK_EQ(p.unmet_frames, p.need_frames);
	vms[0].reclaimable_frames = 30000;
	v.free_frames = 160;
	policy_plan(&v, &p, plans);
	CHECK_EQ(p.next_state, HOST_HARD);
	CHECK_EQ(p.blocked_vms, 0);
	/* at its reservation nobody is blocked */
	v.free_frames = 100;
	vms[1].reservation_frames = 50000;
	policy_plan(&v, &p, plans);
	CHECK_EQ(plans[1].blocked, 0);
	CHECK_EQ(plans[1].reason, POLICY_REASON_AT_RESERVATION);
}

static struct policy_vm random_vm(void)
{
	uint64_t size = rnd(20000);
	struct policy_vm v = { .size_frames = size, .charged_frames = rnd(size + size / 16 + 1),
		.limit_frames = rnd(3) ? POLICY_NO_LIMIT : rnd(size + 1), .shares = rnd(8) ? rnd(1000000) : 0,
		.reservation_frames = rnd(4) ? rnd(size + 1) : 0, .active_frames = rnd(8) ? rnd(size + 1) : POLICY_ACTIVE_UNKNOWN,
		.cache_room_frames = rnd(2) ? rnd(1000) : 0,
		.untouched_frames = rnd(2) ? rnd(size + 1) : 0, .stall_permille = rnd(100),
		.stall_budget_permille = rnd(2) ? rnd(100) : 0, .balloon_state = rnd(POLICY_BALLOON_STATES) };

	v.reclaimable_frames = rnd(3) ? v.charged_frames : rnd(v.charged_frames + 1);
	if (v.balloon_state != POLICY_BALLOON_NONE) {
		v.balloon_max_frames = rnd(size + 1);
		v.balloon_frames = rnd(size + 1);
		v.balloon_owed_frames = v.balloon_state == POLICY_BALLOON_UNCOOPERATIVE ? rnd(size / 4 + 1) : 0;
	}
	return v;
}

static void vm_is_treated_well(const struct policy_view *v, const struct policy_plan *p, const struct policy_vm *one,
	const struct policy_vm_plan *plan)
{
	uint64_t taken = plan->limit_take_frames + plan->host_take_frames, cap = above(one->size_frames, one->reservation_frames);
	uint64_t asked = above(plan->balloon_target_frames, one->balloon_frames);

	CHECK(taken <= one->reclaimable_frames);
	CHECK(!plan->host_take_frames || one->charged_frames - taken >= one->reservation_frames);
	CHECK(plan->balloon_target_frames <= least(cap, one->balloon_max_frames));
	CHECK(!asked || one->balloon_state != POLICY_BALLOON_NONE);
	CHECK(!asked || asked <= one->balloon_owed_frames ||
		one->charged_frames - plan->limit_take_frames - asked >= one->reservation_frames);
	CHECK_EQ(plan->compress_frames + plan->swap_frames, taken);
	CHECK(plan->target_frames <= one->limit_frames || plan->limit_take_frames || one->charged_frames >= one->limit_frames);
	CHECK(!plan->blocked || (p->next_state == HOST_LOW && p->host_frames &&
		one->charged_frames > least(one->reservation_frames, one->limit_frames)));
	CHECK(plan->cause == POLICY_CAUSE_NONE || taken || asked || plan->blocked);
	CHECK(!taken || plan->cause != POLICY_CAUSE_NONE);
	CHECK(plan->technique < POLICY_TECHNIQUES && plan->reason < POLICY_REASON_COUNT);
	/* two phases */
	if (v->free_frames < p->goal_frames || p->next_reclaiming)
		CHECK(plan->balloon_target_frames >= least(one->balloon_frames, least(cap, one->balloon_max_frames)));
	else
		CHECK(plan->reason == POLICY_REASON_BALANCE || (!plan->host_take_frames &&
			plan->balloon_target_frames <= one->balloon_frames + one->balloon_owed_frames));
}

static void properties_hold_on_random_views(void)
{
	for (int round = 0; round < 20000; round++) {
		struct policy_vm vms[MOST];
		struct policy_vm_plan plans[MOST], again[MOST];
		struct policy_plan p, q;
		struct policy_view v;
		size_t n = rnd(MOST + 1);
		uint64_t charged = 0, evict = 0, limit = 0, down = 0, asked = 0;

		for (size_t i = 0; i < n; i++) {
			vms[i] = random_vm();
			charged += vms[i].charged_frames;
		}
		v = (struct policy_view){ .capacity_frames = charged + rnd(charged / 10 + 2), .n_vms = n, .vms = vms,
			.min_free_pct = rnd(30), .idle_tax_pct = rnd(100), .idle_tax_type = rnd(2), .state = rnd(HOST_STATES),
			.reclaiming = rnd(2) };
		v.free_frames = v.capacity_frames - charged;
		memset(plans, 0x55, sizeof plans);
		policy_plan(&v, &p, plans);
		policy_plan(&v, &q, again);
		CHECK(!memcmp(&p, &q, sizeof p) && !memcmp(plans, again, n * sizeof *plans));
		for (size_t i = 0; i < n; i++) {
			vm_is_treated_well(&v, &p, &vms[i], &plans[i]);
			evict += plans[i].host_take_frames;
			limit += plans[i].limit_take_frames;
			asked += above(plans[i].balloon_target_frames, vms[i].balloon_frames);
			down += above(least(vms[i].balloon_frames, least(vms[i].balloon_max_frames,
				above(vms[i].size_frames, vms[i].reservation_frames))), plans[i].balloon_target_frames);
		}
		CHECK_EQ(p.host_frames, evict);
		CHECK_EQ(p.limit_frames, limit);
		CHECK_EQ(p.balloon_frames, asked);
		CHECK(down <= above(v.free_frames, p.goal_frames));
		CHECK(p.unmet_frames <= p.need_frames);
		CHECK(!p.need_frames || p.unmet_frames + evict + limit + asked >= p.need_frames);
		CHECK(p.next_state >= HOST_HARD || evict + p.unmet_frames <= p.need_frames + p.balance_frames);
		CHECK(!p.balance_frames || (!p.next_reclaiming && !p.need_frames));
	}
}

static void words_say_the_numbers(void)
{
	struct policy_vm one = with_balloon(vm(25600, 2560, 1000), POLICY_BALLOON_UNCOOPERATIVE, 256);
	struct policy_vm_plan plan;
	struct policy_plan p;
	struct policy_words w;
	struct policy_view v = view_of(&one, 1, 100);
	char all[POLICY_WORDS_MAX] = "";

	one.balloon_owed_frames = 512;
	one.active_estimated = 1;
	one.stall_permille = 25;
	one.limit_frames = 51200;
	policy_plan(&v, &p, &plan);
	policy_explain("web1", &v, &p, &one, &plan, &w);
	for (unsigned i = 0; i < w.n; i++) {
		CHECK(w.sentences[i][strlen(w.sentences[i]) - 1] == '.');
		strcat(all, w.sentences[i]);
	}
	CHECK(w.n >= 8);
	CHECK(strstr(all, "The host is low") && strstr(all, "web1 has 200.0 MiB") && strstr(all, "limited to 200.0 MiB"));
	CHECK(strstr(all, "10.0 MiB of it are active, estimated") && strstr(all, "owes: they count") && strstr(all, "2.0 MiB"));
	CHECK(strstr(all, "rho is 1000 shares") && strstr(all, "2.5 % of the time") && strstr(all, "new pages wait"));
	for (unsigned i = 0; i < POLICY_REASON_COUNT; i++)
		CHECK(policy_reason_names[i] && policy_reason_sentences[i]);
	/* a long name does not run over */
	memset(all, 'x', sizeof all - 1);
	policy_explain(all, &v, &p, &one, &plan, &w);
	CHECK(w.n && w.sentences[w.n - 1] < w.buffer + sizeof w.buffer);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(min_funding_is_what_taking_one_by_one_gives),
		SCENARIO(a_sample_that_misleads_changes_nothing),
		SCENARIO(idle_memory_is_taxed),
		SCENARIO(the_idle_give_to_the_busy),
		SCENARIO(a_flat_tax_settles_at_equal_prices),
		SCENARIO(soft_asks_balloons_and_hard_does_not_wait),
		SCENARIO(balloons_that_do_not_work_are_not_waited_for),
		SCENARIO(balloons_leave_room_for_the_reservation),
		SCENARIO(planning_again_asks_for_the_same),
		SCENARIO(what_is_owed_counts_as_held),
		SCENARIO(balloons_are_let_down_when_memory_is_ample),
		SCENARIO(who_was_ballooned_gets_its_part_back),
		SCENARIO(own_limit_never_asks_a_balloon),
		SCENARIO(a_budget_spares_while_others_can_give),
		SCENARIO(low_blocks_while_somebody_gives),
		SCENARIO(properties_hold_on_random_views),
		SCENARIO(words_say_the_numbers),
		{ 0 } });
}
