/* record/: rows arrive, nobody waits, and a bad database never stands in the way.  SQLite is used here directly, as
 * any reader of the file would. */
#include "base/clock.h"
#include "record/record.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct record_number vm_numbers[] = {
	{ "resident_bytes", "gauge", "bytes", "Guest pages in frames." },
	{ "faults", "counter", "count", "Faults served." },
};
static const struct record_number host_numbers[] = {
	{ "free_bytes", "gauge", "bytes", "Free arena." },
};

static char dir[64], path[96];

/* each scenario is a process: it makes its own directory, and the next start of the program's does no harm to it */
static void begin(void)
{
	snprintf(dir, sizeof dir, "/tmp/memctl-record-XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/metrics.db", dir);
}

static void end(void)
{
	glob_t g = { 0 };
	char pattern[96];

	snprintf(pattern, sizeof pattern, "%s/*", dir);
	if (!glob(pattern, 0, NULL, &g)) {
		for (size_t i = 0; i < g.gl_pathc; i++)
			unlink(g.gl_pathv[i]);
	}
	globfree(&g);
	CHECK(!rmdir(dir));
}

static struct record_options options(void)
{
	return (struct record_options){ .path = path, .vm_numbers = vm_numbers, .n_vm_numbers = 2,
		.host_numbers = host_numbers, .n_host_numbers = 1 };
}

static struct record *open_record(const struct record_options *o)
{
	struct problem p = { 0 };
	struct record *r = NULL;

	CHECK_MSG(record_open(&r, o, &p) == 0, "%s", p.text);
	return r;
}

static long long ask(const char *sql)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	long long n;

	CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	CHECK_MSG(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	CHECK_MSG(sqlite3_step(s) == SQLITE_ROW, "no row: %s", sql);
	n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return n;
}

