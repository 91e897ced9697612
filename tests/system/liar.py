#!/usr/bin/env python3
"""A client of a sharing group that does not do what it is ordered, without any library; tests/system/long_share_clients.py
drives it by lines.  It never touches its memory while a thread has to answer orders: a fault would hold the interpreter.

    liar.py SOCKET NAME PAGES FILE HOW	FILE has the content of its pages

HOW: honest_word  says that all was mapped and is clean, and maps nothing
     all_dirty    the same, and that each page was written to meanwhile
     garbage      random bits, and numbers of pages that are none of the order's
     silent       answers nothing
     skip         leaves each second order unanswered and answers the next one
     partial      says that it could do the first run only
     none         says that it could do nothing
     wrong_order  answers orders that do not exist
     home_only    maps as ordered, and lies about bringing home
Lines in: "touch" reads all its pages in a thread, "quit".  Lines out: "ready", "touched N", "order KIND PAGES", "closed"."""
import ctypes
import mmap
import os
import random
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from wire.client import PAGE, Closed, Refused, Vm  # noqa: E402

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
FIXED_PRIVATE = 0x10 | mmap.MAP_PRIVATE


def hex_bits(bits):
    return bytes(sum(b << i for i, b in enumerate(bits[at:at + 8])) for at in range(0, len(bits), 8)).hex()


class Liar:
    def __init__(self, path, name, pages, file, how):
        self.how = how
        self.vm = Vm(path, name, pages * PAGE, sharing="group:g")
        self.lease = self.vm.lease(0, pages * PAGE)
        self.vm.calls.call("JoinPool", maps=50)
        self.pool = self.vm.calls.take_fd()
        self.orders = self.vm.attend()
        self.orders.socket.settimeout(None)
        with open(file, "rb") as f:
            self.content = f.read(pages * PAGE)
        # nothing is ordered before there is something to share
        self.lease.memory[0:len(self.content)] = self.content
        self.number = 0
        self.random = random.Random(1)

    def say(self, line):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def done(self, order, bits=None, pages=None):
        parameters = {"order": order}
        if bits is not None:
            parameters["bits"] = bits
        if pages is not None:
            parameters["pages"] = pages
        self.vm.calls.send("Done", parameters, oneway=True)

    def map_runs(self, runs):
        for page, count, to in runs:
            libc.mmap(self.lease.address + page * PAGE, count * PAGE, 3, FIXED_PRIVATE, self.pool, to * PAGE)

    def answer(self, order):
        kind, runs, number = order["kind"], order["runs"], order["order"]
        n = sum(r[1] for r in runs)
        self.number += 1
        all_set, remap = hex_bits([1] * n), kind in ("share", "home")
        self.say("order %s %d" % (kind, n))
        if self.how == "silent" or (self.how == "skip" and self.number % 2):
            return
        if self.how == "wrong_order":
            self.done(number + 1000, all_set, n)
        elif kind == "zap":
            self.done(number)
        elif not remap:
            # what it has is no matter of others; an audit would say of a private copy that nobody is charged for it
            self.done(number, hex_bits([kind == "present"] * n))
        elif self.how == "all_dirty":
            self.done(number, hex_bits([0] * n), n)
        elif self.how == "partial":
            self.done(number, all_set, runs[0][1])
        elif self.how == "none":
            self.done(number, None, 0)
        elif self.how == "garbage":
            self.done(number, "".join(self.random.choice("0123456789abcdefXYZ") for _ in range(self.random.randrange(300))),
                      self.random.choice((0, 1, n, n + 1, 2 ** 40, 2 ** 64 - 1)))
        elif self.how == "home_only":
            if kind == "share":
                self.map_runs(runs)
            self.done(number, all_set, n)
        else:
            self.done(number, all_set, n)

    def obey(self):
        try:
            while True:
                self.answer(self.orders.receive())
        except (Closed, Refused, OSError) as e:
            self.say("closed %s" % type(e).__name__)

    def touch(self):
        """By a call that lets go of the interpreter, since it may wait for ever."""
        wrong = 0
        for page in range(self.lease.size // PAGE):
            at = self.content[page * PAGE:(page + 1) * PAGE]
            wrong += libc.memcmp(self.lease.address + page * PAGE, at, PAGE) != 0
        self.say("touched %d" % wrong)


def main():
    path, name, pages, file, how = sys.argv[1:]
    liar = Liar(path, name, int(pages), file, how)
    threading.Thread(target=liar.obey, daemon=True).start()
    liar.say("ready")
    for line in sys.stdin:
        if line == "touch\n":
            threading.Thread(target=liar.touch, daemon=True).start()
        elif line == "quit\n":
            break
    os._exit(0)


if __name__ == "__main__":
    main()
