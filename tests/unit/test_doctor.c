/* What memctld finds wrong with a host: doctor.h, shown a host that is set up so, and its twin that is well. */
#include "tests/lib/check.h"
#include "doctor.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/statfs.h>
#include <sched.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define MIB (1ull << 20)

/* ---- another host ---- */

static char root[64];
static struct doctor doctor;
static struct doctor_vm vms[4];

static void put(const char *path, const char *fmt, ...)
{
	char full[300], text[2000];
	va_list ap;
	FILE *f;

	snprintf(full, sizeof full, "%s%s", root, path);
	for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(full, 0755);
		*slash = '/';
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	f = fopen(full, "w");
	CHECK_MSG(f && fputs(text, f) >= 0 && fclose(f) == 0, "cannot write %s", full);
}

/* A fresh one without files, with a memctld on it that is well. */
static void begin(void)
{
	static bool made;

	if (!made) {
		snprintf(root, sizeof root, "/tmp/memctl-doctor-XXXXXX");
		CHECK(mkdtemp(root) != NULL);
		made = true;
	}
	memset(vms, 0, sizeof vms);
	doctor_init(&doctor, root);
	doctor.view = (struct doctor_view){ .arena_bytes = 1000 * MIB, .charged_bytes = 200 * MIB, .metrics = "none",
		.client_hold_limit_s = 30, .reconnect_grace_s = 300, .managed = true, .keeps = true, .watchdog_ns = 30000000000, .uid = 100,
		.vms = vms };
}

static void remove_root(void)
{
	char command[100];

	snprintf(command, sizeof command, "rm -rf %s", root);
	CHECK(system(command) == 0);
}

