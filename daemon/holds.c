#include "holds.h"

#include "base/clock.h"
#include "base/events.h"
#include "base/process.h"
#include "ops_client.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_NS (2 * NS_PER_S)

static void kill_holder(struct daemon *d, struct client *c, uint64_t since_ns)
{
	unsigned long long s = (now_ns() - since_ns) / NS_PER_S;
	const char *name = vm_config(c->vm)->name;
	/* If it is not known when its process began, another one may have its number: who connects, hands the connection on and ends
	 * would have anybody killed who comes to it. */
	int fd = c->peer.started ? process_open(c->peer.pid, c->peer.started) : -ESRCH;
	int r = fd < 0 ? fd : process_kill(fd);

	if (fd >= 0)
		close(fd);
	c->hold.told = true;
	if (r < 0) {
		event_tell(EVENT_CLIENT_NOT_KILLED, EVENT_OF(.vm = name, .session = c->peer.pid), "VM %s: its client (process %d) has held a "
			"thread of memctld for %llu s (client_hold_limit), and cannot be killed: %s", name, (int)c->peer.pid, s,
			strerror(-r));
		return;
	}
	event_tell(EVENT_CLIENT_KILLED, EVENT_OF(.vm = name, .session = c->peer.pid),
		"VM %s: its client (process %d) has held a thread of memctld for %llu s (client_hold_limit): killed", name,
		(int)c->peer.pid, s);
	tick_count_killed(d->tick);
}

void holds_look(struct daemon *d)
{
	if (!d->config.client_hold_limit)
		return;
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);
		uint64_t since_ns = c->vm ? vm_held_since_ns(c->vm) : 0;

		/* Looks are counted, not time: if we were stopped ourselves, it is not the client that took so long. */
		if (since_ns != c->hold.since_ns) {
			c->hold.since_ns = since_ns;
			c->hold.looks = 0;
			c->hold.told = false;
		} else if (since_ns && !c->hold.told && ++c->hold.looks >= d->config.client_hold_limit) {
			kill_holder(d, c, since_ns);
		}
	}
}

bool holds_none(struct daemon *d)
{
	bool none = true;

	atomic_store(&d->settings.park, true);
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);
		uint64_t since_ns = c->vm ? vm_held_since_ns(c->vm) : 0;

		if (!since_ns)
			continue;
		none = false;
		if (now_ns() - since_ns > PATIENCE_NS && !c->hold.told && d->config.client_hold_limit)
			kill_holder(d, c, since_ns);
	}
	return none;
}
