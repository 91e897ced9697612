"""The manual against the tables of the sources: each command, option, setting, function and method has its place in a page.

The pages are those of the build, which are made by the built programs: so this also finds a table that a page is not made of.
A twin has its pages in man/."""
import os
import re
import shutil
import subprocess

import tree
from lib.check import skip
from lib.daemon import build_dir

OPTION = re.compile(r'^\t\{ "([\w-]+)", (?:\'(.)\'|0), ("[^"]*"|NULL), (REPEATED|"[^"]*"),', re.M)


def manual(root):
    """page -> its text without roff's escapes; an alias has the text of its page."""
    top = os.path.join(root, "man") if os.path.isdir(os.path.join(root, "man")) else os.path.join(
        build_dir(), "packaging", "man")
    if not os.path.isdir(os.path.join(top, "man1")):
        skip("no pages in %s: scdoc is not there" % top)
    pages = {}
    for folder in sorted(os.listdir(top)):
        for name in os.listdir(os.path.join(top, folder)) if re.fullmatch(r"man\d", folder) else ():
            with open(os.path.join(top, folder, name)) as f:
                text = f.read()
            alias = re.match(r"\.so (\S+)", text)
            if alias:
                with open(os.path.join(top, alias[1])) as f:
                    text = f.read()
            pages[name] = re.sub(r"\\f.|\\&", "", text).replace("\\-", "-")
    return pages


def commands(root):
    table = re.search(r"commands\[\] = \{(.*?)^\};", tree.text(root, "cli/main.c") or "", re.S | re.M)
    return re.findall(r'^\t\{ "([a-z -]+)", ', table[1] if table else "", re.M)


def options(root):
    """[(name, letter, the commands that it is for)]"""
    text = tree.text(root, "cli/options.c") or ""
    repeated = re.search(r'#define REPEATED "([^"]*)"', text)
    return [(name, letter, (repeated[1] if where == "REPEATED" else where.strip('"')).split(", "))
            for name, letter, _, where in OPTION.findall(text)]


def check_commands(root):
    pages = manual(root)
    wrong = ["memctl %s has no page" % c for c in commands(root) if "memctl-%s.1" % c.replace(" ", "-") not in pages]
    wrong += ["memctl(1) does not name %s" % c for c in commands(root) if "\n%s" % c not in pages.get("memctl.1", "")]
    theirs = {p for p in pages if p.startswith("memctl-") and p.endswith(".1")}
    wrong += ["%s is no command's" % p for p in sorted(theirs - {"memctl-%s.1" % c.replace(" ", "-") for c in commands(root)})]
    return wrong if commands(root) else wrong + ["no commands found"]


def check_options(root):
    pages, wrong, known = manual(root), [], commands(root)
    for name, letter, takers in options(root):
        for command in takers:
            if command in ("all", "tables"):
                page = "memctl.1"
            elif command in known:
                page = "memctl-%s.1" % command.replace(" ", "-")
            else:
                wrong.append("--%s is for \"%s\", which is no command" % (name, command))
                continue
            if not re.search(r"^(-\w.*, )?--%s\b" % name, pages.get(page, ""), re.M):
                wrong.append("%s does not explain --%s" % (page, name))
            if letter and not re.search(r"^-%s\b" % letter, pages.get(page, ""), re.M):
                wrong.append("%s does not explain -%s" % (page, letter))
    return wrong if options(root) else wrong + ["no options found"]


def check_daemon(root):
    """Settings in memctld.conf(5), memctld's options in memctld(8)."""
    pages = manual(root)
    table = re.sub(r"/\*.*?\*/", "", tree.text(root, "daemon/settings.def") or "", flags=re.S)
    names = re.findall(r"^SETTING\((\w+)", table, re.M)
    wrong = ["memctld.conf(5) does not explain %s" % n for n in names
             if not re.search(r"^%s$" % n, pages.get("memctld.conf.5", ""), re.M)]
    for name in re.findall(r'^\t\{ "([\w-]+)", \w+_argument', tree.text(root, "daemon/main.c") or "", re.M):
        if "--%s" % name not in pages.get("memctld.8", ""):
            wrong.append("memctld(8) does not explain --%s" % name)
    for key in re.findall(r"^VM_KEY\((\w+)", tree.text(root, "daemon/vm_file.def") or "", re.M):
        if not re.search(r"^%s$" % key, pages.get("memctld.conf.5", "").partition("FILES OF VMS")[2], re.M):
            wrong.append("memctld.conf(5) does not explain %s of a VM's file" % key)
    for event in re.findall(r'^EVENT\(\w+,\s*"([\w-]+)"', tree.text(root, "daemon/base/events.def") or "", re.M):
        if not re.search(r"^%s \(" % event, pages.get("memctl-event-ids.7", ""), re.M):
            wrong.append("memctl-event-ids(7) does not explain %s" % event)
    return wrong if names else wrong + ["no settings found"]


def check_library(root):
    pages = manual(root)
    names = re.findall(r"^\s*(memctl_\w+);", tree.text(root, "libclient/memctl.map") or "", re.M)
    wrong = []
    for name in names:
        described = pages.get(name + ".3", "").partition(".SH DESCRIPTION")[2]
        if not re.search(r"^(.*, )?%s\(\).*\n\.RS 4\n[^.]" % name, described, re.M):
            wrong.append("no page says what %s does" % name)
    return wrong if names else wrong + ["no functions found"]


