#include "record/rollup.h"

#include "record/latency.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_AT_ONCE 32
#define TABLES		3
static const char *const tables[TABLES] = { "vm", "host", "fault_latency" };

struct rollup {
	struct database *d;
	uint64_t marked;		/* the first of the 10 s that were marked last; UINT64_MAX: none */
	struct statement *mark, *unmark, *due, *seen;
	/* by the level that is made; [0] stays empty */
	struct statement *take_away[LEVELS][TABLES], *sum[LEVELS][2];
	struct latency_sum *latency[LEVELS];
};

/* The rows of [?1, ?2) of the level before, as one row a VM (or of the host) of this level. */
static char *sum_sql(unsigned level, const char *table, bool has_vm, const struct record_number *numbers, size_t n)
{
	const char *from = levels[level - 1].suffix;
	bool raw = level == 1;
	char *sql = NULL;
	size_t size;
	FILE *f = open_memstream(&sql, &size);

	if (!f)
		return NULL;
	fprintf(f, "INSERT INTO %s%s (ts%s, last_ts, samples", table, levels[level].suffix, has_vm ? ", vm" : "");
	for (size_t i = 0; i < n; i++) {
		fprintf(f, ", \"%s\"", numbers[i].name);
		if (!number_is_counter(&numbers[i]))
			fprintf(f, ", \"%s_most\"", numbers[i].name);
	}
	fprintf(f, ") SELECT ?1%s, s.last_ts, s.samples", has_vm ? ", s.vm" : "");
	for (size_t i = 0; i < n; i++) {
		if (number_is_counter(&numbers[i]))
			fprintf(f, ", l.\"%s\"", numbers[i].name);
		else
			fprintf(f, ", s.\"%s\", s.\"%s_most\"", numbers[i].name, numbers[i].name);
	}
	fprintf(f, " FROM (SELECT %smax(ts) AS at, max(%s) AS last_ts, sum(%s) AS samples", has_vm ? "vm, " : "",
		raw ? "ts" : "last_ts", raw ? "1" : "samples");
	for (size_t i = 0; i < n; i++) {
		const char *name = numbers[i].name;

		if (!number_is_counter(&numbers[i]))
			fprintf(f, ", CAST(round(sum(\"%s\" * %s) / sum(%s)) AS INTEGER) AS \"%s\", max(\"%s%s\") AS \"%s_most\"",
				name, raw ? "1.0" : "1.0 * samples", raw ? "1" : "samples", name, name, raw ? "" : "_most", name);
	}
	/* without a row there is no last one, and nothing is inserted */
	fprintf(f, " FROM %s%s WHERE ts >= ?1 AND ts < ?2%s) s JOIN %s%s l ON l.ts = s.at%s", table, from,
		has_vm ? " GROUP BY vm" : "", table, from, has_vm ? " AND l.vm = s.vm" : "");
	if (fclose(f)) {
		free(sql);
		return NULL;
	}
	return sql;
}

static int prepare_sum(struct rollup *u, unsigned level, unsigned table, const struct record_number *numbers, size_t n)
{
	char *sql = sum_sql(level, tables[table], table == 0, numbers, n);
	int r = sql ? database_prepare(u->d, &u->sum[level][table], sql) : DATABASE_NO_MEMORY;

	free(sql);
	return r;
}

static int prepare_level(struct rollup *u, unsigned level, const struct record_numbers *n)
{
	int r = 0;

	for (unsigned t = 0; t < TABLES && !r; t++) {
		char sql[96];

		snprintf(sql, sizeof sql, "DELETE FROM %s%s WHERE ts = ?1", tables[t], levels[level].suffix);
		r = database_prepare(u->d, &u->take_away[level][t], sql);
	}
	if (!r)
		r = prepare_sum(u, level, 0, n->vm, n->n_vm);
	if (!r)
		r = prepare_sum(u, level, 1, n->host, n->n_host);
	return r ? r : latency_sum_new(&u->latency[level], u->d, levels[level - 1].suffix, levels[level].suffix);
}

