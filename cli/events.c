/* What memctld has told: events, followed if wanted; and what each of them means, which needs no memctld. */
#include "cli/events.h"

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/units.h"
#include "cli/when.h"

#include <inttypes.h>
#include <memctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FOLLOW_LAST "10"	/* events from before that -f begins with */

const struct column events_columns[] = {
	{ "TIME", "ts_ms", COLUMN_TIME, true, "when; of the last, if it stands for several" },
	{ "LEVEL", "level", COLUMN_TEXT, true, "error, warning, notice or info" },
	{ "EVENT", "event", COLUMN_TEXT, true, "its id: memctl explain-event says what it means and what to do" },
	{ "VM", "vm", COLUMN_TEXT, true, "which VM it is about" },
	{ "TEXT", "text", COLUMN_TEXT, true, "what happened" },
	{ "SEQ", "seq", COLUMN_COUNT, false, "its number; higher for later ones" },
	{ "COUNT", "count", COLUMN_COUNT, false, "for how many it stands that came too fast to be told one by one" },
	{ "SINCE", "since_ms", COLUMN_TIME, false, "when the first of those was" },
	{ "LEASE", "lease", COLUMN_COUNT, false, "which lease it is about" },
	{ "SESSION", "session", COLUMN_COUNT, false, "the process at the other end" },
	{ NULL },
};

const struct column explain_event_columns[] = {
	{ "EVENT", "event", COLUMN_TEXT, true, "its id" },
	{ "LEVEL", "level", COLUMN_TEXT, true, "error, warning, notice or info" },
	{ "MEANING", "meaning", COLUMN_TEXT, true, "what it means" },
	{ "ADVICE", "advice", COLUMN_TEXT, false, "what to do" },
	{ NULL },
};

/* ---- explain-event ---- */

static const struct {
	const char *name, *level, *meaning, *advice;
} kinds[] = {
#define LEVEL_ERROR   "error"
#define LEVEL_WARNING "warning"
#define LEVEL_NOTICE  "notice"
#define LEVEL_INFO    "info"
#define EVENT(id, name, level, meaning, advice) { name, LEVEL_##level, meaning, advice },
#include "events.inc"
#undef EVENT
};
#define KINDS (sizeof kinds / sizeof *kinds)

const char *event_meaning(const char *event)
{
	for (size_t i = 0; i < KINDS; i++)
		if (!strcmp(kinds[i].name, event))
			return kinds[i].meaning;
	return NULL;
}

static void print_member(FILE *f, const char *name, const char *text, const char *end)
{
	fprintf(f, "\"%s\":", name);
	value_print_string(f, text);
	fputs(end, f);
}

/* All events, or the one that is asked for, as a reply would have them.  NULL: no memory. */
static struct value *kinds_as_reply(const char *only)
{
	char *text = NULL;
	struct value *v;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);
	const char *comma = "";

	if (!f)
		return NULL;
	fputs("{\"events\":[", f);
	for (size_t i = 0; i < KINDS; i++) {
		if (only && strcmp(only, kinds[i].name))
			continue;
		fprintf(f, "%s{", comma);
		print_member(f, "event", kinds[i].name, ",");
		print_member(f, "level", kinds[i].level, ",");
		print_member(f, "meaning", kinds[i].meaning, ",");
		print_member(f, "advice", kinds[i].advice, "}");
		comma = ",";
	}
	fputs("]}", f);
	v = fclose(f) == 0 ? value_open(text) : NULL;
	free(text);
	return v;
}

static int explain_one(const struct value *e)
{
	printf("%s (%s)\n\n", value_str(e, "event"), value_str(e, "level"));
	cli_print_wrapped("", value_str(e, "meaning"));
	printf("\nWhat to do: ");
	cli_print_wrapped("", value_str(e, "advice"));
	return EXIT_OK;
}

int run_explain_event(struct cli *c, char **arguments, unsigned n)
{
	struct value *reply = kinds_as_reply(n ? arguments[0] : NULL);
	const struct value *events = value_at(reply, "events");
	int r;

	if (!reply) {
		cli_error("out of memory");
		r = EXIT_SYSTEM;
	} else if (n && !value_items(events)) {
		cli_error("there is no event \"%s\"; memctl explain-event lists them", arguments[0]);
		r = EXIT_NOT_FOUND;
	} else if (n && !c->json && !c->style.columns && !c->style.raw) {
		r = explain_one(value_item(events, 0));
	} else {
		r = cli_show_reply(c, reply, "events", explain_event_columns);
	}
	value_close(reply);
	return r;
}

/* ---- events ---- */

struct question {
	char since[24], after[24];	/* "": not said */
	const char *last;
	const char *vm, *level;
};

static void say_all(struct question *q, const char *pairs[6][2])
{
	const char *all[][2] = {
		{ "#since_ms", *q->since ? q->since : NULL }, { "#after", *q->after ? q->after : NULL }, { "#last", q->last },
		{ "vm", q->vm }, { "level", q->level }, { NULL },
	};

	memcpy(pairs, all, sizeof all);
}

