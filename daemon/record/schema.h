/* The tables (application_id "mctl", user_version 2), all STRICT and WITHOUT ROWID, keyed by time first: rows come in
 * that order, so inserts append to the tree, and what is too old is one range at its front.
 *
 *	vm		ts, vm, one column a number: as it was
 *	host		ts, one column a number
 *	fault_latency	ts, vm, cause, p50_ns, p99_ns, count, sum_ns, histogram: of the faults since the row before; histogram is JSON,
 *			{"longest ns of a bucket": faults}
 *
 * and each again as vm_10s, vm_1m, vm_1h, ...: what the rows of the level before come to.  ts is where the 10 s, the minute, the hour
 * begins (of Unix time); before the numbers stand
 *
 *	last_ts		when the last sample in it was taken: the counters are of then
 *	samples		how many there are
 *
 * A gauge g has two columns: g, its average over the samples (rounded), and g_most, the most of them.  The most and not the least,
 * because that is how bad it was: of all levels but what is free, and what is free is what is not charged.  A counter is its last
 * value, so a rate is the difference of two rows, and no row that is missing makes it wrong.  Latencies are added by their
 * histograms, so p50 and p99 are those of all faults of that time: percentiles themselves cannot be averaged.
 *
 *	plan		ts, one column a number
 *	plan_vm		ts, nth (its place in the plan of that ts), vm, one column a number
 *	event		ts, nth (its sequence number), vm, event, text, level, lease, session, count, since
 *	rollup		step_ms, ts: what has still to be rolled up (rollup.h)
 *	vm_seen		vm, first_ts, last_ts: VMs of which there is history
 *	catalogue	number, source (the table), kind, unit, sentence
 *
 * A number that a database lacks becomes a column of it; one that we no longer have stays, at its default 0.  So
 * only a change of meaning needs a new user_version.  Version 1 had no roll-ups: it is taken over. */
#pragma once

#include "record/database.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number: a column of the table, a row of the catalogue. */
struct record_number {
	const char *name;	/* [a-z0-9_]+ */
	const char *kind;	/* "gauge": a level now; "counter": only grows */
	const char *unit;
	const char *sentence;
};

struct record_numbers {
	const struct record_number *vm;
	size_t n_vm;
	const struct record_number *host;
	size_t n_host;
	const struct record_number *plan;	/* of a plan, and of each VM in it */
	size_t n_plan;
	const struct record_number *plan_vm;
	size_t n_plan_vm;
};

bool number_is_counter(const struct record_number *n);

#define LEVELS 4
struct level {
	uint64_t step_ms;
	const char *suffix;	/* of its tables */
};
extern const struct level levels[LEVELS];

#define SCHEMA_VERSION 2

/* A transaction that writes nothing to a file that is as it should be, and reads little of any.
 * 0: *ret_version is what it was before, 0 if it is new; 1: newer than this program, *ret_version says how new; 2: no database of
 * ours. */
int schema_open(struct database *d, const struct record_numbers *n, int64_t *ret_version);
/* So that the file can become smaller: databases of version 1 are written anew for it, which takes its time.  One that is not
 * below `most_bytes`, or without room for that, goes on as it is: what it has is used again, and it stays as large as it was. */
int schema_let_shrink(struct database *d, uint64_t most_bytes);
