/* Calls to the daemon: one message out, one reply in.
 *
 * Replies come in the order of the calls, so whoever sends a call holds `turn` until its reply is there.  A call
 * that gave up waiting leaves its reply in the stream, where the next call would take it for its own: the
 * connection is marked out of step and refuses further calls.  It is not closed: that would end the session, and
 * with it the faults that a slow daemon may still come round to serve.
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

static int unusable(const struct memctl *m, struct memctl_error *e)
{
	if (m->plain)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE, "this is plain memory, there is no daemon: %s",
			m->plain_why);
	if (m->out_of_step)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE,
			"an earlier call was not answered in time, so this connection can make no calls any more; "
			"its leases go on being served while memctld runs");
	return 0;
}

static int lost(struct memctl *m, int r, struct memctl_error *e)
{
	m->out_of_step = true;
	if (r == -ETIMEDOUT)
		return fail(e, r, ERROR_TIMEOUT,
			"memctld did not answer within %d ms; this connection can make no calls any more",
			m->timeout_ms);
	if (r == -EMSGSIZE || r == -EBADMSG)
		return fail(e, -EPROTO, ERROR_SYSTEM, "memctld's reply cannot be understood");
	m->send_broken = true;
	note_disconnected(m);
	return fail(e, -ENOTCONN, ERROR_UNREACHABLE, "memctld is gone: %s",
		r ? strerror(-r) : "it closed the connection");
}

static int left_ms(uint64_t deadline)
{
	struct timespec t;
	uint64_t now;

	if (deadline == UINT64_MAX)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	return now >= deadline ? 0 : (int)((deadline - now + 999999) / 1000000);
}

/* Until something is to be read on the calls connection: 0, or -errno. */
static int wait_for_bytes(struct memctl *m, uint64_t deadline)
{
	bool others_turn = false;

	for (;;) {
		bool ours = !m->helper_runs && !m->disconnected && !others_turn;
		/* a negative descriptor is passed over */
		struct pollfd fds[2] = {
			{ .fd = m->calls_fd, .events = POLLIN },
			{ .fd = ours ? m->orders_fd : -1, .events = POLLIN },
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
 * any more, and threads that wait for those would wait for ever: the session ends, and with it the VM, with a reason. */
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
	return r > 0 ? 0 : lost(m, r, e);
}

/* The reply's text into *ret_body; an error reply becomes *e and its errno. */
static int understand(struct memctl *m, const struct wire_message *wire, struct body *ret_body,
	struct memctl_error *e)
{
	struct wire_error we;
	int r;

	r = body_parse(ret_body, wire->text, wire->length, NULL);
	if (r < 0)
		return lost(m, r, e);
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

int call(struct memctl *m, enum op_id id, const void *in, int fd, void *out, int *ret_fd, struct memctl_error *e)
{
	struct wire_message wire = WIRE_MESSAGE_NULL;
	const struct op *op = &ops[id];
	struct body body;
	size_t length;
	char *text;
	int r;

	r = body_write_call(&text, &length, op, in, 0);
	if (r < 0)
		return fail(e, r, ERROR_SYSTEM, "out of memory");
	pthread_mutex_lock(&m->turn);
	r = unusable(m, e);
	if (!r)
		r = exchange(m, text, length, fd, &wire, e);
	if (!r)
		r = understand(m, &wire, &body, e);
	if (!r) {
		r = body_decode(&body, op->out, false, out, NULL);
		if (r < 0)
			r = fail(e, -EPROTO, ERROR_SYSTEM, "memctld's reply to %s lacks a field", op->method);
		body_fini(&body);
	}
	if (!r && ret_fd) {
		*ret_fd = wire_take_fd(&wire, 0);
		if (*ret_fd < 0) {
			op_fields_fini(op->out, out);
			r = fail(e, -EPROTO, ERROR_SYSTEM,
				"memctld's reply to %s lacks its descriptor (out of files?)", op->method);
		}
	}
	wire_message_fini(&wire);
	pthread_mutex_unlock(&m->turn);
	free(text);
	return r;
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
	return r < 0 ? lost(m, r, NULL) : 0;
}

int memctl_call(struct memctl *m, const char *method, const char *parameters, char **ret_reply,
	struct memctl_error *e)
{
	struct wire_message wire = WIRE_MESSAGE_NULL;
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
	pthread_mutex_lock(&m->turn);
	r = unusable(m, e);
	if (!r)
		r = exchange(m, text, length, -1, &wire, e);
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
	return r;
}
