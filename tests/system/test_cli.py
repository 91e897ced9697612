#!/usr/bin/env python3
"""memctl: every command, for people and as JSON; every exit code; what each option does."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import TREE, build_dir, wait_until  # noqa: E402
from system.puppet import MIB, Puppet, daemon  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
OK, DIFFERENCE, NO_MEMORY, NOT_FOUND, SYSTEM, PERMISSION, TIMEOUT, USAGE, UNREACHABLE = 0, 1, 2, 3, 4, 5, 6, 16, 69
COMMANDS = ["status", "vm list", "vm show", "vm set", "vm page-in", "vm rm", "vm release", "vm pmap", "share groups", "share top",
            "share scan", "explain", "events", "explain-event", "stat", "history", "report",
            "heat", "top", "audit", "doctor", "daemon stop", "daemon reload", "daemon upgrade", "config show", "config vms", "run", "tune", "catalogue", "metrics",
            "version", "help"]


def memctl(*args, **more):
    return subprocess.run([MEMCTL, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False, **more)


def exits(result, code, words=None):
    check_eq(result.returncode, code, "exit of %s; %s" % (" ".join(result.args[1:]), result.stderr.strip()))
    if code != OK:
        check(result.stderr.startswith("memctl: "), "it says nothing on stderr")
    if words:
        check(words in result.stderr, "\"%s\" is not in \"%s\"" % (words, result.stderr.strip()))


def human(d, *args):
    result = d.run_memctl(*args)
    exits(result, OK)
    check_eq(result.stderr, "", "stderr of %s" % " ".join(args))
    return result.stdout


def as_json(d, *args):
    reply = d.memctl(*args)
    check_eq(reply["schema"], "memctl/1", "schema of %s" % " ".join(args))
    return reply


def completed(d, *words):
    """What bash offers for the last of the words."""
    script = """. "$1"; shift; COMP_WORDS=(memctl "$@"); COMP_CWORD=$#; _memctl; printf '%s\n' "${COMPREPLY[@]}" """
    result = subprocess.run(["bash", "-c", script, "bash", os.path.join(TREE, "packaging/completions/memctl.bash"), *words],
                            env=dict(d.environ() if d else os.environ, PATH="%s:%s" % (
                                os.path.dirname(MEMCTL), os.environ["PATH"])),
                            capture_output=True, text=True, check=True)
    check_eq(result.stderr, "", "stderr of completing %s" % " ".join(words))
    return result.stdout.split()


# ---- without a daemon

def test_completion_knows_every_command():
    check_eq(sorted(set(completed(None, ""))), sorted({c.split()[0] for c in COMMANDS}), "first words")
    for first in ("vm", "config", "share", "daemon"):
        check_eq(sorted(completed(None, first, "")), sorted(c.split()[1] for c in COMMANDS if c.startswith(first + " ")),
                 "second words")
    check_eq(completed(None, "help", "vm", "p"), ["page-in", "pmap"], "of help")
    check_eq(completed(None, "--json", "vm", "list", "-o", "CHAR"), ["CHARGED"], "columns")
    options = set(re.findall(r"(?<![\w-])--?\w+", "".join(re.findall(r"^  -.*?(?=  )", memctl("help", "status").stdout, re.M))))
    check_eq(set(completed(None, "status", "-")), options, "options")



def test_help_of_every_command():
    listed = memctl("help").stdout
    check_eq(memctl("--help").stdout, listed, "help and --help")
    for code in "0 1 2 3 4 5 6 16 69".split():
        check(re.search(r"\b%s\b" % code, listed[listed.index("Exit codes"):]), "exit code %s is not in the help" % code)
    for command in COMMANDS:
        check("  %s" % command in listed, "%s is not in the help" % command)
        for form in (["help", *command.split()], [*command.split(), "--help"], ["-h", *command.split()]):
            result = memctl(*form)
            exits(result, OK)
            check(result.stdout.startswith("Usage: memctl %s" % command) and "Exit codes" in result.stdout,
                  "help of %s" % command)


