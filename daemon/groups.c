#include "groups.h"

#include "base/events.h"
#include "mem/recover.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct groups {
	struct arena *arena;
	const struct mem_settings *settings;
	struct list list;
};

int groups_new(struct groups **ret, struct arena *a, const struct mem_settings *settings)
{
	struct groups *g = calloc(1, sizeof *g);

	if (!g)
		return -ENOMEM;
	g->arena = a;
	g->settings = settings;
	list_init(&g->list);
	*ret = g;
	return 0;
}

void groups_free(struct groups *g)
{
	if (!g)
		return;
	assert(list_empty(&g->list));
	free(g);
}

static struct group *find(struct groups *g, const char *name)
{
	list_foreach(l, &g->list) {
		struct group *at = container_of(l, struct group, link);

		if (!at->is_private && !strcmp(at->name, name))
			return at;
	}
	return NULL;
}

static void free_group(struct group *group)
{
	pool_unref(group->pool);
	free(group);
}

static int make(struct groups *g, const struct group_wish *w, struct group **ret, struct problem *p)
{
	struct group *group = calloc(1, sizeof *group);
	char name[80];
	int r;

	if (!group)
		return -ENOMEM;
	snprintf(group->name, sizeof group->name, "%.63s", w->name);
	snprintf(name, sizeof name, "%s:%s", w->is_private ? "vm" : "group", group->name);
	group->is_private = w->is_private;
	list_init(&group->members);
	r = pool_new(&group->pool, g->arena, g->settings, name, w->pages, w->swap_dir, p);
	if (r < 0) {
		free(group);
		return r;
	}
	list_append(&g->list, &group->link);
	if (!w->is_private)
		event_tell(EVENT_GROUP_MADE, NULL, "sharing group %s: made", group->name);
	*ret = group;
	return 0;
}

/* The name of a pool says whose it is. */
static int adopt(struct groups *g, struct pool *pool)
{
	struct group *group = calloc(1, sizeof *group);
	const char *name = pool_name(pool);

	if (!group)
		return -ENOMEM;
	group->is_private = strncmp(name, "vm:", 3) == 0;
	snprintf(group->name, sizeof group->name, "%.63s", strchr(name, ':') ? strchr(name, ':') + 1 : name);
	group->pool = pool;
	list_init(&group->members);
	list_append(&g->list, &group->link);
	return 0;
}

int groups_found(struct groups *g, struct problem *p)
{
	struct kept *kept = arena_kept(g->arena);

	for (uint32_t n = 0; (n = kept_next(kept, KEPT_POOL, "s", n));) {
		struct pool *pool;
		int r = pool_recover(&pool, g->arena, g->settings, n, p);

		if (r == -EBADMSG)
			event_tell(EVENT_GROUP_LOST, NULL, "%s: it is lost, with the pages that are in it", p->text);
		if (r == -EBADMSG || r == -ENOENT) {
			*p = (struct problem){ 0 };
			continue;
		}
		if (r == 0)
			r = adopt(g, pool);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct group *of_pool(struct groups *g, uint32_t number)
{
	list_foreach(l, &g->list) {
		struct group *at = container_of(l, struct group, link);

		if (pool_number(at->pool) == number)
			return at;
	}
	return NULL;
}

struct pool *groups_pool(struct groups *g, uint32_t number)
{
	struct group *group = of_pool(g, number);

	return group ? group->pool : NULL;
}

static void enter(struct group *group, struct group_member *m)
{
	m->group = group;
	group->n_members++;
	list_append(&group->members, &m->link);
}

void groups_join_found(struct groups *g, uint32_t number, struct group_member *m)
{
	enter(of_pool(g, number), m);
}

void groups_found_end(struct groups *g)
{
	list_foreach_safe(l, &g->list) {
		struct group *group = container_of(l, struct group, link);

		pool_recovered(group->pool);
		if (group->n_members)
			continue;
		list_remove(&group->link);
		free_group(group);
	}
}

int groups_join(struct groups *g, const struct group_wish *w, struct group_member *m, struct problem *p)
{
	struct group *group = w->is_private ? NULL : find(g, w->name);
	int r;

	assert(!m->group);
	if (!group) {
		r = make(g, w, &group, p);
		if (r < 0)
			return r;
	}
	enter(group, m);
	return 0;
}

void groups_leave(struct groups *g, struct group_member *m)
{
	struct group *group = m->group;

	if (!group)
		return;
	m->group = NULL;
	list_remove(&m->link);
	if (--group->n_members > 0)
		return;
	list_remove(&group->link);
	if (!group->is_private)
		event_tell(EVENT_GROUP_GONE, NULL, "sharing group %s: its last VM has gone", group->name);
	free_group(group);
}

struct list *groups_list(struct groups *g)
{
	return &g->list;
}

void groups_numbers(struct groups *g, struct groups_numbers *ret)
{
	*ret = (struct groups_numbers){ 0 };
	list_foreach(l, &g->list) {
		struct pool_numbers n;

		pool_numbers(container_of(l, struct group, link)->pool, &n);
		ret->pools++;
		ret->shared_pages += n.references;
		ret->common_pages += n.entries;
	}
}
