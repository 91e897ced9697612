"""A small real Linux guest from Debian's packages: its cloud kernel, busybox and our own workload.

The packages are downloaded and unpacked, not installed, into build-guest/ of the tree; a kernel is fetched once and
again when Debian's archive has a newer one to offer and the old one is gone.  The initramfs is written anew when what
goes into it has changed."""
import fcntl
import glob
import gzip
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
STORE = os.path.join(TREE, "build-guest")
MODULES = ["virtio_pci", "virtio_balloon", "virtio_blk"]
FOLDERS = ["bin", "lib", "proc", "sys", "dev", "tmp"]


class Missing(Exception):
    """Something that the guest is made of cannot be had here."""


def _run(*command, cwd=None):
    try:
        result = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as e:
        raise Missing("%s: %s" % (command[0], e.strerror)) from e
    if result.returncode:
        raise Missing("%s: %s" % (" ".join(command[:3]), (result.stderr or result.stdout).strip()[-300:]))
    return result.stdout


def _unpack(package, into):
    """Download a package and unpack it; nothing is installed."""
    folder = os.path.join(STORE, "download")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    print("downloading %s" % package, file=sys.stderr, flush=True)
    # root downloads as root: the user _apt cannot write here
    _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=folder)
    found = glob.glob(folder + "/*.deb")
    if not found:
        raise Missing("apt-get downloaded no %s" % package)
    _run("dpkg-deb", "-x", found[0], into)
    shutil.rmtree(folder)


def _kernel_package():
    for line in _run("apt-cache", "depends", "linux-image-cloud-amd64").splitlines():
        match = re.match(r"\s*Depends:\s*(linux-image-\d\S*)", line)
        if match:
            return match[1]
    raise Missing("linux-image-cloud-amd64 is not known to apt (apt-get update?)")


def _fetch():
    """The folder with the unpacked packages."""
    root = os.path.join(STORE, "root")
    if not os.path.exists(os.path.join(STORE, "complete")):
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(root)
        _unpack(_kernel_package(), root)
        _unpack("busybox-static", root)
        with open(os.path.join(STORE, "complete"), "w"):
            pass
    return root


def _one(*patterns):
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True))
        if found:
            return found[-1]
    raise Missing("no %s in the package" % os.path.basename(patterns[0]))


def _modules(root):
    """Files in the order of insmod.  The package holds no list of dependencies; each module names its own."""
    order = []

    def add(name):
        file = _one("%s/**/%s.ko" % (root, re.sub("[-_]", "[-_]", name)))
        if file in order:
            return
        with open(file, "rb") as f:
            match = re.search(rb"\0depends=([^\0]*)\0", f.read())
        for other in filter(None, (match[1].decode() if match else "").split(",")):
            add(other)
        order.append(file)

    for name in MODULES:
        add(name)
    return order


def _cpio(entries):
    """An archive in cpio's "newc" form: (name, mode, content) each."""
    out = bytearray()
    for number, (name, mode, content) in enumerate(entries + [("TRAILER!!!", 0, b"")], 1):
        encoded = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + encoded
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def _content(path):
    with open(path, "rb") as f:
        return f.read()


def _initramfs(root, work):
    modules = _modules(root)
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in FOLDERS]
    programs = [("init", os.path.join(HERE, "init")), ("bin/work", work),
                ("bin/busybox", _one(root + "/bin/busybox", root + "/usr/bin/busybox"))]
    entries += [(name, stat.S_IFREG | 0o755, _content(path)) for name, path in programs]
    entries += [("lib/" + os.path.basename(m), stat.S_IFREG | 0o644, _content(m)) for m in modules]
    entries.append(("lib/order", stat.S_IFREG | 0o644, "".join(os.path.basename(m) + "\n" for m in modules).encode()))
    return _cpio(entries)


def make(build):
    """(kernel, initramfs); Missing says what cannot be had."""
    work = os.path.join(build, "tests", "guest", "guest-work")
    if not os.path.exists(work):
        raise Missing("no static C library to build the guest's program with")
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("no qemu-system-x86_64")
    os.makedirs(STORE, exist_ok=True)
    with open(os.path.join(STORE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = _fetch()
        archive = _initramfs(root, work)
        path = os.path.join(STORE, "initramfs-%s.gz" % hashlib.sha256(archive).hexdigest()[:16])
        if not os.path.exists(path):
            with open(path + ".new", "wb") as f:
                f.write(gzip.compress(archive, 6))
            os.rename(path + ".new", path)
        return _one(root + "/boot/vmlinuz-*"), path
