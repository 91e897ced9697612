"""memctl top in a real terminal: tmux runs it, is sent keys, and says what is on the screen."""
import os
import re
import shutil
import subprocess
import tempfile

from lib.check import skip
from lib.daemon import wait_until

# its own end, and whether the terminal is as it was, are said by the shell around it
RUN = 'stty -g >"$BOX/before"; "$@"; status=$?; stty -g >"$BOX/after"; echo "[exit $status]"; exec sleep 1000'


def needs_tmux():
    if not shutil.which("tmux"):
        skip("there is no tmux")


class Screen:
    """A terminal of this size with a program in it; `environment` None takes a name away.  Without words: an interactive shell."""

    def __init__(self, words, columns=80, rows=24, environment=None):
        needs_tmux()
        self.box = tempfile.mkdtemp(prefix="memctl-screen-")
        env = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC", BOX=self.box, TMUX_TMPDIR=self.box, PS1="$ ")
        for name in ("NO_COLOR", "TMUX"):
            env.pop(name, None)
        more = {k: v for k, v in (environment or {}).items() if v is not None}
        command = ["env", *("%s=%s" % pair for pair in more.items())]
        command += ["bash", "-c", RUN, "run", *words] if words else ["bash", "--norc", "--noprofile", "-i"]
        self.env = env
        with open(os.path.join(self.box, "tmux.conf"), "w") as f:
            f.write("set -g default-terminal tmux-256color\nset -g status off\nset -s escape-time 0\n")
        self.tmux("-f", os.path.join(self.box, "tmux.conf"), "new-session", "-d", "-x", str(columns), "-y", str(rows), *command)

    def tmux(self, *words):
        return subprocess.run(["tmux", "-S", os.path.join(self.box, "socket"), *words], capture_output=True, text=True, check=True,
                              stdin=subprocess.DEVNULL, env=self.env).stdout

    def keys(self, *keys):
        for key in keys:
            self.tmux("send-keys", key)

    def type(self, text):
        self.tmux("send-keys", "-l", "--", text)

    def lines(self):
        return [line.rstrip() for line in self.tmux("capture-pane", "-p").split("\n")]

    def text(self):
        return "\n".join(self.lines()).rstrip("\n") + "\n"

    def colored(self):
        return self.tmux("capture-pane", "-p", "-e")

    def wait(self, pattern, seconds=10):
        """The text, once it has this."""
        found = re.compile(pattern, re.M)
        last = [""]

        def there():
            last[0] = self.text()
            return found.search(last[0])

        try:
            wait_until(there, seconds, "a screen")
        except Exception as e:
            raise AssertionError("%s is not on the screen: %r" % (pattern, last[0])) from e
        return last[0]

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def pid(self):
        """Of the program."""
        shell = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        children = subprocess.run(["ps", "--ppid", str(shell), "-o", "pid=,comm="], capture_output=True, text=True, check=False).stdout
        return next((int(line.split()[0]) for line in children.splitlines() if line.split()[1] == "memctl"), None)

    def is_as_before(self):
        with open(os.path.join(self.box, "before")) as before, open(os.path.join(self.box, "after")) as after:
            return before.read() == after.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.tmux("kill-server")
        except subprocess.CalledProcessError:
            pass
        shutil.rmtree(self.box, ignore_errors=True)


def without_numbers(text):
    """Numbers as N, where they end: what stands under what is kept."""
    text = re.sub(r"^(warning: ).*$", "", text, flags=re.M)
    text = re.sub(r"^\d\d:\d\d:\d\d", "HH:MM:SS", text)
    text = re.sub(r"up \d+:\d\d:\d\d", "up H:MM:SS", text)
    return re.sub(r"(?<![\w?])( *)\d[\d.]*(?![\w.])", lambda m: "%*s" % (len(m[0]), "N"), text)
