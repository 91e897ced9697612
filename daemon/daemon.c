#include "daemon.h"

#include "base/clock.h"
#include "base/events.h"
#include "decisions.h"
#include "event_watch.h"
#include "event_history.h"
#include "holds.h"
#include "host_ghz.h"
#include "ops_client.h"
#include "ops_dispatch.h"
#include "ops_doctor.h"
#include "ops_history.h"
#include "ops_resume.h"
#include "ops_stop.h"
#include "mem/host.h"
#include "mem/inject.h"
#include "mem/locked.h"
#include "memory_max.h"
#include "notify.h"
#include "page_in.h"
#include "plan_log.h"
#include "reload.h"
#include "seccomp_filter.h"
#include "record/history.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define HOUR_S	       3600ull
#define STOP_PERIOD_NS (20 * NS_PER_MS)
#define STOP_NS	       (5 * NS_PER_S)	/* the most that ending waits for VMs to be released */
#define END_RECORD_NS  (2 * NS_PER_S)	/* and for the history, whose disk may hang; its reader has half of it */

/* A VM takes about six descriptors and a lease about four: the kernel's default of 1024 is soon too small. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		event_tell(EVENT_DESCRIPTOR_LIMIT, NULL, "cannot raise the limit of open files: %s", strerror(errno));
}

static void tell_ready(const struct daemon_options *o)
{
	notify_send("READY=1");
	if (o->ready_fd < 0)
		return;
	if (write(o->ready_fd, "ready\n", 6) != 6)
		event_tell(EVENT_MANAGER_DEAF, NULL, "cannot write to the ready descriptor: %s", strerror(errno));
	close(o->ready_fd);
}

/* VMs whose clients have gone are released first; those whose clients live do not hold us up (see
 * daemon_run). */
static void try_stop(void *userdata)
{
	struct daemon *d = userdata;
	bool ending = false;

	list_foreach(l, &d->clients)
		ending = ending || container_of(l, struct client, link)->ending;
	if (!ending || now_ns() > d->stop_deadline_ns)
		loop_quit(d->loop);
}

static void on_signal(unsigned events, void *userdata)
{
	struct daemon *d = userdata;
	struct signalfd_siginfo info;

	if (read(d->signal_fd, &info, sizeof info) != sizeof info)
		return;
	if (info.ssi_signo == SIGHUP) {
		reload_begin(d, NULL);
		return;
	}
	event_tell(EVENT_ENDING, NULL, "signal %u: ending", info.ssi_signo);
	if (info.ssi_signo == SIGINT)
		daemon_quit(d);
	else
		stop_by_signal(d);
}

void daemon_quit(struct daemon *d)
{
	d->stopping = true;
	if (d->stop_timer)
		return;
	notify_send("STOPPING=1");
	/* not at once: connections that closed before the signal are noticed first */
	d->stop_deadline_ns = now_ns() + STOP_NS;
	if (loop_timer_new(d->loop, STOP_PERIOD_NS, try_stop, d, &d->stop_timer) < 0)
		loop_quit(d->loop);
}

static void quit_for_restart(void *userdata)
{
	struct daemon *d = userdata;

	if (holds_none(d) || !d->config.client_hold_limit || now_ns() > d->stop_deadline_ns)
		loop_quit(d->loop);
}

void daemon_restart(struct daemon *d)
{
	d->stopping = d->restart = true;
	event_tell(EVENT_UPGRADE, NULL, "ending to be started again");
	d->stop_deadline_ns = now_ns() + STOP_NS;
	if (loop_timer_new(d->loop, STOP_PERIOD_NS, quit_for_restart, d, &d->stop_timer) < 0)
		loop_quit(d->loop);
}

static void set_reclaim(struct daemon *d)
{
	const struct config *c = &d->config;

	reclaim_set(d->reclaim, &(struct reclaim_settings){ .min_free_pct = (unsigned)c->min_free_pct,
		.idle_tax_pct = (unsigned)c->idle_tax, .idle_tax_type = (unsigned)c->idle_tax_type,
		.balance_period_ns = (uint64_t)c->balance_period * NS_PER_S });
}

static struct record_keep what_to_keep(const struct config *c)
{
	return (struct record_keep){
		.seconds = { (uint64_t)c->metrics_keep_1s * HOUR_S, (uint64_t)c->metrics_keep_10s * HOUR_S,
			(uint64_t)c->metrics_keep_1m * HOUR_S, (uint64_t)c->metrics_keep_1h * HOUR_S },
		.plan_seconds = (uint64_t)c->metrics_keep_plans * HOUR_S,
		.event_seconds = (uint64_t)c->metrics_keep_events * HOUR_S,
		.max_bytes = c->metrics_max_bytes,
	};
}

