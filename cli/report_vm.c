/* The report's section of a VM. */
#include "cli/report_page.h"

#include "cli/cli.h"
#include "cli/svg.h"
#include "cli/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096.0

static double *sum_of(const struct page *p, double (*value)(const struct report_track *t, size_t slot))
{
	double *sum = malloc((p->r->slots + 1) * sizeof *sum);

	for (size_t i = 0; sum && i < p->r->slots; i++) {
		sum[i] = NAN;
		for (size_t k = 0; k < p->r->n_vms; k++) {
			double v = value(&p->r->vms[k], i);

			if (!isnan(v))
				sum[i] = isnan(sum[i]) ? v : sum[i] + v;
		}
	}
	return sum;
}

/* ---- memory by state ---- */

static double resident(const struct report_track *t, size_t i)
{
	return t->of[RESIDENT][i];
}

static double shared(const struct report_track *t, size_t i)
{
	return t->of[SHARED][i] + t->of[BREAKING][i];
}

static double compressed(const struct report_track *t, size_t i)
{
	return t->of[COMPRESSED][i];
}

static double swapped(const struct report_track *t, size_t i)
{
	return t->of[SWAPPED][i];
}

static double ballooned(const struct report_track *t, size_t i)
{
	return t->of[BALLOONED][i];
}

static double lost(const struct report_track *t, size_t i)
{
	return t->of[LOST][i];
}

/* What is left of the leased: a claimed balloon is zeros too, and counted once. */
static double untouched(const struct report_track *t, size_t i)
{
	double known = resident(t, i) + shared(t, i) + compressed(t, i) + swapped(t, i) + ballooned(t, i) + lost(t, i);
	double rest = t->of[LEASED][i] - known;

	return rest < 0 ? 0 : rest;
}

static double (*const state_values[])(const struct report_track *t, size_t i) = {
	resident, shared, compressed, swapped, ballooned, lost, untouched,
};
#define STATES (sizeof state_values / sizeof *state_values)

/* Of one VM, or of all of them; states that there never were are left out. */
void page_states(struct page *p, const struct report_track *only, const char *title, const char *note)
{
	static const struct {
		const char *class, *label;
	} states[] = {
#define SVG_STATE(word, label, light, dark, pattern) { #word, label },
		SVG_STATES(SVG_STATE)
#undef SVG_STATE
	};
	struct report_chart c = { .title = title, .note = note, .unit = UNIT_BYTES, .stacked = true, .height = 210 };
	struct report all = *p->r;
	struct page one = { .r = &all };
	double *values[STATES];

	_Static_assert(sizeof states / sizeof *states == STATES, "a function for each state");
	if (only) {
		all.vms = (struct report_track *)only;
		all.n_vms = 1;
	}
	for (size_t i = 0; i < STATES; i++) {
		values[i] = sum_of(&one, state_values[i]);
		if (values[i] && (page_most(p, values[i]) > 0 || !i))
			c.lines[c.n_lines++] = page_line(states[i].label, values[i], states[i].class, NULL);
	}
	page_chart(p, &c);
	for (size_t i = 0; i < STATES; i++)
		free(values[i]);
}

/* ---- a VM ---- */

static void room_chart(struct page *p, const struct report_track *t)
{
	struct report_chart c = { .title = "Charged, and what it should be",
		.note = "host-physical memory; a target above what it holds leaves it alone",
		.unit = UNIT_BYTES, .height = 130 };
	struct report_range limit = { 0 };
	double *known = malloc((p->r->slots + 1) * sizeof *known);

	if (!known)
		return;
	/* 0: no limit */
	for (size_t i = 0; i < p->r->slots; i++)
		known[i] = t->of[LIMIT][i] > 0 ? t->of[LIMIT][i] : NAN;
	c.lines[c.n_lines++] = page_line("charged", t->of[CHARGED], "resident", NULL);
	c.lines[c.n_lines++] = page_line("target", t->of[TARGET], "swapped", "7 4");
	c.lines[c.n_lines++] = page_line("in use", t->of[ACTIVE], "compressed", "2 3");
	if (page_most(p, t->of[RESERVATION]) > 0)
		c.lines[c.n_lines++] = page_line("guaranteed", t->of[RESERVATION], "shared", "10 3 2 3");
	if (report_range(known, p->r->slots, &limit))
		c.lines[c.n_lines++] = page_line("limit", known, "lost", "12 4");
	page_chart(p, &c);
	free(known);
}

