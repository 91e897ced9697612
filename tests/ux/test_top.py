#!/usr/bin/env python3
"""memctl top: its screen in a terminal, its keys, CSV and JSON, and the past, of a memctld that was prepared."""
import csv
import io
import json
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE, wait_until  # noqa: E402
from screen import Screen, without_numbers  # noqa: E402
from recorded import AT, recorded  # noqa: E402
from system.puppet import MIB, Puppet, daemon  # noqa: E402

GOLDEN = os.path.join(TREE, "tests", "ux", "golden")


def top(d, *words):
    return [os.path.join(d.build, "cli", "memctl"), "--socket", d.socket, "top", *words]


def host():
    return daemon(64, settings=["fault_around=1", "SamplePeriod=0", "ShareScanGHz=0"])


def golden(name, text):
    path = os.path.join(GOLDEN, name + ".txt")
    if os.environ.get("MEMCTL_GOLDEN") == "write":
        with open(path, "w") as f:
            f.write(text)
    with open(path) as f:
        check_eq(text, f.read(), "golden/%s.txt" % name)


def names(text):
    """Of the VMs, in the order of their rows."""
    lines = text.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("  NAME")) + 1
    return [line[2:].split()[0] for line in lines[first:] if line[:2] in ("  ", "> ", " *", ">*") and line[2:].strip()
            and "tagged" not in line]


def test_the_list_and_its_keys():
    with host() as d, Puppet(d, "web", 8) as web, Puppet(d, "mail", 16) as mail, Puppet(d, "base", 12):
        web.do("fill", 0, 0, 1024, 1, "random")
        mail.do("fill", 0, 0, 512, 1, "random")
        with Screen(top(d, "-d", "0.2")) as s:
            # until rates are known
            golden("list-80x24", without_numbers(s.wait(r"^  base .* 0\.0$")))
            check_eq(names(s.text()), ["web", "mail", "base"], "most first")
            s.keys("N")
            check_eq(names(s.wait("sorted by NAME")), ["base", "mail", "web"], "by name")
            s.keys("I")
            check_eq(names(s.wait("NAME\u25b4")), ["web", "mail", "base"], "the other way")
            s.keys("<", ">", ">")
            check_eq(names(s.wait("sorted by GRANT")), ["web", "mail", "base"], "by the columns beside")
            s.keys("/")
            s.type("a")
            check_eq(names(s.wait("^Filter: a")), ["mail", "base"], "filtered while it is typed")
            s.keys("Enter")
            s.wait("filter: a$")
            s.keys("Space", "Escape")
            s.wait("1 tagged")
            # the selected one was tagged, and the next one is selected
            text = s.wait("^> ")
            check(sum(line.startswith(" *") for line in text.split("\n")) == 1, text)
            s.keys("U", "u")
            text = s.wait("sizes in GiB")
            check("/GiB:" in text and "tagged" not in text, text)
            s.keys("s")
            s.wait("^Seconds between samples: 0.2")
            s.keys("C-u")
            s.type("0")
            s.keys("Enter")
            s.wait('^"0" is no number of seconds from 0.1 to 86400')
            s.keys("F6")
            s.wait(r"^> \[\*\] GRANT")
            s.keys("Home", "Enter")
            s.wait("sorted by NAME")
            s.keys("f", "Down", "Space", "Enter")
            check(" MEMSZ" not in s.wait("^  NAME"), "a column that was taken away is there")
            s.keys("?")
            golden("help-80x24", s.wait("^Keys"))
            s.keys("q", "q")
            s.wait(r"^\[exit 0\]")
            check(s.is_as_before(), "the terminal is not as it was")


def bar(text):
    line = next(line for line in text.split("\n") if line.startswith("["))
    return {letter: line.count(letter) for letter in "RSCWBZ."}


