/* What memctld has told, for those that print it and those that draw it. */
#pragma once

struct cli;
struct value;

/* All events not older than `since` (Unix time in milliseconds, decimal), of a VM and of a level and worse if they are not NULL: the
 * parts of the reply as one.  The caller's for value_close.  An exit code; what went wrong has been said. */
int events_read(struct cli *c, const char *since, const char *vm, const char *level, struct value **ret);
/* What an event of this name means; NULL: this memctl does not know it. */
const char *event_meaning(const char *event);
