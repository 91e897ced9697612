/* State: what of a VM or a pool must outlive this process and is in none of its maps: one memfd each.
 *
 * A *card* says what it is: written anew as a whole, into one of two places in turn, each with a number and a checksum, so that
 * whoever reads it finds the old one or the new one, at whatever instruction the writer was killed.  *Records* (a lease each) are
 * small, are written before they count, and then not changed.
 *
 * All of it carries STATE_FORMAT.  A memctld reads its own format and the one before (STATE_FORMAT_OLDEST), and touches nothing that it
 * cannot read.  What it takes over keeps its format until all of it has been read (state_raise): a memctld that cannot read its own part
 * leaves everything to the one that was before it.
 *
 *	format	what it adds
 *	2	card of a VM: balloon cap, stall budget, room of the swap file, sharing withheld.  Page maps: BALLOONED
 *
 * Threads: the control thread writes; what is atomic may be written by who owns it. */
#pragma once

#include "mem/arena.h"

#include <stdatomic.h>

#define STATE_FORMAT	    2u
#define STATE_FORMAT_OLDEST 1u
#define STATE_CARD_MAX	    2000u

struct state_lease {
	_Atomic uint64_t live;		/* STATE_LIVE, or it is none */
	uint64_t checksum;		/* of the three that follow */
	uint64_t gpa, pages, address;
	_Atomic uint64_t handing;	/* the client was told to take it as its own */
	/* a job on pins that is under way (worker.c) */
	_Atomic uint64_t pin_next;	/* 0: none; else the next word's place << 8 | its count before << 1 | 1 */
	uint64_t pin_first, pin_down, pin_call;
	_Atomic uint64_t pin_done;	/* the client's number of the last that was done */
	uint64_t unused[5];
};
#define STATE_LIVE 0x6576696cull

struct state {
	struct segment *segment;
	uint64_t charged;		/* pages, from the first on */
	uint64_t number;		/* of the card */
};

/* Room for `records` leases.  Kept as "s" of the owner; what was found has to be read by state_card. */
int state_init(struct state *s, struct arena *a, struct account *payer, struct kept_owner owner, uint32_t records, struct problem *p);
void state_fini(struct state *s);

/* From here on the owner is there at a restart, as the card says. */
void state_write_card(struct state *s, const void *card, size_t bytes);
/* From here on it is not. */
void state_end(struct state *s);
/* The card that was found: 0; -ENOENT: it was never written, or has ended; -EBADMSG: damaged; -EPROTONOSUPPORT: of a
 * format that this program cannot read. */
int state_card(struct state *s, void *card, size_t bytes);
/* What was found is of STATE_FORMAT from here on; before anything is written that the format before does not have. */
void state_raise(struct state *s);

/* Record i, writable.  NULL: no frame for it. */
struct state_lease *state_record(struct state *s, uint32_t i);
/* The record's checksum is made, and it counts. */
void state_record_live(struct state_lease *r);
void state_record_end(struct state_lease *r);
/* Whether records up to i may be there. */
static inline bool state_has_record(const struct state *s, uint32_t i)
{
	return PAGE_SIZE + i * sizeof(struct state_lease) < s->charged * PAGE_SIZE;
}
/* The record that was found: 0, -ENOENT, -EBADMSG. */
int state_read_record(struct state *s, uint32_t i, struct state_lease *ret);
