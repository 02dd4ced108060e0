"""A TFTP server in pure Python with the algorithm of the epoll server, so that what differs is the language alone.

One thread, one epoll, a few sockets made at start-up and read until they are empty. A transfer is an entry in a dict,
found by its peer's address. Deadlines move with every datagram, but the heap of timers hears of earlier ones only.
RFC 1350, 2347, 2348, 2349 and 7440 in octet mode; netascii is refused with an ERROR. Standard library only.

It must never follow a symbolic link, leave the root, wait anywhere but in epoll, or die of a datagram. Started through
server.yaml, or by hand: python server.py --root FOLDER [--host ADDRESS] [--port N] [--write] [--max-transfers N]
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import resource
import signal
import socket
import stat
import struct
import sys
from contextlib import suppress
from enum import Enum, auto
from heapq import heappop, heappush
from math import inf
from select import EPOLLIN, epoll
from time import monotonic
from typing import Any

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)  # RFC 1350 section 5, RFC 2347
NOT_DEFINED, NOT_FOUND, ACCESS, DISK_FULL, ILLEGAL, UNKNOWN_TID, EXISTS = range(7)  # codes of an ERROR

HEADER = struct.Struct("!HH")
REQUEST_BYTES_MAX = 512  # RFC 2347
# Least and most of each option (RFC 2348, 2349, 7440), in the order of our OACKs.
OPTIONS = {b"tsize": (0, 2**64 - 1), b"blksize": (8, 65464), b"windowsize": (1, 65535), b"timeout": (1, 255)}
WINDOWSIZE_MAX = 256  # granted: what one transfer may send before others have their turn

TIMEOUT_S, TIMEOUT_MIN_S, TIMEOUT_MAX_S = 1.0, 0.2, 8.0  # at first, and the bounds once round trips are known
RETRIES = 5

RECEIVE_BUFFER_BYTES = 4 << 20  # socket(7): the kernel grants net.core.rmem_max at most
# By default a socket holds some 500 small datagrams, and a transfer in lock-step may have one waiting.
TRANSFERS_PER_PORT, PORTS_MAX = 256, 64
DATAGRAMS_A_TURN = 256  # read from one socket before others have their turn
CHUNK_BYTES, CHUNK_BLOCKS = 8192, 32  # read from or written to a file in one call; 80 MB at 10,000 transfers
CHECK_EVERY_BYTES = 65536  # of a file that is served
HIDDEN = b".tftpbench-upload-"  # starts the names of unfinished uploads; no client may name one

Address = Any  # (host, port) or, with IPv6, (host, port, flow, scope): a key, and given back to sendto


def main() -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    parser = argparse.ArgumentParser(description="A TFTP server in pure Python.", allow_abbrev=False)
    parser.add_argument("--root", required=True, help="folder to serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    parser.add_argument("--write", action="store_true", help="allow uploads, of new files only")
    parser.add_argument("--max-transfers", type=int, default=16384, help="one more is refused with an ERROR")
    asked = parser.parse_args()
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        server = Server(asked.host, asked.port, asked.root, asked.write, asked.max_transfers)
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"pyepoll: {asked.root} at {asked.host} port {asked.port}: {error}\n")
        return 2
    server.serve()
    return 0


class Refusal(Exception):
    """An ERROR of ours: its code, and a few words that tell nothing about the machine."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Then(Enum):
    """What becomes of a transfer after its turn; mostly nothing, which is None."""

    DALLY = auto()  # complete, and there to repeat its last ACK
    OVER = auto()


