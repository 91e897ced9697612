/* The whole-page oracle: each page says whose it is, which page, in which sequence, with a checksum; what it
 * must be now is kept outside of the lease, under a lock a page.  Every access compares all its bytes. */
#include "tests/torture/oracle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RUN_LONGEST 16u
#define SWEEP_PAGES 256u

int ground_init(struct ground *g, struct memctl_lease *l, uint64_t offset, uint64_t pages, uint64_t base)
{
	*g = (struct ground){ .lease = l, .addr = (uint8_t *)memctl_lease_address(l) + offset, .offset = offset,
		.pages = pages, .base = base };
	g->expect = calloc(pages, sizeof *g->expect);
	g->locks = calloc(pages, sizeof *g->locks);
	if (!g->expect || !g->locks) {
		ground_fini(g);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < pages; i++)
		pthread_mutex_init(&g->locks[i], NULL);
	return 0;
}

void ground_fini(struct ground *g)
{
	free(g->expect);
	free(g->locks);
	g->expect = NULL;
	g->locks = NULL;
}

/* Several locks are always taken upwards. */
static void lock(struct ground *g, uint64_t page, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		pthread_mutex_lock(&g->locks[page + i]);
}

static void unlock(struct ground *g, uint64_t page, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		pthread_mutex_unlock(&g->locks[page + i]);
}

static struct content expected(const struct oracle *o, const struct ground *g, uint64_t page)
{
	return (struct content){ .seed = o->seed, .owner = o->owner, .page = g->base + page,
		.sequence = g->expect[page] >> 3, .kind = (uint32_t)g->expect[page] & 7 };
}

/* The next content of the page into `ret`; it is what is expected from now on. */
static void advance(const struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint8_t *ret)
{
	uint64_t sequence = (g->expect[page] >> 3) + 1;
	struct content c;

	g->expect[page] = sequence << 3 | content_mix_common(random_next(&w->rng), o->common);
	c = expected(o, g, page);
	content_make(ret, &c);
}

/* Compare `found` with what the page must be.  After a difference the page is taken as it is, so that one
 * fault is counted once. */
static void compare(const struct oracle *o, struct worker *w, struct ground *g, uint64_t page, const uint8_t *found,
	const char *during)
{
	struct content want = expected(o, g, page), is;
	char text[160], wanted[160];
	uint64_t sequence;

	content_make(w->page, &want);
	w->tally.verified_pages++;
	if (!memcmp(found, w->page, CONTENT_PAGE))
		return;
	w->tally.wrong_pages++;
	memcpy(w->other, found, CONTENT_PAGE);
	content_explain(w->other, &want, text, sizeof text);
	snprintf(wanted, sizeof wanted, "sequence %llu, %s", (unsigned long long)want.sequence,
		content_kind_names[want.kind]);
	oracle_wrong(o, during, g->base + page, text, wanted);
	if (content_is_zero(w->other))
		g->expect[page] = want.sequence << 3 | CONTENT_ZERO;
	else if (content_identify(w->other, &is) && content_is_of(&is, &want, &sequence))
		g->expect[page] = sequence << 3 | is.kind;
}

static void verify(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, const char *during)
{
	compare(o, w, g, page, g->addr + page * PAGE, during);
}

static void rewrite(struct oracle *o, struct worker *w, struct ground *g, uint64_t page)
{
	advance(o, w, g, page, w->page);
	memcpy(g->addr + page * PAGE, w->page, PAGE);
	w->tally.writes++;
}

static void discard(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	struct memctl_error e = { 0 };
	int r;

	lock(g, page, n);
	r = memctl_discard(g->lease, g->offset + page * PAGE, n * PAGE, &e);
	if (r < 0)
		oracle_error(w, "memctl_discard", &e, r);
	for (uint64_t i = 0; r >= 0 && i < n; i++)
		g->expect[page + i] = ((g->expect[page + i] >> 3) + 1) << 3 | CONTENT_ZERO;
	if (random_below(&w->rng, 2))
		verify(o, w, g, page + random_below(&w->rng, n), "after a discard");
	unlock(g, page, n);
	w->tally.discards++;
}

/* The guest's balloon driver gives pages, and takes back some of them; the others stay in the balloon, until somebody touches them.
 * Refused pages are as they were, or zeros if the kernel had kept them. */
