/* A line a sample, for programs: CSV as esxtop -b writes it (perfmon's format, which its tools read), or JSON.
 *
 * CSV has its columns from the first line on: of the VMs that are there at the first sample.  One that leaves has empty cells from then
 * on; one that comes later is told of on stderr, once, and is in the JSON. */
#include "cli/output.h"
#include "cli/top.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct batch {
	struct cli *c;
	const struct top_wish *w;
	char (*vms)[64];	/* CSV: whose columns there are */
	size_t n_vms;
	bool told;		/* that others came */
	bool begun;
};

/* ---- CSV ---- */

static const char *unit_of(enum top_kind kind, const struct top_units *u)
{
	return kind == TOP_BYTES || kind == TOP_BYTES_S ? u->name : kind == TOP_PERCENT ? "%" : "";
}

static void print_name(const char *host, const char *object, const char *name, const char *unit)
{
	printf(",\"\\\\%s\\%s\\%s%s%s\"", host, object, name, *unit ? " " : "", unit);
}

static int print_header(struct batch *b, const struct top_sample *s)
{
	char host[65] = "";

	b->vms = calloc(s->n_vms + 1, sizeof *b->vms);
	if (!b->vms)
		return EXIT_SYSTEM;
	b->n_vms = s->n_vms;
	for (size_t k = 0; k < s->n_vms; k++)
		snprintf(b->vms[k], sizeof *b->vms, "%s", s->vms[k].name);
	if (b->c->style.noheadings)
		return EXIT_OK;
	gethostname(host, sizeof host - 1);
	fputs("\"(PDH-CSV 4.0) (UTC)(0)\"", stdout);
	print_name(host, "Memory", "VMKMEM state", "");
	for (const struct top_host_cell *h = top_host_cells; h->group; h++) {
		char name[64];

		snprintf(name, sizeof name, "%s %s", h->group, h->name);
		print_name(host, "Memory", name, unit_of(h->kind, b->w->units));
	}
	for (size_t k = 0; k < b->n_vms; k++)
		for (unsigned i = 0; i < b->w->n_columns; i++) {
			unsigned column = b->w->columns[i];
			char object[96];

			snprintf(object, sizeof object, "Group Memory(%s)", b->vms[k]);
			if (column != TOP_COLUMN_NAME)
				print_name(host, object, top_columns[column].name, unit_of(top_column_more[column].kind, b->w->units));
		}
	putchar('\n');
	return EXIT_OK;
}

static void print_number(const struct batch *b, enum top_kind kind, double value)
{
	bool bytes = kind == TOP_BYTES || kind == TOP_BYTES_S;

	if (isnan(value))
		fputs(",\"\"", stdout);
	else
		/* to some KiB in any unit */
		printf(",\"%.*f\"", bytes && b->w->units->bytes == 1 ? 0 : bytes && b->w->units->bytes > 1 << 20 ? 5 : 2,
			bytes ? value / b->w->units->bytes : value);
}

static void print_vm(const struct batch *b, const struct top_vm *vm)
{
	for (unsigned i = 0; i < b->w->n_columns; i++) {
		unsigned column = b->w->columns[i];

		if (column == TOP_COLUMN_NAME)
			continue;
		if (top_column_more[column].kind == TOP_TEXT)
			printf(",\"%s\"", vm ? top_column_text(column, vm) : "");
		else
			print_number(b, top_column_more[column].kind, vm ? top_column_value(column, vm) : NAN);
	}
}

static void tell_of_others(struct batch *b, const struct top_sample *s)
{
	for (size_t i = 0; !b->told && i < s->n_vms; i++) {
		size_t k = 0;

		while (k < b->n_vms && strcmp(b->vms[k], s->vms[i].name))
			k++;
		if (k == b->n_vms) {
			cli_error("%s came after the first line, which has no columns for it; --json has all", s->vms[i].name);
			b->told = true;
		}
	}
}

static int print_csv(struct batch *b, const struct top_sample *s)
{
	time_t t = (time_t)(s->ts_ms / 1000);
	struct tm tm;
	char text[32];
	int r = b->begun ? EXIT_OK : print_header(b, s);

	if (r) {
		cli_error("out of memory");
		return r;
	}
	b->begun = true;
	gmtime_r(&t, &tm);
	strftime(text, sizeof text, "%m/%d/%Y %H:%M:%S", &tm);
	printf("\"%s\",\"%s\"", text, s->state);
	for (const struct top_host_cell *h = top_host_cells; h->group; h++)
		print_number(b, h->kind, h->value(s));
	for (size_t k = 0; k < b->n_vms; k++)
		print_vm(b, top_find(s, b->vms[k]));
	putchar('\n');
	tell_of_others(b, s);
	return EXIT_OK;
}

