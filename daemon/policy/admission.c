#include "policy/admission.h"

static uint64_t above(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

uint64_t policy_break_reserve_frames(uint64_t size_frames, int sharing)
{
	uint64_t frames = size_frames / 64;

	if (!sharing)
		return 0;
	return frames < 16 ? 16 : frames > 1024 ? 1024 : frames;
}

void policy_admission(struct policy_admission *a)
{
	a->need_frames = a->reservation_frames + a->overhead_frames + a->break_reserve_frames;
	a->have_frames = above(a->capacity_frames, a->kept_frames + a->reserved_frames);
	a->swap_need_frames = above(a->size_frames, a->reservation_frames);
	a->swap_have_frames = a->swap_free_frames;
	if (a->reservation_frames > a->size_frames)
		a->verdict = POLICY_RESERVATION_ABOVE_SIZE;
	else if (a->limit_frames < a->reservation_frames)
		a->verdict = POLICY_LIMIT_BELOW_RESERVATION;
	else if (a->need_frames > a->have_frames && a->need_frames > a->promised_frames)
		a->verdict = POLICY_NO_ARENA;
	else
		a->verdict = a->swap_need_frames > a->swap_have_frames ? POLICY_NO_SWAP : POLICY_ADMITTED;
}
