"""memctld is killed at random moments, again and again, under the load of the torture: oracles at twice the arena that share, in
one group, while reclaim and the scan are at work, and clients that die themselves.

Reuses tests/torture/run: its daemon and oracles, with another way to spend the time."""
import importlib.machinery
import importlib.util
import os
import signal
import statistics
import struct
import subprocess
import threading
import time

from crash.supervised import AWAY, Supervised
from lib.daemon import TREE, Failed

MIB = 1 << 20
KILL_SECONDS = (0.05, 0.5)
AUDIT_SECONDS = 2
MORTAL_SECONDS = (0.5, 4)
REST_SECONDS = 3	# at the end nobody is killed any more
PATIENCE_SECONDS = 5	# that an audit tries to come between two deaths
IN_RESTART = 0.1	# of the deaths do not wait until the last one is over
SERVED_NS = 2_000_000	# a touch that was under way when memctld was killed, and took no longer, was served by the dead one


def torture_run():
    path = os.path.join(TREE, "tests", "torture", "run")
    loader = importlib.machinery.SourceFileLoader("torture_run", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("torture_run", loader))
    loader.exec_module(module)
    return module


torture = torture_run()


class Toucher:
    """toucher.c: what it has written down."""

    def __init__(self, daemon, name="toucher"):
        self.path = os.path.join(daemon.dir, name)
        self.process = subprocess.Popen([os.path.join(daemon.build, "tests", "crash", "toucher"), name, self.path],
                                        env=daemon.environ(), stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise Failed("the toucher did not begin")

    def last_ns(self):
        """When it was served last."""
        with open(self.path, "rb") as f:
            n, = struct.unpack("Q", f.read(8))
            if not n:
                return 0
            f.seek(16 * n)	# of the last two numbers the second
            return struct.unpack("Q", f.read(8))[0]

    def stop(self):
        """[(began, served)] in ns, all; raises if something was wrong."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("the toucher hangs") from None
        finally:
            self.process.stdout.close()
        if status:
            raise Failed("the toucher: exit status %d" % status)
        with open(self.path, "rb") as f:
            n, = struct.unpack("Q", f.read(8))
            numbers = struct.unpack("%dQ" % (2 * n), f.read(16 * n))
        return list(zip(numbers[::2], numbers[1::2]))

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def pauses_ms(kills, touches):
    """Of each death that found memctld serving, and that no other followed before it served again: how long that took."""
    pauses, at = [], 0
    for i, killed in enumerate(kills):
        while at < len(touches) and (touches[at][1] <= killed or
                                     (touches[at][0] < killed and touches[at][1] < killed + SERVED_NS)):
            at += 1
        if at < len(touches) and (i + 1 == len(kills) or touches[at][1] < kills[i + 1]) and (
                i == 0 or touches[at - 1][1] > kills[i - 1]):
            pauses.append((touches[at][1] - killed) / 1e6)
    return pauses


def percentile(values, p):
    return round(sorted(values)[min(len(values) - 1, int(len(values) * p / 100))], 1) if values else None


class Killing(torture.Run):
    """As Run, but memctld does not live long."""

    def __init__(self, options, arena, vms, size):
        super().__init__(options, arena, vms, size, share=True)
        old = self.daemon
        self.daemon = Supervised(arena=arena, start_seconds=20, args=old.args, directory=None)
        old._clean()
        if self.nobody:
            os.chmod(self.daemon.dir, 0o755)
        self.killed_ns = []
        self.toucher = None
        self.killing = threading.Event()
        self.spared = threading.Event()
        self.killer = threading.Thread(target=self.kill_again_and_again, daemon=True)

    def kill_again_and_again(self):
        while not self.killing.wait(self.rng.uniform(*KILL_SECONDS)):
            patient = self.rng.random() >= IN_RESTART
            while patient and not self.serves():
                if self.killing.wait(0.01):
                    return
            now = time.monotonic_ns()
            if not self.spared.is_set() and self.daemon.kill_child():
                self.killed_ns.append(now)

    def serves(self):
        """Whether what was killed last is over: a death before memctld says that it is ready makes its supervisor wait."""
        log = self.daemon.log()
        return log.rfind("memctld: serving on") > log.rfind("was killed by signal") and (
            not self.killed_ns or self.toucher.last_ns() > self.killed_ns[-1] + SERVED_NS)

    def stop_killing(self):
        self.killing.set()
        if self.killer.is_alive():
            self.killer.join()

    def scan(self):
        while not self.scanning.wait(torture.SCAN_SECONDS):
            self.daemon.run_memctl("share", "scan", timeout=60)	# if it is there

    def mortal(self):
        """A client that comes when memctld is just away is sent away, and comes again."""
        for _ in range(20):
            try:
                return super().mortal()
            except torture.Gone:
                time.sleep(0.05)
        raise torture.Gone("no client can come any more")

    def audit(self):
        result = self.daemon.patient("audit", seconds=PATIENCE_SECONDS, timeout=120)
        if result.returncode in AWAY:
            # the machine is so busy that no memctld lives for as long as an audit takes: one of them does
            self.spared.set()
            result = self.daemon.patient("audit", timeout=120)
            self.spared.clear()
        self.audits += 1
        if result.returncode:
            self.audit_failures += 1
            torture.say("audit: exit %d: %s" % (result.returncode, torture.audit_in_short(result)))

    def work(self, seconds):
        end = time.monotonic() + seconds
        next_audit = time.monotonic() + AUDIT_SECONDS
        mortal, next_mortal = None, time.monotonic()
        self.killer.start()
        while time.monotonic() < end:
            now = time.monotonic()
            if now >= next_mortal:
                if mortal:
                    mortal.kill()
                    self.kills += 1
                mortal = self.mortal()
                next_mortal = now + self.rng.uniform(*MORTAL_SECONDS)
            if now >= next_audit:
                self.audit()
                self.sample_pools()
                next_audit = now + AUDIT_SECONDS
            for o in self.oracles:
                if not o.alive():
                    raise torture.Gone("%s ended: %s" % (o.name, o.process.returncode))
            if not self.daemon.alive():
                raise torture.Gone("the supervisor ended")
            time.sleep(0.05)
        self.stop_killing()
        if mortal:
            mortal.kill()
            self.kills += 1

    def __exit__(self, kind, value, trace):
        self.stop_killing()
        super().__exit__(kind, value, trace)


def load(options, result):
    arena = options.arena * MIB
    with Killing(options, arena, options.vms, 2 * arena // options.vms) as run:
        before = run.held()
        toucher = run.toucher = Toucher(run.daemon)
        try:
            for i in range(options.vms):
                run.oracle(i)
            for o in run.oracles:
                o.hear_json("filled", 180)
            run.work(options.seconds)
            time.sleep(REST_SECONDS)
            touches = toucher.stop()
        finally:
            toucher.kill()
        reports = run.verify()
        for name in torture.SUMMED:
            result[name] = sum(r[name] for r in reports)
        for o in run.oracles:
            run.look(o)
        run.pools_at_rest()
        vms = run.vms().values()
        run.problems += ["%s: %s" % (v["name"], v["trouble"]) for v in vms if v["trouble"]]
        run.audit()
        run.leave()
        run.nothing_left(before)
        run.audit()
        pauses = pauses_ms(run.killed_ns, touches)
        result.update(kills=len(run.killed_ns), client_kills=run.kills, audits=run.audits, audit_failures=run.audit_failures,
                      touches=len(touches), pause_p50_ms=percentile(pauses, 50), pause_p99_ms=percentile(pauses, 99),
                      pause_max_ms=percentile(pauses, 100),
                      touch_p50_us=round(statistics.median(e - b for b, e in touches) / 1e3, 1) if touches else None,
                      pool_most_pages={k.replace("_bytes", ""): v for k, v in run.pool_most.items()})
        lines = [line for line in run.daemon.log().splitlines() if "restarted:" in line]
        result["restarts"] = len(lines)
        result["in_question_pages"] = sum(int(line.split(" pages in question")[0].split()[-1]) for line in lines)
        result["damaged_words"] = sum(int(line.split(" words damaged")[0].split()[-1]) for line in lines)
        if result["damaged_words"]:
            run.problems.append("%d words were damaged" % result["damaged_words"])
        return run.problems


def kills(options, result):
    began = time.monotonic()
    result.update(seed=options.seed, seconds=options.seconds, kills=0, verified_pages=0, wrong_pages=0, audit_failures=0)
    problems, failure = torture.guarded("kills", load, options, result)
    result["problems"] = (problems or []) + ([failure] if failure else [])
    for name in ["wrong_pages", "wrong_words", "audit_failures", "errors"]:
        if result.get(name):
            result["problems"].append("%s: %d" % (name, result[name]))
    result["total_seconds"] = round(time.monotonic() - began, 1)
