/* What a fault needs besides its page stays in memory: a guest that waits for a page must not wait for a page of ours.
 *
 *	code of memctld and of the libraries of the fault path	locked here, all of it, at start: files are what a host that is
 *								short takes first, and nothing else forbids that
 *	stacks of fault threads					locked here as far as they are used
 *	buffers and the decoder's state				locked with the bench (store.c)
 *	heap, page maps, segments				kept from swap by the unit (MemorySwapMax=0); elsewhere by the host's setting
 *
 * The budget: LOCKED_CODE_MAX at start, LOCKED_STACK_MAX and the bench a lease.  All of it is best effort, because RLIMIT_MEMLOCK may be
 * small; the unit raises it. */
#pragma once

#include <stdint.h>

#define LOCKED_CODE_MAX	 (8u << 20)
#define LOCKED_STACK_MAX (256u << 10)

/* Bytes of code that are locked now; 0: none. */
uint64_t locked_code(void);
/* Of the calling thread. */
void locked_stack(void);