def test_wrong_usage_is_16():
    for words in ([], ["frobnicate"], ["vm"], ["vm", "frobnicate"], ["vm", "show"], ["vm", "show", "a", "b"],
                  ["status", "extra"], ["status", "--frobnicate"], ["--timeout", "soon", "status"], ["-w", "0", "stat"],
                  ["-c", "x", "stat"], ["version", "-w", "1"], ["status", "-o", "NAME"], ["vm", "rm", "x", "--raw"], ["vm", "list", "-o", "FOO"],
                  ["--force", "status"], ["vm", "page-in", "x", "--st"], ["--color=blue", "status"], ["run", "--json", "--name", "x", "--", "y"], ["help", "frobnicate"],
                  ["vm", "pmap", "a", "12Q"], ["vm", "pmap", "a", "+4K"], ["vm", "pmap", "a", "0x10000000000000000"]):
        result = memctl(*words)
        check_eq(result.returncode, USAGE, "exit of %s" % words)
        check(result.stderr, "nothing on stderr for %s" % words)
        check_eq(result.stdout, "", "stdout for %s" % words)


def test_no_daemon_is_69():
    for form in (["--socket", "/nowhere/memctld.sock", "status"], ["vm", "list", "--socket=/nowhere/memctld.sock"]):
        exits(memctl(*form), UNREACHABLE, "/nowhere/memctld.sock")
    exits(memctl("status", env=dict(os.environ, MEMCTL_SOCKET="/nowhere/else")), UNREACHABLE, "/nowhere/else")


def mute_listener(directory):
    s = socket.socket(socket.AF_UNIX)
    s.bind(os.path.join(directory, "s"))
    s.listen(4)
    return s


def test_no_answer_is_6():
    with tempfile.TemporaryDirectory() as d, mute_listener(d):
        exits(memctl("status", "--timeout", "0.2", "--socket", d + "/s"), TIMEOUT, "did not answer")


def test_a_daemon_that_hangs_up_is_69():
    with tempfile.TemporaryDirectory() as d, mute_listener(d) as s:
        threading.Thread(target=lambda: s.accept()[0].close(), daemon=True).start()
        exits(memctl("status", "--socket", d + "/s"), UNREACHABLE, "gone")


def test_an_answer_that_is_none_is_4():
    def answer(s):
        c = s.accept()[0]
        c.recv(1000)
        c.sendall(b"<html>\0")
        c.recv(1000)

    with tempfile.TemporaryDirectory() as d, mute_listener(d) as s:
        threading.Thread(target=answer, args=(s,), daemon=True).start()
        exits(memctl("status", "--socket", d + "/s"), SYSTEM, "cannot be understood")


def answered(reply, *words):
    def answer(s):
        c = s.accept()[0]
        c.recv(10000)
        c.sendall(json.dumps(reply).encode() + b"\0")
        c.recv(1000)

    with tempfile.TemporaryDirectory() as d, mute_listener(d) as s:
        threading.Thread(target=answer, args=(s,), daemon=True).start()
        return memctl(*words, "--socket", d + "/s")


def test_errors_become_exit_codes():
    for name, values, code in (("NotEnoughMemory", {"need": 1, "have": 0}, NO_MEMORY),
                               ("NotEnoughSwap", {"need": 1, "have": 0, "dir": "/"}, NO_MEMORY),
                               ("NoSuchVm", {"vm": "a"}, NOT_FOUND), ("PermissionDenied", {}, PERMISSION),
                               ("System", {"errno": 5}, SYSTEM), ("InvalidValue", {"field": "value"}, USAGE),
                               ("BadState", {}, SYSTEM), ("FromTheFuture", {}, SYSTEM)):
        result = answered({"error": "org.memctl." + name, "parameters": dict(values, message="This is why.")}, "status")
        exits(result, code, "This is why.")
        check_eq(result.stdout, "", "stdout")


def test_an_audit_with_a_difference_is_1():
    vm = {"vm": "a", "ok": False, "pages": 3, "first_wrong": "page 2 of lease 0 is evicted and has data"}
    reply = {"parameters": {"ok": False, "audit": {"vms": [vm], "arena": {"ok": True}}}}
    result = answered(reply, "audit")
    exits(result, DIFFERENCE)
    check("page 2 of lease 0" in result.stdout and "DIFFERS" in result.stdout, result.stdout)
    result = answered(reply, "audit", "--json")
    exits(result, DIFFERENCE)
    check_eq(json.loads(result.stdout)["audit"]["vms"], [vm], "the difference")


def test_version():
    check(re.match(r"memctl \d+\.\d+\.\d+ \(libmemctl ", memctl("version").stdout))
    check_eq(json.loads(memctl("version", "--json").stdout)["schema"], "memctl/1", "schema")


