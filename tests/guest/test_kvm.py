#!/usr/bin/env python3
"""KVM on a lease: faults that the kernel takes for a vCPU, and pages taken from under running vCPUs.

The guest and its oracles are in vmm.c."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Failed, wait_until  # noqa: E402
from system.puppet import EVICTED, MIB, PAGE, Puppet, calm, daemon, no_vms, runs  # noqa: E402
from torture.actor import SLOW, Actor, Gone  # noqa: E402

SIZE = 32


class Guest(Puppet):
    """vmm.c with a lease of `size` MiB: page tables, words from page `words`, pages from page `first`."""

    gpa = 1 << 30

    def __init__(self, d, name="guest", size=SIZE, reservation=0, limit=0, seed=1, sharing="vm"):
        program = os.path.join(d.build, "tests", "guest", "vmm")
        if not os.path.exists(program):
            skip("vmm is for x86-64")
        sizes = [str(int(n * MIB)) for n in (size, reservation, limit)]
        Actor.__init__(self, d, name, [program, name, *sizes, str(seed), sharing])
        self.vm = name
        try:
            ready = self.expect("ready")
        except BaseException:
            self.kill()
            raise
        self.words, self.first, self.pages = ready["words"], ready["pages"], size * MIB // PAGE

    def tell(self, line):
        try:
            super().tell(line)
        except Gone:
            pass	# its last words, which are heard next, say why

    def expect(self, event, seconds=60):
        reply = json.loads(self.hear(seconds, event))
        if reply["event"] == "unable":
            skip(reply["why"])
        check_eq(reply["event"], event, "event of %s" % reply)
        return reply

    def do(self, *words, seconds=60):
        """Carry out one command; its report, in which nothing may be wrong."""
        self.tell(" ".join(str(w) for w in words))
        events = {"run": "running", "rest": "rest", "watch": "watched", "discard": "discarded"}
        reply = self.expect(events.get(words[0], "done"), seconds)
        check(not reply.get("wrong"), "%s: %s" % (words[0], reply))
        return reply

    def verify(self):
        """Everything, by the guest and then by the VMM."""
        self.tell("verify")
        for event in ("verified", "verified_natively"):
            reply = self.expect(event, 120)
            check_eq(reply["wrong"], 0, "%s: %s" % (event, reply["first_wrong"]))
            check_eq(reply["verified_words"], 2048 * 512, "words")
            check(self.pages - self.first - reply["verified_pages"] <= 1, "all pages: %s" % reply)

    def states(self, first=0, count=None, gpa=gpa):
        return super().states(first, count, gpa)


def came_and_went(guest):
    n = guest.numbers()
    return n["evicted_pages"] > 2000 and n["faults_compressed"] > 200


def work(d, guest, seconds, audits=1):
    """Let the guest work, or go on, with audits meanwhile; what it did."""
    guest.do("run")
    for _ in range(audits):
        time.sleep(seconds / audits)
        d.audit()
    return guest.do("rest")


def test_every_write_survives_eviction():
    """Words and pages, by two vCPUs, on a lease of more than twice the VM's limit."""
    with daemon(96) as d, Guest(d, limit=12) as guest:
        guest.do("run")
        wait_until(lambda: came_and_went(guest), 30 * SLOW, "eviction and return of pages")
        did = work(d, guest, 1, audits=4)
        check(did["verified_words"] > 50000, "the guest worked: %s" % did)
        check(did["verified_pages"] > 500, "the guest worked: %s" % did)
        check(did["disk_pages"] > 0, "pages went in and out by string instructions: %s" % did)
        charged = guest.numbers()["charged_bytes"]
        check(charged <= 13 * MIB, "the limit holds: %d" % charged)
        guest.verify()
        calm(d)
        d.audit()
        guest.quit()
        no_vms(d)


