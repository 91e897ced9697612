/* What a killed daemon leaves, and what becomes of it.
 *
 * Left are memfds and swap files, as they were at some instruction: states, maps, stores, the pages themselves.  Guests
 * go on all the time; they stop at absent pages and at protected ones.  All else (locks, counts, free lists, threads) is
 * gone with the process, and follows from the words:
 *
 *	word				becomes
 *	busy, not moving		as it says: whoever held it had recorded what was true, and had begun nothing that is not
 *	moving, page not mapped		RESIDENT if the memfd has data there, else as it says (the lease's worker looks, because looking takes a
 *					lock that the client can hold; until then the word stays busy).  Filling: the data came in one piece, by
 *					COPY, and the guest may have written to it since.  Evicting, discarding, inflating: nothing was punched
 *					that was not stored, or given up.  Either way what else was stored is nobody's now
 *	moving, SHARED mapped, BREAKING	in question: an order was under way.  Whether the client maps the pool there, and whether it has
 *					a copy of its own, nobody knows but the client.  The word stays busy until it has told
 *					(remap.c: order_found); its entry is held meanwhile, because the client may touch it
 *	SHARED, BREAKING, mapped	as it says: mappings change by orders only
 *	clean				no longer: what was seen of the page is forgotten.  Its protection ends with its next write
 *
 * Protection that is left over (an eviction that was begun) is not swept away: a write to such a page raises an event, and
 * protected_write lifts it.  Faults that the dead process had read come again with the wake of the whole lease.
 *
 * Why no byte is lost.  The only content that a word cannot place is that of pages in question, and these stay untouched, with all
 * their copies, until the client has said which one it sees.  Stores are rebuilt from the words, so a slot or an object
 * belongs to exactly the word that refers to it; two words with one slot (which no crash makes, only damage) are both lost
 * rather than one of them wrong. */
#include "mem/recover.h"

#include "mem/inject.h"
#include "mem/pool_impl.h"
#include "mem/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GENERATIONS 65536u

static bool has_data(int fd, uint64_t page)
{
	off_t at = (off_t)(page * PAGE_SIZE);

	return lseek(fd, at, SEEK_DATA) == at;
}

/* ---- pools ---- */

/* Where an entry is; `there`: its frame is in the page cache. */
static uint64_t settle_entry(struct pool *p, uint64_t e, uint64_t w, bool there)
{
	bool moving = w & WORD_MOVING;
	enum page_state s = word_state(w);

	w = word_make(s, word_ref(w));
	if (moving && has_data(p->memory->fd, e))
		return word_make(PAGE_RESIDENT, 0);
	switch (s) {
	case PAGE_ZERO:
		return 0;
	case PAGE_RESIDENT:
		/* it was being made */
		if (moving)
			return 0;
		/* damage: whoever reads the hole through our mapping would wait for ever */
		return there || has_data(p->memory->fd, e) ? word_make(PAGE_RESIDENT, 0) : word_make(PAGE_LOST, 0);
	case PAGE_COMPRESSED:
	case PAGE_SWAPPED:
		return store_claim(&p->stores, w) ? w : word_make(PAGE_LOST, 0);
	default:
		return word_make(PAGE_LOST, 0);
	}
}

