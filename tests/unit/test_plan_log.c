/* plan_log.c alone: which plans get a row, and for how many it stands.  The history is played by this file. */
#include "plan_log.h"

#include "base/clock.h"
#include "tests/lib/check.h"

#include <string.h>

static struct {
	uint64_t ts_ms, plans, state, charged;
	size_t n;
	char first[16];
} rows[256];
static unsigned n_rows;

static size_t column(const struct record_number *numbers, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(numbers[i].name, name))
			return i;
	CHECK_MSG(false, "no column %s", name);
	return 0;
}

void record_plan(struct record *r, uint64_t ts_ms, const uint64_t *values, const struct record_plan_vm *vms, size_t n)
{
	rows[n_rows].ts_ms = ts_ms;
	rows[n_rows].plans = values[column(plan_log_numbers, plan_log_number_count, "plans")];
	rows[n_rows].state = values[column(plan_log_numbers, plan_log_number_count, "next_state")];
	rows[n_rows].n = n;
	if (n) {
		strncpy(rows[n_rows].first, vms[0].vm, sizeof rows->first - 1);
		rows[n_rows].charged = vms[0].values[column(plan_log_vm_numbers, plan_log_vm_number_count, "charged_frames")];
	}
	n_rows++;
}

static struct record *const history = (struct record *)rows;	/* only passed round */
static const char *const names[] = { "a", "b" };
static struct policy_vm in[2];
static struct policy_vm_plan out[2];
static struct policy_plan plan;
static struct policy_view view = { .n_vms = 2, .vms = in };
static struct plan_log g;

#define MS (NS_PER_S / 1000)

static void add(uint64_t ms)
{
	plan_log_add(&g, 100 * NS_PER_S + ms * MS, 5000 + ms, &view, &plan, out, names);
}

static void begin(void)
{
	g = (struct plan_log){ .record = history };
}

static void a_decision_that_stays_has_a_row_a_second(void)
{
	begin();
	add(0);
	CHECK(n_rows == 1 && rows[0].plans == 1 && rows[0].ts_ms == 5000 && rows[0].n == 2 && !strcmp(rows[0].first, "a"));
	for (uint64_t ms = 10; ms < 1000; ms += 10) {
		in[0].charged_frames = ms;
		add(ms);
	}
	CHECK_EQ(n_rows, 1);
	add(1000);
	/* the row is that of the last plan, and stands for all since the one before */
	CHECK(n_rows == 2 && rows[1].plans == 100 && rows[1].charged == 990 && rows[1].ts_ms == 6000);
	add(1010);
	plan_log_rest(&g, 200 * NS_PER_S, 7000, &view, &plan, out, names);
	CHECK(n_rows == 3 && rows[2].plans == 1);
	plan_log_rest(&g, 200 * NS_PER_S, 7001, &view, &plan, out, names);
	CHECK_EQ(n_rows, 3);
	plan_log_fini(&g);
}

static void a_new_decision_has_a_row_at_once(void)
{
	begin();
	add(0);
	out[1].technique = POLICY_TECHNIQUE_BALLOON;
	add(0);
	/* two plans of one millisecond have two names */
	CHECK(n_rows == 2 && rows[1].ts_ms == 5001);
	out[1].cause = POLICY_CAUSE_HOST;
	add(10);
	plan.next_state = HOST_SOFT;
	add(20);
	CHECK(n_rows == 4 && rows[3].state == HOST_SOFT);
	/* other numbers are no other decision */
	out[1].host_take_frames = 17;
	add(30);
	CHECK_EQ(n_rows, 4);
	plan_log_fini(&g);
}

static void a_storm_of_decisions_is_counted(void)
{
	uint64_t sum = 0, n = 1000;

	begin();
	for (uint64_t i = 0; i < n; i++) {
		out[0].technique = i % 2 ? POLICY_TECHNIQUE_SWAP : POLICY_TECHNIQUE_COMPRESS;
		add(10 * i);
	}
	/* ten seconds of them */
	CHECK_MSG(n_rows >= 100 && n_rows <= PLAN_LOG_BURST + 11 * PLAN_LOG_RATE, "%u rows", n_rows);
	plan_log_rest(&g, 200 * NS_PER_S, 99999, &view, &plan, out, names);
	for (unsigned i = 0; i < n_rows; i++) {
		sum += rows[i].plans;
		CHECK(!i || rows[i].ts_ms > rows[i - 1].ts_ms);
	}
	CHECK_EQ(sum, n);
	plan_log_fini(&g);
}

/* Somebody calls for plans that change nothing, and each might be the last for a while. */
static void a_storm_at_rest_is_counted(void)
{
	uint64_t sum = 0, n = 3000;
	bool later = false;

	begin();
	for (uint64_t i = 0; i < n; i++) {
		add(i);
		later |= plan_log_rest(&g, 100 * NS_PER_S + i * MS, 5000 + i, &view, &plan, out, names);
	}
	CHECK(later);
	CHECK_MSG(n_rows <= PLAN_LOG_BURST + 4 * PLAN_LOG_RATE, "%u rows", n_rows);
	CHECK(!plan_log_rest(&g, 300 * NS_PER_S, 99999, &view, &plan, out, names));
	for (unsigned i = 0; i < n_rows; i++)
		sum += rows[i].plans;
	CHECK_EQ(sum, n);
	plan_log_fini(&g);
}

static void without_a_history_nothing_is_kept(void)
{
	g = (struct plan_log){ 0 };
	add(0);
	plan_log_rest(&g, 200 * NS_PER_S, 1, &view, &plan, out, names);
	CHECK_EQ(n_rows, 0);
	plan_log_fini(&g);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(a_decision_that_stays_has_a_row_a_second),
		SCENARIO(a_new_decision_has_a_row_at_once),
		SCENARIO(a_storm_of_decisions_is_counted), SCENARIO(a_storm_at_rest_is_counted),
		SCENARIO(without_a_history_nothing_is_kept),
		{ 0 } });
}
