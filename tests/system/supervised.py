"""A memctld that is started, and started again, by its own supervisor (memctld --supervise)."""
import os
import re
import shutil
import signal

from lib.daemon import Daemon, Failed


class SupervisedDaemon(Daemon):
    def __init__(self, watchdog, settings=(), **more):
        super().__init__(args=["--supervise", "--watchdog", str(watchdog),
                               *(word for s in settings for word in ("--set", s))], **more)

    def child(self):
        """The memctld that lives; None between two."""
        with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as f:
            return next((int(pid) for pid in f.read().split()), None)

    def serves(self):
        """A client would be answered."""
        try:
            return bool(self.memctl("status"))
        except Failed:
            return False

    def kill(self, sig=signal.SIGKILL):
        """Both, and what the supervisor would have removed."""
        child = self.child() if self.alive() else None
        super().kill(sig)
        if child:
            try:
                with open("/proc/%d/environ" % child) as f:
                    notify = re.search(r"\0NOTIFY_SOCKET=([^\0]+)", f.read())
                os.kill(child, signal.SIGKILL)
                shutil.rmtree(os.path.dirname(notify[1]), ignore_errors=True)
            except OSError:
                pass
