#!/usr/bin/env python3
"""Sharing at the socket: who shares with whom, who gets a pool and what he can do with it, what operators ask."""
import contextlib
import errno
import mmap
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip
from lib.daemon import Daemon, wait_until
from wire.client import PAGE, Client, Refused, Vm

MIB = 1 << 20
NOBODY = 65534
MAX_MAP_COUNT = "/proc/sys/vm/max_map_count"


@contextlib.contextmanager
def daemon(*settings):
    """A daemon that other users can reach too; at the end no VM, no pool and no charge is left."""
    args = [word for s in settings for word in ("--set", s)]
    with Daemon(arena=64 * MIB, args=["--socket-mode", "0666", *args]) as d:
        os.chmod(d.dir, 0o755)
        yield d
        check(d.alive(), "memctld has died")
        with Client(d.socket) as c:
            wait_until(lambda: not c.call("ListVms")["vms"], what="the release of the VMs")
            check_eq(c.call("ShareGroups")["groups"], [], "pools that are left")
            check_eq(c.call("Status")["status"]["arena"]["charged_bytes"], 0, "bytes charged")


@contextlib.contextmanager
def user(uid):
    """Connections made inside are this user's."""
    if os.geteuid():
        skip("only root can be several users")
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def vm(d, name, uid=None, size=MIB, **more):
    if uid is None:
        return Vm(d.socket, name, size, **more)
    with user(uid):
        return Vm(d.socket, name, size, **more)


def refused(error, call, /, *args, **parameters):
    try:
        call(*args, **parameters)
    except Refused as e:
        check_eq(e.name, error, "error of %s%s" % (args, parameters))
        return e.parameters["message"]
    raise AssertionError("not refused: %s %s" % (args, parameters))


def join(v, maps=50):
    pages = v.calls.call("JoinPool", maps=maps)["pool_pages"]
    return pages, v.calls.take_fd()


def shares(d, name, **more):
    with vm(d, name, **more) as v:
        return v.registered["sharing"]


def test_what_a_vm_gets():
    with daemon("share_groups=web=*") as d:
        for asked in ("off", "zero", "vm"):
            check_eq(shares(d, "a-" + asked, sharing=asked), asked)
        check_eq(shares(d, "b"), "vm", "by default")
        check_eq(shares(d, "c", uid=NOBODY, sharing="group:web"), "group:web")
        refused("PermissionDenied", vm, d, "d", uid=NOBODY, sharing="group:other")


def test_salting_is_live():
    with daemon() as d, Client(d.socket) as c:
        check_eq(shares(d, "a", uid=NOBODY), "vm")
        for n in ("1", "0"):
            c.call("Tune", setting="ShareForceSalting", value=n)
            check_eq(shares(d, "b" + n, uid=NOBODY), "group:common")
            check_eq(shares(d, "c" + n, uid=NOBODY, sharing="group:other"), "group:other")
            check_eq(shares(d, "d" + n, uid=NOBODY, sharing="vm"), "vm")
            # root could write to the pages of the group: unasked it is left out, asking it is told why
            check_eq(shares(d, "e" + n, uid=0), "vm")
            check("root" in refused("PermissionDenied", vm, d, "f", uid=0, sharing="group:other"))
        c.call("Tune", setting="share_with_root", value="yes")
        check_eq(shares(d, "g", uid=0, sharing="group:other"), "group:other")


def test_groups_are_live_and_strict():
    with daemon() as d, Client(d.socket) as c:
        refused("PermissionDenied", vm, d, "a", uid=NOBODY, sharing="group:web")
        c.call("Tune", setting="share_groups", value="web=%d,0" % NOBODY)
        check_eq(shares(d, "b", uid=NOBODY, sharing="group:web"), "group:web")
        refused("PermissionDenied", vm, d, "c", uid=1, sharing="group:web")
        for wrong, says in (("web=no-such-user", "no-such-user"), ("web=@no-such-group", "no-such-group"), ("web", "NAME=")):
            check(says in refused("InvalidValue", c.call, "Tune", setting="share_groups", value=wrong))
        check_eq(shares(d, "d", uid=NOBODY, sharing="group:web"), "group:web", "after the wrong ones")
        c.call("Tune", setting="share_groups", value="web=1")
        refused("PermissionDenied", vm, d, "e", uid=NOBODY, sharing="group:web")


def test_who_has_no_pool():
    with daemon() as d:
        for sharing in ("off", "zero"):
            with vm(d, sharing, sharing=sharing) as v:
                check(sharing in refused("BadState", v.calls.call, "JoinPool", maps=50))
        with Client(d.socket) as c:
            refused("BadState", c.call, "JoinPool", maps=50)


