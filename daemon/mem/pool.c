#include "mem/pool_impl.h"

#include "base/sparse.h"
#include "mem/inject.h"
#include "mem/uffd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SLOTS_EXTENT	4096u		/* the swap file grows by 16 MiB */
#define SLOTS_AHEAD	1024u
#define COPY_TRIES	1000u
#define RUN_ALONE	8u		/* a run of so many gets a block of 64 entries */
#define LOOK_WORDS	1024u

/* ---- stores ---- */

static struct pool *pool_of(struct stores *s)
{
	return container_of(s, struct pool, stores);
}

static bool lock_owned(struct stores *s, uint64_t ref, struct owned *ret)
{
	struct pool *p = pool_of(s);
	uint64_t e = cache_look(s->cache, ref)->page, w;

	if (e >= p->pages || !page_map_has(&p->map, e))
		return false;
	w = atomic_load(&p->map.words[e]);
	if (word_state(w) != PAGE_COMPRESSED || word_ref(w) != ref || !word_lock(&p->map.words[e], &w))
		return false;
	if (word_state(w) != PAGE_COMPRESSED || word_ref(w) != ref) {
		word_unlock(&p->map.words[e], w);
		return false;
	}
	*ret = (struct owned){ NULL, &p->map.words[e], e, w };
	return true;
}

void pool_count_move(struct pool *p, enum page_state from, enum page_state to)
{
	atomic_fetch_sub(&p->n[from], 1);
	atomic_fetch_add(&p->n[to], 1);
}

static void move_owned(struct stores *s, const struct owned *o, enum page_state to, uint64_t now)
{
	pool_count_move(pool_of(s), word_state(o->before), to);
	word_record(o->word, now);
}

static void unlock_owned(struct stores *s, const struct owned *o, uint64_t now)
{
	word_unlock(o->word, now);
}

static const struct stores_owner pool_stores_owner = { lock_owned, move_owned, unlock_owned, true };

/* ---- life ---- */

int pool_make(struct pool **ret, struct arena *a, struct kept_owner owner, struct problem *problem)
{
	struct pool *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return problem_errno(problem, "pool");
	p->users = 1;
	p->owner = owner;
	p->arena = a;
	p->uffd = -1;
	p->cursor = 1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_init(&p->evicting, NULL);
	account_init(&p->account, a, UINT64_MAX);
	r = state_init(&p->state, a, &p->account, owner, 0, problem);
	if (r < 0) {
		pool_unref(p);
		return r;
	}
	*ret = p;
	return 0;
}

int pool_equip(struct pool *p, const struct mem_settings *settings, const struct pool_card *card, const char *swap_dir,
	struct problem *problem)
{
	int r;

	snprintf(p->name, sizeof p->name, "%s", card->name);
	p->pages = card->pages;
	r = segment_new(&p->memory, p->arena, &p->account, SEGMENT_POOL, p->owner, "m", p->pages * PAGE_SIZE, problem);
	if (r == 0)
		r = page_map_init(&p->map, p->arena, &p->account, p->owner, "p", p->pages, problem);
	if (r == 0)
		r = page_map_init(&p->hashes, p->arena, &p->account, p->owner, "h", p->pages, problem);
	CRASH_POINT("pool_new.map");
	if (r == 0)
		r = stores_init(&p->stores, p->arena, &p->account, settings, &pool_stores_owner, p->owner, p->pages * PAGE_SIZE, swap_dir,
			&(struct swap_room){ .size_bytes = p->pages * PAGE_SIZE }, problem);
	if (r < 0)
		return r;
	r = uffd_open_own(&p->uffd);
	if (r == 0)
		r = uffd_register_missing(p->uffd, (uint64_t)p->memory->addr, p->memory->size_bytes);
	if (r < 0) {
		errno = -r;
		return problem_errno(problem, "the daemon may not use userfaultfd");
	}
	for (p->n_buckets = 1024; p->n_buckets < p->pages; p->n_buckets *= 2)
		;
	p->entries = sparse_new(p->pages * sizeof *p->entries);
	p->buckets = sparse_new(p->n_buckets * sizeof *p->buckets);
	p->used = calloc((p->pages + 63) / 64, sizeof *p->used);
	if (!p->entries || !p->buckets || !p->used || hints_new(&p->hints) < 0)
		return problem_errno(problem, "pool");
	p->used[0] = 1;
	return 0;
}

