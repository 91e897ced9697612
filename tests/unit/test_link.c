/* The library when its daemon dies and comes back (fake_daemon.h): who makes the link up again, what becomes of calls and orders
 * that were under way. */
#include "proto/ops.h"
#include "tests/unit/restarted.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- coming back ---- */

static void the_helper_comes_back(void)
{
	struct memctl_lease *second;
	pthread_t t;
	int fd;

	start();
	CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &second, &e), 0);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	fd = memctl_fd(m);
	*at(1) = 77;
	notes = fake->notes_n;
	fake_die(fake);
	t = start_toucher();
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	CHECK_EQ(*at(1), 77);
	fake_again(fake);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	expect_touched(t, 10);
	expect_note("Resume feedbeefcafef00d");
	/* the newest lease first */
	expect_note("ResumeLease 1 right");
	expect_note("ResumeLease 0 right");
	expect_note("Attend feedbeefcafef00d");
	CHECK_EQ(fake_count(fake, "Unnamed"), 0);
	give("present 0 1:1,50:1\n");
	expect_note("Done 1 01");
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), 0);
	CHECK_EQ(memctl_fd(m), fd);
	CHECK_EQ(*at(1), 77);
	no_event();
	finish();
}

/* Faults that the daemon had read and not served are in nobody's queue. */
static void faults_that_had_been_read_come_again(void)
{
	pthread_t t;

	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	fake->no_pages = true;
	t = start_toucher();
	fake_die(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	fake->no_pages = false;
	fake_again(fake);
	expect_touched(t, 10);
	finish();
}

static void loop_until(enum memctl_event_kind kind, int (*wait_for_input)(int ms), unsigned *ret_turns)
{
	struct memctl_event event = { .struct_size = sizeof event };
	uint64_t end = ms() + 5000;

	for (*ret_turns = 0; ms() < end; ++*ret_turns) {
		if (wait_for_input(100))
			CHECK(memctl_dispatch(m, &e) >= 0);
		while (memctl_next_event(m, &event))
			if (event.kind == kind)
				return;
	}
	check_fail(__FILE__, __LINE__, "no %s", memctl_event_name(kind));
}

static int by_poll(int wait_ms)
{
	struct pollfd p = { memctl_fd(m), POLLIN, 0 };

	return poll(&p, 1, wait_ms);
}

static int epoll = -1;

static int by_epoll(int wait_ms)
{
	struct epoll_event event;

	return epoll_wait(epoll, &event, 1, wait_ms);
}

/* Registered once, at the beginning. */
static void make_epoll(uint32_t flags)
{
	struct epoll_event event = { .events = EPOLLIN | flags };

	epoll = epoll_create1(EPOLL_CLOEXEC);
	CHECK(epoll >= 0 && !epoll_ctl(epoll, EPOLL_CTL_ADD, memctl_fd(m), &event));
}

static void loop_through_restarts(int (*wait_for_input)(int ms))
{
	unsigned turns;
	uint64_t end;

	for (unsigned i = 0; i < 3; i++) {
		fake_die(fake);
		loop_until(MEMCTL_EVENT_DISCONNECTED, wait_for_input, &turns);
		/* it tries, and does not spin */
		end = ms() + 500;
		for (turns = 0; ms() < end; turns++)
			if (wait_for_input(100))
				CHECK_EQ(memctl_dispatch(m, &e), 0);
		CHECK_MSG(turns > 4 && turns < 40, "%u turns in 0.5 s", turns);
		fake_again(fake);
		loop_until(MEMCTL_EVENT_RECONNECTED, wait_for_input, &turns);
		give("present 0 0:1\n");
		for (end = ms() + 2000; ms() < end && fake_count(fake, "Done") == i;)
			if (wait_for_input(100))
				CHECK(memctl_dispatch(m, &e) >= 0);
		CHECK_EQ(fake_count(fake, "Done"), i + 1);
		/* quiet again, but for the look at who waits */
		end = ms() + 500;
		for (turns = 0; ms() < end; turns++)
			if (wait_for_input(100))
				CHECK_EQ(memctl_dispatch(m, &e), 0);
		CHECK_MSG(turns < 10, "%u turns in 0.5 s of nothing", turns);
		CHECK_EQ(*at(i), i + 1);
	}
}

static void a_loop_of_poll_comes_back(void)
{
	start();
	loop_through_restarts(by_poll);
	finish();
}

static void a_loop_of_epoll_comes_back(void)
{
	start();
	make_epoll(0);
	loop_through_restarts(by_epoll);
	finish();
}

static void a_loop_of_edges_comes_back(void)
{
	start();
	make_epoll(EPOLLET);
	loop_through_restarts(by_epoll);
	finish();
}

static void a_call_comes_back(void)
{
	start();
	fake_die(fake);
	fake->away_ms = 300;
	fake->again = 1;
	CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
	CHECK_EQ(fake_count(fake, "populate"), 1);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(*at(4), 5);
	finish();
}

static void a_call_waits_as_long_as_it_may(void)
{
	uint64_t begun;

	start_within(300);
	fake_die(fake);
	begun = ms();
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	CHECK(ms() - begun >= 300 && ms() - begun < 2000);
	CHECK_MSG(!strcmp(e.name, "org.memctl.Unreachable") && strstr(e.message, "memctld is gone"), "%s: %s", e.name,
	        e.message);
	/* nothing is spoiled by it */
	fake_again(fake);
	CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
	CHECK_EQ(fake_count(fake, "populate"), 1);
	finish();
}

static void not_now_is_no_refusal(void)
{
	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	fake_die(fake);
	fake->not_now = 4;
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(fake_count(fake, "Resume "), 5);
	finish();
}

/* One connection alone: the daemon ends the session, and the library comes back on two. */
static void the_orders_connection_alone_ends(void)
{
	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	give("hangup orders\n");
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(fake_count(fake, "bye"), 1); /* the other, by us */
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), 0);
	finish();
}

