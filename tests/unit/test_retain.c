/* record/retain.c: what is deleted, when, and how large the file is then; called as the writer calls it, with the test's clock. */
#include "base/clock.h"
#include "record/retain.h"
#include "record/rollup.h"
#include "tests/lib/check.h"
#include "tests/unit/metrics_file.h"

#include <sys/stat.h>

#define HOUR 3600000ull
#define NOW  (1700000000000ull / HOUR * HOUR)
#define ULL(n) ((unsigned long long)(n))

static struct database *d;

static void open_it(void)
{
	struct record_options o = options();
	int64_t version;

	begin();
	CHECK_EQ(database_open(&d, path), 0);
	CHECK_EQ(schema_open(d, &o.numbers, &version), 0);
}

static void close_it(void)
{
	database_close(d);
	end();
}

/* `n` rows a step apart, the last one just before NOW, of a level's tables. */
static void fill(unsigned level, unsigned n)
{
	const char *more = level ? ", last_ts, samples" : "", *values = level ? ", 0, 1" : "";
	uint64_t step = levels[level].step_ms, first = NOW - n * step;

	for (unsigned table = 0; table < 2; table++)
		CHECK_EQ(database_run(d, "WITH RECURSIVE t(ts) AS (VALUES (%llu) UNION ALL SELECT ts + %llu FROM t WHERE ts < %llu)"
			" INSERT INTO %s%s (ts%s%s) SELECT ts%s%s FROM t", ULL(first), ULL(step), ULL(NOW - step), table ? "host" : "vm",
			levels[level].suffix, table ? "" : ", vm", more,
			table ? "" : ", 'a-name-of-the-length-that-names-may-have-so-that-rows-take-room'", values), 0);
}

static long long count(const char *table)
{
	int64_t n;

	CHECK_EQ(database_number(d, &n, "SELECT count(*) FROM %s", table), 0);
	return n;
}

static long long first(const char *table)
{
	int64_t n;

	CHECK(database_number(d, &n, "SELECT min(ts) FROM %s", table) >= 0);
	return n;
}

static void each_level_has_its_age(void)
{
	const struct record_keep keep = { .seconds = { 3600, 24 * 3600, 7 * 24 * 3600, 60 * 24 * 3600 }, .plan_seconds = 60 };

	open_it();
	for (unsigned level = 0; level < LEVELS; level++)
		fill(level, (unsigned)(keep.seconds[level] * 1000 / levels[level].step_ms) + 100);
	CHECK_EQ(database_run(d, "INSERT INTO plan (ts) VALUES (%llu), (%llu)", ULL(NOW - 70000), ULL(NOW - 50000)), 0);
	CHECK_EQ(database_run(d, "INSERT INTO vm_seen VALUES ('old', 1, %llu), ('young', 1, %llu)", ULL(NOW - 61 * 24 * HOUR), ULL(NOW)), 0);
	CHECK_EQ(retain_by_age(d, &keep, NOW), 0);
	for (unsigned level = 0; level < LEVELS; level++) {
		char table[32];

		for (unsigned t = 0; t < 2; t++) {
			snprintf(table, sizeof table, "%s%s", t ? "host" : "vm", levels[level].suffix);
			CHECK_EQ(first(table), NOW - keep.seconds[level] * 1000);
			CHECK_EQ(count(table), keep.seconds[level] * 1000 / levels[level].step_ms);
		}
	}
	CHECK_EQ(first("plan"), NOW - 50000);
	CHECK_EQ(count("vm_seen"), 1);
	/* 0: for ever */
	CHECK_EQ(retain_by_age(d, &(struct record_keep){ 0 }, NOW + 1000 * 24 * HOUR), 0);
	CHECK_EQ(count("vm"), 3600);
	close_it();
}

/* Nothing goes that is not rolled up yet; the twin: without the mark it does. */
static void what_is_due_stays(void)
{
	const struct record_keep keep = { .seconds = { 3600, 3600, 3600, 3600 } };
	uint64_t due = NOW - 2 * HOUR;

	open_it();
	fill(0, 3 * 3600);
	fill(1, 3 * 360);
	CHECK_EQ(database_run(d, "INSERT INTO rollup VALUES (10000, %llu), (60000, %llu)", ULL(due), ULL(due + 30 * 60000)), 0);
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(retain_by_age(d, &keep, NOW), 0);
	CHECK_EQ(first("vm"), due);
	CHECK_EQ(first("host_10s"), due + 30 * 60000);
	for (unsigned i = 0; i < 100; i++)
		CHECK(retain_by_bytes(d, &(struct record_keep){ .max_bytes = 1 << 20 }) >= 0);
	CHECK_EQ(first("vm"), due);
	CHECK_EQ(database_run(d, "DELETE FROM rollup"), 0);
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(retain_by_age(d, &keep, NOW), 0);
	CHECK_EQ(first("vm"), NOW - HOUR);
	close_it();
}

