/* The service manager: systemd, or memctld --supervise (supervise.h), by the protocol of sd_notify(3) and
 * sd_listen_fds(3), without a library.
 *
 * It is told how we are, it keeps copies of our descriptors while we are dead, and hands them to the next of us.
 * What is sent before death counts: both managers read what is left in the socket before they start the next.
 *
 * All of these may be called by any thread, but notify_inherited, which changes the environment: it comes first. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define NOTIFY_NAME_BYTES  32
#define NOTIFY_KEEP_MAX	   16384		/* as FileDescriptorStoreMax= of the unit */
#define NOTIFY_NAMES_MAX   (127 << 10)		/* bytes of all names, each with a byte between */

/* "READY=1\nSTATUS=..."; without a manager: nothing.  Waits at most a second for a manager that does not read; a failure
 * is logged. */
void notify_send(const char *state);

/* Is there a manager that keeps descriptors for us?  systemd before 254 does not say: there a NOTIFY_SOCKET is a yes,
 * and the unit must have FileDescriptorStoreMax=. */
bool notify_keeps(void);

/* Let the manager keep a copy of `fd`, until notify_drop of the name, even if it polls as broken (as a userfaultfd that
 * blocks does).  `name`: [a-z0-9.], less than NOTIFY_NAME_BYTES, and no other descriptor has it.  Short: all names are one
 * string of our successor's environment, and if they were longer than 128 KiB it could not be started at all.
 * 0: sent.  -ENOTCONN: no manager; -ENOSPC: no more descriptors or names; -EAGAIN: it did not read for a second; or
 * another errno. */
int notify_keep(const char *name, int fd);
/* Of what was kept.  A failure is logged: the copy keeps its memory until we are stopped. */
void notify_drop(const char *name);

struct inherited {
	int fd;				/* close-on-exec; its owner is whoever has the array */
	char name[NOTIFY_NAME_BYTES];	/* "" if it was none of ours */
};
/* The descriptors that were kept; they count as kept still.  Removes the variables that say so from the environment.  *ret is malloc'ed.  0 (and *ret_n is
 * 0 if there are none) or -ENOMEM. */
int notify_inherited(struct inherited **ret, unsigned *ret_n);

/* The manager kills us if "WATCHDOG=1" did not come for so long; 0: it does not. */
uint64_t notify_watchdog_ns(void);
