/* policy/sharing, policy/scan: who shares with whom, and how fast pages are looked at.  The clock is a number here: each
 * rule of the scan stands beside a twin with the rule off, which must do what the rule forbids.  And host_ghz, its measure. */
#include "base/clock.h"
#include "host_ghz.h"
#include "policy/scan.h"
#include "policy/sharing.h"
#include "tests/lib/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MINUTE_NS (60 * NS_PER_S)
#define GIB	  262144ull /* pages */

/* ---- who ---- */

#define DAEMON 100
#define USER   1000

static const char *const kinds[] = { "off", "zero", "vm", "group", "refused" };

static void what_is_asked_for_and_what_comes(void)
{
	static const struct {
		unsigned force;
		const char *asked;
		bool listed, permitted;
		const char *kind, *group;
	} rows[] = {
		{ 2, "", false, false, "vm", "" },
		{ 2, "", true, true, "vm", "" },
		{ 2, "off", false, false, "off", "" },
		{ 2, "zero", false, false, "zero", "" },
		{ 2, "vm", false, false, "vm", "" },
		{ 2, "group:web", false, false, "refused", "" },
		{ 2, "group:web", true, false, "refused", "" },
		{ 2, "group:web", true, true, "group", "web" },
		{ 2, "group:common", false, false, "refused", "" },
		{ 1, "", false, false, "group", "common" },
		{ 1, "", true, true, "group", "common" },
		{ 1, "", true, false, "vm", "" },
		{ 1, "off", false, false, "off", "" },
		{ 1, "zero", false, false, "zero", "" },
		{ 1, "vm", false, false, "vm", "" },
		{ 1, "group:web", false, false, "group", "web" },
		{ 1, "group:web", true, false, "refused", "" },
		{ 1, "group:web", true, true, "group", "web" },
		{ 0, "", false, false, "group", "common" },
		{ 0, "", true, false, "vm", "" },
		{ 0, "vm", false, false, "vm", "" },
		{ 0, "group:web", false, false, "group", "web" },
		{ 0, "group:web", true, false, "refused", "" },
	};

	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct policy_sharing_request q = { .force_salting = rows[i].force, .asked = rows[i].asked,
			.listed = rows[i].listed, .permitted = rows[i].permitted, .uid = USER, .own_uid = DAEMON };
		struct policy_sharing s;

		policy_sharing(&q, &s);
		CHECK_MSG(!strcmp(kinds[s.kind], rows[i].kind) && !strcmp(s.group, rows[i].group), "row %u: %s %s", i,
			kinds[s.kind], s.group);
		CHECK(!s.writable);
		CHECK((s.kind == POLICY_SHARING_REFUSED) == (s.why != NULL));
	}
	CHECK(!*policy_sharing_group(2, "") && !*policy_sharing_group(1, "vm"));
	CHECK(!strcmp(policy_sharing_group(1, ""), "common") && !strcmp(policy_sharing_group(2, "group:a"), "a"));
}

/* A descriptor that only reads is no wall against root and against the daemon's own user. */
static void who_could_write_stays_outside(void)
{
	static const struct {
		uint32_t uid, own;
		bool with_root;
		const char *asked_for, *unasked;
		bool writable;
	} rows[] = {
		{ USER, 0, false, "group", "group", false },
		{ USER, DAEMON, false, "group", "group", false },
		{ 0, 0, false, "refused", "vm", true },
		{ 0, DAEMON, false, "refused", "vm", true },
		{ DAEMON, DAEMON, false, "group", "group", true },	/* rootless: all is one user's */
		{ 0, 0, true, "group", "group", true },			/* twins: the rule off */
		{ 0, DAEMON, true, "group", "group", true },
	};

	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct policy_sharing_request q = { .force_salting = 1, .asked = "group:web", .with_root = rows[i].with_root,
			.uid = rows[i].uid, .own_uid = rows[i].own };
		struct policy_sharing s;

		policy_sharing(&q, &s);
		CHECK_MSG(!strcmp(kinds[s.kind], rows[i].asked_for), "row %u: %s", i, kinds[s.kind]);
		CHECK(s.kind == POLICY_SHARING_REFUSED || s.writable == rows[i].writable);
		q.asked = "";
		policy_sharing(&q, &s);
		CHECK_MSG(!strcmp(kinds[s.kind], rows[i].unasked), "row %u, unasked: %s", i, kinds[s.kind]);
		q.asked = "vm";
		policy_sharing(&q, &s);
		CHECK_EQ(s.kind, POLICY_SHARING_VM);
		CHECK_EQ(s.writable, rows[i].writable);
	}
}

