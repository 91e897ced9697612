/* Charts (report.h).  A chart is as wide as the page lets it be: its lines are drawn in a box of BOX units that is stretched to it,
 * with strokes that are not stretched; text and marks stand outside of that box, at percentages of the width, and keep their size.
 * All charts have the same margins, so their axes of time are one.
 *
 * What is drawn is also said: in <desc> for those who hear the page, beside the last value for those who see no colours. */
#include "cli/report.h"

#include "cli/cli.h"
#include "cli/svg.h"
#include "cli/units.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BOX	  800.0
#define TOP	  10.0	/* above the box */
#define BOTTOM	  24.0	/* below it, for times */
#define KEY	  15.0	/* from one label to the next */
#define LANE	  18.0
#define TICKS	  7u

const char *const report_levels[REPORT_LEVELS] = { "error", "warning", "notice", "info" };

/* ---- words ---- */

void report_value(enum report_unit unit, double value, char text[static 32])
{
	if (unit == UNIT_NS)
		units_time((uint64_t)value, text);
	else if (unit == UNIT_PERCENT)
		snprintf(text, 32, value < 10 && value > 0 ? "%.1f %%" : "%.0f %%", value);
	else
		units_size((uint64_t)(value < 0 ? 0 : value), text);
	if (unit == UNIT_BYTES_RATE)
		strcat(text, "/s");
}

void report_time(const struct report *r, uint64_t ms, bool date, char text[static 40])
{
	time_t t = (time_t)(ms / 1000);
	struct tm tm;

	localtime_r(&t, &tm);
	strftime(text, 40, r->slot_ms % 60000 ? date ? "%-d %b %H:%M:%S" : "%H:%M:%S" : date ? "%-d %b %H:%M" : "%H:%M", &tm);
}

/* What each line does, in a sentence. */
static void describe(const struct report_drawing *d, const struct report_chart *c)
{
	for (size_t i = 0; i < c->n_lines; i++) {
		const struct report_line *l = &c->lines[i];
		struct report_range range;
		char least[32], most[32], last[32];

		if (!report_range(l->values, d->r->slots, &range))
			continue;
		report_value(c->unit, range.least, least);
		report_value(c->unit, range.most, most);
		report_value(c->unit, range.last, last);
		svg_text(d->f, l->label);
		fprintf(d->f, ": from %s to %s, at the end %s. ", least, most, last);
	}
}

/* ---- the axis of time ---- */

static double x_of(const struct report *r, uint64_t ms)
{
	return (double)(ms - r->origin_ms) / (double)(r->slots * r->slot_ms);
}

static uint64_t tick_seconds(uint64_t span_s)
{
	static const uint64_t steps[] = { 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800,
		604800 };
	uint64_t least = span_s / TICKS + 1;

	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (steps[i] >= least)
			return steps[i];
	return (least + 604799) / 604800 * 604800;
}

/* Ticks are round in local time; a day begins with its date. */
static void draw_times(const struct report_drawing *d, double height)
{
	const struct report *r = d->r;
	uint64_t end = r->origin_ms + r->slots * r->slot_ms, step = tick_seconds((end - r->origin_ms) / 1000);
	time_t first = (time_t)(r->origin_ms / 1000);
	struct tm tm;
	unsigned nth = 0;

	localtime_r(&first, &tm);
	for (int64_t t = ((int64_t)first + tm.tm_gmtoff + (int64_t)step - 1) / (int64_t)step * (int64_t)step - tm.tm_gmtoff;
		(uint64_t)t * 1000 <= end; t += (int64_t)step, nth++) {
		double x = 100 * x_of(r, (uint64_t)t * 1000);
		const char *anchor = x < 3 ? "start" : x > 97 ? "end" : "middle";
		time_t at = (time_t)t;
		char text[40];

		localtime_r(&at, &tm);
		strftime(text, sizeof text, step >= 86400 || (!tm.tm_hour && !tm.tm_min && !tm.tm_sec) ? "%-d %b" :
			step % 60 ? "%H:%M:%S" : "%H:%M", &tm);
		fprintf(d->f, "<line class='grid' x1='%.2f%%' x2='%.2f%%' y1='%g' y2='%g'/><text class='tick%s' x='%.2f%%' y='%g' "
			"text-anchor='%s'>",
			x, x, TOP, TOP + height + 4, nth % 2 ? " odd" : "", x, TOP + height + 17, anchor);
		svg_text(d->f, text);
		fputs("</text>\n", d->f);
	}
}

