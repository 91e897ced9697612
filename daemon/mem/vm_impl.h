/* The inside of a VM and of a lease, shared by the files of mem/ that act on pages: fill.c (content in),
 * fault.c (who waits for it), evict.c (content out), scan.c, share.c and remap.c (equal content,
 * once), victim.c (which pages), balloon.c (what the guest gives),
 * worker.c (jobs), audit.c (the proof), lease.c and vm.c (life).
 *
 * Threads of a lease: the *fault thread* reads events and fills; the *worker* does everything that may wait on a lock
 * the client can hold (write-protect, pread, punch).  The worker of any lease of a VM may also move pages of the
 * VM's other leases between the stores; it takes their words' locks, and makes no system call on them but WAKE.
 *
 * Lock order (take from left to right, leave out what is not needed):
 *	stores.lock > words of leases (busy) > words of pools (busy) > vm.lock > lease.ledger_lock, pool.lock, cache, swap
 *	> arena
 * and lease.jobs_lock last of all.  Only the lease's own worker ever *waits* for a busy word, and it waits holding none
 * but words of its own lease which nobody else waits for; all others try, and leave the page alone if they
 * fail.  So words cannot dead-lock.  A fault thread charges its frames before it locks a word: nobody
 * holds a word while waiting for memory. */
#pragma once

#include "base/clock.h"
#include "base/list.h"
#include "mem/pool.h"
#include "mem/state.h"
#include "mem/store.h"

#include <pthread.h>

#define PAGE_STATES 8

