/* Whether a VM can be let in, or given other settings: what it must be able to count on is there.
 *
 *	arena		reservation + overhead + break reserve <= what is not promised yet, nor kept back for reclaim
 *	swap		a file of size - reservation, preallocated
 *
 * A VM that runs and asks for no more of the arena than it has been promised asks for nothing: after a restart with a smaller
 * arena more may be promised than there is, and to ask for less is the way out.
 *
 * The break reserve are the frames by which writes to shared pages go on while nothing else is free. */
#pragma once

#include <stdint.h>

enum policy_admission_verdict {
	POLICY_ADMITTED,
	POLICY_NO_ARENA,
	POLICY_NO_SWAP,
	POLICY_RESERVATION_ABOVE_SIZE,
	POLICY_LIMIT_BELOW_RESERVATION,
};

struct policy_admission {
	/* in: the host */
	uint64_t capacity_frames;
	uint64_t reserved_frames;	/* promised to all VMs, this one's present promise not among them */
	uint64_t promised_frames;	/* this one's present promise; 0: it is new */
	uint64_t kept_frames;		/* that nobody can be promised: the reserve by which reclaim works */
	uint64_t swap_free_frames;	/* room for this VM's file, what it has now included */
	/* in: the VM as it is to be */
	uint64_t size_frames, reservation_frames, limit_frames, overhead_frames, break_reserve_frames;
	/* out */
	uint64_t need_frames, have_frames;	/* arena */
	uint64_t swap_need_frames, swap_have_frames;
	enum policy_admission_verdict verdict;
};

void policy_admission(struct policy_admission *a);
/* A VM's frames for breaks: 1/64 of what can be shared, at least 16, at most 1024; 0 without sharing. */
uint64_t policy_break_reserve_frames(uint64_t size_frames, int sharing);
