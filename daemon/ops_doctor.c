/* Doctor: the rows of proto/doctor.def that memctld finds out about itself (doctor.h).
 *
 *	checks: [{id, title, state ("ok", "information", "warning", "failure"), text, fix (or null), meaning}]
 *
 * Looking means asking disks, which may take long or never come back, so it is done in a thread that lives for that only: it
 * gets a copy of what it needs and gives back findings by a post.  One at a time; who asks meanwhile gets the same answer.  Who
 * asks within FRESH_NS after it gets it too, so that nobody keeps the disks busy by asking; but who may operate, and so may have
 * put something right just now, has it looked anew.  After PATIENCE_NS everybody is answered with what there is, and that a file
 * system does not answer is a finding itself, for whoever asks later too, until the thread is back.  If memctld ends before that,
 * the thread owns all that it holds, and frees it. */
#include "ops_doctor.h"

#include "base/clock.h"
#include "base/events.h"
#include "doctor.h"
#include "notify.h"
#include "ops_client.h"
#include "ops_dispatch.h"
#include "proto/writer.h"
#include "record/record.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_NS (3 * NS_PER_S)
#define FRESH_NS    (5 * NS_PER_S)
#define CALLS_MAX   32

struct doctor_look {
	struct doctor doctor;
	struct post post;
	struct loop_timer *timer;
	struct call *calls[CALLS_MAX];
	unsigned n_calls;
	bool late;			/* it has been waited for too long */
	pthread_mutex_t lock;		/* of what follows */
	struct daemon *daemon;		/* NULL: nobody waits; the thread frees it all */
	bool is_back;			/* the thread has posted, and does not look at it again */
};

/* ---- what the control thread knows ---- */

static void view_vm(const struct client *c, struct doctor_view *v, struct doctor_vm *ret)
{
	const struct vm_config *vc = vm_config(c->vm);
	const struct group *group = c->membership.group;
	struct vm_numbers n;

	vm_numbers(c->vm, &n);
	v->swap_errors += n.swap_write_errors + n.swap_read_errors + n.checksum_errors;
	*ret = (struct doctor_vm){
		.size_bytes = vc->size_bytes, .swap_ready_bytes = n.swap_size_bytes, .uid = c->peer.uid,
		.user_mode_only = c->activated && c->user_mode_only,
		.in_group = group && !group->is_private, .pool_writable = group && c->share.writable,
		.wants_pool = c->share.kind == POLICY_SHARING_VM || c->share.kind == POLICY_SHARING_GROUP, .has_pool = group,
	};
	memcpy(ret->name, vc->name, sizeof ret->name);
	memcpy(ret->swap_dir, vc->swap_dir, sizeof ret->swap_dir);
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l))
		ret->leases++;
}

static int view(struct daemon *d, struct doctor_view *v)
{
	struct record_counts counts = { 0 };
	struct arena_numbers a;

	arena_numbers(d->arena, &a);
	if (d->record)
		record_counts(d->record, &counts);
	*v = (struct doctor_view){
		.arena_bytes = a.capacity_frames * PAGE_SIZE, .charged_bytes = a.charged_frames * PAGE_SIZE,
		.rows_written = counts.written, .rows_dropped = counts.dropped, .rows_failed = counts.failed,
		.client_hold_limit_s = d->config.client_hold_limit, .reconnect_grace_s = d->config.reconnect_grace,
		.managed = getenv("NOTIFY_SOCKET"), .supervised = getenv("MEMCTLD_SUPERVISED"), .keeps = notify_keeps(),
		.watchdog_ns = notify_watchdog_ns(), .uid = geteuid(),
	};
	snprintf(v->swap_dir, sizeof v->swap_dir, "%s", d->config.swap_dir);
	snprintf(v->allowed_swap_dirs, sizeof v->allowed_swap_dirs, "%s", d->config.allowed_swap_dirs);
	snprintf(v->metrics, sizeof v->metrics, "%s", d->config.metrics);
	snprintf(v->socket, sizeof v->socket, "%s", d->config.socket);
	v->vms = calloc(d->n_clients + 1, sizeof *v->vms);
	if (!v->vms)
		return -ENOMEM;
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!c->ending)
			view_vm(c, v, &v->vms[v->n_vms++]);
	}
	return 0;
}

/* ---- the answer ---- */

/* A row that the look has not come to, because it waits. */
static void write_waiting(struct writer *o, enum doctor_id id, const char *where)
{
	char text[400];

	snprintf(text, sizeof text, id == DOCTOR_swap_dir ?
		"%s has not answered for some seconds: its disk, or its file system, hangs." :
		"Not looked at: %s does not answer.", where);
	writer_str(o, "state", doctor_state_name(id == DOCTOR_swap_dir ? DOCTOR_FAILURE : DOCTOR_INFORMATION));
	writer_str(o, "text", text);
	if (id == DOCTOR_swap_dir)
		writer_str(o, "fix", "dmesg --level=err,warn | tail -n 20; lsblk -o NAME,TYPE,FSTYPE,MOUNTPOINTS,STATE");
	else
		writer_null(o, "fix");
}

static void write_finding(struct writer *o, enum doctor_id id, const struct doctor_finding *f, const char *waiting_for)
{
	writer_object(o, NULL);
	writer_str(o, "id", doctor_rows[id].id);
	writer_str(o, "title", doctor_rows[id].title);
	if (waiting_for && (f->state == DOCTOR_NOT_LOOKED || id == DOCTOR_swap_dir)) {
		write_waiting(o, id, waiting_for);
	} else {
		writer_str(o, "state", doctor_state_name(f->state));
		writer_str(o, "text", f->text);
		if (f->fix[0])
			writer_str(o, "fix", f->fix);
		else
			writer_null(o, "fix");
	}
	writer_str(o, "meaning", doctor_rows[id].meaning);
	writer_end(o);
}

