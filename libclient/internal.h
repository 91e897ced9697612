/* What the files of libmemctl share.
 *
 * Locks, in this order (a thread may take a later one while it holds an earlier one):
 *   turn      one call at a time: from sending a call to its reply
 *   dispatch  one thread at a time reads orders and carries them out; for one batch, never while it waits
 *   leases    the list of leases; held while an order acts on a lease, so that a release waits for it
 *   fork      share.c's, the only global: no fork between a mapping and its MADV_DONTFORK; nothing but these two
 *             system calls under it
 *   send      bytes of one message on the calls connection
 *   events    the queue of events; nothing is taken under it
 * `turn` and `send` are two locks because the answer to an order (a oneway Done) must go out while another
 * thread waits for a long call: the daemon may need that very answer to finish the call.  For the same reason a
 * thread that waits for a reply, and holds `turn`, takes `dispatch` now and then (call.c).
 *
 * When memctld was restarted, new connections take the place of the old ones (link.c) under `turn`, `dispatch` and
 * `send`, all three.  From this follows:
 *   - No reply of the old connection is taken for one of the new: a reply is awaited under `turn`, on the connection
 *     that its call went out on, and the receive buffer goes with the connection.
 *   - No Done of the old connection meets the new one: an order is read, carried out and answered under one hold of
 *     `dispatch`.  So an order that is being carried out finishes first, and its Done goes to the old connection, nowhere.
 *     The daemon's successor asks what came of it by order "settle".
 *   - Whoever holds one of the three may use the descriptors: they are closed under all three.  Until then a connection
 *     that has ended is only shut down, so that everybody else who waits on it hears of it too.
 *   - Whoever finds that a connection has ended holds `turn` or `dispatch` from the failed call until it has said so
 *     (link_down): so it is always the connection of now that is said to have ended. */
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

/* What is between us and the daemon: link.c. */
enum link { LINK_NONE, LINK_UP, LINK_DOWN, LINK_LOST, LINK_RELEASED };

/* A connection that is to take the place of the one that has ended. */
struct trial {
	int fd;				/* -1: none */
	struct wire_in in;
	int stage;
	uint64_t number;		/* its connection's, if it becomes one */
	uint64_t token, lease;
	char sharing[OP_STR_MAX];	/* "": as it was */
	int pool_fd;			/* -1: as it was */
	uint64_t pool_pages;
};

struct memctl {
	char *socket;
	int timeout_ms;			/* -1: for ever */

	_Atomic bool plain;		/* by memctl_connect, or because the daemon has let the VM go; never ends */
	char plain_why[320];		/* written before */

	pthread_mutex_t turn;
	pthread_mutex_t send;
	int calls_fd;			/* -1: plain */
	struct wire_in calls_in;	/* under turn */
	_Atomic bool out_of_step;	/* a call timed out: its late reply would be taken for the next one's */
	_Atomic bool send_broken;	/* part of a message was sent, or nothing can be: no answer to an order either */
	uint64_t calls_made;		/* under turn: numbers pins and unpins */

	bool registered;
	struct op_register_in vm;	/* as it was registered, to do so again */
	_Atomic int faults;		/* enum memctl_faults */
	int orders_fd;			/* -1: not registered, or plain */
	pthread_mutex_t dispatch;
	struct wire_in orders_in;	/* under dispatch */
	int pagemap_fd;			/* -1: cannot be had, "present" is then answered by nothing */

	/* link.c */
	_Atomic int link;		/* enum link */
	_Atomic bool ending;		/* memctl_free is at it: no new connection */
	int wait_fd;			/* memctl_fd: an epoll of the orders connection and the timer; -1: none yet */
	int timer_fd;
	uint64_t connection, numbers;	/* under turn: the number of the connection, and the last that was given */
	uint64_t token;			/* under turn */
	struct trial trial;		/* under turn and dispatch */
	_Atomic uint64_t next_try_ns;
	uint64_t backoff_ns, up_ns;	/* under turn and dispatch; when it came up */
	struct memctl_error why_down;	/* under turn: what the last try met */

