"""Many VMs on one host: is what a VM costs the same, however many there are?

	vms_256_start	from connecting to the first pages written, for each VM: 256 VMs with 128 MiB of lease each, of which
			256 KiB are written to, against the first 16 of them
	vms_256_memory	what memctld needs for a VM beside its guest's pages: heap, maps, page tables, states
	vms_256_tick	CPU time of memctld a second for a VM that does nothing: policy, sampling, history
	vms_256		the worst of these three ratios
	faults_16	pages a second that 16 threads touch first, each in a VM of its own, against one thread a core
	faults_16_one	the same, all of them in one VM
	vms_10k_start, vms_10k_memory, vms_10k_tick
			10,000 VMs that are registered, and have leased nothing yet, against the first 1,000 of them; fewer, and
			how many is said, where the hard limit of open files does not allow so many

What an empty memctld needs is taken off.  A process is the client of up to 500 VMs, with a connection and a helper thread for
each that has a lease (crowd.c): what is measured is the daemon.  All pages that were written are compared.
"""
import os
import resource
import time

from bench import MIB, PAGE, Daemon, Worker, program, repeat
from host import cpu_seconds, log, meminfo, status_bytes

FEW, MANY = 16, 256
LEASE_MIB = 128
TOUCHED = 64
REST_S = 1
WATCH_S = 8
ARENA_MIB = 2048
THREADS, THREAD_PAGES = 16, 2048
REGISTERED_FEW, REGISTERED = 1000, 10000
PER_PROCESS = 500
MOST = 20000


class Crowd:
    """The VMs of one daemon, and what that needs; so many to a process."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.workers, self.vms, self.seconds = [], 0, 0
        self.empty = self._needs()

    def _needs(self):
        """(bytes, CPU seconds a second) at rest"""
        time.sleep(REST_S)
        pid = self.daemon.pid
        shared = meminfo("Shmem")
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(WATCH_S)
        tick = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        return status_bytes(pid, "RssAnon") + status_bytes(pid, "VmPTE") + shared, tick

    def add(self, n, mib, touched):
        for first in range(0, n, PER_PROCESS):
            worker = Worker(program("bench-crowd"), self.daemon.socket, f"c{len(self.workers)}")
            self.workers.append(worker)
            now = min(PER_PROCESS, n - first)
            self.seconds += worker.do("vms", now, mib, touched)["seconds"]
            self.vms += now

    def fault(self, threads):
        return self.workers[0].do("fault", threads, THREAD_PAGES)

    def files(self):
        """Descriptors that memctld has open."""
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def check(self):
        for worker in self.workers:
            worker.checked("verify")
        self.daemon.audit()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        for worker in self.workers:
            worker.end()

    def each(self, touched):
        """(ms of start, KiB, us of CPU a second) for each VM"""
        memory, tick = (now - empty for now, empty in zip(self._needs(), self.empty))
        costs = (self.seconds / self.vms * 1e3, (memory / self.vms - touched * PAGE) / 1024, tick / self.vms * 1e6)
        log(f"{self.vms} VMs, each: start {costs[0]:.2f} ms, {costs[1]:.1f} KiB, {costs[2]:.1f} us of CPU a second")
        return costs


def costs(s, few, many, mib, touched):
    with Daemon(s, ARENA_MIB, max_vms=MOST, max_vms_per_user=MOST) as daemon, Crowd(daemon) as crowd:
        crowd.add(few, mib, touched)
        of_few = crowd.each(touched)
        crowd.add(possible(crowd, many) - few, mib, touched)
        of_many = crowd.each(touched)
        crowd.check()
    return crowd.vms, list(zip(of_many, of_few))


def possible(crowd, many):
    """As many as memctld may have descriptors for."""
    each = crowd.files() / crowd.vms
    most = int(resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 0.95 / each)
    if most < many:
        log(f"{each:.1f} descriptors a VM, and {resource.getrlimit(resource.RLIMIT_NOFILE)[1]} allowed: {most} VMs instead of {many}")
    return min(many, most)


def faults(s, vms, threads):
    """Pages a second."""
    with Daemon(s, ARENA_MIB, fault_around="1") as daemon, Crowd(daemon) as crowd:
        crowd.add(vms, LEASE_MIB * max(1, threads // vms), 0)
        answer = crowd.fault(threads)
        crowd.check()
    rate = threads * THREAD_PAGES / answer["seconds"]
    log(f"{threads} threads in {vms} VMs: {rate / 1e3:.1f} k pages/s, p50 {answer['p50']:.1f}, p99 {answer['p99']:.0f} us")
    return rate


def measure(s, results):
    kinds = (("start", "ms a VM"), ("memory", "KiB a VM"), ("tick", "CPU-us a second and VM"))
    for kind, unit in kinds:
        results.row(f"vms_256_{kind}", f"{FEW} VMs", unit, "<= 1.3")
    results.row("vms_256", "1: the worst of the three ratios", "ratio", "<= 1.3")
    for name, what in (("faults_16", "in a VM of its own"), ("faults_16_one", "in one VM")):
        results.row(name, f"one thread a core, {what}", "pages/s")
    for kind, unit in kinds:
        results.row(f"vms_10k_{kind}", f"{REGISTERED_FEW} VMs", unit)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    s.host.at_exit(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    s.warm(1024)

    def leased(_):
        _, pairs = costs(s, FEW, MANY, LEASE_MIB, TOUCHED)
        for (kind, _), pair in zip(kinds, pairs):
            results.add(f"vms_256_{kind}", *pair)
        results.add("vms_256", max(many / few for many, few in pairs), 1.0)

    def contended(_):
        cores = len(os.sched_getaffinity(0))
        results.add("faults_16", faults(s, THREADS, THREADS), faults(s, cores, cores))
        results.add("faults_16_one", faults(s, 1, THREADS), faults(s, 1, cores))

    def registered(_):
        vms, pairs = costs(s, REGISTERED_FEW, REGISTERED, 0, 0)
        for (kind, _), pair in zip(kinds, pairs):
            results.add(f"vms_10k_{kind}", *pair)
            results.more(f"vms_10k_{kind}", vms=vms)

    if not s.only or "256" in s.only:
        repeat(results, ("vms_256", *(f"vms_256_{kind}" for kind, _ in kinds)), s.rounds, leased)
    if not s.only or "faults" in s.only:
        repeat(results, ("faults_16", "faults_16_one"), s.rounds, contended)
    if not s.only or "10k" in s.only:
        repeat(results, tuple(f"vms_10k_{kind}" for kind, _ in kinds), 1, registered)
