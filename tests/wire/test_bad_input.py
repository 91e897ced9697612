#!/usr/bin/env python3
"""What memctld does with calls that are wrong: the right typed error, no lost byte, no dead daemon.

Every scenario ends with an audit and, where VMs came and went, with an arena without charges."""
import contextlib
import json
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip
from lib.daemon import Daemon, wait_until
from ux.python import PYTHON, environ
from wire.client import PAGE, Client, Closed, NoUserfaultfd, Refused, Vm, userfaultfd

MIB = 1 << 20


def need_userfaultfd():
    try:
        os.close(userfaultfd()[0])
    except NoUserfaultfd as why:
        skip("no userfaultfd: %s" % why)


@contextlib.contextmanager
def daemon(**more):
    """A daemon that is well at the end: alive, audit clean, nothing charged, no VM left."""
    with Daemon(arena=more.pop("arena", 64 * MIB), **more) as d:
        yield d
        check(d.alive(), "memctld has died")
        with Client(d.socket) as c:
            wait_until(lambda: not c.call("ListVms")["vms"], what="the release of the VMs")
            reply = c.call("Audit")
            check(reply["ok"], "audit: %s" % reply["audit"])
            check_eq(c.call("Status")["status"]["arena"]["charged_bytes"], 0, "bytes charged")
            check_eq(c.call("Status")["status"]["arena"]["reserved_bytes"], 0, "bytes reserved")


def refused(error, call, /, *args, **parameters):
    """The call must be refused with that error; its parameters."""
    try:
        call(*args, **parameters)
    except Refused as e:
        check_eq(e.name, error, "error of %s%s (%s)" % (args, parameters, e.parameters.get("message")))
        check(len(e.parameters["message"]) > 10, "the error says nothing: %s" % e.parameters)
        return e.parameters
    raise AssertionError("not refused: %s %s" % (args, parameters))


def refused_bytes(d, data, name="org.varlink.service.InvalidParameter"):
    """These bytes must be answered with that error, and then the connection is closed."""
    with Client(d.socket) as c:
        c.send_bytes(data)
        e = refused(name, c.receive)
        try:
            c.receive()
            check(False, "the connection goes on after %r" % data[:60])
        except Closed:
            pass
        return e


# -- messages


def test_text_that_is_no_message():
    with daemon() as d:
        for text in (b"", b"{", b"nonsense", b"[]", b"17", b"{}", b'"x"', b'{"method":17}', b'{"method":"a","x":1}',
                     b'{"error":"a"}', b'{"method":"org.memctl.Status","parameters":[]}', b'\xff\xfe',
                     b'{"method":"org.memctl.Status","oneway":1}', b'{"method":"a\\u0000b"}',
                     b'{"method":"org.memctl.Status","oneway":true,"more":true}',
                     b'{"parameters":{}}', b'{"method":"org.memctl.Status"} x', b'{"a":' + b'1' * 400 + b'}'):
            refused_bytes(d, text + b"\0")


def test_duplicate_keys():
    with daemon() as d:
        refused_bytes(d, b'{"method":"org.memctl.Status","method":"org.memctl.ListVms"}\0')
        refused_bytes(d, b'{"method":"org.memctl.ShowVm","parameters":{"vm":"a","vm":"b"}}\0')


def test_too_deep():
    with daemon() as d:
        for n in (33, 1000, 50000):
            refused_bytes(d, b'{"method":"org.memctl.Status","parameters":{"a":' + b"[" * n + b"]" * n + b"}}\0")
            refused_bytes(d, b"[" * n + b"\0")
            refused_bytes(d, b'{"a":' * n + b"\0")
        with Client(d.socket) as c:
            # brackets in strings are no depth
            refused("NoSuchVm", c.call, "ShowVm", vm="[" * 200)


def test_oversized():
    with daemon() as d:
        long_name = b'{"method":"org.memctl.ShowVm","parameters":{"vm":"' + b"x" * (256 << 10) + b'"}}\0'
        refused_bytes(d, long_name)
        with Client(d.socket) as c:
            # without an end: it is not collected for ever
            with contextlib.suppress(OSError):
                for _ in range(64):
                    c.send_bytes(b"x" * 65536)
            with contextlib.suppress(Refused, Closed):
                c.receive()
            try:
                c.receive()
                check(False, "memctld goes on reading")
            except Closed:
                pass
        with Client(d.socket) as c:
            # the longest that is allowed
            body = b'{"method":"org.memctl.Status","parameters":{}' + b" " * (256 << 10)
            body = body[:(256 << 10) - 1] + b"}"
            c.send_bytes(body + b"\0")
            check("status" in c.receive())


