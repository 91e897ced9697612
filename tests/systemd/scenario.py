"""What the programs of this suite do to a machine."""
import os
import time

from lib.check import check, skip
from lib.daemon import wait_until
from systemd.machine import SYSTEMD, Machine, cgroup2_mount

CONFIG = "etc/memctl/memctld.conf"


def machine(*args, **kwargs):
    if os.geteuid() != 0:
        skip("only root can make namespaces")
    if not os.path.exists(SYSTEMD):
        skip("systemd is not installed")
    if not cgroup2_mount():
        skip("there is no cgroup2")
    return Machine(*args, **kwargs)


def comes_back(m, act, seconds=30):
    """Seconds from `act` until the next memctld serves."""
    before, lives = m.pid(), m.lives()
    check(before > 0, "memctld does not run")
    begin = time.monotonic()
    act()
    wait_until(lambda: m.lives() > lives, seconds, "the next life")
    pause = time.monotonic() - begin
    wait_until(lambda: m.pid() not in (0, before) and m.show("ActiveState") == "active", seconds, "the next main process")
    return pause


def kill_9(m):
    m.systemctl("kill", "-s", "KILL", "memctld")


def kept(m):
    """Descriptors that systemd keeps."""
    return int(m.show("NFileDescriptorStore"))


def settings_file(m):
    with open(os.path.join(m.root, CONFIG)) as f:
        return f.read()


def write_settings(m, text):
    with open(os.path.join(m.root, CONFIG), "w") as f:
        f.write(text)


def setting(m, name):
    """What is in force."""
    return next(s["value"] for s in m.memctl("config", "show")["settings"] if s["name"] == name)
