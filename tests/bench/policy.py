"""Who gives memory when it is short, and what that is worth to those who work.

The guests hold memory that memctld cannot share and hardly compress (*unique*: each page another), each byte of it
is known (guest.c), and what a guest works on is compared page by page as a whole: throughput is pages compared per
second.  The two sides of a row are the same guests, doing the same, in the same arena; only a setting differs.

	idle_tax	two VMs of equal shares, both full, 1.4 times the arena; one idles, one goes on working on all
			of its memory.  IdleTax=75 against IdleTax=0, when what they hold has come to stand still
	balloon		three idle VMs, 40 % of whose memory is free but still full of random bytes, and one that grows to
			its size while it works.  Then it goes, and the others use their free memory again.  Bytes read
			from and written to swap, all VMs, CtlMaxPercent=65 against CtlMaxPercent=0 (no balloon)
	balloon_busy	throughput of the one that grows, on all processors, from its first page to its last
	shares		two VMs of the same size, both work on all of it, one has twice the shares: what the one holds
			against what the other does, which is to be 2
	refuser		two VMs that work on 60 % of their memory, the rest is free as above, and a third that grows into the
			arena.  As they work they free memory and use some that was free, as any guest does.  The balloon driver of one gives nothing.  Throughput of that one against the other's, from the
			moment that memory gets short
	tick_10k	one plan for 10,000 VMs on 4 TiB against one for 1,000: cost for each VM (tick.c)

On both sides alike, activity is sampled every four seconds instead of each minute, from the moment that all memory is
full, so that who idles is known after one period: a round takes half a minute and not a quarter of an hour.  The guests
are so small that one that works touches all of its memory in a period, as it would in a minute.
"""
import contextlib
import json
import os
import subprocess
import time

from bench import MIB, PAGE, Daemon, Worker, Wrong, alternately, program, repeat
from host import log

PAGES = 256             # in a MiB
SLICE_MS = 1000         # of work, between two looks at what is held
QUICK = {"SamplePeriod": "0", "BalancePeriod": "1"}
SAMPLE_S = 4

TAX_MIB = 128
TAX_ARENA_MIB = 2 * TAX_MIB * 10 // 14
IDLE_PCT = 10           # a VM that is thought to use less than this idles
IDLE_LIMIT_S = 6 * SAMPLE_S
SETTLE_STEP = 0.02      # of the arena: who holds what changes by less: settled
SETTLE_S = 4
SETTLE_LIMIT_S = 30
MEASURE_MS = 4000

IDLE_VMS = 3
IDLE_MIB = 256
FREE_PCT = 40
GROW_MIB = 384
GROW_CHECKS = 32        # pages compared for each one filled: some 40 MiB a second and thread
BALLOON_ARENA_MIB = 920  # what it lacks is a little less than what is free in the idle ones
WORK_MS = 3000
DEFLATE_LIMIT_S = 30

SHARES_MIB = 128
SHARES_ARENA_MIB = 2 * SHARES_MIB * 2 // 3
SHARES = (2560, 1280)

REFUSER_MIB = 256
REFUSER_THIRD_MIB = 128
REFUSER_ARENA_MIB = 500
REFUSER_MS = 25000
CHURN = 16              # of a thousand pages of work so many are freed, and others used instead


def full(s, daemon, stack, mib, number, **more):
    """A guest on a lease, full of content that nobody shares."""
    guest = stack.enter_context(s.lease(daemon, mib, number=f"{number}:unique", **more))
    guest.mib = mib
    guest.do("fill", 0, mib * PAGES)
    return guest


def held(daemon, guests):
    """What each is charged, bytes."""
    return [daemon.vm(g.vm)["charged_bytes"] for g in guests]


def sampled(daemon, idle, work=lambda k: time.sleep(0.2)):
    """From now on it is looked at who uses his memory; work(seed) again and again until these are known not to."""
    daemon.tune("SamplePeriod", SAMPLE_S)
    end, k = time.monotonic() + IDLE_LIMIT_S, 0
    while True:
        work(k)
        k += 1
        active = {g.vm: daemon.vm(g.vm)["active_bytes"] * 100 // (g.mib * MIB) for g in idle}
        if max(active.values()) < IDLE_PCT:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"VMs that do nothing are thought to use {active} % of their memory")


def settled(daemon, guests, arena_mib, work):
    """work(seed) again and again until who holds what has stood still."""
    looks, began = [], time.monotonic()
    while time.monotonic() - began < SETTLE_LIMIT_S:
        work(len(looks))
        looks.append((time.monotonic(), held(daemon, guests)))
        last = [h for at, h in looks if at > looks[-1][0] - SETTLE_S]
        spread = max(max(values) - min(values) for values in zip(*last))
        if looks[-1][0] - began > SETTLE_S and spread < SETTLE_STEP * arena_mib * MIB:
            return
    log(f"who holds what still changes after {SETTLE_LIMIT_S} s")


