/* The report as one page of HTML: nothing is fetched, nothing is run (its policy forbids both), all text is escaped. */
#include "cli/report_page.h"

#include "cli/cli.h"
#include "cli/events.h"
#include "cli/svg.h"
#include "cli/units.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <memctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

static const char style[] =
	":root{color-scheme:light dark;--paper:#fff;--ink:#1a1e24;--soft:#59626d;--rule:#dfe3e8;--wash:#f6f7f9;--mark:#8a4b00}\n"
	"@media(prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e7eaee;--soft:#a3acb8;--rule:#2d333c;--wash:#1b1f26;--mark:#f0b35c}}\n"
	"*{box-sizing:border-box}\n"
	"body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,'Segoe UI',Roboto,'Helvetica "
		"Neue',Arial,sans-serif;"
	"font-variant-numeric:tabular-nums}\n"
	"main,header,footer{max-width:66rem;margin:0 auto;padding:0 1.5rem}\n"
	"header{padding-top:2.5rem}h1{font-size:1.9rem;line-height:1.2;font-weight:650;margin:0 0 .3rem;letter-spacing:-.015em}\n"
	"h2{font-size:1.4rem;line-height:1.3;font-weight:650;margin:3.2rem 0 .4rem;padding-top:1rem;border-top:2px solid "
		"var(--ink)}\n"
	"h3{font-size:1.15rem;margin:2.6rem 0 .2rem;font-weight:650;overflow-wrap:anywhere}\n"
	"h4{font-size:1rem;margin:1.6rem 0 .2rem;font-weight:650}\n"
	"p{margin:.4rem 0;max-width:44rem}.soft,figcaption span,footer,caption{color:var(--soft)}\n"
	"a{color:inherit}nav ul{list-style:none;padding:0;margin:.8rem 0 0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}\n"
	"dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1.1rem 1.8rem;margin:1.6rem 0 0}\n"
	"dl.facts div{border-top:1px solid var(--rule);padding-top:.45rem}dl.facts dt{color:var(--soft);font-size:.875rem}\n"
	"dl.facts dd{margin:0;font-size:1.3rem;font-weight:600;line-height:1.3;overflow-wrap:anywhere}\n"
	"dl.facts small{display:block;font-size:.875rem;font-weight:400;color:var(--soft)}\n"
	"figure{margin:1.5rem 0 0;break-inside:avoid}figcaption{font-size:.95rem;margin-bottom:.15rem}\n"
	"figcaption b{font-weight:600;margin-right:.4em}\n"
	"svg.chart{display:block;overflow:visible;margin-left:4.2rem;width:calc(100% - 4.2rem - 11rem)}\n"
	"svg.chart .keys,svg.chart .mark{overflow:visible}\n"
	".chart text{fill:var(--ink);font-size:12.5px}.chart .tick{fill:var(--soft);font-size:12px}.chart .last{fill:var(--soft)}\n"
	".grid{stroke:var(--rule);stroke-width:1}.lead{stroke:var(--rule);fill:none}\n"
	".line{fill:none;stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke}.line.thin{stroke-width:1;opacity:.75}\n"
	".area{stroke:var(--paper);stroke-width:.8;vector-effect:non-scaling-stroke}\n"
	":root{--error:#b3122f;--warning:#a35a00;--notice:#2f6db5;--info:#6b737e;--ok:#8d96a1}\n"
	"@media(prefers-color-scheme:dark){:root{--error:#ff6478;--warning:#eea13c;--notice:#5b9be0;--info:#98a1ad;--ok:#6d7682}}\n"
	".error{fill:var(--error)}.warning{fill:var(--warning)}.notice{fill:var(--notice)}.info{fill:var(--info)}.ok{fill:var(--ok)}\n"
	"table{border-collapse:collapse;font-size:.875rem;margin:.6rem 0}caption{text-align:left;padding-bottom:.3rem}\n"
	"th,td{padding:.28rem .9rem .28rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}\n"
	"thead th{font-weight:600;border-bottom:1px solid var(--soft)}tbody th{font-weight:400;white-space:nowrap}\n"
	"td.n,th.n{text-align:right;white-space:nowrap}td.text{min-width:14rem;overflow-wrap:anywhere}\n"
	".scroll{overflow-x:auto;max-width:100%}details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft);font-size:.95rem}\n"
	"summary:hover{color:var(--ink)}summary:focus-visible,a:focus-visible,.scroll:focus-visible{outline:2px solid "
		"var(--notice);outline-offset:2px}\n"
	"blockquote{margin:.6rem 0 1rem;padding:.1rem 0 .1rem 1rem;border-left:3px solid var(--rule)}tr.changed th,tr.changed "
		"td{font-weight:600}\n"
	".sign{display:inline-block;width:.9rem;height:.9rem;vertical-align:-.1rem;margin-right:.35rem;overflow:visible}\n"
	"footer{margin-top:3.5rem;padding-top:1rem;padding-bottom:3rem;font-size:.875rem}footer p{border-top:1px solid "
		"var(--rule);padding-top:.8rem;max-width:none}\n"
	"@media(max-width:44rem){main,header,footer{padding-left:1rem;padding-right:1rem}svg.chart{margin-left:3.6rem;width:calc(100% - 3.6rem - 6.6rem)}\n"
	".chart .last,.chart .odd{display:none}.chart text,.chart .tick{font-size:11.5px}h1{font-size:1.5rem}}\n"
	"@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--rule:#ccc;--wash:#fff}body{font-size:10.5pt}\n"
	"main,header,footer{max-width:none;padding:0}nav{display:none}h2,h3,h4{break-after:avoid}tr{break-inside:avoid}"
	"*{-webkit-print-color-adjust:exact;print-color-adjust:exact}.scroll{overflow:visible}}\n";

