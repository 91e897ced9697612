/* A script, and not a random one: every transition of the page map at least once, on at most 64 pages, by one thread that knows
 * every byte it should have.  memctld is killed at one passage of one of its crash points meanwhile (run --points), and the
 * script goes on as if nothing had been.  memctld has the switch "hasty" (daemon/mem/inject.h): advice dont_need evicts.
 *
 *	scenario NAME [tolerant]	main (main_script.c), clean, budget, handed, lost (the functions below)
 *
 * tolerant: calls may be refused, and what was waited for may not come about; only what a page holds, and that nobody waits for ever,
 * is looked at.  Exit 4: memctld said that the VM is lost.
 *
 * Exit 0: all that was looked at was right, and everything came about; messages of what was not go to stderr. */
#include "tests/crash/script.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
