#include "share_groups.h"

#include "config.h"
#include "who.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct share_group {
	char name[64];
	struct who members;
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
	char detail[160];
	int r = who_add(&to->members, who, detail, sizeof detail);

	if (r == -EINVAL)
		snprintf(why, why_bytes, "share_groups: %s= wants users, @groups of users or *, separated by commas", to->name);
	else if (r < 0)
		snprintf(why, why_bytes, "share_groups: %s", detail);
	return r;
}

/* NAME=WHO,WHO; the word is taken apart. */
static int take_word(struct share_groups *g, char *word, char *why, size_t why_bytes)
{
	struct share_group *to = &g->group[g->n];
	char *equals = strchr(word, '='), *who;
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
	g->n++;
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
	/* no more words than the text has bytes */
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
	for (size_t i = 0; i < g->n; i++)
		who_fini(&g->group[i].members);
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

	return to && who_has(&to->members, uid, gids, n_gids);
}
