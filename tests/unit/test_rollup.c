/* record/rollup.c: what the rows come to, against a plain recomputation from the rows of a second; with a clock that is the test's. */
#include "base/clock.h"
#include "record/rollup.h"
#include "tests/lib/check.h"
#include "tests/unit/metrics_file.h"

#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE 1700000000000ull	/* not the beginning of any step */
#define MOST 20000

/* ---- the recomputation: samples in, one row a step out, again and again ---- */

struct sum {
	uint64_t ts, last_ts, samples, level, most, counter;
};
struct rows {
	size_t n;
	struct sum row[MOST];
};

static void add_up(const struct rows *from, uint64_t step_ms, struct rows *to)
{
	double sum = 0;

	to->n = 0;
	for (size_t i = 0; i < from->n; i++) {
		const struct sum *s = &from->row[i];
		uint64_t first = s->ts / step_ms * step_ms;
		struct sum *t = &to->row[to->n ? to->n - 1 : 0];

		if (!to->n || t->ts != first) {
			t = &to->row[to->n++];
			*t = (struct sum){ .ts = first };
			sum = 0;
		}
		sum += (double)s->level * (double)s->samples;
		t->samples += s->samples;
		t->level = (uint64_t)(sum / (double)t->samples + 0.5);
		t->most = s->most > t->most ? s->most : t->most;
		t->last_ts = s->last_ts;
		t->counter = s->counter;
	}
}

/* What the database has, in the order of time; of the host too, whose one number is a gauge. */
static void read_rows(const char *table, const char *vm, struct rows *ret)
{
	bool raw = !strchr(table, '_'), host = !strncmp(table, "host", 4);
	const char *number = host ? "free_bytes" : "resident_bytes";
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	char sql[300];

	snprintf(sql, sizeof sql, "SELECT ts, %s, %s, %s, %s%s, %s FROM %s %s%s%s ORDER BY ts", raw ? "ts" : "last_ts", raw ? "1" : "samples",
		number, number, raw ? "" : "_most", host ? "0" : "faults", table, host ? "" : "WHERE vm = '", host ? "" : vm, host ? "" : "'");
	CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	CHECK_MSG(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	ret->n = 0;
	while (sqlite3_step(s) == SQLITE_ROW) {
		uint64_t *to = (uint64_t *)&ret->row[ret->n++];

		CHECK(ret->n < MOST);
		for (int i = 0; i < 6; i++)
			to[i] = (uint64_t)sqlite3_column_int64(s, i);
	}
	sqlite3_finalize(s);
	sqlite3_close(db);
}

static struct rows is, should, next;

/* Each level of this VM (or the host) has what the seconds come to, up to the time that `now_ms` lies in; the text says what is wrong. */
static const char *compare(const char *kind, const char *vm, uint64_t now_ms)
{
	static char text[200];

	read_rows(kind, vm, &should);
	for (unsigned level = 1; level < LEVELS; level++) {
		char table[32];

		add_up(&should, levels[level].step_ms, &next);
		should = next;
		/* not over yet, nor any part of it */
		while (should.n && should.row[should.n - 1].ts == now_ms / levels[level].step_ms * levels[level].step_ms)
			should.n--;
		snprintf(table, sizeof table, "%s%s", kind, levels[level].suffix);
		read_rows(table, vm, &is);
		if (is.n != should.n) {
			snprintf(text, sizeof text, "%s of %s: %zu rows, should be %zu", table, vm, is.n, should.n);
			return text;
		}
		for (size_t i = 0; i < is.n; i++) {
			const struct sum *a = &is.row[i], *b = &should.row[i];

			if (!memcmp(a, b, sizeof *a))
				continue;
			snprintf(text, sizeof text, "%s of %s at %llu: average %llu, most %llu, counter %llu of %llu samples;"
				" should be %llu, %llu, %llu of %llu", table, vm, (unsigned long long)a->ts, (unsigned long long)a->level,
				(unsigned long long)a->most, (unsigned long long)a->counter, (unsigned long long)a->samples,
				(unsigned long long)b->level, (unsigned long long)b->most, (unsigned long long)b->counter,
				(unsigned long long)b->samples);
			return text;
		}
	}
	return NULL;
}

static void check_all(uint64_t now_ms)
{
	const char *wrong = compare("vm", "one", now_ms);

	CHECK_MSG(!wrong, "%s", wrong);
	wrong = compare("vm", "two", now_ms);
	CHECK_MSG(!wrong, "%s", wrong);
	wrong = compare("host", "", now_ms);
	CHECK_MSG(!wrong, "%s", wrong);
}

/* ---- rows ---- */

static uint64_t random_state = 1;

static uint64_t random_below(uint64_t n)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (random_state >> 33) % n;
}

static void put(struct record *r, uint64_t ts, uint64_t counter)
{
	record_vm(r, ts, "one", (uint64_t[]){ random_below(1ull << 40), counter });
	/* one that is not always there */
	if (ts / 50000 % 3)
		record_vm(r, ts, "two", (uint64_t[]){ random_below(1000), 2 * counter });
	record_host(r, ts, (uint64_t[]){ random_below(100) });
}

