/* Figures as SVG: a page with panels, and in a panel lines or bars against labelled axes.  All lengths are pixels; a value is a
 * part of the panel's width or height, 0 to 1, as the caller scales it. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct svg_panel {
	FILE *f;
	double left, top, width, height;
};

/* A page with a title.  NULL: why is on stderr.  svg_end closes it. */
FILE *svg_begin(const char *path, int width, int height, const char *title);
void svg_end(FILE *f);

enum svg_anchor { SVG_LEFT, SVG_MIDDLE, SVG_RIGHT };
/* What text is not trusted must be escaped by the caller. */
void svg_text(FILE *f, double x, double y, enum svg_anchor anchor, const char *style, const char *text);

/* The panel's heading. */
void svg_heading(const struct svg_panel *p, const char *text);
/* A line across at this height, and what it is. */
void svg_across(const struct svg_panel *p, double at, const char *colour, const char *label);
/* What is at this place below the panel. */
void svg_below(const struct svg_panel *p, double at, const char *label);

void svg_line_begin(const struct svg_panel *p, const char *colour, bool dashed);
void svg_line_to(const struct svg_panel *p, double x, double y, bool first);
void svg_line_end(const struct svg_panel *p);

/* From `from` up (or down) to `to`. */
void svg_bar(const struct svg_panel *p, double x, double width, double from, double to, const char *colour);