def test_truncated():
    with daemon() as d:
        message = b'{"method":"org.memctl.Register","parameters":{"name":"a","size":1048576}}\0'
        for n in range(0, len(message), 3):
            with Client(d.socket) as c:
                c.send_bytes(message[:n])
        with Client(d.socket) as c:
            # byte by byte is fine
            for i in range(len(message)):
                c.send_bytes(message[i:i + 1])
            check(c.receive()["swap_size"] > 0)


def test_many_messages_in_one_piece():
    with daemon() as d, Client(d.socket) as c:
        one = json.dumps({"method": "org.memctl.ShowVm", "parameters": {"vm": "x"}}).encode() + b"\0"
        c.send_bytes(one * 1000)
        for _ in range(1000):
            refused("NoSuchVm", c.receive)


def test_unknown_methods_and_interfaces():
    with daemon() as d, Client(d.socket) as c:
        refused("org.varlink.service.MethodNotFound", c.call, "org.memctl.Nothing")
        refused("org.varlink.service.MethodNotFound", c.call, "org.varlink.service.Nothing")
        refused("org.varlink.service.InterfaceNotFound", c.call, "org.example.Nothing")
        refused("org.varlink.service.InterfaceNotFound", c.call, "org.memctl.x.Status")
        refused("org.varlink.service.InterfaceNotFound", c.call, "org.varlink.service.GetInterfaceDescription",
                interface="org.example")
        refused("org.varlink.service.InvalidParameter", c.call, "org.varlink.service.GetInterfaceDescription")
        refused("org.varlink.service.ExpectedMore", c.call, "Attend", token="0")


def test_parameters():
    with daemon() as d, Client(d.socket) as c:
        def invalid(field, method, **parameters):
            e = refused("org.varlink.service.InvalidParameter", c.call, method, **parameters)
            check_eq(e["parameter"], field, "the parameter at fault")

        invalid("name", "Register", size=MIB)
        invalid("size", "Register", name="a")
        invalid("colour", "Register", name="a", size=MIB, colour="red")
        invalid("size", "Register", name="a", size="1M")
        invalid("size", "Register", name="a", size=-4096)
        invalid("size", "Register", name="a", size=4096.0)
        invalid("size", "Register", name="a", size=True)
        invalid("size", "Register", name="a", size=None)
        invalid("name", "Register", name=["a"], size=MIB)
        invalid("name", "Register", name="a" * 256, size=MIB)
        invalid("vm", "ShowVm")
        invalid("x", "Status", x=1)
        # beyond what an integer may be
        refused_bytes(d, b'{"method":"org.memctl.Register","parameters":{"name":"a","size":18446744073709551616}}\0')


def test_more_where_there_is_no_more():
    with daemon() as d, Client(d.socket) as c:
        c.send("Status", more=True)
        refused("org.varlink.service.InvalidParameter", c.receive)


def test_oneway_calls_are_not_answered():
    with daemon() as d, Client(d.socket) as c:
        c.send("ShowVm", {"vm": "x"}, oneway=True)
        c.send("Status", {}, oneway=True)
        check_eq(c.call("org.varlink.service.GetInfo")["product"], "memctld")


# -- descriptors


def test_descriptors_wrong_missing_too_many():
    need_userfaultfd()
    with daemon() as d:
        null = os.open("/dev/null", os.O_RDWR)
        with Vm(d.socket, "a", 4 * MIB) as vm:
            c = vm.calls
            l = vm.lease(0, 1 * MIB, activate=False)
            where = {"lease": l.number, "address": l.address}
            refused("BadDescriptor", c.call, "Activate", **where)
            refused("BadDescriptor", c.call, "Activate", fds=[null], **where)
            refused("BadDescriptor", c.call, "Activate", fds=[l.uffd, null], **where)
            refused("BadDescriptor", c.call, "Activate", fds=[null] * 10, **where)
            refused("BadDescriptor", c.call, "Activate", fds=[null] * 250, **where)
            refused("BadDescriptor", c.call, "Status", fds=[null])
            refused("BadDescriptor", c.call, "org.varlink.service.GetInfo", fds=[null])
            refused("BadDescriptor", c.call, "Lease", fds=[null, null], gpa=MIB, size=MIB)
            l.activate()
            refused("BadState", l.activate)
            check_eq(l.page(3), bytes(PAGE))
            before = len(os.listdir("/proc/%d/fd" % d.pid))
            for _ in range(50):
                refused("BadDescriptor", c.call, "Status", fds=[null] * 4)
                refused("BadDescriptor", c.call, "Status", fds=[null] * 40)
            # they are closed just behind the reply; before, one may still have been on its way
            wait_until(lambda: len(os.listdir("/proc/%d/fd" % d.pid)) <= before, what="the closing of the descriptors")
        os.close(null)


