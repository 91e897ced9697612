/* record/: rows arrive, nobody waits, and a bad database never stands in the way.  SQLite is used here directly, as
 * any reader of the file would. */
#include "base/clock.h"
#include "record/database.h"
#include "record/record.h"
#include "tests/lib/check.h"
#include "tests/unit/metrics_file.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void rows_arrive(void)
{
	struct record_options o = options();
	struct record_counts c;
	struct record *r;

	begin();
	r = open_record(&o);
	for (uint64_t t = 1; t <= 100; t++) {
		struct histogram_copy h = { .sum_ns = 7 * t };

		histogram_count(&h, 7, t);
		record_vm(r, t, "one", (uint64_t[]){ t * 4096, t });
		record_vm(r, t, "two", (uint64_t[]){ 0, UINT64_MAX });
		record_host(r, t, (uint64_t[]){ 1000 - t });
		record_fault_latency(r, t, "one", "zero", &h);
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
	CHECK_EQ(ask("SELECT sum(count) FROM fault_latency WHERE cause = 'zero' AND p99_ns = 7"), 5050);
	CHECK_EQ(ask("SELECT value FROM fault_latency, json_each(histogram) WHERE ts = 30 AND key = '7'"), 30);
	CHECK_EQ(ask("SELECT count(*) FROM pragma_table_list WHERE name IN ('vm', 'host', 'fault_latency')"
		" AND strict AND wr"), 3);
	end();
}

static const struct record_number plan_numbers[] = { { "state", "input", "policy", "How short the host is." } };
static const struct record_number plan_vm_numbers[] = { { "charged_frames", "input", "policy", "What it holds." } };

static struct record_options options_of_plans(void)
{
	struct record_options o = options();

	o.numbers.plan = plan_numbers;
	o.numbers.plan_vm = plan_vm_numbers;
	o.numbers.n_plan = o.numbers.n_plan_vm = 1;
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
	o.keep.seconds[0] = 1000000;
	o.keep.plan_seconds = 60;
	r = open_record(&o);
	record_plan(r, now_ms - 100000, (uint64_t[]){ 1 }, NULL, 0);
	record_plan(r, now_ms, (uint64_t[]){ 2 }, NULL, 0);
	record_host(r, now_ms - 100000, (uint64_t[]){ 1 });
	record_host(r, now_ms, (uint64_t[]){ 1 });
	record_close(r);
	CHECK_EQ(ask("SELECT state FROM plan"), 2);
	CHECK_EQ(ask("SELECT count(*) FROM plan"), 1);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 2);
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
	CHECK_EQ(kept_aside("*"), 0);
	end();
}

static void new_number_becomes_a_column(void)
{
	struct record_options o = options();
	struct record *r;

	begin();
	o.numbers.n_vm = 1;
	r = open_record(&o);
	record_vm(r, 1, "one", (uint64_t[]){ 11 });
	record_close(r);
	o.numbers.n_vm = 2;
	r = open_record(&o);
	record_vm(r, 2, "one", (uint64_t[]){ 22, 33 });
	record_close(r);
	CHECK_EQ(kept_aside("*"), 0);
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
	for (uint64_t t = 2; t < 50 && !kept_aside("*"); t++) {
		record_host(r, t, (uint64_t[]){ t });
		usleep(20000);
	}
	CHECK_EQ(kept_aside("damaged-*Z"), 1);
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
	CHECK_EQ(kept_aside("*"), 0);
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
	CHECK_EQ(kept_aside("*"), 0);
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
	o.keep.seconds[0] = 3600;
	r = open_record(&o);
	record_host(r, now + 1, (uint64_t[]){ 3 });
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM host"), 2);
	CHECK_EQ(ask("SELECT min(free_bytes) FROM host"), 2);
	end();
}

