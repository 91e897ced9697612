/* Pages and runs of pages: the units everything in mem/ counts in. */
#pragma once

#include <stdint.h>

#define PAGE_SIZE  4096ull
#define PAGE_SHIFT 12
/* The longest run handled in one go: it bounds how long a page stays locked (about 1 ms with compression);
 * measured, longer runs of system calls gain nothing. */
#define RUN_MAX 64u

struct run {
	uint64_t page;	/* first page within the lease */
	uint64_t count;
};
