/* The screen of `memctl top`: one loop that waits for a key or for the time of the next sample.
 *
 * Samples are asked for here and nowhere else.  While the past is shown, or it is paused, nothing is asked.  A memctld that is away leaves the last
 * sample where it is, and a line that says so; it is asked again at every interval, on a new connection. */
#include "cli/top_screen.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define ANSWER_MS 3000	/* without --timeout: a key is not waited for longer than this */
#define SAMPLE_MS 1000	/* of the history */

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

const struct top_sample *ui_sample(const struct top_ui *ui)
{
	return ui->past ? top_replay_at(ui->replay) : ui->live;
}

size_t ui_vms(const struct top_ui *ui, const struct top_vm ***ret)
{
	const struct top_sample *s = ui_sample(ui);
	size_t n = 0;

	*ret = s ? calloc(s->n_vms + 1, sizeof **ret) : NULL;
	for (size_t i = 0; *ret && i < s->n_vms; i++)
		if (!*ui->filter || strcasestr(s->vms[i].name, ui->filter) || ui_is_tagged(ui, s->vms[i].name))
			(*ret)[n++] = &s->vms[i];
	if (n)
		top_sort(*ret, n, ui->sort, ui->inverted);
	return n;
}

bool ui_is_tagged(const struct top_ui *ui, const char *vm)
{
	for (size_t i = 0; i < ui->n_tags; i++)
		if (!strcmp(ui->tags[i], vm))
			return true;
	return false;
}

/* ---- the past ---- */

double ui_step_s(const struct top_ui *ui)
{
	const struct top_sample *s = ui_sample(ui);

	return s && s->recorded ? s->step_s : ui->delay_s < 1 ? 1 : ui->delay_s;
}

void ui_open(struct top_ui *ui, const char *vm)
{
	const struct top_sample *s = ui_sample(ui);

	if (vm != ui->selected)
		snprintf(ui->selected, sizeof ui->selected, "%s", vm);
	if (!s)
		return;
	trail_begin(&ui->trail, ui->c, ui->selected, s->ts_ms + 1, (unsigned)ui_step_s(ui), (unsigned)terminal_columns());
	if (!s->recorded)
		trail_add(&ui->trail, s);
}

static void arrived(struct top_ui *ui)
{
	ui->past = true;
	if (ui->view == VIEW_DETAIL)
		ui_open(ui, ui->selected);
}

static bool has_replay(struct top_ui *ui)
{
	if (!ui->replay)
		ui->replay = top_replay_new(ui->c, ui->only);
	if (!ui->replay)
		snprintf(ui->message, sizeof ui->message, "out of memory");
	return ui->replay;
}

void ui_travel_to(struct top_ui *ui, uint64_t ts_ms)
{
	if (has_replay(ui) && !top_replay_seek(ui->replay, ts_ms, ui->message))
		arrived(ui);
}

void ui_travel(struct top_ui *ui, long samples)
{
	bool end = false;

	if (!ui->past && samples < 0 && ui->live) {
		ui_travel_to(ui, ui->live->ts_ms - (uint64_t)-samples * SAMPLE_MS);
	} else if (ui->past && !top_replay_move(ui->replay, samples, &end, ui->message)) {
		arrived(ui);
		if (end && samples > 0 && ui->live)
			ui_return(ui);
		else if (end)
			snprintf(ui->message, sizeof ui->message, samples < 0 ? "there is nothing before this" : "there is nothing after this");
	}
}

void ui_return(struct top_ui *ui)
{
	ui->past = false;
	if (ui->view == VIEW_DETAIL)
		ui_open(ui, ui->selected);
}

/* ---- now ---- */

static void sample(struct top_ui *ui)
{
	struct top_sample *s;
	char why[320];

	if (top_live(ui->c, ui->only, ui->live, &s, why)) {
		snprintf(ui->trouble, sizeof ui->trouble, "%s", why);
		return;
	}
	*ui->trouble = 0;
	top_sample_free(ui->live);
	ui->live = s;
	if (ui->view == VIEW_DETAIL && !ui->past)
		trail_add(&ui->trail, s);
}

