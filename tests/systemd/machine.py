"""A real systemd as process 1 of namespaces of its own, which starts the installed memctld.service.

    with Machine() as m:
        m.systemctl("kill", "-s", "KILL", "memctld")
        m.memctl("status")
        with Puppet(m, "vm", 16) as p: ...      # tests/system/puppet.py: a client in the machine

Its root is a scratch directory: the host's /usr is bound there, `meson install` puts memctl into a /usr/local of its own, and
$SYSTEMD_UNIT_PATH and $SYSTEMD_GENERATOR_PATH lead to nothing else than memctl's units and the few targets that they want.  Clients
run in no unit, as an ordinary user of the group "memctl"; `m.memctl` is root.  It needs root, and a kernel that
lets root unshare; nothing of the host is changed.  The log of process 1 and the one of memctld (a drop-in sends it to a file)
are kept apart."""
import atexit
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from lib.daemon import SLOW, TREE, Failed, build_dir, wait_until

SYSTEMD = "/lib/systemd/systemd"
UNITS = {
    "test.target": "[Unit]\nWants=memctld.service\nAfter=memctld.service\nAllowIsolate=yes\nDefaultDependencies=no\n",
    "sysinit.target": "[Unit]\nDefaultDependencies=no\n",
    "basic.target": "[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\n",
    "shutdown.target": "[Unit]\nDefaultDependencies=no\n",
    "exit.target": "[Unit]\nDefaultDependencies=no\nRequires=systemd-exit.service\nAfter=systemd-exit.service\n",
    "systemd-exit.service": "[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\n"
                            "[Service]\nType=oneshot\nExecStart=systemctl --force exit\n",
}
# everything is made before process 1 is there; $1 is the root, $2 the terminal, $3 the tree, $4 the group's number, $5 the
# controllers of version 1, $6 a directory that has the same path in the machine, $7 what is installed (none: all of the root is its
# own), $8 what process 1 is told
INIT = r"""
set -e
root=$1 terminal=$2 tree=$3 shared=$6
mount --bind "$root" "$root"
if [ -n "$7" ]; then
	mount --bind /usr "$root/usr"
	mount -o remount,ro,bind "$root/usr"
	mount --bind "$7/usr/local" "$root/usr/local"
fi
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,ro,bind "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
if [ -n "$5" ]; then
	# "hybrid": the host has controllers of version 1, so the memory controller is there
	mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
	mkdir "$root/sys/fs/cgroup/unified"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
	for c in $5; do
		mkdir "$root/sys/fs/cgroup/${c#name=}"
		mount -t cgroup -o "$c" cgroup "$root/sys/fs/cgroup/${c#name=}"
	done
else
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
	IFS=: read -r name major minor <<-E
	$n
	E
	mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
if [ -e /dev/userfaultfd ]; then
	mknod -m 660 "$root/dev/userfaultfd" c $(printf '%d %d' 0x$(stat -c %t /dev/userfaultfd) 0x$(stat -c %T /dev/userfaultfd))
	chown "0:$4" "$root/dev/userfaultfd"
fi
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
: >"$root/dev/console"
mount --bind "$terminal" "$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root$tree"
mount --bind "$tree" "$root$tree"
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"
ldconfig -r "$root"
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=memctl-test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_SECCOMP=1 $8 \
	/lib/systemd/systemd --log-target=console --log-level=info --show-status=no </dev/console >/dev/console 2>&1
"""
MEMCTL_ID, METRICS_ID, EXPORTER_ID = 987, 986, 985
# whose emulators run in the machine: nobody in particular, but of the group that may lease memory
USER_ID = 1000


def cgroup_mounts():
    """Mount points: "" is the unified hierarchy, a word a controller of version 1."""
    mounts = {}
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()[:3]
            if kind == "cgroup2":
                mounts.setdefault("", fields.split()[4])
            elif kind == "cgroup":
                names = [o for o in options.split(",") if o not in ("rw", "ro", "xattr") and "=" not in o]
                names += [o for o in options.split(",") if o == "name=systemd"]
                if names:
                    mounts.setdefault(",".join(names), fields.split()[4])
    return mounts


