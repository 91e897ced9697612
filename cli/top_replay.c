/* How it was: samples out of memctld's history, a window of them at a time.
 *
 * memctld keeps seconds for days, minutes for longer, hours for years (levels).  A window is up to WINDOW steps of one level, of the host and of
 * all VMs that were there; who walks out of it gets the next one, of the finest level that has anything there, and steps over times when memctld
 * was away.  Rows of one time have one ts: those of the host say which times there are. */
#include "cli/history.h"
#include "cli/top.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WINDOW	   240u
#define NAMES_MOST 250u	/* bytes of a question's numbers */

static const unsigned steps_s[] = { 1, 10, 60, 3600 };
#define STEPS (sizeof steps_s / sizeof *steps_s)

struct top_replay {
	struct cli *c;
	const char *vm;
	unsigned step_s;		/* wanted; 0: the finest */
	struct top_sample *samples;	/* the window, in the order of time */
	size_t n, at;
};

/* A part of the numbers, as a question has them: what it takes is limited.  *at: the first that it has, and then the one behind it. */
struct names {
	const char *(*name)(unsigned i);
	unsigned n, at;
};

static const char *vm_number_name(unsigned i)
{
	return top_numbers[i].name;
}

static const char *host_number_name(unsigned i)
{
	return i < HOST_NUMBERS ? top_host_numbers[i] : "state_most";
}

static bool next_names(struct names *names, char text[static NAMES_MOST + 1])
{
	size_t used = 0;

	for (; names->at < names->n; names->at++) {
		const char *name = names->name(names->at);

		if (used + 1 + strlen(name) > NAMES_MOST)
			break;
		used += (size_t)snprintf(text + used, NAMES_MOST + 1 - used, "%s%s", used ? "," : "", name);
	}
	return used;
}

struct top_replay *top_replay_new(struct cli *c, const char *vm)
{
	struct top_replay *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->c = c;
	r->vm = vm;
	return r;
}

static void forget(struct top_sample *samples, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(samples[i].vms);
	free(samples);
}

void top_replay_free(struct top_replay *r)
{
	if (!r)
		return;
	forget(r->samples, r->n);
	free(r);
}

void top_replay_step(struct top_replay *r, unsigned step_s)
{
	r->step_s = step_s;
}

const struct top_sample *top_replay_at(const struct top_replay *r)
{
	return r->at < r->n ? &r->samples[r->at] : NULL;
}

/* ---- a window ---- */

struct window {
	struct top_sample *samples;
	size_t n;
};

static int out_of_memory(char why[static 320])
{
	snprintf(why, 320, "out of memory");
	return EXIT_SYSTEM;
}

/* Those numbers that the row has; it is a part of all. */
static void take_host_row(const struct value *row, struct top_sample *s)
{
	uint64_t n;

	if (value_number(value_at(row, "state_most"), &n))
		snprintf(s->state, sizeof s->state, "%s", history_state(n));
	for (unsigned i = 0; i < HOST_NUMBERS; i++)
		if (value_number(value_at(row, top_host_numbers[i]), &n))
			s->host[i] = (double)n;
	/* of before there were these numbers: rows have 0 there */
	if (s->host[HOST_memory_bytes] == 0)
		for (unsigned i = HOST_memory_bytes; i <= HOST_overcommit_15m_permille; i++)
			s->host[i] = NAN;
}

static void take_vm_row(const struct value *row, struct top_vm *vm)
{
	double seconds = (double)value_u64(row, "interval_ms", 0) / 1e3;

	for (unsigned i = 0; i < TOP_NUMBERS; i++) {
		uint64_t n;

		if (value_number(value_at(row, top_numbers[i].name), &n))
			vm->n[i] = !top_numbers[i].counter ? (double)n : seconds > 0 ? (double)n / seconds : NAN;
	}
}

static struct top_vm *vm_of(struct top_sample *s, const char *name)
{
	struct top_vm *vm = top_find(s, name);

	if (!vm) {
		vm = &s->vms[s->n_vms++];
		snprintf(vm->name, sizeof vm->name, "%s", name);
		for (unsigned i = 0; i < TOP_NUMBERS; i++)
			vm->n[i] = NAN;
	}
	return vm;
}

/* The times that there are. */
static int make_samples(const struct value *reply, struct window *w, char why[static 320])
{
	const struct value *rows = value_at(reply, "rows");

	w->samples = calloc(value_items(rows) + 1, sizeof *w->samples);
	if (!w->samples)
		return out_of_memory(why);
	for (; w->n < value_items(rows); w->n++) {
		const struct value *row = value_item(rows, w->n);
		struct top_sample *s = &w->samples[w->n];

		*s = (struct top_sample){ .recorded = true, .step_s = (unsigned)value_u64(reply, "step", 1), .ts_ms = value_u64(row, "ts_ms", 0),
			.interval_s = (double)value_u64(row, "interval_ms", 0) / 1e3, .state = "-" };
		for (unsigned i = 0; i < HOST_NUMBERS; i++)
			s->host[i] = NAN;
	}
	return EXIT_OK;
}

