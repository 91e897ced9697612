/* The experiments of Waldspurger's paper of 2002 on the modelled host, with its sizes: what it measured has to come out in kind.
 * And shares, which it defines and does not measure. */
#include "tests/lib/check.h"
#include "tests/sim/model.h"
#include "tests/sim/plot.h"

#include <math.h>

static struct host host;

/* Two VMs of 256 MiB and equal shares on 360 MiB: one idles, one would use all of it.  In the middle the tax is raised. */
static double busy_gains(unsigned type)
{
	struct host *h = &host;
	struct guest *idle, *busy;
	double done = 0, before, after, held;

	host_begin(h, 360 * MIB);
	h->idle_tax_type = type;
	h->idle_tax_pct = 0;
	idle = host_add(h, "idle", GUEST_IDEAL, 256 * MIB, 2560);
	idle->used = 240 * MIB;
	idle->hot = 5 * MIB;
	guest_settle(h, idle);
	busy = host_add(h, "busy", GUEST_IDEAL, 256 * MIB, 2560);
	busy->used = busy->hot = 240 * MIB;
	busy->grows = 3000;
	host_run(h, 240);
	guest_speed(busy, &done, 1);
	host_run(h, 60);
	before = guest_speed(busy, &done, 60);
	held = guest_charged(busy);
	h->idle_tax_pct = 75;
	host_run(h, 240);
	guest_speed(busy, &done, 1);
	host_run(h, 60);
	after = guest_speed(busy, &done, 60);
	plot(h, type ? "idle-tax-progressive" : "idle-tax-flat", "IdleTax 0, from 300 s on 75 %: two equal VMs");
	printf("  IdleTax 0: the busy VM has %.0f MiB and makes %.0f accesses a second; 75 %%: %.0f MiB, %.0f: %.1f times\n", held / MIB,
		before, guest_charged(busy) / MIB, after, after / before);
	CHECK_MSG(!h->broken, "%s", h->broken);
	return after / before;
}

static void the_idle_tax_gives_to_the_busy(void)
{
	CHECK(busy_gains(0) >= 1.3);
}

static void a_progressive_tax_does_as_well(void)
{
	CHECK(busy_gains(1) >= 1.3);
}

/* 1472 MiB of VMs on 1 GiB.  All boot at once, and zero all of their memory, which the scan finds; then one after the other
 * gets work to do. */
static void five_vms_on_too_little_memory(void)
{
	static const struct {
		const char *name;
		double mib, idle, busy;
	} rows[5] = { { "exchange", 256, 100, 200 }, { "citrix 1", 320, 120, 280 }, { "citrix 2", 320, 120, 280 },
		{ "sql", 320, 110, 250 }, { "web", 256, 90, 90 } };
	struct host *h = &host;
	struct guest *g[5];
	double done = 0, most = 0, read, speed[4], boot_written = 0;

	host_begin(h, 1024 * MIB);
	for (int i = 0; i < 5; i++) {
		g[i] = host_add(h, rows[i].name, GUEST_IDEAL, rows[i].mib * MIB, rows[i].mib * 10);
		g[i]->used = rows[i].mib * MIB;
		g[i]->hot = 20 * MIB;
		g[i]->grows = 6000;
		g[i]->zeroes = 1500;
	}
	host_run(h, 20);
	for (int i = 0; i < 5; i++) {
		most += guest_charged(g[i]);
		g[i]->used = rows[i].idle * MIB;
		g[i]->hot = 25 * MIB;
	}
	host_run(h, 280);
	for (int i = 0; i < 5; i++)
		boot_written += g[i]->written;
	/* each of four works for five minutes, and then keeps what it filled */
	for (int i = 0; i < 4; i++) {
		g[i]->used = rows[i].busy * MIB;
		g[i]->hot = rows[i].busy * 0.9 * MIB;
		host_run(h, 120);
		done = g[i]->done;
		host_run(h, 180);
		speed[i] = (g[i]->done - done) / 180;
		g[i]->hot = 25 * MIB;
		g[i]->zeroes = 0;
	}
	read = 0;
	for (int i = 0; i < 5; i++)
		read += g[i]->read;
	plot(h, "five-vms", "Five VMs, 1472 MiB together, on 1 GiB");
	printf("  booting: %.0f of 1024 MiB held after 20 s, %.0f MiB written to swap; at the end %.0f MiB read back in all\n", most / MIB,
		boot_written / MIB, read / MIB);
	for (int i = 0; i < 4; i++)
		printf("  %s: %.0f of 20000 accesses a second when it has work\n", rows[i].name, speed[i]);
	CHECK_MSG(!h->broken, "%s", h->broken);
	for (int i = 0; i < 4; i++)
		CHECK_MSG(speed[i] > 0.95 * 20000, "%s makes only %.0f accesses a second", rows[i].name, speed[i]);
	for (int i = 0; i < 5; i++)
		CHECK_MSG(g[i]->starved_s < 0.5, "%s found nothing free for %.1f s", rows[i].name, g[i]->starved_s);
	CHECK(h->worst_state <= HOST_HARD);
	CHECK(h->low_s < 0.05);
}

