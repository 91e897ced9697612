/* memctld as a whole: what the files of daemon/ share, its start and its end.
 *
 * Everything in struct daemon belongs to the control thread (the one that runs the loop), except what says
 * otherwise in its own header. */
#pragma once

#include "balloons.h"
#include "base/list.h"
#include "config.h"
#include "event_watch.h"
#include "groups.h"
#include "load.h"
#include "mem/arena.h"
#include "mem/vm.h"
#include "ops_access.h"
#include "reclaim.h"
#include "sampler.h"
#include "scanner.h"
#include "serve/loop.h"
#include "serve/session.h"
#include "share_groups.h"
#include "tick.h"
#include "watchdog.h"

#include <stdint.h>

struct daemon {
	struct config config;			/* in force */
	struct config_where where;
	struct config written;			/* what files and command line said when they were read last */
	struct config_where written_where;
	struct access access;			/* names of the settings, resolved */
	struct share_groups *share_groups;
	struct vm_files *vm_files;
	struct reload *reload;
	struct mem_settings settings;	/* live: read by the lease workers */
	struct loop *loop;
	struct server *server;
	struct server *server_ro;	/* NULL: there is no read-only socket */
	struct kept *kept;
	struct arena *arena;
	struct reclaim *reclaim;
	struct groups *groups;
	struct scanner *scanner;
	struct page_ins *page_ins;
	struct balloons *balloons;
	struct sampler *sampler;
	struct doctor_look *doctor;	/* ops_doctor.c: a look at the host that is under way; NULL: none */
	char *doctor_text;		/* what the last one found; NULL: nobody has looked */
	uint64_t doctor_ns;		/* when */
	struct share_top *share_top;	/* the walk that answers a ShareTop; NULL: none */
	struct record *record;		/* NULL: no history */
	struct history *history;	/* likewise */
	struct tick *tick;
	struct watchdog *watchdog;	/* NULL: nobody watches */
	struct event_watch event_watch;
	struct loop_timer *tick_timer;
	struct list clients; /* struct client (ops_client.h): every VM that has not gone entirely */
	unsigned n_clients;
	unsigned lost_vms;		/* kept, and damaged beyond use at the restart */
	bool names_wait;		/* ... and has not yet */
	bool found;			/* a process before us has left something: it stays kept, whatever happens */
	const struct daemon_options *options;
	int signal_fd;
	struct watch *signal_watch;
	uint64_t started_ns, started_wall_ns;
	bool stopping;			/* no VM is registered any more */
	bool restart;			/* ... and started again */
	struct stopping *stop;		/* ops_stop.c: a stop that is under way; NULL: none */
	char status[330];		/* what the service manager was told last */
	struct loop_timer *stop_timer;
	uint64_t stop_deadline_ns;
};

#define EXIT_RESTART 75		/* whoever started us does it again (SUPERVISE_AGAIN, and the unit) */

struct daemon_options {
	int ready_fd;			/* -1: none */
	bool names_wait;		/* load_without_names: a reload is to mend that */
	const struct load_source *source;	/* of the settings: they are read again */
};

/* Start, serve until SIGTERM or SIGINT, end.  SIGHUP: read the settings again (reload.h).  `l` has been read and resolved, and is
 * taken.  0 or -errno, with one sentence in `p`. */
int daemon_run(struct load *l, const struct daemon_options *o, struct problem *p);

/* End now, whoever is left behind; after what has been answered is on its way. */
void daemon_quit(struct daemon *d);
/* End, and be started again: everything stays kept. */
void daemon_restart(struct daemon *d);

/* `c` becomes the configuration, and its live settings are carried to those who use them; those that are names have been taken. */
void daemon_set_config(struct daemon *d, const struct config *c);
