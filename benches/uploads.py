"""What it costs a program to have a whole upload: mapped, read from a file, or sent through a socket.

    python -m benches.uploads [--server epoll] [--size BYTES] [--rounds N]

Each round uploads one file to a server with `store="memory"` and one to a server whose root is on a tmpfs, and then
takes the time from the moment when the client has its last ACK: until all bytes are usable in Python, and until
zlib.crc32 has been over them. The three ways take turns in a random order. Reading the file gets the advantage that
no word is needed that it is whole; sending is from a process that has the bytes in memory and waits for the word.
"""

import argparse
import multiprocessing
import random
import socket
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Self

import tftpbench
from tftpbench.host.generator import LoadConfig, run_load

TMPFS = Path("/dev/shm")  # noqa: S108 (a folder of its own is made in it)
PATIENCE_S = 30.0
Times = tuple[float, float]


def main() -> int:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benches.uploads", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server", default="epoll", help="a server that hands uploads over (default: epoll)")
    parser.add_argument("--size", type=int, default=10_000_000, help="bytes of each upload (default: 10,000,000)")
    parser.add_argument("--rounds", type=int, default=21, help="how often (default: 21)")
    asked = parser.parse_args()
    times = measure(asked.server, asked.size, asked.rounds)
    sys.stdout.write(f"{asked.server}, {asked.size:,} bytes, {asked.rounds} rounds in turn, medians in ms\n")
    sys.stdout.write(f"{'':12}{'usable':>10}{'ratio':>8}{'checked':>10}{'ratio':>8}\n")
    for way, pairs in times.items():
        line = f"{way:12}"
        for part, base in zip(zip(*pairs, strict=True), zip(*times["mapped"], strict=True), strict=True):
            ratio = statistics.median(own / other for own, other in zip(part, base, strict=True))
            line += f"{statistics.median(part) * 1e3:10.3f}{ratio:8.2f}"
        sys.stdout.write(line + "\n")
    return 0


def measure(name: str, size: int, rounds: int) -> dict[str, list[Times]]:
    """Seconds until usable and until checked, a pair a round, for each way."""
    times: dict[str, list[Times]] = {"mapped": [], "read": [], "sent": []}
    with (
        tempfile.TemporaryDirectory(dir=TMPFS) as root,
        tftpbench.Server(name, store="memory") as memory,
        tftpbench.Server(name, root, write=True) as disk,
        Sender(size) as sender,
    ):
        for number in range(rounds):
            file = Path(root, f"f-{number}")
            ways: dict[str, Callable[[], Times]] = {
                "mapped": lambda: mapped(memory, size),
                "read": lambda number=number, file=file: read(disk, number, size, file),  # type: ignore[misc]
                "sent": sender.send,
            }
            for way in random.sample(sorted(ways), len(ways)):
                times[way].append(ways[way]())
            file.unlink()
    return times


def mapped(server: tftpbench.Server, size: int) -> Times:
    """The server's memory becomes ours."""
    upload(server, 0, size)
    started = time.perf_counter()
    data = next(server.uploads(PATIENCE_S)).data
    return checked(started, data, size)


def read(server: tftpbench.Server, number: int, size: int, file: Path) -> Times:
    """A file of a tmpfs is read."""
    upload(server, number, size)
    started = time.perf_counter()
    return checked(started, file.read_bytes(), size)


class Sender:
    """Another process that has the bytes, and sends them on a word."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ours, theirs = socket.socketpair()
        # Forked, so that it has its end of the socket.
        self._process = multiprocessing.get_context("fork").Process(
            target=_send_when_told, args=(self._ours, theirs, size), daemon=True
        )
        self._theirs = theirs

    def send(self) -> Times:
        """They come as one block after the other."""
        started = time.perf_counter()
        data = bytearray(self._size)
        self._ours.sendall(b"?")
        room = memoryview(data)
        while room and (count := self._ours.recv_into(room)):
            room = room[count:]
        return checked(started, data, self._size)

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join(PATIENCE_S)


def checked(started: float, data: "bytes | bytearray | memoryview", size: int) -> Times:
    """The two times of bytes that are there now."""
    usable = time.perf_counter() - started
    if len(data) != size:
        raise SystemExit(f"benches.uploads: {len(data)} bytes came, of {size}")
    zlib.crc32(data)
    return usable, time.perf_counter() - started


def upload(server: tftpbench.Server, number: int, size: int) -> None:
    """One file in large blocks; returns when the client has its last ACK."""
    result = run_load(
        LoadConfig(
            host=server.host,
            port=server.port,
            operation="write",
            name=f"f-{number}",
            file_size_bytes=size,
            concurrency=1,
            transfers=1,
            blksize=8192,
            windowsize=16,
        )
    )
    if result.figures["completed"] != 1:
        raise SystemExit(f"benches.uploads: an upload failed: {server.log}")


def _send_when_told(ours: socket.socket, theirs: socket.socket, size: int) -> None:
    ours.close()  # or its end would never be seen
    data = random.randbytes(size)
    while theirs.recv(1):
        theirs.sendall(data)


if __name__ == "__main__":
    sys.exit(main())
