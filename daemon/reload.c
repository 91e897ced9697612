#include "reload.h"

#include "decisions.h"
#include "load.h"
#include "notify.h"
#include "ops_dispatch.h"
#include "base/clock.h"
#include "base/events.h"
#include "proto/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOBS_MAX    64
#define NAMES_TICKS 10

struct reload {
	struct daemon *daemon;
	unsigned ticks;
	struct list jobs;		/* the first one has a thread */
	char error[512];
};

/* While its thread runs, the thread's. */
struct reload_job {
	struct list link;
	struct reload *reload;
	struct call *call;		/* NULL: a signal */
	unsigned uid;
	const struct setting *setting;	/* to be tuned; NULL: everything is read again */
	struct op_tune_in tune;
	struct load load;
	struct config config;		/* in force when it began; then as it is to be */
	struct config_where where;
	struct load_names names;	/* of that */
	int result;
	char why[512];
	pthread_t thread;
	struct post post;
};

bool reload_waits(const struct daemon *d, const struct setting *s)
{
	return !s->live && !setting_is_equal(s, &d->config, &d->written);
}

unsigned reload_waiting(const struct daemon *d, char *ret, size_t bytes)
{
	unsigned n = 0;
	size_t length = 0;

	*ret = 0;
	for (const struct setting *s = settings; s->name; s++) {
		if (!reload_waits(d, s))
			continue;
		if (length < bytes)
			length += (size_t)snprintf(ret + length, bytes - length, "%s%s", n ? ", " : "", s->name);
		n++;
	}
	return n;
}

const char *reload_error(const struct reload *r)
{
	return r->error;
}

void reload_write_warnings(struct writer *o, const struct daemon *d)
{
	char names[300], text[800];

	if (d->reload->error[0]) {
		snprintf(text, sizeof text, "The settings could not be read again, and are as they were: %s.", d->reload->error);
		writer_str(o, NULL, text);
	}
	if (reload_waiting(d, names, sizeof names)) {
		snprintf(text, sizeof text, "Settings that are written otherwise than they are wait for a restart: %s.", names);
		writer_str(o, NULL, text);
	}
}

/* ---- on the thread ---- */

/* What is written, where it may change now. */
static void take_live(struct config *to, struct config_where *where, const struct load *l)
{
	for (const struct setting *s = settings; s->name; s++) {
		size_t i = setting_index(s);

		if (!s->live && !setting_is_equal(s, to, &l->config))
			continue;
		setting_copy(s, to, &l->config);
		memcpy(where->of[i], l->where.of[i], CONFIG_WHERE_MAX);
	}
}

static void *run(void *arg)
{
	struct reload_job *j = arg;
	struct daemon *d = j->reload->daemon;

	if (j->setting) {
		j->result = load_names_resolve(&j->names, &j->config, &j->where, j->why, sizeof j->why);
	} else {
		j->result = load_read(d->options->source, &j->load, j->why, sizeof j->why);
		if (j->result == 0)
			j->result = load_resolve(&j->load, j->why, sizeof j->why);
		if (j->result == 0) {
			take_live(&j->config, &j->where, &j->load);
			j->result = load_names_resolve(&j->names, &j->config, &j->where, j->why, sizeof j->why);
		}
	}
	return NULL;
}

static void job_done(struct post *p);

static void *run_and_post(void *arg)
{
	struct reload_job *j = arg;

	run(j);
	loop_post(j->reload->daemon->loop, &j->post, job_done);
	return NULL;
}

/* ---- on the control thread ---- */

static void job_free(struct reload_job *j)
{
	list_remove(&j->link);
	load_fini(&j->load);
	load_names_fini(&j->names);
	free(j);
}

static void tell_manager(bool reloading)
{
	char text[96] = "READY=1";

	if (reloading)
		snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(now_ns() / 1000));
	notify_send(text);
}

static void begin_next(struct reload *r)
{
	struct reload_job *j;
	int err;

	if (list_empty(&r->jobs))
		return;
	j = container_of(r->jobs.next, struct reload_job, link);
	j->config = r->daemon->config;
	j->where = r->daemon->where;
	if (j->setting) {
		setting_set(j->setting, &j->config, j->tune.value, j->why, sizeof j->why);
		snprintf(j->where.of[setting_index(j->setting)], CONFIG_WHERE_MAX, "tune");
	} else {
		tell_manager(true);
	}
	err = pthread_create(&j->thread, NULL, run_and_post, j);
	if (err) {
		j->thread = pthread_self();
		j->result = -err;
		snprintf(j->why, sizeof j->why, "no thread to read the settings: %s", strerror(err));
		loop_post(r->daemon->loop, &j->post, job_done);
	}
}

