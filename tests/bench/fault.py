"""What a fault costs: against a bare userfaultfd round trip, first touch and reads of plain memory.

Fault-around is off (fault_around=1) where single faults are timed.  The client's threads, the daemon's fault
thread and both processes of the bare trip are on one core.
"""
from bench import Daemon, Trip, repeat
from host import log

FAULTS = 8000
FRESH_MIB = 64          # single faults on fresh pages
CONTENT_MIB = 256       # evicted and faulted back in
STREAM_MIB = 256        # touched in order
RESIDENT_MIB = 256
PAGES = 256             # in a MiB


def evict(daemon, vm):
    """Much goes to the compression cache; then there are free frames to bring it back into."""
    daemon.tune("MemMinFreePct", 50)
    daemon.settle(vm)
    daemon.tune("MemMinFreePct", 0)


def stream(s, daemon, expected_around):
    """Pages a second of a fresh lease that is written in order."""
    with s.lease(daemon, STREAM_MIB, content=False) as guest:
        s.pin_guest(guest, daemon)
        answer = guest.do("sequential", 0, STREAM_MIB * PAGES)
        if expected_around and not daemon.vm(guest.vm)["around_pages"]:
            log("fault-around brought in nothing")
        return answer["pages"] / answer["seconds"]


def measure(s, results):
    results.row("zero_fill", "bare userfaultfd round trip with UFFDIO_COPY", "us p50", "<= 1.4")
    results.row("compressed", "bare round trip with zstd decompression of the page", "us p50", "<= 1.3")
    results.row("sequential_touch", "first touch of a plain memfd", "pages/s", ">= 1.0")
    results.row("sequential_touch_loop", "the same loop with fault_around=1", "pages/s", ">= 4")
    results.row("resident_access", "random reads of a plain memfd", "reads/s", ">= 0.98")
    s.warm(4096)
    # so small that half of the stored guest must go when half of the arena is to be free
    with Daemon(s, CONTENT_MIB + FRESH_MIB + 16, fault_around="1") as daemon, Trip(s) as trip:
        level = int(daemon.setting("zstd_level"))
        around = s.settings.get("fault_around", daemon.setting("fault_around", "default"))
        log(f"zstd level {level}, fault_around {around}")
        with s.lease(daemon, CONTENT_MIB) as stored:
            stored.do("fill", 0, CONTENT_MIB * PAGES)
            s.pin_guest(stored, daemon)

            def single(i):
                evict(daemon, stored.vm)
                zero, packed = trip.p50("zero", FAULTS), trip.p50("zstd", FAULTS, level)
                with s.lease(daemon, FRESH_MIB, content=False) as fresh:
                    s.pin_guest(fresh, daemon)
                    fresh.do("list", 0, FRESH_MIB * PAGES, "any", i)
                    ours = fresh.do("touch", "write", FAULTS)
                    fresh.checked("touched")
                    events = daemon.vm(fresh.vm)["faults_zero"]
                    if events < FAULTS:
                        raise RuntimeError(f"{FAULTS} touches made {events} zero faults")
                # the machine may have become busy in between
                zero = (zero + trip.p50("zero", FAULTS)) / 2
                results.add("zero_fill", ours["p50"], zero)
                s.load(stored, daemon.pages(stored.vm, "compressed"), "data", i)
                ours = stored.do("touch", "read", FAULTS)
                if ours["n"] < FAULTS // 2:
                    raise RuntimeError(f"only {ours['n']} compressed pages to fault in")
                packed = (packed + trip.p50("zstd", FAULTS, level)) / 2
                results.add("compressed", ours["p50"], packed)

            repeat(results, ("zero_fill", "compressed"), s.rounds, single)
            stored.checked("verify", 1)
            daemon.audit()

    with Daemon(s, 2048) as daemon:
        def streams(i):
            daemon.tune("fault_around", around)
            ours = stream(s, daemon, True)
            with s.guest(STREAM_MIB, "memfd", content=False) as plain:
                s.pin_guest(plain)
                answer = plain.do("sequential", 0, STREAM_MIB * PAGES)
            results.add("sequential_touch", ours, answer["pages"] / answer["seconds"])
            daemon.tune("fault_around", 1)
            results.add("sequential_touch_loop", ours, stream(s, daemon, False))

        repeat(results, ("sequential_touch", "sequential_touch_loop"), s.rounds, streams)
        daemon.tune("fault_around", around)

        def reads(_):
            # a new guest each time: where its frames and those of the plain memfd lie is a matter of luck
            with s.lease(daemon, RESIDENT_MIB) as guest:
                guest.do("fill", 0, RESIDENT_MIB * PAGES)
                s.pin_guest(guest)
                guest.do("resident", 2_000_000, 4)      # settles both mappings before anything counts
                answer = guest.do("resident", 16_000_000, 64)
                if daemon.vm(guest.vm)["evicted_pages"]:
                    raise RuntimeError("pages were evicted from an arena with room")
                guest.checked("verify", 1)
            results.add("resident_access", 1e9 / answer["ns"], 1e9 / answer["plain_ns"])

        repeat(results, ("resident_access",), s.rounds, reads)
