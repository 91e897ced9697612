/* An emulator that knows every byte it should have: the client of the torture.
 *
 * One lease of `size` less an eighth is split between two oracles, whole pages (ground.c) and words (words.c);
 * a second lease of the last eighth comes and goes (tenant.c).  What is expected lies outside the leases.
 * With --common the contents of many pages are equal, across VMs and inside one, and with --phase-ms the word oracle makes
 * pages equal by agreement, so that there is something to share; what is expected is known of each page as before.
 * Everything random follows from --seed, --owner and the number of the thread.
 *
 * Lines on stdin steer it, JSON lines on stdout answer; messages go to stderr:
 *
 *	(start)   {"event":"ready"}, then {"event":"filled"} when all pages were written once
 *	stop      threads end, every page and word is verified: {"event":"report", ...}
 *	count     {"event":"count","wrong":N}: differences seen so far, whatever the threads wait for
 *	view      {"event":"view","unregistered":N,"mappings":N,"data":[[page,count],...]} of the first lease
 *	quit, EOF release everything and exit: 0, or 1 if a byte was wrong or a call failed
 */
#include "tests/torture/oracle.h"
#include "tests/torture/view.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COMPLAINTS_MAX 24

static _Atomic unsigned complaints;
static _Atomic uint64_t wrongs;

void oracle_wrong(const struct oracle *o, const char *during, uint64_t page, const char *found, const char *expected)
{
	wrongs++;
	if (atomic_fetch_add(&complaints, 1) < COMPLAINTS_MAX)
		fprintf(stderr, "oracle %u: page %" PRIu64 " %s: found %s; expected %s\n", o->owner, page, during, found,
			expected);
}

void oracle_error(struct worker *w, const char *call, const struct memctl_error *e, int r)
{
	w->tally.errors++;
	if (atomic_fetch_add(&complaints, 1) < COMPLAINTS_MAX)
		fprintf(stderr, "oracle: %s: %s (%s) %s\n", call, strerror(r < 0 ? -r : EIO), e ? e->name : "",
			e ? e->message : "");
}

struct task {
	struct oracle *o;
	struct worker *w;
	enum { TASK_WORK, TASK_TENANT, TASK_VERIFY } what;
	uint64_t tenant_size;
	pthread_barrier_t *filled;
};

static void *run_task(void *userdata)
{
	struct task *t = userdata;
	struct oracle *o = t->o;
	struct worker *w = t->w;

	if (t->what == TASK_TENANT) {
		tenant_run(o, w, 1ull << 40, t->tenant_size);
	} else if (t->what == TASK_VERIFY) {
		ground_verify(o, w, &o->ground, w->index, o->threads);
		words_verify(o, w);
	} else {
		ground_fill(o, w, &o->ground, w->index, o->threads);
		pthread_barrier_wait(t->filled);
		if (o->phase_ms && !w->index)
			words_needle(o, w);
		while (!o->stop) {
			if (random_below(&w->rng, 2))
				ground_step(o, w, &o->ground);
			else
				words_step(o, w);
			if (o->rest_us)
				usleep(o->rest_us);
		}
	}
	return NULL;
}

static void start(struct task *t, struct oracle *o, struct worker *w, int what)
{
	t->o = o;
	t->w = w;
	t->what = what;
	if (pthread_create(&w->thread, NULL, run_task, t)) {
		fprintf(stderr, "oracle %u: no thread\n", o->owner);
		exit(1);
	}
}

