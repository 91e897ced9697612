"""What a lease costs a real Linux guest in QEMU: until it is up, and when all its memory is resident.

`boot` is the time from the start of the command to the guest's first line, against the same command without
`memctl run`: no lease, no balloon.  `compute` is work on 32 MiB of the guest's memory, random places, some lines
each, against QEMU with the same memory backend and balloon; both guests stay up, one works while the other idles, on
one core.  They take turns of half a second, and a round is the best of some turns of each: what disturbs a turn is
the host's other load, for memory that is there costs neither of them a fault.  The accelerator is KVM where a stock
kernel boots under it, else TCG, and the same on both sides."""
import contextlib
import os
import sys

from bench import TOP, BUILD, Daemon, repeat
from host import log

sys.path.insert(0, os.path.join(TOP, "tests", "guest"))
import image  # noqa: E402
from machine import Lost, Machine, accelerator  # noqa: E402

MIB = 256
ARENA = 768
TURN_SECONDS = 0.5
TURNS = 5
BACKEND = ["-object", f"memory-backend-memfd,id=ram,size={MIB}M,share=on", "-machine", "memory-backend=ram",
           "-device", "virtio-balloon-pci,free-page-reporting=on"]


def alternately(i, first, second):
    """Both, in turn one or the other first; (first's, second's) value."""
    if i % 2:
        b = second()
        return first(), b
    return first(), second()


def boot_seconds(files, accel, i, daemon=None):
    with Machine(files, f"boot{i}", daemon, MIB, accel) as guest:
        at = guest.seconds_to("READY")
        guest.off()
    return at


def pin(guest, core):
    pid = guest.pid()
    for tid in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(tid), {core})


def rate(guest):
    return int(guest.ask(f"compute {TURN_SECONDS}", "computed")[0])


def measure(s, results):
    results.row("boot", "QEMU alone", "s", "<= 1.2")
    results.row("compute", "QEMU with the same backend", "rounds/s", ">= 0.98")
    try:
        files = image.make(BUILD)
    except image.Missing as e:
        for name in ("boot", "compute"):
            results.absent(name, str(e))
        return
    accel = accelerator(files, image.STORE)
    for name in ("boot", "compute"):
        results.note(name, f"{accel}, {MIB} MiB")
    s.warm(ARENA)

    def boot(i):
        ours, peer = alternately(i, lambda: boot_seconds(files, accel, i, daemon), lambda: boot_seconds(files, accel, i))
        log(f"boot {ours:.2f} s, QEMU alone {peer:.2f} s")
        results.add("boot", ours, peer)

    def compute(i):
        turns = [alternately(i + k, lambda: rate(lease), lambda: rate(plain)) for k in range(TURNS)]
        ours, peer = (max(values) for values in zip(*turns))
        log(f"compute {ours}, QEMU alone {peer}")
        results.add("compute", ours, peer)

    with Daemon(s, ARENA) as daemon, contextlib.ExitStack() as stack:
        try:
            boot_seconds(files, accel, 0)       # what is read from disk is in the page cache from here on
            repeat(results, ("boot",), s.rounds, boot)
            lease = stack.enter_context(Machine(files, "lease", daemon, MIB, accel, memory=BACKEND))
            plain = stack.enter_context(Machine(files, "plain", None, MIB, accel, memory=BACKEND))
            for guest in (lease, plain):
                guest.hear("READY")
                pin(guest, s.core)
                rate(guest)
            repeat(results, ("compute",), s.rounds, compute)
            if daemon.vm("lease")["evicted_pages"]:
                raise RuntimeError("pages were evicted though all of them fit")
            daemon.audit()
            for guest in (lease, plain):
                guest.off()
        except Lost as e:
            raise RuntimeError(str(e)) from e
