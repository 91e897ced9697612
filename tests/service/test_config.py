#!/usr/bin/env python3
"""The configuration: what is wrong with a file, where a value comes from, what a reload does and leaves, what is persisted."""
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main, skip  # noqa: E402
from lib.daemon import build_dir, wait_until  # noqa: E402
from system.puppet import Puppet  # noqa: E402
from system.supervised import SupervisedDaemon  # noqa: E402
from service.configured import MEMCTLD, Files, daemon, memctl_as, needs_users, settings  # noqa: E402

OK, SYSTEM, PERMISSION, USAGE = 0, 4, 5, 16
SETTINGS = 3


def exits(result, code, *words):
    check_eq(result.returncode, code, "exit of %s: %s" % (" ".join(map(str, result.args[1:])), result.stderr.strip()))
    for w in words:
        check(w in result.stderr, "%r is not in %r" % (w, result.stderr.strip()))
    return result


def test_mistakes_are_found_with_file_and_line():
    rows = [
        ("memctld.conf.d/10-a.conf", "[memctld]\narena = 64M\ncolour = red\n", ":3: there is no setting \"colour\""),
        ("memctld.conf.d/10-a.conf", "[memctld]\nsocket_ro = here\n", ":2: socket_ro: wants an absolute path"),
        ("memctld.conf.d/10-a.conf", "[memctld]\nsocket_ro = /run/memctl/memctld.sock\n", ":2: socket_ro is the path of socket"),
        ("memctld.conf.d/10-a.conf", "[memctld]\n\nallow_users = root no-such-user\n", ":3: allow_users: there is no user \"no-such-user\""),
        ("memctld.conf.d/10-a.conf", "[memctld]\nread_users = @no-such-group\n", ":2: read_users: there is no group \"no-such-group\""),
        ("memctld.conf.d/10-a.conf", "[memctld]\noperate_users = -1\n", ":2: operate_users: there is no user \"-1\""),
        ("memctld.conf.d/10-a.conf", "[memctld]\naccess_group = no-such-group\n", ":2: access_group: there is no group \"no-such-group\""),
        ("memctld.conf.d/10-a.conf", "[memctld]\nshare_groups = web\n", ":2: share_groups: wants NAME="),
        ("vms.d/web.conf", "[vm]\nreservation = 1G\nsize = 2G\n", ":3: nothing of a VM is called \"size\"; there are: reservation, limit, "),
        ("vms.d/web.conf", "[memctld]\nreservation = 1G\n", ":2: what is decided for a VM stands in section [vm]"),
        ("vms.d/web.conf", "reservation = 1G\n", ":1: what is decided for a VM stands in section [vm]"),
        ("vms.d/web.conf", "[vm]\nlimit = 1G\nlimit = 2G\n", ":3: limit is given twice"),
        ("vms.d/web.conf", "[vm]\nnonsense\n", ":2: neither"),
        ("vms.d/web.conf", "[vm]\nreservation = much\n", ":2: reservation is a size"),
        ("vms.d/web.conf", "[vm]\nreservation = 4097\n", ":2: reservation must be a multiple of 4096"),
        ("vms.d/web.conf", "[vm]\nreservation =\n", ":2: reservation: a value is missing"),
        ("vms.d/web.conf", "[vm]\nreservation = 2G\nlimit = 1G\n", ":3: the limit is below the reservation"),
        ("vms.d/web.conf", "[vm]\nlimit = 0\n", ":2: limit is a size"),
        ("vms.d/web.conf", "[vm]\nshares = -1\n", ":2: shares is"),
        ("vms.d/web.conf", "[vm]\nballoon_max = 101%\n", ":2: balloon_max is"),
        ("vms.d/web.conf", "[vm]\nstall_budget = 5\n", ":2: stall_budget is"),
        ("vms.d/web.conf", "[vm]\nsharing = group:\n", ":2: sharing is"),
        ("vms.d/web.conf", "[vm]\nsharing = group:db\n", ":2: sharing: share_groups has no group \"db\""),
        ("vms.d/web.conf", "[vm]\nswap_dir = swap\n", ":2: swap_dir: wants an absolute path"),
        ("vms.d/web.conf", "[vm]\nuser = no-such-user\n", ":2: user: there is no user \"no-such-user\""),
        ("vms.d/-web.conf", "[vm]\n", "\"-web\" is no name of a VM"),
    ]
    for name, text, words in rows:
        with Files() as f:
            path = f.write(name, text)
            exits(f.check_config(), SETTINGS, path, words)


