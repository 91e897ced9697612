#!/usr/bin/env python3
"""A process connects, hands the connection on, and ends; somebody else comes to its number.  What memctld does to the client's process it
must not do to him."""
import contextlib
import ctypes
import mmap
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from hostile.attacker import libc, uffdio  # noqa: E402
from lib.check import check, main, skip  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import daemon  # noqa: E402
from wire.client import MODE_MISSING, PAGE, UFFDIO_REGISTER, Client, Vm, userfaultfd  # noqa: E402

MIB = 1 << 20
LAST = "/proc/sys/kernel/ns_last_pid"


def connection_of_somebody_gone(path):
    """(a connection, the number of the process that made it, which is free again)"""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        socket.send_fds(its, [b"x"], [s.fileno()])
        os._exit(0)
    os.waitpid(pid, 0)
    return socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0]), pid


def process_of_number(pid):
    """One that sleeps, whose number this is."""
    for _ in range(300):
        try:
            with open(LAST, "w") as f:
                f.write(str(pid - 1))
        except OSError as e:
            skip("the kernel lets nobody choose the number of a process: %s" % e)
        child = os.fork()
        if child == 0:
            os.closerange(3, 256)  # the connection is not his
            time.sleep(120 if os.getpid() == pid else 0)
            os._exit(0)
        if child == pid:
            return child
        os.waitpid(child, 0)
    skip("somebody else has got the number of the process")


class Second(Vm):
    """A VM by a connection that is there already."""

    def __init__(self, connection, name, size):
        self.calls = Client.__new__(Client)
        self.calls.socket, self.calls.buffer, self.calls.fds = connection, b"", []
        connection.settimeout(20)
        self.orders, self.leases, self.name = None, [], name
        self.registered = self.calls.call("Register", name=name, size=size)


@contextlib.contextmanager
def held(l):
    """The lock of the lease's memory, by a write to it out of a page that nobody fills."""
    uffd, user_mode_only = userfaultfd()
    if user_mode_only:
        skip("only root may take faults of the kernel")
    source = libc.mmap(None, PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    uffdio(uffd, UFFDIO_REGISTER, source, PAGE, MODE_MISSING)
    write = ctypes.CDLL(None).pwrite
    write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
    thread = threading.Thread(target=write, args=(l.fd, source, PAGE, 0))
    thread.start()
    time.sleep(0.3)
    try:
        yield
    finally:
        os.close(uffd)
        thread.join()


def hold_with_the_number_of_another(twin=None):
    """Whether the other one lives after the client has held a thread of memctld for longer than it may."""
    with daemon(64, settings=["client_hold_limit=2"], twin=twin) as d:
        # a daemon that looks later than this would see the end as well
        connection, pid = connection_of_somebody_gone(d.socket)
        Client(d.socket).close()
        other = process_of_number(pid)
        try:
            vm = Second(connection, "bad", 4 * MIB)
            l = vm.lease(0, MIB)
            l.write_page(0, b"x" * PAGE)
            with held(l):
                vm.calls.send("Discard", {"lease": l.number, "offset": 0, "length": MIB})
                wait_until(lambda: "has held a thread of memctld" in d.log(), 20, "the limit")
                time.sleep(0.5)
                lives = os.waitpid(other, os.WNOHANG)[0] == 0
            vm.close()
            wait_until(lambda: not d.memctl("vm", "list")["vms"], 20, "the end of the VM")
            return lives
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(other, 9)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(other, 0)


def test_nobody_else_is_killed():
    check(hold_with_the_number_of_another(), "memctld has killed a process that is no client")


def test_nobody_else_is_killed_twin():
    check(not hold_with_the_number_of_another("peer_late"), "the twin killed nobody")


if __name__ == "__main__":
    main(globals())
