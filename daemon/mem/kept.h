/* What outlives this process: descriptors that somebody keeps for us (the service manager), by their tags.
 *
 * A tag is an owner and a letter: v1f.m is something of VM 1f, p3.c of pool 3; the number is hexadecimal, the smallest that no owner
 * has.  Tags are short because all of them go into one string of the environment of the next process (128 KiB).  At a restart every kept descriptor is *found* again: whoever it belongs to takes it by its tag, and what
 * nobody takes is closed, and not kept any longer.
 *
 * k may be NULL everywhere: nobody keeps anything.
 * Threads: the control thread only, but for kept_add and kept_drop, which may come from any. */
#pragma once

#include "base/problem.h"

#include <stdbool.h>
#include <stdint.h>

#define KEPT_TAG  24

struct kept;

/* `add` and `drop` NULL: nobody keeps anything; tags are given out all the same. */
struct keeper {
	int (*add)(void *userdata, const char *tag, int fd);	/* a duplicate: fd stays the caller's.  0 or -errno */
	void (*drop)(void *userdata, const char *tag);
	void *userdata;
};

int kept_new(struct kept **ret, const struct keeper *k);
/* Closes what was found and not taken; it is kept all the same. */
void kept_free(struct kept *k);

/* Whose something is: kind 0: nobody's that is kept. */
struct kept_owner {
	char kind;		/* KEPT_VM ... */
	bool found;		/* it was there before this process: what is missing of it is not made anew */
	uint32_t number;
};
#define KEPT_VM	  'v'
#define KEPT_POOL 'p'

/* A number for a new owner, until it is returned; 0: there are none left. */
uint32_t kept_number(struct kept *k);
void kept_return(struct kept *k, uint32_t number);
/* "": of nobody. */
void kept_tag(char *ret, struct kept_owner owner, const char *part);

/* An empty tag is fine: it is not kept.  Otherwise 0, and it is to be dropped; or -errno, and a sentence for whoever is refused. */
int kept_add(struct kept *k, const char *tag, int fd, struct problem *p);
void kept_drop(struct kept *k, const char *tag);

/* At start: a descriptor that was kept; taken in any case. */
void kept_find(struct kept *k, const char *tag, int fd);
/* The descriptor, the caller's from now on; -ENOENT: there is none. */
int kept_take(struct kept *k, const char *tag);
/* The owners of this kind whose `part` was found and not taken, the next one after `last` (0: the first); 0: no more. */
uint32_t kept_next(struct kept *k, char kind, const char *part, uint32_t last);
/* Bytes of memory that what was found holds. */
uint64_t kept_bytes(const struct kept *k);
/* The rest belongs to nobody.  How many descriptors that were. */
unsigned kept_end(struct kept *k);
