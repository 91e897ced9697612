/* Calls to the daemon: one message out, one reply in.
 *
 * Replies come in the order of the calls, so whoever sends a call holds `turn` until its reply is there.  A call
 * that gave up waiting leaves its reply in the stream, where the next call would take it for its own: the
 * connection is marked out of step and refuses further calls.  It is not closed: that would end the session, and
 * with it the VM, whose faults a slow daemon may still come round to serve.  A connection that takes its place because the
 * daemon was restarted is in step: it has a stream of its own.  (What the call that gave up did there is exact too: leases are
 * named, link.c; all else may be done twice or not at all, but pins, of which a release is the end.)
 *
 * A call whose connection ends before the reply is there was carried out, or not, or in half.  While the daemon is away calls
 * wait; then those that may be made twice are made again:
 *
 *	Advise, Discard, Populate, JoinPool, questions	once more is no harm
 *	BalloonStart, -Inflate, -Deflate	likewise: whoever asked has not been told yet, so nobody acts upon it
 *	Pin, Unpin		the same number says that it is the same call
 *	Lease, Activate		what was half done is not named to the daemon's successor, so it is undone; lease.c begins again
 *	Release			done: what is released is not named
 *	Register		connect.c: the connection's end was the end of that VM
 *	an operator's commands	fail: whether they were carried out is not known
 *
 * While a call waits, orders may come that the daemon needs carried out before it can answer: shared pages come home
 * before they are discarded or pinned.  In a program with one thread nobody else would, so the wait carries
 * orders out itself.  It takes the lock of that for one batch only, and where another thread has it, leaves the
 * orders to it: memctl_dispatch never waits for a reply. */
#include "libclient/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* How long the orders are left to a thread that is at them. */
#define OTHERS_TURN_MS 2

static int lost_before(struct memctl_error *e)
{
	fail(e, -ENOTCONN, ERROR_UNREACHABLE, "memctld was restarted meanwhile");
	return CALL_LOST;
}

/* Whether calls can still go out on the connection of this number, now or when it has come up.  Under turn. */
static bool may_be_on(const struct memctl *m, uint64_t number)
{
	if (m->link == LINK_DOWN)
		return !m->ending && m->trial.fd >= 0 && m->trial.number == number;
	return m->link == LINK_UP && m->connection == number;
}

/* Under turn: until a call can be made, on the connection of this number (0: any), at most until the deadline.  CALL_LOST: never
 * on that one. */
static int wait_until_usable(struct memctl *m, uint64_t number, uint64_t deadline, struct memctl_error *e)
{
	int r;

	if (number && !may_be_on(m, number))
		return lost_before(e);
	if (m->link == LINK_DOWN) {
		r = link_await(m, number, deadline, e);
		if (r < 0)
			return r;
	}
	if (number && (m->link != LINK_UP || m->connection != number))
		return lost_before(e);
	if (m->plain)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE, "this is plain memory, there is no daemon: %s",
			m->plain_why);
	if (m->link == LINK_LOST)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE,
			"memctld has this VM no more (%s): what is not resident is lost, and who touches it waits for ever",
			m->why_down.message);
	if (m->out_of_step)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE,
			"an earlier call was not answered in time, so this connection can make no calls any more; "
			"its leases go on being served while memctld runs");
	if (m->link == LINK_NONE && m->send_broken)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE, "memctld is gone: connect again");
	return 0;
}

/* The connection has ended.  Under turn or dispatch. */
static int lost(struct memctl *m, int r, struct memctl_error *e)
{
	m->send_broken = true;
	link_down(m);
	fail(e, -ENOTCONN, ERROR_UNREACHABLE,
		"memctld is gone: %s; whether it did what this call asked is not known",
		r ? strerror(-r) : "it closed the connection");
	return CALL_LOST;
}

/* No reply, or none that can be understood. */
static int failed(struct memctl *m, int r, struct memctl_error *e)
{
	if (r == -ETIMEDOUT) {
		m->out_of_step = true;
		return fail(e, r, ERROR_TIMEOUT,
			"memctld did not answer within %d ms; this connection can make no calls any more",
			m->timeout_ms);
	}
	if (r == -EMSGSIZE || r == -EBADMSG) {
		m->out_of_step = true;
		return fail(e, -EPROTO, ERROR_SYSTEM, "memctld's reply cannot be understood");
	}
	return lost(m, r, e);
}

static int left_ms(uint64_t deadline)
{
	uint64_t now;

	if (deadline == UINT64_MAX)
		return -1;
	now = now_ns();
	return now >= deadline ? 0 : (int)((deadline - now + 999999) / 1000000);
}

