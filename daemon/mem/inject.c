#include "mem/inject.h"

#include "base/clock.h"
#include "base/events.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct inject inject;

/* The linker's names for the ends of the section that CRASH_POINT fills. */
extern struct crash_point __start_crash_points[] __attribute__((weak)), __stop_crash_points[] __attribute__((weak));

#define LIST_LINE 48	/* "%-36s %10llu\n" */

_Atomic bool crash_armed;
static struct {
	pthread_mutex_t lock;
	char name[64];		/* "": not to die */
	uint64_t n;
	int list;		/* -1: none is kept */
} crash = { .lock = PTHREAD_MUTEX_INITIALIZER, .list = -1 };

static int apply(const char *word)
{
	if (!strcmp(word, "no_protect"))
		inject.twin_no_protect = true;
	else if (!strcmp(word, "no_punch"))
		inject.twin_no_punch = true;
	else if (!strcmp(word, "pool_writable"))
		inject.twin_pool_writable = true;
	else if (!strcmp(word, "share_unprotected"))
		inject.twin_share_unprotected = true;
	else if (!strcmp(word, "share_unverified"))
		inject.twin_share_unverified = true;
	else if (!strcmp(word, "home_from_pool"))
		inject.twin_home_from_pool = true;
	else if (!strcmp(word, "break_unheld"))
		inject.twin_break_unheld = true;
	else if (!strcmp(word, "balloon_pinned"))
		inject.twin_balloon_pinned = true;
	else if (!strcmp(word, "balloon_late"))
		inject.twin_balloon_late = true;
	else if (!strcmp(word, "balloon_ahead"))
		inject.twin_balloon_ahead = true;
	else if (!strcmp(word, "restart_unasked"))
		inject.twin_restart_unasked = true;
	else if (!strcmp(word, "no_floor"))
		inject.twin_no_floor = true;
	else if (!strcmp(word, "events_uncounted"))
		inject.twin_events_uncounted = true;
	else if (!strcmp(word, "open_access"))
		inject.twin_open_access = true;
	else if (!strcmp(word, "exists_believed"))
		inject.twin_exists_believed = true;
	else if (!strcmp(word, "copy_exists"))
		inject.copy_exists = true;
	else if (!strcmp(word, "unweighed"))
		inject.twin_unweighed = true;
	else if (!strcmp(word, "none_apart"))
		inject.twin_none_apart = true;
	else if (!strcmp(word, "unlocked"))
		inject.twin_unlocked = true;
	else if (!strcmp(word, "unconfined"))
		inject.twin_unconfined = true;
	else if (!strcmp(word, "peer_late"))
		inject.twin_peer_late = true;
	else if (!strcmp(word, "swap_write:EIO"))
		inject.swap_write_errno = EIO;
	else if (!strcmp(word, "swap_write:ENOSPC"))
		inject.swap_write_errno = ENOSPC;
	else if (!strcmp(word, "swap_read:EIO"))
		inject.swap_read_errno = EIO;
	else if (!strcmp(word, "swap_corrupt"))
		inject.swap_corrupt = true;
	else if (!strcmp(word, "low_host"))
		inject.low_host = true;
	else if (!strcmp(word, "cache_corrupt"))
		inject.cache_corrupt = true;
	else if (!strncmp(word, "hang_control:", 13))
		inject.hang_control_ns = now_ns() + strtoull(word + 13, NULL, 10) * NS_PER_S;
	else if (!strncmp(word, "hang_reclaim:", 13))
		inject.hang_reclaim_ns = now_ns() + strtoull(word + 13, NULL, 10) * NS_PER_S;
	else if (!strcmp(word, "watch_reservations"))
		inject.watch_reservations = true;
	else if (!strcmp(word, "try_forbidden"))
		inject.try_forbidden = true;
	else if (!strcmp(word, "hasty"))
		inject.hasty = true;
	else if (!strncmp(word, "balloon:", 8))
		inject.balloon_pct = (unsigned)strtoul(word + 8, NULL, 10) + 1;
	else
		return -EINVAL;
	event_tell(EVENT_TEST_SWITCH, NULL, "TEST SWITCH %s is on: this daemon breaks its promises", word);
	return 0;
}

/* ---- crash points ---- */

