#!/usr/bin/env python3
"""Every target for a minute, as many at a time as there are processors; and a twin: a target that fails is told of."""
import concurrent.futures
import os
import shutil
import stat
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from fuzz.target import Found, libfuzzer, targets  # noqa: E402
from lib.check import check, main  # noqa: E402
from lib.daemon import build_dir  # noqa: E402

SECONDS = 60
POOL = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
RUNNING = {}


def finds_nothing(name):
    # the first to be asked for begins them all
    if not RUNNING:
        RUNNING.update({t: POOL.submit(libfuzzer, build_dir(), t, SECONDS) for t in targets()})
    executed = RUNNING[name].result()
    print("%s: %d inputs" % (name, executed), file=sys.stderr)
    # recovery makes a world for each, history a database
    check(executed > 20, "%d inputs in %d s" % (executed, SECONDS))


def scenario(name):
    def run():
        finds_nothing(name)
    # two at a time, and all that were asked for before
    run.seconds = SECONDS * (len(targets()) + 1)
    return run


def test_a_target_that_fails_is_told_of():
    place = tempfile.mkdtemp()
    try:
        os.makedirs(place + "/tests/fuzz")
        path = place + "/tests/fuzz/fuzz-frames"
        with open(path, "w") as f:
            f.write("#!/bin/sh\necho '==1== ERROR: libFuzzer: deadly signal' >&2\necho 'Test unit written to /finds/crash-1' >&2\nexit 77\n")
        os.chmod(path, stat.S_IRWXU)
        try:
            libfuzzer(place, "frames", 1)
        except Found as e:
            check(e.path == "/finds/crash-1" and "deadly signal" in str(e), str(e))
        else:
            check(False, "a crash was taken for success")
    finally:
        shutil.rmtree(place)


globals().update({"test_" + name: scenario(name) for name in targets()})

if __name__ == "__main__":
    main(globals())
