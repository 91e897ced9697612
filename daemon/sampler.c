/* A period of one VM:
 *
 *	begin	draw pages, uniformly over all its leases, whatever their state; zap them, a lease an order
 *	look	ask about those that have not been seen in use: lease by lease, the next when one is answered;
 *		after the last the policy is told how many of the sample have been seen in use so far
 *	...	POLICY_SAMPLE_LOOKS of these, the last one at the end of the period; and one a second of a VM whose guest waits
 *		for pages
 *
 * A page counts if it is found mapped at any look, so one that was used and then evicted is not missed, unless all that
 * happened between two looks.  Where memory is short that is the rule and not the exception: a VM that works on more than it
 * holds turns over what it holds within seconds, and if only what is mapped at the end of a quarter of a minute counted, it
 * would be thought to use no more than it holds, be taxed for the rest, and hold still less (two busy VMs of shares 2 to 1 ended
 * at 3.8 to 1).  Who turns over his memory waits for it, so he is looked at more often.  Other zaps (mem/victim.c ages candidates for eviction) can hide a use between two looks as
 * well; and ours can make a page that reclaim has aged look unused: a hundred pages a minute, which a refault puts right.
 * Pages that are mapped from the pool cannot be zapped (private copies would be lost) and count as in use.
 *
 * Answers and their periods.  A period can end, by its grace, while a look is under way.  The order's answer still comes, once;
 * `order` is 0 then, so it is dropped, but `looking` stays until it has come: no two looks are ever under way.  The VM's end
 * detaches its orders, which answers what is under way, before the client is freed. */
#include "sampler.h"

#include "base/clock.h"
#include "daemon.h"
#include "mem/inject.h"
#include "ops_client.h"

#include <errno.h>
#include <stdlib.h>

#define PERIOD_NS	(250 * NS_PER_MS)
#define HASTY_PERIOD_NS (20 * NS_PER_MS)
#define STALL_NS	(500 * NS_PER_MS)
/* A guest that waits for more of the time is looked at so often. */
#define WAITS_PERMILLE	20
#define WAITS_NS	(1 * NS_PER_S)

struct sampler {
	struct daemon *daemon;
	struct loop_timer *timer;
};

static struct policy_activity_settings settings_of(const struct daemon *d)
{
	return (struct policy_activity_settings){ .period_ns = (uint64_t)d->config.sample_period * NS_PER_S,
		.min_pct = (unsigned)d->config.sample_active_pct_min };
}

/* Pages that were used, as far as it can be seen without the client: they came in by faults, or their protection ended. */
static uint64_t used_pages(struct vm *vm)
{
	struct vm_numbers n;

	vm_numbers(vm, &n);
	return n.faults_zero + n.faults_compressed + n.faults_swapped + n.faults_shared + n.faults_protected + n.break_pages;
}

static void tell(struct client *c)
{
	struct policy_activity_settings how = settings_of(c->daemon);
	uint64_t pages = client_active_pages(c->vm);
	struct policy_active a;

	policy_activity_get(&c->sampler.activity, &how, pages, &a);
	vm_tell(c->vm, VM_ACTIVE_BYTES, a.frames < pages ? a.frames * PAGE_SIZE : UINT64_MAX);
	vm_tell(c->vm, VM_ACTIVE_ESTIMATED, a.estimated);
	vm_tell(c->vm, VM_ACTIVE_SLOW_PCT, (uint64_t)(a.slow_pct + 0.5));
	vm_tell(c->vm, VM_ACTIVE_FAST_PCT, (uint64_t)(a.fast_pct + 0.5));
	vm_tell(c->vm, VM_ACTIVE_NEXT_PCT, (uint64_t)(a.next_pct + 0.5));
}

/* ---- a sample ---- */

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static int by_place(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Places in the row of all active leases' pages, in the order of the list. */
static void draw(struct client *c)
{
	struct sampler_vm *v = &c->sampler;
	uint64_t pages = client_active_pages(c->vm), place[POLICY_SAMPLE_PAGES], first = 0;
	unsigned want = pages < POLICY_SAMPLE_PAGES ? (unsigned)pages : POLICY_SAMPLE_PAGES, i = 0;

	if (!v->random)
		v->random = (0x9e3779b97f4a7c15ull ^ c->token) | 1;
	for (unsigned k = 0; k < want; k++)
		place[k] = next_random(&v->random) % pages;
	qsort(place, want, sizeof place[0], by_place);
	v->n_sample = 0;
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l)) {
		uint64_t count = lease_size_bytes(l) / PAGE_SIZE;

		if (!lease_is_active(l))
			continue;
		for (; i < want && place[i] < first + count; i++) {
			if (i && place[i] == place[i - 1])
				continue; /* twice the same is no evidence */
			v->sample[v->n_sample].lease = lease_id(l);
			v->sample[v->n_sample].page = (uint32_t)(place[i] - first);
			v->sample[v->n_sample++].touched = false;
		}
		first += count;
	}
}

/* Those of the sample from `from` on that lie in one lease and have not been seen in use, as runs; *ret_to: behind them. */
static unsigned runs_of(const struct sampler_vm *v, unsigned from, struct run *runs, unsigned *ret_to)
{
	unsigned n = 0, i = from;

	for (; i < v->n_sample && v->sample[i].lease == v->sample[from].lease; i++) {
		uint64_t page = v->sample[i].page;

		if (v->sample[i].touched)
			continue;
		if (n && runs[n - 1].page + runs[n - 1].count == page)
			runs[n - 1].count++;
		else
			runs[n++] = (struct run){ page, 1 };
	}
	*ret_to = i;
	return n;
}

