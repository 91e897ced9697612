#!/usr/bin/env python3
"""vms.d: what the operator decides for a VM by its name, when it comes, when the file changes, and when memctld restarts."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from service.configured import MIB, Files, daemon, needs_users, settings  # noqa: E402
from system.puppet import Puppet, numbers  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from wire.client import Refused as WireRefused, Vm  # noqa: E402

FIELDS = ("reservation_bytes", "limit_bytes", "shares", "balloon_max", "stall_budget", "sharing", "swap_dir")


def has(d, vm, *fields):
    found = numbers(d, vm)
    return [found[f] for f in fields or FIELDS]


def reload(d):
    return d.memctl("daemon", "reload")["reload"]


def test_a_file_wins_over_what_is_asked():
    with Files() as f:
        swap = os.path.join(f.dir, "swap")
        os.mkdir(swap)
        f.vm("a", "reservation = 25%", "limit = 12M", "shares = high", "balloon_max = 50%", "stall_budget = 2.5%", "sharing = zero",
             "swap_dir = " + swap)
        f.vm("b", "shares = low")
        with daemon(f) as d, Vm(d.socket, "a", 16 * MIB, reservation=8 * MIB, limit=16 * MIB, shares=7, balloon_max="0", stall_budget="none",
                                sharing="vm", swap_dir="/not/allowed") as a, \
                Vm(d.socket, "b", 16 * MIB, reservation=8 * MIB, shares=7, sharing="off") as b, Vm(d.socket, "c", 16 * MIB, shares=7) as c:
            check_eq(has(d, "a"), [4 * MIB, 12 * MIB, 320, str(8 * MIB), "2.5%", "zero", swap], "all of it")
            check_eq([a.registered["sharing"], a.registered["swap_size"]], ["zero", 12 * MIB], "what the client is told")
            check_eq(has(d, "b"), [8 * MIB, 0, 80, "default", "default", "off", d.swap_dir], "one line of it")
            check_eq(has(d, "c", "shares", "decided_by"), [7, ""], "no file")
            check_eq(has(d, "b", "decided_by"), [os.path.join(f.dir, "vms.d/b.conf")], "whose file")
            check_eq([b.registered["sharing"], c.registered["sharing"]], ["off", "vm"], "sharing")
            rows = d.memctl("config", "vms")["vms"]
            check({"vm": "b", "key": "shares", "value": "low", "where": os.path.join(f.dir, "vms.d/b.conf:2"), "named": True} in rows, rows)
            check("vms.d/b.conf" in d.run_memctl("vm", "show", "b").stdout, "vm show")
            check("decided by" not in d.run_memctl("vm", "show", "c").stdout, "vm show without a file")
            check_eq(len(d.run_memctl("config", "vms", "--noheadings").stdout.splitlines()), 8, "rows")


def test_what_a_file_decides_and_nobody_can_have():
    def refused(d, error, words, **asked):
        try:
            Vm(d.socket, **asked).close()
        except WireRefused as e:
            check_eq(e.name, error, "error")
            check(words in e.parameters["message"] and "vms.d/a.conf" in e.parameters["message"], e.parameters["message"])
            return
        raise AssertionError("registered: %s" % asked)

    with Files() as f:
        f.vm("a", "reservation = 48M")
        with daemon(f) as d:
            refused(d, "ReservationBeyondSize", "larger than the size", name="a", size=16 * MIB)
            f.vm("a", "reservation = 100%")
            reload(d)
            refused(d, "NotEnoughMemory", "not promised yet", name="a", size=80 * MIB)
            f.vm("a", "balloon_max = 20M")
            reload(d)
            refused(d, "InvalidValue", "balloon_max is", name="a", size=16 * MIB)
            with Vm(d.socket, "a", 32 * MIB):
                check_eq(has(d, "a", "balloon_max"), [str(20 * MIB)], "one that can have it")


def test_a_reload_applies_what_a_file_says_anew():
    with Files() as f:
        f.vm("a", "reservation = 4M", "shares = low")
        with daemon(f) as d, Puppet(d, "a", 16, reservation=8) as a:
            a.do("fill", 0, 0, 1024, 1, "mix")
            check_eq(has(d, "a", "reservation_bytes", "shares"), [4 * MIB, 80], "as it came")
            d.memctl("vm", "set", "a", "--shares", "5", "--limit", "12M")
            check_eq(reload(d)["vms"], 0, "nothing new is said")
            check_eq(has(d, "a", "shares", "limit_bytes"), [5, 12 * MIB], "what was set on top")
            f.vm("a", "reservation = 6M", "shares = low")
            check_eq(reload(d)["vms"], 1, "one line")
            check_eq(has(d, "a", "reservation_bytes", "shares"), [6 * MIB, 5], "and only that")
            f.vm("a", "reservation = 6M", "shares = high")
            reload(d)
            check_eq(has(d, "a", "shares"), [320], "the other one")
            f.vm("a", "limit = 10M", "stall_budget = 3%", "balloon_max = 0", "sharing = zero", "swap_dir = /elsewhere")
            reload(d)
            check_eq(has(d, "a"), [6 * MIB, 10 * MIB, 320, "0", "3%", "zero", d.swap_dir], "what is not said any more stays")
            check("swap_dir = /elsewhere acts when it registers anew" in d.log(), "the log about swap_dir")
            d.memctl("vm", "set", "a", "--shares", "9")
            f.vm("a", "shares = high")
            reload(d)
            check_eq(has(d, "a", "shares"), [320], "a line that comes back is new")
            f.vm("a", "sharing = vm")
            reload(d)
            check_eq(has(d, "a", "sharing"), ["vm"], "back to what it came with")
            f.remove("vms.d/a.conf")
            check_eq(reload(d)["vms"], 0, "no file any more")
            check_eq(has(d, "a", "shares", "decided_by"), [320, ""], "nor does that change anything")
            a.check(0, 1024, 1, "mix")
            d.audit()


def test_all_vms_or_none():
    """What one gives up another may get; what does not fit changes nothing, no setting either."""
    with Files() as f, daemon(f, arena=64) as d:
        with Puppet(d, "a", 40, reservation=32) as a, Puppet(d, "b", 40, reservation=4) as b:
            for p in (a, b):
                p.do("fill", 0, 0, 512, 1, "mix")
            f.vm("b", "reservation = 30M")
            f.settings("zstd_level = 3")
            result = d.run_memctl("daemon", "reload")
            check_eq(result.returncode, 16, result.stderr)
            check("vms.d/b.conf:2: VM b cannot have that" in result.stderr and "not promised yet" in result.stderr, result.stderr)
            f.vm("a", "reservation = 36M", "shares = 3")
            check_eq(d.run_memctl("daemon", "reload").returncode, 16, "both want more")
            check_eq([has(d, n, "reservation_bytes", "shares") for n in "ab"], [[32 * MIB, 400], [4 * MIB, 400]], "nothing has changed")
            check_eq([settings(d)["zstd_level"]["value"], d.memctl("config", "vms")["vms"]], ["1", []], "of the settings either")
            # what is pinned has to be guaranteed: b cannot have less, so a gets back what it has given up already
            b.do("pin", 0, 0, 1024)
            f.vm("a", "reservation = 4M", "shares = 3")
            f.vm("b", "reservation = 2M")
            result = d.run_memctl("daemon", "reload")
            check(result.returncode == 16 and "vms.d/b.conf:2" in result.stderr and "pinned" in result.stderr, result.stderr)
            check_eq([has(d, n, "reservation_bytes", "shares") for n in "ab"], [[32 * MIB, 400], [4 * MIB, 400]], "as it was")
            b.do("unpin", 0, 0, 1024)
            f.vm("b", "reservation = 30M")
            check_eq(reload(d)["vms"], 2, "VMs")
            check_eq([has(d, n, "reservation_bytes", "shares") for n in "ab"], [[4 * MIB, 3], [30 * MIB, 400]], "both")
            check_eq(settings(d)["zstd_level"]["value"], "3", "a setting")
            for p in (a, b):
                p.check(0, 512, 1, "mix")
            d.audit()


def test_a_restart_applies_what_is_new():
    with Files() as f:
        f.vm("a", "reservation = 4M", "shares = low")
        f.vm("b", "reservation = 4M")
        with daemon(f, kind=SupervisedDaemon, more=(10,)) as d, Puppet(d, "a", 16) as a, Puppet(d, "b", 16) as b:
            def restart():
                before = d.child()
                os.kill(before, 9)
                wait_until(lambda: d.child() not in (None, before) and d.serves() and
                           all(numbers(d, n)["state"] == "running" for n in "ab"), 20, "a restart")

            d.memctl("vm", "set", "a", "--shares", "5")
            restart()
            check_eq(has(d, "a", "reservation_bytes", "shares"), [4 * MIB, 5], "what was set on top")
            f.vm("a", "reservation = 8M", "shares = low")
            f.vm("b", "reservation = 100%", "balloon_max = 17M")
            restart()
            check_eq(has(d, "a", "reservation_bytes", "shares"), [8 * MIB, 5], "what the file says anew")
            check_eq(has(d, "b", "reservation_bytes"), [4 * MIB], "what b cannot have")
            check("the VM goes on as it was" in d.log(), "the log")
            f.vm("b", "reservation = 8M")
            reload(d)
            check_eq(has(d, "b", "reservation_bytes"), [8 * MIB], "what it can have")
            for p in (a, b):
                p.do("fill", 0, 0, 64, 1, "mix")
                p.check(0, 64, 1, "mix")


def test_whose_name_it_is():
    needs_users()
    with Files() as f:
        f.vm("web", "user = 64001 @64500")
        f.vm("db", "user = *")
        with daemon(f) as d:
            def register(uid, name, groups=()):
                pid = os.fork()
                if pid == 0:
                    status = 9
                    try:
                        os.setgroups(list(groups))
                        os.setgid(uid)
                        os.setuid(uid)
                        Vm(d.socket, name, MIB).close()
                        status = 0
                    except WireRefused as e:
                        status = 1 if e.name == "PermissionDenied" and "vms.d/web.conf:2 gives it to 64001 @64500" in \
                            e.parameters["message"] else 8
                    finally:
                        os._exit(status)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                wait_until(lambda: not d.memctl("vm", "list")["vms"], what="the end of the VM")
                return status

            check_eq([register(64001, "web"), register(64002, "web", [64500]), register(0, "web")], [0, 0, 0], "those named, and root")
            check_eq([register(64002, "web"), register(64500, "web2"), register(64002, "db")], [1, 0, 0], "others")
            f.settings("operate_users = 64002", "allow_users = *")
            reload(d)
            check_eq(register(64002, "web"), 0, "who may operate")


if __name__ == "__main__":
    main(globals())
