/* Pages brought back before anybody needs them: what is compressed or swapped, and nothing else.  Worker only.
 *
 * It takes frames only above a floor, so it never makes reclaim take from others what nobody has asked for yet, and stops before the
 * VM's own limit would.  Where it stops it says so; whoever gave the job comes again later.  A page that a store cannot give back is
 * passed over: it is lost when its guest needs it, and not before. */
#include "mem/vm_impl.h"

#define TURN_NS (50 * NS_PER_MS)

static bool has_room(struct lease *l, uint64_t floor_frames)
{
	return !atomic_load(&l->ending) && !atomic_load(&l->staying) &&
		arena_free_frames(l->vm->arena) >= floor_frames + RUN_MAX && !account_over_limit(&l->vm->account);
}

static bool is_stored(struct lease *l, uint64_t page)
{
	enum page_state s = word_state(page_map_read(&l->map, page));

	return s == PAGE_COMPRESSED || s == PAGE_SWAPPED;
}

/* `job` says from where on; afterwards where it stopped. */
void lease_page_in(struct lease *l, struct job *job)
{
	uint64_t page = job->range.page, end = page + job->range.count, until = now_ns() + TURN_NS;

	/* other jobs of the lease wait meanwhile, and a slow disk takes long for each page */
	while (page < end && job->pages < job->most && now_ns() < until) {
		uint64_t brought = 0, n = 1;

		if (!page_map_has(&l->map, page)) {
			page += MAP_BLOCK_PAGES - page % MAP_BLOCK_PAGES;
			continue;
		}
		if (!is_stored(l, page)) {
			if (++page % MAP_BLOCK_PAGES == 0)
				lease_serve_reclaim(l);
			continue;
		}
		if (!has_room(l, job->floor_frames))
			break;
		while (n < RUN_MAX && page + n < end && job->pages + n < job->most && is_stored(l, page + n))
			n++;
		/* populate gives up after a time; here each step is a job's first */
		l->job_began_ns = now_ns();
		(void)lease_bring_in(l, (struct run){ page, n }, false, &brought);
		COUNT(l->vm, paged_in_pages, brought);
		job->pages += brought;
		if (brought < n && is_stored(l, page + brought) && !has_room(l, job->floor_frames))
			break;
		/* what could not be read, or was somebody else's just now */
		page += brought < n ? brought + 1 : n;
	}
	page = page < end ? page : end;
	job->range.count = end - page;
	job->range.page = page;
}

uint64_t vm_stored_pages(struct vm *vm)
{
	return atomic_load(&vm->pages[PAGE_COMPRESSED]) + atomic_load(&vm->pages[PAGE_SWAPPED]);
}

void vm_set_page_in_left(struct vm *vm, uint64_t pages)
{
	atomic_store_explicit(&vm->counters.page_in_left_bytes, pages * PAGE_SIZE, memory_order_relaxed);
}
