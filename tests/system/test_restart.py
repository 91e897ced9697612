#!/usr/bin/env python3
"""memctld dies, is upgraded, stopped, with guests running: nothing of theirs is lost, and whoever cannot go on is told why."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main
from lib.daemon import Failed, wait_until
from system.puppet import Puppet, Refused, arena, daemon, no_vms
from system.sharing import member, passes, pages, sharing_daemon
from torture.actor import SLOW

MORE = 24 * 256		# pages of a VM that does not fit into the arena of 16 MiB


def child(d):
    """The memctld that the supervisor has started."""
    out = subprocess.run(["pgrep", "-P", str(d.pid)], stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    return int(out[0]) if out else 0


def supervised(arena_mib=16, **more):
    d = daemon(arena_mib, **more)
    d.args.append("--supervise")
    return d


def crash(d):
    """Kill it, and wait for the next one."""
    before = child(d)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: child(d) not in (0, before) and d.run_memctl("status").returncode == 0, 20 * SLOW, "the next memctld")


def in_question(d):
    return sum(int(line.split(" pages in question")[0].split()[-1]) for line in d.log().splitlines() if "in question" in line)


def back(d, *names):
    """Wait until the clients have come back."""
    wait_until(lambda: {v["name"] for v in d.memctl("vm", "list")["vms"] if v["state"] == "running"} >= set(names), 20 * SLOW,
               "the clients %s" % (names,))


def kept_states(d):
    """The supervisor's copies of the states, as files that can be written."""
    base = "/proc/%d/fd" % d.pid
    return ["%s/%s" % (base, fd) for fd in sorted(os.listdir(base), key=int)
            if os.readlink("%s/%s" % (base, fd)).startswith("/memfd:memctl-state")]


def test_every_store_is_found_again():
    with supervised(settings=("MemZipMaxPct=20",)) as d, Puppet(d, "a", 40) as p, Puppet(d, "b", 8) as q:
        p.do("fill", 0, 0, MORE, 1, "text")
        p.do("fill", 0, MORE, 2000, 2, "random")
        q.do("fill", 0, 0, 500, 3, "text")
        before = p.numbers()
        for what in ("resident", "compressed", "swapped", "zero"):
            check(before[what + "_bytes"] > 0, "nothing is %s" % what)
        for _ in range(3):
            crash(d)
            p.check(0, MORE, 1, "text")
            p.check(MORE, 2000, 2, "random")
            q.check(0, 500, 3, "text")
            d.audit()
        back(d, "a", "b")
        check_eq([p.numbers()[n] for n in ("size_bytes", "leased_bytes", "pid")], [before[n] for n in ("size_bytes", "leased_bytes", "pid")])


def test_calls_go_on():
    with supervised() as d, Puppet(d, "a", 12, reservation=4) as p:
        p.do("fill", 0, 0, 1000, 1, "text")
        p.do("pin", 0, 0, 100)
        p.do("pin", 0, 50, 100)
        crash(d)
        # at once, while the library may be on its way back
        p.do("discard", 0, 500, 100)
        check_eq(p.numbers()["pinned_bytes"], 150 * 4096, "pinned")
        p.do("unpin", 0, 0, 100)
        check_eq(p.numbers()["pinned_bytes"], 100 * 4096, "pinned")
        crash(d)
        p.do("unpin", 0, 50, 100)
        check_eq(p.numbers()["pinned_bytes"], 0, "pinned")
        p.check(0, 500, 1, "text")
        p.check(600, 400, 1, "text")
        d.audit()
        p.do("release", 0)
        wait_until(lambda: arena(d)["charged_bytes"] < 1 << 20, 10 * SLOW, "the frames of a lease that was released")


def strict_audit(d):
    """Nothing is wrong, and nothing is where no word says so."""
    reply = d.memctl("audit", timeout=60 * SLOW)
    return reply["ok"] and not any(v["foreign"] or v["in_transit"] for v in reply["audit"]["vms"])


def after_an_order_that_was(crash_point, twin=None):
    """memctld dies with an order to share 200 pages or more on its way.  Whether all is right afterwards."""
    d = sharing_daemon(48, twin=twin)
    d.args.append("--supervise")
    d.env["MEMCTLD_CRASH"] = crash_point
    with d, member(d, "a", 16) as p, member(d, "b", 16) as q:
        first = child(d)
        for v in (p, q):
            v.do("fill", 0, 0, 2000, 1, "text")
        try:
            d.memctl("share", "scan")
        except Failed:
            pass # it may have died before it answered
        wait_until(lambda: child(d) not in (0, first), 20 * SLOW, "the death at %s" % crash_point)
        wait_until(lambda: d.run_memctl("status").returncode == 0, 20 * SLOW, "the next memctld")
        check((in_question(d) > 0) == (twin is None), "%s: pages in question: %d" % (crash_point, in_question(d)))
        back(d, "a", "b")
        if not strict_audit(d):
            for v in (p, q):
                v.kill()
            return False
        p.do("fill", 0, 0, 300, 5, "text")
        passes(d)
        p.check(0, 300, 5, "text")
        p.check(300, 1700, 1, "text")
        q.check(0, 2000, 1, "text")
        check(pages(p, "shared") > 1000, "nothing is shared afterwards")
        return strict_audit(d)


