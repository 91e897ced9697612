/* The history of the numbers: one wide row a VM and second, and one for the host; how long faults took; and what was planned,
 * from what; in SQLite, rolled up as it ages (schema.h has the tables, rollup.h the arithmetic, history.h the questions).
 *
 * Nobody waits for it.  Rows are put into a bounded queue and written by a thread of its own, all that wait in one transaction;
 * when the queue is full the row is dropped and counted.  A failed write (disk full) costs the rows of that transaction, is
 * counted and told once, and the next is tried.  WAL with synchronous=NORMAL: a crash of the process loses nothing that was
 * committed, a power failure the last commits, neither the file.
 *
 * Who reads the file never holds the writer up.  But the log cannot be begun anew while somebody reads from it.  Our own reader
 * leaves gaps for that (gap.h); when another program keeps it for so long that it has grown to its bound, rows are lost and
 * counted until that lets go.
 *
 * A database that is damaged or newer than this program is kept aside under another name (PATH.damaged-TIME, PATH.newer-vN) and a new
 * one begun: history is worth less than a daemon that starts.  What never was a database of ours is left alone, and opening fails.
 *
 * Time is that of the rows, also for what is old; it may step, also backwards (rollup.h).
 *
 * What the columns are is the caller's business: this folder knows no memory, only names and numbers. */
#pragma once

#include "base/histogram.h"
#include "base/problem.h"
#include "record/schema.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How much is kept; what is older, or too much, is deleted (retain.h). */
struct record_keep {
	uint64_t seconds[LEVELS];	/* of each level; 0: for ever */
	uint64_t plan_seconds;		/* of plans; 0: for ever */
	uint64_t event_seconds;		/* of events; 0: for ever */
	uint64_t max_bytes;		/* the file and its log; 0: no bound but that of the log */
};

struct record_options {
	const char *path;
	struct record_numbers numbers;
	struct record_keep keep;
	size_t queue_max;	/* rows; 0: 16384 */
	bool twin_wal;		/* tests only: the log has no bound */
};

struct record_counts {
	uint64_t written, dropped, failed;	/* rows: in the database, queue full, write error or log at its bound */
};

struct record;

/* The options are copied; the strings they point at must live as long as the record.  Opens or creates the file at
 * once, so that a wrong path is told at start. */
int record_open(struct record **ret, const struct record_options *options, struct problem *p);
/* Writes what waits, ends the thread.  NULL is fine. */
void record_close(struct record *r);
/* The same, waited for until then (monotonic).  false: the disk hangs.  The writer keeps it all and may go on; the process
 * should end soon, and rows that wait are lost. */
bool record_close_by(struct record *r, uint64_t deadline_ns);

/* Any thread; never block, never fail.  `values` are in the order of the numbers.  `ts_ms`: Unix time; rows of one look at the host
 * have the same, and come one after the other. */
void record_vm(struct record *r, uint64_t ts_ms, const char *vm, const uint64_t *values);
void record_host(struct record *r, uint64_t ts_ms, const uint64_t *values);
/* How long the faults of this cause took in the period that ended at ts_ms. */
void record_fault_latency(struct record *r, uint64_t ts_ms, const char *vm, const char *cause, const struct histogram_copy *h);

/* A plan, with its VMs in the order in which it looked at them: kept or dropped as a whole, and dropped before other rows are.
 * `ts_ms` names it: no two plans have the same. */
struct record_plan_vm {
	const char *vm;
	const uint64_t *values;
};
void record_plan(struct record *r, uint64_t ts_ms, const uint64_t *values, const struct record_plan_vm *vms, size_t n);

/* What was told: ts_ms and seq name it. */
struct record_event {
	uint64_t ts_ms, seq;
	const char *event, *vm, *text;
	uint64_t level;
	uint64_t lease, session;	/* 0: none */
	uint64_t count, since_ms;	/* for how many it stands, and when the first of them was */
};
void record_event(struct record *r, const struct record_event *e);
/* The last events of the database, latest first, until `one` says false: reads it at once, so not while anybody is served.  What
 * cannot be read is left out. */
void record_last_events(struct record *r, bool (*one)(void *userdata, const struct record_event *e), void *userdata);

/* From now on. */
void record_set_keep(struct record *r, const struct record_keep *keep);
void record_counts(struct record *r, struct record_counts *ret);