#define FOUND(id, wanted, word) do { \
	const struct doctor_finding *f_ = &doctor.findings[DOCTOR_##id]; \
	CHECK_MSG(f_->state == DOCTOR_##wanted && strstr(f_->text, word), #id " is %s: %s", doctor_state_name(f_->state), f_->text); \
	CHECK_MSG((f_->fix[0] != 0) == (f_->state > DOCTOR_INFORMATION) || f_->state == DOCTOR_INFORMATION, #id " (%s) has fix \"%s\"", \
		doctor_state_name(f_->state), f_->fix); \
} while (0)
#define FIX(id, word) CHECK_MSG(strstr(doctor.findings[DOCTOR_##id].fix, word), #id ": %s", doctor.findings[DOCTOR_##id].fix)

/* ---- what memctld knows ---- */

static void who_starts_it_again(void)
{
	begin();
	doctor_look_at_self(&doctor);
	FOUND(restarter, OK, "service manager");
	FOUND(watchdog, OK, "30 s");
	begin();
	doctor.view.managed = false;
	doctor.view.watchdog_ns = 0;
	put("/proc/self/cmdline", "memctld");
	doctor_look_at_self(&doctor);
	FOUND(restarter, FAILURE, "wait for ever");
	FIX(restarter, "memctld --supervise &");
	FOUND(watchdog, WARNING, "no watchdog");
	begin();
	doctor.view.keeps = false;
	doctor_look_at_self(&doctor);
	FOUND(restarter, FAILURE, "keeps no descriptors");
	FIX(restarter, "FileDescriptorStoreMax=16384");
	begin();
	doctor.view.supervised = true;
	doctor.view.watchdog_ns = 0;
	doctor_look_at_self(&doctor);
	FOUND(restarter, OK, "--supervise");
	FOUND(watchdog, WARNING, "--watchdog 0");
	/* by the unit, where there is systemd */
	begin();
	doctor.view.managed = false;
	put("/run/systemd/system/x", "");
	doctor_look_at_self(&doctor);
	FIX(restarter, "systemctl enable --now memctld");
	remove_root();
}

/* The fix is our own command line, as a shell takes it. */
static void command_lines_are_quoted(void)
{
	char quoted[64], path[200], line[] = "memctld\0--swap-dir\0/a b/it's\0--ready-fd\0" "7\0--ready-fd=8\0--arena\0" "1G";
	FILE *f;

	doctor_quote("/var/lib/x_1", quoted, sizeof quoted);
	CHECK(!strcmp(quoted, "/var/lib/x_1"));
	doctor_quote("a'b c", quoted, sizeof quoted);
	CHECK(!strcmp(quoted, "'a'\\''b c'"));
	doctor_quote("", quoted, sizeof quoted);
	CHECK(!strcmp(quoted, "''"));
	begin();
	doctor.view.managed = false;
	put("/proc/self/cmdline", "x");
	snprintf(path, sizeof path, "%s/proc/self/cmdline", root);
	f = fopen(path, "w");
	CHECK(f && fwrite(line, 1, sizeof line, f) == sizeof line && fclose(f) == 0);
	doctor_look_at_self(&doctor);
	FIX(restarter, "memctld --supervise --swap-dir '/a b/it'\\''s' --arena 1G &");
	CHECK(!strstr(doctor.findings[DOCTOR_restarter].fix, "ready-fd"));
	remove_root();
}

static void time_outs_that_never_end(void)
{
	begin();
	doctor_look_at_self(&doctor);
	FOUND(time_outs, OK, "30 s");
	begin();
	doctor.view.client_hold_limit_s = 0;
	doctor_look_at_self(&doctor);
	FOUND(time_outs, WARNING, "client_hold_limit is 0");
	begin();
	doctor.view.reconnect_grace_s = 0;
	doctor_look_at_self(&doctor);
	FOUND(time_outs, WARNING, "reconnect_grace is 0");
	begin();
	doctor.view.client_hold_limit_s = doctor.view.reconnect_grace_s = 0;
	doctor_look_at_self(&doctor);
	FIX(time_outs, "memctl tune client_hold_limit 30 && memctl tune reconnect_grace 300");
	remove_root();
}

static void clients(void)
{
	begin();
	doctor.view.n_vms = 2;
	vms[0] = (struct doctor_vm){ .name = "a", .uid = 1000, .in_group = true, .wants_pool = true, .has_pool = true };
	vms[1] = (struct doctor_vm){ .name = "b", .uid = 1001, .pool_writable = true };
	doctor_look_at_self(&doctor);
	FOUND(fault_modes, OK, "2 VMs");
	FOUND(pools_writable, OK, "No member");
	FOUND(sharing, OK, "has its pool");
	FOUND(user, OK, "user 100");
	begin();
	doctor.view.n_vms = 2;
	vms[0] = (struct doctor_vm){ .name = "a", .uid = 1000, .user_mode_only = true, .wants_pool = true };
	vms[1] = (struct doctor_vm){ .name = "b", .uid = 100, .in_group = true, .pool_writable = true, .has_pool = true };
	doctor_look_at_self(&doctor);
	FOUND(fault_modes, WARNING, "only: a.");
	FIX(fault_modes, "$(id -un 1000)");
	FOUND(pools_writable, WARNING, ": b.");
	FOUND(sharing, INFORMATION, ": a.");
	FOUND(user, WARNING, "emulators of b");
	begin();
	doctor.view.uid = 0;
	doctor_look_at_self(&doctor);
	FOUND(user, WARNING, "as root");
	/* names do not grow without end */
	begin();
	struct doctor_vm many[100] = { 0 };
	doctor.view.vms = many;
	doctor.view.n_vms = 100;
	for (unsigned i = 0; i < 100; i++) {
		memset(many[i].name, 'n', 63);
		many[i].user_mode_only = true;
	}
	doctor_look_at_self(&doctor);
	FOUND(fault_modes, WARNING, "and 96 more");
	remove_root();
}

/* Whoever is to run it next is there, and may write what it writes, before memctld is stopped. */
static void another_user_comes_first(void)
{
	const char *fix;

	begin();
	put("/proc/self/cmdline", "memctld");
	doctor.view.uid = 0;
	strcpy(doctor.view.swap_dir, "/a b/swap");
	strcpy(doctor.view.socket, "/run/x/memctld.sock");
	strcpy(doctor.view.metrics, "/var/h/metrics.db");
	doctor_look_at_self(&doctor);
	FIX(user, "useradd --system memctl");
	FIX(user, "chown -R memctl '/a b/swap' /var/h/metrics.db* && ");
	FIX(user, "test -w '/a b/swap' -a -w /run/x -a -w /var/h && memctl daemon stop --wait && runuser -u memctl -- ");
	fix = doctor.findings[DOCTOR_user].fix;
	CHECK_MSG(strstr(fix, "useradd") < strstr(fix, "chown") && strstr(fix, "test -w") < strstr(fix, "daemon stop"), "%s", fix);
	/* with systemd the unit has all that */
	begin();
	put("/run/systemd/system/x", "");
	doctor.view.uid = 0;
	doctor_look_at_self(&doctor);
	CHECK(!strcmp(doctor.findings[DOCTOR_user].fix, "memctl daemon stop --wait && systemctl enable --now memctld"));
	remove_root();
}

static void stores(void)
{
	begin();
	doctor_look_at_self(&doctor);
	FOUND(stores, OK, "Nothing");
	begin();
	doctor.view.swap_errors = 3;
	doctor_look_at_self(&doctor);
	FOUND(stores, FAILURE, "3 pages");
	remove_root();
}

/* ---- what it may do ---- */

static void process(const char *capabilities, const char *files, const char *locked)
{
	put("/proc/self/status", "Name:\tmemctld\nVmSwap:\t       0 kB\nCapEff:\t%s\n", capabilities);
	put("/proc/self/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"
		"Max locked memory         %s              8388608              bytes     \n"
		"Max open files            %s              1048576              files     \n", locked, files);
}

static void limits(void)
{
	begin();
	process("0000000000000020", "131072", "67108864");
	put("/proc/sys/fs/aio-nr", "4\n");
	put("/proc/sys/fs/aio-max-nr", "65536\n");
	put("/proc/self/oom_score_adj", "-900\n");
	put("/proc/meminfo", "MemTotal: 8000000 kB\nSwapTotal: 0 kB\n");
	doctor.view.n_vms = 1;
	vms[0].leases = 3;
	doctor_look_at_limits(&doctor);
	FOUND(cap_kill, OK, "CAP_KILL");
	FOUND(descriptors, OK, "131072");
	FOUND(memlock, OK, "3 leases");
	FOUND(aio, OK, "4 of 65536");
	FOUND(oom, OK, "-900");
	FOUND(uffd_own, OK, "user mode");
	begin();
	process("0000000000000000", "1024", "65536");
	put("/proc/sys/fs/aio-nr", "65535\n");
	put("/proc/self/oom_score_adj", "0\n");
	doctor.view.n_vms = 1;
	vms[0].leases = 3;
	doctor_look_at_limits(&doctor);
	FOUND(cap_kill, WARNING, "not CAP_KILL");
	FOUND(descriptors, WARNING, "1024");
	FOUND(memlock, INFORMATION, "swap space only");
	FOUND(aio, WARNING, "none are left");
	FOUND(oom, WARNING, "is 0");
	begin();
	put("/proc/meminfo", "MemTotal: 8000000 kB\nSwapTotal: 1000 kB\n");
	doctor_look_at_limits(&doctor);
	FOUND(memlock, WARNING, "lock 1.");
	begin();
	process("0000000000004000", "unlimited", "0");
	doctor_look_at_limits(&doctor);
	FOUND(memlock, OK, "CAP_IPC_LOCK");
	FOUND(descriptors, OK, "may have");
	remove_root();
	/* a host that says nothing is not called wrong */
	begin();
	doctor_look_at_limits(&doctor);
	FOUND(cap_kill, INFORMATION, "does not say");
	FOUND(descriptors, INFORMATION, "does not say");
	FOUND(memlock, INFORMATION, "does not say");
	FOUND(aio, INFORMATION, "is not there");
	FOUND(oom, INFORMATION, "cannot be read");
	FOUND(program, INFORMATION, "cannot be read");
}

static void the_program_was_replaced(void)
{
	char link[200], target[200];

	begin();
	put("/proc/self/x", "");
	put("/memctld", "");
	snprintf(link, sizeof link, "%s/proc/self/exe", root);
	snprintf(target, sizeof target, "%s/memctld", root);
	CHECK(chmod(target, 0755) == 0 && symlink(target, link) == 0);
	doctor_look_at_limits(&doctor);
	FOUND(program, OK, target);
	begin();
	snprintf(target, sizeof target, "%s/memctld (deleted)", root);
	CHECK(unlink(link) == 0 && symlink(target, link) == 0);
	doctor_look_at_limits(&doctor);
	FOUND(program, WARNING, "Another memctld");
	FIX(program, "memctl daemon upgrade");
	begin();
	snprintf(target, sizeof target, "%s/memctld", root);
	CHECK(unlink(target) == 0);
	doctor_look_at_limits(&doctor);
	FOUND(program, WARNING, "is gone");
	remove_root();
}

static void without_userfaultfd(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof code / sizeof *code, .filter = code };

	begin();
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
	doctor_look_at_limits(&doctor);
	FOUND(uffd_own, FAILURE, "Operation not permitted");
	remove_root();
}

