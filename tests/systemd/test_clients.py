#!/usr/bin/env python3
"""Real emulators beside the installed, confined memctld: Unicorn by the library and QEMU by `memctl run`, of an ordinary user in
the lease group.  What they need of the host, what it does to its own memctld, and what memctld may and may not do."""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest"))
import image  # noqa: E402
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import build_dir, wait_until  # noqa: E402
from machine import Machine as Guest  # noqa: E402
from system.puppet import Puppet  # noqa: E402
from systemd.machine import MEMCTL_ID, USER_ID  # noqa: E402
from systemd.scenario import comes_back, kill_9, machine, setting, settings_file, write_settings  # noqa: E402

UNICORN = "packaging/demo.d/unicorn-example"
EMULATED = 64   # MiB of its guest


class Unicorn:
    """The example of the library: it fills its guest's memory and adds it up, again and again."""

    def __init__(self, m):
        if not os.path.exists(os.path.join(m.real_build, UNICORN)):
            skip("memctl was built without Unicorn")
        self.process = subprocess.Popen([os.path.join(m.build, UNICORN), "1000000"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)

    def rounds(self, n=2):
        """Of these, the last n - 1 began after the call."""
        for _ in range(n):
            line = self.process.stdout.readline()
            check(line.strip().endswith(", right"), "the guest says %r" % line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def qemu(m):
    try:
        files = image.make(build_dir())
    except image.Missing as e:
        skip("no guest: %s" % e)
    directory = tempfile.mkdtemp(dir=m.shared)
    os.chown(directory, USER_ID, USER_ID)
    return Guest(files, "qemu", m.user, mib=128, directory=directory, seconds=90)


def owners(m):
    """Of each VM: the uid that it is paid for by."""
    return {v["name"]: v["uid"] for v in m.memctl("vm", "list")["vms"]}


def test_emulators_outlive_it():
    """More memory than the arena has; its end by force, an upgrade and a reload; then it goes for good, and they stay."""
    with machine(arena="80M", settings=["MemZipMaxPct = 10"]) as m, qemu(m) as guest, Unicorn(m) as unicorn:
        unicorn.rounds()
        guest.hear("READY")
        guest.tell("fill 48 1")
        guest.hear("filled")
        guest.tell("run")
        check_eq(sorted(v["name"] for v in m.memctl("vm", "list")["vms"]), ["qemu", "unicorn-example"], "VMs")
        check_eq(set(re.findall(r"VM (\S+): registered by pid \d+ of user (\d+)", m.log())),
                 {("qemu", str(USER_ID)), ("unicorn-example", str(USER_ID))}, "whose they are")
        for act in (lambda: kill_9(m), lambda: m.memctl("daemon", "upgrade"), lambda: kill_9(m)):
            comes_back(m, act)
            unicorn.rounds()
            m.systemctl("reload", "memctld")
            m.audit()
        pages, errors, _ = guest.check()
        check(pages > 0 and errors == 0, "%d of %d pages are wrong" % (errors, pages))
        at = m.memory()
        check(at is None or not at["met"] and not at["kills"], "the limit was met: %s" % at)
        check(all(v["evicted_pages"] > 0 for v in m.memctl("vm", "list")["vms"]), "nothing was taken from one of them")
        m.systemctl("stop", "memctld")
        check_eq([m.show("ActiveState"), m.show("Result")], ["inactive", "success"], "state")
        unicorn.rounds()
        pages, errors, _ = guest.check()
        check(pages > 0 and errors == 0, "%d of %d pages are wrong in the end" % (errors, pages))
        guest.off()


test_emulators_outlive_it.seconds = 240


def test_who_is_not_in_the_group_gets_nothing():
    with machine() as m:
        for groups, status in (([], 69), (["--groups=%d" % MEMCTL_ID], 0)):
            who = ["setpriv", "--reuid=%d" % USER_ID, "--regid=%d" % USER_ID, *(groups or ["--clear-groups"])]
            result = m.run(*who, "/usr/local/bin/memctl", "vm", "list", check=False)
            check(result.returncode == status or not groups and result.returncode == 5,
                  "exit %d with %s: %s" % (result.returncode, groups, result.stderr))
            if os.path.exists("/dev/userfaultfd"):
                device = m.run(*who, "sh", "-c", "exec 3<>/dev/userfaultfd", check=False)
                check_eq(device.returncode == 0, bool(groups), "may open /dev/userfaultfd, with %s" % groups)


def test_access_group():
    """Another group than memctl's own has the socket: that takes chown, and to be in that group."""
    with machine(settings=["access_group = user"], drop_in=["SupplementaryGroups=user"]) as m:
        check_eq(m.run("stat", "-c", "%G %a", m.socket).stdout.strip(), "user 660", "group and mode of the socket")
        who = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=%d" % USER_ID]
        m.run(*who, "/usr/local/bin/memctl", "vm", "list")


def holds(m):
    """A client that holds a thread of memctld in the kernel."""
    p = Puppet(m, "bad", 16)
    p.do("fill", 0, 0, 1024, 1, "random")
    p.do("fd_hold", 0)
    p.tell("discard 0 0 64")
    return p


def test_it_kills_a_client_that_holds_it():
    """Of another user than memctld: by CAP_KILL, the only capability."""
    with machine(settings=["client_hold_limit = 2"]) as m:
        p = holds(m)
        try:
            wait_until(lambda: not p.alive(), 20, "the kill")
            check("(client_hold_limit): killed" in m.log(), m.log())
        finally:
            p.kill()
        wait_until(lambda: not m.memctl("vm", "list")["vms"], 10, "the release of its memory")
        m.audit()
        status = m.run("cat", "/proc/%d/status" % m.pid()).stdout
        for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
            check("%s:\t0000000000000020" % kind in status, status)
        check("NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status)


def test_without_the_capability_it_cannot():
    with machine(settings=["client_hold_limit = 2"], drop_in=["CapabilityBoundingSet=", "AmbientCapabilities="]) as m:
        p = holds(m)
        try:
            wait_until(lambda: "cannot be killed" in m.log(), 20, "the complaint")
            check(p.alive(), "it was killed")
        finally:
            p.kill()


def test_its_sandbox():
    """What it sees, as itself and with its namespaces: what it needs, and nothing beside."""
    with machine(metrics="/var/lib/memctl/metrics.db") as m:
        inside = ["nsenter", "--target", str(m.pid()), "--mount", "--net", "--ipc", "setpriv", "--reuid=%d" % MEMCTL_ID,
                  "--regid=%d" % MEMCTL_ID, "--clear-groups", "--no-new-privs", "sh", "-c"]

        def can(command):
            return m.run(*inside, command, check=False).returncode == 0

        wait_until(lambda: can("test -s /var/lib/memctl/metrics.db"), 10, "the history")
        good = [": >/var/lib/memctl/swap/x && rm /var/lib/memctl/swap/x", "test -r /proc/%d/stat" % m.pid(),
                "grep -q MemAvailable /proc/meminfo", "cat /proc/sys/vm/max_map_count", "cat /etc/memctl/memctld.conf",
                "test -S /run/memctl/memctld.sock"]
        check_eq([c for c in good if not can(c)], [], "what it cannot do")
        bad = ["test -e /dev/userfaultfd", ": >/etc/memctl/x", ": >/var/lib/x", ": >/usr/local/x", "test -e /dev/console", "ls /root",
               "test -e /tmp/somebodys", "echo 65530 >/proc/sys/vm/max_map_count"]
        m.run("touch", "/tmp/somebodys")
        check_eq([c for c in bad if can(c)], [], "what it can do")
        namespaces = [m.run("readlink", "/proc/%d/ns/net" % pid).stdout for pid in (1, m.pid())]
        check(namespaces[0] != namespaces[1], "it has the host's network")
        files = m.run("find", "/var/lib/memctl", "-printf", "%M %u %p\\n").stdout
        check(all(re.match(r".......---* memctl ", line) for line in files.splitlines()), "others can read: %s" % files)


def test_reload_of_wrong_settings_changes_nothing():
    with machine(settings=["zstd_level = 1"]) as m, Puppet(m, "vm", 16) as p:
        p.do("fill", 0, 0, 4096, 1, "mix")
        text = settings_file(m)
        write_settings(m, text.replace("zstd_level = 1", "zstd_level = 3") + "nonsense = 1\n")
        m.systemctl("reload", "memctld", check=False)
        wait_until(lambda: "nonsense" in m.log(), 10, "the complaint")
        check("the settings are as they were" in m.log(), m.log())
        check_eq([setting(m, "zstd_level"), m.lives(), m.show("ActiveState")], ["1", 1, "active"], "value, lives, state")
        p.check(0, 4096, 1, "mix")


def test_numbers_for_prometheus():
    """The two units, as they are enabled; the exporter reads what they write as another user."""
    with machine(settings=["socket_ro = /run/memctl/memctld-ro.sock"]) as m:
        if m.run("/usr/local/bin/memctl", "metrics", "--textfile", "/dev/shm/x", check=False).returncode == 16:
            skip("this memctl has no metrics --textfile")
        check_eq(m.run("systemctl", "is-enabled", "memctl-metrics.timer", check=False).stdout.strip(), "disabled", "by default")
        m.systemctl("start", "memctl-metrics.timer")
        exporter = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", "/run/memctl-metrics/memctl.prom"]
        text = wait_until(lambda: m.run(*exporter, check=False).stdout, 20, "the file")
        check("memctl_up 1" in text and "memctl_host_" in text, text)
        check_eq(m.systemctl("show", "-P", "Result", "memctl-metrics.service"), "success", "result")
        m.systemctl("stop", "memctl-metrics.timer")


if __name__ == "__main__":
    main(globals())
