/* Sharing, as the library carries it out, against a daemon that obeys the test (fake_daemon.h).  Page p of the lease
 * is shared as page p + 1 of the pool unless a scenario says otherwise. */
#include "libclient/memctl.h"
#include "tests/lib/check.h"
#include "tests/unit/fake_daemon.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  4096u
#define WORDS (PAGE / 8)
#define MIB   (1ull << 20)
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

static struct fake *fake;
static struct memctl *m;
static struct memctl_lease *l;
static struct memctl_error e;
static uint64_t *ram; /* of l */
static unsigned notes, orders_n;
static int shares;

static void register_vm(const char *sharing)
{
	struct memctl_options o = { .struct_size = sizeof o };
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = 256 * MIB };

	if (!fake)
		fake = fake_start();
	strcpy(fake->sharing, sharing);
	o.socket = fake->socket;
	CHECK_MSG(memctl_connect(&o, &m, &e) == 0, "%s", e.message);
	CHECK_MSG(memctl_register(m, &vm, &e) == 0, "%s", e.message);
	/* as if a thread dispatched: here the orders are dispatched, or not, as each test likes */
	shares = memctl_share(m, &e);
}

static volatile uint64_t *at(uint64_t page)
{
	return ram + page * WORDS;
}

/* A lease in which every page is there. */
static void start(uint64_t size)
{
	register_vm("vm");
	CHECK_MSG(memctl_lease(m, 0, size, &l, &e) == 0, "%s", e.message);
	ram = memctl_lease_address(l);
	for (uint64_t page = 0; page < size / PAGE; page++)
		CHECK_EQ(*at(page), page + 1);
}

static void start_with_helper(uint64_t size)
{
	start(size);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
}

static void finish(void)
{
	memctl_free(m);
	fake_kill(fake);
}

static void give(const char *text)
{
	if (notes > FAKE_NOTES_MAX - 10) { /* the paper is full; what is on it was read */
		fake->notes_n = 0;
		notes = 0;
	}
	CHECK(write(fake->orders, text, strlen(text)) == (ssize_t)strlen(text));
}

/* What came back: "BITS PAGES", or "BITS". */
static const char *answer(void)
{
	const char *note = fake_note(fake, &notes, "Done");
	unsigned id;
	int end = 0;

	CHECK_MSG(note, "no answer to order %u", orders_n + 1);
	CHECK(sscanf(note, "Done %u%n", &id, &end) == 1);
	CHECK_EQ(id, ++orders_n);
	return note + end + 1;
}

static void expect(const char *order, const char *wanted)
{
	const char *came;

	give(order);
	came = answer();
	CHECK_MSG(!strcmp(came, wanted), "%.60s\"%s\" instead of \"%s\"", order, came, wanted);
}

/* How many mappings of this file there are. */
static unsigned mappings(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof line, f))
		n += strstr(line, name) != NULL;
	fclose(f);
	return n;
}

static void it_joins_where_sharing_holds(void)
{
	static const char *const joins[] = { "vm", "group:x" }, *const does_not[] = { "off", "zero", "", "group" };

	for (unsigned i = 0; i < sizeof joins / sizeof *joins; i++) {
		register_vm(joins[i]);
		CHECK_EQ(fake_count(fake, "JoinPool maps"), i + 1);
		memctl_free(m);
	}
	for (unsigned i = 0; i < sizeof does_not / sizeof *does_not; i++) {
		register_vm(does_not[i]);
		memctl_free(m);
	}
	CHECK_EQ(fake_count(fake, "JoinPool"), 2);
	fake_kill(fake);
}

static void a_refusal_is_no_failure(void)
{
	fake = fake_start();
	fake->no_pool = true;
	start_with_helper(MIB);
	expect("share 0 3:1:4\n", " 0");
	CHECK_EQ(*at(3), 4);
	finish();
}

static void it_does_not_join_under_ksm(void)
{
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) < 0)
		check_skip("this kernel has no KSM for whole processes");
	register_vm("vm");
	CHECK_EQ(shares, -EOPNOTSUPP);
	CHECK(strstr(e.message, "same-page merging"));
	CHECK_EQ(fake_count(fake, "JoinPool"), 0);
	finish();
}

