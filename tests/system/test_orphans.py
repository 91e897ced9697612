#!/usr/bin/env python3
"""Clients whose daemon dies: what they have stays right, what they lack they wait for; never zeros."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from system.puppet import Puppet, Refused, daemon  # noqa: E402
from torture.actor import NoAnswer  # noqa: E402


def waits(p, command):
    """The client does not answer, and lives."""
    p.tell(command)
    try:
        answer = p.hear(0.7)
    except NoAnswer:
        check(p.alive(), "the client ended")
        return
    raise AssertionError("\"%s\" was answered: %s" % (command, answer))


def orphan(prepare, after):
    d = daemon(64, settings=["fault_around=1"])
    d.start()
    p = Puppet(d, "vm", 24, limit=8)
    try:
        prepare(p)
        d.kill()
        after(p)
    finally:
        p.kill()
        d.kill()


def test_resident_pages_stay_right():
    def after(p):
        p.check(0, 64, 1, "random")
        p.do("touch", 0, 0, 64, 1, "random", "w")

    orphan(lambda p: p.do("fill", 0, 0, 64, 1, "random"), after)


def test_untouched_pages_wait_for_reads():
    orphan(lambda p: None, lambda p: waits(p, "touch 0 5 1 1 random r"))


def test_untouched_pages_wait_for_writes():
    orphan(lambda p: None, lambda p: waits(p, "touch 0 5 1 1 random w"))


def evicted(p):
    p.do("fill", 0, 0, 64, 1, "random")
    p.evict(0, 64, 512, 3072)


def test_evicted_pages_wait_for_reads():
    orphan(evicted, lambda p: waits(p, "check 0 0 64 1 random"))


def test_evicted_pages_wait_for_writes():
    orphan(evicted, lambda p: waits(p, "touch 0 0 64 1 random w"))


def test_calls_say_that_it_is_gone():
    def after(p):
        try:
            p.do("populate", 0, 0, 4)
        except Refused as why:
            check_eq([why.name, why.errno], ["org.memctl.Unreachable", 107], "the error")
        else:
            raise AssertionError("a dead daemon brought pages in")
        p.check(0, 8, 1, "random")

    # it waits so long for another daemon
    os.environ["PUPPET_TIMEOUT_MS"] = "2000"
    try:
        orphan(lambda p: p.do("fill", 0, 0, 8, 1, "random"), after)
    finally:
        del os.environ["PUPPET_TIMEOUT_MS"]


if __name__ == "__main__":
    main(globals())