static void a_timed_out_connection_is_cured(void)
{
	start_within(300);
	fake->mute = true;
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ETIMEDOUT);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	fake->mute = false;
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN); /* it is not closed: that would end the VM */
	CHECK_EQ(fake_count(fake, "Resume"), 0);
	fake_die(fake);
	fake_again(fake);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
	finish();
}

/* A daemon that hangs, and is killed for it: Resume waits for its successor, too. */
static void a_hung_daemon_is_replaced(void)
{
	start_within(500);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	kill(fake->pid, SIGSTOP);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ETIMEDOUT);
	fake_die(fake);
	fake->mute = true;
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	CHECK(fake_note(fake, &notes, "ignored org.memctl.Resume"));
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), -ENOTCONN);
	fake_die(fake);
	fake->mute = false;
	fake_again(fake);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_MSG(memctl_populate(l, 0, PAGE, &e) == 0, "%s", e.message);
	finish();
}

/* ---- calls that were under way ---- */

static int stats(void)
{
	struct memctl_stats s = { .struct_size = sizeof s };

	return memctl_stats(m, &s, &e);
}

static int ask(const char *method)
{
	char *reply = NULL;
	int r = memctl_call(m, method, "{\"vm\":\"a\"}", &reply, &e);

	free(reply);
	return r;
}

static int carry_out(enum op_id id)
{
	switch (id) {
	case OP_advise:
		return memctl_will_need(l, 0, PAGE, &e);
	case OP_discard:
		return memctl_discard(l, 0, PAGE, &e);
	case OP_populate:
		return memctl_populate(l, 0, PAGE, &e);
	case OP_pin:
		return memctl_pin(l, 0, PAGE, &e);
	case OP_unpin:
		return memctl_unpin(l, 0, PAGE, &e);
	case OP_show_vm:
		return stats();
	case OP_join_pool:
		return memctl_share(m, &e);
	default:
		return -EINVAL;
	}
}

