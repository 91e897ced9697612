/* With libsmartcols the columns are aligned to the terminal; without it the same cells are separated by tabs. */
#include "cli/output.h"
#include "cli/table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct table {
	const struct column *shown[COLUMNS_MAX];
	size_t n;
	struct table_style style;
	void *impl;		/* struct libscols_table */
	void *line;		/* struct libscols_line */
	size_t cells, rows;	/* tabs: of the open row; rows so far */
};

static const struct column *find(const struct column *columns, const char *name, size_t length)
{
	for (const struct column *c = columns; c->name; c++)
		if (strlen(c->name) == length && !strncasecmp(c->name, name, length))
			return c;
	return NULL;
}

int columns_choose(const struct column *columns, const struct table_style *style,
	const struct column *ret_shown[COLUMNS_MAX])
{
	const char *p = style->columns;
	int n = 0;

	if (!p || *p == '+' || !strcasecmp(p, "all")) {
		for (const struct column *c = columns; c->name && n < COLUMNS_MAX; c++)
			if (c->shown || (p && *p != '+'))
				ret_shown[n++] = c;
		if (!p || *p++ != '+')
			return n;
	}
	for (;;) {
		size_t length = strcspn(p, ",");
		const struct column *c = find(columns, p, length);

		if (!c || n == COLUMNS_MAX) {
			fprintf(stderr, "memctl: no column \"%.*s\"; there are:", (int)length, p);
			for (c = columns; c->name; c++)
				fprintf(stderr, " %s", c->name);
			fputc('\n', stderr);
			return -EINVAL;
		}
		ret_shown[n++] = c;
		if (!p[length])
			return n;
		p += length + 1;
	}
}

size_t table_columns(const struct table *t)
{
	return t->n;
}

const struct column *table_column(const struct table *t, size_t i)
{
	return t->shown[i];
}

#ifdef HAVE_SMARTCOLS
#include <libsmartcols.h>

static int start(struct table *t)
{
	struct libscols_table *s;

	scols_init_debug(0);
	s = scols_new_table();
	if (!s)
		return -ENOMEM;
	t->impl = s;
	scols_table_enable_raw(s, t->style.raw);
	scols_table_enable_noheadings(s, t->style.noheadings);
	scols_table_enable_colors(s, t->style.color);
	for (size_t i = 0; i < t->n; i++) {
		int flags = t->shown[i]->kind <= COLUMN_STATE ? 0 : SCOLS_FL_RIGHT;

		if (!scols_table_new_column(s, t->shown[i]->name, 0, flags))
			return -ENOMEM;
	}
	return 0;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	scols_unref_table(t->impl);
	free(t);
}

int table_row(struct table *t)
{
	t->line = scols_table_new_line(t->impl, NULL);
	return t->line ? 0 : -ENOMEM;
}

int table_cell(struct table *t, size_t i, const char *text)
{
	const char *color = t->style.color && t->shown[i]->kind == COLUMN_STATE ? output_color_of(text) : "";
	int r = scols_line_set_data(t->line, i, text && *text ? text : "-");

	if (r || !*color)
		return r;
	return scols_cell_set_color(scols_line_get_cell(t->line, i), color);
}

int table_print(struct table *t)
{
	return scols_print_table(t->impl);
}

#else

static int start(struct table *t)
{
	for (size_t i = 0; i < t->n && !t->style.noheadings; i++)
		printf("%s%c", t->shown[i]->name, i + 1 < t->n ? '\t' : '\n');
	return 0;
}

void table_free(struct table *t)
{
	free(t);
}

int table_row(struct table *t)
{
	if (t->rows++)
		putchar('\n');
	t->cells = 0;
	return 0;
}

int table_cell(struct table *t, size_t i, const char *text)
{
	printf("%s%s", t->cells++ ? "\t" : "", text && *text ? text : "-");
	return 0;
}

int table_print(struct table *t)
{
	if (t->rows)
		putchar('\n');
	return 0;
}
#endif

int table_new(const struct column *columns, const struct table_style *style, struct table **ret)
{
	struct table *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return -ENOMEM;
	t->style = *style;
	r = columns_choose(columns, style, t->shown);
	if (r >= 0) {
		t->n = (size_t)r;
		r = start(t);
	}
	if (r < 0) {
		table_free(t);
		return r;
	}
	*ret = t;
	return 0;
}
