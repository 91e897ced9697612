/* The daemon's door to userfaultfd: the only file of it that includes <linux/userfaultfd.h>.
 *
 * Every function returns 0 or -errno, and retries by itself what a correct caller would always retry.
 * Ranges are byte addresses in the address space that the descriptor was made in. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct uffd_fault {
	uint64_t address;
	bool missing;	/* no page there; otherwise a write to a protected page */
	bool write;
};

/* A userfaultfd for our own mappings: user-mode-only is enough, so it needs no privilege. */
int uffd_open_own(int *ret_fd);
int uffd_register_missing(int fd, uint64_t address, uint64_t length);

/* Read one event, blocking.  1: *ret is a page fault; 0: some other event, ignore; -EINTR: a signal came;
 * -errno otherwise. */
int uffd_read(int fd, struct uffd_fault *ret);

/* Fill [to, to+length) from `from`.  *ret_done: bytes in place when it stops early.  -EEXIST: the page at
 * to + *ret_done is already there (and is left as it is). */
int uffd_copy(int fd, uint64_t to, const void *from, uint64_t length, uint64_t *ret_done);
int uffd_zero(int fd, uint64_t to, uint64_t length, uint64_t *ret_done);
/* Map pages that are in the file already and wake who waits for them; *ret_done as above. */
int uffd_continue(int fd, uint64_t to, uint64_t length, uint64_t *ret_done);
int uffd_wake(int fd, uint64_t address, uint64_t length);
int uffd_protect(int fd, uint64_t address, uint64_t length);
/* Ends protection, clears markers that survived a punch, wakes. */
int uffd_unprotect(int fd, uint64_t address, uint64_t length);
/* Whoever touches the page gets a machine check (SIGBUS).  -EINVAL before Linux 6.6. */
int uffd_poison(int fd, uint64_t address, uint64_t length);

/* Whether fd is a userfaultfd at all (clients pass us descriptors). */
bool uffd_is(int fd);
/* The requests of ioctl that are made here, and nowhere else in memctld; ended by 0. */
extern const unsigned long uffd_requests[];
