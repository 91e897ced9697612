#include "record/history.h"

#include "base/clock.h"
#include "record/database.h"
#include "record/gap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAITING_MAX 32
#define TURN_NS	    NS_PER_S	/* for a part of an answer */
#define ROWS_WANTED 240
#define APART_MS    (10 * 1000u)	/* samples further apart have a gap between them */

struct history {
	char *path;
	struct record_numbers numbers;
	pthread_t thread;
	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t wake;
	struct history_question *first, **last;
	unsigned waiting;
	bool left;			/* nobody waits for the end of its thread: nothing is said any more */
	atomic_bool ending;
};

/* A question at work. */
struct turn {
	struct history_question *q;
	struct database *d;
	const struct record_number *numbers;
	const struct level *level;
	const char *table;		/* "vm" or "host" */
	struct statement *next, *row, *before, *latency;
	uint64_t deadline_ns;
	bool some;			/* there is a row before: */
	uint64_t at_ms, place_ms;	/* when its counters were taken; its ts */
	uint64_t *counters, *values;
	struct history_latency latencies[HISTORY_CAUSES];
	size_t n_latencies;
};

static const struct record_number *number_of(const struct turn *t, size_t column)
{
	return &t->numbers[t->q->columns[column].number];
}

/* ---- which step ---- */

/* The first row of a level from a time on.  1: there is none. */
static int first_row(struct turn *t, const struct level *level, uint64_t since_ms, uint64_t *ret)
{
	int64_t ts;
	int r = database_number(t->d, &ts, "SELECT ts FROM \"%w%w\" WHERE ts >= %llu AND ts < %llu ORDER BY ts LIMIT 1", t->table,
		level->suffix, (unsigned long long)since_ms, (unsigned long long)t->q->until_ms);

	*ret = r ? UINT64_MAX : (uint64_t)ts;
	return r;
}

/* Whether a coarser level tells of a time before this one does. */
static bool is_too_young(const uint64_t first[LEVELS], unsigned level)
{
	for (unsigned l = level + 1; l < LEVELS; l++)
		if (first[l] != UINT64_MAX && (first[level] == UINT64_MAX || first[l] + levels[l].step_ms <= first[level]))
			return true;
	return false;
}

/* Rows are counted from when there are any. */
static int choose_level(struct turn *t)
{
	const struct history_question *q = t->q;
	uint64_t first[LEVELS], start = UINT64_MAX;
	unsigned level = 0;

	for (unsigned l = 0; l < LEVELS; l++) {
		int r = q->step_ms ? 0 : first_row(t, &levels[l], q->since_ms, &first[l]);

		if (r < 0)
			return r;
		if (q->step_ms == levels[l].step_ms)
			level = l;
		else if (!q->step_ms && first[l] < start)
			start = first[l];
	}
	if (!q->step_ms && start != UINT64_MAX)
		while (level + 1 < LEVELS && ((q->until_ms - start) / levels[level].step_ms > ROWS_WANTED || is_too_young(first, level)))
			level++;
	t->level = &levels[level];
	return 0;
}

/* ---- reading rows ---- */

static void put_columns(FILE *f, const struct turn *t)
{
	bool raw = t->level == levels;

	fprintf(f, "SELECT ts, %s, %s", raw ? "ts" : "last_ts", raw ? "1" : "samples");
	for (size_t i = 0; i < t->q->n_columns; i++)
		fprintf(f, ", \"%s%s\"", number_of(t, i)->name, t->q->columns[i].most && !raw ? "_most" : "");
	fprintf(f, " FROM %s%s WHERE ", t->table, t->level->suffix);
}

static int prepare(struct turn *t, struct statement **ret, bool columns, const char *where)
{
	char *sql = NULL;
	size_t size;
	FILE *f = open_memstream(&sql, &size);
	int r;

	if (!f)
		return DATABASE_NO_MEMORY;
	if (columns)
		put_columns(f, t);
	else
		fprintf(f, "SELECT ts FROM %s%s WHERE ", t->table, t->level->suffix);
	fputs(where, f);
	r = fclose(f) == 0 ? database_prepare(t->d, ret, sql) : DATABASE_NO_MEMORY;
	free(sql);
	return r;
}

static int prepare_latency(struct turn *t)
{
	char sql[160];

	snprintf(sql, sizeof sql, "SELECT cause, count, sum_ns, p50_ns, p99_ns FROM fault_latency%s WHERE ts = ?1 AND vm = ?2 LIMIT %d",
		t->level->suffix, HISTORY_CAUSES);
	return database_prepare(t->d, &t->latency, sql);
}

