/* The parts of the oracle client and what they share.  See oracle.c. */
#pragma once

#include "libclient/memctl.h"
#include "tests/torture/content.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define THREADS_MAX 16u
#define PAGE	    4096ull

/* Written by one thread each, summed at the end. */
struct tally {
	uint64_t verified_pages, wrong_pages, verified_words, wrong_words;
	uint64_t writes, discards, sweeps, populates, hints, zaps, pins, pins_refused, reads_into, writes_from, system_calls;
	uint64_t inflates, inflated, balloon_refused, deflates, balloon_starts;
	uint64_t leases, resets, pokes, errors;
};

struct worker {
	unsigned index;
	uint64_t rng;
	struct tally tally;
	uint8_t page[CONTENT_PAGE], other[CONTENT_PAGE];
	int scratch;		/* a memfd: the file of read_into and write_from */
	uint64_t *last;		/* words.c: what this thread wrote last into each of its words */
	uint64_t phase, next_poke_ns, next_pin_ns;	/* words.c */
	pthread_t thread;
};

/* A part of a lease under the whole-page oracle. */
struct ground {
	struct memctl_lease *lease;
	uint8_t *addr;		/* of its first page */
	uint64_t offset;	/* of the same within the lease */
	uint64_t pages;
	uint64_t base;		/* number of its first page in the content */
	uint64_t *expect;	/* a page: sequence << 3 | kind; 0: never written */
	pthread_mutex_t *locks;	/* a page: whoever holds it knows what the page must be */
};

struct oracle {
	struct memctl *client;
	bool full;		/* system calls may touch the lease */
	bool zaps;		/* the mapping may be dropped: nothing of it is shared */
	unsigned common;	/* so many percent of the pages of the whole-page oracle are common to all */
	unsigned rest_us;	/* after each step: a guest that lets others run */
	unsigned phase_ms;	/* 0: the pages of the word oracle never become equal */
	uint32_t owner;
	uint64_t seed;
	unsigned threads;
	struct ground ground;
	uint8_t *words;
	uint64_t words_offset, words_pages;
	_Atomic uint64_t hot;	/* moves on: where the threads meet */
	_Atomic bool stop;
};

/* A call that must not fail did. */
void oracle_error(struct worker *w, const char *call, const struct memctl_error *e, int r);
/* Report a page that is wrong; it is counted by the caller. */
void oracle_wrong(const struct oracle *o, const char *during, uint64_t page, const char *found, const char *expected);

int ground_init(struct ground *g, struct memctl_lease *l, uint64_t offset, uint64_t pages, uint64_t base);
void ground_fini(struct ground *g);
/* First content for the pages first, first + step, ... */
void ground_fill(struct oracle *o, struct worker *w, struct ground *g, uint64_t first, uint64_t step);
/* One random operation. */
void ground_step(struct oracle *o, struct worker *w, struct ground *g);
void ground_verify(struct oracle *o, struct worker *w, struct ground *g, uint64_t first, uint64_t step);

int words_init(struct oracle *o, struct worker *w);
void words_fini(struct worker *w);
void words_step(struct oracle *o, struct worker *w);
/* Until o->stop: only what phases ask for, never late because of other work. */
void words_needle(struct oracle *o, struct worker *w);
void words_verify(struct oracle *o, struct worker *w);

/* Lease, use and release a second region, again and again, until o->stop. */
void tenant_run(struct oracle *o, struct worker *w, uint64_t gpa, uint64_t size);

/* Keep windows of remapping open for so long: between mmap and the new protection, and between mmap and the registration
 * of what came home, of pages in [pause_from, pause_to); at these pause_pages, if not 0, one is open.  See pause.c. */
extern unsigned pause_us;
extern const uint8_t *_Atomic pause_from, *_Atomic pause_to;
extern _Atomic uintptr_t pause_address;
extern _Atomic uint64_t pause_pages;
