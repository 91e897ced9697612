#!/usr/bin/env python3
"""How fast the scan may read, and how many mappings sharing may make: in a running daemon, changed while it runs."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Failed, wait_until  # noqa: E402
from system.puppet import PAGE, Puppet, daemon  # noqa: E402
from system.sharing import OWNER, audit, groups, home, member, pages, passes, scan, shared, sharing_daemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402

MAX_MAP_COUNT = "/proc/sys/vm/max_map_count"


# ---- rates

def tune(d, **settings):
    for name, value in settings.items():
        d.memctl("tune", name, str(value))


def rate(puppets, seconds, counter="scanned_pages"):
    """Pages a second of each, by its own counter."""
    began = time.monotonic()
    before = [p.numbers()[counter] for p in puppets]
    time.sleep(seconds)
    after = [p.numbers()[counter] for p in puppets]
    elapsed = time.monotonic() - began
    return [(y - x) / elapsed for x, y in zip(before, after)]


def about(found, expected, what, off=0.2):
    check(expected * (1 - off) <= found <= expected * (1 + off), "%s: %.0f pages a second, not %d" % (what, found, expected))


def test_share_rate_max():
    """Passes that are asked for go as fast as ShareRateMax lets them: for each VM, from the next tick on."""
    with daemon(128) as d, member(d, "a", 48, sharing="vm") as a, member(d, "b", 48, sharing="zero") as b:
        for p in (a, b):
            p.do("fill", 0, 0, p.pages, 1, "sparse", seconds=120)
        before = [p.numbers()["scanned_pages"] for p in (a, b)]
        check(max(before) < 3 * 1024 * SLOW, "the background reads too fast: %s" % before)
        scan(d)
        for n in (None, 500, 2000):
            if n:
                tune(d, ShareRateMax=n)
            time.sleep(0.3)
            for p, found in zip((a, b), rate((a, b), 3)):
                about(found, n or 1024, "%s at %s" % (p.name, n or "the default"))
        tune(d, ShareRateMax=0)
        time.sleep(0.3)
        check_eq(rate((a, b), 1), [0, 0], "pages a second at 0")
        check("ShareRateMax" in d.run_memctl("share", "scan").stderr, "a pass that cannot be is not refused")
        tune(d, ShareRateMax=1000)
        time.sleep(0.3)
        about(rate((a,), 2)[0], 1000, "after 0")
        for p in (a, b):
            p.check(0, p.pages, 1, "sparse")
        audit(d)


def test_share_scan_time():
    """In the background a pass takes ShareScanTime; 0 of it or of ShareScanGHz: none."""
    with daemon(128) as d, member(d, "a", 64, sharing="vm") as a:
        a.do("fill", 0, 0, a.pages, 1, "sparse", seconds=120)
        for minutes, off in ((1, 0.2), (2, 0.25)):
            tune(d, ShareScanTime=minutes)
            time.sleep(0.3)
            about(rate((a,), 4)[0], a.pages / 60 / minutes, "a pass in %d min" % minutes, off)
        for setting in ("ShareScanTime", "ShareScanGHz"):
            tune(d, **{setting: 0})
            time.sleep(0.3)
            check_eq(rate((a,), 1), [0], "pages a second with %s=0" % setting)
            tune(d, ShareScanTime=1, ShareScanGHz=4)
            time.sleep(0.3)
            about(rate((a,), 3)[0], a.pages / 60, "afterwards", 0.25)
        # asked for: no matter of either
        tune(d, ShareScanTime=0, ShareScanGHz=0, ShareRateMax=3000)
        scan(d)
        time.sleep(0.3)
        about(rate((a,), 2)[0], 3000, "asked for")
        audit(d)


def test_nothing_to_read():
    """Memory that nobody writes to is not read again."""
    with sharing_daemon(64) as d, member(d, "a", 16) as a, member(d, "b", 16) as b:
        for p in (a, b):
            p.do("fill", 0, 0, 1000, 1, "text")
            p.do("fill", 0, 2000, 1000, ord(p.name), "random")
        shared(d, (a, 1000), (b, 1000))
        passes(d)
        before = [p.numbers()["scanned_pages"] for p in (a, b)]
        passes(d)
        after = [p.numbers()["scanned_pages"] for p in (a, b)]
        check(all(y - x < 100 for x, y in zip(before, after)), "read again: %s, %s" % (before, after))
        check_eq([pages(p, "clean") for p in (a, b)], [1000, 1000], "clean pages")


# ---- mappings

LONG, SCATTERED = 600, 300


def layout(p, run=LONG):
    """A run, and pages by themselves, between which each VM has its own."""
    for i in range(SCATTERED):
        p.do("fill", 0, 2 * i, 1, 1, "text", 5000 + i)
        p.do("fill", 0, 2 * i + 1, 1, ord(p.name[0]), "text")
    if run:
        p.do("fill", 0, 1000, run, 1, "text")


def verify(p):
    for i in range(SCATTERED):
        p.check(2 * i, 1, 1, "text", like=[5000 + i])
        p.check(2 * i + 1, 1, ord(p.name[0]), "text")
    p.check(1000, LONG, 1, "text")


def poor(d, name, size, left, **more):
    """A member of the group whose process has so many mappings that sharing may add about `left`."""
    with open(MAX_MAP_COUNT) as f:
        most = int(f.read())
    if most > 300000:
        skip("vm.max_map_count is %d" % most)
    p = Puppet(d, name, None, owner=OWNER, sharing="group:g")
    try:
        p.do("register", name, size << 20, 0, more.get("limit", 0) << 20)
        p.vm = name
        p.do("lease", 0, size << 20)
        p.pages = (size << 20) // PAGE
        p.do("mappings", most // 4 * 3 - left - 120)
        p.do("helper")
        wait_until(lambda: p.numbers()["pool_joined"], 10 * SLOW, "its pool")
        room = p.numbers()["share_mappings_max"]
        check(0 < room < left + 120, "it may add %d mappings" % room)
    except BaseException:
        p.kill()
        raise
    return p


def test_mappings_are_few():
    """Long runs are mapped, what is beyond the budget is left alone, counted, and shared when it is evicted."""
    with sharing_daemon(64) as d, member(d, "rich", 16) as r, member(d, "too", 16) as t:
        for p in (r, t):
            layout(p)
        shared(d, (r, LONG + SCATTERED), (t, LONG + SCATTERED))
        with poor(d, "poor", 16, 60) as p:
            layout(p)
            passes(d)
            n = p.numbers()
            check(n["share_mappings"] <= n["share_mappings_max"], "%d mappings of %d" % (n["share_mappings"], n["share_mappings_max"]))
            check(n["share_budget_pages"] > 0, "nothing was left alone")
            check(n["shared_bytes"] // PAGE < LONG + SCATTERED, "all is shared")
            check(n["share_failed_pages"] == 0, "the client ran out of mappings")
            verify(p)
            audit(d)
            # cold
            p.do("dont_need", 0, 0, 2 * SCATTERED)
            with Puppet(d, "press", 400, lease=56, sharing="off") as c:
                try:
                    wait_until(lambda: c.do("fill", 0, 0, c.pages, 9, "random", seconds=120) is not None and
                               pages(p, "shared_cold") > 0, 30 * SLOW, "cold pages")
                except Failed as e:
                    raise Failed("%s; %s" % (e, p.numbers())) from e
                audit(d)
            g = groups(d)["g"]
            check(g["shared_bytes"] > 2 * (LONG + SCATTERED) * PAGE, "references: %s" % g)
            verify(p)
            audit(d)
            # its writes are its own
            p.do("fill", 0, 0, 100, 8, "random")
            home(d, p)
            p.check(0, 100, 8, "random")
            for q in (r, t):
                verify(q)
            audit(d)


RUNS, RUN = 12, 40	# that come one after the other, when there is hardly a mapping left


def place(n):
    return 1700 + (RUN + 10) * n


def within(p):
    """The numbers of a VM whose mappings are counted, and not too many."""
    n = p.numbers()
    check(n["share_mappings"] <= n["share_mappings_max"], "%d mappings of %d" % (n["share_mappings"], n["share_mappings_max"]))
    return n


def test_long_runs_first():
    """Runs find mappings although lone pages came before them and took what there was.  These are brought home for better ones,
    and nothing goes round afterwards."""
    with sharing_daemon(96) as d, member(d, "rich", 16) as r, member(d, "too", 16) as t:
        for p in (r, t):
            layout(p)
            for n in range(RUNS):
                p.do("fill", 0, place(n), RUN, 1, "text", 6000 + 2 * RUN * n)
        shared(d, (r, LONG + SCATTERED + RUNS * RUN), (t, LONG + SCATTERED + RUNS * RUN))
        with poor(d, "poor", 16, 60) as p:
            layout(p, 0)
            passes(d)
            n = within(p)
            lone = pages(p, "shared")
            check(n["share_mappings_max"] - n["share_mappings"] < 20 and lone < SCATTERED, "lone pages leave %d of %d mappings" % (
                n["share_mappings_max"] - n["share_mappings"], n["share_mappings_max"]))
            check(n["share_budget_pages"] >= SCATTERED - lone, "left alone: %d" % n["share_budget_pages"])
            # a run: at once, and for nothing
            p.do("fill", 0, 1000, LONG, 1, "text")
            passes(d)
            check_eq(p.states(1000, LONG), ["shared"] * LONG, "a run of %d pages after %d lone ones" % (LONG, lone))
            check_eq((within(p)["home_pages"], pages(p, "shared")), (0, LONG + lone), "pages brought home, shared")
            # more runs than that: each takes the place of a lone page
            for n in range(RUNS):
                p.do("fill", 0, place(n), RUN, 1, "text", 6000 + 2 * RUN * n)

            def mapped():
                scan(d)
                return all(p.states(place(n), RUN) == ["shared"] * RUN for n in range(RUNS)) and within(p)

            wait_until(mapped, 30 * SLOW, "all runs")
            passes(d)
            n = within(p)
            check(0 < n["home_pages"] <= 2 * RUNS, "%d pages brought home for %d runs" % (n["home_pages"], RUNS))
            check_eq(pages(p, "shared"), LONG + RUNS * RUN + lone - n["home_pages"], "shared pages")
            verify(p)
            audit(d)
            before = [p.numbers()[c] for c in ("home_pages", "share_pages", "share_mappings", "share_failed_pages")]
            for _ in range(7): # of three passes each
                passes(d)
                within(p)
            check_eq([p.numbers()[c] for c in ("home_pages", "share_pages", "share_mappings", "share_failed_pages")], before,
                     "homes, shares, mappings, failed after 21 passes")
            for n in range(RUNS):
                p.check(place(n), RUN, 1, "text", like=[6000 + 2 * RUN * n])
            # what a write gives back is used again
            p.do("fill", 0, 1000, LONG, 8, "random")
            home(d, p)
            within(p)
            p.check(1000, LONG, 8, "random")
            audit(d)


def test_no_mappings_at_all():
    """A client that may add none shares what is cold."""
    with sharing_daemon(64) as d, member(d, "rich", 16) as r, member(d, "too", 16) as t:
        for p in (r, t):
            p.do("fill", 0, 0, 2000, 1, "text")
        shared(d, (r, 2000), (t, 2000))
        with open(MAX_MAP_COUNT) as f:
            most = int(f.read())
        if most > 300000:
            skip("vm.max_map_count is %d" % most)
        p = Puppet(d, "none", None, owner=OWNER, sharing="group:g")
        with p:
            p.do("register", "none", 8 << 20, 0, 4 << 20)
            p.vm, p.pages = "none", 2048
            p.do("lease", 0, 8 << 20)
            p.do("mappings", most // 4 * 3)
            p.do("helper")
            check_eq(p.numbers()["share_mappings_max"], 0, "mappings that it may add")
            p.do("fill", 0, 0, 2000, 1, "text")
            passes(d)
            n = p.numbers()
            check_eq(n["share_mappings"], 0, "mappings")
            check(n["shared_cold_bytes"] // PAGE > 900, "cold shared pages: %d" % (n["shared_cold_bytes"] // PAGE))
            check_eq(n["shared_bytes"], n["shared_cold_bytes"], "shared: all cold")
            check_eq(n["compressed_bytes"] + n["swapped_bytes"] < 100 * PAGE, True, "stored by itself")
            for q in (r, t, p):
                q.check(0, 2000, 1, "text")
            p.do("touch", 0, 0, 2000, 1, "text", "w")
            p.check(0, 2000, 1, "text")
            audit(d)


for function in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