def test_a_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        result = subprocess.run([MEMCTL, "help"], stdout=full, stderr=subprocess.PIPE, check=False)
    check_eq(result.returncode, SYSTEM, "exit")


# ---- with one

def one_by_one(arena_mib=64):
    """Pages come in alone, so that the numbers are foretold."""
    return daemon(arena_mib, settings=["fault_around=1"])


def test_status():
    with daemon(64) as d, Puppet(d, "web", 8) as p:
        p.do("fill", 0, 0, 100, 1, "random")
        text = human(d, "status")
        check(re.search(r"size +64 MiB", text) and re.search(r"registered +1\b", text), text)
        status = as_json(d, "status")["status"]
        check_eq(status["arena"]["size_bytes"], 64 * MIB, "arena")
        check(isinstance(status["arena"]["free_bytes"], int))


def test_vm_list():
    with one_by_one() as d, Puppet(d, "web", 8) as a, Puppet(d, "data-base", 16):
        a.do("fill", 0, 0, 256, 1, "random")
        lines = human(d, "vm", "list").splitlines()
        check(lines[0].startswith("NAME") and len(lines) == 3, "\n".join(lines))
        check_eq(human(d, "vm", "ls").splitlines()[0], lines[0], "ls")
        vms = {v["name"]: v for v in as_json(d, "vm", "list")["vms"]}
        check_eq(vms["web"]["resident_bytes"], MIB, "resident")
        check_eq(vms["data-base"]["size_bytes"], 16 * MIB, "size")


def test_columns():
    with daemon(64) as d, Puppet(d, "web", 8):
        check_eq(human(d, "vm", "list", "-o", "SIZE,name", "--noheadings").split(), ["8", "MiB", "web"], "-o")
        check_eq(human(d, "vm", "list", "-o", "name,size", "--raw").splitlines(), ["NAME SIZE", "web %d" % (8 * MIB)]
                 if "smartcols" in linked() else ["NAME\tSIZE", "web\t%d" % (8 * MIB)], "--raw")
        check_eq(human(d, "vm", "list", "-o", "SIZE", "--bytes", "--noheadings").strip(), str(8 * MIB), "--bytes")
        heads = human(d, "vm", "list", "-o", "all").splitlines()[0].split()
        help_ = memctl("vm", "list", "--help").stdout
        check_eq(re.findall(r"^  [* ] (\S+)", help_, re.M), heads, "columns in the help and with -o all")
        exits(d.run_memctl("vm", "list", "-o", "NAME,NONSENSE"), USAGE, "NONSENSE")


def linked():
    return subprocess.run(["ldd", MEMCTL], capture_output=True, text=True, check=False).stdout


def test_completion_knows_names():
    with daemon(64) as d, Puppet(d, "web", 8), Puppet(d, "data-base", 8):
        check_eq(sorted(completed(d, "vm", "show", "")), ["data-base", "web"], "VMs")
        check_eq(completed(d, "stat", "--json", "w"), ["web"], "of stat")
        check_eq(completed(d, "share", "top", "w"), ["web"], "of share top")
        settings = completed(d, "tune", "")
        check("zstd_level" in settings and "arena" not in settings, settings)


def test_vm_show():
    with one_by_one() as d, Puppet(d, "web", 8) as p:
        p.do("fill", 0, 0, 256, 1, "random")
        text = human(d, "vm", "show", "web")
        levels = [text.index(level) for level in ("guest virtual", "guest physical", "host physical")]
        check_eq(levels, sorted(levels), "order of the levels")
        check(re.search(r"claimed +-", text), "without a balloon nobody knows what the guest claims")
        check(re.search(r"resident +1 MiB", text), text)
        check(re.search(r"^ *\d+\s+0x0\s+8 MiB", text, re.M), "its lease")
        vm = as_json(d, "vm", "show", "web")["vm"]
        check_eq([vm["name"], vm["leased_bytes"], vm["leases"][0]["size_bytes"]], ["web", 8 * MIB, 8 * MIB], "numbers")
        check("zero" in vm["faults"], "latencies by cause")
        exits(d.run_memctl("vm", "show", "nobody"), NOT_FOUND, "vm list")


