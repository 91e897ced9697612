/* What test pages hold: a function of (seed, owner, page, sequence, kind), so that nobody has to keep a copy
 * and every byte of a page can be foretold.  Pages that are not zero say in their first bytes whose they
 * are, so that a wrong page tells where it came from. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CONTENT_PAGE 4096u

enum content_kind {
	CONTENT_ZERO,	/* all zero: dropped by eviction */
	CONTENT_TEXT,	/* words of a small dictionary: compresses about as real text does */
	CONTENT_SPARSE,	/* mostly zero: compresses very well */
	CONTENT_RANDOM,	/* does not compress: goes to the swap file */
	CONTENT_COMMON,	/* one of few pages that all owners have, often: shared.  See content_common() */
	CONTENT_KINDS,
};
extern const char *const content_kind_names[CONTENT_KINDS];
/* -1: no such kind. */
int content_kind_find(const char *name);

struct content {
	uint64_t seed;
	uint32_t owner;
	uint32_t kind;
	uint64_t page;
	uint64_t sequence;
};

/* A page of kind "common" is one of CONTENT_COMMONS, whoever owns it; this says which.  Neighbours of the same sequence
 * are neighbours there too, so what is shared comes in runs. */
#define CONTENT_COMMONS	     1024u
#define CONTENT_COMMON_OWNER UINT32_MAX
uint64_t content_common(uint64_t page, uint64_t sequence);

void content_make(uint8_t *ret_page, const struct content *c);
/* One of a fixed mix of kinds, chosen by `number`. */
enum content_kind content_mix(uint64_t number);
/* The same, of which so many percent are common. */
enum content_kind content_mix_common(uint64_t number, unsigned percent);
/* Whether the page is some page that content_make() made; *ret says which. */
bool content_identify(const uint8_t *page, struct content *ret);
/* Whether a page so identified may be an older or newer content of this page; *ret gets the sequence to believe. */
bool content_is_of(const struct content *is, const struct content *want, uint64_t *ret_sequence);
/* Into text: what is on `page` where `expected` should be. */
void content_explain(const uint8_t *page, const struct content *expected, char *ret, unsigned size);
bool content_is_zero(const uint8_t *page);

/* splitmix64: the one generator of all tests here, replayable from its seed. */
uint64_t random_next(uint64_t *state);
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	return n ? random_next(state) % n : 0;
}
