#!/usr/bin/env python3
"""Events: what memctld tells, what `memctl events` shows of it, over floods and restarts."""
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import SLOW, build_dir, wait_until  # noqa: E402
from system.puppet import Puppet, Refused, daemon  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from wire.client import Client  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
USAGE, NOT_FOUND = 16, 3


def events(d, *args):
    return d.memctl("events", *args)["events"]


def told(d, name, vm=None, seconds=10):
    """The first event of this name, and VM, once it is there."""
    def find():
        return next((e for e in events(d) if e["event"] == name and vm in (None, e["vm"])), None)
    return wait_until(find, seconds, "event %s of %s" % (name, vm or "the host"))


def table(d, *args):
    result = d.run_memctl("events", *args)
    check_eq(result.returncode, 0, result.stderr)
    return result.stdout


class Follower:
    """`memctl events -f --json`, read line by line."""

    def __init__(self, d, *args):
        self.process = subprocess.Popen([MEMCTL, "--socket", d.socket, "--timeout", "1", "events", "-f", "--json", *args],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = b""

    def lines(self):
        self.text += self.process.stdout.read() or b""
        return [json.loads(line) for line in self.text.decode().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, name, times=1):
        return wait_until(lambda: [e for e in self.lines() if e["event"] == name][times - 1:], 15, "event %s" % name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def test_the_course_of_a_vm_is_told():
    """As a line of the log with the id and its fields, as a row, and as an object."""
    with daemon(24, settings=["max_vms=2"]) as d:
        with Puppet(d, "web", 8) as web, Puppet(d, "mail", 8):
            d.memctl("vm", "set", "web", "--shares", "high")
            d.memctl("tune", "zstd_level", "3")
            for name, size, reservation in (("third", 8, 0), ("big", 24, 24)):
                try:
                    Puppet(d, name, size, reservation)
                    check(False, "%s was admitted" % name)
                except Refused:
                    pass
                told(d, "vm-refused", name)
                d.memctl("tune", "max_vms", "3")
            pid = web.process.pid
        told(d, "vm-released", "web")
        registered = told(d, "vm-registered", "web")
        check_eq((registered["level"], registered["session"], registered["count"]), ("info", pid, 1), "of the registration")
        check("[vm-registered vm=web session=%d]" % pid in d.log(), d.log())
        check("high" in told(d, "resources-changed", "web")["text"], "which resource")
        check("zstd_level" in told(d, "setting-changed")["text"], "which setting")
        all_events = events(d)
        check_eq([e["seq"] for e in all_events], sorted({e["seq"] for e in all_events}), "the order")
        check_eq({e["vm"] for e in events(d, "--vm", "web")}, {"web"}, "VMs under --vm")
        check_eq({e["level"] for e in events(d, "--level", "warning")}, {"warning"}, "levels under --level")
        check_eq(events(d, "--since", "0s", "--vm", "nobody"), [], "events of nobody")
        check_eq(len(events(d, "--since", "1h")), len(events(d)), "events of the last hour")
        lines = table(d, "--vm", "web").splitlines()
        check_eq(lines[0].split(), ["TIME", "LEVEL", "EVENT", "VM", "TEXT"], "the heading")
        check(any(line.split()[1:4] == ["info", "vm-registered", "web"] for line in lines), lines)
        check("memctl/1" == d.memctl("events")["schema"], "the schema")


def test_what_only_numbers_see_is_told():
    """The fault path and the workers count; once a second somebody looks."""
    with daemon(48, inject="swap_write:EIO") as d:
        with Puppet(d, "web", 24, limit=10) as web, Puppet(d, "sneak", 8) as sneak:
            sneak.do("fd_write", 0, 0, 64, 1, "mix")
            web.do("fill", 0, 0, 1024, 1, "random")
            web.do("dont_need", 0, 0, 1024)
            web.do("fill", 0, 1024, 2048, 2, "sparse")
            check("writes to its swap file" in told(d, "swap-write-failed", "web")["text"], "the sentence")
            check("64 pages" in told(d, "lease-above-charge", "sneak")["text"], "how many")
    with daemon(32, inject="cache_corrupt", settings=["fault_around=1"]) as d:
        p = Puppet(d, "web", 16, limit=6)
        try:
            p.do("fill", 0, 0, 64, 1, "text")
            p.evict(0, 64, 512, 2048)
            p.tell("check 0 0 1 1 text")
            check_eq(told(d, "checksum-mismatch", "web")["level"], "error", "the level")
            check("1 pages" in told(d, "page-lost", "web")["text"], "how many")
            check("guest page 0 is lost" in told(d, "vm-damaged", "web")["text"], "which")
        finally:
            p.kill()


def test_the_hosts_state_is_told():
    with daemon(24) as d, Puppet(d, "web", 16) as web, Puppet(d, "mail", 16) as mail:
        web.do("fill", 0, 0, web.pages, 1, "mix")
        mail.do("fill", 0, 0, mail.pages, 1, "mix")
        wait_until(lambda: [e for e in events(d) if e["event"] in ("host-state", "host-short") and "of 24 MiB" in e["text"]],
                   10, "the host's state")


def test_wrong_questions():
    with daemon(16) as d:
        for args in (["events", "--level", "loud"], ["events", "--since", "yesterday"], ["status", "-f"], ["vm", "list", "--vm", "a"]):
            result = d.run_memctl(*args)
            check_eq(result.returncode, USAGE, " ".join(args))
            check(result.stderr.startswith("memctl: "), result.stderr)


def flood(d, n):
    """Asks n times for what it cannot have; how many lines of the log that makes."""
    with Client(d.socket) as c:
        for _ in range(n // 100):
            ask = {"method": "org.memctl.Register", "parameters": {"name": "flood", "size": 1 << 30, "reservation": 1 << 30}}
            c.send_bytes((json.dumps(ask).encode() + b"\0") * 100)
            for _ in range(100):
                c.receive_bytes()
    return d.log().count("[vm-refused vm=flood")


def test_a_hostile_client_does_not_fill_the_log():
    with daemon(16) as d:
        lines = flood(d, 2000)
        check(0 < lines <= 32 + 2, "%d lines" % lines)


def test_a_hostile_client_does_not_fill_the_log_twin():
    with daemon(16, twin="events_uncounted") as d:
        check_eq(flood(d, 1000), 1000, "lines with the rule off")


def test_events_survive_a_daemon():
    """In the history: kill -9, and the next one knows; without a history it begins anew."""
    for metrics in (True, False):
        directory = os.path.join(os.environ.get("MEMCTL_TEST_DIR", "/tmp"), "memctl-events-%d-%d" % (os.getpid(), metrics))
        d = daemon(16, directory=directory, metrics=directory + ".db" if metrics else None)
        try:
            with d:
                with Puppet(d, "web", 4):
                    told(d, "vm-registered", "web")
                told(d, "vm-released", "web")
                before = events(d)
                if metrics:
                    wait_until(lambda: history(d) == [e["seq"] for e in before], what="the history")
                d.kill()
                d.start()
                after = events(d)
                if metrics:
                    check_eq(after[:len(before)], before, "events of before")
                    check_eq(after[-1]["event"], "started", "the last")
                    check_eq(len(after), len(before) + 2, "no more than test-switch and started")
                else:
                    check_eq({e["event"] for e in after}, {"test-switch", "started"}, "events without a history")
                check(after[-1]["seq"] > before[-1]["seq"], "numbers ascend")
        finally:
            subprocess.run(["rm", "-rf", directory, *(directory + ".db" + end for end in ("", "-wal", "-shm"))], check=True)


def test_what_is_said_at_the_end_is_kept():
    """Also when guests are left behind: then memctld ends at once."""
    directory = os.path.join(os.environ.get("MEMCTL_TEST_DIR", "/tmp"), "memctl-events-%d-end" % os.getpid())
    d = daemon(16, directory=directory, metrics=directory + ".db")
    try:
        with d, Puppet(d, "web", 4):
            told(d, "vm-registered", "web")
            # it cannot be written at once: that is waited for, a little
            db = sqlite3.connect(d.metrics, timeout=5, check_same_thread=False)
            db.execute("BEGIN IMMEDIATE")
            threading.Timer(0.7, db.rollback).start()
            d.stop()
            check_eq(db.execute("SELECT count(*) FROM event WHERE event = 'left-behind'").fetchone(), (1,), "left behind")
            db.close()
    finally:
        subprocess.run(["rm", "-rf", directory, *(directory + ".db" + end for end in ("", "-wal", "-shm"))], check=True)


def history(d):
    db = sqlite3.connect(d.metrics, timeout=5)
    try:
        return [row[0] for row in db.execute("SELECT nth FROM event ORDER BY ts, nth")]
    finally:
        db.close()


def test_following_outlives_a_restart():
    """-f goes on with the next memctld, and says each event once."""
    with SupervisedDaemon(0, arena=16 << 20, directory=None) as d, Puppet(d, "web", 4):
        with Follower(d) as f:
            f.wait_for("vm-registered")
            os.kill(d.child(), signal.SIGKILL)
            f.wait_for("restarted")
            f.wait_for("client-back")
            with Puppet(d, "mail", 4):
                f.wait_for("vm-registered", 2)
            lines = f.lines()
            check_eq(len({e["seq"] for e in lines}), len(lines), "an event came twice")
            check(all(e["schema"] == "memctl/1" for e in lines), "the schema")
            check_eq(f.process.poll(), None, "it goes on")
        check("[memctld-died]" in d.log() and "[restarted]" in d.log(), d.log())


def test_following_begins_with_the_last():
    with daemon(16) as d:
        for i in range(12):
            d.memctl("tune", "zstd_level", str(i))
        with Follower(d) as f:
            f.wait_for("setting-changed", 10)
            d.memctl("tune", "zstd_level", "1")
            f.wait_for("setting-changed", 11)
            check_eq([e["text"].split()[3] for e in f.lines()], [str(i) for i in range(2, 12)] + ["1"], "values")
        with Follower(d, "--since", "1h") as f:
            f.wait_for("setting-changed", 13)
            check_eq(f.lines()[0]["event"], "test-switch", "the first")


def test_explain_event_needs_no_daemon():
    def memctl(*args):
        return subprocess.run([MEMCTL, "--socket", "/nonexistent/socket", *args], capture_output=True, text=True, check=False)

    result = memctl("explain-event", "page-lost")
    check_eq(result.returncode, 0, result.stderr)
    check(result.stdout.startswith("page-lost (error)\n") and "What to do: " in result.stdout, result.stdout)
    result = memctl("explain-event", "--json")
    all_events = {e["event"]: e for e in json.loads(result.stdout)["events"]}
    check(len(all_events) > 50 and all(e["meaning"] and e["advice"] for e in all_events.values()), "what is known")
    check_eq(json.loads(memctl("explain-event", "page-lost", "--json").stdout)["events"], [all_events["page-lost"]], "one of them")
    check("vm-lost" in memctl("explain-event").stdout, "the list")
    result = memctl("explain-event", "nonsense")
    check_eq(result.returncode, NOT_FOUND, "exit")
    check("memctl explain-event lists them" in result.stderr, result.stderr)


def test_the_daemon_knows_what_it_tells():
    """Every event that a daemon of these tests told is one that can be explained."""
    with daemon(16) as d, Client(d.socket) as c:
        known = {e["event"] for e in json.loads(subprocess.run([MEMCTL, "explain-event", "--json"], capture_output=True, text=True,
                                                              check=True).stdout)["events"]}
        reply = c.call("Events")
        check({e["event"] for e in reply["events"]} <= known, "unknown: %s" % reply)
        check_eq((c.call("Events", after=reply["next"])["events"], reply["more"]), ([], False), "after the last")
        check_eq([e["event"] for e in c.call("Events", last=1)["events"]], ["started"], "the last")


if __name__ == "__main__":
    main(globals())
