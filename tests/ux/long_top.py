#!/usr/bin/env python3
"""memctl top in terminals of all sizes, without colours, in plain ASCII; and what is left of a terminal when it ends in any way."""
import contextlib
import os
import re
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.check import check, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from screen import Screen  # noqa: E402
from system.puppet import Puppet, daemon  # noqa: E402
from test_top import golden, host, names, top  # noqa: E402
from screen import without_numbers  # noqa: E402

COLOR = re.compile(r"\x1b\[(?:[0-9;]*;)?[34][0-7]m")


def test_sizes():
    """Whatever the size: nothing is wider or higher, the VM and what matters most are there as soon as there is room, and keys work."""
    with host() as d, Puppet(d, "web", 8) as web, Puppet(d, "a-name-that-is-longer-than-any-screen-is-wide-is-cut-off-at-so", 8):
        web.do("fill", 0, 0, 1024, 1, "random")
        for columns, rows in ((200, 60), (132, 43), (80, 24), (60, 15), (40, 12), (30, 8), (20, 6), (12, 4), (5, 2)):
            with Screen(top(d, "-d", "0.2"), columns, rows) as s:
                if columns > 20:
                    s.wait("web")
                else:
                    wait_until(s.pid, 10, "it to run")
                if columns >= 30 and rows >= 8:
                    s.wait("^> web ")
                    check("high state" in s.lines()[0] and "CNSM" in s.text(), s.text())
                if (columns, rows) in ((132, 43), (40, 12)):
                    golden("list-%dx%d" % (columns, rows), without_numbers(s.wait(r"^> web .* 0\.0$")))
                for key in ("Down", "Enter", "Down", "?", "Down", "x", "F6", "Escape", "F2", "Escape", "Escape"):
                    s.keys(key)
                text = s.text()
                check(max(map(len, text.split("\n"))) <= columns and text.count("\n") <= rows, "%dx%d: %r" % (columns, rows, text))
                s.keys("q")
                s.wait(r"exit" if columns > 10 else "0")


def test_resized():
    with host() as d, Puppet(d, "web", 8):
        with Screen(top(d, "-d", "0.5"), 80, 24) as s:
            s.wait("^> web")
            s.resize(132, 30)
            s.wait(" SHRDSVD")
            s.resize(40, 10)
            wait_until(lambda: "GRANT" not in s.text() and "> web" in s.text(), 10, "fewer columns")
            s.keys("Enter")
            s.wait("^web  running")
            s.resize(100, 40)
            wait_until(lambda: len(next(x for x in s.lines() if x.startswith("["))) == 100, 10, "a longer bar")
            s.keys("q")
            s.wait(r"^\[exit 0\]")


def test_colours_are_not_needed():
    with host() as d, Puppet(d, "web", 8):
        for environment, words, wanted in (({}, [], True), ({"NO_COLOR": "1"}, [], False), ({}, ["--color=never"], False),
                                           ({"TERM": "vt100"}, [], False), ({"NO_COLOR": "1"}, ["--color=always"], True)):
            with Screen(top(d, "-d", "0.2", *words), environment=environment) as s:
                text = s.wait("^> web")
                check(bool(COLOR.search(s.colored())) == wanted, "%s %s" % (environment, words))
                check("high state" in text, text)
                s.keys("q")


def test_plain_letters():
    """In an ASCII locale there is nothing else on the screen."""
    with host() as d, Puppet(d, "web", 8) as web:
        web.do("fill", 0, 0, 1024, 1, "random")
        with Screen(top(d, "-d", "0.2"), environment={"LC_ALL": "C"}) as s:
            check("vCNSM" in s.wait("^> web"), "how it is sorted is not said")
            s.keys("Enter")
            text = s.wait("^CNSM.*[:|#.]$|^ .*#$")
            check(text.isascii(), text)
            s.keys("q")


def test_signals():
    """Whatever ends it, the terminal is as it was, and the exit status says what it was."""
    with host() as d, Puppet(d, "web", 8):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGINT, 0), (signal.SIGSEGV, 139),
                               (signal.SIGABRT, 134)):
            with Screen(top(d, "-d", "0.2")) as s:
                s.wait("^> web")
                os.kill(s.pid(), number)
                s.wait(r"^\[exit %d\]" % status)
                check(s.is_as_before(), "after %s the terminal is another" % number)
                check("> web" not in s.text(), "after %s the screen is still there" % number)


def test_stopped_and_continued():
    with host() as d, Puppet(d, "web", 8):
        with Screen([]) as s:
            s.wait(r"^\$")
            s.type("stty -g >$BOX/before; clear; %s" % " ".join(top(d, "-d", "0.2")))
            s.keys("Enter")
            s.wait("^> web")
            s.keys("C-z")
            s.wait("Stopped")
            s.type("stty -g >$BOX/after; echo looked")
            s.keys("Enter")
            s.wait("^looked")
            check(s.is_as_before(), "while it is stopped the terminal is not as it was")
            s.type("fg")
            s.keys("Enter")
            s.wait("^> web")
            s.keys("q")
            s.wait(r"^\$ *$")


def test_a_memctld_that_hangs():
    """It is said, keys work, and it goes on."""
    with host() as d, Puppet(d, "web", 8):
        with Screen(top(d, "-d", "0.2", "--timeout", "0.3")) as s:
            s.wait("^> web")
            os.kill(d.pid, signal.SIGSTOP)
            try:
                s.wait("^No memctld, trying again")
                s.keys("?")
                s.wait("^Keys")
                s.keys("x")
            finally:
                os.kill(d.pid, signal.SIGCONT)
            wait_until(lambda: "No memctld," not in s.text() and "> web" in s.text(), 10, "samples again")
            s.keys("q")


def test_many():
    """More VMs than rows: the selected one is on the screen, and the filter finds the others."""
    with daemon(64) as d, contextlib.ExitStack() as all_of_them:
        for i in range(40):
            all_of_them.enter_context(Puppet(d, "vm-%02d" % i, 1))
        with Screen(top(d, "-d", "0.5", "--sort", "NAME")) as s:
            s.wait("^> vm-00")
            s.keys("End")
            check(names(s.wait("^> vm-39"))[-1] == "vm-39", s.text())
            s.keys("F4")
            s.type("-1")
            check(len(names(s.wait("^Filter: -1"))) == 10, s.text())
            s.keys("Escape", "Home")
            s.wait("^> vm-00")
            s.keys("q")


test_sizes.seconds = test_signals.seconds = 120

if __name__ == "__main__":
    main({k: v for k, v in globals().items() if getattr(v, "__module__", None) == __name__})
