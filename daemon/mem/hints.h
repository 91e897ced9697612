/* Hints: clean pages of a pool's members that have no entry yet, by their hash, so that the second page with the same content
 * finds the first.
 *
 * A hint is 8 bytes: the upper half of a page's hash, its member and its number; the lower half is the place.  It is never
 * believed: the page may have changed since.  Whether it still has the hash is looked up where it was left (share_hint_holds), and
 * whether it is equal is found by comparing it, which its own worker does (share_nudge).
 *
 * Members are leases.  Threads: any; the lock comes after the words of leases and before share.lock, and is never held over
 * a system call. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hints;
struct lease;

#define HINTS_NO_MEMBER UINT32_MAX

int hints_new(struct hints **ret);
/* No members are left.  NULL is fine. */
void hints_free(struct hints *t);

/* The lease's number among the members; HINTS_NO_MEMBER: there are too many. */
uint32_t hints_join(struct hints *t, struct lease *l);
/* Afterwards nobody looks at the lease, or has it by hints_lock_member. */
void hints_leave(struct hints *t, uint32_t member);
uint32_t hints_members(struct hints *t);

/* Whether another clean page is known with this hash: *ret_member and *ret_page, which must be looked at (it may change at any
 * moment).  If not, `remember` this one. */
bool hints_find(struct hints *t, uint32_t hash, uint32_t member, uint32_t page, bool remember, uint32_t *ret_member,
	uint32_t *ret_page);
/* The lease of a member, kept from leaving until hints_unlock; NULL: it left. */
struct lease *hints_lock_member(struct hints *t, uint32_t member);
void hints_unlock(struct hints *t);
