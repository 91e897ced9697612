/* What memctld may do: capabilities, limits of its process, userfaultfd, and whether it is still the program that is
 * installed. */
#include "doctor.h"

#include "mem/uffd.h"

#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFERS_BYTES	(1ull << 20)	/* that a lease's two threads lock */
#define AIO_PER_LEASE	2
#define DESCRIPTORS_FEW 4096
#define OOM_FIRM	(-500)

/* A row of /proc/self/limits: its soft limit.  UINT64_MAX: unlimited. */
static bool limit_of(const struct doctor *d, const char *name, uint64_t *ret)
{
	char text[4096];
	const char *line;
	unsigned long long n;

	if (doctor_read(d, "/proc/self/limits", text, sizeof text) <= 0 || !(line = strstr(text, name)))
		return false;
	line += strlen(name);
	if (sscanf(line, " %llu", &n) == 1) {
		*ret = n;
		return true;
	}
	*ret = UINT64_MAX;
	return sscanf(line, " unlimite%c", &(char){ 0 }) == 1;
}

static bool has_capability(const struct doctor *d, unsigned capability, bool *ret)
{
	unsigned long long bits;
	char text[4096];
	const char *line;

	if (doctor_read(d, "/proc/self/status", text, sizeof text) <= 0 || !(line = strstr(text, "\nCapEff:")) ||
		sscanf(line, " CapEff: %llx", &bits) != 1)
		return false;
	*ret = bits >> capability & 1;
	return true;
}

static unsigned leases(const struct doctor *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->view.n_vms; i++)
		n += d->view.vms[i].leases;
	return n;
}

static bool host_has_swap(const struct doctor *d)
{
	uint64_t kib;

	return doctor_keyed(d, "/proc/meminfo", "SwapTotal:", &kib) && kib > 0;
}

static void look_at_kill(struct doctor *d)
{
	bool may;

	if (!has_capability(d, CAP_KILL, &may))
		doctor_say(d, DOCTOR_cap_kill, DOCTOR_INFORMATION, NULL, "/proc/self/status does not say which capabilities memctld has.");
	else if (may)
		doctor_say(d, DOCTOR_cap_kill, DOCTOR_OK, NULL, "memctld has CAP_KILL.");
	else
		doctor_say(d, DOCTOR_cap_kill, DOCTOR_WARNING,
			"setcap cap_kill+ep \"$(command -v memctld)\" && memctl daemon upgrade",
			"memctld has not CAP_KILL: a client of another user that holds it up cannot be killed.");
}

static void look_at_descriptors(struct doctor *d)
{
	uint64_t limit;

	if (!limit_of(d, "Max open files", &limit))
		doctor_say(d, DOCTOR_descriptors, DOCTOR_INFORMATION, NULL, "/proc/self/limits does not say how many files may be open.");
	else if (limit >= DESCRIPTORS_FEW)
		doctor_say(d, DOCTOR_descriptors, DOCTOR_OK, NULL, "memctld may have %llu files open.", (unsigned long long)limit);
	else
		doctor_say(d, DOCTOR_descriptors, DOCTOR_WARNING, NULL,
			"memctld may have %llu files open: enough for some %llu VMs.", (unsigned long long)limit, (unsigned long long)limit / 10);
	doctor_fix(d, DOCTOR_descriptors, "prlimit --nofile=131072:131072 --pid %d", (int)getpid());
}

static void look_at_buffers(struct doctor *d)
{
	uint64_t limit, need = (leases(d) + 1) * BUFFERS_BYTES;
	bool may = false;

	if (!limit_of(d, "Max locked memory", &limit))
		doctor_say(d, DOCTOR_memlock, DOCTOR_INFORMATION, NULL, "/proc/self/limits does not say how much may be locked.");
	else if (has_capability(d, CAP_IPC_LOCK, &may) && may)
		doctor_say(d, DOCTOR_memlock, DOCTOR_OK, NULL, "memctld may lock what it likes (CAP_IPC_LOCK).");
	else if (limit >= need)
		doctor_say(d, DOCTOR_memlock, DOCTOR_OK, NULL, "memctld may lock %llu MiB; %u leases and one more lock %llu.",
			DOCTOR_MIB(limit), leases(d), DOCTOR_MIB(need));
	else
		doctor_say(d, DOCTOR_memlock, host_has_swap(d) ? DOCTOR_WARNING : DOCTOR_INFORMATION,
			"mkdir -p /etc/systemd/system/memctld.service.d && printf '[Service]\\nLimitMEMLOCK=64M\\n' "
			"> /etc/systemd/system/memctld.service.d/memlock.conf && systemctl daemon-reload && memctl daemon upgrade",
			"memctld may lock %llu MiB; %u leases and one more lock %llu%s.", DOCTOR_MIB(limit), leases(d), DOCTOR_MIB(need),
			host_has_swap(d) ? "" : " (which matters on hosts with swap space only)");
}

