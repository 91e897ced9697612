#!/usr/bin/env python3
"""Who is not in a group gets nothing of it, and who is in it can only read: clients with uids of their own, and the twin."""
import contextlib
import ctypes
import errno
import mmap
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.users import as_user  # noqa: E402
from system.puppet import PAGE, program  # noqa: E402
from system.puppet import Refused as PuppetRefused  # noqa: E402
from system.sharing import audit, gone, member, pages, shared, sharing_daemon  # noqa: E402
from torture.actor import can_be_nobody, open_to_all  # noqa: E402
from wire.client import Client, Refused, Vm  # noqa: E402

MIB = 1 << 20
NOBODY = 65534		# puppets that are nobody
OUTSIDER = 65533
N = 800


def attempt(act):
    """"" or the name of the error."""
    try:
        act()
    except OSError as e:
        return errno.errorcode[e.errno]
    return ""


def pool_fds(pid):
    """Numbers of the descriptors of memfds of pools, as root sees them."""
    found = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):
            if "pool" in os.readlink("/proc/%d/fd/%s" % (pid, fd)):
                found.append(int(fd))
    return sorted(found)


def needs_users(d):
    if os.geteuid() or not can_be_nobody(program(d)):
        skip("needs root, and a build that everybody can reach")


@contextlib.contextmanager
def pair(d, **more):
    with member(d, "a", 8, nobody=True, **more) as a, member(d, "b", 8, nobody=True, **more) as b:
        for p in (a, b):
            p.do("fill", 0, 0, N, 1, "text")
        shared(d, (a, N), (b, N))
        yield a, b


def closed_group(**more):
    """The group g is nobody's, and nobody else's."""
    return open_to_all(sharing_daemon(64, "share_groups=g=%d" % NOBODY, "share_with_root=no", **more))


# ---- outside

def try_to_join(path):
    """What a client that may call, but not join, is told."""
    answers = []
    for sharing in ("group:g", "group:other"):
        try:
            Vm(path, "sneak", MIB, sharing=sharing).close()
            answers.append("")
        except Refused as e:
            answers.append(e.name)
    with Vm(path, "sneak", MIB) as v:
        answers.append(v.registered["sharing"])
        v.calls.call("JoinPool", maps=50)
        answers.append(os.fstat(v.calls.take_fd()).st_ino)
    # nor without a VM, nor for another's
    with Client(path) as c:
        for method, parameters in (("JoinPool", {"maps": 50}), ("ShareTop", {}), ("ShareTop", {"vm": "a"}), ("ScanVm", {}),
                                   ("Tune", {"setting": "share_groups", "value": "g=*"})):
            try:
                c.call(method, **parameters)
                answers.append("")
            except Refused as e:
                answers.append(e.name)
    return answers


def try_to_open(paths):
    return [attempt(lambda: os.close(os.open(path, flags))) for path in paths
            for flags in (os.O_RDONLY, os.O_RDWR, os.O_PATH)]


def try_to_read_memory(pid):
    return [attempt(lambda: os.close(os.open("/proc/%d/mem" % pid, os.O_RDONLY))), attempt(lambda: os.listdir("/proc/%d/map_files" % pid))]


def test_an_outsider_gets_nothing():
    with closed_group() as d:
        needs_users(d)
        with pair(d) as (a, b):
            own = pool_fds(a.process.pid)
            check(own, "the member has no pool")
            answers = as_user(OUTSIDER, try_to_join, d.socket)
            check_eq(answers[:3], ["PermissionDenied", "PermissionDenied", "vm"], "group:g, another group, nothing asked for")
            check(answers[3] != os.stat("/proc/%d/fd/%d" % (a.process.pid, own[0])).st_ino, "it got the pool of the group")
            check_eq(answers[4:], ["BadState", "PermissionDenied", "PermissionDenied", "PermissionDenied", "PermissionDenied"],
                     "JoinPool, ShareTop twice, ScanVm, Tune")
            paths = ["/proc/%d/fd/%d" % (pid, fd) for pid in (a.process.pid, d.pid) for fd in pool_fds(pid)]
            check(len(paths) >= 2, "pools to open: %s" % paths)
            errors = as_user(OUTSIDER, try_to_open, paths)
            check(set(errors) <= {"EACCES", "EPERM"}, "opening %s: %s" % (paths, errors))
            errors = as_user(OUTSIDER, try_to_read_memory, a.process.pid)
            check(set(errors) <= {"EACCES", "EPERM"}, "reading a member's memory: %s" % errors)
            # nor does a member's user, by another way than the daemon's
            errors = as_user(NOBODY, try_to_open, paths[-1:])
            check(set(errors) <= {"EACCES", "EPERM"}, "opening the daemon's as a member: %s" % errors)
            # root can, so there was something to be had
            with open(paths[0], "rb") as f:
                check(any(f.read(64 * PAGE + N * PAGE)), "the pool is empty")
            for p in (a, b):
                p.check(0, N, 1, "text")
            audit(d)
        gone(d)