/* Until something is to be read on the calls connection: 0, or -errno. */
static int wait_for_bytes(struct memctl *m, uint64_t deadline)
{
	bool others_turn = false;

	for (;;) {
		bool ours = !m->helper_runs && m->link == LINK_UP && !others_turn;
		/* a negative descriptor is passed over */
		struct pollfd fds[2] = {
			{ .fd = m->calls_fd, .events = POLLIN },
			{ .fd = ours ? m->wait_fd : -1, .events = POLLIN },
		};
		int left = left_ms(deadline), r;

		if (!left)
			return -ETIMEDOUT;
		r = poll(fds, 2, others_turn && (left < 0 || left > OTHERS_TURN_MS) ? OTHERS_TURN_MS : left);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && fds[0].revents)
			return 0;
		others_turn = false;
		if (r > 0 && fds[1].revents)
			others_turn = orders_try(m) == -EBUSY;
	}
}

static int await(struct memctl *m, uint64_t deadline, struct wire_message *ret)
{
	int r;

	for (;;) {
		r = wire_in_next(&m->calls_in, ret);
		if (r)
			return r;
		r = wire_in_fill(&m->calls_in, m->calls_fd);
		if (r == -EAGAIN)
			r = wait_for_bytes(m, deadline);
		else if (!r)
			return 0;
		if (r < 0)
			return r;
	}
}

/* A message that went out in part has spoiled the stream for all that come after it.  Then nobody hears our answers to orders
 * any more, and threads that wait for those would wait for ever: the connection ends. */
