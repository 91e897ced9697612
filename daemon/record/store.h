/* The database as its writer has it: opened or begun anew, rows put in, old ones tended.  Of one thread at a time. */
#pragma once

#include "base/histogram.h"
#include "record/record.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum row_kind { ROW_VM, ROW_HOST, ROW_LATENCY, ROW_PLAN, ROW_PLAN_VM, ROW_EVENT, ROW_KINDS };

struct row {
	struct row *next;
	enum row_kind kind;
	uint64_t ts_ms;
	char vm[64];
	char cause[32];			/* or the event's name */
	char *text;			/* of an event, behind the values; else NULL */
	struct histogram_copy *latency;	/* of ROW_LATENCY */
	uint64_t nth;
	size_t n;
	uint64_t values[];
};

struct store;

/* The options are borrowed.  Negative: why is in `why`. */
int store_new(struct store **ret, const struct record_options *options, char *why, size_t why_bytes);
void store_free(struct store *w);
/* What the last failure was, in words. */
const char *store_says(const struct store *w);

/* For a second at most; and a file that was of version 1, and is not large, is brought into the form of a new one, for a minute
 * at most; or until *stop. */
void store_look_over(struct store *w, const atomic_bool *stop);
/* All of them in one transaction.  Where damage shows they go into a new database. */
int store_write(struct store *w, const struct row *rows);
/* Whether the log is at its bound, and a reader that is not ours keeps it from being begun anew: nothing may be written. */
bool store_is_held(struct store *w, const struct record_keep *keep);
/* A bounded part of what is to be done with rows that are there; whether there may be more. */
bool store_tend(struct store *w, const struct record_keep *keep);