static void inflate(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	uint64_t pages[RUN_LONGEST], first = g->offset / PAGE + page, back = random_below(&w->rng, n + 1);
	uint8_t refused[RUN_LONGEST];
	struct memctl_error e = { 0 };
	ssize_t r;

	/* in any order */
	for (uint64_t i = 0, step = random_below(&w->rng, 2) ? 1 : n - 1; i < n; i++)
		pages[i] = first + (step == 1 ? i : n - 1 - i);
	lock(g, page, n);
	r = memctl_balloon_inflate(g->lease, pages, n, refused, &e);
	if (r < 0)
		oracle_error(w, "memctl_balloon_inflate", &e, (int)r);
	for (uint64_t i = 0; r >= 0 && i < n; i++) {
		uint64_t at = pages[i] - g->offset / PAGE;

		w->tally.balloon_refused += refused[i];
		if (!refused[i] || content_is_zero(g->addr + at * PAGE))
			g->expect[at] = ((g->expect[at] >> 3) + 1) << 3 | CONTENT_ZERO;
		else
			verify(o, w, g, at, "when the balloon refused it");
	}
	w->tally.inflates++;
	w->tally.inflated += r > 0 ? (uint64_t)r : 0;
	if (r >= 0 && back) {
		int gone = memctl_balloon_deflate(g->lease, pages, back, &e);

		w->tally.deflates++;
		if (gone < 0)
			oracle_error(w, "memctl_balloon_deflate", &e, gone);
		for (uint64_t i = 0; i < back; i++)
			verify(o, w, g, pages[i] - g->offset / PAGE, "out of the balloon");
		rewrite(o, w, g, pages[0] - g->offset / PAGE);
	}
	unlock(g, page, n);
}

/* A deflate takes nothing from anybody: of pages that are in the balloon, and of pages that are in use. */
static void deflate(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	uint64_t pages[RUN_LONGEST];
	struct memctl_error e = { 0 };
	int r;

	for (uint64_t i = 0; i < n; i++)
		pages[i] = g->offset / PAGE + page + i;
	/* without their locks, and now and then of all there are */
	if (random_below(&w->rng, 16)) {
		r = memctl_balloon_deflate(g->lease, pages, n, &e);
		w->tally.deflates++;
	} else {
		r = memctl_balloon_start(o->client, &e);
		w->tally.balloon_starts++;
	}
	if (r < 0)
		oracle_error(w, "memctl_balloon_deflate or memctl_balloon_start", &e, r);
}

static void hint(struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	struct memctl_error e = { 0 };
	bool need = random_below(&w->rng, 2);
	int r = need ? memctl_will_need(g->lease, g->offset + page * PAGE, n * PAGE, &e)
		     : memctl_dont_need(g->lease, g->offset + page * PAGE, n * PAGE, &e);

	w->tally.hints++;
	if (r < 0)
		oracle_error(w, need ? "memctl_will_need" : "memctl_dont_need", &e, r);
}

static void populate(struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	struct memctl_error e = { 0 };
	int r = memctl_populate(g->lease, g->offset + page * PAGE, n * PAGE, &e);

	w->tally.populates++;
	if (r < 0)
		oracle_error(w, "memctl_populate", &e, r);
}

static void pin(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	struct memctl_error e = { 0 };
	int r = memctl_pin(g->lease, g->offset + page * PAGE, n * PAGE, &e);

	w->tally.pins++;
	if (r == -ENOMEM) {
		w->tally.pins_refused++;
		return;
	}
	if (r < 0) {
		oracle_error(w, "memctl_pin", &e, r);
		return;
	}
	for (uint64_t i = 0; i < n; i++) {
		lock(g, page + i, 1);
		verify(o, w, g, page + i, "while pinned");
		rewrite(o, w, g, page + i);
		unlock(g, page + i, 1);
	}
	r = memctl_unpin(g->lease, g->offset + page * PAGE, n * PAGE, &e);
	if (r < 0)
		oracle_error(w, "memctl_unpin", &e, r);
}

static void sweep(struct oracle *o, struct worker *w, struct ground *g, uint64_t page)
{
	bool write = !random_below(&w->rng, 3);

	for (uint64_t n = 0; n < SWEEP_PAGES && page < g->pages && !o->stop; n++, page++) {
		lock(g, page, 1);
		verify(o, w, g, page, "in a sweep");
		if (write)
			rewrite(o, w, g, page);
		unlock(g, page, 1);
	}
	w->tally.sweeps++;
}

/* All of [offset, offset+length) through read(2) or read_into; false after an error was reported. */
static bool bring(struct worker *w, struct ground *g, uint64_t offset, uint64_t length, bool direct,
	bool out)
{
	uint64_t done = 0;

	while (done < length) {
		uint8_t *at = g->addr + offset + done;
		off_t file = (off_t)done;
		ssize_t r;

		if (direct)
			r = out ? pwrite(w->scratch, at, length - done, file) : pread(w->scratch, at, length - done, file);
		else if (out)
			r = memctl_write_from(g->lease, g->offset + offset + done, length - done, w->scratch, file);
		else
			r = memctl_read_into(g->lease, g->offset + offset + done, length - done, w->scratch, file);
		if (r <= 0) {
			oracle_error(w, direct ? "a system call on the lease" : out ? "memctl_write_from" : "memctl_read_into",
				NULL, direct && r < 0 ? -errno : (int)r);
			return false;
		}
		done += (uint64_t)r;
	}
	return true;
}

