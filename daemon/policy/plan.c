/* Min-funding revocation as water-filling, twice: down while memory is short, up (for balloons) when it is ample again.
 *
 * Taking one frame at a time from the VM with the lowest rho, shares / price, ends where all givers have the same price
 * a share, t: VM i keeps what the price shares_i * t buys, or its floor if that is more.  What is given falls as t
 * rises, so t is searched for, in some ten passes over the VMs instead of one pass a frame, most of them over one VM in
 * sixteen where there are many: that finds the neighbourhood, and all of them are asked three or four times.  Parts are
 * rounded down, and the frames that are left by that handed out in the order of the view, so the sum is exact.
 *
 * A active frames taken as constant, the price of P frames, and what a price p buys:
 *
 *	P <= A				price = P				P = p
 *	flat tax, P > A			A + k (P - A)				A + (p - A) / k
 *	progressive, k(P), q = p - A	A + P (P - A) / ((1-tau) P + tau A)	(b + sqrt(b^2 + 4 q tau A)) / 2,  b = A + q (1 - tau)
 *
 * Both grow with P, from A = price(A), so a frame that idles is always given before an active one of equal shares, and
 * the search is the same whatever the tax.
 *
 * A balloon takes time.  The plan does not remember what it asked: it asks for the size now + what is still needed, and as
 * the balloon grows the need shrinks by as much.  So planning again at any moment changes nothing by itself. */
#include "policy/plan.h"

#include "policy/rules.h"

#include <math.h>
#include <stdbool.h>

#define PASSES 200	/* far more than it takes */
#define EXACT_FRAMES 0.01	/* where the search ends */
#define SAMPLE 16		/* one VM in so many is asked first */
#define SAMPLED_VMS 512	/* from so many VMs on */
#define BAND 1.1		/* levels so far from the common one are let be when memory is not short */
#define HELPINGS 32		/* of a VM's size: that much at a time */
#define HELPING_FRAMES 256
#define MIB_FRAMES 256.0

#define NAME(name, word, sentence) [POLICY_REASON_##name] = word,
#define SENTENCE(name, word, sentence) [POLICY_REASON_##name] = sentence,
const char *const policy_reason_names[POLICY_REASON_COUNT] = { POLICY_REASONS(NAME) };
const char *const policy_reason_sentences[POLICY_REASON_COUNT] = { POLICY_REASONS(SENTENCE) };
const char *const policy_balloon_state_names[POLICY_BALLOON_STATES] = { "none", "responsive", "inactive", "uncooperative" };
const char *const policy_cause_names[POLICY_CAUSES] = { "none", "limit", "host" };
const char *const policy_technique_names[POLICY_TECHNIQUES] = { "none", "share", "balloon", "compress", "swap", "block" };

struct tax {
	double tau;
	bool progressive;
};

/* What a plan knows besides its view while it is made. */
struct work {
	const struct policy_view *view;
	struct policy_plan *plan;
	struct policy_vm_plan *vms;
	struct tax tax;
	bool reclaiming;
	bool wait_for_balloons;		/* not in hard or low */
};

