#!/usr/bin/env python3
"""Shared pages under pressure: one stored copy of each, whoever refers to it, and whoever goes."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import PAGE, Puppet, calm  # noqa: E402
from system.sharing import (arena, audit, gone, groups, home, member, pages, scan, shared,  # noqa: E402
                            sharing_daemon)
from torture.actor import SLOW  # noqa: E402

N = 3000	# pages that all have: half of them compress
ARENA = 40


def fill(p):
    p.do("fill", 0, 0, N // 2, 1, "text")
    p.do("fill", 0, N // 2, N // 2, 1, "random")


def verify(p):
    p.check(0, N // 2, 1, "text")
    p.check(N // 2, N // 2, 1, "random")


def press(d, leave=100, seconds=60):
    """Another VM, whose shares are beyond all others', takes what it can, until the pool has no more frames than that; then it
    goes."""
    with Puppet(d, "press", 400, lease=ARENA, sharing="off") as c:
        def low():
            c.do("fill", 0, 0, c.pages, 9, "random", seconds=120)
            return groups(d)["g"]["resident_bytes"] // PAGE <= leave

        wait_until(low, seconds * SLOW, "an empty pool")
        calm(d)


def swap_files(d):
    """Files of the swap directory that the daemon has open: they have no name."""
    n = 0
    for fd in os.listdir("/proc/%d/fd" % d.pid):
        try:
            n += os.readlink("/proc/%d/fd/%s" % (d.pid, fd)).startswith(d.swap_dir)
        except FileNotFoundError:
            pass
    return n


def places(d):
    """Entries of the group by place."""
    g = groups(d)["g"]
    return tuple(g[k + "_bytes"] // PAGE for k in ("common", "resident", "compressed", "swapped", "lost"))


def test_one_goes_the_other_reads():
    """All is swapped, one exits with all its files; the other one reads every byte."""
    with sharing_daemon(ARENA, "MemZipMaxPct=0") as d:
        with member(d, "b", 16) as b:
            with member(d, "a", 16) as a:
                for p in (a, b):
                    fill(p)
                shared(d, (a, N), (b, N))
                press(d)
                common, resident, compressed, swapped, lost = places(d)
                check_eq((common, compressed, lost), (N, 0, 0), "entries, compressed, lost")
                check(swapped >= N - 100 and resident + swapped == N, "%d entries swapped, %d resident" % (swapped, resident))
                for p in (a, b):
                    n = p.numbers()
                    check_eq((n["swapped_bytes"], n["compressed_bytes"]), (0, 0), "stored by %s itself" % p.name)
                    check_eq(n["shared_bytes"] // PAGE, N, "pages that %s shares" % p.name)
                files = swap_files(d)
            wait_until(lambda: swap_files(d) < files, 10 * SLOW, "the end of a's files")
            check_eq([v["name"] for v in d.memctl("vm", "list")["vms"]], ["b"], "VMs that are left")
            verify(b)
            check(b.numbers()["faults_shared"] > 0, "they came from the pool")
            check_eq(places(d)[4], 0, "lost entries")
            audit(d)
        gone(d)


def test_one_stored_copy():
    """Compressed or swapped, a page that three have is stored once, and each pays a third of it."""
    with sharing_daemon(ARENA) as d:
        puppets = []
        try:
            for name in "abc":
                puppets.append(member(d, name, 16))
                fill(puppets[-1])
                if len(puppets) > 1:
                    shared(d, *((p, N) for p in puppets))
            press(d)
            g = groups(d)["g"]
            common, resident, compressed, swapped, lost = places(d)
            check_eq((common, resident + compressed + swapped, lost), (N, N, 0), "entries: all, by place, lost")
            check(compressed > 0, "nothing compressed: %s" % g)
            check(swapped > N // 4, "random pages were not swapped: %s" % g)
            check_eq(g["shared_bytes"] // PAGE, 3 * N, "references")
            expected = (g["resident_bytes"] + g["stored_bytes"]) / 3
            for p in puppets:
                wait_until(lambda: abs(p.numbers()["shared_charge_bytes"] - expected) < 40 * PAGE, 10 * SLOW,
                           "a third for %s: %d of %d" % (p.name, p.numbers()["shared_charge_bytes"], expected))
                check_eq(p.numbers()["compressed_bytes"] + p.numbers()["swapped_bytes"], 0, "stored by %s itself" % p.name)
            audit(d)
            # the first brings each page back for all
            verify(puppets[0])
            audit(d)
            back = groups(d)["g"]["resident_bytes"]
            for p in puppets[1:]:
                verify(p)
            check(groups(d)["g"]["resident_bytes"] <= back + 100 * PAGE, "a page was brought back twice")
            audit(d)
        finally:
            for p in puppets:
                p.kill()
        gone(d)


def test_writes_to_what_is_not_there():
    """A write to a shared page whose frame is in a store; the others keep what they had."""
    with sharing_daemon(ARENA) as d, member(d, "a", 16) as a, member(d, "b", 16) as b:
        for p in (a, b):
            fill(p)
        shared(d, (a, N), (b, N))
        press(d)
        # one byte each: the rest of the page is the old content
        a.do("touch", 0, 0, N, 2, "text", "w", seconds=120)
        home(d, a)
        for first, kind in ((0, "text"), (N // 2, "random")):
            wrong = int(a.do("check", 0, first, N // 2, 1, kind)[0])
            check(wrong >= N // 4, "the writes are not there: %d pages of %s differ" % (wrong, kind))
        a.do("fill", 0, 0, N, 3, "text", seconds=120)
        verify(b)
        a.check(0, N, 3, "text")
        audit(d)


def test_one_byte_into_a_page_from_a_store():
    """The rest of the page is what it was: byte by byte, with the old content put back into the one byte."""
    with sharing_daemon(ARENA) as d, member(d, "a", 16) as a, member(d, "b", 16) as b:
        for p in (a, b):
            fill(p)
        shared(d, (a, N), (b, N))
        press(d)
        for first, kind in ((0, "text"), (N // 2, "random")):
            a.do("touch", 0, first, N // 2, 1, kind, "w", seconds=120)
        check(a.numbers()["break_pages"] >= N, "breaks: %d" % a.numbers()["break_pages"])
        verify(a)
        home(d, a)
        verify(a)
        verify(b)
        audit(d)


def test_duplicates_among_the_evicted():
    """Pages that never had the time to be shared are found when they are evicted, and stored once."""
    with sharing_daemon(ARENA) as d, member(d, "a", 16) as a, member(d, "b", 16) as b:
        fill(a)
        fill(b)
        shared(d, (a, N), (b, N))
        # both write other content, equal again; no pass of the scan has seen it when the pressure comes
        for p in (a, b):
            p.do("fill", 0, 0, N // 2, 5, "random")
        scan(d)
        press(d, leave=N)
        for p in (a, b):
            p.check(0, N // 2, 5, "random")
            p.check(N // 2, N // 2, 1, "random")
        audit(d)
        check(pages(a, "shared") > 0, "nothing is shared")
        check(arena(d)["peak_bytes"] <= arena(d)["size_bytes"], "more than the arena was used")


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 150

if __name__ == "__main__":
    main(globals())
