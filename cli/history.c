/* What the numbers were: lines like stat's, from memctld's own history.  Levels are averages over the line's time, counters rates. */
#include "cli/history.h"

#include "cli/cli.h"
#include "cli/when.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define SINCE_S	   3600		/* without --since */
#define PAGES_MOST 100000	/* of an answer: more than there can be */
#define NAMES_MOST 255		/* bytes of a string, as memctld takes them */

const struct column history_columns[] = {
	{ "TIME", "ts_ms", COLUMN_TIME, true, "when the line's time begins" },
	{ "SIZE", "size_bytes", COLUMN_BYTES, false, "the most its leases may add up to" },
	{ "LEASED", "leased_bytes", COLUMN_BYTES, false, "guest-physical memory leased" },
	{ "CHARGED", "charged_bytes", COLUMN_BYTES, true, "host-physical memory it took" },
	{ "CHARGEDMOST", "charged_bytes_most", COLUMN_BYTES, false, "the most of it at once" },
	{ "RESIDENT", "resident_bytes", COLUMN_BYTES, true, "guest pages in frames" },
	{ "COMPRESSED", "compressed_bytes", COLUMN_BYTES, true, "guest pages in the cache, original size" },
	{ "STORED", "stored_bytes", COLUMN_BYTES, false, "what those took in the cache" },
	{ "SWAPPED", "swapped_bytes", COLUMN_BYTES, true, "guest pages in the swap file" },
	{ "SWAPPEDMOST", "swapped_bytes_most", COLUMN_BYTES, false, "the most of it at once" },
	{ "SHRD", "shared_bytes", COLUMN_BYTES, false, "guest pages that it shared" },
	{ "SHRDSVD", "saved_bytes", COLUMN_BYTES, false, "what sharing saved it" },
	{ "CNSM", "consumed_bytes", COLUMN_BYTES, false, "host memory that it cost: charged and its part of the shared" },
	{ "ZERO", "zero_bytes", COLUMN_BYTES, false, "guest pages never touched, or all zero" },
	{ "RSRV", "reservation_bytes", COLUMN_BYTES, false, "guaranteed to it" },
	{ "LIMIT", "limit_bytes", COLUMN_BYTES, false, "never more than this; 0: none" },
	{ "SHARES", "shares", COLUMN_COUNT, false, "weight when memory is short" },
	{ "SZTGT", "target_bytes", COLUMN_BYTES, true, "what it should have been charged at most" },
	{ "TCHD", "active_bytes", COLUMN_BYTES, true, "guest memory in use, by samples" },
	{ "%ACTVS", "active_slow_pct", COLUMN_COUNT, false, "part in use, slow moving average" },
	{ "%ACTVF", "active_fast_pct", COLUMN_COUNT, false, "part in use, fast moving average" },
	{ "MCTLSZ", "ballooned_bytes", COLUMN_BYTES, true, "in its balloon" },
	{ "MCTLTGT", "balloon_target_bytes", COLUMN_BYTES, false, "what its balloon should have held" },
	{ "MCTLMAX", "balloon_max_bytes", COLUMN_BYTES, false, "the most it might hold" },
	{ "LOST", "lost_bytes_most", COLUMN_BYTES, false, "guest pages that a store could not give back" },
	{ "FZERO/s", "faults_zero", COLUMN_RATE, false, "faults served with a zero page" },
	{ "FCOMPR/s", "faults_compressed", COLUMN_RATE, false, "faults served from the compression cache" },
	{ "FSWAP/s", "faults_swapped", COLUMN_RATE, true, "faults served from the swap file" },
	{ "FSHRD/s", "faults_shared", COLUMN_RATE, false, "faults served from a pool" },
	{ "COWH/s", "break_pages", COLUMN_RATE, false, "writes to shared pages" },
	{ "SHARE/s", "share_pages", COLUMN_RATE, false, "pages that came to be shared" },
	{ "INFL/s", "inflated_pages", COLUMN_RATE, false, "pages that the balloon took" },
	{ "DEFL/s", "deflated_pages", COLUMN_RATE, false, "pages that it gave back" },
	{ "EVICT/s", "evicted_pages", COLUMN_RATE, true, "pages taken from frames" },
	{ "SWOUT/s", "swap_out_pages", COLUMN_RATE, false, "pages written to the swap file" },
	{ "SWIN/s", "swap_in_pages", COLUMN_RATE, false, "pages read from the swap file" },
	{ "REFLT/s", "refault_pages", COLUMN_RATE, false, "evicted pages that were needed again" },
	{ "WAITS/s", "frame_waits", COLUMN_RATE, false, "faults that found the arena full" },
	{ "BLOCKED", "blocked_most", COLUMN_COUNT, false, "1: its new pages waited at some time" },
	{ "%LAT_M", "stall_wall_ns", COLUMN_RATE, true, "percent of the time in which its guest waited for pages" },
	{ "STALL%", "stall_ns", COLUMN_RATE, false, "time that its threads waited for pages, percent of one" },
	{ "P50COMPR", "faults.compressed.p50_ns", COLUMN_NS, false, "how long half of the faults from the cache took at most" },
	{ "P99COMPR", "faults.compressed.p99_ns", COLUMN_NS, false, "and 99 % of them" },
	{ "P50SWAP", "faults.swapped.p50_ns", COLUMN_NS, false, "how long half of the faults from the swap file took at most" },
	{ "P99SWAP", "faults.swapped.p99_ns", COLUMN_NS, false, "and 99 % of them" },
	{ "P99SHRD", "faults.shared.p99_ns", COLUMN_NS, false, "how long 99 % of the faults from a pool took at most" },
	{ "SAMPLES", "samples", COLUMN_COUNT, false, "seconds that the line is made of" },
	{ NULL },
};

