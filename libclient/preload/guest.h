/* The VM of this process: its doors, its leases, and what may not be done to them.
 *
 * All of it is thread-safe.  Functions that stand in for a system call return what it would, with errno. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The C library's own functions, behind ours. */
struct next {
	void *(*mmap)(void *address, size_t length, int prot, int flags, int fd, off_t offset);
	int (*fallocate)(int fd, int mode, off_t offset, off_t length);
};
extern const struct next next;

/* Set while a thread is in the library's own code: then every interposed function is the C library's. */
extern _Thread_local bool guest_inside;

/* Whether this process is to have a VM at all (MEMCTL_VM_NAME is set), and we were not called by ourselves.
 */
bool guest_wanted(void);
/* Say why something is refused, on stderr, in one line; -1 with errno = error. */
int guest_refuse(int error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Whether a memfd of this name is to be guest memory. */
bool guest_wants_memfd(const char *name);
/* It was made: whoever maps it shared gets a lease.  -1: it cannot be. */
int guest_door_add(int fd);
/* Whether the descriptor's file is such a memfd. */
bool guest_door_is(int fd);

void *guest_map(void *address, size_t length, int prot, int flags, int fd, off_t offset);
/* Before munmap: leases that lie in the range whole are released.  -1: one would lose a part. */
int guest_unmap(const void *address, size_t length);
/* Whether the range touches a lease. */
bool guest_touches(const void *address, size_t length);
/* The content of a range is of no value: by address, or by the memfd's offsets. */
int guest_discard(const void *address, size_t length);
int guest_discard_door(int fd, off_t offset, off_t length);

/* /dev/kvm is being opened. -1: its faults could not be served. */
int guest_kvm(void);
