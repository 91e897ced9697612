#!/usr/bin/env python3
"""The binding for Python: its structs and constants are the header's, a lease is a buffer that nothing is unmapped under, errors
tell all that the library does."""
import ast
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE, build_dir  # noqa: E402
from system.puppet import daemon  # noqa: E402
from ux.python import PACKAGE, PYTHON, environ, run  # noqa: E402

HEADER = os.path.join(TREE, "libclient", "memctl.h")
STRUCTS = {"memctl_error": "ErrorStruct", "memctl_options": "OptionsStruct", "memctl_vm": "VmStruct", "memctl_event": "EventStruct",
           "memctl_stats": "StatsStruct"}
ENUMS = {"memctl_faults": ("FaultHandling", "MEMCTL_FAULTS_"), "memctl_event_kind": ("EventKind", "MEMCTL_EVENT_")}


def header():
    with open(HEADER) as f:
        return re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)


def of_header(text):
    """{"struct.member": (offset, size)}, sizes of structs and values of enums, as the compiler has them."""
    lines = []
    for struct in STRUCTS:
        body = re.search(r"struct %s \{(.*?)\};" % struct, text, re.S)[1]
        for line in body.split(";"):
            for member in re.findall(r"(\w+)(?:\[\d+\])?\s*(?:,|$)", re.sub(r"^\s*(?:const |enum )?\w+\s+\**", "", line.strip())):
                lines.append('P("%s.%s", "%%zu %%zu", offsetof(struct %s, %s), sizeof ((struct %s *)0)->%s)' % (
                    STRUCTS[struct], member, struct, member, struct, member))
        lines.append('P("%s", "%%zu", sizeof(struct %s))' % (STRUCTS[struct], struct))
    for enum, (name, prefix) in ENUMS.items():
        for value in re.findall(r"\b(%s\w+)" % prefix, re.search(r"enum %s \{(.*?)\};" % enum, text, re.S)[1]):
            lines.append('P("%s.%s", "%%d", (int)%s)' % (name, value.removeprefix(prefix), value))
    lines.append('P("NO_LIMIT", "%llu", (unsigned long long)MEMCTL_NO_LIMIT)')
    program = ('#include <memctl.h>\n#include <stdio.h>\n#define P(name, format, ...) printf(name " " format "\\n", __VA_ARGS__);\n'
               "int main(void)\n{\n%s\nreturn 0;\n}\n" % "\n".join(lines))
    with tempfile.TemporaryDirectory(prefix="memctl-probe-") as d:
        with open(d + "/memctl.h", "w") as f:
            f.write(text)
        with open(d + "/probe.c", "w") as f:
            f.write(program)
        subprocess.run(["cc", "-I" + d, "-o", d + "/probe", d + "/probe.c"], check=True, capture_output=True)
        out = subprocess.run([d + "/probe"], check=True, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in out.splitlines())


OF_PYTHON = """
import ctypes, sys
from memctl import _native as n
for name in sys.argv[1].split(","):
    struct = getattr(n, name)
    for field in struct._fields_:
        d = getattr(struct, field[0])
        print("%s.%s %d %d" % (name, field[0], d.offset, d.size))
    print(name, ctypes.sizeof(struct))
for name in sys.argv[2].split(","):
    for value in getattr(n, name):
        print("%s.%s %d" % (name, value.name, value))
print("NO_LIMIT", n.NO_LIMIT)
"""


def of_python():
    out = run(None, OF_PYTHON, ",".join(STRUCTS.values()), ",".join(name for name, _ in ENUMS.values()))
    return dict(line.split(" ", 1) for line in out.splitlines())


def test_layouts_are_the_header_s():
    ours, theirs = of_python(), of_header(header())
    check(len(theirs) > 50, "%d rows of the probe" % len(theirs))
    check_eq(ours, theirs, "layouts and constants")
    # the twin; long_python.py has more of them
    check(of_header(header().replace("uint32_t shares;", "uint64_t shares;")) != ours, "a member that has grown was not seen")


