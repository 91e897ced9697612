/* Equal pages, once: from the lease into the pool, and back.
 *
 * Share.  The page's word is locked, the page write-protected, and its bytes have been compared with the entry's (scan.c).
 *
 *	hold the entry's frame > record SHARED, moving > order the client to map the pool there, copy-on-write, registered
 *	and protected > its answer: clean, or written to before the protection > punch the lease's frame, verify the hole
 *	> record SHARED, or BREAKING > unlock > wake
 *
 * Why no write is lost.  Until the client replaces its mapping, writes wait at the old protection.  Between the mmap and
 * the new protection a write goes into a private copy, of content that is equal to the page's: the copy is the page
 * then.  The client finds it by the kernel's word (a page that is not of the file), and such a page is BREAKING from the start: the
 * copy is its content, and nothing is ever taken from the pool's frame for a page that is mapped, always from the client's
 * own view.  The lease's frame goes only after the answer, when nobody maps it any more.  The frame is held meanwhile, so the
 * client's touch of it never waits for an event that a locked word would drop.
 *
 * Break.  A write to a protected page of the pool: charge a frame for the copy that the kernel will make > hold the entry >
 * record BREAKING > un-protect, which wakes.  The entry's frame stays until the page is home: the kernel may not have
 * copied yet.  Two guest threads: the first event breaks; the second finds BREAKING, and is un-protected and woken.
 *
 * Home.  In batches, later: lock > order the client to protect, copy its own view into the lease (a hole: COPY), map the lease
 * back, register, map the pages > answer > record RESIDENT > release the entry > unlock > wake.  Also for a page that is
 * shared and not broken, when it is discarded or pinned.  Between the client's mmap and its registration the page is there,
 * because it was just written: nobody sees a hole.
 *
 * A page that was written between two orders is in one of these states, and a client that dies in any of them takes its
 * copies with it, because it was their only reader.  A daemon that dies leaves words with *moving*: what became of
 * those only the client knows (page_map.h).
 *
 * What an unhelpful client can hold: the pages of one order, its breaking pages (a frame each, charged to it, and limited:
 * at the limit a break waits up to a second each for the pages to come home) and the entries that these hold. */
#include "mem/share.h"

#include "base/clock.h"
#include "base/sparse.h"
#include "mem/inject.h"
#include "mem/uffd.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PARTS_NS      NS_PER_S
#define HOME_PAGES    ORDER_PAGES	/* so many are brought home at once, fewer at the next tick, or near the limit */
#define BREAKING_MIN  64u
#define BREAKING_MAX  4096u
#define LIES_MAX      10000u
#define RECALL_PAGES  16u		/* longer runs keep their mappings */

/* ---- life ---- */

int share_new(struct share **ret, struct lease *l)
{
	struct share *s = calloc(1, sizeof *s);

	if (!s)
		return -ENOMEM;
	s->member = HINTS_NO_MEMBER;
	s->passes = atomic_load(&l->vm->scan_passes);
	s->found_floor = s->recalled_left = UINT64_MAX;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->breaking_lock, NULL);
	s->sights = sparse_new(l->pages * sizeof *s->sights);
	s->quiet = sparse_new(l->pages * sizeof *s->quiet);
	s->breaking = sparse_new(l->pages * sizeof *s->breaking);
	s->nudged = sparse_new(bit_words(l) * sizeof *s->nudged);
	s->waiting = sparse_new(bit_words(l) * sizeof *s->waiting);
	*ret = s; /* which is l->share */
	if (!s->nudged || !s->waiting || !s->sights || !s->quiet || !s->breaking)
		return -ENOMEM;
	if (atomic_load(&l->vm->pool))
		share_join(l, atomic_load(&l->vm->pool));
	return 0;
}

void share_free(struct lease *l)
{
	struct share *s = l->share;

	if (!s)
		return;
	if (s->member != HINTS_NO_MEMBER)
		hints_leave(pool_hints(atomic_load(&l->vm->pool)), s->member);
	sparse_free(s->sights, l->pages * sizeof *s->sights);
	sparse_free(s->quiet, l->pages * sizeof *s->quiet);
	sparse_free(s->breaking, l->pages * sizeof *s->breaking);
	sparse_free(s->nudged, bit_words(l) * sizeof *s->nudged);
	sparse_free(s->waiting, bit_words(l) * sizeof *s->waiting);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->breaking_lock);
	free(s);
	l->share = NULL;
}