static bool balloon_chart(struct page *p, const struct report_track *t)
{
	struct report_chart c = { .title = "Balloon", .note = "what the guest gave by itself, and was asked for",
		.unit = UNIT_BYTES, .height = 100, .n_lines = 3,
		.lines = { page_line("holds", t->of[BALLOONED], "ballooned", NULL),
			page_line("target", t->of[BALLOON_TARGET], "swapped", "7 4"),
		page_line("at most", t->of[BALLOON_MAX], "zero", "2 3") } };

	if (!page_most(p, t->of[BALLOONED]) && !page_most(p, t->of[BALLOON_TARGET]))
		return false;
	page_chart(p, &c);
	return true;
}

static bool shared_chart(struct page *p, const struct report_track *t)
{
	struct report_chart c = { .title = "Sharing", .note = "its pages that are shared, and what that saves it",
		.unit = UNIT_BYTES, .height = 90, .n_lines = 2,
		.lines = { page_line("shared", t->of[SHARED], "shared", NULL),
			page_line("saved", t->of[SAVED], "resident", "2 3") } };

	if (!page_most(p, t->of[SHARED]))
		return false;
	page_chart(p, &c);
	return true;
}

static bool swap_chart(struct page *p, const struct report_track *t)
{
	double *out = malloc((2 * p->r->slots + 1) * sizeof *out), *in = out ? out + p->r->slots : NULL;
	struct report_chart c = { .title = "Swap traffic", .note = "to and from its swap file", .unit = UNIT_BYTES_RATE,
		.height = 100, .n_lines = 2,
		.lines = { page_line("written", out, "swapped", NULL), page_line("read", in, "resident", "7 4") } };
	bool any = out && (page_most(p, t->of[SWAP_OUT]) > 0 || page_most(p, t->of[SWAP_IN]) > 0);

	for (size_t i = 0; any && i < p->r->slots; i++) {
		out[i] = t->of[SWAP_OUT][i] * PAGE_BYTES;
		in[i] = t->of[SWAP_IN][i] * PAGE_BYTES;
	}
	if (any)
		page_chart(p, &c);
	free(out);
	return any;
}

static void stall_chart(struct page *p, const struct report_track *t)
{
	double *percent = malloc((p->r->slots + 1) * sizeof *percent);
	struct report_chart c = { .title = "Waiting", .note = "part of the time in which its guest waited for a page (%LAT_M)",
		.unit = UNIT_PERCENT, .height = 80,
		.n_lines = 1, .lines = { page_line("waited", percent, "resident", NULL) } };

	for (size_t i = 0; percent && i < p->r->slots; i++)
		percent[i] = t->of[STALL][i] / 1e7;
	if (percent)
		page_chart(p, &c);
	free(percent);
}

/* Where a page comes from looks as where it was. */
static const char *class_of_cause(const char *cause)
{
	static const char *const causes[][2] = { { "zero", "zero" }, { "compressed", "compressed" }, { "swapped", "swapped" },
		{ "shared", "shared" },
		{ "break", "s5" }, { "protected", "ballooned" } };

	for (size_t i = 0; i < sizeof causes / sizeof *causes; i++)
		if (!strcmp(cause, causes[i][0]))
			return causes[i][1];
	return "rest";
}

static void put_latencies(const struct page *p, const struct report_track *t)
{
	static const char *const heads[] = { "page came from", "#faults", "#mean", "#99 % at most, at the worst moment", NULL };

	page_table(p, "Faults by cause, of the whole time", heads);
	for (size_t i = 0; i < t->n_latencies; i++) {
		const struct report_latency *l = &t->latencies[i];
		char mean[32], worst[32];

		report_value(UNIT_NS, (double)(l->sum_ns / (l->count ? l->count : 1)), mean);
		report_value(UNIT_NS, page_most(p, l->p99_ns), worst);
		fputs("<tr><th scope='row'>", p->f);
		page_text(p, l->cause);
		fprintf(p->f, "</th><td class='n'>%" PRIu64 "</td><td class='n'>%s</td><td class='n'>%s</td></tr>\n", l->count,
			mean, worst);
	}
	page_table_end(p);
}

