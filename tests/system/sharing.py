"""What the tests of sharing have in common: a daemon that shares at once, passes of the scan, an audit that is strict."""
import json
import os
import time

from lib.check import check, check_eq
from lib.daemon import Failed, wait_until
from system.puppet import PAGE, Puppet, arena, daemon, numbers
from torture.actor import SLOW

FAST = ("ShareRateMax=10000000", "ShareScanGHz=1000000")
OWNER = 7


def sharing_daemon(arena_mib, *settings, **more):
    """Everybody may join the group `g`, and a pass takes a second."""
    return daemon(arena_mib, settings=("share_groups=g=*", "share_with_root=yes") + FAST + settings, **more)


def member(d, name, size, sharing="group:g", **more):
    """A puppet of the group whose content is like that of all others."""
    return Puppet(d, name, size, sharing=sharing, owner=OWNER, **more)


def pages(p, what):
    """A number of bytes of a puppet's VM, in pages."""
    return p.numbers()[what + "_bytes"] // PAGE


def scan(d, vm=None):
    return d.memctl("share", "scan", *([vm] if vm else []), timeout=60 * SLOW)["vms"]


def passes(d):
    """Three rounds of the scan over all VMs that are scanned, and what they led to."""
    before = {v["name"]: v["scan_passes"] for v in d.memctl("vm", "list")["vms"] if v["sharing"] != "off"}
    scan(d)

    def done():
        now = {v["name"]: v["scan_passes"] for v in d.memctl("vm", "list")["vms"]}
        return all(now.get(name, n + 3) >= n + 3 for name, n in before.items())

    wait_until(done, 60 * SLOW, "three passes")
    still(d, "share_pages", "home_pages", "scan_zero_pages")


def still(d, *counters, seconds=20):
    """Wait until these counters of no VM change any more."""
    last, since, end = None, time.monotonic(), time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        now = [(v["name"], [v[c] for c in counters]) for v in d.memctl("vm", "list")["vms"]]
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 0.35:
            return
        time.sleep(0.05)
    raise Failed("%s go on: %s" % (counters, last))


def shared(d, *wanted, seconds=20):
    """Have the scan pass until each puppet shares so many pages: (puppet, pages) ...  They should not have been written to twice
    since they were last shared: such pages are left alone for up to 31 passes."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        scan(d)
        for _ in range(20):
            if all(pages(p, "shared") == n for p, n in wanted):
                return
            time.sleep(0.1)
    raise Failed("not shared: %s" % [(p.name, n, pages(p, "shared"), p.numbers()) for p, n in wanted])


def home(d, *puppets, seconds=20):
    """Wait until nothing that broke is away from home."""
    wait_until(lambda: not any(pages(p, "breaking") for p in puppets), seconds * SLOW, "all broken pages at home")


def groups(d):
    return {g["group"]: g for g in d.memctl("share", "groups")["groups"]}


def audit(d, still_owed=False):
    """The ledger agrees with the kernel, and each pool with the words that refer to it, to the page; the audit found nothing
    that a client had done behind our back."""
    try:
        a = d.audit()["audit"]
    except Failed as e:
        a = json.loads(e.result.stdout)["audit"]
    for v in a["vms"]:
        check(v["ok"] and not v["wrong"] and not v["private_pages"], "audit of %s: %s" % (v["vm"], v["first_wrong"]))
        if not still_owed:
            check_eq((v["in_transit"], v["discarded"], v["foreign"]), (0, 0, 0), "in transit, discarded, foreign of %s" % v["vm"])
    for p in a["pools"]:
        check(p["ok"], "audit of pool %s: %s" % (p["pool"], p["first_wrong"]))
        if not still_owed:
            check_eq(p["references"], p["words"], "references of %s" % p["pool"])
    check(a["arena"]["ok"], "audit of the arena")
    return a


def gone(d, seconds=20):
    """Wait until every VM is gone; then there is no pool, no file and no charge."""
    wait_until(lambda: not d.memctl("vm", "list")["vms"], seconds * SLOW, "the release of the VMs")
    wait_until(lambda: arena(d)["charged_bytes"] == 0, 5 * SLOW, "an arena without charges")
    check_eq(groups(d), {}, "pools that are left")
    check_eq(os.listdir(d.swap_dir), [], "swap files that are left")


__all__ = ["PAGE", "arena", "audit", "gone", "groups", "home", "member", "numbers", "pages", "passes", "scan", "shared",
           "sharing_daemon", "still"]
