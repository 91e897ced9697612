"""The contract is said in several places; here they are held against each other."""
import os
import re
import subprocess

import tree
from lib.check import skip
from lib.daemon import build_dir

TYPES = {"str": {"string"}, "u64": {"int"}, "hex64": {"string"}, "flag": {"bool"}, "runs": {"[][]int"},
         "json": {"object", "[]object"}}


def interface(root):
    """Methods of the varlink text: name -> (inputs, outputs), each {field: type}; and errors: name -> fields."""
    content = re.sub(r"#.*", "", tree.text(root, "proto/org.memctl.varlink") or "")

    def fields(inside):
        pairs = [f.split(":") for f in inside.split(",") if f.strip()]
        return {name.strip(): kind.strip() for name, kind in pairs}

    methods = {m[1]: (fields(m[2]), fields(m[3]))
               for m in re.finditer(r"method\s+(\w+)\s*\(([^)]*)\)\s*->\s*\(([^)]*)\)", content)}
    errors = {m[1]: fields(m[2]) for m in re.finditer(r"error\s+(\w+)\s*\(([^)]*)\)", content)}
    return methods, errors


def operations(root):
    """Method -> (inputs, outputs) of the tables, each {field: type}, with the macros they use expanded."""
    joined = (tree.text(root, "proto/ops_fields.h") or "").replace("\\\n", " ")
    macros = dict(re.findall(r"^#define\s+(OP_\w+)\(F\)(.*)$", joined, re.M))

    def fields(macro):
        body = macros.get(macro)
        if body is None:
            return None
        found = {}
        for used in re.findall(r"\b(OP_\w+)\(F\)", body):
            found.update(fields(used) or {})
        found.update({name: kind for kind, name in re.findall(r"\bF\((\w+),\s*(\w+)\)", body)})
        return found

    table = re.findall(r"^OP\((\w+),\s*(\w+),\s*\w+\)", tree.text(root, "proto/ops.def") or "", re.M)
    return {method: (fields("OP_%s_IN" % name), fields("OP_%s_OUT" % name)) for method, name in table}


def compare_fields(where, ours, theirs):
    wrong = []
    for name in sorted(set(ours) | set(theirs)):
        if name not in ours or name not in theirs:
            wrong.append("%s: %s is only in the %s" % (where, name, "table" if name in ours else "contract"))
            continue
        kind, optional = ours[name], ours[name].startswith("opt_")
        if optional != theirs[name].startswith("?"):
            wrong.append("%s: %s is optional on one side only" % (where, name))
        if theirs[name].lstrip("?") not in TYPES.get(kind.removeprefix("opt_"), set()):
            wrong.append("%s: %s is %s in the table, %s in the contract" % (where, name, kind, theirs[name]))
    return wrong


def check_operations(root):
    ours, (theirs, _) = operations(root), interface(root)
    wrong = ["%s is only in the %s" % (m, "table" if m in ours else "contract") for m in sorted(set(ours) ^ set(theirs))]
    for method in sorted(set(ours) & set(theirs)):
        for side, index in (("in", 0), ("out", 1)):
            if ours[method][index] is None:
                wrong.append("%s has no fields %s in the table" % (method, side))
            else:
                wrong += compare_fields("%s %s" % (method, side), ours[method][index], theirs[method][index])
    if not ours:
        wrong.append("no operations found")
    return wrong


HAS = {"NEED": {"need": "int", "have": "int"}, "DIR": {"dir": "string"}, "VM": {"vm": "string"},
       "LEASE": {"lease": "int"}, "FIELD": {"field": "string"}, "ERRNO": {"errno": "int"}}


def check_errors(root):
    _, theirs = interface(root)
    ours = {}
    for name, values in re.findall(r"^ERROR\((\w+),\s*([^,]*),", tree.text(root, "proto/errors.def") or "", re.M):
        ours[name] = {"message": "string"}
        for has in re.findall(r"ERROR_HAS_(\w+)", values):
            ours[name].update(HAS[has])
    wrong = ["error %s is only in the %s" % (e, "table" if e in ours else "contract")
             for e in sorted(set(ours) ^ set(theirs))]
    wrong += ["error %s has %s in the table, %s in the contract" % (e, sorted(ours[e]), sorted(theirs[e]))
              for e in sorted(set(ours) & set(theirs)) if ours[e] != theirs[e]]
    return wrong if theirs else wrong + ["no errors found"]


def check_documented(root):
    """Every method of the contract has a sentence above it (or above the methods right before it)."""
    wrong, documented = [], False
    for line in (tree.text(root, "proto/org.memctl.varlink") or "").splitlines():
        if line.startswith("#"):
            documented = True
        elif line.startswith("method") and not documented:
            wrong.append("%s: not documented" % line.split("(")[0])
        elif not line.strip():
            documented = False
    return wrong