static bool latency_chart(struct page *p, const struct report_track *t)
{
	static const char *const dashes[] = { NULL, "7 4", "2 3", "10 3 2 3", "12 4" };
	struct report_chart c = { .title = "How long faults took", .note = "by where the page came from; 99 % took at most the "
		"thick line, half the thin one",
		.unit = UNIT_NS, .logarithmic = true, .height = 150 };
	char labels[REPORT_LINES][48];
	uint64_t all = 0;

	for (size_t i = 0; i < t->n_latencies; i++)
		all += t->latencies[i].count;
	for (size_t i = 0; i < t->n_latencies && c.n_lines + 2 <= REPORT_LINES; i++) {
		const struct report_latency *l = &t->latencies[i];

		/* what is rare is in the table below */
		if (l->count < all / 50)
			continue;
		snprintf(labels[c.n_lines], sizeof *labels, "%s", l->cause);
		c.lines[c.n_lines] = page_line(labels[c.n_lines], l->p99_ns, class_of_cause(l->cause), dashes[i % 5]);
		c.n_lines++;
		snprintf(labels[c.n_lines], sizeof *labels, "%s, half", l->cause);
		c.lines[c.n_lines] = page_line(labels[c.n_lines], l->p50_ns, class_of_cause(l->cause), dashes[i % 5]);
		c.lines[c.n_lines++].thin = true;
	}
	if (!c.n_lines)
		return false;
	page_chart(p, &c);
	put_latencies(p, t);
	return true;
}

/* ---- what was decided, and why ---- */

#define TECHNIQUES 5u
static const char *const techniques[TECHNIQUES] = { "share", "balloon", "compress", "swap", "block" };

/* A decision lasts until the last plan that made it; a single plan for as long as reclaim takes to look again. */
#define PLAN_MS 100u

static void add_stretch(const struct report *r, uint64_t from, uint64_t to, double *parts)
{
	from = from > r->origin_ms ? from : r->origin_ms;
	if (to <= from)
		return;
	for (size_t i = (size_t)((from - r->origin_ms) / r->slot_ms); i < r->slots && r->origin_ms + i * r->slot_ms < to; i++) {
		uint64_t begin = r->origin_ms + i * r->slot_ms, end = begin + r->slot_ms;

		parts[i] += (double)((to < end ? to : end) - (from > begin ? from : begin)) / (double)r->slot_ms;
		parts[i] = parts[i] < 1 ? parts[i] : 1;
	}
}

static void put_plans(struct page *p, const struct value *plans)
{
	static const char *const classes[TECHNIQUES] = { "shared", "ballooned", "compressed", "swapped", "lost" };
	struct report_lane lanes[TECHNIQUES] = { 0 };
	const struct report *r = p->r;
	double *parts = calloc(TECHNIQUES * r->slots + 1, sizeof *parts);
	uint64_t ms[TECHNIQUES] = { 0 };

	for (size_t i = 0; parts && i < value_items(plans); i++) {
		const struct value *one = value_item(plans, i);
		uint64_t from = value_u64(one, "from_ms", 0), to = value_u64(one, "last_ms", 0) + PLAN_MS;

		for (unsigned k = 0; k < TECHNIQUES; k++)
			if (!strcmp(value_str(one, "technique"), techniques[k]) && to > from) {
				ms[k] += to - from;
				add_stretch(r, from, to, parts + k * r->slots);
			}
	}
	for (unsigned k = 0; k < TECHNIQUES; k++) {
		lanes[k].label = techniques[k];
		lanes[k].class = classes[k];
		lanes[k].parts = parts + k * r->slots;
		if (ms[k])
			units_time(ms[k] * 1000000, lanes[k].note);
	}
	if (parts)
		report_draw_lanes(&p->d, "Decided", "the strongest means by which memory was asked of it; a bar is as high as the "
			"part of its time", lanes,
			TECHNIQUES);
	free(parts);
}

