/* What the kernel is, and how it is set: limits of mappings, huge pages, merging, io_uring. */
#include "cli/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MAPS_DEFAULT 65530	/* of the kernel; less is a decision of somebody's */
#define MAPS_GOOD    262144
#define MAPS_FIX     "sysctl -w vm.max_map_count=1048576 && echo 'vm.max_map_count = 1048576' > /etc/sysctl.d/60-memctl.conf"
#define HUGE	     "/sys/kernel/mm/transparent_hugepage"

static void look_at_maps(struct doctor *d)
{
	uint64_t n;

	if (!read_number(d, "/proc/sys/vm/max_map_count", &n)) {
		find(d, CHECK_max_map_count, STATE_INFORMATION, "/proc/sys/vm/max_map_count cannot be read.");
		return;
	}
	if (n >= MAPS_GOOD)
		find(d, CHECK_max_map_count, STATE_OK, "vm.max_map_count is %llu.", (unsigned long long)n);
	else
		find(d, CHECK_max_map_count, n < MAPS_DEFAULT ? STATE_FAILURE : STATE_WARNING,
			"vm.max_map_count is %llu: at most %llu runs of shared pages are mapped in an emulator%s.", (unsigned long long)n,
			(unsigned long long)n / 4 * 3 / 2, n < MAPS_DEFAULT ? ", and its own mmap may fail" : "");
	fix(d, CHECK_max_map_count, MAPS_FIX);
}

/* The word in brackets of a file that offers several. */
static bool chosen(const struct doctor *d, const char *path, char ret[32])
{
	char text[128], *from, *to;

	if (read_file(d, path, text, sizeof text) <= 0 || !(from = strchr(text, '[')) || !(to = strchr(from, ']')))
		return false;
	snprintf(ret, 32, "%.*s", (int)(to - from - 1), from + 1);
	return true;
}

static bool is_huge(const char *word)
{
	return !strcmp(word, "always") || !strcmp(word, "within_size") || !strcmp(word, "force");
}

/* The settings that are on, "name is word, ..."; and what turns them off. */
static void add_huge(const struct doctor *d, const char *path, char *said, char *typed, size_t bytes)
{
	size_t at = strlen(said), typed_at = strlen(typed);
	char word[32];

	if (!chosen(d, path, word) || !is_huge(word) || at > bytes - 128)
		return;
	snprintf(said + at, bytes - at, "%s%s is %s", at ? ", " : "", path, word);
	snprintf(typed + typed_at, bytes - typed_at, "%secho advise > %s", typed_at ? "; " : "", path);
}

static void look_at_huge_pages(struct doctor *d)
{
	char path[600], said[500] = "", typed[500] = "", word[32];
	struct dirent *e;
	DIR *dir;

	if (!chosen(d, HUGE "/shmem_enabled", word)) {
		find(d, CHECK_shmem_thp, STATE_OK, "This kernel has no huge pages of shared memory.");
		return;
	}
	add_huge(d, HUGE "/shmem_enabled", said, typed, sizeof said);
	snprintf(path, sizeof path, "%s" HUGE, d->root);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (strncmp(e->d_name, "hugepages-", 10))
			continue;
		snprintf(path, sizeof path, HUGE "/%s/shmem_enabled", e->d_name);
		add_huge(d, path, said, typed, sizeof said);
	}
	if (dir)
		closedir(dir);
	if (said[0])
		find(d, CHECK_shmem_thp, STATE_FAILURE, "%s: memctld refuses to start.", said);
	else
		find(d, CHECK_shmem_thp, STATE_OK, "shmem_enabled is %s.", word);
	fix(d, CHECK_shmem_thp, "%s", typed);
}

static void look_at_pagemap(struct doctor *d)
{
	char path[300];
	uint64_t word;
	int fd, r = 0;

	snprintf(path, sizeof path, "%s/proc/self/pagemap", d->root);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		r = errno;
	else if (pread(fd, &word, sizeof word, (off_t)((uintptr_t)&word / 4096 * sizeof word)) != sizeof word)
		r = errno ? errno : EIO;
	if (fd >= 0)
		close(fd);
	if (!r)
		find(d, CHECK_pagemap, STATE_OK, "/proc/self/pagemap can be read.");
	else
		find(d, CHECK_pagemap, STATE_WARNING, "/proc/self/pagemap cannot be read (%s): nothing of this user's VMs is shared.",
			strerror(r));
	fix(d, CHECK_pagemap, "mount -t proc proc /proc");
}

