/* Which pages to take.
 *
 * Every resident page carries the generation of its last fill or known use (a generation is an eighth of what is
 * resident, lease.c).  A hand goes round the page map and takes pages of the oldest generation: that is fill
 * order, and neighbours that were filled together leave together, which makes long runs.
 *
 *	fill-order	just that
 *	random		any resident page (as ESX picks pages to swap)
 *	second-chance	that, and a page that was used since is spared once and made newest
 *
 * How use is known without a fault: candidates are *aged*, well before they are needed: the library is ordered to
 * drop their mappings (zap), which leaves the pages; those that are mapped again when their turn comes were used.  The
 * distance between the two is the length of the queue, up to an eighth of what is resident.  A page that was evicted
 * and came back has shown its use without anybody's help: it has one use of credit, and is passed over once.
 * A library that does not answer within 50 ms is not asked for ten seconds; its pages go in fill order with that credit.
 *
 * A zap is only a hint to the kernel's page tables: content, protection and charge do not change.  What an answer
 * says is never trusted with more than the order of victims. */
#include "mem/vm_impl.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_MIN   512u
#define QUEUE_MAX   16384u		/* power of two */
#define ASK_PAGES   (RUN_MAX * 8)	/* pages in one order */
#define ANSWER_NS   (50 * NS_PER_MS)	/* an answer that took longer is the last for a while */
#define AGE_ORDERS  2u			/* most zaps sent before a look */
#define ASK_ROUNDS  3u			/* answers that spare everything, before pages are taken all the same */
#define QUIET_NS    (10 * NS_PER_S)

struct victims {
	uint64_t hand;			/* where the round is: next page, */
	uint64_t epoch, left;		/* generation that it looks for, words left in its walk */
	uint64_t random;
	uint64_t quiet_until_ns;
	uint32_t *queue;		/* aged candidates, oldest first: [head, tail) modulo QUEUE_MAX */
	uint64_t head, tail;
	uint32_t ready[ASK_PAGES];	/* looked at and not used */
	unsigned ready_count, ready_next;
};

int victims_new(struct victims **ret, struct lease *l)
{
	struct victims *v = calloc(1, sizeof *v);

	if (!v)
		return -ENOMEM;
	v->queue = calloc(QUEUE_MAX, sizeof *v->queue);
	if (!v->queue) {
		free(v);
		return -ENOMEM;
	}
	v->epoch = UINT64_MAX;
	v->random = 0x9e3779b97f4a7c15ull ^ l->gpa ^ l->id;
	*ret = v;
	return 0;
}

