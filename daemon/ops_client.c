#include "ops_client.h"

#include "admit.h"
#include "decisions.h"
#include "ops_dispatch.h"
#include "ops_resume.h"
#include "ops_share.h"
#include "ops_stop.h"
#include "page_in.h"
#include "resources.h"
#include "base/clock.h"
#include "base/events.h"
#include "base/process.h"
#include "mem/inject.h"
#include "policy/admission.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* No VM is larger than what a 47-bit address space holds. */
#define SIZE_MAX_BYTES (1ull << 46)

struct client *client_find(struct daemon *d, const char *vm)
{
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (strcmp(vm_config(c->vm)->name, vm) == 0)
			return c;
	}
	return NULL;
}

struct lease *client_lease_from(struct vm *vm, uint64_t gpa)
{
	struct lease *best = NULL;

	for (struct lease *l = vm_first_lease(vm); l; l = lease_next(l))
		if (lease_gpa(l) + lease_size_bytes(l) > gpa && (!best || lease_gpa(l) < lease_gpa(best)))
			best = l;
	return best;
}

const char *client_sharing_now(const struct client *c)
{
	static const char *const withheld[] = { [SHARING_OFF] = "off", [SHARING_ZERO] = "zero" };
	enum sharing now = vm_sharing(c->vm);

	return now == SHARING_POOL ? c->sharing : withheld[now];
}

bool client_may_share(const struct client *c, const char *wanted, enum sharing *ret)
{
	if (!strcmp(wanted, c->sharing))
		*ret = SHARING_POOL;	/* or less, if it came with less */
	else if (!strcmp(wanted, "off"))
		*ret = SHARING_OFF;
	else if (!strcmp(wanted, "zero") && strcmp(c->sharing, "off"))
		*ret = SHARING_ZERO;
	else
		return false;
	return true;
}

uint64_t client_active_pages(struct vm *vm)
{
	uint64_t pages = 0;

	for (struct lease *l = vm_first_lease(vm); l; l = lease_next(l))
		if (lease_is_active(l))
			pages += lease_size_bytes(l) / PAGE_SIZE;
	return pages;
}

bool client_calls_on(const struct client *c, const struct session *s)
{
	return c->calls == s && !c->ending;
}

struct client *client_ref(struct client *c)
{
	c->refs++;
	return c;
}

void client_unref(struct client *c)
{
	if (!c || --c->refs > 0)
		return;
	assert(!c->vm);
	free(c->balloon.claims);
	free(c);
}

/* Ended, no thread, no job: give everything back.  The name is free from here on. */
static void free_if_gone(struct client *c)
{
	if (!c->threads_gone || c->jobs > 0 || !c->vm)
		return;
	event_tell(EVENT_VM_RELEASED, EVENT_OF(.vm = vm_config(c->vm)->name), "VM %s: released", vm_config(c->vm)->name);
	page_in_forget(c);
	resume_forget(c);
	list_remove(&c->link);
	c->daemon->n_clients--;
	vm_free(c->vm);
	c->vm = NULL;
	groups_leave(c->daemon->groups, &c->membership);
	orders_unref(c->orders);
	c->orders = NULL;
	stop_client_gone(c->daemon);
	client_unref(c);
}

static void threads_have_gone(struct post *p)
{
	struct client *c = container_of(p, struct client, gone);

	c->threads_gone = true;
	free_if_gone(c);
}

/* On the last thread of the VM. */
static void vm_gone(void *userdata)
{
	struct client *c = userdata;

	loop_post(c->daemon->loop, &c->gone, threads_have_gone);
}

void client_end(struct client *c, enum event_id id, const char *why)
{
	if (c->ending)
		return;
	c->ending = true;
	event_tell(id, EVENT_OF(.vm = vm_config(c->vm)->name, .session = c->peer.pid), "VM %s: ending: %s", vm_config(c->vm)->name, why);
	orders_detach(c->orders);
	if (c->calls) {
		session_set_userdata(c->calls, NULL);
		session_close(c->calls);
		c->calls = NULL;
	}
	if (c->attending) {
		session_set_userdata(c->attending, NULL);
		session_close(c->attending);
		c->attending = NULL;
	}
	/* the reclaim thread first: it must not ask a VM whose threads are ending */
	reclaim_remove(c->daemon->reclaim, c->vm);
	vm_stop(c->vm, vm_gone, c);
}

