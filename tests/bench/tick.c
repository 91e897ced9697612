/* What one policy tick costs for each VM, with 10,000 VMs on 4 TiB and with 1,000 on a tenth of that: the steps of the working
 * set estimate and of the balloon's liveness, the view, and a plan.  Prints one JSON object:
 *
 *	ns_10k, ns_1k		a tick while memory is short (the search of min-funding), median of the rounds
 *	ease_ns_10k, ease_ns_1k	a tick while balloons are let down
 *	rounds			of each, interleaved
 *
 * CPU time of this thread, so that neighbours on the machine count little. */
#include "policy/activity.h"
#include "policy/balloon.h"
#include "policy/plan.h"
#include "tests/bench/measure.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#define MANY	 10000
#define FEW	 1000
#define ROUNDS	 41
#define ARENA	 (1ull << 30)	/* frames: 4 TiB */
#define PERIOD	 (60 * 1000000000ull)
#define SECOND	 1000000000ull
#define COLD	 (8 << 20)

struct host {
	size_t n;
	bool is_short;
	uint64_t now_ns;
	struct policy_view view;
	struct policy_vm *vms;
	struct policy_vm_plan *plans;
	struct policy_activity *activities;
	struct policy_balloon *balloons;
};

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? seed % below : 0;
}

static uint64_t thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* Half a GiB each, overcommitted 1.5 times; shares, activity, balloons as they come. */
static void fill(struct host *h, size_t n, bool is_short)
{
	uint64_t capacity = ARENA / MANY * n, goal, part;

	*h = (struct host){ .n = n, .is_short = is_short, .vms = calloc(n, sizeof *h->vms), .plans = calloc(n, sizeof *h->plans),
		.activities = calloc(n, sizeof *h->activities), .balloons = calloc(n, sizeof *h->balloons), .now_ns = SECOND };
	if (!h->vms || !h->plans || !h->activities || !h->balloons)
		die("no memory");
	goal = policy_goal_free_frames(capacity, 0);
	part = (capacity - goal) / n;
	for (size_t i = 0; i < n; i++) {
		struct policy_vm *vm = &h->vms[i];
		uint64_t size = part * 3 / 2;

		*vm = (struct policy_vm){ .size_frames = size, .limit_frames = rnd(10) ? POLICY_NO_LIMIT : size,
			.shares = size / 256 * (rnd(3) == 0 ? 20 : 10), .charged_frames = part / 2 + rnd(part),
			.reservation_frames = rnd(2) ? rnd(size / 4) : 0, .cache_room_frames = rnd(10000),
			.stall_permille = rnd(100), .stall_budget_permille = rnd(10) ? 0 : 50 };
		vm->reclaimable_frames = vm->charged_frames - vm->charged_frames / 100;
		if (rnd(2)) {
			vm->balloon_max_frames = size * 65 / 100;
			vm->balloon_frames = rnd(size / 4);
			vm->untouched_frames = rnd(size / 16);
		}
	}
	h->view = (struct policy_view){ .capacity_frames = capacity, .idle_tax_pct = 75, .idle_tax_type = 1, .n_vms = n,
		.vms = h->vms, .free_frames = is_short ? goal / 3 : 2 * goal };
}

static void look(struct host *h, size_t i)
{
	static const struct policy_activity_settings settings = { .period_ns = PERIOD, .min_pct = 1 };
	struct policy_activity *a = &h->activities[i];
	struct policy_vm *vm = &h->vms[i];
	struct policy_active active;

	switch (policy_activity_step(a, &settings, h->now_ns)) {
	case POLICY_SAMPLE_BEGIN:
		policy_activity_began(a, h->now_ns, POLICY_SAMPLE_PAGES);
		break;
	case POLICY_SAMPLE_LOOK:
		policy_activity_looked(a, &settings, h->now_ns, (unsigned)(i % 100));
		break;
	case POLICY_SAMPLE_MUTE:
	case POLICY_SAMPLE_NONE:
		break;
	}
	policy_activity_get(a, &settings, vm->size_frames, &active);
	vm->active_frames = active.frames;
	vm->active_estimated = active.estimated;
	policy_balloon_step(&h->balloons[i], h->now_ns, vm->balloon_max_frames > 0, vm->balloon_frames,
		h->plans[i].balloon_target_frames);
	vm->balloon_state = h->balloons[i].state;
	vm->balloon_owed_frames = h->balloons[i].owed_frames;
}

/* A tick comes once a second: the processor's own caches hold what others did meanwhile. */
static void forget(void)
{
	static volatile char others[COLD];

	for (size_t i = 0; i < sizeof others; i += 64)
		others[i]++;
}

static uint64_t tick(struct host *h)
{
	struct policy_plan plan;
	uint64_t begun;

	forget();
	begun = thread_ns();
	for (size_t i = 0; i < h->n; i++)
		look(h, i);
	policy_plan(&h->view, &plan, h->plans);
	begun = thread_ns() - begun;
	if (h->is_short ? !plan.host_frames : plan.need_frames)
		die("%zu VMs are not %s", h->n, h->is_short ? "short" : "at ease");
	/* some have done as they were told, and four seconds have passed */
	for (size_t i = 0; i < h->n; i += 2)
		if (h->vms[i].balloon_max_frames)
			h->vms[i].balloon_frames = h->plans[i].balloon_target_frames;
	h->now_ns += 4 * SECOND;
	return begun;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *v)
{
	qsort(v, ROUNDS, sizeof *v, by_size);
	return v[ROUNDS / 2];
}

int main(void)
{
	static uint64_t took[4][ROUNDS];
	static struct host hosts[4];

	for (unsigned i = 0; i < 4; i++) {
		fill(&hosts[i], i % 2 ? FEW : MANY, i < 2);
		tick(&hosts[i]);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < 4; i++) {
			/* ten small ones for a large one, so that both meet the same disturbances */
			unsigned times = i % 2 ? MANY / FEW : 1;

			for (unsigned k = 0; k < times; k++)
				took[i][round] += tick(&hosts[i]);
			took[i][round] /= times;
		}
	}
	printf("{\"ns_10k\":%llu,\"ns_1k\":%llu,\"ease_ns_10k\":%llu,\"ease_ns_1k\":%llu,\"rounds\":%d}\n",
		(unsigned long long)median(took[0]), (unsigned long long)median(took[1]), (unsigned long long)median(took[2]),
		(unsigned long long)median(took[3]), ROUNDS);
	return 0;
}
