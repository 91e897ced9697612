#include "ops_access.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUPS_MAX 257

/* A name, or a number: users of containers often have no name here. */
int access_find_user(const char *name, uid_t *ret)
{
	const struct passwd *pw = getpwnam(name);
	unsigned long n;
	char *end;

	if (pw) {
		*ret = pw->pw_uid;
		return 0;
	}
	n = strtoul(name, &end, 10);
	if (end == name || *end || n >= (uid_t)-1)
		return -ENOENT;
	*ret = (uid_t)n;
	return 0;
}

int access_init(struct access *a, const struct config *c, struct problem *p)
{
	char copy[CONFIG_TEXT_MAX], *save = NULL;

	*a = (struct access){ .group = (gid_t)-1, .everyone = !c->access_group[0] && !c->allow_users[0] };
	if (c->access_group[0]) {
		const struct group *g = getgrnam(c->access_group);

		if (!g)
			return problem_set(p, ENOENT, PROBLEM_SYSTEM, 0, 0,
				"access_group: there is no group \"%s\"", c->access_group);
		a->group = g->gr_gid;
	}
	/* no more users than the text has bytes */
	a->users = calloc(strlen(c->allow_users) + 1, sizeof *a->users);
	if (!a->users)
		return -ENOMEM;
	strcpy(copy, c->allow_users);
	for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
		if (access_find_user(name, &a->users[a->n_users]) < 0) {
			access_fini(a);
			return problem_set(p, ENOENT, PROBLEM_SYSTEM, 0, 0,
				"allow_users: there is no user \"%s\"", name);
		}
		a->n_users++;
	}
	return 0;
}

void access_fini(struct access *a)
{
	free(a->users);
	*a = (struct access){ .group = (gid_t)-1 };
}

bool access_is_own_user(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

size_t access_peer_groups(const struct session_peer *peer, int fd, gid_t *ret, size_t most)
{
	socklen_t bytes = (socklen_t)((most - 1) * sizeof *ret);

	ret[0] = peer->gid;
	/* of somebody in more groups than there is room for, none is told: settings can name the user */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, ret + 1, &bytes) < 0)
		return 1;
	return 1 + bytes / sizeof *ret;
}

static bool in_group(gid_t group, const struct session_peer *peer, int fd)
{
	gid_t groups[GROUPS_MAX];
	size_t n;

	if (group == (gid_t)-1)
		return false;
	n = access_peer_groups(peer, fd, groups, GROUPS_MAX);
	for (size_t i = 0; i < n; i++)
		if (groups[i] == group)
			return true;
	return false;
}

bool access_allows(const struct access *a, const struct session_peer *peer, int fd)
{
	if (a->everyone || access_is_own_user(peer->uid) || in_group(a->group, peer, fd))
		return true;
	for (size_t i = 0; i < a->n_users; i++)
		if (a->users[i] == peer->uid)
			return true;
	return false;
}
