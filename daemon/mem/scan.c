/* Which pages are alike: the hand goes round the page map and looks at what is resident.
 *
 *	first sight	read, hash, remember the hash; no protection.  A page of zeros is dropped.
 *	second sight	lock > write-protect > read > hash.  Changed: remember the new hash, un-protect.  Unchanged: the page
 *			is *clean*, stays protected, and is not read again until a write to it raises an event.
 *	a clean page	is looked for in the pool.  There: compared byte by byte, and shared (share.c).  Not there, but
 *			another clean page was hinted at with the same hash: its content becomes an entry, this page is the
 *			first to share it, and the other one's lease is nudged to look.  Neither: a hint of it is left.
 *
 * A clean page that has its like and may not be mapped, because mappings are few (mappings.h), *waits*: it is looked at again
 * in a pass in which it may.
 *
 * So memory that nobody writes to costs two reads, and from then on a look at a word a pass.  What is compared with the pool
 * is a private copy of bytes that were read after the protection: the guest cannot change them between the comparison and
 * the sharing.  (What a client does to its memfd behind our back is its own loss, and reaches nobody: the pool's bytes are
 * never taken from a place that it can write to.)
 *
 * A guest that writes to a page again and again pays an event for each protection.  Each time that a write ends a
 * protection is a strike; after two, the page is left alone for 3, 7, 15, 31 passes.  A page that is still clean when the
 * hand comes again has none.
 *
 * The second look takes pages in batches that are locked together, and those that will be shared stay locked until the client
 * has answered: a guest that writes to them waits for about a millisecond. */
#include "mem/share.h"

#include "mem/checksum.h"
#include "mem/inject.h"

#include <errno.h>
#include <unistd.h>

#define WORDS_MAX   (1u << 16)	/* words that the hand passes over in a step */
#define GRANTS_MAX  10u	/* that a lease may save up */
#define STRIKES_MAX 5u
#define STRIKE_MASK 7u
#define QUIET_SHIFT 3u

static uint32_t short_hash(uint64_t hash)
{
	uint32_t s = (uint32_t)(hash >> 32);

	return s ? s : 1;
}

static bool is_member(struct lease *l)
{
	return atomic_load(&l->vm->pool) && l->share->member != HINTS_NO_MEMBER && vm_sharing(l->vm) == SHARING_POOL;
}

void share_dirtied(struct lease *l, uint64_t page, bool by_guest)
{
	struct share *s = l->share;

	atomic_fetch_sub(&l->vm->clean_pages, 1);
	atomic_store_explicit(&s->sights[page], 0, memory_order_relaxed);
	if (by_guest) {
		unsigned strikes = (atomic_load_explicit(&s->quiet[page], memory_order_relaxed) & STRIKE_MASK) + 1;

		strikes = strikes < STRIKES_MAX ? strikes : STRIKES_MAX;
		atomic_store_explicit(&s->quiet[page],
			(uint8_t)(strikes | (strikes > 1 ? ((1u << strikes) - 1) << QUIET_SHIFT : 0)), memory_order_relaxed);
	}
}

bool share_hint_holds(struct lease *l, uint64_t page, uint32_t hash)
{
	uint64_t w;

	if (page >= l->pages || !page_map_has(&l->map, page))
		return false;
	w = page_map_read(&l->map, page);
	/* two that are looked at by two workers at this moment must find one another: the one that hinted first is busy still */
	return word_state(w) == PAGE_RESIDENT && (w & (WORD_CLEAN | WORD_BUSY)) &&
		atomic_load_explicit(&l->share->sights[page], memory_order_relaxed) == hash;
}

uint32_t share_sight(struct lease *l, uint64_t page)
{
	return page < l->pages ? atomic_load_explicit(&l->share->sights[page], memory_order_relaxed) : 0;
}

uint64_t scan_later(struct share *s, uint64_t page)
{
	atomic_fetch_or(&s->nudged[page / 64], 1ull << page % 64);
	return atomic_fetch_add(&s->n_nudged, 1) + 1;
}

