#include "record/store.h"

#include "base/clock.h"
#include "base/events.h"
#include "record/database.h"
#include "record/gap.h"
#include "record/latency.h"
#include "record/retain.h"
#include "record/rollup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK_NS      NS_PER_S	/* that looking for damage may take, at start */
#define SHRINK_NS     (60 * NS_PER_S)	/* that an old file may take to be written anew; rows wait in the queue meanwhile */
#define SHRINK_BYTES  (256ull << 20)	/* which larger ones might not do in that time */
#define CHECKPOINT    1000u	/* pages of log */
#define LOG_PAGE      4096u	/* bytes: SQLite's pages, if nobody has asked for others */
#define PRUNE_MS      (60 * 1000u)
#define PASS_MS	      (10 * 1000u)	/* rows further apart than this have a gap between them */

#define PASSED 3		/* tables in which a row takes the place of older ones */
struct store {
	const struct record_options *options;
	struct database *db;			/* NULL: could not be opened, and is tried again */
	struct statement *insert[ROW_KINDS], *passed[PASSED];
	struct rollup *rollup;
	uint64_t tick_ms;			/* of the last rows; 0: none yet */
	uint64_t pruned_ms;			/* likewise, when retain_by_age was called; 0: not yet */
	bool old;				/* it was of version 1 when it was opened */
	bool counting;				/* there may be more of what is too many */
	struct retain_clock clock;
	bool held;				/* the log is at its bound */
	char says[160];
};

/* ---- opening ---- */

static int prepare_insert(struct store *w, enum row_kind kind, const char *table, const char *keys, unsigned n_keys,
	const struct record_number *numbers, size_t n)
{
	char *sql = NULL;
	size_t size;
	FILE *f = open_memstream(&sql, &size);
	int e;

	if (!f)
		return DATABASE_NO_MEMORY;
	fprintf(f, "INSERT OR REPLACE INTO %s (%s", table, keys);
	for (size_t i = 0; i < n; i++)
		fprintf(f, ", \"%s\"", numbers[i].name);
	fputs(") VALUES (?", f);
	for (size_t i = 1; i < n_keys + n; i++)
		fputs(", ?", f);
	fputc(')', f);
	e = fclose(f) == 0 ? database_prepare(w->db, &w->insert[kind], sql) : DATABASE_NO_MEMORY;
	free(sql);
	return e;
}

static int prepare_all(struct store *w)
{
	static const char *const passed[PASSED] = {
		"DELETE FROM vm WHERE ts > ?1 AND ts <= ?2", "DELETE FROM host WHERE ts > ?1 AND ts <= ?2",
		"DELETE FROM fault_latency WHERE ts > ?1 AND ts <= ?2",
	};
	const struct record_numbers *n = &w->options->numbers;
	int e = prepare_insert(w, ROW_VM, "vm", "ts, vm", 2, n->vm, n->n_vm);

	if (!e)
		e = prepare_insert(w, ROW_HOST, "host", "ts", 1, n->host, n->n_host);
	if (!e)
		e = prepare_insert(w, ROW_LATENCY, "fault_latency",
			"ts, vm, cause, p50_ns, p99_ns, count, sum_ns, histogram", 8, NULL, 0);
	if (!e)
		e = prepare_insert(w, ROW_PLAN, "plan", "ts", 1, n->plan, n->n_plan);
	if (!e)
		e = prepare_insert(w, ROW_PLAN_VM, "plan_vm", "ts, nth, vm", 3, n->plan_vm, n->n_plan_vm);
	if (!e)
		e = prepare_insert(w, ROW_EVENT, "event", "ts, nth, vm, event, text, level, lease, session, count, since", 10, NULL, 0);
	for (unsigned i = 0; i < PASSED && !e; i++)
		e = database_prepare(w->db, &w->passed[i], passed[i]);
	return e ? e : rollup_new(&w->rollup, w->db, n);
}

static void close_db(struct store *w)
{
	for (int i = 0; i < ROW_KINDS; i++) {
		statement_free(w->insert[i]);
		w->insert[i] = NULL;
	}
	for (int i = 0; i < PASSED; i++) {
		statement_free(w->passed[i]);
		w->passed[i] = NULL;
	}
	rollup_free(w->rollup);
	w->rollup = NULL;
	database_close(w->db);
	w->db = NULL;
}

/* Why a file is of no use, as the end of the name under which it is kept. */
struct why {
	char text[48];
};

static void why_now(struct why *why, const char *word)
{
	time_t now = (time_t)(wall_ns() / NS_PER_S);
	struct tm tm;
	size_t n = (size_t)snprintf(why->text, sizeof why->text, "%s-", word);

	gmtime_r(&now, &tm);
	strftime(why->text + n, sizeof why->text - n, "%Y%m%dT%H%M%SZ", &tm);
}

