/* The library against a daemon that obeys the test (fake_daemon.h): what it promises, and what it must bear.
 */
#include "libclient/memctl.h"
#include "tests/lib/check.h"
#include "tests/unit/fake_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u
#define MIB  (1ull << 20)

static struct fake *fake;
static struct memctl *m;
static struct memctl_lease *l;
static struct memctl_error e;
static uint64_t *ram; /* of l */

static void connect_to_fake(int timeout_ms)
{
	struct memctl_options o = { .struct_size = sizeof o, .timeout_ms = timeout_ms };

	fake = fake_start();
	o.socket = fake->socket;
	CHECK_MSG(memctl_connect(&o, &m, &e) == 0, "%s", e.message);
}

static void register_vm(void)
{
	struct memctl_vm vm = {
		.struct_size = sizeof vm, .name = "a", .size = 256 * MIB, .limit = MEMCTL_NO_LIMIT
	};

	CHECK_MSG(memctl_register(m, &vm, &e) == 0, "%s", e.message);
}

static void lease(uint64_t size)
{
	CHECK_MSG(memctl_lease(m, 0, size, &l, &e) == 0, "%s", e.message);
	ram = memctl_lease_address(l);
}

static void start(uint64_t size)
{
	connect_to_fake(0);
	register_vm();
	lease(size);
}

static void finish(void)
{
	memctl_free(m);
	fake_kill(fake);
}

static uint64_t word(uint64_t page)
{
	return ((volatile uint64_t *)ram)[page * (PAGE / 8)];
}

/* The line of /proc/self/smaps that says how the lease is mapped. */
static void vm_flags(char flags[256])
{
	char line[256], begin[32];
	FILE *f = fopen("/proc/self/smaps", "re");
	bool ours = false;

	flags[0] = 0;
	snprintf(begin, sizeof begin, "%lx-", (unsigned long)ram);
	while (fgets(line, sizeof line, f)) {
		if (!strncmp(line, begin, strlen(begin)))
			ours = true;
		if (ours && !strncmp(line, "VmFlags:", 8)) {
			strcpy(flags, line);
			break;
		}
	}
	fclose(f);
}

static void lease_is_served(void)
{
	static const char *const wanted[] = { "rd", "wr", "sh", "um", "uw", "dc", "dd", "nh" };
	unsigned from = 0, any = 0;
	char flags[256];

	start(4 * MIB);
	CHECK((uintptr_t)ram % (2 * MIB) == 0);
	CHECK_EQ(memctl_lease_size(l), 4 * MIB);
	CHECK_EQ(word(0), 1);
	CHECK_EQ(word(1023), 1024);
	ram[0] = 77;
	CHECK_EQ(word(0), 77);
	vm_flags(flags);
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++)
		CHECK_MSG(strstr(flags, wanted[i]), "no %s in %s", wanted[i], flags);
	CHECK(fake_note(fake, &from, "Register a size 268435456 limit 0"));
	CHECK(fake_note(fake, &any, "Attend feedbeefcafef00d"));	/* on a connection of its own */
	CHECK(fake_note(fake, &from, "Lease 0 4194304"));
	CHECK(fake_note(fake, &from, "Activate 0 userfaultfd"));
	finish();
}

static void several_leases(void)
{
	struct memctl_lease *more[5];

	start(MIB);
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(memctl_lease(m, (i + 1) * 16 * MIB, 12 * PAGE, &more[i], &e), 0);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_EQ(memctl_lease_gpa(more[i]), (i + 1) * 16 * MIB);
		CHECK_EQ(((uint64_t *)memctl_lease_address(more[i]))[11 * (PAGE / 8)], 12);
	}
	CHECK_EQ(memctl_release(more[2], &e), 0);
	CHECK_EQ(((uint64_t *)memctl_lease_address(more[3]))[0], 1);
	CHECK_EQ(word(3), 4);
	finish();
}

