#!/usr/bin/env python3
"""`memctl doctor` beside the installed unit under a real systemd (machine.py): as it is installed, with a drop-in that costs guests
something, stopped, and for users who may not; what is to be typed is typed, and mends it."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from systemd.scenario import machine  # noqa: E402

# of the host that the machine is on, which it cannot change
OF_THE_HOST = {"max_map_count", "shmem_thp", "memory", "swap_fs", "swap_space", "host_swap", "oom"}


def doctor(m, *ids, who=()):
    result = m.run(*who, os.path.join(m.real_build, "cli", "memctl"), "--json", "doctor", *ids, check=False)
    check(result.stdout, result.stderr)
    return {c["id"]: c for c in json.loads(result.stdout)["checks"]}, result.returncode


def found(m, check_id, state, word="", **more):
    c = doctor(m, check_id, **more)[0][check_id]
    check(c["state"] == state and word in c["text"], "%s is %s, not %s with %r: %s" % (check_id, c["state"], state, word, c["text"]))
    return c


def mend(m, c):
    m.run("env", "PATH=%s/cli:/usr/sbin:/usr/bin" % m.real_build, "bash", "-c", c["fix"])


def test_as_it_is_installed():
    with machine() as m:
        checks, _ = doctor(m)
        wrong = {i: c["text"] for i, c in checks.items() if c["state"] in ("warning", "failure") and i not in OF_THE_HOST}
        check_eq(sorted(wrong), ["unit"], "what is wrong: %s" % wrong)
        check("at boot" in wrong["unit"], wrong["unit"])
        check("service manager" in checks["restarter"]["text"] and "30 s" in checks["watchdog"]["text"], str(checks["restarter"]))
        mend(m, checks["unit"])
        found(m, "unit", "ok", "dies, hangs, or is stopped")


def test_a_drop_in_that_costs_something():
    with machine(drop_in=["FileDescriptorStoreMax=0", "Restart=no", "WatchdogSec=0", "TimeoutStopSec=90"]) as m:
        found(m, "watchdog", "warning", "no watchdog")
        c = found(m, "unit", "failure", "guests wait for ever when memctld dies")
        for word in ("Restart is no", "nobody notices when it hangs", "TimeoutStopUSec is 1min 30s"):
            check(word in c["text"], c["text"])
        mend(m, c)
        check_eq(m.show("FileDescriptorStoreMax"), "16384", "descriptors")
        wait_until(lambda: doctor(m)[0]["memctld"]["state"] == "ok", what="memctld once more")
        found(m, "watchdog", "ok", "30 s")
        found(m, "unit", "warning", "at boot")


def test_one_that_was_stopped():
    with machine() as m:
        m.systemctl("stop", "memctld")
        c = found(m, "memctld", "failure", "systemd: inactive")
        mend(m, c)
        wait_until(lambda: doctor(m)[0]["memctld"]["state"] == "ok", what="the memctld that was started")
        # one that cannot start: its exit status is told
        m.systemctl("stop", "memctld")
        with open(os.path.join(m.root, "etc/memctl/memctld.conf"), "a") as f:
            f.write("nonsense = 1\n")
        m.run("systemctl", "start", "memctld", check=False)
        found(m, "memctld", "failure", "exit status 3")


def test_users_who_may_not():
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--init-groups")
    with machine() as m:
        c = found(m, "access", "failure", "for members of group memctl", who=nobody)
        check(c["fix"].startswith("usermod -aG memctl nobody"), c["fix"])
        if os.path.exists("/dev/userfaultfd"):
            c = found(m, "uffd", "warning", "user mode only", who=nobody)
            check(c["fix"].startswith("usermod -aG memctl nobody"), c["fix"])
        mend(m, c)
        found(m, "access", "ok", "nobody may call", who=nobody)
        if os.path.exists("/dev/userfaultfd"):
            found(m, "uffd", "ok", "nobody gets a full userfaultfd", who=nobody)


if __name__ == "__main__":
    main(globals())