/* One try; on failure nothing stays open.  1: the file is of no use to us, for a reason. */
static int open_db(struct store *w, struct why *why)
{
	int64_t version = 0;
	int e = database_open(&w->db, w->options->path);

	if (!e)
		e = schema_open(w->db, &w->options->numbers, &version);
	if (!e)
		e = database_run(w->db, "PRAGMA journal_size_limit = %llu",
			(unsigned long long)retain_log_bytes(w->options->keep.max_bytes) / 2);
	if (!e)
		e = prepare_all(w);
	if (!e)
		e = retain_clock_begin(&w->clock, w->db);
	w->old = !e && version == 1;
	if (e == 1)
		snprintf(why->text, sizeof why->text, "newer-v%lld", (long long)version);
	else if (e == 2)
		why_now(why, "foreign");
	else if (database_is_damaged(e) || e == DATABASE_WRONG)
		why_now(why, "damaged");
	if (e < 0 && w->db)
		snprintf(w->says, sizeof w->says, "%s", database_says(w->db));
	if (e)
		close_db(w);
	return e > 0 || database_is_damaged(e) || e == DATABASE_WRONG ? 1 : e;
}

static int begin_anew(struct store *w, const struct why *why)
{
	struct why other;
	char *name = database_set_aside(w->options->path, why->text);

	if (!name) {
		snprintf(w->says, sizeof w->says, "it is %.*s and cannot be kept aside: %s", (int)strcspn(why->text, "-"), why->text,
			strerror(errno));
		return -1;
	}
	event_tell(EVENT_METRICS_ASIDE, NULL, "metrics database %s is %.*s: kept as %s, a new one is begun", w->options->path, (int)strcspn(why->text, "-"),
		why->text, name);
	free(name);
	return open_db(w, &other) ? -1 : 0;
}

/* Whether it never was a database: a wrong path in the settings must not move away what is there. */
static bool is_another_file(const char *path)
{
	char head[16] = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : pread(fd, head, sizeof head, 0);

	if (fd >= 0)
		close(fd);
	return n > 0 && memcmp(head, "SQLite format 3", sizeof head) && memcmp(head, (char[sizeof head]){ 0 }, (size_t)n);
}

static int open_or_begin(struct store *w)
{
	struct why why;
	int e = open_db(w, &why);

	if (e <= 0)
		return e;
	if (!strncmp(why.text, "foreign", 7) || is_another_file(w->options->path)) {
		snprintf(w->says, sizeof w->says, "it is something else and is left alone: name another file, or move it away");
		return -1;
	}
	return begin_anew(w, &why);
}

/* Damage was found while it was in use. */
static int begin_after_damage(struct store *w)
{
	struct why why;

	close_db(w);
	why_now(&why, "damaged");
	return begin_anew(w, &why);
}

/* ---- writing ---- */

/* The first row of another time: old ones that tell of the same time go. */
static int pass(struct store *w, uint64_t ts_ms)
{
	int e = 0;

	if (ts_ms == w->tick_ms)
		return 0;
	if (w->tick_ms && ts_ms > w->tick_ms && ts_ms - w->tick_ms <= PASS_MS) {
		for (unsigned i = 0; i < PASSED && !e; i++) {
			statement_bind(w->passed[i], 1, w->tick_ms);
			statement_bind(w->passed[i], 2, ts_ms);
			e = statement_do(w->passed[i]);
		}
	}
	w->tick_ms = ts_ms;
	return e;
}

static int insert_row(struct store *w, const struct row *row)
{
	struct statement *s = w->insert[row->kind];
	bool sample = row->kind == ROW_VM || row->kind == ROW_HOST || row->kind == ROW_LATENCY;
	char *text = NULL;
	int at = 1, e;

	if (sample && ((e = pass(w, row->ts_ms)) || (e = rollup_mark(w->rollup, row->ts_ms))))
		return e;
	statement_bind(s, at++, row->ts_ms);
	if (row->kind == ROW_PLAN_VM || row->kind == ROW_EVENT)
		statement_bind(s, at++, row->nth);
	if (row->kind != ROW_HOST && row->kind != ROW_PLAN)
		statement_bind_text(s, at++, row->vm);
	if (row->kind == ROW_EVENT) {
		statement_bind_text(s, at++, row->cause);
		statement_bind_text(s, at++, row->text);
	}
	if (row->kind == ROW_LATENCY) {
		statement_bind_text(s, at++, row->cause);
		text = latency_text(row->latency);
		if (!text)
			return DATABASE_NO_MEMORY;
		latency_bind(s, at, row->latency, text);
	}
	for (size_t i = 0; i < row->n; i++)
		statement_bind(s, at++, row->values[i]);
	e = statement_do(s);
	free(text);
	return e;
}

static int write_once(struct store *w, const struct row *rows)
{
	int e = w->db ? 0 : open_or_begin(w);

	if (!e)
		e = database_begin(w->db);
	if (e)
		return e;
	for (const struct row *row = rows; row && !e; row = row->next)
		e = insert_row(w, row);
	e = database_end(w->db, e);
	if (e)
		rollup_unmark(w->rollup);
	return e;
}

