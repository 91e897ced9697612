/* Whoever may touch what.  r->lock is held while VMs are looked at, planned for and asked; none of that blocks, and it takes
 * milliseconds for a thousand VMs.  So a VM is in the list or it is not touched, and what it was asked for before
 * its removal (an eviction, a balloon target, a block) is undone or harmless:
 *
 *	eviction	its workers carry it out until vm_stop ends them; the control thread removes it first
 *	balloon target	a number in the VM; nobody is told any more when its orders are detached
 *	block		lifted by reclaim_remove: its faults go on, or end with their lease
 *
 * The view is not an instant: while it is taken, faults charge, workers evict, a balloon grows, its client discards.  Each
 * number is right at some moment of the look, and what is planned from them may be out of date when it is carried out:
 *
 *	too much is asked	an eviction ends at the goal by the next look's correction, or at the VM's reservation by
 *				the workers' own check (worker.c), which is exact; a balloon that is too large is let down
 *	too little is asked	the next look asks for the rest
 *	a block is too long	by one look: while anybody is blocked the thread looks every LOOK_MS, woken or not, and a block
 *				ends when the plan says so, whether the blocked VM does anything or not
 *
 * Wakes.  A charge that crosses the threshold tells once (arena_rearm); what crosses it between the look and the re-arming
 * is seen by arena_rearm itself, which then answers that we must look again.  A VM's own limit is re-armed before its
 * numbers are read, so a charge that comes near it later tells again.
 *
 * The shape of sleeping: LOOK_MS while workers or waiting guests need us, MOVE_MS while only balloons move or a shortage cannot be
 * helped, WAIT_MS while one is asked that does not move, BalancePeriod else.  A look that takes long (ten thousand VMs) is followed by a rest in proportion. */
#include "reclaim.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/events.h"
#include "mem/inject.h"
#include "mem/pool.h"
#include "plan_log.h"
#include "policy/balloon.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Between two looks while workers are busy: they wake us when they are done; this bounds a lost hope only. */
#define LOOK_MS 10
#define MOVE_MS 100
#define WAIT_MS 1000
#define REST	4	/* times as long as a look took, */
#define REST_MIN_MS 2	/* if that was so long; at most MOVE_MS */
/* A VM that has given nothing for so long is passed over for so long. */
#define GIVE_NS	 (200 * NS_PER_MS)
#define SPARE_NS (1 * NS_PER_S)
/* An action that is asked for again after so long is another one. */
#define ACTION_NS (5 * NS_PER_S)

struct member {
	struct list link;
	struct vm *vm;
	bool asked;		/* the last plan took from it */
	uint64_t given;		/* what it had given at the last look */
	uint64_t given_ns;	/* when that last changed, or when it was first asked */
	uint64_t spared_until_ns;
	struct policy_balloon balloon;
	uint64_t told_frames;	/* its balloon's target at the last look */
	bool told_owes;		/* reclaim_balloon_changed */
	bool planned;		/* the last plan was made with it: these are its part of that */
	struct policy_vm in;
	struct policy_vm_plan out;
	struct reclaim_action actions[RECLAIM_ACTIONS];	/* a ring */
	uint64_t n_actions;	/* ever */
	uint64_t action_ns;	/* when the last of them was last asked for */
	uint64_t action_given;	/* of `given`, when it began */
};

struct reclaim {
	struct arena *arena;
	int wake_fd;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic unsigned asked, answered;	/* reclaim_answers */

	pthread_mutex_t lock;
	struct list members;
	size_t n_members, room;
	/* room for all members, made when they are added */
	struct policy_vm *in;
	struct policy_vm_plan *out;
	const char **names;
	struct reclaim_settings settings;
	struct policy_view view;	/* of the last plan, */
	struct policy_plan plan;	/* which this is */
	uint64_t planned_ms;
	struct plan_log log;
	uint64_t runs;
};

