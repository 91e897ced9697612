#include "base/event_log.h"

#include <stdio.h>
#include <string.h>

void event_log_begin(struct event_log *l, uint64_t now_ms)
{
	l->seq = l->began = now_ms * 1000;
}

/* ---- credit ---- */

static bool take(struct event_credit *c, uint64_t now_ns, uint64_t burst, uint64_t pause_ns)
{
	uint64_t more;

	if (!c->since_ns) {
		c->left = burst;
		c->since_ns = now_ns;
	}
	more = (now_ns - c->since_ns) / pause_ns;
	c->since_ns += more * pause_ns;
	c->left = c->left + more < burst ? c->left + more : burst;
	if (!c->left)
		return false;
	c->left--;
	return true;
}

/* The pair, or the place of one that nobody has seen for longest and that has nothing to tell; NULL: all have. */
static struct event_pair *find_pair(struct event_log *l, enum event_id id, const char *vm)
{
	struct event_pair *oldest = NULL;

	for (unsigned i = 0; i < EVENT_PAIRS; i++) {
		struct event_pair *p = &l->pairs[i];

		if (p->used && p->id == id && !strcmp(p->of.vm, vm))
			return p;
		if (!p->waiting && (!oldest || (oldest->used && (!p->used || p->seen_ns < oldest->seen_ns))))
			oldest = p;
	}
	if (oldest) {
		*oldest = (struct event_pair){ .used = true, .id = id };
		snprintf(oldest->of.vm, sizeof oldest->of.vm, "%s", vm);
	}
	return oldest;
}

/* ---- rings ---- */

static struct event_ring *ring_of(struct event_log *l, enum log_level level)
{
	return level <= LOG_LEVEL_WARNING ? &l->serious : &l->calm;
}

static struct event *ring_at(const struct event_ring *r, size_t i)
{
	return (struct event *)&r->event[(r->first + i) % EVENT_KEPT];
}

static void keep(struct event_log *l, const struct event *e)
{
	struct event_ring *r = ring_of(l, e->level);

	if (r->n == EVENT_KEPT)
		r->first = (r->first + 1) % EVENT_KEPT;
	else
		r->n++;
	*ring_at(r, r->n - 1) = *e;
}

bool event_log_older(struct event_log *l, const struct event *e)
{
	struct event_ring *r = ring_of(l, e->level), *rings[] = { &l->calm, &l->serious };
	bool room = l->calm.n < EVENT_KEPT || l->serious.n < EVENT_KEPT;

	if (r->n == EVENT_KEPT)
		return room;
	/* the clock was put back since: what we have told goes on after them */
	if (!l->older && e->seq >= l->seq) {
		uint64_t shift = e->seq + 1000 - l->seq;

		for (unsigned k = 0; k < 2; k++)
			for (size_t i = 0; i < rings[k]->n; i++)
				ring_at(rings[k], i)->seq += shift;
		l->seq += shift;
		l->began += shift;
	}
	l->older = true;
	if (r->n && ring_at(r, 0)->seq <= e->seq)
		return room;
	r->first = (r->first + EVENT_KEPT - 1) % EVENT_KEPT;
	r->n++;
	*ring_at(r, 0) = *e;
	return room;
}

/* ---- what is told ---- */

static void tell(struct event_log *l, struct event *e)
{
	e->seq = ++l->seq;
	l->told[e->level] += e->count;
	keep(l, e);
}

static void make(struct event *ret, enum event_id id, const struct event_of *of, const char *text, uint64_t ms)
{
	*ret = (struct event){ .ts_ms = ms, .since_ms = ms, .count = 1, .level = event_kinds[id].level, .of = *of };
	snprintf(ret->name, sizeof ret->name, "%s", event_kinds[id].name);
	snprintf(ret->text, sizeof ret->text, "%s", text);
}

static void wait(struct event_pair *p, const struct event_of *of, const char *text, uint64_t now_ms)
{
	if (!p->waiting++)
		p->first_ms = now_ms;
	p->last_ms = now_ms;
	p->of.lease = of->lease;
	p->of.session = of->session;
	snprintf(p->text, sizeof p->text, "%s", text);
}

