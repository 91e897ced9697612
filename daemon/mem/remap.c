/* Remap orders: what the client is asked to map from the pool, or to bring home; gathered, sent, answered, settled.
 *
 * One order at a time for a lease.  From the gathering to the settling its words are locked, so it has few pages, and the worker
 * waits for the answer for a moment only: one that comes later wakes it.  An order that cannot be sent, or is carried out in part,
 * leaves the rest as it was.  One that is never answered leaves its words locked until the VM ends: what the client did is not
 * known.
 *
 * How many mappings an order adds is counted before it is sent, by the borders between pages that cannot be in one mapping: the
 * longest runs first, and none that is not worth it (mappings.h). */
#include "mem/share.h"

#include "base/clock.h"
#include "mem/inject.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>

#define ANSWER_NS     (20 * NS_PER_MS)	/* how long the worker waits for an answer before it does something else */
#define LATE_NS	      NS_PER_S
#define FULL_NS	      (10 * NS_PER_S)
#define PUNCH_RETRIES 3u

/* ---- mappings ---- */

/* Two pages are in one mapping of the client if this is the same for both: 0 for the lease, else how far the pool's page is
 * from the lease's. */
static uint64_t mapping_of(struct lease *l, uint64_t page)
{
	uint64_t w = page < l->pages ? page_map_read(&l->map, page) : 0;

	return page < l->pages && is_mapped(w) ? (word_ref(w) - page) | 1ull << 63 : 0;
}

/* Borders of mappings in [page, page + count], its two ends included.  Only the worker makes and unmakes mappings. */
static uint64_t borders(struct lease *l, uint64_t page, uint64_t count)
{
	uint64_t last = page ? mapping_of(l, page - 1) : 0, n = 0;

	for (uint64_t i = page; i <= page + count; i++) {
		uint64_t now = mapping_of(l, i);

		n += now != last;
		last = now;
	}
	return n;
}

uint64_t mappings_left(struct vm *vm)
{
	uint64_t have = atomic_load(&vm->mappings);

	return have < vm->vma_budget ? vm->vma_budget - have : 0;
}

/* For a run of so many pages, if it is worth them; leases of the VM may do so at the same time. */
static bool take_mappings(struct vm *vm, uint64_t pages, uint64_t cost)
{
	uint64_t have = atomic_load(&vm->mappings);

	if (now_ns() < atomic_load(&vm->mappings_full_until_ns))
		return false;
	do {
		if (have > vm->vma_budget || !mappings_allow(vm->vma_budget, vm->vma_budget - have, pages, cost))
			return false;
	} while (!atomic_compare_exchange_weak(&vm->mappings, &have, have + cost));
	return true;
}

bool mapped_run_next(struct lease *l, uint64_t page, struct mapped_run *ret)
{
	uint64_t last = page ? mapping_of(l, page - 1) : 0, now, next;

	for (; page < l->pages; page++, last = 0) {
		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		now = mapping_of(l, page);
		if (!now)
			continue;
		*ret = (struct mapped_run){ page, 1, 2 };
		while ((next = mapping_of(l, page + ret->count)) == now)
			ret->count++;
		ret->gives -= (last != 0) + (next != 0);
		return true;
	}
	return false;
}

/* ---- orders ---- */

void order_add(struct share *s, uint64_t page, uint64_t before, uint64_t entry)
{
	assert(!s->order.pending && s->order.n < ORDER_PAGES);
	s->order.what = REMAP_SHARE;
	s->order.page[s->order.n++] = (struct remap_page){ (uint32_t)page, before, entry };
}

static int by_page(const void *a, const void *b)
{
	const struct remap_page *x = a, *y = b;

	return x->page < y->page ? -1 : x->page > y->page;
}

/* A run of the order: pages [from, from + count) of its array. */
struct piece {
	unsigned from, count;
};

