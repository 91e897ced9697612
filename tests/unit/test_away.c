/* The library when its daemon has lost it, or lets it go, asks how pages lie, or serves nobody (fake_daemon.h). */
#include "tests/unit/restarted.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- lost ---- */

static void a_daemon_that_knows_us_no_more(void)
{
	struct memctl_lease *second = NULL;
	pthread_t t;

	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	*at(1) = 77;
	fake_die(fake);
	t = start_toucher();
	fake->forgets = true;
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_LOST);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	CHECK_MSG(strstr(e.message, "no more"), "%s", e.message);
	CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &second, &e), -ENOTCONN);
	CHECK_EQ(memctl_dispatch(m, &e), -ENOTCONN);
	CHECK(!memctl_is_plain(m, NULL));
	CHECK_EQ(*at(1), 77);
	usleep(200000);
	CHECK_EQ(touched, 1); /* page 9 is waited for: no zeros */
	CHECK_EQ(fake_count(fake, "Resume"), 1);
	(void)t; /* waits to the end of the process */
	_exit(0);
}

static void a_daemon_that_knows_a_lease_no_more(void)
{
	start();
	fake_die(fake);
	fake->forgets_leases = true;
	fake_again(fake);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_LOST);
	CHECK_EQ(memctl_release(l, &e), 0);
	finish();
}

static void without_leases_it_registers_anew(void)
{
	connect_to_fake(5000);
	strcpy(fake->sharing, "vm");
	register_vm();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	CHECK_EQ(fake_count(fake, "JoinPool"), 1);
	fake_die(fake);
	fake->forgets = true;
	fake->names_taken = 2;
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(fake_count(fake, "Register a"), 2);
	CHECK_EQ(fake_count(fake, "JoinPool maps"), 2);
	expect_note("Attend feedbeefcafef00e");	/* sent, and not waited for */
	lease(MIB);
	for (unsigned page = 0; page < 8; page++)
		CHECK_EQ(*at(page), page + 1);
	/* from the pool of now */
	give("share 0 3:1:4\n");
	expect_note("Done 1 01 1");
	*at(3) = 33;
	CHECK_EQ(*at(3), 33);
	/* and the new token is the one of next time */
	fake->forgets = false;
	fake_die(fake);
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(fake_count(fake, "Resume feedbeefcafef00e"), 1);
	CHECK_EQ(*at(3), 33);
	finish();
}

/* ---- zap ---- */

/* Of page tables, in KiB. */
static unsigned long tables(void)
{
	unsigned long kib = 0;
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof line, f))
		sscanf(line, "VmPTE: %lu", &kib);
	if (f)
		fclose(f);
	return kib;
}

/* The daemon may be protecting pages at that moment: where a table goes away, they would not be. */
static void a_zap_leaves_page_tables(void)
{
	unsigned long before, after;

	connect_to_fake(5000);
	register_vm();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	lease(16 * MIB);
	for (unsigned page = 0; page < 16 * MIB / PAGE; page += 512)
		*at(page) = page + 1;
	before = tables();
	give("zap 0 0:4096\n");
	expect_note("Done 1 ");
	after = tables();
	CHECK_MSG(after + 8 > before, "%lu KiB of page tables, %lu before", after, before);
	CHECK_EQ(*at(512), 513);
	finish();
}

/* ---- let go ---- */

