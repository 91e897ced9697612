/* With whom a VM may share pages: what it asked for, what the configuration says, and who it is.
 *
 *	ShareForceSalting	asks for nothing	asks for group:NAME
 *	2 (default)		vm			where share_groups lists the group and permits the user
 *	1, 0			group:common		unless share_groups lists the group without the user
 *
 * off, zero and vm can always be had: a VM that shares with itself only can harm itself only.  A group that is listed
 * is closed to all others at any setting; 1 and 0 differ in ESX by who gives the salt, which has no counterpart here.
 *
 * The wall between the members and their pool is its descriptor, which only reads: it holds against another user than
 * the daemon's, but not against root, nor against the daemon's own user.  Where the daemon is root there is something to defend,
 * so such a client joins a group only with share_with_root; where it is not, all is one user's anyhow.  A VM that was
 * put into the common group unasked gets `vm` instead of a refusal. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define POLICY_GROUP_MAX 64
#define POLICY_COMMON_GROUP "common"

enum policy_sharing_kind {
	POLICY_SHARING_OFF,
	POLICY_SHARING_ZERO,	/* zero pages are dropped, nothing else */
	POLICY_SHARING_VM,	/* within the VM */
	POLICY_SHARING_GROUP,
	POLICY_SHARING_REFUSED,
};

struct policy_sharing_request {
	unsigned force_salting;
	const char *asked;	/* "": nothing; "off", "zero", "vm", "group:NAME": checked by the caller */
	bool listed;		/* share_groups has the group that policy_sharing_group names */
	bool permitted;		/* ... and lets this user into it */
	bool with_root;		/* share_with_root */
	uint32_t uid, own_uid;	/* the client's and the daemon's */
};

struct policy_sharing {
	enum policy_sharing_kind kind;
	char group[POLICY_GROUP_MAX];	/* POLICY_SHARING_GROUP only */
	bool writable;			/* the descriptor does not keep this client from writing to its pool */
	const char *why;		/* POLICY_SHARING_REFUSED: one sentence that says what to do */
};

/* The group that is at stake, for the caller to look up; "": none. */
const char *policy_sharing_group(unsigned force_salting, const char *asked);
void policy_sharing(const struct policy_sharing_request *q, struct policy_sharing *ret);
