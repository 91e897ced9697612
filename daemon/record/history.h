/* Questions to the history, answered one after the other by a thread of their own: a bounded part at a time, and for a bounded time,
 * so that neither the log of the database nor an answer grows without end; between the parts the writer finds a gap (gap.h). */
#pragma once

#include "record/schema.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_NONE UINT64_MAX	/* no value: the growth of a counter without a row before it */

struct history;

/* A number, as it is asked for. */
struct history_column {
	size_t number;		/* its place among those of a VM, or of the host */
	bool most;		/* g_most instead of g: of gauges only */
};

/* How long the faults of one cause took, in the row's time. */
struct history_latency {
	char cause[32];
	uint64_t count, sum_ns, p50_ns, p99_ns;
};
#define HISTORY_CAUSES 16

struct history_row {
	uint64_t ts_ms;		/* when it begins; of a single sample: when that was taken */
	uint64_t interval_ms;	/* in which the counters have grown; 0: there is no row right before it */
	uint64_t samples;
	const uint64_t *values;	/* of the columns: gauges as they are, counters as their growth or HISTORY_NONE */
	const struct history_latency *latencies;	/* if they were asked for */
	size_t n_latencies;
};

/* A VM of which there is history. */
struct history_vm {
	const char *name;
	uint64_t first_ms, last_ms;
};
#define HISTORY_VMS 1000u

/* Plans of a VM, one after the other, that decided the same. */
struct history_plans {
	uint64_t from_ms, last_ms;	/* of the first and the last of them */
	uint64_t count;
	const uint64_t *values;		/* of the numbers of a VM's plan: of those that are the decision what it is, of others the most */
	const uint64_t *host_values;	/* likewise, of a plan */
};

/* Part of the asker's own object; the history's from history_ask until `done` is called. */
struct history_question {
	struct history_question *next;
	char vm[64];			/* "": the host */
	uint64_t since_ms, until_ms;	/* until is not in it */
	uint64_t step_ms;		/* one of the levels', or 0: the finest that has it all in some 240 rows; then what it was */
	uint64_t rows_max;
	const struct history_column *columns;
	size_t n_columns;
	bool latencies;			/* too: of a VM only */
	/* On the history's thread: a row, in the order of time.  false: no more for now. */
	bool (*row)(struct history_question *q, const struct history_row *row);
	/* Instead of rows, likewise: what is asked for is which VMs there are (in no parts, at most HISTORY_VMS); or the plans of
	 * this VM, of which those are one that have all numbers of these names (NULL behind the last) in common. */
	bool (*seen_vm)(struct history_question *q, const struct history_vm *vm);
	bool (*plans)(struct history_question *q, const struct history_plans *plans);
	const char *const *decides;
	/* On the history's thread, at last; under a lock of the history's, so it asks nothing. */
	void (*done)(struct history_question *q);
	/* The answer. */
	uint64_t next_ms;		/* where to go on; 0: that was all */
	bool seen;			/* there is history of this VM at all */
	int error;			/* 0; -ENOMEM; -EIO with `text` */
	char text[200];
};

/* Opens the database for each question.  -errno. */
int history_new(struct history **ret, const char *path, const struct record_numbers *n);
/* Questions that wait end with -ECANCELED.  NULL is fine. */
void history_free(struct history *h);
/* The same, waited for until then (monotonic).  false: the disk hangs.  The reader keeps itself and all questions, of which no
 * more is heard; the process should end soon. */
bool history_free_by(struct history *h, uint64_t deadline_ns);
/* -EAGAIN: too many wait already; it was not taken. */
int history_ask(struct history *h, struct history_question *q);