/* The only thread of a program that dispatches in its loop would wait for itself: with nobody beside it, it must not join. */
static void without_a_thread_for_orders_nothing_is_shared(void)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = 256 * MIB };
	struct memctl_options o = { .struct_size = sizeof o };

	fake = fake_start();
	strcpy(fake->sharing, "vm");
	o.socket = fake->socket;
	CHECK(memctl_connect(&o, &m, &e) == 0 && memctl_register(m, &vm, &e) == 0 && memctl_lease(m, 0, MIB, &l, &e) == 0);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(fake_count(fake, "JoinPool"), 0);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	CHECK_EQ(fake_count(fake, "JoinPool"), 1);
	/* and the thread stays, whoever would rather have it gone */
	memctl_helper_stop(m);
	ram = memctl_lease_address(l);
	CHECK_EQ(*at(8), 9);
	expect("share 0 8:1:9\n", "01 1");
	finish();
}

/* A call that timed out has spoiled the replies, not the answers to orders: a guest may wait for them. */
static void after_a_call_that_timed_out_orders_are_answered(void)
{
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "a", .size = 256 * MIB };
	struct memctl_options o = { .struct_size = sizeof o, .timeout_ms = 200 };

	fake = fake_start();
	strcpy(fake->sharing, "vm");
	o.socket = fake->socket;
	CHECK(memctl_connect(&o, &m, &e) == 0 && memctl_register(m, &vm, &e) == 0 && memctl_lease(m, 0, MIB, &l, &e) == 0);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	ram = memctl_lease_address(l);
	CHECK_EQ(*at(8), 9);
	fake->mute = true;
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ETIMEDOUT);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	fake->mute = false;
	expect("share 0 8:1:9\n", "01 1");
	finish();
}

static void a_shared_page_reads_the_same_and_a_write_is_heard(void)
{
	start_with_helper(MIB);
	*(at(8) + 5) = 55;
	expect("share 0 8:4:9,20:1:21\n", "1f 5");
	CHECK_EQ(mappings("memfd:pool"), 2);
	for (uint64_t page = 0; page < 256; page++)
		CHECK_EQ(*at(page), page + 1);
	CHECK_EQ(*(at(8) + 5), 55);
	expect("private 0 8:4,20:1,100:3\n", "00");
	CHECK_EQ(fake->breaks, 0);
	*at(10) = 1010;
	CHECK_EQ(fake->breaks, 1);
	*at(10) += 1;
	CHECK_EQ(fake->breaks, 1);
	CHECK_EQ(*at(10), 1011);
	CHECK_EQ(*at(9), 10);
	expect("private 0 8:4,20:1\n", "04");
	finish();
}

static void one_frame_for_many_pages(void)
{
	start_with_helper(MIB);
	for (uint64_t page = 0; page < 3; page++)
		*at(page) = 77;
	expect("share 0 0:1:50,1:1:50,2:1:50\n", "07 3");
	*at(1) = 78;
	CHECK_EQ(*at(0), 77);
	CHECK_EQ(*at(1), 78);
	CHECK_EQ(*at(2), 77);
	expect("home 0 0:3\n", " 3");
	CHECK_EQ(*at(0), 77);
	CHECK_EQ(*at(1), 78);
	CHECK_EQ(*at(2), 77);
	finish();
}

static void home_brings_the_private_copy(void)
{
	char flags[256] = "", line[256], begin[32];
	FILE *f;

	start_with_helper(4 * MIB);
	expect("share 0 16:64:17\n", "ffffffffffffffff 64");
	for (uint64_t page = 16; page < 80; page += 2)
		*at(page) += 1000;
	CHECK_EQ(fake->breaks, 32);
	expect("home 0 16:64\n", " 64");
	for (uint64_t page = 16; page < 80; page++)
		CHECK_EQ(*at(page), page + 1 + (page % 2 ? 0 : 1000));
	*at(16) = 16;	/* without a fault: it is the lease's again */
	CHECK_EQ(fake->breaks, 32);
	CHECK_EQ(mappings("memfd:pool"), 0);
	/* one mapping as before, with all its flags, and the second one */
	CHECK_EQ(mappings("memfd:fake"), 2);
	snprintf(begin, sizeof begin, "%lx-", (unsigned long)ram);
	f = fopen("/proc/self/smaps", "re");
	for (bool ours = false; fgets(line, sizeof line, f);) {
		ours = ours || !strncmp(line, begin, strlen(begin));
		if (ours && !flags[0] && !strncmp(line, "VmFlags:", 8))
			strcpy(flags, line);
	}
	fclose(f);
	CHECK_MSG(strstr(flags, " sh") && strstr(flags, " um") && strstr(flags, " uw") && strstr(flags, " dc") &&
	                strstr(flags, " dd") && strstr(flags, " nh"),
	        "%s", flags);
	/* and the lease can be shared again, taken, filled */
	expect("share 0 16:64:17\n", "ffffffffffffffff 64");
	CHECK_EQ(*at(18), 1019);
	finish();
}

