/* The life of a lease, and its ledger. */
#include "mem/vm_impl.h"

#include "base/clock.h"
#include "base/peak.h"
#include "mem/inject.h"
#include "mem/uffd.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK_BYTES  (256u << 10)
#define END_SIGNAL   SIGUSR2

const char *const page_state_names[] = {
	[PAGE_ZERO] = "zero", [PAGE_RESIDENT] = "resident", [PAGE_SHARED] = "shared", [PAGE_BREAKING] = "breaking",
	[PAGE_COMPRESSED] = "compressed", [PAGE_SWAPPED] = "swapped", [PAGE_BALLOONED] = "ballooned", [PAGE_LOST] = "lost",
};

/* ---- ledger ---- */

/* A generation is an eighth of what is resident: fine enough to tell old from new, coarse enough that neighbours
 * filled together leave together. */
static void advance_epoch(struct lease *l)
{
	while (l->epoch_oldest < l->epoch && !l->epoch_pages[l->epoch_oldest % EPOCHS])
		l->epoch_oldest++;
	if (l->epoch_fills < RUN_MAX || l->epoch_fills * 8 < l->count[PAGE_RESIDENT] ||
		l->epoch - l->epoch_oldest >= EPOCHS - 2)
		return;
	l->epoch++;
	l->epoch_fills = 0;
}

uint64_t ledger_move(struct lease *l, uint64_t page, uint64_t before, enum page_state to)
{
	enum page_state from = word_state(before);
	struct vm *vm = l->vm;
	uint64_t epoch, now;

	pthread_mutex_lock(&l->ledger_lock);
	assert(l->count[from]);
	l->count[from]--;
	l->count[to]++;
	if (from == PAGE_RESIDENT)
		l->epoch_pages[word_ref(before) % EPOCHS]--;
	if (from == PAGE_RESIDENT && (before & WORD_CLEAN))
		atomic_fetch_sub(&vm->clean_pages, 1);
	if (from == PAGE_SHARED && !(before & WORD_MAPPED))
		atomic_fetch_sub(&vm->cold_pages, 1);
	if (to == PAGE_RESIDENT) {
		l->epoch_fills++;
		advance_epoch(l);
		l->epoch_pages[l->epoch % EPOCHS]++;
	}
	if (page < l->audit_hand) {
		l->audit_moved[from]--;
		l->audit_moved[to]++;
	}
	epoch = l->epoch;
	pthread_mutex_unlock(&l->ledger_lock);

	atomic_fetch_sub(&vm->pages[from], 1);
	now = atomic_fetch_add(&vm->pages[to], 1) + 1;
	if (to == PAGE_COMPRESSED)
		peak_raise(&vm->counters.compressed_peak_bytes, now);
	else if (to == PAGE_SWAPPED)
		peak_raise(&vm->counters.swapped_peak_bytes, now);
	else if (to == PAGE_BALLOONED)
		peak_raise(&vm->counters.ballooned_peak_bytes, now);
	return epoch;
}

bool ledger_restamp(struct lease *l, uint64_t page, uint64_t seen, bool newest, unsigned use)
{
	bool same;
	uint64_t now;

	/* The lock is held over the exchange so that no evictor uncounts the new generation before it is counted. */
	pthread_mutex_lock(&l->ledger_lock);
	now = word_make(PAGE_RESIDENT, (newest ? l->epoch : l->epoch_oldest) & 0xffff) |
		(seen & (WORD_PIN_MASK | WORD_CLEAN)) | (uint64_t)use << WORD_USE_SHIFT;
	same = !(seen & WORD_BUSY) && atomic_compare_exchange_strong(lease_word(l, page), &seen, now);
	if (same) {
		l->epoch_pages[word_ref(seen) % EPOCHS]--;
		l->epoch_pages[word_ref(now) % EPOCHS]++;
	}
	pthread_mutex_unlock(&l->ledger_lock);
	return same;
}

uint64_t ledger_oldest(struct lease *l, uint64_t *ret_newest)
{
	uint64_t oldest;

	pthread_mutex_lock(&l->ledger_lock);
	advance_epoch(l);
	oldest = l->epoch_oldest;
	*ret_newest = l->epoch;
	pthread_mutex_unlock(&l->ledger_lock);
	return oldest;
}

