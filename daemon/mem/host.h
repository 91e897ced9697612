/* What the host says about itself: memory that is available, limits of our cgroup, page table sizes. */
#pragma once

#include <stdint.h>

/* Bytes that this process could still get: the smaller of MemAvailable and what its memory cgroup (v1 or v2,
 * with every ancestor) leaves.  UINT64_MAX if neither can be read. */
uint64_t host_available_bytes(void);
