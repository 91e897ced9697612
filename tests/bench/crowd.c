/* Many VMs in one process: what it costs to have so many of them.
 *
 *	crowd SOCKET NAME		VMs are called NAME-0, NAME-1, ...
 *
 *	vms COUNT MIB TOUCHED		register so many more, each with a lease of MIB that TOUCHED pages of are written to; MIB 0:
 *					registered only.  Replies with the time that it took
 *	fault THREADS PAGES		by so many threads, each in a VM of its own (again from the first, if there are more): write
 *					that many pages that are not there yet, each another one.  Wall time, and the latencies
 *	verify				compare the pages written to
 *	quit
 */
#include "content.h"
#include "libclient/memctl.h"
#include "measure.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#define VMS_MOST     1024
#define THREADS_MOST 64

static struct {
	const char *socket, *name;
	struct vm {
		struct memctl *memctl;
		struct memctl_lease *lease;
		uint32_t pages, written;	/* of these the first are written to */
	} vms[VMS_MOST];
	uint32_t n;
} g;

static volatile uint64_t *word_of(const struct vm *vm, uint32_t page)
{
	return (volatile uint64_t *)((char *)memctl_lease_address(vm->lease) + page * PAGE_BYTES);
}

static void one_more(uint64_t mib, uint32_t touched)
{
	struct memctl_options options = { .struct_size = sizeof options, .socket = g.socket, .timeout_ms = 120000 };
	struct vm *vm = &g.vms[g.n];
	char name[32];
	struct memctl_vm keys = { .struct_size = sizeof keys, .name = name, .size = mib << 20 };
	struct memctl_error e = { 0 };

	if (g.n == VMS_MOST)
		die("more than %d VMs", VMS_MOST);
	snprintf(name, sizeof name, "%s-%u", g.name, g.n);
	if (!mib)
		keys.size = 1 << 20;	/* promised, and never leased */
	if (memctl_connect(&options, &vm->memctl, &e) < 0 || memctl_register(vm->memctl, &keys, &e) < 0 ||
		(mib && (memctl_lease(vm->memctl, 0, mib << 20, &vm->lease, &e) < 0 || memctl_helper_start(vm->memctl, &e) < 0)))
		die("VM %u: %s: %s", g.n, e.name, e.message);
	vm->pages = (uint32_t)(mib << 20 >> 12);
	for (; vm->written < touched && vm->written < vm->pages; vm->written++)
		*word_of(vm, vm->written) = vm->written + 1;
	g.n++;
}

static void add(uint32_t count, uint64_t mib, uint32_t touched)
{
	uint64_t wall = now_ns(), cpu = cpu_ns();

	for (uint32_t i = 0; i < count; i++)
		one_more(mib, touched);
	printf("{\"vms\":%u,\"seconds\":%.9f,\"cpu_s\":%.9f}\n", g.n, (double)(now_ns() - wall) / 1e9,
		(double)(cpu_ns() - cpu) / 1e9);
	fflush(stdout);
}

struct faulter {
	pthread_t id;
	struct vm *vm;
	uint32_t first, count;
	struct samples samples;
};

static void *faulting(void *arg)
{
	struct faulter *f = arg;

	for (uint32_t i = f->first; i < f->first + f->count; i++) {
		uint64_t before = now_ns();

		*word_of(f->vm, i) = i + 1;
		samples_add(&f->samples, (double)(now_ns() - before) / 1000);
	}
	return NULL;
}

static void fault(uint32_t threads, uint32_t pages)
{
	struct faulter faulters[THREADS_MOST] = { 0 };
	struct samples all = { 0 };
	uint64_t wall, cpu;
	char more[96];

	if (!threads || threads > THREADS_MOST || !g.n)
		die("%u threads, %u VMs", threads, g.n);
	for (uint32_t i = 0; i < threads; i++) {
		struct vm *vm = &g.vms[i % g.n];

		faulters[i] = (struct faulter){ .vm = vm, .first = vm->written, .count = pages };
		if (vm->pages - vm->written < pages)
			die("%u pages are left", vm->pages - vm->written);
		vm->written += pages;
	}
	wall = now_ns();
	cpu = cpu_ns();
	for (uint32_t i = 0; i < threads; i++)
		if (pthread_create(&faulters[i].id, NULL, faulting, &faulters[i]))
			die("thread");
	for (uint32_t i = 0; i < threads; i++)
		pthread_join(faulters[i].id, NULL);
	snprintf(more, sizeof more, ",\"seconds\":%.9f,\"cpu_s\":%.9f", (double)(now_ns() - wall) / 1e9,
		(double)(cpu_ns() - cpu) / 1e9);
	for (uint32_t i = 0; i < threads; i++) {
		for (size_t k = 0; k < faulters[i].samples.n; k++)
			samples_add(&all, faulters[i].samples.v[k]);
		free(faulters[i].samples.v);
	}
	samples_reply(&all, more);
	free(all.v);
}

static void verify(void)
{
	uint64_t pages = 0, wrong = 0;

	for (uint32_t i = 0; i < g.n; i++)
		for (uint32_t p = 0; p < g.vms[i].written; p++, pages++)
			wrong += *word_of(&g.vms[i], p) != p + 1;
	printf("{\"pages\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", pages, wrong);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[512], *w[WORDS_MAX];
	unsigned n;

	if (argc != 3)
		die("usage: crowd SOCKET NAME");
	follow_parent();
	g.socket = argv[1];
	g.name = argv[2];
	printf("{\"ok\":true}\n");
	fflush(stdout);
	while ((n = command_read(line, sizeof line, w))) {
		if (!strcmp(w[0], "vms") && n == 4)
			add((uint32_t)number(w[1]), number(w[2]), (uint32_t)number(w[3]));
		else if (!strcmp(w[0], "fault") && n == 3)
			fault((uint32_t)number(w[1]), (uint32_t)number(w[2]));
		else if (!strcmp(w[0], "verify") && n == 1)
			verify();
		else if (strcmp(w[0], "quit"))
			die("unknown command %s with %u words", w[0], n);
		else
			break;
	}
	for (uint32_t i = 0; i < g.n; i++)
		memctl_free(g.vms[i].memctl);
	return 0;
}