def test_twin_without_protection_loses_words():
    with daemon(96, twin="no_protect") as d, Guest(d, limit=12) as guest:
        lost, end = 0, time.monotonic() + 20 * SLOW
        while not lost and time.monotonic() < end:
            guest.do("run")
            time.sleep(0.5)
            guest.tell("rest")
            lost = guest.expect("rest")["lost_words"]
        check(lost > 0, "the oracle notices lost words")


def test_neighbour_takes_from_stopped_and_running_vcpus():
    """Another VM's demand in a small arena, first while the VMM is stopped amid its vCPUs' writes."""
    with daemon(26) as d, Guest(d, size=24) as guest:
        with Puppet(d, "neighbour", 14) as other:
            guest.do("run")
            wait_until(lambda: guest.numbers()["resident_bytes"] > 18 * MIB, 20 * SLOW, "demand of the guest")
            guest.stop()
            before = guest.numbers()["evicted_pages"]
            other.do("fill", 0, 0, other.pages, 1, "mix", seconds=90)
            check(guest.numbers()["evicted_pages"] > before, "the stopped guest's pages were taken")
            guest.go_on()
            other.do("fill", 0, 0, other.pages, 2, "mix", seconds=90)
            d.audit()
            other.check(0, other.pages, 2, "mix")
            guest.do("rest")
        guest.verify()
        d.audit()


def test_pinned_pages_stay_beside_running_vcpus():
    with daemon(96) as d, Guest(d, reservation=2, limit=12) as guest:
        pinned = (guest.words, 256)
        guest.do("pin", *pinned)
        check_eq(guest.numbers()["pinned_bytes"], 256 * PAGE, "pinned")
        guest.do("run")
        wait_until(lambda: guest.numbers()["evicted_pages"] > 1000, 20 * SLOW, "evictions")
        for _ in range(10):
            check_eq(set(guest.states(*pinned)), {"resident"}, "states of pinned pages")
        guest.do("rest")
        guest.do("unpin", *pinned)
        guest.verify()
        d.audit()


def test_populated_pages_cost_a_vcpu_no_fault():
    with daemon(96) as d, Guest(d, limit=12) as guest:
        guest.do("run")
        wait_until(lambda: guest.numbers()["evicted_pages"] > 1000, 20 * SLOW, "evictions")
        guest.do("rest")
        calm(d)
        states = guest.states()
        at = guest.first + max(range(guest.pages - guest.first - 64), key=lambda p: sum(
            s in EVICTED for s in states[guest.first + p:guest.first + p + 64]))
        check(sum(s in EVICTED for s in states[at:at + 64]) > 16, "some pages are evicted: %s" % runs(states))
        guest.do("populate", 0, guest.words)	# the page tables
        guest.do("populate", at, 64)
        before = guest.numbers()["events"]
        guest.do("watch", at, 64, 50)
        check_eq(guest.numbers()["events"], before, "events")
        d.audit()


def test_discard_beside_running_vcpus():
    """A vCPU reads the pages while they are discarded: what it wrote or zero meanwhile, zero from then on, also
    where a translation of its own led to a frame."""
    with daemon(96) as d, Guest(d, limit=12) as guest:
        guest.do("run")
        wait_until(lambda: guest.numbers()["evicted_pages"] > 1000, 20 * SLOW, "evictions")
        guest.do("rest")
        steps = 0
        for turn in range(8):
            steps += guest.do("discard", guest.first + 64 * turn, 512)["steps"]
            work(d, guest, 0.1)
        check(steps > 100, "the vCPUs ran meanwhile")
        guest.verify()
        d.audit()


# Passes of the scan when they are asked for, at any speed.
SCANNED = ["ShareScanTime=0", "ShareScanGHz=1000000", "ShareRateMax=10000000", "share_groups=guests=*", "share_with_root=yes"]


def scan(d, seconds=0.0):
    """One pass, or passes for some time."""
    end = time.monotonic() + seconds
    while True:
        d.memctl("share", "scan")
        time.sleep(0.1)
        if time.monotonic() >= end:
            return