static void add(struct daemon *d, struct call *call, const struct setting *s, const struct op_tune_in *in)
{
	struct reload_job *j;
	bool idle = list_empty(&d->reload->jobs);
	unsigned n = 0;

	list_foreach(l, &d->reload->jobs)
		n++;
	if (n >= JOBS_MAX && call) {
		refuse(call, WIRE_ERROR_BadState, "memctld still reads its settings: %u calls wait for that (does the directory of users answer?).", n);
		return;
	}
	j = calloc(1, sizeof *j);
	if (!j) {
		if (call)
			refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		else
			event_tell(EVENT_SETTINGS_REFUSED, NULL, "no memory to read the settings again");
		return;
	}
	j->reload = d->reload;
	j->call = call;
	j->uid = call ? (unsigned)session_peer(call->session)->uid : 0;
	j->setting = s;
	if (in)
		j->tune = *in;
	list_append(&d->reload->jobs, &j->link);
	if (idle)
		begin_next(d->reload);
}

void reload_begin(struct daemon *d, struct call *call)
{
	if (d->stopping || d->stop) {
		if (call)
			refuse(call, WIRE_ERROR_BadState, "memctld is ending.");
		return;
	}
	/* a signal that comes while another one waits says nothing new */
	if (!call)
		list_foreach(l, &d->reload->jobs) {
			struct reload_job *j = container_of(l, struct reload_job, link);

			if (l != d->reload->jobs.next && !j->call && !j->setting)
				return;
		}
	add(d, call, NULL, NULL);
}

void reload_tick(struct daemon *d)
{
	if (d->names_wait && ++d->reload->ticks % NAMES_TICKS == 0)
		reload_begin(d, NULL);
}

void reload_tune(struct daemon *d, struct call *call, const struct setting *s, const struct op_tune_in *in)
{
	add(d, call, s, in);
}

static void take_names(struct daemon *d, struct load_names *n)
{
	access_fini(&d->access);
	share_groups_free(d->share_groups);
	d->access = n->access;
	d->share_groups = n->share_groups;
	*n = (struct load_names){ .access.group = (gid_t)-1 };
}

/* The socket was made without its group. */
static void names_are_known(struct daemon *d)
{
	if (d->names_wait && d->access.group != (gid_t)-1 && lchown(d->config.socket, (uid_t)-1, d->access.group) < 0)
		event_tell(EVENT_SYSTEM_ERROR, NULL, "cannot give %s to access_group: %s", d->config.socket, strerror(errno));
	d->names_wait = false;
}

static void write_changes(struct writer *o, struct daemon *d, const struct config *next)
{
	writer_array(o, "changed");
	for (const struct setting *s = settings; s->name; s++) {
		char was[CONFIG_TEXT_MAX], is[CONFIG_TEXT_MAX];

		if (setting_is_equal(s, &d->config, next))
			continue;
		setting_format(s, &d->config, was, sizeof was);
		setting_format(s, next, is, sizeof is);
		event_tell(EVENT_SETTING_CHANGED, NULL, "setting %s = %s (it was %s)", s->name, is, was);
		writer_object(o, NULL);
		writer_str(o, "name", s->name);
		writer_str(o, "value", is);
		writer_str(o, "was", was);
		writer_end(o);
	}
	writer_end(o);
}

static void write_waiting(struct writer *o, const struct daemon *d)
{
	writer_array(o, "restart");
	for (const struct setting *s = settings; s->name; s++) {
		char is[CONFIG_TEXT_MAX], wanted[CONFIG_TEXT_MAX];

		if (!reload_waits(d, s))
			continue;
		setting_format(s, &d->config, is, sizeof is);
		setting_format(s, &d->written, wanted, sizeof wanted);
		event_tell(EVENT_SETTING_WAITS, NULL, "setting %s = %s waits for a restart: it is %s", s->name, wanted, is);
		writer_str(o, NULL, s->name);
	}
	writer_end(o);
}

