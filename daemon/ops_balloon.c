/* The balloon: what a guest's own driver says through its client library, and what an agent outside says of a balloon that
 * we do not see.  Pages are moved by the lease's worker (mem/balloon.c), in the order of the calls. */
#include "ops_client.h"
#include "ops_dispatch.h"
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A client waits ten seconds as a rule: what is not begun by then is refused, and not done behind its back. */
#define INFLATE_NS (4 * NS_PER_S)
#define HEARD_NS   (5 * NS_PER_S)
#define CLAIMS_MAX 4096

static struct client *client_of(struct call *call)
{
	return session_userdata(call->session);
}

/* ---- BalloonStart ---- */

/* Every lease's balloon is emptied, after what was under way. */
struct starting {
	struct call *call;
	struct client *client;
	unsigned left;		/* jobs, and one while they are being given out */
	bool short_of_memory;	/* not all leases have their job */
	bool failed;		/* one is not empty */
};

struct emptying {
	struct client_job job;
	struct starting *starting;
};

static void one_less(struct starting *s)
{
	struct client *c = s->client;
	struct op_balloon_start_out out;
	struct vm_balloon b;

	if (--s->left)
		return;
	if (c->ending) {
		refuse(s->call, WIRE_ERROR_BadState, "The VM ends.");
	} else if (s->short_of_memory) {
		refuse(s->call, WIRE_ERROR_System, "memctld is out of memory for this call.");
	} else if (s->failed) {
		refuse(s->call, WIRE_ERROR_BadState, "Not all pages could be taken out of the balloon: call again.");
	} else {
		c->balloon.started = true;
		c->balloon.told = false;
		vm_set_balloon_driver(c->vm);
		reclaim_poke(c->daemon->reclaim);
		client_keep(c);
		vm_get_balloon(c->vm, &b);
		out.max = b.max_frames * PAGE_SIZE;
		call_reply(s->call, &ops[OP_balloon_start], &out, NULL, 0);
	}
	free(s);
}

static void emptied(struct client_job *j)
{
	struct emptying *k = container_of(j, struct emptying, job);
	struct starting *s = k->starting;

	/* a lease that ends gives all back */
	if (j->job.r < 0 && j->job.r != -ESHUTDOWN)
		s->failed = true;
	free(k);
	one_less(s);
}

void do_balloon_start(struct daemon *d, struct call *call, const struct op_balloon_start_in *in)
{
	struct client *c = client_of(call);
	struct starting *s = calloc(1, sizeof *s);

	if (!s) {
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		return;
	}
	*s = (struct starting){ .call = call, .client = c, .left = 1 };
	for (struct lease *l = vm_first_lease(c->vm); l; l = lease_next(l)) {
		struct emptying *k = calloc(1, sizeof *k);

		if (!k) {
			s->short_of_memory = true;
			break;
		}
		k->starting = s;
		k->job.job = (struct job){ .kind = JOB_DEFLATE, .range = { 0, lease_size_bytes(l) / PAGE_SIZE } };
		k->job.finished = emptied;
		s->left++;
		/* one that is not active holds nothing, one that ends gives all back */
		if (client_submit(c, l, &k->job) < 0) {
			free(k);
			s->left--;
		}
	}
	one_less(s);
}

/* ---- BalloonInflate, BalloonDeflate ---- */

struct moving {
	struct client_job job;
	struct call *call;
	unsigned n_runs;
	uint8_t refused[OP_BALLOON_PAGES / 8];
	struct run runs[];
};

/* The runs of refused pages. */
static void write_refused(const struct moving *m, struct op_runs *ret)
{
	unsigned at = 0;

	ret->n = 0;
	for (unsigned i = 0; i < m->n_runs; i++)
		for (uint64_t page = m->runs[i].page; page < m->runs[i].page + m->runs[i].count; page++, at++) {
			struct op_run *last = ret->n ? &ret->run[ret->n - 1] : NULL;

			if (!(m->refused[at / 8] >> at % 8 & 1))
				continue;
			if (last && last->page + last->count == page)
				last->count++;
			else
				ret->run[ret->n++] = (struct op_run){ .page = page, .count = 1 };
		}
}

