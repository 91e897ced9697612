"""What memctld tells: every line has an id, every id a meaning, and somebody who tells it."""
import re

import tree

TABLE = "daemon/base/events.def"
# they make lines of events, or of what is for debugging only
MAKERS = ("daemon/base/log.c", "daemon/base/log.h", "daemon/base/events.c")


def rows(root):
    """(ID, name, level, meaning, advice) of the table."""
    content = re.sub(r"/\*.*?\*/", "", tree.text(root, TABLE) or "", flags=re.S)
    text = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
    found = re.findall(r'^EVENT\((\w+),\s*"([^"]*)",\s*(\w+),\s*%s,\s*%s\)' % (text, text), content, re.M)
    if len(found) != len(re.findall(r"^EVENT\(", content, re.M)):
        return None
    return [(i, n, level, *("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', t)) for t in texts)) for i, n, level, *texts in found]


def check_table(root):
    table = rows(root)
    if not table:
        return ["%s: there are no rows, or some cannot be read" % TABLE]
    wrong = []
    for event, name, level, meaning, advice in table:
        if name != event.lower().replace("_", "-"):
            wrong.append("%s is called %s" % (event, name))
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name) or len(name) > 31:
            wrong.append("%s is no name of an event" % name)
        if level not in ("ERROR", "WARNING", "NOTICE", "INFO"):
            wrong.append("%s: there is no level %s" % (name, level))
        for what, text in (("meaning", meaning), ("advice", advice)):
            if not re.match(r"[A-Z`]|echo |memctld ", text) or not text.endswith((".", ").")):
                wrong.append("%s: its %s is no sentence" % (name, what))
    names = [row[1] for row in table]
    return wrong + ["%s is there twice" % n for n in sorted(set(names)) if names.count(n) > 1]


def code(root):
    return {p: tree.text(root, p) for p in tree.files(root) if p.startswith("daemon/") and p.endswith((".c", ".h"))}


def check_told(root):
    everything = "\n".join(code(root).values())
    return ["nobody tells %s" % row[1] for row in rows(root) or [] if not re.search(r"\bEVENT_%s\b" % row[0], everything)]


def check_lines(root):
    wrong = []
    for path, content in code(root).items():
        if path in MAKERS:
            continue
        for i, line in enumerate(content.splitlines(), 1):
            if re.search(r"\blog_(error|warning|notice|info|line)\s*\(|\bf(printf|puts)\s*\(\s*stderr|\bfputs\s*\([^;]*stderr|\bperror\s*\(", line):
                wrong.append("%s:%d: a line of the log without an id: event_tell" % (path, i))
    return wrong


def check_subject(root):
    """Whoever speaks of a VM by name says so in the fields, which is what --vm and alerts go by."""
    wrong = []
    for path, content in code(root).items():
        for call in re.findall(r"event_tell\((?:[^;]|\n)*?\);", content):
            if re.search(r'"VM %s', call) and not re.search(r"EVENT_OF\(\s*\.vm\s*=|\bof\b", call):
                wrong.append("%s: %s has no .vm" % (path, " ".join(call.split())[:60]))
    return wrong


ROW = 'EVENT(VM_LOST, "vm-lost", ERROR, "A VM is lost.",\n\t"End it.")\n'

if __name__ == "__main__":
    tree.run([
        ("events_have_names_and_sentences", check_table, [
            {TABLE: ROW + ROW}, {TABLE: ROW.replace('"vm-lost"', '"vm-gone"')}, {TABLE: ROW.replace("ERROR", "LOUD")},
            {TABLE: ROW.replace('"End it."', '""')}, {TABLE: ROW.replace("lost.", "lost")}, {TABLE: "EVENT(A)\n"}, {TABLE: ""},
        ]),
        ("every_event_is_told_by_somebody", check_told, {TABLE: ROW, "daemon/a.c": "EVENT_VM_LOSTS\n"}),
        ("every_line_of_the_log_has_an_id", check_lines, [
            {"daemon/mem/a.c": 'log_warning("x");\n'}, {"daemon/a.c": 'log_line(LOG_LEVEL_ERROR, "x");\n'},
            {"daemon/a.c": 'fprintf(stderr, "x");\n'},
        ]),
        ("events_of_vms_name_them", check_subject, {"daemon/a.c": 'event_tell(EVENT_A, NULL, "VM %s: x",\n\tname);\n'}),
    ])
