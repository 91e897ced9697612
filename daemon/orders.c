#include "orders.h"

#include "base/clock.h"
#include "base/list.h"
#include "mem/lease.h"
#include "proto/ops.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_NS   NS_PER_S		/* an order that waits for longer: the library is mute */
#define PLAIN_NS    (10 * NS_PER_S)
#define PRESENT_NS  (100 * NS_PER_MS)	/* and a worker waits no longer than this for an answer */
#define WAITING_MAX 64		/* orders sent and not answered; more are dropped */
#define PAGES_MAX   (RUN_MAX * 8)

enum kind { ZAP, PRESENT, PRIVATE, SHARE, HOME, SETTLE, PLAIN };
static const char *const kind_names[] = { "zap", "present", "private", "share", "home", "settle", "plain" };

/* An order.  Two references: the sender's (dropped by the worker when it returns) and the stream's (dropped
 * when it is answered, detached or given up). */
struct order {
	struct list link;		/* of the stream, while it waits for an answer */
	struct post post;
	struct orders *owner;
	_Atomic unsigned refs;
	uint64_t id;
	enum kind kind;
	uint64_t lease;
	struct vm *vm;			/* of a remap order: who is told; it outlives the stream */
	orders_answered *answered;	/* of orders_present: who is told */
	void *userdata;
	uint64_t sent_ns;
	uint64_t pages;
	unsigned done_pages;		/* of these, as the answer says */
	bool finished;			/* r and bits are valid */
	int r;
	uint8_t bits[PAGES_MAX / 8];
	unsigned n;
	struct op_run runs[];
};

struct orders {
	_Atomic unsigned refs;		/* the owner's and one an order */
	struct loop *loop;
	pthread_mutex_t lock; /* guards all below and every order's result; nothing is taken inside it */
	pthread_cond_t answered;
	struct call *attend;		/* control thread */
	bool detached;
	bool mute;
	uint64_t next_id;
	struct list waiting;		/* struct order, oldest first */
	unsigned n_waiting;
	struct orders_numbers numbers;
};

int orders_new(struct orders **ret, struct loop *l)
{
	struct orders *o = calloc(1, sizeof *o);
	pthread_condattr_t attr;

	if (!o)
		return -ENOMEM;
	o->refs = 1;
	o->loop = l;
	/* above all that a daemon before us has given out: an answer to one of those is none to ours */
	o->next_id = wall_ns();
	list_init(&o->waiting);
	pthread_mutex_init(&o->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&o->answered, &attr);
	pthread_condattr_destroy(&attr);
	*ret = o;
	return 0;
}

