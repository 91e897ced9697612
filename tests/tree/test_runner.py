"""tests/run itself: what must not pass does not pass.  Each scenario is a small tree with a suite that misbehaves."""
import ctypes
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib import runner  # noqa: E402
from lib.check import check, check_eq, main  # noqa: E402


def results_of(scripts, more="", name="odd"):
    """Run a suite of one shell script, or of several, by name."""
    with tempfile.TemporaryDirectory(prefix="memctl-runner-") as tree:
        os.makedirs(tree + "/tests")
        os.makedirs(tree + "/build")
        for script, text in (scripts if isinstance(scripts, dict) else {name: scripts}).items():
            path = "%s/tests/test_%s.sh" % (tree, script)
            with open(path, "w") as f:
                f.write("#!/bin/bash\n" + text + "\n")
            os.chmod(path, 0o755)
        suite = {"tier": "quick", "seconds": 1, "timeout": 2, "programs": ["tests/test_*.sh"]}
        suite.update(more or {})
        ctypes.CDLL(None).prctl(runner.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        before, runner.TREE = runner.TREE, tree
        try:
            run = runner.Runner({"suite": suite}, lambda text: None)
            run.built["build"] = True
            run.run_suite("suite")
        finally:
            runner.TREE = before
        return run.results


def failures(results):
    return [name for name, _ in results.failed]


def test_verdicts_are_counted():
    r = results_of("echo ok a; echo skip b: no tool; echo noise; echo ok c; echo 'not ok d: it broke'; exit 1")
    check_eq(r.passed, ["suite/odd/a", "suite/odd/c"])
    check_eq(r.skipped, [("suite/odd/b", "no tool")])
    check_eq(r.failed, [("suite/odd/d", "it broke")])


def test_last_line_needs_no_newline():
    check_eq(results_of("printf 'ok a'").passed, ["suite/odd/a"])


def test_a_program_that_hangs_is_killed():
    begun = time.monotonic()
    r = results_of("echo ok a; sleep 600 & sleep 600")
    check_eq(failures(r), ["suite/odd/ends"])
    check(time.monotonic() - begun < 15, "it was not killed in time")


def test_a_process_left_behind_fails():
    r = results_of("echo ok a; setsid sleep 600 >/dev/null 2>&1 & echo ok b; sleep 0.2")
    check_eq(failures(r), ["suite/odd/ends"])
    check("sleep" in r.failed[0][1], r.failed[0][1])
    check_eq(runner.children(), [], "processes of ours")


def test_a_child_that_holds_the_pipe_does_not_hang():
    begun = time.monotonic()
    r = results_of("echo ok a; setsid sleep 600 &")
    check_eq(failures(r), ["suite/odd/ends"])
    check(time.monotonic() - begun < 10, "it waited for the child")


def test_a_stopped_process_left_behind_is_ended():
    r = results_of("echo ok a; setsid bash -c 'kill -STOP $$' >/dev/null 2>&1 & sleep 0.3")
    check_eq(failures(r), ["suite/odd/ends"])


def test_programs_beside_one_another():
    """Who leaves something behind is found all the same, and what a program prints is counted and said once."""
    names = ["one", "two", "three"]
    meeting = "touch $0.here; for n in 1 2 3 4 5 6 7 8 9; do [ $(ls $(dirname $0)/*.here | wc -l) -gt 1 ] && break; sleep 0.1; done; "
    scripts = {n: meeting + "[ $(ls $(dirname $0)/*.here | wc -l) -gt 1 ] && echo ok met" for n in names}
    scripts["two"] += "; setsid sleep 600 >/dev/null 2>&1 & sleep 0.5; echo ok a"
    r = results_of(scripts, {"beside": 2})
    check_eq(r.passed, ["suite/one/met", "suite/three/met", "suite/two/met", "suite/two/a"])
    check_eq(failures(r), ["suite/two/ends"])
    check("sleep" in r.failed[0][1], r.failed[0][1])


def test_silence_is_no_success():
    check_eq(failures(results_of("exit 0")), ["suite/odd/ends"])


def test_a_bad_end_is_no_success():
    check_eq(failures(results_of("echo ok a; exit 3")), ["suite/odd/ends"])
    check_eq(failures(results_of("echo ok a; kill -SEGV $$")), ["suite/odd/ends"])


def test_a_name_counts_once():
    r = results_of("echo ok a; echo ok a")
    check_eq(r.passed, ["suite/odd/a"])
    check_eq(len(r.failed), 1)


def test_a_sanitizer_report_fails():
    r = results_of("echo ok a; p=${ASAN_OPTIONS#*log_path=}; echo 'ERROR: leak' >\"${p%%:*}.1\"")
    check_eq(failures(r), ["suite/odd/sanitizer"])
    check("leak" in r.failed[0][1], r.failed[0][1])


def test_a_missing_suite_is_skipped_by_name():
    r = results_of("echo ok a", {"programs": ["tests/nothing_*"]})
    check_eq(r.skipped, [("suite", "no program of it is there")])


def test_a_report_is_judged():
    judged = {"programs": [], "command": ["tests/test_odd.sh"], "good": {"wrong": 0}, "some": ["seen"]}
    r = results_of("echo '{\"wrong\": 0, \"seen\": 5}'", judged)
    check_eq(r.passed, ["suite/ends", "suite/wrong", "suite/seen"])
    r = results_of("echo '{\"wrong\": 1, \"seen\": 0}'", judged)
    check_eq(failures(r), ["suite/wrong", "suite/seen"])
    r = results_of("echo '{}'", judged)
    check_eq(failures(r), ["suite/wrong", "suite/seen"])
    r = results_of("echo nothing", judged)
    check_eq(failures(r), ["suite/report"])
    r = results_of("echo '{\"wrong\": 0, \"seen\": 5}'; exit 1", judged)
    check_eq(failures(r), ["suite/ends"])
    r = results_of("sleep 600", judged)
    check_eq(failures(r), ["suite/ends"])


if __name__ == "__main__":
    main(globals())
