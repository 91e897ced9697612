/* The link to the daemon: lost, and made again.
 *
 *	NONE --Register, Attend--> UP --either connection ends--> DOWN --Resume, ResumeLease ..., Attend--> UP
 *	                            |                              |
 *	                            |                              '--the daemon does not know us--> LOST, or (no leases) Register
 *	                            '--and all leases were made plain by order--> RELEASED
 *
 *	NONE		the connection of a client without a VM: when it ends it has ended
 *	UP		calls and orders
 *	DOWN		calls wait; who touches an absent page waits; we try again after 5 ms, then 10 ... 100, for ever
 *	LOST		calls fail, who waits for a page waits for ever: that the page cannot be had is no reason to show zeros
 *	RELEASED	there is no daemon any more, and no need of one
 *
 * Why waiting is safe: our copy of each lease's userfaultfd stays open, so the kernel goes on queueing faults.  Those that the dead
 * daemon had read and not served are in nobody's queue: waking the whole of each lease makes their threads touch again.
 * That is done as soon as the end is noticed, and by the daemon's successor once more.
 *
 * Who makes the link up again is whoever is there: the helper or a loop in memctl_dispatch, which the timer calls (a file
 * descriptor in memctl_fd's epoll), or a thread in a call, which holds `turn` and so must do it itself.  A try is a
 * *trial*: a new calls connection beside the old one, on which nothing but the calls of a resume are made, one after the other.  It
 * is advanced without waiting longer than STEP_NS, and goes on where it was; closing it half-way would be the end of the VM
 * where the daemon took it for the client's last word.  When it is through, it takes the old one's place in one moment
 * under all the locks (internal.h says why that is right).
 *
 * Which leases the daemon has is exact.  A lease has the number of the connection on which it was named; numbers are used once.
 * What was leased or released by a call that was under way when the daemon died is not named, so the daemon takes it back
 * at Attend, and a call about a lease goes out on its own connection or not at all (call_on).
 *
 * A daemon that refuses the token has a reason that will not go away: it ended the VM, or its memory was lost with
 * the descriptors.  A client without leases has lost nothing and registers anew. */
#include "libclient/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MS		1000000ull
#define BACKOFF_MIN_NS	(5 * MS)
#define BACKOFF_MAX_NS	(100 * MS)
#define BACKOFF_IDLE_NS (1000 * MS)	/* nobody waits: there are no leases */
#define STEP_NS		(20 * MS)	/* the longest that one step holds up whoever takes it */
#define STEADY_NS	(50 * MS)	/* a link that lasted so long did not fail by itself */
#define FIRST_LOOK_NS	(1000 * MS)

enum { RESUMING, NAMING, REGISTERING, JOINING };

/* ---- the timer ---- */

static void arm(struct memctl *m, uint64_t in_ns)
{
	struct itimerspec t = { .it_value = { .tv_sec = (time_t)(in_ns / 1000000000u),
					.tv_nsec = (long)(in_ns % 1000000000u) } };

	if (!in_ns)
		t.it_value.tv_nsec = 1;		/* zero would disarm it */
	timerfd_settime(m->timer_fd, 0, &t, NULL);
}

static void arm_for_try(struct memctl *m)
{
	uint64_t now = now_ns(), at = m->next_try_ns;

	/* it is time, and somebody else is at it */
	arm(m, at > now ? at - now : BACKOFF_MIN_NS);
}

void link_tick(struct memctl *m)
{
	uint64_t expired, look_ns;

	if (read(m->timer_fd, &expired, sizeof expired) != sizeof expired || m->plain)
		return;
	look_ns = stall_look(m);
	if (m->link == LINK_DOWN)
		arm_for_try(m);
	else
		arm(m, look_ns);
}

/* ---- up ---- */