def test_every_function_has_its_prototype():
    """Those of the map, with as many arguments as the header says; left out on purpose are a few."""
    left_out = {
        "memctl_lease_at": "address space is not reserved in Python", "memctl_share": "a thread of Python cannot carry orders out while "
        "another waits for a page", "memctl_event_name": "EventKind has names", "memctl_fault_handling_name": "FaultHandling has names"}
    with open(os.path.join(TREE, "libclient", "memctl.map")) as f:
        names = set(re.findall(r"^\s*(memctl_\w+);", f.read(), re.M))
    with open(os.path.join(PACKAGE, "memctl", "_native.py")) as f:
        table = re.search(r"_PROTOTYPES.*?= \{(.*?)^\}", f.read(), re.S | re.M)[1]
    ours = {n: arguments for n, arguments in re.findall(r'^\s+"(memctl_\w+)": \(\w+, (.*)\),$', table, re.M)}
    check_eq(set(ours), names - set(left_out), "functions")
    for name, arguments in ours.items():
        declared = re.search(r"\b%s\(([^;]*)\);" % name, header())[1]
        theirs = 0 if declared == "void" else declared.count(",") + 1
        mine = 4 if arguments == "_RANGE" else len([a for a in re.sub(r"\(([^()]*)\)", "", arguments[1:-1]).split(",") if a.strip()])
        check_eq(mine, theirs, "arguments of %s" % name)


LIFE = """
import gc, memctl, threading, time
def refused(act, *args):
    try:
        act(*args)
    except BufferError as e:
        assert "views" in str(e), e
        return True
    return False
m = memctl.Memctl()
assert m.plain is None
m.register("py", 8 << 20, reservation=1 << 20)
m.helper_start()
assert m.fault_handling in (memctl.FaultHandling.FULL, memctl.FaultHandling.USER_MODE)
ram = m.lease(1 << 32, 8 << 20)
assert (ram.gpa, len(ram)) == (1 << 32, 8 << 20)
view = ram.view()
assert (view.nbytes, view.format, view.readonly, view[12345]) == (8 << 20, "B", False, 0)
view[5:8] = b"abc"
assert m.stats().resident > 0
# a view, a slice of it, a cast, what others make of it: all of them keep it
assert refused(ram.release) and refused(m.close)
for make in (lambda v: v[4096:], lambda v: v.cast("I"), memoryview, lambda v: v[::2], lambda v: [v[1:]]):
    other = make(view)
    view.release()
    assert refused(ram.release) and refused(m.close), make
    del other
    view = ram.view()
cycle = [view]
cycle.append(cycle)
del view, cycle
ram.pin(0, 4096); ram.unpin(0, 4096); ram.will_need(); ram.dont_need(); ram.populate(4096, 8192)
assert bytes(ram.view()[5:8]) == b"abc"
ram.discard(0, 4096)
assert bytes(ram.view()[5:8]) == bytes(3)
ram.release()
ram.release()
for act in (ram.view, ram.populate):
    try:
        act()
        assert False, act
    except ValueError as e:
        assert "given back" in str(e), e
# who keeps only a view keeps all of it
view = m.lease(0, 1 << 20).view()
gc.collect()
view[0] = 1
del view
# in a with statement
with m.lease(0, 1 << 20) as again, again.view() as w:
    w[0] = 7
m.close()
m.close()
try:
    m.stats()
    assert False
except ValueError:
    pass
# dropped without a close, with a lease and a view
m = memctl.Memctl()
m.register("dropped", 1 << 20)
view = m.lease(0, 1 << 20).view()
del m
gc.collect()
view[100] = 1
del view
gc.collect()
m = memctl.Memctl()
while m.call("org.memctl.ListVms")["vms"]:  # they end a moment later
    time.sleep(0.01)
"""


def test_a_view_keeps_its_lease():
    with daemon(32) as d:
        run(d, LIFE)
        check_eq(d.memctl("vm", "list")["vms"], [], "VMs left")


# what the binding refuses, done by force: so the refusal is worth something
FORCED = """
import memctl
from memctl._native import library
m = memctl.Memctl()
m.register("py", 1 << 20)
ram = m.lease(0, 1 << 20)
view = ram.view()
view[0] = 1
library.memctl_release(ram._handle.take(), None)
print("released", flush=True)
view[0] = 2
"""


