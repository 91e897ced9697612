#!/usr/bin/env python3
"""The system calls that memctld's filter permits, held against the code; and that memctld starts no program."""
import re

import tree

ROWS = "daemon/seccomp_filter.def"
# it is not memctld that serves: it starts that one
SUPERVISOR = ("daemon/supervise.c", "daemon/supervise.h")
STARTS = r"\b(exec[vl]p?e?|execveat|fexecve|v?fork|posix_spawnp?|popen|system|ptrace|setns|unshare)\s*\("
# what the C library calls otherwise than the kernel does
KERNEL_NAMES = {"epoll_create": "epoll_create1", "accept": "accept4", "eventfd": "eventfd2", "signalfd": "signalfd4", "pipe": "pipe2",
                "pread": "pread64", "pwrite": "pwrite64", "posix_fallocate": "fallocate", "recv": "recvfrom", "send": "sendto",
                "getrlimit": "prlimit64", "setrlimit": "prlimit64", "statvfs": "statfs", "fstatvfs": "fstatfs"}
WRAPPERS = ("accept4|access|bind|chmod|chown|close|close_range|connect|dup2|eventfd|fallocate|fchmod|fdatasync|fstat|fstatfs|fstatvfs|"
            "fsync|ftruncate|getpid|getrandom|getrlimit|getsockopt|kill|lchown|listen|lseek|lstat|madvise|memfd_create|mincore|mkdir|"
            "mlock|mlock2|mmap|mprotect|munmap|nanosleep|open|openat|poll|ppoll|prctl|pread|preadv|pwrite|pwritev|read|readlink|recvmsg|"
            "rename|rmdir|sched_yield|sendmsg|setrlimit|setsockopt|signalfd|socket|socketpair|statfs|statvfs|unlink|write|writev|splice|"
            "sendfile|copy_file_range|io_uring_enter|process_vm_readv|process_vm_writev|mount|umount2|chroot|setuid|setgid|setgroups|"
            "timerfd_create|inotify_init1|perf_event_open|shm_open|msync|mlockall|personality|symlink|link|mknod|utimensat")


def code(root):
    for path in tree.files(root):
        if path.startswith("daemon/") and path.endswith((".c", ".h")) and path not in SUPERVISOR:
            text = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', tree.text(root, path))
            yield path, re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def rows(root):
    return set(re.findall(r"^CALL(?:_IF)?\((\w+),", tree.text(root, ROWS) or "", re.M))


def check_calls(root):
    known, wrong = rows(root) | {"ioctl", "kill", "tgkill"}, []
    if not rows(root):
        return ["%s has no rows" % ROWS]
    for path, text in code(root):
        if path == "daemon/seccomp_filter.c":
            continue
        called = set(re.findall(r"(?<![\w.>])(%s)\s*\(" % WRAPPERS, text)) | set(re.findall(r"\bSYS_(\w+)", text))
        wrong += ["%s calls %s, which %s does not permit" % (path, name, ROWS) for name in sorted(called)
                  if KERNEL_NAMES.get(name, name) not in known]
    return wrong


def check_ioctls(root):
    wrong = []
    table = re.search(r"uffd_requests\[\] = \{(.*?)\}", tree.text(root, "daemon/mem/uffd.c") or "", re.S)
    listed = set(re.findall(r"\b[A-Z]\w+", table[1])) if table else set()
    used = set()
    for path, text in code(root):
        for request in re.findall(r"\bioctl\s*\([^,]+,\s*(\w+)", text):
            used.add(request)
            if request not in listed:
                wrong.append("%s: ioctl %s is not in uffd_requests" % (path, request))
    return wrong + ["uffd_requests permits %s, which nobody calls" % r for r in sorted(listed - used)]


def check_starts(root):
    wrong = []
    for path, text in code(root):
        if path != "daemon/seccomp_filter.c":
            wrong += ["%s starts a program, or reaches into another: %s" % (path, name) for name in re.findall(STARTS, text)]
    return wrong


if __name__ == "__main__":
    tree.run([
        ("calls_of_the_code_are_listed", check_calls, [
            {ROWS: 'CALL(read, "")\n', "daemon/a.c": "int a(void) { return mount(0); }\n"},
            {ROWS: 'CALL(read, "")\n', "daemon/a.c": "int a(void) { return syscall(SYS_bpf, 0); }\n"},
            {"daemon/a.c": "int a;\n"},
        ]),
        ("requests_of_ioctl_are_listed", check_ioctls, [
            {"daemon/mem/uffd.c": "const unsigned long uffd_requests[] = { UFFDIO_API, 0 };\nioctl(fd, UFFDIO_API, 0); ioctl(fd, UFFDIO_MOVE, 0);"},
            {"daemon/mem/uffd.c": "const unsigned long uffd_requests[] = { UFFDIO_API, 0 };\n"},
        ]),
        ("memctld_starts_no_program", check_starts, {"daemon/doctor.c": "void a(void) { popen(\"\"); }\n"}),
    ])
