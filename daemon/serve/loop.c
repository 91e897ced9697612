#include "serve/loop.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct loop {
	struct event_base *base;
	int wake_fd;
	struct watch *wake;
	pthread_mutex_t lock;	/* guards first, last, quit; nothing is taken inside it */
	struct post *first, *last;
	bool quit;
};

/* LOOP_CLOSED by itself: epoll tells a reset connection as an error, and libevent tells errors to readers and
 * writers only; a watch that asks for neither would have the loop spin.  So such a watch is an edge-triggered
 * reader: it wakes for each arrival and looks whether the peer is still there. */
struct watch {
	struct loop *loop;
	struct event *event;
	int fd;
	unsigned wanted;
	void (*ready)(unsigned events, void *userdata);
	void *userdata;
};

struct loop_timer {
	struct event *event;
	void (*fire)(void *userdata);
	void *userdata;
};

static void wake(struct loop *l)
{
	uint64_t one = 1;

	/* EAGAIN means that the counter is full of wake-ups already */
	if (write(l->wake_fd, &one, sizeof one) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

/* Runs what was posted until now; what these post comes at the next turn, so that sockets are not starved. */
static void run_posts(unsigned events, void *userdata)
{
	struct loop *l = userdata;
	struct post *p;
	uint64_t count;
	bool quit;

	if (read(l->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
		return;
	pthread_mutex_lock(&l->lock);
	p = l->first;
	l->first = l->last = NULL;
	quit = l->quit;
	pthread_mutex_unlock(&l->lock);
	while (p) {
		struct post *next = p->next;

		p->next = NULL;
		p->run(p);
		p = next;
	}
	if (quit)
		event_base_loopbreak(l->base);
}

int loop_new(struct loop **ret)
{
	struct event_config *config = event_config_new();
	struct loop *l = calloc(1, sizeof *l);
	int r = -ENOMEM;

	if (!l || !config)
		goto fail;
	l->wake_fd = -1;
	pthread_mutex_init(&l->lock, NULL);
	event_config_require_features(config, EV_FEATURE_EARLY_CLOSE);
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	l->base = event_base_new_with_config(config);
	if (!l->base)
		goto fail;
	l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (l->wake_fd < 0) {
		r = -errno;
		goto fail;
	}
	r = loop_watch(l, l->wake_fd, LOOP_READ, run_posts, l, &l->wake);
	if (r < 0)
		goto fail;
	event_config_free(config);
	*ret = l;
	return 0;
fail:
	if (config)
		event_config_free(config);
	loop_free(l);
	return r;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	watch_free(l->wake);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	if (l->base)
		event_base_free(l->base);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int loop_run(struct loop *l)
{
	return event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0 ? -EIO : 0;
}

void loop_quit(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	l->quit = true;
	pthread_mutex_unlock(&l->lock);
	wake(l);
}

static bool has_hung_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

static void watch_ready(evutil_socket_t fd, short what, void *userdata)
{
	struct watch *w = userdata;
	unsigned events = 0;

	if (what & EV_READ)
		events |= w->wanted & LOOP_READ ? LOOP_READ : has_hung_up(w->fd) ? LOOP_CLOSED : 0;
	if (what & EV_WRITE)
		events |= LOOP_WRITE;
	if (what & EV_CLOSED)
		events |= LOOP_CLOSED;
	if (events)
		w->ready(events, w->userdata);
}

int watch_set(struct watch *w, unsigned events)
{
	short what = EV_PERSIST;

	w->wanted = events;
	if (events & LOOP_READ)
		what |= EV_READ;
	else if (events & LOOP_CLOSED)
		what |= EV_READ | EV_ET;
	if (events & LOOP_WRITE)
		what |= EV_WRITE;
	if (events & LOOP_CLOSED)
		what |= EV_CLOSED;
	if (event_del(w->event) < 0 || event_assign(w->event, w->loop->base, w->fd, what, watch_ready, w) < 0)
		return -EIO;
	if (events && event_add(w->event, NULL) < 0)
		return -EIO;
	return 0;
}

int loop_watch(struct loop *l, int fd, unsigned events, void (*ready)(unsigned events, void *userdata),
	void *userdata, struct watch **ret)
{
	struct watch *w = calloc(1, sizeof *w);
	int r = -ENOMEM;

	if (!w)
		return r;
	*w = (struct watch){ .loop = l, .fd = fd, .ready = ready, .userdata = userdata };
	w->event = event_new(l->base, fd, EV_PERSIST, watch_ready, w);
	if (w->event)
		r = watch_set(w, events);
	if (r < 0) {
		watch_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	if (w->event)
		event_free(w->event);
	free(w);
}

static void timer_fired(evutil_socket_t fd, short what, void *userdata)
{
	struct loop_timer *t = userdata;

	t->fire(t->userdata);
}

int loop_timer_new(struct loop *l, uint64_t period_ns, void (*fire)(void *userdata), void *userdata,
	struct loop_timer **ret)
{
	struct timeval period = { (time_t)(period_ns / 1000000000),
		(suseconds_t)(period_ns % 1000000000 / 1000) };
	struct loop_timer *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	t->fire = fire;
	t->userdata = userdata;
	t->event = event_new(l->base, -1, EV_PERSIST, timer_fired, t);
	if (!t->event || event_add(t->event, &period) < 0) {
		loop_timer_free(t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

void loop_timer_free(struct loop_timer *t)
{
	if (!t)
		return;
	if (t->event)
		event_free(t->event);
	free(t);
}

void loop_post(struct loop *l, struct post *p, void (*run)(struct post *p))
{
	bool first;

	p->next = NULL;
	p->run = run;
	pthread_mutex_lock(&l->lock);
	first = !l->first;
	if (l->last)
		l->last->next = p;
	else
		l->first = p;
	l->last = p;
	pthread_mutex_unlock(&l->lock);
	if (first)
		wake(l);
}
