"""`RunningServer`: a running server that was not started here, in the place of a `ServerProcess`.

It is asked, and never started, stopped or looked into: what belongs to a process is None for it. It must never be asked
for anything that the scenario does not ask for: some servers are silent where a name is unknown.
"""

import struct
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.server.messages import Opcode
from tftpbench.host.server.readiness import PortRefused, answers
from tftpbench.host.server.sampler import EdgeReader
from tftpbench.host.server.usage import Samples, Usage
from tftpbench.host.target import Target
from tftpbench.model.errors import ServerNotReady, nothing_listens

ANSWER_TIMEOUT_S = 5.0
# Each copy of a request may begin a transfer, and a slow server is no silent one: as long as a client's first wait, and
# then longer, as clients do; so much later at most is it noticed that a server answers again.
REPEATS_S = (1.0, 4.0)
_NAME_MAX = 100


class RunningServer:
    """One server at a known address, for a whole run. `start` returns when it has answered; `stop` leaves it alone.

    `asked` is the request to ask it with, as the trial's own clients write it. `silent_s`: for how long it has been
    asked without an answer since the last one; None where it has never answered. `is_refused`: ICMP said that nothing
    listens there any more.
    """

    buffers = None
    network = None

    def __init__(self, target: Target) -> None:
        self.host = target.host
        self.port = target.port
        self.asked = b""
        self.silent_s: float | None = None
        self.is_refused = False
        self._name = target.name

    def start(self) -> None:
        """Asks nothing of a server that has just answered. Raises ServerNotReady where nothing answers."""
        if self.silent_s == 0 or self.answers(ANSWER_TIMEOUT_S):
            return
        if self.is_refused:
            raise ServerNotReady(nothing_listens(self._name))
        if self.silent_s is not None:
            raise ServerNotReady(
                f"{self._name}: still busy with the load before it, or stopped (no answer in {self.silent_s:g} s)"
            )
        raise ServerNotReady(
            f"{self._name}: did not answer {_described(self.asked)} within {ANSWER_TIMEOUT_S:g} s; is it running?"
        )

    def answers(self, timeout_s: float, on_silence: Callable[[float], object] = lambda _: None) -> bool:
        """Ask it now, and say now and then for how long that has been in vain."""
        began_s, self.is_refused, is_there = time.monotonic(), False, False
        try:
            is_there = answers(self.host, self.port, timeout_s, self.asked, REPEATS_S, on_silence, hears_refusals=True)
        except PortRefused:
            self.is_refused = True
        if is_there:
            self.silent_s = 0.0
        elif self.silent_s is not None:
            self.silent_s += time.monotonic() - began_s if self.is_refused else timeout_s
        return is_there

    def usage(self) -> Usage:
        """Nothing is known but the time."""
        return Usage(time.monotonic_ns())

    def udp_counts(self) -> None:
        """It runs in no network of ours."""

    def strays(self) -> None:
        """The same."""

    def edges(self, window: MeasuredWindow, cpus: Iterable[int] = ()) -> EdgeReader:
        """A context manager whose readings hold nothing but when they were taken."""
        return EdgeReader(self.usage, window, cpus)

    def sampler(self, _cpus: Iterable[int] = (), _on_death: Callable[[], object] = lambda: None) -> "_NothingToSample":
        """A context manager that sees nothing."""
        return _NothingToSample()

    def check_alive(self) -> None:
        """Nothing: whether it still answers costs a request, which `answers` makes."""

    def stop(self, _grace_s: float = 0) -> None:
        """It goes on."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _NothingToSample(AbstractContextManager["_NothingToSample", None]):
    """In the place of a Sampler."""

    samples = Samples()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _described(asked: bytes) -> str:
    """A request in words: "an RRQ for 'boot.0'"."""
    name = asked[2:].partition(b"\0")[0].decode("utf-8", "replace")
    return f"{'a WRQ' if asked[:2] == struct.pack('!H', Opcode.WRQ) else 'an RRQ'} for {name[:_NAME_MAX]!r}"
