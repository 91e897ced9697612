#include "mem/vm_impl.h"

#include "base/clock.h"
#include "base/peak.h"
#include "mem/inject.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const fault_cause_names[FAULT_CAUSES] = {
	[FAULT_ZERO] = "zero", [FAULT_COMPRESSED] = "compressed", [FAULT_SWAPPED] = "swapped", [FAULT_PROTECTED] = "protected",
	[FAULT_SHARED] = "shared", [FAULT_BREAK] = "break",
};

int vm_make(struct vm **ret, struct arena *a, const struct mem_settings *settings, struct kept_owner owner)
{
	struct vm *vm = calloc(1, sizeof *vm);

	if (!vm)
		return -ENOMEM;
	vm->arena = a;
	vm->settings = settings;
	vm->owner = owner;
	vm->balloon.target_frames = UINT64_MAX;
	list_init(&vm->leases);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->stall.lock, NULL);
	/* nobody is taxed for what is not known */
	atomic_store(&vm->counters.active_bytes, UINT64_MAX);
	account_init(&vm->account, a, UINT64_MAX);
	*ret = vm;
	return 0;
}

int vm_equip(struct vm *vm, const struct vm_config *c, struct problem *p)
{
	struct swap_room room = { .ready_bytes = vm_swap_bytes(c), .late = true, .sparse = c->keep_swap_sparse };
	uint64_t most = vm->card.swap_max_bytes;
	int r;

	/* one that was set aside by format 1 has the checksums that it needed then, and never grows */
	if (!most)
		most = vm->owner.found && room.ready_bytes ? room.ready_bytes : c->size_bytes;
	room.size_bytes = vm->card.swap_max_bytes = most;
	vm->config = *c;
	card_put_config(&vm->card, c);
	if (!vm->owner.found) {
		r = arena_reserve(vm->arena, vm_promised_frames(c, room.ready_bytes), p);
		if (r < 0)
			return r;
		vm->reserved_frames = vm_promised_frames(c, room.ready_bytes);
	}
	atomic_store(&vm->account.limit_frames, c->limit_bytes ? c->limit_bytes / PAGE_SIZE : UINT64_MAX);
	r = stores_init(&vm->stores, vm->arena, &vm->account, vm->settings, &vm_stores_owner, vm->owner, c->size_bytes,
		c->swap_dir, &room, p);
	if (r == 0 && vm->owner.found) {
		vm->reserved_frames = vm_promised_frames(c, swap_size_bytes(vm->stores.swap));
		arena_reserve_found(vm->arena, vm->reserved_frames);
	}
	return r;
}

int vm_new(struct vm **ret, struct arena *a, const struct mem_settings *settings, const struct vm_config *c,
	struct problem *p)
{
	struct kept_owner owner = { .kind = KEPT_VM };
	struct vm *vm;
	int r = vm_check_config(c, p);

	if (r < 0)
		return r;
	owner.number = kept_number(arena_kept(a));
	r = vm_make(&vm, a, settings, owner);
	if (r < 0)
		return problem_errno(p, "vm");
	r = vm_equip(vm, c, p);
	CRASH_POINT("vm_new.stores");
	if (r == 0)
		r = state_init(&vm->state, a, &vm->account, owner, LEASE_ID_MAX, p);
	if (r < 0) {
		vm_free(vm);
		return r;
	}
	*ret = vm;
	return 0;
}

void vm_keep(struct vm *vm, const void *client, size_t bytes)
{
	assert(bytes <= sizeof vm->card.client);
	memcpy(vm->card.client, client, bytes);
	vm->card.client_bytes = (uint32_t)bytes;
	state_write_card(&vm->state, &vm->card, sizeof vm->card);
	CRASH_POINT("vm_keep.written");
}

const void *vm_client(const struct vm *vm, size_t *ret_bytes)
{
	*ret_bytes = vm->card.client_bytes;
	return vm->card.client;
}