void victims_free(struct victims *v)
{
	if (!v)
		return;
	free(v->queue);
	free(v);
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Lock a page if it can be taken now. */
static bool take(struct lease *l, uint64_t page, struct batch *b)
{
	uint64_t w;

	if (!page_map_has(&l->map, page) || word_state(atomic_load_explicit(lease_word(l, page), memory_order_relaxed)) != PAGE_RESIDENT ||
		!word_lock(lease_word(l, page), &w))
		return false;
	if (word_state(w) != PAGE_RESIDENT || word_pins(w)) {
		word_unlock(lease_word(l, page), w);
		lease_wake(l, page, 1);
		return false;
	}
	b->page[b->count] = page;
	b->before[b->count++] = w;
	return true;
}

static int by_page(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sort_batch(struct lease *l, struct batch *b)
{
	qsort(b->page, b->count, sizeof b->page[0], by_page);
	/* the words are ours: read them again in the new order */
	for (unsigned i = 0; i < b->count; i++)
		b->before[i] = atomic_load_explicit(lease_word(l, b->page[i]), memory_order_relaxed) & ~WORD_BUSY;
}

/* Go round for pages of the oldest generations; `visit` answers whether to go on.  The place is kept between calls, so
 * that a round costs one look at each word a generation, however small the bites.  Pinned pages are made newest, so that
 * they are not met again soon; so are, with `credit`, pages that have uses to their credit. */
static void go_round(struct lease *l, bool credit, bool (*visit)(struct lease *, uint64_t, uint64_t, void *), void *data)
{
	struct victims *v = l->victims;
	uint64_t newest, oldest = ledger_oldest(l, &newest), begun = 0;

	if (v->epoch < oldest)
		v->left = 0; /* the generation it was looking for has no pages any more */
	/* once through all generations, from wherever the hand is, and the rest of the walk it was in */
	while (begun <= newest - oldest + 1) {
		if (!v->left) {
			v->epoch = v->epoch >= oldest && v->epoch < newest ? v->epoch + 1 : oldest;
			v->left = l->pages;
			begun++;
		}
		while (v->left) {
			uint64_t page = v->hand < l->pages ? v->hand : 0, w, step = 1;

			if (!page_map_has(&l->map, page)) {
				step = MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES;
				step = step < l->pages - page ? step : l->pages - page;
			}
			v->hand = page + step;
			v->left -= step < v->left ? step : v->left;
			if (!page_map_has(&l->map, page))
				continue;
			w = atomic_load_explicit(lease_word(l, page), memory_order_relaxed);
			if (word_state(w) != PAGE_RESIDENT || (w & WORD_BUSY) || !epoch_is(w, v->epoch))
				continue;
			if (word_pins(w)) {
				ledger_restamp(l, page, w, true, 0);
				continue;
			}
			if (credit && (w & WORD_USE_MASK)) {
				if (ledger_restamp(l, page, w, true, (unsigned)((w & WORD_USE_MASK) >> WORD_USE_SHIFT) - 1))
					COUNT(l->vm, second_chances, 1);
				continue;
			}
			if (!visit(l, page, w, data))
				return;
		}
	}
}

void victims_restart(struct lease *l)
{
	l->victims->left = 0;
	l->victims->epoch = UINT64_MAX;
}

static bool visit_take(struct lease *l, uint64_t page, uint64_t w, void *data)
{
	struct batch *b = data;

	(void)w;
	take(l, page, b);
	return b->count < RUN_MAX;
}

static void pick_random(struct lease *l, struct batch *b)
{
	for (unsigned tries = 0; tries < RUN_MAX * 64 && b->count < RUN_MAX; tries++)
		take(l, next_random(&l->victims->random) % l->pages, b);
	if (!b->count) /* hardly anything is resident */
		go_round(l, false, visit_take, b);
	sort_batch(l, b);
}

/* ---- second chance by aging ---- */

/* An ordinary page again: it can be a candidate once more. */
static void unage(struct lease *l, uint64_t page)
{
	uint64_t w = page_map_read(&l->map, page);

	if (word_state(w) == PAGE_RESIDENT && (w & WORD_AGED) && !(w & WORD_BUSY))
		atomic_compare_exchange_strong(lease_word(l, page), &w, w & ~WORD_AGED);
}

static unsigned runs_of(const uint32_t *pages, unsigned n, struct run *runs)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		if (count && runs[count - 1].page + runs[count - 1].count == pages[i])
			runs[count - 1].count++;
		else
			runs[count++] = (struct run){ pages[i], 1 };
	}
	return count;
}

struct gathering {
	uint32_t pages[ASK_PAGES];
	unsigned count;
};

static bool visit_age(struct lease *l, uint64_t page, uint64_t w, void *data)
{
	struct gathering *g = data;

	if (!(w & WORD_AGED) && atomic_compare_exchange_strong(lease_word(l, page), &w, w | WORD_AGED))
		g->pages[g->count++] = (uint32_t)page;
	return g->count < ASK_PAGES;
}

static void age_more(struct lease *l)
{
	struct victims *v = l->victims;
	uint64_t want = atomic_load(&l->vm->pages[PAGE_RESIDENT]) / 8;
	struct gathering g;
	struct run runs[ASK_PAGES];

	want = want < QUEUE_MIN ? QUEUE_MIN : want > QUEUE_MAX - ASK_PAGES ? QUEUE_MAX - ASK_PAGES : want;
	/* the queue grows a little with each look, so that an answer never waits behind many zaps */
	for (unsigned i = 0; i < AGE_ORDERS && v->tail - v->head < want; i++) {
		g.count = 0;
		go_round(l, true, visit_age, &g);
		if (!g.count)
			return;
		/* not sent: they would all look used, because their mappings were never dropped */
		if (l->vm->orders.zap(l->vm->orders.userdata, l, runs, runs_of(g.pages, g.count, runs)) < 0) {
			for (unsigned k = 0; k < g.count; k++)
				unage(l, g.pages[k]);
			v->quiet_until_ns = now_ns() + QUIET_NS;
			return;
		}
		for (unsigned k = 0; k < g.count; k++)
			v->queue[v->tail++ % QUEUE_MAX] = g.pages[k];
		if (g.count < ASK_PAGES)
			return;
	}
}

