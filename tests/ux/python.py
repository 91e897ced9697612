"""A Python with the binding of this tree in its path, and the daemon that it talks to."""
import os
import subprocess

from lib.daemon import SLOW, TREE, build_dir

PACKAGE = os.path.join(TREE, "libclient", "python")
# Debian's, which sees Debian's modules
PYTHON = "/usr/bin/python3"


def environ(d=None, **more):
    return dict(d.environ() if d else os.environ, LD_LIBRARY_PATH=os.path.join(build_dir(), "libclient"), PYTHONPATH=PACKAGE,
                PYTHONDONTWRITEBYTECODE="1", **more)


def run(d, code, *args):
    """What a program prints; raises unless it ends with 0."""
    done = subprocess.run([PYTHON, "-X", "dev", "-c", code, *args], env=environ(d), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=50 * SLOW, check=False)
    if done.returncode or done.stderr:
        raise AssertionError("exit %d: %s%s" % (done.returncode, done.stdout, done.stderr[-1500:]))
    return done.stdout
