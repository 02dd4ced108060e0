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

_SYS_PIDFD_GETFD = 438  # the same number on every architecture, since Linux 5.6
_DROPPED = (b"RcvbufErrors", b"MemErrors", b"Udp6RcvbufErrors", b"Udp6MemErrors")
_STRAY = (b"NoPorts", b"Udp6NoPorts")


class UdpSocket(NamedTuple):
    """One row of /proc/net/udp or udp6."""

    port: int
    inode: int
    drops: int
    local: bytes = b""
    """Its address as the kernel writes it: hexadecimal digits, in words of the machine's byte order."""


def udp_sockets() -> list[UdpSocket]:
    """Every UDP socket of this network namespace; empty where proc is not to be read."""
    return [row for name in ("udp", "udp6") for row in _rows(f"/proc/net/{name}")]


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


def udp_drops_host() -> int | None:
    """Datagrams dropped for want of buffer at all UDP sockets of this network namespace, IPv6 included, since it began.

    /proc/net/snmp and snmp6, RcvbufErrors (the socket's buffer was full) and MemErrors (udp_mem, the pool of all of
    them, was). None where proc does not show them.
    """
    return _udp_counts(_DROPPED)


def udp_strays_host() -> int | None:
    """Datagrams that came to a UDP port on which nothing listened, in this network namespace, IPv6 included.

    /proc/net/snmp and snmp6, NoPorts. None where proc does not show them.
    """
    return _udp_counts(_STRAY)


def _udp_counts(wanted: Iterable[bytes]) -> int | None:
    try:
        names, values = (line.split() for line in read_proc("/proc/net/snmp").splitlines() if line.startswith(b"Udp: "))
    except (OSError, ValueError):
        return None
    counts = dict(zip(names, values, strict=False))
    with contextlib.suppress(OSError):  # a kernel without IPv6 has no such file
        counts |= dict(pair for line in read_proc("/proc/net/snmp6").splitlines() if len(pair := line.split()) == 2)
    return sum(int(counts.get(name, 0)) for name in wanted)


class DropCount:
    """Datagrams dropped at one server's sockets, remembered when a socket is closed.

    A socket that lived only between two looks is missed; what the host dropped beyond this count is `udp_drops_host`'s.
    """

    def __init__(self) -> None:
        self._host: int | None = None
        self._seen: dict[int, int] | None = None  # by inode, of all programs; None until the kernel has shown some
        self._ours: dict[int, int] = {}

    def count(self, pids: Sequence[int]) -> int | None:
        """How many by now. Cheap while nothing is dropped: thousands of sockets and descriptors are left alone."""
        host = udp_drops_host()  # first: what is dropped from here on shows in the next look
        if self._seen is None or host is None or host != self._host:
            self._host = host
            self._take(udp_sockets(), pids)
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
    words = bytes.fromhex(local.decode("ascii"))
    packed = b"".join(int.from_bytes(words[at : at + 4], sys.byteorder).to_bytes(4) for at in range(0, len(words), 4))
    found = ip_address(packed)
    found = getattr(found, "ipv4_mapped", None) or found
    return found == address or found.is_unspecified or address.is_unspecified


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