/* ---- memory ---- */

static void meminfo(unsigned total_mib, unsigned available_mib, unsigned swap_mib)
{
	put("/proc/meminfo", "MemTotal:       %u kB\nMemFree:   1 kB\nMemAvailable:   %u kB\nSwapTotal:     %u kB\n", total_mib << 10,
		available_mib << 10, swap_mib << 10);
}

static void memory(void)
{
	begin();
	meminfo(4000, 900, 0);
	doctor_look_at_memory(&doctor);
	FOUND(memory, OK, "1000 MiB 800 are not taken yet; the host has 900");
	FOUND(shmem_pages, OK, "one page");
	begin();
	meminfo(4000, 700, 0);
	doctor_look_at_memory(&doctor);
	FOUND(memory, FAILURE, "the host has 700 MiB");
	FIX(memory, "--set arena=810M &");
	begin();
	put("/run/systemd/system/x", "");
	doctor_look_at_memory(&doctor);
	FIX(memory, "printf '[memctld]\\narena = 810M\\n' > /etc/memctl/memctld.conf.d/arena.conf && memctl daemon stop --wait && "
		"systemctl");
	begin();
	meminfo(1050, 900, 0);
	doctor_look_at_memory(&doctor);
	FOUND(memory, WARNING, "less than 10 %");
	remove_root();
}

