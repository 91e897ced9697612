/* The host in esxtop's lines: PMEM is the machine, VMKMEM the arena, the others what is done with the VMs' memory. */
#include "cli/top.h"

#include <math.h>
#include <string.h>

/* Less than nothing is nothing: numbers that were not read at one moment, or averages. */
static double rest(double all, double part)
{
	return all > part ? all - part : isnan(all) || isnan(part) ? NAN : 0;
}

#define H(number)   s->host[HOST_##number]
#define SUM(number) top_sum(s, TOP_##number)
#define CELLS \
	CELL(pmem_total, "PMEM", "total", BYTES, H(memory_bytes), "memory of this machine") \
	CELL(pmem_arena, "PMEM", "arena", BYTES, H(charged_bytes), "of that, what the VMs' memory takes now") \
	CELL(pmem_other, "PMEM", "other", BYTES, rest(rest(H(memory_bytes), H(memory_available_bytes)), H(charged_bytes)), \
		"what everything else on this machine takes") \
	CELL(pmem_free, "PMEM", "free", BYTES, H(memory_available_bytes), "what programs could still get") \
	CELL(managed, "VMKMEM", "managed", BYTES, H(capacity_bytes), "the arena: the most that all VMs may take together") \
	CELL(minfree, "VMKMEM", "minfree", BYTES, H(min_free_bytes), "the scale of the states: below 64 % of it balloons are asked") \
	CELL(reserved, "VMKMEM", "rsvd", BYTES, H(reserved_bytes), "of the arena, what is promised to VMs") \
	CELL(unreserved, "VMKMEM", "ursvd", BYTES, rest(H(capacity_bytes), H(reserved_bytes)), "what is not") \
	CELL(arena_free, "VMKMEM", "free", BYTES, H(free_bytes), "what nobody has now") \
	CELL(pshare_shared, "PSHARE", "shared", BYTES, H(shared_bytes), "guest pages that are kept once for several") \
	CELL(pshare_common, "PSHARE", "common", BYTES, H(common_bytes), "what is kept for them") \
	CELL(pshare_saving, "PSHARE", "saving", BYTES, H(saving_bytes), "the difference") \
	CELL(swap_curr, "SWAP", "curr", BYTES, SUM(swapped_bytes), "guest memory on the disk") \
	CELL(swap_target, "SWAP", "rclmtgt", BYTES, rest(H(goal_free_bytes), H(free_bytes)), \
		"what reclaim has still to free, by sharing, balloons, compression or the disk") \
	CELL(swap_read, "SWAP", "r/s", BYTES_S, 4096 * SUM(swap_in_pages), "read from there in a second") \
	CELL(swap_written, "SWAP", "w/s", BYTES_S, 4096 * SUM(swap_out_pages), "written to there in a second") \
	CELL(zip_zipped, "ZIP", "zipped", BYTES, SUM(compressed_bytes), "guest memory that is compressed") \
	CELL(zip_saved, "ZIP", "saved", BYTES, rest(SUM(compressed_bytes), SUM(stored_bytes)), "what that saves") \
	CELL(mctl_curr, "MEMCTL", "curr", BYTES, SUM(ballooned_bytes), "guest memory in balloons") \
	CELL(mctl_target, "MEMCTL", "target", BYTES, SUM(balloon_target_bytes), "what should be there") \
	CELL(mctl_max, "MEMCTL", "max", BYTES, SUM(balloon_max_bytes), "the most that can be asked for") \
	CELL(overcommit_1, "MEM overcommit avg", "1min", RATIO, H(overcommit_1m_permille) / 1000, \
		"by how much the VMs' sizes exceed the arena: 0.50 is half as much again; over the last minute") \
	CELL(overcommit_5, "MEM overcommit avg", "5min", RATIO, H(overcommit_5m_permille) / 1000, "the last five minutes") \
	CELL(overcommit_15, "MEM overcommit avg", "15min", RATIO, H(overcommit_15m_permille) / 1000, "the last quarter of an hour")

#define CELL(function, group, name, kind, expression, help) \
	static double function(const struct top_sample *s) \
	{ \
		return expression; \
	}
CELLS
#undef CELL

#define CELL(function, group, name, kind, expression, help) { group, name, TOP_##kind, function, help },
const struct top_host_cell top_host_cells[] = { CELLS { NULL } };
#undef CELL

const char *top_state_words(const char *state)
{
	static const char *const words[][2] = {
		{ "high", "memory is ample" },
		{ "clear", "memory is ample enough: equal pages are looked for at once" },
		{ "soft", "memory is short: balloons are asked" },
		{ "hard", "memory is very short: pages are compressed and swapped" },
		{ "low", "memory is all but gone: VMs above their targets wait" },
	};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(words[i][0], state))
			return words[i][1];
	return "";
}