static void tell(const char *sql)
{
	sqlite3 *db = NULL;

	CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	CHECK_MSG(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

static size_t kept_aside(void)
{
	glob_t g = { 0 };
	char pattern[128];
	size_t n;

	snprintf(pattern, sizeof pattern, "%s.aside-*[0-9]", path);
	n = glob(pattern, 0, NULL, &g) ? 0 : g.gl_pathc;
	globfree(&g);
	return n;
}

static void wait_written(struct record *r, uint64_t rows)
{
	struct record_counts c = { 0 };

	for (int i = 0; i < 1000 && c.written < rows; i++) {
		usleep(10000);
		record_counts(r, &c);
	}
	CHECK(c.written >= rows);
}

static void rows_arrive(void)
{
	struct record_options o = options();
	struct record_counts c;
	struct record *r;

	begin();
	r = open_record(&o);
	for (uint64_t t = 1; t <= 100; t++) {
		record_vm(r, t, "one", (uint64_t[]){ t * 4096, t });
		record_vm(r, t, "two", (uint64_t[]){ 0, UINT64_MAX });
		record_host(r, t, (uint64_t[]){ 1000 - t });
		record_fault_latency(r, t, "one", "zero", 10, 20, t);
	}
	wait_written(r, 400);
	record_counts(r, &c);
	CHECK_EQ(c.dropped, 0);
	CHECK_EQ(c.failed, 0);
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM vm"), 200);
	CHECK_EQ(ask("SELECT resident_bytes FROM vm WHERE vm = 'one' AND ts = 7"), 7 * 4096);
	CHECK(ask("SELECT faults FROM vm WHERE vm = 'two' AND ts = 7") == INT64_MAX);
	CHECK_EQ(ask("SELECT free_bytes FROM host WHERE ts = 100"), 900);
	CHECK_EQ(ask("SELECT sum(count) FROM fault_latency WHERE cause = 'zero' AND p99_ns = 20"), 5050);
	CHECK_EQ(ask("SELECT count(*) FROM pragma_table_list WHERE name IN ('vm', 'host', 'fault_latency')"
		" AND strict AND wr"), 3);
	end();
}

static const struct record_number plan_numbers[] = { { "state", "input", "policy", "How short the host is." } };
static const struct record_number plan_vm_numbers[] = { { "charged_frames", "input", "policy", "What it holds." } };

static struct record_options options_of_plans(void)
{
	struct record_options o = options();

	o.plan_numbers = plan_numbers;
	o.plan_vm_numbers = plan_vm_numbers;
	o.n_plan_numbers = o.n_plan_vm_numbers = 1;
	return o;
}

static void plans_are_kept_whole(void)
{
	const struct record_plan_vm vms[] = {
		{ "zebra", (const uint64_t[]){ 7 } }, { "ant", (const uint64_t[]){ UINT64_MAX } },
	};
	struct record_options o = options_of_plans();
	struct record *r;

	begin();
	r = open_record(&o);
	record_plan(r, 10, (uint64_t[]){ 3 }, vms, 2);
	record_plan(r, 11, (uint64_t[]){ 4 }, NULL, 0);
	record_close(r);
	CHECK_EQ(ask("SELECT state FROM plan WHERE ts = 10"), 3);
	CHECK_EQ(ask("SELECT state FROM plan WHERE ts = 11"), 4);
	/* their order is that of the plan, not of their names */
	CHECK_EQ(ask("SELECT charged_frames FROM plan_vm WHERE ts = 10 AND nth = 0 AND vm = 'zebra'"), 7);
	CHECK(ask("SELECT charged_frames FROM plan_vm WHERE ts = 10 AND nth = 1 AND vm = 'ant'") == INT64_MAX);
	CHECK_EQ(ask("SELECT count(*) FROM plan_vm"), 2);
	CHECK_EQ(ask("SELECT count(*) FROM catalogue WHERE source = 'plan_vm' AND kind = 'input'"), 1);
	end();
}

static const uint64_t of_a_vm[] = { 1 };

static void plans_are_dropped_whole_and_first(void)
{
	struct record_plan_vm vms[30];
	struct record_options o = options_of_plans();
	struct record_counts c;
	struct record *r;
	sqlite3 *db = NULL;

	begin();
	for (unsigned i = 0; i < 30; i++)
		vms[i] = (struct record_plan_vm){ "vm", of_a_vm };
	o.queue_max = 100;
	r = open_record(&o);
	CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	CHECK(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
	/* the writer may have taken the first; of the others half a queue holds one */
	for (uint64_t t = 1; t <= 10; t++)
		record_plan(r, t, (uint64_t[]){ 0 }, vms, 30);
	record_counts(r, &c);
	CHECK(c.dropped >= 8 * 31 && c.dropped % 31 == 0);
	for (uint64_t t = 1; t <= 69; t++)
		record_host(r, t, (uint64_t[]){ t });
	record_counts(r, &c);
	CHECK_EQ(c.dropped % 31, 0);
	CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 69);
	CHECK_EQ(ask("SELECT count(*) FROM plan_vm") , 30 * ask("SELECT count(*) FROM plan"));
	end();
}

static void a_plan_of_many_vms_is_kept(void)
{
	struct record_plan_vm vms[100];
	struct record_options o = options_of_plans();
	struct record_counts c;
	struct record *r;

	begin();
	for (unsigned i = 0; i < 100; i++)
		vms[i] = (struct record_plan_vm){ "vm", of_a_vm };
	o.queue_max = 40;
	r = open_record(&o);
	record_plan(r, 1, (uint64_t[]){ 0 }, vms, 100);
	/* wherever the plan is: half of the queue is free */
	for (uint64_t t = 1; t <= 20; t++)
		record_host(r, t, (uint64_t[]){ t });
	record_counts(r, &c);
	CHECK_EQ(c.dropped, 0);
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM plan_vm"), 100);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 20);
	end();
}

static void old_plans_go_before_old_samples(void)
{
	struct record_options o = options_of_plans();
	uint64_t now_ms = wall_ns() / NS_PER_MS;
	struct record *r;

	begin();
	o.keep_seconds = 1000000;
	o.keep_plan_seconds = 60;
	r = open_record(&o);
	record_plan(r, now_ms - 100000, (uint64_t[]){ 1 }, NULL, 0);
	record_plan(r, now_ms, (uint64_t[]){ 2 }, NULL, 0);
	record_host(r, now_ms - 100000, (uint64_t[]){ 1 });
	record_close(r);
	CHECK_EQ(ask("SELECT state FROM plan"), 2);
	CHECK_EQ(ask("SELECT count(*) FROM plan"), 1);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 1);
	end();
}

static void catalogue_says_what_the_columns_are(void)
{
	struct record_options o = options();

	begin();
	record_close(open_record(&o));
	CHECK_EQ(ask("SELECT count(*) FROM catalogue"), 3);
	CHECK_EQ(ask("SELECT count(*) FROM catalogue WHERE number = 'faults' AND source = 'vm' AND kind = 'counter'"
		" AND unit = 'count' AND sentence = 'Faults served.'"), 1);
	end();
}

static void close_writes_what_waits(void)
{
	struct record_options o = options();
	struct record *r;

	begin();
	r = open_record(&o);
	for (uint64_t t = 0; t < 5000; t++)
		record_vm(r, t, "one", (uint64_t[]){ 1, 2 });
	record_close(r);
	record_close(NULL);
	CHECK_EQ(ask("SELECT count(*) FROM vm"), 5000);
	end();
}

/* Another program holds the database: callers go on, what does not fit is dropped and counted. */
static void nobody_waits_for_a_locked_database(void)
{
	struct record_options o = options();
	struct record_counts c;
	struct record *r;
	sqlite3 *db = NULL;
	uint64_t begun;

	begin();
	o.queue_max = 100;
	r = open_record(&o);
	CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	CHECK(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
	begun = now_ns();
	for (uint64_t t = 0; t < 2000; t++)
		record_vm(r, t, "one", (uint64_t[]){ 1, 2 });
	begun = now_ns() - begun;
	record_counts(r, &c);
	CHECK(c.dropped >= 1500);
	/* the writer itself waits two seconds for the lock */
	CHECK_MSG(begun < NS_PER_S, "2000 calls took %llu ns", (unsigned long long)begun);
	CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
	record_close(r);
	CHECK(ask("SELECT count(*) FROM vm") >= 100);
	end();
}

static void write_file(const char *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	close(fd);
}

static void opens_anew(void)
{
	struct record_options o = options();
	struct record *r = open_record(&o);

	record_host(r, 1, (uint64_t[]){ 5 });
	record_close(r);
	CHECK_EQ(ask("SELECT free_bytes FROM host"), 5);
	CHECK_EQ(kept_aside(), 1);
}

static void garbage_is_kept_aside(void)
{
	char garbage[8192];

	begin();
	memset(garbage, 0xa5, sizeof garbage);
	write_file(garbage, sizeof garbage);
	opens_anew();
	end();
}

static void newer_database_is_kept_aside(void)
{
	struct record_options o = options();

	begin();
	record_close(open_record(&o));
	tell("PRAGMA user_version = 1000");
	opens_anew();
	end();
}

static void foreign_database_is_kept_aside(void)
{
	begin();
	tell("CREATE TABLE precious (a); INSERT INTO precious VALUES (1)");
	opens_anew();
	end();
}

static void good_database_is_continued(void)
{
	struct record_options o = options();
	struct record *r;

	begin();
	for (uint64_t t = 1; t <= 3; t++) {
		r = open_record(&o);
		record_host(r, t, (uint64_t[]){ t });
		record_close(r);
	}
	CHECK_EQ(ask("SELECT count(*) FROM host"), 3);
	CHECK_EQ(kept_aside(), 0);
	end();
}

static void new_number_becomes_a_column(void)
{
	struct record_options o = options();
	struct record *r;

	begin();
	o.n_vm_numbers = 1;
	r = open_record(&o);
	record_vm(r, 1, "one", (uint64_t[]){ 11 });
	record_close(r);
	o.n_vm_numbers = 2;
	r = open_record(&o);
	record_vm(r, 2, "one", (uint64_t[]){ 22, 33 });
	record_close(r);
	CHECK_EQ(kept_aside(), 0);
	CHECK_EQ(ask("SELECT faults FROM vm WHERE ts = 1"), 0);
	CHECK_EQ(ask("SELECT faults FROM vm WHERE ts = 2"), 33);
	end();
}

/* The file is overwritten under a running daemon: the next rows go into a new one. */
static void damage_while_running_begins_anew(void)
{
	struct record_options o = options();
	struct record *r;
	char garbage[4096];

	begin();
	r = open_record(&o);
	record_host(r, 1, (uint64_t[]){ 1 });
	wait_written(r, 1);
	memset(garbage, 0xa5, sizeof garbage);
	tell("PRAGMA wal_checkpoint(TRUNCATE)");
	for (int i = 0; i < 8; i++) {
		int fd = open(path, O_WRONLY);

		CHECK(fd >= 0 && pwrite(fd, garbage, sizeof garbage, i * 4096) == 4096);
		close(fd);
	}
	for (uint64_t t = 2; t < 50 && !kept_aside(); t++) {
		record_host(r, t, (uint64_t[]){ t });
		usleep(20000);
	}
	CHECK_EQ(kept_aside(), 1);
	record_host(r, 100, (uint64_t[]){ 7 });
	record_close(r);
	CHECK_EQ(ask("SELECT free_bytes FROM host WHERE ts = 100"), 7);
	end();
}

static void disk_full_is_counted_and_passes(void)
{
	struct rlimit whole, small = { 64 << 10, RLIM_INFINITY };
	struct record_options o = options();
	struct record_counts c = { 0 };
	struct record *r;

	begin();
	signal(SIGXFSZ, SIG_IGN);
	r = open_record(&o);
	CHECK(!getrlimit(RLIMIT_FSIZE, &whole));
	small.rlim_max = whole.rlim_max;
	CHECK(!setrlimit(RLIMIT_FSIZE, &small));
	for (uint64_t t = 0; t < 200000 && !c.failed; t++) {
		record_vm(r, t, "a-name-that-takes-some-room", (uint64_t[]){ UINT64_MAX, UINT64_MAX });
		if (t % 100 == 0)
			usleep(1000);
		record_counts(r, &c);
	}
	CHECK(c.failed > 0);
	CHECK(!setrlimit(RLIMIT_FSIZE, &whole));
	record_host(r, 1, (uint64_t[]){ 77 });
	record_close(r);
	CHECK_EQ(ask("SELECT free_bytes FROM host WHERE ts = 1"), 77);
	CHECK_EQ(kept_aside(), 0);
	end();
}

static void kill_loses_nothing_committed(void)
{
	int fds[2], status;
	char byte;
	pid_t pid;

	begin();
	CHECK(!pipe(fds));
	pid = fork();
	if (!pid) {
		struct record_options o = options();
		struct record *r = open_record(&o);

		for (uint64_t t = 1; t <= 50; t++)
			record_host(r, t, (uint64_t[]){ t });
		wait_written(r, 50);
		CHECK(write(fds[1], "x", 1) == 1);
		for (uint64_t t = 51;; t++)
			record_host(r, t, (uint64_t[]){ t });
	}
	CHECK(read(fds[0], &byte, 1) == 1);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	CHECK(ask("SELECT count(*) FROM host") >= 50);
	CHECK_EQ(ask("SELECT count(*) FROM host WHERE ts <= 50"), 50);
	{
		struct record_options o = options();

		record_close(open_record(&o));
	}
	CHECK_EQ(kept_aside(), 0);
	end();
}

static void old_rows_are_deleted(void)
{
	struct record_options o = options();
	uint64_t now = wall_ns() / NS_PER_MS;
	struct record *r;

	begin();
	r = open_record(&o);
	record_host(r, now - 7200 * 1000, (uint64_t[]){ 1 });
	record_host(r, now, (uint64_t[]){ 2 });
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 2);
	o.keep_seconds = 3600;
	r = open_record(&o);
	record_host(r, now + 1, (uint64_t[]){ 3 });
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 2);
	CHECK_EQ(ask("SELECT min(free_bytes) FROM host"), 2);
	end();
}

