"""What must be written down is: settings, dependencies with their reasons, assumptions about the world."""
import re

import tree

ASSUMPTIONS = 9


def section(content, title):
    """The text under a heading that contains `title`, down to the next heading of its level or above."""
    found = re.search(r"^(#+)\s[^\n]*%s[^\n]*$(.*?)(?=^#{1,2}\s|\Z)" % title, content, re.M | re.S | re.I)
    return found[2] if found else ""


def check_settings(root):
    """Each row of settings.def is a commented line of the sample configuration, which is what admins read."""
    table, sample = tree.text(root, "daemon/settings.def"), tree.text(root, "packaging/memctld.conf")
    if table is None:
        return ["daemon/settings.def is not there"]
    table = re.sub(r"/\*.*?\*/", "", table, flags=re.S)
    names = [quoted or bare for quoted, bare in re.findall(r"^SETTING\w*\(\s*(?:\"(\w+)\"|(\w+))", table, re.M)]
    if not names:
        return ["no settings found"]
    wrong = ["setting %s is not in packaging/memctld.conf" % n for n in names
             if not re.search(r"^#?\s*%s\s*=" % re.escape(n), sample or "", re.M)]
    for name in re.findall(r"^#?(\w+) *=", sample or "", re.M):
        if name not in names:
            wrong.append("packaging/memctld.conf explains %s, which is no setting" % name)
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
            {"daemon/settings.def": 'SETTING(arena, x)\n', "packaging/memctld.conf": "# nothing\n"},
            {"daemon/settings.def": 'SETTING(arena, x)\n', "packaging/memctld.conf": "#arena = 1G\n#other = 1\n"},
        ]),
        ("dependencies_have_reasons", check_dependencies, [
            {"meson.build": "dependency('jansson')\n", "daemon/README.md": "## Dependencies\n"},
            {"meson.build": "dependency('jansson')\n", "daemon/README.md": "## Dependencies\n| jansson | JSON | |\n"},
        ]),
        ("assumptions_are_numbered", check_assumptions, {"daemon/README.md": "## Assumptions\n1. a\n3. b\n"}),
        ("readme_has_both_commands", check_readme, {"README.md": "# memctl\npackaging/demo\n"}),
        ("every_test_is_in_a_suite", check_suites, {"tests/odd/test_a.py": "", "tests/suites.toml": ""}),
    ])
