"""The demo: starts memctld, four emulators and their oracles, shows what happens, and judges.

    run.py --build DIR [--json FILE] [--small] [--rounds N]

Each emulator's results go through a pipe into its oracle, which computes them anew and compares.  When all
oracles are done, and before the emulators give their memory back, the daemon is asked for its numbers and for
an audit.

The emulators are one sharing group, as they hold mostly the same files.  memctld shares at leisure, a pass an hour; here it
may go faster, and a pass is asked for every few seconds.
"""
import argparse
import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "lib"))
import image  # noqa: E402
import progress  # noqa: E402

MIB = 1 << 20
GUESTS = 4
FIRST_USER = 64100  # memctld; the emulators and oracles follow: numbers only, no such users are made
CAUSES = ["zero", "compressed", "swapped", "shared", "protected"]
GROUP = "demo"
SCAN_SECONDS = 5


class Failed(Exception):
    pass


def say(text):
    print(text, flush=True)


def check_userfaultfd():
    """memctld and libmemctl need at least the kind that every process may have."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(323, os.O_CLOEXEC | 1)  # userfaultfd(UFFD_USER_MODE_ONLY)
    if fd >= 0:
        os.close(fd)
        return
    error = ctypes.get_errno()
    if error == errno.ENOSYS:
        raise Failed("this kernel has no userfaultfd: memctl needs Linux 6.1 with CONFIG_USERFAULTFD=y")
    raise Failed("userfaultfd is not permitted here (%s).\nA container's seccomp filter does that: run it "
                 "with `docker run --security-opt seccomp=unconfined`, or with a profile that permits the "
                 "system call userfaultfd, or start the demo on the host." % os.strerror(error))


def call(path, method, parameters=None):
    """One Varlink call to the daemon; its reply's parameters."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(30)
        s.connect(path)
        request = {"method": "org.memctl." + method, "parameters": parameters or {}}
        s.sendall(json.dumps(request).encode() + b"\0")
        data = b""
        while not data.endswith(b"\0"):
            more = s.recv(1 << 16)
            if not more:
                raise Failed("memctld hung up on %s" % method)
            data += more
    reply = json.loads(data[:-1])
    if "error" in reply:
        raise Failed("%s: %s %s" % (method, reply["error"], reply.get("parameters", "")))
    return reply.get("parameters", {})