int pool_new(struct pool **ret, struct arena *a, const struct mem_settings *settings, const char *name, uint64_t pages,
	const char *swap_dir, struct problem *problem)
{
	struct kept_owner owner = { .kind = KEPT_POOL, .number = kept_number(arena_kept(a)) };
	struct pool_card card = { .pages = pages + 1 };
	struct pool *p;
	int r;

	snprintf(card.name, sizeof card.name, "%s", name);
	memcpy(card.secret, checksum_secret(), sizeof card.secret);
	r = pool_make(&p, a, owner, problem);
	if (r < 0)
		return r;
	r = pool_equip(p, settings, &card, swap_dir, problem);
	if (r < 0) {
		pool_unref(p);
		return r;
	}
	state_write_card(&p->state, &card, sizeof card);
	CRASH_POINT("pool_new.made");
	*ret = p;
	return 0;
}

struct pool *pool_ref(struct pool *p)
{
	atomic_fetch_add(&p->users, 1);
	return p;
}

void pool_unref(struct pool *p)
{
	if (!p || atomic_fetch_sub(&p->users, 1) > 1)
		return;
	if (p->state.segment)
		state_end(&p->state);
	if (p->entries)
		pool_reap(p);
	assert(p->n_entries == 0 && p->n_references == 0 && p->n_held == 0);
	CRASH_POINT("pool_free.begun");
	stores_fini(&p->stores);
	page_map_fini(&p->map);
	page_map_fini(&p->hashes);
	segment_free(p->memory);
	state_fini(&p->state);
	if (p->uffd >= 0)
		close(p->uffd);
	account_fini(&p->account);
	kept_return(arena_kept(p->arena), p->owner.number);
	sparse_free(p->entries, p->pages * sizeof *p->entries);
	sparse_free(p->buckets, p->n_buckets * sizeof *p->buckets);
	hints_free(p->hints);
	free(p->used);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->evicting);
	free(p);
}

uint32_t pool_number(const struct pool *p)
{
	return p->owner.number;
}

const char *pool_name(const struct pool *p)
{
	return p->name;
}

struct hints *pool_hints(struct pool *p)
{
	return p->hints;
}

uint64_t pool_pages(const struct pool *p)
{
	return p->pages;
}

int pool_open(const struct pool *p)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/self/fd/%d", p->memory->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* ---- words ---- */

/* Wait for the word of an entry.  Whoever has it is at most reading this one page back from a store.  The caller has a reference, so the entry is not freed meanwhile. */
static uint64_t lock_word(struct pool *p, uint64_t e)
{
	static const struct timespec pause = { .tv_nsec = 10000 };
	uint64_t w;

	for (unsigned tries = 0; !word_lock(&p->map.words[e], &w); tries++) {
		if (tries < 32)
			sched_yield();
		else
			nanosleep(&pause, NULL);
	}
	return w;
}

static uint64_t settled_word(struct pool *p, uint64_t e)
{
	uint64_t w = lock_word(p, e);

	word_unlock(&p->map.words[e], w);
	return w;
}

/* Put content where there is a hole.  A page that is there already was put by a member that reads holes: it goes.  The word is
 * locked, and the frame charged. */
static int put_frame(struct pool *p, uint64_t e, const uint8_t *buf)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t done;

	for (unsigned tries = 0; tries < COPY_TRIES; tries++) {
		int r = uffd_copy(p->uffd, (uint64_t)entry_frame(p, e), buf, PAGE_SIZE, &done);

		if (r == 0)
			return 0;
		if (r == -EEXIST)
			(void)segment_make_hole(p->memory, e * PAGE_SIZE, PAGE_SIZE);
		else
			nanosleep(&pause, NULL); /* the host itself has no page for us */
	}
	return -ENOMEM;
}

/* ---- entries ---- */

static uint32_t *bucket_of(struct pool *p, uint64_t hash)
{
	return &p->buckets[hash & (p->n_buckets - 1)];
}

/* Under the lock: a free entry, at `near` if that is free, for the first page of `run` neighbours: so that neighbours in the
 * guest are neighbours here, and one mapping.  0: none. */
