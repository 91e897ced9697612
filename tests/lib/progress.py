"""Progress of what takes long: one line on stderr that is written over again and again, and gone at the end, as memctl's is
(cli/progress.h).  Only on a terminal, and never where somebody wants JSON or quiet.

    with Progress(quiet=as_json) as p:
        p.show(line("unit", 3, 9, seconds=41))
"""
import os
import sys
import time

DRAW_SECONDS = 0.1
SURE_SECONDS = 0.5


def duration(seconds):
    if seconds < 90:
        return "%d s" % max(1, round(seconds))
    return "%d min" % round(seconds / 60) if seconds < 5400 else "%d h" % round(seconds / 3600)


def line(what, done, whole, seconds, unit=""):
    """What, how much of how much, the rate and the time left; `seconds`: how long it took so far."""
    said = "%s   %d of %d%s   %3d %%" % (what, done, whole, unit and " " + unit, 100 * done / whole if whole else 100)
    if seconds >= SURE_SECONDS and done > 0:
        rate = done / seconds
        said += "   %s%s/s" % ("%.1f" % rate if rate < 10 else "%d" % rate, unit and " " + unit)
        if whole > done:
            said += "   %s left" % duration((whole - done) / rate)
    return said


class Progress:
    """`now`: the clock, for tests."""

    def __init__(self, quiet=False, stream=None, now=time.monotonic):
        self.stream = stream or sys.stderr
        self.shown = not quiet and self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.now = now
        self.drawn = None
        self.some = False

    def show(self, text):
        """As often as one likes: it is drawn ten times a second at most."""
        if not self.shown or (self.drawn is not None and self.now() - self.drawn < DRAW_SECONDS):
            return
        self.drawn = self.now()
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except OSError:
            columns = 80
        self.some = True
        self.stream.write("\r%s\033[K" % text[:max(20, columns) - 1])
        self.stream.flush()

    def clear(self):
        """Before anything else is printed."""
        if self.some:
            self.stream.write("\r\033[K")
            self.stream.flush()
        self.some = False
        self.drawn = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()
