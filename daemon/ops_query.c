/* Questions: the host, the VMs, one VM, the catalogue.
 *
 * Names in the replies: every row of mem/vm_numbers.def under its own name, bytes as integers.
 *
 *	Status		status: version, pid, uptime_s, state, arena {..._bytes}, host {rows of
 *			host_numbers.def}, vms {count, sums of the rows},
 *			swap {dir, size_bytes, free_bytes}, sessions, events {error, warning, notice, info: how many were told},
 *			warnings []
 *	ListVms		vms: [{name, state, uid, pid, age_s, lease_count, sharing (now), sharing_registered (the most it may be),
 *			balloon_driver ("guest", "agent", "none"), balloon_max and stall_budget (its own in words, or "default"), pool_joined, pool_writable (the descriptor
 *			does not keep it from writing to its pool), faults_mode, attending, trouble, swap_dir, decided_by (the file of
 *			vms.d for its name, or ""),
 *			active_pct (active_bytes of the size), the rows}]
 *	ShowVm		vm: the same, and faults {cause: {count, p50_ns, p99_ns, mean_ns}},
 *			claims (an object, as BalloonAgent passed it on, or null), claimed_bytes
 *			(what the guest uses, by its claims; left out if unknown),
 *			leases [{lease, gpa, size_bytes, active}], orders {sent, answered, timed_out, dropped}
 *	Catalogue	numbers: [{name, of ("vm" or "host"), kind, unit, sentence}] */
#include "ops_client.h"
#include "ops_dispatch.h"
#include "reload.h"
#include "resources.h"

#include "base/clock.h"
#include "proto/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Ends the call with the writer's text as the one json field of its output. */
static void reply_json(struct call *call, enum op_id op, struct writer *o)
{
	/* the outputs of the questions are one json field each */
	struct op_status_out out = { .status = writer_take(o, NULL) };

	if (out.status)
		call_reply(call, &ops[op], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.status);
}

static void write_numbers(struct writer *o, const struct vm_numbers *n)
{
#define NUMBER(name, kind, unit, sentence) writer_u64(o, #name, n->name);
#include "mem/vm_numbers.def"
#undef NUMBER
}

static const char *faults_mode(const struct client *c)
{
	return !c->activated ? "none" : c->user_mode_only ? "user-mode" : "full";
}

static void write_vm(struct writer *o, struct client *c)
{
	const struct vm_config *vc = vm_config(c->vm);
	const struct vm_file *file;
	struct vm_numbers n;
	uint64_t leases = 0;
	char words[32];

	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l))
		leases++;
	vm_numbers(c->vm, &n);
	writer_str(o, "name", vc->name);
	writer_str(o, "state", c->ending ? "ending" : c->leaving ? "leaving" : c->awaited ? "awaited" : "running");
	writer_u64(o, "uid", c->peer.uid);
	writer_u64(o, "pid", (uint64_t)c->peer.pid);
	writer_u64(o, "age_s", (now_ns() - c->registered_ns) / NS_PER_S);
	writer_u64(o, "lease_count", leases);
	writer_str(o, "sharing", client_sharing_now(c));
	writer_str(o, "sharing_registered", c->sharing);
	writer_str(o, "balloon_driver", c->balloon.started ? "guest" : now_ns() < c->balloon.heard_until_ns ? "agent" : "none");
	resources_balloon_max(vc, words);
	writer_str(o, "balloon_max", words);
	resources_stall_budget(vc, words);
	writer_str(o, "stall_budget", words);
	writer_bool(o, "pool_joined", c->membership.group != NULL);
	writer_bool(o, "pool_writable", c->membership.group && c->share.writable);
	writer_str(o, "faults_mode", faults_mode(c));
	writer_bool(o, "attending", c->attending != NULL);
	writer_str(o, "trouble", vm_trouble(c->vm));
	writer_str(o, "swap_dir", vc->swap_dir);
	file = vm_files_find(c->daemon->vm_files, vc->name);
	writer_str(o, "decided_by", file ? file->path : "");
	writer_u64(o, "active_pct", n.active_bytes * 100 / vc->size_bytes);
	write_numbers(o, &n);
}

