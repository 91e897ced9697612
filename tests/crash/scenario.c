/* A script, and not a random one: every transition of the page map at least once, on at most 64 pages, by one thread that knows
 * every byte it should have.  memctld is killed at one passage of one of its crash points meanwhile (run --points), and the
 * script goes on as if nothing had been.  memctld has the switch "hasty" (daemon/mem/inject.h): advice dont_need evicts.
 *
 *	scenario NAME [tolerant]	main, clean, budget, handed, lost: see the functions at the end
 *
 * tolerant: calls may be refused, and what was waited for may not come about; only what a page holds, and that nobody waits for ever,
 * is looked at.  Exit 4: memctld said that the VM is lost.
 *
 * Exit 0: all that was looked at was right, and everything came about; messages of what was not go to stderr. */
#include "libclient/memctl.h"
#include "tests/torture/content.h"
#include "tests/torture/view.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE	 4096ull
#define PAGES	 64u
#define AWAIT_S	 20
#define ASK_EVERY 20
#define TOLERANT_TURNS 60
#define ERRORS_MAX 10

static struct memctl *client, *operator;
static struct memctl_lease *lease;
static uint8_t *ram;
static struct content expect[PAGES];
static unsigned wrong, errors;
static bool tolerant;

/* ---- what a page is ---- */

static struct content zero(void)
{
	return (struct content){ .kind = CONTENT_ZERO };
}

static void make(unsigned page, uint8_t *ret)
{
	content_make(ret, &expect[page]);
}

/* Pages of one `number` are alike. */
static void set(unsigned page, enum content_kind kind, uint64_t number)
{
	uint8_t buf[CONTENT_PAGE];

	expect[page] = (struct content){ .seed = 1, .owner = 7, .kind = kind, .page = number, .sequence = 1 };
	make(page, buf);
	memcpy(ram + page * PAGE, buf, PAGE);
}

static void differs(unsigned page, const char *when)
{
	char text[160];

	wrong++;
	content_explain(ram + page * PAGE, &expect[page], text, sizeof text);
	fprintf(stderr, "scenario: page %u %s: %s, expected kind %s number %llu\n", page, when, text,
		content_kind_names[expect[page].kind], (unsigned long long)expect[page].page);
}

static void check(unsigned page, const char *when)
{
	uint8_t buf[CONTENT_PAGE];

	make(page, buf);
	if (memcmp(buf, ram + page * PAGE, PAGE))
		differs(page, when);
}

static void check_all(unsigned first, unsigned count, const char *when)
{
	for (unsigned i = first; i < first + count; i++)
		check(i, when);
}

/* ---- calls ---- */

static void must(int r, const char *what, const struct memctl_error *e)
{
	if (r >= 0)
		return;
	fprintf(stderr, "scenario: %s: %s (%s) %s\n", what, strerror(-r), e->name, e->message);
	if (tolerant)
		return;
	if (++errors > ERRORS_MAX)
		exit(1);
}

#define ON_RANGE(name)                                                                                   \
	static void name(unsigned first, unsigned count)                                                 \
	{                                                                                                \
		struct memctl_error e = { 0 };                                                           \
                                                                                                         \
		must(memctl_##name(lease, first * PAGE, count * PAGE, &e), "memctl_" #name, &e);         \
	}
ON_RANGE(dont_need)
ON_RANGE(will_need)
ON_RANGE(populate)
ON_RANGE(pin)
ON_RANGE(unpin)

static void discard(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };
	int r = memctl_discard(lease, first * PAGE, count * PAGE, &e);

	must(r, "memctl_discard", &e);
	/* refused: for some of them perhaps */
	for (unsigned i = first; i < first + count; i++)
		if (r == 0 || content_is_zero(ram + i * PAGE))
			expect[i] = zero();
}

/* At once (inject.h: hasty). */
static void evict(unsigned first, unsigned count)
{
	dont_need(first, count);
}