	pthread_mutex_t leases_lock;
	struct memctl_lease *leases;
	char sharing[OP_STR_MAX];	/* under leases_lock: as the daemon granted it */
	int pool_fd;			/* under leases_lock; -1: nothing is shared */
	uint64_t pool_pages;
	bool let_go;			/* under leases_lock: a lease was made plain by order of the daemon */

	/* balloon.c */
	_Atomic uint64_t balloon_target;	/* bytes */
	_Atomic bool balloon_started;
	_Atomic bool balloon_again;		/* the VM was registered anew: it has not heard of the driver */

	/* stall.c */
	_Atomic uint64_t stalled_since_ns;	/* 0: nobody waits in vain */
	uint64_t stall_began_ns;		/* under dispatch; 0: no event is out */

	pthread_mutex_t events_lock;
	struct { enum memctl_event_kind kind; uint64_t stalled_ms; } events[16];
	unsigned first_event, n_events;

	pthread_t helper;
	_Atomic bool helper_runs;
	int helper_stop_fd;
};

struct memctl_lease {
	struct memctl_lease *next;
	struct memctl *m;
	uint64_t id;			/* the daemon's */
	uint64_t connection;		/* under turn: on which the daemon knows it; it will never again on an older one */
	uint64_t gpa, size;
	enum memctl_faults faults;
	char *address;			/* NULL: not mapped (yet) */
	bool callers_place;		/* the address space is the caller's, before and after (memctl_lease_at) */
	_Atomic bool plain;		/* nobody's but this process's: made so (plain.c), or become so by order */
	/* Held for the whole life of the lease.  While a copy of the userfaultfd is open somewhere, a thread that
	 * touches an absent page waits; when the last one closes it reads zeros.  So ours outlives the daemon. */
	int memfd;			/* -1: plain.c's */
	int uffd;			/* -1: plain */

	/* share.c's, under leases_lock */
	uint64_t *pooled;		/* one bit a page: the pool is mapped there; NULL: nowhere (yet) */
	bool unfinished;		/* an order ended SHARE_UNFINISHED: nobody may say how its pages lie */
	char *second;			/* a mapping of the memfd to bring pages home through; NULL: none (yet) */
	int second_uffd;

	/* stall.c's, under leases_lock */
	int waits_fd;			/* -1: it cannot be told who waits */
	uint64_t waits, blocks;		/* at the last look: threads that wait, the memfd's blocks */
	uint64_t waits_since_ns;	/* 0: nobody, or somebody was served since the look before */
};

