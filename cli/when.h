/* Times as people say them. */
#pragma once

#include <stdint.h>
#include <time.h>

/* "10m", "2h", "1d" (before `now`), "now", "14:30" (today), "2026-01-31", "2026-01-31T14:30:00" (here), with "Z" or "+01:00" behind
 * it (there): Unix time in milliseconds.  EXIT_USAGE: it is none of these, which was said, with the option's name. */
int when_parse(const char *option, const char *text, time_t now, uint64_t *ret_ms);
/* The same, and nothing is said.  -EINVAL. */
int when_read(const char *text, time_t now, uint64_t *ret_ms);
