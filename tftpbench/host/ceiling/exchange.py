"""What is exchanged, by which sockets, and one measurement of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from tftpbench import _core
from tftpbench.model.errors import CeilingError
from tftpbench.model.units import counted

Stop = _core.Stop

MS = 1_000_000
# A core that others keep for all of a short window moves nothing in it: that says nothing about the exchange.
ATTEMPTS = 3
NEVER_SLEEP_US = 2**53
"""A side that polls for so long never sleeps."""


@dataclass(frozen=True)
class Effort:
    """How long is measured: fresh runs, and the rounds of short runs that choose an arrangement first."""

    warm_up_ns: int = 50 * MS
    window_ns: int = 250 * MS
    rounds: int = 3
    short_warm_up_ns: int = 20 * MS
    short_window_ns: int = 60 * MS


QUICK = Effort(window_ns=60 * MS, warm_up_ns=20 * MS, rounds=1, short_warm_up_ns=5 * MS, short_window_ns=20 * MS)


@dataclass(frozen=True, kw_only=True)
class CeilingCell:
    """The work whose ceiling is sought. `flows`: exchanges in flight. Times in microseconds.

    The asking side stands for the generator, the answering side for the server. How long each polls before it sleeps
    belongs to the work: a server that sleeps when idle is not to be held to a ceiling that never does.
    """

    operation: Literal["read", "write"]
    flows: int
    windowsize: int = 1
    blksize: int = 512
    answering_cpus: tuple[int, ...] = ()
    asking_cpus: tuple[int, ...] = ()
    answering_spin_us: int = 0
    asking_spin_us: int = 0

    @property
    def pairs_max(self) -> int:
        """Pairs of threads that the placement has cores for."""
        return max(1, min(len(self.answering_cpus), len(self.asking_cpus), self.flows))


# A field that recorded runs and printed documents have under the name that it had first.
_RECORDED = {"shared_sockets": "lanes"}


@dataclass(frozen=True)
class Arrangement:
    """One way for both sides to do the work, of those that a server and a generator could use.

    `shared_sockets`: sockets of the asking side, each of which carries many flows with a loopback address of their
    own; 0 for a socket a flow. `answering_sockets` as many as flows is one a flow. Both in each of the `pairs` of
    threads, which share the flows. `waits_in_receive`: a side with one socket waits in the receiving call instead of
    epoll, and one with several asks each in turn as long as it polls. `is_connected`: both sides have a socket a flow,
    and each knows its peer.
    """

    shared_sockets: int
    answering_sockets: int
    batch: int
    waits_in_receive: bool
    pairs: int = 1
    is_connected: bool = False

    @property
    def recorded(self) -> dict[str, Any]:
        """Its fields under the names that documents have for them."""
        return {_RECORDED.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Self:
        """Read back what `recorded` gave. Raises TypeError for other fields."""
        names = {there: name for name, there in _RECORDED.items()}
        return cls(**{names.get(name, name): value for name, value in recorded.items()})

    def __str__(self) -> str:
        """For people: "1 shared socket, 1 answering socket, batches of 64, waiting in the receiving call"."""
        parts = [
            counted(self.shared_sockets, "shared socket") if self.shared_sockets else "a socket a flow",
            counted(self.answering_sockets, "answering socket"),
            f"batches of {self.batch}" if self.batch > 1 else "one message a call",
            "waiting in the receiving call" if self.waits_in_receive else "waiting in epoll",
        ]
        parts += ["connected"] if self.is_connected else []
        return ", ".join(parts + ([f"{self.pairs} pairs of threads"] if self.pairs > 1 else []))


@dataclass(frozen=True)
class Ceiling:
    """One measurement: DATA-sized datagrams per second, and how often a flow fell silent and was started again."""

    data_pps: float
    arrangement: Arrangement
    restarts: int


def measure(
    cell: CeilingCell,
    arrangement: Arrangement,
    *,
    warm_up_ns: int,
    window_ns: int,
    stop: Stop | None = None,
) -> Ceiling:
    """One fresh exchange, from opened to closed sockets. Ctrl-C ends it.

    Raises CeilingError where it can't run here, or when `stop` was asked for before the window's end.
    """
    for _ in range(ATTEMPTS):
        try:
            figures = _core.measure_ceiling(cell, arrangement, warm_up_ns, window_ns, stop or Stop())
        except (ValueError, OSError, OverflowError, RuntimeError, TypeError) as error:
            raise CeilingError(f"the ceiling can't be measured: {error}") from error
        if figures is None:
            raise CeilingError("the ceiling was not measured: stopped")
        if figures["datagrams"]:
            return Ceiling(float(figures["data_pps"]), arrangement, int(figures["restarts"]))
    raise CeilingError(f"the ceiling can't be measured: nothing moved, {ATTEMPTS} times over")