static void calls_are_made_again(void)
{
	static const enum op_id ids[] = { OP_advise, OP_discard, OP_populate, OP_pin, OP_unpin, OP_show_vm, OP_join_pool };

	connect_to_fake(5000);
	strcpy(fake->sharing, "vm");
	register_vm();
	lease(MIB);
	for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++)
		for (int after = 0; after < 2; after++) {
			if (after && ids[i] == OP_join_pool)
				continue; /* has come off already */
			*(after ? &fake->die_after : &fake->die_before) = ids[i] + 1;
			fake->again = 1;
			CHECK_MSG(carry_out(ids[i]) == 0, "%s: %s", ops[ids[i]].name, e.message);
			CHECK_EQ(fake->die_after + fake->die_before, 0);
		}
	/* the same number for the same call, another one for the next */
	CHECK_EQ(fake_count(fake, "pin 0 0 4096 #1"), 1);
	CHECK_EQ(fake_count(fake, "pin 0 0 4096 #2"), 2);
	CHECK_EQ(fake_count(fake, "unpin 0 0 4096 #3"), 1);
	CHECK_EQ(fake_count(fake, "unpin 0 0 4096 #4"), 2);
	CHECK_EQ(fake_count(fake, "discard"), 3);
	finish();
}

static void questions_are_asked_again_and_commands_are_not(void)
{
	start();
	fake->die_after = OP_show_vm + 1;
	fake->again = 1;
	CHECK_MSG(ask("org.memctl.ShowVm") == 0, "%s", e.message);
	fake->die_before = OP_remove_vm + 1;
	fake->again = 1;
	CHECK_EQ(ask("org.memctl.RemoveVm"), -ENOTCONN);
	CHECK_MSG(strstr(e.message, "not known"), "%s", e.message);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), 0);
	/* but one that finds the daemon away waits: it has not been said yet */
	fake_die(fake);
	fake->again = 1;
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_MSG(ask("org.memctl.ShowVm") == 0, "%s", e.message);
	finish();
}

static void a_lease_that_was_half_made(void)
{
	static const enum op_id ids[] = { OP_lease, OP_activate };
	char text[64];

	connect_to_fake(5000);
	register_vm();
	for (unsigned i = 0; i < 4; i++) {
		*(i % 2 ? &fake->die_after : &fake->die_before) = ids[i / 2] + 1;
		fake->again = 1;
		notes = fake->notes_n;
		CHECK_MSG(memctl_lease(m, 0, MIB, &l, &e) == 0, "%s", e.message);
		ram = memctl_lease_address(l);
		CHECK_EQ(*at(7), 8);
		CHECK_EQ(mappings("memfd:fake"), 1);
		if (i) { /* what the first try got is taken back: all but a Lease that was not even heard */
			expect_note("Lease 0 1048576");
			CHECK(fake_note(fake, &notes, "Unnamed"));
		}
		CHECK_EQ(memctl_release(l, &e), 0);
		snprintf(text, sizeof text, "Release");
		CHECK_EQ(fake_count(fake, text), i + 1);
		expect_event(MEMCTL_EVENT_DISCONNECTED);
		expect_event(MEMCTL_EVENT_RECONNECTED);
	}
	finish();
}

/* The caller's address space stays the caller's through it. */
static void a_lease_at_a_place_that_was_half_made(void)
{
	char *place = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	connect_to_fake(5000);
	register_vm();
	fake->die_after = OP_activate + 1;
	fake->again = 1;
	CHECK_MSG(memctl_lease_at(m, 0, MIB, place, &l, &e) == 0, "%s", e.message);
	CHECK(memctl_lease_address(l) == place);
	ram = memctl_lease_address(l);
	CHECK_EQ(*at(7), 8);
	CHECK_EQ(memctl_release(l, &e), 0);
	CHECK_EQ(msync(place, MIB, MS_ASYNC), 0);
	finish();
}

