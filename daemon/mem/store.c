/* Between the stores: from the cache to the swap file (its least recently used), and within the cache (closing
 * holes).  Both walk a block of the cache that was taken out of the log, and look at each object's page: an object
 * is live if and only if its page's word, locked, refers to it.
 *
 * A page that moves has no frame, so no guest can change it; its word is locked while it moves, so nobody
 * fills or discards it.  Order, for a crash at any point: copy to the new place > the word, in one store, refers
 * to the new place > the old place is forgotten.  There is no instant without a complete copy that a word refers to.
 *
 * The only system call on a lease is the wake, which waits for nothing. */
#include "mem/store.h"

#include "mem/checksum.h"
#include "mem/inject.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#define READ_TRIES	  10u
#define CACHE_ROOM_BLOCKS 2u		/* what one batch can need */

int bench_init(struct bench *b)
{
	size_t bytes = 2 * RUN_MAX * PAGE_SIZE;
	void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	*b = (struct bench){ 0 };
	if (m == MAP_FAILED)
		return -errno;
	b->buf = m;
	b->spare = b->buf + RUN_MAX * PAGE_SIZE;
	madvise(m, bytes, MADV_DONTDUMP);
	direct_init(&b->direct);
	r = codec_new(&b->codec);
	if (r < 0)
		bench_fini(b);
	return r;
}

void bench_lock(struct bench *b)
{
	size_t bytes = 2 * RUN_MAX * PAGE_SIZE;

	/* best effort: RLIMIT_MEMLOCK may be small; the unit raises it */
	if (mlock(b->buf, bytes) < 0)
		(void)madvise(b->buf, bytes, MADV_POPULATE_WRITE);
}

void bench_fini(struct bench *b)
{
	if (b->buf)
		munmap(b->buf, 2 * RUN_MAX * PAGE_SIZE);
	codec_free(b->codec);
	direct_fini(&b->direct);
	*b = (struct bench){ 0 };
}

int stores_init(struct stores *s, struct arena *a, struct account *payer, const struct mem_settings *settings,
	const struct stores_owner *owner, struct kept_owner kept, uint64_t size_bytes, const char *swap_dir,
	const struct swap_room *room, struct problem *p)
{
	int r;

	*s = (struct stores){ .settings = settings, .owner = owner };
	pthread_mutex_init(&s->lock, NULL);
	r = cache_new(&s->cache, a, payer, kept, size_bytes, settings, p);
	if (r == 0)
		r = swap_new(&s->swap, a, payer, kept, swap_dir, room, p);
	if (r < 0)
		stores_fini(s);
	return r;
}

void stores_fini(struct stores *s)
{
	if (!s->owner)
		return;
	cache_free(s->cache);
	swap_free(s->swap);
	pthread_mutex_destroy(&s->lock);
	*s = (struct stores){ 0 };
}

bool store_claim(struct stores *s, uint64_t w)
{
	return word_state(w) == PAGE_COMPRESSED ? cache_claim(s->cache, word_ref(w))
						: swap_claim(s->swap, word_ref(w));
}

/* ---- in ---- */

bool store_compress(struct stores *s, struct codec *codec, uint16_t lease, uint64_t page, const uint8_t *content,
	uint64_t *ret_word)
{
	int level = atomic_load_explicit(&s->settings->zstd_level, memory_order_relaxed);
	uint8_t out[CACHE_OBJECT_MAX];
	struct cache_object header = { .page = (uint32_t)page, .lease = lease };
	uint64_t ref;
	size_t n;

	if (!atomic_load_explicit(&s->settings->zip_max_pct, memory_order_relaxed))
		return false;
	n = codec_compress(codec, level, content, out, sizeof out);
	if (!n)
		return false;
	header.length = (uint16_t)n;
	header.checksum = checksum_page(content);
	if (cache_put(s->cache, &header, out, &ref) < 0)
		return false;
	*ret_word = word_make(PAGE_COMPRESSED, ref);
	return true;
}

