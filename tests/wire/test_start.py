#!/usr/bin/env python3
"""memctld's command line, settings and end: what is refused, with which status and which words."""
import os
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main
from lib.daemon import Daemon, build_dir
from wire.client import Client


def run(*args, status=0, words="", **more):
    """memctld with these arguments must end with that status and say these words; its standard output."""
    result = subprocess.run([os.path.join(build_dir(), "daemon", "memctld"), *args], capture_output=True, text=True,
                            timeout=20, check=False, stdin=subprocess.DEVNULL, **more)
    check_eq(result.returncode, status, "status of memctld %s (%s)" % (" ".join(args), result.stderr.strip()))
    check(words in result.stdout + result.stderr, "no \"%s\" in: %s" % (words, result.stderr or result.stdout))
    return result.stdout


def settings_file(directory, text):
    path = os.path.join(directory, "memctld.conf")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def test_help_and_version():
    text = run("--help")
    check("--arena" in text and "zstd_level" in text and "Exit status" in text)
    run("--version", words="memctld ")


def test_wrong_usage():
    run("--nothing", status=2)
    run("something", status=2, words="unexpected argument")
    run("--ready-fd", "x", status=2, words="--ready-fd")
    run("--log-level", "loud", status=2, words="--log-level")
    run("--arena", status=2)


def test_wrong_settings():
    with tempfile.TemporaryDirectory() as directory:
        path = settings_file(directory, "[memctld]\narena = 64M\ncolour = red\n")
        run("--config", path, "--check-config", status=3, words=path + ":3: there is no setting \"colour\"")
        run("--config", os.path.join(directory, "none.conf"), status=3, words="none.conf")
    run("--arena", "12", status=3, words="arena: wants a size")
    run("--set", "victim=best", status=3, words="second-chance")
    run("--set", "colour=red", status=3, words="colour")
    run("--socket", "relative", status=3, words="absolute path")


def test_the_command_line_comes_after_the_files():
    with tempfile.TemporaryDirectory() as directory:
        path = settings_file(directory, "[memctld]\narena = 64M\nzstd_level = 5\n")
        text = run("--arena", "32M", "--config", path, "--check-config")
        check("arena = %d\n" % (32 << 20) in text and "zstd_level = 5\n" in text, text)
        again = settings_file(directory, text)
        check_eq(run("--config", again, "--check-config"), text, "the printed settings, read again")


def test_what_cannot_start():
    with tempfile.TemporaryDirectory() as directory:
        common = ["--config", "none", "--socket", os.path.join(directory, "s"), "--swap-dir", directory, "--metrics", "none"]
        run(*common, "--arena", "60T", status=1, words="60")
        run(*common, "--arena", "32M", "--set", "access_group=no-such-group", status=1, words="no-such-group")
        run(*common, "--arena", "32M", "--set", "allow_users=root no-such-user", status=1, words="no-such-user")
        run(*common, "--arena", "32M", "--set", "share_groups=web=no-such-user", status=1, words="no-such-user")
        run(*common, "--arena", "32M", "--set", "share_groups=web=@no-such-group", status=1, words="no-such-group")
        run(*common, "--arena", "32M", "--socket", directory, status=1, words="cannot listen")
        run(*common, "--arena", "32M", "--socket", "/nonexistent/s", status=1, words="cannot listen")
        run(*common, "--arena", "32M", "--socket", os.path.join(directory, "x" * 120), status=1, words="cannot listen")
        check_eq(os.listdir(directory), [], "what was left behind")


def test_a_second_daemon_is_refused_the_socket():
    with Daemon(arena=32 << 20) as d:
        run("--config", "none", "--arena", "32M", "--socket", d.socket, "--swap-dir", d.swap_dir, "--metrics", "none",
            status=1, words="cannot listen")
        with Client(d.socket) as c:
            check("status" in c.call("Status"))


def test_an_old_socket_file_is_replaced():
    with tempfile.TemporaryDirectory() as directory:
        old = socket.socket(socket.AF_UNIX)
        old.bind(os.path.join(directory, "memctld.sock"))
        old.close()
        with Daemon(arena=32 << 20, directory=directory) as d, Client(d.socket) as c:
            check("status" in c.call("Status"))
            check_eq(os.stat(d.socket).st_mode & 0o777, 0o660, "mode of the socket")


def test_the_service_manager_is_told():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "notify")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(path)
        listener.settimeout(10)
        with Daemon(arena=32 << 20, env={"NOTIFY_SOCKET": path}) as d:
            check_eq(listener.recv(100), b"READY=1")
            d.stop()
            check_eq(listener.recv(100), b"STOPPING=1")
        abstract = "memctl-test-%d" % os.getpid()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind("\0" + abstract)
        listener.settimeout(10)
        with Daemon(arena=32 << 20, env={"NOTIFY_SOCKET": "@" + abstract}):
            check_eq(listener.recv(100), b"READY=1")


def test_interrupt_ends_it_too():
    with Daemon(arena=32 << 20) as d:
        d.process.send_signal(signal.SIGINT)
        check_eq(d.process.wait(10), 0, "status")
        d.process = None
        check(not os.path.exists(d.socket), "the socket stays behind")


if __name__ == "__main__":
    main(globals())