static void a_zap_spares_private_copies(void)
{
	start_with_helper(MIB);
	expect("share 0 4:2:5\n", "03 2");
	*at(4) = 44;
	expect("zap 0 0:16\n", "");
	CHECK_EQ(*at(4), 44);
	expect("present 0 3:4\n", "06"); /* the neighbours were zapped */
	/* The twin: what the library leaves out. */
	CHECK(!madvise(ram + 4 * WORDS, PAGE, MADV_DONTNEED));
	CHECK_MSG(*at(4) == 5, "the page is %llu: the rule is not needed", (unsigned long long)*at(4));
	finish();
}

static void wrong_orders_do_nothing(void)
{
	static const char *const wrong[] = { "share 0 3:1\n", "share 0 3:1:65536\n", "share 0 3:2:65535\n",
		"share 0 1024:1:1\n", "share 0 3:0:4\n", "home 0 3:1\n", "home 0 0:256\n", "share 0 0:513:1\n" };
	char came[64];

	start_with_helper(4 * MIB);
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		give(wrong[i]);
		snprintf(came, sizeof came, "%s", answer());
		CHECK_MSG(!strcmp(came, " 0") || !strcmp(came, "00 0"), "%s\"%s\"", wrong[i], came);
	}
	CHECK_EQ(mappings("memfd:pool"), 0);
	/* what is shared is not shared once more: its private copy would go */
	expect("share 0 10:2:11\n", "03 2");
	*at(11) = 1111;
	expect("share 0 9:2:10\n", "00 0");
	expect("share 0 30:1:31,11:2:12\n", "01 1");
	CHECK_EQ(*at(11), 1111);
	/* nor is what is not shared brought home */
	expect("home 0 10:3\n", " 0");
	expect("home 0 10:1,9:1,11:1\n", " 1");
	expect("home 0 11:1\n", " 1");
	CHECK_EQ(*at(11), 1111);
	expect("private 0 0:1024\n", "");
	finish();
}

static void home_stops_at_a_page_that_is_there(void)
{
	start_with_helper(MIB);
	expect("share 0 8:4:9,40:2:41\n", "3f 6");
	*at(8) = 88;
	*at(9) = 99;
	*at(40) = 4040;
	fake->keep_frames = true;
	expect("share 0 12:4:13\n", "0f 4"); /* these stay in the lease */
	expect("home 0 40:2,8:8\n", " 2");
	CHECK_EQ(*at(8), 88);
	CHECK_EQ(*at(9), 99);
	CHECK_EQ(*at(40), 4040);
	/* nothing was left behind in 8 to 11: only the others need to go */
	give("punch 0 12:4\n");
	CHECK(fake_note(fake, &notes, "punched"));
	expect("home 0 8:8\n", " 8");
	CHECK_EQ(*at(8), 88);
	CHECK_EQ(*at(9), 99);
	CHECK_EQ(*at(15), 16);
	finish();
}

/* ---- writers ---- */

#define WRITERS 2
#define HOT_FIRST 64
#define HOT_PAGES 48

static _Atomic bool stop;
static _Atomic unsigned lost;

/* Counts in a word of its own of each page; a word that is not what was written is a lost write. */
static void *count_up(void *userdata)
{
	uint64_t mine = (uintptr_t)userdata, counted[HOT_PAGES] = { 0 };

	while (!stop)
		for (uint64_t i = 0; i < HOT_PAGES; i++) {
			volatile uint64_t *word = at(HOT_FIRST + i) + 1 + mine;

			lost += *word != counted[i];
			*word = ++counted[i];
		}
	for (uint64_t i = 0; i < HOT_PAGES; i++)
		lost += *(at(HOT_FIRST + i) + 1 + mine) != counted[i];
	return NULL;
}