def test_vm_pmap():
    with one_by_one() as d, Puppet(d, "web", 8) as p:
        p.do("fill", 0, 16, 8, 1, "random")
        p.do("fill", 0, 100, 1, 1, "random")
        runs = as_json(d, "vm", "pmap", "web")["runs"]
        check_eq(sum(r["pages"] for r in runs), 2048, "pages")
        resident = [(r["gpa"], r["pages"]) for r in runs if r["state"] == "resident"]
        check((0x10000, 8) in resident and (100 * 4096, 1) in resident, resident)
        for where in ("0x10000+0x8000", "65536+32KiB", "0x10000+32K"):
            runs = as_json(d, "vm", "pmap", "web", where)["runs"]
            check_eq([(r["gpa"], r["pages"], r["state"]) for r in runs], [(0x10000, 8, "resident")], where)
        runs = as_json(d, "vm", "pmap", "web", "0x10000")["runs"]
        check_eq([(r["gpa"], r["pages"]) for r in runs], [(0x10000, 1)], "one page")
        table = human(d, "vm", "pmap", "web", "0x10000+0x8000").splitlines()
        check(table[0].split()[:3] == ["GPA", "PAGES", "STATE"] and table[1].split()[:3] == ["0x10000", "8", "resident"],
              "\n".join(table))
        exits(d.run_memctl("vm", "pmap", "nobody"), NOT_FOUND)


def test_a_page_map_in_several_answers():
    """More runs than the daemon gives at a time are asked for until all are there."""
    with one_by_one(96) as d, Puppet(d, "web", 48) as p:
        for page in range(0, 9000, 2):
            p.tell("touch 0 %d 1 1 random w" % page)
        for _ in range(0, 9000, 2):
            p.hear(30, "an answer")
        reply = as_json(d, "vm", "pmap", "web")
        check_eq(sum(r["pages"] for r in reply["runs"]), 48 * 256, "pages")
        check(len(reply["runs"]) > 8000, "%d runs" % len(reply["runs"]))
        check_eq(reply["next"], 0, "next")
        part = as_json(d, "vm", "pmap", "web", "4096+20MiB")["runs"]
        check_eq([sum(r["pages"] for r in part), part[0]["gpa"]], [20 * 256, 4096], "a part")