static void wake(void *userdata)
{
	struct reclaim *r = userdata;
	static const uint64_t one = 1;

	/* a full counter is a wake that is already pending */
	if (write(r->wake_fd, &one, sizeof one) < 0)
		return;
}

/* ---- the view ---- */

/* Frames that came free by our doing, ever. */
static uint64_t given_by(struct member *m, const struct vm_numbers *n)
{
	struct pool *pool = vm_pool(m->vm);
	uint64_t given = n->evicted_pages + n->written_back_pages;
	struct pool_numbers p;

	if (pool && n->shared_bytes) {
		pool_numbers(pool, &p);
		given += p.evicted;
	}
	return given;
}

/* A VM that is asked and gives nothing (its disk fails; its client holds a lock that its worker needs) must not be the
 * only one that is asked for ever: the others' guests would wait for it. */
static bool gives_nothing(struct member *m, uint64_t given, uint64_t now)
{
	if (!m->asked || given != m->given) {
		m->given = given;
		m->given_ns = now;
	} else if (now - m->given_ns > GIVE_NS) {
		m->spared_until_ns = now + SPARE_NS;
		m->given_ns = now;
	}
	return now < m->spared_until_ns;
}

/* Pages that the cache could still take, at the size that they have had so far. */
static uint64_t cache_room_frames(const struct vm_numbers *n)
{
	uint64_t room = n->cache_cap_bytes > n->cache_bytes ? n->cache_cap_bytes - n->cache_bytes : 0;

	if (!n->compressed_bytes || !n->stored_bytes)
		return 2 * room / PAGE_SIZE;
	return (uint64_t)((double)room * (double)n->compressed_bytes / (double)n->stored_bytes) / PAGE_SIZE;
}

static void look_at(struct member *m, struct policy_vm *v, uint64_t now)
{
	struct vm_balloon balloon;
	struct vm_numbers n;
	uint64_t fixed, part, zero, claimed;

	account_rearm(vm_account(m->vm));
	vm_get_balloon(m->vm, &balloon);
	policy_balloon_step(&m->balloon, now, balloon.driver, balloon.frames, balloon.target_frames);
	m->told_frames = balloon.target_frames;
	vm_numbers(m->vm, &n);
	fixed = (n.overhead_bytes + n.pinned_bytes) / PAGE_SIZE;
	/* what it pays of its pool it can give as well: its workers evict from there.  Its own limit is about the rest. */
	part = n.shared_charge_bytes / PAGE_SIZE;
	/* a balloon that we do not see lies among the pages that hold nothing */
	zero = n.zero_bytes / PAGE_SIZE;
	claimed = n.balloon_claimed_bytes / PAGE_SIZE;
	*v = (struct policy_vm){
		.size_frames = n.size_bytes / PAGE_SIZE,
		.reservation_frames = inject.twin_no_floor ? 0 : n.reservation_bytes / PAGE_SIZE,
		.limit_frames = n.limit_bytes ? n.limit_bytes / PAGE_SIZE + part : POLICY_NO_LIMIT,
		.shares = n.shares,
		.charged_frames = n.charged_bytes / PAGE_SIZE + part,
		.active_frames = n.active_bytes / PAGE_SIZE,
		.active_estimated = n.active_estimated,
		.balloon_frames = balloon.frames,
		.balloon_max_frames = balloon.max_frames,
		.balloon_state = m->balloon.state,
		.balloon_owed_frames = m->balloon.owed_frames,
		.untouched_frames = zero > claimed ? zero - claimed : 0,
		.compressed_frames = n.compressed_bytes / PAGE_SIZE,
		.swapped_frames = n.swapped_bytes / PAGE_SIZE,
		.cache_room_frames = cache_room_frames(&n),
		.stall_permille = n.stall_permille,
		.stall_budget_permille = vm_stall_budget_permille(m->vm),
	};
	if (!gives_nothing(m, given_by(m, &n), now) && v->charged_frames > fixed)
		v->reclaimable_frames = v->charged_frames - fixed;
}

