#!/usr/bin/env python3
"""One real Linux guest in QEMU on a lease: what QEMU and its owner do with a guest beside running it.

Where it says `Scanned`, passes of the sharing scan follow one another all the while, so that QEMU does it to shared pages,
private copies and pages on their way home; the guest has many pages twice."""
import contextlib
import ctypes
import os
import struct
import sys
import threading
import time
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import image  # noqa: E402
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Daemon, Failed, build_dir, wait_until  # noqa: E402
from machine import BAD, SHARING, Lost, Machine, accelerator  # noqa: E402

MIB = 1 << 20
PAGE = 4096
MAGIC = struct.pack("<Q", 0x6d656d63746c7067)   # of work.c
FILL = 96
PAGES = FILL * MIB // PAGE
TWICE = PAGES // 8      # these hold what another one holds
SCAN_SECONDS = 1
SILENT_SECONDS = 15     # it reports each second
SHORT = 128             # MiB of arena: some of a guest's memory is always evicted
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


class Scanned(Daemon):
    """A daemon that looks for equal pages without end."""

    def __init__(self, **more):
        super().__init__(args=SHARING, **more)
        self.enough = threading.Event()
        self.scans = threading.Thread(target=self.scan, daemon=True)

    def scan(self):
        while not self.enough.wait(SCAN_SECONDS):
            try:
                self.memctl("share", "scan")
            except Failed:
                return

    def __enter__(self):
        super().__enter__()
        self.scans.start()
        return self

    def __exit__(self, *why):
        self.enough.set()
        self.scans.join()
        super().__exit__(*why)


def files():
    try:
        return image.make(build_dir())
    except image.Missing as e:
        skip(str(e))


def machine(daemon, name="guest", **more):
    made = files()
    return Machine(made, name, daemon, accel=accelerator(made, image.STORE), **more)


def numbers(daemon, name="guest"):
    return daemon.memctl("vm", "show", name)["vm"]


def filled(guest, mib=FILL, seed=1):
    guest.hear("READY")
    guest.ask("fill %d %d" % (mib, seed), "filled")


def all_right(guest):
    pages, errors, _ = guest.check()
    check(pages >= PAGES, "%d pages checked" % pages)
    check_eq(errors, 0, "wrong pages")


def shares(daemon, name="guest", mib=8):
    wait_until(lambda: numbers(daemon, name)["shared_bytes"] > mib * MIB, 30, "the sharing of %d MiB" % mib)


def some_evicted(daemon):
    vm = numbers(daemon)
    check(vm["compressed_bytes"] + vm["swapped_bytes"] > 16 * MIB, "too little is evicted: %s" % vm)


def punch(fd, offset, length):
    mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def is_whole(page):
    """A page of a file of work.c, as it must be."""
    return page.startswith(MAGIC) and zlib.adler32(page[:PAGE - 8]) == int.from_bytes(page[PAGE - 8:], "little")


def test_reboot():
    """The same lease serves the next kernel."""
    with Scanned(arena=SHORT * MIB) as d, machine(d) as guest:
        filled(guest)
        all_right(guest)
        some_evicted(d)
        shares(d)
        guest.tell("reboot")
        filled(guest, seed=2)
        all_right(guest)
        guest.qmp("system_reset")
        filled(guest, seed=3)
        all_right(guest)
        d.audit()
        check_eq(len(d.memctl("vm", "list")["vms"]), 1, "VMs")
        guest.off()


def test_two_processors():
    """Two vCPU threads fault at once, and the work goes on while memory is taken."""
    with Scanned(arena=SHORT * MIB) as d, machine(d, cpus=2) as guest:
        filled(guest)
        guest.tell("run")
        time.sleep(5)
        all_right(guest)
        some_evicted(d)
        shares(d)
        check(numbers(d)["break_pages"] > 0, "nothing shared was written to")
        d.audit()
        guest.off()


def segments(f):
    """(guest-physical address, place in the file, length) of the memory in an ELF dump."""
    header = f.read(64)
    offset, = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    f.seek(offset)
    for entry in [f.read(size) for _ in range(count)]:
        kind, _, place, _, address, length = struct.unpack_from("<IIQQQQ", entry)
        if kind == 1:
            yield address, place, length


