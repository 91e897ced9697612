/* The events of late, and which of them are told.  Pure: the time comes in, nothing goes out; events.c is the log that
 * memctld has.
 *
 * Kept are the last EVENT_KEPT of levels notice and info, and as many of warnings and errors by themselves, so that the
 * course of things (VMs that come and go) does not push out what went wrong.
 *
 * A hostile client can make events as fast as it can call.  So each pair of event and VM has EVENT_BURST of them at once and
 * one in EVENT_PAUSE_NS after that, and each event EVENT_ALL_BURST and one a second over all VMs, since names are free.  What is
 * beyond that is counted and told later, as one event that says for how many it stands: as soon as the pair may have one
 * (event_log_due), with the words of the last.  Of a flood of new names only the number is told.
 *
 * Sequence numbers ascend by the clock's microseconds from where the log begins, so that those of the next process are
 * higher though it knows nothing of this one. */
#pragma once

#include "base/events.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVENT_KEPT	1024u
#define EVENT_BURST	32u
#define EVENT_PAUSE_NS	(10 * 1000000000ull)
#define EVENT_ALL_BURST 512u
#define EVENT_ALL_NS	1000000000ull
#define EVENT_PAIRS	256u

/* How many may be told now: one more each so many ns, up to a burst. */
struct event_credit {
	uint64_t left, since_ns;
};

/* An event of a VM; "" is the host. */
struct event_pair {
	bool used;
	enum event_id id;
	struct event_of of;
	struct event_credit credit;
	uint64_t seen_ns;
	uint64_t waiting;		/* not told yet; the rest is of the last of them */
	uint64_t first_ms, last_ms;
	char text[EVENT_TEXT_MAX];
};

struct event_ring {
	size_t first, n;
	struct event event[EVENT_KEPT];
};

/* Zero-initialised, then event_log_begin. */
struct event_log {
	bool tell_all;			/* the twin: nothing is counted instead */
	bool older;			/* event_log_older was called */
	uint64_t began;			/* all of ours come after this number, */
	uint64_t seq;			/* and this is the last */
	uint64_t told[EVENT_LEVELS];	/* ever, by level */
	struct event_credit all[EVENT_IDS];
	struct event_pair pairs[EVENT_PAIRS];
	struct event_pair others[EVENT_IDS];	/* of all VMs for which there was no credit, or no pair */
	struct event_ring calm, serious;
};

void event_log_begin(struct event_log *l, uint64_t now_ms);
/* Something happened.  true: it is kept, and to be told as *ret. */
bool event_log_add(struct event_log *l, uint64_t now_ns, uint64_t now_ms, enum event_id id, const struct event_of *of,
	const char *text, struct event *ret);
/* What was counted and may be told now: call it until it says false. */
bool event_log_due(struct event_log *l, uint64_t now_ns, struct event *ret);
/* An event of a process before this one, each older than the one before.  false: there is no room for any older one. */
bool event_log_older(struct event_log *l, const struct event *e);
/* The first event after sequence number `after` that passes; NULL: none. */
const struct event *event_log_next(const struct event_log *l, uint64_t after, const struct event_filter *f);
