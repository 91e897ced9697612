/* The list of VMs, under esxtop's lines. */
#include "cli/top_screen.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LABEL_CELLS 11	/* "VMKMEM/MiB:" */
#define CELL_CELLS  17	/* "  131072 managed," */
#define MARKS	    2	/* before a name: > selected, * tagged */
#define NAME_MOST   24u
#define LATENCY_WARNING 1.0	/* %LAT_M */
#define LATENCY_BAD	5.0

/* ---- the first and the last line ---- */

static unsigned style_of_state(const char *state)
{
	return !strcmp(state, "high") || !strcmp(state, "clear") ? STYLE_GOOD | STYLE_BOLD : !strcmp(state, "soft") ? STYLE_WARNING | STYLE_BOLD :
		STYLE_BAD | STYLE_REVERSE;
}

static void clock_text(const struct top_sample *s, char text[static 32])
{
	time_t t = (time_t)(s->ts_ms / 1000);
	struct tm tm;

	localtime_r(&t, &tm);
	strftime(text, 32, s->recorded ? "%Y-%m-%d %H:%M:%S" : "%H:%M:%S", &tm);
}

static void uptime_text(uint64_t s, char text[static 32])
{
	if (s >= 86400)
		snprintf(text, 32, "up %u d %u:%02u", (unsigned)(s / 86400), (unsigned)(s / 3600 % 24), (unsigned)(s / 60 % 60));
	else
		snprintf(text, 32, "up %u:%02u:%02u", (unsigned)(s / 3600), (unsigned)(s / 60 % 60), (unsigned)(s % 60));
}

/* If there is room for it up to `end`. */
static int put_part(int column, int end, unsigned style, const char *text)
{
	int n = (int)strlen(text);

	return column + n <= end ? terminal_put(0, column, style, "%s", text) : column;
}

void top_draw_clock(const struct top_ui *ui)
{
	const struct top_sample *s = ui_sample(ui);
	char text[128], part[32];
	int column, right = terminal_columns();

	if (!s)
		return;
	snprintf(text, sizeof text, "%s state", s->state);
	right -= (int)strlen(text);
	terminal_put(0, right, style_of_state(s->state), "%s", text);
	clock_text(s, part);
	column = put_part(0, right, STYLE_BOLD, part);
	column = put_part(column, right, STYLE_BOLD | STYLE_TITLE, s->recorded ? " recorded" : *ui->trouble ? " away" : ui->paused ? " paused" : "");
	if (s->pid && right > 60) {
		uptime_text(s->uptime_s, part);
		snprintf(text, sizeof text, " %s,", part);
		column = put_part(column, right, 0, text);
	}
	snprintf(text, sizeof text, " %zu VM%s", s->n_vms, s->n_vms == 1 ? "" : "s");
	column = put_part(column, right, 0, text);
	if (!isnan(s->host[HOST_overcommit_1m_permille])) {
		snprintf(text, sizeof text, "; MEM overcommit avg: %.2f, %.2f, %.2f ", s->host[HOST_overcommit_1m_permille] / 1000,
			s->host[HOST_overcommit_5m_permille] / 1000, s->host[HOST_overcommit_15m_permille] / 1000);
		put_part(column, right, 0, text);
	}
}

void top_draw_foot(const struct top_ui *ui, const char *const keys[][2])
{
	static const char *const questions[] = { [PROMPT_FILTER] = "Filter", [PROMPT_DELAY] = "Seconds between samples",
		[PROMPT_TIME] = "Go to (10m, 14:30, 2026-01-31T14:30)" };
	int row = terminal_rows() - 1, column = 0;

	if (ui->prompt != PROMPT_NONE) {
		column = terminal_put(row, 0, STYLE_BOLD, "%s: %s", questions[ui->prompt], ui->typed);
		terminal_cursor(row, column < terminal_columns() ? column : terminal_columns() - 1);
		return;
	}
	for (; (*keys)[0]; keys++) {
		if (column + (int)(strlen((*keys)[0]) + strlen((*keys)[1])) + 1 > terminal_columns())
			break;
		column = terminal_put(row, column, STYLE_BOLD | STYLE_TITLE, "%s", (*keys)[0]);
		column = terminal_put(row, column + 1, 0, "%s", (*keys)[1]) + 2;
	}
}

