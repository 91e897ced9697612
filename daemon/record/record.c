/* The queue and the writer's thread.
 *
 * Lock order: r->lock guards the queue and is the only lock; no call to the database is made under it. */
#include "record/record.h"

#include "base/clock.h"
#include "base/events.h"
#include "record/database.h"
#include "record/store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_MAX 16384

struct record {
	struct record_options options;
	char *path;
	struct store *store;			/* the writer's alone once the thread runs */
	bool told;				/* that writing fails */

	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct row *first, **last;
	size_t queued;
	struct record_keep keep;
	atomic_bool ending;

	_Atomic uint64_t written, dropped, failed;
};

static void free_rows(struct row *rows)
{
	while (rows) {
		struct row *next = rows->next;

		free(rows->latency);
		free(rows);
		rows = next;
	}
}

static void write_batch(struct record *r, struct row *rows, const struct record_keep *keep)
{
	uint64_t n = 0;
	int e;

	for (const struct row *row = rows; row; row = row->next)
		n++;
	if (store_is_held(r->store, keep)) {
		atomic_fetch_add(&r->failed, n);
		free_rows(rows);
		return;
	}
	e = store_write(r->store, rows);
	atomic_fetch_add(e ? &r->failed : &r->written, n);
	if (e && !r->told)
		event_tell(EVENT_METRICS_FAILED, NULL, "cannot write metrics to %s: %s", r->path, store_says(r->store));
	if (!e && r->told)
		event_tell(EVENT_METRICS_AGAIN, NULL, "metrics are written to %s again", r->path);
	r->told = e != 0;
	free_rows(rows);
}

static void *writer(void *arg)
{
	struct record *r = arg;
	bool more = false;

	store_look_over(r->store, &r->ending);
	pthread_mutex_lock(&r->lock);
	for (;;) {
		struct record_keep keep;
		struct row *rows;

		while (!r->first && !more && !atomic_load(&r->ending))
			pthread_cond_wait(&r->wake, &r->lock);
		rows = r->first;
		if (!rows && atomic_load(&r->ending))
			break;
		r->first = NULL;
		r->last = &r->first;
		r->queued = 0;
		keep = r->keep;
		pthread_mutex_unlock(&r->lock);
		if (rows)
			write_batch(r, rows, &keep);
		more = store_tend(r->store, &keep);
		pthread_mutex_lock(&r->lock);
	}
	pthread_mutex_unlock(&r->lock);
	/* here, not where it is waited for: closing brings the log into the file */
	store_free(r->store);
	r->store = NULL;
	return NULL;
}

/* ---- what others call ---- */

static struct row *row_new(enum row_kind kind, uint64_t ts_ms, const char *vm, const char *cause, const uint64_t *values, size_t n)
{
	struct row *row = malloc(sizeof *row + n * sizeof *values);

	if (!row)
		return NULL;
	*row = (struct row){ .kind = kind, .ts_ms = ts_ms, .n = n };
	snprintf(row->vm, sizeof row->vm, "%s", vm);
	snprintf(row->cause, sizeof row->cause, "%s", cause);
	if (n)
		memcpy(row->values, values, n * sizeof *values);
	return row;
}

/* All `n` of these rows or none (`first` is NULL if there was no memory for them): they count as `room`, if no more than `max` wait
 * then. */
static void queue(struct record *r, struct row *first, struct row **last, size_t n, size_t room, size_t max)
{
	bool full = true;

	if (first) {
		pthread_mutex_lock(&r->lock);
		full = r->queued + room > max || atomic_load(&r->ending);
		if (!full) {
			*r->last = first;
			r->last = last;
			r->queued += room;
			pthread_cond_signal(&r->wake);
		}
		pthread_mutex_unlock(&r->lock);
	}
	if (full) {
		free_rows(first);
		atomic_fetch_add(&r->dropped, n);
	}
}

static void put(struct record *r, enum row_kind kind, uint64_t ts_ms, const char *vm, const char *cause,
	const uint64_t *values, size_t n)
{
	struct row *row = row_new(kind, ts_ms, vm, cause, values, n);

	queue(r, row, row ? &row->next : NULL, 1, 1, r->options.queue_max);
}

void record_vm(struct record *r, uint64_t ts_ms, const char *vm, const uint64_t *values)
{
	put(r, ROW_VM, ts_ms, vm, "", values, r->options.numbers.n_vm);
}

void record_host(struct record *r, uint64_t ts_ms, const uint64_t *values)
{
	put(r, ROW_HOST, ts_ms, "", "", values, r->options.numbers.n_host);
}

void record_fault_latency(struct record *r, uint64_t ts_ms, const char *vm, const char *cause, const struct histogram_copy *h)
{
	struct row *row = row_new(ROW_LATENCY, ts_ms, vm, cause, NULL, 0);

	if (row) {
		row->latency = malloc(sizeof *h);
		if (row->latency) {
			*row->latency = *h;
		} else {
			free(row);
			row = NULL;
		}
	}
	queue(r, row, row ? &row->next : NULL, 1, 1, r->options.queue_max);
}

