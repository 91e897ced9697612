/* `memctl heat`: where a VM's pages are, and how old, as a map.
 *
 * A cell stands for so many pages that the map is of a bounded size.  Cells of a text have one sign, so where pages of a cell
 * differ they take turns: each class has a debt that grows by its part of each cell; the class that is owed most is drawn, and pays
 * one.  Only classes that the cell has are drawn, and the debts begin anew with each line, so a line is right by itself. */
#include "cli/heat.h"

#include "cli/cli.h"
#include "cli/output.h"
#include "cli/page_map.h"
#include "cli/progress.h"
#include "cli/units.h"

#include <errno.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define LABEL	   15u		/* columns of an address */
#define LINES	   32u		/* of a text, about */
#define SVG_COLUMNS 64u
#define SVG_LINES  64u
#define COLUMNS_LEAST 16u
#define COLUMNS_MOST  256u

const char *const heat_names[HEAT_CLASSES_MOST] = {
#define HEAT_CLASS(id, name, state, opacity, unicode, ascii, color) name,
	HEAT_CLASSES(HEAT_CLASS)
#undef HEAT_CLASS
};
static const struct {
	const char *unicode, *ascii, *color;
} signs[HEAT_CLASSES_MOST] = {
#define HEAT_CLASS(id, name, state, opacity, unicode, ascii, color) { unicode, ascii, color },
	HEAT_CLASSES(HEAT_CLASS)
#undef HEAT_CLASS
};

/* ---- counting ---- */

static enum heat_class class_of(const struct value *run)
{
	static const struct {
		const char *state;
		enum heat_class class;
	} states[] = {
		{ "zero", HEAT_ZERO }, { "shared", HEAT_SHARED }, { "breaking", HEAT_SHARED }, { "compressed", HEAT_COMPRESSED },
		{ "swapped", HEAT_SWAPPED }, { "ballooned", HEAT_BALLOONED }, { "lost", HEAT_LOST },
	};
	const char *state = value_str(run, "state");
	uint64_t age = value_u64(run, "age", 0) / 2;

	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		if (!strcmp(states[i].state, state))
			return states[i].class;
	return age < HEAT_OLDEST ? (enum heat_class)(HEAT_NEWEST + age) : HEAT_OLDEST;
}

static struct heat_lease *lease_at(struct heat *h, uint64_t gpa)
{
	for (size_t i = 0; i < h->n_leases; i++)
		if (gpa >= h->leases[i].gpa && (gpa - h->leases[i].gpa) / PAGE_BYTES < h->leases[i].pages)
			return &h->leases[i];
	return NULL;
}

static void count_run(struct heat *h, const struct value *run)
{
	uint64_t gpa = value_u64(run, "gpa", 0), pages = value_u64(run, "pages", 0);
	enum heat_class class = class_of(run);
	struct heat_lease *l = lease_at(h, gpa);
	uint64_t page = l ? (gpa - l->gpa) / PAGE_BYTES : 0;

	/* a lease that came after we asked for them is not in the map */
	if (!l)
		return;
	pages = pages < l->pages - page ? pages : l->pages - page;
	h->pages[class] += pages;
	while (pages) {
		uint64_t room = h->cell_pages - page % h->cell_pages, part = pages < room ? pages : room;

		l->cells[page / h->cell_pages].pages[class] += (uint32_t)part;
		page += part;
		pages -= part;
	}
}

struct reading {
	struct heat *h;
	struct progress p;
	uint64_t seen;
};

static bool take_part(struct value *reply, void *userdata)
{
	struct reading *r = userdata;
	const struct value *runs = value_at(reply, "runs");

	for (size_t i = 0; i < value_items(runs); i++) {
		count_run(r->h, value_item(runs, i));
		r->seen += value_u64(value_item(runs, i), "bytes", 0);
	}
	progress_show(&r->p, r->seen, r->h->all * PAGE_BYTES);
	return false;
}

/* ---- the map's size ---- */

static int by_gpa(const void *a, const void *b)
{
	uint64_t x = ((const struct heat_lease *)a)->gpa, y = ((const struct heat_lease *)b)->gpa;

	return x < y ? -1 : x > y;
}