def test_what_a_client_was_asked_is_settled_when_it_is_back():
    """At two of the points that tests/crash/run --points goes through one by one."""
    for point in ("share.recorded:200", "order.answered:1"):
        check(after_an_order_that_was(point), "%s: the audit" % point)
    check(not after_an_order_that_was("share.recorded:200", "restart_unasked"), "the twin is not caught")


def test_an_order_waits_for_a_client_that_stands_still():
    d = sharing_daemon(48)
    d.args.append("--supervise")
    with d, member(d, "a", 16) as p, member(d, "b", 16) as q:
        for v in (p, q):
            v.do("fill", 0, 0, 2000, 1, "text")
        os.kill(p.process.pid, signal.SIGSTOP)
        d.memctl("share", "scan")
        wait_until(lambda: any("!" in s for s in p.states(0, 2000)), 20 * SLOW, "an order that waits")
        crash(d)
        check(in_question(d) > 0, "no page is in question")
        q.check(0, 2000, 1, "text")
        check(any("!" in s for s in p.states(0, 2000)), "pages were settled without their client")
        os.kill(p.process.pid, signal.SIGCONT)
        back(d, "a", "b")
        p.check(0, 2000, 1, "text")
        wait_until(lambda: strict_audit(d), 10 * SLOW, "an audit without pages in transit")


def test_sharing_goes_on():
    d = sharing_daemon(48)
    d.args.append("--supervise")
    with d, member(d, "a", 16) as p, member(d, "b", 16) as q:
        for v in (p, q):
            v.do("fill", 0, 0, 2000, 1, "text")
        passes(d)
        check(pages(p, "shared") > 1900 and pages(q, "shared") > 1900, "not shared")
        crash(d)
        back(d, "a", "b")
        check(pages(p, "shared") > 1900 and pages(q, "shared") > 1900, "not shared any more")
        p.do("fill", 0, 0, 1000, 2, "text")
        q.check(0, 2000, 1, "text")
        crash(d)
        p.check(0, 1000, 2, "text")
        p.check(1000, 1000, 1, "text")
        q.kill()
        wait_until(lambda: len(d.memctl("vm", "list")["vms"]) == 1, 20 * SLOW, "the end of b")
        p.check(1000, 1000, 1, "text")
        # what is found is found by its content, too: the index is there again
        with member(d, "c", 16) as r:
            r.do("fill", 0, 1000, 1000, 1, "text")
            passes(d)
            check(pages(r, "shared") > 900, "the pool's pages are not found by their content")
        d.audit()


def test_who_does_not_come_back():
    with supervised() as d:
        with Puppet(d, "a", 8) as p, Puppet(d, "b", 8) as q:
            for v in (p, q):
                v.do("fill", 0, 0, 500, 1, "text")
            before = child(d)
            os.kill(p.process.pid, signal.SIGSTOP)
            os.kill(before, signal.SIGSTOP)
            q.kill()
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: "its process ended while memctld was away" in d.log(), 20 * SLOW, "the end of a VM without a process")
            states = {v["name"]: v["state"] for v in d.memctl("vm", "list")["vms"]}
            check_eq(states.get("a"), "awaited", "a client that stands still")
            d.memctl("tune", "reconnect_grace", "1")
            wait_until(lambda: not d.memctl("vm", "list")["vms"], 20 * SLOW, "the end of the grace time")
            check("did not come back" in d.log(), "no reason is given")
            os.kill(p.process.pid, signal.SIGCONT)
            p.kill()
        no_vms(d)


def test_a_damaged_state_costs_its_own_vm():
    with supervised() as d, Puppet(d, "a", 8) as p, Puppet(d, "b", 8) as q:
        for v in (p, q):
            v.do("fill", 0, 0, 500, 1, "text")
        # the supervisor's copies; a's was kept first
        with open(kept_states(d)[0], "r+b", buffering=0) as f:
            f.seek(8)
            f.write(b"\xff" * 4088)
        crash(d)
        back(d, "b")
        check_eq([v["name"] for v in d.memctl("vm", "list")["vms"]], ["b"])
        check("damaged" in d.log(), "no reason is given")
        q.check(0, 500, 1, "text")
        d.audit()
        p.kill()


