/* What a guest's kernel has beside the content of its pages: which of them are in use, and a balloon driver that gives
 * memctld those that are not.
 *
 *	used -- free --> freed (dirty: still full of what is worth nothing)
 *	freed, empty -- inflate --> ballooned -- deflate --> empty (zeros)
 *	freed, empty -- use --> used
 *
 * The driver is a thread that looks at its target a hundred times a second, and gives and takes back free pages only: it
 * never makes anybody give up a page that is used, and touches none that is in the balloon.
 *
 * Threads: the driver's own, and one that calls all of this; the pages that are used change in calls only. */
#pragma once

#include "libclient/memctl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum page_use { PAGE_USED, PAGE_FREED, PAGE_EMPTY, PAGE_BALLOONED };
#define PAGE_USES (PAGE_BALLOONED + 1)

struct driver {
	struct memctl *memctl;
	struct memctl_lease *lease;
	uint8_t *base;
	uint32_t pages;

	pthread_mutex_t lock;		/* use, count, refused */
	uint8_t *use;			/* page -> enum page_use */
	uint64_t *dirt;			/* page -> what its dirt is made of, while it is freed */
	uint32_t count[PAGE_USES];
	uint64_t refused;		/* pages that memctld did not want */

	pthread_t thread;
	bool running;
	atomic_bool stop;
};

/* All pages are used.  The lease may be NULL, then there is no driver. */
void driver_init(struct driver *d, struct memctl *m, struct memctl_lease *l, uint8_t *base, uint32_t pages);
void driver_fini(struct driver *d);
/* So many used pages, chosen at random, are freed, full of bytes that nothing compresses; how many it were. */
uint32_t driver_free(struct driver *d, uint32_t count, uint64_t seed);
/* One free page that is not in the balloon is used from now on; false: none was found at once. */
bool driver_take(struct driver *d, uint64_t *seed, uint32_t *ret_page);
/* This used page is free, full of bytes that nothing compresses. */
void driver_give(struct driver *d, uint32_t page, uint64_t *seed);
/* All free pages that are not in the balloon are used again: their numbers; the array is the caller's. */
uint32_t *driver_use(struct driver *d, uint32_t *ret_n);
/* The pages that are used; the array is the caller's. */
uint32_t *driver_used(struct driver *d, uint32_t *ret_n);
/* The driver is there.  One that refuses says so like any other, and gives nothing. */
void driver_start(struct driver *d, bool refuses);
/* Free pages that do not hold what was last there: their dirt, or zeros.  Ballooned ones are left alone. */
uint64_t driver_check(struct driver *d);
