"""A real Linux guest in QEMU, on a lease (by `memctl run`) or plain, and what it says on its serial line.

    guest = Machine(image.make(build), "one", daemon=d)
    guest.hear("READY")
    guest.tell("fill 64 1")
    guest.hear("filled")
    guest.qmp("stop")
    guest.off()
"""
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.daemon import Failed, SLOW, wait_until  # noqa: E402

QEMU = "qemu-system-x86_64"
# What a daemon needs so that guests of one group ("--sharing group:guests"), perhaps root's, are looked at as fast as it
# can whenever `memctl share scan` is said, and not in between.
SHARING = [word for setting in ("share_groups=guests=*", "share_with_root=yes", "ShareScanTime=0", "ShareScanGHz=1000000",
                                "ShareRateMax=10000000") for word in ("--set", setting)]
# of our program, of the shell, of the kernel behind its time stamp
BAD = re.compile(r"wrong |failed|Segmentation fault|Bus error|Killed|"
                 r"(\[ *[0-9.]+\] )?(Kernel panic|BUG:|Oops|general protection|Out of memory|rcu: INFO)")
KVM_SECONDS = 15


class Lost(Exception):
    """The guest ended, panicked, found a wrong page, or did not answer."""


class Machine:
    """`memory` and `extra` are QEMU options that stand instead of, or beside, what `memctl run` adds by itself;
    `run` are options of `memctl run`; `daemon` None is QEMU alone; `directory` is where its monitor listens, if not a new one."""

    def __init__(self, files, name, daemon=None, mib=256, accel="tcg", cpus=1, memory=(), extra=(), run=(), append="",
                 seconds=40, directory=None):
        self.name, self.daemon, self.mib, self.seconds = name, daemon, mib, seconds
        self.dir = directory or tempfile.mkdtemp(prefix="memctl-guest-")
        self.qmp_path = os.path.join(self.dir, "qmp")
        self.lines, self.log = queue.Queue(), []
        self._qmp = None
        command = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-accel", accel, "-smp", str(cpus),
                   "-m", "%dM" % mib, "-kernel", files[0], "-initrd", files[1],
                   "-append", ("console=ttyS0 quiet oops=panic panic=0 " + append).strip(), "-serial", "stdio",
                   "-qmp", "unix:%s,server=on,wait=off" % self.qmp_path, *memory, *extra]
        environ = None
        if daemon is not None:
            command = [os.path.join(daemon.build, "cli", "memctl"), "run", "--name", name, "--mem", "%dM" % mib, *run,
                       "--", *command]
            environ = daemon.environ()
        self.command = command
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=environ, start_new_session=True)
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self):
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                line = line.decode(errors="replace").strip("\r\n\0")
                self.log.append((time.monotonic() - self.begun, line))
                self.lines.put(line)
        self.lines.put(None)

    def said(self):
        return "\n".join("%s: %.1f %s" % (self.name, *line) for line in self.log[-40:])

    def last_words(self):
        return " / ".join(line for _, line in self.log[-3:])

    def tell(self, line):
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError) as e:
            raise Lost("%s has ended: %s" % (self.name, self.process.poll())) from e

    def next(self, seconds):
        """A line that it says, None if it says nothing; what says that something went wrong raises."""
        try:
            line = self.lines.get(timeout=max(0.001, seconds))
        except queue.Empty:
            return None
        if line is None:
            self.lines.put(None)
            raise Lost("%s ended (status %s): %s" % (self.name, self.process.poll(), self.last_words()))
        return line

    def seconds_to(self, word):
        """From the start of the command to the line that begins with `word`."""
        self.hear(word)
        return next(at for at, line in self.log if line.startswith(word))

    def hear(self, word, seconds=None, strict=True):
        """The words after the first line that begins with `word`; `strict`: no bad news before it."""
        end = time.monotonic() + (seconds or self.seconds) * SLOW
        while True:
            line = self.next(end - time.monotonic())
            if line is None and time.monotonic() >= end:
                raise Lost("%s: no \"%s\" within %d s; last: %s" % (self.name, word, (seconds or self.seconds) * SLOW,
                                                                 self.last_words()))
            if line is None:
                continue
            if line.startswith(word):
                return line[len(word):].split()
            if strict and BAD.match(line) or "Kernel panic" in line:
                raise Lost("%s: %s" % (self.name, line))

    def ask(self, line, word, seconds=None, strict=True):
        self.tell(line)
        return self.hear(word, seconds, strict)

    def check(self, seconds=60, strict=True):
        """(pages, errors, of these full of zeros)"""
        return tuple(int(w) for w in self.ask("check", "checked", seconds, strict))

    # ---- QEMU's own door

    def qmp(self, command, **arguments):
        if self._qmp is None:
            wait_until(lambda: os.path.exists(self.qmp_path), 10, "QEMU's monitor")
            self._qmp = socket.socket(socket.AF_UNIX)
            self._qmp.settimeout(30 * SLOW)
            self._qmp.connect(self.qmp_path)
            self._answers = self._qmp.makefile("rb")
            json.loads(self._answers.readline())
            self.qmp("qmp_capabilities")
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._qmp.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self._answers.readline()
            if not line:
                raise Lost("%s: QEMU hung up at %s" % (self.name, command))
            answer = json.loads(line)
            if "error" in answer:
                raise Lost("%s: %s: %s" % (self.name, command, answer["error"]["desc"]))
            if "return" in answer:
                return answer["return"]

    # ---- the lease

    def pid(self):
        """Of QEMU, which may be a child of `memctl run`."""
        todo = [self.process.pid]
        while todo:
            pid = todo.pop()
            with contextlib.suppress(OSError):
                with open("/proc/%d/comm" % pid) as f:
                    if f.read().startswith(QEMU[:15]):
                        return pid
                with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
                    todo += [int(p) for p in f.read().split()]
        raise Lost("%s: there is no QEMU" % self.name)

    def open_memory(self):
        """A descriptor of the memfd that the guest's memory lies in."""
        pid, size = self.pid(), self.mib << 20
        with open("/proc/%d/maps" % pid) as f:
            shared = [line.split(None, 1)[0] for line in f if "/memfd:" in line and line.split()[1][3] == "s"]
        for place in shared:
            first, last = (int(x, 16) for x in place.split("-"))
            fd = os.open("/proc/%d/map_files/%x-%x" % (pid, first, last), os.O_RDWR | os.O_CLOEXEC)
            if os.fstat(fd).st_size == size:
                return fd
            os.close(fd)
        raise Lost("%s: no memfd of %d MiB is mapped" % (self.name, self.mib))

    # ---- the end

    def alive(self):
        return self.process.poll() is None

    def wait(self, seconds=30):
        try:
            return self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise Lost("%s: did not end within %d s" % (self.name, seconds)) from None

    def off(self):
        self.tell("off")
        status = self.wait()
        if status != 0:
            raise Lost("%s: ended with status %d: %s" % (self.name, status, self.last_words()))

    def close(self):
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for f in (self.process.stdin, self._qmp):
            with contextlib.suppress(OSError, AttributeError):
                f.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(self.said(), file=sys.stderr, flush=True)
        self.close()


def accelerator(files, store):
    """"kvm" where a stock kernel boots under it, else "tcg".  Trying takes time: remembered until the host reboots."""
    with open("/proc/cpuinfo") as f:
        hardware = any({"vmx", "svm"} & set(line.split()) for line in f if line.startswith("flags"))
    # a /dev/kvm without either is made in software, and stock kernels do not get far on it
    if not hardware or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    with open("/proc/sys/kernel/random/boot_id") as f:
        key = f.read().strip() + " " + os.path.basename(files[0])
    path = os.path.join(store, "accelerator")
    with contextlib.suppress(OSError, ValueError):
        with open(path) as f:
            known, _, accel = f.read().rpartition("\n")
            if known == key and accel in ("kvm", "tcg"):
                return accel
    accel = "kvm"
    with Machine(files, "kvm?", accel="kvm", seconds=KVM_SECONDS) as guest:
        try:
            guest.hear("READY")
        except (Lost, Failed):
            accel = "tcg"
    with open(path, "w") as f:
        f.write("%s\n%s" % (key, accel))
    return accel
