#!/usr/bin/env python3
"""The balloon with the real library: what a guest gives costs nothing, from wherever it comes; what it keeps is whole."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, PAGE, Puppet, Refused, arena, daemon, runs  # noqa: E402
from system.sharing import member, pages, shared, sharing_daemon  # noqa: E402
from system.test_restart import back, crash, supervised  # noqa: E402
from torture.actor import SLOW  # noqa: E402


def balloon(p):
    return pages(p, "ballooned")


def give(p, first, count):
    """All of them are taken."""
    check_eq(p.do("inflate", 0, first, count), [str(count)], "taken and refused")


def test_from_every_place():
    """Shared and mapped, broken, evicted, never touched; the other member of the group keeps what it has."""
    with sharing_daemon(64) as d, member(d, "a", 16, reservation=1) as a, member(d, "b", 8) as b:
        a.do("balloon_start")
        for p in (a, b):
            p.do("fill", 0, 0, 400, 1, "text")
        a.do("fill", 0, 1000, 600, 2, "text")
        shared(d, (a, 400), (b, 400))
        a.do("fill", 0, 0, 50, 3, "text")		# breaks
        before = arena(d)["charged_bytes"]
        give(a, 0, 100)
        check_eq(runs(a.states(0, 101)), "ballooned*100 shared*1")
        give(a, 1000, 500)
        give(a, 2000, 100)
        check_eq(balloon(a), 700)
        check(before - arena(d)["charged_bytes"] >= 500 * PAGE, "it frees frames")
        d.audit()
        # a touch takes one page out, and neighbours stay
        check_eq(a.do("touch", 0, 10, 1, 0, "zero", 0, "r"), ["0"])
        a.check(10, 1, 0, "zero")
        a.do("fill", 0, 1100, 1, 4, "random")
        check_eq(balloon(a), 698)
        a.do("pin", 0, 1200, 2)				# leaves it, too
        check_eq(a.do("inflate", 0, 1199, 4), ["2", "1200", "1201"], "taken, and what is pinned")
        a.do("unpin", 0, 1200, 2)
        check_eq(a.do("deflate", 0, 0, 1200), ["0"])
        check_eq(balloon(a), 398)
        a.check(0, 100, 0, "zero")
        a.check(100, 300, 1, "text")
        a.check(1000, 100, 0, "zero")
        a.check(1100, 1, 4, "random")
        a.check(1500, 100, 2, "text")
        b.check(0, 400, 1, "text")
        n = a.numbers()
        check_eq((n["inflated_pages"], n["balloon_touched_pages"], n["balloon_refused_pages"]), (700, 4, 2))
        # a driver that begins anew
        a.do("balloon_start")
        check_eq((balloon(a), a.numbers()["ballooned_peak_bytes"]), (0, 700 * PAGE))
        d.audit()


def test_it_outlives_memctld():
    with supervised(32, inject="balloon:25") as d, Puppet(d, "a", 16) as p:
        p.do("balloon_start")
        check_eq(p.do("event", 5000)[0], "balloon")
        check_eq(p.do("balloon_target"), [str(1000 * PAGE)])	# of 4096 pages, whole hundreds
        p.do("fill", 0, 0, 600, 1, "text")
        give(p, 100, 300)
        for _ in range(2):
            crash(d)
            # its driver need not begin anew, and is told nothing new
            give(p, 100, 300)
            back(d, "a")
            check_eq(runs(p.states(99, 302)), "resident*1 ballooned*300 resident*1")
            check_eq(balloon(p), 300)
            check_eq(p.do("event", 2000)[0], "disconnected")
            check_eq(p.do("event", 2000)[0], "reconnected")
            check_eq(p.do("event", 300)[0], "none")
        p.do("deflate", 0, 350, 50)
        p.check(0, 100, 1, "text")
        p.check(100, 300, 0, "zero")
        p.check(400, 200, 1, "text")
        d.audit()


def test_a_vm_is_let_go_without_it():
    """What is in the balloon needs no memory to leave with; the rest would not fit otherwise."""
    with daemon(16) as d, Puppet(d, "a", 24) as p:
        p.do("balloon_start")
        p.do("fill", 0, 0, 1000, 1, "text")
        for first in range(1000, 4500, 500):
            p.do("fill", 0, first, 500, 2, "text")
            give(p, first, 500)
        check_eq(p.do("inflate", 0, 4500, 1644)[0], str(6144 * 65 // 100 - 3500), "as many as the cap allows")
        check(d.memctl("vm", "release", "a", timeout=60 * SLOW)["pages"] <= 1000, "pages of the balloon were brought in")
        wait_until(lambda: p.do("plain")[0] == "1", 5 * SLOW, "plain memory")
        p.check(0, 1000, 1, "text")
        p.check(1000, 3500, 0, "zero")
        check_eq(p.do("inflate", 0, 0, 2), ["0", "0", "1"], "nobody needs them")
        p.check(0, 1000, 1, "text")
        check_eq(p.do("deflate", 0, 1000, 10), ["0"])


def test_who_has_no_driver():
    with daemon(16) as d, Puppet(d, "a", 8) as p:
        for command in ("inflate", "deflate"):
            try:
                p.do(command, 0, 0, 1)
                check(False, "%s without a driver" % command)
            except Refused as e:
                check_eq(e.errno, 16, str(e))
        check_eq(p.numbers()["balloon_max_bytes"], 0)
        p.do("balloon_start")
        check_eq(p.numbers()["balloon_max_bytes"], 8 * MIB // PAGE * 65 // 100 * PAGE)


if __name__ == "__main__":
    main(globals())
