#include "cli/units.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int units_parse_size(const char *text, size_t length, uint64_t *ret_bytes)
{
	static const struct {
		const char *suffix;
		uint64_t factor;
	} units[] = {
		{ "", 1 }, { "B", 1 },
		{ "K", 1ull << 10 }, { "KiB", 1ull << 10 }, { "KB", 1000 },
		{ "M", 1ull << 20 }, { "MiB", 1ull << 20 }, { "MB", 1000000 },
		{ "G", 1ull << 30 }, { "GiB", 1ull << 30 }, { "GB", 1000000000 },
		{ "T", 1ull << 40 }, { "TiB", 1ull << 40 }, { "TB", 1000000000000 },
	};
	char copy[40], *end;
	unsigned long long n;

	if (!length || length >= sizeof copy || text[0] < '0' || text[0] > '9')
		return -EINVAL;
	memcpy(copy, text, length);
	copy[length] = 0;
	errno = 0;
	/* Hexadecimal numbers take no unit: 0x10B would be ambiguous. */
	n = strtoull(copy, &end, copy[0] == '0' && (copy[1] | 32) == 'x' ? 16 : 10);
	if (errno == ERANGE)
		return -ERANGE;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (!strcasecmp(end, units[i].suffix)) {
			if (n > UINT64_MAX / units[i].factor)
				return -ERANGE;
			*ret_bytes = n * units[i].factor;
			return 0;
		}
	return -EINVAL;
}

void units_size(uint64_t bytes, char buffer[static 32])
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	unsigned i = 0;

	while (value >= 1024 && i + 1 < sizeof names / sizeof *names) {
		value /= 1024;
		i++;
	}
	if (value == (double)(uint64_t)value || value >= 100)
		snprintf(buffer, 32, "%.0f %s", value, names[i]);
	else
		snprintf(buffer, 32, "%.1f %s", value, names[i]);
}

void units_time(uint64_t ns, char buffer[static 32])
{
	static const char *const names[] = { "ns", "us", "ms", "s" };
	double value = (double)ns;
	unsigned i = 0;

	while (value >= 1000 && i + 1 < sizeof names / sizeof *names) {
		value /= 1000;
		i++;
	}
	snprintf(buffer, 32, value == (double)(uint64_t)value || value >= 100 ? "%.0f %s" : "%.1f %s", value,
		names[i]);
}
