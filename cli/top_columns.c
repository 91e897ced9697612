/* What can be shown of a VM, and how it is written. */
#include "cli/top.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define COLUMN_OF_TEXT	  COLUMN_TEXT
#define COLUMN_OF_BYTES	  COLUMN_BYTES
#define COLUMN_OF_BYTES_S COLUMN_RATE
#define COLUMN_OF_PER_S	  COLUMN_RATE
#define COLUMN_OF_PERCENT COLUMN_COUNT

#define COLUMN(name, field, kind, rank, value, help) { name, #field, COLUMN_OF_##kind, (rank) > 0, help },
const struct column top_columns[] = {
#include "cli/top_columns.def"
	{ NULL },
};
#undef COLUMN

#define V(number) n[TOP_##number]
#define COLUMN(name, field, kind, rank, value, help) \
	static double value_of_##field(const double *n) \
	{ \
		(void)n; \
		return value; \
	}
#include "cli/top_columns.def"
#undef COLUMN

#define COLUMN(name, field, kind, rank, value, help) { TOP_##kind, rank, value_of_##field },
const struct top_column top_column_more[] = {
#include "cli/top_columns.def"
};
#undef COLUMN

const size_t top_columns_count = sizeof top_column_more / sizeof *top_column_more;

const struct top_units top_units[] = {
	{ "MiB", 1 << 20 }, { "GiB", 1 << 30 }, { "auto", 0 }, { "KiB", 1 << 10 }, { "B", 1 },
};
const size_t top_units_count = sizeof top_units / sizeof *top_units;

int top_column_find(const char *name)
{
	for (unsigned i = 0; i < top_columns_count; i++)
		if (!strcasecmp(top_columns[i].name, name))
			return (int)i;
	return -1;
}

int top_units_find(const char *name)
{
	for (unsigned i = 0; i < top_units_count; i++)
		if (!strcasecmp(top_units[i].name, name))
			return (int)i;
	return -1;
}

double top_column_value(unsigned column, const struct top_vm *vm)
{
	double value = top_column_more[column].value(vm->n);

	return isfinite(value) ? value : NAN;
}

const char *top_column_text(unsigned column, const struct top_vm *vm)
{
	const char *field = top_columns[column].field;

	if (!strcmp(field, "name"))
		return vm->name;
	if (!strcmp(field, "state"))
		return *vm->state ? vm->state : "-";
	return isnan(vm->n[TOP_balloon_max_bytes]) ? "-" : vm->n[TOP_balloon_max_bytes] > 0 ? "Y" : "N";
}

unsigned top_column_width(unsigned column)
{
	unsigned heading = (unsigned)strlen(top_columns[column].name);

	switch (top_column_more[column].kind) {
	case TOP_TEXT:
		return column == TOP_COLUMN_NAME ? 10 : heading > 5 ? heading : !strcmp(top_columns[column].field, "state") ? 7 : 5;
	case TOP_PERCENT:
		return heading > 5 ? heading : 5;
	default:
		return heading > 7 ? heading : 7;
	}
}

static void format_auto(double value, char text[static 32])
{
	static const char letters[] = "BKMGTP";
	unsigned i = 0;

	while (value >= 1023.5 && i + 2 < sizeof letters) {
		value /= 1024;
		i++;
	}
	snprintf(text, 32, i && value < 99.95 ? "%.1f%c" : "%.0f%c", value, letters[i]);
}

void top_format(enum top_kind kind, double value, const struct top_units *u, bool fine, char text[static 32])
{
	if (isnan(value))
		snprintf(text, 32, "-");
	else if (kind == TOP_PERCENT)
		snprintf(text, 32, value < 99.95 ? "%.1f" : "%.0f", value);
	else if (kind == TOP_RATIO)
		snprintf(text, 32, "%.2f", value);
	else if (kind == TOP_PER_S)
		snprintf(text, 32, "%.0f", value);
	else if (u->bytes == 0)
		format_auto(value, text);
	else
		snprintf(text, 32, fine && u->bytes > 1 ? "%.1f" : "%.0f", value / u->bytes);
}

void top_cell(unsigned column, const struct top_vm *vm, const struct top_units *u, bool fine, char text[static 72])
{
	enum top_kind kind = top_column_more[column].kind;

	if (kind == TOP_TEXT)
		snprintf(text, 72, "%s", top_column_text(column, vm));
	else
		top_format(kind, top_column_value(column, vm), u, fine, text);
}

struct order {
	unsigned column;
	bool inverted;
};

static int compare(const void *a, const void *b, void *arg)
{
	const struct top_vm *const *x = a, *const *y = b;
	const struct order *o = arg;
	int r = 0;

	if (top_column_more[o->column].kind == TOP_TEXT) {
		r = strcmp(top_column_text(o->column, *x), top_column_text(o->column, *y));
	} else {
		double v = top_column_value(o->column, *x), w = top_column_value(o->column, *y);

		if (isnan(v) || isnan(w))	/* last in any order */
			r = (isnan(v) - isnan(w)) * (o->inverted ? -1 : 1);
		else
			r = v < w ? 1 : v > w ? -1 : 0;
	}
	if (o->inverted)
		r = -r;
	/* those that are equal keep their places from one sample to the next */
	return r ? r : strcmp((*x)->name, (*y)->name);
}

void top_sort(const struct top_vm **vms, size_t n, unsigned column, bool inverted)
{
	qsort_r(vms, n, sizeof *vms, compare, &(struct order){ column, inverted });
}
