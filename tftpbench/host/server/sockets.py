"""Which UDP sockets belong to a server, what the kernel granted them, and what they dropped.

Read from proc(5) and by a look at the descriptor itself; nothing here changes a socket. Where the kernel hides
something the answer is None, never a guess.
"""

import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from tftpbench.host.server.supervisor import proc_or_nothing, read_proc
from tftpbench.model.escape import one_line

PROC = "/proc"
_SYS_PIDFD_GETFD = 438  # the same number on every architecture, since Linux 5.6


class UdpSocket(NamedTuple):
    """One row of /proc/net/udp or udp6."""

    port: int
    inode: int
    drops: int
    local: bytes = b""
    """Its address as the kernel writes it: hexadecimal digits, in words of the machine's byte order."""

    @property
    def is_loopback(self) -> bool:
        """Whether it is on a loopback address."""
        return _address(self.local).is_loopback


def udp_sockets(proc: str = PROC) -> list[UdpSocket]:
    """Every UDP socket of a network namespace, ours unless `proc` is given; empty where proc is not to be read.

    `proc`: the folder of proc(5) of a thread that is in the namespace.
    """
    return [row for name in ("udp", "udp6") for row in _rows(f"{proc}/net/{name}")]


def socket_inodes(pids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """The sockets that the processes hold open: inode to (process, descriptor)."""
    found: dict[int, tuple[int, int]] = {}
    for pid in pids:
        for descriptor, inode in _socket_descriptors(pid):
            found[inode] = (pid, descriptor)
    return found


def program_at(host: str, port: int) -> str | None:
    """The program that has this UDP port of this address, with its process; None where proc does not show it to us."""
    wanted = {row.inode for row in udp_sockets() if row.port == port and _takes(row.local, ip_address(host))}
    pids = map(int, filter(str.isdecimal, os.listdir("/proc"))) if wanted else ()
    for pid in pids:
        if any(inode in wanted for _, inode in _socket_descriptors(pid)):
            with contextlib.suppress(OSError):
                name = read_proc(f"/proc/{pid}/comm").decode("utf-8", "replace").removesuffix("\n")
                return f"{one_line(name)} (process {pid})"  # a program may call itself anything
    return None


class UdpCounts(NamedTuple):
    """What a network namespace has counted of UDP since it began, IPv6 included (/proc/net/snmp and snmp6).

    `received`: read from sockets; `no_buffer`: dropped, as a socket's buffer or the memory of all of them was full;
    `no_port`: nothing listened there; `bad_checksum`. A run of datagrams that the kernel gave or took in one piece
    (UDP_GRO, UDP_SEGMENT: udp(7)) counts once.
    """

    received: int = 0
    sent: int = 0
    no_buffer: int = 0
    no_port: int = 0
    bad_checksum: int = 0

    def since(self, earlier: "UdpCounts") -> "UdpCounts":
        """What was counted from then on."""
        return UdpCounts(*(now - then for now, then in zip(self, earlier, strict=True)))

    @property
    def arrived(self) -> int:
        """All that came in, wherever it went; but for what waits in a socket's buffer."""
        return self.received + self.no_buffer + self.no_port + self.bad_checksum


def udp_counts(proc: str = PROC) -> UdpCounts | None:
    """Those of a network namespace, as `udp_sockets` has it; None where proc does not show them."""
    counts = _snmp(proc)
    if counts is None:
        return None

    def both(*names: bytes) -> int:
        return sum(int(counts.get(prefix + name, 0)) for prefix in (b"", b"Udp6") for name in names)

    return UdpCounts(
        received=both(b"InDatagrams"),
        sent=both(b"OutDatagrams"),
        no_buffer=both(b"RcvbufErrors", b"MemErrors"),
        no_port=both(b"NoPorts"),
        bad_checksum=both(b"InCsumErrors"),
    )


def udp_drops_host(proc: str = PROC) -> int | None:
    """Datagrams dropped for want of buffer at all UDP sockets of a network namespace, IPv6 included, since it began.

    /proc/net/snmp and snmp6, RcvbufErrors (the socket's buffer was full) and MemErrors (udp_mem, the pool of all of
    them, was). None where proc does not show them.
    """
    counts = udp_counts(proc)
    return None if counts is None else counts.no_buffer


def udp_strays_host(proc: str = PROC) -> int | None:
    """Datagrams that came to a UDP port on which nothing listened, in a network namespace; None where unknown."""
    counts = udp_counts(proc)
    return None if counts is None else counts.no_port


def _snmp(proc: str) -> dict[bytes, bytes] | None:
    try:
        lines = read_proc(f"{proc}/net/snmp").splitlines()
        names, values = (line.split() for line in lines if line.startswith(b"Udp: "))
    except (OSError, ValueError):
        return None
    counts = dict(zip(names, values, strict=False))
    with contextlib.suppress(OSError):  # a kernel without IPv6 has no such file
        lines = read_proc(f"{proc}/net/snmp6").splitlines()
        counts |= dict(pair for line in lines if len(pair := line.split()) == 2)
    return counts


class DropCount:
    """Datagrams dropped at one server's sockets, remembered when a socket is closed.

    A socket that lived only between two looks is missed; what the host dropped beyond this count is `udp_drops_host`'s.
    """

    def __init__(self, proc: str = PROC) -> None:
        self._proc = proc
        self._host: int | None = None
        self._seen: dict[int, int] | None = None  # by inode, of all programs; None until the kernel has shown some
        self._ours: dict[int, int] = {}

    def count(self, pids: Sequence[int]) -> int | None:
        """How many by now. Cheap while nothing is dropped: thousands of sockets and descriptors are left alone."""
        host = udp_drops_host(self._proc)  # first: what is dropped from here on shows in the next look
        if self._seen is None or host is None or host != self._host:
            self._host = host
            self._take(udp_sockets(self._proc), pids)
        return None if self._seen is None else sum(self._ours.values())

    def _take(self, rows: Sequence[UdpSocket], pids: Sequence[int]) -> None:
        if not rows:
            return
        seen = self._seen or {}
        dropped = {row.inode: row.drops for row in rows if row.drops}
        if any(seen.get(inode) != drops for inode, drops in dropped.items()):
            mine = socket_inodes(pids)
            self._ours |= {inode: drops for inode, drops in dropped.items() if inode in mine}
        self._seen = dropped


def granted_buffers(pid: int, descriptor: int) -> tuple[int, int] | None:
    """SO_RCVBUF and SO_SNDBUF in bytes as the kernel counts them, or None where it won't let us look.

    pidfd_getfd(2) needs the right to trace the process, which a parent has over a server of the same user.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_GETFD, process, descriptor, 0)
    finally:
        os.close(process)
    if copy < 0:
        return None
    with socket.socket(fileno=copy) as borrowed:
        return (
            borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
            borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        )


def _rows(path: str) -> Iterator[UdpSocket]:
    for line in proc_or_nothing(path).splitlines()[1:]:
        fields = line.split()
        # proc(5): sl local_address rem_address st queues tr:tm retrnsmt uid timeout inode ref pointer drops
        local, _, port = fields[1].rpartition(b":")
        yield UdpSocket(int(port, 16), int(fields[9]), int(fields[12]), local)


def _takes(local: bytes, address: IPv4Address | IPv6Address) -> bool:
    """Whether a socket there leaves the address to no other: on the same one, or one of them on all addresses."""
    found = _address(local)
    return found == address or found.is_unspecified or address.is_unspecified


def _address(local: bytes) -> IPv4Address | IPv6Address:
    words = bytes.fromhex(local.decode("ascii"))
    packed = b"".join(int.from_bytes(words[at : at + 4], sys.byteorder).to_bytes(4) for at in range(0, len(words), 4))
    found = ip_address(packed)
    return getattr(found, "ipv4_mapped", None) or found


def _socket_descriptors(pid: int) -> Iterator[tuple[int, int]]:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return  # gone meanwhile, or of another user
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(descriptor), int(target[8:-1])