def test_descriptors_without_a_message():
    with daemon() as d, Client(d.socket) as c:
        null = os.open("/dev/null", os.O_RDWR)
        c.call("Status")
        before = len(os.listdir("/proc/%d/fd" % d.pid))
        for _ in range(20):
            with Client(d.socket) as hoarder:
                for _ in range(40):
                    with contextlib.suppress(OSError):
                        hoarder.send_bytes(b" ", [null] * 4)
        wait_until(lambda: len(os.listdir("/proc/%d/fd" % d.pid)) == before, what="the closing of the descriptors")
        os.close(null)


# -- VMs and leases


def test_sizes_of_a_vm():
    with daemon() as d, Client(d.socket) as c:
        e = refused("InvalidSize", c.call, "Register", name="a", size=0)
        check_eq((e["field"], e["have"]), ("size", PAGE))
        e = refused("InvalidSize", c.call, "Register", name="a", size=4097)
        check_eq((e["need"], e["have"]), (4097, PAGE))
        refused("InvalidSize", c.call, "Register", name="a", size=1 << 62)
        refused("InvalidSize", c.call, "Register", name="a", size=(1 << 63) - 1)
        refused("InvalidSize", c.call, "Register", name="a", size=MIB, reservation=100)
        refused("InvalidSize", c.call, "Register", name="a", size=MIB, limit=100)
        e = refused("ReservationBeyondSize", c.call, "Register", name="a", size=MIB, reservation=2 * MIB)
        check_eq((e["need"], e["have"]), (2 * MIB, MIB))
        e = refused("ReservationBeyondSize", c.call, "Register", name="a", size=16 * MIB, reservation=8 * MIB,
                    limit=6 * MIB)
        check_eq((e["need"], e["have"]), (8 * MIB, 6 * MIB))


def test_names_of_a_vm():
    with daemon() as d, Client(d.socket) as c:
        for name in ("", "a b", "a/b", "..", ".a", "-a", "a" * 64, "\u00e4", "a\n", "%s", "a:b"):
            check_eq(refused("InvalidName", c.call, "Register", name=name, size=MIB)["field"], "name")
        refused("InvalidValue", c.call, "Register", name="a", size=MIB, sharing="all")
        refused("InvalidValue", c.call, "Register", name="a", size=MIB, sharing="group:")
        refused("InvalidValue", c.call, "Register", name="a", size=MIB, shares=1 << 40)
        refused("PermissionDenied", c.call, "Register", name="a", size=MIB, sharing="group:web")
        with Vm(d.socket, "A.b_c-9" + "x" * 56, MIB, sharing="zero"):
            pass


def test_two_vms_of_one_name():
    with daemon() as d, Client(d.socket) as c:
        with Vm(d.socket, "a", MIB) as vm:
            check_eq(refused("VmExists", c.call, "Register", name="a", size=MIB)["vm"], "a")
            refused("BadState", vm.calls.call, "Register", name="b", size=MIB)
            # the connection that was refused may try again
            c.call("Register", name="b", size=MIB)
        c.close()


def test_calls_without_a_vm():
    with daemon() as d, Client(d.socket) as c:
        refused("BadState", c.call, "Lease", gpa=0, size=MIB)
        refused("BadState", c.call, "Release", lease=1)
        refused("BadState", c.call, "Done", order=1)
        c.send("Attend", {"token": "1234"}, more=True)
        refused("PermissionDenied", c.receive)
        c.send("Attend", {"token": "xyz"}, more=True)
        refused("org.varlink.service.InvalidParameter", c.receive)
        for method in ("ShowVm", "RemoveVm", "PageMap", "Audit"):
            check_eq(refused("NoSuchVm", c.call, method, vm="nobody")["vm"], "nobody")


