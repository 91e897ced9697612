/* The safety rules of policy/plan.h by name.  They always hold, except in the simulator's own build (POLICY_TWIN), which
 * turns one off to see that its scenario then fails. */
#pragma once

enum policy_rule {
	RULE_FLOOR = 1 << 0,		/* never below the reservation */
	RULE_HYSTERESIS = 1 << 1,	/* reclaim goes on from soft to the goal, states stay a while */
	RULE_TWO_PHASES = 1 << 2,	/* free first, then give */
	RULE_FORCE = 1 << 3,		/* a balloon that does not work is not waited for */
	RULE_DEBT = 1 << 4,		/* what a balloon owes counts as held */
	RULE_HARD = 1 << 5,		/* in hard and low no balloon is waited for */
	RULE_BUDGET = 1 << 6,		/* above its stall budget a VM is spared... */
	RULE_BUDGET_END = 1 << 7,	/* ...but only as long as the others can give */
	RULE_BLOCK = 1 << 8,		/* in low new pages of who is above its target wait... */
	RULE_BLOCK_END = 1 << 9,	/* ...but only while somebody gives */
	RULE_TAX = 1 << 10,		/* idle memory counts more */
	RULE_BALANCE = 1 << 12,		/* not short, but who is ballooned gets what it is entitled to now */
	RULE_ONCE = 1 << 13,		/* the same free memory is not promised twice */
	RULE_ROOM = 1 << 11,		/* a balloon leaves room for the reservation, and its cap holds */
};

#ifdef POLICY_TWIN
extern unsigned policy_rules_off;
#define RULE(rule) (!(policy_rules_off & (rule)))
#else
#define RULE(rule) 1
#endif
