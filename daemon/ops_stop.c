/* Handing over.  A VM leaves with its memory in two steps, each a job on every lease: *gather* (everything that has content gets a
 * frame, comes home and stays), and, when all have, *hand over* (the client ends its registration: pages that are not there are
 * zero from then on, and only those are).  Then the VM ends like any other, but its pages are left alone.
 *
 *	enough memory? > gather all leases > hand over all leases > end
 *	            \ no: refused, nothing has changed; any failure on the way: what is gathered is let go again
 *
 * Enough means: the host has what the arena does not.  The frames that a VM takes along are lent to the arena meanwhile, so that
 * nobody else is pressed for them.  They go on counting in our memory cgroup until the VM's process ends, so beside them it
 * must have room for the arena that fills up again; not so at a stop, after which nothing is filled.
 *
 * Stop hands over one VM after the other, so that each may use what the one before has given back. */
#include "ops_stop.h"

#include "notify.h"
#include "ops_client.h"
#include "ops_dispatch.h"
#include "base/clock.h"
#include "base/events.h"
#include "mem/host.h"
#include "mem/inject.h"
#include "mem/state.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AGAIN_NS     (1 * NS_PER_S)	/* another signal before is the same one */
#define MARGIN_BYTES (16ull << 20)	/* of the host's memory, or our cgroup's, that is left alone */

/* A VM that leaves. */
struct leaving {
	struct client *client;		/* with a reference */
	struct call *call;		/* ReleaseVm; NULL: a stop */
	uint64_t lent_frames;
	unsigned jobs;			/* of this step, not back yet */
	bool handing;			/* the second step */
	int r;				/* of the first that failed */
	uint64_t pages;
};

struct leaving_job {
	struct client_job job;
	struct leaving *leaving;
};

/* A stop that is under way. */
struct stopping {
	struct call *call;		/* NULL: a signal; or the caller has gone */
	bool force, wait;
	uint64_t signal_ns;		/* when SIGTERM came; 0: it did not */
	struct leaving *now;		/* the VM that leaves; NULL: none */
	uint64_t released;
	char why[256];			/* it cannot go on, for now */
	uint64_t need, have;
};

static void next_of_stop(struct daemon *d);

static uint64_t missing_bytes(const struct client *c)
{
	uint64_t frames = 0;

	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l))
		frames += lease_missing_frames(l);
	return frames * PAGE_SIZE;
}

static int cgroup_allows(const struct client *c, uint64_t need, struct problem *p)
{
	struct host_cgroup cgroup;
	uint64_t have;

	host_cgroup(&cgroup);
	have = cgroup.room_bytes > MARGIN_BYTES ? cgroup.room_bytes - MARGIN_BYTES : 0;
	if (!c->daemon->stop)
		need += (arena_free_frames(c->daemon->arena) + atomic_load(&vm_account(c->vm)->frames)) * PAGE_SIZE;
	if (need <= have)
		return 0;
	return problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, need, have,
		"VM %s needs room for %llu MiB in memctld's memory cgroup, there are %llu: type \"systemctl set-property --runtime "
		"memctld MemoryMax=infinity\" (\"systemctl stop memctld\" needs none)", vm_config(c->vm)->name,
		(unsigned long long)(need + (1 << 20) - 1) >> 20, (unsigned long long)have >> 20);
}

