#!/usr/bin/env python3
"""`memctl metrics` before Prometheus' own judge (promtool); events that take their time."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from service.test_events import events, flood, table, told  # noqa: E402
from system.puppet import Puppet, daemon  # noqa: E402

WORK = tempfile.mkdtemp(prefix="memctl-promtool-")


def promtool():
    """Out of the package, without installing it: that would start a server."""
    found = shutil.which("promtool") or os.path.join(WORK, "usr/bin/promtool")
    if os.path.exists(found):
        return found
    if not shutil.which("apt-get"):
        skip("promtool is not installed")
    for command in (["apt-get", "-qq", "download", "prometheus"], ["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", "prometheus"]):
        subprocess.run(command, cwd=WORK, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        packages = [n for n in os.listdir(WORK) if n.endswith(".deb")]
        if packages:
            subprocess.run(["dpkg-deb", "-x", packages[0], WORK], cwd=WORK, check=True)
            return found
    skip("promtool is not installed, and its package cannot be had")
    return None


def scrapes():
    """(OpenMetrics, the older format) of a daemon that has something to show."""
    with daemon(24) as d, Puppet(d, "web", 16, limit=8) as web, Puppet(d, "mail", 4):
        web.do("fill", 0, 0, web.pages, 1, "mix")
        web.do("check", 0, 0, web.pages, 1, "mix")
        d.run_memctl("metrics", "--textfile", d.dir + "/memctl.prom")
        with open(d.dir + "/memctl.prom") as f:
            return d.run_memctl("metrics").stdout, f.read()


def test_promtool_finds_nothing():
    tool = promtool()
    _, text = scrapes()
    result = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    check_eq((result.returncode, result.stdout.strip(), result.stderr.strip()), (0, "", ""), "promtool check metrics")
    # the twin: it does look
    bad = text.replace("memctl_vm_evicted_bytes_total", "memctl_vm_evicted_bytes")
    result = subprocess.run([tool, "check", "metrics"], input=bad, capture_output=True, text=True, check=False)
    check("memctl_vm_evicted_bytes" in result.stderr + result.stdout, "a counter without _total was not seen")


test_promtool_finds_nothing.seconds = 300


def test_promtool_reads_openmetrics():
    """Its reader of the stricter format wants times, which a scrape has not: they are added."""
    tool = promtool()
    text, _ = scrapes()
    now = int(time.time()) - 7200
    timed = "".join(line + ("\n" if line.startswith("#") else " %d\n" % now) for line in text.splitlines())
    for content, good in ((timed, True), (timed.replace("# EOF\n", ""), False)):
        with tempfile.TemporaryDirectory(dir=WORK) as out:
            with open(out + "/in", "w") as f:
                f.write(content)
            result = subprocess.run([tool, "tsdb", "create-blocks-from", "openmetrics", out + "/in", out + "/data"],
                                    capture_output=True, text=True, check=False)
            check_eq(result.returncode == 0, good, result.stderr or "a file without its end was taken")
            if not good:
                continue
            # what a server would have made beside its blocks
            os.makedirs(out + "/data/wal")
            dump = subprocess.run([tool, "tsdb", "dump", out + "/data"], capture_output=True, text=True, check=True).stdout
            samples = len([line for line in text.splitlines() if not line.startswith("#")])
            check_eq(len(dump.splitlines()), samples, "samples read")


test_promtool_reads_openmetrics.seconds = 300


def test_what_was_not_told_is_counted():
    """Each of the events of a flood is in the sum; the table says for how many a row stands."""
    with daemon(16) as d:
        flood(d, 2000)

        def counted():
            return sum(e["count"] for e in events(d) if e["event"] == "vm-refused")
        wait_until(lambda: counted() == 2000, 20, "the count of what was not told")
        check("times since" in table(d, "--vm", "flood"), table(d, "--vm", "flood"))
        check_eq(d.memctl("status")["status"]["events"]["warning"], 2000 + 1, "the number in status (and the test switch)")


def test_a_balloon_that_gives_nothing_is_told_of():
    with daemon(32, inject="balloon:25", settings=["BalancePeriod=1"]) as d, Puppet(d, "web", 16) as web:
        web.do("balloon_start")
        web.do("fill", 0, 0, 600, 1, "text")
        check("count as held" in told(d, "balloon-owes", "web", 60)["text"], "the sentence")
        web.do("inflate", 0, 1000, 1024)
        told(d, "balloon-gives", "web", 30)


test_a_balloon_that_gives_nothing_is_told_of.seconds = 120


if __name__ == "__main__":
    try:
        main(globals())
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