void share_join(struct lease *l, struct pool *pool)
{
	if (l->share && l->share->member == HINTS_NO_MEMBER)
		l->share->member = hints_join(pool_hints(pool), l);
}

/* ---- break ---- */

/* Pages that the client's unwillingness could keep from reclaim: a sixteenth of what the VM has. */
static uint64_t breaking_limit(struct vm *vm)
{
	uint64_t limit = (atomic_load(&vm->pages[PAGE_RESIDENT]) + atomic_load(&vm->pages[PAGE_SHARED])) / 16;

	return limit > BREAKING_MAX ? BREAKING_MAX : limit < BREAKING_MIN ? BREAKING_MIN : limit;
}

/* To be brought home.  How many there are. */
uint64_t share_break_later(struct lease *l, uint64_t page)
{
	struct share *s = l->share;
	uint64_t n;

	pthread_mutex_lock(&s->breaking_lock);
	if (s->n_breaking < l->pages)
		s->breaking[s->n_breaking++] = (uint32_t)page;
	else
		s->breaking_lost = true;
	n = s->n_breaking;
	pthread_mutex_unlock(&s->breaking_lock);
	return n;
}

bool share_may_break(struct lease *l)
{
	return atomic_load(&l->vm->pages[PAGE_BREAKING]) < breaking_limit(l->vm) && !atomic_load(&l->share->late);
}

/* The pool cannot give the page back.  The client maps the entry, and goes on mapping it: so the page keeps its reference, and the
 * entry is never anybody else's.  Whoever touches the page meets a hole, and waits, or gets its machine check. */
static void lose(struct lease *l, uint64_t page, uint64_t before)
{
	struct vm *vm = l->vm;
	int r;

	/* a marker of protection would be in poison's way */
	lease_hold_begin(l, HOLD_FAULT);
	uffd_unprotect(l->uffd, lease_client_address(l, page), PAGE_SIZE);
	r = uffd_poison(l->uffd, lease_client_address(l, page), PAGE_SIZE);
	lease_hold_end(l, HOLD_FAULT);
	CRASH_POINT("lose_shared.poisoned");
	if (word_state(before) != PAGE_LOST) {
		ledger_move(l, page, before, PAGE_LOST);
		atomic_fetch_add(&vm->lost_mapped_pages, 1);
		if (word_state(before) == PAGE_BREAKING) {
			pool_release(atomic_load(&vm->pool), word_ref(before));
			segment_uncharge(l->memory, 1);
		}
		vm_set_trouble(vm, false, "guest page %#llx is lost (pool); whoever touches it %s",
			(unsigned long long)(l->gpa + page * PAGE_SIZE), r < 0 ? "waits" : "gets a machine check (SIGBUS)");
	}
	word_unlock(lease_word(l, page), word_make(PAGE_LOST, word_ref(before)) | WORD_MAPPED | (before & WORD_PIN_MASK));
	CRASH_POINT("lose_shared.unlocked");
	if (r == 0)
		lease_wake(l, page, 1);
}

void share_break(struct lease *l, struct bench *b, uint64_t page, uint64_t before, bool pool_charged)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	uint64_t entry = word_ref(before), pins = before & WORD_PIN_MASK, now = word_make(PAGE_BREAKING, entry) | pins, n;
	int r = pool_hold(pool, b, entry, pool_charged, true);

	if (r < 0) {
		segment_uncharge(l->memory, 1);
		if (r == -EIO || r == -EBADMSG) {
			lose(l, page, before);
			return;
		}
		/* its frame was taken meanwhile: the access comes again */
		word_unlock(lease_word(l, page), before);
		lease_wake(l, page, 1);
		return;
	}
	CRASH_POINT("break.held");
	ledger_move(l, page, before, PAGE_BREAKING);
	if (inject.twin_break_unheld) {
		pool_release(pool, entry);
		pool_put(pool, entry);
		now = word_make(PAGE_BREAKING, 0) | pins;
	}
	word_record(lease_word(l, page), now);
	CRASH_POINT("break.recorded");
	n = share_break_later(l, page);
	/* the list is emptied at the next tick, or when it is worth an order, or when there is soon no more room for breaks */
	if (n % HOME_PAGES == 0 || n == breaking_limit(l->vm) / 2)
		share_poke(l);
	/* This wakes who waits for the page; nobody else drops its events, so nobody is left to be woken after the unlock. */
	lease_hold_begin(l, HOLD_FAULT);
	r = uffd_unprotect(l->uffd, lease_client_address(l, page), PAGE_SIZE);
	lease_hold_end(l, HOLD_FAULT);
	CRASH_POINT("break.unprotected");
	word_unlock(lease_word(l, page), now);
	CRASH_POINT("break.unlocked");
	if (r < 0)
		lease_wake(l, page, 1);
	COUNT(l->vm, break_pages, 1);
}

