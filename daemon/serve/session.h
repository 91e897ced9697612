/* Sessions: who speaks to the daemon, in which order they are answered, and when they are gone.
 *
 * A server listens on a Unix socket; each connection is a session of a peer (SO_PEERCRED).  A session's
 * messages become calls, which the owner of the server handles one after the other: the next call of a
 * session is handed out when the one before was answered, so replies come in call order and a call that takes
 * long blocks its own connection only. Urgent oneway calls (answers to orders) overtake.
 *
 * Sockets are read and calls are handed out in turns of the loop, each of some milliseconds: users after one
 * another, and of a user its sessions, one read and one call each.  So whoever sends much waits for himself;
 * clocks and other sockets come between.
 *
 * Limits, all per session: calls that wait, and their bytes (then it is not read from any more); bytes of
 * replies that the peer does not take (from a part of them on its next call waits too; with all of them, which
 * orders may come to, it is disconnected: nobody waits for a slow reader).  Per user, and in all: sessions.
 * Per user: the memory that long calls take, half-sent, waiting, or while they are read.
 *
 * All of it lives on the loop's thread.  A session is torn down at the top of the loop, never inside a call
 * handler: a handler may go on using its session and its call until it returns. */
#pragma once

#include "base/list.h"
#include "proto/body.h"
#include "proto/wire.h"
#include "serve/loop.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct server;
struct session;

struct session_peer {
	pid_t pid;
	uint64_t started;		/* when that process began (base/process.h); 0: unknown, or it ended before we looked */
	uid_t uid;
	gid_t gid;
};

/* A call: belongs to its handler until call_reply*, call_fail, or (oneway) call_done; exactly one of them
 * must come, at any time, also after the session went. */
struct call {
	struct list link;		/* while it waits */
	struct session *session;	/* NULL: the peer is gone; what is answered goes nowhere */
	struct body body;
	struct wire_message message;	/* its descriptors; the text is gone */
	size_t weight;			/* of what was read, in memory */
	size_t held;			/* of that, on its user's account */
	struct wire_error bad; /* id != NONE: the message itself was bad; answered, then disconnected */
	void *userdata;			/* the handler's */
};

struct server_config {
	const char *path;		/* of the socket; an old socket file there is replaced */
	mode_t mode;
	gid_t group;			/* (gid_t)-1: as it comes */
	unsigned sessions_per_uid;
	unsigned sessions_max;		/* of all users; 0: as many as come */
	size_t output_max_bytes;
	size_t message_max_bytes;	/* the longest call */
	bool unweighed;			/* for a test: calls may take what memory they like */
	bool none_apart;		/* for a test: session_count_apart changes nothing */
	bool no_descriptors;		/* no call here carries any: they are not even received */
};

struct server_events {
	/* Whether a oneway call overtakes those that wait; it is handled and ended inside `call`. */
	bool (*urgent)(const struct call *c, void *userdata);
	void (*call)(struct call *c, void *userdata);
	/* The peer is gone.  Its calls have session NULL now. */
	void (*closed)(struct session *s, void *userdata);
	void *userdata;
};

/* `path` and the events are copied.  -EADDRINUSE: somebody listens there. */
int server_new(
	struct server **ret, struct loop *l, const struct server_config *c, const struct server_events *e);
/* Closes every session (`closed` is called for each) and removes the socket file.  NULL is fine. */
void server_free(struct server *s);
unsigned server_sessions(const struct server *s);
/* So many bytes of replies may wait for a peer. */
size_t server_output_max(const struct server *s);

const struct session_peer *session_peer(const struct session *s);
/* At whose socket it came in. */
const struct server *session_server(const struct session *s);
/* The connection, to ask the kernel about its peer; the session's. */
int session_fd(const struct session *s);
void session_set_userdata(struct session *s, void *userdata);
void *session_userdata(const struct session *s);
/* From now on it does not count against sessions_per_uid: its number is limited by what its user has (VMs). */
void session_count_apart(struct session *s);
/* Whether the peer, or the kernel for it, has taken all that was sent. */
bool session_is_taken(const struct session *s);
/* Disconnect, as if the peer had; takes effect at the next turn of the loop. */
void session_close(struct session *s);

/* Answers.  Each ends the call, except call_continue (a call with "more").  Descriptors are duplicated by the
 * kernel at sending; those given here are taken and closed when sent, in any case. */
/* All of it has been read: what it takes of its user's account is given back, and body has flags only. */
void call_was_read(struct call *c);
void call_reply(struct call *c, const struct op *op, const void *out, const int *fds, unsigned n_fds);
void call_reply_raw(struct call *c, const char *parameters);
void call_fail(struct call *c, const struct wire_error *e);
void call_done(struct call *c);
void call_continue(struct call *c, const struct op *op, const void *out);