static void begin(struct report_drawing *d, const char *title, const char *note, double height)
{
	d->charts++;
	fputs("<figure><figcaption><b>", d->f);
	svg_text(d->f, title);
	fputs("</b>", d->f);
	if (note && *note) {
		fputs(" <span>", d->f);
		svg_text(d->f, note);
		fputs("</span>", d->f);
	}
	fprintf(d->f, "</figcaption>\n<svg class='chart' role='img' aria-labelledby='c%u c%ud' height='%g'><title id='c%u'>",
		d->charts, d->charts,
		TOP + height + BOTTOM, d->charts);
	svg_text(d->f, title);
	fprintf(d->f, "</title><desc id='c%ud'>", d->charts);
}

static void open_box(const struct report_drawing *d, double height)
{
	fprintf(d->f, "<svg class='box' y='%g' width='100%%' height='%g' viewBox='0 0 %g %g' preserveAspectRatio='none'>\n", TOP,
		height, BOX,
		height);
}

static void end(const struct report_drawing *d)
{
	fputs("</svg></figure>\n", d->f);
}

/* ---- the axis of values ---- */

struct scale {
	double low, high, height;
	bool logarithmic;
};

static double y_of(const struct scale *s, double value)
{
	double part;

	if (s->logarithmic)
		part = log10((value < s->low ? s->low : value) / s->low) / log10(s->high / s->low);
	else
		part = value / s->high;
	return s->height - s->height * part;
}

static void draw_mark(const struct report_drawing *d, const struct report_chart *c, const struct scale *s, double value)
{
	char text[32];
	double y = TOP + y_of(s, value);

	report_value(c->unit, value, text);
	fprintf(d->f, "<line class='grid' x1='0' x2='100%%' y1='%.1f' y2='%.1f'/><text class='tick' x='-6' y='%.1f' "
		"text-anchor='end'>%s</text>\n",
		y, y, y + 4, text);
}

static void draw_values(const struct report_drawing *d, const struct report_chart *c, struct scale *s, double most)
{
	bool bytes = c->unit == UNIT_BYTES || c->unit == UNIT_BYTES_RATE;

	if (c->logarithmic) {
		s->logarithmic = true;
		s->low = 1000;
		s->high = 1e6;
		while (s->high < most)
			s->high *= 10;
		for (double v = s->low; v <= s->high * 1.01; v *= s->high / s->low > 1e5 ? 100 : 10)
			draw_mark(d, c, s, v);
	} else {
		double least = bytes ? c->unit == UNIT_BYTES ? 1 << 20 : 64 << 10 : 1, step;

		/* averages that add up to a hair more than a round number need no mark above it */
		most = most > least ? most * 0.995 : least;
		step = svg_step(most, 4, bytes);
		s->low = 0;
		s->high = ceil(most / step) * step;
		for (double v = 0; v <= s->high * 1.001; v += step)
			draw_mark(d, c, s, v);
	}
}

/* ---- labels at the right, where the lines end ---- */

struct key {
	const struct report_line *line;
	double y;			/* where it ends */
	double at;			/* where its label is */
	char value[32];
};

static int by_end(const void *a, const void *b)
{
	double x = ((const struct key *)a)->y, y = ((const struct key *)b)->y;

	return x < y ? -1 : x > y;
}

/* None over another, none outside: down from the top, and what has gone too far up again from the bottom. */
static void set_apart(struct key *keys, size_t n, double height)
{
	for (size_t i = 0; i < n; i++)
		keys[i].at = i && keys[i].y < keys[i - 1].at + KEY ? keys[i - 1].at + KEY : keys[i].y < 4 ? 4 : keys[i].y;
	for (size_t i = n; i-- > 0;) {
		double most = i + 1 < n ? keys[i + 1].at - KEY : height;

		keys[i].at = keys[i].at < most ? keys[i].at : most;
	}
}

