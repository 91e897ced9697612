/* The bare userfaultfd round trip: what a fault costs when the handler has nothing to decide.
 *
 * A client process faults on a MAP_SHARED memfd that is registered MISSING; a handler in another process, on
 * the same core, reads the event by a blocking read and fills the page by UFFDIO_COPY into the client.  With
 * `zstd LEVEL` the handler decompresses the page first, from compressed pages that lie one after the other.  With `wp`
 * the pages are there, and write-protected; the handler lifts that.
 *
 *	trip CORPUS CPU		commands: zero N | zstd N LEVEL | wp N | quit */
#include "content.h"
#include "measure.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#define REGION_PAGES 16384u

struct packed {
	uint8_t *bytes;
	uint32_t *offsets;	/* REGION_PAGES + 1 */
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set) < 0)
		die("pin to core %d", cpu);
}

static void pack(struct packed *p, const struct content *c, int level)
{
	size_t bound = ZSTD_compressBound(PAGE_BYTES), at = 0;
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	uint8_t page[PAGE_BYTES];
	uint32_t source = 0;

	p->bytes = malloc(REGION_PAGES * bound);
	p->offsets = malloc((REGION_PAGES + 1) * sizeof *p->offsets);
	if (!ctx || !p->bytes || !p->offsets)
		die("memory for compressed pages");
	for (uint32_t i = 0; i < REGION_PAGES; i++) {
		size_t n;

		while (content_is_zero(c, source))
			source++;
		content_fill(c, source++, page);
		n = ZSTD_compressCCtx(ctx, p->bytes + at, bound, page, PAGE_BYTES, level);
		if (ZSTD_isError(n))
			die("zstd: %s", ZSTD_getErrorName(n));
		p->offsets[i] = (uint32_t)at;
		at += n;
	}
	p->offsets[REGION_PAGES] = (uint32_t)at;
	ZSTD_freeCCtx(ctx);
}

/* Only `packed` tells whether there is something to decompress. */
static _Noreturn void handle(int uffd, const uint8_t *client, const struct packed *packed)
{
	static uint8_t page[PAGE_BYTES] __attribute__((aligned(4096)));
	ZSTD_DCtx *ctx = ZSTD_createDCtx();

	follow_parent();
	for (;;) {
		struct uffd_msg m;
		struct uffdio_copy copy = { .src = (uintptr_t)page, .len = PAGE_BYTES };

		if (read(uffd, &m, sizeof m) != sizeof m || m.event != UFFD_EVENT_PAGEFAULT)
			die("read of an event");
		copy.dst = m.arg.pagefault.address & ~(PAGE_BYTES - 1);
		if (m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			struct uffdio_writeprotect lift = { .range = { copy.dst, PAGE_BYTES } };

			if (ioctl(uffd, UFFDIO_WRITEPROTECT, &lift) < 0)
				die("UFFDIO_WRITEPROTECT");
			continue;
		}
		if (packed) {
			size_t i = (copy.dst - (uintptr_t)client) / PAGE_BYTES;

			if (ZSTD_decompressDCtx(ctx, page, PAGE_BYTES, packed->bytes + packed->offsets[i],
				    packed->offsets[i + 1] - packed->offsets[i]) != PAGE_BYTES)
				die("zstd");
		}
		if (ioctl(uffd, UFFDIO_COPY, &copy) < 0)
			die("UFFDIO_COPY");
	}
}

static void protect(int uffd, uint8_t *m, size_t bytes)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)m, bytes }, .mode = UFFDIO_WRITEPROTECT_MODE_WP
	};

	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) < 0)
		die("UFFDIO_WRITEPROTECT");
}

static void run(size_t n, const struct packed *packed, bool protected, enum access access)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC), fd = memfd_create("trip", MFD_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct samples s = { 0 };
	uint32_t *order = malloc(REGION_PAGES * sizeof *order);
	size_t bytes = REGION_PAGES * PAGE_BYTES;
	uint8_t *m;
	pid_t pid;

	if (protected) {
		api.features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
		reg.mode |= UFFDIO_REGISTER_MODE_WP;
	}
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		die("userfaultfd");
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || !order)
		die("memfd");
	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		die("mmap");
	madvise(m, bytes, MADV_NOHUGEPAGE);
	if (protected)
		memset(m, 2, bytes);
	reg.range.start = (uintptr_t)m;
	reg.range.len = bytes;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		die("UFFDIO_REGISTER");
	if (protected)
		protect(uffd, m, bytes);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		handle(uffd, m, packed);
	for (uint32_t i = 0; i < REGION_PAGES; i++)
		order[i] = i;
	shuffle(order, REGION_PAGES, 7);
	usleep(20000);
	touch_timed(m, order, n < REGION_PAGES ? n : REGION_PAGES, access, &s);
	samples_reply(&s, "");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	munmap(m, bytes);
	close(fd);
	close(uffd);
	free(order);
	free(s.v);
}

int main(int argc, char **argv)
{
	char line[256], *words[WORDS_MAX];
	struct packed packed = { 0 };
	struct content c;
	int packed_level = 0;

	if (argc != 3)
		die("usage: trip CORPUS CPU");
	follow_parent();
	pin((int)number(argv[2]));
	content_open(&c, argv[1], "0", REGION_PAGES * 2);
	printf("{\"ok\":true}\n");
	fflush(stdout);
	while (command_read(line, sizeof line, words)) {
		if (!strcmp(words[0], "zero")) {
			run(number(words[1]), NULL, false, ACCESS_WRITE);
		} else if (!strcmp(words[0], "wp")) {
			run(number(words[1]), NULL, true, ACCESS_WRITE);
		} else if (!strcmp(words[0], "zstd")) {
			int level = atoi(words[2] ? words[2] : "1");

			if (!packed.bytes || level != packed_level) {
				free(packed.bytes);
				free(packed.offsets);
				pack(&packed, &c, level);
				packed_level = level;
			}
			run(number(words[1]), &packed, false, ACCESS_READ);
		} else {
			break;
		}
	}
	return 0;
}