/* ---- how fast ---- */

/* The defaults on a host of two processors of 2.5 GHz: 20 MiB/s, 5120 pages a second. */
static struct policy_scan_settings defaults(void)
{
	return (struct policy_scan_settings){ .scan_time_min = 60, .mib_per_ghz = 4, .rate_max = 1024, .host_ghz = 5 };
}

#define VMS_MOST 8
static struct policy_scan_vm vms[VMS_MOST];
static uint64_t hand[VMS_MOST], reads[VMS_MOST];

static void fresh(size_t n, uint64_t pages)
{
	memset(vms, 0, sizeof vms);
	memset(hand, 0, sizeof hand);
	memset(reads, 0, sizeof reads);
	for (size_t i = 0; i < n; i++)
		vms[i].pages = pages;
}

/* Time passes in periods as uneven as a loop's timer. */
static void run(const struct policy_scan_settings *s, bool pressed, size_t n, uint64_t ns)
{
	struct policy_scan_vm *all[VMS_MOST];
	static const uint64_t periods_ms[] = { 100, 101, 100, 137, 100, 99, 250, 100 };

	for (size_t i = 0; i < n; i++)
		all[i] = &vms[i];
	for (unsigned k = 0; ns; k++) {
		uint64_t period = periods_ms[k % (sizeof periods_ms / sizeof *periods_ms)] * NS_PER_MS;

		period = period < ns ? period : ns;
		ns -= period;
		policy_scan(s, pressed, period, all, n);
		for (size_t i = 0; i < n; i++) {
			CHECK(vms[i].read_pages <= vms[i].hand_pages + 1);
			hand[i] += vms[i].hand_pages;
			reads[i] += vms[i].read_pages;
		}
	}
}

static bool near(uint64_t value, double expected, double part)
{
	return fabs((double)value - expected) <= expected * part + 1;
}
#define CHECK_NEAR(value, expected, part) \
	CHECK_MSG(near(value, expected, part), #value " is %llu, not %g", (unsigned long long)(value), (double)(expected))

static void a_pass_takes_share_scan_time(void)
{
	static const uint64_t sizes[] = { 1, 7, 256, 2560, GIB / 4, GIB, 3 * GIB };
	struct policy_scan_settings s = defaults();

	for (uint64_t minutes = 1; minutes <= 600; minutes = minutes * 5 + 1) {
		for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			s.scan_time_min = minutes;
			fresh(1, sizes[i]);
			run(&s, false, 1, minutes * MINUTE_NS);
			CHECK_NEAR(hand[0], sizes[i], 0.0001);
		}
	}
}

static void share_scan_time_0_is_off(void)
{
	struct policy_scan_settings s = defaults();

	s.scan_time_min = 0;
	fresh(2, GIB);
	run(&s, false, 2, MINUTE_NS);
	CHECK_EQ(hand[0] + hand[1] + reads[0] + reads[1], 0);
	/* a forced pass takes no notice of it */
	run(&s, true, 1, MINUTE_NS);
	CHECK(reads[0] > 0);
	vms[1].asked = true;
	run(&s, false, 2, NS_PER_S);
	CHECK(reads[1] > 0);
}

static void share_rate_max_is_kept(void)
{
	struct policy_scan_settings s = defaults();

	/* pressed, and so large that the hand is no bound */
	fresh(2, 64 * GIB);
	run(&s, true, 2, MINUTE_NS);
	CHECK_NEAR(reads[0], 1024 * 60, 0.1);
	CHECK_NEAR(reads[1], 1024 * 60, 0.1);
	/* asked for by an operator, also where nothing goes by itself: still no faster */
	s.scan_time_min = s.mib_per_ghz = 0;
	fresh(1, 64 * GIB);
	vms[0].asked = true;
	run(&s, false, 1, MINUTE_NS);
	CHECK_NEAR(reads[0], 1024 * 60, 0.1);
	/* a pass in the background that would have to be faster is not */
	s = defaults();
	s.scan_time_min = 1;
	fresh(1, 64 * GIB);
	run(&s, false, 1, MINUTE_NS);
	CHECK_NEAR(reads[0], 1024 * 60, 0.1);
	/* 3 pages a second are 3 pages a second */
	s.rate_max = 3;
	fresh(1, 64 * GIB);
	run(&s, true, 1, 10 * MINUTE_NS);
	CHECK_NEAR(reads[0], 3 * 600, 0.01);
	/* twin: without the rule it is the hand that bounds */
	s.rate_max = 10000000;
	s.mib_per_ghz = 1000000;
	fresh(1, 64 * GIB);
	run(&s, true, 1, MINUTE_NS);
	CHECK(reads[0] > 10 * 1024 * 60);
}

