/* The balloon in the library: what is said to a daemon (fake_daemon.h) for it, and what of a daemon that dies. */
#include "proto/ops.h"
#include "tests/unit/restarted.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void begin(void)
{
	start();
	CHECK_EQ(memctl_balloon_start(m, &e), 0);
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	notes = 0;
	expect_note("balloon_start");
}

static void pages_go_in_runs(void)
{
	uint64_t pages[] = { 9, 3, 4, 200, 5, 10 };
	uint8_t refused[6];

	begin();
	memset(refused, 7, sizeof refused);
	CHECK_EQ(memctl_balloon_inflate(l, pages, 6, refused, &e), 6);
	expect_note("balloon_inflate 0 3:3,9:2,200:1");
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(refused[i], 0);
	CHECK_EQ(memctl_balloon_deflate(l, pages + 1, 2, &e), 0);
	expect_note("balloon_deflate 0 3:2");
	CHECK_EQ(memctl_balloon_inflate(l, NULL, 0, NULL, &e), 0);
	finish();
}

static void refusals_are_told_page_by_page(void)
{
	uint64_t pages[] = { 7, 2, 11, 4, 13, 15 };
	uint8_t refused[6];

	begin();
	fake->refuse_odd = true;
	CHECK_EQ(memctl_balloon_inflate(l, pages, 6, refused, &e), 2);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(refused[i], pages[i] % 2);
	CHECK_EQ(memctl_balloon_inflate(l, pages, 6, NULL, &e), 2);
	finish();
}

static void long_lists_go_in_pieces(void)
{
	static uint64_t pages[1500];
	static uint8_t refused[1500];
	struct memctl_lease *large;

	begin();
	CHECK_EQ(memctl_lease(m, 1 << 30, 16 * MIB, &large, &e), 0);
	/* backwards, and no two of them neighbours */
	for (unsigned i = 0; i < 1500; i++)
		pages[i] = 2 * (1499 - i);
	CHECK_EQ(memctl_balloon_inflate(large, pages, 1500, refused, &e), 1500);
	CHECK_EQ(fake_count(fake, "balloon_inflate 1"), 3);
	for (unsigned i = 0; i < 1500; i++)
		pages[i] = i;
	fake->refuse_odd = true;
	CHECK_EQ(memctl_balloon_inflate(large, pages, 1500, refused, &e), 750);
	for (unsigned i = 0; i < 1500; i++)
		CHECK_EQ(refused[i], i % 2);
	finish();
}

static void what_makes_no_sense_is_not_sent(void)
{
	uint64_t twice[] = { 4, 5, 4 }, beyond[] = { 1, MIB / PAGE };

	start();
	CHECK_EQ(memctl_balloon_target(m), 0);
	CHECK_EQ(memctl_balloon_poll(m, NULL, &e), -EBUSY);
	CHECK_EQ(memctl_balloon_inflate(l, beyond, 1, NULL, &e), -EBUSY);
	CHECK_EQ(memctl_balloon_start(NULL, &e), -EINVAL);
	CHECK_EQ(memctl_balloon_start(m, &e), 0);
	CHECK_EQ(memctl_balloon_inflate(l, twice, 3, NULL, &e), -EINVAL);
	CHECK_EQ(memctl_balloon_inflate(l, beyond, 2, NULL, &e), -EINVAL);
	CHECK_EQ(memctl_balloon_deflate(l, beyond, 2, &e), -EINVAL);
	CHECK_EQ(memctl_balloon_inflate(NULL, twice, 1, NULL, &e), -EINVAL);
	CHECK_EQ(memctl_balloon_inflate(l, NULL, 1, NULL, &e), -EINVAL);
	CHECK_EQ(fake_count(fake, "balloon_inflate"), 0);
	CHECK_EQ(fake_count(fake, "balloon_deflate"), 0);
	finish();
}

static void targets_come_by_order_and_by_poll(void)
{
	uint64_t target;

	begin();
	give("balloon 0 5:1\n");
	expect_event(MEMCTL_EVENT_BALLOON);
	CHECK_EQ(memctl_balloon_target(m), 5 * PAGE);
	/* the same again is nothing new; nobody answers it */
	give("balloon 0 5:1\n");
	give("present 0 1:1\n");
	expect_note("Done 3 00");
	no_event();
	fake->target = 9 * PAGE;
	CHECK_EQ(memctl_balloon_poll(m, &target, &e), 0);
	CHECK_EQ(target, 9 * PAGE);
	CHECK_EQ(memctl_balloon_target(m), 9 * PAGE);
	expect_event(MEMCTL_EVENT_BALLOON);
	finish();
}

/* The helper may be quicker than the thread that waits for BalloonStart's reply. */
static void a_target_before_the_reply_is_kept(void)
{
	start();
	CHECK_EQ(memctl_helper_start(m, &e), 0);
	give("balloon 0 5:1\n");
	give("present 0 1:1\n");
	expect_note("Done 2 00");
	no_event();
	CHECK_EQ(memctl_balloon_target(m), 0);
	CHECK_EQ(memctl_balloon_start(m, &e), 0);
	expect_event(MEMCTL_EVENT_BALLOON);
	CHECK_EQ(memctl_balloon_target(m), 5 * PAGE);
	CHECK_EQ(memctl_balloon_start(m, &e), 0);
	no_event();
	finish();
}