static uint64_t find_free(struct pool *p, uint64_t near, unsigned run)
{
	uint64_t words = (p->pages + 63) / 64, partial = 0;

	if (near && near < p->pages && !entry_is_used(p, near))
		return near;
	for (uint64_t n = 0; n < words; n++) {
		uint64_t i = (p->cursor / 64 + n) % words, e;

		if (p->used[i] == UINT64_MAX)
			continue;
		e = i * 64 + (uint64_t)__builtin_ctzll(~p->used[i]);
		if (e >= p->pages)
			continue;
		/* a run begins in a block of its own, unless that means to look for long */
		if (run >= RUN_ALONE && p->used[i] && n < LOOK_WORDS) {
			partial = partial ? partial : e;
			continue;
		}
		p->cursor = e;
		return e;
	}
	return partial;
}

/* No page without a slot to go to: they are set aside well before they are needed. */
static bool have_slots(struct pool *p)
{
	uint64_t have = atomic_load(&p->slots), want = have + SLOTS_EXTENT;
	uint64_t need = atomic_load(&p->n_entries) + SLOTS_AHEAD;

	if (need <= have || have >= p->pages)
		return true;
	want = want < p->pages ? want : p->pages;
	if (swap_grow(p->stores.swap, want, NULL) < 0)
		return atomic_load(&p->n_entries) < have;
	/* two may have grown it at once, to the same size */
	while (have < want && !atomic_compare_exchange_weak(&p->slots, &have, want))
		;
	return true;
}

void entry_count_reference(struct pool *p, uint64_t e, int by)
{
	atomic_fetch_add(&p->entries[e].references, (uint32_t)by);
	p->n_references += (uint64_t)by;
}

/* Under the lock: the entry with this hash; 0: none. */
static uint64_t chain_find(struct pool *p, uint64_t hash)
{
	uint64_t e = *bucket_of(p, hash);

	while (e && entry_hash(p, e) != hash)
		e = p->entries[e].next;
	return e;
}

void entry_link(struct pool *p, uint64_t e)
{
	uint32_t *bucket = bucket_of(p, entry_hash(p, e));

	p->entries[e].next = *bucket;
	*bucket = (uint32_t)e;
}

static void unlink_entry(struct pool *p, uint64_t e)
{
	uint32_t *at = bucket_of(p, entry_hash(p, e));

	while (*at != e)
		at = &p->entries[*at].next;
	*at = p->entries[e].next;
}

/* Nobody refers to it, nobody can find it: give back what it has. */
void entry_free(struct pool *p, uint64_t e)
{
	uint64_t w;
	bool resident;

	MOVES_BEGIN(&p->stores);
	w = lock_word(p, e);
	resident = word_state(w) == PAGE_RESIDENT;
	word_record(&p->map.words[e], word_make(PAGE_ZERO, 0) | (resident ? WORD_MOVING : 0));
	CRASH_POINT("entry_free.recorded");
	if (resident) {
		/* a page that stays all the same is overwritten by whoever gets this entry next */
		(void)segment_make_hole(p->memory, e * PAGE_SIZE, PAGE_SIZE);
		pool_uncharge(p);
	} else {
		store_forget(&p->stores, w);
	}
	CRASH_POINT("entry_free.given_back");
	atomic_fetch_sub(&p->n[word_state(w)], 1);
	word_unlock(&p->map.words[e], 0);
	CRASH_POINT("entry_free.unlocked");
	pthread_mutex_lock(&p->lock);
	p->used[e / 64] &= ~(1ull << (e % 64));
	p->n_entries--;
	pthread_mutex_unlock(&p->lock);
	MOVES_END(&p->stores);
}

