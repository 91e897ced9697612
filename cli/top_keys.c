/* What each key does: htop's keys, and esxtop's where they do not clash; [ and ] as atop steps through time. */
#include "cli/top_screen.h"
#include "cli/when.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_MIN 0.1
#define DELAY_MAX 86400.0
#define FAR	  60	/* samples of { and } */

/* ---- the list ---- */

static size_t place_of_selected(const struct top_ui *ui, const struct top_vm *const *vms, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(vms[i]->name, ui->selected))
			return i;
	return 0;
}

static void move(struct top_ui *ui, long by)
{
	const struct top_vm **vms;
	size_t n = ui_vms(ui, &vms);
	long at;

	if (n) {
		at = (long)place_of_selected(ui, vms, n) + by;
		at = at < 0 ? 0 : at >= (long)n ? (long)n - 1 : at;
		snprintf(ui->selected, sizeof ui->selected, "%s", vms[at]->name);
	}
	free(vms);
}

static void up(struct top_ui *ui)
{
	move(ui, -1);
}

static void down(struct top_ui *ui)
{
	move(ui, 1);
}

static void page_up(struct top_ui *ui)
{
	move(ui, -(terminal_rows() / 2));
}

static void page_down(struct top_ui *ui)
{
	move(ui, terminal_rows() / 2);
}

static void to_first(struct top_ui *ui)
{
	move(ui, -100000);
}

static void to_last(struct top_ui *ui)
{
	move(ui, 100000);
}

static void scroll_left(struct top_ui *ui)
{
	ui->shift -= ui->shift > 0;
}

static void scroll_right(struct top_ui *ui)
{
	unsigned on = 0;

	for (unsigned i = 0; i < top_columns_count; i++)
		on += ui->on[i];
	ui->shift += ui->shift + 2 < on;
}

static void open_detail(struct top_ui *ui)
{
	if (!top_find(ui_sample(ui), ui->selected))
		return;
	ui->view = VIEW_DETAIL;
	ui->scroll = 0;
	ui_open(ui, ui->selected);
}

static void tag(struct top_ui *ui)
{
	for (size_t i = 0; i < ui->n_tags; i++)
		if (!strcmp(ui->tags[i], ui->selected)) {
			memmove(ui->tags + i, ui->tags + i + 1, (--ui->n_tags - i) * sizeof *ui->tags);
			down(ui);
			return;
		}
	if (*ui->selected) {
		char(*more)[64] = realloc(ui->tags, (ui->n_tags + 1) * sizeof *more);

		if (!more)
			return;
		ui->tags = more;
		memcpy(ui->tags[ui->n_tags++], ui->selected, sizeof *ui->tags);
	}
	down(ui);
}

static void untag_all(struct top_ui *ui)
{
	ui->n_tags = 0;
}

/* ---- sorting, columns, units ---- */

static void sort_by(struct top_ui *ui, const char *column)
{
	unsigned to = (unsigned)top_column_find(column);

	ui->inverted = ui->sort == to ? ui->inverted : false;
	ui->sort = to;
	ui->first = 0;
	snprintf(ui->message, sizeof ui->message, "sorted by %s", column);
}

static void sort_latency(struct top_ui *ui)
{
	sort_by(ui, "%LAT_M");
}

static void sort_memory(struct top_ui *ui)
{
	sort_by(ui, "CNSM");
}

static void sort_balloon(struct top_ui *ui)
{
	sort_by(ui, "MCTLSZ");
}

static void sort_swap(struct top_ui *ui)
{
	sort_by(ui, "SWCUR");
}

static void sort_name(struct top_ui *ui)
{
	sort_by(ui, "NAME");
}

static void invert(struct top_ui *ui)
{
	ui->inverted = !ui->inverted;
}

/* To the next column that is wanted, as < and > do in top. */
static void sort_next(struct top_ui *ui, int by)
{
	unsigned at = 0;

	while (at < ui->n_order && ui->order[at] != ui->sort)
		at++;
	for (int i = (int)at + by; i >= 0 && i < (int)ui->n_order; i += by)
		if (ui->on[ui->order[i]]) {
			sort_by(ui, top_columns[ui->order[i]].name);
			return;
		}
}

