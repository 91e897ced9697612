"""The policy in a running daemon: who is admitted, who gives memory, why, and who is spared.  What a plan says for given
numbers is told by tests/unit and tests/sim; here the numbers are a daemon's own."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import wait_until  # noqa: E402
from system.puppet import MIB, PAGE, SLOW, Puppet, Refused, arena, calm, daemon  # noqa: E402

# all memory counts as in use, without waiting for a sample
BUSY = ["SamplePeriod=0", "BalancePeriod=1"]


def told(d, vm, what):
    """What `memctl explain` says of the VM's last actions: their causes, or techniques."""
    return {a[what] for a in d.memctl("explain", vm)["explanation"]["actions"]}


def test_admission_says_how_much():
    """A refusal says what there is; so much is admitted, and a page more is not."""
    with daemon(64) as d, Puppet(d, "first", 48, reservation=32, lease=0):
        def ask(name, reservation):
            with Puppet(d, name, 80, reservation=reservation / MIB, lease=0):
                return None

        def refusal(reservation):
            try:
                ask("second", reservation)
            except Refused as e:
                return e
            raise AssertionError("a reservation of %d bytes was granted" % reservation)

        e = refusal(40 * MIB)
        check_eq(e.errno, 12, "errno of %s" % e)
        check("second" not in [vm["name"] for vm in d.memctl("vm", "list")["vms"]], "nothing is left of it")
        fits, refused = 0, 40 * MIB // PAGE
        while refused - fits > 1:
            half = (fits + refused) // 2
            try:
                ask("second", half * PAGE)
                fits = half
            except Refused:
                refused = half
        held = fits * PAGE
        check(16 * MIB < held < 32 * MIB, "%d of the 32 MiB that are not promised can be had" % held)
        with Puppet(d, "second", 80, reservation=held / MIB, lease=0):
            refusal(PAGE)
        d.audit()


def test_causes_apart():
    """What a VM's own limit takes and what a short host takes are counted, and told, apart."""
    with daemon(32, settings=BUSY) as d, Puppet(d, "limited", 12, limit=6) as a:
        a.do("fill", 0, 0, a.pages, 1, "mix", seconds=90)
        calm(d)
        n = a.numbers()
        check(n["reclaim_limit_pages"] > 0, "its own limit took pages")
        check_eq(n["reclaim_host_pages"], 0, "pages taken for the host, which has plenty")
        check_eq(told(d, "limited", "cause"), {"limit"}, "causes that are told")
        with Puppet(d, "free", 32) as b:
            b.do("fill", 0, 0, b.pages, 2, "mix", seconds=90)
            calm(d)
            n = b.numbers()
            check(n["reclaim_host_pages"] > 0, "the host took pages")
            check_eq(n["reclaim_limit_pages"], 0, "pages taken for a limit that it has not")
            check_eq(told(d, "free", "cause"), {"host"}, "causes that are told")
            check_eq(n["reclaim_host_pages"], n["evicted_pages"], "pages with that cause, of those that were evicted")
            b.check(0, b.pages, 2, "mix")
        a.check(0, a.pages, 1, "mix")
        d.audit()


@contextlib.contextmanager
def two_at_work(d, mib, shares):
    """Two VMs that write all of their memory, round and round."""
    with Puppet(d, "a", mib) as a, Puppet(d, "b", mib) as b:
        hammers = []
        for p, weight in zip((a, b), shares):
            d.memctl("vm", "set", p.vm, "--shares", str(weight))
            hammers.append(p.do("hammer", 0, 0, p.pages)[0])
        yield a, b
        for p, hammer in zip((a, b), hammers):
            check_eq(p.do("rest", hammer)[0], "0", "words of %s that were lost" % p.vm)


def test_targets_converge():
    """What two busy VMs hold goes to the ratio of their shares, and turns round when these do."""
    with daemon(32, settings=BUSY) as d, two_at_work(d, 24, (2000, 1000)) as (a, b):
        def ratio(key):
            return a.numbers()[key] / max(1, b.numbers()[key])

        wait_until(lambda: 1.7 < ratio("charged_bytes") < 2.3, 30, "two to one")
        d.memctl("vm", "set", "a", "--shares", "1000")
        d.memctl("vm", "set", "b", "--shares", "2000")
        wait_until(lambda: 1.7 < 1 / ratio("charged_bytes") < 2.3, 30, "one to two")
        wait_until(lambda: arena(d)["free_bytes"] < 4 * MIB and a.numbers()["target_bytes"] < 20 * MIB, 10,
                   "a target below its size")
        # who turns over all that he holds is seen to use more than that, though nobody looks for a quarter of a minute
        d.memctl("tune", "SamplePeriod", "60")
        wait_until(lambda: all(p.numbers()["active_next_pct"] > 85 for p in (a, b)), 12, "all in use")
        d.audit()


def test_spared():
    """A VM whose guest waits more than its stall budget allows is spared while another can give, and only then."""
    with daemon(32, settings=BUSY) as d, two_at_work(d, 24, (1000, 1000)) as (a, b):
        def more():
            return a.numbers()["charged_bytes"] / max(1, b.numbers()["charged_bytes"])

        wait_until(lambda: 0.8 < more() < 1.25, 30, "as much for both")
        d.memctl("vm", "set", "a", "--stall-budget", "1%")
        wait_until(lambda: more() > 1.7, 30, "more for the one that is spared")
        # both stall, both have a budget: nobody is spared, or nobody would give
        d.memctl("vm", "set", "b", "--stall-budget", "1%")
        wait_until(lambda: more() < 1.4, 30, "as much for both again")
        d.audit()


def test_balloon_first():
    """Memory that a guest can do without is asked of its balloon, and given back; nothing is evicted for as long as it gives."""
    with daemon(48, settings=[*BUSY, "fault_around=1"]) as d, Puppet(d, "gives", 24, sharing="off") as a:
        a.do("balloon_start")
        a.do("fill", 0, 0, a.pages, 1, "random")
        d.memctl("vm", "set", "gives", "--shares", "1")
        has = 0

        def serve():
            """The driver: free are the pages from 2048 on."""
            nonlocal has
            target = int(a.do("balloon_target")[0]) // PAGE
            if target > has:
                check(target <= a.pages - 2048, "it is asked for %d pages" % target)
                check_eq(a.do("inflate", 0, 2048 + has, target - has), [str(target - has)], "pages taken, pages refused")
            elif target < has:
                a.do("deflate", 0, 2048 + target, has - target)
            has = target

        with Puppet(d, "grows", 32, sharing="off") as b:
            soft = arena(d)["min_free_bytes"] * 64 // 100

            def relaxed():
                serve()
                return arena(d)["free_bytes"] >= soft

            b.do("fill", 0, 0, 4608, 2, "random")	# for which there is room
            for first in range(4608, b.pages - 512, 128):
                b.do("fill", 0, first, 128, 2, "random")
                wait_until(relaxed, 10, "memory from the balloon")
            check(has > 1024, "%d pages are in the balloon" % has)
            check_eq([p.numbers()["evicted_pages"] for p in (a, b)], [0, 0], "pages evicted of both")
            check_eq((told(d, "gives", "technique"), told(d, "gives", "cause")), ({"balloon"}, {"host"}), "what is told")
            b.check(0, b.pages - 512, 2, "random")

        def given_back():
            serve()
            return has == 0

        wait_until(given_back, 15, "a balloon that is let down")
        a.check(0, 2048, 1, "random")
        d.audit()


for function in [f for n, f in globals().items() if n.startswith("test_")]:
    function.seconds = 90 * int(SLOW)

if __name__ == "__main__":
    main(globals())
