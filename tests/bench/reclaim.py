"""What taking memory costs, against the kernel's zswap under a cgroup limit, the disk alone and random victims.

Both sides hold the same content, 1 GiB of the mix, and must give half of it.  Ours is asked by raising the share
of the arena that is to be free; the kernel's by lowering the limit of the guest's cgroup.  Freed = bytes of
evicted pages that are not zero minus bytes by which the stores grew, the disk included.
"""
import contextlib
import os

from bench import Cpu, Daemon, MIB, PAGE, Worker, program, repeat
from host import log, meminfo, vmstat

GUEST_MIB = 1024
TAKEN_MIB = 512
HALF = 50               # % of the arena
ARENA_MIB = 1376        # half of it free: 512 MiB taken, what they compress to kept
FULL_ARENA_MIB = 720    # what the kernel's guest has at its limit, its zswap pool counted
PAGES = 256
LIMIT_FAULTS = 8000
SWAP_MIB = 384
SWAP_FAULTS = 2000
ZIPF_MIB = 256
ZIPF_ARENA_MIB = 160
ZIPF_ACCESSES = 400_000
ZSWAP = "/sys/module/zswap/parameters"


def zswap_missing():
    if not os.path.isdir(ZSWAP):
        return "this kernel has no zswap"
    if not os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes") and \
            not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return "no memory cgroup controller"
    return None


class Taken:
    """What one forced reclaim did."""

    def __init__(self, original, stored, disk, cpu):
        self.original, self.stored, self.disk, self.cpu = original, stored, disk, cpu

    @property
    def per_cpu_second(self):
        return (self.original - self.stored - self.disk) / MIB / self.cpu

    def __str__(self):
        return (f"{self.original / MIB:.0f} MiB taken, {self.stored / MIB:.0f} MiB stored, {self.disk / MIB:.0f} MiB"
                f" on disk, {self.cpu:.2f} CPU-s, {self.per_cpu_second:.1f} MiB/CPU-s")


class Squeezed:
    """The kernel's side: one guest in a memory cgroup, and a swap file; zswap before it, or (None) nothing."""

    def __init__(self, s, mib, compressor, cluster=0):
        self.s, self.mib, self.compressor, self.cluster = s, mib, compressor, cluster

    def __enter__(self):
        s = self.s
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._stack.enter_context(s.host.part())
            if self.compressor:
                s.host.set(f"{ZSWAP}/compressor", self.compressor)
            s.host.set(f"{ZSWAP}/enabled", "Y" if self.compressor else "N")
            s.host.set("/proc/sys/vm/page-cluster", str(self.cluster))
            s.host.swap_on(s.host.swap_file(s.directory, 2 * GUEST_MIB))
            self.group = s.host.memory_cgroup(f"memctl-bench.{os.getpid()}")
            self.guest = self._stack.enter_context(s.guest(self.mib, "anon"))
            self.group.add(self.guest.pid)
            self.guest.do("fill", 0, self.mib * PAGES)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *what):
        return self._stack.__exit__(*what)

    def take(self, mib):
        """Lower the limit by so much; what that did."""
        before = meminfo("Zswap"), vmstat("pswpout")
        cpu = Cpu(os.getpid(), self.guest.pid)
        self.group.limit(self.group.usage() - mib * MIB)
        cpu = cpu.used()
        return Taken(self.guest.do("absent", "data", 1)["pages"] * PAGE, meminfo("Zswap") - before[0],
                     (vmstat("pswpout") - before[1]) * PAGE, cpu)


def zswap(s):
    """A limit lowered, then faults at the limit."""
    with Squeezed(s, GUEST_MIB, "lzo") as kernel:
        taken = kernel.take(TAKEN_MIB)
        s.pin_guest(kernel.guest)
        kernel.group.limit(kernel.group.usage())
        at_limit = kernel.guest.do("touch", "read", LIMIT_FAULTS)
        kernel.group.limit(None)
        kernel.guest.checked("verify", 7)
    log(f"zswap: {taken}; at its limit p50 {at_limit['p50']:.1f}, p99 {at_limit['p99']:.1f} us")
    return taken, at_limit


def take(daemon, guest):
    """Ask for half of the arena, wait until it is free, stop asking; what that did."""
    before, cpu = daemon.vm(guest.vm), Cpu(daemon.pid, guest.pid)
    daemon.tune("MemMinFreePct", HALF)
    daemon.settle(guest.vm)
    after, cpu = daemon.vm(guest.vm), cpu.used()
    daemon.tune("MemMinFreePct", 0)
    grown = {k: after[k] - before[k] for k in after if k.endswith(("_bytes", "_pages"))}
    data = grown["evicted_pages"] - grown["evicted_zero_pages"]
    return Taken(data * PAGE, grown["cache_bytes"] + grown["overhead_bytes"], grown["swapped_bytes"], cpu)


def ours(s, level=None):
    """One guest in an arena with room; half of it is taken, then faulted back."""
    settings = {} if level is None else {"zstd_level": str(level)}
    with Daemon(s, ARENA_MIB, fault_around="1", **settings) as daemon, s.lease(daemon, GUEST_MIB) as guest:
        guest.do("fill", 0, GUEST_MIB * PAGES)
        taken = take(daemon, guest)
        s.load(guest, daemon.pages(guest.vm, "compressed"), "data", 1)
        s.pin_guest(guest, daemon)
        fault = guest.do("touch", "read", LIMIT_FAULTS)
        guest.checked("verify", 7)
        daemon.audit()
    log(f"memctl, level {level if level is not None else 'shipped'}: {taken}; fault p50 {fault['p50']:.1f} us")
    return taken, fault