void do_list_vms(struct daemon *d, struct call *call, const struct op_list_vms_in *in)
{
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	list_foreach(l, &d->clients) {
		writer_object(&o, NULL);
		write_vm(&o, container_of(l, struct client, link));
		writer_end(&o);
	}
	writer_end(&o);
	reply_json(call, OP_list_vms, &o);
}

static void write_faults(struct writer *o, struct vm *vm)
{
	writer_object(o, "faults");
	for (unsigned cause = 0; cause < FAULT_CAUSES; cause++) {
		struct histogram_copy h = { 0 };

		vm_fault_histogram(vm, cause, &h);
		writer_object(o, fault_cause_names[cause]);
		writer_u64(o, "count", h.count);
		writer_u64(o, "p50_ns", histogram_percentile_ns(&h, 500));
		writer_u64(o, "p99_ns", histogram_percentile_ns(&h, 990));
		writer_u64(o, "mean_ns", h.count ? h.sum_ns / h.count : 0);
		writer_end(o);
	}
	writer_end(o);
}

/* What an agent passes on of the guest: its own word. */
static void write_claims(struct writer *o, const struct client *c)
{
	bool heard = now_ns() < c->balloon.heard_until_ns;

	if (heard && c->balloon.claims)
		writer_raw(o, "claims", c->balloon.claims);
	else
		writer_null(o, "claims");
	if (heard && c->balloon.claimed_bytes)
		writer_u64(o, "claimed_bytes", c->balloon.claimed_bytes);
}

void do_show_vm(struct daemon *d, struct call *call, const struct op_show_vm_in *in)
{
	struct client *c = client_find(d, in->vm);
	struct writer o = WRITER_INIT;
	struct orders_numbers orders;

	if (!c) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	writer_object(&o, NULL);
	write_vm(&o, c);
	write_faults(&o, c->vm);
	write_claims(&o, c);
	writer_array(&o, "leases");
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l)) {
		writer_object(&o, NULL);
		writer_u64(&o, "lease", lease_id(l));
		writer_u64(&o, "gpa", lease_gpa(l));
		writer_u64(&o, "size_bytes", lease_size_bytes(l));
		writer_bool(&o, "active", lease_is_active(l));
		writer_end(&o);
	}
	writer_end(&o);
	orders_numbers(c->orders, &orders);
	writer_object(&o, "orders");
	writer_u64(&o, "sent", orders.sent);
	writer_u64(&o, "answered", orders.answered);
	writer_u64(&o, "timed_out", orders.timed_out);
	writer_u64(&o, "dropped", orders.dropped);
	writer_end(&o);
	writer_end(&o);
	reply_json(call, OP_show_vm, &o);
}

static void write_arena(struct writer *o, struct daemon *d, const struct reclaim_status *r)
{
	struct arena_numbers n;

	arena_numbers(d->arena, &n);
	writer_object(o, "arena");
	writer_u64(o, "size_bytes", n.capacity_frames * PAGE_SIZE);
	writer_u64(o, "used_bytes", n.charged_frames * PAGE_SIZE);
	writer_u64(o, "charged_bytes", n.charged_frames * PAGE_SIZE);
	writer_u64(o, "peak_bytes", n.peak_frames * PAGE_SIZE);
	writer_u64(o, "free_bytes", n.free_frames * PAGE_SIZE);
	writer_u64(o, "reserve_bytes", n.reserve_frames * PAGE_SIZE);
	writer_u64(o, "reserved_bytes", n.reserved_frames * PAGE_SIZE);
	writer_u64(o, "min_free_bytes", r->min_free_frames * PAGE_SIZE);
	writer_u64(o, "goal_free_bytes", r->goal_free_frames * PAGE_SIZE);
	writer_u64(o, "segments", n.segments);
	writer_end(o);
}

static void write_host(struct writer *o, struct daemon *d)
{
	struct host_numbers n;

	tick_host_numbers(d->tick, &n);
	writer_object(o, "host");
#define NUMBER(name, kind, unit, sentence) writer_u64(o, #name, n.name);
#include "host_numbers.def"
#undef NUMBER
	writer_end(o);
}

