"""Has the server answered, and was it really this server? Observed, never slept for.

It must never wait longer than it was asked to, and never take another process's answer for the server's.
"""

import errno
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

from tftpbench.host.server.client import SupervisorClient
from tftpbench.host.server.messages import DATAGRAM_BYTES_MAX, Opcode, address, address_family, request
from tftpbench.host.server.sockets import PROC, socket_inodes, udp_sockets
from tftpbench.model.errors import ServerDied, ServerNotReady, nothing_listens

# ip(7), ipv6(7): without these an unconnected socket hears of no ICMP; Python has no names for them.
RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
# A server that is started again refuses for a moment; for so long, one that has ended.
REFUSED_S = 5.0
_ERRQUEUE = 0x2000  # MSG_ERRQUEUE of recv(2): Python has no name for it before 3.12
# A lost probe costs this much; a server that is slow to start is asked 20 times a second, which costs it nothing.
_PROBE_S = 0.05
# Each look may miss a row; ten in a row on a machine with thousands of sockets do not.
_LOOKS = 10
_ERROR_AND_BYE = struct.pack("!HH", Opcode.ERROR, 0) + b"probe only\0"


class PortRefused(ServerNotReady):
    """ICMP says again and again that nothing listens."""


class PortTaken(ServerNotReady):
    """Another process has the port that was free when we looked."""


@dataclass(frozen=True)
class Place:
    """How sockets are opened beside a server and towards it, and where proc(5) shows its network namespace.

    All of them are this process's own, unless it says otherwise.
    """

    beside: Callable[[int], socket.socket] = lambda family: socket.socket(family, socket.SOCK_DGRAM)
    towards: Callable[[int], socket.socket] = lambda family: socket.socket(family, socket.SOCK_DGRAM)
    proc: str = PROC


HERE = Place()


def wait_for_line(supervisor: SupervisorClient, host: str, deadline: float, place: Place = HERE) -> int:
    """The port of the READY line, which must name a process of this server and a port of it.

    The host it names is left alone: the server was given `host`, and a wildcard is nothing to send to.
    """
    while supervisor.ready is None:
        _still_waiting(supervisor, deadline, lambda: "printed no READY line in time")
        supervisor.receive(_PROBE_S)
    _, port, pid = supervisor.ready
    if pid not in supervisor.process_tree():
        raise ServerNotReady(f"its READY line names process {pid}, which is not one of its own")
    if not _is_ours(supervisor, port, place):
        raise ServerNotReady(f"its READY line names port {port}, where it has no UDP socket")
    if place is not HERE and _is_on_loopback_alone(supervisor, port, place):
        raise ServerNotReady(_on_loopback(host))
    return port


def wait_for_answer(supervisor: SupervisorClient, host: str, port: int, deadline: float, place: Place = HERE) -> None:
    """Ask for a file that can't exist until something comes back and the port is this server's."""
    with _Probe(host, port, place) as probe:
        while True:
            _still_waiting(supervisor, deadline, lambda: _unanswered(supervisor, host, port, place))
            if probe.ask():
                if _is_ours(supervisor, port, place):
                    return
                raise PortTaken(f"port {port} belongs to another process")


def answers(
    host: str,
    port: int,
    timeout_s: float,
    asked: bytes | None = None,
    repeats_s: tuple[float, float] = (_PROBE_S, _PROBE_S),
    on_silence: Callable[[float], object] = lambda _: None,
    place: Place = HERE,
    *,
    hears_refusals: bool = False,
) -> bool:
    """Whether anything comes back in time for the request `asked`, or for one of its copies.

    None asks for a file that can't exist. A transfer that begins is ended with an ERROR. `repeats_s`: what is waited
    before the second copy, which doubles up to the most. `on_silence` is called after each of them with the time since
    the first, in seconds. `hears_refusals`: raises PortRefused where ICMP answers each copy for REFUSED_S.
    """
    began, (repeat_s, repeat_max_s) = time.monotonic(), repeats_s
    heard_s = began
    with _Probe(host, port, place, asked) as probe:
        if hears_refusals:
            probe.hear_refusals()
        while (left_s := began + timeout_s - time.monotonic()) > 0:
            if probe.ask(min(repeat_s, left_s)):
                return True
            if not probe.is_refused:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s >= REFUSED_S:
                raise PortRefused(nothing_listens(f"port {port}"))
            repeat_s = min(2 * repeat_s, repeat_max_s)
            on_silence(time.monotonic() - began)
    return False


