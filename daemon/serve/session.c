#include "serve/internal.h"

#include "base/events.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* So many calls, and bytes of them, may wait behind one that takes long; then the peer's bytes stay in the kernel. */
#define WAITING_MAX	  64
#define WAITING_BYTES_MAX (128u << 10)
/* What a call, and the room for a half-sent one, may take besides for nothing, and what all sessions of a user may take beyond that.
 * Two hundred of the longest calls that the library makes are in it; a user's thousand half-sent ones are not. */
#define HELD_FREE	  (64u << 10)
#define USER_HELD_MAX	  (32u << 20)
/* With this part of what may wait for the peer, its next call waits too. */
#define OUT_PART	  64

struct chunk {
	struct list link;
	char *text;
	size_t length, sent;	/* length counts the NUL */
	int fds[WIRE_FDS_MAX];
	unsigned n_fds;
};

static void chunk_free(struct chunk *k)
{
	list_remove(&k->link);
	for (unsigned i = 0; i < k->n_fds; i++)
		close(k->fds[i]);
	free(k->text);
	free(k);
}

/* Sets what `*held` has on the user's account.  false: there is no room for more. */
static bool hold(struct user *u, size_t *held, size_t bytes)
{
	if (bytes > *held && u->held - *held + bytes > USER_HELD_MAX)
		return false;
	u->held += bytes - *held;
	*held = bytes;
	return true;
}

void call_was_read(struct call *c)
{
	body_drop(&c->body);
	if (c->held)
		hold(c->session->user, &c->held, 0);
}

static void call_free(struct call *c)
{
	list_remove(&c->link);
	/* without a session nothing is held any more */
	if (c->held)
		hold(c->session->user, &c->held, 0);
	wire_message_fini(&c->message);
	body_fini(&c->body);
	free(c);
}

static void torn_down(struct post *p)
{
	session_free(container_of(p, struct session, post));
}

void session_close(struct session *s)
{
	if (s->dead)
		return;
	s->dead = true;
	loop_post(s->server->loop, &s->post, torn_down);
}

void session_free(struct session *s)
{
	/* reached by server_free with a post under way: the loop must not meet it again */
	s->dead = true;
	watch_free(s->watch);
	s->watch = NULL;
	close(s->fd);
	list_remove(&s->link);
	list_remove(&s->turn);
	if (s->current) {
		hold(s->user, &s->current->held, 0);
		s->current->session = NULL;
	}
	s->current = NULL;
	while (!list_empty(&s->waiting))
		call_free(container_of(s->waiting.next, struct call, link));
	while (!list_empty(&s->out))
		chunk_free(container_of(s->out.next, struct chunk, link));
	wire_in_fini(&s->in);
	hold(s->user, &s->held, 0);
	s->server->events.closed(s, s->server->events.userdata);
	server_user_less(s->server, s->user, s->apart);
	free(s);
}

static bool is_full(const struct session *s)
{
	return s->n_waiting >= WAITING_MAX || s->waiting_bytes >= WAITING_BYTES_MAX;
}

/* What we want to hear of: closing always; bytes unless enough calls wait; room if replies wait. */
static void watch_again(struct session *s)
{
	unsigned events = LOOP_CLOSED;

	if (s->dead)
		return;
	if (!s->deaf && !s->over && !s->draining && !is_full(s))
		events |= LOOP_READ;
	if (!list_empty(&s->out))
		events |= LOOP_WRITE;
	if (events == s->watched)
		return;
	if (watch_set(s->watch, events) < 0)
		session_close(s);
	s->watched = events;
}

static void flush(struct session *s)
{
	while (!s->dead && !list_empty(&s->out)) {
		struct chunk *k = container_of(s->out.next, struct chunk, link);
		int n = wire_send_some(
			s->fd, k->text + k->sent, k->length - k->sent, k->fds, k->sent ? 0 : k->n_fds);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			session_close(s);
			return;
		}
		k->sent += (size_t)n;
		s->out_bytes -= (size_t)n;
		if (k->sent == k->length)
			chunk_free(k);
	}
	if (s->draining && list_empty(&s->out))
		session_close(s);
}

