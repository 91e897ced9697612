/* Tables (application_id "mctl", user_version 1), all STRICT and WITHOUT ROWID, keyed by time first: rows come in
 * that order, so inserts append to the tree, and what is too old is one range at its front.
 *
 *	vm		ts, vm, one column a number
 *	host		ts, one column a number
 *	fault_latency	ts, vm, cause, p50_ns, p99_ns, count
 *	plan		ts, one column a number
 *	plan_vm		ts, nth (its place in the plan of that ts), vm, one column a number
 *	catalogue	number, source (the table), kind, unit, sentence
 *
 * A number that a database lacks becomes a column of it; one that we no longer have stays, at its default 0.  So
 * only a change of meaning needs a new user_version.
 *
 * Lock order: r->lock guards the queue and is the only lock; no call to SQLite is made under it. */
#include "record/record.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION_ID	0x6d63746c /* "mctl" */
#define VERSION		1
#define WAL_MAX_BYTES	(16 << 20)
#define QUEUE_MAX	16384
#define BUSY_MS		2000
#define PRUNE_NS	(60 * NS_PER_S)

enum row_kind { ROW_VM, ROW_HOST, ROW_LATENCY, ROW_PLAN, ROW_PLAN_VM, ROW_KINDS };

struct row {
	struct row *next;
	enum row_kind kind;
	uint64_t ts_ms;
	char vm[64];
	char cause[32];
	uint64_t nth;
	size_t n;
	uint64_t values[];
};

struct record {
	struct record_options options;
	char *path;
	sqlite3 *db;				/* the writer's alone once the thread runs */
	sqlite3_stmt *insert[ROW_KINDS];
	uint64_t pruned_ns;
	bool told;				/* that writing fails */

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct row *first, **last;
	size_t queued;
	bool ending;

	_Atomic uint64_t written, dropped, failed;
};

static int run_sql(sqlite3 *db, const char *fmt, ...)
{
	char *sql;
	va_list ap;
	int r;

	va_start(ap, fmt);
	sql = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (!sql)
		return SQLITE_NOMEM;
	r = sqlite3_exec(db, sql, NULL, NULL, NULL);
	sqlite3_free(sql);
	return r;
}

/* The first column of the first row as a number; -1 when there is none. */
static int query_int(sqlite3 *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *s = NULL;
	int r = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	if (r == SQLITE_OK) {
		r = sqlite3_step(s);
		*ret = r == SQLITE_ROW ? sqlite3_column_int64(s, 0) : -1;
		r = r == SQLITE_ROW || r == SQLITE_DONE ? SQLITE_OK : r;
	}
	sqlite3_finalize(s);
	return r;
}

/* Whether this result says that the file itself is of no use to us, now or later. */
static bool is_unusable(int r)
{
	r &= 0xff;
	return r == SQLITE_CORRUPT || r == SQLITE_NOTADB || r == SQLITE_MISMATCH || r == SQLITE_SCHEMA;
}

/* SQLITE_MISMATCH: not ours, or newer than we are. */
static int check_identity(sqlite3 *db)
{
	int64_t id, version, tables;
	int r;

	if ((r = query_int(db, "PRAGMA application_id", &id)) || (r = query_int(db, "PRAGMA user_version", &version)) ||
		(r = query_int(db, "SELECT count(*) FROM sqlite_schema", &tables)))
		return r;
	if (!tables && !id)
		return SQLITE_OK; /* new */
	return id == APPLICATION_ID && version >= 1 && version <= VERSION ? SQLITE_OK : SQLITE_MISMATCH;
}

static int add_columns(sqlite3 *db, const char *table, const struct record_number *numbers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char *sql = sqlite3_mprintf("SELECT count(*) FROM pragma_table_info(%Q) WHERE name = %Q", table,
			numbers[i].name);
		int64_t there = 0;
		int r = sql ? query_int(db, sql, &there) : SQLITE_NOMEM;

		sqlite3_free(sql);
		if (!r && !there)
			r = run_sql(db, "ALTER TABLE \"%w\" ADD COLUMN \"%w\" INTEGER NOT NULL DEFAULT 0", table,
				numbers[i].name);
		if (!r)
			r = run_sql(db, "INSERT OR REPLACE INTO catalogue VALUES (%Q, %Q, %Q, %Q, %Q)", numbers[i].name, table,
				numbers[i].kind, numbers[i].unit, numbers[i].sentence);
		if (r)
			return r;
	}
	return SQLITE_OK;
}