static char *findings_text(struct doctor *doctor)
{
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	pthread_mutex_lock(&doctor->lock);
	for (unsigned id = 0; id < DOCTOR_COUNT; id++)
		write_finding(&o, id, &doctor->findings[id], doctor->looking_at);
	pthread_mutex_unlock(&doctor->lock);
	writer_end(&o);
	return writer_take(&o, NULL);
}

static void answer_with(struct call *c, char *text)
{
	struct op_doctor_out out = { .checks = text };

	if (text)
		call_reply(c, &ops[OP_doctor], &out, NULL, 0);
	else
		refuse(c, WIRE_ERROR_System, "memctld is out of memory for this reply.");
}

/* The text is the caller's. */
static char *answer(struct doctor_look *k)
{
	char *text = findings_text(&k->doctor);

	for (unsigned i = 0; i < k->n_calls; i++)
		answer_with(k->calls[i], text);
	k->n_calls = 0;
	return text;
}

/* Whose caller is gone leaves his place to others. */
static void drop_gone(struct doctor_look *k)
{
	unsigned n = 0;

	for (unsigned i = 0; i < k->n_calls; i++) {
		if (k->calls[i]->session)
			k->calls[n++] = k->calls[i];
		else
			call_done(k->calls[i]);
	}
	k->n_calls = n;
}

static bool is_fresh(const struct daemon *d, const struct call *c)
{
	return d->doctor_text && now_ns() - d->doctor_ns < FRESH_NS && call_access(d, c) < ACCESS_OPERATE;
}

/* ---- the look ---- */

static void look_free(struct doctor_look *k)
{
	loop_timer_free(k->timer);
	doctor_fini(&k->doctor);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static void back(struct post *p)
{
	struct doctor_look *k = container_of(p, struct doctor_look, post);

	if (k->late)
		event_tell(EVENT_DISK_ANSWERS, NULL, "a file system that did not answer does again");
	k->daemon->doctor = NULL;
	free(k->daemon->doctor_text);
	k->daemon->doctor_text = answer(k);
	k->daemon->doctor_ns = now_ns();
	/* it unlocks after it has posted */
	pthread_mutex_lock(&k->lock);
	pthread_mutex_unlock(&k->lock);
	look_free(k);
}

static void too_late(void *userdata)
{
	struct doctor_look *k = userdata;

	loop_timer_free(k->timer);
	k->timer = NULL;
	k->late = true;
	pthread_mutex_lock(&k->doctor.lock);
	event_tell(EVENT_DISK_SILENT, NULL, "%s has not answered for some seconds", k->doctor.looking_at ? k->doctor.looking_at : "the host");
	pthread_mutex_unlock(&k->doctor.lock);
	free(answer(k));
}

static void *look(void *userdata)
{
	struct doctor_look *k = userdata;
	bool abandoned;

	pthread_setname_np(pthread_self(), "doctor");
	doctor_run(&k->doctor);
	pthread_mutex_lock(&k->lock);
	abandoned = !k->daemon;
	k->is_back = true;
	if (!abandoned)
		loop_post(k->daemon->loop, &k->post, back);
	pthread_mutex_unlock(&k->lock);
	if (abandoned)
		look_free(k);
	return NULL;
}

static int start_thread(struct doctor_look *k)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* signals are the control thread's business */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = pthread_create(&thread, &attr, look, k);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

static int start_look(struct daemon *d, struct doctor_look **ret)
{
	struct doctor_look *k = calloc(1, sizeof *k);
	int r;

	if (!k)
		return -ENOMEM;
	k->daemon = d;
	doctor_init(&k->doctor, "");
	pthread_mutex_init(&k->lock, NULL);
	r = view(d, &k->doctor.view);
	if (r == 0)
		r = loop_timer_new(d->loop, PATIENCE_NS, too_late, k, &k->timer);
	if (r == 0)
		r = start_thread(k);
	if (r < 0) {
		look_free(k);
		return r;
	}
	*ret = d->doctor = k;
	return 0;
}

void do_doctor(struct daemon *d, struct call *call, const struct op_doctor_in *in)
{
	struct doctor_look *k = d->doctor;
	int r;

	if (!k && is_fresh(d, call)) {
		answer_with(call, d->doctor_text);
		return;
	}
	if (!k) {
		r = start_look(d, &k);
		if (r < 0) {
			refuse(call, WIRE_ERROR_System, "memctld cannot look at the host: %s.", strerror(-r));
			return;
		}
	}
	drop_gone(k);
	if (k->n_calls == CALLS_MAX) {
		refuse(call, WIRE_ERROR_BadState, "Too many ask this at once: ask again.");
		return;
	}
	k->calls[k->n_calls++] = call;
	if (k->late)
		free(answer(k));
}

void doctor_abandon(struct daemon *d)
{
	struct doctor_look *k = d->doctor;
	bool is_back;

	free(d->doctor_text);
	d->doctor_text = NULL;
	if (!k)
		return;
	d->doctor = NULL;
	for (unsigned i = 0; i < k->n_calls; i++)
		refuse(k->calls[i], WIRE_ERROR_BadState, "memctld ends.");
	k->n_calls = 0;
	loop_timer_free(k->timer);
	k->timer = NULL;
	pthread_mutex_lock(&k->lock);
	is_back = k->is_back;
	k->daemon = NULL;
	pthread_mutex_unlock(&k->lock);
	/* its post is dropped with the loop */
	if (is_back)
		look_free(k);
}
