"""Memory for emulators, leased from memctld: libmemctl for Python.

    import memctl

    with memctl.Memctl() as m:
        m.register("example", size=64 << 20)
        m.helper_start()                    # answers memctld's orders
        with m.lease(0, 64 << 20) as ram, ram.view() as memory:
            memory[12345] = 1               # guest memory: faults are served by memctld
            print(m.stats().resident)

What is promised, and what must not be done, is said in memctl.h; this is that library, called by ctypes.  A view of a lease is a buffer
(`Lease.view`), and its address (`Lease.address`) is what Unicorn's mem_map_ptr takes."""
from memctl._client import NO_LIMIT, PAGE, Error, Event, EventKind, FaultHandling, Lease, Memctl, Stats, version

__all__ = ["NO_LIMIT", "PAGE", "Error", "Event", "EventKind", "FaultHandling", "Lease", "Memctl", "Stats", "version"]
