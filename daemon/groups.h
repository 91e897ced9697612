/* The pools that VMs share from, and who is in which: the registry of sharing groups.
 *
 * A pool is made when the first VM of a group joins, and goes with the last one.  A VM that shares with itself only has a
 * private pool: a group that nobody finds by its name.  A client is a member from JoinPool until its VM has been
 * freed: as long as its pages refer to the pool, the pool is found, and another VM of the group meets the same one.
 *
 * Control thread. */
#pragma once

#include "base/list.h"
#include "base/problem.h"
#include "mem/pool.h"

#include <stdbool.h>
#include <stdint.h>

struct groups;

/* One membership: part of the client's own object. */
struct group_member {
	struct list link;
	struct group *group;		/* NULL: none */
};

struct group {
	struct list link;
	char name[64];			/* of the group, or of the VM that has the private pool */
	bool is_private;
	struct pool *pool;
	struct list members;		/* struct group_member */
	unsigned n_members;
};

int groups_new(struct groups **ret, struct arena *a, const struct mem_settings *settings);
/* All members have left. */
void groups_free(struct groups *g);

struct group_wish {
	const char *name;
	bool is_private;
	uint64_t pages;			/* of the pool, if it must be made */
	const char *swap_dir;
};
/* Put `m` into the group, which is made if it is not there. */
int groups_join(struct groups *g, const struct group_wish *w, struct group_member *m, struct problem *p);
/* At a restart: the groups whose pools were kept, and `m` into the one with this pool.  Those that nobody is in go with
 * groups_found_end. */
int groups_found(struct groups *g, struct problem *p);
struct pool *groups_pool(struct groups *g, uint32_t number);
void groups_join_found(struct groups *g, uint32_t number, struct group_member *m);
void groups_found_end(struct groups *g);
/* The last one takes the group with it.  Fine for who is in none. */
void groups_leave(struct groups *g, struct group_member *m);

struct list *groups_list(struct groups *g);	/* struct group */

/* PSHARE of all pools. */
struct groups_numbers {
	uint64_t pools;
	uint64_t shared_pages;		/* guest pages whose content is in a pool */
	uint64_t common_pages;		/* distinct pages that they have in common */
};
void groups_numbers(struct groups *g, struct groups_numbers *ret);
