/* The fallback: memory of the process, which nobody manages.  It keeps the promises of memctl.h that are about
 * content (zero-filled, discard reads zero, no fork) and drops those that are about host memory. */
#include "libclient/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int plain_map(struct memctl_lease *l, struct memctl_error *e)
{
	int place = l->callers_place ? MAP_FIXED : 0;
	void *p = mmap(l->address, l->size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | place, -1, 0);
	int r;

	if (p == MAP_FAILED) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "no memory for a plain lease: %s", strerror(-r));
	}
	l->address = p;
	if (madvise(p, l->size, MADV_DONTFORK) < 0) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "cannot keep the lease from being forked: %s", strerror(-r));
	}
	return 0;
}

int plain_range(struct memctl_lease *l, enum range_op op, uint64_t offset, uint64_t length, struct memctl_error *e)
{
	int r = 0;

	switch (op) {
	case RANGE_DISCARD:
		r = madvise(l->address + offset, length, MADV_DONTNEED);
		break;
	case RANGE_POPULATE:
	case RANGE_PIN:
		r = madvise(l->address + offset, length, MADV_POPULATE_WRITE);
		break;
	case RANGE_WILL_NEED:
	case RANGE_DONT_NEED:
	case RANGE_UNPIN:
		break;
	}
	if (r < 0) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "madvise: %s", strerror(-r));
	}
	return 0;
}
