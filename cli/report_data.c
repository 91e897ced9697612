/* Asking memctld, and putting the answers into slots (report.h).
 *
 * A row of the history tells of a stretch of time: of [ts, ts + step), or, a single sample, of the time since the sample before it.
 * It counts in each slot that it touches, by the part of the slot that it covers; a slot that no row touches has no value.  So
 * neither the jitter of samples makes gaps, nor does a value of one slot reach into the next. */
#include "cli/report.h"

#include "cli/cli.h"
#include "cli/events.h"
#include "cli/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct number {
	const char *name;
	enum { MEAN, MOST, RATE } how;
} host_numbers[] = {
#define NUMBER(id, name, how) { name, how },
	REPORT_OF_HOST(NUMBER)
}, vm_numbers[] = {
	REPORT_OF_VM(NUMBER)
#undef NUMBER
};

#define NAMES_BYTES 256u	/* of `numbers` in a question */

static int out_of_memory(void)
{
	cli_error("out of memory");
	return EXIT_SYSTEM;
}

static double *no_values(size_t n)
{
	double *v = malloc((n ? n : 1) * sizeof *v);

	for (size_t i = 0; v && i < n; i++)
		v[i] = NAN;
	return v;
}

/* ---- slots ---- */

/* Round lengths, so that slots begin where a clock has a mark. */
static uint64_t slot_length(uint64_t span_ms, uint64_t step_s)
{
	static const uint64_t seconds[] = { 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600,
		43200, 86400 };
	uint64_t least = span_ms / 1000 / REPORT_SLOTS + (span_ms / 1000 % REPORT_SLOTS != 0);

	least = least > step_s ? least : step_s;
	for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
		if (seconds[i] >= least && seconds[i] % (step_s ? step_s : 1) == 0)
			return seconds[i] * 1000;
	return (least + 86399) / 86400 * 86400 * 1000;
}

static void lay_slots(struct report *r)
{
	r->slot_ms = slot_length(r->until_ms - r->since_ms, r->step_s);
	r->origin_ms = r->since_ms - r->since_ms % r->slot_ms;
	r->slots = (size_t)((r->until_ms - r->origin_ms + r->slot_ms - 1) / r->slot_ms);
}

/* What a row of `step_s` tells of. */
static void stretch_of(const struct value *row, uint64_t step_s, uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t ts = value_u64(row, "ts_ms", 0), since = value_u64(row, "interval_ms", 0);

	*ret_from = step_s > 1 ? ts : ts - (since ? since : 1000);
	*ret_to = step_s > 1 ? ts + step_s * 1000 : ts;
}

/* The part of slot i that [from, to) covers, in milliseconds. */
static double covered(const struct report *r, size_t i, uint64_t from, uint64_t to)
{
	uint64_t begin = r->origin_ms + i * r->slot_ms, end = begin + r->slot_ms;

	from = from > begin ? from : begin;
	to = to < end ? to : end;
	return to > from ? (double)(to - from) : 0;
}

static bool is_too_late(const struct report *r, uint64_t from)
{
	return r->known_ms && from >= r->known_ms;
}

static size_t slot_of(const struct report *r, uint64_t ms)
{
	return ms <= r->origin_ms ? 0 : (size_t)((ms - r->origin_ms) / r->slot_ms);
}

static void put(double *slot, double *weight, double value, double part, int how)
{
	if (isnan(*slot))
		*slot = 0;
	if (how == MOST) {
		*slot = value > *slot ? value : *slot;
		return;
	}
	*slot += value * part;
	*weight += part;
}

/* One number of all rows. */
static void put_number(const struct report *r, const struct value *rows, const struct number *number, double *of, double *weight)
{
	memset(weight, 0, r->slots * sizeof *weight);
	for (size_t k = 0; k < value_items(rows); k++) {
		const struct value *row = value_item(rows, k);
		uint64_t from, to, n, interval = value_u64(row, "interval_ms", 0);
		double value;

		if (!value_number(value_at(row, number->name), &n) || (number->how == RATE && !interval))
			continue;
		stretch_of(row, r->step_s, &from, &to);
		if (is_too_late(r, from))
			continue;
		value = number->how == RATE ? (double)n * 1000 / (double)interval : (double)n;
		for (size_t i = slot_of(r, from); i < r->slots && covered(r, i, from, to) > 0; i++)
			put(&of[i], &weight[i], value, covered(r, i, from, to), number->how);
	}
	for (size_t i = 0; i < r->slots; i++)
		if (number->how != MOST)
			of[i] = weight[i] > 0 ? of[i] / weight[i] : NAN;
}

