/* mem/mappings: which pages get the mappings that a client may have.  Each rule stands beside a twin with the rule off, which
 * must do what the rule forbids. */
#include "mem/mappings.h"
#include "tests/lib/check.h"

#include <stdlib.h>
#include <string.h>

/* ---- one client, and runs that come and wait ---- */

#define RUNS_MOST 30000u

static struct {
	uint64_t budget, used;
	uint32_t n, homes;
	uint16_t pages[RUNS_MOST];
	bool mapped[RUNS_MOST];
	bool no_reserve;	/* twin */
} vm;

static void begin(uint64_t budget)
{
	memset(&vm, 0, sizeof vm);
	vm.budget = budget;
}

static uint64_t left(void)
{
	return vm.budget - vm.used;
}

static bool try_map(uint32_t i)
{
	if (vm.no_reserve ? left() < 2 : !mappings_allow(vm.budget, left(), vm.pages[i], 2))
		return false;
	vm.mapped[i] = true;
	vm.used += 2;
	CHECK(vm.used <= vm.budget);
	return true;
}

static bool come(unsigned pages)
{
	vm.pages[vm.n] = (uint16_t)pages;
	return try_map(vm.n++);
}

/* As share.c does at a tick. */
static void recall(void)
{
	for (unsigned most = 1; most <= 32 && mappings_poor(vm.budget, left(), most, 2, MAPPINGS_RECALL); most *= 2)
		for (uint32_t i = 0; i < vm.n && mappings_poor(vm.budget, left(), most, 2, MAPPINGS_RELIEF); i++)
			if (vm.mapped[i] && 2u * vm.pages[i] <= most) {
				vm.mapped[i] = false;
				vm.used -= 2;
				vm.homes++;
			}
}

/* The hand goes round, and ticks go by. */
static void pass(void)
{
	for (uint32_t i = 0; i < vm.n; i++) {
		if (!vm.mapped[i])
			try_map(i);
		if (i % 16 == 15)
			recall();
	}
	recall();
}

static uint32_t mapped(unsigned pages)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < vm.n; i++)
		n += vm.mapped[i] && vm.pages[i] == pages;
	return n;
}

static void a_run_finds_mappings_after_a_thousand_lone_pages(void)
{
	static const uint64_t budgets[] = { 17, 60, 143, 1000, 49103, 786000 };

	for (unsigned i = 0; i < sizeof budgets / sizeof *budgets; i++) {
		begin(budgets[i]);
		for (unsigned k = 0; k < 1000; k++)
			come(1);
		CHECK(come(64));
		CHECK(come(64));
		/* nearly all of a large budget is for anybody */
		CHECK(left() <= (budgets[i] > 2000 ? budgets[i] : MAPPINGS_RESERVE_MIN + 2));
	}
	begin(49103);
	while (come(1))
		;
	CHECK(vm.used > 49103 * 995 / 1000);
	/* twin: without the reserve the second comes too late */
	begin(143);
	vm.no_reserve = true;
	for (unsigned k = 0; k < 1000; k++)
		come(1);
	CHECK_EQ(mapped(1), 71);
	CHECK(!come(64));
}

/* Ever more runs: lone pages make room for them, and at last there are none left. */
static void runs_take_the_place_of_lone_pages(void)
{
	begin(2000);
	for (unsigned k = 0; k < 2000; k++)
		come(1);
	CHECK(mapped(1) > 980);
	for (unsigned k = 0; k < 990; k++) {
		come(16);
		if (k % 4 == 0)
			recall();
	}
	for (unsigned k = 0; k < 4; k++)
		pass();
	CHECK_MSG(mapped(16) > 980 && mapped(1) < 10, "%u runs, %u lone pages", mapped(16), mapped(1));
	/* runs of three are not so much better that a page would be brought home for them */
	begin(2000);
	for (unsigned k = 0; k < 2000; k++)
		come(1);
	for (unsigned k = 0; k < 1000; k++)
		come(3);
	for (unsigned k = 0; k < 4; k++)
		pass();
	CHECK_EQ(vm.homes, 0);
	CHECK(mapped(3) > 0);
}

static uint32_t homes_when_nothing_changes(void)
{
	uint32_t before;
	uint64_t seed = 7;

	for (unsigned k = 0; k < 3000; k++) {
		seed = seed * 6364136223846793005ull + 1;
		come(seed >> 62 ? 1 : 1 + (seed >> 40) % 64);
		if (k % 16 == 15)
			recall();
	}
	for (unsigned k = 0; k < 4; k++)
		pass();
	before = vm.homes;
	for (unsigned k = 0; k < 20; k++)
		pass();
	return vm.homes - before;
}

static void nothing_goes_round(void)
{
	static const uint64_t budgets[] = { 60, 143, 600, 2000, 5000, 49103 };

	for (unsigned i = 0; i < sizeof budgets / sizeof *budgets; i++) {
		begin(budgets[i]);
		CHECK_EQ(homes_when_nothing_changes(), 0);
		CHECK(budgets[i] > 2000 || vm.homes > 0);
	}
	/* twin: whoever takes what anybody gives up, without a reserve, is sent home in each pass */
	begin(600);
	vm.no_reserve = true;
	CHECK(homes_when_nothing_changes() > 20);
}