def test_a_start_is_refused_alike():
    """3 for what is wrong for good; 1 for names, which a directory of users may know at the next start."""
    for line, status in (("reservation = much", 3), ("user = no-such-user", 1)):
        with Files() as f:
            path = f.vm("web", line)
            result = subprocess.run([MEMCTLD, "--config", f.path, "--arena", "32M", "--socket", f.dir + "/s", "--swap-dir", f.dir, "--metrics",
                                     "none"], capture_output=True, text=True, timeout=20, check=False)
            exits(result, status, path + ":2")
            check(not os.path.exists(f.dir + "/s"), "it has listened")


def test_what_is_right_is_accepted():
    with Files() as f:
        f.settings("share_groups = db=*")
        f.vm("web", "reservation = 1G", "limit = 2G", "shares = high", "balloon_max = 40%", "stall_budget = 2.5%", "sharing = group:db",
             "swap_dir = /srv/swap", "user = root @0 1000")
        f.vm("empty")
        f.write("vms.d/README", "nonsense")
        f.write("vms.d/.hidden.conf", "nonsense")
        exits(f.check_config(), OK)


def test_the_sample_is_the_table():
    """The packaged configuration, with every line taken out of its comment, is the defaults."""
    with Files() as f, open(os.path.join(build_dir(), "packaging", "memctld.conf"), encoding="utf-8") as sample:
        defaults = exits(f.check_config(), OK).stdout
        text = re.sub(r"^#(\w+ = \S)", r"\1", sample.read(), flags=re.M)
        check(text.count("\narena = 1G\n") == 1, "the sample has no line for arena")
        f.write("memctld.conf", text)
        check_eq(exits(f.check_config(), OK).stdout, defaults, "the sample")


def test_where_a_value_comes_from():
    with Files() as f:
        f.settings("zstd_level = 2", "IdleTax = 50", "victim = random")
        f.write("memctld.conf.d/10-a.conf", "[memctld]\n\nIdleTax = 60\n")
        with daemon(f) as d:
            d.memctl("tune", "victim", "fill-order")
            now = settings(d)
            for name, value, where in (("zstd_level", "2", f.path + ":2"), ("IdleTax", "60", f.path + ".d/10-a.conf:3"),
                                       ("victim", "fill-order", "tune"), ("socket_mode", "0666", "command line"),
                                       ("fault_around", "64", "default")):
                check_eq([now[name]["value"], now[name]["where"]], [value, where], name)
            check_eq([now["victim"]["next"], now["victim"]["next_where"]], ["random", f.path + ":4"], "what a reload would bring")
            check("next" not in now["IdleTax"], "nothing else is written")
            changed = {n for n, s in now.items() if s["changed"]}
            check({"zstd_level", "IdleTax", "victim", "arena"} <= changed and not {"fault_around", "max_vms"} & changed, changed)
            lines = d.run_memctl("config", "show", "--changed").stdout.splitlines()
            check_eq(lines[0].split(), ["SETTING", "VALUE", "DEFAULT", "WHERE", "LIVE", "NEXT", "NEXTWHERE"], "columns")
            check_eq({line.split()[0] for line in lines[1:]}, changed, "rows")
            effective = d.run_memctl("config", "show", "--effective", "--raw", "--noheadings", "-o", "SETTING,WHERE").stdout
            check("fault_around default\n" in effective and "IdleTax %s.d/10-a.conf:3\n" % f.path in effective, effective)
            exits(d.run_memctl("status", "--effective"), USAGE, "config show")


