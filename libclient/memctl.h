/* libmemctl: memory for emulators, leased from memctld.
 *
 * CAVEATS FIRST
 *
 *  - Every process that maps a lease must have it registered.  A forked child must not touch it: leases are mapped
 *    MADV_DONTFORK, so a child gets SIGSEGV there instead of silently breaking its parent's memory.  Nor may it
 *    call anything here with its parent's handles: both would speak on one connection.  It may connect anew.
 *  - Do not map the lease's file descriptor a second time, do not write(2) to it, do not give it to another
 *    process, do not madvise(MADV_HUGEPAGE) or mprotect() the lease.
 *  - Do not madvise(MADV_DONTNEED) a lease, nor MADV_DONTNEED_LOCKED or MADV_FREE.  Where pages are shared (see
 *    SHARING) what the guest wrote there is private memory of this process, and that throws it away.  To give memory
 *    back there is memctl_discard().
 *  - With sharing, do not fork by the bare system call (syscall(SYS_fork), clone without CLONE_VM): only fork() takes
 *    the lock that keeps a child from inheriting a mapping half made.  vfork() and posix_spawn() are fine.  Do
 *    not turn kernel same-page merging on for the process (PR_SET_MEMORY_MERGE): where it is on when sharing is to begin,
 *    nothing is shared; later it would end the protection of shared pages without a sign.
 *  - Where only a user-mode userfaultfd is permitted (memctl_fault_handling() says MEMCTL_FAULTS_USER_MODE), a
 *    system call (read(2) into guest memory, write(2) from it) on a page that is not resident fails with EFAULT:
 *    use memctl_read_into() and memctl_write_from(), or memctl_pin() the range first.  KVM needs full handling.
 *  - Memory that a device, io_uring or a read(2) with O_DIRECT writes to directly must be pinned, or bytes are lost
 *    when it is evicted meanwhile; pins count against the VM's reservation.  memctl_read_into() needs no pin.
 *  - If the daemon goes away, threads that touch pages that are not resident wait until it is back; they never read
 *    zeros.  (The library keeps a descriptor of its own that makes it so; memctl_free() ends that.)  See RESTART.
 *
 * ONE COMPLETE EXAMPLE (cc example.c $(pkg-config --cflags --libs memctl))
 *
 *	#include <memctl.h>
 *	#include <stdio.h>
 *
 *	int main(void)
 *	{
 *		struct memctl_error e = { 0 };
 *		struct memctl *m = NULL;
 *		struct memctl_lease *l = NULL;
 *		struct memctl_vm vm = { .struct_size = sizeof vm, .name = "example", .size = 64 << 20 };
 *
 *		if (memctl_connect(NULL, &m, &e) < 0 || memctl_register(m, &vm, &e) < 0 ||
 *		    memctl_lease(m, 0, 64 << 20, &l, &e) < 0) {
 *			fprintf(stderr, "no lease: %s\n", e.message);
 *			memctl_free(m);
 *			return 1;
 *		}
 *		memctl_helper_start(m, &e);	// answers the daemon's orders for us
 *		char *ram = memctl_lease_address(l);
 *		ram[12345] = 1;			// guest memory: faults are served by memctld
 *		printf("%d, %s\n", ram[12345], memctl_fault_handling_name(memctl_fault_handling(m)));
 *		memctl_release(l, &e);
 *		memctl_free(m);
 *		return 0;
 *	}
 *
 * RULES FOR ALL FUNCTIONS
 *
 *  Return 0 (or a count) or a negative errno; `e` may be NULL and is written only on failure.  Calls to the daemon
 *  block until it answers or the timeout of the options passes (-ETIMEDOUT), and may be made from any
 *  thread: they take turns on one connection.  After a timeout the connection can make no calls any more
 *  (-ENOTCONN: the late reply would be taken for the next one's), until memctld is restarted; its leases go on being
 *  served for as long as memctld runs, and should be released and leased again on a new connection.  What the call that timed
 *  out was to do may be done all the same.  Ranges longer than 32 MiB are
 *  several calls, each with the timeout to itself.  Accessors (memctl_lease_address ...) never block.  Nothing
 *  here installs signal handlers, starts threads (but memctl_helper_start) or keeps global state (but for one lock that
 *  fork() takes, by pthread_atfork, once a VM shares memory).
 *  Sizes and offsets are in bytes; ranges of leases must be multiples of 4096 unless said otherwise.
 *  Structs whose first member is struct_size must have it set to sizeof: they may grow.
 *
 * RESTART
 *
 *  memctld may be killed, upgraded, or end and come back, with guests running.  Its memory is kept by whoever started it (systemd,
 *  memctld --supervise).  Guests pause at pages that are not resident and nothing is lost.  The library connects again by itself,
 *  every 5 to 100 ms and for ever, as soon as somebody is there to do it: the helper, a loop in memctl_dispatch, or a thread
 *  in a call.  (Without any of them faults are served all the same, but the VM's client is taken for hung after a time
 *  that memctld's setting reconnect_grace says, and the VM ended.)
 *
 *  The process must be able to reach memctld's socket then as it was when it connected: under the same path (no chroot to where it is
 *  not), and as a user who may.
 *
 *  Meanwhile calls wait, at most their timeout, and fail with -ENOTCONN then; they can be made again later.  A call that was under way is
 *  carried out once in the end, whatever the old memctld had done of it; but the commands of memctl_call fail with -ENOTCONN where
 *  it is not known (questions do not).  memctl_release returns at once, and memctld takes the lease back when it is back; so does
 *  memctl_free: the process being alive, its VM's name and reservation are taken until reconnect_grace has passed.
 *
 *  Events tell of it (memctl_next_event): DISCONNECTED, then RECONNECTED; or LOST, if the memctld that is there now has never
 *  heard of this VM, or has ended it (the operator's `memctl vm rm`; a memctld that nobody kept the memory of).  Then pages that are
 *  not resident are gone: who touches them waits for ever, and calls fail.  The guest can only be ended.  A client without
 *  leases has nothing to lose and is registered anew, under the same name, without a LOST.
 *
 *  memctld can also let a VM go (`memctl vm release`, `memctl daemon stop`): it gives all memory back, all is plain
 *  memory of this process at the same addresses, and RELEASED says so.  Everything about content goes on; see plain_fallback for what
 *  does not.
 *
 * SHARING
 *
 *  Guest pages with equal content can be kept once: within the VM (sharing "vm"), or by all VMs of a group
 *  ("group:NAME").  memctld finds them by itself; the library maps the common frame in their place, and a write ends
 *  the sharing of its page (it takes about 10 us).  Nothing else changes: the address, what is read there, faults.  The
 *  process gets more mappings, up to what vm.max_map_count leaves, so its own mmap may meet that limit sooner.
 *
 *  Members of a group can find out, by how long a write takes, whether another member has a page with the same
 *  content, and the frames of a group can be read by each of its members.  So a group is for VMs that trust each
 *  other that far; memctld's configuration says which users may join which.  "vm" shares with nobody else.
 *
 *  While a page is mapped from the pool, or back, its writers wait for that order to be carried out.  So there must be a
 *  thread that carries orders out and never touches guest memory: memctl_helper_start's, or one of your own whose loop is
 *  memctl_dispatch, which memctl_share is told of.  Without either nothing of this VM is mapped from a pool.  Besides,
 *  memctl_discard, memctl_pin and memctl_release may need orders carried out before they can succeed: a call that waits for
 *  its reply does it, if nobody else is at it.
 *
 *  A member of a group that leaves the library's ways can do more than read: by reading, through a mapping of its own, a
 *  common page that memctld has put away, it can make that page zeros for all.
 *
 * BALLOON
 *
 *  A guest knows best which of its pages are of no use.  A driver in it can be asked for some: it takes them from the guest's own
 *  allocator and names them; the emulator, which is the driver's channel to the outside, passes that on.  (For QEMU's
 *  virtio-balloon `memctl run` does it all.)  A page in the balloon costs nothing.
 *
 *	memctl_balloon_start	the driver says hello (each time the guest is started, too)
 *	memctl_balloon_target	how much it should hold: looked at now and then, or when event BALLOON comes
 *	memctl_balloon_inflate	pages that it gives; some may be refused, those it keeps
 *	memctl_balloon_deflate	pages that it takes back, before the guest uses them
 *
 *  The law: from the call of memctl_balloon_inflate on a page's content is of no value, until memctl_balloon_deflate, or
 *  memctl_balloon_start, has returned success.  The guest writes nothing to it between the two; a write beside the inflate may be
 *  lost.  A page that inflate refused is the guest's at once.  After an inflate that *failed* (a negative return) nobody knows which pages were
 *  taken, or will be yet: all of them count as given until a deflate of them has succeeded.  So finish what is under way before a
 *  guest is reset and runs on, and start again then.
 *
 *  A guest that touches a page in the balloon all the same reads zeros, and the page has left the balloon: to deflate it is no
 *  harm and changes nothing.
 *
 *  After a restart of memctld the balloon is what it was: calls that were under way are made again by the library, the driver
 *  need not start again, and the target stays until memctld has made a plan.  When memctld lets the VM go (RELEASED), the target is
 *  0: there is no reason to keep anything in the balloon; deflating is free, inflating refuses every page.
 */
