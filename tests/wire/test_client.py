#!/usr/bin/env python3
"""memctld through a client in another language: every operation once, in the order a VM uses them."""
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip
from lib.daemon import TREE, Daemon, wait_until
from wire.client import PAGE, Client, NoUserfaultfd, Refused, Vm, userfaultfd

MIB = 1 << 20


def need_userfaultfd():
    try:
        os.close(userfaultfd()[0])
    except NoUserfaultfd as why:
        skip("no userfaultfd: %s" % why)


def daemon(**more):
    return Daemon(arena=more.pop("arena", 64 * MIB), **more)


def audited(d):
    """The audit, which must agree."""
    with Client(d.socket) as c:
        reply = c.call("Audit")
    check(reply["ok"], "audit: %s" % reply["audit"])
    return reply["audit"]


def test_get_info():
    with daemon() as d, Client(d.socket) as c:
        info = c.call("org.varlink.service.GetInfo")
        check_eq(info["product"], "memctld")
        check_eq(info["interfaces"], ["org.varlink.service", "org.memctl"])


def test_interface_description_is_the_contract():
    with open(os.path.join(TREE, "proto", "org.memctl.varlink"), encoding="utf-8") as f:
        contract = f.read()
    with daemon() as d, Client(d.socket) as c:
        got = c.call("org.varlink.service.GetInterfaceDescription", interface="org.memctl")
        check_eq(got["description"], contract, "the contract")
        got = c.call("org.varlink.service.GetInterfaceDescription", interface="org.varlink.service")
        check("interface org.varlink.service" in got["description"])


def test_replies_come_in_call_order():
    with daemon() as d, Client(d.socket) as c:
        for i in range(200):
            c.send("ShowVm", {"vm": "none%d" % i})
        for i in range(200):
            try:
                c.receive()
                check(False, "ShowVm of no VM succeeded")
            except Refused as e:
                check_eq((e.name, e.parameters["vm"]), ("NoSuchVm", "none%d" % i))


def test_status_of_an_empty_host():
    with daemon() as d, Client(d.socket) as c:
        status = c.call("Status")["status"]
        check_eq(status["arena"]["size_bytes"], 64 * MIB)
        check_eq(status["vms"]["count"], 0)
        check_eq(status["warnings"], [])
        check_eq(c.call("ListVms")["vms"], [])
        audited(d)


