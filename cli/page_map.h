/* Reading the page map of a VM, which comes in parts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cli;
struct value;

/* The runs of [from, end), with their ages or without: `take` is given each reply in turn, which is closed after it unless it
 * takes it (true).  An exit code; what went wrong has been said. */
int page_map_read(struct cli *c, const char *vm, uint64_t from, uint64_t end, bool ages,
	bool (*take)(struct value *reply, void *userdata), void *userdata);
