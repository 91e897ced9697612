#include "mem/host.h"

#include <stdio.h>
#include <string.h>

static uint64_t meminfo_available(void)
{
	uint64_t kib = UINT64_MAX / 1024;
	char line[256];
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1)
			break;
	fclose(f);
	return kib * 1024;
}

static uint64_t read_number(const char *dir, const char *file)
{
	uint64_t n = UINT64_MAX;
	char path[600];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	if (fscanf(f, "%lu", &n) != 1)
		n = UINT64_MAX; /* "max" */
	fclose(f);
	return n;
}

/* The room left in a cgroup directory and all above it, up to `root_len` characters of the path. */
static uint64_t room(char *dir, size_t root_len, const char *limit_file, const char *usage_file)
{
	uint64_t least = UINT64_MAX;

	for (;;) {
		uint64_t limit = read_number(dir, limit_file), used = read_number(dir, usage_file);
		char *slash = strrchr(dir, '/');

		if (limit != UINT64_MAX && used != UINT64_MAX) {
			uint64_t left = limit > used ? limit - used : 0;

			least = left < least ? left : least;
		}
		if (!slash || (size_t)(slash - dir) < root_len)
			return least;
		*slash = '\0';
	}
}

static uint64_t cgroup_available(void)
{
	static const char v1_root[] = "/sys/fs/cgroup/memory", v2_root[] = "/sys/fs/cgroup";
	uint64_t least = UINT64_MAX;
	char line[400], dir[512];
	FILE *f = fopen("/proc/self/cgroup", "re");

	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof line, f)) {
		char *path;
		uint64_t left;

		line[strcspn(line, "\n")] = '\0';
		if ((path = strstr(line, ":memory:"))) {
			snprintf(dir, sizeof dir, "%s%s", v1_root, path + strlen(":memory:"));
			left = room(dir, sizeof v1_root - 1, "memory.limit_in_bytes", "memory.usage_in_bytes");
		} else if (!strncmp(line, "0::", 3)) {
			snprintf(dir, sizeof dir, "%s%s", v2_root, line + 3);
			left = room(dir, sizeof v2_root - 1, "memory.max", "memory.current");
		} else {
			continue;
		}
		least = left < least ? left : least;
	}
	fclose(f);
	return least;
}

uint64_t host_available_bytes(void)
{
	uint64_t host = meminfo_available(), cgroup = cgroup_available();

	return host < cgroup ? host : cgroup;
}
