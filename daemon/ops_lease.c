/* Leases: made and activated on the control thread; everything that touches pages is a job of the lease's
 * worker, and its call is answered when the job comes back. */
#include "ops_client.h"
#include "ops_dispatch.h"
#include "ops_resume.h"


#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct client *client_of(struct call *call)
{
	return session_userdata(call->session);
}

struct lease *call_find_lease(struct call *call, uint64_t id)
{
	struct lease *l = id <= UINT32_MAX ? vm_find_lease(client_of(call)->vm, (uint32_t)id) : NULL;
	struct wire_error e = { .lease = id };

	if (!l) {
		wire_error_set(&e, WIRE_ERROR_NoSuchLease, NULL);
		call_fail(call, &e);
	}
	return l;
}

static bool check_aligned(struct call *call, const char *field, uint64_t value, bool zero_is_fine)
{
	if (value % PAGE_SIZE == 0 && (value || zero_is_fine))
		return true;
	refuse_numbers(call, WIRE_ERROR_InvalidSize, value, PAGE_SIZE, field,
		"%s must be a multiple of 4096%s.", field, zero_is_fine ? "" : " and not zero");
	return false;
}

void do_lease(struct daemon *d, struct call *call, const struct op_lease_in *in)
{
	struct client *c = client_of(call);
	struct op_lease_out out = { 0 };
	struct problem p = { 0 };
	struct lease *l;
	uint64_t n = 0;
	int fd, r;

	if (!check_aligned(call, "gpa", in->gpa, true) || !check_aligned(call, "size", in->size, false))
		return;
	if (in->gpa + in->size > INT64_MAX) {
		refuse_numbers(call, WIRE_ERROR_InvalidSize, in->size, INT64_MAX - in->gpa, "size",
			"gpa + size is beyond 2^63.");
		return;
	}
	if (resume_holds_lease(c, call, in->gpa, in->size))
		return;
	for (l = vm_first_lease(c->vm); l; l = lease_next(l))
		n++;
	if (n >= (uint64_t)d->config.max_leases_per_vm) {
		refuse_numbers(call, WIRE_ERROR_LimitReached, n + 1, (uint64_t)d->config.max_leases_per_vm,
			NULL, "This VM has max_leases_per_vm = %lld leases.",
			(long long)d->config.max_leases_per_vm);
		return;
	}
	r = lease_new(&l, c->vm, in->gpa, in->size, &p);
	if (r < 0) {
		refuse_problem(call, r, &p, NULL);
		return;
	}
	fd = fcntl(lease_fd(l), F_DUPFD_CLOEXEC, 3);
	if (fd < 0) {
		r = problem_errno(&p, "no descriptor for the lease's memory");
		lease_free(l);
		refuse_problem(call, r, &p, NULL);
		return;
	}
	out.lease = lease_id(l);
	call_reply(call, &ops[OP_lease], &out, &fd, 1);
}

void do_activate(struct daemon *d, struct call *call, const struct op_activate_in *in)
{
	struct client *c = client_of(call);
	struct lease *l = call_find_lease(call, in->lease);
	struct op_activate_out out;
	struct problem p = { 0 };
	int r;

	if (!l || !check_aligned(call, "address", in->address, false))
		return;
	r = lease_activate(l, wire_take_fd(&call->message, 0), in->address, &p);
	if (r < 0) {
		refuse_problem(call, r, &p, NULL);
		return;
	}
	c->activated = true;
	c->user_mode_only = in->user_mode_only;
	client_keep(c);
	call_reply(call, &ops[OP_activate], &out, NULL, 0);
}

/* ---- jobs ---- */

/* A job that answers a call. */
struct work {
	struct client_job job;
	struct call *call;
	struct lease *lease;	/* Release only */
	const struct op *op;
};

