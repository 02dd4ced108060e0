"""What a server uses: CPU, memory, processes, threads, descriptors, dropped datagrams. One look, or the most of many.

Looking costs time on a machine that is being measured, so a look is cheap; the one dear part, proportional memory, is
left out when it would cost more than the caller allows. Whatever the kernel does not show is None.
"""

import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tftpbench.host.server.client import SupervisorClient, process_cpu_ns
from tftpbench.host.server.sockets import PROC, DropCount
from tftpbench.host.server.supervisor import proc_or_nothing, read_proc

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# 20 us each: this is looked at where a window opens.
_THREADS_WAITED_FOR_MAX = 64


@dataclass(frozen=True)
class Usage:
    """One look at a server, over all its processes. `at_ns` is CLOCK_MONOTONIC.

    `cpu_ns` and `context_switches` count from its start and over every process that it ever had, `udp_drops` at every
    socket that was seen. `rss_bytes` is resident memory added up, so pages that processes share count in each;
    `pss_bytes` gives each its share of them (None too where it was not looked at). `waited_ns` is only looked at beside
    a measured window (`UsageReader.waited_ns`). The rest is what there is now.
    """

    at_ns: int
    cpu_ns: int | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    fds: int | None = None
    udp_drops: int | None = None
    pss_bytes: int | None = None
    processes: int | None = None
    context_switches: int | None = None
    waited_ns: int | None = None


@dataclass
class Samples:
    """The most that a sampler has seen, and whether it saw the server die.

    `pss_bytes_max` is None unless at least half as many processes as there ever were at once were looked at so.
    """

    rss_bytes_max: int | None = None
    threads_max: int | None = None
    fds_max: int | None = None
    udp_drops: int | None = None
    died: bool = False
    pss_bytes_max: int | None = None
    processes_max: int | None = None
    _pss_bytes: int = field(default=0, repr=False)
    _pss_processes: int = field(default=0, repr=False)

    def take(self, usage: Usage) -> None:
        """Take in one look."""
        self.rss_bytes_max = _larger(self.rss_bytes_max, usage.rss_bytes)
        self.processes_max = _larger(self.processes_max, usage.processes)
        self.threads_max = _larger(self.threads_max, usage.threads)
        self.fds_max = _larger(self.fds_max, usage.fds)
        self.udp_drops = _larger(self.udp_drops, usage.udp_drops)
        if usage.pss_bytes is not None:
            self._pss_bytes = max(self._pss_bytes, usage.pss_bytes)
            self._pss_processes = max(self._pss_processes, usage.processes or 0)
        known = self._pss_processes > 0 and 2 * self._pss_processes >= (self.processes_max or 0)
        self.pss_bytes_max = self._pss_bytes if known else None


class UsageReader:
    """Looks at one server, from READY on. Remembers what a later look can't see: drops of sockets since closed.

    `proc`: where proc(5) shows the sockets of its network namespace.
    """

    def __init__(self, supervisor: SupervisorClient, proc: str = PROC) -> None:
        self.pss_cost_s = 0.0
        """CPU time that the last look spent on proportional memory."""
        self._pss_cost_each_s = 0.0
        self._supervisor = supervisor
        self._had_children = False  # it once had a second process: the single-process clock would lose CPU time
        self._drops = DropCount(proc)
        if supervisor.counter is not None:
            supervisor.counter.check()

    def look(self, pss_cost_s_max: float = math.inf) -> Usage:
        """What all its processes use now; their proportional memory only if that is expected to cost no more."""
        tree = self._supervisor.process_tree()
        stats = [stat for pid in tree if (stat := _stat(pid)) is not None]
        memory = self._memory(tree, pss_cost_s_max)
        return Usage(
            at_ns=time.monotonic_ns(),
            cpu_ns=self.cpu_ns(),
            # The file that has the shares knows resident memory exactly; stat's figure may lag (proc_pid_stat(5), rss).
            rss_bytes=memory[0] if memory else sum(resident for _, resident in stats) or None,
            threads=sum(threads for threads, _ in stats) or None,
            fds=_descriptors(tree),
            udp_drops=self._drops.count(tree),
            pss_bytes=memory[1] if memory else None,
            processes=len(stats),
            context_switches=self.context_switches(),
        )

    def cpu_ns(self) -> int | None:
        """CPU time of every process the server ever had."""
        counted_ns = self._supervisor.counter.cpu_ns() if self._supervisor.counter is not None else None
        return counted_ns if counted_ns is not None else self._single_process_cpu_ns()

    def context_switches(self) -> int | None:
        """Context switches of every process the server ever had; None where the kernel doesn't let us count them.

        Nothing else tells: wait4(2) loses the children of a server that ignores SIGCHLD, proc(5) threads that ended.
        """
        return self._supervisor.counter.context_switches() if self._supervisor.counter is not None else None

    def waited_ns(self) -> int | None:
        """For how long the threads of its first process were ready to run so far, and had no core.

        Summed over those that live. None where the kernel does not count it, or they are too many to look at.
        """
        # Where the kernel counts it: time on a core, time ready, how often (sched-stats in the kernel's documents).
        tasks = f"/proc/{self._supervisor.pid}/task"
        try:
            threads = os.listdir(tasks)
        except OSError:
            return None
        if len(threads) > _THREADS_WAITED_FOR_MAX:
            return None
        counts = [proc_or_nothing(f"{tasks}/{thread}/schedstat").split() for thread in threads]
        waits = [int(count[1]) for count in counts if len(count) == 3]
        return sum(waits) if waits else None

    def _single_process_cpu_ns(self) -> int | None:
        """Where nothing counts a process tree: the clock of the first process, true only while it is the only one."""
        pid = self._supervisor.pid
        self._had_children = self._had_children or self._supervisor.process_tree() != [pid]
        return None if pid is None or self._had_children else process_cpu_ns(pid)

    def _memory(self, tree: Sequence[int], cost_s_max: float) -> tuple[int, int] | None:
        """Resident and proportional bytes. One process costs some 0.4 ms, during which it can't map memory itself."""
        self.pss_cost_s = 0.0
        if not tree or len(tree) * self._pss_cost_each_s > cost_s_max:
            return None
        began_s = time.thread_time()
        memory = _rollup(tree)
        self.pss_cost_s = time.thread_time() - began_s
        self._pss_cost_each_s = self.pss_cost_s / len(tree)
        return memory


def _stat(pid: int) -> tuple[int, int] | None:
    """Threads and resident bytes (proc_pid_stat(5), fields 20 and 24); None for a process that is gone, or a zombie."""
    fields = proc_or_nothing(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return None if fields[:1] in ([], [b"Z"], [b"X"]) else (int(fields[17]), int(fields[21]) * _PAGE_BYTES)


def _rollup(pids: Iterable[int]) -> tuple[int, int] | None:
    """Resident and proportional bytes over all processes (proc_pid_smaps(5), smaps_rollup); None if one is hidden."""
    rss_kib = pss_kib = 0
    for pid in pids:
        try:
            for line in read_proc(f"/proc/{pid}/smaps_rollup").splitlines()[1:3]:
                name, kib, _ = line.split()
                rss_kib += int(kib) if name == b"Rss:" else 0
                pss_kib += int(kib) if name == b"Pss:" else 0
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile
        except OSError:
            return None
    return (rss_kib * 1024, pss_kib * 1024) if pss_kib else None


def _descriptors(pids: Iterable[int]) -> int | None:
    """Open descriptors over all processes; None if one hides them."""
    found = 0
    for pid in pids:
        try:
            # proc_pid_fd(5): since Linux 6.2 the folder's size is their number
            found += os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
    return found


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)
