"""A plain TFTP client in Python: the copy of a file that a running server is to be measured with.

It asks as the scenario's clients do, with their options, and takes whatever the server grants (RFC 1350, 2347 to 2349,
7440). It must never ask for another file than the one it was given, and never wait or write without a bound.
"""

import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tftpbench.host.server.messages import (
    DATAGRAM_BYTES_MAX,
    Opcode,
    Options,
    address,
    address_family,
    error_text,
    request,
)
from tftpbench.host.server.readiness import RECVERR
from tftpbench.host.target import Target
from tftpbench.model.errors import TftpbenchError, nothing_listens

WAIT_S = 1.0
TRIES = 5
# The largest file that TFTP moves without a block number coming twice: 65,535 blocks of 65,464 bytes (RFC 2348). What
# is longer is a file without an end, or would take hours to copy.
COPY_BYTES_MAX = 65_535 * 65_464
# As long as a trial may take unless its scenario says otherwise.
COPY_S_MAX = 600.0
_BLKSIZE_DEFAULT = 512


class CopyFailed(TftpbenchError):
    """The file did not come whole; the message says what the server did, as the end of a sentence."""


class Refused(CopyFailed):
    """The server answered the request, or what came after it, with an ERROR."""


class NothingListens(CopyFailed):
    """ICMP said so; the message is a whole sentence."""


def download(
    target: Target, options: Options, path: Path, first_tries: int = TRIES, bytes_max: int = COPY_BYTES_MAX
) -> int:
    """Read the target's file into `path` with these options; returns its size. The request is sent `first_tries` times.

    Raises NothingListens where ICMP refuses the request, CopyFailed for whatever the server did instead, and OSError of
    the disk that takes the copy.
    """
    family = address_family(target.host)
    with socket.socket(family, socket.SOCK_DGRAM) as client, path.open("wb") as file:
        client.setsockopt(*RECVERR[family], 1)
        return _Copy(client, target, dict(options), file, first_tries, bytes_max).run()


