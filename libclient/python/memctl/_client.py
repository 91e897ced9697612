"""A connection, and leases of guest memory as buffers.

Lifetime.  A view of a lease (a memoryview, and whatever is made of it: slices, casts, arrays of numpy) refers to a small object
of ours, the exporter of the buffer, and that to its lease, and that to its connection.  The lease knows its exporters by weak
references.  So nothing is unmapped under a view: to release a lease, or close a connection, of which there are views is refused
(BufferError), and who drops everything but a view keeps the rest alive by it."""
from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from ctypes import byref, c_char_p, c_uint8, c_uint64, c_void_p, sizeof
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Protocol

from memctl._native import (NO_LIMIT, Error, EventKind, EventStruct, FaultHandling, Handle, OptionsStruct, StatsStruct, VmStruct,
                            call, library, text_of)

PAGE = 4096


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


@dataclass(frozen=True)
class Event:
    """What `Memctl.events` gives; `stalled_ms` is of STALLED and SERVED."""
    kind: EventKind
    stalled_ms: int = 0


@dataclass(frozen=True)
class Stats:
    """The VM's own numbers; bytes, but for what counts faults and pages."""
    size: int
    leased: int
    resident: int
    compressed: int
    stored: int
    swapped: int
    zero: int
    pinned: int
    charged: int
    faults: int
    faults_zero: int
    faults_compressed: int
    faults_swapped: int
    evicted_pages: int
    shared: int
    saved: int


def version() -> str:
    """The library's version."""
    return str(library.memctl_version().decode())


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