class Vm:
    def __init__(self, name, plan):
        self.name, self.plan = name, plan
        self.emulator = self.oracle = None
        self.job = self.jobs = 0
        self.doing = "load"
        self.verified = self.wrong = 0
        self.complete = False
        self.numbers = {}
        self.text = b""

    def read(self):
        """Take in what the oracle has said; False when it has ended."""
        try:
            data = os.read(self.oracle.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self.text += data
        *lines, self.text = self.text.split(b"\n")
        for line in lines:
            w = line.decode().split()
            if w[0] == "job":
                self.job, self.jobs = int(w[1]), int(w[3])
                if w[4] != "balloon":  # which stands between all others
                    self.doing = w[4]
                self.verified, self.wrong = int(w[6]), int(w[8])
            elif w[0] == "done":
                self.verified, self.wrong, self.complete = int(w[2]), int(w[4]), w[6] == "1"
        return bool(data)


class Demo:
    def __init__(self, options):
        self.options = options
        self.root = os.geteuid() == 0
        divide = 4 if options.small else 1
        self.arena_bytes = 256 * MIB // divide
        self.guest_bytes = 160 * MIB // divide
        self.rounds = options.rounds or (4 if options.small else 16)
        self.out = None
        self.dir = None
        self.daemon = None
        self.vms = []
        self.peaks = {"arena_peak_bytes": 0, "leased_bytes": 0, "compressed_bytes": 0, "swapped_bytes": 0,
                      "shared_saved_bytes": 0, "ballooned_peak_bytes": 0}
        self.began = time.monotonic()
        self.shown = 0
        self.progress = progress.Progress(quiet=options.json == "-" or options.quiet)

    # -- processes

    def as_user(self, number, command):
        """The command under a user of its own; it ends with us even if we are killed."""
        who = ["--reuid", str(number), "--regid", str(number), "--clear-groups"] if self.root else []
        return ["setpriv", "--pdeathsig", "KILL", *who, "--", *command]

    def make_directory(self):
        # not /tmp: it may be a tmpfs, on which swap files would be memory again
        self.dir = tempfile.mkdtemp(prefix="memctl-demo-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        os.chmod(self.dir, 0o755)
        for name in ("bin", "run", "swap"):
            os.mkdir(self.path(name), 0o755)
        if self.root:
            for name in ("run", "swap"):
                os.chown(self.path(name), FIRST_USER, FIRST_USER)
        # copies: the build directory may lie where these users may not look
        build = self.options.build
        for source in ("daemon/memctld", "packaging/demo.d/demo-emulator", "packaging/demo.d/demo-oracle",
                       "libclient/libmemctl.so.0"):
            if not os.path.exists(os.path.join(build, source)):
                raise Failed("%s has no %s: built without Unicorn, or not completely" % (build, source))
            shutil.copy(os.path.join(build, source), self.path("bin"))

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def start_daemon(self):
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        command = [self.path("bin", "memctld"), "--config", "none", "--socket", self.socket(),
                   "--arena", str(self.arena_bytes), "--swap-dir", self.path("swap"),
                   "--metrics", "none", "--ready-fd", str(writer)]
        # As root the emulators' users, whom the daemon's keeps out of its pages; else there is one user for all.
        users = range(FIRST_USER + 1, FIRST_USER + 1 + GUESTS) if self.root else [os.geteuid()]
        for setting in ("share_groups=%s=%s" % (GROUP, ",".join(map(str, users))), "ShareRateMax=1000000",
                        "ShareScanGHz=1000"):
            command += ["--set", setting]
        if self.root:
            command += ["--socket-mode", "0666"]
        with open(self.path("memctld.log"), "wb") as log:
            self.daemon = subprocess.Popen(self.as_user(FIRST_USER, command), stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, pass_fds=[writer], start_new_session=True)
        os.close(writer)
        with os.fdopen(reader, "rb") as ready:
            if not ready.read(1):
                self.daemon.wait(10)
                raise Failed("memctld did not start")

    def socket(self):
        return self.path("run", "memctld.sock")

    def daemon_log(self):
        with open(self.path("memctld.log"), errors="replace") as f:
            return f.read()[-4000:]

    def daemon_end(self):
        return "memctld ended with status %d:\n%s" % (self.daemon.returncode, self.daemon_log())

    def start_vm(self, number):
        vm = self.vms[number]
        env = dict(os.environ, LD_LIBRARY_PATH=self.path("bin"))
        extra = ["--" + self.options.twin] if self.options.twin and number == 0 else []
        command = [self.path("bin", "demo-emulator"), "--socket", self.socket(), "--sharing", "group:" + GROUP,
                   *extra, vm.name, vm.plan]
        vm.emulator = subprocess.Popen(
            self.as_user(FIRST_USER + 1 + number, command),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, start_new_session=True)
        vm.oracle = subprocess.Popen(
            self.as_user(FIRST_USER + 1 + GUESTS + number, [self.path("bin", "demo-oracle"), vm.plan]),
            stdin=vm.emulator.stdout, stdout=subprocess.PIPE, start_new_session=True)
        vm.emulator.stdout.close()
        os.set_blocking(vm.oracle.stdout.fileno(), False)

    def clean(self):
        processes = [p for vm in self.vms for p in (vm.emulator, vm.oracle)] + [self.daemon]
        processes = [p for p in processes if p]
        for p in processes:
            if p.poll() is None:
                p.kill()
        for p in processes:
            p.wait()
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    # -- numbers

    def look(self):
        """The daemon's numbers now; keeps their peaks."""
        status = call(self.socket(), "Status")["status"]
        vms = call(self.socket(), "ListVms")["vms"]
        now = {"arena_peak_bytes": arena_number(status, "peak_bytes"),
               "leased_bytes": sum(v.get("leased_bytes", 0) for v in vms),
               "compressed_bytes": sum(v.get("compressed_bytes", 0) for v in vms),
               "swapped_bytes": sum(v.get("swapped_bytes", 0) for v in vms),
               "shared_saved_bytes": sum(v.get("saved_bytes", 0) for v in vms),
               "ballooned_peak_bytes": sum(v.get("ballooned_bytes", 0) for v in vms)}
        now["arena_peak_bytes"] = max(now["arena_peak_bytes"], arena_number(status, "used_bytes"))
        for name, value in now.items():
            self.peaks[name] = max(self.peaks[name], value)
        now["used_bytes"] = arena_number(status, "used_bytes")
        return now

    def show(self, now, at_end=False):
        """On a terminal the line of progress; elsewhere what memory does, every five seconds; at the end in any case."""
        seconds = time.monotonic() - self.began
        done, whole = sum(v.job for v in self.vms), sum(v.jobs for v in self.vms)
        line = ("arena %3d of %d MiB, compressed %3d, swapped %3d, saved %3d, ballooned %3d; verified %d, %d wrong; %s") % (
            now["used_bytes"] // MIB, self.arena_bytes // MIB,
            now["compressed_bytes"] // MIB, now["swapped_bytes"] // MIB, now["shared_saved_bytes"] // MIB,
            now["ballooned_peak_bytes"] // MIB, sum(v.verified for v in self.vms),
            sum(v.wrong for v in self.vms), " ".join(v.doing for v in self.vms))
        self.progress.show(progress.line("demo", done, whole, seconds, "jobs") + "   " + line)
        if at_end or ((not self.progress.shown or not sys.stdout.isatty()) and seconds - self.shown >= 5):
            self.progress.clear()
            self.shown = seconds
            say("%3d s %3d %%  %s" % (seconds, 100 * done // whole if whole else 0, line))

    # -- the run

    def run(self):
        if self.options.json:
            # now: a file that cannot be written is known at once, and no earlier run's numbers stay in it
            self.out = sys.__stdout__ if self.options.json == "-" else open(self.options.json, "w")
        check_userfaultfd()
        self.make_directory()
        say("Choosing files of this machine")
        plans = image.write_plans(self.dir, self.guest_bytes // image.PAGE, self.rounds, GUESTS)
        self.vms = [Vm("vm%d" % (i + 1), plan) for i, plan in enumerate(plans)]
        self.start_daemon()
        say("%d emulators with %d MiB of guest RAM each; the arena has %d MiB" % (
            GUESTS, self.guest_bytes // MIB, self.arena_bytes // MIB))
        if self.root:
            say("memctld runs as user %d, the emulators as %d ... %d" % (
                FIRST_USER, FIRST_USER + 1, FIRST_USER + GUESTS))
        self.began = time.monotonic()
        for i in range(GUESTS):
            self.start_vm(i)
        waiting = list(self.vms)
        next_scan = 0
        while waiting:
            time.sleep(0.25)
            ended = [vm for vm in waiting if not vm.read()]
            waiting = [vm for vm in waiting if vm not in ended]
            if self.daemon.poll() is not None:
                raise Failed("the guests have no memory any more")
            for vm in ended:
                if not vm.complete:
                    raise Failed("%s did not come to its end: %d pages verified, %d wrong" % (
                        vm.name, vm.verified, vm.wrong))
            if time.monotonic() > next_scan:
                call(self.socket(), "ScanVm")
                next_scan = time.monotonic() + SCAN_SECONDS
            now = self.look()
            self.show(now, at_end=not waiting)
        return self.judge()

    def judge(self):
        for vm in self.vms:
            vm.oracle.wait()
            vm.numbers = call(self.socket(), "ShowVm", {"vm": vm.name})["vm"]
        audit = call(self.socket(), "Audit", {"vm": ""})
        self.look()
        seconds = time.monotonic() - self.began
        for vm in self.vms:
            vm.emulator.stdin.close()
        for vm in self.vms:
            if vm.emulator.wait(60) != 0:
                raise Failed("%s: its emulator ended with status %d" % (vm.name, vm.emulator.returncode))
        self.daemon.send_signal(signal.SIGTERM)
        if self.daemon.wait(60) != 0:
            raise Failed("memctld did not end well")
        return self.report(seconds, audit)

    def report(self, seconds, audit):
        verified, wrong = sum(v.verified for v in self.vms), sum(v.wrong for v in self.vms)
        for name in ("compressed", "swapped"):
            # what rose and fell between two looks
            most = max(v.numbers.get(name + "_peak_bytes", 0) for v in self.vms)
            self.peaks[name + "_bytes"] = max(self.peaks[name + "_bytes"], most)
        most = max(v.numbers.get("ballooned_peak_bytes", 0) for v in self.vms)
        self.peaks["ballooned_peak_bytes"] = max(self.peaks["ballooned_peak_bytes"], most)
        inflated = {name: sum(v.numbers.get(name, 0) for v in self.vms)
                    for name in ("inflated_pages", "deflated_pages", "balloon_refused_pages", "balloon_touched_pages")}
        say("")
        print_table(self.vms)
        say("")
        say("leased %d MiB; at most %d of %d MiB of arena used, %d MiB compressed, %d MiB on disk, %d MiB saved by "
            "sharing, %d MiB in balloons; %d s" % (
            self.peaks["leased_bytes"] // MIB, self.peaks["arena_peak_bytes"] // MIB, self.arena_bytes // MIB,
            self.peaks["compressed_bytes"] // MIB, self.peaks["swapped_bytes"] // MIB,
            self.peaks["shared_saved_bytes"] // MIB, self.peaks["ballooned_peak_bytes"] // MIB, seconds))
        if not audit.get("ok"):
            say("audit: the ledger disagrees with the kernel: %s" % json.dumps(audit.get("audit")))
        wall = self.peaks["arena_peak_bytes"] <= self.arena_bytes
        if not wall:
            say("the arena was larger than it may be")
        say("verified %d pages, %d wrong" % (verified, wrong))
        result = {"schema": "memctl/1", "verified_pages": verified, "wrong_pages": wrong,
                  "arena_bytes": self.arena_bytes, **self.peaks, **inflated, "audit_ok": bool(audit.get("ok")),
                  "seconds": round(seconds, 1),
                  "vms": [{"name": v.name, "verified_pages": v.verified, "wrong_pages": v.wrong,
                           **{k: n for k, n in v.numbers.items() if k != "name"}} for v in self.vms]}
        if self.out:
            json.dump(result, self.out, indent=2)
            self.out.write("\n")
            self.out.flush()
        return 0 if wrong == 0 and verified > 0 and wall and audit.get("ok") else 1


def arena_number(status, name):
    return status.get("arena_" + name, status.get("arena", {}).get(name, 0))


def latency(vm, cause):
    """(p50, p99) of the VM's faults of one cause, in microseconds, or None."""
    c = vm.numbers.get("faults", {}).get(cause, {})
    return (c["p50_ns"] / 1000, c["p99_ns"] / 1000) if c.get("count") else None


def print_table(vms):
    rows = [["VM", "resident", "compressed", "swapped", "shared", "saved", "ballooned", "faults", *("%s p50/p99" % c for c in CAUSES)]]
    for vm in vms:
        n = vm.numbers
        faults = sum(n.get("faults_" + c, 0) for c in CAUSES)
        row = [vm.name]
        row += ["%d MiB" % (n.get(k + "_bytes", 0) // MIB) for k in ("resident", "compressed", "swapped", "shared",
                                                                             "saved", "ballooned")]
        row.append(str(faults))
        for cause in CAUSES:
            l = latency(vm, cause)
            row.append("%.0f / %.0f us" % l if l else "-")
        rows.append(row)
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for r in rows:
        say("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))))


def stop(number, _frame):
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(prog="packaging/demo",
                                     description="four emulators in an arena too small for them")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="write the numbers of the run to FILE; -: to stdout, and "
                        "everything else to stderr")
    parser.add_argument("--small", action="store_true", help="a quarter of the memory, half a minute")
    parser.add_argument("-q", "--quiet", action="store_true", help="no line of progress on a terminal")
    parser.add_argument("--rounds", type=int, help="rounds of work in each guest (16; small: 4)")
    parser.add_argument("--twin", choices=["flip", "unkept"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)
    if options.json == "-":
        sys.stdout = sys.stderr
    demo = Demo(options)
    try:
        return demo.run()
    except (Failed, image.TooFewFiles, OSError, subprocess.TimeoutExpired) as why:
        demo.progress.clear()
        say("")
        print("demo: %s" % why, file=sys.stderr)
        if demo.daemon and isinstance(why, ConnectionError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                demo.daemon.wait(5)  # its connections go a moment before it does
        if demo.daemon and demo.daemon.poll():
            print("demo: " + demo.daemon_end(), file=sys.stderr)
        return 1
    finally:
        demo.progress.clear()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        demo.clean()


if __name__ == "__main__":
    sys.exit(main())