static void share_rate_max_0_is_off(void)
{
	struct policy_scan_settings s = defaults();

	s.rate_max = 0;
	fresh(2, GIB);
	vms[1].asked = true;
	run(&s, true, 2, MINUTE_NS);
	CHECK_EQ(hand[0] + hand[1] + reads[0] + reads[1], 0);
}

static void share_scan_ghz_is_a_budget_of_all(void)
{
	struct policy_scan_settings s = defaults();
	uint64_t all = 0;

	fresh(8, 64 * GIB);
	run(&s, true, 8, MINUTE_NS);
	for (unsigned i = 0; i < 8; i++) {
		CHECK_NEAR(reads[i], 5120 * 60 / 8.0, 0.01);
		all += reads[i];
	}
	CHECK_NEAR(all, 5120 * 60, 0.01);
	/* who needs less than his part leaves it to the others: 20 pages a second of the small one are its hand's */
	s.rate_max = 100000;
	fresh(3, 64 * GIB);
	vms[1].pages = 200;
	run(&s, true, 3, MINUTE_NS);
	CHECK_NEAR(reads[1], 20 * 60, 0.01);
	CHECK_NEAR(reads[0], (5120 - 20) / 2.0 * 60, 0.01);
	CHECK_NEAR(reads[2], (5120 - 20) / 2.0 * 60, 0.01);
	/* twin: without the rule all read as fast as they may */
	s = defaults();
	s.mib_per_ghz = 1000000;
	fresh(8, 64 * GIB);
	run(&s, true, 8, MINUTE_NS);
	CHECK_NEAR(reads[0], 1024 * 60, 0.01);
	/* a slow host, a small budget, many VMs: a page every 25 seconds for each, and no page is lost */
	s.mib_per_ghz = 1;
	s.host_ghz = 0.00125; /* 0.32 pages a second */
	fresh(8, 64 * GIB);
	run(&s, true, 8, 60 * MINUTE_NS);
	CHECK_NEAR(reads[7], 0.04 * 3600, 0.02);
}

static void share_scan_ghz_0_is_off(void)
{
	struct policy_scan_settings s = defaults();

	s.mib_per_ghz = 0;
	fresh(2, GIB);
	run(&s, true, 2, MINUTE_NS);
	CHECK_EQ(hand[0] + reads[0], 0);
	/* the operator's pass does not ask for it */
	vms[1].asked = true;
	run(&s, true, 2, MINUTE_NS);
	CHECK_EQ(hand[0] + reads[0], 0);
	CHECK_NEAR(reads[1], 1024 * 60, 0.1);
}

static void an_operators_pass_takes_nothing_from_others(void)
{
	struct policy_scan_settings s = defaults();

	s.rate_max = 10000000;
	fresh(2, 64 * GIB);
	vms[0].asked = true;
	run(&s, true, 2, MINUTE_NS);
	CHECK_NEAR(reads[1], 5120 * 60, 0.01);
	CHECK(reads[0] > reads[1]);
	/* it goes round once a second at most, however little there is */
	fresh(1, 100);
	vms[0].asked = true;
	run(&s, false, 1, MINUTE_NS);
	CHECK_NEAR(hand[0], 60 * 100, 0.01);
}

static void pressure_begins_a_pass_at_once(void)
{
	struct policy_scan_settings s = defaults();

	fresh(1, 3600); /* one page a second in the background */
	run(&s, false, 1, 10 * NS_PER_S);
	CHECK_NEAR(hand[0], 10, 0.01);
	run(&s, true, 1, 10 * NS_PER_S);
	CHECK_NEAR(hand[0], 10 + 3600, 0.01);
	/* and when it is over, all goes on as before */
	run(&s, false, 1, 10 * NS_PER_S);
	CHECK_NEAR(hand[0], 10 + 3600 + 10, 0.01);
}