static void a_lease_takes_the_callers_place(void)
{
	char *place, *before;
	char flags[256];

	connect_to_fake(0);
	register_vm();
	before = mmap(NULL, MIB + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(before != MAP_FAILED);
	place = before + PAGE;
	CHECK_EQ(memctl_lease_at(m, 0, MIB, NULL, &l, &e), -EINVAL);
	CHECK_EQ(memctl_lease_at(m, 0, MIB, place + 8, &l, &e), -EINVAL);
	CHECK_MSG(memctl_lease_at(m, 0, MIB, place, &l, &e) == 0, "%s", e.message);
	ram = memctl_lease_address(l);
	CHECK((char *)ram == place);
	CHECK_EQ(word(255), 256);
	vm_flags(flags);
	CHECK_MSG(strstr(flags, "um") && strstr(flags, "dc") && strstr(flags, "nh"), "%s", flags);
	CHECK_EQ(memctl_release(l, &e), 0);
	/* still address space of ours, from end to end */
	CHECK_EQ(msync(before, MIB + 2 * PAGE, MS_ASYNC), 0);
	fake->refuse = true;
	CHECK_EQ(memctl_lease_at(m, 0, MIB, place, &l, &e), -ENOMEM);
	CHECK_EQ(msync(before, MIB + 2 * PAGE, MS_ASYNC), 0);
	finish();
}

static void release_tells_the_daemon_first(void)
{
	unsigned from = 0;

	start(MIB);
	CHECK_EQ(memctl_release(l, &e), 0);
	CHECK(fake_note(fake, &from, "Release 0 mapped"));
	CHECK(msync(ram, PAGE, MS_ASYNC) < 0 && errno == ENOMEM);
	finish();
}

static void free_releases_all(void)
{
	struct memctl_lease *second;
	unsigned from = 0;

	start(MIB);
	CHECK_EQ(memctl_lease(m, 2 * MIB, MIB, &second, &e), 0);
	memctl_free(m);
	CHECK(fake_note(fake, &from, "Release"));
	CHECK(fake_note(fake, &from, "Release"));
	CHECK(fake_note(fake, &from, "bye"));
	CHECK(fake_note(fake, &from, "bye"));
	fake_kill(fake);
}

static _Atomic int touched;

static void *touch_page_9(void *userdata)
{
	(void)userdata;
	touched = 1;
	touched = word(9) ? 3 : 2;
	return NULL;
}

static void start_toucher(void)
{
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, touch_page_9, NULL), 0);
	while (!touched)
		usleep(1000);
	usleep(100000);
	CHECK_EQ(touched, 1);
}

static void on_segv(int sig)
{
	(void)sig;
	_exit(touched == 1 ? 0 : 9); /* 0: the scenario is passed */
}

static void a_waiter_of_a_released_lease_dies_and_reads_no_zeros(void)
{
	start(MIB);
	fake->no_pages = true;
	start_toucher();
	signal(SIGSEGV, on_segv);
	CHECK_EQ(memctl_release(l, &e), 0);
	usleep(300000);
	CHECK_MSG(false, "the thread neither died nor should have lived: %d", touched);
}

static void after_the_daemons_death_accesses_wait(void)
{
	struct memctl_event event = { .struct_size = sizeof event };

	connect_to_fake(300);
	register_vm();
	lease(MIB);
	CHECK_EQ(word(1), 2);
	CHECK_EQ(memctl_next_event(m, &event), 0);
	fake_kill(fake);
	start_toucher();
	CHECK_EQ(word(1), 2);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(memctl_next_event(m, &event), 1);
	CHECK_EQ(event.kind, MEMCTL_EVENT_DISCONNECTED);
	CHECK_EQ(memctl_next_event(m, &event), 0);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	CHECK_MSG(!strcmp(e.name, "org.memctl.Unreachable"), "%s", e.name);
	usleep(300000);
	CHECK_EQ(touched, 1);
}