/* Rows and samples are both in the order of time; a row whose time is none of theirs came after the first question. */
static void take_rows(const struct value *rows, const char *vm, struct window *w)
{
	size_t at = 0;

	for (size_t i = 0; i < value_items(rows); i++) {
		const struct value *row = value_item(rows, i);
		uint64_t ts = value_u64(row, "ts_ms", 0);

		while (at < w->n && w->samples[at].ts_ms < ts)
			at++;
		if (at == w->n || w->samples[at].ts_ms != ts)
			continue;
		if (vm)
			take_vm_row(row, vm_of(&w->samples[at], vm));
		else
			take_host_row(row, &w->samples[at]);
	}
}

/* Of a VM, or of the host (NULL), which comes first. */
static int ask(struct top_replay *r, const struct history_span *span, const char *vm, struct window *w, char why[static 320])
{
	struct names names = { .name = vm ? vm_number_name : host_number_name, .n = vm ? TOP_NUMBERS : HOST_NUMBERS + 1u };
	char text[NAMES_MOST + 1];
	int code = EXIT_OK;

	while (!code && next_names(&names, text)) {
		struct value *reply;

		code = history_ask(r->c, vm, span, text, false, &reply, why);
		if (code)
			break;
		if (!w->samples)
			code = make_samples(reply, w, why);
		if (!code)
			take_rows(value_at(reply, "rows"), vm, w);
		value_close(reply);
	}
	/* it came and went between two samples */
	return vm && code == EXIT_NOT_FOUND ? EXIT_OK : code;
}

/* Those of which there is history in that time; one that came just now is known to memctld itself only. */
static int ask_who(struct top_replay *r, const struct history_span *span, struct value **ret, char why[static 320])
{
	char since[24], until[24];
	const char *pairs[][2] = { { "#since", since }, { "#until", until }, { NULL } };
	struct value *now;
	int code;

	snprintf(since, sizeof since, "%" PRIu64, span->since_ms);
	snprintf(until, sizeof until, "%" PRIu64, span->until_ms);
	code = cli_try(r->c, "org.memctl.HistoryVms", pairs, ret, why);
	if (code)
		return code;
	code = cli_try(r->c, "org.memctl.ListVms", NULL, &now, why);
	for (size_t i = 0; !code && i < value_items(value_at(now, "vms")); i++) {
		struct value *vm = (struct value *)value_item(value_at(now, "vms"), i);

		value_set_str(vm, "vm", value_str(vm, "name"));
	}
	if (!code) {
		if (value_extend(*ret, "vms", now) < 0)
			code = out_of_memory(why);
		value_close(now);
	}
	if (code)
		value_close(*ret);
	return code;
}

static bool is_double(const struct value *vms, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (!strcmp(value_str(value_item(vms, k), "vm"), value_str(value_item(vms, i), "vm")))
			return true;
	return false;
}

static int ask_vms(struct top_replay *r, const struct history_span *span, struct window *w, char why[static 320])
{
	struct value *who;
	const struct value *vms;
	int code = ask_who(r, span, &who, why);

	if (code)
		return code;
	vms = value_at(who, "vms");
	for (size_t i = 0; !code && i < w->n; i++) {
		w->samples[i].vms = calloc(value_items(vms) + 1, sizeof *w->samples[i].vms);
		if (!w->samples[i].vms)
			code = out_of_memory(why);
	}
	for (size_t i = 0; !code && i < value_items(vms); i++) {
		const char *name = value_str(value_item(vms, i), "vm");

		if (is_double(vms, i) || (r->vm && strcmp(r->vm, name)))
			continue;
		code = ask(r, span, name, w, why);
	}
	value_close(who);
	return code;
}

/* Where the time of a sample ends; one of the finest level has none. */
static uint64_t end_of(const struct top_sample *s)
{
	return s->ts_ms + (s->step_s > 1 ? s->step_s * 1000 : 1);
}

