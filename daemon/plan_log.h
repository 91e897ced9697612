/* Plans in the history: each row has all that a plan looked at and all that it said, enough to make it again by the pure
 * functions (tests/system/replay.c does).
 *
 * While the *decision* stays the same (host state, who is asked, why and by which technique) there is a row a second; a new
 * decision has one at once, as long as there are no more than PLAN_LOG_RATE a second for long.  The column `plans` says how many
 * plans a row stands for: itself, and those since the row before it that have none.
 *
 * Threads: whoever plans, one at a time. */
#pragma once

#include "policy/plan.h"
#include "record/record.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#define PLAN_LOG_RATE  10u	/* rows a second */
#define PLAN_LOG_BURST 50u	/* rows that may be made up for */

extern const struct record_number plan_log_numbers[], plan_log_vm_numbers[];
extern const size_t plan_log_number_count, plan_log_vm_number_count;

/* Zero-initialised. */
struct plan_log {
	struct record *record;		/* NULL: no history.  The owner's. */
	uint64_t decision;		/* of the last plan, as a hash */
	uint64_t plans;			/* without a row */
	uint64_t row_ns;		/* when the last one was made */
	uint64_t row_ms;		/* and its name */
	uint64_t credit_milli;		/* rows x 1000 that may be made at once, */
	uint64_t credit_ns;		/* as of then */
	struct record_plan_vm *vms;
	uint64_t *values;
	size_t room;
};
void plan_log_fini(struct plan_log *g);
/* A plan was made.  `names`: of the VMs, in the order of the view.  Never blocks; without memory the row is left out. */
void plan_log_add(struct plan_log *g, uint64_t now_ns, uint64_t now_ms, const struct policy_view *view,
	const struct policy_plan *plan, const struct policy_vm_plan *vms, const char *const *names);
/* No plan will come for a while: what has no row yet is given one (the arguments are those of the last plan_log_add).  true: not
 * yet, there were too many rows; the next plan should come within a second. */
bool plan_log_rest(struct plan_log *g, uint64_t now_ns, uint64_t now_ms, const struct policy_view *view,
	const struct policy_plan *plan, const struct policy_vm_plan *vms, const char *const *names);
