"""The harness's end of a supervisor: it starts one, receives its messages, and makes it end the server.

It must never wait without a bound, and never signal a process id that could be another program's by now: all
killing is the supervisor's.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tftpbench.host.server import supervisor
from tftpbench.host.server.counter import Counter
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
    server inherits the descriptor `handover` under its number, and the supervisor closes it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        cpus: Sequence[int],
        env: Mapping[str, str] = {},
        handover: int | None = None,
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
