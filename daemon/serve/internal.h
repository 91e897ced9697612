/* What server.c and session.c share. */
#pragma once

#include "serve/session.h"

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
};

struct session {
	struct list link;		/* of the server */
	struct server *server;
	int fd;
	struct watch *watch;
	unsigned watched;		/* events asked for */
	struct session_peer peer;
	enum wire_error_id refusal;
	struct wire_in in;
	struct call *current;		/* handed out, not answered */
	struct list waiting;		/* struct call */
	unsigned n_waiting;
	struct list out;		/* struct chunk: replies not sent yet */
	size_t out_bytes;
	bool pumping;			/* calls are being handed out further up the stack */
	bool deaf;			/* the framing is lost: nothing is read any more */
	bool draining;			/* nothing is read any more; disconnect when the replies are out */
	bool dead;			/* to be torn down by `post` */
	struct post post;
	void *userdata;
};

/* Takes the fd unless it fails. */
int session_new(struct server *server, int fd, const struct session_peer *peer, enum wire_error_id refusal);
/* Tells the owner and tears it down, at once. */
void session_free(struct session *s);