void lease_end_waits(struct lease *l, uint64_t page, uint64_t count)
{
	uint64_t now;

	atomic_thread_fence(memory_order_seq_cst); /* see note_wait */
	if (!atomic_load(&l->n_waits))
		return;
	now = now_ns();
	pthread_mutex_lock(&l->ledger_lock);
	for (unsigned i = 0; i < WAITS; i++) {
		struct wait *w = &l->waits[i];

		if (!w->began_ns || w->page < page || w->page >= page + count)
			continue;
		histogram_add(&l->vm->latency[FAULT_PROTECTED], now - w->began_ns);
		COUNT(l->vm, stall_ns, now - w->began_ns);
		w->began_ns = 0;
		stall_end(&l->vm->stall, now);
		atomic_fetch_sub(&l->n_waits, 1);
	}
	pthread_mutex_unlock(&l->ledger_lock);
}

void lease_wake(struct lease *l, uint64_t page, uint64_t count)
{
	lease_end_waits(l, page, count);
	uffd_wake(l->uffd, lease_client_address(l, page), count * PAGE_SIZE);
}

/* ---- life ---- */

static void end_signal_handler(int signal)
{
	(void)signal;
}

static void install_end_signal(void)
{
	/* no SA_RESTART: a blocking read must return */
	struct sigaction act = { .sa_handler = end_signal_handler };

	sigemptyset(&act.sa_mask);
	sigaction(END_SIGNAL, &act, NULL);
}

