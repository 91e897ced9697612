"""The frame of every benchmark: rounds that interleave both sides, rejection of misplaced rounds, results."""
import array
import contextlib
import fcntl
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(TOP, "build-release")
os.environ["MEMCTL_BUILD"] = BUILD
sys.path.insert(0, os.path.join(TOP, "tests"))

import corpus  # noqa: E402
import lib.daemon  # noqa: E402
from host import cpu_seconds, kernel_threads, log, read  # noqa: E402

ROUNDS = 5
MISPLACED_US = 20       # a bare trip that takes longer was not on one core
MISPLACED_TIMES = 1.6   # or, where kernel entries are slow, one that takes so many times the best of some at the start
BEHIND = 1.15            # medians of the same thing differ by less, on a quiet machine
MIB = 1 << 20
PAGE = 4096


def build():
    """The release that is measured, made by the same installer as the tests use."""
    subprocess.run([os.path.join(TOP, "tests", "run"), "--build", os.path.basename(BUILD)], cwd=TOP,
                   stdout=sys.stderr, check=True)


class Misplaced(Exception):
    """A round that says nothing: do it again."""


class Wrong(Exception):
    """A byte is wrong: nothing else counts."""


class Worker:
    """A program that answers each line with a line of JSON."""

    def __init__(self, *argv, preexec=None):
        self.name = os.path.basename(argv[0])
        self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=sys.stderr, text=True, preexec_fn=preexec)
        self.pid = self.process.pid
        self.hello = self._answer("start")

    def _answer(self, what):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended at: {what}")
        return json.loads(line)

    def _tell(self, words):
        line = " ".join(str(w) for w in words)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return line

    def do(self, *words):
        return self._answer(self._tell(words))

    @staticmethod
    def all_do(workers, *words):
        """All of them at the same time; their answers."""
        lines = [w._tell(words) for w in workers]
        return [w._answer(line) for w, line in zip(workers, lines)]

    @staticmethod
    def each_do(work):
        """Each its own words at the same time: (worker, words) in, their answers out."""
        lines = [(w, w._tell(words)) for w, words in work]
        return [w._answer(line) for w, line in lines]

    def checked(self, *words):
        """A command whose answer has the number of wrong pages."""
        answer = self.do(*words)
        if answer["wrong"]:
            raise Wrong(f"{self.name}: {' '.join(map(str, words))}: {answer['wrong']} wrong pages")
        return answer

    def end(self):
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.end()


class Trip(Worker):
    """The bare round trip, on the core that is measured on."""

    def __init__(self, setting):
        super().__init__(program("bench-trip"), setting.corpus, setting.core)
        self.limit = max(MISPLACED_US, MISPLACED_TIMES * min(self.do("zero", 2000)["p50"] for _ in range(5)))

    def p50(self, *command):
        answer = self.do(*command)["p50"]
        if answer > self.limit:
            raise Misplaced(f"the bare trip took {answer:.1f} us, more than {self.limit:.1f}")
        return answer


def program(name):
    for folder in ("tests/bench", "daemon", "cli"):
        path = os.path.join(BUILD, folder, name)
        if os.path.exists(path):
            return path
    raise FileNotFoundError(f"{name} is not built in {BUILD}")


class Setting:
    """One run of a benchmark: the host, a directory, the corpus, the core that is measured on."""

    def __init__(self, host, arguments):
        self.host = host
        self.rounds = arguments.rounds
        self.settings = dict(s.split("=", 1) for s in arguments.set)
        self.only = set(arguments.only)
        self.directory = tempfile.mkdtemp(prefix="memctl-bench.", dir="/var/tmp")
        host.at_exit(shutil.rmtree, self.directory, True)
        self.corpus = os.path.join(BUILD, "bench-corpus")
        log(f"corpus {corpus.make(self.corpus)}")
        self.core = max(os.sched_getaffinity(0))
        self._vms = 0

    def guest(self, mib, *how, number=0, content=True, kind="bench-guest"):
        return Worker(program(kind), self.corpus if content else "-", number, mib, *how)

    def lease(self, daemon, mib, number=0, content=True, kind="bench-guest", **keys):
        """A guest on a lease; .vm is its name.  Keys: reservation_mib, shares, sharing."""
        self._vms += 1
        vm = f"b{self._vms}"
        more = [f"{key}={value}" for key, value in keys.items()]
        guest = self.guest(mib, "lease", vm, daemon.socket, *more, number=number, content=content, kind=kind)
        guest.vm = vm
        if guest.hello["faults"] not in ("full", "user-mode-only", "user_mode", "user-mode"):
            raise RuntimeError(f"the lease is not managed: {guest.hello}")
        return guest

    def pin_guest(self, guest, daemon=None, cores=None):
        """Client and fault thread onto one core: where a fault is served best.  Or onto others."""
        cores = cores or {self.core}
        for tid in os.listdir(f"/proc/{guest.pid}/task"):
            os.sched_setaffinity(int(tid), cores)
        if daemon:
            threads = daemon.threads(f"fault/{guest.vm}")
            if not threads:
                raise RuntimeError(f"memctld has no thread fault/{guest.vm}")
            for tid in threads:
                os.sched_setaffinity(tid, cores)

    @contextlib.contextmanager
    def pinned(self, guest, daemon=None):
        """pin_guest for as long as this lasts."""
        try:
            yield self.pin_guest(guest, daemon)
        finally:
            self.pin_guest(guest, daemon, os.sched_getaffinity(0))

    def load(self, guest, pages, which, seed):
        """Give a guest the list of pages to touch."""
        path = os.path.join(self.directory, "pages")
        with open(path, "wb") as f:
            array.array("I", pages).tofile(f)
        return guest.do("file", path, which, seed)["pages"]

    def warm(self, mib):
        """Touch memory once, so that a hypervisor has it backed before anything is timed."""
        path = tempfile.mktemp(dir="/dev/shm")
        block = b"\1" * MIB
        try:
            with open(path, "wb", buffering=0) as f:
                for _ in range(mib):
                    f.write(block)
        finally:
            os.unlink(path)


