#!/usr/bin/env python3
"""What an operator does to a VM that runs: its resources, with the admission of a new one; pages brought back; settings shown."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import TREE, Failed, wait_until  # noqa: E402
from system.puppet import MIB, PAGE, Puppet, calm, daemon, numbers, runs  # noqa: E402
from system.sharing import home, member, pages, passes, sharing_daemon  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402

FIELDS = ("reservation_bytes", "limit_bytes", "shares", "balloon_max", "stall_budget", "sharing", "swap_size_bytes")


def has(d, vm):
    return {f: numbers(d, vm)[f] for f in FIELDS}


def refused(d, code, *words, says=""):
    """memctl ends with this code, and nothing of the VM has changed."""
    before = {v["name"]: [v[f] for f in FIELDS] for v in d.memctl("vm", "list")["vms"]}
    result = d.run_memctl(*words)
    check_eq(result.returncode, code, "memctl %s: %s" % (" ".join(words), result.stderr))
    check(says in result.stderr, "%r is in %r" % (says, result.stderr))
    check_eq({v["name"]: [v[f] for f in FIELDS] for v in d.memctl("vm", "list")["vms"]}, before, "nothing has changed")


def test_set_and_kept():
    """Everything at once; a memctld that is killed has it still."""
    with SupervisedDaemon(10, arena=64 * MIB) as d, Puppet(d, "a", 16, reservation=8) as a:
        a.do("fill", 0, 0, 1024, 1, "mix")
        check_eq(has(d, "a"), {"reservation_bytes": 8 * MIB, "limit_bytes": 0, "shares": 160, "balloon_max": "default",
                               "stall_budget": "default", "sharing": "vm", "swap_size_bytes": 8 * MIB}, "as registered")
        d.memctl("vm", "set", "a", "--reservation", "25%", "--limit", "12M", "--shares", "high", "--balloon-max", "50%",
                 "--sharing", "zero", "--stall-budget", "2.5%")
        wanted = {"reservation_bytes": 4 * MIB, "limit_bytes": 12 * MIB, "shares": 320, "balloon_max": str(8 * MIB),
                  "stall_budget": "2.5%", "sharing": "zero", "swap_size_bytes": 12 * MIB}
        check_eq(has(d, "a"), wanted, "as set")
        before = d.child()
        os.kill(before, 9)
        wait_until(lambda: d.child() not in (None, before) and d.serves() and numbers(d, "a")["state"] == "running", 20, "a restart")
        check_eq(has(d, "a"), wanted, "after a restart")
        a.check(0, 1024, 1, "mix")
        d.memctl("vm", "set", "a", "--reservation", "none", "--limit", "none", "--shares", "7", "--balloon-max", "default",
                 "--sharing", "vm", "--stall-budget", "none")
        check_eq(has(d, "a"), {"reservation_bytes": 0, "limit_bytes": 0, "shares": 7, "balloon_max": "default",
                               "stall_budget": "none", "sharing": "vm", "swap_size_bytes": 16 * MIB}, "all taken back")
        d.audit()


def test_refusals():
    with daemon(64) as d, Puppet(d, "a", 80, reservation=16, limit=72), Puppet(d, "b", 8, reservation=8):
        refused(d, 2, "vm", "set", "a", "--reservation", "60M", "--shares", "low", says="not promised yet")
        refused(d, 4, "vm", "set", "a", "--reservation", "76M", says="limit")
        refused(d, 4, "vm", "set", "a", "--limit", "8M", says="limit")
        refused(d, 16, "vm", "set", "a", "--limit", "1M", "--reservation", "0", says="at least 4 MiB")
        refused(d, 16, "vm", "set", "a", "--limit", "much", says="limit is a size")
        refused(d, 16, "vm", "set", "a", "--shares", "-1", says="shares is")
        refused(d, 16, "vm", "set", "a", "--balloon-max", "81M", says="balloon_max is")
        refused(d, 16, "vm", "set", "a", "--stall-budget", "101%", says="stall_budget is")
        refused(d, 16, "vm", "set", "a", "--sharing", "group:x", says="register it anew")
        refused(d, 16, "vm", "set", "a", says="nothing to set")
        refused(d, 16, "vm", "show", "a", "--limit", "1M", says="belongs to")
        refused(d, 3, "vm", "set", "nobody", "--limit", "none")
        # its swap file is made now
        d.memctl("vm", "set", "b", "--reservation", "4M")
        check_eq(numbers(d, "b")["swap_size_bytes"], 4 * MIB, "swap file of b")
        # what b no longer has can be promised to a
        d.memctl("vm", "set", "b", "--reservation", "0")
        d.memctl("vm", "set", "a", "--reservation", "24M")


def test_no_room_for_swap():
    """A smaller reservation wants room on the disk; without it nothing changes."""
    with daemon(64) as d:
        os.mkdir(os.path.join(d.dir, "small"))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", d.swap_dir], check=False)
        if mounted.returncode:
            skip("no file system can be mounted")
        try:
            with Puppet(d, "a", 40, reservation=32) as a:
                refused(d, 2, "vm", "set", "a", "--reservation", "8M", says="no room for a swap file")
                d.memctl("vm", "set", "a", "--reservation", "30M")
                check_eq(a.numbers()["swap_size_bytes"], 10 * MIB, "swap file")
            wait_until(lambda: not d.memctl("vm", "list")["vms"], 10, "the end of the VM")
        finally:
            # lazily: the VM's file is closed when the VM is gone, which is a moment after it left the list
            subprocess.run(["umount", "-l", d.swap_dir], check=True)


def test_only_operators():
    if os.geteuid():
        skip("only root can be somebody else")
    with daemon(64, settings=("socket_mode=0666",)) as d:
        os.chmod(d.dir, 0o755)
        with Puppet(d, "a", 8, nobody=True):
            for words in (["vm", "set", "a", "--limit", "none"], ["vm", "page-in", "a"]):
                command = ["setpriv", "--reuid=65534", "--clear-groups", os.path.join(d.build, "cli", "memctl"), "--socket", d.socket]
                result = subprocess.run(command + words, capture_output=True, text=True, check=False)
                check_eq(result.returncode, 5, result.stderr)


def test_limit_and_page_in():
    """A limit takes what is above it; without it all comes back, and nothing that was never there."""
    with daemon(64) as d, Puppet(d, "a", 32) as a:
        a.do("fill", 0, 0, 4096, 1, "mix")
        d.memctl("vm", "set", "a", "--limit", "6M")
        wait_until(lambda: a.numbers()["charged_bytes"] <= 6 * MIB, 20, "the limit")
        check(a.numbers()["reclaim_limit_pages"] > 0, "taken because of its own limit")
        check_eq(a.numbers()["reclaim_host_pages"], 0, "taken because of the host")
        calm(d)
        # at its limit nothing can come
        d.memctl("vm", "page-in", "a")
        check(a.numbers()["page_in_left_bytes"] > 0, "it waits")
        check(d.memctl("vm", "page-in", "a", "--stop")["pages"] > 0, "so many were left")
        check_eq(a.numbers()["page_in_left_bytes"], 0, "it has ended")
        d.memctl("vm", "set", "a", "--limit", "none")
        stored = a.numbers()["compressed_bytes"] + a.numbers()["swapped_bytes"]
        brought = a.numbers()["paged_in_pages"]
        check_eq(d.memctl("vm", "page-in", "a", "--wait")["pages"] * PAGE, stored, "what is to come back")
        n = a.numbers()
        check_eq(n["compressed_bytes"] + n["swapped_bytes"], 0, "what is still stored")
        check_eq((n["paged_in_pages"] - brought) * PAGE, stored, "what came back")
        # beyond what fault-around may have touched
        check_eq(runs(a.states(4096 + 512, 3072)), "zero*3072", "pages that were never there")
        a.check(0, 4096, 1, "mix")
        d.audit()


def names_of(table, kind):
    with open(os.path.join(TREE, "daemon", "policy", table), encoding="utf-8") as f:
        return re.findall(r"^%s\((\w+)," % kind, f.read(), re.M)


def test_explain():
    """Why, in words and in numbers: every one that the plan had, and what was asked of the VM."""
    with daemon(64) as d, Puppet(d, "a", 48) as a, Puppet(d, "b", 48) as b:
        check("Nothing has been asked" in d.run_memctl("explain", "a").stdout, "at first")
        a.do("fill", 0, 0, 10000, 1, "mix")
        b.do("fill", 0, 0, 10000, 2, "mix")
        calm(d)
        e = d.memctl("explain", "a")["explanation"]
        check_eq((e["vm"], e["actions"][0]["cause"]), ("a", "host"), "the host was short")
        check(e["actions"][0]["asked_bytes"] > 0 and e["actions"][0]["given_bytes"] > 0, "it was asked, and gave")
        for table, part in (("plan_host.def", "host"), ("plan_vm.def", "vm")):
            check_eq(sorted(e[part + "_in"]), sorted(names_of(table, "POLICY_IN")), "inputs of %s" % table)
            check_eq(sorted(e[part + "_out"]), sorted(names_of(table, "POLICY_OUT")), "outputs of %s" % table)
        check_eq(e["vm_in"]["size_frames"], 48 * MIB // PAGE, "its size")
        check_eq(e["vm_in"]["limit_frames"], None, "its limit")
        d.memctl("vm", "set", "a", "--limit", "8M")
        wait_until(lambda: d.memctl("explain", "a")["explanation"]["actions"][0]["cause"] == "limit", 10, "its own limit")
        e = d.memctl("explain", "a")["explanation"]
        check_eq(e["vm_in"]["limit_frames"], 8 * MIB // PAGE, "its limit")
        check(e["vm_out"]["target_frames"] <= 8 * MIB // PAGE, "its target")
        check(e["words"] and all(w.endswith(".") for w in e["words"]), e["words"])
        text = d.run_memctl("explain", "a").stdout
        check(text.startswith("The host is ") and "limited to 8.0 MiB" in " ".join(text.split()), text)
        check("near its own limit" in text and "asked of it" in text, text)
        check_eq(d.run_memctl("explain", "nobody").returncode, 3, "nobody")


def test_page_in_keeps_out_of_the_way():
    """It comes at the rate that was asked for, and not while memory is short."""
    with daemon(64) as d, Puppet(d, "a", 48) as a, Puppet(d, "b", 48) as b:
        a.do("fill", 0, 0, 8192, 1, "random")
        b.do("fill", 0, 0, 12000, 2, "random", seconds=120)
        calm(d)
        taken = b.numbers()["evicted_pages"]
        d.memctl("vm", "page-in", "a")
        check(a.numbers()["page_in_left_bytes"] > 0, "there is something to bring back")
        check_eq(b.numbers()["evicted_pages"], taken, "what was taken from the other")
        check(d.memctl("vm", "page-in", "a", "--stop")["pages"] > 0, "so many were left")
        b.do("discard", 0, 0, 12000)
        # a page a second: it is seen on its way
        d.memctl("vm", "page-in", "a", "--rate", "4K")
        first = a.numbers()["paged_in_pages"]
        wait_until(lambda: a.numbers()["paged_in_pages"] > first, 20, "a page")
        check(a.numbers()["paged_in_pages"] < first + 100, "not all of them at once")
        check(a.numbers()["page_in_left_bytes"] > 0, "it goes on")
        d.memctl("vm", "page-in", "a")
        wait_until(lambda: a.numbers()["page_in_left_bytes"] == 0, 30, "the end")
        check_eq(a.numbers()["compressed_bytes"] + a.numbers()["swapped_bytes"], 0, "what is still stored")
        a.check(0, 8192, 1, "random")
        d.audit()


def test_sharing_withheld():
    """What is shared stays so; nothing more is, until it is given back."""
    with sharing_daemon(64) as d, member(d, "a", 16) as a, member(d, "b", 16) as b:
        for p in (a, b):
            p.do("fill", 0, 0, 256, 1, "text")
        passes(d)
        both = pages(a, "shared")
        check(both >= 250, "%d pages are shared" % both)
        d.memctl("vm", "set", "a", "--sharing", "off")
        check_eq(a.numbers()["sharing"], "off", "sharing now")
        check_eq(a.numbers()["sharing_registered"], "group:g", "what it came with")
        check_eq(d.run_memctl("share", "scan", "a").returncode, 4, "a scan of it")
        for p in (a, b):
            p.do("fill", 0, 1024, 256, 2, "text")
        scanned = a.numbers()["scanned_pages"]
        passes(d)
        check_eq(a.numbers()["scanned_pages"], scanned, "pages of it that were read")
        check_eq(pages(a, "shared"), both, "shared by the one that may not")
        # what it writes comes home all the same
        a.do("fill", 0, 0, 64, 3, "text")
        home(d, a)
        d.memctl("vm", "set", "a", "--sharing", "group:g")
        passes(d)
        check(pages(a, "shared") >= 400, "%d pages are shared" % pages(a, "shared"))
        a.check(64, 192, 1, "text")
        a.check(1024, 256, 2, "text")
        a.check(0, 64, 3, "text")
        d.audit()


def test_tune_shows():
    with daemon(64) as d:
        names = [s["name"] for s in d.memctl("tune")["settings"]]
        check({"arena", "MemZipEnable", "CtlMaxPercent", "StallBudget", "ShareScanTime"} <= set(names), "all settings")
        d.memctl("tune", "CtlMaxPercent", "40")
        row, = d.memctl("tune", "CtlMaxPercent")["settings"]
        check_eq((row["value"], row["default"], row["min"], row["max"], row["live"]), ("40", "65", 0, 100, True), "its row")
        check("MIN" in d.run_memctl("tune", "victim").stdout, "a table")
        check_eq(d.run_memctl("tune", "nothing").returncode, 3, "no such setting")
        try:
            d.memctl("tune", "CtlMaxPercent", "101")
        except Failed:
            pass
        else:
            raise AssertionError("a value out of range was taken")


if __name__ == "__main__":
    main(globals())