/* Carry the live settings from the configuration to those who use them. */
static void apply_settings(struct daemon *d)
{
	const struct config *c = &d->config;

	d->settings.zstd_level = (int)c->zstd_level;
	d->settings.victim = (unsigned)c->victim;
	d->settings.zip_max_pct = c->zip_enable ? (unsigned)c->zip_max_pct : 0;
	d->settings.zip_max_alloc_pct = (unsigned)c->zip_max_alloc_pct;
	d->settings.fault_around_pages = (unsigned)c->fault_around;
	d->settings.swap_spin_us = (unsigned)c->swap_spin;
	d->settings.share_rate_max = (unsigned)c->share_rate_max;
	d->settings.ctl_max_pct = (unsigned)c->ctl_max_pct;
	d->settings.stall_budget_permille = (unsigned)c->stall_budget_permille;
	if (d->reclaim)
		set_reclaim(d);
	if (d->record) {
		struct record_keep keep = what_to_keep(c);

		record_set_keep(d->record, &keep);
	}
}

void daemon_set_config(struct daemon *d, const struct config *c)
{
	d->config = *c;
	apply_settings(d);
}

static int start_signals(struct daemon *d, struct problem *p)
{
	sigset_t set;

	/* Before any thread: all inherit the mask, and the signals arrive at the descriptor only. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);	/* a supervisor forwards it */
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signal_fd < 0)
		return problem_errno(p, "cannot make a signalfd");
	return 0;
}

static int listen_at(struct daemon *d, struct server **ret, const struct server_config *c, const struct server_events *e, struct problem *p)
{
	int r = server_new(ret, d->loop, c, e);

	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "cannot listen on %s: %s", c->path, strerror(-r));
	return 0;
}

/* Anybody may come to the read-only socket, and nobody needs much of it. */
#define RO_SESSIONS_PER_UID 16
#define RO_SESSIONS_MAX     256
#define RO_OUTPUT_MAX       (256u << 10)
#define RO_MESSAGE_MAX      (8u << 10)

static int start_server(struct daemon *d, struct problem *p)
{
	struct server_config sc = {
		.path = d->config.socket,
		.mode = (mode_t)d->config.socket_mode,
		.group = d->access.group,
		.sessions_per_uid = (unsigned)d->config.max_sessions_per_user,
		.output_max_bytes = d->config.max_queued_replies,
		.message_max_bytes = WIRE_CALL_MAX,
		.unweighed = inject.twin_unweighed,
		.none_apart = inject.twin_none_apart,
	};
	struct server_events events = {
		.urgent = dispatch_urgent,
		.call = dispatch_call,
		.closed = dispatch_closed,
		.userdata = d,
	};
	int r = listen_at(d, &d->server, &sc, &events, p);

	if (r < 0 || !strcmp(d->config.socket_ro, "none"))
		return r;
	sc.path = d->config.socket_ro;
	sc.mode = (mode_t)d->config.socket_ro_mode;
	sc.group = (gid_t)-1;
	sc.sessions_per_uid = sc.sessions_per_uid < RO_SESSIONS_PER_UID ? sc.sessions_per_uid : RO_SESSIONS_PER_UID;
	sc.sessions_max = RO_SESSIONS_MAX;
	sc.output_max_bytes = sc.output_max_bytes < RO_OUTPUT_MAX ? sc.output_max_bytes : RO_OUTPUT_MAX;
	sc.message_max_bytes = RO_MESSAGE_MAX;
	sc.no_descriptors = true;
	r = listen_at(d, &d->server_ro, &sc, &events, p);
	if (r < 0 && d->found) {
		event_tell(EVENT_SOCKET_RO_FAILED, NULL, "%s; memctld goes on without it", p->text);
		r = 0;
	}
	return r;
}

/* The VMs that the tick looks at. */
static void each_vm(void *userdata, void (*one)(void *arg, struct vm *vm), void *arg)
{
	struct daemon *d = userdata;

	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!c->ending)
			one(arg, c->vm);
	}
}

static void tick_now(void *userdata)
{
	struct daemon *d = userdata;

	tick_run(d->tick);
	holds_look(d);
	resume_tick(d);
	stop_tick(d);
	reload_tick(d);
	event_watch_look(d);
	events_tick();
	/* ending takes a client from the list later, by a post: the walk is safe */
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!c->ending && vm_must_end(c->vm))
			client_end(c, EVENT_CLIENT_BROKE_RULES, vm_trouble(c->vm));
	}
}

