"""The tree under check, and the frame of the checks.

A check is a function of a directory that returns what is wrong with it, one sentence each.  It is run twice: on this
tree, where it must find nothing, and as its twin on a small bad tree in a temporary directory, where it must
find something: a check that cannot fail proves nothing."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import run_scenario  # noqa: E402

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def files(root):
    """Paths of what belongs to the tree, relative to its top: what git does not ignore, or all if it is no clone."""
    if os.path.exists(os.path.join(root, ".git")):
        out = subprocess.run(["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-co", "--exclude-standard"],
                             capture_output=True, text=True, check=True).stdout
        return sorted(p for p in set(out.splitlines()) if os.path.isfile(os.path.join(root, p)))
    found = []
    for top, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not (f.startswith("build") or f in (".git", "__pycache__"))]
        found += [os.path.relpath(os.path.join(top, n), root) for n in names]
    return sorted(found)


def text(root, path):
    try:
        with open(os.path.join(root, path), errors="replace") as f:
            return f.read()
    except OSError:
        return None


def write_tree(root, contents):
    for path, content in contents.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as f:
            f.write(content)


def run(checks):
    """checks: (name, check, bad tree as {path: content}) or (name, check, [bad trees]).  Exits like a test program."""
    wanted = sys.argv[1:]
    good = True
    for name, check, bad in checks:
        def holds(check=check):
            wrong = check(TREE)
            if wrong:
                raise AssertionError("%s%s" % ("; ".join(wrong[:6]),
                                               "; and %d more" % (len(wrong) - 6) if len(wrong) > 6 else ""))

        def twin(check=check, bad=bad):
            for contents in bad if isinstance(bad, list) else [bad]:
                with tempfile.TemporaryDirectory(prefix="memctl-tree-") as root:
                    write_tree(root, contents)
                    if not check(root):
                        raise AssertionError("did not catch %s" % ", ".join(contents))

        for label, function in ((name, holds), (name + "_twin", twin)):
            if wanted == ["--list"]:
                print(label)
            elif not wanted or label in wanted:
                good &= run_scenario(label, function)
    sys.exit(0 if good else 1)
