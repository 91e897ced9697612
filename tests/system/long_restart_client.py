#!/usr/bin/env python3
"""What a client meets when its memctld is killed, hangs, lets it go, or has forgotten it: events, calls, faults, bytes."""
import contextlib
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, Puppet, Refused, daemon  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402


def supervised(arena_mib, watchdog=0):
    return SupervisedDaemon(watchdog, arena=arena_mib * MIB, start_seconds=20 * SLOW)


def kill_child(d):
    lives = d.log().count("serving on")
    os.kill(wait_until(d.child, 10 * SLOW, "a memctld"), signal.SIGKILL)
    wait_until(lambda: d.log().count("serving on") > lives, 10 * SLOW, "the next one")


def expect_events(p, *names, ms=5000):
    check_eq([p.do("event", int(ms * SLOW))[0] for _ in names], list(names), "events of %s" % p.name)


@contextlib.contextmanager
def hammered(p, first, count):
    """A thread writes and checks these pages all the time."""
    p.do("discard", 0, first, count)
    h = p.do("hammer", 0, first, count)[0]
    yield
    wrong, rounds = p.do("rest", h)
    check_eq(wrong, "0", "lost words of %s" % p.name)
    check(int(rounds) > 0, "%s got nowhere" % p.name)


def test_killed_with_guests_running():
    """Twice the arena, shared and not; eight deaths, calls and faults all the while."""
    with supervised(32) as d, Puppet(d, "a", 40, sharing="vm") as a, Puppet(d, "b", 24, sharing="off") as b:
        a.do("fill", 0, 1024, 9000, 1, "mix", seconds=120)
        b.do("fill", 0, 1024, 5000, 2, "mix", seconds=120)
        with hammered(a, 0, 512), hammered(b, 0, 512):
            for turn in range(8):
                kill_child(d)
                for p in (a, b):
                    expect_events(p, "disconnected", "reconnected")
                a.do("discard", 0, 600 + turn, 1)
                b.do("populate", 0, 1024, 64)
        a.check(1024, 9000, 1, "mix")
        b.check(1024, 5000, 2, "mix")
        d.audit()


def test_calls_wait_for_the_next_one():
    with supervised(32) as d, Puppet(d, "a", 32, reservation=8, lease=24) as a:
        a.do("fill", 0, 0, 512, 1, "mix")
        for words in (("pin", 0, 0, 64), ("populate", 0, 0, 512), ("unpin", 0, 0, 64), ("lease", 1 << 32, 4 * MIB)):
            os.kill(d.child(), signal.SIGKILL)
            a.do(*words)
            expect_events(a, "disconnected", "reconnected")
        check_eq(int(a.numbers()["pinned_bytes"]), 0, "pins")
        a.do("release", 1)
        a.check(0, 512, 1, "mix")
        d.audit()


def test_leases_come_and_go_through_it():
    """A client that leases and releases all the time; what was half done is undone."""
    with supervised(32) as d, Puppet(d, "a", 64, lease=16) as a:
        a.do("fill", 0, 0, 256, 1, "mix")
        done = threading.Event()

        def kills():
            while not done.wait(0.07 * SLOW):
                kill_child(d)

        killer = threading.Thread(target=kills)
        killer.start()
        try:
            for turn in range(1, 15):
                a.do("lease", turn << 32, 8 * MIB)
                a.do("fill", turn, 0, 64, turn, "mix")
                a.check(0, 64, turn, "mix", lease=turn)
                a.do("release", turn)
        finally:
            done.set()
            killer.join()
        a.do("populate", 0, 0, 16)
        wait_until(lambda: a.numbers()["leased_bytes"] == 16 * MIB, 10 * SLOW, "the release of what was half done")
        a.check(0, 256, 1, "mix")
        d.audit()


