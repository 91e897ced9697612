#!/usr/bin/env python3
"""KVM on a lease: faults that the kernel takes for a vCPU, and pages taken from under running vCPUs.

The guest and its oracles are in vmm.c."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import EVICTED, MIB, PAGE, Puppet, calm, daemon, no_vms, runs  # noqa: E402
from torture.actor import SLOW, Actor, Gone  # noqa: E402

SIZE = 32


class Guest(Puppet):
    """vmm.c with a lease of `size` MiB: page tables, words from page `words`, pages from page `first`."""

    gpa = 1 << 30

    def __init__(self, d, name="guest", size=SIZE, reservation=0, limit=0, seed=1):
        program = os.path.join(d.build, "tests", "guest", "vmm")
        if not os.path.exists(program):
            skip("vmm is for x86-64")
        sizes = [str(int(n * MIB)) for n in (size, reservation, limit)]
        Actor.__init__(self, d, name, [program, name, *sizes, str(seed)])
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


for function in [f for n, f in globals().items() if n.startswith("test_") and not hasattr(f, "seconds")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