static void write_line(const struct crash_point *p)
{
	char line[LIST_LINE + 1];

	snprintf(line, sizeof line, "%-36.36s %10llu\n", p->name, (unsigned long long)p->passed);
	if (pwrite(crash.list, line, LIST_LINE, (p - __start_crash_points) * LIST_LINE) != LIST_LINE)
		_exit(1); /* a test that counts wrong is worse than none */
}

void crash_pass(struct crash_point *p)
{
	pthread_mutex_lock(&crash.lock);
	p->passed++;
	if (crash.list >= 0)
		write_line(p);
	if (p->passed == crash.n && !strcmp(p->name, crash.name)) {
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
	pthread_mutex_unlock(&crash.lock);
}

/* The first line of the file, and the file without it. */
static int take_line(const char *path, char *ret, size_t size)
{
	char text[4096], *end;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (n < 0) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	text[n] = 0;
	end = strchrnul(text, '\n');
	snprintf(ret, size, "%.*s", (int)(end - text), text);
	end += *end == '\n';
	n -= end - text;
	if (ftruncate(fd, 0) < 0 || pwrite(fd, end, (size_t)n, 0) != n)
		n = -1;
	close(fd);
	return n < 0 ? -EIO : 0;
}

static int arm_crash(const char *value)
{
	char word[sizeof crash.name + 24], *colon;
	bool known = false;

	if (value[0] == '@') {
		int r = take_line(value + 1, word, sizeof word);

		if (r < 0) {
			event_tell(EVENT_WRONG_USAGE, NULL, "MEMCTLD_CRASH: %s: %s", value + 1, strerror(-r));
			return r;
		}
	} else {
		snprintf(word, sizeof word, "%s", getenv("LISTEN_FDS") ? "" : value);
	}
	if (!*word)
		return 0;
	colon = strrchr(word, ':');
	crash.n = colon ? strtoull(colon + 1, NULL, 10) : 1;
	if (colon)
		*colon = 0;
	for (struct crash_point *p = __start_crash_points; p < __stop_crash_points; p++)
		known |= !strcmp(p->name, word);
	if (!known) {
		event_tell(EVENT_WRONG_USAGE, NULL, "MEMCTLD_CRASH: there is no point \"%s\"", word);
		return -EINVAL;
	}
	snprintf(crash.name, sizeof crash.name, "%.63s", word);
	atomic_store(&crash_armed, true);
	event_tell(EVENT_TEST_SWITCH, NULL, "TEST SWITCH: this daemon dies at %s, passage %llu", crash.name, (unsigned long long)crash.n);
	return 0;
}

static int begin_list(const char *base)
{
	char path[4096];

	for (unsigned life = 1; crash.list < 0; life++) {
		snprintf(path, sizeof path, "%s.%u", base, life);
		crash.list = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (crash.list < 0 && errno != EEXIST) {
			event_tell(EVENT_WRONG_USAGE, NULL, "MEMCTLD_CRASH_LIST: %s: %s", path, strerror(errno));
			return -EINVAL;
		}
	}
	for (struct crash_point *p = __start_crash_points; p < __stop_crash_points; p++)
		write_line(p);
	atomic_store(&crash_armed, true);
	return 0;
}

void inject_hang(uint64_t at_ns)
{
	if (at_ns && now_ns() >= at_ns)
		for (;;)
			pause();
}

int inject_from_environment(void)
{
	static const char *const variables[] = { "MEMCTLD_TWIN", "MEMCTLD_INJECT" };

	for (unsigned i = 0; i < sizeof variables / sizeof *variables; i++) {
		const char *value = getenv(variables[i]);
		char words[256], *save = NULL;

		if (!value)
			continue;
		snprintf(words, sizeof words, "%s", value);
		for (char *w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
			if (apply(w) < 0) {
				event_tell(EVENT_WRONG_USAGE, NULL, "%s: \"%s\" is not a switch", variables[i], w);
				return -EINVAL;
			}
		}
	}
	if (getenv("MEMCTLD_CRASH_LIST") && begin_list(getenv("MEMCTLD_CRASH_LIST")) < 0)
		return -EINVAL;
	return getenv("MEMCTLD_CRASH") ? arm_crash(getenv("MEMCTLD_CRASH")) : 0;
}
