/* Who may call: names of the configuration, resolved to numbers once at start, so that no connection waits
 * for a directory service.
 *
 * root and the daemon's own user always may.  With neither access_group nor allow_users, everyone who can
 * open the socket may (its permissions are the wall then). */
#pragma once

#include "config.h"
#include "base/problem.h"
#include "serve/session.h"

#include <stdbool.h>
#include <stddef.h>

struct access {
	bool everyone;
	gid_t group;		/* (gid_t)-1: none */
	uid_t *users;
	size_t n_users;
};

/* -ENOENT for a name that nobody has, with the sentence. */
int access_init(struct access *a, const struct config *c, struct problem *p);
void access_fini(struct access *a);
/* `fd` is the connection. */
bool access_allows(const struct access *a, const struct session_peer *peer, int fd);
bool access_is_own_user(uid_t uid);
/* A user's name or number.  -ENOENT. */
int access_find_user(const char *name, uid_t *ret);
/* The groups of the peer of connection `fd`, its own first: how many, at most `most`. */
size_t access_peer_groups(const struct session_peer *peer, int fd, gid_t *ret, size_t most);
