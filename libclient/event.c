/* Events wait here until the caller takes them: a callback inside another call would run with our locks held.  Who never takes
 * any loses the oldest. */
#include "libclient/internal.h"

#include <errno.h>
#include <string.h>

#define EVENTS_MAX (sizeof((struct memctl *)0)->events / sizeof((struct memctl *)0)->events[0])

void note_event(struct memctl *m, enum memctl_event_kind kind, uint64_t stalled_ms)
{
	unsigned at;

	pthread_mutex_lock(&m->events_lock);
	/* a target that changes often must not push out what comes once */
	for (unsigned i = 0; kind == MEMCTL_EVENT_BALLOON && i < m->n_events; i++)
		if (m->events[(m->first_event + i) % EVENTS_MAX].kind == kind)
			goto out;
	if (m->n_events == EVENTS_MAX) {
		m->first_event = (m->first_event + 1) % EVENTS_MAX;
		m->n_events--;
	}
	at = (m->first_event + m->n_events++) % EVENTS_MAX;
	m->events[at].kind = kind;
	m->events[at].stalled_ms = stalled_ms;
out:
	pthread_mutex_unlock(&m->events_lock);
}

int memctl_next_event(struct memctl *m, struct memctl_event *ret)
{
	struct memctl_event event = { .struct_size = sizeof event };
	int r = 0;

	if (ret->struct_size < sizeof ret->struct_size)
		return -EINVAL;
	pthread_mutex_lock(&m->events_lock);
	if (m->n_events) {
		event.kind = m->events[m->first_event].kind;
		event.stalled_ms = m->events[m->first_event].stalled_ms;
		m->first_event = (m->first_event + 1) % EVENTS_MAX;
		m->n_events--;
		r = 1;
	}
	pthread_mutex_unlock(&m->events_lock);
	if (!r)
		return 0;
	event.struct_size = ret->struct_size;
	memcpy(ret, &event, ret->struct_size < sizeof event ? ret->struct_size : sizeof event);
	return 1;
}

const char *memctl_event_name(enum memctl_event_kind kind)
{
	switch (kind) {
	case MEMCTL_EVENT_DISCONNECTED:
		return "disconnected";
	case MEMCTL_EVENT_RECONNECTED:
		return "reconnected";
	case MEMCTL_EVENT_LOST:
		return "lost";
	case MEMCTL_EVENT_RELEASED:
		return "released";
	case MEMCTL_EVENT_STALLED:
		return "stalled";
	case MEMCTL_EVENT_SERVED:
		return "served";
	case MEMCTL_EVENT_BALLOON:
		return "balloon";
	}
	return "unknown";
}
