/* One guest page, and what happens to it when anything may happen at any time: its eviction, its sharing with another
 * page, writes, and the death of the daemon between any two steps.  test_model.py has spin look at every state.
 *
 * The page has two words of one bit each: a write flips one, and a copy brings the other, so a lost write and a copy
 * of the wrong content are both seen.  `last` is what the guest must see.
 *
 * Who takes part, each with its steps as in the code (a step is what nobody else can see the half of):
 *
 *	guest		one thread of the emulator that reads and writes page 0
 *	library		carries out orders of the daemon, also after its death (libclient/share.c)
 *	faulter		the lease's fault thread: fills, breaks (fault.c, fill.c, share.c)
 *	worker		evicts, shares, brings home, writes back; settles pages in question after a restart (evict.c, remap.c)
 *	neighbour	page 1 of the same VM, less closely: evicted, filled, written to
 *	pool		takes the entry's frame, frees the entry (pool_evict.c, pool.c)
 *	death		kills the daemon, up to CRASHES times, and does what its successor does before it serves
 *
 * There is one entry in the pool, one place in the cache and one slot in the swap file, so all three are reused soon.
 * What is not here: discard, pins, lost pages, several pages of one batch, a client that dies or lies.
 *
 * With one of these a rule is left out, and spin must find what that costs:
 *
 *	NO_PROTECT	evict without write-protection
 *	NO_VERIFY	the library does not look for private copies after it has mapped the pool
 *	LET_GO		the reference to the entry is dropped when a page breaks
 *	NO_WAKE		whoever unlocks after an eviction wakes nobody
 *	NO_QUESTION	after a death pages that were being mapped from the pool, or home, are judged by the memfd
 *	NO_HOLD		after a death the entries of pages in question may lose their frames
 *	LIFT_ALL	after a death everything is un-protected, shared pages too */

#ifndef CRASHES
#define CRASHES 1
#endif

#define HOLE 4	/* no page there */
#define NONE 4	/* no private copy */

/* ---- what outlives the daemon ---- */

/* words of the page map; a word that is COMPRESSED names slot[0], one that is SWAPPED slot[1], SHARED and BREAKING the entry */
mtype = { ZERO, RESIDENT, SHARED, BREAKING, COMPRESSED, SWAPPED };
mtype st[2] = ZERO;
bit busy[2], moving[2];
bit mapped;			/* of page 0 */
byte frame[2] = HOLE;		/* the lease's memfd */
byte slot[2];			/* the cache, the swap file */
mtype entry = ZERO;		/* word of the pool's map: ZERO (free), RESIDENT, SWAPPED */
bit entry_moving;
byte entry_frame = HOLE, entry_slot;

/* ---- the client ---- */

bit from_pool;			/* what is mapped: the pool, or the lease */
bit registered = 1, protected;
byte private = NONE;		/* the kernel's copy of a page of the pool */
byte last[2];

mtype = { RUN, QUEUED, TAKEN };	/* the thread runs; its event is in the userfaultfd; the daemon has read it */
mtype guest_is = RUN;
bit guest_writes;		/* its event is of a protected page */

/* ---- between the two ---- */

mtype = { NOTHING, SHARE, HOME, SETTLE };
mtype order = NOTHING;
bit connected = 1;
bit answered, answer_pooled, answer_clean;

/* ---- what dies with the daemon ---- */

bit up = 1;
bit slot_used[2];
byte references, holds;
bit entry_busy, entry_dead;
byte worker_is, faulter_is, neighbour_is, pool_is;
mtype worker_to = ZERO, faulter_was = ZERO;

byte deaths, death_is;

#define SEEN_POOL (private != NONE -> private : entry_frame)
#define CONTENT	  (entry_frame != HOLE -> entry_frame : entry_slot)
#define IS_MAPPED (st[0] == BREAKING || (st[0] == SHARED && mapped))

inline wake()
{
	guest_is = RUN
}

/* The reference of a word, or a place in a store, is given back. */
inline forget(what)
{
	if
	:: what == COMPRESSED -> slot_used[0] = 0; slot[0] = 0
	:: what == SWAPPED -> slot_used[1] = 0; slot[1] = 0
	:: what == SHARED || what == BREAKING -> put()
	:: else
	fi
}

