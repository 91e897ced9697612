/* Reclaim: the thread that turns a shortage into work for the VMs.
 *
 * It sleeps until a charge crosses the arena's low threshold or a VM's own limit, takes a view, asks
 * policy/plan for who gives how much, hands that to the VMs' lease workers (vm_reclaim), and looks again until
 * there is enough free.  It makes no system call on a lease, so no client can hold it.
 *
 * Threads: reclaim_add and reclaim_remove from the control thread; remove returns only when the reclaim thread
 * will not touch the VM any more (so: before vm_stop or vm_free). */
#pragma once

#include "mem/vm.h"

#include <stdbool.h>
#include <stdint.h>

struct reclaim;

struct reclaim_status {
	const char *state;		/* high, clear, soft, hard, low */
	uint64_t min_free_frames;
	uint64_t goal_free_frames;
	bool pressed;			/* less than minFree is free: a sharing pass is made at once */
	uint64_t runs;			/* times it had to act */
};

/* `min_free_pct`: 0 = by the sliding scale. */
int reclaim_new(struct reclaim **ret, struct arena *a, unsigned min_free_pct, struct problem *p);
/* Ends the thread.  All VMs have been removed. */
void reclaim_free(struct reclaim *r);
int reclaim_add(struct reclaim *r, struct vm *vm);
void reclaim_remove(struct reclaim *r, struct vm *vm);
void reclaim_set_min_free_pct(struct reclaim *r, unsigned pct);
/* Has the thread gone on since the last time that this was asked?  Asks it again.  Control thread. */
bool reclaim_answers(struct reclaim *r);
void reclaim_get_status(struct reclaim *r, struct reclaim_status *ret);
