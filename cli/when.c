#include "cli/when.h"

#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad_time(const char *option, const char *text)
{
	cli_error("%s: \"%s\" is no time; it takes 10m, 1h, 2d (ago), 14:30, or 2026-01-31T14:30 with or without Z", option, text);
	return EXIT_USAGE;
}

/* 30s, 10m, 1h, 2d, 1w ago.  False: it is none of these. */
static bool parse_ago(const char *text, time_t now, time_t *ret)
{
	static const struct {
		char unit;
		unsigned seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
	char *end;
	unsigned long long n;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (*end == units[i].unit && !end[1] && !errno && n <= (unsigned long long)now / units[i].seconds) {
			*ret = now - (time_t)(n * units[i].seconds);
			return true;
		}
	return false;
}

/* What stands behind a time: nothing (local time), Z, +HH:MM. */
static bool parse_zone(const char *text, struct tm *tm, time_t *ret)
{
	unsigned hours, minutes;
	char sign;
	int used = 0;

	if (!*text) {
		tm->tm_isdst = -1;
		*ret = mktime(tm);
		return *ret != (time_t)-1;
	}
	if (!strcmp(text, "Z")) {
		*ret = timegm(tm);
		return true;
	}
	if (sscanf(text, "%c%2u:%2u%n", &sign, &hours, &minutes, &used) != 3 || text[used] || (sign != '+' && sign != '-'))
		return false;
	*ret = timegm(tm) - (sign == '+' ? 1 : -1) * (time_t)(hours * 3600 + minutes * 60);
	return true;
}

static bool parse_date(const char *text, time_t now, time_t *ret)
{
	static const char *const formats[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d",
		"%H:%M:%S", "%H:%M" };

	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
		struct tm tm = { 0 };
		const char *end;

		/* without a date: of today */
		if (formats[i][1] == 'H') {
			localtime_r(&now, &tm);
			tm.tm_sec = 0;
		}
		end = strptime(text, formats[i], &tm);
		if (end && parse_zone(end, &tm, ret))
			return *ret >= 0;
	}
	return false;
}

int when_read(const char *text, time_t now, uint64_t *ret_ms)
{
	time_t t = now;

	if (strcmp(text, "now") && !parse_ago(text, now, &t) && !parse_date(text, now, &t))
		return -EINVAL;
	*ret_ms = (uint64_t)t * 1000;
	return 0;
}

int when_parse(const char *option, const char *text, time_t now, uint64_t *ret_ms)
{
	return when_read(text, now, ret_ms) < 0 ? bad_time(option, text) : EXIT_OK;
}