static unsigned pieces_of(const struct remap_order *o, struct piece *ret)
{
	unsigned n = 0;

	for (unsigned i = 0; i < o->n; i++) {
		const struct remap_page *k = &o->page[i];

		if (i && k->page == k[-1].page + 1 && (o->what != REMAP_SHARE || k->entry == k[-1].entry + 1) &&
			ret[n - 1].count < RUN_MAX)
			ret[n - 1].count++;
		else
			ret[n++] = (struct piece){ i, 1 };
	}
	return n;
}

static int longest_first(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : (x->from > y->from) - (x->from < y->from);
}

/* A page of a share order that will not be shared: as it was, clean. */
static void give_up(struct lease *l, const struct remap_page *k, bool held)
{
	struct pool *pool = atomic_load(&l->vm->pool);

	if (held)
		pool_release(pool, k->entry);
	pool_put(pool, k->entry);
	CRASH_POINT("share.given_up");
	word_unlock(lease_word(l, k->page), k->before);
	lease_wake(l, k->page, 1);
}

/* Hold the entry and say in the word where the page is on its way to. */
static bool prepare(struct lease *l, const struct remap_page *k)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	bool charged = false;

	if (pool_needs_frame(pool, k->entry)) {
		if (pool_charge(pool) < 0)
			return false;
		charged = true;
		CRASH_POINT("share.pool_charged");
	}
	if (pool_hold(pool, &l->bench, k->entry, charged, false) < 0)
		return false;
	CRASH_POINT("share.held");
	word_record(lease_word(l, k->page), word_make(PAGE_SHARED, k->entry) | WORD_MAPPED | WORD_MOVING);
	CRASH_POINT("share.recorded");
	return true;
}

/* Of a share order keep what may be mapped, the longest runs first; the rest stays as it is, and waits. */
static void fit(struct lease *l)
{
	struct share *s = l->share;
	struct remap_order *o = &s->order;
	struct piece piece[ORDER_PAGES];
	bool keep[ORDER_PAGES] = { false };
	unsigned n, kept = 0;

	n = pieces_of(o, piece);
	qsort(piece, n, sizeof *piece, longest_first);
	for (unsigned i = 0; i < n; i++) {
		const struct remap_page *first = &o->page[piece[i].from];
		uint64_t before = borders(l, first->page, piece[i].count), after;
		unsigned got = 0;

		while (got < piece[i].count && prepare(l, first + got))
			got++;
		after = borders(l, first->page, piece[i].count);
		if (got && after > before && !take_mappings(l->vm, got, after - before)) {
			for (unsigned k = 0; k < piece[i].count; k++) {
				give_up(l, first + k, k < got);
				scan_wait(l, first[k].page);
			}
			continue;
		}
		if (after < before)
			atomic_fetch_sub(&l->vm->mappings, before - after);
		for (unsigned k = 0; k < got; k++)
			keep[piece[i].from + k] = true;
		for (unsigned k = got; k < piece[i].count; k++) {
			give_up(l, first + k, false);
			scan_later(s, first[k].page);
		}
	}
	for (unsigned i = 0; i < o->n; i++)
		if (keep[i])
			o->page[kept++] = o->page[i];
	o->n = kept;
}

/* The page's word becomes `now`, and the mappings are counted again around it. */
static void settle_word(struct lease *l, uint64_t page, uint64_t now)
{
	uint64_t before = borders(l, page, 1), after;

	word_record(lease_word(l, page), now);
	after = borders(l, page, 1);
	atomic_fetch_add(&l->vm->mappings, after - before);
}

/* The lease's frames of pages that the client maps from the pool now; nobody maps them any more. */
static uint64_t punch_shared(struct lease *l, const struct batch *b)
{
	uint64_t all = full_mask(b->count), holes = batch_punch(l, b, all, NULL);

	for (unsigned i = 0; i < PUNCH_RETRIES && holes != all; i++)
		holes |= batch_punch(l, b, all & ~holes, NULL);
	if (holes != all)
		vm_set_trouble(l->vm, true, "the kernel keeps a page of its memory that was punched: its client has it in its hands");
	return holes;
}

