#!/usr/bin/env python3
"""memctld --supervise: when it starts its child again and when it ends, what it keeps, whom it kills.  The child here is ward.py,
which does what each test says, or a memctld without guests; test_supervised.py has those with guests."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE, build_dir, wait_until  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402

STAY = [["ready"], ["wait"], ["exit", 0]]


class Supervised:
    def __init__(self, *lives, args=(), env=None, ready=False, popen=None):
        self.dir = tempfile.mkdtemp(prefix="memctl-test-")
        self.told_path = os.path.join(self.dir, "told")
        reader, writer = os.pipe()
        command = [os.path.join(build_dir(), "daemon", "memctld"), "--supervise", *args]
        if ready:
            command += ["--ready-fd", str(writer)]
        with open(os.path.join(self.dir, "log"), "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writer] if ready else [],
                env={**os.environ, "MEMCTLD_SUPERVISE_PROGRAM": os.path.join(TREE, "tests", "system", "ward.py"),
                     "WARD": json.dumps(lives), "WARD_TOLD": self.told_path, **(env or {})},
                **(popen or {}))
        os.close(writer)
        self.reader = os.fdopen(reader)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for life in self.told("begin"):
            try:
                os.kill(life["begin"], signal.SIGKILL)
            except ProcessLookupError:
                pass
            shutil.rmtree(os.path.dirname(life["notify"]), ignore_errors=True)
        self.reader.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        with open(os.path.join(self.dir, "log")) as f:
            return f.read()

    def told(self, key=None):
        try:
            with open(self.told_path) as f:
                lines = [json.loads(line) for line in f.read().splitlines()]
        except OSError:
            return []
        return [t for t in lines if key is None or key in t]

    def lives(self, n, seconds=15):
        """The first n lives' beginnings, once they have begun."""
        return wait_until(lambda: len(self.told("begin")) >= n and self.told("begin")[:n], seconds, "life %d" % n)

    def step(self, life, step, seconds=15):
        return wait_until(lambda: [t for t in self.told("step") if t["life"] == life and t["step"] == step], seconds,
                          "step %s of life %d" % (step, life))[0]

    def ends(self, seconds=15):
        return self.process.wait(seconds)


def test_exit_0_is_the_end():
    with Supervised([["ready"], ["exit", 0]]) as s:
        check_eq(s.ends(), 0, "status")
        check_eq(len(s.told("begin")), 1, "lives")


def test_exit_0_is_the_end_before_ready_too():
    with Supervised([["exit", 0]]) as s:
        check_eq(s.ends(), 0, "status")


def test_failure_before_the_first_ready_is_the_end():
    with Supervised([["exit", 3]]) as s:
        check_eq(s.ends(), 3, "status")
        check_eq(len(s.told("begin")), 1, "lives")
    with Supervised([["die", 11]]) as s:
        check_eq(s.ends(), 128 + 11, "status")
    with Supervised([["exit", 1]], env={"MEMCTLD_SUPERVISE_PROGRAM": "/nowhere"}) as s:
        check_eq(s.ends(), 127, "status")


def test_wrong_settings_show_at_once():
    with Supervised([], args=["--config", "none", "--set", "nonsense=1"],
                    env={"MEMCTLD_SUPERVISE_PROGRAM": os.path.join(build_dir(), "daemon", "memctld")}) as s:
        check_eq(s.ends(), 3, "status")
        check("nonsense" in s.log(), s.log())


def test_death_past_ready_starts_it_at_once():
    """The time in which this machine starts Python is in it: so many deaths would take minutes if each made the next wait."""
    dies = [["ready"], ["die", 9]]
    with Supervised(*[dies] * 11, [["ready"], ["exit", 1]], STAY) as s:
        lives = s.lives(13, 40)
        check_eq(len({t["begin"] for t in lives}), 13, "processes")
        check("later" not in s.log(), s.log())


