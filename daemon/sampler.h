/* The working set's clock: a few times a second it asks policy/activity of each VM what is due, and does it: zap random pages
 * of the VM, ask which of them are mapped again, or estimate from its faults.  It measures the stall share as well.
 *
 * Nothing here blocks or is waited for: a zap is sent, the answer to a look comes by itself (orders_present), and a VM has at
 * most one look under way; a library that is mute costs nothing more.  What is found out is told to the VM
 * (mem/vm.h: vm_tell), where reclaim and the operators' questions find it.
 *
 * What an answer says is the client's word.  A library that lies can only make its VM look busier than it is: it
 * is spared the idle tax, as a VM that really is busy would be, and is bound by shares, limit and reservation all the same.
 *
 * Control thread. */
#pragma once

#include "policy/activity.h"

#include <stdbool.h>
#include <stdint.h>

struct daemon;
struct sampler;

#define SAMPLER_STALLS 8		/* half seconds that the stall share is an average of */

/* What the sampler keeps of a VM: part of its client. */
struct sampler_vm {
	struct policy_activity activity;
	/* The sample, sorted; its leases are named, because they may be gone at the next look. */
	struct {
		uint32_t lease;
		uint32_t page;
		bool touched;
	} sample[POLICY_SAMPLE_PAGES];
	unsigned n_sample;
	unsigned from, to;		/* of these, those that are being asked about */
	bool looking;			/* a look is under way; */
	uint64_t order;			/* the one whose answer is awaited; 0: it is of a sample that is no more */
	uint64_t looked_ns;		/* when it was last looked at, or the sample was taken */
	uint64_t used;			/* what the counters of use said when the period began */
	uint64_t random;
	struct {
		uint64_t at_ns, stall_ns;
	} stalls[SAMPLER_STALLS];
	unsigned n_stalls, stall_permille;
};

int sampler_new(struct sampler **ret, struct daemon *d);
void sampler_free(struct sampler *s);
