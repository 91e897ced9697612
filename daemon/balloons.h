/* Balloons: what the daemon knows of a VM's balloon driver, and the clock that tells it its target.
 *
 * A target is set by whoever plans (vm_set_balloon_target, any thread).  Ten times a second each guest's own driver is told by the order
 * "balloon", if its target has changed by a page since it was told last, and if its client reads its orders: one that
 * does not is told the newest one later.  An agent outside asks for itself (BalloonAgent).  Until somebody plans nothing is told, so
 * that a driver keeps what it has after a restart.
 *
 * Control thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct balloons;
struct daemon;

/* Part of a client. */
struct client_balloon {
	bool started;			/* BalloonStart came; kept over a restart */
	bool told;			/* told_frames is what its stream of orders said last */
	uint64_t told_frames;
	uint64_t heard_until_ns;	/* an agent's word holds so long; 0: there is none */
	char *claims;			/* what the guest says of itself, JSON; NULL: nothing */
	uint64_t claimed_bytes;		/* of it: what the guest uses; 0: unknown */
};

int balloons_new(struct balloons **ret, struct daemon *d);
void balloons_free(struct balloons *b);