static int start_record(struct daemon *d, struct problem *p)
{
	struct record_options ro = {
		.path = d->config.metrics,
		.numbers = {
			.vm = catalogue_vm, .n_vm = catalogue_vm_count,
			.host = catalogue_host, .n_host = catalogue_host_count,
			.plan = plan_log_numbers, .n_plan = plan_log_number_count,
			.plan_vm = plan_log_vm_numbers, .n_plan_vm = plan_log_vm_number_count,
		},
		.keep = what_to_keep(&d->config),
	};
	int r;

	if (!strcmp(d->config.metrics, "none"))
		return 0;
	r = record_open(&d->record, &ro, p);
	if (r == 0) {
		reclaim_set_record(d->reclaim, d->record);
		event_history_begin(d->record);
		r = history_new(&d->history, d->config.metrics, &ro.numbers);
		if (r < 0)
			problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "cannot start the reader of the metrics: %s", strerror(-r));
	}
	/* history is worth less than guests that wait */
	if (r < 0 && d->found) {
		event_tell(EVENT_METRICS_FAILED, NULL, "%s; memctld goes on without history", p->text);
		return 0;
	}
	return r;
}

static int start_tick(struct daemon *d, struct problem *p)
{
	int r = start_record(d, p);

	if (r < 0)
		return r;
	r = tick_new(&d->tick, d->arena, d->reclaim, d->groups, d->record, &(struct tick_vms){ each_vm, d });
	if (r == 0)
		r = loop_timer_new(d->loop, NS_PER_S, tick_now, d, &d->tick_timer);
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "cannot start the tick: %s", strerror(-r));
	return 0;
}

static int keep(void *userdata, const char *tag, int fd)
{
	return notify_keep(tag, fd);
}

static void drop(void *userdata, const char *tag)
{
	notify_drop(tag);
}

/* What a process before us has left with the service manager. */
static int find_kept(struct daemon *d, struct problem *p)
{
	struct inherited *all;
	unsigned n;
	int r;

	r = kept_new(&d->kept, notify_keeps() ? &(struct keeper){ keep, drop, NULL } : NULL);
	if (r == 0)
		r = notify_inherited(&all, &n);
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "no memory for what was kept");
	d->found = n > 0;
	for (unsigned i = 0; i < n; i++)
		kept_find(d->kept, all[i].name, all[i].fd);
	free(all);
	return 0;
}

/* With guests that wait we go on with what there is: less than the arena can be made do with, nobody at all cannot. */
static int check_memory_limit(struct daemon *d, struct problem *p)
{
	struct host_cgroup cgroup;

	host_cgroup(&cgroup);
	switch (memory_judge(&d->config, cgroup.limit_bytes, p)) {
	case MEMORY_FINE:
		return 0;
	case MEMORY_TOO_LITTLE:
		if (!d->found)
			return -ENOMEM;
		event_tell(EVENT_MEMORY_SHORT, NULL, "%s", p->text);
		return 0;
	case MEMORY_TIGHT:
		event_tell(EVENT_MEMORY_TIGHT, NULL, "%s", p->text);
		return 0;
	}
	return 0;
}

/* What memctld can do beyond its task is taken from it, before there is any thread and any client.  A host on which that cannot be done
 * is served all the same: its guests are. */
static void confine(const struct daemon *d)
{
	int r = 0;

	if (inject.twin_unconfined)
		return;
	/* no core files, which would hold tokens, and no debugger of another process of our user */
	if (seccomp_filter_is_built() && prctl(PR_SET_DUMPABLE, 0) < 0)
		r = -errno;
	if (r == 0 && d->config.seccomp)
		r = seccomp_filter_apply();
	if (r == -ENOSYS && !seccomp_filter_is_built())
		event_tell(EVENT_UNCONFINED, NULL, "built without libseccomp: memctld may make any system call");
	else if (r < 0)
		event_tell(EVENT_UNCONFINED, NULL, "memctld may make any system call: %s", strerror(-r));
}

