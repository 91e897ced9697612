/* Events in the history: what is told is recorded, and what was told before this process is told of again (`memctl events`). */
#pragma once

struct record;

/* Reads the database: at start, before anybody is served. */
void event_history_begin(struct record *r);
/* Before the record is closed. */
void event_history_end(void);
