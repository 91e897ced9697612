/* A memctld that does what a test tells it, also what a right one never would.  It runs in a process of its
 * own and shares this struct with the test.
 *
 * Page p of a lease begins with p + 1 when it comes in, so a page of zeros is never right.
 *
 * It shares right: before an order "share" it protects the pages and copies them to the pool, and while an order about
 * sharing is out it serves no fault; after the answer it drops the lease's frames of what was shared. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FAKE_NOTES_MAX 256

struct fake {
	pid_t pid;
	char dir[64], socket[96];
	/* Write "KIND LEASE PAGE:COUNT[:TO][,PAGE:COUNT[:TO]...]\n" to have an order sent.  "punch" is not sent:
	 * the lease's frames are dropped. */
	int orders;
	char sharing[72]; /* what holds for the VM, by Register's reply */

	/* What it is to do wrong. */
	_Atomic bool mute;          /* answer no call any more */
	_Atomic bool hang_up;       /* close the calls connection at the next call */
	_Atomic bool garbage;       /* answer with what is no message */
	_Atomic bool no_descriptor; /* send Lease's reply without the memory */
	_Atomic bool refuse;        /* answer each call with NotEnoughMemory, need 111, have 22 */
	_Atomic bool no_pages;      /* bring no page in */
	_Atomic unsigned fail_pin;  /* the so-manieth Pin is refused; 0: none */
	_Atomic bool wait_for_done; /* answer what is about a range only when a Done has come */
	_Atomic bool no_pool;       /* refuse JoinPool */
	_Atomic bool keep_frames;   /* drop no frames of what was shared: they are in home's way */

	_Atomic unsigned breaks; /* writes to protected pages that were let through */

	/* What it saw, a line each: "Register a", "Done 1 0a", "bye". */
	_Atomic unsigned notes_n;
	char notes[FAKE_NOTES_MAX][160];
};

struct fake *fake_start(void);
/* SIGKILL, and wait until it is gone. */
void fake_kill(struct fake *f);
/* Wait up to 5 s for a note that begins so, from the `*from`-th on, and leave *from behind it.  NULL: none
 * came. */
const char *fake_note(struct fake *f, unsigned *from, const char *beginning);
unsigned fake_count(struct fake *f, const char *beginning);
