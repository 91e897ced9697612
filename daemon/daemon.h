/* memctld as a whole: what the files of daemon/ share, its start and its end.
 *
 * Everything in struct daemon belongs to the control thread (the one that runs the loop), except what says
 * otherwise in its own header. */
#pragma once

#include "balloons.h"
#include "base/list.h"
#include "config.h"
#include "groups.h"
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
	struct config config;
	struct access access;
	struct share_groups *share_groups;	/* the setting, resolved */
	struct mem_settings settings;	/* live: read by the lease workers */
	struct loop *loop;
	struct server *server;
	struct kept *kept;
	struct arena *arena;
	struct reclaim *reclaim;
	struct groups *groups;
	struct scanner *scanner;
	struct page_ins *page_ins;
	struct balloons *balloons;
	struct sampler *sampler;
	struct share_top *share_top;	/* the walk that answers a ShareTop; NULL: none */
	struct record *record;		/* NULL: no history */
	struct tick *tick;
	struct watchdog *watchdog;	/* NULL: nobody watches */
	struct loop_timer *tick_timer;
	struct list clients; /* struct client (ops_client.h): every VM that has not gone entirely */
	unsigned n_clients;
	unsigned lost_vms;		/* kept, and damaged beyond use at the restart */
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
	/* the settings as they are now in the files and on the command line; 0, or -errno with a line in the log */
	int (*read_settings)(void *userdata, struct config *ret);
	void *userdata;
};

/* Start, serve until SIGTERM or SIGINT, end.  SIGHUP: read the settings again.  0 or -errno, with one sentence in `p`. */
int daemon_run(const struct config *c, const struct daemon_options *o, struct problem *p);

/* End now, whoever is left behind; after what has been answered is on its way. */
void daemon_quit(struct daemon *d);
/* End, and be started again: everything stays kept. */
void daemon_restart(struct daemon *d);

/* A setting changes: `c` becomes the configuration, and its live settings are carried to those who use them.  0, or what is
 * wrong with it in `why`: nothing has changed then. */
int daemon_change_settings(struct daemon *d, const struct config *c, char *why, size_t why_bytes);