uint64_t store_swap(struct stores *s, uint16_t lease, const uint64_t *pages, uint8_t *buf, uint64_t mask, uint64_t *words)
{
	uint64_t ok = 0;

	while (mask) {
		struct iovec v[RUN_MAX];
		uint64_t numbers[RUN_MAX];
		unsigned index[RUN_MAX], want = (unsigned)__builtin_popcountll(mask), got;
		uint64_t first;

		got = swap_alloc(s->swap, want, &first);
		if (!got)
			break;
		for (unsigned i = 0; i < got; i++) {
			index[i] = (unsigned)__builtin_ctzll(mask);
			mask &= mask - 1;
			v[i] = (struct iovec){ buf + index[i] * PAGE_SIZE, PAGE_SIZE };
			numbers[i] = swap_number(lease, pages[index[i]]);
		}
		if (swap_write(s->swap, first, v, numbers, got) < 0) {
			swap_release(s->swap, first, got);
			atomic_fetch_add(&s->swap_write_errors, 1);
			break;
		}
		CRASH_POINT("swap_out.written");
		for (unsigned i = 0; i < got; i++) {
			words[index[i]] = word_make(PAGE_SWAPPED, first + i);
			ok |= 1ull << index[i];
		}
		atomic_fetch_add(&s->swap_out_pages, got);
	}
	return ok;
}

/* ---- out ---- */

static int from_cache(struct stores *s, struct bench *b, uint16_t lease, uint64_t page, uint64_t w, void *to)
{
	const struct cache_object *o = cache_look(s->cache, word_ref(w));
	int r;

	if (o->page != (uint32_t)page || o->lease != lease || !cache_is_whole(o, word_ref(w)))
		return -EBADMSG;
	r = codec_decompress(b->codec, o->data, o->length, to);
	if (r == 0 && inject.cache_corrupt)
		*(uint8_t *)to ^= 1;
	if (r == 0 && checksum_page(to) != o->checksum)
		r = -EBADMSG;
	return r;
}

/* A slot that a guest waits for.  An error may pass (a path that fails over, memory of the kernel): the page is given
 * up only after a second of them, or when what was read is wrong twice. */
static int from_swap(struct stores *s, struct bench *b, uint64_t slot, uint64_t number, void *to, bool guest_waits,
	const _Atomic bool *stop)
{
	static const struct timespec pause = { .tv_nsec = 100000000 };
	unsigned spin_us = guest_waits ? atomic_load_explicit(&s->settings->swap_spin_us, memory_order_relaxed) : 0;
	int r = swap_read(s->swap, slot, number, 1, to, &b->direct, spin_us);

	for (unsigned tries = 0; r < 0 && guest_waits && tries < READ_TRIES && !atomic_load(stop); tries++) {
		if (r == -EBADMSG)
			return swap_read(s->swap, slot, number, 1, to, NULL, 0);
		atomic_fetch_add(&s->swap_read_errors, 1);
		nanosleep(&pause, NULL);
		r = swap_read(s->swap, slot, number, 1, to, NULL, 0);
		if (r == -ENOMEM || r == -EAGAIN)
			tries = 0;
	}
	return r;
}

int store_read(struct stores *s, struct bench *b, uint16_t lease, uint64_t page, uint64_t w, void *to, bool guest_waits,
	const _Atomic bool *stop)
{
	return word_state(w) == PAGE_COMPRESSED ? from_cache(s, b, lease, page, w, to)
						: from_swap(s, b, word_ref(w), swap_number(lease, page), to, guest_waits, stop);
}

void store_forget(struct stores *s, uint64_t w)
{
	if (word_state(w) == PAGE_COMPRESSED)
		cache_drop(s->cache, word_ref(w));
	else if (word_state(w) == PAGE_SWAPPED)
		swap_release(s->swap, word_ref(w), 1);
}

/* ---- between ---- */

struct moving {
	struct owned page[RUN_MAX];
	unsigned count;
};

/* Write what was gathered into b->buf.  Settles and unlocks all pages; pages written, or -errno. */
static int flush(struct stores *s, struct bench *b, struct moving *m)
{
	unsigned done = 0;
	int r = 0;

	while (done < m->count && r == 0) {
		struct iovec v[RUN_MAX];
		uint64_t numbers[RUN_MAX], first;
		unsigned got = swap_alloc(s->swap, m->count - done, &first);

		if (!got) {
			r = -ENOSPC;
			break;
		}
		for (unsigned i = 0; i < got; i++) {
			const struct owned *o = &m->page[done + i];

			v[i] = (struct iovec){ b->buf + (done + i) * PAGE_SIZE, PAGE_SIZE };
			numbers[i] = swap_number(o->lease ? (uint16_t)lease_id(o->lease) : 0, o->page);
		}
		r = swap_write(s->swap, first, v, numbers, got);
		if (r < 0) {
			swap_release(s->swap, first, got);
			atomic_fetch_add(&s->swap_write_errors, 1);
			break;
		}
		CRASH_POINT("write_back.written");
		for (unsigned i = done; i < done + got; i++) {
			struct owned *o = &m->page[i];
			uint64_t w = word_make(PAGE_SWAPPED, first + i - done) | (o->before & WORD_PIN_MASK);

			/* the block is taken: if the word refers to the same place, it is the same page */
			if (s->owner->immutable && !s->owner->lock(s, word_ref(o->before), o)) {
				swap_release(s->swap, first + i - done, 1);
				continue;
			}
			s->owner->move(s, o, PAGE_SWAPPED, w);
			CRASH_POINT("write_back.moved");
			cache_drop(s->cache, word_ref(o->before));
			CRASH_POINT("write_back.dropped");
			s->owner->unlock(s, o, w);
		}
		atomic_fetch_add(&s->swap_out_pages, got);
		atomic_fetch_add(&s->written_back_pages, got);
		done += got;
	}
	for (unsigned i = done; i < m->count && !s->owner->immutable; i++)
		s->owner->unlock(s, &m->page[i], m->page[i].before);
	m->count = 0;
	return r < 0 ? r : (int)done;
}

