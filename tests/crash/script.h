/* What the scripts of scenario.c are made of: pages of which every byte is known, calls that are made again when memctld was
 * killed meanwhile, and waits for what they cause.  One thread, one VM, one lease. */
#pragma once

#include "libclient/memctl.h"
#include "tests/torture/content.h"

#include <stdbool.h>
#include <stdint.h>

#define PAGE  4096ull
#define PAGES 64u

extern struct memctl *client;
extern struct memctl_lease *lease;
extern uint8_t *ram;			/* of the lease */
extern struct content expect[PAGES];
extern unsigned wrong, errors;		/* pages that were; what else was */
extern bool tolerant;			/* calls may be refused, and what is awaited may not come */

/* Register the VM, and have a lease.  `before_sharing`: parameters of a JoinPool of one's own.  false: that could not be had,
 * which has been counted. */
bool begin(const char *sharing, const char *before_sharing);
void end(void);

/* ---- pages: the first one, how many ---- */

struct content zero(void);
/* What page should hold. */
void make(unsigned page, uint8_t *ret);
/* Write to it, and expect that from now on.  Pages of one kind and `number` are alike. */
void set(unsigned page, enum content_kind kind, uint64_t number);
void like(unsigned page, unsigned other);
void check(unsigned page, const char *when);
void check_all(unsigned first, unsigned count, const char *when);

void will_need(unsigned first, unsigned count);
void populate(unsigned first, unsigned count);
void pin(unsigned first, unsigned count);
void unpin(unsigned first, unsigned count);
void discard(unsigned first, unsigned count);
/* At once (inject.h: hasty), and the pool's frames if one of them is mapped. */
void evict(unsigned first, unsigned count);

/* ---- calls ---- */

/* Count and tell an error of the library. */
void must(int r, const char *what, const struct memctl_error *e);
/* An operator's call.  The reply, to be freed; NULL: it was refused, which has been counted. */
char *ask(const char *method, const char *parameters);
void tune(const char *setting, const char *value);
/* What memctld itself says of its ledger. */
void audit(void);
/* Passes of the sharing scan, from their beginning to their end. */
void scan(void);

/* ---- where pages are ---- */

/* `mapped` counts for "shared" only: from the pool, in this process. */
bool is(unsigned page, const char *state, bool mapped);
/* Until it is so, with passes of the scan.  false: it did not come about, which has been counted. */
bool await(unsigned page, const char *state, bool mapped);
void await_all(unsigned first, unsigned count, const char *state, bool mapped);

/* The script that has every transition in it (main_script.c). */
void run_main(void);
