#!/usr/bin/env python3
"""One client that means harm, in a process of its own, as a user of its own; tests/hostile/beside.py drives it by lines.

    attacker.py SOCKET ATTACK UID		the name of a function below

    attack MS		do it again and again for so long -> a JSON object: steps, cpu_ms, and what the attack has counted
    burn MS CPU_MS	use as much of the processors, and leave memctld alone -> the same

An attack prepares itself and returns what is done again and again.  Whatever touches memory that may have to be waited for is a call
of the C library, which lets go of the interpreter, in a thread that may wait for ever."""
import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import resource
import select
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from wire.client import (MODE_MISSING, MODE_WP, PAGE, UFFDIO_REGISTER, UFFDIO_UNREGISTER, Client, Closed, Lease,  # noqa: E402
                         Refused, Vm, userfaultfd)

MIB = 1 << 20
UFFDIO_WAKE = 0x8010AA02
PUNCH = 3	# FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
MADV_DONTNEED, MADV_REMOVE, MADV_DONTDUMP, MADV_DODUMP = 4, 9, 16, 17
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for name in ("munmap", "madvise", "fallocate"):
    getattr(libc, name).argtypes = {"munmap": [ctypes.c_void_p, ctypes.c_size_t],
                                    "madvise": [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int],
                                    "fallocate": [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]}[name]


class Attacker:
    def __init__(self, path, uid):
        self.path, self.uid = path, uid
        self.counted = {}
        self.random = random.Random(uid)
        self.names = 0
        self.on = threading.Event()	# threads of it work

    def count(self, what, n=1):
        self.counted[what] = self.counted.get(what, 0) + n

    def most(self, what, n):
        self.counted[what] = max(self.counted.get(what, 0), n)

    def vm(self, size=8 * MIB, **more):
        self.names += 1
        return Vm(self.path, "bad-%d-%d" % (self.uid, self.names), size, **more)

    def refused(self, act, *arguments):
        """Whether the kernel says no."""
        try:
            act(*arguments)
        except OSError as e:
            self.count("refused_by_" + errno.errorcode[e.errno])
            return True
        return False

    def call(self, client, method, fds=(), **parameters):
        """The name of the error that it is answered with; None: it was done."""
        try:
            client.call(method, fds, **parameters)
        except Refused as e:
            self.count("refused_" + e.name.rsplit(".", 1)[-1])
            return e.name
        return None

    def thread(self, act):
        """Again and again while the attack goes on."""
        def run():
            while True:
                self.on.wait()
                act()

        threading.Thread(target=run, daemon=True).start()


def punch(fd, offset, length):
    if libc.fallocate(fd, PUNCH, offset, length):
        raise OSError(ctypes.get_errno(), "fallocate")


def uffdio(fd, request, address, length, mode=None):
    fcntl.ioctl(fd, request, struct.pack("QQQQ", address, length, mode, 0) if mode is not None else struct.pack("QQ", address, length))


def wake(l):
    uffdio(l.uffd, UFFDIO_WAKE, l.address, l.size)


def storm(a, l, first=0, size=None):
    """A thread that touches what another act has taken away."""
    a.thread(lambda: (libc.memset(l.address + first, 7, size or l.size), a.count("touched_rounds")))


# ---- its own memory


def truncation(a):
    l = a.vm().lease(0, 4 * MIB)
    storm(a, l)

    def step():
        for size in (0, PAGE, 3 * MIB, 64 * MIB):
            a.count("truncated", not a.refused(os.ftruncate, l.fd, size))
        a.count("sealed", not a.refused(fcntl.fcntl, l.fd, 1033, 8))
        a.count("reopened", not a.refused(os.open, "/proc/self/fd/%d" % l.fd, os.O_RDWR | os.O_TRUNC))
        a.count("opened_up", not a.refused(os.fchmod, l.fd, 0o777))
        punch(l.fd, 0, l.size)
    return step


def punching(a):
    l = a.vm(limit=4 * MIB).lease(0, 8 * MIB)
    storm(a, l)

    def step():
        punch(l.fd, a.random.randrange(1024) * PAGE, MIB)
        libc.madvise(l.address + a.random.randrange(1024) * PAGE, MIB, MADV_REMOVE)
        libc.madvise(l.address, l.size, MADV_DONTNEED)
        a.call(l.client, "Discard", lease=l.number, offset=0, length=MIB)
    return step