inline put()
{
	references--;
	entry_dead = (references == 0)
}

/* Make sure of the entry's frame, and keep it.  Whoever calls waits for !entry_busy. */
inline hold()
{
	holds++;
	if
	:: entry == SWAPPED -> entry_frame = entry_slot; entry = RESIDENT; entry_slot = 0
	:: else
	fi
}

#define MAY_FIND(buf) (references > 0 && CONTENT == buf && !entry_busy)
#define MAY_ADD	      (entry == ZERO && !entry_dead && !entry_busy)

inline find()
{
	references++
}

inline add(buf)
{
	entry = RESIDENT;
	entry_frame = buf;
	references = 1
}

/* ---- guest ---- */

#define NO_WORD 0

/* Whoever was woken tries again; that it may then try something else allows more, and saves remembering what. */
inline access(bit_of)
{
	if
	:: !from_pool && frame[0] == HOLE && !registered -> frame[0] = 0 /* a page of zeros is made */
	:: from_pool && SEEN_POOL == HOLE && !registered -> assert(registered)
	:: registered && (from_pool -> SEEN_POOL : frame[0]) == HOLE -> guest_is = QUEUED; guest_writes = 0
	:: else ->
		if
		:: bit_of == NO_WORD /* what it reads is looked at in every state: TRUE_BYTES */
		:: bit_of != NO_WORD && protected -> guest_is = QUEUED; guest_writes = 1
		:: else ->
			if
			:: from_pool -> private = SEEN_POOL ^ bit_of
			:: else -> frame[0] = frame[0] ^ bit_of
			fi;
			last[0] = last[0] ^ bit_of
		fi
	fi
}

active proctype guest()
{
	do
	:: d_step { guest_is == RUN -> access(NO_WORD) }
	:: d_step { guest_is == RUN -> access(1) }
	:: d_step { guest_is == RUN -> access(2) }
	od
}

/* ---- library ---- */

inline answer(pooled, clean)
{
	if
	:: connected -> answered = 1; answer_pooled = pooled; answer_clean = clean; order = NOTHING
	:: else /* that connection is gone, and so is who asked */ order = NOTHING
	fi
}

#define CLEAN (private == NONE && protected && entry_frame != HOLE)
#ifdef NO_VERIFY
#define VERIFIED 1
#else
#define VERIFIED CLEAN
#endif
/* the page's word is locked: an event would be dropped, and there is nobody else who could carry out the order */
#define TOUCH	 assert(SEEN_POOL != HOLE)

active proctype library()
{
end:	do
	/* it sees the end of the connection when it has read all that came by it */
	:: d_step { !connected && up && order == NOTHING -> connected = 1 }
	:: d_step { !connected && order != NOTHING -> order = NOTHING }
	:: d_step { order == SHARE -> from_pool = 1; registered = 0; protected = 0; private = NONE };
		registered = 1;
		protected = 1;
		d_step { TOUCH; answer(1, VERIFIED) }
	:: d_step { order == HOME -> protected = 1; assert(frame[0] == HOLE && SEEN_POOL != HOLE); frame[0] = SEEN_POOL };
		d_step { from_pool = 0; registered = 0; protected = 0; private = NONE };
		d_step { registered = 1; wake(); answer(0, 0) }
	:: d_step { order == SETTLE && !from_pool -> answer(0, 0) }
	:: d_step { order == SETTLE && from_pool -> protected = 1 };
		d_step { TOUCH; answer(1, CLEAN) }
	od
}

/* ---- faulter ---- */

#define F_IDLE	   0
#define F_MISSING  1
#define F_WRITE	   2
#define F_RECORDED 3
#define F_PUT	   4
#define F_SETTLED  5
#define F_UNLOCKED 6
#define F_HOLD	   7
#define F_BREAK	   8
#define F_BROKEN   9
#define F_LIFTED   10