class Memctl:
    """A connection to memctld, and the VM registered on it.

    `socket` None: $MEMCTL_SOCKET, else /run/memctl/memctld.sock.  `timeout` in seconds is how long a call may take; None: for ever.  With
    `plain_fallback` it goes on without memctld, with memory that nobody manages (`plain`).

    Raises Error.  Any thread may call; a forked child may not.  Use it with `with`, or call close(): the VM ends then.

    Guest memory is touched by Python with its global lock held, and a page that is not there is waited for so.  Therefore
    let the library's own thread carry out memctld's orders (helper_start), which needs no lock; sharing begins only then."""

    def __init__(self, socket: str | None = None, *, timeout: float | None = 10.0, plain_fallback: bool = False) -> None:
        options = OptionsStruct(sizeof(OptionsStruct), _bytes(socket), -1 if timeout is None else max(1, round(timeout * 1000)),
                                int(plain_fallback))
        pointer = c_void_p()
        call("memctl_connect", byref(options), byref(pointer))
        self._handle = Handle(pointer, "connection")
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._helper = False

    def close(self) -> None:
        """Release every lease and unregister the VM.  Twice is fine.  BufferError, and nothing is done: there are views."""
        if not self._handle.open:
            return
        leases = [lease for lease in self._leases if lease._handle.open]
        for lease in leases:
            lease._check_views()
        for lease in leases:
            lease.release()
        pointer = self._handle.take()
        if pointer is not None:
            library.memctl_free(pointer)

    def __enter__(self) -> Memctl:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        # at the end of the process memctld takes all back by itself
        handle = getattr(self, "_handle", None)
        if handle is not None and handle.open and not sys.is_finalizing():
            library.memctl_free(handle.take())

    # ---- the VM

    def register(self, name: str, size: int, *, reservation: int = 0, limit: int = NO_LIMIT, shares: int = 0,
                 sharing: str | None = None, swap_dir: str | None = None, balloon_max: str | None = None,
                 stall_budget: str | None = None) -> None:
        """Once a connection: a VM whose leases may add up to `size` bytes.  The rest is as in memctl.h: `sharing` "off", "zero", "vm",
        "group:NAME"; `balloon_max` "512M", "40%"; `stall_budget` "3%"; None: the host's default."""
        vm = VmStruct(sizeof(VmStruct), name.encode(), size, reservation, limit, shares, _bytes(sharing), _bytes(swap_dir),
                      _bytes(balloon_max), _bytes(stall_budget))
        with self._handle.use() as m:
            call("memctl_register", m, byref(vm))

    def lease(self, gpa: int, size: int) -> Lease:
        """Guest-physical [gpa, gpa + size), multiples of 4096, filled with zeros."""
        pointer = c_void_p()
        with self._handle.use() as m:
            call("memctl_lease", m, gpa, size, byref(pointer))
            lease = Lease(self, pointer)
            self._leases.add(lease)
        return lease

    @property
    def plain(self) -> str | None:
        """Why this is plain memory that nobody manages; None: it is not."""
        why = c_char_p()
        with self._handle.use() as m:
            return (why.value or b"").decode() if library.memctl_is_plain(m, byref(why)) else None

    @property
    def fault_handling(self) -> FaultHandling:
        """Known once a VM is registered."""
        with self._handle.use() as m:
            return FaultHandling(library.memctl_fault_handling(m))

    # ---- orders and events

    def helper_start(self) -> None:
        """A thread of the library's that carries out memctld's orders until close()."""
        with self._handle.use() as m:
            call("memctl_helper_start", m)
            self._helper = True

    def helper_stop(self) -> None:
        with self._handle.use() as m:
            library.memctl_helper_stop(m)
            self._helper = False

    def fileno(self) -> int:
        """Readable when dispatch() has something to do, once a second at least; for select and asyncio, without the helper.  The
        library's: do not close it.  ValueError: there is none before register(), nor for plain memory."""
        with self._handle.use() as m:
            fd = int(library.memctl_fd(m))
        if fd < 0:
            raise ValueError("there is nothing to wait for before register(), nor with plain memory")
        return fd

    def dispatch(self) -> int:
        """Carry out what memctld has ordered.  How many orders; Error with ENOTCONN: the VM is lost."""
        with self._handle.use() as m:
            return call("memctl_dispatch", m)

    def events(self) -> Iterator[Event]:
        """Those that have come, the oldest first; ends when there are no more.  Never blocks."""
        event = EventStruct(sizeof(EventStruct))
        while True:
            with self._handle.use() as m:
                if library.memctl_next_event(m, byref(event)) <= 0:
                    return
            if event.kind in EventKind._value2member_map_:    # a newer library may have more
                yield Event(EventKind(event.kind), event.stalled_ms)

    async def watch(self) -> AsyncIterator[Event]:
        """The events to come, for ever; with no helper it dispatches meanwhile, in this loop."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        fd = None if self._helper else self.fileno()
        if fd is not None:
            loop.add_reader(fd, ready.set)
        try:
            while True:
                try:
                    # the helper queues events without a sign
                    await asyncio.wait_for(ready.wait(), None if fd is not None else 0.1)
                except asyncio.TimeoutError:
                    pass
                ready.clear()
                if fd is not None:
                    self.dispatch()
                for event in self.events():
                    yield event
        finally:
            if fd is not None:
                loop.remove_reader(fd)

    @property
    def stalled_ms(self) -> int:
        """For how long threads have been waiting for pages of which none was served; 0: it is not so."""
        with self._handle.use() as m:
            return int(library.memctl_stalled_ms(m))

    # ---- the balloon

    def balloon_start(self) -> None:
        """A driver is there, and knows of no page in the balloon."""
        with self._handle.use() as m:
            call("memctl_balloon_start", m)

    @property
    def balloon_target(self) -> int:
        """How many bytes the balloon should hold, as memctld said last."""
        with self._handle.use() as m:
            return int(library.memctl_balloon_target(m))

    def balloon_poll(self) -> int:
        """The same, asked of memctld."""
        target = c_uint64()
        with self._handle.use() as m:
            call("memctl_balloon_poll", m, byref(target))
        return target.value

    # ---- numbers, and calls of operators

    def stats(self) -> Stats:
        stats = StatsStruct(sizeof(StatsStruct))
        with self._handle.use() as m:
            call("memctl_stats", m, byref(stats))
        return Stats(**{f.name: getattr(stats, f.name) for f in fields(Stats)})

    def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Any method of org.memctl, "org.memctl.ListVms"; the parameters of the reply.  Needs no VM."""
        reply = c_void_p()
        text = None if parameters is None else json.dumps(parameters).encode()
        with self._handle.use() as m:
            call("memctl_call", m, method.encode(), text, byref(reply))
        answer: dict[str, Any] = json.loads(text_of(reply))
        return answer


