#!/usr/bin/env python3
"""memctl run's balloon agent between a QEMU and a memctld that are both made here, so that each can be silent, wrong or gone;
and beside a real memctld, whose guest must not notice a QEMU that never answers."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import build_dir, wait_until  # noqa: E402
from system.puppet import MIB, daemon  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
PAGE = 4096
RAM = 512 * MIB
RESERVE = 32 * MIB      # of a guest of that size
UNKNOWN = 2 ** 64 - 1

# A QEMU that has nothing but a monitor.  It says in JSON lines what it is commanded, and obeys lines on stdin: "KEY VALUE"
# sets a number of its state, "say TEXT" sends text, "reset" is a reset.  `driver`: whether its guest has one; `gives`: how
# much that finds for a balloon; `mute`: nothing is answered.
FAKE_QEMU = r"""#!%s
import json, os, re, socket, sys, threading
state = {"driver": 1, "gives": %d, "mute": 0, "balloon": 0, "available": -1, "updates": 0}
ram, wanted, held = %d, 0, []
fd = next(int(re.search("fd=([0-9]+)", w)[1]) for w in sys.argv if w.startswith("socket,id=memctl-agent"))
monitor = socket.socket(fileno=fd)
lock = threading.Lock()
def say(**what):
    print(json.dumps(what), flush=True)
def send(what):
    if state["mute"]:
        held.append(what)
    else:
        monitor.sendall(json.dumps(what).encode() + b"\n")
def settle():
    if state["driver"]:
        state["balloon"] = min(wanted, state["gives"])
def answer(command, arguments):
    global wanted
    if command == "query-memory-size-summary":
        return {"base-memory": ram, "plugged-memory": 0}
    if command == "query-balloon":
        return {"actual": ram - state["balloon"]}
    if command == "qom-list":
        return [{"name": "bal", "type": "child<virtio-balloon-pci>"}] if arguments["path"].endswith("anon") else []
    if command == "qom-get":
        state["updates"] += 1
        n = state["available"]
        return {"last-update": state["updates"] if n >= 0 else 0, "stats": {
            "stat-available-memory": n if n >= 0 else 2 ** 64 - 1, "stat-total-memory": ram,
            "stat-free-memory": 2 ** 64 - 1}}
    if command == "balloon":
        wanted = ram - arguments["value"]
        settle()
    say(command=command, **arguments)
    return {}
def serve():
    send({"QMP": {"version": {}}})
    for line in monitor.makefile("rb"):
        q = json.loads(line)
        with lock:
            send({"timestamp": {}, "event": "BALLOON_CHANGE"})
            send({"return": answer(q["execute"], q.get("arguments", {})), "id": q["id"]})
say(argv=sys.argv)
%s
threading.Thread(target=serve, daemon=True).start()
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    with lock:
        if word == "say":
            monitor.sendall(rest.encode() + b"\n")
        elif word == "reset":
            send({"timestamp": {}, "event": "RESET"})
        elif word == "speak":
            state["mute"] = 0
            while held:
                send(held.pop(0))
        else:
            state[word] = int(rest)
            settle()
