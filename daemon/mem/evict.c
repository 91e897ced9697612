/* Content out: from frames into the cache or the swap file, without the client's cooperation.
 *
 *	lock words > write-protect > pread into private memory > store it, error known > record (moving)
 *	> punch > verify the hole > record > un-protect > unlock > wake
 *
 * Runs on the lease's worker only: write-protect, pread and punch may wait for locks that the client holds.
 *
 * Why no write is lost.  From write-protect on, a guest write waits in the kernel; what pread reads is therefore the
 * last value.  The fault thread drops the write's event because the word is busy; un-protect and the wake after
 * the unlock end the wait, the access faults again and finds the new state.  If anything refuses (a mapping that
 * cannot be protected, a store that is full, a disk that fails), the page stays: it is un-protected and unlocked
 * as it was, nothing is punched that is not stored.
 *
 * Un-protect comes after the punch because the protection of a punched page survives as a marker, which would
 * cost the next write a second event; and before the unlock, because later it could strip the protection of the
 * next eviction of the same page.
 *
 * After a punch SEEK_DATA must say hole (or mincore, for many pages at once: what it does not see is what the host swapped out, and
 * a punch does not leave that).  A large folio that somebody references is zeroed and *kept* by the kernel,
 * which reports success; then the content is written back into the page that is still there, and the page is
 * called resident, not evicted.
 *
 * Crash rule: words are recorded moving before the punch; a successor sees hole = evicted, data = resident.
 *
 * Victims need not be neighbours; system calls are made per run of neighbours (2-3 us a page in runs of 64, 12-14
 * alone).  A zero page is dropped: it costs neither cache nor disk. */
#include "mem/vm_impl.h"

#include "mem/inject.h"
#include "mem/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FEW_SPANS  2u		/* more are worth a call that spans them all */
#define SPREAD_MAX 4096u	/* if they are no farther apart than this */

/* Neighbouring pages of a batch: [from, from + count) of its arrays. */
struct span {
	unsigned from, count;
};

/* The next span at or after `at` whose pages have their bit in `mask`; false at the end. */
static bool next_span(const struct batch *b, uint64_t mask, unsigned at, struct span *ret)
{
	while (at < b->count && !(mask >> at & 1))
		at++;
	if (at >= b->count)
		return false;
	ret->from = at;
	while (at + 1 < b->count && (mask >> (at + 1) & 1) && b->page[at + 1] == b->page[at] + 1)
		at++;
	ret->count = at + 1 - ret->from;
	return true;
}

#define foreach_span(s, b, mask) for (struct span s = { 0, 0 }; next_span(b, mask, s.from + s.count, &s);)

static uint64_t span_mask(struct span s)
{
	return full_mask(s.count) << s.from;
}

/* Older kernels want each call inside one mapping: then page by page says which refuse.  A page that is not registered,
 * or not mapped, any more counts as protected: its client broke the contract of memctl.h, so a write of it from now on
 * is its own loss; if that made pages unevictable, one munmap would keep them for ever. */
uint64_t batch_protect(struct lease *l, const struct batch *b)
{
	uint64_t ok = 0, all = full_mask(b->count);

	if (inject.twin_no_protect)
		return all;
	lease_hold_begin(l, HOLD_WORKER);
	foreach_span(s, b, all) {
		if (uffd_protect(l->uffd, lease_client_address(l, b->page[s.from]), s.count * PAGE_SIZE) == 0) {
			ok |= span_mask(s);
			continue;
		}
		for (unsigned i = s.from; i < s.from + s.count; i++) {
			int r = uffd_protect(l->uffd, lease_client_address(l, b->page[i]), PAGE_SIZE);

			if (r == 0 || r == -ENOENT || r == -ESRCH)
				ok |= 1ull << i;
		}
	}
	lease_hold_end(l, HOLD_WORKER);
	if (ok != all)
		COUNT(l->vm, protect_refused, 1);
	return ok;
}

void batch_unprotect(struct lease *l, const struct batch *b, uint64_t mask)
{
	if (inject.twin_no_protect)
		return;
	lease_hold_begin(l, HOLD_WORKER);
	foreach_span(s, b, mask) {
		if (uffd_unprotect(l->uffd, lease_client_address(l, b->page[s.from]), s.count * PAGE_SIZE) == 0)
			continue;
		for (unsigned i = s.from; i < s.from + s.count; i++)
			uffd_unprotect(l->uffd, lease_client_address(l, b->page[i]), PAGE_SIZE);
	}
	lease_hold_end(l, HOLD_WORKER);
}

