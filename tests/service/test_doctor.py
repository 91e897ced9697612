"""`memctl doctor` against faults that are prepared: a real memctld on a host where one thing is wrong, and on
one where it is not.

What of the host must be wrong is made so in a mount namespace of this program's own: nobody else sees it.  Settings that
cannot be prepared so are shown to the functions in tests/unit/test_doctor*.c.
"""
import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip
from lib.daemon import Daemon, build_dir, wait_until
from system.puppet import MIB, Puppet, daemon, program
from system.supervised import SupervisedDaemon
from torture.actor import NOBODY, can_be_nobody, open_to_all
from wire.client import Client, Vm

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, PR_SET_MEMORY_MERGE = 0x20000, 67
SYSTEMD = os.path.isdir("/run/systemd/system")
GOOD_MAPS = "1048576\n"
_ours = None


def own_mounts():
    """What is mounted from here on is seen by this program and its children only."""
    global _ours
    if _ours is None:
        _ours = os.geteuid() == 0 and LIBC.unshare(CLONE_NEWNS) == 0 and \
            subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode == 0
    if not _ours:
        skip("needs root, and mounts of its own")


@contextlib.contextmanager
def mounted(*args):
    """mount ARGS, the last of which is where."""
    own_mounts()
    subprocess.run(["mount", *args], check=True)
    try:
        yield args[-1]
    finally:
        subprocess.run(["umount", args[-1]], check=True)


@contextlib.contextmanager
def says(path, text):
    """This file of /proc or /sys says that."""
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(text)
        f.flush()
        os.chmod(f.name, 0o644)
        with mounted("--bind", f.name, path):
            yield


@contextlib.contextmanager
def directory():
    d = tempfile.mkdtemp(prefix="memctl-test-")
    try:
        yield d
    finally:
        shutil.rmtree(d, ignore_errors=True)


def memctl(*args, who=(), env=None, **more):
    return subprocess.run([*who, os.path.join(build_dir(), "cli", "memctl"), *args], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ, **(env or {})), **more)


def doctor(d, *ids, who=(), at=None):
    """The checks as {id: check}, and the exit code."""
    result = memctl("--json", "--socket", at or d.socket, "doctor", *ids, who=who)
    check(result.stdout, result.stderr)
    return {c["id"]: c for c in json.loads(result.stdout)["checks"]}, result.returncode


def found(d, check_id, state, word="", fix="", **more):
    """The check has this state, its text has the word, its fix too; and the exit code is right."""
    checks, code = doctor(d, check_id, **more)
    c = checks[check_id]
    check(c["state"] == state and word in c["text"],
          "%s is %s, not %s with %r: %s" % (check_id, c["state"], state, word, c["text"]))
    check(fix in (c["fix"] or ""), "%s: fix %r has no %r" % (check_id, c["fix"], fix))
    check((state in ("warning", "failure")) == bool(c["fix"]) or state == "information", "%s: fix %r" % (check_id, c["fix"]))
    if c["id"] != "memctld":
        check_eq(code, 1 if state in ("warning", "failure") else 0, "exit code of %s, %s" % (check_id, state))
    return c