/* ---- what is done ---- */

/* A promise of ours, looked at from outside the policy: tests turn it on. */
static void check_reservation(struct member *m, const struct policy_vm *v, const struct policy_vm_plan *p)
{
	uint64_t reservation = vm_config(m->vm)->reservation_bytes / PAGE_SIZE;
	uint64_t left = v->charged_frames - p->limit_take_frames, ask = 0;

	/* a balloon that is asked for more than before; a debt was asked for when it could be paid */
	if (p->balloon_target_frames > v->balloon_frames && p->balloon_target_frames > m->told_frames && !v->balloon_owed_frames)
		ask = p->balloon_target_frames - v->balloon_frames;
	if (!inject.watch_reservations || (!p->host_take_frames && !ask))
		return;
	if (left >= reservation + p->host_take_frames && left >= reservation + ask &&
		(!ask || v->size_frames >= reservation + p->balloon_target_frames))
		return;
	event_tell(EVENT_RESERVATION_BROKEN, EVENT_OF(.vm = vm_config(m->vm)->name),
		"VM %s: it holds %llu frames, with a reservation of %llu, and is asked for %llu, and %llu for its balloon of %llu", vm_config(m->vm)->name, (unsigned long long)left, (unsigned long long)reservation,
		(unsigned long long)p->host_take_frames, (unsigned long long)ask, (unsigned long long)v->balloon_frames);
	abort();
}

static void note_action(struct member *m, const struct policy_vm *v, const struct policy_vm_plan *p, uint64_t now, uint64_t now_ms)
{
	struct reclaim_action *a = &m->actions[(m->n_actions + RECLAIM_ACTIONS - 1) % RECLAIM_ACTIONS];
	uint64_t asked = p->limit_take_frames + p->host_take_frames;

	/* what came from a pool is no more in the sum when the VM has left that */
	if (m->n_actions && m->given > m->action_given)
		a->given_frames = m->given - m->action_given;
	if (p->balloon_target_frames > v->balloon_frames)
		asked += p->balloon_target_frames - v->balloon_frames;
	if (p->cause == POLICY_CAUSE_NONE || (!asked && !p->blocked))
		return;
	if (m->n_actions && a->cause == p->cause && a->technique == p->technique && a->reason == p->reason &&
		now - m->action_ns < ACTION_NS) {
		a->repeats++;
		a->asked_frames = asked > a->asked_frames ? asked : a->asked_frames;
	} else {
		m->actions[m->n_actions++ % RECLAIM_ACTIONS] = (struct reclaim_action){ .ts_ms = now_ms, .cause = p->cause,
			.technique = p->technique, .reason = p->reason, .asked_frames = asked };
		m->action_given = m->given;
	}
	m->action_ns = now;
}

static void carry_out(struct member *m, const struct policy_vm *v, const struct policy_vm_plan *p)
{
	bool limit = p->limit_take_frames > 0;

	/* the two causes are counted apart: the limit goes first, the host's part comes with the next look */
	if (limit || p->host_take_frames)
		vm_reclaim(m->vm, limit ? p->limit_take_frames : p->host_take_frames, limit);
	else if (m->asked)
		vm_reclaim(m->vm, 0, false); /* it has given enough */
	m->asked = limit || p->host_take_frames;
	/* An agent that is not heard of for a while comes back to the target that it knew; a driver that comes anew is
	 * told nothing before the next plan, which its coming asks for. */
	if (v->balloon_state != POLICY_BALLOON_NONE && p->balloon_target_frames != m->told_frames)
		vm_set_balloon_target(m->vm, p->balloon_target_frames);
	account_set_blocked(vm_account(m->vm), p->blocked);
	vm_tell(m->vm, VM_BLOCKED, p->blocked);
	vm_tell(m->vm, VM_TARGET_BYTES, p->target_frames * PAGE_SIZE);
}