bool event_log_add(struct event_log *l, uint64_t now_ns, uint64_t now_ms, enum event_id id, const struct event_of *of,
	const char *text, struct event *ret)
{
	struct event_pair *p = l->tell_all ? NULL : find_pair(l, id, of->vm);

	if (p) {
		p->seen_ns = now_ns;
		if (!take(&p->credit, now_ns, EVENT_BURST, EVENT_PAUSE_NS)) {
			wait(p, of, text, now_ms);
			return false;
		}
	}
	/* a flood of names, each of which would have its burst */
	if (!l->tell_all && (!p || !take(&l->all[id], now_ns, EVENT_ALL_BURST, EVENT_ALL_NS))) {
		wait(&l->others[id], of, text, now_ms);
		return false;
	}
	make(ret, id, of, text, now_ms);
	if (p && p->waiting) {
		ret->since_ms = p->first_ms;
		ret->count += p->waiting;
		p->waiting = 0;
	}
	tell(l, ret);
	return true;
}

/* One that stands for all that waited. */
static void tell_of_many(struct event_log *l, enum event_id id, struct event_pair *p, bool others, struct event *ret)
{
	make(ret, id, &p->of, p->text, p->last_ms);
	if (others)
		snprintf(ret->text, sizeof ret->text, "%llu more of these came too fast to be told; the last: %.200s",
			(unsigned long long)p->waiting, p->text);
	ret->since_ms = p->first_ms;
	ret->count = p->waiting;
	p->waiting = 0;
	tell(l, ret);
}

static void join_others(struct event_log *l, struct event_pair *p)
{
	struct event_pair *o = &l->others[p->id];
	uint64_t waiting = o->waiting + p->waiting, first_ms = o->waiting && o->first_ms < p->first_ms ? o->first_ms : p->first_ms;

	wait(o, &p->of, p->text, p->last_ms);
	o->waiting = waiting;
	o->first_ms = first_ms;
	p->waiting = 0;
}

bool event_log_due(struct event_log *l, uint64_t now_ns, struct event *ret)
{
	for (unsigned i = 0; i < EVENT_PAIRS; i++) {
		struct event_pair *p = &l->pairs[i];

		if (!p->waiting || !take(&p->credit, now_ns, EVENT_BURST, EVENT_PAUSE_NS))
			continue;
		if (!take(&l->all[p->id], now_ns, EVENT_ALL_BURST, EVENT_ALL_NS)) {
			join_others(l, p);
			continue;
		}
		tell_of_many(l, p->id, p, false, ret);
		return true;
	}
	for (unsigned id = 0; id < EVENT_IDS; id++) {
		struct event_pair *o = &l->others[id];

		if (!o->waiting || !take(&o->credit, now_ns, 1, EVENT_PAUSE_NS))
			continue;
		tell_of_many(l, id, o, true, ret);
		return true;
	}
	return false;
}

/* ---- reading ---- */

static bool passes(const struct event *e, const struct event_filter *f)
{
	return (!f->level || e->level <= f->level) && (!f->vm || !*f->vm || !strcmp(f->vm, e->of.vm)) && e->ts_ms >= f->since_ms;
}

static const struct event *next_in(const struct event_ring *r, uint64_t after, const struct event_filter *f)
{
	size_t low = 0, high = r->n;

	while (low < high) {
		size_t at = (low + high) / 2;

		if (ring_at(r, at)->seq <= after)
			low = at + 1;
		else
			high = at;
	}
	for (; low < r->n; low++)
		if (passes(ring_at(r, low), f))
			return ring_at(r, low);
	return NULL;
}

const struct event *event_log_next(const struct event_log *l, uint64_t after, const struct event_filter *f)
{
	const struct event *a = next_in(&l->calm, after, f), *b = next_in(&l->serious, after, f);

	return !a || (b && b->seq < a->seq) ? b : a;
}
