/* The neighbour of an attacker: a VM that does its work, looks at every byte, and measures how long it waits.
 *
 * Its limit is a quarter of its size, so three touches in four are faults, of pages that are compressed, swapped, or zero.  Commands on
 * stdin, one answer a line on stdout:
 *
 *	round MS	work for so long -> one JSON object: touches, wrong pages, calls; the median, the 99th percentile and the longest
 *			wait of both, in microseconds
 *	quit
 *
 *	honest NAME MIB */
#include "libclient/memctl.h"
#include "tests/torture/content.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE	   4096ull
#define CALL_EVERY 16	/* touches */
#define WAITS_MAX  (1u << 20)

struct waits {
	unsigned n;
	float us[WAITS_MAX];
};

static struct waits touches, calls;
static uint64_t *sequences;	/* of each page; 0: never written */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void add(struct waits *w, double us)
{
	if (w->n < WAITS_MAX)
		w->us[w->n++] = (float)us;
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void print_waits(const char *name, struct waits *w)
{
	qsort(w->us, w->n, sizeof *w->us, compare);
	printf("\"%s\": %u, \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f, ", name, w->n, name,
		w->n ? (double)w->us[w->n / 2] : 0., name, w->n ? (double)w->us[(uint64_t)w->n * 99 / 100] : 0., name,
		w->n ? (double)w->us[w->n - 1] : 0.);
}

static struct content content_of(uint64_t page)
{
	uint64_t n = sequences[page];

	return (struct content){ .seed = 5, .owner = 77, .page = page, .sequence = n,
		.kind = n ? content_mix(page + n) : (uint32_t)CONTENT_ZERO };
}

/* Touch one page, and look at all of it; now and then write something new there.  Whether it was right. */
static bool work(uint8_t *at, uint64_t page, bool write)
{
	static uint8_t want[CONTENT_PAGE];
	struct content c = content_of(page);
	bool right;

	content_make(want, &c);
	right = !memcmp(at, want, PAGE);
	if (write) {
		sequences[page]++;
		c = content_of(page);
		content_make(want, &c);
		memcpy(at, want, PAGE);
	}
	return right;
}

static void work_for(struct memctl_lease *l, uint64_t ms)
{
	static uint64_t random = 1;
	uint64_t pages = memctl_lease_size(l) / PAGE, wrong = 0, failed = 0;
	double end_us = now_us() + (double)ms * 1e3;
	struct memctl_error e;

	touches.n = calls.n = 0;
	for (unsigned i = 0; now_us() < end_us; i++) {
		uint64_t page = random_below(&random, pages);
		uint8_t *at = (uint8_t *)memctl_lease_address(l) + page * PAGE;
		double begin_us = now_us();

		(void)*(volatile uint8_t *)at;
		add(&touches, now_us() - begin_us);
		wrong += !work(at, page, random_below(&random, 4) == 0);
		if (i % CALL_EVERY)
			continue;
		begin_us = now_us();
		failed += memctl_will_need(l, page * PAGE, PAGE, &e) < 0;
		add(&calls, now_us() - begin_us);
	}
	printf("{");
	print_waits("touches", &touches);
	print_waits("calls", &calls);
	printf("\"wrong\": %" PRIu64 ", \"failed_calls\": %" PRIu64 "}\n", wrong, failed);
}

int main(int argc, char **argv)
{
	uint64_t size = argc == 3 ? strtoull(argv[2], NULL, 10) << 20 : 0;
	struct memctl_options options = { .struct_size = sizeof options, .timeout_ms = 60000 };
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = argv[1], .size = size, .limit = size / 4 };
	struct memctl_error e = { 0 };
	struct memctl *m = NULL;
	struct memctl_lease *l = NULL;
	char line[64];

	if (!size)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	sequences = calloc(size / PAGE, sizeof *sequences);
	if (!sequences || memctl_connect(&options, &m, &e) < 0 || memctl_register(m, &vm, &e) < 0 ||
		memctl_helper_start(m, &e) < 0 || memctl_lease(m, 0, size, &l, &e) < 0) {
		printf("error %s %s\n", e.name, e.message);
		return 1;
	}
	for (uint64_t page = 0; page < size / PAGE; page++)
		if (page % 8 && !work((uint8_t *)memctl_lease_address(l) + page * PAGE, page, true))
			return 1;
	puts("ready");
	while (fgets(line, sizeof line, stdin) && strcmp(line, "quit\n"))
		if (!strncmp(line, "round ", 6))
			work_for(l, strtoull(line + 6, NULL, 10));
	memctl_release(l, &e);
	memctl_free(m);
	free(sequences);
	return 0;
}
