"""Every crash point, at every passage: memctld is killed there while a scripted client (scenario.c) goes on, and started again.

The script is run once for each list of points, then once for each passage of each point.  A point is tried with the first script
that passes it.  What only a restart passes is tried after a death that gives the restart something to do, and twice in a row."""
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from crash.supervised import Supervised
from lib.daemon import Failed, wait_until

SECONDS = 40	# one run; it takes less than one
SETTINGS = ["share_groups=crash=*", "share_with_root=yes", "ShareRateMax=10000000", "ShareScanGHz=1000000", "ShareScanTime=0",
            "victim=fill-order", "swap_spin=0"]
SCRIPTS = {"main": "hasty", "lost": "hasty,cache_corrupt", "budget": "hasty", "handed": "hasty", "clean": "hasty"}
# deaths that leave much to settle; with a few words each in transit, in question, shared, broken
FIRST = ["evict.recorded:2", "share.recorded:1", "order.sent:3", "home.recorded:1", "break.recorded:2", "pool_evict.recorded:2",
         "entry_free.recorded:2", "fill.put:20", "discard.recorded:3", "release.unshared:1", "pin.recorded:2"]
RESTART_PASSAGES = 3	# of a point of the restart: the first, the last, and as many between as make so many
# Steps of a restart that the next one finds done: of N passages it makes those that are left.
PROGRESS = {"recover.freed", "recover.resident", "recover.settled", "settle.recorded"}
# The scripts wait for what they cause, so points are passed equally often each time; but a machine that is busy may stop a
# thread for longer than a script looks.  A trial that was not hit is run again; every one must be.
TRIES = 3


class Wrong(Exception):
    pass


def read_list(path):
    """{point: passages}; there is none if the daemon of that life did not begin."""
    try:
        with open(path) as f:
            return {name: int(n) for name, n in (line.split() for line in f if line.strip())}
    except OSError:
        return {}


