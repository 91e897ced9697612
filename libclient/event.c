/* Events wait here until the caller takes them: a callback inside another call would run with our locks held. */
#include "libclient/internal.h"

#include <errno.h>
#include <string.h>

enum { CONNECTED, EVENT_WAITS, EVENT_TAKEN };

void note_disconnected(struct memctl *m)
{
	int connected = CONNECTED;

	atomic_compare_exchange_strong(&m->disconnected, &connected, EVENT_WAITS);
}

int memctl_next_event(struct memctl *m, struct memctl_event *ret)
{
	struct memctl_event event = { .struct_size = sizeof event, .kind = MEMCTL_EVENT_DISCONNECTED };
	int waits = EVENT_WAITS;

	if (ret->struct_size < sizeof ret->struct_size)
		return -EINVAL;
	if (!atomic_compare_exchange_strong(&m->disconnected, &waits, EVENT_TAKEN))
		return 0;
	event.struct_size = ret->struct_size;
	memcpy(ret, &event, ret->struct_size < sizeof event ? ret->struct_size : sizeof event);
	return 1;
}