/* The twin: what the library's own descriptor is there for. */
static void without_our_descriptor_it_would_read_zeros(void)
{
	char path[64], what[64] = "";
	int closed = 0;

	start(MIB);
	fake_kill(fake);
	for (int fd = 3; fd < 100; fd++) {
		ssize_t n;

		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		n = readlink(path, what, sizeof what - 1);
		what[n > 0 ? n : 0] = 0;
		if (!strcmp(what, "anon_inode:[userfaultfd]"))
			closed += !close(fd);
	}
	CHECK_EQ(closed, 1);
	CHECK_MSG(word(9) == 0, "the page is %llu: the rule is not needed", (unsigned long long)word(9));
}

static void order(const char *text)
{
	CHECK(write(fake->orders, text, strlen(text)) == (ssize_t)strlen(text));
}

static void expect_done(unsigned *from, const char *text)
{
	const char *note = fake_note(fake, from, "Done");

	CHECK_MSG(note && !strcmp(note, text), "\"%s\" instead of \"%s\"", note ? note : "nothing", text);
}

static void orders_are_carried_out_in_order(void)
{
	unsigned from = 0;

	start(MIB);
	CHECK(memctl_fd(m) >= 0);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	word(1);
	ram[3 * (PAGE / 8)] = 33;
	order("present 0 0:4\n");
	order("zap 0 0:2,3:1\n");
	order("present 0 0:4\n");
	expect_done(&from, "Done 1 0a");
	expect_done(&from, "Done 2 ");
	expect_done(&from, "Done 3 00");
	CHECK_EQ(word(3), 33); /* the mapping went, the page stayed */
	order("present 0 3:1,0:3,250:6\n");
	expect_done(&from, "Done 4 0100");
	finish();
}

static void wrong_orders_do_nothing(void)
{
	static const char *const wrong[] = { "zap 0 256:1\n", "zap 0 0:257\n", "zap 0 18446744073709551:2\n",
		"zap 9 0:1\n", "zap 0 0:0\n", "explode 0 0:1\n", "present 0 0:1,256:1\n", "present 7 0:1\n" };
	char done[32];
	unsigned from = 0;

	start(MIB);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	word(0);
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		order(wrong[i]);
		snprintf(done, sizeof done, "Done %u ", i + 1);
		expect_done(&from, done);
	}
	order("present 0 0:1\n");
	expect_done(&from, "Done 9 01");
	finish();
}

static void a_wide_look_is_answered_as_far_as_it_fits(void)
{
	unsigned from = 0;
	const char *note;

	start(8 * MIB);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	order("present 0 0:512\n");
	note = fake_note(fake, &from, "Done 1 ");
	CHECK(note && strlen(note) == strlen("Done 1 ") + 128);
	order("present 0 0:2048\n");
	expect_done(&from, "Done 2 ");
	finish();
}

static void an_answer_goes_out_while_a_call_waits(void)
{
	start(MIB);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	fake->wait_for_done = true;
	order("present 0 0:1\n");
	usleep(100000);
	fake->wait_for_done = false;
	/* The same with the order behind the call. */
	fake->wait_for_done = true;
	if (!fork()) {
		usleep(200000);
		order("present 0 0:1\n");
		_exit(0);
	}
	CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
	wait(NULL);
	finish();
}

static void a_mute_daemon_is_a_timeout(void)
{
	connect_to_fake(300);
	register_vm();
	lease(MIB);
	fake->mute = true;
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ETIMEDOUT);
	CHECK(!strcmp(e.name, "org.memctl.Timeout"));
	fake->mute = false;
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	CHECK_EQ(word(5), 6); /* but faults are served */
	finish();
}

static void refusals_carry_their_numbers(void)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = MIB };

	connect_to_fake(0);
	fake->refuse = true;
	CHECK_EQ(memctl_register(m, &vm, &e), -ENOMEM);
	CHECK_MSG(!strcmp(e.name, "org.memctl.NotEnoughMemory"), "%s", e.name);
	CHECK_EQ(e.need, 111);
	CHECK_EQ(e.have, 22);
	CHECK(strlen(e.message) > 20);
	fake->refuse = false;
	CHECK_EQ(memctl_register(m, &vm, NULL), 0); /* a refusal spoils nothing */
	finish();
}

