#include "mem/direct.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

void direct_init(struct direct *d)
{
	aio_context_t context = 0;

	d->context = syscall(SYS_io_setup, 1, &context) == 0 ? context : 0;
}

void direct_fini(struct direct *d)
{
	if (d->context)
		syscall(SYS_io_destroy, d->context);
	d->context = 0;
}

ssize_t direct_read(struct direct *d, int fd, void *buf, size_t length, off_t offset, unsigned spin_us)
{
	struct iocb block = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd, .aio_buf = (uintptr_t)buf,
		.aio_nbytes = length, .aio_offset = offset }, *blocks = &block;
	struct timespec now = { 0, 0 };
	struct io_event event;
	uint64_t until_ns;
	long n;

	if (!spin_us || !d->context || syscall(SYS_io_submit, d->context, 1, &blocks) != 1)
		return pread(fd, buf, length, offset);
	until_ns = now_ns() + spin_us * NS_PER_US;
	while ((n = syscall(SYS_io_getevents, d->context, 0, 1, &event, &now)) == 0 && now_ns() < until_ns)
		sched_yield();
	/* The kernel has the buffer until the event is here: a signal does not end this wait. */
	while (n != 1)
		n = syscall(SYS_io_getevents, d->context, 1, 1, &event, NULL);
	if (event.res < 0) {
		errno = (int)-event.res;
		return -1;
	}
	return (ssize_t)event.res;
}
