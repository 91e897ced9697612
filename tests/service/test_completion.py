"""bash completion in a real bash: for every command its options, and what its arguments are; names from a daemon that runs.

What there is to complete comes from `memctl --json help`, so that a command or an option that is new is looked at here too."""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE, build_dir  # noqa: E402
from puppet import Puppet, daemon  # noqa: E402

MEMCTL = os.path.join(build_dir(), "cli", "memctl")
PAGES = tempfile.TemporaryDirectory(prefix="memctl-help-")
SCRIPT = os.path.join(TREE, "packaging", "completions", "memctl.bash")
# each line of stdin is the words of a command line, whose last one is completed; the answer is a line.  What memctl says as help
# is asked for once only
DRIVER = """
. "$1"
[[ $(complete -p memctl) == *_memctl* ]] || exit 1
tested=$2 pages=$3
remembered() {
	local page=$pages/${*// /-} lines
	[[ $1 == help ]] || exec "$tested" "$@"
	[[ -e $page ]] || "$tested" "$@" >"$page"
	mapfile lines <"$page"
	printf %s "${lines[@]}"
}
while IFS= read -r line; do
	eval "COMP_WORDS=(memctl $line)"
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_memctl remembered
	echo "${COMPREPLY[*]}"
done
"""


def complete(lines, d=None):
    """For each line ("vm sh", the last word is completed; '' for one not begun) what bash offers."""
    done = subprocess.run(["bash", "--norc", "-c", DRIVER, "bash", SCRIPT, MEMCTL, PAGES.name],
                          input="".join(line + "\n" for line in lines),
                          env=d.environ() if d else dict(os.environ, MEMCTL_SOCKET="/nowhere"),
                          capture_output=True, text=True, timeout=50, check=True)
    check_eq(done.stderr, "", "stderr of completing")
    answers = [answer.split() for answer in done.stdout.split("\n")[:-1]]
    check_eq(len(answers), len(lines), "answers")
    return answers


def one(line, d=None):
    return complete([line], d)[0]


def about():
    return json.loads(subprocess.run([MEMCTL, "--json", "help"], capture_output=True, text=True, check=True).stdout)["commands"]


def test_every_command():
    names = [c["name"] for c in about()]
    first = sorted({n.split()[0] for n in names})
    check_eq(sorted(one("''")), first, "first words")
    check_eq(sorted(one("--json --socket /x ''")), first, "behind options")
    for group in {n.split()[0] for n in names if " " in n}:
        theirs = sorted(n.split()[1] for n in names if n.startswith(group + " "))
        check_eq([sorted(a) for a in complete([group + " ''", "help %s ''" % group])], [theirs, theirs], "of " + group)
    check_eq([sorted(a) for a in complete(["help ''", "vm sh", "frobnicate ''", "help vm show ''"])], [first, ["show"], [], []],
             "of help and more")


def test_every_option():
    """All that a command takes, and nothing else."""
    commands = about()
    # `run` has its own once it has begun, as the others have
    answers = complete(["%s -" % c["name"] for c in commands])
    for c, answer in zip(commands, answers):
        wanted = {"--help", "--version", "-h", "-V"}
        wanted |= {"--" + o["name"] for o in c["options"]} | {"-" + o["letter"] for o in c["options"] if o["letter"]}
        check_eq(set(answer), wanted, "options of %s" % c["name"])


def test_columns():
    commands = [c for c in about() if c["columns"]]
    answers = complete(["%s -o ''" % c["name"] for c in commands])
    for c, answer in zip(commands, answers):
        check_eq(answer, [k["name"] for k in c["columns"]], "columns of %s" % c["name"])
    check_eq(complete(["vm list -o CHAR", "vm list --output CHAR", "vm list -o NAME,CHAR", "vm list -o +CHAR"]),
             [["CHARGED"], ["CHARGED"], ["NAME,CHARGED"], ["+CHARGED"]], "begun, in a list, added")


def test_values():
    check_eq(complete(["vm set a --shares ''", "status --color = al", "vm set a --sharing z", "stat -w ''", "vm set a --limit ''"]),
             [["low", "normal", "high"], ["always"], ["zero"], [], ["none"]], "values")
    with open(SCRIPT) as f:
        check("memctl.bash" in one("--socket %s/mem" % os.path.dirname(SCRIPT))[0] and f.read(), "files for --socket")


def test_the_command_of_run():
    check("cat" in one("run --name a -- ca"), "programs")
    check_eq(one("run --name a -- cat %s/mem" % os.path.dirname(SCRIPT)), [SCRIPT], "its files")
    check_eq(one("run --name a -- cat --nu"), [], "not our options")


def test_names_of_vms():
    with daemon(64) as d, Puppet(d, "web", 8), Puppet(d, "data-base", 8):
        takers = [c for c in about() if c["arguments"].split()[:1] in (["VM"], ["[VM]"])]
        check(len(takers) >= 10, "commands that take a VM: %d" % len(takers))
        for c, answer in zip(takers, complete(["%s ''" % c["name"] for c in takers], d)):
            check_eq(sorted(answer), ["data-base", "web"], c["name"])
        check_eq(complete(["vm show w", "--timeout 3 vm show --json w", "vm show web ''", "tune zs", "tune swap_d"], d),
                 [["web"], ["web"], [], ["zstd_level"], []], "begun, between options, behind it, live settings, others")
        check_eq(one("--socket %s vm show w" % d.socket), ["web"], "of the socket that the line names")
    check_eq(one("vm show ''"), [], "without a daemon")


if __name__ == "__main__":
    main(globals())
