#include "mem/arena.h"

#include "base/clock.h"
#include "base/events.h"
#include "base/peak.h"
#include "mem/host.h"
#include "mem/inject.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

/* Room for the maps of guests far beyond the arena; addresses cost nothing until they are used.  Halved when
 * the process may not have so many. */
#define WINDOW_BYTES	 (1ull << 40)
#define WINDOW_BYTES_MIN (4ull << 30)
#define GUARD_BYTES	 PAGE_SIZE
#define PUNCH_TRIES	 3u
#define RESERVE_MIN	 128u	/* frames: two runs of compressed pages, and their maps */

struct arena {
	struct kept *kept;
	_Atomic uint64_t capacity;		/* frames */
	_Atomic uint64_t unlent;		/* of these, those that are to be withdrawn */
	uint64_t reserve_max;			/* of these, never promised to anybody; */
	_Atomic uint64_t reserve;		/* at most this: for stores only */
	_Atomic uint64_t charged;
	_Atomic uint64_t peak;
	_Atomic uint64_t low;			/* fewer free than this: short of memory */
	_Atomic uint64_t wake;			/* fewer free than this: crossed(); low, or a threshold below it */
	_Atomic bool crossed;			/* told, not re-armed */
	void (*on_crossed)(void *);
	void *crossed_data;

	uint8_t *window;
	uint64_t window_bytes;

	/* Lock order: after every lock of mem/ but those of the stores' bookkeeping; nothing is called under it. */
	pthread_mutex_t lock;
	struct list segments;			/* sorted by address; leases (no address) first */
	struct list *last_placed;		/* in there, or its head: where the next one is likely to fit behind */
	uint64_t n_segments;
	uint64_t reserved;			/* promised to VMs, frames */
	int twin_parked_fd;			/* twin no_punch: the memfd of a lease that went, full of its bytes */
	uint64_t twin_parked_bytes;

	/* Faults that wait for a frame. */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_cond;
	_Atomic unsigned waiters;
};

/* memfds are born open to everybody who can reach them through /proc.  A lease stays so, because its client
 * holds it anyway (and QEMU reopens it); all others are for us alone.  A pool's members have a descriptor that can only
 * read: with this mode none of them can make another of it, unless it is of our own uid, or root. */
static int seal(int fd, enum segment_kind kind)
{
	mode_t mode = kind == SEGMENT_POOL && !inject.twin_pool_writable ? 0400 : 0600;

	if (kind != SEGMENT_LEASE && fchmod(fd, mode) < 0)
		return -errno;
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? -errno : 0;
}

static int make_memfd(const char *name, uint64_t size_bytes)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size_bytes) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int arena_probe_huge_pages(struct problem *p)
{
	static const char byte;
	struct stat st;
	int fd, r = 0;

	fd = make_memfd("memctl-probe", 4 << 20);
	if (fd < 0) {
		errno = -fd;
		return problem_errno(p, "memfd_create");
	}
	if (pwrite(fd, &byte, 1, 2 << 20) != 1 || fstat(fd, &st) < 0)
		r = problem_errno(p, "cannot write to a fresh memfd");
	else if ((uint64_t)st.st_blocks * 512 != PAGE_SIZE)
		r = problem_set(p, ENOTSUP, PROBLEM_SYSTEM, PAGE_SIZE, (uint64_t)st.st_blocks * 512,
			"one written page of a memfd allocates %llu bytes: shmem huge pages are on, and guests would "
			"read zeros; set /sys/kernel/mm/transparent_hugepage/shmem_enabled to never or advise",
			(unsigned long long)st.st_blocks * 512);
	close(fd);
	return r;
}

