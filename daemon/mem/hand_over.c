/* A lease leaves the arena: everything that has content is gathered in frames of the lease, and the client takes it as memory
 * of its own.  Worker only; the root decides when (ops_stop.c).
 *
 *	staying: nothing is evicted or shared > bring home and fill all, until nothing is missing > record *handing* > order
 *	"plain": the client ends its registration > its answer: plain
 *
 * Once the client's registration has ended an absent page reads as zero, so it must be one.  It is: what is neither resident nor ZERO
 * was gathered, nothing leaves its frame any more, and a page that a fault or a discard changes meanwhile becomes one of the
 * two.  From *handing* to the answer nobody knows whose the lease is: until the client has said, also across a restart,
 * nothing is taken from it, and at its end it is not punched. */
#include "mem/vm_impl.h"

#include "base/clock.h"
#include "mem/inject.h"

#include <errno.h>

#define GATHER_PAGES 8192u	/* at once: reclaim, and who ends the VM, wait for no more */

/* The next pages that have content and no frame of their own; false: there are none. */
static bool next_missing(struct lease *l, uint64_t *at, struct run *ret)
{
	uint64_t page = *at;

	*ret = (struct run){ 0, 0 };
	for (; page < l->pages && ret->count < GATHER_PAGES; page++) {
		uint64_t w;
		bool has;

		if (!page_map_has(&l->map, page)) {
			if (ret->count)
				break;
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		w = page_map_read(&l->map, page);
		has = !(w & WORD_BUSY) && (word_state(w) == PAGE_RESIDENT || word_is_empty(w));
		if (has && ret->count)
			break;
		if (!has && !ret->count++)
			ret->page = page;
	}
	*at = page;
	return ret->count;
}

/* Why it ends: nothing is evicted or shared any more, so what has become resident or zero stays one of the two. */
int lease_gather(struct lease *l, uint64_t *ret_pages)
{
	struct run run;
	uint64_t at = 0;

	atomic_store(&l->staying, true);
	atomic_store(&l->reclaim, 0);
	while (next_missing(l, &at, &run)) {
		int r;

		if (atomic_load(&l->ending))
			return -ESHUTDOWN;
		lease_serve_audits(l);
		l->job_began_ns = now_ns();
		r = share_bring_home(l, &run, 1, l->job_began_ns + GIVE_UP_NS);
		if (r == 0)
			r = lease_populate(l, run, true, ret_pages);
		if (r < 0)
			return r;
		CRASH_POINT("gather.run");
		/* pages that were busy are looked at again */
		at = at == l->pages ? 0 : at;
	}
	return 0;
}

int lease_hand_over(struct lease *l)
{
	struct run first = { 0, 1 };
	uint8_t bit;
	int r = lease_gather(l, &l->handed_pages);

	/* a library that does not answer at once is not asked for what cannot be taken back */
	if (r == 0)
		r = l->vm->orders.present(l->vm->orders.userdata, l, &first, 1, &bit);

	if (r < 0)
		return r;
	if (!l->record)
		return -EBUSY;
	/* from here on until the answer nobody knows whose it is */
	atomic_store(&l->record->handing, 1);
	atomic_store(&l->handing, true);
	CRASH_POINT("hand_over.recorded");
	r = l->vm->orders.hand_over(l->vm->orders.userdata, l, l->pages);
	CRASH_POINT("hand_over.answered");
	if (r == 0)
		lease_set_plain(l);
	else if (r != -ETIMEDOUT && r != -ENOTCONN)
		lease_not_plain(l);
	return r;
}