static int make_tables(sqlite3 *db, const struct record_options *o)
{
	int r = run_sql(db,
		"PRAGMA application_id = %d; PRAGMA user_version = %d;"
		"CREATE TABLE IF NOT EXISTS vm (ts INTEGER NOT NULL, vm TEXT NOT NULL, PRIMARY KEY (ts, vm))"
		" STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS host (ts INTEGER NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS fault_latency (ts INTEGER NOT NULL, vm TEXT NOT NULL, cause TEXT NOT NULL,"
		" p50_ns INTEGER NOT NULL, p99_ns INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (ts, vm, cause))"
		" STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS catalogue (number TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL,"
		" unit TEXT NOT NULL, sentence TEXT NOT NULL, PRIMARY KEY (number, source)) STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS plan (ts INTEGER NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS plan_vm (ts INTEGER NOT NULL, nth INTEGER NOT NULL, vm TEXT NOT NULL,"
		" PRIMARY KEY (ts, nth)) STRICT, WITHOUT ROWID;",
		APPLICATION_ID, VERSION);

	if (!r)
		r = add_columns(db, "vm", o->vm_numbers, o->n_vm_numbers);
	if (!r)
		r = add_columns(db, "host", o->host_numbers, o->n_host_numbers);
	if (!r)
		r = add_columns(db, "plan", o->plan_numbers, o->n_plan_numbers);
	return r ? r : add_columns(db, "plan_vm", o->plan_vm_numbers, o->n_plan_vm_numbers);
}

static int prepare_insert(sqlite3 *db, sqlite3_stmt **ret, const char *keys, unsigned n_keys, const char *table,
	const struct record_number *numbers, size_t n)
{
	sqlite3_str *s = sqlite3_str_new(db);
	char *sql;
	int r;

	sqlite3_str_appendf(s, "INSERT OR REPLACE INTO \"%w\" (%s", table, keys);
	for (size_t i = 0; i < n; i++)
		sqlite3_str_appendf(s, ", \"%w\"", numbers[i].name);
	sqlite3_str_appendall(s, ") VALUES (?");
	for (size_t i = 1; i < n_keys + n; i++)
		sqlite3_str_appendall(s, ", ?");
	sqlite3_str_appendall(s, ")");
	sql = sqlite3_str_finish(s);
	if (!sql)
		return SQLITE_NOMEM;
	r = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
	sqlite3_free(sql);
	return r;
}

static void close_db(struct record *r)
{
	for (int i = 0; i < ROW_KINDS; i++) {
		sqlite3_finalize(r->insert[i]);
		r->insert[i] = NULL;
	}
	sqlite3_close(r->db);
	r->db = NULL;
}

/* One try; on failure nothing stays open. */
static int open_db(struct record *r)
{
	const struct record_options *o = &r->options;
	static const struct record_number latency[] = { { .name = "p50_ns" }, { .name = "p99_ns" }, { .name = "count" } };
	int e = sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

	if (!e)
		e = sqlite3_busy_timeout(r->db, BUSY_MS);
	if (!e)
		e = check_identity(r->db);
	if (!e)
		e = run_sql(r->db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = %d;",
			WAL_MAX_BYTES);
	if (!e)
		e = run_sql(r->db, "BEGIN IMMEDIATE");
	if (!e) {
		e = make_tables(r->db, o);
		if (!e)
			e = run_sql(r->db, "COMMIT");
	}
	if (!e)
		e = prepare_insert(r->db, &r->insert[ROW_VM], "ts, vm", 2, "vm", o->vm_numbers, o->n_vm_numbers);
	if (!e)
		e = prepare_insert(r->db, &r->insert[ROW_HOST], "ts", 1, "host", o->host_numbers, o->n_host_numbers);
	if (!e)
		e = prepare_insert(r->db, &r->insert[ROW_LATENCY], "ts, vm, cause", 3, "fault_latency", latency, 3);
	if (!e)
		e = prepare_insert(r->db, &r->insert[ROW_PLAN], "ts", 1, "plan", o->plan_numbers, o->n_plan_numbers);
	if (!e)
		e = prepare_insert(r->db, &r->insert[ROW_PLAN_VM], "ts, nth, vm", 3, "plan_vm", o->plan_vm_numbers,
			o->n_plan_vm_numbers);
	if (e)
		close_db(r);
	return e;
}

/* Kept, with its log, under a name that says when; the log belongs to the file and must not meet the new one. */
static int set_aside(struct record *r)
{
	static const char *const ends[] = { "", "-wal", "-shm" };
	uint64_t now = wall_ns() / NS_PER_MS;

	for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
		char *from = sqlite3_mprintf("%s%s", r->path, ends[i]);
		char *to = sqlite3_mprintf("%s.aside-%llu%s", r->path, (unsigned long long)now, ends[i]);
		int e = from && to && (rename(from, to) == 0 || errno == ENOENT) ? 0 : -EIO;

		sqlite3_free(from);
		sqlite3_free(to);
		if (e)
			return e;
	}
	log_warning("metrics database %s is damaged, newer or not ours: kept as %s.aside-%llu, a new one is begun",
		r->path, r->path, (unsigned long long)now);
	return 0;
}

