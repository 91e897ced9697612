/* ShareTop: who shares how much with whom.
 *
 *	pairs, most first: [{group, private, a, b, pages, bytes}]; pages: entries of the pool that both refer to, or, where
 *	a and b are one VM, that it refers to more than once
 *
 * Nothing keeps who refers to an entry, so the words of all members are read: for each VM a set of the entries it refers
 * to, and one of those it refers to more than once; what two have in common is the intersection of their sets.  That
 * may be billions of words, so the walk goes on by posts, a bounded part of it a turn of the loop, and only this call's
 * connection waits.  VMs run meanwhile, and come and go: the numbers are of no one instant.
 *
 * Memory is bounded too: of a pool with more than ENTRIES_MOST entries a part is looked at, evenly spread, and the numbers are
 * estimates; of a group with more than MEMBERS_MOST VMs the first ones; and one such walk is made at a time. */
#include "ops_share.h"

#include "proto/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_A_TURN (256u << 10)	/* about a millisecond */
#define ENTRIES_MOST (2u << 20)
#define MEMBERS_MOST 64
#define PAIRS_SHOWN  1000
#define SET_BITS     64

struct top_vm {
	struct client *client;		/* a reference */
	char name[64];
	struct pool *pool;		/* a reference */
	bool is_private;
	char group[64];
	uint64_t *once, *twice;		/* sets of entries; NULL before its group's turn and after it */
};

struct pair {
	const struct top_vm *a, *b;
	uint64_t pages;
};

/* VMs of one pool stand together: [first, end) is the group that is worked on. */
struct share_top {
	struct post post;
	struct daemon *daemon;
	struct call *call;
	char only[64];			/* pairs with this VM only; "": all */
	struct top_vm *vms;
	size_t n_vms, first, end;
	size_t at;			/* the VM whose words are read, then the one that is compared with those after it */
	uint64_t gpa;			/* where its words go on */
	uint64_t every;			/* one of so many blocks of 64 entries is looked at */
	bool comparing;
	struct pair *pairs;
	size_t n_pairs, pairs_room;
	bool failed;			/* out of memory */
};

static uint64_t set_words(const struct share_top *t)
{
	return pool_pages(t->vms[t->first].pool) / SET_BITS / t->every + 1;
}

/* ---- reading words ---- */

static void take_entry(const struct share_top *t, struct top_vm *v, uint64_t entry)
{
	uint64_t block = entry / SET_BITS, bit = 1ull << entry % SET_BITS, word = block / t->every;

	if (block % t->every || word >= set_words(t))
		return;
	v->twice[word] |= v->once[word] & bit;
	v->once[word] |= bit;
}

/* A bounded number of words of the VM; whether it has more. */
static bool read_words(struct share_top *t, struct top_vm *v)
{
	uint64_t left = WORDS_A_TURN;
	struct lease *l;

	while (v->client->vm && !v->client->ending && (l = client_lease_from(v->client->vm, t->gpa))) {
		uint64_t page = t->gpa > lease_gpa(l) ? (t->gpa - lease_gpa(l)) / PAGE_SIZE : 0, next = page;
		struct pool_run run;

		if (!left)
			return true;
		if (lease_shared_run(l, page, left, &run, &next) == 1)
			for (uint64_t i = 0; i < run.count; i++)
				take_entry(t, v, run.pool_page + i);
		left -= next - page < left ? next - page : left;
		t->gpa = lease_gpa(l) + next * PAGE_SIZE;
	}
	return false;
}

/* ---- comparing sets ---- */

static uint64_t count_both(const uint64_t *a, const uint64_t *b, uint64_t words)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < words; i++)
		n += (unsigned)__builtin_popcountll(a[i] & b[i]);
	return n;
}

static void take_pair(struct share_top *t, const struct top_vm *a, const struct top_vm *b, uint64_t pages)
{
	struct pair *more;

	if (!pages || (t->only[0] && strcmp(a->name, t->only) && strcmp(b->name, t->only)))
		return;
	if (t->n_pairs == t->pairs_room) {
		more = realloc(t->pairs, (2 * t->pairs_room + 64) * sizeof *more);
		if (!more) {
			t->failed = true;
			return;
		}
		t->pairs = more;
		t->pairs_room = 2 * t->pairs_room + 64;
	}
	t->pairs[t->n_pairs++] = (struct pair){ a, b, pages };
}

static void compare(struct share_top *t, const struct top_vm *a)
{
	uint64_t words = set_words(t);

	take_pair(t, a, a, count_both(a->twice, a->twice, words) * t->every);
	for (const struct top_vm *b = a + 1; b < t->vms + t->end; b++)
		take_pair(t, a, b, count_both(a->once, b->once, words) * t->every);
}

/* ---- the end ---- */

static int most_first(const void *x, const void *y)
{
	const struct pair *a = x, *b = y;

	return (a->pages < b->pages) - (a->pages > b->pages);
}

