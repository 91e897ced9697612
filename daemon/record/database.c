#include "record/database.h"

#include "base/clock.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUSY_MS	     2000	/* another program that writes is waited for; readers never are */
#define LOOK_STEPS   1000	/* of SQLite's machine, between two looks at the clock */
#define ASIDE_MOST   1000

_Static_assert(DATABASE_NO_MEMORY == -SQLITE_NOMEM && DATABASE_WRONG == -SQLITE_ERROR, "as SQLite has them");

struct database {
	sqlite3 *db;
	uint64_t wal_pages;
	uint64_t deadline_ns;
	const atomic_bool *stop;
	char says[128];			/* why a transaction was rolled back, which SQLite forgets with it; "": it was not */
};

/* struct statement is sqlite3_stmt under another name. */
static sqlite3_stmt *of(struct statement *s)
{
	return (sqlite3_stmt *)s;
}

static int result(int e)
{
	return e == SQLITE_OK ? 0 : -e;
}

static int log_grew(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct database *d = arg;

	(void)db;
	(void)name;
	d->wal_pages = (uint64_t)pages;
	return SQLITE_OK;
}

static int time_is_over(void *arg)
{
	const struct database *d = arg;

	return (d->stop && atomic_load(d->stop)) || (d->deadline_ns != UINT64_MAX && now_ns() > d->deadline_ns);
}