static void sort_left(struct top_ui *ui)
{
	sort_next(ui, -1);
}

static void sort_right(struct top_ui *ui)
{
	sort_next(ui, 1);
}

static void open_menu(struct top_ui *ui, enum top_view view)
{
	ui->view = view;
	ui->menu = 0;
	while (view == VIEW_SORT && ui->menu + 1 < ui->n_order && ui->order[ui->menu] != ui->sort)
		ui->menu++;
}

static void open_sort(struct top_ui *ui)
{
	open_menu(ui, VIEW_SORT);
}

static void open_columns(struct top_ui *ui)
{
	open_menu(ui, VIEW_COLUMNS);
}

static void next_units(struct top_ui *ui)
{
	ui->units = ui->units + 1 < top_units + top_units_count ? ui->units + 1 : top_units;
	snprintf(ui->message, sizeof ui->message, "sizes in %s", ui->units->bytes > 0 ? ui->units->name : "whatever fits: K, M, G");
}

/* ---- time ---- */

static void ask(struct top_ui *ui, enum top_prompt prompt, const char *begin)
{
	ui->prompt = prompt;
	snprintf(ui->typed, sizeof ui->typed, "%s", begin);
}

static void ask_filter(struct top_ui *ui)
{
	ask(ui, PROMPT_FILTER, ui->filter);
}

static void ask_delay(struct top_ui *ui)
{
	char text[32];

	snprintf(text, sizeof text, "%g", ui->delay_s);
	ask(ui, PROMPT_DELAY, text);
}

static void ask_time(struct top_ui *ui)
{
	ask(ui, PROMPT_TIME, "");
}

static void pause_samples(struct top_ui *ui)
{
	ui->paused = !ui->paused;
}

static void back(struct top_ui *ui)
{
	ui_travel(ui, -1);
}

static void on(struct top_ui *ui)
{
	ui_travel(ui, 1);
}

static void far_back(struct top_ui *ui)
{
	ui_travel(ui, -FAR);
}

static void far_on(struct top_ui *ui)
{
	ui_travel(ui, FAR);
}

static void to_now(struct top_ui *ui)
{
	ui->paused = false;
	if (ui->past)
		ui_return(ui);
}

/* ---- the rest ---- */

static void help(struct top_ui *ui)
{
	ui->view = VIEW_HELP;
	ui->scroll = 0;
}

static void quit(struct top_ui *ui)
{
	ui->end = true;
}

