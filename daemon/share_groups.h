/* Who may join which sharing group: the setting share_groups, resolved to numbers once.
 *
 *	share_groups = web=alice,bob,@www data=*
 *
 * Words are separated by spaces; each is a group's name, "=", and who may join it, separated by commas: a user (a name or a
 * number), @ and a group of users, or * for everybody who may call. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct share_groups;

/* Strict: a name that nobody has, a word that is none, a group given twice: -ENOENT, -EINVAL, with one sentence in `why`;
 * *ret is untouched then.  Asks the host's directory of users: at start and when the setting changes only. */
int share_groups_parse(struct share_groups **ret, const char *text, char *why, size_t why_bytes);
void share_groups_free(struct share_groups *g);

/* Whether the setting names this group at all. */
bool share_groups_has(const struct share_groups *g, const char *name);
/* Whether it lets this user, who is in these groups, into it. */
bool share_groups_permit(const struct share_groups *g, const char *name, uid_t uid, const gid_t *gids, size_t n_gids);