static void draw(struct top_ui *ui)
{
	terminal_erase();
	terminal_cursor(-1, 0);
	switch (ui->view) {
	case VIEW_LIST:
		top_draw_list(ui);
		break;
	case VIEW_DETAIL:
		top_draw_detail(ui);
		break;
	case VIEW_HELP:
		top_draw_help(ui);
		break;
	case VIEW_SORT:
	case VIEW_COLUMNS:
		top_draw_menu(ui);
		break;
	}
	terminal_show();
}

static void run(struct top_ui *ui)
{
	double next = now_s() + ui->delay_s;

	while (!ui->end) {
		double wait = next - now_s();
		bool asks = !ui->past && !ui->paused;
		int key;

		draw(ui);
		key = terminal_key(!asks ? -1 : wait <= 0 ? 0 : (int)ceil(wait * 1e3));
		if (key == TERMINAL_END) {
			ui->end = true;
		} else if (key != TERMINAL_NOTHING) {
			top_key(ui, key);
			/* a shorter delay, or the present again: not after what was waited for before */
			if (next > now_s() + ui->delay_s)
				next = now_s() + ui->delay_s;
		} else if (asks) {
			if (--ui->left <= 0)
				break;
			sample(ui);
			/* who was stopped does not catch up */
			next = next + ui->delay_s > now_s() ? next + ui->delay_s : now_s() + ui->delay_s;
		}
	}
}

/* ---- begin and end ---- */

static void settle(struct top_ui *ui, const struct top_wish *w)
{
	for (unsigned i = 0; i < w->n_columns; i++) {
		if (!ui->on[w->columns[i]])
			ui->order[ui->n_order++] = w->columns[i];
		ui->on[w->columns[i]] = true;
	}
	for (unsigned i = 0; i < top_columns_count; i++)
		if (!ui->on[i])
			ui->order[ui->n_order++] = i;
	if (!ui->on[TOP_COLUMN_NAME]) {
		/* a row without a name would be nobody's */
		ui->on[TOP_COLUMN_NAME] = true;
	}
}

static int begin(struct top_ui *ui, const struct top_wish *w, char why[static 320])
{
	int r = top_live(ui->c, w->at ? NULL : ui->only, NULL, &ui->live, why);

	if (r || !w->at)
		return r;
	ui->replay = top_replay_new(ui->c, ui->only);
	if (!ui->replay) {
		snprintf(why, 320, "out of memory");
		return EXIT_SYSTEM;
	}
	ui->past = true;
	return top_replay_seek(ui->replay, w->at_ms, why);
}

static void end(struct top_ui *ui)
{
	top_sample_free(ui->live);
	top_replay_free(ui->replay);
	free(ui->tags);
	free(ui);
}

int top_screen(struct cli *c, const struct top_wish *w)
{
	struct top_ui *ui = calloc(1, sizeof *ui);
	char why[320] = "out of memory";
	int r = EXIT_SYSTEM, signal;

	if (ui) {
		*ui = (struct top_ui){ .c = c, .only = w->vm, .delay_s = w->delay_s > 0 ? w->delay_s : 2, .left = w->count, .units = w->units,
			.columns_given = w->columns_given, .sort = w->sort };
		if (!c->timeout_ms)
			c->timeout_ms = ANSWER_MS;
		settle(ui, w);
		/* what is wrong at once is said as every command says it */
		r = begin(ui, w, why);
		if (!r)
			r = terminal_open(c->style.color, why);
	}
	if (!r) {
		run(ui);
		terminal_close();
	}
	if (r)
		cli_error("%s", why);
	if (ui)
		end(ui);
	signal = r ? 0 : terminal_signal();
	/* ^C is how one leaves; other signals do what they would have done */
	if (signal && signal != SIGINT) {
		struct sigaction a = { .sa_handler = SIG_DFL };

		sigaction(signal, &a, NULL);
		raise(signal);
	}
	return r;
}