void vm_stop(struct vm *vm, void (*gone)(void *userdata), void *userdata)
{
	bool none;

	pthread_mutex_lock(&vm->lock);
	if (vm->stopping) {
		pthread_mutex_unlock(&vm->lock);
		return;
	}
	vm->stopping = true;
	vm->gone = gone;
	vm->gone_data = userdata;
	none = vm->live_workers == 0;
	pthread_mutex_unlock(&vm->lock);
	CRASH_POINT("vm_stop.begun");
	/* leases come and go on this thread only */
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		l->stop_job = (struct job){ .kind = JOB_RELEASE };
		lease_submit(l, &l->stop_job); /* refused if it ends already, which is fine */
	}
	if (none)
		gone(userdata);
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	if (vm->state.segment)
		state_end(&vm->state);
	CRASH_POINT("vm_free.ended");
	list_foreach_safe(i, &vm->leases)
		lease_free(container_of(i, struct lease, link));
	assert(vm->live_workers == 0);
	CRASH_POINT("vm_free.leases");
	pool_unref(atomic_load(&vm->pool));
	CRASH_POINT("vm_free.pool");
	stores_fini(&vm->stores);
	CRASH_POINT("vm_free.stores");
	state_fini(&vm->state);
	account_fini(&vm->account);
	arena_unreserve(vm->arena, vm->reserved_frames);
	kept_return(arena_kept(vm->arena), vm->owner.number);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->stall.lock);
	free(vm);
}

const struct vm_config *vm_config(const struct vm *vm)
{
	return &vm->config;
}

struct account *vm_account(struct vm *vm)
{
	return &vm->account;
}

const char *vm_trouble(const struct vm *vm)
{
	return atomic_load(&vm->troubled) == 2 ? vm->trouble : "";
}

uint64_t vm_held_since_ns(struct vm *vm)
{
	uint64_t since_ns = 0;

	pthread_mutex_lock(&vm->lock);
	list_foreach(at, &vm->leases) {
		struct lease *l = container_of(at, struct lease, link);

		for (unsigned i = 0; i < HOLDERS; i++) {
			uint64_t ns = atomic_load(&l->held_since_ns[i]);

			if (ns && (!since_ns || ns < since_ns))
				since_ns = ns;
		}
	}
	pthread_mutex_unlock(&vm->lock);
	return since_ns;
}

bool vm_must_end(const struct vm *vm)
{
	return atomic_load(&vm->must_end);
}

void vm_set_trouble(struct vm *vm, bool must_end, const char *fmt, ...)
{
	unsigned none = 0;
	va_list ap;

	if (atomic_compare_exchange_strong(&vm->troubled, &none, 1)) {
		va_start(ap, fmt);
		vsnprintf(vm->trouble, sizeof vm->trouble, fmt, ap);
		va_end(ap);
		atomic_store(&vm->troubled, 2);
	}
	if (must_end)
		atomic_store(&vm->must_end, true);
}

void vm_set_orders(struct vm *vm, const struct vm_orders *orders)
{
	if (!orders->zap || !orders->present || !orders->remap || !orders->private_copies || !orders->hand_over) {
		atomic_store(&vm->has_orders, false);
		return;
	}
	vm->orders = *orders;
	atomic_store(&vm->has_orders, true);
}

static struct lease *find_lease(struct vm *vm, uint32_t id, bool in_stores)
{
	struct lease *found = NULL;

	pthread_mutex_lock(&vm->lock);
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		if (l->id == id && (!in_stores || (l->active && !l->released)))
			found = l;
	}
	pthread_mutex_unlock(&vm->lock);
	return found;
}

struct lease *vm_find_lease(struct vm *vm, uint32_t id)
{
	return find_lease(vm, id, false);
}

/* stores.lock, which the caller holds, keeps a lease that is not released from becoming so, and lease_free comes
 * after that; a released one is not looked at outside vm.lock, under which lease_free takes it from the list. */
struct lease *vm_find_stored_lease(struct vm *vm, uint32_t id)
{
	return find_lease(vm, id, true);
}

struct lease *vm_first_lease(struct vm *vm)
{
	return list_empty(&vm->leases) ? NULL : container_of(vm->leases.next, struct lease, link);
}

void vm_set_leaving(struct vm *vm, bool leaving)
{
	atomic_store(&vm->account.leaving, leaving);
}

/* ---- stores ---- */

static struct vm *vm_of(struct stores *s)
{
	return container_of(s, struct vm, stores);
}

static bool lock_owned(struct stores *s, uint64_t ref, struct owned *ret)
{
	const struct cache_object *o = cache_look(s->cache, ref);
	struct lease *l = vm_find_stored_lease(vm_of(s), o->lease);
	uint64_t w;

	if (!l || o->page >= l->pages)
		return false;
	w = page_map_read(&l->map, o->page);
	if (word_state(w) != PAGE_COMPRESSED || word_ref(w) != ref || !word_lock(lease_word(l, o->page), &w))
		return false;
	if (word_state(w) != PAGE_COMPRESSED || word_ref(w) != ref) {
		word_unlock(lease_word(l, o->page), w);
		lease_wake(l, o->page, 1);
		return false;
	}
	*ret = (struct owned){ l, lease_word(l, o->page), o->page, w };
	return true;
}

