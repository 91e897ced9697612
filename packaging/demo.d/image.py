"""What the guests of the demo hold: real files of this machine, and the plans (plan.h) that place them."""
import hashlib
import os
import stat
import time

PAGE = 4096
DATA_PAGE = 96  # guest.h
HEAP_TABLE_PAGES = 17  # guest.h
DIRECTORIES = ["/usr/lib", "/usr/bin", "/usr/share", "/usr/include", "/usr/libexec"]


class TooFewFiles(Exception):
    pass


def find_files(wanted_pages):
    """Files that every user may read, in an order that mixes directories and is the same at each run; enough
    for `wanted_pages`, as (path, bytes)."""
    found = []
    recent = time.time() - 600
    for top in DIRECTORIES:
        for directory, names, files in os.walk(top):
            # what a build or Python may be writing meanwhile
            names[:] = [n for n in names if n != "__pycache__"]
            for name in files:
                path = os.path.join(directory, name)
                try:
                    s = os.lstat(path)
                except OSError:
                    continue
                if (stat.S_ISREG(s.st_mode) and s.st_mode & stat.S_IROTH and 8192 <= s.st_size <= 8 << 20
                        and s.st_mtime < recent and "\n" not in path and os.access(path, os.R_OK)):
                    found.append((hashlib.sha1(path.encode("utf-8", "replace")).digest(), path, s.st_size))
    found.sort()
    chosen, pages = [], 0
    for _, path, size in found:
        if pages >= wanted_pages:
            return chosen
        chosen.append((path, size))
        pages += (size + PAGE - 1) // PAGE
    if not chosen:
        raise TooFewFiles("there is no readable file in %s" % ", ".join(DIRECTORIES))
    return chosen


class Files:
    """Hands the files out one after the other; begins anew on a machine that has too few."""

    def __init__(self, files):
        self.files = files
        self.next = 0

    def place(self, first, pages):
        """Lines of a plan that fill [first, first + pages); each file begins on a page of its own."""
        lines = []
        while pages > 0:
            path, size = self.files[self.next % len(self.files)]
            self.next += 1
            size = min(size, pages * PAGE)
            taken = (size + PAGE - 1) // PAGE
            lines.append("file %d %d %s" % (first, size, path))
            first += taken
            pages -= taken
        return lines


def write_plans(directory, guest_pages, rounds, guests=4):
    """One plan a guest; their paths.  All but the last hold mostly the same files, and some of their own; the
    last holds mostly numbers that no compressor shortens, more than its compression cache may hold.  At the end of each is
    the guest's heap."""
    def part(share):
        return int(guest_pages * share) // 128 * 128

    common, own, arrays = part(0.55), part(0.20), part(0.04)
    files = Files(find_files(common + (guests - 1) * own + part(0.20)))
    shared_lines = files.place(DATA_PAGE, common)
    paths = []
    for guest in range(guests):
        incompressible = guest == guests - 1
        if incompressible:
            n_files, random, arrays_here = part(0.14), part(0.70), part(0.02)
            lines = Files(files.files).place(DATA_PAGE, n_files)
        else:
            n_files, random, arrays_here = common + own, part(0.05), arrays
            lines = shared_lines + files.place(DATA_PAGE + common, own)
        hot, warm = n_files * 15 // 100, n_files * 25 // 100
        cold = n_files - hot - warm
        regions, first = [], DATA_PAGE
        for name, pages in (("cold", cold), ("warm", warm), ("hot", hot), ("arrays", arrays_here),
                            ("random", random)):
            regions.append("region %s %d %d" % (name, first, pages))
            first += pages
        heap = part(0.10) + HEAP_TABLE_PAGES
        regions.append("region heap %d %d" % (guest_pages - heap, heap))
        path = os.path.join(directory, "vm%d.plan" % (guest + 1))
        with open(path, "w", errors="surrogateescape") as f:
            f.write("\n".join(["guest %d %d %d %d" % (guest_pages, guest + 1, rounds, guest_pages // 2),
                               *regions, *lines, ""]))
        os.chmod(path, 0o644)
        paths.append(path)
    return paths