static int reserve_window(struct arena *a)
{
	for (a->window_bytes = WINDOW_BYTES; a->window_bytes >= WINDOW_BYTES_MIN; a->window_bytes /= 2) {
		a->window = mmap(NULL, a->window_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (a->window != MAP_FAILED)
			return 0;
	}
	return -errno;
}

int arena_new(struct arena **ret, uint64_t capacity_bytes, struct kept *kept, struct problem *p)
{
	uint64_t available = host_available_bytes(), held = kept_bytes(kept);
	pthread_condattr_t attr;
	struct arena *a;
	int r;

	if (capacity_bytes < (8ull << 20) || capacity_bytes % PAGE_SIZE)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, capacity_bytes, 8ull << 20,
			"an arena has at least 8 MiB and a multiple of 4096 bytes");
	available = available < UINT64_MAX - held ? available + held : UINT64_MAX;
	if (capacity_bytes > available) {
		r = problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, capacity_bytes, available,
			"the host cannot hold an arena of %llu MiB: %llu MiB are available to this process",
			(unsigned long long)capacity_bytes >> 20, (unsigned long long)available >> 20);
		/* guests that wait are better off with what there is than with nobody */
		if (!held)
			return r;
		event_tell(EVENT_MEMORY_SHORT, NULL, "%s", p->text);
	}
	r = arena_probe_huge_pages(p);
	if (r < 0)
		return r;

	a = calloc(1, sizeof *a);
	if (!a)
		return problem_errno(p, "arena");
	if (reserve_window(a) < 0) {
		r = problem_errno(p, "cannot reserve an address window of %llu GiB", WINDOW_BYTES_MIN >> 30);
		free(a);
		return r;
	}
	a->kept = kept;
	a->capacity = capacity_bytes / PAGE_SIZE;
	a->reserve = a->reserve_max = a->capacity / 128 > RESERVE_MIN ? a->capacity / 128 : RESERVE_MIN;
	a->twin_parked_fd = -1;
	list_init(&a->segments);
	a->last_placed = &a->segments;
	pthread_mutex_init(&a->lock, NULL);
	pthread_mutex_init(&a->wait_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wait_cond, &attr);
	pthread_condattr_destroy(&attr);
	*ret = a;
	return 0;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	assert(list_empty(&a->segments));
	assert(a->charged == 0 && a->reserved == 0);
	if (a->twin_parked_fd >= 0)
		close(a->twin_parked_fd);
	munmap(a->window, a->window_bytes);
	pthread_mutex_destroy(&a->lock);
	pthread_mutex_destroy(&a->wait_lock);
	pthread_cond_destroy(&a->wait_cond);
	free(a);
}

struct kept *arena_kept(const struct arena *a)
{
	return a->kept;
}

/* ---- pressure ---- */

void arena_set_reserve(struct arena *a, uint64_t frames)
{
	frames = frames > RESERVE_MIN ? frames : RESERVE_MIN;
	atomic_store(&a->reserve, frames < a->reserve_max ? frames : a->reserve_max);
}

void arena_set_low(struct arena *a, uint64_t low_frames)
{
	atomic_store(&a->low, low_frames);
	atomic_store(&a->wake, low_frames);
}

void arena_set_pressure(struct arena *a, uint64_t low_frames, void (*crossed)(void *), void *userdata)
{
	a->on_crossed = crossed;
	a->crossed_data = userdata;
	arena_set_low(a, low_frames);
}

void arena_poke(struct arena *a)
{
	if (a->on_crossed)
		a->on_crossed(a->crossed_data);
}

/* What it is to have; what is lent, and has not been withdrawn yet, does not count. */
static uint64_t capacity_of(struct arena *a)
{
	uint64_t unlent = atomic_load(&a->unlent);

	return a->capacity - unlent;
}

uint64_t arena_free_frames(struct arena *a)
{
	uint64_t charged = atomic_load(&a->charged);

	return charged < capacity_of(a) ? capacity_of(a) - charged : 0;
}

bool arena_is_short(struct arena *a)
{
	return arena_free_frames(a) < atomic_load_explicit(&a->low, memory_order_relaxed);
}

bool arena_is_roomy(struct arena *a)
{
	return arena_free_frames(a) >= 2 * atomic_load_explicit(&a->low, memory_order_relaxed);
}

/* A charge that falls below the new threshold between the first store and the second finds `crossed` set, and tells
 * nobody; the look at the end sees what it left.  So either it tells, or we answer true. */
bool arena_rearm(struct arena *a, uint64_t wake_frames)
{
	atomic_store(&a->wake, wake_frames);
	atomic_store(&a->crossed, false);
	return arena_free_frames(a) < wake_frames;
}

int arena_reserve(struct arena *a, uint64_t frames, struct problem *p)
{
	uint64_t room;
	int r = 0;

	pthread_mutex_lock(&a->lock);
	room = a->reserve_max + a->reserved < capacity_of(a) ? capacity_of(a) - a->reserve_max - a->reserved : 0;
	if (frames > room)
		r = problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, frames * PAGE_SIZE, room * PAGE_SIZE,
			"reservation and overhead need %llu MiB of arena, %llu MiB are not promised yet: lower the "
			"reservation, or stop a VM", (unsigned long long)(frames * PAGE_SIZE >> 20),
			(unsigned long long)(room * PAGE_SIZE >> 20));
	else
		a->reserved += frames;
	pthread_mutex_unlock(&a->lock);
	return r;
}

