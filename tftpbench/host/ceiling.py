"""The ceiling: raw UDP throughput for the same datagrams as a cell's, with neither TFTP nor a file.

It is measured over loopback, or in a network as servers have it.

First what is exchanged, by which sockets, and one measurement of it. Then which arrangement of sockets is the fastest
for a cell: what the short runs of a choice measured is never a ceiling, since the fastest of many is fast by chance,
too. Then a survey: the ceilings of the cells that people ask about, measured side by side.

It must never know scenarios, servers or results.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from tftpbench import _core
from tftpbench.host.network import ROUTER_MAC, SERVER_MAC, Network, fits_a_frame, machines_network
from tftpbench.model.errors import CeilingError
from tftpbench.model.units import counted

Stop = _core.Stop

MS = 1_000_000
# A core that others keep for all of a short window moves nothing in it: that says nothing about the exchange.
ATTEMPTS = 3
NEVER_SLEEP_US = 2**53
"""A side that polls for so long never sleeps."""
# After the first round only those go on that reached this share of the best; the others differ by more than noise.
KEEP_RATIO = 0.75
# What a flow that fell silent loses at least before it is started again (25 ms ticks, after 50 ms).
SILENCE_NS = 75 * MS
# More sockets than this for flows of their own lose to shared ones by far, and take longer to open than to measure.
OWN_SOCKETS_MAX = 100
BATCH = 64
# Asking each of so many sockets costs more than asking epoll.
SWEPT_MAX = 16


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
class CeilingNetwork:
    """What native code needs of a server's network (`Network`), over IPv4.

    `ring_interface` is 0 where there are no rings. `machines`, `ring_machines`: where flows have their addresses over
    sockets, and over rings.
    """

    requests_fd: int
    server: str
    machines: str
    ring_interface: int
    ring_machines: str
    ring_mac: bytes = ROUTER_MAC
    server_mac: bytes = SERVER_MAC

    @classmethod
    def of(cls, network: Network) -> Self:
        """Of one that stays open as long as it is used."""
        server = network.server_address()
        return cls(
            requests_fd=network.requests_fd,
            server=server,
            machines=machines_network(server, ring=False),
            ring_interface=0 if network.packet_refusal else network.ring_interface,
            ring_machines=machines_network(server, ring=True),
        )


@dataclass(frozen=True, kw_only=True)
class CeilingCell:
    """The work whose ceiling is sought. `flows`: exchanges in flight. Times in microseconds.

    The asking side stands for the generator, the answering side for the server. How long each polls before it sleeps
    belongs to the work: a server that sleeps when idle is not to be held to a ceiling that never does. `network`: what
    lies between the sides; None for loopback.
    """

    operation: Literal["read", "write"]
    flows: int
    windowsize: int = 1
    blksize: int = 512
    answering_cpus: tuple[int, ...] = ()
    asking_cpus: tuple[int, ...] = ()
    answering_spin_us: int = 0
    asking_spin_us: int = 0
    network: CeilingNetwork | None = None

    @property
    def has_rings(self) -> bool:
        """Whether packet rings can carry it: in a network, one by one, and each in a frame."""
        is_there = self.network is not None and self.network.ring_interface > 0
        return is_there and self.windowsize == 1 and fits_a_frame(self.blksize)

    @property
    def pairs_max(self) -> int:
        """Pairs of threads that the placement has cores for."""
        return max(1, min(len(self.answering_cpus), len(self.asking_cpus), self.flows))


# A field that recorded runs and printed documents have under the name that it had first.
_RECORDED = {"shared_sockets": "lanes"}


@dataclass(frozen=True)
class Arrangement:
    """One way for both sides to do the work, of those that a server and a generator could use.

    `shared_sockets`: sockets of the asking side, each of which carries many flows with an address of their own; 0 for a
    socket a flow, or for a `ring`, which carries all flows of its pair as frames. `answering_sockets` as many as flows
    is one a flow. Both in each of the `pairs` of threads, which share the flows. `waits_in_receive`: a side with one
    socket waits in the receiving call instead of epoll, and one with several asks each in turn as long as it polls.
    `is_connected`: both sides have a socket a flow, and each knows its peer.
    """

    shared_sockets: int
    answering_sockets: int
    batch: int
    waits_in_receive: bool
    pairs: int = 1
    is_connected: bool = False
    ring: bool = False

    @property
    def recorded(self) -> dict[str, Any]:
        """Its fields under the names that documents have for them; `ring` only where there is one."""
        fields = {name: value for name, value in asdict(self).items() if name != "ring" or value}
        return {_RECORDED.get(name, name): value for name, value in fields.items()}

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Self:
        """Read back what `recorded` gave. Raises TypeError for other fields."""
        names = {there: name for name, there in _RECORDED.items()}
        return cls(**{names.get(name, name): value for name, value in recorded.items()})

    def __str__(self) -> str:
        """For people: "1 shared socket, 1 answering socket, batches of 64, waiting in the receiving call"."""
        asking = counted(self.shared_sockets, "shared socket") if self.shared_sockets else "a socket a flow"
        parts = [
            "a packet ring" if self.ring else asking,
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


def calibrate(
    cell: CeilingCell,
    *,
    seed: int = 0,
    effort: Effort,
    stop: Stop | None = None,
    measured: Callable[..., Ceiling] = measure,
) -> Arrangement:
    """The candidate of the highest median over rounds that are interleaved in random order.

    One that can't run here (open files) is left out. Raises CeilingError where none can.
    """
    order = random.Random(seed)
    rates: dict[Arrangement, list[float]] = {each: [] for each in candidates(cell)}
    for _ in range(effort.rounds):
        for arrangement in order.sample(list(rates), len(rates)):
            try:
                found = measured(
                    cell, arrangement, warm_up_ns=effort.short_warm_up_ns, window_ns=effort.short_window_ns, stop=stop
                )
            except CeilingError:
                del rates[arrangement]
                if not rates:
                    raise
                continue
            rates[arrangement].append(_score(found, cell, effort))
        best = max(statistics.median(seen) for seen in rates.values())
        rates = {each: seen for each, seen in rates.items() if statistics.median(seen) >= KEEP_RATIO * best}
    return max(rates, key=lambda each: statistics.median(rates[each]))


def candidates(cell: CeilingCell) -> tuple[Arrangement, ...]:
    """What server and generator could do, as far as it makes sense for the cell."""
    found = _in_windows(cell) if cell.windowsize > 1 else _in_lock_step(cell)
    pairs = cell.pairs_max
    side_by_side = [_shared_by(each, pairs, cell.flows) for each in found] if pairs > 1 else []
    return tuple(dict.fromkeys([*found, *side_by_side]))


def _in_lock_step(cell: CeilingCell) -> list[Arrangement]:
    shared = Arrangement(1, 1, BATCH, waits_in_receive=True)
    found = [shared, replace(shared, batch=16), replace(shared, waits_in_receive=False)]
    few = min(4, cell.flows)
    found += [Arrangement(few, 1, BATCH, waits_in_receive=True), Arrangement(few, few, BATCH, waits_in_receive=False)]
    if cell.flows > 256:  # a small buffer holds some 300 datagrams
        many = min(64, cell.flows // 64)
        found.append(Arrangement(many, many, BATCH, waits_in_receive=False))
    if cell.flows <= OWN_SOCKETS_MAX:
        found.append(Arrangement(0, 1, BATCH, waits_in_receive=True))
        found.append(Arrangement(0, cell.flows, BATCH, waits_in_receive=False))
        own = Arrangement(0, cell.flows, 1, waits_in_receive=False, is_connected=True)
        found.append(replace(own, waits_in_receive=cell.flows <= SWEPT_MAX))
    return [*(_on_rings(found) if cell.has_rings else ()), *found]


def _on_rings(of_sockets: Sequence[Arrangement]) -> list[Arrangement]:
    """A ring before each way to answer that sockets have, too: a server has sockets whatever the generator has."""
    ways = [replace(each, shared_sockets=0, ring=True, is_connected=False) for each in of_sockets]
    return list(dict.fromkeys(each for each in ways if each.batch > 1))


def _in_windows(cell: CeilingCell) -> list[Arrangement]:
    """A window is large: few of them fill a cache, or a receive buffer."""
    found = [Arrangement(1, 1, batch, waits_in_receive=True) for batch in (BATCH, 4, 1)]
    some = min(16, cell.flows)
    found += [Arrangement(some, 1, batch, waits_in_receive=True) for batch in (BATCH, 4)]
    found.append(Arrangement(some, some, BATCH, waits_in_receive=False))
    if cell.flows <= OWN_SOCKETS_MAX:
        found += [Arrangement(0, cell.flows, batch, waits_in_receive=False) for batch in (BATCH, 1)]
        found.append(Arrangement(0, cell.flows, 1, waits_in_receive=False, is_connected=True))
    else:
        many = min(256, cell.flows)
        found.append(Arrangement(many, many, 4, waits_in_receive=False))
    return found


def _shared_by(arrangement: Arrangement, pairs: int, flows: int) -> Arrangement:
    each = -(-flows // pairs)
    answering = min(arrangement.answering_sockets, each)
    shared = min(arrangement.shared_sockets, each)
    return replace(arrangement, answering_sockets=answering, shared_sockets=shared, pairs=pairs)


def _score(found: Ceiling, cell: CeilingCell, effort: Effort) -> float:
    """The rate, less where flows lay silent: it was then reached with fewer flows than the cell has."""
    silent = found.restarts * SILENCE_NS / (cell.flows * (effort.short_warm_up_ns + effort.short_window_ns))
    return found.data_pps * max(0.0, 1 - silent)


@dataclass(frozen=True)
class Limit:
    """One cell's ceiling over fresh trials, in DATA-sized datagrams per second."""

    cell: CeilingCell
    arrangement: Arrangement
    trials: tuple[Ceiling, ...]

    @property
    def data_pps(self) -> float:
        """The median."""
        return statistics.median(each.data_pps for each in self.trials)

    @property
    def lowest(self) -> float:
        """Of all trials."""
        return min(each.data_pps for each in self.trials)

    @property
    def highest(self) -> float:
        """Of all trials."""
        return max(each.data_pps for each in self.trials)

    @property
    def restarts(self) -> int:
        """Over all trials."""
        return sum(each.restarts for each in self.trials)


