#include "driver.h"

#include "content.h"
#include "measure.h"

#include <string.h>
#include <unistd.h>

#define LOOK_US 10000
#define PROBES	1000	/* for a free page */
#define BATCH	512u	/* pages given, or taken back, by one call */

static uint8_t *page_at(const struct driver *d, uint32_t page)
{
	return d->base + (size_t)page * PAGE_BYTES;
}

/* Under the lock. */
static void set_use(struct driver *d, uint32_t page, enum page_use use)
{
	d->count[d->use[page]]--;
	d->count[use]++;
	d->use[page] = use;
}

static void dirt_fill(uint64_t seed, void *at)
{
	uint64_t *words = at;

	for (size_t i = 0; i < PAGE_WORDS; i++)
		words[i] = chance(&seed);
}

void driver_init(struct driver *d, struct memctl *m, struct memctl_lease *l, uint8_t *base, uint32_t pages)
{
	*d = (struct driver){ .memctl = m, .lease = l, .base = base, .pages = pages, .count[PAGE_USED] = pages };
	d->use = calloc(pages, sizeof *d->use);
	d->dirt = calloc(pages, sizeof *d->dirt);
	if (!d->use || !d->dirt)
		die("memory for the state of %u pages", pages);
	pthread_mutex_init(&d->lock, NULL);
}

void driver_fini(struct driver *d)
{
	if (d->running) {
		atomic_store(&d->stop, true);
		pthread_join(d->thread, NULL);
	}
	pthread_mutex_destroy(&d->lock);
	free(d->use);
	free(d->dirt);
}

/* Up to `max` pages of this use, ascending.  Under the lock. */
static uint32_t find(const struct driver *d, enum page_use use, uint32_t *ret, uint32_t max)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < d->pages && n < max; i++)
		if (d->use[i] == use)
			ret[n++] = i;
	return n;
}

static uint32_t *all_of(struct driver *d, uint32_t *ret_n, enum page_use use)
{
	uint32_t *pages = malloc((d->pages + 1) * sizeof *pages);

	if (!pages)
		die("memory for a list");
	*ret_n = find(d, use, pages, d->pages);
	return pages;
}

uint32_t *driver_used(struct driver *d, uint32_t *ret_n)
{
	uint32_t *pages;

	pthread_mutex_lock(&d->lock);
	pages = all_of(d, ret_n, PAGE_USED);
	pthread_mutex_unlock(&d->lock);
	return pages;
}

void driver_give(struct driver *d, uint32_t page, uint64_t *seed)
{
	/* the dirt first: the driver is not to have the page while it is written */
	d->dirt[page] = chance(seed);
	dirt_fill(d->dirt[page], page_at(d, page));
	pthread_mutex_lock(&d->lock);
	set_use(d, page, PAGE_FREED);
	pthread_mutex_unlock(&d->lock);
}

bool driver_take(struct driver *d, uint64_t *seed, uint32_t *ret_page)
{
	bool found = false;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < PROBES && !found; i++) {
		uint32_t page = (uint32_t)(chance(seed) % d->pages);

		found = d->use[page] == PAGE_FREED || d->use[page] == PAGE_EMPTY;
		if (found) {
			set_use(d, page, PAGE_USED);
			*ret_page = page;
		}
	}
	pthread_mutex_unlock(&d->lock);
	return found;
}

uint32_t driver_free(struct driver *d, uint32_t count, uint64_t seed)
{
	uint32_t n, *pages = driver_used(d, &n);

	shuffle(pages, n, seed);
	n = n < count ? n : count;
	for (uint32_t i = 0; i < n; i++)
		driver_give(d, pages[i], &seed);
	free(pages);
	return n;
}