active proctype faulter()
{
end:	do
	:: d_step { up && faulter_is == F_IDLE && guest_is == QUEUED ->
		guest_is = TAKEN; faulter_is = (guest_writes -> F_WRITE : F_MISSING) }
	:: d_step { up && faulter_is == F_MISSING ->
		if
		:: busy[0] -> faulter_is = F_IDLE /* dropped: whoever unlocks wakes */
		:: !busy[0] && st[0] == RESIDENT -> /* the event is late, or the client punched the page out, which it does not here */
			if
			:: frame[0] == HOLE -> frame[0] = 0
			:: else
			fi;
			wake(); faulter_is = F_IDLE
		:: !busy[0] && IS_MAPPED -> busy[0] = 1; faulter_is = F_HOLD
		:: else -> busy[0] = 1; moving[0] = 1; faulter_is = F_RECORDED
		fi }
	:: d_step { up && faulter_is == F_RECORDED && !(st[0] == SHARED && entry_busy) ->
		assert(frame[0] == HOLE);
		if
		:: st[0] == ZERO -> frame[0] = 0
		:: st[0] == COMPRESSED -> frame[0] = slot[0]
		:: st[0] == SWAPPED -> frame[0] = slot[1]
		:: st[0] == SHARED -> frame[0] = CONTENT
		fi;
		faulter_is = F_PUT }
	:: d_step { up && faulter_is == F_PUT ->
		faulter_was = st[0]; st[0] = RESIDENT; moving[0] = 0; faulter_is = F_SETTLED }
	:: d_step { up && faulter_is == F_SETTLED -> forget(faulter_was); faulter_was = ZERO; busy[0] = 0; faulter_is = F_UNLOCKED }
	:: d_step { up && faulter_is == F_UNLOCKED -> wake(); faulter_is = F_IDLE }

	/* mapped, and the entry's frame was taken */
	:: d_step { up && faulter_is == F_HOLD && !entry_busy -> hold(); holds--; busy[0] = 0; faulter_is = F_UNLOCKED }

	:: d_step { up && faulter_is == F_WRITE ->
		if
		:: busy[0] -> faulter_is = F_IDLE
		:: !busy[0] && st[0] == SHARED && mapped -> busy[0] = 1; faulter_is = F_BREAK
		:: else -> protected = 0; wake(); faulter_is = F_IDLE
		fi }
	:: d_step { up && faulter_is == F_BREAK && !entry_busy -> hold(); st[0] = BREAKING; mapped = 0; faulter_is = F_BROKEN;
#ifdef LET_GO
		holds--; put();
#endif
		}
	:: d_step { up && faulter_is == F_BROKEN -> protected = 0; wake(); faulter_is = F_LIFTED }
	:: d_step { up && faulter_is == F_LIFTED -> busy[0] = 0; faulter_is = F_IDLE }
	od
}

/* ---- worker ---- */

#define W_IDLE	   0
#define E_STORED   1
#define E_RECORDED 2
#define E_PUNCHED  3
#define E_SETTLED  4
#define W_UNLOCKED 5	/* and not yet woken */
#define S_FOUND	   6
#define S_SENT	   7
#define S_PUNCHED  8
#define H_LOCKED   9
#define H_SENT	   10
#define H_SETTLED  11
#define B_WRITTEN  12
#define B_MOVED	   13
#define Q_ASK	   14
#define Q_SENT	   15

#define FREE	(up && worker_is == W_IDLE && !busy[0])
#define OWN	(FREE && st[0] == RESIDENT)

/* Lock, protect, copy; nobody but the guest could see these apart, and it is kept out by the second. */
inline take()
{
	busy[0] = 1;
#ifndef NO_PROTECT
	protected = 1
#endif
}

