#include "ops_resume.h"

#include "ops_dispatch.h"
#include "ops_share.h"
#include "base/clock.h"
#include "base/events.h"
#include "base/process.h"
#include "mem/recover.h"
#include "mem/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEFT_NS	  (3 * NS_PER_S)
#define KEYS_KEPT 16		/* part of the state's format */

/* What is kept of a client, with its VM.  It only grows. */
struct client_card {
	uint64_t token;
	int64_t pid;			/* 0: of another PID namespace */
	uint64_t pid_started;		/* in the kernel's clock ticks; 0: unknown */
	uint32_t uid, gid;
	uint32_t share_kind;		/* enum policy_sharing_kind */
	uint32_t share_writable;
	char group[POLICY_GROUP_MAX];
	uint32_t user_mode_only, activated;
	uint32_t balloon_started, unused;
	uint32_t file_marks[KEYS_KEPT];	/* enum vm_key */
};
_Static_assert(VM_KEYS <= KEYS_KEPT, "what was applied of its file is kept with the VM");
_Static_assert(sizeof(struct client_card) <= VM_CLIENT_MAX, "it is kept with the VM");

struct awaited {
	struct client *client;
	uint64_t since_ns;
	int pidfd;			/* -1: none */
	struct watch *watch;
	bool resumed;			/* its calls connection is there */
	uint32_t *named;		/* leases that the client has */
	unsigned n_named;
};

void client_keep(struct client *c)
{
	struct client_card card = {
		.token = c->token, .pid = c->peer.pid, .uid = c->peer.uid, .gid = c->peer.gid, .pid_started = c->peer.started,
		.share_kind = c->share.kind, .share_writable = c->share.writable, .user_mode_only = c->user_mode_only,
		.activated = c->activated, .balloon_started = c->balloon.started,
	};

	memcpy(card.file_marks, c->file_marks, sizeof c->file_marks);
	snprintf(card.group, sizeof card.group, "%s", c->share.kind == POLICY_SHARING_GROUP ? c->share.group : "");
	vm_keep(c->vm, &card, sizeof card);
}

/* ---- at start ---- */

static void its_process_ended(unsigned events, void *userdata)
{
	struct awaited *w = userdata;

	watch_free(w->watch);
	w->watch = NULL;
	client_end(w->client, EVENT_CLIENT_DIED, "its process ended while memctld was away");
}

/* Its process: a descriptor that tells of its end.  false: it is gone. */
static bool watch_process(struct awaited *w)
{
	const struct client *c = w->client;

	if (c->peer.pid <= 0)
		return true;
	w->pidfd = process_open(c->peer.pid, c->peer.started);
	if (w->pidfd < 0)
		return w->pidfd != -ESRCH;
	return loop_watch(c->daemon->loop, w->pidfd, LOOP_READ, its_process_ended, w, &w->watch) == 0 || true;
}

static int await(struct client *c)
{
	struct awaited *w = calloc(1, sizeof *w);

	if (!w)
		return -ENOMEM;
	*w = (struct awaited){ .client = c, .since_ns = now_ns(), .pidfd = -1 };
	c->awaited = w;
	return 0;
}

static struct pool *find_pool(void *userdata, uint32_t number)
{
	struct daemon *d = userdata;

	return groups_pool(d->groups, number);
}

/* Everything that Register would have made. */
static int make_client(struct daemon *d, struct vm *vm, struct problem *p)
{
	struct client_card card = { 0 };
	struct policy_sharing share;
	struct client *c;
	size_t bytes;
	const void *kept = vm_client(vm, &bytes);
	int r = client_new(&c, d, p);

	if (r < 0)
		return r;
	memcpy(&card, kept, bytes < sizeof card ? bytes : sizeof card);
	c->vm = vm;
	c->token = card.token;
	c->peer = (struct session_peer){ (pid_t)card.pid, card.pid_started, card.uid, card.gid };
	c->user_mode_only = card.user_mode_only;
	c->activated = card.activated;
	c->balloon.started = card.balloon_started;
	if (c->balloon.started)
		vm_set_balloon_driver(vm);
	memcpy(c->file_marks, card.file_marks, sizeof c->file_marks);
	share = (struct policy_sharing){ .kind = card.share_kind < POLICY_SHARING_REFUSED ? card.share_kind : POLICY_SHARING_OFF,
		.writable = card.share_writable };
	snprintf(share.group, sizeof share.group, "%.*s", POLICY_GROUP_MAX - 1, card.group);
	share_begin(c, &share);
	if (vm_pool(vm))
		groups_join_found(d->groups, pool_number(vm_pool(vm)), &c->membership);
	r = await(c);
	return r < 0 ? r : client_list(c);
}

