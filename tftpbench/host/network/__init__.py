"""A network of its own for one server under test: two network namespaces, joined by a veth pair (docs/network.md).

`Network` starts the broker that makes it, opens sockets on either side of it, and ends it. It must never leave anything
behind: the broker ends with the last end of its control socket, kill -9 of this process included.
"""

import contextlib
import functools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tftpbench.host.network import broker
from tftpbench.host.network.broker import (
    GENERATOR,
    GENERATOR_MAC,
    MTU,
    PLAN4,
    PLAN6,
    ROUTER_MAC,
    SERVER,
    SERVER_MAC,
)
from tftpbench.model.errors import TftpbenchError

__all__ = [
    "GENERATOR",
    "GENERATOR_MAC",
    "ROUTER_MAC",
    "SERVER",
    "SERVER_MAC",
    "Network",
    "NetworkGone",
    "NetworkRefused",
    "fits_a_frame",
    "machines_network",
    "may_name_ids",
    "packet_refusal",
]

# An interpreter without packages starts in some 30 ms and the network is made in less; a machine under load gets more.
START_S = 10.0
END_S = 5.0
_IPV4_HEADERS_BYTES, _DATA_BYTES = 20 + 8, 4
Ids = Literal["all", "subordinate", "single", "outside"]


class NetworkRefused(TftpbenchError):
    """This machine makes no such network; the message is the reason, as the end of a sentence."""


class NetworkGone(TftpbenchError):
    """The broker was killed, so that no more sockets can be opened."""


@dataclass(frozen=True)
class _Facts:
    """What the broker says of what it made; see broker.py."""

    ids: Ids
    interface: int
    server_interface: int
    ipv6: bool
    packet: str
    low_ports: bool
    generator_thread: int


class Network:
    """One server's network, made when it is built. Raises NetworkRefused.

    `wants_root`: the server runs as the namespace's root. `program`: another broker, for tests. `descriptors` are what
    the server's first process enters, in this order; `requests_fd` is a connection to the broker for native code.
    """

    def __init__(self, *, wants_root: bool = False, program: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._control, control = _pair()
        self._requests, requests = _pair()
        self.descriptors: tuple[int, ...] = ()
        with control, requests:
            fds = control.fileno(), requests.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(program or broker.__file__), *map(str, fds), str(int(wants_root))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # its messages are on the socket; newuidmap(1) has some of its own
                stderr=subprocess.DEVNULL,
                pass_fds=fds,
                start_new_session=True,
            )
        try:
            self._facts = self._made()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The broker's process, whose main thread is in the server's network namespace."""
        return self._process.pid

    @property
    def server_proc(self) -> str:
        """The folder of proc(5) whose `net` is the server's."""
        return f"/proc/{self.pid}"

    @property
    def generator_proc(self) -> str:
        """The same of the generator's."""
        return f"/proc/{self.pid}/task/{self._facts.generator_thread}"

    @property
    def ids(self) -> Ids:
        """Which user ids there are in it: those of outside, where "outside" is without a user namespace."""
        return self._facts.ids

    @property
    def has_ipv6(self) -> bool:
        """Whether it has IPv6 addresses, too."""
        return self._facts.ipv6

    @property
    def packet_refusal(self) -> str:
        """Why there are no packet sockets in it; "" where there are."""
        return self._facts.packet

    @property
    def ring_interface(self) -> int:
        """The index of the generator's interface, for packet sockets."""
        return self._facts.interface

    @property
    def server_interface(self) -> int:
        """The index of the server's interface, for packet sockets."""
        return self._facts.server_interface

    @property
    def requests_fd(self) -> int:
        """A connection to the broker, for native code; it stays ours."""
        return self._requests.fileno()

    def server_address(self, *, ipv6: bool = False) -> str:
        """Where the server is to listen."""
        return (PLAN6 if ipv6 else PLAN4).server

    def null_address(self, *, ipv6: bool = False) -> str:
        """Where a null server is: beside the server, on an address that no interface has."""
        return (PLAN6 if ipv6 else PLAN4).null

    def socket(self, side: int, family: int, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
        """A socket on the side SERVER or GENERATOR. Raises OSError, NetworkGone where the broker is."""
        with self._lock:
            try:
                self._control.send(broker.REQUEST.pack(side, family, kind, protocol))
                answer, fds, _, _ = socket.recv_fds(self._control, broker.ANSWER.size, 1)
            except OSError:
                answer, fds = b"", []
        if len(answer) != broker.ANSWER.size:
            raise NetworkGone("the process that holds the server's network was killed")
        (code,) = broker.ANSWER.unpack(answer)
        if code:
            raise OSError(code, os.strerror(code))
        return socket.socket(fileno=fds[0])

    def close(self) -> None:
        """End it; what is in it ends with its last process. May be called again."""
        for each in (self._control, self._requests):
            each.close()
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = ()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _made(self) -> _Facts:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        message = b""
        fds: list[int] = []
        late = f"was not ready within {START_S:g} s"
        if poll.poll(START_S * 1000):
            late = "ended before it was ready"
            with contextlib.suppress(OSError):
                message, fds, _, _ = socket.recv_fds(self._control, 4096, 2)
        self.descriptors = tuple(fds)
        kind, _, text = message.decode("utf-8", "replace").partition(" ")
        if kind == "ready":
            return _Facts(**json.loads(text))
        raise NetworkRefused(text if kind == "failed" else f"the process that makes it {late}")


@functools.cache
def packet_refusal() -> str:
    """Why there are no packet sockets in such a network; "" where there are. Tried once. Raises NetworkRefused."""
    with Network() as tried:
        return tried.packet_refusal


def may_name_ids() -> bool:
    """Whether a server that changes its user finds other users in such a network (user_namespaces(7), newuidmap(1))."""
    if os.geteuid() == 0:
        return True
    granted = all(broker.subordinate(kind) for kind in ("uid", "gid"))
    return granted and all(shutil.which(program) for program in ("newuidmap", "newgidmap"))


def machines_network(host: str, *, ring: bool) -> str:
    """The network of the addresses that machines have towards this server, a Network's."""
    plan = PLAN6 if ip_address(host).version == 6 else PLAN4
    return plan.ring if ring else plan.sockets


def fits_a_frame(blksize: int) -> bool:
    """Whether a DATA block of so many bytes over IPv4 is one frame (RFC 1350 section 5: four bytes before it)."""
    return blksize + _DATA_BYTES + _IPV4_HEADERS_BYTES <= MTU


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