/* What it holds is looked at until it is what it should be, or until nothing is to be expected of it. */
static bool balloon_moves(const struct policy_vm *v, const struct policy_vm_plan *p)
{
	return v->balloon_state == POLICY_BALLOON_RESPONSIVE && p->balloon_target_frames != v->balloon_frames;
}

/* The charge that leaves fewer free than this has something to tell. */
static uint64_t next_threshold(const struct policy_plan *p, uint64_t free_frames)
{
	const uint64_t down[] = { p->min_free_frames, p->soft_frames, p->hard_frames, p->low_frames };

	for (unsigned i = 0; i < sizeof down / sizeof *down; i++)
		if (free_frames >= down[i])
			return down[i];
	return 0;
}

/* One view, one plan, carried out.  Milliseconds until the next look, if nobody wakes us; in any case a rest comes first. */
static int act(struct reclaim *r, int *ret_rest_ms)
{
	uint64_t now = now_ns(), now_ms = wall_ns() / NS_PER_MS, took_ms;
	struct policy_view *view = &r->view;
	struct policy_plan *plan = &r->plan;
	struct arena_numbers a;
	bool moving = false;
	int next_ms;
	size_t i = 0;

	pthread_mutex_lock(&r->lock);
	arena_numbers(r->arena, &a);
	list_foreach(l, &r->members) {
		struct member *m = container_of(l, struct member, link);

		r->names[i] = vm_config(m->vm)->name;
		look_at(m, &r->in[i++], now);
	}
	*view = (struct policy_view){ .capacity_frames = a.capacity_frames, .free_frames = a.free_frames,
		.min_free_pct = r->settings.min_free_pct, .idle_tax_pct = r->settings.idle_tax_pct,
		.idle_tax_type = r->settings.idle_tax_type, .state = plan->next_state, .reclaiming = plan->next_reclaiming,
		.n_vms = r->n_members, .vms = r->in };
	policy_plan(view, plan, r->out);
	r->planned_ms = now_ms;
	i = 0;
	list_foreach(l, &r->members) {
		struct member *m = container_of(l, struct member, link);

		check_reservation(m, &r->in[i], &r->out[i]);
		note_action(m, &r->in[i], &r->out[i], now, now_ms);
		carry_out(m, &r->in[i], &r->out[i]);
		moving |= balloon_moves(&r->in[i], &r->out[i]);
		m->in = r->in[i];
		m->out = r->out[i++];
		m->planned = true;
	}
	r->runs += plan->host_frames + plan->limit_frames > 0;
	plan_log_add(&r->log, now, now_ms, view, plan, r->out, r->names);

	if (plan->host_frames + plan->limit_frames || plan->blocked_vms)
		next_ms = LOOK_MS;
	else if (plan->next_reclaiming || moving)
		next_ms = MOVE_MS;
	else if (plan->balloon_frames || plan->balance_frames)
		next_ms = WAIT_MS;
	else
		next_ms = (int)(r->settings.balance_period_ns / NS_PER_MS);
	/* what crossed the threshold since the look is seen by the next */
	if (arena_rearm(r->arena, next_threshold(plan, a.free_frames)) && next_ms > LOOK_MS)
		next_ms = LOOK_MS;
	if (next_ms > WAIT_MS && plan_log_rest(&r->log, now, now_ms, view, plan, r->out, r->names))
		next_ms = WAIT_MS;
	pthread_mutex_unlock(&r->lock);
	took_ms = (now_ns() - now) / NS_PER_MS;
	*ret_rest_ms = took_ms < REST_MIN_MS ? 0 : REST * took_ms < MOVE_MS ? (int)(REST * took_ms) : MOVE_MS;
	return next_ms;
}

