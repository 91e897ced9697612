"""Runs one fuzz target: libFuzzer of build-fuzz, or AFL++ of build-afl.  What either finds new is kept in the build directory and is
where it goes on the next time; what makes a target fail is kept there as well, and its name told."""
import glob
import os
import re
import shutil
import subprocess

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SEEDS = os.path.join(TREE, "tests", "fuzz", "corpus")
# no leaks are looked for after each input, but at the end; what takes five seconds hangs
LIBFUZZER = ["-timeout=5", "-rss_limit_mb=3000", "-print_final_stats=1", "-verbosity=0", "-max_len=8192"]


def targets():
    return sorted(os.listdir(SEEDS))


class Found(Exception):
    """An input that the target fails at; `path`."""

    def __init__(self, why, path):
        super().__init__("%s (%s)" % (why, path))
        self.path = path


def libfuzzer(build, name, seconds):
    """Executions.  Raises Found."""
    known, finds = os.path.join(build, "known", name), os.path.join(build, "finds", name)
    for place in (known, finds):
        os.makedirs(place, exist_ok=True)
    command = [os.path.join(build, "tests/fuzz/fuzz-" + name), *LIBFUZZER, "-max_total_time=%d" % seconds,
               "-artifact_prefix=%s/" % finds, known, os.path.join(SEEDS, name)]
    # the history is a file of its own size
    if name == "history":
        command[5] = "-max_len=65536"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ASAN_", "UBSAN_", "LSAN_"))}
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
                            errors="replace", check=False)
    if result.returncode:
        path = re.search(r"Test unit written to (\S+)", result.stderr)
        why = re.search(r"^.*(ERROR: .*|SUMMARY: .*|: .*not .*)$", result.stderr, re.M)
        raise Found("%s\n%s" % (why.group(0) if why else "exit %d" % result.returncode, result.stderr[-3000:]),
                    path.group(1) if path else "no input was kept")
    return int(re.search(r"number_of_executed_units: (\d+)", result.stderr).group(1))


def afl(build, name, seconds):
    """Executions.  Raises Found."""
    out = os.path.join(build, "afl", name)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    env = dict(os.environ, AFL_NO_UI="1", AFL_SKIP_CPUFREQ="1", AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES="1", AFL_NO_AFFINITY="1")
    result = subprocess.run(["afl-fuzz", "-i", os.path.join(SEEDS, name), "-o", out, "-V", str(seconds), "-t", "5000", "-m", "none", "--",
                             os.path.join(build, "tests/fuzz/fuzz-" + name)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env=env, errors="replace", check=False)
    for path in glob.glob(out + "/default/crashes/id*") + glob.glob(out + "/default/hangs/id*"):
        raise Found("a crash, or a hang", path)
    if result.returncode:
        raise Found("exit %d\n%s" % (result.returncode, result.stdout[-2000:]), "no input was kept")
    with open(out + "/default/fuzzer_stats") as f:
        return int(re.search(r"execs_done\s*: (\d+)", f.read()).group(1))
