#!/usr/bin/env python3
"""Who may call what: classes by user and group, the read-only socket, what a reload gives and takes.  Each class with real users."""
import array
import contextlib
import fcntl
import os
import re
import signal
import stat
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE, wait_until  # noqa: E402
from lib.users import as_user  # noqa: E402
from service.configured import MIB, Files, daemon, memctl_as, needs_users  # noqa: E402
from system.puppet import Puppet  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from wire.client import Client, Closed, Refused, Vm  # noqa: E402

READER, LESSEE, OPERATOR, STRANGER = 64001, 64002, 64003, 64004
READ_GROUP, OPERATE_GROUP = 64501, 64503
PERMISSION = 5

with open(os.path.join(TREE, "proto/ops.def"), encoding="utf-8") as _table:
    CLASS = dict(re.findall(r"^OP\((\w+), \w+, (\w+)\)", _table.read(), re.M))
# what may be asked of each, beside a VM of somebody else's
MAY = {"nothing": {"TOKEN", "ORDERS"}, "read": {"READ", "TOKEN", "ORDERS"}, "lease": {"READ", "LEASE", "CLIENT", "TOKEN", "ORDERS"},
       "operate": {"READ", "LEASE", "CLIENT", "TOKEN", "ORDERS", "OWN", "OPERATOR"}, "read-only": {"READ"}}
# what would end the test, where it is allowed
FINAL = {"Stop", "Upgrade", "RemoveVm", "ReleaseVm"}
# fields that a call must have, to come as far as its handler; the VM is there and root's
FIELDS = {"Register": {"name": "new", "size": MIB}, "Resume": {"token": "0" * 16}, "Attend": {"token": "0" * 16},
          "ShowVm": {"vm": "roots"}, "SetVm": {"vm": "roots", "shares": "7"}, "PageIn": {"vm": "roots"}, "Explain": {"vm": "roots"},
          "ReleaseVm": {"vm": "roots"}, "RemoveVm": {"vm": "roots"}, "BalloonAgent": {"vm": "roots", "reachable": False, "size": 0},
          "PageMap": {"vm": "roots"}, "Tune": {"setting": "zstd_level", "value": "1"}}


def answers(path, harmless=False):
    """Method -> "ok", or the error's name; each on a connection of its own.  harmless: what ends a VM or memctld is left out."""
    found = {}
    for method, what in CLASS.items():
        if harmless and method in FINAL:
            continue
        with Client(path) as c:
            try:
                c.send(method, FIELDS.get(method, {}), more=what == "ORDERS")
                c.receive()
                found[method] = "ok"
            except Refused as e:
                found[method] = e.name
    return found


def denied(found):
    return {m for m, error in found.items() if error == "PermissionDenied"}


def expected(what, found):
    """Methods of these answers that this class of caller must be denied."""
    return {m for m in found if CLASS[m] not in MAY[what]}


def classes():
    """As whom -> the class; all that is not named here is a stranger."""
    return {(READER, ()): "read", (STRANGER, (READ_GROUP,)): "read", (LESSEE, ()): "lease", (OPERATOR, ()): "operate",
            (STRANGER, (7, OPERATE_GROUP)): "operate", (STRANGER, ()): "nothing", (0, ()): "operate"}


def named(f):
    f.settings("allow_users = %d" % LESSEE, "read_users = %d, @%d" % (READER, READ_GROUP),
               "operate_users = %d @%d" % (OPERATOR, OPERATE_GROUP))


# their tokens are nobody's: that is refused alike
def differs(what, found):
    return (denied(found) ^ expected(what, found)) - {"Resume", "Attend"}


def wrong_answers(d, harmless=False):
    """Who was denied too little or too much, in words."""
    wrong = []
    with Vm(d.socket, "roots", MIB):
        for (uid, groups), what in classes().items():
            found = as_user(uid, lambda: answers(d.socket, harmless or what == "operate"), groups=groups)
            if differs(what, found):
                wrong.append("user %d in %s: %s" % (uid, groups, ", ".join(sorted(differs(what, found)))))
    return wrong


