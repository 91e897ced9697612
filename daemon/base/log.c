#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum log_level max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level max)
{
	max_level = max;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	/* systemd sets JOURNAL_STREAM for a service whose stderr it reads: only there are prefixes wanted. */
	char line[1024];
	size_t n = 0;
	va_list ap;
	int r;

	if (level > max_level)
		return;
	if (getenv("JOURNAL_STREAM"))
		n = (size_t)snprintf(line, sizeof line, "<%d>", (int)level);
	else
		n = (size_t)snprintf(line, sizeof line, "memctld: %s",
			level <= LOG_LEVEL_ERROR ? "error: " : level == LOG_LEVEL_WARNING ? "warning: " : "");
	va_start(ap, fmt);
	r = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
	va_end(ap);
	if (r > 0)
		n += (size_t)r < sizeof line - n - 1 ? (size_t)r : sizeof line - n - 2;
	line[n++] = '\n';
	/* one write, so that lines of several threads do not mix; a lost log line is no reason to fail */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}
