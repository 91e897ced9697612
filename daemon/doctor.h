/* What memctld finds wrong with the set-up of this host: the rows of proto/doctor.def whose side is MEMCTLD.
 *
 * In two steps, because looking may take as long as a disk takes: the control thread writes down what only it knows (a
 * *view*); then doctor_run looks at the host, in a thread of its own, and makes one finding for each row.  What it reads of
 * /proc and /sys is under `root`, so that a test can show it a host that is set up otherwise.
 *
 * A finding says what is so, with numbers, and has a fix: something to type as root on this host, or a setting to change; "" if
 * there is nothing to do. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum doctor_id {
#define DOCTOR_MEMCTLD(id) DOCTOR_##id,
#define DOCTOR_CALLER(id)
#define DOCTOR(id, side, title, meaning, fix) DOCTOR_##side(id)
#include "proto/doctor.def"
#undef DOCTOR
#undef DOCTOR_MEMCTLD
#undef DOCTOR_CALLER
	DOCTOR_COUNT
};

enum doctor_state { DOCTOR_NOT_LOOKED, DOCTOR_OK, DOCTOR_INFORMATION, DOCTOR_WARNING, DOCTOR_FAILURE };

struct doctor_row {
	const char *id, *title, *meaning;
};
extern const struct doctor_row doctor_rows[DOCTOR_COUNT];
/* "ok", "information", "warning", "failure". */
const char *doctor_state_name(enum doctor_state s);

struct doctor_finding {
	enum doctor_state state;
	char text[600];
	char fix[1400];
};

/* A VM as the control thread knows it. */
struct doctor_vm {
	char name[64];
	char swap_dir[256];
	uint64_t size_bytes, swap_ready_bytes;
	unsigned leases;
	uid_t uid;
	bool user_mode_only;
	bool in_group, pool_writable;		/* a member of a pool that others are members of too */
	bool wants_pool, has_pool;
};

struct doctor_view {
	uint64_t arena_bytes, charged_bytes;
	uint64_t swap_errors;			/* writes and reads that failed, and pages that came back otherwise */
	char swap_dir[256], allowed_swap_dirs[256];
	char metrics[256];			/* "none": no history */
	char socket[256];
	uint64_t rows_written, rows_dropped, rows_failed;
	int64_t client_hold_limit_s, reconnect_grace_s;
	bool managed, supervised;		/* by whom we were started: a service manager, and if so, by --supervise */
	bool keeps;				/* it keeps descriptors, as far as it says */
	uint64_t watchdog_ns;			/* 0: nobody looks */
	uid_t uid;				/* ours */
	struct doctor_vm *vms;
	unsigned n_vms;
};
void doctor_view_fini(struct doctor_view *v);

struct doctor {
	struct doctor_view view;
	const char *root;			/* "": the host's own /proc and /sys */
	pthread_mutex_t lock;			/* of the findings: whoever has waited too long looks at what there is */
	struct doctor_finding findings[DOCTOR_COUNT];
	const char *looking_at;			/* a directory whose file system is asked just now; NULL: none */
};

void doctor_init(struct doctor *d, const char *root);
void doctor_fini(struct doctor *d);
/* Looks at everything; as long as the slowest disk takes. */
void doctor_run(struct doctor *d);

/* The parts of it; each leaves a finding for every row that it is about. */
void doctor_look_at_self(struct doctor *d);		/* doctor_self.c: what the view says */
void doctor_look_at_memory(struct doctor *d);		/* doctor_memory.c: /proc and /sys */
void doctor_look_at_limits(struct doctor *d);		/* doctor_limits.c: what memctld may do */
void doctor_look_at_disks(struct doctor *d);		/* doctor_disk.c */

/* A finding; a second one for the same row replaces the first only if it is worse. */
__attribute__((format(printf, 5, 6))) void doctor_say(struct doctor *d, enum doctor_id id, enum doctor_state state,
	const char *fix, const char *fmt, ...);
/* A fix with values, for a warning or failure that has none yet. */
void doctor_fix(struct doctor *d, enum doctor_id id, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Fixes that start memctld otherwise (doctor_fix.c): with somebody who starts it again, as `user` (NULL: the same); with another
 * value of a setting that is not live. */
void doctor_fix_start(struct doctor *d, enum doctor_id id, const char *user);
void doctor_fix_setting(struct doctor *d, enum doctor_id id, const char *setting, const char *value);
/* A word for a shell. */
void doctor_quote(const char *word, char *ret, size_t bytes);

/* Files under the root.  doctor_read: the text without its last newline, "" if it cannot be read: how long it is, or -errno. */
int doctor_read(const struct doctor *d, const char *path, char *ret, size_t bytes);
/* The first number of a file; false: there is none ("max", no such file). */
bool doctor_number(const struct doctor *d, const char *path, uint64_t *ret);
/* The number after `key` in a file of lines "key ... number". */
bool doctor_keyed(const struct doctor *d, const char *path, const char *key, uint64_t *ret);

#define DOCTOR_MIB(bytes) ((unsigned long long)((bytes) >> 20))
