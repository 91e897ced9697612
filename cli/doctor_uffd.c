/* What a userfaultfd of this user can do.  memctl's door to <linux/userfaultfd.h>. */
#include "cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEVICE "/dev/userfaultfd"
/* newer than the headers of Debian 12 */
#define FEATURE_POISON (1ull << 14)

static const struct {
	uint64_t bit;
	const char *name;
} needed[] = {
	{ UFFD_FEATURE_MISSING_SHMEM, "missing pages of shared memory" },
	{ UFFD_FEATURE_PAGEFAULT_FLAG_WP, "write-protection" },
	{ UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "write-protection of shared memory" },
};

static int open_device(void)
{
	int device = open(DEVICE, O_RDWR | O_CLOEXEC), fd;

	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(device);
	return fd;
}

static int open_syscall(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	return fd < 0 ? -errno : fd;
}

static void look_at_features(struct doctor *d, int fd)
{
	struct uffdio_api api = { .api = UFFD_API };
	char lacks[200] = "";
	size_t at = 0;

	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		find(d, CHECK_uffd_features, STATE_FAILURE, "userfaultfd does not say what it can do: %s.", strerror(errno));
		return;
	}
	for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
		if (!(api.features & needed[i].bit))
			at += (size_t)snprintf(lacks + at, sizeof lacks - at, "%s%s", at ? ", " : "", needed[i].name);
	if (at) {
		find(d, CHECK_uffd_features, STATE_FAILURE, "This kernel's userfaultfd lacks: %s.  No lease can be served.", lacks);
		fix(d, CHECK_uffd_features, "apt-get install linux-image-amd64 && reboot");
	} else {
		find(d, CHECK_uffd_features, STATE_OK, "userfaultfd does all that leases need; pages that are lost can %sbe poisoned "
			"(UFFDIO_POISON).", api.features & FEATURE_POISON ? "" : "not ");
	}
}

/* How this user would get a full one. */
static void fix_user(struct doctor *d, int by_device)
{
	char user[64], group[64] = "memctl";
	struct stat st;

	user_name(user);
	if (by_device == -ENOENT || by_device == -ENODEV || by_device == -ENXIO) {
		fix(d, CHECK_uffd, "sysctl -w vm.unprivileged_userfaultfd=1");
		return;
	}
	/* the udev rule has done its part, if there is a group */
	if (stat(DEVICE, &st) == 0 && st.st_gid != 0 && (st.st_mode & 0060) == 0060) {
		group_name(st.st_gid, group);
		fix(d, CHECK_uffd, "usermod -aG %s %s  # from the next login on", group, user);
		return;
	}
	fix(d, CHECK_uffd, "%schgrp memctl " DEVICE " && chmod 0660 " DEVICE " && usermod -aG memctl %s  # from the next login on",
		getgrnam("memctl") ? "" : "groupadd -r memctl && ", user);
}

void check_faults(struct doctor *d)
{
	int by_device = open_device(), by_syscall = by_device < 0 ? open_syscall(0) : -1;
	int fd = by_device >= 0 ? by_device : by_syscall >= 0 ? by_syscall : open_syscall(UFFD_USER_MODE_ONLY);
	char user[64];

	user_name(user);
	if (by_device >= 0) {
		find(d, CHECK_uffd, STATE_OK, "User %s gets a full userfaultfd from " DEVICE ".", user);
	} else if (by_syscall >= 0) {
		find(d, CHECK_uffd, STATE_OK, "User %s gets a full userfaultfd from the system call (CAP_SYS_PTRACE, or "
			"vm.unprivileged_userfaultfd).", user);
	} else if (fd >= 0) {
		find(d, CHECK_uffd, STATE_WARNING, "User %s gets a userfaultfd for user mode only (" DEVICE ": %s): no KVM, and no system "
			"calls into pages that are not resident.", user, strerror(-by_device));
		fix_user(d, by_device);
	} else if (fd == -ENOSYS) {
		find(d, CHECK_uffd, STATE_FAILURE, "This kernel has no userfaultfd (CONFIG_USERFAULTFD).");
		fix(d, CHECK_uffd, "apt-get install linux-image-amd64 && reboot");
	} else {
		find(d, CHECK_uffd, STATE_FAILURE, "User %s gets no userfaultfd, not even for user mode (%s): a seccomp filter or a security "
			"module forbids it.", user, strerror(-fd));
		fix_user(d, by_device);
	}
	if (fd < 0) {
		find(d, CHECK_uffd_features, STATE_INFORMATION, "Not looked at: this user gets no userfaultfd.");
		return;
	}
	look_at_features(d, fd);
	close(fd);
}
