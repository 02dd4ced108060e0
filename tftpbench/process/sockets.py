"""Which UDP sockets belong to a server, what the kernel granted them, and what they dropped.

Read from proc(5) and by a look at the descriptor itself; nothing here changes a socket. Where the kernel hides
something the answer is None, never a guess. Called by `tftpbench.process` only.
"""

import ctypes
import os
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_SYS_PIDFD_GETFD = 438  # the same number on every architecture, since Linux 5.6


class UdpSocket(NamedTuple):
    """One row of /proc/net/udp or udp6."""

    port: int
    inode: int
    drops: int


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
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines[1:]:
        fields = line.split()
        # proc(5): sl local_address rem_address st queues tr:tm retrnsmt uid timeout inode ref pointer drops
        yield UdpSocket(int(fields[1].rpartition(b":")[2], 16), int(fields[9]), int(fields[12]))


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