def total(daemon, guests, *names):
    return sum(vm[name] for vm in (daemon.vm(g.vm) for g in guests) for name in names)


def swapped_bytes(daemon, guests):
    return total(daemon, guests, "swap_out_pages", "swap_in_pages") * PAGE


def check(daemon, guests):
    for guest in guests:
        guest.checked("verify", 1)
    daemon.audit()


def no_errors(*answers):
    for answer in answers:
        if answer["wrong"]:
            raise Wrong(f"{answer['wrong']} wrong pages amid the work")


def speed(answer):
    return answer["pages"] / answer["seconds"]


def in_mib(values):
    return ", ".join(f"{v / MIB:.0f}" for v in values)


# ---- idle memory tax ----

def taxed(s, tax, i):
    """Pages per second of the busy one."""
    with Daemon(s, TAX_ARENA_MIB, IdleTax=tax, **QUICK) as daemon, contextlib.ExitStack() as stack:
        idle, busy = guests = [full(s, daemon, stack, TAX_MIB, n) for n in (0, 1)]

        def work(k):
            busy.checked("work", SLICE_MS, k)

        sampled(daemon, [idle], work)
        settled(daemon, guests, TAX_ARENA_MIB, work)
        answer = busy.checked("work", MEASURE_MS, 1000 + i)
        log(f"IdleTax {tax}: {speed(answer) / 1e3:.1f} k pages/s; idle and busy hold"
            f" {in_mib(held(daemon, guests))} MiB")
        check(daemon, guests)
    return speed(answer)


# ---- the balloon ----