def test_death_before_ready_starts_it_later_and_later():
    with Supervised([["ready"], ["die", 9]], [["exit", 1]], [["die", 9]], [["exit", 1]], [["exit", 1]],
                    [["ready"], ["die", 9]], [["exit", 1]], STAY) as s:
        lives = s.lives(8, 40)
        ends = {t["life"]: t["at"] for t in s.told("step") if t["step"] in ("die", "exit")}
        pauses = [lives[i + 1]["at"] - ends[i] for i in range(7)]
        check(all(pause >= low for pause, low in zip(pauses, (0, 0.1, 0.2, 0.4, 0.8, 0, 0.1))), "pauses %s" % pauses)
        # once it has been ready the count begins anew: it would be 1.6 and 3.2
        check(pauses[5] + pauses[6] < 4.5, "pauses %s" % pauses)


def test_75_starts_it_at_once():
    with Supervised([["ready"], ["keep", "a", "A"], ["exit", 75]], STAY) as s:
        lives = s.lives(2)
        check("later" not in s.log(), s.log())
        check_eq(lives[1]["kept"], [["a", "A"]], "kept")


def test_an_upgraded_file_is_taken():
    with tempfile.TemporaryDirectory() as d:
        program = os.path.join(d, "program")
        shutil.copy(os.path.join(TREE, "tests", "system", "ward.py"), program)
        with Supervised([["ready"], ["wait"], ["exit", 75]], STAY, env={"MEMCTLD_SUPERVISE_PROGRAM": program}) as s:
            s.step(0, "wait")
            with open(program) as f:
                old = f.read()
            with open(program + ".new", "w") as f:
                f.write(old.replace("args=sys.argv[1:]", "args='new'"))
            os.chmod(program + ".new", 0o755)
            os.rename(program + ".new", program)
            s.process.send_signal(signal.SIGUSR1)
            check_eq(s.lives(2)[1]["args"], "new", "the program")


def test_options_are_handed_on():
    with Supervised(STAY, args=["--config", "none", "--watchdog=7", "--arena", "64M", "--set", "a=b c", "--log-lev=debug"]) as s:
        life = s.lives(1)[0]
        check_eq(life["args"], ["--config=none", "--arena=64M", "--set=a=b c", "--log-level=debug"], "options")
        check_eq(life["watchdog"], "7000000", "watchdog")
    with Supervised(STAY, args=["--watchdog", "0"]) as s:
        check_eq(s.lives(1)[0]["watchdog"], None, "watchdog")


def test_descriptors_come_back_by_name():
    kept = [["n%d" % i, "content %d" % i] for i in range(300)]
    with Supervised([["ready"], *(["keep", *k] for k in kept), ["die", 9]], [["ready"], ["die", 9]],
                    [["drop", "n7"], ["drop", "n0"], ["drop", "n299"], ["keep", "new", "N"], ["ready"], ["die", 9]], STAY) as s:
        lives = s.lives(4)
        check_eq(lives[0]["kept"], [], "kept at first")
        check_eq(sorted(lives[1]["kept"]), sorted(kept), "kept after a death")
        check_eq(sorted(lives[2]["kept"]), sorted(kept), "kept after two deaths")
        left = [k for k in kept if k[0] not in ("n7", "n0", "n299")] + [["new", "N"]]
        check_eq(sorted(lives[3]["kept"]), sorted(left), "kept after dropping")
        # stdin, stdout, stderr, and what is kept
        check_eq(lives[3]["open"], 3 + len(left), "open descriptors")


def test_dropping_takes_all_of_a_name():
    with Supervised([["ready"], ["keep", "a", "1"], ["keep", "b", "2"], ["keep", "a", "3"], ["die", 9]],
                    [["drop", "a"], ["ready"], ["die", 9]], STAY) as s:
        lives = s.lives(3)
        check_eq(sorted(lives[1]["kept"]), [["a", "1"], ["a", "3"], ["b", "2"]], "kept")
        check_eq(lives[2]["kept"], [["b", "2"]], "kept after dropping")


def test_names_that_break_the_list_are_refused():
    with Supervised([["ready"], ["keep", "a:b", "1"], ["keep", "x" * 40, "2"], ["keep", "good", "3"], ["die", 9]], STAY) as s:
        check_eq(s.lives(2)[1]["kept"], [["good", "3"]], "kept")


