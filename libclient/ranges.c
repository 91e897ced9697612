/* What a client says about ranges of a lease, in the daemon's hands or (plain memory) in the kernel's.
 *
 * Long ranges are sent in pieces, each a call with a time limit of its own: bringing in gigabytes from a disk is
 * slow, not a sign of a dead daemon.  Pins are all or nothing, so a failed piece undoes those before it. */
#include "libclient/internal.h"

#include <errno.h>
#include <string.h>

#define PIECE_BYTES (32ull << 20)

static int one_piece(struct memctl_lease *l, enum range_op op, uint64_t offset, uint64_t length,
	struct memctl_error *e)
{
	struct op_advise_in advise = { .lease = l->id, .offset = offset, .length = length };
	struct op_advise_out advised;
	struct op_pin_in pin = { .lease = l->id, .offset = offset, .length = length };
	struct op_discard_in range = { .lease = l->id, .offset = offset, .length = length };
	struct op_discard_out pages;

	switch (op) {
	case RANGE_WILL_NEED:
		strcpy(advise.advice, "will_need");
		return call(l->m, OP_advise, &advise, -1, &advised, NULL, e);
	case RANGE_DONT_NEED:
		strcpy(advise.advice, "dont_need");
		return call(l->m, OP_advise, &advise, -1, &advised, NULL, e);
	case RANGE_DISCARD:
		return call(l->m, OP_discard, &range, -1, &pages, NULL, e);
	case RANGE_POPULATE:
		return call(l->m, OP_populate, &range, -1, &pages, NULL, e);
	case RANGE_PIN:
		return call(l->m, OP_pin, &pin, -1, &pages, NULL, e);
	case RANGE_UNPIN:
		return call(l->m, OP_unpin, &pin, -1, &pages, NULL, e);
	}
	return -EINVAL;
}

/* One struct of each kind stands for both calls; all answer with a number of pages. */
_Static_assert(sizeof(struct op_discard_in) == sizeof(struct op_populate_in) &&
	sizeof(struct op_pin_in) == sizeof(struct op_unpin_in), "ranges differ");

static int act(struct memctl_lease *l, enum range_op op, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	uint64_t done;
	int r = 0;

	if (!l)
		return fail(e, -EINVAL, ERROR_INVALID, "the lease is NULL");
	if (offset % PAGE_SIZE || length % PAGE_SIZE)
		return fail(e, -EINVAL, ERROR_INVALID, "offset and length must be multiples of 4096");
	if (offset > l->size || length > l->size - offset)
		return fail(e, -EINVAL, ERROR_INVALID, "the range leaves the lease of %llu bytes",
			(unsigned long long)l->size);
	if (!length)
		return 0;
	if (l->plain)
		return plain_range(l, op, offset, length, e);
	for (done = 0; done < length; done += PIECE_BYTES) {
		r = one_piece(l, op, offset + done, length - done < PIECE_BYTES ? length - done : PIECE_BYTES, e);
		if (r < 0)
			break;
	}
	if (r < 0 && l->plain)	/* the daemon let it go meanwhile, and its pins with it */
		return plain_range(l, op, offset, length, e);
	if (r < 0 && op == RANGE_PIN && done)
		act(l, RANGE_UNPIN, offset, done, NULL);
	return r;
}

int memctl_will_need(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	return act(l, RANGE_WILL_NEED, offset, length, e);
}

int memctl_dont_need(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	return act(l, RANGE_DONT_NEED, offset, length, e);
}

int memctl_discard(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	return act(l, RANGE_DISCARD, offset, length, e);
}

int memctl_populate(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	return act(l, RANGE_POPULATE, offset, length, e);
}

int memctl_pin(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	return act(l, RANGE_PIN, offset, length, e);
}

int memctl_unpin(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	return act(l, RANGE_UNPIN, offset, length, e);
}
