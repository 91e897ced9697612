"""libmemctl.so by ctypes: the structs of memctl.h, the prototypes, and how a failure becomes an exception.

tests/ux/test_python.py holds each struct and constant against the header."""
from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_uint8, c_uint32, c_uint64, c_void_p
from enum import IntEnum

NO_LIMIT = (1 << 64) - 1


class FaultHandling(IntEnum):
    """What the userfaultfds of this process can do."""
    NONE = 0        #: plain memory, or no VM registered yet
    FULL = 1        #: all accesses, also by system calls and KVM
    USER_MODE = 2   #: accesses of this process in user mode only


class EventKind(IntEnum):
    """What an event tells; memctl.h, RESTART and BALLOON, has more."""
    DISCONNECTED = 1    #: memctld is gone; absent pages wait
    RECONNECTED = 2     #: it is back, and all is as before
    LOST = 3            #: it is back, and has this VM no more: end the guest
    RELEASED = 4        #: it has let the VM go: plain memory from now on
    STALLED = 5         #: threads wait for pages and none was served for longer than a second
    SERVED = 6          #: that is over
    BALLOON = 7         #: the balloon's target is another


class ErrorStruct(ctypes.Structure):
    _fields_ = [("name", c_char * 64), ("message", c_char * 320), ("need", c_uint64), ("have", c_uint64)]


class OptionsStruct(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("socket", c_char_p), ("timeout_ms", c_int), ("plain_fallback", c_int)]


class VmStruct(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("name", c_char_p), ("size", c_uint64), ("reservation", c_uint64), ("limit", c_uint64),
                ("shares", c_uint32), ("sharing", c_char_p), ("swap_dir", c_char_p), ("balloon_max", c_char_p),
                ("stall_budget", c_char_p)]


class EventStruct(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("kind", c_int), ("stalled_ms", c_uint64)]


class StatsStruct(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_uint64) for name in (
        "size", "leased", "resident", "compressed", "stored", "swapped", "zero", "pinned", "charged",
        "faults", "faults_zero", "faults_compressed", "faults_swapped", "evicted_pages", "shared", "saved")]


class Error(OSError):
    """The library or memctld said no.

    `errno` is the errno, `strerror` and `message` are one sentence that says what to do, `id` is the error of the contract
    ("org.memctl.NotEnoughMemory"; "org.memctl.Unreachable", "org.memctl.Timeout" and "org.memctl.System" are of this side), `need` and
    `have` are its numbers (bytes, where it is about memory; 0: none)."""

    def __init__(self, errno: int, message: str, id: str = "org.memctl.System", need: int = 0, have: int = 0) -> None:
        super().__init__(errno, message)
        self.message, self.id, self.need, self.have = message, id, need, have

    def __reduce__(self) -> tuple[type[Error], tuple[int | None, str, str, int, int]]:
        return type(self), (self.errno, self.message, self.id, self.need, self.have)

    def __str__(self) -> str:
        return "%s (%s)" % (self.message, self.id)


