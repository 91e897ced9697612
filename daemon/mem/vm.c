#include "mem/vm_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const fault_cause_names[FAULT_CAUSES] = {
	[FAULT_ZERO] = "zero", [FAULT_COMPRESSED] = "compressed", [FAULT_SWAPPED] = "swapped", [FAULT_PROTECTED] = "protected",
};

/* What the arena pays for a VM beside its pages at the worst: page map, checksums of the swap file, one block
 * of the cache that is being filled and one of survivors. */
static uint64_t overhead_frames(uint64_t size_bytes, uint64_t swap_bytes)
{
	uint64_t words_per_frame = PAGE_SIZE / 8;

	return (size_bytes / PAGE_SIZE + words_per_frame - 1) / words_per_frame +
		(swap_bytes / PAGE_SIZE + words_per_frame - 1) / words_per_frame + 2 * CACHE_BLOCK_PAGES;
}

static int check_config(const struct vm_config *c, struct problem *p)
{
	if (!c->size_bytes || c->size_bytes % PAGE_SIZE || c->size_bytes > 1ull << 44)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->size_bytes, PAGE_SIZE,
			"the size of a VM is above 0, a multiple of 4096 and at most 16 TiB");
	if (c->reservation_bytes % PAGE_SIZE || c->limit_bytes % PAGE_SIZE)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->reservation_bytes % PAGE_SIZE ? c->reservation_bytes :
			c->limit_bytes, PAGE_SIZE, "reservation and limit are multiples of 4096");
	if (c->reservation_bytes > c->size_bytes)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->reservation_bytes, c->size_bytes,
			"the reservation is larger than the VM");
	/* a VM must hold its overhead and a few runs of pages, or it could not make a step */
	if (c->limit_bytes && c->limit_bytes < c->reservation_bytes)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->limit_bytes, c->reservation_bytes,
			"the limit is below the reservation");
	if (c->limit_bytes && c->limit_bytes < (4ull << 20) && c->limit_bytes < c->size_bytes)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->limit_bytes, 4ull << 20,
			"the limit is at least 4 MiB (or the VM's size)");
	return 0;
}

int vm_new(struct vm **ret, struct arena *a, const struct mem_settings *settings, const struct vm_config *c,
	struct problem *p)
{
	uint64_t swap_bytes, frames;
	struct vm *vm;
	int r = check_config(c, p);

	if (r < 0)
		return r;
	swap_bytes = c->size_bytes - c->reservation_bytes;
	frames = c->reservation_bytes / PAGE_SIZE + overhead_frames(c->size_bytes, swap_bytes);
	r = arena_reserve(a, frames, p);
	if (r < 0)
		return r;
	vm = calloc(1, sizeof *vm);
	if (!vm) {
		arena_unreserve(a, frames);
		return problem_errno(p, "vm");
	}
	vm->arena = a;
	vm->settings = settings;
	vm->config = *c;
	vm->reserved_frames = frames;
	list_init(&vm->leases);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->stores_lock, NULL);
	account_init(&vm->account, a, c->limit_bytes ? c->limit_bytes / PAGE_SIZE : UINT64_MAX);
	r = cache_new(&vm->cache, a, &vm->account, c->size_bytes, settings, p);
	if (r == 0)
		r = swap_new(&vm->swap, a, &vm->account, c->swap_dir, swap_bytes, c->keep_swap_sparse, p);
	if (r < 0) {
		vm_free(vm);
		return r;
	}
	*ret = vm;
	return 0;
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
	list_foreach_safe(i, &vm->leases)
		lease_free(container_of(i, struct lease, link));
	assert(vm->live_workers == 0);
	cache_free(vm->cache);
	swap_free(vm->swap);
	account_fini(&vm->account);
	arena_unreserve(vm->arena, vm->reserved_frames);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->stores_lock);
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
	if (!orders->zap || !orders->present) {
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

/* vm.stores_lock, which the caller holds, keeps a lease that is not released from becoming so, and lease_free comes
 * after that; a released one is not looked at outside vm.lock, under which lease_free takes it from the list. */
struct lease *store_find_lease(struct vm *vm, uint32_t id)
{
	return find_lease(vm, id, true);
}

struct lease *vm_first_lease(struct vm *vm)
{
	return list_empty(&vm->leases) ? NULL : container_of(vm->leases.next, struct lease, link);
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

bool vm_reclaiming(struct vm *vm)
{
	bool busy = false;

	pthread_mutex_lock(&vm->lock);
	list_foreach(i, &vm->leases)
		busy |= atomic_load(&container_of(i, struct lease, link)->reclaim) > 0;
	pthread_mutex_unlock(&vm->lock);
	return busy;
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

/* ---- numbers ---- */

void vm_numbers(struct vm *vm, struct vm_numbers *n)
{
	struct cache_numbers c;

#define NUMBER(name, kind, unit, sentence) n->name = atomic_load_explicit(&vm->counters.name, memory_order_relaxed);
#include "mem/vm_numbers.def"
#undef NUMBER
	cache_get_numbers(vm->cache, &c);
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
	n->pinned_bytes = atomic_load(&vm->pinned_pages) * PAGE_SIZE;
	n->stored_bytes = c.live_bytes;
	n->cache_bytes = c.held_bytes;
	n->cache_cap_bytes = c.cap_bytes;
	n->swap_size_bytes = swap_size_bytes(vm->swap);
	n->compressed_peak_bytes *= PAGE_SIZE;
	n->swapped_peak_bytes *= PAGE_SIZE;
	n->overhead_bytes = swap_map(vm->swap) ? atomic_load(&swap_map(vm->swap)->frames) * PAGE_SIZE : 0;
	pthread_mutex_lock(&vm->lock);
	n->leased_bytes = vm->leased_pages * PAGE_SIZE;
	list_foreach(i, &vm->leases)
		n->overhead_bytes += atomic_load(&container_of(i, struct lease, link)->map.segment->frames) * PAGE_SIZE;
	pthread_mutex_unlock(&vm->lock);
}

void vm_fault_histogram(struct vm *vm, enum fault_cause cause, struct histogram_copy *ret)
{
	*ret = (struct histogram_copy){ 0 };
	histogram_sum(&vm->latency[cause], ret);
}