void arena_reserve_found(struct arena *a, uint64_t frames)
{
	pthread_mutex_lock(&a->lock);
	a->reserved += frames;
	pthread_mutex_unlock(&a->lock);
}

void arena_lend(struct arena *a, uint64_t frames)
{
	atomic_fetch_add(&a->capacity, frames);
}

/* What was lent is withdrawn as frames are given back, and the reserve stays above what is charged meanwhile.  At once, and nobody could be
 * reclaimed from any more who was gathered and did not leave after all: no store would have a frame to put pages into. */
static void withdraw(struct arena *a)
{
	uint64_t owed = atomic_load(&a->unlent), give;

	do {
		uint64_t keep = atomic_load(&a->charged) + a->reserve, capacity = a->capacity;

		give = capacity > keep ? capacity - keep : 0;
		give = give < owed ? give : owed;
		if (!give)
			return;
	} while (!atomic_compare_exchange_weak(&a->unlent, &owed, owed - give));
	atomic_fetch_sub(&a->capacity, give);
}

void arena_unlend(struct arena *a, uint64_t frames)
{
	atomic_fetch_add(&a->unlent, frames);
	withdraw(a);
}

void arena_unreserve(struct arena *a, uint64_t frames)
{
	pthread_mutex_lock(&a->lock);
	assert(a->reserved >= frames);
	a->reserved -= frames;
	pthread_mutex_unlock(&a->lock);
}

/* ---- accounts ---- */

#define LIMIT_MARGIN_MIN 128u
#define LIMIT_MARGIN_MAX 4096u

void account_init(struct account *acc, struct arena *a, uint64_t limit_frames)
{
	*acc = (struct account){ .arena = a, .limit_frames = limit_frames };
}

void account_fini(struct account *acc)
{
	(void)acc;
	assert(atomic_load(&acc->frames) == 0);
}

/* Far enough below the limit that a run of faults does not meet it before reclaim has begun: as the plan has it
 * (policy_limit_margin_frames, which begins at half of it), or charges would call for plans that do nothing. */
static uint64_t limit_margin(uint64_t limit)
{
	uint64_t margin = limit / 32;

	margin = margin < LIMIT_MARGIN_MIN ? LIMIT_MARGIN_MIN : margin > LIMIT_MARGIN_MAX ? LIMIT_MARGIN_MAX : margin;
	return margin < limit / 4 ? margin : limit / 4;
}

uint64_t account_over_limit(const struct account *acc)
{
	uint64_t limit = atomic_load(&acc->limit_frames), frames = atomic_load(&acc->frames);

	if (limit == UINT64_MAX || frames + limit_margin(limit) <= limit)
		return 0;
	return frames + limit_margin(limit) - limit;
}

bool account_is_roomy(const struct account *acc)
{
	uint64_t limit = atomic_load(&acc->limit_frames);

	return limit == UINT64_MAX || atomic_load(&acc->frames) + 2 * limit_margin(limit) <= limit;
}

void account_rearm(struct account *acc)
{
	atomic_store(&acc->pressed, false);
}

bool account_is_blocked(const struct account *acc)
{
	return atomic_load_explicit(&acc->blocked, memory_order_relaxed) &&
		!atomic_load_explicit(&acc->leaving, memory_order_relaxed);
}

/* As with an uncharge: a waiter counts itself before it looks at the flag, and we lower the flag before we look at the
 * count. */
void account_set_blocked(struct account *acc, bool blocked)
{
	struct arena *a = acc->arena;

	if (!atomic_exchange(&acc->blocked, blocked) || blocked || !atomic_load(&a->waiters))
		return;
	pthread_mutex_lock(&a->wait_lock);
	pthread_cond_broadcast(&a->wait_cond);
	pthread_mutex_unlock(&a->wait_lock);
}

