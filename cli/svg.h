/* Pictures as text: SVG elements, for a file of their own or inside a page, and text that markup cannot be made of.
 *
 * The same states look the same everywhere: SVG_STATES has each one's colours, in the light and in the dark, and its pattern, which
 * tells it from its neighbours without colour. */
#pragma once

#include <stdint.h>
#include <stdio.h>

/* SVG_STATE(word, label, colour on light, colour on dark, pattern).  Colours are at least 3 to 1 against the page (text is never
 * drawn in them). */
#define SVG_STATES(SVG_STATE) \
	SVG_STATE(resident, "resident", "#2f6db5", "#5b9be0", none) \
	SVG_STATE(shared, "shared", "#7d5ba6", "#b294d6", dots) \
	SVG_STATE(compressed, "compressed", "#14857a", "#3dbcab", slopes) \
	SVG_STATE(swapped, "swapped", "#c2502a", "#ee8a60", lines) \
	SVG_STATE(ballooned, "ballooned", "#94700a", "#d3a936", grid) \
	SVG_STATE(lost, "lost", "#b3122f", "#ff6478", cross) \
	SVG_STATE(zero, "untouched", "#858b94", "#858b94", rare)

/* Others, by number: VMs beside one another.  The last one is for what is left of them. */
#define SVG_SERIES(SVG_STATE) \
	SVG_STATE(s0, "", "#2f6db5", "#5b9be0", none) \
	SVG_STATE(s1, "", "#c2502a", "#ee8a60", slopes) \
	SVG_STATE(s2, "", "#14857a", "#3dbcab", dots) \
	SVG_STATE(s3, "", "#7d5ba6", "#b294d6", lines) \
	SVG_STATE(s4, "", "#94700a", "#d3a936", grid) \
	SVG_STATE(s5, "", "#a83f6f", "#e183ad", cross) \
	SVG_STATE(rest, "", "#858b94", "#858b94", rare)
#define SVG_SERIES_MOST 6

/* The text with what markup would take for its own written otherwise; what no document may hold (control characters, broken UTF-8)
 * becomes U+FFFD.  For content and for attributes in either kind of quotes. */
void svg_text(FILE *f, const char *text);

/* The definitions that elements of class="STATE" and the fills url(#STATE-pattern) refer to: colours as custom properties of
 * `root` (":root", or "svg" in a file of its own), in the light and in the dark. */
void svg_style(FILE *f, const char *root);
void svg_patterns(FILE *f);

/* A number as SVG takes it, with at most one decimal: the same in every locale. */
void svg_number(FILE *f, double n);

/* A path of horizontal and vertical steps, lines and areas; coordinates are rounded to a tenth. */
struct svg_path {
	FILE *f;
	unsigned points;	/* of the open part */
};
void svg_path_begin(struct svg_path *p, FILE *f, const char *attributes);
/* What was drawn before is a part of its own. */
void svg_path_lift(struct svg_path *p);
void svg_path_to(struct svg_path *p, double x, double y);
/* Back to where the part began. */
void svg_path_close(struct svg_path *p);
void svg_path_end(struct svg_path *p);

/* A round step of an axis, so that [0, most] has at most `marks` of them: 1, 2, 5 times a power of ten, or with `binary` of
 * two. */
double svg_step(double most, unsigned marks, int binary);