static bool answer_bit(const struct remap_order *o, unsigned i)
{
	return o->bits[i / 8] >> (i % 8) & 1;
}

static void settle_shared(struct lease *l, unsigned done)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct remap_order *o = &l->share->order;
	uint64_t clean_pages = 0, dirty_pages = 0;

	for (unsigned at = 0; at < done; at += RUN_MAX) {
		struct batch b = { .count = done - at < RUN_MAX ? done - at : RUN_MAX };
		uint64_t words[RUN_MAX], parts = 0;
		unsigned clean = 0;

		for (unsigned i = 0; i < b.count; i++)
			b.page[i] = o->page[at + i].page;
		punch_shared(l, &b);
		CRASH_POINT("share.punched");
		for (unsigned i = 0; i < b.count; i++) {
			const struct remap_page *k = &o->page[at + i];
			bool written = !answer_bit(o, at + i) && !inject.twin_share_unverified;

			words[i] = word_make(written ? PAGE_BREAKING : PAGE_SHARED, k->entry) | (written ? 0 : WORD_MAPPED);
			ledger_move(l, k->page, k->before, word_state(words[i]));
			word_record(lease_word(l, k->page), words[i]);
			CRASH_POINT("share.settled");
			parts += pool_part(pool, k->entry);
			/* once it is home again it is seen for the first time */
			atomic_store_explicit(&l->share->sights[k->page], 0, memory_order_relaxed);
			if (written) {
				share_break_later(l, k->page);
			} else {
				pool_release(pool, k->entry);
				clean++;
			}
		}
		batch_unlock_and_wake(l, &b, full_mask(b.count), words);
		/* exact when they are summed up; until then rather too much */
		atomic_fetch_add(&l->share_part, parts);
		segment_uncharge(l->memory, clean);
		clean_pages += clean;
		dirty_pages += b.count - clean;
	}
	COUNT(l->vm, share_pages, clean_pages + dirty_pages);
	COUNT(l->vm, share_dirty_pages, dirty_pages);
	for (unsigned i = done; i < o->n; i++) {
		settle_word(l, o->page[i].page, o->page[i].before);
		give_up(l, &o->page[i], true);
		/* a clean page is not looked at by itself again */
		scan_later(l->share, o->page[i].page);
	}
}

/* Twin: what was never broken is taken from the pool's frame instead of the client's view. */
static void overwrite_from_pool(struct lease *l, const struct remap_page *k)
{
	if (word_state(k->before) != PAGE_SHARED ||
		pool_read(atomic_load(&l->vm->pool), &l->bench, k->entry, l->bench.spare, false) < 0)
		return;
	if (pwrite(l->memory->fd, l->bench.spare, PAGE_SIZE, (off_t)(k->page * PAGE_SIZE)) < 0)
		return;
}

static void settle_home(struct lease *l, unsigned done)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct remap_order *o = &l->share->order;
	uint64_t uncharge = 0;

	for (unsigned i = 0; i < o->n; i++) {
		const struct remap_page *k = &o->page[i];
		bool broken = word_state(k->before) == PAGE_BREAKING;
		uint64_t now = k->before;

		if (i < done) {
			if (inject.twin_home_from_pool)
				overwrite_from_pool(l, k);
			now = word_make(PAGE_RESIDENT, ledger_move(l, k->page, k->before, PAGE_RESIDENT) & 0xffff) |
				(k->before & WORD_PIN_MASK) | 1ull << WORD_USE_SHIFT;
			settle_word(l, k->page, now);
			CRASH_POINT("home.settled");
			if (k->entry) {
				pool_release(pool, k->entry);
				pool_put(pool, k->entry);
			}
			uncharge += broken; /* of the two frames the private copy's is free */
		} else {
			word_record(lease_word(l, k->page), now);
			if (broken)
				share_break_later(l, k->page);
			else
				pool_release(pool, k->entry);
			uncharge++;
		}
		CRASH_POINT("home.released");
		word_unlock(lease_word(l, k->page), now);
		CRASH_POINT("home.unlocked");
		lease_wake(l, k->page, 1);
	}
	segment_uncharge(l->memory, uncharge);
	COUNT(l->vm, home_pages, done);
}