static void work_finished(struct client_job *j)
{
	struct work *w = container_of(j, struct work, job);
	struct op_discard_out out = { .pages = j->job.pages };
	struct problem p = { 0 };

	if (j->job.r < 0) {
		if (j->job.r == -ENOMEM && j->job.kind == JOB_PIN)
			problem_set(&p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, j->job.range.count * PAGE_SIZE,
				j->client->vm ? vm_config(j->client->vm)->reservation_bytes : 0,
				"The pinned pages of a VM add up to its reservation at most; nothing was "
				"pinned.");
		refuse_problem(w->call, j->job.r, &p, NULL);
	} else {
		/* the outputs of all these are the number of pages, or nothing */
		call_reply(w->call, w->op, &out, NULL, 0);
	}
	free(w);
}

static void release_finished(struct client_job *j)
{
	struct work *w = container_of(j, struct work, job);

	/* when the VM ends too, vm_free takes the lease with it */
	if (!j->client->ending)
		lease_free(w->lease);
	work_finished(j);
}

static void submit(struct call *call, struct lease *l, enum op_id op, enum job_kind kind, struct run range, uint64_t number)
{
	struct work *w = calloc(1, sizeof *w);
	int r;

	if (!w) {
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		return;
	}
	w->call = call;
	w->lease = l;
	w->op = &ops[op];
	w->job.job.kind = kind;
	w->job.job.range = range;
	w->job.job.call = number;
	w->job.finished = kind == JOB_RELEASE ? release_finished : work_finished;
	r = client_submit(client_of(call), l, &w->job);
	if (r < 0) {
		free(w);
		if (r == -EINVAL)
			refuse_numbers(call, WIRE_ERROR_InvalidSize, (range.page + range.count) * PAGE_SIZE,
				lease_size_bytes(l), "length", "The range leaves the lease.");
		else
			refuse(call, WIRE_ERROR_BadState,
				"The lease is not activated, or it is just ending.");
	}
}

/* `number`: the client's, of this call; 0: none. */
static void submit_range(struct call *call, enum op_id op, enum job_kind kind, const struct op_discard_in *in, uint64_t number)
{
	struct lease *l = call_find_lease(call, in->lease);

	if (!l || !check_aligned(call, "offset", in->offset, true) ||
		!check_aligned(call, "length", in->length, false))
		return;
	submit(call, l, op, kind, (struct run){ in->offset / PAGE_SIZE, in->length / PAGE_SIZE }, number);
}

void do_discard(struct daemon *d, struct call *call, const struct op_discard_in *in)
{
	submit_range(call, OP_discard, JOB_DISCARD, in, 0);
}

/* The inputs of the range operations are one macro (OP_range_IN), so their structs are alike. */
void do_populate(struct daemon *d, struct call *call, const struct op_populate_in *in)
{
	submit_range(call, OP_populate, JOB_POPULATE,
		&(struct op_discard_in){ in->lease, in->offset, in->length }, 0);
}

void do_pin(struct daemon *d, struct call *call, const struct op_pin_in *in)
{
	submit_range(call, OP_pin, JOB_PIN, &(struct op_discard_in){ in->lease, in->offset, in->length }, in->call);
}

void do_unpin(struct daemon *d, struct call *call, const struct op_unpin_in *in)
{
	submit_range(call, OP_unpin, JOB_UNPIN, &(struct op_discard_in){ in->lease, in->offset, in->length }, in->call);
}

void do_advise(struct daemon *d, struct call *call, const struct op_advise_in *in)
{
	struct op_discard_in range = { in->lease, in->offset, in->length };

	if (strcmp(in->advice, "will_need") == 0)
		submit_range(call, OP_advise, JOB_WILL_NEED, &range, 0);
	else if (strcmp(in->advice, "dont_need") == 0)
		submit_range(call, OP_advise, JOB_DONT_NEED, &range, 0);
	else
		refuse_field(
			call, WIRE_ERROR_InvalidValue, "advice", "advice is \"will_need\" or \"dont_need\".");
}

void do_release(struct daemon *d, struct call *call, const struct op_release_in *in)
{
	struct lease *l = call_find_lease(call, in->lease);

	if (l)
		submit(call, l, OP_release, JOB_RELEASE, (struct run){ 0, lease_size_bytes(l) / PAGE_SIZE }, 0);
}