def test_every_operation_by_every_class():
    needs_users()
    with Files() as f:
        named(f)
        with daemon(f) as d:
            check_eq(wrong_answers(d), [], "who was denied too little or too much")


def test_every_operation_by_every_class_twin():
    """With the rule off the same check finds all of them."""
    needs_users()
    with Files() as f:
        named(f)
        with daemon(f, env={"MEMCTLD_TWIN": "open_access"}) as d:
            wrong = wrong_answers(d, harmless=True)
            check_eq(len(wrong), sum(what != "operate" for what in classes().values()), "what it finds: %s" % wrong)
            check("SetVm" in wrong[0], wrong[0])


def test_memctl_of_each_class():
    needs_users()
    with Files() as f:
        named(f)
        with daemon(f) as d, Vm(d.socket, "roots", MIB):
            def of(uid, *words):
                result = memctl_as(uid, d.socket, *words)
                return result.returncode, result.stderr.strip()

            check_eq(of(READER, "vm", "list")[0], 0, "a reader looks")
            for words, says in ((["vm", "rm", "roots"], "look at numbers only"), (["audit", "roots"], "look at numbers only"),
                                (["tune", "zstd_level", "2"], "operate_users"), (["daemon", "reload"], "operate_users")):
                code, text = of(READER, *words)
                check(code == PERMISSION and says in text, (words, code, text))
            for words, says in ((["vm", "rm", "roots"], "The user of a VM may"), (["audit"], "The user of a VM may"),
                                (["vm", "pmap", "roots"], "The user of a VM may"), (["vm", "set", "roots", "--shares", "1"], "operate_users")):
                code, text = of(LESSEE, *words)
                check(code == PERMISSION and says in text, (words, code, text))
            code, text = of(STRANGER, "status")
            check(code == PERMISSION and "allow_users" in text, text)
            for words in (["vm", "set", "roots", "--shares", "5"], ["tune", "zstd_level", "2"], ["daemon", "reload"], ["audit"],
                          ["vm", "rm", "roots"]):
                check_eq(of(OPERATOR, *words)[0], 0, "an operator does %s" % words)


def test_what_is_ones_own():
    needs_users()

    def own(path):
        with Vm(path, "mine", MIB), Client(path) as c:
            done = [c.call("Audit", vm="mine")["ok"], len(c.call("PageMap", vm="mine")["runs"]), c.call("ShareTop", vm="mine")["pairs"]]
            for method, vm in (("Audit", "roots"), ("PageMap", "roots"), ("RemoveVm", "roots"), ("Audit", ""), ("ShareTop", "")):
                try:
                    c.call(method, vm=vm)
                    done.append("ok")
                except Refused as e:
                    done.append(e.name)
            c.call("RemoveVm", vm="mine")
            return done

    with Files() as f:
        named(f)
        with daemon(f) as d, Vm(d.socket, "roots", MIB):
            check_eq(as_user(LESSEE, lambda: own(d.socket)), [True, 0, []] + ["PermissionDenied"] * 5, "a VM of one's own, and others")
            wait_until(lambda: len(d.memctl("vm", "list")["vms"]) == 1, what="the end of its own")


def test_nobody_named_is_everybody():
    """As long as no list says anything; each of them closes the door to the others."""
    needs_users()
    with Files() as f, daemon(f) as d:
        def may(uid):
            found = as_user(uid, lambda: answers(d.socket, harmless=True))
            return next((w for w in MAY if not differs(w, found)), denied(found))

        with Vm(d.socket, "roots", MIB):
            check_eq(may(STRANGER), "lease", "with no list")
            for line, what in (("allow_users", "lease"), ("read_users", "read"), ("operate_users", "operate")):
                f.settings("%s = %d" % (line, LESSEE))
                d.memctl("daemon", "reload")
                check_eq([may(LESSEE), may(STRANGER), may(0)], [what, "nothing", "operate"], line)
            f.settings("read_users = *", "allow_users = %d" % LESSEE)
            d.memctl("daemon", "reload")
            check_eq([may(STRANGER), may(LESSEE)], ["read", "lease"], "everybody may read")


