"""`meson install` puts every file where a distribution looks for it, and systemd accepts the unit."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, main, skip  # noqa: E402
from lib.daemon import TREE, build_dir  # noqa: E402

# below the prefix; * stands for the library directory of the machine
EXPECTED = [
    "bin/memctl", "sbin/memctld", "include/memctl.h", "lib*/libmemctl.so", "lib*/libmemctl.so.0",
    "lib*/memctl/libmemctl-preload.so", "lib*/pkgconfig/memctl.pc", "lib/systemd/system/memctld.service",
    "lib/systemd/system/memctl-metrics.service", "lib/systemd/system/memctl-metrics.timer",
    "sbin/memctl-exporter", "lib/systemd/system/memctl-exporter.service", "lib/systemd/system/memctl-exporter.socket",
    "share/doc/memctl/prometheus/memctl.rules.yml", "share/doc/memctl/prometheus/README.md", "share/doc/memctl/grafana/memctl.json",
    "share/fish/vendor_completions.d/memctl.fish",
    "lib/systemd/system-generators/memctl-generator",
    "lib/sysusers.d/memctl.conf", "lib/tmpfiles.d/memctl.conf", "lib/sysctl.d/60-memctl.conf", "lib/udev/rules.d/60-memctl.rules",
    "share/doc/memctl/README.md", "share/bash-completion/completions/memctl",
]
PAGES = ["man1/memctl.1", "man1/memctl-vm-list.1", "man3/libmemctl.3", "man3/memctl_pin.3", "man5/memctld.conf.5", "man7/org.memctl.7",
         "man7/memctl-memory.7", "man8/memctld.8", "man8/memctl-exporter.8"]
INSTALLED = {}


def installed():
    """Installed once for all scenarios, with prefix /usr, from a configuration of its own of the same sources."""
    if INSTALLED:
        return INSTALLED["root"]
    work = tempfile.mkdtemp(prefix="memctl-install-")
    INSTALLED["work"] = work
    subprocess.run(["meson", "setup", "--prefix=/usr", "-Dauto_features=disabled",
                    "-Dman=" + ("enabled" if shutil.which("scdoc") else "disabled"), work + "/build", TREE], check=True,
                   stdout=sys.stderr, stdin=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", work + "/build"], check=True, stdout=sys.stderr)
    subprocess.run(["meson", "install", "-C", work + "/build", "--no-rebuild", "--quiet", "--destdir", work + "/root"],
                   check=True, stdout=sys.stderr)
    INSTALLED["root"] = work + "/root"
    return INSTALLED["root"]


def found(root, pattern):
    parent, _, name = pattern.rpartition("/")
    if "*" in parent:
        head, _, tail = parent.partition("*")
        base = os.path.join(root, "usr", os.path.dirname(head) or ".")
        return any(os.path.exists(os.path.join(top, name)) for top, _, _ in os.walk(os.path.join(base, "lib"))
                   if top.endswith(tail))
    return os.path.exists(os.path.join(root, "usr", pattern))


def test_files_are_where_they_belong():
    root = installed()
    missing = [p for p in EXPECTED if not found(root, p)]
    check(not missing, "not installed: %s" % ", ".join(missing))
    check(os.path.exists(root + "/etc/memctl/memctld.conf"), "no /etc/memctl/memctld.conf")


def test_the_manual_is_where_man_looks():
    root = installed()
    if not shutil.which("scdoc"):
        skip("scdoc is not installed")
    missing = [p for p in PAGES if not os.path.isfile(os.path.join(root, "usr/share/man", p))]
    check(not missing, "not installed: %s" % ", ".join(missing))


test_files_are_where_they_belong.seconds = 240


def test_nothing_of_the_tests_is_installed():
    root = installed()
    strange = [n for top, _, names in os.walk(root) for n in names
               if n.startswith(("unit-", "demo-", "puppet", "system-")) or n.endswith(".a") or
               (n.endswith(".py") and not top.endswith("-packages/memctl"))]
    check(not strange, "installed: %s" % ", ".join(strange))


def test_zsh_and_python_find_their_part():
    """Asked, not looked at: the places differ between distributions."""
    root = installed()
    if os.path.exists("/usr/bin/python3"):
        places = subprocess.run(["/usr/bin/python3", "-c", "import sys; print('\\n'.join(sys.path))"], capture_output=True, text=True,
                                check=True).stdout.split()
        found = [p for p in places if os.path.exists(root + p + "/memctl/py.typed")]
        check(len(found) == 1, "the package is in none of %s" % places)
        library = next(top for top, _, names in os.walk(root) if "libmemctl.so.0" in names)
        result = subprocess.run(["/usr/bin/python3", "-B", "-c", "import memctl; print(memctl.version())"], capture_output=True, text=True,
                                env=dict(os.environ, PYTHONPATH=root + found[0], LD_LIBRARY_PATH=library), check=False)
        check(result.returncode == 0 and result.stdout.strip(), result.stderr)
    if not shutil.which("zsh"):
        skip("zsh is not installed")
    places = subprocess.run(["zsh", "-fc", "print -l $fpath"], capture_output=True, text=True, check=True).stdout.split()
    check(any(os.path.exists(root + p + "/_memctl") for p in places), "_memctl is in none of %s" % places)


def test_sample_configuration_is_accepted():
    root = installed()
    result = subprocess.run([root + "/usr/sbin/memctld", "--config", root + "/etc/memctl/memctld.conf",
                             "--check-config"], capture_output=True, text=True, check=False)
    check(result.returncode == 0, result.stderr)
    # uncommented, every line of it is a default
    with open(root + "/etc/memctl/memctld.conf") as f:
        text = f.read().replace("\n#", "\n").replace("\n ", "\n# ")
    path = os.path.join(INSTALLED["work"], "all.conf")
    with open(path, "w") as f:
        f.write("\n".join(t if "=" in t or t.startswith("[") else "# " + t for t in text.splitlines()
                          if not t.rstrip().endswith("=")))
    uncommented = subprocess.run([root + "/usr/sbin/memctld", "--config", path, "--check-config"],
                                 capture_output=True, text=True, check=False)
    check(uncommented.returncode == 0, uncommented.stderr)
    check(uncommented.stdout == result.stdout, "a line of it is not the default")


def test_unit_is_accepted_by_systemd():
    if not shutil.which("systemd-analyze"):
        skip("systemd-analyze is not installed")
    root = installed()
    unit = os.path.join(INSTALLED["work"], "memctld.service")
    with open(root + "/usr/lib/systemd/system/memctld.service") as f:
        text = f.read()
    check("ExecStart=/usr/sbin/memctld" in text, "ExecStart does not name the installed daemon")
    with open(unit, "w") as f:
        f.write(text.replace("/usr/sbin/memctld", root + "/usr/sbin/memctld").replace("/usr/bin/memctl", root + "/usr/bin/memctl"))
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    check(result.returncode == 0 and not result.stderr.strip(), result.stderr)
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=10", unit],
                            capture_output=True, text=True, check=False)
    check(result.returncode == 0, "exposure above 1.0: %s" % result.stdout.strip().splitlines()[-1:])


def test_pkg_config_compiles_the_header():
    if not shutil.which("pkg-config"):
        skip("pkg-config is not installed")
    root = installed()
    folders = [top for top, _, names in os.walk(root) if "memctl.pc" in names]
    env = dict(os.environ, PKG_CONFIG_PATH=folders[0], PKG_CONFIG_SYSROOT_DIR=root)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "memctl"], env=env, capture_output=True, text=True,
                           check=True).stdout.split()
    for compiler, name, options in (("cc", "use.c", ["-std=c99"]), ("c++", "use.cc", ["-std=c++11"])):
        if not shutil.which(compiler):
            skip("%s is not installed" % compiler)
        source = os.path.join(INSTALLED["work"], name)
        with open(source, "w") as f:
            f.write("#include <memctl.h>\nint main(void) { return memctl_version()[0] == 0; }\n")
        result = subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", *options, source, "-o",
                                 source + ".out", "-I" + root + "/usr/include", *flags], capture_output=True,
                                text=True, check=False)
        check(result.returncode == 0, result.stderr)


if __name__ == "__main__":
    try:
        main(globals())
    finally:
        if INSTALLED:
            shutil.rmtree(INSTALLED["work"], ignore_errors=True)
