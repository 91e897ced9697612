/* The balloon: pages that the guest itself gives, because its driver was asked to.
 *
 * The driver takes a page from the guest's own allocator, so nobody in the guest uses it, and names it (inflate); its content is
 * without value from then on.  It names it once more (deflate) before it gives it back to the guest's allocator.  Here that is a state of the
 * page: BALLOONED has no frame and no store, reads as zeros, and is counted by itself, because what a guest has given is not
 * what it never used.
 *
 *	inflate	bring home what is mapped from the pool > lock up to RUN_MAX words > record BALLOONED, moving > punch, verify
 *		the hole > record BALLOONED > forget the stored copy > unlock > wake	(drop_batch, the road of a discard)
 *	touch	a fault like any other of a page of zeros: charge a frame > lock > record moving > ZEROPAGE > record RESIDENT > unlock > wake.
 *		The page has left the balloon, and only this one: no fault-around
 *	deflate	lock > record ZERO > unlock.  Nothing is punched: only a BALLOONED page is changed, so a deflate that comes late, twice,
 *		or for a page that was touched meanwhile takes nothing from anybody
 *	start	a driver that begins anew knows of no page in the balloon: deflate all
 *
 * Why no byte is lost that is of value.  Content goes in one place, the punch of an inflate, and only of pages that the client
 * has named in a call that it has not got the reply to.  As long as it has none, it has told nobody that the page is back:
 *  - A guest thread that touches the page beside the inflate breaks its own driver's word.  Its write is there before the punch (and
 *    goes), or it waits (the word is busy, the event is dropped) and comes again after the wake: to a zero page.
 *  - An inflate that runs long after its caller has given up waiting would punch what the guest was perhaps told to go on using.  So
 *    no page is taken after `until_ns`, which lies well before a client's time-out; a client with a shorter one is told by memctl.h
 *    that a page it does not know about is its own only after a deflate that succeeded, and jobs of a lease are done in their order.
 *  - The evictor, the scan, an audit, a mover of stores: they try words, or wait for them on this very thread; the word is
 *    locked here, or it is RESIDENT or stored there and this thread waits, holding no other word.
 *  - A pinned page stays: a device may write to it at any time.  Pins change on this thread only, so what the lock finds holds.
 *  - A page that the client maps from the pool is not of the lease; it is brought home, or refused.
 *  - A lost page is refused: it is owed to the guest as a machine check until the guest discards it.
 *  - A page that the kernel keeps in spite of the punch (a large folio, a pin that we do not know of) is refused.  It reads as zeros,
 *    which the call has permitted.
 *  - A lease that is being handed over gives nothing: it is the client's own soon.
 *
 * A crash.  Moving: the memfd has the page: RESIDENT as before (the client asks again, its call has had no reply); it has not:
 * BALLOONED, and nothing else holds content of it that counts.  Not moving: as the word says.  A death between the record of
 * BALLOONED and vm_forget leaves a stored copy that no word refers to, which is free when stores are rebuilt from the words.  Between two
 * batches of one call: the first is given and the second not, and the same call again gives the rest. */
#include "mem/vm_impl.h"

#include "base/clock.h"
#include "base/peak.h"
#include "mem/inject.h"

#include <errno.h>

/* How long one word is waited for: its store, or the thread that fills it, may be slow. */
#define WORD_WAIT_NS (20 * NS_PER_MS)
/* And the client, for its pages to come home. */
#define HOME_NS	     (1 * NS_PER_S)