/* Why the VM cannot leave now: 0, or -errno with the sentence. */
static int may_leave(struct client *c, struct problem *p)
{
	uint64_t need = missing_bytes(c), have = inject.low_host ? 0 : host_available_bytes();
	const char *name = vm_config(c->vm)->name;

	have = have > MARGIN_BYTES ? have - MARGIN_BYTES : 0;
	if (c->ending)
		return problem_set(p, EBUSY, PROBLEM_BAD_STATE, 0, 0, "VM %s is just ending", name);
	if (c->leaving)
		return problem_set(p, EBUSY, PROBLEM_BAD_STATE, 0, 0, "VM %s is leaving already", name);
	if (c->activated && !c->attending)
		return problem_set(p, EBUSY, PROBLEM_BAD_STATE, 0, 0,
			"the client of VM %s is not there to take its memory: it has not come back after a restart, or its library "
			"attends to no orders", name);
	if (cgroup_allows(c, need, p) < 0)
		return -ENOMEM;
	if (need > have)
		return problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, need, have,
			"VM %s needs %llu MiB more as plain memory, the host has %llu MiB: end other VMs or programs first", name,
			(unsigned long long)(need + (1 << 20) - 1) >> 20, (unsigned long long)have >> 20);
	return 0;
}

static void answer(struct leaving *w)
{
	struct client *c = w->client;
	struct op_release_vm_out out = { .pages = w->pages };
	struct problem p = { 0 };

	if (!w->call)
		return;
	if (w->r == 0) {
		call_reply(w->call, &ops[OP_release_vm], &out, NULL, 0);
	} else {
		if (w->r == -ETIMEDOUT || w->r == -EBUSY || w->r == -ENOTCONN || w->r == -ESHUTDOWN)
			problem_set(&p, EBUSY, PROBLEM_BAD_STATE, 0, 0,
				"The client of VM %s did not take its memory: its library did not answer, or not in time; memctld goes on "
				"serving it.", c->vm ? vm_config(c->vm)->name : "");
		else if (w->r == -EIO)
			problem_set(&p, EIO, PROBLEM_SYSTEM, 0, 0, "A page of VM %s cannot be read back from its store: its memory cannot be "
				"had as a whole.", c->vm ? vm_config(c->vm)->name : "");
		refuse_problem(w->call, w->r, &p, NULL);
	}
}

static void finish(struct leaving *w)
{
	struct client *c = w->client;
	struct daemon *d = c->daemon;
	struct stopping *s = d->stop;

	c->leaving = NULL;
	if (c->vm) {
		if (w->r < 0) {
			vm_set_leaving(c->vm, false);
			for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l))
				lease_stop_staying(l);
			event_tell(EVENT_VM_STAYS, EVENT_OF(.vm = vm_config(c->vm)->name), "VM %s: it keeps its leases: %s", vm_config(c->vm)->name, strerror(-w->r));
		} else {
			event_tell(EVENT_VM_HANDED_OVER, EVENT_OF(.vm = vm_config(c->vm)->name), "VM %s: handed over, %llu pages were brought in",
				vm_config(c->vm)->name, (unsigned long long)w->pages);
		}
	}
	arena_unlend(d->arena, w->lent_frames);
	answer(w);
	if (w->r == 0)
		client_end(c, EVENT_VM_ENDED, "it has its memory as its own");
	if (s && s->now == w) {
		s->now = NULL;
		s->released += w->r == 0;
		if (w->r < 0)
			snprintf(s->why, sizeof s->why, "VM %s did not take its memory", c->vm ? vm_config(c->vm)->name : "");
	}
	client_unref(c);
	free(w);
	if (s)
		next_of_stop(d);
}

static void begin_step(struct leaving *w);

static void job_back(struct client_job *j)
{
	struct leaving_job *k = container_of(j, struct leaving_job, job);
	struct leaving *w = k->leaving;

	if (j->job.r < 0 && w->r == 0)
		w->r = j->job.r;
	w->pages += j->job.pages;
	free(k);
	if (--w->jobs)
		return;
	if (w->r < 0 || w->handing || w->client->ending) {
		if (w->r == 0 && w->client->ending && !w->handing)
			w->r = -ESHUTDOWN;
		finish(w);
		return;
	}
	w->handing = true;
	begin_step(w);
}