/* Until what was put is there. */
static void settle(struct record *r, uint64_t now_ms)
{
	for (int i = 0; i < 1000 && ask("SELECT count(*) FROM host WHERE ts = %llu", (unsigned long long)now_ms) == 0; i++)
		usleep(10000);
	(void)r;
	wait_rolled_up(now_ms);
}

static void what_rows_come_to(void)
{
	struct record_options o = options();
	struct record *r;
	uint64_t ts = BASE;

	begin();
	o.queue_max = 100000;
	r = open_record(&o);
	/* two hours and a half, with ticks that are late or left out, and an hour in which nobody was there */
	for (uint64_t i = 0; i < 5400; i++) {
		put(r, ts, i * i);
		if (i == 4000)
			settle(r, ts);
		ts += random_below(10) ? 1000 : random_below(10) ? 1000 + random_below(3000) : 15000;
		if (i == 2700)
			ts += 3600 * 1000;
	}
	put(r, ts, 5400 * 5400);
	settle(r, ts);
	check_all(ts);
	CHECK(ask("SELECT count(*) FROM vm_1h WHERE vm = 'one'") >= 3);
	CHECK_EQ(ask("SELECT count(*) FROM vm_seen"), 2);
	CHECK(ask("SELECT last_ts - first_ts FROM vm_seen WHERE vm = 'one'") > 5400000);
	record_close(r);
	/* the twins: this test sees one row that is missing, and one number that is another */
	tell("UPDATE vm_1m SET resident_bytes_most = resident_bytes_most + 1 WHERE ts = (SELECT max(ts) FROM vm_1m)");
	CHECK(compare("vm", "one", ts));
	tell("DELETE FROM host_10s WHERE ts = (SELECT min(ts) FROM host_10s)");
	CHECK(compare("host", "", ts));
	end();
}

/* Latencies are added by their histograms: the percentiles are those of all faults. */
static void latencies_are_added(void)
{
	struct record_options o = options();
	struct histogram_copy all[2] = { 0 };
	uint64_t ts = BASE / 3600000 * 3600000;
	struct record *r;

	begin();
	r = open_record(&o);
	for (uint64_t i = 0; i < 3600; i++, ts += 1000) {
		for (unsigned cause = 0; cause < 2; cause++) {
			struct histogram_copy h = { 0 };

			for (uint64_t n = random_below(4); n; n--) {
				uint64_t ns = random_below(1u << (10 + random_below(20)));

				histogram_count(&h, ns, 1);
				histogram_count(&all[cause], ns, 1);
				h.sum_ns += ns;
				all[cause].sum_ns += ns;
			}
			if (h.count)
				record_fault_latency(r, ts, "one", cause ? "zero" : "swapped", &h);
		}
		record_host(r, ts, (uint64_t[]){ i });
		if (i % 600 == 0)
			settle(r, ts);
	}
	record_host(r, ts, (uint64_t[]){ 0 });
	settle(r, ts);
	for (unsigned cause = 0; cause < 2; cause++) {
		const char *name = cause ? "zero" : "swapped";

		CHECK_EQ(ask("SELECT count(*) FROM fault_latency_1h WHERE cause = '%s'", name), 1);
		CHECK_EQ(ask("SELECT count FROM fault_latency_1h WHERE cause = '%s'", name), all[cause].count);
		CHECK_EQ(ask("SELECT sum_ns FROM fault_latency_1h WHERE cause = '%s'", name), all[cause].sum_ns);
		CHECK_EQ(ask("SELECT p50_ns FROM fault_latency_1h WHERE cause = '%s'", name), histogram_percentile_ns(&all[cause], 500));
		CHECK_EQ(ask("SELECT p99_ns FROM fault_latency_1h WHERE cause = '%s'", name), histogram_percentile_ns(&all[cause], 990));
		/* which is not what one gets from percentiles */
		CHECK(ask("SELECT avg(p99_ns) FROM fault_latency WHERE cause = '%s'", name) !=
			(long long)histogram_percentile_ns(&all[cause], 990));
	}
	CHECK_EQ(ask("SELECT sum(value) FROM fault_latency_1h, json_each(histogram)"), all[0].count + all[1].count);
	record_close(r);
	end();
}

