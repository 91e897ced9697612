/* What the memory cgroup of memctld must allow: MemoryMax= of its unit.
 *
 * The arena, every frame of which counts in our cgroup because we are who fills it, and the overhead: what the process itself
 * takes, with the kernel's part of it.  A cgroup at its limit kills memctld and not the guest that asks, so the unit gets a tenth
 * more than both.  The unit cannot know the arena: a generator (systemd/memctl-generator.in) asks for the number at boot and at
 * daemon-reload (--memory-max), and memctld looks at its start whether that was before somebody changed the arena. */
#pragma once

#include "base/problem.h"
#include "config.h"

#include <stdbool.h>
#include <stdint.h>

/* Arena and overhead. */
uint64_t memory_need_bytes(const struct config *c);
/* A tenth more, in whole MiB. */
uint64_t memory_max_bytes(const struct config *c);

enum memory_verdict {
	MEMORY_FINE,
	MEMORY_TIGHT,		/* less than the tenth is left, as it is when the arena has grown since the limit was set */
	MEMORY_TOO_LITTLE,	/* less than arena and overhead */
};

/* Whether a cgroup with this limit (UINT64_MAX: none) can hold us; the sentence in p says what to type. */
enum memory_verdict memory_judge(const struct config *c, uint64_t limit_bytes, struct problem *p);
