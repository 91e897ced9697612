#include "cli/top_terminal.h"
#include "cli/cli.h"

#include <curses.h>
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE_MS 25	/* what comes later than this is no part of a key */

/* ---- the end ----
 * A signal to end is noticed by whoever waits for a key.  A crash cannot wait: its handler sends what ncurses would have sent, which was
 * copied when the terminal was taken, by write and tcsetattr, which handlers may use; then the signal does what it would have done. */

static struct {
	volatile sig_atomic_t signal;
	volatile sig_atomic_t taken;
	struct termios as_found;
	char restore[256];
	size_t restore_bytes;
	SCREEN *screen;
	bool color, utf8;
} terminal;

static void end_soon(int signal)
{
	terminal.signal = signal;
}

static void crash(int signal)
{
	if (terminal.taken) {
		terminal.taken = 0;
		(void)!write(STDOUT_FILENO, terminal.restore, terminal.restore_bytes);
		tcsetattr(STDOUT_FILENO, TCSANOW, &terminal.as_found);
	}
	/* SA_RESETHAND: it ends us this time */
	raise(signal);
}

static void add_restore(const char *sequence)
{
	size_t n = sequence && sequence != (char *)-1 ? strlen(sequence) : 0;

	if (terminal.restore_bytes + n <= sizeof terminal.restore) {
		memcpy(terminal.restore + terminal.restore_bytes, sequence, n);
		terminal.restore_bytes += n;
	}
}

static void handle(const int *signals, size_t n, void (*handler)(int), int flags)
{
	struct sigaction a = { .sa_handler = handler, .sa_flags = flags };

	sigemptyset(&a.sa_mask);
	for (size_t i = 0; i < n; i++)
		sigaction(signals[i], &a, NULL);
}

static void take_signals(void)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT }, crashes[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };

	/* without SA_RESTART: a wait for a key ends */
	handle(ends, sizeof ends / sizeof *ends, end_soon, 0);
	handle(crashes, sizeof crashes / sizeof *crashes, crash, SA_RESETHAND | SA_NODEFER);
}

int terminal_signal(void)
{
	return terminal.signal;
}

/* ---- taking it ---- */

static void make_colors(void)
{
	static const short colors[] = { COLOR_GREEN, COLOR_YELLOW, COLOR_RED, COLOR_CYAN };
	static const short segments[TERMINAL_SEGMENTS] = { COLOR_GREEN, COLOR_CYAN, COLOR_YELLOW, COLOR_RED, COLOR_MAGENTA, COLOR_BLUE,
		COLOR_WHITE };

	start_color();
	use_default_colors();
	for (unsigned i = 0; i < sizeof colors / sizeof *colors; i++)
		init_pair((short)(i + 1), colors[i], -1);
	for (unsigned i = 0; i < TERMINAL_SEGMENTS; i++)
		init_pair((short)(i + 10), COLOR_BLACK, segments[i]);
}

int terminal_open(bool color, char why[static 320])
{
	const char *term = getenv("TERM");

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		snprintf(why, 320, "stdin and stdout must be a terminal; for programs there are --batch and --json");
		return EXIT_USAGE;
	}
	setlocale(LC_CTYPE, "");
	terminal.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	tcgetattr(STDOUT_FILENO, &terminal.as_found);
	take_signals();
	terminal.screen = newterm(NULL, stdout, stdin);
	if (!terminal.screen || !tigetstr("cup")) {
		if (terminal.screen) {
			endwin();
			delscreen(terminal.screen);
		}
		snprintf(why, 320, "the terminal \"%s\" cannot place its cursor; memctl top --batch, memctl vm list -w 2 and memctl stat -w 2 need no other",
			term ? term : "");
		return EXIT_USAGE;
	}
	add_restore(tigetstr("sgr0"));
	add_restore(tigetstr("cnorm"));
	add_restore(tigetstr("rmkx"));
	add_restore(tigetstr("rmcup"));
	terminal.taken = 1;
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	meta(stdscr, TRUE);
	set_escdelay(ESCAPE_MS);
	curs_set(0);
	terminal.color = color && has_colors();
	if (terminal.color)
		make_colors();
	return EXIT_OK;
}

void terminal_close(void)
{
	if (!terminal.taken)
		return;
	terminal.taken = 0;
	endwin();
	delscreen(terminal.screen);
}

bool terminal_is_utf8(void)
{
	return terminal.utf8;
}

