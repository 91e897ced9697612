"""The model of one page (page.pml), all of its states.  spin makes a program that visits them; it must find nothing, and
must find each rule that is left out."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, main, skip  # noqa: E402

MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.pml")
DEPTH = 2000000
MEMORY_MIB = 3000	# more, and it stops, which is a failure
SAFETY = ["-DSAFETY"]
FAIR = ["-DNFAIR=3"]	# for eight processes


def run(command, where):
    result = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    check(result.returncode == 0, "%s: %s" % (command[0], (result.stdout + result.stderr).strip()[-600:]))
    return result.stdout


def visit(rules, liveness=False):
    """What the search says: (errors found, what the first one is, lines that were never executed)"""
    if not shutil.which("spin"):
        skip("spin is not installed")
    with tempfile.TemporaryDirectory(prefix="memctl-model-") as d:
        defines = ["-D" + r for r in rules] + (["-DLIVENESS"] if liveness else [])
        run(["spin", "-a", *defines, MODEL], d)
        run(["gcc", "-O2", "-w", "-DMEMLIM=%d" % MEMORY_MIB, *(FAIR if liveness else SAFETY), "-o", "pan", "pan.c"], d)
        said = run(["./pan", "-m%d" % DEPTH, *(["-a", "-f"] if liveness else [])], d)
        found = re.search(r"errors: (\d+)", said)
        check(found, said[-600:])
        states = re.search(r"(\d[\d.e+]*) states, stored", said)
        print("%s: %s states" % (" ".join(rules), states.group(1) if states else "?"), file=sys.stderr)
        check("max search depth too small" not in said and "out of memory" not in said, "not all states: " + said[-600:])
        first = re.search(r"^pan:\d+: (.*)$", said, re.M)
        unreached = [line.strip() for line in re.findall(r"^\t.*state \d+, .*$", said, re.M) if "-end-" not in line]
        return int(found.group(1)), first.group(1) if first else "", unreached


def fine(rules, liveness=False):
    errors, first, unreached = visit(rules, liveness)
    check(not errors, first)
    # a model in which something never happens proves nothing of it
    if not liveness:
        check(not unreached, "never executed: " + "; ".join(unreached[:4]))


def caught(rule, what, liveness=False):
    errors, first, _ = visit([rule, "CRASHES=%d" % (0 if liveness else 1)], liveness)
    check(errors, "without this rule nothing is wrong: the model does not see what it is for")
    check(what in first, "it is wrong in another way than expected: " + first)


def test_nothing_lost_whenever_the_daemon_dies():
    fine(["CRASHES=2"])


def test_every_waiter_is_served():
    fine(["CRASHES=1"], liveness=True)


def test_twin_no_verify():
    caught("NO_VERIFY", "private")


def test_twin_let_go_while_breaking():
    caught("LET_GO", "references")


def test_twin_no_protect():
    caught("NO_PROTECT", "last[0]")


def test_twin_no_question():
    caught("NO_QUESTION", "from_pool")


def test_twin_no_hold():
    caught("NO_HOLD", "entry_frame")


def test_twin_lift_all():
    caught("LIFT_ALL", "private")


def test_twin_no_wake():
    caught("NO_WAKE", "acceptance cycle", liveness=True)


if __name__ == "__main__":
    main(globals())
