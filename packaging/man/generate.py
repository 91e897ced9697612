#!/usr/bin/env python3
"""The manual, in scdoc(5)'s language, from the tables that the programs are made of.

    generate.py --memctl PROGRAM --memctld PROGRAM --exporter PROGRAM --out DIR [--scdoc PROGRAM]

Into DIR go man1 ... man8; without --scdoc their sources instead.  What no table has stands in parts/PAGE.scd, and comes
before a page's last sections; pages/ has whole pages that are written by hand."""
import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import header  # noqa: E402
from scd import escape, literal, paragraphs, sentence, words  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
VERSION = re.search(r"version: '([^']+)'", open(os.path.join(TREE, "meson.build")).read())[1]


def read(path):
    with open(os.path.join(TREE, path)) as f:
        return f.read()


class Page:
    def __init__(self, name, section, summary):
        self.name, self.section = name, section
        self.lines = ['%s(%d) "memctl %s" "memctl"' % (name, section, VERSION), "", "# NAME", "",
                      "%s - %s" % (escape(name), escape(summary)), ""]

    def heading(self, title, level=1):
        self.lines += ["#" * level + " " + title, ""]

    def add(self, *lines):
        self.lines += [*lines, ""]

    def extend(self, lines):
        self.lines += lines

    def item(self, term, *texts):
        """A term, and below it, indented, what it is."""
        self.lines += [term, *["\t" + t for t in texts if t], ""]

    @classmethod
    def by_hand(cls, path):
        page = cls.__new__(cls)
        name = os.path.basename(path)[:-len(".scd")]
        page.name, page.section = name.rpartition(".")[0], int(name.rpartition(".")[2])
        with open(path) as f:
            page.lines = [f.read()]
        return page

    def part(self):
        path = os.path.join(HERE, "parts", "%s.%d.scd" % (self.name, self.section))
        if os.path.exists(path):
            with open(path) as f:
                self.lines += [f.read().rstrip(), ""]

    def see_also(self, *pages):
        self.heading("SEE ALSO")
        self.add(", ".join("*%s*(%d)" % (escape(n), s) for n, s in pages if (n, s) != (self.name, self.section)))

    def text(self):
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self.lines)).rstrip() + "\n"


# ---- memctl

def page_of(command):
    return "memctl-" + command.replace(" ", "-")


def usage(command):
    """A command's arguments with its options."""
    own = []
    for o in command["options"]:
        if o["class"] == "own":
            name = "-" + o["letter"] if o["letter"] else "--" + o["name"]
            own.append("\\[*%s*%s\\]" % (name, " _%s_" % escape(o["argument"]) if o["argument"] else ""))
    arguments = command["arguments"]
    before = arguments.startswith("--")
    line = ["*memctl %s*" % escape(command["name"])]
    line += own + ["\\[options\\]", escape(arguments)] if before else [escape(arguments), *own, "\\[options\\]"]
    return " ".join(w for w in line if w)


def put_options(page, options):
    for o in options:
        argument = o["argument"] or ""
        shown = "\\[=_%s_\\]" % escape(argument[1:-1]) if argument.startswith("[") else " _%s_" % escape(argument) if argument else ""
        names = (["*-%s*%s" % (o["letter"], shown)] if o["letter"] else []) + ["*--%s*%s" % (o["name"], shown)]
        page.item(", ".join(names), words(sentence(o["help"])))


def put_exit_codes(page, codes):
    page.heading("EXIT STATUS")
    for code in codes:
        page.item("*%d*" % code["code"], words(sentence(code["meaning"])))


def command_page(command, about):
    page = Page(page_of(command["name"]), 1, command["summary"])
    page.heading("SYNOPSIS")
    page.add(usage(command))
    page.heading("DESCRIPTION")
    page.add(words(sentence(command["summary"])))
    page.extend(paragraphs((command["details"] or "").split("\n")))
    own = [o for o in command["options"] if o["class"] == "own"]
    table = [o for o in command["options"] if o["class"] == "tables"]
    page.heading("OPTIONS")
    put_options(page, own + table)
    page.add("And those of every command: %s; see *memctl*(1)." % ", ".join(
        "*--%s*" % o["name"] for o in command["options"] if o["class"] == "all"))
    if command["columns"]:
        page.heading("COLUMNS")
        page.add("Those with a star are shown without *-o*.  The name in parentheses is the field's under *--json*.")
        for c in command["columns"]:
            page.item("*%s*%s (%s)" % (escape(c["name"]), " \\*" if c["shown"] else "", escape(c["field"])),
                      words(sentence(c["help"] or c["field"])))
    page.part()
    put_exit_codes(page, about["exit_codes"])
    page.see_also(("memctl", 1), ("memctld", 8))
    return page