static void settle_entries(struct pool *p)
{
	unsigned char there[MAP_BLOCK_PAGES] = { 0 };

	for (uint64_t e = 1; e < p->pages; e++) {
		uint64_t w, i = e % MAP_BLOCK_PAGES, left = p->pages - (e - i);

		if (!page_map_has(&p->map, e)) {
			e += MAP_BLOCK_PAGES - i - 1;
			continue;
		}
		if ((i == 0 || e == 1) &&
			mincore(entry_frame(p, e - i), (left < MAP_BLOCK_PAGES ? left : MAP_BLOCK_PAGES) * PAGE_SIZE, there) < 0)
			memset(there, 0, sizeof there);
		w = settle_entry(p, e, atomic_load_explicit(&p->map.words[e], memory_order_relaxed), there[i] & 1);
		atomic_store_explicit(&p->map.words[e], w, memory_order_relaxed);
		CRASH_POINT("recover.entry");
		if (word_state(w) == PAGE_ZERO)
			continue;
		p->used[e / 64] |= 1ull << (e % 64);
		p->n_entries++;
		p->n[word_state(w)]++;
		entry_link(p, e);
	}
	for (uint64_t e = 1; e < p->pages && swap_has_disputed(p->stores.swap); e++) {
		uint64_t w = page_map_read(&p->map, e);

		if (word_state(w) != PAGE_SWAPPED || !swap_is_disputed(p->stores.swap, word_ref(w)))
			continue;
		atomic_store_explicit(&p->map.words[e], word_make(PAGE_LOST, 0), memory_order_relaxed);
		pool_count_move(p, PAGE_SWAPPED, PAGE_LOST);
	}
	swap_claimed(p->stores.swap);
	cache_claimed(p->stores.cache);
	segment_charge_found(p->memory, p->n[PAGE_RESIDENT]);
	p->slots = swap_size_bytes(p->stores.swap) / PAGE_SIZE;
}

static bool name_ends(const char *name, size_t bytes)
{
	return *name && memchr(name, 0, bytes);
}

int pool_recover(struct pool **ret, struct arena *a, const struct mem_settings *settings, uint32_t number, struct problem *problem)
{
	struct pool_card card;
	struct pool *p;
	int r = pool_make(&p, a, (struct kept_owner){ .kind = KEPT_POOL, .number = number, .found = true }, problem);

	if (r < 0)
		return r;
	r = state_card(&p->state, &card, sizeof card);
	if (r == 0 && (!name_ends(card.name, sizeof card.name) || card.pages < 2 || card.pages > UINT32_MAX))
		r = -EBADMSG;
	if (r == -EBADMSG)
		problem_set(problem, EBADMSG, PROBLEM_SYSTEM, 0, 0, "the state of pool %u is damaged", number);
	if (r == 0) {
		checksum_set_secret(card.secret);
		r = pool_equip(p, settings, &card, "", problem);
	}
	if (r < 0) {
		pool_unref(p);
		return r;
	}
	settle_entries(p);
	CRASH_POINT("recover.pool");
	*ret = p;
	return 0;
}

/* A word refers to this entry.  false: there is none. */
static bool claim_entry(struct pool *p, uint64_t e, bool hold)
{
	if (!p || !e || e >= p->pages || !entry_is_used(p, e))
		return false;
	pthread_mutex_lock(&p->lock);
	entry_count_reference(p, e, 1);
	if (hold)
		entry_hold(p, e);
	pthread_mutex_unlock(&p->lock);
	return true;
}

void pool_recovered(struct pool *p)
{
	state_raise(&p->state);
	for (uint64_t e = 1; e < p->pages; e++) {
		if (e % 64 == 0 && !p->used[e / 64]) {
			e += 63;
			continue;
		}
		if (!entry_is_used(p, e))
			continue;
		if (p->entries[e].references)
			continue;
		pthread_mutex_lock(&p->lock);
		entry_count_reference(p, e, 1);
		pthread_mutex_unlock(&p->lock);
		pool_put(p, e);
		CRASH_POINT("recover.freed");
	}
}

/* ---- leases ---- */

/* One walk over the words of a lease. */
struct walk {
	struct lease *l;
	struct pool *pool;
	struct recovery_numbers *numbers;
	uint64_t count[PAGE_STATES];
	uint32_t *generations;		/* resident pages of each */
	struct remap_page *asked;	/* ORDER_PAGES */
	unsigned n_asked;
	int r;
};

/* Its worker finds out whether the memfd has the page; if not, it is what the word says. */
static uint64_t look_later(struct walk *k, uint64_t page, uint64_t w)
{
	struct lease *l = k->l;

	if (l->n_unsure % 256 == 0) {
		uint32_t *more = realloc(l->unsure, (l->n_unsure + 256) * sizeof *more);

		if (!more) {
			k->r = -ENOMEM;
			return w;
		}
		l->unsure = more;
	}
	l->unsure[l->n_unsure++] = (uint32_t)page;
	return w | WORD_MOVING | WORD_BUSY;
}

