/* The VM's own numbers: ShowVm's reply, read by the same decoder as every other message. */
#include "libclient/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Number of the daemon's, member of struct memctl_stats. */
#define STATS(X) \
	X(size_bytes, size) X(leased_bytes, leased) X(resident_bytes, resident) X(compressed_bytes, compressed) \
	X(stored_bytes, stored) X(swapped_bytes, swapped) X(zero_bytes, zero) X(pinned_bytes, pinned) \
	X(charged_bytes, charged) X(faults_zero, faults_zero) X(faults_compressed, faults_compressed) \
	X(faults_swapped, faults_swapped) X(evicted_pages, evicted_pages) X(shared_bytes, shared) \
	X(saved_bytes, saved)

/* The decoder wants a struct whose members are exactly the fields, in their order. */
struct numbers {
#define MEMBER(number, member) uint64_t number;
	STATS(MEMBER)
};
static const struct op_field number_fields[] = {
#define FIELD(number, member) { #number, OP_TYPE_u64, true },
	STATS(FIELD)
	{ NULL },
};

static int decode(const char *vm, struct memctl_stats *ret, struct memctl_error *e)
{
	struct numbers numbers;
	struct body body;
	char *text;
	int r, length;

	/* The decoder reads messages, so the object is put where a message has its parameters. */
	length = asprintf(&text, "{\"parameters\":%s}", vm);
	if (length < 0)
		return fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
	r = body_parse(&body, text, (size_t)length, NULL);
	if (!r) {
		r = body_decode(&body, number_fields, false, &numbers, NULL);
		body_fini(&body);
	}
	free(text);
	if (r < 0)
		return fail(e, -EPROTO, ERROR_SYSTEM, "memctld's numbers cannot be understood");
#define COPY(number, member) ret->member = numbers.number;
	STATS(COPY)
	ret->faults = ret->faults_zero + ret->faults_compressed + ret->faults_swapped;
	return 0;
}

static void plain_stats(struct memctl *m, struct memctl_stats *ret)
{
	ret->size = m->vm.size;
	pthread_mutex_lock(&m->leases_lock);
	for (struct memctl_lease *l = m->leases; l; l = l->next)
		ret->leased += l->size;
	pthread_mutex_unlock(&m->leases_lock);
}

int memctl_stats(struct memctl *m, struct memctl_stats *ret, struct memctl_error *e)
{
	struct memctl_stats stats = { 0 };
	struct op_show_vm_in in = { 0 };
	struct op_show_vm_out out = { 0 };
	int r = 0;

	if (!m || !ret || ret->struct_size < sizeof ret->struct_size)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_stats: a NULL argument, or struct_size is not set");
	if (!m->registered)
		return fail(e, -EINVAL, ERROR_INVALID, "no VM is registered on this connection");
	if (m->plain) {
		plain_stats(m, &stats);
	} else {
		memcpy(in.vm, m->vm.name, sizeof in.vm);
		r = call(m, OP_show_vm, &in, -1, &out, NULL, e);
		if (!r)
			r = decode(out.vm, &stats, e);
		op_fields_fini(ops[OP_show_vm].out, &out);
	}
	if (r < 0)
		return r;
	stats.struct_size = ret->struct_size;
	memcpy(ret, &stats, ret->struct_size < sizeof stats ? ret->struct_size : sizeof stats);
	return 0;
}
