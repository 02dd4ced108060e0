"""A TFTP server that does one thing wrong, or burns CPU time, as MODE says: for tests of what tftpbench makes of it.

usage: misbehaving_server.py MODE HOST PORT ROOT. RRQ, octet, blksize, all from its listening port; without a fault
in mode `ok`. An absent file gets its ERROR in every mode, so that it is seen to be ready.

Three modes serve no files but use CPU time and memory:

    forks      a process per request, whose end it ignores (SIGCHLD), so that wait4 and cutime lose it
    threads    a thread per request
    loop       one process, one thread

A request is then an RRQ for "burn", answered after 50 ms of CPU time; or for "hold", answered at once, whose process or
thread then waits for ever. The answer is an ERROR whose text is the CPU time in ns that it took.
"""

import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

SERVED_UNTIL_UNRESPONSIVE = 10
IGNORED_EVERY = 15
RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)
BURN_NS = 50_000_000
SHARED_BYTES = 16 << 20
RECEIVE_BUFFER_BYTES = 4096  # some ten datagrams: it overflows soon

Peer = tuple[str, int]
Request = tuple[socket.socket, bytes, Peer]


class Server:
    """Contents and blksize of each peer's transfer; nothing is ever sent again."""

    def __init__(self, mode: str, listening: socket.socket, root: Path) -> None:
        self.mode = mode
        self.socket = listening
        self.root = root
        self.requests = 0
        self.transfers: dict[Peer, tuple[bytes, int]] = {}
        self.ignored: set[Peer] = set()

    def serve(self) -> None:
        """For ever."""
        while True:
            datagram, peer = self.socket.recvfrom(65536)
            if self.mode == "unresponsive" and self.requests > SERVED_UNTIL_UNRESPONSIVE:
                continue
            opcode, number = struct.unpack("!HH", datagram[:4].ljust(4, b"\0"))
            if opcode == RRQ:
                self.request(datagram[2:].split(b"\0"), peer)
            elif self.mode == "forgets" and opcode in (WRQ, DATA):
                self.socket.sendto(struct.pack("!HH", ACK, number if opcode == DATA else 0), peer)
            elif opcode == ACK and peer in self.transfers:
                self.block(number + 1, peer)

    def request(self, fields: list[bytes], peer: Peer) -> None:
        path = self.root / fields[0].decode()
        if not path.is_file():
            self.error(1, peer)
            return
        self.requests += 1
        if self.is_ignored(peer):
            return
        if self.mode == "refuses":
            self.error(0, peer)
            return
        asked = dict(zip(fields[2::2], fields[3::2], strict=False)).get(b"blksize")
        blksize = min(int(asked or 512), 600 if self.mode == "lowers" else 65464)
        blksize += self.mode == "overgrants" and asked is not None
        self.transfers[peer] = (path.read_bytes(), blksize)
        if asked is None:
            self.block(1, peer)
        else:
            self.socket.sendto(struct.pack("!H", OACK) + b"blksize\0%d\0" % blksize, peer)

    def is_ignored(self, peer: Peer) -> bool:
        """Whether this request goes unanswered; an unfair server answers the second one of a peer."""
        if self.mode == "silent":
            return True
        if self.mode != "unfair" or self.requests % IGNORED_EVERY or peer in self.ignored:
            return False
        self.ignored.add(peer)
        return True

    def block(self, number: int, peer: Peer) -> None:
        contents, blksize = self.transfers[peer]
        if self.mode == "stalls" and number > 2:
            return
        if self.mode == "breaks" and number > 2:
            self.error(0, peer)
            return
        if self.mode == "dies" and self.requests > SERVED_UNTIL_UNRESPONSIVE:
            os.kill(os.getpid(), signal.SIGSEGV)
        payload = bytearray(contents[(number - 1) * blksize : number * blksize])
        if self.mode == "lies" and number == 2 and payload:
            payload[0] ^= 1
        if self.mode == "endless":
            payload = payload.ljust(blksize, b"x")
        if self.mode == "endless" or (number - 1) * blksize <= len(contents):
            self.socket.sendto(struct.pack("!HH", DATA, number & 0xFFFF) + payload, peer)

    def error(self, code: int, peer: Peer) -> None:
        self.socket.sendto(struct.pack("!HH", ERROR, code) + b"no\0", peer)


def burn(serve: Callable[[Request], None], host: str, port: int) -> None:
    """Serve until killed."""
    shared = bytearray(b"x" * SHARED_BYTES)  # noqa: F841 # touched before anything is forked: memory of all its processes
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    threading.stack_size(128 * 1024)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        listening.bind((host, port))
        sys.stdout.write(f"READY {host} {listening.getsockname()[1]} {os.getpid()}\n")
        sys.stdout.flush()
        while True:
            serve((listening, *listening.recvfrom(65536)))


def at_once(request: Request) -> None:
    """Before the next one."""
    answer(request, time.thread_time_ns(), lambda: None)


def in_a_process(request: Request) -> None:
    """A child that is never waited for."""
    if os.fork() == 0:
        answer(request, 0, signal.pause)
        os._exit(0)


def in_a_thread(request: Request) -> None:
    """A thread that is never joined."""
    threading.Thread(target=answer, args=(request, 0, threading.Event().wait), daemon=True).start()


def answer(request: Request, began_ns: int, wait: Callable[[], object]) -> None:
    """Burn or hold, and say what it took by the clock of this thread, which stood at `began_ns` in the beginning."""
    listening, datagram, peer = request
    hold = datagram[2:].startswith(b"hold\0")
    while not hold and time.thread_time_ns() - began_ns < BURN_NS:
        pass
    listening.sendto(struct.pack("!HH", 5, 0) + f"{time.thread_time_ns() - began_ns}\0".encode(), peer)
    if hold:
        wait()


BURNING = {"forks": in_a_process, "threads": in_a_thread, "loop": at_once}


def main(mode: str, host: str, port: str, root: str) -> None:
    """Serve until killed."""
    if mode in BURNING:
        burn(BURNING[mode], host, int(port))
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind((host, int(port)))
    Server(mode, listening, Path(root)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
