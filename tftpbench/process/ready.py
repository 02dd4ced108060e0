"""Has the server answered, and was it really this server? Observed, never slept for.

It must never wait longer than it was told to, and never take another process's answer for the server's. Called by
`tftpbench.process.server` only.
"""

import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence

from tftpbench.errors import ServerDied, ServerNotReady
from tftpbench.process.keeper import KeeperLink
from tftpbench.process.sockets import socket_inodes, udp_sockets

# A lost probe costs this much; a server that is slow to start is asked 20 times a second, which costs it nothing.
_PROBE_S = 0.05
_ERROR_AND_BYE = struct.pack("!HH", 5, 0) + b"probe only\0"


def wait_for_line(link: KeeperLink, deadline: float) -> int:
    """The port of the READY line, which must name a process of this server and a port of it.

    The host it names is left alone: the server was told one, and a wildcard is nothing to send to.
    """
    while link.ready is None:
        _still_waiting(link, deadline, "printed no READY line")
        link.hear(_PROBE_S)
    _, port, pid = link.ready
    if pid not in link.family():
        raise ServerNotReady(f"its READY line names process {pid}, which is not one of its own")
    if owns_port(link.family(), port) is False:
        raise ServerNotReady(f"its READY line names port {port}, where it has no UDP socket")
    return port


def wait_for_answer(link: KeeperLink, host: str, port: int, deadline: float) -> None:
    """Ask for a file that can't exist until something comes back and the port is this server's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        request = struct.pack("!H", 1) + f"absent-{secrets.token_hex(8)}".encode() + b"\0octet\0"
        while True:
            _still_waiting(link, deadline, f"did not answer on port {port}")
            _send(probe, request, (host, port))
            if _answered(probe, _PROBE_S) and _is_ours(link, port):
                return


def owns_port(pids: Sequence[int], port: int) -> bool | None:
    """Whether one of the processes has a UDP socket on `port`; None where the kernel does not show its sockets."""
    rows = udp_sockets()
    if not rows or not all(os.access(f"/proc/{pid}/fd", os.R_OK) for pid in pids):
        return None
    return not {row.inode for row in rows if row.port == port}.isdisjoint(socket_inodes(pids))


def free_port(host: str) -> int:
    """A UDP port that nobody had a moment ago."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _still_waiting(link: KeeperLink, deadline: float, why: str) -> None:
    if not link.alive():
        if link.failed is not None:
            raise ServerNotReady(f"could not be started: {link.failed}")
        raise ServerDied(f"ended with {link.ended.text} before it was ready")
    if time.monotonic() > deadline:
        raise ServerNotReady(f"{why} in time")


def _is_ours(link: KeeperLink, port: int) -> bool:
    if owns_port(link.family(), port) is not False:
        return True
    raise ServerNotReady(f"port {port} belongs to another process")


def _answered(probe: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(probe, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return False
    return _try(lambda: _take(probe))


def _take(probe: socket.socket) -> None:
    answer, peer = probe.recvfrom(65536)
    if answer[:2] != b"\0\5":
        probe.sendto(_ERROR_AND_BYE, peer)  # it began a transfer: end it, or it retransmits into the trial


def _send(probe: socket.socket, request: bytes, server: tuple[str, int]) -> None:
    _try(lambda: probe.sendto(request, server))


def _try(action: Callable[[], object]) -> bool:
    """False on an error of the socket: an ICMP refusal of an earlier probe means only that nobody is there yet."""
    try:
        action()
    except OSError:
        return False
    return True
