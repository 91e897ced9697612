#!/usr/bin/env python3
"""Completion in a real zsh and a real fish: for the same lines both offer what bash does, and a key press that finds nothing says
nothing.  What there is comes from `memctl --json help`; names from a daemon that runs."""
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import TREE, build_dir  # noqa: E402
from service.test_completion import about, complete as bash_offers  # noqa: E402
from system.puppet import Puppet, daemon  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
MADE = os.path.join(build_dir(), "packaging", "completions")

# In an interactive zsh a key runs all lines: a completion of each writes what it would insert.  compadd is where all of them end.
ZSH = r"""
fpath=(%(made)s $fpath)
autoload -U compinit && compinit -u -D
zstyle ':completion:*' completer _complete
compadd() {
	local -a hits
	if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
	builtin compadd -O hits "$@"
	(($#hits)) && print -rl -- "${IPREFIX}"${^hits} >>%(out)s
	return 1
}
zle -C offer complete-word _main_complete
probe() {
	local line
	for line in "${(@f)$(<%(lines)s)}"; do
		BUFFER="memctl $line" CURSOR=$((7 + $#line))
		zle offer
		print -r -- ';' >>%(out)s
	done
	print -r -- 'done' >>%(out)s
	BUFFER=
}
zle -N probe
bindkey '^T' probe
print -r -- 'ready' >>%(out)s
"""


def environ(d):
    env = dict(d.environ() if d else os.environ, PATH=os.path.dirname(MEMCTL) + ":" + os.environ["PATH"], TERM="dumb", LC_ALL="C.UTF-8")
    if not d:
        env["MEMCTL_SOCKET"] = "/nowhere"
    return env


def need(shell):
    if not shutil.which(shell):
        skip("%s is not installed" % shell)
    path = os.path.join(MADE, {"zsh": "_memctl", "fish": "memctl.fish"}[shell])
    check(os.path.exists(path), "%s was not made" % path)
    return path


def wait_for(path, word, process):
    while True:
        with open(path) as f:
            if word in f.read().splitlines():
                return
        if process.poll() is not None:
            raise AssertionError("zsh ended with %d" % process.returncode)
        threading.Event().wait(0.02)


