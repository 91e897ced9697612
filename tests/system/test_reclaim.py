#!/usr/bin/env python3
"""Reclaim: from whom, how much, and from whom not; the wall."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, PAGE, Puppet, Refused, arena, calm, daemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402


def below_the_wall(d):
    a = arena(d)
    check(a["peak_bytes"] <= a["size_bytes"], "peak %d, capacity %d" % (a["peak_bytes"], a["size_bytes"]))


def test_stopped_client_is_reclaimed():
    """Another VM's demand takes pages of a client that is stopped, and comes to its end."""
    with daemon(32) as d, Puppet(d, "stopped", 28) as a, Puppet(d, "working", 28) as b:
        a.do("fill", 0, 0, 6 * 1024, 1, "mix")
        before = a.numbers()["evicted_pages"]
        a.stop()
        b.do("fill", 0, 0, 6 * 1024, 2, "mix", seconds=90)
        taken = a.numbers()["evicted_pages"] - before
        check(taken > 0, "pages of the stopped client were taken")
        d.audit()
        b.check(0, 6 * 1024, 2, "mix")
        a.go_on()
        a.check(0, 6 * 1024, 1, "mix")
        b.check(0, 6 * 1024, 2, "mix")
        below_the_wall(d)
        d.audit()


def test_stopped_amid_writes():
    """Stopped and continued while its threads write to pages that are being taken."""
    with daemon(32) as d, Puppet(d, "stopped", 28) as a, Puppet(d, "working", 28) as b:
        a.do("fill", 0, 2048, 4096, 1, "mix")
        hammers = [a.do("hammer", 0, 0, 1500)[0] for _ in range(2)]
        for turn in range(4):
            a.stop()
            b.do("fill", 0, 0, 6 * 1024, turn, "mix", seconds=90)
            a.go_on()
            b.check(0, 6 * 1024, turn, "mix")
        for h in hammers:
            check_eq(a.do("rest", h)[0], "0", "words lost")
        a.check(2048, 4096, 1, "mix")
        d.audit()


def test_arena_is_a_wall():
    with daemon(32) as d, Puppet(d, "a", 40) as a, Puppet(d, "b", 40) as b:
        for p, seed in ((a, 1), (b, 2)):
            p.do("fill", 0, 0, p.pages, seed, "mix", seconds=120)
            below_the_wall(d)
        for p, seed in ((a, 1), (b, 2)):
            p.check(0, p.pages, seed, "mix")
        below_the_wall(d)
        d.audit()


def test_foreign_pages_are_charged():
    """A client that writes its memfd behind our back pays for it; its neighbour goes on."""
    with daemon(48) as d, Puppet(d, "sneak", 24) as a, Puppet(d, "neighbour", 24) as b:
        b.do("fill", 0, 0, 2048, 1, "mix")
        a.do("fill", 0, 0, 64, 2, "text")
        charged = a.numbers()["charged_bytes"]
        a.do("fd_write", 0, 1024, 1024, 3, "mix")
        wait_until(lambda: a.numbers()["foreign_pages"] >= 1024, 15 * SLOW, "the charge for foreign pages")
        check(a.numbers()["charged_bytes"] >= charged + 1000 * PAGE, "it is charged")
        a.check(1024, 1024, 3, "mix")
        a.check(0, 64, 2, "text")
        b.check(0, 2048, 1, "mix")
        b.do("fill", 0, 0, 4096, 4, "mix", seconds=90)
        b.check(0, 4096, 4, "mix")
        d.audit()


def test_foreign_pages_beyond_the_arena():
    """More than the arena holds: the sneak may be stopped, its neighbour keeps its bytes."""
    with daemon(32) as d, Puppet(d, "sneak", 48) as a, Puppet(d, "neighbour", 24, reservation=4) as b:
        b.do("fill", 0, 0, 2048, 1, "mix")
        a.do("fd_write", 0, 0, 10 * 1024, 2, "mix")
        wait_until(lambda: not [v for v in d.memctl("vm", "list")["vms"]
                                if v["name"] == "sneak" and not v["foreign_pages"]], 15 * SLOW, "notice of the sneak")
        for turn in range(3):
            b.do("fill", 0, 0, 4096, turn, "mix", seconds=90)
            b.check(0, 4096, turn, "mix")
        wait_until(lambda: arena(d)["charged_bytes"] <= arena(d)["size_bytes"], 30 * SLOW, "the wall restored")
        a.kill()
        b.check(0, 4096, 2, "mix")
        d.audit()


