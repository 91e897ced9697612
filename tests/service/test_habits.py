"""How memctl behaves at a terminal and in a pipe: colours, repeating, headings, closed and full outputs, refused options."""
import errno
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import build_dir  # noqa: E402
from puppet import Puppet, daemon  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
OK, SYSTEM, USAGE, UNREACHABLE = 0, 4, 16, 69


def memctl(*words, **more):
    return subprocess.run([MEMCTL, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False, **more)


def about():
    return json.loads(memctl("--json", "help").stdout)["commands"]


def at_terminal(words, env, rows=24, seconds=20):
    """What it prints to a terminal of so many lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 160, 0, 0))
    process = subprocess.Popen([MEMCTL, *words], stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
                               env=dict({"TERM": "xterm", "PATH": os.environ["PATH"]}, **env))
    os.close(theirs)
    text, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            more = os.read(ours, 65536)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            break
        if not more:
            break
        text += more
    os.close(ours)
    check_eq(process.wait(10), OK, "exit status at a terminal (%s)" % process.stderr.read())
    process.stderr.close()
    return text.decode().replace("\r\n", "\n")


# ---- options

def test_an_option_is_refused_where_it_does_nothing():
    """Each option by a command that does not take it, and each command with an option of others."""
    commands = about()
    takes = {c["name"]: {o["name"] for o in c["options"]} for c in commands}
    all_options = {o["name"]: o for c in commands for o in c["options"]}
    pairs = [(name, next((c for c in sorted(takes) if name not in takes[c]), None)) for name in sorted(all_options)]
    pairs += [(next(n for n in ("stop", "force") if n not in takes[c]), c) for c in sorted(takes)]
    refused = 0
    for name, command in pairs:
        if command is None:  # all commands take it
            continue
        line = ["--" + name] + (["1"] if (all_options[name]["argument"] or "[")[0] != "[" else []) + command.split()
        done = memctl(*line, "x", env=dict(os.environ, MEMCTL_SOCKET="/nowhere"))
        check_eq(done.returncode, USAGE, "exit status of %s" % line)
        check("does not take --%s" % name in done.stderr, "%s: %s" % (line, done.stderr))
        refused += 1
    check(refused > 20, "refused: %d" % refused)


def test_abbreviations():
    nowhere = dict(os.environ, MEMCTL_SOCKET="/nowhere")
    for words, status in ((["vm", "list", "--noh"], UNREACHABLE), (["vm", "set", "a", "--sha", "1"], USAGE),
                          (["vm", "set", "a", "--shari", "off"], UNREACHABLE), (["vm", "page-in", "a", "--st"], USAGE),
                          (["vm", "li"], USAGE), (["stat", "--jso"], UNREACHABLE)):
        check_eq(memctl(*words, env=nowhere).returncode, status, "exit status of %s" % words)
    check("ambiguous" in memctl("vm", "page-in", "a", "--st").stderr, "an option that could be two")


def test_version():
    texts = {memctl(w).stdout for w in ("--version", "-V", "version")}
    check(len(texts) == 1 and re.fullmatch(r"memctl \d\S* \(libmemctl \d\S*\)\n", texts.pop()), "version")


def test_columns_are_added():
    with daemon(64) as d, Puppet(d, "web", 8):
        usual = d.run_memctl("vm", "list").stdout.split("\n")[0].split()
        check_eq(d.run_memctl("vm", "list", "-o", "+UID,%ACTV").stdout.split("\n")[0].split(), [*usual, "UID", "%ACTV"], "added")
        check_eq(d.run_memctl("vm", "list", "-o", "UID,NAME", "--raw", "--noheadings").stdout.split(), [str(os.getuid()), "web"],
                 "chosen")
        check_eq([sorted(v) for v in d.memctl("vm", "list", "-o", "NAME,SIZE")["vms"]], [["name", "size_bytes"]], "of JSON")
        wrong = d.run_memctl("vm", "list", "--json", "-o", "NAME,ODD")
        check_eq((wrong.returncode, wrong.stdout), (USAGE, ""), "a column that there is not")


# ---- again and again

def test_repeated_tables():
    with daemon(64) as d, Puppet(d, "web", 8):
        text = d.run_memctl("vm", "list", "-w", "0.05", "-c", "3").stdout
        tables = text.split("\n\n")
        check_eq([t.split()[0] for t in tables], ["NAME"] * 3, "a table each, with an empty line between")
        lines = d.run_memctl("vm", "list", "--json", "-w", "0.05", "-c", "3").stdout.splitlines()
        check_eq([json.loads(line)["vms"][0]["name"] for line in lines], ["web"] * 3, "one object a line")
        check_eq(len(d.run_memctl("status", "--json", "-c", "2", "-w", "0.05").stdout.splitlines()), 2, "of status")
        check_eq(d.run_memctl("share", "groups", "-w", "0.05", "-c", "2").returncode, OK, "of share groups")
        screens = at_terminal(["--socket", d.socket, "vm", "list", "-w", "0.05", "-c", "2"], {})
        check_eq(screens.count("\033[H\033[2J"), 2, "screens at a terminal: %r" % screens)


def test_headings_of_stat():
    with daemon(64) as d:
        text = at_terminal(["--socket", d.socket, "stat", "-w", "0.02", "-c", "14"], {}, rows=8)
        heads = [i for i, line in enumerate(text.splitlines()) if "CHARGED" in line]
        check_eq(heads, [0, 8], "headings on a terminal of eight lines")
        raw = d.run_memctl("stat", "-w", "0.01", "-c", "30", "--raw").stdout.splitlines()
        check_eq((len(raw), raw[1:].count(raw[0])), (31, 0), "headings for a script")


def test_a_daemon_that_goes_ends_it():
    with daemon(64) as d:
        process = subprocess.Popen([MEMCTL, "--socket", d.socket, "--timeout", "0.2", "vm", "list", "--json", "-w", "0.02"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        json.loads(process.stdout.readline())
        d.stop()
        _, err = process.communicate(timeout=20)
        check(process.returncode not in (0, None) and err.count("\n") == 1, "status %s: %s" % (process.returncode, err))
        d.start()


# ---- colours

def test_colours():
    colour = "\033[32mrunning\033[0m"
    with daemon(64) as d, Puppet(d, "web", 8):
        words = ["--socket", d.socket, "vm", "list", "-o", "NAME,STATE"]
        check(colour in at_terminal(words, {}), "at a terminal: %r" % at_terminal(words, {}))
        for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            check("\033" not in at_terminal(words, env), "with %s" % env)
        check(colour in at_terminal([*words, "--color=always"], {"NO_COLOR": "1"}), "asked for, NO_COLOR does not forbid it")
        check("\033" not in at_terminal([*words, "--color=never"], {}), "never")
        for more in (["--raw"], ["--json"]):
            check("\033" not in at_terminal([*words, *more, "--color=always"], {}), "a script's: %s" % more)
        check("\033" not in memctl(*words).stdout, "in a pipe")
        check(colour in memctl(*words, "--color=always").stdout, "in a pipe, asked for")
        check("\033[32m" in at_terminal(["--socket", d.socket, "status"], {}), "the host's state")


# ---- outputs that take nothing

def test_full_and_closed_outputs():
    """Exit status 4 and one sentence; nothing gets into memctld's socket in stdout's place."""
    with daemon(64) as d, Puppet(d, "web", 8):
        for words in (["status"], ["vm", "list"], ["--json", "vm", "list"], ["vm", "list", "-w", "0.01", "-c", "1000"],
                      ["stat", "-w", "0.01", "-c", "1000"], ["help"], ["--json", "catalogue"]):
            for where in (">/dev/full", ">&-"):
                done = subprocess.run(["bash", "-c", 'exec "$@" ' + where, "bash", MEMCTL, "--socket", d.socket, *words],
                                      stderr=subprocess.PIPE, text=True, timeout=50, check=False)
                check_eq(done.returncode, SYSTEM, "exit status of %s %s (%s)" % (words, where, done.stderr))
                check_eq(done.stderr.count("\n"), 1, "lines about %s %s: %s" % (words, where, done.stderr))
                check("cannot write to stdout: " in done.stderr, done.stderr)
        check_eq(memctl("--socket", d.socket, "vm", "rm", "nobody").returncode, 3, "what else is wrong is said first")
        d.audit()


def test_a_reader_that_has_had_enough():
    """By SIGPIPE as other programs; where that is ignored quietly, with what the command itself found."""
    with daemon(64) as d, Puppet(d, "web", 8):
        for words in (["vm", "list", "-w", "0.01"], ["stat", "-w", "0.01"], ["--json", "vm", "list", "-w", "0.01"],
                      ["--json", "help"]):
            for ignored, wanted in ((False, -signal.SIGPIPE), (True, OK)):
                reader, writer = os.pipe()
                process = subprocess.Popen([MEMCTL, "--socket", d.socket, *words], stdout=writer, stderr=subprocess.PIPE, text=True,
                                           restore_signals=not ignored)
                os.close(writer)
                os.read(reader, 1)
                os.close(reader)
                _, err = process.communicate(timeout=20)
                check_eq((process.returncode, err), (wanted, ""), "%s, SIGPIPE %s" % (words, "ignored" if ignored else "as usual"))


if __name__ == "__main__":
    main(globals())