void client_session_closed(struct client *c, struct session *s)
{
	if (s == c->calls)
		c->calls = NULL;
	if (s == c->attending)
		c->attending = NULL;
	if (!resume_again(c))
		client_end(c, EVENT_VM_ENDED, "its connection closed");
}

static void job_back(struct post *p)
{
	struct client_job *j = container_of(p, struct client_job, post);
	struct client *c = j->client;

	j->finished(j); /* may free j */
	c->jobs--;
	if (c->ending)
		free_if_gone(c);
}

/* On the lease's worker. */
static void job_done(struct job *job, void *userdata)
{
	struct client_job *j = userdata;

	loop_post(j->client->daemon->loop, &j->post, job_back);
}

int client_submit(struct client *c, struct lease *l, struct client_job *j)
{
	int r;

	j->client = c;
	j->job.done = job_done;
	j->job.userdata = j;
	/* counted first: the job may be done before this returns */
	c->jobs++;
	r = lease_submit(l, &j->job);
	if (r < 0)
		c->jobs--;
	return r;
}

/* ---- Register ---- */

static bool same_dir(const char *a, size_t a_bytes, const char *b)
{
	size_t b_bytes = strlen(b);

	while (a_bytes > 1 && a[a_bytes - 1] == '/')
		a_bytes--;
	while (b_bytes > 1 && b[b_bytes - 1] == '/')
		b_bytes--;
	return a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0;
}

/* A client may name only directories that the configuration lists: memctld writes there with its rights. */
static bool swap_dir_allowed(const struct config *c, const char *dir)
{
	const char *at = c->allowed_swap_dirs;

	if (same_dir(c->swap_dir, strlen(c->swap_dir), dir))
		return true;
	while (*at) {
		size_t n = strcspn(at, ":");

		if (n > 0 && same_dir(at, n, dir))
			return true;
		at += n + (at[n] == ':');
	}
	return false;
}

/* Whether `bytes` is a size of pages; refuses the call if not. */
static bool check_size(struct call *call, const char *field, uint64_t bytes, bool zero_is_fine)
{
	if (bytes % PAGE_SIZE || (bytes == 0 && !zero_is_fine))
		refuse_numbers(call, WIRE_ERROR_InvalidSize, bytes, PAGE_SIZE, field,
			"%s must be a multiple of 4096%s.", field, zero_is_fine ? "" : " and not zero");
	else if (bytes > SIZE_MAX_BYTES)
		refuse_numbers(call, WIRE_ERROR_InvalidSize, bytes, SIZE_MAX_BYTES, field,
			"%s is larger than 64 TiB.", field);
	else
		return true;
	return false;
}

static bool check_limits(struct daemon *d, struct call *call, const char *name)
{
	const struct event_words *of = EVENT_OF(.vm = name, .session = session_peer(call->session)->pid);
	uid_t uid = session_peer(call->session)->uid;
	uint64_t of_user = 0;

	list_foreach(l, &d->clients)
		of_user += container_of(l, struct client, link)->peer.uid == uid;
	if (d->n_clients >= (uint64_t)d->config.max_vms) {
		event_tell(EVENT_VM_REFUSED, of, "VM %s: refused: the host has max_vms = %lld VMs", name, (long long)d->config.max_vms);
		refuse_numbers(call, WIRE_ERROR_LimitReached, d->n_clients + 1, (uint64_t)d->config.max_vms,
			NULL, "The host has max_vms = %lld VMs.", (long long)d->config.max_vms);
	} else if (of_user >= (uint64_t)d->config.max_vms_per_user) {
		event_tell(EVENT_VM_REFUSED, of, "VM %s: refused: user %u has max_vms_per_user = %lld VMs", name, (unsigned)uid,
			(long long)d->config.max_vms_per_user);
		refuse_numbers(call, WIRE_ERROR_LimitReached, of_user + 1,
			(uint64_t)d->config.max_vms_per_user, NULL,
			"This user has max_vms_per_user = %lld VMs.", (long long)d->config.max_vms_per_user);
	} else {
		return true;
	}
	return false;
}

