/* What the files of vms.d decide (vm_files.h), carried out: when a VM registers, and when the files have been read again.
 *
 * With each VM it is kept what was applied of its file (vm_file_mark).  A line that says something else than that is applied: to all
 * VMs that are there, or, if one of them cannot have it, to none.  Reservations are lowered before others are raised, so that what one
 * gives up another may get. */
#pragma once

#include "ops_client.h"
#include "vm_files.h"

#include <stddef.h>

/* Whether the caller may register a VM of the file's name; NULL: there is no file.  false: the call has been refused. */
bool decisions_permit(struct daemon *d, struct call *call, const struct vm_file *f);
/* What the file says over what `c` has, whose size is set.  -EINVAL with one sentence. */
int decisions_over(const struct vm_file *f, struct vm_config *c, char *why, size_t why_bytes);
/* The client has been made with it. */
void decisions_made(struct client *c, const struct vm_file *f);

/* 0 and for how many VMs something has changed; or -errno with one sentence that begins with the place, and nothing has changed. */
int decisions_apply(struct daemon *d, const struct vm_files *files, unsigned *ret_changed, char *why, size_t why_bytes);
/* To VMs that were found at a restart, each by itself: one that cannot have it goes on as it was, and the log says so. */
void decisions_at_restart(struct daemon *d);
