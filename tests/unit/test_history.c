/* record/history.c: what is answered, from rows that the test has written; one part at a time. */
#include "record/history.h"
#include "base/clock.h"
#include "tests/lib/check.h"
#include "tests/unit/metrics_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define T (1700000000000ull / 3600000 * 3600000)
#define MOST 5000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

struct answer {
	struct history_question q;
	bool done;
	size_t n, most, n_latencies;
	struct history_latency latencies[HISTORY_CAUSES];	/* of the last row */
	struct {
		uint64_t ts_ms, interval_ms, samples, value[3];
	} row[MOST];
};
static struct answer a;

static bool take(struct history_question *q, const struct history_row *row)
{
	CHECK(a.n < MOST);
	a.row[a.n].ts_ms = row->ts_ms;
	a.row[a.n].interval_ms = row->interval_ms;
	a.row[a.n].samples = row->samples;
	memcpy(a.row[a.n].value, row->values, q->n_columns * sizeof(uint64_t));
	a.n_latencies = row->n_latencies;
	memcpy(a.latencies, row->latencies, row->n_latencies * sizeof *row->latencies);
	a.n++;
	return a.n < a.most;
}

static void finished(struct history_question *q)
{
	pthread_mutex_lock(&lock);
	a.done = q == &a.q;
	pthread_cond_broadcast(&wake);
	pthread_mutex_unlock(&lock);
}

/* of a VM: resident_bytes, resident_bytes_most, faults */
static const struct history_column columns[] = { { 0, false }, { 0, true }, { 1, false } };

static void ask_it(struct history *h, const char *vm, uint64_t since, uint64_t until, uint64_t step)
{
	a = (struct answer){ .q = { .since_ms = since, .until_ms = until, .step_ms = step, .rows_max = 1000, .columns = columns,
		.n_columns = *vm ? 3 : 2, .row = take, .done = finished }, .most = MOST };
	snprintf(a.q.vm, sizeof a.q.vm, "%s", vm);
	CHECK_EQ(history_ask(h, &a.q), 0);
	pthread_mutex_lock(&lock);
	while (!a.done)
		pthread_cond_wait(&wake, &lock);
	pthread_mutex_unlock(&lock);
}

static struct history *start(void)
{
	struct record_options o = options();
	struct history *h;

	begin();
	record_close(open_record(&o));
	CHECK_EQ(history_new(&h, path, &o.numbers), 0);
	return h;
}

static void stop(struct history *h)
{
	history_free(h);
	end();
}

/* A row of each of these VMs and of the host at T + ms. */
static void row(uint64_t ms, const char *vm, uint64_t level, uint64_t counter)
{
	char sql[300];
	unsigned long long ts = T;

	ts += ms;
	snprintf(sql, sizeof sql, "INSERT INTO vm VALUES (%llu, '%s', %llu, %llu); INSERT OR IGNORE INTO host VALUES (%llu, 7)", ts, vm,
		(unsigned long long)level, (unsigned long long)counter, ts);
	tell(sql);
}

static void rows_of_a_second(void)
{
	struct history *h = start();
	uint64_t none = HISTORY_NONE;

	row(0, "a", 10, 100);
	row(0, "b", 1, 1);
	row(1100, "a", 20, 150);
	row(2000, "b", 2, 2);
	row(3000, "a", 30, 150);
	/* a gap, then one that began anew */
	row(20000, "a", 40, 400);
	row(21000, "a", 50, 30);
	ask_it(h, "a", T + 0, T + 100000, 1000);
	CHECK_EQ(a.q.error, 0);
	CHECK_EQ(a.n, 5);
	CHECK(a.row[0].ts_ms == T && a.row[0].value[0] == 10 && a.row[0].value[1] == 10 && a.row[0].value[2] == none);
	CHECK(a.row[1].interval_ms == 1100 && a.row[1].value[2] == 50 && a.row[1].samples == 1);
	CHECK(a.row[2].interval_ms == 1900 && a.row[2].value[2] == 0);
	CHECK(a.row[3].interval_ms == 0 && a.row[3].value[2] == none);
	CHECK_EQ(a.n_latencies, 0);
	CHECK(a.row[4].interval_ms == 1000 && a.row[4].value[2] == 30);
	CHECK(a.q.next_ms == 0 && a.q.step_ms == 1000 && a.q.seen);
	/* from within: what is before counts, though it is not shown */
	ask_it(h, "a", T + 1000, T + 3000, 1000);
	CHECK(a.n == 1 && a.row[0].value[2] == 50);
	/* the host */
	ask_it(h, "", T + 0, T + 100000, 1000);
	CHECK(a.n == 6 && a.row[0].value[0] == 7);
	/* nobody */
	ask_it(h, "c", T + 0, T + 100000, 1000);
	CHECK(a.n == 0 && !a.q.seen && a.q.error == 0);
	stop(h);
}