int pool_add(struct pool *p, uint64_t hash, const uint8_t *buf, uint64_t near, unsigned run, uint64_t *ret)
{
	uint64_t e, w, twin;
	int r = 0;

	if (!have_slots(p))
		return -ENOSPC;
	if (pool_charge(p) < 0)
		return -ENOMEM;
	MOVES_BEGIN(&p->stores);
	pthread_mutex_lock(&p->lock);
	e = p->n_entries < p->slots ? find_free(p, near, run) : 0;
	if (e) {
		p->used[e / 64] |= 1ull << (e % 64);
		p->n_entries++;
	}
	pthread_mutex_unlock(&p->lock);
	if (!e)
		r = -ENOSPC;
	else if (page_map_touch(&p->map, e) < 0 || page_map_touch(&p->hashes, e) < 0)
		r = -ENOMEM;
	if (r < 0)
		goto fail;
	CRASH_POINT("pool_add.taken");
	w = lock_word(p, e);
	assert(word_state(w) == PAGE_ZERO);
	atomic_store_explicit(&p->hashes.words[e], hash, memory_order_relaxed);
	word_record(&p->map.words[e], word_make(PAGE_RESIDENT, 0) | WORD_MOVING);
	CRASH_POINT("pool_add.recorded");
	r = put_frame(p, e, buf);
	CRASH_POINT("pool_add.put");
	word_unlock(&p->map.words[e], r < 0 ? 0 : word_make(PAGE_RESIDENT, 0));
	if (r < 0)
		goto fail;
	CRASH_POINT("pool_add.unlocked");
	atomic_fetch_add(&p->n[PAGE_RESIDENT], 1);
	MOVES_END(&p->stores);
	pthread_mutex_lock(&p->lock);
	p->entries[e].holds = 0;
	twin = chain_find(p, hash);
	if (!twin) {
		entry_link(p, e);
		entry_count_reference(p, e, 1);
	}
	pthread_mutex_unlock(&p->lock);
	CRASH_POINT("pool_add.linked");
	*ret = e;
	if (!twin)
		return 0;
	entry_free(p, e);
	return -EEXIST;
fail:
	if (e) {
		pthread_mutex_lock(&p->lock);
		p->used[e / 64] &= ~(1ull << (e % 64));
		p->n_entries--;
		pthread_mutex_unlock(&p->lock);
	}
	MOVES_END(&p->stores);
	pool_uncharge(p);
	return r;
}

/* Whether it was the last: nobody can find the entry any more. */
static bool put(struct pool *p, uint64_t e, bool later)
{
	bool last;

	pthread_mutex_lock(&p->lock);
	assert(p->entries[e].references);
	entry_count_reference(p, e, -1);
	last = p->entries[e].references == 0;
	if (last) {
		assert(!p->entries[e].holds);
		unlink_entry(p, e);
	}
	if (last && later) {
		p->entries[e].next = p->dead;
		p->dead = (uint32_t)e;
	}
	pthread_mutex_unlock(&p->lock);
	return last;
}

void pool_put(struct pool *p, uint64_t e)
{
	if (put(p, e, false))
		entry_free(p, e);
}

void pool_put_later(struct pool *p, uint64_t e)
{
	put(p, e, true);
}

bool pool_has_dead(const struct pool *p)
{
	return atomic_load_explicit(&p->dead, memory_order_relaxed);
}

void pool_reap(struct pool *p)
{
	while (pool_has_dead(p)) {
		uint32_t e;

		pthread_mutex_lock(&p->lock);
		e = p->dead;
		if (e)
			p->dead = p->entries[e].next;
		pthread_mutex_unlock(&p->lock);
		if (e)
			entry_free(p, e);
	}
}

void entry_hold(struct pool *p, uint64_t e)
{
	if (!p->entries[e].holds++)
		p->n_held++;
}

void pool_release(struct pool *p, uint64_t e)
{
	pthread_mutex_lock(&p->lock);
	assert(p->entries[e].holds);
	if (!--p->entries[e].holds)
		p->n_held--;
	pthread_mutex_unlock(&p->lock);
}

bool pool_needs_frame(struct pool *p, uint64_t e)
{
	enum page_state s = word_state(entry_word(p, e));

	return s == PAGE_COMPRESSED || s == PAGE_SWAPPED;
}

int pool_charge(struct pool *p)
{
	return segment_charge(p->memory, 1, CHARGE_GUEST);
}

void pool_uncharge(struct pool *p)
{
	segment_uncharge(p->memory, 1);
}