static int open_or_begin(struct record *r)
{
	int e = open_db(r);

	/* plain SQLITE_ERROR: tables of these names that do not have our columns */
	if ((is_unusable(e) || e == SQLITE_ERROR) && set_aside(r) == 0)
		e = open_db(r);
	return e;
}

static int insert_row(struct record *r, const struct row *row)
{
	sqlite3_stmt *s = r->insert[row->kind];
	int at = 1, e;

	sqlite3_bind_int64(s, at++, (sqlite3_int64)row->ts_ms);
	if (row->kind == ROW_PLAN_VM)
		sqlite3_bind_int64(s, at++, (sqlite3_int64)row->nth);
	if (row->kind != ROW_HOST && row->kind != ROW_PLAN)
		sqlite3_bind_text(s, at++, row->vm, -1, SQLITE_STATIC);
	if (row->kind == ROW_LATENCY)
		sqlite3_bind_text(s, at++, row->cause, -1, SQLITE_STATIC);
	for (size_t i = 0; i < row->n; i++)
		sqlite3_bind_int64(s, at++, row->values[i] > INT64_MAX ? INT64_MAX : (sqlite3_int64)row->values[i]);
	e = sqlite3_step(s);
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return e == SQLITE_DONE ? SQLITE_OK : e;
}

static int write_rows(struct record *r, const struct row *rows)
{
	int e = r->db ? SQLITE_OK : open_or_begin(r);

	if (!e)
		e = run_sql(r->db, "BEGIN IMMEDIATE");
	for (const struct row *row = rows; row && !e; row = row->next)
		e = insert_row(r, row);
	if (!e)
		e = run_sql(r->db, "COMMIT");
	if (e && r->db && !sqlite3_get_autocommit(r->db))
		run_sql(r->db, "ROLLBACK");
	return e;
}

/* In pieces of an hour: a long transaction would make a reader's snapshot and the log grow. */
static void prune(struct record *r)
{
	const struct {
		const char *table;
		uint64_t keep_seconds;
	} kept[] = {
		{ "vm", r->options.keep_seconds }, { "host", r->options.keep_seconds },
		{ "fault_latency", r->options.keep_seconds }, { "plan", r->options.keep_plan_seconds },
		{ "plan_vm", r->options.keep_plan_seconds },
	};
	uint64_t now = now_ns(), now_ms = wall_ns() / NS_PER_MS;

	if (!r->db || (r->pruned_ns && now - r->pruned_ns < PRUNE_NS))
		return;
	r->pruned_ns = now;
	for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++)
		if (kept[i].keep_seconds && now_ms > kept[i].keep_seconds * 1000)
			run_sql(r->db, "DELETE FROM \"%w\" WHERE ts < min(%lld, (SELECT min(ts) FROM \"%w\") + 3600000)",
				kept[i].table, (long long)(now_ms - kept[i].keep_seconds * 1000), kept[i].table);
}

static void free_rows(struct row *rows)
{
	while (rows) {
		struct row *next = rows->next;

		free(rows);
		rows = next;
	}
}

static void write_batch(struct record *r, struct row *rows)
{
	uint64_t n = 0;
	int e;

	for (const struct row *row = rows; row; row = row->next)
		n++;
	e = write_rows(r, rows);
	if (is_unusable(e)) {
		/* damage that was found only now */
		close_db(r);
		e = set_aside(r) == 0 ? write_rows(r, rows) : e;
	}
	if (e) {
		atomic_fetch_add(&r->failed, n);
		if (!r->told)
			log_warning("cannot write metrics to %s: %s", r->path,
				r->db ? sqlite3_errmsg(r->db) : sqlite3_errstr(e));
	} else {
		atomic_fetch_add(&r->written, n);
		if (r->told)
			log_notice("metrics are written to %s again", r->path);
	}
	r->told = e != SQLITE_OK;
	free_rows(rows);
}