def usual_cells(
    answering_cpus: tuple[int, ...], asking_cpus: tuple[int, ...], asking_spin_us: int, *, may_spin: bool
) -> tuple[CeilingCell, ...]:
    """Lock-step at 3, 10, 100 and 1000 flows, windows of 16 and 64 at 10; reads and writes.

    `may_spin`: each side has cores of its own, so that at 3 flows the answering side is seen without sleeping, too.
    """
    shapes = [(3, 1, 512, 0)] + ([(3, 1, 512, NEVER_SLEEP_US)] if may_spin else [])
    shapes += [(flows, 1, 512, 0) for flows in (10, 100, 1000)]
    shapes += [(10, windowsize, blksize, 0) for windowsize in (16, 64) for blksize in (512, 1428)]
    return tuple(
        CeilingCell(
            operation=operation,
            flows=flows,
            windowsize=windowsize,
            blksize=blksize,
            answering_cpus=answering_cpus,
            asking_cpus=asking_cpus,
            answering_spin_us=spin_us,
            asking_spin_us=asking_spin_us,
        )
        for flows, windowsize, blksize, spin_us in shapes
        for operation in ("read", "write")
    )


def limits(
    cells: Sequence[CeilingCell],
    *,
    trials: int,
    seed: int,
    effort: Effort,
    on_step: Callable[[int, int], object] = lambda _done, _total: None,
    measured: Callable[..., Ceiling] = measure,
) -> tuple[Limit, ...]:
    """Calibrate each cell, then measure all of them in rounds, each in random order. `on_step(done, total)` after each.

    Raises CeilingError where a cell can't be measured here.
    """
    order = random.Random(seed)
    total = len(cells) * (1 + trials)
    chosen = []
    for number, cell in enumerate(cells, start=1):
        chosen.append(calibrate(cell, seed=order.getrandbits(64), effort=effort, measured=measured))
        on_step(number, total)
    seen: list[list[Ceiling]] = [[] for _ in cells]
    done = len(cells)
    for _ in range(trials):
        for index in order.sample(range(len(cells)), len(cells)):
            found = measured(cells[index], chosen[index], warm_up_ns=effort.warm_up_ns, window_ns=effort.window_ns)
            seen[index].append(found)
            done += 1
            on_step(done, total)
    return tuple(
        Limit(cell, arrangement, tuple(trial)) for cell, arrangement, trial in zip(cells, chosen, seen, strict=True)
    )