static void a_reply_that_is_none(void)
{
	char *reply = NULL;
	int r;

	start(MIB);
	fake->garbage = true;
	r = memctl_call(m, "org.memctl.Status", NULL, &reply, &e);
	/* the daemon hangs up after it, which may be heard first */
	CHECK_MSG(r == -EPROTO || r == -ENOTCONN, "%d", r);
	CHECK(!reply);
	finish();
}

static void a_lease_without_memory(void)
{
	connect_to_fake(0);
	register_vm();
	fake->no_descriptor = true;
	CHECK_EQ(memctl_lease(m, 0, MIB, &l, &e), -EPROTO);
	CHECK(!l);
	finish();
}

/* A VM without its orders connection would be ended, and its guests would wait for ever. */
static void without_its_second_connection_there_is_no_vm(void)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = 256 * MIB, .limit = MEMCTL_NO_LIMIT };
	unsigned from = 0;

	connect_to_fake(0);
	fake->no_orders = true;
	CHECK(memctl_register(m, &vm, &e) < 0);
	CHECK_MSG(!strcmp(e.name, "org.memctl.LimitReached") && e.need == 111 && e.have == 22, "%s", e.name);
	CHECK_MSG(strstr(e.message, "second connection"), "%s", e.message);
	/* the first one has ended too, so memctld has no such VM */
	CHECK(fake_note(fake, &from, "Register a"));
	CHECK(fake_note(fake, &from, "bye"));
	CHECK(memctl_lease(m, 0, MIB, &l, &e) < 0);
	fake->no_orders = false;
	register_vm();
	lease(MIB);
	CHECK_EQ(*(volatile uint64_t *)ram, 1);
	finish();
}

static void a_daemon_that_hangs_up(void)
{
	struct memctl_stats stats = { .struct_size = sizeof stats };

	connect_to_fake(300);
	register_vm();
	lease(MIB);
	fake->hang_up = true;
	CHECK_EQ(memctl_stats(m, &stats, &e), -ENOTCONN);
	CHECK(!strcmp(e.name, "org.memctl.Unreachable"));
	fake->hang_up = false;
	CHECK_MSG(memctl_stats(m, &stats, &e) == 0, "%s", e.message);
	finish();
}

static void stats_are_decoded(void)
{
	struct memctl_stats stats = { .struct_size = sizeof stats, .swapped = 1 };

	start(MIB);
	CHECK_MSG(memctl_stats(m, &stats, &e) == 0, "%s", e.message);
	CHECK_EQ(stats.size, MIB);
	CHECK_EQ(stats.resident, 8192);
	CHECK_EQ(stats.swapped, 0);
	CHECK_EQ(stats.faults, 5);
	CHECK_EQ(stats.shared, 12288);
	CHECK_EQ(stats.saved, 4096);
	finish();
}

static void long_ranges_go_in_pieces(void)
{
	start(128 * MIB);
	CHECK_EQ(memctl_populate(l, 0, 100 * MIB, &e), 0);
	CHECK_EQ(fake_count(fake, "populate"), 4);
	CHECK_EQ(fake_count(fake, "populate 0 100663296 4194304"), 1);
	CHECK_EQ(memctl_will_need(l, PAGE, PAGE, &e), 0);
	CHECK_EQ(fake_count(fake, "advise will_need"), 1);
	CHECK_EQ(memctl_discard(l, 0, 0, &e), 0);
	CHECK_EQ(fake_count(fake, "discard"), 0);
	finish();
}

static void a_pin_is_all_or_nothing(void)
{
	start(128 * MIB);
	fake->fail_pin = 3;
	CHECK_EQ(memctl_pin(l, 0, 128 * MIB, &e), -ENOMEM);
	CHECK_EQ(e.need, 111);
	CHECK_EQ(fake_count(fake, "pin "), 3);
	CHECK_EQ(fake_count(fake, "unpin 0 0 33554432"), 1);
	CHECK_EQ(fake_count(fake, "unpin 0 33554432 33554432"), 1);
	CHECK_EQ(fake_count(fake, "unpin"), 2);
	finish();
}

