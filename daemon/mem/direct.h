/* A direct read that is waited for by looking at it instead of sleeping.
 *
 * A page from disk takes some 40 us, and most of what a guest feels beside that is two sleeps: the thread that reads
 * goes to sleep, its core goes idle, and waking both costs 10 to 20 us.  So the read is submitted (Linux AIO, no library)
 * and asked after in turns with sched_yield: whoever else wants the core gets it, and if nobody does, it is awake
 * when the page comes.  After `spin_us` it sleeps like any other.
 *
 * Measured on one core, 4 KiB at random: pread 62-65 us p50, 640-820 p99, 30 us of CPU; this 43-46, 84-119, 46-48.
 *
 * A context belongs to one thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct direct {
	unsigned long context;	/* 0: none could be had; reads are plain then */
};

void direct_init(struct direct *d);
void direct_fini(struct direct *d);
/* As pread; spin_us 0 is pread. */
ssize_t direct_read(struct direct *d, int fd, void *buf, size_t length, off_t offset, unsigned spin_us);
