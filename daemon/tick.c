#include "tick.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/events.h"
#include "mem/host.h"
#include "policy/state.h"
#include "record/record.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_TICKS 60
#define AVERAGES    3

/* As load averages do: of what is older than so many ticks (seconds) a third is left. */
static const double average_ticks[AVERAGES] = { 60, 300, 900 };

/* What a VM's histograms held at the last tick: the history tells of each period by itself. */
struct past {
	struct list link;
	char name[64];
	bool seen;
	struct histogram_copy faults[FAULT_CAUSES];
};

struct tick {
	struct arena *arena;
	struct reclaim *reclaim;
	struct groups *groups;
	struct record *record;
	struct tick_vms vms;
	struct list past;
	uint64_t ts_ms;		/* of the running tick */
	uint64_t n_vms;		/* counted by it */
	uint64_t vms_bytes;	/* sizes and overhead of these */
	uint64_t memory_bytes, available_bytes;	/* of the machine */
	uint64_t overcommit_permille;
	double overcommit_average[AVERAGES];	/* in permille */
	uint64_t taken_frames;
	uint64_t clients_killed;
	uint64_t ticks;
	bool ticked;
	bool huge_pages;	/* found by the last probe */
};

static struct past *find_past(struct tick *t, const char *name)
{
	struct past *p;

	list_foreach(at, &t->past) {
		p = container_of(at, struct past, link);
		if (!strcmp(p->name, name))
			return p;
	}
	p = calloc(1, sizeof *p);
	if (p) {
		memcpy(p->name, name, strnlen(name, sizeof p->name - 1));
		list_append(&t->past, &p->link);
	}
	return p;
}

static void forget(struct past *p)
{
	list_remove(&p->link);
	free(p);
}

/* What came since `before`; false if nothing did, or if these are the histograms of another, younger VM. */
static bool subtract(const struct histogram_copy *now, const struct histogram_copy *before, struct histogram_copy *ret)
{
	*ret = (struct histogram_copy){ .sum_ns = now->sum_ns - before->sum_ns, .count = now->count - before->count };
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (now->bucket[i] < before->bucket[i])
			return false;
		ret->bucket[i] = now->bucket[i] - before->bucket[i];
	}
	return ret->count > 0;
}

static void record_faults(struct tick *t, struct vm *vm, struct past *past)
{
	const char *name = vm_config(vm)->name;

	for (unsigned cause = 0; cause < FAULT_CAUSES; cause++) {
		struct histogram_copy now = { 0 }, period;

		vm_fault_histogram(vm, (enum fault_cause)cause, &now);
		if (subtract(&now, &past->faults[cause], &period))
			record_fault_latency(t->record, t->ts_ms, name, fault_cause_names[cause], &period);
		past->faults[cause] = now;
	}
}

static void tick_vm(void *arg, struct vm *vm)
{
	struct tick *t = arg;
	struct vm_numbers n;
	struct past *past;

	t->n_vms++;
	t->taken_frames += vm_check_wall(vm);
	vm_numbers(vm, &n);
	t->vms_bytes += n.size_bytes + n.overhead_bytes;
	if (!t->record)
		return;
	/* the struct is nothing but its numbers, in the order of the catalogue */
	_Static_assert(sizeof n % sizeof(uint64_t) == 0, "numbers only");
	record_vm(t->record, t->ts_ms, vm_config(vm)->name, (const uint64_t *)&n);
	past = find_past(t, vm_config(vm)->name);
	if (past) {
		past->seen = true;
		record_faults(t, vm, past);
	}
}

static uint64_t state_number(const char *name)
{
	for (unsigned i = 0; i < HOST_STATES; i++) {
		if (!strcmp(name, host_state_names[i]))
			return i;
	}
	return 0;
}