static void *reclaim_main(void *arg)
{
	struct reclaim *r = arg;
	struct pollfd p = { .fd = r->wake_fd, .events = POLLIN };
	int next_ms = 0, rest_ms = 0;

	while (!atomic_load(&r->stop)) {
		uint64_t count;

		/* whoever wakes us all the time must not keep the others from our lock */
		if (rest_ms)
			poll(NULL, 0, rest_ms);
		if (poll(&p, 1, next_ms) > 0 && read(r->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
			break;
		inject_hang(inject.hang_reclaim_ns);
		atomic_store(&r->answered, atomic_load(&r->asked));
		next_ms = act(r, &rest_ms);
	}
	return NULL;
}

/* ---- life ---- */

/* Before the first plan: what wakes the thread, and what an operator is told. */
static void set_thresholds(struct reclaim *r)
{
	struct host_thresholds t;
	struct arena_numbers n;

	arena_numbers(r->arena, &n);
	policy_thresholds(n.capacity_frames, r->settings.min_free_pct, &t);
	r->plan.min_free_frames = t.min_free_frames;
	r->plan.high_frames = t.high_frames;
	r->plan.soft_frames = t.soft_frames;
	r->plan.hard_frames = t.hard_frames;
	r->plan.low_frames = t.low_frames;
	r->plan.goal_frames = t.goal_frames;
	arena_set_low(r->arena, t.soft_frames);
	/* Guests must be able to come into low, or all of them wait at the wall and nobody is blocked. */
	arena_set_reserve(r->arena, t.low_frames / 4 * 3);
}

int reclaim_new(struct reclaim **ret, struct arena *a, struct problem *p)
{
	struct reclaim *r = calloc(1, sizeof *r);
	int err;

	if (!r)
		return problem_errno(p, "reclaim");
	r->arena = a;
	r->settings.balance_period_ns = NS_PER_S;
	list_init(&r->members);
	pthread_mutex_init(&r->lock, NULL);
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->wake_fd < 0) {
		err = problem_errno(p, "eventfd");
		free(r);
		return err;
	}
	set_thresholds(r);
	arena_set_pressure(a, r->plan.soft_frames, wake, r);
	err = pthread_create(&r->thread, NULL, reclaim_main, r);
	if (err) {
		errno = err;
		err = problem_errno(p, "cannot start the reclaim thread");
		arena_set_pressure(a, 0, NULL, NULL);
		close(r->wake_fd);
		free(r);
		return err;
	}
	pthread_setname_np(r->thread, "reclaim");
	*ret = r;
	return 0;
}

void reclaim_free(struct reclaim *r)
{
	if (!r)
		return;
	assert(list_empty(&r->members));
	atomic_store(&r->stop, true);
	wake(r);
	pthread_join(r->thread, NULL);
	arena_set_pressure(r->arena, 0, NULL, NULL);
	close(r->wake_fd);
	pthread_mutex_destroy(&r->lock);
	plan_log_fini(&r->log);
	free(r->in);
	free(r->out);
	free(r->names);
	free(r);
}

/* Under the lock. */
static int make_room(struct reclaim *r, size_t n)
{
	struct policy_vm_plan *out;
	const char **names;
	struct policy_vm *in;

	if (n <= r->room)
		return 0;
	in = realloc(r->in, 2 * n * sizeof *in);
	if (in)
		r->in = in;
	out = realloc(r->out, 2 * n * sizeof *out);
	if (out)
		r->out = out;
	names = realloc(r->names, 2 * n * sizeof *names);
	if (names)
		r->names = names;
	if (!in || !out || !names)
		return -ENOMEM;
	r->room = 2 * n;
	return 0;
}

int reclaim_add(struct reclaim *r, struct vm *vm)
{
	struct member *m = calloc(1, sizeof *m);
	int err;

	if (!m)
		return -ENOMEM;
	m->vm = vm;
	pthread_mutex_lock(&r->lock);
	err = make_room(r, r->n_members + 1);
	if (err == 0) {
		list_append(&r->members, &m->link);
		r->n_members++;
	}
	pthread_mutex_unlock(&r->lock);
	if (err < 0)
		free(m);
	else
		wake(r);
	return err;
}

void reclaim_remove(struct reclaim *r, struct vm *vm)
{
	pthread_mutex_lock(&r->lock);
	list_foreach_safe(l, &r->members) {
		struct member *m = container_of(l, struct member, link);

		if (m->vm != vm)
			continue;
		account_set_blocked(vm_account(vm), false);
		list_remove(&m->link);
		r->n_members--;
		free(m);
	}
	pthread_mutex_unlock(&r->lock);
	wake(r);
}

void reclaim_set(struct reclaim *r, const struct reclaim_settings *s)
{
	pthread_mutex_lock(&r->lock);
	r->settings = *s;
	set_thresholds(r);
	pthread_mutex_unlock(&r->lock);
	wake(r);
}

void reclaim_set_record(struct reclaim *r, struct record *record)
{
	pthread_mutex_lock(&r->lock);
	r->log.record = record;
	pthread_mutex_unlock(&r->lock);
}

void reclaim_poke(struct reclaim *r)
{
	wake(r);
}

bool reclaim_answers(struct reclaim *r)
{
	if (atomic_load(&r->answered) != atomic_load(&r->asked))
		return false;
	atomic_fetch_add(&r->asked, 1);
	wake(r);
	return true;
}

/* ---- questions ---- */

void reclaim_get_status(struct reclaim *r, struct reclaim_status *ret)
{
	struct host_thresholds t = { 0 };
	struct arena_numbers n;

	arena_numbers(r->arena, &n);
	pthread_mutex_lock(&r->lock);
	policy_thresholds(n.capacity_frames, r->settings.min_free_pct, &t);
	ret->state = host_state_names[policy_host_state((enum host_state)r->plan.next_state, n.free_frames, &t)];
	ret->min_free_frames = t.min_free_frames;
	ret->goal_free_frames = t.goal_frames;
	/* that of the last plan may be a BalancePeriod old; this is what the next would say */
	ret->pressed = n.free_frames < t.min_free_frames;
	ret->runs = r->runs;
	pthread_mutex_unlock(&r->lock);
}

bool reclaim_balloon_changed(struct reclaim *r, char ret_vm[64], bool *ret_owes, uint64_t *ret_owed_frames)
{
	bool changed = false;

	pthread_mutex_lock(&r->lock);
	list_foreach(l, &r->members) {
		struct member *m = container_of(l, struct member, link);
		bool owes = m->balloon.state == POLICY_BALLOON_UNCOOPERATIVE;

		if (owes == m->told_owes)
			continue;
		m->told_owes = *ret_owes = owes;
		*ret_owed_frames = m->balloon.owed_frames;
		snprintf(ret_vm, 64, "%s", vm_config(m->vm)->name);
		changed = true;
		break;
	}
	pthread_mutex_unlock(&r->lock);
	return changed;
}

int reclaim_explain(struct reclaim *r, struct vm *vm, struct reclaim_explanation *ret)
{
	int err = -ENOENT;

	pthread_mutex_lock(&r->lock);
	list_foreach(l, &r->members) {
		const struct member *m = container_of(l, struct member, link);

		if (m->vm != vm || !m->planned)
			continue;
		*ret = (struct reclaim_explanation){ .host = r->view, .plan = r->plan, .vm = m->in, .vm_plan = m->out,
			.planned_ms = r->planned_ms };
		ret->host.vms = NULL;
		for (; ret->n_actions < RECLAIM_ACTIONS && ret->n_actions < m->n_actions; ret->n_actions++)
			ret->actions[ret->n_actions] = m->actions[(m->n_actions - 1 - ret->n_actions) % RECLAIM_ACTIONS];
		err = 0;
	}
	pthread_mutex_unlock(&r->lock);
	wake(r);
	return err;
}
