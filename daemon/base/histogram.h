/* A latency histogram that one thread adds to while others read: four buckets an octave, so a percentile is
 * right to within a quarter (the upper edge of its bucket is reported).  Adding is two relaxed stores: no
 * lock, no allocation, fit for the fault path. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS 144 /* 2^0 ns ... 2^36 ns (68 s) */

struct histogram {
	_Atomic uint64_t bucket[HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_ns;
};

struct histogram_copy {
	uint64_t bucket[HISTOGRAM_BUCKETS];
	uint64_t sum_ns;
	uint64_t count;
};

void histogram_add(struct histogram *h, uint64_t ns);
/* Add what h holds to the copy, so that several histograms sum into one. */
void histogram_sum(const struct histogram *h, struct histogram_copy *to);
/* Add `n` of them that took so long: what has been written down by its buckets' upper edges is read back exactly. */
void histogram_count(struct histogram_copy *c, uint64_t ns, uint64_t n);
/* The longest time that bucket `b` holds. */
uint64_t histogram_edge_ns(unsigned b);
/* How many took less than 2^octave ns, for octaves from 2 on. */
uint64_t histogram_below(const struct histogram_copy *c, unsigned octave);
/* `per_mille` 500 is the median; 0 if empty. */
uint64_t histogram_percentile_ns(const struct histogram_copy *c, unsigned per_mille);
