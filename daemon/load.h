/* Everything that the files and the command line say: read, checked and resolved before any of it acts, so that it acts as a whole
 * or not at all.  At start, by --check-config, and at a reload (reload.h), on a thread of its own: names are looked up in the
 * host's directory of users, which may be on the network. */
#pragma once

#include "config.h"
#include "ops_access.h"
#include "share_groups.h"
#include "vm_files.h"

#include <stdbool.h>
#include <stddef.h>

#define LOAD_DEFAULT_PATH "/etc/memctl/memctld.conf"

struct load_source {
	const char *path;		/* of the configuration; NULL: no files at all */
	bool optional;			/* it need not exist */
	char *const *words;		/* KEY=VALUE of the command line, which comes last; ended by NULL */
};

/* Names as numbers. */
struct load_names {
	struct access access;
	struct share_groups *share_groups;
};

struct load {
	struct config config;
	struct config_where where;
	struct vm_files *vm_files;
	struct load_names names;	/* after load_resolve */
};

/* 0, or -errno with one sentence that begins with the place; *ret is for load_fini in any case. */
int load_read(const struct load_source *s, struct load *ret, char *why, size_t why_bytes);
/* Of its configuration, its VMs' files included. */
int load_resolve(struct load *l, char *why, size_t why_bytes);
void load_fini(struct load *l);
/* Instead of load_resolve, where guests wait and names cannot be known now: only root and the daemon's own user may call, nothing is
 * decided for VMs by their names, and no sharing group has members to come.  A reload mends it. */
int load_without_names(struct load *l);

int load_names_resolve(struct load_names *ret, const struct config *c, const struct config_where *w, char *why, size_t why_bytes);
void load_names_fini(struct load_names *n);

/* Beside the configuration: FILE.d/90-tune.conf, where `memctl tune --persist` writes, and vms.d.  "" without files. */
void load_tune_path(const struct load_source *s, char *ret, size_t bytes);
void load_vms_path(const struct load_source *s, char *ret, size_t bytes);