def rested(guest):
    """Until the passes that were asked for are done."""
    def still():
        before = guest.numbers()["scanned_pages"]
        time.sleep(0.5)
        return guest.numbers()["scanned_pages"] == before

    wait_until(still, 30 * SLOW, "an end of the scan")


def share(d, guest, pages=200):
    """Until a guest that rests has so many shared pages."""
    def enough():
        scan(d)
        return guest.numbers()["shared_bytes"] > pages * PAGE

    try:
        wait_until(enough, 30 * SLOW, "the sharing of %d pages" % pages)
    except Failed as e:
        raise Failed("%s: %s" % (e, guest.numbers())) from e


def test_shared_pages_break_under_running_vcpus():
    """Pages are shared while the guest rests and while it runs, and all that it writes then is its own; also when the arena
    is short, so that what is shared is taken, and comes back, meanwhile."""
    for limit in (0, 12):
        with daemon(96, settings=SCANNED) as d, Guest(d, limit=limit) as guest:
            work(d, guest, 2)
            for _ in range(4):
                share(d, guest)
                before = guest.numbers()
                guest.do("run")
                scan(d, 1)
                d.audit()
                guest.do("rest")
                after = guest.numbers()
                check(after["break_pages"] - before["break_pages"] > 20, "breaks: %s" % after)
            share(d, guest)
            guest.verify()
            calm(d)
            d.audit()
            check(guest.numbers()["home_pages"] > 50, "private copies went home: %s" % guest.numbers())
            guest.quit()
            no_vms(d)


def test_pages_are_shared_under_a_reading_vcpu():
    """The mapping changes below it, its content does not; and a page of the pool costs a vCPU no fault, once it is mapped."""
    with daemon(96, settings=SCANNED) as d, Guest(d) as guest:
        work(d, guest, 2)
        before = guest.numbers()["share_pages"]
        for _ in range(4):
            guest.tell("watch %d %d 1000" % (guest.first, guest.pages - guest.first - 1))
            scan(d, 0.7)
            check_eq(guest.expect("watched")["wrong"], 0, "wrong words")
        check(guest.numbers()["share_pages"] - before > 200, "pages were shared: %s" % guest.numbers())
        rested(guest)
        guest.do("watch", guest.first, guest.pages - guest.first - 1, 1000)
        events = guest.numbers()["events"]
        guest.do("watch", guest.first, guest.pages - guest.first - 1, 200)
        check_eq(guest.numbers()["events"], events, "events")
        d.audit()
        guest.verify()


def test_shared_pages_are_discarded_and_pinned_beside_running_vcpus():
    with daemon(96, settings=SCANNED) as d, Guest(d, reservation=4) as guest:
        work(d, guest, 2)
        for turn in range(4):
            share(d, guest)
            guest.do("discard", guest.first + 64 * turn, 512)
            share(d, guest)
            guest.do("pin", guest.first + 1024, 256)
            check_eq(set(guest.states(guest.first + 1024, 256)), {"resident"}, "states of pinned pages")
            work(d, guest, 0.5)
            guest.do("unpin", guest.first + 1024, 256)
        guest.verify()
        d.audit()


def test_two_guests_share():
    """Both write to what they have in common, and one ends in the middle of it."""
    with daemon(96, settings=SCANNED) as d, Guest(d, "left", seed=1, sharing="group:guests") as left:
        with Guest(d, "right", seed=2, sharing="group:guests") as right:
            for guest in (left, right):
                work(d, guest, 1)
            for guest in (left, right):
                share(d, guest)
            check(any(p["a"] != p["b"] for p in d.memctl("share", "top")["pairs"]), "they have pages in common")
            for guest in (left, right):
                guest.do("run")
            scan(d, 2)
            d.audit()
            right.do("rest")
            right.verify()
            share(d, right)
            left.do("rest")
            share(d, left)
            left.do("run")
            right.kill()
        left.do("rest")
        left.verify()
        calm(d)
        d.audit()


for function in [f for n, f in globals().items() if n.startswith("test_") and not hasattr(f, "seconds")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
