"""Runs the suites of tests/suites.toml; see tests/run for its use.

Every program runs in a session of its own, under a time limit; whatever it leaves behind (a daemon, a stopped
client) is found, because this process is the subreaper, ended, and counted as a failure.  Sanitizers write their
reports into a directory of the build; a report is a failure, even if the program that made it was not looked at.

Programs of a suite that may stand beside one another (most of them wait, most of the time) are run by workers, processes that
are each the subreaper of what they run, so that what is left behind has one owner.  What they print comes whole, and in
the order of the programs."""
import concurrent.futures
import ctypes
import fcntl
import glob
import json
import multiprocessing
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import builds  # noqa: E402
import progress  # noqa: E402

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TIERS = ["quick", "middle", "long"]
BUDGET = {"quick": 180, "middle": 900, "long": 4800}
PR_SET_CHILD_SUBREAPER = 36
LOCK = "/tmp/memctl-tests.lock"
VERDICT = re.compile(r"^(ok|not ok|skip) ([^\s:]+)(?::\s*(.*))?$")


def become_subreaper():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Results:
    def __init__(self, say):
        self.passed, self.failed, self.skipped = [], [], []
        self.say = say

    def _fresh(self, name):
        """A name counts once: a program that prints it twice would be counted as two."""
        if name in self.passed or any(name == n for n, _ in self.failed) or any(name == n for n, _ in self.skipped):
            self.failed.append((name + "/again", "two scenarios of this name"))
            self.say("  not ok %s: two scenarios of this name" % name)
            return False
        return True

    def ok(self, name):
        if self._fresh(name):
            self.passed.append(name)

    def fail(self, name, why):
        if self._fresh(name):
            self.failed.append((name, why))
            self.say("  not ok %s: %s" % (name, why))

    def skip(self, name, why):
        if self._fresh(name):
            self.skipped.append((name, why))
            self.say("  skip %s: %s" % (name, why))

    def add(self, other):
        """What another has counted, and said."""
        self.passed += [n for n in other.passed if self._fresh(n)]
        self.failed += [(n, why) for n, why in other.failed if self._fresh(n)]
        self.skipped += [(n, why) for n, why in other.skipped if self._fresh(n)]

    def counts(self):
        return len(self.passed), len(self.failed), len(self.skipped)


def children():
    """Processes that are ours now: direct children, and orphans of theirs that came to us."""
    found = []
    for path in glob.glob("/proc/self/task/*/children"):
        try:
            with open(path) as f:
                found += [int(p) for p in f.read().split()]
        except OSError:
            continue
    return found


def reap_leftovers(grace=1.0):
    """End whatever a program left behind; the names of what was still alive after the grace."""
    end = time.monotonic() + grace
    names = []
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return names
        left = children()
        if time.monotonic() > end:
            for pid in left:
                try:
                    with open("/proc/%d/comm" % pid) as f:
                        names.append(f.read().strip())
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
            end = time.monotonic() + 5
            if len(names) > 1000:
                return names
        time.sleep(0.01)


def sanitizer_environ(directory):
    """Reports go to files of `directory`, and the program that has one does not end well."""
    tsan = "log_path=%s/tsan:exitcode=66:second_deadlock_stack=1" % directory
    suppressions = os.path.join(TREE, "tests", "tsan.supp")
    if os.path.exists(suppressions):
        tsan += ":suppressions=" + suppressions
    return {
        "ASAN_OPTIONS": "log_path=%s/asan:exitcode=66:detect_leaks=1:detect_stack_use_after_return=1" % directory,
        "LSAN_OPTIONS": "exitcode=66",
        "UBSAN_OPTIONS": "log_path=%s/ubsan:print_stacktrace=1:halt_on_error=1:exitcode=66" % directory,
        "TSAN_OPTIONS": tsan,
    }


def environ(build, reports):
    env = dict(os.environ, MEMCTL_BUILD=os.path.join(TREE, build), MEMCTL_SLOW=str(builds.SLOW.get(build, 1)),
               PYTHONPATH=os.path.join(TREE, "tests"), PYTHONDONTWRITEBYTECODE="1")
    env.pop("MEMCTL_SOCKET", None)
    env.update(sanitizer_environ(reports))
    return env


def wrap(build, command):
    """ThreadSanitizer of gcc 12 cannot place its shadow beside 32 bits of address randomisation."""
    if build == "build-tsan" and shutil.which("setarch"):
        return ["setarch", os.uname().machine, "-R", *command]
    return command


