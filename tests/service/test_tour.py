"""The tour of README.md, typed as it stands there into one shell, on a memctld of its own: what is printed is what the README says.

Numbers, times and widths may differ; "..." stands for any lines.  What only looks is done again until it says what it should, for
at most 20 s: the README says "sleep 5", a busy machine may take longer, and an idle one need not wait."""
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, main  # noqa: E402
from lib.daemon import SLOW, TREE, build_dir  # noqa: E402

LOOKS = re.compile(r"(cat|memctl (status|stat|vm list|vm show|vm pmap|explain|audit|share|config|tune)) ?[^;&]*$")
END = "end-of-output"


def tour():
    """[(command, the lines that it prints)] of the README."""
    with open(os.path.join(TREE, "README.md")) as f:
        text = re.search(r"<!-- tour:.*?-->(.*?)<!-- end of the tour -->", f.read(), re.S)[1]
    steps = []
    for line in re.findall(r"^    (.*)$", text, re.M):
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def normal(lines):
    text = re.sub(r"\n  (?=[a-z])", " ", "\n".join(lines))  # a sentence goes on
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    # what is asked of whom by what means depends on the moment
    text = re.sub(r"^\d\d:\d\d:\d\d (host|limit) .*$", "ACTION", text, flags=re.M)
    text = re.sub(r"^The host is \w+:", "The host is STATE:", text, flags=re.M)
    text = re.sub(r"\b\d[\d.]*( [KMG]iB| B| [nmu]?s)?\b", "N", text)
    return [line for line in text.split("\n") if line]


def agrees(printed, wanted):
    """Whether these lines are those, where "..." is any; guests that are started together come in any order."""
    if "..." not in wanted:
        return sorted(normal(printed)) == sorted(normal(wanted))
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in normal(wanted))
    return re.fullmatch(pattern, "".join(line + "\n" for line in normal(printed))) is not None


class Shell:
    def __init__(self, directory):
        self.directory = directory
        self.process = subprocess.Popen(["bash", "--norc"], cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, bufsize=0, start_new_session=True,
                                        env={k: v for k, v in os.environ.items() if not k.startswith("MEMCTL")})

    def type(self, command):
        """What it prints."""
        command = command.replace("/tmp/tour", self.directory).replace("$PWD/build", build_dir())
        self.process.stdin.write(("%s\necho %s\n" % (command, END)).encode())
        text = ""
        while not text.endswith(END + "\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], 40 * SLOW)
            check(ready, "%s does not end; so far: %s" % (command, text))
            more = os.read(self.process.stdout.fileno(), 65536).decode()
            check(more, "the shell has ended: %s" % text)
            text += more
        return text.splitlines()[:-1]

    def end(self):
        """With everything that it has started: its session is ours alone."""
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sig)
            except ProcessLookupError:
                break
            time.sleep(0.2)
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def take(shell, command, wanted):
    waited = re.match(r"sleep [\d.]+; ", command)
    looked = command[waited.end():] if waited else command
    if not LOOKS.match(looked):
        printed = shell.type(command)
    else:
        end = time.monotonic() + 20 * SLOW
        while True:
            printed = shell.type(looked)
            if agrees(printed, wanted) or time.monotonic() > end:
                break
            time.sleep(0.2)
    check(agrees(printed, wanted), "%s prints %s, the README says %s" % (command, printed, wanted))
    return printed


def test_tour():
    steps = tour()
    check(len(steps) > 12 and sum(len(w) for _, w in steps) > 15, "the tour has %d steps" % len(steps))
    directory = tempfile.mkdtemp(prefix="memctl-tour-")
    shell = Shell(directory)
    try:
        for command, wanted in steps:
            printed = take(shell, command, wanted)
            if os.environ.get("MEMCTL_TOUR") == "show":
                print("    $ %s" % command, *("    " + line for line in printed), sep="\n", file=sys.stderr)
    finally:
        shell.end()
        shutil.rmtree(directory, ignore_errors=True)


def test_what_does_not_agree():
    """The comparison can fail."""
    check(agrees(["web 48 MiB running"], ["web 4.5 GiB   running"]), "numbers and widths do not count")
    check(agrees(["a", "b", "c"], ["a", "..."]) and agrees(["a", "b", "c"], ["...", "c"]), "lines left out")
    for printed, wanted in ((["a"], ["b"]), (["a", "b"], ["a"]), ([], ["a"]), (["a"], ["a", "...", "b"]), (["0 wrong"], ["0 wrung"])):
        check(not agrees(printed, wanted), "%s agrees with %s" % (printed, wanted))


if __name__ == "__main__":
    main(globals())
