#include "base/events.h"

#include "base/clock.h"
#include "base/event_log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL_ERROR   LOG_LEVEL_ERROR
#define LEVEL_WARNING LOG_LEVEL_WARNING
#define LEVEL_NOTICE  LOG_LEVEL_NOTICE
#define LEVEL_INFO    LOG_LEVEL_INFO

const struct event_kind event_kinds[EVENT_IDS] = {
#define EVENT(id, name, level, meaning, advice) [EVENT_##id] = { name, LEVEL_##level, meaning, advice },
#include "base/events.def"
#undef EVENT
};

const char *const event_level_names[EVENT_LEVELS] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning", [LOG_LEVEL_NOTICE] = "notice", [LOG_LEVEL_INFO] = "info",
};

/* Of the process, as its stderr is.  log: NULL before events_begin; then all but `log` itself belongs to the lock. */
static struct {
	pthread_mutex_t lock;
	struct event_log *log;
	void (*keep)(void *userdata, const struct event *e);
	void *userdata;
} events = { .lock = PTHREAD_MUTEX_INITIALIZER };

int event_level(const char *name, enum log_level *ret)
{
	for (unsigned i = 0; i < EVENT_LEVELS; i++)
		if (event_level_names[i] && !strcmp(event_level_names[i], name)) {
			*ret = (enum log_level)i;
			return 0;
		}
	return -EINVAL;
}

static void put_time(uint64_t ms, char text[static 16])
{
	time_t s = (time_t)(ms / 1000);
	struct tm t;

	if (!localtime_r(&s, &t) || !strftime(text, 16, "%H:%M:%S", &t))
		*text = 0;
}

static void print(const struct event *e)
{
	char fields[160] = "", times[64] = "", since[16];
	int n = 0;

	if (e->of.vm[0])
		n += snprintf(fields, sizeof fields, " vm=%s", e->of.vm);
	if (e->of.lease)
		n += snprintf(fields + n, sizeof fields - (size_t)n, " lease=%llu", (unsigned long long)e->of.lease);
	if (e->of.session)
		snprintf(fields + n, sizeof fields - (size_t)n, " session=%d", e->of.session);
	if (e->count > 1) {
		put_time(e->since_ms, since);
		snprintf(times, sizeof times, " (%llu times since %s)", (unsigned long long)e->count, since);
	}
	log_line(e->level, "%s%s [%s%s]", e->text, times, e->name, fields);
}

void event_tell(enum event_id id, const struct event_words *words, const char *fmt, ...)
{
	struct event_of of = { 0 };
	char text[EVENT_TEXT_MAX];
	struct event e;
	bool told = true;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	/* what a client has said may be in it: one event is one line */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	if (words) {
		snprintf(of.vm, sizeof of.vm, "%s", words->vm ? words->vm : "");
		of.lease = words->lease;
		of.session = words->session;
	}
	pthread_mutex_lock(&events.lock);
	if (events.log) {
		told = event_log_add(events.log, now_ns(), wall_ns() / NS_PER_MS, id, &of, text, &e);
		if (told && events.keep)
			events.keep(events.userdata, &e);
	} else {
		e = (struct event){ .count = 1, .level = event_kinds[id].level, .of = of };
		memcpy(e.text, text, sizeof text);
		snprintf(e.name, sizeof e.name, "%s", event_kinds[id].name);
	}
	pthread_mutex_unlock(&events.lock);
	/* without the lock: whoever reads our stderr may be slow */
	if (told)
		print(&e);
}

int events_begin(void)
{
	struct event_log *log = calloc(1, sizeof *log);

	if (!log)
		return -ENOMEM;
	event_log_begin(log, wall_ns() / NS_PER_MS);
	pthread_mutex_lock(&events.lock);
	free(events.log);
	events.log = log;
	pthread_mutex_unlock(&events.lock);
	return 0;
}

void events_tell_all(void)
{
	pthread_mutex_lock(&events.lock);
	events.log->tell_all = true;
	pthread_mutex_unlock(&events.lock);
}

static bool tell_due(void)
{
	struct event e;
	bool told;

	pthread_mutex_lock(&events.lock);
	told = events.log && event_log_due(events.log, now_ns(), &e);
	if (told && events.keep)
		events.keep(events.userdata, &e);
	pthread_mutex_unlock(&events.lock);
	if (told)
		print(&e);
	return told;
}

void events_tick(void)
{
	while (tell_due())
		;
}

void events_set_keeper(void (*keep)(void *userdata, const struct event *e), void *userdata)
{
	const struct event_filter all = { 0 };
	const struct event *e;

	pthread_mutex_lock(&events.lock);
	if (keep && events.log)
		for (uint64_t seq = events.log->began; (e = event_log_next(events.log, seq, &all)); seq = e->seq)
			keep(userdata, e);
	events.keep = keep;
	events.userdata = userdata;
	pthread_mutex_unlock(&events.lock);
}

bool events_older(const struct event *e)
{
	bool room;

	pthread_mutex_lock(&events.lock);
	room = events.log && event_log_older(events.log, e);
	pthread_mutex_unlock(&events.lock);
	return room;
}

bool events_next(uint64_t after, const struct event_filter *f, struct event *ret, uint64_t *ret_last)
{
	const struct event *e = NULL;

	pthread_mutex_lock(&events.lock);
	*ret_last = events.log ? events.log->seq : 0;
	if (events.log)
		e = event_log_next(events.log, after, f);
	if (e)
		*ret = *e;
	pthread_mutex_unlock(&events.lock);
	return e != NULL;
}

uint64_t events_told(enum log_level level)
{
	uint64_t n;

	pthread_mutex_lock(&events.lock);
	n = events.log ? events.log->told[level] : 0;
	pthread_mutex_unlock(&events.lock);
	return n;
}
