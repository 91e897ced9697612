"""What must be written down is: settings, dependencies with their reasons, assumptions about the world."""
import os
import re
import subprocess
import sys

import tree

ASSUMPTIONS = 9


def section(content, title):
    """The text under a heading that contains `title`, down to the next heading of its level or above."""
    found = re.search(r"^(#+)\s[^\n]*%s[^\n]*$(.*?)(?=^#{1,2}\s|\Z)" % title, content, re.M | re.S | re.I)
    return found[2] if found else ""


def check_settings(root):
    """Each row of settings.def is a commented line of the sample configuration, once, in its order, at its default, with its help."""
    table = os.path.join(root, "daemon/settings.def")
    text = re.sub(r"/\*.*?\*/", "", tree.text(root, "daemon/settings.def") or "", flags=re.S)
    names = re.findall(r"^SETTING\((\w+),", text, re.M)
    if not names:
        return ["no settings found"]
    made = subprocess.run([sys.executable, os.path.join(tree.TREE, "packaging/sample.py"), table,
                           os.path.join(tree.TREE, "daemon/vm_file.def")], capture_output=True, text=True, check=False)
    if made.returncode:
        return ["packaging/sample.py: %s" % made.stderr.strip().splitlines()[-1]]
    blocks = made.stdout.split("[memctld]", 1)[1].strip().split("\n\n")
    given = [b.splitlines()[-1] for b in blocks]
    wrong = ["the settings of the sample are %s" % given] if [g[1:].split(" =")[0] for g in given] != names else []
    for name, block in zip(names, blocks):
        row = re.search(r"^SETTING\(%s,(.*?)\)$" % name, text, re.M | re.S)[1]
        # the strings of a row: unit, default, help
        _, default, words = re.findall(r'"((?:[^"\\]|\\.)*)"', re.sub(r'"\s*\n\s*"', "", row))
        said = " ".join(line[2:] for line in block.splitlines()[:-1])
        if not words.endswith(".") or words.replace('\\"', '"').split() != said.removesuffix("  (live)").split():
            wrong.append("setting %s is explained by: %s" % (name, said))
        if block.splitlines()[-1] != ("#%s = %s" % (name, default)).rstrip():
            wrong.append("setting %s is not at its default: %s" % (name, block.splitlines()[-1]))
        if said.endswith("(live)") != bool(re.search(r", true,", row)):
            wrong.append("setting %s: live or not" % name)
    return wrong


def check_dependencies(root):
    """Each dependency() of the build has a line in daemon/README.md that says why, and what instead."""
    build, readme = tree.text(root, "meson.build") or "", tree.text(root, "daemon/README.md") or ""
    told = section(readme, "dependenc")
    wrong = []
    for name in re.findall(r"dependency\('([\w.-]+)'", build):
        if name == "threads":
            continue
        short = re.sub(r"^lib|_core$", "", name)
        line = next((t for t in told.splitlines() if short in t.lower()), None)
        if line is None:
            wrong.append("daemon/README.md does not say why %s is needed" % name)
        elif line.count("|") < 4 or not all(c.strip() for c in line.strip().strip("|").split("|")):
            wrong.append("daemon/README.md: %s needs a why and a what instead" % name)
    return wrong if "dependency(" in build else wrong + ["no dependencies found"]


def check_assumptions(root):
    told = section(tree.text(root, "daemon/README.md") or "", "assumption")
    numbers = [int(n) for n in re.findall(r"^(\d+)\.\s", told, re.M)]
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < ASSUMPTIONS:
        return ["daemon/README.md: assumptions are numbered %s, not 1 to at least %d" % (numbers, ASSUMPTIONS)]
    return []


def check_readme(root):
    readme = tree.text(root, "README.md") or ""
    return ["README.md does not name %s" % c for c in ("packaging/demo", "tests/run", "daemon/README.md")
            if c not in readme]


def check_suites(root):
    """Every directory of tests that holds programs is run by a suite."""
    suites = tree.text(root, "tests/suites.toml") or ""
    folders = {p.split("/")[1] for p in tree.files(root)
               if re.match(r"tests/\w+/(test_|smoke_)\w+\.(py|sh)$", p)}
    return ["tests/%s is run by no suite" % f for f in sorted(folders) if "tests/%s/" % f not in suites]


if __name__ == "__main__":
    tree.run([
        ("settings_are_documented", check_settings, [
            {"daemon/settings.def": 'SETTING(arena, x)\n'},
            {"daemon/settings.def": 'SETTING(a, SIZE, "bytes", a, "1G", 0, 1, false,\n\t"Memory")\n'},
            {"daemon/settings.def": "/* SETTING(a) */\n"},
        ]),
        ("dependencies_have_reasons", check_dependencies, [
            {"meson.build": "dependency('jansson')\n", "daemon/README.md": "## Dependencies\n"},
            {"meson.build": "dependency('jansson')\n", "daemon/README.md": "## Dependencies\n| jansson | JSON | |\n"},
        ]),
        ("assumptions_are_numbered", check_assumptions, {"daemon/README.md": "## Assumptions\n1. a\n3. b\n"}),
        ("readme_has_both_commands", check_readme, {"README.md": "# memctl\npackaging/demo\n"}),
        ("every_test_is_in_a_suite", check_suites, {"tests/odd/test_a.py": "", "tests/suites.toml": ""}),
    ])
