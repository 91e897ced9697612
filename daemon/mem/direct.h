/* A direct read that is waited for in the way that is quicker here: awake, or asleep.
 *
 * A page from disk takes some 40 us, and most of what a guest feels beside that is two sleeps: the thread that reads
 * goes to sleep, its core goes idle, and waking both costs 10 to 20 us.  So the read is submitted (Linux AIO, no library)
 * and asked after in turns with sched_yield: whoever else wants the core gets it, and if nobody does, it is awake
 * when the page comes.  After `spin_us` it sleeps like any other.
 *
 * Not everywhere: under one hypervisor the interrupt seems to reach a core that sleeps sooner than one that is awake.
 * So both ways are timed: they take turns at first, then the quicker one is taken, and the other one is tried now and
 * then, because machines, their load and the thread's core change.
 *
 * Measured, 4 KiB at random, all on one core:		asleep p50, p99 us	awake
 *	a virtual machine, system calls of 0.1 us	62-65, 640-820		43-46, 84-119
 *	one with system calls of 1.4 us, interrupts here	70, 138-163		121, 186-198
 *	the same, interrupts on the other core		81, 300			73, 226
 * Awake takes 16 us more of CPU.  Looking into the ring of completions instead of asking the kernel changes nothing.
 *
 * A struct direct belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct direct {
	unsigned long context;		/* 0: none could be had; reads are plain then */
	uint64_t awake_ns, asleep_ns;	/* what a read takes in each way, about; 0: not known */
	unsigned reads;
};

void direct_init(struct direct *d);
void direct_fini(struct direct *d);
/* As pread; spin_us 0 is pread. */
ssize_t direct_read(struct direct *d, int fd, void *buf, size_t length, off_t offset, unsigned spin_us);

/* A read of several pages from one place. */
struct direct_part {
	off_t offset;
	const struct iovec *pages;
	unsigned count;
	ssize_t result;		/* bytes, or -errno; short if it did not get all */
};
/* All of them, under way at once as far as the kernel takes them; asleep until the last is there. */
void direct_read_parts(struct direct *d, int fd, struct direct_part *parts, unsigned n);

/* The two halves of the choice: whether to wait awake for the next read, and what it took. */
bool direct_choose(struct direct *d);
void direct_learn(struct direct *d, bool awake, uint64_t took_ns);