/* ---- text ---- */

void page_text(const struct page *p, const char *text)
{
	svg_text(p->f, text);
}

void page_element(const struct page *p, const char *name, const char *text)
{
	fprintf(p->f, "<%s>", name);
	page_text(p, text);
	fprintf(p->f, "</%s>", name);
}

static void put_head_cell(const struct page *p, const char *head)
{
	fputs(*head == '#' ? "<th class='n' scope='col'>" : "<th scope='col'>", p->f);
	page_text(p, *head == '#' ? head + 1 : head);
	fputs("</th>", p->f);
}

void page_table(const struct page *p, const char *caption, const char *const heads[])
{
	fputs("<div class='scroll' tabindex='0' role='region' aria-label='", p->f);
	page_text(p, caption);
	fputs("'><table>", p->f);
	page_element(p, "caption", caption);
	fputs("<thead><tr>", p->f);
	while (*heads)
		put_head_cell(p, *heads++);
	fputs("</tr></thead><tbody>\n", p->f);
}

void page_table_end(const struct page *p)
{
	fputs("</tbody></table></div>\n", p->f);
}

static void fact(const struct page *p, const char *name, const char *value, const char *remark)
{
	fputs("<div>", p->f);
	page_element(p, "dt", name);
	fputs("<dd>", p->f);
	page_text(p, value);
	if (remark && *remark)
		page_element(p, "small", remark);
	fputs("</dd></div>\n", p->f);
}

/* How long slots last, in words. */
static void length_in_words(uint64_t ms, char text[static 32])
{
	uint64_t s = ms / 1000;

	if (s % 86400 == 0 && s)
		snprintf(text, 32, "%" PRIu64 " d", s / 86400);
	else if (s % 3600 == 0 && s)
		snprintf(text, 32, "%" PRIu64 " h", s / 3600);
	else if (s % 60 == 0 && s)
		snprintf(text, 32, "%" PRIu64 " min", s / 60);
	else
		snprintf(text, 32, "%" PRIu64 " s", s);
}

double page_most(const struct page *p, const double *values)
{
	struct report_range range = { 0 };

	return report_range(values, p->r->slots, &range) ? range.most : 0;
}

double page_last(const struct page *p, const double *values)
{
	struct report_range range = { 0 };

	return report_range(values, p->r->slots, &range) ? range.last : 0;
}

/* ---- the same numbers as a table ---- */

static bool any_value(const struct report_chart *c, size_t slot)
{
	for (size_t k = 0; k < c->n_lines; k++)
		if (c->lines[k].values && !isnan(c->lines[k].values[slot]))
			return true;
	return false;
}

