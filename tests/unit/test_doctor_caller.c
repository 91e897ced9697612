/* What memctl finds wrong with a host, as the user who calls it: cli/doctor.h, shown a host that is set up so, and its twin
 * that is well. */
#include "tests/lib/check.h"
#include "cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HUGE "/sys/kernel/mm/transparent_hugepage"
#define NOBODY 65534

static char root[64];
static struct doctor d;
static struct doctor_vm vms[2];

static void put(const char *path, const char *fmt, ...)
{
	char full[300];
	va_list ap;
	FILE *f;

	snprintf(full, sizeof full, "%s%s", root, path);
	for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(full, 0755);
		*slash = '/';
	}
	f = fopen(full, "w");
	CHECK_MSG(f != NULL, "cannot write %s", full);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	CHECK(fclose(f) == 0);
}

static void begin(void)
{
	if (!root[0]) {
		snprintf(root, sizeof root, "/tmp/memctl-doctor-XXXXXX");
		CHECK(mkdtemp(root) != NULL && chmod(root, 0755) == 0);
	}
	memset(vms, 0, sizeof vms);
	d = (struct doctor){ .root = root, .socket = "/nowhere/memctld.sock", .vms = vms };
}

static void end(void)
{
	char command[100];

	snprintf(command, sizeof command, "rm -rf %s", root);
	CHECK(system(command) == 0);
}