int terminal_rows(void)
{
	return LINES;
}

int terminal_columns(void)
{
	return COLS;
}

/* ---- the picture ---- */

static attr_t attributes(unsigned style, short *ret_pair)
{
	attr_t a = A_NORMAL;
	short pair = 0;

	if (style & STYLE_BOLD)
		a |= A_BOLD;
	if (style & STYLE_REVERSE)
		a |= A_REVERSE;
	if (style & STYLE_UNDERLINE)
		a |= A_UNDERLINE;
	if (style & STYLE_DIM)
		a |= A_DIM;
	if (style & STYLE_BAD)
		a |= A_BOLD;
	if (terminal.color)
		pair = style >= STYLE_SEGMENT ? (short)(style / STYLE_SEGMENT + 9) : style & STYLE_GOOD ? 1 : style & STYLE_WARNING ? 2 :
			style & STYLE_BAD ? 3 : style & STYLE_TITLE ? 4 : 0;
	else if (style & STYLE_TITLE)
		a |= A_BOLD;
	*ret_pair = pair;
	return a;
}

void terminal_erase(void)
{
	erase();
}

void terminal_show(void)
{
	refresh();
}

/* How many bytes of it are so many characters. */
static size_t cut(const char *text, int characters)
{
	size_t n = 0;

	while (text[n] && (characters > 0 || (terminal.utf8 && (text[n] & 0xc0) == 0x80))) {
		if (!terminal.utf8 || (text[n] & 0xc0) != 0x80)
			characters--;
		n++;
	}
	return n;
}

int terminal_put(int row, int column, unsigned style, const char *fmt, ...)
{
	char text[1024];
	va_list args;
	short pair;
	attr_t a = attributes(style, &pair);
	int x, y;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (row < 0 || row >= LINES || column < 0 || column >= COLS)
		return column;
	/* the last cell of all cannot be written without scrolling; addnstr says so by an error, which is none */
	attr_set(a, pair, NULL);
	mvaddnstr(row, column, text, (int)cut(text, COLS - column));
	attr_set(A_NORMAL, 0, NULL);
	getyx(stdscr, y, x);
	return y > row ? COLS : x;
}

void terminal_fill(int row, unsigned style)
{
	short pair;
	attr_t a = attributes(style, &pair);

	if (row < 0 || row >= LINES)
		return;
	mvchgat(row, 0, -1, a, pair, NULL);
}

void terminal_cursor(int row, int column)
{
	curs_set(row >= 0);
	if (row >= 0)
		move(row, column);
}

/* ---- keys ---- */

static int translate(int key)
{
	static const struct {
		int curses, ours;
	} keys[] = {
		{ KEY_UP, TERMINAL_UP }, { KEY_DOWN, TERMINAL_DOWN }, { KEY_LEFT, TERMINAL_LEFT }, { KEY_RIGHT, TERMINAL_RIGHT },
		{ KEY_HOME, TERMINAL_HOME }, { KEY_END, TERMINAL_LAST }, { KEY_PPAGE, TERMINAL_PAGE_UP }, { KEY_NPAGE, TERMINAL_PAGE_DOWN },
		{ KEY_ENTER, TERMINAL_ENTER }, { '\r', TERMINAL_ENTER }, { '\n', TERMINAL_ENTER }, { 27, TERMINAL_ESCAPE },
		{ KEY_BACKSPACE, TERMINAL_BACKSPACE }, { 127, TERMINAL_BACKSPACE }, { 8, TERMINAL_BACKSPACE },
		{ KEY_RESIZE, TERMINAL_RESIZED }, { 'L' - '@', TERMINAL_RESIZED },
	};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (keys[i].curses == key)
			return keys[i].ours;
	if (key > KEY_F0 && key <= KEY_F(12))
		return TERMINAL_F(key - KEY_F0);
	return key;
}

/* A terminal that has hung up answers every read at once, with nothing. */
static bool is_gone(void)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLNVAL));
}

int terminal_key(int timeout_ms)
{
	int key;

	if (terminal.signal)
		return TERMINAL_END;
	timeout(timeout_ms);
	key = getch();
	if (terminal.signal || (key == ERR && is_gone()))
		return TERMINAL_END;
	if (key == ERR)
		return TERMINAL_NOTHING;
	if (key == 'L' - '@')
		clearok(stdscr, TRUE);
	return translate(key);
}