static int account_charge(struct account *acc, uint64_t frames, enum charge_kind kind)
{
	struct arena *a = acc->arena;
	uint64_t wall = a->capacity - (kind == CHARGE_STORE ? 0 : a->reserve);
	uint64_t limit = kind == CHARGE_STORE ? UINT64_MAX : atomic_load_explicit(&acc->limit_frames, memory_order_relaxed);
	uint64_t mine, all;

	if (kind == CHARGE_GUEST && account_is_blocked(acc))
		return -EBUSY;
	mine = atomic_fetch_add(&acc->frames, frames) + frames;
	if (limit != UINT64_MAX && mine + limit_margin(limit) / 2 > limit && !atomic_exchange(&acc->pressed, true))
		arena_poke(a);
	if (atomic_load_explicit(&acc->leaving, memory_order_relaxed))
		wall = limit = UINT64_MAX;
	if (mine > limit) {
		atomic_fetch_sub(&acc->frames, frames);
		return -EDQUOT;
	}
	all = atomic_load(&a->charged);
	do {
		if (all + frames > wall) {
			atomic_fetch_sub(&acc->frames, frames);
			if (!atomic_exchange(&a->crossed, true))
				arena_poke(a);
			return -ENOMEM;
		}
	} while (!atomic_compare_exchange_weak(&a->charged, &all, all + frames));
	all += frames;
	peak_raise(&a->peak, all);
	peak_raise(&acc->peak, mine);
	if (arena_free_frames(a) < atomic_load_explicit(&a->wake, memory_order_relaxed) && !atomic_exchange(&a->crossed, true))
		arena_poke(a);
	return 0;
}

static void account_uncharge(struct account *acc, uint64_t frames)
{
	struct arena *a = acc->arena;
	uint64_t before __attribute__((unused)) = atomic_fetch_sub(&acc->frames, frames);

	assert(before >= frames);
	before = atomic_fetch_sub(&a->charged, frames);
	assert(before >= frames);
	if (atomic_load_explicit(&a->unlent, memory_order_relaxed))
		withdraw(a);
	/* A waiter counts itself before it looks at the charge, and we lower the charge before we look at the
	 * count (both sequentially consistent): one of us sees the other. */
	if (atomic_load(&a->waiters)) {
		pthread_mutex_lock(&a->wait_lock);
		pthread_cond_broadcast(&a->wait_cond);
		pthread_mutex_unlock(&a->wait_lock);
	}
}

static bool may_charge(struct account *acc)
{
	struct arena *a = acc->arena;

	if (atomic_load(&acc->leaving))
		return true;
	return !atomic_load(&acc->blocked) && atomic_load(&a->charged) + 1 <= a->capacity - a->reserve &&
		atomic_load(&acc->frames) + 1 <= atomic_load(&acc->limit_frames);
}

void account_wait(struct account *acc, uint64_t timeout_ns)
{
	struct arena *a = acc->arena;
	uint64_t until = now_ns() + timeout_ns;
	struct timespec ts = { .tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S) };

	pthread_mutex_lock(&a->wait_lock);
	atomic_fetch_add(&a->waiters, 1);
	if (!may_charge(acc))
		pthread_cond_timedwait(&a->wait_cond, &a->wait_lock, &ts);
	atomic_fetch_sub(&a->waiters, 1);
	pthread_mutex_unlock(&a->wait_lock);
}

void account_changed(struct account *acc)
{
	struct arena *a = acc->arena;

	pthread_mutex_lock(&a->wait_lock);
	pthread_cond_broadcast(&a->wait_cond);
	pthread_mutex_unlock(&a->wait_lock);
	arena_poke(a);
}

/* ---- segments ---- */

static const char *const segment_names[] = {
	[SEGMENT_STATE] = "memctl-state", [SEGMENT_LEASE] = "memctl-lease", [SEGMENT_POOL] = "memctl-pool", [SEGMENT_PAGE_MAP] = "memctl-page-map",
	[SEGMENT_CACHE] = "memctl-cache", [SEGMENT_SWAP_MAP] = "memctl-swap-map",
};

/* Room between two mapped segments, which are kept sorted by address, from the one after `from` on.  The link before which the new
 * one goes; NULL: there is none. */
static struct list *find_room(struct arena *a, struct list *from, uint64_t bytes, uint64_t *ret_at)
{
	uint64_t at = (uint64_t)a->window, end = at + a->window_bytes;
	struct list *i;

	if (from != &a->segments) {
		const struct segment *o = container_of(from, struct segment, link);

		if (o->addr)
			at = (uint64_t)o->addr + o->size_bytes + GUARD_BYTES;
	}
	for (i = from->next; i != &a->segments; i = i->next) {
		const struct segment *o = container_of(i, struct segment, link);

		if (!o->addr)
			continue;
		if ((uint64_t)o->addr >= at + bytes + GUARD_BYTES)
			break;
		at = (uint64_t)o->addr + o->size_bytes + GUARD_BYTES;
	}
	*ret_at = at;
	return at + bytes + GUARD_BYTES <= end ? i : NULL;
}

/* Next fit: behind the one that was placed last, and only where there is no room from the beginning.  First fit walked over all
 * segments of all VMs for each new one. */