_E = POINTER(ErrorStruct)
_RANGE = (c_void_p, c_uint64, c_uint64, _E)
# name: (result, arguments)
_PROTOTYPES: dict[str, tuple[type[object] | None, tuple[object, ...]]] = {
    "memctl_version": (c_char_p, ()),
    "memctl_connect": (c_int, (POINTER(OptionsStruct), POINTER(c_void_p), _E)),
    "memctl_free": (None, (c_void_p,)),
    "memctl_is_plain": (c_int, (c_void_p, POINTER(c_char_p))),
    "memctl_fault_handling": (c_int, (c_void_p,)),
    "memctl_register": (c_int, (c_void_p, POINTER(VmStruct), _E)),
    "memctl_lease": (c_int, (c_void_p, c_uint64, c_uint64, POINTER(c_void_p), _E)),
    "memctl_release": (c_int, (c_void_p, _E)),
    "memctl_lease_address": (c_void_p, (c_void_p,)),
    "memctl_lease_gpa": (c_uint64, (c_void_p,)),
    "memctl_lease_size": (c_uint64, (c_void_p,)),
    "memctl_will_need": (c_int, _RANGE),
    "memctl_dont_need": (c_int, _RANGE),
    "memctl_discard": (c_int, _RANGE),
    "memctl_populate": (c_int, _RANGE),
    "memctl_pin": (c_int, _RANGE),
    "memctl_unpin": (c_int, _RANGE),
    # off_t has 64 bits wherever the library is built
    "memctl_read_into": (c_ssize_t, (c_void_p, c_uint64, c_uint64, c_int, c_int64)),
    "memctl_write_from": (c_ssize_t, (c_void_p, c_uint64, c_uint64, c_int, c_int64)),
    "memctl_balloon_start": (c_int, (c_void_p, _E)),
    "memctl_balloon_target": (c_uint64, (c_void_p,)),
    "memctl_balloon_poll": (c_int, (c_void_p, POINTER(c_uint64), _E)),
    "memctl_balloon_inflate": (c_ssize_t, (c_void_p, POINTER(c_uint64), c_size_t, POINTER(c_uint8), _E)),
    "memctl_balloon_deflate": (c_int, (c_void_p, POINTER(c_uint64), c_size_t, _E)),
    "memctl_fd": (c_int, (c_void_p,)),
    "memctl_dispatch": (c_int, (c_void_p, _E)),
    "memctl_helper_start": (c_int, (c_void_p, _E)),
    "memctl_helper_stop": (None, (c_void_p,)),
    "memctl_next_event": (c_int, (c_void_p, POINTER(EventStruct))),
    "memctl_stalled_ms": (c_uint64, (c_void_p,)),
    "memctl_stats": (c_int, (c_void_p, POINTER(StatsStruct), _E)),
    "memctl_call": (c_int, (c_void_p, c_char_p, c_char_p, POINTER(c_void_p), _E)),
}


def _load() -> ctypes.CDLL:
    """CDLL lets other threads of Python run during a call."""
    library = ctypes.CDLL("libmemctl.so.0")
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


library = _load()
_free = ctypes.CDLL(None).free
_free.restype, _free.argtypes = None, (c_void_p,)


def call(name: str, *arguments: object) -> int:
    """A function whose last argument is the error: its result, if that is not negative."""
    error = ErrorStruct()
    result = int(getattr(library, name)(*arguments, ctypes.byref(error)))
    if result < 0:
        message = error.message.decode(errors="replace") or os.strerror(-result)
        raise Error(-result, message, error.name.decode() or "org.memctl.System", error.need, error.have)
    return result


def text_of(pointer: c_void_p) -> str:
    """A malloc'ed text, freed."""
    try:
        return ctypes.string_at(pointer.value or 0).decode()
    finally:
        _free(pointer)


class Handle:
    """A pointer of the library that is not given back while a call uses it, in any thread, nor used in a forked child."""

    def __init__(self, pointer: c_void_p, what: str) -> None:
        self._pointer: c_void_p | None = pointer
        self._what = what
        self._lock = threading.Lock()
        self._users = 0
        self._pid = os.getpid()

    @property
    def open(self) -> bool:
        return self._pointer is not None and self._pid == os.getpid()

    @contextmanager
    def use(self) -> Iterator[c_void_p]:
        with self._lock:
            if self._pointer is None:
                raise ValueError("the %s was given back" % self._what)
            if self._pid != os.getpid():
                raise ValueError("the %s belongs to the parent process; a child connects anew" % self._what)
            pointer = self._pointer
            self._users += 1
        try:
            yield pointer
        finally:
            with self._lock:
                self._users -= 1

    def take(self) -> c_void_p | None:
        """Whoever gets it gives it back; None: somebody has."""
        with self._lock:
            if self._users:
                raise BufferError("the %s is in use by another thread" % self._what)
            pointer, self._pointer = self._pointer, None
            return pointer
