/* What is kept, and for how long: by age each level for itself; by bytes the oldest of the finest level first, until it has
 * half the part of its age that the next one has of its own, and so on.  So a file that is somewhat too large costs seconds and
 * loses no years, and one that is much too large has some of each: not minutes only, because they last longer.
 *
 * Age is counted from the time of the last rows.  Deletions are in pieces, one a call: a long transaction would make the log
 * grow.  No row is deleted that something due (rollup.h) is made of.
 *
 * A CLOCK THAT IS AHEAD makes all look old, and what is deleted is gone for good; a host without a clock of its own may start
 * like that until it has asked another one.  So a time more than a day beyond the last one that was believed is itself believed
 * only when that has held for an hour, by a clock that nobody sets; meanwhile nothing goes by age.  A host that really was away
 * for days loses nothing by it: it deletes an hour later.  What was believed before a start is the time of the newest row, or
 * if there are rows of an hour only after a gap of a day, which may be such a time too, that before the gap.
 *
 * The file can become smaller (auto_vacuum), and does when it is above its bound; up to there free pages are used again. */
#pragma once

#include "record/database.h"
#include "record/record.h"

#include <stdint.h>

/* The part of max_bytes that is left to the log: half of it is its bound, the other half what is written before that is seen. */
uint64_t retain_log_bytes(uint64_t max_bytes);

/* A piece of what is older than it may be at `now_ms`, of each level. */
int retain_by_age(struct database *d, const struct record_keep *keep, uint64_t now_ms);
/* A piece of the events and of the names in vm_seen that are too many: anybody who may register VMs makes as many as he likes,
 * and they must not take the place of the history: of max_bytes a 16th each, and 100000 at most.  1: there may be more. */
int retain_by_number(struct database *d, const struct record_keep *keep);
/* A piece of what is too much.  1: there is more. */
int retain_by_bytes(struct database *d, const struct record_keep *keep);

struct retain_clock {
	uint64_t believed_ms;	/* 0: the next one is */
	uint64_t ahead_ns;	/* since when the time is ahead of that; 0: it is not */
};
int retain_clock_begin(struct retain_clock *c, struct database *d);
/* Whether the time of the last rows is believed; `mono_ns`: of the clock that nobody sets. */
bool retain_clock_is_right(struct retain_clock *c, uint64_t now_ms, uint64_t mono_ns);