/* The end, when the replies are out.  A peer that has closed its other direction too is told by the next flush. */
static void drain(struct session *s)
{
	s->draining = true;
	flush(s);
}

/* Takes text and descriptors. */
static void send_text(struct session *s, char *text, size_t length, const int *fds, unsigned n_fds)
{
	struct chunk *k = calloc(1, sizeof *k);

	/* what waits already decides: one reply may be longer than the cap */
	if (!k || s->dead || s->out_bytes > s->server->config.output_max_bytes) {
		if (k && !s->dead)
			event_tell(EVENT_SESSION_DROPPED, EVENT_OF(.session = s->peer.pid),
				"session of pid %d: disconnected, it does not read its replies (%zu bytes wait)", (int)s->peer.pid,
				s->out_bytes);
		for (unsigned i = 0; i < n_fds; i++)
			close(fds[i]);
		free(text);
		free(k);
		session_close(s);
		return;
	}
	k->text = text;
	k->length = length + 1;
	k->n_fds = n_fds;
	if (n_fds > 0)
		memcpy(k->fds, fds, n_fds * sizeof *fds);
	list_append(&s->out, &k->link);
	s->out_bytes += k->length;
	flush(s);
	watch_again(s);
}

static bool may_hand_out(const struct session *s)
{
	return !s->dead && !s->draining && !s->current && !list_empty(&s->waiting) &&
		s->out_bytes <= s->server->config.output_max_bytes / OUT_PART;
}

/* To be called when any of it may have changed. */
static void look_for_calls(struct session *s)
{
	if (may_hand_out(s))
		server_ready(s);
}

/* Ends a call with text (NULL: memory ran out), which is taken. */
static void answer(struct call *c, char *text, size_t length, const int *fds, unsigned n_fds)
{
	struct session *s = c->session;

	if (s && !c->body.oneway && text) {
		send_text(s, text, length, fds, n_fds);
	} else {
		for (unsigned i = 0; i < n_fds; i++)
			close(fds[i]);
		free(text);
		if (s && !c->body.oneway)
			session_close(s);
	}
	if (s && c->bad.id != WIRE_ERROR_NONE)
		drain(s);
	if (s && s->current == c)
		s->current = NULL;
	call_free(c);
	if (s)
		look_for_calls(s);
}

void call_reply(struct call *c, const struct op *op, const void *out, const int *fds, unsigned n_fds)
{
	char *text = NULL;
	size_t length = 0;

	body_write_reply(&text, &length, op, out, false);
	answer(c, text, length, fds, n_fds);
}

void call_reply_raw(struct call *c, const char *parameters)
{
	char *text = NULL;
	size_t length = 0;

	body_write_reply_raw(&text, &length, parameters);
	answer(c, text, length, NULL, 0);
}

void call_fail(struct call *c, const struct wire_error *e)
{
	char *text = NULL;
	size_t length = 0;

	body_write_error(&text, &length, e);
	answer(c, text, length, NULL, 0);
}

void call_done(struct call *c)
{
	assert(c->body.oneway || !c->session);
	answer(c, NULL, 0, NULL, 0);
}

void call_continue(struct call *c, const struct op *op, const void *out)
{
	char *text = NULL;
	size_t length = 0;

	if (!c->session)
		return;
	if (body_write_reply(&text, &length, op, out, true) < 0)
		session_close(c->session);
	else
		send_text(c->session, text, length, NULL, 0);
}

static struct call *call_new(struct session *s)
{
	struct call *c = calloc(1, sizeof *c);

	if (!c) {
		session_close(s);
		return NULL;
	}
	list_init(&c->link);
	c->session = s;
	c->message = (struct wire_message)WIRE_MESSAGE_NULL;
	return c;
}

static void enqueue(struct session *s, struct call *c)
{
	list_append(&s->waiting, &c->link);
	s->n_waiting++;
	s->waiting_bytes += c->weight;
}

