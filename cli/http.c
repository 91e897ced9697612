/* evhttp, and what it has no limits for.
 *
 * evhttp bounds the size of a request, but neither how many connections there are nor how long a request may take: its timeout
 * begins anew with each byte.  So each connection has a record here.  evhttp asks us for the bufferevent of a new connection, of
 * which we keep a reference; when evhttp gives it up, it has no callbacks any more.  That is looked at after each turn of the loop,
 * and the last reference closes the socket.  We end a connection by shutting its socket down, nothing else: evhttp sees the end of
 * the stream and cleans up in its own way, so none of its objects is freed behind its back.
 *
 *	asking		its request is not complete; ask_s, then it is ended
 *	waiting		its request is the caller's; bounded by the caller.  evhttp does not read meanwhile
 *	hearing		its answer is under way; hear_s, then it is ended
 *
 * A full house ends who has been asking longest, or else hearing longest: so whoever opens connections and says nothing, or reads
 * slowly, does not keep a scraper out, which needs milliseconds.  Those that wait are not ended; they are bounded by stopping to
 * accept at twice the limit.
 *
 * One request a connection ("Connection: close"): what is sent behind it is not looked at, and no connection is kept for later. */
#include "cli/http.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES_MAX 8192
#define LISTENERS_MAX  16

enum state { ASKING, WAITING, HEARING, ENDED };

/* A connection, and the one request that it is for. */
struct http_request {
	struct http *h;
	struct http_request *next;	/* newer ones */
	struct evhttp_request *request;	/* while it waits */
	struct bufferevent *bev;	/* a reference */
	struct event *deadline;
	enum state state;
};

struct http {
	struct http_limits limits;
	struct http_calls calls;
	struct event_base *base;
	struct evhttp *evhttp;
	struct event *wake, *term, *interrupt, *idle;
	int wake_fd;
	bool done;
	struct evconnlistener *listeners[LISTENERS_MAX];
	unsigned n_listeners, n;
	struct http_request *oldest;
};

/* ---- texts */

struct http_text *http_text_new(const char *type, char *data, size_t bytes)
{
	struct http_text *t = malloc(sizeof *t);

	if (!t) {
		free(data);
		return NULL;
	}
	*t = (struct http_text){ 1, type, bytes, data };
	return t;
}

struct http_text *http_text_ref(struct http_text *t)
{
	t->refs++;
	return t;
}

struct http_text *http_text_unref(struct http_text *t)
{
	if (t && --t->refs == 0) {
		free(t->data);
		free(t);
	}
	return NULL;
}

static void drop_text(const void *data, size_t bytes, void *userdata)
{
	(void)data;
	(void)bytes;
	http_text_unref(userdata);
}

/* ---- connections */

static struct timeval span(double seconds)
{
	return (struct timeval){ (time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6) };
}

static void accept_more(struct http *h, bool more)
{
	for (unsigned i = 0; i < h->n_listeners; i++)
		if (more)
			evconnlistener_enable(h->listeners[i]);
		else
			evconnlistener_disable(h->listeners[i]);
}

static void end(struct http_request *c)
{
	c->state = ENDED;
	shutdown(bufferevent_getfd(c->bev), SHUT_RDWR);
}

static void be_late(evutil_socket_t fd, short what, void *userdata)
{
	(void)fd;
	(void)what;
	end(userdata);
}

static void set_state(struct http_request *c, enum state state)
{
	const struct timeval ask = span(c->h->limits.ask_s), hear = span(c->h->limits.hear_s);

	if (c->state == ENDED)
		return;
	c->state = state;
	if (state == WAITING)
		event_del(c->deadline);
	else
		event_add(c->deadline, state == ASKING ? &ask : &hear);
}

static void rest(struct http *h)
{
	const struct timeval idle = span(h->limits.idle_s);

	if (h->limits.idle_s > 0)
		event_add(h->idle, &idle);
}

static bool given_up(const struct http_request *c)
{
	bufferevent_event_cb ends = NULL;

	bufferevent_getcb(c->bev, NULL, NULL, &ends, NULL);
	return !ends;
}

