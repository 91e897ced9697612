/* A refusal with its numbers.
 *
 * Functions return 0 or a negative errno.  Where a refusal has numbers that its reader can act on (how much
 * is needed, how much there is), it is described in a struct problem as well; whoever answers the client
 * turns it into the typed error of the contract (proto/org.memctl.varlink) of the same name. */
#pragma once

#include <stdint.h>

enum problem_kind {
	PROBLEM_NONE,
	PROBLEM_NOT_ENOUGH_MEMORY,	/* need, have: bytes of arena */
	PROBLEM_NOT_ENOUGH_SWAP,	/* need, have: bytes of the swap file system */
	PROBLEM_INVALID_SIZE,		/* need: what was asked; have: the alignment or maximum it breaks */
	PROBLEM_RESERVATION_BEYOND_SIZE, /* need: the reservation; have: the size, or the limit */
	PROBLEM_LEASE_BEYOND_SIZE,	/* need: bytes leased + asked; have: size of the VM */
	PROBLEM_OVERLAP,		/* need: gpa asked; have: gpa of the lease it meets */
	PROBLEM_NO_SUCH_LEASE,
	PROBLEM_LIMIT_REACHED,		/* need: what it would be; have: the maximum */
	PROBLEM_BAD_DESCRIPTOR,		/* a passed fd is not what it must be */
	PROBLEM_BAD_STATE,		/* right call, wrong time: leased twice, not activated yet, ending */
	PROBLEM_SYSTEM,			/* a system call failed; text says which, with errno */
};

struct problem {
	enum problem_kind kind;
	uint64_t need;
	uint64_t have;
	char text[256];			/* one sentence that says what to do */
};

/* Fill `p` (may be NULL) and return -err, so that `return problem_set(...)` reads as one refusal. */
int problem_set(struct problem *p, int err, enum problem_kind kind, uint64_t need, uint64_t have,
	const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* The same for a failed system call: errno is appended to the sentence, -errno returned. */
int problem_errno(struct problem *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
