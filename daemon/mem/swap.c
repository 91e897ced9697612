#include "mem/swap.h"

#include "base/events.h"
#include "mem/checksum.h"
#include "mem/inject.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SUMS_PER_BLOCK (PAGE_SIZE / sizeof(uint64_t))
#define SEARCH_STEPS   65536u	/* bits looked at for a run before a shorter one is taken */

struct swap {
	struct arena *arena;
	struct account *payer;
	struct kept_owner owner;
	char dir[256];
	int fd;			/* -1: none yet (late) */
	struct kept *kept;
	char tag[KEPT_TAG];	/* of the file */
	bool is_kept;
	bool direct, sparse;
	uint64_t slots;		/* the most there may be */
	uint64_t ready;		/* of these, set aside: under the lock */
	struct segment *_Atomic sums;	/* checksum of each slot; NULL as long as there is no file */
	pthread_mutex_t growing;	/* for as long as the disk takes */
	pthread_mutex_t lock;
	uint64_t *used;		/* a bit a slot */
	uint64_t *charged;	/* a bit a block of checksums */
	uint64_t *disputed;	/* as `used`; NULL: none */
	uint64_t hint;		/* where the last allocation ended */
	uint64_t n_used;
};

static int open_file(const char *dir, bool *ret_direct)
{
	int fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC | O_DIRECT, 0);

	*ret_direct = true;
	if (fd < 0 && errno == EINVAL) {
		*ret_direct = false;
		fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0);
	}
	return fd < 0 ? -errno : fd;
}

/* All of it or nothing: the caller uses nothing beyond `from_bytes`. */
static int preallocate(int fd, const char *dir, uint64_t from_bytes, uint64_t size_bytes, struct problem *p)
{
	struct statvfs v;
	uint64_t have = 0;

	if (fstatvfs(fd, &v) == 0)
		have = (uint64_t)v.f_bavail * v.f_frsize;
	if (have >= size_bytes) {
		int err = posix_fallocate(fd, (off_t)from_bytes, (off_t)size_bytes);

		if (!err)
			return 0;
		/* what it got until then is the room that others lack, and would be taken for set aside after a restart */
		if (ftruncate(fd, (off_t)from_bytes) < 0)
			event_tell(EVENT_SWAP_NOT_SHORTENED, NULL, "cannot shorten a swap file in %s again: %s", dir, strerror(errno));
		if (err != ENOSPC && err != EDQUOT && err != EFBIG) {
			errno = err;
			return problem_errno(p, "cannot allocate a swap file in %s", dir);
		}
	}
	return problem_set(p, ENOSPC, PROBLEM_NOT_ENOUGH_SWAP, size_bytes, have,
		"no room for %s%llu MiB%s in %s (%llu MiB free): free space there%s a larger reservation",
		from_bytes ? "" : "a swap file of ", (unsigned long long)size_bytes >> 20, from_bytes ? " more of its swap file" : "", dir,
		(unsigned long long)have >> 20, from_bytes ? ", or give it" : ", name another directory, or register with");
}