def run_program(command, env, seconds, line, tick=lambda: None):
    """Calls line(text) for each line of stdout, and tick() now and then; the exit status, or None if it had to be killed."""
    process = subprocess.Popen(command, cwd=TREE, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               start_new_session=True)
    end = time.monotonic() + seconds
    fd = process.stdout.fileno()
    rest, late = b"", False
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0:
                late = True
                break
            tick()
            if not select.select([fd], [], [], min(left, 0.5))[0]:
                # a child of it may hold the pipe open for ever
                if process.poll() is not None:
                    break
                continue
            data = os.read(fd, 65536)
            if not data:
                break
            rest += data
            *lines, rest = rest.split(b"\n")
            for text in lines:
                line(text.decode(errors="replace"))
        if not late:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                late = True
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            pass
        process.wait()
        process.stdout.close()
    if rest:
        line(rest.decode(errors="replace"))
    return None if late else process.returncode


def judge_reports(results, name, reports):
    for path in sorted(glob.glob(reports + "/*")):
        with open(path, errors="replace") as f:
            text = f.read()
        if not text.strip():
            continue        # begun by a process that was then killed
        first = next((t for t in text.splitlines() if "ERROR" in t or "WARNING" in t or "runtime error" in t),
                     text[:200])
        sys.stderr.write(text[:6000])
        results.fail("%s/sanitizer" % name, "%s (%s)" % (first.strip()[:300], path))
        return
    shutil.rmtree(reports, ignore_errors=True)


def program_name(suite, path):
    name = os.path.basename(path).rsplit(".", 1)[0]
    for prefix in (suite + "-", "test_", suite + "_"):
        if name.startswith(prefix):
            return name[len(prefix):]
    return name


class Watched:
    """Which suite runs, the how many-th, and for how long, against the seconds that suites.toml says of it and of all."""

    def __init__(self, suites, names, line, now=time.monotonic):
        self.seconds = [suites[n]["seconds"] for n in names]
        self.line, self.now = line, now
        self.nth, self.name, self.begun = 0, "", now()

    def next(self, name):
        self.nth, self.name, self.begun = self.nth + 1, name, self.now()

    def text(self, program=""):
        declared = self.seconds[self.nth - 1]
        left = sum(self.seconds[self.nth:]) + max(0, declared - (self.now() - self.begun))
        return "suite %d of %d: %s   %d of about %d s   all: %s left" % (
            self.nth, len(self.seconds), program or self.name, self.now() - self.begun, declared, progress.duration(left))

    def tick(self, program=""):
        if self.line.shown:
            self.line.show(self.text(program))


