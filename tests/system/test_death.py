#!/usr/bin/env python3
"""Clients that disappear in the middle of anything: VM, frames, swap and descriptors come back."""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, Puppet, calm, daemon, no_vms  # noqa: E402
from torture.actor import SLOW, Actor  # noqa: E402

SEED = int(os.environ.get("MEMCTL_SEED", random.SystemRandom().randrange(1 << 31)))


def open_files(d):
    """What the daemon's descriptors point to."""
    links = []
    for fd in os.listdir("/proc/%d/fd" % d.pid):
        try:
            links.append(os.readlink("/proc/%d/fd/%s" % (d.pid, fd)))
        except OSError:
            continue
    return links


def threads(d):
    return len(os.listdir("/proc/%d/task" % d.pid))


def oracle(d, name, seed, size_mib):
    o = Actor(d, name, [os.path.join(d.build, "tests", "torture", "oracle"), "--name", name, "--owner", "9",
                        "--seed", str(seed), "--size", str(size_mib * MIB), "--reservation", str(MIB)])
    o.vm = name
    return o


def test_killed_under_load():
    """Twenty times kill -9 at a random moment, with a neighbour whose words are never disturbed."""
    print("seed %d" % SEED, file=sys.stderr)
    rng = random.Random(SEED)
    with daemon(32) as d:
        with Puppet(d, "warm", 4) as p:
            p.do("fill", 0, 0, 100, 1, "mix")
        no_vms(d)
        files, n_threads = len(open_files(d)), threads(d)
        with Puppet(d, "neighbour", 16, reservation=2) as b:
            b.do("fill", 0, 1024, 3072, 1, "mix")
            hammer = b.do("hammer", 0, 0, 600)[0]
            for turn in range(20):
                o = oracle(d, "victim%d" % turn, rng.randrange(1 << 30), 48)
                try:
                    time.sleep(rng.random() * (0.3 if turn % 3 else 2.5))
                finally:
                    o.kill()
                wait_until(lambda: [v["name"] for v in d.memctl("vm", "list")["vms"]] == ["neighbour"], 20 * SLOW,
                           "release of victim %d" % turn)
                if turn % 5 == 4:
                    d.audit()
            check_eq(b.do("rest", hammer)[0], "0", "words that the neighbour lost")
            b.check(1024, 3072, 1, "mix")
            calm(d)
            d.audit()
        no_vms(d)
        wait_until(lambda: threads(d) <= n_threads, 10 * SLOW, "the end of threads")
        left = open_files(d)
        check(len(left) <= files, "descriptors: %d before, now %s" % (files, left))
        check(not [f for f in left if f.startswith(d.swap_dir + "/")], "no swap file is open")
        d.audit()


def test_killed_while_stopped():
    with daemon(32) as d, Puppet(d, "b", 24) as b:
        a = Puppet(d, "a", 24)
        a.do("fill", 0, 0, a.pages, 1, "mix", seconds=90)
        a.stop()
        b.do("fill", 0, 0, b.pages, 2, "mix", seconds=90)
        a.kill()
        wait_until(lambda: len(d.memctl("vm", "list")["vms"]) == 1, 20 * SLOW, "release")
        b.check(0, b.pages, 2, "mix")
        d.audit()


def test_name_is_free_again():
    """The next VM of the same name gets it, and starts with zeros."""
    with daemon(32) as d:
        for turn in range(5):
            p = Puppet(d, "same", 24)
            p.check(0, 512, 0, "zero")
            p.do("fill", 0, 0, p.pages, turn, "mix", seconds=90)
            p.kill()
            wait_until(lambda: not d.memctl("vm", "list")["vms"], 20 * SLOW, "release")
        no_vms(d)


def test_fork_does_not_disturb():
    """A lease is not inherited: the children that a client makes read nothing of it and break nothing."""
    with daemon(32) as d, Puppet(d, "vm", 24) as p:
        p.do("fill", 0, 0, 2048, 1, "mix")
        flags = subprocess.run(["grep", "-c", "^VmFlags:.* dc", "/proc/%d/smaps" % p.process.pid], check=False,
                               capture_output=True, text=True).stdout.strip()
        check(int(flags or 0) >= 1, "the lease is mapped DONTFORK")
        p.check(0, 2048, 1, "mix")


def test_vm_removed_by_operator():
    """`vm rm` ends a VM as if its client had died; the neighbour stays."""
    with daemon(32) as d, Puppet(d, "b", 16) as b:
        a = Puppet(d, "a", 24)
        try:
            a.do("fill", 0, 0, a.pages, 1, "mix", seconds=90)
            b.do("fill", 0, 0, b.pages, 2, "mix", seconds=90)
            d.run_memctl("vm", "rm", "a")
            wait_until(lambda: [v["name"] for v in d.memctl("vm", "list")["vms"]] == ["b"], 20 * SLOW, "release")
        finally:
            a.kill()
        b.check(0, b.pages, 2, "mix")
        d.audit()


test_killed_under_load.seconds = 200 * int(SLOW)
for function in [f for n, f in globals().items() if n.startswith("test_") and not hasattr(f, "seconds")]:
    function.seconds = 90 * int(SLOW)

if __name__ == "__main__":
    main(globals())