static void groups_of_version_2(void)
{
	begin();
	meminfo(4000, 3000, 500);
	put("/proc/self/cgroup", "0::/system.slice/memctld.service\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.max", "max\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.high", "max\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.swap.max", "0\n");
	put("/sys/fs/cgroup/system.slice/memory.max", "1200000000\n");
	doctor_look_at_memory(&doctor);
	FOUND(cgroup_memory, OK, "system.slice/memory.max allows 1144 MiB");
	FOUND(host_swap, OK, "may have none of it");
	FOUND(host_swapped, OK, "Nothing");
	begin();
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.max", "1100000000\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.swap.max", "max\n");
	doctor_look_at_memory(&doctor);
	FOUND(cgroup_memory, WARNING, "allows 1049 MiB");
	FIX(cgroup_memory, "systemctl set-property memctld.service MemoryMax=1153433600");
	FOUND(host_swap, WARNING, "500 MiB of swap space");
	FIX(host_swap, "systemctl set-property memctld.service MemorySwapMax=0");
	begin();
	put("/sys/fs/cgroup/system.slice/memory.max", "500000000\n");
	put("/sys/fs/cgroup/system.slice/memory.swap.max", "0\n");
	doctor_look_at_memory(&doctor);
	FOUND(cgroup_memory, FAILURE, "system.slice/memory.max allows 476 MiB");
	FIX(cgroup_memory, "echo 1153433600 > /sys/fs/cgroup/system.slice/memory.max");
	FOUND(host_swap, OK, "may have none of it");
	begin();
	put("/sys/fs/cgroup/system.slice/memory.max", "max\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.max", "max\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.high", "104857600\n");
	put("/sys/fs/cgroup/system.slice/memctld.service/memory.swap.current", "3145728\n");
	doctor_look_at_memory(&doctor);
	FOUND(cgroup_memory, WARNING, "slows memctld down from 100 MiB on");
	FIX(cgroup_memory, "MemoryHigh=");
	FOUND(host_swapped, FAILURE, "3 MiB");
	remove_root();
}

