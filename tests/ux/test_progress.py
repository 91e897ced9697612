#!/usr/bin/env python3
"""The line of progress: on a terminal, and nowhere else; it is gone before anything else is said.  No clock is asked how late it is."""
import io
import os
import pty
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)
from fake import Fake  # noqa: E402
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import build_dir  # noqa: E402
import progress  # noqa: E402
import runner  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
MIB = 1 << 20


def on_terminal(f, *words, terminal="xterm", stderr=True):
    """Its exit status, stdout, and what came to the terminal that is its stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([MEMCTL, "--socket", f.socket, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=theirs if stderr else subprocess.PIPE, env=dict(os.environ, TERM=terminal)) as p:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # nobody has it open any more
                break
            if not more:
                break
            drawn += more
        out = p.stdout.read()
        said = drawn if stderr else p.stderr.read()
        p.wait()
    os.close(ours)
    return p.returncode, out.decode(), said.decode()


def shrinking():
    """Each look finds less to be brought back."""
    left = [48 * MIB, 32 * MIB, 16 * MIB, 0]

    def show(_):
        bytes_left = left.pop(0) if left else 0
        return {"vm": {"page_in_left_bytes": bytes_left, "swapped_bytes": bytes_left}}
    return {"PageIn": {"pages": 64 * MIB // 4096}, "ShowVm": show}


def test_page_in():
    with Fake(shrinking()) as f:
        status, out, said = on_terminal(f, "vm", "page-in", "web", "--wait")
    check_eq((status, out), (0, "64 MiB were to be brought back\n"), "what it says at the end")
    lines = said.split("\r")
    check_eq(lines[0], "", "before the first line")
    check(lines[1].startswith("paging in   16 MiB of 64 MiB    25 %") and lines[1].endswith("\033[K"), repr(said))
    check(any("32 MiB of 64 MiB    50 %" in line for line in lines) and all(len(line) <= 80 + 3 for line in lines), repr(said))
    check_eq(lines[-1], "\033[K", "the line is gone")


def test_nowhere_else():
    for options, more in (([], {"stderr": False}), (["--json"], {}), (["-q"], {}), (["--quiet"], {}), ([], {"terminal": "dumb"})):
        with Fake(shrinking()) as f:
            status, _, said = on_terminal(f, "vm", "page-in", "web", "--wait", *options, **more)
        check_eq((status, said), (0, ""), "with %s %s" % (options, more))


def test_beside_a_call():
    """While one connection waits for its answer, another looks; what is refused is said on a line of its own."""
    answers = shrinking()

    def release(_):
        while len([m for m, _ in f.asked if m == "ShowVm"]) < 3:
            time.sleep(0.01)
        return {"pages": 5}

    answers["ReleaseVm"] = release
    with Fake(answers) as f:
        status, out, said = on_terminal(f, "vm", "release", "web")
    check_eq((status, out), (0, "web has its memory as its own; 5 pages were brought in\n"), "release")
    check("bringing in   0 B of 48 MiB     0 %" in said and "of 48 MiB    33 %" in said and said.endswith("\r\033[K"), repr(said))
    with Fake({"ShowVm": answers["ShowVm"]}) as f:
        status, out, said = on_terminal(f, "vm", "release", "web")
    check(status and "memctl: " in said and "bringing" not in said.split("memctl: ")[-1], repr(said))


# ---- in Python

class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_line():
    check_eq(progress.line("demo", 0, 64, 0), "demo   0 of 64     0 %", "at the beginning")
    check_eq(progress.line("demo", 16, 64, 4, "jobs"), "demo   16 of 64 jobs    25 %   4.0 jobs/s   12 s left", "later")
    check_eq(progress.line("demo", 64, 64, 4), "demo   64 of 64   100 %   16/s", "at the end")
    check_eq([progress.duration(s) for s in (0.2, 89, 90, 5399, 5400)], ["1 s", "89 s", "2 min", "90 min", "2 h"], "times")


def test_writer():
    os.environ["TERM"] = "xterm"
    clock, stream = [0.0], Terminal()
    p = progress.Progress(stream=stream, now=lambda: clock[0])
    p.show("one")
    p.show("too soon")
    clock[0] = 1
    p.show("x" * 300)
    p.clear()
    p.clear()
    check_eq(stream.getvalue(), "\rone\033[K\r%s\033[K\r\033[K" % ("x" * 79), "drawn")
    for quiet in (progress.Progress(quiet=True, stream=Terminal()), progress.Progress(stream=io.StringIO())):
        quiet.show("anything")
        quiet.clear()
        check_eq(quiet.stream.getvalue(), "", "nothing")


def test_suites():
    clock = [100.0]
    suites = {"unit": {"seconds": 60}, "wire": {"seconds": 30}}
    w = runner.Watched(suites, ["unit", "wire"], progress.Progress(quiet=True), now=lambda: clock[0])
    w.next("unit")
    clock[0] += 20
    check_eq(w.text("unit/policy"), "suite 1 of 2: unit/policy   20 of about 60 s   all: 70 s left", "in the first")
    clock[0] += 100
    check_eq(w.text(), "suite 1 of 2: unit   120 of about 60 s   all: 30 s left", "longer than declared")
    w.next("wire")
    check_eq(w.text(), "suite 2 of 2: wire   0 of about 30 s   all: 30 s left", "in the second")


if __name__ == "__main__":
    main(globals())
