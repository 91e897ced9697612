/* Clients that hold a thread of ours.
 *
 * A lease's worker makes system calls that take locks of its client's address space and memfd, and a client can hold these for
 * as long as it likes (by a write to the memfd out of a page that is never filled, say).  Meanwhile nothing of it can be
 * reclaimed or released.  So there is a limit (setting client_hold_limit), and then the client is killed: never the daemon, and
 * nobody else waits. */
#pragma once

#include "daemon.h"

#include <stdbool.h>

/* Once a second. */
void holds_look(struct daemon *d);

/* Before a restart: a process does not end while the kernel holds one of its threads, and everybody would wait for that client.
 * No thread goes there any more.  True if none is there; who holds one for some seconds is killed.  Ask again. */
bool holds_none(struct daemon *d);
