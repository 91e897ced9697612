/* The resources of a VM in words, as SetVm takes them, `memctl vm set` and Register hand them on, and replies show them:
 *
 *	reservation, limit	a size ("512M", bytes), "40%" of the VM's size, "none"
 *	shares			"low", "normal", "high" (5, 10, 20 per MiB of size), or a number; 0: nothing above its reservation when
 *				memory is short
 *	balloon_max		a size, "40%" of the VM's size, "0" (no balloon), "default" (the setting CtlMaxPercent)
 *	stall_budget		"3%", "2.5%" of the time, "none", "default" (the setting StallBudget)
 *
 * Percentages of the size are rounded down to pages. */
#pragma once

#include "mem/vm.h"

#include <stdbool.h>

/* "": as it is. */
struct resource_words {
	const char *reservation, *limit, *shares, *balloon_max, *stall_budget;
};

/* Into the configuration, whose size is set.  0; -EINVAL: *ret_field is at fault, and `why` says how in a sentence; then the
 * configuration is of no use. */
int resources_parse(const struct resource_words *w, struct vm_config *c, const char **ret_field, char *why, size_t why_bytes);
/* "off", "zero", "vm", "group:NAME". */
bool resources_is_sharing(const char *text);
/* 10 per MiB, at least 1. */
uint32_t resources_normal_shares(uint64_t size_bytes);

/* What the VM has: "default", or its own as above. */
void resources_balloon_max(const struct vm_config *c, char ret[32]);
void resources_stall_budget(const struct vm_config *c, char ret[32]);