class Daemon(lib.daemon.Daemon):
    """A memctld of our own in a temporary directory; calls go over its socket, without a process each."""

    def __init__(self, setting, arena_mib, **settings):
        directory = tempfile.mkdtemp(prefix="daemon.", dir=setting.directory)
        settings = {**settings, **setting.settings}
        words = [word for k, v in settings.items() for word in ("--set", f"{k}={v}")]
        super().__init__(arena=arena_mib * MIB, directory=directory, metrics=os.path.join(directory, "metrics.db"),
                         args=["--config", "none", *words])

    def start(self):
        super().start()
        self._connect()
        return self

    def __exit__(self, *what):
        self._calls.close()
        super().__exit__(*what)
        shutil.rmtree(self.dir, True)

    def _connect(self):
        self._calls = socket.socket(socket.AF_UNIX)
        self._calls.connect(self.socket)
        self._left = b""

    def call(self, method, **parameters):
        self._calls.sendall(json.dumps({"method": f"org.memctl.{method}", "parameters": parameters}).encode() + b"\0")
        while b"\0" not in self._left:
            more = self._calls.recv(1 << 16)
            if not more:
                raise RuntimeError(f"memctld hung up at {method}")
            self._left += more
        reply, self._left = self._left.split(b"\0", 1)
        reply = json.loads(reply)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']} {reply.get('parameters')}")
        return reply.get("parameters", {})

    def vm(self, name):
        return self.call("ShowVm", vm=name)["vm"]

    def setting(self, name, key="value"):
        """What it runs with, or by default would."""
        return next(str(s[key]) for s in self.call("ShowConfig")["settings"] if s["name"] == name)

    def tune(self, setting, value):
        self.call("Tune", setting=setting, value=str(value))

    def pages(self, vm, state):
        """Numbers of the pages in this state."""
        found, gpa = [], 0
        while True:
            reply = self.call("PageMap", vm=vm, gpa=gpa)
            for run in reply["runs"]:
                if run["state"] == state:
                    first = run["gpa"] // PAGE
                    found.extend(range(first, first + run["pages"]))
            gpa = reply["next"]
            if not gpa:
                return found

    def threads(self, name):
        """Threads of this name, as the kernel shows it: 15 characters."""
        return [int(t) for t in os.listdir(f"/proc/{self.pid}/task")
                if read(f"/proc/{self.pid}/task/{t}/comm") == name[:15]]

    def settle(self, vm, stuck_s=4, limit_s=60):
        """Wait until reclaim has reached its goal, or gets nowhere, and has stopped."""
        value, began = None, time.monotonic()
        while time.monotonic() - began < limit_s:
            now, arena = self.vm(vm)["evicted_pages"], self.call("Status")["status"]["arena"]
            if now != value:
                value, since = now, time.monotonic()
            still = time.monotonic() - since
            if still > (0.3 if arena["free_bytes"] >= arena["goal_free_bytes"] else stuck_s):
                return
            time.sleep(0.05)
        log(f"evictions of {vm} still go on after {limit_s} s")

    def audit(self):
        reply = self.call("Audit")
        if not reply["ok"]:
            raise Wrong(f"audit: {reply['audit']}")


class Cpu:
    """CPU seconds of some processes and of the kernel's threads between two looks."""

    def __init__(self, *pids):
        self.pids = list(pids) + kernel_threads()
        self.before = self._now()

    def _now(self):
        return {pid: cpu_seconds(pid) for pid in self.pids}

    def used(self):
        now = self._now()
        return sum(max(0, now[pid] - self.before[pid]) for pid in self.pids)