static void a_change_acts_at_the_next_tick(void)
{
	struct policy_scan_settings s = defaults();
	uint64_t before;

	fresh(1, 64 * GIB);
	run(&s, true, 1, 10 * NS_PER_S);
	before = reads[0];
	s.rate_max = 100;
	run(&s, true, 1, 100 * NS_PER_MS);
	CHECK_NEAR(reads[0] - before, 10, 0);
	before = reads[0];
	s.rate_max = 0;
	run(&s, true, 1, 100 * NS_PER_MS);
	CHECK_EQ(reads[0], before);
	s.rate_max = 1000;
	run(&s, true, 1, 100 * NS_PER_MS);
	CHECK_NEAR(reads[0] - before, 100, 0);
	before = hand[0];
	s.scan_time_min = 0;
	run(&s, false, 1, 100 * NS_PER_MS);
	CHECK_EQ(hand[0], before);
	s.scan_time_min = 1;
	run(&s, false, 1, 100 * NS_PER_MS);
	CHECK_NEAR(hand[0] - before, 64 * GIB / 600.0, 0.01);
}

static void a_long_pause_is_not_made_up_for(void)
{
	struct policy_scan_settings s = defaults();
	struct policy_scan_vm *one = &vms[0];

	fresh(1, 64 * GIB);
	policy_scan(&s, true, MINUTE_NS, &one, 1);
	CHECK_NEAR(vms[0].read_pages, 1024, 0.01);
	policy_scan(&s, true, 0, &one, 1);
	CHECK_EQ(vms[0].read_pages + vms[0].hand_pages, 0);
	policy_scan(&s, true, NS_PER_S, NULL, 0);
}

/* ---- how much processor ---- */

static void write_file(const char *root, const char *name, const char *text)
{
	char command[400], path[300];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", root, name);
	snprintf(command, sizeof command, "mkdir -p $(dirname %s)", path);
	CHECK_EQ(system(command), 0);
	f = fopen(path, "w");
	CHECK(f);
	fputs(text, f);
	fclose(f);
}

static void the_hosts_processors_are_added_up(void)
{
	char root[] = "/tmp/memctl-test-ghz-XXXXXX", command[100];
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	CHECK(mkdtemp(root));
	/* nothing is told: a guess for each that is online */
	CHECK(fabs(host_ghz(root) - 2.0 * (double)online) < 1e-9);
	/* as on aarch64: how many, but not how fast */
	write_file(root, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n");
	CHECK(fabs(host_ghz(root) - 4.0) < 1e-9);
	/* what they run at now */
	write_file(root, "proc/cpuinfo", "processor\t: 0\nmodel name\t: X @ 3.00GHz\ncpu MHz\t\t: 2500.125\n\n"
		"processor\t: 1\ncpu MHz\t\t: 1200.000\n");
	CHECK(fabs(host_ghz(root) - 3.700125) < 1e-9);
	/* what they can run at is better: idle ones are slow */
	write_file(root, "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "3500000\n");
	CHECK(fabs(host_ghz(root) - 6.000125) < 1e-9);
	snprintf(command, sizeof command, "rm -r %s", root);
	CHECK_EQ(system(command), 0);
	CHECK(host_ghz("") > 0.1);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(what_is_asked_for_and_what_comes),
		SCENARIO(who_could_write_stays_outside),
		SCENARIO(a_pass_takes_share_scan_time),
		SCENARIO(share_scan_time_0_is_off),
		SCENARIO(share_rate_max_is_kept),
		SCENARIO(share_rate_max_0_is_off),
		SCENARIO(share_scan_ghz_is_a_budget_of_all),
		SCENARIO(share_scan_ghz_0_is_off),
		SCENARIO(an_operators_pass_takes_nothing_from_others),
		SCENARIO(pressure_begins_a_pass_at_once),
		SCENARIO(a_change_acts_at_the_next_tick),
		SCENARIO(a_long_pause_is_not_made_up_for),
		SCENARIO(the_hosts_processors_are_added_up),
		{ 0 } });
}