/* The process dies at any time, again and again: everything is rolled up, once. */
static void kills_lose_and_double_nothing(void)
{
	uint64_t ts = BASE, counter = 0, begun = now_ns();
	unsigned kills = 0;

	begin();
	/* as many as there is time for */
	for (; kills < 40 && (kills <= 5 || now_ns() - begun < 15 * NS_PER_S); kills++) {
		int fds[2], status;
		char byte;
		pid_t pid;

		CHECK(!pipe(fds));
		pid = fork();
		if (!pid) {
			struct record_options o = options();
			struct record *r;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			r = open_record(&o);

			random_state = ts;
			for (uint64_t i = 0;; i++) {
				put(r, ts + i * 1000, counter + i);
				if (i == 20 && write(fds[1], "x", 1) != 1)
					_exit(1);
				if (i % 16 == 0)
					usleep(200);
			}
		}
		CHECK(read(fds[0], &byte, 1) == 1);
		usleep((useconds_t)random_below(30000));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		close(fds[0]);
		close(fds[1]);
		ts = (uint64_t)ask("SELECT coalesce(max(ts), %llu) FROM host", BASE) + 2000;
		counter = (uint64_t)ask("SELECT coalesce(max(faults), 0) FROM vm WHERE vm = 'one'") + 5;
		if (ts - BASE > 15000 * 1000)
			break;
	}
	CHECK_MSG(kills > 5, "%u", kills);
	{
		struct record_options o = options();
		struct record *r = open_record(&o);

		put(r, ts, counter);
		settle(r, ts);
		record_close(r);
	}
	check_all(ts);
	CHECK_EQ(kept_aside("*"), 0);
	end();
}

/* The twin: the mark of what is due is not kept with the rows.  Then what lies before the kill is never rolled up. */
static void without_marks_they_would(void)
{
	struct record_options o = options();
	uint64_t ts = BASE;
	struct record *r;

	begin();
	r = open_record(&o);
	for (; ts < BASE + 100000; ts += 1000)
		put(r, ts, ts);
	record_close(r);
	tell("DELETE FROM rollup");
	r = open_record(&o);
	for (; ts < BASE + 300000; ts += 1000)
		put(r, ts, ts);
	settle(r, ts - 1000);
	record_close(r);
	CHECK(compare("vm", "one", ts - 1000));
	end();
}

/* The clock is set back by ten minutes, later forward by a day. */
static void the_later_telling_wins(void)
{
	struct record_options o = options();
	uint64_t start = BASE / 3600000 * 3600000, t;
	struct record *r;

	begin();
	o.queue_max = 100000;
	r = open_record(&o);
	for (t = 0; t < 1200; t++) {
		record_vm(r, start + t * 1000, "one", (uint64_t[]){ 1, t });
		record_vm(r, start + t * 1000, "gone", (uint64_t[]){ 1, t });
		record_host(r, start + t * 1000, (uint64_t[]){ 1 });
	}
	settle(r, start + 1199 * 1000);
	CHECK_EQ(ask("SELECT count(*) FROM vm_1m WHERE vm = 'gone'"), 19);
	/* back: it goes on at once, and what it was is still there */
	record_vm(r, start + 600300, "one", (uint64_t[]){ 5, 1200 });
	record_host(r, start + 600300, (uint64_t[]){ 5 });
	settle(r, start + 600300);
	CHECK_EQ(ask("SELECT count(*) FROM vm WHERE vm = 'gone'"), 1200);
	for (t = 601; t < 1300; t++) {
		record_vm(r, start + t * 1000 + 300, "one", (uint64_t[]){ 5, 600 + t });
		record_host(r, start + t * 1000 + 300, (uint64_t[]){ 5 });
	}
	settle(r, start + 1299300);
	CHECK_EQ(ask("SELECT count(*) FROM host WHERE ts >= %llu AND free_bytes = 1", (unsigned long long)start + 601000), 0);
	CHECK_EQ(ask("SELECT count(*) FROM host WHERE ts >= %llu", (unsigned long long)start + 600300), 700);
	CHECK_EQ(ask("SELECT count(*) FROM vm_10s WHERE vm = 'gone' AND ts >= %llu", (unsigned long long)start + 610000), 0);
	CHECK_EQ(ask("SELECT count(*) FROM vm_10s WHERE vm = 'gone'"), 61);
	CHECK_EQ(ask("SELECT resident_bytes FROM vm_1m WHERE vm = 'one' AND ts = %llu", (unsigned long long)start + 660000), 5);
	CHECK_EQ(ask("SELECT resident_bytes FROM vm_1m WHERE vm = 'one' AND ts = %llu", (unsigned long long)start + 540000), 1);
	/* forwards: a gap, in which nothing is made up */
	t = start + 86400 * 1000;
	record_vm(r, t, "one", (uint64_t[]){ 9, 5000 });
	record_host(r, t, (uint64_t[]){ 9 });
	record_vm(r, t + 1000, "one", (uint64_t[]){ 9, 5001 });
	record_host(r, t + 1000, (uint64_t[]){ 9 });
	settle(r, t + 1000);
	CHECK_EQ(ask("SELECT count(*) FROM vm_1h"), 2);
	CHECK_EQ(ask("SELECT count(*) FROM host_1h"), 1);
	CHECK_EQ(ask("SELECT faults FROM vm_1h WHERE vm = 'one'"), 1899);
	record_close(r);
	{
		const char *wrong = compare("vm", "one", t + 1000);

		CHECK_MSG(!wrong, "%s", wrong);
	}
	end();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(what_rows_come_to), SCENARIO(latencies_are_added), SCENARIO(kills_lose_and_double_nothing),
		SCENARIO(without_marks_they_would), SCENARIO(the_later_telling_wins),
		{ 0 } });
}
