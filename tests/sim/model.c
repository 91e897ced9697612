#include "tests/sim/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ACCESS_S 50e-6		/* of work at each hot page */
#define UNZIP_S	 20e-6
#define SWAP_S	 1e-3		/* a disk that others use too */
#define PAGED_S	 1e-3		/* the guest's own paging */
#define RATIO	 3.0		/* of compression */
#define RUN	 64.0
#define ERRS	 0.1		/* hot pages for each that is not, that reclaim takes by mistake */
#define GIVE_S	 0.2		/* who gives nothing for so long... */
#define SPARE_S	 1.0		/* ...is not asked for so long */

unsigned policy_rules_off;

static double least(double a, double b)
{
	return a < b ? a : b;
}

static double most(double a, double b)
{
	return a > b ? a : b;
}

static double rnd(void)
{
	static uint64_t seed = 0x9e3779b97f4a7c15;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (double)(seed >> 11) / 9007199254740992.0;
}

static double in(const struct guest *g)
{
	return g->hot_in + g->cold_in + g->freed_in;
}

static double out(const struct guest *g)
{
	return g->hot_out + g->cold_out + g->freed_out;
}

static double untouched(const struct guest *g)
{
	return g->size - in(g) - out(g) - g->balloon;
}

double guest_charged(const struct guest *g)
{
	return in(g) + g->zipped / RATIO;
}

static void broken(struct host *h, const char *what)
{
	if (h->broken)
		return;
	h->broken = what;
	h->broken_s = h->t;
}

void host_begin(struct host *h, double capacity)
{
	*h = (struct host){ .capacity = capacity, .sample_period_s = 10, .balance_s = 15, .idle_tax_pct = 75, .idle_tax_type = 1,
		.free = capacity };
}

struct guest *host_add(struct host *h, const char *name, enum guest_kind kind, double size, double shares)
{
	struct guest *g = &h->guests[h->n++];

	*g = (struct guest){ .name = name, .kind = kind, .size = size, .shares = shares, .grows = 20000, .inflates = 20000,
		.evicts = 40000, .balloon_most = size };
	return g;
}

void guest_settle(struct host *h, struct guest *g)
{
	g->hot_in = g->hot;
	g->cold_in = g->used - g->hot;
	h->free -= g->used;
}

/* ---- frames ---- */

/* Frames for a guest that faults: how many it gets. */
static double charge(struct host *h, struct guest *g, double pages)
{
	double got = g->blocked ? 0 : least(pages, most(h->free, 0));

	if (g->limit > 0)
		got = least(got, most(g->limit - guest_charged(g), 0));
	h->free -= got;
	if (got < pages - 0.5) {
		if (g->blocked)
			g->blocked_s += STEP_S * (1 - got / pages);
		else if (h->free < 0.5)
			g->starved_s += STEP_S * (1 - got / pages);
	}
	return got;
}

/* Takes pages out of the store: a part of what it has out was compressed, and comes free of the cache. */
static void leave_store(struct host *h, struct guest *g, double pages, bool read)
{
	double part = out(g) > 0 ? g->zipped / out(g) : 0, zipped = least(pages * part, g->zipped);

	g->zipped -= zipped;
	h->free += zipped / RATIO;
	if (read)
		g->read += pages - zipped;
}

static double unload(double *pages, double want)
{
	double got = least(*pages, want);

	*pages -= got;
	return got;
}

/* In runs of RUN pages, as the workers do: a little more than was asked. */
static void evict(struct host *h, struct guest *g, double frames)
{
	double left = least(ceil(frames / RUN) * RUN, g->evicts * STEP_S), part;

	while (left > 0.5 && in(g) > 0.5) {
		double rest = g->cold_in + g->freed_in, hot = rest > 0.5 ? ERRS * least(g->hot_in, rest) : g->hot_in;
		double from = (rest > 0.5 ? rest : 0) + hot;
		bool zip = g->zipped / RATIO + 1 < g->cache_most;
		double pages = least(from, zip ? left / (1 - 1 / RATIO) : left);

		if (zip)
			pages = least(pages, (g->cache_most - g->zipped / RATIO) * RATIO);
		part = pages / from;
		g->hot_in -= hot * part;
		g->hot_out += hot * part;
		if (rest > 0.5) {
			g->cold_out += g->cold_in * part;
			g->cold_in -= g->cold_in * part;
			g->freed_out += g->freed_in * part;
			g->freed_in -= g->freed_in * part;
		}
		if (zip)
			g->zipped += pages;
		else
			g->written += pages;
		h->free += zip ? pages * (1 - 1 / RATIO) : pages;
		left -= zip ? pages * (1 - 1 / RATIO) : pages;
	}
}