def cgroup2_mount():
    """Where the unified hierarchy is; None: nowhere."""
    return cgroup_mounts().get("")


INSTALLED = {}


def installed(build):
    """The directory that stands for /, with what `meson install` put below it; once for all machines."""
    if build not in INSTALLED:
        INSTALLED[build] = tempfile.mkdtemp(prefix="memctl-installed-", dir=os.environ.get("MEMCTL_TEST_DIR"))
        atexit.register(shutil.rmtree, INSTALLED[build], ignore_errors=True)
        os.chmod(INSTALLED[build], 0o755)
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", INSTALLED[build]], cwd=TREE,
                       check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    return INSTALLED[build]


class User:
    """The machine as it looks to an ordinary user: tests/guest/machine.py takes it for a daemon."""

    def __init__(self, machine):
        self.machine = machine
        self.build = machine.build + "-user"

    def environ(self):
        return self.machine.environ()


class Machine:
    """`settings` for memctld.conf, `drop_in`: more lines for [Service] of the unit."""

    AS_USER = ["setpriv", "--reuid=%d" % USER_ID, "--regid=%d" % USER_ID, "--groups=%d" % MEMCTL_ID]
    # it knows no units but these
    SETTINGS = " ".join([
        "SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system:/run/systemd/generator:/usr/local/lib/systemd/system",
        "SYSTEMD_GENERATOR_PATH=/usr/local/lib/systemd/system-generators"])
    PUPPETS = ("tests/system/puppet", "tests/torture/tenant", "packaging/demo.d/unicorn-example")

    def __init__(self, arena="64M", settings=(), drop_in=(), metrics="none"):
        self.real_build = build_dir()
        self.dir = tempfile.mkdtemp(prefix="memctl-machine-", dir=os.environ.get("MEMCTL_TEST_DIR"))
        self.root = os.path.join(self.dir, "root")
        # where tests expect programs: what they find there runs in the machine
        self.build = os.path.join(self.dir, "build")
        self.shared = os.path.join(self.dir, "shared")
        self.socket = "/run/memctl/memctld.sock"
        self.settings = ["arena = " + arena, "metrics = " + metrics, *settings]
        self.drop_in = drop_in
        self.cgroups = []
        self.memory_v1 = False
        # as a daemon, but whose `memctl` runs as an ordinary user
        self.user = User(self)
        self.process = None
        self.console = ""
        self.init = None

    # ---- boot

    def _write(self, path, text, mode=0o644):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)

    def _make_root(self):
        os.makedirs(self.root)
        os.chmod(self.dir, 0o755)
        os.makedirs(self.shared)
        os.chmod(self.shared, 0o1777)
        for d in ("usr", "proc", "sys", "dev", "run", "tmp", "root", "log", "var/lib", "var/tmp", "etc/systemd/system"):
            os.makedirs(os.path.join(self.root, d))
        for link in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink("/" + link):
                os.symlink(os.readlink("/" + link), os.path.join(self.root, link))
        os.symlink("/run", os.path.join(self.root, "var/run"))
        self._write("etc/passwd", "root:x:0:0::/root:/bin/sh\nmemctl:x:%d:%d::/var/lib/memctl:/usr/sbin/nologin\n"
                    "memctl-metrics:x:%d:%d::/:/usr/sbin/nologin\nmemctl-exporter:x:%d:%d::/:/usr/sbin/nologin\nuser:x:%d:%d::/:/bin/sh\n"
                    "nobody:x:65534:65534::/:/usr/sbin/nologin\n" % (
                        MEMCTL_ID, MEMCTL_ID, METRICS_ID, METRICS_ID, EXPORTER_ID, EXPORTER_ID, USER_ID, USER_ID))
        self._write("etc/group", "root:x:0:\nmemctl:x:%d:user\nmemctl-metrics:x:%d:\nmemctl-exporter:x:%d:\nuser:x:%d:\nnogroup:x:65534:\n" % (
            MEMCTL_ID, METRICS_ID, EXPORTER_ID, USER_ID))
        self._write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self._write("etc/nsswitch.conf", "passwd: files\ngroup: files\n")
        self._write("etc/os-release", "ID=test\n")
        self._write("etc/memctl/memctld.conf", "[memctld]\n" + "".join(s + "\n" for s in self.settings))
        # an administrator runs ldconfig after an installation
        top = installed(self.real_build)
        libraries = {at for at, _, names in os.walk(os.path.join(top, "usr")) if "libmemctl.so.0" in names}
        self._write("etc/ld.so.conf", "".join("/" + os.path.relpath(d, top) + "\n" for d in libraries))
        shutil.copytree("/etc/ld.so.conf.d", self.root + "/etc/ld.so.conf.d")
        with open(self.root + "/etc/ld.so.conf", "a") as f:
            f.write("include /etc/ld.so.conf.d/*.conf\n")
        os.symlink("test.target", os.path.join(self.root, "etc/systemd/system/default.target"))
        for name, text in UNITS.items():
            self._write("etc/systemd/system/" + name, text)
        self._write("etc/systemd/system/memctld.service.d/test.conf", "[Service]\nStandardError=append:/log/memctld\n" +
                    "".join(line + "\n" for line in self.drop_in))

    def _make_wrappers(self):
        """nsenter forks for a new process namespace: its child is ended by the end of its input."""
        for build, name, who in [(self.build, "cli/memctl", []), (self.user.build, "cli/memctl", self.AS_USER)] + [
                (self.build, name, self.AS_USER) for name in self.PUPPETS]:
            path = os.path.join(build, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as f:
                f.write("#!/bin/sh\nexec %s env MEMCTL_SOCKET=%s %s \"$@\"\n" % (
                    " ".join([*self._enter(), *who]), self.socket, self._program(name)))
            os.chmod(path, 0o755)

    def _program(self, name):
        """How the machine calls a program of the build."""
        return os.path.join(self.real_build, name)

    def _installed(self):
        return installed(self.real_build)

    def _make_cgroups(self):
        """A group of its own in every hierarchy that process 1 will use; their names if these are of version 1."""
        mounts = cgroup_mounts()
        if "" not in mounts:
            raise Failed("there is no cgroup2")
        unified = mounts.pop("")
        with open(os.path.join(unified, "cgroup.controllers")) as f:
            self.memory_v1 = "memory" in mounts and "memory" not in f.read().split()
        # it mounts what it does not find: all of them, or it would work in the host's groups
        for place in [unified, *(mounts.values() if self.memory_v1 else ())]:
            self.cgroups.append(os.path.join(place, os.path.basename(self.dir)))
            os.mkdir(self.cgroups[-1])
            if os.path.exists(self.cgroups[-1] + "/cpuset.cpus"):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    shutil.copyfile(os.path.join(place, name), os.path.join(self.cgroups[-1], name))
        return list(mounts) if self.memory_v1 else []

    def _enter(self):
        return ["nsenter", "--target", str(self.init), "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd"]

    def _read_console(self, fd):
        while True:
            try:
                data = os.read(fd, 4096)
            except OSError:
                return
            if not data:
                return
            self.console += data.decode(errors="replace").replace("\r", "")

    def boot(self):
        self._make_root()
        controllers = self._make_cgroups()
        master, slave = pty.openpty()
        threading.Thread(target=self._read_console, args=(master,), daemon=True).start()
        # --kill-child: the machine ends with us
        self.process = subprocess.Popen(
            ["sh", "-c", 'for g in $1; do echo $$ >"$g/cgroup.procs" || exit; done; shift; exec "$@"', "sh",
             " ".join(self.cgroups), "unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child",
             "--propagation", "private",
             "sh", "-c", INIT, "sh", self.root, os.ttyname(slave), TREE, str(MEMCTL_ID), " ".join(controllers), self.shared,
             self._installed(), self.SETTINGS],
            stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

        def process_1():
            if self.process.poll() is not None:
                raise Failed("the machine did not boot: %s" % self.console[-3000:])
            with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as f:
                children = f.read().split()
            if not children:
                return None
            with open("/proc/%s/comm" % children[0]) as f:
                return int(children[0]) if f.read().strip() == "systemd" else None

        self.init = wait_until(process_1, 60, "systemd")
        self._make_wrappers()
        self._wait_until_booted()
        return self

    def _wait_until_booted(self):
        wait_until(lambda: self.show("ActiveState") == "active" or self._failed(), 60, "memctld.service")

    def _failed(self):
        if self.process.poll() is not None or self.show("ActiveState") == "failed":
            raise Failed("memctld.service failed: %s\n%s" % (self.console[-3000:], self.log()[-2000:]))
        return False

    # ---- what runs in it

    def run(self, *command, seconds=60, check=True):
        result = subprocess.run([*self._enter(), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=seconds * SLOW, check=False)
        if check and result.returncode:
            raise Failed("%s: exit %d: %s%s" % (" ".join(command), result.returncode, result.stdout, result.stderr), result)
        return result

    def systemctl(self, *words, seconds=60, check=True):
        return self.run("systemctl", *words, seconds=seconds, check=check).stdout.strip()

    def show(self, key):
        """A property of the unit; "" if systemd does not answer (yet)."""
        return self.systemctl("show", "-P", key, "memctld.service", check=False)

    def pid(self):
        """memctld, as the machine numbers it; 0: none."""
        return int(self.show("MainPID") or 0)

    def log(self):
        try:
            with open(os.path.join(self.root, "log", "memctld"), errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def lives(self):
        return self.log().count("serving on")

    # ---- the memory cgroup of the unit

    def _cgroup_file(self, name):
        """Its content, None if there is none."""
        place = os.path.join("/sys/fs/cgroup", "memory" if self.memory_v1 else "", self.show("ControlGroup").lstrip("/"), name)
        result = self.run("cat", place, check=False)
        return None if result.returncode else result.stdout

    def memory(self):
        """limit (None: none), used, peak, in bytes; how often the limit was met, and somebody killed for it.  None: the host
        has no memory controller for us."""
        v1 = self.memory_v1
        limit = self._cgroup_file("memory.limit_in_bytes" if v1 else "memory.max")
        if limit is None:
            return None
        limit = None if limit.strip() == "max" or int(limit) > 1 << 62 else int(limit)
        events = self._cgroup_file("memory.oom_control" if v1 else "memory.events") or ""
        events = dict(line.split() for line in events.splitlines())
        peak = self._cgroup_file("memory.max_usage_in_bytes" if v1 else "memory.peak")
        return {"limit": limit, "used": int(self._cgroup_file("memory.usage_in_bytes" if v1 else "memory.current")),
                "peak": int(peak) if peak else None,
                "met": int(self._cgroup_file("memory.failcnt") if v1 else events["max"]), "kills": int(events["oom_kill"])}

    # ---- as lib/daemon.py's Daemon has it

    def environ(self):
        return dict(os.environ)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def run_memctl(self, *args, timeout=60):
        return subprocess.run([os.path.join(self.build, "cli/memctl"), *args], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout * SLOW, check=False)

    def memctl(self, *args, timeout=60):
        result = self.run_memctl("--json", *args, timeout=timeout)
        if result.returncode != 0:
            raise Failed("memctl %s: exit %d: %s" % (" ".join(args), result.returncode, (result.stderr or result.stdout).strip()),
                         result)
        return json.loads(result.stdout) if result.stdout.strip() else None

    def audit(self):
        return self.memctl("audit")

    # ---- the end

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        for cgroup in self.cgroups:
            self._remove_cgroup(cgroup)
        self.cgroups = []
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def _remove_cgroup(cgroup):
        for _ in range(200):
            for at, _, _ in os.walk(cgroup, topdown=False):
                try:
                    os.rmdir(at)
                except OSError:
                    pass
            if not os.path.exists(cgroup):
                return
            time.sleep(0.02)

    def __enter__(self):
        try:
            return self.boot()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind, value, trace):
        try:
            if kind is not None:
                print("---- process 1\n%s\n---- memctld\n%s" % (self.console[-4000:], self.log()[-4000:]))
        finally:
            self.kill()
