"""Daemon, library, CLI and metrics work together at all: a minute's worth of everything."""
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import Daemon, Failed, wait_until  # noqa: E402
from system.puppet import Puppet, daemon, no_vms  # noqa: E402


def test_idle_daemon_is_audited_and_ends():
    with Daemon(arena=32 << 20) as d:
        check_eq(d.memctl("status")["status"]["arena"]["size_bytes"], 32 << 20, "arena")
        check_eq(d.memctl("vm", "list")["vms"], [], "VMs")
        check(d.audit()["ok"], "audit")
        path = d.socket
    check(not os.path.exists(path), "the socket stays behind")


def test_the_example_of_the_manual_runs():
    with Daemon(arena=32 << 20) as d:
        result = subprocess.run([os.path.join(d.build, "libclient", "memctl-example")], env=d.environ(),
                                capture_output=True, text=True, timeout=30, check=False)
        check_eq(result.returncode, 0, "exit status (%s)" % result.stderr)
        check(result.stdout.startswith("1, "), result.stdout)
        no_vms(d)


def test_a_guest_larger_than_the_arena_keeps_its_bytes():
    with daemon(16) as d, Puppet(d, "big", 40) as p:
        pages = 36 << 8
        p.do("fill", 0, 0, pages, 7, "mixed", seconds=120)
        p.check(0, pages, 7, "mixed")
        n = p.numbers()
        check(n["evicted_pages"] > 0 and n["compressed_bytes"] + n["swapped_bytes"] > 0, "nothing was evicted")
        check(d.memctl("status")["status"]["arena"]["peak_bytes"] <= 16 << 20, "the arena is no wall")
        check(d.audit()["ok"], "audit")


test_a_guest_larger_than_the_arena_keeps_its_bytes.seconds = 180


def test_a_guest_that_fits_is_left_alone():
    with daemon(32) as d, Puppet(d, "small", 8) as p:
        p.do("fill", 0, 0, 8 << 8, 7, "random")
        n = p.numbers()
        check_eq((n["compressed_bytes"], n["swapped_bytes"], n["evicted_pages"]), (0, 0, 0), "evicted")


def test_a_killed_client_is_released():
    with daemon(32) as d:
        with Puppet(d, "gone", 16) as p:
            p.do("fill", 0, 0, 1024, 7, "random")
            p.process.send_signal(signal.SIGKILL)
            no_vms(d)
        check(d.audit()["ok"], "audit")


def test_metrics_are_recorded():
    """Wide rows a second, with every number of the catalogue as a column, and the latency of faults."""
    with tempfile.TemporaryDirectory() as top:
        path = os.path.join(top, "metrics.db")
        with Daemon(arena=16 << 20, metrics=path) as d, Puppet(d, "vm", 32) as p:
            p.do("fill", 0, 0, 6000, 3, "random")

            def rows(sql):
                db = sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=10)
                try:
                    return db.execute(sql).fetchall()
                except sqlite3.OperationalError:
                    return []
                finally:
                    db.close()

            wait_until(lambda: len(rows("SELECT ts FROM vm WHERE vm = 'vm' AND evicted_pages > 0")) >= 2, 20,
                       "two rows of the VM")
            columns = {c[1] for c in rows("PRAGMA table_info(vm)")}
            check({"ts", "vm", "resident_bytes", "checksum_errors"} <= columns, "columns: %s" % sorted(columns))
            told = {r[0] for r in rows("SELECT number FROM catalogue WHERE source = 'vm' AND sentence <> ''")}
            check_eq(told, columns - {"ts", "vm"}, "the catalogue of the VM's columns")
            check(rows("SELECT capacity_bytes FROM host ORDER BY ts DESC LIMIT 1") == [(16 << 20,)], "host rows")
            latency = rows("SELECT cause, sum(count), min(p50_ns), max(p99_ns) FROM fault_latency WHERE vm = 'vm'"
                           " GROUP BY cause")
            check(any(c == "zero" and n > 0 and 0 < low <= high for c, n, low, high in latency),
                  "latencies: %s" % latency)
            answer = d.memctl("status")["status"]["host"]
            check(answer["metrics_written"] > 0 and answer["metrics_dropped"] == 0, "rows written")
        newest = sqlite3.connect(path).execute("SELECT max(ts) FROM vm").fetchone()[0]
        check(newest, "no rows after the end")


def test_a_host_too_small_is_refused():
    try:
        with Daemon(arena=1 << 46):
            check(False, "a daemon with an arena of 64 TiB serves")
    except Failed as e:
        check("arena" in str(e).lower() or "memory" in str(e).lower(), "the refusal does not say why: %s" % e)


if __name__ == "__main__":
    main(globals())