/* ---- guests ---- */

static void fill_pages(struct host *h, struct guest *g)
{
	double want = least(g->used - g->hot_in - g->hot_out - g->cold_in - g->cold_out, g->grows * STEP_S), got, again;

	if (want < 0) {
		/* cold pages go first */
		double give = -want, from = unload(&g->cold_in, give);

		g->freed_in += from;
		from = unload(&g->cold_out, give - from);
		g->freed_out += from;
	}
	if (want <= 0)
		return;
	got = unload(&g->freed_in, want);
	again = least(g->freed_out, want - got);
	again = charge(h, g, again);
	leave_store(h, g, again, true);
	g->freed_out -= again;
	got += again;
	again = charge(h, g, least(most(untouched(g), 0), want - got));
	got += again;
	g->cold_in += got;
}

/* The guest zeroes what it frees: so the sharing scan drops it, ten times as fast when a pass is made at once. */
static void drop_zeroes(struct host *h, struct guest *g)
{
	h->free += unload(&g->freed_in, g->zeroes * STEP_S * (h->plan.share_pass ? 10 : 1));
}

/* Cold pages become hot when work goes to them, and the other way round. */
static void change_work(struct guest *g)
{
	double now = g->hot_in + g->hot_out, more = g->hot - now, got;

	if (more > 0) {
		got = unload(&g->cold_in, more);
		g->hot_in += got;
		got = unload(&g->cold_out, more - got);
		g->hot_out += got;
	} else if (now > 0) {
		double part = -more / now;

		g->cold_in += g->hot_in * part;
		g->cold_out += g->hot_out * part;
		g->hot_in -= g->hot_in * part;
		g->hot_out -= g->hot_out * part;
	}
}

static void work(struct host *h, struct guest *g)
{
	double have = g->hot_in + g->hot_out, p, paged, zipped, cost, n, faults, got, stall = 0;

	g->done_now = 0;
	if (g->hot <= 0)
		return;
	paged = most(g->hot - have, 0) / g->hot;
	p = have > 0 ? (1 - paged) * g->hot_out / have : 0;
	zipped = out(g) > 0 ? g->zipped / out(g) : 0;
	cost = ACCESS_S + p * (zipped * UNZIP_S + (1 - zipped) * SWAP_S) + paged * PAGED_S;
	n = STEP_S / cost;
	faults = least(n * p, g->hot_out);
	got = charge(h, g, faults);
	leave_store(h, g, got, true);
	g->hot_out -= got;
	g->hot_in += got;
	if (faults > 0.5 && got < faults - 0.5) {
		double lost = STEP_S * (1 - got / faults);

		n *= got / faults;
		stall += lost;
	}
	stall += n * p * (zipped * UNZIP_S + (1 - zipped) * SWAP_S);
	g->stall_s += stall;
	g->stalled += 0.05 * (stall / STEP_S - g->stalled);
	g->done += n;
	g->done_now = n;
}

/* Pages that the guest gives to its driver, in the order in which it can do without them. */
static void inflate(struct host *h, struct guest *g, double pages)
{
	double *const order[] = { &g->freed_in, &g->freed_out, NULL, &g->cold_in, &g->cold_out, &g->hot_in, &g->hot_out };

	for (unsigned i = 0; i < sizeof order / sizeof *order && pages > 0; i++) {
		double *from = g->kind == GUEST_LYING && order[i] ? &(double){ 0 } : order[i];
		double got = least(pages, from ? *from : most(untouched(g), 0));

		if (from == &g->freed_out || from == &g->cold_out || from == &g->hot_out)
			leave_store(h, g, got, false);
		else if (from)
			h->free += got;
		if (from)
			*from -= got;
		g->balloon += got;
		pages -= got;
	}
}