void tick_host_numbers(struct tick *t, struct host_numbers *ret)
{
	struct record_counts counts = { 0 };
	struct arena_numbers a;
	struct arena_check check;
	struct groups_numbers g;
	struct reclaim_status r;

	arena_numbers(t->arena, &a);
	arena_check(t->arena, &check);
	reclaim_get_status(t->reclaim, &r);
	groups_numbers(t->groups, &g);
	if (t->record)
		record_counts(t->record, &counts);
	*ret = (struct host_numbers){
		.capacity_bytes = a.capacity_frames * PAGE_SIZE,
		.charged_bytes = a.charged_frames * PAGE_SIZE,
		.charged_peak_bytes = a.peak_frames * PAGE_SIZE,
		.blocks_bytes = check.blocks_frames * PAGE_SIZE,
		.free_bytes = a.free_frames * PAGE_SIZE,
		.reserve_bytes = a.reserve_frames * PAGE_SIZE,
		.reserved_bytes = a.reserved_frames * PAGE_SIZE,
		.min_free_bytes = r.min_free_frames * PAGE_SIZE,
		.goal_free_bytes = r.goal_free_frames * PAGE_SIZE,
		.memory_bytes = t->memory_bytes,
		.memory_available_bytes = t->available_bytes,
		.overcommit_permille = t->overcommit_permille,
		.overcommit_1m_permille = (uint64_t)(t->overcommit_average[0] + 0.5),
		.overcommit_5m_permille = (uint64_t)(t->overcommit_average[1] + 0.5),
		.overcommit_15m_permille = (uint64_t)(t->overcommit_average[2] + 0.5),
		.state = state_number(r.state),
		.reclaim_runs = r.runs,
		.vms = t->n_vms,
		.pools = g.pools,
		.shared_bytes = g.shared_pages * PAGE_SIZE,
		.common_bytes = g.common_pages * PAGE_SIZE,
		.saving_bytes = g.shared_pages > g.common_pages ? (g.shared_pages - g.common_pages) * PAGE_SIZE : 0,
		.taken_frames = t->taken_frames,
		.clients_killed = t->clients_killed,
		.metrics_written = counts.written,
		.metrics_dropped = counts.dropped,
		.metrics_failed = counts.failed,
	};
}

/* An administrator may turn huge pages of shared memory on while guests run; eviction verifies every hole, so this is
 * a warning here, and a refusal only at start. */
static void probe_huge_pages(struct tick *t)
{
	struct problem p = { 0 };
	bool found;

	if (t->ticks++ % PROBE_TICKS)
		return;
	found = arena_probe_huge_pages(&p) < 0;
	if (found && !t->huge_pages)
		event_tell(EVENT_HUGE_PAGES, NULL, "%s", p.text);
	t->huge_pages = found;
}

/* What was before the first tick is unknown: the averages begin with what is now. */
static void average_overcommit(struct tick *t)
{
	struct arena_numbers a;
	uint64_t capacity;

	arena_numbers(t->arena, &a);
	capacity = a.capacity_frames * PAGE_SIZE;
	t->overcommit_permille = t->vms_bytes > capacity ? (t->vms_bytes - capacity) / (capacity / 1000 + 1) : 0;
	for (unsigned i = 0; i < AVERAGES; i++) {
		double now = (double)t->overcommit_permille;

		t->overcommit_average[i] = t->ticked ? t->overcommit_average[i] + (now - t->overcommit_average[i]) / average_ticks[i] : now;
	}
	t->ticked = true;
}

void tick_run(struct tick *t)
{
	struct host_numbers n;

	probe_huge_pages(t);

	t->ts_ms = wall_ns() / NS_PER_MS;
	t->n_vms = 0;
	t->vms_bytes = 0;
	list_foreach(at, &t->past)
		container_of(at, struct past, link)->seen = false;
	t->vms.each(t->vms.userdata, tick_vm, t);
	list_foreach_safe(at, &t->past) {
		struct past *p = container_of(at, struct past, link);

		if (!p->seen)
			forget(p);
	}
	average_overcommit(t);
	host_memory(&t->memory_bytes, &t->available_bytes);
	if (!t->record)
		return;
	tick_host_numbers(t, &n);
	record_host(t->record, t->ts_ms, (const uint64_t *)&n);
}

void tick_count_killed(struct tick *t)
{
	t->clients_killed++;
}

int tick_new(struct tick **ret, struct arena *a, struct reclaim *reclaim, struct groups *groups, struct record *record,
	const struct tick_vms *vms)
{
	struct tick *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	*t = (struct tick){ .arena = a, .reclaim = reclaim, .groups = groups, .record = record, .vms = *vms };
	list_init(&t->past);
	host_memory(&t->memory_bytes, &t->available_bytes);
	*ret = t;
	return 0;
}

void tick_free(struct tick *t)
{
	if (!t)
		return;
	list_foreach_safe(at, &t->past)
		forget(container_of(at, struct past, link));
	free(t);
}