/* ---- what is told of it ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t vm_balloon_claimed(struct vm *vm)
{
	return now_ns() < atomic_load(&vm->balloon.claim_until_ns) ? atomic_load(&vm->balloon.claim_frames) : 0;
}

static uint64_t believed(struct vm *vm)
{
	return least(vm_balloon_claimed(vm), atomic_load(&vm->pages[PAGE_ZERO]));
}

void vm_get_balloon(struct vm *vm, struct vm_balloon *ret)
{
	uint64_t size = vm->config.size_bytes / PAGE_SIZE;
	uint64_t target = atomic_load(&vm->balloon.target_frames);
	bool agent = now_ns() < atomic_load(&vm->balloon.claim_until_ns);

	if (inject.balloon_pct)
		target = size / 100 * (inject.balloon_pct - 1);
	ret->driver = agent || atomic_load(&vm->balloon.driver);
	ret->frames = atomic_load(&vm->pages[PAGE_BALLOONED]) + believed(vm);
	ret->max_frames = ret->driver ? least(vm_balloon_max_frames(vm), size) : 0;
	ret->planned = target != UINT64_MAX;
	ret->target_frames = least(ret->planned ? target : ret->frames, ret->max_frames);
}

void vm_set_balloon_target(struct vm *vm, uint64_t frames)
{
	atomic_store(&vm->balloon.target_frames, least(frames, UINT64_MAX - 1));
}

void vm_set_balloon_driver(struct vm *vm)
{
	atomic_store(&vm->balloon.driver, true);
}

void vm_claim_balloon(struct vm *vm, uint64_t frames, uint64_t until_ns)
{
	struct vm_balloon b;

	atomic_store(&vm->balloon.claim_frames, frames);
	atomic_store(&vm->balloon.claim_until_ns, until_ns);
	vm_get_balloon(vm, &b);
	peak_raise(&vm->counters.ballooned_peak_bytes, b.frames);
}

uint64_t vm_balloon_told(struct vm *vm, bool agent)
{
	bool own = atomic_load(&vm->balloon.driver);
	struct vm_balloon b;

	vm_get_balloon(vm, &b);
	if (!agent)
		/* what an agent has taken before is not asked for twice */
		return own ? b.target_frames - least(b.target_frames, believed(vm)) : 0;
	if (!b.planned)
		return vm_balloon_claimed(vm);
	return own ? 0 : b.target_frames;
}

/* ---- inflate ---- */

/* A job's pages one after the other. */
struct cursor {
	const struct job *job;
	unsigned run, at;	/* at: of all pages */
	uint64_t offset;	/* in the run */
};

static bool next_page(struct cursor *c, uint64_t *ret_page, unsigned *ret_at)
{
	if (c->run == c->job->n_runs)
		return false;
	*ret_page = c->job->runs[c->run].page + c->offset;
	*ret_at = c->at++;
	if (++c->offset == c->job->runs[c->run].count) {
		c->run++;
		c->offset = 0;
	}
	return true;
}

/* An inflate under way. */
struct giving {
	struct lease *lease;
	struct job *job;
	struct batch batch;
	unsigned at[RUN_MAX];	/* the place of each of its pages among the job's */
	bool impatient;		/* somebody holds words for long: no other is waited for */
};

static void refuse_page(struct giving *g, unsigned at)
{
	g->job->refused[at / 8] |= (uint8_t)(1u << at % 8);
	COUNT(g->lease->vm, balloon_refused_pages, 1);
}

static void let_go(struct lease *l, uint64_t page, uint64_t w)
{
	word_unlock(lease_word(l, page), w);
	lease_wake(l, page, 1);
}

static void give_batch(struct giving *g)
{
	uint64_t given;

	if (!g->batch.count)
		return;
	CRASH_POINT("inflate.locked");
	given = drop_batch(g->lease, &g->batch, PAGE_BALLOONED);
	CRASH_POINT("inflate.dropped");
	for (unsigned i = 0; i < g->batch.count; i++)
		if (!(given >> i & 1))
			refuse_page(g, g->at[i]);
	COUNT(g->lease->vm, inflated_pages, (uint64_t)__builtin_popcountll(given));
	g->job->pages += (uint64_t)__builtin_popcountll(given);
	g->batch.count = 0;
}

static bool lock_page(struct giving *g, uint64_t page, uint64_t *ret_before)
{
	struct lease *l = g->lease;

	if ((now_ns() > g->job->until_ns && !inject.twin_balloon_late) || page_map_touch(&l->map, page) < 0)
		return false;
	if (word_lock(lease_word(l, page), ret_before))
		return true;
	/* nobody waits for those that are locked already while we wait for another */
	give_batch(g);
	if (!g->impatient && lease_lock_word(l, page, WORD_WAIT_NS, ret_before))
		return true;
	g->impatient = true;
	return false;
}

