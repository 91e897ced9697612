/* The guest of a benchmark: a region of memory that is filled, touched and checked at command.  The region is
 * a lease of memctld, a plain memfd or anonymous memory; everything else is the same code, so that both sides of
 * a comparison do the same.
 *
 *	guest CORPUS GUEST[:LAYOUT] MIB  lease NAME [SOCKET [KEY=VALUE]...]  |  memfd  |  anon  |  mergeable
 *
 * Keys of a lease: reservation_mib, shares, sharing.  mergeable: anonymous memory that KSM may merge.
 * Commands; FIRST and COUNT are pages:
 *	fill FIRST COUNT		write the content mix
 *	list FIRST COUNT WHICH SEED	take these pages in random order.  WHICH: any; data: those that are not zero;
 *					twin: those whose content is somewhere else too
 *	file PATH WHICH SEED		take the pages named in PATH, 32 bits each
 *	absent WHICH SEED		take the pages that are not mapped but swapped (anon)
 *	touch read|write N		time N accesses to the next pages of the list
 *	sequential FIRST COUNT		write one byte a page, in order; wall and CPU time
 *	stream FIRST COUNT		the same, but read it
 *	resident ACCESSES SLICES	random reads of the region and, in turns, of a plain memfd of its size
 *	zipf ACCESSES EXPONENT/100 SEED	accesses by rank; each page is checked by its stamp
 *	work MS SEED [CHURN]		for so long: random pages that are used, each compared as a whole, each fourth written to;
 *					with each thousand of them, so many pages are freed, and as many free ones filled and used
 *	grow COUNT CHECKS THREADS SEED	by so many threads, each its own part: fill page by page, and after each one compare
 *					so many of those that are filled
 *	churn MS THREADS SEED		by so many threads, for so long: random writes of the byte that `sequential` wrote
 *	free COUNT SEED			so many pages are used no more: full of random bytes, for the driver to give (driver.h)
 *	use				fill those that are free and not in the balloon: they are used again
 *	driver comply|refuse		start a balloon driver
 *	memory				how many pages are used, freed, empty, in the balloon, were refused
 *	verify STEP			compare each STEP-th page as a whole with what was filled, and then written; where
 *					pages are free, all of these
 *	touched				after `touch write` of fresh pages: are they zero but for that byte?
 *	discard FIRST COUNT		| cpu | heap | quit
 */
#include "content.h"
#include "driver.h"
#include "measure.h"
#include "region.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
	struct content content;
	struct region region;
	uint8_t *base;		/* the region's */
	uint32_t pages;
	struct driver driver;
	uint32_t *list;
	size_t list_n, next;
	uint8_t *written;	/* page -> since it was filled, by touch or sequential */
	uint8_t *twin;		/* plain memory beside a lease, for `resident` */
} g;

static void ok(void)
{
	printf("{\"ok\":true}\n");
	fflush(stdout);
}

/* ---- the region ---- */

static uint8_t *page_at(uint32_t page)
{
	return g.base + (size_t)page * PAGE_BYTES;
}

/* ---- lists of pages ---- */

static void list_reset(void)
{
	free(g.list);
	g.list = malloc((g.pages + 1) * sizeof *g.list);
	if (!g.list)
		die("memory for a list");
	g.list_n = g.next = 0;
}

static void list_finish(const char *which, const char *seed)
{
	bool data = !strcmp(which, "data"), twin = !strcmp(which, "twin");
	size_t n = 0;

	for (size_t i = 0; i < g.list_n; i++)
		if (data ? !content_is_zero(&g.content, g.list[i]) : !twin || content_has_twin(&g.content, g.list[i]))
			g.list[n++] = g.list[i];
	g.list_n = n;
	shuffle(g.list, g.list_n, number(seed));
	printf("{\"pages\":%zu}\n", g.list_n);
	fflush(stdout);
}

static void list_range(uint32_t first, uint32_t count)
{
	list_reset();
	for (uint32_t i = first; i < first + count && i < g.pages; i++)
		g.list[g.list_n++] = i;
}

static void list_file(const char *path)
{
	FILE *f = fopen(path, "re");

	list_reset();
	if (!f)
		die("%s", path);
	g.list_n = fread(g.list, sizeof *g.list, g.pages, f);
	fclose(f);
}

