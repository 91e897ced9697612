/* The terminal: the only file that knows ncurses is top_terminal.c.
 *
 * Whatever ends us (a signal, a crash, a hang-up) leaves the terminal as it was found; stopped by ^Z it is given back, and taken again when
 * we go on. */
#pragma once

#include <stdbool.h>

enum terminal_style {
	STYLE_BOLD = 1, STYLE_REVERSE = 2, STYLE_UNDERLINE = 4,
	/* colours, where there are some; whoever uses one says the same in words or letters too */
	STYLE_GOOD = 8, STYLE_WARNING = 16, STYLE_BAD = 32, STYLE_TITLE = 64, STYLE_DIM = 128,
	/* as background: one of the segments of a bar */
	STYLE_SEGMENT = 256,
};
#define STYLE_SEGMENT_NR(n) (STYLE_SEGMENT * ((n) + 1u))
#define TERMINAL_SEGMENTS   7u

enum terminal_key {
	/* others are themselves */
	TERMINAL_NOTHING = 0x10000,	/* the time has passed */
	TERMINAL_RESIZED,
	TERMINAL_END,			/* a signal, or nobody is there any more */
	TERMINAL_UP, TERMINAL_DOWN, TERMINAL_LEFT, TERMINAL_RIGHT, TERMINAL_HOME, TERMINAL_LAST, TERMINAL_PAGE_UP, TERMINAL_PAGE_DOWN,
	TERMINAL_ENTER, TERMINAL_ESCAPE, TERMINAL_BACKSPACE,
	TERMINAL_F1,			/* F2 and so on are the next ones */
};
#define TERMINAL_F(n) (TERMINAL_F1 + (n) - 1)

/* Take stdin and stdout.  EXIT_OK; otherwise `why` says what it lacks. */
int terminal_open(bool color, char why[static 320]);
/* Give them back; fine if they were not taken. */
void terminal_close(void);
/* Which signal has ended it; 0: none. */
int terminal_signal(void);

bool terminal_is_utf8(void);
int terminal_rows(void);
int terminal_columns(void);
/* Begin a new picture; only what differs from the one before is sent. */
void terminal_erase(void);
void terminal_show(void);
/* Text at a place, cut off at the right edge; every character of it is one cell wide.  Where the next one goes. */
int terminal_put(int row, int column, unsigned style, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* All of a row in a style: what is put there then keeps it if it is given it. */
void terminal_fill(int row, unsigned style);
/* The cursor is shown there; row -1: hidden. */
void terminal_cursor(int row, int column);
/* The next key, waited for so long; negative: for ever. */
int terminal_key(int timeout_ms);
