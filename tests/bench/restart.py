"""How long guests wait when memctld dies, by how much it has lent and to how many; and when it is upgraded.

A client touches absent pages once a millisecond (tests/crash/toucher.c).  What is told is the longest that one of its touches waited
after the SIGKILL, or after the order to upgrade, with the other VMs at twice the arena.  The kernel has no peer for this: its pager does not
die.  The unit of comparison is the promise, 250 ms, and for the curve the smallest of its points."""
import statistics
import subprocess
import time

from bench import MIB, Daemon, Setting
from crash.random_kills import Toucher
from crash.supervised import Supervised
from host import log

PAGES = 256		# of a MiB
PROMISE_NS = 250e6
KILLS = 12
REST_SECONDS = 0.7
CURVE = (("pause_64m", 1, 64), ("pause_256m", 1, 256), ("pause_1g", 1, 1024), ("pause_4g", 1, 4096),
         ("pause_16_vms", 16, 64), ("pause_64_vms", 64, 64))


class Mortal(Daemon, Supervised):
    pass


def pause_ns(from_ns, until_ns, touches):
    """The longest that a touch was held up in this time.  Whoever is told to end goes on serving for a moment, so the first touch
    after that would say nothing."""
    waits = [end - max(began, from_ns) for began, end in touches if end > from_ns and began < until_ns]
    return max(waits) if waits else None


def rounds(s, vms, mib, act, n):
    """Pauses in ns."""
    with Mortal(s, max(64, vms * mib // 2)) as daemon:
        guests = [s.lease(daemon, mib, number=i) for i in range(vms)]
        for g in guests:
            g.do("sequential", 0, mib * PAGES)
        toucher = Toucher(daemon)
        moments = []
        try:
            for _ in range(n):
                time.sleep(REST_SECONDS)
                moments.append(time.monotonic_ns())
                act(daemon)
                end = time.monotonic() + 30
                while daemon.run_memctl("status").returncode and time.monotonic() < end:
                    time.sleep(0.02)
            time.sleep(REST_SECONDS)
            touches = toucher.stop()
        finally:
            toucher.kill()
            for g in guests:
                g.end()
    pauses = [pause_ns(m, until, touches) for m, until in zip(moments, moments[1:] + [touches[-1][1]])]
    if None in pauses:
        raise RuntimeError("a kill without a fault after it")
    return pauses


def kill(daemon):
    if not daemon.kill_child():
        raise RuntimeError("there is no memctld to kill")


def upgrade(daemon):
    r = daemon.run_memctl("daemon", "upgrade")
    if r.returncode:
        raise subprocess.CalledProcessError(r.returncode, "memctl daemon upgrade", r.stdout, r.stderr)


def measure(s: Setting, results):
    results.row("pause_p99", "250 ms", "ns", "<= 1.0")
    results.row("upgrade_p99", "250 ms", "ns", "<= 1.0")
    for name, _, _ in CURVE:
        results.row(name, "one lease of 64 MiB", "ns")
    first = None
    for name, vms, mib in CURVE:
        try:
            pauses = sorted(rounds(s, vms, mib, kill, KILLS))
        except (RuntimeError, OSError) as e:
            results.absent(name, str(e))
            continue
        first = first or statistics.median(pauses)
        results.add(name, statistics.median(pauses), first)
        log(f"{name}: {', '.join('%.0f' % (p / 1e6) for p in pauses)} ms")
        if name == "pause_4g":
            # of so few rounds the worst one
            results.add("pause_p99", pauses[-1], PROMISE_NS)
            pauses = sorted(rounds(s, vms, mib, upgrade, KILLS // 2))
            results.add("upgrade_p99", pauses[-1], PROMISE_NS)
            log(f"upgrade: {', '.join('%.0f' % (p / 1e6) for p in pauses)} ms")
