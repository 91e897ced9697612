#!/usr/bin/env python3
"""A guest for the tour of README.md: `guest.py MIB` fills so much memory, and compares all of it at each SIGUSR1.

Nothing in it knows of memctl: it makes a memfd called "ram" and maps it shared, as emulators do."""
import hashlib
import mmap
import os
import signal
import sys

PAGE = 4096
pages = int(sys.argv[1]) * 256
fd = os.memfd_create("ram")
os.ftruncate(fd, pages * PAGE)
ram = mmap.mmap(fd, pages * PAGE)


def content(n):
    """A third of it cannot be compressed."""
    return hashlib.shake_128(b"%d %d" % (os.getpid(), n)).digest(PAGE // 3).ljust(PAGE, b".")


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
for n in range(pages):
    ram[n * PAGE:(n + 1) * PAGE] = content(n)
print("%d pages written" % pages, flush=True)
while signal.sigwait([signal.SIGUSR1, signal.SIGTERM]) == signal.SIGUSR1:
    wrong = sum(ram[n * PAGE:(n + 1) * PAGE] != content(n) for n in range(pages))
    print("%d pages read, %d wrong" % (pages, wrong), flush=True)
