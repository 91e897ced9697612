/* The word oracle: whole-page checks are blind to a single lost word, because who rewrites a page under a lock
 * never has a writer beside it.  Here word i of each page belongs to thread i % threads.  A thread adds to
 * its own words with no lock at all, while others write to the same page, and looks before each addition
 * whether the word still holds exactly what it wrote last.
 *
 * Pages that many threads write to are never equal, so nothing of them would be shared.  Hence phases, with --phase-ms, on
 * a quarter of the pages, the *block*: by the host's clock, which all threads of all oracles read, each thread brings its own
 * words of the block to what this phase says, which is the same in all VMs and repeats every DISTINCT pages and PHASES
 * phases.  When the last thread has done so the pages are equal, and are left alone but for single words now and then
 * ("pokes") and pins, which bring pages home unbroken.  When the phase is over all threads of all VMs add to one word of
 * each page at once, in the same order: they break the same pages. */
#include "tests/torture/oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WORDS	   512u
#define HOT_PAGES  48u	/* the threads write to the same few pages, so that an eviction finds several at it */
#define BURST	   24u
#define PHASES	   8u
#define DISTINCT   64u
#define POKE_NS	   (32u * 1000 * 1000)	/* of each thread, on average */
#define NEEDLE_NS  (6u * 1000 * 1000)	/* of the one that does nothing else */
#define PIN_NS	   (80u * 1000 * 1000)
#define PIN_PAGES  8u

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

static void add(struct oracle *o, struct worker *w, uint64_t page, unsigned n)
{
	atomic_store_explicit(word(o, page, w->index + n * o->threads), ++w->last[page * per_page(o) + n],
		memory_order_relaxed);
}

/* ---- phases ---- */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t block_pages(const struct oracle *o)
{
	return o->phase_ms ? o->words_pages / 4 : 0;
}

static uint64_t block(const struct oracle *o)
{
	return o->words_pages - block_pages(o);
}

/* What word i of the page-th page of the block is at the beginning of a phase; of one phase of all: zero. */
static uint64_t agreed(uint64_t phase, uint64_t page, unsigned i)
{
	uint64_t state = phase % PHASES << 32 | page % DISTINCT << 16 | i;

	return phase % PHASES ? random_next(&state) : 0;
}

static void reset(struct oracle *o, struct worker *w, uint64_t phase)
{
	uint64_t first = block(o);
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads;

	for (uint64_t page = 0; page < block_pages(o) && !o->stop; page++) {
		bool right = true;

		for (unsigned n = 0; n < mine; n++) {
			unsigned i = w->index + n * o->threads;

			right &= look(o, w, first + page, n, "before a reset");
			w->last[(first + page) * per_page(o) + n] = agreed(phase, page, i);
			atomic_store_explicit(word(o, first + page, i), agreed(phase, page, i), memory_order_relaxed);
		}
		w->tally.verified_pages++;
		w->tally.wrong_pages += !right;
		w->tally.resets++;
	}
}

static void storm(struct oracle *o, struct worker *w)
{
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads;

	for (uint64_t page = 0; page < block_pages(o) && !o->stop; page++) {
		unsigned n = (unsigned)random_below(&w->rng, mine);

		add(o, w, block(o) + page, n);
		w->tally.wrong_pages += !look(o, w, block(o) + page, (n + 1) % mine, "beside a break");
	}
}

/* One word of the page. */
static void poke(struct oracle *o, struct worker *w, uint64_t page)
{
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads, n = (unsigned)random_below(&w->rng, mine);

	w->tally.wrong_pages += !look(o, w, page, n, "before a poke");
	add(o, w, page, n);
	w->tally.pokes++;
}

static void pin(struct oracle *o, struct worker *w)
{
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads;
	uint64_t page = block(o) + random_below(&w->rng, block_pages(o) - PIN_PAGES);
	struct memctl_error e = { 0 };
	uint64_t pages[PIN_PAGES];
	int r = memctl_pin(o->ground.lease, o->words_offset + page * PAGE, PIN_PAGES * PAGE, &e);

	w->tally.pins++;
	if (r == -ENOMEM) {
		w->tally.pins_refused++;
		return;
	}
	/* what is pinned is never taken, whoever asks for it */
	for (unsigned i = 0; r == 0 && i < PIN_PAGES; i++)
		pages[i] = o->words_offset / PAGE + page + i;
	if (r == 0) {
		ssize_t given = memctl_balloon_inflate(o->ground.lease, pages, PIN_PAGES, NULL, &e);

		if (given)
			oracle_error(w, "memctl_balloon_inflate of pinned pages", &e, (int)given);
	}
	for (unsigned i = 0; i < PIN_PAGES; i++) {
		bool right = true;

		for (unsigned n = 0; n < mine; n++)
			right &= look(o, w, page + i, n, "while pinned");
		w->tally.verified_pages++;
		w->tally.wrong_pages += !right;
	}
	if (r == 0)
		r = memctl_unpin(o->ground.lease, o->words_offset + page * PAGE, PIN_PAGES * PAGE, &e);
	if (r < 0)
		oracle_error(w, "memctl_pin or memctl_unpin", &e, r);
}

static void keep_phase(struct oracle *o, struct worker *w)
{
	uint64_t now = now_ns(), phase = now / (o->phase_ms * 1000000ull);

	if (phase != w->phase) {
		if (w->phase)
			storm(o, w);
		w->phase = phase;
		reset(o, w, phase);
	}
	if (now >= w->next_poke_ns) {
		poke(o, w, block(o) + random_below(&w->rng, block_pages(o)));
		w->next_poke_ns = now + random_below(&w->rng, 2 * (w->index ? POKE_NS : NEEDLE_NS));
	}
	if (now >= w->next_pin_ns) {
		pin(o, w);
		w->next_pin_ns = now + random_below(&w->rng, 2 * PIN_NS);
	}
}

void words_needle(struct oracle *o, struct worker *w)
{
	uint64_t before = 0, pages;

	pause_from = o->words + block(o) * PAGE;
	pause_to = o->words + o->words_pages * PAGE;
	while (!o->stop) {
		keep_phase(o, w);
		pages = pause_pages;
		/* the window that is open: half of its pages, once */
		for (uint64_t i = random_below(&w->rng, 2); !before && i < pages && pause_pages; i += 2)
			poke(o, w, (pause_address - (uintptr_t)o->words) / PAGE + i);
		before = pages;
		usleep(200);
	}
}

void words_step(struct oracle *o, struct worker *w)
{
	uint64_t hot = atomic_fetch_add_explicit(&o->hot, 1, memory_order_relaxed) / 512;
	uint64_t page = random_below(&w->rng, 8) ? (hot * 37 + random_below(&w->rng, HOT_PAGES)) % block(o)
						 : random_below(&w->rng, block(o));
	unsigned mine = (WORDS - w->index + o->threads - 1) / o->threads;
	bool right = true;

	if (o->phase_ms)
		keep_phase(o, w);
	for (unsigned k = 0; k < BURST; k++) {
		unsigned n = (unsigned)random_below(&w->rng, mine);

		right &= look(o, w, page, n, "before an addition");
		add(o, w, page, n);
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