/* ---- JSON ---- */

static void print_json_number(const char *name, enum top_kind kind, double value)
{
	if (isnan(value))
		printf(",\"%s\":null", name);
	else
		printf(kind == TOP_BYTES ? ",\"%s\":%.0f" : ",\"%s\":%.3f", name, value);
}

static void print_json_vm(const struct batch *b, const struct top_vm *vm)
{
	fputs("{\"name\":", stdout);
	value_print_string(stdout, vm->name);
	for (unsigned i = 0; i < b->w->n_columns; i++) {
		unsigned column = b->w->columns[i];

		if (column == TOP_COLUMN_NAME)
			continue;
		if (top_column_more[column].kind == TOP_TEXT) {
			printf(",\"%s\":", top_columns[column].field);
			value_print_string(stdout, top_column_text(column, vm));
		} else {
			print_json_number(top_columns[column].field, top_column_more[column].kind, top_column_value(column, vm));
		}
	}
	putchar('}');
}

static int print_json(struct batch *b, const struct top_sample *s)
{
	printf("{\"schema\":\"memctl/1\",\"ts_ms\":%llu,\"interval_ms\":%.0f,\"recorded\":%s,\"host\":{\"state\":\"%s\"",
		(unsigned long long)s->ts_ms, s->interval_s * 1e3, s->recorded ? "true" : "false", s->state);
	for (unsigned i = 0; i < HOST_NUMBERS; i++)
		print_json_number(top_host_numbers[i], TOP_BYTES, s->host[i]);
	fputs("},\"vms\":[", stdout);
	for (size_t i = 0; i < s->n_vms; i++) {
		if (i)
			putchar(',');
		print_json_vm(b, &s->vms[i]);
	}
	puts("]}");
	return EXIT_OK;
}

static int print(struct batch *b, const struct top_sample *s)
{
	return b->c->json ? print_json(b, s) : print_csv(b, s);
}

/* ---- the samples ---- */

static void pause_for(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - floor(seconds)) * 1e9) };

	nanosleep(&t, NULL);
}

/* Every line is measured over its interval, the first too.  A memctld that was there and is gone is waited for. */
static int print_live(struct batch *b)
{
	struct top_sample *before = NULL, *now;
	char why[320];
	bool gone = false;
	int r = top_live(b->c, b->w->vm, NULL, &before, why);

	if (r)
		cli_error("%s", why);
	for (double i = 0; !r && i < b->w->count;) {
		pause_for(b->w->delay_s);
		if (top_live(b->c, b->w->vm, before, &now, why)) {
			if (!gone)
				cli_error("%s; waiting for it", why);
			gone = true;
			continue;
		}
		if (gone)
			cli_error("memctld is back");
		gone = false;
		r = print(b, now);
		top_sample_free(before);
		before = now;
		i++;
		if (!output_flush())
			break;
	}
	top_sample_free(before);
	return r;
}

/* -n: so many samples from then on; without it one. */
static int print_recorded(struct batch *b)
{
	struct top_replay *replay = top_replay_new(b->c, b->w->vm);
	double count = isinf(b->w->count) ? 1 : b->w->count;
	char why[320] = "out of memory";
	bool end = false;
	int r = replay ? EXIT_OK : EXIT_SYSTEM;

	if (replay) {
		top_replay_step(replay, (unsigned)b->w->delay_s);
		r = top_replay_seek(replay, b->w->at_ms, why);
	}
	for (double i = 0; !r && !end && i < count && output_flush(); i++) {
		print(b, top_replay_at(replay));
		if (i + 1 < count)
			r = top_replay_move(replay, 1, &end, why);
	}
	if (r)
		cli_error("%s", why);
	top_replay_free(replay);
	return r;
}

static bool is_step(double seconds)
{
	return seconds == 0 || seconds == 1 || seconds == 10 || seconds == 60 || seconds == 3600;
}

int top_batch(struct cli *c, const struct top_wish *w)
{
	struct batch b = { .c = c, .w = w };
	int r;

	if (w->at && !is_step(w->delay_s)) {
		cli_error("--delay: with --at it is a step of the history: 1, 10, 60 or 3600 seconds");
		return EXIT_USAGE;
	}
	r = w->at ? print_recorded(&b) : print_live(&b);
	free(b.vms);
	return r;
}