/* Without a VM. */
static const struct column host_columns[] = {
	{ "TIME", "ts_ms", COLUMN_TIME, true, "when the line's time begins" },
	{ "STATE", "state_most", COLUMN_TEXT, true, "the worst: high, clear, soft, hard, low" },
	{ "VMS", "vms", COLUMN_COUNT, true, "registered VMs" },
	{ "SIZE", "capacity_bytes", COLUMN_BYTES, false, "of the arena" },
	{ "CHARGED", "charged_bytes", COLUMN_BYTES, true, "arena that was taken" },
	{ "CHARGEDMOST", "charged_bytes_most", COLUMN_BYTES, true, "the most of it at once" },
	{ "FREE", "free_bytes", COLUMN_BYTES, true, "arena that was not" },
	{ "MINFREE", "min_free_bytes", COLUMN_BYTES, false, "the scale of the states" },
	{ "RSRV", "reserved_bytes", COLUMN_BYTES, true, "promised to VMs" },
	{ "SHARED", "shared_bytes", COLUMN_BYTES, false, "guest pages whose content was in a pool" },
	{ "COMMON", "common_bytes", COLUMN_BYTES, false, "distinct pages that they had in common" },
	{ "SAVING", "saving_bytes", COLUMN_BYTES, true, "shared - common" },
	{ "RECL/s", "reclaim_runs", COLUMN_RATE, true, "times that reclaim had to act" },
	{ "KILLED/s", "clients_killed", COLUMN_RATE, false, "clients killed because they held memctld up" },
	{ "ROWS/s", "metrics_written", COLUMN_RATE, false, "rows written to this history" },
	{ "SAMPLES", "samples", COLUMN_COUNT, false, "seconds that the line is made of" },
	{ NULL },
};

/* ---- asking for what ---- */

static int parse_step(const char *text, const char **ret_seconds)
{
	static const char *const steps[][3] = { { "1s", "1", "1" }, { "10s", "10", "10" }, { "1m", "60", "60" }, { "1h", "3600", "3600" },
		{ "auto", "0", "0" } };

	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (!strcmp(text, steps[i][0]) || !strcmp(text, steps[i][1])) {
			*ret_seconds = steps[i][2];
			return EXIT_OK;
		}
	cli_error("--step: \"%s\" is none of 1s, 10s, 1m, 1h, auto", text);
	return EXIT_USAGE;
}

/* ---- columns: those above, and every number of the catalogue under its own name ---- */

struct columns {
	struct column *all;
	size_t n, room;
	char **names;		/* those that we have made */
	size_t n_names;
};

static void columns_free(struct columns *c)
{
	for (size_t i = 0; i < c->n_names; i++)
		free(c->names[i]);
	free(c->names);
	free(c->all);
}

static enum column_kind kind_of(const struct value *number)
{
	const char *unit = value_str(number, "unit");

	if (!strcmp(value_str(number, "kind"), "counter"))
		return COLUMN_RATE;
	if (!strcmp(unit, "bytes"))
		return COLUMN_BYTES;
	return !strcmp(unit, "ns") ? COLUMN_NS : !strcmp(unit, "permille") ? COLUMN_PERMILLE : COLUMN_COUNT;
}

static int add_number(struct columns *c, const char *name, const char *end, enum column_kind kind)
{
	char *own;

	if (asprintf(&own, "%s%s", name, end) < 0)
		return -ENOMEM;
	c->names[c->n_names++] = own;
	c->all[c->n++] = (struct column){ own, own, kind, false, "" };
	return 0;
}

