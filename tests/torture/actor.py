"""Client processes that are told what to do by lines, and what to look at when one does not answer.

Shared by tests/torture/run (oracles) and tests/system/puppet.py."""
import glob
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading

SLOW = float(os.environ.get("MEMCTL_SLOW", "1"))


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def can_be_nobody(program):
    """Whether we may run the program as a user without any privilege: such a user gets a user-mode userfaultfd."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    return subprocess.run(NOBODY + ["test", "-x", program], check=False).returncode == 0


def open_to_all(daemon):
    """Let any user reach the socket of this daemon, which must not run yet."""
    os.chmod(daemon.dir, 0o755)
    daemon.args += ["--set", "socket_mode=0666"]
    return daemon


class NoAnswer(Exception):
    """A process did not answer in time; the text says what its threads and the daemon's were doing."""


class Gone(Exception):
    """A process ended instead of answering."""


def _read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read().strip()
    except OSError as e:
        return "(%s)" % e.strerror


def threads(pid):
    """One line a thread: name, state, where it waits in the kernel, its system call."""
    lines = []
    for task in sorted(glob.glob("/proc/%d/task/*" % pid)):
        stat = _read(task + "/stat")
        lines.append("  %s %s %s wchan=%s syscall=%s" % (
            os.path.basename(task), _read(task + "/comm"), stat.rpartition(")")[2].split()[:1],
            _read(task + "/wchan"), _read(task + "/syscall")))
        stack = _read(task + "/stack")
        if stack and not stack.startswith("("):
            lines += ["      " + line for line in stack.splitlines()[:12]]
    return "\n".join(lines)


def diagnose(daemon, actors, to=sys.stderr):
    """Everything that helps to understand a hang; written to `to`."""
    print("---- diagnosis", file=to)
    if daemon.alive():
        print("memctld %d\n%s" % (daemon.pid, threads(daemon.pid)), file=to)
    else:
        print("memctld is not running", file=to)
    for a in actors:
        print("%s %d%s\n%s" % (a.name, a.process.pid, "" if a.alive() else " (ended: %s)" % a.process.returncode,
                               threads(a.process.pid) if a.alive() else ""), file=to)
    for args in [("status",)] + [("vm", "show", a.vm) for a in actors if a.vm]:
        try:
            result = daemon.run_memctl("--json", *args, timeout=10)
            print("memctl %s: %s" % (" ".join(args), (result.stdout or result.stderr).strip()), file=to)
        except (OSError, subprocess.SubprocessError) as e:
            print("memctl %s: %s" % (" ".join(args), e), file=to)
    print("---- the daemon's last words\n%s\n----" % daemon.log()[-3000:], file=to, flush=True)


class Actor:
    """A process with lines in and lines out."""

    def __init__(self, daemon, name, command, env=None, nobody=False):
        command = NOBODY + command if nobody else command
        self.daemon = daemon
        self.name = name
        self.vm = None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                                        env=dict(daemon.environ(), **(env or {})))
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._pump, daemon=True)
        self._reader.start()

    def _pump(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def alive(self):
        return self.process.poll() is None

    def tell(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as e:
            raise Gone("%s has ended: %s" % (self.name, self.process.poll())) from e

    def hear(self, seconds=60, what="an answer"):
        """The next line it says."""
        try:
            line = self._lines.get(timeout=seconds * SLOW)
        except queue.Empty:
            diagnose(self.daemon, [self])
            raise NoAnswer("%s: no %s within %g s" % (self.name, what, seconds * SLOW)) from None
        if line is None:
            self._lines.put(None)
            try:
                status = self.process.wait(20)
            except subprocess.TimeoutExpired:
                status = "still running"
            raise Gone("%s ended (%s) instead of giving %s" % (self.name, status, what))
        return line

    def quiet(self, seconds):
        """Whether it says nothing for so long."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return True
        self._lines.queue.appendleft(line)
        return False

    def hear_json(self, event, seconds=60):
        """The next JSON line, which must be of this kind."""
        reply = json.loads(self.hear(seconds, event))
        if reply.get("event") != event:
            raise Gone("%s said %s, not %s" % (self.name, reply, event))
        return reply

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass	# what it was told last, it did not read

    def quit(self, seconds=60):
        """Ask it to leave; its exit status."""
        if self.alive():
            try:
                self.tell("quit")
            except Gone:
                pass
        try:
            status = self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            diagnose(self.daemon, [self])
            raise NoAnswer("%s did not leave within %g s" % (self.name, seconds * SLOW)) from None
        self.process.stdin.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.alive():
            self.go_on()
            if kind is None:
                self.quit()
        self.kill()
