/* What is on the screen and which keys it takes, in words; and the menus of columns.  All of it from the tables. */
#include "cli/top_screen.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TERM_CELLS 12

/* A page of lines, of which some are on the screen. */
struct page {
	size_t line, first;
	int row, end;
};

static void put_line(struct page *p, const char *term, unsigned style, const char *text, size_t length)
{
	if (p->line >= p->first && p->row < p->end) {
		terminal_put(p->row, 0, STYLE_BOLD, "%s", term);
		terminal_put(p->row++, *term || style == 0 ? TERM_CELLS : 0, style, "%.*s", (int)length, text);
	}
	p->line++;
}

/* A term and what it means, broken between words. */
static void put_item(struct page *p, const char *term, const char *text)
{
	size_t width = terminal_columns() > TERM_CELLS + 10 ? (size_t)terminal_columns() - TERM_CELLS - 1 : 10;

	do {
		size_t n = strlen(text);

		if (n > width)
			for (n = width; n > 1 && text[n] != ' ';)
				n--;
		if (n == 1)
			n = width;
		put_line(p, term, 0, text, n);
		text += n + (text[n] == ' ');
		term = "";
	} while (*text);
}

static void put_heading(struct page *p, const char *text)
{
	if (p->line)
		p->row += p->line++ >= p->first && p->row < p->end;
	put_line(p, "", STYLE_TITLE | STYLE_BOLD | STYLE_UNDERLINE, text, strlen(text));
}

static void put_all(struct page *p)
{
	const char *group = "";

	put_heading(p, "Keys");
	for (const struct top_key_row *k = top_key_rows; k->shown; k++)
		put_item(p, k->shown, k->help);
	put_heading(p, "States of the host");
	for (size_t i = 0; i < 5; i++) {
		static const char *const states[] = { "high", "clear", "soft", "hard", "low" };

		put_item(p, states[i], top_state_words(states[i]));
	}
	put_heading(p, "The host");
	for (const struct top_host_cell *h = top_host_cells; h->group; h++) {
		char text[256];

		snprintf(text, sizeof text, "%s: %s", h->name, h->help);
		put_item(p, strlen(h->group) >= TERM_CELLS ? "overcommit" : strcmp(group, h->group) ? h->group : "", text);
		group = h->group;
	}
	put_heading(p, "The columns");
	for (unsigned i = 0; i < top_columns_count; i++)
		put_item(p, top_columns[i].name, top_columns[i].help);
	put_item(p, "-", "nobody knows: of the first look, after a restart of memctld, of what was not recorded");
}

void top_draw_help(struct top_ui *ui)
{
	static const char *const keys[][2] = { { "Up Down PgUp PgDn", "Read on" }, { "any other", "Back" }, { NULL, NULL } };
	struct page p = { .first = SIZE_MAX };
	int rows = terminal_rows() - 2;
	size_t lines;

	/* how long it is, to know where it ends */
	put_all(&p);
	lines = p.line;
	if (ui->scroll + (size_t)(rows > 0 ? rows : 0) > lines)
		ui->scroll = lines > (size_t)rows ? lines - (size_t)rows : 0;
	p = (struct page){ .first = ui->scroll, .row = 1, .end = terminal_rows() - 1 };
	terminal_put(0, 0, STYLE_BOLD, "memctl top: what it shows, and its keys");
	put_all(&p);
	top_draw_foot(ui, keys);
}

/* ---- menus ---- */

void top_draw_menu(struct top_ui *ui)
{
	static const char *const sort_keys[][2] = { { "Enter", "Sort by it" }, { "Esc", "As it was" }, { NULL, NULL } };
	static const char *const column_keys[][2] = { { "Space", "On or off" }, { "< >", "Move" }, { "Enter", "Done" }, { NULL, NULL } };
	bool sorting = ui->view == VIEW_SORT;
	int rows = terminal_rows() - 2;
	unsigned first;

	terminal_put(0, 0, STYLE_BOLD, sorting ? "Sort by" : "Columns");
	first = rows > 0 && ui->menu >= (unsigned)rows ? ui->menu - (unsigned)rows + 1 : 0;
	for (unsigned i = first; i < ui->n_order && (int)(i - first) < rows; i++) {
		unsigned column = ui->order[i], style = i == ui->menu ? STYLE_REVERSE : 0;
		int row = 1 + (int)(i - first);

		if (style)
			terminal_put(row, 0, style, "%*s", terminal_columns(), "");
		terminal_put(row, 0, style, "%c [%c] %-9s %s", i == ui->menu ? '>' : ' ', sorting ? (column == ui->sort ? '*' : ' ') :
			ui->on[column] ? 'x' : ' ', top_columns[column].name, top_columns[column].help);
	}
	top_draw_foot(ui, sorting ? sort_keys : column_keys);
}
