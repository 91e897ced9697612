#include "policy/sharing.h"

#include <stdio.h>
#include <string.h>

#define ASKS_FOR_GROUP "group:"

const char *policy_sharing_group(unsigned force_salting, const char *asked)
{
	size_t n = strlen(ASKS_FOR_GROUP);

	if (strncmp(asked, ASKS_FOR_GROUP, n) == 0)
		return asked + n;
	return !*asked && force_salting < 2 ? POLICY_COMMON_GROUP : "";
}

static bool could_write(const struct policy_sharing_request *q)
{
	return q->uid == 0 || q->uid == q->own_uid;
}

/* NULL, or why not. */
static const char *refusal(const struct policy_sharing_request *q)
{
	bool boundary = q->uid == 0 || q->own_uid == 0;

	if (q->listed ? !q->permitted : q->force_salting >= 2)
		return "The configuration does not let this user into this sharing group: add it to share_groups, or use "
		       "sharing = vm.";
	if (could_write(q) && boundary && !q->with_root)
		return "root, and the user of a memctld that is root, could write to the pages of their sharing group: run "
		       "the client as another user, set share_with_root = yes, or use sharing = vm.";
	return NULL;
}

void policy_sharing(const struct policy_sharing_request *q, struct policy_sharing *ret)
{
	const char *group = policy_sharing_group(q->force_salting, q->asked);
	struct policy_sharing s = { .kind = POLICY_SHARING_VM, .writable = could_write(q) };

	if (!strcmp(q->asked, "off"))
		s = (struct policy_sharing){ .kind = POLICY_SHARING_OFF };
	else if (!strcmp(q->asked, "zero"))
		s = (struct policy_sharing){ .kind = POLICY_SHARING_ZERO };
	else if (*group) {
		s.why = refusal(q);
		if (!s.why) {
			s.kind = POLICY_SHARING_GROUP;
			snprintf(s.group, sizeof s.group, "%.63s", group);
		} else if (*q->asked) {
			s = (struct policy_sharing){ .kind = POLICY_SHARING_REFUSED, .why = s.why };
		} else {
			s.why = NULL;
		}
	}
	*ret = s;
}