/* A bad message is answered in its turn, and then that is the end of the session. */
static void enqueue_bad(struct session *s, const char *why)
{
	struct call *c = call_new(s);

	if (!c)
		return;
	wire_error_set(&c->bad, WIRE_ERROR_InvalidParameter, "%s", why);
	enqueue(s, c);
}

static void stop_reading(struct session *s)
{
	s->deaf = true;
	wire_in_fini(&s->in);
	hold(s->user, &s->held, 0);
}

/* Where the next message begins is not known any more. */
static void lose_framing(struct session *s)
{
	char why[64];

	snprintf(why, sizeof why, "The message is longer than %zu KiB.", s->in.max >> 10);
	stop_reading(s);
	enqueue_bad(s, why);
}

static void set_too_much(struct wire_error *ret)
{
	ret->need = USER_HELD_MAX + 1;
	ret->have = USER_HELD_MAX;
	wire_error_set(ret, WIRE_ERROR_LimitReached, "Long calls of one user may take %u MiB of memctld's memory at once; call again when others "
		"have been answered.", USER_HELD_MAX >> 20);
}

/* What the buffer takes beyond its first size is on the user's account; if there is no room that is the end of the session. */
static void account_for_buffer(struct session *s)
{
	struct call *c;

	if (s->server->config.unweighed || hold(s->user, &s->held, s->in.capacity > HELD_FREE ? s->in.capacity - HELD_FREE : 0))
		return;
	stop_reading(s);
	c = call_new(s);
	if (!c)
		return;
	set_too_much(&c->bad);
	enqueue(s, c);
}

/* What it takes is known before it is parsed. */
static bool is_bearable(struct session *s, const struct wire_message *m, struct call *c)
{
	c->weight = body_weight(m->text, m->length);
	if (s->server->config.unweighed)
		return true;
	if (c->weight > BODY_WEIGHT_MAX)
		wire_error_set(&c->bad, WIRE_ERROR_InvalidParameter, "The message has too many values.");
	else if (c->weight > HELD_FREE && !hold(s->user, &c->held, c->weight))
		set_too_much(&c->bad);
	if (c->bad.id == WIRE_ERROR_NONE)
		return true;
	c->weight = 0;
	return false;
}

static void take_message(struct session *s, struct wire_message *m)
{
	struct body_fault fault = { 0 };
	struct call *c;
	int r;

	c = call_new(s);
	if (!c) {
		wire_message_fini(m);
		return;
	}
	c->message = *m;
	c->message.text = NULL;
	if (!is_bearable(s, m, c)) {
		enqueue(s, c);
		return;
	}
	r = body_parse(&c->body, m->text, m->length, &fault);
	if (r == -ENOMEM) {
		call_free(c);
		session_close(s);
		return;
	}
	if (r == 0 && !c->body.method)
		snprintf(fault.text, sizeof fault.text, "A call needs a \"method\".");
	if (r < 0 || !c->body.method) {
		wire_error_set(&c->bad, WIRE_ERROR_InvalidParameter, "%s", fault.text);
		snprintf(c->bad.field, sizeof c->bad.field, "%s", fault.field);
		/* a bad message is answered even if it asks not to be */
		c->body.oneway = false;
	} else if (c->body.oneway && s->refusal == REFUSED_NOT &&
		s->server->events.urgent(c, s->server->events.userdata)) {
		s->server->events.call(c, s->server->events.userdata);
		return;
	}
	enqueue(s, c);
}

/* Calls from the bytes that are there, until enough wait.  So where there is room for more, there is no whole message. */
static void take_some(struct session *s)
{
	struct wire_message m;
	int r = 0;

	while (!s->dead && !s->deaf && !s->draining && !is_full(s) && (r = wire_in_next(&s->in, &m)) > 0)
		take_message(s, &m);
	if (r < 0)
		lose_framing(s);
	wire_in_trim(&s->in);
	account_for_buffer(s);
}