static void *writer(void *arg)
{
	struct record *r = arg;

	pthread_mutex_lock(&r->lock);
	for (;;) {
		struct row *rows;

		while (!r->first && !r->ending)
			pthread_cond_wait(&r->wake, &r->lock);
		rows = r->first;
		if (!rows)
			break;
		r->first = NULL;
		r->last = &r->first;
		r->queued = 0;
		pthread_mutex_unlock(&r->lock);
		write_batch(r, rows);
		prune(r);
		pthread_mutex_lock(&r->lock);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static struct row *row_new(enum row_kind kind, uint64_t ts_ms, const char *vm, const char *cause, const uint64_t *values, size_t n)
{
	struct row *row = malloc(sizeof *row + n * sizeof *values);

	if (!row)
		return NULL;
	*row = (struct row){ .kind = kind, .ts_ms = ts_ms, .n = n };
	snprintf(row->vm, sizeof row->vm, "%s", vm);
	snprintf(row->cause, sizeof row->cause, "%s", cause);
	memcpy(row->values, values, n * sizeof *values);
	return row;
}

/* All `n` of these rows or none (`first` is NULL if there was no memory for them): they count as `room`, if no more than `max` wait
 * then. */
static void queue(struct record *r, struct row *first, struct row **last, size_t n, size_t room, size_t max)
{
	bool full = true;

	if (first) {
		pthread_mutex_lock(&r->lock);
		full = r->queued + room > max || r->ending;
		if (!full) {
			*r->last = first;
			r->last = last;
			r->queued += room;
			pthread_cond_signal(&r->wake);
		}
		pthread_mutex_unlock(&r->lock);
	}
	if (full) {
		free_rows(first);
		atomic_fetch_add(&r->dropped, n);
	}
}

static void put(struct record *r, enum row_kind kind, uint64_t ts_ms, const char *vm, const char *cause,
	const uint64_t *values, size_t n)
{
	struct row *row = row_new(kind, ts_ms, vm, cause, values, n);

	queue(r, row, row ? &row->next : NULL, 1, 1, r->options.queue_max);
}

void record_vm(struct record *r, uint64_t ts_ms, const char *vm, const uint64_t *values)
{
	put(r, ROW_VM, ts_ms, vm, "", values, r->options.n_vm_numbers);
}

void record_host(struct record *r, uint64_t ts_ms, const uint64_t *values)
{
	put(r, ROW_HOST, ts_ms, "", "", values, r->options.n_host_numbers);
}

void record_fault_latency(struct record *r, uint64_t ts_ms, const char *vm, const char *cause, uint64_t p50_ns,
	uint64_t p99_ns, uint64_t count)
{
	put(r, ROW_LATENCY, ts_ms, vm, cause, (uint64_t[]){ p50_ns, p99_ns, count }, 3);
}

/* A storm of plans must not push the samples out: those find half of the queue free at least.  A plan of more VMs than that counts as
 * the half, so it gets in when nothing else waits. */
void record_plan(struct record *r, uint64_t ts_ms, const uint64_t *values, const struct record_plan_vm *vms, size_t n)
{
	size_t half = r->options.queue_max / 2;
	struct row *first = row_new(ROW_PLAN, ts_ms, "", "", values, r->options.n_plan_numbers), **last;

	last = first ? &first->next : NULL;
	for (size_t i = 0; i < n && first; i++) {
		*last = row_new(ROW_PLAN_VM, ts_ms, vms[i].vm, "", vms[i].values, r->options.n_plan_vm_numbers);
		if (!*last) {
			free_rows(first);
			first = NULL;
			break;
		}
		(*last)->nth = i;
		last = &(*last)->next;
	}
	queue(r, first, last, n + 1, n < half ? n + 1 : half, half);
}

void record_counts(struct record *r, struct record_counts *ret)
{
	*ret = (struct record_counts){
		.written = atomic_load(&r->written),
		.dropped = atomic_load(&r->dropped),
		.failed = atomic_load(&r->failed),
	};
}

static void free_record(struct record *r)
{
	close_db(r);
	free_rows(r->first);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r->path);
	free(r);
}

int record_open(struct record **ret, const struct record_options *options, struct problem *p)
{
	struct record *r = calloc(1, sizeof *r);
	sigset_t all, old;
	int e;

	if (!r || !(r->path = strdup(options->path))) {
		free(r);
		return problem_set(p, ENOMEM, PROBLEM_SYSTEM, 0, 0, "no memory for the metrics");
	}
	r->options = *options;
	if (!r->options.queue_max)
		r->options.queue_max = QUEUE_MAX;
	r->last = &r->first;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);

	e = open_or_begin(r);
	if (e) {
		e = problem_set(p, EIO, PROBLEM_SYSTEM, 0, 0, "cannot open the metrics database %s: %s (metrics = none does without)",
			r->path, sqlite3_errstr(e));
		free_record(r);
		return e;
	}
	/* signals are the control thread's business */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	e = pthread_create(&r->thread, NULL, writer, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		errno = e;
		e = problem_errno(p, "cannot start the metrics writer");
		free_record(r);
		return e;
	}
	*ret = r;
	return 0;
}

void record_close(struct record *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->ending = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	free_record(r);
}
