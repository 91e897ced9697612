#include "policy/balloon.h"

static uint64_t step_of(uint64_t frames)
{
	return frames / 8 < POLICY_BALLOON_STEP_FRAMES ? frames / 8 : POLICY_BALLOON_STEP_FRAMES;
}

static bool progresses(const struct policy_balloon *b, uint64_t size, uint64_t target)
{
	if (size <= b->best_frames)
		return false;
	return size >= target || size - b->best_frames >= step_of(target - b->best_frames);
}

/* It takes back what it has given, unasked. */
static bool takes_back(const struct policy_balloon *b, uint64_t size, uint64_t target)
{
	uint64_t had = b->best_frames < target ? b->best_frames : target;

	return had > size && had - size > step_of(had);
}

void policy_balloon_step(struct policy_balloon *b, uint64_t now_ns, bool driver, uint64_t size, uint64_t target)
{
	uint64_t waited;

	if (!driver) {
		*b = (struct policy_balloon){ 0 };
		return;
	}
	if (b->state == POLICY_BALLOON_NONE)
		*b = (struct policy_balloon){ .state = POLICY_BALLOON_RESPONSIVE, .best_frames = size };
	if (takes_back(b, size, target)) {
		b->distrusted = true;
		b->took_ns = now_ns;
		if (b->state == POLICY_BALLOON_RESPONSIVE)
			b->state = POLICY_BALLOON_INACTIVE;
	}
	if (b->distrusted && now_ns - b->took_ns >= POLICY_BALLOON_UNCOOPERATIVE_NS)
		b->distrusted = false;
	/* what is no longer asked can be asked anew */
	if (b->best_frames > target)
		b->best_frames = target;
	if (progresses(b, size, target)) {
		b->best_frames = size;
		b->since_ns = now_ns;
		b->state = b->distrusted ? POLICY_BALLOON_INACTIVE : POLICY_BALLOON_RESPONSIVE;
	}
	if (size >= target) {
		b->owed_frames = 0;
		if (b->state == POLICY_BALLOON_UNCOOPERATIVE)
			b->state = POLICY_BALLOON_INACTIVE;
		if (!b->met)
			b->met_ns = now_ns;
		b->met = true;
		return;
	}
	/* a target that was kept for a while is done with; one that is touched now and then is still the same question */
	if (b->met && now_ns - b->met_ns >= POLICY_BALLOON_INACTIVE_NS)
		b->asked = false;
	b->met = false;
	if (!b->asked) {
		b->asked = true;
		b->best_frames = size;
		b->since_ns = now_ns;
	}
	waited = now_ns - b->since_ns;
	if (waited >= POLICY_BALLOON_UNCOOPERATIVE_NS)
		b->state = POLICY_BALLOON_UNCOOPERATIVE;
	else if (waited >= POLICY_BALLOON_INACTIVE_NS && b->state == POLICY_BALLOON_RESPONSIVE)
		b->state = POLICY_BALLOON_INACTIVE;
	b->owed_frames = b->state == POLICY_BALLOON_UNCOOPERATIVE ? target - size : 0;
}