def test_sum_of_reservations():
    with daemon(arena=64 * MIB) as d, Client(d.socket) as c:
        with Vm(d.socket, "a", 40 * MIB, reservation=40 * MIB):
            e = refused("NotEnoughMemory", c.call, "Register", name="b", size=40 * MIB, reservation=40 * MIB)
            check(e["need"] >= 40 * MIB and e["have"] < 40 * MIB, "numbers: %s" % e)
        wait_until(lambda: not c.call("ListVms")["vms"])
        with Vm(d.socket, "b", 40 * MIB, reservation=40 * MIB):
            pass


def test_no_swap_space():
    if os.geteuid() != 0:
        skip("needs root, to mount a small tmpfs")
    with tempfile.TemporaryDirectory() as directory:
        small = os.path.join(directory, "swap")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "memctl-test", small], check=False,
                          stderr=subprocess.DEVNULL).returncode:
            skip("cannot mount a tmpfs")
        try:
            with daemon(args=["--swap-dir", small]) as d, Client(d.socket) as c:
                e = refused("NotEnoughSwap", c.call, "Register", name="a", size=32 * MIB)
                check_eq((e["need"], e["dir"]), (32 * MIB, small))
                check(e["have"] <= 8 * MIB, "have %d" % e["have"])
                e = refused("NotEnoughSwap", c.call, "Register", name="a", size=32 * MIB, reservation=16 * MIB)
                check_eq(e["need"], 16 * MIB)
                with Vm(d.socket, "a", 32 * MIB, reservation=28 * MIB):
                    pass
        finally:
            subprocess.run(["umount", "-l", small], check=False)


def test_swap_directories():
    with tempfile.TemporaryDirectory() as other:
        with daemon(args=["--set", "allowed_swap_dirs=/nonexistent:" + other]) as d, Client(d.socket) as c:
            refused("PermissionDenied", c.call, "Register", name="a", size=MIB, swap_dir="/tmp")
            refused("PermissionDenied", c.call, "Register", name="a", size=MIB, swap_dir=other + "/..")
            refused("System", c.call, "Register", name="a", size=MIB, swap_dir="/nonexistent")
            with Vm(d.socket, "a", MIB, swap_dir=other + "/"):
                check_eq(c.call("ShowVm", vm="a")["vm"]["swap_dir"], other + "/")


def test_leases():
    need_userfaultfd()
    with daemon() as d, Vm(d.socket, "a", 4 * MIB) as vm:
        call = vm.calls.call
        refused("InvalidSize", call, "Lease", gpa=0, size=0)
        refused("InvalidSize", call, "Lease", gpa=0, size=100)
        refused("InvalidSize", call, "Lease", gpa=12, size=MIB)
        refused("InvalidSize", call, "Lease", gpa=(1 << 63) - 4096, size=MIB)
        e = refused("LeaseBeyondSize", call, "Lease", gpa=0, size=5 * MIB)
        check_eq((e["need"], e["have"]), (5 * MIB, 4 * MIB))
        l = vm.lease(MIB, 2 * MIB)
        e = refused("Overlap", call, "Lease", gpa=2 * MIB, size=MIB)
        check_eq((e["need"], e["have"]), (2 * MIB, MIB))
        refused("Overlap", call, "Lease", gpa=0, size=MIB + PAGE)
        e = refused("LeaseBeyondSize", call, "Lease", gpa=8 * MIB, size=3 * MIB)
        check_eq((e["need"], e["have"]), (5 * MIB, 4 * MIB))
        for method, more in (("Release", {}), ("Discard", {"offset": 0, "length": PAGE}),
                             ("Advise", {"advice": "will_need", "offset": 0, "length": PAGE})):
            check_eq(refused("NoSuchLease", call, method, lease=77, **more)["lease"], 77)
            refused("NoSuchLease", call, method, lease=(1 << 32) + l.number, **more)
        for method in ("Discard", "Populate", "Pin", "Unpin"):
            refused("InvalidSize", call, method, lease=l.number, offset=1, length=PAGE)
            refused("InvalidSize", call, method, lease=l.number, offset=0, length=0)
            refused("InvalidSize", call, method, lease=l.number, offset=0, length=3 * MIB)
            refused("InvalidSize", call, method, lease=l.number, offset=(1 << 63) - 4096, length=(1 << 63) - 4096)
        refused("InvalidValue", call, "Advise", lease=l.number, advice="maybe", offset=0, length=PAGE)
        refused("NotEnoughMemory", call, "Pin", lease=l.number, offset=0, length=PAGE)
        # not activated
        early = vm.lease(8 * MIB, MIB, activate=False)
        refused("BadState", call, "Populate", lease=early.number, offset=0, length=PAGE)
        refused("InvalidSize", call, "Activate", fds=[early.uffd], lease=early.number, address=early.address + 1)
        call("Release", lease=early.number)
        refused("NoSuchLease", call, "Release", lease=early.number)


