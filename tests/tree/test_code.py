"""Rules of the sources: who includes whom, one door per outside library, nothing left lying about."""
import os
import re

import tree

# a folder may include from these; ROOT: the files of daemon/ itself, where everything meets
MAY = {
    "daemon/base": {"daemon/base"},
    "daemon/mem": {"daemon/base", "daemon/mem"},
    "daemon/policy": {"daemon/base", "daemon/policy"},
    "daemon/serve": {"daemon/base", "daemon/serve", "proto"},
    "daemon/record": {"daemon/base", "daemon/record"},
    "daemon": {"daemon", "daemon/base", "daemon/mem", "daemon/policy", "daemon/serve", "daemon/record", "proto"},
    "proto": {"proto"},
    "libclient": {"libclient", "proto"},
    "libclient/examples": {"libclient"},
    "libclient/preload": {"libclient/preload", "libclient/memctl.h"},
    "cli": {"cli", "libclient/memctl.h", "proto/doctor.def"},
}

# one file of each program may include an outside library: header -> program folder -> the file (None: any one file)
DOORS = {
    r"jansson\.h": {"proto": "proto/body.c", "cli": "cli/json.c"},
    r"event2/.*|event\.h": {"daemon": "daemon/serve/loop.c", "cli": "cli/http.c"},
    r"sqlite3\.h": {"daemon": "daemon/record/database.c"},
    r"ini\.h": {"daemon": "daemon/config.c"},
    r"linux/userfaultfd\.h": {"daemon": "daemon/mem/uffd.c", "libclient": "libclient/uffd.c",
                              "cli": "cli/doctor_uffd.c"},
    r"seccomp\.h": {"daemon": "daemon/seccomp_filter.c"},
    r"zstd.*\.h": {"daemon": None},
    r"xxhash\.h": {"daemon": None},
    r"libsmartcols.*\.h": {"cli": "cli/table.c"},
    r"curses\.h|term\.h": {"cli": "cli/top_terminal.c"},
    r"unicorn/.*": {"packaging": None, "libclient/examples": None},
}
PRODUCT = ("daemon/", "proto/", "libclient/", "cli/")
# of the C library and the kernel, as they are used without a package of their own
SYSTEM = re.compile(r"^([a-z0-9_]+\.h|sys/.*|linux/.*|arpa/.*|netinet/.*|asm/.*)$")

TOP = {".ci", ".clang-format", ".clang-tidy", ".editorconfig", ".gitignore", "LICENSE", "README.md", "cli", "daemon", "libclient",
       "meson.build", "meson_options.txt", "packaging", "proto", "systemd", "tests"}
LINES_MAX = 800
# put together here, or this file would be found
WORDS = [r"\b%s\b" % (a + b) for a, b in (("TO", "DO"), ("FIX", "ME"), ("X", "XX"), ("HA", "CK"))]
WORDS.append(r"^\s*#\s*if" + r" 0\b")


def sources(root, under=PRODUCT):
    return [p for p in tree.files(root) if p.startswith(under) and p.endswith((".c", ".h", ".def", ".S"))]


def includes(root, path):
    for line in tree.text(root, path).splitlines():
        found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if found:
            yield found[1] == '"', found[2]


def resolve(root, folder, name):
    """Where "name" included from this folder lies, by the include paths of the build."""
    places = [folder] + (["daemon"] if folder.startswith("daemon") else []) + ["", "libclient"]
    for place in places:
        path = os.path.normpath(os.path.join(place, name))
        if os.path.exists(os.path.join(root, path)):
            return path
    return None


def check_includes(root):
    wrong = []
    for path in sources(root):
        folder = os.path.dirname(path)
        if folder not in MAY:
            wrong.append("%s: no include rule for this folder" % path)
            continue
        for own, name in includes(root, path):
            if not own and name != "memctl.h":
                continue
            target = resolve(root, folder, name)
            if target is None:
                if not name.endswith(".inc"):
                    wrong.append("%s includes %s, which is nowhere" % (path, name))
            elif os.path.dirname(target) not in MAY[folder] and target not in MAY[folder]:
                wrong.append("%s may not include %s" % (path, target))
    return wrong


