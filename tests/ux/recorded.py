"""A memctld with a history of nobody's clock: rows from 2030-03-17T17:46:40Z on, a second each, with ten minutes missing."""
import sqlite3
import time

from lib.daemon import wait_until
from system.puppet import MIB, daemon

THEN = 1900000000000	# ms
ROWS = [*range(100), *range(700, 800)]


def AT(second):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(THEN // 1000 + second))


def write(path):
    db = sqlite3.connect(path, timeout=20)
    for i in ROWS:
        ts = THEN + 1000 * i
        db.execute("INSERT INTO host (ts, capacity_bytes, free_bytes, min_free_bytes, goal_free_bytes, reserved_bytes, state, vms,"
                   " memory_bytes, memory_available_bytes, charged_bytes, overcommit_1m_permille) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                   (ts, 32 * MIB, 16 * MIB, 2 * MIB, 3 * MIB, MIB, 2, 2, 1024 * MIB, 512 * MIB, 16 * MIB, 500))
        # 256 pages a second are read, and half of a tenth of it is waited for
        db.execute("INSERT INTO vm (ts, vm, size_bytes, leased_bytes, consumed_bytes, resident_bytes, swapped_bytes, swap_in_pages,"
                   " stall_wall_ns) VALUES (?,?,?,?,?,?,?,?,?)",
                   (ts, "gone", 8 * MIB, 8 * MIB, MIB * (i % 7 if i > 6 else i), MIB, 2 * MIB, 256 * i, 50 * 10**6 * i))
        db.execute("INSERT OR IGNORE INTO rollup VALUES (10000, ?)", (ts // 10000 * 10000,))
    db.commit()
    wait_until(lambda: db.execute("SELECT count(*) FROM rollup WHERE ts BETWEEN ? AND ?", (THEN, THEN + 10**7)).fetchone() == (0,), 20,
               "all to be rolled up")
    db.close()


class recorded:
    """with recorded(directory) as d: the daemon."""

    def __init__(self, directory):
        self.path = directory + "/metrics.db"
        self.d = daemon(32, metrics=self.path, settings=["metrics_keep_1s=1000000"])

    def __enter__(self):
        self.d.__enter__()
        write(self.path)
        return self.d

    def __exit__(self, *why):
        self.d.__exit__(*why)