/* Idle VMs that have freed 40 % of their memory, dirty and incompressible, and one that needs it: what that costs. */
static void comes(double *ret_swapped, double *ret_speed, enum guest_kind kind, const char *name)
{
	struct host *h = &host;
	struct guest *idle[3], *busy;
	double done;

	host_begin(h, 1024 * MIB);
	for (int i = 0; i < 3; i++) {
		idle[i] = host_add(h, i ? "idle" : name, kind, 320 * MIB, 3200);
		idle[i]->used = 0.9 * 320 * MIB;
		idle[i]->hot = 20 * MIB;
		guest_settle(h, idle[i]);
		idle[i]->used = 0.5 * 320 * MIB;
	}
	host_run(h, 1);
	busy = host_add(h, "busy", GUEST_BARE, 400 * MIB, 4000);
	busy->used = busy->hot = 380 * MIB;
	busy->grows = 3000;
	host_run(h, 60);
	/* the idle ones wake, and need what they had not freed */
	for (int i = 0; i < 3; i++)
		idle[i]->hot = 0.5 * 320 * MIB;
	host_run(h, 60);
	done = busy->done;
	*ret_swapped = 0;
	for (unsigned i = 0; i < h->n; i++)
		*ret_swapped += h->guests[i].written + h->guests[i].read;
	host_run(h, 60);
	*ret_speed = (busy->done - done) / 60;
	plot(h, name, "Idle VMs that have freed 40 %, and one that needs memory");
	CHECK_MSG(!h->broken, "%s", h->broken);
}

static void a_balloon_saves_the_swapping(void)
{
	double swapped, speed, without_swapped, without_speed;

	comes(&swapped, &speed, GUEST_IDEAL, "balloon");
	comes(&without_swapped, &without_speed, GUEST_BARE, "swap");
	printf("  with a balloon %.0f MiB are swapped, without %.0f; the busy VM makes %.0f and %.0f accesses a second\n", swapped / MIB,
		without_swapped / MIB, speed, without_speed);
	CHECK(swapped <= 0.2 * without_swapped);
	CHECK(speed >= without_speed);
}

/* Two VMs that would each use more than there is: what they hold comes to be as their shares. */
static void shares_share_out(void)
{
	static const double ratios[] = { 1, 2, 4 };

	for (unsigned i = 0; i < 3; i++) {
		struct host *h = &host;
		struct guest *more, *less;
		double held[2] = { 0, 0 }, ratio;

		host_begin(h, 512 * MIB);
		more = host_add(h, "more", GUEST_BARE, 600 * MIB, 1000 * ratios[i]);
		less = host_add(h, "less", GUEST_BARE, 600 * MIB, 1000);
		more->used = more->hot = less->used = less->hot = 550 * MIB;
		more->grows = less->grows = 3000;
		host_run(h, 120);
		for (int k = 0; k < 60; k++) {
			host_run(h, 1);
			held[0] += guest_charged(more);
			held[1] += guest_charged(less);
		}
		ratio = held[0] / held[1];
		printf("  shares %.0f:1: memory %.2f:1\n", ratios[i], ratio);
		CHECK_MSG(!h->broken, "%s", h->broken);
		CHECK_MSG(fabs(ratio / ratios[i] - 1) < 0.1, "shares of %.0f:1 make %.2f:1", ratios[i], ratio);
	}
}

/* A library that does not answer: its VM looks idle, until what is taken from it makes it fault. */
static void silence_does_not_pay(void)
{
	struct host *h = &host;
	struct guest *good, *silent;

	host_begin(h, 512 * MIB);
	good = host_add(h, "good", GUEST_BARE, 400 * MIB, 4000);
	silent = host_add(h, "silent", GUEST_SILENT, 400 * MIB, 4000);
	good->used = good->hot = silent->used = silent->hot = 350 * MIB;
	good->grows = silent->grows = 3000;
	host_run(h, 300);
	plot(h, "silent", "Two equal VMs at work; the library of one does not answer");
	printf("  a VM whose library answers has %.0f MiB, one whose does not %.0f\n", guest_charged(good) / MIB, guest_charged(silent) / MIB);
	CHECK_MSG(!h->broken, "%s", h->broken);
	CHECK(guest_charged(silent) <= guest_charged(good) + MIB);
	CHECK(guest_charged(silent) > 30 * MIB);
}

/* A VM's own limit is between it and its setting: nobody else gives anything for it, and no balloon is asked. */
static void own_limit_is_its_own(void)
{
	struct host *h = &host;
	struct guest *limited, *other;

	host_begin(h, 1024 * MIB);
	limited = host_add(h, "limited", GUEST_IDEAL, 400 * MIB, 4000);
	limited->limit = 200 * MIB;
	limited->used = 300 * MIB;
	limited->hot = 100 * MIB;
	limited->grows = 3000;
	other = host_add(h, "other", GUEST_IDEAL, 400 * MIB, 10);
	other->used = 350 * MIB;
	other->hot = 10 * MIB;
	guest_settle(h, other);
	host_run(h, 200);
	printf("  limited to 200 MiB it has %.0f, %.0f MiB swapped; its balloon %.0f MiB; another has %.0f of 350\n",
		guest_charged(limited) / MIB, limited->written / MIB, limited->balloon / MIB, guest_charged(other) / MIB);
	CHECK_MSG(!h->broken, "%s", h->broken);
	CHECK(guest_charged(limited) <= 200 * MIB + 1 && limited->balloon < 1 && limited->written > 90 * MIB);
	CHECK(guest_charged(other) > 350 * MIB - 1 && other->balloon < 1);
}

int main(int argc, char **argv)
{
	plot_begin(&argc, argv);
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(five_vms_on_too_little_memory),
		SCENARIO(the_idle_tax_gives_to_the_busy),
		SCENARIO(a_progressive_tax_does_as_well),
		SCENARIO(a_balloon_saves_the_swapping),
		SCENARIO(shares_share_out),
		SCENARIO(silence_does_not_pay),
		SCENARIO(own_limit_is_its_own),
		{ 0 } });
}