def test_all_checks_are_told_in_three_ways():
    with Daemon() as d:
        checks, code = doctor(d)
        check_eq(code, 1, "exit code")      # nobody starts it again
        table = memctl("--socket", d.socket, "doctor", "--raw", "-o", "ID,STATE").stdout.split("\n")
        check_eq(table[0], "ID STATE", "headings")
        check_eq(dict(line.split() for line in table[1:] if line), {i: c["state"] for i, c in checks.items()}, "the table")
        lines = memctl("--socket", d.socket, "doctor").stdout
        for i, c in checks.items():
            check(sorted(c) == ["fix", "id", "side", "state", "text", "title"], "%s has members %s" % (i, sorted(c)))
            check(c["state"] in ("ok", "information", "warning", "failure") and c["text"] and c["title"], str(c))
            check(any(line.split()[:2] == [c["state"], i] for line in lines.split("\n")), "%s is not in the lines" % i)
        check_eq({i for i in checks if checks[i]["side"] == "memctld"} & {"swap_dir", "restarter", "memory"},
                 {"swap_dir", "restarter", "memory"}, "what memctld finds")
        # and at length, each
        for i in ("swap_fs", "uffd"):
            long = memctl("--socket", d.socket, "doctor", i)
            check(long.returncode == 0 and checks[i]["title"] in long.stdout and len(long.stdout) > 300, long.stdout)
        unknown = memctl("--socket", d.socket, "doctor", "sawp_fs")
        check(unknown.returncode == 3 and "memctl help doctor" in unknown.stderr, unknown.stderr)
        help_text = memctl("help", "doctor").stdout
        check(all("\n  %s: " % i in help_text for i in checks), "help does not list all checks")