/* The bound of the log. */
static uint64_t log_pages(const struct record_keep *keep)
{
	return retain_log_bytes(keep->max_bytes) / 2 / LOG_PAGE;
}

/* Whether the log is at its bound, and a reader keeps it from being begun anew.  One of our own is waited for: it soon makes
 * way. */
bool store_is_held(struct store *w, const struct record_keep *keep)
{
	bool held = w->db && !w->options->twin_wal && database_wal_pages(w->db) >= log_pages(keep) && database_empty_log(w->db) == 1;

	if (held && gap_take())
		held = database_empty_log(w->db) == 1;
	if (held && !w->held)
		event_tell(EVENT_METRICS_FAILED, NULL, "metrics are lost: the log of %s is at its bound, and somebody keeps reading from it", w->options->path);
	if (!held && w->held)
		event_tell(EVENT_METRICS_AGAIN, NULL, "metrics are written to %s again", w->options->path);
	w->held = held;
	return held;
}

int store_write(struct store *w, const struct row *rows)
{
	int e = write_once(w, rows);

	if (database_is_damaged(e)) {
		e = begin_after_damage(w);
		if (!e)
			e = write_once(w, rows);
	}
	if (e && w->db)
		snprintf(w->says, sizeof w->says, "%s", database_says(w->db));
	else if (e)
		snprintf(w->says, sizeof w->says, "%s", database_error(e));
	return e;
}

/* Normally the log is all in the file after a checkpoint, and the next transaction begins it anew.  It goes on growing while
 * there is always some reader: then ours are asked for a gap, in which it is emptied. */
static void tend_log(struct store *w, const struct record_keep *keep)
{
	uint64_t few = log_pages(keep) / 4 < CHECKPOINT ? log_pages(keep) / 4 : CHECKPOINT;

	if (database_wal_pages(w->db) >= 2 * few)
		database_empty_log(w->db);
	else if (database_wal_pages(w->db) >= few)
		database_checkpoint(w->db);
	gap_want(database_wal_pages(w->db) >= 2 * few);
}

/* By age and number, now and then; by age only while the clock is believed. */
static int prune(struct store *w, const struct record_keep *keep)
{
	int e = 0;

	if (!w->pruned_ms || w->tick_ms - w->pruned_ms >= PRUNE_MS || w->tick_ms < w->pruned_ms) {
		w->pruned_ms = w->tick_ms;
		w->counting = true;
		if (retain_clock_is_right(&w->clock, w->tick_ms, now_ns()))
			e = retain_by_age(w->db, keep, w->tick_ms);
	}
	if (!e && w->counting) {
		e = retain_by_number(w->db, keep);
		w->counting = e > 0;
	}
	return e;
}

/* A bounded part of what is to be done with rows that are there.  What fails is tried again with the next rows: the disk may be
 * full, and then it is what makes room. */
bool store_tend(struct store *w, const struct record_keep *keep)
{
	int rolled, trimmed, e;

	if (!w->db || !w->tick_ms || w->held)
		return false;
	rolled = rollup_run(w->rollup, w->tick_ms);
	e = prune(w, keep);
	trimmed = retain_by_bytes(w->db, keep);
	tend_log(w, keep);
	if (database_is_damaged(rolled) || database_is_damaged(trimmed) || database_is_damaged(e))
		begin_after_damage(w);
	return rolled > 0 || trimmed > 0 || e > 0;
}

void store_look_over(struct store *w, const atomic_bool *stop)
{
	int e;

	database_time_box(w->db, now_ns() + CHECK_NS, stop);
	e = database_check(w->db);
	database_time_box(w->db, UINT64_MAX, NULL);
	if (database_is_damaged(e)) {
		begin_after_damage(w);
		return;
	}
	/* once: what has no room or is cut off would meet the same at each start */
	if (!w->old)
		return;
	database_time_box(w->db, now_ns() + SHRINK_NS, stop);
	schema_let_shrink(w->db, SHRINK_BYTES);
	database_time_box(w->db, UINT64_MAX, NULL);
}

const char *store_says(const struct store *w)
{
	return w->says;
}

int store_new(struct store **ret, const struct record_options *options, char *why, size_t why_bytes)
{
	struct store *w = calloc(1, sizeof *w);
	int e = DATABASE_NO_MEMORY;

	if (w) {
		w->options = options;
		e = open_or_begin(w);
	}
	if (e) {
		snprintf(why, why_bytes, "%s", w && w->says[0] ? w->says : database_error(e));
		free(w);
		return e;
	}
	*ret = w;
	return 0;
}

void store_free(struct store *w)
{
	if (!w)
		return;
	gap_want(false);
	close_db(w);
	free(w);
}
