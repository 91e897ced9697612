/* A guest of a fleet: memory full of the mix, and threads that work on it in one of the patterns that real guests have.
 *
 *	load CORPUS GUEST[:LAYOUT] MIB HOW...		HOW: region.h
 *
 * An operation is one access to one page: of ten, seven read and three write.  A reader looks at the page's stamp and at
 * the word that this thread wrote there last, a writer writes another value to that word; so every read is checked, a
 * page that was written is like no other any more, and `verify` knows each word.  Each thread has a word of its own in
 * each page, so they need no lock.  The latency of an operation is the time of these accesses only.
 *
 *	fill				write the mix, by all threads
 *	run PATTERN MS SEED		all threads, for so long
 *	boot ACCESSES SEED		from nothing: fill page by page, and after each make so many accesses to those filled
 *	verify STEP			compare all that was written to, and each STEP-th page, as a whole
 *	quit
 *
 * Patterns:
 *	zipf	rank r is accessed in proportion to r^-0.99; ranks are dealt to the pages at random
 *	phases	anywhere in a quarter of the memory, half a second long; then in another one
 *	scans	64 pages in order, to the end of memory and from its beginning again, in turns with 64 accesses as zipf's
 */
#include "content.h"
#include "measure.h"
#include "region.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#define THREADS	     2u
#define EXPONENT     0.99
#define PHASE_NS     500000000ull
#define PHASE_PARTS  4u
#define SCAN_RUN     64u

/* Latencies: eight steps an octave. */
#define STEPS	     8u
#define BUCKETS	     (40 * STEPS)

enum pattern { ZIPF, PHASES, SCANS, PATTERNS };
static const char *const pattern_names[PATTERNS] = { [ZIPF] = "zipf", [PHASES] = "phases", [SCANS] = "scans" };

static struct {
	struct content content;
	struct region region;
	uint32_t pages;
	uint16_t *word;			/* page -> its stamp; the threads' own follow it */
	uint32_t *written[THREADS];	/* page -> what the word was last made of, 0: as it was filled */
	uint32_t *dealt;		/* rank -> page */
	double zipf_top;
} g;

struct thread {
	pthread_t id;
	unsigned number;
	enum pattern pattern;
	uint64_t seed, phases_seed, began, end;
	uint32_t first, count, accesses;	/* boot: its own part */
	uint32_t scanned, value;
	uint64_t ops, wrong;
	uint32_t latencies[BUCKETS];
};

static uint64_t *words_of(uint32_t page)
{
	return (uint64_t *)(g.region.base + (size_t)page * PAGE_BYTES);
}

static size_t own_word(uint32_t page, unsigned thread)
{
	return (g.word[page] + 1 + thread) % PAGE_WORDS;
}

static uint64_t value_of(uint32_t value)
{
	return value * 0x9e3779b97f4a7c15ull;
}

/* ---- one access ---- */

static unsigned bucket(uint64_t ns)
{
	unsigned octave = 63 - (unsigned)__builtin_clzll(ns | STEPS);
	unsigned b = (octave - 3) * STEPS + (unsigned)(ns >> (octave - 3)) % STEPS;

	return b < BUCKETS ? b : BUCKETS - 1;
}

/* Returns when it ended. */
static uint64_t operate(struct thread *t, uint32_t page, bool write)
{
	volatile uint64_t *words = words_of(page);
	size_t own = own_word(page, t->number);
	uint32_t *written = &g.written[t->number][page];
	uint64_t before = now_ns(), after, stamp, value = 0;

	if (write) {
		*written = ++t->value ? t->value : ++t->value;
		words[own] = value_of(*written);
		after = now_ns();
	} else {
		stamp = words[g.word[page]];
		value = words[own];
		after = now_ns();
		t->wrong += stamp != content_stamp(&g.content, page) || (*written && value != value_of(*written));
	}
	t->latencies[bucket(after - before)]++;
	t->ops++;
	return after;
}

/* ---- which page is next ---- */

