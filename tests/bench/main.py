"""tests/bench/run NAME [--json] [--rounds N] [--set SETTING=VALUE]... [--only WORD]... [--against FILE]

Benchmarks: fault, reclaim, share, overhead, guests, restart, policy, refault, fleet, scale; sweep (zstd levels); all of them but
sweep.  See README.md beside this file.  JSON goes to stdout, everything else to stderr.  Exit status: 0 measured, even if
a target is missed; 1 a byte was
wrong; 2 it could not be measured; 16 usage.
"""
import argparse
import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True

import bench  # noqa: E402
import fault  # noqa: E402
import fleet  # noqa: E402
import guests  # noqa: E402
import lib.daemon  # noqa: E402
import overhead  # noqa: E402
import policy  # noqa: E402
import reclaim  # noqa: E402
import refault  # noqa: E402
import restart  # noqa: E402
import scale  # noqa: E402
import share  # noqa: E402
from host import Host, log  # noqa: E402

BENCHMARKS = {"fault": fault.measure, "reclaim": reclaim.measure, "share": share.measure,
              "overhead": overhead.measure, "guests": guests.measure, "restart": restart.measure,
              "policy": policy.measure, "refault": refault.measure, "fleet": fleet.measure, "scale": scale.measure, "sweep": reclaim.sweep}


def everything(setting, results):
    """All that have targets, one after the other; what cannot be measured is left out, and said."""
    for name, measure in BENCHMARKS.items():
        if name in ("sweep", "all"):
            continue
        part = bench.Results(name)
        log(f"---- {name}")
        try:
            with setting.host.part():
                measure(setting, part)
        except (RuntimeError, lib.daemon.Failed, OSError, subprocess.CalledProcessError) as e:
            log(f"{name} could not be measured: {e}")
            for row in part.rows:
                part.absent(row, str(e))
        results.take(part)


BENCHMARKS["all"] = everything


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(16, f"{self.prog}: {message}\n")


def main():
    parser = Parser(prog="tests/bench/run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    parser.add_argument("--rounds", type=int, default=bench.ROUNDS, help=f"default {bench.ROUNDS}")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="a setting of memctld")
    parser.add_argument("--only", action="append", default=[], metavar="WORD",
                        help="a part of a benchmark; fleet: patterns, overcommits, systems")
    parser.add_argument("--against", metavar="FILE", help="earlier results, as --json printed them: who has fallen behind?")
    arguments = parser.parse_args()
    if os.geteuid():
        parser.error("needs root: it pins threads and, for reclaim, sets up swap and cgroups")
    if any("=" not in s for s in arguments.set) or arguments.rounds < 1:
        parser.error("--set takes SETTING=VALUE, --rounds a number above 0")
    results = bench.Results(arguments.name)
    if arguments.against:
        try:
            with open(arguments.against) as f:
                results.compare(json.load(f))
        except (OSError, ValueError, KeyError) as e:
            parser.error(f"--against {arguments.against}: {e}")
    try:
        bench.build()
        with bench.alone():
            with Host() as host:
                host.quiet()
                BENCHMARKS[arguments.name](bench.Setting(host, arguments), results)
    except bench.Wrong as e:
        log(f"WRONG: {e}")
        return 1
    except (RuntimeError, lib.daemon.Failed, OSError, subprocess.CalledProcessError) as e:
        log(f"{arguments.name} could not be measured: {e}")
        return 2
    results.show()
    if arguments.json:
        json.dump(results.as_json(), sys.stdout, indent=1)
        print()
    return 2 if results.empty() else 0


if __name__ == "__main__":
    sys.exit(main())
