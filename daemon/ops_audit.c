/* Audit: every lease's worker counts its own page map (under the words' locks, while the guest runs); when
 * the last has come back, the sums are compared with what stores, memfds and arena hold.  Workers are asked
 * all at once; the control thread waits for nobody, only this call's connection does.
 *
 * A VM or lease that ends meanwhile is left out: it has nothing to be compared with any more.
 *
 *	audit: vms [{vm, ok, pages, zero, resident, shared, breaking, private_pages, compressed, swapped, ballooned, lost, in_transit, data,
 *	       discarded, foreign, wrong, cache_..., swap_..., lease_..., leases_skipped, first_wrong}],
 *	       pools [{pool, ok, entries, resident, references, words, blocks_bytes, charged_bytes, first_wrong}],
 *	       arena {ok, blocks_bytes, charged_bytes, capacity_bytes} */
#include "ops_client.h"
#include "ops_dispatch.h"

#include "mem/pool.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct audit;

struct lease_job {
	struct client_job job;
	struct vm_entry *entry;
};

struct vm_entry {
	struct list link;
	struct audit *audit;
	struct client *client;		/* a reference */
	struct vm_audit sum;
	uint64_t skipped;		/* leases that were not active or ended meanwhile */
};

struct audit {
	struct daemon *daemon;
	struct call *call;
	struct list entries;
	unsigned waiting;
};

static void add(struct lease_audit *sum, const struct lease_audit *one)
{
	if (one->wrong && !sum->wrong)
		memcpy(sum->first_wrong, one->first_wrong, sizeof sum->first_wrong);
	sum->pages += one->pages;
	sum->zero += one->zero;
	sum->resident += one->resident;
	sum->shared += one->shared;
	sum->breaking += one->breaking;
	sum->private_pages += one->private_pages;
	sum->compressed += one->compressed;
	sum->swapped += one->swapped;
	sum->ballooned += one->ballooned;
	sum->lost += one->lost;
	sum->in_transit += one->in_transit;
	sum->data += one->data;
	sum->discarded += one->discarded;
	sum->foreign += one->foreign;
	sum->wrong += one->wrong;
	sum->unregistered += one->unregistered;
}

static void write_entry(struct writer *o, const struct vm_entry *e)
{
	const struct vm_audit *a = &e->sum;

	writer_object(o, NULL);
	writer_str(o, "vm", vm_config(e->client->vm)->name);
	writer_bool(o, "ok", a->ok);
	writer_u64(o, "pages", a->leases.pages);
	writer_u64(o, "zero", a->leases.zero);
	writer_u64(o, "resident", a->leases.resident);
	writer_u64(o, "shared", a->leases.shared);
	writer_u64(o, "breaking", a->leases.breaking);
	writer_u64(o, "private_pages", a->leases.private_pages);
	writer_u64(o, "compressed", a->leases.compressed);
	writer_u64(o, "swapped", a->leases.swapped);
	writer_u64(o, "ballooned", a->leases.ballooned);
	writer_u64(o, "lost", a->leases.lost);
	writer_u64(o, "in_transit", a->leases.in_transit);
	writer_u64(o, "data", a->leases.data);
	writer_u64(o, "discarded", a->leases.discarded);
	writer_u64(o, "foreign", a->leases.foreign);
	writer_u64(o, "wrong", a->leases.wrong);
	writer_u64(o, "cache_live_pages", a->cache_live_pages);
	writer_u64(o, "cache_map_pages", a->cache_map_pages);
	writer_u64(o, "cache_blocks_bytes", a->cache_blocks_frames * PAGE_SIZE);
	writer_u64(o, "cache_charged_bytes", a->cache_charged_frames * PAGE_SIZE);
	writer_u64(o, "swap_used_slots", a->swap_used_slots);
	writer_u64(o, "swap_map_pages", a->swap_map_pages);
	writer_u64(o, "lease_blocks_bytes", a->lease_blocks_frames * PAGE_SIZE);
	writer_u64(o, "lease_charged_bytes", a->lease_charged_frames * PAGE_SIZE);
	writer_u64(o, "leases_skipped", e->skipped);
	writer_str(o, "first_wrong", a->first_wrong);
	writer_end(o);
}

/* The wall.  Charges and blocks cannot be read at one instant while guests run, but charge comes before the
 * page and goes after it: blocks above the charge in several looks are real. */
static bool write_arena(struct writer *o, struct arena *arena)
{
	struct arena_check a;
	bool ok = false;

	for (unsigned i = 0; i < 5 && !ok; i++) {
		arena_check(arena, &a);
		ok = a.blocks_frames <= a.charged_frames && a.charged_frames <= a.capacity_frames;
	}
	writer_object(o, "arena");
	writer_bool(o, "ok", ok);
	writer_u64(o, "blocks_bytes", a.blocks_frames * PAGE_SIZE);
	writer_u64(o, "charged_bytes", a.charged_frames * PAGE_SIZE);
	writer_u64(o, "capacity_bytes", a.capacity_frames * PAGE_SIZE);
	writer_end(o);
	return ok;
}