class Runner:
    def __init__(self, suites, say, watched=None):
        self.suites = suites
        self.say = say
        self.results = Results(say)
        self.built = {}
        self.watched = watched or Watched({}, [], progress.Progress(quiet=True))

    def build(self, name):
        """True if it is there; the first time it counts as a scenario."""
        if name not in self.built:
            begun = time.monotonic()
            self.say("%s: building" % name)
            if "cc" in builds.BUILDS[name] and not shutil.which(builds.BUILDS[name]["cc"]):
                self.built[name] = False
                self.results.skip("build/%s" % name, "%s is not installed" % builds.BUILDS[name]["cc"])
                return False
            why = builds.build(TREE, name)
            self.built[name] = why is None
            if why:
                self.results.fail("build/%s" % name, why)
            else:
                self.results.ok("build/%s" % name)
                self.say("%s: built in %.0f s" % (name, time.monotonic() - begun))
        return self.built[name]

    def programs(self, suite, build):
        """(program name, command) of a suite, whatever exists."""
        found = []
        for pattern in self.suites[suite]["programs"]:
            for path in sorted(glob.glob(os.path.join(TREE, pattern.replace("BUILD", build, 1)))):
                if path.endswith(".py"):
                    found.append((program_name(suite, path), [sys.executable, path]))
                elif os.path.isfile(path) and os.access(path, os.X_OK):
                    found.append((program_name(suite, path), [path]))
        return found

    def run_one(self, name, command, build, seconds):
        """One program of scenarios."""
        results, before, begun = self.results, self.results.counts(), time.monotonic()
        reports = tempfile.mkdtemp(prefix="reports-", dir=os.path.join(TREE, build))

        def line(text):
            verdict = VERDICT.match(text)
            if not verdict:
                self.watched.line.clear()
                sys.stderr.write(text + "\n")
            elif verdict[1] == "ok":
                results.ok("%s/%s" % (name, verdict[2]))
            elif verdict[1] == "skip":
                results.skip("%s/%s" % (name, verdict[2]), verdict[3] or "no reason given")
            else:
                results.fail("%s/%s" % (name, verdict[2]), verdict[3] or "no reason given")

        status = run_program(wrap(build, command), environ(build, reports), seconds, line, lambda: self.watched.tick(name))
        left = reap_leftovers()
        counts = results.counts()
        if status is None:
            results.fail(name + "/ends", "killed after %d s" % seconds)
        elif left:
            results.fail(name + "/ends", "left processes behind: %s" % " ".join(sorted(set(left))))
        elif counts == before:
            results.fail(name + "/ends", "exit %d without one scenario" % status)
        elif status != 0 and counts[1] == before[1]:
            results.fail(name + "/ends", "exit %d, but no scenario failed" % status)
        judge_reports(results, name, reports)
        after = results.counts()
        self.say("%-32s %s  %.1f s" % (name, ", ".join(
            "%d %s" % (b - a, w) for a, b, w in zip(before, after, ("ok", "failed", "skipped")) if b - a),
            time.monotonic() - begun))

    def run_command(self, name, suite, build):
        """A command whose JSON is judged: one scenario a promise."""
        results, command = self.results, list(suite["command"])
        if not os.path.exists(os.path.join(TREE, command[0])):
            results.skip(name, "%s is not there" % command[0])
            return
        reports = tempfile.mkdtemp(prefix="reports-", dir=os.path.join(TREE, build))
        handle, out = tempfile.mkstemp(suffix=".json")
        os.close(handle)
        lines = []
        command = [out if w == "OUT" else w for w in command]
        begun = time.monotonic()
        status = run_program([os.path.join(TREE, command[0]), *command[1:]], environ(build, reports),
                             suite.get("timeout", 120), lines.append, self.watched.tick)
        left = reap_leftovers()
        try:
            with open(out) as f:
                text = f.read() or "\n".join(lines)
            # a demo's table may stand before it
            report = json.loads(text if text.lstrip().startswith("{") else "")
        except ValueError:
            report = None
        os.unlink(out)
        if status == 77:
            results.skip(name, (lines or ["no reason given"])[-1])
        elif status is None:
            results.fail(name + "/ends", "killed after %d s" % suite.get("timeout", 120))
        elif left:
            results.fail(name + "/ends", "left processes behind: %s" % " ".join(sorted(set(left))))
        elif status != 0:
            results.fail(name + "/ends", "exit %d: %s" % (status, (lines or [""])[-1]))
        else:
            results.ok(name + "/ends")
        if report is None:
            if status not in (77, None):
                results.fail(name + "/report", "printed no JSON")
        else:
            self.judge(name, suite, report)
        judge_reports(results, name, reports)
        self.say("%-32s %.1f s" % (name, time.monotonic() - begun))

    def judge(self, name, suite, report):
        for key, wanted in suite.get("good", {}).items():
            if report.get(key) == wanted:
                self.results.ok("%s/%s" % (name, key))
            else:
                self.results.fail("%s/%s" % (name, key), "%r, must be %r" % (report.get(key), wanted))
        for key in suite.get("some", []):
            if isinstance(report.get(key), int) and report[key] > 0:
                self.results.ok("%s/%s" % (name, key))
            else:
                self.results.fail("%s/%s" % (name, key), "%r, must be some" % report.get(key))

    def run_suite(self, name, program=None):
        suite = self.suites[name]
        build = suite.get("build", "build")
        self.watched.next(name)
        self.watched.tick()
        if not self.build(build) and not suite.get("anyway", False):
            # what could not be built was not tested: say so by name
            self.results.skip(name, "%s could not be built" % build)
            return
        with host_lock(suite.get("exclusive", False)):
            if "command" in suite:
                self.run_command(name, suite, build)
                return
            ran = False
            for part in suite.get("again", [name]):
                label = "%s/%s/" % (name, part) if "again" in suite else name + "/"
                jobs = [(label + found, command, build, suite.get("timeout", 120))
                        for found, command in self.programs(part, build) if program in (None, found)]
                ran = ran or bool(jobs)
                self.run_all(jobs, min(self.suites[part].get("beside", 1), os.cpu_count()))
            if not ran:
                self.results.skip(name, "no program of it is there")

    def run_all(self, jobs, beside):
        if beside < 2 or len(jobs) < 2:
            for job in jobs:
                self.run_one(*job)
            return
        with concurrent.futures.ProcessPoolExecutor(beside, multiprocessing.get_context("fork"), become_subreaper) as workers:
            for results, said in workers.map(run_apart, jobs):
                self.say(said.rstrip("\n"))
                self.results.add(results)


