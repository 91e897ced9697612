#!/usr/bin/env python3
"""The balloon on the wire: what a driver may say, what it may not, and what an agent outside may."""
import json
import os
import select
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip
from lib.daemon import Daemon
from wire.client import PAGE, Client, NoUserfaultfd, Refused, Vm, userfaultfd

MIB = 1 << 20


def daemon(**more):
    try:
        os.close(userfaultfd()[0])
    except NoUserfaultfd as why:
        skip("no userfaultfd: %s" % why)
    return Daemon(arena=64 * MIB, **more)


def refused(client, name, method, **parameters):
    try:
        reply = client.call(method, **parameters)
    except Refused as e:
        check_eq(e.name.split(".")[-1], name, "%s %s: %s" % (method, parameters, e.parameters))
        check(e.parameters["message"], "no sentence")
        return e.parameters
    raise AssertionError("%s %s was not refused: %s" % (method, parameters, reply))


def shown(d, vm="a"):
    with Client(d.socket) as c:
        check(c.call("Audit")["ok"], "audit")
        return c.call("ShowVm", vm=vm)["vm"]


def test_give_and_take():
    with daemon() as d, Vm(d.socket, "a", 4 * MIB, reservation=MIB) as vm:
        l = vm.lease(0, 4 * MIB)
        call = vm.calls.call
        for page in range(40):
            l.write_page(page, bytes([page + 1]) * PAGE)
        check_eq(call("BalloonStart")["max"], 4 * MIB // PAGE * 65 // 100 * PAGE)
        check_eq(call("BalloonPoll"), {"target": 0})
        call("Pin", lease=l.number, offset=10 * PAGE, length=2 * PAGE)
        reply = call("BalloonInflate", lease=l.number, runs=[[0, 1], [8, 8], [39, 2]])
        check_eq(reply, {"pages": 9, "refused": [[10, 2]]})
        check_eq(call("BalloonInflate", lease=l.number, runs=[[0, 1], [8, 8], [39, 2]]), reply, "the same again")
        check_eq((l.page(10), l.page(1)), (b"\x0b" * PAGE, b"\x02" * PAGE), "what was not taken")
        n = shown(d)
        check_eq((n["ballooned_bytes"], n["inflated_pages"], n["balloon_refused_pages"], n["balloon_driver"]),
                 (9 * PAGE, 9, 4, "guest"))
        with Client(d.socket) as c:
            runs = c.call("PageMap", vm="a")["runs"]
        check_eq(sum(r["pages"] for r in runs if r["state"] == "ballooned"), 9)
        check_eq(l.page(8), bytes(PAGE), "a page that was touched in the balloon")
        check_eq(call("BalloonDeflate", lease=l.number, runs=[[0, 12]]), {"pages": 2})
        check_eq(l.page(0), bytes(PAGE), "a page that was taken back")
        # a driver that begins anew knows of none
        call("BalloonStart")
        n = shown(d)
        check_eq((n["ballooned_bytes"], n["deflated_pages"], n["balloon_touched_pages"]), (0, 8, 1))


def test_what_makes_no_sense():
    with daemon() as d, Vm(d.socket, "a", 8 * MIB) as vm:
        l = vm.lease(0, 4 * MIB)
        l.write_page(3, b"x" * PAGE)
        for method in ("BalloonInflate", "BalloonDeflate"):
            refused(vm.calls, "BadState", method, lease=l.number, runs=[[0, 1]])
        refused(vm.calls, "BadState", "BalloonPoll")
        vm.calls.call("BalloonStart")
        idle = vm.lease(1 << 32, MIB, activate=False)
        for method in ("BalloonInflate", "BalloonDeflate"):
            for runs in ([[3, 2], [4, 1]], [[3, 1], [3, 1]], [[5, 1], [3, 1]], [[3, 0]], [], [[3, 1, 7]]):
                check_eq(refused(vm.calls, "InvalidValue", method, lease=l.number, runs=runs)["field"], "runs")
            for runs in ([[1023, 2]], [[1024, 1]], [[3, 1], [4000, 1]], [[0, 513]], [[3, (1 << 63) - 1]],
                         [[(1 << 63) - 1, (1 << 63) - 1]]):
                refused(vm.calls, "InvalidSize", method, lease=l.number, runs=runs)
            for runs in ([[3]], [[1, 1, 1, 1]], [[-1, 1]], "all", [[0, 1]] * 513):
                refused(vm.calls, "InvalidParameter", method, lease=l.number, runs=runs)
            refused(vm.calls, "NoSuchLease", method, lease=l.number + 7, runs=[[0, 1]])
            refused(vm.calls, "BadState", method, lease=idle.number, runs=[[0, 1]])
        check_eq(l.page(3), b"x" * PAGE, "a page that was named in vain")
        check_eq(shown(d)["ballooned_bytes"], 0)
        with Client(d.socket) as stranger:
            for method, more in (("BalloonStart", {}), ("BalloonPoll", {}), ("BalloonInflate", dict(lease=1, runs=[[3, 1]]))):
                refused(stranger, "BadState", method, **more)


def test_as_many_refusals_as_fit():
    """Every other page of the most that one call may name."""
    with daemon() as d, Vm(d.socket, "a", 8 * MIB, reservation=8 * MIB) as vm:
        l = vm.lease(0, 8 * MIB)
        vm.calls.call("BalloonStart")
        for page in range(0, 512, 2):
            vm.calls.call("Pin", lease=l.number, offset=page * PAGE, length=PAGE)
        reply = vm.calls.call("BalloonInflate", lease=l.number, runs=[[0, 512]])
        check_eq(reply, {"pages": 256, "refused": [[p, 1] for p in range(0, 512, 2)]})
        reply = vm.calls.call("BalloonInflate", lease=l.number, runs=[[p, 1] for p in range(512, 1536, 2)])
        check_eq(reply, {"pages": 512, "refused": []})
        shown(d)


def test_what_does_not_come_home_is_refused():
    """A client that says it mapped pages of the pool, and does not answer when they are to come home."""
    with daemon(args=["--set", "ShareRateMax=10000000", "--set", "ShareScanGHz=1000000"]) as d, \
            Vm(d.socket, "a", MIB, sharing="vm") as vm, Client(d.socket) as c:
        l = vm.lease(0, MIB)
        orders = vm.attend()
        vm.calls.call("JoinPool", maps=50)
        for page in range(64):
            l.write_page(page, bytes([page % 8 + 1, page // 16]) * (PAGE // 2) if page < 16 else bytes([1, page]) * (PAGE // 2))
        vm.calls.call("BalloonStart")
        end = time.monotonic() + 30
        while c.call("ShowVm", vm="a")["vm"]["shared_bytes"] < 16 * PAGE:
            check(time.monotonic() < end, "16 pages are alike, and not shared")
            c.call("ScanVm", vm="a")
            if b"\0" not in orders.buffer and not select.select([orders.socket], [], [], 0.1)[0]:
                continue
            order = orders.receive()
            n = sum(r[1] for r in order["runs"])
            answer = {"order": order["order"]}
            if order["kind"] in ("share", "present", "private"):
                answer.update(bits=("%02x" % 255) * (n // 8) + ("%02x" % ((1 << n % 8) - 1) if n % 8 else ""))
            if order["kind"] == "share":
                answer.update(pages=n)
            if order["kind"] != "zap":
                vm.calls.send("Done", answer, oneway=True)
        reply = vm.calls.call("BalloonInflate", lease=l.number, runs=[[0, 64]])
        check_eq(reply, {"pages": 48, "refused": [[0, 16]]})


def test_a_target_is_told():
    with daemon(env={"MEMCTLD_INJECT": "balloon:25"}) as d, Vm(d.socket, "a", 4 * MIB) as vm:
        vm.lease(0, 4 * MIB)
        orders = vm.attend()
        vm.calls.call("BalloonStart")
        check_eq(vm.calls.call("BalloonPoll")["target"], 250 * PAGE)	# of 1024 pages, whole hundreds
        order = orders.receive()
        check_eq((order["kind"], order["lease"], order["runs"]), ("balloon", 0, [[250, 1]]))
        # it is not answered; who does so all the same is not harmed
        vm.calls.send("Done", {"order": order["order"]}, oneway=True)
        check_eq(shown(d)["balloon_target_bytes"], 250 * PAGE)


def test_an_agent_speaks():
    with daemon(env={"MEMCTLD_INJECT": "balloon:25"}) as d, Vm(d.socket, "a", 4 * MIB) as vm, Client(d.socket) as agent:
        l = vm.lease(0, 4 * MIB)
        check_eq(agent.call("BalloonAgent", vm="a", reachable=False, size=0), {"target": 0})
        check_eq((shown(d)["balloon_driver"], shown(d)["balloon_max_bytes"]), ("none", 0))
        claims = {"total_bytes": 100 * MIB, "available_bytes": 40 * MIB, "major_faults": 7}
        check_eq(agent.call("BalloonAgent", vm="a", reachable=True, size=MIB, claims=claims), {"target": 250 * PAGE})
        n = shown(d)
        check_eq((n["balloon_driver"], n["claims"], n["claimed_bytes"]), ("agent", claims, 60 * MIB))
        check_eq((n["balloon_claimed_bytes"], n["ballooned_bytes"], n["ballooned_peak_bytes"]), (MIB, MIB, MIB))
        # believed as far as the VM has pages that cost nothing
        agent.call("BalloonAgent", vm="a", reachable=True, size=1 << 40)
        for page in range(1024):
            l.write_page(page, b"x" * PAGE)
        n = shown(d)
        check_eq((n["balloon_claimed_bytes"], n["ballooned_bytes"], n["claims"]), (1 << 40, 0, None))
        check("claimed_bytes" not in n)
        # the guest's own driver comes first
        vm.calls.call("BalloonStart")
        check_eq(agent.call("BalloonAgent", vm="a", reachable=True, size=0)["target"], 0)
        refused(agent, "NoSuchVm", "BalloonAgent", vm="b", reachable=True, size=0)
        for claims in ([1], "text", 7, {"text": "x" * 5000}):
            refused(agent, "InvalidValue", "BalloonAgent", vm="a", reachable=True, size=0, claims=claims)
        refused(agent, "InvalidParameter", "BalloonAgent", vm="a", reachable=True)
        refused(agent, "InvalidParameter", "BalloonAgent", vm="a", reachable=1, size=0)
        agent.call("BalloonAgent", vm="a", reachable=True, size=0, claims=None)
        # what it says is no number, and is shown all the same
        strange = {"total_bytes": "many", "x": [None, {"y": 1.5}]}
        agent.call("BalloonAgent", vm="a", reachable=True, size=0, claims=strange)
        check_eq(shown(d)["claims"], strange)
        check_eq(json.loads(d.run_memctl("--json", "vm", "show", "a").stdout)["vm"]["claims"], strange)


if __name__ == "__main__":
    main(globals())