def check_doors(root):
    wrong, seen = [], {}
    for path in sources(root, PRODUCT + ("packaging/",)):
        for own, name in includes(root, path):
            if own or name == "memctl.h":
                continue
            door = next((d for d in DOORS if re.fullmatch(d, name)), None)
            if door is None:
                if not SYSTEM.match(name):
                    wrong.append("%s includes <%s>, a library without a door" % (path, name))
                continue
            # the longest folder that contains the file
            program = max((p for p in DOORS[door] if path.startswith(p + "/")), key=len, default=None)
            if program is None:
                wrong.append("%s may not include <%s>" % (path, name))
                continue
            only = DOORS[door][program]
            first = seen.setdefault((door, program), only or path)
            if path != first:
                wrong.append("%s includes <%s>, whose door is %s" % (path, name, first))
            if path.endswith(".h"):
                wrong.append("%s shows <%s> to whoever includes it" % (path, name))
    return wrong


def check_top_level(root):
    return ["%s does not belong to the top of the tree" % t
            for t in sorted({p.split("/")[0] for p in tree.files(root)} - TOP)]


def check_lines(root):
    wrong = []
    for path in tree.files(root):
        if path.endswith((".c", ".h", ".py", ".sh", ".S", ".def")) or path in ("tests/run", "packaging/demo"):
            n = tree.text(root, path).count("\n")
            if n > LINES_MAX:
                wrong.append("%s has %d lines, more than %d" % (path, n, LINES_MAX))
    return wrong


def check_words(root):
    wrong = []
    for path in tree.files(root):
        for i, line in enumerate(tree.text(root, path).splitlines(), 1):
            if any(re.search(w, line) for w in WORDS):
                wrong.append("%s:%d: %s" % (path, i, line.strip()[:60]))
    return wrong


def check_built(root):
    """Every C file is named by a meson.build on the way down to it."""
    wrong, builds = [], [p for p in tree.files(root) if os.path.basename(p) == "meson.build"]
    for path in sources(root, PRODUCT + ("tests/", "packaging/")):
        if not path.endswith((".c", ".S")):
            continue
        folder, name = os.path.split(path)
        # or by another folder's, by its whole path
        names = any(path in tree.text(root, b) for b in builds)
        while True:
            build = tree.text(root, os.path.join(folder, "meson.build")) or ""
            if name in build:
                names = True
            if not folder:
                break
            folder, last = os.path.split(folder)
            name = last + "/" + name
        if not names:
            wrong.append("%s is built by no meson.build" % path)
    return wrong


def check_headers(root):
    wrong = []
    for path in sources(root):
        content = tree.text(root, path)
        if path.endswith(".h") and "#pragma once" not in content and "#ifndef MEMCTL_H" not in content:
            wrong.append("%s can be included twice" % path)
    return wrong


if __name__ == "__main__":
    tree.run([
        ("includes_run_one_way", check_includes, [
            {"daemon/mem/a.c": '#include "policy/plan.h"\n', "daemon/policy/plan.h": ""},
            {"daemon/serve/a.c": '#include "mem/vm.h"\n', "daemon/mem/vm.h": ""},
            {"daemon/mem/a.c": '#include "reclaim.h"\n', "daemon/reclaim.h": ""},
            {"daemon/base/a.h": '#include "mem/page.h"\n', "daemon/mem/page.h": ""},
            {"libclient/a.c": '#include "daemon/base/log.h"\n', "daemon/base/log.h": ""},
            {"cli/a.c": '#include "libclient/internal.h"\n', "libclient/internal.h": ""},
            {"cli/a.c": '#include "proto/wire.h"\n', "proto/wire.h": ""},
            {"daemon/newfolder/a.c": ""},
        ]),
        ("one_door_per_library", check_doors, [
            {"daemon/ops.c": "#include <jansson.h>\n"},
            {"daemon/mem/a.c": "#include <zstd.h>\n", "daemon/mem/b.c": "#include <zstd.h>\n"},
            {"daemon/mem/lease.c": "#include <linux/userfaultfd.h>\n"},
            {"daemon/serve/loop.h": "#include <event2/event.h>\n"},
            {"libclient/a.c": "#include <glib-2.0/glib.h>\n"},
        ]),
        ("only_known_entries_at_the_top", check_top_level, {"junk.txt": ""}),
        ("no_file_is_too_long", check_lines, {"daemon/a.c": "\n" * (LINES_MAX + 1)}),
        ("nothing_is_left_to_do", check_words, [
            {"daemon/a.c": "/* " + "TO" + "DO: more */\n"}, {"README.md": "FIX" + "ME\n"},
            {"cli/a.c": "#if" + " 0\n#endif\n"},
        ]),
        ("every_source_is_built", check_built, {"daemon/mem/a.c": "", "daemon/mem/meson.build": "'b.c'"}),
        ("headers_are_included_once", check_headers, {"proto/a.h": "int a;\n"}),
    ])