class Results:
    """Pairs of ours and the peer's by name, one a round, and what they should come to."""

    def __init__(self, bench):
        self.bench = bench
        self.rows = {}
        self.earlier = {}       # name -> ratio

    def row(self, name, peer, unit, target=None):
        self.rows[name] = {"peer": peer, "unit": unit, "target": target, "values": [],
                           "why": None, "missing": None}

    def add(self, name, value, peer_value):
        self.rows[name]["values"].append((value, peer_value))

    def take(self, other):
        """All rows of another benchmark's, by its name and theirs."""
        self.rows.update({f"{other.bench}.{name}": row for name, row in other.rows.items()})

    def compare(self, earlier):
        """With results as as_json gave them, maybe of another day."""
        self.earlier = {r["name"]: r["ratio"] for r in earlier["results"]}

    def absent(self, name, why):
        self.rows[name].update(why=why, values=[])

    def empty(self):
        return not any(row["values"] for row in self.rows.values())

    def no_peer(self, name, why):
        self.rows[name]["missing"] = why

    def more(self, name, **keys):
        """What else the JSON says of it."""
        self.rows[name].setdefault("more", {}).update(keys)

    def note(self, name, text):
        self.rows[name]["note"] = text

    def as_json(self):
        out = []
        for name, row in self.rows.items():
            ours = [v for v, _ in row["values"] if v is not None]
            peers = [p for _, p in row["values"] if p is not None]
            value = statistics.median(ours) if ours else None
            peer = statistics.median(peers) if peers else None
            ratio = value / peer if value is not None and peer else None
            result = {"name": name, "value": value, "peer": row["peer"], "peer_value": peer, "unit": row["unit"],
                      "rounds": len(row["values"]), "ratio": ratio, "target": row["target"],
                      "met": meets(ratio, row["target"])}
            if name in self.earlier:
                result["behind"] = behind(ratio, self.earlier[name], row["target"])
            if ratio is None:
                result["why"] = row["why"] or row["missing"] or "not measured"
            result.update(row.get("more", {}))
            if "note" in row:
                result["note"] = row["note"]
            out.append(result)
        return {"bench": self.bench, "results": out}

    def show(self):
        for r in self.as_json()["results"]:
            verdict = {True: "met", False: "MISSED", None: ""}[r["met"]]
            if r.get("behind"):
                verdict += f" FALLEN BEHIND {self.earlier[r['name']]:.4g}"
            numbers = [f"{x:.4g}" if x is not None else "-" for x in (r["value"], r["peer_value"], r["ratio"])]
            log(f"{r['name']:24} {numbers[0]:>10} {numbers[1]:>10} {r['unit']:14} ratio {numbers[2]:>7}"
                f" target {r['target'] or '-':8} {verdict} {r.get('why', '')}")


def meets(ratio, target):
    if ratio is None or not target:
        return None
    words = target.split()      # "<= 1.3", ">= 1", "< 1", "2 +- 0.1"
    if words[1] == "+-":
        return abs(ratio - float(words[0])) <= float(words[2])
    bound = float(words[1])
    return {"<=": ratio <= bound, ">=": ratio >= bound, "<": ratio < bound}[words[0]]


def behind(ratio, earlier, target):
    """Whether it is worse than it was, by more than rounds differ; None where there is no better and worse."""
    if ratio is None or not earlier or not target or "+-" in target:
        return None
    return ratio > earlier * BEHIND if target.startswith("<") else ratio < earlier / BEHIND


def alternately(i, first, second):
    """Both, in turn one or the other first; (first's, second's) value."""
    if i % 2:
        b = second()
        return first(), b
    return first(), second()


def repeat(results, names, rounds, one):
    """Run `one(i)` so often; it adds to the rows `names`.  A misplaced round is repeated, the third rejection ends
    it with null; what cannot be measured is null too, and the rest goes on."""
    rejected = i = 0
    while i < rounds:
        try:
            one(i)
            i += 1
            continue
        except Misplaced as e:
            rejected += 1
            why = f"three rounds rejected: {e}"
            log(f"round rejected: {e}")
            if rejected < 3:
                continue
        except (RuntimeError, OSError, lib.daemon.Failed) as e:
            why = f"round {i}: {e}"
            log(f"{', '.join(names)}: {why}")
        for name in names:
            results.absent(name, why)
        return


@contextlib.contextmanager
def alone():
    """Suites change settings of the whole host: one at a time (the lock of tests/lib/runner.py)."""
    fd = -1
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT):   # O_CREAT is refused on another user's file in /tmp
        with contextlib.suppress(OSError):
            fd = os.open("/tmp/memctl-tests.lock", flags | os.O_CLOEXEC, 0o666)
            break
    if fd >= 0:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("waiting for another suite on this host to end")
            fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)