static void move_owned(struct stores *s, const struct owned *o, enum page_state to, uint64_t now)
{
	ledger_move(o->lease, o->page, o->before, to);
	word_record(o->word, now);
}

static void unlock_owned(struct stores *s, const struct owned *o, uint64_t now)
{
	word_unlock(o->word, now);
	lease_wake(o->lease, o->page, 1);
}

const struct stores_owner vm_stores_owner = { lock_owned, move_owned, unlock_owned, false };

void vm_forget(struct vm *vm, uint64_t w)
{
	if (word_state(w) == PAGE_SHARED || word_state(w) == PAGE_BREAKING)
		pool_put_later(atomic_load(&vm->pool), word_ref(w));
	else
		store_forget(&vm->stores, w);
}

/* ---- sharing ---- */

void vm_set_sharing(struct vm *vm, enum sharing s)
{
	uint32_t withheld = vm->card.sharing_withheld < s ? vm->card.sharing_withheld : s;

	atomic_store(&vm->sharing, s);
	atomic_store(&vm->sharing_now, s - withheld);
	vm->card.sharing = s;
	vm->card.sharing_withheld = withheld;
	vm_card_changed(vm);
}

void vm_limit_sharing(struct vm *vm, enum sharing most)
{
	enum sharing all = atomic_load(&vm->sharing), now = most < all ? most : all;

	atomic_store(&vm->sharing_now, now);
	vm->card.sharing_withheld = all - now;
	vm_card_changed(vm);
}

enum sharing vm_sharing(const struct vm *vm)
{
	return atomic_load(&vm->sharing_now);
}

struct pool *vm_pool(struct vm *vm)
{
	return atomic_load(&vm->pool);
}

uint64_t vm_pool_references(struct vm *vm)
{
	return atomic_load(&vm->pages[PAGE_SHARED]) + atomic_load(&vm->pages[PAGE_BREAKING]) +
		atomic_load(&vm->lost_mapped_pages);
}

int vm_join_pool(struct vm *vm, struct pool *p, uint64_t vma_budget)
{
	if (atomic_load(&vm->pool))
		return -EBUSY;
	vm->vma_budget = vma_budget;
	/* leases come and go on this thread only; their workers begin when they see the pool */
	list_foreach(i, &vm->leases)
		share_join(container_of(i, struct lease, link), p);
	CRASH_POINT("vm_join.leases");
	vm->card.vma_budget = vma_budget;
	vm->card.pool = pool_number(p);
	vm_card_changed(vm);
	CRASH_POINT("vm_join.kept");
	atomic_store(&vm->pool, pool_ref(p));
	CRASH_POINT("vm_join.done");
	return 0;
}

void vm_scan(struct vm *vm, uint64_t hand_pages, uint64_t read_pages)
{
	share_grant(vm, hand_pages, read_pages);
}

void vm_remap_answered(struct vm *vm, uint32_t lease, uint64_t order, int r, const uint8_t *bits, unsigned pages)
{
	struct lease *l = vm_find_lease(vm, lease);

	if (l)
		share_answered(l, order, r, bits, pages);
}

/* ---- reclaim ---- */

void vm_reclaim(struct vm *vm, uint64_t frames, bool limit)
{
	uint64_t all = atomic_load(&vm->pages[PAGE_RESIDENT]);
	bool cache_asked = false;

	pthread_mutex_lock(&vm->lock);
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);
		uint64_t mine, part;

		if (!l->active)
			continue;
		pthread_mutex_lock(&l->ledger_lock);
		mine = l->count[PAGE_RESIDENT];
		pthread_mutex_unlock(&l->ledger_lock);
		part = all ? (frames * mine + all - 1) / all : 0;
		/* a VM that is all cache still has something to give: its oldest blocks */
		if (!all && !cache_asked) {
			part = frames;
			cache_asked = true;
		}
		if (part || !frames)
			lease_request_reclaim(l, part, limit);
	}
	pthread_mutex_unlock(&vm->lock);
}

/* Charge comes before the page and goes after it, so blocks above the charge are not ours.  The two cannot be read
 * at one instant: the least of a few looks counts. */
static uint64_t lease_excess(struct lease *l)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < 4 && least; i++) {
		uint64_t before = atomic_load(&l->memory->frames), blocks = segment_blocks(l->memory);
		uint64_t after = atomic_load(&l->memory->frames), most = before > after ? before : after;
		uint64_t over = blocks > most ? blocks - most : 0;

		least = over < least ? over : least;
	}
	return least;
}