static int open_with(struct database **ret, const char *path, int flags)
{
	struct database *d = calloc(1, sizeof *d);
	int e;

	if (!d)
		return DATABASE_NO_MEMORY;
	d->deadline_ns = UINT64_MAX;
	e = sqlite3_open_v2(path, &d->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
	if (!e)
		e = sqlite3_busy_timeout(d->db, BUSY_MS);
	if (e) {
		database_close(d);
		return -e;
	}
	/* instead of checkpoints by themselves, inside a commit: the writer makes them, between its transactions */
	sqlite3_wal_hook(d->db, log_grew, d);
	*ret = d;
	return 0;
}

int database_open(struct database **ret, const char *path)
{
	return open_with(ret, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
}

int database_open_reader(struct database **ret, const char *path)
{
	/* a reader must be able to write to the index of the log */
	int r = open_with(ret, path, SQLITE_OPEN_READWRITE);

	if (!r) {
		r = database_run(*ret, "PRAGMA query_only = 1");
		if (r < 0)
			database_close(*ret);
	}
	return r;
}

void database_close(struct database *d)
{
	if (!d)
		return;
	sqlite3_close(d->db);
	free(d);
}

const char *database_says(const struct database *d)
{
	return d->says[0] ? d->says : sqlite3_errmsg(d->db);
}

const char *database_error(int r)
{
	return sqlite3_errstr(-r);
}

bool database_is_damaged(int r)
{
	int e = -r & 0xff;

	return r < 0 && (e == SQLITE_CORRUPT || e == SQLITE_NOTADB);
}

bool database_is_late(int r)
{
	return r < 0 && (-r & 0xff) == SQLITE_INTERRUPT;
}

int database_run(struct database *d, const char *fmt, ...)
{
	char *sql;
	va_list ap;
	int e;

	va_start(ap, fmt);
	sql = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (!sql)
		return DATABASE_NO_MEMORY;
	e = sqlite3_exec(d->db, sql, NULL, NULL, NULL);
	sqlite3_free(sql);
	return result(e);
}

int database_number(struct database *d, int64_t *ret, const char *fmt, ...)
{
	sqlite3_stmt *s = NULL;
	char *sql;
	va_list ap;
	int e, r;

	*ret = 0;
	va_start(ap, fmt);
	sql = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (!sql)
		return DATABASE_NO_MEMORY;
	e = sqlite3_prepare_v2(d->db, sql, -1, &s, NULL);
	sqlite3_free(sql);
	if (e)
		return -e;
	e = sqlite3_step(s);
	if (e == SQLITE_ROW && sqlite3_column_type(s, 0) != SQLITE_NULL) {
		*ret = sqlite3_column_int64(s, 0);
		r = 0;
	} else {
		r = e == SQLITE_ROW || e == SQLITE_DONE ? 1 : -e;
	}
	sqlite3_finalize(s);
	return r;
}

int database_begin(struct database *d)
{
	d->says[0] = 0;
	return database_run(d, "BEGIN IMMEDIATE");
}

int database_end(struct database *d, int r)
{
	if (r >= 0) {
		int e = database_run(d, "COMMIT");

		if (!e)
			return r;
		r = e;
	}
	snprintf(d->says, sizeof d->says, "%s", sqlite3_errmsg(d->db));
	if (!sqlite3_get_autocommit(d->db))
		database_run(d, "ROLLBACK");
	return r;
}

int database_prepare(struct database *d, struct statement **ret, const char *sql)
{
	sqlite3_stmt *s = NULL;
	int e = sqlite3_prepare_v3(d->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL);

	if (e)
		return -e;
	*ret = (struct statement *)s;
	return 0;
}

void statement_free(struct statement *s)
{
	sqlite3_finalize(of(s));
}

void statement_bind(struct statement *s, int at, uint64_t value)
{
	sqlite3_bind_int64(of(s), at, value > INT64_MAX ? INT64_MAX : (sqlite3_int64)value);
}

void statement_bind_text(struct statement *s, int at, const char *text)
{
	sqlite3_bind_text(of(s), at, text, -1, SQLITE_STATIC);
}

int statement_step(struct statement *s)
{
	int e = sqlite3_step(of(s));

	return e == SQLITE_ROW ? 1 : e == SQLITE_DONE ? 0 : -e;
}

uint64_t statement_number(struct statement *s, int column)
{
	sqlite3_int64 n = sqlite3_column_int64(of(s), column);

	return n < 0 ? 0 : (uint64_t)n;
}

const char *statement_text(struct statement *s, int column)
{
	const unsigned char *text = sqlite3_column_text(of(s), column);

	return text ? (const char *)text : "";
}

void statement_reset(struct statement *s)
{
	sqlite3_reset(of(s));
	sqlite3_clear_bindings(of(s));
}

int statement_do(struct statement *s)
{
	int r = statement_step(s);

	statement_reset(s);
	return r > 0 ? -SQLITE_MISUSE : r;
}

void database_time_box(struct database *d, uint64_t deadline_ns, const atomic_bool *stop)
{
	bool any = stop || deadline_ns != UINT64_MAX;

	d->deadline_ns = deadline_ns;
	d->stop = stop;
	sqlite3_progress_handler(d->db, any ? LOOK_STEPS : 0, any ? time_is_over : NULL, d);
}

int database_check(struct database *d)
{
	struct statement *s = NULL;
	int r = database_prepare(d, &s, "PRAGMA quick_check(1)");

	if (r < 0)
		return r;
	r = statement_step(s);
	if (r > 0)
		r = strcmp(statement_text(s, 0), "ok") ? -SQLITE_CORRUPT : 0;
	statement_free(s);
	return database_is_late(r) ? 0 : r;
}

int database_size(struct database *d, struct database_size *ret)
{
	int64_t bytes, pages, free_pages;
	int r;

	if ((r = database_number(d, &bytes, "PRAGMA page_size")) < 0 || (r = database_number(d, &pages, "PRAGMA page_count")) < 0 ||
		(r = database_number(d, &free_pages, "PRAGMA freelist_count")) < 0)
		return r;
	*ret = (struct database_size){ .page_bytes = (uint64_t)bytes, .pages = (uint64_t)pages,
		.free_pages = (uint64_t)free_pages, .wal_pages = d->wal_pages };
	return 0;
}

uint64_t database_wal_pages(const struct database *d)
{
	return d->wal_pages;
}

static int checkpoint(struct database *d, int mode)
{
	int pages = -1, moved = -1, e;

	sqlite3_busy_timeout(d->db, 0);
	e = sqlite3_wal_checkpoint_v2(d->db, NULL, mode, &pages, &moved);
	sqlite3_busy_timeout(d->db, BUSY_MS);
	if (pages >= 0)
		d->wal_pages = (uint64_t)pages;
	return (e & 0xff) == SQLITE_BUSY ? 1 : result(e);
}

int database_checkpoint(struct database *d)
{
	return checkpoint(d, SQLITE_CHECKPOINT_PASSIVE);
}

int database_empty_log(struct database *d)
{
	return checkpoint(d, SQLITE_CHECKPOINT_TRUNCATE);
}

static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
#define ENDS (sizeof ends / sizeof *ends)

static int name_is_free(const char *name)
{
	for (unsigned i = 0; i < ENDS; i++) {
		char *full;
		bool there;

		if (asprintf(&full, "%s%s", name, ends[i]) < 0)
			return -ENOMEM;
		there = access(full, F_OK) == 0;
		free(full);
		if (there)
			return 0;
	}
	return 1;
}

/* The log belongs to the file and must not meet the new one: it goes first. */
static int rename_all(const char *path, const char *name)
{
	for (unsigned i = ENDS; i-- > 0;) {
		char *from = NULL, *to = NULL;
		bool done;

		if (asprintf(&from, "%s%s", path, ends[i]) < 0)
			return -ENOMEM;
		if (asprintf(&to, "%s%s", name, ends[i]) < 0) {
			free(from);
			return -ENOMEM;
		}
		done = rename(from, to) == 0 || errno == ENOENT;
		free(from);
		free(to);
		if (!done)
			return -errno;
	}
	return 0;
}

char *database_set_aside(const char *path, const char *why)
{
	for (unsigned i = 1; i <= ASIDE_MOST; i++) {
		char *name, number[16] = "";
		int r;

		if (i > 1)
			snprintf(number, sizeof number, "-%u", i);
		if (asprintf(&name, "%s.%s%s", path, why, number) < 0) {
			errno = ENOMEM;
			return NULL;
		}
		r = name_is_free(name);
		if (r > 0) {
			r = rename_all(path, name);
			if (r == 0)
				return name;
		}
		free(name);
		if (r < 0) {
			errno = -r;
			return NULL;
		}
	}
	errno = EEXIST;
	return NULL;
}