#define VERSION_1 \
	"PRAGMA journal_mode = WAL; PRAGMA application_id = 0x6d63746c; PRAGMA user_version = 1;" \
	"CREATE TABLE vm (ts INTEGER NOT NULL, vm TEXT NOT NULL, resident_bytes INTEGER NOT NULL DEFAULT 0," \
	" faults INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (ts, vm)) STRICT, WITHOUT ROWID;" \
	"CREATE TABLE host (ts INTEGER NOT NULL PRIMARY KEY, free_bytes INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;" \
	"CREATE TABLE fault_latency (ts INTEGER NOT NULL, vm TEXT NOT NULL, cause TEXT NOT NULL, p50_ns INTEGER NOT NULL," \
	" p99_ns INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (ts, vm, cause)) STRICT, WITHOUT ROWID;" \
	"CREATE TABLE catalogue (number TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL," \
	" sentence TEXT NOT NULL, PRIMARY KEY (number, source)) STRICT, WITHOUT ROWID;" \
	"CREATE TABLE plan (ts INTEGER NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;" \
	"CREATE TABLE plan_vm (ts INTEGER NOT NULL, nth INTEGER NOT NULL, vm TEXT NOT NULL, PRIMARY KEY (ts, nth)) STRICT, WITHOUT ROWID;"

/* Version 1 had no roll-ups.  Its rows stay, and are rolled up. */
static void older_database_is_taken_over(void)
{
	struct record_options o = options();
	struct record *r;

	begin();
	tell(VERSION_1
		"WITH RECURSIVE t(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM t WHERE i < 99)"
		" INSERT INTO vm SELECT 1000000 + 1000 * i, 'one', 10, i FROM t;"
		"INSERT INTO host SELECT ts, 3 FROM vm; INSERT INTO fault_latency SELECT ts, vm, 'zero', 1, 2, 3 FROM vm");
	r = open_record(&o);
	record_host(r, 1200000, (uint64_t[]){ 4 });
	wait_written(r, 1);
	wait_rolled_up(1200000);
	record_close(r);
	CHECK_EQ(kept_aside("*"), 0);
	CHECK_EQ(ask("PRAGMA user_version"), SCHEMA_VERSION);
	/* as new ones have it: the file can become smaller */
	CHECK_EQ(ask("PRAGMA auto_vacuum"), 2);
	CHECK_EQ(ask("SELECT count(*) FROM vm"), 100);
	CHECK_EQ(ask("SELECT count(*) FROM fault_latency"), 100);
	CHECK_EQ(ask("SELECT count(*) FROM vm_10s WHERE resident_bytes = 10 AND samples = 10"), 10);
	CHECK_EQ(ask("SELECT max(faults) FROM vm_1m"), 99);
	/* percentiles cannot be added: they stay where they are */
	CHECK_EQ(ask("SELECT count(*) FROM fault_latency_10s"), 0);
	end();
}

/* Whoever starts waits for it: its rows are not read.  So a page of them that is broken is not met, and all times that have
 * rows are marked nevertheless; a gap of years, or a row of a time that has not come, costs no marks. */
static void taking_over_reads_no_rows(void)
{
	const char *other = "(SELECT ts FROM vm UNION SELECT ts FROM host) t WHERE NOT EXISTS"
		" (SELECT 1 FROM rollup r WHERE r.step_ms = 10000 AND r.ts = t.ts / 10000 * 10000)";
	struct record_options o = options();
	char page[4096], garbage[4096];
	struct database *d;
	int64_t version;
	int fd;

	begin();
	tell(VERSION_1 "WITH RECURSIVE t(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM t WHERE i < 20000)"
		" INSERT INTO vm SELECT 1000000 + 1000 * i, 'one', 10, i FROM t;"
		"INSERT INTO vm VALUES (90000000000, 'one', 1, 1), (90000000000000, 'one', 1, 1);"
		"INSERT INTO host VALUES (90000005000, 1), (5, 1);"
		"PRAGMA wal_checkpoint(TRUNCATE)");
	memset(garbage, 0xa5, sizeof garbage);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0 && pread(fd, page, sizeof page, 60 * 4096) == 4096 && pwrite(fd, garbage, sizeof garbage, 60 * 4096) == 4096);
	CHECK_EQ(database_open(&d, path), 0);
	CHECK_EQ(schema_open(d, &o.numbers, &version), 0);
	CHECK_EQ(version, 1);
	database_close(d);
	CHECK(pwrite(fd, page, sizeof page, 60 * 4096) == 4096);
	close(fd);
	CHECK_EQ(ask("SELECT count(*) FROM %s", other), 0);
	CHECK_MSG(ask("SELECT count(*) FROM rollup") < 4 * 8640, "%lld", ask("SELECT count(*) FROM rollup"));
	end();
}

