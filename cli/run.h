/* What `memctl run` is about to start. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct run {
	const char *name;
	uint64_t mem_bytes;  /* 0: not given */
	uint64_t size_bytes; /* the most that its memory may grow to; 0: mem_bytes */
	bool no_balloon, no_qmp;
	char **words; /* the command, ended by NULL; owned, as the words are */
	unsigned n;
	char qmp_path[108]; /* "": the command has a QMP socket of its own, or none */
	int agent_fds[2];   /* a QMP connection for the balloon's agent: its end and QEMU's; -1: none */
};

/* Insert words at a place of the command. -ENOMEM. */
int run_insert(struct run *r, unsigned at, unsigned n, const char *const words[]);

/* Where QEMU stands in the command, behind env and the like; 0: the command is something else. */
unsigned run_find_qemu(const struct run *r);
/* Check QEMU's options and add what a lease needs.  An exit code; it has said what is wrong. */
int run_adapt_qemu(struct run *r, unsigned at);
