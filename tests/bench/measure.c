#include "measure.h"
#include "content.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

void die_at(const char *file, int line, const char *fmt, ...)
{
	int e = errno;
	va_list ap;

	fprintf(stderr, "%s:%d: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (%s)\n", strerror(e));
	exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

void follow_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void samples_add(struct samples *s, double us)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 16384;
		s->v = realloc(s->v, s->cap * sizeof *s->v);
		if (!s->v)
			die("memory for samples");
	}
	s->v[s->n++] = us;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

void samples_reply(struct samples *s, const char *more)
{
	double sum = 0;

	if (!s->n) {
		printf("{\"n\":0%s}\n", more);
		fflush(stdout);
		return;
	}
	qsort(s->v, s->n, sizeof *s->v, by_value);
	for (size_t i = 0; i < s->n; i++)
		sum += s->v[i];
	printf("{\"n\":%zu,\"mean\":%.4f,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"max\":%.4f%s}\n", s->n,
		sum / (double)s->n, s->v[s->n / 2], s->v[s->n * 9 / 10], s->v[s->n * 99 / 100], s->v[s->n - 1],
		more);
	fflush(stdout);
	s->n = 0;
}

void touch_timed(uint8_t *base, const uint32_t *pages, size_t n, enum access access, struct samples *ret)
{
	for (size_t i = 0; i < n; i++) {
		volatile uint8_t *p = base + pages[i] * PAGE_BYTES + TOUCH_OFFSET;
		uint64_t before = now_ns();

		if (access == ACCESS_WRITE)
			*p = 1;
		else
			(void)*p;
		samples_add(ret, (double)(now_ns() - before) / 1000);
	}
}

unsigned command_read(char *line, size_t size, char *words[WORDS_MAX])
{
	unsigned n = 0;
	char *save = NULL;

	if (!fgets(line, (int)size, stdin))
		return 0;
	for (char *w = strtok_r(line, " \n", &save); w && n < WORDS_MAX; w = strtok_r(NULL, " \n", &save))
		words[n++] = w;
	for (unsigned i = n; i < WORDS_MAX; i++)
		words[i] = NULL;
	return n;
}

uint64_t number(const char *word)
{
	char *end = NULL;
	uint64_t v = word ? strtoull(word, &end, 10) : 0;

	if (!word || *end)
		die("not a number: %s", word ? word : "(nothing)");
	return v;
}
