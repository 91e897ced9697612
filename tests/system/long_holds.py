#!/usr/bin/env python3
"""A client that holds the lock of its lease's memfd holds the lease's worker in the kernel: it is killed, after the limit and not
before; its neighbour and the daemon go on."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import Puppet, Refused, daemon, no_vms  # noqa: E402


def holds(p):
    try:
        p.do("fd_hold", 0)
    except Refused as why:
        if why.errno == 1:
            skip("only root may take faults of the kernel")
        raise


def killed(d):
    return d.memctl("status")["status"]["host"]["clients_killed"]


def test_it_is_killed_after_the_limit():
    with daemon(64, settings=["client_hold_limit=3"]) as d, Puppet(d, "good", 16) as good:
        good.do("fill", 0, 0, 4096, 1, "random")
        bad = Puppet(d, "bad", 16)
        try:
            bad.do("fill", 0, 0, 1024, 1, "random")
            holds(bad)
            bad.tell("discard 0 0 64")
            begin = time.monotonic()
            wait_until(lambda: not bad.alive(), 20, "the kill")
            check(2.5 < time.monotonic() - begin < 8, "it was killed after %.1f s" % (time.monotonic() - begin))
        finally:
            bad.kill()
        check("VM bad: its client (process %d) has held a thread of memctld for" % bad.process.pid in d.log(), d.log())
        check_eq(killed(d), 1, "clients_killed")
        wait_until(lambda: [v["name"] for v in d.memctl("vm", "list")["vms"]] == ["good"], what="the release of its memory")
        good.check(0, 4096, 1, "random")
        d.audit()


def test_one_that_holds_nobody_lives():
    """It holds its own lock, and nothing of ours waits for it."""
    with daemon(64, settings=["client_hold_limit=1"]) as d, Puppet(d, "vm", 16) as p:
        p.do("fill", 0, 0, 64, 1, "random")
        holds(p)
        time.sleep(3)
        check(p.alive(), "it was killed")
        check_eq(killed(d), 0, "clients_killed")
        p.kill()
        no_vms(d)


def test_without_a_limit_it_lives():
    with daemon(64, settings=["client_hold_limit=0"]) as d, Puppet(d, "vm", 16) as p:
        p.do("fill", 0, 0, 64, 1, "random")
        holds(p)
        p.tell("discard 0 0 64")
        time.sleep(3)
        check(p.alive(), "it was killed")
        # a live setting
        d.memctl("tune", "client_hold_limit", "1")
        wait_until(lambda: not p.alive(), 10, "the kill")
        p.kill()
        no_vms(d)


def test_a_daemon_that_was_stopped_kills_nobody():
    with daemon(64, settings=["client_hold_limit=3"]) as d, Puppet(d, "vm", 16) as p:
        p.do("fill", 0, 0, 64, 1, "random")
        holds(p)
        p.tell("discard 0 0 64")
        time.sleep(0.5)
        d.process.send_signal(19)
        time.sleep(5)
        d.process.send_signal(18)
        time.sleep(1.2)
        check(p.alive(), "it was killed for the time in which the daemon was stopped")
        wait_until(lambda: not p.alive(), 10, "the kill in the end")
        p.kill()
        no_vms(d)


if __name__ == "__main__":
    main(globals())
