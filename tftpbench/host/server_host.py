"""The machine that servers under test run on, as the runner sees it, and the one that tftpbench itself runs on.

Another machine is one more class with the methods of `ServerHost`, whose servers have those of `Server`. It must never
judge a server, and never print.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeGuard

from tftpbench.host import generator, machine
from tftpbench.host.effects import Calibration
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.network import Network
from tftpbench.host.presence import Found, Missing
from tftpbench.host.roots import Roots, roots
from tftpbench.host.server import Buffers, Ended, Samples, ServerProcess, UdpCounts, Usage, udp_drops_host
from tftpbench.model.manifest import Manifest
from tftpbench.model.workload import Cell


class Sampling(AbstractContextManager["Sampling", None], Protocol):
    """Looks at a server while its `with` block runs. `samples`: the most that was seen."""

    samples: Samples


class Edges(AbstractContextManager["Edges", None], Protocol):
    """Readings of a server where a window opens and closes, there when its `with` block has ended.

    `clock_error_ns`: by how much the clock that they were taken by may be wrong; None where it is this machine's.
    """

    opened: Usage
    closed: Usage
    clock_error_ns: int | None

    def late_ns(self, edges_ns: tuple[int, int]) -> int:
        """How late the later reading was, for a window that opened and closed then."""


class Server(AbstractContextManager["Server", None], Protocol):
    """One server under test. `start`, or entering a `with` block, returns when it has been seen to answer."""

    host: str
    port: int

    @property
    def network(self) -> Network | None:
        """Its own, while it runs; None where it has none."""

    @property
    def buffers(self) -> Buffers | None:
        """What the kernel granted its listening socket; None where that is not known."""

    def start(self) -> None:
        """Start it and wait for its first answer. Raises ServerNotReady or ServerDied."""

    def usage(self) -> Usage:
        """What it uses now."""

    def udp_counts(self) -> UdpCounts | None:
        """What its network namespace has counted of UDP so far; None where it has none of its own, or it is gone."""

    def strays(self) -> int | None:
        """Datagrams that found no socket on the generator's side of its network so far; None as for `udp_counts`."""

    def answers(self, timeout_s: float, on_silence: Callable[[float], object] = ..., /) -> bool:
        """Whether it answers a new request in time; see `readiness.answers`."""

    def edges(self, window: MeasuredWindow, cpus: Iterable[int] = ()) -> Edges:
        """A context manager that reads CPU time and context switches where the window opens and closes."""

    def sampler(self, cpus: Iterable[int] = (), on_death: Callable[[], object] = ..., /) -> Sampling:
        """A context manager that looks at it while a load runs."""

    def check_alive(self) -> None:
        """Raises ServerDied once none of its processes is left."""

    def stop(self, grace_s: float = ..., /) -> Ended | None:
        """End it; how it ended, None where it goes on."""


class Stored(NamedTuple):
    """Where a file that was uploaded must be, and what it holds."""

    path: Path
    number: int
    size_bytes: int


class RootFolders(Protocol):
    """The folders that servers serve. `base`: a folder of the runner's machine, for what else it keeps meanwhile."""

    base: Path

    @property
    def facts(self) -> Mapping[str, str]:
        """Where they are, for a run's manifest."""

    def fresh(self, cell: Cell, *, empty: bool = False) -> AbstractContextManager[Path]:
        """A root for the cell; none of its files where `empty`. Its path is for this host's own methods."""


class ServerHost(Protocol):
    """What the runner asks of the machine on which it starts servers."""

    def server(
        self,
        manifest: Manifest,
        *,
        root: Path,
        log: Path,
        host: str,
        concurrency: int,
        write: bool,
        variant: str | None,
        cpus: Sequence[int],
        in_network: bool = False,
    ) -> Server:
        """A server of the manifest, not yet started; see `ServerProcess`.

        `root` is one of `roots`. `log` is a path of the runner's machine: another one copies its log back.
        """

    def roots(self, cells: Sequence[Cell], seed: int) -> AbstractContextManager[RootFolders]:
        """Folders for these cells, whose contents are f(seed, file, offset); gone afterwards."""

    def wrong(self, uploads: Sequence[Stored], seed: int) -> list[Stored]:
        """Those that do not hold what they must, or are absent."""

    def udp_drops(self) -> int | None:
        """Datagrams dropped at all UDP sockets of the machine so far; None where it does not say."""

    def stolen_ticks(self, cores: Sequence[int]) -> tuple[int, int]:
        """Ticks that the hypervisor took from the cores, and all their ticks so far."""

    def waited_ns(self) -> tuple[int | None, int | None]:
        """For how long something has waited for a core so far, and was throttled; None where it does not say."""


class OtherServerHost(ServerHost, Protocol):
    """Another machine than the runner's. Its methods raise ServerHostLost once it can't be reached any more.

    `name`: among the hosts of its cluster. `address`: where servers listen. `cores`: those that it may use.
    `machine`: facts of it, as of this one.
    """

    name: str
    address: str
    cores: tuple[int, ...]
    machine: Mapping[str, str | int | float | bool | None]

    def locate(self, server: Manifest) -> Found | Missing:
        """Whether the server is there and can be started now; see `presence.locate`."""

    def calibrate(self, cores: Sequence[int]) -> Calibration | None:
        """How long fixed work takes there; see `effects.calibrate`."""


def is_other_host(host: ServerHost) -> TypeGuard[OtherServerHost]:
    """Whether servers run on another machine than the runner's. It is not asked for that."""
    return hasattr(host, "locate")


class ServerCluster(Protocol):
    """What has hosts on which servers can be started, as a load from several hosts has."""

    def server_host(self, name: str) -> AbstractContextManager[OtherServerHost]:
        """A host of it that takes no part in the load.

        Raises HostsError where it can't be used, UsageError where its address is one that the load does not reach.
        """


def has_server_hosts(generator: object) -> TypeGuard[ServerCluster]:
    """Whether servers can be started on hosts that it knows. None is asked for that."""
    return hasattr(generator, "server_host")


class LocalServerHost:
    """This machine: its own processes, files and network namespace."""

    server = staticmethod(ServerProcess)
    write_contents = staticmethod(generator.write_contents)
    first_difference = staticmethod(generator.first_difference)
    udp_drops = staticmethod(udp_drops_host)
    stolen_ticks = staticmethod(machine.stolen_ticks)

    def roots(self, cells: Sequence[Cell], seed: int) -> AbstractContextManager[Roots]:
        """In memory where that has room; see `roots.roots`."""
        return roots(cells, seed, self.write_contents)

    def wrong(self, uploads: Sequence[Stored], seed: int) -> list[Stored]:
        """Those that do not hold what they must, or are absent."""
        return [each for each in uploads if self._differs(each, seed)]

    def waited_ns(self) -> tuple[int | None, int | None]:
        """Pressure and throttling so far."""
        return machine.cpu_pressure_ns(), machine.throttled_ns()

    def _differs(self, upload: Stored, seed: int) -> bool:
        try:
            return self.first_difference(upload.path, seed, upload.number, upload.size_bytes) is not None
        except OSError:
            return True  # absent, or not for reading: not what a completed upload must be
