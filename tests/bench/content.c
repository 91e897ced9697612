#include "content.h"
#include "measure.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_KEY 0ull

uint64_t chance(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void shuffle(uint32_t *a, size_t n, uint64_t seed)
{
	for (; n > 1; n--) {
		size_t j = chance(&seed) % n;
		uint32_t last = a[n - 1];

		a[n - 1] = a[j];
		a[j] = last;
	}
}

/* The mix in numbers of slots: zero pages up to the first bound, then common ones, duplicates, and unique ones. */
struct bounds {
	uint32_t zero, common, twice;
};

static struct bounds bounds(const struct content *c)
{
	uint64_t n = c->pages;

	if (c->layout == CONTENT_UNIQUE)
		return (struct bounds){ 0 };
	return (struct bounds){
		(uint32_t)(n * 25 / 100), (uint32_t)(n * 60 / 100), (uint32_t)(n * 75 / 100)
	};
}

/* How many contents the duplicates have, each four times. */
static uint32_t duplicates(struct bounds b)
{
	return (b.twice - b.common + 3) / 4;
}

/* ---- layouts ---- */

struct run {
	uint32_t first, count;
};

static uint32_t cut(struct run *runs, uint32_t n, uint32_t first, uint32_t end)
{
	uint64_t count = end - first, parts = count / CONTENT_RUN ? count / CONTENT_RUN : 1;

	for (uint64_t i = 0; i < parts; i++) {
		uint32_t from = (uint32_t)(count * i / parts), to = (uint32_t)(count * (i + 1) / parts);

		runs[n++] = (struct run){ first + from, to - from };
	}
	return n;
}

static void lay_runs(struct content *c, uint64_t seed)
{
	struct bounds b = bounds(c);
	struct run *runs = malloc((c->pages / CONTENT_RUN + 8) * sizeof *runs);
	uint32_t *order = malloc((c->pages / CONTENT_RUN + 8) * sizeof *order);
	uint32_t n, page = 0, each = duplicates(b);

	if (!runs || !order)
		die("memory for runs");
	n = cut(runs, 0, 0, b.zero);
	n = cut(runs, n, b.zero, b.common);
	for (uint32_t i = b.common; i < b.twice; i += each)
		n = cut(runs, n, i, i + each < b.twice ? i + each : b.twice);
	n = cut(runs, n, b.twice, c->pages);
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle(order, n, seed);
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < runs[order[i]].count; j++)
			c->slots[page++] = runs[order[i]].first + j;
	free(order);
	free(runs);
}

static void lay_scattered(struct content *c, uint64_t seed)
{
	struct bounds b = bounds(c);
	uint32_t twins = b.twice - b.zero, others = c->pages - twins, twin = 0, other = 0;
	uint32_t *order = malloc(c->pages * sizeof *order);

	/* both halves of the mix, each in an order of its own */
	if (!order)
		die("memory for an order of pages");
	for (uint32_t i = 0; i < twins; i++)
		order[i] = b.zero + i;
	for (uint32_t i = 0; i < others; i++)
		order[twins + i] = i < b.zero ? i : i + twins;
	shuffle(order, twins, seed);
	shuffle(order + twins, others, seed + 1);
	for (uint32_t i = 0; i < c->pages; i++)
		c->slots[i] = i % 2 == 0 && twin < twins ? order[twin++] : order[twins + other++];
	free(order);
}

static void lay_out(struct content *c)
{
	uint64_t seed = 0x51a7 + c->guest;

	c->slots = malloc(c->pages * sizeof *c->slots);
	if (!c->slots)
		die("memory for %u slots", c->pages);
	if (c->layout == CONTENT_RUNS) {
		lay_runs(c, seed);
	} else if (c->layout == CONTENT_SCATTERED) {
		if (c->pages % 4)
			die("%u pages: scattered content is for a multiple of 4", c->pages);
		lay_scattered(c, seed);
	} else {
		for (uint32_t i = 0; i < c->pages; i++)
			c->slots[i] = i;
		shuffle(c->slots, c->pages, seed);
	}
}

static enum content_layout layout_by_name(const char *name)
{
	static const char *const names[] = {
		[CONTENT_MIXED] = "mixed",
		[CONTENT_RUNS] = "runs",
		[CONTENT_SCATTERED] = "scattered",
		[CONTENT_UNIQUE] = "unique",
	};

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(name, names[i]))
			return i;
	die("no layout %s", name);
}

