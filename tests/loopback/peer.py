"""A TFTP peer made of a Python function, for tests of the load generator: it answers as the test says, on port 0."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tftpbench.host.generator import LoadConfig, in_network
from tftpbench.host.network import SERVER, Network

Address = tuple[str, int]
Answer = Callable[["Peer", bytes, Address], None]
"""Called with every datagram that arrives at the peer's listening port."""

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)


class Place:
    """Where peers listen: on loopback, or in a server's own network, where clients send and hear frames."""

    network: Network | None = None


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket on the server's side, on a port that was free; "127.0.0.1" is the server's address wherever it is."""
    network = Place.network
    if network is None:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        made = network.socket(SERVER, socket.AF_INET)
        host = network.server_address() if host == "127.0.0.1" else host
    made.bind((host, 0))
    return made


def placed(config: LoadConfig) -> LoadConfig:
    """The load where peers listen."""
    if Place.network is None:
        return config
    return in_network(replace(config, host=Place.network.server_address(), sockets="ring"), Place.network)


class Peer:
    """One listening socket and one thread that hands each datagram to `answer`."""

    def __init__(self, answer: Answer, host: str) -> None:
        self.socket = listening(host)
        self.port: int = self.socket.getsockname()[1]
        self.received: list[bytes] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def send(self, datagram: bytes, to: Address) -> None:
        self.socket.sendto(datagram, to)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread once it has read all that came before, so that `received` is whole afterwards."""
        self._answer = _nothing
        with listening() as waker:
            self._waker = waker.getsockname()
            while self._thread.is_alive():
                # A full receive buffer loses it.
                waker.sendto(b"", (waker.getsockname()[0], self.port))
                self._thread.join(0.1)
        self.socket.close()

    _waker: Address | None = None

    def _loop(self) -> None:
        while True:
            datagram, address = self.socket.recvfrom(65536)
            if address == self._waker:
                return
            self.received.append(datagram)
            self._answer(self, datagram, address)


@contextmanager
def peer(answer: Answer, host: str = "127.0.0.1") -> Iterator[Peer]:
    """A running peer, to be reached as `placed` says; "0.0.0.0" leaves it to the kernel from where it answers."""
    made = Peer(answer, host)
    made.start()
    try:
        yield made
    finally:
        made.close()


def data(block: int, payload: bytes) -> bytes:
    """A DATA datagram."""
    return struct.pack("!HH", DATA, block) + payload


def ack(block: int) -> bytes:
    """An ACK datagram."""
    return struct.pack("!HH", ACK, block)


def error(code: int, message: bytes = b"no") -> bytes:
    """An ERROR datagram."""
    return struct.pack("!HH", ERROR, code) + message + b"\0"


def oack(**options: int) -> bytes:
    """An OACK datagram."""
    return struct.pack("!H", OACK) + b"".join(f"{name}\0{value}\0".encode() for name, value in options.items())


def opcode(datagram: bytes) -> int:
    """The opcode, 0 where there is none."""
    return int.from_bytes(datagram[:2], "big") if len(datagram) >= 2 else 0


def serve_bytes(contents: bytes, **granted: int) -> Answer:
    """A correct server of one file, answering from its listening port: it grants these options and ignores others."""
    blksize, windowsize = granted.get("blksize", 512), granted.get("windowsize", 1)
    last = len(contents) // blksize + 1

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        acknowledged = int.from_bytes(datagram[2:4], "big") if opcode(datagram) == ACK else 0
        if opcode(datagram) == RRQ and granted:
            self.send(oack(**granted), address)
        elif opcode(datagram) in {RRQ, ACK}:
            for block in range(acknowledged + 1, min(acknowledged + windowsize, last) + 1):
                self.send(data(block, contents[(block - 1) * blksize :][:blksize]), address)

    return answer


def _nothing(_peer: Peer, _datagram: bytes, _address: Address) -> None:
    """An answer that is none."""


def contents(seed: int = 1, file: int = 0, size: int = 2_000) -> bytes:
    """f(seed, file, offset), written anew from its definition."""
    mask32, mask64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF

    def mix64(value: int) -> int:
        x = (value + 0x9E3779B97F4A7C15) & mask64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask64
        return x ^ (x >> 31)

    key = mix64((seed + mix64(file ^ 0x54465450)) & mask64)
    start, step = key & mask32, key >> 32 | 1
    made = bytearray()
    for index in range(size // 4 + 1):
        x = (start + index * step) & mask32
        x ^= x >> 15
        made += ((x + (x << 9)) & mask32).to_bytes(4, "little")
    return bytes(made[:size])