static void drive(struct host *h, struct guest *g)
{
	double move = g->inflates * STEP_S, want = least(g->target, g->balloon_most);

	if (g->kind >= GUEST_SILENT)
		return;
	if (g->kind == GUEST_STUCK)
		want = least(want, g->balloon);
	if (g->kind == GUEST_FLAPPING && fmod(h->t, 6) >= 3) {
		/* touches what it gave */
		double back = charge(h, g, least(g->balloon, move));

		g->balloon -= back;
		g->freed_in += back;
		return;
	}
	if (want > g->balloon)
		inflate(h, g, least(want - g->balloon, move));
	else
		g->balloon -= least(g->balloon - want, move);
}

static void sample(struct host *h, struct guest *g)
{
	struct policy_activity_settings s = { .period_ns = (uint64_t)(h->sample_period_s * 1e9), .min_pct = 1 };
	uint64_t now = (uint64_t)(h->t * 1e9);
	unsigned touched = 0;

	switch (policy_activity_step(&g->activity, &s, now)) {
	case POLICY_SAMPLE_BEGIN:
		policy_activity_began(&g->activity, now, POLICY_SAMPLE_PAGES);
		break;
	case POLICY_SAMPLE_LOOK:
		if (g->kind == GUEST_SILENT)
			break;
		for (unsigned i = 0; i < POLICY_SAMPLE_PAGES; i++)
			touched += rnd() < least(g->hot, g->hot_in + g->hot_out) / g->size || g->kind == GUEST_LYING;
		policy_activity_looked(&g->activity, &s, now, touched);
		break;
	case POLICY_SAMPLE_MUTE:
		policy_activity_estimate(&g->activity, (uint64_t)(h->sample_period_s * g->done_now / STEP_S * g->hot_out / g->size),
			(uint64_t)g->size);
		break;
	case POLICY_SAMPLE_NONE:
		break;
	}
}

/* ---- the policy's part ---- */

static void look(struct host *h, struct guest *g, struct policy_vm *vm)
{
	struct policy_activity_settings s = { .period_ns = (uint64_t)(h->sample_period_s * 1e9), .min_pct = 1 };
	struct policy_active active;
	bool driver = g->kind < GUEST_SILENT;
	double charged = floor(guest_charged(g));

	sample(h, g);
	policy_activity_get(&g->activity, &s, (uint64_t)g->size, &active);
	policy_balloon_step(&g->liveness, (uint64_t)(h->t * 1e9), driver, (uint64_t)g->balloon, (uint64_t)g->target);
	*vm = (struct policy_vm){ .size_frames = (uint64_t)g->size, .reservation_frames = (uint64_t)g->reservation,
		.limit_frames = g->limit > 0 ? (uint64_t)g->limit : POLICY_NO_LIMIT, .shares = (uint64_t)g->shares,
		.charged_frames = (uint64_t)charged, .reclaimable_frames = g->gave_nothing_s > GIVE_S ? 0 : (uint64_t)charged,
		.active_frames = active.frames, .active_estimated = active.estimated, .balloon_frames = (uint64_t)g->balloon,
		.balloon_max_frames = driver ? (uint64_t)(g->size * 0.65) : 0, .balloon_state = g->liveness.state,
		.balloon_owed_frames = g->liveness.owed_frames, .compressed_frames = (uint64_t)g->zipped,
		.swapped_frames = (uint64_t)(out(g) - g->zipped),
		.cache_room_frames = (uint64_t)most(g->cache_most * RATIO - g->zipped, 0),
		
		.untouched_frames = (uint64_t)most(untouched(g), 0), .stall_permille = (uint64_t)(1000 * g->stalled), .stall_budget_permille = (uint64_t)g->stall_budget_permille };
}

/* What must hold whatever the guests do. */
static void judge(struct host *h)
{
	double sum = h->free;

	for (unsigned i = 0; i < h->n; i++) {
		const struct guest *g = &h->guests[i];
		const struct policy_vm *vm = &h->vms[i];
		const struct policy_vm_plan *p = &h->plans[i];
		uint64_t balloon = p->balloon_target_frames > vm->balloon_frames ? p->balloon_target_frames : 0;

		sum += guest_charged(g);
		if (p->host_take_frames && vm->charged_frames - p->limit_take_frames - p->host_take_frames < vm->reservation_frames)
			broken(h, "a VM is taken below its reservation");
		if (balloon && vm->size_frames - balloon < vm->reservation_frames)
			broken(h, "a balloon leaves no room for the reservation");
		if (h->free < (double)h->plan.goal_frames - 1 && p->balloon_target_frames < vm->balloon_frames)
			broken(h, "a balloon is let down while memory is short");
		if (balloon > vm->balloon_max_frames)
			broken(h, "a balloon is asked for more than its cap");
		if (untouched(g) < -1 || g->zipped > out(g) + 1)
			broken(h, "the model's pages do not add up");
	}
	if (fabs(sum - h->capacity) > 1 || h->free < -1)
		broken(h, "frames do not add up");
}