static void latencies_come_along(void)
{
	struct history *h = start();

	row(0, "a", 10, 100);
	row(1000, "a", 10, 100);
	tell("INSERT INTO fault_latency SELECT max(ts), 'a', 'swapped', 10, 20, 3, 33, '{}' FROM host");
	tell("INSERT INTO fault_latency SELECT max(ts), 'b', 'zero', 1, 2, 3, 4, '{}' FROM host");
	a = (struct answer){ .q = { .vm = "a", .since_ms = T, .until_ms = T + 2000, .step_ms = 1000, .rows_max = 9, .columns = columns,
		.n_columns = 3, .latencies = true, .row = take, .done = finished }, .most = MOST };
	CHECK_EQ(history_ask(h, &a.q), 0);
	pthread_mutex_lock(&lock);
	while (!a.done)
		pthread_cond_wait(&wake, &lock);
	pthread_mutex_unlock(&lock);
	CHECK(a.n == 2 && a.n_latencies == 1 && !strcmp(a.latencies[0].cause, "swapped"));
	CHECK(a.latencies[0].count == 3 && a.latencies[0].sum_ns == 33 && a.latencies[0].p50_ns == 10 && a.latencies[0].p99_ns == 20);
	stop(h);
}

static void parts_are_the_whole(void)
{
	struct history *h = start();
	uint64_t since = T, sum = 0, rows = 0, parts = 0;

	for (uint64_t i = 0; i < 50; i++)
		row(1000 * i, "a", i, i * i);
	while (since) {
		ask_it(h, "a", since, T + 100000, 1000);
		if (!parts++)
			CHECK_EQ(a.n, 50);
		/* the same again in parts of seven */
		a = (struct answer){ .q = { .since_ms = since, .until_ms = T + 100000, .step_ms = 1000, .rows_max = parts % 2 ? 7 : 1000,
			.columns = columns, .n_columns = 3, .vm = "a", .row = take, .done = finished }, .most = parts % 2 ? MOST : 7 };
		CHECK_EQ(history_ask(h, &a.q), 0);
		pthread_mutex_lock(&lock);
		while (!a.done)
			pthread_cond_wait(&wake, &lock);
		pthread_mutex_unlock(&lock);
		for (size_t i = 0; i < a.n; i++)
			sum += a.row[i].value[2] == HISTORY_NONE ? 0 : a.row[i].value[2];
		rows += a.n;
		since = a.q.next_ms;
	}
	CHECK_EQ(rows, 50);
	CHECK_EQ(sum, 49 * 49);
	CHECK(parts == 8);
	stop(h);
}

/* Steps from one row each: when the level's rows begin, so that what is known reaches back. */
static void fill(const char *suffix, uint64_t step, uint64_t first, uint64_t n)
{
	char sql[400];

	for (unsigned t = 0; t < 2; t++) {
		snprintf(sql, sizeof sql, "WITH RECURSIVE t(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM t WHERE i + 1 < %llu)"
			" INSERT INTO %s%s SELECT %llu + i * %llu%s%s%s, 1%s FROM t", (unsigned long long)n, t ? "host" : "vm", suffix,
			(unsigned long long)first, (unsigned long long)step, t ? "" : ", 'a'", *suffix ? ", 1, 1" : "",
			*suffix ? ", 1" : "", t ? "" : ", i");
		tell(sql);
	}
}

