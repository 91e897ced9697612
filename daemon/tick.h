/* Once a second: look at every VM, hold each to what it is charged, and record the numbers.
 *
 * Reclaim does not wait for the tick (reclaim.h); the tick only finds what no event tells: a client that filled
 * its memfd behind our back.  Called by the control thread; never blocks. */
#pragma once

#include "catalogue.h"
#include "groups.h"
#include "mem/vm.h"
#include "reclaim.h"

struct tick;
struct record;

/* Whoever has the list of VMs calls `one` for each that has been created and not yet stopped. */
struct tick_vms {
	void (*each)(void *userdata, void (*one)(void *arg, struct vm *vm), void *arg);
	void *userdata;
};

/* `record` may be NULL: no history.  Everything passed is borrowed and outlives the tick. */
int tick_new(struct tick **ret, struct arena *a, struct reclaim *reclaim, struct groups *groups, struct record *record,
	const struct tick_vms *vms);
void tick_free(struct tick *t);
void tick_run(struct tick *t);
/* A client was killed (holds.h). */
void tick_count_killed(struct tick *t);
/* The host's numbers now (for status as well). */
void tick_host_numbers(struct tick *t, struct host_numbers *ret);