def test_a_reload_changes_what_is_live():
    with Files() as f:
        f.settings("zstd_level = 1", "arena = 32M")
        with daemon(f) as d:
            d.memctl("tune", "IdleTax", "10")
            f.settings("zstd_level = 3", "max_sessions_per_user = 77", "metrics = /var/lib/other.db")
            text = exits(d.run_memctl("daemon", "reload"), OK).stdout
            for line in ("zstd_level = 3 (it was 1)", "IdleTax = 75 (it was 10)", "max_sessions_per_user waits for a restart"):
                check(line in text.splitlines(), text)
            now = settings(d)
            check_eq([now["zstd_level"]["value"], now["zstd_level"]["where"]], ["3", f.path + ":2"], "a live one")
            check_eq([now["IdleTax"]["value"], now["IdleTax"]["where"]], ["75", "default"], "what was tuned")
            waiting = now["max_sessions_per_user"]
            check_eq([waiting["value"], waiting["where"], waiting["next"], waiting["next_where"]], ["512", "default", "77", f.path + ":3"],
                     "one that is not live")
            # the command line says the same of metrics as before, and comes last
            files = d.memctl("config", "show")["files"]
            check_eq([files["restart"], files["error"]], [["max_sessions_per_user"], ""], "what waits")
            check(any("wait for a restart: max_sessions_per_user" in w for w in d.memctl("status")["status"]["warnings"]), "a warning")
            check("waiting for a restart: max_sessions_per_user" in d.run_memctl("config", "show", "--effective").stdout, "a remark")
            f.settings("zstd_level = 3")
            check_eq(d.memctl("daemon", "reload")["reload"], {"changed": [], "restart": [], "vms": 0}, "taken back")
            check_eq(d.run_memctl("daemon", "reload").stdout, "nothing has changed\n", "nothing")
            check_eq(d.memctl("status")["status"]["warnings"], [], "warnings")


def test_a_wrong_file_changes_nothing():
    with Files() as f:
        f.settings("zstd_level = 1", "allow_users = root")
        with daemon(f) as d:
            def before():
                return [(s["name"], s["value"], s["where"], s.get("next")) for s in settings(d).values()]

            was = before()
            wrong = [("memctld.conf", "[memctld]\nzstd_level = 5\nallow_users = root\ncolour = red\n", ":4: there is no setting"),
                     ("memctld.conf", "[memctld]\nzstd_level = 5\nallow_users = no-such-user\n", ":3: allow_users: there is no user"),
                     ("memctld.conf", "[memctld]\nzstd_level = 5\naccess_group = no-such-group\n", ":3: access_group: there is no group"),
                     ("memctld.conf", "[memctld]\nzstd_level = 5\nshare_groups = x\n", ":3: share_groups"),
                     ("memctld.conf.d/x.conf", "[memctld]\nzstd_level = 5\nvictim = best\n", ":3: victim"),
                     ("vms.d/web.conf", "[vm]\nshares = most\n", ":2: shares is"),
                     ("vms.d/web.conf", "[vm]\nuser = no-such-user\n", ":2: user: there is no user")]
            for name, text, words in wrong:
                good = f.read("memctld.conf")
                path = f.write(name, text)
                exits(d.run_memctl("daemon", "reload"), USAGE, path, words, "the settings are as they were")
                d.process.send_signal(signal.SIGHUP)
                wait_until(lambda path=path: d.log().count(path) >= 2, what="the second line in the log")
                check_eq(before(), was, "after %s" % words)
                warnings = d.memctl("status")["status"]["warnings"]
                check(any(path in w and words in w for w in warnings), "warnings: %s" % warnings)
                check("warning: The settings could not be read again" in d.run_memctl("status").stdout, "for people")
                check(words in d.run_memctl("config", "show", "--changed").stdout, "a remark")
                f.remove(name)
                f.write("memctld.conf", good)
                exits(d.run_memctl("daemon", "reload"), OK)
                check_eq(d.memctl("status")["status"]["warnings"], [], "after a good one")
                os.truncate(d.log_path, 0)


def test_signals_and_calls_come_in_their_order():
    """Many at once: what is read last holds, and each caller is answered."""
    with Files() as f, daemon(f) as d:
        for level in range(1, 9):
            f.settings("zstd_level = %d" % level)
            d.process.send_signal(signal.SIGHUP)
            check_eq(d.run_memctl("daemon", "reload").returncode, OK, "reload %d" % level)
            check_eq(settings(d)["zstd_level"]["value"], str(level), "reload %d" % level)
        callers = [subprocess.Popen([os.path.join(build_dir(), "cli", "memctl"), "--socket", d.socket, "daemon", "reload"],
                                    stdout=subprocess.DEVNULL) for _ in range(8)]
        check_eq([c.wait(20) for c in callers], [0] * 8, "callers")