static int send_whole(struct memctl *m, const char *text, size_t length, int fd, uint64_t deadline)
{
	int r;

	pthread_mutex_lock(&m->send);
	r = m->send_broken ? -EPIPE : wire_send(m->calls_fd, text, length, &fd, fd >= 0, deadline);
	if (r < 0 && !m->send_broken) {
		m->send_broken = true;
		shutdown(m->calls_fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&m->send);
	return r;
}

/* Send one text and receive its reply; the caller holds `turn` and sees to both. */
static int exchange(struct memctl *m, const char *text, size_t length, int fd, struct wire_message *ret,
	struct memctl_error *e)
{
	uint64_t deadline = deadline_ns(m);
	int r;

	r = send_whole(m, text, length, fd, deadline);
	if (r < 0)
		return lost(m, r, e);
	r = await(m, deadline, ret);
	return r > 0 ? 0 : failed(m, r, e);
}

/* The same, waiting until it can be done, and once more after a restart if `again`.  `on` as in call_on. */
static int exchange_in_the_end(struct memctl *m, const char *text, size_t length, int fd, bool again, uint64_t *on,
	uint64_t deadline, struct wire_message *ret, struct memctl_error *e)
{
	for (;;) {
		int r;

		r = wait_until_usable(m, on ? *on : 0, deadline, e);
		if (r)
			return r;
		if (on)
			*on = m->connection;
		r = exchange(m, text, length, fd, ret, e);
		if (r != CALL_LOST || !again || on || m->link == LINK_NONE)
			return r;
	}
}

/* The reply's text into *ret_body; an error reply becomes *e and its errno. */
static int understand(struct memctl *m, const struct wire_message *wire, struct body *ret_body,
	struct memctl_error *e)
{
	struct wire_error we;
	int r;

	r = body_parse(ret_body, wire->text, wire->length, NULL);
	if (r < 0)
		return failed(m, r, e);
	if (!ret_body->error)
		return 0;
	body_error(ret_body, &we);
	body_fini(ret_body);
	r = -wire_error_errno(we.id);
	fail(e, r, we.name, "%s", we.message);
	if (e) {
		e->need = we.need;
		e->have = we.have;
	}
	return r;
}

/* Whether it may be made twice. */
static bool is_repeatable(enum op_id id)
{
	switch (id) {
	case OP_join_pool:
	case OP_balloon_start:
	case OP_balloon_inflate:
	case OP_balloon_deflate:
	case OP_balloon_poll:
	case OP_advise:
	case OP_discard:
	case OP_populate:
	case OP_pin:
	case OP_unpin:
	case OP_status:
	case OP_list_vms:
	case OP_show_vm:
	case OP_explain:
	case OP_events:
	case OP_fault_times:
	case OP_page_map:
	case OP_audit:
	case OP_share_groups:
	case OP_share_top:
	case OP_show_config:
	case OP_history:
	case OP_history_vms:
	case OP_plans:
	case OP_catalogue:
		return true;
	default:
		return false;
	}
}

/* Under turn, so that numbers go out in their order. */
static int write_call(struct memctl *m, char **ret_text, size_t *ret_length, enum op_id id, const void *in)
{
	struct op_pin_in pin;

	if (id == OP_pin || id == OP_unpin) {
		memcpy(&pin, in, sizeof pin);
		pin.call = ++m->calls_made;
		in = &pin;
	}
	return body_write_call(ret_text, ret_length, &ops[id], in, 0);
}

_Static_assert(sizeof(struct op_pin_in) == sizeof(struct op_unpin_in), "Pin and Unpin differ");

/* The reply's fields into *out, its descriptor into *ret_fd. */
static int read_reply(const struct op *op, const struct body *body, struct wire_message *wire, void *out, int *ret_fd,
	struct memctl_error *e)
{
	int r = body_decode(body, op->out, false, out, NULL);

	if (r < 0)
		return fail(e, -EPROTO, ERROR_SYSTEM, "memctld's reply to %s lacks a field", op->method);
	if (!ret_fd)
		return 0;
	*ret_fd = wire_take_fd(wire, 0);
	if (*ret_fd >= 0)
		return 0;
	op_fields_fini(op->out, out);
	return fail(e, -EPROTO, ERROR_SYSTEM, "memctld's reply to %s lacks its descriptor (out of files?)", op->method);
}

static int call_until(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, uint64_t *on,
	uint64_t deadline, struct memctl_error *e)
{
	struct wire_message wire = WIRE_MESSAGE_NULL;
	struct body body;
	size_t length;
	char *text;
	int r;

	r = write_call(m, &text, &length, id, in);
	if (r < 0)
		return fail(e, r, ERROR_SYSTEM, "out of memory");
	r = exchange_in_the_end(m, text, length, fd, is_repeatable(id), on, deadline, &wire, e);
	if (!r)
		r = understand(m, &wire, &body, e);
	if (!r) {
		r = read_reply(&ops[id], &body, &wire, out, ret_fd, e);
		body_fini(&body);
	}
	wire_message_fini(&wire);
	free(text);
	return r;
}

int call_in_turn(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, uint64_t *on,
	struct memctl_error *e)
{
	return call_until(m, id, in, fd, out, ret_fd, on, deadline_ns(m), e);
}

int call_on(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, uint64_t *on,
	struct memctl_error *e)
{
	uint64_t deadline = deadline_ns(m);
	int r;

	pthread_mutex_lock(&m->turn);
	r = call_until(m, id, in, fd, out, ret_fd, on, deadline, e);
	pthread_mutex_unlock(&m->turn);
	return r;
}

int call(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, struct memctl_error *e)
{
	int r = call_on(m, id, in, fd, out, ret_fd, NULL, e);

	return r == CALL_LOST ? -ENOTCONN : r;
}

int call_oneway(struct memctl *m, enum op_id id, const void *in)
{
	size_t length;
	char *text;
	int r;

	/* out of step or not: what nobody replies to can be said all the same, and a guest may wait for it */
	if (m->plain || m->send_broken)
		return -ENOTCONN;
	r = body_write_call(&text, &length, &ops[id], in, CALL_ONEWAY);
	if (r < 0)
		return r;
	r = send_whole(m, text, length, -1, deadline_ns(m));
	free(text);
	if (r < 0)
		lost(m, r, NULL);
	return r;
}

static bool is_question(const char *method)
{
	const struct op *op = op_find(method);

	return op && op->class != OP_CLASS_CLIENT && is_repeatable((enum op_id)(op - ops));
}

int memctl_call(struct memctl *m, const char *method, const char *parameters, char **ret_reply,
	struct memctl_error *e)
{
	struct wire_message wire = WIRE_MESSAGE_NULL;
	uint64_t deadline;
	struct body body;
	char *text, *reply;
	size_t length;
	int r;

	if (!m || !method || !ret_reply)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_call: a NULL argument");
	r = body_write_call_raw(&text, &length, method, parameters, 0);
	if (r == -EBADMSG)
		return fail(e, -EINVAL, ERROR_INVALID, "the parameters of %s are not one JSON object", method);
	if (r < 0)
		return fail(e, r, ERROR_SYSTEM, "out of memory");
	deadline = deadline_ns(m);
	pthread_mutex_lock(&m->turn);
	r = exchange_in_the_end(m, text, length, -1, is_question(method), NULL, deadline, &wire, e);
	if (!r)
		r = understand(m, &wire, &body, e);
	if (!r) {
		reply = body_parameters(&body);
		if (reply)
			*ret_reply = reply;
		else
			r = fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
		body_fini(&body);
	}
	wire_message_fini(&wire);
	pthread_mutex_unlock(&m->turn);
	free(text);
	return r == CALL_LOST ? -ENOTCONN : r;
}