/* A connection of its own: what an operator asks is asked again. */
static char *ask(const char *method, const char *parameters)
{
	struct memctl_options o = { .struct_size = sizeof o, .timeout_ms = 10000 };
	struct timespec pause = { .tv_nsec = 2000000 };
	struct memctl_error e = { 0 };
	char *reply = NULL, name[64];
	int r = -ENOTCONN;

	snprintf(name, sizeof name, "org.memctl.%s", method);
	for (unsigned tries = 0; tries < 10000 && r < 0; tries++) {
		if (!operator && memctl_connect(&o, &operator, &e) < 0) {
			nanosleep(&pause, NULL);
			continue;
		}
		r = memctl_call(operator, name, parameters, &reply, &e);
		/* the one before was carried out, though its answer was lost */
		if (r == -ENOENT && tries && !strcmp(method, "ReleaseVm"))
			return NULL;
		/* its client is not back yet */
		if (r == -EBUSY && tries && !strcmp(method, "ReleaseVm")) {
			nanosleep(&pause, NULL);
			continue;
		}
		if (r == 0 || (strcmp(e.name, "org.memctl.Unreachable") && strcmp(e.name, "org.memctl.Timeout")))
			break;
		memctl_free(operator);
		operator = NULL;
		nanosleep(&pause, NULL);
	}
	must(r, method, &e);
	return r < 0 ? NULL : reply;
}

static void tune(const char *setting, const char *value)
{
	char text[200];

	snprintf(text, sizeof text, "{\"setting\":\"%s\",\"value\":\"%s\"}", setting, value);
	free(ask("Tune", text));
}

static void scan(void)
{
	free(ask("ScanVm", "{}"));
}

/* Whether this process has the pool there: its mapping is private. */
static bool is_mapped(unsigned page)
{
	unsigned long long at = (uintptr_t)(ram + page * PAGE), from, to;
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], how = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%llx-%llx %*3c%c", &from, &to, &how) == 3 && from <= at && at < to)
			break;
	if (f)
		fclose(f);
	return how == 'p';
}

static bool is(unsigned page, const char *state, bool mapped)
{
	char text[160], *reply;
	bool yes;

	snprintf(text, sizeof text, "{\"vm\":\"scenario\",\"gpa\":%llu,\"length\":4096}", page * PAGE);
	reply = ask("PageMap", text);
	snprintf(text, sizeof text, "\"state\":\"%s\"", state);
	yes = reply && strstr(reply, text) && !strstr(reply, "\"in_transit\":true") &&
		(strcmp(state, "shared") || is_mapped(page) == mapped);
	free(reply);
	return yes;
}

static void await(unsigned page, const char *state, bool mapped)
{
	time_t end = time(NULL) + AWAIT_S;
	struct timespec pause = { .tv_nsec = 2000000 };

	for (unsigned i = 0; !is(page, state, mapped); i++) {
		if (tolerant && i == TOLERANT_TURNS)
			return;
		if (i % ASK_EVERY == 0)
			scan();
		if (time(NULL) > end) {
			errors++;
			fprintf(stderr, "scenario: page %u did not become %s%s\n", page, mapped ? "mapped and " : "", state);
			return;
		}
		nanosleep(&pause, NULL);
	}
}

static void await_all(unsigned first, unsigned count, const char *state, bool mapped)
{
	for (unsigned i = first; i < first + count; i++)
		await(i, state, mapped);
}

/* What memctld itself says of its ledger. */
static void audit(void)
{
	char *reply = ask("Audit", "{}");

	if (reply && !strstr(reply, "\"ok\":true,\"audit\"") && strncmp(reply, "{\"ok\":true", 10)) {
		errors++;
		fprintf(stderr, "scenario: audit: %s\n", reply);
	}
	free(reply);
}

/* ---- life ---- */

#define EXIT_LOST 4

static _Atomic bool watcher_ends;
static pthread_t watcher;

