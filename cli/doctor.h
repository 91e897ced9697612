/* memctl doctor: the rows of proto/doctor.def, and what was found for each.  Rows of side CALLER are looked at here, by the
 * kernel and memctl.h; those of side MEMCTLD come from memctld (Doctor), if it answers.
 *
 * What is read of /proc and /sys is under `root`, so that a test can show another host. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum check {
#define DOCTOR(id, side, title, meaning, fix) CHECK_##id,
#include "proto/doctor.def"
#undef DOCTOR
	CHECKS
};

enum check_state { STATE_NONE, STATE_OK, STATE_INFORMATION, STATE_WARNING, STATE_FAILURE };

struct finding {
	enum check_state state;		/* NONE: not looked at */
	char text[600], fix[1400];
};

/* A VM as memctld lists it. */
struct doctor_vm {
	char name[64];
	long long pid;
	bool has_pool;
};

struct doctor {
	const char *root;		/* "": this host */
	const char *socket;		/* where memctld is asked */
	int timeout_ms;			/* 0: the library's default */
	bool answers;			/* memctld does */
	long long daemon_pid;
	struct doctor_vm *vms;
	size_t n_vms;
	struct finding findings[CHECKS];
};

/* A finding; a second one for the same row replaces the first only if it is worse. */
void find(struct doctor *d, enum check check, enum check_state state, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* What to type, for a finding that has nothing yet and is not well. */
void fix(struct doctor *d, enum check check, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A file under the root, without its last newline: its length, or -errno. */
int read_file(const struct doctor *d, const char *path, char *ret, size_t bytes);
bool read_number(const struct doctor *d, const char *path, uint64_t *ret);
/* What a command says on stdout, and its exit status; -errno: it cannot be run, or took longer than ask_command_ms. */
extern int ask_command_ms;
int ask_command(const char *const argv[], char *ret, size_t bytes);
/* The name of the user who asks; of a group. */
void user_name(char ret[64]);
void group_name(unsigned gid, char ret[64]);

void check_kernel(struct doctor *d);		/* doctor_kernel.c */
void check_memory(struct doctor *d);
void check_merging(struct doctor *d);		/* by the VMs that memctld lists */
void check_faults(struct doctor *d);		/* doctor_uffd.c */
void check_unreachable(struct doctor *d, int err);	/* doctor_reach.c: why nobody answers; err: positive errno of the connection */
void check_refused(struct doctor *d);		/* memctld answers, and this user may not */
void check_libraries(struct doctor *d);		/* of the VMs that memctld lists */
void check_unit(struct doctor *d);		/* doctor_unit.c */
/* What systemd says of memctld's unit, in a sentence ("": nothing), and whether it knows one. */
bool unit_says(char *ret, size_t bytes);
