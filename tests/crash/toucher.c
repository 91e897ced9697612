/* How long a guest waits when memctld dies: touches absent pages, one after the other, and writes down when each was served.
 *
 *	toucher SOCKET-NAME FILE	until SIGTERM; then exit 0
 *
 * FILE becomes an array of { began, served } in ns of CLOCK_MONOTONIC, after one number: how many there are.  Once there is a
 * page to touch it says "ready".  A page is made absent by punching it out of the lease's memfd: no call to memctld is needed. */
#include "libclient/memctl.h"
#include "tests/torture/view.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE	    4096ull
#define PAGES	    64u
#define PERIOD_NS   1000000
#define TOUCHES_MAX (4u << 20)

struct record {
	_Atomic uint64_t n;
	uint64_t at[TOUCHES_MAX][2];
};

static volatile sig_atomic_t ended;

static void on_term(int sig)
{
	(void)sig;
	ended = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct record *open_record(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	void *m;

	if (fd < 0 || ftruncate(fd, sizeof(struct record)) < 0)
		return NULL;
	m = mmap(NULL, sizeof(struct record), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return m == MAP_FAILED ? NULL : m;
}

int main(int argc, char **argv)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .size = 4 << 20, .reservation = PAGES * PAGE, .sharing = "off" };
	struct memctl_options o = { .struct_size = sizeof o, .timeout_ms = 60000 };
	struct record *r = argc == 3 ? open_record(argv[2]) : NULL;
	struct memctl_lease *lease = NULL;
	struct memctl_error e = { 0 };
	struct memctl *m = NULL;
	volatile uint8_t *ram;
	int fd;

	if (!r) {
		fprintf(stderr, "usage: toucher VM FILE\n");
		return 2;
	}
	vm.name = argv[1];
	signal(SIGTERM, on_term);
	if (memctl_connect(&o, &m, &e) < 0 || memctl_register(m, &vm, &e) < 0 || memctl_lease(m, 0, PAGES * PAGE, &lease, &e) < 0 ||
		memctl_helper_start(m, &e) < 0) {
		fprintf(stderr, "toucher: %s: %s\n", e.name, e.message);
		return 1;
	}
	ram = memctl_lease_address(lease);
	fd = view_find_fd((const void *)ram, PAGES * PAGE);
	printf("ready\n");
	fflush(stdout);
	for (uint64_t i = 0; !ended && i < TOUCHES_MAX; i++) {
		uint64_t page = i % PAGES;

		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE), PAGE) < 0)
			return 1;
		r->at[i][0] = now_ns();
		if (ram[page * PAGE]) {
			fprintf(stderr, "toucher: a page that was punched is not zero\n");
			return 1;
		}
		r->at[i][1] = now_ns();
		r->n = i + 1;
		nanosleep(&(struct timespec){ .tv_nsec = PERIOD_NS }, NULL);
	}
	memctl_release(lease, &e);
	memctl_free(m);
	return 0;
}
