/* Tables: one definition of columns, printed for people or for cut(1). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum column_kind {
	COLUMN_TEXT,
	COLUMN_STATE,	/* a word that may have a colour (output.c) */
	COLUMN_BYTES, COLUMN_COUNT, COLUMN_NS, COLUMN_HEX, COLUMN_RATE, COLUMN_PERMILLE,
	COLUMN_TIME,	/* Unix time in milliseconds */
};

struct column {
	const char *name;	/* heading, and what -o takes */
	const char *field;	/* path of the value in a row of the reply */
	enum column_kind kind;
	bool shown;		/* without -o */
	const char *help;
};

struct table_style {
	const char *columns;	/* -o: comma-separated names; NULL: those shown by default; "+NAMES": these too; "all" */
	bool raw, noheadings, bytes, color;
};

/* Which columns the style wants, in its order: their number, at most COLUMNS_MAX.  -EINVAL: it names one that there
 * is not; that was said on stderr. */
#define COLUMNS_MAX 64
int columns_choose(const struct column *columns, const struct table_style *style,
	const struct column *ret_shown[COLUMNS_MAX]);

struct table;

/* `columns` end with a NULL name and must live as long as the table.  -EINVAL as above. */
int table_new(const struct column *columns, const struct table_style *style, struct table **ret);
void table_free(struct table *t);

/* How many columns are shown, and which definition each has. */
size_t table_columns(const struct table *t);
const struct column *table_column(const struct table *t, size_t i);

/* Rows are filled cell by cell: column i of the shown ones.  An empty or NULL text is "-". */
int table_row(struct table *t);
int table_cell(struct table *t, size_t i, const char *text);
int table_print(struct table *t);