static int place_in_window(struct arena *a, struct segment *s)
{
	uint64_t at;
	struct list *before = find_room(a, a->last_placed, s->size_bytes, &at);

	if (!before)
		before = find_room(a, &a->segments, s->size_bytes, &at);
	if (!before)
		return -ENOSPC;
	s->addr = mmap((void *)at, s->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, s->fd, 0);
	if (s->addr == MAP_FAILED) {
		s->addr = NULL;
		return -errno;
	}
	madvise(s->addr, s->size_bytes, MADV_NOHUGEPAGE);
	madvise(s->addr, s->size_bytes, MADV_DONTDUMP);
	list_append(before, &s->link); /* appending to a link puts it before that link */
	a->last_placed = &s->link;
	return 0;
}

/* A description of our own of the same file: position and flags are not shared with the client, who could
 * hold the position's lock. */
static int open_again(int fd)
{
	char path[64];
	int own;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	return own < 0 ? -errno : own;
}

static int take_parked(struct arena *a, uint64_t size_bytes)
{
	int fd = -1;

	pthread_mutex_lock(&a->lock);
	if (a->twin_parked_fd >= 0 && a->twin_parked_bytes == size_bytes) {
		fd = a->twin_parked_fd;
		a->twin_parked_fd = -1;
	}
	pthread_mutex_unlock(&a->lock);
	return fd;
}

/* Of a process before us, but only if it is what one of ours must be: sealed, of this size. */
static int take_found(struct segment *s, struct arena *a)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd = kept_take(a->kept, s->tag), has;
	struct stat st;

	if (fd < 0)
		return 0;
	s->fd = fd;
	s->found = true;
	has = fcntl(fd, F_GET_SEALS);
	if (has < 0 || (has & seals) != seals || fstat(fd, &st) < 0 || (uint64_t)st.st_size != s->size_bytes)
		return -EBADMSG;
	return 0;
}

int segment_new(struct segment **ret, struct arena *a, struct account *payer, enum segment_kind kind,
	struct kept_owner owner, const char *part, uint64_t size_bytes, struct problem *p)
{
	struct segment *s = calloc(1, sizeof *s);
	bool kept = false;
	int r = 0;

	if (!s)
		return problem_errno(p, "segment");
	*s = (struct segment){ .kind = kind, .arena = a, .payer = payer, .fd = -1, .size_bytes = size_bytes, .client_fd = -1 };
	list_init(&s->link);
	kept_tag(s->tag, owner, part);
	r = take_found(s, a);
	if (r == 0 && owner.found && !s->found)
		r = -EBADMSG;
	if (r < 0) {
		problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "what was kept as %s is missing, or no such memory", s->tag);
		goto fail;
	}
	if (kind == SEGMENT_LEASE && s->fd < 0 && inject.twin_no_punch)
		s->fd = take_parked(a, size_bytes);
	if (s->fd < 0) {
		s->fd = make_memfd(segment_names[kind], size_bytes);
		if (s->fd < 0) {
			errno = -s->fd;
			r = problem_errno(p, "memfd_create");
			goto fail;
		}
		if (seal(s->fd, kind) < 0) {
			r = problem_errno(p, "cannot seal a memfd");
			goto fail;
		}
	}
	if (kind == SEGMENT_LEASE) {
		s->client_fd = s->fd;
		s->fd = open_again(s->client_fd);
		if (s->fd < 0) {
			errno = -s->fd;
			r = problem_errno(p, "cannot reopen a memfd");
			goto fail;
		}
	}
	if (!s->found) {
		r = kept_add(a->kept, s->tag, kind == SEGMENT_LEASE ? s->client_fd : s->fd, p);
		if (r < 0)
			goto fail;
		kept = true;
	}
	pthread_mutex_lock(&a->lock);
	if (kind == SEGMENT_LEASE) {
		s->link.next = a->segments.next;
		s->link.prev = &a->segments;
		s->link.next->prev = a->segments.next = &s->link;
	} else {
		r = place_in_window(a, s);
		if (r < 0)
			problem_set(p, -r, PROBLEM_LIMIT_REACHED, size_bytes, a->window_bytes,
				"no room for a map of %llu bytes in the daemon's address window", (unsigned long long)size_bytes);
	}
	if (r == 0)
		a->n_segments++;
	pthread_mutex_unlock(&a->lock);
	if (r < 0)
		goto fail;
	*ret = s;
	return 0;