void share_nudge(struct lease *l, uint64_t page)
{
	/* an order's worth is worth a wake; fewer wait for the next tick */
	if (page < l->pages && scan_later(l->share, page) % ORDER_PAGES == 0)
		share_poke(l);
}

/* ---- first sight ---- */

/* Zero pages of the batch, whose words are locked, and which are protected: `zero` of them are dropped. Unlocks those. */
static void drop_zeros(struct lease *l, const struct batch *b, uint64_t zero)
{
	struct vm *vm = l->vm;
	uint64_t words[RUN_MAX], holes;

	if (!zero)
		return;
	MOVES_BEGIN(&vm->stores);
	for (unsigned i = 0; i < b->count; i++)
		if (zero >> i & 1) {
			words[i] = word_make(PAGE_ZERO, 0);
			word_record(lease_word(l, b->page[i]), words[i] | WORD_MOVING);
		}
	CRASH_POINT("zeros.recorded");
	holes = batch_punch(l, b, zero, NULL);
	CRASH_POINT("zeros.punched");
	for (unsigned i = 0; i < b->count; i++) {
		if (!(zero >> i & 1))
			continue;
		if (holes >> i & 1)
			ledger_move(l, b->page[i], b->before[i], PAGE_ZERO);
		else
			words[i] = b->before[i]; /* kept by the kernel, and zero */
		word_record(lease_word(l, b->page[i]), words[i]);
	}
	CRASH_POINT("zeros.settled");
	batch_unprotect(l, b, zero);
	CRASH_POINT("zeros.unprotected");
	batch_unlock_and_wake(l, b, zero, words);
	MOVES_END(&vm->stores);
	segment_uncharge(l->memory, (uint64_t)__builtin_popcountll(holes));
	COUNT(vm, scan_zero_pages, (uint64_t)__builtin_popcountll(holes));
}

void scan_wait(struct lease *l, uint64_t page)
{
	struct share *s = l->share;
	uint64_t left = mappings_left(l->vm);

	s->waiting[page / 64] |= 1ull << page % 64;
	s->low_left = left < s->low_left ? left : s->low_left;
	COUNT(l->vm, share_budget_pages, 1);
}

/* Lock those that are still what they were taken for.  Those that somebody else has just now are nudged again, if they were. */
static void lock_pages(struct lease *l, const uint32_t *pages, unsigned n, bool clean, bool nudged, struct batch *b)
{
	b->count = 0;
	for (unsigned i = 0; i < n; i++) {
		uint64_t w;

		if (!page_map_has(&l->map, pages[i]))
			continue;
		if (!word_lock(lease_word(l, pages[i]), &w)) {
			if (nudged)
				scan_later(l->share, pages[i]);
			continue;
		}
		if (word_state(w) != PAGE_RESIDENT || word_pins(w) || (!clean && (w & WORD_CLEAN))) {
			word_unlock(lease_word(l, pages[i]), w);
			lease_wake(l, pages[i], 1);
			continue;
		}
		b->page[b->count] = pages[i];
		b->before[b->count++] = w;
	}
}

static void look_first(struct lease *l, const uint32_t *pages, unsigned n)
{
	struct share *s = l->share;
	struct batch b = { .count = n }, zeros;
	uint32_t zero[RUN_MAX];
	unsigned n_zero = 0;
	uint64_t have, still = 0;
	bool pool = is_member(l);

	for (unsigned i = 0; i < n; i++)
		b.page[i] = pages[i];
	/* nobody is locked out: what is read may change at once, and may be evicted: then it looks like zeros */
	have = batch_copy_out(l, &b, l->bench.buf, full_mask(n));
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *content = l->bench.buf + i * PAGE_SIZE;

		if (!(have >> i & 1))
			continue;
		if (page_is_zero(content))
			zero[n_zero++] = pages[i];
		else if (pool)
			atomic_store_explicit(&s->sights[pages[i]], short_hash(checksum_keyed(content)), memory_order_relaxed);
	}
	COUNT(l->vm, scanned_pages, n);
	if (!n_zero)
		return;
	lock_pages(l, zero, n_zero, false, false, &zeros);
	if (!zeros.count)
		return;
	have = batch_copy_out(l, &zeros, l->bench.buf, batch_protect(l, &zeros));
	for (unsigned i = 0; i < zeros.count; i++)
		if ((have >> i & 1) && page_is_zero(l->bench.buf + i * PAGE_SIZE))
			still |= 1ull << i;
	drop_zeros(l, &zeros, still);
	still = full_mask(zeros.count) & ~still;
	batch_unprotect(l, &zeros, still);
	batch_unlock_and_wake(l, &zeros, still, zeros.before);
}