def test_who_starts_it_again():
    with SupervisedDaemon(10) as d:
        found(d, "restarter", "ok", "--supervise")
        found(d, "watchdog", "ok", "10 s")
    with SupervisedDaemon(0) as d:
        found(d, "watchdog", "warning", "--watchdog 0", "--watchdog 10")
    with Daemon() as d:
        c = found(d, "restarter", "failure", "for ever", "memctl daemon stop --wait && ")
        found(d, "watchdog", "warning", "no watchdog")
        # what is to be typed is typed
        if SYSTEMD:
            return
        bin_dirs = os.path.join(build_dir(), "cli") + ":" + os.environ["PATH"]
        fix = subprocess.Popen(["bash", "-c", c["fix"] + "\nwait"], env=dict(d.environ(), PATH=bin_dirs),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        d.process.wait(20)
        try:
            wait_until(lambda: memctl("--socket", d.socket, "status").returncode == 0, what="the memctld of the fix")
            found(d, "restarter", "ok", "--supervise")
        finally:
            memctl("--socket", d.socket, "daemon", "stop")
            try:
                fix.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(fix.pid, signal.SIGKILL)
                raise
        d.process = None


def test_swap_directories():
    own_mounts()
    with directory() as top:
        tmp, ram = os.path.join(top, "tmp"), os.path.join(top, "ram")
        os.mkdir(tmp)
        os.mkdir(ram)
        with mounted("-t", "tmpfs", "-o", "size=1M", "none", tmp), mounted("-t", "ramfs", "none", ram), \
                daemon(64, settings=["swap_dir=" + tmp]) as d:
            found(d, "swap_dir", "ok")
            found(d, "swap_fs", "failure", "tmpfs", "swap_dir=" if not SYSTEMD else "swap_dir = ")
            found(d, "swap_space", "warning", "1 MiB")
            with open(os.path.join(tmp, "fill"), "wb") as f, contextlib.suppress(OSError):
                f.write(bytes(2 << 20))
            found(d, "swap_space", "failure", "no room", "df -h")
            with daemon(64, settings=["swap_dir=" + ram]) as e:
                found(e, "swap_direct", "warning", "direct I/O")
                found(e, "swap_prealloc", "warning", "set room aside")
    with Daemon() as d:
        found(d, "swap_dir", "ok")
        found(d, "swap_file", "ok")
        os.rmdir(d.swap_dir)
        c = found(d, "swap_dir", "failure", "No such file", "install -d -m 0700")
        subprocess.run(["bash", "-c", c["fix"]], check=True)
        found(d, "swap_dir", "ok")


def threads_of(pid):
    names = []
    for task in os.listdir("/proc/%d/task" % pid):
        with contextlib.suppress(OSError), open("/proc/%d/task/%s/comm" % (pid, task)) as f:
            names.append(f.read().strip())
    return names


def test_disk_that_does_not_answer():
    """Everybody else is served, and the finding says so; once it answers all is well again."""
    own_mounts()
    if not shutil.which("mkfs.ext4") or not os.path.exists("/dev/loop-control"):
        skip("no loop devices here")
    with directory() as top:
        image, mnt = os.path.join(top, "image"), os.path.join(top, "mnt")
        os.mkdir(mnt)
        with open(image, "wb") as f:
            f.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        try:
            subprocess.run(["mount", "-o", "loop", image, mnt], check=True, stderr=subprocess.DEVNULL)
        except subprocess.CalledProcessError:
            skip("no loop device can be had")
        try:
            with daemon(64, settings=["swap_dir=" + mnt]) as d:
                found(d, "swap_dir", "ok")
                subprocess.run(["fsfreeze", "-f", mnt], check=True)
                try:
                    asked = threading.Thread(target=doctor, args=(d,))
                    asked.start()
                    # more than may wait; they go, and leave their places
                    wait_until(lambda: "doctor" in threads_of(d.pid), what="the look at the disk")
                    for _ in range(40):
                        with Client(d.socket) as gone:
                            gone.send("Doctor")
                    check(memctl("--socket", d.socket, "status").returncode == 0, "memctld does not answer meanwhile")
                    checks, code = doctor(d)
                    asked.join()
                    stuck, after = checks["swap_dir"], checks["metrics"]
                    check(stuck["state"] == "failure" and "not answered" in stuck["text"], stuck["text"])
                    check(after["state"] == "information" and "does not answer" in after["text"], after["text"])
                    check_eq((code, checks["restarter"]["state"]), (1, "failure"), "what came before it")
                    found(d, "swap_dir", "failure", "not answered", "dmesg")     # at once now
                finally:
                    subprocess.run(["fsfreeze", "-u", mnt], check=True)
                wait_until(lambda: doctor(d)[0]["swap_dir"]["state"] == "ok", what="the disk's answer")
                # memctld ends meanwhile: nobody is left waiting, and what still looks has what it needs
                subprocess.run(["fsfreeze", "-f", mnt], check=True)
                try:
                    with subprocess.Popen([os.path.join(build_dir(), "cli", "memctl"), "--json", "--timeout", "1", "--socket",
                                           d.socket, "doctor", "memctld"], stdout=subprocess.PIPE) as asking:
                        wait_until(lambda: "doctor" in threads_of(d.pid), what="the look at the disk")
                        d.process.send_signal(signal.SIGINT)
                        check(b'"failure"' in asking.communicate(timeout=20)[0], "an answer of a memctld that ends")
                finally:
                    subprocess.run(["fsfreeze", "-u", mnt], check=True)
                check_eq(d.process.wait(20), 0, "how memctld ended")
                d.process = None
        finally:
            subprocess.run(["umount", mnt], check=True)


def test_who_asks_again_is_told_the_same():
    """Within some seconds nobody has memctld look anew by asking; only who may operate has."""
    with directory() as top:
        ro = os.path.join(top, "ro.sock")
        with daemon(64, settings=["socket_ro=" + ro]) as d, Client(d.socket) as operator, Client(ro) as c:
            def told(client):
                return next(check["text"] for check in client.call("Doctor")["checks"] if check["id"] == "fault_modes")

            with_none = told(c)
            with Vm(d.socket, "a", MIB):
                check_eq(told(c), with_none, "at once again")
                with_one = told(operator)
                check(with_one != with_none, "who may operate is told what was so before: %s" % with_one)
                check_eq(told(c), with_one, "what that look has found")
            wait_until(lambda: not operator.call("ListVms")["vms"], what="the end of the VM")
            check_eq(told(c), with_one, "after its end")
            wait_until(lambda: told(c) == with_none, 20, "another look")


def test_settings_of_the_kernel():
    with Daemon() as d:
        for text, state in ((GOOD_MAPS, "ok"), ("65530\n", "warning"), ("1000\n", "failure")):
            with says("/proc/sys/vm/max_map_count", text):
                found(d, "max_map_count", state, text.strip(), "sysctl -w" if state != "ok" else "")
        huge = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
        if os.path.exists(huge):
            with says(huge, "[always] within_size advise never deny force\n"):
                found(d, "shmem_thp", "failure", "always", "echo advise > " + huge)
            with says(huge, "always within_size [advise] never deny force\n"):
                found(d, "shmem_thp", "ok", "advise")
        with says("/proc/sys/fs/aio-max-nr", "1\n"), Daemon() as e:
            found(e, "aio", "warning", "none are left", "fs.aio-max-nr")
        found(d, "aio", "ok")


def test_memory_of_the_host():
    """A host with swap space, and too little memory for the arena by now."""
    own_mounts()
    with Daemon(arena=64 * MIB) as d:
        found(d, "memory", "ok", "64 are not taken yet")
        with open("/proc/meminfo") as f:
            lines = f.read().splitlines()

        def meminfo(**values):
            return "".join("%s: %d kB\n" % (k, values[k]) if (k := line.split(":")[0]) in values else line + "\n"
                           for line in lines)
        # in memctld's own mounts: it has them from this program
        with says("/proc/meminfo", meminfo(MemAvailable=20 << 10, SwapTotal=1 << 20)):
            found(d, "memory", "failure", "has 20 MiB available", "arena=" if not SYSTEMD else "arena = ")
            found(d, "host_swap", "warning", "1024 MiB of swap space")
        with says("/proc/meminfo", meminfo(SwapTotal=0)):
            found(d, "host_swap", "ok", "no swap space")


def memory_cgroup():
    """A directory for a new memory cgroup, the file of its limit; None: none can be made."""
    for top, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        path = os.path.join(top, "memctl-doctor-%d" % os.getpid())
        try:
            os.mkdir(path)
        except OSError:
            continue
        if os.path.exists(os.path.join(path, limit)):
            return path, os.path.join(path, limit)
        os.rmdir(path)
    return None, None


def test_limit_of_the_cgroup():
    path, limit = memory_cgroup()
    if not path:
        skip("no memory cgroup can be made")
    try:
        with Daemon(arena=256 * MIB) as d:
            found(d, "cgroup_memory", "ok")
            with open(os.path.join(path, "cgroup.procs"), "w") as f:
                f.write(str(d.pid))
            for mib, state in ((400, "ok"), (270, "warning"), (128, "failure")):
                with open(limit, "w") as f:
                    f.write(str(mib * MIB))
                c = found(d, "cgroup_memory", state, "allows %d MiB" % mib)
            # what is to be typed is typed
            subprocess.run(["bash", "-c", c["fix"]], check=True)
            found(d, "cgroup_memory", "ok", "allows 282 MiB")
    finally:
        wait_until(lambda: not open(os.path.join(path, "cgroup.procs")).read(), what="the end of memctld in its cgroup")
        os.rmdir(path)


def test_what_memctld_may_do():
    """As nobody, with few descriptors; and as root, where each can be mended by what is to be typed."""
    if not can_be_nobody(os.path.join(build_dir(), "daemon", "memctld")):
        skip("cannot run memctld as nobody")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with directory() as top:
        os.chmod(top, 0o777)
        d = Daemon(directory=top)
        os.mkdir(d.swap_dir, 0o700)
        os.chown(d.swap_dir, 65534, 65534)
        log = open(os.path.join(top, "log"), "wb")
        nobody = subprocess.Popen([*NOBODY, "prlimit", "--nofile=1000:1000", "--memlock=0:0",
                                   os.path.join(build_dir(), "daemon", "memctld"), "--config", "none", "--socket", d.socket,
                                   "--arena", "64M", "--swap-dir", d.swap_dir, "--metrics", "none"], stdout=log, stderr=log)
        log.close()
        try:
            wait_until(lambda: memctl("--socket", d.socket, "status").returncode == 0, what="memctld as nobody")
            found(d, "cap_kill", "warning", "not CAP_KILL", "setcap cap_kill+ep")
            found(d, "user", "ok", "65534")
            found(d, "memlock", "information", "lock 0 MiB")
            c = found(d, "descriptors", "warning", "1000", "prlimit --nofile")
            if hard >= 131072:
                subprocess.run(["bash", "-c", c["fix"]], check=True)
                found(d, "descriptors", "ok", "131072")
            c = found(d, "oom", "warning", "is 0", "echo -900 > /proc/%d" % nobody.pid)
            if subprocess.run(["bash", "-c", c["fix"]], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                found(d, "oom", "ok", "-900")
        finally:
            nobody.send_signal(signal.SIGINT)
            nobody.wait(20)
    with Daemon() as d:
        found(d, "cap_kill", "ok")
        found(d, "user", "warning", "as root", "runuser -u memctl -- " if not SYSTEMD else "")


def test_clients_that_are_not_as_they_should_be():
    if not can_be_nobody(os.path.join(build_dir(), "tests", "system", "puppet")):
        skip("cannot run clients as nobody")
    with open_to_all(daemon(128, settings=["share_groups=g=*", "share_with_root=yes"])) as d:
        full = Puppet(d, "full", 8)
        found(d, "fault_modes", "ok")
        found(d, "pools_writable", "ok")
        user = Puppet(d, "user", 8, nobody=True, sharing="group:g")
        wait_until(lambda: doctor(d, "sharing")[0]["sharing"]["state"] == "ok", what="both to have their pools")
        if user.numbers()["faults_mode"] == "user-mode":
            found(d, "fault_modes", "warning", "only: user.", "usermod -aG memctl")
        found(d, "pools_writable", "ok")
        root = Puppet(d, "root", 8, sharing="group:g")
        wait_until(lambda: root.numbers()["pool_joined"], what="root's VM in the group")
        found(d, "pools_writable", "warning", ": root.", "memctl tune share_with_root no")
        for p in (full, user, root):
            p.end() if hasattr(p, "end") else p.kill()


def test_merging_by_the_kernel():
    """A client for which KSM is on shares nothing; one for which it is not is not spoken of."""
    with open("/proc/self/ksm_stat") as f:
        if "ksm_merge_any" not in f.read():
            skip("this kernel does not say whether KSM is on for a process")
    with daemon(64) as d:
        p = Puppet(d, "plain", 8)
        found(d, "ksm", "ok", "none of 1 VMs")
        p.kill()
        # it is inherited
        check(LIBC.prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0, "KSM cannot be turned on")
        try:
            q = Puppet(d, "merged", 8)
        finally:
            LIBC.prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0)
        with open("/proc/%d/ksm_stat" % q.process.pid) as f:
            if "ksm_merge_any: yes" not in f.read():
                q.kill()
                skip("KSM is not inherited here")
        found(d, "ksm", "warning", "VM merged", "KSM")
        found(d, "sharing", "information", "merged")
        if can_be_nobody(program(d)):
            os.chmod(d.dir, 0o755)
            os.chmod(d.socket, 0o666)
            found(d, "ksm", "information", "ask as root", who=NOBODY)
        q.kill()


def test_users():
    """Of the device, and of memctld."""
    if not can_be_nobody(os.path.join(build_dir(), "cli", "memctl")):
        skip("cannot run memctl as nobody")
    own_mounts()
    with Daemon() as d:
        os.chmod(d.dir, 0o755)
        os.chmod(d.socket, 0o660)
        found(d, "access", "ok", "root")
        found(d, "access", "failure", "nobody", "memctl", who=NOBODY)
        check_eq(doctor(d, "memctld", who=NOBODY)[0]["memctld"]["state"], "information", "memctld for who may not ask it")
        os.chmod(d.socket, 0o666)
        found(d, "access", "ok", "nobody", who=NOBODY)
    with open_to_all(daemon(64, settings=["allow_users=root"])) as d:
        found(d, "access", "failure", "nobody may not call", who=NOBODY)
    if not os.path.exists("/dev/userfaultfd"):
        return
    number = os.stat("/dev/userfaultfd").st_rdev
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top, Daemon() as d:
        node = os.path.join(top, "userfaultfd")
        os.mknod(node, 0o020600, number)
        os.chmod(node, 0o600)
        try:
            open(node, "rb").close()
        except OSError:
            skip("devices cannot be made here")
        with mounted("--bind", node, "/dev/userfaultfd"):
            found(d, "uffd", "ok", "root gets a full")
            with open("/proc/sys/vm/unprivileged_userfaultfd") as f:
                if f.read().strip() != "0":
                    return
            found(d, "uffd", "warning", "Permission denied", "chgrp memctl /dev/userfaultfd", at="/nowhere", who=NOBODY)
            os.chown("/dev/userfaultfd", 0, 7)
            os.chmod("/dev/userfaultfd", 0o660)
            found(d, "uffd", "warning", "Permission denied", "usermod -aG lp nobody", at="/nowhere", who=NOBODY)
            os.chmod("/dev/userfaultfd", 0o666)
            found(d, "uffd", "ok", "nobody gets a full", at="/nowhere", who=NOBODY)


def test_memctld_that_does_not_answer():
    """What memctl finds by itself is told all the same; 69 if that is all right."""
    with directory() as top:
        at = os.path.join(top, "memctld.sock")
        with says("/proc/sys/vm/max_map_count", GOOD_MAPS):
            checks, code = doctor(None, at=at)
            none = checks["memctld"]
            check(none["state"] == "failure" and "no such socket" in none["text"], str(none))
            check("swap_dir" not in checks and "uffd" in checks, "which checks there are: %s" % sorted(checks))
            others = [c for c in checks.values() if c["id"] != "memctld" and c["state"] in ("warning", "failure")]
            check_eq(code, 1 if others else 69, "exit code beside %s" % others)
            check_eq(doctor(None, "memctld", at=at)[1], 69, "exit code of this check alone")
            check_eq(doctor(None, "kernel", at=at)[1], 0, "exit code of another one")
        with says("/proc/sys/vm/max_map_count", "1000\n"):
            check_eq(doctor(None, at=at)[1], 1, "exit code when more is wrong")
        gone = socket.socket(socket.AF_UNIX)
        gone.bind(at)
        gone.close()
        check("nobody listens there" in doctor(None, at=at)[0]["memctld"]["text"], "a socket that is left over")
        c = doctor(None, "swap_fs", at=at)[0]["swap_fs"]
        check(c["state"] == "information" and "Not looked at" in c["text"], str(c))
        with Daemon() as d:
            # the path that is wrong is answered with the one that is right, if it is the only one
            fix = doctor(None, at=os.path.join(top, "other", "memctld.sock"))[0]["memctld"]["fix"]
            check("--socket /" in fix and "memctld.sock doctor" in fix, fix)
            check_eq(doctor(d)[0]["memctld"]["state"], "ok", "memctld at the right path")


@contextlib.contextmanager
def stranger(at, replies):
    """Somebody who listens there and answers calls by their methods; None: with silence."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(at)
    listener.listen()

    def serve(c):
        got = b""
        while data := c.recv(65536):
            got += data
            while b"\0" in got:
                message, _, got = got.partition(b"\0")
                reply = replies.get(json.loads(message)["method"].rsplit(".", 1)[1])
                if reply is not None:
                    c.sendall(json.dumps(reply).encode() + b"\0")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_other_versions():
    with directory() as top:
        def told(replies):
            at = os.path.join(top, "memctld.sock")
            with stranger(at, replies):
                checks = doctor(None, at=at)[0]
            os.unlink(at)
            return checks

        status = {"parameters": {"status": {"pid": 1, "version": "9.9.9"}}}
        vms = {"parameters": {"vms": []}}
        checks = told({"Status": status, "ListVms": vms, "Doctor": {"parameters": {"checks": [
            {"id": "swap_dir", "state": "failure", "text": "No.", "fix": None},
            {"id": "of_the_future", "state": "failure", "text": "?", "fix": None}]}}})
        check("9.9.9" in checks["versions"]["text"] and checks["versions"]["state"] == "warning", str(checks["versions"]))
        check_eq(checks["swap_dir"]["text"], "No.", "a finding of another memctld")
        check("of_the_future" not in checks, "a check that memctl does not know")
        checks = told({"Status": status, "ListVms": vms, "Doctor": {"error": "org.varlink.service.MethodNotFound",
                                                                   "parameters": {"method": "org.memctl.Doctor"}}})
        check("does not know" in checks["versions"]["text"], str(checks["versions"]))
        check_eq(checks["versions"]["fix"], "memctl daemon upgrade", "what to type")
        check_eq(checks["memctld"]["state"], "ok", "an older memctld")
        # nothing that somebody else says makes memctl fail
        checks = told({"Status": {"parameters": {}}, "ListVms": {"parameters": {"vms": [{"name": 1}, 7, None]}},
                       "Doctor": {"parameters": {"checks": [{"id": 5}, None, {"id": "swap_dir", "state": "odd",
                                                                              "text": "x" * 5000}]}}})
        check_eq(checks["swap_dir"]["state"], "information", "a state that is not known")
    with directory() as top:
        at = os.path.join(top, "memctld.sock")
        with stranger(at, {}):
            result = memctl("--json", "--socket", at, "--timeout", "0.2", "doctor", "memctld")
            check(result.returncode == 69 and "in time" in result.stdout, result.stdout + result.stderr)


def test_program_that_was_replaced():
    with directory() as top:
        shutil.copy(os.path.join(build_dir(), "daemon", "memctld"), os.path.join(top, "memctld"))
        d = Daemon()
        d.build = top
        os.mkdir(os.path.join(top, "daemon"))
        os.rename(os.path.join(top, "memctld"), os.path.join(top, "daemon", "memctld"))
        with d:
            found(d, "program", "ok")
            shutil.copy(os.path.join(top, "daemon", "memctld"), os.path.join(top, "new"))
            os.rename(os.path.join(top, "new"), os.path.join(top, "daemon", "memctld"))
            found(d, "program", "warning", "Another memctld", "memctl daemon upgrade")


def test_history_and_time_outs():
    own_mounts()
    with directory() as top:
        with mounted("-t", "tmpfs", "-o", "size=2M", "none", top), \
                daemon(64, metrics=os.path.join(top, "metrics.db"), settings=["client_hold_limit=0"]) as d:
            found(d, "metrics", "warning", "of room left", "df -h")
            c = found(d, "time_outs", "warning", "client_hold_limit is 0", "memctl tune client_hold_limit 30")
            subprocess.run(["bash", "-c", c["fix"]], check=True,
                           env=dict(d.environ(), PATH=os.path.join(build_dir(), "cli") + ":" + os.environ["PATH"]))
            found(d, "time_outs", "ok")
            with open(os.path.join(top, "fill"), "wb") as f, contextlib.suppress(OSError):
                f.write(bytes(4 << 20))
            wait_until(lambda: "could not be written" in doctor(d, "metrics")[0]["metrics"]["text"], what="a row that is lost")
    with directory() as top, daemon(64, metrics=os.path.join(top, "metrics.db")) as d:
        found(d, "metrics", "ok", "none was lost")
    with Daemon() as d:
        found(d, "metrics", "information", "No history")


if __name__ == "__main__":
    main(globals())