static void draw_keys(const struct report_drawing *d, const struct report_chart *c, struct key *keys, size_t n)
{
	qsort(keys, n, sizeof *keys, by_end);
	set_apart(keys, n, c->height);
	fputs("<svg x='100%' y='0' class='keys'>", d->f);
	for (size_t i = 0; i < n; i++) {
		const struct report_line *l = keys[i].line;
		double y = TOP + keys[i].at;

		fprintf(d->f, "<path class='lead' d='M1 %.1fL7 %.1f'/>", TOP + keys[i].y, y);
		if (c->stacked)
			fprintf(d->f, "<rect x='9' y='%.1f' width='12' height='10' fill='url(#%s-pattern)'/>", y - 5, l->class);
		else
			fprintf(d->f, "<path class='line' d='M8 %.1fH23' style='stroke:var(--%s)'%s%s%s/>", y, l->class,
				l->dash ? " stroke-dasharray='" : "",
				l->dash ? l->dash : "", l->dash ? "'" : "");
		fprintf(d->f, "<text class='key' x='27' y='%.1f'>", y + 4);
		svg_text(d->f, l->label);
		fputs("<tspan class='last'> ", d->f);
		svg_text(d->f, keys[i].value);
		fputs("</tspan></text>\n", d->f);
	}
	fputs("</svg>\n", d->f);
}

/* ---- lines and areas ---- */

static double middle(const struct report *r, size_t slot)
{
	return BOX * ((double)slot + 0.5) / (double)r->slots;
}

static double edge(const struct report *r, size_t slot)
{
	return BOX * (double)slot / (double)r->slots;
}

/* A line is flat to the edges of its first and last slot, so that one of a single slot is seen too. */
static void draw_line(const struct report_drawing *d, const struct report_line *l, const struct scale *s)
{
	struct svg_path p;
	char attributes[160];

	snprintf(attributes, sizeof attributes, "class='line%s' style='stroke:var(--%s)'%s%s%s", l->thin ? " thin" : "", l->class,
		l->dash ? " stroke-dasharray='" : "", l->dash ? l->dash : "", l->dash ? "'" : "");
	svg_path_begin(&p, d->f, attributes);
	for (size_t i = 0; i < d->r->slots; i++) {
		if (isnan(l->values[i]))
			continue;
		if (!i || isnan(l->values[i - 1])) {
			svg_path_lift(&p);
			svg_path_to(&p, edge(d->r, i), y_of(s, l->values[i]));
		}
		svg_path_to(&p, middle(d->r, i), y_of(s, l->values[i]));
		if (i + 1 == d->r->slots || isnan(l->values[i + 1]))
			svg_path_to(&p, edge(d->r, i + 1), y_of(s, l->values[i]));
	}
	svg_path_end(&p);
}

/* The run of slots from *i on where `top` has values: [*i, *end). */
static bool next_run(const double *top, size_t n, size_t *i, size_t *ret_end)
{
	while (*i < n && isnan(top[*i]))
		++*i;
	*ret_end = *i;
	while (*ret_end < n && !isnan(top[*ret_end]))
		++*ret_end;
	return *i < n;
}

static void draw_area(const struct report_drawing *d, const struct report_line *l, const struct scale *s, const double *base,
	const double *top)
{
	char attributes[64];
	struct svg_path p;
	size_t end;

	snprintf(attributes, sizeof attributes, "class='area' fill='url(#%s-pattern)'", l->class);
	svg_path_begin(&p, d->f, attributes);
	for (size_t i = 0; next_run(top, d->r->slots, &i, &end); i = end) {
		svg_path_to(&p, edge(d->r, i), y_of(s, top[i]));
		for (size_t k = i; k < end; k++)
			svg_path_to(&p, middle(d->r, k), y_of(s, top[k]));
		svg_path_to(&p, edge(d->r, end), y_of(s, top[end - 1]));
		svg_path_to(&p, edge(d->r, end), y_of(s, base[end - 1]));
		for (size_t k = end; k > i; k--)
			svg_path_to(&p, middle(d->r, k - 1), y_of(s, base[k - 1]));
		svg_path_to(&p, edge(d->r, i), y_of(s, base[i]));
		svg_path_close(&p);
	}
	svg_path_end(&p);
}

/* The most that is drawn anywhere. */
static double most_of(const struct report *r, const struct report_chart *c)
{
	double most = 0;

	for (size_t i = 0; i < r->slots; i++) {
		double sum = 0;

		for (size_t k = 0; k < c->n_lines; k++) {
			double v = c->lines[k].values ? c->lines[k].values[i] : NAN;

			if (isnan(v))
				continue;
			sum = c->stacked ? sum + v : v;
			most = sum > most ? sum : most;
		}
	}
	return most;
}