/* The same job on every lease.  One more is counted until all have been given, so that the step does not end before. */
static void begin_step(struct leaving *w)
{
	struct client *c = w->client;

	w->jobs = 1;
	for (struct lease *l = vm_first_lease(c->vm); l && w->r == 0; l = lease_next(l)) {
		struct leaving_job *k = lease_is_active(l) ? calloc(1, sizeof *k) : NULL;
		int r;

		if (!lease_is_active(l))
			continue;
		if (!k) {
			w->r = -ENOMEM;
			break;
		}
		k->leaving = w;
		k->job.job.kind = w->handing ? JOB_HAND_OVER : JOB_GATHER;
		k->job.finished = job_back;
		w->jobs++;
		r = client_submit(c, l, &k->job);
		if (r < 0) {
			w->jobs--;
			w->r = r;
			free(k);
		}
	}
	if (--w->jobs)
		return;
	if (w->r == 0 && !w->handing) {
		w->handing = true;
		begin_step(w);
		return;
	}
	finish(w);
}

static int leave(struct client *c, struct call *call, struct leaving **ret)
{
	struct leaving *w = calloc(1, sizeof *w);

	if (!w)
		return -ENOMEM;
	w->client = client_ref(c);
	w->call = call;
	w->lent_frames = missing_bytes(c) / PAGE_SIZE;
	arena_lend(c->daemon->arena, w->lent_frames);
	vm_set_leaving(c->vm, true);
	c->leaving = w;
	if (ret)
		*ret = w;
	begin_step(w);
	return 0;
}

void do_release_vm(struct daemon *d, struct call *call, const struct op_release_vm_in *in)
{
	struct client *c = client_find(d, in->vm);
	struct problem p = { 0 };
	int r;

	if (!c) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	r = may_leave(c, &p);
	if (r == 0)
		r = leave(c, call, NULL);
	if (r < 0)
		refuse_problem(call, r, &p, NULL);
}

/* ---- Stop ---- */

static void tell(struct daemon *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct daemon *d, const char *fmt, ...)
{
	char text[320] = "STATUS=";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + 7, sizeof text - 7, fmt, ap);
	va_end(ap);
	if (strcmp(text, d->status)) {
		event_tell(EVENT_STOPPING, NULL, "%s", text + 7);
		snprintf(d->status, sizeof d->status, "%s", text);
		notify_send(text);
	}
}

static void end_stop(struct daemon *d)
{
	struct stopping *s = d->stop;
	struct op_stop_out out = { .released = s->released };

	d->stop = NULL;
	if (s->call)
		call_reply(s->call, &ops[OP_stop], &out, NULL, 0);
	free(s);
	if (d->n_clients)
		tell(d, "ending, %u VMs are left behind", d->n_clients);
	daemon_quit(d);
}

static void give_up_stop(struct daemon *d)
{
	struct stopping *s = d->stop;
	struct problem p = { 0 };

	d->stop = NULL;
	d->stopping = false;
	if (s->need)
		problem_set(&p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, s->need, s->have, "%s; memctld goes on (--force leaves such VMs behind)", s->why);
	else
		problem_set(&p, EBUSY, PROBLEM_BAD_STATE, 0, 0, "%s; memctld goes on (--force leaves such VMs behind)", s->why);
	tell(d, "serving; not stopped: %s", s->why);
	if (s->call)
		refuse_problem(s->call, s->need ? -ENOMEM : -EBUSY, &p, NULL);
	free(s);
}

/* One VM after the other; those that cannot leave now are left for the next round, or for good. */
static void next_of_stop(struct daemon *d)
{
	struct stopping *s = d->stop;
	struct problem first = { 0 };
	unsigned ending = 0, left = 0;

	if (s->now)
		return;
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);
		struct problem p = { 0 };

		if (c->ending || c->leaving) {
			ending++;
			continue;
		}
		if (*s->why == 0 && may_leave(c, &p) == 0) {
			tell(d, "stopping: VM %s gets its memory, %llu MiB to bring in", vm_config(c->vm)->name,
				(unsigned long long)missing_bytes(c) >> 20);
			if (leave(c, NULL, &s->now) == 0)
				return;
			s->now = NULL;
		}
		if (!left++)
			first = p;
	}
	if (ending)
		return; /* stop_client_gone comes back */
	if (!left || s->force) {
		end_stop(d);
		return;
	}
	if (*first.text) {
		snprintf(s->why, sizeof s->why, "%s", first.text);
		s->need = first.need;
		s->have = first.have;
	}
	if (s->wait)
		tell(d, "stopping, and waiting: %s", s->why);
	else
		give_up_stop(d);
}

