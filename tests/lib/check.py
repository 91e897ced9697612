"""The frame of every test program in Python: functions named test_* are the scenarios, one line each on stdout
("ok NAME", "not ok NAME: why", "skip NAME: why"), which tests/run collects.

    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from lib.check import check, main, skip

    def test_rounds_up():
        check(round_up(1, 8) == 8, "1 rounds up to 8")

    if __name__ == "__main__":
        main(globals())

Arguments choose scenarios by name, --list names them.  A scenario may set `test_name.seconds` (default 60);
$MEMCTL_SLOW multiplies all limits, for sanitized builds.
"""
import inspect
import os
import signal
import sys
import traceback


class Skip(Exception):
    pass


def skip(why):
    raise Skip(why)


def check(condition, why="the condition does not hold"):
    if not condition:
        raise AssertionError(why)


def check_eq(a, b, what="values"):
    if a != b:
        raise AssertionError("%s: %r is not %r" % (what, a, b))


def _one_line(text):
    return " ".join(str(text).split())[:400]


def _overdue(_signal, _frame):
    raise TimeoutError("timed out")


def run_scenario(name, function):
    """Prints the verdict; True unless it failed."""
    signal.signal(signal.SIGALRM, _overdue)
    signal.alarm(getattr(function, "seconds", 60) * int(os.environ.get("MEMCTL_SLOW", "1")))
    try:
        function()
    except Skip as why:
        print("skip %s: %s" % (name, _one_line(why)), flush=True)
    except Exception as e:  # every kind of failure is this scenario's own
        traceback.print_exc(file=sys.stderr)
        where = traceback.extract_tb(e.__traceback__)[-1]
        print("not ok %s: %s (%s:%d)" % (name, _one_line(e) or type(e).__name__, where.filename.rsplit("/", 1)[-1],
                                         where.lineno), flush=True)
        return False
    else:
        print("ok %s" % name, flush=True)
    finally:
        signal.alarm(0)
    return True


def main(names):
    scenarios = [(n[5:], f) for n, f in names.items() if n.startswith("test_") and inspect.isfunction(f)]
    scenarios.sort(key=lambda s: s[1].__code__.co_firstlineno)
    wanted = sys.argv[1:]
    if wanted == ["--list"]:
        print("\n".join(n for n, _ in scenarios))
        sys.exit(0)
    good = True
    for name, function in scenarios:
        if not wanted or name in wanted:
            good &= run_scenario(name, function)
    sys.exit(0 if good else 1)
