#include "tests/unit/metrics_file.h"

#include "tests/lib/check.h"

#include <glob.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

const struct record_number vm_numbers[2] = {
	{ "resident_bytes", "gauge", "bytes", "Guest pages in frames." },
	{ "faults", "counter", "count", "Faults served." },
};
const struct record_number host_numbers[1] = {
	{ "free_bytes", "gauge", "bytes", "Free arena." },
};

char dir[64], path[96];

void begin(void)
{
	snprintf(dir, sizeof dir, "/tmp/memctl-record-XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/metrics.db", dir);
}

void end(void)
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

struct record_options options(void)
{
	return (struct record_options){ .path = path, .numbers = { .vm = vm_numbers, .n_vm = 2,
		.host = host_numbers, .n_host = 1 } };
}

struct record *open_record(const struct record_options *o)
{
	struct problem p = { 0 };
	struct record *r = NULL;

	CHECK_MSG(record_open(&r, o, &p) == 0, "%s", p.text);
	return r;
}

long long ask(const char *fmt, ...)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	char sql[500];
	va_list ap;
	long long n;

	va_start(ap, fmt);
	vsnprintf(sql, sizeof sql, fmt, ap);
	va_end(ap);
	CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	CHECK_MSG(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	CHECK_MSG(sqlite3_step(s) == SQLITE_ROW, "no row: %s", sql);
	n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return n;
}

void tell(const char *sql)
{
	sqlite3 *db = NULL;

	CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	CHECK_MSG(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

size_t kept_aside(const char *end)
{
	glob_t g = { 0 };
	char pattern[128];
	size_t n;

	snprintf(pattern, sizeof pattern, "%s.%s", path, end);
	n = glob(pattern, 0, NULL, &g) ? 0 : g.gl_pathc;
	globfree(&g);
	return n;
}

void wait_written(struct record *r, uint64_t rows)
{
	struct record_counts c = { 0 };

	for (int i = 0; i < 1000 && c.written < rows; i++) {
		usleep(10000);
		record_counts(r, &c);
	}
	CHECK(c.written >= rows);
}

void wait_rolled_up(uint64_t now_ms)
{
	long long left = 1;

	for (int i = 0; i < 2000 && left; i++) {
		left = ask("SELECT count(*) FROM rollup WHERE ts <> %llu / step_ms * step_ms", (unsigned long long)now_ms);
		if (left)
			usleep(10000);
	}
	CHECK_EQ(left, 0);
}
