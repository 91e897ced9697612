#!/usr/bin/env python3
"""What one user's calls take of memctld's memory, however many connections they come by."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from hostile.beside import MIB, anonymous, has_sanitizer  # noqa: E402
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Daemon, build_dir, wait_until  # noqa: E402
from wire.client import Client, Closed, Refused  # noqa: E402

# its replies are not read, so what comes behind it waits, parsed
FIRST = b'{"method":"org.memctl.ShowConfig"}\0' * 30


def call(value):
    return b'{"method":"org.memctl.ShowVm","parameters":{"vm":' + value + b"}}\0"


def objects(n):
    return call(b"[" + b",".join([b"{}"] * n) + b"]")


def send_all(messages):
    """{client: what it sends}: as far as memctld takes it, without waiting for one of them alone."""
    rest = dict(messages)
    for c in rest:
        c.socket.setblocking(False)

    def sent():
        for c in list(rest):
            with contextlib.suppress(BlockingIOError):
                try:
                    rest[c] = rest[c][c.socket.send(rest[c]):]
                except (BrokenPipeError, ConnectionResetError):
                    rest[c] = b""
            if not rest[c]:
                del rest[c]
        return not rest

    wait_until(sent, 30, "the sending")


def growth(messages, twin=None):
    """How much larger memctld is with these on a connection each, none of which is read from; its log."""
    if has_sanitizer(build_dir()):
        skip("a sanitizer keeps what was freed")
    with Daemon(env={"MEMCTLD_TWIN": twin} if twin else None) as d, contextlib.ExitStack() as stack, Client(d.socket) as other:
        other.call("Status")
        before = anonymous(d)
        clients = [stack.enter_context(Client(d.socket)) for _ in messages]
        send_all({c: FIRST + message for c, message in zip(clients, messages)})
        for _ in range(200):
            other.call("Status")
        return anonymous(d) - before


def test_a_short_text_that_becomes_large():
    more = growth([objects(80000)] * 40)
    check(more < 40 * MIB, "40 calls of 240 KiB take %d MiB" % (more >> 20))


def test_a_short_text_that_becomes_large_twin():
    more = growth([objects(80000)] * 40, twin="unweighed")
    check(more > 100 * MIB, "the twin takes %d MiB only" % (more >> 20))


def test_what_is_within_the_limit_of_one_call():
    """Many of them are not within that of a user; who sends short calls does not come to it."""
    with Daemon() as d, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(d.socket)) for _ in range(80)]
        for c in clients:
            c.send_bytes(FIRST)
            c.send_bytes(objects(2500))
        with Client(d.socket) as c:
            check("status" in c.call("Status"), "a short call is answered")
        answers = {"InvalidParameter": 0, "LimitReached": 0}
        for c in clients:
            for _ in range(30):
                check("settings" in c.receive(), "what came before it is answered")
            with contextlib.suppress(Closed):
                try:
                    c.receive()
                except Refused as e:
                    answers[e.name.rsplit(".", 1)[-1]] += 1
        check(answers["LimitReached"] > 10 and answers["InvalidParameter"] > 10, "answers: %s" % answers)
        with Client(d.socket) as c:
            c.send_bytes(objects(2500))
            try:
                c.receive()
            except Refused as e:
                check_eq(e.name, "org.varlink.service.InvalidParameter", "when the others were answered")


def test_halves():
    """Of calls without an end as many are kept as a user may have."""
    with Daemon(args=["--set", "max_sessions_per_user=520"]) as d, contextlib.ExitStack() as stack:
        before = anonymous(d)
        clients = [stack.enter_context(Client(d.socket)) for _ in range(400)]
        half, ended = call(b'"' + b"x" * 250000 + b'"')[:-1], 0
        send_all({c: half for c in clients})
        with Client(d.socket) as c:
            c.call("Status")
        for c in clients:
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                ended += b"LimitReached" in c.socket.recv(4096)
        check(ended > 100, "%d were refused" % ended)
        more = anonymous(d) - before
        check(more < 120 * MIB or has_sanitizer(d.build), "400 halves of calls take %d MiB" % (more >> 20))


if __name__ == "__main__":
    main(globals())