def foreign_writes(a):
    """Through the descriptor and mappings that nobody registered, which cost no fault."""
    l = a.vm(limit=4 * MIB).lease(0, 8 * MIB)
    l.write_page(0, b"x" * PAGE)
    second = libc.mmap(None, l.size, 3, mmap.MAP_SHARED, l.fd, 0)
    content = os.urandom(l.size)

    def step():
        os.pwrite(l.fd, content, 0)
        libc.memset(second, 9, l.size)
        libc.fallocate(l.fd, 0, 0, l.size)
        a.most("held_bytes", os.fstat(l.fd).st_blocks * 512)
        time.sleep(0.05)
    return step


def stalling(a):
    """Its address space is locked by somebody all the time: cut into mappings, forked."""
    l = a.vm(limit=4 * MIB).lease(0, 8 * MIB)
    storm(a, l)
    large = libc.mmap(None, 64 * MIB, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    libc.memset(large, 1, 64 * MIB)

    def cut():
        for page in range(0, 2048, 2):
            libc.madvise(l.address + page * PAGE, PAGE, MADV_DONTDUMP)
        libc.madvise(l.address, l.size, MADV_DODUMP)

    a.thread(cut)

    def step():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        libc.munmap(libc.mmap(None, 64 * MIB, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000, -1, 0), 64 * MIB)
        a.call(l.client, "Discard", lease=l.number, offset=0, length=l.size)
    return step


# ---- its userfaultfd


def nonblock(a):
    l = a.vm().lease(0, 4 * MIB)
    storm(a, l)

    def step():
        for flags in (os.O_NONBLOCK, 0):
            fcntl.fcntl(l.uffd, fcntl.F_SETFL, flags)
            punch(l.fd, 0, l.size)
    return step


def stealing_events(a):
    l = a.vm().lease(0, 4 * MIB)
    storm(a, l)

    def step():
        punch(l.fd, 0, l.size)
        fcntl.fcntl(l.uffd, fcntl.F_SETFL, os.O_NONBLOCK)
        for _ in range(20):
            try:
                a.count("stolen", len(os.read(l.uffd, 32)) == 32)
            except BlockingIOError:
                pass
        # who has lost its event waits until somebody says so
        wake(l)
    return step


def unregistering(a):
    l = a.vm(limit=4 * MIB).lease(0, 4 * MIB)
    storm(a, l)

    def step():
        uffdio(l.uffd, UFFDIO_UNREGISTER, l.address, l.size)
        punch(l.fd, 0, l.size)
        libc.memset(l.address, 3, MIB)
        uffdio(l.uffd, UFFDIO_REGISTER, l.address, l.size, MODE_MISSING | MODE_WP)
        a.count("unregistered")
    return step


def faking_addresses(a):
    """Leases that are not where they are said to be, and events of what is no lease."""
    vm = a.vm(16 * MIB)
    l = vm.lease(0, 4 * MIB)
    other = libc.mmap(None, 4 * MIB, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    for gpa, address in ((32 * MIB, l.address), (64 * MIB, other), (96 * MIB, 0x7f0000000000)):
        false = vm.lease(gpa, MIB, activate=False)
        false.client.call("Activate", fds=[false.uffd], lease=false.number, address=address, user_mode_only=True)
        storm(a, false)
    uffdio(l.uffd, UFFDIO_REGISTER, other, 4 * MIB, MODE_MISSING)
    a.thread(lambda: libc.memset(other, 1, 4 * MIB))
    storm(a, l)

    def step():
        punch(l.fd, 0, l.size)
        for at in vm.leases[1:]:
            punch(at.fd, 0, at.size)
            a.call(at.client, "Populate", lease=at.number, offset=0, length=at.size)
            wake(at)
        uffdio(l.uffd, UFFDIO_WAKE, other, 4 * MIB)
    return step


def fault_storm(a):
    for l in [vm.lease(n << 32, MIB) for vm in (a.vm(16 * MIB), a.vm(16 * MIB)) for n in range(16)]:
        a.thread(lambda l=l: (libc.memset(l.address, 7, l.size), punch(l.fd, 0, l.size), a.count("touched_rounds")))
    return lambda: time.sleep(0.05)


# ---- its connections


def connections(a, n):
    """As many as it gets."""
    got = []
    for _ in range(n):
        with contextlib.suppress(OSError):
            got.append(Client(a.path, timeout=5))
            got[-1].socket.setblocking(False)
    return got


def send_some(client, data, fds=()):
    """Whether all of it was taken."""
    try:
        if fds:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("%di" % len(fds), *fds))]
            return client.socket.sendmsg([data], control) == len(data)
        return client.socket.send(data) == len(data)
    except BlockingIOError:
        return False