static void only_small_files_are_written_anew_and_once(void)
{
	struct record_options o = options();
	struct database *d;
	int64_t version;

	begin();
	tell(VERSION_1 "INSERT INTO host VALUES (1000, 3)");
	CHECK_EQ(database_open(&d, path), 0);
	CHECK_EQ(schema_open(d, &o.numbers, &version), 0);
	CHECK_EQ(schema_let_shrink(d, 4096), 0);
	database_close(d);
	CHECK_EQ(ask("PRAGMA auto_vacuum"), 0);
	/* that was its time: not at each start again */
	record_close(open_record(&o));
	CHECK_EQ(ask("PRAGMA auto_vacuum"), 0);
	/* the twin */
	CHECK_EQ(database_open(&d, path), 0);
	CHECK_EQ(schema_let_shrink(d, 1 << 20), 0);
	database_close(d);
	CHECK_EQ(ask("PRAGMA auto_vacuum"), 2);
	end();
}

/* A disk that hangs, at what is written to the log, or only at what is brought from there into the file. */
enum { LOG, WHOLE_FILE };
static atomic_bool hangs[2];
static sqlite3_io_methods hanging_methods[2];
static int (*write_really)(sqlite3_file *f, const void *bytes, int n, sqlite3_int64 at);
static int (*open_really)(sqlite3_vfs *v, sqlite3_filename name, sqlite3_file *f, int flags, int *ret_flags);

static int write_or_hang(sqlite3_file *f, const void *bytes, int n, sqlite3_int64 at)
{
	while (atomic_load(&hangs[f->pMethods == &hanging_methods[WHOLE_FILE]]))
		usleep(1000);
	return write_really(f, bytes, n, at);
}

static int open_hanging(sqlite3_vfs *v, sqlite3_filename name, sqlite3_file *f, int flags, int *ret_flags)
{
	int e = open_really(v, name, f, flags, ret_flags);

	if (!e && flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) {
		sqlite3_io_methods *m = &hanging_methods[flags & SQLITE_OPEN_MAIN_DB ? WHOLE_FILE : LOG];

		*m = *f->pMethods;
		write_really = m->xWrite;
		m->xWrite = write_or_hang;
		f->pMethods = m;
	}
	return e;
}

static void left_when_it_hangs(unsigned where)
{
	struct record_options o = options();
	uint64_t begun;
	struct record *r;

	begin();
	r = open_record(&o);
	record_host(r, 1000, (uint64_t[]){ 1 });
	wait_written(r, 1);
	atomic_store(&hangs[where], true);
	record_host(r, 2000, (uint64_t[]){ 2 });
	begun = now_ns();
	CHECK(!record_close_by(r, begun + 300 * NS_PER_MS));
	CHECK(now_ns() - begun < 2 * NS_PER_S);
	/* the twin: it does not hang any more, and all is written */
	atomic_store(&hangs[where], false);
	CHECK(record_close_by(r, now_ns() + 10 * NS_PER_S));
	CHECK_EQ(ask("SELECT count(*) FROM host"), 2);
	end();
}

