/* Doctor: what is wrong with the set-up of this host, as memctld sees it. */
#pragma once

struct daemon;

/* memctld ends: nobody waits any more for a look that is under way. */
void doctor_abandon(struct daemon *d);