static void look_at_io_uring(struct doctor *d)
{
	uint64_t disabled = 0;
	char parameters[256] = { 0 };
	int fd = (int)syscall(SYS_io_uring_setup, 1, parameters), err = fd < 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	read_number(d, "/proc/sys/kernel/io_uring_disabled", &disabled);
	if (err)
		find(d, CHECK_io_uring, STATE_INFORMATION, "This user may not use io_uring (%s; kernel.io_uring_disabled is %llu).",
			strerror(err), (unsigned long long)disabled);
	else
		find(d, CHECK_io_uring, STATE_INFORMATION, "This user may use io_uring.");
}

void check_kernel(struct doctor *d)
{
	struct utsname u;

	if (uname(&u) == 0)
		find(d, CHECK_kernel, STATE_INFORMATION, "%s %s on %s.", u.sysname, u.release, u.machine);
	look_at_io_uring(d);
}

void check_memory(struct doctor *d)
{
	look_at_maps(d);
	look_at_huge_pages(d);
	look_at_pagemap(d);
}

enum merging { MERGING_NO, MERGING_ALL, MERGING_SOME, MERGING_HIDDEN };

/* Of a process.  Newer kernels say whether all of it is merged (PR_SET_MEMORY_MERGE), older ones what is being looked at. */
static enum merging merging_of(const struct doctor *d, long long pid)
{
	char path[64], text[1024];
	const char *items;
	int r;

	snprintf(path, sizeof path, "/proc/%lld/ksm_stat", pid);
	r = read_file(d, path, text, sizeof text);
	if (r == -EACCES || r == -EPERM)
		return MERGING_HIDDEN;
	if (r <= 0)
		return MERGING_NO;
	if (strstr(text, "ksm_merge_any: "))
		return strstr(text, "ksm_merge_any: yes") ? MERGING_ALL : MERGING_NO;
	items = strstr(text, "ksm_rmap_items ");
	return items && strcmp(items + 15, "0") && strncmp(items + 15, "0\n", 2) ? MERGING_SOME : MERGING_NO;
}

void check_merging(struct doctor *d)
{
	uint64_t run = 0;
	size_t hidden = 0;

	read_number(d, "/sys/kernel/mm/ksm/run", &run);
	for (size_t i = 0; i < d->n_vms; i++) {
		const struct doctor_vm *vm = &d->vms[i];
		enum merging m = merging_of(d, vm->pid);

		hidden += m == MERGING_HIDDEN;
		if (m != MERGING_ALL && m != MERGING_SOME)
			continue;
		if (m == MERGING_ALL && vm->has_pool && run == 1)
			find(d, CHECK_ksm, STATE_FAILURE,
				"KSM has been turned on for VM %s (process %lld) after it began to share: pages can be lost.",
				vm->name, vm->pid);
		else if (m == MERGING_ALL)
			find(d, CHECK_ksm, STATE_WARNING, "KSM is on for VM %s (process %lld)%s.", vm->name, vm->pid,
				vm->has_pool ? ", though ksmd does not run" : ": nothing of it is shared");
		else
			find(d, CHECK_ksm, STATE_INFORMATION, "KSM looks at memory of VM %s (process %lld); if that is all of it, nothing is shared.",
				vm->name, vm->pid);
	}
	if (hidden)
		find(d, CHECK_ksm, STATE_INFORMATION, "Of %zu VMs this user cannot see whether KSM is on for them: ask as root.", hidden);
	else
		find(d, CHECK_ksm, STATE_OK, "KSM is on for none of %zu VMs; ksmd %s.", d->n_vms, run == 1 ? "runs" : "does not run");
	if (run == 1)
		fix(d, CHECK_ksm, "echo 2 > /sys/kernel/mm/ksm/run  # no merging on this host; and start the emulator again");
	else
		fix(d, CHECK_ksm, "Start the emulator again without PR_SET_MEMORY_MERGE (systemd: MemoryKSM=no).");
}
