/* What the sections of the report's page have in common. */
#pragma once

#include "cli/report.h"

struct page {
	struct report_drawing d;
	FILE *f;
	const struct report *r;
};

void page_text(const struct page *p, const char *text);
/* A text in an element of this name. */
void page_element(const struct page *p, const char *name, const char *text);

/* A table that scrolls by itself where it is too wide, up to its body; `heads` end with NULL, those of numbers begin with '#'. */
void page_table(const struct page *p, const char *caption, const char *const heads[]);
void page_table_end(const struct page *p);

/* The most and the last of a line; 0: it has no value. */
double page_most(const struct page *p, const double *values);
double page_last(const struct page *p, const double *values);

struct report_line page_line(const char *label, const double *values, const char *class, const char *dash);
/* The chart, and its numbers as a table. */
void page_chart(struct page *p, const struct report_chart *c);
/* Guest-physical memory by state, of one VM or (NULL) of all together; states that there never were are left out. */
void page_states(struct page *p, const struct report_track *only, const char *title, const char *note);
/* The section of a VM, the nth. */
void page_vm(struct page *p, const struct report_track *t, size_t nth);