void record_event(struct record *r, const struct record_event *e)
{
	const uint64_t values[] = { e->level, e->lease, e->session, e->count, e->since_ms };
	size_t n = sizeof values / sizeof *values;
	struct row *row = malloc(sizeof *row + sizeof values + strlen(e->text) + 1);

	if (row) {
		*row = (struct row){ .kind = ROW_EVENT, .ts_ms = e->ts_ms, .nth = e->seq, .n = n };
		snprintf(row->vm, sizeof row->vm, "%s", e->vm);
		snprintf(row->cause, sizeof row->cause, "%s", e->event);
		memcpy(row->values, values, sizeof values);
		row->text = (char *)(row->values + n);
		strcpy(row->text, e->text);
	}
	queue(r, row, row ? &row->next : NULL, 1, 1, r->options.queue_max);
}

/* By a connection of its own: the other one is the writer's. */
void record_last_events(struct record *r, bool (*one)(void *userdata, const struct record_event *e), void *userdata)
{
	struct statement *s = NULL;
	struct database *d = NULL;
	bool more = true;

	if (database_open_reader(&d, r->path) < 0)
		return;
	if (database_prepare(d, &s, "SELECT ts, nth, event, vm, text, level, lease, session, count, since FROM event"
		" ORDER BY ts DESC, nth DESC") == 0)
		while (more && statement_step(s) == 1) {
			struct record_event e = {
				.ts_ms = statement_number(s, 0), .seq = statement_number(s, 1),
				.event = statement_text(s, 2), .vm = statement_text(s, 3), .text = statement_text(s, 4),
				.level = statement_number(s, 5), .lease = statement_number(s, 6), .session = statement_number(s, 7),
				.count = statement_number(s, 8), .since_ms = statement_number(s, 9),
			};

			more = one(userdata, &e);
		}
	statement_free(s);
	database_close(d);
}

/* A storm of plans must not push the samples out: those find half of the queue free at least.  A plan of more VMs than that counts as
 * the half, so it gets in when nothing else waits. */
void record_plan(struct record *r, uint64_t ts_ms, const uint64_t *values, const struct record_plan_vm *vms, size_t n)
{
	size_t half = r->options.queue_max / 2;
	struct row *first = row_new(ROW_PLAN, ts_ms, "", "", values, r->options.numbers.n_plan), **last;

	last = first ? &first->next : NULL;
	for (size_t i = 0; i < n && first; i++) {
		*last = row_new(ROW_PLAN_VM, ts_ms, vms[i].vm, "", vms[i].values, r->options.numbers.n_plan_vm);
		if (!*last) {
			free_rows(first);
			first = NULL;
			break;
		}
		(*last)->nth = i;
		last = &(*last)->next;
	}
	queue(r, first, last, n + 1, n < half ? n + 1 : half, half);
}

void record_set_keep(struct record *r, const struct record_keep *keep)
{
	pthread_mutex_lock(&r->lock);
	r->keep = *keep;
	pthread_mutex_unlock(&r->lock);
}

void record_counts(struct record *r, struct record_counts *ret)
{
	*ret = (struct record_counts){
		.written = atomic_load(&r->written),
		.dropped = atomic_load(&r->dropped),
		.failed = atomic_load(&r->failed),
	};
}

static void free_record(struct record *r)
{
	store_free(r->store);
	free_rows(r->first);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r->path);
	free(r);
}

int record_open(struct record **ret, const struct record_options *options, struct problem *p)
{
	struct record *r = calloc(1, sizeof *r);
	sigset_t all, old;
	char why[160];
	int e;

	if (!r || !(r->path = strdup(options->path))) {
		free(r);
		return problem_set(p, ENOMEM, PROBLEM_SYSTEM, 0, 0, "no memory for the metrics");
	}
	r->options = *options;
	r->options.path = r->path;
	r->keep = options->keep;
	if (!r->options.queue_max)
		r->options.queue_max = QUEUE_MAX;
	r->last = &r->first;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);

	if (store_new(&r->store, &r->options, why, sizeof why) < 0) {
		e = problem_set(p, EIO, PROBLEM_SYSTEM, 0, 0, "cannot open the metrics database %s: %s (metrics = none does without)",
			r->path, why);
		free_record(r);
		return e;
	}
	/* signals are the control thread's business */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	e = pthread_create(&r->thread, NULL, writer, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		errno = e;
		e = problem_errno(p, "cannot start the metrics writer");
		free_record(r);
		return e;
	}
	*ret = r;
	return 0;
}

static void end_soon(struct record *r)
{
	pthread_mutex_lock(&r->lock);
	atomic_store(&r->ending, true);
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

void record_close(struct record *r)
{
	if (!r)
		return;
	end_soon(r);
	pthread_join(r->thread, NULL);
	free_record(r);
}

bool record_close_by(struct record *r, uint64_t deadline_ns)
{
	if (!r)
		return true;
	end_soon(r);
	if (pthread_clockjoin_np(r->thread, NULL, CLOCK_MONOTONIC, &(struct timespec){ .tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S) }))
		return false;
	free_record(r);
	return true;
}
