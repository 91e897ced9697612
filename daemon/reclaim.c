#include "reclaim.h"

#include "base/clock.h"
#include "base/list.h"
#include "mem/inject.h"
#include "mem/pool.h"
#include "policy/plan.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Between two looks while workers are busy: they wake us when they are done; this bounds a lost hope only. */
#define LOOK_MS 10
/* A VM that has given nothing for so long is passed over for so long. */
#define GIVE_NS	 (200 * NS_PER_MS)
#define SPARE_NS (1 * NS_PER_S)

struct member {
	struct list link;
	struct vm *vm;
	bool asked;		/* the last plan took from it */
	uint64_t given;		/* what it had given at the last look */
	uint64_t given_ns;	/* when that last changed, or when it was first asked */
	uint64_t spared_until_ns;
};

struct reclaim {
	struct arena *arena;
	int wake_fd;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic unsigned asked, answered;	/* reclaim_answers */

	/* Held while VMs are looked at and asked (which never blocks): whoever removes one waits for that. */
	pthread_mutex_t lock;
	struct list members;
	size_t n_members, room;
	struct policy_vm *view;		/* room for all members, made when they are added */
	struct policy_take *takes;
	unsigned min_free_pct;
	struct policy_memory memory;
	struct host_thresholds thresholds;
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

/* A VM that is asked and gives nothing (its disk fails; its client holds a lock that its worker needs) must not be the
 * only one that is asked for ever: the others' guests would wait for it. */
static bool gives_nothing(struct member *m, const struct vm_numbers *n)
{
	uint64_t given = n->evicted_pages + n->written_back_pages, now = now_ns();
	struct pool *pool = vm_pool(m->vm);
	struct pool_numbers p;

	if (pool && n->shared_bytes) {
		pool_numbers(pool, &p);
		given += p.evicted;
	}
	if (!m->asked || given != m->given) {
		m->given = given;
		m->given_ns = now;
	} else if (now - m->given_ns > GIVE_NS) {
		m->spared_until_ns = now + SPARE_NS;
		m->given_ns = now;
	}
	return now < m->spared_until_ns;
}

static void look_at(struct member *m, struct policy_vm *v)
{
	struct vm_numbers n;
	uint64_t fixed, part;

	vm_numbers(m->vm, &n);
	fixed = (n.overhead_bytes + n.pinned_bytes) / PAGE_SIZE;
	/* what it pays of its pool it can give as well: its workers evict from there.  Its own limit is about the rest. */
	part = n.shared_charge_bytes / PAGE_SIZE;
	*v = (struct policy_vm){
		.size_frames = n.size_bytes / PAGE_SIZE,
		.reservation_frames = n.reservation_bytes / PAGE_SIZE,
		.limit_frames = n.limit_bytes ? n.limit_bytes / PAGE_SIZE + part : POLICY_NO_LIMIT,
		.shares = n.shares,
		.charged_frames = n.charged_bytes / PAGE_SIZE + part,
	};
	v->reclaimable_frames = v->charged_frames > fixed && !gives_nothing(m, &n) ? v->charged_frames - fixed : 0;
}

/* One view, one plan, handed out.  Whether anything is left to do. */
static bool act(struct reclaim *r)
{
	struct arena_numbers a;
	struct policy_view view;
	struct policy_plan plan;
	size_t i = 0;
	bool more;

	arena_numbers(r->arena, &a);
	pthread_mutex_lock(&r->lock);
	list_foreach(l, &r->members)
		look_at(container_of(l, struct member, link), &r->view[i++]);
	view = (struct policy_view){ .capacity_frames = a.capacity_frames, .free_frames = a.free_frames,
		.min_free_pct = r->min_free_pct, .n_vms = r->n_members, .vms = r->view };
	policy_plan(&view, &r->memory, &plan, r->takes);
	r->thresholds = plan.thresholds;
	i = 0;
	list_foreach(l, &r->members) {
		struct member *m = container_of(l, struct member, link);
		struct policy_take *t = &r->takes[i++];
		bool limit = t->limit_frames > 0;

		/* the two causes are counted apart: the limit goes first, the host's part comes with the next look */
		if (limit || t->host_frames)
			vm_reclaim(m->vm, limit ? t->limit_frames : t->host_frames, limit);
		else if (m->asked)
			vm_reclaim(m->vm, 0, false); /* it has given enough */
		m->asked = limit || t->host_frames;
		account_rearm(vm_account(m->vm));
	}
	more = plan.host_frames + plan.limit_frames > 0;
	r->runs += more;
	pthread_mutex_unlock(&r->lock);
	return more;
}

static void *reclaim_main(void *arg)
{
	struct reclaim *r = arg;
	struct pollfd p = { .fd = r->wake_fd, .events = POLLIN };
	bool more = true;

	while (!atomic_load(&r->stop)) {
		uint64_t count;

		if (poll(&p, 1, more ? LOOK_MS : -1) > 0 && read(r->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
			break;
		inject_hang(inject.hang_reclaim_ns);
		atomic_store(&r->answered, atomic_load(&r->asked));
		more = act(r);
		/* what crossed the threshold since the look is seen by the next */
		if (!more && arena_rearm(r->arena))
			more = r->memory.reclaiming;
		else if (more)
			arena_rearm(r->arena);
	}
	return NULL;
}

int reclaim_new(struct reclaim **ret, struct arena *a, unsigned min_free_pct, struct problem *p)
{
	struct reclaim *r = calloc(1, sizeof *r);
	struct arena_numbers n;
	int err;

	if (!r)
		return problem_errno(p, "reclaim");
	r->arena = a;
	r->min_free_pct = min_free_pct;
	list_init(&r->members);
	pthread_mutex_init(&r->lock, NULL);
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->wake_fd < 0) {
		err = problem_errno(p, "eventfd");
		free(r);
		return err;
	}
	arena_numbers(a, &n);
	policy_thresholds(n.capacity_frames, min_free_pct, &r->thresholds);
	arena_set_pressure(a, r->thresholds.soft_frames, wake, r);
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
	free(r->view);
	free(r->takes);
	free(r);
}

/* Under the lock. */
static int make_room(struct reclaim *r, size_t n)
{
	struct policy_vm *view;
	struct policy_take *takes;

	if (n <= r->room)
		return 0;
	view = realloc(r->view, 2 * n * sizeof *view);
	if (view)
		r->view = view;
	takes = realloc(r->takes, 2 * n * sizeof *takes);
	if (takes)
		r->takes = takes;
	if (!view || !takes)
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
	return err;
}

void reclaim_remove(struct reclaim *r, struct vm *vm)
{
	pthread_mutex_lock(&r->lock);
	list_foreach_safe(l, &r->members) {
		struct member *m = container_of(l, struct member, link);

		if (m->vm != vm)
			continue;
		list_remove(&m->link);
		r->n_members--;
		free(m);
	}
	pthread_mutex_unlock(&r->lock);
}

void reclaim_set_min_free_pct(struct reclaim *r, unsigned pct)
{
	struct arena_numbers n;

	arena_numbers(r->arena, &n);
	pthread_mutex_lock(&r->lock);
	r->min_free_pct = pct;
	policy_thresholds(n.capacity_frames, pct, &r->thresholds);
	arena_set_low(r->arena, r->thresholds.soft_frames);
	pthread_mutex_unlock(&r->lock);
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

void reclaim_get_status(struct reclaim *r, struct reclaim_status *ret)
{
	struct arena_numbers n;

	arena_numbers(r->arena, &n);
	pthread_mutex_lock(&r->lock);
	ret->state = host_state_names[policy_host_state(r->memory.state, n.free_frames, &r->thresholds)];
	ret->min_free_frames = r->thresholds.min_free_frames;
	ret->goal_free_frames = r->thresholds.goal_frames;
	ret->pressed = n.free_frames < r->thresholds.min_free_frames;
	ret->runs = r->runs;
	pthread_mutex_unlock(&r->lock);
}
