#include "scanner.h"

#include "base/clock.h"
#include "daemon.h"
#include "ops_client.h"
#include "mem/inject.h"
#include "policy/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PERIOD_NS	(100 * NS_PER_MS)
#define HASTY_PERIOD_NS (2 * NS_PER_MS)

struct scanner {
	struct daemon *daemon;
	struct loop_timer *timer;
	double host_ghz;
	uint64_t last_ns;
	struct policy_scan_vm **vms;
	struct client **clients;	/* in the same order */
	size_t room;
};

static int make_room(struct scanner *s, size_t n)
{
	struct policy_scan_vm **vms;
	struct client **clients;

	if (n <= s->room)
		return 0;
	vms = realloc(s->vms, 2 * n * sizeof *vms);
	if (vms)
		s->vms = vms;
	clients = realloc(s->clients, 2 * n * sizeof *clients);
	if (clients)
		s->clients = clients;
	if (!vms || !clients)
		return -ENOMEM;
	s->room = 2 * n;
	return 0;
}

/* A VM whose client has not joined its pool yet is scanned as well: what is equal is found the sooner, and zero pages go. */
static void look_at(struct client *c)
{
	struct scanner_vm *v = &c->scan;

	v->policy.pages = 0;
	v->policy.asked = false;
	if (vm_sharing(c->vm) == SHARING_OFF)
		return;
	v->policy.pages = client_active_pages(c->vm);
	if (v->asked_until && vm_scan_passes(c->vm) >= v->asked_until)
		v->asked_until = 0;
	v->policy.asked = v->asked_until > 0;
}

static void fire(void *userdata)
{
	struct scanner *s = userdata;
	struct daemon *d = s->daemon;
	const struct config *c = &d->config;
	struct policy_scan_settings how = { .scan_time_min = (uint64_t)c->share_scan_time,
		.mib_per_ghz = (uint64_t)c->share_scan_ghz, .rate_max = (uint64_t)c->share_rate_max, .host_ghz = s->host_ghz };
	uint64_t now = now_ns(), period = now - s->last_ns;
	struct reclaim_status status;
	size_t n = 0;

	s->last_ns = now;
	if (make_room(s, d->n_clients) < 0)
		return;	/* the next turn may have more luck */
	list_foreach(l, &d->clients) {
		struct client *one = container_of(l, struct client, link);

		if (one->ending || one->share.kind == POLICY_SHARING_OFF)
			continue;
		look_at(one);
		s->clients[n] = one;
		s->vms[n++] = &one->scan.policy;
	}
	reclaim_get_status(d->reclaim, &status);
	policy_scan(&how, status.pressed, period, s->vms, n);
	for (size_t i = 0; i < n && inject.hasty; i++)
		if (s->vms[i]->asked)
			s->vms[i]->hand_pages = s->vms[i]->read_pages = s->vms[i]->pages;
	for (size_t i = 0; i < n; i++)
		/* where nothing is to be looked at (no scan in the background, or withheld), what is shared still goes on being written
		 * to, and comes home; but a script says when */
		if (s->vms[i]->hand_pages || s->vms[i]->read_pages || !inject.hasty)
			vm_scan(s->clients[i]->vm, s->vms[i]->hand_pages, s->vms[i]->read_pages);
}

int scanner_new(struct scanner **ret, struct daemon *d, double host_ghz)
{
	struct scanner *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->daemon = d;
	s->host_ghz = host_ghz;
	s->last_ns = now_ns();
	r = loop_timer_new(d->loop, inject.hasty ? HASTY_PERIOD_NS : PERIOD_NS, fire, s, &s->timer);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void scanner_free(struct scanner *s)
{
	if (!s)
		return;
	loop_timer_free(s->timer);
	free(s->vms);
	free(s->clients);
	free(s);
}