static int put_rows(const struct report *r, struct report_track *t, const struct value *rows, const struct number *numbers,
	size_t first,
	size_t end)
{
	double *weight = no_values(r->slots);
	int e = weight ? 0 : -ENOMEM;

	for (size_t k = first; k < end && !e; k++) {
		t->of[k] = no_values(r->slots);
		if (t->of[k])
			put_number(r, rows, &numbers[k], t->of[k], weight);
		else
			e = -ENOMEM;
	}
	free(weight);
	return e;
}

/* As many names from `first` on as one question takes; the first that is not among them. */
static size_t put_names(const struct number *numbers, size_t first, size_t n, char text[static NAMES_BYTES])
{
	size_t used = 0, k = first;

	for (; k < n && used + strlen(numbers[k].name) + 2 <= NAMES_BYTES; k++)
		used += (size_t)snprintf(text + used, NAMES_BYTES - used, "%s%s", k == first ? "" : ",", numbers[k].name);
	return k;
}

/* ---- latencies ---- */

struct causes {
	const struct report *r;
	struct report_track *t;
	uint64_t from, to;
	int e;
};

static struct report_latency *latency_of(struct causes *c, const char *cause)
{
	struct report_track *t = c->t;
	struct report_latency *l = t->latencies;

	while (l < t->latencies + t->n_latencies && strcmp(l->cause, cause))
		l++;
	if (l < t->latencies + t->n_latencies || t->n_latencies == REPORT_CAUSES)
		return l < t->latencies + t->n_latencies ? l : NULL;
	snprintf(l->cause, sizeof l->cause, "%s", cause);
	l->p50_ns = no_values(c->r->slots);
	l->p99_ns = no_values(c->r->slots);
	t->n_latencies++;
	if (l->p50_ns && l->p99_ns)
		return l;
	c->e = -ENOMEM;
	return NULL;
}

static void put_cause(const char *cause, const struct value *v, void *userdata)
{
	struct causes *c = userdata;
	struct report_latency *l = value_u64(v, "count", 0) && !c->e ? latency_of(c, cause) : NULL;
	double p50 = (double)value_u64(v, "p50_ns", 0), p99 = (double)value_u64(v, "p99_ns", 0);

	if (!l)
		return;
	l->count += value_u64(v, "count", 0);
	l->sum_ns += value_u64(v, "count", 0) * value_u64(v, "mean_ns", 0);
	for (size_t i = slot_of(c->r, c->from); i < c->r->slots && covered(c->r, i, c->from, c->to) > 0; i++) {
		l->p50_ns[i] = isnan(l->p50_ns[i]) || p50 > l->p50_ns[i] ? p50 : l->p50_ns[i];
		l->p99_ns[i] = isnan(l->p99_ns[i]) || p99 > l->p99_ns[i] ? p99 : l->p99_ns[i];
	}
}

static int put_latencies(const struct report *r, struct report_track *t, const struct value *rows, uint64_t step_s)
{
	struct causes c = { .r = r, .t = t };

	for (size_t i = 0; i < value_items(rows); i++) {
		const struct value *row = value_item(rows, i);

		stretch_of(row, step_s, &c.from, &c.to);
		if (is_too_late(r, c.from))
			continue;
		value_each(value_at(row, "faults"), put_cause, &c);
	}
	return c.e;
}

/* The finest rows that are no shorter than a slot: their percentiles are those of all faults in it. */
static const char *latency_step(const struct report *r)
{
	uint64_t slot_s = r->slot_ms / 1000;

	return slot_s <= 1 ? "1" : slot_s <= 10 ? "10" : slot_s <= 60 ? "60" : "3600";
}

/* ---- asking ---- */

static int ask_numbers(struct cli *c, const struct report *r, struct report_track *t)
{
	char step[24], names[NAMES_BYTES];
	struct history_span span = { r->since_ms, r->until_ms, step };
	bool latencies = strtoull(latency_step(r), NULL, 10) == r->step_s;
	struct value *reply;
	int e;

	snprintf(step, sizeof step, "%" PRIu64, r->step_s);
	for (size_t first = 0, end; first < VM_NUMBERS; first = end) {
		bool with = latencies && !first;

		end = put_names(vm_numbers, first, VM_NUMBERS, names);
		e = history_read(c, t->name, &span, names, with, &reply);
		if (e)
			return e;
		e = put_rows(r, t, value_at(reply, "rows"), vm_numbers, first, end);
		if (!e && with)
			e = put_latencies(r, t, value_at(reply, "rows"), r->step_s);
		value_close(reply);
		if (e)
			return out_of_memory();
	}
	if (latencies)
		return EXIT_OK;
	span.step = latency_step(r);
	e = history_read(c, t->name, &span, "leased_bytes", true, &reply);
	if (e)
		return e;
	e = put_latencies(r, t, value_at(reply, "rows"), strtoull(span.step, NULL, 10));
	value_close(reply);
	return e ? out_of_memory() : EXIT_OK;
}

