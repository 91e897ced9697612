/* Rolling up: 1 s -> 10 s -> 1 min -> 1 h, each from the level before (schema.h says what comes of it).
 *
 * WHAT IS DUE is written down: the transaction that inserts a row marks the 10 s that it lies in (table rollup), and the one that
 * computes these 10 s takes that mark away and marks the minute, and so on.  What is due is computed when the time has left it.  So
 * each step is one transaction that happens or does not, whenever the process dies; nothing is forgotten while nobody runs, as
 * retain.c deletes no row that something due is made of; and a step that is made again has the same result, for it takes away what
 * was there.
 *
 * GAPS stay gaps: where there is no row nothing is due.
 *
 * THE CLOCK is the wall clock, as people ask by it, and it may step.  Forwards: a gap.  Backwards: times pass again that have rows
 * already.  The later telling wins, as it goes: each new row takes the place of old ones since the row before it (record.c), and
 * what it lies in is due again.  So recording goes on at once, nothing is lost but what is told anew, and what was recorded in a
 * future that had not come stays until that time comes, or until it is old. */
#pragma once

#include "record/database.h"
#include "record/schema.h"

#include <stdint.h>

struct rollup;

/* The database and the numbers are borrowed. */
int rollup_new(struct rollup **ret, struct database *d, const struct record_numbers *n);
void rollup_free(struct rollup *u);

/* A row of this time is inserted by the transaction that is open. */
int rollup_mark(struct rollup *u, uint64_t ts_ms);
/* That transaction was rolled back. */
void rollup_unmark(struct rollup *u);

/* A bounded part of what is due, in one transaction; what `now_ms`, the time of the last rows, lies in is not.
 * 1: there may be more. */
int rollup_run(struct rollup *u, uint64_t now_ms);