static int columns_of(const struct column *ours, const struct value *numbers, const char *of, struct columns *ret)
{
	size_t n = 0, most = 2 * value_items(numbers);

	while (ours[n].name)
		n++;
	*ret = (struct columns){ .all = calloc(n + most + 1, sizeof *ret->all), .names = calloc(most + 1, sizeof *ret->names), .n = n };
	if (!ret->all || !ret->names)
		return -ENOMEM;
	memcpy(ret->all, ours, n * sizeof *ours);
	for (size_t i = 0; i < value_items(numbers); i++) {
		const struct value *number = value_item(numbers, i);
		enum column_kind kind = kind_of(number);

		if (strcmp(value_str(number, "of"), of))
			continue;
		if (add_number(ret, value_str(number, "name"), "", kind) < 0 ||
			(kind != COLUMN_RATE && add_number(ret, value_str(number, "name"), "_most", kind) < 0))
			return -ENOMEM;
	}
	return 0;
}

/* ---- asking ---- */

static bool is_of_row(const char *field)
{
	return !strcmp(field, "ts_ms") || !strcmp(field, "interval_ms") || !strcmp(field, "samples");
}

static bool is_latency(const char *field)
{
	return !strncmp(field, "faults.", 7);
}

/* The numbers that the columns need, with commas between them (none: all, which does no harm, and is asked for where there are too many to
 * name); freed by the caller. */
static char *numbers_of(const struct column *const *shown, int n)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	const char *between = "";

	if (!f)
		return NULL;
	for (int i = 0; i < n; i++)
		if (!is_of_row(shown[i]->field) && !is_latency(shown[i]->field)) {
			fprintf(f, "%s%s", between, shown[i]->field);
			between = ",";
		}
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	if (strlen(text) > NAMES_MOST)
		*text = 0;
	return text;
}

int history_ask(struct cli *c, const char *vm, const struct history_span *span, const char *numbers, bool latencies,
	struct value **ret, char why[static 320])
{
	char since[24], until[24], step[24];
	const char *pairs[][2] = { { "vm", vm }, { "#since", since }, { "#until", until }, { "#step", step },
		{ "numbers", numbers }, { latencies ? "?latencies" : NULL, "" }, { NULL } };
	struct value *all = NULL;
	uint64_t next = span->since_ms;
	int r = EXIT_OK;

	snprintf(step, sizeof step, "%s", span->step);
	snprintf(until, sizeof until, "%" PRIu64, span->until_ms);
	for (unsigned page = 0; !r && next && page < PAGES_MOST; page++) {
		struct value *reply;

		snprintf(since, sizeof since, "%" PRIu64, next);
		r = cli_try(c, "org.memctl.History", pairs, &reply, why);
		if (r)
			break;
		next = value_u64(reply, "next", 0);
		snprintf(step, sizeof step, "%" PRIu64, value_u64(reply, "step", 0));
		if (!all) {
			all = reply;
			continue;
		}
		if (value_extend(all, "rows", reply) < 0) {
			snprintf(why, 320, "out of memory");
			r = EXIT_SYSTEM;
		}
		value_close(reply);
	}
	if (r) {
		value_close(all);
		return r;
	}
	value_set_u64(all, "next", 0);
	*ret = all;
	return EXIT_OK;
}

int history_read(struct cli *c, const char *vm, const struct history_span *span, const char *numbers, bool latencies, struct value **ret)
{
	char why[320];
	int r = history_ask(c, vm, span, numbers, latencies, ret, why);

	if (r)
		cli_error("%s", why);
	return r;
}

/* ---- showing ---- */

/* What a counter grew by, for each second; times as percent of the time that passed. */
static char *rate(const struct value *row, const char *field)
{
	uint64_t ms = value_u64(row, "interval_ms", 0), n;
	double per_second;
	char text[32];

	if (!ms || !value_number(value_at(row, field), &n))
		return strdup("-");
	per_second = (double)n * 1000 / (double)ms;
	if (!strcmp(field, "stall_wall_ns") || !strcmp(field, "stall_ns"))
		per_second /= 1e7;
	snprintf(text, sizeof text, per_second < 10 && n ? "%.1f" : "%.0f", per_second);
	return strdup(text);
}

const char *history_state(uint64_t number)
{
	static const char *const words[] = { "high", "clear", "soft", "hard", "low" };

	return number < sizeof words / sizeof *words ? words[number] : "-";
}

static char *state(const struct value *row, const char *field)
{
	return strdup(history_state(value_u64(row, field, UINT64_MAX)));
}

static int fill(struct cli *c, struct table *t, const struct value *rows)
{
	for (size_t i = 0; i < value_items(rows); i++) {
		const struct value *row = value_item(rows, i);
		int r = table_row(t);

		for (size_t k = 0; !r && k < table_columns(t); k++) {
			const struct column *column = table_column(t, k);
			char *text = column->kind == COLUMN_RATE ? rate(row, column->field) : column->kind == COLUMN_TEXT ?
				state(row, column->field) : cli_cell(c, row, column->field, column->kind);

			r = text ? table_cell(t, k, text) : -ENOMEM;
			free(text);
		}
		if (r < 0)
			return r;
	}
	return table_print(t);
}