/* memctld has let go of the VM, and says so: nobody can go on, and whoever touches what is not there waits. */
static void *watch_events(void *arg)
{
	struct memctl_event e = { .struct_size = sizeof e };

	while (!watcher_ends) {
		while (memctl_next_event(arg, &e) == 1)
			if (e.kind == MEMCTL_EVENT_LOST) {
				fprintf(stderr, "scenario: the VM is lost: %u wrong pages until then\n", wrong);
				_exit(wrong ? 1 : EXIT_LOST);
			}
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	return NULL;
}

static void end(void)
{
	struct memctl_error e = { 0 };

	if (lease)
		must(memctl_release(lease, &e), "memctl_release", &e);
	watcher_ends = true;
	if (watcher)
		pthread_join(watcher, NULL);
	memctl_free(client);
	memctl_free(operator);
	client = operator = NULL;
	lease = NULL;
}

static bool begin(const char *sharing, const char *before_sharing)
{
	struct memctl_options o = { .struct_size = sizeof o, .timeout_ms = 60000 };
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "scenario", .size = 4 << 20, .reservation = PAGES * PAGE,
		.sharing = sharing };
	struct memctl_error e = { 0 };
	int r = memctl_connect(&o, &client, &e);

	if (r == 0)
		r = memctl_register(client, &vm, &e);
	if (r == 0)
		r = memctl_lease(client, 0, PAGES * PAGE, &lease, &e);
	if (r == 0 && before_sharing) {
		char *reply = NULL;

		r = memctl_call(client, "org.memctl.JoinPool", before_sharing, &reply, &e);
		free(reply);
	}
	if (r == 0)
		r = memctl_helper_start(client, &e);
	if (tolerant && r == 0)
		r = -pthread_create(&watcher, NULL, watch_events, client);
	must(r, "begin", &e);
	for (unsigned i = 0; i < PAGES; i++)
		expect[i] = zero();
	if (!lease) {
		end();
		return false;
	}
	ram = memctl_lease_address(lease);
	return true;
}

/* ---- parts ---- */

/* What may come of a read: a page of zeros, one by one and in a run. */
static void first_touches(void)
{
	check(63, "at its first touch");
	check_all(0, 4, "at its first touch");
}

/* Out to every place and back from it, by faults alone, by runs, and by calls. */
static void out_and_in(void)
{
	populate(4, 5);
	set(4, CONTENT_TEXT, 4);
	set(5, CONTENT_TEXT, 5);
	set(6, CONTENT_RANDOM, 6);
	set(7, CONTENT_RANDOM, 7);
	set(8, CONTENT_ZERO, 0);
	evict(4, 5);
	await(4, "compressed", false);
	await(6, "swapped", false);
	await(8, "zero", false);
	check_all(4, 5, "after an eviction");
	evict(4, 5);
	set(5, CONTENT_TEXT, 105);
	set(7, CONTENT_RANDOM, 107);
	evict(4, 5);
	populate(4, 1);
	will_need(6, 1);
	discard(5, 1);
	discard(7, 1);
	discard(4, 1);
	discard(8, 1);
	check_all(4, 5, "after a discard");
	set(4, CONTENT_TEXT, 204);
	pin(4, 1);
	evict(4, 1);
	await(4, "resident", false);
	set(4, CONTENT_TEXT, 304);
	unpin(4, 1);
	evict(4, 1);
	await(4, "compressed", false);
	check(4, "after pins");
}

static void like(unsigned page, unsigned other)
{
	set(page, expect[other].kind, expect[other].page);
}

/* Pages that are alike are shared, written to, brought home. */
static void share_and_break(void)
{
	populate(20, 10);
	for (unsigned i = 0; i < 4; i++) {
		set(20 + i, i % 2 ? CONTENT_RANDOM : CONTENT_TEXT, 1000 + i);
		like(24 + i, 20 + i);
	}
	set(28, CONTENT_TEXT, 28);
	await_all(20, 8, "shared", true);
	await(29, "zero", false);
	check_all(20, 9, "when they are shared");
	/* clean, and like nothing: its protection ends */
	set(28, CONTENT_TEXT, 128);
	/* break, and home by itself; what is as before is soon shared again */
	set(20, CONTENT_TEXT, 220);
	set(21, CONTENT_TEXT, 221);
	ram[22 * PAGE + 100] ^= 1;
	ram[22 * PAGE + 100] ^= 1;
	check_all(20, 9, "after a break");
	await_all(20, 2, "resident", false);
	/* home by a pin and by a discard, broken and not */
	set(23, CONTENT_TEXT, 223);
	pin(22, 2);
	check_all(20, 9, "pinned at home");
	unpin(22, 2);
	discard(24, 1);
	check_all(20, 8, "when one that was shared is discarded");
}

/* Evict a page so that it takes a reference to the entry that `other` maps; what is on the disk is not compared with, so its frame
 * must be there, which a restart in between may have changed. */
