/* The settings while memctld runs: files and command line read again, all or nothing, and single settings changed (Tune).
 *
 *	SIGHUP, Reload  --->  a thread: load.h  --->  control thread: VMs' files (decisions.h), then the live settings
 *	                      reads, checks, resolves       at the first thing that is wrong: nothing has changed
 *
 * Reading waits for a disk, and names for a directory service: the control thread does neither.  One thread at a time, in the order of
 * the calls, so what is read last is what holds.  Settings that are not live keep their values; which of them are written otherwise
 * is told until the restart.  A reload takes back what was tuned and not persisted: afterwards the files hold.
 *
 * An error stays to be seen (Status warns of it) until a reload succeeds. */
#pragma once

#include "daemon.h"
#include "proto/ops.h"

struct writer;

int reload_new(struct reload **ret, struct daemon *d);
/* NULL is fine. */
void reload_free(struct reload *r);

/* `call` is answered when it is done; NULL: nobody waits. */
void reload_begin(struct daemon *d, struct call *call);
/* Tune of a setting whose value has been checked, except for the names in it. */
void reload_tune(struct daemon *d, struct call *call, const struct setting *s, const struct op_tune_in *in);
/* The same without names: at once. */
void reload_tune_now(struct daemon *d, const struct setting *s, const struct op_tune_in *in, unsigned uid);

/* Once a second: names that could not be looked up at the start are looked up again. */
void reload_tick(struct daemon *d);
/* Why the last one was refused; "": it was not. */
const char *reload_error(const struct reload *r);
/* Whether it is written otherwise than it is, and only a restart will change it. */
bool reload_waits(const struct daemon *d, const struct setting *s);
/* Their names, separated by commas; how many. */
unsigned reload_waiting(const struct daemon *d, char *ret, size_t bytes);
/* What Status warns of. */
void reload_write_warnings(struct writer *o, const struct daemon *d);