static void plan(struct host *h)
{
	bool near = h->view.reclaiming || h->free < (double)h->plan.soft_frames || h->t - h->planned_s >= h->balance_s;

	for (unsigned i = 0; i < h->n; i++) {
		struct guest *g = &h->guests[i];

		look(h, g, &h->vms[i]);
		near |= g->limit > 0 && guest_charged(g) > g->limit - (double)policy_limit_margin_frames((uint64_t)g->limit) / 2;
		near |= g->blocked;
		near |= g->liveness.state == POLICY_BALLOON_RESPONSIVE && fabs(g->target - g->balloon) >= 1;
	}
	if (!near && h->t > 0)
		return;
	h->planned_s = h->t;
	h->view = (struct policy_view){ .capacity_frames = (uint64_t)h->capacity, .free_frames = (uint64_t)most(h->free, 0),
		.idle_tax_pct = (uint64_t)h->idle_tax_pct, .idle_tax_type = h->idle_tax_type, .state = h->plan.next_state,
		.reclaiming = h->plan.next_reclaiming, .n_vms = h->n, .vms = h->vms };
	policy_plan(&h->view, &h->plan, h->plans);
	h->state_changes += h->plan.next_state != h->view.state;
	h->reclaims += h->plan.next_reclaiming && !h->view.reclaiming;
	h->view.reclaiming = h->plan.next_reclaiming;
	if (h->plan.next_state > h->worst_state)
		h->worst_state = (unsigned)h->plan.next_state;
	judge(h);
	for (unsigned i = 0; i < h->n; i++) {
		h->guests[i].target = (double)h->plans[i].balloon_target_frames;
		h->guests[i].blocked = h->plans[i].blocked;
	}
}

static void carry_out(struct host *h)
{
	for (unsigned i = 0; i < h->n; i++) {
		struct guest *g = &h->guests[i];
		double take = (double)(h->plans[i].limit_take_frames + h->plans[i].host_take_frames), before = h->free;

		evict(h, g, take);
		/* done until it is asked again */
		h->plans[i].limit_take_frames = h->plans[i].host_take_frames = 0;
		if (take > 0 && h->free <= before)
			g->gave_nothing_s += STEP_S;
		else
			g->gave_nothing_s = most(g->gave_nothing_s > GIVE_S ? g->gave_nothing_s - STEP_S * GIVE_S / SPARE_S : 0, 0);
	}
}

static void record(struct host *h)
{
	struct sample *s = &h->samples[h->n_samples];

	if (h->n_samples >= sizeof h->samples / sizeof *h->samples || h->t < h->n_samples * 10 * STEP_S - 1e-6)
		return;
	h->n_samples++;
	s->t = h->t;
	s->free = h->free;
	s->state = (unsigned)h->plan.next_state;
	for (unsigned i = 0; i < h->n; i++) {
		const struct guest *g = &h->guests[i];

		s->vm[i].charged = guest_charged(g);
		s->vm[i].active = h->vms[i].active_frames == POLICY_ACTIVE_UNKNOWN ? g->size : (double)h->vms[i].active_frames;
		s->vm[i].balloon = g->balloon;
		s->vm[i].out = out(g);
		s->vm[i].done = g->done_now / STEP_S;
		s->vm[i].target = (double)h->plans[i].target_frames;
	}
}

void host_run(struct host *h, double seconds)
{
	for (long steps = lround(seconds / STEP_S); steps > 0; steps--) {
		for (unsigned i = 0; i < h->n; i++) {
			struct guest *g = &h->guests[i];

			fill_pages(h, g);
			drop_zeroes(h, g);
			change_work(g);
			work(h, g);
			drive(h, g);
		}
		plan(h);
		carry_out(h);
		h->low_s += h->plan.next_state == HOST_LOW ? STEP_S : 0;
		record(h);
		h->t += STEP_S;
	}
}

double guest_speed(struct guest *g, double *before, double seconds)
{
	double done = g->done - *before;

	*before = g->done;
	return done / seconds;
}
