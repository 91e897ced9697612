#!/usr/bin/env python3
"""QEMU by `memctl run`, without a guest: how it can be started, and what comes later by QMP."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import SLOW, build_dir, wait_until  # noqa: E402
from system.puppet import MIB, daemon  # noqa: E402
from system.test_run import usable  # noqa: E402
from torture.actor import NOBODY, open_to_all  # noqa: E402

QEMU = "qemu-system-x86_64"
PLACE = 0x2000000       # where the guest finds what we put there


class Qemu:
    """128 MiB of guest memory, of which `content` lies at PLACE."""

    def __init__(self, d, *args, options=(), wrapper=(), content=None, accel="tcg"):
        usable()
        if not shutil.which(QEMU):
            skip("no %s" % QEMU)
        self.dir = tempfile.mkdtemp(prefix="memctl-qemu-")
        os.chmod(self.dir, 0o777)
        self.content = content
        path = os.path.join(self.dir, "qmp")
        if content:
            with open(self.dir + "/content", "wb") as f:
                f.write(content)
            args += ("-device", "loader,file=%s/content,addr=%d,force-raw=on" % (self.dir, PLACE))
        self.errors = open(self.dir + "/stderr", "w+")
        self.process = subprocess.Popen(
            [os.path.join(build_dir(), "cli", "memctl"), "run", "--name", "q", "--mem", "128M", *options, "--", *wrapper, QEMU,
             "-accel", accel, "-display", "none", "-qmp", "unix:%s,server=on,wait=off" % path, *args],
            env=d.environ(), stdin=subprocess.DEVNULL, stderr=self.errors)
        self.socket = socket.socket(socket.AF_UNIX)
        wait_until(lambda: self.process.poll() is not None or not self.socket.connect_ex(path), 30, "QMP")
        self.socket.settimeout(30 * SLOW)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.do("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.file.close()
        self.socket.close()
        self.errors.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def do(self, command, **arguments):
        """The answer, or the error's description."""
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                return answer["error"]["desc"]

    def said(self):
        self.errors.seek(0)
        return self.errors.read()

    def check_content(self):
        out = os.path.join(self.dir, "saved-%d" % random.randrange(1 << 30))
        check_eq(self.do("pmemsave", val=PLACE, size=len(self.content), filename=out), {}, "pmemsave")
        with open(out, "rb") as f:
            check(f.read() == self.content, "guest memory differs")

    def quit(self):
        self.do("quit")
        check_eq(self.process.wait(20), 0, "exit")


def content():
    return random.randbytes(24 * MIB) + bytes(8 * MIB) + b"memctl " * (4 * MIB)


def vm(d):
    return d.memctl("vm", "show", "q")["vm"]


def gone(d):
    wait_until(lambda: not d.memctl("vm", "list")["vms"], 10, "the end of the VM")


def test_ways_to_start():
    """Each with more content than the arena holds."""
    ways = [([], ["env", "A=1"]), (["-smp", "2"], ["setpriv", "--no-new-privs"]),
            (["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"], [])]
    for seal in ("on", "off"):
        backend = "memory-backend-memfd,id=ours,size=128M,share=on,seal=" + seal
        ways.append((["-object", backend, "-machine", "memory-backend=ours"], []))
    if os.geteuid() == 0:
        ways.append((["-runas", "nobody"], []))
    with daemon(32) as d:
        for args, wrapper in ways:
            with Qemu(d, *args, wrapper=wrapper, content=content()) as q:
                q.check_content()
                shown = vm(d)
                check(shown["compressed_bytes"] + shown["swapped_bytes"] > 16 * MIB, "nothing was evicted")
                q.do("system_reset")
                check_eq(q.do("query-status")["running"], True, "it runs after a reset")
                q.quit()
            d.audit()


test_ways_to_start.seconds = 120


def test_the_second_door():
    with daemon(32) as d, Qemu(d, options=["--fd", "900"], content=content()) as q:
        check("memory-backend-file" in q.do("qom-get", path="/objects/memctl0", property="type"), "backend")
        q.check_content()
        q.quit()


def test_daemonized():
    with daemon(32) as d, Qemu(d, "-daemonize", content=content()) as q:
        check_eq(q.process.wait(20), 0, "memctl run ends with the first process")
        q.check_content()
        check_eq(vm(d)["leased_bytes"], 128 * MIB, "it is still there")
        q.do("quit")
        gone(d)


