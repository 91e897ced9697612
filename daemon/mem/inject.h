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
 *	no_floor	take from VMs below their reservations (with watch_reservations the daemon dies of it)
 *	balloon_pinned	take pinned pages into the balloon: what a device, or a guest that relies on the pin, writes is lost
 *	balloon_late	take pages into the balloon however late the call is: its caller may have gone on with them
 *	events_uncounted	tell every event, however fast they come: a client fills the log
 *	exists_believed	believe the kernel that a page is there, without a look: with copy_exists guests read zeros
 *	open_access	let everybody who can open a socket do everything, whatever the settings say
 *	peer_late	look up when a VM is registered whose process its client is: by then its number may be somebody else's
 *	unconfined	let memctld make any system call, and be dumped and traced
 *	unweighed	let calls take what memory they like: a user has memctld take gigabytes
 *	none_apart	count the connections of VMs against max_sessions_per_user: the last VM that a user may have is refused
 *	unlocked	let the kernel take the code of the fault path from memory
 *	restart_unasked	believe after a restart what words say of pages whose order nobody has answered: writes are lost
 * MEMCTLD_INJECT=fault[,fault]: errors of the world:
 *	swap_write:EIO, swap_write:ENOSPC, swap_read:EIO	the system call fails
 *	low_host	the host has no memory for a VM that leaves
 *	copy_exists	each seventh page that is put into a lease is said to be there already
 *	swap_corrupt, cache_corrupt	a stored page is damaged before it is read back
 *	hang_control:S, hang_reclaim:S	the thread stands still when the watchdog looks S seconds after start, or later
 *	watch_reservations	no error: abort() when a VM is asked for something below its reservation
 *	try_forbidden	no error: try at start what seccomp_filter.h is to refuse, and tell what came of it
 *	hasty	no error: what is done now and then is done at once, so that a script says when.  A pass of the scan that was asked
 *		for has its turns every few milliseconds, nothing comes home between such passes, and the advice dont_need
 *		evicts the pages, and the pool's frames if there are mapped ones among them
 *	balloon:PCT	no error: the target of every balloon is this part of its VM, whatever is planned
 * MEMCTLD_CRASH: death at one instant, to see what the next daemon makes of it:
 *	POINT or POINT:N	SIGKILL at the N-th passage of that point, in the daemon that found nothing to resume
 *	@FILE			the same for each life in turn: a daemon takes the first line out of the file, whatever it
 *				resumes; a line that is empty, or none: no death
 * MEMCTLD_CRASH_LIST=FILE: how often each point was passed, kept in FILE.1, FILE.2, ... of this life and the next ones:
 *	lines "POINT COUNT" for all points there are, up to date even after a SIGKILL */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct inject {
	bool twin_no_protect;
	bool twin_no_punch;
	bool twin_pool_writable;
	bool twin_share_unprotected;
	bool twin_share_unverified;
	bool twin_home_from_pool;
	bool twin_break_unheld;
	bool twin_balloon_pinned;
	bool twin_balloon_late;
	bool twin_balloon_ahead;
	bool twin_restart_unasked;
	bool twin_no_floor;
	bool twin_events_uncounted;
	bool twin_open_access;
	bool twin_exists_believed;
	bool twin_peer_late;
	bool twin_unconfined;
	bool twin_unweighed;
	bool twin_none_apart;
	bool twin_unlocked;
	int swap_write_errno;
	int swap_read_errno;
	bool swap_corrupt;
	bool low_host;
	bool cache_corrupt;
	bool copy_exists;
	uint64_t hang_control_ns, hang_reclaim_ns;	/* from then on; 0: never */
	bool hasty;
	unsigned balloon_pct;	/* + 1; 0: as planned */
	bool watch_reservations;
	bool try_forbidden;
};
extern struct inject inject;

/* At start, before threads.  -EINVAL and a line in the log for a word that is not known. */
int inject_from_environment(void);

/* For ever, if it is time. */
void inject_hang(uint64_t at_ns);

/* A place between two steps where a death must cost nothing, named AREA.STEP after the step that was made last. */
struct crash_point {
	const char *name;
	uint64_t passed;	/* while armed, under a lock of inject.c */
};
extern _Atomic bool crash_armed;
void crash_pass(struct crash_point *p);

#define CRASH_POINT(text)                                                                                                  \
	do {                                                                                                               \
		static struct crash_point here_ __attribute__((section("crash_points"), used)) = { text, 0 };                 \
		if (atomic_load_explicit(&crash_armed, memory_order_relaxed))                                                 \
			crash_pass(&here_);                                                                                   \
	} while (0)
