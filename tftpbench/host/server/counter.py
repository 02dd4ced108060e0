"""What counts a server from before its exec on, over every process that it ever has: CPU time and context switches.

Two accounts, as far as `tftpbench.host.server.supervisor` could open them. A cgroup of the server's own has its CPU
time as the kernel charges it. A perf event has the switches, and CPU time too, but without the way from one process to
the next, which the kernel charges to the next: up to 3 us a switch, a tenth of the time of a server that switches for
every datagram. So the cgroup is believed first. What isn't known is None, never a guess. A read costs one system call
or three.
"""

import contextlib
import os
import struct
import time

from tftpbench.host.server.supervisor import proc_or_nothing, remove_cgroup

# At READY the event must have counted what the first process has used, but for its opening and for the switches.
# An event that was lost at exec misses 0.9 ms and 60 % of the smallest program's time, and nearly all of any other's.
_LOST_NS = 300_000
_LOST_SHARE = 0.3


class Counter:
    """One server's. `used_ns` is the CPU time that its first process had spent when both had just been opened."""

    def __init__(self, pid: int, used_ns: int, event: int | None, counts_switches: bool, cgroup: str) -> None:
        self._pid = pid
        self._used_ns = used_ns
        self._event = event
        self._counts_switches = counts_switches
        self._cgroup = cgroup

    def cpu_ns(self) -> int | None:
        """CPU time of all processes, those that ended included."""
        if self._cgroup:
            return _cgroup_cpu_ns(self._cgroup)
        return self._read(self._event)[1] if self._event is not None else None

    def context_switches(self) -> int | None:
        """Context switches of all processes, wanted and forced, but for the one with which a process ends."""
        return self._read(self._event)[0] if self._event is not None and self._counts_switches else None

    def check(self) -> None:
        """Once at READY: give up an account that has lost its server.

        A server may have been started in another cgroup. And the kernel takes an event off a process that gains
        privileges by exec (a user's, by a set-user-ID program or a file with capabilities), of which
        perf_event_open(2) is silent; what it counted until then would pass for all.
        """
        if self._cgroup and not proc_or_nothing(f"{self._cgroup}/cgroup.procs"):
            self._cgroup = ""
        own_ns = process_cpu_ns(self._pid)
        if self._event is None or own_ns is None:
            return
        expected_ns = own_ns - self._used_ns
        if expected_ns - self._read(self._event)[1] > _LOST_NS + _LOST_SHARE * expected_ns:
            self._close_event()

    def close(self) -> None:
        """Afterwards nothing is known. A killed supervisor leaves the cgroup, and may leave processes in it."""
        self._close_event()
        if self._cgroup:
            with contextlib.suppress(OSError), open(f"{self._cgroup}/cgroup.kill", "wb", buffering=0) as kill:
                kill.write(b"1")  # cgroups(7), since Linux 5.14: no process id can be another program's by now
            remove_cgroup(self._cgroup)
            self._cgroup = ""

    def _close_event(self) -> None:
        if self._event is not None:
            os.close(self._event)
            self._event = None

    def _read(self, event: int) -> tuple[int, int]:
        """Its count, and the time that it ran: that of its processes on a CPU."""
        count, _, running_ns = struct.unpack("QQQ", os.read(event, 24))
        return count, running_ns


def process_cpu_ns(pid: int) -> int | None:
    """CPU time of one process, with all its threads, those that ended too, and no other process; None once it is gone.

    clock_getcpuclockid(3): the clock of a process is ~pid << 3 with the low bits 2.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def _cgroup_cpu_ns(folder: str) -> int | None:
    """cgroups(7), cpu.stat: every cgroup of version 2 has usage_usec."""
    lines = proc_or_nothing(f"{folder}/cpu.stat").splitlines()
    return next((int(line.split()[1]) * 1000 for line in lines if line.startswith(b"usage_usec ")), None)