int top_draw_message(const struct top_ui *ui, int row)
{
	const struct top_sample *s = ui_sample(ui);

	if (*ui->message)
		return terminal_put(row, 0, STYLE_BOLD, "%s", ui->message);
	if (*ui->trouble && !ui->past)
		return terminal_put(row, 0, STYLE_BAD, "No memctld, trying again: %s", ui->trouble);
	if (s && !s->recorded && *s->warning)
		return terminal_put(row, 0, STYLE_WARNING, "warning: %s", s->warning);
	if (s && strcmp(s->state, "high") && strcmp(s->state, "clear"))
		return terminal_put(row, 0, style_of_state(s->state) & ~STYLE_REVERSE, "%s", top_state_words(s->state));
	return 0;
}

/* Cells that a size takes beside the usual: up to some TiB in smaller units. */
static int widening(const struct top_ui *ui)
{
	return ui->units->bytes == 1 ? 6 : ui->units->bytes == 1 << 10 ? 3 : 0;
}

/* ---- esxtop's lines ---- */

/* Which lines go first where there are few rows: the last of these. */
static const char *const groups_by_rank[] = { "VMKMEM", "SWAP", "MEMCTL", "PMEM", "ZIP", "PSHARE" };
#define GROUPS (sizeof groups_by_rank / sizeof *groups_by_rank)

static bool is_group_shown(const char *group, size_t lines)
{
	for (size_t i = 0; i < lines && i < GROUPS; i++)
		if (!strcmp(groups_by_rank[i], group))
			return true;
	return false;
}

static bool is_fine(const struct top_ui *ui, const struct top_sample *s)
{
	return ui->units->bytes > 0 && s->host[HOST_capacity_bytes] / ui->units->bytes < 10000;
}

/* How many lines. */
static int draw_groups(const struct top_ui *ui, const struct top_sample *s, int row, size_t lines)
{
	const char *group = "";
	int begin = row, column = 0, wider = widening(ui), cells = CELL_CELLS + wider;

	for (const struct top_host_cell *h = top_host_cells; h->group; h++) {
		char text[32];
		bool next = h[1].group && !strcmp(h[1].group, h->group);

		if (!is_group_shown(h->group, lines))
			continue;
		if (strcmp(group, h->group)) {
			row += *group != 0;
			group = h->group;
			terminal_put(row, 0, STYLE_TITLE, "%-6s", group);
			terminal_put(row, 6, 0, ui->units->bytes > 0 ? "/%s:" : ":", ui->units->name);
			column = LABEL_CELLS;
		}
		if (column + cells > terminal_columns() + 1)
			continue;
		top_format(h->kind, h->value(s), ui->units, is_fine(ui, s), text);
		terminal_put(row, column, STYLE_BOLD, "%*s", 8 + wider, text);
		terminal_put(row, column + 9 + wider, 0, "%s%s", h->name, next && column + 2 * cells <= terminal_columns() + 1 ? "," : "");
		column += cells;
	}
	return row - begin + (*group != 0);
}

/* ---- the table ---- */

struct layout {
	unsigned columns[TOP_COLUMNS_MAX], n;
	unsigned name_width;
	unsigned left_out;
};

static unsigned name_width(const struct top_vm *const *vms, size_t n)
{
	unsigned width = 8;

	for (size_t i = 0; i < n; i++) {
		unsigned length = (unsigned)strlen(vms[i]->name);

		width = length > width ? length : width;
	}
	return width < NAME_MOST ? width : NAME_MOST;
}

/* With the blank before it. */
static unsigned cells_of(const struct top_ui *ui, unsigned column)
{
	enum top_kind kind = top_column_more[column].kind;

	return top_column_width(column) + 1 + (kind == TOP_BYTES || kind == TOP_BYTES_S ? (unsigned)widening(ui) : 0);
}

/* One that was not to be seen by itself, and is wanted, is wanted much.  Whoever said which he wants, or scrolls, gets them in order. */
static unsigned rank_of(const struct top_ui *ui, unsigned column)
{
	return ui->columns_given || ui->shift || !top_column_more[column].rank ? 1 : top_column_more[column].rank;
}