/* All signals but the one that ends a fault thread are for the control thread. */
static int start_thread(pthread_t *ret, void *(*main)(void *), struct lease *l, const char *kind)
{
	pthread_attr_t attr;
	sigset_t all, old;
	char name[16];
	int r;

	sigfillset(&all);
	sigdelset(&all, END_SIGNAL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(ret, &attr, main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		return -r;
	snprintf(name, sizeof name, "%s/%.8s", kind, l->vm->config.name);
	pthread_setname_np(*ret, name);
	return 0;
}

static int check_region(struct vm *vm, uint64_t gpa, uint64_t size, struct problem *p)
{
	if (!size || size % PAGE_SIZE || gpa % PAGE_SIZE || gpa + size < gpa || gpa + size > INT64_MAX)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, size, PAGE_SIZE,
			"a lease has a size above 0, and size and guest-physical address are multiples of 4096");
	if (vm->leased_pages + size / PAGE_SIZE > vm->config.size_bytes / PAGE_SIZE)
		return problem_set(p, ENOSPC, PROBLEM_LEASE_BEYOND_SIZE, vm->leased_pages * PAGE_SIZE + size,
			vm->config.size_bytes, "the VM's leases would add up to more than its size: register with a larger one");
	list_foreach(i, &vm->leases) {
		struct lease *o = container_of(i, struct lease, link);

		if (gpa < o->gpa + o->pages * PAGE_SIZE && o->gpa < gpa + size)
			return problem_set(p, EEXIST, PROBLEM_OVERLAP, gpa, o->gpa,
				"guest-physical %#llx is leased already", (unsigned long long)(gpa > o->gpa ? gpa : o->gpa));
	}
	return 0;
}

static uint32_t free_id(struct vm *vm)
{
	uint32_t id = 1;
	bool taken;

	do {
		taken = false;
		list_foreach(i, &vm->leases)
			taken |= container_of(i, struct lease, link)->id == id;
		id += taken;
	} while (taken);
	return id;
}

/* A lease without a thread, in no list. */
static int make(struct lease **ret, struct vm *vm, struct kept_owner owner, uint32_t id, uint64_t gpa, uint64_t pages, struct problem *p)
{
	struct lease *l = calloc(1, sizeof *l);
	pthread_condattr_t attr;
	char part[12];
	int r;

	if (!l)
		return problem_errno(p, "lease");
	*l = (struct lease){ .vm = vm, .id = id, .gpa = gpa, .pages = pages, .uffd = -1, .own_uffd = -1 };
	l->jobs_tail = &l->jobs;
	list_init(&l->link);
	pthread_mutex_init(&l->jobs_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->jobs_cond, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&l->ledger_lock, NULL);
	snprintf(part, sizeof part, "%um", id);
	r = segment_new(&l->memory, vm->arena, &vm->account, SEGMENT_LEASE, owner, part, pages * PAGE_SIZE, p);
	CRASH_POINT("lease_new.memory");
	snprintf(part, sizeof part, "%up", id);
	if (r == 0)
		r = page_map_init(&l->map, vm->arena, &vm->account, owner, part, pages, p);
	CRASH_POINT("lease_new.map");
	if (r < 0) {
		lease_free(l);
		return r;
	}
	snprintf(part, sizeof part, "%uu", id);
	kept_tag(l->uffd_tag, owner, part);
	*ret = l;
	return 0;
}

static void list_lease(struct lease *l)
{
	struct vm *vm = l->vm;

	pthread_mutex_lock(&vm->lock);
	vm->leased_pages += l->pages;
	list_append(&vm->leases, &l->link);
	pthread_mutex_unlock(&vm->lock);
}

/* Its worker runs from its first moment: whatever is done to the client's memory, also to take it back from a client that never
 * activates it, may wait for the client. */
static int start_worker(struct lease *l, struct problem *p)
{
	struct vm *vm = l->vm;
	int r = start_thread(&l->worker, worker_main, l, "worker");

	if (r < 0) {
		errno = -r;
		return problem_errno(p, "cannot start a thread (TasksMax=, kernel.threads-max, vm.max_map_count)");
	}
	l->has_worker = true;
	pthread_mutex_lock(&vm->lock);
	vm->live_workers++;
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

int lease_new(struct lease **ret, struct vm *vm, uint64_t gpa, uint64_t size_bytes, struct problem *p)
{
	struct kept_owner owner = { .kind = vm->owner.kind, .number = vm->owner.number };
	uint32_t id = free_id(vm);
	struct lease *l;
	int r = check_region(vm, gpa, size_bytes, p);

	if (r < 0)
		return r;
	if (vm->stopping)
		return problem_set(p, EBUSY, PROBLEM_BAD_STATE, 0, 0, "the VM is ending");
	if (id > LEASE_ID_MAX)
		return problem_set(p, ENOSPC, PROBLEM_LIMIT_REACHED, id, LEASE_ID_MAX, "too many leases");
	r = make(&l, vm, owner, id, gpa, size_bytes / PAGE_SIZE, p);
	if (r < 0)
		return r;
	r = start_worker(l, p);
	if (r < 0) {
		lease_free(l);
		return r;
	}
	l->count[PAGE_ZERO] = l->pages;
	atomic_fetch_add(&vm->pages[PAGE_ZERO], l->pages);
	list_lease(l);
	CRASH_POINT("lease_new.listed");
	*ret = l;
	return 0;
}

int lease_found(struct lease **ret, struct vm *vm, uint32_t id, const struct state_lease *record, struct problem *p)
{
	struct lease *l;
	int r;

	r = check_region(vm, record->gpa, record->pages * PAGE_SIZE, p);
	if (r == 0 && (record->address % PAGE_SIZE || record->address + record->pages * PAGE_SIZE < record->address))
		r = problem_set(p, EBADMSG, PROBLEM_SYSTEM, 0, 0, "lease %u lies nowhere", id);
	if (r < 0)
		return -EBADMSG;
	r = make(&l, vm, vm->owner, id, record->gpa, record->pages, p);
	if (r < 0)
		return r;
	l->was_found = true;
	l->address = record->address;
	l->record = state_record(&vm->state, id - 1);
	l->handing = l->staying = atomic_load(&l->record->handing);
	l->uffd = kept_take(arena_kept(vm->arena), l->uffd_tag);
	if (l->uffd < 0 || !uffd_is(l->uffd)) {
		lease_free(l);
		return problem_set(p, EBADMSG, PROBLEM_SYSTEM, 0, 0, "the userfaultfd of lease %u is missing", id);
	}
	list_lease(l);
	*ret = l;
	return 0;
}

/* A thread in read() does not notice anything by itself, and closing the descriptor under it would be a race. */
void lease_end_fault_thread(struct lease *l)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };

	atomic_store(&l->fault_stop, true);
	while (!atomic_load(&l->fault_ended)) {
		pthread_kill(l->fault_thread, END_SIGNAL);
		nanosleep(&pause, NULL);
	}
	pthread_join(l->fault_thread, NULL);
}

