/* The listening half: accept, count per user, refuse, and give up politely when descriptors run out. */
#include "serve/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* So many sessions more than allowed are kept to tell the peer why; the rest go without a word. */
#define REFUSED_SESSIONS_MAX 8
#define ACCEPT_PAUSE_NS	     (500 * 1000000ull)

static unsigned sessions_of(const struct server *s, uid_t uid)
{
	unsigned n = 0;

	list_foreach(l, &s->sessions)
		n += container_of(l, struct session, link)->peer.uid == uid;
	return n;
}

static void accept_again(void *userdata)
{
	struct server *s = userdata;

	loop_timer_free(s->pause);
	s->pause = NULL;
	watch_set(s->watch, LOOP_READ);
}

static void accept_one(unsigned events, void *userdata)
{
	struct server *s = userdata;
	struct session_peer peer = { 0 };
	struct ucred cred;
	socklen_t length = sizeof cred;
	enum wire_error_id refusal = WIRE_ERROR_NONE;
	unsigned n;
	int fd, r;

	fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
			return;
		/* The connection stays in the backlog: look again when something may have been closed. */
		log_warning("no descriptor for a new connection (%s); accepting again in half a second",
			strerror(errno));
		if (loop_timer_new(s->loop, ACCEPT_PAUSE_NS, accept_again, s, &s->pause) == 0)
			watch_set(s->watch, 0);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0) {
		close(fd);
		return;
	}
	peer = (struct session_peer){ cred.pid, cred.uid, cred.gid };
	n = sessions_of(s, peer.uid);
	if (n >= s->config.sessions_per_uid + REFUSED_SESSIONS_MAX) {
		close(fd);
		return;
	}
	if (n >= s->config.sessions_per_uid)
		refusal = WIRE_ERROR_LimitReached;
	else
		refusal = s->events.admit(&peer, fd, s->events.userdata);
	r = session_new(s, fd, &peer, refusal);
	if (r < 0) {
		log_warning("cannot serve a new connection: %s", strerror(-r));
		close(fd);
	}
}

/* Replace a socket file that nobody listens on; anything else at that path is left alone. */
static int clear_path(const struct sockaddr_un *a)
{
	struct stat st;
	int fd, r;

	if (lstat(a->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)a, sizeof *a) < 0 ? -errno : -EADDRINUSE;
	close(fd);
	if (r != -ECONNREFUSED)
		return r;
	return unlink(a->sun_path) < 0 ? -errno : 0;
}

static int start_listening(struct server *s)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int r;

	if (strlen(s->path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	strcpy(a.sun_path, s->path);
	r = clear_path(&a);
	if (r < 0)
		return r;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return -errno;
	/* Nobody can connect between bind and listen, so the mode is right before the first peer. */
	if (bind(s->fd, (struct sockaddr *)&a, sizeof a) < 0)
		return -errno;
	s->bound = true;
	if (chmod(s->path, s->config.mode) < 0)
		return -errno;
	if (s->config.group != (gid_t)-1 && chown(s->path, (uid_t)-1, s->config.group) < 0)
		return -errno;
	if (listen(s->fd, SOMAXCONN) < 0)
		return -errno;
	return loop_watch(s->loop, s->fd, LOOP_READ, accept_one, s, &s->watch);
}

int server_new(
	struct server **ret, struct loop *l, const struct server_config *c, const struct server_events *e)
{
	struct server *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = l;
	s->config = *c;
	s->events = *e;
	s->fd = -1;
	list_init(&s->sessions);
	s->path = strdup(c->path);
	r = s->path ? start_listening(s) : -ENOMEM;
	if (r < 0) {
		server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void server_free(struct server *s)
{
	if (!s)
		return;
	while (!list_empty(&s->sessions))
		session_free(container_of(s->sessions.next, struct session, link));
	loop_timer_free(s->pause);
	watch_free(s->watch);
	if (s->fd >= 0)
		close(s->fd);
	if (s->bound)
		unlink(s->path);
	free(s->path);
	free(s);
}

unsigned server_sessions(const struct server *s)
{
	unsigned n = 0;

	list_foreach(l, &s->sessions)
		n++;
	return n;
}
