#include "cli/svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 character at `s`, 0 if it is none that a document may hold. */
static unsigned character(const unsigned char *s)
{
	unsigned n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : *s >= 0xe0 && *s < 0xf0 ? 3 : *s >= 0xf0 && *s < 0xf5 ? 4 : 0;

	if (n == 1)
		return *s >= 0x20 && *s != 0x7f ? 1 : *s == '\t' || *s == '\n' ? 1 : 0;
	for (unsigned i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* written longer than need be; a half of a pair; beyond the last one; C1 controls; U+FFFE and U+FFFF */
	if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] >= 0xa0) || (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] >= 0x90) ||
		(*s == 0xc2 && s[1] < 0xa0) || (*s == 0xef && s[1] == 0xbf && s[2] >= 0xbe))
		return 0;
	return n;
}

void svg_text(FILE *f, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		unsigned n = character(s);

		if (!n)
			fputs("\xef\xbf\xbd", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '>')
			fputs("&gt;", f);
		else if (*s == '"')
			fputs("&quot;", f);
		else if (*s == '\'')
			fputs("&#39;", f);
		else
			fwrite(s, 1, n, f);
		s += n ? n : 1;
	}
}

void svg_style(FILE *f, const char *root)
{
	fprintf(f, "%s{", root);
#define SVG_STATE(word, label, light, dark, pattern) "--" #word ":" light ";"
	fputs(SVG_STATES(SVG_STATE) SVG_SERIES(SVG_STATE), f);
#undef SVG_STATE
	fprintf(f, "}\n@media (prefers-color-scheme:dark){%s{", root);
#define SVG_STATE(word, label, light, dark, pattern) "--" #word ":" dark ";"
	fputs(SVG_STATES(SVG_STATE) SVG_SERIES(SVG_STATE), f);
#undef SVG_STATE
	fputs("}}\n"
#define SVG_STATE(word, label, light, dark, pattern) "." #word "{fill:var(--" #word ")}"
	      SVG_STATES(SVG_STATE) SVG_SERIES(SVG_STATE)
#undef SVG_STATE
	      "\n", f);
}

/* Strokes in the page's colour on the state's own. */
void svg_patterns(FILE *f)
{
	static const struct {
		const char *name, *marks;
	} patterns[] = {
		{ "none", "" },
		{ "dots", "<circle cx='2' cy='2' r='1'/><circle cx='6' cy='6' r='1'/>" },
		{ "slopes", "<path d='M-2 2L2 -2M0 8L8 0M6 10L10 6' fill='none' stroke='var(--paper)'/>" },
		{ "lines", "<path d='M0 2H8M0 6H8' fill='none' stroke='var(--paper)'/>" },
		{ "grid", "<path d='M0 4H8M4 0V8' fill='none' stroke='var(--paper)'/>" },
		{ "cross", "<path d='M0 0L8 8M8 0L0 8' fill='none' stroke='var(--paper)' stroke-width='1.6'/>" },
		{ "rare", "<circle cx='4' cy='4' r='.8'/>" },
	};
	static const struct {
		const char *word, *pattern;
	} states[] = {
#define SVG_STATE(word, label, light, dark, pattern) { #word, #pattern },
		SVG_STATES(SVG_STATE) SVG_SERIES(SVG_STATE)
#undef SVG_STATE
	};

	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		for (size_t k = 0; k < sizeof patterns / sizeof *patterns; k++)
			if (!strcmp(patterns[k].name, states[i].pattern))
				fprintf(f, "<pattern id='%s-pattern' width='8' height='8' patternUnits='userSpaceOnUse'>"
					"<rect width='8' height='8' class='%s'/><g fill='var(--paper)' opacity='.55'>%s</g></pattern>\n",
					states[i].word, states[i].word, patterns[k].marks);
}

void svg_number(FILE *f, double n)
{
	long tenths = lround(n * 10);

	if (tenths < 0)
		fputc('-', f);
	tenths = labs(tenths);
	if (tenths % 10)
		fprintf(f, "%ld.%ld", tenths / 10, tenths % 10);
	else
		fprintf(f, "%ld", tenths / 10);
}

void svg_path_begin(struct svg_path *p, FILE *f, const char *attributes)
{
	*p = (struct svg_path){ .f = f };
	fprintf(f, "<path %s d='", attributes);
}

void svg_path_lift(struct svg_path *p)
{
	p->points = 0;
}

void svg_path_to(struct svg_path *p, double x, double y)
{
	fputc(p->points++ ? 'L' : 'M', p->f);
	svg_number(p->f, x);
	fputc(' ', p->f);
	svg_number(p->f, y);
}

void svg_path_close(struct svg_path *p)
{
	if (p->points)
		fputc('Z', p->f);
	p->points = 0;
}

void svg_path_end(struct svg_path *p)
{
	fputs("'/>\n", p->f);
}

double svg_step(double most, unsigned marks, int binary)
{
	double step = 1;

	if (!(most > 0) || !marks)
		return 1;
	if (binary) {
		while (step * marks < most)
			step *= 2;
		while (step / 2 * marks >= most && step > 1)
			step /= 2;
		return step;
	}
	step = pow(10, floor(log10(most / marks)));
	return step * marks >= most ? step : step * 2 * marks >= most ? step * 2 : step * 5 * marks >= most ? step * 5 : step * 10;
}
