"""The jobs of tests/check.  A job is a suite of tests/run, or a function of this file: None, or what it found in one line (the whole of it
goes to stderr)."""
import glob
import json
import os
import re
import subprocess
import sys
import time
import tomllib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import builds  # noqa: E402

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REASONS = os.path.join(TREE, "tests", "lib", "reasons")
# what valgrind can run: it knows no userfaultfd, so what serves faults is the sanitizers'
CONTROL_PLANE = ["base", "proto", "config", "load", "resources", "memory_max", "events", "plan_log", "orders", "record", "aside", "rollup",
                 "retain", "history", "doctor", "supervise"]
COVERED = ["proto", "daemon/mem"]
COVERAGE = 90
WARNING = re.compile(r"^(?:\.\./)*([^\s:]+):\d+:\d+: (?:warning|error): (.*) \[([^\]]+)\]$", re.M)


def _run(command, **more):
    return subprocess.run(command, cwd=TREE, stdin=subprocess.DEVNULL, text=True, errors="replace", check=False, **more)


def _build(name):
    why = builds.build(TREE, name)
    if why:
        raise RuntimeError(why)
    return os.path.join(TREE, name)


def reasons(job):
    """{(file, what): reason} of tests/lib/reasons/JOB: lines "FILE WHAT: REASON"."""
    found = {}
    with open(os.path.join(REASONS, job)) as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                place, _, why = line.strip().partition(": ")
                found[tuple(place.split(" ", 1))] = why
    return found


def unexplained(job, warnings):
    """None if there is a reason for every one of {(file, what): line}, and a warning for every reason."""
    known = reasons(job)
    new, old = sorted(set(warnings) - set(known)), sorted(set(known) - set(warnings))
    for key in new:
        print(warnings[key], file=sys.stderr)
    for key in old:
        print("tests/lib/reasons/%s: %s %s is not reported any more" % (job, *key), file=sys.stderr)
    if new or old:
        return "%d without a reason, %d reasons for nothing" % (len(new), len(old))
    return None


def _warnings(text):
    return {(m[1], m[3]): m[0] for m in WARNING.finditer(text)}


# ---- jobs


