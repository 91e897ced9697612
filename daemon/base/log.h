/* The log: one sentence a line to stderr, with a level that systemd understands (<N> prefix).  What is worth a line is an event and
 * goes through events.h, but for debugging.  Never called on the fault path: events of it are counted, and told by whoever
 * reads the counters. */
#pragma once

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Lines above this level are dropped.  Set once at start, before threads. */
void log_set_level(enum log_level max);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...)	 log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
