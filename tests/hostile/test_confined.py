#!/usr/bin/env python3
"""What memctld cannot do even if it wanted to, and what of its memory leaves it in no core file."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from hostile.beside import MIB, has_sanitizer  # noqa: E402
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import Daemon  # noqa: E402
from system.puppet import Puppet, daemon, no_vms  # noqa: E402

FORBIDDEN = {"exec", "network", "netlink", "ptrace", "process", "unshare", "setns", "written-code", "other-memory", "rings", "ioctl",
             "signal", "dump"}


def tried(**more):
    """what -> the error that it came to; "done" if it came to none."""
    with Daemon(env=dict(MEMCTLD_INJECT="try_forbidden", **more)) as d:
        if "without libseccomp" in d.log():
            skip("memctld was built without libseccomp%s" % (", as with every sanitizer" if has_sanitizer(d.build) else ""))
        return dict(re.findall(r"TRY (\S+): (\S+)", d.log()))


def test_what_is_refused():
    found = tried()
    check_eq(set(found), FORBIDDEN, "what was tried")
    check_eq({what: error for what, error in found.items() if error != "EPERM"}, {}, "what was not refused")


def test_what_is_refused_twin():
    """Without the filter none of it is; as root, who may."""
    if os.geteuid() != 0:
        skip("needs root, who may do it all")
    refused = [what for what, error in tried(MEMCTLD_TWIN="unconfined").items() if error == "EPERM"]
    check_eq(refused, [], "refused without the filter")


def test_the_setting_turns_it_off():
    with Daemon(args=["--set", "seccomp=no"]) as d, open("/proc/%d/status" % d.pid) as f:
        check("\nSeccomp:\t0\n" in f.read(), "there is a filter")
        check("unconfined" not in d.log(), d.log())


def not_in_core_files(d):
    """(mappings of shared memory that are in no core file, those that are)"""
    with open("/proc/%d/smaps" % d.pid) as f:
        parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", f.read(), flags=re.M)
    ours = [p for p in parts if "/memfd:" in p.split("\n", 1)[0]]
    out = [p for p in ours if " dd" in re.search(r"^VmFlags:.*$", p, re.M)[0]]
    return out, [p.split("\n", 1)[0] for p in ours if p not in out]


def test_no_guest_in_a_core_file():
    with daemon(48) as d, Puppet(d, "vm", 32, limit=8) as p:
        p.do("fill", 0, 0, p.pages, 1, "mix", seconds=90)
        out, into = not_in_core_files(d)
        check(len(out) >= 3, "a lease, its page map and its cache are mapped: %s" % out)
        check_eq(into, [], "mappings that a core file has")
        p.check(0, p.pages, 1, "mix")
        p.kill()
        no_vms(d)


def locked(**env):
    """Whether the code of memctld, and of the C library, may leave memory; bytes that are locked."""
    with Daemon(env=env) as d, open("/proc/%d/smaps" % d.pid) as f:
        parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", f.read(), flags=re.M)
        code = [p for p in parts if re.match(r"\S+ r-xp .*/(memctld|libc\.so\S*|libzstd\S*)$", p.split("\n", 1)[0])]
        check_eq(len(code), 3, "mappings of code")
        return [" lo" in re.search(r"^VmFlags:.*$", p, re.M)[0] for p in code], sum(
            int(n) << 10 for n in re.findall(r"^Locked:\s+(\d+) kB", "".join(parts), re.M))


def test_code_of_the_fault_path_stays():
    stays, size = locked()
    check(all(stays), "code that may leave memory: %s" % stays)
    check(1 * MIB < size <= 12 * MIB, "%d KiB are locked" % (size >> 10))


def test_code_of_the_fault_path_stays_twin():
    stays, _ = locked(MEMCTLD_TWIN="unlocked")
    check(not any(stays), "it stays without being locked")


if __name__ == "__main__":
    main(globals())