static unsigned value_of(char digit)
{
	return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

static unsigned clear_bits(const char *bits, unsigned n)
{
	unsigned clear = 0;

	for (unsigned i = 0; i < n; i++)
		clear += !(value_of(bits[i / 8 * 2 + (i % 8 < 4)]) >> i % 4 & 1);
	return clear;
}

#define ROUNDS_MAX 20000u

static void writers_lose_nothing_and_are_found(void)
{
	pthread_t writers[WRITERS];
	unsigned dirty = 0;

	start_with_helper(MIB);
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&writers[i], NULL, count_up, (void *)i);
	/* the window is short: on a quiet machine it takes some rounds until a write falls into it */
	for (unsigned round = 0; round < 150 || (!dirty && round < ROUNDS_MAX); round++) {
		unsigned first = HOT_FIRST + round % 7, n = 1 + round * 5 % (HOT_PAGES - 7), pages;
		char text[64], bits[256], clean[256];

		snprintf(text, sizeof text, "share 0 %u:%u:%u\n", first, n, first + 1);
		give(text);
		CHECK(sscanf(answer(), "%255s %u", clean, &pages) == 2 && pages == n);
		dirty += clear_bits(clean, n);
		snprintf(text, sizeof text, "private 0 %u:%u\n", first, n);
		give(text);
		CHECK(sscanf(answer(), "%255s", bits) == 1);
		/* what was dirty is private now; what was clean may have become so */
		for (unsigned i = 0; clean[i]; i++)
			CHECK_MSG(i == strlen(clean) - 1 || i == strlen(clean) - 2 ||
			                (value_of(bits[i]) | value_of(clean[i])) == 15,
			        "neither clean nor private: %s, %s", clean, bits);
		snprintf(text, sizeof text, "home 0 %u:%u\n", first, n);
		give(text);
		CHECK(sscanf(answer(), "%u", &pages) == 1 && pages == n);
	}
	stop = true;
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	CHECK_EQ(lost, 0);
	CHECK_MSG(dirty > 0, "no write fell between mmap and protection in %u rounds", ROUNDS_MAX);
	finish();
}

/* ---- forks ---- */

static _Atomic unsigned forks, inherited;

/* Children look which files of ours they have, without the C library's locks. */
static int look_for_memfds(void)
{
	static char text[65536];
	FILE *f = fopen("/proc/self/maps", "re");
	int found = 0;

	while (f && fgets(text, sizeof text, f))
		found |= strstr(text, "memfd:pool") || strstr(text, "memfd:fake");
	return found;
}

static void *fork_all_the_time(void *userdata)
{
	int status;

	(void)userdata;
	while (!stop) {
		pid_t pid = fork();

		if (!pid)
			_exit(look_for_memfds());
		waitpid(pid, &status, 0);
		inherited += !WIFEXITED(status) || WEXITSTATUS(status);
		forks++;
	}
	return NULL;
}

