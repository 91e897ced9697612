/* What tests may break.  Read once from the environment of the daemon; each switch is announced in the log.
 *
 * MEMCTLD_TWIN=rule[,rule]: safety rules turned off, so that the tests that guard them are seen to fail:
 *	no_protect	evict without write-protection: writes beside an eviction are lost
 *	no_punch	give out the memfd of a VM that went without emptying it: its bytes reach the next VM
 * MEMCTLD_INJECT=fault[,fault]: errors of the world:
 *	swap_write:EIO, swap_write:ENOSPC, swap_read:EIO	the system call fails
 *	swap_corrupt, cache_corrupt	a stored page is damaged before it is read back */
#pragma once

#include <stdbool.h>

struct inject {
	bool twin_no_protect;
	bool twin_no_punch;
	int swap_write_errno;
	int swap_read_errno;
	bool swap_corrupt;
	bool cache_corrupt;
};
extern struct inject inject;

/* At start, before threads.  -EINVAL and a line in the log for a word that is not known. */
int inject_from_environment(void);