static int find_vms(struct daemon *d, struct recovery_numbers *numbers, struct problem *p)
{
	struct kept *kept = arena_kept(d->arena);

	for (uint32_t n = 0; (n = kept_next(kept, KEPT_VM, "s", n));) {
		struct vm *vm;
		int r = vm_recover(&vm, d->arena, &d->settings, n, find_pool, d, numbers, p);

		if (r == -EBADMSG) {
			event_tell(EVENT_VM_LOST, NULL, "%s: that VM is lost; its guest waits where it touches what is not resident, and should be ended",
				p->text);
			d->lost_vms++;
		}
		if (r == -EBADMSG || r == -ENOENT) {
			*p = (struct problem){ 0 };
			continue;
		}
		if (r == 0)
			r = make_client(d, vm, p);
		if (r < 0)
			return r;
	}
	return 0;
}

int resume_found(struct daemon *d, struct problem *p)
{
	struct recovery_numbers numbers = { 0 };
	uint64_t began_ns = now_ns();
	int r = groups_found(d->groups, p);

	if (r == 0)
		r = find_vms(d, &numbers, p);
	if (r < 0) {
		if (r == -EPROTONOSUPPORT)
			problem_set(p, -r, PROBLEM_SYSTEM, 0, 0,
				"what was kept is of a state format that this memctld cannot read (it reads %u to %u): start the version "
				"that made it; nothing has been changed", STATE_FORMAT_OLDEST, STATE_FORMAT);
		return r;
	}
	groups_found_end(d->groups);
	list_foreach(l, &d->clients) {
		r = vm_serve(container_of(l, struct client, link)->vm, p);
		if (r < 0)
			return r;
	}
	kept_end(arena_kept(d->arena));
	/* walks safely: ending takes a client from the list later */
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!watch_process(c->awaited))
			client_end(c, EVENT_CLIENT_DIED, "its process ended while memctld was away");
	}
	if (d->n_clients)
		event_tell(EVENT_RESTARTED, NULL, "restarted: %u VMs with %llu leases go on; %llu pages in question, %llu words damaged, %.1f ms", d->n_clients,
			(unsigned long long)numbers.leases, (unsigned long long)numbers.in_question,
			(unsigned long long)numbers.damaged, (double)(now_ns() - began_ns) / 1e6);
	return 0;
}

/* ---- the client ---- */

bool resume_again(struct client *c)
{
	struct awaited *w = c->awaited;

	if (!w || c->ending || c->daemon->stopping)
		return false;
	if (c->attending)
		return false;
	w->resumed = false;
	w->n_named = 0;
	w->since_ns = now_ns();
	return true;
}

void resume_forget(struct client *c)
{
	struct awaited *w = c->awaited;
	struct call *call = c->lease_call;

	if (call && c->ending) {
		c->lease_call = NULL;
		refuse(call, WIRE_ERROR_BadState, "The VM ends.");
	}
	if (!w)
		return;
	watch_free(w->watch);
	if (w->pidfd >= 0)
		close(w->pidfd);
	free(w->named);
	free(w);
	c->awaited = NULL;
}

/* The one that registered.  It may have changed its user since (an emulator that gives up root): the token is its own all the
 * same.  Where its process cannot be known the user must be the same. */
static bool is_its_process(const struct client *c, const struct session_peer *peer)
{
	if (c->peer.pid > 0 && c->peer.started)
		return peer->pid == c->peer.pid && peer->started == c->peer.started;
	return peer->uid == c->peer.uid && (c->peer.pid <= 0 || peer->pid == c->peer.pid);
}

void do_resume(struct daemon *d, struct call *call, const struct op_resume_in *in)
{
	const struct session_peer *peer = session_peer(call->session);
	struct op_resume_out out = { 0 };

	if (session_userdata(call->session)) {
		refuse(call, WIRE_ERROR_BadState, "This connection has a VM already: one connection, one VM.");
		return;
	}
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (c->ending || c->token != in->token || !is_its_process(c, peer))
			continue;
		if (!c->awaited || c->awaited->resumed) {
			refuse(call, WIRE_ERROR_BadState, "The VM's connection has not ended yet.");
			return;
		}
		c->awaited->resumed = true;
		c->peer.uid = peer->uid;
		c->peer.gid = peer->gid;
		client_keep(c);
		c->calls = call->session;
		session_set_userdata(call->session, c);
		session_count_apart(call->session);
		snprintf(out.vm, sizeof out.vm, "%s", vm_config(c->vm)->name);
		snprintf(out.sharing, sizeof out.sharing, "%s", c->sharing);
		call_reply(call, &ops[OP_resume], &out, NULL, 0);
		return;
	}
	refuse(call, WIRE_ERROR_PermissionDenied, "No VM of this process has this token (any more).");
}

