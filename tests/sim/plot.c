#include "tests/sim/plot.h"

#include "tests/lib/svg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WIDTH  760
#define HEIGHT 150		/* of a panel */
#define LEFT   70
#define TOP    40
#define GAP    34

static char folder[4096];

static double charged(const struct host *h, const struct sample *s, unsigned i)
{
	return s->vm[i].charged / MIB;
}

static double active(const struct host *h, const struct sample *s, unsigned i)
{
	return s->vm[i].active / MIB;
}

static double balloon(const struct host *h, const struct sample *s, unsigned i)
{
	return s->vm[i].balloon / MIB;
}

static double away(const struct host *h, const struct sample *s, unsigned i)
{
	return s->vm[i].out / MIB;
}

static double speed(const struct host *h, const struct sample *s, unsigned i)
{
	return s->vm[i].done / 1000;
}

static double free_memory(const struct host *h, const struct sample *s, unsigned i)
{
	return (i == 0 ? s->free : (double)(i == 1 ? h->plan.goal_frames : i == 2 ? h->plan.soft_frames : h->plan.low_frames)) / MIB;
}

static const struct panel {
	const char *title;
	double (*value)(const struct host *h, const struct sample *s, unsigned i);
} panels[] = {
	{ "charged (MiB)", charged },
	{ "active, as estimated (MiB)", active },
	{ "in the balloon (MiB)", balloon },
	{ "compressed and swapped (MiB)", away },
	{ "work (1000 accesses a second)", speed },
	{ "free memory, goal, soft, low (MiB)", free_memory },
};
#define PANELS (sizeof panels / sizeof *panels)
static const char *const colours[VMS_MOST] = { "#1b6ca8", "#c8553d", "#3a7d44", "#8d5a97", "#b8860b", "#2a9d8f", "#6d6875", "#222" };

void plot_begin(int *argc, char **argv)
{
	const char *build = getenv("MEMCTL_BUILD");

	if (build)
		snprintf(folder, sizeof folder, "%s/sim", build);
	for (int i = 1; i + 1 < *argc; i++) {
		if (strcmp(argv[i], "--plots"))
			continue;
		snprintf(folder, sizeof folder, "%s", argv[i + 1]);
		memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i - 1) * sizeof *argv);
		*argc -= 2;
		break;
	}
	if (*folder)
		mkdir(folder, 0755);
}

static void draw(FILE *f, const struct host *h, const struct panel *what, double top)
{
	unsigned lines = what->value == free_memory ? 4 : h->n;
	double high = 1, last = h->samples[h->n_samples - 1].t;
	struct svg_panel p = { f, LEFT, top, WIDTH, HEIGHT };
	char label[32];

	for (unsigned k = 0; k < h->n_samples; k++)
		for (unsigned i = 0; i < lines; i++)
			if (what->value(h, &h->samples[k], i) > high)
				high = what->value(h, &h->samples[k], i);
	svg_heading(&p, what->title);
	for (int k = 0; k <= 4; k++) {
		snprintf(label, sizeof label, "%.*f", high < 20, high * k / 4);
		svg_across(&p, k / 4.0, "#ddd", label);
	}
	for (int k = 0; k <= 6; k++) {
		snprintf(label, sizeof label, "%.0f s", last * k / 6);
		svg_below(&p, k / 6.0, label);
	}
	for (unsigned i = 0; i < lines; i++) {
		svg_line_begin(&p, colours[i], what->value == free_memory && i);
		for (unsigned k = 0; k < h->n_samples; k++)
			svg_line_to(&p, h->samples[k].t / (last > 0 ? last : 1), what->value(h, &h->samples[k], i) / high, !k);
		svg_line_end(&p);
	}
}

void plot(const struct host *h, const char *name, const char *title)
{
	char path[4200], style[32];
	FILE *f;

	if (!*folder || !h->n_samples)
		return;
	snprintf(path, sizeof path, "%s/%s.svg", folder, name);
	f = svg_begin(path, LEFT + WIDTH + 30, (int)(TOP + PANELS * (HEIGHT + GAP) + 20), title);
	if (!f)
		return;
	for (unsigned i = 0; i < h->n; i++) {
		snprintf(style, sizeof style, "fill='%s'", colours[i]);
		svg_text(f, LEFT + WIDTH - 90 * (h->n - 1 - i), 18, SVG_RIGHT, style, h->guests[i].name);
	}
	for (unsigned i = 0; i < PANELS; i++)
		draw(f, h, &panels[i], TOP + 10 + i * (HEIGHT + GAP));
	svg_end(f);
}