def test_access_group():
    """It owns the socket, and its members may register VMs."""
    needs_users()
    with Files() as f:
        f.settings("access_group = %d" % OPERATE_GROUP)
        with daemon(f) as d:
            check_eq(os.stat(d.socket).st_gid, OPERATE_GROUP, "group of the socket")
            check_eq([memctl_as(STRANGER, d.socket, "status", groups=g).returncode for g in ((OPERATE_GROUP,), ())], [0, PERMISSION], "who may")
            check_eq(memctl_as(STRANGER, d.socket, "tune", "zstd_level", "2", groups=(OPERATE_GROUP,)).returncode, PERMISSION, "not all")


def test_what_is_taken_away_is_gone_at_once():
    """Also on connections that are there; a VM that runs goes on."""
    needs_users()

    def first(path, go):
        with Client(path) as c, Vm(path, "mine", MIB) as vm:
            done = [c.call("Tune", setting="zstd_level", value="2")["live"]]
            with open(go, encoding="utf-8") as told:      # a pipe: until it is closed
                told.read()
            for method, parameters in (("Tune", {"setting": "zstd_level", "value": "3"}), ("Status", {}), ("Register", {"name": "x", "size": MIB})):
                try:
                    c.call(method, **parameters)
                    done.append("ok")
                except Refused as e:
                    done.append(e.name)
            done.append(vm.calls.call("BalloonStart")["max"] > 0)
            return done

    with Files() as f:
        named(f)
        go = os.path.join(f.dir, "go")
        os.mkfifo(go)
        os.chmod(go, 0o644)
        with daemon(f) as d:
            writer = os.fork()
            if writer == 0:
                with open(go, "w", encoding="utf-8"):
                    wait_until(lambda: any(v["name"] == "mine" for v in d.memctl("vm", "list")["vms"]), what="its VM")
                    f.settings("read_users = %d" % OPERATOR)
                    d.memctl("daemon", "reload")
                os._exit(0)
            done = as_user(OPERATOR, lambda: first(d.socket, go))
            check_eq(os.waitpid(writer, 0)[1], 0, "who takes it away")
            check_eq(done, [True, "PermissionDenied", "ok", "PermissionDenied", True], "before, and after")


def test_the_read_only_socket():
    needs_users()
    with Files() as f:
        named(f)
        with daemon(f) as d:
            ro = os.path.join(d.dir, "ro.sock")
            d.stop()
            d.args += ["--set", "socket_ro=" + ro]
            d.start()
            check_eq(stat.S_IMODE(os.stat(ro).st_mode), 0o666, "its mode")
            with Vm(d.socket, "roots", MIB):
                for uid in (0, OPERATOR, LESSEE, READER, STRANGER):
                    found = as_user(uid, lambda: answers(ro))
                    check_eq(denied(found), expected("read-only", found), "what user %d is denied there" % uid)
            for words, code in ((["status"], 0), (["vm", "list"], 0), (["config", "show"], 0), (["tune", "zstd_level", "2"], PERMISSION),
                                (["daemon", "stop"], PERMISSION), (["daemon", "reload"], PERMISSION), (["audit"], PERMISSION)):
                result = memctl_as(STRANGER, ro, *words)
                check_eq(result.returncode, code, "memctl %s: %s" % (words, result.stderr))
                check(not code or ("read-only socket" in result.stderr and d.socket in result.stderr), result.stderr)
            check_eq(memctl_as(STRANGER, d.socket, "status").returncode, PERMISSION, "the other one is as closed as before")
            with Client(ro) as c:
                check("org.memctl" in c.call("org.varlink.service.GetInfo")["interfaces"], "what it is")
            d.stop()
            check_eq([os.path.exists(p) for p in (ro, d.socket)], [False, False], "both go with memctld")
            d.start()


