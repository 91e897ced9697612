/* A client of a fake daemon that dies and comes back: what the scenarios of several programs do to it. */
#pragma once

#include "libclient/memctl.h"
#include "tests/lib/check.h"
#include "tests/unit/fake_daemon.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAGE  4096u
#define WORDS (PAGE / 8)
#define MIB   (1ull << 20)

extern struct fake *fake;
extern struct memctl *m;
extern struct memctl_lease *l;
extern struct memctl_error e;
extern uint64_t *ram; /* of l */
extern unsigned notes; /* of the fake's, that were looked at */

void connect_to_fake(int timeout_ms);
void register_vm(void);
void lease(uint64_t size);
void start_within(int timeout_ms);
void start(void);
/* With a helper, every page resident. */
void start_sharing(void);
void finish(void);

/* The first word of a page. */
volatile uint64_t *at(uint64_t page);
uint64_t ms(void);
/* To the fake: fake->orders. */
void give(const char *text);
/* The next note that begins so is exactly this. */
void expect_note(const char *text);
/* The next event, within 5 s. */
struct memctl_event wait_event(void);
void expect_event(enum memctl_event_kind kind);
void no_event(void);
/* How many mappings of a file of this name there are. */
unsigned mappings(const char *name);
/* The line of /proc/self/smaps that says how the lease is mapped. */
void vm_flags(char flags[256]);

/* A thread that reads page 9, and waits there. */
extern _Atomic int touched; /* 0 no, 1 begun, 2 done */
pthread_t start_toucher(void);
void expect_touched(pthread_t t, uint64_t value);
/* Threads that go on until `stop` is set: what went wrong, or NULL. */
extern _Atomic bool stop;
void *touch_on_and_on(void *userdata);