def test_one_vm():
    """The segments add up to the bar, and are those of the page map."""
    with host() as d, Puppet(d, "web", 16, lease=12, limit=4) as web:
        web.do("fill", 0, 0, 1536, 1, "random")
        with Screen(top(d, "-d", "0.2")) as s:
            s.wait("^> web")
            s.keys("Enter")
            text = s.wait(r"^web  running")
            cells, vm = bar(text), d.memctl("vm", "show", "web")["vm"]
            check_eq(sum(cells.values()), 78, "cells")
            check(vm["swapped_bytes"] > MIB // 2, "nothing is on the disk")
            for letter, size in (("R", vm["resident_bytes"]), ("W", vm["swapped_bytes"]), ("Z", 6 * MIB), (".", 4 * MIB)):
                check(abs(cells[letter] - 78 * size / (16 * MIB)) < 1.5, "%s: %s, %s" % (letter, size, cells))
            check(re.search(r"^\. not leased +4\.0  25 %", text, re.M), text)
            s.keys("Escape")
            s.wait("^> web")
            s.keys("q")


def test_a_restart():
    """memctld goes and comes back: the screen says so, and goes on; rates over it are unknown, not wrong."""
    with host() as d:
        with Screen(top(d, "-d", "0.1")) as s:
            s.wait("No VM is registered")
            d.kill()
            s.wait("^No memctld, trying again: no memctld at")
            check(" away" in s.text().split("\n")[0], s.text())
            d.start()
            with Puppet(d, "new", 8):
                text = s.wait("^> new")
                check("No memctld," not in text, text)
            s.keys("q")
            s.wait(r"^\[exit 0\]")


def test_csv():
    with host() as d, Puppet(d, "web", 8) as web, Puppet(d, "mail", 16):
        web.do("fill", 0, 0, 1024, 1, "random")
        result = d.run_memctl("top", "-b", "-n", "2", "-d", "0.1", "--units", "B", "-o", "NAME,STATE,MEMSZ,GRANT,MCTL?,FLT/s")
        check_eq((result.returncode, result.stderr), (0, ""), "exit")
        rows = list(csv.reader(io.StringIO(result.stdout)))
        check_eq((len(rows), {len(r) for r in rows}), (3, {len(rows[0])}), "lines, and their cells")
        check_eq(rows[0][0], "(PDH-CSV 4.0) (UTC)(0)", "the first cell")
        check(all(cell.startswith("\\\\") for cell in rows[0][1:]), rows[0])
        golden("batch", "".join("\\".join(cell.split("\\")[3:]) + "\n" for cell in rows[0][1:]))
        for row in rows[1:]:
            of = dict(zip(["\\".join(cell.split("\\")[3:]) for cell in rows[0]], row))
            check_eq([of["Group Memory(web)\\" + n] for n in ("STATE", "MEMSZ B", "GRANT B", "MCTL?", "FLT/s")],
                     ["running", str(8 * MIB), str(4 * MIB), "N", "0.00"], "cells of web")
            check_eq((of["Memory\\VMKMEM state"], of["Memory\\VMKMEM managed B"]), ("high", str(64 * MIB)), "cells of the host")
            check(int(of["Memory\\PMEM total B"]) > int(of["Memory\\PMEM free B"]) > 0, of)
        line = json.loads(d.run_memctl("top", "--json", "-n", "1", "-d", "0.1", "--vm", "web").stdout)
        check_eq([vm["name"] for vm in line["vms"]], ["web"], "--vm")
        check_eq((line["vms"][0]["granted_bytes"], line["vms"][0]["swap_read_bytes_per_s"], line["recorded"]), (4 * MIB, 0, False), "web")


def test_overcommit_is_averaged():
    """VMs of twice the arena from the first tick on: by as much as the arena itself, in all averages."""
    with daemon(32) as d, Puppet(d, "a", 32), Puppet(d, "b", 32):
        now = json.loads(d.run_memctl("top", "--json", "-n", "1", "-d", "1.2").stdout)["host"]
        one, five, quarter = (now["overcommit_%dm_permille" % m] for m in (1, 5, 15))
        check(0 < quarter <= five <= one <= 1010, "%s" % now)


def test_the_past():
    with tempfile.TemporaryDirectory() as directory, recorded(directory) as d:
        rows = list(csv.reader(io.StringIO(d.run_memctl("top", "-b", "--at", AT(3), "-n", "3", "-o", "CNSM,SWR/s,%LAT_M").stdout)))
        names_of = ["\\".join(cell.split("\\")[3:]) for cell in rows[0]]
        check_eq([row[0] for row in rows[1:]], ["03/17/2030 17:46:43", "03/17/2030 17:46:44", "03/17/2030 17:46:45"], "times, in UTC")
        for i, row in zip((3, 4, 5), rows[1:]):
            of = dict(zip(names_of, row))
            check_eq([of["Group Memory(gone)\\" + n] for n in ("CNSM MiB", "SWR/s MiB", "%LAT_M %")],
                     ["%d.00" % i, "1.00", "5.00"], "of second %d" % i)
        # over the time when memctld was away nothing is made up
        rows = list(csv.reader(io.StringIO(d.run_memctl("top", "-b", "--at", AT(99), "-n", "2", "-o", "CNSM,SWR/s").stdout)))
        check_eq([row[0] for row in rows[1:]], ["03/17/2030 17:48:19", "03/17/2030 17:58:20"], "around the gap")
        check_eq(rows[2][-1], "", "the rate after it")
        with Screen(top(d, "--at", AT(0), "-o", "NAME,CNSM,SWCUR,SWR/s,%LAT_M", "--vm", "gone")) as s:
            s.wait("^2030-03-17 17:46:40 recorded 1 VM")
            s.keys("]", "]")
            golden("past-80x24", s.wait("^2030-03-17 17:46:42 recorded"))
            s.keys("[", "[", "[")
            s.wait("^there is nothing before this")
            s.keys("}", "]")
            s.wait("^2030-03-17 17:47:41 recorded")
            s.keys("b")
            s.type("2030-03-17T17:58:21")
            s.keys("Enter")
            s.wait("^2030-03-17 17:58:21 recorded")
            s.keys("Enter")
            s.wait("^gone  8.0M, balloon driver: no")
            s.keys("Escape", "l")
            s.wait(r"^\d\d:\d\d:\d\d up ")
            s.keys("q")


def test_mistakes():
    with host() as d:
        for code, said, *line in (
                (16, "no column \"nothing\"", "-o", "nothing"), (16, "--sort: \"nothing\"", "--sort", "nothing"),
                (16, "--units: \"auto\"", "--batch", "--units", "auto"), (16, "--units: \"acres\"", "--units", "acres"),
                (16, "--at: \"yesterday\"", "--at", "yesterday"), (16, "--delay: \"0\"", "-d", "0"), (16, "--iterations", "-n", "-1"),
                (16, "step of the history", "-b", "--at", "1h", "-d", "7"), (16, "must be a terminal", "-d", "1"),
                (16, "usage", "web"), (3, "no VM \"nobody\"", "-b", "--vm", "nobody"), (4, "metrics is none", "-b", "--at", "1h"),
                (69, "memctl: ", "-b", "--socket", "/nonexistent")):
            result = d.run_memctl("top", *line)
            check(result.returncode == code and said in result.stderr and not result.stdout, "%s: %d %s" % (line, result.returncode,
                                                                                                     result.stderr))
        for terminal in ("dumb", "no-such-terminal"):
            with Screen(top(d), environment={"TERM": terminal}) as s:
                text = s.wait(r"^\[exit 16\]")
                check("\"%s\" cannot place its cursor" % terminal in text.replace("\n", ""), text)


if __name__ == "__main__":
    main(globals())
