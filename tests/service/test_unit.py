#!/usr/bin/env python3
"""What is installed beside the programs, judged by the tools that will read it: units, generator, sysusers, tmpfiles, udev,
sysctl."""
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import TREE, build_dir  # noqa: E402

MIB = 1 << 20
# name of the unit: (most exposure that is right, and what stays open; why, the unit says)
UNITS = {
    "memctld": (1.0, {"SystemCallFilter=~@privileged", "RootDirectory=/RootImage=", "AmbientCapabilities=",
                      "CapabilityBoundingSet=~CAP_KILL", "RestrictAddressFamilies=~AF_UNIX", "ProtectProc=", "ProcSubset=",
                      "PrivateUsers=", "DeviceAllow="}),
    # IPAddressDeny= would be of no use: the socket is of another unit, and there is no network to make one in
    "memctl-exporter": (0.7, {"RootDirectory=/RootImage=", "RestrictAddressFamilies=~AF_UNIX", "DeviceAllow=", "IPAddressDeny="}),
    "memctl-metrics": (0.5, {"RootDirectory=/RootImage=", "RestrictAddressFamilies=~AF_UNIX",
                             "DeviceAllow=", "UMask="}),
}
# each of these is worth something, and does not count twice
HARDENING = ["NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateMounts", "IPAddressDeny", "ProtectClock",
             "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups",
             "RemoveIPC", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute",
             "SystemCallArchitectures", "SystemCallFilter", "CapabilityBoundingSet", "RestrictAddressFamilies", "UMask", "User",
             "PrivateDevices", "PrivateNetwork"]


def tool(name):
    return shutil.which(name) or skip("%s is not installed" % name)


def run(*command, **more):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more)


def unit_text(name):
    with open(os.path.join(build_dir(), "systemd", name)) as f:
        return f.read()


def security(text, name="memctld"):
    """(exposure, names of what stays open)"""
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        path = os.path.join(d, name + ".service")
        with open(path, "w") as f:
            f.write(text)
        rows = run(tool("systemd-analyze"), "security", "--offline=true", "--json=short", path)
        total = run("systemd-analyze", "security", "--offline=true", "--no-pager", path)
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", total.stdout)
    check(found and rows.returncode == 0, "systemd-analyze: %s%s" % (rows.stderr, total.stderr))
    return float(found[1]), {r["name"] for r in json.loads(rows.stdout) if r["exposure"] is not None and float(r["exposure"]) > 0}


def without(text, directive):
    """Without the lines of this directive."""
    kept = [line for line in text.splitlines(True) if not line.startswith(directive + "=")]
    check(len(kept) < text.count("\n"), "there is no %s=" % directive)
    return "".join(kept)


def test_exposure():
    for name, (most, known) in UNITS.items():
        exposure, weak = security(unit_text(name + ".service"), name)
        check(exposure <= most, "%s: exposure %.1f: %s" % (name, exposure, sorted(weak)))
        check_eq(weak, known, "what stays open in %s" % name)


def test_every_line_of_the_hardening_counts():
    """The twin: one of them less is more exposure."""
    text = unit_text("memctld.service")
    exposure, weak = security(text)
    for directive in HARDENING:
        other, more = security(without(text, directive))
        check(more - weak and other >= exposure,
              "without %s= the exposure is %.1f, and open are %s" % (directive, other, sorted(more)))
    for directive in ("SystemCallFilter", "CapabilityBoundingSet", "User"):
        other, _ = security(without(text, directive))
        check(other > UNITS["memctld"][0], "without %s= the exposure is %.1f" % (directive, other))


def test_units_are_understood():
    tool("systemd-analyze")
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        paths = []
        for name in ("memctld.service", "memctl-exporter.service", "memctl-exporter.socket", "memctl-metrics.service",
                     "memctl-metrics.timer"):
            text = unit_text(name)
            for program, built in (("memctld", "daemon/memctld"), ("memctl-exporter", "cli/memctl-exporter"), ("memctl", "cli/memctl")):
                # systemd-analyze looks whether it is there
                text = re.sub(r"=(-?)/\S+/%s(?=\s)" % program, r"=\1" + os.path.join(build_dir(), built), text)
            paths.append(os.path.join(d, name))
            with open(paths[-1], "w") as f:
                f.write(text)
        result = run("systemd-analyze", "verify", *paths)
        check(result.returncode == 0 and not result.stderr.strip(), result.stderr)
        with open(paths[0], "a") as f:
            f.write("[Service]\nProtectEverything=yes\n")
        check("ProtectEverything" in run("systemd-analyze", "verify", paths[0]).stderr, "what it does not know, it does not say")


# ---- the generator


