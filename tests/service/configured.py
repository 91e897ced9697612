"""A memctld with a configuration of its own, which tests write and change."""
import os
import shutil
import stat
import subprocess
import tempfile

from lib.check import skip
from lib.daemon import Daemon, build_dir
from torture.actor import SLOW

MIB = 1 << 20
MEMCTLD = os.path.join(build_dir(), "daemon", "memctld")
MEMCTL = os.path.join(build_dir(), "cli", "memctl")


class Files:
    """memctld.conf, memctld.conf.d and vms.d in a directory that all users can look into."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="memctl-service-", dir=os.environ.get("MEMCTL_TEST_DIR"))
        os.chmod(self.dir, 0o755)
        self.path = os.path.join(self.dir, "memctld.conf")
        self.tune_path = self.path + ".d/90-tune.conf"
        self.settings()

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def read(self, name):
        with open(os.path.join(self.dir, name), encoding="utf-8") as f:
            return f.read()

    def remove(self, name):
        os.unlink(os.path.join(self.dir, name))

    def settings(self, *lines):
        return self.write("memctld.conf", "[memctld]\n" + "".join(line + "\n" for line in lines))

    def vm(self, name, *lines):
        return self.write("vms.d/%s.conf" % name, "[vm]\n" + "".join(line + "\n" for line in lines))

    def tree(self):
        """Everything that is there: names, modes, contents."""
        found = {}
        for top, folders, names in os.walk(self.dir):
            for n in folders + names:
                path = os.path.join(top, n)
                st = os.stat(path)
                content = open(path, encoding="utf-8").read() if stat.S_ISREG(st.st_mode) else None
                found[os.path.relpath(path, self.dir)] = (stat.filemode(st.st_mode), content)
        return found

    def check_config(self):
        return subprocess.run([MEMCTLD, "--config", self.path, "--check-config"], capture_output=True, text=True, timeout=20 * SLOW,
                              stdin=subprocess.DEVNULL, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)


def daemon(files, arena=64, kind=Daemon, more=(), **others):
    """A daemon of these files that any user can reach."""
    d = kind(*more, arena=arena * MIB, **others)
    d.args += ["--config", files.path, "--socket-mode", "0666"]
    os.chmod(d.dir, 0o755)
    return d


def settings(d):
    return {s["name"]: s for s in d.memctl("config", "show")["settings"]}


def needs_users():
    if os.geteuid() or not shutil.which("setpriv"):
        skip("only root can be several users")
    if subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x", MEMCTL], check=False).returncode:
        skip("other users may not look into this tree")


def memctl_as(uid, socket, *words, groups=()):
    """memctl as another user: what `id` of it says is real, not only effective."""
    rights = ["--reuid=%d" % uid, "--regid=%d" % uid, "--groups=%s" % ",".join(map(str, groups)) if groups else "--clear-groups"]
    return subprocess.run(["setpriv", *rights, MEMCTL, "--socket", socket, *words], capture_output=True, text=True, timeout=60 * SLOW,
                          stdin=subprocess.DEVNULL, check=False)
