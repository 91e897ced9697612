/* Reclaim: the thread that turns a shortage into work for the VMs.
 *
 * It sleeps until a charge crosses a threshold of the arena (below 100 % of minFree, then soft, hard, low) or a VM's own
 * limit, until a VM or a setting changes, or for BalancePeriod; takes a view, asks policy/plan for who gives how much and by
 * which technique, carries that out, and looks again until there is enough free:
 *
 *	evict		vm_reclaim: the VMs' lease workers do it; by cause, the own limit first
 *	balloon		the target that a VM's driver is told
 *	block		the VM's guest charges wait (account_set_blocked)
 *	share		reclaim_status.pressed: the scanner makes a pass at once
 *
 * It makes no system call on a lease, so no client can hold it.  Each plan goes into the history (plan_log.h).
 *
 * Threads: all but the thread itself are for the control thread.  reclaim_remove returns only when the reclaim thread
 * will not touch the VM any more (so: before vm_stop or vm_free). */
#pragma once

#include "mem/vm.h"
#include "policy/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct reclaim;
struct record;

struct reclaim_status {
	const char *state;		/* high, clear, soft, hard, low */
	uint64_t min_free_frames;
	uint64_t goal_free_frames;
	bool pressed;			/* less than minFree is free: a sharing pass is made at once */
	uint64_t runs;			/* times it had to act */
};

struct reclaim_settings {
	unsigned min_free_pct;		/* 0 = by the sliding scale */
	unsigned idle_tax_pct, idle_tax_type;
	uint64_t balance_period_ns;
};

int reclaim_new(struct reclaim **ret, struct arena *a, struct problem *p);
/* Ends the thread.  All VMs have been removed. */
void reclaim_free(struct reclaim *r);
/* From now on; a plan is made at once. */
void reclaim_set(struct reclaim *r, const struct reclaim_settings *s);
/* Where plans are recorded; NULL: nowhere, and when it returns the old one is not used any more. */
void reclaim_set_record(struct reclaim *r, struct record *record);
/* The VM's name does not change while it is here. */
int reclaim_add(struct reclaim *r, struct vm *vm);
void reclaim_remove(struct reclaim *r, struct vm *vm);
/* Something that a plan looks at has changed: make one now. */
void reclaim_poke(struct reclaim *r);
/* Has the thread gone on since the last time that this was asked?  Asks it again.  Control thread. */
bool reclaim_answers(struct reclaim *r);
void reclaim_get_status(struct reclaim *r, struct reclaim_status *ret);

/* A VM whose balloon has come to owe memory since it was last told here, or owes none any more: its name, and how much.  false: there
 * is no other. */
bool reclaim_balloon_changed(struct reclaim *r, char ret_vm[64], bool *ret_owes, uint64_t *ret_owed_frames);

#define RECLAIM_ACTIONS 10

/* What was asked of a VM, for as long as cause, technique and reason stay the same. */
struct reclaim_action {
	uint64_t ts_ms;			/* Unix time when it began */
	uint64_t cause, technique, reason;	/* enum policy_* */
	uint64_t asked_frames;		/* the most that was asked for at once */
	uint64_t given_frames;		/* what it gave since it began: evicted, or into its balloon */
	uint64_t repeats;		/* plans that asked for it, after the first */
};

struct reclaim_explanation {
	struct policy_view host;	/* without its VMs */
	struct policy_plan plan;
	struct policy_vm vm;
	struct policy_vm_plan vm_plan;
	struct reclaim_action actions[RECLAIM_ACTIONS];	/* the latest first */
	unsigned n_actions;
	uint64_t planned_ms;		/* Unix time of that plan */
};

/* The last plan, as it looks from this VM.  -ENOENT: there is none with it yet.  Asks for a new plan, so that whoever asks again
 * gets one that is younger than this call. */
int reclaim_explain(struct reclaim *r, struct vm *vm, struct reclaim_explanation *ret);