def test_a_state_of_another_format_is_left_alone():
    with supervised() as d, Puppet(d, "a", 8) as p:
        p.do("fill", 0, 0, 500, 1, "text")
        before = child(d)

        def set_format(number):
            for path in kept_states(d):
                with open(path, "r+b", buffering=0) as f:
                    f.seek(16)
                    f.write(number.to_bytes(8, "little") + (~number & (1 << 64) - 1).to_bytes(8, "little"))

        set_format(99)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: d.log().count("cannot read") >= 2, 20 * SLOW, "the refusal")
        check(d.run_memctl("status").returncode == 69, "it serves all the same")
        # the version that made it is installed again
        set_format(1)
        wait_until(lambda: d.run_memctl("status").returncode == 0, 30 * SLOW, "the memctld that can read it")
        p.check(0, 500, 1, "text")
        d.audit()


def test_a_vm_leaves_with_its_memory():
    with supervised() as d, Puppet(d, "a", 40) as p, Puppet(d, "b", 8) as q:
        p.do("fill", 0, 0, MORE, 1, "text")
        q.do("fill", 0, 0, 500, 2, "text")
        os.kill(p.process.pid, signal.SIGSTOP)
        r = d.run_memctl("vm", "release", "a")
        check_eq(r.returncode, 4, "release of a VM whose client stands still: %s" % r.stderr)
        os.kill(p.process.pid, signal.SIGCONT)
        p.check(0, MORE, 1, "text")
        check(p.numbers()["evicted_pages"] > 0, "nothing was evicted")
        d.memctl("vm", "release", "a", timeout=120 * SLOW)
        check_eq([v["name"] for v in d.memctl("vm", "list")["vms"] if v["state"] != "ending"], ["b"])
        p.check(0, MORE, 1, "text")
        p.do("fill", 0, 0, MORE, 3, "text")
        p.do("discard", 0, 0, 100)
        p.check(100, MORE - 100, 3, "text")
        q.check(0, 500, 2, "text")
        d.audit()
        check_eq(d.run_memctl("vm", "release", "nobody").returncode, 3)
        p.kill()
        q.check(0, 500, 2, "text")


def test_upgrade_and_stop():
    with supervised() as d, Puppet(d, "a", 24) as p, Puppet(d, "b", 24) as q:
        for seed, v in enumerate((p, q)):
            v.do("fill", 0, 0, 4000, seed, "text")
        before = child(d)
        reply = d.memctl("daemon", "upgrade", timeout=60 * SLOW)
        check(reply["pid"] != before and reply["pid"] == child(d), "another process has not taken over")
        p.check(0, 4000, 0, "text")
        back(d, "a", "b")
        d.audit()
        check_eq(d.memctl("daemon", "stop", timeout=120 * SLOW)["released"], 2)
        check_eq(d.process.wait(timeout=20 * SLOW), 0, "the supervisor's end")
        d.process = None
        for seed, v in enumerate((p, q)):
            v.check(0, 4000, seed, "text")
            v.do("fill", 0, 0, 4000, 7, "text")
            v.check(0, 4000, 7, "text")


def test_a_host_without_memory_for_all():
    with daemon(16, inject="low_host") as d, Puppet(d, "a", 40) as p, Puppet(d, "b", 8) as q:
        p.do("fill", 0, 0, MORE, 1, "text")
        q.do("fill", 0, 0, 300, 2, "text")
        for command in (("vm", "release", "a"), ("daemon", "stop")):
            r = d.run_memctl(*command)
            check_eq(r.returncode, 2, "exit of %s: %s" % (" ".join(command), r.stderr))
            check("VM a needs" in r.stderr and "MiB" in r.stderr, "it does not say who lacks how much: %s" % r.stderr)
            check(d.alive(), "it ended")
        p.check(0, MORE, 1, "text")
        d.audit()
        waiting = subprocess.Popen([os.path.join(d.build, "cli", "memctl"), "daemon", "stop", "--wait"], env=d.environ(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: "stopping, and waiting: VM a needs" in d.log(), 20 * SLOW, "why it waits")
        check(waiting.poll() is None and d.alive(), "it did not wait")
        p.check(0, MORE, 1, "text")
        check_eq(d.run_memctl("daemon", "stop", "--force").returncode, 0)
        d.process.wait(timeout=20 * SLOW)
        d.process = None
        waiting.wait(timeout=20 * SLOW)
        # b needed nothing and has its memory; a was left behind: what is resident is right, the rest waits
        q.check(0, 300, 2, "text")


def test_nobody_to_start_it_again():
    with daemon(16) as d:
        r = d.run_memctl("daemon", "upgrade")
        check(r.returncode == 4 and "--supervise" in r.stderr, "refused: %s" % r.stderr)
        check(d.alive(), "it ended")
        check_eq(d.run_memctl("vm", "list", "--force").returncode, 16)


if __name__ == "__main__":
    main(globals())