static void lay_out(const struct top_ui *ui, const struct top_vm *const *vms, size_t n, struct layout *l)
{
	bool fits[TOP_COLUMNS_MAX] = { false };
	unsigned room = (unsigned)terminal_columns(), used, seen = 0;

	*l = (struct layout){ .name_width = name_width(vms, n) };
	if (l->name_width > room / 3 && room / 3 >= 8)
		l->name_width = room / 3;
	used = MARKS + l->name_width;
	for (unsigned rank = 1; rank <= top_columns_count; rank++)
		for (unsigned i = 0; i < ui->n_order; i++) {
			unsigned column = ui->order[i], width = cells_of(ui, column);

			if (column == TOP_COLUMN_NAME || !ui->on[column] || rank_of(ui, column) != rank)
				continue;
			if (seen++ < ui->shift)
				continue;
			if (used + width <= room) {
				fits[column] = true;
				used += width;
			} else {
				/* a narrower one of a higher rank does not jump the queue */
				room = used;
				l->left_out++;
			}
		}
	for (unsigned i = 0; i < ui->n_order; i++)
		if (fits[ui->order[i]])
			l->columns[l->n++] = ui->order[i];
}

static unsigned style_of_cell(unsigned column, const struct top_vm *vm)
{
	double value;

	if (top_column_more[column].kind == TOP_TEXT)
		return 0;
	value = top_column_value(column, vm);
	if (!strcmp(top_columns[column].name, "%LAT_M"))
		return value >= LATENCY_BAD ? STYLE_BAD : value >= LATENCY_WARNING ? STYLE_WARNING | STYLE_BOLD : 0;
	return 0;
}

static void draw_headings(const struct top_ui *ui, const struct layout *l, int row)
{
	const char *mark = terminal_is_utf8() ? (ui->inverted ? "\u25b4" : "\u25be") : ui->inverted ? "^" : "v";
	int column = MARKS;

	terminal_put(row, 0, STYLE_REVERSE, "%*s", terminal_columns(), "");
	terminal_put(row, column, STYLE_REVERSE | (ui->sort == TOP_COLUMN_NAME ? STYLE_BOLD : 0), "NAME%s", ui->sort == TOP_COLUMN_NAME ? mark : "");
	column += (int)l->name_width;
	for (unsigned i = 0; i < l->n; i++) {
		const char *name = top_columns[l->columns[i]].name;
		int width = (int)cells_of(ui, l->columns[i]), at = column + width - (int)strlen(name);
		bool sorted = l->columns[i] == ui->sort;

		terminal_put(row, at, STYLE_REVERSE | (sorted ? STYLE_BOLD : 0), "%s", name);
		if (sorted)
			terminal_put(row, at - 1, STYLE_REVERSE | STYLE_BOLD, "%s", mark);
		column += width;
	}
}

static void draw_vm(const struct top_ui *ui, const struct layout *l, int row, const struct top_vm *vm, bool fine)
{
	bool selected = !strcmp(vm->name, ui->selected);
	unsigned style = selected ? STYLE_REVERSE : ui_is_tagged(ui, vm->name) ? STYLE_BOLD : 0;
	int column = MARKS + (int)l->name_width;

	if (selected)
		terminal_put(row, 0, style, "%*s", terminal_columns(), "");
	terminal_put(row, 0, style, "%c%c", selected ? '>' : ' ', ui_is_tagged(ui, vm->name) ? '*' : ' ');
	terminal_put(row, MARKS, style, "%.*s", (int)l->name_width, vm->name);
	for (unsigned i = 0; i < l->n; i++) {
		int width = (int)cells_of(ui, l->columns[i]);
		char text[72];

		top_cell(l->columns[i], vm, ui->units, fine, text);
		terminal_put(row, column, style | (selected ? 0 : style_of_cell(l->columns[i], vm)), "%*s", width, text);
		column += width;
	}
}