static void wrong_path_is_told(void)
{
	struct record_options o = options();
	struct problem p = { 0 };
	struct record *r = NULL;

	o.path = "/nonexistent/directory/metrics.db";
	CHECK(record_open(&r, &o, &p) < 0);
	CHECK(!r);
	CHECK_EQ(p.kind, PROBLEM_SYSTEM);
	CHECK_MSG(strstr(p.text, o.path), "%s", p.text);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(rows_arrive), SCENARIO(plans_are_kept_whole), SCENARIO(plans_are_dropped_whole_and_first),
		SCENARIO(a_plan_of_many_vms_is_kept), SCENARIO(old_plans_go_before_old_samples),
		SCENARIO(catalogue_says_what_the_columns_are),
		SCENARIO(close_writes_what_waits),
		SCENARIO(nobody_waits_for_a_locked_database),
		SCENARIO(garbage_is_kept_aside),
		SCENARIO(newer_database_is_kept_aside),
		SCENARIO(foreign_database_is_kept_aside),
		SCENARIO(good_database_is_continued),
		SCENARIO(new_number_becomes_a_column),
		SCENARIO(damage_while_running_begins_anew),
		SCENARIO(disk_full_is_counted_and_passes),
		SCENARIO(kill_loses_nothing_committed),
		SCENARIO(old_rows_are_deleted),
		SCENARIO(wrong_path_is_told),
		{ 0 } });
}