/* ---- after a restart ---- */

void order_found(struct lease *l, const struct remap_page *pages, unsigned n)
{
	struct remap_order *o = &l->share->order;

	atomic_fetch_add(&l->vm->mappings, borders(l, 0, l->pages));
	if (!n)
		return;
	MOVES_BEGIN(&l->vm->stores);
	o->what = REMAP_SETTLE;
	memcpy(o->page, pages, n * sizeof *pages);
	o->n = n;
	o->pending = true;
	o->sent_ns = 0;
}

/* Ask the client what became of an order that our predecessor gave.  It may not be back yet: then again, when it is. */
static void ask_settle(struct lease *l)
{
	struct share *s = l->share;
	struct remap_order *o = &s->order;
	struct pool_run runs[ORDER_PAGES];
	struct piece piece[ORDER_PAGES];
	unsigned n = pieces_of(o, piece);

	for (unsigned i = 0; i < n; i++)
		runs[i] = (struct pool_run){ o->page[piece[i].from].page, piece[i].count, 0 };
	pthread_mutex_lock(&s->lock);
	o->answered = false;
	if (l->vm->orders.remap(l->vm->orders.userdata, l, REMAP_SETTLE, runs, n, &o->id) == 0)
		o->sent_ns = now_ns();
	pthread_mutex_unlock(&s->lock);
}

/* `done` 0: the client is gone, nobody will say; the lease ends, and gives up what the words refer to. */
static void settle_found(struct lease *l, unsigned done)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct remap_order *o = &l->share->order;
	uint64_t uncharge = 0;

	for (unsigned i = 0; i < o->n; i++) {
		const struct remap_page *k = &o->page[i];
		bool pooled = answer_bit(o, i), clean = pooled && answer_bit(o, o->n + i);
		struct batch b = { .count = 1, .page = { k->page } };
		uint64_t pins = k->before & WORD_PIN_MASK, now;

		if (!done) {
			if (word_state(k->before) == PAGE_SHARED)
				pool_release(pool, k->entry);
			word_unlock(lease_word(l, k->page), k->before);
			continue;
		}
		if (pooled) {
			/* the lease's own page is of before the order, or a copy that did not get home: nobody maps it */
			punch_shared(l, &b);
			now = clean ? word_make(PAGE_SHARED, k->entry) | WORD_MAPPED : word_make(PAGE_BREAKING, k->entry);
			ledger_move(l, k->page, k->before, word_state(now));
			uncharge += clean ? 2 : 1;
		} else {
			now = word_make(PAGE_RESIDENT, ledger_move(l, k->page, k->before, PAGE_RESIDENT) & 0xffff);
			uncharge++;
		}
		settle_word(l, k->page, now | pins);
		CRASH_POINT("settle.recorded");
		if (!pooled || clean)
			pool_release(pool, k->entry);
		else
			share_break_later(l, k->page);
		if (!pooled)
			pool_put(pool, k->entry);
		word_unlock(lease_word(l, k->page), now | pins);
		lease_wake(l, k->page, 1);
	}
	segment_uncharge(l->memory, uncharge);
}

/* The order was carried out for its first `done` pages; the rest is as it was. */
void order_end(struct lease *l, unsigned done)
{
	struct share *s = l->share;

	if (s->order.what == REMAP_SHARE)
		settle_shared(l, done);
	else if (s->order.what == REMAP_HOME)
		settle_home(l, done);
	else
		settle_found(l, done);
	MOVES_END(&l->vm->stores);
	pthread_mutex_lock(&s->lock);
	s->order.pending = false;
	pthread_mutex_unlock(&s->lock);
	s->order.n = 0;
	s->order.late = false;
	atomic_store(&s->late, false);
}

