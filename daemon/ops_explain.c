/* Explain: why a VM is asked for memory, or is not.
 *
 *	explanation: {vm, planned_ms (Unix time of the plan that this is), state (of the host after it), cause, technique, reason,
 *		words [sentences],
 *		host_in, host_out, vm_in, vm_out: {the rows of policy/plan_host.def and policy/plan_vm.def under their own names},
 *		actions [{ts_ms (when it began), cause, technique, reason, why (a sentence), asked_bytes, given_bytes, repeats}], the
 *		latest first}
 *
 * What has no value (no limit, activity not known yet) is null. */
#include "ops_client.h"
#include "ops_dispatch.h"

#include "policy/explain.h"
#include "proto/writer.h"

#include <errno.h>
#include <stdlib.h>

static void write_value(struct writer *o, const char *name, uint64_t value)
{
	if (value == UINT64_MAX)
		writer_null(o, name);
	else
		writer_u64(o, name, value);
}

static void write_host(struct writer *o, const struct policy_view *in, const struct policy_plan *out)
{
	writer_object(o, "host_in");
#define POLICY_IN(name, sentence) write_value(o, #name, in->name);
#include "policy/plan_host.def"
	writer_end(o);
	writer_object(o, "host_out");
#define POLICY_OUT(name, sentence) write_value(o, #name, out->name);
#include "policy/plan_host.def"
	writer_end(o);
}

static void write_vm(struct writer *o, const struct policy_vm *in, const struct policy_vm_plan *out)
{
	writer_object(o, "vm_in");
#define POLICY_IN(name, sentence) write_value(o, #name, in->name);
#include "policy/plan_vm.def"
	writer_end(o);
	writer_object(o, "vm_out");
#define POLICY_OUT(name, sentence) write_value(o, #name, out->name);
#include "policy/plan_vm.def"
	writer_end(o);
}

/* Numbers of a plan that is our own are within the tables. */
static void write_decision(struct writer *o, uint64_t cause, uint64_t technique, uint64_t reason)
{
	writer_str(o, "cause", policy_cause_names[cause]);
	writer_str(o, "technique", policy_technique_names[technique]);
	writer_str(o, "reason", policy_reason_names[reason]);
}

static void write_actions(struct writer *o, const struct reclaim_explanation *e)
{
	writer_array(o, "actions");
	for (unsigned i = 0; i < e->n_actions; i++) {
		const struct reclaim_action *a = &e->actions[i];

		writer_object(o, NULL);
		writer_u64(o, "ts_ms", a->ts_ms);
		write_decision(o, a->cause, a->technique, a->reason);
		writer_str(o, "why", policy_reason_sentences[a->reason]);
		writer_u64(o, "asked_bytes", a->asked_frames * PAGE_SIZE);
		writer_u64(o, "given_bytes", a->given_frames * PAGE_SIZE);
		writer_u64(o, "repeats", a->repeats);
		writer_end(o);
	}
	writer_end(o);
}

void do_explain(struct daemon *d, struct call *call, const struct op_explain_in *in)
{
	struct client *c = client_find(d, in->vm);
	struct op_explain_out out = { 0 };
	struct reclaim_explanation e;
	struct writer o = WRITER_INIT;
	struct policy_words words;

	if (!c) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	if (c->ending || reclaim_explain(d->reclaim, c->vm, &e) < 0) {
		refuse(call, WIRE_ERROR_BadState, c->ending ? "The VM is just ending." : "No plan has been made with this VM yet: ask again.");
		return;
	}
	policy_explain(vm_config(c->vm)->name, &e.host, &e.plan, &e.vm, &e.vm_plan, &words);
	writer_object(&o, NULL);
	writer_str(&o, "vm", vm_config(c->vm)->name);
	writer_u64(&o, "planned_ms", e.planned_ms);
	writer_str(&o, "state", host_state_names[e.plan.next_state]);
	write_decision(&o, e.vm_plan.cause, e.vm_plan.technique, e.vm_plan.reason);
	writer_array(&o, "words");
	for (unsigned i = 0; i < words.n; i++)
		writer_str(&o, NULL, words.sentences[i]);
	writer_end(&o);
	write_host(&o, &e.host, &e.plan);
	write_vm(&o, &e.vm, &e.vm_plan);
	write_actions(&o, &e);
	writer_end(&o);
	out.explanation = writer_take(&o, NULL);
	if (out.explanation)
		call_reply(call, &ops[OP_explain], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.explanation);
}
