"""What managing memory costs in memory: everything that is not guest content, at 8 GiB touched."""
from bench import Daemon, MIB, repeat
from host import log, meminfo, status_bytes

GIB = 1 << 30
LEASES = 2
PAGES = 256


def measure(s, results):
    results.row("overhead", "0.5 % of touched memory + 16 MiB", "bytes", "<= 1.0")
    for part in ("heap_and_files", "page_tables_daemon", "page_tables_clients", "metadata", "library_heap"):
        results.row(part, "touched memory", "bytes")
    room = meminfo("MemAvailable")
    touched = min(8 * GIB, (room - 3 * GIB) // GIB * GIB)
    if touched < GIB:
        results.absent("overhead", f"{room // MIB} MiB available are too few to touch 1 GiB")
        return
    if touched < 8 * GIB:
        results.note("overhead", f"{touched // MIB} MiB touched instead of 8192: {room // MIB} MiB are available")
    each = touched // LEASES // MIB
    arena = touched // MIB * 110 // 100 + 256

    def one(_):
        with Daemon(s, arena) as daemon:
            guests = [s.lease(daemon, each, content=False) for _ in range(LEASES)]
            for g in guests:
                g.do("sequential", 0, each * PAGES)
            numbers = [daemon.vm(g.vm) for g in guests]
            resident = sum(n["resident_bytes"] for n in numbers)
            # this is all that can go wrong with bytes here: nothing is evicted, so no audit of 8 GiB
            if resident != touched:
                raise RuntimeError(f"{touched} bytes touched, {resident} resident")
            parts = {
                # shared memory of the daemon is guest content and the metadata counted below
                "heap_and_files": status_bytes(daemon.pid, "RssAnon") + status_bytes(daemon.pid, "RssFile"),
                "page_tables_daemon": status_bytes(daemon.pid, "VmPTE"),
                "page_tables_clients": sum(status_bytes(g.pid, "VmPTE") for g in guests),
                "metadata": sum(n["overhead_bytes"] for n in numbers),
                "library_heap": sum(g.do("heap")["bytes"] for g in guests),
            }
            for g in guests:
                g.end()
        for name, value in parts.items():
            results.add(name, value, touched)
        results.add("overhead", sum(parts.values()), touched * 0.005 + 16 * MIB)
        log(", ".join(f"{k} {v / MIB:.1f} MiB" for k, v in parts.items()))

    s.warm(touched // MIB)
    repeat(results, ("overhead",), s.rounds, one)