static void share_top_free(struct share_top *t)
{
	t->daemon->share_top = NULL;
	for (size_t i = 0; i < t->n_vms; i++) {
		free(t->vms[i].once);
		free(t->vms[i].twice);
		pool_unref(t->vms[i].pool);
		client_unref(t->vms[i].client);
	}
	free(t->vms);
	free(t->pairs);
	free(t);
}

static void conclude(struct share_top *t)
{
	struct op_share_top_out out = { 0 };
	struct writer o = WRITER_INIT;

	if (t->n_pairs)
		qsort(t->pairs, t->n_pairs, sizeof *t->pairs, most_first);
	writer_array(&o, NULL);
	for (size_t i = 0; i < t->n_pairs && i < PAIRS_SHOWN; i++) {
		const struct pair *p = &t->pairs[i];

		writer_object(&o, NULL);
		writer_str(&o, "group", p->a->group);
		writer_bool(&o, "private", p->a->is_private);
		writer_str(&o, "a", p->a->name);
		writer_str(&o, "b", p->b->name);
		writer_u64(&o, "pages", p->pages);
		writer_u64(&o, "bytes", p->pages * PAGE_SIZE);
		writer_end(&o);
	}
	writer_end(&o);
	out.pairs = writer_take(&o, NULL);
	if (out.pairs && !t->failed)
		call_reply(t->call, &ops[OP_share_top], &out, NULL, 0);
	else
		refuse(t->call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.pairs);
	share_top_free(t);
}

/* ---- from turn to turn ---- */

static int begin_group(struct share_top *t)
{
	uint64_t pages;

	while (t->end < t->n_vms && t->vms[t->end].pool == t->vms[t->first].pool)
		t->end++;
	pages = pool_pages(t->vms[t->first].pool);
	t->every = (pages + ENTRIES_MOST - 1) / ENTRIES_MOST;
	t->every = t->every ? t->every : 1;
	for (size_t i = t->first; i < t->end; i++) {
		t->vms[i].once = calloc(set_words(t), sizeof(uint64_t));
		t->vms[i].twice = calloc(set_words(t), sizeof(uint64_t));
		if (!t->vms[i].once || !t->vms[i].twice)
			return -ENOMEM;
	}
	t->at = t->first;
	t->gpa = 0;
	t->comparing = false;
	return 0;
}

static void end_group(struct share_top *t)
{
	for (size_t i = t->first; i < t->end; i++) {
		free(t->vms[i].once);
		free(t->vms[i].twice);
		t->vms[i].once = t->vms[i].twice = NULL;
	}
	t->first = t->end;
}

/* A part of the work; whether more is to be done. */
static bool step(struct share_top *t)
{
	if (t->failed || t->first == t->n_vms)
		return false;
	if (t->end == t->first) {
		t->failed = begin_group(t) < 0;
	} else if (!t->comparing) {
		if (read_words(t, &t->vms[t->at]))
			return true;
		t->gpa = 0;
		if (++t->at == t->end) {
			t->comparing = true;
			t->at = t->first;
		}
	} else {
		compare(t, &t->vms[t->at]);
		if (++t->at == t->end)
			end_group(t);
	}
	return true;
}

static void turn(struct post *p)
{
	struct share_top *t = container_of(p, struct share_top, post);

	if (t->call->session && step(t))
		loop_post(t->daemon->loop, &t->post, turn);
	else
		conclude(t);
}

static void take_group(struct share_top *t, struct group *group, const struct client *only)
{
	unsigned n = 0;

	if (only && only->membership.group != group)
		return;
	/* the one that is asked about is among the first in any case */
	list_foreach(l, &group->members) {
		struct client *c = container_of(l, struct client, membership.link);
		struct top_vm *v = &t->vms[t->n_vms];

		if (c != only && n + (only != NULL) >= MEMBERS_MOST)
			continue;
		n += c != only;
		v->client = client_ref(c);
		v->pool = pool_ref(group->pool);
		v->is_private = group->is_private;
		memcpy(v->name, vm_config(c->vm)->name, sizeof v->name);
		memcpy(v->group, group->name, sizeof v->group);
		t->n_vms++;
	}
}

void do_share_top(struct daemon *d, struct call *call, const struct op_share_top_in *in)
{
	struct client *only = in->vm[0] ? client_find(d, in->vm) : NULL;
	struct share_top *t;

	if (in->vm[0] && !only) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	if (d->share_top) {
		refuse(call, WIRE_ERROR_BadState, "Another such question is being answered: ask again.");
		return;
	}
	t = calloc(1, sizeof *t);
	if (t)
		t->vms = calloc(d->n_clients + 1, sizeof *t->vms);
	if (!t || !t->vms) {
		free(t);
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		return;
	}
	t->daemon = d;
	t->call = call;
	memcpy(t->only, in->vm, strnlen(in->vm, sizeof t->only - 1));
	list_foreach(l, groups_list(d->groups))
		take_group(t, container_of(l, struct group, link), only);
	d->share_top = t;
	loop_post(d->loop, &t->post, turn);
}