static void arguments_are_checked(void)
{
	struct memctl_vm vm = { .name = "a", .size = MIB };
	struct memctl_lease *none = NULL;
	char long_name[400];

	connect_to_fake(0);
	memset(long_name, 'x', sizeof long_name);
	long_name[sizeof long_name - 1] = 0;
	CHECK_EQ(memctl_lease(m, 0, MIB, &none, &e), -EINVAL); /* no VM yet */
	CHECK_EQ(memctl_register(m, &vm, &e), -EINVAL);        /* struct_size */
	vm.struct_size = sizeof vm;
	vm.name = long_name;
	CHECK_EQ(memctl_register(m, &vm, &e), -EINVAL);
	register_vm();
	vm.name = "b";
	CHECK_EQ(memctl_register(m, &vm, &e), -EBUSY);
	CHECK_EQ(memctl_lease(m, 0, 0, &none, &e), -EINVAL);
	CHECK_EQ(memctl_lease(m, 0, PAGE + 1, &none, &e), -EINVAL);
	CHECK_EQ(memctl_lease(m, 1, PAGE, &none, &e), -EINVAL);
	CHECK_EQ(memctl_lease(m, UINT64_MAX & ~4095ull, 2 * PAGE, &none, &e), -EINVAL);
	CHECK(!none);
	lease(MIB);
	CHECK_EQ(memctl_discard(l, 1, PAGE, &e), -EINVAL);
	CHECK_EQ(memctl_discard(l, MIB, PAGE, &e), -EINVAL);
	CHECK_EQ(memctl_discard(l, UINT64_MAX & ~4095ull, 2 * PAGE, &e), -EINVAL);
	CHECK_EQ(memctl_read_into(l, MIB - 1, 2, 0, -1), -EINVAL);
	CHECK_EQ(memctl_write_from(NULL, 0, 1, 0, -1), -EINVAL);
	finish();
}

/* Bytes i*7 of a file, where page and bounce boundaries are crossed. */
static int pattern_file(size_t length)
{
	int fd = memfd_create("pattern", MFD_CLOEXEC);
	char *bytes = malloc(length);

	for (size_t i = 0; i < length; i++)
		bytes[i] = (char)(i * 7);
	CHECK(write(fd, bytes, length) == (ssize_t)length);
	free(bytes);
	return fd;
}

static void io_both_ways(void)
{
	enum { LENGTH = 700000, AT = 12345 };
	int from = pattern_file(LENGTH), to = memfd_create("back", MFD_CLOEXEC);
	char *back = malloc(LENGTH);

	CHECK_EQ(memctl_read_into(l, AT, LENGTH, from, 0), LENGTH);
	for (size_t i = 0; i < LENGTH; i++)
		CHECK(((char *)ram)[AT + i] == (char)(i * 7));
	CHECK_EQ(memctl_read_into(l, 0, 100, from, LENGTH - 60), 60); /* short at the end of the file */
	CHECK_EQ(memctl_read_into(l, 0, 100, from, LENGTH), 0);
	CHECK_EQ(memctl_write_from(l, AT, LENGTH, to, 0), LENGTH);
	CHECK_EQ(pread(to, back, LENGTH, 0), LENGTH);
	CHECK(!memcmp(back, (char *)ram + AT, LENGTH));
	CHECK_EQ(memctl_read_into(l, 0, 10, -1, 0), -EBADF);
	/* the file's own position; a page that was never touched */
	lseek(to, 0, SEEK_SET);
	CHECK_EQ(memctl_write_from(l, 300 * PAGE, 8, to, -1), 8);
	CHECK_EQ(lseek(to, 0, SEEK_CUR), 8);
	CHECK_EQ(pread(to, back, 8, 0), 8);
	free(back);
	close(from);
	close(to);
}

static void io_with_full_handling(void)
{
	start(4 * MIB);
	if (memctl_fault_handling(m) != MEMCTL_FAULTS_FULL)
		check_skip("no full userfaultfd for this user");
	io_both_ways();
	finish();
}

