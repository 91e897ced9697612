#include "tests/unit/restarted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct memctl *m;
struct memctl_lease *l;
struct memctl_error e;
uint64_t *ram;
unsigned notes;
_Atomic int touched;
_Atomic bool stop;
static _Atomic uint64_t seen;

void connect_to_fake(int timeout_ms)
{
	struct memctl_options o = { .struct_size = sizeof o, .timeout_ms = timeout_ms };

	fake = fake_start();
	o.socket = fake->socket;
	CHECK_MSG(memctl_connect(&o, &m, &e) == 0, "%s", e.message);
}

void register_vm(void)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = 256 * MIB };

	CHECK_MSG(memctl_register(m, &vm, &e) == 0, "%s", e.message);
}

void lease(uint64_t size)
{
	CHECK_MSG(memctl_lease(m, 0, size, &l, &e) == 0, "%s", e.message);
	ram = memctl_lease_address(l);
}

void start_within(int timeout_ms)
{
	connect_to_fake(timeout_ms);
	register_vm();
	lease(MIB);
}

void start(void)
{
	start_within(5000);
}

void start_sharing(void)
{
	connect_to_fake(5000);
	strcpy(fake->sharing, "vm");
	register_vm();
	lease(MIB);
	for (unsigned page = 0; page < MIB / PAGE; page++)
		CHECK_EQ(*(volatile uint64_t *)(ram + page * WORDS), page + 1);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
}

void finish(void)
{
	memctl_free(m);
	fake_kill(fake);
}

volatile uint64_t *at(uint64_t page)
{
	return ram + page * WORDS;
}

uint64_t ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void give(const char *text)
{
	CHECK(write(fake->orders, text, strlen(text)) == (ssize_t)strlen(text));
}

void expect_note(const char *text)
{
	const char *note = fake_note(fake, &notes, text);

	CHECK_MSG(note, "no \"%s\"", text);
	CHECK_MSG(!strcmp(note, text), "\"%s\" instead of \"%s\"", note, text);
}

struct memctl_event wait_event(void)
{
	struct memctl_event event = { .struct_size = sizeof event };

	for (unsigned tries = 0; tries < 5000; tries++) {
		if (memctl_next_event(m, &event))
			return event;
		usleep(1000);
	}
	check_fail(__FILE__, __LINE__, "no event");
}

void expect_event(enum memctl_event_kind kind)
{
	struct memctl_event event = wait_event();

	CHECK_MSG(event.kind == kind, "%s instead of %s", memctl_event_name(event.kind), memctl_event_name(kind));
}

void no_event(void)
{
	struct memctl_event event = { .struct_size = sizeof event };

	CHECK_MSG(!memctl_next_event(m, &event), "%s instead of none", memctl_event_name(event.kind));
}

static void *touch_page_9(void *userdata)
{
	(void)userdata;
	touched = 1;
	seen = *at(9);
	touched = 2;
	return NULL;
}

pthread_t start_toucher(void)
{
	pthread_t t;

	touched = 0;
	CHECK_EQ(pthread_create(&t, NULL, touch_page_9, NULL), 0);
	while (!touched)
		usleep(1000);
	usleep(50000);
	CHECK_EQ(touched, 1);
	return t;
}

void expect_touched(pthread_t t, uint64_t value)
{
	for (unsigned tries = 0; touched != 2; tries++) {
		CHECK_MSG(tries < 5000, "page 9 is still waited for");
		usleep(1000);
	}
	pthread_join(t, NULL);
	CHECK_EQ(seen, value);
}

unsigned mappings(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof line, f))
		n += strstr(line, name) != NULL;
	fclose(f);
	return n;
}

void vm_flags(char flags[256])
{
	char line[256], begin[32];
	FILE *f = fopen("/proc/self/smaps", "re");
	bool ours = false;

	flags[0] = 0;
	snprintf(begin, sizeof begin, "%lx-", (unsigned long)ram);
	while (fgets(line, sizeof line, f)) {
		if (!strncmp(line, begin, strlen(begin)))
			ours = true;
		if (ours && !strncmp(line, "VmFlags:", 8)) {
			strcpy(flags, line);
			break;
		}
	}
	fclose(f);
}

void *touch_on_and_on(void *userdata)
{
	uint64_t n = 0;

	(void)userdata;
	while (!stop) {
		uint64_t page = n++ % 200 + 20, value = *at(page);

		if (value != page + 1 || madvise((void *)(uintptr_t)at(page), PAGE, MADV_REMOVE))
			return strdup("a page is wrong");
	}
	return NULL;
}

