/* What the files of top's screen share.  top_screen.c runs it and asks for samples; top_keys.c says what a key does; top_list.c,
 * top_detail.c and top_help.c draw, and change nothing but where they are scrolled to. */
#pragma once

#include "cli/top.h"
#include "cli/top_terminal.h"

/* ---- how a VM fared, for graphs (top_trail.c) ---- */

enum top_curve { CURVE_CONSUMED, CURVE_SWAP, CURVE_LATENCY, TOP_CURVES };

#define TRAIL_POINTS 1024u
struct top_trail {
	char vm[64];
	struct top_point {
		uint64_t ts_ms;
		double value[TOP_CURVES];
	} points[TRAIL_POINTS];		/* in the order of time */
	size_t n;
};

/* Begin with what memctld has recorded, if anything: so many steps up to `until_ms`. */
void trail_begin(struct top_trail *t, struct cli *c, const char *vm, uint64_t until_ms, unsigned step_s, unsigned steps);
void trail_add(struct top_trail *t, const struct top_sample *s);

/* ---- the screen ---- */

enum top_view { VIEW_LIST, VIEW_DETAIL, VIEW_HELP, VIEW_SORT, VIEW_COLUMNS };
enum top_prompt { PROMPT_NONE, PROMPT_FILTER, PROMPT_DELAY, PROMPT_TIME };

struct top_ui {
	struct cli *c;
	const char *only;		/* --vm, or NULL */
	double delay_s, left;		/* left: samples until the end */
	struct top_sample *live;	/* the last of now, or NULL */
	struct top_replay *replay;
	bool past, paused;		/* past: what is shown is the replay's */
	char trouble[320];		/* why there is no new sample, or "" */
	char message[320];		/* said once, until the next key */
	bool end;

	enum top_view view;
	enum top_prompt prompt;
	char typed[64];

	const struct top_units *units;
	bool on[TOP_COLUMNS_MAX];	/* whether a column is wanted */
	unsigned order[TOP_COLUMNS_MAX], n_order;	/* in which order; all columns */
	bool columns_given;		/* in that order as they fit, and not by rank */
	unsigned sort;
	bool inverted;
	char filter[64];
	char selected[64];
	char (*tags)[64];
	size_t n_tags;
	unsigned shift;			/* columns that are scrolled off to the left */
	size_t first;			/* VMs that are scrolled off */
	size_t scroll;			/* lines of a page of text, or of detail */
	unsigned menu;			/* the place in a menu */
	struct top_trail trail;
};

/* What is shown: now, or then; NULL: nothing yet. */
const struct top_sample *ui_sample(const struct top_ui *ui);
/* The VMs that the filter leaves, sorted; how many.  The pointers' array is the caller's to free; NULL: no memory, or none. */
size_t ui_vms(const struct top_ui *ui, const struct top_vm ***ret);
bool ui_is_tagged(const struct top_ui *ui, const char *vm);
/* What a column of a graph stands for: a step of the history, or the time between two samples. */
double ui_step_s(const struct top_ui *ui);
/* The detail of another VM begins. */
void ui_open(struct top_ui *ui, const char *vm);
/* Go to another time of the past: so many samples on or back from what is shown; or to a time. */
void ui_travel(struct top_ui *ui, long samples);
void ui_travel_to(struct top_ui *ui, uint64_t ts_ms);
void ui_return(struct top_ui *ui);

void top_draw_list(struct top_ui *ui);
void top_draw_detail(struct top_ui *ui);
void top_draw_help(struct top_ui *ui);
void top_draw_menu(struct top_ui *ui);
/* The first and the last line of every view: the clock, and what can be done. */
void top_draw_clock(const struct top_ui *ui);
void top_draw_foot(const struct top_ui *ui, const char *const keys[][2]);
/* What has to be said, if anything: else nothing is there.  How many cells. */
int top_draw_message(const struct top_ui *ui, int row);

/* The keys, for the help. */
extern const struct top_key_row {
	int keys[4];
	const char *shown, *help;
	void (*act)(struct top_ui *ui);
} top_key_rows[];

void top_key(struct top_ui *ui, int key);
