/* How a VM fared in the last minutes: points in time, out of the history and then out of the samples. */
#include "cli/history.h"
#include "cli/top_screen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NUMBERS "consumed_bytes,swap_in_pages,swap_out_pages,stall_wall_ns"

static void add(struct top_trail *t, uint64_t ts_ms, const double value[TOP_CURVES])
{
	if (t->n && t->points[t->n - 1].ts_ms >= ts_ms)
		return;
	if (t->n == TRAIL_POINTS)
		memmove(t->points, t->points + 1, --t->n * sizeof *t->points);
	t->points[t->n].ts_ms = ts_ms;
	memcpy(t->points[t->n++].value, value, TOP_CURVES * sizeof *value);
}

static double grown(const struct value *row, const char *name)
{
	uint64_t n, ms = value_u64(row, "interval_ms", 0);

	return ms && value_number(value_at(row, name), &n) ? (double)n * 1e3 / (double)ms : NAN;
}

void trail_begin(struct top_trail *t, struct cli *c, const char *vm, uint64_t until_ms, unsigned step_s, unsigned steps)
{
	char step[16];
	struct history_span span = { .since_ms = until_ms - (uint64_t)steps * step_s * 1000, .until_ms = until_ms, .step = step };
	struct value *reply;
	const struct value *rows;
	char why[320];

	t->n = 0;
	snprintf(t->vm, sizeof t->vm, "%s", vm);
	snprintf(step, sizeof step, "%u", step_s < 10 ? 1 : step_s < 60 ? 10 : step_s < 3600 ? 60 : 3600);
	/* nothing is recorded, or nobody answers: the graph begins with the next sample */
	if (history_ask(c, vm, &span, NUMBERS, false, &reply, why))
		return;
	rows = value_at(reply, "rows");
	for (size_t i = 0; i < value_items(rows); i++) {
		const struct value *row = value_item(rows, i);

		add(t, value_u64(row, "ts_ms", 0), (double[]){ (double)value_u64(row, "consumed_bytes", 0),
			4096 * (grown(row, "swap_in_pages") + grown(row, "swap_out_pages")), grown(row, "stall_wall_ns") / 1e7 });
	}
	value_close(reply);
}

void trail_add(struct top_trail *t, const struct top_sample *s)
{
	const struct top_vm *vm = top_find(s, t->vm);

	if (vm)
		add(t, s->ts_ms, (double[]){ vm->n[TOP_consumed_bytes],
			4096 * (vm->n[TOP_swap_in_pages] + vm->n[TOP_swap_out_pages]), vm->n[TOP_stall_wall_ns] / 1e7 });
}