#ifndef MEMCTL_H
#define MEMCTL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMCTL_API __attribute__((visibility("default")))

struct memctl;		/* a connection and the VM registered on it */
struct memctl_lease;	/* a region of guest memory */

/* What went wrong.  `name` is the error of the contract ("org.memctl.NotEnoughMemory"), or
 * "org.memctl.Unreachable", "org.memctl.Timeout", "org.memctl.System" for what happened on this side.  `need` and
 * `have` are the numbers of that error (bytes, where it is about memory), 0 where there are none. */
struct memctl_error {
	char name[64];
	char message[320];
	uint64_t need, have;
};

/* The library's version, "0.1.0". */
MEMCTL_API const char *memctl_version(void);

/* ---- connecting ---- */

struct memctl_options {
	size_t struct_size;
	const char *socket;	/* NULL: $MEMCTL_SOCKET, else /run/memctl/memctld.sock */
	int timeout_ms;		/* 0: 10000; -1: for ever */
	int plain_fallback;	/* non-zero: without a daemon, or without permission for userfaultfd, go on with plain
				   memory that nobody manages; memctl_is_plain() says so.  Everything about content
				   works then; hints and pins do nothing, memctl_call fails (-ENOTCONN) */
};

/* Connect to memctld; `options` may be NULL.  *ret is the caller's, for memctl_free. */
MEMCTL_API int memctl_connect(const struct memctl_options *options, struct memctl **ret, struct memctl_error *e);