/* ---- second sight ---- */

/* How many pages from i on are neighbours and unchanged: their entries are to be neighbours too. */
static unsigned run_from(const struct batch *b, uint64_t mask, unsigned i)
{
	unsigned n = 1;

	while (i + n < b->count && (mask >> (i + n) & 1) && b->page[i + n] == b->page[i] + n)
		n++;
	return n;
}

/* A page that another one is said to be like. */
struct like {
	uint32_t member, page;
};

static bool find_hint(struct lease *l, uint64_t page, uint64_t hash, bool remember, struct like *ret)
{
	struct hints *hints = pool_hints(atomic_load(&l->vm->pool));

	return hints_find(hints, short_hash(hash), l->share->member, (uint32_t)page, remember, &ret->member, &ret->page);
}

/* The entry for a page that is like another: perhaps there is one meanwhile.  Found it otherwise, for the other as well. */
static bool found_entry(struct lease *l, uint64_t hash, const uint8_t *content, const struct like *like, uint64_t near,
	unsigned run, uint64_t *ret_entry)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct lease *owner;
	int r = pool_find(pool, &l->bench, hash, content, ret_entry);

	if (r)
		return r > 0;
	r = pool_add(pool, hash, content, near, run, ret_entry);
	if (r == -EEXIST)
		return pool_find(pool, &l->bench, hash, content, ret_entry) > 0;
	if (r < 0)
		return false;
	l->pool_added++;
	owner = hints_lock_member(pool_hints(pool), like->member);
	if (owner)
		share_nudge(owner, like->page);
	hints_unlock(pool_hints(pool));
	return true;
}

/* Whether the other one has a mapping for it: an entry that only one maps saves nothing. */
static bool other_may_map(struct lease *l, const struct like *like)
{
	struct hints *hints = pool_hints(atomic_load(&l->vm->pool));
	struct lease *owner = hints_lock_member(hints, like->member);
	bool may = owner && mappings_allow(owner->vm->vma_budget, mappings_left(owner->vm), 1, 2);

	hints_unlock(hints);
	return may;
}

/* Whether page i, which nobody shares yet, is to have an entry (mappings.h).  `alike`: those of the batch that may be shared. */
static bool may_found(struct lease *l, const struct batch *b, uint64_t alike, unsigned i, const struct like *like)
{
	struct vm *vm = l->vm;

	if (i && (alike >> (i - 1) & 1) && b->page[i - 1] + 1 == b->page[i])
		return true;
	if (i + 1 < b->count && (alike >> (i + 1) & 1) && b->page[i] + 1 == b->page[i + 1])
		return true;
	if (mappings_may_found(vm->vma_budget, mappings_left(vm), l->share->found_floor))
		return other_may_map(l, like);
	scan_wait(l, b->page[i]);
	return false;
}

/* A page on its way out of its frame: the pool may have it, or it is known to be like another.  No client is needed: the page
 * is not mapped, and its next fault copies the content.  So duplicates are stored once also beyond the mappings that
 * the client may have. */
bool share_evicted(struct lease *l, uint64_t page, const uint8_t *content, uint64_t *ret_word)
{
	uint64_t hash, entry;
	struct like like;

	if (!l->share || !is_member(l) || !atomic_load_explicit(&l->vm->settings->share_rate_max, memory_order_relaxed))
		return false;
	hash = checksum_keyed(content);
	if (pool_find(atomic_load(&l->vm->pool), &l->bench, hash, content, &entry) <= 0 &&
		(!find_hint(l, page, hash, false, &like) || !found_entry(l, hash, content, &like, 0, 1, &entry)))
		return false;
	*ret_word = word_make(PAGE_SHARED, entry);
	return true;
}