def test_one_that_hangs():
    """Guests wait, the library says so, the watchdog kills, guests go on."""
    with supervised(32, watchdog=2) as d, Puppet(d, "a", 48) as a:
        a.do("fill", 0, 0, a.pages, 1, "mix", seconds=120)
        lives = d.log().count("serving on")
        os.kill(d.child(), signal.SIGSTOP)
        a.check(0, a.pages, 1, "mix")
        wait_until(lambda: d.log().count("serving on") > lives, 10 * SLOW, "the next one")
        names = {a.do("event", 5000)[0] for _ in range(4)}
        check_eq(names, {"stalled", "served", "disconnected", "reconnected"}, "events")
        check_eq(a.do("stalled")[0], "0", "stalled")
        d.audit()


def test_removed_by_the_operator():
    with daemon(32) as d, Puppet(d, "a", 24) as a:
        a.do("fill", 0, 0, 64, 1, "mix")
        d.run_memctl("vm", "rm", "a")
        expect_events(a, "disconnected", "lost")
        try:
            a.do("populate", 0, 0, 64)
            check(False, "a call of a lost VM succeeds")
        except Refused as e:
            check(e.errno == 107 and "no more" in e.message, str(e))


def test_forgotten():
    """Nobody kept the memory of the memctld that died."""
    d = daemon(32)
    with contextlib.ExitStack() as end:
        d.start()
        end.callback(d.kill)
        a = end.enter_context(Puppet(d, "a", 24))
        b = end.enter_context(Puppet(d, "b", 24, lease=0))
        a.do("fill", 0, 0, 64, 1, "mix")
        d.kill()
        d.start()
        expect_events(a, "disconnected", "lost")
        # without a lease it has lost nothing
        expect_events(b, "disconnected", "reconnected")
        n = b.do("lease", 0, 8 * MIB)[0]
        b.do("fill", n, 0, 64, 2, "mix")
        b.check(0, 64, 2, "mix", lease=n)
        check_eq([v["name"] for v in d.memctl("vm", "list")["vms"]], ["b"], "VMs")


def test_let_go():
    """Everything is brought home, at the same addresses; the daemon has nothing of it any more."""
    with daemon(64) as d, Puppet(d, "a", 40, sharing="vm", lease=24) as a:
        a.do("lease", 1 << 32, 16 * MIB)
        a.do("fill", 0, 0, 4000, 1, "mix", seconds=120)
        a.do("fill", 1, 0, 100, 3, "mix")
        with hammered(a, 5000, 256):
            d.run_memctl("vm", "release", "a")
            expect_events(a, "released", ms=20000)
        check_eq(a.do("plain")[0], "1", "plain")
        check_eq(a.do("smaps", 0)[0], str(24 * MIB // 4096), "unregistered pages")
        a.check(0, 4000, 1, "mix")
        a.check(0, 100, 3, "mix", lease=1)
        a.do("discard", 0, 0, 100)
        a.check(0, 100, 0, "zero")
        a.do("pin", 0, 0, 100)
        a.do("release", 1)
        wait_until(lambda: not d.memctl("vm", "list")["vms"], 20 * SLOW, "its end")
        a.do("fill", 0, 0, 100, 4, "mix")
        a.check(0, 100, 4, "mix")


def test_an_end_while_it_is_away():
    """The client ends during the outage; the name is free when memctld is back."""
    with supervised(32) as d:
        a = Puppet(d, "a", 24)
        a.do("fill", 0, 0, 512, 1, "mix")
        os.kill(d.pid, signal.SIGSTOP)
        os.kill(d.child(), signal.SIGKILL)
        check_eq(a.do("event", 5000)[0], "disconnected", "event")
        began = time.monotonic()
        a.quit()
        check(time.monotonic() - began < 5 * SLOW, "it took %.1f s to end" % (time.monotonic() - began))
        os.kill(d.pid, signal.SIGCONT)
        wait_until(lambda: d.log().count("serving on") == 2, 10 * SLOW, "the next one")
        wait_until(lambda: not d.memctl("vm", "list")["vms"], 20 * SLOW, "its end")
        with Puppet(d, "a", 24) as again:
            again.check(0, 512, 0, "zero")
        d.audit()


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 120 * int(SLOW)

if __name__ == "__main__":
    main(globals())