/* error.c: fill *e (may be NULL) and return r, so that callers say `return fail(e, -EINVAL, ...)`. */
int fail(struct memctl_error *e, int r, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define ERROR_SYSTEM	   "org.memctl.System"		/* of this side */
#define ERROR_INVALID	   "org.memctl.InvalidValue"
#define ERROR_UNREACHABLE  "org.memctl.Unreachable"
#define ERROR_TIMEOUT	   "org.memctl.Timeout"

/* call.c: one call of the contract. `fd` -1: none goes along; `ret_fd` NULL: none is expected.  It waits while the daemon
 * is away, and is made again if the connection ended under it; only for what may be made twice. */
int call(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, struct memctl_error *e);
/* On one connection only: *on 0: whichever there is, its number is left in *on; else the one of this number.  CALL_LOST: that
 * has ended, so whatever the call was to do, or did, has no effect any more; *e is filled too. */
enum { CALL_LOST = 1 };
int call_on(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, uint64_t *on,
	struct memctl_error *e);
/* The same for who holds `turn` already. */
int call_in_turn(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, uint64_t *on,
	struct memctl_error *e);
/* A oneway call: nothing comes back, and it does not wait for its turn. */
int call_oneway(struct memctl *m, enum op_id id, const void *in);

/* connect.c */
uint64_t now_ns(void);
uint64_t deadline_ns(const struct memctl *m);
void go_plain(struct memctl *m, const char *why);

/* event.c */
void note_event(struct memctl *m, enum memctl_event_kind kind, uint64_t stalled_ms);

/* link.c */
/* The VM is registered: an orders connection, and the link is up.  -errno; -ENOTCONN: the daemon is gone. */
int link_begin(struct memctl *m, uint64_t token, struct memctl_error *e);
/* Either connection has ended.  Under turn or dispatch. */
void link_down(struct memctl *m);
/* Under turn: until the link is not down any more, or will not come up as the connection of this number (0: any), at most
 * until the deadline.  0; -ENOTCONN with *e. */
int link_await(struct memctl *m, uint64_t number, uint64_t deadline, struct memctl_error *e);
/* One try to make it up, if it is time and nobody else is at it. */
void link_try(struct memctl *m);
/* Under dispatch: what is due by the timer. */
void link_tick(struct memctl *m);
void link_end(struct memctl *m);

/* stall.c; under leases_lock */
void stall_watch(struct memctl_lease *l);
void stall_unwatch(struct memctl_lease *l);
/* Look who waits, under dispatch; when to look again. */
uint64_t stall_look(struct memctl *m);

/* lease.c; under leases_lock */
struct memctl_lease *lease_find(struct memctl *m, uint64_t id);
/* What every mapping of a lease or a pool needs before anything is in it: no child gets it, no core dump, no huge
 * page.  0 or -errno. */
int lease_keep_apart(void *address, uint64_t length);
/* Drop the page table entries of pages that are mapped from the lease, not the pages, and not their protection.  Never by
 * madvise itself: lease.c says why. */
void lease_zap(struct memctl_lease *l, uint64_t page, uint64_t count);

/* plain.c: what ranges.c does, without a daemon; and how a lease comes to be without one */
enum range_op { RANGE_WILL_NEED, RANGE_DONT_NEED, RANGE_DISCARD, RANGE_POPULATE, RANGE_PIN, RANGE_UNPIN };
int plain_map(struct memctl_lease *l, struct memctl_error *e);
int plain_range(struct memctl_lease *l, enum range_op op, uint64_t offset, uint64_t length, struct memctl_error *e);
/* Order "plain", under leases_lock: as share_home. */
int plain_order(struct memctl_lease *l, const struct op_runs *runs, uint64_t *ret_pages);

/* balloon.c */
void balloon_set_target(struct memctl *m, uint64_t bytes);

/* orders.c */
void orders_end_helper(struct memctl *m);
/* Carry out what has arrived.  -EBUSY: another thread is at it; else as memctl_dispatch. */
int orders_try(struct memctl *m);

/* share.c.  Whether a join comes off changes nothing for the caller: without it nothing is shared. */
/* Orders, under leases_lock; the runs lie in the lease.  `bits` (one a page of the runs) is zeroed.  0, *ret_pages is
 * what Done's pages says; SHARE_UNFINISHED: the order must not be answered, now or ever; -errno: it is none. */
enum { SHARE_UNFINISHED = 1 };
int share_order(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits, uint64_t *ret_pages);
int share_home(struct memctl_lease *l, const struct op_runs *runs, uint64_t *ret_pages);
int share_private(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits);
/* Two bits a page of the runs: first all that say where the pool is mapped, then all that say what is clean. */
int share_settle(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits);
/* Whether this setting lets pages be mapped from a pool. */
bool share_possible(const char *sharing);
/* How many mappings this process has; 0: unknown. */
uint64_t share_count_maps(void);
/* How many of `count` pages from `page` on come before the first in which the pool is mapped. */
uint64_t share_unshared(const struct memctl_lease *l, uint64_t page, uint64_t count);
/* After the lease was unmapped. */
void share_end(struct memctl_lease *l);

/* uffd.c */
int faults_open(int *ret_fd, enum memctl_faults *ret_faults, struct memctl_error *e);
void faults_wake(int fd, const void *address, uint64_t length);
/* What waits is woken, protection ends.  0 or -errno. */
int faults_unregister(int fd, const void *address, uint64_t length);
int faults_register(int fd, void *address, uint64_t length, struct memctl_error *e);
/* These return 0 or -errno. */
int faults_register_missing(int fd, void *address, uint64_t length);
int faults_protect(int fd, void *address, uint64_t length);
/* Into holes only; *ret_done: bytes in place, also when it stops early.  -EEXIST: the next page is there already. */
int faults_copy(int fd, void *to, const void *from, uint64_t length, uint64_t *ret_done);
/* Map pages that are in the file, and wake who waits for them; what it leaves out the kernel maps at a touch. */
void faults_continue(int fd, void *address, uint64_t length);
