#include "record/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION_ID 0x6d63746c /* "mctl" */

const struct level levels[LEVELS] = {
	{ 1000, "" },
	{ 10 * 1000, "_10s" },
	{ 60 * 1000, "_1m" },
	{ 3600 * 1000, "_1h" },
};

bool number_is_counter(const struct record_number *n)
{
	return !strcmp(n->kind, "counter");
}

/* A table that is to be: its keys as SQL, and a column a number. */
struct table {
	const char *name, *suffix;
	const char *keys, *primary;
	const struct record_number *numbers;
	size_t n;
	bool rolled_up;
};

/* Calls `one` for each column that follows from a number, until it fails. */
static int each_column(const struct table *t, int (*one)(void *arg, const char *column), void *arg)
{
	for (size_t i = 0; i < t->n; i++) {
		char most[80];
		int r = one(arg, t->numbers[i].name);

		if (!r && t->rolled_up && !number_is_counter(&t->numbers[i])) {
			snprintf(most, sizeof most, "%s_most", t->numbers[i].name);
			r = one(arg, most);
		}
		if (r)
			return r;
	}
	return 0;
}

static int declare(void *arg, const char *column)
{
	fprintf(arg, ", \"%s\" INTEGER NOT NULL DEFAULT 0", column);
	return 0;
}

static int create(struct database *d, const struct table *t)
{
	char *sql = NULL;
	size_t size;
	FILE *f = open_memstream(&sql, &size);
	int r;

	if (!f)
		return DATABASE_NO_MEMORY;
	fprintf(f, "CREATE TABLE \"%s%s\" (%s", t->name, t->suffix, t->keys);
	if (t->rolled_up)
		fprintf(f, ", last_ts INTEGER NOT NULL, samples INTEGER NOT NULL");
	each_column(t, declare, f);
	fprintf(f, ", PRIMARY KEY (%s)) STRICT, WITHOUT ROWID", t->primary);
	r = fclose(f) == 0 ? database_run(d, "%s", sql) : DATABASE_NO_MEMORY;
	free(sql);
	return r;
}

struct adding {
	struct database *d;
	const struct table *t;
	struct statement *there;
};

static int add_column(void *arg, const char *column)
{
	struct adding *a = arg;
	int r;

	statement_bind_text(a->there, 1, column);
	r = statement_step(a->there);
	statement_reset(a->there);
	if (r)
		return r < 0 ? r : 0;
	return database_run(a->d, "ALTER TABLE \"%w%w\" ADD COLUMN \"%w\" INTEGER NOT NULL DEFAULT 0", a->t->name, a->t->suffix,
		column);
}

static int make(struct database *d, const struct table *t)
{
	struct adding a = { .d = d, .t = t };
	char sql[128];
	int64_t there;
	int r = database_number(d, &there, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '%q%q'", t->name,
		t->suffix);

	if (r < 0 || !there)
		return r < 0 ? r : create(d, t);
	snprintf(sql, sizeof sql, "SELECT 1 FROM pragma_table_info('%s%s') WHERE name = ?1", t->name, t->suffix);
	r = database_prepare(d, &a.there, sql);
	if (!r) {
		r = each_column(t, add_column, &a);
		statement_free(a.there);
	}
	return r;
}

static int tell(struct database *d, const char *source, const struct record_number *numbers, size_t n)
{
	struct statement *s;
	int r = database_prepare(d, &s, "INSERT INTO catalogue VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET kind = ?3,"
		" unit = ?4, sentence = ?5 WHERE kind <> ?3 OR unit <> ?4 OR sentence <> ?5");

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && !r; i++) {
		statement_bind_text(s, 1, numbers[i].name);
		statement_bind_text(s, 2, source);
		statement_bind_text(s, 3, numbers[i].kind);
		statement_bind_text(s, 4, numbers[i].unit);
		statement_bind_text(s, 5, numbers[i].sentence);
		r = statement_do(s);
	}
	statement_free(s);
	return r;
}

#define KEY_TS	     "ts INTEGER NOT NULL"
#define LATENCY_COLUMNS                                                                                                    \
	"p50_ns INTEGER NOT NULL, p99_ns INTEGER NOT NULL, count INTEGER NOT NULL,"                                            \
	" sum_ns INTEGER NOT NULL DEFAULT 0, histogram TEXT NOT NULL DEFAULT '{}'"

static int make_level(struct database *d, const struct record_numbers *n, const struct level *level)
{
	bool rolled_up = level != levels;
	const struct table vm = { "vm", level->suffix, KEY_TS ", vm TEXT NOT NULL", "ts, vm", n->vm, n->n_vm, rolled_up };
	const struct table host = { "host", level->suffix, KEY_TS, "ts", n->host, n->n_host, rolled_up };
	int r = make(d, &vm);

	if (!r)
		r = make(d, &host);
	return r ? r : database_run(d, "CREATE TABLE IF NOT EXISTS \"fault_latency%w\" (" KEY_TS ", vm TEXT NOT NULL,"
		" cause TEXT NOT NULL, " LATENCY_COLUMNS ", PRIMARY KEY (ts, vm, cause)) STRICT, WITHOUT ROWID", level->suffix);
}

