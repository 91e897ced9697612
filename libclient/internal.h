/* What the files of libmemctl share.
 *
 * Locks, in this order (a thread may take a later one while it holds an earlier one):
 *   turn      one call at a time: from sending a call to its reply
 *   dispatch  one thread at a time reads orders and carries them out; for one batch, never while it waits
 *   leases    the list of leases; held while an order acts on a lease, so that a release waits for it
 *   fork      share.c's, the only global: no fork between a mapping and its MADV_DONTFORK; nothing but these two
 *             system calls under it
 *   send      bytes of one message on the calls connection
 * `turn` and `send` are two locks because the answer to an order (a oneway Done) must go out while another
 * thread waits for a long call: the daemon may need that very answer to finish the call.  For the same reason a
 * thread that waits for a reply, and holds `turn`, takes `dispatch` now and then (call.c). */
#pragma once

#include "libclient/memctl.h"
#include "proto/body.h"
#include "proto/wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define PAGE_SIZE 4096ull
#define DEFAULT_SOCKET "/run/memctl/memctld.sock"
#define DEFAULT_TIMEOUT_MS 10000

struct memctl {
	char *socket;
	int timeout_ms;			/* -1: for ever */

	bool plain;			/* set once, in memctl_connect */
	char plain_why[320];

	pthread_mutex_t turn;
	pthread_mutex_t send;
	int calls_fd;			/* -1: plain */
	struct wire_in calls_in;	/* under turn */
	_Atomic bool out_of_step;	/* a call timed out: its late reply would be taken for the next one's */
	_Atomic bool send_broken;	/* part of a message was sent, or nothing can be: no answer to an order either */

	bool registered;
	char vm_name[OP_STR_MAX];
	char sharing[OP_STR_MAX];	/* as the daemon granted it */
	uint64_t vm_size;
	_Atomic int faults;		/* enum memctl_faults */
	_Atomic int orders_fd;		/* -1: not registered, or plain */
	pthread_mutex_t dispatch;
	struct wire_in orders_in;	/* under dispatch */
	int pagemap_fd;			/* -1: cannot be had, "present" is then answered by nothing */

	pthread_mutex_t leases_lock;
	struct memctl_lease *leases;
	int pool_fd;			/* under leases_lock; -1: nothing is shared */
	uint64_t pool_pages;

	_Atomic int disconnected;	/* 0, 1: event to be taken, 2: taken */
	pthread_t helper;
	_Atomic bool helper_runs;
	int helper_stop_fd;
};

struct memctl_lease {
	struct memctl_lease *next;
	struct memctl *m;
	uint64_t id;			/* the daemon's */
	uint64_t gpa, size;
	enum memctl_faults faults;
	char *address;			/* NULL: not mapped (yet) */
	bool callers_place;		/* the address space is the caller's, before and after (memctl_lease_at) */
	/* Held for the whole life of the lease.  While a copy of the userfaultfd is open somewhere, a thread that
	 * touches an absent page waits; when the last one closes it reads zeros.  So ours outlives the daemon. */
	int memfd;
	int uffd;

	/* share.c's, under leases_lock */
	uint64_t *pooled;		/* one bit a page: the pool is mapped there; NULL: nowhere (yet) */
	char *second;			/* a mapping of the memfd to bring pages home through; NULL: none (yet) */
	int second_uffd;
};

/* error.c: fill *e (may be NULL) and return r, so that callers say `return fail(e, -EINVAL, ...)`. */
int fail(struct memctl_error *e, int r, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define ERROR_SYSTEM	   "org.memctl.System"		/* of this side */
#define ERROR_INVALID	   "org.memctl.InvalidValue"
#define ERROR_UNREACHABLE  "org.memctl.Unreachable"
#define ERROR_TIMEOUT	   "org.memctl.Timeout"

/* call.c: one call of the contract. `fd` -1: none goes along; `ret_fd` NULL: none is expected. */
int call(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, struct memctl_error *e);
/* A oneway call: nothing comes back, and it does not wait for its turn. */
int call_oneway(struct memctl *m, enum op_id id, const void *in);

/* connect.c */
uint64_t deadline_ns(const struct memctl *m);
/* The daemon is gone: say so by an event, once. */
void note_disconnected(struct memctl *m);

/* lease.c; under leases_lock */
struct memctl_lease *lease_find(struct memctl *m, uint64_t id);
/* What every mapping of a lease or a pool needs before anything is in it: no child gets it, no core dump, no huge
 * page.  0 or -errno. */
int lease_keep_apart(void *address, uint64_t length);

/* plain.c: what ranges.c does, without a daemon */
enum range_op { RANGE_WILL_NEED, RANGE_DONT_NEED, RANGE_DISCARD, RANGE_POPULATE, RANGE_PIN, RANGE_UNPIN };
int plain_map(struct memctl_lease *l, struct memctl_error *e);
int plain_range(struct memctl_lease *l, enum range_op op, uint64_t offset, uint64_t length, struct memctl_error *e);

/* orders.c */
void orders_end_helper(struct memctl *m);
int orders_attend(struct memctl *m, uint64_t token, struct memctl_error *e);
/* Carry out what has arrived.  -EBUSY: another thread is at it; else as memctl_dispatch. */
int orders_try(struct memctl *m);

/* share.c.  Whether a join comes off changes nothing for the caller: without it nothing is shared. */
/* Orders, under leases_lock; the runs lie in the lease.  `bits` (one a page of the runs) is zeroed.  0, *ret_pages is
 * what Done's pages says; SHARE_UNFINISHED: the order must not be answered, now or ever; -errno: it is none. */
enum { SHARE_UNFINISHED = 1 };
int share_order(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits, uint64_t *ret_pages);
int share_home(struct memctl_lease *l, const struct op_runs *runs, uint64_t *ret_pages);
int share_private(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits);
/* How many of `count` pages from `page` on come before the first in which the pool is mapped. */
uint64_t share_unshared(const struct memctl_lease *l, uint64_t page, uint64_t count);
/* After the lease was unmapped. */
void share_end(struct memctl_lease *l);

/* uffd.c */
int faults_open(int *ret_fd, enum memctl_faults *ret_faults, struct memctl_error *e);
void faults_wake(int fd, const void *address, uint64_t length);
int faults_register(int fd, void *address, uint64_t length, struct memctl_error *e);
/* These return 0 or -errno. */
int faults_register_missing(int fd, void *address, uint64_t length);
int faults_protect(int fd, void *address, uint64_t length);
/* Into holes only; *ret_done: bytes in place, also when it stops early.  -EEXIST: the next page is there already. */
int faults_copy(int fd, void *to, const void *from, uint64_t length, uint64_t *ret_done);
/* Map pages that are in the file, and wake who waits for them; what it leaves out the kernel maps at a touch. */
void faults_continue(int fd, void *address, uint64_t length);