/* Everything about the request that can be judged without the arena. */
static bool check_register(struct daemon *d, struct call *call, const struct op_register_in *in, const struct vm_file *file)
{
	if (d->stopping) {
		refuse(call, WIRE_ERROR_BadState, "memctld is ending.");
		return false;
	}
	if (session_userdata(call->session)) {
		refuse(call, WIRE_ERROR_BadState,
			"This connection has a VM already: one connection, one VM.");
		return false;
	}
	if (!is_name(in->name)) {
		refuse_field(call, WIRE_ERROR_InvalidName, "name", NULL);
		return false;
	}
	if (!decisions_permit(d, call, file))
		return false;
	if (!check_size(call, "size", in->size, false) ||
		!check_size(call, "reservation", in->reservation, true) ||
		!check_size(call, "limit", in->limit, true))
		return false;
	if (in->shares > UINT32_MAX) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "shares", "shares is at most 4294967295.");
		return false;
	}
	if (*in->sharing && !resources_is_sharing(in->sharing)) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "sharing",
			"sharing is \"off\", \"zero\", \"vm\" or \"group:NAME\".");
		return false;
	}
	if (in->swap_dir[0] && !*vm_file_value(file, VM_KEY_swap_dir) && !swap_dir_allowed(&d->config, in->swap_dir)) {
		refuse(call, WIRE_ERROR_PermissionDenied,
			"The configuration does not allow this swap_dir: add it to allowed_swap_dirs, or "
			"leave it out.");
		return false;
	}
	if (client_find(d, in->name)) {
		resume_replace(client_find(d, in->name), session_peer(call->session));
		refuse_vm(call, WIRE_ERROR_VmExists, in->name);
		return false;
	}
	return check_limits(d, call, in->name);
}

int client_new(struct client **ret, struct daemon *d, struct problem *p)
{
	struct client *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return -ENOMEM;
	c->daemon = d;
	c->refs = 1;
	c->registered_ns = now_ns();
	list_init(&c->link);
	list_init(&c->membership.link);
	r = orders_new(&c->orders, d->loop);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int client_list(struct client *c)
{
	struct vm_orders functions;
	int r;

	orders_functions(c->orders, &functions);
	vm_set_orders(c->vm, &functions);
	r = reclaim_add(c->daemon->reclaim, c->vm);
	if (r < 0)
		return r;
	list_append(&c->daemon->clients, &c->link);
	c->daemon->n_clients++;
	return 0;
}

static int make_client(struct daemon *d, const struct vm_config *vc, struct client **ret, struct problem *p)
{
	struct client *c;
	int r = client_new(&c, d, p);

	if (r < 0)
		return r;
	if (getrandom(&c->token, sizeof c->token, 0) != sizeof c->token)
		r = problem_errno(p, "no random numbers for a token");
	if (r == 0)
		r = vm_new(&c->vm, d->arena, &d->settings, vc, p);
	if (r == 0)
		r = client_list(c);
	if (r == 0) {
		*ret = c;
		return 0;
	}
	if (c->vm)
		vm_free(c->vm);
	orders_unref(c->orders);
	free(c);
	return r;
}

/* What it asks for, and what is decided for it by its name. */
static bool make_config(struct daemon *d, struct call *call, const struct op_register_in *in, const struct vm_file *file,
	struct vm_config *ret)
{
	const char *field, *dir = vm_file_value(file, VM_KEY_swap_dir);
	char why[400];

	*ret = (struct vm_config){ .size_bytes = in->size, .reservation_bytes = in->reservation, .limit_bytes = in->limit,
		.shares = in->shares ? (uint32_t)in->shares : resources_normal_shares(in->size) };
	snprintf(ret->name, sizeof ret->name, "%.63s", in->name);
	if (resources_parse(&(struct resource_words){ "", "", "", in->balloon_max, in->stall_budget }, ret, &field, why, sizeof why) < 0) {
		refuse_field(call, WIRE_ERROR_InvalidValue, field, "%s", why);
		return false;
	}
	if (decisions_over(file, ret, why, sizeof why) < 0) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "size", "%.300s.", why);
		return false;
	}
	snprintf(ret->swap_dir, sizeof ret->swap_dir, "%s", *dir ? dir : in->swap_dir[0] ? in->swap_dir : d->config.swap_dir);
	return true;
}

/* false: refused; where a file has decided what there is no room for, it is named. */
static bool admit(struct daemon *d, struct call *call, const struct vm_config *c, const struct vm_file *file)
{
	bool decided = *vm_file_value(file, VM_KEY_reservation) || *vm_file_value(file, VM_KEY_limit);
	struct problem p = { 0 };
	int r = admission(d, c, NULL, 0, &p);
	size_t n;

	if (r == 0)
		return true;
	n = strlen(p.text);
	if (decided && n < sizeof p.text)
		snprintf(p.text + n, sizeof p.text - n, " (it is %.150s that decides)", file->path);
	refuse_problem(call, r, &p, c->swap_dir);
	return false;
}

