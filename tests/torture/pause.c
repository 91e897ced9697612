/* The library replaces the mappings of an order's runs and then forbids forks to have them: by this madvise, or for several
 * runs by this syscall(SYS_process_madvise).  Here both wait.  The window between the first mmap and the protection or
 * registration that follows is some microseconds long, and writes into it are what sharing must get right; in a pause
 * the word oracle aims at it. */
#include "tests/torture/oracle.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define APART 2	/* from one to the next, so many times as long as they are */

unsigned pause_us;
const uint8_t *_Atomic pause_from, *_Atomic pause_to;
_Atomic uintptr_t pause_address;
_Atomic uint64_t pause_pages;

static void pause_here(const struct iovec *runs, unsigned n)
{
	const struct iovec *longest = NULL;
	static _Atomic uint64_t next;
	struct timespec t;
	uint64_t now;

	for (unsigned i = 0; i < n; i++) {
		const uint8_t *at = runs[i].iov_base;

		if (at >= pause_from && at + runs[i].iov_len <= pause_to &&
			(!longest || runs[i].iov_len > longest->iov_len))
			longest = &runs[i];
	}
	if (!pause_us || !longest)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
	if (now < next)
		return;
	next = now + APART * (uint64_t)pause_us;
	pause_address = (uintptr_t)longest->iov_base;
	pause_pages = longest->iov_len / PAGE;
	usleep(pause_us);
	pause_pages = 0;
}

static long real_syscall(long number, const long *a)
{
	static _Atomic(long (*)(long, ...)) real;

	if (!real)
		real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

__attribute__((visibility("default"))) int madvise(void *address, size_t length, int advice)
{
	if (advice == MADV_DONTFORK)
		pause_here(&(struct iovec){ address, length }, 1);
	return (int)real_syscall(SYS_madvise, (long[6]){ (long)address, (long)length, advice });
}

__attribute__((visibility("default"))) long syscall(long number, ...)
{
	long a[6];
	va_list more;

	va_start(more, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(more, long);
	va_end(more);
	if (number == SYS_process_madvise && a[3] == MADV_DONTFORK)
		pause_here((const struct iovec *)a[1], (unsigned)a[2]);
	return real_syscall(number, a);
}