uint64_t batch_copy_out(struct lease *l, const struct batch *b, uint8_t *buf, uint64_t mask)
{
	uint64_t ok = 0;

	foreach_span(s, b, mask) {
		size_t want = s.count * PAGE_SIZE, done = 0;

		while (done < want) {
			ssize_t n = pread(l->memory->fd, buf + s.from * PAGE_SIZE + done, want - done,
				(off_t)(b->page[s.from] * PAGE_SIZE + done));

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				break;
			done += (size_t)n;
		}
		if (done == want)
			ok |= span_mask(s);
	}
	return ok;
}

bool page_is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

static bool is_hole(struct lease *l, uint64_t page, unsigned count)
{
	return segment_is_hole(l->memory, page * PAGE_SIZE, count * PAGE_SIZE);
}

/* How many spans, until it does not matter. */
static unsigned spans_of(const struct batch *b, uint64_t mask)
{
	unsigned n = 0;

	foreach_span(s, b, mask)
		if (++n > FEW_SPANS)
			break;
	return n;
}

/* The pages from the first to the last of the batch that are in the memfd's page cache; false if they are too far apart.  A
 * page that a punch leaves behind is there. */
static bool still_there(struct lease *l, const struct batch *b, uint64_t *ret)
{
	uint64_t first = b->page[0], pages = b->page[b->count - 1] + 1 - first;
	unsigned char in[SPREAD_MAX];

	if (pages > SPREAD_MAX || mincore(l->own + first * PAGE_SIZE, pages * PAGE_SIZE, in) < 0)
		return false;
	*ret = 0;
	for (unsigned i = 0; i < b->count; i++)
		*ret |= (uint64_t)(in[b->page[i] - first] & 1) << i;
	return true;
}

uint64_t batch_punch(struct lease *l, const struct batch *b, uint64_t mask, const uint8_t *buf)
{
	bool many = spans_of(b, mask) > FEW_SPANS;
	uint64_t ok = 0, there;

	/* Our own page tables at once: each punch would have to tell all processors that threads of ours run on. */
	if (many && b->page[b->count - 1] - b->page[0] < SPREAD_MAX)
		madvise(l->own + b->page[0] * PAGE_SIZE, (b->page[b->count - 1] + 1 - b->page[0]) * PAGE_SIZE, MADV_DONTNEED);
	lease_hold_begin(l, HOLD_WORKER);
	/* what it really did is looked up afterwards, also after an error */
	foreach_span(s, b, mask)
		(void)segment_make_hole(l->memory, b->page[s.from] * PAGE_SIZE, s.count * PAGE_SIZE);
	if (many && still_there(l, b, &there))
		ok = mask & ~there;
	foreach_span(s, b, mask & ~ok) {
		if (is_hole(l, b->page[s.from], s.count)) {
			ok |= span_mask(s);
			continue;
		}
		for (unsigned i = s.from; i < s.from + s.count; i++) {
			if (is_hole(l, b->page[i], 1)) {
				ok |= 1ull << i;
				continue;
			}
			COUNT(l->vm, punch_failed, 1);
			/* not a hole, so this fills nothing: it overwrites the zeros that the kernel left */
			if (buf && pwrite(l->memory->fd, buf + i * PAGE_SIZE, PAGE_SIZE, (off_t)(b->page[i] * PAGE_SIZE)) < 0)
				COUNT(l->vm, foreign_pages, 1);
		}
	}
	lease_hold_end(l, HOLD_WORKER);
	return ok;
}

void batch_unlock_and_wake(struct lease *l, const struct batch *b, uint64_t mask, const uint64_t *words)
{
	for (unsigned i = 0; i < b->count; i++)
		if (mask >> i & 1)
			word_unlock(lease_word(l, b->page[i]), words[i]);
	CRASH_POINT("batch.unlocked");
	/* who waits for a page in between is woken in vain, and faults again */
	if (spans_of(b, mask) > FEW_SPANS)
		lease_wake(l, b->page[0], b->page[b->count - 1] + 1 - b->page[0]);
	else
		foreach_span(s, b, mask)
			lease_wake(l, b->page[s.from], s.count);
}