static void look_at_aio(struct doctor *d)
{
	uint64_t used, most;

	if (!doctor_number(d, "/proc/sys/fs/aio-nr", &used) || !doctor_number(d, "/proc/sys/fs/aio-max-nr", &most))
		doctor_say(d, DOCTOR_aio, DOCTOR_INFORMATION, NULL,
			"/proc/sys/fs/aio-max-nr is not there: the kernel has no AIO, and reads from disk are waited for asleep.");
	else if (used + AIO_PER_LEASE >= most)
		doctor_say(d, DOCTOR_aio, DOCTOR_WARNING, "sysctl -w fs.aio-max-nr=1048576",
			"%llu of %llu AIO contexts of this host are taken: none are left for new leases.", (unsigned long long)used,
			(unsigned long long)most);
	else
		doctor_say(d, DOCTOR_aio, DOCTOR_OK, NULL, "%llu of %llu AIO contexts of this host are taken.", (unsigned long long)used,
			(unsigned long long)most);
}

static void look_at_oom(struct doctor *d)
{
	char text[32];
	int score;

	if (doctor_read(d, "/proc/self/oom_score_adj", text, sizeof text) <= 0 || sscanf(text, "%d", &score) != 1) {
		doctor_say(d, DOCTOR_oom, DOCTOR_INFORMATION, NULL, "/proc/self/oom_score_adj cannot be read.");
	} else if (score <= OOM_FIRM) {
		doctor_say(d, DOCTOR_oom, DOCTOR_OK, NULL, "memctld's oom_score_adj is %d.", score);
	} else {
		doctor_say(d, DOCTOR_oom, DOCTOR_WARNING, NULL,
			"memctld's oom_score_adj is %d: when memory runs out the kernel may kill it before others.", score);
		doctor_fix(d, DOCTOR_oom, "echo -900 > /proc/%d/oom_score_adj", (int)getpid());
	}
}

static void look_at_userfaultfd(struct doctor *d)
{
	int fd, r = uffd_open_own(&fd);

	if (r < 0) {
		doctor_say(d, DOCTOR_uffd_own, DOCTOR_FAILURE, "systemctl show -p SystemCallFilter memctld; dmesg | grep -i denied",
			"memctld cannot make a userfaultfd: %s.  No lease can be made.", strerror(-r));
		return;
	}
	close(fd);
	doctor_say(d, DOCTOR_uffd_own, DOCTOR_OK, NULL, "memctld gets a userfaultfd in user mode.");
}

static void look_at_program(struct doctor *d)
{
	static const char gone[] = " (deleted)";
	char link[300], program[512];
	ssize_t n;

	snprintf(link, sizeof link, "%s/proc/self/exe", d->root);
	n = readlink(link, program, sizeof program - 1);
	if (n < 0) {
		doctor_say(d, DOCTOR_program, DOCTOR_INFORMATION, NULL, "/proc/self/exe cannot be read.");
		return;
	}
	program[n] = 0;
	if ((size_t)n > sizeof gone && !strcmp(program + n - (sizeof gone - 1), gone)) {
		program[n - (ssize_t)(sizeof gone - 1)] = 0;
		doctor_say(d, DOCTOR_program, DOCTOR_WARNING, access(program, X_OK) == 0 ? "memctl daemon upgrade" : NULL,
			access(program, X_OK) == 0 ? "Another memctld has been installed as %s since this one was started." :
			"The program file of the memctld that runs, %s, is gone: nobody could start it again.", program);
		if (access(program, X_OK) < 0)
			doctor_fix(d, DOCTOR_program, "apt-get install --reinstall memctl  # or: meson install -C build");
		return;
	}
	doctor_say(d, DOCTOR_program, DOCTOR_OK, NULL, "memctld runs from %s, as it is installed.", program);
}

void doctor_look_at_limits(struct doctor *d)
{
	look_at_program(d);
	look_at_userfaultfd(d);
	look_at_kill(d);
	look_at_descriptors(d);
	look_at_buffers(d);
	look_at_aio(d);
	look_at_oom(d);
}
