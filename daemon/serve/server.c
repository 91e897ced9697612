/* The listening half: accept, count per user, refuse, and give up politely when descriptors run out; and whose call is next. */
#include "serve/internal.h"

#include "base/clock.h"
#include "base/events.h"
#include "base/process.h"

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
/* So long calls are handed out at a stretch: then it is everybody else's turn. */
#define TURN_NS		     (5 * 1000000ull)

/* ---- whose turn it is ---- */

static struct user *user_find(const struct server *s, uid_t uid)
{
	list_foreach(l, &s->users) {
		struct user *u = container_of(l, struct user, link);

		if (u->uid == uid)
			return u;
	}
	return NULL;
}

struct user *server_user(struct server *s, uid_t uid)
{
	struct user *u = user_find(s, uid);

	if (!u) {
		u = calloc(1, sizeof *u);
		if (!u)
			return NULL;
		u->uid = uid;
		list_init(&u->link);
		list_init(&u->turn);
		list_init(&u->ready);
		list_append(&s->users, &u->link);
	}
	u->n_sessions++;
	s->n_sessions++;
	return u;
}

void server_user_less(struct server *s, struct user *u, bool apart)
{
	s->n_sessions--;
	u->n_apart -= apart;
	if (list_empty(&u->ready))
		list_remove(&u->turn);
	if (--u->n_sessions)
		return;
	list_remove(&u->link);
	free(u);
}

/* One read and one call of the user whose turn it is; then it stands behind the others, and its session behind its own others. */
static void do_one(struct server *s)
{
	struct user *u = container_of(s->ready.next, struct user, turn);
	struct session *session = container_of(u->ready.next, struct session, turn);

	list_remove(&session->turn);
	list_remove(&u->turn);
	if (!list_empty(&u->ready))
		list_append(&s->ready, &u->turn);
	session_take_turn(session);
}

static void take_turn(struct post *p)
{
	struct server *s = container_of(p, struct server, turn);
	uint64_t until_ns = now_ns() + TURN_NS;

	while (!list_empty(&s->ready) && now_ns() < until_ns)
		do_one(s);
	s->turn_posted = !list_empty(&s->ready);
	if (s->turn_posted)
		loop_post(s->loop, &s->turn, take_turn);
}

void server_ready(struct session *session)
{
	struct server *s = session->server;
	struct user *u = session->user;

	if (list_empty(&session->turn))
		list_append(&u->ready, &session->turn);
	if (list_empty(&u->turn))
		list_append(&s->ready, &u->turn);
	if (!s->turn_posted) {
		s->turn_posted = true;
		loop_post(s->loop, &s->turn, take_turn);
	}
}

/* ---- connections ---- */

/* false: not even to be told why not. */
static bool may_enter(const struct server *s, uid_t uid, enum refusal *ret)
{
	const struct user *u = user_find(s, uid);
	unsigned n = u ? u->n_sessions - u->n_apart : 0;

	*ret = REFUSED_NOT;
	if (n >= s->config.sessions_per_uid)
		*ret = REFUSED_OF_USER;
	else if (s->config.sessions_max && s->n_sessions >= s->config.sessions_max)
		*ret = REFUSED_OF_ALL;
	return n < s->config.sessions_per_uid + REFUSED_SESSIONS_MAX &&
		(!s->config.sessions_max || s->n_sessions < s->config.sessions_max + REFUSED_SESSIONS_MAX);
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
	enum refusal refusal;
	int fd, r;

	fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
			return;
		/* The connection stays in the backlog: look again when something may have been closed. */
		event_tell(EVENT_NO_DESCRIPTORS, NULL, "no descriptor for a new connection (%s); accepting again in half a second",
			strerror(errno));
		if (loop_timer_new(s->loop, ACCEPT_PAUSE_NS, accept_again, s, &s->pause) == 0)
			watch_set(s->watch, 0);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0) {
		close(fd);
		return;
	}
	if (!may_enter(s, cred.uid, &refusal)) {
		close(fd);
		return;
	}
	peer = (struct session_peer){ cred.pid, process_connected(fd, cred.pid), cred.uid, cred.gid };
	r = session_new(s, fd, &peer, refusal);
	if (r < 0) {
		event_tell(EVENT_NO_DESCRIPTORS, EVENT_OF(.session = peer.pid), "cannot serve a new connection: %s", strerror(-r));
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
	list_init(&s->users);
	list_init(&s->ready);
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
	/* first of all: a peer that sees its connection end may start another memctld at once */
	loop_timer_free(s->pause);
	watch_free(s->watch);
	if (s->fd >= 0)
		close(s->fd);
	if (s->bound)
		unlink(s->path);
	while (!list_empty(&s->sessions))
		session_free(container_of(s->sessions.next, struct session, link));
	free(s->path);
	free(s);
}

unsigned server_sessions(const struct server *s)
{
	return s->n_sessions;
}

size_t server_output_max(const struct server *s)
{
	return s->config.output_max_bytes;
}