static int show(struct cli *c, const struct column *columns, const struct value *rows)
{
	struct table *t;
	int r = table_new(columns, &c->style, &t);

	if (!r) {
		r = fill(c, t, rows);
		table_free(t);
	}
	if (r == -EINVAL)
		return EXIT_USAGE;
	if (r < 0) {
		cli_error("cannot print the table: %s", strerror(-r));
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

static int with_columns(struct cli *c, const char *vm, const struct history_span *span, const struct column *columns)
{
	const struct column *shown[COLUMNS_MAX];
	int n = columns_choose(columns, &c->style, shown), r;
	/* a program wants all numbers, if it does not say which */
	char *numbers = n < 0 ? NULL : c->json && !c->style.columns ? strdup("") : numbers_of(shown, n);
	bool latencies = vm && c->json && !c->style.columns;
	struct value *reply;

	if (n < 0)
		return EXIT_USAGE;
	for (int i = 0; i < n; i++)
		latencies |= is_latency(shown[i]->field);
	if (!numbers) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	r = history_read(c, vm, span, numbers, latencies, &reply);
	free(numbers);
	if (r)
		return r;
	r = c->json ? cli_print_json(reply) : show(c, columns, value_at(reply, "rows"));
	value_close(reply);
	return r;
}

/* The first of the names (of -o) that is none of the columns, or NULL. */
static const char *unknown_name(const struct column *columns, const char *names)
{
	for (const char *p = names && *names == '+' ? names + 1 : names; p && strcasecmp(names, "all"); p += strcspn(p, ",") + 1) {
		size_t length = strcspn(p, ",");
		const struct column *k = columns;

		while (k->name && (strlen(k->name) != length || strncasecmp(k->name, p, length)))
			k++;
		if (!k->name)
			return p;
		if (!p[length])
			break;
	}
	return NULL;
}

static int no_such_column(const struct column *ours, const char *name)
{
	fprintf(stderr, "memctl: no column \"%.*s\"; there are:", (int)strcspn(name, ","), name);
	for (const struct column *k = ours; k->name; k++)
		fprintf(stderr, " %s", k->name);
	fputs(", and the numbers of `memctl catalogue`\n", stderr);
	return EXIT_USAGE;
}

/* Names that are not ours are asked for only when they are needed. */
static int with_catalogue(struct cli *c, const char *vm, const struct history_span *span, const struct column *ours)
{
	struct columns columns = { 0 };
	struct value *catalogue;
	const char *name;
	int r = cli_ask(c, "org.memctl.Catalogue", NULL, &catalogue);

	if (r)
		return r;
	if (columns_of(ours, value_at(catalogue, "numbers"), vm ? "vm" : "host", &columns) < 0) {
		cli_error("out of memory");
		r = EXIT_SYSTEM;
	} else {
		name = unknown_name(columns.all, c->style.columns);
		r = name ? no_such_column(ours, name) : with_columns(c, vm, span, columns.all);
	}
	value_close(catalogue);
	columns_free(&columns);
	return r;
}

int history_span_of(const struct cli *c, struct history_span *ret)
{
	struct history_span span = { .step = "0" };
	time_t now = time(NULL);
	int r = EXIT_OK;

	if (c->until)
		r = when_parse("--until", c->until, now, &span.until_ms);
	/* what is asked for is the hour before its end */
	span.since_ms = (span.until_ms ? span.until_ms : (uint64_t)now * 1000) - SINCE_S * 1000;
	if (!r && c->since)
		r = when_parse("--since", c->since, now, &span.since_ms);
	if (r)
		return r;
	if (span.since_ms >= (span.until_ms ? span.until_ms : (uint64_t)now * 1000 + 1)) {
		cli_error("--since is not before %s", span.until_ms ? "--until" : "now");
		return EXIT_USAGE;
	}
	*ret = span;
	return EXIT_OK;
}

int run_history(struct cli *c, char **arguments, unsigned n)
{
	const char *vm = n ? arguments[0] : NULL;
	const struct column *ours = vm ? history_columns : host_columns;
	struct history_span span;
	const char *step = "0";
	int r;

	r = c->step ? parse_step(c->step, &step) : EXIT_OK;
	if (!r)
		r = history_span_of(c, &span);
	if (r)
		return r;
	span.step = step;
	return unknown_name(ours, c->style.columns) ? with_catalogue(c, vm, &span, ours) : with_columns(c, vm, &span, ours);
}