/* Release every lease and unregister the VM (its name may be taken for a moment longer; while memctld is away, see RESTART).  The
 * guest must not run any more.  NULL is fine.  Ends the helper thread.  Not to be called from an event or from the helper. */
MEMCTL_API void memctl_free(struct memctl *m);

/* 1 if this is plain memory (see plain_fallback, and RELEASED), with `why` in one sentence if not NULL; owned by m. */
MEMCTL_API int memctl_is_plain(const struct memctl *m, const char **why);

enum memctl_faults {
	MEMCTL_FAULTS_NONE,		/* plain memory, or no VM registered yet */
	MEMCTL_FAULTS_FULL,		/* all accesses, also by system calls and KVM */
	MEMCTL_FAULTS_USER_MODE,	/* accesses of this process in user mode only */
};
/* What the userfaultfds of this process's leases can do: the weakest of them; known from memctl_register on. */
MEMCTL_API enum memctl_faults memctl_fault_handling(const struct memctl *m);
MEMCTL_API const char *memctl_fault_handling_name(enum memctl_faults f);

/* ---- the VM ---- */

#define MEMCTL_NO_LIMIT UINT64_MAX

struct memctl_vm {
	size_t struct_size;
	const char *name;	/* 1..63 of [A-Za-z0-9._-], unique on the host */
	uint64_t size;		/* the most its leases may add up to; swap for size - reservation is set aside now */
	uint64_t reservation;	/* host memory guaranteed to it even when idle */
	uint64_t limit;		/* never more host memory than this; 0 or MEMCTL_NO_LIMIT: no limit */
	uint32_t shares;	/* weight when memory is short; 0: "normal", 10 per MiB */
	const char *sharing;	/* "off", "zero" (only pages of zeros cost nothing), "vm", "group:NAME"; NULL: the
				   host's default, as a rule "vm" */
	const char *swap_dir;	/* NULL: the host's; else one that the daemon's configuration allows */
	const char *balloon_max;	/* the most that its balloon may hold: "512M", "40%" of the size, "0"; NULL: the host's default */
	const char *stall_budget;	/* the part of the time that its guest may wait for pages before memctld takes from others
					   instead: "3%", "none"; NULL: the host's default */
};

/* Once per connection.  -ENOMEM: reservation or swap cannot be had (the numbers are in *e); -EEXIST: the name is
 * taken; -EINVAL: e says which field. */
MEMCTL_API int memctl_register(struct memctl *m, const struct memctl_vm *vm, struct memctl_error *e);

/* ---- leases ---- */

/* Lease guest-physical [gpa, gpa+size): it appears, zero-filled, at memctl_lease_address().  Several per VM. */
MEMCTL_API int memctl_lease(struct memctl *m, uint64_t gpa, uint64_t size, struct memctl_lease **ret,
	struct memctl_error *e);
