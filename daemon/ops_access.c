#include "ops_access.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUPS_MAX 257

const char *const access_class_names[] = { "nothing", "read", "lease", "operate" };

static int read_group(struct access *a, const char *group, char *why, size_t why_bytes)
{
	char word[CONFIG_TEXT_MAX + 1];
	int r;

	if (!*group)
		return 0;
	snprintf(word, sizeof word, "@%s", group);
	r = who_add(&a->lease, word, why, why_bytes);
	if (r == 0)
		a->group = a->lease.groups[a->lease.n_groups - 1];
	return r;
}

int access_init(struct access *a, const struct config *c, const char **ret_setting, char *why, size_t why_bytes)
{
	int r;

	*a = (struct access){ .group = (gid_t)-1 };
	*ret_setting = "allow_users";
	r = who_parse(&a->lease, c->allow_users, why, why_bytes);
	if (r == 0) {
		*ret_setting = "access_group";
		r = read_group(a, c->access_group, why, why_bytes);
	}
	if (r == 0) {
		*ret_setting = "read_users";
		r = who_parse(&a->read, c->read_users, why, why_bytes);
	}
	if (r == 0) {
		*ret_setting = "operate_users";
		r = who_parse(&a->operate, c->operate_users, why, why_bytes);
	}
	if (r < 0) {
		access_fini(a);
		return r;
	}
	*ret_setting = NULL;
	a->open = who_is_nobody(&a->read) && who_is_nobody(&a->lease) && who_is_nobody(&a->operate);
	return 0;
}

void access_fini(struct access *a)
{
	who_fini(&a->read);
	who_fini(&a->lease);
	who_fini(&a->operate);
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

bool access_lists(const struct who *w, const struct session_peer *peer, int fd)
{
	gid_t groups[GROUPS_MAX];
	size_t n = w->n_groups ? access_peer_groups(peer, fd, groups, GROUPS_MAX) : 0;

	return who_has(w, peer->uid, groups, n);
}

enum access_class access_of(const struct access *a, const struct session_peer *peer, int fd)
{
	if (access_is_own_user(peer->uid) || access_lists(&a->operate, peer, fd))
		return ACCESS_OPERATE;
	if (a->open || access_lists(&a->lease, peer, fd))
		return ACCESS_LEASE;
	return access_lists(&a->read, peer, fd) ? ACCESS_READ : ACCESS_NONE;
}