static uint64_t damaged(struct walk *k, uint64_t page)
{
	k->numbers->damaged++;
	return look_later(k, page, word_make(PAGE_LOST, 0));
}

/* In question: busy until its client has told. */
static uint64_t ask_later(struct walk *k, uint64_t page, uint64_t w)
{
	if (k->n_asked == ORDER_PAGES)
		vm_set_trouble(k->l->vm, true, "its page map is damaged: more pages are in question than an order has");
	else
		k->asked[k->n_asked++] = (struct remap_page){ (uint32_t)page, w & ~WORD_MOVING, word_ref(w) };
	k->numbers->in_question++;
	return w | WORD_MOVING | WORD_BUSY;
}

/* A word as it was left, whatever that was, without the bits of whoever had it.  What it refers to is claimed. */
static uint64_t settle(struct walk *k, uint64_t page, uint64_t w)
{
	uint64_t pins = w & WORD_PIN_MASK, moving = w & WORD_MOVING;
	enum page_state s = word_state(w);
	struct lease *l = k->l;
	bool mapped = s == PAGE_BREAKING || (w & WORD_MAPPED);
	uint64_t now = word_make(s, word_ref(w)) | pins;

	if (mapped && ((s != PAGE_SHARED && s != PAGE_BREAKING && s != PAGE_LOST) || !l->share))
		return damaged(k, page);
	switch (s) {
	case PAGE_ZERO:
	case PAGE_BALLOONED:
		if (word_ref(w))
			return damaged(k, page);
		break;
	case PAGE_RESIDENT:
		return moving ? damaged(k, page) : now | (w & WORD_USE_MASK);
	case PAGE_COMPRESSED:
	case PAGE_SWAPPED:
		if (!store_claim(&l->vm->stores, now))
			return damaged(k, page);
		break;
	case PAGE_LOST:
		/* nothing to hold on to is as lost */
		if (mapped && !claim_entry(k->pool, word_ref(w), false))
			return word_make(PAGE_LOST, 0);
		return now | (w & WORD_MAPPED);
	case PAGE_SHARED:
	case PAGE_BREAKING:
		if (!claim_entry(k->pool, word_ref(w), s == PAGE_BREAKING || (mapped && moving)))
			return damaged(k, page);
		now |= s == PAGE_SHARED ? w & WORD_MAPPED : 0;
		if (mapped)
			return moving && !inject.twin_restart_unasked ? ask_later(k, page, now) : now;
		break;
	default:
		return damaged(k, page);
	}
	return moving ? look_later(k, page, now) : now;
}

void lease_settle_unsure(struct lease *l)
{
	struct vm *vm = l->vm;

	if (!l->n_unsure)
		return;
	MOVES_BEGIN(&vm->stores);
	for (unsigned i = 0; i < l->n_unsure; i++) {
		uint64_t page = l->unsure[i], w = atomic_load(lease_word(l, page)) & ~(WORD_BUSY | WORD_MOVING), now = w;

		bool has;

		lease_hold_begin(l, HOLD_WORKER);
		has = has_data(l->memory->fd, page);
		lease_hold_end(l, HOLD_WORKER);
		if (has) {
			segment_charge_found(l->memory, 1);
			now = word_make(PAGE_RESIDENT, ledger_move(l, page, w, PAGE_RESIDENT) & 0xffff) | (w & WORD_PIN_MASK);
			word_record(lease_word(l, page), now);
			CRASH_POINT("recover.resident");
			vm_forget(vm, w);
		}
		word_unlock(lease_word(l, page), now);
		CRASH_POINT("recover.settled");
		lease_wake(l, page, 1);
	}
	MOVES_END(&vm->stores);
	free(l->unsure);
	l->unsure = NULL;
	l->n_unsure = 0;
}

