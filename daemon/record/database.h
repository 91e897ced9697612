/* The door to SQLite: connections, statements, and the few things about the file that the writer must know.
 *
 * Results: 0 is fine; 1 says what each function says; negative is what SQLite said, negated (database_error has it in words).
 * A connection belongs to one thread at a time.  Formats are SQLite's: %Q a quoted text, %w the inside of a quoted name. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database;
struct statement;

#define DATABASE_WRONG	   (-1)	/* tables or columns are not as the statement has them */
#define DATABASE_NO_MEMORY (-7)

/* Make the file if it is not there.  On failure nothing stays open. */
int database_open(struct database **ret, const char *path);
/* To read only; the file must be there. */
int database_open_reader(struct database **ret, const char *path);
/* Its statements have been freed.  NULL is fine. */
void database_close(struct database *d);
/* What SQLite said last, in words; what a result means. */
const char *database_says(const struct database *d);
const char *database_error(int r);
/* Whether the result says that the file itself is damaged, or no database at all. */
bool database_is_damaged(int r);
/* Whether a call was cut off by its time box. */
bool database_is_late(int r);

int database_run(struct database *d, const char *fmt, ...);
/* The first column of the first row.  1: there is no row, or it is NULL; *ret is 0 then. */
int database_number(struct database *d, int64_t *ret, const char *fmt, ...);

/* A transaction that writes.  `r` < 0: it is rolled back; otherwise committed.  Returns `r`, or what the commit said. */
int database_begin(struct database *d);
int database_end(struct database *d, int r);

int database_prepare(struct database *d, struct statement **ret, const char *sql);
void statement_free(struct statement *s);
/* Parameters and columns are counted as SQLite does: parameters from 1, columns from 0.  A text must live until the next reset. */
void statement_bind(struct statement *s, int at, uint64_t value);
void statement_bind_text(struct statement *s, int at, const char *text);
/* 1: a row; 0: there are no more. */
int statement_step(struct statement *s);
uint64_t statement_number(struct statement *s, int column);
const char *statement_text(struct statement *s, int column);
/* Ready for new parameters; the old ones are gone. */
void statement_reset(struct statement *s);
/* For what gives no rows: all of it, and reset. */
int statement_do(struct statement *s);

/* From now on calls are cut off at this time (monotonic; UINT64_MAX: never), or when *stop is true (may be NULL). */
void database_time_box(struct database *d, uint64_t deadline_ns, const atomic_bool *stop);
/* Look for damage, within the time box.  0: none was found in that time. */
int database_check(struct database *d);

struct database_size {
	uint64_t page_bytes;
	uint64_t pages, free_pages;	/* of the file; of these, in no table */
	uint64_t wal_pages;		/* in the log, at the last commit or checkpoint */
};
int database_size(struct database *d, struct database_size *ret);
/* Pages in the log now, without asking the file. */
uint64_t database_wal_pages(const struct database *d);
/* Bring the log into the file as far as readers allow; waits for nobody. */
int database_checkpoint(struct database *d);
/* All of it, and begin the log anew.  1: a reader is in the way.  Waits for nobody. */
int database_empty_log(struct database *d);

/* The file and its log are kept as PATH.WHY, or PATH.WHY-2 and so on if that is there; nobody has it open.  The new name, the
 * caller's, or NULL with errno. */
char *database_set_aside(const char *path, const char *why);
