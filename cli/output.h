/* stdout and stderr: that they are there, that what was printed arrived, and whether it may be coloured. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* First of all: whoever started us may have closed them, and our socket must not become stdout. */
void output_begin(void);
/* Last of all: `code`, or EXIT_SYSTEM if what was printed could not be written.  A reader that has gone had enough. */
int output_end(int code);
/* Whether printing goes on making sense: false once a write has failed. */
bool output_flush(void);

/* A regular file as a whole: whoever reads it has the old one or the new one, which `write` writes (0 or -errno).  -ENOTSUP: it is
 * there, and no regular file; -errno.  If it fails, all is as it was. */
int output_replace(const char *path, int (*write)(FILE *f, const void *userdata), const void *userdata);
/* What its result means. */
const char *output_replace_error(int r);

/* Whether --color=`when` (NULL: auto) means colours here; -EINVAL: it is no such word, and that was said. */
int output_colors(const char *when, bool *ret);
/* The sequence that begins a state word's colour, "" if it has none. */
const char *output_color_of(const char *word);
#define OUTPUT_COLOR_END "\033[0m"
#define OUTPUT_WARNING	 "\033[33m"
