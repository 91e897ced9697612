"""tests/guest/run [--guests N] [--seconds N] [--json]...

Real Linux guests, each in an unmodified QEMU started by `memctl run`, with more memory than the arena has.  In each
of them files of known content are checked, made again and dropped, and numbers sorted, while memctld evicts.  The
seconds count from the start of the guests; towards their end, but after a fifth of them at least, every guest checks
everything it has once more.  Memory being short, the guests' balloons are asked for some meanwhile.

The guests are members of one sharing group, and passes of the scan follow one another: a part of their files, and
their kernels and programs, they have in common.  --sharing off leaves that out.  memctld runs under its supervisor and is
killed every few seconds; --kills off leaves that out.

JSON (with --json) goes to stdout, everything else to stderr.  Exit status: 0 good; 1 a byte was wrong, an audit
failed, a guest was lost; 77 it cannot be tested here, and stdout says why; 16 usage.
"""
import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TREE, "tests"))
sys.path.insert(0, os.path.join(TREE, "tests", "lib"))
import builds  # noqa: E402
import image  # noqa: E402
from lib.daemon import Daemon, Failed, wait_until  # noqa: E402
from machine import BAD, SHARING, Lost, Machine, accelerator  # noqa: E402

MIB = 1 << 20
PAGE = 4096
AUDIT_SECONDS = 4
KILL_SECONDS = 5        # from one death of memctld to the next
SCAN_SECONDS = 5        # from one pass of the sharing scan to the next
LAST_CHECK_SECONDS = 8  # of the time, but at most a fifth of it
FILL = 0.55             # of a guest's memory; the rest is for its kernel and for sorting


def say(text):
    print("guest: " + text, file=sys.stderr, flush=True)


class Counts:
    """What the daemon says of its VMs: the last of each, even of those that have gone; and what its lives before this one
    have counted."""

    def __init__(self, daemon):
        self.daemon, self.vms, self.status, self.peaks, self.past = daemon, {}, {}, {}, {}

    def look(self):
        status = self.daemon.memctl("status")["status"]
        if self.status and status["pid"] != self.status["pid"]:
            for v in self.vms.values():
                for key, value in v.items():
                    if isinstance(value, int):
                        self.past[key] = self.past.get(key, 0) + value
            self.vms = {}
        self.status = status
        self.vms.update({v["name"]: v for v in self.daemon.memctl("vm", "list")["vms"]})
        for key in ("ballooned_bytes", "saved_bytes"):
            self.peaks[key] = max(self.peaks.get(key, 0), sum(v.get(key, 0) for v in self.vms.values()))

    def sum(self, key):
        """Of a number that counts up."""
        return self.past.get(key, 0) + sum(v.get(key, 0) for v in self.vms.values())


