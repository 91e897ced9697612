#!/usr/bin/env python3
"""MemoryMax= of the unit: the arena of memctld.conf, the overhead and a tenth, by the generator; not met by a full arena; lifted
when guests take their memory along; and what is said when the arena was changed and systemd does not know."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, Puppet  # noqa: E402
from systemd.scenario import comes_back, machine, settings_file, write_settings  # noqa: E402

ADVICE = 'type "systemctl daemon-reload"'
MEMCTLD = "/usr/local/sbin/memctld"
ARENA, SIZE = 32, 32     # MiB; of a VM
PAGES = SIZE * MIB // 4096


def memory(m):
    return m.memory() or skip("the memory controller is not to be had here")


def small(**kwargs):
    return machine(arena="%dM" % ARENA, **kwargs)


def wanted(m):
    return int(m.run(MEMCTLD, "--memory-max").stdout)


@contextlib.contextmanager
def guests(m, n, kind):
    """VMs that are full, each as large as the arena."""
    with contextlib.ExitStack() as stack:
        all_of_them = [stack.enter_context(Puppet(m, "vm%d" % i, SIZE)) for i in range(n)]
        for i, p in enumerate(all_of_them):
            p.do("fill", 0, 0, PAGES, i, kind, seconds=120)
        yield all_of_them


def check_all(all_of_them, kind):
    for i, p in enumerate(all_of_them):
        p.check(0, PAGES, i, kind)


def test_it_is_the_arena_and_more():
    with small() as m:
        check(wanted(m) > (ARENA + 6) * MIB, "%d bytes" % wanted(m))
        check_eq(m.show("MemoryMax"), str(wanted(m)), "MemoryMax")
        check_eq(m.show("MemorySwapMax"), "0", "MemorySwapMax")
        check_eq(memory(m)["limit"], wanted(m), "the cgroup's limit")
        check("cgroup allows" not in m.log(), m.log())


def test_a_full_arena_does_not_meet_it():
    """Cache and swap files full of what does not fit: four times the arena, compressible and not."""
    with small(settings=["MemZipMaxPct = 10"]) as m, guests(m, 4, "mix") as all_of_them:
        check_all(all_of_them, "mix")
        arena, at = m.memctl("status")["status"]["arena"], memory(m)
        check(arena["peak_bytes"] > (ARENA - 3) * MIB, "the arena was not full: %s" % arena)
        check(all(p.numbers()["swap_out_pages"] > 0 for p in all_of_them), "nothing was swapped")
        # the frames count for memctld, not for the emulators
        check(at["used"] > arena["charged_bytes"] - MIB, "%s, of the arena %s" % (at, arena))
        check_eq([at["met"], at["kills"]], [0, 0], "how often the limit was met, and somebody killed")
        print("%d MiB beside the arena" % ((at["used"] - arena["charged_bytes"]) // MIB), file=sys.stderr)
        m.audit()


def test_at_the_arena_itself_it_would_be_met():
    """The twin: a limit without overhead and tenth.  memctld is killed; its guests are not."""
    with small() as m:
        memory(m)
        m.systemctl("set-property", "--runtime", "memctld", "MemoryMax=%dM" % ARENA)
        with guests(m, 4, "mix") as all_of_them:
            at = memory(m)
            check(at["met"] > 0 or int(m.show("NRestarts")) > 0, "it was not met: %s" % at)
            check_all(all_of_them, "mix")


def test_a_larger_arena_wants_a_daemon_reload():
    with small() as m:
        memory(m)
        text, old = settings_file(m), wanted(m)
        write_settings(m, text.replace("%dM" % ARENA, "512M"))
        new = wanted(m)
        check(new > old, "it wants no more")
        # with guests it goes on, and says what to type
        with Puppet(m, "vm", 32) as p:
            p.do("fill", 0, 0, 8192, 1, "mix")
            comes_back(m, lambda: m.memctl("daemon", "upgrade"))
            check(ADVICE in m.log(), m.log())
            p.check(0, 8192, 1, "mix")
            check_eq(memory(m)["limit"], old, "the limit before")
            m.systemctl("daemon-reload")
            check_eq([m.show("MemoryMax"), memory(m)["limit"]], [str(new), new], "the limit after")
        # without, it waits until that was typed
        write_settings(m, text.replace("%dM" % ARENA, "1G"))
        lives, said = m.lives(), m.log().count(ADVICE)
        m.systemctl("restart", "--no-block", "memctld")
        wait_until(lambda: m.log().count(ADVICE) > said, 10, "the advice")
        check_eq(m.lives(), lives, "lives")
        m.systemctl("daemon-reload")
        wait_until(lambda: m.lives() > lives and m.show("ActiveState") == "active", 10, "a start that succeeds")
        check_eq(memory(m)["limit"], wanted(m), "the limit")


def test_wrong_settings_set_no_limit():
    """A limit that nobody can compute is none: what is wrong, memctld says."""
    with small() as m:
        memory(m)
        text = settings_file(m)
        write_settings(m, text + "nonsense = 1\n")
        m.systemctl("daemon-reload")
        check_eq([m.show("MemoryMax"), m.show("ActiveState")], ["infinity", "active"], "MemoryMax, and the running memctld")
        write_settings(m, text)
        m.systemctl("daemon-reload")
        check_eq(memory(m)["limit"], wanted(m), "the limit")


def test_stop_gives_guests_more_than_the_limit():
    with small() as m:
        memory(m)
        with guests(m, 4, "mix") as all_of_them:
            m.systemctl("stop", "memctld")
            check_eq([m.show("ActiveState"), m.show("Result")], ["inactive", "success"], "state")
            check_all(all_of_them, "mix")
            # what they took along does not count for the next one
            m.systemctl("start", "memctld")
            at = memory(m)
            check_eq(at["limit"], wanted(m), "the limit of the next life")
            check(at["used"] < 8 * MIB, "%s" % at)
            check_all(all_of_them, "mix")
        # at once
        with Puppet(m, "vm", SIZE) as p:
            p.do("fill", 0, 0, PAGES, 1, "mix")
            m.systemctl("restart", "memctld")
            at = memory(m)
            check(at["limit"] == wanted(m) and at["used"] < 8 * MIB, "after a restart: %s" % at)
            p.check(0, PAGES, 1, "mix")


def test_a_stop_that_does_not_lift_it_waits():
    """The twin: only memctl's part of ExecStop=.  It says what to type, and that is right."""
    with small(drop_in=["ExecStop=", "ExecStop=-/usr/local/bin/memctl daemon stop --wait"]) as m:
        memory(m)
        with guests(m, 4, "mix") as all_of_them:
            m.systemctl("stop", "--no-block", "memctld")
            advice = "systemctl set-property --runtime memctld MemoryMax=infinity"
            wait_until(lambda: advice in m.show("StatusText"), 10, "the advice")
            check_eq(memory(m)["kills"], 0, "kills")
            check_all(all_of_them, "mix")
            m.run("sh", "-c", advice)
            wait_until(lambda: m.show("ActiveState") == "inactive", 20, "the end")
            check_all(all_of_them, "mix")


def test_a_vm_that_leaves_leaves_room_for_the_arena():
    """What it takes along counts for memctld as long as it lives."""
    with small() as m:
        memory(m)
        with guests(m, 1, "mix") as all_of_them, Puppet(m, "large", 96) as large:
            large.do("fill", 0, 0, 24576, 7, "mix")
            refused = m.run_memctl("vm", "release", "large")
            check_eq(refused.returncode, 2, "exit status")
            check("MemoryMax=infinity" in refused.stderr, refused.stderr)
            large.check(0, 24576, 7, "mix")
            # a small one may
            m.memctl("vm", "release", "vm0")
            check_all(all_of_them, "mix")
            m.systemctl("set-property", "--runtime", "memctld", "MemoryMax=infinity")
            m.memctl("vm", "release", "large")
            large.check(0, 24576, 7, "mix")
            check_all(all_of_them, "mix")
            m.audit()


if __name__ == "__main__":
    main(globals())
