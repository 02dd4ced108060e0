"""What is measured beside the trials: ceilings, and how much the generator could do.

For each cell an arrangement is chosen once a run, and one fresh probe is made a round, over what the cell's trials have
between server and generator. The probe comes directly before the first trial of its cell in a round, for a row is
written when its trial ends and is never touched again. Which server is first, and so nearest to the probe, is the
plan's random order. Servers that sleep and servers that never do have a ceiling each. A probe that fails costs a
figure, never a trial.

The rates at which the generator is full are measured once a run, before its first trial in a network: all cells in
turn, several times over.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from tftpbench.host import ceiling, headroom
from tftpbench.host.ceiling import NEVER_SLEEP_US, QUICK, Arrangement, Ceiling, CeilingCell, CeilingNetwork, Effort
from tftpbench.host.generator import LoadConfig, in_network
from tftpbench.host.headroom import Full, Loaded
from tftpbench.host.network import Network, NetworkRefused, fits_a_frame
from tftpbench.host.pinning import Pinning
from tftpbench.host.target import Target
from tftpbench.measure.plan import Trial
from tftpbench.measure.rows import Row, busy_poll_us
from tftpbench.model.errors import CeilingError, LoadError
from tftpbench.model.workload import Cell

# A cell, and whether its server never sleeps.
Key = tuple[str, bool]

# An open loop has no number in flight to compare with: of so many both sides' batches are full.
FLOWS_OPEN_MAX = 100
# A flow that lost a datagram lies silent for a good part of the window: that is no ceiling.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Probes:
    """The ways to the native probe; tests replace them."""

    calibrate: Callable[..., Arrangement] = ceiling.calibrate
    measure: Callable[..., Ceiling] = ceiling.measure
    load_null_server: Callable[..., Loaded] = headroom.load_null_server


class ProbeNetwork:
    """A network as each server has it, for what is measured beside them; made when it is first asked for."""

    def __init__(self) -> None:
        self._made: Network | None = None

    def get(self) -> Network:
        """The network. Raises NetworkRefused."""
        if self._made is None:
            self._made = Network()
        return self._made

    def close(self) -> None:
        """End it, if it was made."""
        if self._made is not None:
            self._made.close()


class Ceilings:
    """The probes of one run. `stored`: what the run's manifest holds of an earlier part of it.

    `network`: what the probes of cells in a namespace go through.
    `store` is called with what the manifest shall hold now; `warn` with a cell and why its ceiling is not known.
    """

    def __init__(
        self,
        network: ProbeNetwork,
        pinning: Pinning,
        seed: int,
        trials: int,
        probes: Probes,
        stored: object,
        store: Callable[[list[dict[str, object]]], object],
        warn: Callable[[Cell, str], object],
    ) -> None:
        self._network, self._pinning, self._seed, self._probes = network, pinning, seed, probes
        self._effort = Effort() if trials > 1 else QUICK
        self._chosen: dict[Key, Arrangement | None] = dict(_read(stored))
        self._store, self._warn = store, warn
        self._round = 0
        self._found: dict[Key, float | None] = {}

    def before(self, trial: Trial) -> float | None:
        """DATA-sized datagrams per second of this round's probe, which is made now if it has not been; None: unknown.

        What is measured here belongs to the rounds of one cell only, so no more than a round is kept.
        """
        if isinstance(trial.contender.server, Target) or trial.cell.is_boots:
            return None  # we don't know where it runs, or its datagrams are of many kinds
        if trial.round != self._round:
            self._round, self._found = trial.round, {}
        key = trial.cell.key, trial.contender.busy_polls
        if key not in self._found:
            self._found[key] = self._probe(trial.cell, key)
        return self._found[key]

    def _probe(self, cell: Cell, key: Key) -> float | None:
        try:
            between = None if cell.placement.network == "loopback" else CeilingNetwork.of(self._network.get())
            work = _work(cell, self._pinning, between, busy_polls=key[1])
            arrangement = self._arrangement(work, key)
            if arrangement is None:
                return None
            for _ in range(_ATTEMPTS):
                found = self._measure(work, arrangement)
                if not found.restarts:
                    return found.data_pps
        except (CeilingError, NetworkRefused) as error:
            self._warn(cell, str(error))
            return None
        self._warn(cell, f"datagrams were lost in each of {_ATTEMPTS} probes, the last time {found.restarts}")
        return None

    def _measure(self, work: CeilingCell, arrangement: Arrangement) -> Ceiling:
        effort = self._effort
        return self._probes.measure(work, arrangement, warm_up_ns=effort.warm_up_ns, window_ns=effort.window_ns)

    def _arrangement(self, work: CeilingCell, key: Key) -> Arrangement | None:
        """None where none can run here; a warning said so when it was tried."""
        if key not in self._chosen:
            self._chosen[key] = None
            self._chosen[key] = self._probes.calibrate(work, seed=self._seed, effort=self._effort)
            self._store([_written(each, made) for each, made in self._chosen.items() if made is not None])
        return self._chosen[key]


class Headrooms:
    """The rates at which the generator is full, for the cells of a run's trials, in networks of their own.

    `load_of` makes the load of a cell on a server at this address; `rounds`: how often each is done. `stored`, `store`,
    `warn`: as those of `Ceilings`.
    """

    def __init__(
        self,
        network: ProbeNetwork,
        trials: Sequence[Trial],
        load_of: Callable[[Cell, str], LoadConfig],
        pinning: Pinning,
        seed: int,
        rounds: int,
        probes: Probes,
        stored: object,
        store: Callable[[list[dict[str, object]]], object],
        warn: Callable[[Cell, str], object],
    ) -> None:
        self._network, self._load_of, self._pinning, self._seed = network, load_of, pinning, seed
        self._rounds, self._probes, self._store, self._warn = rounds, probes, store, warn
        self._found = _read_full(stored)
        self._left = {trial.cell.key: trial.cell for trial in trials if _has_headroom(trial)}

    def before(self, trial: Trial) -> float | None:
        """DATA blocks per second of a generator that is full with this trial's load; None: unknown.

        With the first trial that has one all are measured.
        """
        if not _has_headroom(trial):
            return None
        if trial.cell.key not in self._found:
            left = {key: cell for key, cell in self._left.items() if key not in self._found}
            self._found |= self._measured(left | {trial.cell.key: trial.cell})
            self._store([{"cell_key": key, "data_pps": each.data_pps, "text": each.reason, "in_flight": each.in_flight}
                         for key, each in self._found.items()])  # fmt: skip
        return self._found[trial.cell.key].data_pps

    def _measured(self, cells: Mapping[str, Cell]) -> dict[str, Full]:
        try:
            refusal = self._refusal()
            found = dict.fromkeys(cells, Full(None, refusal)) if refusal else self._filled(cells, self._network.get())
        except (LoadError, NetworkRefused) as error:
            found = dict.fromkeys(cells, Full(None, str(error)))
        for key, each in found.items():
            if each.reason:
                self._warn(cells[key], each.reason)
        return found

    def _filled(self, cells: Mapping[str, Cell], network: Network) -> dict[str, Full]:
        """With as many in flight as the cell has; where that does not fill the generator, with more."""
        server, found = network.server_address(), dict[str, Full]()
        left = {
            key: in_network(replace(self._load_of(cell, server), duration_ns=headroom.WINDOW_NS), network)
            for key, cell in cells.items()
        }
        for level in (0, 1):
            at = {key: headroom.levels(config)[level:] for key, config in left.items()}
            asked = {key: replace(left[key], concurrency=counts[0]) for key, counts in at.items() if counts}
            for key, loads in self._loads(asked, network).items():
                found[key] = replace(headroom.full(loads), in_flight=asked[key].concurrency)
            left = {key: config for key, config in left.items() if found[key].reason}
        return found

    def _refusal(self) -> str:
        """Why no null server can be here; "" where one can. Raises NetworkRefused."""
        if not self._pinning.separate:
            return "server and generator share a core"
        refused = self._network.get().packet_refusal
        return f"packet sockets are refused ({refused})" if refused else ""

    def _loads(self, asked: Mapping[str, LoadConfig], network: Network) -> dict[str, list[Loaded]]:
        """Of each kind one load a round, in random order."""
        order = random.Random(self._seed)
        cpu = self._pinning.server[0] if self._pinning.server else None
        loads: dict[str, list[Loaded]] = {key: [] for key in asked}
        for _ in range(self._rounds):
            for key in order.sample(list(asked), len(asked)):
                loads[key].append(self._probes.load_null_server(asked[key], network, cpu))
        return loads


def _has_headroom(trial: Trial) -> bool:
    """Whether a null server can stand for its server: in a network, in lock-step, and each block in a frame."""
    cell = trial.cell
    if isinstance(trial.contender.server, Target) or cell.is_boots or cell.placement.network == "loopback":
        return False
    return cell.windowsize == 1 and fits_a_frame(cell.blksize)


def columns(row: Mapping[str, Any], host: str | None, data_pps: float | None) -> Row:
    """The columns of a trial's row. A ceiling of another way than the trial's says nothing, and is left out.

    The probe is IPv4, over loopback or in a network of this machine. `host`: the server's address, None where it never
    had one.
    """
    if data_pps is None or (host is not None and not _is_on_its_way(row, host)):
        return {"ceiling_data_pps": None, "ceiling_ratio": None}
    reached = row.get("data_pps")
    return {"ceiling_data_pps": data_pps, "ceiling_ratio": None if reached is None else reached / data_pps}


def headroom_columns(row: Mapping[str, Any], full_data_pps: float | None) -> Row:
    """How many times as much the generator could have done; None where it is not known, or nothing was moved."""
    reached = row.get("data_pps")
    return {"generator_headroom": full_data_pps / reached if full_data_pps and reached else None}


def _is_on_its_way(row: Mapping[str, Any], host: str) -> bool:
    address, is_loopback = ip_address(host), row.get("network", "loopback") == "loopback"
    return address.version == 4 and address.is_loopback == is_loopback


def _work(cell: Cell, pinning: Pinning, network: CeilingNetwork | None, *, busy_polls: bool) -> CeilingCell:
    """The cell's datagrams. On a shared core a side that never sleeps would only take time from the other."""
    return CeilingCell(
        operation=cell.operation,
        flows=min(cell.concurrency, FLOWS_OPEN_MAX) if cell.open_loop else cell.concurrency,
        windowsize=cell.windowsize,
        blksize=cell.blksize,
        answering_cpus=pinning.server,
        asking_cpus=pinning.generator,
        answering_spin_us=NEVER_SLEEP_US if busy_polls and pinning.separate else 0,
        asking_spin_us=busy_poll_us(cell, pinning),
        network=network,
    )


def _written(key: Key, arrangement: Arrangement) -> dict[str, object]:
    cell_key, busy_polls = key
    return {
        "cell_key": cell_key,
        "server_busy_polls": busy_polls,
        "arrangement": arrangement.recorded,
        "text": str(arrangement),
    }


def _read_full(stored: object) -> dict[str, Full]:
    """What is not as `Headrooms` writes it is measured anew; so is what was not known."""
    found = {}
    for each in stored if isinstance(stored, list) else []:
        if isinstance(each, Mapping) and isinstance(each.get("data_pps"), int | float):
            found[str(each.get("cell_key"))] = Full(float(each["data_pps"]))
    return found


def _read(stored: object) -> Sequence[tuple[Key, Arrangement]]:
    """What is not as we write it is chosen anew."""
    found = []
    for each in stored if isinstance(stored, list) else []:
        try:
            arrangement = Arrangement.of(each["arrangement"])
            found.append(((str(each["cell_key"]), bool(each["server_busy_polls"])), arrangement))
        except (KeyError, TypeError, AttributeError):
            continue
    return found
