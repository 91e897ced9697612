/* A memctld that does what a test tells it, also what a right one never would.  It runs in a process of its
 * own and shares this struct with the test.
 *
 * It can die and come back: another process, its parent, starts it anew on the same path, and keeps the descriptors of leases
 * and pool for it, as a service manager does.  The parent has one thread only, so that it may fork.
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
	_Atomic pid_t pid;	/* 0: it is dead */
	pid_t parent;
	_Atomic unsigned lives, deaths; /* how often it has begun to listen, and died */
	_Atomic unsigned again; /* how often it is to come back by itself, */
	unsigned away_ms;	/* so long after its death */
	char dir[64], socket[96];
	/* Write "KIND LEASE PAGE:COUNT[:TO][,PAGE:COUNT[:TO]...]\n" to have an order sent.  Not sent are "punch": the
	 * lease's frames are dropped; "unprotect", "wake": that is done to the pages; "hangup": all connections are closed,
	 * "hangup orders": this one; "die": with the next order. */
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
	_Atomic bool no_orders;     /* let no orders connection in */
	_Atomic bool no_pool;       /* refuse JoinPool */
	_Atomic bool refuse_odd;    /* take no page of an odd number into the balloon */
	_Atomic bool keep_frames;   /* drop no frames of what was shared: they are in home's way */

	_Atomic unsigned die_before, die_after; /* an enum op_id + 1: when it is called, not done or not answered */
	_Atomic bool forgets;		/* know no token */
	_Atomic bool forgets_leases;
	_Atomic unsigned not_now;	/* so many Resumes are refused for now */
	_Atomic unsigned names_taken;	/* so many Registers are refused as VmExists */

	_Atomic uint64_t target; /* BalloonPoll's reply */
	_Atomic unsigned breaks; /* writes to protected pages that were let through */

	/* What it saw, a line each: "Register a", "Done 1 0a", "bye". */
	_Atomic unsigned notes_n;
	char notes[FAKE_NOTES_MAX][160];
};

struct fake *fake_start(void);
/* SIGKILL, and wait until it is gone, with all that was kept for it. */
void fake_kill(struct fake *f);
/* SIGKILL, and wait until it is gone.  What it had is kept. */
void fake_die(struct fake *f);
/* Have it back, and wait until it listens. */
void fake_again(struct fake *f);
/* Wait up to 5 s for a note that begins so, from the `*from`-th on, and leave *from behind it.  NULL: none
 * came. */
const char *fake_note(struct fake *f, unsigned *from, const char *beginning);
unsigned fake_count(struct fake *f, const char *beginning);
