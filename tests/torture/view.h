/* How the kernel sees a lease, from inside its client: the memfd behind the mapping, what data it holds, and
 * whether each of its mappings is registered. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A descriptor of this process for the file that [address, address+length) is mapped shared from: a lease, of which
 * pages may be mapped from a pool, privately.  Not the caller's to close.  -errno. */
int view_find_fd(const void *address, uint64_t length);
/* Print the runs of pages that hold data as a JSON array of [page, count]; number of pages, or -errno. */
int64_t view_print_data(FILE *to, int fd, uint64_t pages);
/* How many pages of [address, address+length) lie in no mapping, or in one without the flags `um` and `uw`
 * of smaps; *ret_mappings: in how many mappings the rest lies.  -errno. */
int64_t view_unregistered(const void *address, uint64_t length, unsigned *ret_mappings);