static int start(struct daemon *d, struct problem *p)
{
	int r;

	r = events_begin();
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "no memory for events");
	raise_descriptor_limit();
	r = inject_from_environment();
	if (r < 0)
		return problem_set(
			p, -r, PROBLEM_SYSTEM, 0, 0, "MEMCTLD_TWIN or MEMCTLD_INJECT is not understood");
	if (inject.twin_events_uncounted)
		events_tell_all();
	locked_code();
	confine(d);
	r = reload_new(&d->reload, d);
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "out of memory");
	if (inject.try_forbidden)
		seccomp_filter_try();
	r = start_signals(d, p);
	if (r < 0)
		return r;
	r = loop_new(&d->loop);
	if (r == 0)
		r = loop_watch(d->loop, d->signal_fd, LOOP_READ, on_signal, d, &d->signal_watch);
	if (r < 0)
		return problem_set(
			p, -r, PROBLEM_SYSTEM, 0, 0, "cannot make the event loop: %s", strerror(-r));
	apply_settings(d);
	if (access(d->config.swap_dir, W_OK | X_OK) < 0)
		event_tell(EVENT_SWAP_DIR, NULL, "swap_dir %s: %s; VMs that are not guaranteed all of their memory cannot come",
			d->config.swap_dir, strerror(errno));
	r = find_kept(d, p);
	if (r < 0)
		return r;
	r = check_memory_limit(d, p);
	if (r == 0)
		r = arena_new(&d->arena, d->config.arena_bytes, d->kept, p);
	if (r < 0)
		return r;
	r = reclaim_new(&d->reclaim, d->arena, p);
	if (r < 0)
		return r;
	set_reclaim(d);
	r = groups_new(&d->groups, d->arena, &d->settings);
	if (r == 0)
		r = scanner_new(&d->scanner, d, host_ghz(""));
	if (r == 0)
		r = page_ins_new(&d->page_ins, d);
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "cannot start the sharing scan: %s", strerror(-r));
	r = balloons_new(&d->balloons, d);
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "cannot start the balloons' clock: %s", strerror(-r));
	r = sampler_new(&d->sampler, d);
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "cannot start sampling: %s", strerror(-r));
	/* guests wait for this: before all that may take its time */
	r = resume_found(d, p);
	if (r < 0)
		return r;
	r = start_tick(d, p);
	if (r == 0)
		r = watchdog_new(&d->watchdog, d->loop, d->reclaim, p);
	if (r < 0)
		return r;
	return start_server(d, p);
}

/* What waits is written.  The reclaim thread writes there as well. */
static void end_record(struct daemon *d)
{
	uint64_t now = now_ns();

	if (d->reclaim)
		reclaim_set_record(d->reclaim, NULL);
	event_history_end();
	if (history_free_by(d->history, now + END_RECORD_NS / 2))
		d->history = NULL;
	if (record_close_by(d->record, now + END_RECORD_NS))
		d->record = NULL;
}

/* Orderly, in the reverse order of start; undoes half a start too. */
static void finish(struct daemon *d)
{
	doctor_abandon(d);
	server_free(d->server);
	server_free(d->server_ro);
	reload_free(d->reload);
	loop_timer_free(d->stop_timer);
	watchdog_free(d->watchdog);
	loop_timer_free(d->tick_timer);
	tick_free(d->tick);
	page_ins_free(d->page_ins);
	balloons_free(d->balloons);
	end_record(d);
	/* a reader that hangs has one of them */
	if (!d->history)
		ops_history_end();
	sampler_free(d->sampler);
	scanner_free(d->scanner);
	groups_free(d->groups);
	reclaim_free(d->reclaim);
	arena_free(d->arena);
	kept_free(d->kept);
	watch_free(d->signal_watch);
	loop_free(d->loop);
	share_groups_free(d->share_groups);
	access_fini(&d->access);
	vm_files_free(d->vm_files);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
}

int daemon_run(struct load *l, const struct daemon_options *o, struct problem *p)
{
	const struct config *c = &l->config;
	struct daemon d = {
		.config = *c, .where = l->where, .written = *c, .written_where = l->where, .access = l->names.access,
		.share_groups = l->names.share_groups, .vm_files = l->vm_files, .signal_fd = -1, .started_ns = now_ns(),
		.started_wall_ns = wall_ns(), .options = o, .names_wait = o->names_wait,
	};
	int r;

	list_init(&d.clients);
	r = start(&d, p);
	if (r < 0 && d.found) {
		/* not in an orderly way: that would give up what is kept */
		event_tell(EVENT_START_FAILED, NULL, "%s", p->text);
		_exit(EXIT_FAILURE);
	}
	if (r == 0) {
		event_tell(EVENT_STARTED, NULL, "serving on %s with an arena of %llu MiB", c->socket,
			(unsigned long long)(c->arena_bytes >> 20));
		tell_ready(o);
		if (!d.names_wait)
			decisions_at_restart(&d);
		r = loop_run(d.loop);
		if (r < 0)
			problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "the event loop failed: %s", strerror(-r));
	}
	if (d.restart && r == 0) {
		end_record(&d);
		_exit(EXIT_RESTART);
	}
	if (d.n_clients > 0) {
		/* Giving their memory back now would take pages from guests that still run.  As it is, they
		 * keep what is resident, and wait where they touch what is not: nobody reads zeros. */
		event_tell(EVENT_LEFT_BEHIND, NULL, "ending with %u VMs; guests wait when they touch pages that are not resident",
			d.n_clients);
		unlink(c->socket);
		if (d.server_ro)
			unlink(c->socket_ro);
		end_record(&d);
		_exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	finish(&d);
	return r;
}