def test_the_service_manager_knows():
    with tempfile.TemporaryDirectory() as directory, Files() as f:
        path = os.path.join(directory, "notify")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(path)
        listener.settimeout(10)
        with daemon(f, env={"NOTIFY_SOCKET": path}) as d:
            check_eq(listener.recv(200), b"READY=1")
            for text, code in (("[memctld]\nzstd_level = 2\n", OK), ("nonsense\n", USAGE)):
                f.write("memctld.conf", text)
                check_eq(d.run_memctl("daemon", "reload").returncode, code, "reload")
                check(listener.recv(200).startswith(b"RELOADING=1\nMONOTONIC_USEC="), "it reloads")
                check_eq(listener.recv(200), b"READY=1", "it is ready, whatever came out")


def test_a_tuned_value_can_be_kept():
    with Files() as f:
        with daemon(f) as d:
            check_eq(d.run_memctl("tune", "zstd_level", "4", "--persist").stdout, "", "silence of success")
            now = settings(d)["zstd_level"]
            check_eq([now["value"], now["where"]], ["4", f.tune_path + ":3"], "in force")
            check("next" not in now, "and written")
            check_eq(os.stat(f.tune_path).st_mode & 0o777, 0o644, "mode")
            # by hand
            f.write("memctld.conf.d/90-tune.conf", "# mine\n[memctld]\nIdleTax = 20\n\nzstd_level=4\n# the end\n")
            reply = d.memctl("tune", "zstd_level", "5", "--persist")
            check_eq([reply["live"], reply["path"], reply["line"]], [True, f.tune_path, 5], "reply")
            check_eq(f.read("memctld.conf.d/90-tune.conf"), "# mine\n[memctld]\nIdleTax = 20\n\nzstd_level = 5\n# the end\n", "the file")
            text = d.run_memctl("tune", "max_sessions_per_user", "99", "--persist").stdout
            check("acts from memctld's next start on" in text and f.tune_path in text, text)
            now = settings(d)
            check_eq([now["max_sessions_per_user"]["value"], now["max_sessions_per_user"]["next"]], ["512", "99"], "waits")
            check_eq(now["IdleTax"]["value"], "75", "what was written by hand waits for a reload")
            d.memctl("tune", "allow_users", "root 1000", "--persist")
            check_eq(os.listdir(f.path + ".d"), ["90-tune.conf"], "nothing else is left there")
            check_eq(d.memctl("daemon", "reload")["reload"], {"changed": [{"name": "IdleTax", "value": "20", "was": "75"}],
                                                              "restart": ["max_sessions_per_user"], "vms": 0}, "a reload agrees")
        with daemon(f) as d:
            now = settings(d)
            check_eq([now[n]["value"] for n in ("zstd_level", "max_sessions_per_user", "allow_users", "IdleTax")],
                     ["5", "99", "root 1000", "20"], "after a restart")


def test_what_cannot_be_kept_changes_nothing():
    needs_users()
    with Files() as f:
        f.settings("operate_users = 65534")
        f.write("memctld.conf.d/95-mine.conf", "[memctld]\nIdleTax = 50\n")
        f.write("memctld.conf.d/50-theirs.conf", "[memctld]\nIdleTaxType = 0\n")
        with daemon(f) as d:
            def refused(code, *words, setting, value, by=None):
                before = f.tree(), settings(d)
                line = ["tune", setting, value, "--persist"]
                exits(by(*line) if by else d.run_memctl(*line), code, *words)
                check_eq((f.tree(), settings(d)), before, "after %s = %s" % (setting, value))

            refused(SYSTEM, "95-mine.conf:2", "change it there", setting="IdleTax", value="10")
            refused(SYSTEM, "command line", setting="arena", value="1G")
            refused(USAGE, "zstd_level: wants", setting="zstd_level", value="much")
            refused(USAGE, "there is no user", setting="allow_users", value="no-such-user")
            refused(USAGE, "there is no group", setting="access_group", value="no-such-group")
            refused(USAGE, "cannot stand in a file", setting="share_groups", value="a=* ;b=*")
            refused(USAGE, "control characters", setting="share_groups", value="a=*\n[memctld]\narena=1G")
            refused(USAGE, "no setting", setting="colour", value="red")
            refused(PERMISSION, f.tune_path, "nothing has changed", setting="zstd_level", value="4",
                    by=lambda *line: memctl_as(65534, d.socket, *line))
            exits(d.run_memctl("tune", "zstd_level", "--persist"), USAGE, "its value")
            exits(d.run_memctl("status", "--persist"), USAGE, "belongs to: tune")
            d.memctl("tune", "IdleTaxType", "1", "--persist")
            check_eq(settings(d)["IdleTaxType"]["where"], f.tune_path + ":3", "an earlier file does not matter")
        with daemon(f) as d:
            d.stop()
            d.args[d.args.index("--config") + 1] = "none"
            d.start()
            exits(d.run_memctl("tune", "zstd_level", "4", "--persist"), SYSTEM, "without a configuration file")