/* New content from a file, at page borders; or the content that is there already, at odd places. */
static void read_into(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	bool direct = o->full && random_below(&w->rng, 2), fresh = random_below(&w->rng, 2);
	uint64_t from = fresh ? 0 : random_below(&w->rng, PAGE), to = n * PAGE;
	struct content c;
	bool ready = true;

	if (!fresh)
		to -= random_below(&w->rng, PAGE - from);
	lock(g, page, n);
	for (uint64_t i = 0; i < n; i++) {
		if (fresh) {
			advance(o, w, g, page + i, w->page);
		} else {
			c = expected(o, g, page + i);
			content_make(w->page, &c);
		}
		/* The file begins with the first byte that is to be read. */
		uint64_t skip = i ? 0 : from;

		ready &= pwrite(w->scratch, w->page + skip, PAGE - skip, (off_t)(i * PAGE + skip - from)) ==
			(ssize_t)(PAGE - skip);
	}
	if (!ready)
		oracle_error(w, "pwrite of the scratch file", NULL, -EIO);
	ready = ready && bring(w, g, page * PAGE + from, to - from, direct, false);
	for (uint64_t i = 0; ready && i < n; i++)
		verify(o, w, g, page + i, direct ? "after read(2)" : "after read_into");
	unlock(g, page, n);
	w->tally.reads_into++;
	w->tally.system_calls += direct;
}

static void write_from(struct oracle *o, struct worker *w, struct ground *g, uint64_t page, uint64_t n)
{
	bool direct = o->full && random_below(&w->rng, 2);
	uint8_t found[CONTENT_PAGE];

	lock(g, page, n);
	if (bring(w, g, page * PAGE, n * PAGE, direct, true))
		for (uint64_t i = 0; i < n; i++)
			if (pread(w->scratch, found, PAGE, (off_t)(i * PAGE)) == (ssize_t)PAGE)
				compare(o, w, g, page + i, found, direct ? "by write(2)" : "by write_from");
	unlock(g, page, n);
	w->tally.writes_from++;
	w->tally.system_calls += direct;
}

/* Most accesses go to a moving quarter, the rest anywhere: both hot and cold pages exist. */
static uint64_t pick(struct oracle *o, struct worker *w, const struct ground *g)
{
	uint64_t quarter = g->pages / 4 ? g->pages / 4 : 1;

	if (random_below(&w->rng, 3))
		return (atomic_load_explicit(&o->hot, memory_order_relaxed) / 64 + random_below(&w->rng, quarter)) % g->pages;
	return random_below(&w->rng, g->pages);
}

void ground_step(struct oracle *o, struct worker *w, struct ground *g)
{
	uint64_t page = pick(o, w, g), n = 1 + random_below(&w->rng, RUN_LONGEST);
	unsigned what = (unsigned)random_below(&w->rng, 1000);

	if (n > g->pages - page)
		n = g->pages - page;
	if (what < 800) {
		lock(g, page, 1);
		verify(o, w, g, page, "at random");
		if (what < 480)
			rewrite(o, w, g, page);
		unlock(g, page, 1);
	} else if (what < 830) {
		discard(o, w, g, page, n);
	} else if (what < 850) {
		inflate(o, w, g, page, n);
	} else if (what < 855) {
		deflate(o, w, g, page, n);
	} else if (what < 890) {
		hint(w, g, page, n);
	} else if (what < 910) {
		populate(w, g, page, n);
	} else if (what < 930) {
		pin(o, w, g, page, n);
	} else if (what < 940) {
		sweep(o, w, g, page);
	} else if (what < 960) {
		read_into(o, w, g, page, n);
	} else if (what < 980) {
		write_from(o, w, g, page, n);
	} else if (o->zaps) {
		/* Drops the mapping, not the page: the content stays, unless the page is a private copy. */
		madvise(g->addr + page * PAGE, n * PAGE, MADV_DONTNEED);
		w->tally.zaps++;
	}
}

void ground_fill(struct oracle *o, struct worker *w, struct ground *g, uint64_t first, uint64_t step)
{
	for (uint64_t page = first; page < g->pages && !o->stop; page += step) {
		lock(g, page, 1);
		verify(o, w, g, page, "before the first write");
		rewrite(o, w, g, page);
		unlock(g, page, 1);
	}
}

void ground_verify(struct oracle *o, struct worker *w, struct ground *g, uint64_t first, uint64_t step)
{
	for (uint64_t page = first; page < g->pages; page += step) {
		lock(g, page, 1);
		verify(o, w, g, page, "at the end");
		unlock(g, page, 1);
	}
}