int rollup_new(struct rollup **ret, struct database *d, const struct record_numbers *n)
{
	struct rollup *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return DATABASE_NO_MEMORY;
	u->d = d;
	u->marked = UINT64_MAX;
	r = database_prepare(d, &u->mark, "INSERT OR IGNORE INTO rollup VALUES (?1, ?2)");
	if (!r)
		r = database_prepare(d, &u->unmark, "DELETE FROM rollup WHERE step_ms = ?1 AND ts = ?2");
	/* the finest first, so that all of which something is made is there; of the coarser ones what has no finer part due */
	if (!r)
		r = database_prepare(d, &u->due, "SELECT step_ms, ts FROM rollup WHERE ts <> ?1 / step_ms * step_ms"
			" ORDER BY step_ms, ts LIMIT 1");
	if (!r)
		r = database_prepare(d, &u->seen, "INSERT INTO vm_seen SELECT vm, ts, last_ts FROM vm_10s WHERE ts = ?1"
			" ON CONFLICT (vm) DO UPDATE SET first_ts = min(first_ts, excluded.first_ts), last_ts = max(last_ts, excluded.last_ts)");
	for (unsigned level = 1; level < LEVELS && !r; level++)
		r = prepare_level(u, level, n);
	if (r) {
		rollup_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

void rollup_free(struct rollup *u)
{
	if (!u)
		return;
	statement_free(u->mark);
	statement_free(u->unmark);
	statement_free(u->due);
	statement_free(u->seen);
	for (unsigned level = 0; level < LEVELS; level++) {
		for (unsigned t = 0; t < TABLES; t++)
			statement_free(u->take_away[level][t]);
		statement_free(u->sum[level][0]);
		statement_free(u->sum[level][1]);
		latency_sum_free(u->latency[level]);
	}
	free(u);
}

static int do_2(struct statement *s, uint64_t a, uint64_t b)
{
	statement_bind(s, 1, a);
	statement_bind(s, 2, b);
	return statement_do(s);
}

int rollup_mark(struct rollup *u, uint64_t ts_ms)
{
	uint64_t first = ts_ms - ts_ms % levels[1].step_ms;
	int r;

	if (first == u->marked)
		return 0;
	r = do_2(u->mark, levels[1].step_ms, first);
	if (!r)
		u->marked = first;
	return r;
}

void rollup_unmark(struct rollup *u)
{
	u->marked = UINT64_MAX;
}

static int compute(struct rollup *u, unsigned level, uint64_t ts)
{
	uint64_t end = ts + levels[level].step_ms;
	int r = 0;

	for (unsigned t = 0; t < TABLES && !r; t++) {
		statement_bind(u->take_away[level][t], 1, ts);
		r = statement_do(u->take_away[level][t]);
	}
	for (unsigned t = 0; t < 2 && !r; t++)
		r = do_2(u->sum[level][t], ts, end);
	if (!r)
		r = latency_sum_run(u->latency[level], ts, end);
	if (!r && level == 1) {
		statement_bind(u->seen, 1, ts);
		r = statement_do(u->seen);
	}
	if (!r)
		r = do_2(u->unmark, levels[level].step_ms, ts);
	if (!r && level + 1 < LEVELS)
		r = do_2(u->mark, levels[level + 1].step_ms, ts - ts % levels[level + 1].step_ms);
	return r;
}

/* 1: this is due. */
static int next_due(struct rollup *u, uint64_t now_ms, unsigned *ret_level, uint64_t *ret_ts)
{
	uint64_t step_ms;
	int r;

	statement_bind(u->due, 1, now_ms);
	r = statement_step(u->due);
	if (r > 0) {
		step_ms = statement_number(u->due, 0);
		*ret_ts = statement_number(u->due, 1);
		for (*ret_level = 1; *ret_level < LEVELS && levels[*ret_level].step_ms != step_ms; ++*ret_level)
			;
	}
	statement_reset(u->due);
	return r;
}

int rollup_run(struct rollup *u, uint64_t now_ms)
{
	unsigned level, done = 0;
	uint64_t ts;
	int r = next_due(u, now_ms, &level, &ts);

	/* mostly nothing is, and then nothing is written */
	if (r <= 0)
		return r;
	r = database_begin(u->d);
	if (r < 0)
		return r;
	do {
		/* a mark of a level that we do not have: of nobody we know */
		r = level < LEVELS ? compute(u, level, ts) : database_run(u->d, "DELETE FROM rollup WHERE ts = %lld", (long long)ts);
		if (!r)
			r = next_due(u, now_ms, &level, &ts);
	} while (r > 0 && ++done < BUCKETS_AT_ONCE);
	return database_end(u->d, r);
}
