#!/usr/bin/env python3
"""A frame given to a VM reads as zero or as that VM's own bytes; leases of one VM do not disturb one another."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from system.puppet import MIB, PAGE, Puppet, Refused, calm, daemon, no_vms  # noqa: E402
from torture.actor import SLOW  # noqa: E402


def pattern_and_successor(d, size):
    """VM `first` fills its lease, cache and swap and goes; how many pages of `second` are not zero, by pread of the
    memfd and through the mapping."""
    with Puppet(d, "first", size) as a:
        a.do("fill", 0, 0, a.pages, 1, "mix", seconds=120)
        a.check(0, a.pages, 1, "mix")
        n = a.numbers()
    no_vms(d)
    with Puppet(d, "second", size) as b:
        by_file = int(b.do("fd_read", 0, 0, b.pages, seconds=120)[0])
        wrong = int(b.do("check", 0, 0, b.pages, 0, "zero", seconds=120)[0])
        by_file += int(b.do("fd_read", 0, 0, b.pages, seconds=120)[0])
    no_vms(d)
    return n, by_file, wrong


def test_successor_reads_zeros():
    with daemon(32) as d:
        for _ in range(2):
            n, by_file, wrong = pattern_and_successor(d, 48)
            check(n["compressed_peak_bytes"] and n["swapped_peak_bytes"], "cache and swap were used")
            check_eq(by_file, 0, "pages with old bytes, by pread")
            check_eq(wrong, 0, "pages with old bytes, through the mapping")
        d.audit()


def test_twin_without_punch_is_caught():
    """The same with memfds given out as they are: the pattern must be seen, or the test above sees nothing."""
    with daemon(64, twin="no_punch") as d:
        _, by_file, wrong = pattern_and_successor(d, 16)
        check(by_file + wrong > 0, "the twin leaked nothing that the test could see")


def test_lease_again_reads_zeros():
    """Within one VM: a lease that was given back and taken again."""
    with daemon(32) as d, Puppet(d, "vm", 48, lease=32) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix", seconds=120)
        for turn in range(1, 5):
            lease = int(p.do("lease", 1 << 32, 12 * MIB)[0])
            p.check(0, 3072, 0, "zero", lease=lease)
            p.do("fill", lease, 0, 3072, turn, "mix", seconds=90)
            p.check(0, 3072, turn, "mix", lease=lease)
            p.do("release", lease)
        p.check(0, p.pages, 1, "mix")
        check_eq(p.numbers()["leased_bytes"], 32 * MIB, "leased bytes")
        d.audit()


def test_several_leases():
    """Released and leased while threads fault on others."""
    with daemon(32) as d, Puppet(d, "vm", 64, lease=16) as p:
        other = int(p.do("lease", 1 << 30, 16 * MIB)[0])
        hammers = [p.do("hammer", 0, 0, 3000)[0], p.do("hammer", other, 0, 3000)[0]]
        for turn in range(8):
            lease = int(p.do("lease", 1 << 40, (4 + turn) * MIB)[0])
            count = (4 + turn) * 256
            p.do("fill", lease, 0, count, turn, "mix", seconds=90)
            if turn == 4:
                d.audit()
            p.check(0, count, turn, "mix", lease=lease)
            check_eq(p.do("smaps", lease)[0], "0", "unregistered pages")
            p.do("release", lease)
        for h in hammers:
            check_eq(p.do("rest", h)[0], "0", "words lost")
        p.do("release", other)
        p.check(3000, 1096, 0, "zero")
        calm(d)
        d.audit()


def test_refused_leases_change_nothing():
    with daemon(32) as d, Puppet(d, "vm", 16, lease=8) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix")
        for gpa, size, errno in ((4 * MIB, 4 * MIB, 17), (64 * MIB, 12 * MIB, 28), (64 * MIB, 1000, 22)):
            try:
                p.do("lease", gpa, size)
                check(False, "lease %d+%d was granted" % (gpa, size))
            except Refused as e:
                check_eq(e.errno, errno, "errno of %s" % e)
        p.do("lease", 64 * MIB, 8 * MIB)
        p.check(0, p.pages, 1, "mix")
        check_eq(p.numbers()["leased_bytes"], 16 * MIB, "leased bytes")
        d.audit()


def test_evicted_means_hole():
    """What the page map calls evicted is no data in the memfd, and what it calls resident is."""
    with daemon(24) as d, Puppet(d, "vm", 48) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix", seconds=120)
        p.do("check", 0, 2000, 500, 1, "mix")
        calm(d)
        states, data = p.states(), p.data()
        check(all("!" not in s for s in states), "no page is in transit")
        check_eq({i for i, s in enumerate(states) if s == "resident"}, data, "resident pages and the kernel's data")
        check_eq(len(states), p.pages, "pages in the map")
        check_eq(p.do("smaps", 0)[0], "0", "unregistered pages")
        check_eq(p.numbers()["resident_bytes"], len(data) * PAGE, "resident_bytes")
        d.audit()


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 120 * int(SLOW)

if __name__ == "__main__":
    main(globals())