active proctype worker()
{
end:	do
	/* evict */
	:: d_step { OWN && frame[0] == 0 -> take(); worker_to = ZERO; worker_is = E_STORED }
	:: d_step { OWN && frame[0] && MAY_FIND(frame[0]) -> take(); find(); worker_to = SHARED; worker_is = E_STORED }
	:: d_step { OWN && frame[0] && MAY_ADD -> take(); add(frame[0]); worker_to = SHARED; worker_is = E_STORED }
	:: d_step { OWN && frame[0] && !slot_used[0] -> take(); slot_used[0] = 1; slot[0] = frame[0]; worker_to = COMPRESSED;
		worker_is = E_STORED }
	:: d_step { OWN && frame[0] && !slot_used[1] -> take(); slot_used[1] = 1; slot[1] = frame[0]; worker_to = SWAPPED;
		worker_is = E_STORED }
	:: d_step { OWN && frame[0] -> take(); worker_is = E_PUNCHED /* no place for it */ }
	:: d_step { up && worker_is == E_STORED -> st[0] = worker_to; moving[0] = 1; mapped = 0; worker_to = ZERO;
		worker_is = E_RECORDED }
	:: d_step { up && worker_is == E_RECORDED -> frame[0] = HOLE; worker_is = E_PUNCHED }
	:: d_step { up && worker_is == E_PUNCHED -> moving[0] = 0; protected = 0; wake(); worker_is = E_SETTLED }
	:: d_step { up && worker_is == E_SETTLED -> busy[0] = 0; worker_is = W_UNLOCKED }
#ifdef NO_WAKE
	:: d_step { up && worker_is == W_UNLOCKED -> worker_is = W_IDLE }
#else
	:: d_step { up && worker_is == W_UNLOCKED -> wake(); worker_is = W_IDLE }
#endif

	/* share */
	:: d_step { OWN && connected && frame[0] && MAY_FIND(frame[0]) -> take(); find(); worker_is = S_FOUND }
	:: d_step { OWN && connected && frame[0] && MAY_ADD -> take(); add(frame[0]); worker_is = S_FOUND }
	:: d_step { up && worker_is == S_FOUND && !entry_busy -> hold(); st[0] = SHARED; mapped = 1; moving[0] = 1;
		order = SHARE; answered = 0; worker_is = S_SENT }
	:: d_step { up && worker_is == S_SENT && answered -> frame[0] = HOLE; worker_is = S_PUNCHED }
	:: d_step { up && worker_is == S_PUNCHED ->
		if
		:: answer_clean -> holds--
		:: else -> st[0] = BREAKING; mapped = 0
		fi;
		moving[0] = 0; answered = 0; answer_clean = 0; answer_pooled = 0; worker_is = E_SETTLED }

	/* bring home */
	:: d_step { FREE && connected && IS_MAPPED -> busy[0] = 1; worker_is = H_LOCKED }
	:: d_step { up && worker_is == H_LOCKED && !entry_busy ->
		if
		:: st[0] == SHARED -> hold(); wake()
		:: else
		fi;
		moving[0] = 1; order = HOME; answered = 0; worker_is = H_SENT }
	:: d_step { up && worker_is == H_SENT && answered -> st[0] = RESIDENT; moving[0] = 0; mapped = 0; answered = 0;
		worker_is = H_SETTLED }
	:: d_step { up && worker_is == H_SETTLED ->
#ifndef LET_GO
		holds--; put();
#endif
		busy[0] = 0; worker_is = W_UNLOCKED }

	/* write back */
	:: d_step { FREE && st[0] == COMPRESSED && !slot_used[1] -> busy[0] = 1; slot_used[1] = 1; slot[1] = slot[0];
		worker_is = B_WRITTEN }
	:: d_step { up && worker_is == B_WRITTEN -> st[0] = SWAPPED; worker_is = B_MOVED }
	:: d_step { up && worker_is == B_MOVED -> forget(COMPRESSED); busy[0] = 0; worker_is = W_UNLOCKED }

	/* a page in question after a restart: the same ends as above */
	:: d_step { up && worker_is == Q_ASK && connected -> order = SETTLE; answered = 0; worker_is = Q_SENT }
	:: d_step { up && worker_is == Q_SENT && answered && answer_pooled -> frame[0] = HOLE; st[0] = SHARED; mapped = 1;
		worker_is = S_PUNCHED }
	:: d_step { up && worker_is == Q_SENT && answered && !answer_pooled -> st[0] = RESIDENT; moving[0] = 0; mapped = 0;
		answered = 0; worker_is = H_SETTLED }
	od
}

