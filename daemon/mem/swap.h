/* The swap file of a VM or a pool: one slot a page, preallocated, written directly.
 *
 * The file is O_TMPFILE with mode 0: it has no name, nobody can open it, and it goes with its last descriptor.  It
 * is really allocated when the VM registers (size - reservation), or the VM is refused: a full disk is
 * found before there is anything to lose; it grows when the reservation is lowered.  A pool's grows in extents, before a page enters
 * the pool.  Direct I/O makes a write error known before the page is punched.  The checksum of each slot lies in a memfd beside it and
 * is verified before the page is used.  The number of the page that the slot is for goes into it: a word that was damaged into naming
 * another page's slot is found out as damaged content is.
 *
 * Threads: any.  The mutex covers the bitmap; reads and writes take none (whoever reads or writes a slot holds the
 * page's word). */
#pragma once

#include "mem/direct.h"
#include "mem/vm.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct swap;

struct swap_room {
	uint64_t size_bytes;		/* the most that it may grow to */
	uint64_t ready_bytes;		/* of these, set aside now */
	bool late;			/* with nothing set aside there is no file yet: swap_grow makes it */
	bool sparse;			/* tests only: nothing is really set aside */
};
/* File and checksums are kept for the owner; if they were found, all slots are free until they are claimed. */
int swap_new(struct swap **ret, struct arena *a, struct account *payer, struct kept_owner owner, const char *dir,
	const struct swap_room *room, struct problem *p);
void swap_free(struct swap *s);
/* Set aside so many slots in all, if they are not yet; slots beyond are not given out.  -ENOSPC, or what the disk says.  The first
 * time with a `late` one: control thread. */
int swap_grow(struct swap *s, uint64_t slots, struct problem *p);

/* Up to `want` neighbouring slots; *ret_first is the first.  How many (0: none left). */
unsigned swap_alloc(struct swap *s, unsigned want, uint64_t *ret_first);
void swap_release(struct swap *s, uint64_t first, unsigned count);

/* A word that was found refers to this slot.  false: there is none such. */
bool swap_claim(struct swap *s, uint64_t slot);
/* Whether two words have claimed it: nobody knows whose it is. */
bool swap_is_disputed(const struct swap *s, uint64_t slot);
bool swap_has_disputed(const struct swap *s);
/* All claims have been made, and no word refers to a disputed slot any more. */
void swap_claimed(struct swap *s);

/* The number of a page among all that a swap file may hold; those of neighbouring pages are neighbours. */
static inline uint64_t swap_number(uint16_t lease, uint64_t page)
{
	return (uint64_t)lease << 48 | page;
}
/* Write `count` pages (one iovec each, page-aligned; `numbers`: whose they are) into neighbouring slots and wait until they are
 * there.  0 or -errno; on an error nothing may be assumed about the slots. */
int swap_write(struct swap *s, uint64_t first, struct iovec *pages, const uint64_t *numbers, unsigned count);
/* Read and verify neighbouring slots, of neighbouring pages from `number` on, into a page-aligned buffer.  -EBADMSG: a page does not
 * match.  `direct` may be NULL; otherwise the read is waited for without sleeping for up to `spin_us` (a guest waits for it). */
int swap_read(struct swap *s, uint64_t first, uint64_t number, unsigned count, void *buf, struct direct *direct,
	unsigned spin_us);
/* A page that is wanted, and where. */
struct swap_page {
	uint64_t slot, number;
	void *to;
};
/* Read and verify many (at most RUN_MAX): neighbouring slots by one read, all reads under way at once.  How many, from the first on,
 * are right.  `direct` may be NULL. */
unsigned swap_read_pages(struct swap *s, struct direct *direct, const struct swap_page *pages, unsigned count);

/* What is set aside. */
uint64_t swap_size_bytes(struct swap *s);
uint64_t swap_used_slots(struct swap *s);
/* NULL: it has no file yet. */
struct segment *swap_map(const struct swap *s);
