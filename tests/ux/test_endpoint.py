#!/usr/bin/env python3
"""The endpoint for Prometheus: it says what `memctl metrics` says, whatever it is sent, and costs memctld one question a second."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from service.openmetrics import parse as parse_openmetrics, parse_text  # noqa: E402
from system.puppet import Puppet, daemon  # noqa: E402
from ux.exporter import Counter, Exporter, hear, parse  # noqa: E402

GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
OPENMETRICS, TEXT = "application/openmetrics-text; version=1.0.0; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"
# of Prometheus 2.42
PROMETHEUS = ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
              "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")


@contextlib.contextmanager
def read_only(arena=16, **more):
    """A memctld, and the path of its read-only socket."""
    d = daemon(arena, **more)
    path = os.path.join(d.dir, "ro.sock")
    d.args += ["--set", "socket_ro=" + path]
    with d:
        yield d, path


def is_well(e):
    code, _, body = e.get()
    check_eq(code, 200, "a scrape afterwards")
    check(b"memctl_up 1\n" in body, "memctl_up")


def test_it_says_what_memctl_says():
    with read_only(settings=["SamplePeriod=0", "ShareScanTime=0"]) as (d, path), Puppet(d, "web", 4), Exporter(path) as e:
        code, headers, body = e.get()
        check_eq((code, headers["content-type"], headers["connection"]), (200, TEXT, "close"), "answer")
        samples, _ = parse_text(body.decode())
        check_eq(samples["memctl_vm_size_bytes"], [({"vm": "web"}, 4 << 20)], "size of the VM")
        code, headers, body = e.get(accept=PROMETHEUS)
        check_eq((code, headers["content-type"]), (200, OPENMETRICS), "answer")
        families = parse_openmetrics(body.decode())
        ours = parse_openmetrics(d.run_memctl("metrics").stdout)
        check_eq(list(families), list(ours), "families")
        changing = ("memctl_uptime_seconds", "memctl_sessions")
        check_eq([(f.name, f.samples) for f in families.values() if f.name not in changing],
                 [(f.name, f.samples) for f in ours.values() if f.name not in changing], "samples")
        # HEAD: the same head, and no body
        head = e.get(method="HEAD")
        check_eq((head[0], head[1]["content-type"], head[2]), (200, TEXT, b""), "HEAD")
        check(int(head[1]["content-length"]) > 1000, "its length")
        code, headers, body = e.get("/")
        check_eq((code, headers["content-type"], b'href="/metrics"' in body), (200, "text/html; charset=utf-8", True), "the page")


BAD = [
    (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405), (b"PUT / HTTP/1.1\r\n\r\n", 405), (b"DELETE / HTTP/1.1\r\n\r\n", 405),
    (b"TRACE / HTTP/1.1\r\n\r\n", 405), (b"OPTIONS * HTTP/1.1\r\n\r\n", 404), (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 501),
    (b"BREW / HTTP/1.1\r\n\r\n", 501), (b"get / HTTP/1.1\r\n\r\n", 501),
    (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404), (b"GET /../../../etc/hostname HTTP/1.1\r\n\r\n", 404),
    (b"GET /%2e%2e/%2e%2e/etc/hostname HTTP/1.1\r\n\r\n", 404), (b"GET /metrics%00 HTTP/1.1\r\n\r\n", 404),
    (b"GET //metrics HTTP/1.1\r\n\r\n", 404), (b"GET /metrics/../metrics HTTP/1.1\r\n\r\n", 404),
    (b"GET /metrics\r\n", 400), (b"GET /metrics HTTP/9.9\r\n\r\n", 400), (b"GET\r\n\r\n", 400), (b"/metrics\r\n\r\n", 400),
    (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 400), (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"\x00\xff\x01\x80\xfe\r\n\r\n", 400), (bytes(range(256)) * 64, 400),
    (b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"z" * 1000, 413),
    (b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", None), (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", None),
    (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
    (b"GET / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 413),
]


def test_bad_requests():
    """Each gets its answer, or the connection ends; a scrape afterwards is as ever."""
    with read_only() as (_, path), Exporter(path, "--ask", "0.3") as e:
        for request, wanted in BAD:
            answer = e.say(request)
            if wanted:
                code, headers, body = parse(answer)
                check_eq(code, wanted, "%r" % request[:60])
                check(body and headers["connection"] == "close", "%r: %r" % (request[:60], answer[:200]))
                check(code != 405 or headers["allow"] == "get, head", "what is allowed")
            else:
                check(not answer or parse(answer)[0] in (400, 413), "%r: %r" % (request[:60], answer[:60]))
        # not the whole of a request, and then the end, or nothing
        for request in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: a", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            for end in (True, False):
                answer = e.say(request, end)
                check(not answer or parse(answer)[0] == 400, "half a request %r: %r" % (request, answer))
        is_well(e)


def test_one_request_a_connection():
    """What is pipelined behind the first is not answered, and nothing is kept."""
    with read_only() as (_, path), Exporter(path) as e:
        for request in (GET, GET.replace(b"/metrics", b"http://localhost/metrics"),
                        GET.replace(b"Host", b"Connection: keep-alive\r\nHost"), GET.replace(b"HTTP/1.1", b"HTTP/1.0")):
            answer = e.say(request * 5)
            check_eq((answer.count(b"HTTP/1."), answer.count(b"memctl_up 1\n")), (1, 1), "answers to %r" % request)


def crowd(e, n):
    """n connections that say nothing."""
    return [e.connect() for _ in range(n)]


def test_memctld_is_asked_seldom():
    with read_only() as (d, path):
        counted = Counter(d.dir, path)
        with Exporter(counted.path, "--max-age", "3600") as e:
            answers = {e.get()[2] for _ in range(50)}
            check_eq((len(answers), counted.count), (1, 1), "answers, questions")
        # the twin: without an age each scrape is a question
        with Exporter(counted.path, "--max-age", "0") as e:
            for _ in range(5):
                is_well(e)
            check_eq(counted.count, 1 + 5, "questions")


def test_one_question_at_a_time():
    """Those who ask while memctld takes its time wait for one and the same answer."""
    with read_only() as (d, path):
        counted = Counter(d.dir, path)
        counted.hold()
        with Exporter(counted.path, "--timeout", "60") as e:
            waiting = crowd(e, 10)
            for s in waiting:
                s.sendall(GET)
            counted.wait_for(1)
            # and one who does not wait for it
            gone = e.connect()
            gone.sendall(GET)
            gone.close()
            # the loop is not held up by the question
            check_eq(e.get("/")[0], 200, "the page meanwhile")
            counted.release()
            answers = [parse(hear(s)) for s in waiting]
            check_eq({(code, len(body)) for code, _, body in answers}, {(200, len(answers[0][2]))}, "answers")
            check_eq((counted.count, counted.most), (1, 1), "questions, at once")
            for s in waiting:
                s.close()


def test_without_memctld_it_says_so():
    """503 with the reason; when there is another memctld, its numbers."""
    with read_only() as (d, path):
        with Exporter(path, "--max-age", "0") as e:
            is_well(e)
            first = d.memctl("status")["status"]["pid"]
            d.stop()
            code, headers, body = e.get()
            check_eq((code, headers["content-type"]), (503, "text/plain; charset=utf-8"), "code")
            check(b"no memctld at " + path.encode() in body, body)
            check_eq(e.get(method="HEAD")[::2], (503, b""), "HEAD")
            d.start()
            check(d.memctl("status")["status"]["pid"] != first, "the same process")
            is_well(e)
        # one that is hung
        counted = Counter(d.dir, path)
        counted.hold()
        with Exporter(counted.path, "--max-age", "0", "--timeout", "0.2") as e:
            code, _, body = e.get()
            check_eq(code, 503, "code of one that is hung")
            counted.release()
            is_well(e)


if __name__ == "__main__":
    main(globals())