static int lay_out(struct heat *h, const struct value *leases, unsigned columns, unsigned lines)
{
	h->columns = columns;
	h->cell_pages = 1;
	h->leases = calloc(value_items(leases) + 1, sizeof *h->leases);
	if (!h->leases)
		return -ENOMEM;
	for (size_t i = 0; i < value_items(leases); i++) {
		const struct value *l = value_item(leases, i);

		h->leases[h->n_leases++] = (struct heat_lease){ .id = value_u64(l, "lease", 0), .gpa = value_u64(l, "gpa", 0),
			.pages = value_u64(l, "size_bytes", 0) / PAGE_BYTES };
		h->all += value_u64(l, "size_bytes", 0) / PAGE_BYTES;
	}
	qsort(h->leases, h->n_leases, sizeof *h->leases, by_gpa);
	while (h->all / h->cell_pages > (uint64_t)columns * lines)
		h->cell_pages *= 2;
	for (size_t i = 0; i < h->n_leases; i++) {
		struct heat_lease *l = &h->leases[i];

		l->n_cells = (size_t)((l->pages + h->cell_pages - 1) / h->cell_pages);
		l->cells = calloc(l->n_cells + 1, sizeof *l->cells);
		if (!l->cells)
			return -ENOMEM;
	}
	return 0;
}

static void heat_fini(struct heat *h)
{
	for (size_t i = 0; i < h->n_leases; i++)
		free(h->leases[i].cells);
	free(h->leases);
}

/* Cells of a line: a multiple of 16, so that lines begin at round addresses. */
static unsigned columns_of(const struct cli *c)
{
	const char *told = getenv("COLUMNS");
	struct winsize size;
	unsigned wide = 80;

	if (c->svg)
		return SVG_COLUMNS;
	if (told && atoi(told) > 0)
		wide = (unsigned)atoi(told);
	else if (!c->file && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		wide = size.ws_col;
	wide = wide > LABEL + COLUMNS_LEAST ? (wide - LABEL) / 16 * 16 : COLUMNS_LEAST;
	return wide < COLUMNS_MOST ? wide : COLUMNS_MOST;
}

static int gather(struct cli *c, const char *vm, struct heat *h)
{
	const char *pairs[][2] = { { "vm", vm }, { NULL } };
	struct reading reading = { h, progress_begin(c, "reading the page map", PROGRESS_BYTES), 0 };
	struct value *reply;
	int r = cli_ask(c, "org.memctl.ShowVm", pairs, &reply);

	if (r)
		return r;
	h->vm = vm;
	r = lay_out(h, value_at(reply, "vm.leases"), columns_of(c), c->svg ? SVG_LINES : LINES);
	value_close(reply);
	if (r < 0) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	r = page_map_read(c, vm, 0, UINT64_MAX, true, take_part, &reading);
	progress_end(&reading.p);
	return r;
}

/* ---- text ---- */

static bool is_utf8(void)
{
	locale_t l = newlocale(LC_CTYPE_MASK, "", NULL);
	bool utf8 = l && !strcmp(nl_langinfo_l(CODESET, l), "UTF-8");

	if (l)
		freelocale(l);
	return utf8;
}

/* Whose turn it is.  HEAT_CLASSES_MOST: the cell is empty. */
static enum heat_class turn(const struct heat_cell *cell, double owed[HEAT_CLASSES_MOST])
{
	enum heat_class most = HEAT_CLASSES_MOST;
	uint64_t all = 0;

	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++)
		all += cell->pages[k];
	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++) {
		if (!cell->pages[k])
			continue;
		owed[k] += (double)cell->pages[k] / (double)all;
		if (most == HEAT_CLASSES_MOST || owed[k] > owed[most])
			most = (enum heat_class)k;
	}
	if (cell->pages[HEAT_LOST])
		most = HEAT_LOST;
	if (most < HEAT_CLASSES_MOST)
		owed[most] -= 1;
	return most;
}

struct text {
	const struct heat *h;
	bool color, utf8;
};

static void put_sign(FILE *f, const struct text *t, enum heat_class class, enum heat_class *before)
{
	if (class == HEAT_CLASSES_MOST) {
		fputc(' ', f);
		return;
	}
	/* one sequence for a run of the same colour */
	if (t->color && class != *before)
		fprintf(f, "%s%s", OUTPUT_COLOR_END, signs[class].color);
	*before = class;
	fputs(t->utf8 ? signs[class].unicode : signs[class].ascii, f);
}

