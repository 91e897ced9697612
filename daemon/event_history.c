#include "event_history.h"

#include "base/events.h"
#include "record/record.h"

#include <stdio.h>

/* So many rows are looked at for those that there is room for: a flood of one kind must not make the start slow. */
#define ROWS_MAX 8192u

static void keep(void *userdata, const struct event *e)
{
	record_event(userdata, &(struct record_event){
		.ts_ms = e->ts_ms, .seq = e->seq, .event = e->name, .vm = e->of.vm, .text = e->text, .level = e->level,
		.lease = e->of.lease, .session = (uint64_t)e->of.session, .count = e->count, .since_ms = e->since_ms,
	});
}

static bool older(void *userdata, const struct record_event *row)
{
	unsigned *rows = userdata;
	struct event e = { .seq = row->seq, .ts_ms = row->ts_ms, .since_ms = row->since_ms, .count = row->count,
		.level = (enum log_level)row->level, .of = { .lease = row->lease, .session = (int)row->session } };

	/* whoever wrote it, it is not for us to trip over */
	if (row->level < LOG_LEVEL_ERROR || row->level > LOG_LEVEL_INFO || row->seq > INT64_MAX / 2)
		return ++*rows < ROWS_MAX;
	snprintf(e.name, sizeof e.name, "%s", row->event);
	snprintf(e.of.vm, sizeof e.of.vm, "%s", row->vm);
	snprintf(e.text, sizeof e.text, "%s", row->text);
	return events_older(&e) && ++*rows < ROWS_MAX;
}

void event_history_begin(struct record *r)
{
	unsigned rows = 0;

	record_last_events(r, older, &rows);
	events_set_keeper(keep, r);
}

void event_history_end(void)
{
	events_set_keeper(NULL, NULL);
}
