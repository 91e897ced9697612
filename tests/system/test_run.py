#!/usr/bin/env python3
"""memctl run and libmemctl-preload.so: programs that know nothing of memctl, here Python and QEMU without a guest."""
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import build_dir, wait_until  # noqa: E402
from system.puppet import MIB, daemon  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from torture.actor import NOBODY, open_to_all  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
USAGE, UNREACHABLE = 16, 69

# what the small programs begin with: a memfd of 48 MiB is their guest's memory, mapped shared
PRELUDE = """
import array, ctypes, errno, mmap, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
MIB, SIZE = 1 << 20, 48 << 20
def failed(call, *args):
    ctypes.set_errno(0)
    r = call(*args)
    return errno.errorcode.get(ctypes.get_errno(), "0") if r in (-1, 2 ** 64 - 1) else "it did it"
def at(m):
    return ctypes.addressof(ctypes.c_char.from_buffer(m))
def door(name="guest", flags=0):
    fd = os.memfd_create(name, flags)
    os.ftruncate(fd, SIZE)
    return fd
def say(*words):
    print(*words, flush=True)
"""
RAM = PRELUDE + "fd = door(); ram = mmap.mmap(fd, SIZE)\n"


def usable():
    """A sanitizer's library must be the first that is loaded, which the preload library then is."""
    if re.search(r"lib[at]san", subprocess.run(["ldd", MEMCTL], capture_output=True, text=True, check=False).stdout):
        skip("a sanitized library cannot be preloaded")


def command(script, *options, wrapper=(), name="guest", mem="48M"):
    door = () if "--fd" in options else ("--memfd-name", "guest")
    return [MEMCTL, "run", "--name", name, "--mem", mem, *door, *options, "--", *wrapper, sys.executable, "-c", script]


def run(d, script, *options, status=0, **more):
    usable()
    result = subprocess.run(command(script, *options, **more), env=d.environ(), stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=50, check=False)
    check_eq(result.returncode, status, "exit; %s" % result.stderr[-600:])
    return result