class Run:
    def __init__(self, options, files, accel):
        self.options, self.files, self.accel = options, files, accel
        self.problems, self.guests = [], []
        self.audits = self.audit_failures = self.kills = 0
        self.progress = {}

    def audit(self, daemon):
        self.audits += 1
        try:
            daemon.audit()
        except Failed as e:
            self.audit_failures += 1
            say("audit: %s %s" % (e, e.result.stdout[:2000] if e.result else ""))

    def listen(self):
        """Take what the guests said meanwhile."""
        for guest in self.guests:
            while True:
                line = guest.next(0)
                if line is None:
                    break
                if line.startswith("at "):
                    self.progress[guest.name] = [int(w) for w in line.split()[1:]]
                elif BAD.match(line):
                    self.problems.append("%s: %s" % (guest.name, line))

    def kill(self, daemon, counts):
        """memctld dies; its supervisor starts another."""
        counts.look()
        os.kill(counts.status["pid"], signal.SIGKILL)
        self.kills += 1
        wait_until(lambda: daemon.run_memctl("status").returncode == 0, 20, "the next memctld")
        counts.look()

    def work(self, daemon, counts, end):
        next_audit = next_scan = 0
        next_kill = time.monotonic() + 1
        while time.monotonic() < end:
            self.listen()
            counts.look()
            if time.monotonic() > next_audit:
                self.audit(daemon)
                next_audit = time.monotonic() + AUDIT_SECONDS
            if time.monotonic() > next_scan and self.options.sharing != "off":
                daemon.memctl("share", "scan")
                next_scan = time.monotonic() + SCAN_SECONDS
            if time.monotonic() > next_kill and self.options.kills != "off":
                self.kill(daemon, counts)
                next_kill = time.monotonic() + KILL_SECONDS
            time.sleep(max(0, min(0.5, end - time.monotonic())))

    def finish(self):
        """Everything once more: (checks, errors, sorts) of all guests."""
        for guest in self.guests:
            guest.tell("check")
        total = [0, 0, 0]
        for guest in self.guests:
            # the work that went before ends with a report of its own
            last = [int(w) for w in guest.hear("at", 60, strict=False)]
            while True:
                line = guest.next(60)
                if line is None or line.startswith("checked "):
                    break
                if line.startswith("at "):
                    last = [int(w) for w in line.split()[1:]]
            if line is None:
                raise Lost("%s does not check" % guest.name)
            pages, errors, _ = (int(w) for w in line.split()[1:])
            total = [total[0] + last[0] + pages, total[1] + last[1] + errors, total[2] + last[2]]
        return total

    def __call__(self, result):
        o = self.options
        with Daemon(arena=o.arena * MIB, args=SHARING + ["--supervise"]) as daemon, contextlib.ExitStack() as stack:
            counts = Counts(daemon)
            begun = time.monotonic()
            try:
                for i in range(o.guests):
                    guest = Machine(self.files, "guest%d" % i, daemon, o.mib, self.accel, seconds=90,
                                    run=["--sharing", o.sharing])
                    self.guests.append(stack.enter_context(guest))
                for guest in self.guests:
                    guest.hear("READY")
                say("%d guests are up after %.1f s (%s)" % (o.guests, time.monotonic() - begun, self.accel))
                for i, guest in enumerate(self.guests):
                    guest.tell("fill %d %d" % (o.mib * FILL, i + 1))
                for guest in self.guests:
                    guest.hear("filled")
                    guest.tell("run")
                say("filled after %.1f s" % (time.monotonic() - begun))
                self.work(daemon, counts, max(begun + o.seconds - min(LAST_CHECK_SECONDS, o.seconds / 5),
                                              time.monotonic() + o.seconds / 5))
                result["checks"], result["checksum_errors"], result["sorts"] = self.finish()
                self.audit(daemon)
                counts.look()
                for guest in self.guests:
                    guest.off()
                    result["guests_alive"] += 1
                wait_until(lambda: not daemon.memctl("vm", "list")["vms"], 20, "the release of the VMs")
                self.audit(daemon)
            except BaseException:
                for guest in self.guests:
                    print(guest.said(), file=sys.stderr, flush=True)
                raise
            finally:
                result.update(
                    shared_saved_bytes=counts.peaks.get("saved_bytes", 0),
                    ballooned_peak_bytes=counts.peaks.get("ballooned_bytes", 0),
                    kills=self.kills,
                    reported_free_bytes=counts.sum("discarded_pages") * PAGE,
                    evicted_pages=counts.sum("evicted_pages"), compressed_pages=counts.sum("compress_pages"),
                    swapped_pages=counts.sum("swap_out_pages"), refault_pages=counts.sum("refault_pages"),
                    faults=sum(counts.sum("faults_" + k) for k in ("zero", "compressed", "swapped")),
                    scan_passes=counts.sum("scan_passes"), share_pages=counts.sum("share_pages"),
                    zero_dropped_pages=counts.sum("scan_zero_pages"), break_pages=counts.sum("break_pages"),
                    home_pages=counts.sum("home_pages"), orders_late=counts.sum("orders_late"),
                    audits=self.audits, audit_failures=self.audit_failures)


def main():
    parser = argparse.ArgumentParser(prog="tests/guest/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: sys.exit((parser.print_usage(sys.stderr), say(message), 16)[2])
    parser.add_argument("--guests", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--arena", type=int, default=384, help="MiB")
    parser.add_argument("--mib", type=int, default=256, help="MiB a guest")
    parser.add_argument("--sharing", default="group:guests", help="of the guests, as in memctl run")
    parser.add_argument("--kills", choices=("on", "off"), default="on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # the guests are ended on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun = time.monotonic()
    if "MEMCTL_BUILD" not in os.environ:
        why = builds.build(TREE, "build-release")
        if why:
            sys.exit("tests/guest/run: " + why)
        os.environ["MEMCTL_BUILD"] = os.path.join(TREE, "build-release")
    try:
        files = image.make(os.path.abspath(os.environ["MEMCTL_BUILD"]))
    except image.Missing as e:
        print("no guest: %s" % e)
        return 77
    run = Run(options, files, accelerator(files, image.STORE))
    result = {"guests": options.guests, "seconds": options.seconds, "accel": run.accel, "checks": 0,
              "checksum_errors": 0, "sorts": 0, "guests_alive": 0}
    try:
        run(result)
    except (Lost, Failed, OSError, subprocess.SubprocessError) as e:
        run.problems.append("%s: %s" % (type(e).__name__, e))
    # an error that a lost guest could not count any more was told when it was found
    result["checksum_errors"] = max(result["checksum_errors"], sum(": wrong" in p for p in run.problems))
    result.update(problems=run.problems, total_seconds=round(time.monotonic() - begun, 1))
    for problem in run.problems:
        say("FAILED: " + problem)
    print(json.dumps(result) if options.json else "\n".join("%-22s %s" % kv for kv in result.items()), flush=True)
    good = (not run.problems and not result["checksum_errors"] and not result["audit_failures"] and
            result["guests_alive"] == options.guests and result["checks"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