@contextlib.contextmanager
def both_sockets():
    """A daemon with both, and the path of the one that reads only."""
    needs_users()
    with Files() as f:
        ro = os.path.join(f.dir, "ro.sock")
        f.settings("socket_ro = " + ro)
        with daemon(f) as d:
            yield d, ro


def connected(uid, path):
    """A connection of that user, held by us: whose it is, is asked when it is made."""
    os.seteuid(uid)
    try:
        return Client(path)
    finally:
        os.seteuid(0)


def served(c):
    """How it is answered: True, what the refusal says, or None for a connection that is closed without a word."""
    try:
        return "status" in c.call("Status")
    except Refused as e:
        check_eq((e.name, e.parameters["need"]), ("LimitReached", e.parameters["have"] + 1), "the refusal")
        return e.parameters["message"]
    except (Closed, OSError):
        return None


def test_places_at_the_read_only_socket():
    """16 for a user, and 256 for all; nobody is kept out at the other socket by that."""
    with both_sockets() as (d, ro), contextlib.ExitStack() as held:
        def more(uid, n, path=ro):
            return [served(held.enter_context(connected(uid, path))) for _ in range(n)]

        def told(answer, what):
            check(isinstance(answer, str) and what in answer and "in use" in answer, "%s: %s" % (what, answer))

        check_eq(more(STRANGER, 16), [True] * 16, "16 of a user")
        told(more(STRANGER, 1)[0], "A user may have 16 connections to this socket")
        check_eq(more(STRANGER, 40)[-1], None, "who goes on is not even told")
        check_eq(more(STRANGER, 40, d.socket), [True] * 40, "at the other socket")
        # those that were refused are still there, and count
        for uid in range(65101, 65116):
            answers_got = more(uid, 16)
        check_eq(answers_got[0], True, "of 16 users not all have 16")
        told(answers_got[-1], "serves 256 connections at once")
        check_eq(more(65200, 1), [None], "nor is anybody, when enough have been told")
        check("status" in d.memctl("status"), "the other socket")
        check_eq(more(0, 1, d.socket), [True], "the other socket")
        held.close()
        wait_until(lambda: more(65200, 1) == [True], what="room for a connection")


def test_a_flood_at_the_read_only_socket():
    """Memory stays what it is, whatever is sent and not read; long calls are refused, descriptors not even received."""
    with both_sockets() as (d, ro), contextlib.ExitStack() as held, Client(d.socket) as c:
        def status(name):
            with open("/proc/%d/status" % d.pid, encoding="utf-8") as f:
                return next(int(line.split()[1]) << 10 for line in f if line.startswith(name + ":"))

        def call(length):
            text = b'{"method":"org.memctl.ShowConfig"%s}' % (b" " * (length - 34))
            check_eq(len(text), length)
            return text + b"\0"

        before = status("VmRSS")
        flood = [held.enter_context(connected(uid, ro)) for uid in range(65101, 65105) for _ in range(16)]
        check_eq([served(f) for f in flood], [True] * 64, "as long as they are no flood")
        os.kill(d.pid, signal.SIGSTOP)
        for f in flood:
            f.send_bytes(call(34) * 800 + call(8192) * 4)
        os.kill(d.pid, signal.SIGCONT)
        for _ in range(200):
            check("status" in c.call("Status"), "the other socket meanwhile")
        grown = status("VmHWM") - before
        check("asan" in d.build or "tsan" in d.build or grown < 64 * 320 << 10, "64 connections cost %d bytes" % grown)
        with Client(ro) as one:
            one.send_bytes(call(8192))
            check("settings" in one.receive(), "the longest")
            one.send_bytes(call(8193))
            try:
                one.receive()
                check(False, "a call of 8193 bytes is answered")
            except Refused as e:
                check_eq(e.name, "org.varlink.service.InvalidParameter")
                check("longer than 8 KiB" in e.parameters["message"], str(e))
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            with Client(ro) as one:
                one.call("Status")
                fds = len(os.listdir("/proc/%d/fd" % d.pid))
                one.send_bytes(b" ", [null] * 4)
                one.send_bytes(b" ", [null] * 4)
                # the other socket's answer may come first: this one comes when they have been read
                wait_until(lambda: unread(one.socket) == 0, what="memctld's reading")
                check_eq(len(os.listdir("/proc/%d/fd" % d.pid)), fds, "descriptors of memctld")
                try:
                    one.call("Status", fds=[null])
                    check(False, "a call with a descriptor is answered")
                except Refused as e:
                    check_eq(e.name, "BadDescriptor")
                check("status" in one.call("Status"), "it goes on")
        finally:
            os.close(null)