static void put_numbers(const struct page *p, const struct report_chart *c)
{
	const char *heads[REPORT_LINES + 2] = { "from" };
	char names[REPORT_LINES][80];
	size_t n = 1;

	for (size_t k = 0; k < c->n_lines; k++) {
		if (!c->lines[k].values)
			continue;
		snprintf(names[n - 1], sizeof *names, "#%s", c->lines[k].label);
		heads[n] = names[n - 1];
		n++;
	}
	fputs("<details><summary>The same numbers</summary>", p->f);
	page_table(p, c->title, heads);
	for (size_t i = 0; i < p->r->slots; i++) {
		char text[40];

		if (!any_value(c, i))
			continue;
		report_time(p->r, p->r->origin_ms + i * p->r->slot_ms, p->r->until_ms - p->r->since_ms > 86400000, text);
		fprintf(p->f, "<tr><th scope='row'>%s</th>", text);
		for (size_t k = 0; k < c->n_lines; k++) {
			if (!c->lines[k].values)
				continue;
			snprintf(text, sizeof text, "-");
			if (!isnan(c->lines[k].values[i]))
				report_value(c->unit, c->lines[k].values[i], text);
			fprintf(p->f, "<td class='n'>%s</td>", text);
		}
		fputs("</tr>\n", p->f);
	}
	page_table_end(p);
	fputs("</details>\n", p->f);
}

void page_chart(struct page *p, const struct report_chart *c)
{
	report_draw(&p->d, c);
	put_numbers(p, c);
}

struct report_line page_line(const char *label, const double *values, const char *class, const char *dash)
{
	return (struct report_line){ .label = label, .values = values, .class = class, .dash = dash };
}

/* ---- the host ---- */

static void host_states(struct page *p)
{
	static const char *const names[] = { "high", "clear", "soft", "hard", "low" };
	static const char *const classes[] = { "ok", "ok", "warning", "error", "error" };
	struct report_lane lanes[5] = { 0 };
	double *parts = calloc(5 * p->r->slots + 1, sizeof *parts);
	unsigned known = 0, counts[5] = { 0 };

	if (!parts)
		return;
	for (size_t i = 0; i < p->r->slots; i++)
		if (p->r->host.of[STATE][i] >= 0 && p->r->host.of[STATE][i] < 5) {
			unsigned state = (unsigned)p->r->host.of[STATE][i];

			parts[state * p->r->slots + i] = 1;
			counts[state]++;
			known++;
		}
	for (unsigned k = 0; k < 5; k++) {
		lanes[k].label = names[k];
		lanes[k].class = classes[k];
		lanes[k].parts = parts + k * p->r->slots;
		if (counts[k])
			snprintf(lanes[k].note, sizeof lanes[k].note, "%.*f %% of moments", counts[k] * 10 < known,
				100.0 * counts[k] / known);
	}
	report_draw_lanes(&p->d, "State", "how short memory is: the worst of each moment; reclaim begins at soft, at low new pages "
		"wait", lanes, 5);
	free(parts);
}

/* Who holds the arena: the VMs that held most, the others with the pools and all overhead as the rest, and what is free. */
static void arena_chart(struct page *p)
{
	static const char *const classes[] = { "s0", "s1", "s2", "s3", "s4", "s5" };
	struct report_chart c = { .title = "Arena", .note = "who holds it", .unit = UNIT_BYTES, .stacked = true, .height = 190 };
	const struct report *r = p->r;
	double *rest = malloc((r->slots + 1) * sizeof *rest);
	size_t n = r->n_vms < SVG_SERIES_MOST ? r->n_vms : SVG_SERIES_MOST;

	if (!rest)
		return;
	for (size_t k = 0; k < n; k++)
		if (page_most(p, r->vms[k].of[CHARGED]) > 0)
			c.lines[c.n_lines++] = page_line(r->vms[k].name, r->vms[k].of[CHARGED], classes[k], NULL);
	for (size_t i = 0; i < r->slots; i++) {
		rest[i] = r->host.of[H_CHARGED][i];
		for (size_t k = 0; k < n; k++)
			if (!isnan(r->vms[k].of[CHARGED][i]))
				rest[i] -= r->vms[k].of[CHARGED][i];
		if (rest[i] < 0)
			rest[i] = 0;
	}
	c.lines[c.n_lines++] = page_line(r->n_vms > n || r->vms_left ? "others and pools" : "pools, overhead", rest, "rest", NULL);
	c.lines[c.n_lines++] = page_line("free", r->host.of[FREE], "free", NULL);
	page_chart(p, &c);
	free(rest);
}

