/* The resources of a VM in words: resources.h. */
#include "tests/lib/check.h"
#include "resources.h"

#include <string.h>

#define MIB (1ull << 20)

static struct vm_config config;
static const char *field;
static char why[200];

static int parse(const char *reservation, const char *limit, const char *shares, const char *balloon_max, const char *stall_budget)
{
	config = (struct vm_config){ .size_bytes = 100 * MIB, .reservation_bytes = 1, .limit_bytes = 2, .shares = 3, .balloon_max_bytes = 4,
		.stall_budget_permille = 5 };
	return resources_parse(&(struct resource_words){ reservation, limit, shares, balloon_max, stall_budget }, &config, &field, why,
		sizeof why);
}

static void words_are_understood(void)
{
	CHECK_EQ(parse("", "", "", "", ""), 0);
	CHECK(config.reservation_bytes == 1 && config.limit_bytes == 2 && config.shares == 3 && config.balloon_max_bytes == 4 &&
		config.stall_budget_permille == 5);
	CHECK_EQ(parse("512K", "40%", "high", "65%", "3%"), 0);
	CHECK_EQ(config.reservation_bytes, 512 << 10);
	CHECK_EQ(config.limit_bytes, 40 * MIB);
	CHECK_EQ(config.shares, 2000);
	CHECK(config.balloon_max_bytes == (VM_OWN | 65 * MIB));
	CHECK(config.stall_budget_permille == (VM_OWN | 30));
	CHECK_EQ(parse("none", "none", "0", "0", "none"), 0);
	CHECK(config.reservation_bytes == 0 && config.limit_bytes == 0 && config.shares == 0);
	CHECK(config.balloon_max_bytes == VM_OWN && config.stall_budget_permille == VM_OWN);
	CHECK_EQ(parse("0", "4096", "low", "default", "default"), 0);
	CHECK(config.shares == 500 && config.balloon_max_bytes == 0 && config.stall_budget_permille == 0);
	/* rounded down to pages: 0.1 % of 25600 is 25.6 */
	CHECK_EQ(parse("0.1%", "100%", "normal", "100%", "0.5%"), 0);
	CHECK_EQ(config.reservation_bytes, 25 * PAGE_SIZE);
	CHECK_EQ(config.limit_bytes, 100 * MIB);
	CHECK_EQ(config.shares, 1000);
	CHECK(config.stall_budget_permille == (VM_OWN | 5));
	CHECK_EQ(parse("", "", "4294967295", "", ""), 0);
	CHECK_EQ(config.shares, UINT32_MAX);
	CHECK_EQ(resources_normal_shares(4096), 1);
	CHECK_EQ(resources_normal_shares(1ull << 46), 671088640);
}

static void nonsense_is_refused(void)
{
	static const struct {
		const char *words[5], *field;
	} wrong[] = {
		{ { "much", "", "", "", "" }, "reservation" }, { { "-1", "", "", "", "" }, "reservation" }, { { "101%", "", "", "", "" }, "reservation" },
		{ { "5%%", "", "", "", "" }, "reservation" }, { { "5.%", "", "", "", "" }, "reservation" }, { { "5.25%", "", "", "", "" }, "reservation" },
		{ { "default", "", "", "", "" }, "reservation" }, { { "18446744073709551616", "", "", "", "" }, "reservation" },
		{ { "", "0", "", "", "" }, "limit" }, { { "", "0%", "", "", "" }, "limit" }, { { "", "1M ", "", "", "" }, "limit" },
		{ { "", "", "-1", "", "" }, "shares" }, { { "", "", "4294967296", "", "" }, "shares" }, { { "", "", "most", "", "" }, "shares" },
		{ { "", "", "99999999999999999999", "", "" }, "shares" }, { { "", "", "", "none", "" }, "balloon_max" },
		{ { "", "", "", "101M", "" }, "balloon_max" }, { { "", "", "", "", "5" }, "stall_budget" }, { { "", "", "", "", "100.1%" }, "stall_budget" },
		{ { "1M", "1M", "low", "1M", "x" }, "stall_budget" },
	};

	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		const char *const *w = wrong[i].words;

		field = NULL;
		*why = 0;
		CHECK_MSG(parse(w[0], w[1], w[2], w[3], w[4]) < 0, "row %u is taken", i);
		CHECK_MSG(field && !strcmp(field, wrong[i].field), "row %u: %s is at fault", i, field ? field : "nothing");
		CHECK(strstr(why, field) == why && why[strlen(why) - 1] == '.');
	}
}

static void what_it_has_is_said(void)
{
	char text[32];

	CHECK_EQ(parse("", "", "", "default", "default"), 0);
	resources_balloon_max(&config, text);
	CHECK(!strcmp(text, "default"));
	resources_stall_budget(&config, text);
	CHECK(!strcmp(text, "default"));
	CHECK_EQ(parse("", "", "", "8M", "2.5%"), 0);
	resources_balloon_max(&config, text);
	CHECK(!strcmp(text, "8388608"));
	resources_stall_budget(&config, text);
	CHECK(!strcmp(text, "2.5%"));
	CHECK_EQ(parse("", "", "", "0", "none"), 0);
	resources_balloon_max(&config, text);
	CHECK(!strcmp(text, "0"));
	resources_stall_budget(&config, text);
	CHECK(!strcmp(text, "none"));
	CHECK_EQ(parse("", "", "", "0", "100%"), 0);
	resources_stall_budget(&config, text);
	CHECK(!strcmp(text, "100%"));
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){ SCENARIO(words_are_understood), SCENARIO(nonsense_is_refused),
		SCENARIO(what_it_has_is_said), { 0 } });
}
