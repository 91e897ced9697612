/* Recovery: what a process before us has left becomes pools and VMs again (recover.c).
 *
 * First all pools, then all VMs, then pool_recovered for each pool, and last vm_serve: from then on faults are served, and threads that
 * wait since the death go on.  Nothing here waits for a client.
 *
 * Whatever is read was written by us, but is believed in nothing that could harm: a word that makes no sense costs its page, a
 * state that cannot be read costs its VM or pool, with a reason; -EBADMSG.  Any other error is of the host (no memory, no descriptors):
 * then whatever was found must be left alone and tried again by another process.
 *
 * Control thread, before any other thread. */
#pragma once

#include "mem/pool.h"
#include "mem/vm.h"

struct recovery_numbers {
	uint64_t leases, pages;		/* pages that are not zero */
	uint64_t in_question;		/* that the client must tell about */
	uint64_t damaged;		/* words that made no sense */
};

/* Pool `number`.  -ENOENT: it had not been made, or was just ending: nothing refers to it. */
int pool_recover(struct pool **ret, struct arena *a, const struct mem_settings *settings, uint32_t number, struct problem *p);
/* VM `number`; `pool` finds the pool of a number (NULL: it is gone).  -ENOENT as above.  *ret_numbers is added to. */
int vm_recover(struct vm **ret, struct arena *a, const struct mem_settings *settings, uint32_t number,
	struct pool *(*pool)(void *userdata, uint32_t number), void *userdata, struct recovery_numbers *ret_numbers, struct problem *p);
/* All VMs are there: what none of them refers to is free. */
void pool_recovered(struct pool *p);
int vm_serve(struct vm *vm, struct problem *p);

/* The client is back, and attends to orders: ask it what only it knows. */
void vm_resume(struct vm *vm);
/* Whether the lease was there before this process. */
bool lease_was_found(const struct lease *l);
/* Whether `fd` is this lease's memory, mapped at `address`, as the client says. */
bool lease_is(const struct lease *l, int fd, uint64_t address);
