#!/usr/bin/env python3
"""What packaging/build-deb builds, in a Debian 12 of its own (debian.py): installed, used, upgraded with a guest running, removed,
purged."""
import atexit
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import TREE, wait_until  # noqa: E402
from package.debian import PLACE, Debian, packages, repacked  # noqa: E402
from system.puppet import EVICTED, Puppet  # noqa: E402

NAMES = ["libmemctl-dev", "libmemctl-preload", "libmemctl0", "memctl", "memctld"]
CONFIG = "/etc/memctl/memctld.conf"
PAGES = 8192


def test_they_build_and_lintian_is_content():
    result = subprocess.run([os.path.join(TREE, "packaging/build-deb"), "--out", PLACE], stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, check=False)
    sys.stderr.write(result.stdout)
    check_eq(result.returncode, 0, "exit status of build-deb: " + result.stdout)
    check_eq(sorted(packages()), NAMES, "packages")


test_they_build_and_lintian_is_content.seconds = 900


def built():
    if sorted(packages()) != NAMES:
        skip("the packages were not built")
    return packages()


def scratch():
    place = tempfile.mkdtemp(prefix="memctl-package-", dir=os.environ.get("MEMCTL_TEST_DIR"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


class Installed(Debian):
    """With all packages, before anything was used."""

    def __enter__(self):
        super().__enter__()
        try:
            self.before = self.files()
            self.accounts = self._accounts()
            self.install(built())
            # what udev does by our rule; there is none here
            self.memctl_id = self.group("memctl")
            if os.path.exists("/dev/userfaultfd"):
                self.run("chgrp", "memctl", "/dev/userfaultfd")
            self.AS_USER = [*self.AS_USER[:-1], "--groups=%d" % self.memctl_id]
            self._make_wrappers()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _accounts(self):
        return [self.run("cat", "/etc/" + name).stdout for name in ("passwd", "group")]

    def set_arena(self, size):
        """As an administrator does: in the file that is there."""
        path = self.root + CONFIG
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text.replace("[memctld]", "[memctld]\narena = %s" % size, 1))
        self.systemctl("daemon-reload")
        self.systemctl("restart", "memctld")

    def runs_old_program(self):
        return self.run("readlink", "/proc/%d/exe" % self.pid()).stdout.strip().endswith(" (deleted)")

    def guest(self):
        p = Puppet(self, "vm", 32, limit=8)
        p.do("fill", 0, 0, PAGES, 1, "mix")
        return p


def test_installed_it_serves():
    with Installed() as m:
        check_eq([m.show("ActiveState"), m.show("UnitFileState")], ["active", "enabled"], "memctld.service")
        check_eq(m.systemctl("is-enabled", "memctl-metrics.timer", check=False), "disabled", "memctl-metrics.timer")
        check_eq(m.run("stat", "-c", "%U:%G %a", "/var/lib/memctl", "/var/lib/memctl/swap", "/run/memctl").stdout.split("\n")[:3],
                 ["memctl:memctl 700", "memctl:memctl 700", "memctl:memctl 755"], "its directories")
        check_eq(m.run("stat", "-c", "%U", "/proc/%d" % m.pid()).stdout.strip(), "memctl", "its user")
        # the generator is found
        m.run("test", "-e", "/run/systemd/generator/memctld.service.d/50-memory.conf")
        # the library, by its header and its pkg-config file alone
        m.set_arena("64M")
        with m.guest() as p:
            maps = m.run("sh", "-c", "cat /proc/$(pgrep -x puppet)/maps").stdout
            check(" /usr/lib/" in maps and "libmemctl.so.0" in maps, "the client has no libmemctl")
            check(m.real_build not in maps.replace(m.real_build + "/tests/", ""), "the client has the library of the build")
            p.check(0, PAGES, 1, "mix")
            check(any(s in EVICTED for s in p.states()), "nothing was evicted")
            m.audit()


test_installed_it_serves.seconds = 400


def test_documents_are_where_they_are_looked_for():
    with Installed() as m:
        for page in ("man1/memctl.1", "man5/memctld.conf.5", "man8/memctld.8"):
            owner = m.run("dpkg", "-S", "/usr/share/man/%s.gz" % page).stdout
            check(owner.startswith("memctl"), owner)
        m.run("dpkg", "-S", "/usr/share/bash-completion/completions/memctl")
        conffiles = m.run("dpkg-query", "-W", "-f", "${Conffiles}", "memctld").stdout.split()[::2]
        check_eq(conffiles, [CONFIG], "conffiles")


def test_an_upgrade_takes_over_with_a_guest_running():
    """The twin is an upgrade to packages whose scripts do not hand over: the old program goes on."""
    place = scratch()

    def without(root, name):
        path = os.path.join(root, "DEBIAN", "postinst")
        if name == "memctld":
            with open(path) as f:
                text = f.read()
            check("memctl daemon upgrade ||" in text, "there is no hand-over in the script")
            with open(path, "w") as f:
                f.write(text.replace("memctl daemon upgrade ||", "true ||"))

    def new_default(root, name):
        if name == "memctld":
            with open(root + CONFIG, "a") as f:
                f.write("# as the next version has it\n")

    twin = repacked(place + "/twin", "0.1.0+twin", without)
    following = repacked(place + "/next", "0.1.0+tx", new_default)
    with Installed() as m:
        m.set_arena("64M")
        with m.guest() as p:
            first, lives = m.pid(), m.lives()
            check(not m.runs_old_program(), "the program file is gone before the upgrade")
            m.install(twin)
            check_eq([m.pid(), m.lives(), m.runs_old_program()], [first, lives, True], "twin: process, lives, old program")
            p.check(0, PAGES, 1, "mix")
            m.install(following)
            wait_until(lambda: m.pid() not in (0, first) and m.show("ActiveState") == "active", 30, "the next memctld")
            check_eq([m.lives(), m.runs_old_program()], [lives + 1, False], "lives, old program")
            check_eq([vm["name"] for vm in m.memctl("vm", "list")["vms"]], ["vm"], "VMs")
            p.check(0, PAGES, 1, "mix")
            p.do("fill", 0, 0, PAGES, 2, "mix")
            p.check(0, PAGES, 2, "mix")
            m.audit()
            check("arena = 64M" in m.run("cat", CONFIG).stdout, "the administrator's settings are gone")
            m.run("test", "-e", CONFIG + ".dpkg-dist")


test_an_upgrade_takes_over_with_a_guest_running.seconds = 400


def test_removed_and_purged_with_nothing_left():
    with Installed() as m:
        m.set_arena("64M")
        m.run("touch", "/etc/memctl/vms.d/mine.conf")
        p = m.guest()
        try:
            m.apt("remove", "memctld")
            check_eq(m.show("ActiveState"), "inactive", "memctld.service")
            # its memory is its own now
            p.check(0, PAGES, 1, "mix")
            m.run("test", "-e", CONFIG)
            m.run("test", "-d", "/var/lib/memctl")
        finally:
            p.kill()
        m.apt("purge", *NAMES)
        left = sorted(m.files() - m.before)
        check(not left, "left: %s" % " ".join(left))
        check_eq(m._accounts(), m.accounts, "accounts")
        if os.path.exists("/dev/userfaultfd"):
            check_eq(m.run("stat", "-c", "%U:%G", "/dev/userfaultfd").stdout.strip(), "root:root", "owner of /dev/userfaultfd")


test_removed_and_purged_with_nothing_left.seconds = 400


if __name__ == "__main__":
    main(globals())
