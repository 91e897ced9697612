/* Events: all that memctld says, with an id that stays (events.def), a sentence, and what it is about.
 *
 *	event_tell(EVENT_VM_LOST, EVENT_OF(.vm = name), "%s: that VM is lost", why);
 *
 * It goes to the log (stderr), as one line with the id and its fields at the end,
 *
 *	memctld: error: VM web: that VM is lost [vm-lost vm=web]
 *
 * and, in memctld, into a ring that `memctl events` shows, and to whoever keeps them (the history).  What comes too fast is counted
 * instead (event_log.h).
 *
 * Any thread but those of the fault path, which count: whoever reads the counters tells.  Its lock is a leaf but for the lock of
 * the history's queue. */
#pragma once

#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum event_id {
#define EVENT(id, name, level, meaning, advice) EVENT_##id,
#include "base/events.def"
#undef EVENT
	EVENT_IDS
};

struct event_kind {
	const char *name;
	enum log_level level;
	const char *meaning, *advice;
};
extern const struct event_kind event_kinds[EVENT_IDS];
#define EVENT_LEVELS (LOG_LEVEL_INFO + 1)
extern const char *const event_level_names[EVENT_LEVELS];	/* NULL where there is none */
/* -EINVAL: "error", "warning", "notice" and "info" are levels. */
int event_level(const char *name, enum log_level *ret);

#define EVENT_TEXT_MAX 320
#define EVENT_NAME_MAX 32

/* What an event is about. */
struct event_of {
	char vm[64];		/* ""; a group's events have none */
	uint64_t lease;		/* 0: none */
	int session;		/* the process at the other end; 0: none */
};
/* NULL instead: the host. */
#define EVENT_OF(...) (&(const struct event_words){ __VA_ARGS__ })
struct event_words {
	const char *vm;
	uint64_t lease;
	int session;
};

struct event {
	uint64_t seq;
	uint64_t ts_ms;		/* Unix time; of the last, if it stands for several */
	uint64_t since_ms;	/* of the first */
	uint64_t count;		/* for how many it stands */
	enum log_level level;
	char name[EVENT_NAME_MAX];
	struct event_of of;
	char text[EVENT_TEXT_MAX];
};

void event_tell(enum event_id id, const struct event_words *of, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* From here on events are kept, and what comes too fast is counted: memctld itself, before its threads.  -ENOMEM. */
int events_begin(void);
/* The twin of that rule: everything is told. */
void events_tell_all(void);
/* Now and then: what was counted is told when it may be. */
void events_tick(void);

/* Whoever keeps events hears of those so far and all that come; called under the lock of events, so it must neither wait nor tell any.
 * NULL: nobody, and when it returns the one before is not called any more. */
void events_set_keeper(void (*keep)(void *userdata, const struct event *e), void *userdata);
/* Those of a process before this one, latest first; false: no more are wanted.  Before anybody can ask for events. */
bool events_older(const struct event *e);

struct event_filter {
	enum log_level level;	/* this, or worse; 0: all */
	const char *vm;		/* NULL or "": all */
	uint64_t since_ms;	/* not older; 0: all */
};
/* The first one after `after` that passes; false: none.  *ret_last is the number of the last event that there is, whether it
 * passes or not. */
bool events_next(uint64_t after, const struct event_filter *f, struct event *ret, uint64_t *ret_last);
/* How many were told since the start, of this level. */
uint64_t events_told(enum log_level level);