def test_foreign_writes_to_evicted_pages():
    """Written into the holes of pages that are in a store: the client gets what it wrote and pays for it; the ledger
    and the neighbour are not disturbed."""
    with daemon(64) as d, Puppet(d, "sneak", 24, limit=8) as a, Puppet(d, "neighbour", 8) as b:
        b.do("fill", 0, 0, b.pages, 1, "mix")
        a.do("fill", 0, 0, 256, 2, "text")
        a.evict(0, 256, 512, 3072)
        a.do("fd_write", 0, 64, 64, 3, "text")
        wait_until(lambda: d.run_memctl("audit").returncode == 0 and a.resident(64, 64) == 64, 15 * SLOW,
                   "a ledger that follows")
        check(a.numbers()["foreign_pages"] >= 64, "they are counted")
        a.check(64, 64, 3, "text")
        a.check(0, 64, 2, "text")
        a.check(128, 128, 2, "text")
        b.check(0, b.pages, 1, "mix")
        d.audit()


def test_foreign_discard():
    """A client that punches its own memfd reads zeros, and the ledger follows."""
    with daemon(48, settings=["fault_around=1"]) as d, Puppet(d, "vm", 24) as p:
        p.do("fill", 0, 0, 1024, 1, "mix")
        p.do("fd_punch", 0, 100, 200)
        before = p.numbers()["faults_discarded"]
        p.check(100, 200, 0, "zero")
        check_eq(p.numbers()["faults_discarded"] - before, 200, "faults_discarded")
        p.check(0, 100, 1, "mix")
        p.check(300, 724, 1, "mix")
        d.audit()
        p.do("fd_punch", 0, 500, 100)
        d.audit()	# corrects the words by itself
        p.check(500, 100, 0, "zero")
        d.audit()


def test_allocated_behind_our_back():
    """Room that a client has made in its memfd by fallocate is no data to SEEK_DATA and in the way of UFFDIO_COPY: what comes in
    beside it comes in, nobody waits for it for ever, neither the guest nor the worker, and the audit goes through."""
    with daemon(64) as d, Puppet(d, "vm", 24) as p:
        p.do("fill", 0, 0, 1024, 1, "text")
        p.do("fd_allocate", 0, 1100, 8)
        p.do("fill", 0, 1024, 64, 1, "text", seconds=20)	# a stream comes to it
        p.do("fill", 0, 1088, 64, 1, "text", seconds=20)
        p.check(0, 1152, 1, "text")
        p.do("fd_allocate", 0, 2000, 8)
        try:
            p.do("populate", 0, 1984, 64, seconds=20)	# a job comes to it
        except Refused as e:
            check(e.name, str(e))
        p.do("fill", 0, 1984, 64, 1, "text", seconds=20)
        p.check(1984, 64, 1, "text")
        p.do("fd_punch", 0, 100, 8)
        p.do("fd_allocate", 0, 100, 8)
        p.check(100, 8, 0, "zero")
        d.audit()


def test_limit():
    """A VM stays below its own limit while the arena has room, and pays by its own counter."""
    with daemon(128) as d, Puppet(d, "limited", 32, limit=8) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix", seconds=120)
        for first in range(0, p.pages, 1024):
            n = p.numbers()
            check(n["resident_bytes"] <= 8 * MIB, "resident %d" % n["resident_bytes"])
            p.check(first, 1024, 1, "mix")
        calm(d)
        n = p.numbers()
        check(n["charged_bytes"] <= 8 * MIB, "charged %d, limit %d" % (n["charged_bytes"], 8 * MIB))
        check(n["charged_peak_bytes"] <= 9 * MIB, "at most %d were charged" % n["charged_peak_bytes"])
        check(n["reclaim_limit_pages"] > 0, "reclaim_limit_pages counts")
        check_eq(n["reclaim_host_pages"], 0, "reclaim_host_pages")
        d.audit()


