"""A real systemd as process 1 of namespaces of its own, which starts the installed memctld.service.

    with Machine() as m:
        m.systemctl("kill", "-s", "KILL", "memctld")
        m.memctl("status")
        with Puppet(m, "vm", 16) as p: ...      # tests/system/puppet.py: a client in the machine

Its root is a scratch directory: the host's /usr is bound there, `meson install` puts memctl into a /usr/local of its own, and
$SYSTEMD_UNIT_PATH leads to nothing else than memctld.service and the few targets that it wants.  It needs root, and a kernel that
lets root unshare; nothing of the host is changed.  The log of process 1 and the one of memctld (a drop-in sends it to a file)
are kept apart."""
import json
import os
import pty
import shutil
import subprocess
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
# everything is made before process 1 is there; $1 is the root, $2 the terminal, $3 the tree
INIT = r"""
set -e
root=$1 terminal=$2 tree=$3
mount --bind "$root" "$root"
for d in usr; do mount --bind /$d "$root/$d"; mount -o remount,ro,bind "$root/$d"; done
mount -t tmpfs tmpfs "$root/usr/local"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,ro,bind "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
	IFS=: read -r name major minor <<-E
	$n
	E
	mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
if [ -e /dev/userfaultfd ]; then
	mknod -m 660 "$root/dev/userfaultfd" c $(printf '%d %d' 0x$(stat -c %t /dev/userfaultfd) 0x$(stat -c %T /dev/userfaultfd))
	chown 0:MEMCTL_GID "$root/dev/userfaultfd"
fi
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
: >"$root/dev/console"
mount --bind "$terminal" "$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root$tree"
mount --bind "$tree" "$root$tree"
(cd "$tree" && DESTDIR=$root meson install -C "$4" --no-rebuild --quiet)
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=memctl-test PATH=/usr/sbin:/usr/bin SYSTEMD_UNIT_PATH=/etc/systemd/system:/usr/local/lib/systemd/system \
	SYSTEMD_SECCOMP=1 /usr/lib/systemd/systemd --unit=test.target --log-target=console --log-level=info --show-status=no </dev/console >/dev/console 2>&1
"""
MEMCTL_ID = 987


def cgroup2_mount():
    """Where the unified hierarchy is; None: nowhere."""
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 "):
                return fields.split()[4]
    return None


class Machine:
    """`settings` for memctld.conf, `drop_in`: more lines for [Service] of the unit."""

    def __init__(self, arena="64M", settings=(), drop_in=()):
        self.real_build = build_dir()
        self.dir = tempfile.mkdtemp(prefix="memctl-machine-", dir=os.environ.get("MEMCTL_TEST_DIR"))
        self.root = os.path.join(self.dir, "root")
        # where tests expect programs: what they find there runs in the machine
        self.build = os.path.join(self.dir, "build")
        self.socket = "/run/memctl/memctld.sock"
        self.settings = ["arena = " + arena, "metrics = none", *settings]
        self.drop_in = drop_in
        self.cgroup = None
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
        for d in ("usr", "proc", "sys", "dev", "run", "tmp", "root", "log", "var/lib", "var/tmp", "etc/systemd/system"):
            os.makedirs(os.path.join(self.root, d))
        for link in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink("/" + link):
                os.symlink(os.readlink("/" + link), os.path.join(self.root, link))
        os.symlink("/run", os.path.join(self.root, "var/run"))
        self._write("etc/passwd", "root:x:0:0::/root:/bin/sh\nmemctl:x:%d:%d::/var/lib/memctl:/usr/sbin/nologin\n"
                    "nobody:x:65534:65534::/:/usr/sbin/nologin\n" % (MEMCTL_ID, MEMCTL_ID))
        self._write("etc/group", "root:x:0:\nmemctl:x:%d:\nnogroup:x:65534:\n" % MEMCTL_ID)
        self._write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self._write("etc/nsswitch.conf", "passwd: files\ngroup: files\n")
        self._write("etc/os-release", "ID=test\n")
        self._write("etc/memctl/memctld.conf", "[memctld]\n" + "".join(s + "\n" for s in self.settings))
        for path in ("/etc/ld.so.cache", "/etc/ld.so.conf"):
            if os.path.exists(path):
                shutil.copy(path, self.root + path)
        for name, text in UNITS.items():
            self._write("etc/systemd/system/" + name, text)
        self._write("etc/systemd/system/memctld.service.d/test.conf", "[Service]\nStandardError=append:/log/memctld\n" +
                    "".join(line + "\n" for line in self.drop_in))

    def _make_wrappers(self):
        """nsenter forks for a new process namespace: its child is ended by the end of its input."""
        for name in ("cli/memctl", "tests/system/puppet", "tests/torture/tenant"):
            path = os.path.join(self.build, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as f:
                f.write("#!/bin/sh\nexec %s env MEMCTL_SOCKET=%s %s \"$@\"\n" % (
                    " ".join(self._enter()), self.socket, os.path.join(self.real_build, name)))
            os.chmod(path, 0o755)

    def _make_cgroup(self):
        place = cgroup2_mount()
        if not place:
            raise Failed("there is no cgroup2")
        self.cgroup = os.path.join(place, os.path.basename(self.dir))
        os.mkdir(self.cgroup)

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
        self._make_cgroup()
        master, slave = pty.openpty()
        threading.Thread(target=self._read_console, args=(master,), daemon=True).start()
        script = INIT.replace("MEMCTL_GID", str(MEMCTL_ID))
        # --kill-child: the machine ends with us
        self.process = subprocess.Popen(
            ["sh", "-c", 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "sh", self.cgroup,
             "unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--propagation", "private",
             "sh", "-c", script, "sh", self.root, os.ttyname(slave), TREE, self.real_build],
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
        wait_until(lambda: self.show("ActiveState") == "active" or self._failed(), 60, "memctld.service")
        return self

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
        if self.cgroup:
            self._remove_cgroup()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _remove_cgroup(self):
        for _ in range(200):
            for at, _, _ in os.walk(self.cgroup, topdown=False):
                try:
                    os.rmdir(at)
                except OSError:
                    pass
            if not os.path.exists(self.cgroup):
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