/* `nudged`: they are thought to be like another page, so it does not matter what they were at the last look. */
static void look_again(struct lease *l, const uint32_t *pages, unsigned n, bool nudged)
{
	struct share *s = l->share;
	struct vm *vm = l->vm;
	uint64_t words[RUN_MAX], hash[RUN_MAX], entry[RUN_MAX], all, prot, have, zero = 0, same = 0, like, alike, rest;
	struct pool *pool = atomic_load(&vm->pool);
	struct like other[RUN_MAX];
	struct batch b;

	lock_pages(l, pages, n, true, nudged, &b);
	if (!b.count)
		return;
	for (unsigned i = 0; i < b.count; i++)
		s->waiting[b.page[i] / 64] &= ~(1ull << b.page[i] % 64);
	all = full_mask(b.count);
	prot = inject.twin_share_unprotected ? all : batch_protect(l, &b);
	CRASH_POINT("scan.protected");
	have = batch_copy_out(l, &b, l->bench.buf, prot);
	for (unsigned i = 0; i < b.count; i++) {
		const uint8_t *content = l->bench.buf + i * PAGE_SIZE;

		if (!(have >> i & 1))
			continue;
		if (page_is_zero(content)) {
			zero |= 1ull << i;
			continue;
		}
		hash[i] = checksum_keyed(content);
		if (nudged || short_hash(hash[i]) == atomic_load_explicit(&s->sights[b.page[i]], memory_order_relaxed))
			same |= 1ull << i;
		atomic_store_explicit(&s->sights[b.page[i]], short_hash(hash[i]), memory_order_relaxed);
	}
	like = pool_find_many(pool, &l->bench, same, hash, l->bench.buf, entry);
	alike = 0;
	for (unsigned i = 0; i < b.count; i++)
		if (!((same & ~like) >> i & 1))
			continue;
		else if (find_hint(l, b.page[i], hash[i], true, &other[i]))
			alike |= 1ull << i;
		else if (pool_find(pool, &l->bench, hash[i], l->bench.buf + i * PAGE_SIZE, &entry[i]) > 0)
			like |= 1ull << i; /* just founded */
	alike |= like;
	for (unsigned i = 0; i < b.count; i++) {
		bool next = i && b.page[i] == b.page[i - 1] + 1 && (like >> (i - 1) & 1);

		/* among those that were not found there may be two that are alike */
		if (((alike & ~like) >> i & 1) && may_found(l, &b, alike, i, &other[i]) &&
			found_entry(l, hash[i], l->bench.buf + i * PAGE_SIZE, &other[i], next ? entry[i - 1] + 1 : 0,
				run_from(&b, same, i), &entry[i]))
			like |= 1ull << i;
		if (like >> i & 1)
			order_add(s, b.page[i], b.before[i] | WORD_CLEAN, entry[i]);
	}
	/* Protected and unchanged is clean, whether it will be shared or not. */
	for (unsigned i = 0; i < b.count; i++) {
		bool clean = same >> i & 1, was = b.before[i] & WORD_CLEAN;

		words[i] = clean ? b.before[i] | WORD_CLEAN : b.before[i] & ~WORD_CLEAN;
		if (clean && !was)
			atomic_fetch_add(&vm->clean_pages, 1);
		else if (!clean && was && !(zero >> i & 1))
			share_dirtied(l, b.page[i], false);
	}
	CRASH_POINT("scan.found");
	drop_zeros(l, &b, zero);
	rest = all & ~zero & ~like;
	batch_unprotect(l, &b, rest & ~same);
	batch_unlock_and_wake(l, &b, rest, words);
	COUNT(vm, scanned_pages, b.count);
	COUNT(vm, scan_protected_pages, b.count);
}

/* ---- the hand ---- */

