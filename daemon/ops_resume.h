/* After a restart: VMs that were kept go on at once, and their clients come back (libclient connects again).
 *
 *	found > served: guests go on > Resume > ResumeLease ... > Attend > the client is asked what only it knows
 *	      \ its process is gone, or it stays away for longer than reconnect_grace > released
 *
 * Control thread. */
#pragma once

#include "ops_client.h"

#include <stdbool.h>

/* At start, with the kept descriptors found: pools, VMs and clients as they were; faults are served when this returns.  An error is
 * of the host: everything must stay kept. */
int resume_found(struct daemon *d, struct problem *p);
/* Whether a Lease must wait for leases that the client has given up without our having heard of it; it is made then. */
bool resume_holds_lease(struct client *c, struct call *call, uint64_t gpa, uint64_t size);
/* A connection of an awaited client closed: whether it is awaited again. */
bool resume_again(struct client *c);
/* Its client attends to orders: it is back. */
void resume_end(struct client *c);
/* Once a second: who has stayed away for too long. */
void resume_tick(struct daemon *d);
/* The VM of this name is awaited by the process that calls, and has nothing: its first Register got no reply, so that nobody knows its
 * token.  It ends, and the caller may register anew in a moment. */
void resume_replace(struct client *c, const struct session_peer *peer);
/* The client goes. */
void resume_forget(struct client *c);