def test_reservation():
    """A VM within its reservation keeps its pages while another is squeezed."""
    with daemon(32, settings=["fault_around=1"]) as d, Puppet(d, "reserved", 16, reservation=12) as a, \
            Puppet(d, "greedy", 64) as b:
        a.do("fill", 0, 0, 10 * 256, 1, "random")
        b.do("fill", 0, 0, b.pages, 2, "mix", seconds=120)
        n = a.numbers()
        check_eq(n["evicted_pages"], 0, "evicted pages of the VM with a reservation")
        check_eq(n["resident_bytes"], 10 * MIB, "resident bytes")
        check(b.numbers()["evicted_pages"] > 0, "the other was squeezed")
        b.check(0, b.pages, 2, "mix")
        a.check(0, 10 * 256, 1, "random")
        d.audit()


def test_pins():
    """Pinned pages stay; beyond the reservation they are refused; pins nest."""
    with daemon(96) as d, Puppet(d, "vm", 32, reservation=6, limit=10) as p:
        p.do("fill", 0, 0, 1024, 1, "mix")
        p.do("pin", 0, 0, 1024)
        p.do("pin", 0, 0, 16)
        check_eq(p.numbers()["pinned_bytes"], 4 * MIB, "pinned bytes")
        p.do("dont_need", 0, 0, 1024)
        p.do("fill", 0, 2048, 4096, 2, "mix", seconds=90)
        check_eq(p.resident(0, 1024), 1024, "resident pinned pages")
        check(set(range(1024)) <= p.data(), "the kernel has them")
        try:
            p.do("pin", 0, 2048, 1024)
            check(False, "a pin beyond the reservation was granted")
        except Refused as e:
            check_eq(e.errno, 12, "errno of %s" % e)
        check_eq(p.numbers()["pinned_bytes"], 4 * MIB, "pinned bytes after the refusal")
        p.do("unpin", 0, 0, 1024)
        check_eq(p.numbers()["pinned_bytes"], 16 * PAGE, "pinned once more")
        p.do("dont_need", 0, 0, 1024)
        p.do("fill", 0, 2048, 4096, 3, "random", seconds=90)
        check_eq(p.resident(0, 16), 16, "resident pages that are still pinned")
        check(p.resident(16, 1008) < 1008, "the others may go again")
        p.do("unpin", 0, 0, 16)
        p.check(0, 1024, 1, "mix")
        p.check(2048, 4096, 3, "random")
        d.audit()


def victims(kind):
    with daemon(24, settings=["victim=fill-order"]) as d, Puppet(d, "a", 32) as a, Puppet(d, "b", 32) as b:
        d.memctl("tune", "victim", kind)
        hammer = a.do("hammer", 0, 7000, 300)[0]
        for turn in range(3):
            for p in (a, b):
                p.do("fill", 0, 0, 4096, turn, "mix", seconds=90)
            for p in (a, b):
                p.check(0, 4096, turn, "mix")
        check_eq(a.do("rest", hammer)[0], "0", "words lost")
        check(a.numbers()["evicted_pages"] + b.numbers()["evicted_pages"] > 0, "pages were evicted")
        d.audit()


def test_victim_second_chance():
    victims("second-chance")


def test_victim_fill_order():
    victims("fill-order")


def test_victim_random():
    victims("random")


def test_victim_changes_while_running():
    with daemon(24) as d, Puppet(d, "a", 40) as a:
        for turn, kind in enumerate(["random", "second-chance", "fill-order", "random"]):
            a.tell("fill 0 0 8000 %d mix" % turn)
            d.memctl("tune", "victim", kind)
            a.hear(120, "the end of fill")
            a.check(0, 8000, turn, "mix")
            check_eq([s["value"] for s in d.memctl("config", "show")["settings"] if s["name"] == "victim"], [kind],
                     "the setting shown")
        d.audit()


def test_unanswered_orders():
    """A client that never answers the daemon's orders is reclaimed all the same."""
    with daemon(24) as d, Puppet(d, "deaf", 40, helper=False) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix", seconds=180)
        p.check(0, p.pages, 1, "mix")
        d.audit()


test_unanswered_orders.seconds = 240 * int(SLOW)
for function in [f for n, f in globals().items() if n.startswith("test_") and not hasattr(f, "seconds")]:
    function.seconds = 120 * int(SLOW)

if __name__ == "__main__":
    main(globals())