static void count(struct walk *k, uint64_t page, uint64_t w)
{
	struct vm *vm = k->l->vm;

	k->count[word_state(w)]++;
	atomic_fetch_add(&vm->pinned_pages, word_pins(w) > 0);
	if (word_state(w) == PAGE_RESIDENT)
		k->generations[word_ref(w) % GENERATIONS]++;
	if (word_state(w) == PAGE_SHARED && !(w & WORD_MAPPED))
		atomic_fetch_add(&vm->cold_pages, 1);
	if (word_state(w) == PAGE_LOST && (w & WORD_MAPPED))
		atomic_fetch_add(&vm->lost_mapped_pages, 1);
	if (word_state(w) == PAGE_BREAKING && !(w & WORD_BUSY))
		share_break_later(k->l, page);
}

/* Generations go round a circle, and all that are in use lie within EPOCHS of it: the newest is the one with nothing above.  What
 * lies elsewhere (what was on its way, damage) becomes the oldest: whether there is such. */
static bool find_epochs(struct walk *k)
{
	struct lease *l = k->l;
	unsigned newest = 0, oldest, best = 0;
	bool elsewhere = false;

	for (unsigned g = 0; g < GENERATIONS; g++) {
		unsigned n = 0;

		if (!k->generations[g] || k->generations[(g + 1) % GENERATIONS])
			continue;
		for (unsigned i = 0; i < EPOCHS - 1; i++)
			n += k->generations[(g - i) % GENERATIONS] > 0;
		/* a gap may lie within: of two that can see the same ones, the one that sees more */
		if (n >= best) {
			best = n;
			newest = g;
		}
	}
	oldest = (newest - (EPOCHS - 2)) % GENERATIONS;
	while (oldest != newest && !k->generations[oldest])
		oldest = (oldest + 1) % GENERATIONS;
	l->epoch = GENERATIONS + newest;
	l->epoch_oldest = l->epoch - (newest - oldest) % GENERATIONS;
	for (unsigned g = 0; g < GENERATIONS; g++) {
		if (!k->generations[g])
			continue;
		if ((newest - g) % GENERATIONS <= (newest - oldest) % GENERATIONS) {
			l->epoch_pages[(l->epoch - (newest - g) % GENERATIONS) % EPOCHS] += k->generations[g];
		} else {
			l->epoch_pages[l->epoch_oldest % EPOCHS] += k->generations[g];
			elsewhere = true;
		}
	}
	return elsewhere;
}

/* Resident pages of a generation that is none. */
static void restamp(struct walk *k)
{
	struct lease *l = k->l;

	for (uint64_t page = 0; page < l->pages; page++) {
		uint64_t w, g;

		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		w = atomic_load_explicit(lease_word(l, page), memory_order_relaxed);
		g = word_ref(w);
		if (word_state(w) != PAGE_RESIDENT || (g < GENERATIONS && (l->epoch - g) % GENERATIONS <= l->epoch - l->epoch_oldest))
			continue;
		w = word_make(PAGE_RESIDENT, l->epoch_oldest % GENERATIONS) | (w & (WORD_PIN_MASK | WORD_USE_MASK));
		atomic_store_explicit(lease_word(l, page), w, memory_order_relaxed);
	}
}

static void settle_words(struct walk *k)
{
	struct lease *l = k->l;

	for (uint64_t page = 0; page < l->pages; page++) {
		uint64_t w;

		if (!page_map_has(&l->map, page)) {
			uint64_t untouched = MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES;

			untouched = untouched < l->pages - page ? untouched : l->pages - page;
			k->count[PAGE_ZERO] += untouched;
			page += untouched - 1;
			continue;
		}
		w = settle(k, page, atomic_load_explicit(lease_word(l, page), memory_order_relaxed));
		atomic_store_explicit(lease_word(l, page), w, memory_order_relaxed);
		CRASH_POINT("recover.word");
		count(k, page, w);
	}
}

/* A job on pins that was under way is undone, unless it was done (worker.c).  From its last word backwards, as a job that
 * fails does: the record says at any instant what is left, also to the one who comes after us. */
