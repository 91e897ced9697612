/* PageMap: the ledger of a VM, read as runs.
 *
 *	runs, in the order of gpa: [{lease, gpa, pages, bytes, state, in_transit, pinned,
 *	place, stored_bytes, with `ages` age (null where the page is not resident)}] */
#include "ops_client.h"
#include "ops_dispatch.h"

#include "proto/writer.h"

#include <stdlib.h>

#define RUNS_DEFAULT 4096
#define RUNS_MOST    16384
/* The words that one call looks at: an alternating map is short runs, but a sparse one is long ones, and the
 * control thread reads them. */
#define WORDS_MOST   (4u << 20)

static void write_run(struct writer *o, const struct lease *l, const struct map_run *m, bool ages)
{
	writer_object(o, NULL);
	writer_u64(o, "lease", lease_id(l));
	writer_u64(o, "gpa", lease_gpa(l) + m->run.page * PAGE_SIZE);
	writer_u64(o, "pages", m->run.count);
	writer_u64(o, "bytes", m->run.count * PAGE_SIZE);
	writer_str(o, "state", page_state_names[m->state]);
	writer_bool(o, "in_transit", m->in_transit);
	writer_bool(o, "pinned", m->pinned);
	writer_u64(o, "place", m->place);
	writer_u64(o, "stored_bytes", m->stored_bytes);
	if (ages && m->state == PAGE_RESIDENT)
		writer_u64(o, "age", m->age);
	else if (ages)
		writer_null(o, "age");
	writer_end(o);
}

void do_page_map(struct daemon *d, struct call *call, const struct op_page_map_in *in)
{
	struct client *c = client_find(d, in->vm);
	struct op_page_map_out out = { 0 };
	struct writer o = WRITER_INIT;
	uint64_t gpa = in->gpa & ~(PAGE_SIZE - 1), most = in->max_runs ? in->max_runs : RUNS_DEFAULT;
	uint64_t end = in->length ? in->gpa + in->length : UINT64_MAX, runs = 0, words = 0;
	struct lease *l;

	if (!c) {
		refuse_vm(call, WIRE_ERROR_NoSuchVm, in->vm);
		return;
	}
	if (most > RUNS_MOST)
		most = RUNS_MOST;
	writer_array(&o, NULL);
	while (gpa < end && (l = client_lease_from(c->vm, gpa))) {
		struct map_run m;

		if (gpa < lease_gpa(l))
			gpa = lease_gpa(l);
		if (gpa >= end)
			break;
		if (runs == most || words >= WORDS_MOST) {
			out.next = gpa;
			break;
		}
		if (lease_map_run(l, (gpa - lease_gpa(l)) / PAGE_SIZE, (end - lease_gpa(l) - 1) / PAGE_SIZE + 1, in->ages, &m) != 1)
			break;
		write_run(&o, l, &m, in->ages);
		gpa += m.run.count * PAGE_SIZE;
		words += m.run.count;
		runs++;
	}
	writer_end(&o);
	out.runs = writer_take(&o, NULL);
	if (out.runs)
		call_reply(call, &ops[OP_page_map], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.runs);
}
