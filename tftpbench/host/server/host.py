"""The machine that servers under test run on, as the runner sees it, and the one that tftpbench itself runs on.

Another machine is one more class with the methods of `ServerHost`, whose servers have those of `Server`. It must never
judge a server, and never print.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from tftpbench.host import generator, machine
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.network import Network
from tftpbench.host.server.client import Ended
from tftpbench.host.server.process import Buffers, ServerProcess
from tftpbench.host.server.sampler import EdgeReader
from tftpbench.host.server.sockets import UdpCounts, udp_drops_host
from tftpbench.host.server.usage import Samples, Usage
from tftpbench.model.manifest import Manifest


class Sampling(AbstractContextManager["Sampling", None], Protocol):
    """Looks at a server while its `with` block runs. `samples`: the most that was seen."""

    samples: Samples


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

    def edges(self, window: MeasuredWindow, cpus: Iterable[int] = ()) -> EdgeReader:
        """A context manager that reads CPU time and context switches where the window opens and closes."""

    def sampler(self, cpus: Iterable[int] = (), on_death: Callable[[], object] = ..., /) -> Sampling:
        """A context manager that looks at it while a load runs."""

    def check_alive(self) -> None:
        """Raises ServerDied once none of its processes is left."""

    def stop(self, grace_s: float = ..., /) -> Ended | None:
        """End it; how it ended, None where it goes on."""


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

        `root` and `log` are paths of the runner's machine: another one copies the root to itself, and the log back.
        """

    def write_contents(self, path: Path, seed: int, file: int, size: int) -> None:
        """Make a file for a root: `size` bytes f(seed, file, offset). Raises OSError."""

    def first_difference(self, path: Path, seed: int, file: int, size: int) -> int | None:
        """Offset of the first byte of an uploaded file that is wrong; None if it is right. Raises OSError."""

    def udp_drops(self) -> int | None:
        """Datagrams dropped at all UDP sockets of the machine so far; None where it does not say."""

    def stolen_ticks(self, cores: Sequence[int]) -> tuple[int, int]:
        """Ticks that the hypervisor took from the cores, and all their ticks so far."""


class LocalServerHost:
    """This machine: its own processes, files and network namespace."""

    server = staticmethod(ServerProcess)
    write_contents = staticmethod(generator.write_contents)
    first_difference = staticmethod(generator.first_difference)
    udp_drops = staticmethod(udp_drops_host)
    stolen_ticks = staticmethod(machine.stolen_ticks)
