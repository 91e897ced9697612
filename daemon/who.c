#include "who.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_BYTES	1024		/* of a user or a group at first: one with many members has more */
#define ENTRY_BYTES_MAX (4u << 20)

/* Numbers: users of containers often have no name here. */
static int parse_id(const char *text, id_t *ret)
{
	char *end;
	unsigned long n;

	if (*text < '0' || *text > '9')
		return -ENOENT;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (*end || errno || n >= (id_t)-1)
		return -ENOENT;
	*ret = (id_t)n;
	return 0;
}

static int look_up(const char *name, bool group, char *room, size_t bytes, id_t *ret)
{
	struct passwd pw, *is_user = NULL;
	struct group gr, *is_group = NULL;
	int r = group ? getgrnam_r(name, &gr, room, bytes, &is_group) : getpwnam_r(name, &pw, room, bytes, &is_user);

	/* what says that there is none: getpwnam(3) */
	if (r && r != ENOENT && r != ESRCH && r != EBADF && r != EPERM)
		return r == ERANGE || r == ENOMEM ? -r : -EIO;
	if (is_user)
		*ret = is_user->pw_uid;
	else if (is_group)
		*ret = is_group->gr_gid;
	else
		return parse_id(name, ret);
	return 0;
}

static int find(const char *name, bool group, id_t *ret)
{
	int r = -ERANGE;

	for (size_t bytes = ENTRY_BYTES; r == -ERANGE && bytes <= ENTRY_BYTES_MAX; bytes *= 4) {
		char *room = malloc(bytes);

		if (!room)
			return -ENOMEM;
		r = look_up(name, group, room, bytes, ret);
		free(room);
	}
	return r;
}

int who_add(struct who *w, const char *word, char *why, size_t why_bytes)
{
	bool group = *word == '@';
	id_t **list = group ? &w->groups : &w->users, *more, id = 0;
	size_t *n = group ? &w->n_groups : &w->n_users;
	int r;

	_Static_assert(sizeof(uid_t) == sizeof(id_t) && sizeof(gid_t) == sizeof(id_t), "users and groups are numbers of one kind");
	if (!strcmp(word, "*")) {
		w->everyone = true;
		return 0;
	}
	if (!*word) {
		snprintf(why, why_bytes, "wants a user, @GROUP or *");
		return -EINVAL;
	}
	r = find(word + group, group, &id);
	if (r == 0) {
		more = reallocarray(*list, *n + 1, sizeof *more);
		if (more) {
			*list = more;
			more[(*n)++] = id;
			return 0;
		}
		r = -ENOMEM;
	}
	if (r == -ENOMEM)
		snprintf(why, why_bytes, "out of memory");
	else if (r == -EIO)
		snprintf(why, why_bytes, "\"%s\" cannot be looked up now: the directory of users does not answer", word);
	else if (group)
		snprintf(why, why_bytes, "there is no group \"%s\" of users", word + 1);
	else
		snprintf(why, why_bytes, "there is no user \"%s\"", word);
	return r;
}

int who_parse(struct who *ret, const char *text, char *why, size_t why_bytes)
{
	struct who w = { 0 };
	char *copy = strdup(text), *save = NULL;
	int r = 0;

	if (!copy) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	for (char *word = strtok_r(copy, " ,\t", &save); r == 0 && word; word = strtok_r(NULL, " ,\t", &save))
		r = who_add(&w, word, why, why_bytes);
	free(copy);
	if (r == 0)
		*ret = w;
	else
		who_fini(&w);
	return r;
}

void who_fini(struct who *w)
{
	free(w->users);
	free(w->groups);
	*w = (struct who){ 0 };
}

bool who_is_nobody(const struct who *w)
{
	return !w->everyone && !w->n_users && !w->n_groups;
}

bool who_has(const struct who *w, uid_t uid, const gid_t *gids, size_t n_gids)
{
	if (w->everyone)
		return true;
	for (size_t i = 0; i < w->n_users; i++)
		if (w->users[i] == uid)
			return true;
	for (size_t i = 0; i < w->n_groups; i++)
		for (size_t k = 0; k < n_gids; k++)
			if (w->groups[i] == gids[k])
				return true;
	return false;
}