def check_contract(root):
    page = manual(root).get("org.memctl.7", "")
    methods = re.findall(r"^OP\((\w+)", tree.text(root, "proto/ops.def") or "", re.M)
    errors = re.findall(r"^ERROR\((\w+)", tree.text(root, "proto/errors.def") or "", re.M)
    wrong = ["org.memctl(7) does not explain %s" % m for m in methods if not re.search(r"^%s\n\.RS 4\n\(" % m, page, re.M)]
    wrong += ["org.memctl(7) does not explain %s" % e for e in errors if not re.search(r"^%s \(" % e, page, re.M)]
    return wrong if methods else wrong + ["no methods found"]


def check_parts(root):
    """What is written by hand belongs to a page, and the build knows that the page depends on it."""
    pages, wrong = manual(root), []
    build = tree.text(root, "packaging/man/meson.build") or ""
    for path in tree.files(root):
        part = re.fullmatch(r"packaging/man/((?:parts|pages)/(.*)\.scd)", path)
        if part and part[2] not in pages:
            wrong.append("%s is of no page" % path)
        if part and part[1] not in build:
            wrong.append("packaging/man/meson.build does not name %s" % part[1])
    return wrong


def check_roff(root):
    """What a page's reader would complain of; STYLE is taste, and .so is how pages have several names."""
    if not shutil.which("mandoc"):
        skip("mandoc is not installed")
    manual(root)
    top = os.path.join(root, "man") if os.path.isdir(os.path.join(root, "man")) else os.path.join(build_dir(), "packaging", "man")
    paths = [os.path.join(f, n) for f in sorted(os.listdir(top)) if re.fullmatch(r"man\d", f) for n in os.listdir(os.path.join(top, f))]
    said = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *paths], cwd=top, capture_output=True, text=True, check=False)
    return [line for line in (said.stdout + said.stderr).splitlines() if ".so is fragile" not in line and "STYLE" not in line]


MAIN = 'const struct command commands[] = {\n\t{ "vm list", "", 0 },\n};\n'
PAGE = ".TH A 1\n.SH NAME\na - b\n"

if __name__ == "__main__":
    tree.run([
        ("commands_have_pages", check_commands, [
            {"cli/main.c": MAIN, "man/man1/memctl.1": "\nvm list\n"},
            {"cli/main.c": MAIN, "man/man1/memctl.1": "\n", "man/man1/memctl-vm-list.1": PAGE},
            {"cli/main.c": MAIN, "man/man1/memctl.1": "\nvm list\n", "man/man1/memctl-vm-list.1": PAGE,
             "man/man1/memctl-gone.1": PAGE},
        ]),
        ("options_are_explained", check_options, [
            {"cli/main.c": MAIN, "cli/options.c": '\t{ "json", 0, NULL, "all", FLAG(json), "" },\n', "man/man1/memctl.1": PAGE},
            {"cli/main.c": MAIN, "cli/options.c": '\t{ "watch", \'w\', "SEC", "vm list", X },\n', "man/man1/memctl.1": PAGE,
             "man/man1/memctl-vm-list.1": "--watch\n"},
            {"cli/main.c": MAIN, "cli/options.c": '\t{ "watch", 0, "SEC", "vm lst", X },\n', "man/man1/memctl.1": "--watch\n"},
        ]),
        ("settings_and_options_of_memctld_are_explained", check_daemon, [
            {"daemon/settings.def": "SETTING(arena, X)\n", "man/man1/a.1": PAGE, "man/man5/memctld.conf.5": PAGE},
            {"daemon/settings.def": "SETTING(arena, X)\n", "man/man1/a.1": PAGE, "man/man5/memctld.conf.5": "arena\n",
             "daemon/main.c": '\t{ "odd", no_argument, 0 },\n', "man/man8/memctld.8": PAGE},
            {"daemon/settings.def": "SETTING(arena, X)\n", "man/man1/a.1": PAGE, "man/man5/memctld.conf.5": "arena\nlimit\n",
             "daemon/vm_file.def": 'VM_KEY(limit, "")\n'},
            {"daemon/settings.def": "SETTING(arena, X)\n", "man/man1/a.1": PAGE, "man/man5/memctld.conf.5": "arena\n",
             "daemon/base/events.def": 'EVENT(A, "started", INFO, "", "")\n'},
        ]),
        ("functions_are_explained", check_library, [
            {"libclient/memctl.map": "\tmemctl_a;\n", "man/man1/a.1": PAGE},
            {"libclient/memctl.map": "\tmemctl_a;\n", "man/man1/a.1": PAGE,
             "man/man3/memctl_a.3": ".SH SYNOPSIS\nmemctl_a()\n.SH DESCRIPTION\nmemctl_a()\n.SH SEE ALSO\n"},
        ]),
        ("methods_are_explained", check_contract, [
            {"proto/ops.def": "OP(Lease, lease, CLIENT)\n", "man/man1/a.1": PAGE, "man/man7/org.memctl.7": PAGE},
            {"proto/ops.def": "OP(Lease, lease, CLIENT)\n", "proto/errors.def": "ERROR(Odd, 0)\n", "man/man1/a.1": PAGE,
             "man/man7/org.memctl.7": "Lease\n.RS 4\n()\n"},
        ]),
        ("parts_are_of_pages", check_parts, [
            {"packaging/man/parts/odd.1.scd": "", "packaging/man/meson.build": "parts/odd.1.scd", "man/man1/a.1": PAGE},
            {"packaging/man/parts/a.1.scd": "", "packaging/man/meson.build": "", "man/man1/a.1": PAGE},
        ]),
        ("pages_render_without_a_warning", check_roff, {"man/man1/a.1": ".TH A 1\n.PP\n.SH\n.bogus\n"}),
    ])
