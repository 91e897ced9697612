/* Results of a benchmark as a picture.
 *
 *	bench-plot RESULTS.json PICTURE.svg
 *
 * RESULTS.json is what `tests/bench/run NAME --json` printed.  Of a fleet: for each pattern what every system did, against the
 * best peer, the latencies and the CPU time, on logarithmic axes.  Of all others: each ratio, against its target. */
#include "tests/lib/svg.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEFT   70
#define TOP    60
#define WIDTH  900
#define HEIGHT 170
#define GAP    60

static const char *const colours[] = { "#1b6ca8", "#c8553d", "#b8860b", "#3a7d44", "#8d5a97" };
#define COLOURS (sizeof colours / sizeof *colours)

static double number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

/* ---- a logarithmic axis ---- */

struct axis {
	double low, high;	/* powers of ten */
};

static void widen(struct axis *a, double v)
{
	if (v > 0) {
		a->low = fmin(a->low, floor(log10(v)));
		a->high = fmax(a->high, ceil(log10(v)));
	}
}

static double at(const struct axis *a, double v)
{
	return v > 0 ? (log10(v) - a->low) / (a->high - a->low) : 0;
}

static void draw_axis(const struct svg_panel *p, const struct axis *a)
{
	char label[32];

	for (double e = a->low; e <= a->high; e++) {
		snprintf(label, sizeof label, "%g", pow(10, e));
		svg_across(p, at(a, pow(10, e)), "#ddd", label);
	}
}

/* ---- a fleet ---- */

/* Of which each system has a value, and what it is called. */
static const struct {
	const char *key, *title;
	bool to_peer;
} measures[] = {
	{ "systems", "operations a second, against the best peer (1)", true },
	{ "latencies", "latency of an operation, us p99", false },
	{ "cpu_us", "CPU time of an operation, us", false },
};
#define MEASURES (sizeof measures / sizeof *measures)

static bool is_pattern(const json_t *row)
{
	return json_object_get(row, "systems") && json_object_get(row, "latencies");
}

static double value_of(const json_t *row, unsigned m, const char *system)
{
	double v = number(json_object_get(row, measures[m].key), system);

	return measures[m].to_peer ? v / number(row, "peer_value") : v;
}

static void draw_measure(FILE *f, const json_t *rows, unsigned m, double top)
{
	struct svg_panel p = { f, LEFT, top, WIDTH, HEIGHT };
	struct axis a = { 0, 1 };
	size_t i, n = 0, k = 0, systems = 1;
	const char *system;
	json_t *row, *value;

	json_array_foreach(rows, i, row) {
		if (!is_pattern(row))
			continue;
		n++;
		systems = json_object_size(json_object_get(row, "systems"));
		json_object_foreach(json_object_get(row, "systems"), system, value)
			widen(&a, value_of(row, m, system));
	}
	svg_heading(&p, measures[m].title);
	draw_axis(&p, &a);
	json_array_foreach(rows, i, row) {
		double step = 1.0 / (double)(n * (systems + 1)), x = (double)k * (double)(systems + 1) * step;
		size_t colour = 0;

		if (!is_pattern(row))
			continue;
		svg_below(&p, x + (double)systems * step / 2, text(row, "name") + strlen("fleet_"));
		json_object_foreach(json_object_get(row, "systems"), system, value) {
			svg_bar(&p, x, step * 0.9, measures[m].to_peer ? at(&a, 1) : 0, at(&a, value_of(row, m, system)),
				colours[colour % COLOURS]);
			x += step;
			colour++;
		}
		k++;
	}
}

static void legend(FILE *f, const json_t *rows)
{
	json_t *row, *value;
	const char *system;
	char style[32];
	size_t i, k = 0;

	json_array_foreach(rows, i, row) {
		if (!is_pattern(row))
			continue;
		json_object_foreach(json_object_get(row, "systems"), system, value) {
			snprintf(style, sizeof style, "fill='%s'", colours[k % COLOURS]);
			svg_text(f, LEFT + 150.0 * (double)k, 36, SVG_LEFT, style, system);
			k++;
		}
		return;
	}
}

static int plot_fleet(const char *path, const json_t *rows)
{
	FILE *f = svg_begin(path, LEFT + WIDTH + 30, TOP + (int)MEASURES * (HEIGHT + GAP), "A fleet of guests in too little memory");

	if (!f)
		return 1;
	legend(f, rows);
	for (unsigned m = 0; m < MEASURES; m++)
		draw_measure(f, rows, m, TOP + 10 + m * (HEIGHT + GAP));
	svg_end(f);
	return 0;
}

/* ---- any other ---- */

/* Above 1: better than the target, whichever way it goes. */
static double to_target(const json_t *row)
{
	char sense[4];
	double bound, ratio = number(row, "ratio");

	if (ratio <= 0 || sscanf(text(row, "target"), "%3s %lf", sense, &bound) != 2 || bound <= 0)
		return 0;
	return sense[0] == '<' ? bound / ratio : sense[0] == '>' ? ratio / bound : 0;
}

static int plot_ratios(const char *path, const char *bench, const json_t *rows)
{
	struct svg_panel p = { .left = 220, .top = TOP, .width = WIDTH - 220 };
	struct axis a = { -1, 1 };
	size_t i, n = 0, k = 0;
	json_t *row;
	char title[128];

	json_array_foreach(rows, i, row)
		if (to_target(row) > 0) {
			widen(&a, to_target(row));
			n++;
		}
	snprintf(title, sizeof title, "%s: how much better than the target (right of the line) or worse", bench);
	p.f = svg_begin(path, WIDTH + 60, TOP + 30 + 22 * (int)n, title);
	if (!p.f)
		return 1;
	json_array_foreach(rows, i, row) {
		double v = to_target(row), y = TOP + 22.0 * (double)k;
		struct svg_panel line = { p.f, p.left, y, p.width, 16 };
		char ratio[32];

		if (v <= 0)
			continue;
		svg_text(p.f, p.left - 8, y + 12, SVG_RIGHT, "", text(row, "name"));
		svg_bar(&line, fmin(at(&a, 1), at(&a, v)), fabs(at(&a, v) - at(&a, 1)), 0, 1, v >= 1 ? colours[3] : colours[1]);
		snprintf(ratio, sizeof ratio, "%.2f", number(row, "ratio"));
		svg_text(p.f, p.left + p.width + 6, y + 12, SVG_LEFT, "", ratio);
		k++;
	}
	svg_end(p.f);
	return 0;
}

int main(int argc, char **argv)
{
	json_error_t e;
	json_t *results, *rows;
	int r;

	if (argc != 3) {
		fprintf(stderr, "usage: %s RESULTS.json PICTURE.svg\n", argv[0]);
		return 16;
	}
	results = json_load_file(argv[1], 0, &e);
	if (!results) {
		fprintf(stderr, "%s:%d: %s; it is to be what tests/bench/run NAME --json printed\n", argv[1], e.line, e.text);
		return 1;
	}
	rows = json_object_get(results, "results");
	r = strcmp(text(results, "bench"), "fleet") ? plot_ratios(argv[2], text(results, "bench"), rows) :
						       plot_fleet(argv[2], rows);
	json_decref(results);
	return r;
}
