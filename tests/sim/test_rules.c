/* Each safety rule of the policy on a modelled host: it holds, and its twin shows that without it the same host comes to
 * harm.  One line of numbers each, for who wonders by how much. */
#include "tests/lib/check.h"
#include "tests/sim/model.h"
#include "tests/sim/plot.h"

#include <stdarg.h>

extern unsigned policy_rules_off;

static char why[256];

/* What went wrong: that of the model's own assertions first. */
__attribute__((format(printf, 3, 4)))
static const char *verdict(const struct host *h, bool good, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof why, fmt, args);
	va_end(args);
	printf("  %s%s\n", policy_rules_off ? "rule off: " : "", why);
	if (h->broken)
		return h->broken;
	return good ? NULL : why;
}

static void holds(const char *(*scenario)(void))
{
	const char *wrong = scenario();

	CHECK_MSG(!wrong, "%s", wrong);
}

static void fails_without(const char *(*scenario)(void), unsigned rule)
{
	policy_rules_off = rule;
	CHECK_MSG(scenario(), "nothing goes wrong with the rule off");
}

#define RULED(name, rule, body) \
	static const char *name##_host(void) body \
	static void name(void) { holds(name##_host); } \
	static void name##_twin(void) { fails_without(name##_host, rule); }
#define BOTH(name) SCENARIO(name), SCENARIO(name##_twin)

static struct host host;

/* A VM that fills its memory and uses it all, from `grows` pages a second. */
static struct guest *grower(struct host *h, double mib, double grows)
{
	struct guest *g = host_add(h, "grower", GUEST_BARE, mib * MIB, mib * 10);

	g->used = g->hot = mib * MIB;
	g->grows = grows;
	return g;
}

static struct guest *idler(struct host *h, const char *name, enum guest_kind kind, double mib)
{
	struct guest *g = host_add(h, name, kind, mib * MIB, mib * 10);

	g->used = mib * MIB * 0.95;
	g->hot = mib * MIB * 0.02;
	return g;
}

RULED(reservations_are_kept, RULE_FLOOR, {
	struct host *h = &host;
	struct guest *kept;

	host_begin(h, 1024 * MIB);
	kept = idler(h, "kept", GUEST_BARE, 512);
	kept->reservation = 400 * MIB;
	guest_settle(h, kept);
	grower(h, 1024, 20000);
	host_run(h, 120);
	return verdict(h, guest_charged(kept) >= 400 * MIB - 64, "an idle VM with 400 MiB reserved has %.0f MiB", guest_charged(kept) / MIB);
})

RULED(balloons_keep_their_cap, RULE_ROOM, {
	struct host *h = &host;
	struct guest *idle;

	host_begin(h, 1024 * MIB);
	idle = idler(h, "idle", GUEST_IDEAL, 512);
	guest_settle(h, idle);
	grower(h, 1024, 2000);
	host_run(h, 300);
	return verdict(h, idle->balloon <= 0.65 * 512 * MIB + 1, "a balloon has grown to %.0f of 512 MiB", idle->balloon / MIB);
})

RULED(reclaim_goes_on_to_the_goal, RULE_HYSTERESIS, {
	struct host *h = &host;
	struct guest *idle;

	host_begin(h, 1024 * MIB);
	idle = idler(h, "idle", GUEST_BARE, 900);
	guest_settle(h, idle);
	grower(h, 400, 300);
	host_run(h, 300);
	return verdict(h, h->reclaims <= 30 && h->state_changes <= 60, "reclaim began %u times, the state changed %u times in 300 s",
		h->reclaims, h->state_changes);
})

RULED(memory_is_freed_before_it_is_given, RULE_TWO_PHASES, {
	struct host *h = &host;
	struct guest *idle;

	host_begin(h, 1024 * MIB);
	idle = idler(h, "idle", GUEST_IDEAL, 900);
	guest_settle(h, idle);
	grower(h, 400, 500);
	host_run(h, 240);
	return verdict(h, h->reclaims <= 10, "reclaim began %u times", h->reclaims);
})

RULED(a_stuck_balloon_is_not_waited_for, RULE_FORCE, {
	struct host *h = &host;
	struct guest *stuck;

	host_begin(h, 1024 * MIB);
	stuck = idler(h, "stuck", GUEST_STUCK, 900);
	guest_settle(h, stuck);
	grower(h, 400, 300);
	host_run(h, 240);
	return verdict(h, h->worst_state <= HOST_SOFT, "the worst state was %s, %.1f s were low", host_state_names[h->worst_state],
		h->low_s);
})

/* Three VMs that would use all of their memory, and fit in two thirds of it.  A guest can seem busy by touching its pages, and a
 * library by saying so: that cannot be told apart, and saves the tax; so who lies is compared without it. */
static const char *beside_a_good_one(enum guest_kind kind, const char *name)
{
	struct host *h = &host;
	struct guest *good, *other, *third;
	double good_held = 0, other_held = 0;

	host_begin(h, 1024 * MIB);
	h->idle_tax_pct = kind == GUEST_LYING ? 0 : 75;
	good = host_add(h, "good", GUEST_IDEAL, 512 * MIB, 5120);
	other = host_add(h, name, kind, 512 * MIB, 5120);
	third = host_add(h, "third", GUEST_IDEAL, 512 * MIB, 5120);
	good->used = other->used = third->used = 500 * MIB;
	good->hot = other->hot = third->hot = 250 * MIB;
	guest_settle(h, good);
	third->grows = 1000;
	other->grows = 20000;
	third->used = 0;
	third->hot = 0;
	guest_settle(h, other);
	third->used = 500 * MIB;
	third->hot = 250 * MIB;
	for (int i = 0; i < 600; i++) {
		host_run(h, 1);
		/* work moves about, so what is out is needed again; all alike */
		good->hot = other->hot = third->hot = (i / 30 % 2 ? 350 : 250) * MIB;
		good_held += guest_charged(good) / 600;
		other_held += guest_charged(other) / 600;
	}
	plot(h, name, "A VM that complies, one that does not, and a third that comes");
	return verdict(h, other->done < good->done && other_held < good_held * 1.05,
		"%s: %.2f of the work and %.2f of the memory of one that complies", name, other->done / good->done, other_held / good_held);
}

RULED(refusing_does_not_pay, RULE_FORCE | RULE_DEBT | RULE_HARD, { return beside_a_good_one(GUEST_STUCK, "refuser"); })
RULED(what_is_owed_is_not_kept, RULE_DEBT, {
	struct host *h = &host;
	struct guest *good;
	struct guest *refuser;
	double good_held = 0;
	double refuser_held = 0;

	host_begin(h, 1024 * MIB);
	h->idle_tax_pct = 0;	/* the estimates of two idle VMs differ by chance */
	good = idler(h, "good", GUEST_IDEAL, 500);
	guest_settle(h, good);
	refuser = idler(h, "refuser", GUEST_STUCK, 500);
	refuser->evicts = 600;	/* a slow disk: force alone comes late */
	guest_settle(h, refuser);
	grower(h, 800, 1000);
	for (int i = 0; i < 150; i++) {
		host_run(h, 1);
		good_held += i < 100 ? 0 : guest_charged(good) / 50;
		refuser_held += i < 100 ? 0 : guest_charged(refuser) / 50;
	}
	plot(h, "debt", "An idle VM that gives, and one that refuses, while a third grows");
	return verdict(h, refuser_held < good_held - 10 * MIB, "who refuses keeps %.1f MiB, who gives %.1f", refuser_held / MIB, good_held / MIB);
})

RULED(flapping_does_not_pay, RULE_FORCE | RULE_DEBT | RULE_HARD, { return beside_a_good_one(GUEST_FLAPPING, "flapping"); })
RULED(lying_does_not_pay, RULE_FORCE | RULE_DEBT | RULE_HARD, { return beside_a_good_one(GUEST_LYING, "lying"); })

RULED(in_hard_nobody_is_waited_for, RULE_HARD, {
	struct host *h = &host;
	struct guest *slow;
	struct guest *burst;

	host_begin(h, 1024 * MIB);
	slow = idler(h, "slow", GUEST_IDEAL, 900);
	slow->inflates = 1000;
	guest_settle(h, slow);
	burst = grower(h, 400, 20000);
	host_run(h, 60);
	return verdict(h, burst->starved_s < 0.2, "a VM that grows found nothing free for %.1f s", burst->starved_s);
})

RULED(a_budget_spares, RULE_BUDGET, {
	struct host *h = &host;
	struct guest *poor;
	struct guest *rich;
	double stalled = 0;

	host_begin(h, 1024 * MIB);
	poor = host_add(h, "poor", GUEST_BARE, 500 * MIB, 1000);
	poor->used = 480 * MIB;
	poor->hot = 300 * MIB;
	poor->stall_budget_permille = 50;
	guest_settle(h, poor);
	rich = host_add(h, "rich", GUEST_BARE, 1000 * MIB, 20000);
	rich->used = 900 * MIB;
	rich->hot = 500 * MIB;
	rich->grows = 5000;
	host_run(h, 240);
	for (int i = 0; i < 60; i++) {
		host_run(h, 1);
		stalled += poor->stalled * 1000 / 60;
	}
	plot(h, "budget", "A poor VM with a stall budget of 5 %, and a rich one");
	return verdict(h, stalled < 100, "a VM with a budget of 50 permille waited %.0f", stalled);
})

RULED(a_budget_ends_when_nobody_else_can_give, RULE_BUDGET_END, {
	struct host *h = &host;
	struct guest *spared;
	struct guest *kept;

	host_begin(h, 1024 * MIB);
	spared = host_add(h, "spared", GUEST_BARE, 600 * MIB, 6000);
	spared->used = spared->hot = 550 * MIB;
	spared->stall_budget_permille = 1;
	spared->stalled = 1;
	guest_settle(h, spared);
	kept = grower(h, 700, 5000);
	kept->reservation = 700 * MIB;
	host_run(h, 120);
	return verdict(h, kept->starved_s < 1 && guest_charged(kept) > 690 * MIB, "a VM with all of it reserved has %.0f of 700 MiB",
		guest_charged(kept) / MIB);
})

RULED(in_low_the_greedy_wait, RULE_BLOCK, {
	struct host *h = &host;
	struct guest *modest;
	struct guest *greedy;

	host_begin(h, 1024 * MIB);
	greedy = grower(h, 2000, 15000);
	greedy->evicts = 5000;
	modest = host_add(h, "modest", GUEST_BARE, 300 * MIB, 6000);
	modest->used = modest->hot = 250 * MIB;
	modest->grows = 500;
	host_run(h, 100);
	return verdict(h, modest->starved_s < 0.5, "a modest VM found nothing free for %.1f s; the greedy one was made to wait for %.1f s",
		modest->starved_s, greedy->blocked_s);
})

RULED(nobody_waits_when_nobody_gives, RULE_BLOCK_END, {
	struct host *h = &host;
	struct guest *greedy;
	struct guest *held;

	host_begin(h, 1024 * MIB);
	held = idler(h, "held", GUEST_BARE, 900);
	held->evicts = 0;
	guest_settle(h, held);
	greedy = grower(h, 400, 2000);
	greedy->shares = 1;
	greedy->evicts = 0;
	host_run(h, 240);
	return verdict(h, h->free < 1, "%.1f MiB are free, and nobody may have them", h->free / MIB);
})

RULED(idle_memory_goes_to_who_works, RULE_TAX, {
	struct host *h = &host;
	struct guest *idle;
	struct guest *busy;

	host_begin(h, 366 * MIB);
	idle = idler(h, "idle", GUEST_BARE, 256);
	guest_settle(h, idle);
	busy = grower(h, 256, 5000);
	host_run(h, 300);
	return verdict(h, guest_charged(busy) > 230 * MIB, "the busy one of two equal VMs has %.0f of 256 MiB, the idle one %.0f",
		guest_charged(busy) / MIB, guest_charged(idle) / MIB);
})


RULED(who_was_ballooned_gets_its_part_back, RULE_BALANCE, {
	struct host *h = &host;
	struct guest *idle;
	struct guest *busy;

	host_begin(h, 366 * MIB);
	busy = idler(h, "busy", GUEST_IDEAL, 256);
	guest_settle(h, busy);
	idle = grower(h, 256, 2000);
	idle->kind = GUEST_IDEAL;
	host_run(h, 120);
	/* the one that was idle, and gave, has work now, and the other none */
	busy->hot = busy->used;
	idle->hot = 5 * MIB;
	host_run(h, 240);
	plot(h, "balance", "One VM idles and the other works, and then the other way round; both have balloons");
	return verdict(h, guest_charged(busy) > 220 * MIB, "the busy one of two equal VMs has %.0f of 256 MiB, the idle one %.0f",
		guest_charged(busy) / MIB, guest_charged(idle) / MIB);
})

RULED(free_memory_is_promised_once, RULE_ONCE, {
	struct host *h = &host;
	struct guest *idle;
	struct guest *other;
	double balloon;

	host_begin(h, 1024 * MIB);
	idle = idler(h, "idle", GUEST_IDEAL, 600);
	guest_settle(h, idle);
	other = grower(h, 700, 2000);
	host_run(h, 240);
	/* 60 MiB come free; the idle VM does not need what it is given of that */
	balloon = idle->balloon;
	idle->used = idle->cold_in + idle->hot_in;
	other->used -= 60 * MIB;
	other->hot -= 100 * MIB;
	other->zeroes = 5000;
	host_run(h, 120);
	return verdict(h, balloon - idle->balloon < 70 * MIB, "of %.0f MiB in a balloon %.0f were let down when 60 MiB came free",
		balloon / MIB, (balloon - idle->balloon) / MIB);
})

int main(int argc, char **argv)
{
	plot_begin(&argc, argv);
	return check_main(argc, argv, (const struct scenario[]){
		BOTH(reservations_are_kept),
		BOTH(balloons_keep_their_cap),
		BOTH(reclaim_goes_on_to_the_goal),
		BOTH(memory_is_freed_before_it_is_given),
		BOTH(a_stuck_balloon_is_not_waited_for),
		BOTH(refusing_does_not_pay),
		BOTH(what_is_owed_is_not_kept),
		BOTH(flapping_does_not_pay),
		BOTH(lying_does_not_pay),
		BOTH(in_hard_nobody_is_waited_for),
		BOTH(a_budget_spares),
		BOTH(a_budget_ends_when_nobody_else_can_give),
		BOTH(in_low_the_greedy_wait),
		BOTH(nobody_waits_when_nobody_gives),
		BOTH(idle_memory_goes_to_who_works),
		BOTH(who_was_ballooned_gets_its_part_back),
		BOTH(free_memory_is_promised_once),
		{ 0 } });
}
