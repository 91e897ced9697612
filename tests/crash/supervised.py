"""A memctld of one's own under `memctld --supervise`, that can be killed and comes back."""
import json
import os
import signal
import time

from lib.daemon import SLOW, Daemon, Failed

AWAY = (69, 4, 6)	# exit statuses of memctl: it cannot be reached; the connection ended, or no answer came


class Supervised(Daemon):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.args = ["--supervise", *self.args]

    def child(self):
        """The pid of the memctld that serves now; None between two of them."""
        try:
            with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as f:
                pids = f.read().split()
        except OSError:
            return None
        return int(pids[0]) if pids else None

    def kill_child(self):
        """SIGKILL; its pid, None if there was none."""
        pid = self.child()
        try:
            if pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return pid

    def kill(self, sig=signal.SIGKILL):
        """Both: memctld lives on when its supervisor is killed."""
        pid = self.child() if self.process and self.process.poll() is None else None
        super().kill(sig)
        if pid and sig == signal.SIGKILL:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass

    def patient(self, *args, seconds=20, timeout=60):
        """`memctl --json ARGS`, again and again while memctld is away: the result, whatever it was."""
        end = time.monotonic() + seconds * SLOW
        while True:
            result = self.run_memctl("--json", *args, timeout=timeout)
            if result.returncode not in AWAY or time.monotonic() > end:
                return result
            time.sleep(0.02)

    def memctl(self, *args, timeout=60):
        result = self.patient(*args, timeout=timeout)
        if result.returncode:
            raise Failed("memctl %s: exit %d: %s" % (" ".join(args), result.returncode,
                                                     (result.stderr or result.stdout).strip()), result)
        return json.loads(result.stdout) if result.stdout.strip() else None
