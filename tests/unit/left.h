/* What a memctld leaves that is killed: a pool and three VMs, with pages in every place and words in transit.  Copies of it are recovered
 * again and again; whoever wants so damages them first (unit/test_recover.c at random, fuzz/recovery.c as a fuzzer says). */
#pragma once

#include "base/problem.h"
#include "mem/kept.h"
#include "mem/pool_impl.h"
#include "mem/recover.h"
#include "tests/torture/content.h"

#include <stdbool.h>
#include <stdint.h>

#define VMS	    3u
#define PAGES	    64u
#define FILES_MAX   64u

enum { VICTIM, NEIGHBOUR, APART };	/* APART is in no pool */
extern const char *const names[VMS];

/* What is kept of them. */
struct file {
	char tag[KEPT_TAG];
	int fd;
	uint64_t size;
	bool memfd;
	uint8_t *was, *now;	/* page by page: only those that have data */
	bool *data;
};
extern struct file files[FILES_MAX];
extern unsigned n_files;

/* The world before: made once, and left alone. */
struct before {
	struct kept *kept;
	struct arena *arena;
	struct pool *pool;
	struct vm *vm[VMS];
	struct lease *lease[VMS];
	uint8_t *ram[VMS];
};
extern struct before before;
void make_world(void);
/* Files are as they were left. */
void undamaged(void);

/* The world after: what is recovered of the files as they are now.  `problem` says why not. */
struct after {
	struct kept *kept;
	struct arena *arena;
	struct pool *pool;
	struct vm *vm[VMS];
	int pool_r, r[VMS];
};
extern struct problem problem;
void recover(struct after *w, struct recovery_numbers *numbers);
/* All that it had charged has been given back, or this fails. */
void give_back(struct after *w);

/* What the guest of a VM would see, page by page.  Fails if it sees another's. */
struct tally {
	unsigned right, lost, wrong, held;
};
struct tally look(const struct after *w, unsigned v);
