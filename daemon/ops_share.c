/* Sharing: who joins which pool, what is shared, and a pass of the scan at an operator's word.
 *
 *	ShareGroups	groups: [{group, private, members [VM names], common_bytes (distinct pages), shared_bytes (guest pages
 *			that refer to them), saving_bytes, resident_bytes, compressed_bytes, swapped_bytes, lost_bytes,
 *			stored_bytes, charged_bytes, writable_by_members}]; group: its name, of a private pool the VM's */
#include "ops_share.h"

#include "proto/writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEER_GROUPS_MAX		257
#define MAX_MAP_COUNT		"/proc/sys/vm/max_map_count"
#define MAX_MAP_COUNT_DEFAULT	65530	/* the kernel's */
/* The hand may be anywhere when a pass is asked for: the round it is in, one that remembers each page, and one that
 * shares those that have not changed since. */
#define PASS_ROUNDS		3

/* ---- Register ---- */

bool share_resolve(struct daemon *d, struct call *call, const char *asked, struct policy_sharing *ret)
{
	const struct session_peer *peer = session_peer(call->session);
	const char *group = policy_sharing_group((unsigned)d->config.share_force_salting, asked);
	gid_t gids[PEER_GROUPS_MAX];
	size_t n = access_peer_groups(peer, session_fd(call->session), gids, PEER_GROUPS_MAX);

	policy_sharing(&(struct policy_sharing_request){
		.force_salting = (unsigned)d->config.share_force_salting,
		.asked = asked,
		.listed = share_groups_has(d->share_groups, group),
		.permitted = share_groups_permit(d->share_groups, group, peer->uid, gids, n),
		.with_root = d->config.share_with_root,
		.uid = peer->uid,
		.own_uid = geteuid(),
	}, ret);
	if (ret->kind != POLICY_SHARING_REFUSED)
		return true;
	refuse(call, WIRE_ERROR_PermissionDenied, "%s", ret->why);
	return false;
}

void share_begin(struct client *c, const struct policy_sharing *s)
{
	static const char *const names[] = { "off", "zero", "vm", "group:" };
	static const enum sharing told[] = { SHARING_OFF, SHARING_ZERO, SHARING_POOL, SHARING_POOL };

	c->share = *s;
	snprintf(c->sharing, sizeof c->sharing, "%s%s", names[s->kind], s->group);
	vm_set_sharing(c->vm, told[s->kind]);
}

/* ---- JoinPool ---- */

/* Three quarters of what the kernel lets a process have, less what it has: the rest is the emulator's own. */
static uint64_t mapping_budget(uint64_t maps)
{
	unsigned long long most = MAX_MAP_COUNT_DEFAULT;
	FILE *f = fopen(MAX_MAP_COUNT, "re");

	if (f && fscanf(f, "%llu", &most) != 1)
		most = MAX_MAP_COUNT_DEFAULT;
	if (f)
		fclose(f);
	most = most / 4 * 3;
	return most > maps ? most - maps : 0;
}

static int join(struct daemon *d, struct client *c, uint64_t maps, int *ret_fd, struct problem *p)
{
	const struct vm_config *vc = vm_config(c->vm);
	bool is_private = c->share.kind == POLICY_SHARING_VM;
	/* a page that is shared within one VM has its like there: more than half of them are not distinct */
	uint64_t size = vc->size_bytes / PAGE_SIZE / 2 + 1;
	struct arena_numbers a;
	struct pool *pool;
	int fd, r;

	arena_numbers(d->arena, &a);
	r = groups_join(d->groups, &(struct group_wish){
		.name = is_private ? vc->name : c->share.group,
		.is_private = is_private,
		.pages = is_private && size < a.capacity_frames ? size : a.capacity_frames,
		.swap_dir = is_private ? vc->swap_dir : d->config.swap_dir,
	}, &c->membership, p);
	if (r < 0)
		return r;
	pool = c->membership.group->pool;
	/* the descriptor first: what can fail without a trace */
	fd = pool_open(pool);
	if (fd < 0) {
		errno = -fd;
		r = problem_errno(p, "no descriptor for the pool");
		goto fail;
	}
	r = vm_join_pool(c->vm, pool, mapping_budget(maps));
	if (r == 0) {
		*ret_fd = fd;
		return 0;
	}
	close(fd);
	if (r == -ENOSPC)
		problem_set(p, ENOSPC, PROBLEM_LIMIT_REACHED, c->membership.group->n_members, c->membership.group->n_members - 1,
			"The sharing group has no room for another VM.");
fail:
	groups_leave(d->groups, &c->membership);
	return r;
}

