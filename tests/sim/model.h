/* A host with guests, in numbers of pages: what the policy decides is done to them, and what that does to their work is
 * what it looks at next.  The policy is the real one, built so that single rules can be turned off (policy/rules.h).
 *
 * A guest has *hot* pages, which its work touches at random, *cold* ones, which it has filled and does not touch, *freed* ones,
 * which it filled and does not need, and the rest, never touched.  Each of these is in a frame or out (compressed, while its
 * cache has room, or in the swap file).  Its work waits for each hot page that is out.  Reclaim evicts what is not hot first,
 * but takes one for another now and then; a guest knows.  A balloon driver gives what is freed or never touched, then drops cold pages, then hot ones, which the guest then has to
 * page itself (PAGED).
 *
 * Every step asserts what must always hold: frames add up, nothing is taken from, or ballooned in, a VM so that less than its
 * reservation is left. */
#pragma once

#include "policy/activity.h"
#include "policy/balloon.h"
#include "policy/plan.h"
#include "policy/rules.h"

#include <stdbool.h>

#define MIB	  256.0		/* pages */
#define STEP_S	  0.1
#define VMS_MOST  8
#define STEPS_MOST 20000

enum guest_kind {
	GUEST_IDEAL,		/* gives what is asked, as fast as it can */
	GUEST_LIMITED,		/* gives at most balloon_most */
	GUEST_STUCK,		/* has a driver that gives nothing */
	GUEST_FLAPPING,		/* gives it, and takes it back three seconds later, again and again */
	GUEST_LYING,		/* gives only what it never touched, and its library says that every page is in use */
	GUEST_SILENT,		/* no driver, and its library does not answer */
	GUEST_BARE,		/* no driver */
};

struct guest {
	/* given by the scenario, and changed by it as time goes on */
	const char *name;
	enum guest_kind kind;
	double size, reservation, limit, shares, stall_budget_permille;	/* limit 0: none */
	double hot, used;		/* pages that its work touches; pages it has filled (hot ones included) */
	double grows;			/* pages a second at most that it fills anew */
	double balloon_most;
	double inflates;		/* pages a second */
	double evicts;			/* pages a second that its worker manages; 0: its disk fails, or it is held */
	double cache_most;		/* pages of arena for its compression cache */
	double zeroes;			/* pages a second that the sharing scan finds freed and zero, and drops */

	/* what it has */
	double hot_in, hot_out, cold_in, cold_out, freed_in, freed_out, zipped, balloon;
	double target;			/* of the balloon, as it has been told */
	bool blocked;
	struct policy_activity activity;
	struct policy_balloon liveness;
	double stalled;			/* part of its time, moving average over some seconds */
	double gave_nothing_s;

	/* sums */
	double done;			/* accesses */
	double written, read;		/* pages to and from the swap file */
	double stall_s, blocked_s, starved_s;	/* starved: nothing free at all */
	double done_now;		/* in this step */
};

struct sample {
	double t, free;
	unsigned state;
	struct {
		double charged, active, balloon, out, done, target;
	} vm[VMS_MOST];
};

struct host {
	double capacity, sample_period_s, balance_s, idle_tax_pct;
	unsigned idle_tax_type;
	unsigned n;
	struct guest guests[VMS_MOST];

	double t, free, planned_s;
	struct policy_view view;
	struct policy_vm vms[VMS_MOST];
	struct policy_plan plan;
	struct policy_vm_plan plans[VMS_MOST];
	unsigned state_changes, reclaims, worst_state;
	double low_s;

	const char *broken;		/* what must always hold and did not: the first */
	double broken_s;
	unsigned n_samples;
	struct sample samples[STEPS_MOST / 10 + 1];
};

/* Defaults: IdleTax 75 progressive, SamplePeriod 10 s, BalancePeriod 15 s. */
void host_begin(struct host *h, double capacity);
/* Its other members are the caller's to fill before the first step. */
struct guest *host_add(struct host *h, const char *name, enum guest_kind kind, double size, double shares);
/* The guest has run for long before the scenario: all `used` pages are filled and in frames. */
void guest_settle(struct host *h, struct guest *g);
void host_run(struct host *h, double seconds);
double guest_charged(const struct guest *g);
/* Accesses a second since the last call. */
double guest_speed(struct guest *g, double *before, double seconds);
