#include "mem/host.h"

#include <stdio.h>
#include <string.h>

void host_memory(uint64_t *ret_bytes, uint64_t *ret_available_bytes)
{
	uint64_t total = 0, available = 0;
	char line[256];
	FILE *f = fopen("/proc/meminfo", "re");

	*ret_bytes = *ret_available_bytes = 0;
	if (!f)
		return;
	while (!available && fgets(line, sizeof line, f))
		if (sscanf(line, "MemTotal: %lu kB", &total) != 1)
			sscanf(line, "MemAvailable: %lu kB", &available);
	fclose(f);
	*ret_bytes = total * 1024;
	*ret_available_bytes = available * 1024;
}

static uint64_t meminfo_available(void)
{
	uint64_t total, available;

	host_memory(&total, &available);
	return available ? available : UINT64_MAX;
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

/* A cgroup directory and all above it, up to `root_len` characters of the path. */
static void look(struct host_cgroup *c, char *dir, size_t root_len, const char *limit_file, const char *usage_file)
{
	for (;;) {
		uint64_t limit = read_number(dir, limit_file), used = read_number(dir, usage_file);
		char *slash = strrchr(dir, '/');

		/* version 1 says "none" by a number of pages that nobody has */
		if (limit < UINT64_MAX / 4 && used != UINT64_MAX) {
			uint64_t left = limit > used ? limit - used : 0;

			c->limit_bytes = limit < c->limit_bytes ? limit : c->limit_bytes;
			c->room_bytes = left < c->room_bytes ? left : c->room_bytes;
		}
		if (!slash || (size_t)(slash - dir) < root_len)
			return;
		*slash = '\0';
	}
}

void host_cgroup(struct host_cgroup *ret)
{
	static const char v1_root[] = "/sys/fs/cgroup/memory", v2_root[] = "/sys/fs/cgroup";
	char line[400], dir[512];
	FILE *f = fopen("/proc/self/cgroup", "re");

	*ret = (struct host_cgroup){ UINT64_MAX, UINT64_MAX };
	if (!f)
		return;
	while (fgets(line, sizeof line, f)) {
		char *path;

		line[strcspn(line, "\n")] = '\0';
		if ((path = strstr(line, ":memory:"))) {
			snprintf(dir, sizeof dir, "%s%s", v1_root, path + strlen(":memory:"));
			look(ret, dir, sizeof v1_root - 1, "memory.limit_in_bytes", "memory.usage_in_bytes");
		} else if (!strncmp(line, "0::", 3)) {
			snprintf(dir, sizeof dir, "%s%s", v2_root, line + 3);
			look(ret, dir, sizeof v2_root - 1, "memory.max", "memory.current");
		}
	}
	fclose(f);
}

uint64_t host_available_bytes(void)
{
	uint64_t host = meminfo_available();
	struct host_cgroup c;

	host_cgroup(&c);
	return host < c.room_bytes ? host : c.room_bytes;
}