/* A rank below n, r with a probability that is like (r + 1)^-EXPONENT: the distribution's integral, inverted. */
static uint32_t rank(uint64_t *seed, double top)
{
	double u = (double)(chance(seed) >> 11) * 0x1p-53;

	return (uint32_t)(pow(1 + u * top, 1 / (1 - EXPONENT)) - 1);
}

static double top_of(uint32_t n)
{
	return pow(n + 1, 1 - EXPONENT) - 1;
}

static uint32_t by_zipf(struct thread *t)
{
	uint32_t r = rank(&t->seed, g.zipf_top);

	return g.dealt[r < g.pages ? r : g.pages - 1];
}

static uint32_t by_phase(struct thread *t, uint64_t now)
{
	uint64_t s = t->phases_seed + (now - t->began) / PHASE_NS;
	uint32_t part = g.pages / PHASE_PARTS, first = (uint32_t)(chance(&s) % (g.pages - part));

	return first + (uint32_t)(chance(&t->seed) % part);
}

static uint32_t by_scan(struct thread *t)
{
	if (t->ops / SCAN_RUN % 2)
		return by_zipf(t);
	return t->scanned = (t->scanned + 1) % g.pages;
}

static void *running(void *arg)
{
	struct thread *t = arg;
	uint64_t now = t->began;

	while (now < t->end) {
		uint32_t page = t->pattern == ZIPF ? by_zipf(t) : t->pattern == PHASES ? by_phase(t, now) : by_scan(t);

		now = operate(t, page, chance(&t->seed) % 10 < 3);
	}
	return NULL;
}

static void *booting(void *arg)
{
	struct thread *t = arg;

	for (uint32_t i = 0; i < t->count; i++) {
		double top = top_of(i + 1);
		uint64_t before = now_ns();

		content_fill(&g.content, t->first + i, words_of(t->first + i));
		t->latencies[bucket(now_ns() - before)]++;
		t->ops++;
		for (uint32_t k = 0; k < t->accesses; k++) {
			uint32_t back = rank(&t->seed, top);

			operate(t, t->first + i - (back <= i ? back : i), chance(&t->seed) % 10 < 3);
		}
	}
	return NULL;
}

static void *filling(void *arg)
{
	struct thread *t = arg;

	for (uint32_t i = t->first; i < t->first + t->count; i++)
		content_fill(&g.content, i, words_of(i));
	return NULL;
}

/* ---- commands ---- */

static uint64_t all_threads(struct thread *threads, void *(*body)(void *))
{
	uint64_t wrong = 0;

	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i].id, NULL, body, &threads[i]))
			die("thread");
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		wrong += threads[i].wrong;
	}
	return wrong;
}

static void prepare(struct thread *threads, uint64_t seed)
{
	uint32_t part = g.pages / THREADS;

	for (unsigned i = 0; i < THREADS; i++)
		threads[i] = (struct thread){ .number = i, .seed = seed * 1000003 + g.content.guest * 64 + i,
			.phases_seed = seed * 7919 + g.content.guest * 1000, .first = i * part,
			.count = i == THREADS - 1 ? g.pages - i * part : part, .scanned = i * part, .value = (uint32_t)seed << 24 };
}

/* {"ops", "wrong", "seconds", "cpu_s", "latencies": {bucket: count}}; a bucket is told by its lower end in ns. */
static void reply(const struct thread *threads, uint64_t wrong, uint64_t wall, uint64_t cpu)
{
	const char *comma = "";
	uint64_t ops = 0;

	for (unsigned i = 0; i < THREADS; i++)
		ops += threads[i].ops;
	printf("{\"ops\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"seconds\":%.9f,\"cpu_s\":%.9f,\"latencies\":{", ops, wrong,
		(double)(now_ns() - wall) / 1e9, (double)(cpu_ns() - cpu) / 1e9);
	for (unsigned b = 0; b < BUCKETS; b++) {
		uint64_t n = 0;

		for (unsigned i = 0; i < THREADS; i++)
			n += threads[i].latencies[b];
		if (!n)
			continue;
		printf("%s\"%" PRIu64 "\":%" PRIu64, comma, (uint64_t)(STEPS + b % STEPS) << b / STEPS, n);
		comma = ",";
	}
	printf("}}\n");
	fflush(stdout);
}