const struct top_key_row top_key_rows[] = {
	{ { TERMINAL_UP, 'k' }, "Up, k", "select a VM", up },
	{ { TERMINAL_DOWN, 'j' }, "Down, j", "likewise", down },
	{ { TERMINAL_PAGE_UP }, "Page Up", "half a screen up", page_up },
	{ { TERMINAL_PAGE_DOWN }, "Page Down", "half a screen down", page_down },
	{ { TERMINAL_HOME, 'g' }, "Home, g", "the first VM", to_first },
	{ { TERMINAL_LAST, 'G' }, "End, G", "the last VM", to_last },
	{ { TERMINAL_LEFT }, "Left", "columns that do not fit on the screen", scroll_left },
	{ { TERMINAL_RIGHT }, "Right", "likewise", scroll_right },
	{ { TERMINAL_ENTER }, "Enter", "the selected VM by itself: where its memory is, how it fared, every number in words", open_detail },
	{ { ' ' }, "Space", "tag a VM, or not: the tagged ones are added up in a line, and stay whatever the filter", tag },
	{ { 'U' }, "U", "no tags any more", untag_all },
	{ { TERMINAL_F(6), 'o' }, "F6, o", "choose a column to sort by", open_sort },
	{ { '<' }, "<", "sort by the column to the left", sort_left },
	{ { '>' }, ">", "sort by the column to the right", sort_right },
	{ { 'P' }, "P", "sort by %LAT_M: who waits most", sort_latency },
	{ { 'M' }, "M", "sort by CNSM: who costs most", sort_memory },
	{ { 'B' }, "B", "sort by MCTLSZ: the largest balloon", sort_balloon },
	{ { 'W' }, "W", "sort by SWCUR: most on the disk", sort_swap },
	{ { 'N' }, "N", "sort by name", sort_name },
	{ { 'I', 'R' }, "I, R", "sort the other way", invert },
	{ { TERMINAL_F(4), '/', '\\' }, "F4, /", "only VMs with this in their names", ask_filter },
	{ { TERMINAL_F(2), 'f' }, "F2, f", "choose columns, and their order", open_columns },
	{ { 'u' }, "u", "other units: MiB, GiB, whatever fits, KiB, B", next_units },
	{ { 's', 'd' }, "s, d", "seconds between samples", ask_delay },
	{ { 'p', 'z' }, "p, z", "pause, or go on", pause_samples },
	{ { '[', 't' }, "[, t", "back in time, through what memctld has recorded", back },
	{ { ']', 'T' }, "], T", "on in time; after the last record it is now again", on },
	{ { '{' }, "{", "back by sixty samples", far_back },
	{ { '}' }, "}", "on by sixty samples", far_on },
	{ { 'b' }, "b", "go to a time", ask_time },
	{ { 'l' }, "l", "now again", to_now },
	{ { '?', 'h', TERMINAL_F(1) }, "?, h, F1", "this", help },
	{ { 'q', TERMINAL_F(10) }, "q, F10", "end", quit },
	{ { 0 }, NULL, NULL, NULL },
};

/* ---- keys by view ---- */

static bool act(struct top_ui *ui, int key)
{
	for (const struct top_key_row *k = top_key_rows; k->shown; k++)
		for (size_t i = 0; i < sizeof k->keys / sizeof *k->keys; i++)
			if (k->keys[i] && k->keys[i] == key) {
				k->act(ui);
				return true;
			}
	return false;
}

static void finish(struct top_ui *ui)
{
	enum top_prompt prompt = ui->prompt;
	uint64_t ms;
	double seconds;
	char *end;

	ui->prompt = PROMPT_NONE;
	if (prompt == PROMPT_DELAY) {
		seconds = strtod(ui->typed, &end);
		if (end == ui->typed || *end || !(seconds >= DELAY_MIN && seconds <= DELAY_MAX))
			snprintf(ui->message, sizeof ui->message, "\"%s\" is no number of seconds from %g to %g", ui->typed, DELAY_MIN, DELAY_MAX);
		else
			ui->delay_s = seconds;
	} else if (prompt == PROMPT_TIME && *ui->typed) {
		if (when_read(ui->typed, time(NULL), &ms) < 0)
			snprintf(ui->message, sizeof ui->message, "\"%s\" is no time; it takes 10m, 1h, 2d (ago), 14:30, or 2026-01-31T14:30", ui->typed);
		else
			ui_travel_to(ui, ms);
	}
}

/* What is typed; the filter acts while it is. */
static void type(struct top_ui *ui, int key)
{
	size_t n = strlen(ui->typed);

	if (key == TERMINAL_ENTER) {
		finish(ui);
	} else if (key == TERMINAL_ESCAPE) {
		if (ui->prompt == PROMPT_FILTER)
			*ui->filter = 0;
		ui->prompt = PROMPT_NONE;
	} else if (key == TERMINAL_BACKSPACE) {
		ui->typed[n - (n > 0)] = 0;
	} else if (key == 'U' - '@') {
		*ui->typed = 0;
	} else if (key >= ' ' && key < 127 && n + 1 < sizeof ui->typed) {
		ui->typed[n] = (char)key;
		ui->typed[n + 1] = 0;
	}
	if (ui->prompt == PROMPT_FILTER)
		snprintf(ui->filter, sizeof ui->filter, "%s", ui->typed);
}

static void move_column(struct top_ui *ui, int by)
{
	unsigned at = ui->menu, to = at + (unsigned)by, column;

	/* NAME stays where it is */
	if (at == 0 || (by < 0 && at == 1) || to >= ui->n_order)
		return;
	column = ui->order[at];
	ui->order[at] = ui->order[to];
	ui->order[to] = column;
	ui->menu = to;
}