fail:
	if (kept || s->found)
		kept_drop(a->kept, s->tag);
	if (s->fd >= 0)
		close(s->fd);
	if (s->client_fd >= 0)
		close(s->client_fd);
	free(s);
	return r;
}

void segment_free(struct segment *s)
{
	struct arena *a;
	bool park;

	if (!s)
		return;
	a = s->arena;
	park = inject.twin_no_punch && s->kind == SEGMENT_LEASE;
	pthread_mutex_lock(&a->lock);
	if (a->last_placed == &s->link)
		a->last_placed = s->link.prev;
	list_remove(&s->link);
	a->n_segments--;
	if (s->addr)
		mmap(s->addr, s->size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (park && a->twin_parked_fd < 0) {
		a->twin_parked_fd = s->client_fd;
		a->twin_parked_bytes = s->size_bytes;
		s->client_fd = -1;
	}
	pthread_mutex_unlock(&a->lock);
	kept_drop(a->kept, s->tag);
	close(s->fd);
	if (s->client_fd >= 0)
		close(s->client_fd);
	segment_uncharge(s, atomic_load(&s->frames));
	free(s);
}

uint64_t segment_blocks(const struct segment *s)
{
	struct stat st;

	return fstat(s->fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512 / PAGE_SIZE;
}

int segment_charge(struct segment *s, uint64_t frames, enum charge_kind kind)
{
	int r = account_charge(s->payer, frames, kind);

	if (r == 0)
		atomic_fetch_add(&s->frames, frames);
	return r;
}

void segment_uncharge(struct segment *s, uint64_t frames)
{
	uint64_t before __attribute__((unused)) = atomic_fetch_sub(&s->frames, frames);

	assert(before >= frames);
	if (frames)
		account_uncharge(s->payer, frames);
}

void segment_charge_found(struct segment *s, uint64_t frames)
{
	struct arena *a = s->arena;

	atomic_fetch_add(&s->frames, frames);
	peak_raise(&s->payer->peak, atomic_fetch_add(&s->payer->frames, frames) + frames);
	peak_raise(&a->peak, atomic_fetch_add(&a->charged, frames) + frames);
}

bool segment_next_data(const struct segment *s, uint64_t at, uint64_t *ret_from, uint64_t *ret_to)
{
	off_t from = at < s->size_bytes ? lseek(s->fd, (off_t)at, SEEK_DATA) : -1, to;

	if (from < 0)
		return false;
	to = lseek(s->fd, from, SEEK_HOLE);
	*ret_from = (uint64_t)from & ~(PAGE_SIZE - 1);
	*ret_to = to < 0 ? s->size_bytes : ((uint64_t)to + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	return true;
}

bool segment_is_hole(const struct segment *s, uint64_t offset, uint64_t length)
{
	off_t data = lseek(s->fd, (off_t)offset, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + length;
}

int segment_make_hole(struct segment *s, uint64_t offset, uint64_t length)
{
	int r = -1;

	for (unsigned tries = 0; r < 0 && tries < PUNCH_TRIES; tries++)
		r = fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
	return r < 0 ? -errno : 0;
}

int segment_punch(struct segment *s, uint64_t offset, uint64_t length, uint64_t charged)
{
	int r = segment_make_hole(s, offset, length);

	if (r < 0)
		return r;
	if (!segment_is_hole(s, offset, length))
		return -EBUSY;
	segment_uncharge(s, charged);
	return 0;
}

void arena_numbers(struct arena *a, struct arena_numbers *ret)
{
	pthread_mutex_lock(&a->lock);
	*ret = (struct arena_numbers){
		.capacity_frames = capacity_of(a), .charged_frames = atomic_load(&a->charged), .peak_frames = atomic_load(&a->peak),
		.reserve_frames = a->reserve_max, .reserved_frames = a->reserved, .free_frames = arena_free_frames(a),
		.segments = a->n_segments,
	};
	pthread_mutex_unlock(&a->lock);
}

void arena_check(struct arena *a, struct arena_check *ret)
{
	uint64_t blocks = 0, before = atomic_load(&a->charged), after;

	pthread_mutex_lock(&a->lock);
	list_foreach(i, &a->segments)
		blocks += segment_blocks(container_of(i, struct segment, link));
	pthread_mutex_unlock(&a->lock);
	after = atomic_load(&a->charged);
	ret->blocks_frames = blocks;
	/* the two cannot be read at one instant: what was charged at either end is fair */
	ret->charged_frames = before > after ? before : after;
	ret->capacity_frames = a->capacity;
}
