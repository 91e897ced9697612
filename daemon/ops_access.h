/* Who may call what: three classes, each of which may do what those below it may.
 *
 *	read	look at numbers			read_users
 *	lease	register VMs, act on its own	access_group, allow_users
 *	operate	everything			operate_users; root and the daemon's own user in any case
 *
 * With none of these settings everyone who can open the socket may lease (its permissions are the wall then); as soon as one of them
 * names somebody, only those who are named may call.  On the read-only socket everyone who can open it may read, and nobody more.
 *
 * What an operation needs is said by its row in proto/ops.def and decided in one place (ops_dispatch.c), at each call: who is
 * taken out of a setting is refused from then on.  What a VM's own connections do to that VM is not asked again, nor when they come back
 * after a restart: it is its memory. */
#pragma once

#include "config.h"
#include "serve/session.h"
#include "who.h"

#include <stdbool.h>
#include <stddef.h>

enum access_class { ACCESS_NONE, ACCESS_READ, ACCESS_LEASE, ACCESS_OPERATE };
extern const char *const access_class_names[];

struct access {
	bool open;		/* nobody is named */
	gid_t group;		/* the socket's; (gid_t)-1: as it comes */
	struct who read, lease, operate;
};

/* -ENOENT for a name that nobody has (or -EINVAL, -ENOMEM): *ret_setting is at fault, `why` says how.  May ask a directory service. */
int access_init(struct access *a, const struct config *c, const char **ret_setting, char *why, size_t why_bytes);
void access_fini(struct access *a);
/* `fd` is the connection. */
enum access_class access_of(const struct access *a, const struct session_peer *peer, int fd);
bool access_is_own_user(uid_t uid);
/* The groups of the peer of connection `fd`, its own first: how many, at most `most`. */
size_t access_peer_groups(const struct session_peer *peer, int fd, gid_t *ret, size_t most);
/* Whether the list has the peer. */
bool access_lists(const struct who *w, const struct session_peer *peer, int fd);