static void add_key(const struct report *r, const struct report_chart *c, const struct scale *s, const struct report_line *l,
	const double *base, struct key *keys, size_t *n)
{
	struct report_range range;
	size_t last = r->slots;

	if (l->thin || !report_range(l->values, r->slots, &range))
		return;
	while (isnan(l->values[last - 1]))
		last--;
	keys[*n] = (struct key){ .line = l, .y = y_of(s, base ? base[last - 1] + range.last / 2 : range.last) };
	report_value(c->unit, range.last, keys[*n].value);
	++*n;
}

/* Each line on those before it; where none has a value there is a gap, where only some have the others count nothing. */
static int draw_stack(const struct report_drawing *d, const struct report_chart *c, const struct scale *s, struct key *keys,
	size_t *n_keys)
{
	size_t slots = d->r->slots;
	double *base = calloc(2 * slots + 1, sizeof *base), *top = base ? base + slots : NULL;

	if (!base)
		return -1;
	for (size_t k = 0; k < c->n_lines; k++) {
		const struct report_line *l = &c->lines[k];

		if (!l->values)
			continue;
		for (size_t i = 0; i < slots; i++) {
			bool any = false;

			for (size_t o = 0; o < c->n_lines; o++)
				any |= c->lines[o].values && !isnan(c->lines[o].values[i]);
			top[i] = any ? base[i] + (isnan(l->values[i]) ? 0 : l->values[i]) : NAN;
		}
		draw_area(d, l, s, base, top);
		add_key(d->r, c, s, l, base, keys, n_keys);
		for (size_t i = 0; i < slots; i++)
			base[i] = isnan(top[i]) ? 0 : top[i];
	}
	free(base);
	return 0;
}

void report_draw(struct report_drawing *d, const struct report_chart *c)
{
	struct scale s = { .height = c->height };
	struct key keys[REPORT_LINES];
	size_t n_keys = 0;

	begin(d, c->title, c->note, c->height);
	describe(d, c);
	fputs("</desc>\n", d->f);
	draw_times(d, c->height);
	draw_values(d, c, &s, most_of(d->r, c));
	open_box(d, c->height);
	if (c->stacked)
		draw_stack(d, c, &s, keys, &n_keys);
	for (size_t k = 0; k < c->n_lines && !c->stacked; k++)
		if (c->lines[k].values) {
			draw_line(d, &c->lines[k], &s);
			add_key(d->r, c, &s, &c->lines[k], NULL, keys, &n_keys);
		}
	fputs("</svg>\n", d->f);
	draw_keys(d, c, keys, n_keys);
	end(d);
}

/* ---- lanes and marks ---- */

static void draw_lane_names(const struct report_drawing *d, const struct report_lane *lanes, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		double y = TOP + LANE * ((double)k + 0.5);

		fprintf(d->f, "<line class='grid' x1='0' x2='100%%' y1='%g' y2='%g'/><text class='tick' x='-6' y='%g' "
			"text-anchor='end'>", y, y, y + 4);
		svg_text(d->f, lanes[k].label);
		fprintf(d->f, "</text><svg x='100%%' y='0' class='keys'><text class='key' x='9' y='%g'>", y + 4);
		svg_text(d->f, lanes[k].note);
		fputs("</text></svg>\n", d->f);
	}
}

/* A bar is as high as the part of its slot is long; what there was at all can be seen. */
static void draw_lane(const struct report_drawing *d, const struct report_lane *lane, size_t k)
{
	for (size_t i = 0, last; lane->parts && i < d->r->slots; i = last) {
		double high = (LANE - 8) * lane->parts[i];

		for (last = i + 1; last < d->r->slots && lane->parts[last] == lane->parts[i];)
			last++;
		if (!(high > 0))
			continue;
		high = high < 2 ? 2 : high;
		fprintf(d->f, "<rect class='%s' x='%.1f' y='%.1f' width='%.1f' height='%.1f'/>\n", lane->class, edge(d->r, i),
			LANE * (double)k + LANE / 2 - high / 2, edge(d->r, last) - edge(d->r, i), high);
	}
}

