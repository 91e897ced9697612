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

void content_open(struct content *c, const char *corpus, uint32_t guest, uint32_t pages)
{
	int fd = open(corpus, O_RDONLY | O_CLOEXEC);
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
	c->guest = guest;
	c->slots = malloc(pages * sizeof *c->slots);
	if (!c->slots)
		die("memory for %u slots", pages);
	for (uint32_t i = 0; i < pages; i++)
		c->slots[i] = i;
	shuffle(c->slots, pages, 0x51a7 + guest);
}

/* Equal keys are equal pages; NO_KEY is the zero page. */
static uint64_t key_of(const struct content *c, uint32_t page)
{
	uint64_t n = c->pages, slot = c->slots[page];
	uint64_t common = n * 25 / 100, twice = n * 60 / 100, unique = n * 75 / 100;
	uint64_t own = (uint64_t)(c->guest + 1) << 40;
	uint64_t seed;

	if (slot < common)
		return NO_KEY;
	if (slot < twice)
		seed = slot;
	else if (slot < unique)
		seed = own | 1ull << 36 | (slot - twice) / 4;
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

bool content_stamped(const struct content *c, uint32_t page, const void *at)
{
	uint64_t key = key_of(c, page);
	const volatile uint64_t *words = at;

	return key == NO_KEY ? words[page % PAGE_WORDS] == 0 : words[stamp_word(key)] == key;
}