/* Whether the answer is there and has been acted on: another order may be gathered. */
bool order_settled(struct lease *l)
{
	struct share *s = l->share;
	struct remap_order *o = &s->order;
	unsigned done;
	bool answered;
	int r;

	if (!o->pending)
		return true;
	pthread_mutex_lock(&s->lock);
	answered = o->answered;
	done = o->pages;
	r = o->r;
	pthread_mutex_unlock(&s->lock);
	if (!o->sent_ns || (answered && o->what == REMAP_SETTLE && r < 0 && r != -EPROTO)) {
		if (atomic_load(&l->vm->has_orders))
			ask_settle(l);
		return false;
	}
	if (!answered) {
		if (!o->late && now_ns() - o->sent_ns > LATE_NS) {
			o->late = true;
			atomic_store(&s->late, true);
			COUNT(l->vm, orders_late, 1);
		}
		return false;
	}
	if (r < 0 && r != -ENOMEM) {
		/* what it did is not known: the pages wait for the end of the VM, which is near */
		if (r != -ENOTCONN)
			vm_set_trouble(l->vm, true, "its library left an order unanswered, and answered a later one");
		return false;
	}
	if (r == 0 && o->what == REMAP_SHARE && done < o->n) {
		/* It has no mapping left, or releases this lease: do not ask for more mappings for a while. */
		COUNT(l->vm, share_failed_pages, o->n - done);
		atomic_store(&l->vm->mappings_full_until_ns, now_ns() + FULL_NS);
	}
	CRASH_POINT("order.answered");
	/* -ENOMEM: it was never sent */
	order_end(l, r < 0 ? 0 : done);
	return true;
}

void share_settle(struct lease *l)
{
	if (l->share)
		order_settled(l);
}

bool order_send(struct lease *l)
{
	struct share *s = l->share;
	struct remap_order *o = &s->order;
	struct pool_run runs[ORDER_PAGES];
	struct piece piece[ORDER_PAGES];
	uint64_t until;
	unsigned n;
	int r;

	if (!o->n)
		return true;
	MOVES_BEGIN(&l->vm->stores);
	qsort(o->page, o->n, sizeof *o->page, by_page);
	if (o->what == REMAP_SHARE)
		fit(l);
	if (!o->n) {
		MOVES_END(&l->vm->stores);
		return true;
	}
	CRASH_POINT("order.gathered");
	n = pieces_of(o, piece);
	for (unsigned i = 0; i < n; i++)
		runs[i] = (struct pool_run){ o->page[piece[i].from].page, piece[i].count,
			o->what == REMAP_SHARE ? o->page[piece[i].from].entry : 0 };
	/* Over the sending, so that no answer comes before its number is known. */
	pthread_mutex_lock(&s->lock);
	o->answered = false;
	o->sent_ns = now_ns();
	r = l->vm->orders.remap(l->vm->orders.userdata, l, o->what, runs, n, &o->id);
	o->pending = r == 0;
	pthread_mutex_unlock(&s->lock);
	CRASH_POINT("order.sent");
	if (r < 0) {
		order_end(l, 0);
		return false;
	}
	until = o->sent_ns + ANSWER_NS;
	while (!order_settled(l) && now_ns() < until && !atomic_load(&l->reclaim))
		lease_wait_poke(l, &s->pokes, until > now_ns() ? until - now_ns() : 0);
	return true;
}

void share_answered(struct lease *l, uint64_t order, int r, const uint8_t *bits, unsigned pages)
{
	struct share *s = l->share;
	struct remap_order *o;

	if (!s)
		return;
	o = &s->order;
	pthread_mutex_lock(&s->lock);
	if (o->pending && o->id == order && !o->answered) {
		o->answered = true;
		o->r = r;
		o->pages = pages < o->n ? pages : o->n;
		if (r == 0)
			memcpy(o->bits, bits, ((o->what == REMAP_SETTLE ? 2 : 1) * o->n + 7) / 8);
	}
	pthread_mutex_unlock(&s->lock);
	share_poke(l);
}