def test_stat():
    with one_by_one() as d, Puppet(d, "web", 8) as p:
        lines = human(d, "stat", "-w", "0.1", "-c", "3").splitlines()
        check_eq([len(lines), lines[0].split()[0]], [4, "CHARGED"], "lines")
        check_eq(len(human(d, "stat", "web", "-w", "0.05", "-c", "24").splitlines()), 26, "headings every 24 lines")
        check_eq(len(human(d, "stat", "--noheadings").splitlines()), 1, "one line")
        process = subprocess.Popen([MEMCTL, "--socket", d.socket, "--json", "stat", "web", "-w", "0.2"],
                                   stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        p.do("fill", 0, 0, 512, 1, "random")
        grown = 0
        for _ in range(5):
            line = json.loads(process.stdout.readline())
            check_eq([line["schema"], line["vm"]], ["memctl/1", "web"], "a line")
            check(line["interval_ns"] > 10 ** 8, "interval")
            grown += line["faults_zero"]
        process.send_signal(signal.SIGINT)
        process.wait(10)
        check_eq(line["resident_bytes"], 2 * MIB, "level")
        check(0 < grown <= 512, "growth of a counter: %d" % grown)
        exits(d.run_memctl("stat", "nobody"), NOT_FOUND)
        exits(d.run_memctl("stat", "-o", "NONSENSE"), USAGE)


def test_share():
    groups = [{"group": "web", "private": False, "members": ["a", "b"], "shared_bytes": 3 * MIB, "common_bytes": MIB,
               "saving_bytes": 2 * MIB, "charged_bytes": MIB}]
    reply = {"parameters": {"groups": groups}}
    lines = answered(reply, "share", "groups").stdout.splitlines()
    check(lines[0].split()[:4] == ["GROUP", "PRIVATE", "MEMBERS", "SHARED"], lines[0])
    check_eq(lines[1].split()[:9], ["web", "no", "a,b", "3", "MiB", "1", "MiB", "2", "MiB"], "a row")
    check_eq(json.loads(answered(reply, "share", "groups", "--json").stdout), dict(schema="memctl/1", groups=groups), "JSON")
    pairs = [{"a": "a", "b": "b", "pages": 256, "bytes": MIB, "group": "web", "private": False}]
    lines = answered({"parameters": {"pairs": pairs}}, "share", "top", "a").stdout.splitlines()
    check_eq([line.split() for line in lines], [["VM", "WITH", "PAGES", "SIZE", "GROUP"], ["a", "b", "256", "1", "MiB", "web"]],
             "share top")


def test_share_of_a_daemon():
    with daemon(64) as d, Puppet(d, "web", 8):
        check_eq(human(d, "share", "scan"), "", "silence of success")
        check_eq(as_json(d, "share", "scan", "web")["vms"], 1, "VMs")
        check(isinstance(as_json(d, "share", "groups")["groups"], list))
        check(isinstance(as_json(d, "share", "top", "web")["pairs"], list))
        status = human(d, "status")
        check(re.search(r"^sharing\n  shared .*\n  common .*\n  saving ", status, re.M), status)
        text = human(d, "vm", "show", "web")
        check(re.search(r"^sharing\n  with +vm\b", text, re.M), text)
        for command in ("top", "scan"):
            exits(d.run_memctl("share", command, "nobody"), NOT_FOUND)
        human(d, "tune", "ShareRateMax", "0")
        exits(d.run_memctl("share", "scan"), SYSTEM, "ShareRateMax")


def test_audit():
    with daemon(64) as d, Puppet(d, "web", 8) as p:
        p.do("fill", 0, 0, 64, 1, "random")
        check("agrees" in human(d, "audit"))
        reply = as_json(d, "audit", "web")
        check(reply["ok"] is True)
        check_eq(reply["audit"]["vms"][0]["pages"], 2048, "pages")
        exits(d.run_memctl("audit", "nobody"), NOT_FOUND)


def test_config_and_tune():
    with daemon(64) as d:
        check("zstd_level" in human(d, "config", "show"))
        settings = {s["name"]: s for s in as_json(d, "config", "show")["settings"]}
        check(settings["zstd_level"]["live"] and not settings["arena"]["live"], "live")
        check_eq(human(d, "tune", "zstd_level", "3"), "", "silence of success")
        settings = {s["name"]: s for s in as_json(d, "config", "show")["settings"]}
        check_eq(settings["zstd_level"]["value"], "3", "the new value")
        as_json(d, "tune", "zstd_level", "1")
        exits(d.run_memctl("tune", "zstd_level", "much"), USAGE, "zstd_level")
        exits(d.run_memctl("tune", "no_such_setting", "1"), USAGE, "no_such_setting")
        exits(d.run_memctl("tune", "arena", "1G"), USAGE, "restart")


def test_catalogue():
    with daemon(64) as d, Puppet(d, "web", 8):
        numbers = as_json(d, "catalogue")["numbers"]
        names = {n["name"] for n in numbers if n["of"] == "vm"}
        check(all(n["sentence"].endswith(".") for n in numbers), "sentences")
        check("resident_bytes" in human(d, "catalogue"))
        # Every column of the tables of VMs that is a number is in the catalogue.
        vm = as_json(d, "vm", "list")["vms"][0]
        check_eq(names - set(vm), set(), "in the catalogue, not in the reply")


def test_vm_rm():
    with daemon(64) as d:
        p = Puppet(d, "web", 8)
        p.do("fill", 0, 0, 64, 1, "random")
        check_eq(human(d, "vm", "rm", "web"), "", "silence of success")
        wait_until(lambda: not d.memctl("vm", "list")["vms"], 10, "the end of the VM")
        exits(d.run_memctl("vm", "rm", "web"), NOT_FOUND)
        p.kill()
        d.audit()


def as_nobody(d, *args):
    if os.geteuid() != 0:
        skip("only root can be another user")
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", MEMCTL, "--socket", d.socket, *args]
    if subprocess.run(command[:6] + ["test", "-x", MEMCTL], check=False).returncode:
        skip("other users may not look into this tree")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_no_permission_is_5():
    with daemon(64, settings=["socket_mode=0777"]) as d, Puppet(d, "web", 8):
        os.chmod(d.dir, 0o755)
        exits(as_nobody(d, "status"), OK)
        exits(as_nobody(d, "tune", "zstd_level", "3"), PERMISSION)
        exits(as_nobody(d, "vm", "rm", "web"), PERMISSION)
        exits(as_nobody(d, "share", "scan"), PERMISSION)
        exits(as_nobody(d, "share", "top"), PERMISSION)
        os.chmod(d.socket, 0o600)
        exits(as_nobody(d, "status"), PERMISSION, d.socket)


if __name__ == "__main__":
    main(globals())
