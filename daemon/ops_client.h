/* A client: a VM, its two connections, and the order in which they go.
 *
 * Life: do_register makes it; it *ends* when either connection closes or RemoveVm says so: no new work, the
 * VM's threads are stopped; it has *gone* when the last thread and the last job have ended: then the VM is
 * freed, its frames and swap are back and its name is free.  Between the two it is still listed, as "ending".
 *
 *	  Register            death of a connection, RemoveVm         last thread ended, no job left
 *	------------> running ---------------------------> ending --------------------------> freed
 *
 * A VM that was found at a restart begins as running, without connections: it is *awaited* until its client has come back
 * (ops_resume.h).
 *
 * All on the control thread; what happens on others is posted to it. */
#pragma once

#include "balloons.h"
#include "base/events.h"
#include "base/list.h"
#include "daemon.h"
#include "groups.h"
#include "mem/lease.h"
#include "orders.h"
#include "policy/sharing.h"
#include "sampler.h"
#include "scanner.h"
#include "serve/session.h"
#include "vm_files.h"

#include <stdbool.h>
#include <stdint.h>

struct client {
	struct list link;		/* of the daemon */
	struct daemon *daemon;
	unsigned refs;			/* the list's, and one a walk that comes back later (audit) */
	struct vm *vm;			/* NULL once freed */
	struct orders *orders;
	struct session *calls;		/* NULL once closed */
	struct session *attending;	/* the orders connection, NULL: none (yet) */
	struct session_peer peer;
	uint64_t token;
	uint64_t registered_ns;
	struct policy_sharing share;
	char sharing[72];		/* the same in words: off, zero, vm, group:NAME; less may be shared now (client_sharing_now) */
	struct group_member membership;	/* from JoinPool until the VM has been freed */
	uint32_t file_marks[VM_KEYS];	/* what was applied of its file (decisions.h); 0: nothing */
	struct scanner_vm scan;
	struct page_in *page_in;	/* page_in.h; NULL: none is under way */
	struct client_balloon balloon;
	struct sampler_vm sampler;
	struct leaving *leaving;	/* ops_stop.c: it is being handed over; else NULL */
	struct awaited *awaited;	/* ops_resume.h: found at a restart, and not back yet; else NULL */
	struct {			/* holds.c */
		uint64_t since_ns;	/* its worker is in this system call; 0: in none */
		int64_t looks;		/* that saw it there, after the first */
		bool told;
	} hold;
	unsigned leftovers;		/* leases that it did not name when it came back, not freed yet; */
	struct call *lease_call;	/* a Lease waits until they are: they may lie where it wants to; NULL: none */
	uint64_t lease_gpa, lease_size;
	struct event_watch_vm event_watch;
	bool user_mode_only;		/* of its last activated lease */
	bool activated;
	bool ending;
	bool threads_gone;
	unsigned jobs;			/* in flight */
	struct post gone;
};

/* The client of a VM's name, ending ones too; NULL: none. */
struct client *client_find(struct daemon *d, const char *vm);
/* The lease of the VM that covers `gpa`, or the first one above it; NULL: none. */
struct lease *client_lease_from(struct vm *vm, uint64_t gpa);
/* Pages of its leases that are in use by it. */
uint64_t client_active_pages(struct vm *vm);
bool client_calls_on(const struct client *c, const struct session *s);
void client_session_closed(struct client *c, struct session *s);
/* Ends it: told as `id`, with `why` in words. */
void client_end(struct client *c, enum event_id id, const char *why);
/* A client without a VM, in no list. */
int client_new(struct client **ret, struct daemon *d, struct problem *p);
/* With its VM: reclaim knows it, and it is listed. */
int client_list(struct client *c);
/* What is shared now, in words. */
const char *client_sharing_now(const struct client *c);
/* Whether a VM that runs may be told to share that (what it registered with, or less), and what it may share then at the most. */
bool client_may_share(const struct client *c, const char *wanted, enum sharing *ret);
/* What of it must be found again at a restart is kept with its VM. */
void client_keep(struct client *c);
struct client *client_ref(struct client *c);
void client_unref(struct client *c);

/* A job of a lease that comes back to the control thread.  `finished` is called there exactly once if
 * client_submit returned 0; the client lives until then.  The object is the caller's, as in mem/lease.h. */
struct client_job {
	struct job job;
	struct client *client;
	struct post post;
	void (*finished)(struct client_job *j);
	void *userdata;
};
int client_submit(struct client *c, struct lease *l, struct client_job *j);
