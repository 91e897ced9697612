#!/usr/bin/env python3
"""Sharing when memory is short, and how fast it goes."""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from system.sharing import audit, gone, groups, home, member, numbers, scan, shared, sharing_daemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402
from wire.client import Client  # noqa: E402

N = 1500


def at_once(*calls):
    """Each call in a thread of its own; the first failure of any."""
    failures = []

    def run(call):
        try:
            call()
        except Exception as e:  # pylint: disable=broad-except
            failures.append(e)

    threads = [threading.Thread(target=run, args=(c,)) for c in calls]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def test_a_storm_of_writes_in_a_full_arena():
    """Every VM writes every shared page at once, and there is no frame for any of them: it takes as long as eviction does."""
    with sharing_daemon(24) as d, member(d, "a", 8) as a, member(d, "b", 8) as b, member(d, "c", 8) as c, \
            member(d, "f", 24, sharing="off") as f:
        sharers = (a, b, c)
        for p in sharers:
            p.do("fill", 0, 0, N, 1, "text")
        shared(d, *((p, N) for p in sharers))
        check_eq(groups(d)["g"]["common_bytes"], N * 4096, "distinct pages")
        f.do("fill", 0, 0, 5000, 3, "random")
        before = numbers(d, "f")["evicted_pages"]
        check(before > 0, "the arena is not full")
        at_once(*(lambda p=p: p.do("fill", 0, 0, N, 2, "random", seconds=120) for p in sharers))
        for p in sharers:
            check_eq(p.numbers()["break_pages"], N, "breaks of " + p.name)
            p.check(0, N, 2, "random")
        f.check(0, 5000, 3, "random")
        home(d, *sharers)
        audit(d)
        for p in sharers:
            check_eq(p.numbers()["trouble"], "", "trouble of " + p.name)


def test_nothing_is_left_of_a_group():
    with sharing_daemon(64) as d:
        with member(d, "a", 8) as a, member(d, "b", 8) as b:
            for p in (a, b):
                p.do("fill", 0, 0, N, 1, "text")
            shared(d, (a, N), (b, N))
        gone(d)


def tune(d, setting, value):
    with Client(d.socket) as c:
        c.call("Tune", setting=setting, value=str(value))


def rate(d, vm, seconds):
    """Pages that the scan has read of this VM, a second."""
    before, began = numbers(d, vm)["scanned_pages"], time.monotonic()
    time.sleep(seconds)
    return (numbers(d, vm)["scanned_pages"] - before) / (time.monotonic() - began)


def test_the_scan_keeps_to_its_rate():
    """Counts of a running daemon against its setting; each change acts at the next tick.  (The unit tests have a clock of their
    own, and are exact.)"""
    with sharing_daemon(128) as d, member(d, "a", 64) as a:
        a.do("fill", 0, 0, 12000, 1, "random")
        tune(d, "ShareRateMax", 500)
        scan(d)
        time.sleep(1.5)	# what was granted before
        slow = rate(d, "a", 3 * SLOW)
        tune(d, "ShareRateMax", 1500)
        time.sleep(0.3)
        fast = rate(d, "a", 3 * SLOW)
        tune(d, "ShareRateMax", 0)
        time.sleep(1.5)
        off = rate(d, "a", 1)
        check(slow <= 500 * 1.2, "at 500 a second: %g" % slow)
        check(fast <= 1500 * 1.2, "at 1500 a second: %g" % fast)
        check(fast > 2 * slow > 0, "1500 a second is %g, 500 is %g" % (fast, slow))
        check_eq(off, 0, "pages a second with sharing off")


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 150

if __name__ == "__main__":
    main(globals())