/* The clock is three years ahead for a minute: that costs an hour of the seconds, not all of them. */
static void a_wrong_clock_costs_a_piece(void)
{
	const struct record_keep keep = { .seconds = { 3600, 24 * 3600, 0, 0 } };

	open_it();
	fill(0, 5 * 3600);
	CHECK_EQ(retain_by_age(d, &keep, NOW + 3 * 365 * 24 * HOUR), 0);
	CHECK_EQ(count("vm"), 4 * 3600);
	close_it();
}

/* All is old in three years' time, and it stays if that time is not believed. */
static void a_clock_that_is_ahead_deletes_nothing(void)
{
	const uint64_t hour_ns = 3600 * NS_PER_S, day = 24 * HOUR, years = 3 * 365 * day, begun = 5 * NS_PER_S;
	struct retain_clock c;

	open_it();
	/* without rows any time is believed */
	CHECK_EQ(retain_clock_begin(&c, d), 0);
	CHECK(retain_clock_is_right(&c, NOW, begun));
	fill(0, 2 * 3600);
	CHECK_EQ(retain_clock_begin(&c, d), 0);
	CHECK(retain_clock_is_right(&c, NOW + day / 2, begun));
	CHECK(!retain_clock_is_right(&c, NOW + years, begun));
	CHECK(!retain_clock_is_right(&c, NOW + years + HOUR / 2, begun + hour_ns / 2));
	/* it is set right: an hour more is counted anew */
	CHECK(retain_clock_is_right(&c, NOW + HOUR, begun + hour_ns));
	CHECK(!retain_clock_is_right(&c, NOW + years, begun + 2 * hour_ns));
	CHECK(!retain_clock_is_right(&c, NOW + years, begun + 3 * hour_ns - 1));
	/* the twin: it was away for so long */
	CHECK(retain_clock_is_right(&c, NOW + years, begun + 3 * hour_ns));
	CHECK(retain_clock_is_right(&c, NOW + years + 1000, begun + 3 * hour_ns));
	/* backwards nothing can be lost */
	CHECK(retain_clock_is_right(&c, NOW - years, begun + 3 * hour_ns));
	/* a start after minutes of rows of that time: it is not what was believed; the twin: of hours */
	CHECK_EQ(database_run(d, "INSERT INTO host (ts) VALUES (%llu), (%llu)", ULL(NOW + years), ULL(NOW + years + 600000)), 0);
	CHECK_EQ(retain_clock_begin(&c, d), 0);
	CHECK(!retain_clock_is_right(&c, NOW + years + 700000, begun));
	CHECK_EQ(database_run(d, "INSERT INTO host (ts) VALUES (%llu)", ULL(NOW + years + 2 * HOUR)), 0);
	CHECK_EQ(retain_clock_begin(&c, d), 0);
	CHECK(retain_clock_is_right(&c, NOW + years + 2 * HOUR, begun));
	close_it();
}

static uint64_t bytes_on_disk(void)
{
	static const char *const ends[] = { "", "-wal" };
	uint64_t sum = 0;

	for (unsigned i = 0; i < 2; i++) {
		char name[128];
		struct stat st;

		snprintf(name, sizeof name, "%s%s", path, ends[i]);
		if (!stat(name, &st))
			sum += (uint64_t)st.st_size;
	}
	return sum;
}

/* as long as what fill() makes of each level below */
static struct record_keep full = { .seconds = { 60000, 200000, 600000, 3600000 } };

static void trim(uint64_t bytes)
{
	int r = 1;

	full.max_bytes = bytes;
	for (unsigned i = 0; i < 20000 && r > 0; i++)
		r = retain_by_bytes(d, &full);
	CHECK_EQ(r, 0);
	CHECK_EQ(database_empty_log(d), 0);
	CHECK_MSG(bytes_on_disk() <= bytes, "%llu bytes, at most %llu", ULL(bytes_on_disk()), ULL(bytes));
}

