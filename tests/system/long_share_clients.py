#!/usr/bin/env python3
"""Clients that do not dispatch, are stopped, lie about a remap, or die in the middle of one: no effect on others, no leak."""
import contextlib
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import PAGE  # noqa: E402
from system.sharing import (arena, audit, gone, groups, home, member, pages, passes, scan, shared,  # noqa: E402
                            sharing_daemon)
from torture.actor import SLOW, Actor, Gone  # noqa: E402

N = 1000
FRESH = 100	# pages that nobody wrote to before, each turn
LIAR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "liar.py")


def fill(*puppets, seed=1):
    for p in puppets:
        p.do("fill", 0, 0, N, seed, "text")


def verify(*puppets, seed=1):
    for p in puppets:
        p.check(0, N, seed, "text")


def names(d):
    return {v["name"] for v in d.memctl("vm", "list")["vms"]}


def write_and_share(d, *puppets, turn):
    """All that honest neighbours do, in bounded time: write what is shared, come home, share what is new."""
    began = time.monotonic()
    fill(*puppets, seed=turn)
    home(d, *puppets)
    verify(*puppets, seed=turn)
    first = N + FRESH * turn
    for p in puppets:
        p.do("fill", 0, first, FRESH, turn, "text")
    scan(d)
    wait_until(lambda: all(p.states(first, FRESH) == ["shared"] * FRESH for p in puppets), 20 * SLOW, "fresh pages shared")
    for p in puppets:
        p.check(first, FRESH, turn, "text")
    verify(*puppets, seed=turn)
    check(time.monotonic() - began < 30 * SLOW, "the neighbours are held up")


# ---- who does not dispatch

def test_single_threaded():
    """No helper and nobody in memctl_dispatch: it does not share, and neither waits nor makes others wait.  Its calls carry out
    orders while they wait."""
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8) as b, member(d, "mute", 8, reservation=5, helper=False) as m:
        fill(a, b, m)
        passes(d)
        for p in (a, b):
            check_eq(pages(p, "shared"), N, "pages that %s shares" % p.name)
        for turn in range(2, 5):
            write_and_share(d, a, b, turn=turn)
            m.do("fill", 0, 0, N, turn, "text")
            m.check(0, N, turn, "text")
        audit(d, still_owed=True)
        # calls that need orders carried out do it themselves
        for call in ("will_need", "populate", "pin", "unpin", "discard"):
            m.do(call, 0, 0, N)
        m.check(0, N, 0, "zero")
        m.do("release", 0)
        verify(a, b, seed=4)
        audit(d)


def test_helper_comes_late():
    """Pages that were found before anybody could map them."""
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8, helper=False) as b:
        fill(a, b)
        passes(d)
        verify(a, b)
        b.do("helper")
        shared(d, (a, N), (b, N))
        verify(a, b)
        audit(d)


def test_stopped_while_shared():
    """SIGSTOP while the scan is told to pass: what it owes is owed, others go on, and it goes on where it was."""
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8) as b, member(d, "s", 8) as s:
        hammer = s.do("hammer", 0, N, 100)[0]
        for turn in (1, 2, 5):
            fill(a, b, s, seed=turn)
            if turn % 2:
                scan(d)
                time.sleep(0.5)
            s.stop()
            scan(d)
            write_and_share(d, a, b, turn=turn + 4)
            audit(d, still_owed=True)
            s.go_on()
            s.check(0, N, turn, "text")
        check_eq(s.do("rest", hammer)[0], "0", "words lost")
        home(d, a, b, s)
        verify(s, seed=5)
        fill(a, b, s, seed=9)
        verify(a, b, s, seed=9)
        for p in (a, b, s):
            p.do("fill", 0, 1900, 100, 9, "text")
        scan(d)
        wait_until(lambda: all(p.states(1900, 100) == ["shared"] * 100 for p in (a, b, s)), 20 * SLOW, "all share again")
        check_eq(s.numbers()["trouble"], "", "trouble")
        audit(d)


def test_a_pass_ends_without_a_stopped_client():
    """What an operator asks for is over although a client owes an answer: it is passed over."""
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8) as b, member(d, "s", 8) as s:
        fill(a, b, s)
        s.stop()
        scan(d)
        wait_until(lambda: s.numbers()["orders_late"], 20 * SLOW, "an order that is owed")
        check(pages(s, "shared") < N, "the stopped client has shared all")
        for _ in range(2):
            passes(d)
        s.go_on()
        shared(d, (a, N), (b, N), (s, N))
        verify(a, b, s)
        audit(d)