def test_qmp_of_our_own():
    """For a QEMU that is another user; it goes with QEMU."""
    if os.geteuid() != 0:
        skip("only root can start QEMU as another user")
    usable()
    if not shutil.which(QEMU):
        skip("no %s" % QEMU)
    with open_to_all(daemon(32)) as d, tempfile.TemporaryDirectory() as runtime:
        for wrapper in ([], NOBODY):
            p = subprocess.Popen([os.path.join(build_dir(), "cli", "memctl"), "run", "--name", "q", "--mem", "64M", "--user-mode",
                                  "--", *wrapper, QEMU, "-accel", "tcg", "-display", "none"],
                                 env=dict(d.environ(), XDG_RUNTIME_DIR=runtime), stdin=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
            path = p.stderr.readline().split()[-1]
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.settimeout(30 * SLOW)
                check(b"QMP" in s.recv(1000), "no QMP at %s" % path)
                s.sendall(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
                check_eq(p.wait(30), 0, "exit")
            p.stderr.close()
            check_eq(os.listdir(runtime), [], "what is left")


def test_restarted_at_once():
    with daemon(32) as d:
        for _ in range(3):
            with Qemu(d, content=content()) as q:
                q.quit()
        gone(d)
        d.audit()


# Passes of the scan when they are asked for, at any speed.
SCANNED = ["ShareScanTime=0", "ShareScanGHz=1000000", "ShareRateMax=10000000"]


def shared(d, more_than):
    def enough():
        d.memctl("share", "scan")
        time.sleep(0.2)
        return vm(d)["shared_bytes"] > more_than

    wait_until(enough, 30, "the sharing of %d MiB" % (more_than / MIB))


def test_shared_in_every_way_to_start():
    """The half of it that is there twice is shared, read, written anew by a reset, and shared again: also when QEMU has locked
    itself into a sandbox, became another user and another process."""
    ways = [(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"], []), (["-daemonize"], [])]
    if os.geteuid() == 0:
        ways.append((["-runas", "nobody"], []))
        ways.append((["-runas", "nobody", "-chroot", "/var/empty" if os.path.isdir("/var/empty") else "/var"], []))
    half = random.randbytes(12 * MIB)
    with daemon(96, settings=SCANNED) as d:
        for args, wrapper in ways:
            with Qemu(d, *args, wrapper=wrapper, options=["--sharing", "vm"], content=half + half) as q:
                shared(d, 20 * MIB)
                before = vm(d)
                q.do("system_reset")    # the loader writes it again
                wait_until(lambda b=before: vm(d)["break_pages"] - b["break_pages"] > 4000, 20, "breaks %s" % args)
                wait_until(lambda: not vm(d)["breaking_bytes"], 20, "the way home %s" % args)
                shared(d, 20 * MIB)
                d.audit()
                if "-chroot" not in args and "-runas" not in args:    # they cannot write here
                    q.check_content()
                q.do("quit")
            gone(d)
            d.audit()


test_shared_in_every_way_to_start.seconds = 120


def test_memory_comes_and_goes():
    with daemon(32) as d, Qemu(d, "-m", "128M,slots=2,maxmem=256M") as q:
        add = {"qom-type": "memory-backend-memfd", "size": 64 * MIB}
        check_eq([q.do("object-add", id="a", **add), q.do("device_add", driver="pc-dimm", id="d", memdev="a")], [{}, {}],
                 "plugged")
        check_eq(vm(d)["leased_bytes"], 192 * MIB, "a second lease")
        check_eq([q.do("object-add", id="b", **add), q.do("object-del", id="b")], [{}, {}], "not used")
        wait_until(lambda: vm(d)["leased_bytes"] == 192 * MIB, 10, "its release")
        check("map backing store" in q.do("object-add", id="c", **dict(add, size=128 * MIB)), "beyond maxmem")
        for more, words in (({"prealloc": True}, "prealloc=on"), ({"hugetlb": True}, "hugetlb=on"), ({"share": False}, "share=on")):
            check("Gen" not in str(q.do("object-add", id="x", **add, **more)) and words in q.said(), "%s: %s" % (words, q.said()))
        q.quit()


def test_disks():
    with daemon(32) as d, Qemu(d, content=b"x" * MIB) as q:
        disk = {"driver": "file", "filename": q.dir + "/content"}
        check("O_DIRECT" in q.do("blockdev-add", **disk, **{"node-name": "a", "cache": {"direct": True}}), "cache.direct=on")
        check("would lose bytes" in q.said(), q.said())
        check_eq(q.do("blockdev-add", **disk, **{"node-name": "b"}), {}, "through the page cache")
        q.quit()


def test_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        skip("no /dev/kvm")
    with daemon(32) as d, Qemu(d, "-cpu", "kvm64,-cx16", accel="kvm", content=content()) as q:
        check_eq(q.do("query-kvm")["enabled"], True, "KVM")
        time.sleep(1)
        q.check_content()
        q.quit()


if __name__ == "__main__":
    main(globals())
