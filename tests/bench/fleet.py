"""A fleet of guests in too little memory, as a whole: memctl beside what a plain Linux host has.

Four guests hold the mix of content.h, 1.5 and 2.5 times what there is, and work on it by two threads each (load.c: 70 % of the
operations read, 30 % write; each read is checked, and afterwards each written word):

	zipf	all work, with a skew	|  phases	all work on a quarter, and then on another one
	scans	all walk through their memory, and work with a skew in between
	idle	three idle with their memory full, one works with a skew
	boot	all begin with nothing, fill their memory and work on what they have

	memctl			memctld with an arena of A, the guests in one sharing group
	zswap			the kernel: anonymous memory in a cgroup of A, a swap file behind zswap (lzo)
	zswap_ksm		the same, and ksmd at its fastest all of the time
	zswap_ksm_default	the same, and ksmd at its fastest until it is measured, as if it had been given the minutes that it
				takes at its default pace; then at that
	zram_ksm		swap on zram (lz4), a swap file behind it, and ksmd at its fastest

Where all compressed pages together would not leave room for any others, as at 2.5, a plain host uses its disk: zswap's pool
may be half of A (as max_pool_percent=50 is of a host's memory), and zram holds pages up to A, which is about the same pool.

Phases of a run: fill; settle, as long for all, while nobody works; warm up with the pattern; measure; verify.  Until it warms up all look for equal
pages as fast as they can (ours: pass after pass is asked for), then memctl as shipped.  boot is measured from its first page to its last,
without anything before.  A round is each system once, in an order that rotates.

What is counted against A.  Ours: all that the arena holds, guest pages, common pages, compressed pages, maps.  The kernel's: what
the cgroup is charged beyond the empty guests (pages, merged pages, page tables, swap cache) and the pool of zswap or zram,
which cgroup v1 does not charge: the limit is lowered by what the pool grows by, and raised again, fifty times a second.

	fleet_PATTERN_X		operations per second against the system that is best of the four at that
	fleet			geometric mean of these ratios
	fleet_p99		99th percentile of the latency of an operation at 2.5, geometric mean of the patterns; against the
				peer for which that is least
	fleet_memory		the arena in which memctl does as much of zipf as the best peer does in A of 2.5, against A: by
				interpolation between arenas of half of that A to that of 1.5; beyond them it is a guess
	fleet_cpu		CPU time for each operation (daemon and guests; guests and kernel threads) at 2.5, geometric mean
				of the patterns, against the peer for which that is least
"""
import contextlib
import math
import os
import statistics
import subprocess
import threading
import time

import lib.daemon
from bench import Cpu, MIB, PAGE, Worker, Wrong
from host import log, meminfo, read, vmstat, write
from reclaim import ZSWAP, zswap_missing
from share import Ksm, Sharing, ksm_missing

GUESTS = 4
GUEST_MIB = 64
PATTERNS = ("zipf", "phases", "scans", "idle", "boot")
OVERCOMMITS = (1.5, 2.5)
SYSTEMS = ("memctl", "zswap", "zswap_ksm", "zswap_ksm_default", "zram_ksm")
PEERS = SYSTEMS[1:]
SETTLE_S = 2
WARM_MS = 2000
MEASURE_MS = 2000
BOOT_ACCESSES = 64      # to pages that are filled, for each page filled
VERIFY_STEP = 8         # of the pages that nobody wrote to
CONTROL_S = 0.02
STEP = MIB
SWAP_MIB = 2 * GUESTS * GUEST_MIB
POOL_PCT, ACCEPT_PCT = 50, 90   # zswap's max_pool_percent and accept_threshold_percent
MEMORY_POINTS = (0.5, 0.75)     # of A; 1 and 2.5/1.5 are measured anyway


def arena_mib(overcommit):
    return round(GUESTS * GUEST_MIB / overcommit)


class Run:
    """What one system did in one run."""

    def __init__(self, answers, cpu):
        """`cpu`: of all but those that answered."""
        wrong = sum(a["wrong"] for a in answers)
        if wrong:
            raise Wrong(f"{wrong} reads found something else than was written")
        self.ops = sum(a["ops"] for a in answers)
        self.rate = self.ops / max(a["seconds"] for a in answers)
        self.cpu_us = (cpu + sum(a["cpu_s"] for a in answers)) * 1e6 / self.ops
        self.latencies = {}
        for a in answers:
            for ns, n in a["latencies"].items():
                self.latencies[int(ns)] = self.latencies.get(int(ns), 0) + n

    def percentile(self, p):
        """us; between the ends of its bucket by proportion."""
        left = self.ops * p / 100
        for ns, n in sorted(self.latencies.items()):
            if left <= n:
                step = 1 << max(0, ns.bit_length() - 4)
                return (ns + step * left / n) / 1000
            left -= n
        return max(self.latencies) / 1000

    def above(self, us):
        """Part of the operations that took longer."""
        return sum(n for ns, n in self.latencies.items() if ns >= us * 1000) / self.ops