def ballooned(s, cap, i):
    """(bytes swapped, pages per second of the one that grows)"""
    with Daemon(s, BALLOON_ARENA_MIB, CtlMaxPercent=cap, **QUICK) as daemon, contextlib.ExitStack() as stack:
        idle = [full(s, daemon, stack, IDLE_MIB, n) for n in range(IDLE_VMS)]
        for k, guest in enumerate(idle):
            guest.do("driver", "comply")
            guest.do("free", IDLE_MIB * PAGES * FREE_PCT // 100, k)
        sampled(daemon, idle)
        with s.lease(daemon, GROW_MIB, number=f"{IDLE_VMS}:unique") as busy:
            before = swapped_bytes(daemon, [*idle, busy])
            grown = busy.checked("grow", GROW_MIB * PAGES, GROW_CHECKS, len(os.sched_getaffinity(0)), i)
            during = total(daemon, idle, "ballooned_bytes")
            after = busy.checked("work", WORK_MS, i)
            busy.checked("verify", 1)
            swapped_busy = swapped_bytes(daemon, [busy])
        deflated(daemon, idle)
        for guest in idle:
            guest.do("use")
        check(daemon, idle)
        swapped = swapped_bytes(daemon, idle) + swapped_busy - before
        left = [g.do("memory") for g in idle]
        if any(m["used"] < IDLE_MIB * PAGES for m in left):
            raise RuntimeError(f"memory that is still not used again: {left}")
    log(f"CtlMaxPercent {cap}: {swapped / MIB:.1f} MiB swapped, of these {swapped_busy / MIB:.1f} of the one that grew;"
        f" {during / MIB:.0f} MiB in balloons when it had grown; it grew at {speed(grown) / 1e3:.1f} k pages/s in"
        f" {grown['seconds']:.1f} s ({grown['cpu_s']:.1f} CPU-s), worked at {speed(after) / 1e3:.1f}")
    if bool(during) != bool(int(cap)):
        raise RuntimeError(f"{during} bytes in balloons with CtlMaxPercent {cap}")
    return swapped, speed(grown)


def deflated(daemon, guests):
    """Pressure is over: wait until the balloons have been given back."""
    end = time.monotonic() + DEFLATE_LIMIT_S
    while total(daemon, guests, "ballooned_bytes"):
        if time.monotonic() > end:
            raise RuntimeError(f"{total(daemon, guests, 'ballooned_bytes')} bytes are still in balloons"
                               f" {DEFLATE_LIMIT_S} s after the pressure ended")
        time.sleep(0.1)


# ---- shares ----

def shared_out(s, i):
    """What the one with twice the shares holds against the other."""
    with Daemon(s, SHARES_ARENA_MIB) as daemon, contextlib.ExitStack() as stack:
        # who is first in anything alternates
        order = (0, 1) if i % 2 else (1, 0)
        made = {n: full(s, daemon, stack, SHARES_MIB, n, shares=SHARES[n]) for n in order}
        guests = [made[0], made[1]]

        def work(k):
            no_errors(*Worker.all_do(guests, "work", SLICE_MS, k))

        settled(daemon, guests, SHARES_ARENA_MIB, work)
        looks = []
        for k in range(MEASURE_MS // SLICE_MS):
            work(1000 + k)
            looks.append(held(daemon, guests))
        more, less = (sum(values) / len(values) for values in zip(*looks))
        log(f"shares {SHARES}: they hold {in_mib((more, less))} MiB, {more / less:.2f} to 1")
        check(daemon, guests)
    return more / less


# ---- refusing ----

def refused(s, i):
    """(pages per second of the one that refuses, of the one that complies)"""
    with Daemon(s, REFUSER_ARENA_MIB, **QUICK) as daemon, contextlib.ExitStack() as stack:
        first, second = guests = [full(s, daemon, stack, REFUSER_MIB, n) for n in (0, 1)]
        refuses, complies = (first, second) if i % 2 else (second, first)
        refuses.do("driver", "refuse")
        complies.do("driver", "comply")
        for k, guest in enumerate(guests):
            guest.do("free", REFUSER_MIB * PAGES * FREE_PCT // 100, k)
        daemon.tune("SamplePeriod", SAMPLE_S)
        for k in range(2 * SAMPLE_S):
            no_errors(*Worker.all_do(guests, "work", SLICE_MS, k))
        third = stack.enter_context(s.lease(daemon, REFUSER_THIRD_MIB, number="2:unique", shares=REFUSER_MIB * 10))
        a, b, c = Worker.each_do([(refuses, ("work", REFUSER_MS, i, CHURN)), (complies, ("work", REFUSER_MS, i, CHURN)),
                                  (third, ("grow", REFUSER_THIRD_MIB * PAGES, GROW_CHECKS, 1, i))])
        no_errors(a, b, c)
        log(f"refuser {speed(a) / 1e3:.1f}, complier {speed(b) / 1e3:.1f} k pages/s; they and the third hold"
            f" {in_mib(held(daemon, [refuses, complies, third]))} MiB; balloons"
            f" {in_mib(daemon.vm(g.vm)['ballooned_bytes'] for g in (refuses, complies))} MiB")
        if not daemon.vm(complies.vm)["ballooned_bytes"]:
            raise RuntimeError("the one that complies was asked for nothing")
        check(daemon, [*guests, third])
    return speed(a), speed(b)


# ---- planning ----

def ticks(results):
    answer = json.loads(subprocess.run([program("bench-tick")], check=True, stdout=subprocess.PIPE, text=True).stdout)
    log(f"a plan for 10,000 VMs takes {answer['ns_10k'] / 1e6:.2f} ms, for 1,000 {answer['ns_1k'] / 1e6:.3f}")
    results.add("tick_10k", answer["ns_10k"] / 10000, answer["ns_1k"] / 1000)
    results.note("tick_10k", f"{answer['ns_10k'] / 1e6:.2f} ms for 10,000 VMs")


def measure(s, results):
    results.row("idle_tax", "IdleTax=0", "pages/s", ">= 1.3")
    results.row("balloon", "CtlMaxPercent=0: no balloon", "bytes swapped", "<= 0.2")
    results.row("balloon_busy", "CtlMaxPercent=0: no balloon", "pages/s", ">= 1.0")
    results.row("shares", "the ratio of their shares", "held to held", "1 +- 0.1")
    results.row("refuser", "a VM that complies", "pages/s", "< 1.0")
    results.row("tick_10k", "a plan for 1,000 VMs", "ns a VM", "<= 1.3")
    s.warm(BALLOON_ARENA_MIB * 2)
    repeat(results, ("tick_10k",), 1, lambda _: ticks(results))

    def tax(i):
        results.add("idle_tax", *alternately(i, lambda: taxed(s, 75, i), lambda: taxed(s, 0, i)))

    def balloon(i):
        (swap, busy), (peer_swap, peer_busy) = alternately(i, lambda: ballooned(s, 65, i), lambda: ballooned(s, 0, i))
        results.add("balloon", swap, peer_swap)
        results.add("balloon_busy", busy, peer_busy)

    repeat(results, ("idle_tax",), s.rounds, tax)
    repeat(results, ("balloon", "balloon_busy"), s.rounds, balloon)
    repeat(results, ("shares",), s.rounds, lambda i: results.add("shares", shared_out(s, i), SHARES[0] / SHARES[1]))
    repeat(results, ("refuser",), s.rounds, lambda i: results.add("refuser", *refused(s, i)))