/* Ask about the oldest candidates; those that were not used become ready.  false: there are none. */
static bool look(struct lease *l, bool spare)
{
	struct victims *v = l->victims;
	struct run runs[ASK_PAGES];
	uint8_t bits[ASK_PAGES / 8];
	uint32_t pages[ASK_PAGES];
	uint64_t began_ns;
	unsigned n = 0;
	int r = -ENODATA;

	while (n < ASK_PAGES && v->head < v->tail) {
		uint32_t page = v->queue[v->head++ % QUEUE_MAX];
		uint64_t w = page_map_read(&l->map, page);

		if (word_state(w) == PAGE_RESIDENT && (w & WORD_AGED))
			pages[n++] = page;
	}
	if (!n)
		return v->head < v->tail;
	if (spare) {
		memset(bits, 0, sizeof bits);
		began_ns = now_ns();
		r = l->vm->orders.present(l->vm->orders.userdata, l, runs, runs_of(pages, n, runs), bits);
		/* reclaim cannot wait for a library that is slow, by accident or on purpose */
		if (r < 0 || now_ns() - began_ns > ANSWER_NS)
			v->quiet_until_ns = now_ns() + QUIET_NS;
	}
	v->ready_count = v->ready_next = 0;
	for (unsigned i = 0; i < n; i++) {
		if (r == 0 && (bits[i / 8] >> (i % 8) & 1)) {
			uint64_t w = page_map_read(&l->map, pages[i]);

			if (word_state(w) == PAGE_RESIDENT && ledger_restamp(l, pages[i], w, true, 0))
				COUNT(l->vm, second_chances, 1);
		} else {
			v->ready[v->ready_count++] = pages[i];
		}
	}
	return true;
}

/* Take an aged page; if that cannot be just now, it is an ordinary page again. */
static void take_aged(struct lease *l, uint64_t page, struct batch *b)
{
	if (!take(l, page, b))
		unage(l, page);
}

static void take_ready(struct lease *l, struct batch *b)
{
	struct victims *v = l->victims;

	while (b->count < RUN_MAX && v->ready_next < v->ready_count)
		take_aged(l, v->ready[v->ready_next++], b);
}

static void pick_second_chance(struct lease *l, struct batch *b)
{
	struct victims *v = l->victims;

	take_ready(l, b);
	if (b->count == RUN_MAX)
		goto out;
	if (!atomic_load(&l->vm->has_orders) || now_ns() < v->quiet_until_ns) {
		/* those in the queue were oldest before */
		while (b->count < RUN_MAX && v->head < v->tail)
			take_aged(l, v->queue[v->head++ % QUEUE_MAX], b);
		if (b->count < RUN_MAX)
			go_round(l, true, visit_take, b);
		/* everything had credit: it has none now */
		if (!b->count)
			go_round(l, false, visit_take, b);
		goto out;
	}
	for (unsigned round = 0; !b->count; round++) {
		age_more(l);
		if (!look(l, round < ASK_ROUNDS))
			break;
		take_ready(l, b);
	}
	if (!b->count)
		go_round(l, false, visit_take, b);
out:
	sort_batch(l, b);
}

unsigned victims_pick(struct lease *l, struct batch *b)
{
	b->count = 0;
	switch (atomic_load_explicit(&l->vm->settings->victim, memory_order_relaxed)) {
	case VICTIM_RANDOM:
		pick_random(l, b);
		break;
	case VICTIM_FILL_ORDER:
		go_round(l, false, visit_take, b);
		sort_batch(l, b);
		break;
	default:
		pick_second_chance(l, b);
	}
	return b->count;
}
