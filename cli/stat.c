/* Lines like vmstat's: levels as they are, counters as rates over the interval.  One VM's, or the sum of all. */
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/units.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define WIDTH	      10
#define SCREEN_LINES  24	/* of what is no terminal */

const struct column stat_columns[] = {
	{ "LEASED", "leased_bytes", COLUMN_BYTES, false, "guest-physical memory leased" },
	{ "CHARGED", "charged_bytes", COLUMN_BYTES, true, "host-physical memory taken" },
	{ "RESIDENT", "resident_bytes", COLUMN_BYTES, true, "guest pages in frames" },
	{ "COMPR", "compressed_bytes", COLUMN_BYTES, true, "guest pages compressed, original size" },
	{ "STORED", "stored_bytes", COLUMN_BYTES, true, "what those take" },
	{ "SWAPPED", "swapped_bytes", COLUMN_BYTES, true, "guest pages in swap files" },
	{ "SHRD", "shared_bytes", COLUMN_BYTES, false, "guest pages that are shared" },
	{ "SHRDSVD", "saved_bytes", COLUMN_BYTES, false, "what sharing saves" },
	{ "SZTGT", "target_bytes", COLUMN_BYTES, false, "what should be charged at most" },
	{ "TCHD", "active_bytes", COLUMN_BYTES, false, "guest memory in use, by samples" },
	{ "MCTLSZ", "ballooned_bytes", COLUMN_BYTES, false, "in balloons" },
	{ "MCTLTGT", "balloon_target_bytes", COLUMN_BYTES, false, "what balloons should hold" },
	{ "MCTLMAX", "balloon_max_bytes", COLUMN_BYTES, false, "the most they may hold" },
	{ "PAGEIN", "page_in_left_bytes", COLUMN_BYTES, false, "what vm page-in has still to bring back" },
	{ "INFL/s", "inflated_pages", COLUMN_RATE, false, "pages that balloons took" },
	{ "DEFL/s", "deflated_pages", COLUMN_RATE, false, "pages that they gave back" },
	{ "PGIN/s", "paged_in_pages", COLUMN_RATE, false, "pages brought back by vm page-in" },
	{ "FZERO/s", "faults_zero", COLUMN_RATE, true, "faults served with a zero page" },
	{ "FCOMPR/s", "faults_compressed", COLUMN_RATE, true, "faults served from the compression cache" },
	{ "FSWAP/s", "faults_swapped", COLUMN_RATE, true, "faults served from a swap file" },
	{ "FPROT/s", "faults_protected", COLUMN_RATE, false, "writes caught during an eviction" },
	{ "FSHRD/s", "faults_shared", COLUMN_RATE, false, "faults served from a pool" },
	{ "COWH/s", "break_pages", COLUMN_RATE, false, "writes to shared pages" },
	{ "SCAN/s", "scanned_pages", COLUMN_RATE, false, "pages read by the sharing scan" },
	{ "SHARE/s", "share_pages", COLUMN_RATE, false, "pages that came to be shared" },
	{ "EVICT/s", "evicted_pages", COLUMN_RATE, true, "pages taken from frames" },
	{ "SWOUT/s", "swap_out_pages", COLUMN_RATE, true, "pages written to swap files" },
	{ "SWIN/s", "swap_in_pages", COLUMN_RATE, false, "pages read from swap files" },
	{ "REFLT/s", "refault_pages", COLUMN_RATE, false, "evicted pages that were needed again" },
	{ "WAITS/s", "frame_waits", COLUMN_RATE, false, "faults that found the arena full" },
	{ "%LAT_M", "stall_wall_ns", COLUMN_RATE, false, "time in which some thread of a guest waited for pages, percent; summed over the VMs" },
	{ "STALL%", "stall_ns", COLUMN_RATE, true, "time that guest threads waited for pages, percent of one" },
	{ NULL },
};
/* Times: their growth is a percentage of the time that has passed. */
#define STALL_PERCENT "stall_ns"
#define LAT_PERCENT   "stall_wall_ns"

struct sample {
	double seconds;
	uint64_t value[COLUMNS_MAX];
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_for(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - floor(seconds)) * 1e9) };

	nanosleep(&t, NULL);
}

