/* The gap that the reader of the history leaves to the writer: the log of a database can be begun anew only while nobody reads
 * from it, and a reader whose turns follow one another would keep it for ever.
 *
 * Of the process: it has one history.  Its lock is a leaf. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

/* The writer: a gap is wanted from now on, or no more. */
void gap_want(bool wanted);
/* The writer: wanted, and waited for as long as a turn takes.  false: no reader of ours was at work, or it still is. */
bool gap_take(void);

/* The reader, around each turn: waits while a gap is wanted, but not for long (a reader of another program may be what is in the
 * way), nor when *stop is set. */
void gap_enter(const atomic_bool *stop);
void gap_leave(void);
