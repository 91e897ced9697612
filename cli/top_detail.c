/* One VM: where its memory is, how it fared, and every number in words. */
#include "cli/top_screen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_CELLS 10
#define GRAPH_ROWS_MOST 6
#define TEXT_ROWS   3	/* of the numbers, that the graphs leave at least */

/* ---- the bar ----
 * Every page of the VM is in one segment: what is in none of the states that are counted is zero, or was never touched. */

static const struct segment {
	char letter;
	const char *name;
} segments[TERMINAL_SEGMENTS] = {
	{ 'R', "resident" }, { 'S', "shared" }, { 'C', "compressed" }, { 'W', "swapped" }, { 'B', "ballooned" }, { 'Z', "zero, untouched" },
	{ '.', "not leased" },
};

static void measure(const struct top_vm *vm, double ret_bytes[TERMINAL_SEGMENTS])
{
	const double *n = vm->n;
	double counted = n[TOP_resident_bytes] + n[TOP_shared_bytes] + n[TOP_breaking_bytes] + n[TOP_compressed_bytes] + n[TOP_swapped_bytes] +
		n[TOP_ballooned_bytes] + n[TOP_lost_bytes];

	ret_bytes[0] = n[TOP_resident_bytes] + n[TOP_breaking_bytes] + n[TOP_lost_bytes];
	ret_bytes[1] = n[TOP_shared_bytes];
	ret_bytes[2] = n[TOP_compressed_bytes];
	ret_bytes[3] = n[TOP_swapped_bytes];
	ret_bytes[4] = n[TOP_ballooned_bytes];
	ret_bytes[5] = fmax(0, n[TOP_leased_bytes] - counted);
	ret_bytes[6] = fmax(0, n[TOP_size_bytes] - n[TOP_leased_bytes]);
}

/* Cells by largest remainders, so that they add up; what there is at all has one. */
static void divide(const double bytes[TERMINAL_SEGMENTS], int cells, int ret[TERMINAL_SEGMENTS])
{
	double all = 0, rest[TERMINAL_SEGMENTS];
	int given = 0;

	for (unsigned i = 0; i < TERMINAL_SEGMENTS; i++)
		all += isnan(bytes[i]) ? 0 : bytes[i];
	for (unsigned i = 0; i < TERMINAL_SEGMENTS; i++) {
		double exact = all > 0 && !isnan(bytes[i]) ? bytes[i] / all * cells : 0;

		ret[i] = exact > 0 && exact < 1 ? 1 : (int)exact;
		rest[i] = exact - ret[i];
		given += ret[i];
	}
	while (all > 0 && given != cells) {
		unsigned at = 0;
		int sign = given < cells ? 1 : -1;

		for (unsigned i = 1; i < TERMINAL_SEGMENTS; i++)
			if (sign > 0 ? rest[i] > rest[at] : ret[i] > 1 && (ret[at] <= 1 || rest[i] < rest[at]))
				at = i;
		ret[at] += sign;
		rest[at] -= sign;
		given += sign;
	}
}

static void draw_bar(int row, const double bytes[TERMINAL_SEGMENTS])
{
	int cells[TERMINAL_SEGMENTS], column = terminal_put(row, 0, STYLE_BOLD, "[");

	divide(bytes, terminal_columns() - 2, cells);
	for (unsigned i = 0; i < TERMINAL_SEGMENTS; i++)
		for (int k = 0; k < cells[i]; k++)
			column = terminal_put(row, column, STYLE_SEGMENT_NR(i), "%c", segments[i].letter);
	terminal_put(row, column, STYLE_BOLD, "]");
}

/* How many rows. */
static int draw_legend(const struct top_ui *ui, int row, const double bytes[TERMINAL_SEGMENTS], double size)
{
	int begin = row, width = 39, column = 0;

	for (unsigned i = 0; i < TERMINAL_SEGMENTS; i++) {
		char text[32];

		if (column + width > terminal_columns() && column) {
			column = 0;
			row++;
		}
		top_format(TOP_BYTES, bytes[i], ui->units, ui->units->bytes > 0, text);
		terminal_put(row, column, STYLE_SEGMENT_NR(i), "%c", segments[i].letter);
		terminal_put(row, column + 2, 0, "%-15s %9s %3.0f %%", segments[i].name, text, size > 0 ? 100 * bytes[i] / size : 0);
		column += width;
	}
	return row - begin + 1;
}

