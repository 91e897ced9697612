/* The history of the numbers: one wide row a VM and second, and one for the host; and what was planned, from what; in SQLite.
 *
 * Nobody waits for it.  Rows are put into a bounded queue and written by a thread of its own, all that wait in
 * one transaction; when the queue is full the row is dropped and counted.  A failed write (disk full) costs the
 * rows of that transaction, is counted and told once, and the next is tried.  WAL with synchronous=NORMAL: a crash of
 * the process loses nothing that was committed, a power failure the last commits, neither the file.
 *
 * A database that is damaged, newer than this program, or no database of ours is kept aside under another name and
 * a new one begun: history is worth less than a daemon that starts.
 *
 * What the columns are is the caller's business: this folder knows no memory, only names and numbers. */
#pragma once

#include "base/problem.h"

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

struct record_options {
	const char *path;
	const struct record_number *vm_numbers;
	size_t n_vm_numbers;
	const struct record_number *host_numbers;
	size_t n_host_numbers;
	const struct record_number *plan_numbers;	/* of a plan, and of each VM in it */
	size_t n_plan_numbers;
	const struct record_number *plan_vm_numbers;
	size_t n_plan_vm_numbers;
	uint64_t keep_seconds;	/* rows older than this are deleted now and then; 0: never */
	uint64_t keep_plan_seconds;	/* likewise, of plans */
	size_t queue_max;	/* rows; 0: 16384 */
};

struct record_counts {
	uint64_t written, dropped, failed;	/* rows: in the database, queue full, write error */
};

struct record;

/* The options are copied; the strings they point at must live as long as the record.  Opens or creates the file at
 * once, so that a wrong path is told at start. */
int record_open(struct record **ret, const struct record_options *options, struct problem *p);
/* Writes what waits, ends the thread.  NULL is fine. */
void record_close(struct record *r);

/* Any thread; never block, never fail.  `values` are in the order of the numbers.  `ts_ms`: Unix time. */
void record_vm(struct record *r, uint64_t ts_ms, const char *vm, const uint64_t *values);
void record_host(struct record *r, uint64_t ts_ms, const uint64_t *values);
/* `count` faults of this cause in the period that ended at ts_ms, and how long they took. */
void record_fault_latency(struct record *r, uint64_t ts_ms, const char *vm, const char *cause, uint64_t p50_ns,
	uint64_t p99_ns, uint64_t count);

/* A plan, with its VMs in the order in which it looked at them: kept or dropped as a whole, and dropped before other rows are.
 * `ts_ms` names it: no two plans have the same. */
struct record_plan_vm {
	const char *vm;
	const uint64_t *values;
};
void record_plan(struct record *r, uint64_t ts_ms, const uint64_t *values, const struct record_plan_vm *vms, size_t n);

void record_counts(struct record *r, struct record_counts *ret);
