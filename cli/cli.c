#include "cli/cli.h"
#include "cli/output.h"
#include "cli/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WIDTH 100	/* of text */

int cli_ask(struct cli *c, const char *method, const char *const pairs[][2], struct value **ret)
{
	char why[320];
	int r = cli_try(c, method, pairs, ret, why);

	if (r)
		cli_error("%s", why);
	return r;
}

static bool json_lines;

void cli_json_lines(void)
{
	json_lines = true;
}

/* That it could not be written is said once, at the end (output_end). */
int cli_print_json(const struct value *reply)
{
	if (value_print_reply(stdout, reply, json_lines) < 0 && !ferror(stdout)) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

int cli_show_reply(struct cli *c, struct value *reply, const char *array, const struct column *columns)
{
	const struct column *shown[COLUMNS_MAX];
	const char *fields[COLUMNS_MAX];
	int n;

	if (!c->json)
		return cli_print_table(c, columns, value_at(reply, array));
	if (!c->style.columns)
		return cli_print_json(reply);
	n = columns_choose(columns, &c->style, shown);
	if (n < 0)
		return EXIT_USAGE;
	for (int i = 0; i < n; i++)
		fields[i] = shown[i]->field;
	if (value_choose(reply, array, fields, (size_t)n) < 0) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	return cli_print_json(reply);
}

int cli_show(struct cli *c, const char *method, const char *const pairs[][2], const char *array,
	const struct column *columns)
{
	struct value *reply;
	int r = cli_ask(c, method, pairs, &reply);

	if (r)
		return r;
	r = cli_show_reply(c, reply, array, columns);
	value_close(reply);
	return r;
}

int cli_do(struct cli *c, const char *method, const char *const pairs[][2])
{
	struct value *reply;
	int r = cli_ask(c, method, pairs, &reply);

	if (r)
		return r;
	if (c->json)
		r = cli_print_json(reply);
	value_close(reply);
	return r;
}

void cli_print_wrapped(const char *begin, const char *text)
{
	size_t column = strlen(begin);
	bool first = true;

	fputs(begin, stdout);

	while (*text) {
		size_t n = 0;

		while (text[n] && text[n] != ' ')
			n++;
		if (!first && column + 1 + n > WIDTH) {
			fputs("\n  ", stdout);
			column = 2;
		} else if (!first) {
			putchar(' ');
			column++;
		}
		first = false;
		printf("%.*s", (int)n, text);
		column += n;
		text += n;
		while (*text == ' ')
			text++;
	}
	putchar('\n');
}

/* The time of day, with the day if it is not today. */
static void put_time(uint64_t ms, char text[static 32])
{
	time_t then = (time_t)(ms / 1000), now = time(NULL);
	struct tm a, b;

	if (!localtime_r(&then, &a) || !localtime_r(&now, &b))
		snprintf(text, 32, "%" PRIu64, ms);
	else
		strftime(text, 32, a.tm_yday == b.tm_yday && a.tm_year == b.tm_year ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &a);
}

char *cli_cell(const struct cli *c, const struct value *row, const char *field, enum column_kind kind)
{
	const struct value *v = value_at(row, field);
	char text[32];
	uint64_t n;

	if (kind == COLUMN_TEXT || kind == COLUMN_STATE || kind == COLUMN_COUNT || !value_number(v, &n))
		return value_words(v);
	if (kind == COLUMN_HEX)
		snprintf(text, sizeof text, "0x%" PRIx64, n);
	else if (kind == COLUMN_TIME && !c->style.bytes)
		put_time(n, text);
	else if (kind == COLUMN_PERMILLE)
		snprintf(text, sizeof text, "%" PRIu64 ".%" PRIu64, n / 10, n % 10);
	else if (c->style.bytes)
		snprintf(text, sizeof text, "%" PRIu64, n);
	else if (kind == COLUMN_BYTES)
		units_size(n, text);
	else
		units_time(n, text);
	return strdup(text);
}

void cli_line(const struct cli *c, const char *name, const struct value *row, const char *field,
	enum column_kind kind, const char *remark)
{
	char *text = cli_cell(c, row, field, kind);
	const char *color = c->style.color && kind == COLUMN_STATE ? output_color_of(text) : "";

	printf("%-24s %s%12s%s%s%s\n", name, color, text ? text : "-", *color ? OUTPUT_COLOR_END : "", remark ? "  " : "",
		remark ? remark : "");
	free(text);
}

static int print_table(struct cli *c, struct table *t, const struct value *rows)
{
	for (size_t i = 0; i < value_items(rows); i++) {
		int r = table_row(t);

		for (size_t k = 0; !r && k < table_columns(t); k++) {
			const struct column *column = table_column(t, k);
			char *text = cli_cell(c, value_item(rows, i), column->field, column->kind);

			r = text ? table_cell(t, k, text) : -ENOMEM;
			free(text);
		}
		if (r < 0)
			return r;
	}
	return table_print(t);
}

int cli_print_table(struct cli *c, const struct column *columns, const struct value *rows)
{
	struct table *t;
	int r;

	r = table_new(columns, &c->style, &t);
	if (r == -EINVAL)
		return EXIT_USAGE;
	if (!r) {
		r = print_table(c, t, rows);
		table_free(t);
	}
	if (r < 0) {
		cli_error("cannot print the table: %s", strerror(-r));
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}