static void key_in_menu(struct top_ui *ui, int key)
{
	unsigned last = ui->n_order - 1, page = terminal_rows() > 4 ? (unsigned)terminal_rows() - 4 : 1;

	if (key == TERMINAL_UP || key == 'k')
		ui->menu -= ui->menu > 0;
	else if (key == TERMINAL_DOWN || key == 'j')
		ui->menu += ui->menu < last;
	else if (key == TERMINAL_PAGE_UP)
		ui->menu -= ui->menu < page ? ui->menu : page;
	else if (key == TERMINAL_PAGE_DOWN)
		ui->menu = ui->menu + page > last ? last : ui->menu + page;
	else if (key == TERMINAL_HOME)
		ui->menu = 0;
	else if (key == TERMINAL_LAST)
		ui->menu = last;
	else if (ui->view == VIEW_COLUMNS && key == ' ' && ui->order[ui->menu] != TOP_COLUMN_NAME)
		ui->on[ui->order[ui->menu]] = !ui->on[ui->order[ui->menu]];
	else if (ui->view == VIEW_COLUMNS && (key == '<' || key == TERMINAL_LEFT))
		move_column(ui, -1);
	else if (ui->view == VIEW_COLUMNS && (key == '>' || key == TERMINAL_RIGHT))
		move_column(ui, 1);
	else if (key == TERMINAL_ENTER || key == TERMINAL_ESCAPE || key == 'q') {
		if (ui->view == VIEW_SORT && key == TERMINAL_ENTER)
			sort_by(ui, top_columns[ui->order[ui->menu]].name);
		ui->view = VIEW_LIST;
	}
}

static void key_in_help(struct top_ui *ui, int key)
{
	size_t page = terminal_rows() > 4 ? (size_t)terminal_rows() - 3 : 1;

	if (key == TERMINAL_UP || key == 'k')
		ui->scroll -= ui->scroll > 0;
	else if (key == TERMINAL_DOWN || key == 'j')
		ui->scroll++;
	else if (key == TERMINAL_PAGE_UP)
		ui->scroll -= ui->scroll < page ? ui->scroll : page;
	else if (key == TERMINAL_PAGE_DOWN || key == ' ')
		ui->scroll += page;
	else if (key == TERMINAL_HOME || key == 'g')
		ui->scroll = 0;
	else if (key == TERMINAL_LAST || key == 'G')
		ui->scroll = SIZE_MAX / 2;	/* the end, which drawing finds */
	else
		ui->view = VIEW_LIST;
}

static void other_vm(struct top_ui *ui, int by)
{
	move(ui, by);
	ui_open(ui, ui->selected);
}

static void key_in_detail(struct top_ui *ui, int key)
{
	if (key == TERMINAL_ESCAPE || key == TERMINAL_ENTER || key == TERMINAL_BACKSPACE)
		ui->view = VIEW_LIST;
	else if (key == TERMINAL_UP || key == 'k')
		ui->scroll -= ui->scroll > 0;
	else if (key == TERMINAL_DOWN || key == 'j')
		ui->scroll++;
	else if (key == TERMINAL_LEFT || key == '<')
		other_vm(ui, -1);
	else if (key == TERMINAL_RIGHT || key == '>')
		other_vm(ui, 1);
	else
		act(ui, key);
}

void top_key(struct top_ui *ui, int key)
{
	*ui->message = 0;
	if (key == TERMINAL_RESIZED)
		return;
	if (ui->prompt != PROMPT_NONE)
		type(ui, key);
	else if (ui->view == VIEW_HELP)
		key_in_help(ui, key);
	else if (ui->view == VIEW_SORT || ui->view == VIEW_COLUMNS)
		key_in_menu(ui, key);
	else if (ui->view == VIEW_DETAIL)
		key_in_detail(ui, key);
	else if (key == TERMINAL_ESCAPE)
		*ui->filter = 0;
	else
		act(ui, key);
}
