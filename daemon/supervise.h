/* memctld --supervise: a small parent that keeps memctld's descriptors and starts it again, where no systemd does.
 *
 * It speaks the protocol of sd_notify(3) with its child (notify.h is the other side): READY, STATUS, STOPPING, WATCHDOG,
 * FDSTORE, FDSTOREREMOVE, BARRIER.  How and when it starts memctld again is at the top of supervise.c. */
#pragma once

#include "notify.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What memctld ends with to be started again at once, from its program file, which may be a newer one (EX_TEMPFAIL). */
#define SUPERVISE_AGAIN 75

struct supervise_options {
	char **argv;			/* of memctld, without ours; argv[0] is replaced by the path of the program */
	unsigned watchdog_s;		/* 0: off */
	int ready_fd;			/* gets a line when memctld is ready for the first time, and is closed; -1: none */
};

/* Until memctld has ended for good.  The exit status to end with: memctld's own, or 128 + the signal that it died of. */
int supervise_run(const struct supervise_options *o);

/* One datagram, decoded.  Pointers are into its text. */
struct notification {
	bool ready, stopping, alive, hung, barrier, keep, drop;
	const char *status;		/* NULL: none */
	const char *name;		/* of what is kept or dropped; NULL: none was given, or none that we would keep */
};
/* `text` has `bytes` bytes and room for a NUL after them; it is cut into lines.  What is not understood is left out. */
void notification_parse(struct notification *ret, char *text, size_t bytes);
