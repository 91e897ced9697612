/* The memory of the host and of memctld's cgroup: whether the arena fits, and whether the kernel would swap it. */
#include "doctor.h"

#include "mem/arena.h"

#include <stdio.h>
#include <string.h>

#define OVERHEAD_PCT 10		/* page tables, stacks and buffers beside the arena */
#define MIB	     (1ull << 20)
#define NO_LIMIT     (1ull << 60)	/* version 1 says "none" by a number near 2^63 */

/* The group whose memory limits hold for us. */
struct group {
	char dir[512];
	size_t top;			/* length of the hierarchy's own path */
	bool v2;
};

static bool find_group(const struct doctor *d, struct group *ret)
{
	char text[4096], *line, *save = NULL;
	bool found = false;

	if (doctor_read(d, "/proc/self/cgroup", text, sizeof text) <= 0)
		return false;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *v1 = strstr(line, ":memory:");
		const char *top = v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup", *path = v1 ? v1 + 8 : line + 3;

		/* where both are mounted, version 1 has the controller if it names it */
		if (!v1 && (found || strncmp(line, "0::", 3)))
			continue;
		*ret = (struct group){ .top = strlen(top), .v2 = !v1 };
		snprintf(ret->dir, sizeof ret->dir, "%s%s", top, strcmp(path, "/") ? path : "");
		found = true;
		if (v1)
			break;
	}
	return found;
}

/* The smallest number that `file` has in the group and those above it, and where.  false: nowhere a limit. */
static bool smallest(const struct doctor *d, const struct group *g, const char *file, uint64_t *ret, char ret_path[600])
{
	char dir[512], path[600];
	bool found = false;

	memcpy(dir, g->dir, sizeof dir);
	for (;;) {
		char *slash;
		uint64_t n;

		snprintf(path, sizeof path, "%s/%s", dir, file);
		if (doctor_number(d, path, &n) && n < NO_LIMIT && (!found || n < *ret)) {
			*ret = n;
			memcpy(ret_path, path, sizeof path);
			found = true;
		}
		slash = strrchr(dir, '/');
		if (!slash || (size_t)(slash - dir) < g->top)
			return found;
		*slash = 0;
	}
}

/* The unit whose group it is; "" if it is none's. */
static void unit_of(const char *path, char ret[128])
{
	const char *end = strstr(path, ".service/"), *from = end;

	ret[0] = 0;
	if (!end)
		return;
	while (from > path && from[-1] != '/')
		from--;
	snprintf(ret, 128, "%.*s", (int)(end - from + 8), from);
}

static void fix_group(struct doctor *d, enum doctor_id id, const char *path, const char *property, const char *value)
{
	char unit[128];

	unit_of(path, unit);
	if (unit[0])
		doctor_fix(d, id, "systemctl set-property %s %s=%s", unit, property, value);
	else
		doctor_fix(d, id, "echo %s > %s", value, path);
}

static void look_at_group(struct doctor *d, const struct group *g)
{
	uint64_t arena = d->view.arena_bytes, need = (arena + arena / 100 * OVERHEAD_PCT + MIB - 1) / MIB * MIB, max = 0, high = 0;
	char max_path[600], high_path[600], value[32];
	bool has_max = smallest(d, g, g->v2 ? "memory.max" : "memory.limit_in_bytes", &max, max_path);
	bool has_high = g->v2 && smallest(d, g, "memory.high", &high, high_path);

	snprintf(value, sizeof value, "%llu", (unsigned long long)need);
	if (has_max && max < need) {
		doctor_say(d, DOCTOR_cgroup_memory, max < arena ? DOCTOR_FAILURE : DOCTOR_WARNING, NULL,
			"%s allows %llu MiB; the arena is %llu MiB, and with what memctld needs beside it %llu MiB.", max_path,
			DOCTOR_MIB(max), DOCTOR_MIB(arena), DOCTOR_MIB(need));
		fix_group(d, DOCTOR_cgroup_memory, max_path, "MemoryMax", value);
	} else if (has_high && high < need) {
		doctor_say(d, DOCTOR_cgroup_memory, DOCTOR_WARNING, NULL,
			"%s slows memctld down from %llu MiB on; the arena and what memctld needs beside it are %llu MiB.", high_path,
			DOCTOR_MIB(high), DOCTOR_MIB(need));
		fix_group(d, DOCTOR_cgroup_memory, high_path, "MemoryHigh", value);
	} else if (has_max) {
		doctor_say(d, DOCTOR_cgroup_memory, DOCTOR_OK, NULL, "%s allows %llu MiB; arena and overhead are %llu MiB.", max_path,
			DOCTOR_MIB(max), DOCTOR_MIB(need));
	} else {
		doctor_say(d, DOCTOR_cgroup_memory, DOCTOR_OK, NULL, "No cgroup limits memctld's memory.");
	}
}

static bool swap_is_forbidden(const struct doctor *d, const struct group *g, char ret_path[600])
{
	uint64_t n;

	snprintf(ret_path, 600, "%s/%s", g->dir, g->v2 ? "memory.swap.max" : "memory.swappiness");
	if (g->v2)
		return smallest(d, g, "memory.swap.max", &n, (char[600]){ 0 }) && n == 0;
	return doctor_number(d, ret_path, &n) && n == 0;
}

