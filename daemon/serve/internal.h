/* What server.c and session.c share. */
#pragma once

#include "serve/session.h"

/* Whoever has sessions at a server. */
struct user {
	struct list link;		/* of the server */
	struct list turn;		/* while it has sessions that are ready */
	struct list ready;		/* struct session: there is something to do for it */
	uid_t uid;
	unsigned n_sessions, n_apart;	/* of all of them: those that do not count */
	size_t held;			/* bytes of long calls of all of them */
};

struct server {
	struct loop *loop;
	struct server_config config;
	struct server_events events;
	char *path;
	bool bound;			/* the socket file is ours to remove */
	int fd;
	struct watch *watch;
	struct loop_timer *pause;	/* while out of descriptors */
	struct list sessions;
	unsigned n_sessions;
	struct list users;		/* struct user */
	struct list ready;		/* struct user: who comes next is first */
	struct post turn;
	bool turn_posted;
};

/* Why a session is there only to be told that it may not. */
enum refusal { REFUSED_NOT, REFUSED_OF_USER, REFUSED_OF_ALL };

struct session {
	struct list link;		/* of the server */
	struct list turn;		/* of its user, while it is ready */
	struct server *server;
	struct user *user;
	int fd;
	struct watch *watch;
	unsigned watched;		/* events asked for */
	struct session_peer peer;
	enum refusal refusal;
	bool apart;			/* it does not count against sessions_per_uid */
	struct wire_in in;
	size_t held;			/* what `in` has grown by, on its user's account */
	bool readable;			/* to be read when its turn comes */
	struct call *current;		/* handed out, not answered */
	struct list waiting;		/* struct call */
	unsigned n_waiting;
	size_t waiting_bytes;		/* of memory that they take */
	struct list out;		/* struct chunk: replies not sent yet */
	size_t out_bytes;
	bool deaf;			/* the framing is lost: nothing is read any more */
	bool hung_up;			/* the peer has, and not all that it sent before has been read */
	bool over;			/* all has been read: disconnect when what waits has been handed out */
	bool draining;			/* nothing is read any more; disconnect when the replies are out */
	bool dead;			/* to be torn down by `post` */
	struct post post;
	void *userdata;
};

/* Takes the fd unless it fails. */
int session_new(struct server *server, int fd, const struct session_peer *peer, enum refusal refusal);
/* Reads once, if there is something, and hands out the next call, if there is one that may be. */
void session_take_turn(struct session *s);
/* There is something to read, or to hand out: that is done when its turn comes. */
void server_ready(struct session *s);
/* NULL: out of memory.  Its user, with one session more. */
struct user *server_user(struct server *s, uid_t uid);
void server_user_less(struct server *s, struct user *u, bool apart);
/* Tells the owner and tears it down, at once. */
void session_free(struct session *s);
