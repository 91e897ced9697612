#!/usr/bin/env python3
"""`memctl metrics`: OpenMetrics by the letter, the same numbers as everywhere else, and the file for node_exporter."""
import os
import re
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import build_dir, wait_until  # noqa: E402
from service.openmetrics import Wrong, parse, parse_text  # noqa: E402
from system.puppet import PAGE, Puppet, daemon  # noqa: E402

UNREACHABLE, SYSTEM, USAGE = 69, 4, 16
# what a number may have become, by the end of its name and its unit in the catalogue
BASE = {"bytes": ("_bytes", "bytes", 1), "pages": ("(_pages|_frames)", "bytes", PAGE), "ns": ("_ns", "seconds", 1e-9),
        "percent": ("_pct", "ratio", 0.01), "permille": ("_permille", "ratio", 0.001), "count": ("", "", 1)}


def metrics(d):
    result = d.run_memctl("metrics")
    check_eq((result.returncode, result.stderr), (0, ""), "exit, stderr")
    return parse(result.stdout)


def family_of(number):
    ending, base, factor = BASE[number["unit"]]
    name = re.sub("%s$" % ending, "", number["name"]) if ending else number["name"]
    return "memctl_%s_%s%s" % (number["of"], name, "_" + base if base else ""), base, factor


def close(a, b):
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1)


def test_every_number_is_there_in_base_units():
    """Whatever the catalogue has, by the naming rules, and equal to vm list while nothing moves."""
    with daemon(32, settings=["SamplePeriod=0", "ShareScanTime=0"]) as d, Puppet(d, "web", 8, limit=4) as web, Puppet(d, "mail", 4) as mail:
        web.do("fill", 0, 0, web.pages, 1, "mix")
        mail.do("fill", 0, 0, 100, 1, "random")
        web.do("check", 0, 0, web.pages, 1, "mix")
        numbers = d.memctl("catalogue")["numbers"]

        def same():
            before, families, after = d.memctl("vm", "list")["vms"], metrics(d), d.memctl("vm", "list")["vms"]
            return before == after and families["memctl_host_vms"].value() == 2 and (before, families)
        vms, families = wait_until(same, 20, "a moment in which nothing moves")
        count = 0
        for n in numbers:
            if n["unit"] == "state":
                continue
            name, unit, factor = family_of(n)
            f = families[name]
            check_eq((f.type, f.unit or "", f.help), (n["kind"], unit, n["sentence"]), name)
            if n["of"] != "vm":
                check_eq(len(f.samples), 1, name)
                continue
            for vm in vms:
                value = f.value("_total" if n["kind"] == "counter" else "", vm=vm["name"])
                check(close(value, vm[n["name"]] * factor), "%s of %s: %r is not %r" % (name, vm["name"], value, vm[n["name"]]))
                count += 1
        check_eq(count, 2 * len([n for n in numbers if n["of"] == "vm"]), "values compared")
        check_eq(families["memctl_up"].value(), 1, "up")
        state = d.memctl("status")["status"]["state"]
        check_eq({l["memctl_host_state"]: v for _, l, v in families["memctl_host_state"].samples},
                 {s: float(s == state) for s in ("high", "clear", "soft", "hard", "low")}, "the host's state")
        check_eq({l["vm"]: l["memctl_vm_state"] for _, l, v in families["memctl_vm_state"].samples if v},
                 {"web": "running", "mail": "running"}, "states")
        check_eq({l["vm"] for _, l, _ in families["memctl_vm"].samples}, {"web", "mail"}, "infos")
        for vm in ("web", "mail"):
            faults = d.memctl("vm", "show", vm)["vm"]["faults"]
            f = families["memctl_vm_fault_duration_seconds"]
            check_eq({l["cause"]: v for s, l, v in f.samples if s == "_count" and l["vm"] == vm},
                     {c: x["count"] for c, x in faults.items() if x["count"]}, "faults of %s" % vm)
            for cause, x in faults.items():
                if x["count"]:
                    check(abs(f.value("_sum", vm=vm, cause=cause) / x["count"] - x["mean_ns"] / 1e9) < 1e-9, "mean of %s" % cause)
                    # the median lies in the bucket that says so
                    below = [(float(l["le"]), v) for s, l, v in f.samples if s == "_bucket" and l["vm"] == vm and l["cause"] == cause]
                    edge = next(e for e, v in below if v >= x["count"] / 2)
                    check(x["p50_ns"] / 1e9 <= edge, "%s: %r, %r" % (cause, x, below))
        # the names that everybody will have in their dashboards
        check({"memctl_vm_charged_bytes", "memctl_vm_faults_swapped", "memctl_vm_evicted_bytes", "memctl_vm_stall_seconds",
               "memctl_vm_active_fast_ratio", "memctl_host_free_bytes", "memctl_build", "memctl_events"} <= set(families), sorted(families))
        # under --json the same
        reply = d.memctl("metrics")
        check_eq(({f["name"] for f in reply["metrics"]}, reply["schema"]), (set(families), "memctl/1"), "families under --json")


def test_counters_only_grow():
    with daemon(24) as d, Puppet(d, "web", 16, limit=8) as web:
        web.do("fill", 0, 0, web.pages, 1, "mix")
        before = metrics(d)
        web.do("fill", 0, 0, web.pages, 2, "mix")
        d.memctl("tune", "zstd_level", "2")
        after = metrics(d)
        grown = 0
        for name, f in before.items():
            if f.type not in ("counter", "histogram"):
                continue
            for suffix, labels, value in f.samples:
                now = after[name].value(suffix, **labels)
                check(now >= value, "%s%s%s fell from %r to %r" % (name, suffix, labels, value, now))
                grown += now > value
        check(grown > 10, "%d counters have grown" % grown)