def run_client(daemon, script, tolerant=False, also_fine=()):
    command = [os.path.join(daemon.build, "tests", "crash", "scenario"), script, *(["tolerant"] if tolerant else [])]
    try:
        result = subprocess.run(command, env=daemon.environ(), timeout=SECONDS, capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired as e:
        raise Wrong("the client hangs: %s" % (e.stderr or b"").decode(errors="replace")[-800:]) from e
    if result.returncode and result.returncode not in also_fine:
        raise Wrong("the client: exit status %d: %s" % (result.returncode, result.stderr.strip()[-800:]))


def look(daemon):
    """Everything that the client had is back, and the books are right."""
    status = {}

    def at_rest():
        if daemon.memctl("vm", "list")["vms"]:
            return False
        status.update(daemon.memctl("status")["status"]["host"])
        return status["charged_bytes"] == 0 and status["pools"] == 0
    try:
        wait_until(at_rest, 10, "the end of the VM")
    except Failed as e:
        raise Wrong("%s: %s" % (e, json.dumps(status))) from e
    result = daemon.patient("audit") if hasattr(daemon, "patient") else daemon.run_memctl("--json", "audit")
    if result.returncode:
        raise Wrong("audit: exit %d: %s" % (result.returncode, (result.stdout + result.stderr)[-1500:]))


class Trial:
    """One run of a script, with deaths: a line a life."""

    def __init__(self, script, deaths, options):
        self.script, self.deaths, self.options = script, deaths, options
        self.killed = 0
        self.lists = []

    def run(self):
        directory = tempfile.mkdtemp(prefix="memctl-crash-", dir=os.environ.get("MEMCTL_TEST_DIR"))
        try:
            self.run_in(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return self

    def run_in(self, directory):
        crash, points = os.path.join(directory, "crash"), os.path.join(directory, "list")
        with open(crash, "w") as f:
            f.write("".join(d + "\n" for d in self.deaths))
        daemon = Supervised(arena=64 << 20, directory=os.path.join(directory, "d"),
                            args=[word for s in SETTINGS for word in ("--set", s)],
                            env={"MEMCTLD_CRASH": "@" + crash, "MEMCTLD_INJECT": SCRIPTS[self.script],
                                 **({"MEMCTLD_CRASH_LIST": points} if not self.deaths or "" in self.deaths else {})})
        os.makedirs(daemon.dir)
        try:
            with daemon:
                run_client(daemon, self.script)
                look(daemon)
        except (Failed, Wrong) as e:
            raise Wrong("%s\n%s" % (e, daemon.log()[-3000:])) from e
        self.killed = daemon.log().count("was killed by signal 9")
        self.lists = [read_list("%s.%d" % (points, life)) for life in (1, 2)]


def say(text):
    print("crash: " + text, file=sys.stderr, flush=True)


def some(passages):
    """Of 1 ... passages: first, last, and some between."""
    n = min(RESTART_PASSAGES, passages)
    return sorted({1 + (passages - 1) * i // max(n - 1, 1) for i in range(n)})


def again(point, i, n):
    """The death of the second restart, after one at passage i of n; [] if there is none that could be."""
    if point not in PROGRESS:
        return ["%s:%d" % (point, i)]
    return ["%s:1" % point] if i < n else []


def plan(options, result):
    """[(script, deaths)], and the points that nothing passes."""
    trials, passed, known = [], {}, {}
    for script in SCRIPTS:
        counts = Trial(script, [], options).run().lists[0]
        known.update(dict.fromkeys(counts))
        for point, n in sorted(counts.items()):
            if n and point not in passed:
                passed[point] = n
                trials += [(script, ["%s:%d" % (point, i + 1)]) for i in range(n)]
    first_life = set(passed)
    restart = {}
    for death in FIRST:
        trial = Trial("main", [death, ""], options).run()
        if trial.killed != 1:
            raise Wrong("%s is not passed so often any more: change FIRST in points.py" % death)
        for point, n in trial.lists[1].items():
            if n and point not in first_life:
                restart.setdefault(point, []).append((death, n))
    for point, deaths in sorted(restart.items()):
        passed[point] = max(n for _, n in deaths)
        for death, n in deaths:
            for i in some(n):
                trials.append(("main", [death, "%s:%d" % (point, i)] + again(point, i, n)))
    result["never_hit"] = sorted(set(known) - set(passed))
    result["points"] = len(known)
    return trials


def points(options, result):
    began = time.monotonic()
    result.update(points=0, trials=0, retries=0, kills=0, wrong=0, wrong_pages=0, audit_failures=0, never_hit=[], missed=[], problems=[])
    trials = plan(options, result)
    if options.only:
        trials = [t for t in trials if any(d.startswith(options.only) for d in t[1])]
    say("%d points, %d trials, planned in %.0f s" % (result["points"], len(trials), time.monotonic() - began))
    if result["never_hit"]:
        result["problems"].append("never hit: " + " ".join(result["never_hit"]))
    with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
        def one(trial):
            script, deaths = trial
            try:
                for n in range(TRIES):
                    t = Trial(script, deaths, options).run()
                    if t.killed >= len(deaths):
                        break
                return trial, t.killed, n, None
            except Wrong as e:
                return trial, 0, 0, str(e)
        for trial, killed, retries, why in pool.map(one, trials):
            result["trials"] += 1
            result["retries"] += retries
            result["kills"] += killed
            what = "%s %s" % (trial[0], " ".join(trial[1]))
            if why:
                result["wrong"] += 1
                result["audit_failures"] += "audit" in why.splitlines()[0]
                result["wrong_pages"] += " wrong pages" in why and " 0 wrong pages" not in why
                say("NOT OK %s: %s" % (what, why))
                result["problems"].append("%s: %s" % (what, why.splitlines()[0][:300]))
            elif killed < len(trial[1]):
                result["missed"].append(what)
                result["problems"].append("%s: it was not killed at %s" % (what, trial[1][killed]))
    result["seconds"] = round(time.monotonic() - began, 1)
