#!/usr/bin/python3
"""Unicorn guests: the example of the library, and packaging/demo in its small form."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Daemon, TREE, build_dir  # noqa: E402


def program(name):
    path = os.path.join(build_dir(), "packaging", "demo.d", name)
    if not os.path.exists(path):
        skip("built without Unicorn")
    return path


def start(*args, **more):
    program("demo-emulator")
    command = [os.path.join(TREE, "packaging", "demo"), "--build", build_dir(), "--small", *args]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **more)


def temporary_directories(top):
    return [n for n in os.listdir(top) if n.startswith("memctl-demo-")]


def kill_memctld(top):
    """The daemon of the demo whose temporary directory is in `top`, and no other."""
    for entry in os.listdir("/proc"):
        try:
            program_file = os.readlink("/proc/%s/exe" % entry)
        except OSError:
            continue
        if program_file.startswith(top + "/") and program_file.endswith("/memctld"):
            os.kill(int(entry), signal.SIGKILL)


def test_unicorn_example_counts_right():
    example = program("unicorn-example")
    with Daemon(arena=32 << 20) as d:
        result = subprocess.run([example], env=d.environ(), capture_output=True, text=True, check=False)
        check_eq(result.returncode, 0, "exit status; it said %s%s" % (result.stdout, result.stderr))
        check("right" in result.stdout, "the guest's sum is right: %s" % result.stdout)


def test_demo_every_byte_is_right():
    with tempfile.TemporaryDirectory() as d:
        # what is named, a link or a device, is written to and stays what it is
        out = os.path.join(d, "out.json")
        os.symlink("there", out)
        demo = start("--json", out)
        text = demo.communicate()[0]
        check_eq(demo.returncode, 0, "exit status; it said %s" % text[-1500:])
        with open(os.path.join(d, "there")) as f:
            numbers = json.load(f)
    check_eq(numbers["wrong_pages"], 0, "wrong pages")
    check(numbers["verified_pages"] > 4 * 10240, "every page of every guest is verified")
    check("verified %d pages, 0 wrong" % numbers["verified_pages"] in text, "it says so")
    check(numbers["arena_peak_bytes"] <= numbers["arena_bytes"], "the arena is a wall")
    check_eq(numbers["leased_bytes"], numbers["arena_bytes"] * 5 // 2, "leased")
    check(numbers["compressed_bytes"] > 0 and numbers["swapped_bytes"] > 0, "compressed and swapped")
    check(numbers["shared_saved_bytes"] > 0, "saved by sharing")
    check(numbers["ballooned_peak_bytes"] > 0 and numbers["inflated_pages"] > 0, "given by the guests' own drivers")
    check_eq(numbers["balloon_touched_pages"], 0, "pages of a balloon that were used")
    check_eq(len(numbers["vms"]), 4, "VMs")


test_demo_every_byte_is_right.seconds = 240


def test_demo_finds_a_flipped_bit():
    """And with --json -, nothing but the numbers is on stdout."""
    demo = start("--rounds", "1", "--twin", "flip", "--json", "-", stderr=subprocess.PIPE)
    numbers, text = demo.communicate()
    check_eq(demo.returncode, 1, "exit status; it said %s" % text[-1500:])
    check(json.loads(numbers)["wrong_pages"] > 0, "it counts the page")
    check("verified" in text and ", 0 wrong" not in text.splitlines()[-1], "and says so")


test_demo_finds_a_flipped_bit.seconds = 240


def test_demo_finds_a_driver_that_does_not_keep_what_it_gave():
    """Its guest's allocator gives the pages to others."""
    demo = start("--rounds", "1", "--twin", "unkept", stderr=subprocess.PIPE)
    text = demo.communicate()[1]
    check_eq(demo.returncode, 1, "exit status; it said %s" % text[-1500:])
    check("in the balloon, where there are" in text, "it says so: %s" % text[-1500:])


test_demo_finds_a_driver_that_does_not_keep_what_it_gave.seconds = 240


def test_demo_runs_as_an_ordinary_user():
    if os.geteuid() != 0:
        skip("every other scenario does so already")
    demo = os.path.join(TREE, "packaging", "demo")
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    reachable = subprocess.run(["test", "-x", demo, "-a", "-x", build_dir()], check=False, **nobody)
    if reachable.returncode:
        skip("other users may not look into this tree")
    demo = start("--rounds", "1", **nobody)
    text = demo.communicate()[0]
    check_eq(demo.returncode, 0, "exit status; it said %s" % text[-1500:])
    check(", 0 wrong" in text.splitlines()[-1], "no wrong page")


test_demo_runs_as_an_ordinary_user.seconds = 240


def test_demo_says_that_its_daemon_died():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o1777)
        demo = start(env=dict(os.environ, TMPDIR=top), stderr=subprocess.PIPE)
        for line in demo.stdout:
            if line.startswith("4 emulators"):
                break
        time.sleep(1)
        kill_memctld(top)
        text = demo.communicate(timeout=60)[1]
        check_eq(demo.returncode, 1, "exit status; it said %s" % text)
        check("memctld ended with status -9" in text, "it says why: %s" % text)
        check_eq(temporary_directories(top), [], "temporary directories left")


test_demo_says_that_its_daemon_died.seconds = 120


def test_demo_cleans_up_on_a_signal():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        demo = start(env=dict(os.environ, TMPDIR=top))
        for line in demo.stdout:
            if line.startswith("4 emulators"):
                break
        time.sleep(1)
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=30)
        check_eq(demo.returncode, 128 + signal.SIGTERM, "exit status")
        check_eq(temporary_directories(top), [], "temporary directories left")


test_demo_cleans_up_on_a_signal.seconds = 120

if __name__ == "__main__":
    main(globals())
