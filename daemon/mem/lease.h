/* A lease: a guest-physical region of a VM, its memfd, page map and two threads. */
#pragma once

#include "mem/vm.h"

/* Reserve the region and make its memfd.  -EEXIST on overlap, -ENOSPC beyond the VM's size. */
int lease_new(struct lease **ret, struct vm *vm, uint64_t gpa, uint64_t size_bytes, struct problem *p);
/* The client has mapped it at `address` and registered it with `uffd` (taken in any case): start serving. */
int lease_activate(struct lease *l, int uffd, uint64_t address, struct problem *p);

/* Close a descriptor that a client passed, on the worker: closing a file of its own making may block. */
void lease_close_refused(struct lease *l, int fd);

struct lease *vm_find_lease(struct vm *vm, uint32_t id);
struct lease *vm_first_lease(struct vm *vm);
struct lease *lease_next(struct lease *l);
uint32_t lease_id(const struct lease *l);
uint64_t lease_gpa(const struct lease *l);
uint64_t lease_size_bytes(const struct lease *l);
struct vm *lease_vm(const struct lease *l);
/* The memfd; stays the lease's (pass a dup to the client). */
int lease_fd(const struct lease *l);
/* Activated once (and perhaps ending); a lease that is not is freed by lease_free alone. */
bool lease_is_active(const struct lease *l);

/* Work for the lease's worker.  `done` is called on the worker when it is finished; the job belongs to the
 * lease from lease_submit until then.  Ranges are pages of the lease, checked by lease_submit. */
enum job_kind {
	JOB_WILL_NEED,	/* bring in what is not resident, as far as free memory allows */
	JOB_DONT_NEED,	/* make them the next victims; content is kept */
	JOB_PAGE_IN,	/* bring in what is in a store, while there is room: at most `most` pages; then `range` is what is left of it */
	JOB_DISCARD,	/* content is dropped: reads as zero afterwards */
	JOB_POPULATE,	/* bring all in, waiting for frames */
	JOB_PIN,	/* populate, and never evict until unpinned; -ENOMEM beyond the VM's reservation */
	JOB_UNPIN,
	JOB_INFLATE,	/* into the balloon, as far as they can: job.runs, job.refused */
	JOB_DEFLATE,	/* out of it: zeros, as if never touched; job.runs, or (NULL) the whole range */
	JOB_GATHER,	/* all of it becomes resident, or is zero, and stays so; -EIO: a page is lost, -ETIMEDOUT: its client does not help */
	JOB_HAND_OVER,	/* after that: the client takes it as memory of its own */
	JOB_AUDIT,	/* the whole lease; fills job.audit */
	JOB_RELEASE,	/* everything is given back; both threads end; then the lease is freed by lease_free */
};

/* What audit found; words are counted under their locks, exactly even while the guest runs (audit.c). */
struct lease_audit {
	uint64_t pages;			/* of the lease */
	uint64_t zero, resident, shared, breaking, compressed, swapped, ballooned, lost; /* words by state; add up to pages */
	uint64_t in_transit;		/* of these, locked for longer than the audit waited */
	uint64_t data;			/* pages that the memfd holds where the audit looked */
	uint64_t discarded;		/* resident words over a hole: corrected, no failure */
	uint64_t foreign;		/* untouched pages with data that the client put there: charged, no failure */
	uint64_t private_pages;		/* private copies of shared pages that nobody was charged for: failures */
	uint64_t wrong;			/* evicted pages that still have data, counters that differ: failures */
	uint64_t unregistered;		/* not used by the daemon; clients check their own smaps */
	char first_wrong[200];		/* the first failure in words */
};

struct job {
	struct job *next;
	enum job_kind kind;
	struct run range;
	uint64_t most, floor_frames;	/* PAGE_IN: so many pages, and only while more than these are free */
	/* INFLATE, DEFLATE: runs within the range, ascending, the caller's until `done`; of INFLATE a zeroed bit a page of theirs,
	 * for those that were refused; no page is taken after `until_ns`, because the client might not wait for it any more */
	const struct run *runs;
	unsigned n_runs;
	uint8_t *refused;
	uint64_t until_ns;
	uint64_t call;			/* PIN, UNPIN: the client's number, so that a repeated call is done once; 0: none */
	int r;				/* result: 0 or -errno */
	uint64_t pages;			/* how many pages were acted on */
	struct lease_audit audit;
	void (*done)(struct job *job, void *userdata);
	void *userdata;
};
/* -EINVAL: the range leaves the lease; -EBUSY: not activated, or ending.  `done` is not called then. */
int lease_submit(struct lease *l, struct job *job);
/* Frames that JOB_GATHER would need. */
uint64_t lease_missing_frames(struct lease *l);
/* It goes on as before JOB_GATHER: pages of it may be taken again. */
void lease_stop_staying(struct lease *l);
/* The client has it as memory of its own: JOB_RELEASE leaves its pages alone.  After a restart it may be that nobody knows: then
 * no page of it is taken or punched, until its client has said. */
void lease_set_plain(struct lease *l);
/* It was not handed over after all. */
void lease_not_plain(struct lease *l);
bool lease_is_plain(const struct lease *l);
bool lease_may_be_plain(const struct lease *l);
/* After JOB_RELEASE's done: join the threads (ended) and free. */
void lease_free(struct lease *l);

/* Runs of the page map from `page` on: one call gives one maximal run of equal state and, with `ages`, of equal age.
 * 1: *ret is the run; 0: `page` is beyond the end.  May be called from the control thread while the guest runs:
 * each word is read once, atomically. */
enum page_state { PAGE_ZERO, PAGE_RESIDENT, PAGE_SHARED, PAGE_BREAKING, PAGE_COMPRESSED, PAGE_SWAPPED,
	PAGE_BALLOONED, PAGE_LOST };
extern const char *const page_state_names[];
struct map_run {
	struct run run;
	enum page_state state;
	uint64_t age;		/* with `ages`, resident: generations of fills since it was filled, or seen in use */
	bool in_transit, pinned, mapped;	/* mapped: from the pool */
	uint64_t place;		/* compressed: byte offset in the cache; swapped: slot; shared, breaking: entry of
				 * the pool; of the first page */
	uint64_t stored_bytes;	/* what the run takes where it is, headers included */
};
int lease_map_run(struct lease *l, uint64_t page, uint64_t end, bool ages, struct map_run *ret);
/* The next run of pages from `page` on whose words refer to consecutive entries of the pool (shared or breaking), looked for
 * in at most `most` words.  1: *ret; 0: none there.  *ret_next: where to look next.  As lease_map_run. */
int lease_shared_run(struct lease *l, uint64_t page, uint64_t most, struct pool_run *ret, uint64_t *ret_next);

/* What the stores of a VM hold, against what its page maps say. */
struct vm_audit {
	struct lease_audit leases;	/* summed */
	uint64_t cache_live_pages, cache_map_pages;	/* pages the cache holds / words that refer to it */
	uint64_t cache_blocks_frames, cache_charged_frames;
	uint64_t swap_used_slots, swap_map_pages;
	uint64_t lease_blocks_frames, lease_charged_frames;
	bool ok;
	char first_wrong[200];
};
/* Combine the lease audits (their jobs done) with the stores.  Control thread. */
void vm_audit_stores(struct vm *vm, struct vm_audit *a);