/* ---- the graphs ----
 * A column of a graph is a step of time; the newest is on the right.  A step without a sample is a gap, not a zero. */

struct graph {
	const char *label, *words;
	enum top_curve curve;
	enum top_kind kind;
	double least;		/* what the top stands for, at least */
};

/* The highest in the step that ends there; NAN: there is none.  Samples come a little late or early: half a step is no gap. */
static double value_in(const struct top_trail *t, enum top_curve curve, double end_ms, double step_ms)
{
	double most = NAN;

	for (size_t i = t->n; i-- > 0 && (double)t->points[i].ts_ms > end_ms - 1.6 * step_ms;)
		if ((double)t->points[i].ts_ms <= end_ms && !(most >= t->points[i].value[curve]))
			most = isnan(t->points[i].value[curve]) ? most : t->points[i].value[curve];
	return most;
}

static const char *glyph(double eighths)
{
	static const char *const blocks[] = { " ", "\u2581", "\u2582", "\u2583", "\u2584", "\u2585", "\u2586", "\u2587", "\u2588" };
	static const char *const plain[] = { " ", ".", ".", ".", ":", ":", "|", "|", "#" };
	int n = eighths <= 0 ? 0 : eighths >= 8 ? 8 : (int)(eighths + 0.5);

	return terminal_is_utf8() ? blocks[n] : plain[n];
}

static void draw_graph(const struct top_ui *ui, const struct graph *g, const struct top_sample *s, int row, int rows)
{
	double step = 1e3 * ui_step_s(ui), top = g->least, last = (double)s->ts_ms;
	int width = terminal_columns() - LABEL_CELLS - 1;
	char text[32];

	for (int x = 0; x < width; x++) {
		double v = value_in(&ui->trail, g->curve, last - (width - 1 - x) * step, step);

		top = v > top ? v : top;
	}
	top_format(g->kind, top, ui->units, ui->units->bytes > 0, text);
	terminal_put(row, 0, STYLE_BOLD, "%-*s", LABEL_CELLS, g->label);
	if (rows > 1)
		terminal_put(row + 1, 0, STYLE_DIM, "%*s", LABEL_CELLS - 1, text);
	for (int x = 0; x < width; x++) {
		double v = value_in(&ui->trail, g->curve, last - (width - 1 - x) * step, step);
		double eighths = top > 0 && v > 0 ? v / top * rows * 8 : 0;

		/* little is not nothing */
		if (v > 0 && eighths < 1)
			eighths = 1;
		for (int y = 0; y < rows && !isnan(v); y++)
			terminal_put(row + rows - 1 - y, LABEL_CELLS + x, STYLE_TITLE, "%s", y == 0 && eighths <= 0 ? "_" : glyph(eighths - 8 * y));
	}
}

static void span_text(double seconds, char text[static 32])
{
	if (seconds >= 2 * 86400)
		snprintf(text, 32, "%.0f d", seconds / 86400);
	else if (seconds >= 2 * 3600)
		snprintf(text, 32, "%.0f h", seconds / 3600);
	else if (seconds >= 120)
		snprintf(text, 32, "%.0f min", seconds / 60);
	else
		snprintf(text, 32, "%.0f s", seconds);
}