void lease_close_refused(struct lease *l, int fd)
{
	bool queued;

	pthread_mutex_lock(&l->jobs_lock);
	queued = l->n_refused_fds < sizeof l->refused_fds / sizeof *l->refused_fds;
	if (queued)
		l->refused_fds[l->n_refused_fds++] = fd;
	pthread_cond_signal(&l->jobs_cond);
	pthread_mutex_unlock(&l->jobs_lock);
	/* its worker hangs in the close of an earlier one: that is no accident */
	if (!queued)
		vm_set_trouble(l->vm, true, "it passed descriptors that block whoever closes them");
}

static void undo_activation(struct lease *l)
{
	if (l->own)
		munmap(l->own, l->pages * PAGE_SIZE);
	if (l->own_uffd >= 0)
		close(l->own_uffd);
	share_free(l);
	victims_free(l->victims);
	bench_fini(&l->bench);
	bench_fini(&l->fault_bench);
	l->own = NULL;
	l->own_uffd = l->uffd = -1;
	l->victims = NULL;
}

/* What works on the pages of a lease, but its threads. */
static int equip(struct lease *l, struct problem *p)
{
	int r = uffd_open_own(&l->own_uffd);

	if (r == 0)
		r = own_map(l);
	if (r < 0) {
		errno = -r;
		return problem_errno(p, "the daemon may not use userfaultfd");
	}
	r = bench_init(&l->bench);
	if (r == 0)
		r = bench_init(&l->fault_bench);
	if (r == 0)
		bench_lock(&l->bench);
	if (r == 0)
		r = victims_new(&l->victims, l);
	if (r == 0 && !l->share && atomic_load(&l->vm->sharing) != SHARING_OFF)
		r = share_new(&l->share, l);
	if (r < 0) {
		errno = -r;
		return problem_errno(p, "no memory for what works on a lease (vm.max_map_count?)");
	}
	return 0;
}

static int start_serving(struct lease *l, struct problem *p)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int r;

	pthread_once(&once, install_end_signal);
	r = start_thread(&l->fault_thread, fault_main, l, "fault");
	if (r < 0) {
		errno = -r;
		return problem_errno(p, "cannot start a thread (TasksMax=, kernel.threads-max, vm.max_map_count)");
	}
	l->active = true;
	return 0;
}

/* At a restart the lease is there from here on. */
static int remember(struct lease *l, int uffd, struct problem *p)
{
	int r;

	l->record = state_record(&l->vm->state, l->id - 1);
	if (!l->record)
		return problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, PAGE_SIZE, 0, "the arena is full");
	r = kept_add(arena_kept(l->vm->arena), l->uffd_tag, uffd, p);
	if (r < 0) {
		l->record = NULL;
		return r;
	}
	CRASH_POINT("activate.kept");
	l->record->gpa = l->gpa;
	l->record->pages = l->pages;
	l->record->address = l->address;
	atomic_store(&l->record->handing, 0);
	state_record_live(l->record);
	return 0;
}

void lease_forget(struct lease *l)
{
	if (!l->record)
		return;
	state_record_end(l->record);
	l->record = NULL;
	kept_drop(arena_kept(l->vm->arena), l->uffd_tag);
}

