/* libmemctl-preload.so: the functions of the C library that stand between a program and its guest memory.
 *
 * Loaded by LD_PRELOAD into an emulator that maps its guest memory as a shared memfd (memory-backend-memfd of
 * QEMU), it puts a lease of memctld in the memfd's place; guest.c says how.  The functions here only decide
 * whether a call is about guest memory, and hand it on:
 *
 *	memfd_create, syscall	one of the right name is a door to guest memory
 *	mmap, munmap, mremap	of a door: a lease; an end of a lease; refused
 *	fallocate, madvise	discards are announced; what would harm a lease is swallowed
 *	open, fcntl, ioctl	refused is what would reach guest memory past its faults: O_DIRECT, vhost,
 *				VFIO (the daemon evicts a page while the device still writes to it), and
 *				what would look for it in the memfd: udmabuf
 *	sendmsg			refused: guest memory for another process, which has no userfaultfd there
 *	mlockall		refused: it brings all guest memory in, and keeps it
 *
 * Not here, because they cannot harm: posix_madvise (of the C library, which does nothing for
 * POSIX_MADV_DONTNEED), process_madvise (until Linux 6.12 it has no advice that drops content; emulators do
 * not use it on themselves).
 *
 * Without MEMCTL_VM_NAME in the environment all are the C library's own. */
#include "libclient/preload/guest.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <linux/vhost.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* The next function of this name; looked up at its first use, whichever thread is first. */
#define NEXT(name)                                                                                           \
	({                                                                                                   \
		static _Atomic(void *) found;                                                                \
		void *it = found;                                                                            \
		if (!it)                                                                                     \
			found = it = dlsym(RTLD_NEXT, #name);                                                \
		(__typeof__(&name))it;                                                                       \
	})

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define IOMMUFD_IOAS_MAP _IO(VFIO_TYPE, 0x85) /* linux/iommufd.h is younger than Linux 6.1 */

static void *next_mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
	return NEXT(mmap)(address, length, prot, flags, fd, offset);
}

static int next_fallocate(int fd, int mode, off_t offset, off_t length)
{
	return NEXT(fallocate)(fd, mode, offset, length);
}

const struct next next = { .mmap = next_mmap, .fallocate = next_fallocate };

/* ---- guest memory ---- */

EXPORT int memfd_create(const char *name, unsigned flags)
{
	int fd;

	if (!guest_wanted() || !guest_wants_memfd(name))
		return NEXT(memfd_create)(name, flags);
	if (flags & MFD_HUGETLB)
		return guest_refuse(EINVAL, "guest memory cannot be in huge pages (QEMU: hugetlb=on)");
	fd = NEXT(memfd_create)(name, flags | MFD_ALLOW_SEALING);
	if (fd >= 0 && guest_door_add(fd) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* Emulators that are older than the C library's memfd_create, or need not know of it, make their memfd so.
 * Whatever the arguments are, each is a register or a word on the stack. */
EXPORT long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_memfd_create)
		return memfd_create((const char *)a[0], (unsigned)a[1]);
	return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

EXPORT void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
	if (fd >= 0 && !(flags & MAP_ANONYMOUS) && guest_wanted() && guest_door_is(fd))
		return guest_map(address, length, prot, flags, fd, offset);
	if ((flags & MAP_FIXED) && guest_wanted() && guest_touches(address, length)) {
		guest_refuse(EBUSY, "guest memory cannot be mapped over");
		return MAP_FAILED;
	}
	return next_mmap(address, length, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset)
{
	return mmap(address, length, prot, flags, fd, offset);
}

EXPORT int munmap(void *address, size_t length)
{
	if (guest_wanted() && guest_touches(address, length) && guest_unmap(address, length) < 0)
		return -1;
	return NEXT(munmap)(address, length);
}

EXPORT void *mremap(void *address, size_t length, size_t new_length, int flags, ...)
{
	void *to = NULL;
	va_list ap;

	if (flags & MREMAP_FIXED) {
		va_start(ap, flags);
		to = va_arg(ap, void *);
		va_end(ap);
	}
	if (guest_wanted() && (guest_touches(address, length) || (to && guest_touches(to, new_length)))) {
		guest_refuse(EINVAL, "guest memory cannot be moved or resized");
		return MAP_FAILED;
	}
	return NEXT(mremap)(address, length, new_length, flags, to);
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (!guest_wanted() || !guest_door_is(fd))
		return next_fallocate(fd, mode, offset, length);
	if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (offset < 0 || length <= 0 || offset > INT64_MAX - length) {
		errno = EINVAL;
		return -1;
	}
	return guest_discard_door(fd, offset, length);
}

EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	return fallocate(fd, mode, offset, length);
}

EXPORT int madvise(void *address, size_t length, int advice)
{
	if (!guest_wanted() || !guest_touches(address, length))
		return NEXT(madvise)(address, length, advice);
	switch (advice) {
	case MADV_REMOVE:
		return guest_discard(address, length);
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		return guest_refuse(EPERM,
		        "guest memory cannot be populated in advance (QEMU: prealloc=on); give the VM a "
		        "reservation instead");
	case MADV_HUGEPAGE: /* bytes are lost when a page is taken out of a huge one */
	case MADV_COLLAPSE:
	case MADV_MERGEABLE: /* drops write protection */
	case MADV_DOFORK:    /* a child would put zeros where its parent waits */
	case MADV_DODUMP:    /* a core dump would bring everything in */
	case MADV_DONTNEED:  /* keeps the content of shared memory, so there is nothing to do; and what is */
	case MADV_DONTNEED_LOCKED: /* mapped there may be private, with content that would be lost */
	case MADV_FREE:
	case MADV_COLD: /* what is taken, and when, is memctld's affair */
	case MADV_PAGEOUT:
	case MADV_WILLNEED:
		return 0;
	case MADV_GUARD_INSTALL:
		return guest_refuse(EINVAL, "guest memory cannot be made a guard region");
	default:
		return NEXT(madvise)(address, length, advice);
	}
}