static void it_is_let_go(void)
{
	struct memctl_stats s = { .struct_size = sizeof s };
	struct memctl_lease *more;
	char flags[256];
	const char *why;
	pthread_t t;

	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	*at(1) = 77;
	fake->no_pages = true;
	t = start_toucher(); /* of a page that is zero, by the daemon's word */
	give("plain 0 0:5\n");
	expect_note("Done 1 ");
	CHECK_EQ(touched, 1);
	give("plain 0 0:256\n");
	expect_note("Done 2  256");
	expect_touched(t, 0);
	vm_flags(flags);
	CHECK_MSG(!strstr(flags, " um") && !strstr(flags, " uw"), "%s", flags);
	CHECK(!memctl_is_plain(m, NULL)); /* until the daemon closes */
	CHECK_EQ(*at(1), 77);
	/* what is about the lease is done here */
	CHECK_EQ(memctl_discard(l, PAGE, PAGE, &e), 0);
	CHECK_EQ(*at(1), 0);
	CHECK_EQ(memctl_pin(l, 0, MIB, &e), 0);
	CHECK_EQ(fake_count(fake, "discard") + fake_count(fake, "pin"), 0);
	give("plain 0 0:256\n"); /* asked again, it is said again */
	expect_note("Done 3  256");
	give("hangup\n");
	expect_event(MEMCTL_EVENT_RELEASED);
	no_event();
	CHECK(memctl_is_plain(m, &why) && strlen(why) > 20);
	CHECK_EQ(memctl_fault_handling(m), MEMCTL_FAULTS_NONE);
	CHECK_EQ(memctl_populate(l, 0, MIB, &e), 0);
	CHECK_EQ(memctl_stats(m, &s, &e), 0);
	CHECK_EQ(s.leased, MIB);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &more, &e), 0);
	CHECK_EQ(*(uint64_t *)memctl_lease_address(more), 0);
	usleep(200000);
	CHECK_EQ(fake_count(fake, "Resume"), 0);
	CHECK_EQ(memctl_release(l, &e), 0);
	CHECK_EQ(fake_count(fake, "Release"), 0);
	finish();
}

static void what_is_shared_is_not_let_go(void)
{
	char flags[256];

	start_sharing();
	give("share 0 3:1:4\n");
	expect_note("Done 1 01 1");
	give("plain 0 0:256\n");
	expect_note("Done 2 ");
	vm_flags(flags);
	CHECK_MSG(strstr(flags, " um") && strstr(flags, " uw"), "%s", flags);
	give("home 0 3:1\n");
	expect_note("Done 3  1");
	give("plain 0 0:256\n");
	expect_note("Done 4  256");
	CHECK_EQ(*at(3), 4);
	CHECK_EQ(mappings("memfd:pool"), 0);
	finish();
}

/* The daemon dies between two of its leases. */
static void half_let_go(void)
{
	struct memctl_lease *second;

	start();
	CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &second, &e), 0);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	give("plain 0 0:256\n");
	expect_note("Done 1  256");
	fake_die(fake);
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(fake_count(fake, "ResumeLease 0 right plain"), 1);
	CHECK_EQ(fake_count(fake, "ResumeLease 1 right"), 1);
	give("plain 1 0:256\n");
	expect_note("Done 2  256");
	fake_die(fake); /* this is also how a daemon ends that has let everybody go */
	expect_event(MEMCTL_EVENT_RELEASED);
	CHECK(memctl_is_plain(m, NULL));
	finish();
}

/* ---- settle ---- */

static void it_says_how_pages_lie(void)
{
	start_sharing();
	give("share 0 0:4:1\n");
	expect_note("Done 1 0f 4");
	*at(1) = 111;
	CHECK_EQ(fake->breaks, 1);
	fake_die(fake);
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	/* as when a break was under way: the daemon had ended the protection, and nobody wrote yet */
	give("unprotect 0 2:1\n");
	CHECK(fake_note(fake, &notes, "unprotected"));
	give("settle 0 0:8\n");
	expect_note("Done 2 0f0d");
	give("settle 0 0:3,10:2\n");
	expect_note("Done 3 a700");
	give("settle 0 100:256\n"); /* beyond the lease */
	expect_note("Done 4 ");
	*at(2) = 222;
	CHECK_EQ(fake->breaks, 2); /* it was protected again */
	give("settle 0 2:1\n");
	expect_note("Done 5 01");
	CHECK_EQ(*at(1), 111);
	CHECK_EQ(*at(2), 222);
	give("home 0 0:4\n");
	expect_note("Done 6  4");
	give("settle 0 0:4\n");
	expect_note("Done 7 00");
	CHECK_EQ(*at(1), 111);
	CHECK_EQ(*at(3), 4);
	finish();
}