struct vm_counters {
#define NUMBER(name, kind, unit, sentence) _Atomic uint64_t name;
#include "mem/vm_numbers.def"
#undef NUMBER
};
/* Why the VM cannot go on; the first reason stays.  `must_end`: its client is to be sent away. */
void vm_set_trouble(struct vm *vm, bool must_end, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define COUNT(vm, name, n) atomic_fetch_add_explicit(&(vm)->counters.name, (n), memory_order_relaxed)

/* What is kept of a VM (state.h).  It only grows: in a card of an older format what came later is zero. */
struct vm_card {
	char name[64];
	uint64_t size_bytes, reservation_bytes, limit_bytes;
	uint32_t shares;
	char swap_dir[256];
	bool keep_swap_sparse;
	uint32_t sharing;		/* enum sharing */
	uint32_t pool;			/* its number; 0: none */
	uint64_t vma_budget;
	uint32_t client_bytes;
	uint8_t client[VM_CLIENT_MAX];
	/* format 2 */
	uint64_t balloon_max_bytes, stall_budget_permille;	/* as in struct vm_config */
	uint64_t swap_max_bytes;	/* the most that its swap file may grow to; 0: size - reservation */
	uint64_t break_reserve_frames;	/* as in struct vm_config */
	uint32_t sharing_withheld;	/* how much less is shared now: `sharing` - this */
};
_Static_assert(offsetof(struct vm_card, sharing) == 352 && offsetof(struct vm_card, client) == 372 &&
	offsetof(struct vm_card, balloon_max_bytes) == 1400, "a card of format 1 is read as it was written");
void card_put_config(struct vm_card *card, const struct vm_config *c);
void card_get_config(const struct vm_card *card, struct vm_config *ret);
/* The swap that it needs, and what the arena promises it with `swap_bytes` set aside. */
uint64_t vm_swap_bytes(const struct vm_config *c);
uint64_t vm_promised_frames(const struct vm_config *c, uint64_t swap_bytes);

/* The wall time in which at least one guest thread waits: a sum over the waits would count an instant once for each.
 * The lock is a leaf, held for a few instructions. */
struct stall {
	pthread_mutex_t lock;
	unsigned waiting;
	uint64_t since_ns;	/* of the first of these */
	uint64_t total_ns;	/* before that */
	uint64_t ended_ns;	/* when the last of those ended */
	uint64_t told_ns;	/* until when was told while somebody waited: it is not taken back */
};
void stall_begin(struct stall *s, uint64_t since_ns);
void stall_end(struct stall *s, uint64_t now_ns);
uint64_t stall_total_ns(struct stall *s);

struct vm {
	struct arena *arena;
	struct kept_owner owner;
	struct state state;
	struct vm_card card;
	const struct mem_settings *settings;
	struct vm_config config;
	struct account account;
	uint64_t reserved_frames;	/* by arena_reserve */
	_Atomic uint64_t taking_frames;	/* what its workers are about to take for the host */
	struct stores stores;
	_Atomic unsigned sharing;	/* enum sharing: what its leases are made for */
	_Atomic unsigned sharing_now;	/* at most that */
	struct pool *_Atomic pool;	/* set once; NULL: none (yet) */
	uint64_t vma_budget;		/* set before pool */
	_Atomic uint64_t mappings_full_until_ns;	/* it could not make one more */
	_Atomic uint64_t scan_passes;	/* of all its leases */
	_Atomic uint64_t mappings;	/* that sharing has added to the client */
	_Atomic uint64_t cold_pages, clean_pages;	/* SHARED and not mapped; RESIDENT and clean */
	struct {			/* balloon.c; any thread */
		_Atomic bool driver;
		_Atomic uint64_t target_frames;	/* UINT64_MAX: nobody has said */
		_Atomic uint64_t claim_frames, claim_until_ns;
	} balloon;
	_Atomic uint64_t lost_mapped_pages;	/* LOST, and the client maps the pool there: they refer to their entries */

	pthread_mutex_t lock;		/* leases, stopping */
	struct list leases;
	uint32_t next_id;
	uint64_t leased_pages;
	unsigned live_workers;
	_Atomic bool stopping;
	void (*gone)(void *);
	void *gone_data;

	_Atomic uint64_t pages[PAGE_STATES];	/* sums over the leases */
	_Atomic uint64_t pinned_pages;
	struct vm_counters counters;
	struct histogram latency[FAULT_CAUSES];
	struct stall stall;		/* guest threads that wait for pages */
	_Atomic bool has_orders;
	struct vm_orders orders;		/* set once, before has_orders */
	_Atomic unsigned troubled;		/* 0: no, 1: being written, 2: told */
	_Atomic bool must_end;
	char trouble[160];
};

#define STREAMS 4
#define EPOCHS	64
/* The own mapping is mapped anew after so many fills: its page tables stay below 64 KiB + what 32 MiB need. */
#define OWN_REFRESH_PAGES 16384u

/* A fault that met a busy word. */
struct wait {
	uint64_t page;
	uint64_t began_ns;	/* 0: free */
};
#define WAITS 16

/* A place that a sequential reader was seen at. */
struct stream {
	uint64_t next, reach;		/* it goes on between these: at `reach` if it has found all that is brought in ahead */
	bool stored;			/* it finds more than zeros */
	unsigned window;
	unsigned age;
};

/* Faults that are remembered, to see which lie near one another. */
#define RECENT_FAULTS 256u

/* The threads of a lease that its client can hold. */
enum holder { HOLD_WORKER, HOLD_FAULT, HOLDERS };

struct lease {
	struct list link;		/* of the VM */
	struct vm *vm;
	uint32_t id;
	uint64_t gpa;
	uint64_t pages;
	struct segment *memory;
	struct page_map map;

	bool was_found;			/* it is of a process before us */
	char uffd_tag[KEPT_TAG];
	struct state_lease *record;	/* NULL: it is not activated */
	int uffd;			/* the client's */
	uint64_t address;		/* where the client mapped it */
	int own_uffd;			/* ours, for the mapping that we fill through */
	uint8_t *own;
	_Atomic uint64_t own_filled;	/* pages filled since `own` was last mapped anew */

	pthread_t fault_thread, worker;
	bool has_worker;		/* from the lease's first to its last moment */
	_Atomic bool active;		/* the client has mapped it; both threads run (or ran) */
	_Atomic bool ending;		/* no new jobs, reclaim stops */
	_Atomic bool staying;		/* nothing is taken from it, nothing shared: it is being handed over */
	_Atomic bool handing;		/* the client was told to take it, and has not answered */
	_Atomic bool plain;		/* handed over */
	uint64_t handed_pages;		/* worker only */
	uint32_t *unsure;		/* pages whose words were found moving, until the worker has looked */
	unsigned n_unsure;
	_Atomic bool fault_stop, fault_ended;

	_Atomic uint64_t held_since_ns[HOLDERS];	/* lease_hold_begin; 0: not */

	pthread_mutex_t jobs_lock;
	pthread_cond_t jobs_cond;
	struct job *jobs, **jobs_tail;
	struct job stop_job;		/* vm_stop's */
	_Atomic uint64_t reclaim;	/* frames to free */
	_Atomic bool reclaim_limit;	/* because of the VM's own limit */
	bool refresh;			/* map `own` anew (under jobs_lock) */
	struct run ahead;		/* what a stream will want next; count 0: nothing (under jobs_lock) */
	uint64_t pokes;			/* of it, counted (under jobs_lock) */
	bool share_poked;		/* there may be something to share, or to bring home (under jobs_lock) */
	int refused_fds[4];		/* to be closed where it may block (under jobs_lock) */
	unsigned n_refused_fds;
	bool ended;			/* the worker takes no jobs any more (under jobs_lock) */
	bool released;			/* its pages are in no store any more (under stores.lock) */
	struct job adopt_job;		/* vm_check_wall's, while adopting */
	_Atomic bool adopting;

	/* The ledger's sums.  A word's change is counted while the word is locked. */
	pthread_mutex_t ledger_lock;
	uint64_t count[PAGE_STATES];
	uint64_t audit_hand;		/* pages below it have been counted by the audit that runs now */
	int64_t audit_moved[PAGE_STATES];	/* what changed below the hand since */
	uint64_t epoch;			/* generation of fills, now */
	uint64_t epoch_oldest;		/* no resident page is older */
	uint64_t epoch_fills;		/* fills in the current one */
	uint64_t epoch_pages[EPOCHS];	/* resident pages by generation */

	/* Faults that the fault thread dropped because an eviction had the page, for their latency: under ledger_lock. */
	struct wait waits[WAITS];
	_Atomic unsigned n_waits;

	_Atomic uint64_t serving_ns;	/* when the event that is being served was read; 0: none is */
	struct bench fault_bench;	/* fault thread only, and these: */
	struct stream streams[STREAMS];
	unsigned stream_clock;
	uint32_t recent[RECENT_FAULTS];	/* blocks of the last faults on stored pages, + 1, a ring; likewise */
	unsigned recent_at;

	_Atomic uint64_t share_part;	/* what it pays of the pool now (pool_part) */
	struct share *share;		/* share.c; NULL: nothing of it is ever shared */

	/* Worker only. */
	uint64_t job_began_ns;
	uint64_t pool_added;		/* entries that this lease has made */
	uint64_t pool_debt;		/* pages of its own evicted since the VM's pool gave its part */
	struct bench bench;
	struct victims *victims;
};

/* ---- life (vm.c, lease.c) ---- */

/* A VM without anything; and what it needs to be one: its promises, its stores.  -errno from vm_equip: vm_free it. */
int vm_make(struct vm **ret, struct arena *a, const struct mem_settings *settings, struct kept_owner owner);
int vm_check_config(const struct vm_config *c, struct problem *p);
/* What is kept has changed, if the VM is there for good already. */
void vm_card_changed(struct vm *vm);
int vm_equip(struct vm *vm, const struct vm_config *c, struct problem *p);

#define LEASE_ID_MAX 65535u

/* A lease that was found, as its record says: in the VM's list, without a thread, its words as they were left (recover.c). */
int lease_found(struct lease **ret, struct vm *vm, uint32_t id, const struct state_lease *record, struct problem *p);
/* Its words are settled: what works on it from now on, its threads included. */
int lease_serve(struct lease *l, struct problem *p);

/* It is not there any more at a restart. */
void lease_forget(struct lease *l);

/* ---- ledger (lease.c) ---- */

static inline word *lease_word(struct lease *l, uint64_t page)
{
	return &l->map.words[page];
}

static inline uint64_t lease_client_address(const struct lease *l, uint64_t page)
{
	return l->address + page * PAGE_SIZE;
}

/* Count a page of one state as of another; the caller holds the word.  `word_now` is the word before for a page
 * that leaves RESIDENT, so that its generation is uncounted.  For a page that becomes RESIDENT the generation is
 * the current one and is returned. */
uint64_t ledger_move(struct lease *l, uint64_t page, uint64_t word_before, enum page_state to);
/* Give a resident page that nobody holds another generation: the newest, or the oldest there is.  `use` is its
 * credit of uses from now on.  false: the word was not `seen` any more. */
bool ledger_restamp(struct lease *l, uint64_t page, uint64_t seen, bool newest, unsigned use);
/* The oldest generation that has resident pages. */
uint64_t ledger_oldest(struct lease *l, uint64_t *ret_newest);
static inline bool epoch_is(uint64_t w, uint64_t epoch)
{
	return (word_ref(w) & 0xffff) == (epoch & 0xffff);
}

/* After unlocking pages: the faults that were dropped meanwhile have waited so long (lease_end_waits), and come
 * again (lease_wake does both). */
void lease_end_waits(struct lease *l, uint64_t page, uint64_t count);
void lease_wake(struct lease *l, uint64_t page, uint64_t count);

/* ---- content in (fill.c) ---- */

static inline bool is_mapped(uint64_t w)
{
	return word_state(w) == PAGE_BREAKING ||
		((word_state(w) == PAGE_SHARED || word_state(w) == PAGE_LOST) && (w & WORD_MAPPED));
}

/* For whom: a guest that waits for the first page; a stream that is about to read them (fault thread); the worker's jobs. */
enum fill_for { FILL_FAULT, FILL_AHEAD, FILL_JOB };
/* Whether a page can be brought in by one run with another: where its content is does not matter, but what is in the balloon
 * leaves it alone or with its like. */
static inline bool fill_joins(uint64_t first, uint64_t w)
{
	return !(w & WORD_BUSY) && word_state(w) != PAGE_RESIDENT && word_state(w) != PAGE_LOST && !is_mapped(w) &&
		(word_state(w) == PAGE_BALLOONED) == (word_state(first) == PAGE_BALLOONED);
}
/* Bring in `count` neighbouring pages whose words the caller has locked (fill_joins), for which it has charged `count`
 * frames.  Settles and unlocks all words, wakes the client's waiters.  Returns how many are resident now; the rest keep their
 * state and their frames are uncharged.  Only when a guest waits for the first page is a store asked again and again, and
 * the page lost in the end if it fails. */
unsigned fill_run(struct lease *l, struct bench *b, uint64_t page, unsigned count, const uint64_t *before,
	enum fill_for who);
/* Charge and lock the pages behind the `have` that are locked, as far as they come in by one run with these; with none, none that is
 * in the balloon.  How many are locked then. */
unsigned fill_gather(struct lease *l, uint64_t page, unsigned have, unsigned most, uint64_t *before);
/* Bring in what of the range a stream will find missing, as long as there are frames and nobody else has the pages.  Pages. */
unsigned fill_ahead(struct lease *l, struct bench *b, struct run range, enum fill_for who);
/* A fault on a page that should be resident: give it a zero page if the client punched it out. */
void fill_discarded(struct lease *l, uint64_t page, uint64_t before);
/* Map the daemon's own mapping (again). */
int own_map(struct lease *l);

/* ---- faults (fault.c) ---- */
void *fault_main(void *lease);

/* ---- content out (evict.c) ---- */

/* A batch of victims: ascending page numbers, words locked, RESIDENT and not pinned. */
struct batch {
	unsigned count;
	uint64_t page[RUN_MAX];
	uint64_t before[RUN_MAX];	/* the words */
};
/* Evict the batch; unlocks all its words.  How many pages left their frames. */
unsigned evict_batch(struct lease *l, struct bench *b, struct batch *batch);
/* Drop the content of locked pages (RESIDENT ones are punched): they are `to` afterwards, ZERO or BALLOONED.  Unlocks them.  The
 * bits of those that are; the others (mapped from the pool, or kept by the kernel) are what they were, and perhaps zeros. */
uint64_t drop_batch(struct lease *l, struct batch *batch, enum page_state to);

/* System calls on the batch's pages with a bit in `mask`, neighbours together; the bits of those that it worked for. */
uint64_t batch_protect(struct lease *l, const struct batch *b);
void batch_unprotect(struct lease *l, const struct batch *b, uint64_t mask);
uint64_t batch_copy_out(struct lease *l, const struct batch *b, uint8_t *buf, uint64_t mask);
/* Punch and verify; the bits of those that are holes now.  `buf`: what was in them, NULL if it does not matter. */
uint64_t batch_punch(struct lease *l, const struct batch *b, uint64_t mask, const uint8_t *buf);
void batch_unlock_and_wake(struct lease *l, const struct batch *b, uint64_t mask, const uint64_t *words);
static inline uint64_t full_mask(unsigned count)
{
	return count == 64 ? UINT64_MAX : (1ull << count) - 1;
}
bool page_is_zero(const uint8_t *page);

/* ---- stores (vm.c) ---- */
extern const struct stores_owner vm_stores_owner;
/* A lease of the VM by id that is in the stores; stores.lock is held. */
struct lease *vm_find_stored_lease(struct vm *vm, uint32_t id);
/* Drop what a word refers to, in a store or in the pool.  The word no longer says so. */
void vm_forget(struct vm *vm, uint64_t word_before);

/* ---- sharing (share.c) ---- */
struct share;
int share_new(struct share **ret, struct lease *l);
void share_grant(struct vm *vm, uint64_t hand_pages, uint64_t read_pages);
void share_free(struct lease *l);
/* There is a pool for it. */
void share_join(struct lease *l, struct pool *pool);
/* Do some of what is to be done: settle an answer, bring home, look at pages.  Whether there is more. */
bool share_step(struct lease *l);
void share_poke(struct lease *l);
/* Act on the answer to an order, if it is there. */
void share_settle(struct lease *l);
/* Bring home what is mapped from the pool within the runs (which ascend), waiting for the client, at most until `until_ns`.
 * 0, -ETIMEDOUT, -ESHUTDOWN. */
int share_bring_home(struct lease *l, const struct run *runs, unsigned n, uint64_t until_ns);
/* A write to a page that is protected: the fault thread holds its word, which was `before`; it is settled, unlocked and
 * woken. `charged`: a frame is charged for it. */
void share_break(struct lease *l, struct bench *b, uint64_t page, uint64_t before, bool pool_charged);
bool share_may_break(struct lease *l);
/* A missing page that is mapped from the pool, likewise. */
void share_fill(struct lease *l, struct bench *b, uint64_t page, uint64_t before, bool pool_charged);
/* An entry with this content for a page that is evicted, with a reference; its word (scan.c). */
bool share_evicted(struct lease *l, uint64_t page, const uint8_t *content, uint64_t *ret_word);
/* A clean page was written to, or is no longer protected: the caller holds the word and takes WORD_CLEAN out. */
void share_dirtied(struct lease *l, uint64_t page, bool by_guest);
/* Whether a page is as it was when its hint was given (another lease's worker asks; the lease is kept). */
bool share_hint_holds(struct lease *l, uint64_t page, uint32_t hash);
/* The hash of a page at its last look; 0: none. */
uint32_t share_sight(struct lease *l, uint64_t page);
/* Look at this page soon: another one is like it (any thread; the lease is kept). */
void share_nudge(struct lease *l, uint64_t page);
void share_answered(struct lease *l, uint64_t order, int r, const uint8_t *bits, unsigned pages);
/* The lease ends: nothing of it refers to the pool any more (worker, after the fault thread). */
void share_end(struct lease *l);
/* Pages of [page, page + count) that the client says are private copies, of those in `mask`: bits.  -errno: it does not say. */
int share_ask_private(struct lease *l, uint64_t page, uint64_t mask, uint64_t *ret_bits);

/* ---- which pages (victim.c) ---- */
struct victims;
int victims_new(struct victims **ret, struct lease *l);
void victims_free(struct victims *v);
/* Begin again with the oldest generation (pages have been made oldest). */
void victims_restart(struct lease *l);
/* Lock up to RUN_MAX victims into the batch (sorted).  0: nothing to be had. */
unsigned victims_pick(struct lease *l, struct batch *batch);

/* ---- pins.c, hand_over.c ---- */
int lease_pin(struct lease *l, struct job *job);
int lease_unpin(struct lease *l, struct job *job);
int lease_gather(struct lease *l, uint64_t *ret_pages);
int lease_hand_over(struct lease *l);

/* ---- balloon.c ---- */

/* What an agent claims now. */
uint64_t vm_balloon_claimed(struct vm *vm);
int lease_inflate(struct lease *l, struct job *job);
int lease_deflate(struct lease *l, struct job *job);

/* ---- recover.c ---- */
/* Whether pages that were found moving are there: the worker's first act, for looking may wait for the client. */
void lease_settle_unsure(struct lease *l);

/* ---- worker.c ---- */

/* This thread goes into a system call that takes locks of its client, which may hold them (vm_held_since_ns): nothing else is
 * done between these two, least of all on our own disk.  They do not nest.  A process that ends while such a thread is in the
 * kernel waits for the client, so before that it is told to park: for the words it is as if it had died here. */
_Noreturn void lease_park(struct lease *l, enum holder h);
static inline void lease_hold_begin(struct lease *l, enum holder h)
{
	atomic_store(&l->held_since_ns[h], now_ns());
	if (atomic_load(&l->vm->settings->park))
		lease_park(l, h);
}

static inline void lease_hold_end(struct lease *l, enum holder h)
{
	atomic_store_explicit(&l->held_since_ns[h], 0, memory_order_relaxed);
}

void *worker_main(void *lease);
/* A populate or pin that is not done by then is refused: the client's call must be answered before it times out (10 s),
 * because a connection that has lost step is of no use any more.  The library asks for 32 MiB at a time. */
#define GIVE_UP_NS (8 * NS_PER_S)
/* Bring the range in; `wait`: for frames, else only while there are some.  0, -ENOMEM, -EIO (a page is lost), -ESHUTDOWN. */
int lease_bring_in(struct lease *l, struct run range, bool wait, uint64_t *ret_pages);
/* The same, at the client's word. */
int lease_populate(struct lease *l, struct run range, bool wait, uint64_t *ret_pages);
/* ---- page_in.c ---- */
void lease_page_in(struct lease *l, struct job *job);
/* Wait for a word: own worker only.  false after `timeout_ns`, or when the lease ends. */
bool lease_lock_word(struct lease *l, uint64_t page, uint64_t timeout_ns, uint64_t *ret_before);
/* Wait for the worker's next poke after `*seen`, at most so long; what it was poked for stays to be done. */
void lease_wait_poke(struct lease *l, uint64_t *seen, uint64_t timeout_ns);
void lease_request_reclaim(struct lease *l, uint64_t frames, bool limit);
void lease_request_refresh(struct lease *l);
/* Bring this in beside everything else; what was asked for before and is not begun is forgotten. */
void lease_request_ahead(struct lease *l, struct run range);
/* Do what reclaim has asked for meanwhile; long jobs call it between two steps, holding no word. */
void lease_serve_reclaim(struct lease *l);
/* Run the audits that wait for this worker: a job that waits for its client does, so that nobody else waits for that client. */
void lease_serve_audits(struct lease *l);
/* Ends and joins it (lease.c). */
void lease_end_fault_thread(struct lease *l);

/* ---- audit.c ---- */
void lease_run_audit(struct lease *l, struct lease_audit *ret);