static int make_all(struct database *d, const struct record_numbers *n)
{
	const struct table plan = { "plan", "", KEY_TS, "ts", n->plan, n->n_plan, false };
	const struct table plan_vm = { "plan_vm", "", KEY_TS ", nth INTEGER NOT NULL, vm TEXT NOT NULL", "ts, nth", n->plan_vm,
		n->n_plan_vm, false };
	int r = database_run(d,
		"CREATE TABLE IF NOT EXISTS catalogue (number TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL,"
		" unit TEXT NOT NULL, sentence TEXT NOT NULL, PRIMARY KEY (number, source)) STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS rollup (step_ms INTEGER NOT NULL, ts INTEGER NOT NULL, PRIMARY KEY (step_ms, ts))"
		" STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS event (ts INTEGER NOT NULL, nth INTEGER NOT NULL, vm TEXT NOT NULL, event TEXT NOT NULL,"
		" text TEXT NOT NULL, level INTEGER NOT NULL, lease INTEGER NOT NULL, session INTEGER NOT NULL, count INTEGER NOT NULL,"
		" since INTEGER NOT NULL, PRIMARY KEY (ts, nth)) STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS vm_seen (vm TEXT NOT NULL PRIMARY KEY, first_ts INTEGER NOT NULL, last_ts INTEGER NOT NULL)"
		" STRICT, WITHOUT ROWID;");

	for (unsigned i = 0; i < LEVELS && !r; i++)
		r = make_level(d, n, &levels[i]);
	if (!r)
		r = make(d, &plan);
	if (!r)
		r = make(d, &plan_vm);
	if (!r)
		r = tell(d, "vm", n->vm, n->n_vm);
	if (!r)
		r = tell(d, "host", n->host, n->n_host);
	if (!r)
		r = tell(d, "plan", n->plan, n->n_plan);
	return r ? r : tell(d, "plan_vm", n->plan_vm, n->n_plan_vm);
}

/* Version 1 had the tables of the first level only, and latencies without histograms: they are left out of what is rolled up.
 * Whoever starts memctld waits for this, and the file may have gigabytes: its rows are not read.  Of each day that has any, the
 * latest first, all the time up to its last row is marked; where there is none, the mark comes to nothing. */
#define DAY_MS	   (24 * 3600 * 1000u)
#define MARKS_MOST 200000u	/* 23 days; version 1 kept 7 */
static int from_version_1(struct database *d)
{
	unsigned long long step = levels[1].step_ms, day = DAY_MS;

	return database_run(d,
		"ALTER TABLE fault_latency ADD COLUMN sum_ns INTEGER NOT NULL DEFAULT 0;"
		"ALTER TABLE fault_latency ADD COLUMN histogram TEXT NOT NULL DEFAULT '{}';"
		"INSERT OR IGNORE INTO rollup WITH RECURSIVE"
		" day(last) AS (SELECT max(ts) FROM (SELECT max(ts) AS ts FROM host UNION ALL SELECT max(ts) FROM vm)"
		"  UNION ALL SELECT (SELECT max(ts) FROM (SELECT max(ts) AS ts FROM host WHERE ts < d.last / %llu * %llu"
		"   UNION ALL SELECT max(ts) FROM vm WHERE ts < d.last / %llu * %llu)) FROM day d WHERE d.last IS NOT NULL),"
		" step(nth) AS (VALUES (0) UNION ALL SELECT nth + 1 FROM step WHERE nth + 1 < %llu)"
		" SELECT %llu, last / %llu * %llu + nth * %llu FROM day CROSS JOIN step"
		" WHERE last / %llu * %llu + nth * %llu <= last LIMIT %u", day, day, day, day, day / step, step, day, day, step, day, day, step,
		MARKS_MOST);
}

static int bring_up(struct database *d, const struct record_numbers *n, int64_t version)
{
	int r = make_all(d, n);

	if (!r && version == 1)
		r = from_version_1(d);
	if (!r && version != SCHEMA_VERSION)
		r = database_run(d, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID, SCHEMA_VERSION);
	return r;
}

int schema_open(struct database *d, const struct record_numbers *n, int64_t *ret_version)
{
	int64_t id, version, tables;
	int r;

	if ((r = database_number(d, &id, "PRAGMA application_id")) < 0 ||
		(r = database_number(d, &version, "PRAGMA user_version")) < 0 ||
		(r = database_number(d, &tables, "SELECT count(*) FROM sqlite_schema")) < 0)
		return r;
	if (tables || id) {
		if (id != APPLICATION_ID || version < 1)
			return 2;
		*ret_version = version;
		if (version > SCHEMA_VERSION)
			return 1;
	} else {
		*ret_version = version = 0;
		/* must be said before anything is in the file */
		r = database_run(d, "PRAGMA auto_vacuum = INCREMENTAL");
	}
	if (!r)
		r = database_run(d, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
	if (!r)
		r = database_begin(d);
	if (!r)
		r = database_end(d, bring_up(d, n, version));
	return r;
}

int schema_let_shrink(struct database *d, uint64_t most_bytes)
{
	struct database_size size;
	int64_t can;
	int r = database_number(d, &can, "PRAGMA auto_vacuum");

	if (r >= 0 && !can)
		r = database_size(d, &size);
	if (r < 0 || can || size.pages * size.page_bytes >= most_bytes)
		return r;
	return database_run(d, "PRAGMA auto_vacuum = INCREMENTAL; VACUUM");
}
