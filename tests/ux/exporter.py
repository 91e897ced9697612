"""memctl-exporter, a socket to talk to it by hand, and a memctld whose questions are counted."""
import os
import select
import socket
import subprocess
import threading

from lib.daemon import SLOW, build_dir, wait_until


class Exporter:
    """Listens on a socket of ours, which it is started with as systemd does (LISTEN_FDS); `args` are added to its command line."""

    def __init__(self, memctld, *args, stderr=None):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.command = [os.path.join(build_dir(), "cli", "memctl-exporter"), "--socket", memctld, *args]
        self.stderr = stderr
        self.process = None

    def start(self):
        """The sockets are from descriptor 3 on, and LISTEN_PID is the process itself: so it is a shell that says it."""
        def prepare():
            os.dup2(self.listener.fileno(), 3)
            os.set_inheritable(3, True)
        self.process = subprocess.Popen(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *self.command], preexec_fn=prepare,
                                        pass_fds=[3], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr)
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.process.terminate()
        status = self.process.wait(20 * SLOW)
        self.listener.close()
        assert status == 0, "the exporter ended with %d" % status

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port))
        s.settimeout(30 * SLOW)
        return s

    def say(self, request, end=False):
        """All that comes back until it hangs up."""
        with self.connect() as s:
            s.sendall(request)
            if end:
                s.shutdown(socket.SHUT_WR)
            return hear(s)

    def get(self, path="/metrics", accept=None, method="GET"):
        """(code, {header: value}, body)"""
        request = "%s %s HTTP/1.1\r\nHost: localhost\r\n" % (method, path)
        if accept is not None:
            request += "Accept: %s\r\n" % accept
        return parse(self.say(request.encode() + b"\r\n"))


def hear(s):
    out = b""
    while True:
        try:
            data = s.recv(1 << 16)
        except ConnectionResetError:
            return out
        if not data:
            return out
        out += data


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


class Counter:
    """A socket before memctld's that counts connections, of which the exporter makes one a question, and how many there were at
    once.  `hold()`: nothing is passed on until `release()`."""

    def __init__(self, directory, memctld):
        self.path = os.path.join(directory, "counted.sock")
        self.memctld = memctld
        self.count = self.now = self.most = 0
        self.lock = threading.Lock()
        self.open = threading.Event()
        self.open.set()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self):
        self.open.clear()

    def release(self):
        self.open.set()

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            with self.lock:
                self.count += 1
                self.now += 1
                self.most = max(self.most, self.now)
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        self.open.wait()
        try:
            with client, socket.socket(socket.AF_UNIX) as server:
                server.connect(self.memctld)
                other = {client: server, server: client}
                while True:
                    for s in select.select([client, server], [], [])[0]:
                        data = s.recv(1 << 16)
                        if not data:
                            return
                        other[s].sendall(data)
        except OSError:
            pass
        finally:
            with self.lock:
                self.now -= 1

    def wait_for(self, count):
        wait_until(lambda: self.count >= count, 20, "question %d" % count)
