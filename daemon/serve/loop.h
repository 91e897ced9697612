/* The event loop of the control thread.  loop.c is the only door to libevent; none of its types shows here.
 *
 * Everything is called on the thread that runs the loop, except loop_post and loop_quit, which may be called
 * from any thread.  Callbacks may free the watch or timer they are called for. */
#pragma once

#include <stdint.h>

struct loop;
struct watch;
struct loop_timer;

enum { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_CLOSED = 4 /* the peer has hung up, also with bytes unread */ };

int loop_new(struct loop **ret);
/* All watches and timers have been freed; what was posted and not run is dropped.  NULL is fine. */
void loop_free(struct loop *l);
/* Until loop_quit; 0 or -errno. */
int loop_run(struct loop *l);
void loop_quit(struct loop *l);

/* The fd stays the caller's; free the watch before closing it. */
int loop_watch(struct loop *l, int fd, unsigned events, void (*ready)(unsigned events, void *userdata),
	void *userdata, struct watch **ret);
/* 0: none for now.  With LOOP_CLOSED and without LOOP_READ, writability is told once for each time that room
 * comes: write until there is none. */
int watch_set(struct watch *w, unsigned events);
void watch_free(struct watch *w);

/* Every `period_ns`, the first time one period from now. */
int loop_timer_new(struct loop *l, uint64_t period_ns, void (*fire)(void *userdata), void *userdata,
	struct loop_timer **ret);
void loop_timer_free(struct loop_timer *t);

/* Something to run on the loop's thread: part of the poster's own object, so that posting cannot fail.  Posts
 * run in the order in which they were posted, each from the top of the loop (never inside another callback).
 * It is the poster's again when `run` is called. */
struct post {
	struct post *next;
	void (*run)(struct post *p);
};
void loop_post(struct loop *l, struct post *p, void (*run)(struct post *p));
