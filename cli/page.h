#pragma once

#include "cli/cli.h"

/* Print any object of a reply, a line a member. */
void page_print(const struct cli *c, const struct value *object);