static int draw_graphs(const struct top_ui *ui, const struct top_sample *s, const struct top_vm *vm, int row, int rows)
{
	const struct graph graphs[TOP_CURVES] = {
		{ "CNSM", "", CURVE_CONSUMED, TOP_BYTES, vm->n[TOP_size_bytes] },
		{ "SWR+W/s", "", CURVE_SWAP, TOP_BYTES_S, 1 << 20 },
		{ "%LAT_M", "", CURVE_LATENCY, TOP_PERCENT, 10 },
	};
	int shown = rows >= 6 ? 3 : rows >= 4 ? 2 : rows >= 2 ? 1 : 0, begin = row;
	char text[32];

	if (!shown || terminal_columns() < 40)
		return 0;
	rows = (rows - 1) / shown < 1 ? 1 : (rows - 1) / shown;
	rows = rows < GRAPH_ROWS_MOST ? rows : GRAPH_ROWS_MOST;
	for (int i = 0; i < shown; i++) {
		/* with room for two, how it fares is worth more than its disk */
		draw_graph(ui, &graphs[shown == 2 && i == 1 ? CURVE_LATENCY : i], s, row, rows);
		row += rows;
	}
	span_text((terminal_columns() - LABEL_CELLS - 1) * ui_step_s(ui), text);
	terminal_put(row, LABEL_CELLS, STYLE_DIM, "%s before", text);
	terminal_put(row, terminal_columns() - 5, STYLE_DIM, "%s", s->recorded ? "then" : " now");
	return row + 1 - begin;
}

/* ---- the numbers ---- */

static void draw_numbers(struct top_ui *ui, const struct top_vm *vm, int row, int end)
{
	unsigned all = (unsigned)top_columns_count - 1;

	if (end <= row)
		return;
	if (ui->scroll + (size_t)(end - row) > all)
		ui->scroll = all > (unsigned)(end - row) ? all - (unsigned)(end - row) : 0;
	for (unsigned i = 0; row < end && ui->scroll + i < all; i++, row++) {
		unsigned column = (unsigned)ui->scroll + i + 1;
		char text[72];

		top_cell(column, vm, ui->units, ui->units->bytes > 0, text);
		terminal_put(row, 0, STYLE_BOLD, "%-9s", top_columns[column].name);
		terminal_put(row, 9, 0, "%11s  %s", text, top_columns[column].help);
	}
}

static void draw_title(const struct top_ui *ui, const struct top_vm *vm, int row)
{
	char size[32];

	top_format(TOP_BYTES, vm->n[TOP_size_bytes], &top_units[top_units_find("auto")], false, size);
	if (*ui->message || (*ui->trouble && !ui->past))
		top_draw_message(ui, row);
	else
		terminal_put(row, terminal_put(row, 0, STYLE_BOLD, "%s", vm->name), 0, "  %s%s%s, balloon driver: %s", vm->state, *vm->state ? ", " : "",
			size, vm->n[TOP_balloon_max_bytes] > 0 ? "yes" : "no");
}

void top_draw_detail(struct top_ui *ui)
{
	static const char *const keys[][2] = { { "Esc", "List" }, { "< >", "Other VMs" }, { "Up Down", "Numbers" }, { "u", "Units" }, { "[ ]", "Time" },
		{ "?", "Help" }, { "q", "Quit" }, { NULL, NULL } };
	const struct top_sample *s = ui_sample(ui);
	const struct top_vm *vm = top_find(s, ui->selected);
	int rows = terminal_rows(), row = 1, end = rows - 1;
	double bytes[TERMINAL_SEGMENTS];

	top_draw_clock(ui);
	top_draw_foot(ui, keys);
	if (!vm) {
		terminal_put(row, 0, STYLE_BOLD, "%s", ui->selected);
		terminal_put(row + 1, 0, 0, s && s->recorded ? "It was not there." : "It is not there any more.");
		return;
	}
	draw_title(ui, vm, row++);
	measure(vm, bytes);
	if (row < end)
		draw_bar(row++, bytes);
	if (end - row > 5)
		row += draw_legend(ui, row, bytes, vm->n[TOP_size_bytes]);
	if (end - row > 12)
		row++;
	row += draw_graphs(ui, s, vm, row, (end - row) * 2 / 3 < end - row - TEXT_ROWS ? (end - row) * 2 / 3 : end - row - TEXT_ROWS);
	if (end - row > 6)
		row++;
	draw_numbers(ui, vm, row, end);
}