static void the_step_by_itself(void)
{
	static const struct {
		uint64_t since_s, step_ms;
	} is[] = { { 60, 1000 }, { 240, 1000 }, { 241, 10000 }, { 2400, 10000 }, { 3000, 60000 }, { 14400, 60000 }, { 20000, 3600000 } };
	struct history *h = start();
	uint64_t end = T + 24 * 3600000ull;

	/* young: all that there is */
	fill("", 1000, end - 100000, 100);
	ask_it(h, "a", end - 86400000, end, 0);
	CHECK_EQ(a.q.step_ms, 1000);
	CHECK_EQ(a.n, 100);
	fill("", 1000, end - 3600000, 3500);
	fill("_10s", 10000, end - 4 * 3600000ull, 4 * 360);
	fill("_1m", 60000, T, 24 * 60);
	fill("_1h", 3600000, T, 24);
	for (size_t i = 0; i < sizeof is / sizeof *is; i++) {
		ask_it(h, "a", end - is[i].since_s * 1000, end, 0);
		CHECK_MSG(a.q.step_ms == is[i].step_ms, "%llu s: %llu", (unsigned long long)is[i].since_s, (unsigned long long)a.q.step_ms);
		CHECK(a.n > 0 && a.n <= 241);
	}
	/* long ago only the coarse ones know */
	ask_it(h, "a", T + 3600000, T + 3600000 + 60000, 0);
	CHECK_EQ(a.q.step_ms, 60000);
	ask_it(h, "a", T + 3600000, T + 3600000 + 60000, 1000);
	CHECK_EQ(a.n, 0);
	/* whole steps, the one that it begins in too */
	ask_it(h, "a", T + 90000, T + 300000, 60000);
	CHECK(a.n == 4 && a.row[0].ts_ms == T + 60000);
	stop(h);
}

/* The asker's thread is never held up: not by a database that is not there, not by too many questions, not by the end. */
static unsigned canceled, answered;

static void count_it(struct history_question *q)
{
	pthread_mutex_lock(&lock);
	canceled += q->error == -ECANCELED;
	answered++;
	pthread_cond_broadcast(&wake);
	pthread_mutex_unlock(&lock);
	free(q);
}

static void what_cannot_be_answered(void)
{
	struct history *h = start();
	unsigned taken = 0, refused = 0;

	unlink(path);
	ask_it(h, "a", T + 0, T + 1000, 0);
	CHECK_EQ(a.q.error, -EIO);
	CHECK(a.q.text[0]);
	for (unsigned i = 0; i < 2000; i++) {
		struct history_question *q = calloc(1, sizeof *q);

		*q = (struct history_question){ .until_ms = 1, .row = take, .done = count_it };
		if (history_ask(h, q) == 0) {
			taken++;
		} else {
			refused++;
			free(q);
		}
	}
	CHECK(refused > 0);
	history_free(h);
	CHECK_EQ(answered, taken);
	CHECK(canceled <= taken);
	end();
}

/* Somebody asks for long answers, one after the other: a row of theirs takes a millisecond. */
static atomic_bool asked_enough;
static unsigned parts;

static bool take_slowly(struct history_question *q, const struct history_row *row)
{
	(void)q;
	(void)row;
	usleep(1000);
	return true;
}

static void ended_part(struct history_question *q)
{
	pthread_mutex_lock(&lock);
	CHECK_MSG(q->error == 0 || atomic_load(&asked_enough), "%s", q->text);
	parts++;
	q->n_columns = 0;
	pthread_cond_broadcast(&wake);
	pthread_mutex_unlock(&lock);
}

