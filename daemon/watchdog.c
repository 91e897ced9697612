#include "watchdog.h"

#include "base/events.h"
#include "mem/inject.h"
#include "notify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct watchdog {
	struct reclaim *reclaim;
	struct loop_timer *timer;
	bool told;			/* that reclaim does not answer */
};

static void look(void *userdata)
{
	struct watchdog *w = userdata;

	inject_hang(inject.hang_control_ns);
	if (reclaim_answers(w->reclaim)) {
		w->told = false;
		notify_send("WATCHDOG=1");
	} else if (!w->told) {
		w->told = true;
		event_tell(EVENT_WATCHDOG, NULL, "the reclaim thread does not answer: the service manager will kill this process");
	}
}

int watchdog_new(struct watchdog **ret, struct loop *l, struct reclaim *r, struct problem *p)
{
	uint64_t limit_ns = notify_watchdog_ns();
	struct watchdog *w;
	int err;

	*ret = NULL;
	if (limit_ns == 0)
		return 0;
	w = calloc(1, sizeof *w);
	if (!w)
		return problem_errno(p, "watchdog");
	w->reclaim = r;
	err = loop_timer_new(l, limit_ns / 4, look, w, &w->timer);
	if (err < 0) {
		free(w);
		return problem_set(p, -err, PROBLEM_SYSTEM, 0, 0, "cannot start the watchdog: %s", strerror(-err));
	}
	*ret = w;
	return 0;
}

void watchdog_free(struct watchdog *w)
{
	if (!w)
		return;
	loop_timer_free(w->timer);
	free(w);
}
