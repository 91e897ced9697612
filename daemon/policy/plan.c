/* Min-funding revocation as water-filling.
 *
 * Taking one frame at a time from the VM with the fewest shares per frame ends where all givers hold the same
 * number of frames per share, t: VM i keeps max(floor_i, shares_i * t).  What is given falls as t rises, so t
 * is found by bisection, in a fixed number of passes over the VMs instead of one pass a frame.  The bisection
 * ends with two neighbouring levels, one that gives a little too much and one a little too little; the rest of
 * at most a few frames a VM is handed out between the two in the order of the view, so the sum is exact.
 *
 * Idle tax, when it comes, changes the shares that enter here (shares / price of a frame), not this search. */
#include "policy/plan.h"

#define BISECTIONS 64

uint64_t policy_limit_margin_frames(uint64_t limit_frames)
{
	uint64_t margin = limit_frames / 32;

	/* two runs of evictions at least, 16 MiB at most, and never most of a tiny limit */
	if (margin < 128)
		margin = 128;
	if (margin > 4096)
		margin = 4096;
	return margin < limit_frames / 4 ? margin : limit_frames / 4;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Starts at half the margin, so that it is not asked for single frames again and again. */
static uint64_t take_for_limit(const struct policy_vm *vm)
{
	uint64_t margin, goal;

	if (vm->limit_frames == POLICY_NO_LIMIT)
		return 0;
	margin = policy_limit_margin_frames(vm->limit_frames);
	goal = vm->limit_frames - margin;
	if (vm->charged_frames <= vm->limit_frames - margin / 2)
		return 0;
	return min_u64(vm->charged_frames - goal, vm->reclaimable_frames);
}

/* What VM i gives the host when a share is worth `t` frames. */
static uint64_t give_at(const struct policy_vm *vm, const struct policy_take *take, double t)
{
	uint64_t has = vm->charged_frames - take->limit_frames;
	uint64_t can = vm->reclaimable_frames - take->limit_frames;
	double keep = (double)vm->shares * t;

	if (has <= vm->reservation_frames)
		return 0;
	can = min_u64(can, has - vm->reservation_frames);
	if (keep >= (double)has)
		return 0;
	return min_u64(can, has - (uint64_t)keep);
}

static uint64_t given_at(const struct policy_view *view, const struct policy_take *takes, double t)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < view->n_vms; i++)
		sum += give_at(&view->vms[i], &takes[i], t);
	return sum;
}

/* The most frames that any share stands for: at this level nobody gives. */
static double highest_level(const struct policy_view *view)
{
	double level = 1;

	for (size_t i = 0; i < view->n_vms; i++) {
		const struct policy_vm *vm = &view->vms[i];

		if (vm->shares && (double)vm->charged_frames / (double)vm->shares > level)
			level = (double)vm->charged_frames / (double)vm->shares;
	}
	return level * 2;
}

static uint64_t split(const struct policy_view *view, struct policy_take *takes, uint64_t need)
{
	double much = 0, little = highest_level(view);	/* levels that give too much, too little */
	uint64_t most = given_at(view, takes, much), left;

	if (most < need)
		need = most;
	/* without shares a VM gives at any level */
	if (given_at(view, takes, little) >= need)
		much = little;
	for (unsigned i = 0; i < BISECTIONS && much < little; i++) {
		double t = much + (little - much) / 2;

		if (given_at(view, takes, t) >= need)
			much = t;
		else
			little = t;
	}
	left = need;
	for (size_t i = 0; i < view->n_vms; i++) {
		takes[i].host_frames = min_u64(give_at(&view->vms[i], &takes[i], little), left);
		left -= takes[i].host_frames;
	}
	for (size_t i = 0; i < view->n_vms && left; i++) {
		uint64_t more = min_u64(give_at(&view->vms[i], &takes[i], much) - takes[i].host_frames, left);

		takes[i].host_frames += more;
		left -= more;
	}
	return need - left;
}

void policy_plan(const struct policy_view *view, struct policy_memory *memory, struct policy_plan *ret,
	struct policy_take *takes)
{
	struct policy_plan plan = { 0 };

	policy_thresholds(view->capacity_frames, view->min_free_pct, &plan.thresholds);
	memory->state = policy_host_state(memory->state, view->free_frames, &plan.thresholds);
	if (view->free_frames < plan.thresholds.soft_frames)
		memory->reclaiming = true;
	if (view->free_frames >= plan.thresholds.goal_frames)
		memory->reclaiming = false;

	for (size_t i = 0; i < view->n_vms; i++) {
		takes[i] = (struct policy_take){ .limit_frames = take_for_limit(&view->vms[i]) };
		plan.limit_frames += takes[i].limit_frames;
	}
	if (memory->reclaiming)
		plan.need_frames = plan.thresholds.goal_frames - view->free_frames;
	/* what VMs give for their limits comes free as well */
	if (plan.need_frames > plan.limit_frames) {
		plan.host_frames = split(view, takes, plan.need_frames - plan.limit_frames);
		plan.unmet_frames = plan.need_frames - plan.limit_frames - plan.host_frames;
	}
	*ret = plan;
}