static bool is_quiet(struct share *s, uint64_t page, uint64_t w)
{
	uint8_t q = atomic_load_explicit(&s->quiet[page], memory_order_relaxed);

	if (!q)
		return false;
	if (w & WORD_CLEAN) {
		atomic_store_explicit(&s->quiet[page], 0, memory_order_relaxed);
		return false;
	}
	if (!(q >> QUIET_SHIFT))
		return false;
	atomic_store_explicit(&s->quiet[page], (uint8_t)(q - (1u << QUIET_SHIFT)), memory_order_relaxed);
	return true;
}

/* Whether a clean page that waits for mappings is to be looked at again: it may have one now, or there are more than in the
 * last pass, and the run that it seems to be in may. */
static bool is_due(struct lease *l, uint64_t page)
{
	struct share *s = l->share;
	uint64_t bits = s->waiting[page / 64], left, first = page % 64, end = page % 64;

	if (!(bits >> first & 1))
		return false;
	while (first && (bits >> (first - 1) & 1))
		first--;
	while (end < 64 && (bits >> end & 1))
		end++;
	left = mappings_left(l->vm);
	return mappings_allow(l->vm->vma_budget, left, left > s->last_low_left ? end - first : 1, 2);
}

static void hand_at_end(struct lease *l)
{
	struct share *s = l->share;
	struct pool *pool = atomic_load(&l->vm->pool);

	s->hand = 0;
	atomic_fetch_add(&s->passes, 1);
	s->last_low_left = s->low_left;
	s->low_left = mappings_left(l->vm);
	s->found_floor = pool ? mappings_found_floor(s->low_left, hints_members(pool_hints(pool))) : UINT64_MAX;
	s->recalled_left = UINT64_MAX;
}

void scan_pass_over(struct lease *l)
{
	struct share *s = l->share;

	s->hand += atomic_exchange(&s->hand_budget, 0);
	if (s->hand >= l->pages)
		hand_at_end(l);
}

/* Move the hand on until a batch of either kind is full; pages passed over. */
static uint64_t gather(struct lease *l, uint64_t hand_max, uint64_t read_max, uint32_t *first, unsigned *n_first,
	uint32_t *second, unsigned *n_second)
{
	struct share *s = l->share;
	uint64_t passed = 0;

	*n_first = *n_second = 0;
	while (passed < hand_max && *n_first < RUN_MAX && *n_second < RUN_MAX && *n_first + *n_second < read_max) {
		uint64_t page = s->hand, step = 1, w;

		if (!page_map_has(&l->map, page)) {
			step = MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES;
			step = step < l->pages - page ? step : l->pages - page;
		} else {
			w = atomic_load_explicit(lease_word(l, page), memory_order_relaxed);
			if (word_state(w) == PAGE_RESIDENT && !(w & WORD_BUSY) && !word_pins(w) && !is_quiet(s, page, w) &&
				(!(w & WORD_CLEAN) || is_due(l, page))) {
				if (atomic_load_explicit(&s->sights[page], memory_order_relaxed))
					second[(*n_second)++] = (uint32_t)page;
				else
					first[(*n_first)++] = (uint32_t)page;
			}
		}
		passed += step;
		s->hand += step;
		if (s->hand >= l->pages) {
			hand_at_end(l);
			break;
		}
	}
	return passed;
}

static void spend(_Atomic uint64_t *budget, uint64_t n)
{
	uint64_t have = atomic_load(budget);

	while (!atomic_compare_exchange_weak(budget, &have, have > n ? have - n : 0))
		;
}