def memctl_page(about):
    page = Page("memctl", 1, "memory of virtual machines, as memctld lends it")
    page.heading("SYNOPSIS")
    page.add("*memctl* _COMMAND_ \\[_ARGUMENTS_\\] \\[_OPTIONS_\\]")
    page.heading("DESCRIPTION")
    page.add("*memctl* asks *memctld*(8) how the memory of this host's virtual machines stands, and changes what may be changed.")
    page.heading("COMMANDS")
    for c in about["commands"]:
        page.item("*%s* %s" % (escape(c["name"]), escape(c["arguments"])), words(sentence(c["summary"])),
                  "See *%s*(1)." % escape(page_of(c["name"])))
    page.heading("OPTIONS")
    page.add("They may stand anywhere on the line (with *run*: before the emulator's command), and may be abbreviated as long as no "
             "other begins so.  An option that a command does not take is refused.")
    every = next(c for c in about["commands"] if c["name"] == "status")
    put_options(page, [o for o in every["options"] if o["class"] == "all"])
    page.item("*-h*, *--help*", "Help; with a command, its own.")
    page.item("*-V*, *--version*", "The versions of memctl and of the library.")
    page.add("Commands that print a table take these too:")
    listing = next(c for c in about["commands"] if c["name"] == "vm list")
    put_options(page, [o for o in listing["options"] if o["class"] == "tables"])
    page.part()
    put_exit_codes(page, about["exit_codes"])
    page.see_also(("memctld", 8), ("memctl-memory", 7), ("memctld.conf", 5), ("org.memctl", 7), ("libmemctl", 3))
    return page


# ---- memctld

def program_page(program, name, summary, end, see_also):
    """Of a program that says its options by --help: those before `end`."""
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    page = Page(name, 8, summary)
    page.heading("SYNOPSIS")
    page.add("*%s* \\[_OPTION_\\]..." % escape(name))
    page.part()
    page.heading("OPTIONS")
    options = text[:text.index(end)]
    for names, help_ in re.findall(r"^  (--\S.*?)(?:  +(\S.*(?:\n {10,}\S.*)*))?$", options, re.M):
        bold = re.sub(r"--[\w-]+", lambda m: "*%s*" % m[0], escape(names))
        bold = re.sub(r" ([A-Z][A-Z=:]+)$", r" _\1_", bold)
        page.item(bold, words(sentence(" ".join(help_.split()) or "what the name says")))
    page.heading("EXIT STATUS")
    status = re.search(r"Exit status: (.*)", text, re.S)[1]
    page.add(words(sentence(" ".join(status.split()))))
    page.see_also(*see_also)
    return page


def memctld_page(program):
    return program_page(program, "memctld", "lend memory to virtual machines, and take it back when it is short", "Settings (",
                        (("memctl", 1), ("memctl-memory", 7), ("memctld.conf", 5), ("org.memctl", 7), ("libmemctl", 3)))


def exporter_page(program):
    return program_page(program, "memctl-exporter", "the numbers of memctld for Prometheus, by HTTP", "Exit status",
                        (("memctl-metrics", 1), ("memctld", 8), ("memctld.conf", 5)))


TYPES = {"SIZE": "a size: bytes, or with K, M, G, T (powers of 1024)", "NUMBER": "a whole number", "PERCENT": "percent",
         "MODE": "permissions, octal", "VICTIM": "a word", "YESNO": "yes or no", "PATH": "a path", "TEXT": "a text"}


def settings():
    """[(name, TYPE, unit, default, minimum, maximum, live, help)] as texts."""
    table = re.sub(r"/\*.*?\*/", "", read("daemon/settings.def"), flags=re.S)
    row = re.compile(r'^SETTING\(\s*(\w+),\s*(\w+),\s*"([^"]*)",\s*\w+,\s*"([^"]*)",\s*([^,]+),\s*([^,]+),\s*(true|false),'
                     r'\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\)', re.M)
    for name, kind, unit, default, low, high, live, text in row.findall(table):
        yield name, kind, unit, default, low, high, live == "true", "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text)).replace('\\"', '"')


def bound(text):
    """A C constant as a number: 16ull << 20, -20, 0777."""
    text = re.sub(r"(?<=[0-9a-fA-F])(ull|ul|u|l)\b", "", text.strip(), flags=re.I)
    parts = [int(p, 8 if re.fullmatch(r"0[0-7]+", p.strip()) else 0) for p in text.split("<<")]
    return parts[0] << parts[1] if len(parts) > 1 else parts[0]


def size(n):
    for unit, bits in (("T", 40), ("G", 30), ("M", 20), ("K", 10)):
        if n and not n % (1 << bits):
            return "%d%s" % (n >> bits, unit)
    return str(n)


