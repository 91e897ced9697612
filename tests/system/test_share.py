#!/usr/bin/env python3
"""Sharing: equal pages cost one frame, what is written ends it for one page, and all numbers say so."""
import os
import sqlite3
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Failed, wait_until  # noqa: E402
from system.puppet import PAGE, program, runs  # noqa: E402
from system.sharing import (arena, audit, gone, groups, home, member, pages, passes, shared,  # noqa: E402
                            sharing_daemon)
from torture.actor import SLOW, can_be_nobody, open_to_all  # noqa: E402


def charged(d):
    return arena(d)["charged_bytes"] // PAGE


def common(d):
    """Distinct pages, and guest pages that refer to them, as the host's numbers say."""
    host = d.memctl("status")["status"]["host"]
    check_eq(host["saving_bytes"], host["shared_bytes"] - host["common_bytes"], "saving")
    return host["common_bytes"] // PAGE, host["shared_bytes"] // PAGE


def top(d):
    return {(p["a"], p["b"]): p["pages"] for p in d.memctl("share", "top")["pairs"]}


def test_three_share_what_they_have_in_common():
    """1000 pages that all have, 200 that two have, 300 alone, 100 twice within one."""
    with sharing_daemon(96) as d, member(d, "a", 16) as a, member(d, "b", 16) as b, member(d, "c", 16) as c:
        for p in (a, b, c):
            p.do("fill", 0, 0, 1000, 1, "text")
        for p in (a, b):
            p.do("fill", 0, 1000, 200, 2, "random")
        for n, p in enumerate((a, b, c)):
            p.do("fill", 0, 2000, 300, 10 + n, "text")
        for at in (3000, 3200):
            c.do("fill", 0, at, 100, 20, "sparse", 0)
        before = charged(d)
        check(before >= 3 * 1300 + 2 * 200 + 200, "%d frames before" % before)
        shared(d, (a, 1200), (b, 1200), (c, 1200))
        wait_until(lambda: pages(a, "saved"), 5 * SLOW, "the sums")
        # what is left: the pages of one each, one frame for each that is common, maps
        entries = 1000 + 200 + 100
        left = 3 * 300 + entries
        check(left <= charged(d) <= left + 60, "%d frames charged, %d pages are distinct" % (charged(d), left))
        check_eq(common(d), (entries, 3600), "distinct and shared pages of the host")
        g = groups(d)["g"]
        check_eq(sorted(g["members"]), ["a", "b", "c"], "members")
        check_eq((g["common_bytes"], g["shared_bytes"], g["saving_bytes"]),
                 tuple(PAGE * n for n in (entries, 3600, 3600 - entries)), "share groups")
        check_eq(g["resident_bytes"], entries * PAGE, "frames of the pool")
        check_eq(top(d), {("a", "b"): 1200, ("a", "c"): 1000, ("b", "c"): 1000, ("c", "c"): 100}, "share top")
        # 1/n of each page that is shared n ways; the sums are fresh within a second or two
        third = 1000 / 3
        for p, part in ((a, third + 100), (b, third + 100), (c, third + 100)):
            wait_until(lambda: abs(p.numbers()["shared_charge_bytes"] / PAGE - part) < 8, 10 * SLOW,
                       "%s charged for %d pages of the pool, not %d" % (p.name, part, pages(p, "shared_charge")))
            n = p.numbers()
            check_eq(n["saved_bytes"], n["shared_bytes"] - n["shared_charge_bytes"], "saved")
            check_eq(n["consumed_bytes"], n["charged_bytes"] + n["shared_charge_bytes"], "consumed")
            check_eq(n["resident_bytes"], 300 * PAGE, "resident")
            check(n["share_mappings"] > 0, "no mappings")
        check_eq(runs(a.states(0, 1200)), "shared*1200", "vm pmap")
        check_eq(set(a.states(2000, 300)), {"resident"}, "vm pmap of its own pages")
        # the same place in the pool for the same page
        places = [[r["place"] for r in d.memctl("vm", "pmap", p.vm, "0+%d" % (1000 * PAGE))["runs"]] for p in (a, b, c)]
        check(places[0] == places[1] == places[2] and all(places[0]), "places in the pool: %s" % places)
        audit(d)
        for n, p in enumerate((a, b, c)):
            p.check(0, 1000, 1, "text")
            p.check(2000, 300, 10 + n, "text")
        for p in (a, b):
            p.check(1000, 200, 2, "random")
        for at in (3000, 3200):
            c.check(at, 100, 20, "sparse", like=[0])
        audit(d)


