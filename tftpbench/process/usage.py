"""What a server uses: CPU, memory, threads, descriptors and dropped datagrams. One look, or maxima over a trial.

Looking costs time on a machine that is being measured, so a look is cheap, looks are few, and the sampler makes
itself rarer when a look turns out dear (a server of a thousand processes). Whatever the kernel does not show is None.
Called by `tftpbench.process.server` and the runner.
"""

import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tftpbench.process.keeper import KeeperLink
from tftpbench.process.sockets import socket_inodes, udp_sockets

SAMPLE_INTERVAL_S = 0.2
# A look takes at most this share of the sampler's CPU: looks that cost 4 ms come every 0.2 s, dearer ones less often.
_SAMPLE_SHARE_MAX = 0.02
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """One look at a server, over all its processes. `at_ns` is CLOCK_MONOTONIC; `cpu_ns` counts from its start."""

    at_ns: int
    cpu_ns: int | None
    rss_bytes: int | None
    threads: int | None
    fds: int | None
    udp_drops: int | None


class UsageReader:
    """Looks at one server. Remembers what a later look can't see any more: drops of sockets since closed."""

    def __init__(self, link: KeeperLink) -> None:
        self._link = link
        self._was_family = False  # it once had a second process: the single-process clock would lose CPU time
        self._drops: dict[int, int] = {}

    def look(self) -> Usage:
        """What all its processes use now."""
        family = self._link.family()
        stats = [stat for pid in family if (stat := _stat(pid)) is not None]
        cpu_ns = self.cpu_ns()
        return Usage(
            at_ns=time.monotonic_ns(),
            cpu_ns=cpu_ns,
            rss_bytes=_memory_bytes(family, stats),
            threads=sum(threads for threads, _ in stats) or None,
            fds=_total(_descriptors(pid) for pid in family),
            udp_drops=self._count_drops(family),
        )

    def cpu_ns(self) -> int | None:
        """CPU time of every process the server ever had."""
        if self._link.cpu_clock is not None:
            return int(struct.unpack("Q", os.read(self._link.cpu_clock, 8))[0])
        return self._single_process_cpu_ns()

    def _single_process_cpu_ns(self) -> int | None:
        """Where perf events are refused: the clock of the first process, true only while it is the only one.

        clock_getcpuclockid(3): the clock of a process is ~pid << 3 with the low bits 2. It counts all threads, those
        that ended too, and no other process.
        """
        pid = self._link.pid
        self._was_family = self._was_family or self._link.family() != [pid]
        if pid is None or self._was_family:
            return None
        try:
            return time.clock_gettime_ns((~pid << 3) | 2)
        except OSError:
            return None

    def _count_drops(self, family: Sequence[int]) -> int | None:
        """Datagrams dropped at the server's sockets; a socket that lived only between two looks is missed."""
        rows = udp_sockets()
        if not rows:
            return None
        dropped = [row for row in rows if row.drops]
        # Descriptors are searched only when somebody's socket has dropped something new: that is rare, and dear.
        if any(self._drops.get(row.inode) != row.drops for row in dropped):
            ours = socket_inodes(family)
            self._drops.update({row.inode: row.drops for row in dropped if row.inode in ours})
        return sum(self._drops.values())


@dataclass
class Samples:
    """The most that a sampler has seen, and whether it saw the server die."""

    rss_bytes_max: int | None = None
    threads_max: int | None = None
    fds_max: int | None = None
    udp_drops: int | None = None
    died: bool = False

    def take(self, usage: Usage) -> None:
        """Take in one look."""
        self.rss_bytes_max = _larger(self.rss_bytes_max, usage.rss_bytes)
        self.threads_max = _larger(self.threads_max, usage.threads)
        self.fds_max = _larger(self.fds_max, usage.fds)
        self.udp_drops = _larger(self.udp_drops, usage.udp_drops)


class Sampler:
    """Looks at a server from a thread of its own while a load runs, and once at its end.

    `cpus` keeps the thread off the server's cores where there are others. `on_death` is called once, on the sampler's
    thread, when no process of the server is left.
    """

    def __init__(
        self, reader: UsageReader, link: KeeperLink, cpus: Iterable[int], on_death: Callable[[], object]
    ) -> None:
        self.samples = Samples()
        self._reader = reader
        self._link = link
        self._cpus = tuple(cpus)
        self._on_death = on_death
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tftpbench-sampler", daemon=True)

    def __enter__(self) -> Self:
        self.samples.take(self._reader.look())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        if self._cpus:
            # sched_setaffinity(2): 0 is the calling thread, not the process
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._cpus)
        pause_s = SAMPLE_INTERVAL_S
        while not self._end.wait(pause_s):
            started = time.thread_time()
            self._look()
            pause_s = max(SAMPLE_INTERVAL_S, (time.thread_time() - started) / _SAMPLE_SHARE_MAX)

    def _look(self) -> None:
        if not self.samples.died and not self._link.alive():
            self.samples.died = True
            self._on_death()
        self.samples.take(self._reader.look())


def _stat(pid: int) -> tuple[int, int] | None:
    """Threads and resident bytes (proc_pid_stat(5), fields 20 and 24)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[17]), int(fields[21]) * _PAGE_BYTES


def _memory_bytes(family: Sequence[int], stats: Sequence[tuple[int, int]]) -> int | None:
    """Resident bytes of one process; of several, their proportional shares, so that shared pages count once."""
    if len(family) <= 1:
        return stats[0][1] if stats else None
    return _total(_proportional_bytes(pid) for pid in family)


def _proportional_bytes(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _descriptors(pid: int) -> int | None:
    path = f"/proc/{pid}/fd"
    try:
        return os.stat(path).st_size or len(
            os.listdir(path)
        )  # proc_pid_fd(5): the size is their number since Linux 6.2
    except OSError:
        return None


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)