/* The same at a place of the caller's choice: [address, address+size) is address space that the caller has reserved
 * (mmap PROT_NONE, say); whatever is mapped there is replaced.  A multiple of 4096; of 2 MiB is better for the page
 * tables.  After a failure, and after memctl_release(), it is reserved as before (PROT_NONE) and still the caller's. */
MEMCTL_API int memctl_lease_at(struct memctl *m, uint64_t gpa, uint64_t size, void *address,
	struct memctl_lease **ret, struct memctl_error *e);
/* Give it back: the mapping disappears, its frames and swap are free.  The guest must not touch it any more: a
 * thread that does, or that waits for a page of it, gets SIGSEGV.  The lease is freed in any case, also if an
 * error is returned (the daemon did not hear of it: it takes the lease back when the connection ends).  While memctld is away
 * this does not wait: it has the lease's frames back when it is back. */
MEMCTL_API int memctl_release(struct memctl_lease *l, struct memctl_error *e);

/* Where it is mapped, where the guest sees it, and how long it is. */
MEMCTL_API void *memctl_lease_address(const struct memctl_lease *l);
MEMCTL_API uint64_t memctl_lease_gpa(const struct memctl_lease *l);
MEMCTL_API uint64_t memctl_lease_size(const struct memctl_lease *l);

/* Hints: the pages will be used soon (brought in, as memory allows) / not soon (next to be taken).  Content is
 * kept. */