static void list_absent(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t words[512];

	list_reset();
	if (fd < 0)
		die("pagemap");
	for (uint32_t i = 0; i < g.pages; i += 512) {
		uint32_t n = g.pages - i < 512 ? g.pages - i : 512;

		if (pread(fd, words, n * 8, (off_t)((uintptr_t)page_at(i) / PAGE_BYTES * 8)) != (ssize_t)n * 8)
			die("read pagemap");
		for (uint32_t j = 0; j < n; j++)
			if (words[j] >> 62 & 1)
				g.list[g.list_n++] = i + j;
	}
	close(fd);
}

/* ---- measuring ---- */

static void touch(const char *how, size_t n)
{
	struct samples s = { 0 };
	char more[64];
	size_t left = g.list_n - g.next;
	bool write = !strcmp(how, "write");
	uint64_t cpu = cpu_ns();

	n = n < left ? n : left;
	touch_timed(g.base, g.list + g.next, n, write ? ACCESS_WRITE : ACCESS_READ, &s);
	for (size_t i = g.next; write && i < g.next + n; i++)
		g.written[g.list[i]] = 1;
	g.next += n;
	snprintf(more, sizeof more, ",\"cpu_s\":%.6f", (double)(cpu_ns() - cpu) / 1e9);
	samples_reply(&s, more);
	free(s.v);
}

static void timed_reply(uint64_t wall, uint64_t cpu, uint64_t pages)
{
	printf("{\"seconds\":%.9f,\"cpu_s\":%.9f,\"pages\":%" PRIu64 "}\n", (double)(now_ns() - wall) / 1e9,
		(double)(cpu_ns() - cpu) / 1e9, pages);
	fflush(stdout);
}

static void fill(uint32_t first, uint32_t count)
{
	uint64_t wall = now_ns(), cpu = cpu_ns();

	for (uint32_t i = first; i < first + count && i < g.pages; i++) {
		content_fill(&g.content, i, page_at(i));
		g.written[i] = 0;
	}
	timed_reply(wall, cpu, count);
}

static void sequential(uint32_t first, uint32_t count, enum access access)
{
	uint64_t wall = now_ns(), cpu = cpu_ns();

	for (uint32_t i = first; i < first + count && i < g.pages; i++) {
		volatile uint8_t *at = page_at(i) + TOUCH_OFFSET;

		if (access == ACCESS_READ) {
			(void)*at;
		} else {
			*at = 1;
			g.written[i] = 1;
		}
	}
	timed_reply(wall, cpu, count);
}

/* What the page must hold. */
static bool page_right(uint32_t page)
{
	uint8_t expected[PAGE_BYTES];

	content_fill(&g.content, page, expected);
	if (g.written[page])
		expected[TOUCH_OFFSET] = 1;
	return !memcmp(expected, page_at(page), PAGE_BYTES);
}

static void work_reply(uint64_t wall, uint64_t cpu, uint64_t pages, uint64_t wrong)
{
	printf("{\"seconds\":%.9f,\"cpu_s\":%.9f,\"pages\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n",
		(double)(now_ns() - wall) / 1e9, (double)(cpu_ns() - cpu) / 1e9, pages, wrong);
	fflush(stdout);
}

/* Of the pages that are used, one is freed, and another page is used in its place. */
static void replace(uint32_t *used, uint64_t *seed)
{
	uint32_t page;

	if (!driver_take(&g.driver, seed, &page))
		return;
	content_fill(&g.content, page, page_at(page));
	g.written[page] = 0;
	driver_give(&g.driver, *used, seed);
	*used = page;
}

static void work(uint64_t ms, uint64_t seed, uint64_t replaced)
{
	uint32_t n, *used = driver_used(&g.driver, &n);
	uint64_t wall = now_ns(), cpu = cpu_ns(), end = wall + ms * 1000000, pages = 0, wrong = 0;

	if (!n)
		die("no page is used");
	while (now_ns() < end) {
		for (unsigned i = 0; i < 20; i++, pages++) {
			uint32_t page = used[chance(&seed) % n];
			volatile uint8_t *at = page_at(page);

			wrong += !page_right(page);
			if (i % 4 == 0)
				*at = *at;	/* a write that leaves it right */
		}
		for (uint64_t i = (pages - 20) * replaced / 1000; i < pages * replaced / 1000; i++)
			replace(used + chance(&seed) % n, &seed);
	}
	free(used);
	work_reply(wall, cpu, pages, wrong);
}