def test_label_values_are_escaped():
    strange = tempfile.mkdtemp(prefix="memctl-\"quoted\"-\\-")
    try:
        os.mkdir(strange + "/swap")
        d = daemon(16)
        d.swap_dir = strange + "/swap"
        with d, Puppet(d, "web", 4):
            info = metrics(d)["memctl_vm"].samples
            check_eq([l["swap_dir"] for _, l, _ in info], [strange + "/swap"], "the directory")
            d.memctl("metrics")
            d.run_memctl("metrics", "--textfile", d.dir + "/a.prom")
            with open(d.dir + "/a.prom") as f:
                samples, _ = parse_text(f.read())
            check_eq(samples["memctl_vm_info"][0][0]["swap_dir"], strange + "/swap", "the directory in the older format")
    finally:
        subprocess.run(["rm", "-rf", strange], check=True)


def test_the_textfile_is_replaced_as_a_whole():
    with daemon(16) as d, Puppet(d, "web", 4):
        path = d.dir + "/memctl.prom"
        for make in (lambda: os.symlink("/nonexistent", path), lambda: os.mkfifo(path)):
            make()
            result = d.run_memctl("metrics", "--textfile", path)
            check_eq(result.returncode, SYSTEM, "exit")
            check("no regular file" in result.stderr and not stat.S_ISREG(os.lstat(path).st_mode), "it is neither replaced nor followed")
            os.unlink(path)
        check_eq(d.run_memctl("metrics", "--textfile", path).returncode, 0, "exit")
        first = os.stat(path)
        check_eq(stat.S_IMODE(first.st_mode) & 0o444, 0o444, "others may read it")
        reader = open(path)
        families = metrics(d)
        check_eq(d.run_memctl("metrics", "--textfile", path).returncode, 0, "exit")
        check(os.stat(path).st_ino != first.st_ino, "it is a new file")
        text = reader.read()
        reader.close()
        check(text.endswith("\n"), "whoever had the old one open has all of it")
        samples, types = parse_text(text)
        check_eq(samples["memctl_up"], [({}, 1)], "up")
        # the same samples; names of families as the older format has them
        check_eq(set(samples), {f.name + s for f in families.values() for s, _, _ in f.samples}, "samples")
        check(all(t in ("gauge", "counter", "histogram") for t in types.values()), "types")
        check_eq(types["memctl_vm_evicted_bytes_total"], "counter", "the type of a counter")
        check("# EOF" not in text and "# UNIT" not in text, "what the older format has not")
        check_eq([n for n in os.listdir(d.dir) if n.startswith("memctl.prom")], ["memctl.prom"], "left over")
        # a directory that is not there, and a file system that takes nothing
        for bad in (d.dir + "/none/memctl.prom", "/proc/memctl.prom"):
            result = d.run_memctl("metrics", "--textfile", bad)
            check_eq(result.returncode, SYSTEM, bad)
            check(bad in result.stderr, result.stderr)
        check_eq(d.run_memctl("status", "--textfile", path).returncode, USAGE, "of another command")


def test_without_a_daemon_it_is_down():
    """Numbers of yesterday would say that all is well."""
    memctl = [os.path.join(build_dir(), "cli", "memctl"), "--socket", "/nonexistent/socket", "metrics"]
    result = subprocess.run(memctl, capture_output=True, text=True, check=False)
    check_eq(result.returncode, UNREACHABLE, "exit")
    families = parse(result.stdout)
    check_eq((set(families), families["memctl_up"].value()), ({"memctl_up"}, 0), "what it says")
    with tempfile.TemporaryDirectory(prefix="memctl-metrics-") as work:
        path = work + "/memctl.prom"
        with open(path, "w") as f:
            f.write("memctl_up 1\n")
        result = subprocess.run([*memctl, "--textfile", path], capture_output=True, text=True, check=False)
        check_eq(result.returncode, UNREACHABLE, "exit")
        with open(path) as f:
            check_eq(parse_text(f.read())[0], {"memctl_up": [({}, 0)]}, "the file")
        check_eq(os.listdir(work), ["memctl.prom"], "files")


GOOD = "# HELP a_seconds x\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{b=\"c\"} 1\n# EOF\n"


def test_the_reader_is_strict():
    """The twin of all the above: each of these mistakes would be seen."""
    parse(GOOD)
    for bad, why in (
            (GOOD[:-1], "no EOF"), (GOOD.replace("_total", ""), "a counter without _total"),
            (GOOD.replace("UNIT a_seconds seconds", "UNIT a_seconds bytes"), "another unit"),
            (GOOD.replace('"c"', 'c'), "no quotes"), (GOOD.replace('"c"', '"\\c"'), "an escape that is none"),
            (GOOD.replace(" 1\n", " 1\na_seconds_total{b=\"c\"} 2\n"), "a sample twice"),
            (GOOD.replace(" 1\n", " -1\n"), "a counter below 0"), (GOOD.replace("# HELP a_seconds x\n", ""), "no help"),
            (GOOD.replace("counter", "number"), "a type that is none"), (GOOD.replace(" 1\n", " one\n"), "a number that is none"),
            (GOOD.replace("# EOF", GOOD), "a family twice"), (GOOD.replace('{b="c"}', '{b="c",b="d"}'), "a label twice"),
            (GOOD.replace(" x\n", " \"x\"\n"), "quotes in help")):
        try:
            parse(bad)
        except Wrong:
            continue
        check(False, "not seen: %s" % why)


if __name__ == "__main__":
    main(globals())