def generate(d, settings, memctld="daemon/memctld"):
    """The drop-in that it makes of these settings; None: none."""
    out, conf, program = os.path.join(d, "out"), os.path.join(d, "memctld.conf"), os.path.join(d, "memctld")
    shutil.rmtree(out, ignore_errors=True)
    os.mkdir(out)
    with open(conf, "w") as f:
        f.write("[memctld]\n" + settings)
    with open(program, "w") as f:
        f.write('#!/bin/sh\nexec %s --config %s "$@"\n' % (os.path.join(build_dir(), memctld), conf))
    os.chmod(program, 0o755)
    result = run(os.path.join(build_dir(), "systemd", "memctl-generator"), out, out, out, env=dict(os.environ, MEMCTLD=program))
    check_eq((result.returncode, result.stdout), (0, ""), "exit status and output (%s)" % result.stderr)
    path = os.path.join(out, "memctld.service.d", "50-memory.conf")
    if not os.path.exists(path):
        return None
    check_eq(stat.S_IMODE(os.stat(path).st_mode), 0o644, "its mode")
    with open(path) as f:
        return f.read()


def test_generator_sets_the_limit():
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        sizes = []
        for arena in (64, 1024, 4096):
            text = generate(d, "arena = %dM\n" % arena)
            found = re.fullmatch(r"# .*\n\[Service\]\nMemoryMax=(\d+)\n", text)
            check(found, text)
            sizes.append(int(found[1]))
            check(arena * MIB * 1.1 < sizes[-1] < arena * MIB * 1.3 + 128 * MIB, "%d MiB of arena, %d bytes" % (arena, sizes[-1]))
        check_eq(sizes, sorted(sizes), "sizes")


def test_generator_sets_none_that_it_does_not_know():
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        check_eq(generate(d, "arena = 64M\nnonsense = 1\n"), None, "with wrong settings")
        check_eq(generate(d, "", memctld="daemon/no-such-program"), None, "with a program that cannot be run")
        result = run(os.path.join(build_dir(), "systemd", "memctl-generator"), d, d, d, env=dict(os.environ, MEMCTLD=d + "/none"))
        check_eq((result.returncode, os.path.exists(d + "/memctld.service.d")), (0, False), "without memctld")


def test_memory_max_of_wrong_settings():
    memctld = os.path.join(build_dir(), "daemon", "memctld")
    check_eq(run(memctld, "--config", "none", "--memory-max", "--arena", "1").returncode, 3, "exit status")
    good = run(memctld, "--config", "none", "--memory-max", "--arena", "256M")
    check(good.returncode == 0 and good.stdout.strip().isdigit(), good.stdout + good.stderr)


# a memory cgroup of version 2 as memctld would find it: $1 the limit, $2 what is used of it; then the command
CGROUP = r"""
mount -t tmpfs tmpfs /sys/fs/cgroup && echo "$1" >/sys/fs/cgroup/memory.max && echo "$2" >/sys/fs/cgroup/memory.current &&
shift 2 && exec "$@"
"""


def starts(limit, arena):
    """Whether a memctld that this limit is set to serves, and what it says until then."""
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        command = [os.path.join(build_dir(), "daemon", "memctld"), "--config", "none", "--metrics", "none", "--swap-dir", d,
                   "--socket", os.path.join(d, "socket"), "--arena", str(arena)]
        p = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", CGROUP, "sh", str(limit), "1000000",
                              *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = ""
        for line in p.stderr:
            said += line
            if "serving on" in line:
                p.terminate()
                break
        p.stderr.close()
        p.wait()
        return "serving on" in said, said