void do_join_pool(struct daemon *d, struct call *call, const struct op_join_pool_in *in)
{
	struct client *c = session_userdata(call->session);
	struct op_join_pool_out out = { 0 };
	struct problem p = { 0 };
	struct stat st;
	int fd = -1, r;

	if (c->share.kind != POLICY_SHARING_VM && c->share.kind != POLICY_SHARING_GROUP) {
		refuse(call, WIRE_ERROR_BadState, "This VM has no pool: its sharing is %s.", c->sharing);
		return;
	}
	if (c->membership.group) {
		/* the reply to the first one may have gone down with the daemon that gave it */
		r = fd = pool_open(c->membership.group->pool);
	} else {
		r = join(d, c, in->maps, &fd, &p);
	}
	if (r < 0) {
		refuse_problem(call, r, &p, c->share.kind == POLICY_SHARING_VM ? vm_config(c->vm)->swap_dir :
			d->config.swap_dir);
		return;
	}
	/* what can be mapped: page 0 of a pool is no entry */
	out.pool_pages = fstat(fd, &st) == 0 ? (uint64_t)st.st_size / PAGE_SIZE : 0;
	call_reply(call, &ops[OP_join_pool], &out, &fd, 1);
}

/* ---- ShareGroups ---- */

static bool writable(const struct group *group)
{
	list_foreach(l, &group->members)
		if (container_of(l, struct client, membership.link)->share.writable)
			return true;
	return false;
}

static void write_group(struct writer *o, struct group *group)
{
	struct pool_numbers n;

	pool_numbers(group->pool, &n);
	writer_object(o, NULL);
	writer_str(o, "group", group->name);
	writer_bool(o, "private", group->is_private);
	writer_array(o, "members");
	list_foreach(l, &group->members) {
		struct client *c = container_of(l, struct client, membership.link);

		writer_str(o, NULL, vm_config(c->vm)->name);
	}
	writer_end(o);
	writer_u64(o, "common_bytes", n.entries * PAGE_SIZE);
	writer_u64(o, "shared_bytes", n.references * PAGE_SIZE);
	writer_u64(o, "saving_bytes", n.references > n.entries ? (n.references - n.entries) * PAGE_SIZE : 0);
	writer_u64(o, "resident_bytes", n.resident * PAGE_SIZE);
	writer_u64(o, "compressed_bytes", n.compressed * PAGE_SIZE);
	writer_u64(o, "swapped_bytes", n.swapped * PAGE_SIZE);
	writer_u64(o, "lost_bytes", n.lost * PAGE_SIZE);
	writer_u64(o, "stored_bytes", n.stored_bytes);
	writer_u64(o, "charged_bytes", n.charged_frames * PAGE_SIZE);
	writer_bool(o, "writable_by_members", writable(group));
	writer_end(o);
}

void do_share_groups(struct daemon *d, struct call *call, const struct op_share_groups_in *in)
{
	struct op_share_groups_out out = { 0 };
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	list_foreach(l, groups_list(d->groups))
		write_group(&o, container_of(l, struct group, link));
	writer_end(&o);
	out.groups = writer_take(&o, NULL);
	if (out.groups)
		call_reply(call, &ops[OP_share_groups], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.groups);
}

/* ---- ScanVm ---- */

static bool is_scanned(const struct client *c)
{
	return !c->ending && vm_sharing(c->vm) != SHARING_OFF;
}

void do_scan_vm(struct daemon *d, struct call *call, const struct op_scan_vm_in *in)
{
	struct client *one = in->vm[0] ? client_find(d, in->vm) : NULL;
	struct op_scan_vm_out out = { 0 };

	if (in->vm[0] && !one) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	if (one && !is_scanned(one)) {
		refuse(call, WIRE_ERROR_BadState, "Nothing is shared with this VM: its sharing is off, or it is just ending.");
		return;
	}
	if (!d->config.share_rate_max) {
		refuse(call, WIRE_ERROR_BadState, "ShareRateMax is 0: no page may be read for sharing.");
		return;
	}
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if ((one && c != one) || !is_scanned(c))
			continue;
		c->scan.asked_until = vm_scan_passes(c->vm) + PASS_ROUNDS;
		out.vms++;
	}
	call_reply(call, &ops[OP_scan_vm], &out, NULL, 0);
}
