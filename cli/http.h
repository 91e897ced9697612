/* A small HTTP server for one who is asked seldom, and by anybody: one request a connection, limits on everything, one thread.
 *
 * All functions are for the thread of http_run, but http_wake, which is for any. */
#pragma once

#include <stddef.h>

struct http;
struct http_request;

struct http_limits {
	unsigned connections;	/* at once; who comes beyond them takes the place of the slowest to ask, or to hear */
	double ask_s, hear_s;	/* to send a request; to take the answer */
	double idle_s;		/* http_run ends when for so long nobody was connected; 0: never */
};

enum http_method { HTTP_METHOD_GET, HTTP_METHOD_HEAD, HTTP_METHOD_OTHER };

/* What is answered; shared by connections, the last of them frees it. */
struct http_text {
	unsigned refs;
	const char *type;	/* of the media, static */
	size_t bytes;
	char *data;		/* malloc'ed */
};
/* Takes `data`; NULL (and data is freed): no memory.  One reference, the caller's. */
struct http_text *http_text_new(const char *type, char *data, size_t bytes);
struct http_text *http_text_ref(struct http_text *t);
struct http_text *http_text_unref(struct http_text *t);

/* `asked` gets each request that is well formed, and answers it now or later; `woken` runs after http_wake. */
struct http_calls {
	void (*asked)(struct http_request *r, void *userdata);
	void (*woken)(void *userdata);
	void *userdata;
};

int http_new(const struct http_limits *limits, const struct http_calls *calls, struct http **ret);
void http_free(struct http *h);
/* A listening socket; taken in any case. */
int http_listen(struct http *h, int fd);
/* Until nobody came for idle_s, or SIGTERM or SIGINT. */
int http_run(struct http *h);
void http_wake(struct http *h);

enum http_method http_method(const struct http_request *r);
/* Without the query; as it was sent, nothing decoded. */
const char *http_path(const struct http_request *r);
/* NULL: not sent. */
const char *http_header(const struct http_request *r, const char *name);
/* Ends r.  `text` NULL: the code and `reason` as plain text; otherwise a reference is taken. */
void http_answer(struct http_request *r, int code, const char *reason, struct http_text *text);
