/* What memctl says of itself: for people, and under --json for the man pages, the completion and the tests. */
#pragma once

#include <stdio.h>

struct command;

void help_print(FILE *f);
void help_print_command(const struct command *command);
/* All commands with their options and columns, and the exit codes. */
void help_print_json(void);