def test_a_lease_is_served():
    need_userfaultfd()
    with daemon() as d:
        with Vm(d.socket, "a", 4 * MIB) as vm:
            l = vm.lease(0, 4 * MIB)
            check_eq(l.page(7), bytes(PAGE), "an untouched page")
            content = random.Random(1).randbytes(PAGE)
            l.write_page(9, content)
            check_eq(l.page(9), content, "a written page")
            check_eq(os.pread(l.fd, PAGE, 9 * PAGE), content, "the same by pread")
            with Client(d.socket) as c:
                shown = c.call("ShowVm", vm="a")["vm"]
                check(shown["resident_bytes"] >= 2 * PAGE, "resident %d" % shown["resident_bytes"])
                check(shown["faults"]["zero"]["count"] >= 1, "no fault in the histogram")
                check_eq(shown["leases"][0]["size_bytes"], 4 * MIB)
                check_eq(shown["pid"], os.getpid())
                runs = c.call("PageMap", vm="a")["runs"]
                check_eq(sum(r["pages"] for r in runs), 4 * MIB // PAGE, "pages of the map")
                check("resident" in [r["state"] for r in runs])
            audited(d)


def test_page_map_in_parts():
    need_userfaultfd()
    with daemon(args=["--set", "fault_around=1"]) as d, Vm(d.socket, "a", 1 * MIB) as vm, Client(d.socket) as c:
        l = vm.lease(16 * MIB, 1 * MIB)
        for i in range(0, 256, 4):
            l.write_page(i, b"\1" * PAGE)
        whole = c.call("PageMap", vm="a")
        check_eq(whole["next"], 0)
        parts, gpa = [], 0
        while True:
            reply = c.call("PageMap", vm="a", gpa=gpa, max_runs=5)
            check(len(reply["runs"]) <= 5)
            parts += reply["runs"]
            gpa = reply["next"]
            if not gpa:
                break
        check_eq(parts, whole["runs"], "the map in parts")
        one = c.call("PageMap", vm="a", gpa=16 * MIB + 4 * PAGE, length=PAGE)["runs"]
        check_eq([(r["gpa"], r["pages"], r["state"]) for r in one], [(16 * MIB + 4 * PAGE, 1, "resident")])


def test_jobs():
    need_userfaultfd()
    with daemon() as d, Vm(d.socket, "a", 4 * MIB, reservation=1 * MIB) as vm:
        l = vm.lease(0, 4 * MIB)
        call = vm.calls.call
        where = {"lease": l.number, "offset": 0, "length": 64 * PAGE}
        check_eq(call("Populate", **where)["pages"], 64, "populated")
        call("Pin", **where)
        try:
            call("Pin", lease=l.number, offset=0, length=4 * MIB)
            check(False, "pinned more than the reservation")
        except Refused as e:
            check_eq(e.name, "NotEnoughMemory")
        call("Unpin", **where)
        call("Advise", advice="dont_need", **where)
        call("Advise", advice="will_need", **where)
        l.write_page(3, b"x" * PAGE)
        call("Discard", **where)
        check_eq(l.page(3), bytes(PAGE), "a discarded page")
        audited(d)
        call("Release", lease=l.number)
        with Client(d.socket) as c:
            check_eq(c.call("ShowVm", vm="a")["vm"]["leases"], [])
        audited(d)


def test_overcommit_keeps_every_byte():
    need_userfaultfd()
    rng = random.Random(7)
    with daemon(arena=24 * MIB) as d, Vm(d.socket, "a", 48 * MIB) as vm:
        l = vm.lease(0, 48 * MIB)
        seeds = [rng.randbytes(16) for _ in range(48 * MIB // PAGE)]
        for i, s in enumerate(seeds):
            # a quarter cannot be compressed
            l.write_page(i, rng.randbytes(PAGE - 16) + s if i % 4 == 0 else s * (PAGE // 16))
        wrong = sum(l.page(i)[-16:] != s for i, s in enumerate(seeds))
        check_eq(wrong, 0, "wrong pages")
        with Client(d.socket) as c:
            v = c.call("ShowVm", vm="a")["vm"]
            check(v["compressed_bytes"] + v["swapped_bytes"] >= 24 * MIB, "nothing was evicted: %s" % v)
        audited(d)
    # the arena and the daemon end with nothing left


test_overcommit_keeps_every_byte.seconds = 240


def test_orders_and_their_answers():
    need_userfaultfd()
    with daemon(arena=24 * MIB) as d, Vm(d.socket, "a", 48 * MIB) as vm:
        orders = vm.attend()
        l = vm.lease(0, 48 * MIB)
        kinds = set()
        orders.socket.settimeout(0.01)
        for i in range(48 * MIB // PAGE):
            l.write_page(i, b"%8d" % i * 512)
            try:
                order = orders.receive()
            except TimeoutError:
                continue
            except BlockingIOError:
                continue
            finally:
                orders.socket.settimeout(0.0001)
            kinds.add(order["kind"])
            pages = sum(run[1] for run in order["runs"])
            answer = "00" * ((pages + 7) // 8) if order["kind"] == "present" else ""
            vm.calls.send("Done", {"order": order["order"], "bits": answer}, oneway=True)
        with Client(d.socket) as c:
            numbers = c.call("ShowVm", vm="a")["vm"]["orders"]
        check("present" in kinds, "no order came: %s" % numbers)
        check(numbers["answered"] > 0, "no answer was taken: %s" % numbers)
        check_eq(vm.calls.call("org.varlink.service.GetInfo")["product"], "memctld", "the calls connection")
        audited(d)


test_orders_and_their_answers.seconds = 240


def test_a_mute_library_is_not_waited_for():
    need_userfaultfd()
    with daemon(arena=24 * MIB) as d, Vm(d.socket, "a", 48 * MIB) as vm:
        vm.attend()
        l = vm.lease(0, 48 * MIB)
        for i in range(48 * MIB // PAGE):
            l.write_page(i, b"%8d" % i * 512)
        with Client(d.socket) as c:
            v = c.call("ShowVm", vm="a")["vm"]
        check(v["attending"], "disconnected for not answering")
        check(v["evicted_pages"] > 0, "nothing was evicted")
        check(v["orders"]["timed_out"] <= 3, "waited again and again: %s" % v["orders"])
        audited(d)


test_a_mute_library_is_not_waited_for.seconds = 240


def test_settings():
    with daemon() as d, Client(d.socket) as c:
        settings = {s["name"]: s for s in c.call("ShowConfig")["settings"]}
        check_eq(settings["arena"]["value"], str(64 * MIB))
        check_eq(settings["zstd_level"]["live"], True)
        c.call("Tune", setting="zstd_level", value="3")
        c.call("Tune", setting="victim", value="random")
        settings = {s["name"]: s for s in c.call("ShowConfig")["settings"]}
        check_eq((settings["zstd_level"]["value"], settings["victim"]["value"]), ("3", "random"))
        for setting, value in (("zstd_level", "99"), ("victim", "best"), ("arena", "1G"), ("none", "1")):
            try:
                c.call("Tune", setting=setting, value=value)
                check(False, "%s = %s was taken" % (setting, value))
            except Refused as e:
                check_eq(e.name, "InvalidValue")


def test_catalogue_names_every_number():
    with daemon() as d, Client(d.socket) as c:
        numbers = {(n["of"], n["name"]): n for n in c.call("Catalogue")["numbers"]}
        sums = c.call("Status")["status"]["vms"]
        for name in sums:
            check(name == "count" or ("vm", name) in numbers, "%s is not in the catalogue" % name)
        check(all(n["sentence"] for n in numbers.values()))


def test_the_name_is_free_when_the_vm_has_gone():
    need_userfaultfd()
    with daemon() as d, Client(d.socket) as c:
        for _ in range(5):
            vm = Vm(d.socket, "a", 4 * MIB)
            l = vm.lease(0, 4 * MIB)
            l.write_page(1, b"y" * PAGE)
            vm.close()
            wait_until(lambda: not c.call("ListVms")["vms"], what="the release of the VM")
        check_eq(c.call("Status")["status"]["arena"]["charged_bytes"], 0, "bytes charged")


def test_an_operator_removes_a_vm():
    need_userfaultfd()
    with daemon() as d, Client(d.socket) as c:
        with Vm(d.socket, "a", 4 * MIB) as vm:
            vm.attend()
            vm.lease(0, 4 * MIB).write_page(1, b"z" * PAGE)
            c.call("RemoveVm", vm="a")
            wait_until(lambda: not c.call("ListVms")["vms"], what="the release of the VM")
        audited(d)


def test_ending_with_a_live_vm():
    need_userfaultfd()
    with daemon() as d:
        with Vm(d.socket, "a", 4 * MIB) as vm:
            l = vm.lease(0, 4 * MIB)
            l.write_page(1, b"z" * PAGE)
            started = time.monotonic()
            d.stop()
            check(time.monotonic() - started < 10, "took long to end")
            check_eq(l.page(1), b"z" * PAGE, "what was resident")


def test_nobody_is_left_behind_by_sigterm():
    need_userfaultfd()
    with daemon() as d:
        with Vm(d.socket, "a", 4 * MIB) as vm:
            vm.lease(0, 4 * MIB)
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "is not there to take its memory" in d.log(), what="why it does not end")
            time.sleep(0.2)
            check(d.alive(), "it ended, and left a VM behind")
            with Client(d.socket) as c:
                check_eq([v["name"] for v in c.call("ListVms")["vms"]], ["a"])
                try:
                    c.call("Stop")
                    check(False, "a second stop")
                except Refused as r:
                    check_eq(r.name, "BadState", "a second stop")
        # its client has gone: nobody is left
        d.process.wait(timeout=20)
        check_eq(d.process.returncode, 0)
        d.process = None


if __name__ == "__main__":
    main(globals())