class Lease:
    """Guest-physical memory.  Made by Memctl.lease; use it with `with`, or call release()."""

    def __init__(self, memctl: Memctl, pointer: c_void_p) -> None:
        self._memctl = memctl
        self._handle = Handle(pointer, "lease")
        self._address = int(library.memctl_lease_address(pointer))
        self._gpa = int(library.memctl_lease_gpa(pointer))
        self._size = int(library.memctl_lease_size(pointer))
        # by id: arrays have no hash
        self._exporters: weakref.WeakValueDictionary[int, ctypes.Array[c_uint8]] = weakref.WeakValueDictionary()
        # has a dictionary, so it can refer to its lease
        self._exporter_type: Any = type("Exporter", (c_uint8 * self._size,), {})

    @property
    def address(self) -> int:
        """Where it is mapped, for uc_mem_map_ptr and the like.  Who has only the number keeps nothing alive: the lease must outlive its
        use."""
        return self._address

    @property
    def gpa(self) -> int:
        return self._gpa

    def __len__(self) -> int:
        return self._size

    def view(self) -> memoryview:
        """All of it as a writable buffer of bytes.  A page that is not there is brought in when it is touched."""
        with self._handle.use():
            exporter = self._exporter_type.from_address(self._address)
            exporter.lease = self
            self._exporters[id(exporter)] = exporter
            return memoryview(exporter).cast("B")

    def release(self) -> None:
        """Give it back.  Twice is fine.  BufferError, and nothing is done: there are views, or another thread is in a call."""
        if not self._handle.open:
            return
        self._check_views()
        pointer = self._handle.take()
        if pointer is None:
            return
        try:
            self._check_views()
        except BufferError:
            # one that was made meanwhile
            self._handle = Handle(pointer, "lease")
            raise
        call("memctl_release", pointer)

    def _check_views(self) -> None:
        if len(self._exporters):
            gc.collect()    # those in cycles that nobody has any more
        if len(self._exporters):
            raise BufferError("the lease at %#x has views: release() them, or let them go, first" % self._gpa)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def __del__(self) -> None:
        # the connection, when it was freed, has freed its leases
        handle = getattr(self, "_handle", None)
        if handle is not None and handle.open and self._memctl._handle.open and not sys.is_finalizing():
            library.memctl_release(handle.take(), None)

    # ---- ranges, in bytes; length None: to its end

    def _range(self, name: str, offset: int, length: int | None) -> None:
        with self._handle.use() as pointer:
            call(name, pointer, offset, self._size - offset if length is None else length)

    def will_need(self, offset: int = 0, length: int | None = None) -> None:
        """A hint: used soon."""
        self._range("memctl_will_need", offset, length)

    def dont_need(self, offset: int = 0, length: int | None = None) -> None:
        """A hint: not used soon; content is kept."""
        self._range("memctl_dont_need", offset, length)

    def discard(self, offset: int = 0, length: int | None = None) -> None:
        """The content is of no value: zeros from now on, which cost nothing."""
        self._range("memctl_discard", offset, length)

    def populate(self, offset: int = 0, length: int | None = None) -> None:
        """Bring it in, and wait for that.  It may be taken again."""
        self._range("memctl_populate", offset, length)

    def pin(self, offset: int = 0, length: int | None = None) -> None:
        """Bring it in and keep it until unpin(), at most as much as the VM's reservation."""
        self._range("memctl_pin", offset, length)

    def unpin(self, offset: int = 0, length: int | None = None) -> None:
        self._range("memctl_unpin", offset, length)

    # ---- files

    def read_into(self, file: int | _HasFileno, offset: int = 0, length: int | None = None, file_offset: int = -1) -> int:
        """read(2) from a file into guest memory, right under every kind of fault handling.  How many bytes.  file_offset -1: the file's
        own position."""
        return self._transfer("memctl_read_into", file, offset, length, file_offset)

    def write_from(self, file: int | _HasFileno, offset: int = 0, length: int | None = None, file_offset: int = -1) -> int:
        """write(2) of guest memory to a file."""
        return self._transfer("memctl_write_from", file, offset, length, file_offset)

    def _transfer(self, name: str, file: int | _HasFileno, offset: int, length: int | None, file_offset: int) -> int:
        fd = file if isinstance(file, int) else file.fileno()
        with self._handle.use() as pointer:
            n = int(getattr(library, name)(pointer, offset, self._size - offset if length is None else length, fd, file_offset))
        if n < 0:
            raise OSError(-n, "%s" % name)
        return n

    # ---- the balloon

    def inflate(self, pages: Sequence[int]) -> list[int]:
        """Pages (offset / 4096) that the guest gives; those that were refused, which it keeps.  memctl.h, BALLOON, says what holds after an
        Error."""
        numbers = (c_uint64 * len(pages))(*pages)
        refused = (c_uint8 * len(pages))()
        with self._handle.use() as pointer:
            call("memctl_balloon_inflate", pointer, numbers, len(pages), refused)
        return [page for page, no in zip(pages, refused) if no]

    def deflate(self, pages: Sequence[int]) -> None:
        """Pages that it takes back, before it uses them."""
        numbers = (c_uint64 * len(pages))(*pages)
        with self._handle.use() as pointer:
            call("memctl_balloon_deflate", pointer, numbers, len(pages))


__all__ = ["NO_LIMIT", "PAGE", "Error", "Event", "EventKind", "FaultHandling", "Lease", "Memctl", "Stats", "version"]