/* From time to time, and there the row by its whole key: what other VMs have at these times is not read. */
static int prepare_all(struct turn *t)
{
	bool vm = t->q->vm[0];
	int r = prepare(t, &t->next, false, "ts >= ?1 AND ts < ?2 ORDER BY ts LIMIT 1");

	if (!r)
		r = prepare(t, &t->row, true, vm ? "ts = ?1 AND vm = ?2" : "ts = ?1");
	if (!r)
		r = prepare(t, &t->before, true, vm ? "ts >= ?1 AND ts < ?2 AND vm = ?3 ORDER BY ts DESC LIMIT 1" :
			"ts >= ?1 AND ts < ?2 ORDER BY ts DESC LIMIT 1");
	return r || !vm || !t->q->latencies ? r : prepare_latency(t);
}

/* What counters say in this row, for the next one. */
static void remember(struct turn *t, struct statement *s)
{
	t->some = true;
	t->place_ms = statement_number(s, 0);
	t->at_ms = statement_number(s, 1);
	for (size_t i = 0; i < t->q->n_columns; i++)
		t->counters[i] = statement_number(s, 3 + (int)i);
}

/* The row right before the first one. */
static int look_before(struct turn *t)
{
	uint64_t apart = t->level == levels ? APART_MS : t->level->step_ms, since = t->q->since_ms;
	int r;

	statement_bind(t->before, 1, since > apart ? since - apart : 0);
	statement_bind(t->before, 2, since);
	if (t->q->vm[0])
		statement_bind_text(t->before, 3, t->q->vm);
	r = statement_step(t->before);
	if (r > 0)
		remember(t, t->before);
	statement_reset(t->before);
	return r < 0 ? r : 0;
}

/* A counter that fell is one that began anew, with a VM of the same name: it has grown by what it is. */
static uint64_t growth(uint64_t before, uint64_t after)
{
	return after >= before ? after - before : after;
}

static int read_latencies(struct turn *t, uint64_t ts)
{
	int r;

	t->n_latencies = 0;
	if (!t->latency)
		return 0;
	statement_bind(t->latency, 1, ts);
	statement_bind_text(t->latency, 2, t->q->vm);
	while ((r = statement_step(t->latency)) > 0) {
		struct history_latency *l = &t->latencies[t->n_latencies++];

		*l = (struct history_latency){ .count = statement_number(t->latency, 1), .sum_ns = statement_number(t->latency, 2),
			.p50_ns = statement_number(t->latency, 3), .p99_ns = statement_number(t->latency, 4) };
		snprintf(l->cause, sizeof l->cause, "%s", statement_text(t->latency, 0));
	}
	statement_reset(t->latency);
	return r;
}

static bool give_row(struct turn *t)
{
	struct history_row row = { .ts_ms = statement_number(t->row, 0), .samples = statement_number(t->row, 2), .values = t->values,
		.latencies = t->latencies, .n_latencies = t->n_latencies };
	uint64_t apart = t->level == levels ? APART_MS : t->level->step_ms, at = statement_number(t->row, 1);

	if (t->some && row.ts_ms - t->place_ms <= apart && at > t->at_ms)
		row.interval_ms = at - t->at_ms;
	for (size_t i = 0; i < t->q->n_columns; i++) {
		t->values[i] = statement_number(t->row, 3 + (int)i);
		if (number_is_counter(number_of(t, i)))
			t->values[i] = row.interval_ms ? growth(t->counters[i], t->values[i]) : HISTORY_NONE;
	}
	return t->q->row(t->q, &row);
}

/* The next time at which there are rows.  1: there is one. */
static int next_time(struct turn *t, uint64_t from, uint64_t *ret)
{
	int r;

	statement_bind(t->next, 1, from);
	statement_bind(t->next, 2, t->q->until_ms);
	r = statement_step(t->next);
	if (r > 0)
		*ret = statement_number(t->next, 0);
	statement_reset(t->next);
	return r;
}

static int read_rows(struct turn *t)
{
	uint64_t from = t->q->since_ms, given = 0, ts = 0;
	int r;

	while ((r = next_time(t, from, &ts)) > 0) {
		bool enough = given >= t->q->rows_max || now_ns() > t->deadline_ns;

		if (!enough) {
			statement_bind(t->row, 1, ts);
			if (t->q->vm[0])
				statement_bind_text(t->row, 2, t->q->vm);
			r = statement_step(t->row);
			if (r > 0) {
				int e = read_latencies(t, ts);

				r = e < 0 ? e : r;
			}
			if (r > 0) {
				enough = !give_row(t);
				remember(t, t->row);
				t->q->seen = true;
				given++;
				if (enough)
					ts += t->level == levels ? 1 : t->level->step_ms;
			}
			statement_reset(t->row);
		}
		if (r < 0)
			break;
		if (enough) {
			t->q->next_ms = ts;
			return 0;
		}
		from = ts + 1;
	}
	return r;
}