static void *keep_asking(void *arg)
{
	static struct history_question q[4];

	/* n_columns: it is under way */
	while (!atomic_load(&asked_enough)) {
		for (unsigned i = 0; i < 4; i++) {
			bool idle;

			pthread_mutex_lock(&lock);
			idle = !q[i].n_columns;
			pthread_mutex_unlock(&lock);
			if (!idle)
				continue;
			q[i] = (struct history_question){ .vm = "a", .since_ms = T, .until_ms = T + 3600000, .step_ms = 1000, .rows_max = 10000,
				.columns = columns, .n_columns = 3, .row = take_slowly, .done = ended_part };
			CHECK_EQ(history_ask(arg, &q[i]), 0);
		}
		usleep(1000);
	}
	return NULL;
}

/* A reader that always reads has the log for itself unless it makes way: the writer loses no row by it. */
static void a_reader_of_ours_makes_way(void)
{
	struct record_options o = options();
	struct record_counts c = { 0 };
	uint64_t begun, put = 0;
	struct history *h;
	struct record *r;
	pthread_t asker;

	begin();
	o.keep.max_bytes = 16 << 20;		/* 1 MiB of log, then nothing is written any more */
	r = open_record(&o);
	fill("", 1000, T, 3600);
	CHECK_EQ(history_new(&h, path, &o.numbers), 0);
	CHECK(!pthread_create(&asker, NULL, keep_asking, h));
	begun = now_ns();
	for (uint64_t t = T + 86400000; now_ns() - begun < 8 * NS_PER_S; t += 1000) {
		char name[64];

		for (unsigned vm = 0; vm < 400; vm++) {
			snprintf(name, sizeof name, "a-virtual-machine-with-a-long-name-%u", vm);
			record_vm(r, t, name, (uint64_t[]){ t, t });
		}
		put += 400;
		usleep(100000);
	}
	atomic_store(&asked_enough, true);
	pthread_join(asker, NULL);
	history_free(h);
	for (unsigned i = 0; i < 1000 && c.written + c.failed < put; i++) {
		usleep(10000);
		record_counts(r, &c);
	}
	CHECK_MSG(c.failed == 0 && c.dropped == 0 && c.written == put, "%llu lost, %llu dropped, %llu of %llu written",
		(unsigned long long)c.failed, (unsigned long long)c.dropped, (unsigned long long)c.written, (unsigned long long)put);
	/* and it is answered */
	CHECK_MSG(parts >= 2, "%u parts", parts);
	record_close(r);
	end();
}

/* The reader's disk hangs: whoever ends it goes on, and hears no more of it. */
static atomic_bool hangs, there, heard;

static bool take_and_hang(struct history_question *q, const struct history_row *row)
{
	(void)q;
	(void)row;
	atomic_store(&there, true);
	while (atomic_load(&hangs))
		usleep(1000);
	return true;
}

static void hear(struct history_question *q)
{
	(void)q;
	atomic_store(&heard, true);
}

static void a_reader_that_hangs_is_left(void)
{
	struct history *h = start();
	struct history_question q = { .vm = "a", .since_ms = T, .until_ms = T + 3600000, .step_ms = 1000, .rows_max = 10,
		.columns = columns, .n_columns = 3, .row = take_and_hang, .done = hear };
	uint64_t begun;

	row(0, "a", 10, 100);
	atomic_store(&hangs, true);
	CHECK_EQ(history_ask(h, &q), 0);
	while (!atomic_load(&there))
		usleep(1000);
	begun = now_ns();
	CHECK(!history_free_by(h, begun + 200 * NS_PER_MS));
	CHECK(now_ns() - begun < 2 * NS_PER_S);
	atomic_store(&hangs, false);
	usleep(200000);
	CHECK(!atomic_load(&heard));
	/* the twin: one that does not hang is gone */
	history_free(h);
	h = NULL;
	CHECK(history_free_by(h, now_ns()));
	end();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(rows_of_a_second), SCENARIO(latencies_come_along), SCENARIO(parts_are_the_whole),
		SCENARIO(the_step_by_itself), SCENARIO(what_cannot_be_answered),
		SCENARIO(a_reader_of_ours_makes_way), SCENARIO(a_reader_that_hangs_is_left),
		{ 0 } });
}