/* ---- neighbour ---- */

#define N_IDLE	   0
#define N_RECORDED 1
#define N_FILLING  2
#define N_PUT	   3

#define N_OWN	   (up && neighbour_is == N_IDLE && st[1] == RESIDENT)

inline evict_neighbour(to)
{
	st[1] = to;
	busy[1] = 1;
	moving[1] = 1;
	neighbour_is = N_RECORDED
}

active proctype neighbour()
{
end:	do
	:: d_step { st[1] == RESIDENT && !busy[1] -> frame[1] = frame[1] ^ 1; last[1] = last[1] ^ 1 }

	:: d_step { N_OWN && frame[1] == 0 -> evict_neighbour(ZERO) }
	:: d_step { N_OWN && frame[1] && MAY_FIND(frame[1]) -> find(); evict_neighbour(SHARED) }
	:: d_step { N_OWN && frame[1] && MAY_ADD -> add(frame[1]); evict_neighbour(SHARED) }
	:: d_step { N_OWN && frame[1] && !slot_used[1] -> slot_used[1] = 1; slot[1] = frame[1]; evict_neighbour(SWAPPED) }
	:: d_step { up && neighbour_is == N_RECORDED -> frame[1] = HOLE; moving[1] = 0; busy[1] = 0; neighbour_is = N_IDLE }

	:: d_step { up && neighbour_is == N_IDLE && st[1] != RESIDENT && !busy[1] -> busy[1] = 1; moving[1] = 1;
		neighbour_is = N_FILLING }
	:: d_step { up && neighbour_is == N_FILLING && !(st[1] == SHARED && entry_busy) ->
		if
		:: st[1] == ZERO -> frame[1] = 0
		:: st[1] == SWAPPED -> frame[1] = slot[1]
		:: st[1] == SHARED -> frame[1] = CONTENT
		fi;
		neighbour_is = N_PUT }
	:: d_step { up && neighbour_is == N_PUT -> forget(st[1]); st[1] = RESIDENT; moving[1] = 0; busy[1] = 0;
		neighbour_is = N_IDLE }
	od
}

/* ---- pool ---- */

#define P_IDLE	   0
#define P_RECORDED 1
#define P_FREEING  2

/* Whoever tries to lock the entry again and again has it in the end.  Spin is fair to a process that can always go on, not to
 * one that can again and again; so here nobody locks it anew who would pass somebody waiting. */
#ifdef LIVENESS
#define NOBODY_WAITS (faulter_is != F_HOLD && faulter_is != F_BREAK && (faulter_is != F_RECORDED || st[0] != SHARED) && \
		      worker_is != S_FOUND && worker_is != H_LOCKED && (neighbour_is != N_FILLING || st[1] != SHARED))
#else
#define NOBODY_WAITS true
#endif

active proctype pool()
{
end:	do
	:: d_step { up && pool_is == P_IDLE && NOBODY_WAITS && entry == RESIDENT && !holds && references && !entry_busy -> entry_busy = 1;
		entry_slot = entry_frame; entry = SWAPPED; entry_moving = 1; pool_is = P_RECORDED }
	:: d_step { up && pool_is == P_RECORDED -> entry_frame = HOLE; entry_moving = 0; entry_busy = 0; pool_is = P_IDLE }

	:: d_step { up && pool_is == P_IDLE && NOBODY_WAITS && entry_dead -> entry_busy = 1; entry = ZERO; entry_moving = 1; entry_slot = 0;
		pool_is = P_FREEING }
	:: d_step { up && pool_is == P_FREEING -> entry_frame = HOLE; entry_moving = 0; entry_busy = 0; entry_dead = 0;
		pool_is = P_IDLE }
	od
}

/* ---- death, and what the successor does ---- */

#define D_NONE	   0
#define D_TAKEN	   1
#define D_SETTLED  2
#define D_COUNTED   3