def header_functions(root):
    header = re.sub(r"/\*.*?\*/", "", tree.text(root, "libclient/memctl.h") or "", flags=re.S)
    return set(re.findall(r"MEMCTL_API\b[^;(]*?\b(memctl_\w+)\s*\(", header))


def map_functions(root):
    content = re.sub(r"/\*.*?\*/|#.*", "", tree.text(root, "libclient/memctl.map") or "", flags=re.S)
    exported = re.sub(r"local:.*?}", "}", content, flags=re.S)
    return set(re.findall(r"\b(memctl_\w+|\w+\*)\s*;", exported))


def check_map(root):
    header, symbols = header_functions(root), map_functions(root)
    wrong = ["%s is only in the %s" % (f, "header" if f in header else "symbol map")
             for f in sorted(header ^ symbols)]
    return wrong if header else wrong + ["no functions found in memctl.h"]


def check_exports(root):
    """What the built library really exports; a twin gives a file of nm's output instead of a library."""
    fake = tree.text(root, "nm.txt")
    library = os.path.join(build_dir(), "libclient", "libmemctl.so")
    if fake is None:
        if not os.path.exists(library):
            skip("%s is not built" % library)
        fake = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True,
                              check=True).stdout
    exported = {line.split()[-1].split("@")[0] for line in fake.splitlines() if line.split()[1:2] != ["A"] and line}
    # added by sanitizers
    exported = {s for s in exported if not s.startswith(("__", "_init", "_fini"))}
    header = header_functions(root)
    return ["%s is only in the %s" % (f, "header" if f in header else "library") for f in sorted(header ^ exported)]


INTERFACE = "interface org.memctl\n# A.\nmethod Lease(gpa: int) -> (lease: int)\n"
FIELDS = "#define OP_lease_IN(F) F(u64, gpa)\n#define OP_lease_OUT(F) F(u64, lease)\n"
OPS = "OP(Lease, lease, CLIENT)\n"
HEADER = "MEMCTL_API int memctl_a(struct x *x);\n"

if __name__ == "__main__":
    tree.run([
        ("operations_are_those_of_the_contract", check_operations, [
            {"proto/org.memctl.varlink": INTERFACE.replace("gpa", "gpb"), "proto/ops.def": OPS,
             "proto/ops_fields.h": FIELDS},
            {"proto/org.memctl.varlink": INTERFACE.replace("gpa: int", "gpa: string"), "proto/ops.def": OPS,
             "proto/ops_fields.h": FIELDS},
            {"proto/org.memctl.varlink": INTERFACE.replace("gpa: int", "gpa: ?int"), "proto/ops.def": OPS,
             "proto/ops_fields.h": FIELDS},
            {"proto/org.memctl.varlink": INTERFACE, "proto/ops.def": OPS + "OP(More, more, OPEN)\n",
             "proto/ops_fields.h": FIELDS},
            {"proto/org.memctl.varlink": INTERFACE + "method More() -> ()\n", "proto/ops.def": OPS,
             "proto/ops_fields.h": FIELDS},
        ]),
        ("errors_are_those_of_the_contract", check_errors, [
            {"proto/org.memctl.varlink": INTERFACE + "error A (message: string)\nerror B (message: string)\n",
             "proto/errors.def": "ERROR(A, 0, EIO, x)\n"},
            {"proto/org.memctl.varlink": INTERFACE + "error A ()\n", "proto/errors.def": "ERROR(A, 0, EIO, x)\n"},
            {"proto/org.memctl.varlink": INTERFACE + "error A (message: string, need: int)\n",
             "proto/errors.def": "ERROR(A, ERROR_HAS_NEED, EIO, x)\n"},
        ]),
        ("methods_are_documented", check_documented,
         {"proto/org.memctl.varlink": "interface org.memctl\n\nmethod Lease() -> ()\n"}),
        ("symbol_map_is_the_header", check_map, [
            {"libclient/memctl.h": HEADER, "libclient/memctl.map": "M_0 {\nglobal:\n\tmemctl_b;\nlocal:\n\t*;\n};\n"},
            {"libclient/memctl.h": HEADER,
             "libclient/memctl.map": "M_0 {\nglobal:\n\tmemctl_a;\n\tmemctl_*;\nlocal:\n\t*;\n};\n"},
        ]),
        ("exports_are_the_header", check_exports, [
            {"libclient/memctl.h": HEADER, "nm.txt": "0000 T memctl_a@@M_0\n0000 T helper\n"},
            {"libclient/memctl.h": HEADER, "nm.txt": "0000 A M_0\n"},
        ]),
    ])
