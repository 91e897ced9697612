#include "page_in.h"

#include "base/clock.h"
#include "base/events.h"

#include <errno.h>
#include <stdlib.h>

#define PERIOD_NS     (100 * NS_PER_MS)
#define RATE_MAX      (1ull << 40)	/* from here on there is no bound */
#define JOB_PAGES_MAX 4096u	/* a job keeps its lease's worker from other work for some 50 ms */

struct page_in {
	struct client *client;
	struct client_job job;
	bool in_flight, stopped, anew;	/* when its job is back, it ends, or begins anew */
	uint64_t rate;			/* bytes a second; 0: no bound */
	uint64_t tokens;		/* pages that may come now */
	uint64_t last_ns;		/* when tokens were given last */
	uint64_t all, done;		/* pages that were stored at first; that have come */
	uint32_t lease;			/* where the hand is */
	uint64_t page;
	bool waits;			/* for free memory, until the next turn */
};

struct page_ins {
	struct daemon *daemon;
	struct loop_timer *timer;
};

/* The lease of the smallest number from `id` on. */
static struct lease *lease_from(struct vm *vm, uint32_t id)
{
	struct lease *best = NULL;

	for (struct lease *l = vm_first_lease(vm); l; l = lease_next(l))
		if (lease_is_active(l) && lease_id(l) >= id && (!best || lease_id(l) < lease_id(best)))
			best = l;
	return best;
}

static uint64_t left(const struct page_in *p)
{
	uint64_t stored = vm_stored_pages(p->client->vm), ahead = p->all > p->done ? p->all - p->done : 0;

	/* what its guest has brought in itself does not come any more; 0 would say that it has ended */
	return ahead > stored ? stored : ahead ? ahead : 1;
}

static void end(struct page_in *p)
{
	struct client *c = p->client;

	if (p->in_flight) {
		p->stopped = true;
		return;
	}
	c->page_in = NULL;
	vm_set_page_in_left(c->vm, 0);
	free(p);
}

static void go_on(struct page_in *p);

static void finished(struct client_job *j)
{
	struct page_in *p = container_of(j, struct page_in, job);
	struct client *c = p->client;

	p->in_flight = false;
	p->done += j->job.pages;
	p->tokens -= j->job.pages < p->tokens ? j->job.pages : p->tokens;
	if (c->ending || p->stopped) {
		end(p);
		return;
	}
	if (p->anew) {
		p->anew = false;
	} else if (j->job.range.count) {
		p->page = j->job.range.page;
		/* there was no room; or its turn was over */
		p->waits = !j->job.pages;
	} else {
		p->lease++;
		p->page = 0;
	}
	go_on(p);
}

static void go_on(struct page_in *p)
{
	struct client *c = p->client;
	struct reclaim_status status;
	struct lease *l;

	if (p->in_flight || p->waits || c->leaving || c->awaited || (p->rate && !p->tokens)) {
		vm_set_page_in_left(c->vm, left(p));
		return;
	}
	l = lease_from(c->vm, p->lease);
	if (!l) {
		event_tell(EVENT_PAGE_IN_DONE, EVENT_OF(.vm = vm_config(c->vm)->name), "VM %s: %llu pages brought back",
			vm_config(c->vm)->name, (unsigned long long)p->done);
		end(p);
		return;
	}
	if (lease_id(l) != p->lease)
		p->page = 0;
	p->lease = lease_id(l);
	reclaim_get_status(c->daemon->reclaim, &status);
	p->job = (struct client_job){ .finished = finished };
	p->job.job.kind = JOB_PAGE_IN;
	p->job.job.range = (struct run){ p->page, lease_size_bytes(l) / PAGE_SIZE - p->page };
	p->job.job.most = p->rate && p->tokens < JOB_PAGES_MAX ? p->tokens : JOB_PAGES_MAX;
	p->job.job.floor_frames = status.goal_free_frames;
	p->in_flight = true;
	if (client_submit(c, l, &p->job) < 0) {
		/* it ends just now */
		p->in_flight = false;
		p->lease++;
		p->page = 0;
		p->waits = true;
	}
	vm_set_page_in_left(c->vm, left(p));
}

static void give_tokens(struct page_in *p)
{
	uint64_t now = now_ns(), ns_per_page = p->rate ? NS_PER_S * PAGE_SIZE / p->rate : 0, n;

	if (!ns_per_page)
		return;
	n = (now - p->last_ns) / ns_per_page;
	p->last_ns += n * ns_per_page;
	p->tokens += n;
	/* a second's worth is kept of what could not be used */
	if (p->tokens > p->rate / PAGE_SIZE + 1)
		p->tokens = p->rate / PAGE_SIZE + 1;
}

static void fire(void *userdata)
{
	struct page_ins *all = userdata;
	bool any = false;

	/* going on may end it, not the client */
	list_foreach(l, &all->daemon->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!c->page_in || c->ending)
			continue;
		c->page_in->waits = false;
		give_tokens(c->page_in);
		go_on(c->page_in);
		any |= c->page_in != NULL;
	}
	if (!any) {
		loop_timer_free(all->timer);
		all->timer = NULL;
	}
}

int page_ins_new(struct page_ins **ret, struct daemon *d)
{
	struct page_ins *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->daemon = d;
	*ret = p;
	return 0;
}

void page_ins_free(struct page_ins *p)
{
	if (!p)
		return;
	loop_timer_free(p->timer);
	free(p);
}

int page_in_start(struct client *c, uint64_t rate, uint64_t *ret_pages)
{
	struct page_ins *all = c->daemon->page_ins;
	struct page_in *p = c->page_in;
	int r = all->timer ? 0 : loop_timer_new(c->daemon->loop, PERIOD_NS, fire, all, &all->timer);

	if (r < 0)
		return r;
	if (!p) {
		p = calloc(1, sizeof *p);
		if (!p)
			return -ENOMEM;
		p->client = c;
		c->page_in = p;
	}
	p->stopped = false;
	p->rate = rate < RATE_MAX ? rate : 0;
	p->tokens = 0;
	p->last_ns = now_ns();
	p->all = *ret_pages = vm_stored_pages(c->vm);
	p->done = 0;
	p->anew = p->in_flight;
	p->lease = 0;
	p->page = 0;
	p->waits = false;
	go_on(p);
	return 0;
}

uint64_t page_in_stop(struct client *c)
{
	uint64_t n = c->page_in && !c->page_in->stopped ? left(c->page_in) : 0;

	if (c->page_in)
		end(c->page_in);
	return n;
}

void page_in_forget(struct client *c)
{
	if (c->page_in)
		end(c->page_in);
}