/* After each turn: those that evhttp is through with are closed. */
static void sweep(struct http *h)
{
	struct http_request **at = &h->oldest, *c;

	if (!h->oldest)
		return;
	while ((c = *at)) {
		if (!given_up(c)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		h->n--;
		bufferevent_decref(c->bev);
		event_free(c->deadline);
		free(c);
		accept_more(h, true);
	}
	if (!h->n)
		rest(h);
}

static void make_room(struct http *h)
{
	static const enum state order[] = { ASKING, HEARING };

	for (unsigned i = 0; i < 2; i++)
		for (struct http_request *c = h->oldest; c; c = c->next)
			if (c->state == order[i]) {
				end(c);
				return;
			}
}

static unsigned count_open(const struct http *h)
{
	unsigned n = 0;

	for (const struct http_request *c = h->oldest; c; c = c->next)
		n += c->state != ENDED;
	return n;
}

/* NULL: no memory; evhttp then makes a bufferevent of its own, which has no record, and is refused at its request. */
static struct bufferevent *meet(struct event_base *base, void *userdata)
{
	struct http *h = userdata;
	struct http_request *c = calloc(1, sizeof *c), **last = &h->oldest;

	if (!c)
		return NULL;
	c->h = h;
	c->bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	c->deadline = evtimer_new(base, be_late, c);
	if (!c->bev || !c->deadline) {
		if (c->bev)
			bufferevent_free(c->bev);
		if (c->deadline)
			event_free(c->deadline);
		free(c);
		return NULL;
	}
	bufferevent_incref(c->bev);
	if (count_open(h) >= h->limits.connections)
		make_room(h);
	while (*last)
		last = &(*last)->next;
	*last = c;
	event_del(h->idle);
	if (++h->n >= 2 * h->limits.connections)
		accept_more(h, false);
	set_state(c, ASKING);
	return c->bev;
}

/* ---- requests */

static struct http_request *find(struct http *h, struct evhttp_request *request)
{
	struct bufferevent *b = evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	struct http_request *c = h->oldest;

	while (c && c->bev != b)
		c = c->next;
	return c;
}

static void be_asked(struct evhttp_request *request, void *userdata)
{
	struct http *h = userdata;
	struct http_request *c = find(h, request);

	evhttp_add_header(evhttp_request_get_output_headers(request), "Connection", "close");
	if (!c) {
		evhttp_send_error(request, HTTP_SERVUNAVAIL, NULL);
		return;
	}
	c->request = request;
	set_state(c, WAITING);
	h->calls.asked(c, h->calls.userdata);
}

enum http_method http_method(const struct http_request *r)
{
	switch (evhttp_request_get_command(r->request)) {
	case EVHTTP_REQ_GET:
		return HTTP_METHOD_GET;
	case EVHTTP_REQ_HEAD:
		return HTTP_METHOD_HEAD;
	default:
		return HTTP_METHOD_OTHER;
	}
}

const char *http_path(const struct http_request *r)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r->request);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;

	return path ? path : "";
}

const char *http_header(const struct http_request *r, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(r->request), name);
}

/* Content-Length is said here, because evhttp says none for HEAD. */
void http_answer(struct http_request *r, int code, const char *reason, struct http_text *text)
{
	struct evhttp_request *request = r->request;
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	bool head = http_method(r) == HTTP_METHOD_HEAD;
	struct evbuffer *body = evbuffer_new();
	char bytes[32];

	evhttp_add_header(headers, "Content-Type", text ? text->type : "text/plain; charset=utf-8");
	if (code == HTTP_BADMETHOD)
		evhttp_add_header(headers, "Allow", "GET, HEAD");
	if (body && !text)
		evbuffer_add_printf(body, "%d: %s\n", code, reason);
	else if (body && evbuffer_add_reference(body, text->data, text->bytes, drop_text, http_text_ref(text)) < 0)
		http_text_unref(text);
	snprintf(bytes, sizeof bytes, "%zu", body ? evbuffer_get_length(body) : 0);
	evhttp_add_header(headers, "Content-Length", bytes);
	r->request = NULL;
	set_state(r, HEARING);
	evhttp_send_reply(request, code, NULL, head ? NULL : body);
	if (body)
		evbuffer_free(body);
}

/* ---- the server */