static int watch(struct memctl *m, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(m->wait_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* What memctl_fd shows, for the rest of the connection's life: what lies in it may change. */
static int open_wait(struct memctl *m)
{
	int r;

	if (m->wait_fd >= 0)
		return 0;
	m->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (m->timer_fd < 0)
		return -errno;
	m->wait_fd = epoll_create1(EPOLL_CLOEXEC);
	r = m->wait_fd < 0 ? -errno : watch(m, m->timer_fd);
	if (!r)
		return 0;
	if (m->wait_fd >= 0)
		close(m->wait_fd);
	close(m->timer_fd);
	m->wait_fd = m->timer_fd = -1;
	return r;
}

/* An orders connection for the VM of this token. */
static int attend(struct memctl *m, uint64_t token, int (*connect)(const char *path, int *ret_fd), int *ret_fd)
{
	struct op_attend_in in = { .token = token };
	size_t length;
	char *text;
	int fd, r;

	r = body_write_call(&text, &length, &ops[OP_attend], &in, CALL_MORE);
	if (r < 0)
		return r;
	r = connect(m->socket, &fd);
	if (!r) {
		r = wire_send(fd, text, length, NULL, 0, now_ns() + STEP_NS);
		if (!r)
			r = watch(m, fd);
		if (r < 0)
			close(fd);
		else
			*ret_fd = fd;
	}
	free(text);
	return r;
}

/* Attend is answered by orders only, and there may be none for long.  So something is asked before it: what answers has let us in.
 * A connection that is refused ends the VM, and its guests would wait for ever for pages that nobody has. */
static int ask_in(int fd)
{
	size_t length;
	char *text;
	int r = body_write_call_raw(&text, &length, "org.varlink.service.GetInfo", NULL, 0);

	if (r < 0)
		return r;
	r = wire_send(fd, text, length, NULL, 0, now_ns() + STEP_NS);
	free(text);
	return r;
}

static int connect_asking(const char *path, int *ret_fd)
{
	int fd, r = wire_connect(path, &fd);

	if (r < 0)
		return r;
	r = ask_in(fd);
	if (r < 0)
		close(fd);
	else
		*ret_fd = fd;
	return r;
}

/* 0: it is a connection; else *e says why not. */
static int let_in(struct memctl *m, int fd, struct memctl_error *e)
{
	struct wire_message wire = WIRE_MESSAGE_NULL;
	struct wire_error why;
	struct body body;
	int r = wire_receive(fd, &m->orders_in, deadline_ns(m), &wire);

	if (r == -ETIMEDOUT)
		return fail(e, r, ERROR_TIMEOUT, "memctld did not take the VM's second connection within %d ms: it may be out of descriptors "
			"(LimitNOFILE=), its log says so", m->timeout_ms);
	if (r > 0)
		r = body_parse(&body, wire.text, wire.length, NULL);
	else
		r = r ? r : -ECONNRESET;
	wire_message_fini(&wire);
	if (r < 0) {
		fail(e, -ENOTCONN, ERROR_UNREACHABLE, "memctld closed the VM's second connection (%s): it was restarted, or this user has far "
			"too many connections (max_sessions_per_user)", strerror(-r));
		return -ENOTCONN;
	}
	if (body.error) {
		body_error(&body, &why);
		r = fail(e, -wire_error_errno(why.id), why.name, "a VM needs a second connection to memctld, which was refused: %s",
			why.message);
		if (e) {
			e->need = why.need;
			e->have = why.have;
		}
	}
	body_fini(&body);
	return r;
}

/* There is no VM without its second connection: the first one's end is its end. */
static int give_up(struct memctl *m, int r)
{
	pthread_mutex_lock(&m->send);
	m->send_broken = true;
	shutdown(m->calls_fd, SHUT_RDWR);
	pthread_mutex_unlock(&m->send);
	return r;
}

int link_begin(struct memctl *m, uint64_t token, struct memctl_error *e)
{
	int fd, r = open_wait(m);

	if (r < 0)
		return give_up(m, fail(e, r, ERROR_SYSTEM, "no descriptors to wait for orders by: %s", strerror(-r)));
	r = attend(m, token, connect_asking, &fd);
	if (r < 0) {
		fail(e, r, ERROR_UNREACHABLE, "no second connection to memctld: %s", strerror(-r));
		return give_up(m, r == -ENOMEM || r == -EMFILE || r == -ENFILE ? r : -ENOTCONN);
	}
	r = let_in(m, fd, e);
	if (r < 0) {
		/* as in link_down */
		epoll_ctl(m->wait_fd, EPOLL_CTL_DEL, fd, NULL);
		close(fd);
		wire_in_fini(&m->orders_in);
		wire_in_init(&m->orders_in, WIRE_REPLY_MAX);
		return give_up(m, r);
	}
	/* Unreadable in a process that made itself undumpable: then pages age by the time of their last fill. */
	if (m->pagemap_fd < 0)
		m->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	pthread_mutex_lock(&m->dispatch);
	m->orders_fd = fd;
	m->token = token;
	m->connection = ++m->numbers;
	m->up_ns = now_ns();
	m->backoff_ns = BACKOFF_MIN_NS;
	m->link = LINK_UP;
	arm(m, FIRST_LOOK_NS);
	pthread_mutex_unlock(&m->dispatch);
	return 0;
}

/* ---- down ---- */

static bool all_let_go(struct memctl *m)
{
	bool all;

	pthread_mutex_lock(&m->leases_lock);
	all = m->let_go;
	for (struct memctl_lease *l = m->leases; l; l = l->next)
		all &= l->plain;
	pthread_mutex_unlock(&m->leases_lock);
	return all;
}

static bool has_leases(struct memctl *m)
{
	bool has = false;

	pthread_mutex_lock(&m->leases_lock);
	for (struct memctl_lease *l = m->leases; l; l = l->next)
		has |= !l->plain;
	pthread_mutex_unlock(&m->leases_lock);
	return has;
}

static void wake_all(struct memctl *m)
{
	pthread_mutex_lock(&m->leases_lock);
	for (struct memctl_lease *l = m->leases; l; l = l->next)
		if (l->uffd >= 0)
			faults_wake(l->uffd, l->address, l->size);
	pthread_mutex_unlock(&m->leases_lock);
}

static void released(struct memctl *m)
{
	go_plain(m, "memctld has let this VM go: its memory is plain memory of this process now");
	m->link = LINK_RELEASED;
	balloon_set_target(m, 0);
	note_event(m, MEMCTL_EVENT_RELEASED, 0);
	arm(m, 0);	/* once more, so that who waits for input takes the event */
}

void link_down(struct memctl *m)
{
	uint64_t now = now_ns();
	int up = LINK_UP;

	if (!atomic_compare_exchange_strong(&m->link, &up, LINK_DOWN))
		return;
	m->send_broken = true;
	/* by number while it is open: a forked child may have it open after us, and it would be ready for ever */
	epoll_ctl(m->wait_fd, EPOLL_CTL_DEL, m->orders_fd, NULL);
	/* the other connection is of no use either, and who waits on it must hear of it */
	shutdown(m->calls_fd, SHUT_RDWR);
	shutdown(m->orders_fd, SHUT_RDWR);
	if (all_let_go(m)) {
		released(m);
		return;
	}
	m->next_try_ns = now - m->up_ns > STEADY_NS ? now : now + BACKOFF_MAX_NS;
	wake_all(m);
	if (!m->ending)
		note_event(m, MEMCTL_EVENT_DISCONNECTED, 0);
	arm(m, 0);
}

/* ---- a trial ---- */

static void drop(struct memctl *m)
{
	struct trial *t = &m->trial;

	if (t->fd >= 0)
		close(t->fd);
	if (t->pool_fd >= 0)
		close(t->pool_fd);
	t->fd = t->pool_fd = -1;
	wire_in_fini(&t->in);
}

static void remember(struct memctl *m, const struct wire_error *we)
{
	fail(&m->why_down, 0, we->name, "%s", we->message);
}

static int say(struct memctl *m, enum op_id id, const void *in, int fd)
{
	size_t length;
	char *text;
	int r = body_write_call(&text, &length, &ops[id], in, 0);

	if (r < 0)
		return r;
	r = wire_send(m->trial.fd, text, length, &fd, fd >= 0, now_ns() + STEP_NS);
	free(text);
	return r < 0 ? r : 1;
}

/* 1: a reply is there, or a refusal (then ret_refusal->id is not NONE); 0: not yet; -errno: it will never come. */
static int hear(struct memctl *m, enum op_id id, void *out, int *ret_fd, struct wire_error *ret_refusal, uint64_t until)
{
	struct wire_message wire = WIRE_MESSAGE_NULL;
	struct body body;
	int r = wire_receive(m->trial.fd, &m->trial.in, until, &wire);

	if (r <= 0)
		return r == -ETIMEDOUT ? 0 : r ? r : -ECONNRESET;
	r = body_parse(&body, wire.text, wire.length, NULL);
	if (!r) {
		if (body.error)
			body_error(&body, ret_refusal);
		else
			r = body_decode(&body, ops[id].out, false, out, NULL);
		if (!r && !body.error && ret_fd)
			*ret_fd = wire_take_fd(&wire, 0);
		body_fini(&body);
	}
	wire_message_fini(&wire);
	return r < 0 ? r : 1;
}

static int begin(struct memctl *m)
{
	struct op_resume_in in = { .token = m->token };
	struct trial *t = &m->trial;
	int fd, r;

	r = wire_connect_now(m->socket, &fd);
	if (r < 0)
		return r;
	*t = (struct trial){ .fd = fd, .stage = RESUMING, .token = m->token, .pool_fd = -1 };
	/* also if it comes to nothing: a lease named on it is named on no other */
	t->number = ++m->numbers;
	wire_in_init(&t->in, WIRE_REPLY_MAX);
	return say(m, OP_resume, &in, -1);
}

/* The trial takes the place of what has ended. */
static int install(struct memctl *m)
{
	struct trial *t = &m->trial;
	int orders, r;

	r = attend(m, t->token, wire_connect_now, &orders);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->send);
	close(m->calls_fd);
	m->calls_fd = t->fd;
	t->fd = -1;
	m->send_broken = m->out_of_step = false;
	pthread_mutex_unlock(&m->send);
	wire_in_fini(&m->calls_in);
	m->calls_in = t->in;
	wire_in_init(&t->in, WIRE_REPLY_MAX);
	close(m->orders_fd);
	m->orders_fd = orders;
	wire_in_fini(&m->orders_in);
	wire_in_init(&m->orders_in, WIRE_REPLY_MAX);
	m->connection = t->number;
	if (t->token != m->token) {	/* another VM: nothing of the old one's pool is mapped */
		pthread_mutex_lock(&m->leases_lock);
		memcpy(m->sharing, t->sharing, sizeof m->sharing);
		if (m->pool_fd >= 0)
			close(m->pool_fd);
		m->pool_fd = t->pool_fd;
		m->pool_pages = t->pool_pages;
		t->pool_fd = -1;
		pthread_mutex_unlock(&m->leases_lock);
		m->token = t->token;
		m->balloon_again = m->balloon_started;
	}
	m->up_ns = now_ns();
	m->backoff_ns = BACKOFF_MIN_NS;
	note_event(m, MEMCTL_EVENT_RECONNECTED, 0);
	m->link = LINK_UP;
	arm(m, 0);
	return 0;
}

/* The next lease that the daemon has not heard of, or the end. */
static int name_next(struct memctl *m)
{
	struct trial *t = &m->trial;
	struct memctl_lease *l;
	int r = 0;

	pthread_mutex_lock(&m->leases_lock);
	for (l = m->leases; l && l->connection == t->number; l = l->next)
		;
	if (l) {
		struct op_resume_lease_in in = { .lease = l->id, .address = (uintptr_t)l->address, .plain = l->plain };

		t->stage = NAMING;
		t->lease = l->id;
		l->connection = t->number;
		r = say(m, OP_resume_lease, &in, l->memfd);
	}
	pthread_mutex_unlock(&m->leases_lock);
	return r ? r : install(m);
}

static bool still_needs(struct memctl *m, uint64_t id)
{
	struct memctl_lease *l;
	bool needs;

	pthread_mutex_lock(&m->leases_lock);
	l = lease_find(m, id);
	needs = l && !l->plain;
	pthread_mutex_unlock(&m->leases_lock);
	return needs;
}

static int lose(struct memctl *m)
{
	m->link = LINK_LOST;
	note_event(m, MEMCTL_EVENT_LOST, 0);
	drop(m);
	arm(m, 0);
	return 0;
}

static bool is_final(enum wire_error_id id)
{
	return id == WIRE_ERROR_PermissionDenied || id == WIRE_ERROR_NoSuchVm || id == WIRE_ERROR_NoSuchLease ||
	       id == WIRE_ERROR_BadDescriptor || id == WIRE_ERROR_MethodNotFound;
}

/* No VM has our token. */
static int start_anew(struct memctl *m)
{
	if (has_leases(m))
		return lose(m);
	if (all_let_go(m)) {
		drop(m);
		released(m);
		return 0;
	}
	m->trial.stage = REGISTERING;
	return say(m, OP_register, &m->vm, -1);
}

static int on_resumed(struct memctl *m, uint64_t until)
{
	struct wire_error refusal = { 0 };
	struct op_resume_out out;
	int r = hear(m, OP_resume, &out, NULL, &refusal, until);

	if (r <= 0)
		return r;
	if (refusal.id == WIRE_ERROR_NONE)
		return name_next(m);
	remember(m, &refusal);
	return is_final(refusal.id) ? start_anew(m) : -EAGAIN;
}

static int on_named(struct memctl *m, uint64_t until)
{
	struct wire_error refusal = { 0 };
	struct op_resume_lease_out out;
	int r = hear(m, OP_resume_lease, &out, NULL, &refusal, until);

	if (r <= 0)
		return r;
	if (refusal.id == WIRE_ERROR_NONE || !still_needs(m, m->trial.lease))
		return name_next(m);
	remember(m, &refusal);
	return is_final(refusal.id) ? lose(m) : -EAGAIN;
}

static int on_registered(struct memctl *m, uint64_t until)
{
	struct op_join_pool_in join = { 0 };
	struct wire_error refusal = { 0 };
	struct op_register_out out;
	int r = hear(m, OP_register, &out, NULL, &refusal, until);
	bool shared;

	if (r <= 0)
		return r;
	if (refusal.id != WIRE_ERROR_NONE) {
		remember(m, &refusal);
		return -EAGAIN;
	}
	m->trial.token = out.token;
	memcpy(m->trial.sharing, out.sharing, sizeof m->trial.sharing);
	pthread_mutex_lock(&m->leases_lock);
	shared = m->pool_fd >= 0;
	pthread_mutex_unlock(&m->leases_lock);
	if (!shared || !share_possible(out.sharing))
		return install(m);
	join.maps = share_count_maps();
	m->trial.stage = JOINING;
	return say(m, OP_join_pool, &join, -1);
}

static int on_joined(struct memctl *m, uint64_t until)
{
	struct op_join_pool_out out = { 0 };
	struct wire_error refusal = { 0 };
	int r = hear(m, OP_join_pool, &out, &m->trial.pool_fd, &refusal, until);

	if (r <= 0)
		return r;
	m->trial.pool_pages = out.pool_pages;
	return install(m);
}

static int advance(struct memctl *m, uint64_t until)
{
	switch (m->trial.stage) {
	case RESUMING:
		return on_resumed(m, until);
	case NAMING:
		return on_named(m, until);
	case REGISTERING:
		return on_registered(m, until);
	default:
		return on_joined(m, until);
	}
}

/* Under turn and dispatch. */
static void step(struct memctl *m)
{
	uint64_t now = now_ns(), most = BACKOFF_MAX_NS;
	int r = 1;

	if (m->link != LINK_DOWN || m->ending || now < m->next_try_ns)
		return;
	if (m->trial.fd < 0)
		r = begin(m);
	while (r > 0 && m->link == LINK_DOWN)
		r = advance(m, now + STEP_NS);
	if (m->link != LINK_DOWN)
		return;
	if (r < 0) {
		if (r != -EAGAIN)
			fail(&m->why_down, 0, ERROR_UNREACHABLE, "%s", strerror(-r));
		drop(m);
		if (!has_leases(m))
			most = BACKOFF_IDLE_NS;
		m->next_try_ns = now + m->backoff_ns;
		m->backoff_ns = m->backoff_ns * 2 < most ? m->backoff_ns * 2 : most;
	} else {
		m->next_try_ns = now_ns() + BACKOFF_MIN_NS;
	}
	arm_for_try(m);
}

void link_try(struct memctl *m)
{
	/* a thread in a call has `turn`: it tries by itself */
	if (m->link != LINK_DOWN || m->ending || pthread_mutex_trylock(&m->turn))
		return;
	pthread_mutex_lock(&m->dispatch);
	step(m);
	pthread_mutex_unlock(&m->dispatch);
	pthread_mutex_unlock(&m->turn);
}

/* Until the next try is due, or the deadline. */
static void rest(struct memctl *m, uint64_t now, uint64_t deadline)
{
	uint64_t until = m->next_try_ns;
	struct timespec t;

	if (until > now + BACKOFF_MAX_NS)	/* there is somebody who waits */
		m->next_try_ns = until = now + BACKOFF_MAX_NS;
	if (until > deadline)
		until = deadline;
	t = (struct timespec){ .tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u) };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

int link_await(struct memctl *m, uint64_t number, uint64_t deadline, struct memctl_error *e)
{
	for (;;) {
		uint64_t now;

		pthread_mutex_lock(&m->dispatch);
		step(m);
		pthread_mutex_unlock(&m->dispatch);
		if (m->link != LINK_DOWN || (number && (m->trial.fd < 0 || m->trial.number != number)))
			return 0;
		now = now_ns();
		if (now >= deadline || m->ending)
			return fail(e, -ENOTCONN, ERROR_UNREACHABLE,
				"memctld is gone (%s); what it had is kept, guests wait, and calls can be made again when it "
				"is back", m->why_down.message[0] ? m->why_down.message : "it closed the connection");
		rest(m, now, deadline);
	}
}

void link_end(struct memctl *m)
{
	drop(m);
	if (m->orders_fd >= 0)
		close(m->orders_fd);
	if (m->wait_fd >= 0)
		close(m->wait_fd);
	if (m->timer_fd >= 0)
		close(m->timer_fd);
}