/* From its store into the frame that is charged; the word is locked.  *w: the word from now on. */
static int bring_back(struct pool *p, struct bench *b, uint64_t e, uint64_t *w, bool guest_waits)
{
	uint64_t before = *w;
	int r;

	MOVES_BEGIN(&p->stores);
	word_record(&p->map.words[e], before | WORD_MOVING);
	CRASH_POINT("pool_fill.recorded");
	r = store_read(&p->stores, b, 0, e, before, b->spare, guest_waits, &p->never);
	CRASH_POINT("pool_fill.read");
	if (r == 0)
		r = put_frame(p, e, b->spare);
	CRASH_POINT("pool_fill.put");
	if (r < 0) {
		atomic_fetch_add(r == -EBADMSG ? &p->stores.checksum_errors : &p->stores.swap_read_errors, 1);
		/* a guest needs it and it cannot be had: that is what it is from now on, for all who share it */
		if (guest_waits && r != -ENOMEM) {
			pool_count_move(p, word_state(before), PAGE_LOST);
			*w = word_make(PAGE_LOST, 0);
			word_record(&p->map.words[e], *w);
			CRASH_POINT("pool_fill.lost");
			store_forget(&p->stores, before);
		} else {
			word_record(&p->map.words[e], before);
		}
	} else {
		pool_count_move(p, word_state(before), PAGE_RESIDENT);
		/* needed again: passed over once */
		*w = word_make(PAGE_RESIDENT, 0) | 1ull << WORD_USE_SHIFT;
		word_record(&p->map.words[e], *w);
		CRASH_POINT("pool_fill.settled");
		store_forget(&p->stores, before);
		atomic_fetch_add(&p->brought_back, 1);
	}
	MOVES_END(&p->stores);
	return r;
}

int pool_hold(struct pool *p, struct bench *b, uint64_t e, bool charged, bool guest_waits)
{
	uint64_t w;
	int r = 0;

	/* From here on the evictor leaves the frame alone: it looks at the holds after it has locked the word. */
	pthread_mutex_lock(&p->lock);
	assert(p->entries[e].references);
	entry_hold(p, e);
	pthread_mutex_unlock(&p->lock);
	w = lock_word(p, e);
	switch (word_state(w)) {
	case PAGE_RESIDENT:
		break;
	case PAGE_COMPRESSED:
	case PAGE_SWAPPED:
		if (!charged) {
			r = -EAGAIN;
			break;
		}
		r = bring_back(p, b, e, &w, guest_waits);
		if (r == 0)
			charged = false;
		break;
	default:
		r = -EIO;
	}
	CRASH_POINT("hold.looked");
	word_unlock(&p->map.words[e], w);
	if (charged)
		pool_uncharge(p);
	if (r < 0)
		pool_release(p, e);
	return r;
}

int pool_read(struct pool *p, struct bench *b, uint64_t e, uint8_t *to, bool guest_waits)
{
	uint64_t w = lock_word(p, e);
	int r = -EIO;

	if (word_state(w) == PAGE_RESIDENT) {
		memcpy(to, entry_frame(p, e), PAGE_SIZE);
		r = 0;
	} else if (word_state(w) == PAGE_COMPRESSED || word_state(w) == PAGE_SWAPPED) {
		r = store_read(&p->stores, b, 0, e, w, to, guest_waits, &p->never);
	}
	word_unlock(&p->map.words[e], w);
	return r;
}

/* Under the lock: the entry with this hash, referred to and held; 0: none. */
static uint64_t look_up(struct pool *p, uint64_t hash)
{
	uint64_t e = chain_find(p, hash);

	if (e) {
		entry_count_reference(p, e, 1);
		entry_hold(p, e);
	}
	return e;
}

/* Held: if it is resident now it stays so; an eviction that was under way has the word until it is over. */
static bool is_resident(struct pool *p, uint64_t e)
{
	return word_state(settled_word(p, e)) == PAGE_RESIDENT;
}

/* Whether an entry that was looked up is this content; it is let go of otherwise.  `frame`: its content, if it is resident.  As
 * pool_find. */
static int keep_if_same(struct pool *p, struct bench *b, uint64_t e, const uint8_t *frame, const uint8_t *buf)
{
	int r = frame ? !memcmp(buf, frame, PAGE_SIZE) : -EAGAIN;

	pool_release(p, e);
	if (!frame && word_state(entry_word(p, e)) == PAGE_COMPRESSED)
		r = pool_read(p, b, e, b->spare, false) == 0 && !memcmp(buf, b->spare, PAGE_SIZE);
	if (r != 1)
		pool_put(p, e);
	return r;
}

