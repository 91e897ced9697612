/* stdout and stderr: that they are there, that what was printed arrived, and whether it may be coloured. */
#pragma once

#include <stdbool.h>

/* First of all: whoever started us may have closed them, and our socket must not become stdout. */
void output_begin(void);
/* Last of all: `code`, or EXIT_SYSTEM if what was printed could not be written.  A reader that has gone had enough. */
int output_end(int code);
/* Whether printing goes on making sense: false once a write has failed. */
bool output_flush(void);

/* Whether --color=`when` (NULL: auto) means colours here; -EINVAL: it is no such word, and that was said. */
int output_colors(const char *when, bool *ret);
/* The sequence that begins a state word's colour, "" if it has none. */
const char *output_color_of(const char *word);
#define OUTPUT_COLOR_END "\033[0m"
#define OUTPUT_WARNING	 "\033[33m"