void do_register(struct daemon *d, struct call *call, const struct op_register_in *in)
{
	const struct vm_file *file = vm_files_find(d->vm_files, in->name);
	struct op_register_out out = { 0 };
	struct vm_config vc;
	struct policy_sharing sharing;
	struct vm_numbers numbers;
	struct problem p = { 0 };
	struct client *c = NULL;
	const char *with = vm_file_value(file, VM_KEY_sharing);
	int r;

	if (!check_register(d, call, in, file) || !share_resolve(d, call, *with ? with : in->sharing, &sharing) ||
		!make_config(d, call, in, file, &vc))
		return;
	vc.break_reserve_frames = policy_break_reserve_frames(vc.size_bytes / PAGE_SIZE, sharing.kind != POLICY_SHARING_OFF);
	if (!admit(d, call, &vc, file))
		return;
	r = make_client(d, &vc, &c, &p);
	if (r < 0) {
		event_tell(EVENT_VM_REFUSED, EVENT_OF(.vm = vc.name, .session = session_peer(call->session)->pid), "VM %s: refused: %s", vc.name,
			p.text[0] ? p.text : strerror(-r));
		refuse_problem(call, r, &p, vc.swap_dir);
		return;
	}
	c->peer = *session_peer(call->session);
	if (inject.twin_peer_late)
		c->peer.started = process_started(c->peer.pid);
	share_begin(c, &sharing);
	decisions_made(c, file);
	c->calls = call->session;
	session_set_userdata(call->session, c);
	session_count_apart(call->session);
	client_keep(c);
	event_tell(EVENT_VM_REGISTERED, EVENT_OF(.vm = vc.name, .session = c->peer.pid), "VM %s: registered by pid %d of user %u, %llu MiB%s%s",
		vc.name, (int)c->peer.pid, (unsigned)c->peer.uid, (unsigned long long)(vc.size_bytes >> 20), file ? ", as decided by " : "",
		file ? file->path : "");
	vm_numbers(c->vm, &numbers);
	out.token = c->token;
	out.swap_size = numbers.swap_size_bytes;
	out.page_size = PAGE_SIZE;
	snprintf(out.sharing, sizeof out.sharing, "%s", c->sharing);
	call_reply(call, &ops[OP_register], &out, NULL, 0);
}

/* ---- Attend, Done, RemoveVm ---- */

void do_attend(struct daemon *d, struct call *call, const struct op_attend_in *in)
{
	if (session_userdata(call->session)) {
		refuse(call, WIRE_ERROR_BadState, "Attend needs a connection of its own.");
		return;
	}
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (c->ending || c->token != in->token)
			continue;
		if (session_peer(call->session)->uid != c->peer.uid)
			break;
		if (c->attending || !c->calls) {
			refuse(call, WIRE_ERROR_BadState, c->attending ? "This VM has its orders connection already." :
				"The VM's calls connection comes first: Resume.");
			return;
		}
		c->attending = call->session;
		session_set_userdata(call->session, c);
		session_count_apart(call->session);
		orders_attach(c->orders, call);
		resume_end(c);
		return;
	}
	refuse(call, WIRE_ERROR_PermissionDenied, "No VM of this user has this token.");
}

void do_done(struct daemon *d, struct call *call, const struct op_done_in *in)
{
	struct client *c = session_userdata(call->session);
	struct op_done_out out;

	if (orders_done(c->orders, in->order, in->bits, in->pages) == -EINVAL) {
		if (!call->body.oneway) {
			refuse_field(call, WIRE_ERROR_InvalidParameter, "bits",
				"One bit a page of the order's runs, as hexadecimal digits; pages: of whole runs.");
			return;
		}
		event_tell(EVENT_WRONG_ANSWER, EVENT_OF(.vm = vm_config(c->vm)->name, .session = c->peer.pid),
			"VM %s: an answer to an order that is none", vm_config(c->vm)->name);
	}
	call_reply(call, &ops[OP_done], &out, NULL, 0);
}

void do_remove_vm(struct daemon *d, struct call *call, const struct op_remove_vm_in *in)
{
	struct client *c = client_find(d, in->vm);
	struct op_remove_vm_out out;

	if (!c) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	client_end(c, EVENT_VM_REMOVED, "removed by an operator");
	call_reply(call, &ops[OP_remove_vm], &out, NULL, 0);
}