static void a_lease_that_was_half_released(void)
{
	struct memctl_lease *second;

	start();
	CHECK(fake_note(fake, &notes, "Attend"));
	for (int after = 0; after < 2; after++) {
		CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &second, &e), 0);
		*(after ? &fake->die_after : &fake->die_before) = OP_release + 1;
		fake->again = 1;
		CHECK_EQ(memctl_release(second, &e), 0);
		CHECK_EQ(memctl_populate(l, 0, PAGE, &e), 0);
		CHECK(fake_note(fake, &notes, "Attend"));
	}
	CHECK_EQ(fake_count(fake, "Unnamed 1"), 1);
	CHECK_EQ(fake_count(fake, "Unnamed"), 1);	/* the other was known to be released */
	/* while nobody is there it does not wait */
	CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &second, &e), 0);
	fake_die(fake);
	CHECK_EQ(memctl_dispatch(m, &e), 0);
	CHECK_EQ(memctl_release(second, &e), 0);
	fake_again(fake);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), 0);
	expect_note("Unnamed 3");
	CHECK_EQ(*at(3), 4);
	finish();
}

static void a_vm_that_was_half_registered(void)
{
	for (unsigned i = 0; i < 4; i++) {
		connect_to_fake(5000);
		if (i < 2) {
			*(i ? &fake->die_after : &fake->die_before) = OP_register + 1;
			fake->again = 1;
			fake->names_taken = 3 * i;
		} else if (i == 2) { /* since memctl_connect */
			fake_die(fake);
			fake_again(fake);
		} else {
			fake_die(fake);
			fake->away_ms = 300;
			fake->again = 1;
		}
		register_vm();
		lease(MIB);
		CHECK_EQ(*at(7), 8);
		no_event();
		finish();
	}
	/* a name that is taken at the first try is taken */
	connect_to_fake(5000);
	fake->names_taken = 1;
	CHECK_EQ(memctl_register(m,
			 &(struct memctl_vm){ .struct_size = sizeof(struct memctl_vm), .name = "a", .size = MIB }, &e),
	        -EEXIST);
	finish();
}

static void *call_on_and_on(void *userdata)
{
	struct memctl_error why;
	_Atomic unsigned *n = userdata;
	int r = 0;

	while (!stop && !r) {
		r = *n % 2 ? memctl_populate(l, 0, PAGE, &why) : memctl_will_need(l, 0, PAGE, &why);
		++*n;
	}
	return r ? strdup(why.message) : NULL;
}

/* Threads in calls, threads in faults, and the daemon dies again and again. */
static void restarts_under_load(bool with_helper)
{
	pthread_t t[4];
	_Atomic unsigned n[2] = { 0, 1 };
	void *why;

	start();
	if (with_helper)
		CHECK_EQ(memctl_helper_start(m, &e), 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(pthread_create(&t[i], NULL, call_on_and_on, &n[i]), 0);
		CHECK_EQ(pthread_create(&t[2 + i], NULL, touch_on_and_on, NULL), 0);
	}
	for (unsigned i = 0; i < 15; i++) {
		usleep(20000 + i * 1717 % 9000);
		fake_die(fake);
		fake->notes_n = 0;
		usleep(i % 3 * 10000);
		fake_again(fake);
	}
	/* on a slow machine most of the time until now went into coming back */
	for (unsigned i = 0; i < 300 && !(n[0] > 1 && n[1] > 1 && n[0] + n[1] > 15); i++)
		usleep(100000);
	usleep(100000);
	stop = true;
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], &why);
		CHECK_MSG(!why, "thread %u: %s", i, (char *)why);
	}
	CHECK(n[0] > 1 && n[1] > 1 && n[0] + n[1] > 15);
	finish();
}

static void restarts_under_load_with_a_helper(void)
{
	restarts_under_load(true);
}

