/* Progress of what takes long: one line on stderr that is written over again and again, and gone at the end.
 *
 *	paging in web   312 of 640 MiB   48 %   81 MiB/s   4 s left
 *
 * Only on a terminal, and neither with --json nor with --quiet: scripts and logs never see it.  On a terminal that cannot move its
 * cursor (TERM=dumb) neither. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cli;

enum progress_unit { PROGRESS_COUNT, PROGRESS_BYTES };

struct progress {
	const char *what;		/* the caller's; lives until progress_end */
	enum progress_unit unit;
	bool shown;			/* whether anything is printed at all */
	bool some;			/* something stands on the line */
	uint64_t first, began_ns, drawn_ns;
	bool begun;
};

struct progress progress_begin(const struct cli *c, const char *what, enum progress_unit unit);
/* So much of so much is done; may be called as often as one likes, and what is the whole may change. */
void progress_show(struct progress *p, uint64_t done, uint64_t all);
/* The line is empty again.  Before anything else is printed. */
void progress_end(struct progress *p);

/* The line itself, without what puts it in its place: `seconds` since `first` of it was done.  At most `width` columns. */
void progress_line(char *text, unsigned width, const char *what, enum progress_unit unit, uint64_t first, uint64_t done, uint64_t all,
	double seconds);

/* While another call takes its time: a thread with a connection of its own looks four times a second at what is left, and shows it.
 * left: bytes, by `c`, which is not the caller's; false: cannot be had now. */
struct progress_watch;
struct progress_watch *progress_watch_begin(const struct cli *c, const char *what, bool (*left)(struct cli *c, const void *userdata,
	uint64_t *ret), const void *userdata);
/* NULL is fine. */
void progress_watch_end(struct progress_watch *w);