def test_a_pool_of_ones_own():
    with daemon() as d, Client(d.socket) as c, vm(d, "a") as v, vm(d, "b", size=1024 * MIB, reservation=0, uid=None) as w:
        pages, fd = join(v)
        check_eq(pages, os.fstat(fd).st_size // PAGE, "pages")
        check(MIB // PAGE // 2 <= pages <= 2 * MIB // PAGE, "pages for a small VM: %d" % pages)
        check_eq(os.get_inheritable(fd), False)
        again, same = join(v)
        check_eq((again, os.fstat(same).st_ino), (pages, os.fstat(fd).st_ino), "asked once more")
        os.close(same)
        more, other = join(w)
        check(64 * MIB // PAGE <= more <= 80 * MIB // PAGE, "pages for a VM larger than the arena: %d" % more)
        check(os.fstat(fd).st_ino != os.fstat(other).st_ino, "two VMs have one pool")
        groups = {g["group"]: g for g in c.call("ShareGroups")["groups"]}
        check_eq(sorted(groups), ["a", "b"])
        check_eq((groups["a"]["private"], groups["a"]["members"]), (True, ["a"]))
        os.close(other)
        os.close(fd)


def test_the_pool_of_a_group_is_one_and_can_only_be_read():
    with daemon("share_groups=web=*") as d, Client(d.socket) as c:
        a, b = (vm(d, name, uid=NOBODY, sharing="group:web") for name in "ab")
        (pages, fd), (_, same) = join(a), join(b)
        check(64 * MIB // PAGE <= pages <= 80 * MIB // PAGE, "pages: %d" % pages)
        check_eq(os.fstat(fd).st_ino, os.fstat(same).st_ino, "the pool")
        groups = c.call("ShareGroups")["groups"]
        check_eq([(g["group"], g["private"], sorted(g["members"]), g["writable_by_members"]) for g in groups],
                 [("web", False, ["a", "b"], False)])
        check_eq(c.call("ShowVm", vm="a")["vm"]["pool_writable"], False)
        with user(NOBODY):
            cannot_write(fd)
        # the group lives as long as one of its VMs
        a.close()
        wait_until(lambda: [g["members"] for g in c.call("ShareGroups")["groups"]] == [["b"]], what="the end of a")
        with vm(d, "c", uid=NOBODY, sharing="group:web") as third:
            _, again = join(third)
            check_eq(os.fstat(again).st_ino, os.fstat(same).st_ino, "the pool")
            os.close(again)
        b.close()
        os.close(fd)
        os.close(same)


def cannot_write(fd):
    for act in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0),
                lambda: mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
                lambda: os.open("/proc/self/fd/%d" % fd, os.O_RDWR), lambda: os.fchmod(fd, 0o666)):
        try:
            act()
        except OSError as e:
            check(e.errno in (errno.EBADF, errno.EINVAL, errno.EACCES, errno.EPERM), "%s" % e)
        else:
            raise AssertionError("it can be written to")


def test_root_in_a_group_is_shown():
    if os.geteuid():
        skip("for root")
    with daemon("share_groups=web=*", "share_with_root=yes") as d, Client(d.socket) as c:
        with vm(d, "a", uid=NOBODY, sharing="group:web") as a, vm(d, "b", uid=0, sharing="group:web") as b:
            for v in (a, b):
                os.close(join(v)[1])
            check_eq(c.call("ShowVm", vm="a")["vm"]["pool_writable"], False)
            check_eq(c.call("ShowVm", vm="b")["vm"]["pool_writable"], True)
            check_eq(c.call("ShareGroups")["groups"][0]["writable_by_members"], True)


def test_mappings_are_kept_below_the_kernels_limit():
    with open(MAX_MAP_COUNT) as f:
        most = int(f.read())
    with daemon() as d, Client(d.socket) as c:
        for maps in (0, 50, most, 10 * most):
            with vm(d, "m%d" % maps) as v:
                os.close(join(v, maps)[1])
                check_eq(c.call("ShowVm", vm=v.name)["vm"]["share_mappings_max"], max(most // 4 * 3 - maps, 0))


def test_a_pass_at_an_operators_word():
    with daemon() as d, Client(d.socket) as c, vm(d, "a"), vm(d, "b", sharing="off"), vm(d, "c", sharing="zero"):
        check_eq(c.call("ScanVm")["vms"], 2)
        check_eq(c.call("ScanVm", vm="a")["vms"], 1)
        refused("BadState", c.call, "ScanVm", vm="b")
        refused("NoSuchVm", c.call, "ScanVm", vm="d")
        c.call("Tune", setting="ShareRateMax", value="0")
        check("ShareRateMax" in refused("BadState", c.call, "ScanVm"))
        if os.geteuid() == 0:
            with user(NOBODY):
                other = Client(d.socket)
            with other:
                refused("PermissionDenied", other.call, "ScanVm")


def test_who_shares_with_whom():
    with daemon() as d, Client(d.socket) as c, vm(d, "a") as v:
        check_eq(c.call("ShareTop")["pairs"], [], "before it has a pool")
        os.close(join(v)[1])
        check_eq(c.call("ShareTop", vm="a")["pairs"], [], "without a page")
        refused("NoSuchVm", c.call, "ShareTop", vm="b")
        if os.geteuid() == 0:
            with vm(d, "n", uid=NOBODY) as own:
                refused("PermissionDenied", own.calls.call, "ShareTop")
                refused("PermissionDenied", own.calls.call, "ShareTop", vm="a")
                check_eq(own.calls.call("ShareTop", vm="n")["pairs"], [], "of its own")


if __name__ == "__main__":
    main(globals())
