#include "cli/progress.h"

#include "cli/cli.h"
#include "cli/units.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define DRAW_NS	  100000000u	/* between two lines */
#define SURE_S	  0.5		/* before a rate is said */
#define LOOK_MS	  250
#define LINE_MOST 256

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void say(enum progress_unit unit, uint64_t n, char text[static 32])
{
	if (unit == PROGRESS_BYTES)
		units_size(n, text);
	else
		snprintf(text, 32, "%" PRIu64, n);
}

static void say_left(double seconds, char text[static 32])
{
	if (seconds < 90)
		snprintf(text, 32, "%.0f s left", seconds < 1 ? 1 : seconds);
	else if (seconds < 5400)
		snprintf(text, 32, "%.0f min left", seconds / 60);
	else
		snprintf(text, 32, "%.0f h left", seconds / 3600);
}

void progress_line(char *text, unsigned width, const char *what, enum progress_unit unit, uint64_t first, uint64_t done, uint64_t all,
	double seconds)
{
	char line[LINE_MOST], is[32], of[32], speed[32] = "", left[32] = "";
	double rate = seconds >= SURE_S && done > first ? (double)(done - first) / seconds : 0;
	int n;

	say(unit, done, is);
	say(unit, all, of);
	if (rate > 0 && all > done)
		say_left((double)(all - done) / rate, left);
	if (rate > 0 && unit == PROGRESS_BYTES) {
		units_size((uint64_t)rate, speed);
		strcat(speed, "/s");
	} else if (rate > 0) {
		snprintf(speed, sizeof speed, rate < 10 ? "%.1f/s" : "%.0f/s", rate);
	}
	n = snprintf(line, sizeof line, "%s   %s of %s   %3.0f %%", what, is, of, all ? 100.0 * (double)done / (double)all : 100.0);
	if (*speed && n > 0 && (size_t)n < sizeof line)
		n += snprintf(line + n, sizeof line - (size_t)n, "   %s", speed);
	if (*left && n > 0 && (size_t)n < sizeof line)
		snprintf(line + n, sizeof line - (size_t)n, "   %s", left);
	snprintf(text, width < LINE_MOST ? width + 1 : LINE_MOST, "%s", line);
}

struct progress progress_begin(const struct cli *c, const char *what, enum progress_unit unit)
{
	const char *terminal = getenv("TERM");

	return (struct progress){ .what = what, .unit = unit,
		.shown = !c->json && !c->quiet && isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") };
}

static unsigned width(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20 ? 79 : size.ws_col - 1u;
}

void progress_show(struct progress *p, uint64_t done, uint64_t all)
{
	char text[LINE_MOST];
	uint64_t now = now_ns();

	if (!p->begun) {
		p->begun = true;
		p->first = done;
		p->began_ns = now;
	}
	if (!p->shown || (p->drawn_ns && now - p->drawn_ns < DRAW_NS))
		return;
	p->drawn_ns = now;
	p->some = true;
	progress_line(text, width(), p->what, p->unit, p->first, done, all, (double)(now - p->began_ns) / 1e9);
	/* first back, then what is behind it away: the old line is never seen half */
	fprintf(stderr, "\r%s\033[K", text);
}

void progress_end(struct progress *p)
{
	if (p->some)
		fputs("\r\033[K", stderr);
	p->some = false;
}

/* ---- beside a call ---- */

struct progress_watch {
	struct cli c;			/* with a connection of its own */
	struct progress p;
	bool (*left)(struct cli *c, const void *userdata, uint64_t *ret);
	const void *userdata;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool ending;
};

/* Until it is to end, or a moment has passed. */
static bool rest(struct progress_watch *w)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&w->lock);
	while (!w->ending && !pthread_cond_timedwait(&w->wake, &w->lock, &until))
		;
	pthread_mutex_unlock(&w->lock);
	return !w->ending;
}

static void *look(void *arg)
{
	struct progress_watch *w = arg;
	uint64_t all = 0, left;

	do {
		if (!w->left(&w->c, w->userdata, &left))
			continue;
		/* guests go on meanwhile, and may make more of it */
		all = left > all ? left : all;
		progress_show(&w->p, all - left, all);
	} while (rest(w));
	progress_end(&w->p);
	cli_hang_up(&w->c);
	return NULL;
}

struct progress_watch *progress_watch_begin(const struct cli *c, const char *what, bool (*left)(struct cli *c, const void *userdata,
	uint64_t *ret), const void *userdata)
{
	struct progress p = progress_begin(c, what, PROGRESS_BYTES);
	struct progress_watch *w = p.shown ? calloc(1, sizeof *w) : NULL;
	pthread_condattr_t clock;

	if (!w)
		return NULL;
	w->c = *c;
	w->c.m = NULL;
	w->c.timeout_ms = 1000;
	w->p = p;
	w->left = left;
	w->userdata = userdata;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &clock);
	pthread_condattr_destroy(&clock);
	if (pthread_create(&w->thread, NULL, look, w)) {
		free(w);
		return NULL;
	}
	return w;
}

void progress_watch_end(struct progress_watch *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