static void groups_of_version_1(void)
{
	begin();
	meminfo(4000, 3000, 500);
	put("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/box\n0::/\n");
	put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/box/memory.swappiness", "0\n");
	doctor_look_at_memory(&doctor);
	FOUND(cgroup_memory, OK, "No cgroup limits");
	FOUND(host_swap, OK, "may have none");
	begin();
	put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "100000000\n");
	put("/sys/fs/cgroup/memory/box/memory.swappiness", "60\n");
	doctor_look_at_memory(&doctor);
	FOUND(cgroup_memory, FAILURE, "allows 95 MiB");
	FIX(cgroup_memory, "> /sys/fs/cgroup/memory/box/memory.limit_in_bytes");
	FIX(host_swap, "echo 0 > /sys/fs/cgroup/memory/box/memory.swappiness");
	/* in no group: swap space can only be turned off */
	begin();
	put("/proc/self/cgroup", "0::/\n");
	doctor_look_at_memory(&doctor);
	FIX(host_swap, "swapoff -a");
	remove_root();
}

static void swapped(void)
{
	begin();
	meminfo(4000, 3000, 500);
	put("/proc/self/status", "VmSwap:\t      10 kB\n");
	put("/proc/self/smaps_rollup", "Rss:   1000 kB\nSwap:               2100 kB\nSwapPss: 1 kB\n");
	doctor_look_at_memory(&doctor);
	FOUND(host_swapped, FAILURE, "3 MiB");
	begin();
	put("/proc/self/status", "VmSwap:\t      0 kB\n");
	put("/proc/self/smaps_rollup", "Rss:   1000 kB\nSwap:               0 kB\nSwapPss: 0 kB\n");
	doctor_look_at_memory(&doctor);
	FOUND(host_swapped, OK, "Nothing");
	remove_root();
}

/* ---- disks ---- */

static void disks(void)
{
	begin();
	put("/swap/x", "");
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/swap", root);
	doctor_look_at_disks(&doctor);
	FOUND(swap_dir, OK, "is there");
	FOUND(swap_file, OK, "without a name");
	FOUND(swap_prealloc, OK, "sets room aside");
	FOUND(metrics, INFORMATION, "No history");
	CHECK(doctor.looking_at == NULL);
	begin();
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/it is not", root);
	doctor_look_at_disks(&doctor);
	FOUND(swap_dir, FAILURE, "No such file");
	FIX(swap_dir, "install -d -m 0700 -o 100 '/tmp/");
	FOUND(swap_space, INFORMATION, "Not looked at");
	FOUND(swap_fs, INFORMATION, "Not looked at");
	/* the worst of all directories is told */
	begin();
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/swap", root);
	snprintf(doctor.view.allowed_swap_dirs, sizeof doctor.view.allowed_swap_dirs, "%s/swap:/proc:%s/none", root, root);
	doctor_look_at_disks(&doctor);
	FOUND(swap_dir, FAILURE, "/none");
	FOUND(swap_file, FAILURE, "/proc");
	begin();
	put("/open/x", "");
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/open", root);
	CHECK(chmod(doctor.view.swap_dir, 0777) == 0);
	doctor_look_at_disks(&doctor);
	FOUND(swap_dir, WARNING, "by everybody");
	remove_root();
}

/* VMs that run could ask for the rest of their sizes. */
static void room_for_vms(void)
{
	begin();
	put("/swap/x", "");
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/swap", root);
	snprintf(vms[0].swap_dir, sizeof vms[0].swap_dir, "%s/swap", root);
	vms[0].size_bytes = 1ull << 60;
	vms[0].swap_ready_bytes = vms[0].size_bytes - 4096;
	doctor.view.n_vms = 1;
	doctor_look_at_disks(&doctor);
	CHECK(!strstr(doctor.findings[DOCTOR_swap_space].text, "could ask for"));
	begin();
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/swap", root);
	snprintf(vms[0].swap_dir, sizeof vms[0].swap_dir, "%s/swap", root);
	vms[0].size_bytes = 1ull << 60;
	doctor.view.n_vms = 1;
	doctor_look_at_disks(&doctor);
	FOUND(swap_space, WARNING, "could ask for");
	remove_root();
}

static void mount_at(const char *path, const char *type, const char *options)
{
	char full[200];

	snprintf(full, sizeof full, "%s%s", root, path);
	mkdir(full, 0755);
	if (mount("none", full, type, 0, options) < 0)
		check_skip("cannot mount %s: %s", type, strerror(errno));
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s", full);
}