/* The file that a process before us has left. */
static int take_file(struct swap *s)
{
	struct stat st;
	int flags;

	s->fd = kept_take(s->kept, s->tag);
	if (s->fd < 0)
		return 0;
	s->is_kept = true;
	flags = fcntl(s->fd, F_GETFL);
	if (flags < 0 || fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EBADMSG;
	s->direct = flags & O_DIRECT;
	/* what was set aside has made the file so long */
	if (!s->sparse && (uint64_t)st.st_size / PAGE_SIZE > s->ready)
		s->ready = (uint64_t)st.st_size / PAGE_SIZE;
	if (s->ready > s->slots || (!s->sparse && (uint64_t)st.st_size / PAGE_SIZE < s->ready))
		return -EBADMSG;
	return 1;
}

static int make_file(struct swap *s, uint64_t ready_bytes, struct problem *p)
{
	int r;

	s->fd = open_file(s->dir, &s->direct);
	if (s->fd < 0) {
		errno = -s->fd;
		s->fd = -1;
		return problem_errno(p, "cannot make a swap file in %s", s->dir);
	}
	CRASH_POINT("swap_new.opened");
	if (!s->sparse && ready_bytes) {
		r = preallocate(s->fd, s->dir, 0, ready_bytes, p);
		if (r < 0)
			return r;
	}
	CRASH_POINT("swap_new.allocated");
	r = kept_add(s->kept, s->tag, s->fd, p);
	s->is_kept = r == 0;
	return r;
}

static void charge_found(struct swap *s)
{
	uint64_t at = 0, to;

	while (segment_next_data(s->sums, at, &at, &to)) {
		for (uint64_t b = at / PAGE_SIZE; b < to / PAGE_SIZE; b++)
			s->charged[b / 64] |= 1ull << (b % 64);
		segment_charge_found(s->sums, (to - at) / PAGE_SIZE);
		at = to;
	}
}

static uint64_t blocks_of(const struct swap *s)
{
	return (s->slots + SUMS_PER_BLOCK - 1) / SUMS_PER_BLOCK;
}

static int make_sums(struct swap *s, struct problem *p)
{
	struct segment *sums;
	int r = segment_new(&sums, s->arena, s->payer, SEGMENT_SWAP_MAP, s->owner, "k", blocks_of(s) * PAGE_SIZE, p);

	if (r == 0)
		atomic_store(&s->sums, sums);
	return r;
}

int swap_new(struct swap **ret, struct arena *a, struct account *payer, struct kept_owner owner, const char *dir,
	const struct swap_room *room, struct problem *p)
{
	struct swap *s = calloc(1, sizeof *s);
	uint64_t slots = room->size_bytes / PAGE_SIZE;
	int r = 0;

	if (!s)
		return problem_errno(p, "swap");
	s->arena = a;
	s->payer = payer;
	s->owner = owner;
	snprintf(s->dir, sizeof s->dir, "%s", dir);
	s->fd = -1;
	s->kept = arena_kept(a);
	kept_tag(s->tag, owner, "f");
	s->slots = slots;
	s->ready = room->ready_bytes / PAGE_SIZE;
	s->sparse = room->sparse;
	pthread_mutex_init(&s->growing, NULL);
	pthread_mutex_init(&s->lock, NULL);
	if (!slots) {
		*ret = s;
		return 0;
	}
	s->used = calloc((slots + 63) / 64, sizeof *s->used);
	s->charged = calloc((blocks_of(s) + 63) / 64, sizeof *s->charged);
	if (!s->used || !s->charged) {
		r = problem_errno(p, "swap");
		goto fail;
	}
	r = take_file(s);
	if (r == 0 && room->late && !s->ready) {
		s->owner.found = false;
		*ret = s;
		return 0;
	}
	if (r == 0 && owner.found)
		r = -EBADMSG;
	if (r < 0)
		problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "what was kept as %s is missing, or no swap file", s->tag);
	if (r == 0)
		r = make_file(s, room->ready_bytes, p);
	if (r >= 0)
		r = make_sums(s, p);
	if (r < 0)
		goto fail;
	if (s->sums->found)
		charge_found(s);
	*ret = s;
	return 0;
fail:
	swap_free(s);
	return r;
}

void swap_free(struct swap *s)
{
	if (!s)
		return;
	if (s->is_kept)
		kept_drop(s->kept, s->tag);
	if (s->fd >= 0)
		close(s->fd);
	segment_free(atomic_load(&s->sums));
	pthread_mutex_destroy(&s->growing);
	pthread_mutex_destroy(&s->lock);
	free(s->used);
	free(s->charged);
	free(s->disputed);
	free(s);
}

/* The first time.  The checksums first: a file that is found must have them. */
static int begin(struct swap *s, uint64_t slots, struct problem *p)
{
	int r = atomic_load(&s->sums) ? 0 : make_sums(s, p);

	if (r == 0)
		r = make_file(s, slots * PAGE_SIZE, p);
	if (r < 0 && s->fd >= 0) {
		close(s->fd);
		s->fd = -1;
	}
	return r;
}

int swap_grow(struct swap *s, uint64_t slots, struct problem *p)
{
	uint64_t ready;
	int r = 0;

	if (slots > s->slots)
		return problem_set(p, ENOSPC, PROBLEM_LIMIT_REACHED, slots * PAGE_SIZE, s->slots * PAGE_SIZE,
			"its swap file cannot grow beyond %llu MiB: an older memctld made it", (unsigned long long)(s->slots * PAGE_SIZE >> 20));
	/* The disk may take its time: nobody waits for that but who grows.  One at a time: who fails gives back all beyond `ready`. */
	pthread_mutex_lock(&s->growing);
	pthread_mutex_lock(&s->lock);
	ready = s->ready;
	pthread_mutex_unlock(&s->lock);
	if (slots > ready && s->fd < 0)
		r = begin(s, slots, p);
	else if (slots > ready && !s->sparse)
		r = preallocate(s->fd, s->dir, ready * PAGE_SIZE, (slots - ready) * PAGE_SIZE, p);
	if (r == 0) {
		CRASH_POINT("swap.grown");
		pthread_mutex_lock(&s->lock);
		if (slots > s->ready)
			s->ready = slots;
		pthread_mutex_unlock(&s->lock);
	}
	pthread_mutex_unlock(&s->growing);
	return r;
}