bool scan_some(struct lease *l)
{
	struct share *s = l->share;
	uint32_t first[RUN_MAX], second[RUN_MAX];
	uint64_t words = 0;

	while (words < WORDS_MAX && s->order.n + RUN_MAX <= ORDER_PAGES) {
		uint64_t hand = atomic_load(&s->hand_budget), read = atomic_load(&s->read_budget), passed;
		unsigned n_first, n_second;

		if (!hand || !read || atomic_load(&l->reclaim))
			break;
		passed = gather(l, hand < WORDS_MAX ? hand : WORDS_MAX, read, first, &n_first, second, &n_second);
		if (n_first)
			look_first(l, first, n_first);
		/* sights of the time when the pool was its to share */
		if (n_second && !is_member(l))
			look_first(l, second, n_second);
		else if (n_second)
			look_again(l, second, n_second, false);
		spend(&s->hand_budget, passed);
		spend(&s->read_budget, n_first + n_second);
		words += passed;
	}
	return atomic_load(&s->hand_budget) && atomic_load(&s->read_budget);
}

bool scan_nudged(struct lease *l, bool all)
{
	struct share *s = l->share;
	uint64_t words = bit_words(l);

	if (!is_member(l) || (!all && atomic_load(&s->n_nudged) < ORDER_PAGES))
		return false;
	/* one round at the most: what could not be locked comes with the next */
	for (uint64_t n = 0; n < words && atomic_load(&s->n_nudged) && s->order.n + RUN_MAX <= ORDER_PAGES; n++) {
		uint64_t at = s->nudged_hand, bits = atomic_load_explicit(&s->nudged[at], memory_order_relaxed);
		uint32_t pages[RUN_MAX];
		unsigned count = 0;

		s->nudged_hand = at + 1 < words ? at + 1 : 0;
		if (!bits)
			continue;
		bits = atomic_exchange(&s->nudged[at], 0);
		for (; bits; bits &= bits - 1)
			pages[count++] = (uint32_t)(at * 64 + (unsigned)__builtin_ctzll(bits));
		spend(&s->n_nudged, count);
		look_again(l, pages, count, true);
	}
	return atomic_load(&s->n_nudged) && s->order.n;
}

static void grant(_Atomic uint64_t *budget, uint64_t n, uint64_t most)
{
	uint64_t left = atomic_load(budget);

	atomic_store(budget, left + n < most * n ? left + n : most * n);
}

void share_grant(struct vm *vm, uint64_t hand_pages, uint64_t read_pages)
{
	bool granted = hand_pages || read_pages || vm_sharing(vm) == SHARING_OFF;
	uint64_t most = inject.hasty ? 1 : GRANTS_MAX;

	pthread_mutex_lock(&vm->lock);
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);
		struct share *s = l->share;
		uint64_t hand, read;
		struct pool *pool;
		bool busy;

		if (!l->active || !s || atomic_load(&l->ending))
			continue;
		/* each lease gets its part of the VM's, rounded up, and keeps what it did not use of some such grants */
		hand = (hand_pages * l->pages + vm->leased_pages - 1) / vm->leased_pages;
		read = (read_pages * l->pages + vm->leased_pages - 1) / vm->leased_pages;
		if (granted) {
			grant(&s->hand_budget, hand, most);
			grant(&s->read_budget, read, most);
		}
		pthread_mutex_lock(&s->breaking_lock);
		busy = s->n_breaking || s->breaking_lost;
		pthread_mutex_unlock(&s->breaking_lock);
		pool = atomic_load(&vm->pool);
		atomic_store(&s->ticked, true);
		if ((hand && read) || busy || (pool && pool_has_dead(pool)) || atomic_load(&vm->pages[PAGE_SHARED]) ||
			atomic_load(&vm->pages[PAGE_BREAKING]) || atomic_load(&l->share_part))
			share_poke(l);
	}
	pthread_mutex_unlock(&vm->lock);
}

/* A lease that came later began with the passes that there were, so the count never goes back. */
uint64_t vm_scan_passes(struct vm *vm)
{
	uint64_t least = UINT64_MAX, past = atomic_load(&vm->scan_passes);

	pthread_mutex_lock(&vm->lock);
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		if (l->active && l->share && atomic_load(&l->share->passes) < least)
			least = atomic_load(&l->share->passes);
	}
	pthread_mutex_unlock(&vm->lock);
	if (least == UINT64_MAX)
		return past;
	while (past < least && !atomic_compare_exchange_weak(&vm->scan_passes, &past, least))
		;
	return past < least ? least : past;
}
