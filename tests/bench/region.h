/* The memory that a benchmark's guest works on: a lease of memctld, a plain memfd, or anonymous memory that KSM may merge
 * or not.  Everything else is the same code, so that both sides of a comparison do the same. */
#pragma once

#include "libclient/memctl.h"

#include <stddef.h>
#include <stdint.h>

struct region {
	uint8_t *base;
	size_t bytes;
	struct memctl *memctl;		/* NULL: not a lease */
	struct memctl_lease *lease;
	size_t heap_before;		/* of this process, before the library took any */
};

#define REGION_USAGE "lease NAME [SOCKET [KEY=VALUE]...] | memfd | anon | mergeable"

/* `how` is the words of REGION_USAGE, and NULL.  Keys of a lease: reservation_mib, shares, sharing.  Exits with a message
 * when it cannot be had. */
void region_open(struct region *r, size_t bytes, char **how);
void region_close(struct region *r);
/* "full" and the like of a lease, "plain" of the rest. */
const char *region_faults(const struct region *r);
/* A plain memfd, mapped. */
uint8_t *map_memfd(size_t bytes);