static void be_woken(evutil_socket_t fd, short what, void *userdata)
{
	struct http *h = userdata;
	uint64_t n;

	(void)what;
	if (read(fd, &n, sizeof n) == sizeof n)
		h->calls.woken(h->calls.userdata);
}

void http_wake(struct http *h)
{
	const uint64_t one = 1;
	ssize_t n = write(h->wake_fd, &one, sizeof one);

	(void)n;	/* full: it is awake */
}

static void be_done(evutil_socket_t fd, short what, void *userdata)
{
	struct http *h = userdata;

	(void)fd;
	(void)what;
	h->done = true;
}

/* What strangers send is not worth a line each. */
static void keep_quiet(int severity, const char *text)
{
	if (severity == EVENT_LOG_ERR)
		fprintf(stderr, "memctl-exporter: %s\n", text);
}

/* No descriptor for one more: it is looked again when a connection has gone; without any it is the host that has none. */
static void cannot_accept(struct evconnlistener *l, void *userdata)
{
	struct http *h = userdata;

	if (h->n)
		evconnlistener_disable(l);
	else
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
}

int http_new(const struct http_limits *limits, const struct http_calls *calls, struct http **ret)
{
	struct http *h = calloc(1, sizeof *h);

	if (!h)
		return -ENOMEM;
	event_set_log_callback(keep_quiet);
	h->limits = *limits;
	h->calls = *calls;
	h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->base = event_base_new();
	h->evhttp = h->base ? evhttp_new(h->base) : NULL;
	if (h->wake_fd < 0 || !h->evhttp)
		goto fail;
	h->wake = event_new(h->base, h->wake_fd, EV_READ | EV_PERSIST, be_woken, h);
	h->term = evsignal_new(h->base, SIGTERM, be_done, h);
	h->interrupt = evsignal_new(h->base, SIGINT, be_done, h);
	h->idle = evtimer_new(h->base, be_done, h);
	if (!h->wake || !h->term || !h->interrupt || !h->idle || event_add(h->wake, NULL) < 0 || event_add(h->term, NULL) < 0 ||
		event_add(h->interrupt, NULL) < 0)
		goto fail;
	/* These arrive, so that we say ourselves which are allowed.  Others are "not implemented"; CONNECT too, which would keep its
	 * connection. */
	evhttp_set_allowed_methods(h->evhttp, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |
			EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_PATCH);
	evhttp_set_max_headers_size(h->evhttp, HEAD_BYTES_MAX);
	evhttp_set_max_body_size(h->evhttp, 0);
	evhttp_set_bevcb(h->evhttp, meet, h);
	evhttp_set_gencb(h->evhttp, be_asked, h);
	*ret = h;
	return 0;
fail:
	http_free(h);
	return -ENOMEM;
}

void http_free(struct http *h)
{
	struct event *events[] = { h ? h->wake : NULL, h ? h->term : NULL, h ? h->interrupt : NULL, h ? h->idle : NULL };

	if (!h)
		return;
	if (h->evhttp)
		evhttp_free(h->evhttp);
	h->n_listeners = 0;
	sweep(h);
	for (unsigned i = 0; i < sizeof events / sizeof *events; i++)
		if (events[i])
			event_free(events[i]);
	if (h->base)
		event_base_free(h->base);
	if (h->wake_fd >= 0)
		close(h->wake_fd);
	free(h);
}

int http_listen(struct http *h, int fd)
{
	struct evhttp_bound_socket *bound;

	if (h->n_listeners == LISTENERS_MAX || evutil_make_socket_nonblocking(fd) < 0) {
		close(fd);
		return -EMFILE;
	}
	bound = evhttp_accept_socket_with_handle(h->evhttp, fd);
	if (!bound) {
		close(fd);
		return -ENOMEM;
	}
	h->listeners[h->n_listeners] = evhttp_bound_socket_get_listener(bound);
	evconnlistener_set_error_cb(h->listeners[h->n_listeners++], cannot_accept);
	return 0;
}

int http_run(struct http *h)
{
	int r = 0;

	rest(h);
	while (!h->done && r >= 0) {
		r = event_base_loop(h->base, EVLOOP_ONCE);
		sweep(h);
	}
	return r < 0 ? -EIO : 0;
}