int lease_activate(struct lease *l, int uffd, uint64_t address, struct problem *p)
{
	struct vm *vm = l->vm;
	int r;

	if (l->active || vm->stopping || atomic_load(&l->ending)) {
		lease_close_refused(l, uffd);
		return problem_set(p, EBUSY, PROBLEM_BAD_STATE, 0, 0, "this lease is active already, or it is ending");
	}
	if (!uffd_is(uffd)) {
		r = problem_set(p, EBADF, PROBLEM_BAD_DESCRIPTOR, 0, 0, "the descriptor passed is not a userfaultfd");
		goto fail;
	}
	if (address % PAGE_SIZE || address + l->pages * PAGE_SIZE < address) {
		r = problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, address, PAGE_SIZE, "a lease is mapped at a multiple of 4096");
		goto fail;
	}
	r = equip(l, p);
	if (r < 0)
		goto fail;
	l->uffd = uffd;
	l->address = address;
	CRASH_POINT("activate.ready");
	r = remember(l, uffd, p);
	if (r == 0)
		r = start_serving(l, p);
	if (r < 0)
		goto fail;
	CRASH_POINT("activate.started");
	return 0;
fail:
	lease_forget(l);
	undo_activation(l);
	lease_close_refused(l, uffd);
	return r;
}

/* Events that the process before us had read come again with the wake. */
int lease_serve(struct lease *l, struct problem *p)
{
	int r = equip(l, p);

	if (r == 0)
		r = start_worker(l, p);
	if (r == 0)
		r = start_serving(l, p);
	if (r == 0)
		lease_wake(l, 0, l->pages);
	return r;
}

void lease_free(struct lease *l)
{
	struct vm *vm;

	if (!l)
		return;
	vm = l->vm;
	if (l->has_worker) {
		/* refused if it was released in the right way; otherwise no client ever had it, and this is quick */
		l->stop_job = (struct job){ .kind = JOB_RELEASE };
		if (!atomic_load(&l->ending))
			lease_submit(l, &l->stop_job);
		pthread_join(l->worker, NULL); /* it has joined the fault thread */
	} else {
		/* found, and never served */
		lease_forget(l);
		if (l->uffd >= 0)
			close(l->uffd);
	}
	CRASH_POINT("lease_free.ended");
	pthread_mutex_lock(&vm->lock);
	if (!list_empty(&l->link)) {
		vm->leased_pages -= l->pages;
		for (unsigned s = 0; s < PAGE_STATES; s++)
			atomic_fetch_sub(&vm->pages[s], l->count[s]);
	}
	list_remove(&l->link);
	pthread_mutex_unlock(&vm->lock);
	CRASH_POINT("lease_free.unlisted");
	undo_activation(l);
	free(l->unsure);
	page_map_fini(&l->map);
	CRASH_POINT("lease_free.unmapped");
	segment_free(l->memory);
	CRASH_POINT("lease_free.done");
	pthread_mutex_destroy(&l->jobs_lock);
	pthread_cond_destroy(&l->jobs_cond);
	pthread_mutex_destroy(&l->ledger_lock);
	free(l);
}

/* ---- accessors ---- */

uint32_t lease_id(const struct lease *l)
{
	return l->id;
}

uint64_t lease_gpa(const struct lease *l)
{
	return l->gpa;
}

uint64_t lease_size_bytes(const struct lease *l)
{
	return l->pages * PAGE_SIZE;
}

struct vm *lease_vm(const struct lease *l)
{
	return l->vm;
}

int lease_fd(const struct lease *l)
{
	return l->memory->client_fd;
}

bool lease_is_active(const struct lease *l)
{
	return l->active;
}

struct lease *lease_next(struct lease *l)
{
	return l->link.next == &l->vm->leases ? NULL : container_of(l->link.next, struct lease, link);
}

uint64_t lease_missing_frames(struct lease *l)
{
	uint64_t n;

	pthread_mutex_lock(&l->ledger_lock);
	n = l->count[PAGE_COMPRESSED] + l->count[PAGE_SWAPPED] + l->count[PAGE_SHARED] + l->count[PAGE_BREAKING];
	pthread_mutex_unlock(&l->ledger_lock);
	return n;
}

void lease_stop_staying(struct lease *l)
{
	if (!atomic_load(&l->handing))
		atomic_store(&l->staying, false);
}

void lease_set_plain(struct lease *l)
{
	atomic_store(&l->plain, true);
}