static void free_chart(struct page *p)
{
	struct report_chart c = { .title = "Free", .note = "minFree is the scale of the states: soft below two thirds of it",
		.unit = UNIT_BYTES,
		.height = 110, .n_lines = 3, .lines = { page_line("free", p->r->host.of[FREE], "resident", NULL),
		page_line("reclaim's goal", p->r->host.of[GOAL], "compressed", "7 4"),
			page_line("minFree", p->r->host.of[MIN_FREE], "swapped", "2 3") } };

	page_chart(p, &c);
}

static void sharing_chart(struct page *p)
{
	struct report_chart c = { .title = "Sharing", .note = "guest pages shared, what they have in common, what that saves",
		.unit = UNIT_BYTES,
		.height = 120, .n_lines = 3, .lines = { page_line("shared", p->r->host.of[H_SHARED], "shared", NULL),
		page_line("common", p->r->host.of[COMMON], "compressed", "7 4"),
			page_line("saving", p->r->host.of[SAVING], "resident", "2 3") } };

	if (page_most(p, p->r->host.of[H_SHARED]) > 0)
		page_chart(p, &c);
	else
		fputs("<p class='soft'>Nothing was shared.</p>\n", p->f);
}

static void host_section(struct page *p)
{
	char note[160] = "guest-physical memory of the VMs below";
	struct report_range any;

	fputs("<section aria-labelledby='host'><h2 id='host'>Host</h2>\n", p->f);
	if (!report_range(p->r->host.of[FREE], p->r->slots, &any)) {
		fputs("<p>There is no history of this time: memctld was not running, or it is older than is kept "
			"(metrics_keep_1h).</p>\n", p->f);
	} else {
		host_states(p);
		report_draw_marks(&p->d, "Events", "what memctld told, by how bad it is; listed below",
			value_at(p->r->events, "events"), NULL);
		arena_chart(p);
		if (p->r->n_vms) {
			if (p->r->vms_left)
				snprintf(note, sizeof note, "guest-physical memory of the %zu VMs below; %zu more are not in it",
					p->r->n_vms, p->r->vms_left);
			page_states(p, NULL, "Memory by state", note);
		}
		free_chart(p);
		sharing_chart(p);
	}
	fputs("</section>\n", p->f);
}

/* ---- events and settings ---- */

static void put_event(const struct page *p, const struct value *e)
{
	static const char *const signs[REPORT_LEVELS] = { "M7 1L13 13H1Z", "M7 1L13 7L7 13L1 7Z", "M2 2H12V12H2Z",
		"M7 4A3 3 0 1 0 7.01 4Z" };
	unsigned level = report_event_level(p->r, e, NULL);
	const char *meaning = event_meaning(value_str(e, "event"));
	char when[40];

	report_time(p->r, value_u64(e, "ts_ms", 0), true, when);
	fprintf(p->f, "<tr><th scope='row'>%s</th><td><svg class='sign' viewBox='0 0 14 14' aria-hidden='true'><path class='%s' "
		"d='%s'/></svg>%s</td><td>", when,
		report_levels[level], signs[level], report_levels[level]);
	page_text(p, *value_str(e, "vm") ? value_str(e, "vm") : "-");
	fputs("</td><td>", p->f);
	page_text(p, value_str(e, "event"));
	fputs("</td><td class='text'>", p->f);
	page_text(p, value_str(e, "text"));
	if (value_u64(e, "count", 1) > 1)
		fprintf(p->f, " (%" PRIu64 " times)", value_u64(e, "count", 1));
	if (meaning && level < 2) {
		fputs("<br><span class='soft'>", p->f);
		page_text(p, meaning);
		fputs("</span>", p->f);
	}
	fputs("</td></tr>\n", p->f);
}