static void a_writer_that_hangs_is_left(void)
{
	static sqlite3_vfs vfs;

	CHECK(sqlite3_initialize() == SQLITE_OK);
	vfs = *sqlite3_vfs_find(NULL);
	open_really = vfs.xOpen;
	vfs.xOpen = open_hanging;
	vfs.zName = "hanging";
	CHECK(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
	left_when_it_hangs(LOG);
	left_when_it_hangs(WHOLE_FILE);
	CHECK(record_close_by(NULL, 0));
}

/* Between its rows memctld is away for years, or its clock is: nothing goes by its age until that has held. */
static void a_clock_that_is_ahead_deletes_nothing(void)
{
	struct record_options o = options();
	struct record *r;

	begin();
	o.keep.seconds[0] = 3600;
	o.keep.event_seconds = 3600;
	for (uint64_t start = 0; start < 3; start++) {
		r = open_record(&o);
		if (!start)
			record_event(r, &(struct record_event){ 1000000, 1, "page-lost", "web", "it's lost", 3, 1, 7, 9, 999 });
		/* a third one within the day: that is believed */
		for (uint64_t t = 0; t < 10; t++)
			record_host(r, 1000000 + (start == 1 ? 1ull << 40 : start == 2 ? 20 * 3600000 : 0) + 61000 * t, (uint64_t[]){ start });
		record_close(r);
		CHECK_EQ(ask("SELECT count(*) FROM host"), start == 2 ? 20 : 10 + 10 * (long long)start);
		CHECK_EQ(ask("SELECT count(*) FROM event"), start < 2);
	}
	end();
}

/* One page in the middle is another: nothing at the beginning says so, and no row is read from there. */
static void damage_within_is_found(void)
{
	struct record_options o = options();
	struct record *r;
	char garbage[4096];
	int fd;

	begin();
	o.queue_max = 100000;
	r = open_record(&o);
	for (uint64_t t = 1; t <= 20000; t++)
		record_vm(r, t, "one", (uint64_t[]){ t << 30, t });
	record_close(r);
	memset(garbage, 0xa5, sizeof garbage);
	fd = open(path, O_WRONLY);
	CHECK(fd >= 0 && pwrite(fd, garbage, sizeof garbage, 60 * 4096) == 4096);
	close(fd);
	r = open_record(&o);
	for (int i = 0; i < 500 && !kept_aside("damaged-*Z"); i++)
		usleep(10000);
	record_host(r, 30000, (uint64_t[]){ 8 });
	record_close(r);
	CHECK_EQ(kept_aside("damaged-*Z"), 1);
	CHECK_EQ(ask("SELECT free_bytes FROM host"), 8);
	CHECK_EQ(ask("SELECT count(*) FROM vm"), 0);
	end();
}

/* Another process, that reads when it is told to and keeps its transaction open until it is told to end.  It is there before any
 * thread is: a fork beside one could find SQLite's locks taken. */
struct other {
	pid_t pid;
	int tell, hear;
};

static void other_reads(int tell, int hear)
{
	sqlite3 *db = NULL;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(hear, &byte, 1) != 1 || sqlite3_open(path, &db) ||
		sqlite3_exec(db, "BEGIN; SELECT count(*) FROM vm", NULL, NULL, NULL) || write(tell, "x", 1) != 1 || read(hear, &byte, 1) < 0)
		_exit(1);
	sqlite3_close(db);
	_exit(0);
}

static void other_start(struct other *o)
{
	int up[2], down[2];

	CHECK(!pipe(up) && !pipe(down));
	o->pid = fork();
	if (!o->pid) {
		close(up[0]);
		close(down[1]);
		other_reads(up[1], down[0]);
	}
	close(up[1]);
	close(down[0]);
	o->hear = up[0];
	o->tell = down[1];
}

static void other_begins(struct other *o)
{
	char byte;

	CHECK(write(o->tell, "x", 1) == 1);
	CHECK(read(o->hear, &byte, 1) == 1);
}

static void other_ends(struct other *o)
{
	int status;

	close(o->tell);
	CHECK(waitpid(o->pid, &status, 0) == o->pid && status == 0);
	close(o->hear);
}

