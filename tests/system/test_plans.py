#!/usr/bin/env python3
"""What is planned, from what, and what becomes of it: the working set, the history of plans, blocks, reservations."""
import os
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, PAGE, Puppet, daemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402


def replay(d, database):
    """Every plan of the history again.  -> (the same came out, what it says)"""
    result = subprocess.run([os.path.join(d.build, "tests", "system", "replay"), database], capture_output=True, text=True,
                            timeout=60 * SLOW, check=False)
    check(result.returncode in (0, 1), result.stderr)
    return result.returncode == 0, result.stdout


def press(a, b, rounds):
    """Both write all their memory, which is more than there is."""
    for i in range(rounds):
        a.do("fill", 0, 0, a.pages, i, "mix")
        b.do("fill", 0, 0, b.pages, i, "mix")


def test_every_plan_can_be_made_again():
    """A short host, a VM at its own limit, VMs that come and go: the history has all that the plans depended on."""
    with daemon(24, metrics="/tmp/memctl-plans-%d.db" % os.getpid(), settings=["BalancePeriod=1", "SamplePeriod=1"]) as d:
        try:
            with Puppet(d, "a", 24, reservation=4) as a, Puppet(d, "b", 16, limit=8) as b:
                press(a, b, 2)
                time.sleep(1.5)
            d.stop()
            db = sqlite3.connect(d.metrics)
            plans, stand_for = db.execute("SELECT count(*), sum(plans) FROM plan").fetchone()
            causes = {row[0] for row in db.execute("SELECT DISTINCT cause FROM plan_vm")}
            check({0, 1, 2} <= causes, "causes: %s" % causes)
            check(stand_for > plans > 3, "%s plans, of %s" % (plans, stand_for))
            same, said = replay(d, d.metrics)
            check(same, said)
            check_eq(said.split()[:4], ["plans", str(plans), "stand_for", str(stand_for)])
            # the twin: one number of what a plan looked at is another one
            db.execute("UPDATE plan_vm SET charged_frames = charged_frames + 1000 WHERE host_take_frames > 0")
            check(db.total_changes > 0, "no plan took anything")
            db.commit()
            same, said = replay(d, d.metrics)
            check(not same and "planned again" in said, said)
        finally:
            for end in ("", "-wal", "-shm"):
                if os.path.exists(d.metrics + end):
                    os.unlink(d.metrics + end)


def test_working_set():
    """A VM that uses half of its memory, one that idles, and one whose library carries nothing out."""
    with daemon(64, settings=["SamplePeriod=1"]) as d, Puppet(d, "half", 12) as half, Puppet(d, "idle", 12) as idle, \
            Puppet(d, "mute", 12, helper=False) as mute:
        for p in (half, idle, mute):
            p.do("fill", 0, 0, p.pages, 1, "random")
        # all that was found while they were filled is averaged out slowly: what counts falls with the periods
        end = time.monotonic() + 30 * SLOW
        while time.monotonic() < end:
            half.check(0, half.pages // 2, 1, "random")
            n = {p.name: p.numbers() for p in (half, idle, mute)}
            if 25 <= n["half"]["active_next_pct"] <= 80 and n["idle"]["active_next_pct"] <= 10 and n["mute"]["active_estimated"]:
                break
        check(25 <= n["half"]["active_next_pct"] <= 80, n["half"])
        check(n["idle"]["active_next_pct"] <= 10, n["idle"])
        check_eq([n[k]["active_estimated"] for k in ("half", "idle", "mute")], [0, 0, 1])
        # what counts is the largest of the averages
        check(n["half"]["active_bytes"] >= n["half"]["active_next_pct"] * 12 * MIB // 101, n["half"])
        # no fault was taken for it
        check_eq(n["idle"]["events"], n["idle"]["faults_zero"] + n["idle"]["faults_protected"] + n["idle"]["faults_busy"])
        # and nothing is sampled without a period
        d.memctl("tune", "SamplePeriod", "0")
        wait_until(lambda: idle.numbers()["active_bytes"] == 12 * MIB, 10 * SLOW, "all to count as in use")


def test_stall_share():
    """Waits for pages, as a part of the time: none while nothing is missing, some while everything is, never more than all."""
    with daemon(24) as d, Puppet(d, "a", 24) as a, Puppet(d, "b", 24) as b:
        a.do("fill", 0, 0, 64, 1, "random")
        wait_until(lambda: a.numbers()["stall_permille"] == 0, 10 * SLOW, "a calm VM")
        most = 0
        for i in range(5):
            press(a, b, 1)
            most = max(most, a.numbers()["stall_permille"])
            if most:
                break
        n = a.numbers()
        check(0 < most <= 1000, most)
        check(0 < n["stall_wall_ns"] <= n["age_s"] * 10**9 + 10**9, n)


def test_nobody_is_taken_below_its_reservation():
    """With three times as many pages as frames both keep what they were promised.  The twin must be caught by the daemon itself."""
    with daemon(24) as d, Puppet(d, "a", 24, reservation=12) as a, Puppet(d, "b", 24) as b:
        a.do("fill", 0, 0, a.pages, 1, "random")
        for i in range(2):
            b.do("fill", 0, 0, b.pages, i, "random")
            check(a.numbers()["charged_bytes"] >= 12 * MIB - 64 * PAGE, a.numbers())
        a.check(0, a.pages, 1, "random")
    with daemon(24, twin="no_floor") as d:
        with Puppet(d, "a", 24, reservation=12) as a, Puppet(d, "b", 24) as b:
            a.do("fill", 0, 0, a.pages, 1, "random")
            b.tell("fill 0 0 %d 1 random" % b.pages)
            wait_until(lambda: not d.alive(), 20 * SLOW, "the daemon's end by its own hand")
            a.kill()
            b.kill()
        check("VM a: it holds" in d.log() and "reservation of 3072" in d.log(), d.log())
        d.kill()


def explain(d, vm):
    return d.memctl("explain", vm)["explanation"]


def test_balloon_is_asked_and_let_down():
    """Who has a driver is asked for what it does not use; it gives, and gets it back when the others have gone."""
    with daemon(48, settings=["SamplePeriod=1", "BalancePeriod=1"]) as d, Puppet(d, "giver", 32) as a:
        a.do("balloon_start")
        a.do("fill", 0, 0, a.pages, 1, "random")
        wait_until(lambda: a.numbers()["active_pct"] < 50, 20 * SLOW, "an idle VM")
        held = given = 0
        with Puppet(d, "taker", 32) as b:
            for i in range(6):
                b.do("fill", 0, b.pages // 6 * i, b.pages // 6, 1, "random")
                target = int(a.do("balloon_target")[0]) // PAGE
                if target > given:
                    given += int(a.do("inflate", 0, given, target - given)[0])
                held = max(held, a.numbers()["ballooned_bytes"])
            check(held > 0, "its balloon was never asked: %s" % a.numbers())
            e = explain(d, "giver")
            check(any(x["cause"] == "host" and x["asked_bytes"] > 0 for x in e["actions"]), e["actions"])
        wait_until(lambda: int(a.do("balloon_target")[0]) < held, 10 * SLOW, "a smaller target")
        a.check(given, a.pages - given, 1, "random")


if __name__ == "__main__":
    main(globals())