struct grower {
	pthread_t thread;
	uint32_t first, count, checks;
	uint64_t seed, wrong;
};

static void *growing(void *arg)
{
	struct grower *w = arg;

	for (uint32_t i = 0; i < w->count; i++) {
		content_fill(&g.content, w->first + i, page_at(w->first + i));
		g.written[w->first + i] = 0;
		for (uint32_t j = 0; j < w->checks; j++)
			w->wrong += !page_right(w->first + (uint32_t)(chance(&w->seed) % (i + 1)));
	}
	return NULL;
}

/* The number of pages that it tells is of those that were compared. */
static void grow(uint32_t count, uint32_t checks, uint64_t threads, uint64_t seed)
{
	struct grower growers[8];
	uint64_t wall = now_ns(), cpu = cpu_ns(), wrong = 0;
	uint32_t part = count / (uint32_t)(threads ? threads : 1);

	if (!threads || threads > sizeof growers / sizeof *growers || count > g.pages)
		die("%" PRIu64 " threads, %u pages", threads, count);
	for (uint32_t i = 0; i < threads; i++) {
		growers[i] = (struct grower){ .first = i * part, .count = part, .checks = checks, .seed = seed * 8 + i };
		if (pthread_create(&growers[i].thread, NULL, growing, growers + i))
			die("thread");
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(growers[i].thread, NULL);
		wrong += growers[i].wrong;
	}
	work_reply(wall, cpu, (uint64_t)part * threads * checks, wrong);
}

struct churner {
	pthread_t thread;
	uint64_t seed, writes;
	atomic_bool *stop;
};

/* Stores that change nothing: whoever looks twice finds the page unchanged, and finds it written at once. */
static void *churning(void *arg)
{
	struct churner *c = arg;
	uint64_t x = c->seed * 2 + 1;

	while (!atomic_load_explicit(c->stop, memory_order_relaxed))
		for (unsigned i = 0; i < 256; i++, c->writes++) {
			x = x * 6364136223846793005ull + 1442695040888963407ull;
			*(volatile uint8_t *)(page_at((uint32_t)((x >> 32) % g.pages)) + TOUCH_OFFSET) = 1;
		}
	return NULL;
}

static void churn(uint64_t ms, uint64_t threads, uint64_t seed)
{
	struct churner churners[8];
	atomic_bool stop = false;
	uint64_t wall = now_ns(), cpu = cpu_ns(), writes = 0;

	if (threads > sizeof churners / sizeof *churners)
		die("%" PRIu64 " threads", threads);
	for (uint64_t i = 0; i < threads; i++) {
		churners[i] = (struct churner){ .seed = seed * 8 + i, .stop = &stop };
		if (pthread_create(&churners[i].thread, NULL, churning, churners + i))
			die("thread");
	}
	usleep((useconds_t)ms * 1000);
	atomic_store(&stop, true);
	for (uint64_t i = 0; i < threads; i++) {
		pthread_join(churners[i].thread, NULL);
		writes += churners[i].writes;
	}
	timed_reply(wall, cpu, writes);
}

/* Reads that each wait for the one before, so that the time is the memory's and not the loop's. */
static uint64_t random_reads(const uint8_t *base, uint64_t n, uint64_t seed)
{
	uint64_t before = now_ns(), x = seed;

	for (uint64_t i = 0; i < n; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		x += *(const volatile uint8_t *)(base + (x >> 20) % ((uint64_t)g.pages * PAGE_BYTES));
	}
	return now_ns() - before;
}

static void resident(uint64_t accesses, uint64_t slices)
{
	size_t bytes = (size_t)g.pages * PAGE_BYTES;
	uint64_t ours = 0, plain = 0;

	if (!g.twin) {
		g.twin = map_memfd(bytes);
		for (uint32_t i = 0; i < g.pages; i++)
			memcpy(g.twin + (size_t)i * PAGE_BYTES, page_at(i), PAGE_BYTES);
	}
	for (uint64_t i = 0; i < slices; i++) {
		/* who goes first alternates: neither finds the other's cache lines more often */
		if (i & 1)
			plain += random_reads(g.twin, accesses / slices, i);
		ours += random_reads(g.base, accesses / slices, i);
		if (!(i & 1))
			plain += random_reads(g.twin, accesses / slices, i);
	}
	printf("{\"ns\":%.4f,\"plain_ns\":%.4f}\n", (double)ours / (double)accesses,
		(double)plain / (double)accesses);
	fflush(stdout);
}

