/* Which pages get the mappings that a client may have: the rule, in numbers.
 *
 * A run of pages that is mapped from the pool takes two mappings, or fewer beside another, however long it is.  So a mapping is
 * *worth* the pages that it maps, and there are never enough of them for pages that lie alone.  What comes next is not known, so:
 *
 *	Anybody may have a mapping, but for the last few, the *reserve*.  These are for those who make more of them: where 1/n of
 *	the reserve is left, a run must have n times the pages of one that lies alone.
 *	What is worth less than a quarter of what is asked for now is brought home, the least first, until it is half, or half of
 *	the reserve is there.  A page that nobody else has (any more) saves nothing, and is counted half.
 *
 * So a run finds mappings at once, also after a thousand lone pages, and what it took is taken from them later.  Nothing goes
 * round: a lone page that was brought home comes back only when the whole reserve is there, of which it gave back half at
 * the most; the rest must have come free otherwise.
 *
 * An entry for a lone page saves something only if all who have that page map it.  When each *founds* what he comes upon first, he
 * spends his mappings on pages that others have not chosen (four VMs with three quarters of what they need: 0.91 of what
 * those mappings could save).  So once half of them are in use he may found, in a pass of the scan, one part of what was left
 * when it began, of as many as there are members: what all found has room everywhere then.  What others have founded may be
 * mapped at any time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MAPPINGS_RESERVE_PART 256u
#define MAPPINGS_RESERVE_MIN  16u
#define MAPPINGS_RECALL	      4u	/* what is worth less than this part of what is asked for is brought home, */
#define MAPPINGS_RELIEF	      2u	/* until it is worth this part */
#define MAPPINGS_FOUND_MIN    64u	/* it is no matter who founds so many */

static inline uint64_t mappings_reserve(uint64_t budget)
{
	uint64_t part = budget / MAPPINGS_RESERVE_PART;

	return part > MAPPINGS_RESERVE_MIN ? part : MAPPINGS_RESERVE_MIN;
}

/* Whether a run of `pages` may take `cost` of the `left` mappings. */
static inline bool mappings_allow(uint64_t budget, uint64_t left, uint64_t pages, uint64_t cost)
{
	return cost <= left && 2 * pages * left >= mappings_reserve(budget) * cost;
}

/* Whether a run with so many half pages, which would give back `gives` mappings, is worth less than one part in `part` of what is
 * asked for. */
static inline bool mappings_poor(uint64_t budget, uint64_t left, uint64_t halves, uint64_t gives, unsigned part)
{
	uint64_t reserve = mappings_reserve(budget);

	return 2 * left <= reserve && halves * (left ? left : 1) * part < reserve * gives;
}

/* Where founding ends in a pass that began with `left`: the mappings that must stay. */
static inline uint64_t mappings_found_floor(uint64_t left, uint64_t members)
{
	uint64_t part = left / (members > 1 ? members : 2);

	part = part > MAPPINGS_FOUND_MIN ? part : MAPPINGS_FOUND_MIN;
	return left > part ? left - part : 0;
}

static inline bool mappings_may_found(uint64_t budget, uint64_t left, uint64_t floor)
{
	return 2 * left > budget || (left > floor && left >= mappings_reserve(budget));
}