void report_draw_lanes(struct report_drawing *d, const char *title, const char *note, const struct report_lane *lanes, size_t n)
{
	double height = LANE * (double)n;

	begin(d, title, note, height);
	for (size_t k = 0; k < n; k++) {
		svg_text(d->f, lanes[k].label);
		fputs(": ", d->f);
		svg_text(d->f, *lanes[k].note ? lanes[k].note : "never");
		fputs(". ", d->f);
	}
	fputs("</desc>\n", d->f);
	draw_times(d, height);
	draw_lane_names(d, lanes, n);
	open_box(d, height);
	for (size_t k = 0; k < n; k++)
		draw_lane(d, &lanes[k], k);
	fputs("</svg>\n", d->f);
	end(d);
}

static void draw_event(const struct report_drawing *d, unsigned level, unsigned lane, unsigned count, const struct value *event)
{
	uint64_t ms = value_u64(event, "ts_ms", 0);
	static const char *const shapes[REPORT_LEVELS] = { "M0 -6L6 5H-6Z", "M0 -6L5 0L0 6L-5 0Z", "M-4 -4H4V4H-4Z",
		"M0 -3A3 3 0 1 0 .01 -3Z" };
	char when[40];

	report_time(d->r, ms, false, when);
	fprintf(d->f, "<svg class='mark' x='%.2f%%' y='%g'><title>%s ", 100 * x_of(d->r, ms), TOP + LANE * (lane + 0.5), when);
	if (*value_str(event, "vm")) {
		svg_text(d->f, value_str(event, "vm"));
		fputs(": ", d->f);
	}
	svg_text(d->f, value_str(event, "text"));
	if (count > 1)
		fprintf(d->f, " (and %u more)", count - 1);
	fprintf(d->f, "</title><path class='%s' d='%s'/></svg>\n", report_levels[level], shapes[level]);
}

unsigned report_event_level(const struct report *r, const struct value *e, const char *vm)
{
	uint64_t ms = value_u64(e, "ts_ms", 0);
	unsigned level = 0;

	if (ms < r->since_ms || ms > r->until_ms || (vm && strcmp(value_str(e, "vm"), vm)))
		return REPORT_LEVELS;
	while (level < REPORT_LEVELS && strcmp(value_str(e, "level"), report_levels[level]))
		level++;
	return level;
}

/* Of each slot one, which stands for all. */
static void draw_level(const struct report_drawing *d, const struct value *events, const char *vm, unsigned level, unsigned lane)
{
	const struct report *r = d->r;
	const struct value *first = NULL;
	unsigned count = 0;
	size_t slot = 0;

	for (size_t i = 0; i <= value_items(events); i++) {
		const struct value *e = value_item(events, i);
		size_t at = e ? (size_t)((value_u64(e, "ts_ms", 0) - r->origin_ms) / r->slot_ms) : r->slots;

		if (e && report_event_level(r, e, vm) != level)
			continue;
		if (first && at != slot) {
			draw_event(d, level, lane, count, first);
			first = NULL;
		}
		if (!first) {
			first = e;
			slot = at;
			count = 0;
		}
		count++;
	}
}

void report_draw_marks(struct report_drawing *d, const char *title, const char *note, const struct value *events, const char *vm)
{
	struct report_lane lanes[REPORT_LEVELS] = { 0 };
	unsigned counts[REPORT_LEVELS + 1] = { 0 }, n = 0, lane = 0;

	for (size_t i = 0; i < value_items(events); i++)
		counts[report_event_level(d->r, value_item(events, i), vm)]++;
	for (unsigned level = 0; level < REPORT_LEVELS; level++) {
		if (!counts[level])
			continue;
		lanes[n].label = report_levels[level];
		snprintf(lanes[n++].note, sizeof lanes->note, "%u", counts[level]);
	}
	if (!n)
		return;
	begin(d, title, note, LANE * n);
	for (unsigned k = 0; k < n; k++)
		fprintf(d->f, "%s: %s. ", lanes[k].label, lanes[k].note);
	fputs("</desc>\n", d->f);
	draw_times(d, LANE * n);
	draw_lane_names(d, lanes, n);
	for (unsigned level = 0; level < REPORT_LEVELS; level++)
		if (counts[level])
			draw_level(d, events, vm, level, lane++);
	end(d);
}
