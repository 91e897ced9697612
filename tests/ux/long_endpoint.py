#!/usr/bin/env python3
"""The endpoint, the alert rules and the dashboard before Prometheus' own tools; the exporter's units under a real systemd."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from service.long_metrics import WORK, promtool  # noqa: E402
from system.puppet import Puppet  # noqa: E402
from systemd.scenario import machine  # noqa: E402
from ux.exporter import Exporter  # noqa: E402
from ux.test_dashboard import RULES, expressions, read  # noqa: E402
from ux.test_endpoint import read_only  # noqa: E402


def run(*command, **more):
    return subprocess.run(command, stdin=more.pop("stdin", subprocess.DEVNULL) if "input" not in more else None, capture_output=True,
                          text=True, check=False, **more)


def test_promtool_reads_what_is_scraped():
    tool = promtool()
    with read_only(24) as (d, path), Puppet(d, "web", 16, limit=8) as web, Exporter(path) as e:
        web.do("fill", 0, 0, web.pages, 1, "mix")
        text = e.get()[2].decode()
    result = run(tool, "check", "metrics", input=text)
    check_eq((result.returncode, result.stdout.strip(), result.stderr.strip()), (0, "", ""), "promtool check metrics")


test_promtool_reads_what_is_scraped.seconds = 300


def test_promtool_takes_the_rules():
    tool = promtool()
    result = run(tool, "check", "rules", RULES[0])
    check_eq(result.returncode, 0, result.stdout + result.stderr)
    result = run(tool, "test", "rules", RULES[1])
    check_eq(result.returncode, 0, result.stdout + result.stderr)
    # the twin: a rule that never fires, and one that always does
    for old, new in (("memctl_vm_lost_bytes > 0", "memctl_vm_lost_bytes > 1e15"),
                     ("memctl_vm_stalled_seconds > 10", "memctl_vm_stalled_seconds >= 0")):
        with open(os.path.join(WORK, "memctl.rules.yml"), "w") as f:
            check(old in read(RULES[0]), old)
            f.write(read(RULES[0]).replace(old, new))
        shutil.copy(RULES[1], WORK)
        result = run(tool, "test", "rules", os.path.join(WORK, os.path.basename(RULES[1])))
        check(result.returncode != 0, "%s was not seen" % new)


def test_promtool_reads_the_dashboard():
    """Each query as the expression of a rule, with what Grafana puts in the place of its variables."""
    tool = promtool()
    queries = [text.replace("$instance", "a:1").replace("$vm", "web|mail").replace("$__rate_interval", "1m")
               for where, text in expressions() if where.startswith(("panel", "variable"))]
    check(len(queries) > 30, "%d queries" % len(queries))
    path = os.path.join(WORK, "dashboard.yml")

    def judged(texts):
        with open(path, "w") as f:
            f.write("groups:\n  - name: dashboard\n    rules:\n" + "".join(
                "      - record: q:%d\n        expr: >-\n          %s\n" % row for row in enumerate(texts)))
        return run(tool, "check", "rules", path)
    result = judged(queries)
    check_eq(result.returncode, 0, result.stdout + result.stderr)
    check(judged(queries + ["sum by (le (memctl_up)"]).returncode != 0, "the twin: a query that is none")


ASK = r"""
import socket, sys
s = socket.create_connection(("127.0.0.1", 19100))
s.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
out = b""
while True:
    data = s.recv(65536)
    if not data:
        break
    out += data
sys.stdout.buffer.write(out)
"""


def test_systemd_starts_it_at_a_scrape():
    """In its sandbox, as its user, by the socket of its unit; and again when it has died."""
    with machine(settings=["socket_ro = /run/memctl/memctld-ro.sock"]) as m:
        m.systemctl("start", "memctl-exporter.socket")
        check_eq(m.systemctl("show", "-P", "ActiveState", "memctl-exporter.service"), "inactive", "before anybody asks")
        for _ in range(2):
            answer = m.run("/usr/bin/python3", "-c", ASK).stdout
            check("HTTP/1.1 200" in answer and "\nmemctl_up 1\n" in answer, answer[:500])
            pid = m.systemctl("show", "-P", "MainPID", "memctl-exporter.service")
            status = m.run("cat", "/proc/%s/status" % pid).stdout
            check("\nNoNewPrivs:\t1\n" in status and "\nCapEff:\t0000000000000000\n" in status, status)
            check("\nUid:\t0\t" not in status, "it is root")
            m.run("kill", "-KILL", pid)
            m.run("sh", "-c", "while kill -0 %s 2>/dev/null; do sleep 0.05; done" % pid)


test_systemd_starts_it_at_a_scrape.seconds = 180


if __name__ == "__main__":
    try:
        main(globals())
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