static void undo_pins(struct lease *l)
{
	struct state_lease *k = l->record;
	uint64_t next = atomic_load(&k->pin_next), i = next >> 8, pins = next >> 1 & WORD_PIN_MAX;

	if (!next || (k->pin_call && k->pin_call == atomic_load(&k->pin_done))) {
		atomic_store(&k->pin_next, 0);
		return;
	}
	while (k->pin_first < l->pages && i < l->pages - k->pin_first && page_map_has(&l->map, k->pin_first + i)) {
		word *at = lease_word(l, k->pin_first + i);
		uint64_t w = atomic_load_explicit(at, memory_order_relaxed);

		atomic_store(&k->pin_next, i << 8 | pins << 1 | 1);
		atomic_store(at, (w & ~WORD_PIN_MASK) | pins << WORD_PIN_SHIFT);
		CRASH_POINT("recover.pin");
		if (!i--)
			break;
		/* damage must not run into other bits */
		pins = word_pins(page_map_read(&l->map, k->pin_first + i)) + (k->pin_down ? 1 : WORD_PIN_MAX);
		pins &= WORD_PIN_MAX;
	}
	atomic_store(&k->pin_next, 0);
}

/* Slots that two words refer to are nobody's. */
static void settle_disputed(struct lease *l, struct recovery_numbers *numbers)
{
	struct vm *vm = l->vm;

	for (uint64_t page = 0; page < l->pages; page++) {
		uint64_t w = page_map_read(&l->map, page);

		if (word_state(w) != PAGE_SWAPPED || !swap_is_disputed(vm->stores.swap, word_ref(w)))
			continue;
		atomic_store_explicit(lease_word(l, page), word_make(PAGE_LOST, 0) | (w & WORD_PIN_MASK), memory_order_relaxed);
		l->count[PAGE_SWAPPED]--;
		l->count[PAGE_LOST]++;
		atomic_fetch_sub(&vm->pages[PAGE_SWAPPED], 1);
		atomic_fetch_add(&vm->pages[PAGE_LOST], 1);
		numbers->damaged++;
	}
}

static int settle_lease(struct lease *l, struct recovery_numbers *numbers)
{
	struct walk k = { .l = l, .pool = atomic_load(&l->vm->pool), .numbers = numbers };
	int r = 0;

	if (atomic_load(&l->vm->sharing) != SHARING_OFF)
		r = share_new(&l->share, l);
	k.generations = calloc(GENERATIONS, sizeof *k.generations);
	k.asked = calloc(ORDER_PAGES, sizeof *k.asked);
	if (r < 0 || !k.generations || !k.asked) {
		free(k.generations);
		free(k.asked);
		return -ENOMEM;
	}
	undo_pins(l);
	settle_words(&k);
	for (unsigned s = 0; s < PAGE_STATES; s++) {
		l->count[s] = k.count[s];
		atomic_fetch_add(&l->vm->pages[s], k.count[s]);
	}
	if (find_epochs(&k))
		restamp(&k);
	segment_charge_found(l->memory, k.count[PAGE_RESIDENT] + k.count[PAGE_BREAKING]);
	/* a page in question may have two frames: its own and the client's copy */
	for (unsigned i = 0; i < k.n_asked; i++)
		segment_charge_found(l->memory, word_state(k.asked[i].before) == PAGE_BREAKING ? 1 : 2);
	if (l->share)
		order_found(l, k.asked, k.n_asked);
	numbers->leases++;
	numbers->pages += l->pages - k.count[PAGE_ZERO];
	free(k.generations);
	free(k.asked);
	return k.r;
}

/* ---- VMs ---- */

static bool card_is_sane(const struct vm_card *c)
{
	struct vm_config config;

	card_get_config(c, &config);
	return name_ends(c->name, sizeof c->name) && memchr(c->swap_dir, 0, sizeof c->swap_dir) &&
		vm_check_config(&config, NULL) == 0 && c->sharing <= SHARING_POOL && c->client_bytes <= VM_CLIENT_MAX &&
		c->sharing_withheld <= c->sharing && c->swap_max_bytes <= c->size_bytes;
}

/* What was found of it goes, with what it refers to in its pool. */
static void drop(struct vm *vm)
{
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		if (l->share)
			share_end(l);
	}
	vm_free(vm);
}

