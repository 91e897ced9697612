/* The map as a picture: a cell is filled from below by the parts of its pages, so it shows them as they are.  What there is at all
 * is at least a hair high, what is lost cannot be overlooked. */
#include "cli/heat.h"

#include "cli/svg.h"
#include "cli/units.h"

#include <errno.h>
#include <inttypes.h>

#define PAGE_BYTES 4096u
#define CELL	   12.0
#define STEP	   13.0		/* from one to the next */
#define LEFT	   112.0	/* for addresses */
#define TOP	   64.0
#define HAIR	   0.7
#define LOST	   4.0
#define KEY_WIDTH  208.0

static const struct {
	const char *state, *opacity;
} looks[HEAT_CLASSES_MOST] = {
#define HEAT_CLASS(id, name, state, opacity, unicode, ascii, color) { #state, #opacity },
	HEAT_CLASSES(HEAT_CLASS)
#undef HEAT_CLASS
};

static size_t lines_of(const struct heat *h, const struct heat_lease *l)
{
	return (l->n_cells + h->columns - 1) / h->columns;
}

/* Where a class begins and ends in a cell, from below. */
static double part_of(const struct heat_cell *cell, unsigned class, double *ret_from)
{
	double all = 0, below = 0, high;

	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++) {
		all += cell->pages[k];
		below += k < class ? cell->pages[k] : 0;
	}
	high = cell->pages[class] / all * CELL;
	*ret_from = below / all * CELL;
	if (high < (class == HEAT_LOST ? LOST : HAIR))
		high = class == HEAT_LOST ? LOST : HAIR;
	if (*ret_from + high > CELL)
		*ret_from = CELL - high;
	return high;
}

/* All cells of a class as one path. */
static void put_class(FILE *f, const struct heat *h, unsigned class)
{
	double top = TOP;

	fprintf(f, "<path fill='url(#%s-pattern)' opacity='%s' d='", looks[class].state, looks[class].opacity);
	for (size_t i = 0; i < h->n_leases; i++) {
		const struct heat_lease *l = &h->leases[i];

		for (size_t n = 0; n < l->n_cells; n++) {
			double from, high;

			if (!l->cells[n].pages[class])
				continue;
			high = part_of(&l->cells[n], class, &from);
			fputc('M', f);
			svg_number(f, LEFT + STEP * (double)(n % h->columns));
			fputc(' ', f);
			svg_number(f, top + STEP * (double)(n / h->columns) + CELL - from);
			fputs("h12v-", f);
			svg_number(f, high);
			fputs("h-12z", f);
		}
		top += STEP * (double)(lines_of(h, l) + 1);
	}
	fputs("'/>\n", f);
}

static void put_addresses(FILE *f, const struct heat *h)
{
	double top = TOP;

	for (size_t i = 0; i < h->n_leases; i++) {
		const struct heat_lease *l = &h->leases[i];

		for (size_t line = 0; line < lines_of(h, l); line += 4)
			fprintf(f, "<text class='soft' x='%g' y='%g' text-anchor='end'>0x%" PRIx64 "</text>\n", LEFT - 8,
				top + STEP * (double)line + 10,
				l->gpa + line * h->columns * h->cell_pages * PAGE_BYTES);
		top += STEP * (double)(lines_of(h, l) + 1);
	}
}

static void put_legend(FILE *f, const struct heat *h, double top)
{
	unsigned shown = 0;

	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++) {
		double x = LEFT + KEY_WIDTH * (shown % 4), y = top + 22 * (shown / 4);
		char size[32];

		if (!h->pages[k])
			continue;
		units_size(h->pages[k] * PAGE_BYTES, size);
		fprintf(f, "<rect x='%g' y='%g' width='12' height='12' fill='url(#%s-pattern)' opacity='%s'/><text x='%g' "
			"y='%g'>%s "
			"<tspan class='soft'>%s</tspan></text>\n", x, y, looks[k].state, looks[k].opacity, x + 18, y + 10,
				heat_names[k], size);
		shown++;
	}
}

int heat_svg(FILE *f, const void *heat)
{
	const struct heat *h = heat;
	double width = LEFT + STEP * (double)h->columns + 24, height = TOP;
	char all[32], cell[32];

	for (size_t i = 0; i < h->n_leases; i++)
		height += STEP * (double)(lines_of(h, &h->leases[i]) + 1);
	units_size(h->all * PAGE_BYTES, all);
	units_size(h->cell_pages * PAGE_BYTES, cell);
	fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %g %g' width='%g' height='%g' role='img' "
		"aria-labelledby='t d'>\n"
		"<title id='t'>Memory of ", width, height + 84, width, height + 84);
	svg_text(f, h->vm);
	fputs(", by state and age</title><desc id='d'>", f);
	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++) {
		char size[32];

		if (!h->pages[k])
			continue;
		units_size(h->pages[k] * PAGE_BYTES, size);
		fprintf(f, "%s: %s. ", heat_names[k], size);
	}
	fputs("</desc>\n<style>svg{color-scheme:light dark;--paper:#fff;--ink:#1a1e24;--soft:#59626d;font:12.5px "
		"system-ui,sans-serif;background:var(--paper)}"
	      "@media(prefers-color-scheme:dark){svg{--paper:#14171c;--ink:#e7eaee;--soft:#a3acb8}}"
	      "text{fill:var(--ink)}.soft{fill:var(--soft)}.head{font-size:17px;font-weight:600}\n", f);
	svg_style(f, "svg");
	fputs("</style><defs>\n", f);
	svg_patterns(f);
	fprintf(f, "</defs><rect width='100%%' height='100%%' fill='var(--paper)'/>\n<text class='head' x='%g' y='26'>", LEFT);
	svg_text(f, h->vm);
	fprintf(f, "</text><text class='soft' x='%g' y='46'>%s leased; a cell is %s, filled by the parts of its pages</text>\n",
		LEFT, all, cell);
	put_addresses(f, h);
	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++)
		if (h->pages[k])
			put_class(f, h, k);
	put_legend(f, h, height + 6);
	fputs("</svg>\n", f);
	return ferror(f) ? -EIO : 0;
}