static void make_cold(unsigned page, unsigned other)
{
	/* after a restart it may have come home, and be shared again only by the next look at it */
	await(other, "shared", true);
	for (unsigned i = 0; i < 200; i++) {
		if (i >= 10)
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL); /* somebody is at the entry: after a restart it may be written away just now */
		check(other, "as the like of another");
		check(page, "before it is cold");
		evict(page, 1);
		if (is(page, "shared", false))
			return;
		/* the scan was quicker, and had it mapped: a write brings it home */
		if (is(page, "shared", true))
			like(page, other);
	}
	errors += !tolerant;
	fprintf(stderr, "scenario: page %u did not become cold\n", page);
}

/* The frames of 25, 26, 27 are taken from all who map them, and come back. */
static void pool_out_and_in(void)
{
	populate(34, 14);
	evict(25, 3);
	check_all(25, 3, "when the pool's frames were taken");
	evict(25, 3);
	/* the break has to bring it back first; so has the mapping of another */
	set(25, CONTENT_TEXT, 325);
	like(34, 26);
	await(34, "shared", true);
	check_all(25, 3, "when the pool's frames came back");
	/* an evicted page that is like one of the pool refers to it and is not mapped */
	like(36, 27);
	make_cold(36, 27);
	check(36, "when it was cold");
	make_cold(36, 27);
	discard(36, 1);
}

/* From the cache to the disk, of the VM and of the pool. */
static void write_back(void)
{
	set(40, CONTENT_TEXT, 40);
	set(41, CONTENT_TEXT, 41);
	evict(40, 2);
	evict(26, 2);
	check(27, "of the pool's swap file");
	await(40, "compressed", false);
	/* a restart forgets what was tuned */
	for (unsigned i = 0; i < 3 && (i == 0 || !is(40, "swapped", false)); i++) {
		tune("MemZipMaxPct", "0");
		set(42, CONTENT_TEXT, 42);
		evict(42, 1);
		evict(26, 2);
	}
	await(40, "swapped", false);
	tune("MemZipMaxPct", "50");
	check(26, "after write-back");
	check_all(40, 3, "after write-back");
	/* its entry has no other reference */
	discard(27, 1);
}

static void inflate(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };
	uint64_t pages[PAGES];
	uint8_t refused[PAGES] = { 0 };
	ssize_t r;

	for (unsigned i = 0; i < count; i++)
		pages[i] = first + i;
	r = memctl_balloon_inflate(lease, pages, count, refused, &e);
	must((int)r, "memctl_balloon_inflate", &e);
	/* what failed is not known, and what was refused may be zeros by now */
	for (unsigned i = 0; i < count; i++)
		if ((r >= 0 && !refused[i]) || content_is_zero(ram + (first + i) * PAGE))
			expect[first + i] = zero();
}

static void deflate(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };
	uint64_t pages[PAGES];

	for (unsigned i = 0; i < count; i++)
		pages[i] = first + i;
	must(memctl_balloon_deflate(lease, pages, count, &e), "memctl_balloon_deflate", &e);
}

/* Pages go into the balloon from where they are, and out of it by a touch, by a deflate, and by a driver that begins anew. */
static void ballooned(void)
{
	struct memctl_error e = { 0 };

	must(memctl_balloon_start(client, &e), "memctl_balloon_start", &e);
	set(56, CONTENT_TEXT, 56);
	set(57, CONTENT_RANDOM, 57);
	evict(57, 1);
	inflate(56, 3);
	await_all(56, 3, "ballooned", false);
	audit();
	check(56, "touched in the balloon");
	await(56, "resident", false);
	set(56, CONTENT_TEXT, 156);
	deflate(56, 2);
	await(57, "zero", false);
	check_all(55, 3, "out of the balloon");
	set(57, CONTENT_TEXT, 157);
	must(memctl_balloon_start(client, &e), "memctl_balloon_start", &e);
	await(58, "zero", false);
	check_all(55, 4, "when its driver began anew");
	/* left as it is */
	inflate(57, 2);
}