static int recover_leases(struct vm *vm, struct recovery_numbers *numbers, struct problem *p)
{
	for (uint32_t id = 1; id <= LEASE_ID_MAX; id++) {
		struct state_lease record;
		struct lease *l;
		int r = state_read_record(&vm->state, id - 1, &record);

		if (r == -ENOENT && !state_has_record(&vm->state, id))
			break;
		if (r == -ENOENT)
			continue;
		if (r < 0)
			return problem_set(p, EBADMSG, PROBLEM_SYSTEM, 0, 0, "the record of lease %u is damaged", id);
		r = lease_found(&l, vm, id, &record, p);
		if (r < 0)
			return r;
		r = settle_lease(l, numbers);
		if (r < 0)
			return r;
		CRASH_POINT("recover.lease");
	}
	if (swap_has_disputed(vm->stores.swap))
		list_foreach(i, &vm->leases)
			settle_disputed(container_of(i, struct lease, link), numbers);
	swap_claimed(vm->stores.swap);
	cache_claimed(vm->stores.cache);
	return 0;
}

int vm_recover(struct vm **ret, struct arena *a, const struct mem_settings *settings, uint32_t number,
	struct pool *(*find_pool)(void *, uint32_t), void *userdata, struct recovery_numbers *numbers, struct problem *p)
{
	struct kept_owner owner = { .kind = KEPT_VM, .number = number, .found = true };
	uint64_t damaged_before = numbers->damaged;
	struct vm_config config;
	struct pool *pool = NULL;
	struct vm *vm;
	int r = vm_make(&vm, a, settings, owner);

	if (r < 0)
		return problem_errno(p, "vm");
	r = state_init(&vm->state, a, &vm->account, owner, LEASE_ID_MAX, p);
	if (r == 0)
		r = state_card(&vm->state, &vm->card, sizeof vm->card);
	if (r == 0 && !card_is_sane(&vm->card))
		r = -EBADMSG;
	if (r == -EBADMSG && !*p->text)
		problem_set(p, EBADMSG, PROBLEM_SYSTEM, 0, 0, "the state of VM number %u is damaged", number);
	if (r == 0) {
		card_get_config(&vm->card, &config);
		r = vm_equip(vm, &config, p);
	}
	if (r == 0) {
		atomic_store(&vm->sharing, vm->card.sharing);
		atomic_store(&vm->sharing_now, vm->card.sharing - vm->card.sharing_withheld);
		vm->vma_budget = vm->card.vma_budget;
		pool = vm->card.pool ? find_pool(userdata, vm->card.pool) : NULL;
		if (pool)
			atomic_store(&vm->pool, pool_ref(pool));
		else if (vm->card.pool)
			r = problem_set(p, EBADMSG, PROBLEM_SYSTEM, 0, 0, "VM %s shared pages of a pool that is gone",
				vm->card.name);
	}
	if (r == 0)
		r = recover_leases(vm, numbers, p);
	if (r < 0) {
		drop(vm);
		return r;
	}
	if (numbers->damaged > damaged_before)
		vm_set_trouble(vm, false, "%llu words of its page maps were damaged; those pages are lost, unless they were resident",
			(unsigned long long)(numbers->damaged - damaged_before));
	CRASH_POINT("recover.vm");
	*ret = vm;
	return 0;
}

int vm_serve(struct vm *vm, struct problem *p)
{
	state_raise(&vm->state);
	list_foreach(i, &vm->leases) {
		int r = lease_serve(container_of(i, struct lease, link), p);

		if (r < 0)
			return r;
		CRASH_POINT("recover.served");
	}
	return 0;
}

void vm_resume(struct vm *vm)
{
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		if (l->share)
			share_poke(l);
	}
}

bool lease_was_found(const struct lease *l)
{
	return l->was_found;
}

bool lease_is(const struct lease *l, int fd, uint64_t address)
{
	struct stat ours, theirs;

	/* a memfd: asking anything of another file may block */
	return l->address == address && fcntl(fd, F_GET_SEALS) >= 0 && fstat(l->memory->fd, &ours) == 0 && fstat(fd, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
		ours.st_ino == theirs.st_ino;
}
