/* A metrics database of a test's own, and its numbers: asked here by SQLite directly, as any reader of the file would. */
#pragma once

#include "record/history.h"
#include "record/record.h"

/* Each scenario is a process: it makes a directory of its own, and takes it away. */
extern char dir[64], path[96];
void begin(void);
void end(void);

/* Of a VM: resident_bytes (gauge), faults (counter); of the host: free_bytes (gauge). */
extern const struct record_number vm_numbers[2], host_numbers[1];
struct record_options options(void);
struct record *open_record(const struct record_options *o);
void wait_written(struct record *r, uint64_t rows);
/* Until nothing is due but what `now_ms` lies in; somebody must be at work. */
void wait_rolled_up(uint64_t now_ms);

/* The first number of the answer; there must be one. */
long long ask(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void tell(const char *sql);
/* Files beside it whose names end so: "damaged-*Z" */
size_t kept_aside(const char *end);
