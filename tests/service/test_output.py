"""What every command prints: for people, --raw and --json, held against tests/service/golden, one file a command.

Numbers, addresses, times and paths are replaced by words, and spaces are counted as one: what is held is what is said, in
which order and by which names.  (What the numbers are, tests/system/test_cli.py says.)  The same files hold for a memctl
without libsmartcols, whose cells are separated by tabs.  MEMCTL_GOLDEN=write writes them anew: look at the difference.

Commands are those of `memctl --json help`; one that is new is run with the VM "web" for a VM, and needs a file."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import TREE, build_dir, wait_until  # noqa: E402
from puppet import Puppet, daemon  # noqa: E402

GOLDEN = os.path.join(TREE, "tests", "service", "golden")
MEMCTL = os.path.join(build_dir(), "cli", "memctl")
WRITE = os.environ.get("MEMCTL_GOLDEN") == "write"
# arguments that are not what the usage line asks for; None: not run here
ARGUMENTS = {
    "stat": ["web", "-w", "0.05", "-c", "2"],
    "vm set": ["web", "--shares", "high"],
    "vm rm": ["data"],
    "vm pmap": ["web", "0x0+64KiB"],
    "tune": ["victim"],
    "help": ["vm", "show"],
    "top": ["--batch", "-d", "0.1", "-n", "2"],
    "events": ["--vm", "web", "--level", "notice"],
    "explain-event": ["restarted"],
    "report": None,  # a page; tests/ux/test_report.py
    "heat": None,  # a map of pages as they lie; tests/ux/test_heat.py
    "doctor": None,  # says how this host is; tests/service/test_doctor.py
    "run": ["--name", "a", "--mem", "1M", "--memfd-name", "ram", "--print", "--", "emulator", "a b"],
    "daemon upgrade": None,  # needs a service manager; tests/system/test_restart.py
}
# they change what others show, so they come last, in this order
LAST = ["vm rm", "vm release", "daemon stop"]


def about(program=MEMCTL):
    return json.loads(subprocess.run([program, "--json", "help"], capture_output=True, text=True, check=True).stdout)["commands"]


# ---- what varies

def words_for_numbers(text, directory):
    text = text.replace("\\x20", " ").replace(directory, "DIR").replace(build_dir(), "BUILD")
    text = re.sub(r"^\n?warning: .*\n", "", text, flags=re.M)  # of this host
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b|\b\d\d:\d\d:\d\d\b", "CLOCK", text)
    text = re.sub(r"\b0x[0-9a-f]+\b", "ADDRESS", text)
    text = re.sub(r"(?<![\w.%-])\d[\d.]* (?:[KMGT]i)?B\b", "SIZE", text)
    text = re.sub(r"(?<![\w.%-])\d[\d.]* (?:ns|us|ms|s)\b", "TIME", text)
    text = re.sub(r"(?<![\w.%\[-])-?\d[\d.]*(?![\w])", "N", text)
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.rstrip("\n").split("\n")) + "\n"


def paths(value, at=""):
    """What a JSON text has, as lines "path kind"; texts that are one of a few words as they are."""
    if isinstance(value, dict):
        return {line for k, v in value.items() for line in paths(v, "%s.%s" % (at, k) if at else k)} or {at + " {}"}
    if isinstance(value, list):
        return {line for v in value for line in paths(v, at + "[]")} or {at + " []"}
    if isinstance(value, str):
        return {"%s %s" % (at, '"memctl/1"' if value == "memctl/1" else "text")}
    return {"%s %s" % (at, {bool: "truth", int: "number", float: "number", type(None): "null"}[type(value)])}


def json_lines(text):
    """Of each object that was printed."""
    decoder, position, found = json.JSONDecoder(), 0, set()
    while position < len(text.rstrip()):
        value, position = decoder.raw_decode(text, position)
        found |= paths(value)
        position += len(text[position:]) - len(text[position:].lstrip())
    return "".join(line + "\n" for line in sorted(found))


# ---- what is printed

def run(program, d, words):
    done = subprocess.run([program, "--socket", d.socket, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=50, check=False, env=dict(d.environ(), MEMCTL_PRELOAD="/dev/null"))
    return done.returncode, done.stdout, done.stderr


def words_of(command):
    given = ARGUMENTS.get(command["name"], [w for w in command["arguments"].split() if not w.startswith("[")])
    return None if given is None else [*command["name"].split(), *["web" if w == "VM" else w for w in given]]


def section(title, status, out, err, directory):
    text = "== %s, exit status %d\n%s" % (title, status, out)
    return text + ("-- stderr\n" + words_for_numbers(err, directory) if err else "")


def of_command(program, d, command):
    """The whole text of its file."""
    words = words_of(command)
    text = ""
    for title, options in (("human", []), ("raw", ["--raw"]), ("json", ["--json"])):
        if title == "raw" and not command["columns"]:
            continue
        # what can be done once only is done as JSON, which says most
        if command["name"] in LAST and title != "json":
            continue
        status, out, err = run(program, d, [*options, *words])
        if command["name"] == "explain":  # where its sentences are broken depends on the numbers, and whether anyone has waited
            out = re.sub(r"\n  (?=\S)", " ", out)
            out = re.sub(r"^Its threads waited .*\n", "", out, flags=re.M)
        shown = json_lines(out) if title == "json" else words_for_numbers(out, d.dir)
        text += section(title, status, shown, err, d.dir)
    return text


def host():
    """A daemon with what makes every table have rows."""
    return daemon(64, settings=["fault_around=1", "SamplePeriod=0", "ShareRateMax=1000000", "share_groups=lab=*",
                                "share_with_root=yes"])


def compare(name, text, wrong):
    path = os.path.join(GOLDEN, name.replace(" ", "-") + ".txt")
    if WRITE:
        with open(path, "w") as f:
            f.write(text)
        return
    try:
        with open(path) as f:
            wanted = f.read()
    except FileNotFoundError:
        wrong.append("%s has no file in tests/service/golden (MEMCTL_GOLDEN=write makes it)" % name)
        return
    if wanted == text:
        return
    theirs, ours = wanted.split("\n"), text.split("\n")
    at = next((i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
    wrong.append("%s, line %d: %r is not %r" % (name, at + 1, ours[at:at + 1], theirs[at:at + 1]))


def fill(d, *puppets):
    for p in puppets:
        p.do("fill", 0, 0, 64, 1, "random")
    # a page is looked at twice before it is shared
    wait_until(lambda: d.memctl("share", "scan") and d.memctl("share", "top")["pairs"], 20, "a page that is shared")


def test_every_command():
    wrong, commands = [], about()
    with host() as d, Puppet(d, "web", 8, sharing="group:lab", owner=1) as web, Puppet(
            d, "data", 16, sharing="group:lab", owner=1) as data:
        fill(d, web, data)
        for command in sorted((c for c in commands if words_of(c)), key=lambda c: (LAST + [c["name"]]).index(c["name"]) if
                              c["name"] in LAST else -1):
            compare(command["name"], of_command(MEMCTL, d, command), wrong)
            if command["name"] == "daemon stop":
                d.process.wait(20)
                d.process = None
    if not WRITE:
        known = {c["name"].replace(" ", "-") + ".txt" for c in commands if words_of(c)}
        wrong += ["%s is of no command" % f for f in sorted(set(os.listdir(GOLDEN)) - known)]
    check(not wrong, "; ".join(wrong))


def without_smartcols(directory):
    """A memctl of these sources without it: the objects of the build, but for the tables."""
    there = os.path.join(TREE, "build-min", "cli", "memctl")
    if os.path.exists(there) and os.path.getmtime(there) >= os.path.getmtime(MEMCTL):
        return there
    if not shutil.which("cc"):
        skip("there is neither build-min nor a compiler")
    made, library = os.path.join(directory, "memctl"), os.path.join(build_dir(), "libclient")
    flags = ["-std=gnu17", "-D_GNU_SOURCE", '-DMEMCTL_VERSION="0.1.0"', '-DMEMCTL_PRELOAD_PATH=""', "-I", TREE,
             "-I", os.path.join(TREE, "libclient"), "-o", made, "-L", library, "-Wl,-rpath," + library]
    libraries = ["-lmemctl", "-ljansson", "-lm", "-lpthread"]
    curses = subprocess.run(["pkg-config", "--libs", "ncursesw"], capture_output=True, text=True, check=False).stdout.split()
    libraries += curses
    objects = glob.glob(os.path.join(build_dir(), "cli", "memctl.p", "*.c.o"))
    objects = [o for o in objects if not o.endswith("/table.c.o")]
    done = subprocess.run(["cc", os.path.join(TREE, "cli", "table.c"), *objects, *flags, *libraries], capture_output=True, check=False)
    if done.returncode:  # objects of a build with sanitizers
        sources = [s for s in glob.glob(os.path.join(TREE, "cli", "*.c")) if curses or not re.search(r"/top_[a-z]+\.c$", s) or
                   re.search(r"/top_(batch|columns|host|live|replay)\.c$", s)]
        subprocess.run(["cc", *sources, *flags, *libraries], check=True)
    return made


def test_without_libsmartcols():
    """The same is said; cells are separated by tabs, and a cell may hold blanks."""
    if WRITE:
        skip("golden files are being written")
    with tempfile.TemporaryDirectory(prefix="memctl-min-") as directory, host() as d, Puppet(d, "web", 8), Puppet(d, "data", 16):
        program, wrong = without_smartcols(directory), []
        for command in about(program):
            if command["name"] in ("vm list", "audit", "config show", "tune", "catalogue"):
                compare(command["name"], of_command(program, d, command), wrong)
        check(not wrong, "; ".join(wrong))
        lines = run(program, d, ["vm", "list", "-o", "NAME,SIZE,STATE"])[1].split("\n")
        check_eq(lines, ["NAME\tSIZE\tSTATE", "web\t8 MiB\trunning", "data\t16 MiB\trunning", ""], "tabs")
        check_eq(run(program, d, ["vm", "list", "--color=always", "--noheadings", "-o", "STATE"])[1], "running\n" * 2, "no colour")


if __name__ == "__main__":
    main(globals())
