#!/usr/bin/env python3
"""memctl heat: every page is in the map once, as what it is; where a cell has several, in their proportions; for those who may look."""
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)
from fake import Fake  # noqa: E402
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import build_dir, wait_until  # noqa: E402
from system.puppet import PAGE, Puppet, daemon  # noqa: E402
from torture.actor import open_to_all  # noqa: E402
from wire.client import Client  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
CLASSES = ["resident, newest", "resident, newer", "resident, older", "resident, oldest", "shared", "compressed", "swapped",
           "ballooned",
           "untouched or zero", "lost"]
SIGNS = dict(zip(CLASSES, "@#+-=cso.!"))
STATES = {"zero": 8, "shared": 4, "breaking": 4, "compressed": 5, "swapped": 6, "ballooned": 7, "lost": 9}


def class_of(run):
    return STATES.get(run["state"], min(3, (run.get("age") or 0) // 2))


def test_every_page_is_in_it():
    with daemon(32, settings=["fault_around=1", "SamplePeriod=0"]) as d, Puppet(d, "web", 8, limit=4) as p:
        for wave in range(6):
            p.do("fill", 0, 200 * wave, 200, wave + 1, "text")
        with Client(d.socket) as c:
            def ages():
                return c.call("PageMap", vm="web", ages=True, max_runs=16384)["runs"]

            def settled():
                """The map and what is drawn of it, when nothing moves meanwhile."""
                before, drawn = ages(), d.memctl("heat", "web")
                return (before, drawn) if ages() == before else None

            runs, drawn = wait_until(settled, 20, "a map that stays as it is")
            plain = c.call("PageMap", vm="web", max_runs=16384)["runs"]
        check(all("age" not in r for r in plain), "ages that nobody asked for")
        check(all((r["age"] is None) == (r["state"] != "resident") for r in runs), "ages of what is not resident")
        known = [r["age"] for r in runs if r["state"] == "resident"]
        check(max(known) > 2 and min(known) == 0, "ages %s" % sorted(set(known)))
        # in the order of filling: what came later is no older
        last = [r["age"] for r in runs if r["state"] == "resident" and r["gpa"] >= 1000 * PAGE]
        check(last and max(last) <= min(a for a in known if a > 2), "the last wave is of age %s" % last)
        cells = [[0] * 10 for _ in drawn["leases"][0]["cells"]]
        for r in runs:
            for page in range(r["gpa"] // PAGE, r["gpa"] // PAGE + r["pages"]):
                cells[page // drawn["cell_pages"]][class_of(r)] += 1
        check_eq([c["name"] for c in drawn["classes"]], CLASSES, "classes")
        check_eq([(i, a, b) for i, (a, b) in enumerate(zip(drawn["leases"][0]["cells"], cells)) if a != b][:3], [], "cells")
        check_eq(sum(c["pages"] for c in drawn["classes"]), 2048, "pages")


# ---- a VM that is as we say

def fake(runs, leases=None):
    """runs: (pages, state, age)"""
    told, page = [], 0
    for pages, state, age in runs:
        told.append({"lease": 1, "gpa": page * PAGE, "pages": pages, "bytes": pages * PAGE, "state": state, "age": age,
                     "in_transit": False,
                     "pinned": False, "place": 0, "stored_bytes": 0})
        page += pages

    def page_map(parameters):
        own = [r for r in told if r["gpa"] >= parameters.get("gpa", 0)]
        return {"runs": own[:1000], "next": own[1000]["gpa"] if len(own) > 1000 else 0}

    return Fake({"ShowVm": {"vm": {"leases": leases or [{"lease": 1, "gpa": 0, "size_bytes": page * PAGE}]}}, "PageMap": page_map})


def heat(f, *options, **environ):
    env = dict({"PATH": os.environ["PATH"], "LC_ALL": "C", "COLUMNS": "80"}, **environ)
    done = subprocess.run([MEMCTL, "--socket", f.socket, "heat", "web", *options], capture_output=True, check=False, env=env,
                          timeout=50)
    check_eq((done.returncode, done.stderr), (0, b""), "exit")
    return done.stdout.decode()


def map_lines(text):
    return [line[15:] for line in text.split("\n\n")[1].split("\n")]


RUNS = [(64, "resident", 0), (64, "resident", 9), (32, "compressed", None), (32, "swapped", None), (63, "zero", None),
        (1, "lost", None)]


def test_text():
    with fake(RUNS) as f:
        text = heat(f)
        check_eq(text.split("\n")[0], "web: 1 MiB leased; a cell is 4 KiB, a line 64 cells", "head")
        check_eq(map_lines(text), ["@" * 64, "-" * 64, "c" * 32 + "s" * 32, "." * 63 + "!"], "map")
        check_eq([line[:15] for line in text.split("\n")[2:6]], ["%13s  " % a for a in ("0x0", "0x40000", "0x80000", "0xc0000")],
                 "addresses")
        legend = [re.sub(" +", " ", line) for line in text.split("\n\n")[2].split("\n") if line]
        check_eq(legend, [" @ resident, newest 256 KiB 25.0 %", " - resident, oldest 256 KiB 25.0 %",
                          " c compressed 128 KiB 12.5 %", " s swapped 128 KiB 12.5 %",
                          " . untouched or zero 252 KiB 24.6 %", " ! lost 4 KiB 0.4 %"], "legend")
        check_eq(map_lines(heat(f, "--text", COLUMNS="40"))[0], "@" * 16, "a narrow terminal")
        check(all(len(line) <= 80 for line in text.split("\n")), "wider than the terminal")
        if "C.utf8" in subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout:
            check_eq(map_lines(heat(f, LC_ALL="C.UTF-8"))[:2], ["\u2588" * 64, "\u2591" * 64], "blocks")
        # colour is one sign more, not the only one
        check("\x1b" not in text and "\x1b" not in heat(f, NO_COLOR="1"), "colour")
        colored = heat(f, "--color=always")
        check("\x1b[" in colored and re.sub("\x1b\\[[0-9;]*m", "", colored) == text, "without its colours it is the same")


def test_mixtures():
    """A cell of many pages: each line has its signs in the proportions of its pages, and what is lost is always seen."""
    runs = [(3, "resident", 0), (2, "swapped", None), (1, "compressed", None), (2, "zero", None)] * 4096 + [(4, "zero", None),
                                                                                                            (1, "lost", None), (3,
                                                                                                                                "zero", None)]
    with fake(runs) as f:
        data = json.loads(heat(f, "--json"))
        check_eq(data["cell_pages"], 16, "pages of a cell")
        lines = map_lines(heat(f))
        for line in lines[:-1]:
            counts = collections.Counter(line)
            wanted = {"@": 3 / 8, "s": 2 / 8, "c": 1 / 8, ".": 2 / 8}
            check(all(abs(counts[sign] - part * len(line)) <= 1 for sign, part in wanted.items()), counts)
        check("!" in lines[-1], "a lost page is not seen")
        picture_is_right(heat(f, "--svg"), data)


def picture_is_right(text, data):
    root = xml.etree.ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    check_eq(root.get("role"), "img", "role")
    check(root.find(space + "title").text == "Memory of web, by state and age" and "swapped: " in root.find(space + "desc").text,
          "title and desc")
    check("prefers-color-scheme:dark" in text and "url(http" not in text and "<script" not in text, "what it refers to")
    high = {}
    for path in root.findall(space + "path"):
        state = re.fullmatch(r"url\(#(\w+)-pattern\)", path.get("fill"))[1]
        parts = [float(n) for n in re.findall(r"v-([\d.]+)", path.get("d"))]
        high[state] = high.get(state, 0) + sum(parts)
    whole = len(data["leases"][0]["cells"]) * 12
    for state, name in (("resident", "resident, newest"), ("swapped", "swapped"), ("compressed", "compressed"),
                        ("zero", "untouched or zero")):
        pages = next(c["pages"] for c in data["classes"] if c["name"] == name)
        check(abs(high[state] / whole - pages / data["pages"]) < 0.01, "%s: %.3f of %.3f" % (state, high[state] / whole,
                                                                                             pages / data["pages"]))
    check(high["lost"] >= 4, "a lost page is a hair")
    check(len(text) < 300000, len(text))


def test_large_and_odd():
    tib = 1 << 40
    with fake([(tib // PAGE, "zero", None)]) as f:
        lines = map_lines(heat(f))
        check(len(lines) <= 33 and set("".join(lines)) == {"."}, lines)
    # two leases with a hole between them, the last cells are parts; one that is not told of
    leases = [{"lease": 1, "gpa": 0, "size_bytes": 10 * PAGE}, {"lease": 2, "gpa": tib, "size_bytes": 5 * PAGE}]
    with fake([(10, "resident", 2)], leases) as f:
        parts = heat(f).split("\n\n")
        check_eq((parts[1][15:], parts[2]), ("#" * 10, "0x10000000000  " + " " * 5), "two leases")
    # a name is whatever was typed, in a picture too
    with Fake({"ShowVm": {"vm": {"leases": []}}, "PageMap": {"runs": [], "next": 0}}) as f:
        done = subprocess.run([MEMCTL, "--socket", f.socket, "heat", "</title><script>", "--svg"], capture_output=True, text=True,
                              check=True)
        check("<script" not in done.stdout and "&lt;script&gt;" in done.stdout, done.stdout[:300])


def test_who_may_and_mistakes():
    with fake(RUNS) as f, tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "web.svg")
        check_eq(heat(f, "--svg", "-o", path), "", "said beside the file")
        xml.etree.ElementTree.parse(path)
        done = subprocess.run([MEMCTL, "--socket", f.socket, "heat", "web", "-o", directory], capture_output=True, text=True,
                              check=False)
        check(done.returncode == 4 and "no regular file" in done.stderr, done)
        done = subprocess.run([MEMCTL, "--socket", f.socket, "heat", "web", "--svg", "--text"], capture_output=True, text=True,
                              check=False)
        check_eq(done.returncode, 16, "both")
    if os.geteuid() != 0:
        skip("needs root, to be two users")
    with open_to_all(daemon(32, settings=["read_users=*"])) as d, Puppet(d, "web", 1):
        check_eq(d.run_memctl("heat", "web").returncode, 0, "who may operate")
        check_eq(d.run_memctl("heat", "nobody").returncode, 3, "nobody")
        done = subprocess.run([MEMCTL, "--socket", d.socket, "heat", "web"], capture_output=True, text=True, check=False,
                              user=65534, group=65534, extra_groups=[])
        check(done.returncode == 5 and not done.stdout, "another user: %s" % done)


if __name__ == "__main__":
    main(globals())
