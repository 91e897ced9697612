#!/usr/bin/env python3
"""memctl history: what the database is told comes back, rolled up; for people and as JSON; and a database that is no good."""
import contextlib
import glob
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import SLOW, Failed, wait_until  # noqa: E402
from system.puppet import MIB, Puppet, daemon  # noqa: E402
from torture.actor import open_to_all  # noqa: E402
from wire.client import Client, Refused  # noqa: E402

STEPS = {1: "", 10: "_10s", 60: "_1m", 3600: "_1h"}
# nobody's clock: rows of that time are the test's
THEN = 1900000000000 // 3600000 * 3600000


def columns(db, table):
    return [row[1] for row in db.execute("PRAGMA table_info(%s)" % table)]


def kinds(db, source):
    return dict(db.execute("SELECT number, kind FROM catalogue WHERE source = ?", (source,)))


def write_samples(path, seconds, values, vm="gone"):
    """Rows of a second from THEN on, as memctld would have written them, with all that has to be rolled up.
    values(i) -> {number: value}; None: memctld was away."""
    db = sqlite3.connect(path, timeout=20)
    for i in range(seconds):
        row = values(i)
        if row is None:
            continue
        ts = THEN + 1000 * i + 137
        db.execute("INSERT INTO vm (ts, vm, %s) VALUES (?, ?, %s)" % (", ".join(row), ", ".join("?" * len(row))),
                   [ts, vm, *row.values()])
        db.execute("INSERT INTO host (ts, free_bytes, state) VALUES (?, ?, ?)", (ts, 1000 + i, i % 3))
        db.execute("INSERT INTO fault_latency VALUES (?, ?, 'swapped', 1023, 1023, 3, 2400, ?)", (ts, vm, '{"767":2,"1023":1}' if i % 2 else
                                                                                                '{"767":3}'))
        db.execute("INSERT OR IGNORE INTO rollup VALUES (10000, ?)", (ts // 10000 * 10000,))
    db.commit()
    db.close()


def rolled_up(rows, step_ms, counters, most):
    """Rows {ts, last_ts, samples, numbers...} of one level from those of the level before; most(g): its highest column there."""
    out = {}
    for r in rows:
        out.setdefault(r["ts"] // step_ms * step_ms, []).append(r)
    result = []
    for ts, part in sorted(out.items()):
        samples = sum(r["samples"] for r in part)
        row = {"ts": ts, "last_ts": max(r["last_ts"] for r in part), "samples": samples}
        for name in part[0]:
            if name in row or name.endswith("_most"):
                continue
            if name in counters:
                row[name] = part[-1][name]
            else:
                row[name] = int(sum(r[name] * r["samples"] for r in part) / samples + 0.5)
                row[name + "_most"] = max(r[most(name)] for r in part)
        result.append(row)
    return result


def wait_rolled_up(path):
    db = sqlite3.connect(path)
    wait_until(lambda: db.execute("SELECT count(*) FROM rollup WHERE ts BETWEEN ? AND ?", (THEN, THEN + 10**8)).fetchone() == (0,), 10,
               "all to be rolled up")
    db.close()


def sample(i):
    """Two hours, of which memctld was away for a quarter; a VM of the same name came anew after it."""
    if 3000 <= i < 3900:
        return None
    return {"charged_bytes": MIB * (i % 97), "resident_bytes": 4096 * (i * i % 1009), "swapped_bytes": 10 * MIB if i >= 3600 else 0,
            "blocked": int(i % 250 == 0), "evicted_pages": 7 * i if i < 3000 else 3 * (i - 3900), "faults_swapped": i // 10,
            "stall_wall_ns": i * 5 * 10**6}


def test_arithmetic_and_answers():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "metrics.db")
        with daemon(32, metrics=path, settings=["metrics_keep_1s=1000000"]) as d:
            write_samples(path, 5400, sample)
            wait_rolled_up(path)
            levels_are_right(path)
            answers_are_the_rows(d, path)
            words(d)
            mistakes(d)


def levels_are_right(path):
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    kind = kinds(db, "vm")
    counters = {n for n, k in kind.items() if k == "counter"}
    check_eq(columns(db, "vm")[2:], [n for n in columns(db, "vm_1h") if n in kind], "numbers of the levels")
    rows = [dict(r, last_ts=r["ts"], samples=1) for r in db.execute("SELECT * FROM vm WHERE vm = 'gone' ORDER BY ts")]
    for r in rows:
        del r["vm"]
    most = lambda name: name  # noqa: E731
    for step in (10, 60, 3600):
        rows = rolled_up(rows, step * 1000, counters, most)
        most = lambda name: name + "_most"  # noqa: E731
        there = [dict(r) for r in db.execute("SELECT * FROM vm%s WHERE vm = 'gone' ORDER BY ts" % STEPS[step])]
        check_eq(len(there), len(rows), "rows of %d s" % step)
        for is_, should in zip(there, rows):
            del is_["vm"]
            check_eq({k: v for k, v in is_.items() if should.get(k) != v}, {}, "of %d s at %d, which should be %s" % (
                step, should["ts"], {k: should.get(k) for k in is_ if should.get(k) != is_[k]}))
    db.close()


def ask(d, vm, step, numbers, first=0, last=5400):
    argument = [vm] if vm else []
    return d.memctl("history", *argument, "--since", iso(first), "--until", iso(last), "--step", step, "-o", "TIME," + numbers)


def iso(second):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(THEN // 1000 + second))


def answers_are_the_rows(d, path):
    db = sqlite3.connect(path)
    for seconds, step in ((1, "1s"), (10, "10s"), (60, "1m"), (3600, "1h")):
        reply = ask(d, "gone", step, "charged_bytes,charged_bytes_most,evicted_pages")
        check_eq(reply["step"], seconds, "step")
        raw = seconds == 1
        rows = db.execute("SELECT ts, %s, %s, charged_bytes, %s, evicted_pages FROM vm%s WHERE vm = 'gone' ORDER BY ts" % (
            "ts" if raw else "last_ts", 1 if raw else "samples", "charged_bytes" if raw else "charged_bytes_most", STEPS[seconds]))
        before = None
        should = []
        for ts, at, samples, charged, most, evicted in rows:
            # a row right before it, or none; a counter that fell began anew
            near = before is not None and ts - before[0] <= (10000 if raw else seconds * 1000)
            grown = None if not near else evicted - before[2] if evicted >= before[2] else evicted
            should.append({"ts_ms": ts, "interval_ms": at - before[1] if near else 0, "samples": samples, "charged_bytes": charged,
                           "charged_bytes_most": most, "evicted_pages": grown})
            before = (ts, at, evicted)
        check_eq(len(reply["rows"]), len(should), "rows of step %s" % step)
        for is_, right in zip(reply["rows"], should):
            check_eq(is_, right, "a row of step %s" % step)
    # the gap: nothing is made up in it, and no rate is over it
    rows = ask(d, "gone", "1m", "evicted_pages", 2900, 4100)["rows"]
    check_eq([(r["ts_ms"] - THEN) // 60000 for r in rows], [48, 49, 65, 66, 67, 68], "minutes around the gap")
    check_eq([r["evicted_pages"] for r in rows][2:4], [None, 3 * 60], "their growth")
    # percentiles of all faults of a minute, not of percentiles
    row = d.memctl("history", "gone", "--since", iso(60), "--until", iso(120), "--step", "1m")["rows"]
    check_eq(row[0]["faults"], {"swapped": {"count": 180, "p50_ns": 767, "p99_ns": 1023, "mean_ns": 800}}, "latencies")
    check_eq(d.run_memctl("history", "gone", "--since", iso(60), "--until", iso(120), "--step", "1m", "--noheadings", "-o",
                          "P50SWAP,P99SWAP,P99COMPR").stdout.split(), ["767", "ns", "1.0", "us", "-"], "latencies")
    # by itself: few lines
    for since, step in ((240, 1), (2400, 10), (5400, 60)):
        reply = d.memctl("history", "gone", "--since", iso(5400 - since), "--until", iso(5400))
        check_eq(reply["step"], step, "step for %d s" % since)
        check(0 < len(reply["rows"]) <= 241, len(reply["rows"]))
    # everything there is, for a program
    row = reply["rows"][-1]
    check({"resident_bytes", "resident_bytes_most", "checksum_errors"} <= set(row) and "checksum_errors_most" not in row, row)
    host = d.memctl("history", "--since", iso(0), "--until", iso(5400), "--step", "1h")
    check_eq(host["rows"][0]["samples"], 3000, "the host's samples")
    db.close()


GOLDEN = """\
TIME                 CHARGED RESIDENT COMPRESSED SWAPPED SZTGT TCHD MCTLSZ FSWAP/s EVICT/s %LAT_M
2030-03-17 18:15:00 65.9 MiB  2.4 MiB        0 B  10 MiB   0 B  0 B    0 B     0.1     3.0    0.5
2030-03-17 18:16:00 30.5 MiB  1.9 MiB        0 B  10 MiB   0 B  0 B    0 B     0.1     3.0    0.5
"""


def words(d):
    os.environ["TZ"] = "UTC"
    time.tzset()
    span = ["--since", iso(4500), "--until", iso(4620), "--step", "1m"]
    table = d.run_memctl("history", "gone", *span)
    check_eq((table.returncode, table.stderr), (0, ""), "exit")
    lines = [" ".join(line.split()) for line in table.stdout.splitlines()]
    check_eq(lines, [" ".join(line.split()) for line in GOLDEN.splitlines()], "for people")
    raw = d.run_memctl("history", "gone", *span, "--raw", "--noheadings", "-o", "TIME,CHARGED,CHARGEDMOST,EVICT/s,blocked_most")
    check_eq(raw.stdout, "%d 69083682 100663296 3.0 1\n%d 31981568 62914560 3.0 0\n" % (THEN + 4500000, THEN + 4560000), "raw")
    host = d.run_memctl("history", *span, "--bytes", "--noheadings", "-o", "TIME,STATE,FREE,free_bytes_most,SAMPLES")
    check_eq([line.split() for line in host.stdout.splitlines()],
             [[str(THEN + 4500000), "soft", "5530", "5559", "60"], [str(THEN + 4560000), "soft", "5590", "5619", "60"]], "of the host")


def mistakes(d):
    for code, said, *line in (
            (3, "No VM of this name", "history", "nobody"),
            (16, "no column \"nothing\"", "history", "gone", "-o", "TIME,nothing"),
            (16, "--step", "history", "gone", "--step", "7s"), (16, "--since", "history", "--since", "yesterday"),
            (16, "--until", "history", "--until", "2026-13-01"), (16, "not before", "history", "--since", "1h", "--until", "2h"),
            (16, "belong", "status", "--since", "1h"), (16, "usage", "history", "a", "b"),
            (16, "Names have", "history", "../x")):
        result = d.run_memctl(*line)
        check(result.returncode == code and said in result.stderr and not result.stdout, "%s: %d %s" % (line, result.returncode, result.stderr))


def test_a_vm_that_runs():
    """Real ticks: a VM has history as soon as it has been looked at, and what it does is in it."""
    with tempfile.TemporaryDirectory() as directory, daemon(32, metrics=os.path.join(directory, "metrics.db")) as d:
        with Puppet(d, "web", 8) as p:
            p.do("fill", 0, 0, 512, 1, "random")
            wait_until(lambda: any(r["resident_bytes"] >= 2 * MIB for r in d.memctl("history", "web")["rows"]), 10, "history of it")
            p.do("fill", 0, 512, 512, 1, "random")
            wait_until(lambda: sum(r["faults_zero"] or 0 for r in d.memctl("history", "web", "--step", "1s")["rows"]) > 0, 10,
                       "its faults")
        reply = d.memctl("history", "--since", "5m")
        check_eq(reply["step"], 1, "step of what is young")
        check(reply["rows"][-1]["capacity_bytes"] == 32 * MIB, reply["rows"][-1])


def test_pages_of_an_answer():
    """An answer in many parts is the same as one."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "metrics.db")
        with daemon(32, metrics=path, settings=["max_queued_replies=64K", "metrics_keep_1s=1000000"]) as d:
            write_samples(path, 400, lambda i: {"evicted_pages": i, "charged_bytes": i})
            reply = d.memctl("history", "gone", "--since", iso(0), "--until", iso(400), "--step", "1s")
            check_eq([r["charged_bytes"] for r in reply["rows"]], list(range(400)), "rows")
            check_eq([r["evicted_pages"] for r in reply["rows"]], [None] + [1] * 399, "growth")
            check_eq(reply["next"], 0, "next")


def test_places_are_for_all():
    """One user asks for four things at once; there is room for others meanwhile."""
    if os.geteuid() != 0:
        skip("needs root, to be two users")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as held, \
            open_to_all(daemon(32, metrics=os.path.join(directory, "metrics.db"))) as d:
        def bunch(uid, n):
            os.seteuid(uid)
            try:
                return [held.enter_context(Client(d.socket)) for _ in range(n)]
            finally:
                os.seteuid(0)

        def answered(c):
            try:
                return "rows" in c.receive()
            except Refused as e:
                check_eq((e.name, "This user asks for history 4 times" in e.parameters["message"]), ("BadState", True), str(e))
                return False

        many, others = bunch(0, 20), bunch(65534, 4)

        def some_are_refused():
            """All ask before any is answered, unless memctld's thread is kept from running."""
            os.kill(d.pid, signal.SIGSTOP)
            for c in many + others:
                c.send("History", {"since": 0})
            os.kill(d.pid, signal.SIGCONT)
            got = [answered(c) for c in many]
            check_eq([answered(c) for c in others], [True] * 4, "others")
            check(sum(got) >= 4, "%d of one user were answered" % sum(got))
            return not all(got)

        wait_until(some_are_refused, what="a refusal")
        check("rows" in many[0].call("History", since=0), "a place that is free again")
def test_the_end_while_many_ask():
    """What was not answered is given back (under a sanitizer a leak is a failure), and nobody waits for it."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "metrics.db")
        with daemon(32, metrics=path, settings=["metrics_keep_1s=1000000"]) as d:
            write_samples(path, 3000, sample)
            clients = [Client(d.socket) for _ in range(30)]
            for c in clients:
                c.send_bytes(json.dumps({"method": "org.memctl.History", "parameters": {
                    "vm": "gone", "since": THEN, "until": THEN + 10**7, "step": 1, "numbers": ""}}).encode() + b"\0")
            begun = time.monotonic()
            d.stop()
            check(time.monotonic() - begun < 10 * SLOW, "the end took %.1f s" % (time.monotonic() - begun))
            for c in clients:
                c.close()


def test_without_history():
    with daemon(32) as d:
        result = d.run_memctl("history")
        check(result.returncode == 4 and "metrics is none" in result.stderr, result)


def test_a_database_that_is_no_good():
    """It is kept, and memctld runs with a new one."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "metrics.db")
        with open(path, "wb") as f:
            f.write(b"SQLite format 3\0" + b"this was a database" * 300)
        with daemon(32, metrics=path) as d:
            wait_until(lambda: d.memctl("history", "--step", "1s")["rows"], 10, "new rows")
            check("is damaged" in d.log(), d.log())
        check_eq(len(glob.glob(path + ".damaged-*Z")), 1, "files kept")
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.commit()
        db.close()
        with daemon(32, metrics=path):
            pass
        check_eq(sqlite3.connect(path + ".newer-v99").execute("SELECT count(*) > 0 FROM host").fetchone(), (1,), "rows that were kept")


def test_the_setting_of_bytes_is_live():
    with tempfile.TemporaryDirectory() as directory, daemon(32, metrics=os.path.join(directory, "metrics.db")) as d:
        d.memctl("tune", "metrics_max_bytes", "64M")
        try:
            d.memctl("tune", "metrics_max_bytes", "1M")
        except Failed as e:
            check_eq(e.result.returncode, 16, "too little")
        else:
            check(False, "it was taken")


if __name__ == "__main__":
    main(globals())