static void file_systems_that_are_not_fit(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		check_skip("cannot have mounts of its own: %s", strerror(errno));
	begin();
	mount_at("/ram", "ramfs", NULL);
	doctor_look_at_disks(&doctor);
	FOUND(swap_fs, FAILURE, "on ramfs");
	FOUND(swap_direct, WARNING, "does not take direct I/O");
	FOUND(swap_prealloc, WARNING, "cannot set room aside");
	umount(doctor.view.swap_dir);
	begin();
	mount_at("/tmp", "tmpfs", "size=1M");
	doctor_look_at_disks(&doctor);
	FOUND(swap_fs, FAILURE, "on tmpfs");
	FOUND(swap_space, WARNING, "has 1 MiB");
	put("/tmp/fill", "");
	int fd = open(strcat(strcpy((char[300]){ 0 }, doctor.view.swap_dir), "/fill"), O_WRONLY);
	while (write(fd, (char[4096]){ 0 }, 4096) == 4096)
		;
	close(fd);
	begin();
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s/tmp", root);
	doctor_look_at_disks(&doctor);
	FOUND(swap_space, FAILURE, "no room");
	umount(doctor.view.swap_dir);
	remove_root();
}

static void history(void)
{
	begin();
	put("/db/metrics.db", "");
	snprintf(doctor.view.metrics, sizeof doctor.view.metrics, "%s/db/metrics.db", root);
	doctor.view.rows_written = 7;
	doctor_look_at_disks(&doctor);
	FOUND(metrics, OK, "7 rows have been written");
	begin();
	snprintf(doctor.view.metrics, sizeof doctor.view.metrics, "%s/db/metrics.db", root);
	doctor.view.rows_failed = 2;
	doctor_look_at_disks(&doctor);
	FOUND(metrics, WARNING, "2 rows could not be written");
	begin();
	snprintf(doctor.view.metrics, sizeof doctor.view.metrics, "%s/db/metrics.db", root);
	doctor.view.rows_dropped = 5;
	doctor_look_at_disks(&doctor);
	FOUND(metrics, WARNING, "5 rows were dropped");
	begin();
	snprintf(doctor.view.metrics, sizeof doctor.view.metrics, "%s/nowhere/metrics.db", root);
	doctor_look_at_disks(&doctor);
	FOUND(metrics, WARNING, "cannot be written");
	remove_root();
}

/* Every row gets a finding, and no row is told worse than it is by one that comes later. */
static void every_row_is_looked_at(void)
{
	begin();
	snprintf(doctor.view.swap_dir, sizeof doctor.view.swap_dir, "%s", root);
	doctor_run(&doctor);
	for (unsigned id = 0; id < DOCTOR_COUNT; id++) {
		CHECK_MSG(doctor.findings[id].state != DOCTOR_NOT_LOOKED, "%s was not looked at", doctor_rows[id].id);
		CHECK_MSG(doctor.findings[id].text[0] && doctor_rows[id].title[0] && doctor_rows[id].meaning[0], "%s says nothing",
			doctor_rows[id].id);
	}
	begin();
	doctor_say(&doctor, DOCTOR_stores, DOCTOR_FAILURE, "a", "one");
	doctor_say(&doctor, DOCTOR_stores, DOCTOR_WARNING, "b", "two");
	FOUND(stores, FAILURE, "one");
	doctor_fix(&doctor, DOCTOR_stores, "c");
	FIX(stores, "a");
	remove_root();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(who_starts_it_again), SCENARIO(command_lines_are_quoted), SCENARIO(time_outs_that_never_end), SCENARIO(clients),
		SCENARIO(another_user_comes_first), SCENARIO(stores), SCENARIO(limits), SCENARIO(the_program_was_replaced), SCENARIO(without_userfaultfd), SCENARIO(memory),
		SCENARIO(groups_of_version_2), SCENARIO(groups_of_version_1), SCENARIO(swapped), SCENARIO(disks), SCENARIO(room_for_vms),
		SCENARIO(file_systems_that_are_not_fit), SCENARIO(history), SCENARIO(every_row_is_looked_at), { 0 },
	});
}
