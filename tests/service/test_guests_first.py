#!/usr/bin/env python3
"""A restart with guests: what they do not need is done without, rather than that they wait.  A start without guests refuses the same."""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import Failed, wait_until  # noqa: E402
from service.configured import Files, daemon, memctl_as, needs_users  # noqa: E402
from system.puppet import Puppet  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402

PERMISSION = 5
PAGES = 1024


def restart(d):
    before = d.child()
    os.kill(before, 9)
    wait_until(lambda: d.child() not in (None, before) and d.serves() and
               d.memctl("vm", "show", "a")["vm"]["state"] == "running", 20, "a restart")


def goes_on_after(f, change, then, **how):
    """A first start after this change is refused, and guests go on."""
    with daemon(f, kind=SupervisedDaemon, more=(10,), **how) as d, Puppet(d, "a", 16) as p:
        p.do("fill", 0, 0, PAGES, 1, "mix")
        change()
        restart(d)
        p.check(0, PAGES, 1, "mix")
        p.do("fill", 0, 0, PAGES, 2, "mix")
        p.check(0, PAGES, 2, "mix")
        d.audit()
        then(d)
    change()
    try:
        with daemon(f, **how):
            check(False, "it starts without guests as well")
    except Failed:
        pass


def test_without_a_history():
    def change():
        shutil.rmtree(folder, ignore_errors=True)
        with open(folder, "a", encoding="utf-8"):
            pass

    def then(d):
        check("goes on without history" in d.log(), d.log())
        check("keeps no history" in d.run_memctl("history").stderr, "history")
        os.unlink(folder)

    with Files() as f:
        folder = os.path.join(f.dir, "history")
        os.mkdir(folder)
        goes_on_after(f, change, then, metrics=os.path.join(folder, "metrics.db"))


def test_without_the_read_only_socket():
    with Files() as f:
        goes_on_after(f, lambda: f.settings("socket_ro = /proc/no/such/place.sock"),
                      lambda d: check("socket-ro-failed" in d.log(), d.log()))


def test_with_names_that_cannot_be_looked_up():
    needs_users()

    def then(d):
        check("names-wait" in d.log(), d.log())
        result = memctl_as(65534, d.socket, "status")
        check_eq(result.returncode, PERMISSION, "for others it is closed")
        f.settings("allow_users = 65534", "socket_mode = 0666")
        wait_until(lambda: memctl_as(65534, d.socket, "status").returncode == 0, 60, "names to be looked up again")

    with Files() as f:
        goes_on_after(f, lambda: f.settings("allow_users = no-such-user", "socket_mode = 0666"), then)


if __name__ == "__main__":
    main(globals())