static int look_for_vm(struct turn *t)
{
	int64_t one;
	int r = database_number(t->d, &one, "SELECT 1 FROM vm_seen WHERE vm = %Q", t->q->vm);

	t->q->seen = r == 0;
	return r < 0 ? r : 0;
}

static int answer(struct turn *t)
{
	int r;

	/* one view of it all; what it reads does not change */
	r = database_run(t->d, "BEGIN");
	if (!r && t->q->vm[0])
		r = look_for_vm(t);
	if (!r)
		r = choose_level(t);
	if (r < 0)
		return r;
	t->q->step_ms = t->level->step_ms;
	/* whole steps: the one that it begins in too */
	t->q->since_ms -= t->level == levels ? 0 : t->q->since_ms % t->level->step_ms;
	r = prepare_all(t);
	if (!r)
		r = look_before(t);
	return r ? r : read_rows(t);
}

/* ---- which VMs ---- */

static int read_vms(struct turn *t)
{
	struct statement *s = NULL;
	int r = database_prepare(t->d, &s, "SELECT vm, first_ts, last_ts FROM vm_seen WHERE last_ts >= ?1 AND first_ts < ?2"
		" ORDER BY last_ts DESC, vm LIMIT ?3");

	if (r)
		return r;
	statement_bind(s, 1, t->q->since_ms);
	statement_bind(s, 2, t->q->until_ms);
	statement_bind(s, 3, HISTORY_VMS);
	while ((r = statement_step(s)) > 0) {
		struct history_vm vm = { statement_text(s, 0), statement_number(s, 1), statement_number(s, 2) };

		if (!t->q->seen_vm(t->q, &vm))
			break;
	}
	statement_free(s);
	return r < 0 ? r : 0;
}

/* ---- plans ---- */

static void put_numbers(FILE *f, const char *of, const struct record_number *numbers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(f, ", %s.\"%s\"", of, numbers[i].name);
}

static char *plans_sql(const struct record_numbers *n)
{
	char *sql = NULL;
	size_t size;
	FILE *f = open_memstream(&sql, &size);

	if (!f)
		return NULL;
	fputs("SELECT h.ts, h.plans", f);
	put_numbers(f, "h", n->plan, n->n_plan);
	put_numbers(f, "v", n->plan_vm, n->n_plan_vm);
	/* CROSS: SQLite keeps this order, which is that of time, and looks up each plan's VMs by its key */
	fputs(" FROM plan h CROSS JOIN plan_vm v ON v.ts = h.ts WHERE h.ts >= ?1 AND h.ts < ?2 AND v.vm = ?3 ORDER BY h.ts", f);
	if (fclose(f)) {
		free(sql);
		return NULL;
	}
	return sql;
}

/* Some numbers of a row, those of a plan or of its VM, and what has been taken of them. */
struct part {
	const struct record_number *numbers;
	size_t n;
	int at;				/* their first column */
	uint64_t *values;
};

static bool decides(const struct history_question *q, const char *name)
{
	const char *const *one = q->decides;

	while (*one && strcmp(*one, name))
		one++;
	return *one;
}

static bool decides_the_same(const struct history_question *q, struct statement *s, const struct part *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (statement_number(s, p->at + (int)i) != p->values[i] && decides(q, p->numbers[i].name))
			return false;
	return true;
}

static void take_most(struct statement *s, const struct part *p, bool first)
{
	for (size_t i = 0; i < p->n; i++) {
		uint64_t value = statement_number(s, p->at + (int)i);

		if (first || value > p->values[i])
			p->values[i] = value;
	}
}

static int walk_plans(struct turn *t, struct statement *s, const struct part *host, const struct part *vm)
{
	struct history_question *q = t->q;
	struct history_plans one = { .values = vm->values, .host_values = host->values };
	uint64_t given = 0;
	int r;

	while ((r = statement_step(s)) > 0) {
		uint64_t ts = statement_number(s, 0);
		bool late = now_ns() > t->deadline_ns;

		if (one.count && (late || !decides_the_same(q, s, host) || !decides_the_same(q, s, vm))) {
			if (!q->plans(q, &one) || ++given >= q->rows_max || late) {
				q->next_ms = ts;
				return 0;
			}
			one.count = 0;
		}
		take_most(s, host, !one.count);
		take_most(s, vm, !one.count);
		if (!one.count)
			one.from_ms = ts;
		one.last_ms = ts;
		one.count += statement_number(s, 1);
	}
	if (!r && one.count)
		q->plans(q, &one);
	return r;
}