/* Rank r is touched in proportion to 1 / (r + 1)^exponent; ranks are dealt to the pages at random. */
static void zipf(uint64_t accesses, double exponent, uint64_t seed)
{
	double *sum = malloc(g.pages * sizeof *sum);
	uint32_t *page = malloc(g.pages * sizeof *page);
	uint64_t wrong = 0, wall;

	if (!sum || !page)
		die("memory for a zipf load");
	for (uint32_t i = 0; i < g.pages; i++) {
		page[i] = i;
		sum[i] = (i ? sum[i - 1] : 0) + pow(i + 1, -exponent);
	}
	shuffle(page, g.pages, 4711);
	wall = now_ns();
	for (uint64_t i = 0; i < accesses; i++) {
		double x = (double)(chance(&seed) >> 11) / 0x1p53 * sum[g.pages - 1];
		uint32_t low = 0, high = g.pages - 1;

		while (low < high) {
			uint32_t middle = (low + high) / 2;

			if (sum[middle] < x)
				low = middle + 1;
			else
				high = middle;
		}
		wrong += !content_stamped(&g.content, page[low], page_at(page[low]));
	}
	printf("{\"seconds\":%.6f,\"wrong\":%" PRIu64 "}\n", (double)(now_ns() - wall) / 1e9, wrong);
	fflush(stdout);
	free(sum);
	free(page);
}

/* ---- checking ---- */

static void checked_reply(uint64_t pages, uint64_t wrong)
{
	printf("{\"pages\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", pages, wrong);
	fflush(stdout);
}

static void verify(uint32_t step)
{
	uint32_t n, *used = driver_used(&g.driver, &n);
	uint64_t checked = 0, wrong = 0;

	for (uint32_t i = 0; i < n; i += step, checked++)
		wrong += !page_right(used[i]);
	free(used);
	if (n < g.pages)
		wrong += driver_check(&g.driver);
	checked_reply(checked, wrong);
}

/* ---- what is free ---- */

static void use_again(void)
{
	uint32_t n, *pages = driver_use(&g.driver, &n);
	uint64_t wall = now_ns(), cpu = cpu_ns();

	for (uint32_t i = 0; i < n; i++) {
		content_fill(&g.content, pages[i], page_at(pages[i]));
		g.written[pages[i]] = 0;
	}
	free(pages);
	timed_reply(wall, cpu, n);
}

static void tell_memory(void)
{
	struct driver *d = &g.driver;

	pthread_mutex_lock(&d->lock);
	printf("{\"used\":%u,\"freed\":%u,\"empty\":%u,\"ballooned\":%u,\"refused\":%" PRIu64 "}\n", d->count[PAGE_USED],
		d->count[PAGE_FREED], d->count[PAGE_EMPTY], d->count[PAGE_BALLOONED], d->refused);
	pthread_mutex_unlock(&d->lock);
	fflush(stdout);
}

static void verify_touched(void)
{
	uint8_t expected[PAGE_BYTES] = { [TOUCH_OFFSET] = 1 };
	uint64_t wrong = 0;

	for (size_t i = 0; i < g.next; i++)
		wrong += memcmp(expected, page_at(g.list[i]), PAGE_BYTES) != 0;
	checked_reply(g.next, wrong);
}

static void discard(uint32_t first, uint32_t count)
{
	struct memctl_error e = { 0 };
	size_t offset = (size_t)first * PAGE_BYTES, bytes = (size_t)count * PAGE_BYTES;

	if (g.region.lease ? memctl_discard(g.region.lease, offset, bytes, &e) < 0 :
		      madvise(g.base + offset, bytes, MADV_REMOVE) < 0 &&
				madvise(g.base + offset, bytes, MADV_DONTNEED) < 0)
		die("discard: %s", e.message);
	ok();
}

