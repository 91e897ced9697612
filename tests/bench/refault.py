"""What it costs to have a page back that was taken, and to put it on the disk, against zswap and the swap file.

Both sides hold 512 MiB of the mix and give half of it, as in `reclaim`; then there is room for it all again, so that a
refault is nothing but that.  First a stretch of what was taken is read in order, all its pages, zeros among them; then
pages with content are read one by one, in random order, and nothing beside them is brought in.  Guest and fault thread are on one core.
"""
import statistics

from bench import Daemon, PAGE, Trip, repeat
from host import log, vmstat
from reclaim import PAGES, Squeezed, take, zswap_missing

GUEST_MIB = 512
TAKEN_MIB = 256
ARENA_MIB = 700         # half of it free: about as much taken as from the kernel's guest
DISK_ARENA_MIB = 544
STREAM_PAGES = 96 * PAGES
FAULTS = 8000
CLUSTER = 3             # what the kernel reads ahead by default, 2 to the power of it


class Back:
    """What came back: a stretch in order, pages a second; and one by one, microseconds."""

    def __init__(self, stream, came, faults):
        self.rate = came / stream["seconds"]
        self.p50, self.p99, self.came = faults.get("p50"), faults.get("p99"), came

    def __str__(self):
        one = f"; one by one p50 {self.p50:.1f}, p99 {self.p99:.1f} us" if self.p50 else ""
        return f"{self.came} pages in order at {self.rate / 1000:.1f} k/s{one}"


def kernel(s, compressor, cluster=0, seed=1):
    with Squeezed(s, GUEST_MIB, compressor, cluster) as k:
        guest = k.guest
        out = vmstat("pswpout"), vmstat("zswpout")
        taken = k.take(TAKEN_MIB)
        out = vmstat("pswpout") - out[0], vmstat("zswpout") - out[1]
        k.group.limit(None)
        s.pin_guest(guest)
        absent = guest.do("absent", "any", 1)["pages"]
        stream = guest.do("stream", 0, STREAM_PAGES)
        came = absent - guest.do("absent", "any", 1)["pages"]
        guest.do("absent", "data", seed)
        back = Back(stream, came, guest.do("touch", "read", FAULTS))
        guest.checked("verify", 7)
    log(f"{compressor or 'swap file'}, page-cluster {cluster}: {taken}, {out[0]} pages on disk, {out[1]} in zswap; {back}")
    return taken, out, back


def gone(daemon, vm):
    """Pages of the guest that are not in frames."""
    numbers = daemon.vm(vm)
    return (numbers["leased_bytes"] - numbers["resident_bytes"]) // PAGE


def ours(s, arena_mib, state, seed=1, **settings):
    with Daemon(s, arena_mib, **settings) as daemon, s.lease(daemon, GUEST_MIB) as guest:
        guest.do("fill", 0, GUEST_MIB * PAGES)
        taken = take(daemon, guest)
        out = daemon.vm(guest.vm)["swap_out_pages"]
        s.pin_guest(guest, daemon)
        absent, events = gone(daemon, guest.vm), daemon.vm(guest.vm)["events"]
        stream = guest.do("stream", 0, STREAM_PAGES)
        came, events = absent - gone(daemon, guest.vm), daemon.vm(guest.vm)["events"] - events
        daemon.tune("fault_around", 1)      # what lies near must not come by itself
        s.load(guest, daemon.pages(guest.vm, state), "data", seed)
        back = Back(stream, came, guest.do("touch", "read", FAULTS))
        guest.checked("verify", 7)
        daemon.audit()
    log(f"memctl, {state}: {taken}; {back}, {events} events")
    return taken, out, back


def measure(s, results):
    results.row("random_refault_lzo", "zswap (lzo) fault", "us p50", "<= 2.1")
    results.row("random_refault_deflate", "zswap (deflate) fault", "us p50", "<= 0.85")
    results.row("stored_ratio", "arena and disk bytes used (value: original bytes)", "bytes", ">= 2.1")
    results.row("refault_bound", "zswap (lzo) fault (value: the bare round trip with zstd)", "us p50")
    results.row("refault_over_bare", "bare round trip with zstd decompression of the page", "us p50")
    results.row("sequential_refault", "zswap (lzo), read-ahead as it is faster", "pages/s", ">= 1.2")
    results.row("swap_out", "swap file under cgroup-limit reclaim", "pages/CPU-s", ">= 2")
    results.row("sequential_swap_in", "swap file, page-cluster 3", "pages/s")
    results.row("random_swap_in", "swap file, page-cluster 0", "us p50")
    missing = zswap_missing()
    if missing:
        for name in results.rows:
            if name not in ("stored_ratio", "refault_over_bare"):
                results.no_peer(name, missing)
    s.warm(2048)
    with Trip(s) as trip:
        def compressed(i):
            bare = trip.p50("zstd", FAULTS, 1)
            taken, _, back = ours(s, ARENA_MIB, "compressed", i)
            bare = statistics.mean((bare, trip.p50("zstd", FAULTS, 1)))
            results.add("stored_ratio", taken.original, taken.stored + taken.disk)
            results.add("refault_over_bare", back.p50, bare)
            if missing:
                return
            lzo, deflate = kernel(s, "lzo", 0, i)[2], kernel(s, "deflate", 0, i)[2]
            ahead = kernel(s, "lzo", CLUSTER, i)[2]
            results.add("random_refault_lzo", back.p50, lzo.p50)
            results.add("random_refault_deflate", back.p50, deflate.p50)
            results.add("refault_bound", bare, lzo.p50)
            results.add("sequential_refault", back.rate, max(lzo.rate, ahead.rate))

        repeat(results, ("random_refault_lzo", "random_refault_deflate", "stored_ratio", "refault_bound",
                         "refault_over_bare", "sequential_refault"), s.rounds, compressed)

    def disk(i):
        taken, _, back = ours(s, DISK_ARENA_MIB, "swapped", i, MemZipMaxPct="0")
        mine = taken.disk // PAGE / taken.cpu
        if missing:
            return
        for cluster in (0, CLUSTER):
            theirs, out, kback = kernel(s, None, cluster, i)
            if cluster:
                results.add("sequential_swap_in", back.rate, kback.rate)
            else:
                results.add("swap_out", mine, out[0] / theirs.cpu)
                results.add("random_swap_in", back.p50, kback.p50)

    repeat(results, ("swap_out", "sequential_swap_in", "random_swap_in"), s.rounds, disk)
