"""An attacker beside an honest VM: what the attack costs whom.

The attacker (attacker.py) is a process of its own and a user of its own.  The honest VM (honest.c) works for its rounds in turn beside the
attack and beside its control: the same process uses as much of the processors and leaves memctld alone.  So what is compared is what
the attacker reaches by memctld, and not that two want the processors.  In the end the honest VM has seen no wrong byte, its median
99th percentile of waits beside the attack is at most twice that beside the control, memctld is alive, holds no more descriptors and not
much more memory, and its ledger agrees with the kernel."""
import contextlib
import json
import os
import statistics
import sys
import threading
import time

from lib.check import check, check_eq, skip
from lib.daemon import Daemon, wait_until
from torture.actor import SLOW, Actor, open_to_all

MIB = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))
HONEST_USER, ATTACKER = 64301, 64302
ROUNDS, ROUNDS_MAX, ROUND_MS = 5, 15, 700
RATIO = 2
MEMORY = 64 * MIB	# more than before the attack, of the daemon itself


class Report(dict):
    """What an attack has counted in all its rounds."""

    def add(self, counted):
        for what, n in counted.items():
            self[what] = max(self.get(what, 0), n) if what.startswith("held") else self.get(what, 0) + n

    def of(self, prefix):
        return sum(n for what, n in self.items() if what.startswith(prefix))


def has_sanitizer(build):
    return "asan" in build or "tsan" in build


def memory(d, what="VmRSS"):
    with open("/proc/%d/status" % d.pid) as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(what + ":"))


def anonymous(d):
    """Bytes of the daemon that are no guest's: guests are in shared memory."""
    return memory(d, "RssAnon")


def descriptors(d):
    return len(os.listdir("/proc/%d/fd" % d.pid))


def as_user(command):
    return ["setpriv", "--reuid=%d" % HONEST_USER, "--regid=%d" % HONEST_USER, "--clear-groups"] + command


def need_users():
    if os.geteuid() != 0:
        skip("needs root, to be several users")


class Beside:
    """A daemon with an honest VM and, from attack() on, an attacker."""

    def __init__(self, settings=(), arena_mib=96, honest_mib=16, twin=None):
        need_users()
        words = [word for s in ("max_vms_per_user=8",) + tuple(settings) for word in ("--set", s)]
        self.daemon = open_to_all(Daemon(arena=arena_mib * MIB, args=words, env={"MEMCTLD_TWIN": twin} if twin else None,
                                         start_seconds=20 * SLOW))
        self.honest_mib = honest_mib
        self.report = Report()
        self.rounds = []
        self.honest = self.attacker = None

    def __enter__(self):
        d = self.daemon.start()
        try:
            self.honest = Actor(d, "honest", as_user([os.path.join(d.build, "tests", "hostile", "honest"), "honest",
                                                      str(self.honest_mib)]))
            self.honest.vm = "honest"
            check_eq(self.honest.hear(60, "the honest VM"), "ready")
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        self.descriptors, self.anonymous = descriptors(d), anonymous(d)
        return self

    def attack(self, name, env=None):
        command = [sys.executable, os.path.join(HERE, "attacker.py"), self.daemon.socket, name, str(ATTACKER)]
        self.attacker = Actor(self.daemon, name, command, env=env)
        check_eq(self.attacker.hear(30, "its preparations"), "ready")
        return self

    def round(self, line):
        """One round of the honest VM, and what the attacker says of it."""
        self.attacker.tell(line)
        self.honest.tell("round %d" % ROUND_MS)
        waits = json.loads(self.honest.hear(60, "a round"))
        counted = json.loads(self.attacker.hear(60, "its report"))
        check_eq(waits["wrong"], 0, "wrong pages of the honest VM")
        check_eq(waits["failed_calls"], 0, "calls of the honest VM that failed")
        check(waits["touches"] and waits["calls"], "the honest VM stood still: %s" % waits)
        return waits, counted

    def pair(self):
        """A round beside the attack, and one beside its control."""
        beside, counted = self.round("attack %d" % ROUND_MS)
        self.report.add(counted)
        time.sleep(0.1)
        alone, _ = self.round("burn %d %.0f" % (ROUND_MS, counted["cpu_ms"]))
        self.rounds.append((beside, alone))

    def ratio(self, what):
        attack, control = (statistics.median(r[i][what + "_p99_us"] for r in self.rounds) for i in (0, 1))
        return attack / control if control else 0

    def is_fair(self):
        return all(self.ratio(what) <= RATIO for what in ("touches", "calls"))

    def compare(self, rounds=ROUNDS):
        """The machine has other work too: a median of few rounds may be its doing, one of many is ours."""
        for _ in range(rounds):
            self.pair()
        while not self.is_fair() and len(self.rounds) < ROUNDS_MAX and rounds >= ROUNDS:
            self.pair()
        said = ", ".join("%s p99 %.0f us, control %.0f us (x %.2f)" % (
            (what,) + tuple(statistics.median(r[i][what + "_p99_us"] for r in self.rounds) for i in (0, 1)) + (self.ratio(what),))
            for what in ("touches", "calls"))
        print("%s: %d rounds: %s; %s" % (self.attacker.name, len(self.rounds), said, dict(self.report)), file=sys.stderr, flush=True)
        if not has_sanitizer(self.daemon.build) and rounds >= ROUNDS:
            check(self.is_fair(), "the honest VM waits longer: " + said)

    def most_memory(self, limit=MEMORY):
        """The daemon's own memory may have grown by this at most, beside the attack."""
        more = anonymous(self.daemon) - self.anonymous
        check(more <= limit or has_sanitizer(self.daemon.build), "memctld's own memory has grown by %d MiB" % (more >> 20))

    def end(self, others=frozenset()):
        """The attacker goes; what it had is given back."""
        d = self.daemon
        self.attacker.kill()
        wait_until(lambda: {v["name"] for v in d.memctl("vm", "list")["vms"]} == {"honest"} | others, 30 * SLOW, "the end of its VMs")
        if not others:
            wait_until(lambda: descriptors(d) <= self.descriptors + 1, 20 * SLOW, "its descriptors closed")
        waits = self.last_round()
        check_eq(waits["wrong"], 0, "wrong pages of the honest VM, afterwards")
        d.audit()
        check(d.alive(), "memctld has died")

    def last_round(self):
        self.honest.tell("round %d" % ROUND_MS)
        return json.loads(self.honest.hear(60, "a round"))

    def __exit__(self, kind, value, trace):
        try:
            if self.attacker:
                self.attacker.kill()
            if self.honest:
                self.honest.kill()
            if kind is None:
                wait_until(lambda: not self.daemon.memctl("vm", "list")["vms"], 20 * SLOW, "the end of the VMs")
        finally:
            self.daemon.__exit__(kind, value, trace)


@contextlib.contextmanager
def scanning(d):
    """Passes of the sharing scan without end: orders come."""
    over = threading.Event()

    def scan():
        while not over.wait(0.2):
            d.run_memctl("share", "scan")

    thread = threading.Thread(target=scan)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def beside(attack, judge=None, settings=(), rounds=ROUNDS, env=None, others=frozenset(), scan=False, **more):
    """The whole of it; judge(b) looks at b.report while the attacker is there.  env(daemon): more of its environment; `others`: VMs
    that are there besides."""
    with Beside(settings, **more) as b:
        b.attack(attack, env(b.daemon) if env else None)
        with scanning(b.daemon) if scan else contextlib.nullcontext():
            b.compare(rounds)
        check(b.report["steps"] > 0, "the attack did nothing")
        b.most_memory()
        if judge:
            judge(b)
        b.end(others)