def run_apart(job):
    """One program, in a worker: its results, and what it and we had to say."""
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        runner = Runner({}, lambda text: print(text, file=sys.stderr, flush=True))
        runner.run_one(*job)
        sys.stderr.flush()
        said.seek(0)
        runner.results.say = None
        return runner.results, said.read().decode(errors="replace")


class host_lock:
    """Suites that change settings of the host run alone; the others share."""

    def __init__(self, exclusive):
        self.how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        self.fd = -1

    def __enter__(self):
        # an existing file is opened without O_CREAT: another user's file in a sticky directory refuses it
        for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT):
            try:
                self.fd = os.open(LOCK, flags | os.O_CLOEXEC, 0o666)
                break
            except OSError:
                continue
        if self.fd >= 0:
            try:
                fcntl.flock(self.fd, self.how | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting for another suite on this host to end", file=sys.stderr, flush=True)
                fcntl.flock(self.fd, self.how)
        return self

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)


def load_suites():
    with open(os.path.join(TREE, "tests", "suites.toml"), "rb") as f:
        return tomllib.load(f)


def list_suites(suites):
    for name, suite in suites.items():
        print("%-14s %-7s %5d s  %s" % (name, suite["tier"], suite["seconds"], suite["what"]))
    for tier in TIERS:
        upto = TIERS[:TIERS.index(tier) + 1]
        print("# %s: about %d s of %d" % (tier, sum(s["seconds"] for s in suites.values() if s["tier"] in upto),
                                          BUDGET[tier]))


def hand_over(arguments):
    """tests/run torture --seconds ..., share-torture --json: builds a release unless MEMCTL_BUILD says which build to use."""
    if "MEMCTL_BUILD" not in os.environ:
        why = builds.build(TREE, "build-release")
        if why:
            sys.exit("tests/run: " + why)
        os.environ["MEMCTL_BUILD"] = os.path.join(TREE, "build-release")
    program = os.path.join(TREE, "tests", "torture", "run")
    # held until the torture ends, by a descriptor that it does not know of
    lock = host_lock(False).__enter__()
    if lock.fd >= 0:
        os.set_inheritable(lock.fd, True)
    os.execv(program, [program, *arguments])


def main(arguments):
    suites = load_suites()
    if arguments[:1] == ["torture"] and len(arguments) > 1:
        hand_over(arguments[1:])
    if arguments[:1] == ["share-torture"] and len(arguments) > 1:
        hand_over(["--share", *arguments[1:]])
    if arguments[:1] == ["--list"]:
        list_suites(suites)
        return 0
    if arguments[:1] == ["--build"]:
        name = (arguments[1:] or ["build"])[0]
        if name not in builds.BUILDS:
            sys.exit("tests/run: no build %s; there are %s" % (name, " ".join(builds.BUILDS)))
        why = builds.build(TREE, name)
        if why:
            sys.exit("tests/run: " + why)
        return 0
    as_json = "--json" in arguments
    quiet = "-q" in arguments or "--quiet" in arguments
    names = [a for a in arguments if a not in ("--json", "-q", "--quiet")]
    out = sys.stderr if as_json else sys.stdout
    line = progress.Progress(quiet=as_json or quiet)

    def say(text):
        line.clear()
        print(text, file=out, flush=True)

    tier = None
    if not names or names[0] in TIERS:
        tier = names[0] if names else "middle"
        upto = TIERS[:TIERS.index(tier) + 1]
        chosen = [(n, None) for n, s in suites.items() if s["tier"] in upto]
        names = names[1:]
    else:
        chosen = []
    for name in names:
        suite, _, program = name.partition("/")
        if suite not in suites:
            print("tests/run: no suite %s; see tests/run --list" % suite, file=sys.stderr)
            return 16
        chosen.append((suite, program or None))

    become_subreaper()
    begun = time.monotonic()
    runner = Runner(suites, say, Watched(suites, [suite for suite, _ in chosen], line))
    for suite, program in chosen:
        runner.run_suite(suite, program)
    line.clear()
    passed, failed, skipped = runner.results.counts()
    seconds = time.monotonic() - begun
    if tier and seconds > BUDGET[tier]:
        print("took %.0f s, more than the %d s of this tier" % (seconds, BUDGET[tier]), file=sys.stderr)
    for name, why in runner.results.failed:
        print("FAILED %s: %s" % (name, why), file=sys.stderr)
    if as_json:
        print(json.dumps({
            "passed": passed, "failed": failed,
            "skipped": [{"name": n, "why": w} for n, w in runner.results.skipped],
            "tests": runner.results.passed + [n for n, _ in runner.results.failed],
        }))
    else:
        print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
