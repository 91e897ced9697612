"""What sharing pages saves and costs, against the kernel's KSM on the same memory.

Four guests hold the mix: 25 % zero, 35 % common to all, 15 % duplicates inside, 25 % unique; in *runs* (common pages,
and copies of duplicates, in the same order for 64 pages and more) or *scattered* (each second page has a twin, its
neighbours have none: a page costs two mappings).  Ours runs as fast as it can, by passes that are asked for (`memctl
share scan`); ksmd does too: 20000 pages without a pause, and the zero page for zero pages.

Settled is all of the memory, when the saving has come to stand still; CPU is counted up to the last page that it
grew by: daemon, clients and kernel threads on both sides.  Saved = pages that need no frame of their own: shared ones
less the frames they share, and zero pages.
"""
import contextlib
import time

import lib.daemon
from bench import Cpu, Daemon, MIB, PAGE, Trip, Worker, alternately, repeat
from host import cpu_seconds, kernel_threads, log, read, write

GUESTS = 4
PAGES = 256             # in a MiB
RUNS_MIB = 256
SCATTERED_MIB = 128     # 16384 pages with twins: two mappings each are within the budget
BUDGET_MIB = 256        # 32768: these are not
BREAK_MIB = 128
BREAKS = 8000
POLL_S = 0.05
STILL_S = 1.0           # as long as this, and
STILL_PASSES = 2        # so many passes without saving more: settled
STEP = 0.0003           # of all pages: less is not growth
LIMIT_S = 90
STEADY_PASSES = 16
KSM_STEADY_PASSES = 8
TAX_MIB = 128
TURNS = 6
TURN_MS = 700
KSM = "/sys/kernel/mm/ksm"


# ---- the mix, counted ----

def mix(mib):
    """(pages with a twin anywhere, contents of common pages, contents of one guest's duplicates, zero pages)"""
    n = mib * PAGES
    zero, common, twice = n * 25 // 100, n * 60 // 100, n * 75 // 100
    return twice - zero, common - zero, (twice - common + 3) // 4, zero


def ideal(mib):
    """Pages that need no frame when each content has one and zero pages none."""
    twins, common, own, zero = mix(mib)
    return GUESTS * (zero + twins - own) - common