static void events_section(const struct page *p)
{
	static const char *const heads[] = { "time", "level", "VM", "event", "text", NULL };
	const struct value *events = value_at(p->r->events, "events");
	size_t n = 0, skip;

	for (size_t i = 0; i < value_items(events); i++)
		n += report_event_level(p->r, value_item(events, i), NULL) < REPORT_LEVELS;
	skip = n > REPORT_EVENTS ? n - REPORT_EVENTS : 0;
	fputs("<section aria-labelledby='events'><h2 id='events'>Events</h2>\n", p->f);
	if (!n)
		fputs("<p class='soft'>memctld told nothing in this time.</p>\n", p->f);
	if (skip)
		fprintf(p->f, "<p class='soft'>The last %u of %zu.</p>\n", REPORT_EVENTS, n);
	if (n)
		page_table(p, "What memctld told; memctl explain-event says what to do", heads);
	for (size_t i = 0; i < value_items(events); i++)
		if (report_event_level(p->r, value_item(events, i), NULL) < REPORT_LEVELS) {
			if (skip)
				skip--;
			else
				put_event(p, value_item(events, i));
		}
	if (n)
		page_table_end(p);
	fputs("</section>\n", p->f);
}

static void put_settings(const struct page *p, const char *caption, const struct value *settings, bool changed)
{
	static const char *const heads[] = { "setting", "value", "default", "where", NULL };

	page_table(p, caption, heads);
	for (size_t i = 0; i < value_items(settings); i++) {
		const struct value *s = value_item(settings, i);
		char *value = value_words(value_at(s, "value")), *standard = value_words(value_at(s, "default"));

		if (value_true(s, "changed") == changed) {
			fputs("<tr><th scope='row'>", p->f);
			page_text(p, value_str(s, "name"));
			fputs("</th><td class='text'>", p->f);
			page_text(p, value && *value ? value : "-");
			fputs("</td><td class='text'>", p->f);
			page_text(p, standard && *standard ? standard : "-");
			fputs("</td><td>", p->f);
			page_text(p, value_str(s, "where"));
			fputs("</td></tr>\n", p->f);
		}
		free(value);
		free(standard);
	}
	page_table_end(p);
}

static void settings_section(const struct page *p)
{
	const struct value *settings = value_at(p->r->config, "settings");
	bool any = false;

	for (size_t i = 0; i < value_items(settings); i++)
		any |= value_true(value_item(settings, i), "changed");
	fputs("<section aria-labelledby='settings'><h2 id='settings'>Settings in force</h2>\n", p->f);
	if (any)
		put_settings(p, "Not at their default", settings, true);
	else
		fputs("<p>All settings are at their defaults.</p>\n", p->f);
	fputs("<details><summary>Those at their default</summary>", p->f);
	put_settings(p, "At their default", settings, false);
	fputs("</details></section>\n", p->f);
}

/* ---- the page ---- */

static void put_facts(const struct page *p)
{
	const struct report *r = p->r;
	const struct value *events = value_at(r->events, "events");
	char value[64], remark[96], arena[32];
	double guests = 0, waited = 0, low = 0, known = 0;
	const char *waiter = "";
	unsigned bad = 0;

	for (size_t i = 0; i < r->n_vms; i++) {
		guests += page_last(p, r->vms[i].of[LEASED]);
		if (page_most(p, r->vms[i].of[STALL]) > waited) {
			waited = page_most(p, r->vms[i].of[STALL]);
			waiter = r->vms[i].name;
		}
	}
	for (size_t i = 0; i < r->slots; i++) {
		known += !isnan(r->host.of[STATE][i]);
		low += r->host.of[STATE][i] >= 2;
	}
	for (size_t i = 0; i < value_items(events); i++)
		bad += report_event_level(r, value_item(events, i), NULL) < 2;
	units_size((uint64_t)page_last(p, r->host.of[CAPACITY]), arena);
	fputs("<dl class='facts'>\n", p->f);
	report_value(UNIT_BYTES, page_most(p, r->host.of[H_CHARGED_MOST]), value);
	snprintf(remark, sizeof remark, "at most at once, of an arena of %s", arena);
	fact(p, "Arena in use", value, remark);
	report_value(UNIT_BYTES, guests, value);
	if (page_last(p, r->host.of[CAPACITY]) > 0)
		snprintf(remark, sizeof remark, "lent to %zu VMs, %.2g times the arena", r->n_vms,
			guests / page_last(p, r->host.of[CAPACITY]));
	fact(p, "Guest memory", value, page_last(p, r->host.of[CAPACITY]) > 0 ? remark : "");
	snprintf(value, sizeof value, known > 0 ? "%.*f %%" : "-", low > 0 && low * 10 < known, known > 0 ? 100 * low / known : 0);
	fact(p, "Short of memory", value, "of all moments of the charts were soft, hard or low at their worst");
	report_value(UNIT_BYTES, page_most(p, r->host.of[SAVING]), value);
	fact(p, "Saved by sharing", value, "at most at once");
	report_value(UNIT_PERCENT, waited / 1e7, value);
	snprintf(remark, sizeof remark, "%s%s", waited > 0 ? "at the worst moment: " : "no guest waited for a page", waiter);
	fact(p, "Longest waiting", value, remark);
	snprintf(value, sizeof value, "%u", bad);
	fact(p, "Warnings and errors", value, "");
	fputs("</dl>\n", p->f);
}

