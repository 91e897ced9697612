"""The build directories that tests/run makes: one name, one set of meson options."""
import fcntl
import os
import shutil
import subprocess
import sys

STAMP = "memctl-options"

# warnings are errors wherever we test; a release is built as a user builds it
BUILDS = {
    "build": {"options": ["-Dwerror=true"]},
    "build-release": {"options": ["--buildtype=release"]},
    "build-min": {"options": ["-Dwerror=true", "-Dauto_features=disabled"]},
    "build-asan": {"options": ["-Dwerror=true", "-Db_sanitize=address,undefined"]},
    "build-tsan": {"options": ["-Dwerror=true", "-Db_sanitize=thread"]},
    "build-clang": {"options": ["-Dwerror=true"], "cc": "clang"},
    "build-o0": {"options": ["-Dwerror=true", "-Dbuildtype=debug", "-Doptimization=0"]},
    # what -O3 inlines makes gcc guess at truncations that are meant
    "build-o3": {"options": ["-Dwerror=true", "-Dbuildtype=release", "-Doptimization=3", "-Db_ndebug=true",
                             "-Dc_args=-Wno-format-truncation"]},
    "build-coverage": {"options": ["-Db_coverage=true", "-Doptimization=0"]},
    # the fuzzer's own functions come with the programs, so shared libraries lack them
    "build-fuzz": {"options": ["-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"], "cc": "clang"},
    "build-afl": {"options": ["-Dfuzz=true", "-Db_lundef=false"], "cc": "afl-clang-fast"},
}

# sanitized programs are slower: time limits of tests are multiplied
SLOW = {"build-asan": 3, "build-tsan": 8}


def _run(command, env=None):
    """Output to stderr, the tail of it back when it fails."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors="replace", env=env, check=False)
    if result.returncode:
        sys.stderr.write(result.stdout[-8000:])
        return "%s: exit %d: %s" % (" ".join(command[:2]), result.returncode, _first_error(result.stdout))
    return None


def _first_error(text):
    for line in text.splitlines():
        if "error:" in line.lower():
            return line.strip()[:300]
    return text.strip().splitlines()[-1][:300] if text.strip() else "no output"


def build(tree, name):
    """Configure (once, or when the options changed) and build; None, or why it failed."""
    how = BUILDS[name]
    path = os.path.join(tree, name)
    wanted = " ".join(how["options"] + [how.get("cc", "cc")])
    env = dict(os.environ)
    if "cc" in how:
        env["CC"] = how["cc"]
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "memctl-lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = os.path.join(path, STAMP)
        try:
            with open(stamp) as f:
                now = f.read()
        except OSError:
            now = None
        configured = os.path.exists(os.path.join(path, "build.ninja"))
        if not configured or now != wanted or os.environ.get("MEMCTL_INSTALLED"):
            # a directory made with other options is begun anew; so is one whose first set-up failed
            if not configured:
                shutil.rmtree(os.path.join(path, "meson-private"), ignore_errors=True)
            why = _run(["meson", "setup", *(["--wipe"] if configured else []), *how["options"], path, tree], env)
            if why:
                return why
            with open(stamp, "w") as f:
                f.write(wanted)
        return _run(["ninja", "-C", path], env)
