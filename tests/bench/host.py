"""The host's settings: changed for a measurement, put back whatever happens."""
import contextlib
import os
import signal
import subprocess
import sys
import time


def log(*words):
    print(*words, file=sys.stderr, flush=True)


def read(path, default=""):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return default


def chosen(path):
    """A setting that is shown as "always [madvise] never"."""
    text = read(path)
    return text[text.index("[") + 1:text.index("]")] if "[" in text else text


class Host:
    """Undoes, in reverse order, everything that was done through it: at the end, on errors, on signals.

    Undoing is arranged before doing, and does no harm to what was not done: a signal may come in between.
    """

    def __enter__(self):
        self._undo = contextlib.ExitStack()
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, self._on_signal)
        return self

    def __exit__(self, *what):
        # a second signal must not stop the restoring
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
        self._undo.close()

    @staticmethod
    def _on_signal(number, frame):
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
        sys.exit(128 + number)

    def at_exit(self, function, *arguments):
        self._undo.callback(function, *arguments)

    @contextlib.contextmanager
    def part(self):
        """What is done inside is undone when it ends."""
        outer, self._undo = self._undo, contextlib.ExitStack()
        outer.callback(self._undo.close)
        inner = self._undo
        try:
            yield self
        finally:
            self._undo = outer
            inner.close()

    def set(self, path, value):
        before = chosen(path)
        if before != value:
            self.at_exit(write, path, before)
            write(path, value)

    def quiet(self):
        """Nobody merges pages or makes huge shared ones while we measure."""
        if read("/sys/kernel/mm/ksm/run", "0") == "1":
            self.set("/sys/kernel/mm/ksm/run", "0")
        huge = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
        if os.path.exists(huge) and chosen(huge) not in ("never", "advise"):
            self.set(huge, "never")

    def swap_file(self, directory, mib):
        """A swap file, not yet on; its path.  For swap_on."""
        path = os.path.join(directory, "kernel-swap")
        if not os.path.exists(path):
            subprocess.run(["fallocate", "-l", f"{mib}M", path], check=True, stdout=sys.stderr)
            os.chmod(path, 0o600)
            subprocess.run(["mkswap", path], check=True, stdout=subprocess.DEVNULL)
        return path

    def swap_on(self, path, priority=100):
        def off():
            if path in read("/proc/swaps"):
                subprocess.run(["swapoff", path], check=True, stdout=sys.stderr)

        self.at_exit(off)
        subprocess.run(["swapon", "-p", str(priority), path], check=True, stdout=sys.stderr)

    def memory_cgroup(self, name):
        return Cgroup(self, name)


def write(path, value):
    with open(path, "w") as f:
        f.write(value)


class Cgroup:
    """A memory cgroup, version 1 or 2."""

    def __init__(self, host, name):
        if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            self.v2, top = False, "/sys/fs/cgroup/memory"
        else:
            self.v2, top = True, "/sys/fs/cgroup"
            if "memory" not in read(f"{top}/cgroup.controllers").split():
                raise FileNotFoundError("no memory controller, neither cgroup v1 nor v2")
            if "memory" not in read(f"{top}/cgroup.subtree_control").split():
                host.at_exit(write, f"{top}/cgroup.subtree_control", "-memory")
                write(f"{top}/cgroup.subtree_control", "+memory")
        self.path = f"{top}/{name}"
        host.at_exit(self._remove)
        os.mkdir(self.path)

    def _remove(self):
        for _ in range(100):
            if not os.path.exists(self.path):
                return
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.02)
        log(f"could not remove {self.path}")

    def add(self, pid):
        write(f"{self.path}/cgroup.procs", str(pid))

    def usage(self):
        return int(read(f"{self.path}/memory.{'current' if self.v2 else 'usage_in_bytes'}"))

    def wait_when_full(self):
        """Where there is not enough nobody is killed, they wait (version 1)."""
        if not self.v2:
            write(f"{self.path}/memory.oom_control", "1")

    def stuck(self):
        return not self.v2 and "under_oom 1" in read(f"{self.path}/memory.oom_control")

    def limit(self, size, attempts=5):
        """Lower or lift (None) the limit.  The kernel reclaims inside this call."""
        if self.v2:
            if size is not None:
                with contextlib.suppress(OSError):      # EAGAIN: it fell short; the limit does the rest
                    write(f"{self.path}/memory.reclaim", str(max(0, self.usage() - size)))
            write(f"{self.path}/memory.max", "max" if size is None else str(size))
        else:
            for attempt in range(attempts):                    # EBUSY: it gave up for now
                try:
                    write(f"{self.path}/memory.limit_in_bytes", "-1" if size is None else str(size))
                    return
                except OSError:
                    if attempt == attempts - 1:
                        raise


def meminfo(key):
    """Bytes."""
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def vmstat(key):
    for line in read("/proc/vmstat").splitlines():
        name, value = line.split()
        if name == key:
            return int(value)
    return 0


def cpu_seconds(pid):
    """All live threads of a process."""
    total = 0
    with contextlib.suppress(OSError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            text = read(f"/proc/{pid}/task/{tid}/schedstat")
            total += int(text.split()[0]) if text else 0
    return total / 1e9


def kernel_threads():
    """Pids of kswapd, kcompactd, kworkers and the rest: the children of kthreadd."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        text = read(f"/proc/{pid}/stat")
        if text and text.rsplit(")", 1)[1].split()[1] == "2":
            found.append(int(pid))
    return found


def status_bytes(pid, key):
    for line in read(f"/proc/{pid}/status").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0