/* ---- slots ---- */

static bool is_used(const struct swap *s, uint64_t slot)
{
	return s->used[slot / 64] >> (slot % 64) & 1;
}

/* The checksums of these slots must be writable: charge their blocks. */
static bool charge_sums(struct swap *s, uint64_t first, unsigned count)
{
	for (uint64_t b = first / SUMS_PER_BLOCK; b <= (first + count - 1) / SUMS_PER_BLOCK; b++) {
		if (s->charged[b / 64] >> (b % 64) & 1)
			continue;
		if (segment_charge(s->sums, 1, CHARGE_STORE) < 0)
			return false;
		CRASH_POINT("swap.sums_charged");
		s->charged[b / 64] |= 1ull << (b % 64);
	}
	return true;
}

unsigned swap_alloc(struct swap *s, unsigned want, uint64_t *ret_first)
{
	uint64_t best = 0, at, first = 0;
	unsigned best_len = 0, len = 0;

	pthread_mutex_lock(&s->lock);
	at = s->hint < s->ready ? s->hint : 0;
	for (uint64_t steps = 0; steps < s->ready && best_len < want; steps++, at++) {
		if (at == s->ready) {
			at = 0;
			len = 0;
		}
		if (at % 64 == 0 && s->used[at / 64] == UINT64_MAX) {
			len = 0;
			at += 63;
			steps += 63;
			if (at >= s->ready)
				at = s->ready - 1;
			continue;
		}
		if (is_used(s, at)) {
			len = 0;
			continue;
		}
		if (!len++)
			first = at;
		if (len > best_len) {
			best = first;
			best_len = len;
		}
		if (best_len && steps > SEARCH_STEPS)
			break;
	}
	if (best_len && !charge_sums(s, best, best_len))
		best_len = 0;
	for (unsigned i = 0; i < best_len; i++)
		s->used[(best + i) / 64] |= 1ull << ((best + i) % 64);
	s->n_used += best_len;
	s->hint = best + best_len;
	pthread_mutex_unlock(&s->lock);
	CRASH_POINT("swap.slots_taken");
	*ret_first = best;
	return best_len;
}

void swap_release(struct swap *s, uint64_t first, unsigned count)
{
	pthread_mutex_lock(&s->lock);
	for (uint64_t i = first; i < first + count; i++) {
		assert(is_used(s, i));
		s->used[i / 64] &= ~(1ull << (i % 64));
	}
	s->n_used -= count;
	pthread_mutex_unlock(&s->lock);
}

bool swap_claim(struct swap *s, uint64_t slot)
{
	uint64_t block = slot / SUMS_PER_BLOCK, bit = 1ull << (slot % 64);

	if (slot >= s->ready || !(s->charged[block / 64] >> (block % 64) & 1))
		return false;
	if (!(s->used[slot / 64] & bit)) {
		s->used[slot / 64] |= bit;
		s->n_used++;
		return true;
	}
	if (!s->disputed)
		s->disputed = calloc((s->slots + 63) / 64, sizeof *s->disputed);
	if (s->disputed)
		s->disputed[slot / 64] |= bit;
	return false;
}

bool swap_is_disputed(const struct swap *s, uint64_t slot)
{
	return s->disputed && s->disputed[slot / 64] >> (slot % 64) & 1;
}

bool swap_has_disputed(const struct swap *s)
{
	return s->disputed;
}

void swap_claimed(struct swap *s)
{
	for (uint64_t i = 0; s->disputed && i < (s->slots + 63) / 64; i++) {
		s->n_used -= (uint64_t)__builtin_popcountll(s->used[i] & s->disputed[i]);
		s->used[i] &= ~s->disputed[i];
	}
	free(s->disputed);
	s->disputed = NULL;
}