static void look_at_swap(struct doctor *d, const struct group *g)
{
	uint64_t total_kib = 0, ours_kib = 0, mapped_kib = 0, group_bytes = 0;
	char path[600] = "", current[600];

	if (!doctor_keyed(d, "/proc/meminfo", "SwapTotal:", &total_kib)) {
		doctor_say(d, DOCTOR_host_swap, DOCTOR_INFORMATION, NULL, "/proc/meminfo does not say whether the host has swap space.");
	} else if (!total_kib) {
		doctor_say(d, DOCTOR_host_swap, DOCTOR_OK, NULL, "The host has no swap space.");
	} else if (g && swap_is_forbidden(d, g, path)) {
		doctor_say(d, DOCTOR_host_swap, DOCTOR_OK, NULL,
			"The host has %llu MiB of swap space, and memctld's cgroup may have none of it.",
			(unsigned long long)total_kib >> 10);
	} else {
		doctor_say(d, DOCTOR_host_swap, DOCTOR_WARNING, NULL,
			"The host has %llu MiB of swap space, and nothing keeps the kernel from putting the arena there.",
			(unsigned long long)total_kib >> 10);
		/* the topmost group has no such file */
		if (g && strlen(g->dir) > g->top)
			fix_group(d, DOCTOR_host_swap, path, "MemorySwapMax", "0");
		doctor_fix(d, DOCTOR_host_swap, "swapoff -a");
	}
	if (g && g->v2) {
		snprintf(current, sizeof current, "%s/memory.swap.current", g->dir);
		doctor_number(d, current, &group_bytes);
	}
	/* memory of memfds is not in VmSwap, and in a group of which we are not the only member others' is counted */
	doctor_keyed(d, "/proc/self/status", "VmSwap:", &ours_kib);
	doctor_keyed(d, "/proc/self/smaps_rollup", "Swap:", &mapped_kib);
	ours_kib = mapped_kib > ours_kib ? mapped_kib : ours_kib;
	if (ours_kib || (group_bytes && strstr(g->dir, "memctld")))
		doctor_say(d, DOCTOR_host_swapped, DOCTOR_FAILURE, "swapoff -a && swapon -a",
			"%llu MiB of memctld's memory are in the host's swap space.",
			DOCTOR_MIB((ours_kib << 10 > group_bytes ? ours_kib << 10 : group_bytes) + (1 << 20) - 1));
	else
		doctor_say(d, DOCTOR_host_swapped, DOCTOR_OK, NULL, "Nothing of memctld is in the host's swap space.");
}

static void look_at_memory(struct doctor *d)
{
	uint64_t missing = d->view.arena_bytes > d->view.charged_bytes ? d->view.arena_bytes - d->view.charged_bytes : 0;
	uint64_t kib, total_kib = 0, fits = 0;
	char value[32];

	doctor_keyed(d, "/proc/meminfo", "MemTotal:", &total_kib);
	if (!doctor_keyed(d, "/proc/meminfo", "MemAvailable:", &kib)) {
		doctor_say(d, DOCTOR_memory, DOCTOR_INFORMATION, NULL, "/proc/meminfo does not say how much memory is available.");
	} else if (kib << 10 < missing) {
		doctor_say(d, DOCTOR_memory, DOCTOR_FAILURE, NULL,
			"Of the arena's %llu MiB %llu are not taken yet, and the host has %llu MiB available.", DOCTOR_MIB(d->view.arena_bytes),
			DOCTOR_MIB(missing), (unsigned long long)kib >> 10);
		fits = (d->view.charged_bytes + (kib << 10)) / 10 * 9;
	} else if (total_kib && d->view.arena_bytes > (total_kib << 10) / 10 * 9) {
		doctor_say(d, DOCTOR_memory, DOCTOR_WARNING, NULL,
			"The arena is %llu MiB of the host's %llu MiB: the kernel and others have less than 10 %%.", DOCTOR_MIB(d->view.arena_bytes),
			(unsigned long long)total_kib >> 10);
		fits = (total_kib << 10) / 10 * 9;
	} else {
		doctor_say(d, DOCTOR_memory, DOCTOR_OK, NULL,
			"Of the arena's %llu MiB %llu are not taken yet; the host has %llu MiB available.", DOCTOR_MIB(d->view.arena_bytes),
			DOCTOR_MIB(missing), (unsigned long long)kib >> 10);
	}
	snprintf(value, sizeof value, "%lluM", DOCTOR_MIB(fits));
	doctor_fix_setting(d, DOCTOR_memory, "arena", value);
}

static void look_at_pages(struct doctor *d)
{
	struct problem p = { 0 };

	if (arena_probe_huge_pages(&p) < 0)
		doctor_say(d, DOCTOR_shmem_pages, DOCTOR_FAILURE,
			"echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled", "%s", p.text);
	else
		doctor_say(d, DOCTOR_shmem_pages, DOCTOR_OK, NULL, "One written page of a memfd takes one page.");
}

void doctor_look_at_memory(struct doctor *d)
{
	struct group g;
	bool found = find_group(d, &g);

	look_at_pages(d);
	look_at_memory(d);
	if (found)
		look_at_group(d, &g);
	else
		doctor_say(d, DOCTOR_cgroup_memory, DOCTOR_INFORMATION, NULL, "/proc/self/cgroup does not say which cgroup memctld is in.");
	look_at_swap(d, found ? &g : NULL);
}