/* All parts as one; what cannot be had is left out. */
static void ask_plans(struct cli *c, const struct report *r, struct report_track *t)
{
	char since[24], until[24], why[320];
	const char *pairs[][2] = { { "vm", t->name }, { "#since", since }, { "#until", until }, { NULL } };
	uint64_t next = r->since_ms;

	snprintf(until, sizeof until, "%" PRIu64, r->until_ms);
	while (next) {
		struct value *reply;

		snprintf(since, sizeof since, "%" PRIu64, next);
		if (cli_try(c, "org.memctl.Plans", pairs, &reply, why))
			return;
		/* what does not go on would be asked for ever */
		next = value_u64(reply, "next", 0) > next ? value_u64(reply, "next", 0) : 0;
		if (!t->plans) {
			t->plans = reply;
			continue;
		}
		value_extend(t->plans, "plans", reply);
		value_close(reply);
	}
}

static void ask_explanation(struct cli *c, struct report_track *t)
{
	const char *pairs[][2] = { { "vm", t->name }, { NULL } };
	char why[320];

	value_close(t->explanation);
	t->explanation = NULL;
	if (t->here && cli_try(c, "org.memctl.Explain", pairs, &t->explanation, why))
		t->explanation = NULL;
}

/* Where the last row ends; 0: there is none. */
static uint64_t end_of(const struct value *rows, uint64_t step_s)
{
	uint64_t from, to = 0;

	if (value_items(rows))
		stretch_of(value_item(rows, value_items(rows) - 1), step_s, &from, &to);
	return to;
}

/* What it answers to the first question says how long a slot is. */
static int ask_host(struct cli *c, struct report *r, const struct history_span *asked)
{
	struct history_span span = *asked;
	char step[24], names[NAMES_BYTES];
	struct value *reply;
	int e = 0;

	for (size_t first = 0, end; !e && first < HOST_NUMBERS; first = end) {
		end = put_names(host_numbers, first, HOST_NUMBERS, names);
		e = history_read(c, NULL, &span, names, false, &reply);
		if (e)
			return e;
		if (!first) {
			r->step_s = value_u64(reply, "step", 1);
			lay_slots(r);
			r->known_ms = end_of(value_at(reply, "rows"), r->step_s);
			snprintf(step, sizeof step, "%" PRIu64, r->step_s);
			span.step = step;
		}
		e = put_rows(r, &r->host, value_at(reply, "rows"), host_numbers, first, end);
		value_close(reply);
	}
	return e ? out_of_memory() : EXIT_OK;
}

/* ---- which VMs ---- */

static bool has_vm(const struct report *r, const char *name)
{
	for (size_t i = 0; i < r->n_vms; i++)
		if (!strcmp(r->vms[i].name, name))
			return true;
	return false;
}

static int add_vm(struct report *r, const char *name, bool here)
{
	if (has_vm(r, name))
		return 0;
	if (r->n_vms == REPORT_VMS) {
		r->vms_left++;
		return 0;
	}
	r->vms[r->n_vms] = (struct report_track){ .name = strdup(name), .here = here };
	return r->vms[r->n_vms++].name ? 0 : -ENOMEM;
}

/* The one that has most comes first. */
static int by_charge(const void *a, const void *b)
{
	uint64_t x = value_u64(*(const struct value *const *)a, "charged_bytes", 0),
		y = value_u64(*(const struct value *const *)b, "charged_bytes", 0);

	return x < y ? 1 : x > y ? -1 : strcmp(value_str(*(const struct value *const *)a, "name"),
		value_str(*(const struct value *const *)b, "name"));
}

static int add_here(struct report *r, const struct value *vms)
{
	size_t n = value_items(vms);
	const struct value **sorted = calloc(n + 1, sizeof *sorted);
	int e = sorted ? 0 : -ENOMEM;

	for (size_t i = 0; !e && i < n; i++)
		sorted[i] = value_item(vms, i);
	if (!e)
		qsort(sorted, n, sizeof *sorted, by_charge);
	for (size_t i = 0; !e && i < n; i++)
		e = add_vm(r, value_str(sorted[i], "name"), true);
	free(sorted);
	return e;
}