static void restarts_under_load_with_calls_alone(void)
{
	restarts_under_load(false);
}

/* ---- orders ---- */

/* An order that has arrived is carried out, and its answer goes to nobody. */
static void no_answer_meets_the_next_daemon(void)
{
	start();
	*at(0);
	give("die\npresent 0 0:4\n");
	while (fake->pid)
		usleep(1000);
	CHECK_EQ(memctl_dispatch(m, &e), 1);
	fake_again(fake);
	CHECK_EQ(memctl_populate(l, 0, PAGE, &e), 0);
	CHECK_EQ(fake_count(fake, "Done"), 0);
	give("present 0 0:4\n");
	usleep(100000);
	CHECK_EQ(memctl_dispatch(m, &e), 1);
	expect_note("Done 2 01");
	finish();
}

/* ---- who has our descriptors, who ends ---- */

static void a_child_has_our_descriptors(void)
{
	unsigned turns = 0;
	uint64_t end;
	pid_t pid;

	start();
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	for (unsigned i = 0; i < 2; i++) {
		fake_die(fake);
		loop_until(MEMCTL_EVENT_DISCONNECTED, by_poll, &turns);
		fake_again(fake);
		loop_until(MEMCTL_EVENT_RECONNECTED, by_poll, &turns);
		end = ms() + 500;
		for (turns = 0; ms() < end; turns++)
			if (by_poll(100))
				CHECK_EQ(memctl_dispatch(m, &e), 0);
		CHECK_MSG(turns < 10, "%u turns in 0.5 s of nothing", turns);
	}
	give("hangup orders\n"); /* the daemon hears of it though the child has the calls connection open */
	loop_until(MEMCTL_EVENT_RECONNECTED, by_poll, &turns);
	CHECK_EQ(*at(5), 6);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	finish();
}

static void free_while_it_is_away(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct memctl_lease *second;
		uint64_t begun;

		start();
		CHECK_EQ(memctl_lease(m, 16 * MIB, MIB, &second, &e), 0);
		if (i % 2)
			CHECK_EQ(memctl_helper_start(m, &e), 0);
		fake_die(fake);
		if (i / 2) { /* half-way back */
			fake->mute = true;
			fake_again(fake);
			usleep(100000);
		}
		begun = ms();
		memctl_free(m);
		CHECK_MSG(ms() - begun < 1000, "it took %u ms", (unsigned)(ms() - begun));
		CHECK(msync(ram, PAGE, MS_ASYNC) < 0 && errno == ENOMEM);
		fake_kill(fake);
	}
}

#define QUICK(fn) { #fn, fn, 30 }

int main(int argc, char **argv)
{
	return check_main(argc, argv,
	        (const struct scenario[]){ QUICK(the_helper_comes_back),
	                QUICK(faults_that_had_been_read_come_again), QUICK(a_loop_of_poll_comes_back),
	                QUICK(a_loop_of_epoll_comes_back), QUICK(a_loop_of_edges_comes_back),
	                QUICK(a_call_comes_back), QUICK(a_call_waits_as_long_as_it_may),
	                QUICK(not_now_is_no_refusal), QUICK(the_orders_connection_alone_ends),
	                QUICK(a_timed_out_connection_is_cured), QUICK(a_hung_daemon_is_replaced),
	                QUICK(calls_are_made_again), QUICK(questions_are_asked_again_and_commands_are_not),
	                QUICK(a_lease_that_was_half_made), QUICK(a_lease_at_a_place_that_was_half_made),
	                QUICK(a_lease_that_was_half_released), QUICK(a_vm_that_was_half_registered),
	                QUICK(restarts_under_load_with_a_helper),
	                QUICK(restarts_under_load_with_calls_alone),
	                QUICK(no_answer_meets_the_next_daemon), QUICK(a_child_has_our_descriptors),
	                QUICK(free_while_it_is_away), { 0 } });
}