def rows(path, macro, n):
    """The rows MACRO(word, "text", ...) of a table: n fields each, texts joined and without quotes; none if there is no such table."""
    if not os.path.exists(os.path.join(TREE, path)):
        return
    table = re.sub(r"/\*.*?\*/", "", read(path), flags=re.S)
    field = r'\s*((?:"(?:[^"\\]|\\.)*"\s*)+|[\w |]+)\s*'
    for found in re.findall(r"^%s\(%s\)" % (macro, ",".join([field] * n)), table, re.M):
        yield ["".join(re.findall(r'"((?:[^"\\]|\\.)*)"', f)).replace('\\"', '"') if '"' in f else f.strip() for f in found]


def events_page():
    page = Page("memctl-event-ids", 7, "what memctld tells of, and what to do")
    page.heading("DESCRIPTION")
    page.add("Every line of memctld's log, and every row of *memctl events*, has one of these ids, which stay what they are.  *memctl "
             "explain-event* says the same on the host.")
    page.heading("EVENTS")
    for _, name, level, meaning, advice in rows("daemon/base/events.def", "EVENT", 5):
        page.item("*%s* (%s)" % (escape(name), level.lower()), words(meaning), "", words("To do: " + advice[:1].lower() + advice[1:]))
    page.see_also(("memctl", 1), ("memctl-events", 1), ("memctl-explain-event", 1), ("memctld", 8))
    return page


def config_page():
    page = Page("memctld.conf", 5, "settings of memctld")
    page.part()
    page.heading("SETTINGS")
    for name, kind, unit, default, low, high, live, text in settings():
        about = TYPES.get(kind, kind.lower())
        if kind in ("NUMBER", "PERCENT", "SIZE"):
            show = size if kind == "SIZE" else str
            about += " from %s to %s" % (show(bound(low)), show(bound(high)))
        if unit and unit not in ("%", "bytes", "level"):
            about += " (%s)" % unit
        about += "; default %s" % (default or "empty")
        page.item("*%s*" % escape(name), words(text), words("Live: `memctl tune` changes it.") if live else
                  "Read at start.", "Type: %s." % escape(about))
    decided = list(rows("daemon/vm_file.def", "VM_KEY", 2))
    if decided:
        page.heading("FILES OF VMS")
        page.add("_vms.d/NAME.conf_ beside the configuration decides for the VM of that name, in a section \\[vm\\]; `memctl config vms` shows "
                 "what is decided.".replace("`memctl config vms`", "*memctl config vms*"))
        for name, text in decided:
            page.item("*%s*" % escape(name), words(text))
    page.see_also(("memctld", 8), ("memctl", 1), ("memctl-config-show", 1), ("memctl-tune", 1))
    return page


# ---- the contract

CLASSES = {"CLIENT": "of a VM, on its calls connection", "OPEN": "of everyone who may connect", "ORDERS": "on a VM's orders connection"}


def protocol_page():
    text = read("proto/org.memctl.varlink")
    head, rest = text.split("interface org.memctl\n", 1)
    classes = dict(re.findall(r"^OP\((\w+),\s*\w+,\s*(\w+)\)", read("proto/ops.def"), re.M))
    page = Page("org.memctl", 7, "what clients and operators say to memctld")
    page.heading("DESCRIPTION")
    page.extend(paragraphs([re.sub(r"^# ?", "", line) for line in head.split("\n")]))
    page.part()
    page.heading("METHODS")
    comment = []
    errors = {}
    for line in rest.split("\n"):
        method = re.match(r"method (\w+)(.*)", line)
        error = re.match(r"error (\w+) \((.*)\)", line)
        if line.startswith("#"):
            comment.append(re.sub(r"^# ?", "", line))
        elif method:
            page.item("*%s*" % method[1], escape(method[2].strip()))
            page.extend(["\t" + part if part else part for part in paragraphs(comment)])
            if classes.get(method[1]) in CLASSES:
                page.add("\tA call %s." % CLASSES[classes[method[1]]])
            comment = []
        elif error:
            errors[error[1]] = (error[2], " ".join(comment))
            comment = []
        elif not line.strip():
            comment = []
    page.heading("ERRORS")
    page.add("Each is *org.memctl.*_NAME_ and carries _message_, one sentence that says what to do, and what is named here.")
    table = re.sub(r'"\s*\n\s*"', "", read("proto/errors.def"))
    for name, errno, advice in re.findall(r'^ERROR\((\w+),\s*[^,]*,\s*(\w+),\s*"([^"]*)"\)', table, re.M):
        fields, about = errors[name]
        more = escape(re.sub(r"^message: string,? ?", "", fields))
        page.item("*%s* (%s%s)" % (name, errno, "; " + more if more else ""), words(advice), words(sentence(about)) if about else "")
    page.see_also(("memctld", 8), ("libmemctl", 3), ("memctl", 1))
    return page