/* ioctl(2) for registering gives ENOMEM from here on, in this thread and those it makes. */
static void forbid_registering(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, UFFDIO_REGISTER, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* An order that came to no end leaves pages of which nobody may say how they lie. */
static void what_is_unfinished_is_not_settled(void)
{
	connect_to_fake(5000);
	strcpy(fake->sharing, "vm");
	register_vm();
	lease(MIB);
	for (unsigned page = 0; page < 8; page++)
		CHECK_EQ(*at(page), page + 1);
	forbid_registering();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	give("share 0 3:1:4\n");
	give("settle 0 3:1\n");
	give("plain 0 0:256\n");
	give("present 0 0:1\n");
	expect_note("Done 3 "); /* refused; nothing came of the others */
	expect_note("Done 4 01");
	CHECK_EQ(fake_count(fake, "Done"), 2);
	finish();
}

/* ---- who waits ---- */

static void a_stall_is_told(void)
{
	struct memctl_event event;
	pthread_t t;

	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	CHECK_EQ(memctl_stalled_ms(m), 0);
	fake->no_pages = true;
	t = start_toucher();
	event = wait_event();
	CHECK_EQ(event.kind, MEMCTL_EVENT_STALLED);
	CHECK_MSG(event.stalled_ms >= 1000 && event.stalled_ms < 6000, "%u ms", (unsigned)event.stalled_ms);
	CHECK(memctl_stalled_ms(m) >= 1000);
	fake->no_pages = false;
	give("wake 0 0:256\n");
	expect_touched(t, 10);
	event = wait_event();
	CHECK_EQ(event.kind, MEMCTL_EVENT_SERVED);
	CHECK_MSG(event.stalled_ms >= 1000 && event.stalled_ms < 6000, "%u ms", (unsigned)event.stalled_ms);
	CHECK_EQ(memctl_stalled_ms(m), 0);
	finish();
}

static void a_stall_is_told_while_it_is_away(void)
{
	struct memctl_event event = { .struct_size = sizeof event };
	pthread_t t;

	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	fake_die(fake);
	t = start_toucher();
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	event = wait_event();
	CHECK_EQ(event.kind, MEMCTL_EVENT_STALLED);
	CHECK_MSG(event.stalled_ms >= 1000 && event.stalled_ms < 6000, "%u ms", (unsigned)event.stalled_ms);
	fake_again(fake);
	expect_touched(t, 10);
	for (unsigned i = 0; i < 2; i++) { /* in either order */
		event = wait_event();
		CHECK(event.kind == MEMCTL_EVENT_RECONNECTED || event.kind == MEMCTL_EVENT_SERVED);
	}
	finish();
}

/* Somebody waits at nearly every look, and is served. */
static void load_is_no_stall(void)
{
	uint64_t end = ms() + 3000;
	pthread_t t[4];

	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, touch_on_and_on, NULL), 0);
	while (ms() < end)
		usleep(10000);
	no_event();
	stop = true;
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	finish();
}

/* Programs of an older header have a smaller event. */
static void an_event_of_yesterday(void)
{
	struct {
		size_t struct_size;
		enum memctl_event_kind kind;
		uint32_t after;
	} event = { .struct_size = 12, .after = 5 };

	start();
	fake_die(fake);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(memctl_next_event(m, (struct memctl_event *)(void *)&event), 1);
	CHECK_EQ(event.kind, MEMCTL_EVENT_DISCONNECTED);
	CHECK_EQ(event.struct_size, 12);
	CHECK_EQ(event.after, 5);
	finish();
}

#define QUICK(fn) { #fn, fn, 30 }

int main(int argc, char **argv)
{
	return check_main(argc, argv,
	        (const struct scenario[]){ QUICK(a_daemon_that_knows_us_no_more),
	                QUICK(a_daemon_that_knows_a_lease_no_more),
	                QUICK(without_leases_it_registers_anew), QUICK(a_zap_leaves_page_tables), QUICK(it_is_let_go),
	                QUICK(what_is_shared_is_not_let_go), QUICK(half_let_go),
	                QUICK(it_says_how_pages_lie), QUICK(what_is_unfinished_is_not_settled), QUICK(a_stall_is_told),
	                QUICK(a_stall_is_told_while_it_is_away), QUICK(load_is_no_stall),
	                QUICK(an_event_of_yesterday), { 0 } });
}