def test_what_was_sent_before_death_counts():
    """The supervisor stands still while its child keeps and dies: all is still in the socket."""
    with Supervised([["ready"], ["barrier"], ["wait"], *(["keep", "n%d" % i, "c"] for i in range(9)), ["exit", 75]], STAY) as s:
        s.step(0, "wait")
        s.process.send_signal(signal.SIGSTOP)
        os.kill(s.lives(1)[0]["begin"], signal.SIGUSR1)
        s.step(0, "exit")
        time.sleep(0.1)
        s.process.send_signal(signal.SIGCONT)
        check_eq(len(s.lives(2)[1]["kept"]), 9, "kept")


def test_ready_before_death_counts_too():
    with Supervised([["ready"], ["exit", 1]], STAY) as s:
        s.lives(2)


def test_strangers_are_not_believed():
    with Supervised([["stranger", "READY=1"], ["exit", 4]]) as s:
        check_eq(s.ends(), 4, "status")


def test_a_barrier_is_answered():
    with Supervised([["ready"], ["keep", "a", "A"], ["barrier"], ["die", 9]], STAY) as s:
        check_eq(s.lives(2)[1]["kept"], [["a", "A"]], "kept")


def test_a_hung_one_is_killed():
    with Supervised([["ready"], ["keep", "a", "A"], ["feed", 2], ["sleep", 60]], STAY, args=["--watchdog", "1"]) as s:
        s.lives(1)
        lives = s.lives(2)
        pause = lives[1]["at"] - s.step(0, "sleep")["at"]
        check(0.7 < pause < 5, "it was killed after %.1f s" % pause)
        check_eq(lives[1]["kept"], [["a", "A"]], "kept")
        check("hangs" in s.log() and "signal 6" in s.log(), s.log())


def test_a_stopped_one_is_killed_harder():
    with Supervised([["ready"], ["stop"]], STAY, args=["--watchdog", "1"]) as s:
        s.lives(2)
        check("signal 9" in s.log(), s.log())


def test_one_that_says_that_it_hangs_is_killed():
    with Supervised([["ready"], ["send", "WATCHDOG=trigger"], ["sleep", 60]], STAY) as s:
        check(s.lives(2, 40)[1]["at"] - s.step(0, "send")["at"] < 8, "late")	# the watchdog would take 10 s


def test_a_stopped_supervisor_kills_nobody():
    """Its child has fed the watchdog all the time."""
    with Supervised([["ready"], ["feed", 4], ["wait"], ["exit", 0]], args=["--watchdog", "1"]) as s:
        s.step(0, "feed")
        s.process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        s.process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        check_eq(len(s.told("begin")), 1, "lives")
        check("hangs" not in s.log(), s.log())


def test_ending_may_take_long():
    with Supervised([["ready"], ["stopping"], ["sleep", 2.5], ["exit", 0]], args=["--watchdog", "1"]) as s:
        check_eq(s.ends(), 0, "status")


def test_signals_are_forwarded():
    with Supervised([["ready"], ["barrier"], ["wait"], ["wait"], ["wait"], ["wait"], ["exit", 0]]) as s:
        s.step(0, "wait")
        for i, sig in enumerate((signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)):
            s.process.send_signal(sig)
            wait_until(lambda n=i: len(s.told("signal")) > n, what="signal %d" % sig)
        check_eq([t["signal"] for t in s.told("signal")], [1, 10, 2, 15], "signals")
        check_eq(s.ends(), 0, "status")


def test_told_to_end_with_something_kept_it_ends_in_order():
    """Its child dies of something else than the order: it is started again, to end in order."""
    with Supervised([["ready"], ["keep", "a", "A"], ["barrier"], ["wait"], ["die", 9]],
                    [["ready"], ["wait"], ["exit", 0]]) as s:
        s.step(0, "wait")
        s.process.send_signal(signal.SIGTERM)
        check_eq(s.ends(), 0, "status")
        check_eq([(t["life"], t["signal"]) for t in s.told("signal")], [(0, 15), (1, 15)], "signals")


def test_told_to_end_with_nothing_kept_it_ends():
    with Supervised([["ready"], ["barrier"], ["wait"], ["exit", 1]]) as s:
        s.step(0, "wait")
        s.process.send_signal(signal.SIGTERM)
        check_eq(s.ends(), 1, "status")
        check_eq(len(s.told("begin")), 1, "lives")
    with Supervised([["ready"], ["die", 9]], [["exit", 1]]) as s:
        s.lives(4)
        s.process.send_signal(signal.SIGTERM)
        s.ends(5)


