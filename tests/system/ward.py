#!/usr/bin/env python3
"""What memctld --supervise runs in tests/system/long_supervise.py instead of memctld: it speaks the same protocol, and does
what $WARD says: a JSON list of lives, each a list of steps; the last life is lived again and again.

    ["ready"]  ["stopping"]  ["send", TEXT]  ["keep", NAME, CONTENT]  ["drop", NAME]  ["barrier"]
    ["sleep", SECONDS]  ["feed", SECONDS]   WATCHDOG=1 every 0.1 s for so long
    ["wait"]                                for a signal, which is told
    ["stop"]                                SIGSTOP to itself
    ["stranger", TEXT]                      another process sends it
    ["exit", STATUS]  ["die", SIGNAL]

Each life and each step is told as a line of JSON in the file $WARD_TOLD."""
import array
import json
import os
import signal
import socket
import sys
import time


def tell(**what):
    with open(os.environ["WARD_TOLD"], "a") as f:
        f.write(json.dumps(dict(what, life=life, at=time.monotonic())) + "\n")


def send(text, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [],
                  0, os.environ["NOTIFY_SOCKET"])


def keep(name, content):
    fd = os.memfd_create("ward")
    os.pwrite(fd, content.encode(), 0)
    send("FDSTORE=1\nFDNAME=%s\nFDPOLL=0" % name, [fd])
    os.close(fd)


def inherited():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = os.environ["LISTEN_FDNAMES"].split(":")
    return [[name, os.pread(fd, 100, 0).decode()] for fd, name in enumerate(names[:int(os.environ["LISTEN_FDS"])], 3)]


def feed(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        send("WATCHDOG=1")
        time.sleep(0.1)


def wait():
    info = signal.sigwaitinfo(SIGNALS)
    tell(signal=info.si_signo)


def barrier():
    reader, writer = os.pipe()
    send("BARRIER=1", [writer])
    os.close(writer)
    os.read(reader, 1)


def stranger(text):
    pid = os.fork()
    if pid == 0:
        send(text)
        os._exit(0)
    os.waitpid(pid, 0)


STEPS = {
    "ready": lambda: send("READY=1"), "stopping": lambda: send("STOPPING=1"), "send": send, "keep": keep,
    "drop": lambda name: send("FDSTOREREMOVE=1\nFDNAME=" + name), "barrier": barrier, "sleep": time.sleep, "feed": feed,
    "wait": wait, "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP), "stranger": stranger, "exit": os._exit,
    "die": lambda sig: os.kill(os.getpid(), sig),
}
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}

signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
try:
    with open(os.environ["WARD_TOLD"]) as told:
        life = sum('"begin"' in line for line in told)
except OSError:
    life = 0
tell(begin=os.getpid(), args=sys.argv[1:], kept=inherited(), open=len(os.listdir("/proc/self/fd")) - 1,
     notify=os.environ["NOTIFY_SOCKET"],
     watchdog=os.environ.get("WATCHDOG_USEC") if os.environ.get("WATCHDOG_PID") == str(os.getpid()) else None)
lives = json.loads(os.environ["WARD"])
for step, *values in lives[min(life, len(lives) - 1)]:
    tell(step=step)
    STEPS[step](*values)