/* Who takes part in a search. */
enum who {
	WHO_UNSPARED,	/* give */
	WHO_SPARED,	/* give, when the others cannot */
	WHO_BALLOONS,	/* are given */
	WHO_ALL,	/* the poor are given (counted +), the rich give (-), with a band between them */
};

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

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* a - b, or 0. */
static uint64_t above(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* The price of an idle frame when `held` are held. */
static double idle_price(const struct tax *tax, double held, double active)
{
	double tau = tax->tau;

	if (tax->progressive)
		tau *= held > active ? (held - active) / held : 0;
	return 1 / (1 - tau);
}

static double price(const struct tax *tax, double held, double active)
{
	if (held <= active)
		return held;
	return active + idle_price(tax, held, active) * (held - active);
}

/* Its inverse: the frames that a price buys, and how many more for a little more. */
static double buys(const struct tax *tax, double p, double active, double *ret_slope)
{
	double q = p - active, idle = 1 - tax->tau, b, root;

	*ret_slope = 1;
	if (q <= 0)
		return p;
	*ret_slope = idle;
	b = active + q * idle;
	if (!tax->progressive)
		return b;
	root = sqrt(b * b + 4 * q * tax->tau * active);
	*ret_slope = root > 0 ? (idle + (b * idle + 2 * tax->tau * active) / root) / 2 : idle;
	return (b + root) / 2;
}

/* What it counts as holding, after what its own limit takes. */
static uint64_t held(const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	return vm->charged_frames - p->limit_take_frames + (RULE(RULE_DEBT) ? vm->balloon_owed_frames : 0);
}

static uint64_t floor_of(const struct policy_vm *vm)
{
	return RULE(RULE_FLOOR) ? vm->reservation_frames : 0;
}

static bool is_spared(const struct policy_vm *vm)
{
	return RULE(RULE_BUDGET) && vm->stall_budget_permille && vm->stall_permille > vm->stall_budget_permille &&
		!vm->balloon_owed_frames;
}

/* The most that its balloon may hold: what is left must be enough for the reservation. */
static uint64_t balloon_cap(const struct policy_vm *vm)
{
	if (!RULE(RULE_ROOM))
		return vm->size_frames;
	return min_u64(vm->balloon_max_frames, above(vm->size_frames, vm->reservation_frames));
}

/* What its balloon could still give. */
static uint64_t can_balloon(const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	if (vm->balloon_state == POLICY_BALLOON_NONE)
		return 0;
	return min_u64(above(balloon_cap(vm), vm->balloon_frames), above(vm->charged_frames - p->limit_take_frames, floor_of(vm)));
}

static bool balloon_works(const struct policy_vm *vm)
{
	return vm->balloon_state == POLICY_BALLOON_RESPONSIVE || (!RULE(RULE_FORCE) && vm->balloon_state != POLICY_BALLOON_NONE);
}

static uint64_t can_evict(const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	return min_u64(vm->reclaimable_frames - p->limit_take_frames,
		above(vm->charged_frames - p->limit_take_frames, floor_of(vm)));
}

/* The most that VM i can give the host, by whatever technique. */
static uint64_t can_give(const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	uint64_t evict = can_evict(vm, p);

	return balloon_works(vm) ? max_u64(evict, can_balloon(vm, p)) : evict;
}

/* What VM i is entitled to count as holding when a share buys the price `t`. */
static double entitled(const struct work *w, size_t i, double t)
{
	double slope;

	return buys(&w->tax, (double)w->view->vms[i].shares * t, (double)w->view->vms[i].active_frames, &slope);
}

static uint64_t whole_balloon(const struct policy_vm *vm)
{
	return vm->balloon_frames + vm->balloon_owed_frames;
}

/* While a search goes on, what it needs of each VM lies side by side in fields of its output that are filled in later:
 * 10,000 VMs' inputs do not fit a processor's second cache. */
#define holds	price_frames	/* what it counts as holding */
#define at_most	reason		/* what it can move */
#define weight	rho_milli	/* its shares */
#define uses	tax_milli	/* active frames */

/* What it was given and has not used is part of what is free above the goal; who has more unused than its balloon holds
 * needs none. */
static uint64_t can_be_given(const struct policy_vm *vm)
{
	uint64_t balloon = whole_balloon(vm);

	if (!RULE(RULE_ONCE))
		return balloon;
	return vm->untouched_frames > balloon ? 0 : balloon + vm->untouched_frames;
}

/* For balance: what the others are to give up for it at a time: a little, and no more until it has used that. */
static double next_helping(const struct policy_vm *vm)
{
	uint64_t part = max_u64(vm->size_frames / HELPINGS, HELPING_FRAMES);

	return vm->untouched_frames > part / 2 ? 0 : (double)min_u64(vm->balloon_frames, part);
}

/* Where a search begins and ends. */
struct bounds {
	double high;		/* a level at which nobody gives, and all balloons are empty */
	double mean;
	double at_high, at_zero;	/* what moves there, and at level 0 */
};

/* One pass over all: the bounds of a search, and its fields (balances does without). */
static void prepare(const struct work *w, enum who who, struct bounds *ret)
{
	double level = 1, prices = 0, shares = 0, given = 0, gives = 0, unfunded = 0;

	for (size_t i = 0; i < w->view->n_vms; i++) {
		const struct policy_vm *vm = &w->view->vms[i];
		struct policy_vm_plan *p = &w->vms[i];
		uint64_t holding = held(vm, p), give = 0;
		double cost;

		if (who != WHO_BALLOONS && is_spared(vm) == (who == WHO_SPARED))
			give = can_give(vm, p);
		if (who != WHO_ALL) {
			p->holds = holding;
			p->weight = vm->shares;
			p->uses = vm->active_frames;
			p->at_most = who == WHO_BALLOONS ? can_be_given(vm) : give;
		}
		gives += (double)give;
		if (!vm->shares) {
			unfunded += (double)give;
			continue;
		}
		if (who >= WHO_BALLOONS)
			given += who == WHO_BALLOONS ? (double)p->at_most : next_helping(vm);
		cost = price(&w->tax, (double)(holding + vm->untouched_frames + whole_balloon(vm)), (double)vm->active_frames);
		prices += cost;
		shares += (double)vm->shares;
		if (cost / (double)vm->shares > level)
			level = cost / (double)vm->shares;
	}
	/* without shares a VM gives at any level, and is given at none */
	*ret = (struct bounds){ .high = level * 2 * BAND, .mean = shares > 0 ? prices / shares : level,
		.at_high = who < WHO_BALLOONS ? unfunded : given - unfunded, .at_zero = who < WHO_BALLOONS ? gives : -gives };
}

/* Of what it would like to move, at most `most`; `slope` is added to: how much more at a higher level. */
static double bounded(double way, double most, double s, double *slope)
{
	if (way <= 0)
		return 0;
	if (way >= most)
		return most;
	*slope += s;
	return way;
}

/* How far VM i moves at level `t`.  Not rounded, so that the search finds its way. */
static double moves(const struct work *w, enum who who, size_t i, double t, double *slope)
{
	const struct policy_vm_plan *p = &w->vms[i];
	double s, keep;

	if (!p->at_most)
		return 0;
	keep = buys(&w->tax, (double)p->weight * t, (double)p->uses, &s);
	s *= (double)p->weight;
	return who == WHO_BALLOONS ? bounded(keep - (double)p->holds, (double)p->at_most, s, slope) :
		bounded((double)p->holds - keep, (double)p->at_most, -s, slope);
}

/* For balance: what the rich give (-) at a level a little above `t`, and what the poor are given at one below. */
static double balances(const struct work *w, size_t i, double t, double *ret_given, double *slope)
{
	const struct policy_vm *vm = &w->view->vms[i];
	double s, keep, has = (double)held(vm, &w->vms[i]), up = 0, down = 0, most = next_helping(vm), gives = 0;

	*ret_given = 0;
	if (most > 0) {
		keep = buys(&w->tax, (double)vm->shares * t / BAND, (double)vm->active_frames, &s);
		*ret_given = bounded(keep - has - (double)vm->untouched_frames, most, s * (double)vm->shares / BAND, &up);
	}
	keep = buys(&w->tax, (double)vm->shares * t * BAND, (double)vm->active_frames, &s);
	if (keep < has && !is_spared(vm))
		gives = bounded(has - keep, (double)can_give(vm, &w->vms[i]), -s * (double)vm->shares * BAND, &down);
	*slope += up - down;
	return *ret_given - gives;
}

/* What moves at level `t`, as one VM in `step` says. */
static double moved(const struct work *w, enum who who, double t, size_t step, double *ret_slope)
{
	double sum = 0, given;

	*ret_slope = 0;
	for (size_t i = 0; i < w->view->n_vms; i += step)
		sum += who == WHO_ALL ? balances(w, i, t, &given, ret_slope) : moves(w, who, i, t, ret_slope);
	*ret_slope *= (double)step;
	return sum * (double)step;
}

/* The level at which `need` moves, as near as numbers go, from `t` on.  By Newton's method: what moves is piecewise smooth and
 * monotonic in the level.  A step that would leave what is known to enclose the level halves that instead, and so does every
 * eighth, which bounds them. */
static double newton(const struct work *w, enum who who, double need, double t, double high, size_t step)
{
	bool rises = who >= WHO_BALLOONS;	/* with the level */
	double least = rises ? 0 : high, most = rises ? high : 0;	/* moves too little, enough */
	double exact = step > 1 ? (double)w->view->n_vms : EXACT_FRAMES, slope;

	for (unsigned i = 1; i < PASSES; i++) {
		double sum = moved(w, who, t, step, &slope);

		if (fabs(sum - need) < exact)
			return t;
		if (sum > need)
			most = t;
		else
			least = t;
		if (slope != 0)
			t += (need - sum) / slope;
		if (!(i % 8) || slope == 0 || (t - least) * (t - most) >= 0)
			t = least + (most - least) / 2;
		if (t == least || t == most)
			break;
	}
	return most;
}

/* The level at which `need` moves; or at which all moves there is, if that is less. */
static double search(const struct work *w, enum who who, double need, const struct bounds *b)
{
	bool rises = who >= WHO_BALLOONS;
	double t = b->mean;

	if ((rises ? b->at_high : b->at_zero) <= need)
		return rises ? b->high : 0;
	if ((rises ? b->at_zero : b->at_high) >= need)
		return rises ? 0 : b->high;
	if (w->view->n_vms >= SAMPLED_VMS)
		t = newton(w, who, need, t, b->high, SAMPLE);
	return newton(w, who, need, t, b->high, 1);
}

/* Hands out `need` into host_take_frames of those who take part; the sum of what was handed out. */
static uint64_t hand_out(struct work *w, enum who who, uint64_t need, double *ret_level)
{
	struct bounds bounds;
	double level, slope = 0;
	uint64_t left = need;

	prepare(w, who, &bounds);
	level = search(w, who, (double)need, &bounds);
	for (size_t i = 0; i < w->view->n_vms && left; i++) {
		uint64_t part = min_u64((uint64_t)(moves(w, who, i, level, &slope) + EXACT_FRAMES), left);

		w->vms[i].host_take_frames += part;
		left -= part;
	}
	/* what rounding has left: a frame for each */
	for (size_t i = 0; i < w->view->n_vms && left; i++) {
		double more = moves(w, who, i, level, &slope) - (double)w->vms[i].host_take_frames;

		if (more <= 0)
			continue;
		w->vms[i].host_take_frames++;
		left--;
	}
	*ret_level = level;
	return need - left;
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

/* Memory is not short: what it may grow to. */
static uint64_t target_at_ease(const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	uint64_t left = vm->charged_frames - p->limit_take_frames;

	return min_u64(vm->limit_frames, max_u64(left, above(vm->size_frames, p->balloon_target_frames)));
}

/* How VM i gives: p->host_take_frames is all it has to give when this begins, and what is to be evicted at its end. */
static void choose_technique(const struct work *w, size_t i)
{
	const struct policy_vm *vm = &w->view->vms[i];
	struct policy_vm_plan *p = &w->vms[i];
	uint64_t give = p->host_take_frames, ask = min_u64(give, can_balloon(vm, p)), out;
	bool wait = balloon_works(vm) && (w->wait_for_balloons || !RULE(RULE_HARD));

	p->host_take_frames = min_u64(wait ? give - ask : give, can_evict(vm, p));
	/* who owes is asked for all of it until the pressure is over, as the balloons of the others stay as they are */
	ask = min_u64(max_u64(ask, vm->balloon_owed_frames), above(balloon_cap(vm), vm->balloon_frames));
	p->balloon_target_frames = min_u64(vm->balloon_frames, balloon_cap(vm)) + ask;
	out = p->limit_take_frames + p->host_take_frames;
	p->compress_frames = min_u64(out, vm->cache_room_frames);
	p->swap_frames = out - p->compress_frames;
}

/* Memory is ample: as much as is free above the goal goes back to those whose balloon is not empty, best rho first; what
 * they were given before and have not used is part of that, or the same memory would be promised again with each plan. */
static void let_down(struct work *w, uint64_t spare)
{
	double level;
	uint64_t left = spare - hand_out(w, WHO_BALLOONS, spare, &level);

	for (size_t i = 0; i < w->view->n_vms; i++) {
		const struct policy_vm *vm = &w->view->vms[i];
		struct policy_vm_plan *p = &w->vms[i];
		uint64_t unused = RULE(RULE_ONCE) ? vm->untouched_frames : 0, balloon = whole_balloon(vm);
		uint64_t give = min_u64(above(p->host_take_frames, unused), balloon);
		/* without shares, or with enough unused, it is served when all the others are */
		uint64_t more = min_u64(left, balloon - give);

		left -= more;
		p->host_take_frames = 0;
		p->balloon_target_frames = min_u64(balloon - give - more, balloon_cap(vm));
	}
}

static enum policy_reason reason_short(const struct work *w, size_t i, uint64_t gives, double level)
{
	const struct policy_vm *vm = &w->view->vms[i];
	const struct policy_vm_plan *p = &w->vms[i];
	bool over = vm->stall_budget_permille && vm->stall_permille > vm->stall_budget_permille;
	double has = (double)held(vm, p);

	if (!gives) {
		if (vm->charged_frames - p->limit_take_frames <= floor_of(vm))
			return POLICY_REASON_AT_RESERVATION;
		if (is_spared(vm) && level < 0)
			return POLICY_REASON_SPARED;
		return can_give(vm, p) ? POLICY_REASON_BETTER_FUNDED : POLICY_REASON_NOTHING_TO_TAKE;
	}
	if (vm->balloon_owed_frames)
		return POLICY_REASON_REFUSED;
	if (over)
		return POLICY_REASON_OVER_BUDGET;
	if (!vm->shares)
		return POLICY_REASON_NO_SHARES;
	return has > (double)vm->active_frames ? POLICY_REASON_IDLE : POLICY_REASON_FEWEST_SHARES;
}

/* The host is short.  Who gives what is known; `levels` are those at which the search for each group ended, below 0 for
 * one that was not searched. */
static void plan_short(struct work *w, const double levels[2])
{
	struct policy_plan *plan = w->plan;

	for (size_t i = 0; i < w->view->n_vms; i++) {
		const struct policy_vm *vm = &w->view->vms[i];
		struct policy_vm_plan *p = &w->vms[i];
		uint64_t gives = p->host_take_frames, left = vm->charged_frames - p->limit_take_frames;
		double level = levels[is_spared(vm)], fair;

		choose_technique(w, i);
		plan->host_frames += p->host_take_frames;
		plan->balloon_frames += above(p->balloon_target_frames, vm->balloon_frames);
		if (gives) {
			p->target_frames = left - gives;
		} else if (level < 0) {
			p->target_frames = target_at_ease(vm, p);
		} else {
			/* who is poorer may grow; from who is richer nothing can be taken now, but it should not grow */
			fair = entitled(w, i, level) - (double)vm->balloon_owed_frames;
			p->target_frames = target_at_ease(vm, p);
			if (fair < (double)p->target_frames)
				p->target_frames = min_u64(vm->limit_frames,
					max_u64(fair > 0 ? (uint64_t)fair : 0, can_give(vm, p) ? left : floor_of(vm)));
		}
		p->reason = p->limit_take_frames ? POLICY_REASON_OWN_LIMIT : reason_short(w, i, gives, level);
		if (gives)
			p->cause = POLICY_CAUSE_HOST;
	}
}

/* Memory is not short, but who was ballooned then may have become poorer than the others since: its guest makes do with
 * what it has, and no fault tells of that.  So what its shares entitle it to is taken from the rich, and comes free above
 * the goal; the next plan gives it.  It comes in helpings, the next when the last was used: who needs no more costs the others
 * one helping.  VMs whose levels are within a band of each other are left alone. */
static void balance(struct work *w)
{
	const struct policy_view *view = w->view;
	double wanted = 0, given, level, none = 0;
	struct bounds bounds;
	bool any = false;

	for (size_t i = 0; i < view->n_vms; i++)
		any |= next_helping(&view->vms[i]) > 0;
	if (!any || !RULE(RULE_BALANCE))
		return;
	prepare(w, WHO_ALL, &bounds);
	level = search(w, WHO_ALL, (double)view->free_frames - (double)w->plan->goal_frames, &bounds);
	for (size_t i = 0; i < view->n_vms; i++) {
		balances(w, i, level, &given, &none);
		wanted += given;
	}
	if (wanted < 1)
		return;
	for (size_t i = 0; i < view->n_vms; i++) {
		double way = balances(w, i, level, &given, &none);
		uint64_t give = way < 0 ? (uint64_t)-way : 0;

		if (!give)
			continue;
		w->plan->balance_frames += give;
		w->vms[i].host_take_frames = give;
		choose_technique(w, i);
		w->vms[i].cause = POLICY_CAUSE_HOST;
		w->vms[i].reason = POLICY_REASON_BALANCE;
		w->vms[i].target_frames = view->vms[i].charged_frames - w->vms[i].limit_take_frames - give;
		w->plan->host_frames += w->vms[i].host_take_frames;
	}
}

static enum policy_reason reason_at_ease(const struct policy_vm *vm, const struct policy_vm_plan *p, bool ample)
{
	if (p->limit_take_frames)
		return POLICY_REASON_OWN_LIMIT;
	if (p->balloon_target_frames < vm->balloon_frames)
		return POLICY_REASON_DEFLATE;
	return ample ? POLICY_REASON_AMPLE : POLICY_REASON_HOLD;
}

static void plan_at_ease(struct work *w)
{
	const struct policy_view *view = w->view;
	uint64_t spare = above(view->free_frames, w->plan->goal_frames);
	bool give = !w->reclaiming && spare;

	if (!RULE(RULE_TWO_PHASES)) {
		spare = view->free_frames;
		give = true;
	}
	if (give)
		let_down(w, spare);
	for (size_t i = 0; i < view->n_vms; i++) {
		const struct policy_vm *vm = &view->vms[i];
		struct policy_vm_plan *p = &w->vms[i];

		if (!give) {
			choose_technique(w, i);
		} else {
			p->compress_frames = min_u64(p->limit_take_frames, vm->cache_room_frames);
			p->swap_frames = p->limit_take_frames - p->compress_frames;
		}
		p->target_frames = target_at_ease(vm, p);
		p->reason = reason_at_ease(vm, p, spare);
	}
	if (!w->reclaiming)
		balance(w);
	for (size_t i = 0; i < view->n_vms; i++)
		w->plan->balloon_frames += above(w->vms[i].balloon_target_frames, view->vms[i].balloon_frames);
}

/* In low: nobody takes new pages whose target is below what it has.  As long as nobody gives, waiting helps nobody. */
static void block(struct work *w)
{
	struct policy_plan *plan = w->plan;

	if (plan->next_state != HOST_LOW || !RULE(RULE_BLOCK) || (!plan->host_frames && RULE(RULE_BLOCK_END)))
		return;
	for (size_t i = 0; i < w->view->n_vms; i++) {
		const struct policy_vm *vm = &w->view->vms[i];
		struct policy_vm_plan *p = &w->vms[i];

		if (vm->charged_frames - p->limit_take_frames <= p->target_frames)
			continue;
		p->blocked = 1;
		p->cause = POLICY_CAUSE_HOST;
		plan->blocked_vms++;
	}
}

static void finish(struct work *w)
{
	for (size_t i = 0; i < w->view->n_vms; i++) {
		const struct policy_vm *vm = &w->view->vms[i];
		struct policy_vm_plan *p = &w->vms[i];
		double has = (double)vm->charged_frames + (RULE(RULE_DEBT) ? (double)vm->balloon_owed_frames : 0);
		double active = (double)vm->active_frames, cost = price(&w->tax, has, active), rho;

		p->tax_milli = (uint64_t)(1000 * idle_price(&w->tax, has, active));
		p->price_frames = (uint64_t)cost;
		rho = (double)vm->shares * 1000 * MIB_FRAMES / (cost < 1 ? 1 : cost);
		p->rho_milli = rho < 1e18 ? (uint64_t)rho : 1000000000000000000u;
		if (p->limit_take_frames)
			p->cause = POLICY_CAUSE_LIMIT;
		if (p->blocked)
			p->technique = POLICY_TECHNIQUE_BLOCK;
		else if (p->swap_frames)
			p->technique = POLICY_TECHNIQUE_SWAP;
		else if (p->compress_frames)
			p->technique = POLICY_TECHNIQUE_COMPRESS;
		else if (p->balloon_target_frames > vm->balloon_frames)
			p->technique = POLICY_TECHNIQUE_BALLOON;
		else if (w->plan->share_pass)
			p->technique = POLICY_TECHNIQUE_SHARE;
	}
}

static void plan_state(const struct policy_view *view, struct policy_plan *plan)
{
	struct host_thresholds t;
	enum host_state before = view->state > HOST_LOW ? HOST_LOW : (enum host_state)view->state;

	policy_thresholds(view->capacity_frames, (unsigned)view->min_free_pct, &t);
	plan->min_free_frames = t.min_free_frames;
	plan->high_frames = t.high_frames;
	plan->soft_frames = t.soft_frames;
	plan->hard_frames = t.hard_frames;
	plan->low_frames = t.low_frames;
	plan->goal_frames = t.goal_frames;
	plan->next_reclaiming = view->reclaiming;
	if (!RULE(RULE_HYSTERESIS)) {
		before = HOST_HIGH;
		plan->goal_frames = t.soft_frames;
		plan->next_reclaiming = 0;
	}
	plan->next_state = policy_host_state(before, view->free_frames, &t);
	if (view->free_frames < plan->soft_frames)
		plan->next_reclaiming = 1;
	if (view->free_frames >= plan->goal_frames)
		plan->next_reclaiming = 0;
	plan->share_pass = view->free_frames < plan->min_free_frames;
}

void policy_plan(const struct policy_view *view, struct policy_plan *ret, struct policy_vm_plan *vms)
{
	double levels[2] = { -1, -1 };
	uint64_t left, got;
	struct work w = { .view = view, .plan = ret, .vms = vms, .tax = { .progressive = view->idle_tax_type != 0 } };

	*ret = (struct policy_plan){ 0 };
	plan_state(view, ret);
	if (RULE(RULE_TAX))
		w.tax.tau = (double)min_u64(view->idle_tax_pct, 99) / 100;
	w.reclaiming = ret->next_reclaiming;
	w.wait_for_balloons = ret->next_state < HOST_HARD;

	for (size_t i = 0; i < view->n_vms; i++) {
		vms[i] = (struct policy_vm_plan){ .limit_take_frames = take_for_limit(&view->vms[i]) };
		ret->limit_frames += vms[i].limit_take_frames;
	}
	if (w.reclaiming)
		ret->need_frames = ret->goal_frames - view->free_frames;
	/* what VMs give for their limits comes free as well */
	left = above(ret->need_frames, ret->limit_frames);
	if (left) {
		got = hand_out(&w, WHO_UNSPARED, left, &levels[0]);
		left -= got;
		if (left && RULE(RULE_BUDGET_END))
			left -= hand_out(&w, WHO_SPARED, left, &levels[1]);
		ret->unmet_frames = left;
		plan_short(&w, levels);
		block(&w);
	} else {
		plan_at_ease(&w);
	}
	finish(&w);
}
