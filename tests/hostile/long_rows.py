#!/usr/bin/env python3
"""Each threat of daemon/THREATMODEL.md that comes from a client, beside an honest VM: no wrong byte, and no longer waits than beside a
process that is as busy with something else."""
import contextlib
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from hostile.beside import ATTACKER, MIB, beside, need_users  # noqa: E402
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from torture.actor import SLOW  # noqa: E402
from wire.client import Vm  # noqa: E402

SHARES = ("ShareRateMax=10000000", "ShareScanGHz=1000000")


def bad_vms(d):
    return [v for v in d.memctl("vm", "list")["vms"] if v["name"].startswith(("bad", "q"))]


# ---- its own memory


def test_truncation():
    def judge(b):
        for what in ("truncated", "sealed", "reopened", "opened_up"):
            check_eq(b.report[what], 0, what)

    beside("truncation", judge)


def test_punching():
    beside("punching", lambda b: check(b.report.of("touched_rounds"), "nothing was touched"))


def test_foreign_writes():
    """What is written without faults is taken away again: it may have more than its limit for a moment only."""
    def judge(b):
        limit = 4 * MIB
        check(b.report["held_bytes"] > limit, "the attack reached nothing: %d" % b.report["held_bytes"])
        wait_until(lambda: all(v["foreign_pages"] > 0 and v["charged_bytes"] <= limit + MIB for v in bad_vms(b.daemon)),
                   20 * SLOW, "the limit restored, or the end of it: %s" % bad_vms(b.daemon))
        arena = b.daemon.memctl("status")["status"]["arena"]
        check(arena["charged_bytes"] <= arena["size_bytes"], "the arena is beyond its size: %s" % arena)

    beside("foreign_writes", judge)


def test_stalling_its_address_space():
    beside("stalling")


# ---- its userfaultfd


def test_nonblocking():
    beside("nonblock", lambda b: check(b.report.of("touched_rounds"), "nothing was touched"))


def test_stealing_events():
    beside("stealing_events", lambda b: check(b.report["stolen"] > 0, "no event was stolen"))


def test_unregistering():
    beside("unregistering")


def test_faking_addresses():
    beside("faking_addresses")


def test_fault_storm():
    beside("fault_storm", lambda b: check(b.report["touched_rounds"] > 8, "it was no storm: %s" % b.report))


# ---- its connections


def test_slow_readers():
    beside("slow_reader", lambda b: check(b.report["taken"], "it sent nothing"))


def test_half_messages():
    beside("half_messages", lambda b: check(b.report["taken"], "it sent nothing"))


def test_json_bombs():
    beside("json_bombs", lambda b: check(b.report["bytes"] > MIB, "it sent nothing"))


def test_descriptor_flood():
    beside("descriptor_flood", lambda b: check(b.report["sent"] > 100, "it sent nothing"))


@contextlib.contextmanager
def silent_fuse():
    """A file system whose server never answers; None where there can be none."""
    with tempfile.TemporaryDirectory(prefix="memctl-fuse-") as directory:
        try:
            server = os.open("/dev/fuse", os.O_RDWR)
        except OSError:
            yield None
            return
        mounted = subprocess.run(["mount", "-i", "-t", "fuse", "-o", "fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other" % (
            server, ATTACKER, ATTACKER), "memctl-silent", directory], pass_fds=[server], check=False, stderr=subprocess.DEVNULL)
        try:
            yield directory if mounted.returncode == 0 else None
        finally:
            os.close(server)
            subprocess.run(["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)


def test_wrong_descriptors():
    with silent_fuse() as fuse:
        def judge(b):
            check_eq(b.report.of("accepted_"), 0, "descriptors that are none: %s" % b.report)
            kinds = [what for what in b.report if what.startswith("tried_")]
            check(len(kinds) >= 11, "kinds: %s" % kinds)
            check(not fuse or "tried_fuse" in kinds, "no FUSE file was tried")

        beside("wrong_descriptors", judge, env=lambda d: {"MEMCTL_TEST_FUSE": fuse or ""})


def test_name_flood():
    beside("name_flood", lambda b: check(b.report["names"] > 100, "no flood"))


def test_token_guessing():
    def judge(b):
        check_eq(b.report.of("let_in"), 0, "guesses that were right")
        check_eq(b.report.of("refused_"), b.report["guesses"], "refusals: %s" % b.report)

    with contextlib.ExitStack() as stack:
        def token_of_another(d):
            return {"MEMCTL_TEST_TOKEN": stack.enter_context(Vm(d.socket, "victim", MIB)).registered["token"]}

        beside("token_guessing", judge, env=token_of_another, others={"victim"})


def test_quota_evasion():
    def judge(b):
        check_eq(b.report["evaded"], 0, "times that it got all that it wanted")
        check_eq(b.report["second_process_LimitReached"], b.report["steps"], "second processes: %s" % b.report)
        check(len(bad_vms(b.daemon)) <= 8, "it has %d VMs" % len(bad_vms(b.daemon)))

    beside("quota_evasion", judge)


# ---- its answers


def test_lying():
    def judge(b):
        check(b.report["answers"], "it was asked nothing: %s" % b.report)

    beside("lying", judge, SHARES, scan=True)


def test_breaking_and_never_answering():
    def judge(b):
        check(b.report["mapped"], "nothing was shared: %s" % b.report)

    beside("breaking", judge, SHARES, scan=True)


for function in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
