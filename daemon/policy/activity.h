/* How much of its memory a VM uses: samples in, averages out (ESX's %ACTV, %ACTVS, %ACTVF, %ACTVN).
 *
 * Once a period (SamplePeriod) POLICY_SAMPLE_PAGES random pages of the VM are zapped from its page tables; those that are
 * mapped again when we look were touched.  We look POLICY_SAMPLE_LOOKS times a period.  From the touched part of each period:
 *
 *	slow	moving average, a period counts 1/8
 *	fast	moving average, a period counts 1/2
 *	next	the fast one with the unfinished period folded in, as far as we have looked
 *
 * What counts is the maximum: quick up, slow down, because a page that is missed costs more than a page that idles; and at
 * least SampleActivePctMin.  No fault is taken for this.  Before the first look nothing is known, and all counts as active:
 * nobody is taxed without evidence.
 *
 * A client whose library does not answer is estimated: pages that came in by faults, and writes to protected pages, in the
 * period.  That sees no page that is used and stays resident, so who does not answer looks idle and is taxed, until what is
 * taken from it makes it fault.
 *
 * The caller's part, once a second or so, with a clock that it brings:
 *
 *	switch (policy_activity_step(&a, &settings, now)) {
 *	case POLICY_SAMPLE_BEGIN:	choose pages, zap them; then policy_activity_began
 *	case POLICY_SAMPLE_LOOK:	ask which are present; when the answer comes: policy_activity_looked
 *	case POLICY_SAMPLE_MUTE:	the last look of a period was not answered: policy_activity_estimate; a new period follows
 *	case POLICY_SAMPLE_NONE:	nothing
 *	}
 *
 * Pure, except that struct policy_activity is changed; one thread at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define POLICY_SAMPLE_PAGES 100
#define POLICY_SAMPLE_LOOKS 4
/* So long after the end of a period its last look may still be answered. */
#define POLICY_SAMPLE_GRACE_NS (2 * 1000000000ull)

enum policy_sample { POLICY_SAMPLE_NONE, POLICY_SAMPLE_BEGIN, POLICY_SAMPLE_LOOK, POLICY_SAMPLE_MUTE };

struct policy_activity_settings {
	uint64_t period_ns;		/* SamplePeriod; 0: no sampling, all counts as active */
	unsigned min_pct;		/* SampleActivePctMin */
};

/* Zero-initialised when the VM comes. */
struct policy_activity {
	bool running, known, estimated;
	unsigned looks;			/* asked for in this period */
	unsigned sampled, touched;	/* of this period, as far as we have looked */
	uint64_t begun_ns, periods;
	double slow, fast;		/* parts of 1, over whole periods */
};

struct policy_active {
	uint64_t frames;		/* POLICY_ACTIVE_UNKNOWN (plan.h) before the first look */
	bool estimated;
	double active_pct;		/* the maximum, after the floor */
	double slow_pct, fast_pct, next_pct;
};

enum policy_sample policy_activity_step(struct policy_activity *a, const struct policy_activity_settings *s, uint64_t now_ns);
/* `sampled` pages were zapped (at most POLICY_SAMPLE_PAGES; 0: it has no pages). */
void policy_activity_began(struct policy_activity *a, uint64_t now_ns, unsigned sampled);
/* Of these, `touched` are present.  Ends the period if its time is over.  Late answers, of a period that has ended, are
 * the caller's to drop. */
void policy_activity_looked(struct policy_activity *a, const struct policy_activity_settings *s, uint64_t now_ns,
	unsigned touched);
/* Ends the period without an answer: `used` pages were seen in use by faults and writes during it, of `pages`. */
void policy_activity_estimate(struct policy_activity *a, uint64_t used, uint64_t pages);
/* What counts now, of a VM of `pages`. */
void policy_activity_get(const struct policy_activity *a, const struct policy_activity_settings *s, uint64_t pages,
	struct policy_active *ret);
