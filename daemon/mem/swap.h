/* The swap file of a VM or a pool: one slot a page, preallocated, written directly.
 *
 * The file is O_TMPFILE with mode 0: it has no name, nobody can open it, and it goes with its last descriptor.  It
 * is really allocated when the VM registers (size - reservation), or the VM is refused: a full disk is
 * found before there is anything to lose; a pool's grows in extents, before a page enters the pool.  Direct I/O makes a write error known before the page is punched.  The
 * checksum of each slot lies in a memfd beside it and is verified before the page is used.
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

/* Slots for `size_bytes`, of which `ready_bytes` are set aside now.  File and checksums are kept for the owner; if they were found,
 * all slots are free until they are claimed. */
int swap_new(struct swap **ret, struct arena *a, struct account *payer, struct kept_owner owner, const char *dir,
	uint64_t size_bytes, uint64_t ready_bytes, bool sparse, struct problem *p);
void swap_free(struct swap *s);
/* Set aside so many slots in all, if they are not yet; slots beyond are not given out.  -ENOSPC, or what the disk says. */
int swap_grow(struct swap *s, uint64_t slots);

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

/* Write `count` pages (one iovec each, page-aligned) into neighbouring slots and wait until they are there.
 * 0 or -errno; on an error nothing may be assumed about the slots. */
int swap_write(struct swap *s, uint64_t first, struct iovec *pages, unsigned count);
/* Read and verify neighbouring slots into a page-aligned buffer.  -EBADMSG: a page does not match.  `direct` may be
 * NULL; otherwise the read is waited for without sleeping for up to `spin_us` (a guest waits for it). */
int swap_read(struct swap *s, uint64_t first, unsigned count, void *buf, struct direct *direct, unsigned spin_us);

/* What is set aside. */
uint64_t swap_size_bytes(struct swap *s);
uint64_t swap_used_slots(struct swap *s);
/* Whether the file system takes direct I/O; otherwise each write is followed by fdatasync. */
bool swap_is_direct(const struct swap *s);
struct segment *swap_map(const struct swap *s);