def test_limits():
    with daemon(args=["--set", "max_vms=2", "--set", "max_leases_per_vm=3"]) as d:
        with Vm(d.socket, "a", 4 * MIB) as vm, Vm(d.socket, "b", MIB), Client(d.socket) as c:
            e = refused("LimitReached", c.call, "Register", name="c", size=MIB)
            check_eq((e["need"], e["have"]), (3, 2))
            for i in range(3):
                vm.calls.call("Lease", gpa=i * MIB, size=MIB)
            e = refused("LimitReached", vm.calls.call, "Lease", gpa=3 * MIB, size=MIB)
            check_eq((e["need"], e["have"]), (4, 3))


def test_sessions_of_a_user():
    with daemon(args=["--set", "max_sessions_per_user=10"]) as d:
        many = [Client(d.socket) for _ in range(40)]
        fine = limit = closed = 0
        for c in many:
            try:
                c.call("Status")
                fine += 1
            except Refused as e:
                check_eq((e.name, e.parameters["need"], e.parameters["have"]), ("LimitReached", 11, 10), "why not")
                check("may have 10 connections" in e.parameters["message"], e.parameters["message"])
                limit += 1
            except (Closed, OSError):
                closed += 1
            # all stay open
        check_eq((fine, limit > 0, closed > 0), (10, True, True), "served, told, closed")
        for c in many:
            c.close()

        def served():
            with contextlib.suppress(Refused, Closed, OSError), Client(d.socket) as c:
                return c.call("Status")

        wait_until(served, what="room for a session")


def test_connections_of_vms_are_counted_as_vms():
    """A VM that may be there has its two connections, whoever else of its user has all that a user may have."""
    with daemon(args=["--set", "max_sessions_per_user=8"]) as d, contextlib.ExitStack() as stack:
        vms = []
        for i in range(12):
            vm = stack.enter_context(Vm(d.socket, "v%d" % i, MIB))
            vm.attend()
            vms.append(vm)
        others = [stack.enter_context(Client(d.socket)) for _ in range(8)]
        for c in others:
            c.call("Status")
        with Client(d.socket) as c:
            e = refused("LimitReached", c.call, "Status")
        check("max_sessions_per_user" in e["message"], e["message"])
        for i, vm in enumerate(vms):
            vm.lease(0, MIB).memory[0:4] = b"%04d" % i
        # what a VM had is given back with it, and to others
        for vm in vms[:6]:
            vm.close()
        others[0].close()

        def room(n):
            with contextlib.suppress(Refused, Closed, OSError), contextlib.ExitStack() as at_once:
                return all([at_once.enter_context(Client(d.socket)).call("Status") for _ in range(n)])

        wait_until(lambda: room(1), what="room for one connection")
        # memctld hears of an end a moment later, and its own end is asked for by one more
        stack.close()
        wait_until(lambda: room(4), what="room for some")


PROGRAM = """
import sys, memctl
kept, n = [], 0
try:
    for i in range(12):
        m = memctl.Memctl(sys.argv[1])
        kept.append(m)
        m.register("v%d" % i, 1 << 20)
        lease = m.lease(0, 1 << 20)
        lease.view()[0:1] = b"x"
        kept.append(lease)
        n += 1
except memctl.Error as e:
    print(n, e.id, e)
else:
    print(n)
"""


def test_the_last_vm_of_a_user():
    """Two connections each, and one that looks on: the last VM has an error or is served, and does not hang."""
    for twin in (False, True):
        with daemon(args=["--set", "max_sessions_per_user=8"], env={"MEMCTLD_INJECT": "none_apart"} if twin else {}) as d, \
             Client(d.socket) as looks_on:
            looks_on.call("Status")
            p = subprocess.run([PYTHON, "-c", PROGRAM, d.socket], env=environ(d), timeout=30, capture_output=True, text=True, check=False)
            words = p.stdout.split()
            if not twin:
                check_eq((words, p.returncode), (["12"], 0), p.stderr)
                continue
            check_eq(words[:1], ["3"], p.stdout + p.stderr)
            check("LimitReached" in words[1] and "max_sessions_per_user" in p.stdout, p.stdout + p.stderr)


