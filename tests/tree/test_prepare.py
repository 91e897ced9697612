"""tests/lib/prepare.sh on a machine that lacks things: a PATH of our own with an apt-get that only says what it got."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE  # noqa: E402

TOOLS = ["bash", "sort", "tr", "cat"]
BUILD = ["gcc", "g++", "meson", "ninja", "pkg-config", "python3", "scdoc"]
APT = "#!/bin/bash\necho \"apt-get $*\" >>\"$LOG\"\nexit ${APT_EXIT-0}\n"


def prepare(have, user=0, apt=True, exit_status=0, libraries=True, words=""):
    """(exit status, what apt-get was asked, stderr)"""
    with tempfile.TemporaryDirectory(prefix="memctl-prepare-") as d:
        for tool in TOOLS:
            os.symlink(shutil.which(tool), os.path.join(d, tool))
        scripts = {tool: "#!/bin/bash\nexit 0\n" for tool in have}
        scripts["id"] = "#!/bin/bash\necho %d\n" % user
        if "pkg-config" in have and not libraries:
            scripts["pkg-config"] = "#!/bin/bash\n[ \"$2\" != jansson ]\n"
        if apt:
            scripts["apt-get"] = APT
        for name, text in scripts.items():
            with open(os.path.join(d, name), "w") as f:
                f.write(text)
            os.chmod(os.path.join(d, name), 0o755)
        log = os.path.join(d, "log")
        result = subprocess.run([os.path.join(d, "bash"), "-c",
                                 '. "%s/tests/lib/prepare.sh"; prepare_host %s || exit; echo "${MEMCTL_INSTALLED-no}"'
                                 % (TREE, words)],
                                env={"PATH": d, "LOG": log, "APT_EXIT": str(exit_status)}, capture_output=True,
                                text=True, check=False)
        asked = open(log).read() if os.path.exists(log) else ""
        return result.returncode, asked, result.stdout.strip(), result.stderr


def test_nothing_missing_asks_for_nothing():
    status, asked, out, err = prepare(BUILD)
    check_eq((status, asked, out), (0, "", "no"), "status, apt-get, installed (%s)" % err)


def test_missing_tools_are_installed():
    status, asked, out, _ = prepare([t for t in BUILD if t not in ("meson", "ninja")])
    check_eq((status, out), (0, "1"), "status, installed")
    check("update" in asked and "install meson ninja-build" in asked.replace("  ", " "), asked)


def test_missing_libraries_are_installed():
    _, asked, _, _ = prepare(BUILD, libraries=False)
    check("libjansson-dev" in asked and "libevent-dev" not in asked, asked)


def test_without_pkg_config_all_libraries_are_asked_for():
    _, asked, _, _ = prepare([t for t in BUILD if t != "pkg-config"])
    check("pkg-config" in asked and "libevent-dev" in asked and "libsqlite3-dev" in asked, asked)


def test_more_words_are_looked_for():
    _, asked, _, _ = prepare(BUILD, words="clang setpriv:util-linux")
    check("clang" in asked and "util-linux" in asked and "setpriv" not in asked, asked)


def test_an_ordinary_user_is_told_the_line():
    status, asked, _, err = prepare(["gcc"], user=1000)
    check(status != 0 and asked == "", "status %d, apt-get: %s" % (status, asked))
    check("apt-get install" in err and "meson" in err, err)


def test_without_apt_the_names_are_told():
    status, _, _, err = prepare(["gcc"], apt=False)
    check(status != 0 and "meson" in err, err)


def test_a_failed_installation_fails():
    status, _, _, err = prepare(["gcc"], exit_status=100)
    check(status != 0 and "Could not install" in err, err)


if __name__ == "__main__":
    main(globals())
