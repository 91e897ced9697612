#include "balloons.h"

#include "base/clock.h"
#include "daemon.h"
#include "ops_client.h"

#include <errno.h>
#include <stdlib.h>

#define PERIOD_NS (100 * NS_PER_MS)

struct balloons {
	struct daemon *daemon;
	struct loop_timer *timer;
};

static void tell(struct client *c)
{
	struct client_balloon *k = &c->balloon;
	struct vm_balloon now;
	uint64_t frames;

	vm_get_balloon(c->vm, &now);
	if (!now.planned)
		return;
	frames = vm_balloon_told(c->vm, false);
	if (k->told && frames == k->told_frames)
		return;
	if (orders_balloon(c->orders, frames) < 0)
		return;
	k->told = true;
	k->told_frames = frames;
}

static void fire(void *userdata)
{
	struct balloons *b = userdata;

	list_foreach(l, &b->daemon->clients) {
		struct client *c = container_of(l, struct client, link);

		if (c->balloon.started && c->attending && !c->ending && !c->awaited)
			tell(c);
		else
			c->balloon.told = false;
	}
}

int balloons_new(struct balloons **ret, struct daemon *d)
{
	struct balloons *b = calloc(1, sizeof *b);
	int r;

	if (!b)
		return -ENOMEM;
	b->daemon = d;
	r = loop_timer_new(d->loop, PERIOD_NS, fire, b, &b->timer);
	if (r < 0) {
		free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void balloons_free(struct balloons *b)
{
	if (!b)
		return;
	loop_timer_free(b->timer);
	free(b);
}