static void direct_io(void)
{
	char path[] = "/var/tmp/memctl-unit-XXXXXX";
	int made = mkstemp(path), fd;

	start(4 * MIB);
	CHECK(made >= 0 && ftruncate(made, 1 * MIB) == 0 && pwrite(made, "direct", 6, 8 * PAGE) == 6);
	fsync(made);
	fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	unlink(path);
	if (fd < 0)
		check_skip("/var/tmp knows no O_DIRECT");
	CHECK_EQ(memctl_read_into(l, 100, MIB, fd, 0),
	        MIB); /* guest memory needs no alignment, the file does */
	CHECK(!memcmp((char *)ram + 100 + 8 * PAGE, "direct", 6));
	CHECK_EQ(memctl_read_into(l, 100, MIB, fd, 1), -EINVAL);
	CHECK_EQ(memctl_write_from(l, 0, MIB, fd, 0), MIB);
	CHECK_EQ(pread(made, path, 6, 100 + 8 * PAGE), 6);
	CHECK(!memcmp(path, "direct", 6));
	finish();
}

static void become_nobody(void)
{
	char now;
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");

	if (f && fread(&now, 1, 1, f) == 1 && now == '1')
		check_skip("vm.unprivileged_userfaultfd is 1: every user has full handling");
	if (f)
		fclose(f);
	if (getuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
		check_skip("cannot become nobody");
	/* readable by the fake, and /proc/self by us */
	prctl(PR_SET_DUMPABLE, 1);
	if (!access("/dev/userfaultfd", R_OK | W_OK))
		check_skip("/dev/userfaultfd is open to all: every user has full handling");
}

static void io_in_user_mode_only(void)
{
	char byte[16];
	int fd;

	fake = fake_start();
	become_nobody();
	CHECK_MSG(memctl_connect(&(struct memctl_options){ .struct_size = sizeof(struct memctl_options),
	                                 .socket = fake->socket },
	                  &m, &e) == 0,
	        "%s", e.message);
	register_vm();
	lease(4 * MIB);
	CHECK_EQ(memctl_fault_handling(m), MEMCTL_FAULTS_USER_MODE);
	CHECK(fake_count(fake, "Activate 0 userfaultfd user") == 1);
	/* The twin: what the library is there for. */
	fd = pattern_file(PAGE);
	CHECK(pread(fd, ram, 16, 0) < 0 && errno == EFAULT);
	CHECK(pwrite(fd, ram + 100 * (PAGE / 8), 16, 0) < 0 && errno == EFAULT);
	CHECK_EQ(memctl_read_into(l, 0, 16, fd, 0), 16);
	CHECK_EQ(pread(fd, byte, 16, 0), 16);
	CHECK(!memcmp(byte, ram, 16));
	io_both_ways();
	memctl_free(m);
}

static void a_forked_child_is_killed(void)
{
	int status;
	pid_t pid;

	start(MIB);
	ram[0] = 5;
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit(word(0) == 5 ? 1 : 2);
	}
	waitpid(pid, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK_EQ(word(0), 5);
	CHECK_EQ(word(7), 8);
	finish();
}

/* The twin: what MADV_DONTFORK is there for. */
static void a_child_with_the_mapping_would_harm_its_parent(void)
{
	pid_t pid;

	start(MIB);
	CHECK(!madvise(ram, MIB, MADV_DOFORK));
	pid = fork();
	if (!pid)
		_exit((int)word(7));
	waitpid(pid, NULL, 0);
	CHECK_MSG(word(7) == 0, "the page is %llu: the rule is not needed", (unsigned long long)word(7));
	finish();
}

/* userfaultfd(2) gives EPERM from here on. */
static void forbid_userfaultfd(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	        !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void without_permission_it_says_the_remedy(void)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = MIB };

	connect_to_fake(0);
	become_nobody();
	forbid_userfaultfd();
	CHECK_EQ(memctl_register(m, &vm, &e), -EPERM);
	CHECK_MSG(strstr(e.message, "vm.unprivileged_userfaultfd") && strstr(e.message, "udev"), "%s",
	        e.message);
	CHECK_EQ(fake_count(fake, "Register"), 0); /* nothing was promised in vain */
	memctl_free(m);
}