static int read_plans(struct turn *t, const struct record_numbers *n)
{
	uint64_t *values = calloc(n->n_plan + n->n_plan_vm + 1, sizeof *values);
	struct part host = { n->plan, n->n_plan, 2, values };
	struct part vm = { n->plan_vm, n->n_plan_vm, 2 + (int)n->n_plan, values + n->n_plan };
	char *sql = plans_sql(n);
	struct statement *s = NULL;
	int r = values && sql ? database_prepare(t->d, &s, sql) : DATABASE_NO_MEMORY;

	if (!r) {
		statement_bind(s, 1, t->q->since_ms);
		statement_bind(s, 2, t->q->until_ms);
		statement_bind_text(s, 3, t->q->vm);
		r = walk_plans(t, s, &host, &vm);
	}
	statement_free(s);
	free(sql);
	free(values);
	return r;
}

/* A turn that was cut off is an answer without rows that says where to go on; only a single step that takes longer is an error. */
static void take_turn(struct history *h, struct history_question *q)
{
	struct turn t = { .q = q, .table = q->vm[0] ? "vm" : "host", .numbers = q->vm[0] ? h->numbers.vm : h->numbers.host,
		.deadline_ns = now_ns() + TURN_NS };
	int r;

	t.counters = calloc(2 * q->n_columns + 1, sizeof *t.counters);
	t.values = t.counters ? t.counters + q->n_columns : NULL;
	r = t.counters ? database_open_reader(&t.d, h->path) : DATABASE_NO_MEMORY;
	if (!r) {
		database_time_box(t.d, t.deadline_ns + TURN_NS, &h->ending);
		r = q->seen_vm ? read_vms(&t) : q->plans ? look_for_vm(&t) : answer(&t);
		if (!r && q->plans)
			r = read_plans(&t, &h->numbers);
		statement_free(t.next);
		statement_free(t.row);
		statement_free(t.before);
		statement_free(t.latency);
	}
	if (r < 0) {
		q->error = r == DATABASE_NO_MEMORY ? -ENOMEM : -EIO;
		snprintf(q->text, sizeof q->text, "%s", database_is_late(r) ? "it took too long" : database_error(r));
	}
	database_close(t.d);
	free(t.counters);
}

static void *reader(void *arg)
{
	struct history *h = arg;

	pthread_mutex_lock(&h->lock);
	for (;;) {
		struct history_question *q;

		while (!h->first && !atomic_load(&h->ending))
			pthread_cond_wait(&h->wake, &h->lock);
		q = h->first;
		if (!q)
			break;
		h->first = q->next;
		if (!h->first)
			h->last = &h->first;
		h->waiting--;
		pthread_mutex_unlock(&h->lock);
		gap_enter(&h->ending);
		if (atomic_load(&h->ending))
			q->error = -ECANCELED;
		else
			take_turn(h, q);
		gap_leave();
		pthread_mutex_lock(&h->lock);
		if (h->left)
			break;
		q->done(q);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

int history_ask(struct history *h, struct history_question *q)
{
	bool full;

	q->next = NULL;
	q->next_ms = 0;
	q->error = 0;
	q->seen = false;
	pthread_mutex_lock(&h->lock);
	full = h->waiting >= WAITING_MAX || atomic_load(&h->ending);
	if (!full) {
		*h->last = q;
		h->last = &q->next;
		h->waiting++;
		pthread_cond_signal(&h->wake);
	}
	pthread_mutex_unlock(&h->lock);
	return full ? -EAGAIN : 0;
}

int history_new(struct history **ret, const char *path, const struct record_numbers *n)
{
	struct history *h = calloc(1, sizeof *h);
	sigset_t all, old;
	int e;

	if (!h || !(h->path = strdup(path))) {
		free(h);
		return -ENOMEM;
	}
	h->numbers = *n;
	h->last = &h->first;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->wake, NULL);
	/* signals are the control thread's business */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	e = pthread_create(&h->thread, NULL, reader, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		free(h->path);
		free(h);
		return -e;
	}
	*ret = h;
	return 0;
}

static void end_soon(struct history *h)
{
	pthread_mutex_lock(&h->lock);
	atomic_store(&h->ending, true);
	pthread_cond_signal(&h->wake);
	pthread_mutex_unlock(&h->lock);
}

static void free_ended(struct history *h)
{
	pthread_cond_destroy(&h->wake);
	pthread_mutex_destroy(&h->lock);
	free(h->path);
	free(h);
}

void history_free(struct history *h)
{
	if (!h)
		return;
	end_soon(h);
	pthread_join(h->thread, NULL);
	free_ended(h);
}

bool history_free_by(struct history *h, uint64_t deadline_ns)
{
	if (!h)
		return true;
	end_soon(h);
	if (pthread_clockjoin_np(h->thread, NULL, CLOCK_MONOTONIC, &(struct timespec){ .tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S) })) {
		pthread_mutex_lock(&h->lock);
		h->left = true;
		pthread_mutex_unlock(&h->lock);
		return false;
	}
	free_ended(h);
	return true;
}
