/* `memctl heat`: a VM's pages, so many to a cell. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* HEAT_CLASS(id, name, SVG_STATES' word, its opacity, Unicode sign, ASCII sign, terminal colour): resident pages by age, in
 * generations of an eighth of what is resident, two to a class; others by state. */
#define HEAT_CLASSES(HEAT_CLASS) \
	HEAT_CLASS(NEWEST, "resident, newest", resident, 1, "\xe2\x96\x88", "@", "\033[94m") \
	HEAT_CLASS(NEWER, "resident, newer", resident, .75, "\xe2\x96\x93", "#", "\033[94m") \
	HEAT_CLASS(OLDER, "resident, older", resident, .55, "\xe2\x96\x92", "+", "\033[34m") \
	HEAT_CLASS(OLDEST, "resident, oldest", resident, .38, "\xe2\x96\x91", "-", "\033[34m") \
	HEAT_CLASS(SHARED, "shared", shared, 1, "=", "=", "\033[35m") \
	HEAT_CLASS(COMPRESSED, "compressed", compressed, 1, "c", "c", "\033[36m") \
	HEAT_CLASS(SWAPPED, "swapped", swapped, 1, "s", "s", "\033[31m") \
	HEAT_CLASS(BALLOONED, "ballooned", ballooned, 1, "o", "o", "\033[33m") \
	HEAT_CLASS(ZERO, "untouched or zero", zero, .16, "\xc2\xb7", ".", "\033[2m") \
	HEAT_CLASS(LOST, "lost", lost, 1, "!", "!", "\033[1;31m")
enum heat_class {
#define HEAT_CLASS(id, name, state, opacity, unicode, ascii, color) HEAT_##id,
	HEAT_CLASSES(HEAT_CLASS)
#undef HEAT_CLASS
	HEAT_CLASSES_MOST,
};

struct heat_cell {
	uint32_t pages[HEAT_CLASSES_MOST];
};

struct heat_lease {
	uint64_t id, gpa, pages;
	struct heat_cell *cells;	/* one after the other, the last one may be a part */
	size_t n_cells;
};

struct heat {
	const char *vm;
	uint64_t cell_pages;		/* a power of two */
	size_t columns;			/* cells in a line */
	struct heat_lease *leases;	/* by gpa */
	size_t n_leases;
	uint64_t pages[HEAT_CLASSES_MOST], all;
};
extern const char *const heat_names[HEAT_CLASSES_MOST];

/* 0, or -errno. */
int heat_svg(FILE *f, const void *heat);