/* What a client does that does not keep to the rules: it is corrected, and costs nobody else. */
static void behind_its_back(void)
{
	int fd = view_find_fd(ram, PAGES * PAGE); /* the library's */
	uint8_t buf[CONTENT_PAGE];

	set(45, CONTENT_TEXT, 45);
	set(46, CONTENT_TEXT, 46);
	evict(45, 1);
	/* a page where none was */
	expect[45].page = 145;
	make(45, buf);
	if (fd < 0 || pwrite(fd, buf, PAGE, 45 * PAGE) != PAGE) {
		errors++;
		fprintf(stderr, "scenario: its own memfd cannot be written to\n");
		return;
	}
	/* and none where one was: found by the audit, and by a fault */
	for (unsigned i = 46; i < 48; i++) {
		if (i == 47)
			set(i, CONTENT_TEXT, i);
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i * PAGE), PAGE) < 0)
			errors++;
		expect[i] = zero();
		if (i == 46)
			audit();
		else
			check(i, "punched by its client");
	}
	check_all(44, 4, "changed behind memctld's back");
}

/* Another lease comes and goes, with pages in every place. */
static void tenant(void)
{
	struct memctl_lease *main_lease = lease;
	struct memctl_error e = { 0 };
	struct content kept[4];

	memcpy(kept, expect, sizeof kept);
	lease = NULL;
	must(memctl_lease(client, 1 << 30, 4 * PAGE, &lease, &e), "memctl_lease", &e);
	if (!lease) {
		lease = main_lease;
		return;
	}
	ram = memctl_lease_address(lease);
	populate(0, 4);
	set(0, CONTENT_TEXT, 400);
	set(1, CONTENT_RANDOM, 401);
	like(2, 26);
	set(3, CONTENT_TEXT, 403);
	evict(0, 3);
	check(3, "of the second lease");
	must(memctl_release(lease, &e), "memctl_release", &e);
	lease = main_lease;
	ram = memctl_lease_address(lease);
	memcpy(expect, kept, sizeof kept);
}

/* Its resources change, and are what was said last, whoever was killed in between. */
static void resources(void)
{
	static const char *const reservations[] = { "64K", "256K" };

	for (unsigned i = 0; i < 2; i++) {
		char text[200], *reply;

		snprintf(text, sizeof text, "{\"vm\":\"scenario\",\"reservation\":\"%s\",\"shares\":\"%u\"}", reservations[i], 7 + i);
		free(ask("SetVm", text));
		reply = ask("ShowVm", "{\"vm\":\"scenario\"}");
		snprintf(text, sizeof text, "\"reservation_bytes\":%u,", i ? 256 << 10 : 64 << 10);
		if (reply && !strstr(reply, text)) {
			errors++;
			fprintf(stderr, "scenario: SetVm was forgotten: no %s\n", text);
		}
		free(reply);
	}
}

/* ---- the scripts ---- */

static void run_main(void)
{
	if (!begin("group:crash", NULL))
		return;
	first_touches();
	out_and_in();
	share_and_break();
	pool_out_and_in();
	write_back();
	tenant();
	behind_its_back();
	resources();
	ballooned();
	audit();
	for (unsigned i = 0; i < PAGES; i++)
		if (expect[i].kind != CONTENT_ZERO)
			check(i, "at the end");
	/* left as it is: mapped, broken, cold, compressed, swapped */
	set(26, CONTENT_TEXT, 526);
	set(36, CONTENT_RANDOM, 536);
	evict(36, 6);
	end();
}

/* The cache gets holes until it is worth closing them: blocks are 64 KiB, three quarters of a page is the longest object. */
static void run_clean(void)
{
	if (!begin("off", NULL))
		return;
	tune("MemZipMaxPct", "100");
	tune("MemZipMaxAllocPct", "100");
	for (unsigned round = 0; round < 9; round++) {
		for (unsigned i = 0; i < 40; i++)
			set(i, CONTENT_TEXT, 100 * round + i);
		set(40 + round, CONTENT_TEXT, 40 + round);
		evict(0, 41 + round);
		populate(0, 40);
	}
	for (unsigned round = 0; round < 4; round++) {
		evict(0, 40);
		populate(0, 40);
	}
	check_all(0, PAGES, "after cleaning");
	audit();
	end();
}

/* What to say to JoinPool for a budget of `budget` mappings: memctld leaves a client a quarter of what the kernel allows. */
static const char *maps_but(unsigned budget)
{
	static char text[64];
	unsigned long most = 65530;
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");

	if (f && fscanf(f, "%lu", &most) != 1)
		errors++;
	if (f)
		fclose(f);
	snprintf(text, sizeof text, "{\"maps\":%lu}", most / 4 * 3 - budget);
	return text;
}