void share_fill(struct lease *l, struct bench *b, uint64_t page, uint64_t before, bool pool_charged)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct share *s = l->share;
	uint64_t ignored;
	int r;

	if (!word_ref(before)) {
		/* the twin that let go of it */
		uffd_zero(l->uffd, lease_client_address(l, page), PAGE_SIZE, &ignored);
		word_unlock(lease_word(l, page), before);
		lease_wake(l, page, 1);
		return;
	}
	r = pool_hold(pool, b, word_ref(before), pool_charged, true);
	if (r == -EIO || r == -EBADMSG) {
		lose(l, page, before);
		return;
	}
	if (r == 0)
		pool_release(pool, word_ref(before));
	CRASH_POINT("share_fill.there");
	/* An event that was late finds the frame there.  Thousands within a second are of a client that never mapped the pool. */
	if (r == 0 && !pool_charged) {
		uint64_t now = now_ns();

		if (now - s->idle_since_ns > NS_PER_S) {
			s->idle_since_ns = now;
			s->idle_faults = 0;
		}
		if (++s->idle_faults == LIES_MAX)
			vm_set_trouble(l->vm, true, "its library says that it mapped pages of the pool, and did not");
	}
	word_unlock(lease_word(l, page), before);
	CRASH_POINT("share_fill.unlocked");
	lease_wake(l, page, 1);
}

/* ---- home ---- */

/* One more page for a home order, if it is mapped and can be locked; there is room.  `wait_ns`: how long for the lock. */
static bool gather_home(struct lease *l, uint64_t page, uint64_t wait_ns, bool broken_only, enum charge_kind kind)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct remap_order *o = &l->share->order;
	uint64_t w;
	bool gone;

	w = page_map_read(&l->map, page);
	if (!(w & WORD_BUSY) && (!is_mapped(w) || word_state(w) == PAGE_LOST))
		return true;
	if (wait_ns ? !lease_lock_word(l, page, wait_ns, &w) : !word_lock(lease_word(l, page), &w))
		return false;
	/* of two frames it has one: the other is its copy in the lease */
	gone = !is_mapped(w) || word_state(w) == PAGE_LOST || (broken_only && word_state(w) != PAGE_BREAKING);
	if (gone || segment_charge(l->memory, 1, kind) < 0) {
		word_unlock(lease_word(l, page), w);
		lease_wake(l, page, 1);
		return gone;
	}
	if (word_state(w) == PAGE_SHARED) {
		bool charged = pool_needs_frame(pool, word_ref(w));

		if ((charged && pool_charge(pool) < 0) || pool_hold(pool, &l->bench, word_ref(w), charged, false) < 0) {
			segment_uncharge(l->memory, 1);
			word_unlock(lease_word(l, page), w);
			lease_wake(l, page, 1);
			return false;
		}
		/* The library may be touching it at this moment (to see whether it has a private copy): its event would be dropped now,
		 * and the order would wait for it.  The frame is there: what is woken needs no event. */
		lease_wake(l, page, 1);
	}
	CRASH_POINT("home.locked");
	word_record(lease_word(l, page), w | WORD_MOVING);
	CRASH_POINT("home.recorded");
	o->what = REMAP_HOME;
	o->page[o->n++] = (struct remap_page){ (uint32_t)page, w, word_ref(w) };
	return true;
}