"""


class Memctld:
    """Answers what `memctl run` asks; `told` are the parameters of each BalloonAgent, by VM."""

    def __init__(self, folder):
        self.path, self.told, self.target, self.lines = os.path.join(folder, "memctld.sock"), {}, {}, []
        self.listener = None
        self.start()

    def start(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for line in self.lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        os.unlink(self.path)

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                self.lines.append(line)
                threading.Thread(target=self.serve, args=(line,), daemon=True).start()

    def serve(self, line):
        data = b""
        with contextlib.suppress(OSError):
            while more := line.recv(65536):
                data += more
                while b"\0" in data:
                    message, data = data.split(b"\0", 1)
                    line.sendall(json.dumps(self.answer(json.loads(message))).encode() + b"\0")

    def answer(self, call):
        if call["method"] != "org.memctl.BalloonAgent":
            return {"parameters": {"status": {}}}
        p = call["parameters"]
        self.told.setdefault(p["vm"], []).append(p)
        if p["vm"] not in self.target:
            return {"error": "org.memctl.NoSuchVm", "parameters": {"vm": p["vm"]}}
        return {"parameters": {"target": self.target[p["vm"]]}}

    def last(self, name):
        return self.told.get(name, [{"reachable": None, "size": None}])[-1]


class Qemu:
    def __init__(self, folder, name, memctld=None, options=(), environ=None, more=""):
        program = os.path.join(folder, "qemu-system-x86_64")
        with open(program, "w") as f:
            f.write(FAKE_QEMU % (sys.executable, RAM, RAM, more))
        os.chmod(program, 0o755)
        self.name, self.commands = name, []
        words = [MEMCTL, "run", *(["--socket", memctld.path] if memctld else []), "--name", name, *options,
                 "--", program, "-qmp", "unix:its-own"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=environ)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.commands.append(json.loads(line))

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def asked(self):
        """How large it was last asked to make its balloon, None: never."""
        return next((RAM - c["value"] for c in reversed(self.commands) if c.get("command") == "balloon"), None)

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(20)
        check_eq([status, self.process.stderr.read()], [0, ""], "exit of %s" % self.name)


class Stage(contextlib.ExitStack):
    def __enter__(self):
        super().__enter__()
        if "libasan" in subprocess.run(["ldd", MEMCTL], capture_output=True, text=True, check=False).stdout:
            skip("a sanitized library cannot be preloaded")
        self.folder = self.enter_context(tempfile.TemporaryDirectory())
        self.memctld = Memctld(self.folder)
        self.callback(self.memctld.stop)
        return self

    def qemu(self, name, target=0, **state):
        self.memctld.target[name] = target
        q = Qemu(self.folder, name, self.memctld, ["--mem", "512M"])
        self.callback(q.process.kill)
        for key, value in state.items():
            q.tell("%s %d" % (key, value))
        return q

    def until(self, q, condition, what):
        def come():
            check(q.process.poll() is None, "%s ended" % q.name)
            return condition(self.memctld.last(q.name))

        try:
            wait_until(come, 12, what)
        except Exception:
            print(q.name, self.memctld.told.get(q.name), q.commands, file=sys.stderr)
            raise

    def holds(self, q, size):
        """memctld is told so."""
        self.until(q, lambda last: last["reachable"] and last["size"] == size, "%s's balloon of %d" % (q.name, size))


def test_what_is_asked_is_commanded():
    """The size follows the target, over a restart of memctld and lines that are none of QMP's; what the guest does not know is
    not told."""
    with Stage() as s:
        q = s.qemu("obeys", 40 * MIB + 5, available=300 * MIB)
        s.holds(q, 40 * MIB)
        s.until(q, lambda last: "claims" in last, "claims")
        check_eq(s.memctld.last("obeys")["claims"], {"total_bytes": RAM, "available_bytes": 300 * MIB}, "claims")
        for line in ("{", "[]", "nothing", '{"return": {}, "id": 999999}', '{"id": "a"}', "[" * 5000, "x" * 300000,
                     '{"event": 7}', '{"a": %s}' % ("1" * 40)):
            q.tell("say " + line)
        s.memctld.stop()
        time.sleep(6.5)     # longer than the agent hears of a VM that is not known, until it lets the balloon go
        check_eq(q.asked(), 40 * MIB, "asked, without a memctld")
        s.memctld.target["obeys"] = 0
        s.memctld.start()
        s.holds(q, PAGE)
        del s.memctld.target["obeys"]       # memctld does not know it any more
        q.end()


def test_a_guest_keeps_a_reserve():
    """It is asked for no more than it has to spare, and for less when that shrinks; who does not tell is asked for all."""
    with Stage() as s:
        tells = s.qemu("tells", 300 * MIB, available=100 * MIB, gives=0)
        silent = s.qemu("silent", 300 * MIB)
        s.holds(silent, 300 * MIB)
        s.until(tells, lambda _: tells.asked() == 100 * MIB - RESERVE, "the question for what it has to spare")
        # as the balloon takes it, the guest has less
        tells.tell("available 32000000")
        tells.tell("gives %d" % RAM)
        s.until(tells, lambda last: last["size"] and 60 * MIB < last["size"] < 70 * MIB, "what it has to spare")
        tells.tell("available %d" % (8 * MIB))
        s.until(tells, lambda last: last["size"] < 45 * MIB, "what it needs back")
        tells.tell("available -1")
        tells.end()
        silent.end()


def test_whether_there_is_a_driver():
    """None is reported until a page was taken; and after a reset, whatever the size is then, until the next one reports."""
    with Stage() as s:
        none = s.qemu("none", 64 * MIB, driver=0)
        boots = s.qemu("boots", 64 * MIB)
        idle = s.qemu("idle", 0)
        s.holds(boots, 64 * MIB)
        s.holds(idle, PAGE)
        for q in (boots, idle):
            q.tell("driver 0")
            q.tell("reset")
            s.until(q, lambda last: not last["reachable"] and last["size"] == 0, "nobody in reach")
            q.tell("driver 1")
        s.until(idle, lambda last: last["reachable"] and last["size"] <= 2 * PAGE, "the next driver")
        s.until(boots, lambda last: last["reachable"] and 64 * MIB <= last["size"] <= 64 * MIB + PAGE, "the next driver")
        told = s.memctld.told["none"]
        check(len(told) > 2 and not any(t["reachable"] or t["size"] for t in told), "a guest without a driver: %s" % told)
        check_eq(none.asked(), 64 * MIB, "asked of it")


def test_a_qemu_that_is_silent():
    """It is out of reach after a while, which memctld is told each second; replies that come late are taken.  Meanwhile signals
    and the end are as ever."""
    with Stage() as s:
        q = s.qemu("late", 16 * MIB)
        never = s.qemu("never", 16 * MIB, mute=1)
        s.holds(q, 16 * MIB)
        q.tell("mute 1")
        s.until(q, lambda last: not last["reachable"], "silence")
        n = len(s.memctld.told["late"])
        s.until(q, lambda last: len(s.memctld.told["late"]) > n + 1, "the next rounds")
        s.memctld.target["late"] = 24 * MIB
        q.tell("speak")
        s.holds(q, 24 * MIB)
        check(not any(t["reachable"] for t in s.memctld.told["never"]), "it never was in reach")
        never.process.send_signal(signal.SIGTERM)
        check_eq(never.process.wait(10), 128 + signal.SIGTERM, "exit")
        q.end()


def test_no_agent():
    """Where the user wants none."""
    for options in ("--no-balloon", "--no-qmp"):
        result = subprocess.run([MEMCTL, "run", "--name", "a", "--mem", "1G", "--print", options, "--", "qemu-system-x86_64",
                                 "-device", "virtio-balloon-pci"], capture_output=True, text=True, check=False)
        check_eq([result.returncode, "memctl-agent" in result.stdout], [0, False], options)


def test_no_page_waits_for_qmp():
    """Guest memory that does not fit, all of it right, while QEMU's monitor is never answered."""
    # QEMU's memory is mapped by who maps the memfd of this name
    more = """
import mmap, zlib
memory = os.memfd_create("memory-backend-memfd"); os.ftruncate(memory, 48 << 20)
guest = mmap.mmap(memory, 48 << 20)
pages = [(b"%d " % i).ljust(2048) + os.urandom(2048) for i in range(64)]
state["mute"] = 1
def work():
    for i in range(12288):
        guest[i * 4096:(i + 1) * 4096] = pages[i * 7 % 64]
    say(wrong=sum(guest[i * 4096:(i + 1) * 4096] != pages[i * 7 % 64] for i in range(12288)))
threading.Thread(target=work).start()
"""
    with daemon(32) as d, tempfile.TemporaryDirectory() as folder:
        q = Qemu(folder, "mute", options=["--mem", "48M"], environ=d.environ(), more=more)
        try:
            wait_until(lambda: any("wrong" in c for c in q.commands) or q.process.poll() is not None, 30, "its work")
            check(q.process.poll() is None, "it ended: %s" % q.process.stderr.read() if q.process.poll() is not None else "")
            check_eq([c["wrong"] for c in q.commands if "wrong" in c], [0], "wrong pages")
            d.audit()
            check_eq(q.asked(), None, "asked")
            q.end()
        finally:
            q.process.kill()


if __name__ == "__main__":
    main(globals())
