/* Which format a scraper prefers, by its Accept header (RFC 9110, 12.5.1). */
#pragma once

#include <stdbool.h>

/* Whether OpenMetrics 1.0 is wanted more than the older text; NULL, and what cannot be understood: it is not. */
bool accept_openmetrics(const char *accept);