/* ---- content ---- */

/* All bits of the number into all bits (the finalizer of MurmurHash3), so that no two numbers give the same and none gives 0 but
 * one that no page has. */
static uint64_t mark(uint64_t number)
{
	uint64_t x = ~number;

	x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}

/* Slots that a memctld of state format 1 wrote have the plain checksum.  Those written since never do, by chance apart, so
 * accepting it takes nothing from them. */
static bool verifies(const void *page, uint64_t number, uint64_t sum)
{
	uint64_t plain = checksum_page(page);

	return sum == (plain ^ mark(number)) || sum == plain;
}

int swap_write(struct swap *s, uint64_t first, struct iovec *pages, const uint64_t *numbers, unsigned count)
{
	uint64_t *sums = (uint64_t *)s->sums->addr;
	off_t at = (off_t)(first * PAGE_SIZE);
	unsigned done = 0;

	for (unsigned i = 0; i < count; i++)
		sums[first + i] = checksum_page(pages[i].iov_base) ^ mark(numbers[i]);
	CRASH_POINT("swap.summed");
	while (done < count) {
		ssize_t n;

		errno = inject.swap_write_errno;
		n = errno ? -1 : pwritev(s->fd, pages + done, (int)(count - done), at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* a direct write stops at whole pages; anything else is an error of the device */
		if (n == 0 || n % (ssize_t)PAGE_SIZE)
			return -EIO;
		done += (unsigned)(n / (ssize_t)PAGE_SIZE);
		at += n;
	}
	if (!s->direct && fdatasync(s->fd) < 0)
		return -errno;
	return 0;
}

int swap_read(struct swap *s, uint64_t first, uint64_t number, unsigned count, void *buf, struct direct *direct,
	unsigned spin_us)
{
	struct direct none = { 0 };
	const uint64_t *sums = (const uint64_t *)s->sums->addr;
	size_t want = count * PAGE_SIZE, done = 0;

	while (done < want) {
		ssize_t n;

		errno = inject.swap_read_errno;
		n = errno ? -1 : direct_read(direct && s->direct ? direct : &none, s->fd, (char *)buf + done, want - done,
					 (off_t)(first * PAGE_SIZE + done), spin_us);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	if (inject.swap_corrupt)
		*(char *)buf ^= 1;
	for (unsigned i = 0; i < count; i++)
		if (!verifies((char *)buf + i * PAGE_SIZE, number + i, sums[first + i]))
			return -EBADMSG;
	return 0;
}

unsigned swap_read_pages(struct swap *s, struct direct *direct, const struct swap_page *pages, unsigned count)
{
	const uint64_t *sums = (const uint64_t *)s->sums->addr;
	struct direct none = { 0 };
	struct direct_part parts[RUN_MAX];
	struct iovec v[RUN_MAX];
	unsigned n = 0, right = 0;

	for (unsigned i = 0; i < count; i++) {
		v[i] = (struct iovec){ pages[i].to, PAGE_SIZE };
		if (i && pages[i].slot == pages[i - 1].slot + 1)
			parts[n - 1].count++;
		else
			parts[n++] = (struct direct_part){ .offset = (off_t)(pages[i].slot * PAGE_SIZE), .pages = v + i, .count = 1 };
	}
	if (inject.swap_read_errno)
		return 0;
	direct_read_parts(direct && s->direct ? direct : &none, s->fd, parts, n);
	if (inject.swap_corrupt)
		*(char *)pages[0].to ^= 1;
	for (unsigned i = 0; i < n; i++) {
		if (parts[i].result != (ssize_t)(parts[i].count * PAGE_SIZE))
			return right;
		for (unsigned k = 0; k < parts[i].count; k++, right++)
			if (!verifies(pages[right].to, pages[right].number, sums[pages[right].slot]))
				return right;
	}
	return right;
}

uint64_t swap_size_bytes(struct swap *s)
{
	uint64_t bytes;

	pthread_mutex_lock(&s->lock);
	bytes = s->ready * PAGE_SIZE;
	pthread_mutex_unlock(&s->lock);
	return bytes;
}

uint64_t swap_used_slots(struct swap *s)
{
	uint64_t n;

	pthread_mutex_lock(&s->lock);
	n = s->n_used;
	pthread_mutex_unlock(&s->lock);
	return n;
}

struct segment *swap_map(const struct swap *s)
{
	return atomic_load(&s->sums);
}
