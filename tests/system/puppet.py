"""A client that does as it is told (tests/system/puppet.c), and short ways to ask the daemon about it."""
import itertools
import json
import os
import shlex
import time

from lib.daemon import Daemon, Failed, wait_until
from torture.actor import SLOW, Actor

MIB = 1 << 20
PAGE = 4096
EVICTED = ("zero", "compressed", "swapped")


def runs(states):
    """States in short: "resident*3 zero*61"."""
    return " ".join("%s*%d" % (s, len(list(same))) for s, same in itertools.groupby(states))


class Refused(Exception):
    """The library or the daemon said no."""

    def __init__(self, command, errno, name, message):
        super().__init__("%s: %s %s" % (command, name, message))
        self.errno, self.name, self.message = errno, name, message


def daemon(arena_mib, twin=None, inject=None, settings=(), **more):
    """A memctld with this arena; settings are "name=value"."""
    env = {}
    if twin:
        env["MEMCTLD_TWIN"] = twin
    if inject:
        env["MEMCTLD_INJECT"] = inject
    args = [word for s in settings for word in ("--set", s)]
    return Daemon(arena=arena_mib * MIB, args=args, env=env, start_seconds=20 * SLOW, **more)


def program(d):
    return os.path.join(d.build, "tests", "system", "puppet")


class Puppet(Actor):
    """A client with a VM `name` of `size` MiB (none: not registered) and a lease 0 of `lease` MiB (default: all).
    Puppets with one `owner` write the same content for the same seed, kind and page."""

    def __init__(self, d, name, size=None, reservation=0, limit=0, lease=None, helper=True, swap_dir="",
                 nobody=False, sharing=None, owner=None):
        super().__init__(d, name, [program(d)], nobody=nobody)
        try:
            self._answer("connect", 30)
            if sharing:
                self.do("sharing", sharing)
            if owner is not None:
                self.do("owner", owner)
            if size is not None:
                self.do("register", name, int(size * MIB), int(reservation * MIB), int(limit * MIB), swap_dir)
                self.vm = name
                if helper:
                    self.do("helper")
                if lease != 0:
                    self.do("lease", 0, int((lease or size) * MIB))
        except BaseException:
            self.kill()
            raise
        self.pages = int((lease or size or 0) * MIB) // PAGE

    def _answer(self, command, seconds):
        line = self.hear(seconds, "an answer to %s" % command)
        word, _, rest = line.partition(" ")
        if word == "ok":
            return rest
        errno, name, message = (rest.split(" ", 2) + ["", ""])[:3]
        raise Refused(command, int(errno), name, message)

    def do(self, *words, seconds=60):
        """Carry out one command; the words of the answer."""
        command = " ".join(str(w) for w in words)
        self.tell(command)
        return shlex.split(self._answer(command, seconds).replace("'", ""))

    def check(self, first, count, seed, kind, lease=0, command="check", like=()):
        """Every byte of the pages is what `fill` put there."""
        wrong, *why = self.do(command, lease, first, count, seed, kind, *like, seconds=120)
        if int(wrong):
            raise AssertionError("%s: %s of %d pages are wrong: %s; %s" % (
                self.name, wrong, count, " ".join(why), {k: v for k, v in self.numbers().items() if v}))

    def data(self, lease=0):
        """The pages that the kernel has in the lease's memfd."""
        return {p for at, n in json.loads("".join(self.do("data", lease))) for p in range(at, at + n)}

    # ---- what the daemon says of it

    def numbers(self):
        return numbers(self.daemon, self.vm)

    def states(self, first=0, count=None, gpa=0):
        """The state of each page, a list of words."""
        states = []
        count = self.pages - first if count is None else count
        at, end = gpa + first * PAGE, gpa + (first + count) * PAGE
        while at and at < end or not states:
            reply = self.daemon.memctl("vm", "pmap", self.vm, "%d+%d" % (at, end - at), timeout=60 * SLOW)
            for run in reply["runs"]:
                states += [run["state"] + ("!" if run.get("in_transit") else "")] * run["pages"]
            at = reply.get("next", 0)
            if not at:
                break
        return states

    def resident(self, first=0, count=None):
        return sum(s == "resident" for s in self.states(first, count))

    def evict(self, first, count, press_first, press_count):
        """Have the pages [first, first+count) evicted by the VM's own limit: they are said not to be needed, and the
        pages press_first... are written.  Nothing presses any more when it returns."""
        self.do("dont_need", 0, first, count)
        for at in range(press_first, press_first + press_count, 64):
            self.do("fill", 0, at, min(64, press_first + press_count - at), 99, "random")
            if all(s in EVICTED for s in self.states(first, count)):
                break
        try:
            wait_until(lambda: all(s in EVICTED for s in self.states(first, count)), 10 * SLOW, "eviction")
        except Failed as e:
            raise Failed("pages %d+%d were not evicted: %s; %s" % (
                first, count, runs(self.states(first, count)), self.numbers())) from e
        self.do("discard", 0, press_first, press_count)
        calm(self.daemon)


def numbers(d, vm):
    for v in d.memctl("vm", "list", timeout=60 * SLOW)["vms"]:
        if v["name"] == vm:
            return v
    raise Failed("no VM %s" % vm)


def arena(d):
    """size_bytes, charged_bytes, peak_bytes ... of the arena."""
    return d.memctl("status", timeout=60 * SLOW)["status"]["arena"]


def calm(d, seconds=15):
    """Wait until nothing is evicted any more."""
    last, since, end = None, time.monotonic(), time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        now = [(v["name"], v["evicted_pages"], v["swap_out_pages"]) for v in d.memctl("vm", "list")["vms"]]
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 0.3:
            return
        time.sleep(0.05)
    raise Failed("the daemon goes on evicting")


def no_vms(d, seconds=20):
    """Wait until every VM is gone, then the arena must hold nothing."""
    wait_until(lambda: not d.memctl("vm", "list")["vms"], seconds * SLOW, "the release of the VMs")
    wait_until(lambda: arena(d)["charged_bytes"] == 0, 5 * SLOW, "an arena without charges")
