/* Latencies of faults as text, and their sums over time. */
#pragma once

#include "base/histogram.h"
#include "record/database.h"

#include <stdint.h>

/* {"longest ns of a bucket": faults, ...}: any tool can add them.  malloc'ed; NULL: no memory. */
char *latency_text(const struct histogram_copy *h);
/* Add what such a text says; what is none adds nothing. */
void latency_read(struct histogram_copy *h, const char *text);

/* Rows of a table into one a VM and cause of another. */
struct latency_sum;
int latency_sum_new(struct latency_sum **ret, struct database *d, const char *from, const char *to);
void latency_sum_free(struct latency_sum *l);
/* Those of [first_ms, end_ms). */
int latency_sum_run(struct latency_sum *l, uint64_t first_ms, uint64_t end_ms);

/* The parameters p50_ns, p99_ns, count, sum_ns, histogram of an insert, from `at` on; `text` as statement_bind_text wants it. */
void latency_bind(struct statement *s, int at, const struct histogram_copy *h, const char *text);
