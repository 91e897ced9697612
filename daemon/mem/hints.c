#include "mem/hints.h"

#include "base/sparse.h"
#include "mem/vm_impl.h"

#include <errno.h>
#include <stdlib.h>

#define HINTS_BUCKET 8u
#define HINTS_MIN    4096u
#define MEMBERS_MAX  65535u

/* A page that may be looked for: 16 bits of its hash, its member (counted from 1; 0: none) and its number. */
typedef uint64_t hint;
#define HINT_TAG(hash)		 ((uint64_t)(hash) >> 16 << 48)
#define HINT(hash, member, page) (HINT_TAG(hash) | (uint64_t)(member) << 32 | (page))
#define HINT_MEMBER(h)		 ((uint32_t)((h) >> 32 & 0xffff))
#define HINT_PAGE(h)		 ((uint32_t)(h))

struct hints {
	pthread_mutex_t lock;
	struct lease **members;	/* [0] is nobody */
	uint32_t n_members;
	uint64_t pages;		/* of all members */
	hint *slots;		/* two buckets a hash may be in: both are full rarely, up to a hint a slot */
	uint64_t n_slots;
};

int hints_new(struct hints **ret)
{
	struct hints *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	t->members = calloc(MEMBERS_MAX + 1, sizeof *t->members);
	if (!t->members) {
		free(t);
		return -ENOMEM;
	}
	pthread_mutex_init(&t->lock, NULL);
	*ret = t;
	return 0;
}

void hints_free(struct hints *t)
{
	if (!t)
		return;
	sparse_free(t->slots, t->n_slots * sizeof *t->slots);
	free(t->members);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* The first or the second bucket of a hash. */
static hint *bucket(struct hints *t, uint32_t hash, unsigned which)
{
	uint64_t at = which ? (uint64_t)hash * 0x9e3779b97f4a7c15ull >> 24 : hash;

	return &t->slots[at & (t->n_slots - 1) & ~(uint64_t)(HINTS_BUCKET - 1)];
}

/* The page's hash, if it is as it was when the hint was left; 0: the hint is stale. */
static uint32_t hash_of(struct hints *t, hint h)
{
	struct lease *l = h ? t->members[HINT_MEMBER(h)] : NULL;
	uint32_t hash = l ? share_sight(l, HINT_PAGE(h)) : 0;

	return hash && HINT_TAG(hash) == (h & HINT_TAG(UINT32_MAX)) && share_hint_holds(l, HINT_PAGE(h), hash) ? hash : 0;
}

/* A place for a new hint: one that is free or stale, or at random. */
static hint *place_for(struct hints *t, uint32_t hash)
{
	for (unsigned i = 0; i < 2 * HINTS_BUCKET; i++) {
		hint *h = bucket(t, hash, i / HINTS_BUCKET) + i % HINTS_BUCKET;

		if (!hash_of(t, *h))
			return h;
	}
	return bucket(t, hash, 0) + hash / HINTS_BUCKET % HINTS_BUCKET;
}

/* Under the lock.  Room for a hint a page.  They are only hints, but to lose them at each newcomer would cost what they
 * stand for, because clean pages are not looked at again: they are put into the larger table. */
static void resize(struct hints *t)
{
	uint64_t want = HINTS_MIN, old_n = t->n_slots;
	hint *old = t->slots, *larger;

	while (want < t->pages)
		want *= 2;
	if (want <= old_n)
		return;
	larger = sparse_new(want * sizeof *larger);
	if (!larger)
		return;
	t->slots = larger;
	t->n_slots = want;
	for (uint64_t i = 0; i < old_n; i++) {
		uint32_t hash = hash_of(t, old[i]);

		if (hash)
			*place_for(t, hash) = old[i];
	}
	sparse_free(old, old_n * sizeof *old);
}

uint32_t hints_join(struct hints *t, struct lease *l)
{
	uint32_t m = HINTS_NO_MEMBER;

	pthread_mutex_lock(&t->lock);
	for (uint32_t i = 1; i <= MEMBERS_MAX && m == HINTS_NO_MEMBER; i++)
		if (!t->members[i])
			m = i;
	if (m != HINTS_NO_MEMBER) {
		t->members[m] = l;
		t->n_members++;
		t->pages += t->members[m]->pages;
		resize(t);
	}
	pthread_mutex_unlock(&t->lock);
	return m;
}

/* Its hints stay: they are looked up at whoever has its number, nobody or another lease, and do not hold there. */
void hints_leave(struct hints *t, uint32_t member)
{
	pthread_mutex_lock(&t->lock);
	t->pages -= t->members[member]->pages;
	t->members[member] = NULL;
	t->n_members--;
	pthread_mutex_unlock(&t->lock);
}

uint32_t hints_members(struct hints *t)
{
	uint32_t n;

	pthread_mutex_lock(&t->lock);
	n = t->n_members;
	pthread_mutex_unlock(&t->lock);
	return n;
}

bool hints_find(struct hints *t, uint32_t hash, uint32_t member, uint32_t page, bool remember, uint32_t *ret_member,
	uint32_t *ret_page)
{
	hint mine = HINT(hash, member, page), *place = NULL;
	bool found = false;

	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; t->slots && i < 2 * HINTS_BUCKET && !found; i++) {
		hint *h = bucket(t, hash, i / HINTS_BUCKET) + i % HINTS_BUCKET;

		if (*h == mine)
			place = h;
		else if (HINT_TAG(hash) == (*h & HINT_TAG(UINT32_MAX)) && hash_of(t, *h) == hash) {
			*ret_member = HINT_MEMBER(*h);
			*ret_page = HINT_PAGE(*h);
			found = true;
		}
	}
	if (!found && remember && t->slots && !place)
		*place_for(t, hash) = mine;
	pthread_mutex_unlock(&t->lock);
	return found;
}

struct lease *hints_lock_member(struct hints *t, uint32_t member)
{
	pthread_mutex_lock(&t->lock);
	return t->members[member];
}

void hints_unlock(struct hints *t)
{
	pthread_mutex_unlock(&t->lock);
}
