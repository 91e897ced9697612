/* What the pages of a benchmark hold: a deterministic mix, the same for our side and for the kernel's.
 *
 *	25 % zero
 *	35 % common: the same bytes in every guest
 *	15 % duplicates inside a guest (each content four times)
 *	25 % unique
 *
 * Content that is not zero is 50 % executables, 30 % text (both taken from the corpus, real files of this
 * machine), 10 % heap-like words and 10 % random bytes; an 8 byte stamp in each page makes pages equal only
 * where the mix says so, and lets a reader check a page by one word.
 *
 * Where they lie is a matter of the layout, and another place in each guest:
 *
 *	mixed		anywhere
 *	runs		pages of a kind in runs of at least CONTENT_RUN; common pages, and the copies of
 *			duplicates, in the same order
 *	scattered	each second page has a twin somewhere, its neighbours (zero or unique) never do
 *	unique		anywhere, but every page is unique: nothing of the mix */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096ul
#define PAGE_WORDS (PAGE_BYTES / 8)

#define CONTENT_RUN 64u

enum content_layout { CONTENT_MIXED, CONTENT_RUNS, CONTENT_SCATTERED, CONTENT_UNIQUE };

struct content {
	const uint8_t *executables, *text;
	size_t executables_bytes, text_bytes;
	uint32_t *slots;	/* page -> place in the mix, a permutation of its own for each guest */
	uint32_t pages;
	uint32_t guest;
	enum content_layout layout;
};

/* splitmix64 of a counter: the one source of chance here. */
uint64_t chance(uint64_t *state);

/* `which` is the guest's number, which may be followed by a colon and a layout: "2:runs".  Exits with a message when
 * the corpus (made by corpus.py) cannot be read. */
void content_open(struct content *c, const char *corpus, const char *which, uint32_t pages);
bool content_is_zero(const struct content *c, uint32_t page);
/* Common or a duplicate: not zero, and the same somewhere else. */
bool content_has_twin(const struct content *c, uint32_t page);
void content_fill(const struct content *c, uint32_t page, void *at);
/* One word of the page tells whether it is the right one: which, and what it holds. */
size_t content_word(const struct content *c, uint32_t page);
uint64_t content_stamp(const struct content *c, uint32_t page);
bool content_stamped(const struct content *c, uint32_t page, const void *at);
void shuffle(uint32_t *a, size_t n, uint64_t seed);
