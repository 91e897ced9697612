#include "tests/crash/script.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define AWAIT_S	       20
#define ASK_EVERY      5
#define PASSES	       3u	/* of the scan, when it is asked for one */
#define LOOKS_MAX      100u
#define TOLERANT_TURNS 60
#define ERRORS_MAX     10

struct memctl *client;
struct memctl_lease *lease;
uint8_t *ram;
struct content expect[PAGES];
unsigned wrong, errors;
bool tolerant;
static struct memctl *operator;

/* ---- what a page is ---- */

struct content zero(void)
{
	return (struct content){ .kind = CONTENT_ZERO };
}

void make(unsigned page, uint8_t *ret)
{
	content_make(ret, &expect[page]);
}

void set(unsigned page, enum content_kind kind, uint64_t number)
{
	uint8_t buf[CONTENT_PAGE];

	expect[page] = (struct content){ .seed = 1, .owner = 7, .kind = kind, .page = number, .sequence = 1 };
	make(page, buf);
	memcpy(ram + page * PAGE, buf, PAGE);
}

void like(unsigned page, unsigned other)
{
	set(page, expect[other].kind, expect[other].page);
}

static void differs(unsigned page, const char *when)
{
	char text[160];

	wrong++;
	content_explain(ram + page * PAGE, &expect[page], text, sizeof text);
	fprintf(stderr, "scenario: page %u %s: %s, expected kind %s number %llu\n", page, when, text,
		content_kind_names[expect[page].kind], (unsigned long long)expect[page].page);
}

void check(unsigned page, const char *when)
{
	uint8_t buf[CONTENT_PAGE];

	make(page, buf);
	if (memcmp(buf, ram + page * PAGE, PAGE))
		differs(page, when);
}

void check_all(unsigned first, unsigned count, const char *when)
{
	for (unsigned i = first; i < first + count; i++)
		check(i, when);
}

/* ---- calls ---- */

void must(int r, const char *what, const struct memctl_error *e)
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
	void name(unsigned first, unsigned count)                                                        \
	{                                                                                                \
		struct memctl_error e = { 0 };                                                           \
                                                                                                         \
		must(memctl_##name(lease, first * PAGE, count * PAGE, &e), "memctl_" #name, &e);         \
	}
ON_RANGE(will_need)
ON_RANGE(populate)
ON_RANGE(pin)
ON_RANGE(unpin)

void discard(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };
	int r = memctl_discard(lease, first * PAGE, count * PAGE, &e);

	must(r, "memctl_discard", &e);
	/* refused: for some of them perhaps */
	for (unsigned i = first; i < first + count; i++)
		if (r == 0 || content_is_zero(ram + i * PAGE))
			expect[i] = zero();
}

void evict(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };

	must(memctl_dont_need(lease, first * PAGE, count * PAGE, &e), "memctl_dont_need", &e);
}

/* A connection of its own: what an operator asks is asked again. */
char *ask(const char *method, const char *parameters)
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

void tune(const char *setting, const char *value)
{
	char text[200];

	snprintf(text, sizeof text, "{\"setting\":\"%s\",\"value\":\"%s\"}", setting, value);
	free(ask("Tune", text));
}

/* Passes of the scan that there were in memctld's life. */
static unsigned long long passes(void)
{
	char *reply = ask("ShowVm", "{\"vm\":\"scenario\"}"), *at = reply ? strstr(reply, "\"scan_passes\":") : NULL;
	unsigned long long n = at ? strtoull(at + strlen("\"scan_passes\":"), NULL, 10) : 0;

	free(reply);
	return n;
}

/* From their beginning to their end, so that the scan and the script never meet: it would be another script each time, and what
 * was to be evicted would have been mapped.  A restart forgets that it was asked. */
void scan(void)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	unsigned long long before = passes(), last = before, now;

	free(ask("ScanVm", "{}"));
	for (unsigned still = 0; still < LOOKS_MAX; still++, last = now) {
		nanosleep(&pause, NULL);
		now = passes();
		if (now < before || (now == last && now >= before + PASSES))
			return;
		still = now == last ? still : 0;
	}
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

bool is(unsigned page, const char *state, bool mapped)
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

bool await(unsigned page, const char *state, bool mapped)
{
	time_t end = time(NULL) + AWAIT_S;
	struct timespec pause = { .tv_nsec = 2000000 };

	for (unsigned i = 0; !is(page, state, mapped); i++) {
		if (tolerant && i == TOLERANT_TURNS)
			return false;
		if (i % ASK_EVERY == 0)
			scan();
		if (time(NULL) > end) {
			errors++;
			fprintf(stderr, "scenario: page %u did not become %s%s\n", page, mapped ? "mapped and " : "", state);
			return false;
		}
		nanosleep(&pause, NULL);
	}
	return true;
}

void await_all(unsigned first, unsigned count, const char *state, bool mapped)
{
	for (unsigned i = first; i < first + count; i++)
		await(i, state, mapped);
}

void audit(void)
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

void end(void)
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

bool begin(const char *sharing, const char *before_sharing)
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