# ---- the work, the same for all systems ----

def work(pattern, i, guests, pid, settle, measured):
    """Fill, settle, warm up, measure, verify."""
    busy = [guests[i % GUESTS]] if pattern == "idle" else guests
    pids = [pid, *(g.pid for g in guests if g not in busy)]
    if pattern == "boot":
        measured()
        cpu = Cpu(*pids)
        run = Run(Worker.all_do(guests, "boot", BOOT_ACCESSES, i), cpu.used())
    else:
        Worker.all_do(guests, "fill")
        settle()
        how = "zipf" if pattern == "idle" else pattern
        measured()
        Run(Worker.all_do(busy, "run", how, WARM_MS, 2 * i), 0)
        cpu = Cpu(*pids)
        run = Run(Worker.all_do(busy, "run", how, MEASURE_MS, 2 * i + 1), cpu.used())
    for answer in Worker.all_do(guests, "verify", VERIFY_STEP):
        if answer["wrong"]:
            raise Wrong(f"{pattern}: {answer['wrong']} pages are not what was written")
    return run


# ---- our side ----

def memctl(s, pattern, arena, i):
    with Sharing(s, arena) as daemon, contextlib.ExitStack() as stack:
        guests = [stack.enter_context(s.lease(daemon, GUEST_MIB, number=k, sharing="group:bench", kind="bench-load"))
                  for k in range(GUESTS)]

        def settle():
            end, passes = time.monotonic() + SETTLE_S, -1
            while time.monotonic() < end:
                if daemon.passes() != passes:
                    passes = daemon.passes()
                    daemon.scan()
                time.sleep(CONTROL_S)

        def measured():
            for name in ("ShareRateMax", "ShareScanGHz"):
                daemon.tune(name, daemon.setting(name, "default"))
            before.update(totals(daemon))

        before = {}
        run = work(pattern, i, guests, daemon.pid, settle, measured)
        after = totals(daemon)
        run.detail = {k: after[k] - before.get(k, 0) for k in after}
        daemon.audit()
    return run


SETTINGS = ("size_bytes", "reservation_bytes", "limit_bytes", "shares", "pid", "uid")


def totals(daemon):
    vms = daemon.call("ListVms")["vms"]
    return {k: sum(vm[k] for vm in vms) for k, v in vms[0].items() if isinstance(v, int) and k not in SETTINGS}


# ---- the kernel's ----

class Zswap:
    """The bound of its pool is a part of the whole host's memory, so it is kept by ourselves: a full pool takes nothing in
    until it has shrunk to accept_threshold_percent."""

    def __init__(self, s, arena):
        self.most = arena * MIB * POOL_PCT // 100
        s.host.set(f"{ZSWAP}/compressor", "lzo")
        s.host.set(f"{ZSWAP}/enabled", "Y")
        s.host.swap_on(s.host.swap_file(s.directory, SWAP_MIB))
        self.before, self.takes = meminfo("Zswap"), "Y"

    def pool(self):
        pool = meminfo("Zswap") - self.before
        if pool > self.most or pool < self.most * ACCEPT_PCT // 100:
            takes = "N" if pool > self.most else "Y"
            if takes != self.takes:
                write(f"{ZSWAP}/enabled", takes)
                self.takes = takes
        return pool


class Zram:
    def __init__(self, s, arena):
        control = "/sys/class/zram-control"
        number = read(f"{control}/hot_add")
        self.device, self.path = f"/sys/block/zram{number}", f"/dev/zram{number}"
        s.host.at_exit(write, f"{control}/hot_remove", number)
        s.host.at_exit(write, f"{self.device}/reset", "1")
        s.host.set(f"{ZSWAP}/enabled", "N")
        write(f"{self.device}/comp_algorithm", "lz4")
        write(f"{self.device}/disksize", str(arena * MIB))
        subprocess.run(["mkswap", self.path], check=True, stdout=subprocess.DEVNULL)
        s.host.swap_on(self.path)
        s.host.swap_on(s.host.swap_file(s.directory, SWAP_MIB), priority=10)

    def pool(self):
        return int(read(f"{self.device}/mm_stat").split()[2])


