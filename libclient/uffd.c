/* The library's door to userfaultfd: the only file of it that includes <linux/userfaultfd.h>.
 *
 * Three ways lead to a userfaultfd, tried from the best down:
 *
 *   /dev/userfaultfd              full, for whoever may open the node (a udev rule gives it to group memctl)
 *   userfaultfd(2)                full, with CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1
 *   userfaultfd(UFFD_USER_MODE_ONLY)   anybody; faults of system calls and of KVM get EFAULT instead
 *
 * The descriptor is made blocking: its open file is shared with the daemon, whose fault thread sleeps in read(). */
#include "libclient/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Asked for is what a lease needs and no more: events (fork, remap, remove) would make the kernel wait for a
 * reader at calls that we do not want to hear about. */
#define FEATURES_NEEDED \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

static int open_by_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

static int open_by_syscall(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	return fd < 0 ? -errno : fd;
}

int faults_open(int *ret_fd, enum memctl_faults *ret_faults, struct memctl_error *e)
{
	enum memctl_faults faults = MEMCTL_FAULTS_FULL;
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES_NEEDED };
	int fd, r;

	fd = open_by_device();
	if (fd < 0)
		fd = open_by_syscall(0);
	if (fd < 0) {
		faults = MEMCTL_FAULTS_USER_MODE;
		fd = open_by_syscall(UFFD_USER_MODE_ONLY);
	}
	if (fd == -ENOSYS)
		return fail(e, fd, ERROR_SYSTEM, "this kernel has no userfaultfd (CONFIG_USERFAULTFD)");
	if (fd < 0)
		return fail(e, fd, ERROR_SYSTEM,
			"userfaultfd is not permitted (%s), not even for user mode: a seccomp filter or security "
			"module forbids it.  Allow the system call userfaultfd, or give this user /dev/userfaultfd "
			"(udev: KERNEL==\"userfaultfd\", GROUP=\"memctl\", MODE=\"0660\"), or set "
			"sysctl vm.unprivileged_userfaultfd=1",
			strerror(-fd));
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		r = -errno;
		close(fd);
		return fail(e, r, ERROR_SYSTEM,
			"this kernel's userfaultfd cannot write-protect shared memory: Linux 6.1 or later is needed");
	}
	*ret_fd = fd;
	*ret_faults = faults;
	return 0;
}

int faults_register(int fd, void *address, uint64_t length, struct memctl_error *e)
{
	/* Never MINOR: it adds a second event to a fill, and lets one drop write protection behind an eviction. */
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0) {
		int r = -errno;

		return fail(e, r, ERROR_SYSTEM, "cannot register the mapping with userfaultfd: %s", strerror(-r));
	}
	return 0;
}

int faults_register_missing(int fd, void *address, uint64_t length)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

static int protect(int fd, uintptr_t start, uint64_t length)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = start, .len = length },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	while (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0)
		if (errno != EAGAIN)
			return -errno;
	return 0;
}

int faults_protect(int fd, void *address, uint64_t length)
{
	int r = protect(fd, (uintptr_t)address, length);

	/* Linux 6.1 refuses a range that two mappings lie in, and has done nothing. */
	if (r != -ENOENT)
		return r;
	r = 0;
	for (uint64_t at = 0; !r && at < length; at += PAGE_SIZE)
		r = protect(fd, (uintptr_t)address + at, PAGE_SIZE);
	return r;
}

int faults_copy(int fd, void *to, const void *from, uint64_t length, uint64_t *ret_done)
{
	*ret_done = 0;
	while (*ret_done < length) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)to + *ret_done,
			.src = (uintptr_t)from + *ret_done,
			.len = length - *ret_done,
		};

		if (!ioctl(fd, UFFDIO_COPY, &copy))
			*ret_done = length;
		else if (copy.copy > 0)		/* some were copied: what was in the way says so next */
			*ret_done += (uint64_t)copy.copy;
		else if (errno != EAGAIN)
			return -errno;
	}
	return 0;
}

void faults_continue(int fd, void *address, uint64_t length)
{
	uint64_t done = 0;

	while (done < length) {
		struct uffdio_continue more = {
			.range = { .start = (uintptr_t)address + done, .len = length - done },
		};

		if (!ioctl(fd, UFFDIO_CONTINUE, &more))
			return;
		if (more.mapped > 0)
			done += (uint64_t)more.mapped;
		else if (errno == EEXIST)	/* the guest was first */
			done += PAGE_SIZE;
		else
			return;
	}
}

void faults_wake(int fd, const void *address, uint64_t length)
{
	struct uffdio_range range = { .start = (uintptr_t)address, .len = length };

	(void)ioctl(fd, UFFDIO_WAKE, &range);
}

int faults_unregister(int fd, const void *address, uint64_t length)
{
	struct uffdio_range range = { .start = (uintptr_t)address, .len = length };

	return ioctl(fd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
}