@dataclass
class _Copy:
    """One transfer. `index` is the next block in order, counted from 1; `window` the blocks since the last ACK."""

    client: socket.socket
    target: Target
    asked: dict[str, int]
    file: BinaryIO
    first_tries: int
    bytes_max: int
    peer: tuple[object, ...] | None = None
    blksize: int = _BLKSIZE_DEFAULT
    windowsize: int = 1
    rollover: int = 0
    tsize: int | None = None
    index: int = 1
    window: int = 0
    out_of_order: bool = False
    last: bytes = field(default=b"", repr=False)
    moved_at: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """From the request to the last ACK."""
        self._send(request("read", self.target.file or "", self.asked))
        ends_at = self.moved_at + COPY_S_MAX
        while True:
            opcode, number, rest = self._receive()
            if time.monotonic() > min(ends_at, self.moved_at + TRIES * WAIT_S):
                raise CopyFailed(f"got no further than {self.index - 1} blocks, though it went on sending")
            if opcode == Opcode.OACK and self.index == 1:
                self._grant(rest)
                self._acknowledge()
            elif opcode == Opcode.DATA and self._take(number, rest):
                return self.file.tell()

    def _take(self, number: int, payload: bytes) -> bool:
        """One DATA datagram; True when it was the last block."""
        if number != self._wire(self.index):
            # RFC 7440 section 4: a gap is answered once with the last block in order, and so is a window sent anew. In
            # lock-step each copy of the last block says that its ACK is lost (RFC 1350 section 2).
            is_lock_step = self.windowsize == 1 and self.index > 1
            if not self.out_of_order or (is_lock_step and number == self._wire(self.index - 1)):
                self._acknowledge()
            self.out_of_order = True
            return False
        if len(payload) > self.blksize:
            raise CopyFailed(f"sent a DATA block of {len(payload)} bytes where {self.blksize} were agreed (RFC 2348)")
        self.out_of_order = False
        self.moved_at = time.monotonic()
        self.file.write(payload)
        self._check_size()
        self.index += 1
        self.window += 1
        is_last = len(payload) < self.blksize
        if is_last or self.window >= self.windowsize:
            self._acknowledge()
        return is_last

    def _receive(self) -> tuple[int, int, bytes]:
        """The next datagram of the server: opcode, the number behind it, the rest. Repeats what was sent last."""
        tries = self.first_tries if self.peer is None else TRIES
        for attempt in range(tries):
            if attempt:
                self._send(self.last)
            deadline = time.monotonic() + WAIT_S
            while (left_s := deadline - time.monotonic()) > 0:
                self.client.settimeout(left_s)
                try:
                    datagram, peer = self.client.recvfrom(DATAGRAM_BYTES_MAX)
                except TimeoutError:
                    break
                except OSError as error:
                    self._note_refusal(error)
                    continue
                if self._is_of_the_server(peer) and len(datagram) >= 4:
                    return self._parsed(datagram, peer)
        if self.peer is None:
            raise CopyFailed(f"did not answer within {tries * WAIT_S:g} s")
        raise CopyFailed(f"fell silent after {self.index - 1} blocks")

    def _parsed(self, datagram: bytes, peer: tuple[object, ...]) -> tuple[int, int, bytes]:
        opcode, number = struct.unpack("!HH", datagram[:4])
        if opcode == Opcode.ERROR:
            raise Refused(f"answered with {error_text(datagram)}")
        if opcode in (Opcode.DATA, Opcode.OACK) and self.peer is None:
            self.peer = peer  # RFC 1350 section 4: the port of the first answer is the server's TID from now on
            self.moved_at = time.monotonic()
        return (opcode, 0, datagram[2:]) if opcode == Opcode.OACK else (opcode, number, datagram[4:])

    def _is_of_the_server(self, peer: tuple[object, ...]) -> bool:
        if self.peer is None:
            return peer[0] == address(self.target.host, self.target.port)[0]
        return peer == self.peer

    def _grant(self, text: bytes) -> None:
        """Take an OACK: of what was asked for, and no more of it (RFC 2347 to 2349, 7440)."""
        words = text.split(b"\0")
        for name, value in zip(words[::2], words[1::2], strict=False):
            option = name.decode("ascii", "replace").lower()
            if option not in self.asked or not (value.isascii() and value.isdigit() and len(value) <= 19):
                raise CopyFailed(f"granted {option[:20]!r} {value[:20]!r}, which was not asked for (RFC 2347)")
            granted = int(value)
            if option in ("blksize", "windowsize") and not 1 <= granted <= self.asked[option]:
                raise CopyFailed(f"granted {option} {granted} where {self.asked[option]} was asked for")
            if option in ("blksize", "windowsize", "rollover", "tsize"):
                setattr(self, option, granted)

    def _check_size(self) -> None:
        size = self.file.tell()
        if self.tsize is not None and size > self.tsize:
            raise CopyFailed(f"sent more than the {self.tsize} bytes that it announced (tsize, RFC 2349)")
        if size > self.bytes_max:
            raise CopyFailed(f"sent more than {self.bytes_max} bytes, and no end of the file")

    def _acknowledge(self) -> None:
        self.window = 0
        self._send(struct.pack("!HH", Opcode.ACK, self._wire(self.index - 1)))

    def _send(self, datagram: bytes) -> None:
        self.last = datagram
        to = self.peer or address(self.target.host, self.target.port)
        try:
            self.client.sendto(datagram, to)
        except ConnectionError as error:
            self._note_refusal(error)
        except OSError as error:
            raise CopyFailed(f"can't be sent to: {error.strerror}") from None

    def _note_refusal(self, error: OSError) -> None:
        """An ICMP answer to an earlier datagram: "no such port" to the request is final, else the time decides."""
        if self.peer is None and isinstance(error, ConnectionError):
            raise NothingListens(nothing_listens(self.target.name)) from None

    def _wire(self, index: int) -> int:
        """A block's number on the wire: it follows 65,535 as the rollover option says, 0 unless agreed."""
        if self.rollover == 0 or index == 0:
            return index & 0xFFFF
        return (index - 1) % 0xFFFF + 1


def describe_options(options: Mapping[str, int]) -> str:
    """For people: "blksize 1468, windowsize 64"."""
    words = (name if name == "tsize" else f"{name} {value}" for name, value in options.items())
    return ", ".join(words) or "no options"