/* 0: it is in force, and *ret says what has changed. */
static int take_files(struct daemon *d, struct reload_job *j, struct writer *o)
{
	struct config next = d->config;
	unsigned vms = 0;
	int r = decisions_apply(d, j->load.vm_files, &vms, j->why, sizeof j->why);

	if (r < 0)
		return r;
	/* of now: numbers may have been tuned since it began */
	take_live(&next, &d->where, &j->load);
	writer_object(o, NULL);
	write_changes(o, d, &next);
	d->written = j->load.config;
	d->written_where = j->load.where;
	vm_files_free(d->vm_files);
	d->vm_files = j->load.vm_files;
	j->load.vm_files = NULL;
	take_names(d, &j->names);
	names_are_known(d);
	daemon_set_config(d, &next);
	write_waiting(o, d);
	writer_u64(o, "vms", vms);
	writer_end(o);
	return 0;
}

static void end_reload(struct daemon *d, struct reload_job *j)
{
	struct op_reload_out out = { 0 };
	struct writer o = WRITER_INIT;
	int r = j->result;

	if (r == 0)
		r = take_files(d, j, &o);
	if (r == 0)
		event_tell(EVENT_SETTINGS_READ, NULL, "the settings were read again");
	snprintf(d->reload->error, sizeof d->reload->error, "%s", r < 0 ? j->why : "");
	if (r < 0) {
		event_tell(EVENT_SETTINGS_REFUSED, NULL, "%s; the settings are as they were", j->why);
		if (j->call)
			refuse_field(j->call, WIRE_ERROR_InvalidValue, "configuration", "%.300s; the settings are as they were.", j->why);
	} else if (j->call) {
		out.reload = writer_take(&o, NULL);
		if (out.reload)
			call_reply(j->call, &ops[OP_reload], &out, NULL, 0);
		else
			refuse(j->call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
		free(out.reload);
	}
	writer_fini(&o);
	tell_manager(false);
}

void reload_tune_now(struct daemon *d, const struct setting *s, const struct op_tune_in *in, unsigned uid)
{
	size_t i = setting_index(s);
	struct config c = d->config;
	char place[CONFIG_WHERE_MAX] = "tune", why[256], path[CONFIG_WHERE_MAX - 24];

	setting_set(s, &c, in->value, why, sizeof why);
	if (in->line) {
		load_tune_path(d->options->source, path, sizeof path);
		snprintf(place, sizeof place, "%s:%llu", path, (unsigned long long)in->line);
		setting_copy(s, &d->written, &c);
		memcpy(d->written_where.of[i], place, sizeof place);
	}
	if (s->live) {
		memcpy(d->where.of[i], place, sizeof place);
		daemon_set_config(d, &c);
	}
	event_tell(EVENT_SETTING_CHANGED, NULL, "setting %s = %s (by user %u)%s", s->name, in->value, uid,
		s->live ? "" : ": acts from the next start on");
}

static void end_tune(struct daemon *d, struct reload_job *j)
{
	if (j->result < 0) {
		refuse_field(j->call, WIRE_ERROR_InvalidValue, "value", "%.300s.", j->why);
		return;
	}
	if (!j->tune.check && j->setting->live)
		take_names(d, &j->names);
	if (!j->tune.check)
		reload_tune_now(d, j->setting, &j->tune, j->uid);
	call_reply(j->call, &ops[OP_tune], &(struct op_tune_out){ .live = j->setting->live }, NULL, 0);
}

static void job_done(struct post *p)
{
	struct reload_job *j = container_of(p, struct reload_job, post);
	struct reload *r = j->reload;

	/* it does nothing any more */
	if (!pthread_equal(j->thread, pthread_self()))
		pthread_join(j->thread, NULL);
	if (j->setting)
		end_tune(r->daemon, j);
	else
		end_reload(r->daemon, j);
	job_free(j);
	begin_next(r);
}

int reload_new(struct reload **ret, struct daemon *d)
{
	struct reload *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	r->daemon = d;
	list_init(&r->jobs);
	*ret = r;
	return 0;
}

void reload_free(struct reload *r)
{
	bool first = true;

	while (r && !list_empty(&r->jobs)) {
		struct reload_job *j = container_of(r->jobs.next, struct reload_job, link);

		if (first && !pthread_equal(j->thread, pthread_self()))
			pthread_join(j->thread, NULL);
		first = false;
		if (j->call)
			refuse(j->call, WIRE_ERROR_BadState, "memctld is ending.");
		job_free(j);
	}
	free(r);
}
