"""Calls that fail: the script of scenario.c is run with one call of memctld failing (fail.c), the first of its kind, the second, and
so on until there are no more.  Whatever memctld answers to the one who asked, it goes on, no byte is wrong, nobody waits for
ever, the books are right, and in the end nothing is left.

And full disks: swap directories that have room for less and less."""
import concurrent.futures
import os
import shutil
import subprocess
import tempfile
import time

from crash.points import SETTINGS, Wrong, look, run_client, say
from lib.daemon import Daemon, Failed

KINDS = {
    "memfd_create": ["ENOMEM", "EMFILE"], "ftruncate": ["ENOMEM"], "fallocate": ["ENOMEM"], "posix_fallocate": ["ENOSPC", "EIO"],
    "open": ["EMFILE", "ENOMEM"], "mmap": ["ENOMEM"], "madvise": ["ENOMEM"], "mincore": ["ENOMEM"], "pread": ["EIO", "ENOMEM"],
    "pwrite": ["EIO"], "pwritev": ["EIO", "ENOSPC"], "lseek": ["EIO"],
    "fcntl": ["EMFILE"], "uffd_api": ["ENOMEM"], "uffd_register": ["ENOMEM"], "uffd_copy": ["ENOMEM"], "uffd_zeropage": ["ENOMEM"],
    "uffd_continue": ["ENOMEM"], "uffd_writeprotect": ["ENOMEM"], "io_setup": ["EAGAIN"], "io_submit": ["EAGAIN", "EIO"],
    "io_getevents": ["EINTR"], "userfaultfd": ["EMFILE"], "pthread_create": ["EAGAIN"],
    "accept": ["EMFILE"], "sendmsg": ["ENOBUFS"], "recvmsg": ["ENOMEM"], "calloc": ["ENOMEM"],
    "realloc": ["ENOMEM"],
}
# memctld has not a few bytes left for a message: it sends the client away with a reason, which is the end of that VM
MAY_END = ["calloc", "realloc"]
EXACT = 12	# so many one by one, then in steps that grow
GROWTH = 1.5
DISKS_KIB = [1024, 3900, 6144, 24576]	# none for the VM; for the VM alone; and a little; for the pool as well


def trial(env, name, swap_dir=None):
    """Whether the failure came about."""
    directory = tempfile.mkdtemp(prefix="memctl-errno-", dir=os.environ.get("MEMCTL_TEST_DIR"))
    failed = os.path.join(directory, "failed")
    daemon = Daemon(arena=64 << 20, directory=os.path.join(directory, "d"), args=[w for s in [*SETTINGS, "swap_spin=100"] for w in ("--set", s)],
                    env={"MEMCTLD_INJECT": "hasty", "MEMCTLD_FAILED": failed, **env})
    os.makedirs(daemon.dir)
    if swap_dir:
        os.symlink(swap_dir, os.path.join(daemon.dir, "swap"))
    try:
        with daemon:
            run_client(daemon, "main", tolerant=True, also_fine=[4] if name.split(":")[0] in MAY_END else [])
            look(daemon)
        return os.path.exists(failed)
    except (Failed, Wrong, OSError, subprocess.SubprocessError) as e:
        raise Wrong("%s: %s\n%s" % (name, e, daemon.log()[-2500:])) from e
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def series(kind, error, build):
    """(trials, failures) of one kind."""
    n, trials, problems = 1, 0, []
    while True:
        trials += 1
        fail = "%s:%s:%d" % (kind, error, n)
        try:
            if not trial({"LD_PRELOAD": os.path.join(build, "tests", "crash", "libfail.so"), "MEMCTLD_FAIL": fail}, fail):
                return trials, problems
        except Wrong as e:
            problems.append(str(e))
            if len(problems) > 3:
                return trials, problems
        n = n + 1 if n < EXACT else int(n * GROWTH)


def full_disk(kib):
    directory = tempfile.mkdtemp(prefix="memctl-disk-", dir=os.environ.get("MEMCTL_TEST_DIR"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dk" % kib, "tmpfs", directory], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        os.rmdir(directory)
        return None
    try:
        trial({}, "a disk of %d KiB" % kib, directory)
        return ""
    except Wrong as e:
        return str(e)
    finally:
        subprocess.run(["umount", "-l", directory], check=False)
        os.rmdir(directory)


def errnos(options, result):
    began = time.monotonic()
    build = os.path.abspath(os.environ["MEMCTL_BUILD"])
    result.update(trials=0, wrong_pages=0, audit_failures=0, kinds={}, problems=[])
    jobs = [(k, e) for k, errors in KINDS.items() for e in errors if k.startswith(options.only)]
    with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
        for (kind, error), (trials, problems) in zip(jobs, pool.map(lambda j: series(*j, build), jobs)):
            result["trials"] += trials
            result["kinds"]["%s:%s" % (kind, error)] = trials - 1
            if trials == 1 and not problems:
                result["problems"].append("%s is never called: the script does not reach it any more" % kind)
            for p in problems:
                say("NOT OK " + p)
                result["problems"].append(p.splitlines()[0][:300])
    for kib in DISKS_KIB if not options.only else []:
        why = full_disk(kib)
        result["trials"] += why is not None
        if why:
            say("NOT OK " + why)
            result["problems"].append(why.splitlines()[0][:300])
    result["wrong_pages"] = sum("wrong" in p and "0 wrong" not in p for p in result["problems"])
    result["audit_failures"] = sum("audit" in p for p in result["problems"])
    result["seconds"] = round(time.monotonic() - began, 1)