uint32_t *driver_use(struct driver *d, uint32_t *ret_n)
{
	uint32_t *pages, *empty, n;

	pthread_mutex_lock(&d->lock);
	pages = all_of(d, ret_n, PAGE_FREED);
	empty = all_of(d, &n, PAGE_EMPTY);
	memcpy(pages + *ret_n, empty, n * sizeof *pages);
	*ret_n += n;
	for (uint32_t i = 0; i < *ret_n; i++)
		set_use(d, pages[i], PAGE_USED);
	pthread_mutex_unlock(&d->lock);
	free(empty);
	return pages;
}

/* ---- the balloon ---- */

/* Under the lock, so that nobody uses them meanwhile. */
static uint32_t inflate(struct driver *d, uint32_t want)
{
	uint32_t pages[BATCH], n, taken = 0;
	uint64_t numbers[BATCH];
	uint8_t refused[BATCH] = { 0 };
	struct memctl_error e = { 0 };

	want = want < BATCH ? want : BATCH;
	n = find(d, PAGE_FREED, pages, want);
	n += find(d, PAGE_EMPTY, pages + n, want - n);
	for (uint32_t i = 0; i < n; i++)
		numbers[i] = pages[i];
	if (!n)
		return 0;
	if (memctl_balloon_inflate(d->lease, numbers, n, refused, &e) < 0)
		die("inflate %u pages: %s: %s", n, e.name, e.message);
	for (uint32_t i = 0; i < n; i++) {
		d->refused += refused[i];
		if (!refused[i])
			set_use(d, pages[i], PAGE_BALLOONED), taken++;
	}
	return taken;
}

static uint32_t deflate(struct driver *d, uint32_t want)
{
	uint32_t pages[BATCH], n = find(d, PAGE_BALLOONED, pages, want < BATCH ? want : BATCH);
	uint64_t numbers[BATCH];
	struct memctl_error e = { 0 };

	for (uint32_t i = 0; i < n; i++)
		numbers[i] = pages[i];
	if (!n)
		return 0;
	if (memctl_balloon_deflate(d->lease, numbers, n, &e) < 0)
		die("deflate %u pages: %s: %s", n, e.name, e.message);
	for (uint32_t i = 0; i < n; i++)
		set_use(d, pages[i], PAGE_EMPTY);
	return n;
}

static void *driver_main(void *arg)
{
	struct driver *d = arg;

	while (!atomic_load(&d->stop)) {
		uint64_t target = memctl_balloon_target(d->memctl) / PAGE_BYTES, has;
		uint32_t moved = 0;

		pthread_mutex_lock(&d->lock);
		has = d->count[PAGE_BALLOONED];
		if (target > has)
			moved = inflate(d, target - has < BATCH ? (uint32_t)(target - has) : BATCH);
		else if (target < has)
			moved = deflate(d, has - target < BATCH ? (uint32_t)(has - target) : BATCH);
		pthread_mutex_unlock(&d->lock);
		if (!moved)
			usleep(LOOK_US);
	}
	return NULL;
}

void driver_start(struct driver *d, bool refuses)
{
	struct memctl_error e = { 0 };

	if (!d->lease || d->running)
		die("no lease, or a driver already");
	if (memctl_balloon_start(d->memctl, &e) < 0)
		die("balloon: %s: %s", e.name, e.message);
	if (refuses)
		return;
	d->running = true;
	if (pthread_create(&d->thread, NULL, driver_main, d))
		die("thread");
}

/* ---- checking ---- */

uint64_t driver_check(struct driver *d)
{
	uint8_t expected[PAGE_BYTES];
	uint64_t wrong = 0;

	for (uint32_t i = 0; i < d->pages; i++) {
		pthread_mutex_lock(&d->lock);
		if (d->use[i] == PAGE_FREED)
			dirt_fill(d->dirt[i], expected);
		else
			memset(expected, 0, sizeof expected);
		if (d->use[i] == PAGE_FREED || d->use[i] == PAGE_EMPTY)
			wrong += memcmp(expected, page_at(d, i), PAGE_BYTES) != 0;
		pthread_mutex_unlock(&d->lock);
	}
	return wrong;
}