static void adopted(struct job *job, void *userdata)
{
	struct lease *l = userdata;

	(void)job;
	atomic_store(&l->adopting, false);
}

uint64_t vm_check_wall(struct vm *vm)
{
	uint64_t excess = 0;

	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);
		uint64_t over = lease_excess(l);

		excess += over;
		/* more than what is in flight between two looks: find the pages and charge them */
		if (over && !atomic_exchange(&l->adopting, true)) {
			l->adopt_job = (struct job){ .kind = JOB_AUDIT, .done = adopted, .userdata = l };
			if (lease_submit(l, &l->adopt_job) < 0)
				atomic_store(&l->adopting, false);
		}
	}
	return excess;
}

/* ---- stalls ---- */

void stall_begin(struct stall *s, uint64_t since_ns)
{
	pthread_mutex_lock(&s->lock);
	/* who began before the last one ended has been counted until then */
	if (!s->waiting++)
		s->since_ns = since_ns > s->ended_ns ? since_ns : s->ended_ns;
	pthread_mutex_unlock(&s->lock);
}

void stall_end(struct stall *s, uint64_t at_ns)
{
	pthread_mutex_lock(&s->lock);
	assert(s->waiting);
	if (at_ns < s->told_ns)
		at_ns = s->told_ns;
	if (!--s->waiting && at_ns > s->since_ns) {
		s->total_ns += at_ns - s->since_ns;
		s->ended_ns = at_ns;
	}
	pthread_mutex_unlock(&s->lock);
}

uint64_t stall_total_ns(struct stall *s)
{
	uint64_t total, now;

	pthread_mutex_lock(&s->lock);
	now = now_ns();
	if (s->waiting)
		s->told_ns = now;
	total = s->total_ns + (s->waiting && now > s->since_ns ? now - s->since_ns : 0);
	pthread_mutex_unlock(&s->lock);
	return total;
}

uint64_t vm_stall_wall_ns(struct vm *vm)
{
	return stall_total_ns(&vm->stall);
}

/* ---- numbers ---- */

void vm_tell(struct vm *vm, enum vm_gauge gauge, uint64_t value)
{
	struct vm_counters *c = &vm->counters;
	_Atomic uint64_t *const gauges[] = {
		[VM_ACTIVE_BYTES] = &c->active_bytes, [VM_ACTIVE_ESTIMATED] = &c->active_estimated,
		[VM_ACTIVE_SLOW_PCT] = &c->active_slow_pct, [VM_ACTIVE_FAST_PCT] = &c->active_fast_pct,
		[VM_ACTIVE_NEXT_PCT] = &c->active_next_pct, [VM_STALL_PERMILLE] = &c->stall_permille,
		[VM_TARGET_BYTES] = &c->target_bytes, [VM_BLOCKED] = &c->blocked,
	};

	atomic_store_explicit(gauges[gauge], value, memory_order_relaxed);
}

