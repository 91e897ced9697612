#!/usr/bin/env python3
"""The sample configuration from the tables of the settings: sample.py daemon/settings.def daemon/vm_file.def > memctld.conf

Each setting stands there once, in the table's order, at its default, under the table's own words."""
import re
import sys
import textwrap

HEAD = """\
# Settings of memctld, each at its default.  A file of this name is read at start, then /etc/memctl/memctld.conf.d/*.conf in the order
# of their names; unknown keys are errors.  `memctld --check-config` looks for mistakes, `memctl daemon reload` lets memctld read all
# again, `memctl config show --effective` tells what is in force and where it comes from.  Those marked (live) change at a reload, and by
# `memctl tune`; the others at a restart.  Sizes: bytes, or with K, M, G, T (powers of 1024).
#
# What is decided for a VM by its name stands in a file of its own, /etc/memctl/vms.d/NAME.conf, section [vm]:
"""


def strings(text):
    """The C strings of the text, joined, as the compiler reads them."""
    joined = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))
    return re.sub(r"\\(.)", r"\1", joined)


def rows(path, macro):
    """The arguments of each row as texts, the last one (a sentence) joined."""
    with open(path, encoding="utf-8") as f:
        table = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    for row in re.findall(r"^%s\((.*?)\)$" % macro, table, re.M | re.S):
        first, text = row.split(",", 1)
        words = re.findall(r'\s*("(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*|[^,"]+)(?:,|$)', text)
        yield [first.strip()] + [strings(w) if w.startswith('"') else w.strip() for w in words]


def comment(text, indent="# "):
    return textwrap.fill(text.replace(".  ", ".\0"), 126, initial_indent="# ", subsequent_indent=indent,
                         break_long_words=False, break_on_hyphens=False).replace("\0", "  ")


def sample(settings, vm_keys):
    text = HEAD
    for name, sentence in rows(vm_keys, "VM_KEY"):
        text += comment("  %-13s %s" % (name, sentence), "#" + " " * 17) + "\n"
    text += "\n[memctld]\n"
    for name, _type, _unit, _member, default, _min, _max, live, sentence in rows(settings, "SETTING"):
        text += "\n%s\n#%s\n" % (comment(sentence + ("  (live)" if live == "true" else "")), ("%s = %s" % (name, default)).rstrip())
    return text


if __name__ == "__main__":
    sys.stdout.write(sample(sys.argv[1], sys.argv[2]))