static void use_plain_memory(const char *socket)
{
	struct memctl_options o = { .struct_size = sizeof o, .socket = socket, .plain_fallback = 1 };
	struct memctl_stats stats = { .struct_size = sizeof stats };
	const char *why = NULL;
	char *reply;

	CHECK_MSG(memctl_connect(&o, &m, &e) == 0, "%s", e.message);
	CHECK(memctl_is_plain(m, &why) && strlen(why) > 20);
	register_vm();
	lease(4 * MIB);
	CHECK_EQ(memctl_fault_handling(m), MEMCTL_FAULTS_NONE);
	CHECK_EQ(word(17), 0);
	io_both_ways();
	ram[17 * (PAGE / 8)] = 1;
	CHECK_EQ(memctl_pin(l, 0, MIB, &e), 0);
	CHECK_EQ(memctl_unpin(l, 0, MIB, &e), 0);
	CHECK_EQ(memctl_dont_need(l, 0, MIB, &e), 0);
	CHECK_EQ(word(17), 1);
	CHECK_EQ(memctl_discard(l, 0, MIB, &e), 0);
	CHECK_EQ(word(17), 0);
	CHECK_EQ(memctl_call(m, "org.memctl.Status", NULL, &reply, &e), -ENOTCONN);
	CHECK_EQ(memctl_stats(m, &stats, &e), 0);
	CHECK_EQ(stats.leased, 4 * MIB);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	CHECK_EQ(memctl_fd(m), -1);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(memctl_release(l, &e), 0);
	memctl_free(m);
}

static void plain_memory_without_a_daemon(void)
{
	use_plain_memory("/nowhere/memctld.sock");
}

static void plain_memory_without_permission(void)
{
	fake = fake_start();
	become_nobody();
	forbid_userfaultfd();
	use_plain_memory(fake->socket);
}

static void without_a_daemon(void)
{
	struct memctl_options o = { .struct_size = sizeof o, .socket = "/nowhere/memctld.sock" };

	m = NULL;
	CHECK_EQ(memctl_connect(&o, &m, &e), -ENOENT);
	CHECK(!m && !strcmp(e.name, "org.memctl.Unreachable"));
	memctl_free(NULL);
	CHECK_EQ(memctl_release(NULL, &e), 0);
}

#define QUICK(fn)                                                                                            \
	{                                                                                                    \
#fn, fn, 20                                                                                  \
	}

int main(int argc, char **argv)
{
	return check_main(argc, argv,
	        (const struct scenario[]){ QUICK(lease_is_served), QUICK(several_leases),
	                QUICK(a_lease_takes_the_callers_place), QUICK(release_tells_the_daemon_first),
	                QUICK(free_releases_all),
	                QUICK(a_waiter_of_a_released_lease_dies_and_reads_no_zeros),
	                QUICK(after_the_daemons_death_accesses_wait),
		QUICK(without_our_descriptor_it_would_read_zeros), QUICK(orders_are_carried_out_in_order),
	                QUICK(wrong_orders_do_nothing), QUICK(a_wide_look_is_answered_as_far_as_it_fits),
	                QUICK(an_answer_goes_out_while_a_call_waits), QUICK(a_mute_daemon_is_a_timeout),
	                QUICK(refusals_carry_their_numbers), QUICK(a_reply_that_is_none),
	                QUICK(a_lease_without_memory), QUICK(without_its_second_connection_there_is_no_vm),
		QUICK(a_daemon_that_hangs_up),
	                QUICK(stats_are_decoded), QUICK(long_ranges_go_in_pieces),
	                QUICK(a_pin_is_all_or_nothing), QUICK(arguments_are_checked),
	                QUICK(io_with_full_handling), QUICK(direct_io), QUICK(io_in_user_mode_only),
	                QUICK(a_forked_child_is_killed),
		QUICK(a_child_with_the_mapping_would_harm_its_parent), QUICK(without_permission_it_says_the_remedy),
	                QUICK(plain_memory_without_a_daemon), QUICK(plain_memory_without_permission),
	                QUICK(without_a_daemon), { 0 } });
}