def unread(s):
    """Bytes that were sent here and not taken by the other side (SIOCOUTQ)."""
    n = array.array("i", [0])
    fcntl.ioctl(s, 0x5411, n)
    return n[0]


def test_the_read_only_socket_twin():
    """With the rule off a stranger changes a setting there."""
    needs_users()
    with Files() as f:
        named(f)
        ro = os.path.join(f.dir, "ro.sock")
        d = daemon(f, env={"MEMCTLD_TWIN": "open_access"})
        d.args += ["--set", "socket_ro=" + ro]
        with d:
            check_eq(memctl_as(STRANGER, ro, "tune", "zstd_level", "2").returncode, 0, "memctl tune")


def test_its_mode_and_place():
    needs_users()
    with Files() as f:
        ro = os.path.join(f.dir, "ro.sock")
        f.settings("socket_ro = " + ro, "socket_ro_mode = 0600")
        with daemon(f) as d:
            check_eq(memctl_as(STRANGER, ro, "status").returncode, PERMISSION, "a mode is a wall")
            check_eq(memctl_as(0, ro, "status").returncode, 0, "and has a door")
            check(d.alive())


def test_a_vm_whose_user_is_named_no_more_goes_on():
    """It comes back after a restart too: its token is enough.  A new one is refused."""
    needs_users()
    with Files() as f:
        f.settings("allow_users = 65534")
        with daemon(f, kind=SupervisedDaemon, more=(10,)) as d, Puppet(d, "a", 8, nobody=True) as a:
            a.do("fill", 0, 0, 64, 1, "mix")
            f.settings("allow_users = 64999")
            d.memctl("daemon", "reload")
            before = d.child()
            os.kill(before, 9)
            wait_until(lambda: d.child() not in (None, before) and d.serves() and
                       [v["state"] for v in d.memctl("vm", "list")["vms"]] == ["running"], 20, "its return")
            a.check(0, 64, 1, "mix")
            a.do("fill", 0, 0, 64, 2, "mix")
            check_eq(memctl_as(65534, d.socket, "status").returncode, PERMISSION, "its user asks")


def test_both_sockets_come_back():
    """After a death of memctld, with a VM that goes on."""
    with Files() as f:
        ro = os.path.join(f.dir, "ro.sock")
        f.settings("socket_ro = " + ro)
        with daemon(f, kind=SupervisedDaemon, more=(10,)) as d, Puppet(d, "a", 8) as a:
            a.do("fill", 0, 0, 64, 1, "mix")
            before = d.child()
            os.kill(before, 9)
            wait_until(lambda: d.child() not in (None, before) and d.serves(), 20, "a restart")
            with Client(ro) as c:
                check_eq([v["name"] for v in c.call("ListVms")["vms"]], ["a"], "VMs, at the read-only one")
            a.check(0, 64, 1, "mix")


if __name__ == "__main__":
    main(globals())
