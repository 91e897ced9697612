/* `memctl top`: what is asked for is checked here; top_batch.c prints it, top_screen.c shows it. */
#include "cli/top.h"
#include "cli/when.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define DELAY_S 2.0

static int choose(struct cli *c, struct top_wish *w)
{
	const struct column *shown[COLUMNS_MAX];
	int n = columns_choose(top_columns, &c->style, shown);

	if (n < 0)
		return EXIT_USAGE;
	w->columns_given = c->style.columns != NULL;
	for (int i = 0; i < n; i++)
		w->columns[w->n_columns++] = (unsigned)(shown[i] - top_columns);
	return EXIT_OK;
}

static int no_such(const char *option, const char *given, const char *what)
{
	cli_error("--%s: \"%s\" is none of %s", option, given, what);
	return EXIT_USAGE;
}

static int wish(struct cli *c, struct top_wish *w)
{
	int sort = top_column_find(c->top.sort ? c->top.sort : "CNSM"), units;
	/* a program adds up what it reads: nothing of it is rounded away */
	const char *name = c->top.units ? c->top.units : c->style.bytes ? "B" : "MiB";
	int r = choose(c, w);

	units = top_units_find(name);
	if (!r && sort < 0)
		r = no_such("sort", c->top.sort, "the columns; memctl help top lists them");
	if (!r && (units < 0 || (c->top.batch && top_units[units].bytes == 0)))
		r = no_such("units", name, c->top.batch ? "B, KiB, MiB, GiB" : "auto, B, KiB, MiB, GiB");
	if (!r && c->top.at)
		r = when_parse("--at", c->top.at, time(NULL), &w->at_ms);
	if (r)
		return r;
	w->vm = c->vm;
	w->at = c->top.at != NULL;
	w->delay_s = c->top.delay_s;
	if (w->delay_s == 0 && !w->at)
		w->delay_s = DELAY_S;
	w->count = c->top.iterations > 0 ? c->top.iterations : HUGE_VAL;
	w->sort = (unsigned)sort;
	w->units = &top_units[units];
	return EXIT_OK;
}

int run_top(struct cli *c, char **arguments, unsigned n)
{
	struct top_wish w = { 0 };
	int r;

	(void)arguments;
	(void)n;
	r = wish(c, &w);
	if (r)
		return r;
	if (c->top.batch || c->json)
		return top_batch(c, &w);
#ifdef HAVE_NCURSES
	return top_screen(c, &w);
#else
	cli_error("this memctl was built without ncurses, so top has no screen; --batch and --json work");
	return EXIT_SYSTEM;
#endif
}