static void what_saves_nothing_goes_first(void)
{
	uint64_t reserve = mappings_reserve(5000);

	/* a lone page that nobody else maps, a lone page, two in a row */
	CHECK(!mappings_poor(5000, reserve / 2 + 1, 1, 2, MAPPINGS_RECALL));
	CHECK(mappings_poor(5000, reserve / 2, 1, 2, MAPPINGS_RECALL) && !mappings_poor(5000, reserve / 2, 2, 2, MAPPINGS_RECALL));
	CHECK(mappings_poor(5000, reserve / 4, 2, 2, MAPPINGS_RECALL) && !mappings_poor(5000, reserve / 4, 4, 2, MAPPINGS_RECALL));
	/* with none left even a run goes, but what gives back nothing stays */
	CHECK(mappings_poor(5000, 0, 8, 2, MAPPINGS_RECALL));
	CHECK(!mappings_poor(5000, 0, 1, 0, MAPPINGS_RECALL));
}

/* ---- members that have the same pages, in different order ---- */

#define MEMBERS 4u
#define CONTENTS 8192u
#define BATCH	64u

static uint16_t order[MEMBERS][CONTENTS];
static bool maps[MEMBERS][CONTENTS];	/* by content */
static uint8_t users[CONTENTS], hinted[CONTENTS];
static uint64_t took[MEMBERS], pass_floor[MEMBERS];

static void shuffle(uint16_t *a, uint64_t seed)
{
	for (unsigned i = 0; i < CONTENTS; i++)
		a[i] = (uint16_t)i;
	for (unsigned n = CONTENTS; n > 1; n--) {
		unsigned j;
		uint16_t last = a[n - 1];

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		j = (unsigned)(seed >> 33) % n;
		a[n - 1] = a[j];
		a[j] = last;
	}
}

static void map_page(unsigned m, unsigned content)
{
	maps[m][content] = true;
	users[content]++;
	took[m] += 2;
}

static void look(unsigned m, unsigned content, uint64_t budget, bool limited)
{
	if (maps[m][content] || !mappings_allow(budget, budget - took[m], 1, 2))
		return;
	if (users[content]) {
		map_page(m, content);
	} else if (!hinted[content] || hinted[content] == m + 1) {
		hinted[content] = (uint8_t)(m + 1);
	} else if (!limited || mappings_may_found(budget, budget - took[m], pass_floor[m])) {
		unsigned other = hinted[content] - 1u;

		map_page(m, content);
		if (mappings_allow(budget, budget - took[other], 1, 2))
			map_page(other, content);
	}
}

/* What is saved after so many passes, of what so many mappings can save. */
static double saving(uint64_t budget, bool limited, unsigned passes)
{
	uint64_t pages = 0, entries = 0, most = budget / 2 < CONTENTS ? budget / 2 : CONTENTS;

	memset(maps, 0, sizeof maps);
	memset(users, 0, sizeof users);
	memset(hinted, 0, sizeof hinted);
	memset(took, 0, sizeof took);
	for (unsigned m = 0; m < MEMBERS; m++) {
		shuffle(order[m], m + 1);
		pass_floor[m] = UINT64_MAX;
	}
	for (unsigned k = 0; k < passes; k++) {
		for (unsigned at = 0; at < CONTENTS; at += BATCH)
			for (unsigned m = 0; m < MEMBERS; m++)
				for (unsigned i = at; i < at + BATCH; i++)
					look(m, order[m][i], budget, limited);
		for (unsigned m = 0; m < MEMBERS; m++)
			pass_floor[m] = mappings_found_floor(budget - took[m], MEMBERS);
	}
	for (unsigned c = 0; c < CONTENTS; c++) {
		pages += users[c];
		entries += users[c] > 0;
	}
	return (double)(pages - entries) / (double)(most * (MEMBERS - 1));
}

static void members_choose_the_same_pages(void)
{
	for (uint64_t part = 2; part <= 8; part++) {
		uint64_t budget = 2 * CONTENTS * part / 10;
		double all = saving(budget, true, 12);

		CHECK_MSG(all > 0.98, "%.3f of what %llu mappings can save", all, (unsigned long long)budget);
	}
	/* twin: each founds what it comes upon first */
	CHECK(saving(2 * CONTENTS * 3 / 4, false, 12) < 0.93);
	CHECK(saving(2 * CONTENTS / 2, false, 12) < 0.85);
	/* where mappings are not scarce nobody waits for another pass */
	CHECK(saving(2 * CONTENTS * 5 / 2, true, 1) > 0.999);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(a_run_finds_mappings_after_a_thousand_lone_pages),
		SCENARIO(runs_take_the_place_of_lone_pages),
		SCENARIO(nothing_goes_round),
		SCENARIO(what_saves_nothing_goes_first),
		SCENARIO(members_choose_the_same_pages),
		{ 0 } });
}