def analyzer():
    """a leak, a NULL that is used, a descriptor that is closed twice, on a path that no test takes (gcc -fanalyzer)"""
    build = os.path.join(TREE, "build-analyzer")
    if not os.path.exists(build + "/build.ninja"):
        result = _run(["meson", "setup", "-Dtests=false", "-Dc_args=-fanalyzer", build], stdout=sys.stderr)
        if result.returncode:
            return "meson setup: exit %d" % result.returncode
    # all of it, or what was built before would not be heard
    _run(["ninja", "-C", build, "clean"], stdout=subprocess.DEVNULL)
    result = _run(["ninja", "-k0", "-C", build], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        sys.stderr.write(result.stdout[-4000:])
        return "it does not build"
    return unexplained("analyzer", {k: v for k, v in _warnings(result.stdout).items() if k[1].startswith("-Wanalyzer")})


def tidy():
    """what looks like another thing than it is: a sizeof of a pointer, a comparison that is always true, a dead store (clang-tidy)"""
    build = _build("build-clang")
    with open(build + "/compile_commands.json") as f:
        sources = sorted({os.path.relpath(os.path.join(c["directory"], c["file"]), TREE) for c in json.load(f)})
    sources = [s for s in sources if s.startswith(("daemon/", "proto/", "libclient/", "cli/")) and s.endswith(".c")]
    text, running = "", []
    for group in (sources[i::os.cpu_count()] for i in range(os.cpu_count())):
        running.append(subprocess.Popen(["clang-tidy", "--quiet", "-p", build, *group], cwd=TREE, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"))
    for process in running:
        text += process.communicate()[0]
    found = {(os.path.relpath(k[0], TREE) if k[0].startswith("/") else k[0], k[1].split(",")[0]): v for k, v in _warnings(text).items()}
    found = {k: v for k, v in found.items() if not k[1].startswith("clang-diagnostic")}
    return unexplained("tidy", found)


def valgrind():
    """memory that is read before it was written, in what the control thread does (valgrind)"""
    build = _build("build")
    bad = []
    for name in CONTROL_PLANE:
        # scenarios are processes
        result = _run(["valgrind", "-q", "--error-exitcode=99", "--trace-children=no", "--child-silent-after-fork=no",
                       "--leak-check=no", build + "/tests/unit-" + name], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                      env=dict(os.environ, MEMCTL_BUILD=build, MEMCTL_SLOW="20"))
        errors = [t for t in result.stderr.splitlines() if t.startswith("==") and "Warning" not in t]
        wrong = [t for t in result.stdout.splitlines() if t.startswith("not ok")]
        if errors or wrong or "\nok " not in "\n" + result.stdout:
            sys.stderr.write("---- unit-%s\n%s%s" % (name, "\n".join(wrong + [""]), result.stderr[-4000:]))
            bad.append(name)
    return "unit-" + ", unit-".join(bad) if bad else None


def coverage():
    """code of the ledger and of the wire that no test runs (gcovr)"""
    build = _build("build-coverage")
    for path in glob.glob(build + "/**/*.gcda", recursive=True):
        os.unlink(path)
    # these kill memctld, and write no counts; whatever fails is for other jobs to tell
    env = dict(os.environ, MEMCTL_BUILD=build, MEMCTL_SLOW="2")
    programs = sorted(glob.glob(build + "/tests/unit-*") + glob.glob(build + "/tests/wire-*") + glob.glob(build + "/tests/fuzz/corpus-*"))
    for path in [p for p in programs if os.access(p, os.X_OK) and not os.path.isdir(p)]:
        _run([path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    for path in sorted(glob.glob("tests/wire/test_*.py", root_dir=TREE) + glob.glob("tests/system/test_*.py", root_dir=TREE)):
        print(path, file=sys.stderr)
        _run([sys.executable, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    result = _run(["gcovr", "-r", TREE, "--json", "--exclude-throw-branches", *("--filter=%s/" % c for c in COVERED), build],
                  stdout=subprocess.PIPE)
    if result.returncode:
        return "gcovr: exit %d" % result.returncode
    return judge_coverage(json.loads(result.stdout)["files"], reasons("coverage"))


def judge_coverage(files, known):
    """Of each folder so much in all; and of a file that has less, a reason."""
    low, all_of = [], dict.fromkeys(COVERED, (0, 0))
    for f in files:
        lines = [n for n in f["lines"] if not n.get("gcovr/noncode")]
        run = sum(n["count"] > 0 for n in lines)
        folder = next((c for c in COVERED if f["file"].startswith(c + "/")), None)
        if not folder or not lines:
            continue
        all_of[folder] = (all_of[folder][0] + run, all_of[folder][1] + len(lines))
        if 100 * run < COVERAGE * len(lines):
            low.append(f["file"])
            missing = ["%d" % n["line_number"] for n in lines if not n["count"]]
            print("%s: %.1f %%; not run: %s" % (f["file"], 100 * run / len(lines), " ".join(missing)), file=sys.stderr)
    for folder, (run, n) in all_of.items():
        print("%s: %d of %d lines, %.1f %%" % (folder, run, n, 100 * run / max(n, 1)), file=sys.stderr)
    short = [c for c, (run, n) in all_of.items() if not n or 100 * run < COVERAGE * n]
    new, old = sorted(set(low) - {k[0] for k in known}), sorted({k[0] for k in known} - set(low))
    if short or new or old:
        return "below %d %%: %s; without a reason: %s; reasons for nothing: %s" % (
            COVERAGE, " ".join(short) or "none", " ".join(new) or "none", " ".join(old) or "none")
    return None


SUITES = ["quick", "clang", "o0", "o3", "asan", "tsan"]
JOBS = {"analyzer": analyzer, "tidy": tidy, "valgrind": valgrind, "coverage": coverage}


def what(job):
    if job in JOBS:
        return JOBS[job].__doc__
    if job == "quick":
        return "what gcc warns of, and what the quick tests find"
    with open(os.path.join(TREE, "tests", "suites.toml"), "rb") as f:
        return tomllib.load(f)[job]["what"]


def run_job(job):
    if job in JOBS:
        return JOBS[job]()
    result = _run(["tests/run", job], stdout=subprocess.PIPE)
    return None if result.returncode == 0 else result.stdout.strip().splitlines()[-1]


def main(words):
    jobs = SUITES + sorted(JOBS)
    if words == ["--list"]:
        for job in jobs:
            print("%-10s %s" % (job, what(job)))
        return 0
    unknown = [w for w in words if w not in jobs]
    if unknown:
        print("tests/check: no job \"%s\"; there are: %s" % (unknown[0], " ".join(jobs)), file=sys.stderr)
        return 2
    failed = 0
    for job in words or jobs:
        begun = time.monotonic()
        try:
            why = run_job(job)
        except (RuntimeError, OSError) as e:
            why = str(e)
        print("%s %s%s  %.0f s" % ("not ok" if why else "ok", job, ": " + why if why else "", time.monotonic() - begun), flush=True)
        failed += bool(why)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