static uint64_t log_bytes(void)
{
	char name[128];
	struct stat st;

	snprintf(name, sizeof name, "%s-wal", path);
	return stat(name, &st) ? 0 : (uint64_t)st.st_size;
}

/* Rows until `failed` are lost, or so many were put; the longest that the log was. */
static uint64_t write_much(struct record *r, uint64_t *t, uint64_t seconds)
{
	struct record_counts c = { 0 };
	uint64_t most = 0;

	for (uint64_t i = 0; i < seconds && !c.failed; i++, ++*t) {
		uint64_t before;

		record_counts(r, &c);
		before = c.written + c.failed;
		for (unsigned vm = 0; vm < 200; vm++) {
			char name[64];

			snprintf(name, sizeof name, "a-virtual-machine-with-a-long-name-%u", vm);
			record_vm(r, *t * 1000, name, (uint64_t[]){ *t << 20, *t });
		}
		/* the time of one transaction, not longer: nobody waits for the reader */
		for (unsigned k = 0; k < 10000 && c.written + c.failed < before + 200; k++) {
			usleep(200);
			record_counts(r, &c);
		}
		CHECK(c.written + c.failed >= before + 200);
		if (log_bytes() > most)
			most = log_bytes();
	}
	return most;
}

static void a_reader_that_stays_costs_rows_and_no_disk(void)
{
	struct record_options o = options();
	struct record_counts c;
	uint64_t t = 1000, most, failed;
	struct other reader;
	struct record *r;

	begin();
	other_start(&reader);
	o.keep.max_bytes = 16 << 20;		/* 2 MiB of log at most */
	r = open_record(&o);
	write_much(r, &t, 10);
	other_begins(&reader);
	most = write_much(r, &t, 400);
	record_counts(r, &c);
	CHECK_MSG(c.failed > 0 && c.written > 1000, "%llu of them", (unsigned long long)c.written);
	CHECK_MSG(most <= 2 << 20, "%llu bytes of log", (unsigned long long)most);
	/* it lets go, and all is well */
	other_ends(&reader);
	failed = c.failed;
	record_host(r, ++t * 1000, (uint64_t[]){ 77 });
	record_close(r);
	CHECK_EQ(ask("SELECT count(*) FROM host WHERE free_bytes = 77"), 1);
	CHECK(failed > 0 && log_bytes() < 1 << 20);
	end();
}

/* The twin: without a bound the log grows for as long as somebody reads. */
static void without_a_bound_the_log_would_grow(void)
{
	struct record_options o = options();
	struct record_counts c;
	uint64_t t = 1000, most;
	struct other reader;
	struct record *r;

	begin();
	other_start(&reader);
	o.keep.max_bytes = 16 << 20;
	o.twin_wal = true;
	r = open_record(&o);
	write_much(r, &t, 10);
	other_begins(&reader);
	most = write_much(r, &t, 400);
	record_counts(r, &c);
	CHECK_EQ(c.failed, 0);
	CHECK_MSG(most > 4 << 20, "%llu bytes of log", (unsigned long long)most);
	other_ends(&reader);
	record_close(r);
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
		SCENARIO(good_database_is_continued),
		SCENARIO(new_number_becomes_a_column),
		SCENARIO(damage_while_running_begins_anew),
		SCENARIO(disk_full_is_counted_and_passes),
		SCENARIO(kill_loses_nothing_committed),
		SCENARIO(old_rows_are_deleted),
		SCENARIO(older_database_is_taken_over), SCENARIO(taking_over_reads_no_rows),
		SCENARIO(only_small_files_are_written_anew_and_once), SCENARIO(a_writer_that_hangs_is_left),
		SCENARIO(a_clock_that_is_ahead_deletes_nothing), SCENARIO(damage_within_is_found),
		SCENARIO(a_reader_that_stays_costs_rows_and_no_disk), SCENARIO(without_a_bound_the_log_would_grow),
		SCENARIO(wrong_path_is_told),
		{ 0 } });
}