static const char *const states[] = { "nothing", "ok", "information", "warning", "failure" };
#define FOUND(id, wanted, word) do { \
	const struct finding *f_ = &d.findings[CHECK_##id]; \
	CHECK_MSG(f_->state == STATE_##wanted && strstr(f_->text, word), #id " is %s: %s", states[f_->state], f_->text); \
	CHECK_MSG((f_->fix[0] != 0) == (f_->state >= STATE_WARNING), #id " (%s) has fix \"%s\"", states[f_->state], f_->fix); \
} while (0)
#define FIX(id, word) CHECK_MSG(strstr(d.findings[CHECK_##id].fix, word), #id ": %s", d.findings[CHECK_##id].fix)

/* ---- the kernel's settings ---- */

static void maps(void)
{
	begin();
	put("/proc/sys/vm/max_map_count", "1048576\n");
	check_memory(&d);
	FOUND(max_map_count, OK, "1048576");
	begin();
	put("/proc/sys/vm/max_map_count", "65530\n");
	check_memory(&d);
	FOUND(max_map_count, WARNING, "24573 runs");
	FIX(max_map_count, "sysctl -w vm.max_map_count=1048576");
	begin();
	put("/proc/sys/vm/max_map_count", "1000\n");
	check_memory(&d);
	FOUND(max_map_count, FAILURE, "its own mmap may fail");
	end();
	begin();
	check_memory(&d);
	FOUND(max_map_count, INFORMATION, "cannot be read");
}

static void huge_pages(void)
{
	begin();
	check_memory(&d);
	FOUND(shmem_thp, OK, "no huge pages");
	begin();
	put(HUGE "/shmem_enabled", "always within_size [advise] never deny force\n");
	put(HUGE "/hugepages-64kB/shmem_enabled", "always [inherit] within_size advise never\n");
	check_memory(&d);
	FOUND(shmem_thp, OK, "advise");
	begin();
	put(HUGE "/hugepages-64kB/shmem_enabled", "[always] inherit within_size advise never\n");
	check_memory(&d);
	FOUND(shmem_thp, FAILURE, "hugepages-64kB/shmem_enabled is always");
	FIX(shmem_thp, "echo advise > " HUGE "/hugepages-64kB/shmem_enabled");
	CHECK(!strstr(d.findings[CHECK_shmem_thp].fix, ";"));
	begin();
	put(HUGE "/shmem_enabled", "always [within_size] advise never deny force\n");
	check_memory(&d);
	FOUND(shmem_thp, FAILURE, HUGE "/shmem_enabled is within_size");
	FIX(shmem_thp, "echo advise > " HUGE "/shmem_enabled; echo advise > ");
	end();
}

static void page_maps(void)
{
	begin();
	check_memory(&d);
	FOUND(pagemap, WARNING, "No such file");
	end();
	d = (struct doctor){ .root = "" };
	check_memory(&d);
	FOUND(pagemap, OK, "can be read");
}

static void merging(void)
{
	begin();
	d.n_vms = 2;
	vms[0] = (struct doctor_vm){ "a", 10, true };
	vms[1] = (struct doctor_vm){ "b", 11, false };
	put("/sys/kernel/mm/ksm/run", "1\n");
	put("/proc/10/ksm_stat", "ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: yes\n");
	put("/proc/11/ksm_stat", "ksm_rmap_items 0\n");
	check_merging(&d);
	FOUND(ksm, OK, "none of 2 VMs; ksmd runs");
	begin();
	d.n_vms = 2;
	vms[0] = (struct doctor_vm){ "a", 10, true };
	vms[1] = (struct doctor_vm){ "b", 11, false };
	put("/proc/11/ksm_stat", "ksm_rmap_items 12\n");
	check_merging(&d);
	FOUND(ksm, INFORMATION, "VM b");
	begin();
	d.n_vms = 2;
	vms[0] = (struct doctor_vm){ "a", 10, true };
	vms[1] = (struct doctor_vm){ "b", 11, false };
	put("/proc/11/ksm_stat", "ksm_rmap_items 0\nksm_merge_any: yes\n");
	check_merging(&d);
	FOUND(ksm, WARNING, "nothing of it is shared");
	FIX(ksm, "echo 2 > /sys/kernel/mm/ksm/run");
	begin();
	d.n_vms = 2;
	vms[0] = (struct doctor_vm){ "a", 10, true };
	vms[1] = (struct doctor_vm){ "b", 11, false };
	put("/proc/10/ksm_stat", "ksm_rmap_items 0\nksm_merge_any: yes\n");
	check_merging(&d);
	FOUND(ksm, FAILURE, "VM a (process 10) after it began to share");
	begin();
	d.n_vms = 1;
	vms[0] = (struct doctor_vm){ "a", 10, true };
	put("/sys/kernel/mm/ksm/run", "0\n");
	check_merging(&d);
	FOUND(ksm, WARNING, "ksmd does not run");
	FIX(ksm, "Start the emulator again");
	end();
}

/* root may read everything: as somebody else */
static void merging_that_is_hidden(void)
{
	char path[100];

	if (geteuid())
		check_skip("needs root, to be somebody else");
	begin();
	put("/proc/10/ksm_stat", "ksm_merge_any: yes\n");
	snprintf(path, sizeof path, "%s/proc/10/ksm_stat", root);
	CHECK(chmod(path, 0400) == 0 && seteuid(NOBODY) == 0);
	d.n_vms = 1;
	vms[0].pid = 10;
	check_merging(&d);
	FOUND(ksm, INFORMATION, "ask as root");
	CHECK(seteuid(0) == 0);
	end();
}

/* ---- userfaultfd ---- */

static void refuse_userfaultfd(int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof code / sizeof *code, .filter = code };

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

static void faults_as(uid_t uid, int err)
{
	if (geteuid())
		check_skip("needs root, to be somebody else");
	d = (struct doctor){ .root = "" };
	CHECK(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
	if (uid && access("/dev/userfaultfd", R_OK | W_OK) == 0)
		check_skip("everybody may open /dev/userfaultfd here");
	if (err)
		refuse_userfaultfd(err);
	check_faults(&d);
}

static void faults_of_root(void)
{
	faults_as(0, 0);
	FOUND(uffd, OK, "full userfaultfd");
	FOUND(uffd_features, OK, "all that leases need");
}

static void faults_of_nobody(void)
{
	faults_as(NOBODY, 0);
	FOUND(uffd, WARNING, "for user mode only (/dev/userfaultfd: ");
	FIX(uffd, "usermod -aG memctl ");
	FOUND(uffd_features, OK, "all that leases need");
}

static void faults_that_are_forbidden(void)
{
	faults_as(NOBODY, EPERM);
	FOUND(uffd, FAILURE, "not even for user mode");
	FOUND(uffd_features, INFORMATION, "Not looked at");
}

static void faults_that_there_are_not(void)
{
	faults_as(NOBODY, ENOSYS);
	FOUND(uffd, FAILURE, "CONFIG_USERFAULTFD");
}

/* ---- systemd ---- */

#define UNIT_GOOD "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nExecMainStatus=0\nMainPID=77\n" \
	"UnitFileState=enabled\nRestart=on-failure\nFileDescriptorStoreMax=16384\nWatchdogUSec=30s\nTimeoutStopUSec=infinity\n" \
	"StartLimitIntervalUSec=0\n"

/* A systemctl and a journalctl that say this. */
static void systemd(const char *unit, const char *journal)
{
	char path[300];

	put("/bin/systemctl", "#!/bin/sh\ncat <<'EOF'\n%sEOF\n", unit);
	put("/bin/journalctl", "#!/bin/sh\necho '%s'\n", journal);
	snprintf(path, sizeof path, "%s/bin/systemctl", root);
	CHECK(chmod(path, 0755) == 0);
	snprintf(path, sizeof path, "%s/bin/journalctl", root);
	CHECK(chmod(path, 0755) == 0);
	snprintf(path, sizeof path, "%s/bin:/usr/bin:/bin", root);
	setenv("PATH", path, 1);
}

static void units(void)
{
	begin();
	systemd(UNIT_GOOD, "");
	d.answers = true;
	d.daemon_pid = 77;
	check_unit(&d);
	FOUND(unit, OK, "dies, hangs, or is stopped");
	begin();
	d.answers = true;
	d.daemon_pid = 78;
	check_unit(&d);
	FOUND(unit, WARNING, "(process 78) is not the unit's (process 77)");
	begin();
	systemd("LoadState=loaded\nMainPID=0\nUnitFileState=disabled\nFileDescriptorStoreMax=16384\n", "");
	check_unit(&d);
	FOUND(unit, WARNING, "at boot");
	FIX(unit, "systemctl enable memctld");
	begin();
	systemd("LoadState=loaded\nMainPID=0\nRestart=no\nFileDescriptorStoreMax=0\nWatchdogUSec=0\nTimeoutStopUSec=1min 30s\n"
		"StartLimitIntervalUSec=10s\n", "");
	check_unit(&d);
	FOUND(unit, FAILURE, "FileDescriptorStoreMax is 0: guests wait for ever");
	FIX(unit, "printf '[Unit]\\nStartLimitIntervalSec=0\\n[Service]\\nFileDescriptorStoreMax=16384\\nRestart=on-failure\\n"
		"WatchdogSec=30\\nTimeoutStopSec=infinity\\n' > /etc/systemd/system/memctld.service.d/zz-doctor.conf");
	begin();
	systemd("LoadState=loaded\nMainPID=0\nWatchdogUSec=0\n", "");
	check_unit(&d);
	FOUND(unit, WARNING, "nobody notices when it hangs");
	begin();
	systemd("LoadState=loaded\nMainPID=0\nWatchdogUSec=infinity\n", "");
	check_unit(&d);
	FOUND(unit, WARNING, "WatchdogUSec is infinity");
	begin();
	systemd("LoadState=not-found\n", "");
	check_unit(&d);
	FOUND(unit, INFORMATION, "knows no unit");
	begin();
	setenv("PATH", "/nowhere", 1);
	check_unit(&d);
	FOUND(unit, INFORMATION, "no systemd");
	setenv("PATH", "/usr/bin:/bin", 1);
	end();
}

/* ---- who speaks with whom ---- */

static void nobody_answers(void)
{
	begin();
	systemd("LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=1\n",
		"the host cannot hold an arena of 4096 MiB");
	check_unreachable(&d, ENOENT);
	FOUND(memctld, FAILURE, "at /nowhere/memctld.sock: there is no such socket.  systemd: failed, exit-code, exit status 1.  "
		"Its last words: the host cannot hold an arena of 4096 MiB");
	FIX(memctld, "systemctl start memctld; journalctl");
	begin();
	systemd("LoadState=not-found\n", "");
	check_unreachable(&d, ECONNREFUSED);
	FOUND(memctld, FAILURE, "nobody listens there any more");
	FIX(memctld, "memctld --supervise");
	begin();
	systemd(UNIT_GOOD, "");
	check_unreachable(&d, ETIMEDOUT);
	FOUND(memctld, FAILURE, "does not answer in time");
	FIX(memctld, "-s ABRT memctld");
	end();
}

static void somebody_listens_elsewhere(void)
{
	begin();
	setenv("PATH", "/nowhere", 1);
	put("/x/memctld.sock", "");
	put("/proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"
		"0000000000000000: 00000002 00000000 00010000 0001 01 1 /nowhere/memctld.sock\n"
		"0000000000000000: 00000003 00000000 00000000 0001 03 2 %s/x/memctld.sock\n", root);
	check_unreachable(&d, ENOENT);
	CHECK(!strstr(d.findings[CHECK_memctld].text, "listens at"));
	begin();
	put("/proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"
		"0000000000000000: 00000002 00000000 00010000 0001 01 2\n"
		"0000000000000000: 00000002 00000000 00010000 0001 01 2 %s/x/memctld.sock\n", root);
	check_unreachable(&d, ENOENT);
	FOUND(memctld, FAILURE, "A memctld listens at ");
	FIX(memctld, "x/memctld.sock doctor");
	setenv("PATH", "/usr/bin:/bin", 1);
	end();
}

static void users_who_may_not(void)
{
	char path[100];

	if (geteuid())
		check_skip("needs root, to be somebody else");
	begin();
	put("/run/memctld.sock", "");
	snprintf(path, sizeof path, "%s/run/memctld.sock", root);
	CHECK(chown(path, 0, 7) == 0 && chmod(path, 0660) == 0 && setgroups(0, NULL) == 0 && setegid(NOBODY) == 0 &&
		seteuid(NOBODY) == 0);
	d.socket = path;
	check_unreachable(&d, EACCES);
	FOUND(memctld, INFORMATION, "may not open");
	FOUND(access, FAILURE, "is for members of group");
	FIX(access, "usermod -aG ");
	CHECK(seteuid(0) == 0 && setgroups(1, &(gid_t){ 7 }) == 0 && seteuid(NOBODY) == 0);
	begin();
	d.socket = path;
	check_refused(&d);
	FOUND(access, FAILURE, "neither access_group nor allow_users");
	CHECK(seteuid(0) == 0);
	end();
}

static void libraries_that_were_replaced(void)
{
	begin();
	d.n_vms = 2;
	vms[0] = (struct doctor_vm){ "a", 10, true };
	vms[1] = (struct doctor_vm){ "b", 11, false };
	put("/proc/10/maps", "7f0000000000-7f0000001000 r-xp 00000000 08:01 1 /usr/lib/libmemctl.so.0.1.0\n"
		"7f0000002000-7f0000003000 rw-s 00000000 00:01 1 /memfd:lease (deleted)\n");
	put("/proc/11/maps", "7f0000000000-7f0000001000 r-xp 00000000 08:01 1 /usr/lib/libmemctl.so.0.1.0\n");
	find(&d, CHECK_versions, STATE_OK, "%s", "one");
	check_libraries(&d);
	FOUND(versions, OK, "one");
	put("/proc/11/maps", "7f0000000000-7f0000001000 r-xp 00000000 08:01 1 /usr/lib/libmemctl.so.0.1.0 (deleted)\n");
	check_libraries(&d);
	FOUND(versions, INFORMATION, "started: b.");
	end();
}

static void commands_are_not_waited_for(void)
{
	static const char *const missing[] = { "memctl-no-such-command", NULL }, *const says[] = { "sh", "-c", "echo a; exit 3", NULL },
		*const floods[] = { "sh", "-c", "yes | head -c 100000", NULL }, *const hangs[] = { "sleep", "1000", NULL };
	char text[16];

	CHECK_EQ(ask_command(missing, text, sizeof text), -ENOENT);
	CHECK_EQ(ask_command(says, text, sizeof text), 3);
	CHECK(!strcmp(text, "a"));
	CHECK_EQ(ask_command(floods, text, sizeof text), 0);
	CHECK_EQ(strlen(text), 15);
	ask_command_ms = 100;
	CHECK_EQ(ask_command(hangs, text, sizeof text), -ETIMEDOUT);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(maps), SCENARIO(huge_pages), SCENARIO(page_maps), SCENARIO(merging), SCENARIO(merging_that_is_hidden),
		SCENARIO(faults_of_root), SCENARIO(faults_of_nobody), SCENARIO(faults_that_are_forbidden), SCENARIO(faults_that_there_are_not),
		SCENARIO(units), SCENARIO(nobody_answers), SCENARIO(somebody_listens_elsewhere), SCENARIO(users_who_may_not),
		SCENARIO(libraries_that_were_replaced), SCENARIO(commands_are_not_waited_for), { 0 },
	});
}
