/* Events, and what `memctl metrics` needs beside the numbers.
 *
 *	Events		events: [{seq, ts_ms, since_ms, count, level, event, vm ("": the host's), text, lease and session where
 *			there is one}], in order
 *	FaultTimes	vms: [{vm, faults: {cause: {count, sum_ns, at_most: [[ns, faults that took no longer], ...]}}}],
 *			causes without a fault left out */
#include "ops_client.h"
#include "ops_dispatch.h"

#include "base/histogram.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>

#define EVENTS_MAX 256u

static void write_event(struct writer *o, const struct event *e)
{
	writer_object(o, NULL);
	writer_u64(o, "seq", e->seq);
	writer_u64(o, "ts_ms", e->ts_ms);
	writer_u64(o, "since_ms", e->since_ms);
	writer_u64(o, "count", e->count);
	writer_str(o, "level", event_level_names[e->level]);
	writer_str(o, "event", e->name);
	writer_str(o, "vm", e->of.vm);
	if (e->of.lease)
		writer_u64(o, "lease", e->of.lease);
	if (e->of.session)
		writer_u64(o, "session", (uint64_t)e->of.session);
	writer_str(o, "text", e->text);
	writer_end(o);
}

/* The number of the event before the last `n` that pass: where to begin. */
static uint64_t before_last(const struct event_filter *f, uint64_t n)
{
	uint64_t ring[EVENTS_MAX] = { 0 }, seen = 0, last, after = 0;
	struct event e;

	if (n > EVENTS_MAX)
		n = EVENTS_MAX;
	while (events_next(after, f, &e, &last)) {
		/* where the n-th before this one ended */
		ring[seen++ % n] = after;
		after = e.seq;
	}
	return seen <= n ? 0 : ring[seen % n];
}

void do_events(struct daemon *d, struct call *call, const struct op_events_in *in)
{
	struct event_filter f = { .vm = in->vm, .since_ms = in->since_ms };
	struct op_events_out out = { .next = in->after };
	struct writer o = WRITER_INIT;
	struct event e;
	uint64_t last;
	unsigned n = 0;

	if (*in->level && event_level(in->level, &f.level) < 0) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "level", "level is \"error\", \"warning\", \"notice\" or \"info\".");
		return;
	}
	if (in->last)
		out.next = before_last(&f, in->last);
	writer_array(&o, NULL);
	while (events_next(out.next, &f, &e, &last)) {
		if (n++ == EVENTS_MAX) {
			out.more = true;
			break;
		}
		write_event(&o, &e);
		out.next = e.seq;
	}
	writer_end(&o);
	/* what does not pass need not be looked at again; and after a restart with a clock that was put back, nothing is higher */
	if (!out.more)
		out.next = last;
	out.events = writer_take(&o, NULL);
	if (out.events)
		call_reply(call, &ops[OP_events], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.events);
}

/* Edges are those of the histogram's octaves from 1 us to 1 s, every second one: what is below is exact. */
#define FIRST_OCTAVE 10u
#define LAST_OCTAVE  30u

static void write_histogram(struct writer *o, const char *cause, const struct histogram_copy *h)
{
	writer_object(o, cause);
	writer_u64(o, "count", h->count);
	writer_u64(o, "sum_ns", h->sum_ns);
	writer_array(o, "at_most");
	for (unsigned octave = FIRST_OCTAVE; octave <= LAST_OCTAVE; octave += 2) {
		writer_array(o, NULL);
		writer_u64(o, NULL, (1ull << octave) - 1);
		writer_u64(o, NULL, histogram_below(h, octave));
		writer_end(o);
	}
	writer_end(o);
	writer_end(o);
}

void do_fault_times(struct daemon *d, struct call *call, const struct op_fault_times_in *in)
{
	struct op_fault_times_out out = { 0 };
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);

		writer_object(&o, NULL);
		writer_str(&o, "vm", vm_config(c->vm)->name);
		writer_object(&o, "faults");
		for (unsigned cause = 0; cause < FAULT_CAUSES; cause++) {
			struct histogram_copy h = { 0 };

			vm_fault_histogram(c->vm, cause, &h);
			if (h.count)
				write_histogram(&o, fault_cause_names[cause], &h);
		}
		writer_end(&o);
		writer_end(&o);
	}
	writer_end(&o);
	out.vms = writer_take(&o, NULL);
	if (out.vms)
		call_reply(call, &ops[OP_fault_times], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.vms);
}