void do_resume_lease(struct daemon *d, struct call *call, const struct op_resume_lease_in *in)
{
	struct client *c = session_userdata(call->session);
	struct lease *l = in->lease <= UINT32_MAX ? vm_find_lease(c->vm, (uint32_t)in->lease) : NULL;
	int fd = wire_take_fd(&call->message, 0);
	struct op_resume_lease_out out;
	struct awaited *w = c->awaited;
	bool same = l && lease_is(l, fd, in->address);
	uint32_t *more;

	if (l && fd >= 0)
		lease_close_refused(l, fd);
	else if (fd >= 0)
		close(fd);
	if (!w) {
		refuse(call, WIRE_ERROR_BadState, "This VM is not resuming.");
		return;
	}
	if (!l) {
		struct wire_error e = { .lease = in->lease };

		wire_error_set(&e, WIRE_ERROR_NoSuchLease, NULL);
		call_fail(call, &e);
		return;
	}
	if (!same) {
		refuse(call, WIRE_ERROR_BadDescriptor, "That is not this lease's memory, or not where it was mapped.");
		return;
	}
	more = realloc(w->named, (w->n_named + 1) * sizeof *more);
	if (!more) {
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		return;
	}
	w->named = more;
	w->named[w->n_named++] = lease_id(l);
	if (lease_may_be_plain(l) && in->plain)
		lease_set_plain(l);
	else if (lease_may_be_plain(l)) {
		lease_not_plain(l);
		lease_stop_staying(l);
	}
	call_reply(call, &ops[OP_resume_lease], &out, NULL, 0);
}

/* A lease that its client does not have: it was being made, or released, when we died. */
struct leftover {
	struct client_job job;
	struct lease *lease;
};

bool resume_holds_lease(struct client *c, struct call *call, uint64_t gpa, uint64_t size)
{
	if (!c->awaited && !c->leftovers)
		return false;
	/* of a connection that has ended */
	if (c->lease_call)
		refuse(c->lease_call, WIRE_ERROR_BadState, "The connection ended.");
	c->lease_call = call;
	c->lease_gpa = gpa;
	c->lease_size = size;
	return true;
}

/* Replies come in the order of calls, so there is one at the most. */
static void go_on_with_lease(struct client *c)
{
	struct call *call = c->lease_call;

	if (!call || c->awaited || c->leftovers)
		return;
	c->lease_call = NULL;
	if (c->ending || !call->session)
		refuse(call, WIRE_ERROR_BadState, "The VM ends.");
	else
		do_lease(c->daemon, call, &(struct op_lease_in){ .gpa = c->lease_gpa, .size = c->lease_size });
}

static void leftover_finished(struct client_job *j)
{
	struct leftover *k = container_of(j, struct leftover, job);
	struct client *c = j->client;

	if (!c->ending)
		lease_free(k->lease);
	free(k);
	c->leftovers--;
	go_on_with_lease(c);
}

static bool is_named(const struct awaited *w, uint32_t id)
{
	for (unsigned i = 0; i < w->n_named; i++)
		if (w->named[i] == id)
			return true;
	return false;
}

void resume_end(struct client *c)
{
	struct awaited *w = c->awaited;
	unsigned released = 0, kept = 0;
	bool any_plain = false;

	if (!w)
		return;
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l))
		any_plain = any_plain || lease_is_plain(l);
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l)) {
		struct leftover *k;

		/* one that was made after Resume is not a leftover */
		if (!lease_was_found(l) || (is_named(w, lease_id(l)) && !lease_is_plain(l))) {
			kept++;
			continue;
		}
		k = calloc(1, sizeof *k);
		if (!k)
			break; /* it goes with the VM */
		k->lease = l;
		k->job.job.kind = JOB_RELEASE;
		k->job.finished = leftover_finished;
		if (client_submit(c, l, &k->job) < 0) {
			free(k);
		} else {
			c->leftovers++;
			released++;
		}
	}
	event_tell(EVENT_CLIENT_BACK, EVENT_OF(.vm = vm_config(c->vm)->name, .session = c->peer.pid),
		"VM %s: its client is back after %.0f ms, %u of its leases released", vm_config(c->vm)->name, (double)(now_ns() - w->since_ns) / 1e6, released);
	any_plain = any_plain && !kept;
	resume_forget(c);
	if (any_plain)
		client_end(c, EVENT_VM_ENDED, "it has its memory as its own");
	else
		vm_resume(c->vm);
	go_on_with_lease(c);
}

void resume_replace(struct client *c, const struct session_peer *peer)
{
	if (c->awaited && !c->awaited->resumed && !c->ending && c->peer.pid > 0 && peer->pid == c->peer.pid && peer->uid == c->peer.uid &&
		!vm_first_lease(c->vm))
		client_end(c, EVENT_VM_ENDED, "its client registers once more");
}

/* Told to take its memory as its own, and not heard of since: most likely it has, and has no reason to come back. */
static bool has_left(const struct client *c)
{
	struct lease *l = vm_first_lease(c->vm);

	if (!l)
		return false;
	for (; l; l = lease_next(l))
		if (!lease_may_be_plain(l))
			return false;
	return true;
}

void resume_tick(struct daemon *d)
{
	uint64_t grace_ns = (uint64_t)d->config.reconnect_grace * NS_PER_S;

	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!c->awaited || c->ending)
			continue;
		if (now_ns() - c->awaited->since_ns > LEFT_NS && has_left(c))
			client_end(c, EVENT_VM_ENDED, "it was told to take its memory as its own, and did not come back");
		else if (grace_ns && now_ns() - c->awaited->since_ns > grace_ns)
			client_end(c, EVENT_CLIENT_ABSENT, "its client did not come back after a restart (reconnect_grace)");
	}
}
