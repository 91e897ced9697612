#include "base/histogram.h"

static unsigned bucket_of(uint64_t ns)
{
	unsigned octave, b;

	if (ns < 4)
		return (unsigned)ns;
	octave = 63u - (unsigned)__builtin_clzll(ns);
	b = octave * 4 + (unsigned)((ns >> (octave - 2)) & 3);
	return b < HISTOGRAM_BUCKETS ? b : HISTOGRAM_BUCKETS - 1;
}

uint64_t histogram_edge_ns(unsigned b)
{
	unsigned octave = b / 4;

	if (b < 8)
		return b;
	return (1ull << octave) + ((uint64_t)(b % 4 + 1) << (octave - 2)) - 1;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	atomic_fetch_add_explicit(&h->bucket[bucket_of(ns)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_ns, ns, memory_order_relaxed);
}

void histogram_sum(const struct histogram *h, struct histogram_copy *to)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t n = atomic_load_explicit(&h->bucket[i], memory_order_relaxed);

		to->bucket[i] += n;
		to->count += n;
	}
	to->sum_ns += atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
}

void histogram_count(struct histogram_copy *c, uint64_t ns, uint64_t n)
{
	c->bucket[bucket_of(ns)] += n;
	c->count += n;
}

uint64_t histogram_below(const struct histogram_copy *c, unsigned octave)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < octave * 4 && i < HISTOGRAM_BUCKETS; i++)
		n += c->bucket[i];
	return n;
}

uint64_t histogram_percentile_ns(const struct histogram_copy *c, unsigned per_mille)
{
	uint64_t want = (c->count * per_mille + 999) / 1000, seen = 0;

	if (!c->count)
		return 0;
	if (!want)
		want = 1;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += c->bucket[i];
		if (seen >= want)
			return histogram_edge_ns(i);
	}
	return histogram_edge_ns(HISTOGRAM_BUCKETS - 1);
}