def test_root_is_not_let_in():
    """Root could write to the pool: without share_with_root it is refused, and told what to do."""
    with closed_group() as d:
        needs_users(d)
        d.memctl("tune", "share_groups", "g=*")
        with pair(d) as (a, _):
            try:
                member(d, "r", 8).kill()
                raise AssertionError("root is in the group")
            except PuppetRefused as e:
                check_eq(e.errno, errno.EPERM if e.errno == errno.EPERM else errno.EACCES, "errno")
                check("share_with_root" in e.message and "root" in e.message, "the message does not say what to do: %s" % e.message)
            d.memctl("tune", "ShareForceSalting", "1")
            with member(d, "r", 8, sharing=None) as r:
                check_eq(r.numbers()["sharing"], "vm", "root, unasked")
            d.memctl("tune", "share_with_root", "yes")
            with member(d, "r", 8) as r:
                r.do("fill", 0, 0, N, 1, "text")
                shared(d, (r, N))
                check_eq((r.numbers()["pool_writable"], a.numbers()["pool_writable"]), (True, False), "pool_writable")
            audit(d)


# ---- inside

def try_to_write(path):
    """What a member can do with its descriptor: whether it can read, and how each attempt to write comes out."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with Vm(path, "m", MIB, sharing="group:g") as v:
        v.calls.call("JoinPool", maps=50)
        fd = v.calls.take_fd()
        size, name = os.fstat(fd).st_size, "/proc/self/fd/%d" % fd

        def protect():
            at = libc.mmap(None, PAGE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 64 * PAGE)
            if libc.mprotect(at, PAGE, mmap.PROT_READ | mmap.PROT_WRITE) < 0:
                raise OSError(ctypes.get_errno(), "mprotect")

        tries = [
            lambda: os.pwrite(fd, b"x", PAGE),
            lambda: os.ftruncate(fd, 0),
            lambda: os.truncate(name, 0),
            lambda: os.fchmod(fd, 0o666),
            lambda: os.chmod(name, 0o666),
            lambda: os.fchown(fd, os.getuid(), -1),
            lambda: os.posix_fallocate(fd, 0, size),
            lambda: mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
            lambda: os.close(os.open(name, os.O_RDWR)),
            lambda: os.close(os.open(name, os.O_WRONLY)),
            lambda: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)),
            protect,
        ]
        return [any(os.pread(fd, size, 0)), [attempt(t) for t in tries]]


def test_a_member_can_only_read():
    with closed_group() as d:
        needs_users(d)
        with pair(d) as (a, b):
            readable, errors = as_user(NOBODY, try_to_write, d.socket)
            check(readable, "a member cannot even read: the test would see nothing")
            check(all(e in ("EACCES", "EPERM", "EBADF", "EINVAL") for e in errors), "what a member can do: %s" % errors)
            for p in (a, b):
                p.check(0, N, 1, "text")
            audit(d)


def scribble(path):
    """The first page of the pool that is not zero, overwritten through a descriptor of one's own; how it came out."""
    fd = os.open(path, os.O_RDWR)
    for at in range(0, os.fstat(fd).st_size, PAGE):
        if any(os.pread(fd, PAGE, at)):
            os.pwrite(fd, b"\x99" * PAGE, at)
            return "written"
    return "empty"


def one_uid(where, twin):
    """Daemon and members are one user: what a member's attempt to open the pool for writing gives, and how many pages of its
    neighbour are wrong then."""
    os.environ["MEMCTL_TEST_DIR"] = where
    with sharing_daemon(32, twin=twin) as d, member(d, "a", 4) as a, member(d, "b", 4) as b:
        for p in (a, b):
            p.do("fill", 0, 0, N, 1, "text")
        shared(d, (a, N), (b, N))
        path = "/proc/%d/fd/%d" % (a.process.pid, pool_fds(a.process.pid)[0])
        how = [attempt(lambda: os.close(os.open(path, os.O_RDWR)))]
        if not how[0]:
            how.append(scribble(path))
        return [*how, int(b.do("check", 0, 0, N, 1, "text")[0]), a.numbers()["pool_writable"], pages(b, "shared")]


def test_twin_pool_writable_is_caught():
    """One uid for all, and pools of mode 0600: the member writes to the pool, and its neighbour reads that.  With the mode that
    they have it is refused, though the daemon says of such a client that nothing keeps it."""
    with sharing_daemon(16) as d:
        needs_users(d)
    with tempfile.TemporaryDirectory(prefix="memctl-test-") as where:
        os.chown(where, NOBODY, NOBODY)
        good, twin = (as_user(NOBODY, one_uid, where, t) for t in (None, "pool_writable"))
    check_eq(good, ["EACCES", 0, True, N], "opened, wrong pages, pool_writable, shared pages")
    check_eq(twin[:2], ["", "written"], "the twin's member could not write")
    check(twin[2] > 0, "the neighbour did not see it")


for function in [f for n, f in list(globals().items()) if n.startswith("test_")]:
    function.seconds = 90

if __name__ == "__main__":
    main(globals())
