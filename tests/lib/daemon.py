"""A memctld of one's own, for tests in Python.

    from lib.daemon import Daemon
    with Daemon(arena=64 << 20) as d:
        d.memctl("status")          # -> the parsed JSON of `memctl --json status`
        d.audit()                   # raises unless the ledger agrees with the kernel
        subprocess.run([...], env=d.environ())

It starts $MEMCTL_BUILD/daemon/memctld in a temporary directory with a socket, an arena and a swap directory of
its own, without metrics and without the host's configuration, waits until it serves, and ends it with SIGINT,
which leaves clients that live behind (SIGTERM would give them their memory first).
A daemon that dies by itself, ends with another status than 0, or does not end in time, raises.
"""
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


SLOW = int(os.environ.get("MEMCTL_SLOW", "1"))


def build_dir():
    return os.path.abspath(os.environ.get("MEMCTL_BUILD", os.path.join(TREE, "build")))


class Failed(Exception):
    """The daemon or memctl did not do what it must; .result is the process's result, if there is one."""

    def __init__(self, text, result=None):
        super().__init__(text)
        self.result = result


class Daemon:
    """`arena` in bytes; `args` are added to the command line, `env` to the environment; `directory` is used
    instead of a temporary one and then kept; `metrics` is a database file, None for none."""

    def __init__(self, arena=64 << 20, args=(), env=None, directory=None, metrics=None, start_seconds=20):
        self.build = build_dir()
        self.arena = arena
        self.args = list(args)
        self.env = dict(env or {})
        # every daemon of every test ends at once if it asks a VM for something below its reservation
        self.env["MEMCTLD_INJECT"] = ",".join(filter(None, [self.env.get("MEMCTLD_INJECT"), "watch_reservations"]))
        self.metrics = metrics
        self.start_seconds = start_seconds * SLOW
        self.keep = directory is not None
        self.dir = directory or tempfile.mkdtemp(prefix="memctl-test-", dir=os.environ.get("MEMCTL_TEST_DIR"))
        self.socket = os.path.join(self.dir, "memctld.sock")
        self.swap_dir = os.path.join(self.dir, "swap")
        self.log_path = os.path.join(self.dir, "memctld.log")
        self.process = None

    def environ(self):
        """The environment for clients of this daemon."""
        return dict(os.environ, MEMCTL_SOCKET=self.socket, MEMCTL_BUILD=self.build)

    def log(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def start(self):
        os.makedirs(self.swap_dir, exist_ok=True)
        reader, writer = os.pipe()
        command = [os.path.join(self.build, "daemon", "memctld"), "--config", "none", "--socket", self.socket,
                   "--arena", str(self.arena), "--swap-dir", self.swap_dir,
                   "--metrics", self.metrics or "none", "--ready-fd", str(writer)] + self.args
        try:
            with open(self.log_path, "ab") as log:
                self.process = subprocess.Popen(command, pass_fds=[writer], stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log, env=dict(os.environ, **self.env))
        except OSError as e:
            os.close(reader)
            self._clean()
            raise Failed("cannot start %s: %s" % (command[0], e)) from e
        finally:
            os.close(writer)
        try:
            ready, _, _ = select.select([reader], [], [], self.start_seconds)
            if not ready or not os.read(reader, 16):
                log = self.log()
                self.kill()
                self._clean()
                raise Failed("memctld did not become ready: %s" % (log[-2000:] or "it said nothing"))
        finally:
            os.close(reader)
        return self

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self, sig=signal.SIGKILL):
        """End it hard; for tests of what then happens, and for cleaning up."""
        if self.process:
            if self.process.poll() is None:
                self.process.send_signal(sig)
            self.process.wait()
            self.process = None

    def stop(self, seconds=20):
        """End it, whoever is left behind; raises unless it ends with 0."""
        process, self.process = self.process, None
        if process is None:
            return
        died = process.poll() is not None
        if not died:
            process.send_signal(signal.SIGINT)
        try:
            status = process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed("memctld did not end within %d s of SIGINT: %s" % (seconds, self.log()[-2000:])) from None
        if died or status != 0:
            raise Failed("memctld %s with status %d: %s" % ("died by itself" if died else "ended", status,
                                                            self.log()[-2000:]))

    def _clean(self):
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
            else:
                log = self.log()
                self.kill()
                sys.stderr.write(log[-4000:])
        finally:
            self.kill()
            self._clean()

    def run_memctl(self, *args, timeout=60):
        """`memctl ARGS` as it is: the finished process, with .returncode, .stdout and .stderr."""
        return subprocess.run([os.path.join(self.build, "cli", "memctl"), "--socket", self.socket, *args],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout * SLOW, check=False,
                              env=self.environ())

    def memctl(self, *args, timeout=60):
        """`memctl --json ARGS`, parsed; raises Failed if its exit status is not 0."""
        result = self.run_memctl("--json", *args, timeout=timeout)
        if result.returncode != 0:
            raise Failed("memctl %s: exit %d: %s" % (" ".join(args), result.returncode,
                                                     (result.stderr or result.stdout).strip()), result)
        return json.loads(result.stdout) if result.stdout.strip() else None

    def audit(self):
        return self.memctl("audit")


def wait_until(condition, seconds=10, what="the condition"):
    """Poll until condition() is true; its value.  Raises Failed after `seconds`."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed("%s did not come about in %d s" % (what, seconds))
        time.sleep(0.02)
