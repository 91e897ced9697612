/* Orders to a client library: the stream of replies to its Attend call, answered by Done.
 *
 * Lease workers give orders (struct vm_orders), the control thread sends them and takes the answers.  An
 * order is waited for at most a second.  A library that leaves one unanswered longer is mute until it answers
 * something: nothing more is sent to it and nobody waits for it (reclaim goes on without its help).  So a
 * client that does not read its orders costs a second once, and no memory.
 *
 * Nobody waits for a remap order ("share", "home"): its answer is told to the VM when it comes (vm_remap_answered), exactly
 * once, also if it will never come.
 *
 * Threads: orders_* on the control thread; the functions in struct vm_orders on workers.  The object outlives
 * whoever waits in it: the owner calls orders_detach when the stream ends, and orders_unref when the VM's
 * threads have ended. */
#pragma once

#include "mem/vm.h"
#include "serve/session.h"

#include <stdbool.h>
#include <stdint.h>

struct orders;

int orders_new(struct orders **ret, struct loop *l);
void orders_unref(struct orders *o);
/* What vm_set_orders takes; it may be set before a stream is attached (answers -ENOTCONN until then). */
void orders_functions(struct orders *o, struct vm_orders *ret);

/* The Attend call is there: the call becomes the stream's until orders_detach. */
void orders_attach(struct orders *o, struct call *attend);
/* The stream is gone, or the VM ends: whoever waits gets -ENOTCONN, now and from now on.  The call, if there
 * is one, is ended. */
void orders_detach(struct orders *o);
/* Done: 0, -ENOENT: no such order waits (any more: no fault of the client), -EINVAL: not an answer to it. */
int orders_done(struct orders *o, uint64_t order, const char *bits, uint64_t pages);

struct orders_numbers {
	uint64_t sent, answered, timed_out, dropped;
};
void orders_numbers(struct orders *o, struct orders_numbers *ret);
