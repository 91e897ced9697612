/* Asking memctld for its history: what `memctl history` prints and others draw. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cli;
struct value;

struct history_span {
	uint64_t since_ms, until_ms;	/* until 0: now */
	const char *step;		/* seconds, "0": as memctld thinks best */
};

/* What --since and --until say; without --since the hour before the end.  EXIT_USAGE: they make no sense, which was said. */
int history_span_of(const struct cli *c, struct history_span *ret);
/* All parts of the answer to History as one: rows of the host (NULL), or of a VM; the caller's for value_close.  numbers: names with
 * commas between them, "": all.  An exit code; `why` it is not EXIT_OK. */
int history_ask(struct cli *c, const char *vm, const struct history_span *span, const char *numbers, bool latencies,
	struct value **ret, char why[static 320]);
/* The same; what went wrong has been said. */
int history_read(struct cli *c, const char *vm, const struct history_span *span, const char *numbers, bool latencies, struct value **ret);
/* "high" and so on, of the number that stands for it; "-": there is none. */
const char *history_state(uint64_t number);