def test_a_write_ends_it_for_one_page():
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8) as b:
        for p in (a, b):
            p.do("fill", 0, 0, 1000, 1, "text")
        shared(d, (a, 1000), (b, 1000))
        before = charged(d)
        # every second of 100 pages, one byte of each by a write that does not read first
        for at in range(200, 300, 2):
            a.do("touch", 0, at, 1, 2, "text", "w")
        n = a.numbers()
        check_eq(n["break_pages"], 50, "breaks")
        check_eq((n["shared_bytes"] + n["breaking_bytes"] + n["resident_bytes"]) // PAGE, 1000, "pages by state")
        home(d, a, b)
        n = a.numbers()
        check_eq((n["shared_bytes"] // PAGE, n["resident_bytes"] // PAGE, n["home_pages"]), (950, 50, 50), "shared, resident, home")
        check_eq(pages(b, "shared"), 1000, "pages that b shares")
        check_eq(charged(d) - before, 50, "frames more")
        check_eq(a.states(200, 100), ["resident", "shared"] * 50, "vm pmap")
        for at in range(200, 300, 2):
            a.do("fill", 0, at, 1, 2, "text")
            a.check(at, 1, 2, "text")
            a.check(at + 1, 1, 1, "text")
        b.check(0, 1000, 1, "text")
        audit(d)
        # the same again: shared again
        for at in range(200, 300, 2):
            a.do("fill", 0, at, 1, 1, "text")
        shared(d, (a, 1000), (b, 1000))
        check_eq(common(d), (1000, 2000), "distinct and shared pages")
        check(abs(charged(d) - before) <= 2, "%d frames, %d before" % (charged(d), before))
        a.check(0, 1000, 1, "text")
        b.check(0, 1000, 1, "text")
        audit(d)


def test_what_broke_comes_home_without_a_scan():
    """Nothing is looked at in the background, and no pass was asked for since the writes."""
    with sharing_daemon(64, "ShareScanTime=0") as d, member(d, "a", 8) as a, member(d, "b", 8) as b:
        for p in (a, b):
            p.do("fill", 0, 0, 200, 1, "text")
        shared(d, (a, 200), (b, 200))
        passes(d)
        before = a.numbers()["scan_passes"]
        for at in range(0, 20, 2):
            a.do("touch", 0, at, 1, 2, "text", "w")
        check_eq(a.numbers()["break_pages"], 10, "breaks")
        home(d, a)
        check_eq(a.numbers()["scan_passes"], before, "passes")
        check_eq(a.states(0, 20), ["resident", "shared"] * 10, "vm pmap")
        audit(d)


def test_breaking_pages_are_seen():
    """A client that is stopped after its write: its page is away from home until it goes on."""
    with sharing_daemon(64) as d, member(d, "a", 8, helper=False) as a, member(d, "b", 8) as b:
        a.do("helper")
        for p in (a, b):
            p.do("fill", 0, 0, 500, 1, "text")
        shared(d, (a, 500), (b, 500))
        seen = turn = 0

        def state():
            return d.memctl("vm", "pmap", "a", "%d+%d" % (turn * PAGE, PAGE))["runs"][0]

        for turn in range(20):
            a.do("touch", 0, turn, 1, 2, "text", "w")
            a.stop()
            run, n, again = state(), a.numbers(), state()
            # what was on its way home when the client was stopped may arrive between two looks
            if run["state"] == again["state"] == "breaking":
                seen += 1
                check(run["place"] > 0, "a breaking page names its place in the pool")
                check(n["breaking_bytes"] > 0, "it is counted")
            a.go_on()
        check(seen > 0, "no breaking page was ever seen")
        home(d, a)
        b.check(0, 500, 1, "text")
        a.check(20, 480, 1, "text")
        audit(d)


def test_the_end_of_members():
    """Those that stay keep their pages, at a larger part each; with the last one the pool goes."""
    with sharing_daemon(64) as d:
        with member(d, "a", 8) as a, member(d, "b", 8) as b:
            with member(d, "c", 8) as c:
                for p in (a, b, c):
                    p.do("fill", 0, 0, 900, 1, "text")
                shared(d, (a, 900), (b, 900), (c, 900))
                wait_until(lambda: abs(pages(a, "shared_charge") - 300) <= 4, 10 * SLOW, "a third each")
            wait_until(lambda: abs(pages(a, "shared_charge") - 450) <= 4, 10 * SLOW, "half each")
            b.kill()
            wait_until(lambda: abs(pages(a, "shared_charge") - 900) <= 4, 10 * SLOW, "all of it")
            check_eq(common(d), (900, 900), "distinct and shared pages")
            a.check(0, 900, 1, "text")
            audit(d)
        gone(d)


def test_history_and_show():
    with tempfile.TemporaryDirectory(prefix="memctl-test-") as where:
        database = os.path.join(where, "metrics.db")
        with sharing_daemon(64, metrics=database) as d, member(d, "a", 8) as a, member(d, "b", 8) as b:
            try:
                rows(d)
            except Failed:
                skip("built without a database")
            for p in (a, b):
                p.do("fill", 0, 0, 1000, 1, "text")
            shared(d, (a, 1000), (b, 1000))
            rows(d)
            for turn in range(4):
                b.do("touch", 0, 100 * turn, 100, 2, "text", "w")
                home(d, b)
            show = d.memctl("vm", "show", "b")["vm"]
            check_eq(show["faults"]["break"]["count"], 400, "breaks in vm show")
            check(show["faults"]["break"]["p99_ns"] > 0, "time of breaks")
            rows(d)
        with sqlite3.connect(database) as db:
            best = db.execute("SELECT max(shared_bytes), max(saved_bytes), max(break_pages), max(home_pages) FROM vm").fetchone()
            check_eq((best[0], best[2], best[3]), (1000 * PAGE, 400, 400), "shared, breaks, home in the history")
            check(best[1] > 0, "saved bytes in the history")
            best = db.execute("SELECT max(common_bytes), max(saving_bytes), max(pools) FROM host").fetchone()
            check_eq(best, (1000 * PAGE, 1000 * PAGE, 1), "common, saving and pools in the history")
            causes = {c for (c,) in db.execute("SELECT DISTINCT cause FROM fault_latency")}
            check("break" in causes, "causes of faults in the history: %s" % causes)


def rows(d):
    """Wait until two ticks have been written."""
    written = d.memctl("status")["status"]["host"]["metrics_written"]
    wait_until(lambda: d.memctl("status")["status"]["host"]["metrics_written"] >= written + 6, 10, "rows of the history")


# ---- what is shared with whom

def test_what_each_kind_shares():
    """500 pages that all have, 200 pages twice within each, 300 pages of zeros."""
    with sharing_daemon(96) as d:
        kinds = {"off": 2, "zero": 2, "vm": 2, "group:g": 2}
        puppets = [member(d, "%s%d" % (kind.split(":")[0], n), 12, sharing=kind) for kind, many in kinds.items() for n in range(many)]
        try:
            for p in puppets:
                p.do("fill", 0, 0, 500, 1, "text")
                for at in (1000, 1300):
                    p.do("fill", 0, at, 200, 2, "text", 0)
                p.do("fill", 0, 2000, 300, 3, "zero")
            passes(d)
            for p in puppets:
                n = p.numbers()
                kind = n["sharing"].split(":")[0]
                expected = {"off": (0, 1200), "zero": (0, 900), "vm": (400, 500), "group": (900, 0)}[kind]
                check_eq(n["shared_bytes"] // PAGE, expected[0], "pages that %s shares" % p.name)
                if kind == "off":
                    check(n["resident_bytes"] // PAGE >= expected[1], "an unshared page is gone: %s" % n)
                else:
                    check_eq(n["resident_bytes"] // PAGE, expected[1], "resident pages of %s" % p.name)
                check_eq(n["scan_zero_pages"] >= 300, kind != "off", "zero pages of %s dropped" % p.name)
                if kind == "off":
                    check_eq(n["scanned_pages"], 0, "pages of %s read" % p.name)
                check_eq(n["pool_joined"], kind in ("vm", "group"), "%s has a pool" % p.name)
            pairs = top(d)
            check_eq(pairs.get(("vm0", "vm1"), 0) + pairs.get(("vm1", "vm0"), 0), 0, "pages shared across private pools")
            check_eq((pairs[("vm0", "vm0")], pairs[("group0", "group1")]), (200, 700), "share top")
            for p in puppets:
                p.check(0, 500, 1, "text")
                for at in (1000, 1300):
                    p.check(at, 200, 2, "text", like=[0])
                p.check(2000, 300, 3, "zero")
            audit(d)
        finally:
            for p in puppets:
                p.kill()
        gone(d)


def test_salting_is_live():
    """Of VMs that ask for nothing: 2 keeps them apart, 1 and 0 put those to come together."""
    with sharing_daemon(64) as d:
        alone = []
        for salting, expected in ((2, "vm"), (1, "group:common"), (0, "group:common")):
            d.memctl("tune", "ShareForceSalting", str(salting))
            pair = [member(d, "%s%d" % (name, salting), 4, sharing=None) for name in "ab"]
            alone += pair
            for p in pair:
                check_eq(p.numbers()["sharing"], expected, "sharing at %d" % salting)
                p.do("fill", 0, 0, 300, salting, "text")
        passes(d)
        for p in alone:
            check_eq(pages(p, "shared"), 0 if p.name.endswith("2") else 300, "pages that %s shares" % p.name)
        check_eq(sorted(groups(d)), ["a2", "b2", "common"], "pools")
        # explicit wins
        with member(d, "own", 4, sharing="vm") as own, member(d, "grouped", 4) as grouped:
            check_eq((own.numbers()["sharing"], grouped.numbers()["sharing"]), ("vm", "group:g"), "what was asked for")
        audit(d)
        for p in alone:
            p.kill()
        gone(d)


def test_a_client_without_rights():
    """Of a user who gets user-mode faults only, and of root."""
    with open_to_all(sharing_daemon(64)) as d:
        if not can_be_nobody(program(d)):
            skip("needs root, and a build that everybody can reach")
        with member(d, "a", 8, nobody=True) as a, member(d, "b", 8) as b:
            for p in (a, b):
                p.do("fill", 0, 0, 1000, 1, "text")
            shared(d, (a, 1000), (b, 1000))
            check_eq((a.numbers()["pool_writable"], b.numbers()["pool_writable"]), (False, True), "writable by root only")
            a.do("touch", 0, 0, 200, 2, "text", "w")
            b.do("touch", 0, 100, 200, 3, "text", "w")
            home(d, a, b)
            a.do("fill", 0, 0, 200, 1, "text")
            b.do("fill", 0, 100, 200, 1, "text")
            shared(d, (a, 1000), (b, 1000))
            a.check(0, 1000, 1, "text")
            b.check(0, 1000, 1, "text")
            audit(d)


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
