#!/usr/bin/env python3
"""Faults: one event each, the right bytes after each transition."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from system.puppet import Puppet, Refused, calm, daemon, program  # noqa: E402
from torture.actor import can_be_nobody, open_to_all  # noqa: E402

N = 64
PRESS = 1024


def one_page_faults():
    """A daemon without fault-around, and a VM whose limit is a third of its size, so that it can be made to lose
    any of its pages while the arena has room.  No scan drops a page of zeros meanwhile."""
    return daemon(96, settings=["fault_around=1", "ShareScanTime=0"])


def events_per_fault(write, prepare, cause, seed, kind):
    with one_page_faults() as d, Puppet(d, "vm", 24, limit=8) as p:
        prepare(p)
        before = p.numbers()
        p.do("touch", 0, 0, N, seed, kind, "w" if write else "r")
        after = p.numbers()
        check_eq(after["events"] - before["events"], N, "events of %d faults" % N)
        check_eq(after[cause] - before[cause], N, cause)
        check_eq(after["faults_protected"], before["faults_protected"], "protected writes")
        p.check(0, N, seed, kind)
        # Nothing is left over from the eviction: the pages are there, for writing too.
        before = p.numbers()
        p.do("touch", 0, 0, N, seed, kind, "w")
        check_eq(p.numbers()["events"], before["events"], "events of writes to resident pages")
        d.audit()


def evicted(seed, kind, state, times=1):
    def prepare(p):
        p.do("fill", 0, 0, N, seed, kind)
        for _ in range(times):
            p.do("touch", 0, 0, N, seed, kind, "w")
            p.evict(0, N, 512, PRESS * 3)
            found = set(p.states(0, N))
            check_eq(found, {state}, "states after eviction")
    return prepare


def test_one_event_read_untouched():
    events_per_fault(False, lambda p: None, "faults_zero", 0, "zero")


def test_one_event_write_untouched():
    events_per_fault(True, lambda p: None, "faults_zero", 0, "zero")


def test_one_event_read_zero_dropped():
    events_per_fault(False, evicted(1, "zero", "zero"), "faults_zero", 1, "zero")


def test_one_event_write_zero_dropped():
    events_per_fault(True, evicted(1, "zero", "zero"), "faults_zero", 1, "zero")


def test_one_event_read_compressed():
    events_per_fault(False, evicted(2, "text", "compressed"), "faults_compressed", 2, "text")


def test_one_event_write_compressed():
    events_per_fault(True, evicted(2, "text", "compressed"), "faults_compressed", 2, "text")


def test_one_event_read_swapped():
    events_per_fault(False, evicted(3, "random", "swapped"), "faults_swapped", 3, "random")


def test_one_event_write_swapped():
    events_per_fault(True, evicted(3, "random", "swapped"), "faults_swapped", 3, "random")


def test_one_event_write_after_evictions():
    events_per_fault(True, evicted(4, "text", "compressed", times=3), "faults_compressed", 4, "text")


def test_one_event_read_after_evictions():
    events_per_fault(False, evicted(5, "random", "swapped", times=3), "faults_swapped", 5, "random")


def test_content_after_each_transition():
    with daemon(96) as d, Puppet(d, "vm", 24, limit=8) as p:
        for turn, kind in enumerate(["mix", "text", "random", "sparse", "zero", "mix"]):
            p.do("fill", 0, 0, 256, turn, kind)
            p.check(0, 256, turn, kind)
            p.evict(0, 256, 512, PRESS * 3)
            check(p.resident(0, 256) == 0, "all are evicted")
            p.check(0, 256, turn, kind)
            p.evict(0, 256, 512, PRESS * 3)
            p.do("populate", 0, 0, 256)
            check_eq(p.resident(0, 256), 256, "resident after populate")
            p.check(0, 256, turn, kind)
            d.audit()


def test_fault_around_content():
    """Sequential faults bring in runs; what was never touched beside them stays zero."""
    with daemon(96, settings=["fault_around=16"]) as d, Puppet(d, "vm", 24, limit=8) as p:
        p.do("fill", 0, 0, 512, 6, "mix")
        p.evict(0, 512, 1024, PRESS * 3)
        before = p.numbers()
        p.check(0, 512, 6, "mix")
        after = p.numbers()
        check(after["around_pages"] > before["around_pages"], "pages came beside the fault")
        check(after["events"] - before["events"] < 400, "fewer events than pages: %d" % (
            after["events"] - before["events"]))
        p.check(512, 256, 0, "zero")
        d.audit()


def test_stream_of_a_mix():
    """What is read in order comes 64 pages an event, wherever each of them is; also where some of them are there already."""
    with daemon(96, settings=["ShareScanTime=0"]) as d, Puppet(d, "vm", 24, limit=12) as p:
        p.do("fill", 0, 0, 1024, 8, "mix")
        p.evict(0, 1024, 2048, PRESS * 3)
        found = set(p.states(0, 1024))
        check(found >= {"zero", "compressed", "swapped"}, "all kinds are there: %s" % found)
        for page in range(512, 1024, 37):
            p.check(page, 1, 8, "mix")
        before = p.numbers()
        p.check(0, 1024, 8, "mix")
        after = p.numbers()
        events, refaults = after["events"] - before["events"], after["refault_pages"] - before["refault_pages"]
        check(refaults > 500, "pages came back: %d" % refaults)
        check(events < 128, "64 pages an event, and some waits: %d" % events)
        d.audit()


def faults_near(pages, count):
    """Events of so many pages out of the first, in no order, that were evicted; and what was brought in beside them."""
    with daemon(192, settings=["ShareScanTime=0"]) as d, Puppet(d, "vm", 96, limit=32) as p:
        p.do("fill", 0, 0, pages, 9, "text")
        p.evict(0, pages, pages, PRESS * 9)
        check_eq(set(p.states(0, pages)), {"compressed"}, "states after eviction")
        before = p.numbers()
        for i in range(count):
            p.check(i * 37 % count * (pages // count), 1, 9, "text")
        after = p.numbers()
        d.audit()
        return after["events"] - before["events"], after["around_pages"] - before["around_pages"]


def test_faults_that_lie_near_one_another():
    """The rest of their block comes; of pages that lie far apart nothing does."""
    events, around = faults_near(512, 400)
    check(around > 100 and events < 300, "%d events, %d pages beside them" % (events, around))
    events, around = faults_near(6000, 60)
    check(events >= 60 and around == 0, "%d events, %d pages beside them" % (events, around))


def test_discard_reads_zero():
    with daemon(96) as d, Puppet(d, "vm", 24, limit=8) as p:
        for evict in (False, True):
            p.do("fill", 0, 0, 256, 7, "mix")
            if evict:
                p.evict(0, 256, 512, PRESS * 3)
            p.do("discard", 0, 64, 128)
            check_eq(set(p.states(64, 128)), {"zero"}, "states after a discard")
            p.check(0, 64, 7, "mix")
            p.check(64, 128, 0, "zero")
            p.check(192, 64, 7, "mix")
            d.audit()


def test_client_zaps_its_mapping():
    """MADV_DONTNEED on the mapping drops no content, also not beside an eviction."""
    with daemon(96) as d, Puppet(d, "vm", 24, limit=8) as p:
        p.do("fill", 0, 0, 512, 8, "mix")
        p.do("zap", 0, 0, 512)
        p.check(0, 512, 8, "mix")
        p.do("zap", 0, 0, 512)
        p.evict(0, 512, 1024, PRESS * 3)
        p.do("zap", 0, 0, 512)
        p.check(0, 512, 8, "mix")
        d.audit()


def test_system_calls_on_absent_pages():
    """read(2) into the lease and write(2) from it, where a full userfaultfd may be had."""
    with daemon(96) as d, Puppet(d, "vm", 24, limit=8) as p:
        if p.do("faults") != ["full"]:
            skip("only a user-mode userfaultfd is permitted here")
        p.do("sys_in", 0, 0, 256, 9, "mix")
        p.check(0, 256, 9, "mix")
        p.evict(0, 256, 512, PRESS * 3)
        p.check(0, 256, 9, "mix", command="sys_out")
        p.evict(0, 256, 512, PRESS * 3)
        p.do("sys_in", 0, 0, 256, 10, "mix")
        p.check(0, 256, 10, "mix", command="sys_out")
        d.audit()


def test_library_reads_and_writes():
    with daemon(96) as d, Puppet(d, "vm", 24, limit=8) as p:
        p.do("lib_in", 0, 0, 256, 11, "mix")
        p.evict(0, 256, 512, PRESS * 3)
        p.check(0, 256, 11, "mix", command="lib_out")
        p.evict(0, 256, 512, PRESS * 3)
        p.do("lib_in", 0, 0, 256, 12, "mix")
        p.check(0, 256, 12, "mix")
        d.audit()


def test_user_mode_only():
    """A client without privilege: its own accesses and the library's work; a system call gets EFAULT, not zeros."""
    d = open_to_all(daemon(96))
    if not can_be_nobody(program(d)):
        skip("the client cannot be run as another user")
    with d, Puppet(d, "vm", 24, limit=8, nobody=True) as p:
        if p.do("faults") == ["full"]:
            skip("everybody may have a full userfaultfd here")
        p.do("lib_in", 0, 0, 256, 1, "mix")
        for command in ("check", "lib_out"):
            p.evict(0, 256, 512, PRESS * 3)
            p.check(0, 256, 1, "mix", command=command)
        p.evict(0, 256, 512, PRESS * 3)
        for command in ("sys_in", "sys_out"):
            try:
                p.do(command, 0, 0, 1, 2, "mix")
                check(False, "%s on an absent page did not fail" % command)
            except Refused as e:
                check_eq(e.errno, 14, "errno of %s" % e)
        p.check(0, 256, 1, "mix")
        d.audit()


def test_nothing_is_stored_that_was_not_chosen():
    """A run that fits the arena ends with nothing compressed and nothing swapped."""
    with daemon(96) as d, Puppet(d, "vm", 48) as p:
        for turn in range(2):
            p.do("fill", 0, 0, p.pages, turn, "mix", seconds=120)
            p.check(0, p.pages, turn, "mix")
        calm(d)
        n = p.numbers()
        for name in ("compressed_bytes", "swapped_bytes", "stored_bytes", "evicted_pages", "compress_pages",
                     "swap_out_pages", "compressed_peak_bytes", "swapped_peak_bytes"):
            check_eq(n[name], 0, name)
        d.audit()


if __name__ == "__main__":
    main(globals())
