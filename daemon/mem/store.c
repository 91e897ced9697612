/* Between the stores: from the cache to the swap file (its least recently used), and within the cache (closing
 * holes).  Both walk a block of the cache that was taken out of the log, and look at each object's page: an object
 * is live if and only if its page's word, locked, refers to it.
 *
 * A page that moves has no frame, so no guest can change it; its word is locked while it moves, so nobody
 * fills or discards it.  Order, for a crash at any point: copy to the new place > the word, in one store, refers
 * to the new place > the old place is forgotten.  There is no instant without a complete copy that a word refers to.
 *
 * The only system call on a lease is the wake, which waits for nothing. */
#include "mem/vm_impl.h"

#include "mem/checksum.h"

#include <errno.h>

void store_forget(struct vm *vm, uint64_t w)
{
	if (word_state(w) == PAGE_COMPRESSED)
		cache_drop(vm->cache, word_ref(w));
	else if (word_state(w) == PAGE_SWAPPED)
		swap_release(vm->swap, word_ref(w), 1);
}

/* The page that an object belongs to, locked, if the object is live and nobody is at work on the page. */
static struct lease *lock_owner(struct vm *vm, uint64_t ref, uint64_t *ret_page, uint64_t *ret_word)
{
	const struct cache_object *o = cache_look(vm->cache, ref);
	struct lease *l = store_find_lease(vm, o->lease);
	uint64_t w;

	if (!l || o->page >= l->pages)
		return NULL;
	w = page_map_read(&l->map, o->page);
	if (word_state(w) != PAGE_COMPRESSED || word_ref(w) != ref || !word_lock(lease_word(l, o->page), &w))
		return NULL;
	if (word_state(w) != PAGE_COMPRESSED || word_ref(w) != ref) {
		word_unlock(lease_word(l, o->page), w);
		lease_wake(l, o->page, 1);
		return NULL;
	}
	*ret_page = o->page;
	*ret_word = w;
	return l;
}

static void unlock_owner(struct lease *l, uint64_t page, uint64_t w)
{
	word_unlock(lease_word(l, page), w);
	lease_wake(l, page, 1);
}

struct moving {
	struct lease *lease[RUN_MAX];
	uint64_t page[RUN_MAX], before[RUN_MAX];
	unsigned count;
};

/* Write what was gathered into b->buf.  Settles and unlocks all pages; pages written, or -errno. */
static int flush(struct vm *vm, struct bench *b, struct moving *m)
{
	unsigned done = 0;
	int r = 0;

	while (done < m->count && r == 0) {
		struct iovec v[RUN_MAX];
		uint64_t first;
		unsigned got = swap_alloc(vm->swap, m->count - done, &first);

		if (!got) {
			r = -ENOSPC;
			break;
		}
		for (unsigned i = 0; i < got; i++)
			v[i] = (struct iovec){ b->buf + (done + i) * PAGE_SIZE, PAGE_SIZE };
		r = swap_write(vm->swap, first, v, got);
		if (r < 0) {
			swap_release(vm->swap, first, got);
			COUNT(vm, swap_write_errors, 1);
			break;
		}
		for (unsigned i = done; i < done + got; i++) {
			uint64_t w = word_make(PAGE_SWAPPED, first + i - done) | (m->before[i] & WORD_PIN_MASK);

			ledger_move(m->lease[i], m->page[i], m->before[i], PAGE_SWAPPED);
			word_record(lease_word(m->lease[i], m->page[i]), w);
			cache_drop(vm->cache, word_ref(m->before[i]));
			unlock_owner(m->lease[i], m->page[i], w);
		}
		COUNT(vm, swap_out_pages, got);
		COUNT(vm, written_back_pages, got);
		done += got;
	}
	for (unsigned i = done; i < m->count; i++)
		unlock_owner(m->lease[i], m->page[i], m->before[i]);
	m->count = 0;
	return r < 0 ? r : (int)done;
}

int store_write_back(struct vm *vm, struct bench *b)
{
	struct moving m = { .count = 0 };
	uint32_t block, cursor = 0;
	uint64_t ref;
	int written = 0, r = 0;

	pthread_mutex_lock(&vm->stores_lock);
	MOVES_BEGIN(vm);
	block = cache_take_oldest(vm->cache);
	if (block == CACHE_NO_BLOCK) {
		MOVES_END(vm);
		pthread_mutex_unlock(&vm->stores_lock);
		return -ENOENT;
	}
	while (r >= 0 && cache_next_object(vm->cache, block, &cursor, &ref)) {
		const struct cache_object *o = cache_look(vm->cache, ref);
		uint8_t *to = b->buf + m.count * PAGE_SIZE;
		struct lease *l = lock_owner(vm, ref, &m.page[m.count], &m.before[m.count]);

		if (!l)
			continue;
		/* a page that does not verify stays where it is: its next fault will report it lost */
		if (codec_decompress(b->codec, o->data, o->length, to) < 0 || checksum_page(to) != o->checksum) {
			unlock_owner(l, m.page[m.count], m.before[m.count]);
			continue;
		}
		m.lease[m.count++] = l;
		if (m.count == RUN_MAX) {
			r = flush(vm, b, &m);
			written += r > 0 ? r : 0;
		}
	}
	if (m.count) {
		r = flush(vm, b, &m);
		written += r > 0 ? r : 0;
	}
	cache_end_block(vm->cache, block);
	MOVES_END(vm);
	pthread_mutex_unlock(&vm->stores_lock);
	return r < 0 ? r : written;
}

void store_clean(struct vm *vm)
{
	while (cache_wants_cleaning(vm->cache)) {
		uint32_t block, cursor = 0;
		uint64_t ref, moved = 0;
		int r = 0;

		pthread_mutex_lock(&vm->stores_lock);
		MOVES_BEGIN(vm);
		block = cache_take_sparsest(vm->cache);
		while (block != CACHE_NO_BLOCK && r == 0 && cache_next_object(vm->cache, block, &cursor, &ref)) {
			uint64_t page, before, to;
			struct lease *l = lock_owner(vm, ref, &page, &before);

			if (!l)
				continue;
			r = cache_put_survivor(vm->cache, cache_look(vm->cache, ref), &to);
			if (r == 0) {
				uint64_t w = word_make(PAGE_COMPRESSED, to) | (before & WORD_PIN_MASK);

				word_record(lease_word(l, page), w);
				cache_drop(vm->cache, ref);
				unlock_owner(l, page, w);
				moved++;
			} else {
				unlock_owner(l, page, before);
			}
		}
		if (block != CACHE_NO_BLOCK)
			cache_end_block(vm->cache, block);
		MOVES_END(vm);
		pthread_mutex_unlock(&vm->stores_lock);
		COUNT(vm, cleaned_pages, moved);
		if (block == CACHE_NO_BLOCK || !moved)
			break;
	}
}
