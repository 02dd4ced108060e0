"""`ServerProcess`: one fresh server under test, from its command to its certain end.

It must never leave a process or a port behind, whatever the server does; a server that misbehaves raises one line that
names it, with the last line of its log.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.network import GENERATOR, SERVER, Network, NetworkRefused
from tftpbench.host.server.client import Ended, SupervisorClient
from tftpbench.host.server.readiness import (
    HERE,
    Place,
    PortTaken,
    answers,
    free_port,
    is_taken,
    wait_for_answer,
    wait_for_line,
)
from tftpbench.host.server.sampler import EdgeReader, Sampler
from tftpbench.host.server.sockets import (
    UdpCounts,
    granted_buffers,
    socket_inodes,
    udp_counts,
    udp_sockets,
)
from tftpbench.host.server.uploads import Handover
from tftpbench.host.server.usage import Usage, UsageReader
from tftpbench.model.errors import ServerDied, ServerError, ServerNotReady
from tftpbench.model.escape import one_line
from tftpbench.model.manifest import Manifest

READY_TIMEOUT_S = 10.0  # an interpreted server with many imports on a busy machine needs 2 s
STOP_GRACE_S = 2.0  # between SIGTERM and SIGKILL
# Between our look for a free port and the server's bind another program may take it; three times in a row is no
# coincidence.
_PORT_ATTEMPTS = 3


class NoNetwork(ServerNotReady):
    """This machine makes no network for it."""


@dataclass(frozen=True)
class Buffers:
    """What the kernel granted the listening socket, in bytes (twice what was asked for, socket(7))."""

    receive_bytes: int
    send_bytes: int


class ServerProcess:
    """One server. `start` returns when it has been seen to answer; `stop`, or leaving a `with` block, ends all of it.

    `port` None means the manifest's fixed port, or a free one. `log` receives the server's output, bounded. `cpus` are
    those it may run on, empty for all. With `hands_over`, `handover` gives its uploads while it runs. With `in_network`
    it runs in a `network` of its own, from `start` to `stop`, and `host` is its address there.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        root: Path,
        log: Path,
        host: str = "127.0.0.1",
        port: int | None = None,
        concurrency: int = 1,
        write: bool = False,
        variant: str | None = None,
        cpus: Sequence[int] = (),
        ready_timeout_s: float = READY_TIMEOUT_S,
        hands_over: bool = False,
        in_network: bool = False,
    ) -> None:
        self.manifest = manifest
        self.host = host
        self.port = port or 0
        self.log = log
        self.argv: list[str] = []
        self.buffers: Buffers | None = None
        self.handover: Handover | None = None
        self.network: Network | None = None
        self._in_network = in_network
        self._root = root
        self._wanted_port = port
        self._concurrency = concurrency
        self._write = write
        self._variant = variant
        self._cpus = tuple(cpus)
        self._ready_timeout_s = ready_timeout_s
        self._hands_over = hands_over
        self._place = HERE
        self._supervisor: SupervisorClient | None = None
        self._reader: UsageReader | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises ServerNotReady or ServerDied, with nothing left behind."""
        if self._in_network and self.network is None:
            self._make_network()
        port = self.manifest.fixed_port or self._wanted_port
        if port and is_taken(self.host, port, self._place):
            self.stop(grace_s=0)
            taken = f"UDP port {port} on {self.host} is taken by another process; stop that first"
            raise PortTaken(f"{self.manifest.name}: {taken}")
        attempts = _PORT_ATTEMPTS if self._picks_port() else 1
        for attempt in range(1, attempts + 1):
            try:
                self._start_once()
                return
            except ServerError as error:
                self._end(grace_s=0)
                if attempt < attempts and (isinstance(error, PortTaken) or _taken(self.port, self._place)):
                    continue
                self.stop(grace_s=0)
                raise type(error)(f"{self.manifest.name}: {error}{self._last_log_line()}") from None
            except BaseException:
                self.stop(grace_s=0)
                raise

    def usage(self) -> Usage:
        """What it uses now."""
        return self._running()[1].look()

    def cpu_ns(self) -> int | None:
        """CPU time of every process it ever had: a few system calls, cheap enough for the end of a measured window."""
        return self._running()[1].cpu_ns()

    def context_switches(self) -> int | None:
        """Context switches of every process it ever had, as cheap; None where the kernel doesn't let us count them."""
        return self._running()[1].context_switches()

    def answers(self, timeout_s: float, on_silence: Callable[[float], object] = lambda _: None) -> bool:
        """Whether it answers a request for a file that can't exist in time."""
        return answers(self.host, self.port, timeout_s, on_silence=on_silence, place=self._place)

    def udp_counts(self) -> UdpCounts | None:
        """What its network has counted of UDP, but for `answers`; None where it has none of its own."""
        return None if self.network is None else udp_counts(self.network.server_proc)

    def strays(self) -> int | None:
        """Datagrams that found no socket on the generator's side of its network; None where it has none of its own."""
        counts = None if self.network is None else udp_counts(self.network.generator_proc)
        return None if counts is None else counts.no_port

    def edges(self, window: MeasuredWindow, cpus: Iterable[int] = ()) -> EdgeReader:
        """A context manager that reads CPU time and context switches at both edges of the window; see `EdgeReader`."""
        return EdgeReader(self._counted, window, cpus)

    def sampler(self, cpus: Iterable[int] = (), on_death: Callable[[], object] = lambda: None) -> Sampler:
        """A context manager that looks at the server while its block runs; see `Sampler`."""
        supervisor, reader = self._running()
        return Sampler(reader, supervisor, cpus, on_death)

    def alive(self) -> bool:
        """Whether any process of it is left."""
        return self._supervisor is not None and self._supervisor.alive()

    def check_alive(self) -> None:
        """Raises ServerDied, with how it ended and the last line of its log, once none of its processes is left."""
        supervisor, _ = self._running()
        if not supervisor.alive():
            self.stop(grace_s=0)
            raise ServerDied(f"{self.manifest.name}: died with {supervisor.ended.text}{self._last_log_line()}")

    def stop(self, grace_s: float = STOP_GRACE_S) -> Ended:
        """SIGTERM, `grace_s` to comply, SIGKILL to all that is left; returns how it ended. May be called again."""
        ended = self._end(grace_s)
        if self.network is not None:
            self.network.close()
            self.network, self._place = None, HERE
        return ended

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(STOP_GRACE_S if kind is None else 0)

    def _end(self, grace_s: float) -> Ended:
        ended = self._supervisor.stop(grace_s) if self._supervisor is not None else Ended(None, None, 0)
        if self.handover is not None:
            self.handover.close()
        return ended

    def _make_network(self) -> None:
        try:
            network = self.network = Network(wants_root=self.manifest.privileges is not None)
        except NetworkRefused as error:
            raise NoNetwork(f"{self.manifest.name}: has no network of its own: {error}") from None
        self.host = network.server_address()
        self._place = Place(
            beside=functools.partial(network.socket, SERVER),
            towards=functools.partial(network.socket, GENERATOR),
            proc=network.server_proc,
        )

    def _counted(self) -> Usage:
        """CPU time and context switches, when both had been read, and what takes longer after them."""
        cpu_ns, context_switches = self.cpu_ns(), self.context_switches()
        at_ns = time.monotonic_ns()
        return Usage(at_ns, cpu_ns, context_switches=context_switches, waited_ns=self._running()[1].waited_ns())

    def _start_once(self) -> None:
        if self._picks_port():
            self.port = free_port(self.host, self._place)
        elif self.manifest.fixed_port is not None:
            self.port = self.manifest.fixed_port
        else:
            self.port = self._wanted_port or 0  # 0: it picks one and says so in its READY line
        handover = self.handover = Handover() if self._hands_over else None
        handover_fd = handover.their_fd if handover is not None else None
        self.argv = self.manifest.command(
            self.host, self.port, self._root, self._concurrency, self._write, self._variant, handover_fd
        )
        deadline = time.monotonic() + self._ready_timeout_s
        env = self.manifest.environment(self.host, self.port, self._root, self._concurrency)
        supervisor = self._supervisor = SupervisorClient(
            self.argv, self.log, self._cpus, env, handover_fd, self._namespaces()
        )
        if handover is not None:
            handover.was_inherited()
        supervisor.wait_started()
        if self.manifest.ready == "line":
            self.port = wait_for_line(supervisor, self.host, deadline, self._place)
        else:
            wait_for_answer(supervisor, self.host, self.port, deadline, self._place)
        self._reader = UsageReader(supervisor, self._place.proc)
        self.buffers = _listening_buffers(supervisor.process_tree(), self.port, self._place)

    def _namespaces(self) -> tuple[int, ...]:
        """What it enters: the user namespace first, which makes it the owner of the other."""
        return () if self.network is None else self.network.descriptors[::-1]

    def _picks_port(self) -> bool:
        return self.manifest.ready == "answer" and self._wanted_port is None and self.manifest.fixed_port is None

    def _running(self) -> tuple[SupervisorClient, UsageReader]:
        if self._supervisor is None or self._reader is None:
            raise ServerNotReady(f"{self.manifest.name}: is not running; call start() first")
        return self._supervisor, self._reader

    def _last_log_line(self) -> str:
        """The last line of its log that says something, as the end of a sentence."""
        try:
            lines = self.log.read_bytes()[-4096:].decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        spoken = [line.strip() for line in lines if line.strip()]
        return f"; its last log line: {one_line(spoken[-1], 200)}" if spoken else "; it said nothing"


def _taken(port: int, place: Place) -> bool:
    """Whether another program has the port although our server is gone."""
    return any(row.port == port for row in udp_sockets(place.proc))


def _listening_buffers(pids: Sequence[int], port: int, place: Place) -> Buffers | None:
    owners = socket_inodes(pids)
    for row in udp_sockets(place.proc):
        if row.port == port and row.inode in owners:
            granted = granted_buffers(*owners[row.inode])
            return Buffers(*granted) if granted else None
    return None