static void put_line(FILE *f, const struct text *t, const struct heat_lease *l, size_t first)
{
	double owed[HEAT_CLASSES_MOST] = { 0 };
	enum heat_class before = HEAT_CLASSES_MOST;
	char address[32];

	snprintf(address, sizeof address, "0x%" PRIx64, l->gpa + first * t->h->cell_pages * PAGE_BYTES);
	fprintf(f, "%13s  ", address);
	for (size_t i = first; i < l->n_cells && i < first + t->h->columns; i++)
		put_sign(f, t, turn(&l->cells[i], owed), &before);
	fputs(t->color ? OUTPUT_COLOR_END "\n" : "\n", f);
}

static void put_legend(FILE *f, const struct text *t)
{
	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++) {
		char size[32];
		enum heat_class before = HEAT_CLASSES_MOST;

		if (!t->h->pages[k])
			continue;
		units_size(t->h->pages[k] * PAGE_BYTES, size);
		fputs("  ", f);
		put_sign(f, t, (enum heat_class)k, &before);
		fprintf(f, "%s %-18s %10s  %5.1f %%\n", t->color ? OUTPUT_COLOR_END : "", heat_names[k], size,
			100.0 * (double)t->h->pages[k] / (double)t->h->all);
	}
}

static int put_text(FILE *f, const void *userdata)
{
	const struct text *t = userdata;
	const struct heat *h = t->h;
	char all[32], cell[32];

	units_size(h->all * PAGE_BYTES, all);
	units_size(h->cell_pages * PAGE_BYTES, cell);
	fprintf(f, "%s: %s leased; a cell is %s, a line %zu cells\n", h->vm, all, cell, h->columns);
	for (size_t i = 0; i < h->n_leases; i++) {
		fputc('\n', f);
		for (size_t first = 0; first < h->leases[i].n_cells; first += h->columns)
			put_line(f, t, &h->leases[i], first);
	}
	fputc('\n', f);
	put_legend(f, t);
	return ferror(f) ? -EIO : 0;
}

/* ---- for programs ---- */

static int put_json(FILE *f, const void *userdata)
{
	const struct heat *h = userdata;

	fputs("{\"schema\":\"memctl/1\",\"vm\":", f);
	value_print_string(f, h->vm);
	fprintf(f, ",\"page_bytes\":%u,\"cell_pages\":%" PRIu64 ",\"pages\":%" PRIu64 ",\n\"classes\":[", PAGE_BYTES,
		h->cell_pages, h->all);
	for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++) {
		fprintf(f, "%s{\"name\":", k ? "," : "");
		value_print_string(f, heat_names[k]);
		fprintf(f, ",\"pages\":%" PRIu64 "}", h->pages[k]);
	}
	fputs("],\n\"leases\":[", f);
	for (size_t i = 0; i < h->n_leases; i++) {
		const struct heat_lease *l = &h->leases[i];

		fprintf(f, "%s\n{\"lease\":%" PRIu64 ",\"gpa\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"cells\":[", i ? "," : "", l->id,
			l->gpa, l->pages);
		for (size_t n = 0; n < l->n_cells; n++) {
			fputs(n ? ",\n[" : "\n[", f);
			for (unsigned k = 0; k < HEAT_CLASSES_MOST; k++)
				fprintf(f, "%s%" PRIu32, k ? "," : "", l->cells[n].pages[k]);
			fputc(']', f);
		}
		fputs("]}", f);
	}
	fputs("]}\n", f);
	return ferror(f) ? -EIO : 0;
}

int run_heat(struct cli *c, char **arguments, unsigned n)
{
	bool to_file = c->file && strcmp(c->file, "-");
	struct heat h = { 0 };
	struct text t = { &h, c->style.color && !to_file, is_utf8() };
	int (*write)(FILE *f, const void *userdata) = c->json ? put_json : c->svg ? heat_svg : put_text;
	const void *what = write == put_text ? (const void *)&t : &h;
	int r, w = 0;

	(void)n;
	if (c->svg && c->text) {
		cli_error("--svg or --text, not both");
		return EXIT_USAGE;
	}
	if (c->file && !*c->file) {
		cli_error("-o: which file?");
		return EXIT_USAGE;
	}
	r = gather(c, arguments[0], &h);
	/* that stdout could not be written is said at the end */
	if (!r && to_file)
		w = output_replace(c->file, write, what);
	else if (!r)
		write(stdout, what);
	heat_fini(&h);
	if (w < 0) {
		cli_error("cannot write %s: %s", c->file, output_replace_error(w));
		return EXIT_SYSTEM;
	}
	return r;
}
