#!/usr/bin/env python3
"""The limits of the endpoint, each with its twin: time, connections, idleness; what Accept prefers; wrong usage."""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import SLOW, build_dir, wait_until  # noqa: E402
from ux.exporter import Exporter, hear, parse  # noqa: E402
from ux.test_endpoint import GET, OPENMETRICS, PROMETHEUS, TEXT, crowd, is_well, read_only  # noqa: E402


def test_accept():
    with read_only() as (_, path), Exporter(path, "--max-age", "3600") as e:
        for accept, wanted in ((None, TEXT), ("", TEXT), ("*/*", TEXT), ("text/plain", TEXT), (PROMETHEUS, OPENMETRICS),
                               ("application/openmetrics-text", OPENMETRICS), ("application/*", OPENMETRICS),
                               ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.7", TEXT),
                               ("application/openmetrics-text; q=0.8; version=1.0.0 , text/plain ;q=0.7", OPENMETRICS),
                               ("application/openmetrics-text;version=9.0.0,text/plain;q=0.1", TEXT),
                               ("Application/OpenMetrics-Text;Q=1", OPENMETRICS), ("application/openmetrics-text;q=0,*/*", TEXT),
                               (";;;q=,,*;=", TEXT), ("text/html", TEXT), ("text/plain;q=0,*/*;q=0.5", OPENMETRICS)):
            code, headers, _ = e.get(accept=accept)
            check_eq((code, headers["content-type"]), (200, wanted), "Accept: %s" % accept)


ENDLESS = b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 4000


def slowly(e, byte_every=0.1):
    """Whether the connection of someone who sends a byte now and then is ended while it has not said much."""
    with e.connect() as s:
        s.setblocking(False)
        for sent in range(25 * SLOW):
            try:
                if s.recv(1) == b"":
                    return True
            except BlockingIOError:
                pass
            except ConnectionResetError:
                return True
            try:
                s.send(ENDLESS[sent:sent + 1])
            except (BrokenPipeError, ConnectionResetError):
                return True
            time.sleep(byte_every)
    return False


def test_slow_requests_are_ended():
    """Each byte would begin an idle time anew: it is the whole request that has its time."""
    with read_only() as (_, path):
        with Exporter(path, "--ask", "0.5") as e:
            check(slowly(e), "it is still being listened to")
            is_well(e)
        with Exporter(path, "--ask", "3600") as e:
            check(not slowly(e), "the twin: without the limit it is ended too")


def ended(sockets):
    n = 0
    for s in sockets:
        s.setblocking(False)
        try:
            n += s.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionResetError:
            n += 1
    return n


def test_a_crowd_keeps_nobody_out():
    """Beyond the limit who says nothing makes room for who asks: the oldest first, and the exporter's descriptors are few."""
    with read_only() as (_, path), Exporter(path, "--connections", "8", "--ask", "3600") as e:
        is_well(e)
        silent = crowd(e, 100)
        for _ in range(5):
            is_well(e)
        check(len(os.listdir("/proc/%d/fd" % e.process.pid)) < 40, "descriptors of the exporter")
        wait_until(lambda: ended(silent) >= 92, 10, "the end of those beyond the limit")
        check(not ended(silent[-3:]), "the newest were ended")
        for s in silent:
            s.close()
        wait_until(lambda: len(os.listdir("/proc/%d/fd" % e.process.pid)) < 14, 10, "descriptors are given back")
        is_well(e)
    # the twin: with room for all nobody is ended
    with read_only() as (_, path), Exporter(path, "--connections", "128", "--ask", "3600") as e:
        silent = crowd(e, 100)
        is_well(e)
        check_eq(ended(silent), 0, "ended with room for all")
        for s in silent:
            s.close()


def test_it_ends_when_nobody_asks():
    """And is started again by the next connection, which waits meanwhile in the socket that stays."""
    with read_only() as (_, path):
        e = Exporter(path, "--idle", "0.3")
        with e:
            is_well(e)
            check_eq(e.process.wait(20 * SLOW), 0, "status")
            s = e.connect()
            s.sendall(GET)
            e.start()
            check_eq(parse(hear(s))[0], 200, "the one that waited")
            s.close()
            with e.connect():
                time.sleep(0.7)
                check(e.process.poll() is None, "it ended with somebody connected")
            check_eq(e.process.wait(20 * SLOW), 0, "status")
            e.start()
            is_well(e)
        with Exporter(path, "--idle", "0") as e:
            is_well(e)
            time.sleep(0.7)
            check(e.process.poll() is None, "the twin: it ended all the same")


def run(*args, **more):
    return subprocess.run([os.path.join(build_dir(), "cli", "memctl-exporter"), *args], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=20 * SLOW, check=False, **more)


def test_wrong_usage():
    for args, said in ((["--listen", "localhost"], "ADDRESS:PORT"), (["--listen", "nowhere.invalid:80"], "ADDRESS:PORT"),
                       (["--ask", "no"], "--ask"), (["--connections", "0"], "--connections"), (["odd"], "odd"), (["--odd"], "odd"),
                       (["--listen"], "listen"), (["--max-age", "nan"], "--max-age")):
        result = run(*args)
        check_eq(result.returncode, 16, "%s: %s" % (args, result.stderr))
        check(said in result.stderr and result.stderr.startswith("memctl-exporter: ") or "option" in result.stderr, result.stderr)
    for args in (["--help"], ["--version"]):
        result = run(*args)
        check(result.returncode == 0 and "memctl-exporter" in result.stdout, "%s" % args)
    with read_only() as (_, path), Exporter(path) as e:
        result = run("--listen", "127.0.0.1:%d" % e.port)
        check_eq(result.returncode, 4, "an address that is taken")
        check("cannot listen on 127.0.0.1" in result.stderr, result.stderr)
    # a descriptor that does not listen
    result = subprocess.run(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3</dev/null',
                             os.path.join(build_dir(), "cli", "memctl-exporter")], capture_output=True, text=True, timeout=20 * SLOW, check=False)
    check_eq((result.returncode, "no listening socket" in result.stderr), (4, True), result.stderr)


if __name__ == "__main__":
    main(globals())