# ---- who lies

@contextlib.contextmanager
def lying(d, how, honest):
    """A liar in the group whose pages are like those of the honest."""
    file = os.path.join(d.dir, "content")
    honest.do("save", 0, 0, N, 1, "text", 0, file)
    with Actor(d, "liar", [sys.executable, LIAR, d.socket, "liar", str(N), file, how]) as liar:
        check_eq(liar.hear(30, "ready"), "ready")
        try:
            yield liar
        finally:
            liar.kill()


def said(actor):
    """All it has said so far."""
    lines = []
    while not actor.quiet(0.2):
        lines.append(actor.hear(1))
    return lines


def lie(how, ends=None):
    """`ends`: whether its session must have been ended (None: may be)."""
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8) as b:
        fill(a, b)
        shared(d, (a, N), (b, N))
        free = arena(d)["charged_bytes"] // PAGE
        with lying(d, how, a) as liar:
            scan(d)
            time.sleep(1.3)
            liar.tell("touch")
            for turn in range(2, 4):
                write_and_share(d, a, b, turn=turn)
                audit(d, still_owed=True)
            lines = said(liar)
            check([l for l in lines if l.startswith("order share")], "it was never ordered to share: %s" % lines[:5])
            if ends is not None:
                check_eq("liar" not in names(d), ends, "its session is ended: %s" % d.log()[-500:])
        wait_until(lambda: names(d) == {"a", "b"}, 20 * SLOW, "the end of the liar")
        fill(a, b, seed=1)
        verify(a, b)
        home(d, a, b)
        # of the two each page is charged, once or twice, and nothing else; of the pool nothing is referred to but by them
        more = arena(d)["charged_bytes"] // PAGE - free
        check(more <= N + 3 * FRESH + 64, "%d frames more are charged than before it came" % more)
        check(groups(d)["g"]["common_bytes"] // PAGE <= N + 3 * FRESH, "entries that nobody needs: %s" % groups(d))
        audit(d)
        check(d.alive(), "memctld has died")
        a.kill()
        b.kill()
        gone(d)
        return lines


def test_liar_maps_nothing():
    lie("honest_word")


def test_liar_says_all_was_written():
    lie("all_dirty")


def test_liar_answers_garbage():
    lie("garbage")


def test_liar_is_silent():
    lie("silent", ends=False)


def test_liar_skips_orders():
    lie("skip")


def test_liar_does_half():
    lie("partial")


def test_liar_does_nothing():
    lie("none", ends=False)


def test_liar_answers_others():
    lie("wrong_order")


def test_liar_maps_and_does_not_come_home():
    lie("home_only")


# ---- who dies

def test_killed_at_any_moment():
    """Killed while it shares, breaks and comes home, many times; the neighbours hammer and read what they wrote."""
    rng = random.Random(5)
    with sharing_daemon(64) as d, member(d, "a", 8) as a, member(d, "b", 8) as b:
        fill(a, b)
        shared(d, (a, N), (b, N))
        hammer = a.do("hammer", 0, N, 200)[0]
        # words to count in, in pages that are shared with b, and with those that die
        for p in (a, b):
            p.do("fill", 0, 1500, 200, 1, "zero")
        for turn in range(12):
            with member(d, "v%d" % turn, 8) as v:
                fill(v)
                scan(d)
                for _ in range(rng.randrange(3)):
                    time.sleep(rng.random() * 0.9)
                    with contextlib.suppress(Gone):
                        v.do("touch", 0, rng.randrange(N - 300), 300, turn, "text", "w")
                # a command that is under way when it dies
                v.tell("fill 0 0 %d %d text" % (N, turn))
                time.sleep(rng.random() * 0.04)
                v.kill()
            if turn % 5 == 4:
                b.do("touch", 0, 0, 200, turn, "text", "w")
                home(d, b)
                fill(b)
                wait_until(lambda: names(d) == {"a", "b"}, 20 * SLOW, "the end of the dead")
                a.check(0, N, 1, "text")
                b.check(0, N, 1, "text")
                audit(d)
        check_eq(a.do("rest", hammer)[0], "0", "words lost")
        wait_until(lambda: names(d) == {"a", "b"}, 20 * SLOW, "the end of the dead")
        fill(a, b)
        check(groups(d)["g"]["common_bytes"] // PAGE <= N + 400, "entries that nobody needs: %s" % groups(d))
        verify(a, b)
        audit(d)
        a.kill()
        b.kill()
        gone(d)


for function in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    function.seconds = 150

if __name__ == "__main__":
    main(globals())
