"""tests/fuzz/run."""
import argparse
import sys

from target import Found, afl, libfuzzer, targets


def main():
    parser = argparse.ArgumentParser(prog="tests/fuzz/run")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--afl", action="store_true")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(targets()))
    if unknown:
        parser.error("no target %s; there are: %s" % (unknown[0], " ".join(targets())))
    failed = False
    for name in options.names or targets():
        try:
            print("%s: %d inputs" % (name, (afl if options.afl else libfuzzer)(options.build, name, options.seconds)), flush=True)
        except Found as e:
            print("%s: %s" % (name, e), flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
