#!/usr/bin/env python3
"""memctld under its own supervisor, with guests: they go on after every kind of end, and what is kept for them goes with them."""
import contextlib
import glob
import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import Puppet, Refused, no_vms  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402


def guest(d, name="vm", owner=1):
    p = Puppet(d, name, 32, limit=8, owner=owner)
    p.do("fill", 0, 0, 8192, 1, "mix")
    return p


def idle_guest(d):
    """All its pages are there, and its worker has nothing to do."""
    p = Puppet(d, "bad", 8, owner=2)
    p.do("fill", 0, 0, 64, 1, "random")
    return p


def kept(d):
    """Descriptors of the supervisor, its own among them."""
    return len(os.listdir("/proc/%d/fd" % d.pid))


def comes_back(d, act, seconds=30):
    before = d.child()
    act()
    wait_until(lambda: d.child() not in (None, before) and d.serves(), seconds, "the next one")


def ends(d):
    """Told to end, it does, and its supervisor says so."""
    d.process.send_signal(signal.SIGTERM)
    check_eq(d.process.wait(30), 0, "status")


@contextlib.contextmanager
def any_end(d):
    """It may have ended already, or hang."""
    try:
        yield d.start()
    finally:
        d.kill()
        shutil.rmtree(d.dir, ignore_errors=True)


def hold(p):
    try:
        p.do("fd_hold", 0)
    except Refused:
        skip("only root may take faults of the kernel")


def hold_worker(d, p):
    """Its lease's worker waits in the kernel, beyond any signal, when this returns: and not for our disk, as it may for a moment."""
    def waits_now():
        for task in glob.glob("/proc/%d/task/*/stat" % d.child()):
            with open(task) as f:
                if "(worker/%s) D" % p.name in f.read():
                    return True
        return False

    def waits():
        for _ in range(20):
            if not waits_now():
                return False
            time.sleep(0.02)
        return True

    hold(p)
    p.tell("discard 0 0 64")
    wait_until(waits, what="the worker waits for its client")


def test_guests_go_on_after_kill_9():
    with SupervisedDaemon(10) as d:
        own = kept(d)
        with guest(d) as p, guest(d, "other", 2) as other:
            stored = kept(d)
            check(stored > own + 8, "%d descriptors are kept" % stored)
            for _ in range(5):
                comes_back(d, lambda: os.kill(d.child(), signal.SIGKILL))
                p.check(0, 8192, 1, "mix")
                other.check(0, 8192, 1, "mix")
                d.audit()
            check_eq(kept(d), stored, "descriptors that are kept")
        no_vms(d)
        wait_until(lambda: kept(d) == own, what="nothing is kept for guests that are gone")


test_guests_go_on_after_kill_9.seconds = 120


def test_guests_go_on_after_a_hang():
    with any_end(SupervisedDaemon(2, env={"MEMCTLD_INJECT": "hang_control:4"})) as d, guest(d) as p:
        wait_until(lambda: "hangs: killed" in d.log() and d.log().count("serving on") > 1, 30, "the watchdog")
        p.check(0, 8192, 1, "mix")
        p.kill()


def test_guests_go_on_after_an_upgrade():
    with SupervisedDaemon(10) as d, guest(d) as p:
        comes_back(d, lambda: d.memctl("daemon", "upgrade"))
        check("status 75" in d.log(), d.log())
        p.check(0, 8192, 1, "mix")
        d.audit()


def test_a_guest_that_dies_meanwhile_is_released():
    with SupervisedDaemon(10) as d, guest(d) as p:
        dead = guest(d, "dead", 2)
        # neither its supervisor nor it can do anything until both deaths have happened
        d.process.send_signal(signal.SIGSTOP)
        os.kill(d.child(), signal.SIGKILL)
        dead.kill()
        comes_back(d, lambda: d.process.send_signal(signal.SIGCONT))
        wait_until(lambda: listed(d) == ["vm"], what="the release")
        p.check(0, 8192, 1, "mix")
        d.audit()


def test_sigterm_gives_guests_their_memory():
    with any_end(SupervisedDaemon(10)) as d:
        p = guest(d)
        try:
            ends(d)
            p.check(0, 8192, 1, "mix")
            p.do("fill", 0, 0, 8192, 2, "mix")
            p.check(0, 8192, 2, "mix")
        finally:
            p.kill()


def test_sigterm_to_both_is_one():
    """A whole process group, or control group, is told to end: memctld hears it twice, and still leaves nobody behind."""
    with any_end(SupervisedDaemon(10)) as d:
        p = guest(d)
        try:
            os.kill(d.child(), signal.SIGTERM)
            ends(d)
            p.check(0, 8192, 1, "mix")
        finally:
            p.kill()


def listed(d):
    return sorted(v["name"] for v in d.memctl("vm", "list")["vms"])


def test_a_client_that_holds_its_locks_holds_up_no_start():
    """Its neighbour is served all the same; and it is killed as soon as a thread has waited for it for long enough."""
    with SupervisedDaemon(10, settings=["client_hold_limit=3"]) as d, guest(d) as p:
        bad = idle_guest(d)
        try:
            hold(bad)
            comes_back(d, lambda: os.kill(d.child(), signal.SIGKILL))
            p.check(0, 8192, 1, "mix")
            if bad.alive():
                bad.tell("discard 0 0 64")
                wait_until(lambda: not bad.alive(), 20, "the kill")
        finally:
            bad.kill()
        wait_until(lambda: listed(d) == ["vm"], what="the release")
        p.check(0, 8192, 1, "mix")
        d.audit()


def test_an_upgrade_waits_for_no_client():
    """A process does not end while one of its threads waits for a lock: who holds it is killed first."""
    with SupervisedDaemon(10) as d, guest(d) as p:
        bad = idle_guest(d)
        try:
            hold_worker(d, bad)
            comes_back(d, lambda: d.memctl("daemon", "upgrade"))
            check(not bad.alive(), "it lives")
            p.check(0, 8192, 1, "mix")
        finally:
            bad.kill()
        wait_until(lambda: listed(d) == ["vm"], what="the release")
        d.audit()


def test_a_death_that_waits_for_a_client_is_explained():
    """Killed in that moment, memctld cannot end before its client: the log says which."""
    with SupervisedDaemon(1) as d, guest(d) as p:
        bad = idle_guest(d)
        try:
            hold_worker(d, bad)
            os.kill(d.child(), signal.SIGKILL)
            wait_until(lambda: "cannot end while a client holds a thread of it" in d.log(), 40, "the explanation")
            check("worker/bad;" in d.log(), d.log())
        finally:
            comes_back(d, bad.kill)
        p.check(0, 8192, 1, "mix")
        wait_until(lambda: listed(d) == ["vm"], what="the release")
        d.audit()


test_a_death_that_waits_for_a_client_is_explained.seconds = 120


def test_new_guests_are_kept_after_a_restart():
    with SupervisedDaemon(10) as d:
        comes_back(d, lambda: os.kill(d.child(), signal.SIGKILL))
        own = kept(d)
        with guest(d) as p:
            comes_back(d, lambda: os.kill(d.child(), signal.SIGKILL))
            p.check(0, 8192, 1, "mix")
        no_vms(d)
        wait_until(lambda: kept(d) == own, what="nothing is kept for a guest that is gone")


if __name__ == "__main__":
    main(globals())