static void go_on(struct question *q, const struct value *reply)
{
	snprintf(q->after, sizeof q->after, "%" PRIu64, value_u64(reply, "next", 0));
	q->last = NULL;
}

/* For people: how many it stands for is said in its text. */
static void add_counts(const struct cli *c, const struct value *events)
{
	for (size_t i = 0; i < value_items(events); i++) {
		struct value *e = (struct value *)value_item(events, i);
		char *since, *text = NULL;

		if (value_u64(e, "count", 1) < 2)
			continue;
		since = cli_cell(c, e, "since_ms", COLUMN_TIME);
		if (asprintf(&text, "%s (%" PRIu64 " times since %s)", value_str(e, "text"), value_u64(e, "count", 1), since ? since : "") >= 0)
			value_set_str(e, "text", text);
		free(text);
		free(since);
	}
}

static int read_all(struct cli *c, struct question *q, struct value **ret)
{
	struct value *reply = NULL, *more;
	const char *pairs[6][2];
	bool go = true;
	int r = EXIT_OK;

	while (!r && go) {
		say_all(q, pairs);
		r = cli_ask(c, "org.memctl.Events", pairs, &more);
		if (r)
			break;
		go_on(q, more);
		go = value_true(more, "more");
		if (!reply) {
			reply = more;
			continue;
		}
		if (value_extend(reply, "events", more) < 0)
			r = EXIT_SYSTEM;
		value_close(more);
	}
	if (r) {
		value_close(reply);
		return r;
	}
	value_drop(reply, "more");
	*ret = reply;
	return EXIT_OK;
}

int events_read(struct cli *c, const char *since, const char *vm, const char *level, struct value **ret)
{
	struct question q = { .vm = vm, .level = level };

	snprintf(q.since, sizeof q.since, "%s", since);
	return read_all(c, &q, ret);
}

static int show_all(struct cli *c, struct question *q)
{
	struct value *reply;
	int r = read_all(c, q, &reply);

	if (r)
		return r;
	if (!c->json)
		add_counts(c, value_at(reply, "events"));
	r = cli_show_reply(c, reply, "events", events_columns);
	value_close(reply);
	return r;
}

static int width_of(const struct column *k)
{
	return k->kind == COLUMN_TIME ? 8 : !strcmp(k->field, "event") ? 18 : !strcmp(k->field, "level") ? 7 : 12;
}

static void print_line(struct cli *c, const struct column *const *shown, int n, const struct value *e)
{
	for (int i = 0; i < n; i++) {
		char *text = e ? cli_cell(c, e, shown[i]->field, shown[i]->kind) : strdup(shown[i]->name);

		printf("%s%-*s", i ? " " : "", c->style.raw || i == n - 1 ? 0 : width_of(shown[i]), text && *text ? text : "-");
		free(text);
	}
	putchar('\n');
}

/* Whether somebody still reads. */
static bool print_new(struct cli *c, const struct column *const *shown, int n, const struct value *events)
{
	if (!c->json)
		add_counts(c, events);
	for (size_t i = 0; i < value_items(events); i++) {
		if (c->json)
			value_print_reply(stdout, value_item(events, i), true);
		else
			print_line(c, shown, n, value_item(events, i));
	}
	return output_flush();
}

/* For ever: a memctld that is gone may come back. */
static int follow(struct cli *c, struct question *q)
{
	static const struct timespec pause = { .tv_sec = 1 };
	const struct column *shown[COLUMNS_MAX];
	const char *pairs[6][2];
	int n = columns_choose(events_columns, &c->style, shown);
	bool heard = false, gone = false, go = true;

	if (n < 0)
		return EXIT_USAGE;
	if (!c->json && !c->style.noheadings)
		print_line(c, shown, n, NULL);
	while (go) {
		struct value *reply;
		char why[320];
		int answer;

		say_all(q, pairs);
		answer = cli_try(c, "org.memctl.Events", pairs, &reply, why);
		if (answer && !heard) {
			cli_error("%s", why);
			return answer;
		}
		if (answer) {
			if (!gone)
				cli_error("%s; waiting for it", why);
			gone = true;
			cli_hang_up(c);
		} else {
			if (gone)
				cli_error("memctld is back");
			gone = false;
			heard = true;
			go_on(q, reply);
			go = print_new(c, shown, n, value_at(reply, "events"));
			answer = value_true(reply, "more");
			value_close(reply);
			if (answer)
				continue;
		}
		nanosleep(&pause, NULL);
	}
	return EXIT_OK;
}

int run_events(struct cli *c, char **arguments, unsigned n)
{
	struct question q = { .vm = c->vm, .level = c->level };

	(void)arguments;
	(void)n;
	if (c->since) {
		uint64_t ms;

		if (when_parse("--since", c->since, time(NULL), &ms))
			return EXIT_USAGE;
		snprintf(q.since, sizeof q.since, "%" PRIu64, ms);
	}
	if (c->follow && !c->since)
		q.last = FOLLOW_LAST;
	return c->follow ? follow(c, &q) : show_all(c, &q);
}