def slow_reader(a):
    one = b'{"method":"org.memctl.ShowConfig"}\0' * 50
    there = connections(a, 64)

    def step():
        for i, client in enumerate(there):
            try:
                a.count("taken", send_some(client, one))
            except OSError:
                a.count("disconnected")
                there[i] = (connections(a, 1) or [client])[0]
        time.sleep(0.01)
    return step


def again(a, there, bodies, wait=0.01):
    """Such pieces on all connections; who is disconnected comes again."""
    def step():
        for i, client in enumerate(there):
            try:
                a.count("taken", send_some(client, bodies[a.random.randrange(len(bodies))]))
                if select.select([client.socket], [], [], 0)[0] and not client.socket.recv(65536):
                    raise OSError(errno.EPIPE, "closed")
            except OSError:
                a.count("disconnected")
                client.close()
                there[i] = (connections(a, 1) or [client])[0]
        time.sleep(wait)
    return step


def half_messages(a):
    """As much as a message may have, but for its end, on every connection that it gets."""
    start = b'{"method":"org.memctl.ShowVm","parameters":{"vm":"'
    return again(a, connections(a, 400), [start + b"x" * 65000, b"x" * 65536, b"x"], wait=0.05)


def json_bombs(a):
    """What is short, and large when it has been read."""
    room = (256 << 10) - 100

    def body(inner):
        return b'{"method":"org.memctl.ShowVm","parameters":{"vm":' + inner + b"}}\0"

    bodies = [body(b"[" + b",".join([one] * (room // (len(one) + 1))) + b"]") for one in (b"{}", b"[]", b"0", b'""', b'{"a":{}}')]
    bodies.append(body(b"{" + b",".join(b'"%x":0' % i for i in range(24000)) + b"}"))
    bodies.append(body(b'"' + b"\\u0041" * (room // 6) + b'"'))
    bodies.append(body(b"[" * 30 + b"]" * 30))
    bodies.append(body(b"1" * room))
    # unread answers first: then the next call waits, whatever it has become
    ask = b'{"method":"org.memctl.ShowConfig"}\0' * 30
    there = [(client, []) for client in connections(a, 100)]

    def step():
        for i, (client, rest) in enumerate(there):
            if not rest:
                rest += [ask, a.random.choice(bodies)]
            try:
                sent = client.socket.send(rest[0])
                rest[0] = rest[0][sent:]
                a.count("bytes", sent)
                if not rest[0]:
                    rest.pop(0)
            except BlockingIOError:
                pass
            except OSError:
                a.count("disconnected")
                client.close()
                there[i] = ((connections(a, 1) or [client])[0], [])
        time.sleep(0.002)
    return step


def descriptor_flood(a):
    null = [os.open("/dev/null", os.O_RDWR)]
    there = connections(a, 64)
    calls = [b'{"method":"org.memctl.Status"}\0', b" ", b'{"method":"org.memctl.Lease","parameters":{"gpa":0,"size":4096}}\0']

    def step():
        for i, client in enumerate(there):
            try:
                send_some(client, a.random.choice(calls), null * a.random.choice((1, 4, 5, 16, 253)))
                a.count("sent")
                client.socket.recv(65536)
            except BlockingIOError:
                pass
            except OSError:
                a.count("disconnected")
                client.close()
                there[i] = (connections(a, 1) or [client])[0]
        time.sleep(0.01)
    return step


def odd_descriptors():
    """name -> descriptor of everything that is no userfaultfd and can be had; a FUSE file system that never answers is in the
    environment if there is one."""
    odd = {"pipe": os.pipe()[0], "device": os.open("/dev/zero", os.O_RDWR), "directory": os.open("/", os.O_RDONLY),
           "path": os.open("/", os.O_PATH), "memfd": os.memfd_create("anon_inode:[userfaultfd]"), "eventfd": os.eventfd(0),
           "epoll": select.epoll().fileno(), "socket": socket.socketpair()[0].detach(), "terminal": os.open("/dev/ptmx", os.O_RDWR),
           "listener": socket.socket(socket.AF_UNIX).detach()}
    fifo = "/tmp/memctl-fifo-%d" % os.getpid()
    os.mkfifo(fifo)
    odd["fifo"] = os.open(fifo, os.O_RDWR)
    os.unlink(fifo)
    if os.environ.get("MEMCTL_TEST_FUSE"):
        odd["fuse"] = os.open(os.environ["MEMCTL_TEST_FUSE"], os.O_PATH)
    return odd


def wrong_descriptors(a):
    odd = odd_descriptors()
    vm = a.vm()
    l = vm.lease(0, MIB, activate=False)
    # it is one, but nobody has made it ready, or it is of an address space that has gone
    odd_uffd = vm.lease(4 * MIB, MIB, activate=False)
    pair = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        socket.send_fds(pair[1], [b"x"], [userfaultfd()[0]])
        os._exit(0)
    os.waitpid(pid, 0)
    odd_uffd.uffd = socket.recv_fds(pair[0], 1, 1)[1][0]
    odd_uffd.activate()
    a.thread(lambda: a.call(odd_uffd.client, "Populate", lease=odd_uffd.number, offset=0, length=MIB))
    def step():
        """One VM after the other: who passes too many of them is ended."""
        a.names += 1
        try:
            with Client(a.path) as other:
                if a.call(other, "Register", name="bad-%d-odd-%d" % (a.uid, a.names), size=MIB):
                    return
                number = other.call("Lease", gpa=0, size=MIB)["lease"]
                for what, fd in a.random.sample(sorted(odd.items()), len(odd)):
                    if a.call(other, "Activate", [fd], lease=number, address=l.address) != "BadDescriptor":
                        a.count("accepted_" + what)
                    a.call(other, "ResumeLease", [fd], lease=number, address=l.address)
                    a.count("tried_" + what)
        except (OSError, Closed):
            a.count("ended")
        time.sleep(0.01)
    return step


def name_flood(a):
    there = Client(a.path)

    def step():
        for _ in range(20):
            a.names += 1
            with Client(a.path) as client:
                a.call(client, "Register", name="n%d-%d" % (a.uid, a.names), size=MIB)
            a.call(there, "ShowVm", vm="x%d" % a.random.randrange(1 << 60))
            a.call(there, "org.memctl.N%d" % a.random.randrange(1 << 60))
            a.count("names", 3)
        time.sleep(0.005)
    return step


def token_guessing(a):
    """Any number; its own and what is near it, of another VM of this user; the right one of another user."""
    own = a.vm()
    near = int(own.registered["token"], 16)
    stolen = os.environ.get("MEMCTL_TEST_TOKEN", "1")
    there = Client(a.path)

    def step():
        for token in ["%x" % a.random.randrange(1, 1 << 64) for _ in range(50)] + ["%x" % max(1, near + i) for i in (-1, 1)] + [stolen]:
            for method in ("Resume", "Attend"):
                there.send(method, {"token": token}, more=method == "Attend")
                try:
                    there.receive()
                    a.count("let_in")
                except Refused as e:
                    a.count("refused_" + e.name)
        a.count("guesses", 106)
        time.sleep(0.005)
    return step


def quota_evasion(a):
    """Whatever one connection may not have, many of several processes may."""
    held = []

    def take(path, n):
        for _ in range(n):
            client = Client(path)
            held.append(client)
            a.names += 1
            error = a.call(client, "Register", name="q%d-%d-%d" % (a.uid, os.getpid(), a.names), size=4 * MIB, reservation=MIB)
            if error:
                return error
        return None

    def step():
        for client in held:
            client.close()
        held.clear()
        # what it had before is released meanwhile
        for _ in range(3):
            with contextlib.suppress(OSError, Closed):
                a.count("evaded", take(a.path, 200) is None)
            time.sleep(0.05)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            error = "closed"
            with contextlib.suppress(OSError, Closed):
                error = take(a.path, 1) or "none"
            os.write(writer, error.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        a.count("second_process_" + os.read(reader, 99).decode())
        os.close(reader)
        os.close(writer)
        time.sleep(0.2)
    return step


# ---- its answers


class Sharer:
    """Shares with itself, so that orders come, and answers as it likes."""

    def __init__(self, a, answer):
        self.a, self.answer = a, answer
        self.vm = None

    def begin(self):
        vm = self.vm = self.a.vm(4 * MIB, sharing="vm")
        l = self.lease = vm.lease(0, 4 * MIB)
        vm.calls.call("JoinPool", maps=1000)
        self.pool = vm.calls.take_fd()
        orders = vm.attend()
        orders.socket.settimeout(None)
        content = os.urandom(PAGE)
        buffer = ctypes.create_string_buffer(content * 512)
        ctypes.memmove(l.address, buffer, 512 * PAGE)

        def obey():
            with contextlib.suppress(Closed, Refused, OSError):
                while True:
                    order = orders.receive()
                    self.a.count("orders")
                    self.answer(self, order)

        threading.Thread(target=obey, daemon=True).start()

    def done(self, order, bits, pages):
        self.a.count("answers")
        self.vm.calls.send("Done", {"order": order["order"], "bits": bits, "pages": pages}, oneway=True)

    def end(self):
        if self.vm:
            self.vm.calls.close()
            self.vm.orders.close()
            libc.munmap(self.lease.address, self.lease.size)
            for fd in (self.lease.uffd, self.lease.fd, self.pool):
                os.close(fd)
            self.vm.leases = []
        self.vm = None


def bits_of(n, one):
    return bytes(sum(one() << i for i in range(min(8, n - at))) for at in range(0, n, 8)).hex()


def sharer(a, answer, between):
    s = Sharer(a, answer)
    s.begin()
    balloon = {"on": False}

    def step():
        try:
            between(s, balloon)
        except (Closed, OSError, Refused) as e:
            a.count("ended_by_%s" % type(e).__name__)
            with contextlib.suppress(OSError):
                s.end()
            balloon["on"] = False
            s.begin()
        time.sleep(0.02)
    return step


def lying(a):
    """What is mapped, present, written to or in the balloon: all of it lies."""
    def answer(s, order):
        n = sum(r[1] for r in order["runs"])
        how = a.random.randrange(6)
        if how < 4:
            s.done(order, bits_of(n, [lambda: 0, lambda: 1][how] if how < 2 else lambda: a.random.randrange(2)),
                   a.random.choice((n, order["runs"][0][1])))
        elif how == 4:
            s.done(order, "zz", 1 << 62)

    def between(s, balloon):
        calls, l = s.vm.calls, s.lease
        if not balloon["on"]:
            calls.call("BalloonStart")
            balloon["on"] = True
        at = a.random.randrange(1000)
        a.call(calls, "BalloonInflate", lease=l.number, runs=[[at, 20]])
        a.call(calls, "BalloonDeflate", lease=l.number, runs=[[a.random.randrange(1000), 20]])
        libc.memset(l.address + a.random.randrange(1000) * PAGE, 5, 8 * PAGE)
        a.call(calls, "Done", order=a.random.randrange(1 << 60), bits="ff", pages=8)

    return sharer(a, answer, between)


def breaking(a):
    """Maps what it is told to, writes to all of it, and answers nothing that would bring it home."""
    def answer(s, order):
        n = sum(r[1] for r in order["runs"])
        if order["kind"] == "share":
            for page, count, to in order["runs"]:
                libc.mmap(s.lease.address + page * PAGE, count * PAGE, 3, 0x10 | mmap.MAP_PRIVATE, s.pool, to * PAGE)
                uffdio(s.lease.uffd, UFFDIO_REGISTER, s.lease.address + page * PAGE, count * PAGE, MODE_MISSING | MODE_WP)
                a.count("mapped", count)
            s.done(order, bits_of(n, lambda: 1), n)
        elif order["kind"] == "zap":
            s.vm.calls.send("Done", {"order": order["order"]}, oneway=True)

    def between(s, balloon):
        if "writer" not in balloon:
            balloon["writer"] = True
            a.thread(lambda: (libc.memset(s.lease.address, a.random.randrange(256), 512 * PAGE), time.sleep(0.5)))
        s.vm.calls.call("org.varlink.service.GetInfo")

    return sharer(a, answer, between)


# ---- lines


def cpu_ms():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))) * 1000


def spin(seconds, share):
    """This part of one processor."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.process_time()
        slice_begin = time.monotonic()
        while time.process_time() - begin < 0.005 * share:
            pass
        time.sleep(max(0, slice_begin + 0.005 - time.monotonic()))


def burn(ms, cpu):
    children = []
    for _ in range(int(cpu / ms - 0.001) + 1):
        pid = os.fork()
        if pid == 0:
            spin(ms / 1000, cpu / ms / (int(cpu / ms - 0.001) + 1))
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def main():
    path, attack, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    a = Attacker(path, uid)
    step = globals()[attack](a)
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        ms, began, steps = int(words[1]), cpu_ms(), 0
        a.counted = {}
        if words[0] == "burn":
            burn(ms, float(words[2]))
        else:
            a.on.set()
            end = time.monotonic() + ms / 1000
            while time.monotonic() < end:
                step()
                steps += 1
            a.on.clear()
        print(json.dumps(dict(a.counted, steps=steps, cpu_ms=round(cpu_ms() - began, 1))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