static bool may_give(struct giving *g, uint64_t w)
{
	struct vm_balloon now;

	if ((word_pins(w) && !inject.twin_balloon_pinned) || word_state(w) == PAGE_LOST || is_mapped(w))
		return false;
	/* leases of one VM inflate side by side: they may pass the cap by a batch */
	vm_get_balloon(g->lease->vm, &now);
	return now.frames + g->batch.count < now.max_frames;
}

/* Into the batch, which has room, or what else becomes of it. */
static void take_page(struct giving *g, uint64_t page, unsigned at)
{
	struct batch *b = &g->batch;
	uint64_t w;

	if (!lock_page(g, page, &w)) {
		refuse_page(g, at);
	} else if (word_state(w) == PAGE_BALLOONED) {
		g->job->pages++; /* a call that got no reply is made again */
		let_go(g->lease, page, w);
	} else if (!may_give(g, w)) {
		refuse_page(g, at);
		let_go(g->lease, page, w);
	} else {
		g->at[b->count] = at;
		b->page[b->count] = page;
		b->before[b->count++] = w;
	}
}

int lease_inflate(struct lease *l, struct job *job)
{
	struct giving g = { .lease = l, .job = job };
	bool stays = atomic_load(&l->staying);
	struct cursor c = { .job = job };
	unsigned at;
	uint64_t page;

	/* what does not come home in time is refused, page by page */
	if (!stays && share_bring_home(l, job->runs, job->n_runs, least(job->until_ns, now_ns() + HOME_NS)) == -ESHUTDOWN)
		return -ESHUTDOWN;
	while (next_page(&c, &page, &at)) {
		if (stays)
			refuse_page(&g, at);
		else
			take_page(&g, page, at);
		if (g.batch.count == RUN_MAX) {
			give_batch(&g);
			lease_serve_reclaim(l);
		}
	}
	give_batch(&g);
	return atomic_load(&l->ending) ? -ESHUTDOWN : 0;
}

/* ---- deflate ---- */

/* 1 if it was in the balloon; -EBUSY: its word cannot be had. */
static int free_page(struct lease *l, uint64_t page)
{
	uint64_t w;

	/* The caller has named the page, or the driver that gave it is no more: nobody inflates it but this thread. */
	if (!page_map_has(&l->map, page) || word_state(page_map_read(&l->map, page)) != PAGE_BALLOONED)
		return 0;
	if (!lease_lock_word(l, page, NS_PER_S, &w))
		return -EBUSY;
	if (word_state(w) != PAGE_BALLOONED) {
		let_go(l, page, w);
		return 0;
	}
	ledger_move(l, page, w, PAGE_ZERO);
	CRASH_POINT("deflate.counted");
	let_go(l, page, word_make(PAGE_ZERO, 0) | (w & WORD_PIN_MASK));
	CRASH_POINT("deflate.unlocked");
	return 1;
}

static int free_run(struct lease *l, struct run run, struct job *job)
{
	for (uint64_t page = run.page; page < run.page + run.count; page++) {
		int r;

		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		if (page % MAP_BLOCK_PAGES == 0)
			lease_serve_reclaim(l);
		r = free_page(l, page);
		if (r < 0)
			return atomic_load(&l->ending) ? -ESHUTDOWN : r;
		job->pages += (uint64_t)r;
	}
	return 0;
}

int lease_deflate(struct lease *l, struct job *job)
{
	int r = 0;

	if (!job->runs && atomic_load(&l->vm->pages[PAGE_BALLOONED]))
		r = free_run(l, job->range, job);
	for (unsigned i = 0; job->runs && i < job->n_runs && r == 0; i++)
		r = free_run(l, job->runs[i], job);
	COUNT(l->vm, deflated_pages, job->pages);
	return r;
}