/* Pages of all members that refer to the pool, by their ledgers; UINT64_MAX: one of them ends, and has given back some. */
static uint64_t references_to(struct daemon *d, const struct pool *pool)
{
	uint64_t sum = 0;

	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (vm_pool(c->vm) != pool)
			continue;
		if (c->ending)
			return UINT64_MAX;
		sum += vm_pool_references(c->vm);
	}
	return sum;
}

/* What a lease's worker may have in hand: an order, and a batch on its way out. */
#define IN_HAND 512u

/* References are counted in the pool and in the words one after the other: compared until they stand still, or are so near
 * that the rest is in the hands of workers. */
static bool write_pool(struct writer *o, struct daemon *d, struct pool *pool)
{
	struct pool_audit a;
	uint64_t words = 0;

	for (unsigned i = 0; i < 20; i++) {
		words = references_to(d, pool);
		pool_run_audit(pool, words, i < 19 ? 0 : IN_HAND * d->n_clients, &a);
		if (a.ok)
			break;
	}
	writer_object(o, NULL);
	writer_str(o, "pool", pool_name(pool));
	writer_bool(o, "ok", a.ok);
	writer_u64(o, "entries", a.entries);
	writer_u64(o, "resident", a.resident);
	writer_u64(o, "references", a.references);
	writer_u64(o, "words", words == UINT64_MAX ? 0 : words);
	writer_u64(o, "blocks_bytes", a.blocks_frames * PAGE_SIZE);
	writer_u64(o, "charged_bytes", a.charged_frames * PAGE_SIZE);
	writer_str(o, "first_wrong", a.first_wrong);
	writer_end(o);
	return a.ok;
}

static bool write_pools(struct writer *o, struct daemon *d)
{
	bool ok = true;

	writer_array(o, "pools");
	list_foreach(l, &d->clients) {
		struct pool *pool = vm_pool(container_of(l, struct client, link)->vm);
		bool seen = false;

		for (struct list *i = d->clients.next; i != l; i = i->next)
			seen |= vm_pool(container_of(i, struct client, link)->vm) == pool;
		if (pool && !seen)
			ok &= write_pool(o, d, pool);
	}
	writer_end(o);
	return ok;
}

static void conclude(struct audit *a)
{
	struct op_audit_out out = { .ok = true };
	struct writer o = WRITER_INIT;

	writer_object(&o, NULL);
	writer_array(&o, "vms");
	while (!list_empty(&a->entries)) {
		struct vm_entry *e = container_of(a->entries.next, struct vm_entry, link);

		if (e->client->vm && !e->client->ending) {
			vm_audit_stores(e->client->vm, &e->sum);
			out.ok = out.ok && e->sum.ok;
			write_entry(&o, e);
		}
		list_remove(&e->link);
		client_unref(e->client);
		free(e);
	}
	writer_end(&o);
	if (!write_pools(&o, a->daemon))
		out.ok = false;
	if (!write_arena(&o, a->daemon->arena))
		out.ok = false;
	writer_end(&o);
	if (!out.ok)
		event_tell(EVENT_AUDIT_DIFFERENCE, NULL, "the ledger and the kernel's numbers disagree; memctl audit --json says where");
	out.audit = writer_take(&o, NULL);
	if (out.audit)
		call_reply(a->call, &ops[OP_audit], &out, NULL, 0);
	else
		refuse(a->call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.audit);
	free(a);
}

static void lease_audited(struct client_job *j)
{
	struct lease_job *k = container_of(j, struct lease_job, job);
	struct vm_entry *e = k->entry;
	struct audit *a = e->audit;

	if (j->job.r == 0)
		add(&e->sum.leases, &j->job.audit);
	else
		e->skipped++;
	free(k);
	if (--a->waiting == 0)
		conclude(a);
}

static int start_vm(struct audit *a, struct client *c)
{
	struct vm_entry *e = calloc(1, sizeof *e);

	if (!e)
		return -1;
	e->audit = a;
	e->client = client_ref(c);
	list_append(&a->entries, &e->link);
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l)) {
		struct lease_job *k = calloc(1, sizeof *k);

		if (!k)
			return -1;
		k->entry = e;
		k->job.job.kind = JOB_AUDIT;
		k->job.job.range = (struct run){ 0, lease_size_bytes(l) / PAGE_SIZE };
		k->job.finished = lease_audited;
		if (client_submit(c, l, &k->job) == 0) {
			a->waiting++;
		} else {
			e->skipped++;
			free(k);
		}
	}
	return 0;
}

void do_audit(struct daemon *d, struct call *call, const struct op_audit_in *in)
{
	struct client *one = in->vm[0] ? client_find(d, in->vm) : NULL;
	struct audit *a;

	if (in->vm[0] && !one) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	a = calloc(1, sizeof *a);
	if (!a) {
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		return;
	}
	a->daemon = d;
	a->call = call;
	a->waiting = 1; /* ours, until all are asked */
	list_init(&a->entries);
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if ((!one || c == one) && !c->ending && start_vm(a, c) < 0)
			break;
	}
	if (--a->waiting == 0)
		conclude(a);
}