def at_limit(s):
    """Faults while the arena is as full as it ever gets."""
    with Daemon(s, FULL_ARENA_MIB, fault_around="1") as daemon, s.lease(daemon, GUEST_MIB) as guest:
        guest.do("fill", 0, GUEST_MIB * PAGES)
        daemon.settle(guest.vm)
        s.load(guest, daemon.pages(guest.vm, "compressed"), "data", 1)
        s.pin_guest(guest, daemon)
        waits = daemon.vm(guest.vm)["frame_waits"]
        answer = guest.do("touch", "read", LIMIT_FAULTS)
        after = daemon.vm(guest.vm)
        log(f"memctl at its limit: p50 {answer['p50']:.1f}, p99 {answer['p99']:.1f}, max {answer['max']:.0f} us,"
            f" {after['frame_waits'] - waits} waits for a frame")
        guest.checked("verify", 7)
        daemon.audit()
    return answer


def swap_faults(s, disk, seed):
    """Pages that are on disk only, with free frames to bring them back into."""
    with Daemon(s, SWAP_MIB + 16, fault_around="1", MemZipMaxPct="0") as daemon, \
            s.lease(daemon, SWAP_MIB) as guest:
        guest.do("fill", 0, SWAP_MIB * PAGES)
        take(daemon, guest)
        s.load(guest, daemon.pages(guest.vm, "swapped"), "data", seed)
        s.pin_guest(guest, daemon)
        os.sched_setaffinity(disk.pid, {s.core})
        peer = disk.do("read", SWAP_FAULTS // 2, seed)["p50"]
        answer = guest.do("touch", "read", SWAP_FAULTS)
        peer = (peer + disk.do("read", SWAP_FAULTS // 2, seed + 1)["p50"]) / 2
        if answer["n"] < SWAP_FAULTS:
            raise RuntimeError(f"only {answer['n']} pages were on disk")
        guest.checked("verify", 7)
        daemon.audit()
    return answer["p50"], peer


def refaults(s, victim, seed):
    with Daemon(s, ZIPF_ARENA_MIB, victim=victim) as daemon, s.lease(daemon, ZIPF_MIB) as guest:
        guest.do("fill", 0, ZIPF_MIB * PAGES)
        guest.checked("zipf", ZIPF_ACCESSES // 4, 90, seed)
        before = daemon.vm(guest.vm)["refault_pages"]
        guest.checked("zipf", ZIPF_ACCESSES, 90, seed + 1)
        count = daemon.vm(guest.vm)["refault_pages"] - before
        daemon.audit()
    log(f"{victim}: {count} refaults")
    return count


def measure(s, results):
    results.row("freed_per_cpu_second", "zswap (lzo) under cgroup-limit reclaim", "MiB/CPU-s", ">= 1.0")
    results.row("stored_ratio", "arena bytes used (value: original bytes)", "bytes", ">= 2.1")
    results.row("zswap_ratio", "zswap pool bytes used (value: original bytes)", "bytes")
    results.row("at_limit_p99", "zswap (lzo) fault at the cgroup limit", "us p99", "<= 0.5")
    results.row("swap_fault", "bare O_DIRECT pread", "us p50", "<= 1.3")
    results.row("refaults", "random victims on the same zipf load", "refaults", "<= 0.8")
    s.warm(4096)
    missing = zswap_missing()

    def taking(_):
        mine, _ = ours(s)
        full = at_limit(s)
        results.add("stored_ratio", mine.original, mine.stored + mine.disk)
        if missing:
            results.add("freed_per_cpu_second", mine.per_cpu_second, None)
            results.add("at_limit_p99", full["p99"], None)
            return
        kernel, kernel_full = zswap(s)
        results.add("freed_per_cpu_second", mine.per_cpu_second, kernel.per_cpu_second)
        results.add("zswap_ratio", kernel.original, kernel.stored + kernel.disk)
        results.add("at_limit_p99", full["p99"], kernel_full["p99"])

    if missing:
        for name in ("freed_per_cpu_second", "at_limit_p99", "zswap_ratio"):
            results.no_peer(name, missing)
    repeat(results, ("freed_per_cpu_second", "stored_ratio", "zswap_ratio", "at_limit_p99"), s.rounds, taking)
    with Worker(program("bench-disk"), s.directory, SWAP_MIB) as disk:
        repeat(results, ("swap_fault",), s.rounds,
               lambda i: results.add("swap_fault", *swap_faults(s, disk, 2 * i)))
    repeat(results, ("refaults",), s.rounds,
           lambda i: results.add("refaults", refaults(s, "second-chance", 2 * i), refaults(s, "random", 2 * i)))


def sweep(s, results):
    """Every zstd level: what it stores, what it costs to take a page and to bring one back."""
    levels = (-7, -5, -3, -1, 1, 2, 3)
    for level in levels:
        results.row(f"stored_ratio {level}", "arena bytes used (value: original bytes)", "bytes")
        results.row(f"freed_per_cpu_second {level}", "none: compare the levels", "MiB/CPU-s")
        results.no_peer(f"freed_per_cpu_second {level}", "compare the levels")
        results.row(f"fault_p50 {level}", "none: compare the levels", "us")
        results.no_peer(f"fault_p50 {level}", "compare the levels")
    s.warm(4096)

    def one(_):
        for level in levels:
            taken, fault = ours(s, level)
            results.add(f"stored_ratio {level}", taken.original, taken.stored + taken.disk)
            results.add(f"freed_per_cpu_second {level}", taken.per_cpu_second, None)
            results.add(f"fault_p50 {level}", fault["p50"], None)

    repeat(results, list(results.rows), s.rounds, one)
