/* Ways to end: a VM that leaves with its memory, memctld as a whole, only this run of it. */
#pragma once

#include "daemon.h"

/* SIGTERM: as Stop.  While VMs stay because there is no memory for them it goes on trying; a second signal, a second or more later,
 * leaves them behind. */
void stop_by_signal(struct daemon *d);
/* Once a second: a stop that waits tries again. */
void stop_tick(struct daemon *d);
/* A client has gone: whoever waits for that. */
void stop_client_gone(struct daemon *d);
