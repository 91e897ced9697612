/* Whether a balloon works: its size and target from time to time in, its state and what it owes out.
 *
 *	none		no driver
 *	responsive	not asked for more, or it makes progress
 *	inactive	asked for more and no progress for POLICY_BALLOON_INACTIVE_NS: the plan does not wait for it, but goes on
 *			asking; the next progress makes it responsive
 *	uncooperative	no progress for POLICY_BALLOON_UNCOOPERATIVE_NS: what is missing is *owed*, and counts as held until it is
 *			given or no longer asked
 *
 * *Progress* is a size that it has not had since it was asked, larger by an eighth of what is missing or 16 MiB, or the
 * target: a balloon that trickles, or breathes in and out, makes none.  A debt that is no longer asked is forgotten, but not who
 * made it: an uncooperative balloon is inactive then, and the next time it is not waited for.  A
 * balloon that takes back, unasked, an eighth of what it had given (or 16 MiB) is inactive for the next twenty seconds at least.
 */
#pragma once

#include "policy/plan.h"

#include <stdbool.h>
#include <stdint.h>

#define POLICY_BALLOON_INACTIVE_NS	(5 * 1000000000ull)
#define POLICY_BALLOON_UNCOOPERATIVE_NS (20 * 1000000000ull)
#define POLICY_BALLOON_STEP_FRAMES	4096	/* progress enough, however much is missing */

/* Zero-initialised when the VM comes. */
struct policy_balloon {
	enum policy_balloon_state state;	/* out */
	uint64_t owed_frames;			/* out */
	uint64_t best_frames;			/* the largest size since it was asked */
	uint64_t since_ns;			/* of the last progress, or of the question */
	uint64_t met_ns;			/* since when it is at its target */
	uint64_t took_ns;			/* when it last took back what it had given */
	bool asked, met, distrusted;
};

/* At each look, and when a driver comes or goes.  `target_frames` is what it has been told. */
void policy_balloon_step(struct policy_balloon *b, uint64_t now_ns, bool driver, uint64_t size_frames,
	uint64_t target_frames);
