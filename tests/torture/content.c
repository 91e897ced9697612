#include "tests/torture/content.h"

#include <stdio.h>
#include <string.h>

#define TAG_MAGIC 0x6d656d63746c5067ull

/* At the start of every page that is not zero; the sequence stands again in the last 8 bytes, so that a
 * page torn in the middle is seen without knowing what was expected. */
struct tag {
	uint64_t magic;
	uint64_t seed;
	uint32_t owner;
	uint32_t kind;
	uint64_t page;
	uint64_t sequence;
	uint64_t checksum;	/* of the bytes between tag and tail */
};
#define TAIL (CONTENT_PAGE - sizeof(uint64_t))

const char *const content_kind_names[CONTENT_KINDS] = { "zero", "text", "sparse", "random", "common" };

int content_kind_find(const char *name)
{
	for (int i = 0; i < CONTENT_KINDS; i++)
		if (!strcmp(name, content_kind_names[i]))
			return i;
	return -1;
}

uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t checksum(const uint8_t *p, unsigned n)
{
	uint64_t sum = 0xcbf29ce484222325ull, v;

	for (unsigned i = 0; i + sizeof v <= n; i += sizeof v) {
		memcpy(&v, p + i, sizeof v);
		sum = (sum ^ v) * 0x100000001b3ull;
		sum ^= sum >> 29;
	}
	return sum;
}

static void make_text(uint8_t *p, unsigned n, uint64_t rng)
{
	static const char words[][12] = {
		"the ", "of ", "memory ", "page ", "and ", "to ", "a ", "in ", "is ", "frame ", "guest ", "that ",
		"it ", "for ", "with ", "host ", "as ", "was ", "be ", "which ", "by ", "on ", "not ", "this ",
		"kernel ", "fault ", "from ", "are ", "or ", "swap ", "when ", "one.\n", "two ", "write ", "read ",
		"balloon ", "because ", "before ", "at ", "an ", "has ", "lease ", "arena ", "who ", "after ",
		"zero ", "could ", "must ", "only ", "there ", "their ", "table ", "would ", "under ", "machine ",
		"process ", "virtual ", "number ", "thread ", "holds ", "again ", "never ", "while ", "other ",
	};
	unsigned at = 0;

	while (at < n) {
		uint64_t r = random_next(&rng);
		const char *w = words[(r & 63) & ((r >> 8) & 63)];	/* low numbers are more likely */
		unsigned len = (unsigned)strlen(w);
		char number[20];

		if (!((r >> 16) & 7)) {
			len = (unsigned)snprintf(number, sizeof number, "%u ", (unsigned)(r >> 40) % 100000);
			w = number;
		}
		if (len > n - at)
			len = n - at;
		memcpy(p + at, w, len);
		at += len;
	}
}

uint64_t content_common(uint64_t page, uint64_t sequence)
{
	return (page + 7 * sequence) % CONTENT_COMMONS;
}

/* What is in the tag: of common pages nothing that tells one owner's from another's. */
static struct content as_tagged(const struct content *c)
{
	if (c->kind != CONTENT_COMMON)
		return *c;
	return (struct content){ .seed = c->seed, .owner = CONTENT_COMMON_OWNER, .kind = c->kind,
		.page = c->owner == CONTENT_COMMON_OWNER ? c->page : content_common(c->page, c->sequence) };
}

void content_make(uint8_t *ret_page, const struct content *whose)
{
	struct content tagged = as_tagged(whose);
	const struct content *c = &tagged;
	struct tag tag = { .magic = TAG_MAGIC, .seed = c->seed, .owner = c->owner, .kind = c->kind,
		.page = c->page, .sequence = c->sequence };
	uint64_t rng = c->seed ^ ((uint64_t)c->owner << 48) ^ (c->page << 20) ^ c->sequence, v;
	uint8_t *body = ret_page + sizeof tag;
	unsigned n = TAIL - sizeof tag;

	memset(ret_page, 0, CONTENT_PAGE);
	if (c->kind == CONTENT_ZERO)
		return;
	rng = random_next(&rng);
	if (c->kind == CONTENT_TEXT || (c->kind == CONTENT_COMMON && c->page % 2))
		make_text(body, n, rng);
	else if (c->kind == CONTENT_SPARSE)
		for (unsigned i = 0; i < 8; i++) {
			v = random_next(&rng);
			memcpy(body + 8 * (v % (n / 8)), &v, sizeof v);
		}
	else
		for (unsigned i = 0; i + 8 <= n; i += 8) {
			v = random_next(&rng);
			memcpy(body + i, &v, sizeof v);
		}
	tag.checksum = checksum(body, n);
	memcpy(ret_page, &tag, sizeof tag);
	memcpy(ret_page + TAIL, &tag.sequence, sizeof tag.sequence);
}

enum content_kind content_mix(uint64_t number)
{
	unsigned r = (unsigned)(random_next(&number) % 100);

	return r < 12 ? CONTENT_ZERO : r < 52 ? CONTENT_TEXT : r < 72 ? CONTENT_SPARSE : CONTENT_RANDOM;
}

enum content_kind content_mix_common(uint64_t number, unsigned percent)
{
	return random_next(&number) % 100 < percent ? CONTENT_COMMON : content_mix(number);
}

bool content_is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, CONTENT_PAGE - 1);
}

bool content_identify(const uint8_t *page, struct content *ret)
{
	struct tag tag;
	uint64_t tail;

	memcpy(&tag, page, sizeof tag);
	memcpy(&tail, page + TAIL, sizeof tail);
	if (tag.magic != TAG_MAGIC || tail != tag.sequence ||
		tag.checksum != checksum(page + sizeof tag, TAIL - sizeof tag))
		return false;
	*ret = (struct content){ tag.seed, tag.owner, tag.kind, tag.page, tag.sequence };
	return true;
}

bool content_is_of(const struct content *is, const struct content *want, uint64_t *ret_sequence)
{
	*ret_sequence = is->sequence;
	if (is->kind != CONTENT_COMMON)
		return is->owner == want->owner && is->page == want->page;
	for (*ret_sequence = want->sequence; *ret_sequence < want->sequence + CONTENT_COMMONS; ++*ret_sequence)
		if (content_common(want->page, *ret_sequence) == is->page)
			return true;
	return false;
}

void content_explain(const uint8_t *page, const struct content *expected, char *ret, unsigned size)
{
	uint8_t want[CONTENT_PAGE];
	struct content c;
	unsigned differing = 0, first = CONTENT_PAGE;

	if (content_is_zero(page)) {
		snprintf(ret, size, "zeros");
		return;
	}
	if (content_identify(page, &c)) {
		snprintf(ret, size, "page %llu of owner %u, sequence %llu, %s, seed %llu", (unsigned long long)c.page,
			c.owner, (unsigned long long)c.sequence, content_kind_names[c.kind % CONTENT_KINDS],
			(unsigned long long)c.seed);
		return;
	}
	content_make(want, expected);
	for (unsigned i = CONTENT_PAGE; i-- > 0;)
		if (page[i] != want[i]) {
			differing++;
			first = i;
		}
	snprintf(ret, size, "no whole page: %u bytes differ, the first at %u", differing, first);
}
