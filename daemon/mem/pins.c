/* Pins: a count in the word, kept through every state.  Worker only. */
#include "mem/vm_impl.h"

#include "base/clock.h"
#include "mem/inject.h"

#include <errno.h>

/* The worker is the only thread that changes pins: what it checks first still holds when it applies. */
static int check_pins(struct lease *l, struct run range, bool pin)
{
	struct vm *vm = l->vm;
	uint64_t new_pages = 0;

	for (uint64_t page = range.page; page < range.page + range.count; page++) {
		unsigned pins = word_pins(page_map_read(&l->map, page));

		if (pin ? pins == WORD_PIN_MAX : pins == 0)
			return -ERANGE;
		new_pages += pin && !pins;
	}
	/* several leases of a VM pin at the same time: take first, give back if it was too much */
	if (atomic_fetch_add(&vm->pinned_pages, new_pages) + new_pages > vm->config.reservation_bytes / PAGE_SIZE && new_pages) {
		atomic_fetch_sub(&vm->pinned_pages, new_pages);
		return -ENOMEM;
	}
	return 0;
}

/* A pin is a count, and a client that got no reply asks again: after a restart a job that was under way must have been done as a whole
 * or not at all.  So the record says which job it is, which word is next, and what that word's count was before; recovery
 * undoes from there (recover.c).  A client's number of its last job that was done ends that: asked once more, it is answered. */
static void record_pins(struct lease *l, struct run range, bool pin, uint64_t call)
{
	l->record->pin_first = range.page;
	l->record->pin_call = call;
	l->record->pin_down = !pin;
}

static void record_next(struct lease *l, uint64_t done, uint64_t original)
{
	atomic_store(&l->record->pin_next, done << 8 | word_pins(original) << 1 | 1);
}

static void record_end(struct lease *l, uint64_t done_call)
{
	if (done_call)
		atomic_store(&l->record->pin_done, done_call);
	CRASH_POINT("pin.done");
	atomic_store(&l->record->pin_next, 0);
}

/* One page of the range; false: its word cannot be had. */
static bool apply_pin(struct lease *l, uint64_t page, uint64_t done, bool pin, bool undo)
{
	uint64_t before, now, original;

	if (!lease_lock_word(l, page, NS_PER_MS, &before))
		return false;
	now = pin ? before + (1ull << WORD_PIN_SHIFT) : before - (1ull << WORD_PIN_SHIFT);
	original = undo ? now : before;
	record_next(l, done, original);
	CRASH_POINT("pin.recorded");
	word_unlock(lease_word(l, page), now);
	CRASH_POINT("pin.unlocked");
	lease_wake(l, page, 1);
	if (!pin && !word_pins(now))
		atomic_fetch_sub(&l->vm->pinned_pages, 1);
	return true;
}

/* The words of the range have been touched.  How many pages it was done for: less than all if the lease ends, or if somebody
 * has a word for longer than the job may take. */
static uint64_t apply_pins(struct lease *l, struct run range, bool pin)
{
	uint64_t until_ns = l->job_began_ns + GIVE_UP_NS, done = 0;

	while (done < range.count) {
		if ((range.page + done) % RUN_MAX == 0)
			lease_serve_reclaim(l);
		if (apply_pin(l, range.page + done, done, pin, false))
			done++;
		else if (atomic_load(&l->ending) || now_ns() > until_ns)
			break;
		else
			lease_serve_reclaim(l);
	}
	return done;
}

/* Backwards, so that the record says at any instant what is left to be undone. */
static void undo_pins(struct lease *l, struct run range, uint64_t done, bool pin)
{
	uint64_t never = 0;

	/* check_pins has counted those that were not reached */
	for (uint64_t page = range.page + done; pin && page < range.page + range.count; page++)
		never += !word_pins(page_map_read(&l->map, page));
	atomic_fetch_sub(&l->vm->pinned_pages, never);
	while (done && !atomic_load(&l->ending)) {
		uint64_t page = range.page + done - 1;

		if (!pin && !word_pins(page_map_read(&l->map, page)))
			atomic_fetch_add(&l->vm->pinned_pages, 1);
		while (!apply_pin(l, page, done - 1, !pin, true) && !atomic_load(&l->ending))
			lease_serve_reclaim(l);
		done--;
	}
}

static int change_pins(struct lease *l, struct job *job, bool pin)
{
	struct run range = job->range;
	uint64_t done;
	int r = check_pins(l, range, pin);

	if (r < 0)
		return r;
	CRASH_POINT("pin.checked");
	record_pins(l, range, pin, job->call);
	done = apply_pins(l, range, pin);
	CRASH_POINT("pin.applied");
	r = done < range.count ? -ETIMEDOUT : pin ? lease_populate(l, range, true, &job->pages) : 0;
	if (r < 0)
		undo_pins(l, range, done, pin);
	record_end(l, r < 0 ? 0 : job->call);
	return r;
}

int lease_pin(struct lease *l, struct job *job)
{
	struct run range = job->range;
	int r;

	for (uint64_t page = range.page; page < range.page + range.count; page++)
		if (page_map_touch(&l->map, page) < 0)
			return -ENOMEM;
	/* Pages that are shared must have frames of their own.  This thread shares no other meanwhile, and pinned ones never. */
	r = share_bring_home(l, &range, 1, l->job_began_ns + GIVE_UP_NS);
	return r < 0 ? r : change_pins(l, job, true);
}

int lease_unpin(struct lease *l, struct job *job)
{
	return change_pins(l, job, false);
}