static void a_child_inherits_nothing(void)
{
	pthread_t forker;
	int status;
	pid_t pid;

	start_with_helper(MIB);
	pthread_create(&forker, NULL, fork_all_the_time, NULL);
	for (unsigned round = 0; round < 200 || forks < 50; round++) {
		expect("share 0 8:2:9,20:1:21,30:1:31,40:1:41\n", "1f 5");
		expect("home 0 8:2,20:1,30:1,40:1\n", " 5");
	}
	stop = true;
	pthread_join(forker, NULL);
	CHECK_EQ(inherited, 0);
	expect("share 0 8:2:9\n", "03 2");
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit((int)*at(9));
	}
	waitpid(pid, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK_EQ(*at(9), 10);
	/* The twin: the children can see what they are not to have. */
	CHECK(!madvise(ram + 8 * WORDS, 2 * PAGE, MADV_DOFORK));
	pid = fork();
	if (!pid)
		_exit(look_for_memfds());
	waitpid(pid, &status, 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	finish();
}

static void *map_without_the_lock(void *userdata)
{
	int fd = memfd_create("pool", MFD_CLOEXEC);

	(void)userdata;
	CHECK(!ftruncate(fd, PAGE));
	while (!stop) {
		void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

		sched_yield();
		CHECK(p != MAP_FAILED && !madvise(p, PAGE, MADV_DONTFORK));
		munmap(p, PAGE);
	}
	return NULL;
}

/* The twin: what the lock around forks is there for. */
static void without_the_lock_children_inherit(void)
{
	pthread_t forker, mapper;

	pthread_create(&mapper, NULL, map_without_the_lock, NULL);
	pthread_create(&forker, NULL, fork_all_the_time, NULL);
	for (unsigned waited = 0; !inherited && waited < 20000; waited++)
		usleep(1000);
	stop = true;
	pthread_join(forker, NULL);
	pthread_join(mapper, NULL);
	CHECK_MSG(inherited > 0, "none of %u children: the lock is not needed", forks);
}

/* ---- the limit of mappings ---- */

#define FILLER_BYTES (1ull << 30)
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__
#endif
#endif

/* Take up all the mappings that the kernel allows but for `spare`. */
static char *use_up_mappings(unsigned spare)
{
	char *p = mmap(NULL, FILLER_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned n = 0;

	CHECK(p != MAP_FAILED);
	while (n < 130000 && !mprotect(p + n * 2ull * PAGE, PAGE, PROT_READ))
		n++;
	if (n == 130000)
		check_skip("vm.max_map_count is too large to reach");
	/* each gives two back */
	for (unsigned i = 0; i < spare / 2; i++)
		CHECK(!mprotect(p + (n - 1 - i) * 2ull * PAGE, PAGE, PROT_NONE));
	return p;
}

static void pages_are(uint64_t from)
{
	for (uint64_t page = 0; page < 256; page++)
		CHECK_EQ(*at(page), page + from);
}

static void at_the_limit_of_mappings_it_says_how_far_it_came(void)
{
	unsigned pages = 0, homed;
	char bits[16], *filler;

#ifdef __SANITIZE_THREAD__
	check_skip("the race detector does not live without mappings");
#endif
	start_with_helper(MIB);
	expect("share 0 150:3:151,200:30:201\n", "ffffffff01 33");
	expect("home 0 150:3\n", " 3"); /* it has its second mapping */
	filler = use_up_mappings(6);
	give("share 0 0:1:1,9:2:10,20:1:21,30:3:31,40:1:41,50:1:51,60:1:61,70:1:71\n");
	CHECK(sscanf(answer(), "%15s %u", bits, &pages) == 2);
	CHECK_MSG(pages >= 1 && pages < 11, "%u pages", pages);
	pages_are(1);
	for (uint64_t page = 0; page < 256; page++)
		*at(page) = page + 1000;
	pages_are(1000);
	/* One in the middle of a run makes two more mappings: it cannot come home, and nothing changes. */
	expect("home 0 210:2\n", " 0");
	pages_are(1000);
	CHECK(!munmap(filler, FILLER_BYTES));
	expect("home 0 210:2\n", " 2");
	/* Page by page, as far as they were shared. */
	for (unsigned i = 0; pages > 0; i++) {
		static const char *const runs[] = { "0:1", "9:2", "20:1", "30:3", "40:1", "50:1", "60:1", "70:1" };
		char text[32];

		snprintf(text, sizeof text, "home 0 %s\n", runs[i]);
		give(text);
		CHECK(sscanf(answer(), "%u", &homed) == 1 && homed > 0 && homed <= pages);
		pages -= homed;
	}
	expect("home 0 200:10,212:18\n", " 28");
	pages_are(1000);
	CHECK_EQ(mappings("memfd:pool"), 0);
	finish();
}

/* ---- who carries orders out ---- */

static pid_t in_a_while(const char *order)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	usleep(100000);
	give(order);
	_exit(0);
}

static void a_waiting_call_carries_orders_out(void)
{
	pid_t pids[3];

	start(MIB);
	fake->wait_for_done = true;
	pids[0] = in_a_while("share 0 8:2:9\n");
	CHECK_MSG(memctl_discard(l, 0, PAGE, &e) == 0, "%s", e.message);
	CHECK(!strcmp(answer(), "03 2"));
	*at(8) = 88;
	pids[1] = in_a_while("home 0 8:2\n");
	CHECK_MSG(memctl_pin(l, 0, PAGE, &e) == 0, "%s", e.message);
	CHECK(!strcmp(answer(), " 2"));
	pids[2] = in_a_while("present 0 8:2\n");
	CHECK_MSG(memctl_unpin(l, 0, PAGE, &e) == 0, "%s", e.message);
	CHECK(!strcmp(answer(), "03"));
	CHECK_EQ(*at(8), 88);
	for (unsigned i = 0; i < 3; i++)
		waitpid(pids[i], NULL, 0);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	finish();
}

static void *dispatch_all_the_time(void *userdata)
{
	unsigned *done = userdata;
	int r;

	while (!stop) {
		r = memctl_dispatch(m, NULL);
		CHECK(r >= 0);
		*done += (unsigned)r;
	}
	return NULL;
}

static void callers_and_a_dispatcher_take_turns(void)
{
	unsigned done = 0;
	pthread_t other;

	start(MIB);
	pthread_create(&other, NULL, dispatch_all_the_time, &done);
	for (unsigned i = 0; i < 25; i++) {
		give("share 0 8:2:9\n");
		CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
		CHECK(!strcmp(answer(), "03 2"));
		give("home 0 8:2\n");
		CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
		CHECK(!strcmp(answer(), " 2"));
	}
	stop = true;
	pthread_join(other, NULL);
	CHECK_EQ(*at(8), 9);
	finish();
}

static void a_release_leaves_no_mapping(void)
{
	start_with_helper(MIB);
	expect("share 0 8:2:9,30:4:31\n", "3f 6");
	expect("home 0 31:2\n", " 2");
	CHECK_EQ(memctl_release(l, &e), 0);
	CHECK_EQ(mappings("memfd:"), 0);
	expect("present 0 8:2\n", "");
	finish();
}

static void after_the_daemons_death_shared_pages_stay(void)
{
	start_with_helper(MIB);
	expect("share 0 8:4:9\n", "0f 4");
	*at(8) = 88;
	fake_kill(fake);
	CHECK_EQ(*at(8), 88);
	CHECK_EQ(*at(9), 10);
	*at(8) = 89;
	CHECK_EQ(*at(8), 89);
}

static void with_a_user_mode_userfaultfd(void)
{
	FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
	char now = 0;

	if (f && fread(&now, 1, 1, f) == 1 && now == '1')
		check_skip("vm.unprivileged_userfaultfd is 1: every user has full handling");
	if (f)
		fclose(f);
	fake = fake_start();
	if (getuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
		check_skip("cannot become nobody");
	prctl(PR_SET_DUMPABLE, 1);
	if (!access("/dev/userfaultfd", R_OK | W_OK))
		check_skip("/dev/userfaultfd is open to all: every user has full handling");
	start_with_helper(MIB);
	CHECK_EQ(memctl_fault_handling(m), MEMCTL_FAULTS_USER_MODE);
	expect("share 0 8:4:9\n", "0f 4");
	*at(9) = 99;
	expect("private 0 8:4\n", "02");
	expect("home 0 8:4\n", " 4");
	CHECK_EQ(*at(9), 99);
	CHECK_EQ(*at(8), 9);
	memctl_free(m);
}

#define QUICK(fn) { #fn, fn, 20 }

int main(int argc, char **argv)
{
	return check_main(argc, argv,
	        (const struct scenario[]){ QUICK(it_joins_where_sharing_holds), QUICK(a_refusal_is_no_failure),
	                QUICK(it_does_not_join_under_ksm), QUICK(without_a_thread_for_orders_nothing_is_shared),
	                QUICK(after_a_call_that_timed_out_orders_are_answered),
	                QUICK(a_shared_page_reads_the_same_and_a_write_is_heard), QUICK(one_frame_for_many_pages),
	                QUICK(home_brings_the_private_copy), QUICK(a_zap_spares_private_copies),
	                QUICK(wrong_orders_do_nothing), QUICK(home_stops_at_a_page_that_is_there),
	                SCENARIO(writers_lose_nothing_and_are_found), SCENARIO(a_child_inherits_nothing),
	                SCENARIO(without_the_lock_children_inherit),
	                SCENARIO(at_the_limit_of_mappings_it_says_how_far_it_came),
	                QUICK(a_waiting_call_carries_orders_out), QUICK(callers_and_a_dispatcher_take_turns),
	                QUICK(a_release_leaves_no_mapping), QUICK(after_the_daemons_death_shared_pages_stay),
	                QUICK(with_a_user_mode_userfaultfd), { 0 } });
}