/* Bring home what broke: all there is at a tick, else when it is worth an order.  Whether there is more. */
static bool home_some(struct lease *l, bool all)
{
	struct share *s = l->share;
	uint32_t pages[ORDER_PAGES];
	unsigned n = 0;
	bool lost;

	pthread_mutex_lock(&s->breaking_lock);
	if (all || s->n_breaking >= HOME_PAGES || s->n_breaking >= breaking_limit(l->vm) / 2)
		while (n < ORDER_PAGES && s->n_breaking)
			pages[n++] = s->breaking[--s->n_breaking];
	lost = all && s->breaking_lost && !s->n_breaking;
	if (lost)
		s->breaking_lost = false;
	pthread_mutex_unlock(&s->breaking_lock);
	/* those that cannot be had just now come with the next tick: nothing is poked for them */
	for (unsigned i = 0; i < n; i++)
		if (!gather_home(l, pages[i], 0, true, CHARGE_STORE))
			share_break_later(l, pages[i]);
	for (uint64_t page = 0; lost && page < l->pages; page++)
		if (word_state(page_map_read(&l->map, page)) == PAGE_BREAKING)
			share_break_later(l, page);
	if (!s->order.n)
		return false;
	return order_send(l) && n == ORDER_PAGES;
}

/* A run that is mapped, if it has at most so many half pages for each two mappings that it gives back, and can be had. */
static bool recall_run(struct lease *l, const struct mapped_run *r, uint64_t most)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct remap_order *o = &l->share->order;
	uint64_t halves = 0;
	unsigned n = o->n;

	if (!r->gives || r->count > RECALL_PAGES)
		return false;
	for (uint64_t page = r->page; page < r->page + r->count; page++) {
		uint64_t w = page_map_read(&l->map, page);

		if (word_state(w) != PAGE_SHARED || (w & WORD_BUSY))
			return false;
		halves += pool_references(pool, word_ref(w)) > 1 ? 2 : 1;
	}
	if (2 * halves > most * r->gives)
		return false;
	/* where there is no frame for it to spare, it stays; from its beginning, because a gap would need one more mapping */
	for (uint64_t page = r->page; page < r->page + r->count && o->n - n == page - r->page; page++)
		gather_home(l, page, 0, false, CHARGE_GUEST);
	return o->n - n == r->count;
}

/* When few mappings are left, bring home those that are worth too little, the least first. */
static void recall_some(struct lease *l)
{
	struct share *s = l->share;
	uint64_t budget = l->vm->vma_budget, left = mappings_left(l->vm);

	if (!atomic_load(&l->vm->mappings) || left >= s->recalled_left || atomic_load(&l->reclaim))
		return;
	for (uint64_t most = 1; most <= 2 * RECALL_PAGES && mappings_poor(budget, left, most, 2, MAPPINGS_RECALL); most *= 2) {
		struct mapped_run r = { 0 };

		while (mappings_poor(budget, left, most, 2, MAPPINGS_RELIEF) && s->order.n + RECALL_PAGES <= ORDER_PAGES &&
			mapped_run_next(l, r.page + r.count, &r))
			left += recall_run(l, &r, most) ? r.gives : 0;
	}
	/* until there are less, or until the next pass, there is nothing to be looked for */
	s->recalled_left = s->order.n ? UINT64_MAX : left;
	order_send(l);
}

int share_bring_home(struct lease *l, const struct run *runs, unsigned n, uint64_t until_ns)
{
	struct share *s = l->share;
	struct remap_order *o;
	unsigned at = 0, first_run;
	uint64_t done = 0, first_done;	/* runs before `at`, and so many pages of that one, are home */

	if (!s || !atomic_load(&l->vm->pool))
		return 0;
	o = &s->order;
	/* An order may be carried out in part, or not be sent: it is asked again for what is mapped still, until nothing is. */
	while (at < n || o->pending) {
		first_run = at;
		first_done = done;
		if (atomic_load(&l->ending))
			return -ESHUTDOWN;
		if (now_ns() > until_ns)
			return -ETIMEDOUT;
		lease_serve_reclaim(l);
		lease_serve_audits(l);
		if (!order_settled(l)) {
			lease_wait_poke(l, &s->pokes, NS_PER_MS);
			continue;
		}
		while (at < n && o->n < ORDER_PAGES) {
			if (done == runs[at].count) {
				at++;
				done = 0;
			} else if (gather_home(l, runs[at].page + done, NS_PER_MS, false, CHARGE_STORE)) {
				done++;
			} else {
				break;
			}
		}
		if (o->n) {
			if (!order_send(l))
				lease_wait_poke(l, &s->pokes, NS_PER_MS);
			at = first_run;
			done = first_done;
		} else if (at < n) {
			lease_wait_poke(l, &s->pokes, NS_PER_MS);
		}
	}
	return 0;
}