static int take(struct cli *c, const char *vm, const struct column *const *shown, int n, struct sample *ret)
{
	const char *pairs[][2] = { { "vm", vm }, { NULL } };
	const struct value *numbers;
	struct value *reply;
	int r;

	r = vm ? cli_ask(c, "org.memctl.ShowVm", pairs, &reply) : cli_ask(c, "org.memctl.Status", NULL, &reply);
	if (r)
		return r;
	numbers = value_at(reply, vm ? "vm" : "status.vms");
	ret->seconds = now();
	for (int i = 0; i < n; i++)
		ret->value[i] = value_u64(numbers, shown[i]->field, 0);
	value_close(reply);
	return EXIT_OK;
}

/* A VM that left takes its counters with it: the sum falls, and the rate is 0 then. */
static double rate(const struct column *column, uint64_t before, uint64_t after, double seconds)
{
	double delta = after > before ? (double)(after - before) : 0;

	if (!strcmp(column->field, STALL_PERCENT) || !strcmp(column->field, LAT_PERCENT))
		return delta / 1e7 / seconds;
	return delta / seconds;
}

static void print_text(const struct cli *c, const struct column *const *shown, int n, const struct sample *before,
	const struct sample *after)
{
	int width = c->style.raw ? 0 : WIDTH - 1;

	for (int i = 0; i < n; i++) {
		char text[32];

		if (shown[i]->kind == COLUMN_RATE)
			snprintf(text, sizeof text, "%.0f",
				rate(shown[i], before->value[i], after->value[i], after->seconds - before->seconds));
		else if (c->style.bytes)
			snprintf(text, sizeof text, "%" PRIu64, after->value[i]);
		else
			units_size(after->value[i], text);
		printf("%s%*s", i ? " " : "", width, text);
	}
	putchar('\n');
}

static void print_headings(const struct cli *c, const struct column *const *shown, int n)
{
	for (int i = 0; i < n; i++)
		printf("%s%*s", i ? " " : "", c->style.raw ? 0 : WIDTH - 1, shown[i]->name);
	putchar('\n');
}

/* Lines, the headings' included, until they come again; for a program they come once. */
static long lines_of_screen(const struct cli *c)
{
	struct winsize size;

	if (c->style.raw)
		return LONG_MAX;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 4)
		return SCREEN_LINES;
	return size.ws_row;
}

/* Levels by their names; counters as their growth over the interval, so that a script can divide as it likes. */
static void print_json(const char *vm, const struct column *const *shown, int n, const struct sample *before,
	const struct sample *after)
{
	printf("{\"schema\":\"memctl/1\",\"vm\":");
	value_print_string(stdout, vm ? vm : "");
	printf(",\"interval_ns\":%.0f", (after->seconds - before->seconds) * 1e9);
	for (int i = 0; i < n; i++) {
		bool grows = shown[i]->kind == COLUMN_RATE;
		uint64_t value = after->value[i];

		if (grows)
			value = value > before->value[i] ? value - before->value[i] : 0;
		printf(",\"%s\":%" PRIu64, shown[i]->field, value);
	}
	puts("}");
}

int run_stat(struct cli *c, char **arguments, unsigned n)
{
	const char *vm = n ? arguments[0] : NULL;
	const struct column *shown[COLUMNS_MAX];
	struct sample before, after;
	double interval = c->interval_s > 0 ? c->interval_s : 1;
	double lines = c->count > 0 ? c->count : c->interval_s > 0 ? HUGE_VAL : 1;
	long left = 0;	/* lines until the headings come again */
	int columns, r;

	/* A program wants all numbers; a person those that fit on a line. */
	if (c->json && !c->style.columns)
		c->style.columns = "all";
	columns = columns_choose(stat_columns, &c->style, shown);
	if (columns < 0)
		return EXIT_USAGE;
	r = take(c, vm, shown, columns, &before);
	for (double line = 0; !r && line < lines; line++) {
		pause_for(interval);
		r = take(c, vm, shown, columns, &after);
		if (r)
			break;
		if (!c->json && !c->style.noheadings && left-- == 0) {
			print_headings(c, shown, columns);
			left = lines_of_screen(c) - 2;
		}
		if (c->json)
			print_json(vm, shown, columns, &before, &after);
		else
			print_text(c, shown, columns, &before, &after);
		if (!output_flush())
			break;
		before = after;
	}
	return r;
}
