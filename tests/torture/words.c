/* The word oracle: whole-page checks are blind to a single lost word, because who rewrites a page under a lock
 * never has a writer beside it.  Here word i of each page belongs to thread i % threads.  A thread adds to
 * its own words with no lock at all, while others write to the same page, and looks before each addition
 * whether the word still holds exactly what it wrote last. */
#include "tests/torture/oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WORDS	   512u
#define HOT_PAGES  48u	/* the threads write to the same few pages, so that an eviction finds several at it */
#define BURST	   24u

static unsigned per_page(const struct oracle *o)
{
	return (WORDS + o->threads - 1) / o->threads;
}

static _Atomic uint64_t *word(const struct oracle *o, uint64_t page, unsigned i)
{
	return (_Atomic uint64_t *)(void *)(o->words + page * PAGE) + i;
}

int words_init(struct oracle *o, struct worker *w)
{
	w->last = calloc(o->words_pages * per_page(o), sizeof *w->last);
	return w->last ? 0 : -ENOMEM;
}

void words_fini(struct worker *w)
{
	free(w->last);
	w->last = NULL;
}

/* The n-th word of this thread on the page; false if what it holds is not what was written last. */
static bool look(struct oracle *o, struct worker *w, uint64_t page, unsigned n, const char *during)
{
	uint64_t *last = &w->last[page * per_page(o) + n];
	unsigned i = w->index + n * o->threads;
	uint64_t seen = atomic_load_explicit(word(o, page, i), memory_order_relaxed);
	char found[80], expected[80];

	w->tally.verified_words++;
	if (seen == *last)
		return true;
	snprintf(found, sizeof found, "%llu in word %u", (unsigned long long)seen, i);
	snprintf(expected, sizeof expected, "%llu, written by thread %u", (unsigned long long)*last, w->index);
	oracle_wrong(o, during, o->words_offset / PAGE + page, found, expected);
	w->tally.wrong_words++;
	*last = seen;
	return false;
}

void words_step(struct oracle *o, struct worker *w)
{
	uint64_t hot = atomic_fetch_add_explicit(&o->hot, 1, memory_order_relaxed) / 512;
	uint64_t page = random_below(&w->rng, 8) ? (hot * 37 + random_below(&w->rng, HOT_PAGES)) % o->words_pages
						 : random_below(&w->rng, o->words_pages);
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads;
	bool right = true;

	for (unsigned k = 0; k < BURST; k++) {
		unsigned n = (unsigned)random_below(&w->rng, mine);

		right &= look(o, w, page, n, "before an addition");
		atomic_store_explicit(word(o, page, w->index + n * o->threads), ++w->last[page * per_page(o) + n],
			memory_order_relaxed);
	}
	w->tally.verified_pages++;
	w->tally.wrong_pages += !right;
	/* Make them the next victims while everybody writes to them. */
	if (!random_below(&w->rng, 64)) {
		uint64_t n = o->words_pages - page < 16 ? o->words_pages - page : 16;
		struct memctl_error e = { 0 };
		int r = memctl_dont_need(o->ground.lease,
			o->words_offset + page * PAGE, n * PAGE, &e);

		w->tally.hints++;
		if (r < 0)
			oracle_error(w, "memctl_dont_need", &e, r);
	}
}

void words_verify(struct oracle *o, struct worker *w)
{
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads;

	for (uint64_t page = 0; page < o->words_pages; page++) {
		bool right = true;

		for (unsigned n = 0; n < mine; n++)
			right &= look(o, w, page, n, "at the end");
		w->tally.verified_pages += w->index == 0;
		w->tally.wrong_pages += !right;
	}
}