static void moved(struct client_job *j)
{
	struct moving *m = container_of(j, struct moving, job);
	struct op_balloon_inflate_out *out = calloc(1, sizeof *out);
	struct problem p = { 0 };

	if (j->job.r < 0) {
		refuse_problem(m->call, j->job.r, &p, NULL);
	} else if (!out) {
		refuse(m->call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	} else if (j->job.kind == JOB_DEFLATE) {
		call_reply(m->call, &ops[OP_balloon_deflate], &(struct op_balloon_deflate_out){ .pages = j->job.pages }, NULL, 0);
	} else {
		out->pages = j->job.pages;
		write_refused(m, &out->refused);
		call_reply(m->call, &ops[OP_balloon_inflate], out, NULL, 0);
	}
	free(out);
	free(m);
}

/* Whether the runs make sense for this lease; refuses the call if not. */
static bool check_runs(struct call *call, struct lease *l, const struct op_runs *runs)
{
	uint64_t end = 0, pages = 0, size = lease_size_bytes(l) / PAGE_SIZE;

	for (unsigned i = 0; i < runs->n; i++) {
		const struct op_run *r = &runs->run[i];

		if (!r->count || r->to || r->page < end) {
			refuse_field(call, WIRE_ERROR_InvalidValue, "runs",
				"runs are [page, count] with a count above 0; they ascend and do not overlap.");
			return false;
		}
		if (r->page >= size || r->count > size - r->page) {
			refuse_numbers(call, WIRE_ERROR_InvalidSize, r->page, size, "runs", "A run leaves the lease of %llu pages.",
				(unsigned long long)size);
			return false;
		}
		end = r->page + r->count;
		pages += r->count;
		if (pages > OP_BALLOON_PAGES) {
			refuse_numbers(call, WIRE_ERROR_InvalidSize, pages, OP_BALLOON_PAGES, "runs",
				"At most %d pages in one call.", OP_BALLOON_PAGES);
			return false;
		}
	}
	if (runs->n)
		return true;
	refuse_field(call, WIRE_ERROR_InvalidValue, "runs", "At least one run.");
	return false;
}

static void move(struct call *call, enum job_kind kind, uint64_t lease, const struct op_runs *runs)
{
	struct client *c = client_of(call);
	struct lease *l = call_find_lease(call, lease);
	struct moving *m;

	if (!l)
		return;
	if (!c->balloon.started) {
		refuse(call, WIRE_ERROR_BadState, "There is no balloon driver: call BalloonStart first.");
		return;
	}
	if (!check_runs(call, l, runs))
		return;
	m = calloc(1, sizeof *m + runs->n * sizeof m->runs[0]);
	if (!m) {
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
		return;
	}
	m->call = call;
	m->n_runs = runs->n;
	for (unsigned i = 0; i < runs->n; i++)
		m->runs[i] = (struct run){ runs->run[i].page, runs->run[i].count };
	m->job.finished = moved;
	m->job.job = (struct job){ .kind = kind, .runs = m->runs, .n_runs = m->n_runs, .refused = m->refused,
		.until_ns = now_ns() + INFLATE_NS, .range = { m->runs[0].page, 0 } };
	m->job.job.range.count = m->runs[runs->n - 1].page + m->runs[runs->n - 1].count - m->runs[0].page;
	if (client_submit(c, l, &m->job) < 0) {
		free(m);
		refuse(call, WIRE_ERROR_BadState, "The lease is not activated, or it is just ending.");
	}
}

void do_balloon_inflate(struct daemon *d, struct call *call, const struct op_balloon_inflate_in *in)
{
	move(call, JOB_INFLATE, in->lease, &in->runs);
}

void do_balloon_deflate(struct daemon *d, struct call *call, const struct op_balloon_deflate_in *in)
{
	move(call, JOB_DEFLATE, in->lease, &in->runs);
}

void do_balloon_poll(struct daemon *d, struct call *call, const struct op_balloon_poll_in *in)
{
	struct client *c = client_of(call);
	struct op_balloon_poll_out out;

	if (!c->balloon.started) {
		refuse(call, WIRE_ERROR_BadState, "There is no balloon driver: call BalloonStart first.");
		return;
	}
	out.target = vm_balloon_told(c->vm, false) * PAGE_SIZE;
	call_reply(call, &ops[OP_balloon_poll], &out, NULL, 0);
}

/* ---- BalloonAgent ---- */

/* What the guest uses, by its own word: all it has without what it could do without. */
static uint64_t used_bytes(const char *claims)
{
	static const struct op_field fields[] = { { "total_bytes", OP_TYPE_u64, true }, { "available_bytes", OP_TYPE_u64, true }, { 0 } };
	struct { uint64_t total, available; } values = { 0, 0 };
	struct body body;
	char text[CLAIMS_MAX + 32];
	int n = snprintf(text, sizeof text, "{\"parameters\":%s}", claims);

	if (n < 0 || (size_t)n >= sizeof text || body_parse(&body, text, (size_t)n, NULL) < 0)
		return 0;
	if (body_decode(&body, fields, false, &values, NULL) < 0)
		values.total = values.available = 0;
	body_fini(&body);
	return values.total > values.available ? values.total - values.available : 0;
}

void do_balloon_agent(struct daemon *d, struct call *call, const struct op_balloon_agent_in *in)
{
	struct client *c = client_find(d, in->vm);
	struct op_balloon_agent_out out;
	char *claims = NULL;

	if (!c || c->ending) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	if (in->claims && (in->claims[0] != '{' || strlen(in->claims) > CLAIMS_MAX)) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "claims", "claims is an object of at most %d bytes.", CLAIMS_MAX);
		return;
	}
	if (in->reachable && in->claims) {
		claims = strdup(in->claims);
		if (!claims) {
			refuse(call, WIRE_ERROR_System, "memctld is out of memory for this call.");
			return;
		}
	}
	/* it came, or went */
	if (in->reachable != (now_ns() < c->balloon.heard_until_ns))
		reclaim_poke(d->reclaim);
	free(c->balloon.claims);
	c->balloon.claims = claims;
	c->balloon.claimed_bytes = claims ? used_bytes(claims) : 0;
	c->balloon.heard_until_ns = in->reachable ? now_ns() + HEARD_NS : 0;
	vm_claim_balloon(c->vm, in->reachable ? in->size / PAGE_SIZE : 0, c->balloon.heard_until_ns);
	out.target = in->reachable ? vm_balloon_told(c->vm, true) * PAGE_SIZE : 0;
	call_reply(call, &ops[OP_balloon_agent], &out, NULL, 0);
}
