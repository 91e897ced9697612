/* History, HistoryVms, Plans: rows of the metrics database, read and written down by the history's own thread (record/history.h);
 * this thread only asks and answers. */
#include "ops_history.h"
#include "catalogue.h"
#include "ops_client.h"
#include "ops_dispatch.h"

#include "base/clock.h"
#include "base/list.h"
#include "plan_log.h"
#include "policy/state.h"
#include "proto/writer.h"
#include "record/history.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_DEFAULT 1000u
#define ROWS_MOST    10000u
#define BYTES_MOST   (1u << 20)	/* of an answer */
#define ASKED_MOST   4u		/* questions of a user at once: the reader's places are for all */

struct asking {
	struct list link;		/* of `askings` */
	struct history_question q;
	uid_t uid;
	struct post post;
	struct daemon *daemon;
	struct call *call;
	const struct record_number *numbers;
	size_t n_numbers;
	struct history_column *columns;
	size_t room;
	struct writer rows;
	size_t bytes_most;
};

/* All that have not been answered; the control thread's. */
static struct list askings = LIST_INIT(askings);

static unsigned asked_by(uid_t uid)
{
	unsigned n = 0;

	list_foreach(l, &askings)
		n += container_of(l, struct asking, link)->uid == uid;
	return n;
}

static void asking_free(struct asking *a)
{
	list_remove(&a->link);
	writer_fini(&a->rows);
	free(a->columns);
	free(a);
}

/* ---- on the history's thread ---- */

/* As ShowVm has them. */
static void write_latencies(struct writer *o, const struct history_row *row)
{
	writer_object(o, "faults");
	for (size_t i = 0; i < row->n_latencies; i++) {
		const struct history_latency *l = &row->latencies[i];

		writer_object(o, l->cause);
		writer_u64(o, "count", l->count);
		writer_u64(o, "p50_ns", l->p50_ns);
		writer_u64(o, "p99_ns", l->p99_ns);
		writer_u64(o, "mean_ns", l->count ? l->sum_ns / l->count : 0);
		writer_end(o);
	}
	writer_end(o);
}

static bool take_row(struct history_question *q, const struct history_row *row)
{
	struct asking *a = container_of(q, struct asking, q);
	struct writer *o = &a->rows;

	writer_object(o, NULL);
	writer_u64(o, "ts_ms", row->ts_ms);
	writer_u64(o, "interval_ms", row->interval_ms);
	writer_u64(o, "samples", row->samples);
	for (size_t i = 0; i < q->n_columns; i++) {
		const char *name = a->numbers[q->columns[i].number].name;
		char most[80];

		if (q->columns[i].most) {
			snprintf(most, sizeof most, "%s_most", name);
			name = most;
		}
		if (row->values[i] == HISTORY_NONE)
			writer_null(o, name);
		else
			writer_u64(o, name, row->values[i]);
	}
	if (q->latencies)
		write_latencies(o, row);
	writer_end(o);
	return o->length < a->bytes_most;
}

static bool take_vm(struct history_question *q, const struct history_vm *vm)
{
	struct asking *a = container_of(q, struct asking, q);

	writer_object(&a->rows, NULL);
	writer_str(&a->rows, "vm", vm->name);
	writer_u64(&a->rows, "first_ms", vm->first_ms);
	writer_u64(&a->rows, "last_ms", vm->last_ms);
	writer_end(&a->rows);
	return a->rows.length < a->bytes_most;
}

/* ---- plans ---- */

/* What a decision is: plans that differ in nothing of this are told as one. */
static const char *const decides[] = { "cause", "technique", "reason", "next_state", NULL };

/* A number that names something: of a version that had more of them, it is unknown. */
static void write_word(struct writer *o, const char *name, const char *const *words, size_t n, uint64_t value)
{
	writer_str(o, name, value < n ? words[value] : "unknown");
}

static void write_plan_number(struct writer *o, const char *name, uint64_t value)
{
	if (!strcmp(name, "cause"))
		write_word(o, name, policy_cause_names, POLICY_CAUSES, value);
	else if (!strcmp(name, "technique"))
		write_word(o, name, policy_technique_names, POLICY_TECHNIQUES, value);
	else if (!strcmp(name, "reason")) {
		write_word(o, name, policy_reason_names, POLICY_REASON_COUNT, value);
		write_word(o, "why", policy_reason_sentences, POLICY_REASON_COUNT, value);
	} else if (value >= INT64_MAX)	/* none: SQLite's numbers end there */
		writer_null(o, name);
	else
		writer_u64(o, name, value);
}