int pool_find(struct pool *p, struct bench *b, uint64_t hash, const uint8_t *buf, uint64_t *ret)
{
	uint64_t e;
	int r;

	pthread_mutex_lock(&p->lock);
	e = look_up(p, hash);
	pthread_mutex_unlock(&p->lock);
	if (!e)
		return 0;
	r = keep_if_same(p, b, e, is_resident(p, e) ? entry_frame(p, e) : NULL, buf);
	if (r > 0)
		*ret = e;
	return r;
}

uint64_t pool_find_many(struct pool *p, struct bench *b, uint64_t mask, const uint64_t *hash, const uint8_t *buf,
	uint64_t *ret)
{
	uint64_t resident = 0, found = 0, read = 0;

	pthread_mutex_lock(&p->lock);
	for (uint64_t left = mask; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		ret[i] = look_up(p, hash[i]);
		found |= ret[i] ? 1ull << i : 0;
	}
	pthread_mutex_unlock(&p->lock);
	for (uint64_t left = found; left; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		resident |= is_resident(p, ret[i]) ? 1ull << i : 0;
	}
	for (unsigned i = 0, n; i < RUN_MAX; i += n) {
		size_t bytes;

		n = 1;
		if (!(resident >> i & 1))
			continue;
		while (i + n < RUN_MAX && (resident >> (i + n) & 1) && ret[i + n] == ret[i] + n)
			n++;
		bytes = n * PAGE_SIZE;
		if (pread(p->memory->fd, b->spare + i * PAGE_SIZE, bytes, (off_t)(ret[i] * PAGE_SIZE)) == (ssize_t)bytes)
			read |= (n == 64 ? UINT64_MAX : (1ull << n) - 1) << i;
	}
	/* those whose content was read first: the others are read into the same place */
	for (unsigned pass = 0; pass < 2; pass++)
		for (uint64_t left = pass ? found & ~read : found & read; left; left &= left - 1) {
			unsigned i = (unsigned)__builtin_ctzll(left);
			const uint8_t *frame = pass ? resident >> i & 1 ? entry_frame(p, ret[i]) : NULL : b->spare + i * PAGE_SIZE;

			if (keep_if_same(p, b, ret[i], frame, buf + i * PAGE_SIZE) != 1)
				mask &= ~(1ull << i);
		}
	return found & mask;
}

/* ---- numbers ---- */

unsigned pool_references(struct pool *p, uint64_t e)
{
	return e < p->pages ? atomic_load(&p->entries[e].references) : 0;
}

enum page_state pool_state(struct pool *p, uint64_t e)
{
	return e < p->pages && page_map_has(&p->map, e) ? word_state(entry_word(p, e)) : PAGE_ZERO;
}

uint64_t pool_part(struct pool *p, uint64_t e)
{
	uint64_t n = pool_references(p, e), w;

	if (!n || !page_map_has(&p->map, e))
		return 0;
	w = entry_word(p, e);
	if (word_state(w) == PAGE_RESIDENT)
		return (PAGE_SIZE << POOL_PART_SHIFT) / n;
	if (word_state(w) == PAGE_COMPRESSED)
		return (cache_stored_bytes(p->stores.cache, word_ref(w), (uint32_t)e) << POOL_PART_SHIFT) / n;
	return 0;
}

void pool_numbers(struct pool *p, struct pool_numbers *ret)
{
	struct cache_numbers c;

	cache_get_numbers(p->stores.cache, &c);
	pthread_mutex_lock(&p->lock);
	*ret = (struct pool_numbers){ .entries = p->n_entries, .references = p->n_references, .held = p->n_held };
	pthread_mutex_unlock(&p->lock);
	ret->resident = atomic_load(&p->n[PAGE_RESIDENT]);
	ret->compressed = atomic_load(&p->n[PAGE_COMPRESSED]);
	ret->swapped = atomic_load(&p->n[PAGE_SWAPPED]);
	ret->lost = atomic_load(&p->n[PAGE_LOST]);
	ret->stored_bytes = c.live_bytes;
	ret->charged_frames = atomic_load(&p->account.frames);
	ret->evicted = atomic_load(&p->evicted);
	ret->brought_back = atomic_load(&p->brought_back);
}