void orders_unref(struct orders *o)
{
	if (!o || atomic_fetch_sub(&o->refs, 1) > 1)
		return;
	assert(list_empty(&o->waiting));
	pthread_cond_destroy(&o->answered);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static void order_unref(struct order *k)
{
	struct orders *o = k->owner;

	if (atomic_fetch_sub(&k->refs, 1) > 1)
		return;
	free(k);
	orders_unref(o);
}

/* With the lock held: the result is known; the stream lets go of the order. */
static void finish(struct order *k, int r)
{
	struct orders *o = k->owner;

	k->finished = true;
	k->r = r;
	if (!list_empty(&k->link)) {
		list_remove(&k->link);
		o->n_waiting--;
	}
	pthread_cond_broadcast(&o->answered);
}

static bool is_remap(const struct order *k)
{
	return k->kind == SHARE || k->kind == HOME || k->kind == SETTLE;
}

/* With the lock held, on the control thread: the stream lets go of a finished order, or hands it to `told`, if somebody must
 * be told.  That is done without the lock: it leads into mem/, whose workers call us with locks of theirs, or back to us. */
static void let_go(struct order *k, struct list *told)
{
	if (is_remap(k) || k->answered)
		list_append(told, &k->link);
	else
		order_unref(k);
}

static void tell(struct list *told)
{
	while (!list_empty(told)) {
		struct order *k = container_of(told->next, struct order, link);

		list_remove(&k->link);
		if (k->answered)
			k->answered(k->userdata, k->id, k->r, k->bits);
		else
			vm_remap_answered(k->vm, (uint32_t)k->lease, k->id, k->r, k->bits, k->done_pages);
		order_unref(k);
	}
}

/* With the lock held.  The oldest order has waited too long: the library does not answer. */
static bool is_mute(struct orders *o)
{
	if (!list_empty(&o->waiting)) {
		const struct order *oldest = container_of(o->waiting.next, struct order, link);

		o->mute = o->mute || now_ns() - oldest->sent_ns > ANSWER_NS;
	}
	return o->mute;
}

/* On the control thread: write it to the stream. */
static void send_order(struct post *p)
{
	struct order *k = container_of(p, struct order, post);
	struct orders *o = k->owner;
	struct op_attend_out *out;
	struct list told = LIST_INIT(told);
	bool waits;

	pthread_mutex_lock(&o->lock);
	waits = !k->finished;
	pthread_mutex_unlock(&o->lock);
	out = waits && o->attend ? calloc(1, sizeof *out) : NULL;
	if (out) {
		out->order = k->id;
		snprintf(out->kind, sizeof out->kind, "%s", kind_names[k->kind]);
		out->lease = k->lease;
		out->runs.n = k->n;
		memcpy(out->runs.run, k->runs, k->n * sizeof k->runs[0]);
		call_continue(o->attend, &ops[OP_attend], out);
		free(out);
	} else if (waits) {
		pthread_mutex_lock(&o->lock);
		if (!k->finished) {
			/* it was not sent; with a stream there was no memory for it */
			finish(k, o->attend ? -ENOMEM : -ENOTCONN);
			let_go(k, &told);
		}
		pthread_mutex_unlock(&o->lock);
		tell(&told);
	}
	order_unref(k);
}

static struct order *order_new(struct orders *o, enum kind kind, struct lease *l, unsigned n)
{
	struct order *k = calloc(1, sizeof *k + n * sizeof k->runs[0]);

	assert(n <= OP_RUNS_MAX);
	if (!k)
		return NULL;
	list_init(&k->link);
	k->owner = o;
	k->kind = kind;
	k->lease = lease_id(l);
	k->vm = lease_vm(l);
	return k;
}

static void add_run(struct order *k, struct op_run run)
{
	k->runs[k->n++] = run;
	k->pages += run.count;
	assert(k->kind == ZAP || k->kind == PLAIN || k->pages <= PAGES_MAX);
}

/* Put it on its way to the control thread; false, and *ret_r, if not: it is gone then.  It is the caller's until it drops its
 * reference.  *ret_id (if not NULL) is written before anybody can answer. */
static bool give(struct orders *o, struct order *k, uint64_t *ret_id, int *ret_r)
{
	pthread_mutex_lock(&o->lock);
	*ret_r = 0;
	if (o->detached || !o->attend)
		*ret_r = -ENOTCONN;
	else if (is_mute(o))
		*ret_r = -ETIMEDOUT;
	else if (o->n_waiting >= WAITING_MAX)
		*ret_r = -EAGAIN;
	if (*ret_r < 0) {
		o->numbers.dropped++;
		pthread_mutex_unlock(&o->lock);
		free(k);
		return false;
	}
	k->refs = 3; /* the caller's, the post's, the stream's */
	atomic_fetch_add(&o->refs, 1);
	k->id = ++o->next_id;
	if (ret_id)
		*ret_id = k->id;
	k->sent_ns = now_ns();
	list_append(&o->waiting, &k->link);
	o->n_waiting++;
	o->numbers.sent++;
	/* under the lock, so that orders are sent in the order of their numbers */
	loop_post(o->loop, &k->post, send_order);
	pthread_mutex_unlock(&o->lock);
	return true;
}

static struct order *runs_order(struct orders *o, enum kind kind, struct lease *l, const struct run *runs, unsigned n)
{
	struct order *k = order_new(o, kind, l, n);

	for (unsigned i = 0; k && i < n; i++)
		add_run(k, (struct op_run){ .page = runs[i].page, .count = runs[i].count });
	return k;
}

static struct order *give_runs(
	struct orders *o, enum kind kind, struct lease *l, const struct run *runs, unsigned n, int *ret_r)
{
	struct order *k = runs_order(o, kind, l, runs, n);

	*ret_r = -ENOMEM;
	return k && give(o, k, NULL, ret_r) ? k : NULL;
}

int orders_present(struct orders *o, struct lease *l, const struct run *runs, unsigned n, orders_answered *answered,
	void *userdata, uint64_t *ret_order)
{
	struct order *k = runs_order(o, PRESENT, l, runs, n);
	int r;

	if (!k)
		return -ENOMEM;
	k->answered = answered;
	k->userdata = userdata;
	if (!give(o, k, ret_order, &r))
		return r;
	order_unref(k);
	return 0;
}

int orders_zap(struct orders *o, struct lease *l, const struct run *runs, unsigned n)
{
	int r;

	while (n > 0) {
		unsigned now = n < OP_RUNS_MAX ? n : OP_RUNS_MAX;
		struct order *k = give_runs(o, ZAP, l, runs, now, &r);

		if (!k)
			return r;
		order_unref(k);
		runs += now;
		n -= now;
	}
	return 0;
}

static int zap(void *userdata, struct lease *l, const struct run *runs, unsigned n)
{
	return orders_zap(userdata, l, runs, n);
}

/* An order that is waited for: one bit a page. */
static int ask(struct orders *o, enum kind kind, struct lease *l, const struct run *runs, unsigned n, uint64_t timeout_ns,
	uint8_t *ret_bits)
{
	struct timespec until;
	uint64_t deadline;
	struct order *k;
	int r;

	k = give_runs(o, kind, l, runs, n, &r);
	if (!k)
		return kind == PLAIN ? -EBUSY : r; /* not sent: that is sure */
	pthread_mutex_lock(&o->lock);
	deadline = k->sent_ns + timeout_ns;
	until = (struct timespec){ (time_t)(deadline / NS_PER_S), (long)(deadline % NS_PER_S) };
	while (!k->finished && r == 0)
		r = pthread_cond_timedwait(&o->answered, &o->lock, &until);
	if (k->finished) {
		r = k->r;
		if (r == 0 && ret_bits)
			memcpy(ret_bits, k->bits, (k->pages + 7) / 8);
		else if (r == 0 && !k->done_pages)
			r = -EBUSY;
	} else {
		/* it goes on waiting, as the proof that the library is mute, until it is answered */
		r = -ETIMEDOUT;
		o->mute = true;
		o->numbers.timed_out++;
	}
	pthread_mutex_unlock(&o->lock);
	order_unref(k);
	return r;
}

static int present(void *userdata, struct lease *l, const struct run *runs, unsigned n, uint8_t *ret_bits)
{
	return ask(userdata, PRESENT, l, runs, n, PRESENT_NS, ret_bits);
}

static int private_copies(void *userdata, struct lease *l, const struct run *runs, unsigned n, uint8_t *ret_bits)
{
	return ask(userdata, PRIVATE, l, runs, n, PRESENT_NS, ret_bits);
}

static int hand_over(void *userdata, struct lease *l, uint64_t pages)
{
	return ask(userdata, PLAIN, l, &(struct run){ 0, pages }, 1, PLAIN_NS, NULL);
}

static int remap(void *userdata, struct lease *l, enum remap what, const struct pool_run *runs, unsigned n,
	uint64_t *ret_order)
{
	struct orders *o = userdata;
	bool share = what == REMAP_SHARE;
	struct order *k = order_new(o, share ? SHARE : what == REMAP_HOME ? HOME : SETTLE, l, n);
	int r;

	if (!k)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		add_run(k, (struct op_run){ .page = runs[i].page, .count = runs[i].count, .to = share ? runs[i].pool_page : 0 });
	if (!give(o, k, ret_order, &r))
		return r;
	order_unref(k);
	return 0;
}

void orders_functions(struct orders *o, struct vm_orders *ret)
{
	*ret = (struct vm_orders){ .zap = zap, .present = present, .private_copies = private_copies, .remap = remap,
		.hand_over = hand_over,
		.userdata = o };
}

void orders_attach(struct orders *o, struct call *attend)
{
	pthread_mutex_lock(&o->lock);
	o->attend = attend;
	pthread_mutex_unlock(&o->lock);
}

void orders_detach(struct orders *o)
{
	struct list told = LIST_INIT(told);
	struct call *attend;

	pthread_mutex_lock(&o->lock);
	attend = o->attend;
	o->attend = NULL;
	o->detached = true;
	while (!list_empty(&o->waiting)) {
		struct order *k = container_of(o->waiting.next, struct order, link);

		finish(k, -ENOTCONN);
		let_go(k, &told);
	}
	pthread_mutex_unlock(&o->lock);
	tell(&told);
	if (attend) {
		struct wire_error e = { 0 };

		wire_error_set(&e, WIRE_ERROR_BadState, "The VM ends.");
		call_fail(attend, &e);
	}
}

int orders_balloon(struct orders *o, uint64_t pages)
{
	struct op_attend_out *out;

	if (!o->attend || !o->attend->session)
		return -ENOTCONN;
	if (!session_is_taken(o->attend->session))
		return -EAGAIN;
	out = calloc(1, sizeof *out);
	if (!out)
		return -ENOMEM;
	pthread_mutex_lock(&o->lock);
	out->order = ++o->next_id;
	pthread_mutex_unlock(&o->lock);
	strcpy(out->kind, "balloon");
	out->runs.n = 1;
	out->runs.run[0] = (struct op_run){ .page = pages, .count = 1 };
	call_continue(o->attend, &ops[OP_attend], out);
	free(out);
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int parse_bits(const char *text, unsigned pages, uint8_t *ret)
{
	if (strlen(text) != (pages + 7) / 8 * 2)
		return -EINVAL;
	for (unsigned i = 0; i < (pages + 7) / 8; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

/* For how many pages a remap was carried out: whole runs. */
static int take_pages(struct order *k, uint64_t pages)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < k->n && n < pages; i++)
		n += k->runs[i].count;
	if (n != pages)
		return -EINVAL;
	k->done_pages = (unsigned)pages;
	return 0;
}

static int take_answer(struct order *k, const char *bits, uint64_t pages)
{
	int r = k->kind == SHARE || k->kind == HOME ? take_pages(k, pages) : 0;

	if (k->kind == PLAIN) {
		k->done_pages = pages == k->pages;
		return 0;
	}
	if (k->kind == SETTLE) {
		k->done_pages = (unsigned)k->pages;
		return parse_bits(bits, (unsigned)(2 * k->pages), k->bits);
	}

	/* a share that was not carried out at all has nothing to say about its pages */
	if (r == 0 && (k->kind == PRESENT || k->kind == PRIVATE || (k->kind == SHARE && pages)))
		r = parse_bits(bits, (unsigned)k->pages, k->bits);
	return r;
}

int orders_done(struct orders *o, uint64_t id, const char *bits, uint64_t pages)
{
	struct list told = LIST_INIT(told);
	int r = -ENOENT;

	pthread_mutex_lock(&o->lock);
	list_foreach(l, &o->waiting)
		if (container_of(l, struct order, link)->id == id)
			r = 0;
	while (r == 0) {
		struct order *k = container_of(o->waiting.next, struct order, link);
		bool this_one = k->id == id;

		/* Orders are carried out in their order: those before it will not be answered any more. */
		if (!this_one) {
			finish(k, -ETIMEDOUT);
			let_go(k, &told);
			continue;
		}
		r = take_answer(k, bits, pages);
		o->mute = false;
		o->numbers.answered++;
		finish(k, r < 0 ? -EPROTO : 0);
		let_go(k, &told);
		break;
	}
	pthread_mutex_unlock(&o->lock);
	tell(&told);
	return r;
}

void orders_numbers(struct orders *o, struct orders_numbers *ret)
{
	pthread_mutex_lock(&o->lock);
	*ret = o->numbers;
	pthread_mutex_unlock(&o->lock);
}