struct reason {
	const char *cause, *technique, *why;
	uint64_t plans;
};

static int by_plans(const void *a, const void *b)
{
	uint64_t x = ((const struct reason *)a)->plans, y = ((const struct reason *)b)->plans;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* The same decision for the same reason, however often, as one row; the most frequent first. */
static void put_reasons(const struct page *p, const struct value *plans)
{
	static const char *const heads[] = { "because of", "by", "#plans", "why", NULL };
	struct reason all[128];
	size_t n = 0;

	for (size_t i = 0; i < value_items(plans); i++) {
		const struct value *one = value_item(plans, i);
		size_t k = 0;

		while (k < n && (strcmp(all[k].why, value_str(one, "why")) ||
			strcmp(all[k].technique, value_str(one, "technique")) ||
			strcmp(all[k].cause, value_str(one, "cause"))))
			k++;
		if (k == sizeof all / sizeof *all)
			continue;
		if (k == n)
			all[n++] = (struct reason){ value_str(one, "cause"), value_str(one, "technique"),
				value_str(one, "why"), 0 };
		all[k].plans += value_u64(one, "plans", 0);
	}
	if (!n)
		return;
	qsort(all, n, sizeof *all, by_plans);
	page_table(p, "What was decided, and why", heads);
	for (size_t k = 0; k < n; k++) {
		fputs("<tr><td>", p->f);
		page_text(p, strcmp(all[k].cause, "none") ? all[k].cause : "-");
		fputs("</td><td>", p->f);
		page_text(p, strcmp(all[k].technique, "none") ? all[k].technique : "-");
		fprintf(p->f, "</td><td class='n'>%" PRIu64 "</td><td class='text'>", all[k].plans);
		page_text(p, all[k].why);
		fputs("</td></tr>\n", p->f);
	}
	page_table_end(p);
}

static void put_explanation(struct page *p, const struct report_track *t)
{
	const struct value *words = value_at(t->explanation, "explanation.words"), *plans = value_at(t->plans, "plans");

	fputs("<h4>Why</h4>\n", p->f);
	if (value_items(plans)) {
		put_plans(p, plans);
		put_reasons(p, plans);
	} else {
		fputs("<p class='soft'>No plan of this time is kept.</p>\n", p->f);
	}
	if (!value_items(words))
		return;
	fputs("<p class='soft'>As things are now:</p><blockquote>", p->f);
	for (size_t i = 0; i < value_items(words); i++) {
		char *text = value_words(value_item(words, i));

		page_element(p, "p", text ? text : "");
		free(text);
	}
	fputs("</blockquote>\n", p->f);
}

void page_vm(struct page *p, const struct report_track *t, size_t i)
{
	char note[160], size[32];
	const char *without[4];
	size_t n = 0;

	fprintf(p->f, "<section aria-labelledby='vm%zu'><h3 id='vm%zu'>", i, i);
	page_text(p, t->name);
	fputs("</h3>\n", p->f);
	if (!page_most(p, t->of[LEASED])) {
		fputs("<p class='soft'>There is no history of it in this time yet.</p></section>\n", p->f);
		return;
	}
	units_size((uint64_t)page_last(p, t->of[LEASED]), size);
	snprintf(note, sizeof note, "guest-physical memory, %s leased%s", size, t->here ? "" : "; it is gone");
	page_states(p, t, "Memory by state", note);
	report_draw_marks(&p->d, "Events", "about this VM", value_at(p->r->events, "events"), t->name);
	room_chart(p, t);
	if (!balloon_chart(p, t))
		without[n++] = "no balloon was asked";
	if (!shared_chart(p, t))
		without[n++] = "nothing was shared";
	if (!swap_chart(p, t))
		without[n++] = "nothing was swapped";
	stall_chart(p, t);
	if (!latency_chart(p, t))
		without[n++] = "no fault was served";
	if (n) {
		fputs("<p class='soft'>In this time ", p->f);
		for (size_t k = 0; k < n; k++)
			fprintf(p->f, "%s%s", k ? k + 1 == n ? " and " : ", " : "", without[k]);
		fputs(".</p>\n", p->f);
	}
	put_explanation(p, t);
	fputs("</section>\n", p->f);
}