void content_open(struct content *c, const char *corpus, const char *which, uint32_t pages)
{
	int fd = open(corpus, O_RDONLY | O_CLOEXEC);
	const char *layout = strchr(which, ':');
	struct stat st;
	uint8_t *map;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("corpus %s", corpus);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (map == MAP_FAILED)
		die("map corpus %s", corpus);
	close(fd);
	/* corpus.py: three fifths executables, the rest text */
	c->executables = map;
	c->executables_bytes = (size_t)st.st_size / 5 * 3;
	c->text = map + c->executables_bytes;
	c->text_bytes = (size_t)st.st_size - c->executables_bytes;
	c->pages = pages;
	c->guest = (uint32_t)strtoul(which, NULL, 10);
	c->layout = layout ? layout_by_name(layout + 1) : CONTENT_MIXED;
	lay_out(c);
}

/* Which of the contents that are there four times: neighbours copy neighbours, or one. */
static uint32_t copy_of(const struct content *c, struct bounds b, uint32_t duplicate)
{
	return c->layout == CONTENT_RUNS ? duplicate % duplicates(b) : duplicate / 4;
}

/* Equal keys are equal pages; NO_KEY is the zero page. */
static uint64_t key_of(const struct content *c, uint32_t page)
{
	struct bounds b = bounds(c);
	uint32_t slot = c->slots[page];
	uint64_t own = (uint64_t)(c->guest + 1) << 40;
	uint64_t seed;

	if (slot < b.zero)
		return NO_KEY;
	if (slot < b.common)
		seed = slot;
	else if (slot < b.twice)
		seed = own | 1ull << 36 | copy_of(c, b, slot - b.common);
	else
		seed = own | slot;
	return chance(&seed) | 1;
}

static size_t stamp_word(uint64_t key)
{
	return chance(&key) % PAGE_WORDS;
}

bool content_is_zero(const struct content *c, uint32_t page)
{
	return key_of(c, page) == NO_KEY;
}

bool content_has_twin(const struct content *c, uint32_t page)
{
	struct bounds b = bounds(c);

	return c->slots[page] >= b.zero && c->slots[page] < b.twice;
}

static void fill_heap(uint64_t *words, uint64_t *state)
{
	uint64_t base = 0x7f0000000000ull + (chance(state) % 0xffff << 24);

	for (size_t i = 0; i < PAGE_WORDS; i++) {
		uint64_t r = chance(state);
		unsigned kind = (unsigned)(r >> 56) * 100 / 256;

		if (kind < 38)
			words[i] = 0;
		else if (kind < 66)
			words[i] = base + (r & 0xfffff0);	/* pointers of one heap */
		else if (kind < 84)
			words[i] = r & 63;			/* small numbers */
		else if (kind < 92)
			words[i] = 0x2100000001ull;		/* headers that repeat */
		else
			words[i] = 0x2020202020202020ull | (r & 0x4f4f4f4f4f4f4f4full);	/* short strings */
	}
}

void content_fill(const struct content *c, uint32_t page, void *at)
{
	uint64_t key = key_of(c, page), state = key ^ 0xc0ffee, *words = at;
	unsigned kind;

	if (key == NO_KEY) {
		memset(at, 0, PAGE_BYTES);
		return;
	}
	kind = (unsigned)(chance(&state) % 100);
	if (kind < 50)
		memcpy(at, c->executables + chance(&state) % ((c->executables_bytes - PAGE_BYTES) / 16) * 16,
			PAGE_BYTES);
	else if (kind < 80)
		memcpy(at, c->text + chance(&state) % (c->text_bytes - PAGE_BYTES), PAGE_BYTES);
	else if (kind < 90)
		fill_heap(words, &state);
	else
		for (size_t i = 0; i < PAGE_WORDS; i++)
			words[i] = chance(&state);
	words[stamp_word(key)] = key;
}

size_t content_word(const struct content *c, uint32_t page)
{
	uint64_t key = key_of(c, page);

	return key == NO_KEY ? page % PAGE_WORDS : stamp_word(key);
}

uint64_t content_stamp(const struct content *c, uint32_t page)
{
	return key_of(c, page);		/* that of the zero page is zero */
}

bool content_stamped(const struct content *c, uint32_t page, const void *at)
{
	const volatile uint64_t *words = at;

	return words[content_word(c, page)] == content_stamp(c, page);
}