static void write_sums(struct writer *o, struct daemon *d, struct vm_numbers *sum)
{
	list_foreach(l, &d->clients) {
		struct vm_numbers n;

		vm_numbers(container_of(l, struct client, link)->vm, &n);
#define NUMBER(name, kind, unit, sentence) sum->name += n.name;
#include "mem/vm_numbers.def"
#undef NUMBER
	}
	writer_object(o, "vms");
	writer_u64(o, "count", d->n_clients);
	write_numbers(o, sum);
	writer_end(o);
}

static void write_swap(struct writer *o, struct daemon *d, const struct vm_numbers *sum)
{
	struct statvfs st;

	writer_object(o, "swap");
	writer_str(o, "dir", d->config.swap_dir);
	writer_u64(o, "size_bytes", sum->swap_size_bytes);
	writer_u64(o, "used_bytes", sum->swapped_bytes);
	if (statvfs(d->config.swap_dir, &st) == 0)
		writer_u64(o, "free_bytes", (uint64_t)st.f_bavail * st.f_frsize);
	writer_end(o);
}

static void write_warnings(struct writer *o, struct daemon *d, const struct vm_numbers *sum)
{
	struct problem p = { 0 };

	writer_array(o, "warnings");
	if (arena_probe_huge_pages(&p) < 0)
		writer_str(o, NULL, p.text);
	if (access(d->config.swap_dir, W_OK) < 0)
		writer_str(o, NULL,
			"The swap directory cannot be written: no VM can be larger than its reservation.");
	if (sum->swap_write_errors)
		writer_str(o, NULL, "Writes to a swap file failed; the pages stayed in memory.");
	if (sum->swap_read_errors || sum->checksum_errors)
		writer_str(o, NULL, "A stored page could not be read back; see the VMs' trouble.");
	reload_write_warnings(o, d);
	list_foreach(l, &d->clients) {
		const char *trouble = vm_trouble(container_of(l, struct client, link)->vm);

		if (*trouble)
			writer_str(o, NULL, trouble);
	}
	writer_end(o);
}

static void write_events(struct writer *o)
{
	writer_object(o, "events");
	for (unsigned level = LOG_LEVEL_ERROR; level < EVENT_LEVELS; level++)
		writer_u64(o, event_level_names[level], events_told(level));
	writer_end(o);
}

void do_status(struct daemon *d, struct call *call, const struct op_status_in *in)
{
	struct writer o = WRITER_INIT;
	struct vm_numbers sum = { 0 };
	struct reclaim_status r = { 0 };

	reclaim_get_status(d->reclaim, &r);
	writer_object(&o, NULL);
	writer_str(&o, "version", MEMCTL_VERSION);
	writer_u64(&o, "pid", (uint64_t)getpid());
	writer_u64(&o, "uptime_s", (now_ns() - d->started_ns) / NS_PER_S);
	writer_str(&o, "state", r.state ? r.state : "");
	writer_u64(&o, "reclaim_runs", r.runs);
	write_arena(&o, d, &r);
	write_host(&o, d);
	write_sums(&o, d, &sum);
	write_swap(&o, d, &sum);
	writer_u64(&o, "sessions", server_sessions(d->server));
	write_events(&o);
	write_warnings(&o, d, &sum);
	writer_end(&o);
	reply_json(call, OP_status, &o);
}

static void write_catalogue(struct writer *o, const char *of, const struct record_number *numbers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		writer_object(o, NULL);
		writer_str(o, "name", numbers[i].name);
		writer_str(o, "of", of);
		writer_str(o, "kind", numbers[i].kind);
		writer_str(o, "unit", numbers[i].unit);
		writer_str(o, "sentence", numbers[i].sentence);
		writer_end(o);
	}
}

void do_catalogue(struct daemon *d, struct call *call, const struct op_catalogue_in *in)
{
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	write_catalogue(&o, "vm", catalogue_vm, catalogue_vm_count);
	write_catalogue(&o, "host", catalogue_host, catalogue_host_count);
	writer_end(&o);
	reply_json(call, OP_catalogue, &o);
}