int store_write_back(struct stores *s, struct bench *b)
{
	struct moving m = { .count = 0 };
	uint32_t block, cursor = 0;
	uint64_t ref;
	int written = 0, r = 0;

	pthread_mutex_lock(&s->lock);
	MOVES_BEGIN(s);
	block = cache_take_oldest(s->cache);
	if (block == CACHE_NO_BLOCK) {
		MOVES_END(s);
		pthread_mutex_unlock(&s->lock);
		return -ENOENT;
	}
	CRASH_POINT("write_back.taken");
	while (r >= 0 && cache_next_object(s->cache, block, &cursor, &ref)) {
		const struct cache_object *o = cache_look(s->cache, ref);
		uint8_t *to = b->buf + m.count * PAGE_SIZE;

		if (!s->owner->lock(s, ref, &m.page[m.count]))
			continue;
		/* a page that does not verify stays where it is: its next fault will report it lost */
		if (codec_decompress(b->codec, o->data, o->length, to) < 0 || checksum_page(to) != o->checksum) {
			s->owner->unlock(s, &m.page[m.count], m.page[m.count].before);
			continue;
		}
		if (s->owner->immutable)
			s->owner->unlock(s, &m.page[m.count], m.page[m.count].before);
		if (++m.count == RUN_MAX) {
			r = flush(s, b, &m);
			written += r > 0 ? r : 0;
		}
	}
	if (m.count) {
		r = flush(s, b, &m);
		written += r > 0 ? r : 0;
	}
	CRASH_POINT("write_back.flushed");
	cache_end_block(s->cache, block);
	CRASH_POINT("write_back.ended");
	MOVES_END(s);
	pthread_mutex_unlock(&s->lock);
	return r < 0 ? r : written;
}

static void clean(struct stores *s)
{
	while (cache_wants_cleaning(s->cache)) {
		uint32_t block, cursor = 0;
		uint64_t ref, moved = 0;
		int r = 0;

		pthread_mutex_lock(&s->lock);
		MOVES_BEGIN(s);
		block = cache_take_sparsest(s->cache);
		while (block != CACHE_NO_BLOCK && r == 0 && cache_next_object(s->cache, block, &cursor, &ref)) {
			struct owned o;
			uint64_t to;

			if (!s->owner->lock(s, ref, &o))
				continue;
			r = cache_put_survivor(s->cache, cache_look(s->cache, ref), &to);
			if (r == 0) {
				uint64_t w = word_make(PAGE_COMPRESSED, to) | (o.before & WORD_PIN_MASK);

				CRASH_POINT("clean.copied");
				word_record(o.word, w);
				CRASH_POINT("clean.moved");
				cache_drop(s->cache, ref);
				s->owner->unlock(s, &o, w);
				moved++;
			} else {
				s->owner->unlock(s, &o, o.before);
			}
		}
		if (block != CACHE_NO_BLOCK)
			cache_end_block(s->cache, block);
		CRASH_POINT("clean.ended");
		MOVES_END(s);
		pthread_mutex_unlock(&s->lock);
		atomic_fetch_add(&s->cleaned_pages, moved);
		if (block == CACHE_NO_BLOCK || !moved)
			break;
	}
}

void store_keep_up(struct stores *s, struct bench *b)
{
	for (unsigned i = 0; i < STORE_KEEP_UP_BLOCKS && cache_is_full(s->cache, CACHE_ROOM_BLOCKS); i++)
		if (store_write_back(s, b) <= 0)
			break;
	clean(s);
}