static void refuse_session(struct call *c)
{
	const struct server_config *config = &c->session->server->config;
	bool of_user = c->session->refusal == REFUSED_OF_USER;
	struct wire_error e = { .have = of_user ? config->sessions_per_uid : config->sessions_max };

	e.need = e.have + 1;
	if (of_user)
		wire_error_set(&e, WIRE_ERROR_LimitReached, "A user may have %u connections to this socket of memctld beside those of VMs; all are "
			"in use%s.", config->sessions_per_uid, config->no_descriptors ? "" : ": close some, or raise max_sessions_per_user");
	else
		wire_error_set(&e, WIRE_ERROR_LimitReached, "This socket of memctld serves %u connections at once; all are in use.",
			config->sessions_max);
	call_fail(c, &e);
}

/* What was sent before the peer hung up still counts, unless it is behind a call that takes long; and who has only ended
 * its own direction gets its replies. */
static void end_if_over(struct session *s)
{
	if ((s->over || s->hung_up) && s->current)
		session_close(s);
	else if (s->over && list_empty(&s->waiting))
		drain(s);
}

static void hand_out(struct session *s)
{
	struct call *c;

	c = container_of(s->waiting.next, struct call, link);
	list_remove(&c->link);
	s->n_waiting--;
	s->waiting_bytes -= c->weight;
	s->current = c;
	if (c->bad.id != WIRE_ERROR_NONE)
		call_fail(c, &c->bad);
	else if (s->refusal != REFUSED_NOT)
		refuse_session(c);
	else
		s->server->events.call(c, s->server->events.userdata);
	take_some(s);
	end_if_over(s);
}

static void read_some(struct session *s)
{
	int got = wire_in_fill(&s->in, s->fd);

	if (got == -EAGAIN)
		return;
	if (got == -EMSGSIZE)
		lose_framing(s);
	else
		take_some(s);
	if (got <= 0 && got != -EMSGSIZE) {
		s->over = true;
		end_if_over(s);
	}
}

void session_take_turn(struct session *s)
{
	bool readable = s->readable;

	s->readable = false;
	if (readable && !s->dead && s->watched & LOOP_READ)
		read_some(s);
	if (may_hand_out(s))
		hand_out(s);
	look_for_calls(s);
	watch_again(s);
}

static void session_ready(unsigned events, void *userdata)
{
	struct session *s = userdata;

	if (s->dead)
		return;
	/* also tells whether a peer that has hung up still reads */
	if (events & (LOOP_WRITE | LOOP_CLOSED))
		flush(s);
	if (events & LOOP_READ && s->watched & LOOP_READ) {
		s->readable = true;
		server_ready(s);
	} else if (events & LOOP_CLOSED) {
		s->hung_up = true;
		if (list_empty(&s->waiting) && !s->current)
			drain(s);
		else
			end_if_over(s);
	}
	look_for_calls(s);
	watch_again(s);
}

int session_new(struct server *server, int fd, const struct session_peer *peer, enum refusal refusal)
{
	struct session *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->server = server;
	s->fd = fd;
	s->peer = *peer;
	s->refusal = refusal;
	list_init(&s->link);
	list_init(&s->turn);
	list_init(&s->waiting);
	list_init(&s->out);
	wire_in_init(&s->in, server->config.message_max_bytes);
	s->in.no_fds = server->config.no_descriptors;
	s->watched = LOOP_READ | LOOP_CLOSED;
	s->user = server_user(server, peer->uid);
	r = s->user ? loop_watch(server->loop, fd, s->watched, session_ready, s, &s->watch) : -ENOMEM;
	if (r < 0) {
		if (s->user)
			server_user_less(server, s->user, false);
		free(s);
		return r;
	}
	list_append(&server->sessions, &s->link);
	return 0;
}

void session_count_apart(struct session *s)
{
	if (s->apart || s->server->config.none_apart)
		return;
	s->apart = true;
	s->user->n_apart++;
}

bool session_is_taken(const struct session *s)
{
	return list_empty(&s->out);
}

const struct server *session_server(const struct session *s)
{
	return s->server;
}

const struct session_peer *session_peer(const struct session *s)
{
	return &s->peer;
}

int session_fd(const struct session *s)
{
	return s->fd;
}

void session_set_userdata(struct session *s, void *userdata)
{
	s->userdata = userdata;
}

void *session_userdata(const struct session *s)
{
	return s->userdata;
}
