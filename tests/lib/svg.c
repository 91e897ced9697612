#include "tests/lib/svg.h"

#include <math.h>

FILE *svg_begin(const char *path, int width, int height, const char *title)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		return NULL;
	}
	fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='11'>\n"
		"<rect width='100%%' height='100%%' fill='white'/><text x='70' y='18' font-size='14'>%s</text>\n", width, height,
		title);
	return f;
}

void svg_end(FILE *f)
{
	fprintf(f, "</svg>\n");
	fclose(f);
}

void svg_text(FILE *f, double x, double y, enum svg_anchor anchor, const char *style, const char *text)
{
	static const char *const anchors[] = { [SVG_LEFT] = "start", [SVG_MIDDLE] = "middle", [SVG_RIGHT] = "end" };

	fprintf(f, "<text x='%g' y='%g' text-anchor='%s' %s>%s</text>\n", x, y, anchors[anchor], style, text);
}

void svg_heading(const struct svg_panel *p, const char *text)
{
	svg_text(p->f, p->left, p->top - 8, SVG_LEFT, "font-weight='bold'", text);
}

static double height_of(const struct svg_panel *p, double at)
{
	return p->top + p->height * (1 - at);
}

void svg_across(const struct svg_panel *p, double at, const char *colour, const char *label)
{
	fprintf(p->f, "<path d='M%g %g h%g' stroke='%s'/>\n", p->left, height_of(p, at), p->width, colour);
	svg_text(p->f, p->left - 6, height_of(p, at) + 4, SVG_RIGHT, "", label);
}

void svg_below(const struct svg_panel *p, double at, const char *label)
{
	svg_text(p->f, p->left + p->width * at, p->top + p->height + 14, SVG_MIDDLE, "", label);
}

void svg_line_begin(const struct svg_panel *p, const char *colour, bool dashed)
{
	fprintf(p->f, "<path fill='none' stroke='%s' stroke-width='1.4'%s d='", colour, dashed ? " stroke-dasharray='4 3'" : "");
}

void svg_line_to(const struct svg_panel *p, double x, double y, bool first)
{
	fprintf(p->f, "%c%.1f %.1f", first ? 'M' : 'L', p->left + p->width * x, height_of(p, y));
}

void svg_line_end(const struct svg_panel *p)
{
	fprintf(p->f, "'/>\n");
}

void svg_bar(const struct svg_panel *p, double x, double width, double from, double to, const char *colour)
{
	fprintf(p->f, "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s'/>\n", p->left + p->width * x,
		height_of(p, fmax(from, to)), p->width * width, p->height * fabs(to - from), colour);
}
