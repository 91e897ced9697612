/* Orders to a client library: the stream of replies to its Attend call, answered by Done.
 *
 * Lease workers give orders (struct vm_orders), the control thread sends them and takes the answers.  An
 * order is waited for at most a second.  A library that leaves one unanswered longer is mute until it answers
 * something: nothing more is sent to it and nobody waits for it (reclaim goes on without its help).  So a
 * client that does not read its orders costs a second once, and no memory.
 *
 * Nobody waits for a remap order ("share", "home"): its answer is told to the VM when it comes (vm_remap_answered), exactly
 * once, also if it will never come.  Nor for an order of orders_present.
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

/* vm_orders.zap; from the control thread as well. */
int orders_zap(struct orders *o, struct lease *l, const struct run *runs, unsigned n);
/* The order "present" (vm_orders.present) without waiting, from the control thread.  0: `answered` is called there exactly
 * once, with the order's number: r = 0 and the bits, or -errno if the answer will never come (an order after it was answered,
 * or the stream has ended; orders_detach calls it before it returns, so what `userdata` points at lives until then and need not
 * live longer).  -errno: it was not sent, and nobody is told.  It may stay unanswered for as long as the client likes. */
typedef void orders_answered(void *userdata, uint64_t order, int r, const uint8_t *bits);
int orders_present(struct orders *o, struct lease *l, const struct run *runs, unsigned n, orders_answered *answered,
	void *userdata, uint64_t *ret_order);

/* The Attend call is there: the call becomes the stream's until orders_detach. */
void orders_attach(struct orders *o, struct call *attend);
/* The stream is gone, or the VM ends: whoever waits gets -ENOTCONN, now and from now on.  The call, if there
 * is one, is ended. */
void orders_detach(struct orders *o);
/* Order "balloon": so many pages should be in the balloon.  Nobody answers it.  -ENOTCONN: there is no stream; -EAGAIN: the client
 * has not taken what was sent before, so it would only pile up. */
int orders_balloon(struct orders *o, uint64_t pages);
/* Done: 0, -ENOENT: no such order waits (any more: no fault of the client), -EINVAL: not an answer to it. */
int orders_done(struct orders *o, uint64_t order, const char *bits, uint64_t pages);

struct orders_numbers {
	uint64_t sent, answered, timed_out, dropped;
};
void orders_numbers(struct orders *o, struct orders_numbers *ret);
