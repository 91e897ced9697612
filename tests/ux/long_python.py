#!/usr/bin/env python3
"""The binding for Python before mypy, and with an emulator: guest code by Unicorn on leased memory, more than the arena has."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import SLOW  # noqa: E402
from system.puppet import daemon  # noqa: E402
from ux.python import PACKAGE, PYTHON, environ  # noqa: E402
from ux.test_python import header, of_header, of_python  # noqa: E402

EXAMPLE = os.path.join(PACKAGE, "examples", "unicorn_guest.py")


def test_whatever_moves_in_the_header_is_seen():
    ours = of_python()
    for old, new in (("uint32_t shares;", "uint64_t shares;"), ("uint64_t need, have;", "uint64_t have, need;"),
                     ("char message[320];", "char message[328];"),
                     ("MEMCTL_EVENT_LOST,", "MEMCTL_EVENT_LOST = 9,"),
                     ("#define MEMCTL_NO_LIMIT UINT64_MAX", "#define MEMCTL_NO_LIMIT INT64_MAX"),
                     ("uint64_t shared, saved;", "uint64_t shared, saved, later;"),
                     ("MEMCTL_FAULTS_USER_MODE,", "MEMCTL_FAULTS_USER_MODE, MEMCTL_FAULTS_NEW,")):
        check(old in header(), old)
        check(of_header(header().replace(old, new)) != ours, "%s was not seen" % new)


EVENTS = """
import asyncio, memctl, select, sys
m = memctl.Memctl()
m.register("py", 1 << 20)
async def main():
    if sys.argv[1] == "helper":
        m.helper_start()
    print("ready", flush=True)
    async for event in m.watch():
        print(event.kind.name, flush=True)
        if event.kind == memctl.EventKind.RELEASED:
            return
def loop():
    print("ready", flush=True)
    while True:
        select.select([m], [], [], 1)
        m.dispatch()
        for event in m.events():
            print(event.kind.name, flush=True)
            if event.kind == memctl.EventKind.RELEASED:
                return
ram = m.lease(0, 1 << 20)
with ram.view() as view:
    view[0] = 9
loop() if sys.argv[1] == "select" else asyncio.run(main())
assert m.plain and ram.view()[0] == 9
"""


def test_events_come():
    """By asyncio with the helper and without, and by select."""
    for how in ("helper", "asyncio", "select"):
        with daemon(32) as d, subprocess.Popen([PYTHON, "-c", EVENTS, how], env=environ(d), stdin=subprocess.DEVNULL,
                                               stdout=subprocess.PIPE, text=True) as p:
            check_eq(p.stdout.readline(), "ready\n", how)
            d.memctl("vm", "release", "py")
            check("RELEASED\n" in p.stdout.read(), how)
            check_eq(p.wait(), 0, "exit with " + how)


def test_mypy_finds_nothing():
    if not shutil.which("mypy"):
        skip("mypy is not installed (Debian: mypy)")
    strict = ["mypy", "--strict", "--cache-dir", os.devnull]
    done = subprocess.run([*strict, os.path.join(PACKAGE, "memctl")], capture_output=True, text=True, check=False)
    check_eq(done.returncode, 0, done.stdout)
    # who uses it is checked too: the twin takes a number for a VM's name
    for name, good in (('"web"', True), ("7", False)):
        program = "import memctl\nm = memctl.Memctl()\nm.register(%s, 1 << 20)\nv: memoryview = m.lease(0, 4096).view()" % name
        done = subprocess.run([*strict, "-c", program], capture_output=True, text=True, env=dict(os.environ, MYPYPATH=PACKAGE), check=False)
        check_eq(done.returncode == 0, good, done.stdout)


test_mypy_finds_nothing.seconds = 120


def test_unicorn_runs_on_a_lease():
    """16 MiB of guest in a limit of what 16 MiB of arena leave: every page is written, taken, and read back right."""
    if subprocess.run([PYTHON, "-c", "import unicorn"], capture_output=True, check=False).returncode:
        skip("Unicorn for Python is not installed (Debian: python3-unicorn)")
    with daemon(16) as d:
        done = subprocess.run([PYTHON, EXAMPLE, "2"], env=environ(d), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=100 * SLOW, check=False)
        check_eq((done.returncode, done.stderr), (0, ""), "exit, stderr")
        check_eq(done.stdout.count("the guest counted 8386560, right"), 2, done.stdout)
        check(d.log(), "a log")


test_unicorn_runs_on_a_lease.seconds = 120


if __name__ == "__main__":
    main(globals())