def test_a_limit_that_does_not_hold_the_arena_is_told():
    if os.geteuid() != 0:
        skip("only root can make namespaces")
    arena = 64 * MIB
    memctld = os.path.join(build_dir(), "daemon", "memctld")
    needs = int(run(memctld, "--config", "none", "--memory-max", "--arena", str(arena)).stdout)
    for limit, serves, advises in (("max", True, False), (needs, True, False), (needs - 1, True, True),
                                   (needs * 9 // 10, False, True), (arena, False, True)):
        well, said = starts(limit, arena)
        check_eq((well, 'type "systemctl daemon-reload"' in said), (serves, advises), "with a limit of %s: %s" % (limit, said))


# ---- users, directories, devices, kernel settings


def make_root(d):
    """A root directory with our users."""
    os.makedirs(os.path.join(d, "etc"))
    result = run(tool("systemd-sysusers"), "--root=" + d, os.path.join(TREE, "packaging/sysusers.d/memctl.conf"))
    check(result.returncode == 0, result.stderr)
    rows = {}
    for name in ("passwd", "group"):
        with open(os.path.join(d, "etc", name)) as f:
            rows[name] = {line.split(":")[0]: line.rstrip("\n").split(":") for line in f}
    return rows


def test_sysusers():
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        rows = make_root(d)
        check_eq(sorted(rows["passwd"]), ["memctl", "memctl-exporter", "memctl-metrics"], "users")
        memctl, metrics, exporter = (rows["passwd"][n] for n in ("memctl", "memctl-metrics", "memctl-exporter"))
        check_eq([memctl[5], memctl[6]], ["/var/lib/memctl", "/usr/sbin/nologin"], "home and shell of memctl")
        check_eq(memctl[3], rows["group"]["memctl"][2], "its group")
        check(0 < int(memctl[2]) < 1000 and metrics[2] != memctl[2], "numbers %s %s" % (memctl, metrics))
        # those that ask for numbers are in no group of another
        check_eq(len({memctl[3], metrics[3], exporter[3]}), 3, "groups of their own")


def test_tmpfiles():
    if os.geteuid() != 0:
        skip("only root can give files away")
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        uid = int(make_root(d)["passwd"]["memctl"][2])
        for _ in range(2):
            result = run(tool("systemd-tmpfiles"), "--create", "--root=" + d,
                         os.path.join(TREE, "packaging/tmpfiles.d/memctl.conf"))
            check(result.returncode == 0 and not result.stderr.strip(), result.stderr)
            for path, mode in (("run/memctl", 0o755), ("var/lib/memctl", 0o700), ("var/lib/memctl/swap", 0o700)):
                st = os.stat(os.path.join(d, path))
                check_eq((stat.S_IMODE(st.st_mode), st.st_uid), (mode, uid), "mode and owner of " + path)
    # the unit makes the same ones
    text = unit_text("memctld.service")
    check("RuntimeDirectoryMode=0755" in text and "StateDirectoryMode=0700" in text, "the unit says otherwise")


# a root with a /dev of its own, where udevadm carries out what the rules say; $1 is the root, $2 the rule
UDEV = r"""
set -e
cd "$1"
mkdir -p usr sys dev run proc etc/udev/rules.d
for d in bin sbin lib lib64; do [ ! -L /$d ] || ln -s usr/$d $d; done
mount --bind /usr usr && mount -o remount,ro,bind usr
mount --bind /sys sys && mount -o remount,ro,bind sys
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
mknod -m 600 dev/userfaultfd c $(tr : ' ' </sys/class/misc/userfaultfd/dev)
printf %s "$2" >etc/udev/rules.d/60-memctl.rules
chroot . udevadm test --action=add /sys/devices/virtual/misc/userfaultfd >&2
stat -c '%a %G %g' dev/userfaultfd
"""


def device_of(rule):
    """(mode, gid of the group memctl, gid of the device) after udev has seen it."""
    with tempfile.TemporaryDirectory(prefix="memctl-unit-") as d:
        gid = make_root(d)["group"]["memctl"][2]
        result = run("unshare", "--mount", "--propagation", "private", "sh", "-c", UDEV, "sh", d, rule)
        check(result.returncode == 0, result.stderr[-1000:])
        complaints = [line for line in result.stderr.splitlines() if re.search(r"60-memctl\.rules.*(nvalid|gnor|nknown)", line)]
        check(not complaints, complaints)
        mode, _, group = result.stdout.split()
        return mode, gid, group


def test_udev_gives_the_device_to_the_group():
    if os.geteuid() != 0:
        skip("only root can make devices")
    tool("udevadm")
    if not os.path.exists("/sys/devices/virtual/misc/userfaultfd"):
        skip("this kernel has no /dev/userfaultfd")
    with open(os.path.join(TREE, "packaging/udev/60-memctl.rules")) as f:
        rule = f.read()
    mode, memctl, group = device_of(rule)
    check_eq((mode, group), ("660", memctl), "mode and group")
    # the twin: a rule for another device
    mode, memctl, group = device_of(rule.replace('"userfaultfd"', '"userfault"'))
    check_eq((mode, group), ("600", "0"), "mode and group by a rule for another device")


def test_sysctl():
    with open(os.path.join(TREE, "packaging/sysctl.d/60-memctl.conf")) as f:
        lines = [line.strip() for line in f if line.strip() and not line.startswith("#")]
    pairs = dict(re.fullmatch(r"([a-z_.]+) = (\d+)", line).groups() for line in lines)
    check_eq(sorted(pairs), ["vm.max_map_count"], "keys")
    for key, value in pairs.items():
        check(os.path.exists("/proc/sys/" + key.replace(".", "/")), "there is no " + key)
        check(65530 < int(value) < 1 << 31, "%s = %s" % (key, value))
    # as systemd-sysctl reads it: --cat-config shows what it would apply
    sysctl = "/lib/systemd/systemd-sysctl"
    if os.path.exists(sysctl) and os.geteuid() == 0:
        script = 'mkdir -p /run/sysctl.d && mount -t tmpfs tmpfs /run/sysctl.d && cp "$1" /run/sysctl.d && exec "$2" --cat-config'
        shown = run("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
                    os.path.join(TREE, "packaging/sysctl.d/60-memctl.conf"), sysctl)
        check(lines[0] in shown.stdout, shown.stderr)


if __name__ == "__main__":
    main(globals())