class Limit:
    """Keeps what the cgroup is charged and the pool below `size` together: a step at a time, because what one step pushes
    into the pool counts in the next one, and because who reclaims takes the pages from the guests' own reclaim meanwhile.
    Guests that cannot go on are not killed, but given a step more."""

    def __init__(self, group, size, pool):
        self.group, self.size, self.pool = group, size, pool
        self.now, self.given = size, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._control, daemon=True)

    def _control(self):
        while not self.stop.wait(CONTROL_S):
            limit = max(self.size - self.pool(), self.now - STEP) // PAGE * PAGE
            if self.group.stuck():
                limit = self.now + STEP
                self.given += 1
            if abs(limit - self.now) < STEP // 2:
                continue
            with contextlib.suppress(OSError):          # EBUSY: at the next look
                self.group.limit(limit, attempts=1)
                self.now = limit

    def __enter__(self):
        self.group.limit(self.now)
        self.group.wait_when_full()
        self.thread.start()
        return self

    def __exit__(self, *what):
        self.stop.set()
        self.thread.join()
        self.group.limit(None)


def kernel(s, system, pattern, arena, i):
    ksm = "ksm" in system
    with s.host.part(), contextlib.ExitStack() as stack:
        s.host.set("/proc/sys/vm/page-cluster", "0")
        swap = (Zram if system.startswith("zram") else Zswap)(s, arena)
        merging = Ksm(s) if ksm else None
        group = s.host.memory_cgroup(f"memctl-bench.{os.getpid()}")
        guests = [stack.enter_context(s.guest(GUEST_MIB, "mergeable" if ksm else "anon", number=k, kind="bench-load"))
                  for k in range(GUESTS)]
        for guest in guests:
            group.add(guest.pid)
        disk = {name: vmstat(name) for name in ("pswpin", "pswpout")}
        limit = stack.enter_context(Limit(group, arena * MIB + group.usage(), swap.pool))
        if ksm:
            merging.run()

        def settle():
            time.sleep(SETTLE_S)

        def measured():
            if system.endswith("default"):
                merging.default()

        run = work(pattern, i, guests, os.getpid(), settle, measured)
        run.detail = {"pool": swap.pool() // MIB, "usage": group.usage() // MIB, "merged": ksm and Ksm.merged(guests),
                      "given": limit.given, **{name: vmstat(name) - before for name, before in disk.items()}}
    return run


def one(s, system, pattern, arena, i):
    began = time.monotonic()
    run = memctl(s, pattern, arena, i) if system == "memctl" else kernel(s, system, pattern, arena, i)
    log(f"{pattern:7} {arena:4} MiB {system:18} {run.rate / 1e3:8.1f} k/s, p50 {run.percentile(50):.2f}, p99"
        f" {run.percentile(99):.2f}, p99.9 {run.percentile(99.9):.0f} us, {run.above(4) * 100:.2f} % above 4 us,"
        f" {run.cpu_us:.2f} CPU-us; {time.monotonic() - began:.1f} s")
    log("    ", {k: v for k, v in run.detail.items() if v})
    return run


# ---- what it comes to ----

class Runs:
    """All runs: (system, pattern, overcommit or arena) -> [Run]."""

    def __init__(self):
        self.all = {}

    def add(self, s, system, pattern, overcommit, arena, i):
        """A system that cannot hold the fleet at all has no run; a wrong byte ends everything."""
        try:
            run = one(s, system, pattern, arena, i)
        except (RuntimeError, OSError, lib.daemon.Failed, subprocess.CalledProcessError) as e:
            log(f"{pattern} {arena} MiB {system}: {e}")
            return
        self.all.setdefault((system, pattern, overcommit), []).append(run)

    def median(self, what, *key):
        """None: no run."""
        values = [what(run) for run in self.all.get(key, ())]
        return statistics.median(values) if values else None

    def mean(self, what, system, patterns, overcommit):
        """Geometric mean over the patterns; None: one of them has no run."""
        values = [self.median(what, system, p, overcommit) for p in patterns]
        return statistics.geometric_mean(values) if all(values) else None

    def systems(self, what, pattern, overcommit):
        return {x: self.median(what, x, pattern, overcommit) for x in SYSTEMS}


