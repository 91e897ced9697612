#include "mem/direct.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_READS 32u	/* in turns */
#define TRY_OTHER   128u	/* one read in so many goes the slower way */
#define DEPTH	    16u		/* reads under way at once; fs.aio-max-nr is shared by all on the host */

void direct_init(struct direct *d)
{
	aio_context_t context = 0;

	*d = (struct direct){ 0 };
	d->context = syscall(SYS_io_setup, DEPTH, &context) == 0 ? context : 0;
}

void direct_fini(struct direct *d)
{
	if (d->context)
		syscall(SYS_io_destroy, d->context);
	d->context = 0;
}

bool direct_choose(struct direct *d)
{
	unsigned n = d->reads++;
	bool quicker = d->awake_ns < d->asleep_ns;

	if (n < FIRST_READS)
		return n & 1;
	return n % TRY_OTHER ? quicker : !quicker;
}

void direct_learn(struct direct *d, bool awake, uint64_t took_ns)
{
	uint64_t *about = awake ? &d->awake_ns : &d->asleep_ns, step = *about / 16, off;

	/* From the best of the first ones towards the median: a read that something else held up for milliseconds
	 * counts as one that was a little too slow. */
	if (!*about || (d->reads <= FIRST_READS && took_ns < *about)) {
		*about = took_ns;
	} else if (took_ns < *about) {
		off = *about - took_ns;
		*about -= off < step ? off : step;
	} else {
		off = took_ns - *about;
		*about += off < step ? off : step;
	}
}

static ssize_t read_awake(struct direct *d, int fd, void *buf, size_t length, off_t offset, uint64_t until_ns)
{
	struct iocb block = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd, .aio_buf = (uintptr_t)buf,
		.aio_nbytes = length, .aio_offset = offset }, *blocks = &block;
	struct timespec now = { 0, 0 };
	struct io_event event;
	long n;

	if (syscall(SYS_io_submit, d->context, 1, &blocks) != 1)
		return pread(fd, buf, length, offset);
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

ssize_t direct_read(struct direct *d, int fd, void *buf, size_t length, off_t offset, unsigned spin_us)
{
	uint64_t began_ns;
	bool awake;
	ssize_t n;

	if (!spin_us || !d->context)
		return pread(fd, buf, length, offset);
	awake = direct_choose(d);
	began_ns = now_ns();
	n = awake ? read_awake(d, fd, buf, length, offset, began_ns + spin_us * NS_PER_US)
		  : pread(fd, buf, length, offset);
	if (n >= 0)
		direct_learn(d, awake, now_ns() - began_ns);
	return n;
}

static void read_part(int fd, struct direct_part *p)
{
	p->result = preadv(fd, p->pages, (int)p->count, p->offset);
	if (p->result < 0)
		p->result = -errno;
}

void direct_read_parts(struct direct *d, int fd, struct direct_part *parts, unsigned n)
{
	struct iocb blocks[DEPTH], *list[DEPTH];
	struct io_event events[DEPTH];

	for (unsigned at = 0, count; at < n; at += count) {
		long under_way = 0;

		count = n - at < DEPTH ? n - at : DEPTH;
		for (unsigned i = 0; i < count; i++) {
			struct direct_part *p = parts + at + i;

			blocks[i] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PREADV, .aio_fildes = (uint32_t)fd,
				.aio_data = (uintptr_t)p, .aio_buf = (uintptr_t)p->pages, .aio_nbytes = p->count,
				.aio_offset = p->offset };
			list[i] = blocks + i;
		}
		/* one alone gains nothing by being asynchronous */
		if (d->context && n > 1)
			under_way = syscall(SYS_io_submit, d->context, count, list);
		under_way = under_way < 0 ? 0 : under_way;
		for (unsigned i = (unsigned)under_way; i < count; i++)
			read_part(fd, parts + at + i);
		/* The kernel has the buffers until the events are here: a signal does not end this wait. */
		while (under_way > 0) {
			long got = syscall(SYS_io_getevents, d->context, 1, under_way, events, NULL);

			for (long i = 0; i < got; i++)
				((struct direct_part *)(uintptr_t)events[i].data)->result = (ssize_t)events[i].res;
			under_way -= got > 0 ? got : 0;
		}
	}
}