class Port(socket.socket):
    """One of the server's sockets, and how many transfers answer from it."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        if ":" in host:  # ipv6(7): the wildcard serves IPv4, too
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.bind((host, port))
        self.transfers = 0

    def send_or_lose(self, datagram: bytes, peer: Address) -> None:
        """What the kernel does not take is lost, as by the network: the protocol sends it again."""
        try:
            self.sendto(datagram, peer)
        except OSError:
            return


class Server:
    """The loop, and everything that is not one transfer's: admission, strangers, timers, the stop."""

    def __init__(self, host: str, port: int, root: str, write: bool, max_transfers: int) -> None:
        self.root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.write, self.max_transfers = write, max_transfers
        self.listening = Port(host, port)
        ports = min(max(-(-max_transfers // TRANSFERS_PER_PORT), 1), PORTS_MAX)
        self.ports = [Port(host, 0) for _ in range(ports)]
        self.transfers: dict[Address, Sender | Receiver] = {}
        self.dallying = 0
        self.timers: list[tuple[float, int, Sender | Receiver]] = []
        self.serial = itertools.count()  # decides between equal times

    def serve(self) -> None:
        """Announce itself, and serve until a signal says stop."""
        stop, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        poller, ports = epoll(), {port.fileno(): port for port in (self.listening, *self.ports)}
        for descriptor in (stop, *ports):
            poller.register(descriptor, EPOLLIN)
        host, port = self.listening.getsockname()[:2]
        sys.stdout.write(f"READY {host} {port} {os.getpid()}\n")
        sys.stdout.flush()
        while True:
            timeout_s = max(self.timers[0][0] - monotonic(), 0) if self.timers else None
            for descriptor, _ in poller.poll(timeout_s):
                if descriptor == stop:
                    return self.stop()
                if descriptor == self.listening.fileno():
                    self.admit()
                else:
                    self.receive(ports[descriptor])
            self.expire()

    def receive(self, port: Port) -> None:
        """Read a reply socket until it is empty and pass each datagram on: the loop that all the time is spent in."""
        receive, transfers = port.recvfrom, self.transfers
        for _ in range(DATAGRAMS_A_TURN):
            try:
                datagram, peer = receive(65536)
            except OSError:  # empty
                return
            transfer = transfers.get(peer)
            # A transfer's TID is one port; on any other its peer is a stranger, too.
            if transfer is None or transfer.port is not port:
                self.answer_stranger(port, peer, datagram)
            elif len(datagram) >= HEADER.size:
                then = transfer.handle(datagram, monotonic())
                if then or transfer.deadline < transfer.timer_at:
                    self.settle(transfer, then)

    def admit(self) -> None:
        """Read the listening socket."""
        for _ in range(DATAGRAMS_A_TURN):
            try:
                datagram, peer = self.listening.recvfrom(65536)
            except OSError:
                return
            try:
                self.begin(peer, datagram)
            except (Refusal, OSError) as why:
                self.listening.send_or_lose(error_packet(why), peer)

    def begin(self, peer: Address, datagram: bytes) -> None:
        """Start the transfer that is asked for. Raises Refusal or OSError."""
        opcode = int.from_bytes(datagram[:2])
        if opcode not in {RRQ, WRQ} or len(datagram) < 2:
            return self.answer_stranger(self.listening, peer, datagram)
        filename, options = parse_request(datagram)
        if old := self.transfers.get(peer):
            if old.request == datagram and not old.dallying:
                return None  # a copy; the transfer repeats its own opening
            self.remove(old)
        if self.is_full():
            # Last ACKs that were sent before this request came to other sockets, and free their places now.
            for port in self.ports:
                self.receive(port)
            if self.is_full():
                raise Refusal(NOT_DEFINED, "too many transfers")
        # The first with room, so that few transfers share long turns; else the emptiest.
        roomy = next((port for port in self.ports if port.transfers < TRANSFERS_PER_PORT), None)
        port = roomy or min(self.ports, key=lambda port: port.transfers)
        path = parse_path(filename)
        transfer: Sender | Receiver
        if opcode == RRQ:
            transfer = Sender(port, peer, datagram, options, Source(self.root, path))
        elif self.write:
            transfer = Receiver(port, peer, datagram, options, Upload(self.root, path, options.get(b"tsize", 0)))
        else:
            raise Refusal(ACCESS, "writing is off")
        self.transfers[peer] = transfer
        port.transfers += 1
        return self.settle(transfer, transfer.send_again(monotonic()))

    def is_full(self) -> bool:
        """Whether one transfer more would be too many."""
        return len(self.transfers) - self.dallying >= self.max_transfers

    def answer_stranger(self, port: Port, peer: Address, datagram: bytes) -> None:
        """Turn down what belongs to no transfer (RFC 1350 section 4): one short datagram for one, at most."""
        opcode = int.from_bytes(datagram[:2])
        # RFC 1350 section 7: an ERROR is never answered. What is too short for its header is no packet.
        if opcode == ERROR or len(datagram) < (HEADER.size if opcode in {DATA, ACK} else 2):
            return
        unknown = port is self.listening and not RRQ <= opcode <= OACK
        why = Refusal(ILLEGAL, "unknown opcode") if unknown else Refusal(UNKNOWN_TID, "unknown transfer ID")
        port.send_or_lose(error_packet(why), peer)

    def settle(self, transfer: Sender | Receiver, then: Then | None) -> None:
        """Do what a transfer wants after its turn; where it goes on, the timers must know of an earlier deadline."""
        if then is Then.DALLY and self.dallying < self.max_transfers:
            transfer.dallying = True
            self.dallying += 1
        elif then:
            return self.remove(transfer)
        if transfer.deadline < transfer.timer_at:
            transfer.timer_at = transfer.deadline
            heappush(self.timers, (transfer.deadline, next(self.serial), transfer))
        return None

    def expire(self) -> None:
        """Look at the transfers whose timers have come, and put those back whose deadlines have moved on."""
        now = monotonic()
        while self.timers and self.timers[0][0] <= now:
            at, _, transfer = heappop(self.timers)
            if transfer.timer_at != at:
                continue  # it has an earlier timer by now, or is gone
            transfer.timer_at, then = inf, None
            if transfer.deadline <= now:
                then = transfer.send_again(now) if transfer.backs_off() else Then.OVER
            self.settle(transfer, then)

    def remove(self, transfer: Sender | Receiver) -> None:
        """Forget a transfer; a timer may hold it a while longer, and must leave it alone."""
        del self.transfers[transfer.peer]
        transfer.port.transfers -= 1
        transfer.timer_at = -inf
        self.dallying -= transfer.dallying
        transfer.close()

    def stop(self) -> None:
        """Tell every peer that waits, and leave no unfinished upload behind."""
        for transfer in list(self.transfers.values()):
            if not transfer.dallying:
                transfer.fail(Refusal(NOT_DEFINED, "server is stopping"))
            self.remove(transfer)
        for port in (self.listening, *self.ports):
            port.close()
        os.close(self.root)


class Transfer:
    """What both sides of a file share: the peer, and the retransmission timer (RFC 1123 section 4.2.3.2, RFC 6298)."""

    def __init__(self, port: Port, peer: Address, request: bytes, options: dict[bytes, int]) -> None:
        self.port, self.peer, self.request = port, peer, request
        self.dallying = False
        self.blksize, self.windowsize = options.get(b"blksize", 512), options.get(b"windowsize", 1)
        self.timeout_s = self.interval_s = self.wait_s = float(options.get(b"timeout", TIMEOUT_S))
        self.is_adaptive = b"timeout" not in options  # RFC 2349: what was agreed is kept
        self.srtt_s = self.rttvar_s = self.round_trip_min_s = 0.0
        self.timeouts = self.doublings = 0  # since the last progress; of the interval
        self.sent_at, self.is_timed = 0.0, False  # timed: its answer will tell the round trip (Karn's rule)
        self.deadline = self.timer_at = inf  # timer_at: when the heap of timers will name it next

    def progressed(self, now: float, newest: bool) -> None:
        """The transfer moved on, `newest`: by the answer to what was sent last."""
        if self.is_timed and newest:
            self.sample(now - self.sent_at)
        self.is_timed = False
        self.wait_s = self.interval_s
        if self.doublings:
            # Karn: the longer interval stays for one exchange more, so that a longer round trip can be sampled.
            self.doublings = self.doublings if self.timeouts else 0
            self.timeouts = 0
            self.wait_s = self.backed_off_s(self.interval_s)
        self.deadline = now + self.wait_s

    def sample(self, round_trip_s: float) -> None:
        """RFC 6298 section 2."""
        if self.srtt_s == 0:
            self.srtt_s, self.rttvar_s = round_trip_s, round_trip_s / 2
            self.round_trip_min_s = round_trip_s
        else:
            error_s = round_trip_s - self.srtt_s
            self.srtt_s += error_s / 8
            self.rttvar_s += (abs(error_s) - self.rttvar_s) / 4
            self.round_trip_min_s = min(self.round_trip_min_s, round_trip_s)
        if self.is_adaptive:
            self.interval_s = max(self.srtt_s + 4 * self.rttvar_s, TIMEOUT_MIN_S)

    def backs_off(self) -> bool:
        """The deadline came: wait twice as long from now on. False: it was the last."""
        self.timeouts += 1
        self.doublings += 1
        self.wait_s = self.backed_off_s(self.interval_s)
        return self.timeouts <= RETRIES and not self.dallying

    def backed_off_s(self, interval_s: float) -> float:
        """The interval after the doublings so far."""
        return min(interval_s * (1 << self.doublings), max(TIMEOUT_MAX_S, self.timeout_s))

    def handle_other(self, opcode: int) -> Then | None:
        """Neither DATA to a receiver nor an ACK to a sender."""
        if opcode == ERROR:
            return Then.OVER
        if opcode in {DATA, ACK, OACK}:
            return self.fail(Refusal(ILLEGAL, "this packet is for the other side to send"))
        return None  # not worth ending a transfer for: whoever sent it may not be the peer

    def fail(self, why: Refusal | OSError) -> Then:
        """End it with an ERROR."""
        self.port.send_or_lose(error_packet(why), self.peer)
        return Then.OVER


class Sender(Transfer):
    """Answers an RRQ. Blocks up to `acked` are acknowledged, `next` goes out next, `sent` is the highest ever sent.

    An OACK is block 0 and has a window of its own. Going back to `acked + 1` starts a new flight; an ACK that may be
    about an earlier one starts no other, so one loss costs one resend (RFC 7440 section 4).
    """

    def __init__(self, port: Port, peer: Address, request: bytes, options: dict[bytes, int], source: Source) -> None:
        super().__init__(port, peer, request, options)
        self.source = source
        self.last = source.size // self.blksize + 1  # RFC 1350 section 6: one block more than the full ones
        if b"tsize" in options:
            options[b"tsize"] = source.size
        self.acked = self.sent = self.sent_before = -1 if options else 0
        self.next, self.window_end = self.acked + 1, self.acked + 1
        self.ready, self.ready_from = [oack(options)], 0  # datagrams, and the block of the first
        self.flight_at, self.repeats_count_from = 0.0, 0

    def handle(self, datagram: bytes, now: float) -> Then | None:
        """Take a datagram of four bytes or more. ACKs of the past and the future are ignored."""
        opcode, number = HEADER.unpack_from(datagram)
        if opcode != ACK:
            return self.handle_other(opcode)
        step, in_flight = (number - self.acked) & 0xFFFF, self.sent - self.acked
        if step > in_flight:
            return None
        if step == 0:
            # RFC 1123 section 4.2.3.1: nothing in lock-step. In a larger window its first block was lost, once.
            if in_flight <= 1 or self.acked < self.repeats_count_from or not self.is_about_this_flight(now):
                return None
            self.repeats_count_from = self.sent + 1
        else:
            self.acked += step
            self.progressed(now, step == in_flight)
            if self.acked == self.last:
                return Then.OVER
            self.window_end = min(self.acked + self.windowsize, self.last)
            if step < in_flight and not self.is_about_this_flight(now):
                self.next = max(self.next, self.acked + 1)
                return self.transmit(now)
        self.flight_at = now
        return self.send_again(now)

    def is_about_this_flight(self, now: float) -> bool:
        """Whether the last ACK is for a block of no earlier flight, or later than half the shortest round trip."""
        if self.acked <= self.sent_before:
            return now - self.flight_at >= self.round_trip_min_s / 2
        self.round_trip_min_s = min(self.round_trip_min_s, now - self.flight_at)
        return True

    def send_again(self, now: float) -> Then | None:
        """Start a flight behind what is acknowledged."""
        self.next, self.sent_before = self.acked + 1, self.sent
        return self.transmit(now)

    def transmit(self, now: float) -> Then | None:
        """Send what the window has room for."""
        while self.next <= self.window_end:
            first = self.next - self.ready_from
            if not 0 <= first < len(self.ready):
                try:
                    self.make_ready()
                except (Refusal, OSError) as why:
                    return self.fail(why)
                first = 0
            batch = self.ready[first : first + self.window_end - self.next + 1]
            self.next += len(batch)
            sendto, peer = self.port.sendto, self.peer
            try:
                for datagram in batch:
                    sendto(datagram, peer)
            except OSError:  # lost, as by the network
                pass
        self.is_timed = self.next > self.sent + 1
        if self.is_timed:
            self.sent = self.next - 1
        self.sent_at, self.deadline = now, now + self.wait_s
        return None

    def make_ready(self) -> None:
        """Make the datagrams of the next few blocks. Raises Refusal or OSError."""
        blksize, first = self.blksize, self.next
        count = min(max(CHUNK_BYTES // blksize, 1), CHUNK_BLOCKS, self.last - first + 1)
        chunk = self.source.read((first - 1) * blksize, count * blksize)
        self.ready = [
            HEADER.pack(DATA, block & 0xFFFF) + chunk[start : start + blksize]
            for block, start in enumerate(range(0, count * blksize, blksize), first)
        ]
        self.ready_from = first

    def close(self) -> None:
        """Give file and memory back."""
        self.source.close()
        self.ready = []


class Receiver(Transfer):
    """Answers a WRQ. `received` is the newest block that came in order, `acked` the one last acknowledged."""

    def __init__(self, port: Port, peer: Address, request: bytes, options: dict[bytes, int], upload: Upload) -> None:
        super().__init__(port, peer, request, options)
        self.upload = upload
        self.received = self.acked = 0
        self.gap_is_reported = False
        self.opening = oack(options) if options else HEADER.pack(ACK, 0)  # empty once it is answered

    def handle(self, datagram: bytes, now: float) -> Then | None:
        """Take a datagram of four bytes or more. Blocks behind a gap are dropped: they are sent again anyway."""
        opcode, number = HEADER.unpack_from(datagram)
        step = (number - self.received) & 0xFFFF
        if self.dallying:
            if opcode == DATA and step == 0:
                self.send_ack(now)
                return self.dally(now, self.doublings + 1)
        elif opcode != DATA:
            return self.handle_other(opcode)
        elif len(datagram) > HEADER.size + self.blksize:
            return self.fail(Refusal(ILLEGAL, "DATA is larger than the agreed blksize"))
        elif step == 1:
            return self.take(datagram[HEADER.size :], now)
        elif step == 0:
            # RFC 1350 section 2: its ACK was lost; unless, in a window, this copy was under way before that ACK.
            overdue = self.windowsize == 1 or now - self.sent_at >= 2 * self.round_trip_min_s
            if self.acked == self.received > 0 and overdue:
                self.send_ack(now)
        elif step <= self.windowsize and not self.gap_is_reported:
            # RFC 7440 section 4: tell the sender where to go on, once until it does.
            self.opening, self.gap_is_reported = b"", True
            self.send_ack(now)
        return None

    def take(self, payload: bytes, now: float) -> Then | None:
        """Store a block, then acknowledge it if a window or the file ends with it."""
        self.opening, self.gap_is_reported = b"", False
        self.received += 1
        self.progressed(now, newest=True)
        try:
            self.upload.append(payload)
            if len(payload) == self.blksize:
                if self.received - self.acked >= self.windowsize:
                    self.send_ack(now)
                    self.is_timed = True
                return None
            self.upload.commit()
        except OSError as why:
            return self.fail(why)
        self.send_ack(now)
        self.dally(now, 0)
        return Then.DALLY

    def send_ack(self, now: float) -> None:
        """Of `received`."""
        self.acked = self.received
        self.port.send_or_lose(HEADER.pack(ACK, self.received & 0xFFFF), self.peer)
        self.sent_at, self.is_timed, self.deadline = now, False, now + self.wait_s

    def send_again(self, now: float) -> Then | None:
        """The opening, or the last ACK."""
        if self.opening:
            self.port.send_or_lose(self.opening, self.peer)
            self.sent_at, self.is_timed, self.deadline = now, self.timeouts == 0, now + self.wait_s
        else:
            self.send_ack(now)
        return None

    def dally(self, now: float, repeats: int) -> Then | None:
        """RFC 1350 section 6: stay half as long again as a peer would take to repeat its last DATA; not for ever."""
        self.doublings = repeats
        self.deadline = now + 1.5 * self.backed_off_s(self.timeout_s)
        return Then.OVER if repeats > RETRIES else None

    def close(self) -> None:
        """Leave nothing of an unfinished upload behind."""
        self.upload.close()


class Source:
    """A regular file that must stay as it was when it was opened. Raises Refusal or OSError."""

    def __init__(self, root: int, path: list[bytes]) -> None:
        folder = open_folder(root, path)
        try:
            # open(2): NONBLOCK so that a FIFO without a writer opens at once, NOCTTY so a terminal is not ours.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
            self.descriptor = os.open(path[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)
        self.opened = os.fstat(self.descriptor)
        self.size, self.check_at = self.opened.st_size, CHECK_EVERY_BYTES
        if not stat.S_ISREG(self.opened.st_mode):
            self.close()
            raise Refusal(ACCESS, "not a regular file")

    def read(self, offset: int, length: int) -> bytes:
        """What the file has of these bytes."""
        chunk = os.pread(self.descriptor, length, offset)
        end = offset + len(chunk)
        # Looked at after the read, so that what was read is known to be old; and always with the last byte.
        if end >= self.check_at or end >= self.size or len(chunk) < length:
            self.check_at = end + CHECK_EVERY_BYTES
            found, opened = os.fstat(self.descriptor), self.opened
            # Whatever happens to its names: only a change of the file itself counts.
            is_same = (found.st_size, found.st_mtime_ns) == (opened.st_size, opened.st_mtime_ns)
            if not is_same or end != min(offset + length, self.size):
                raise Refusal(NOT_DEFINED, "file changed while it was served")
        return chunk

    def close(self) -> None:
        """Once."""
        os.close(self.descriptor)


class Upload:
    """A file that has no name until it is whole, or a hidden one. Raises Refusal or OSError."""

    def __init__(self, root: int, path: list[bytes], size: int) -> None:
        self.name, self.gathered, self.hidden = path[-1], bytearray(), b""
        self.folder = open_folder(root, path)
        try:
            refuse_upload(self.folder, self.name, size)
            self.descriptor = self.open_nameless()
        except BaseException:
            os.close(self.folder)
            raise

    def open_nameless(self) -> int:
        """So that nothing is left whatever happens; or under a hidden name where open(2) refuses O_TMPFILE."""
        try:
            return os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=self.folder)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}:
                raise
        # Random, as a second server on the same root may have the same process ID, in another container.
        self.hidden = HIDDEN + b"py-" + os.urandom(16).hex().encode()
        return os.open(self.hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=self.folder)

    def append(self, payload: bytes) -> None:
        """Gather small blocks to one write."""
        self.gathered += payload
        if len(self.gathered) >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """All that is gathered."""
        while self.gathered:
            del self.gathered[: os.write(self.descriptor, self.gathered)]

    def commit(self) -> None:
        """Give the file its name; link(2) fails where another has it by now."""
        self.flush()
        # open(2), O_TMPFILE: through /proc no privilege is needed.
        itself = self.hidden or b"/proc/self/fd/%d" % self.descriptor
        os.link(itself, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=True)
        self.close()

    def close(self) -> None:
        """Any number of times."""
        if self.descriptor >= 0:
            with suppress(OSError):  # no reader is left
                os.close(self.descriptor)
            with suppress(OSError):
                os.unlink(self.hidden, dir_fd=self.folder)  # ENOENT where there is none
            os.close(self.folder)
            self.descriptor = -1


def parse_request(datagram: bytes) -> tuple[bytes, dict[bytes, int]]:
    """The file name, and what is granted of the options. Raises Refusal."""
    # Filename, mode, names and values each end with a NUL, so behind the last one is nothing.
    filename, *words = datagram[2:].split(b"\0")
    if len(datagram) > REQUEST_BYTES_MAX or not filename or not words or words.pop() or len(words) % 2 == 0:
        raise Refusal(ILLEGAL, "malformed request")
    if words[0].lower() != b"octet":
        raise Refusal(ILLEGAL, "octet is the only mode here")
    asked: dict[bytes, bytes] = {}
    for name, value in zip(words[1::2], words[2::2], strict=True):
        asked.setdefault(name.lower(), value)
    options = {}
    for name, (least, most) in OPTIONS.items():
        value = asked.get(name, b"")
        # RFC 2347: what is unknown, no number or out of range is left out of the OACK.
        if value.isdigit() and least <= int(value) <= most:
            options[name] = min(int(value), WINDOWSIZE_MAX) if name == b"windowsize" else int(value)
    return filename, options


def parse_path(filename: bytes) -> list[bytes]:
    """The names from the root down; a leading slash is the root's. Raises Refusal."""
    path = [name for name in filename.split(b"/") if name not in {b"", b"."}]
    if any(name == b".." or name.startswith(HIDDEN) for name in path):
        raise Refusal(ACCESS, "path leaves the root")
    if not path:
        raise Refusal(ACCESS, "not a regular file")
    return path


def open_folder(root: int, path: list[bytes]) -> int:
    """The folder that holds a file, the caller's to close. Raises Refusal or OSError."""
    folder = os.dup(root)
    for name in path[:-1]:
        above = folder
        try:
            folder = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except NotADirectoryError:  # open(2): a symbolic link gives it, too
            if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
                raise Refusal(ACCESS, "path leaves the root") from None
            raise
        finally:
            os.close(above)
    return folder


def refuse_upload(folder: int, name: bytes, size: int) -> None:
    """Raises Refusal where the name is taken or the disk too small (RFC 2349), and OSError."""
    disk = os.fstatvfs(folder)
    if size > disk.f_bavail * disk.f_frsize:
        raise Refusal(DISK_FULL, "disk full")
    with suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            raise Refusal(EXISTS, "file exists")
        raise Refusal(ACCESS, "path leaves the root" if stat.S_ISLNK(mode) else "not a regular file")


def oack(options: dict[bytes, int]) -> bytes:
    """RFC 2347."""
    return OACK.to_bytes(2) + b"".join(b"%s\0%d\0" % option for option in options.items())


def error_packet(why: Refusal | OSError) -> bytes:
    """The ERROR that tells a peer."""
    code, message = NOT_DEFINED, "input or output failed"
    if isinstance(why, Refusal):
        code, message = why.code, str(why)
    else:
        for known, meaning in MEANINGS.items():
            if why.errno in known:
                code, message = meaning
    return HEADER.pack(ERROR, code) + message.encode() + b"\0"


MEANINGS = {
    (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG): (NOT_FOUND, "file not found"),
    (errno.ELOOP,): (ACCESS, "path leaves the root"),  # open(2): a symbolic link under O_NOFOLLOW
    (errno.EISDIR, errno.ENXIO): (ACCESS, "not a regular file"),  # ENXIO: a socket
    (errno.EACCES, errno.EPERM, errno.EROFS): (ACCESS, "permission denied"),
    (errno.EEXIST,): (EXISTS, "file exists"),
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): (DISK_FULL, "disk full"),
    (errno.EMFILE, errno.ENFILE): (NOT_DEFINED, "server is out of open files"),
}


if __name__ == "__main__":
    sys.exit(main())
