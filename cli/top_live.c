/* How it is now: two questions to memctld, and what has grown since the sample before.
 *
 * Rates are made of counters that one memctld kept: after a restart, and of a VM that came anew under its old name, they are unknown for one
 * sample, never wrong. */
#include "cli/top.h"

#include <math.h>
#include <memctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define VM_LEVEL(name)	 [TOP_##name] = { #name, false },
#define VM_COUNTER(name) [TOP_##name] = { #name, true },
#define HOST_LEVEL(name)
const struct top_number_row top_numbers[TOP_NUMBERS] = {
#include "cli/top_numbers.def"
};
#undef VM_LEVEL
#undef VM_COUNTER
#undef HOST_LEVEL

#define VM_LEVEL(name)
#define VM_COUNTER(name)
#define HOST_LEVEL(name) [HOST_##name] = #name,
const char *const top_host_numbers[HOST_NUMBERS] = {
#include "cli/top_numbers.def"
};
#undef VM_LEVEL
#undef VM_COUNTER
#undef HOST_LEVEL

void top_sample_free(struct top_sample *s)
{
	if (!s)
		return;
	free(s->vms);
	free(s);
}

struct top_vm *top_find(const struct top_sample *s, const char *name)
{
	for (size_t i = 0; s && i < s->n_vms; i++)
		if (!strcmp(s->vms[i].name, name))
			return &s->vms[i];
	return NULL;
}

double top_sum(const struct top_sample *s, enum top_number number)
{
	double sum = 0;

	for (size_t i = 0; i < s->n_vms; i++)
		if (!isnan(s->vms[i].n[number]))
			sum += s->vms[i].n[number];
		else if (top_numbers[number].counter && s->interval_s == 0)
			return NAN;
	return sum;
}

static void read_vm(const struct value *row, struct top_vm *vm)
{
	snprintf(vm->name, sizeof vm->name, "%s", value_str(row, "name"));
	snprintf(vm->state, sizeof vm->state, "%s", value_str(row, "state"));
	for (unsigned i = 0; i < TOP_NUMBERS; i++) {
		uint64_t n;
		bool there = value_number(value_at(row, top_numbers[i].name), &n);

		vm->raw[i] = there ? n : 0;
		vm->n[i] = there && !top_numbers[i].counter ? (double)n : NAN;
	}
}

static void read_host(const struct value *status, struct top_sample *s)
{
	for (unsigned i = 0; i < HOST_NUMBERS; i++) {
		char path[64];
		uint64_t n;

		snprintf(path, sizeof path, "host.%s", top_host_numbers[i]);
		s->host[i] = value_number(value_at(status, path), &n) ? (double)n : NAN;
	}
	snprintf(s->state, sizeof s->state, "%s", value_str(status, "state"));
	s->pid = value_u64(status, "pid", 0);
	s->uptime_s = value_u64(status, "uptime_s", 0);
	if (value_items(value_at(status, "warnings"))) {
		char *text = value_words(value_item(value_at(status, "warnings"), 0));

		snprintf(s->warning, sizeof s->warning, "%s", text ? text : "");
		free(text);
	}
}

/* A counter that fell began anew. */
static void add_rates(const struct top_sample *before, struct top_sample *s)
{
	if (!before || before->pid != s->pid || s->at_s <= before->at_s)
		return;
	s->interval_s = s->at_s - before->at_s;
	for (size_t k = 0; k < s->n_vms; k++) {
		struct top_vm *vm = &s->vms[k];
		/* the list keeps its order */
		const struct top_vm *was = k < before->n_vms && !strcmp(before->vms[k].name, vm->name) ? &before->vms[k] :
			top_find(before, vm->name);

		for (unsigned i = 0; was && i < TOP_NUMBERS; i++)
			if (top_numbers[i].counter && vm->raw[i] >= was->raw[i])
				vm->n[i] = (double)(vm->raw[i] - was->raw[i]) / s->interval_s;
	}
}

static int gather(struct cli *c, const char *vm, struct value **ret_status, struct value **ret_vms, char why[static 320])
{
	int r = cli_try(c, "org.memctl.Status", NULL, ret_status, why);

	if (!r)
		r = cli_try(c, "org.memctl.ListVms", NULL, ret_vms, why);
	if (!r && vm && !value_keep(*ret_vms, "vms", "name", vm)) {
		snprintf(why, 320, "there is no VM \"%s\"", vm);
		return EXIT_NOT_FOUND;
	}
	return r;
}

int top_live(struct cli *c, const char *vm, const struct top_sample *before, struct top_sample **ret, char why[static 320])
{
	struct value *status = NULL, *list = NULL;
	const struct value *rows;
	struct top_sample *s = NULL;
	struct timespec t;
	int r = gather(c, vm, &status, &list, why);

	if (!r) {
		rows = value_at(list, "vms");
		s = calloc(1, sizeof *s);
		if (s)
			s->vms = calloc(value_items(rows) + 1, sizeof *s->vms);
		if (!s || !s->vms) {
			snprintf(why, 320, "out of memory");
			r = EXIT_SYSTEM;
		}
	}
	if (!r) {
		clock_gettime(CLOCK_REALTIME, &t);
		s->ts_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
		clock_gettime(CLOCK_MONOTONIC, &t);
		s->at_s = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
		read_host(value_at(status, "status"), s);
		s->n_vms = value_items(rows);
		for (size_t i = 0; i < s->n_vms; i++)
			read_vm(value_item(rows, i), &s->vms[i]);
		add_rates(before, s);
		*ret = s;
		s = NULL;
	} else if (r != EXIT_NOT_FOUND) {
		cli_hang_up(c);
	}
	top_sample_free(s);
	value_close(status);
	value_close(list);
	return r;
}
