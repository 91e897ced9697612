"""A Debian 12 of its own, with its systemd running, in which packages are installed: tests/systemd/machine.py with a root from
debootstrap, and nothing of the host's.

The packages and the bare system are made once and kept in build-package/; the system is made again when it is a month old, or
when the packages need others than it has."""
import glob
import os
import re
import shutil
import subprocess
import sys
import time

from lib.check import skip
from lib.daemon import TREE, wait_until
from systemd.machine import Machine, cgroup2_mount

PLACE = os.path.join(TREE, "build-package")
MIRROR = os.environ.get("MEMCTL_MIRROR", "http://deb.debian.org/debian")
# of the system itself; the rest is what ours depend on
BARE = ["procps", "systemd", "systemd-sysv", "udev"]
MONTH = 30 * 86400


def _run(*command, **more):
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=True, text=True, **{"stdout": sys.stderr, **more})


def packages(place=PLACE):
    """Paths of the packages, by name."""
    found = {os.path.basename(p).split("_")[0]: p for p in glob.glob(os.path.join(place, "*.deb"))}
    return {name: p for name, p in found.items() if not name.endswith("-dbgsym")}


def field(path, name):
    return _run("dpkg-deb", "-f", path, name, stdout=subprocess.PIPE).stdout.strip()


def needed():
    """What our packages depend on that is not ours; the first of alternatives."""
    names = set(BARE)
    for path in packages().values():
        for wish in filter(None, field(path, "Depends").split(",")):
            names.add(re.match(r"\s*([^\s(|:]+)", wish).group(1))
    return sorted(names - set(packages()))


def bare_system():
    """A tar file of it."""
    if not shutil.which("debootstrap"):
        skip("debootstrap is not installed")
    tar, listed = os.path.join(PLACE, "bare.tar"), os.path.join(PLACE, "bare.list")
    wanted = " ".join(needed())
    if os.path.exists(listed) and os.path.exists(tar) and time.time() - os.path.getmtime(tar) < MONTH:
        with open(listed) as f:
            if f.read() == wanted:
                return tar
    root = os.path.join(PLACE, "bare")
    shutil.rmtree(root, ignore_errors=True)
    try:
        _run("debootstrap", "--variant=minbase", "--include=" + wanted.replace(" ", ","), "bookworm", root, MIRROR)
    except subprocess.CalledProcessError:
        skip("debootstrap cannot make a Debian 12 from %s ($MEMCTL_MIRROR names another mirror)" % MIRROR)
    shutil.rmtree(os.path.join(root, "var/cache/apt/archives"))
    _run("tar", "-C", root, "--xattrs", "-cf", tar + ".new", ".")
    os.rename(tar + ".new", tar)
    with open(listed, "w") as f:
        f.write(wanted)
    shutil.rmtree(root)
    return tar


def repacked(place, version, change=lambda root, name: None):
    """The same packages as another version, in which `change` may alter files; their paths."""
    os.makedirs(place, exist_ok=True)
    for name, path in packages().items():
        root = os.path.join(place, "root")
        _run("dpkg-deb", "-R", path, root)
        control = os.path.join(root, "DEBIAN", "control")
        with open(control) as f:
            text = f.read().replace(field(path, "Version"), version)
        with open(control, "w") as f:
            f.write(text)
        change(root, name)
        _run("dpkg-deb", "--root-owner-group", "-Znone", "-b", root, os.path.join(place, "%s_%s.deb" % (name, version)))
        shutil.rmtree(root)
    return packages(place)


class Debian(Machine):
    """As it is after its installation, before any package of ours."""

    # where packages find their way to everything by themselves
    SETTINGS = ""
    PUPPETS = ("tests/system/puppet",)

    def _make_root(self):
        if os.geteuid() != 0:
            skip("only root can make namespaces")
        if not cgroup2_mount():
            skip("there is no cgroup2")
        tar = bare_system()
        os.makedirs(self.root)
        _run("tar", "-C", self.root, "--xattrs", "-xf", tar)
        for directory, mode in ((self.dir, 0o755), (self.shared, 0o1777), (self.root + "/log", 0o755)):
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, mode)
        # what the kernel of the host, or of a test, makes necessary: no daemons that look for hardware, and a log that can be read here
        for unit in ("systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udev-trigger.service"):
            os.symlink("/dev/null", os.path.join(self.root, "etc/systemd/system", unit))
        self._write("etc/systemd/system/memctld.service.d/test.conf", "[Service]\nStandardError=append:/log/memctld\n")

    def _installed(self):
        return ""

    def _program(self, name):
        """memctl is the installed one; clients are of the build, with the installed library."""
        if name == "cli/memctl":
            return "/usr/bin/memctl"
        libraries = glob.glob(self.root + "/usr/lib/*/libmemctl.so.0")
        return " ".join(["LD_PRELOAD=" + path[len(self.root):] for path in libraries] + [super()._program(name)])

    def _wait_until_booted(self):
        wait_until(lambda: self.run("systemctl", "is-active", "multi-user.target", check=False).stdout.strip() == "active",
                   60, "multi-user.target")

    # ---- what an administrator does

    def apt(self, *words):
        """Nothing is asked: what an administrator has changed stays."""
        return self.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends",
                        "-o", "Dpkg::Options::=--force-confold", *words, seconds=120)

    def install(self, paths):
        """Packages of the host."""
        place = os.path.join(self.shared, "install")
        os.makedirs(place)
        for path in paths.values():
            shutil.copy(path, place)
        try:
            return self.apt("install", *(os.path.join(place, os.path.basename(p)) for p in paths.values()))
        finally:
            shutil.rmtree(place)

    def group(self, name):
        return int(self.run("getent", "group", name).stdout.split(":")[2])

    def files(self):
        """All there is, but what logs, caches and package managers keep of the past."""
        found = set()
        for top in ("dev", "etc", "lib", "usr", "var", "run"):
            # as the machine sees it: /run and /dev are its own
            found.update(self.run("find", "/" + top + "/", "-xdev", "(", "-path", "/var/log", "-o", "-path", "/var/cache", "-o", "-path",
                                  "/var/lib/dpkg", "-o", "-path", "/var/lib/apt", "-o", "-path", "/run/systemd", "-o", "-path", "/dev/pts", "-o",
                                  "-path", "/run/log", "-o", "-path", "/var/tmp", ")", "-prune", "-o", "-print").stdout.splitlines())
        return found