void lease_not_plain(struct lease *l)
{
	if (l->record)
		atomic_store(&l->record->handing, 0);
	atomic_store(&l->handing, false);
}

bool lease_is_plain(const struct lease *l)
{
	return atomic_load(&l->plain);
}

bool lease_may_be_plain(const struct lease *l)
{
	return atomic_load(&l->handing);
}

/* ---- the page map, for people ---- */

/* What two words must have in common to be told in one run. */
static uint64_t told(uint64_t w, bool ages)
{
	uint64_t t = (w & WORD_STATE_MASK) | (w & (WORD_BUSY | WORD_MOVING) ? WORD_MOVING : 0);

	if (ages && word_state(w) == PAGE_RESIDENT)
		t |= w & ~0ull << WORD_REF_SHIFT;
	return t | (w & WORD_PIN_MASK ? WORD_PIN_MASK : 0) | (word_state(w) == PAGE_SHARED ? w & WORD_MAPPED : 0);
}

/* A page that was filled in a generation after the one that we see now is of age 0. */
static uint64_t age_of(struct lease *l, uint64_t w)
{
	uint64_t age, most;

	pthread_mutex_lock(&l->ledger_lock);
	age = (l->epoch - word_ref(w)) & 0xffff;
	most = l->epoch - l->epoch_oldest;
	pthread_mutex_unlock(&l->ledger_lock);
	return age > 0x8000 ? 0 : age < most ? age : most;
}

static uint64_t stored_bytes(struct lease *l, uint64_t page, uint64_t w)
{
	switch (word_state(w)) {
	case PAGE_RESIDENT:
	case PAGE_BREAKING:
	case PAGE_SWAPPED:
		return PAGE_SIZE;
	case PAGE_SHARED:
		return pool_part(atomic_load(&l->vm->pool), word_ref(w)) >> POOL_PART_SHIFT;
	case PAGE_COMPRESSED:
		return cache_stored_bytes(l->vm->stores.cache, word_ref(w), (uint32_t)page);
	default:
		return 0;
	}
}

int lease_map_run(struct lease *l, uint64_t page, uint64_t end, bool ages, struct map_run *ret)
{
	uint64_t first, w;

	if (end > l->pages)
		end = l->pages;
	if (page >= end)
		return 0;
	first = w = page_map_read(&l->map, page);
	*ret = (struct map_run){ .run = { page, 0 }, .state = word_state(w), .in_transit = w & (WORD_BUSY | WORD_MOVING),
		.pinned = w & WORD_PIN_MASK, .mapped = is_mapped(w), .place = word_state(w) == PAGE_COMPRESSED ? cache_offset(word_ref(w)) : word_ref(w) };
	if (word_state(w) == PAGE_RESIDENT)
		ret->place = 0;
	if (ages && word_state(w) == PAGE_RESIDENT)
		ret->age = age_of(l, w);
	do {
		ret->run.count++;
		ret->stored_bytes += stored_bytes(l, page, w);
		page++;
		w = page < end ? page_map_read(&l->map, page) : 0;
	} while (page < end && told(w, ages) == told(first, ages));
	return 1;
}

/* The entry of the pool that a page refers to; 0: none. */
static uint64_t entry_of(struct lease *l, uint64_t page)
{
	uint64_t w = page_map_read(&l->map, page);

	return word_state(w) == PAGE_SHARED || word_state(w) == PAGE_BREAKING ? word_ref(w) : 0;
}

int lease_shared_run(struct lease *l, uint64_t page, uint64_t most, struct pool_run *ret, uint64_t *ret_next)
{
	uint64_t end = most < l->pages - page ? page + most : l->pages;

	while (page < end && !entry_of(l, page))
		page += page_map_has(&l->map, page) ? 1 : MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES;
	*ret_next = page = page < end ? page : end;
	if (page == end)
		return 0;
	*ret = (struct pool_run){ page, 0, entry_of(l, page) };
	while (page < end && entry_of(l, page) == ret->pool_page + ret->count) {
		ret->count++;
		page++;
	}
	*ret_next = page;
	return ret->count > 0;
}