unsigned evict_batch(struct lease *l, struct bench *bench, struct batch *b)
{
	struct vm *vm = l->vm;
	uint64_t words[RUN_MAX], all = full_mask(b->count), prot, have, stored = 0, shared = 0, swap = 0, out, zero = 0;
	unsigned n;

	MOVES_BEGIN(&vm->stores);
	for (unsigned i = 0; i < b->count; i++)
		if (b->before[i] & WORD_CLEAN) {
			/* un-protected at the end, whatever becomes of it */
			share_dirtied(l, b->page[i], false);
			b->before[i] &= ~WORD_CLEAN;
		}
	CRASH_POINT("evict.locked");
	prot = batch_protect(l, b);
	CRASH_POINT("evict.protected");
	have = batch_copy_out(l, b, bench->buf, prot);
	CRASH_POINT("evict.copied");
	for (unsigned i = 0; i < b->count; i++) {
		uint8_t *content = bench->buf + i * PAGE_SIZE;

		words[i] = b->before[i];
		if (!(have >> i & 1))
			continue;
		if (page_is_zero(content)) {
			words[i] = word_make(PAGE_ZERO, 0);
			zero |= 1ull << i;
		} else if (share_evicted(l, b->page[i], content, &words[i])) {
			shared |= 1ull << i;
		} else if (store_compress(&vm->stores, bench->codec, (uint16_t)l->id, b->page[i], content, &words[i])) {
			stored |= 1ull << i;
		} else {
			swap |= 1ull << i;
		}
	}
	swap = store_swap(&vm->stores, (uint16_t)l->id, b->page, bench->buf, swap, words);
	CRASH_POINT("evict.stored");
	out = zero | shared | stored | swap;
	for (unsigned i = 0; i < b->count; i++)
		if (out >> i & 1)
			word_record(lease_word(l, b->page[i]), words[i] | WORD_MOVING);
	CRASH_POINT("evict.recorded");
	have = batch_punch(l, b, out, bench->buf);
	CRASH_POINT("evict.punched");
	for (unsigned i = 0; i < b->count; i++) {
		if (have >> i & 1) {
			ledger_move(l, b->page[i], b->before[i], word_state(words[i]));
			word_record(lease_word(l, b->page[i]), words[i]);
		} else if (out >> i & 1) {
			/* the kernel kept the page */
			uint64_t unused = words[i];

			words[i] = b->before[i];
			word_record(lease_word(l, b->page[i]), words[i]);
			vm_forget(vm, unused);
		}
	}
	atomic_fetch_add(&vm->cold_pages, (uint64_t)__builtin_popcountll(have & shared));
	CRASH_POINT("evict.settled");
	batch_unprotect(l, b, prot);
	CRASH_POINT("evict.unprotected");
	batch_unlock_and_wake(l, b, all, words);
	CRASH_POINT("evict.woken");
	MOVES_END(&vm->stores);
	n = (unsigned)__builtin_popcountll(have);
	segment_uncharge(l->memory, n);
	COUNT(vm, evicted_pages, n);
	COUNT(vm, evicted_zero_pages, (uint64_t)__builtin_popcountll(have & zero));
	COUNT(vm, compress_pages, (uint64_t)__builtin_popcountll(have & stored));
	COUNT(vm, share_pages, (uint64_t)__builtin_popcountll(have & shared));
	return n;
}

uint64_t drop_batch(struct lease *l, struct batch *b, enum page_state to)
{
	static const uint8_t zeros[PAGE_SIZE];
	struct vm *vm = l->vm;
	uint64_t words[RUN_MAX], resident = 0, holes, dropped = 0;

	MOVES_BEGIN(&vm->stores);
	for (unsigned i = 0; i < b->count; i++) {
		if (is_mapped(b->before[i])) {
			words[i] = b->before[i]; /* it was to be brought home first (share_bring_home), and was not */
			continue;
		}
		words[i] = word_make(to, 0) | (b->before[i] & WORD_PIN_MASK);
		if (word_state(b->before[i]) == PAGE_RESIDENT) {
			resident |= 1ull << i;
			word_record(lease_word(l, b->page[i]), words[i] | WORD_MOVING);
		}
	}
	CRASH_POINT("discard.recorded");
	holes = batch_punch(l, b, resident, NULL);
	CRASH_POINT("discard.punched");
	for (unsigned i = 0; i < b->count; i++) {
		if (is_mapped(b->before[i]))
			continue;
		if ((resident & ~holes) >> i & 1) {
			/* kept by the kernel, and zero; or not even that */
			if (pwrite(l->memory->fd, zeros, PAGE_SIZE, (off_t)(b->page[i] * PAGE_SIZE)) < 0)
				COUNT(vm, foreign_pages, 1);
			words[i] = b->before[i];
			if (words[i] & WORD_CLEAN)
				share_dirtied(l, b->page[i], false);
			words[i] &= ~WORD_CLEAN;
			continue;
		}
		dropped |= 1ull << i;
		ledger_move(l, b->page[i], b->before[i], to);
		word_record(lease_word(l, b->page[i]), words[i]);
		CRASH_POINT("discard.settled");
		vm_forget(vm, b->before[i]);
	}
	CRASH_POINT("discard.forgotten");
	batch_unlock_and_wake(l, b, full_mask(b->count), words);
	MOVES_END(&vm->stores);
	segment_uncharge(l->memory, (uint64_t)__builtin_popcountll(holes));
	return dropped;
}
