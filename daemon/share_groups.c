#include "share_groups.h"

#include "config.h"
#include "ops_access.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct share_group {
	char name[64];
	bool everyone;
	uid_t *users;
	size_t n_users;
	gid_t *gids;
	size_t n_gids;
};

struct share_groups {
	size_t n;
	struct share_group *group;
};

static const struct share_group *find(const struct share_groups *g, const char *name)
{
	for (size_t i = 0; g && i < g->n; i++)
		if (!strcmp(g->group[i].name, name))
			return &g->group[i];
	return NULL;
}

static int take_member(struct share_group *to, const char *who, char *why, size_t why_bytes)
{
	const struct group *gr;

	if (!strcmp(who, "*")) {
		to->everyone = true;
	} else if (*who == '@') {
		gr = getgrnam(who + 1);
		if (!gr) {
			snprintf(why, why_bytes, "share_groups: there is no group \"%s\" of users", who + 1);
			return -ENOENT;
		}
		to->gids[to->n_gids++] = gr->gr_gid;
	} else if (!*who) {
		snprintf(why, why_bytes, "share_groups: %s= wants users, @groups of users or *, separated by commas", to->name);
		return -EINVAL;
	} else if (access_find_user(who, &to->users[to->n_users]) < 0) {
		snprintf(why, why_bytes, "share_groups: there is no user \"%s\"", who);
		return -ENOENT;
	} else {
		to->n_users++;
	}
	return 0;
}

/* NAME=WHO,WHO; the word is taken apart. */
static int take_word(struct share_groups *g, char *word, char *why, size_t why_bytes)
{
	struct share_group *to = &g->group[g->n];
	char *equals = strchr(word, '='), *who;
	size_t most = strlen(word);
	int r = 0;

	if (equals)
		*equals = 0;
	if (!equals || !is_name(word)) {
		snprintf(why, why_bytes, "share_groups: wants NAME=USER,@GROUP,* separated by spaces, not \"%s%s\"", word,
			equals ? "=" : "");
		return -EINVAL;
	}
	if (find(g, word)) {
		snprintf(why, why_bytes, "share_groups: %s is given twice", word);
		return -EINVAL;
	}
	snprintf(to->name, sizeof to->name, "%.63s", word);
	/* no more members than the word has bytes */
	to->users = calloc(most, sizeof *to->users);
	to->gids = calloc(most, sizeof *to->gids);
	g->n++;
	if (!to->users || !to->gids) {
		snprintf(why, why_bytes, "share_groups: out of memory");
		return -ENOMEM;
	}
	equals++;
	while (r == 0 && (who = strsep(&equals, ",")))
		r = take_member(to, who, why, why_bytes);
	return r;
}

int share_groups_parse(struct share_groups **ret, const char *text, char *why, size_t why_bytes)
{
	struct share_groups *g = calloc(1, sizeof *g);
	char copy[CONFIG_TEXT_MAX], *save = NULL;
	int r = -ENOMEM;

	snprintf(copy, sizeof copy, "%s", text);
	/* nor more words */
	if (g)
		g->group = calloc(strlen(copy) + 1, sizeof *g->group);
	if (!g || !g->group) {
		snprintf(why, why_bytes, "share_groups: out of memory");
		goto fail;
	}
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		r = take_word(g, word, why, why_bytes);
		if (r < 0)
			goto fail;
	}
	*ret = g;
	return 0;
fail:
	share_groups_free(g);
	return r;
}

void share_groups_free(struct share_groups *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->n; i++) {
		free(g->group[i].users);
		free(g->group[i].gids);
	}
	free(g->group);
	free(g);
}

bool share_groups_has(const struct share_groups *g, const char *name)
{
	return find(g, name) != NULL;
}

bool share_groups_permit(const struct share_groups *g, const char *name, uid_t uid, const gid_t *gids, size_t n_gids)
{
	const struct share_group *to = find(g, name);

	if (!to || to->everyone)
		return to != NULL;
	for (size_t i = 0; i < to->n_users; i++)
		if (to->users[i] == uid)
			return true;
	for (size_t i = 0; i < to->n_gids; i++)
		for (size_t k = 0; k < n_gids; k++)
			if (to->gids[i] == gids[k])
				return true;
	return false;
}
