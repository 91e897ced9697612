#include "mem/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than Debian 12's kernel headers. */
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#define PROTECT_TRIES 1000

const unsigned long uffd_requests[] = { UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE, UFFDIO_WAKE,
	UFFDIO_WRITEPROTECT, UFFDIO_POISON, 0 };

int uffd_open_own(int *ret_fd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int uffd_register_missing(int fd, uint64_t address, uint64_t length)
{
	struct uffdio_register reg = { .range = { address, length }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	return ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

int uffd_read(int fd, struct uffd_fault *ret)
{
	struct uffd_msg msg;
	ssize_t n = read(fd, &msg, sizeof msg);

	if (n < 0 && errno == EAGAIN) {
		/* The client made the shared description non-blocking: wait here instead of spinning. */
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, -1) < 0)
			return -errno;
		/* POLLERR without POLLIN means that it is blocking again: the next read will wait. */
		return 0;
	}
	if (n < 0)
		return -errno;
	if (n != sizeof msg)
		return -EIO;
	/* reading this event put a new descriptor into our table */
	if (msg.event == UFFD_EVENT_FORK)
		close((int)msg.arg.fork.ufd);
	if (msg.event != UFFD_EVENT_PAGEFAULT)
		return 0;
	ret->address = msg.arg.pagefault.address;
	ret->write = msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
	ret->missing = !(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
	return 1;
}

/* What COPY, ZEROPAGE and CONTINUE share: on EAGAIN the count says how far it got; it is positive when a later
 * page stopped it, and not when something else changes the address space: then it is tried again. */
struct progress {
	uint64_t done;
	int r;
};

static bool advance(struct progress *p, int result, int64_t count, uint64_t length)
{
	if (result == 0) {
		p->done = length;
		p->r = 0;
		return false;
	}
	if (errno == EAGAIN) {
		if (count > 0)
			p->done += (uint64_t)count;
		return p->done < length;
	}
	p->r = -errno;
	return false;
}

int uffd_copy(int fd, uint64_t to, const void *from, uint64_t length, uint64_t *ret_done)
{
	struct progress p = { 0, 0 };
	struct uffdio_copy c;
	int r;

	do {
		c = (struct uffdio_copy){ .dst = to + p.done, .src = (uintptr_t)from + p.done, .len = length - p.done,
			.mode = UFFDIO_COPY_MODE_DONTWAKE };
		r = ioctl(fd, UFFDIO_COPY, &c);
	} while (advance(&p, r, c.copy, length));
	*ret_done = p.done;
	return p.r;
}

int uffd_zero(int fd, uint64_t to, uint64_t length, uint64_t *ret_done)
{
	struct progress p = { 0, 0 };
	struct uffdio_zeropage z;
	int r;

	do {
		z = (struct uffdio_zeropage){ .range = { to + p.done, length - p.done },
			.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE };
		r = ioctl(fd, UFFDIO_ZEROPAGE, &z);
	} while (advance(&p, r, z.zeropage, length));
	*ret_done = p.done;
	return p.r;
}

int uffd_continue(int fd, uint64_t to, uint64_t length, uint64_t *ret_done)
{
	struct progress p = { 0, 0 };
	struct uffdio_continue c;
	int r;

	do {
		c = (struct uffdio_continue){ .range = { to + p.done, length - p.done } };
		r = ioctl(fd, UFFDIO_CONTINUE, &c);
		/* EAGAIN without progress: the client is changing its address space; it must not hold us */
		if (r < 0 && errno == EAGAIN && c.mapped <= 0) {
			p.r = -EAGAIN;
			break;
		}
	} while (advance(&p, r, c.mapped, length));
	*ret_done = p.done;
	return p.r;
}

int uffd_wake(int fd, uint64_t address, uint64_t length)
{
	struct uffdio_range range = { address, length };

	return ioctl(fd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

static int protect(int fd, uint64_t address, uint64_t length, uint64_t mode)
{
	struct uffdio_writeprotect w = { .range = { address, length }, .mode = mode };

	/* EAGAIN lasts while the client changes its address space: it may not hold us for ever. */
	for (unsigned tries = 0; ioctl(fd, UFFDIO_WRITEPROTECT, &w) < 0; tries++) {
		if ((errno != EAGAIN && errno != EINTR) || tries == PROTECT_TRIES)
			return -errno;
		sched_yield();
	}
	return 0;
}

int uffd_protect(int fd, uint64_t address, uint64_t length)
{
	return protect(fd, address, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

int uffd_unprotect(int fd, uint64_t address, uint64_t length)
{
	return protect(fd, address, length, 0);
}

int uffd_poison(int fd, uint64_t address, uint64_t length)
{
	struct uffdio_poison p = { .range = { address, length } };

	return ioctl(fd, UFFDIO_POISON, &p) < 0 ? -errno : 0;
}

bool uffd_is(int fd)
{
	static const char want[] = "anon_inode:[userfaultfd]";
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof target);
	return n == sizeof want - 1 && !memcmp(target, want, sizeof want - 1);
}
