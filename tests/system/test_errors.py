#!/usr/bin/env python3
"""Disks that are full or broken: a page stays, or becomes a machine check; it never reads as zero."""
import contextlib
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Daemon, wait_until  # noqa: E402
from system.puppet import MIB, Puppet, Refused, calm, daemon  # noqa: E402
from torture.actor import SLOW, Gone  # noqa: E402

SIGBUS = 7


@contextlib.contextmanager
def small_disk(mib):
    """A file system of this size."""
    directory = tempfile.mkdtemp(prefix="memctl-disk-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % mib, "memctl-test", directory], check=False,
                             capture_output=True, text=True)
    try:
        if mounted.returncode:
            skip("cannot mount a small file system: " + mounted.stderr.strip())
        yield directory
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", directory], check=False)
        os.rmdir(directory)


def free_bytes(directory):
    s = os.statvfs(directory)
    return s.f_bavail * s.f_frsize


def on_small_disk(directory, arena_mib=32):
    d = Daemon(arena=arena_mib * MIB, start_seconds=20 * SLOW)
    d.swap_dir = directory
    return d


def test_swap_full_at_registration():
    """Swap that cannot be had refuses the VM, with the numbers, and leaves nothing behind."""
    with small_disk(40) as disk, on_small_disk(disk) as d:
        free = free_bytes(disk)
        with Puppet(d, "fits", 24) as a:
            check(free - free_bytes(disk) >= 24 * MIB, "the swap file is really allocated")
            left = free_bytes(disk)
            try:
                Puppet(d, "refused", 24)
                check(False, "a VM was admitted without swap")
            except Refused as e:
                check_eq(e.name, "org.memctl.NotEnoughSwap", "the error")
            check_eq(free_bytes(disk), left, "free space after the refusal")
            check_eq(sorted(v["name"] for v in d.memctl("vm", "list")["vms"]), ["fits"], "VMs")
            with Puppet(d, "reserved", 24, reservation=12) as b:
                b.do("fill", 0, 0, b.pages, 1, "mix", seconds=90)
                a.do("fill", 0, 0, a.pages, 2, "random", seconds=90)
                a.check(0, a.pages, 2, "random")
                b.check(0, b.pages, 1, "mix")
        wait_until(lambda: free_bytes(disk) == free, 20 * SLOW, "the return of the swap space")
        d.audit()


def test_swap_write_error():
    """A page that cannot be written stays; the counter shows it, and others go on."""
    for error in ("EIO", "ENOSPC"):
        with daemon(64, inject="swap_write:" + error) as d, Puppet(d, "vm", 24, limit=10) as p, \
                Puppet(d, "other", 8) as other:
            other.do("fill", 0, 0, other.pages, 5, "mix")
            p.do("fill", 0, 0, 1024, 1, "random")
            p.do("dont_need", 0, 0, 1024)
            p.do("fill", 0, 1024, 2048, 2, "sparse", seconds=90)
            wait_until(lambda: p.numbers()["swap_write_errors"] > 0, 20 * SLOW, "a count of write errors")
            n = p.numbers()
            check_eq(n["swapped_bytes"], 0, "swapped bytes")
            check_eq(n["lost_bytes"], 0, "lost bytes")
            check_eq(p.resident(0, 1024), 1024, "pages that stayed")
            status = d.run_memctl("status").stdout + d.run_memctl("vm", "show", "vm").stdout
            check("swap" in status.lower(), "status or vm show tell of the swap errors")
            p.check(0, 1024, 1, "random")
            p.check(1024, 2048, 2, "sparse")
            other.check(0, other.pages, 5, "mix")
            d.audit()


def never_zeros(inject, kind, state, counter):
    """The evicted pages are damaged: whoever reads one gets a machine check or waits, never other bytes."""
    with daemon(64, inject=inject, settings=["fault_around=1"]) as d, Puppet(d, "other", 8) as other:
        other.do("fill", 0, 0, other.pages, 5, "random")
        p = Puppet(d, "vm", 24, limit=8)
        try:
            p.do("fill", 0, 0, 64, 1, kind)
            p.evict(0, 64, 512, 3072)
            check_eq(set(p.states(0, 64)), {state}, "states after eviction")
            for page in (0, 1, 63):
                p.tell("check 0 %d 1 1 %s" % (page, kind))
                if p.quiet(3 * SLOW):
                    break
                answer = p.hear(1)
                check(answer.startswith("err %d " % SIGBUS), "page %d was served: %s" % (page, answer))
            n = p.numbers()
            check(n[counter] > 0, "%s counts" % counter)
            check(n["lost_bytes"] > 0 or n["swap_read_errors"] > 0, "the loss shows")
            d.run_memctl("audit")
            check(d.alive(), "the daemon goes on")
        finally:
            p.kill()
        wait_until(lambda: [v["name"] for v in d.memctl("vm", "list")["vms"]] == ["other"], 20 * SLOW, "release")
        other.check(0, other.pages, 5, "random")
        calm(d)
        d.audit()


def test_swap_read_error():
    never_zeros("swap_read:EIO", "random", "swapped", "swap_read_errors")


def test_swap_corrupt():
    never_zeros("swap_corrupt", "random", "swapped", "checksum_errors")


def test_cache_corrupt():
    never_zeros("cache_corrupt", "text", "compressed", "checksum_errors")


def said_to_be_there(twin):
    """The kernel says of some pages that they are there, which they are not: pages that come back, one by one and in runs, zeros,
    and pages that are brought in.  What the clients answer about their pages."""
    with daemon(32, twin=twin, inject="copy_exists") as d, Puppet(d, "vm", 48) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix", seconds=90)
        p.do("will_need", 0, 0, 2048)
        for _ in range(2):
            p.check(0, p.pages, 1, "mix")
        numbers = p.numbers()
        check(numbers["refault_pages"] > 1000 and numbers["around_pages"] > 0, "pages came back: %s" % numbers)
        check_eq(numbers["foreign_pages"], 0, "pages that are not ours")
        d.audit()


def test_a_page_that_is_said_to_be_there():
    said_to_be_there(None)


def test_a_page_that_is_said_to_be_there_twin():
    try:
        said_to_be_there("exists_believed")
    except AssertionError as e:
        check("zeros" in str(e) or "wrong" in str(e), str(e))
    else:
        check(False, "pages of zeros were not noticed")


def test_unknown_injection_is_refused():
    """A misspelt switch would make every test above pass for nothing."""
    d = daemon(32, inject="swap_wriet:EIO")
    try:
        d.start()
    except Exception:  # however it says so
        return
    finally:
        d.kill()
    raise AssertionError("the daemon started with a switch it does not know")


def test_client_leaves_amid_a_wait():
    """A client that is killed while a thread of it waits for a damaged page is released."""
    with daemon(64, inject="swap_read:EIO", settings=["fault_around=1"]) as d:
        p = Puppet(d, "vm", 24, limit=8)
        try:
            p.do("fill", 0, 0, 64, 1, "random")
            p.evict(0, 64, 512, 3072)
            p.tell("touch 0 0 64 1 random r")
        except Gone:
            pass
        finally:
            p.kill()
        wait_until(lambda: not d.memctl("vm", "list")["vms"], 20 * SLOW, "release")
        d.audit()


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 120 * int(SLOW)

if __name__ == "__main__":
    main(globals())
