/* A client that does as it is told: one command a line on stdin, one answer a line on stdout, "ok ..." or
 * "err ERRNO NAME message".  tests/system/puppet.py drives it; what a page holds is foretold by
 * tests/torture/content.h from (seed, owner, page, sequence, kind), so content needs no copy.
 *
 * L is the number of a lease (0, 1 ... in the order they were taken), FIRST and COUNT are pages of it. A touch
 * of a poisoned page is answered "err 7 sigbus". */
#include "libclient/memctl.h"
#include "tests/torture/content.h"
#include "tests/torture/view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE	    4096ull
#define LEASES_MAX  16
#define WORDS_MAX   12
#define HAMMERS_MAX 4

struct hammer {
	pthread_t thread;
	_Atomic uint64_t *word;	/* one word of each page */
	uint64_t *last, pages, rounds, wrong;
	_Atomic bool stop;
	bool running;
};

static struct memctl *client;
static struct memctl_lease *leases[LEASES_MAX];
static unsigned leases_n;
static struct hammer hammers[HAMMERS_MAX];
static int scratch = -1;
static uint32_t owner;
static bool owner_given;
static char sharing[80];

static sigjmp_buf bus_return;
static volatile sig_atomic_t bus_guarded;

static void on_bus(int sig)
{
	if (!bus_guarded)
		_exit(99);
	siglongjmp(bus_return, sig);
}

/* ---- words of a command ---- */

static uint64_t number(char **w, unsigned i)
{
	return w[i] ? strtoull(w[i], NULL, 0) : 0;
}

static struct memctl_lease *lease_of(char **w)
{
	uint64_t n = number(w, 1);

	return n < leases_n ? leases[n] : NULL;
}

static uint8_t *address(char **w)
{
	return (uint8_t *)memctl_lease_address(lease_of(w)) + number(w, 2) * PAGE;
}

/* SEED KIND after L FIRST COUNT, and for fill and check the number that the first page goes by: pages are alike that go
 * by one number. */
static struct content content_of(char **w, uint64_t page)
{
	int kind = w[5] ? content_kind_find(w[5]) : CONTENT_TEXT;

	if (w[5] && w[6] && w[6][0] >= '0' && w[6][0] <= '9')
		page = number(w, 6) + page - number(w, 2);

	return (struct content){ .seed = number(w, 4), .owner = owner, .page = page,
		.kind = kind < 0 ? content_mix(page + number(w, 4)) : (uint32_t)kind };
}

static int lease_fd_of(char **w)
{
	return view_find_fd(memctl_lease_address(lease_of(w)), memctl_lease_size(lease_of(w)));
}

/* ---- commands: 0 if they answered, or -errno with *e ---- */

static int do_register(char **w, struct memctl_error *e)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = w[1], .size = number(w, 2),
		.reservation = number(w, 3), .limit = number(w, 4), .swap_dir = w[4] ? w[5] : NULL,
		.sharing = sharing[0] ? sharing : NULL };
	int r = memctl_register(client, &vm, e);

	if (!owner_given)
		owner = (uint32_t)strlen(w[1]) << 8 | (uint8_t)w[1][strlen(w[1]) - 1];
	return r < 0 ? r : (puts("ok"), 0);
}

/* What the VM asks for when it is registered. */
static int do_sharing(char **w, struct memctl_error *e)
{
	snprintf(sharing, sizeof sharing, "%s", w[1]);
	puts("ok");
	return 0;
}

/* Whose content it writes, instead of its own: that of several puppets is to be alike. */
static int do_owner(char **w, struct memctl_error *e)
{
	owner = (uint32_t)number(w, 1);
	owner_given = true;
	puts("ok");
	return 0;
}