def test_a_view_keeps_its_lease_twin():
    with daemon(32) as d:
        done = subprocess.run([PYTHON, "-c", FORCED], env=environ(d), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        check_eq((done.returncode, done.stdout), (-11, "released\n"), "a view of what was unmapped (%s)" % done.stderr)


ERRORS = """
import errno, memctl, os, pickle
m = memctl.Memctl()
def fails(act, *args, **more):
    try:
        act(*args, **more)
    except memctl.Error as e:
        return e
    raise AssertionError("it succeeded")
e = fails(m.register, "py", 1 << 30, reservation=1 << 30)
assert (e.errno, e.id) == (errno.ENOMEM, "org.memctl.NotEnoughMemory") and e.need > e.have > 0, repr(e)
assert e.message in str(e) and e.id in str(e) and isinstance(e, OSError), str(e)
again = pickle.loads(pickle.dumps(e))
assert (again.errno, again.id, again.message, again.need, again.have) == (e.errno, e.id, e.message, e.need, e.have)
e = fails(m.register, "no/name", 1 << 20)
assert (e.errno, e.id) == (errno.EINVAL, "org.memctl.InvalidName"), repr(e)
e = fails(m.call, "org.memctl.GetVm", {"name": "none"})
assert e.id.startswith("org."), repr(e)
m.register("py", 8 << 20)
assert m.fileno() >= 0
e = fails(m.lease, 0, 4097)
assert e.errno == errno.EINVAL, repr(e)
ram = m.lease(0, 8 << 20)
e = fails(ram.pin)
assert e.errno == errno.ENOMEM, repr(e)
e = fails(memctl.Memctl, "/nowhere/socket")
assert e.id == "org.memctl.Unreachable", repr(e)
p = memctl.Memctl("/nowhere/socket", plain_fallback=True)
assert p.plain and p.fault_handling == memctl.FaultHandling.NONE
# files, and the balloon
with open("/proc/self/exe", "rb") as f:
    assert ram.read_into(f, 100, 4000, 0) == 4000
    f.seek(0)
    assert bytes(ram.view()[100:4100]) == f.read(4000)
out = os.memfd_create("out")
assert ram.write_from(out, 100, 4000) == 4000 and os.fstat(out).st_size == 4000
m.balloon_start()
assert ram.inflate([8, 9, 10]) == []
assert m.balloon_poll() == m.balloon_target
ram.deflate([8, 9, 10])
e = fails(ram.inflate, [1 << 40])
assert e.errno == errno.EINVAL, repr(e)
# a child has no part in it
pid = os.fork()
if pid == 0:
    try:
        m.stats()
    except ValueError as e:
        os._exit(0 if "parent" in str(e) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
m.close()
"""


def test_errors_tell_all():
    with daemon(32) as d:
        run(d, ERRORS)


def test_the_readme_s_example():
    with open(os.path.join(TREE, "README.md")) as f:
        code = re.search(r"^    with memctl\.Memctl\(\) as m:\n(?:     .*\n)+", f.read(), re.M)[0]
    with daemon(96) as d:
        check_eq(int(run(d, "import memctl\nif True:\n" + code)), 4096, "resident bytes")


def test_what_is_public_is_explained():
    """Every public class, and every method that takes something or gives something back that its name does not say."""
    with open(os.path.join(PACKAGE, "memctl", "_client.py")) as f:
        tree = ast.parse(f.read())
    silent = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            silent += [node.name] if not ast.get_docstring(node) else []
            silent += ["%s.%s" % (node.name, f.name) for f in node.body if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) and
                       not f.name.startswith("_") and not ast.get_docstring(f)]
    check_eq(silent, ["Memctl.helper_stop", "Memctl.stats", "Lease.gpa", "Lease.unpin"], "without a docstring")
    check(os.path.exists(os.path.join(PACKAGE, "memctl", "py.typed")), "py.typed")


if __name__ == "__main__":
    check(os.path.exists(os.path.join(build_dir(), "libclient", "libmemctl.so.0")), "there is no library")
    main(globals())
