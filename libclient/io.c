/* read(2) into guest memory and write(2) from it.
 *
 * Two things can go wrong when the kernel is given the address of guest memory:
 *
 *  - With user-mode-only handling a system call that meets an absent or write-protected page gets EFAULT.
 *  - A read that goes round the page cache (O_DIRECT, some FUSE and 9p mounts without being asked to) pins the pages
 *    and lets a device or a server write to them later.  If the daemon evicts such a page in between, it has copied
 *    the old bytes, and the new ones are lost: neither write-protection nor userfaultfd sees that write.
 *
 * So what comes in always goes through a private buffer and is copied by this thread, whose faults are served; what
 * goes out does so only where the kernel could not read it.  Nothing is lost between the two steps: the copy cannot
 * fail, and of a short write only what was written is counted. */
#include "libclient/internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BOUNCE_BYTES (256u << 10)

enum direction { INTO_GUEST, FROM_GUEST };

static ssize_t system_call(enum direction d, int fd, char *buffer, size_t length, off_t at)
{
	ssize_t n;

	if (d == INTO_GUEST)
		n = at < 0 ? read(fd, buffer, length) : pread(fd, buffer, length, at);
	else
		n = at < 0 ? write(fd, buffer, length) : pwrite(fd, buffer, length, at);
	return n < 0 ? -errno : n;
}

static ssize_t bounce(enum direction d, char *guest, size_t length, int fd, off_t at)
{
	size_t chunk = length < BOUNCE_BYTES ? length : BOUNCE_BYTES;
	size_t done = 0;
	ssize_t n = 0;
	void *memory;
	char *buffer;

	/* Aligned for O_DIRECT. */
	if (posix_memalign(&memory, PAGE_SIZE, chunk))
		return -ENOMEM;
	buffer = memory;
	while (done < length) {
		size_t want = length - done < chunk ? length - done : chunk;

		if (d == FROM_GUEST)
			memcpy(buffer, guest + done, want);
		n = system_call(d, fd, buffer, want, at < 0 ? at : at + (off_t)done);
		if (n <= 0)
			break;
		if (d == INTO_GUEST)
			memcpy(guest + done, buffer, (size_t)n);
		done += (size_t)n;
		if ((size_t)n < want)
			break;
	}
	free(buffer);
	return done ? (ssize_t)done : n;
}

static ssize_t transfer(enum direction d, struct memctl_lease *l, uint64_t offset, uint64_t length, int fd,
	off_t at)
{
	if (!l || length > SSIZE_MAX || offset > l->size || length > l->size - offset || at < -1)
		return -EINVAL;
	if (!length)
		return 0;
	if (!l->plain && (d == INTO_GUEST || l->faults == MEMCTL_FAULTS_USER_MODE))
		return bounce(d, l->address + offset, length, fd, at);
	return system_call(d, fd, l->address + offset, length, at);
}

ssize_t memctl_read_into(struct memctl_lease *l, uint64_t offset, uint64_t length, int fd, off_t file_offset)
{
	return transfer(INTO_GUEST, l, offset, length, fd, file_offset);
}

ssize_t memctl_write_from(struct memctl_lease *l, uint64_t offset, uint64_t length, int fd, off_t file_offset)
{
	return transfer(FROM_GUEST, l, offset, length, fd, file_offset);
}
