/* What tests may break.  Read once from the environment of the daemon; each switch is announced in the log.
 *
 * MEMCTLD_TWIN=rule[,rule]: safety rules turned off, so that the tests that guard them are seen to fail:
 *	no_protect	evict without write-protection: writes beside an eviction are lost
 *	no_punch	give out the memfd of a VM that went without emptying it: its bytes reach the next VM
 *	pool_writable	pools of mode 0600: a client of the daemon's own uid makes itself a descriptor that can write
 *	share_unprotected	compare and share bytes that the guest can still write: writes beside it are lost
 *	share_unverified	believe that no page was written before it was protected: private copies nobody is charged for
 *	home_from_pool	bring home what the pool has instead of what the client sees: with share_unverified, words are lost
 *	break_unheld	let go of the pool's page when it breaks, before the kernel has copied it
 * MEMCTLD_INJECT=fault[,fault]: errors of the world:
 *	swap_write:EIO, swap_write:ENOSPC, swap_read:EIO	the system call fails
 *	swap_corrupt, cache_corrupt	a stored page is damaged before it is read back */
#pragma once

#include <stdbool.h>

struct inject {
	bool twin_no_protect;
	bool twin_no_punch;
	bool twin_pool_writable;
	bool twin_share_unprotected;
	bool twin_share_unverified;
	bool twin_home_from_pool;
	bool twin_break_unheld;
	int swap_write_errno;
	int swap_read_errno;
	bool swap_corrupt;
	bool cache_corrupt;
};
extern struct inject inject;

/* At start, before threads.  -EINVAL and a line in the log for a word that is not known. */
int inject_from_environment(void);