def memory(d, what):
    """VmRSS, or VmHWM (the most it has been), in bytes."""
    with open("/proc/%d/status" % d.pid) as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(what + ":"))


def test_a_slow_reader_waits_for_itself():
    """More replies than may wait for it: they come when it reads, all of them and in order, and nobody else waits."""
    two = b"".join(json.dumps({"method": "org.memctl.ShowVm", "parameters": {"vm": "x%d" % i}}).encode() + b"\0" +
                   json.dumps({"method": "org.memctl.ShowConfig"}).encode() + b"\0" for i in range(1000))
    with daemon(args=["--set", "max_queued_replies=1M"]) as d, Client(d.socket) as slow, Client(d.socket) as c:
        slow.send_bytes(two)
        for _ in range(100):
            check("status" in c.call("Status"), "others are served")
        total = 0
        for i in range(1000):
            check_eq(refused("NoSuchVm", slow.receive)["vm"], "x%d" % i, "whose answer it is")
            reply = slow.receive_bytes()
            check(reply.startswith(b'{"parameters":{"settings"'), "what comes after it: %s" % reply[:60])
            total += len(reply)
        check(total > 4 * MIB, "%d bytes are no flood" % total)
        check("session-dropped" not in d.log(), "somebody was disconnected")


def test_what_was_sent_before_hanging_up_counts():
    """Calls that are not answered anyway, more of them than are taken at once; and answers for who only reads."""
    with daemon() as d, Client(d.socket) as c:
        for n in (1, 63, 64, 65, 500, 3000):
            with Client(d.socket) as gone:
                for _ in range(n - 1):
                    gone.send("ShowVm", {"vm": "nobody"}, oneway=True)
                gone.send("Tune", {"setting": "zstd_level", "value": str(1 + n % 7)}, oneway=True)
            wait_until(lambda n=n: next(s["value"] for s in c.call("ShowConfig")["settings"] if s["name"] == "zstd_level") ==
                       str(1 + n % 7), what="the last of %d calls" % n)
        with Client(d.socket) as half:
            calls = [json.dumps({"method": "org.memctl.ShowVm", "parameters": {"vm": "x%d" % i}}) for i in range(500)]
            half.send_bytes("".join(call + "\0" for call in calls).encode())
            half.socket.shutdown(socket.SHUT_WR)
            time.sleep(0.5)  # all are handed out, and the replies are more than the kernel takes
            for i in range(500):
                check_eq(refused("NoSuchVm", half.receive)["vm"], "x%d" % i, "whose answer it is")
            try:
                half.receive()
                check(False, "the connection goes on")
            except Closed:
                pass


def test_a_flood_of_calls():
    """Somebody else's calls are answered while it goes on, not after it."""
    flooders, each, calls = 60, 500, 20
    one = json.dumps({"method": "org.memctl.Status"}).encode() + b"\0"
    with daemon() as d, contextlib.ExitStack() as all_of_them, Client(d.socket) as c:
        flood = [all_of_them.enter_context(Client(d.socket)) for _ in range(flooders)]
        for f in flood:
            f.call("Status")
        c.call("Status")
        os.kill(d.pid, signal.SIGSTOP)
        for f in flood:
            f.send_bytes(one * each)
        pid = os.fork()
        if pid == 0:
            left = {f.socket: each for f in flood}
            while left:
                for s in select.select(list(left), [], [])[0]:
                    left[s] -= s.recv(1 << 20).count(b"\0")
                    if not left[s]:
                        del left[s]
            os._exit(0)
        os.kill(d.pid, signal.SIGCONT)
        for i in range(calls):
            c.call("Status")
            check_eq(os.waitpid(pid, os.WNOHANG)[0], 0,
                     "a flood of %d calls, over after %d of somebody else" % (flooders * each, i + 1))
        check_eq(os.waitpid(pid, 0)[1], 0, "who reads the answers to the flood")


