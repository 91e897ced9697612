#include "plan_log.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define POLICY_IN(name, sentence) { #name, "input", "policy", sentence },
#define POLICY_OUT(name, sentence) { #name, "output", "policy", sentence },
const struct record_number plan_log_numbers[] = {
	{ "plans", "counter", "count", "Plans that the row stands for: itself, and those since the row before it." },
#include "policy/plan_host.def"
};
#define POLICY_IN(name, sentence) { #name, "input", "policy", sentence },
#define POLICY_OUT(name, sentence) { #name, "output", "policy", sentence },
const struct record_number plan_log_vm_numbers[] = {
#include "policy/plan_vm.def"
};
const size_t plan_log_number_count = sizeof plan_log_numbers / sizeof *plan_log_numbers;
const size_t plan_log_vm_number_count = sizeof plan_log_vm_numbers / sizeof *plan_log_vm_numbers;

/* The rows, in the order of their columns. */
struct row {
	uint64_t plans;
#define POLICY_IN(name, sentence) uint64_t name;
#define POLICY_OUT(name, sentence) uint64_t name;
#include "policy/plan_host.def"
};
struct vm_row {
#define POLICY_IN(name, sentence) uint64_t name;
#define POLICY_OUT(name, sentence) uint64_t name;
#include "policy/plan_vm.def"
};
_Static_assert(sizeof(struct row) == sizeof plan_log_numbers / sizeof *plan_log_numbers * sizeof(uint64_t), "numbers only");
#define VM_VALUES (sizeof(struct vm_row) / sizeof(uint64_t))

void plan_log_fini(struct plan_log *g)
{
	free(g->vms);
	free(g->values);
	*g = (struct plan_log){ 0 };
}

static void mix(uint64_t *hash, uint64_t value)
{
	*hash = (*hash ^ value) * 0x100000001b3ull;
	*hash ^= *hash >> 29;
}

static uint64_t decision_of(const struct policy_view *view, const struct policy_plan *plan, const struct policy_vm_plan *vms,
	const char *const *names)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	mix(&hash, plan->next_state);
	mix(&hash, plan->next_reclaiming);
	for (size_t i = 0; i < view->n_vms; i++) {
		for (const char *c = names[i]; *c; c++)
			mix(&hash, (unsigned char)*c);
		mix(&hash, vms[i].cause << 8 | vms[i].technique);
	}
	return hash;
}

static int make_room(struct plan_log *g, size_t n)
{
	struct record_plan_vm *vms;
	uint64_t *values;

	if (n <= g->room)
		return 0;
	vms = realloc(g->vms, 2 * n * sizeof *vms);
	if (vms)
		g->vms = vms;
	values = realloc(g->values, 2 * n * VM_VALUES * sizeof *values);
	if (values)
		g->values = values;
	if (!vms || !values)
		return -1;
	g->room = 2 * n;
	return 0;
}

static void write_row(struct plan_log *g, uint64_t now_ns, uint64_t now_ms, const struct policy_view *view,
	const struct policy_plan *plan, const struct policy_vm_plan *vms, const char *const *names)
{
	struct row row = {
		.plans = g->plans,
#define POLICY_IN(name, sentence) .name = view->name,
#define POLICY_OUT(name, sentence) .name = plan->name,
#include "policy/plan_host.def"
	};

	if (make_room(g, view->n_vms) < 0)
		return;
	for (size_t i = 0; i < view->n_vms; i++) {
		const struct policy_vm *in = &view->vms[i];
		const struct policy_vm_plan *out = &vms[i];
		struct vm_row vm = {
#define POLICY_IN(name, sentence) .name = in->name,
#define POLICY_OUT(name, sentence) .name = out->name,
#include "policy/plan_vm.def"
		};

		memcpy(&g->values[i * VM_VALUES], &vm, sizeof vm);
		g->vms[i] = (struct record_plan_vm){ names[i], &g->values[i * VM_VALUES] };
	}
	/* two plans of a millisecond, or a clock that was set back: the name is still one of its own, and grows */
	g->row_ms = now_ms > g->row_ms ? now_ms : g->row_ms + 1;
	g->row_ns = now_ns;
	g->plans = 0;
	record_plan(g->record, g->row_ms, (const uint64_t *)&row, g->vms, view->n_vms);
}

static bool may_write(struct plan_log *g, uint64_t now_ns)
{
	uint64_t more = (now_ns - g->credit_ns) / (NS_PER_S / 1000 / PLAN_LOG_RATE);

	if (more) {
		g->credit_milli = g->credit_milli + more < PLAN_LOG_BURST * 1000 ? g->credit_milli + more : PLAN_LOG_BURST * 1000;
		g->credit_ns = now_ns;
	}
	if (g->credit_milli < 1000)
		return false;
	g->credit_milli -= 1000;
	return true;
}

void plan_log_add(struct plan_log *g, uint64_t now_ns, uint64_t now_ms, const struct policy_view *view,
	const struct policy_plan *plan, const struct policy_vm_plan *vms, const char *const *names)
{
	uint64_t decision = decision_of(view, plan, vms, names);
	bool same = decision == g->decision && g->row_ns;

	if (!g->record)
		return;
	g->plans++;
	g->decision = decision;
	if (same ? now_ns - g->row_ns >= NS_PER_S : may_write(g, now_ns))
		write_row(g, now_ns, now_ms, view, plan, vms, names);
}

bool plan_log_rest(struct plan_log *g, uint64_t now_ns, uint64_t now_ms, const struct policy_view *view,
	const struct policy_plan *plan, const struct policy_vm_plan *vms, const char *const *names)
{
	if (!g->record || !g->plans)
		return false;
	/* who is woken for nothing again and again makes no more rows than who is at work */
	if (now_ns - g->row_ns < NS_PER_S && !may_write(g, now_ns))
		return true;
	write_row(g, now_ns, now_ms, view, plan, vms, names);
	return false;
}
