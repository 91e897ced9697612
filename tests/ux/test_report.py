#!/usr/bin/env python3
"""memctl report: the page and its data are what the history says, also where it has gaps; nothing of it can act; a file is
replaced as a whole or not at all."""
import bisect
import contextlib
import html.parser
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)
from fake import Fake  # noqa: E402
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import build_dir  # noqa: E402
from service.test_history import THEN, iso, wait_rolled_up, write_samples  # noqa: E402
from system.puppet import MIB, daemon  # noqa: E402
from wire.client import Client, Refused  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "</title></svg><iframe>", "a\u202eb\u0085&amp;<!--",
           "\x1b[31mred"]
VOID = {"meta", "link", "br", "img"}


class Page(html.parser.HTMLParser):
    """What a page has, as a browser would see it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.wrong = [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append("</%s> ends nothing" % tag)

    def handle_data(self, data):
        for tag in self.open[-1:]:
            self.texts.setdefault(tag, []).append(data)

    def all(self, tag):
        return [a for t, a, _ in self.elements if t == tag]


def acts(text):
    """What of a page would run, or fetch something."""
    page = Page(text)
    found = ["<%s>" % t for t, _, _ in page.elements if t in ("script", "iframe", "img", "object", "embed", "form",
                                                              "foreignobject", "image")]
    for tag, attributes, _ in page.elements:
        for name, value in attributes.items():
            value = value or ""
            if name.startswith("on") or (name in ("src", "href", "xlink:href", "action") and not re.match(r"#|data:,$", value)):
                found.append("%s=%s" % (name, value))
            if re.search(r"url\((?!#)", value):
                found.append(value)
    styles = " ".join(page.texts.get("style", []))
    return found + re.findall(r"@import|url\((?!#)|expression\(", styles)


def luminance(color):
    digits = color.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def schemes(text):
    """The custom properties in the light and in the dark."""
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    dark = "".join(re.findall(r"@media ?\(prefers-color-scheme:dark\)\{(.*?)\}\}", style, re.S))
    style = re.sub(r"@media ?\(prefers-color-scheme:dark\)\{.*?\}\}|@media print\{.*?\}\}\n", "", style, flags=re.S)
    light = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", style))
    return light, dict(light, **dict(re.findall(r"--(\w+):(#[0-9a-f]+)", dark)))


def is_accessible(text):
    """What is missing for those who do not see it as we do."""
    page = Page(text)
    wrong = list(page.wrong) + ["<%s> is never ended" % t for t in page.open]
    if page.all("html")[0].get("lang") != "en":
        wrong.append("no lang")
    levels = [int(t[1]) for t, _, _ in page.elements if re.fullmatch("h[1-6]", t)]
    if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in zip(levels, levels[1:])):
        wrong.append("headings %s" % levels)
    ids = [a["id"] for _, a, _ in page.elements if a.get("id")]
    if len(ids) != len(set(ids)):
        wrong.append("an id twice")
    for tag, attributes, around in page.elements:
        if tag == "svg" and attributes.get("class") == "chart":
            named = attributes.get("aria-labelledby", "").split()
            if attributes.get("role") != "img" or len(named) != 2 or not set(named) <= set(ids):
                wrong.append("a chart without a role, title and desc")
        if tag == "svg" and "svg" not in around and attributes.get("role") != "img" and attributes.get("aria-hidden") != "true":
            wrong.append("a picture that is neither named nor hidden")
        if int(attributes.get("tabindex", 0)) > 0:
            wrong.append("a tabindex")
        if tag == "th" and "scope" not in attributes:
            wrong.append("a heading of a table without its scope")
    for number, colors in enumerate(schemes(text)):
        for name, least in (("ink", 4.5), ("soft", 4.5)):
            if contrast(colors[name], colors["paper"]) < least:
                wrong.append("%s on paper, scheme %d: %.1f" % (name, number, contrast(colors[name], colors["paper"])))
        for name in ("resident", "shared", "compressed", "swapped", "ballooned", "lost", "zero", "s0", "s5", "error", "warning",
                     "notice", "info"):
            if contrast(colors[name], colors["paper"]) < 3:
                wrong.append("%s, scheme %d: %.1f" % (name, number, contrast(colors[name], colors["paper"])))
    return wrong


# ---- a history with a gap

def sample(i):
    """Twenty minutes, of which memctld was away for five."""
    if 500 <= i < 800:
        return None
    return {"leased_bytes": 100 * MIB, "resident_bytes": (20 + i // 60) * MIB, "compressed_bytes": 10 * MIB,
            "swapped_bytes": 5 * MIB,
            "charged_bytes": 25 * MIB, "swap_out_pages": 16 * i, "stall_wall_ns": i * 50 * 10**6}


def write_plans(path):
    db = sqlite3.connect(path, timeout=20)
    for i in range(10):
        ts = THEN + 1000 * i
        db.execute("INSERT INTO plan (ts, plans, next_state) VALUES (?, 2, ?)", (ts, 2 if i < 6 else 0))
        db.execute("INSERT INTO plan_vm (ts, nth, vm, cause, technique, reason, host_take_frames) VALUES (?, 0, 'other', 0, 0, 0, 7)", (ts,))
        db.execute("INSERT INTO plan_vm (ts, nth, vm, cause, technique, reason, host_take_frames, limit_frames) VALUES (?, 1, 'gone', ?, ?, ?, ?, ?)",
                   (ts, 2 if i < 6 else 0, 3 if i < 4 else 4 if i < 6 else 0, 5 if i < 6 else 0, 100 + i, 2**63 - 1))
    db.commit()
    db.close()


@contextlib.contextmanager
def host():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "metrics.db")
        with daemon(32, metrics=path, settings=["metrics_keep_1s=1000000", "metrics_keep_plans=1000000"]) as d:
            write_samples(path, 1200, sample)
            write_plans(path)
            wait_rolled_up(path)
            yield d, directory


SPAN = ["--since", iso(0), "--until", iso(1200)]


def test_what_the_history_says():
    with host() as (d, directory):
        data = d.memctl("report", *SPAN)
        gone = data["vms"][0]
        check_eq((data["slot_ms"], data["slots"], gone["vm"], gone["here"]), (10000, 120, "gone", False), "slots")
        rows = d.memctl("history", "gone", *SPAN, "--step", "10s")["rows"]
        should = [None] * 120
        for row in rows:
            should[(row["ts_ms"] - THEN) // 10000] = row
        for name in ("resident_bytes", "charged_bytes"):
            check_eq(gone["numbers"][name], [r and r[name] for r in should], name)
        rates = [r and r["swap_out_pages"] is not None and round(r["swap_out_pages"] * 1000 / r["interval_ms"]) or None for r in should]
        check_eq(gone["numbers"]["swap_out_pages"], rates, "rates")
        check(gone["numbers"]["resident_bytes"][50:80] == [None] * 30 and data["host"]["numbers"]["free_bytes"][50:80] == [None] * 30, "a gap")
        check_eq(gone["faults"]["swapped"]["p99_ns"], [r and r["faults"]["swapped"]["p99_ns"] for r in should], "percentiles")
        check_eq(gone["faults"]["swapped"]["count"], 3 * 900, "faults")
        # what was decided: those that decided the same as one, the most of their numbers, no limit is none
        plans = [(p["from_ms"] - THEN, p["last_ms"] - THEN, p["plans"], p["state"], p["cause"], p["technique"],
                  p["host_take_frames"],
                  p["limit_frames"]) for p in gone["plans"]]
        check_eq(plans, [(0, 3000, 8, "soft", "host", "compress", 103, None), (4000, 5000, 4, "soft", "host", "swap", 105, None),
                         (6000, 9000, 8, "high", "none", "none", 109, None)], "plans")
        questions(d)
        page_is_right(d, directory)
        files(d, directory)
        mistakes(d)


def questions(d):
    """HistoryVms and Plans by themselves."""
    with Client(d.socket) as c:
        seen = c.call("HistoryVms", since=THEN, until=THEN + 1200000)["vms"]
        check_eq([(v["vm"], v["first_ms"] - THEN, v["last_ms"] - THEN) for v in seen], [("gone", 0, 1199137)], "who was seen")
        check_eq(c.call("HistoryVms", since=THEN - 2000, until=THEN - 1000)["vms"], [], "before anybody came")
        check_eq(c.call("Plans", vm="gone", since=THEN + 4500, until=THEN + 6500)["plans"][0]["technique"], "swap",
                 "a part of the time")
        check_eq(c.call("Plans", vm="gone", since=THEN + 10**6, until=THEN + 2 * 10**6), {"plans": [], "next": 0},
                 "when nothing was planned")
        for name, method, parameters in (("NoSuchVm", "Plans", {"vm": "nobody", "since": 1}),
                                         ("InvalidName", "Plans", {"vm": "../x", "since": 1}),
                                         ("InvalidValue", "Plans", {"vm": "gone", "since": 2, "until": 2}),
                                         ("InvalidValue", "HistoryVms", {"since": 2, "until": 1})):
            try:
                c.call(method, **parameters)
            except Refused as e:
                check_eq(e.name, name, "%s %s" % (method, parameters))
            else:
                check(False, "%s %s was answered" % (method, parameters))


def page_is_right(d, directory):
    path = os.path.join(directory, "report.html")
    done = d.run_memctl("report", *SPAN, "-o", path)
    check_eq((done.returncode, done.stdout, done.stderr), (0, "", ""), "exit")
    with open(path) as f:
        text = f.read()
    check_eq(acts(text), [], "what acts")
    check_eq(is_accessible(text), [], "what is missing")
    twins = (("lang='en'", ""), ("<h3", "<h6"), ("role='img'", ""), ("--soft:#59626d", "--soft:#b9c2cd"),
             ("tabindex='0'", "tabindex='1'"))
    for have, bad in twins:
        check(is_accessible(text.replace(have, bad)), "a page with %r for %r is accessible" % (bad, have))
    page = Page(text)
    titles = [t for t in page.texts["title"]]
    for title in ("State", "Arena", "Memory by state", "Free", "Charged, and what it should be", "Swap traffic", "Waiting",
                  "How long faults took",
                  "Decided"):
        check(title in titles, "no chart %s: %s" % (title, titles))
    check("Nothing was shared." in text and "no balloon was asked" in text, "what there was not")
    check_eq(text.count("<figure>"), text.count("class='chart'"), "figures")
    # a line is cut where memctld was away: each part begins anew
    lines = re.findall(r"<path class='line' style='stroke:var\(--resident\)' d='([^']*)'", text)
    check(lines and all(line.count("M") == 2 for line in lines), [line.count("M") for line in lines])
    # a table of the same numbers: one row a slot that there is
    check_eq(len(re.findall(r"<tr>", text.split("<caption>Memory by state</caption>")[2].split("</table>")[0])), 1 + 90, "rows")
    check("The host is short, and it has the fewest shares" in text, "why")


def files(d, directory):
    path = os.path.join(directory, "old.html")
    with open(path, "w") as f:
        f.write("old")
    whole = d.run_memctl("report", *SPAN, "-o", "-").stdout
    check(whole.startswith("<!DOCTYPE html>") and whole.rstrip().endswith("</html>"), whole[-100:])
    link, device = os.path.join(directory, "link.html"), os.path.join(directory, "pipe")
    os.symlink(path, link)
    os.mkfifo(device)
    for target in (link, device, directory):
        done = d.run_memctl("report", *SPAN, "-o", target)
        check(done.returncode == 4 and "no regular file" in done.stderr, done)
    done = d.run_memctl("report", *SPAN, "-o", os.path.join(directory, "nowhere", "a.html"))
    check(done.returncode == 4 and "No such file" in done.stderr, done)
    # the old one stays when there is no new one
    done = d.run_memctl("report", *SPAN, "--vm", "nobody", "-o", path)
    check_eq((done.returncode, open(path).read()), (3, "old"), "nobody")
    # no room: neither a part of it, nor what it was to become
    limited = subprocess.run(["bash", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "bash", MEMCTL, "--socket", d.socket,
                              "report", *SPAN, "-o", path],
                             capture_output=True, text=True, check=False)
    check_eq((limited.returncode, open(path).read()), (4, "old"), "without room: %s" % limited.stderr)
    check_eq(d.run_memctl("report", *SPAN, "-o", path).returncode, 0, "over it")
    check(open(path).read().rstrip().endswith("</html>"), "the whole new one")
    check_eq(sorted(f for f in os.listdir(directory) if f.startswith("old")), ["old.html"], "what is left there")


def mistakes(d):
    for code, said, *line in ((16, "not before", "report", "-o", "-", "--since", "1h", "--until", "2h"),
                              (3, "No VM of this name", "report", "-o", "-", "--vm", "nobody"),
                              (16, "where to", "report", "-o", ""), (16, "usage", "report", "web"), (16, "does not take --step",
                                                                                                     "report", "--step", "1s")):
        done = d.run_memctl(*line)
        check(done.returncode == code and said in done.stderr and not done.stdout, "%s: %s" % (line, done))
    # a terminal is no place for a page
    ours, theirs = pty.openpty()
    done = subprocess.run([MEMCTL, "--socket", d.socket, "report"], stdin=subprocess.DEVNULL, stdout=theirs,
                          stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    os.close(ours)
    check(done.returncode == 16 and "report.html" in done.stderr, done)


# ---- what a real memctld would never say

def answers(names, rows, text="", step=3600):
    def history(parameters):
        first, end = (bisect.bisect_left(rows, ms, key=lambda r: r["ts_ms"]) for ms in (parameters["since"], parameters["until"]))
        names = parameters["numbers"].split(",") + ["ts_ms", "interval_ms", "samples", "faults"]
        own = [{n: r[n] for n in names if n in r} for r in rows[first:min(end, first + 1000)]]
        return {"step": step, "next": own[-1]["ts_ms"] + 1 if end - first > 1000 else 0, "rows": own}

    return {"History": history, "ListVms": {"vms": [{"name": n} for n in names]}, "HistoryVms": {"vms": []},
            "Explain": {"explanation": {"words": [text]}}, "Plans": {"next": 0, "plans": [
                {"from_ms": rows[0]["ts_ms"], "last_ms": rows[-1]["ts_ms"], "plans": 1, "cause": text, "technique": "swap",
                 "why": text}]},
            "Events": {"next": 0, "more": False, "events": [{"ts_ms": rows[-1]["ts_ms"], "level": "error", "event": text or "e",
                                                             "vm": n, "text": text}
                                                         for n in names for _ in range(3)]},
            "ShowConfig": {"settings": [{"name": text or "s", "value": text, "default": text, "where": text, "changed": True}],
                           "vms": [], "files": {}},
            "Status": {"status": {"version": text or "1"}}}


def row(ts, step=3600):
    numbers = dict.fromkeys(("capacity_bytes", "charged_bytes", "charged_bytes_most", "free_bytes", "goal_free_bytes",
                             "min_free_bytes", "reserved_bytes",
                             "state_most", "shared_bytes", "common_bytes", "saving_bytes", "resident_bytes", "breaking_bytes", "compressed_bytes",
                             "swapped_bytes", "ballooned_bytes", "lost_bytes", "leased_bytes", "target_bytes", "swap_out_pages"), MIB)
    return dict(numbers, ts_ms=ts, interval_ms=step * 1000, samples=step, state_most=1, leased_bytes=8 * MIB,
                faults={"swapped": {"count": 5, "p50_ns": 1000, "p99_ns": 10**6, "mean_ns": 2000}})


def report(fake, *options):
    done = subprocess.run([MEMCTL, "--socket", fake.socket, "report", "-o", "-", *options], capture_output=True, text=True,
                          check=False, timeout=50)
    check_eq((done.returncode, done.stderr), (0, ""), "exit")
    return done.stdout


def test_nothing_of_it_can_act():
    rows = [row(THEN + 3600000 * i) for i in range(10)]
    for text in HOSTILE:
        with Fake(answers([text, "a" + text], rows, text)) as f:
            page = report(f, "--since", iso(0), "--until", iso(36000))
        check_eq(acts(page), [], "what acts")
        check_eq(Page(page).wrong, [], "its elements")
        check("\x1b" not in page and "\x85" not in page, "control characters")
    check("&lt;/title&gt;" not in page and "\ufffd[31mred" in page, "the last one is said as it is")
    # the twin: without the escaping it is seen
    with Fake(answers([HOSTILE[0]], rows, HOSTILE[1])) as f:
        page = report(f, "--since", iso(0), "--until", iso(36000))
    check(acts(page.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')), "a page without escaping does nothing")
    check("default-src 'none'" in page, "a policy")


def test_long_times_are_small():
    """A year of hours is 240 points a line at most."""
    hours = 8760
    rows = [row(THEN - 3600000 * i) for i in range(hours, 0, -1)]
    with Fake(answers(["web"], rows)) as f:
        page = report(f, "--since", iso(-hours * 3600), "--until", iso(0))
    check(len(page) < 600000, "%d bytes" % len(page))
    points = [len(re.findall("[ML]", d)) for d in re.findall(r" d='(M[^']*)'", page)]
    check(max(points) <= 2 * 240 + 8, max(points))
    # VMs beyond those that are drawn are counted
    with Fake(answers(["vm%03d" % i for i in range(40)], rows[:24])) as f:
        data = json.loads(report(f, "--json", "--since", iso(-hours * 3600), "--until", iso(-hours * 3600 + 86400)))
    check_eq((len(data["vms"]), data["vms_left_out"]), (24, 16), "VMs")


def test_rows_that_come_meanwhile():
    """What is rolled up after the host was asked is left out: a last slot with some of the VMs would look like a fall."""
    rows = [row(THEN + 3600000 * i) for i in range(10)]
    told = answers(["web"], rows)
    history = told["History"]
    # the host's last row is not there yet
    told["History"] = lambda p: history(p) if p.get("vm") else dict(history(p), rows=history(p)["rows"][:9])
    with Fake(told) as f:
        data = json.loads(report(f, "--json", "--since", iso(0), "--until", iso(36000)))
    check_eq([i for i, v in enumerate(data["vms"][0]["numbers"]["leased_bytes"]) if v is not None], list(range(9)), "slots of the VM")
    check_eq(data["vms"][0]["faults"]["swapped"]["p99_ns"][8:], [10**6, None], "its latencies")


if __name__ == "__main__":
    main(globals())
