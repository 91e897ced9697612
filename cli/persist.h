/* A setting written for memctld's next start: one line of a drop-in, whose other lines stay as they are.
 *
 * In two steps, so that nothing has changed if either fails: the new file is there in full, on the disk, before memctld is asked;
 * putting it in the old one's place is what comes last.  Whoever else writes there waits meanwhile. */
#pragma once

#include <stdbool.h>

struct persist {
	char *path;		/* the file */
	const char *name;	/* the last of it */
	char *dir;
	int dir_fd;		/* locked */
	bool made_dir, drafted;	/* what persist_end undoes */
	unsigned long line;	/* of the setting in it */
};
#define PERSIST_NAME "90-tune.conf"	/* the only file that is written */
#define PERSIST_NULL { .dir_fd = -1 }

/* An exit code; what went wrong has been said.  persist_end in any case. */
int persist_prepare(struct persist *p, const char *path, const char *setting, const char *value);
int persist_commit(struct persist *p);
/* Without persist_commit: as if nothing had been. */
void persist_end(struct persist *p);
