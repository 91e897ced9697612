/* The lease worker: evictions, jobs that the client or an operator asked for, and the end of the lease. */
#include "mem/vm_impl.h"

#include "base/clock.h"
#include "mem/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <sched.h>
#include <time.h>

#define FAILED_BATCHES_MAX 4u
#define WAIT_NS		   (2 * NS_PER_MS)
#define EMPTY_BYTES	   (1ull << 30)

void lease_request_reclaim(struct lease *l, uint64_t frames, bool limit)
{
	pthread_mutex_lock(&l->jobs_lock);
	if (!l->ended && !atomic_load(&l->staying)) {
		atomic_store(&l->reclaim_limit, limit);
		atomic_store(&l->reclaim, frames);
		pthread_cond_signal(&l->jobs_cond);
	}
	pthread_mutex_unlock(&l->jobs_lock);
}

void lease_request_refresh(struct lease *l)
{
	pthread_mutex_lock(&l->jobs_lock);
	l->refresh = true;
	pthread_cond_signal(&l->jobs_cond);
	pthread_mutex_unlock(&l->jobs_lock);
}

void lease_request_ahead(struct lease *l, struct run range)
{
	pthread_mutex_lock(&l->jobs_lock);
	if (!l->ended && !atomic_load(&l->staying)) {
		l->ahead = range;
		pthread_cond_signal(&l->jobs_cond);
	}
	pthread_mutex_unlock(&l->jobs_lock);
}

int lease_submit(struct lease *l, struct job *job)
{
	bool ranged = job->kind < JOB_GATHER;
	int r = 0;

	if (ranged && (job->range.page > l->pages || job->range.count > l->pages - job->range.page))
		return -EINVAL;
	job->next = NULL;
	job->r = 0;
	job->pages = 0;
	pthread_mutex_lock(&l->jobs_lock);
	if (l->ended || atomic_load(&l->ending) || (ranged && !l->active)) {
		r = -EBUSY;
	} else {
		if (job->kind == JOB_RELEASE)
			atomic_store(&l->ending, true);
		*l->jobs_tail = job;
		l->jobs_tail = &job->next;
		pthread_cond_signal(&l->jobs_cond);
	}
	pthread_mutex_unlock(&l->jobs_lock);
	return r;
}

void share_poke(struct lease *l)
{
	pthread_mutex_lock(&l->jobs_lock);
	l->share_poked = true;
	l->pokes++;
	pthread_cond_signal(&l->jobs_cond);
	pthread_mutex_unlock(&l->jobs_lock);
}

void lease_wait_poke(struct lease *l, uint64_t *seen, uint64_t timeout_ns)
{
	uint64_t until = now_ns() + timeout_ns;
	struct timespec ts = { (time_t)(until / NS_PER_S), (long)(until % NS_PER_S) };

	pthread_mutex_lock(&l->jobs_lock);
	if (l->pokes == *seen)
		pthread_cond_timedwait(&l->jobs_cond, &l->jobs_lock, &ts);
	*seen = l->pokes;
	pthread_mutex_unlock(&l->jobs_lock);
}

