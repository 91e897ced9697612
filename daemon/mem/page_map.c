#include "mem/page_map.h"

#include "mem/inject.h"

#include <errno.h>
#include <stdlib.h>

/* The blocks that there are. */
static void charge_found(struct page_map *m)
{
	uint64_t at = 0, to;

	while (segment_next_data(m->segment, at, &at, &to)) {
		for (uint64_t block = at / PAGE_SIZE; block < to / PAGE_SIZE; block++)
			atomic_fetch_or_explicit(&m->charged[block / 64], 1ull << (block % 64), memory_order_relaxed);
		segment_charge_found(m->segment, (to - at) / PAGE_SIZE);
		at = to;
	}
}

int page_map_init(struct page_map *m, struct arena *a, struct account *payer, struct kept_owner owner, const char *part,
	uint64_t pages, struct problem *p)
{
	uint64_t blocks = (pages + MAP_BLOCK_PAGES - 1) / MAP_BLOCK_PAGES;
	int r;

	*m = (struct page_map){ .pages = pages };
	m->charged = calloc((blocks + 63) / 64, sizeof *m->charged);
	if (!m->charged)
		return problem_errno(p, "page map");
	r = segment_new(&m->segment, a, payer, SEGMENT_PAGE_MAP, owner, part, blocks * PAGE_SIZE, p);
	if (r < 0) {
		free(m->charged);
		m->charged = NULL;
		return r;
	}
	m->words = (word *)m->segment->addr;
	if (m->segment->found)
		charge_found(m);
	return 0;
}

void page_map_fini(struct page_map *m)
{
	segment_free(m->segment);
	free(m->charged);
	*m = (struct page_map){ 0 };
}

int page_map_touch(struct page_map *m, uint64_t page)
{
	uint64_t block = page / MAP_BLOCK_PAGES, bit = 1ull << (block % 64);
	int r;

	if (page_map_has(m, page))
		return 0;
	r = segment_charge(m->segment, 1, CHARGE_STORE);
	if (r < 0)
		return r;
	CRASH_POINT("map.block_charged");
	/* Another thread may have been first: one of the two charges goes back. */
	if (atomic_fetch_or_explicit(&m->charged[block / 64], bit, memory_order_acq_rel) & bit)
		segment_uncharge(m->segment, 1);
	return 0;
}