MEMCTL_API int memctl_will_need(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
MEMCTL_API int memctl_dont_need(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
/* The content is of no value any more: the pages read as zero afterwards and cost nothing.  A write that runs
 * beside the discard may be lost. */
MEMCTL_API int memctl_discard(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
/* Bring the range in, waiting until it is resident.  It may be taken again at any time; see memctl_pin. */
MEMCTL_API int memctl_populate(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
/* Bring in and keep resident until as many unpins came as pins (at most 15 deep).  The VM's pinned pages may add
 * up to its reservation; -ENOMEM beyond it, with nothing pinned. */
MEMCTL_API int memctl_pin(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
MEMCTL_API int memctl_unpin(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);

/* read(2) / pread(2) into, and write(2) / pwrite(2) from guest memory, right under every kind of fault handling.
 * No alignment needed (but what the file itself wants, with O_DIRECT).  file_offset -1: the file's own position.
 * Like the system calls they may stop short; return the count or -errno. */
MEMCTL_API ssize_t memctl_read_into(struct memctl_lease *l, uint64_t offset, uint64_t length, int fd,
	off_t file_offset);
MEMCTL_API ssize_t memctl_write_from(struct memctl_lease *l, uint64_t offset, uint64_t length, int fd,
	off_t file_offset);

/* ---- the balloon (see BALLOON) ---- */

/* A driver is there, and knows of no page in the balloon: it is empty from now on.  memctl_register comes first. */
MEMCTL_API int memctl_balloon_start(struct memctl *m, struct memctl_error *e);
/* How many bytes the balloon should hold, as memctld said last; 0 before memctl_balloon_start.  Never blocks; as new as
 * the last memctl_dispatch (or the helper) and memctl_balloon_poll. */
MEMCTL_API uint64_t memctl_balloon_target(const struct memctl *m);
/* Ask memctld; *ret_target may be NULL.  For a client that nobody dispatches for.  -EBUSY: no memctl_balloon_start. */
MEMCTL_API int memctl_balloon_poll(struct memctl *m, uint64_t *ret_target, struct memctl_error *e);
/* `pages` are page numbers within the lease (offset / 4096), in any order, each once.  refused: NULL, or a byte a page: set
 * to 1 if it was refused, to 0 if it is in the balloon now.  How many are in the balloon, or -errno; see BALLOON for what that means.
 * -EINVAL: a page is beyond the lease, or named twice, and nothing was done.  2 MiB at a time are sent. */
MEMCTL_API ssize_t memctl_balloon_inflate(struct memctl_lease *l, const uint64_t *pages, size_t n, uint8_t *refused,
	struct memctl_error *e);
/* These pages are the guest's again, and read as zeros.  0 or -errno: then some may not be, and it can be called again. */
MEMCTL_API int memctl_balloon_deflate(struct memctl_lease *l, const uint64_t *pages, size_t n, struct memctl_error *e);

/* ---- orders and events ---- */

/* The daemon asks small things of the library (which pages of a run were used?).  Either poll memctl_fd() for input and call
 * memctl_dispatch() in your loop, or let a helper thread do it.  A client that does neither
 * shares nothing, loses accuracy (its pages are taken in the order they came), and is on its own after a restart (RESTART).
 *
 * The descriptor is -1 before memctl_register, and for plain_fallback's memory.  It is the library's: wait for input with
 * poll, select or epoll, do not close or read it.  It is the same until memctl_free, whatever becomes of the connection (it is an
 * epoll of its own), and is ready once a second at least, for the library looks who waits. */
MEMCTL_API int memctl_fd(const struct memctl *m);
/* Carry out what has arrived, and what is due; never blocks for longer than the orders take, and 20 ms while memctld is
 * coming back.  Number of orders done (0 also while memctld is away), or -errno (-ENOTCONN: the VM is lost, see RESTART: it
 * will be nothing else any more).  One thread at a time is in it, others wait until it is out. */
MEMCTL_API int memctl_dispatch(struct memctl *m, struct memctl_error *e);
/* A thread (signals blocked, small stack) that dispatches until memctl_helper_stop or memctl_free.  Sharing begins with it
 * (memctl_share), if the VM's setting says so and this process can. */
MEMCTL_API int memctl_helper_start(struct memctl *m, struct memctl_error *e);
/* Ends it; but once pages are shared it goes on until memctl_free. */
MEMCTL_API void memctl_helper_stop(struct memctl *m);
/* Sharing may begin: a thread that never touches guest memory dispatches from now on, until memctl_free.  For programs with a
 * thread of their own instead of the helper, from any thread, once a VM is registered.  0, also where the VM's setting has nothing to
 * be mapped from a pool; -EOPNOTSUPP: this process cannot share (*e says why), and goes on as before. */
MEMCTL_API int memctl_share(struct memctl *m, struct memctl_error *e);

enum memctl_event_kind {
	MEMCTL_EVENT_DISCONNECTED = 1,	/* the daemon is gone; absent pages wait */
	MEMCTL_EVENT_RECONNECTED,	/* it is back, and all is as before */
	MEMCTL_EVENT_LOST,		/* it is back, and has this VM no more: end the guest */
	MEMCTL_EVENT_RELEASED,		/* it has let the VM go: memctl_is_plain() from now on */
	MEMCTL_EVENT_STALLED,		/* threads wait for pages and none was served for longer than a second; stalled_ms */
	MEMCTL_EVENT_SERVED,		/* that is over; stalled_ms: how long it took */
	MEMCTL_EVENT_BALLOON,		/* memctl_balloon_target() is another; one of these waits at the most */
};
struct memctl_event {
	size_t struct_size;
	enum memctl_event_kind kind;
	uint64_t stalled_ms;	/* 0 for other kinds */
};
/* Take the oldest queued event: 1, or 0 if there is none.  Events are never delivered inside another call.  Sixteen are
 * kept, the oldest are dropped.  They come from where the connection is looked after: the helper, memctl_dispatch, a call. */
MEMCTL_API int memctl_next_event(struct memctl *m, struct memctl_event *ret);
/* "disconnected" ...; for logs. */
MEMCTL_API const char *memctl_event_name(enum memctl_event_kind kind);
/* For how long threads have been waiting for pages of a lease of which none was served, in milliseconds; 0: it is not so.  As
 * the helper or memctl_dispatch saw it last, ten times a second when somebody waits.  Never blocks. */
MEMCTL_API uint64_t memctl_stalled_ms(const struct memctl *m);

/* ---- numbers and operator calls ---- */

struct memctl_stats {
	size_t struct_size;
	uint64_t size, leased, resident, compressed, stored, swapped, zero, pinned, charged;	/* bytes */
	uint64_t faults, faults_zero, faults_compressed, faults_swapped, evicted_pages;
	uint64_t shared, saved;	/* bytes: guest memory that is shared; what it would cost beyond its part if it were not */
};
/* The VM's own numbers, asked of the daemon. */
MEMCTL_API int memctl_stats(struct memctl *m, struct memctl_stats *ret, struct memctl_error *e);

/* Call any method of org.memctl (proto/org.memctl.varlink): parameters and reply are JSON texts; `parameters`
 * NULL: {}.  *ret_reply is malloc'ed, the caller's to free(); it is the "parameters" of the reply.  Works
 * without a registered VM: the CLI is made of this.  Descriptors of a reply are closed; do not call by this what
 * has a function above. */
MEMCTL_API int memctl_call(struct memctl *m, const char *method, const char *parameters, char **ret_reply,
	struct memctl_error *e);

#ifdef __cplusplus
}
#endif
#endif
