#include "record/latency.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct latency_sum {
	struct statement *rows, *insert;
};

char *latency_text(const struct histogram_copy *h)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	const char *between = "";

	if (!f)
		return NULL;
	fputc('{', f);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!h->bucket[i])
			continue;
		fprintf(f, "%s\"%" PRIu64 "\":%" PRIu64, between, histogram_edge_ns(i), h->bucket[i]);
		between = ",";
	}
	fputc('}', f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

void latency_read(struct histogram_copy *h, const char *text)
{
	uint64_t ns, n;
	int length;

	if (*text++ != '{')
		return;
	while (sscanf(text, "\"%" SCNu64 "\":%" SCNu64 "%n", &ns, &n, &length) == 2) {
		histogram_count(h, ns, n);
		text += length;
		text += *text == ',';
	}
}

int latency_sum_new(struct latency_sum **ret, struct database *d, const char *from, const char *to)
{
	struct latency_sum *l = calloc(1, sizeof *l);
	char sql[200];
	int r;

	if (!l)
		return DATABASE_NO_MEMORY;
	snprintf(sql, sizeof sql, "SELECT vm, cause, sum_ns, histogram FROM fault_latency%s WHERE ts >= ?1 AND ts < ?2"
		" ORDER BY vm, cause", from);
	r = database_prepare(d, &l->rows, sql);
	if (!r) {
		snprintf(sql, sizeof sql, "INSERT INTO fault_latency%s (ts, vm, cause, p50_ns, p99_ns, count, sum_ns, histogram)"
			" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", to);
		r = database_prepare(d, &l->insert, sql);
	}
	if (r) {
		latency_sum_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void latency_sum_free(struct latency_sum *l)
{
	if (!l)
		return;
	statement_free(l->rows);
	statement_free(l->insert);
	free(l);
}

void latency_bind(struct statement *s, int at, const struct histogram_copy *h, const char *text)
{
	statement_bind(s, at, histogram_percentile_ns(h, 500));
	statement_bind(s, at + 1, histogram_percentile_ns(h, 990));
	statement_bind(s, at + 2, h->count);
	statement_bind(s, at + 3, h->sum_ns);
	statement_bind_text(s, at + 4, text);
}

static int insert(struct latency_sum *l, uint64_t ts_ms, const char *vm, const char *cause, const struct histogram_copy *h)
{
	char *text = latency_text(h);
	int r = DATABASE_NO_MEMORY;

	if (text) {
		statement_bind(l->insert, 1, ts_ms);
		statement_bind_text(l->insert, 2, vm);
		statement_bind_text(l->insert, 3, cause);
		latency_bind(l->insert, 4, h, text);
		r = statement_do(l->insert);
	}
	free(text);
	return r;
}

int latency_sum_run(struct latency_sum *l, uint64_t first_ms, uint64_t end_ms)
{
	struct histogram_copy h = { 0 };
	char vm[64] = "", cause[32] = "";
	int r;

	statement_bind(l->rows, 1, first_ms);
	statement_bind(l->rows, 2, end_ms);
	while ((r = statement_step(l->rows)) > 0) {
		const char *of = statement_text(l->rows, 0), *by = statement_text(l->rows, 1);

		if (strcmp(of, vm) || strcmp(by, cause)) {
			if (h.count && (r = insert(l, first_ms, vm, cause, &h)) < 0)
				break;
			h = (struct histogram_copy){ 0 };
			snprintf(vm, sizeof vm, "%s", of);
			snprintf(cause, sizeof cause, "%s", by);
		}
		h.sum_ns += statement_number(l->rows, 2);
		latency_read(&h, statement_text(l->rows, 3));
	}
	if (!r && h.count)
		r = insert(l, first_ms, vm, cause, &h);
	statement_reset(l->rows);
	return r;
}
