/* The numbers of memctld as families: what `memctl metrics` prints and the exporter is scraped for. */
#pragma once

#include <stdbool.h>

struct cli;
struct exposition;

/* Four questions.  EXIT_OK: all that memctld says is in x; otherwise x is untouched, and `why` says what went wrong. */
int families_gather(struct cli *c, struct exposition *x, char why[static 320]);
/* memctl_up: whether memctld answers. */
void families_add_up(struct exposition *x, bool up);
