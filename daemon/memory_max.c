#include "memory_max.h"

#include <errno.h>

#define MIB (1ull << 20)

/* Measured under the unit: 1.5 MiB without VMs, and what the kernel caches of the history's file; for each lease 1.3 MiB when
 * it is idle and 1.7 in use: two threads, their buffers and compressors.  How many leases there will be nobody knows: one
 * for each 16 MiB of the arena is a host full of the smallest guests that make sense. */
#define BASE_BYTES	(32 * MIB)
#define LEASE_BYTES	(2 * MIB)
#define ARENA_OF_LEASE	(16 * MIB)
#define LEASES_MIN	16u

static uint64_t overhead_bytes(const struct config *c)
{
	uint64_t leases = c->arena_bytes / ARENA_OF_LEASE, most = (uint64_t)c->max_vms;

	leases = leases < most ? leases : most;
	return BASE_BYTES + (leases > LEASES_MIN ? leases : LEASES_MIN) * LEASE_BYTES;
}

uint64_t memory_need_bytes(const struct config *c)
{
	return c->arena_bytes + overhead_bytes(c);
}

uint64_t memory_max_bytes(const struct config *c)
{
	uint64_t need = memory_need_bytes(c);

	return (need + need / 10 + MIB - 1) / MIB * MIB;
}

enum memory_verdict memory_judge(const struct config *c, uint64_t limit_bytes, struct problem *p)
{
	uint64_t need = memory_need_bytes(c), max = memory_max_bytes(c);

	if (limit_bytes >= max)
		return MEMORY_FINE;
	problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, need, limit_bytes,
		"memctld's memory cgroup allows %llu MiB, an arena of %llu MiB needs %llu: if the arena was changed, type "
		"\"systemctl daemon-reload\"; else raise MemoryMax= of the unit, or the container's limit",
		(unsigned long long)(limit_bytes / MIB), (unsigned long long)(c->arena_bytes / MIB),
		(unsigned long long)(max / MIB));
	return limit_bytes < need ? MEMORY_TOO_LITTLE : MEMORY_TIGHT;
}
