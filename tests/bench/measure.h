/* Time, samples and the line protocol of the benchmark programs: one command a line on stdin, one JSON object
 * a line on stdout; anything else goes to stderr. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A benchmark that cannot measure must not go on: say why, with errno, and exit. */
#define die(...) die_at(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void die_at(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

uint64_t now_ns(void);
/* CPU time of this process, all threads. */
uint64_t cpu_ns(void);
/* Die with the parent: a benchmark that is killed leaves nobody behind. */
void follow_parent(void);

struct samples {
	double *v;
	size_t n, cap;
};
void samples_add(struct samples *s, double us);
/* Prints {"n":..,"mean":..,"p50":..,"p90":..,"p99":..,"max":..<more>} and empties s; `more` is empty or
 * begins with a comma. */
void samples_reply(struct samples *s, const char *more);

enum access { ACCESS_READ, ACCESS_WRITE };
/* The byte that ACCESS_WRITE sets to 1 in each page. */
#define TOUCH_OFFSET 16

/* The one loop that times faults, so that both sides are measured by the same instructions. */
void touch_timed(uint8_t *base, const uint32_t *pages, size_t n, enum access access, struct samples *ret);

/* Reads one command; splits it at blanks; the number of words, 0 at the end of input. */
#define WORDS_MAX 8
unsigned command_read(char *line, size_t size, char *words[WORDS_MAX]);
uint64_t number(const char *word);