/* Of [since, until), by steps of so many seconds.  A window without samples is none: all is as it was. */
static int load(struct top_replay *r, uint64_t since_ms, uint64_t until_ms, unsigned step_s, bool *ret_some, char why[static 320])
{
	char step[16];
	struct history_span span = { .since_ms = since_ms, .until_ms = until_ms, .step = step };
	struct window w = { 0 };
	int code;

	snprintf(step, sizeof step, "%u", step_s);
	*ret_some = false;
	code = ask(r, &span, NULL, &w, why);
	/* whole steps: one that reaches into what is shown was told of */
	if (w.n && r->n && since_ms > r->samples[r->at].ts_ms && w.samples[0].ts_ms < since_ms)
		memmove(w.samples, w.samples + 1, --w.n * sizeof *w.samples);
	if (w.n && end_of(&w.samples[w.n - 1]) > until_ms && r->n && until_ms <= r->samples[r->at].ts_ms)
		w.n--;
	if (!code && w.n)
		code = ask_vms(r, &span, &w, why);
	if (code || !w.n) {
		forget(w.samples, w.n);
		if (code && code != EXIT_NOT_FOUND)
			cli_hang_up(r->c);
		return code;
	}
	forget(r->samples, r->n);
	r->samples = w.samples;
	r->n = w.n;
	*ret_some = true;
	return EXIT_OK;
}

static bool is_wanted(const struct top_replay *r, unsigned step_s)
{
	return !r->step_s || r->step_s == step_s;
}

/* The window of this level that begins at `ts_ms`, or after it. */
static int load_from(struct top_replay *r, uint64_t ts_ms, unsigned step_s, bool *ret_some, char why[static 320])
{
	int code = load(r, ts_ms, ts_ms + (uint64_t)WINDOW * step_s * 1000, step_s, ret_some, why);

	if (*ret_some)
		r->at = 0;
	return code;
}

/* The one that ends before `ts_ms`. */
static int load_until(struct top_replay *r, uint64_t ts_ms, unsigned step_s, bool *ret_some, char why[static 320])
{
	uint64_t span = (uint64_t)WINDOW * step_s * 1000;
	int code = load(r, ts_ms > span ? ts_ms - span : 0, ts_ms, step_s, ret_some, why);

	if (*ret_some)
		r->at = r->n - 1;
	return code;
}

typedef int load_fn(struct top_replay *r, uint64_t ts_ms, unsigned step_s, bool *ret_some, char why[static 320]);

/* Of the finest level that has anything in its window.  A coarse window reaches far over a time without rows: where it finds some, a finer level
 * may have them too. */
static int load_finest(struct top_replay *r, load_fn *fn, uint64_t ts_ms, bool *ret_some, char why[static 320])
{
	uint64_t found;
	bool finer = false;
	unsigned i = 0;
	int code = EXIT_OK;

	*ret_some = false;
	for (; i < STEPS && !*ret_some && !code; i++)
		if (is_wanted(r, steps_s[i]))
			code = fn(r, ts_ms, steps_s[i], ret_some, why);
	if (code || !*ret_some || i == 1)
		return code;
	found = fn == load_from ? r->samples[r->at].ts_ms : end_of(&r->samples[r->at]);
	if (fn == load_from ? found < ts_ms : found > ts_ms)
		found = ts_ms;
	for (unsigned k = 0; k + 1 < i && !finer && !code; k++)
		if (is_wanted(r, steps_s[k]))
			code = fn(r, found, steps_s[k], &finer, why);
	return code;
}

/* The VM that is asked for, at some time of the window. */
static bool is_there(const struct top_replay *r)
{
	for (size_t i = 0; r->vm && i < r->n; i++)
		if (top_find(&r->samples[i], r->vm))
			return true;
	return !r->vm;
}

int top_replay_seek(struct top_replay *r, uint64_t ts_ms, char why[static 320])
{
	bool some;
	int code = load_finest(r, load_from, ts_ms, &some, why);

	if (!code && !some)
		code = load_finest(r, load_until, ts_ms, &some, why);
	if (code || (some && is_there(r)))
		return code;
	if (some)
		snprintf(why, 320, "there was no VM \"%s\" at that time", r->vm);
	else
		snprintf(why, 320, "nothing was recorded at that time");
	return EXIT_NOT_FOUND;
}

int top_replay_move(struct top_replay *r, long samples, bool *ret_end, char why[static 320])
{
	int code = EXIT_OK;

	*ret_end = false;
	while (samples && !code && !*ret_end && r->n) {
		bool some = true;

		if (samples > 0 && r->at + 1 < r->n) {
			r->at++;
		} else if (samples < 0 && r->at > 0) {
			r->at--;
		} else if (samples > 0) {
			code = load_finest(r, load_from, end_of(&r->samples[r->at]), &some, why);
		} else {
			code = load_finest(r, load_until, r->samples[r->at].ts_ms, &some, why);
		}
		*ret_end = !code && !some;
		samples += samples > 0 ? -1 : 1;
	}
	return code;
}