inline die()
{
	up = 0; connected = 0; answered = 0; answer_pooled = 0; answer_clean = 0;
	slot_used[0] = 0; slot_used[1] = 0; references = 0; holds = 0; entry_busy = 0; entry_dead = 0;
	worker_is = W_IDLE; faulter_is = F_IDLE; neighbour_is = N_IDLE; pool_is = P_IDLE;
	worker_to = ZERO; faulter_was = ZERO;
	deaths++;
	death_is = D_TAKEN
}

#ifdef NO_QUESTION
#define IN_QUESTION false
#else
/* shared or brought home at the client: only it can say what it did */
#define IN_QUESTION (moving[0] && IS_MAPPED)
#endif

/* hole: what the word says; data: resident */
inline settle(page)
{
	if
	:: moving[page] && frame[page] != HOLE -> st[page] = RESIDENT
	:: else
	fi;
	moving[page] = 0;
	busy[page] = 0
}

active proctype death()
{
end:	do
	:: d_step { deaths < CRASHES -> die() }
	:: deaths < CRASHES && up -> deaths = CRASHES /* no more of them: else fairness would make sure of all */
	:: d_step { death_is == D_TAKEN ->
		settle(1);
		if
		:: IN_QUESTION -> busy[0] = 1
		:: else -> settle(0); mapped = mapped && st[0] == SHARED
		fi;
		if
		:: entry_moving && entry_frame != HOLE -> entry = RESIDENT
		:: else
		fi;
		entry_moving = 0;
		death_is = D_SETTLED }
	:: d_step { death_is == D_SETTLED ->
		slot_used[0] = (st[0] == COMPRESSED);
		slot_used[1] = (st[0] == SWAPPED || st[1] == SWAPPED);
		references = (st[0] == SHARED || st[0] == BREAKING -> 1 : 0) + (st[1] == SHARED -> 1 : 0);
		if
		:: references == 0 -> entry = ZERO; entry_frame = HOLE; entry_slot = 0
#ifndef NO_HOLD
		:: IN_QUESTION -> hold()
#endif
		:: st[0] == BREAKING && !moving[0] -> hold()
		:: else
		fi;
#ifdef LIFT_ALL
		protected = 0;
#endif
		death_is = D_COUNTED }
	:: d_step { death_is == D_COUNTED ->
		worker_is = (IN_QUESTION -> Q_ASK : W_IDLE);
		up = 1; wake(); death_is = D_NONE }
	od
}

/* ---- what must be true in every state ---- */

#define TRUE_BYTES                                                                    \
	((from_pool || frame[0] == HOLE || frame[0] == last[0]) &&                    \
	 (!from_pool || SEEN_POOL == HOLE || SEEN_POOL == last[0]) &&                  \
	 (frame[1] == HOLE || frame[1] == last[1]) && (st[1] != SHARED || CONTENT == last[1]))
#define ONE_OWNER   (!(st[0] == st[1] && st[0] == SWAPPED))
#define STILL_THERE (!up || ((st[0] != COMPRESSED || slot_used[0]) && (st[0] != SWAPPED || slot_used[1]) && \
			     (st[1] != SWAPPED || slot_used[1])))
#define COUNTED	    (!up || entry_dead || entry_busy || references >= (st[0] == SHARED || st[0] == BREAKING -> 1 : 0) + (st[1] == SHARED -> 1 : 0))
#define CHARGED	    (private == NONE || st[0] == BREAKING || (busy[0] && moving[0]))
#define SAME_VIEW   (busy[0] || !up || from_pool == IS_MAPPED)

active proctype holds_true()
{
end:	do
	:: d_step { !TRUE_BYTES -> assert(TRUE_BYTES) }
	:: d_step { !ONE_OWNER -> assert(ONE_OWNER) }
	:: d_step { !STILL_THERE -> assert(STILL_THERE) }
	:: d_step { !COUNTED -> assert(COUNTED) }
	:: d_step { !CHARGED -> assert(CHARGED) }
	:: d_step { !SAME_VIEW -> assert(SAME_VIEW) }
	od
}

/* Whoever waits is woken, and tries again. */
#ifdef LIVENESS
ltl served { [] (guest_is != RUN -> <> (guest_is == RUN)) }
#endif
