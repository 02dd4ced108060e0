"""`RunningServer`: a server that somebody else started, in the place of a `ServerProcess`; and a file of it.

It is asked, and never started, stopped or looked into: what belongs to a process is None for it. Called by the runner.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tftpbench.errors import ServerNotReady
from tftpbench.process.ready import answers
from tftpbench.process.usage import Samples, Usage
from tftpbench.servers import Target

ANSWER_TIMEOUT_S = 5.0
_RRQ, _DATA, _ACK, _ERROR = 1, 3, 4, 5
_BLOCK_BYTES = 512
_WAIT_S = 1.0
_TRIES = 5


class RunningServer:
    """One server at a known address. `start` returns when it has answered; `stop` leaves it alone."""

    buffers = None

    def __init__(self, target: Target) -> None:
        self.host = target.host
        self.port = target.port
        self._name = target.name

    def start(self) -> None:
        """Raises ServerNotReady where nothing answers."""
        if not answers(self.host, self.port, ANSWER_TIMEOUT_S):
            raise ServerNotReady(f"{self._name}: did not answer an RRQ within {ANSWER_TIMEOUT_S:g} s; is it running?")

    def usage(self) -> Usage:
        """Nothing is known but the time."""
        return Usage(time.monotonic_ns())

    def cpu_ns(self) -> None:
        """Not known."""

    def context_switches(self) -> None:
        """Not known."""

    def sampler(self, _cpus: Iterable[int] = (), _on_death: Callable[[], object] = lambda: None) -> "_NothingToSample":
        """A context manager that sees nothing."""
        return _NothingToSample()

    def check_alive(self) -> None:
        """Whether it still answers is asked by whoever wants to know."""

    def stop(self, _grace_s: float = 0) -> None:
        """It goes on."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _NothingToSample:
    """In the place of a Sampler."""

    samples = Samples()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def download(target: Target, path: Path) -> int:
    """Read the target's file into `path`, in lock-step as every server can (RFC 1350); returns its size.

    Raises ServerNotReady with what the server said, or that it fell silent.
    """
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    request = struct.pack("!H", _RRQ) + (target.file or "").encode() + b"\0octet\0"
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(_WAIT_S)
        datagram, to, index = request, (target.host, target.port), 1
        try:
            with path.open("wb") as file:
                while True:
                    payload, to = _exchange(client, target, datagram, to, index)
                    file.write(payload)
                    datagram, index = struct.pack("!HH", _ACK, index & 0xFFFF), index + 1
                    if len(payload) < _BLOCK_BYTES:
                        client.sendto(datagram, to)
                        return file.tell()
        except OSError as error:  # of the network, or of the disk that takes the copy
            raise ServerNotReady(f"{target.name}: {target.file!r} can't be copied: {error.strerror}") from None


def _exchange(
    client: socket.socket, target: Target, datagram: bytes, to: tuple[str, int], index: int
) -> tuple[bytes, tuple[str, int]]:
    """Send until the block comes: its bytes, and where it came from, which is the TID from then on."""
    wanted = struct.pack("!HH", _DATA, index & 0xFFFF)
    for _ in range(_TRIES):
        client.sendto(datagram, to)
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            try:
                answer, peer = client.recvfrom(65536)
            except TimeoutError:
                break
            if index > 1 and peer[:2] != to[:2]:
                continue
            if answer[:4] == wanted:
                return answer[4:], peer[:2]
            if answer[:2] == struct.pack("!H", _ERROR):
                raise ServerNotReady(f"{target.name}: has no file {target.file!r} to read: it said {_error(answer)}")
    what = "did not answer; is it running?" if index == 1 else f"fell silent while {target.file!r} was read"
    raise ServerNotReady(f"{target.name}: {what}")


def _error(datagram: bytes) -> str:
    text = datagram[4:].partition(b"\0")[0].decode("utf-8", "replace")
    return f"ERROR {int.from_bytes(datagram[2:4], 'big')}" + (f", {text[:100]!r}" if text else "")