static bool take_plans(struct history_question *q, const struct history_plans *plans)
{
	struct asking *a = container_of(q, struct asking, q);
	struct writer *o = &a->rows;

	writer_object(o, NULL);
	writer_u64(o, "from_ms", plans->from_ms);
	writer_u64(o, "last_ms", plans->last_ms);
	writer_u64(o, "plans", plans->count);
	for (size_t i = 0; i < plan_log_number_count; i++)
		if (!strcmp(plan_log_numbers[i].name, "next_state"))
			write_word(o, "state", host_state_names, HOST_STATES, plans->host_values[i]);
	for (size_t i = 0; i < plan_log_vm_number_count; i++)
		write_plan_number(o, plan_log_vm_numbers[i].name, plans->values[i]);
	writer_end(o);
	return o->length < a->bytes_most;
}

/* ---- the answer ---- */

static void reply(struct asking *a)
{
	struct history_question *q = &a->q;
	char *rows = writer_take(&a->rows, NULL);
	struct op_history_out out = { .step = q->step_ms / 1000, .next = q->next_ms, .rows = rows };
	struct op_history_vms_out vms = { .vms = rows };
	struct op_plans_out plans = { .next = q->next_ms, .plans = rows };

	if (!rows)
		refuse(a->call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	else if (q->seen_vm)
		call_reply(a->call, &ops[OP_history_vms], &vms, NULL, 0);
	else if (q->plans)
		call_reply(a->call, &ops[OP_plans], &plans, NULL, 0);
	else
		call_reply(a->call, &ops[OP_history], &out, NULL, 0);
	free(rows);
}

static void conclude(struct post *p)
{
	struct asking *a = container_of(p, struct asking, post);
	struct history_question *q = &a->q;

	writer_end(&a->rows);
	if (q->error) {
		refuse(a->call, WIRE_ERROR_System, "The history cannot be read: %s.",
			q->error == -EIO ? q->text : strerror(-q->error));
	} else if (q->vm[0] && !q->seen && !client_find(a->daemon, q->vm)) {
		refuse_vm(a->call, WIRE_ERROR_NoSuchVm, q->vm);
	} else {
		reply(a);
	}
	asking_free(a);
}

static void answered(struct history_question *q)
{
	struct asking *a = container_of(q, struct asking, q);

	loop_post(a->daemon->loop, &a->post, conclude);
}

void ops_history_end(void)
{
	while (!list_empty(&askings))
		conclude(&container_of(askings.next, struct asking, link)->post);
}

/* ---- which numbers ---- */

static int add_column(struct asking *a, size_t number, bool most)
{
	if (a->q.n_columns == a->room) {
		struct history_column *more = realloc(a->columns, (2 * a->room + 32) * sizeof *more);

		if (!more)
			return -ENOMEM;
		a->columns = more;
		a->room = 2 * a->room + 32;
	}
	a->columns[a->q.n_columns++] = (struct history_column){ number, most };
	return 0;
}

static bool is_number(const struct record_number *n, const char *name, size_t length, bool *ret_most)
{
	size_t own = strlen(n->name);

	*ret_most = false;
	if (length < own || strncmp(n->name, name, own))
		return false;
	*ret_most = length == own + 5 && !strncmp(name + own, "_most", 5) && !number_is_counter(n);
	return length == own || *ret_most;
}

static int find_column(struct asking *a, const char *name, size_t length)
{
	bool most;

	/* a name of its own comes before one with _most */
	for (int with = 0; with < 2; with++)
		for (size_t i = 0; i < a->n_numbers; i++)
			if (is_number(&a->numbers[i], name, length, &most) && most == with)
				return add_column(a, i, most);
	return -ENOENT;
}

/* -ENOENT: *ret_wrong is where there is a name that is none. */
static int choose_columns(struct asking *a, const char *names, const char **ret_wrong)
{
	int r = 0;

	for (size_t i = 0; !*names && i < a->n_numbers && !r; i++) {
		r = add_column(a, i, false);
		if (!r && !number_is_counter(&a->numbers[i]))
			r = add_column(a, i, true);
	}
	while (*names && !r) {
		size_t length = strcspn(names, ",");

		r = find_column(a, names, length);
		*ret_wrong = names;
		names += length + (names[length] == ',');
	}
	return r;
}

/* ---- the calls ---- */

/* Whether this may be asked now; otherwise it was refused. */
static bool may_ask(struct daemon *d, struct call *call, const char *vm, uint64_t since_ms, uint64_t until_ms)
{
	if (!d->history)
		refuse(call, WIRE_ERROR_BadState, "memctld keeps no history: its setting metrics is none.");
	else if (vm && !is_name(vm))
		refuse_field(call, WIRE_ERROR_InvalidName, "vm", NULL);
	else if (since_ms >= until_ms)
		refuse_field(call, WIRE_ERROR_InvalidValue, "since", "The time that is asked for ends before it begins.");
	else if (asked_by(session_peer(call->session)->uid) >= ASKED_MOST)
		refuse(call, WIRE_ERROR_BadState, "This user asks for history %u times at once already: ask again when one is answered.",
			ASKED_MOST);
	else
		return true;
	return false;
}

static uint64_t until_of(uint64_t until_ms)
{
	return until_ms ? until_ms : wall_ns() / NS_PER_MS + 1;
}

static bool is_step(struct call *call, uint64_t seconds)
{
	unsigned level = 0;

	/* compared as seconds: a product might wrap */
	while (level < LEVELS && seconds != levels[level].step_ms / 1000)
		level++;
	if (!seconds || level < LEVELS)
		return true;
	refuse_field(call, WIRE_ERROR_InvalidValue, "step", "Steps are 1, 10, 60 and 3600 seconds, and 0 for automatic.");
	return false;
}

static struct asking *asking_new(struct daemon *d, struct call *call, const char *vm, const struct history_question *q)
{
	struct asking *a = calloc(1, sizeof *a);
	size_t part = server_output_max(session_server(call->session)) / 4;

	if (!a)
		return NULL;
	a->uid = session_peer(call->session)->uid;
	list_append(&askings, &a->link);
	a->daemon = d;
	a->call = call;
	a->numbers = vm[0] ? catalogue_vm : catalogue_host;
	a->n_numbers = vm[0] ? catalogue_vm_count : catalogue_host_count;
	a->bytes_most = part < BYTES_MOST ? part : BYTES_MOST;
	a->q = *q;
	a->q.done = answered;
	memcpy(a->q.vm, vm, strnlen(vm, sizeof a->q.vm - 1));
	writer_array(&a->rows, NULL);
	return a;
}

/* `r` is what has become of it so far; `wrong`: of -ENOENT, the name that is none. */
static void ask(struct asking *a, struct daemon *d, struct call *call, int r, const char *wrong)
{
	if (!r)
		r = history_ask(d->history, &a->q);
	if (!r)
		return;
	if (r == -ENOENT)
		refuse_field(call, WIRE_ERROR_InvalidValue, "numbers",
			"There is no number \"%.*s\" of %s; `memctl catalogue` lists them.",
			(int)(strcspn(wrong, ",") < 60 ? strcspn(wrong, ",") : 60), wrong, a->q.vm[0] ? "a VM" : "the host");
	else if (r == -EAGAIN)
		refuse(call, WIRE_ERROR_BadState, "Too many ask for history at once: ask again.");
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
	if (a)
		asking_free(a);
}

void do_history(struct daemon *d, struct call *call, const struct op_history_in *in)
{
	struct history_question q = { .since_ms = in->since, .until_ms = until_of(in->until), .step_ms = in->step * 1000,
		.latencies = in->latencies && in->vm[0], .row = take_row,
		.rows_max = !in->max_rows ? ROWS_DEFAULT : in->max_rows < ROWS_MOST ? in->max_rows : ROWS_MOST };
	const char *wrong = "";
	struct asking *a;
	int r;

	if (!may_ask(d, call, in->vm[0] ? in->vm : NULL, q.since_ms, q.until_ms) || !is_step(call, in->step))
		return;
	a = asking_new(d, call, in->vm, &q);
	r = a ? choose_columns(a, in->numbers, &wrong) : -ENOMEM;
	if (a)
		a->q.columns = a->columns;
	ask(a, d, call, r, wrong);
}

void do_history_vms(struct daemon *d, struct call *call, const struct op_history_vms_in *in)
{
	struct history_question q = { .since_ms = in->since, .until_ms = until_of(in->until), .seen_vm = take_vm };
	struct asking *a;

	if (!may_ask(d, call, NULL, q.since_ms, q.until_ms))
		return;
	a = asking_new(d, call, "", &q);
	ask(a, d, call, a ? 0 : -ENOMEM, NULL);
}

void do_plans(struct daemon *d, struct call *call, const struct op_plans_in *in)
{
	struct history_question q = { .since_ms = in->since, .until_ms = until_of(in->until), .rows_max = ROWS_DEFAULT,
		.plans = take_plans, .decides = decides };
	struct asking *a;

	if (!may_ask(d, call, in->vm, q.since_ms, q.until_ms))
		return;
	a = asking_new(d, call, in->vm, &q);
	ask(a, d, call, a ? 0 : -ENOMEM, NULL);
}