def test_told_to_end_before_it_is_ready():
    with Supervised([["sleep", 0.5], ["wait"], ["exit", 5]]) as s:
        s.lives(1)
        s.process.send_signal(signal.SIGTERM)
        check_eq(s.ends(), 5, "status")


def test_ready_is_told_once():
    with Supervised([["sleep", 0.3], ["ready"], ["die", 9]], STAY, ready=True) as s:
        check_eq(s.reader.read(), "ready\n", "told, until it was closed")
        s.lives(2)


def test_ready_is_told_to_a_manager_of_its_own():
    import socket
    with tempfile.TemporaryDirectory() as d, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.path.join(d, "s"))
        manager.settimeout(15)
        with Supervised(STAY, env={"NOTIFY_SOCKET": os.path.join(d, "s")}):
            check_eq(manager.recv(100), b"READY=1", "told")


def test_guests_outlive_it():
    """Killed, it takes nobody along."""
    with Supervised([["ready"], ["barrier"], ["wait"], ["exit", 0]]) as s:
        s.step(0, "wait")
        s.process.kill()
        s.process.wait()
        os.kill(s.lives(1)[0]["begin"], signal.SIGHUP)
        wait_until(lambda: s.told("signal"), what="the signal")


def test_nothing_stays_behind():
    with Supervised([["ready"], ["exit", 0]]) as s:
        check_eq(s.ends(), 0, "status")
        check(not os.path.exists(os.path.dirname(s.lives(1)[0]["notify"])), "its directory is left behind")


def test_closed_standard_descriptors_do_no_harm():
    def close_all():
        os.close(0)
        os.close(1)
    with Supervised([["ready"], ["keep", "a", "A"], ["die", 9]], STAY, popen={"preexec_fn": close_all}) as s:
        check_eq(s.lives(2)[1]["kept"], [["a", "A"]], "kept")


def hangs_and_is_killed(which):
    d = SupervisedDaemon(2, env={"MEMCTLD_INJECT": "hang_%s:1" % which})
    with contextlib.ExitStack() as end:
        end.callback(d.kill)
        d.start()
        first = d.child()
        wait_until(lambda: "hangs: killed" in d.log(), what="the watchdog")
        wait_until(lambda: d.log().count("serving on") == 2, what="the next one")
        check(d.child() not in (None, first), "it is the same process")
        return d.log()


def test_the_control_thread_hangs():
    hangs_and_is_killed("control")


def test_the_reclaim_thread_hangs():
    check("the reclaim thread does not answer" in hangs_and_is_killed("reclaim"), "the log does not say who")


def test_a_healthy_daemon_is_left_alone():
    with SupervisedDaemon(1) as d:
        time.sleep(4)
        check_eq(d.log().count("serving on"), 1, "starts")


def test_it_dies_without_guests_and_serves_again():
    with SupervisedDaemon(0) as d:
        os.kill(d.child(), signal.SIGKILL)
        wait_until(lambda: d.log().count("serving on") == 2, what="the next one")
        check("arena" in json.dumps(d.memctl("status")), "status")


def test_settings_are_read_again():
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, "conf")
        with open(path, "w") as f:
            f.write("[memctld]\nzstd_level = 1\n")
        d = SupervisedDaemon(5)
        d.args += ["--config", path]
        with d:
            def value(name):
                return next(s["value"] for s in d.memctl("config", "show")["settings"] if s["name"] == name)

            check_eq(value("zstd_level"), "1", "at first")
            with open(path, "w") as f:
                f.write("[memctld]\nzstd_level = 3\nmax_sessions_per_user = 77\n")
            d.process.send_signal(signal.SIGHUP)
            wait_until(lambda: value("zstd_level") == "3", what="the new value")
            check("max_sessions_per_user = 77 waits for a restart" in d.log(), d.log())
            with open(path, "w") as f:
                f.write("[memctld]\nzstd_level = none\n")
            d.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "the settings are as they were" in d.log(), what="the refusal")
            check_eq(value("zstd_level"), "3", "after a wrong one")


if __name__ == "__main__":
    main(globals())
