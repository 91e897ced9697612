/* Events that nobody sees happen, because the fault path and the workers only count: found once a second in the numbers. */
#pragma once

#include "mem/vm.h"
#include "policy/state.h"

#include <stdbool.h>
#include <stdint.h>

struct daemon;

/* Zero-initialised. */
struct event_watch {
	struct policy_told host;
	uint64_t metrics_dropped;
};

/* Of a VM: what its numbers were at the last look.  Zero-initialised. */
struct event_watch_vm {
	bool looked, blocked, trouble;
	uint64_t lost_bytes;
	uint64_t checksum_errors, swap_read_errors, swap_write_errors, foreign_pages, break_waits;
};

void event_watch_look(struct daemon *d);