/* A client with hardly a mapping to spare: what does not fit is not shared. */
static void run_budget(void)
{
	if (!begin("group:crash", maps_but(8)))
		return;
	populate(0, PAGES);
	/* runs that are alike, each in mappings of its own */
	for (unsigned i = 0; i + 4 < PAGES; i += 6)
		for (unsigned k = 0; k < 4; k++)
			set(i + k, CONTENT_TEXT, 100 + k);
	for (unsigned i = 0; i < 200; i++) {
		const struct timespec passes = { .tv_nsec = 10000000 };
		char *reply = ask("ShowVm", "{\"vm\":\"scenario\"}");
		bool some = reply && !strstr(reply, "\"share_budget_pages\":0");

		free(reply);
		if (some)
			break;
		scan();
		nanosleep(&passes, NULL);
	}
	check_all(0, PAGES, "when some are shared");
	audit();
	end();
}

/* memctld lets the VM go: pages come from every place, and are plain memory from then on. */
static void run_handed(void)
{
	char *reply;

	if (!begin("group:crash", NULL))
		return;
	populate(0, 16);
	set(0, CONTENT_TEXT, 10);
	set(1, CONTENT_RANDOM, 11);
	set(2, CONTENT_TEXT, 12);
	for (unsigned i = 3; i < 9; i++)
		set(i, CONTENT_TEXT, 20 + i % 3);
	await_all(3, 6, "shared", true);
	set(3, CONTENT_TEXT, 103);
	set(9, CONTENT_TEXT, 21);
	evict(0, 2);
	evict(9, 1);
	evict(6, 1);
	reply = ask("ReleaseVm", "{\"vm\":\"scenario\"}");
	free(reply);
	check_all(0, PAGES, "handed over");
	for (unsigned i = 0; i < 12; i++)
		set(i, CONTENT_TEXT, 300 + i);
	check_all(0, PAGES, "written to when it was plain");
	discard(3, 1);
	check_all(0, PAGES, "discarded when it was plain");
	for (unsigned i = 0; i < 1000 && !memctl_is_plain(client, NULL); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	if (!memctl_is_plain(client, NULL)) {
		errors++;
		fprintf(stderr, "scenario: its memory is not called plain\n");
	}
	end();
}

static sigjmp_buf bus;

static void on_bus(int sig)
{
	siglongjmp(bus, sig);
}

/* true: the machine check that is due to whoever touches it. */
static bool is_gone(unsigned page)
{
	volatile bool gone = true;

	if (!sigsetjmp(bus, 1)) {
		check(page, "that was lost");
		gone = false;
	}
	return gone;
}

/* With cache_corrupt: compressed pages are lost, and only these. */
static void run_lost(void)
{
	signal(SIGBUS, on_bus);
	if (!begin("group:crash", NULL))
		return;
	set(0, CONTENT_TEXT, 10);
	set(1, CONTENT_RANDOM, 11);
	for (unsigned i = 2; i < 6; i++)
		set(i, CONTENT_TEXT, 20);
	await_all(2, 4, "shared", true);
	evict(0, 2);
	for (unsigned i = 0; i < 2; i++)
		if (!is_gone(0)) {
			errors++;
			fprintf(stderr, "scenario: page 0 is there, though what was stored of it is damaged\n");
		}
	check(1, "beside a lost one");
	evict(2, 4);
	evict(2, 4);
	for (unsigned i = 2; i < 6; i++)
		if (!is_gone(i)) {
			errors++;
			fprintf(stderr, "scenario: page %u is there, though what the pool stored is damaged\n", i);
		}
	check(1, "beside lost ones");
	end();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} scripts[] = { { "main", run_main }, { "clean", run_clean }, { "budget", run_budget },
		{ "handed", run_handed }, { "lost", run_lost } };

	tolerant = argc == 3 && !strcmp(argv[2], "tolerant");
	for (unsigned i = 0; argc == 2 + tolerant && i < sizeof scripts / sizeof *scripts; i++) {
		if (strcmp(argv[1], scripts[i].name))
			continue;
		scripts[i].run();
		if (wrong || errors)
			fprintf(stderr, "scenario: %u wrong pages, %u errors\n", wrong, errors);
		return wrong || errors;
	}
	fprintf(stderr, "usage: scenario main|clean|budget|handed|lost [tolerant]\n");
	return 2;
}
