"""The corpus of the content mix: real bytes of this machine, executables and text, in one file.

Files of /usr are taken in the order of a hash of their names, so that the choice is spread over all packages
and is the same for the same set of installed files.
"""
import hashlib
import os
import stat
import sys

EXECUTABLES = 96 << 20
TEXT = 64 << 20
PER_FILE = 512 << 10
PLACES = ("/usr/bin", "/usr/lib", "/usr/share", "/usr/include")


def _files():
    for place in PLACES:
        for folder, _, names in os.walk(place):
            for name in names:
                yield os.path.join(folder, name)


def _is_text(block):
    if b"\0" in block:
        return False
    odd = sum(1 for b in block if b < 9 or b > 126)
    return odd * 50 < len(block)


def make(path):
    """Write the corpus to `path` unless it is there; return its hash."""
    if not os.path.exists(path):
        executables, text = bytearray(), bytearray()
        for name in sorted(_files(), key=lambda n: hashlib.blake2b(n.encode(errors="replace")).digest()):
            try:
                info = os.lstat(name)
                if not stat.S_ISREG(info.st_mode) or info.st_size < 8192:
                    continue
                with open(name, "rb") as f:
                    block = f.read(PER_FILE)
            except OSError:
                continue
            if block.startswith(b"\x7fELF"):
                executables += block
            elif len(text) < TEXT and _is_text(block[:4096]):
                text += block
            if len(executables) >= EXECUTABLES and len(text) >= TEXT:
                break
        if not executables or not text:
            sys.exit("no executables or no text under /usr to measure with")
        with open(path + ".new", "wb") as f:
            for part, size in ((executables, EXECUTABLES), (text, TEXT)):
                while len(part) < size:     # a small system: go round
                    part += part[:size - len(part)]
                f.write(part[:size])
        os.rename(path + ".new", path)
    with open(path, "rb") as f:
        return hashlib.blake2b(f.read(), digest_size=8).hexdigest()