static void put_head(const struct page *p)
{
	const struct report *r = p->r;
	char from[40], to[40], each[32], zone[16] = "", now[40];
	time_t then = (time_t)(r->until_ms / 1000), clock = time(NULL);
	struct utsname host;
	struct tm tm;

	uname(&host);
	report_time(r, r->since_ms, true, from);
	report_time(r, r->until_ms, true, to);
	length_in_words(r->slot_ms, each);
	localtime_r(&then, &tm);
	strftime(zone, sizeof zone, "%Z", &tm);
	localtime_r(&clock, &tm);
	strftime(now, sizeof now, "%-d %b %Y, %H:%M", &tm);
	fputs("<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\n"
	      "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'; img-src "
	      "data:\">\n"
	      "<meta name='viewport' content='width=device-width, initial-scale=1'><meta name='color-scheme' content='light "
	      "dark'>\n"
	      "<link rel='icon' href='data:,'><title>Memory on ", p->f);
	page_text(p, host.nodename);
	fprintf(p->f, ", %s to %s</title>\n<style>\n%s:root{--free:var(--wash)}.free{fill:var(--wash);stroke:var(--rule)}\n", from,
		to, style);
	svg_style(p->f, ":root");
	fputs("</style></head><body>\n<svg width='0' height='0' style='position:absolute' aria-hidden='true'><defs>\n"
	      "<pattern id='free-pattern' width='8' height='8' patternUnits='userSpaceOnUse'><rect width='8' height='8' "
	      "fill='var(--wash)'/></pattern>\n", p->f);
	svg_patterns(p->f);
	fputs("</defs></svg>\n<header><h1>Memory on ", p->f);
	page_text(p, host.nodename);
	fprintf(p->f, "</h1>\n<p class='soft'>%s to %s (%s). A point of a line is %s; a gap is a time when memctld was away. "
		"memctld ", from, to, zone, each);
	page_text(p, value_str(r->status, "status.version"));
	fprintf(p->f, ", asked on %s.</p>\n", now);
}

static void put_contents(const struct page *p)
{
	fputs("<nav aria-label='Contents'><ul><li><a href='#host'>Host</a></li>", p->f);
	for (size_t i = 0; i < p->r->n_vms; i++) {
		fprintf(p->f, "<li><a href='#vm%zu'>", i);
		page_text(p, p->r->vms[i].name);
		fputs("</a></li>", p->f);
	}
	fputs("<li><a href='#events'>Events</a></li><li><a href='#settings'>Settings</a></li></ul></nav>\n", p->f);
}

int report_page(FILE *f, const void *report)
{
	struct page p = { .d = { .f = f, .r = report }, .f = f, .r = report };

	put_head(&p);
	put_facts(&p);
	put_contents(&p);
	fputs("</header>\n<main>\n", f);
	host_section(&p);
	fputs("<section aria-labelledby='vms'><h2 id='vms'>VMs</h2>\n", f);
	if (!p.r->n_vms)
		fputs("<p class='soft'>There were none.</p>\n", f);
	if (p.r->vms_left)
		fprintf(f, "<p class='soft'>The %zu that hold most; %zu more are left out (memctl report --vm NAME).</p>\n",
			p.r->n_vms, p.r->vms_left);
	for (size_t i = 0; i < p.r->n_vms; i++)
		page_vm(&p, &p.r->vms[i], i);
	fputs("</section>\n", f);
	events_section(&p);
	settings_section(&p);
	fprintf(f, "</main>\n<footer><p>memctl %s, from the history of memctld. Levels are averages of each point, counters "
		"rates.</p></footer>\n</body></html>\n",
		MEMCTL_VERSION);
	return ferror(f) ? -EIO : 0;
}
