#include "event_watch.h"

#include "base/clock.h"
#include "base/events.h"
#include "ops_client.h"
#include "record/record.h"

#include <string.h>

static unsigned long long mib(uint64_t frames)
{
	return (unsigned long long)(frames * PAGE_SIZE >> 20);
}

/* By how much a counter has grown since the last look. */
static unsigned long long grown(uint64_t *before, uint64_t now)
{
	uint64_t by = now > *before ? now - *before : 0;

	*before = now;
	return by;
}

static void look_at_host(struct daemon *d)
{
	struct event_watch *w = &d->event_watch;
	enum host_state before = w->host.told, now = HOST_HIGH;
	struct record_counts counts = { 0 };
	struct reclaim_status s;
	struct arena_numbers a;
	unsigned long long dropped;
	int tell;

	reclaim_get_status(d->reclaim, &s);
	for (unsigned i = 0; s.state && i < HOST_STATES; i++)
		if (!strcmp(host_state_names[i], s.state))
			now = (enum host_state)i;
	tell = policy_told_state(&w->host, now, now_ns());
	arena_numbers(d->arena, &a);
	if (tell >= 0)
		event_tell(tell >= HOST_HARD ? EVENT_HOST_SHORT : EVENT_HOST_STATE, NULL,
			"the host is %s (it was %s): %llu of %llu MiB are free, minFree is %llu MiB", host_state_names[tell],
			host_state_names[before], mib(a.free_frames), mib(a.capacity_frames), mib(s.min_free_frames));
	if (d->record)
		record_counts(d->record, &counts);
	if ((dropped = grown(&w->metrics_dropped, counts.dropped)))
		event_tell(EVENT_METRICS_DROPPED, NULL, "%llu rows of the history were dropped: the disk of %s does not keep up", dropped,
			d->config.metrics);
}

static void look_at_counters(struct event_watch_vm *w, const struct vm_numbers *n, const char *name)
{
	unsigned long long by;

	if ((by = grown(&w->checksum_errors, n->checksum_errors)))
		event_tell(EVENT_CHECKSUM_MISMATCH, EVENT_OF(.vm = name), "VM %s: %llu stored pages did not match their checksums", name, by);
	if ((by = grown(&w->swap_read_errors, n->swap_read_errors)))
		event_tell(EVENT_SWAP_READ_FAILED, EVENT_OF(.vm = name), "VM %s: %llu reads from its swap file failed", name, by);
	if ((by = grown(&w->swap_write_errors, n->swap_write_errors)))
		event_tell(EVENT_SWAP_WRITE_FAILED, EVENT_OF(.vm = name), "VM %s: %llu writes to its swap file failed; the pages stayed", name, by);
	if ((by = grown(&w->lost_bytes, n->lost_bytes)))
		event_tell(EVENT_PAGE_LOST, EVENT_OF(.vm = name), "VM %s: %llu pages are lost", name, by / PAGE_SIZE);
	if ((by = grown(&w->foreign_pages, n->foreign_pages)))
		event_tell(EVENT_LEASE_ABOVE_CHARGE, EVENT_OF(.vm = name),
			"VM %s: its client has put %llu pages into its leases behind our back; they are charged now", name, by);
	if ((by = grown(&w->break_waits, n->break_waits)))
		event_tell(EVENT_BREAK_LIMIT, EVENT_OF(.vm = name), "VM %s: %llu writes to shared pages waited: too many are not brought home yet",
			name, by);
}

static void look_at_vm(struct client *c)
{
	struct event_watch_vm *w = &c->event_watch;
	const char *name = vm_config(c->vm)->name, *trouble = vm_trouble(c->vm);
	struct vm_numbers n;

	vm_numbers(c->vm, &n);
	/* what was lost before a restart was told before it */
	if (!w->looked && c->awaited)
		w->lost_bytes = n.lost_bytes;
	w->looked = true;
	look_at_counters(w, &n, name);
	if (n.blocked && !w->blocked)
		event_tell(EVENT_VM_BLOCKED, EVENT_OF(.vm = name), "VM %s: its guest waits for new pages: the host is low, and it has %llu of %llu MiB",
			name, mib(n.charged_bytes / PAGE_SIZE), mib(n.target_bytes / PAGE_SIZE));
	w->blocked = n.blocked;
	/* one that must end is told by its end */
	if (*trouble && !w->trouble && !vm_must_end(c->vm))
		event_tell(EVENT_VM_DAMAGED, EVENT_OF(.vm = name), "VM %s: %s", name, trouble);
	w->trouble = *trouble;
}

static void look_at_balloons(struct daemon *d)
{
	uint64_t owed;
	char name[64];
	bool owes;

	while (reclaim_balloon_changed(d->reclaim, name, &owes, &owed)) {
		if (owes)
			event_tell(EVENT_BALLOON_OWES, EVENT_OF(.vm = name),
				"VM %s: its balloon was asked and does not give: the %llu MiB that it owes count as held", name, mib(owed));
		else
			event_tell(EVENT_BALLOON_GIVES, EVENT_OF(.vm = name), "VM %s: its balloon owes nothing any more", name);
	}
}

void event_watch_look(struct daemon *d)
{
	look_at_host(d);
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		if (!c->ending && c->vm)
			look_at_vm(c);
	}
	look_at_balloons(d);
}