def zsh_offers(lines, d=None):
    need("zsh")
    with tempfile.TemporaryDirectory(prefix="memctl-zsh-") as home:
        out, begin = os.path.join(home, "out"), os.path.join(home, ".zshrc")
        with open(out, "w"), open(os.path.join(home, "lines"), "w") as f:
            f.write("\n".join(line.replace("''", "") for line in lines) + "\n")
        with open(begin, "w") as f:
            f.write(ZSH % {"made": MADE, "out": out, "lines": os.path.join(home, "lines")})
        terminal, theirs = pty.openpty()
        process = subprocess.Popen(["zsh", "-d", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                   env=dict(environ(d), ZDOTDIR=home, HOME=home))
        os.close(theirs)
        said = []

        def drain():
            try:
                while True:
                    said.append(os.read(terminal, 1 << 16))
            except OSError:
                pass
        reader = threading.Thread(target=drain)
        reader.start()
        try:
            wait_for(out, "ready", process)
            os.write(terminal, b"\x14")
            wait_for(out, "done", process)
        finally:
            process.kill()
            process.wait()
            reader.join()
            os.close(terminal)
        with open(out) as f:
            text = f.read().replace("ready\n", "", 1)
        shown = b"".join(said).decode(errors="replace")
        check("not found" not in shown and "bad " not in shown and "parse error" not in shown, "zsh said: %s" % shown)
        answers = [answer.split() for answer in text.split(";\n")[:-1]]
    check_eq(len(answers), len(lines), "answers")
    return answers


FISH = r"""
source $argv[1]
while read -l line
    complete -C "memctl $line"
    echo ';'
end
"""


def fish_offers(lines, d=None):
    script = need("fish")
    with tempfile.TemporaryDirectory(prefix="memctl-fish-") as home:
        done = subprocess.run(["fish", "--no-config", "-c", FISH, script], input="".join(line.replace("''", "") + "\n" for line in lines),
                              env=dict(environ(d), HOME=home, XDG_CONFIG_HOME=home, XDG_DATA_HOME=home), capture_output=True, text=True,
                              timeout=300, check=True)
    check_eq(done.stderr, "", "stderr of fish")
    # "--color" takes a value or not: it is offered both ways
    answers = [[row.split("\t")[0].removesuffix("=") for row in answer.splitlines()] for answer in done.stdout.split(";\n")[:-1]]
    check_eq(len(answers), len(lines), "answers")
    return answers


SHELLS = {"zsh": zsh_offers, "fish": fish_offers}


def agree(shell, lines, d=None):
    """Line by line what bash offers, in any order."""
    wanted, found = bash_offers(lines, d), SHELLS[shell](lines, d)
    wrong = ["%r: %s, bash %s" % (line, sorted(b), sorted(a)) for line, a, b in zip(lines, wanted, found) if sorted(set(a)) != sorted(set(b))]
    check(not wrong, "%s: %d of %d differ: %s" % (shell, len(wrong), len(lines), "; ".join(wrong[:3])))
    return wanted


def command_lines():
    names = [c["name"] for c in about()]
    groups = sorted({n.split()[0] for n in names if " " in n})
    return ["''", "--json ''", "--json --socket /x ''", "frobnicate ''", "help ''", "help vm show ''", "vm sh"] + \
        [g + " ''" for g in groups] + ["help %s ''" % g for g in groups]


def option_lines():
    """Behind "--": fish shows options with one dash only where nothing longer is meant."""
    return ["%s --" % c["name"] for c in about()]


def column_lines():
    return ["%s -o ''" % c["name"] for c in about() if c["columns"]] + [
        "vm list -o CHAR", "vm list --output CHAR", "vm list -o NAME,CHAR", "vm list -o +CHAR"]


def value_lines():
    lines = []
    for c in about():
        for o in c["options"]:
            # values that are files, and those only behind =, are tried elsewhere
            if o["class"] == "own" and o["argument"] and o["argument"] not in ("FILE", "PATH", "DIR") and not o["argument"].startswith("["):
                lines.append("%s --%s ''" % (c["name"], o["name"]))
    return lines


def every_line(shell):
    commands = agree(shell, command_lines())
    check(len(commands[0]) > 10, "first words: %s" % commands[0])
    agree(shell, option_lines())
    agree(shell, column_lines())
    with daemon(64) as d, Puppet(d, "web", 8), Puppet(d, "data-base", 8):
        takers = ["%s ''" % c["name"] for c in about() if c["arguments"].split()[:1] in (["VM"], ["[VM]"], ["[EVENT]"], ["[SETTING"])]
        names = agree(shell, takers + value_lines() + [
            "vm show w", "--timeout 3 vm show --json w", "vm show web ''", "tune zs", "tune swap_d", "explain-event vm-",
            "--socket %s vm show w" % d.socket], d)
        check(sum("data-base" in n for n in names) >= 10, "commands that take a VM")
    agree(shell, ["vm show ''", "tune ''"])


def test_zsh_offers_what_bash_does():
    every_line("zsh")


def test_fish_offers_what_bash_does():
    every_line("fish")


test_zsh_offers_what_bash_does.seconds = test_fish_offers_what_bash_does.seconds = 240


def test_values_behind_an_equals_sign():
    check_eq([sorted(a) for a in SHELLS["zsh"](["status --color=al", "vm set a --shares=n"])], [["--color=always"], ["--shares=normal"]], "zsh")
    check_eq([sorted(a) for a in SHELLS["fish"](["status --color=al", "vm set a --shares=n"])], [["--color=always"], ["--shares=normal"]], "fish")


def test_files_and_the_command_of_run():
    place = os.path.join(TREE, "packaging", "completions")
    for shell, offers in SHELLS.items():
        lines = ["--socket %s/mem" % place, "metrics --textfile %s/mem" % place, "run --name a -- ca", "run --name a -- cat %s/mem" % place,
                 "run --name a -- cat --nonsense-of-o"]
        socket, textfile, programs, files, none = offers(lines)
        for found in (socket, textfile, files):
            check(any(f.endswith("memctl.bash") for f in found), "%s: files: %s" % (shell, found))
        check("cat" in programs, "%s: programs: %s" % (shell, programs[:10]))
        check_eq(none, [], "%s: our options among the emulator's" % shell)


def test_a_table_that_drifts_is_seen():
    """The twin: a command, a column and an option less, and the lines of both shells differ from bash's."""
    for shell, offers in (("zsh", zsh_offers), ("fish", fish_offers)):
        path = need(shell)
        with open(path) as f:
            text = f.read()
        for gone, line in (("CHARGED", "vm list -o ''"), ("reservation", "vm set --"), ("page-in", "vm ''")):
            global MADE
            before = MADE
            with tempfile.TemporaryDirectory(prefix="memctl-drift-") as MADE:
                with open(os.path.join(MADE, os.path.basename(path)), "w") as f:
                    f.write(text.replace(gone, "gone"))
                try:
                    check(sorted(offers([line])[0]) != sorted(bash_offers([line])[0]), "%s without %s was not seen" % (shell, gone))
                finally:
                    MADE = before


if __name__ == "__main__":
    main(globals())
