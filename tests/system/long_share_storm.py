#!/usr/bin/env python3
"""Many breaks at once: copy-on-write storms in a full arena, and a VM that breaks and never brings home."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from system.puppet import PAGE, Puppet  # noqa: E402
from system.sharing import arena, audit, gone, home, member, pages, passes, scan, sharing_daemon  # noqa: E402
from torture.actor import SLOW  # noqa: E402

N = 3000


def below_the_wall(d):
    a = arena(d)
    check(a["peak_bytes"] <= a["size_bytes"], "peak %d, capacity %d" % (a["peak_bytes"], a["size_bytes"]))


def all_share(d, names, size=16):
    """One after the other, so that the arena never has to hold all their pages at once."""
    puppets = []
    for name in names:
        puppets.append(member(d, name, size))
        puppets[-1].do("fill", 0, 0, N, 1, "mix", seconds=120)
        if len(puppets) > 1:
            passes(d)
    shared_pages = [pages(p, "shared") for p in puppets]
    check(min(shared_pages) > N // 2, "pages shared: %s" % shared_pages)
    return puppets


def together(puppets, *command, seconds=120):
    """The same command, carried out by all at once; what each answers, and how long it took."""
    began = time.monotonic()
    for p in puppets:
        p.tell(" ".join(str(w) for w in command))
    answers = [p._answer(command[0], seconds) for p in puppets]  # the answers to what was told
    return answers, time.monotonic() - began


def test_storm_in_an_arena_that_is_full():
    """The arena is full of others' pages when they write: frames for copies come from reclaim."""
    with sharing_daemon(32) as d:
        puppets = all_share(d, "abc")
        try:
            with Puppet(d, "full", 32, sharing="off") as c:
                c.do("fill", 0, 0, c.pages, 9, "random", seconds=120)
                hammer = c.do("hammer", 0, 6000, 1)[0]
                together(puppets, "touch", 0, 0, N, 1, "mix", "w")
                for p in puppets:
                    p.check(0, N, 1, "mix")
                together(puppets, "fill", 0, 0, N, 4, "mix")
                for p in puppets:
                    p.check(0, N, 4, "mix")
                below_the_wall(d)
                audit(d)
                c.check(0, 6000, 9, "random")
                c.do("rest", hammer)
        finally:
            for p in puppets:
                p.kill()
        gone(d)


def test_storm_with_threads():
    """Several threads of several VMs write the same pages, again and again, while the scan shares them again."""
    with sharing_daemon(32) as d:
        puppets = all_share(d, "ab")
        try:
            hammers = []
            for p in puppets:
                p.do("fill", 0, 3072, 800, 1, "zero")
                hammers += [(p, p.do("hammer", 0, 3072, 800)[0]) for _ in range(2)]
            for turn in range(4):
                scan(d)
                together(puppets, "fill", 0, 0, N, 5 + turn, "text")
                for p in puppets:
                    p.check(0, N, 5 + turn, "text")
                # what the scan has in its hands at this moment has its reference already
                audit(d, still_owed=True)
            for p, h in hammers:
                check_eq(p.do("rest", h)[0], "0", "words lost by %s" % p.name)
            home(d, *puppets)
            audit(d)
        finally:
            for p in puppets:
                p.kill()
        gone(d)


def test_who_never_brings_home():
    """One breaks all its pages and its library is stopped: what it holds is bounded, and others break at their own pace."""
    with sharing_daemon(32) as d:
        puppets = all_share(d, "abc")
        try:
            a, b, bad = puppets
            bad.tell("fill 0 0 %d 7 text" % N)
            time.sleep(0.02)
            bad.stop()
            for turn in range(3):
                _, seconds = together((a, b), "fill", 0, 0, N, 10 + turn, "text")
                check(seconds < 30 * SLOW, "the neighbours took %.1f s" % seconds)
                for p in (a, b):
                    p.check(0, N, 10 + turn, "text")
                home(d, a, b)
                scan(d)
                time.sleep(1)
            check(bad.numbers()["breaking_bytes"] <= 4096 * PAGE, "it holds more than it may")
            below_the_wall(d)
            audit(d, still_owed=True)
            bad.go_on()
            bad._answer("fill", 120)
            bad.check(0, N, 7, "text")
            home(d, bad)
            audit(d)
        finally:
            for p in puppets:
                p.kill()
        gone(d)


for function in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    function.seconds = 150

if __name__ == "__main__":
    main(globals())