def test_dump():
    """dump-guest-memory holds every page, wherever it was."""
    with Scanned(arena=SHORT * MIB) as d, machine(d) as guest:
        filled(guest)
        shares(d)
        guest.qmp("stop")
        some_evicted(d)
        path = os.path.join(guest.dir, "dump")
        guest.qmp("dump-guest-memory", paging=False, protocol="file:" + path)
        guest.qmp("cont")
        all_right(guest)
        d.audit()
        guest.off()
        found = set()
        with open(path, "rb") as f:
            for _, place, length in list(segments(f)):
                f.seek(place)
                for _ in range(length // PAGE):
                    page = f.read(PAGE)
                    if is_whole(page):
                        found.add(page[8:16])
    check_eq(len(found), PAGES - TWICE, "different pages in the dump")


def test_migrate():
    """Out to a file and in again, to a new VM: the guest goes on where it was."""
    with Scanned(arena=SHORT * MIB) as d:
        with machine(d, "before") as guest:
            filled(guest)
            shares(d, "before")
            path = os.path.join(d.dir, "state")
            guest.qmp("migrate", uri="exec:cat > " + path)

            def done():
                state = guest.qmp("query-migrate")
                check(state["status"] not in ("failed", "cancelled"), state)
                return state["status"] == "completed"

            wait_until(done, 40, "the migration")
            guest.qmp("quit")
            check_eq(guest.wait(), 0, "QEMU's status")
        with machine(d, "after", extra=["-incoming", "exec:cat " + path]) as guest:
            wait_until(lambda: guest.qmp("query-status")["status"] == "running", 40, "the guest's going on")
            all_right(guest)
            shares(d, "after")
            guest.tell("run")
            time.sleep(2)
            all_right(guest)
            d.audit()
            guest.off()


def disk(aio):
    """A disk device reads from memory that is not there or is shared, and writes to it, by system calls of QEMU's threads."""
    with Scanned(arena=SHORT * MIB) as d:
        with open(os.path.join(d.dir, "disk"), "wb") as f:
            f.truncate(48 * MIB)
        with machine(d, extra=["-drive", "file=%s,format=raw,if=virtio,aio=%s" % (f.name, aio)], append="disk") as guest:
            filled(guest)
            for _ in range(2):
                check_eq(guest.ask("disk 48 4", "disk"), [str(48 * MIB // PAGE), "0"], "pages, wrong words")
            some_evicted(d)
            check(numbers(d)["break_pages"] > 8 * MIB // PAGE, "the disk found few pages shared")
            all_right(guest)
            d.audit()
            guest.off()


def test_disk():
    disk("threads")


def test_disk_by_io_uring():
    disk("io_uring")


def job(guest, command, **arguments):
    """Of QEMU's jobs, to its good end."""
    guest.qmp(command, **{"job-id": "job"}, **arguments)

    def ended():
        return next((j for j in guest.qmp("query-jobs") if j["id"] == "job" and j["status"] == "concluded"), None)

    check("error" not in wait_until(ended, 60, command), "%s: %s" % (command, ended()))
    guest.qmp("job-dismiss", id="job")


def test_snapshot():
    """savevm, and back by loadvm to what it was, in the same QEMU on the same lease."""
    with Scanned(arena=SHORT * MIB) as d, machine(d) as guest:
        filled(guest)
        path = os.path.join(guest.dir, "disk")
        file = {"driver": "file", "filename": path, "node-name": "file"}
        job(guest, "blockdev-create", options={"driver": "file", "filename": path, "size": 0})
        guest.qmp("blockdev-add", **file)
        job(guest, "blockdev-create", options={"driver": "qcow2", "file": "file", "size": MIB})
        guest.qmp("blockdev-add", **{"driver": "qcow2", "file": "file", "node-name": "disk"})
        shares(d)
        job(guest, "snapshot-save", tag="one", vmstate="disk", devices=["disk"])
        guest.ask("drop", "dropped")
        filled_anew = guest.ask("fill %d 2" % (FILL // 2), "filled")
        check(int(filled_anew[0]) < PAGES, "the guest has gone on")
        guest.qmp("stop")
        job(guest, "snapshot-load", tag="one", vmstate="disk", devices=["disk"])
        guest.qmp("cont")
        all_right(guest)
        d.audit()
        guest.off()


def test_balloon():
    """What a balloon takes by QEMU's own command comes back page by page, and is there again when it is let go."""
    with Scanned(arena=384 * MIB) as d, machine(d) as guest:
        filled(guest)
        shares(d)
        before = numbers(d)
        for mib in (176, guest.mib):
            guest.qmp("balloon", value=mib * MIB)
            wait_until(lambda mib=mib: guest.qmp("query-balloon")["actual"] == mib * MIB, 40, "%d MiB" % mib)
            all_right(guest)
            d.audit()
        # a page that the guest has cleared for the balloon may be found by the scan first
        after = numbers(d)
        discarded = sum(after[n] - before[n] for n in ("discarded_pages", "scan_zero_pages"))
        check(discarded >= (guest.mib - 176) * MIB // PAGE, "%d pages discarded" % discarded)
        guest.ask("fill %d 2" % FILL, "filled")
        all_right(guest)
        guest.off()


def resident_pages(fd):
    """Places of whole pages of work.c in the memfd; a hole is never read."""
    at, end = 0, os.fstat(fd).st_size
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        hole = min(os.lseek(fd, at, os.SEEK_HOLE), end)
        while at < hole:
            if is_whole(os.pread(fd, PAGE, at)):
                yield at
            at += PAGE


def test_hole_punched_behind_our_back():
    """Who punches the memfd without a word loses these pages and nothing else; the ledger is right afterwards."""
    with Daemon(arena=SHORT * MIB) as d, machine(d) as guest:
        filled(guest)
        guest.qmp("stop")
        some_evicted(d)
        fd = guest.open_memory()
        try:
            chosen = list(resident_pages(fd))[::7][:512]
            gone = [r for r in d.memctl("vm", "pmap", "guest")["runs"] if r["state"] in ("compressed", "swapped")]
            for at in chosen:
                punch(fd, at, PAGE)
            # a page that is evicted is a hole already
            for run in gone[:200]:
                punch(fd, run["gpa"], run["pages"] * PAGE)
        finally:
            os.close(fd)
        d.audit()
        guest.qmp("cont")
        guest.tell("check")
        pages, errors, zeroed = (int(w) for w in guest.hear("checked", strict=False))
        check(pages >= PAGES, "%d pages checked" % pages)
        check_eq(errors, zeroed, "pages that are neither right nor zeros among the wrong ones")
        # the buffers of the guest's program look like pages of its files too
        check(len(chosen) - 40 <= errors <= len(chosen), "%d punched, %d wrong" % (len(chosen), errors))
        d.audit()
        guest.ask("fill %d 2" % FILL, "filled", strict=False)
        all_right(guest)
        d.audit()
        guest.off()


def test_shared_pages_are_reported_free():
    """Discards of pages that must come home first, while the scan looks at what is left."""
    with Scanned(arena=384 * MIB) as d, machine(d) as guest:
        filled(guest)
        for seed in (2, 3, 4):
            shares(d)
            before = numbers(d)["discarded_pages"]
            guest.ask("drop", "dropped")
            wait_until(lambda b=before: numbers(d)["discarded_pages"] - b > 8 * MIB // PAGE, 30, "the return of 8 MiB")
            d.audit()
            guest.ask("fill %d %d" % (FILL, seed), "filled")
            all_right(guest)
        d.audit()
        guest.off()


def test_identical_guests():
    """Three that have booted and do nothing: 60 % of the frames that they have go, and they run on."""
    made = files()
    accel = accelerator(made, image.STORE)
    with Daemon(arena=1024 * MIB, args=SHARING) as d, contextlib.ExitStack() as stack:
        guests = [stack.enter_context(Machine(made, "guest%d" % i, d, accel=accel, append="nokaslr",
                                              run=["--sharing", "group:guests"])) for i in range(3)]
        for guest in guests:
            guest.hear("READY")

        def frames():
            return (sum(v["resident_bytes"] for v in d.memctl("vm", "list")["vms"]) +
                    sum(g["resident_bytes"] for g in d.memctl("share", "groups")["groups"]))

        def reported():
            """What was free has gone back by itself."""
            now = frames()
            time.sleep(3)
            return frames() > now - MIB

        wait_until(reported, 30, "an end of free page reporting")
        before = frames()

        def scanned():
            d.memctl("share", "scan")
            time.sleep(1)
            return frames() < before * 0.4

        wait_until(scanned, 40, "the saving of 60 %")
        d.audit()
        for guest in guests:
            guest.ask("fill 64 1", "filled")
            guest.tell("run")
        time.sleep(3)
        for guest in guests:
            check_eq(guest.check()[1], 0, "wrong pages")
        d.audit()
        for guest in guests:
            guest.off()


def test_free_page_reporting():
    """What the guest frees comes back by itself, where 2 MiB are free together, and is there again when used."""
    with Daemon(arena=384 * MIB) as d, machine(d) as guest:
        filled(guest)
        before = numbers(d)
        guest.ask("drop", "dropped")

        def returned():
            now = numbers(d)
            return (now["discarded_pages"] - before["discarded_pages"] > 16 * MIB // PAGE and
                    before["resident_bytes"] - now["resident_bytes"] > 16 * MIB)

        wait_until(returned, 30, "the return of 16 MiB")
        d.audit()
        guest.ask("fill %d 2" % FILL, "filled")
        all_right(guest)
        d.audit()
        check_eq(numbers(d)["evicted_pages"], 0, "pages evicted")
        guest.off()


def goes_wrong(guest, seconds):
    """Whether a guest that works finds something wrong, falls over it, or falls silent."""
    end = time.monotonic() + seconds
    try:
        filled(guest)
        guest.tell("run")
        while time.monotonic() < end:
            line = guest.next(SILENT_SECONDS)
            if line is None or BAD.match(line):
                return True
    except Lost:
        return True
    return False


def test_without_protection_it_shows():
    """The twin: pages are taken while the guest writes to them, and the guest must not find that right."""
    with Daemon(arena=SHORT // 2 * MIB, env={"MEMCTLD_TWIN": "no_protect"}) as d, machine(d, cpus=2) as guest:
        check(goes_wrong(guest, 40), "nothing was found in 40 s")


# a quarter of it where nothing else runs
for function in [f for n, f in globals().items() if n.startswith("test_") and not hasattr(f, "seconds")]:
    function.seconds = 120

if __name__ == "__main__":
    main(globals())