bool lease_lock_word(struct lease *l, uint64_t page, uint64_t timeout_ns, uint64_t *ret_before)
{
	static const struct timespec pause = { .tv_nsec = 20000 };
	uint64_t until = 0;

	for (unsigned tries = 0; !word_lock(lease_word(l, page), ret_before); tries++) {
		if (tries < 16) {
			sched_yield();
			continue;
		}
		/* this thread itself may have it, in an order that has been answered meanwhile */
		share_settle(l);
		if (atomic_load(&l->ending))
			return false;
		if (!until)
			until = now_ns() + timeout_ns;
		else if (now_ns() > until)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* ---- reclaim ---- */

/* A batch, and what making room in the cache for it sets free. */
#define CLAIM_MAX (RUN_MAX + STORE_KEEP_UP_BLOCKS * CACHE_BLOCK_PAGES)

/* What is asked for the host was planned from numbers that are out of date by now: the client may have given pages back by itself,
 * or another worker has taken them.  So what a batch may take is claimed first, from what the VM holds above its
 * reservation and what other workers have claimed: at no instant do all claims together go below it.  A claim goes back
 * when the batch is done and uncharged; in between it counts twice, which errs on the VM's side. */
static unsigned claim_frames(struct vm *vm)
{
	uint64_t floor = inject.twin_no_floor ? 0 : vm->config.reservation_bytes / PAGE_SIZE, part = 0, taking, has, n;

	pthread_mutex_lock(&vm->lock);
	list_foreach(i, &vm->leases)
		part += atomic_load(&container_of(i, struct lease, link)->share_part) >> POOL_PART_SHIFT;
	pthread_mutex_unlock(&vm->lock);
	taking = atomic_load(&vm->taking_frames);
	do {
		has = atomic_load(&vm->account.frames) + part / PAGE_SIZE;
		if (has <= floor + taking)
			return 0;
		n = has - floor - taking;
		n = n < CLAIM_MAX ? n : CLAIM_MAX;
	} while (!atomic_compare_exchange_weak(&vm->taking_frames, &taking, taking + n));
	return (unsigned)n;
}

/* Victims that are not to be taken after all. */
static void let_go(struct lease *l, struct batch *b, unsigned most)
{
	if (b->count <= most)
		return;
	batch_unlock_and_wake(l, b, full_mask(b->count) & ~full_mask(most), b->before);
	b->count = most;
}

/* One batch of at most so many frames, and what the cache gives for it if that is claimed as well.  Frames won for the arena; 0:
 * nothing could be taken. */
static uint64_t reclaim_batch(struct lease *l, unsigned claimed, bool limit)
{
	unsigned most = claimed < RUN_MAX ? claimed : RUN_MAX;
	bool roomy = claimed == CLAIM_MAX;

	struct vm *vm = l->vm;
	struct pool *pool = atomic_load(&vm->pool);
	uint64_t cache_before = cache_charged_frames(vm->stores.cache), cache_now, out, part;
	uint64_t added = l->pool_added;
	struct batch b;

	/* of what the lease pays in the pool it gives in proportion to what it has in frames of its own */
	part = pool ? atomic_load(&l->share_part) >> POOL_PART_SHIFT >> PAGE_SHIFT : 0;
	if (part && l->pool_debt * part > RUN_MAX * atomic_load(&vm->pages[PAGE_RESIDENT])) {
		l->pool_debt = 0;
		out = pool_evict(pool, &l->bench, most);
		if (out)
			return out;
	}
	/* so near the reservation a full cache stays as it is, and what is evicted goes to the disk */
	if (roomy)
		store_keep_up(&vm->stores, &l->bench);
	if (victims_pick(l, &b)) {
		let_go(l, &b, most);
		out = evict_batch(l, &l->bench, &b);
		l->pool_debt += out;
		if (limit)
			COUNT(vm, reclaim_limit_pages, out);
		else
			COUNT(vm, reclaim_host_pages, out);
	} else {
		/* all that can be taken is in the pool, or in the cache already */
		int r;

		out = pool ? pool_evict(pool, &l->bench, most) : 0;
		if (out)
			return out;
		r = most < CACHE_BLOCK_PAGES ? 0 : store_write_back(&vm->stores, &l->bench);

		out = 0;
		if (r <= 0)
			return 0;
	}
	if (roomy)
		cache_trim(vm->stores.cache, 1);
	/* a page that became an entry of the pool has only changed places */
	added = l->pool_added - added;
	cache_now = cache_charged_frames(vm->stores.cache) + added;
	if (cache_now > cache_before)
		return out > cache_now - cache_before ? out - (cache_now - cache_before) : (out ? 1 : 0);
	return out + (cache_before - cache_now);
}

static void reclaim_some(struct lease *l)
{
	uint64_t want = atomic_load(&l->reclaim), won = 0;

	for (unsigned failed = 0; !won && failed < FAILED_BATCHES_MAX; failed++) {
		bool limit = atomic_load(&l->reclaim_limit);
		unsigned most = limit ? CLAIM_MAX : claim_frames(l->vm);

		if (!most)
			break;
		won = reclaim_batch(l, most, limit);
		if (!limit)
			atomic_fetch_sub(&l->vm->taking_frames, most);
	}
	/* nothing to be had, or done; a new request may have come meanwhile and is then served next */
	if (!won) {
		/* no poke: the next look comes by itself, and asks somebody else if this goes on */
		atomic_compare_exchange_strong(&l->reclaim, &want, 0);
	} else if (won >= want) {
		atomic_compare_exchange_strong(&l->reclaim, &want, 0);
		arena_poke(l->vm->arena);
	} else {
		atomic_compare_exchange_strong(&l->reclaim, &want, want - won);
	}
}

void lease_serve_reclaim(struct lease *l)
{
	struct pool *pool = atomic_load(&l->vm->pool);

	if (pool)
		pool_reap(pool);
	if (l->active && atomic_load(&l->reclaim) && !atomic_load(&l->staying))
		reclaim_some(l);
}

/* ---- bringing in ---- */

/* A frame for page `page`; this thread is the one that evicts from this lease, so it must not just sleep. */
static int charge_frame(struct lease *l, bool wait)
{
	struct vm *vm = l->vm;

	while (segment_charge(l->memory, 1, CHARGE_GUEST) < 0) {
		if (!wait)
			return -ENOMEM;
		if (atomic_load(&l->ending) || vm->stopping)
			return -ESHUTDOWN;
		if (now_ns() - l->job_began_ns > GIVE_UP_NS)
			return -ENOMEM;
		arena_poke(vm->arena);
		if (atomic_load(&l->reclaim))
			lease_serve_reclaim(l);
		else
			account_wait(&vm->account, WAIT_NS);
	}
	return 0;
}

int lease_bring_in(struct lease *l, struct run range, bool wait, uint64_t *ret_pages)
{
	uint64_t end = range.page + range.count;

	for (uint64_t page = range.page; page < end;) {
		uint64_t before[RUN_MAX], w = page_map_read(&l->map, page);
		unsigned n = 0;
		int r = 0;

		lease_serve_reclaim(l);
		if (word_state(w) == PAGE_RESIDENT && !(w & WORD_BUSY)) {
			page++;
			continue;
		}
		if (word_state(w) == PAGE_LOST)
			return -EIO;
		if (is_mapped(w)) {
			/* the client has it: from the pool, whose frames are not its own to keep, or as a copy */
			page++;
			continue;
		}
		if (!wait && arena_is_short(l->vm->arena))
			return 0;
		if (now_ns() - l->job_began_ns > GIVE_UP_NS)
			return wait ? -ENOMEM : 0;
		while (n < RUN_MAX && page + n < end && r == 0) {
			r = page_map_touch(&l->map, page + n);
			if (r == 0)
				r = charge_frame(l, wait && n == 0);
			if (r < 0)
				break;
			if (n ? !word_lock(lease_word(l, page + n), &before[n])
			      : !lease_lock_word(l, page, GIVE_UP_NS, &before[n])) {
				segment_uncharge(l->memory, 1);
				break;
			}
			if (!fill_joins(before[0], before[n])) {
				word_unlock(lease_word(l, page + n), before[n]);
				lease_wake(l, page + n, 1);
				segment_uncharge(l->memory, 1);
				break;
			}
			n++;
		}
		if (!n) {
			if (r < 0)
				return wait ? r : 0;
			if (word_state(page_map_read(&l->map, page)) == PAGE_LOST)
				return -EIO;
			continue; /* became resident, or changed: look again */
		}
		CRASH_POINT("populate.locked");
		n = fill_run(l, &l->bench, page, n, before, FILL_JOB);
		if (!n)
			return atomic_load(&l->ending) ? -ESHUTDOWN : -EIO;
		*ret_pages += n;
		page += n;
	}
	return 0;
}

int lease_populate(struct lease *l, struct run range, bool wait, uint64_t *ret_pages)
{
	uint64_t before = *ret_pages;
	int r = lease_bring_in(l, range, wait, ret_pages);

	COUNT(l->vm, populated_pages, *ret_pages - before);
	return r;
}

/* ---- the other jobs ---- */

/* How many pages had content. */
static unsigned discard_batch(struct lease *l, struct batch *b)
{
	uint64_t dropped = drop_batch(l, b, PAGE_ZERO);
	unsigned changed = 0;

	for (unsigned i = 0; i < b->count; i++)
		changed += (dropped >> i & 1) && word_state(b->before[i]) != PAGE_ZERO;
	COUNT(l->vm, discarded_pages, changed);
	return changed;
}

static int discard(struct lease *l, struct run range, uint64_t *ret_pages)
{
	uint64_t end = range.page + range.count;
	struct batch b = { .count = 0 };
	int r = share_bring_home(l, &range, 1, l->job_began_ns + GIVE_UP_NS);

	if (r < 0)
		return r;
	for (uint64_t page = range.page; page < end; page++) {
		if (page_map_has(&l->map, page)) {
			/* nobody waits for those that are locked already while we wait for another */
			if (!word_lock(lease_word(l, page), &b.before[b.count])) {
				if (b.count)
					*ret_pages += discard_batch(l, &b);
				b.count = 0;
				if (!lease_lock_word(l, page, GIVE_UP_NS, &b.before[0])) {
					r = -EBUSY; /* its store does not answer: it keeps its content */
					continue;
				}
			}
			if (word_state(b.before[b.count]) == PAGE_LOST && is_mapped(b.before[b.count])) {
				/* what the client maps there cannot be taken from it, and must not become anything else */
				word_unlock(lease_word(l, page), b.before[b.count]);
				r = -EIO;
			} else {
				b.page[b.count++] = page;
			}
		}
		if (b.count == RUN_MAX || (page + 1 == end && b.count)) {
			*ret_pages += discard_batch(l, &b);
			b.count = 0;
			lease_serve_reclaim(l);
		}
	}
	return r;
}

/* A test says what to evict, and when. */
static void evict_at_once(struct lease *l, struct run range)
{
	struct pool *pool = atomic_load(&l->vm->pool);
	struct batch b = { .count = 0 };
	bool mapped = false;

	store_keep_up(&l->vm->stores, &l->bench);
	for (uint64_t page = range.page; page < range.page + range.count && b.count < RUN_MAX; page++) {
		uint64_t w;

		if (!page_map_has(&l->map, page) || !lease_lock_word(l, page, NS_PER_S, &w))
			continue;
		mapped |= is_mapped(w);
		if (word_state(w) == PAGE_RESIDENT && !word_pins(w)) {
			b.page[b.count] = page;
			b.before[b.count++] = w;
		} else {
			word_unlock(lease_word(l, page), w);
			lease_wake(l, page, 1);
		}
	}
	if (b.count)
		evict_batch(l, &l->bench, &b);
	if (mapped && pool)
		pool_evict(pool, &l->bench, RUN_MAX);
	cache_trim(l->vm->stores.cache, 1);
}

static void dont_need(struct lease *l, struct run range, uint64_t *ret_pages)
{
	bool patient = true;

	if (inject.hasty)
		evict_at_once(l, range);

	for (uint64_t page = range.page; page < range.page + range.count; page++) {
		uint64_t w = page_map_read(&l->map, page);

		/* a guest that has just got the page may say so before the fault thread has let go of it */
		if ((w & WORD_BUSY) && patient) {
			patient = lease_lock_word(l, page, NS_PER_MS, &w);
			if (patient) {
				word_unlock(lease_word(l, page), w);
				lease_wake(l, page, 1);
			}
		}
		if (word_state(w) == PAGE_RESIDENT && !(w & WORD_BUSY) && ledger_restamp(l, page, w, false, 0))
			++*ret_pages;
	}
	victims_restart(l);
}

/* The client may keep its descriptor and its mapping for ever: the pages must be gone before their frames are
 * given to somebody else.  Whoever still touches them there waits; it reads no zeros. */
static void empty(struct lease *l)
{
	/* what may be the client's own is never emptied: at the worst it keeps what nobody pays for */
	if (inject.twin_no_punch || atomic_load(&l->plain) || atomic_load(&l->handing))
		return;
	for (unsigned tries = 0; tries < 3; tries++) {
		/* in pieces: how long it takes must tell of the client, not of the size */
		for (uint64_t at = 0; at < l->memory->size_bytes; at += EMPTY_BYTES) {
			lease_hold_begin(l, HOLD_WORKER);
			(void)fallocate(l->memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, EMPTY_BYTES);
			lease_hold_end(l, HOLD_WORKER);
		}
		if (!segment_blocks(l->memory))
			return;
	}
	/* it is being written to at this moment, by its client behind our back: those pages are of its own cgroup */
	COUNT(l->vm, foreign_pages, segment_blocks(l->memory));
}

/* Everything back: the words are walked so that other leases of the VM keep their stores. */
static void release(struct lease *l)
{
	struct vm *vm = l->vm;
	uint64_t pinned = 0;

	lease_forget(l);
	CRASH_POINT("release.recorded");
	if (l->active)
		lease_end_fault_thread(l);
	/* nobody notes a wait from here on, and nobody would end those that are left */
	lease_end_waits(l, 0, l->pages);
	CRASH_POINT("release.begun");
	share_end(l);
	CRASH_POINT("release.unshared");
	empty(l);
	CRASH_POINT("release.emptied");
	pthread_mutex_lock(&vm->stores.lock);
	MOVES_BEGIN(&vm->stores);
	for (uint64_t page = 0; page < l->pages; page++) {
		uint64_t w = page_map_read(&l->map, page);

		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES - 1;
			continue;
		}
		pinned += word_pins(w) > 0;
		if (word_state(w) == PAGE_COMPRESSED || word_state(w) == PAGE_SWAPPED) {
			ledger_move(l, page, w, PAGE_ZERO);
			word_unlock(lease_word(l, page), word_make(PAGE_ZERO, 0));
			CRASH_POINT("release.unlocked");
			store_forget(&vm->stores, w);
		}
	}
	l->released = true;
	MOVES_END(&vm->stores);
	pthread_mutex_unlock(&vm->stores.lock);
	CRASH_POINT("release.forgotten");
	atomic_fetch_sub(&vm->pinned_pages, pinned);
	cache_trim(vm->stores.cache, 0);
	segment_uncharge(l->memory, atomic_load(&l->memory->frames));
	/* Nobody else uses them now, and closing the last reference of a userfaultfd takes its client's locks. */
	lease_hold_begin(l, HOLD_WORKER);
	if (l->uffd >= 0)
		close(l->uffd);
	lease_hold_end(l, HOLD_WORKER);
	if (l->own_uffd >= 0)
		close(l->own_uffd);
	l->uffd = l->own_uffd = -1;
	CRASH_POINT("release.closed");
}

static void run_job(struct lease *l, struct job *job)
{
	l->job_began_ns = now_ns();
	switch (job->kind) {
	case JOB_WILL_NEED:
		job->r = lease_populate(l, job->range, false, &job->pages);
		break;
	case JOB_POPULATE:
		job->r = lease_populate(l, job->range, true, &job->pages);
		break;
	case JOB_PAGE_IN:
		lease_page_in(l, job);
		break;
	case JOB_DONT_NEED:
		dont_need(l, job->range, &job->pages);
		break;
	case JOB_DISCARD:
		job->r = discard(l, job->range, &job->pages);
		break;
	case JOB_PIN:
	case JOB_UNPIN:
		/* its reply went down with the daemon that did it */
		if (job->call && job->call == atomic_load(&l->record->pin_done))
			break;
		job->r = job->kind == JOB_PIN ? lease_pin(l, job) : lease_unpin(l, job);
		break;
	case JOB_INFLATE:
		job->r = lease_inflate(l, job);
		break;
	case JOB_DEFLATE:
		job->r = lease_deflate(l, job);
		break;
	case JOB_GATHER:
		job->r = lease_gather(l, &job->pages);
		break;
	case JOB_HAND_OVER:
		job->r = lease_hand_over(l);
		break;
	case JOB_AUDIT:
		lease_run_audit(l, &job->audit);
		break;
	case JOB_RELEASE:
		release(l);
		break;
	}
}

void lease_park(struct lease *l, enum holder h)
{
	lease_hold_end(l, h);
	for (;;)
		pause();
}

static void finish(struct job *job)
{
	if (job->done)
		job->done(job, job->userdata);
}

void lease_serve_audits(struct lease *l)
{
	for (;;) {
		struct job *job, **at;

		pthread_mutex_lock(&l->jobs_lock);
		for (at = &l->jobs; *at && (*at)->kind != JOB_AUDIT; at = &(*at)->next)
			;
		job = *at;
		if (job) {
			*at = job->next;
			if (!*at)
				l->jobs_tail = at;
		}
		pthread_mutex_unlock(&l->jobs_lock);
		if (!job)
			return;
		lease_run_audit(l, &job->audit);
		finish(job);
	}
}

static struct job *next_job(struct lease *l, bool *ret_refresh, bool *ret_share, struct run *ret_ahead)
{
	struct job *job;

	pthread_mutex_lock(&l->jobs_lock);
	while (!l->jobs && !l->refresh && !atomic_load(&l->reclaim) && !l->n_refused_fds && !l->share_poked && !l->ahead.count)
		pthread_cond_wait(&l->jobs_cond, &l->jobs_lock);
	*ret_share = l->share_poked;
	l->share_poked = false;
	*ret_ahead = l->ahead;
	l->ahead.count = 0;
	while (l->n_refused_fds) {
		int fd = l->refused_fds[--l->n_refused_fds];

		pthread_mutex_unlock(&l->jobs_lock);
		close(fd);
		pthread_mutex_lock(&l->jobs_lock);
	}
	job = l->jobs;
	if (job) {
		l->jobs = job->next;
		if (!l->jobs)
			l->jobs_tail = &l->jobs;
	}
	*ret_refresh = l->refresh;
	l->refresh = false;
	pthread_mutex_unlock(&l->jobs_lock);
	return job;
}

/* No job comes after this; those that are queued are answered. */
static void close_queue(struct lease *l)
{
	struct job *job;

	pthread_mutex_lock(&l->jobs_lock);
	l->ended = true;
	job = l->jobs;
	l->jobs = NULL;
	atomic_store(&l->reclaim, 0);
	pthread_mutex_unlock(&l->jobs_lock);
	while (job) {
		struct job *next = job->next;

		job->r = -ESHUTDOWN;
		finish(job);
		job = next;
	}
}

void *worker_main(void *arg)
{
	struct lease *l = arg;
	struct vm *vm = l->vm;
	static const struct timespec pause = { .tv_nsec = 1000000 };
	void (*gone)(void *) = NULL;
	void *gone_data = NULL;

	lease_settle_unsure(l);
	for (;;) {
		bool refresh, share;
		struct run ahead;
		struct job *job = next_job(l, &refresh, &share, &ahead);

		/* fills wait for it, also those of this thread */
		while (refresh && !atomic_load(&l->ending) && own_map(l) < 0)
			nanosleep(&pause, NULL);
		/* a guest is about to need it; it is one run, and takes no frame that is not there */
		if (ahead.count && !atomic_load(&l->staying))
			fill_ahead(l, &l->bench, ahead, FILL_JOB);
		lease_serve_reclaim(l);
		/* a step at a time, so that jobs and reclaim never wait for more than one */
		if (share && l->share && !atomic_load(&l->staying) && share_step(l))
			share_poke(l);
		if (!job)
			continue;
		run_job(l, job);
		if (job->kind == JOB_RELEASE) {
			close_queue(l);
			finish(job);
			break;
		}
		finish(job);
	}
	pthread_mutex_lock(&vm->lock);
	if (!--vm->live_workers && vm->stopping) {
		gone = vm->gone;
		gone_data = vm->gone_data;
	}
	pthread_mutex_unlock(&vm->lock);
	if (gone)
		gone(gone_data);
	return NULL;
}