def within(mib, mappings):
    """The same when each guest may add so many mappings, two for each page: those are best spent on contents that
    all four copies of which are mapped, and then each frame saves three."""
    twins, _, _, zero = mix(mib)
    mapped = min(mappings // 2, twins)
    return ideal(mib) if mapped == twins else GUESTS * zero + GUESTS * mapped * 3 // 4


# ---- waiting until the saving stands still ----

class Settled:
    """Pages saved, and the CPU that it took to get there."""

    def __init__(self, saved, cpu, seconds, passes):
        self.saved, self.cpu, self.seconds, self.passes = saved, cpu, seconds, passes

    def __str__(self):
        return (f"{self.saved * PAGE / MIB:.1f} MiB saved in {self.seconds:.2f} s, {self.cpu:.2f} CPU-s,"
                f" pass {self.passes}")


def settle(saved, passes, go_on, cpu, pages, done=None):
    """Poll `saved` until it has stood still; `go_on(still)` keeps passes coming."""
    began = time.monotonic()
    best = Settled(0, 0, 0, 0)
    first = best_pass = passes()
    while True:
        now = saved()
        used, at = cpu.used(), time.monotonic() - began
        if now > best.saved + pages * STEP:
            best_pass = passes()
            best = Settled(now, used, at, best_pass - first)
        if done and now >= done:
            return best
        if at - best.seconds > STILL_S and passes() - best_pass >= STILL_PASSES:
            return best
        if at > LIMIT_S:
            raise RuntimeError(f"the saving still changes, or passes do not end, after {LIMIT_S} s: {best}")
        go_on(at - best.seconds)
        time.sleep(POLL_S)


# ---- the kernel's side ----

def ksm_missing():
    """Why KSM cannot be measured, or None."""
    for name in ("run", "full_scans", "use_zero_pages", "ksm_zero_pages"):
        if not read(f"{KSM}/{name}"):
            return f"this kernel has no {KSM}/{name}"
    return None


def ksm_number(name):
    return int(read(f"{KSM}/{name}", "0"))


class Ksm:
    """ksmd at its fastest, on guests of our own.  Inside a host.part()."""

    def __init__(self, s):
        self.host = s.host
        self.pid = next((p for p in kernel_threads() if read(f"/proc/{p}/comm") == "ksmd"), None)
        if self.pid is None:
            raise RuntimeError("there is no ksmd")
        # what our guests leave behind when they end slows the next ones down, unless somebody else's pages are merged
        self.alone = not ksm_number("pages_shared") and not ksm_number("ksm_zero_pages")
        for name, value in (("advisor_mode", "none"), ("smart_scan", "1"), ("pages_to_scan", "20000"),
                            ("sleep_millisecs", "0"), ("use_zero_pages", "1")):
            if read(f"{KSM}/{name}"):
                s.host.set(f"{KSM}/{name}", value)

    def run(self):
        path = f"{KSM}/run"
        self.host.at_exit(write, path, read(path))
        if self.alone:
            self.host.at_exit(write, path, "2")     # forget everything
        write(path, "1")

    @staticmethod
    def default():
        """On at the pace that it is shipped with."""
        write(f"{KSM}/pages_to_scan", "100")
        write(f"{KSM}/sleep_millisecs", "20")

    @staticmethod
    def stop():
        """Scanning ends; what is merged stays so."""
        write(f"{KSM}/run", "0")

    @staticmethod
    def passes():
        return ksm_number("full_scans")

    @staticmethod
    def merged(guests):
        """Pages of these guests that have no frame of their own."""
        total = 0
        for guest in guests:
            numbers = dict(line.rsplit(None, 1) for line in read(f"/proc/{guest.pid}/ksm_stat").splitlines())
            total += int(numbers["ksm_merging_pages"]) + int(numbers["ksm_zero_pages"])
        return total


@contextlib.contextmanager
def ksm_guests(s, layout, mib):
    with s.host.part(), contextlib.ExitStack() as stack:
        ksm = Ksm(s)
        guests = [stack.enter_context(s.guest(mib, "mergeable", number=f"{i}:{layout}")) for i in range(GUESTS)]
        Worker.all_do(guests, "fill", 0, mib * PAGES)
        yield ksm, guests


def ksm_settle(ksm, guests, mib):
    twins, common, own, zero = mix(mib)
    cpu = Cpu(*(g.pid for g in guests))
    ksm.run()
    best = settle(lambda: ksm.merged(guests), ksm.passes, lambda still: None, cpu, GUESTS * mib * PAGES,
                  GUESTS * (twins + zero) * (1 - STEP))
    best.saved -= common + GUESTS * own     # the frames that are shared; less than that only if it missed many
    return best


def ksm_steady(ksm):
    """CPU seconds of a pass when nothing is left to be done."""
    def next_pass(n):
        end = ksm.passes() + n
        while ksm.passes() < end:
            time.sleep(0.002)
        return cpu_seconds(ksm.pid)

    before = next_pass(1)
    return (next_pass(KSM_STEADY_PASSES) - before) / KSM_STEADY_PASSES


def ksm_side(s, layout, mib, steady):
    """(settled, CPU seconds of a steady pass)"""
    with ksm_guests(s, layout, mib) as (ksm, guests):
        best = ksm_settle(ksm, guests, mib)
        log(f"KSM, {layout}: {best}")
        cost = ksm_steady(ksm) if steady else None
        for guest in guests:
            guest.checked("verify", 1)
    return best, cost


def ksm_first_writes(s, mib):
    """us p50"""
    with ksm_guests(s, "runs", mib) as (ksm, guests):
        ksm_settle(ksm, guests, mib)
        ksm.stop()
        guests[0].do("list", 0, mib * PAGES, "twin", 1)
        with s.pinned(guests[0]):
            answer = guests[0].do("touch", "write", BREAKS)
        guests[0].checked("verify", 1)
    log(f"KSM, first write to a merged page: p50 {answer['p50']:.2f}, p99 {answer['p99']:.2f} us")
    return answer["p50"]


# ---- our side ----

class Sharing(Daemon):
    """A memctld that shares as fast as it is asked to."""

    def __init__(self, s, mib, **settings):
        settings = {"ShareRateMax": "10000000", "ShareScanGHz": "1000000", **settings}
        super().__init__(s, mib, share_groups="bench=*", share_with_root="yes", **settings)

    def scan(self):
        """Ask for a pass; it may go on when this returns."""
        self.memctl("share", "scan")

    def numbers(self):
        return self.call("ListVms")["vms"]

    def saved(self):
        """Pages."""
        return sum(vm["saved_bytes"] + vm["zero_bytes"] for vm in self.numbers()) // PAGE

    def passes(self):
        return min(vm["scan_passes"] for vm in self.numbers())

    def total(self, name):
        return sum(vm[name] for vm in self.numbers())

    def passed(self, limit_s=LIMIT_S):
        """One pass from its beginning to its end; how often that was asked."""
        before, asked = self.passes(), 0
        self.scan()
        end = time.monotonic() + limit_s
        while self.passes() <= before:
            asked += 1
            if time.monotonic() > end:
                raise RuntimeError(f"a pass has not ended after {limit_s} s")
            time.sleep(0.002)
        return asked + 2


@contextlib.contextmanager
def our_guests(s, layout, mib, guests=GUESTS, **settings):
    """A daemon with room for all of it, twice where pages are copied."""
    with Sharing(s, guests * mib * 5 // 4 + 128, **settings) as daemon, contextlib.ExitStack() as stack:
        yield daemon, [stack.enter_context(s.lease(daemon, mib, number=f"{i}:{layout}", sharing="group:bench"))
                       for i in range(guests)]


def our_settle(daemon, guests, mib):
    """From the content just written to the last page saved."""
    cpu = Cpu(daemon.pid, *(g.pid for g in guests))
    asked = [daemon.passes()]
    daemon.scan()

    def go_on(still):
        # the next pass when the one before has ended and what it found has been dealt with
        if still > POLL_S and daemon.passes() > asked[0]:
            asked[0] = daemon.passes()
            daemon.scan()

    best = settle(daemon.saved, daemon.passes, go_on, cpu, len(guests) * mib * PAGES)
    if not daemon.total("shared_bytes"):
        raise RuntimeError("nothing was shared")
    return best


def our_steady(daemon, guests):
    """CPU seconds of a pass when nothing is left to be done; that of asking is taken off."""
    def used():
        return sum(cpu_seconds(pid) for pid in (daemon.pid, *(g.pid for g in guests)))

    daemon.passed()
    read_before, before = daemon.total("scanned_pages"), used()
    asked = sum(daemon.passed() for _ in range(STEADY_PASSES))
    passes = used() - before
    scanned = daemon.total("scanned_pages") - read_before
    before = used()
    for _ in range(asked):
        daemon.numbers()
        time.sleep(0.002)
    asking = used() - before
    cost = max(0, passes - asking) / STEADY_PASSES
    log(f"memctl: {STEADY_PASSES} passes over memory at rest: {passes * 1e3:.2f} ms, asking {asking * 1e3:.2f} ms of"
        f" it, {scanned} pages read")
    return cost


def check(daemon, guests):
    for guest in guests:
        guest.checked("verify", 1)
    daemon.audit()


def our_side(s, layout, mib, steady):
    """(settled, CPU seconds of a steady pass)"""
    with our_guests(s, layout, mib) as (daemon, guests):
        Worker.all_do(guests, "fill", 0, mib * PAGES)
        best = our_settle(daemon, guests, mib)
        log(f"memctl, {layout}: {best}; {daemon.total('share_mappings')} mappings,"
            f" {daemon.total('share_failed_pages')} pages failed")
        cost = our_steady(daemon, guests) if steady else None
        check(daemon, guests)
    return best, cost


# ---- the budget ----

def mappings_left(guest):
    """Three quarters of what a process may have, less what this one has."""
    return int(read("/proc/sys/vm/max_map_count")) * 3 // 4 - len(read(f"/proc/{guest.pid}/maps").splitlines())


def beyond_budget(s):
    """(pages saved, pages that could have been)"""
    with our_guests(s, "scattered", BUDGET_MIB) as (daemon, guests):
        budget = min(mappings_left(g) for g in guests)
        Worker.all_do(guests, "fill", 0, BUDGET_MIB * PAGES)
        best = our_settle(daemon, guests, BUDGET_MIB)
        mapped = [len(read(f"/proc/{g.pid}/maps").splitlines()) for g in guests]
        log(f"memctl, beyond the budget of {budget} mappings: {best}; the clients have {mapped} mappings,"
            f" {daemon.total('share_budget_pages')} times a page was left alone")
        check(daemon, guests)
    return best.saved, within(BUDGET_MIB, budget)


# ---- breaking ----

def first_writes(s, daemon, guests, trip, i):
    """(ours, bare) p50 of the first write to pages that are shared."""
    guest = guests[0]
    Worker.all_do(guests, "fill", 0, BREAK_MIB * PAGES)
    our_settle(daemon, guests, BREAK_MIB)
    guest.do("list", 0, BREAK_MIB * PAGES, "twin", i)
    with s.pinned(guest, daemon):
        peer = trip.p50("wp", BREAKS)
        before = daemon.vm(guest.vm)["break_pages"]
        answer = guest.do("touch", "write", BREAKS)
        broken = daemon.vm(guest.vm)["break_pages"] - before
        # the machine may have become busy in between
        peer = (peer + trip.p50("wp", BREAKS)) / 2
    log(f"first write to a shared page: p50 {answer['p50']:.1f}, p90 {answer['p90']:.1f}, p99 {answer['p99']:.1f} us,"
        f" bare {peer:.1f}")
    if broken < BREAKS * 0.95:
        raise RuntimeError(f"{BREAKS} writes broke {broken} shared pages")
    check(daemon, guests)
    return answer["p50"], peer


def storm(daemon, guests, i):
    """Shared pages broken per second when everybody writes all of them at the same time."""
    Worker.all_do(guests, "fill", 0, BREAK_MIB * PAGES)
    our_settle(daemon, guests, BREAK_MIB)
    pages = sum(a["pages"] for a in Worker.all_do(guests, "list", 0, BREAK_MIB * PAGES, "twin", i))
    before, began = daemon.total("break_pages"), time.monotonic()
    Worker.all_do(guests, "touch", "write", BREAK_MIB * PAGES)
    seconds = time.monotonic() - began
    broken = daemon.total("break_pages") - before
    log(f"storm: {pages} pages written, {broken} broken in {seconds:.2f} s")
    if broken < pages * 0.95:
        raise RuntimeError(f"writes to {pages} pages broke {broken} shared ones")
    check(daemon, guests)
    return broken / seconds


# ---- the tax ----

def tax(s, layout, i):
    """(writes per second with sharing, without).  Two threads write without changing a byte: a page looks unchanged
    each time, is protected, and written at once."""
    with our_guests(s, layout, TAX_MIB, 1) as (daemon, guests):
        guest, rate = guests[0], daemon.setting("ShareRateMax", "default")
        daemon.tune("ShareScanGHz", daemon.setting("ShareScanGHz", "default"))
        guest.do("fill", 0, TAX_MIB * PAGES)
        guest.do("sequential", 0, TAX_MIB * PAGES)
        looked = {"with": 0, "without": 0}

        def turn(what, k):
            daemon.tune("ShareRateMax", rate if what == "with" else 0)
            if what == "with":
                daemon.scan()       # as if there were so much memory that the next pass is always due
            before = daemon.vm(guest.vm)["scanned_pages"]
            answer = guest.do("churn", TURN_MS, 2, k)
            looked[what] += daemon.vm(guest.vm)["scanned_pages"] - before
            return answer["pages"] / answer["seconds"]

        turn("without", 0)
        turns = [alternately(i + k, lambda: turn("with", 2 * k), lambda: turn("without", 2 * k + 1))
                 for k in range(TURNS)]
        ours, peer = (sorted(values)[TURNS // 2] for values in zip(*turns))
        vm = daemon.vm(guest.vm)
        log(f"tax, {layout}: {ours / 1e6:.2f} M writes/s, without {peer / 1e6:.2f}; {looked['with']} pages read,"
            f" {vm['scan_protected_pages']} protected, {vm['faults_protected']} protection faults,"
            f" {vm['share_pages']} shared, {vm['break_pages']} broken")
        if looked["with"] < int(rate) * TURNS * TURN_MS / 1000 / 4:
            raise RuntimeError(f"only {looked['with']} pages were read at {rate} a second: no tax was levied")
        check(daemon, guests)
    return ours, peer


def measure(s, results):
    mib = {"runs": RUNS_MIB, "scattered": SCATTERED_MIB}
    results.row("saving_runs", "all equal pages share a frame, zero pages have none", "bytes", ">= 0.99")
    results.row("saving_scattered", "as many pages as the mappings allow", "bytes", ">= 0.99")
    results.row("settled_runs", "ksmd at its fastest", "pages/CPU-s", ">= 1.5")
    results.row("settled_scattered", "ksmd at its fastest", "pages/CPU-s", ">= 0.9")
    results.row("steady_state", "ksmd, a pass over the same memory", "ms CPU", "<= 0.01")
    results.row("break", "bare write-protect round trip", "us p50", "<= 2")
    results.row("break_storm", "none", "pages/s")
    results.row("scan_tax", "sharing off (ShareRateMax=0)", "writes/s", ">= 0.98")
    results.row("scan_tax_shared", "the same, where pages are shared and broken again", "writes/s")
    results.row("ksm_saving", "as saving_runs (value: KSM's)", "bytes")
    results.row("ksm_break", "first write to a page that KSM merged (value: to one of ours)", "us p50")
    results.no_peer("break_storm", "reported, nothing to compare with")
    s.warm(2 * GUESTS * RUNS_MIB)
    missing = ksm_missing()
    if missing:
        for name in ("settled_runs", "settled_scattered", "steady_state", "ksm_saving", "ksm_break"):
            results.no_peer(name, missing)

    def settling(layout):
        pages = GUESTS * mib[layout] * PAGES

        def one(i):
            steady = layout == "runs"
            if missing:
                ours, peer = our_side(s, layout, mib[layout], steady), None
            else:
                ours, peer = alternately(i, lambda: our_side(s, layout, mib[layout], steady),
                                         lambda: ksm_side(s, layout, mib[layout], steady))
            results.add(f"settled_{layout}", pages / ours[0].cpu, pages / peer[0].cpu if peer else None)
            if steady:
                results.add("saving_runs", ours[0].saved * PAGE, ideal(mib[layout]) * PAGE)
                results.add("steady_state", ours[1] * 1e3, peer[1] * 1e3 if peer else None)
                if peer:
                    results.add("ksm_saving", peer[0].saved * PAGE, ideal(mib[layout]) * PAGE)
        return one

    repeat(results, ("saving_runs", "settled_runs", "steady_state", "ksm_saving"), s.rounds, settling("runs"))
    repeat(results, ("settled_scattered",), s.rounds, settling("scattered"))

    def budget(_):
        saved, allowed = beyond_budget(s)
        results.add("saving_scattered", saved * PAGE, allowed * PAGE)

    repeat(results, ("saving_scattered",), s.rounds, budget)

    def breaking(i):
        ours, peer = first_writes(s, daemon, guests, trip, i)
        kernel = None if missing else ksm_first_writes(s, BREAK_MIB)
        results.add("break", ours, peer)
        results.add("ksm_break", ours, kernel)

    try:
        with our_guests(s, "runs", BREAK_MIB) as (daemon, guests), Trip(s) as trip:
            repeat(results, ("break", "ksm_break"), s.rounds, breaking)
            repeat(results, ("break_storm",), s.rounds,
                   lambda i: results.add("break_storm", storm(daemon, guests, i), None))
    except (RuntimeError, OSError, lib.daemon.Failed) as e:
        for name in ("break", "ksm_break", "break_storm"):
            results.absent(name, str(e))
    repeat(results, ("scan_tax",), s.rounds, lambda i: results.add("scan_tax", *tax(s, "unique", i)))
    repeat(results, ("scan_tax_shared",), s.rounds, lambda i: results.add("scan_tax_shared", *tax(s, "mixed", i)))
