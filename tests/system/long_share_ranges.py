#!/usr/bin/env python3
"""What a client may ask for of pages, on pages that are shared, breaking and cold: discard, pin, populate, hints, release."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from system.puppet import MIB, PAGE, Refused  # noqa: E402
from system.sharing import arena, audit, gone, groups, home, member, pages, scan, shared, sharing_daemon  # noqa: E402

N = 1000


def pair(d, **more):
    a, b = member(d, "a", 8, **more), member(d, "b", 8)
    for p in (a, b):
        p.do("fill", 0, 0, N, 1, "text")
    shared(d, (a, N), (b, N))
    return a, b


def states(p, first, count):
    return set(p.states(first, count))


def breaking(p, first, count):
    """Break these pages and do the next thing at once: some are not home yet."""
    p.do("fill", 0, first, count, 2, "text")


def test_discard():
    """Shared, breaking and resident pages are gone; nothing of another one is."""
    with sharing_daemon(64) as d:
        a, b = pair(d)
        with a, b:
            free = arena(d)["charged_bytes"] // PAGE
            a.do("discard", 0, 0, 200)
            check_eq(states(a, 0, 200), {"zero"}, "shared pages that were discarded")
            breaking(a, 200, 200)
            a.do("discard", 0, 200, 200)
            check_eq(states(a, 200, 200), {"zero"}, "broken pages that were discarded")
            # over all kinds: zero, shared, breaking
            breaking(a, 500, 50)
            a.do("discard", 0, 350, 300)
            a.check(0, 650, 0, "zero")
            a.check(650, N - 650, 1, "text")
            b.check(0, N, 1, "text")
            n = a.numbers()
            check_eq((n["shared_bytes"] // PAGE, n["breaking_bytes"]), (N - 650, 0), "shared, breaking")
            check_eq(n["discarded_pages"] >= 650, True, "discarded pages: %d" % n["discarded_pages"])
            a.do("discard", 0, 0, 650)
            b.do("discard", 0, 0, N)
            check_eq((pages(b, "shared"), groups(d)["g"]["common_bytes"] // PAGE), (0, N - 650), "b's, and entries that are left")
            check(arena(d)["charged_bytes"] // PAGE <= free - 650 + 8, "frames that stayed")
            audit(d)
            # and all over again
            for p in (a, b):
                p.do("fill", 0, 0, N, 1, "text")
            a.check(0, N, 1, "text")
            b.check(0, N, 1, "text")
        gone(d)


def test_pin():
    """Pinned pages are at home, in frames of the lease, and are not shared while they are pinned."""
    with sharing_daemon(64) as d:
        a, b = pair(d, reservation=4)
        with a, b:
            a.do("pin", 0, 0, 300)
            check_eq(states(a, 0, 300), {"resident"}, "shared pages that were pinned")
            check_eq(pages(a, "pinned"), 300, "pinned pages")
            breaking(a, 300, 100)
            a.do("pin", 0, 300, 100)
            check_eq(states(a, 300, 100), {"resident"}, "breaking pages that were pinned")
            # a device's way: by the memfd
            check_eq(int(a.do("fd_read", 0, 0, 400)[0]), 400, "pages with data in the memfd")
            for _ in range(2):
                scan(d)
                a.check(0, 300, 1, "text")
                a.check(300, 100, 2, "text")
            check_eq(states(a, 0, 400), {"resident"}, "pinned pages after a pass")
            audit(d)
            a.do("unpin", 0, 0, 400)
            check_eq(pages(a, "pinned"), 0, "pinned pages")
            a.do("fill", 0, 300, 100, 1, "text")
            shared(d, (a, N), (b, N))
            a.check(0, N, 1, "text")
            b.check(0, N, 1, "text")
            audit(d)
        gone(d)


def test_pin_more_than_is_reserved():
    """Refused as ever; the pages stay what they are or come home, and are right."""
    with sharing_daemon(64) as d:
        a, b = pair(d, reservation=1)
        with a, b:
            try:
                a.do("pin", 0, 0, N)
                raise AssertionError("more is pinned than is reserved")
            except Refused as e:
                check(e.errno > 0, "%s" % e)
            a.check(0, N, 1, "text")
            check_eq(pages(a, "pinned"), 0, "pinned pages")
            audit(d)


def test_populate_and_hints():
    with sharing_daemon(64) as d:
        a, b = pair(d)
        with a, b:
            breaking(a, 0, 100)
            for command in ("populate", "will_need", "dont_need", "will_need", "populate"):
                a.do(command, 0, 0, a.pages)
                a.check(0, 100, 2, "text")
                a.check(100, N - 100, 1, "text")
            b.do("dont_need", 0, 0, N)
            b.check(0, N, 1, "text")
            home(d, a, b)
            audit(d)


def test_through_system_calls():
    """read(2) into shared pages and write(2) from them, by the kernel and by the library."""
    with sharing_daemon(64) as d:
        a, b = pair(d)
        with a, b:
            for first, command in ((0, "sys_in"), (200, "lib_in")):
                a.do(command, 0, first, 200, 3, "text")
                a.check(first, 200, 3, "text")
            for command in ("sys_out", "lib_out"):
                check_eq(a.do(command, 0, 0, 400, 3, "text")[0], "0", "pages wrong by %s" % command)
                check_eq(a.do(command, 0, 400, N - 400, 1, "text")[0], "0", "pages wrong by %s" % command)
            b.check(0, N, 1, "text")
            home(d, a, b)
            audit(d)


def test_release_and_lease_again():
    with sharing_daemon(64) as d:
        with member(d, "a", 16, lease=8) as a, member(d, "b", 16, lease=8) as b:
            lease = 0
            for turn in range(4):
                for p, l in ((a, lease), (b, 0)):
                    p.do("fill", l, 0, N, 1, "text")
                shared(d, (a, N), (b, N))
                a.do("fill", lease, 0, 50, 2, "text")
                a.do("release", lease)
                check_eq(a.numbers()["shared_bytes"] + a.numbers()["breaking_bytes"], 0, "shared or breaking without a lease")
                check_eq(groups(d)["g"]["shared_bytes"] // PAGE, N, "references that are left")
                audit(d)
                lease = int(a.do("lease", 0, 8 * MIB)[0])
                a.check(0, 2048, 0, "zero", lease=lease)
                b.check(0, N, 1, "text")
            audit(d)
        gone(d)


def test_several_leases():
    """Pages of two leases of one VM share an entry; one lease goes."""
    with sharing_daemon(64) as d, member(d, "a", 16, lease=8, sharing="vm") as a:
        other = int(a.do("lease", 1 << 30, 8 * MIB)[0])
        for lease in (0, other):
            a.do("fill", lease, 0, N, 1, "text")
        shared(d, (a, 2 * N))
        check_eq(groups(d)["a"]["common_bytes"] // PAGE, N, "entries")
        a.do("release", other)
        a.check(0, N, 1, "text")
        check_eq(pages(a, "shared"), N, "pages that share")
        audit(d)


for function in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