EXPORT int mlockall(int flags)
{
	if (guest_wanted())
		return guest_refuse(EPERM,
		        "memory with guest memory in it cannot be locked as a whole (QEMU: mem-lock=on)");
	return NEXT(mlockall)(flags);
}

/* ---- ways past the faults ---- */

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* -1: it may not be opened. */
static int look_at_open(const char *path, int flags)
{
	if (!guest_wanted())
		return 0;
	if ((flags & O_DIRECT) == O_DIRECT)
		return guest_refuse(EINVAL,
		        "%s: a device that writes to guest memory past the page cache (O_DIRECT) would "
		        "lose bytes (QEMU: cache=writeback, aio=threads)",
		        path);
	if (begins(path, "/dev/vhost-") || begins(path, "/dev/vfio/") || !strcmp(path, "/dev/iommu"))
		return guest_refuse(EPERM,
		        "%s: a device that writes to guest memory by itself would lose bytes (QEMU: "
		        "vhost=off, no VFIO)",
		        path);
	if (!strcmp(path, "/dev/udmabuf"))
		return guest_refuse(EPERM,
		        "%s: guest memory is not in the memfd that a graphics device would be given (QEMU: "
		        "no "
		        "blob=on)",
		        path);
	if (!strcmp(path, "/dev/kvm"))
		return guest_kvm();
	return 0;
}

/* open and its relatives differ in name and arguments only; the mode is there if a file may be made. */
#define MODE_OF(flags)                                                                                       \
	({                                                                                                   \
		mode_t mode_ = 0;                                                                            \
		if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                     \
			va_list ap_;                                                                         \
			va_start(ap_, flags);                                                                \
			mode_ = va_arg(ap_, mode_t);                                                         \
			va_end(ap_);                                                                         \
		}                                                                                            \
		mode_;                                                                                       \
	})

EXPORT int open(const char *path, int flags, ...)
{
	mode_t mode = MODE_OF(flags);

	return look_at_open(path, flags) < 0 ? -1 : NEXT(open)(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
	mode_t mode = MODE_OF(flags);

	return look_at_open(path, flags) < 0 ? -1 : NEXT(open64)(path, flags, mode);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	mode_t mode = MODE_OF(flags);

	return look_at_open(path, flags) < 0 ? -1 : NEXT(openat)(dir, path, flags, mode);
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	mode_t mode = MODE_OF(flags);

	return look_at_open(path, flags) < 0 ? -1 : NEXT(openat64)(dir, path, flags, mode);
}

/* What programs built with _FORTIFY_SOURCE call instead. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
	return look_at_open(path, flags) < 0 ? -1 : NEXT(__open_2)(path, flags);
}

EXPORT int __open64_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags)
{
	return look_at_open(path, flags) < 0 ? -1 : NEXT(__open64_2)(path, flags);
}

static int look_at_fcntl(int command, void *argument)
{
	if (command == F_SETFL && ((uintptr_t)argument & O_DIRECT) && guest_wanted())
		return look_at_open("a file", O_DIRECT);
	return 0;
}

/* Whatever the argument is, it is a register. */
EXPORT int fcntl(int fd, int command, ...)
{
	void *argument;
	va_list ap;

	va_start(ap, command);
	argument = va_arg(ap, void *);
	va_end(ap);
	return look_at_fcntl(command, argument) < 0 ? -1 : NEXT(fcntl)(fd, command, argument);
}

EXPORT int fcntl64(int fd, int command, ...)
{
	void *argument;
	va_list ap;

	va_start(ap, command);
	argument = va_arg(ap, void *);
	va_end(ap);
	return look_at_fcntl(command, argument) < 0 ? -1 : NEXT(fcntl64)(fd, command, argument);
}

/* A device that somebody else has opened (QEMU: vhostfd=, iommufd) is met where it is to get guest memory. */
static int look_at_ioctl(unsigned long request)
{
	switch (request) {
	case VHOST_SET_OWNER:
	case VFIO_IOMMU_MAP_DMA:
	case IOMMUFD_IOAS_MAP:
		return !guest_wanted() ? 0
		                       : guest_refuse(EPERM,
		                                 "a device that writes to guest memory by itself would lose "
		                                 "bytes (QEMU: no vhostfd=, no VFIO)");
	default:
		return 0;
	}
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	void *argument;
	va_list ap;

	va_start(ap, request);
	argument = va_arg(ap, void *);
	va_end(ap);
	return look_at_ioctl(request) < 0 ? -1 : NEXT(ioctl)(fd, request, argument);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	if (message->msg_controllen && guest_wanted())
		for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c;
		        c = CMSG_NXTHDR((struct msghdr *)message, c)) {
			int passed;

			if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
				continue;
			for (size_t at = CMSG_LEN(0); at + sizeof passed <= c->cmsg_len;
			        at += sizeof passed) {
				memcpy(&passed, (char *)c + at, sizeof passed);
				if (guest_door_is(passed))
					return guest_refuse(EPERM,
					        "guest memory cannot be given to another process "
					        "(QEMU: no vhost-user)");
			}
		}
	return NEXT(sendmsg)(fd, message, flags);
}