def test_a_flood_that_reads_nothing():
    one = json.dumps({"method": "org.memctl.ShowConfig"}).encode() + b"\0"
    with daemon() as d, contextlib.ExitStack() as all_of_them, Client(d.socket) as c:
        flood = [all_of_them.enter_context(Client(d.socket)) for _ in range(100)]
        for f in flood:
            f.call("Status")
        before = memory(d, "VmRSS")
        os.kill(d.pid, signal.SIGSTOP)
        for f in flood:
            f.send_bytes(one * 1000)
        os.kill(d.pid, signal.SIGCONT)
        for _ in range(200):
            check("status" in c.call("Status"), "others are served")
        if "asan" not in d.build and "tsan" not in d.build:
            more = memory(d, "VmHWM") - before
            check(more < 100 * 512 << 10, "100 connections that read nothing cost %d bytes" % more)


# -- clients that disappear


def run_to(d, steps):
    """A client that dies after so many steps, in a process of its own; its exit status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        os.closerange(3, 64)
        left = iter(range(steps))

        def step():
            if next(left, None) is None:
                os.kill(os.getpid(), 9)

        step()
        vm = Vm(d.socket, "mortal", 8 * MIB)
        step()
        orders = vm.attend()
        step()
        l = vm.lease(0, 4 * MIB, activate=False)
        step()
        l.activate()
        step()
        for i in range(0, 1024, 3):
            l.write_page(i, os.urandom(PAGE))
        step()
        second = vm.lease(16 * MIB, 4 * MIB)
        second.write_page(5, b"q" * PAGE)
        step()
        for method in ("Populate", "Discard", "Populate"):
            vm.calls.send(method, {"lease": l.number, "offset": 0, "length": 4 * MIB})
        step()
        vm.calls.send("Release", {"lease": l.number})
        step()
        vm.calls.send("Release", {"lease": second.number})
        step()
        orders.close()
        step()
    finally:
        os._exit(0)
    return None


def test_a_client_that_disappears_at_any_step():
    need_userfaultfd()
    with daemon(arena=24 * MIB) as d, Client(d.socket) as c:
        for steps in range(11):
            run_to(d, steps)
            wait_until(lambda: not c.call("ListVms")["vms"], what="the release after step %d" % steps)
            check_eq(c.call("Status")["status"]["arena"]["charged_bytes"], 0, "charged after step %d" % steps)


def test_clients_that_disappear_in_the_middle_of_work():
    need_userfaultfd()
    rng = random.Random(3)
    with daemon(arena=24 * MIB) as d, Client(d.socket) as c:
        for _ in range(12):
            pids = []
            for n in range(2):
                pid = os.fork()
                if pid == 0:
                    try:
                        vm = Vm(d.socket, "vm%d" % n, 32 * MIB)
                        vm.attend()
                        l = vm.lease(0, 32 * MIB)
                        while True:
                            vm.calls.send("Populate", {"lease": l.number, "offset": 0, "length": 32 * MIB})
                            for i in range(8192):
                                l.write_page(i, os.urandom(64) * 64)
                            vm.calls.send("Discard", {"lease": l.number, "offset": 0, "length": 32 * MIB})
                    finally:
                        os._exit(0)
                pids.append(pid)
            time.sleep(rng.uniform(0.05, 0.8))
            c.send("Audit")
            for pid in pids:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            reply = c.receive()
            check(reply["ok"], "audit: %s" % reply["audit"])
            wait_until(lambda: not c.call("ListVms")["vms"], seconds=30, what="the release of the VMs")
            check_eq(c.call("Status")["status"]["arena"]["charged_bytes"], 0, "bytes charged")


test_clients_that_disappear_in_the_middle_of_work.seconds = 180


def test_a_client_that_disappears_behind_a_full_queue():
    need_userfaultfd()
    with daemon(arena=24 * MIB) as d, Client(d.socket) as c:
        for _ in range(3):
            vm = Vm(d.socket, "a", 48 * MIB)
            l = vm.lease(0, 48 * MIB)
            # more than memctld takes from the socket while the first ones are worked on
            with contextlib.suppress(TimeoutError, BlockingIOError):
                vm.calls.socket.settimeout(0.2)
                for _ in range(4000):
                    vm.calls.send("Populate", {"lease": l.number, "offset": 0, "length": 48 * MIB})
            vm.close()
            wait_until(lambda: not c.call("ListVms")["vms"], seconds=30, what="the release of the VM")


test_a_client_that_disappears_behind_a_full_queue.seconds = 120


def test_out_of_descriptors():
    with daemon() as d, Client(d.socket) as c:
        limits = resource.prlimit(d.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(d.pid, resource.RLIMIT_NOFILE, (32, limits[1]))
        many = [Client(d.socket) for _ in range(60)]
        for m in many:
            m.send("Status")
        c.call("Status")
        try:
            c.call("Register", name="a", size=MIB)
        except Refused as e:
            check_eq(e.name, "System")
        for m in many:
            m.close()
        resource.prlimit(d.pid, resource.RLIMIT_NOFILE, limits)
        time.sleep(0.6)
        with Vm(d.socket, "b", MIB):
            pass


def test_either_connection_ends_the_vm():
    with daemon() as d, Client(d.socket) as c:
        with Vm(d.socket, "a", MIB) as vm:
            orders = vm.attend()
            vm.calls.call("org.varlink.service.GetInfo")
            second = Client(d.socket)
            second.send("Attend", {"token": vm.registered["token"]}, more=True)
            refused("BadState", second.receive)
            second.close()
            check_eq(len(c.call("ListVms")["vms"]), 1)
            orders.close()
            wait_until(lambda: not c.call("ListVms")["vms"], what="the release of the VM")
            try:
                vm.calls.call("Lease", gpa=0, size=MIB)
                check(False, "the VM goes on without its orders connection")
            except (Closed, OSError):
                pass


def test_answers_to_orders_that_were_never_given():
    with daemon() as d, Vm(d.socket, "a", MIB) as vm:
        vm.attend()
        for order in (0, 1, 1 << 62):
            vm.calls.send("Done", {"order": order, "bits": "zz", "pages": (1 << 63) - 1}, oneway=True)
        vm.calls.call("Done", order=5)


# -- chance


def test_random_bytes_and_mutations():
    rng = random.Random(11)
    base = [json.dumps(dict(method="org.memctl." + m, parameters=p)).encode() for m, p in (
        ("Register", {"name": "fuzz", "size": MIB, "reservation": 0, "sharing": "vm"}), ("Lease", {"gpa": 0, "size": MIB}),
        ("Discard", {"lease": 1, "offset": 0, "length": PAGE}), ("Done", {"order": 1, "bits": "00", "pages": 1}),
        ("PageMap", {"vm": "fuzz", "gpa": 0}), ("Audit", {}), ("Status", {}), ("ListVms", {}), ("Catalogue", {}))]
    alphabet = b'{}[]",:0123456789truefalsenul\\u0000 \x00\xff-eE.'
    with daemon() as d:
        for _ in range(400):
            c = Client(d.socket)
            with contextlib.suppress(OSError):
                for _ in range(rng.randrange(1, 6)):
                    m = bytearray(rng.choice(base))
                    for _ in range(rng.choice((0, 0, 1, 2, 8))):
                        at = rng.randrange(len(m))
                        how = rng.randrange(3)
                        if how == 0:
                            m[at] = rng.choice(alphabet)
                        elif how == 1:
                            del m[at:at + rng.randrange(1, 9)]
                        else:
                            m[at:at] = rng.choices(alphabet, k=rng.randrange(1, 9))
                        m = m or bytearray(b"x")
                    c.send_bytes(bytes(m) + (b"\0" if rng.random() < 0.9 else b""))
                if rng.random() < 0.5:
                    c.socket.settimeout(0.02)
                    c.socket.recv(65536)
            c.close()
            check(d.alive(), "memctld has died")


def test_access_of_other_users():
    if os.geteuid() != 0:
        skip("needs root, to be another user")
    with daemon(args=["--socket-mode", "0666", "--set", "allow_users=64123"]) as d:
        os.chmod(d.dir, 0o755)

        def as_user(uid, function):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    os.setgroups([])
                    os.setgid(uid)
                    os.setuid(uid)
                    function()
                    status = 0
                except BaseException as e:  # the child's verdict is its status
                    sys.stderr.write("as user %d: %r\n" % (uid, e))
                finally:
                    os._exit(status)
            check_eq(os.waitpid(pid, 0)[1], 0, "what user %d found" % uid)

        def stranger():
            with Client(d.socket) as c:
                refused("PermissionDenied", c.call, "Status")
                refused("PermissionDenied", c.call, "Register", name="x", size=MIB)

        def friend():
            with Client(d.socket) as c:
                refused("PermissionDenied", c.call, "Tune", setting="zstd_level", value="2")
                refused("PermissionDenied", c.call, "RemoveVm", vm="roots")
                with Vm(d.socket, "mine", MIB):
                    c.call("RemoveVm", vm="mine")

        with Vm(d.socket, "roots", MIB):
            as_user(64999, stranger)
            as_user(64123, friend)


if __name__ == "__main__":
    main(globals())
