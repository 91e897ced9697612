#include "tests/sim/plot.h"

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

static void draw(FILE *f, const struct host *h, const struct panel *p, double top)
{
	unsigned lines = p->value == free_memory ? 4 : h->n;
	double high = 1, last = h->samples[h->n_samples - 1].t;

	for (unsigned k = 0; k < h->n_samples; k++)
		for (unsigned i = 0; i < lines; i++)
			if (p->value(h, &h->samples[k], i) > high)
				high = p->value(h, &h->samples[k], i);
	fprintf(f, "<text x='%d' y='%g' font-weight='bold'>%s</text>\n", LEFT, top - 8, p->title);
	for (int k = 0; k <= 4; k++)
		fprintf(f, "<path d='M%d %g h%d' stroke='#ddd'/><text x='%d' y='%g' text-anchor='end'>%.*f</text>\n", LEFT,
			top + HEIGHT - HEIGHT * k / 4.0, WIDTH, LEFT - 6, top + HEIGHT - HEIGHT * k / 4.0 + 4, high < 20, high * k / 4);
	for (int k = 0; k <= 6; k++)
		fprintf(f, "<text x='%g' y='%g' text-anchor='middle'>%.0f s</text>\n", LEFT + WIDTH * k / 6.0, top + HEIGHT + 14,
			last * k / 6);
	for (unsigned i = 0; i < lines; i++) {
		fprintf(f, "<path fill='none' stroke='%s' stroke-width='1.4'%s d='", colours[i],
			p->value == free_memory && i ? " stroke-dasharray='4 3'" : "");
		for (unsigned k = 0; k < h->n_samples; k++)
			fprintf(f, "%c%.1f %.1f", k ? 'L' : 'M', LEFT + WIDTH * h->samples[k].t / (last > 0 ? last : 1),
				top + HEIGHT - HEIGHT * p->value(h, &h->samples[k], i) / high);
		fprintf(f, "'/>\n");
	}
}

void plot(const struct host *h, const char *name, const char *title)
{
	char path[4200];
	FILE *f;

	if (!*folder || !h->n_samples)
		return;
	snprintf(path, sizeof path, "%s/%s.svg", folder, name);
	f = fopen(path, "w");
	if (!f) {
		perror(path);
		return;
	}
	fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%zu' font-family='sans-serif' font-size='11'>\n"
		"<rect width='100%%' height='100%%' fill='white'/><text x='%d' y='18' font-size='14'>%s</text>\n",
		LEFT + WIDTH + 30, TOP + PANELS * (HEIGHT + GAP) + 20, LEFT, title);
	for (unsigned i = 0; i < h->n; i++)
		fprintf(f, "<text x='%u' y='18' fill='%s' text-anchor='end'>%s</text>\n", LEFT + WIDTH - 90 * (h->n - 1 - i), colours[i],
			h->guests[i].name);
	for (unsigned i = 0; i < PANELS; i++)
		draw(f, h, &panels[i], TOP + 10 + i * (HEIGHT + GAP));
	fprintf(f, "</svg>\n");
	fclose(f);
}