/* Sixteen events are kept.  Targets change often; that the daemon went and came back is told once. */
static void targets_push_nothing_out(void)
{
	begin();
	fake_die(fake);
	fake_again(fake);
	for (unsigned i = 1; i <= 30; i++) {
		char text[40];

		snprintf(text, sizeof text, "balloon 0 %u:1\n", i);
		give(text);
	}
	while (memctl_balloon_target(m) != 30 * PAGE)
		usleep(1000);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	expect_event(MEMCTL_EVENT_BALLOON);
	no_event();
	finish();
}

static void calls_go_on_after_a_restart(void)
{
	static const enum op_id ids[] = { OP_balloon_start, OP_balloon_inflate, OP_balloon_deflate, OP_balloon_poll };
	uint64_t pages[] = { 3, 4 };

	begin();
	give("balloon 0 5:1\n");
	expect_event(MEMCTL_EVENT_BALLOON);
	for (unsigned i = 0; i < 8; i++) {
		*(i % 2 ? &fake->die_after : &fake->die_before) = ids[i / 2] + 1;
		fake->again = 1;
		fake->target = 5 * PAGE;
		switch (ids[i / 2]) {
		case OP_balloon_start:
			CHECK_EQ(memctl_balloon_start(m, &e), 0);
			break;
		case OP_balloon_inflate:
			CHECK_EQ(memctl_balloon_inflate(l, pages, 2, NULL, &e), 2);
			break;
		case OP_balloon_deflate:
			CHECK_EQ(memctl_balloon_deflate(l, pages, 2, &e), 0);
			break;
		default:
			CHECK_EQ(memctl_balloon_poll(m, NULL, &e), 0);
		}
		CHECK_EQ(fake->die_after + fake->die_before, 0);
		expect_event(MEMCTL_EVENT_DISCONNECTED);
		expect_event(MEMCTL_EVENT_RECONNECTED);
		/* a driver keeps what it has until there is another plan, and begins anew by its own will only */
		CHECK_EQ(memctl_balloon_target(m), 5 * PAGE);
	}
	/* at first, and the two that were asked for: each of them done or not, and then once more */
	CHECK_EQ(fake_count(fake, "balloon_start"), 1 + 1 + 2);
	no_event();
	finish();
}

/* A client without leases is registered anew: the daemon has to hear of its driver again. */
static void a_new_registration_has_a_driver(void)
{
	uint64_t target;

	begin();
	CHECK_EQ(memctl_release(l, &e), 0);
	fake->forgets = true;
	fake_die(fake);
	fake_again(fake);
	expect_event(MEMCTL_EVENT_DISCONNECTED);
	expect_event(MEMCTL_EVENT_RECONNECTED);
	CHECK_EQ(fake_count(fake, "balloon_start"), 1);
	CHECK_EQ(memctl_balloon_poll(m, &target, &e), 0);
	CHECK_EQ(fake_count(fake, "balloon_start"), 2);
	CHECK_EQ(memctl_balloon_poll(m, &target, &e), 0);
	CHECK_EQ(fake_count(fake, "balloon_start"), 2);
	finish();
}

static void nothing_is_taken_from_who_was_let_go(void)
{
	uint64_t pages[] = { 1, 2 }, target = 1;
	uint8_t refused[2] = { 0 };

	begin();
	for (unsigned page = 0; page < MIB / PAGE; page++)
		CHECK_EQ(*at(page), page + 1);
	give("balloon 0 5:1\n");
	expect_event(MEMCTL_EVENT_BALLOON);
	give("plain 0 0:256\n");
	expect_note("Done 2  256");
	give("hangup\n");
	expect_event(MEMCTL_EVENT_BALLOON);
	expect_event(MEMCTL_EVENT_RELEASED);
	CHECK_EQ(memctl_balloon_target(m), 0);
	CHECK_EQ(memctl_balloon_inflate(l, pages, 2, refused, &e), 0);
	CHECK(refused[0] && refused[1]);
	CHECK(*at(1) == 2 && *at(2) == 3);
	CHECK_EQ(memctl_balloon_deflate(l, pages, 2, &e), 0);
	CHECK_EQ(memctl_balloon_poll(m, &target, &e), 0);
	CHECK_EQ(target, 0);
	CHECK_EQ(memctl_balloon_start(m, &e), 0);
	finish();
}

#define QUICK(fn) { #fn, fn, 20 }

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		QUICK(pages_go_in_runs),
		QUICK(refusals_are_told_page_by_page),
		QUICK(long_lists_go_in_pieces),
		QUICK(what_makes_no_sense_is_not_sent),
		QUICK(targets_come_by_order_and_by_poll),
		QUICK(a_target_before_the_reply_is_kept),
		QUICK(targets_push_nothing_out),
		QUICK(calls_go_on_after_a_restart),
		QUICK(a_new_registration_has_a_driver),
		QUICK(nothing_is_taken_from_who_was_let_go),
		{ 0 } });
}