static void fill(void)
{
	struct thread threads[THREADS];
	uint64_t wall = now_ns(), cpu = cpu_ns();

	prepare(threads, 0);
	all_threads(threads, filling);
	reply(threads, 0, wall, cpu);
}

static void run(const char *name, uint64_t ms, uint64_t seed)
{
	struct thread threads[THREADS];
	uint64_t wall = now_ns(), cpu = cpu_ns(), wrong;
	enum pattern p = 0;

	while (p < PATTERNS && strcmp(name, pattern_names[p]))
		p++;
	if (p == PATTERNS)
		die("no pattern %s", name);
	prepare(threads, seed);
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i].pattern = p;
		threads[i].began = wall;
		threads[i].end = wall + ms * 1000000;
	}
	wrong = all_threads(threads, running);
	reply(threads, wrong, wall, cpu);
}

static void boot(uint32_t accesses, uint64_t seed)
{
	struct thread threads[THREADS];
	uint64_t wall = now_ns(), cpu = cpu_ns(), wrong;

	prepare(threads, seed);
	for (unsigned i = 0; i < THREADS; i++)
		threads[i].accesses = accesses;
	wrong = all_threads(threads, booting);
	reply(threads, wrong, wall, cpu);
}

static void verify(uint32_t step)
{
	uint64_t expected[PAGE_WORDS], checked = 0, wrong = 0;

	for (uint32_t i = 0; i < g.pages; i++) {
		bool touched = false;

		for (unsigned t = 0; t < THREADS; t++)
			touched |= g.written[t][i] != 0;
		if (!touched && i % step)
			continue;
		content_fill(&g.content, i, expected);
		for (unsigned t = 0; t < THREADS; t++)
			if (g.written[t][i])
				expected[own_word(i, t)] = value_of(g.written[t][i]);
		wrong += memcmp(expected, words_of(i), PAGE_BYTES) != 0;
		checked++;
	}
	printf("{\"pages\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", checked, wrong);
	fflush(stdout);
}

static int command(unsigned n, char **w)
{
	if (!strcmp(w[0], "fill") && n == 1)
		fill();
	else if (!strcmp(w[0], "run") && n == 4)
		run(w[1], number(w[2]), number(w[3]));
	else if (!strcmp(w[0], "boot") && n == 3)
		boot((uint32_t)number(w[1]), number(w[2]));
	else if (!strcmp(w[0], "verify") && n == 2)
		verify((uint32_t)number(w[1]));
	else if (strcmp(w[0], "quit"))
		die("unknown command %s with %u words", w[0], n);
	else
		return 0;
	return 1;
}

static void *table(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("memory for %zu pages", n);
	return p;
}

int main(int argc, char **argv)
{
	char line[512], *words[WORDS_MAX];
	unsigned n;

	if (argc < 5)
		die("usage: load CORPUS GUEST[:LAYOUT] MIB " REGION_USAGE);
	follow_parent();
	g.pages = (uint32_t)(number(argv[3]) << 20 >> 12);
	content_open(&g.content, argv[1], argv[2], g.pages);
	g.word = table(g.pages, sizeof *g.word);
	g.dealt = table(g.pages, sizeof *g.dealt);
	for (unsigned t = 0; t < THREADS; t++)
		g.written[t] = table(g.pages, sizeof *g.written[t]);
	for (uint32_t i = 0; i < g.pages; i++) {
		g.word[i] = (uint16_t)content_word(&g.content, i);
		g.dealt[i] = i;
	}
	shuffle(g.dealt, g.pages, 4711 + g.content.guest);
	g.zipf_top = top_of(g.pages);
	region_open(&g.region, (size_t)g.pages * PAGE_BYTES, argv + 4);
	printf("{\"ok\":true,\"faults\":\"%s\"}\n", region_faults(&g.region));
	fflush(stdout);
	while ((n = command_read(line, sizeof line, words)) && command(n, words))
		;
	region_close(&g.region);
	return 0;
}