/* ---- what it pays ---- */

static void sum_parts(struct lease *l)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	uint64_t sum = 0, now = now_ns();

	if (!pool || now - l->share->parts_ns < PARTS_NS)
		return;
	l->share->parts_ns = now;
	for (uint64_t page = 0; page < l->pages && atomic_load(&l->vm->pages[PAGE_SHARED]); page++) {
		uint64_t w;

		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		w = atomic_load_explicit(lease_word(l, page), memory_order_relaxed);
		if (word_state(w) == PAGE_SHARED || word_state(w) == PAGE_BREAKING)
			sum += pool_part(pool, word_ref(w));
	}
	atomic_store(&l->share_part, sum);
}

/* ---- the worker's turn ---- */

bool share_step(struct lease *l)
{
	struct share *s = l->share;
	bool ticked, more = false;

	if (!order_settled(l)) {
		if (s->order.late)
			scan_pass_over(l);
		return false; /* the answer pokes */
	}
	ticked = atomic_exchange(&s->ticked, false);
	if (atomic_load(&l->vm->has_orders)) {
		more |= home_some(l, ticked);
		if (ticked && !s->order.pending)
			recall_some(l);
		if (s->order.pending)
			return false;
	}
	more |= scan_nudged(l, ticked);
	more |= scan_some(l);
	order_send(l);
	if (ticked)
		sum_parts(l);
	return more && !s->order.pending;
}

void share_end(struct lease *l)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct share *s = l->share;

	if (!s || !pool)
		return;
	if (s->order.pending)
		order_end(l, 0); /* an answer that comes now is nobody's */
	CRASH_POINT("share_end.begun");
	MOVES_BEGIN(&l->vm->stores);
	for (uint64_t page = 0; page < l->pages; page++) {
		uint64_t w;

		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		w = page_map_read(&l->map, page);
		if (word_state(w) != PAGE_SHARED && !is_mapped(w))
			continue;
		if (word_state(w) == PAGE_LOST)
			atomic_fetch_sub(&l->vm->lost_mapped_pages, 1);
		ledger_move(l, page, w, PAGE_ZERO);
		word_unlock(lease_word(l, page), word_make(PAGE_ZERO, 0) | (w & WORD_PIN_MASK));
		CRASH_POINT("share_end.unlocked");
		if (word_ref(w) && word_state(w) == PAGE_BREAKING)
			pool_release(pool, word_ref(w));
		if (word_ref(w))
			pool_put(pool, word_ref(w));
	}
	MOVES_END(&l->vm->stores);
	atomic_store(&l->share_part, 0);
}

/* ---- audit ---- */

int share_ask_private(struct lease *l, uint64_t page, uint64_t mask, uint64_t *ret_bits)
{
	struct run runs[RUN_MAX];
	uint8_t bits[RUN_MAX / 8] = { 0 };
	unsigned n = 0, k = 0;
	int r;

	*ret_bits = 0;
	for (unsigned i = 0; i < RUN_MAX; i++) {
		if (!(mask >> i & 1))
			continue;
		if (n && runs[n - 1].page + runs[n - 1].count == page + i)
			runs[n - 1].count++;
		else
			runs[n++] = (struct run){ page + i, 1 };
	}
	r = l->vm->orders.private_copies(l->vm->orders.userdata, l, runs, n, bits);
	for (unsigned i = 0; r == 0 && i < RUN_MAX; i++)
		if (mask >> i & 1) {
			*ret_bits |= (uint64_t)(bits[k / 8] >> (k % 8) & 1) << i;
			k++;
		}
	return r;
}
