/* What the host says about itself: memory that is available, limits of our cgroup, page table sizes. */
#pragma once

#include <stdint.h>

/* Bytes that this process could still get: the smaller of MemAvailable and what its memory cgroup (v1 or v2,
 * with every ancestor) leaves.  UINT64_MAX if neither can be read. */
uint64_t host_available_bytes(void);

/* Of the machine: all of it, and what programs could still get; 0: cannot be read. */
void host_memory(uint64_t *ret_bytes, uint64_t *ret_available_bytes);

struct host_cgroup {
	uint64_t limit_bytes;	/* the least of our cgroup's and of all above it */
	uint64_t room_bytes;	/* the least that one of them leaves */
};
/* Of our memory cgroup (v1 or v2); UINT64_MAX: there is no limit, or none can be read. */
void host_cgroup(struct host_cgroup *ret);
