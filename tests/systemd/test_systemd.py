#!/usr/bin/env python3
"""The installed unit under a real systemd (machine.py): it is ready when it serves, comes back at once with what guests need,
is killed when it hangs, reads its settings again, and lets guests go when it is stopped."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import Puppet  # noqa: E402
from systemd.scenario import comes_back, kept, kill_9, machine, setting, settings_file, write_settings  # noqa: E402


def test_it_is_ready_when_it_serves():
    with machine() as m:
        check_eq(m.lives(), 1, "lives")
        check_eq(m.show("Type"), "notify", "type")
        check_eq(m.show("SubState"), "running", "state")
        check_eq(m.memctl("status")["status"]["pid"], m.pid(), "pid")
        check_eq(m.show("WatchdogUSec"), "30s", "watchdog")
        check_eq(m.show("NRestarts"), "0", "restarts")


def test_guests_have_memory_in_its_sandbox():
    """Everything that takes a system call of its own: lease, faults, compression, swap file, audit."""
    with machine(settings=["MemZipMaxPct = 1"]) as m, Puppet(m, "vm", 32, limit=8) as p:
        p.do("fill", 0, 0, 8192, 1, "random")
        p.check(0, 8192, 1, "random")
        n = p.numbers()
        check(n["swap_out_pages"] > 0 and n["swap_in_pages"] > 0, "nothing was swapped")
        m.audit()


def test_death_without_guests_restarts_it_at_once():
    with machine() as m:
        for restarts in range(1, 8):
            pause = comes_back(m, lambda: kill_9(m))
            check(pause < 3, "it took %.1f s" % pause)
            check_eq(m.show("NRestarts"), str(restarts), "restarts")


def hangs_and_is_killed(which):
    with machine(drop_in=["Environment=MEMCTLD_INJECT=hang_%s:2" % which, "WatchdogSec=2"]) as m:
        comes_back(m, lambda: wait_until(lambda: "Watchdog timeout" in m.console, what="the watchdog"))
        check("status=6/ABRT" in m.console, "it did not die of SIGABRT")
        check("Failed with result 'watchdog'" in m.console, "systemd does not call it the watchdog")


def test_the_control_thread_hangs():
    hangs_and_is_killed("control")


def test_the_reclaim_thread_hangs():
    hangs_and_is_killed("reclaim")


def test_one_that_is_stopped_is_killed():
    with machine(drop_in=["WatchdogSec=2"]) as m:
        comes_back(m, lambda: m.systemctl("kill", "-s", "STOP", "memctld"))


def test_a_healthy_one_is_left_alone():
    with machine(drop_in=["WatchdogSec=1"]) as m:
        time.sleep(4)
        check_eq([m.lives(), m.show("NRestarts")], [1, "0"], "lives and restarts")


def test_reload_reads_the_settings_again():
    with machine(settings=["zstd_level = 1"]) as m:
        check_eq(setting(m, "zstd_level"), "1", "at first")
        write_settings(m, settings_file(m).replace("zstd_level = 1", "zstd_level = 3"))
        m.systemctl("reload", "memctld")
        wait_until(lambda: setting(m, "zstd_level") == "3", what="the new value")
        check_eq([m.lives(), m.show("ActiveState")], [1, "active"], "lives and state")


def test_wrong_settings_end_it_for_good():
    with machine() as m:
        m.systemctl("stop", "memctld")
        write_settings(m, settings_file(m) + "nonsense = 1\n")
        check(m.run("systemctl", "start", "memctld", check=False).returncode != 0, "it started")
        time.sleep(2.5)
        check_eq([m.show("ActiveState"), m.show("NRestarts"), m.show("ExecMainStatus")], ["failed", "0", "3"], "state")


def test_a_start_that_fails_takes_its_time():
    """What may be right later is tried for ever, about once a second."""
    with machine() as m:
        m.systemctl("stop", "memctld")
        text = settings_file(m)
        write_settings(m, text.replace("64M", "60T"))
        m.systemctl("start", "--no-block", "memctld")
        time.sleep(5.5)
        restarts = int(m.show("NRestarts"))
        check(2 <= restarts <= 6, "%d restarts in 5.5 s" % restarts)
        write_settings(m, text)
        wait_until(lambda: m.show("ActiveState") == "active", 10, "a start that succeeds")


def test_stop_ends_it():
    with machine() as m:
        begin = time.monotonic()
        m.systemctl("stop", "memctld")
        check(time.monotonic() - begin < 10, "it took long")
        check_eq([m.show("ActiveState"), m.show("Result"), m.show("ExecMainStatus")], ["inactive", "success", "0"], "state")
        m.systemctl("start", "memctld")
        check_eq([m.show("ActiveState"), m.lives()], ["active", 2], "state and lives")


# ---- with guests


def guest(m):
    p = Puppet(m, "vm", 32, limit=8)
    p.do("fill", 0, 0, 8192, 1, "mix")
    return p


def test_guests_go_on_after_kill_9():
    with machine() as m:
        with guest(m) as p:
            stored, pauses = kept(m), []
            check(stored > 4, "%d descriptors are kept" % stored)
            for turn in range(10):
                before, begin = m.pid(), time.monotonic()
                kill_9(m)
                p.do("touch", 0, turn * 800, 1, 1, "mix", "r")
                pauses.append(time.monotonic() - begin)
                p.check(0, 8192, 1, "mix")
                check(m.pid() not in (0, before), "it is the same process")
                m.audit()
            check_eq(kept(m), stored, "descriptors that are kept")
            check_eq(m.show("NRestarts"), "10", "restarts")
            # systemctl itself is in it
            print("pauses: %s ms" % sorted(round(1000 * t) for t in pauses), file=sys.stderr)
            check(sorted(pauses)[5] < 3, "pauses %s" % pauses)
        wait_until(lambda: kept(m) == 0, what="nothing is kept when the guest is gone")


test_guests_go_on_after_kill_9.seconds = 120


def test_guests_go_on_after_a_hang():
    with machine(drop_in=["Environment=MEMCTLD_INJECT=hang_control:3", "WatchdogSec=2"]) as m, guest(m) as p:
        lives = m.lives()
        wait_until(lambda: m.lives() > lives, 30, "the watchdog")
        p.check(0, 8192, 1, "mix")
        check("result 'watchdog'" in m.console, "it was not the watchdog")


def test_guests_go_on_after_an_upgrade():
    with machine() as m, guest(m) as p:
        pause = comes_back(m, lambda: m.memctl("daemon", "upgrade"))
        check(pause < 5, "it took %.1f s" % pause)
        p.check(0, 8192, 1, "mix")
        check("status=75" in m.console, "it did not end with 75")
        m.audit()


def test_guests_go_on_while_wrong_settings_are_repaired():
    with machine() as m, guest(m) as p:
        text = settings_file(m)
        write_settings(m, text + "nonsense = 1\n")
        lives, stored = m.lives(), kept(m)
        kill_9(m)
        time.sleep(3.5)
        check(2 <= int(m.show("NRestarts")) <= 5, "%s restarts" % m.show("NRestarts"))
        check_eq([m.lives(), kept(m)], [lives, stored], "lives, descriptors that are kept")
        write_settings(m, text)
        wait_until(lambda: m.lives() > lives, 10, "the next life")
        p.check(0, 8192, 1, "mix")
        m.audit()


def test_reload_leaves_guests_alone():
    with machine() as m, guest(m) as p:
        m.systemctl("reload", "memctld")
        p.check(0, 8192, 1, "mix")
        check_eq([m.lives(), m.show("ActiveState")], [1, "active"], "lives and state")


def test_stop_gives_guests_their_memory():
    with machine() as m:
        p = guest(m)
        try:
            m.systemctl("stop", "memctld")
            check_eq([m.show("ActiveState"), m.show("Result"), m.show("ExecMainStatus"), kept(m)],
                     ["inactive", "success", "0", 0], "state, and what is kept")
            p.check(0, 8192, 1, "mix")
            p.do("fill", 0, 0, 8192, 2, "mix")
            p.check(0, 8192, 2, "mix")
        finally:
            p.kill()


def test_restart_gives_guests_their_memory():
    with machine() as m:
        p = guest(m)
        try:
            m.systemctl("restart", "memctld")
            check_eq([m.show("ActiveState"), m.lives()], ["active", 2], "state and lives")
            p.check(0, 8192, 1, "mix")
            check_eq(m.memctl("vm", "list")["vms"], [], "VMs")
            m.audit()
        finally:
            p.kill()


def test_sigterm_gives_guests_their_memory():
    """As at a shutdown where memctl is gone already."""
    with machine(drop_in=["ExecStop="]) as m:
        p = guest(m)
        try:
            m.systemctl("stop", "memctld")
            check_eq([m.show("ActiveState"), m.show("Result"), kept(m)], ["inactive", "success", 0], "state, and what is kept")
            p.check(0, 8192, 1, "mix")
        finally:
            p.kill()


if __name__ == "__main__":
    main(globals())
