/* What a lease has to do with sharing: shared by scan.c (which pages are alike), share.c (what is done about it) and remap.c (how
 * the client is told). */
#pragma once

#include "mem/hints.h"
#include "mem/mappings.h"
#include "mem/vm_impl.h"

#define ORDER_PAGES (RUN_MAX * 4)	/* of one remap order: it keeps their words locked for about a millisecond */

/* Pages whose words are locked, and what they were, are to be shared with, and will be. */
struct remap_page {
	uint32_t page;
	uint64_t before, entry;
};

/* A remap order: gathered, then sent, then answered, then settled.  One at a time. */
struct remap_order {
	enum remap what;
	unsigned n;
	struct remap_page page[ORDER_PAGES];
	bool pending;			/* sent and not settled */
	bool late;			/* for more than a second */
	uint64_t sent_ns;
	/* under share.lock: */
	uint64_t id;
	bool answered;
	int r;
	unsigned pages;
	uint8_t bits[2 * ORDER_PAGES / 8];	/* two for each page of a settle order */
};

struct share {
	/* Worker only. */
	struct remap_order order;
	uint64_t hand;
	uint64_t parts_ns;		/* when the parts were summed up last */
	uint64_t pokes;			/* that its waits have seen */
	uint64_t idle_faults, idle_since_ns;	/* fault thread only: events of pages that were there, within a second */

	_Atomic uint32_t member;	/* of the pool; HINTS_NO_MEMBER: of none */
	_Atomic uint32_t *sights;	/* hash of each page at the last look; 0: not seen, or written since */
	_Atomic uint8_t *quiet;		/* pages that are written to again and again: see scan.c */
	uint64_t *waiting;		/* worker only: a bit a page that has its like and was left alone, for want of mappings */
	uint64_t low_left, last_low_left;	/* fewest mappings that were left in this pass, in the last one */
	uint64_t found_floor;		/* mappings_found_floor */
	uint64_t recalled_left;		/* so many were left when there was nothing to be brought home for more */
	_Atomic uint64_t *nudged;	/* a bit a page that is said to be like another */
	_Atomic uint64_t n_nudged;	/* set since the worker looked last: at most so many */
	uint64_t nudged_hand;		/* worker only: word of `nudged` that it looks at next */
	_Atomic uint64_t passes;
	_Atomic uint64_t hand_budget, read_budget;
	_Atomic bool ticked;		/* bring home what there is, sum up the parts */
	_Atomic bool late;		/* the client has owed an answer for more than a second */

	pthread_mutex_t lock;		/* the order's answer; before orders.lock and jobs_lock, after words and the hints */
	pthread_mutex_t breaking_lock;	/* the list; a leaf */
	uint32_t *breaking;		/* pages that broke; some may have been brought home since */
	uint64_t n_breaking;
	bool breaking_lost;		/* the list was full: look at all words */
};

/* Of an array with a bit a page. */
static inline uint64_t bit_words(const struct lease *l)
{
	return (l->pages + 63) / 64;
}

/* Mappings that sharing may still add to the client. */
uint64_t mappings_left(struct vm *vm);
/* The next run of pages in one mapping of the pool, from `page` on, and how many mappings there would be less without it.
 * `page` is not within one. */
struct mapped_run {
	uint64_t page, count, gives;
};
bool mapped_run_next(struct lease *l, uint64_t page, struct mapped_run *ret);

/* A locked page that is like this entry of the pool, to which it has a reference now: for the next order.  There is room. */
void order_add(struct share *s, uint64_t page, uint64_t before, uint64_t entry);
/* Whether no order is under way: the answer to the last is there, and has been acted on. */
bool order_settled(struct lease *l);
/* It was carried out for its first `done` pages, and is over. */
void order_end(struct lease *l, unsigned done);
/* A lease that was found: its mappings are counted, and of these pages (locked, moving, in order; their entries held, two frames
 * charged for each) only the client knows where they are.  It is asked when it is back. */
void order_found(struct lease *l, const struct remap_page *pages, unsigned n);
/* Send what was gathered, and wait a moment for the answer.  false: it could not be sent, and is undone. */
bool order_send(struct lease *l);

/* A page that broke is to be brought home.  How many there are. */
uint64_t share_break_later(struct lease *l, uint64_t page);

/* Look at some pages, as far as the budgets go (scan.c).  Whether there is more to look at. */
bool scan_some(struct lease *l);
/* The client owes an answer: pass over pages without a look, so that a pass ends. */
void scan_pass_over(struct lease *l);
/* It was found to be like another, and is left alone because mappings are few: the hand takes it again when they are not. */
void scan_wait(struct lease *l, uint64_t page);
/* Look at this page again with the next tick, as if another were said to be like it.  How many are to be looked at so. */
uint64_t scan_later(struct share *s, uint64_t page);
/* Look at what others have found to be like theirs: all of it, or when it is worth an order. */
bool scan_nudged(struct lease *l, bool all);