/* What `fill` would write, into a file: for clients that are not puppets. */
static int do_save(char **w, struct memctl_error *e)
{
	int fd = open(w[7], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	uint8_t page[CONTENT_PAGE];

	if (fd < 0)
		return -errno;
	for (uint64_t i = 0; i < number(w, 3); i++) {
		struct content c = content_of(w, number(w, 2) + i);

		content_make(page, &c);
		if (pwrite(fd, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE) {
			close(fd);
			return -EIO;
		}
	}
	close(fd);
	puts("ok");
	return 0;
}

/* So many mappings more, each of a page, as a large program has them. */
static int do_mappings(char **w, struct memctl_error *e)
{
	uint64_t n = number(w, 1);
	uint8_t *at = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	for (uint64_t i = 0; i < n; i += 2)
		if (mprotect(at + i * PAGE, PAGE, PROT_READ) < 0)
			return -errno;
	puts("ok");
	return 0;
}

static int do_helper(char **w, struct memctl_error *e)
{
	int r = memctl_helper_start(client, e);

	return r < 0 ? r : (puts("ok"), 0);
}

static int do_faults(char **w, struct memctl_error *e)
{
	printf("ok %s\n", memctl_fault_handling_name(memctl_fault_handling(client)));
	return 0;
}

static int do_lease(char **w, struct memctl_error *e)
{
	int r;

	if (leases_n == LEASES_MAX)
		return -EMFILE;
	r = memctl_lease(client, number(w, 1), number(w, 2), &leases[leases_n], e);
	if (r < 0)
		return r;
	printf("ok %u\n", leases_n++);
	return 0;
}

static int do_release(char **w, struct memctl_error *e)
{
	int r = memctl_release(lease_of(w), e);

	leases[number(w, 1)] = NULL;
	return r < 0 ? r : (puts("ok"), 0);
}

static int do_fill(char **w, struct memctl_error *e)
{
	uint8_t page[CONTENT_PAGE];

	for (uint64_t i = 0; i < number(w, 3); i++) {
		struct content c = content_of(w, number(w, 2) + i);

		content_make(page, &c);
		memcpy(address(w) + i * PAGE, page, PAGE);
	}
	puts("ok");
	return 0;
}

/* Answer how many pages of `at` differ from the command's content, and how the first does. */
static void answer_check(char **w, const uint8_t *at)
{
	uint8_t page[CONTENT_PAGE], found[CONTENT_PAGE];
	char why[160] = "";
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < number(w, 3); i++) {
		struct content c = content_of(w, number(w, 2) + i);

		content_make(page, &c);
		memcpy(found, at + i * PAGE, PAGE);
		if (memcmp(found, page, PAGE) && !wrong++) {
			int n = snprintf(why, sizeof why, "page %" PRIu64 ": ", c.page);

			content_explain(found, &c, why + n, (unsigned)sizeof why - (unsigned)n);
		}
	}
	printf("ok %" PRIu64 " %s\n", wrong, why);
}

static int do_check(char **w, struct memctl_error *e)
{
	answer_check(w, address(w));
	return 0;
}

/* r: read one byte of each page; w: write one, the byte that is to be there, without reading it first */
static int do_touch(char **w, struct memctl_error *e)
{
	bool write = w[6] && w[6][0] == 'w';
	uint8_t page[CONTENT_PAGE];
	uint64_t sum = 0;

	for (uint64_t i = 0; i < number(w, 3); i++) {
		volatile uint8_t *at = address(w) + i * PAGE + 1000;
		struct content c = content_of(w, number(w, 2) + i);

		content_make(page, &c);
		if (write)
			*at = page[1000];
		else
			sum += *at;
	}
	printf("ok %" PRIu64 "\n", sum);
	return 0;
}

static int do_range(char **w, struct memctl_error *e)
{
	static const struct {
		const char *name;
		int (*call)(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
	} calls[] = { { "will_need", memctl_will_need }, { "dont_need", memctl_dont_need }, { "discard", memctl_discard },
		{ "populate", memctl_populate }, { "pin", memctl_pin }, { "unpin", memctl_unpin } };
	int r = -ENOSYS;

	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(w[0], calls[i].name))
			r = calls[i].call(lease_of(w), number(w, 2) * PAGE, number(w, 3) * PAGE, e);
	return r < 0 ? r : (puts("ok"), 0);
}

/* "ok" how many were taken or had been in the balloon, and the pages that were refused. */
static int do_balloon(char **w, struct memctl_error *e)
{
	uint64_t n = number(w, 3), *pages = calloc(n ? n : 1, sizeof *pages);
	uint8_t *refused = calloc(n ? n : 1, 1);
	ssize_t r = -ENOMEM;

	for (uint64_t i = 0; pages && i < n; i++)
		pages[i] = number(w, 2) + i;
	if (pages && refused && !strcmp(w[0], "inflate"))
		r = memctl_balloon_inflate(lease_of(w), pages, n, refused, e);
	else if (pages && refused)
		r = memctl_balloon_deflate(lease_of(w), pages, n, e);
	if (r >= 0) {
		printf("ok %zd", r);
		for (uint64_t i = 0; i < n; i++)
			if (refused[i])
				printf(" %" PRIu64, pages[i]);
		puts("");
	}
	free(pages);
	free(refused);
	return r < 0 ? (int)r : 0;
}

static int do_balloon_start(char **w, struct memctl_error *e)
{
	int r = memctl_balloon_start(client, e);

	return r < 0 ? r : (puts("ok"), 0);
}

static int do_balloon_target(char **w, struct memctl_error *e)
{
	printf("ok %" PRIu64 "\n", memctl_balloon_target(client));
	return 0;
}

/* Drop the mapping of the pages, not the pages. */
static int do_zap(char **w, struct memctl_error *e)
{
	if (madvise(address(w), number(w, 3) * PAGE, MADV_DONTNEED) < 0)
		return -errno;
	puts("ok");
	return 0;
}

/* What the memfd holds, by pread: the number of pages that are not zero, and the first of them in words. */
static int do_fd_read(char **w, struct memctl_error *e)
{
	struct content none = { 0 };
	uint8_t page[CONTENT_PAGE];
	char why[160] = "";
	uint64_t n = 0;
	int fd = lease_fd_of(w);

	for (uint64_t i = 0; i < number(w, 3); i++) {
		if (pread(fd, page, PAGE, (off_t)((number(w, 2) + i) * PAGE)) != (ssize_t)PAGE)
			return -errno;
		if (!content_is_zero(page) && !n++)
			content_explain(page, &none, why, sizeof why);
	}
	printf("ok %" PRIu64 " %s\n", n, why);
	return 0;
}

/* Misdeeds: write to the memfd, or punch it, behind the daemon's back. */
static int do_fd_write(char **w, struct memctl_error *e)
{
	uint8_t page[CONTENT_PAGE];
	int fd = lease_fd_of(w);

	for (uint64_t i = 0; i < number(w, 3); i++) {
		struct content c = content_of(w, number(w, 2) + i);

		content_make(page, &c);
		if (pwrite(fd, page, PAGE, (off_t)(c.page * PAGE)) != (ssize_t)PAGE)
			return -errno;
	}
	puts("ok");
	return 0;
}

static int do_fd_punch(char **w, struct memctl_error *e)
{
	if (fallocate(lease_fd_of(w), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(number(w, 2) * PAGE),
		    (off_t)(number(w, 3) * PAGE)) < 0)
		return -errno;
	puts("ok");
	return 0;
}

/* Room in the memfd that nothing was written to: neither a hole nor data. */
static int do_fd_allocate(char **w, struct memctl_error *e)
{
	if (fallocate(lease_fd_of(w), 0, (off_t)(number(w, 2) * PAGE), (off_t)(number(w, 3) * PAGE)) < 0)
		return -errno;
	puts("ok");
	return 0;
}

static struct {
	pthread_t thread;
	int fd;
	void *source;
} holder;

static void *hold(void *arg)
{
	/* as little as may change something: nothing, if it ever succeeds */
	if (pwrite(holder.fd, holder.source, 1, 0) < 0)
		return NULL;
	return NULL;
}

/* Hold the memfd's lock, until the end: by a write of its first byte out of a page that nobody ever fills. */
static int do_fd_hold(char **w, struct memctl_error *e)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	int device = uffd < 0 ? open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) : -1;

	if (device >= 0) {
		uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
		close(device);
	}
	holder.source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)holder.source;
	reg.range.len = PAGE;
	if (uffd < 0 || holder.source == MAP_FAILED || ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	holder.fd = lease_fd_of(w);
	if (pthread_create(&holder.thread, NULL, hold, NULL))
		return -EAGAIN;
	/* it is there when its fault is */
	if (poll(&(struct pollfd){ .fd = uffd, .events = POLLIN }, 1, 10000) != 1)
		return -ETIMEDOUT;
	puts("ok");
	return 0;
}

