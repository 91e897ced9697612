/* The watchdog: the service manager kills a memctld that hangs, and starts it again, which loses nothing.
 *
 * "WATCHDOG=1" is sent four times in the manager's limit, by the control thread, and only if the reclaim thread has answered
 * since the last time.  These two serve everybody and wait for nobody; a lease's threads may be held by its own client for as
 * long as it likes, and the metrics writer by its disk: they do not count. */
#pragma once

#include "base/problem.h"
#include "reclaim.h"
#include "serve/loop.h"

struct watchdog;

/* *ret is NULL if the manager watches nobody. */
int watchdog_new(struct watchdog **ret, struct loop *l, struct reclaim *r, struct problem *p);
/* NULL is fine. */
void watchdog_free(struct watchdog *w);
