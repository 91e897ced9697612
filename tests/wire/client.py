"""A client of memctld in another language, without any library: proof that the contract says all there is to know.

    c = Client(socket_path)
    c.call("org.memctl.Status")                  # -> parameters of the reply; raises Refused
    vm = Vm(socket_path, name="a", size=1 << 20)  # registers
    lease = vm.lease(0, 1 << 20)                 # leases, maps, registers with userfaultfd, activates
    lease.memory[0:4096]                         # served by memctld
"""
import array
import ctypes
import fcntl
import json
import mmap
import os
import socket
import struct

PAGE = 4096
PREFIX = "org.memctl."


class Refused(Exception):
    """An error reply: .name without "org.memctl.", .parameters."""

    def __init__(self, name, parameters):
        super().__init__("%s %s" % (name, parameters))
        self.name = name[len(PREFIX):] if name.startswith(PREFIX) else name
        self.parameters = parameters


class Closed(Exception):
    """memctld has closed the connection."""


class Client:
    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer = b""
        self.fds = []

    def close(self):
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- bytes

    def send_bytes(self, data, fds=()):
        """One sendmsg for the first part, so that descriptors go with their message."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], control)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive_bytes(self):
        """The next message without its NUL; descriptors are kept in self.fds."""
        while b"\0" not in self.buffer:
            try:
                data, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                raise Closed() from None
            for level, kind, content in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(content[:len(content) - len(content) % fds.itemsize])
                    self.fds += fds
            if not data:
                raise Closed()
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return message

    # -- messages

    def send(self, method, parameters=None, fds=(), **flags):
        method = method if "." in method else PREFIX + method
        message = dict(method=method, parameters=parameters or {}, **flags)
        self.send_bytes(json.dumps(message).encode() + b"\0", fds)

    def receive(self):
        """Parameters of the next reply; raises Refused for an error."""
        reply = json.loads(self.receive_bytes())
        if "error" in reply:
            raise Refused(reply["error"], reply.get("parameters", {}))
        return reply.get("parameters", {})

    def call(self, method, fds=(), **parameters):
        self.send(method, parameters, fds)
        return self.receive()

    def take_fd(self):
        return self.fds.pop(0)


# -- userfaultfd, by its system call numbers (x86-64, aarch64)

SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
UFFD_USER_MODE_ONLY = 1
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_UNREGISTER = 0xC018AA3F, 0xC020AA00, 0x8010AA01
FEATURE_PAGEFAULT_FLAG_WP, FEATURE_WP_SHMEM = 1 << 0, 1 << 12
MODE_MISSING, MODE_WP = 1, 2
MADV_NOHUGEPAGE, MADV_DONTFORK = 15, 10
libc = ctypes.CDLL(None, use_errno=True)


class NoUserfaultfd(Exception):
    """This process may not have one."""


def userfaultfd():
    """(fd, user_mode_only)"""
    for flags in (0, UFFD_USER_MODE_ONLY):
        fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | flags)
        if fd >= 0:
            fcntl.ioctl(fd, UFFDIO_API, struct.pack("QQQ", 0xAA, FEATURE_PAGEFAULT_FLAG_WP | FEATURE_WP_SHMEM, 0))
            return fd, bool(flags)
    raise NoUserfaultfd(os.strerror(ctypes.get_errno()))


class Lease:
    """A mapped, registered, activated lease."""

    def __init__(self, client, gpa, size, activate=True):
        self.client = client
        self.size = size
        self.number = client.call("Lease", gpa=gpa, size=size)["lease"]
        self.fd = client.take_fd()
        self.memory = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.memory.madvise(MADV_NOHUGEPAGE)
        self.memory.madvise(MADV_DONTFORK)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.uffd, self.user_mode_only = userfaultfd()
        fcntl.ioctl(self.uffd, UFFDIO_REGISTER, struct.pack("QQQQ", self.address, size, MODE_MISSING | MODE_WP, 0))
        if activate:
            self.activate()

    def activate(self):
        self.client.call("Activate", fds=[self.uffd], lease=self.number, address=self.address,
                         user_mode_only=self.user_mode_only)

    def page(self, n):
        return self.memory[n * PAGE:(n + 1) * PAGE]

    def write_page(self, n, content):
        self.memory[n * PAGE:(n + 1) * PAGE] = content

    def close(self):
        """As the end of the process would: nothing of it stays."""
        os.close(self.uffd)
        os.close(self.fd)
        # the mapping goes with the last view of it; an exported buffer keeps Python from closing it earlier
        libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size))
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size), 0, 0x32, -1, ctypes.c_long(0))


class Vm:
    """A registered VM; its calls go through .calls."""

    def __init__(self, path, name, size, **more):
        self.path = path
        self.name = name
        self.calls = Client(path)
        self.orders = None
        self.leases = []
        self.registered = self.calls.call("Register", name=name, size=size, **more)

    def lease(self, gpa, size, activate=True):
        self.leases.append(Lease(self.calls, gpa, size, activate))
        return self.leases[-1]

    def attend(self):
        self.orders = Client(self.path)
        self.orders.send("Attend", {"token": self.registered["token"]}, more=True)
        return self.orders

    def close(self):
        self.calls.close()
        if self.orders:
            self.orders.close()
        for l in self.leases:
            l.close()
        self.leases = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