static int do_data(char **w, struct memctl_error *e)
{
	int fd = lease_fd_of(w);

	if (fd < 0)
		return fd;
	fputs("ok ", stdout);
	view_print_data(stdout, fd, memctl_lease_size(lease_of(w)) / PAGE);
	puts("");
	return 0;
}

static int do_smaps(char **w, struct memctl_error *e)
{
	unsigned mappings = 0;
	int64_t r = view_unregistered(memctl_lease_address(lease_of(w)), memctl_lease_size(lease_of(w)), &mappings);

	if (r < 0)
		return (int)r;
	printf("ok %" PRId64 " %u\n", r, mappings);
	return 0;
}

/* The pages' content from a file into the lease, by read(2) or by the library. */
static int do_in(char **w, struct memctl_error *e)
{
	bool direct = !strcmp(w[0], "sys_in");
	uint64_t length = number(w, 3) * PAGE, done = 0;
	uint8_t page[CONTENT_PAGE];

	for (uint64_t i = 0; i < number(w, 3); i++) {
		struct content c = content_of(w, number(w, 2) + i);

		content_make(page, &c);
		if (pwrite(scratch, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE)
			return -errno;
	}
	while (done < length) {
		ssize_t r = direct ? pread(scratch, address(w) + done, length - done, (off_t)done)
				   : memctl_read_into(lease_of(w), number(w, 2) * PAGE + done, length - done, scratch,
					     (off_t)done);

		if (r <= 0)
			return direct && r < 0 ? -errno : r < 0 ? (int)r : -EIO;
		done += (uint64_t)r;
	}
	puts("ok");
	return 0;
}

/* The other way, and answer as `check` does. */
static int do_out(char **w, struct memctl_error *e)
{
	bool direct = !strcmp(w[0], "sys_out");
	uint64_t length = number(w, 3) * PAGE, done = 0;
	uint8_t *copy;

	while (done < length) {
		ssize_t r = direct ? pwrite(scratch, address(w) + done, length - done, (off_t)done)
				   : memctl_write_from(lease_of(w), number(w, 2) * PAGE + done, length - done, scratch,
					     (off_t)done);

		if (r <= 0)
			return direct && r < 0 ? -errno : r < 0 ? (int)r : -EIO;
		done += (uint64_t)r;
	}
	copy = malloc(length);
	if (!copy || pread(scratch, copy, length, 0) != (ssize_t)length) {
		free(copy);
		return -EIO;
	}
	answer_check(w, copy);
	free(copy);
	return 0;
}

static void *hammer_run(void *userdata)
{
	struct hammer *h = userdata;

	while (!h->stop) {
		for (uint64_t i = 0; i < h->pages && !h->stop; i++) {
			_Atomic uint64_t *word = h->word + i * (PAGE / sizeof *word);

			h->wrong += atomic_load_explicit(word, memory_order_relaxed) != h->last[i];
			atomic_store_explicit(word, ++h->last[i], memory_order_relaxed);
		}
		h->rounds++;
	}
	return NULL;
}

/* A thread of its own adds to one word of each page, which must be zero before, and checks it each time. */
static int do_hammer(char **w, struct memctl_error *e)
{
	for (unsigned i = 0; i < HAMMERS_MAX; i++) {
		struct hammer *h = &hammers[i];

		if (h->running)
			continue;
		*h = (struct hammer){ .pages = number(w, 3), .running = true,
			.word = (_Atomic uint64_t *)(void *)(address(w) + 2048) + i };
		h->last = calloc(h->pages, sizeof *h->last);
		if (!h->last || pthread_create(&h->thread, NULL, hammer_run, h))
			return -ENOMEM;
		printf("ok %u\n", i);
		return 0;
	}
	return -EMFILE;
}

static int do_rest(char **w, struct memctl_error *e)
{
	struct hammer *h = &hammers[number(w, 1) % HAMMERS_MAX];

	if (!h->running)
		return -EINVAL;
	h->stop = true;
	pthread_join(h->thread, NULL);
	for (uint64_t i = 0; i < h->pages; i++)
		h->wrong += atomic_load(h->word + i * (PAGE / sizeof *h->word)) != h->last[i];
	free(h->last);
	h->running = false;
	printf("ok %" PRIu64 " %" PRIu64 "\n", h->wrong, h->rounds);
	return 0;
}

/* The next event, within so many ms: its name ("none") and for how long nobody was served. */
static int do_event(char **w, struct memctl_error *e)
{
	struct memctl_event event = { .struct_size = sizeof event };
	int r = memctl_next_event(client, &event);

	for (uint64_t left = number(w, 1); !r && left; left--) {
		usleep(1000);
		r = memctl_next_event(client, &event);
	}
	if (r < 0)
		return r;
	printf("ok %s %" PRIu64 "\n", r ? memctl_event_name(event.kind) : "none", event.stalled_ms);
	return 0;
}

static int do_dispatch(char **w, struct memctl_error *e)
{
	int r = memctl_dispatch(client, e);

	return r < 0 ? r : (printf("ok %d\n", r), 0);
}

static int do_stalled(char **w, struct memctl_error *e)
{
	printf("ok %" PRIu64 "\n", memctl_stalled_ms(client));
	return 0;
}

/* Whether memctld manages this memory no more, and why. */
static int do_plain(char **w, struct memctl_error *e)
{
	const char *why;
	int plain = memctl_is_plain(client, &why);

	printf("ok %d %s\n", plain, why);
	return 0;
}

static const struct command {
	const char *name;
	unsigned words;	/* it needs, its own name included */
	bool lease;	/* the first is a lease */
	int (*run)(char **w, struct memctl_error *e);
} commands[] = {
	{ "register", 3, false, do_register },	/* NAME SIZE [RESERVATION [LIMIT [SWAP_DIR]]] */
	{ "sharing", 2, false, do_sharing },	/* off, zero, vm, group:NAME; before register */
	{ "owner", 2, false, do_owner },	/* NUMBER */
	{ "mappings", 2, false, do_mappings },	/* NUMBER */
	{ "helper", 1, false, do_helper },
	{ "faults", 1, false, do_faults },
	{ "lease", 3, false, do_lease },	/* GPA SIZE -> L */
	{ "release", 2, true, do_release },	/* L */
	{ "fill", 6, true, do_fill },		/* L FIRST COUNT SEED KIND (or mix) [AS] */
	{ "check", 6, true, do_check },		/* the same -> WRONG why */
	{ "save", 8, false, do_save },		/* the same and FILE */
	{ "touch", 7, true, do_touch },		/* the same and r or w -> sum of the bytes read */
	{ "will_need", 4, true, do_range },	/* L FIRST COUNT */
	{ "dont_need", 4, true, do_range },
	{ "discard", 4, true, do_range },
	{ "populate", 4, true, do_range },
	{ "pin", 4, true, do_range },
	{ "unpin", 4, true, do_range },
	{ "balloon_start", 1, false, do_balloon_start },
	{ "balloon_target", 1, false, do_balloon_target },	/* -> BYTES */
	{ "inflate", 4, true, do_balloon },	/* L FIRST COUNT -> TAKEN and the pages that were refused */
	{ "deflate", 4, true, do_balloon },
	{ "zap", 4, true, do_zap },
	{ "fd_read", 4, true, do_fd_read },	/* L FIRST COUNT -> pages that are not zero */
	{ "fd_write", 6, true, do_fd_write },	/* L FIRST COUNT SEED KIND */
	{ "fd_punch", 4, true, do_fd_punch },
	{ "fd_allocate", 4, true, do_fd_allocate },
	{ "fd_hold", 2, true, do_fd_hold },
	{ "data", 2, true, do_data },		/* L -> [[page, count], ...] */
	{ "smaps", 2, true, do_smaps },		/* L -> unregistered pages, mappings */
	{ "sys_in", 6, true, do_in },		/* L FIRST COUNT SEED KIND */
	{ "sys_out", 6, true, do_out },		/* -> WRONG why */
	{ "lib_in", 6, true, do_in },
	{ "lib_out", 6, true, do_out },
	{ "hammer", 4, true, do_hammer },	/* L FIRST COUNT -> H */
	{ "rest", 2, false, do_rest },		/* H -> WRONG ROUNDS */
	{ "event", 1, false, do_event },	/* [MS] -> NAME (disconnected, ... none) STALLED_MS */
	{ "dispatch", 1, false, do_dispatch },	/* -> orders */
	{ "stalled", 1, false, do_stalled },	/* -> MS */
	{ "plain", 1, false, do_plain },	/* -> 0 or 1, why */
};

static void carry_out(char **w, unsigned n)
{
	struct memctl_error e = { 0 };
	int r = -ENOSYS;

	for (unsigned i = 0; n && i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(w[0], commands[i].name)) {
			bool bad = n < commands[i].words || (commands[i].lease && !lease_of(w));

			bus_guarded = 1;
			r = bad ? -EINVAL : commands[i].run(w, &e);
		}
	bus_guarded = 0;
	if (r < 0)
		printf("err %d %s %s\n", -r, e.name[0] ? e.name : "-", e.message[0] ? e.message : strerror(-r));
}

static unsigned split(char *line, char **words)
{
	char *save = NULL;
	unsigned n = 0;

	for (char *t = strtok_r(line, " \n", &save); t && n < WORDS_MAX; t = strtok_r(NULL, " \n", &save))
		words[n++] = t;
	words[n] = NULL;
	return n;
}

int main(void)
{
	const char *timeout = getenv("PUPPET_TIMEOUT_MS");
	struct memctl_options options = { .struct_size = sizeof options, .timeout_ms = timeout ? atoi(timeout) : 120000 };
	struct sigaction bus = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };
	struct memctl_error e = { 0 };
	char line[512], *words[WORDS_MAX + 1] = { NULL };

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGBUS, &bus, NULL);
	scratch = memfd_create("scratch", MFD_CLOEXEC);
	if (scratch < 0 || memctl_connect(&options, &client, &e) < 0) {
		printf("err 1 %s %s\n", e.name, e.message);
		return 1;
	}
	puts("ok");
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "quit\n"))
			break;
		/* A jump from a signal skips what a command had still to free: puppets are short-lived. */
		if (sigsetjmp(bus_return, 1))
			puts("err 7 sigbus the page is poisoned");
		else
			carry_out(words, split(line, words));
	}
	for (unsigned i = 0; i < HAMMERS_MAX; i++)
		if (hammers[i].running) {
			hammers[i].stop = true;
			pthread_join(hammers[i].thread, NULL);
			free(hammers[i].last);
		}
	for (unsigned i = 0; i < leases_n; i++)
		if (leases[i])
			memctl_release(leases[i], &e);
	memctl_free(client);
	close(scratch);
	return 0;
}