static void too_much_goes_oldest_and_finest_first(void)
{
	struct database_size size;
	uint64_t before;

	open_it();
	fill(0, 60000);
	fill(1, 20000);
	fill(2, 10000);
	fill(3, 1000);
	before = bytes_on_disk();
	CHECK_MSG(before > (8 << 20), "%llu", ULL(before));
	/* not too much: nothing goes */
	full.max_bytes = 64 << 20;
	CHECK_EQ(retain_by_bytes(d, &full), 0);
	CHECK_EQ(count("vm"), 60000);
	trim(9 << 20);
	CHECK(count("vm") > 1000 && count("vm") < 60000);
	CHECK_EQ(first("vm"), NOW - ULL(count("vm")) * 1000);
	CHECK_EQ(first("host"), first("vm"));
	CHECK_MSG(count("vm") > 30000, "%lld, %llu", count("vm"), ULL(before));
	CHECK_EQ(count("vm_10s"), 20000);
	/* half of the part that the next one has */
	trim(4 << 20);
	CHECK_MSG(count("vm") > 5000 && count("vm") < 30000, "%lld", count("vm"));
	CHECK_MSG(llabs(count("vm") * 1000 / 60000 - count("vm_10s") * 1000 / 20000 / 2) < 20, "%lld, %lld", count("vm"), count("vm_10s"));
	CHECK_EQ(count("vm_1h"), 1000);
	trim(2 << 20);
	CHECK(count("vm") > 1000 && count("vm_10s") > 1000 && count("vm_1m") > 1000 && count("vm_1m") < 10000);
	CHECK_EQ(first("vm_1m"), NOW - ULL(count("vm_1m")) * 60000);
	/* and pages that are free are used again, not given back for nothing */
	CHECK_EQ(database_size(d, &size), 0);
	full.max_bytes = 64 << 20;
	CHECK_EQ(retain_by_bytes(d, &full), 0);
	before = size.pages;
	CHECK_EQ(database_size(d, &size), 0);
	CHECK_EQ(size.pages, before);
	close_it();
}

/* Many events and many names leave the history its room. */
static void events_and_names_are_bounded(void)
{
	const struct record_keep keep = { .max_bytes = 16 << 20 };
	int r = 1;

	open_it();
	fill(3, 1000);
	CHECK_EQ(database_run(d, "WITH RECURSIVE t(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM t WHERE i < 110000)"
		" INSERT INTO event SELECT i / 2, i, 'web', 'page-lost', 'it is lost, and this is what is to be said', 1, 0, 0, 1, i FROM t"), 0);
	CHECK_EQ(database_run(d, "INSERT INTO vm_seen SELECT 'a-name-that-is-not-short-' || nth, nth, nth FROM event"), 0);
	CHECK_EQ(retain_by_number(d, &(struct record_keep){ 0 }), 1);
	CHECK(count("event") > 100000 && count("vm_seen") > 100000);
	for (unsigned i = 0; i < 1000 && r > 0; i++)
		r = retain_by_number(d, &keep);
	CHECK_EQ(r, 0);
	/* a 16th of it each, whatever the texts; the oldest went */
	CHECK_EQ(count("event"), (1 << 20) / 512);
	CHECK_EQ(first("event"), (110000 - (1 << 20) / 512) / 2);
	CHECK(count("vm_seen") > 1000 && count("vm_seen") < 10000);
	CHECK_EQ(database_run(d, "DELETE FROM event"), 0);
	r = 1;
	for (unsigned i = 0; i < 1000 && r > 0; i++)
		r = retain_by_bytes(d, &keep);
	CHECK_EQ(count("host_1h"), 1000);
	close_it();
}

/* One that was not made for it: it stays as large as it is, and the writer is told that there is no more to do. */
static void a_file_that_cannot_shrink_is_let_be(void)
{
	struct database_size size;
	int64_t can;
	int r = 1;

	begin();
	tell("PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = WAL; PRAGMA application_id = 0x6d63746c; PRAGMA user_version = 2");
	{
		struct record_options o = options();
		int64_t version;

		CHECK_EQ(database_open(&d, path), 0);
		CHECK_EQ(schema_open(d, &o.numbers, &version), 0);
	}
	CHECK(database_number(d, &can, "PRAGMA auto_vacuum") == 0 && can == 0);
	fill(0, 60000);
	CHECK_EQ(database_run(d, "DELETE FROM vm WHERE ts < %llu; DELETE FROM host WHERE ts < %llu", ULL(NOW - HOUR),
		ULL(NOW - HOUR)), 0);
	for (unsigned i = 0; i < 100 && r > 0; i++)
		r = retain_by_bytes(d, &(struct record_keep){ .max_bytes = 2 << 20 });
	CHECK_EQ(r, 0);
	CHECK_EQ(database_size(d, &size), 0);
	CHECK(size.pages * size.page_bytes > 2 << 20);
	CHECK_EQ(count("host"), 3600);
	close_it();
}

/* No bound for the file is no bound for it alone. */
static void the_log_has_its_part(void)
{
	CHECK_EQ(retain_log_bytes(0), 64 << 20);
	CHECK_EQ(retain_log_bytes(1ull << 30), 64 << 20);
	CHECK_EQ(retain_log_bytes(64ull << 20), 8 << 20);
	CHECK_EQ(retain_log_bytes(1 << 20), 1 << 20);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(each_level_has_its_age), SCENARIO(what_is_due_stays), SCENARIO(a_wrong_clock_costs_a_piece),
		SCENARIO(a_clock_that_is_ahead_deletes_nothing), SCENARIO(events_and_names_are_bounded),
		SCENARIO(a_file_that_cannot_shrink_is_let_be),
		SCENARIO(too_much_goes_oldest_and_finest_first), SCENARIO(the_log_has_its_part),
		{ 0 } });
}