static int begin_stop(struct daemon *d, struct call *call, bool force, bool wait)
{
	struct stopping *s = calloc(1, sizeof *s);

	if (!s)
		return -ENOMEM;
	*s = (struct stopping){ .call = call, .force = force, .wait = wait };
	d->stop = s;
	d->stopping = true;
	next_of_stop(d);
	return 0;
}

void stop_tick(struct daemon *d)
{
	struct stopping *s = d->stop;

	if (!s || s->now || !s->wait)
		return;
	if (s->call && !s->call->session) {
		/* who asked has gone: systemd's ExecStop goes on to SIGTERM by itself */
		call_done(s->call);
		s->call = NULL;
	}
	*s->why = 0;
	s->need = s->have = 0;
	next_of_stop(d);
}

void stop_client_gone(struct daemon *d)
{
	if (d->stop && !d->stop->now && (!d->stop->wait || !*d->stop->why))
		next_of_stop(d);
}

void stop_by_signal(struct daemon *d)
{
	struct stopping *s = d->stop;

	if (s && !s->signal_ns) {
		/* systemd's ExecStop= was ended, say: what it asked for goes on */
		s->wait = true;
		s->signal_ns = now_ns();
		return;
	}
	/* the same one comes twice if it was sent to our supervisor and to us */
	if (s && now_ns() - s->signal_ns < AGAIN_NS)
		return;
	if (s || begin_stop(d, NULL, false, true) < 0) {
		event_tell(EVENT_LEFT_BEHIND, NULL, "ending at once: %u VMs are left behind", d->n_clients);
		daemon_quit(d);
	} else if (d->stop) {
		d->stop->signal_ns = now_ns();
	}
}

void do_stop(struct daemon *d, struct call *call, const struct op_stop_in *in)
{
	if (d->stop && !in->force) {
		refuse(call, WIRE_ERROR_BadState, "memctld is stopping already; --force ends it now.");
		return;
	}
	if (d->stop) {
		struct stopping *s = d->stop;

		if (s->call)
			refuse(s->call, WIRE_ERROR_BadState, "Another stop came, with --force.");
		s->call = call;
		s->force = true;
		next_of_stop(d);
		return;
	}
	if (begin_stop(d, call, in->force, in->wait) < 0)
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
}

/* ---- Upgrade ---- */

void do_upgrade(struct daemon *d, struct call *call, const struct op_upgrade_in *in)
{
	struct op_upgrade_out out = { .state_format = STATE_FORMAT };
	ssize_t n = readlink("/proc/self/exe", out.program, sizeof out.program - 1);
	char *deleted;

	out.program[n > 0 ? n : 0] = 0;
	/* the file that we run has been replaced: its name is where the new one is */
	deleted = strstr(out.program, " (deleted)");
	if (deleted)
		*deleted = 0;
	snprintf(out.version, sizeof out.version, "%s", MEMCTL_VERSION);
	if (!in->check) {
		if (!notify_keeps()) {
			refuse(call, WIRE_ERROR_BadState,
				"Nobody would start memctld again and keep what guests need meanwhile: run it by systemd, or with --supervise.");
			return;
		}
		if (d->stop) {
			refuse(call, WIRE_ERROR_BadState, "memctld is stopping.");
			return;
		}
	}
	call_reply(call, &ops[OP_upgrade], &out, NULL, 0);
	if (!in->check)
		daemon_restart(d);
}