/* Those that are there now, then those that are gone, the last seen first; with --vm that one. */
static int find_vms(struct cli *c, struct report *r)
{
	char since[24], until[24], why[320];
	const char *pairs[][2] = { { "#since", since }, { "#until", until }, { NULL } };
	struct value *here, *seen = NULL;
	int e = cli_ask(c, "org.memctl.ListVms", NULL, &here);

	if (e)
		return e;
	r->vms = calloc(REPORT_VMS, sizeof *r->vms);
	snprintf(since, sizeof since, "%" PRIu64, r->since_ms);
	snprintf(until, sizeof until, "%" PRIu64, r->until_ms);
	if (c->vm) {
		value_keep((struct value *)here, "vms", "name", c->vm);
		e = r->vms ? add_vm(r, c->vm, value_items(value_at(here, "vms")) > 0) : -ENOMEM;
	} else {
		e = r->vms ? add_here(r, value_at(here, "vms")) : -ENOMEM;
		/* a memctld that does not know the question has told all that it can */
		if (!e && !cli_try(c, "org.memctl.HistoryVms", pairs, &seen, why))
			for (size_t i = 0; !e && i < value_items(value_at(seen, "vms")); i++)
				e = add_vm(r, value_str(value_item(value_at(seen, "vms"), i), "vm"), false);
	}
	value_close(seen);
	value_close(here);
	return e ? out_of_memory() : EXIT_OK;
}

int report_gather(struct cli *c, struct report *r)
{
	static const struct timespec pause = { .tv_nsec = 50000000 };
	struct progress p = progress_begin(c, "asking for the history", PROGRESS_COUNT);
	struct history_span span;
	char since[24];
	int e;

	*r = (struct report){ 0 };
	e = history_span_of(c, &span);
	if (e)
		return e;
	r->since_ms = span.since_ms;
	r->until_ms = span.until_ms ? span.until_ms : (uint64_t)time(NULL) * 1000;
	span.until_ms = r->until_ms += r->until_ms == r->since_ms;
	e = ask_host(c, r, &span);
	if (!e)
		e = find_vms(c, r);
	/* the first question makes memctld plan: what the second one gets is of now */
	for (size_t i = 0; !e && i < r->n_vms; i++)
		ask_explanation(c, &r->vms[i]);
	nanosleep(&pause, NULL);
	for (size_t i = 0; !e && i < r->n_vms; i++) {
		progress_show(&p, i, r->n_vms);
		e = ask_numbers(c, r, &r->vms[i]);
		ask_plans(c, r, &r->vms[i]);
		ask_explanation(c, &r->vms[i]);
	}
	progress_end(&p);
	snprintf(since, sizeof since, "%" PRIu64, r->since_ms);
	if (!e)
		e = events_read(c, since, c->vm, NULL, &r->events);
	if (!e)
		e = cli_ask(c, "org.memctl.ShowConfig", NULL, &r->config);
	if (!e)
		e = cli_ask(c, "org.memctl.Status", NULL, &r->status);
	return e;
}

static void track_fini(struct report_track *t)
{
	for (size_t i = 0; i < VM_NUMBERS; i++)
		free(t->of[i]);
	for (size_t i = 0; i < t->n_latencies; i++) {
		free(t->latencies[i].p50_ns);
		free(t->latencies[i].p99_ns);
	}
	value_close(t->explanation);
	value_close(t->plans);
	free(t->name);
}

void report_fini(struct report *r)
{
	track_fini(&r->host);
	for (size_t i = 0; i < r->n_vms; i++)
		track_fini(&r->vms[i]);
	free(r->vms);
	value_close(r->events);
	value_close(r->config);
	value_close(r->status);
	*r = (struct report){ 0 };
}

bool report_range(const double *values, size_t n, struct report_range *ret)
{
	bool any = false;

	for (size_t i = 0; values && i < n; i++) {
		if (isnan(values[i]))
			continue;
		if (!any)
			*ret = (struct report_range){ values[i], values[i], values[i], values[i] };
		any = true;
		ret->last = values[i];
		ret->least = values[i] < ret->least ? values[i] : ret->least;
		ret->most = values[i] > ret->most ? values[i] : ret->most;
	}
	return any;
}
