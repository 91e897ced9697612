#!/usr/bin/env python3
"""memctl.h is the manual: what it declares is what the library exports, its example is a file that compiles, and
a C++ program can include it."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip
from lib.daemon import TREE, build_dir

HEADER = os.path.join(TREE, "libclient", "memctl.h")


def read(path):
    with open(path) as f:
        return f.read()


def declared(text):
    return set(re.findall(r"^MEMCTL_API\b[^;(]*?\b(memctl_\w+)\(", text, re.M))


def exported(library):
    out = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in out.splitlines() if line.split()[-2] != "A"}


def library():
    return os.path.join(build_dir(), "libclient", "libmemctl.so.0")


def test_header_is_exports():
    names = declared(read(HEADER))
    check(len(names) > 20, "only %d declarations found" % len(names))
    symbols = exported(library())
    unversioned = {s for s in symbols if not s.endswith("@@LIBMEMCTL_0.1")}
    check(not unversioned, "exported without their version: %s" % " ".join(sorted(unversioned)))
    symbols = {s.split("@")[0] for s in symbols}
    check_eq(names - symbols, set(), "declared, not exported")
    check_eq(symbols - names, set(), "exported, not declared")


def test_header_is_exports_twin():
    text = read(HEADER) + "\nMEMCTL_API int memctl_forgotten(void);\n"
    check("memctl_forgotten" in declared(text) - {s.split("@")[0] for s in exported(library())})


def test_the_library_needs_little():
    out = subprocess.run(["readelf", "-d", library()], check=True, capture_output=True, text=True).stdout
    needed = set(re.findall(r"NEEDED.*\[([^\]]+)\]", out))
    for name in needed:
        check(re.match(r"(libjansson|libc|libpthread|ld-linux.*|libasan|libubsan|libtsan|libgcc_s|libclang_rt.*|libm)\.so",
                       name), "it needs %s" % name)
    check("libjansson.so.4" in needed)
    check(re.search(r"SONAME.*\[libmemctl\.so\.0\]", out), "its soname is another")


def example_of(text):
    lines = text[text.index("ONE COMPLETE EXAMPLE"):text.index("RULES FOR ALL FUNCTIONS")].splitlines()[1:]
    lines = [re.sub(r"^ \*\t?", "", line) for line in lines]
    return "\n".join(lines).strip("\n ") + "\n"


def test_the_example_is_a_file():
    check_eq(example_of(read(HEADER)), read(os.path.join(TREE, "libclient", "examples", "example.c")).strip("\n") + "\n")


def compile_with(compiler, suffix, text, *flags):
    if not shutil.which(compiler):
        skip("no %s" % compiler)
    with tempfile.TemporaryDirectory() as d:
        source = os.path.join(d, "try" + suffix)
        with open(source, "w") as f:
            f.write(text)
        result = subprocess.run([compiler, *flags, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I",
                                 os.path.dirname(HEADER), "-c", source, "-o", os.path.join(d, "o")],
                                capture_output=True, text=True, check=False)
        check_eq(result.returncode, 0, result.stderr)


USE = """#include <memctl.h>
#include <memctl.h>
int use(void);
int use(void)
{
	struct memctl_lease *l = 0;
	struct memctl_stats s;
	s.struct_size = sizeof s;
	return memctl_lease(0, 0, 4096, &l, 0) + memctl_stats(0, &s, 0) + (int)MEMCTL_FAULTS_FULL;
}
"""


def test_header_in_c():
    compile_with("cc", ".c", USE, "-std=c99")
    compile_with("cc", ".c", USE, "-std=c17")


def test_header_in_cpp():
    compile_with("g++", ".cc", USE, "-std=c++11")
    compile_with("g++", ".cc", USE, "-std=c++20")


if __name__ == "__main__":
    main(globals())