def rate(run):
    return run.rate


def p99(run):
    return run.percentile(99)


def cpu_us(run):
    return run.cpu_us


def needed(points, goal):
    """The arena in which the rate reaches the goal: between points (arena, rate) by logarithms, beyond them by the nearest two."""
    points = sorted(points)
    pairs = list(zip(points, points[1:]))
    (a, low), (b, high) = next(((p, q) for p, q in pairs if p[1] <= goal <= q[1]), pairs[-1] if goal > points[-1][1] else pairs[0])
    if high <= low:
        return None
    return a * (b / a) ** (math.log(goal / low) / math.log(high / low))


def conclude(results, runs, patterns, overcommits):
    ratios = []
    for p in patterns:
        for o in overcommits:
            name, by = f"fleet_{p}_{o}", runs.systems(rate, p, o)
            peers = {x: r for x, r in by.items() if x in PEERS and r}
            ours = by["memctl"]
            if not peers or not ours:
                results.absent(name, "no run of " + ("a peer" if ours else "memctl"))
                continue
            best = max(peers, key=peers.get)
            pairs = zip(runs.all["memctl", p, o], runs.all[best, p, o])
            for mine, theirs in pairs:
                results.add(name, mine.rate, theirs.rate)
            results.more(name, best=best, systems=by,
                         latencies={x: runs.median(p99, x, p, o) for x in SYSTEMS},
                         cpu_us={x: runs.median(cpu_us, x, p, o) for x in SYSTEMS})
            ratios.append(ours / peers[best])
    if ratios:
        results.add("fleet", statistics.geometric_mean(ratios), 1.0)
    o = max(overcommits)
    for name, what in (("fleet_p99", p99), ("fleet_cpu", cpu_us)):
        means = {x: runs.mean(what, x, patterns, o) for x in SYSTEMS}
        peers = {x: v for x, v in means.items() if x in PEERS and v}
        if means["memctl"] and peers:
            results.add(name, means["memctl"], min(peers.values()))
            results.more(name, best=min(peers, key=peers.get), systems=means)
    memory(results, runs, o)


def memory(results, runs, o):
    goal = max((r for x in PEERS if (r := runs.median(rate, x, "zipf", o))), default=None)
    arenas = {**{m: arena_mib(o) * m for m in MEMORY_POINTS}, **{k: arena_mib(k) for k in OVERCOMMITS}}
    points = [(mib, r) for k, mib in arenas.items() if (r := runs.median(rate, "memctl", "zipf", k))]
    if goal and len(points) > 1:
        mib = needed(points, goal)
        if mib is None:
            results.absent("fleet_memory", "more memory does not make it faster")
        else:
            results.add("fleet_memory", mib, arena_mib(o))
            results.more("fleet_memory", points=sorted(points), goal=goal)


def chosen(s, all_of_them):
    return [x for x in all_of_them if str(x) in s.only] or list(all_of_them)


def measure(s, results):
    patterns, overcommits, systems = chosen(s, PATTERNS), chosen(s, OVERCOMMITS), chosen(s, SYSTEMS)
    for p in patterns:
        for o in overcommits:
            results.row(f"fleet_{p}_{o}", "best of zswap, zswap + KSM, zram + KSM", "operations/s", ">= 0.95")
    results.row("fleet", "1", "ratio", ">= 1.25")
    results.row("fleet_p99", "best peer", "us p99", "<= 0.5")
    results.row("fleet_memory", "the best peer's at 2.5", "MiB", "<= 1.0")
    results.row("fleet_cpu", "best peer", "CPU-us/operation")
    missing = zswap_missing() or ksm_missing()
    if missing:
        for name in results.rows:
            results.no_peer(name, missing)
        systems = [x for x in systems if x == "memctl"]
    s.warm(1024)
    runs = Runs()
    for i in range(s.rounds):
        turn = [systems[(i + k) % len(systems)] for k in range(len(systems))]
        for p in patterns:
            for o in overcommits:
                for system in turn:
                    runs.add(s, system, p, o, arena_mib(o), i)
        if "zipf" in patterns and "memctl" in systems and max(OVERCOMMITS) in overcommits:
            for part in MEMORY_POINTS:
                runs.add(s, "memctl", "zipf", part, round(arena_mib(max(OVERCOMMITS)) * part), i)
    conclude(results, runs, patterns, overcommits)
