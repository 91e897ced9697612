/* The lives of a fake daemon: between fake_daemon.c, which is one of them, and fake_life.c, which starts one after the other. */
#pragma once

#include "tests/unit/fake_daemon.h"

extern struct fake *fake;
extern pid_t client;	/* the test */

/* What is kept for the next life, with a descriptor or without (-1). */
struct kept {
	enum kept_what { KEPT_MEMFD, KEPT_UFFD, KEPT_POOL, KEPT_RELEASED, KEPT_ORDER } what;
	uint64_t number, value;
};

void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void keep(enum kept_what what, uint64_t number, uint64_t value, int fd);
/* The oldest of it, once.  false: that was all. */
bool take_kept(struct kept *ret, int *ret_fd);
/* Be a daemon, in a process of its own. */
_Noreturn void live(int orders_in);