static int command(unsigned n, char **w)
{
	if (!strcmp(w[0], "fill") && n == 3) {
		fill((uint32_t)number(w[1]), (uint32_t)number(w[2]));
	} else if (!strcmp(w[0], "list") && n == 5) {
		list_range((uint32_t)number(w[1]), (uint32_t)number(w[2]));
		list_finish(w[3], w[4]);
	} else if (!strcmp(w[0], "file") && n == 4) {
		list_file(w[1]);
		list_finish(w[2], w[3]);
	} else if (!strcmp(w[0], "absent") && n == 3) {
		list_absent();
		list_finish(w[1], w[2]);
	} else if (!strcmp(w[0], "touch") && n == 3) {
		touch(w[1], number(w[2]));
	} else if (!strcmp(w[0], "sequential") && n == 3) {
		sequential((uint32_t)number(w[1]), (uint32_t)number(w[2]), ACCESS_WRITE);
	} else if (!strcmp(w[0], "stream") && n == 3) {
		sequential((uint32_t)number(w[1]), (uint32_t)number(w[2]), ACCESS_READ);
	} else if (!strcmp(w[0], "resident") && n == 3) {
		resident(number(w[1]), number(w[2]));
	} else if (!strcmp(w[0], "zipf") && n == 4) {
		zipf(number(w[1]), (double)number(w[2]) / 100, number(w[3]));
	} else if (!strcmp(w[0], "work") && n == 3) {
		work(number(w[1]), number(w[2]), 0);
	} else if (!strcmp(w[0], "work") && n == 4) {
		work(number(w[1]), number(w[2]), number(w[3]));
	} else if (!strcmp(w[0], "grow") && n == 5) {
		grow((uint32_t)number(w[1]), (uint32_t)number(w[2]), number(w[3]), number(w[4]));
	} else if (!strcmp(w[0], "free") && n == 3) {
		printf("{\"pages\":%u}\n", driver_free(&g.driver, (uint32_t)number(w[1]), number(w[2])));
		fflush(stdout);
	} else if (!strcmp(w[0], "use") && n == 1) {
		use_again();
	} else if (!strcmp(w[0], "driver") && n == 2) {
		driver_start(&g.driver, !strcmp(w[1], "refuse"));
		ok();
	} else if (!strcmp(w[0], "memory") && n == 1) {
		tell_memory();
	} else if (!strcmp(w[0], "churn") && n == 4) {
		churn(number(w[1]), number(w[2]), number(w[3]));
	} else if (!strcmp(w[0], "verify") && n == 2) {
		verify((uint32_t)number(w[1]));
	} else if (!strcmp(w[0], "touched") && n == 1) {
		verify_touched();
	} else if (!strcmp(w[0], "discard") && n == 3) {
		discard((uint32_t)number(w[1]), (uint32_t)number(w[2]));
	} else if (!strcmp(w[0], "cpu") && n == 1) {
		printf("{\"cpu_s\":%.9f}\n", (double)cpu_ns() / 1e9);
		fflush(stdout);
	} else if (!strcmp(w[0], "heap") && n == 1) {
		printf("{\"bytes\":%zu}\n", mallinfo2().uordblks - g.region.heap_before);
		fflush(stdout);
	} else {
		if (strcmp(w[0], "quit"))
			die("unknown command %s with %u words", w[0], n);
		return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	char line[512], *words[WORDS_MAX];
	unsigned n;

	if (argc < 5)
		die("usage: guest CORPUS GUEST[:LAYOUT] MIB " REGION_USAGE);
	follow_parent();
	g.pages = (uint32_t)(number(argv[3]) << 20 >> 12);
	g.written = calloc(g.pages, 1);
	if (!g.written)
		die("memory for %u pages", g.pages);
	if (strcmp(argv[1], "-"))
		content_open(&g.content, argv[1], argv[2], g.pages);
	region_open(&g.region, (size_t)g.pages * PAGE_BYTES, argv + 4);
	g.base = g.region.base;
	driver_init(&g.driver, g.region.memctl, g.region.lease, g.base, g.pages);
	printf("{\"ok\":true,\"faults\":\"%s\"}\n", region_faults(&g.region));
	fflush(stdout);
	while ((n = command_read(line, sizeof line, words)) && command(n, words))
		;
	driver_fini(&g.driver);
	region_close(&g.region);
	return 0;
}