static uint64_t longest(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Who waits in the fault thread's hands, and who was dropped because its page is busy. */
static uint64_t lease_stalled_ns(struct lease *l)
{
	uint64_t oldest = atomic_load_explicit(&l->serving_ns, memory_order_relaxed), now;

	if (atomic_load(&l->n_waits)) {
		pthread_mutex_lock(&l->ledger_lock);
		for (unsigned i = 0; i < WAITS; i++)
			if (l->waits[i].began_ns && (!oldest || l->waits[i].began_ns < oldest))
				oldest = l->waits[i].began_ns;
		pthread_mutex_unlock(&l->ledger_lock);
	}
	now = now_ns();
	return oldest && now > oldest ? now - oldest : 0;
}

void vm_numbers(struct vm *vm, struct vm_numbers *n)
{
	struct vm_balloon balloon;
	struct cache_numbers c;

#define NUMBER(name, kind, unit, sentence) n->name = atomic_load_explicit(&vm->counters.name, memory_order_relaxed);
#include "mem/vm_numbers.def"
#undef NUMBER
	cache_get_numbers(vm->stores.cache, &c);
	n->swap_out_pages = atomic_load(&vm->stores.swap_out_pages);
	n->written_back_pages = atomic_load(&vm->stores.written_back_pages);
	n->cleaned_pages = atomic_load(&vm->stores.cleaned_pages);
	n->swap_write_errors = atomic_load(&vm->stores.swap_write_errors);
	n->swap_read_errors = atomic_load(&vm->stores.swap_read_errors);
	n->checksum_errors = atomic_load(&vm->stores.checksum_errors);
	n->stall_wall_ns = stall_total_ns(&vm->stall);
	n->size_bytes = vm->config.size_bytes;
	n->reservation_bytes = vm->config.reservation_bytes;
	n->limit_bytes = vm->config.limit_bytes;
	n->shares = vm->config.shares;
	n->charged_bytes = atomic_load(&vm->account.frames) * PAGE_SIZE;
	n->charged_peak_bytes = atomic_load(&vm->account.peak) * PAGE_SIZE;
	n->resident_bytes = atomic_load(&vm->pages[PAGE_RESIDENT]) * PAGE_SIZE;
	n->zero_bytes = atomic_load(&vm->pages[PAGE_ZERO]) * PAGE_SIZE;
	n->compressed_bytes = atomic_load(&vm->pages[PAGE_COMPRESSED]) * PAGE_SIZE;
	n->swapped_bytes = atomic_load(&vm->pages[PAGE_SWAPPED]) * PAGE_SIZE;
	n->lost_bytes = atomic_load(&vm->pages[PAGE_LOST]) * PAGE_SIZE;
	vm_get_balloon(vm, &balloon);
	n->ballooned_bytes = balloon.frames * PAGE_SIZE;
	n->ballooned_peak_bytes *= PAGE_SIZE;
	n->balloon_claimed_bytes = vm_balloon_claimed(vm) * PAGE_SIZE;
	n->balloon_target_bytes = balloon.target_frames * PAGE_SIZE;
	n->balloon_max_bytes = balloon.max_frames * PAGE_SIZE;
	n->shared_bytes = atomic_load(&vm->pages[PAGE_SHARED]) * PAGE_SIZE;
	n->shared_cold_bytes = atomic_load(&vm->cold_pages) * PAGE_SIZE;
	n->breaking_bytes = atomic_load(&vm->pages[PAGE_BREAKING]) * PAGE_SIZE;
	n->clean_bytes = atomic_load(&vm->clean_pages) * PAGE_SIZE;
	n->share_mappings = atomic_load(&vm->mappings);
	n->share_mappings_max = atomic_load(&vm->pool) ? vm->vma_budget : 0;
	n->scan_passes = vm_scan_passes(vm);
	n->pinned_bytes = atomic_load(&vm->pinned_pages) * PAGE_SIZE;
	n->stored_bytes = c.live_bytes;
	n->cache_bytes = c.held_bytes;
	n->cache_cap_bytes = c.cap_bytes;
	n->swap_size_bytes = swap_size_bytes(vm->stores.swap);
	n->overhead_max_bytes = vm_overhead_frames(&vm->config, n->swap_size_bytes / PAGE_SIZE) * PAGE_SIZE;
	n->compressed_peak_bytes *= PAGE_SIZE;
	n->swapped_peak_bytes *= PAGE_SIZE;
	n->overhead_bytes = swap_map(vm->stores.swap) ? atomic_load(&swap_map(vm->stores.swap)->frames) * PAGE_SIZE : 0;
	pthread_mutex_lock(&vm->lock);
	n->leased_bytes = vm->leased_pages * PAGE_SIZE;
	if (n->active_bytes > n->leased_bytes)
		n->active_bytes = n->leased_bytes;
	list_foreach(i, &vm->leases) {
		struct lease *l = container_of(i, struct lease, link);

		n->overhead_bytes += atomic_load(&l->map.segment->frames) * PAGE_SIZE;
		n->shared_charge_bytes += atomic_load(&l->share_part) >> POOL_PART_SHIFT;
		n->stalled_ns = longest(n->stalled_ns, lease_stalled_ns(l));
	}
	pthread_mutex_unlock(&vm->lock);
	/* parts are summed up now and then: what has been shared since is not in them yet */
	if (n->shared_charge_bytes > n->shared_bytes)
		n->shared_charge_bytes = n->shared_bytes;
	n->saved_bytes = n->shared_bytes - n->shared_charge_bytes;
	peak_raise(&vm->counters.shared_saved_peak_bytes, n->saved_bytes);
	n->shared_saved_peak_bytes = atomic_load(&vm->counters.shared_saved_peak_bytes);
	n->consumed_bytes = n->charged_bytes + n->shared_charge_bytes;
}

void vm_fault_histogram(struct vm *vm, enum fault_cause cause, struct histogram_copy *ret)
{
	*ret = (struct histogram_copy){ 0 };
	histogram_sum(&vm->latency[cause], ret);
}