/* A zap that is not sent leaves its pages mapped, and they will look used: then the sample is worth nothing, and is not looked
 * at, which ends the period with an estimate. */
static void begin(struct client *c, uint64_t now)
{
	struct sampler_vm *v = &c->sampler;
	struct run runs[POLICY_SAMPLE_PAGES];
	bool sent = true;

	v->order = 0;
	draw(c);
	/* a lease is yet to come: nothing is known of it until there is a sample of it, and a period without one would say "idle" */
	if (!v->n_sample)
		return;
	v->used = used_pages(c->vm);
	v->looked_ns = now;
	policy_activity_began(&v->activity, now, v->n_sample);
	for (unsigned at = 0, to; at < v->n_sample && sent; at = to) {
		struct lease *l = vm_find_lease(c->vm, v->sample[at].lease);
		unsigned n = runs_of(v, at, runs, &to);

		sent = orders_zap(c->orders, l, runs, n) == 0;
	}
	if (!sent)
		v->n_sample = 0;
}

/* ---- a look ---- */

static void ask(struct client *c);

static void answered(void *userdata, uint64_t order, int r, const uint8_t *bits)
{
	struct client *c = userdata;
	struct sampler_vm *v = &c->sampler;
	bool current = order == v->order;

	v->looking = false;
	v->order = 0;
	if (!current || r < 0)
		return;
	for (unsigned i = v->from, bit = 0; i < v->to; i++) {
		if (v->sample[i].touched)
			continue;
		v->sample[i].touched = bits[bit / 8] >> (bit % 8) & 1;
		bit++;
	}
	v->from = v->to;
	ask(c);
}

static void looked(struct client *c)
{
	struct policy_activity_settings how = settings_of(c->daemon);
	struct sampler_vm *v = &c->sampler;
	unsigned touched = 0;

	for (unsigned i = 0; i < v->n_sample; i++)
		touched += v->sample[i].touched;
	policy_activity_looked(&v->activity, &how, now_ns(), touched);
	tell(c);
}

/* About the next lease of the sample that there still is. */
static void ask(struct client *c)
{
	struct sampler_vm *v = &c->sampler;
	struct run runs[POLICY_SAMPLE_PAGES];

	for (; v->from < v->n_sample; v->from = v->to) {
		struct lease *l = vm_find_lease(c->vm, v->sample[v->from].lease);
		unsigned n = runs_of(v, v->from, runs, &v->to);

		if (!n || !l || !lease_is_active(l))
			continue;
		v->looking = orders_present(c->orders, l, runs, n, answered, c, &v->order) == 0;
		return;
	}
	looked(c);
}

static void look(struct client *c)
{
	struct sampler_vm *v = &c->sampler;

	if (v->looking || !v->n_sample)
		return;
	v->looked_ns = now_ns();
	v->from = 0;
	ask(c);
}

static void estimate(struct client *c)
{
	struct sampler_vm *v = &c->sampler;

	v->order = 0;
	policy_activity_estimate(&v->activity, used_pages(c->vm) - v->used, client_active_pages(c->vm));
	tell(c);
}

/* ---- the stall share ---- */

/* The slots are a ring of which the oldest is the one to be written next. */
static void measure_stalls(struct client *c, uint64_t now)
{
	struct sampler_vm *v = &c->sampler;
	unsigned last = (v->n_stalls + SAMPLER_STALLS - 1) % SAMPLER_STALLS, oldest;
	uint64_t stall = vm_stall_wall_ns(c->vm), permille;

	if (v->n_stalls && now - v->stalls[last].at_ns < STALL_NS)
		return;
	oldest = v->n_stalls < SAMPLER_STALLS ? 0 : v->n_stalls % SAMPLER_STALLS;
	if (v->n_stalls) {
		uint64_t before = v->stalls[oldest].stall_ns;

		permille = (stall - before) * 1000 / (now - v->stalls[oldest].at_ns);
		v->stall_permille = permille < 1000 ? (unsigned)permille : 1000;
		vm_tell(c->vm, VM_STALL_PERMILLE, v->stall_permille);
	}
	v->stalls[v->n_stalls % SAMPLER_STALLS].at_ns = now;
	v->stalls[v->n_stalls++ % SAMPLER_STALLS].stall_ns = stall;
}

/* ---- the clock ---- */

static void fire(void *userdata)
{
	struct sampler *s = userdata;
	struct policy_activity_settings how = settings_of(s->daemon);
	uint64_t now = now_ns();

	/* ending takes a client from the list later, by a post: the walk is safe */
	list_foreach(at, &s->daemon->clients) {
		struct client *c = container_of(at, struct client, link);

		if (c->ending)
			continue;
		measure_stalls(c, now);
		switch (policy_activity_step(&c->sampler.activity, &how, now)) {
		case POLICY_SAMPLE_BEGIN:
			begin(c, now);
			if (c->sampler.n_sample)
				tell(c);
			break;
		case POLICY_SAMPLE_LOOK:
			look(c);
			break;
		case POLICY_SAMPLE_MUTE:
			estimate(c);
			break;
		case POLICY_SAMPLE_NONE:
			if (!how.period_ns)
				tell(c);
			else if (c->sampler.stall_permille >= WAITS_PERMILLE && now - c->sampler.looked_ns >= WAITS_NS)
				look(c);
			break;
		}
	}
}

int sampler_new(struct sampler **ret, struct daemon *d)
{
	struct sampler *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->daemon = d;
	r = loop_timer_new(d->loop, inject.hasty ? HASTY_PERIOD_NS : PERIOD_NS, fire, s, &s->timer);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sampler_free(struct sampler *s)
{
	if (!s)
		return;
	loop_timer_free(s->timer);
	free(s);
}
