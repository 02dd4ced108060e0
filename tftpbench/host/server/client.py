"""The harness's end of a supervisor: it starts one, receives its messages, and makes it end the server.

It must never wait without a bound, and never signal a process id that could be another program's by now: all
killing is the supervisor's.

What counts the server, CPU time and context switches, counts from before its exec on, over every process that it ever
has. Two accounts, as far as the supervisor could open them. A cgroup of the server's own has its CPU time as the kernel
charges it. A perf event has the switches, and CPU time too, but without the way from one process to the next, which the
kernel charges to the next: up to 3 us a switch, a tenth of the time of a server that switches for every datagram. So
the cgroup is believed first. What isn't known is None, never a guess. A read costs one system call or three.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tftpbench.host.server import supervisor
from tftpbench.host.server.supervisor import proc_or_nothing, remove_cgroup
from tftpbench.model.errors import ServerNotReady

# A supervisor needs some 30 ms to start and its kill loop is bounded by 5 s; a machine under load gets ten times that.
_SUPERVISOR_START_S = 10.0
_SUPERVISOR_END_S = 10.0


@dataclass(frozen=True)
class Ended:
    """How a server ended. `left_over` counts its other processes that had to be killed."""

    exit_code: int | None
    signal: str | None
    left_over: int

    @property
    def text(self) -> str:
        """As part of a sentence: "exit code 3", "SIGSEGV"."""
        return self.signal or (f"exit code {self.exit_code}" if self.exit_code is not None else "an unknown end")


class SupervisorClient:
    """One supervisor and what it has said so far. Safe to use from two threads (the runner's and the sampler's).

    `env` is added to the environment, the server's and the supervisor's, which ignores variables for Python. The
    server inherits the descriptor `handover` under its number, and the supervisor closes it. Before its program begins
    it enters the `namespaces`, descriptors, in this order.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        cpus: Sequence[int],
        env: Mapping[str, str] = {},
        handover: int | None = None,
        namespaces: Sequence[int] = (),
    ) -> None:
        self.pid: int | None = None
        self.counter: Counter | None = None
        self.ready: tuple[str, int, int] | None = None
        self.failed: str | None = None
        self.empty = False
        self._status: int | None = None
        self._killed: int | None = None
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        with theirs:
            options = {"--control": str(theirs.fileno()), "--log": str(log), "--cpus": ",".join(map(str, cpus))}
            passed = [theirs.fileno()]
            if handover is not None:
                options["--handover"] = str(handover)
                passed.append(handover)
            if namespaces:
                options["--namespaces"] = ",".join(map(str, namespaces))
                passed += namespaces
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    supervisor.__file__,
                    *(part for pair in options.items() for part in pair),
                    "--",
                    *argv,
                ],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env},
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C in the terminal is for the harness alone
            )

    def wait_started(self) -> None:
        """Until the server's first process is about to become the server's program."""
        deadline = time.monotonic() + _SUPERVISOR_START_S
        while self.pid is None and self.failed is None and time.monotonic() < deadline:
            if not self.receive(0.1) and self._process.poll() is not None:
                break
        if self.pid is None:
            raise ServerNotReady(self.failed or "its supervisor process did not start")

    def receive(self, timeout_s: float) -> bool:
        """Take in one waiting message; False when none came in time."""
        with self._lock:
            if self._control.fileno() < 0:
                return False
            poll = select.poll()
            poll.register(self._control, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                return False
            try:
                message, fds, _, _ = socket.recv_fds(self._control, 4352, 1)
            except OSError:
                return False
            self._note(message, fds)
            return bool(message)

    def alive(self) -> bool:
        """Whether any process of the server is left; what the supervisor said meanwhile is taken in first."""
        while self.receive(0):
            pass
        return not self.empty and self.failed is None and self._process.poll() is None

    def process_tree(self) -> list[int]:
        """Every living process of the server."""
        return supervisor.descendants(self._process.pid)

    def stop(self, grace_s: float) -> Ended:
        """End the server and the supervisor. May be called again; later calls only repeat the answer."""
        if self._process.returncode is None:
            self._send_stop(grace_s)
            deadline = time.monotonic() + grace_s + _SUPERVISOR_END_S
            while self._killed is None and time.monotonic() < deadline:
                if not self.receive(0.1) and self._process.poll() is not None:
                    break
            self._end_supervisor()
        self._control.close()
        if self.counter is not None:
            self.counter.close()
            self.counter = None
        return self.ended

    @property
    def ended(self) -> Ended:
        """How it ended, as far as is known by now."""
        killed = self._killed or 0
        if self._status is None:
            return Ended(None, None, killed)
        code = os.waitstatus_to_exitcode(self._status)
        # The main process itself, which ignored SIGTERM, is not left over.
        own = 1 if code == -signal.SIGKILL and killed else 0
        if code < 0:
            return Ended(None, _signal_name(-code), killed - own)
        return Ended(code, None, killed)

    def _send_stop(self, grace_s: float) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone already
            self._control.send(f"stop {grace_s}".encode())

    def _end_supervisor(self) -> None:
        try:
            self._process.wait(_SUPERVISOR_END_S if self._killed is not None else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its end fires the server's parent-death signal
            self._process.wait()

    def _note(self, message: bytes, fds: Sequence[int]) -> None:
        kind, _, text = message.decode(errors="replace").partition(" ")
        match kind:
            case "pid":
                pid, used_ns, counts, cgroup = text.split(" ", 3)
                self.pid = int(pid)
                self.counter = Counter(self.pid, int(used_ns), fds[0] if fds else None, counts == "switches", cgroup)
            case "failed":
                self.failed = text
            case "ready":
                host, port, pid = text.split(" ")
                self.ready = (host, int(port), int(pid))
            case "exited":
                self._status = int(text)
            case "empty":
                self.empty = True
            case "stopped":
                self._killed = int(text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