# ---- the library

# where the first function of a section is not the one that people look for
NAMES = {"orders and events": "memctl_dispatch", "numbers and operator calls": "memctl_stats"}


def put_items(page, found):
    page.heading("SYNOPSIS")
    page.extend(literal("#include <memctl.h>\n\n" + "\n\n".join(
        "\n".join(re.sub(r"^MEMCTL_API ", "", d) for d in i.code) for i in found)))
    page.heading("DESCRIPTION")
    for item in found:
        functions = item.functions()
        if not item.comment:
            continue
        if functions:
            page.add(", ".join("*%s*()" % escape(f) for f in functions))
        elif item.code:
            name = re.match(r"(?:struct|enum|#define) (\w+)", item.code[0])
            page.add("*%s*" % escape(name[1] if name else item.code[0]))
        page.extend(["\t" + part if part else part for part in paragraphs(item.comment)])


def library_pages():
    head, sections = header.read(os.path.join(TREE, "libclient/memctl.h"))
    pages, aliases = [], {}
    names = []
    for title, found in sections:
        functions = [f for i in found for f in i.functions()]
        name = "libmemctl" if title is None else NAMES.get(title, functions[0])
        names.append((name, 3))
        page = Page(name, 3, head[0].split(":", 1)[1].strip(" .") if title is None else re.sub(r" \(see.*", "", title))
        put_items(page, found)
        if title is None:
            put_head(page, head[1:])
        page.part()
        pages.append(page)
        aliases.update({f: name for f in functions if f != name})
    for page in pages:
        page.see_also(*names, ("org.memctl", 7), ("memctld", 8))
    return pages, aliases


def put_head(page, lines):
    """The head of memctl.h: a line in capitals is a heading."""
    block = []
    for line in lines + ["END"]:
        title = re.match(r"([A-Z][A-Z ]+)(?: \((.*)\))?$", line)
        if not title:
            block.append(line[1:] if line.startswith("  ") else line)
            continue
        page.extend(paragraphs(block))
        block = []
        if line != "END":
            page.heading(title[1])
            if title[2]:
                page.extend(literal(title[2]))


# ---- all of it

def render(scdoc, page):
    """By scdoc; without the empty paragraphs that it leaves, which mandoc warns of, and without hyphens in names."""
    done = subprocess.run([scdoc], input=page.text(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit("%s(%d): %s" % (page.name, page.section, done.stderr.strip()))
    text = re.sub(r"^(\.TH .*)$", r"\1\n.nh\n.ad l", done.stdout, count=1, flags=re.M)
    text = re.sub(r"^(\.S[HS] .*)\n\.P$", r"\1", text, flags=re.M)
    text = re.sub(r"^(\.ad l)\n\.P$", r"\1", text, flags=re.M)
    text = re.sub(r"^\.P\n(?=\.(?:RS|RE|SH|SS|P|nf))", "", text, flags=re.M)
    return re.sub(r"^\.RE\n(?=[^.])", ".RE\n.P\n", text, flags=re.M)


def main():
    a = argparse.ArgumentParser()
    for name in ("memctl", "memctld", "exporter", "out"):
        a.add_argument("--" + name, required=True)
    a.add_argument("--scdoc")
    a = a.parse_args()
    about = json.loads(subprocess.run([a.memctl, "--json", "help"], capture_output=True, text=True, check=True).stdout)
    library, aliases = library_pages()
    pages = [memctl_page(about), memctld_page(a.memctld), exporter_page(a.exporter), config_page(), protocol_page(), *library]
    pages += [command_page(c, about) for c in about["commands"]]
    if os.path.exists(os.path.join(TREE, "daemon/base/events.def")):
        pages.append(events_page())
    pages += [Page.by_hand(p) for p in sorted(glob.glob(os.path.join(HERE, "pages", "*.scd")))]
    for section in (1, 3, 5, 7, 8):
        shutil.rmtree(os.path.join(a.out, "man%d" % section), ignore_errors=True)
        os.makedirs(os.path.join(a.out, "man%d" % section))
    for page in pages:
        text = render(a.scdoc, page) if a.scdoc else page.text()
        with open(os.path.join(a.out, "man%d" % page.section, "%s.%d" % (page.name, page.section)), "w") as f:
            f.write(text)
    for alias, name in aliases.items():
        with open(os.path.join(a.out, "man3", alias + ".3"), "w") as f:
            f.write(".so man3/%s.3\n" % name)


if __name__ == "__main__":
    main()