def start(d, script, *options):
    usable()
    p = subprocess.Popen(command(script, *options), env=d.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    check_eq(p.stdout.readline().strip(), "there", "first line")
    return p


FILL = """
import zlib
pages = SIZE // 4096
def page(i):
    return (b"%d " % i).ljust(2048) + os.urandom(2048)
sums = []
for i in range(pages):
    p = page(i)
    ram[i * 4096:(i + 1) * 4096] = p
    sums.append(zlib.crc32(p))
wrong = sum(zlib.crc32(ram[i * 4096:(i + 1) * 4096]) != sums[i] for i in range(pages))
say(pages, "pages", wrong, "wrong")
"""


def test_a_program_on_a_lease():
    with daemon(32) as d:
        out = run(d, RAM + FILL + "say(os.environ['MEMCTL_VM_NAME']); os.system('%s audit >/dev/null')" % MEMCTL).stdout
        check_eq(out.split("\n")[:2], ["12288 pages 0 wrong", "guest"], "output")
        d.audit()


def test_it_says_what_becomes_of_memctld():
    """Killed, and with a guest that runs; and when it lets the guest go: all bytes are there, and each is told in one line."""
    with SupervisedDaemon(0, arena=64 * MIB) as d:
        p = start(d, RAM + FILL.replace("say(", "say('there'); sys.stdin.readline(); say(") + """
sys.stdin.readline()
libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(MIB))
wrong = sum(zlib.crc32(ram[i * 4096:(i + 1) * 4096]) != sums[i] for i in range(256, pages))
say(wrong, "wrong", len(ram[:MIB].strip(bytes(1))))
""")
        os.kill(d.child(), signal.SIGKILL)
        check("memctld is gone" in p.stderr.readline(), "the first line")
        check_eq(p.stderr.readline(), "memctl: guest: memctld is back\n", "the second line")
        p.stdin.write("\n")
        p.stdin.flush()
        check_eq(p.stdout.readline(), "12288 pages 0 wrong\n", "output")
        d.run_memctl("vm", "release", "guest")
        check("let this VM go" in p.stderr.readline(), "the third line")
        p.stdin.write("\n")
        p.stdin.flush()
        check_eq(p.stdout.readline(), "0 wrong 0\n", "output")
        p.stdin.close()
        check_eq([p.wait(20), p.stderr.read()], [0, ""], "exit")


def test_the_vm_is_as_ordered():
    with daemon(64) as d:
        p = start(d, RAM + "say('there'); sys.stdin.read()", "--reservation", "4M", "--limit", "16MiB", "--shares", "77",
                  "--sharing", "zero", "--swap-dir", d.swap_dir, "--balloon-max", "25%",
                  "--stall-budget", "3%")
        vm = d.memctl("vm", "show", "guest")["vm"]
        check_eq([vm["size_bytes"], vm["reservation_bytes"], vm["limit_bytes"], vm["shares"], vm["leased_bytes"],
                  vm["sharing"], vm["balloon_max"], vm["stall_budget"]],
                 [48 * MIB, 4 * MIB, 16 * MIB, 77, 48 * MIB, "zero", str(12 * MIB), "3%"], "the VM")
        p.stdin.close()
        check_eq(p.wait(20), 0, "exit")
        wait_until(lambda: not d.memctl("vm", "list")["vms"], 10, "its end")


def test_behind_wrappers():
    with daemon(64) as d:
        for wrapper in (["env", "A=1"], ["setpriv", "--no-new-privs"], ["nice", "env"], ["sh", "-c", '"$@"; exit', "sh"]):
            out = run(d, RAM + "ram[5] = 7; say(ram[5])", wrapper=wrapper)
            check_eq([out.stdout, out.stderr], ["7\n", ""], wrapper[0])


def test_an_inherited_memfd():
    with daemon(32) as d:
        script = PRELUDE + "fd = os.open('/proc/self/fd/900', os.O_RDWR); ram = mmap.mmap(fd, SIZE)\n" + FILL
        check_eq(run(d, script, "--fd", "900").stdout, "12288 pages 0 wrong\n", "output")


def test_a_memfd_by_system_call():
    number = {"x86_64": 319, "aarch64": 279}.get(os.uname().machine) or skip("what is its number here?")
    script = PRELUDE + "fd = libc.syscall(%d, b'guest', 0); os.ftruncate(fd, SIZE); ram = mmap.mmap(fd, SIZE)\n" % number
    with daemon(32) as d:
        check_eq(run(d, script + FILL).stdout, "12288 pages 0 wrong\n", "output")
        p = start(d, script + "say('there'); sys.stdin.read()")
        check_eq(d.memctl("vm", "show", "guest")["vm"]["leased_bytes"], 48 * MIB, "leased")
        p.communicate()


def test_content_comes_along():
    """What was written into the memfd before it was mapped; the descriptor's position stays."""
    with daemon(64) as d:
        script = PRELUDE + """fd = door()
os.pwrite(fd, b"first", 0); os.pwrite(fd, b"last", SIZE - 4); os.lseek(fd, 17, 0)
ram = mmap.mmap(fd, SIZE)
say(ram[0:6], ram[SIZE - 5:], os.lseek(fd, 0, 1))
"""
        check_eq(run(d, script).stdout, "b'first\\x00' b'\\x00last' 17\n", "output")


def test_writing_into_a_mapped_memfd_fails():
    """It would be lost."""
    with daemon(64) as d:
        script = RAM + "say(failed(libc.pwrite, fd, b'abc', ctypes.c_size_t(3), ctypes.c_long(0)), ram[0])"
        check_eq(run(d, script).stdout, "EPERM 0\n", "output")
        script = script.replace("fd = door()", "fd = os.open('/proc/self/fd/900', os.O_RDWR)")
        check_eq(run(d, script, "--fd", "900").stdout, "EPERM 0\n", "the second door")


def test_pieces_of_one_memfd():
    with daemon(64) as d:
        script = PRELUDE + """fd = door()
low, high = mmap.mmap(fd, 16 * MIB), mmap.mmap(fd, 32 * MIB, offset=16 * MIB)
low[-1], high[0] = 1, 2
libc.fallocate(fd, 3, ctypes.c_long(16 * MIB - 4096), ctypes.c_long(8192))
say(low[-1], high[0])
high.close(); say("there"); sys.stdin.read()
"""
        usable()
        p = subprocess.Popen(command(script), env=d.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        check_eq([p.stdout.readline(), p.stdout.readline()], ["0 0\n", "there\n"], "a discard across both")
        check_eq(d.memctl("vm", "show", "guest")["vm"]["leased_bytes"], 16 * MIB, "one was given back")
        p.stdin.close()
        check_eq(p.wait(20), 0, "exit")


def test_discards_are_announced():
    with daemon(32) as d:
        p = start(d, RAM + """
ram[:] = b"\\x55" * SIZE
say("there"); sys.stdin.readline()
PUNCH = 3
say(failed(libc.fallocate, fd, PUNCH, ctypes.c_long(4096 * 10 + 100), ctypes.c_long(4096 * 1000)))
say(set(ram[40960:41060]), set(ram[41060:41060 + 4096000]), set(ram[41060 + 4096000:41060 + 4097000]))
say(failed(libc.madvise, ctypes.c_void_p(at(ram) + 8 * MIB), ctypes.c_size_t(4 * MIB), 9))
say(set(ram[8 * MIB:12 * MIB]), ram[8 * MIB - 1], ram[12 * MIB])
say(failed(libc.madvise, ctypes.c_void_p(at(ram)), ctypes.c_size_t(MIB * 32), 4), ram[0], ram[20 * MIB])
say("end"); sys.stdin.readline()
""")
        before = d.memctl("vm", "show", "guest")["vm"]
        p.stdin.write("\n")
        p.stdin.flush()
        lines = [p.stdout.readline().strip() for _ in range(6)]
        check_eq(lines, ["it did it", "{85} {0} {85}", "it did it", "{0} 85 85", "it did it 85 85", "end"], "output")
        after = d.memctl("vm", "show", "guest")["vm"]
        check(after["discarded_pages"] - before["discarded_pages"] >= 999 + 1024, "%d pages discarded" % (
            after["discarded_pages"] - before["discarded_pages"]))
        d.audit()
        p.stdin.close()
        check_eq(p.wait(20), 0, "exit")


test_discards_are_announced.seconds = 120
# a reason for each, said on stderr: expression, error, words
REFUSED = [
    ("failed(libc.mmap, None, ctypes.c_size_t(SIZE), 3, 1, fd, 0)", "EBUSY", "a second time"),
    ("failed(libc.mmap, None, ctypes.c_size_t(SIZE), 3, 2, fd, 0)", "EINVAL", "shared"),
    ("failed(libc.mmap, None, ctypes.c_size_t(SIZE), 1, 1, door(), 0)", "EINVAL", "reading and writing"),
    ("failed(libc.mmap, None, ctypes.c_size_t(SIZE + 4096), 3, 1, door(), 0)", "EINVAL", "beyond the end"),
    ("failed(libc.mmap, None, ctypes.c_size_t(SIZE), 3, 1, door(), 0)", "ENOSPC", "larger"),
    ("failed(libc.mmap, ctypes.c_void_p(at(ram) + 4096), ctypes.c_size_t(4096), 3, 0x32, -1, 0)", "EBUSY", "mapped over"),
    ("failed(libc.munmap, ctypes.c_void_p(at(ram)), ctypes.c_size_t(4096))", "EINVAL", "as a whole"),
    ("failed(libc.mremap, ctypes.c_void_p(at(ram)), ctypes.c_size_t(SIZE), ctypes.c_size_t(4096), 0)", "EINVAL", "moved"),
    ("failed(libc.madvise, ctypes.c_void_p(at(ram)), ctypes.c_size_t(MIB), 23)", "EPERM", "prealloc"),
    ("failed(libc.madvise, ctypes.c_void_p(at(ram)), ctypes.c_size_t(MIB), 102)", "EINVAL", "guard"),
    ("failed(libc.mlockall, 1)", "EPERM", "mem-lock"),
    ("failed(libc.memfd_create, b'guest', 4)", "EINVAL", "hugetlb"),
    ("failed(libc.open, sys.executable.encode(), os.O_DIRECT)", "EINVAL", "O_DIRECT"),
    ("failed(libc.openat, -100, sys.executable.encode(), os.O_DIRECT)", "EINVAL", "O_DIRECT"),
    ("failed(libc.fcntl, 0, 4, os.O_DIRECT)", "EINVAL", "O_DIRECT"),
    ("failed(libc.open, b'/dev/vhost-net', 2)", "EPERM", "vhost"),
    ("failed(libc.open, b'/dev/vfio/vfio', 2)", "EPERM", "VFIO"),
    ("failed(libc.open, b'/dev/udmabuf', 2)", "EPERM", "blob"),
    ("failed(libc.ioctl, 0, 0xaf01, None)", "EPERM", "vhostfd"),
    ("failed(libc.ioctl, 0, 0x3b71, None)", "EPERM", "VFIO"),
    ("failed(libc.ioctl, 0, 0x3b85, None)", "EPERM", "VFIO"),
    ("failed(libc.fallocate, fd, 0, ctypes.c_long(0), ctypes.c_long(4096))", "ENOTSUP", None),
    ("send()", "EPERM", "another process"),
]
SEND = """
def send():
    a, b = socket.socketpair()
    try:
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, fd]))])
    except OSError as e:
        return errno.errorcode[e.errno]
"""


def test_refusals():
    with daemon(64) as d:
        result = run(d, RAM + SEND + "".join("say(%s)\n" % call for call, _, _ in REFUSED) + "ram[9] = 9; say(ram[9])")
        lines, told = result.stdout.split(), result.stderr.splitlines()
        for (call, error, words), line in zip(REFUSED, lines):
            check_eq(line, error, call)
            if words:
                check(words in told[0] and told[0].startswith("memctl: guest: "), "%s: %s" % (call, told[0]))
                told.pop(0)
        check_eq([lines[len(REFUSED):], told], [["9"], []], "the rest")
        d.audit()


def test_what_harms_is_swallowed():
    """Huge pages, merging, forking, dropping: as if done, and the kernel never heard of it."""
    with daemon(64) as d:
        script = RAM + """
ram[0] = 1
for advice in (14, 12, 11, 17, 25, 8, 20, 21, 3, 4, 24):
    say(failed(libc.madvise, ctypes.c_void_p(at(ram)), ctypes.c_size_t(SIZE), advice))
lines, ours = open("/proc/self/smaps").read().splitlines(), False
for line in lines:
    ours |= line.startswith("%x-" % at(ram))
    if ours and line.startswith("VmFlags"):
        say([f in line.split() for f in ("um", "uw", "dc", "nh", "dd", "hg", "mg")])
        break
"""
        check_eq(run(d, script).stdout.splitlines(), ["it did it"] * 11 + [str([True] * 5 + [False] * 2)], "output")


def test_a_child_leaves_the_lease_alone():
    with daemon(64) as d:
        script = RAM + """
ram[0] = 3; where = at(ram)
if os.fork() == 0:
    libc.munmap(ctypes.c_void_p(where), ctypes.c_size_t(SIZE))
    libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096))
    os._exit(0)
say(os.wait()[1], ram[0])
"""
        check_eq(run(d, script).stdout, "0 3\n", "output")


def test_shared_memory_in_the_programs_hands():
    """Pages that are shared, and private copies of such, are advised away, discarded, written to files, met by a fork and
    unmapped."""
    with daemon(96, settings=["ShareScanTime=0", "ShareScanGHz=1000000", "ShareRateMax=10000000"]) as d:
        script = PRELUDE + """fd = door()
low, high = mmap.mmap(fd, 16 * MIB), mmap.mmap(fd, 32 * MIB, offset=16 * MIB)
half = os.urandom(8 * MIB)
low[:] = half + half; high[:] = low[:] + low[:]
say("there"); sys.stdin.readline()
for i in range(0, 4 * MIB, 4096):
    low[i] ^= 255
own = bytes(b ^ 255 if i % 4096 == 0 else b for i, b in enumerate(half[:4 * MIB])) + half[4 * MIB:]
say(low[:8 * MIB] == own, libc.madvise(ctypes.c_void_p(at(low)), ctypes.c_size_t(16 * MIB), 4), low[:8 * MIB] == own)
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
file = os.memfd_create("file", 0)
say(os.write(file, high), os.pread(file, 32 * MIB, 0) == half * 4, os.write(file, low), low[:] == own + half)
libc.fallocate(fd, 3, ctypes.c_long(2 * MIB), ctypes.c_long(4 * MIB))
libc.fallocate(fd, 3, ctypes.c_long(12 * MIB), ctypes.c_long(8 * MIB))
say(low[:] == own[:2 * MIB] + bytes(4 * MIB) + own[6 * MIB:] + half[:4 * MIB] + bytes(4 * MIB), high[:] == bytes(4 * MIB) + half[4 * MIB:] + half * 3)
say("again"); sys.stdin.readline()
high.close()
say(low[:] == own[:2 * MIB] + bytes(4 * MIB) + own[6 * MIB:] + half[:4 * MIB] + bytes(4 * MIB)); sys.stdin.read()
"""

        def shared(mib):
            d.memctl("share", "scan")
            time.sleep(0.2)
            return d.memctl("vm", "show", "guest")["vm"]["shared_bytes"] > mib * MIB

        p = start(d, script, "--sharing", "vm")
        wait_until(lambda: shared(46), 20, "sharing")
        p.stdin.write("\n")
        p.stdin.flush()
        for line in ("True 0 True", "%d True %d True" % (32 * MIB, 16 * MIB), "True True", "again"):
            check_eq(p.stdout.readline().strip(), line, "what it finds")
        d.audit()
        wait_until(lambda: shared(24), 20, "sharing again")
        p.stdin.write("\n")
        p.stdin.flush()
        check_eq(p.stdout.readline().strip(), "True", "what is left")
        d.audit()
        check_eq(d.memctl("vm", "show", "guest")["vm"]["leased_bytes"], 16 * MIB, "leased")
        p.stdin.close()
        check_eq(p.wait(20), 0, "exit")


test_shared_memory_in_the_programs_hands.seconds = 60


def test_refused_by_the_daemon():
    with daemon(64) as d:
        result = run(d, RAM, "--reservation", "1G", status=1, mem="2G")
        check("memctl: guest: " in result.stderr and "OSError" in result.stderr, result.stderr)
        p = start(d, RAM + "say('there'); sys.stdin.read()")
        result = run(d, RAM, status=1)
        check("name" in result.stderr, result.stderr)
        p.communicate()


def test_a_restart_gets_its_name():
    with daemon(64) as d:
        for _ in range(3):
            check_eq(run(d, RAM + "ram[:] = b'x' * SIZE; say(1)").stdout, "1\n", "output")


def test_memory_that_is_never_asked_for():
    with daemon(64) as d:
        check_eq(run(d, PRELUDE + "fd = door('other'); ram = mmap.mmap(fd, SIZE); ram[0] = 1; say(ram[0])").stdout, "1\n",
                 "a memfd of another name")
        result = run(d, PRELUDE + "fd = door()")
        check("without mapping its memfd" in result.stderr, result.stderr)


def test_exit_codes():
    with daemon(64) as d:
        run(d, "raise SystemExit(7)", status=7)
        run(d, "import os; os.kill(os.getpid(), 9)", status=137)
        for words, status in ((["/nowhere/program"], 127), (["/"], 126)):
            result = subprocess.run([MEMCTL, "run", "--name", "a", "--mem", "1M", "--fd", "99", "--", *words],
                                    env=d.environ(), capture_output=True, text=True, check=False)
            check_eq(result.returncode, status, words[0])


def test_signals_reach_the_program():
    with daemon(64) as d:
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            p = start(d, RAM + """
import signal
signal.signal(%d, lambda *_: (say("got it"), os._exit(5)))
say("there")
while True: time.sleep(1)
""" % sig)
            p.send_signal(sig)
            check_eq([p.wait(20), p.communicate()[0]], [5, "got it\n"], sig.name)


def in_a_terminal(d, script, keys):
    """Everything that the program shows, its exit, and whether the terminal is as it was; keys: typed when it is there."""
    usable()
    ours, its = os.openpty()
    before = termios.tcgetattr(its)
    with subprocess.Popen(command(script), env=d.environ(), stdin=its, stdout=its, stderr=its, start_new_session=True,
                          preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as p:
        shown = b""
        while b"\n" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, keys)
        status = p.wait(20)
    as_before = termios.tcgetattr(its) == before
    os.close(its)
    with contextlib.suppress(OSError):      # its end
        while True:
            shown += os.read(ours, 1000)
    os.close(ours)
    return shown.decode().split(), status, as_before


def test_the_terminal_is_the_programs():
    with daemon(64) as d:
        raw = RAM + "import tty; tty.setraw(0); say('there'); say(os.read(0, 1)); os.kill(os.getpid(), 9)"
        check_eq(in_a_terminal(d, raw, b"\x03"), (["there", "b'\\x03'"], 137, True), "killed in raw mode")
        script = RAM + """
import signal
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
say("there", os.isatty(0)); time.sleep(1); time.sleep(1); os._exit(5)
"""
        check_eq(in_a_terminal(d, script, b"\x03"), (["there", "True", "^Cinterrupted"], 5, True), "the interrupt key, once")


def test_a_program_that_does_not_ask():
    """Static, or set-user-ID: the library is not in it.  It runs on, and somebody says so."""
    with daemon(64) as d:
        result = run(d, "import time; time.sleep(12)")
        check("has not asked for memory" in result.stderr, result.stderr)


def test_a_user_without_userfaultfd():
    usable()
    if os.geteuid() != 0:
        skip("only root can be another user")
    d = daemon(64)
    with open_to_all(d):
        words = [*NOBODY, *command(RAM + "ram[1] = 2; say(ram[1])")]
        words[words.index(sys.executable)] = "/usr/bin/python3"
        for program in (MEMCTL, "/usr/bin/python3"):
            if subprocess.run([*NOBODY, "test", "-x", program], check=False).returncode:
                skip("other users may not run %s" % program)
        result = subprocess.run(words, env=d.environ(), capture_output=True, text=True, check=False)
        if result.returncode == 0:
            skip("everybody may have a full userfaultfd here")
        check("user mode only" in result.stderr and "/dev/userfaultfd" in result.stderr, result.stderr)
        words.insert(words.index("run") + 1, "--user-mode")
        result = subprocess.run(words, env=d.environ(), capture_output=True, text=True, check=False)
        check_eq([result.stdout, result.stderr], ["2\n", ""], "output")


# ---- QEMU's command line

def printed(*words, options=("--mem", "256M"), status=0):
    result = subprocess.run([MEMCTL, "run", "--name", "web", *options, "--print", "--", *words], capture_output=True,
                            text=True, check=False)
    check_eq(result.returncode, status, "exit of %s; %s" % (" ".join(words), result.stderr))
    return result.stderr if status else re.sub(r"^(\w+=\S+ )+", "", result.stdout).strip()


def test_what_is_added_to_qemu():
    size = 256 * MIB
    backend = "-object memory-backend-memfd,id=memctl0,size=%d,share=on -machine memory-backend=memctl0" % size
    balloon = "-device virtio-balloon-pci,id=memctl-balloon,free-page-reporting=on,deflate-on-oom=on"
    all_of_it = "%s %s" % (backend, balloon)
    memory = "-m %dK" % (size // 1024)
    for words, more in (
            (["qemu-system-x86_64"], "%s %s" % (memory, all_of_it)),
            (["env", "qemu-system-x86_64", "-M", "q35"], "%s %s" % (memory, all_of_it)),
            (["qemu-system-x86_64", "-m", "256"], all_of_it),
            (["qemu-system-x86_64", "--m", "size=256M,slots=2"], all_of_it),
            (["qemu-system-x86_64", "-M", "microvm"], "%s %s" % (memory, backend)),
            (["qemu-system-aarch64", "-machine", "type=virt,gic-version=3"], "%s %s" % (memory, all_of_it)),
            (["qemu-system-arm", "-M", "raspi2b"], "%s %s" % (memory, backend)),
            (["qemu-system-x86_64", "-device", "virtio-balloon-pci"], "%s %s" % (memory, backend)),
            (["qemu-system-x86_64", "-object", "memory-backend-memfd,id=a,size=256M", "-M", "pc,memory-backend=a"],
             "%s %s" % (memory, balloon))):
        check_eq(printed(*words), "%s %s" % (" ".join(words), more), "command")
    check_eq(printed("qemu-system-x86_64", "-m", "1G", "-append", "a 'b'", options=()).split(" -object")[0],
             "qemu-system-x86_64 -m 1G -append 'a '\\''b'\\'''", "quoting")
    check("memory-backend-file,id=memctl0,size=%d,mem-path=/proc/self/fd/900,share=on" % size in
          printed("qemu-system-x86_64", options=("--mem", "256M", "--fd", "900")), "the second door")


def test_what_is_refused_of_qemu():
    for words, why in (
            ("-mem-prealloc", "reservation"), ("-object memory-backend-memfd,id=a,size=1G,prealloc=on", "reservation"),
            ("-object memory-backend-memfd,id=a,size=1G,hugetlb=on", "4 KiB"), ("-mem-path /dev/hugepages", "memctld"),
            ("-overcommit mem-lock=on", "reservation"), ("-device vfio-pci,host=1:0.0", "lose bytes"),
            ("-netdev tap,id=n,vhost=on", "vhost"), ("-netdev vhost-user,id=n,chardev=c", "vhost"),
            ("-device vhost-user-fs-pci,chardev=c", "process"), ("-netdev tap,id=n,fd=5,vhostfd=6", "vhost"),
            ("-device virtio-gpu-pci,blob=on", "memfd"), ("-drive file=a,cache=none", "O_DIRECT"),
            ("-drive file=a,aio=native,cache.direct=on", "O_DIRECT"), ("-blockdev driver=file,cache.direct=on", "O_DIRECT"),
            ("-blockdev {\"driver\":\"file\",\"cache\":{\"direct\":true}}", "O_DIRECT"),
            ("-object memory-backend-ram,id=a,size=1G", "memfd"), ("-m 512", "-m is"), ("-m lots", "understood"),
            ("-object memory-backend-file,id=a,size=1G,mem-path=/x -machine pc,memory-backend=a", "memfd"),
            ("-object memory-backend-memfd,id=a,size=1G,share=off -machine pc,memory-backend=a", "share=on")):
        if words == "-m lots":
            check("-m" in printed("qemu-system-x86_64", "-m", "1Q", status=USAGE), "size")
            continue
        check(why in printed("qemu-system-x86_64", *words.split(), status=USAGE), words)
    check_eq(printed("qemu-system-x86_64", "-netdev", "tap,id=n,vhost=off").count("vhost"), 1, "switched off")


def test_wrong_usage():
    for words in (["--", "true"], ["--name", "a"], ["--name", "a", "--", "true"], ["--name", "a", "--mem", "x", "--", "true"],
                  ["--name", "a", "--mem", "1M", "--", "true"], ["--name", "a", "--mem", "1M", "--fd", "1", "--", "true"],
                  ["--name", "a", "--", "qemu-system-x86_64"], ["--name", "a", "--shares", "-1", "--", "true"],
                  ["--name", "a", "--mem", "1M", "--frobnicate", "--", "true"],
                  ["--name", "a b", "--mem", "1M", "--fd", "99", "--", "true"],
                  ["--name", "../a", "--", "qemu-system-x86_64", "-m", "64"]):
        result = subprocess.run([MEMCTL, "run", *words], capture_output=True, text=True, check=False)
        check_eq([result.returncode, result.stdout], [USAGE, ""], " ".join(words))
        check(result.stderr, "nothing on stderr")
    result = subprocess.run([MEMCTL, "run", "--socket", "/nowhere", "--name", "a", "--mem", "1M", "--fd", "99", "--", "true"],
                            capture_output=True, text=True, check=False)
    check_eq(result.returncode, UNREACHABLE, "without a daemon")


if __name__ == "__main__":
    main(globals())