static void draw_tagged(const struct top_ui *ui, const struct layout *l, int row, const struct top_sample *s, bool fine)
{
	int column = MARKS + (int)l->name_width;

	terminal_put(row, MARKS, STYLE_BOLD, "%zu tagged", ui->n_tags);
	for (unsigned i = 0; i < l->n; i++) {
		enum top_kind kind = top_column_more[l->columns[i]].kind;
		int width = (int)cells_of(ui, l->columns[i]);
		double sum = 0;
		char text[32] = "";

		for (size_t k = 0; k < s->n_vms; k++)
			if (ui_is_tagged(ui, s->vms[k].name))
				sum += top_column_value(l->columns[i], &s->vms[k]);
		if (kind == TOP_BYTES || kind == TOP_BYTES_S || kind == TOP_PER_S)
			top_format(kind, sum, ui->units, fine, text);
		terminal_put(row, column, STYLE_BOLD | STYLE_UNDERLINE * (*text != 0), "%*s", width, text);
		column += width;
	}
}

/* So that the selected one is on the screen; without one the first is. */
static void scroll_to_selected(struct top_ui *ui, const struct top_vm *const *vms, size_t n, size_t rows)
{
	size_t at = 0;

	while (at < n && strcmp(vms[at]->name, ui->selected))
		at++;
	if (at == n && n) {
		/* it has left, or is filtered out */
		at = ui->first < n ? ui->first : n - 1;
		snprintf(ui->selected, sizeof ui->selected, "%s", vms[at]->name);
	}
	if (at < ui->first)
		ui->first = at;
	if (rows && at >= ui->first + rows)
		ui->first = at - rows + 1;
	if (ui->first + rows > n)
		ui->first = n > rows ? n - rows : 0;
}

static void draw_rows(struct top_ui *ui, const struct layout *l, const struct top_vm *const *vms, size_t n, int row, int end)
{
	const struct top_sample *s = ui_sample(ui);
	bool fine = is_fine(ui, s);
	size_t rows = end > row ? (size_t)(end - row) : 0;

	if (ui->n_tags && rows > 1)
		draw_tagged(ui, l, end - 1, s, fine), rows--;
	scroll_to_selected(ui, vms, n, rows);
	for (size_t i = 0; i < rows && ui->first + i < n; i++)
		draw_vm(ui, l, row + (int)i, vms[ui->first + i], fine);
	if (!n && *ui->filter && rows)
		terminal_put(row, MARKS, 0, "No VM has \"%s\" in its name.", ui->filter);
	else if (!n && rows)
		terminal_put(row, MARKS, 0, s->recorded ? "No VM was there." : "No VM is registered.");
}

static void draw_corner(const struct top_ui *ui, const struct layout *l, int row, int used)
{
	char text[96];
	int n;

	if (*ui->filter)
		n = snprintf(text, sizeof text, "filter: %s", ui->filter);
	else if (l->left_out || ui->shift)
		n = snprintf(text, sizeof text, "+%u columns: Left, Right", l->left_out);
	else
		return;
	if (used + n + 2 <= terminal_columns())
		terminal_put(row, terminal_columns() - n, STYLE_DIM, "%s", text);
}

void top_draw_list(struct top_ui *ui)
{
	static const char *const keys[][2] = { { "?", "Help" }, { "q", "Quit" }, { "Enter", "Detail" }, { "F2", "Columns" }, { "F4", "Filter" },
		{ "F6", "Sort" }, { "Space", "Tag" }, { "[", "Back" }, { "u", "Units" }, { NULL, NULL } };
	static const char *const past[][2] = { { "?", "Help" }, { "q", "Quit" }, { "[", "Back" }, { "]", "On" }, { "l", "Live" }, { "b", "Go to" },
		{ "Enter", "Detail" }, { "F6", "Sort" }, { NULL, NULL } };
	const struct top_sample *s = ui_sample(ui);
	const struct top_vm **vms;
	size_t n = ui_vms(ui, &vms);
	int rows = terminal_rows(), row = 1;
	struct layout l;

	top_draw_clock(ui);
	if (s && vms) {
		lay_out(ui, vms, n, &l);
		/* as many VMs as lines about the host, at least */
		row += draw_groups(ui, s, row, rows > 18 ? GROUPS : rows > 8 ? (size_t)(rows - 6) / 2 : 0);
		draw_corner(ui, &l, row, top_draw_message(ui, row));
		row++;
		draw_headings(ui, &l, row++);
		draw_rows(ui, &l, vms, n, row, rows - 1);
	}
	top_draw_foot(ui, ui->past ? past : keys);
	free(vms);
}