def test_a_directory_that_cannot_be_written():
    """Also for root, on a file system that is read-only."""
    with Files() as f:
        os.mkdir(f.path + ".d")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=755", "tmpfs", f.path + ".d"], check=False, stderr=subprocess.DEVNULL).returncode:
            skip("no file system can be mounted")
        try:
            with daemon(f) as d:
                exits(d.run_memctl("tune", "zstd_level", "4", "--persist"), SYSTEM, "Read-only file system", "nothing has changed")
                check_eq([settings(d)["zstd_level"][k] for k in ("value", "where")], ["1", "default"], "zstd_level")
        finally:
            subprocess.run(["umount", f.path + ".d"], check=True)


def test_an_upgrade_to_wrong_settings_is_refused():
    """The memctld that runs goes on, with its guests."""
    with Files() as f, daemon(f, kind=SupervisedDaemon, more=(10,)) as d, Puppet(d, "a", 16) as p:
        p.do("fill", 0, 0, 64, 1, "mix")
        before = d.child()
        f.write("memctld.conf.d/99-bad.conf", "[memctld]\nIdleTax = 200\n")
        exits(d.run_memctl("daemon", "upgrade"), USAGE, "99-bad.conf:2", "nothing was done")
        check_eq(d.child(), before, "the process")
        f.remove("memctld.conf.d/99-bad.conf")
        f.vm("a", "shares = max")
        exits(d.run_memctl("daemon", "upgrade"), USAGE, "vms.d/a.conf:2", "nothing was done")
        check_eq(d.child(), before, "the process")
        f.vm("a", "shares = low")
        exits(d.run_memctl("daemon", "upgrade"), 0)
        check(d.child() != before, "it is the same process")
        p.check(0, 64, 1, "mix")


def test_root_does_not_write_where_others_could_have_been():
    """memctld names the file, and may be in the hands of somebody who may do less."""
    needs_users()
    with Files() as f, daemon(f) as d:
        def refused(code, *words):
            exits(d.run_memctl("tune", "zstd_level", "4", "--persist"), code, *words)
            check_eq(settings(d)["zstd_level"]["value"], "1", "nothing has changed")

        os.mkdir(f.path + ".d")
        os.chmod(f.path + ".d", 0o775)
        refused(PERMISSION, "others may write there")
        os.chmod(f.path + ".d", 0o755)
        os.chown(f.path + ".d", 65534, 0)
        refused(PERMISSION, "does not belong to root")
        os.chown(f.path + ".d", 0, 0)
        secret = f.write("secret", "for root only\n")
        os.chmod(secret, 0o600)
        os.symlink(secret, f.tune_path)
        refused(SYSTEM, "symbolic links")
        check_eq([f.read("secret"), os.stat(secret).st_mode & 0o777], ["for root only\n", 0o600], "what the link leads to")
        os.unlink(f.tune_path)
        with open(f.tune_path, "w", encoding="utf-8") as tune:
            tune.write("[memctld]\n")
        os.chmod(f.tune_path, 0o640)
        os.chown(f.tune_path, 0, 65534)
        d.memctl("tune", "zstd_level", "4", "--persist")
        st = os.stat(f.tune_path)
        check_eq([st.st_mode & 0o777, st.st_uid, st.st_gid], [0o640, 0, 65534], "it stays whose it is")
        os.rename(f.path + ".d", f.path + ".x")
        os.symlink(f.path + ".x", f.path + ".d")
        exits(d.run_memctl("tune", "zstd_level", "5", "--persist"), SYSTEM, "nothing has changed")


if __name__ == "__main__":
    main(globals())