class _Probe(AbstractContextManager["_Probe", None]):
    """A client that asks, for a file that can't exist where no request is given; an ERROR is an answer, too."""

    def __init__(self, host: str, port: int, place: Place, asked: bytes | None = None) -> None:
        self._server = address(host, port)
        self._request = asked or request("read", f"absent-{secrets.token_hex(8)}", {})
        self._socket = place.towards(address_family(host))
        self._socket.setblocking(False)
        self.is_refused = False

    def hear_refusals(self) -> None:
        """ICMP is heard from now on."""
        self._socket.setsockopt(*RECVERR[self._socket.family], 1)

    def ask(self, wait_s: float = _PROBE_S) -> bool:
        """Ask once more and wait a little; `is_refused` says whether ICMP answered."""
        self.is_refused = False
        _try(lambda: self._socket.sendto(self._request, self._server))
        poll, ends = select.poll(), time.monotonic() + wait_s
        poll.register(self._socket, select.POLLIN)
        while (left_s := ends - time.monotonic()) > 0 and poll.poll(left_s * 1000):
            if _try(self._take):
                return True
            self._take_errors()
        return False

    def _take_errors(self) -> None:
        """What ICMP said; left where it is, it would wake each poll(2) at once."""
        while _try(lambda: self._socket.recvmsg(1, 1024, _ERRQUEUE)):
            self.is_refused = True

    def _take(self) -> None:
        answer, peer = self._socket.recvfrom(DATAGRAM_BYTES_MAX)
        if answer[:2] != struct.pack("!H", Opcode.ERROR):
            self._socket.sendto(_ERROR_AND_BYE, peer)  # it began a transfer: end it, or it retransmits into the trial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def owns_port(pids: Sequence[int], port: int, proc: str = PROC) -> bool | None:
    """Whether one of the processes has a UDP socket on `port`; None where the kernel does not show its sockets."""
    rows = udp_sockets(proc)
    if not rows or not all(os.access(f"/proc/{pid}/fd", os.R_OK) for pid in pids):
        return None
    return not {row.inode for row in rows if row.port == port}.isdisjoint(socket_inodes(pids))


def is_taken(host: str, port: int, place: Place = HERE) -> bool:
    """Whether this UDP port is taken now; False where we may not ask (a port below 1024, ip(7))."""
    with place.beside(address_family(host)) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def free_port(host: str, place: Place = HERE) -> int:
    """A UDP port that was free a moment ago."""
    with place.beside(address_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _still_waiting(supervisor: SupervisorClient, deadline: float, why: Callable[[], str]) -> None:
    if not supervisor.alive():
        if supervisor.failed is not None:
            raise ServerNotReady(f"could not be started: {supervisor.failed}")
        raise ServerDied(f"ended with {supervisor.ended.text} before it was ready")
    if time.monotonic() > deadline:
        raise ServerNotReady(why())


def _unanswered(supervisor: SupervisorClient, host: str, port: int, place: Place) -> str:
    """Why nothing came back, as far as its sockets tell: it may listen where nothing in its network reaches it."""
    owners = socket_inodes(supervisor.process_tree())
    ours = [row for row in udp_sockets(place.proc) if row.inode in owners]
    if place is not HERE and any(row.is_loopback for row in ours):
        return _on_loopback(host)
    return f"did not answer on port {port} in time"


def _on_loopback(host: str) -> str:
    return (
        f"listens on loopback, and not on {host}, the address of its network; "
        "allowed: --set placement.network=loopback (load: no --network), or a manifest whose command has {host}"
    )


def _is_on_loopback_alone(supervisor: SupervisorClient, port: int, place: Place) -> bool:
    """Whether nothing but loopback reaches the port in the server's network, which no other program is in.

    Looked for again and again, as in `_is_ours`. False where proc(5) shows no such socket.
    """
    is_seen = False
    for _ in range(_LOOKS):
        rows = [row for row in udp_sockets(place.proc) if row.port == port]
        if not all(row.is_loopback for row in rows):
            return False
        is_seen = is_seen or bool(rows)
        supervisor.receive(_PROBE_S)
    return is_seen


def _is_ours(supervisor: SupervisorClient, port: int, place: Place) -> bool:
    """Looked for again and again: udp(7)'s list in proc(5) may lack a row while others open and close sockets."""
    for _ in range(_LOOKS):
        if owns_port(supervisor.process_tree(), port, place.proc) is not False:
            return True
        supervisor.receive(_PROBE_S)
    return False


def _try(action: Callable[[], object]) -> bool:
    """False on an error of the socket: an ICMP refusal of an earlier probe says only that nothing listens yet."""
    try:
        action()
    except OSError:
        return False
    return True
