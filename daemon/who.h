/* A list of users, as settings name them: a user (a name or a number), @ and a group of users (likewise), or * for everybody
 * who may call.  Names become numbers once, when a setting is read, so that no connection waits for a directory service; who
 * asks it is a thread that may wait (load.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct who {
	bool everyone;
	uid_t *users;
	size_t n_users;
	gid_t *groups;
	size_t n_groups;
};

/* One word more: "alice", "1000", "@emulators", "*".  -ENOENT: nobody has this name; -EINVAL: it is empty; -ENOMEM; `why` says it
 * in a sentence without a full stop. */
int who_add(struct who *w, const char *word, char *why, size_t why_bytes);
/* Words separated by spaces, commas or both; none: nobody.  As who_add; *ret is untouched then. */
int who_parse(struct who *ret, const char *text, char *why, size_t why_bytes);
void who_fini(struct who *w);

bool who_is_nobody(const struct who *w);
/* A user who is in these groups. */
bool who_has(const struct who *w, uid_t uid, const gid_t *gids, size_t n_gids);