static void report(const struct oracle *o, const struct worker *w)
{
	static const struct {
		const char *name;
		size_t at;
	} fields[] = {
#define FIELD(name) { #name, offsetof(struct tally, name) }
		FIELD(verified_pages), FIELD(wrong_pages), FIELD(verified_words), FIELD(wrong_words), FIELD(writes),
		FIELD(discards), FIELD(sweeps), FIELD(populates), FIELD(hints), FIELD(zaps), FIELD(pins),
		FIELD(pins_refused), FIELD(inflates), FIELD(inflated), FIELD(balloon_refused), FIELD(deflates), FIELD(balloon_starts),
		FIELD(reads_into), FIELD(writes_from), FIELD(system_calls), FIELD(leases),
		FIELD(resets), FIELD(pokes), FIELD(errors),
#undef FIELD
	};

	printf("{\"event\":\"report\"");
	for (unsigned f = 0; f < sizeof fields / sizeof *fields; f++) {
		uint64_t sum = 0;

		for (unsigned i = 0; i <= o->threads; i++)
			sum += *(const uint64_t *)((const char *)&w[i].tally + fields[f].at);
		printf(",\"%s\":%" PRIu64, fields[f].name, sum);
	}
	printf("}\n");
}

static int view(const struct oracle *o)
{
	uint64_t size = memctl_lease_size(o->ground.lease);
	void *addr = memctl_lease_address(o->ground.lease);
	unsigned mappings = 0;
	int64_t unregistered = view_unregistered(addr, size, &mappings);
	int fd = view_find_fd(addr, size);

	if (unregistered < 0 || fd < 0) {
		fprintf(stderr, "oracle %u: cannot look at the own lease: %s\n", o->owner,
			strerror((int)-(fd < 0 ? fd : unregistered)));
		return -1;
	}
	printf("{\"event\":\"view\",\"mappings\":%u,\"unregistered\":%" PRId64 ",\"data\":", mappings, unregistered);
	if (view_print_data(stdout, fd, size / PAGE) < 0)
		return -1;
	printf("}\n");
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: oracle --name NAME [--owner N] [--seed N] [--size BYTES] [--reservation BYTES] "
			"[--limit BYTES] [--threads N] [--sharing HOW] [--common PERCENT] [--phase-ms N] [--pause-us N] [--rest-us N] "
			"[--plain] [--no-tenant] [--quiet]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "name", 1, NULL, 'n' }, { "owner", 1, NULL, 'o' },
		{ "seed", 1, NULL, 's' }, { "size", 1, NULL, 'z' }, { "reservation", 1, NULL, 'r' },
		{ "limit", 1, NULL, 'l' }, { "threads", 1, NULL, 't' }, { "plain", 0, NULL, 'p' },
		{ "sharing", 1, NULL, 'S' }, { "common", 1, NULL, 'c' }, { "phase-ms", 1, NULL, 'h' },
		{ "pause-us", 1, NULL, 'u' },
		{ "rest-us", 1, NULL, 'R' }, { "no-tenant", 0, NULL, 'T' }, { "quiet", 0, NULL, 'q' }, { 0 } };
	struct memctl_options connect = { .struct_size = sizeof connect, .timeout_ms = 120000 };
	struct memctl_vm vm = { .struct_size = sizeof vm, .size = 72ull << 20 };
	struct memctl_lease *lease = NULL;
	struct oracle o = { .threads = 4, .seed = 1 };
	struct worker *workers;
	struct task tasks[THREADS_MAX + 1] = { 0 };
	struct memctl_error e = { 0 };
	pthread_barrier_t filled;
	bool tenant = true, stopped = false;
	uint64_t tenant_size, pages, wrong = 0;
	char line[64];
	int c, status = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
		switch (c) {
		case 'n': vm.name = optarg; break;
		case 'o': o.owner = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 's': o.seed = strtoull(optarg, NULL, 0); break;
		case 'z': vm.size = strtoull(optarg, NULL, 0); break;
		case 'r': vm.reservation = strtoull(optarg, NULL, 0); break;
		case 'l': vm.limit = strtoull(optarg, NULL, 0); break;
		case 't': o.threads = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'S': vm.sharing = optarg; break;
		case 'c': o.common = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'h': o.phase_ms = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'R': o.rest_us = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'u': pause_us = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'p': connect.plain_fallback = 1; break;
		case 'T': tenant = false; break;
		case 'q': complaints = COMPLAINTS_MAX; break;	/* a twin: wrong bytes are expected */
		default: return usage();
		}
	if (!vm.name || !o.threads || o.threads > THREADS_MAX || vm.size / PAGE < 512)
		return usage();
	setvbuf(stdout, NULL, _IOLBF, 0);

	tenant_size = tenant ? vm.size / 8 / PAGE * PAGE : 0;
	pages = (vm.size - tenant_size) / PAGE;
	workers = calloc(o.threads + 1, sizeof *workers);
	if (!workers || memctl_connect(&connect, &o.client, &e) < 0 || memctl_register(o.client, &vm, &e) < 0 ||
		memctl_lease(o.client, 0, pages * PAGE, &lease, &e) < 0 || memctl_balloon_start(o.client, &e) < 0 || memctl_helper_start(o.client, &e) < 0) {
		fprintf(stderr, "oracle %u: %s: %s\n", o.owner, e.name, e.message);
		return 1;
	}
	o.full = memctl_fault_handling(o.client) == MEMCTL_FAULTS_FULL;
	o.zaps = !memctl_is_plain(o.client, NULL) && vm.sharing && !strcmp(vm.sharing, "off");
	o.words_pages = pages / 4;
	o.words_offset = (pages - o.words_pages) * PAGE;
	o.words = (uint8_t *)memctl_lease_address(lease) + o.words_offset;
	if (ground_init(&o.ground, lease, 0, pages - o.words_pages, 0) < 0)
		return 1;
	pthread_barrier_init(&filled, NULL, o.threads + 1);
	printf("{\"event\":\"ready\",\"faults\":\"%s\",\"pages\":%" PRIu64 "}\n",
		memctl_fault_handling_name(memctl_fault_handling(o.client)), pages);
	for (unsigned i = 0; i <= o.threads; i++) {
		struct worker *w = &workers[i];

		w->index = i;
		w->rng = o.seed * 1000003 + o.owner * 1009 + i;
		random_next(&w->rng);
		w->scratch = memfd_create("scratch", MFD_CLOEXEC);
		tasks[i].filled = &filled;
		tasks[i].tenant_size = tenant_size;
		if (w->scratch < 0 || (i < o.threads && words_init(&o, w) < 0))
			return 1;
		if (i < o.threads)
			start(&tasks[i], &o, w, TASK_WORK);
		else if (tenant)
			start(&tasks[i], &o, w, TASK_TENANT);
	}
	pthread_barrier_wait(&filled);
	printf("{\"event\":\"filled\"}\n");

	while (fgets(line, sizeof line, stdin) && strcmp(line, "quit\n")) {
		if (!strcmp(line, "stop\n") && !stopped) {
			o.stop = stopped = true;
			for (unsigned i = 0; i < o.threads + tenant; i++)
				pthread_join(workers[i].thread, NULL);
			for (unsigned i = 0; i < o.threads; i++)
				start(&tasks[i], &o, &workers[i], TASK_VERIFY);
			for (unsigned i = 0; i < o.threads; i++)
				pthread_join(workers[i].thread, NULL);
			report(&o, workers);
		} else if (!strcmp(line, "count\n")) {
			printf("{\"event\":\"count\",\"wrong\":%" PRIu64 "}\n", wrongs);
		} else if (!strcmp(line, "view\n") && view(&o) < 0) {
			status = 1;
		}
	}
	o.stop = true;
	for (unsigned i = 0; !stopped && i < o.threads + tenant; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i <= o.threads; i++) {
		wrong += workers[i].tally.wrong_pages + workers[i].tally.errors;
		words_fini(&workers[i]);
		close(workers[i].scratch);
	}
	ground_fini(&o.ground);
	free(workers);
	if (memctl_release(lease, &e) < 0) {
		fprintf(stderr, "oracle %u: release: %s\n", o.owner, e.message);
		status = 1;
	}
	memctl_free(o.client);
	return wrong ? 1 : status;
}
