/* The frame of every test program in C: named scenarios, each in a process of its own, one line a scenario on
 * stdout ("ok NAME", "not ok NAME: why", "skip NAME: why"), which tests/run collects.
 *
 *	static void rounds_up(void) { CHECK(round_up(1, 8) == 8); }
 *	int main(int argc, char **argv)
 *	{
 *		return check_main(argc, argv, (const struct scenario[]){ SCENARIO(rounds_up), { 0 } });
 *	}
 *
 * A scenario ends at its first failed CHECK.  Arguments choose scenarios by name; --list names them. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

struct scenario {
	const char *name;
	void (*run)(void);
	unsigned timeout_s;	/* 0: 60 */
};
#define SCENARIO(fn) { #fn, fn, 0 }

int check_main(int argc, char **argv, const struct scenario *scenarios);
/* End the scenario as failed / as skipped, with what is missing. */
_Noreturn void check_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void check_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(cond) ((cond) ? (void)0 : check_fail(__FILE__, __LINE__, "%s", #cond))
#define CHECK_MSG(cond, ...) ((cond) ? (void)0 : check_fail(__FILE__, __LINE__, __VA_ARGS__))
#define CHECK_EQ(a, b) do { \
	long long check_a = (long long)(a), check_b = (long long)(b); \
	if (check_a != check_b) \
		check_fail(__FILE__, __LINE__, "%s is %lld, %s is %lld", #a, check_a, #b, check_b); \
} while (0)
