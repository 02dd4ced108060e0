"""The ceiling beside the trials: for each cell an arrangement, chosen once a run, and one fresh probe a round.

The probe comes directly before the first trial of its cell in a round, for a row is written when its trial ends and is
never touched again. Which server is first, and so nearest to the probe, is the plan's random order. Servers that sleep
and servers that never do have a ceiling each. A probe that fails costs a figure, never a trial.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from tftpbench.host import ceiling
from tftpbench.host.ceiling import NEVER_SLEEP_US, QUICK, Arrangement, Ceiling, CeilingCell, Effort
from tftpbench.host.pinning import Pinning
from tftpbench.host.target import Target
from tftpbench.measure.plan import Trial
from tftpbench.measure.rows import Row, busy_poll_us
from tftpbench.model.errors import CeilingError
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


class Ceilings:
    """The probes of one run. `stored`: what the run's manifest holds of an earlier part of it.

    `store` is called with what the manifest shall hold now; `warn` with a cell and why its ceiling is not known.
    """

    def __init__(
        self,
        pinning: Pinning,
        seed: int,
        trials: int,
        probes: Probes,
        stored: object,
        store: Callable[[list[dict[str, object]]], object],
        warn: Callable[[Cell, str], object],
    ) -> None:
        self._pinning, self._seed, self._probes = pinning, seed, probes
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
        if trial.cell.placement.network != "loopback":
            return None  # the probe is of loopback
        if trial.round != self._round:
            self._round, self._found = trial.round, {}
        key = trial.cell.key, trial.contender.busy_polls
        if key not in self._found:
            self._found[key] = self._probe(trial.cell, key)
        return self._found[key]

    def _probe(self, cell: Cell, key: Key) -> float | None:
        work = _work(cell, self._pinning, busy_polls=key[1])
        try:
            arrangement = self._arrangement(work, key)
            if arrangement is None:
                return None
            for _ in range(_ATTEMPTS):
                found = self._measure(work, arrangement)
                if not found.restarts:
                    return found.data_pps
        except CeilingError as error:
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


def columns(row: Mapping[str, Any], host: str | None, data_pps: float | None) -> Row:
    """The columns of a trial's row. The probe is IPv4 on this machine: for a server elsewhere it says nothing."""
    address = ip_address(host) if host is not None else None
    if data_pps is None or (address is not None and not (address.version == 4 and address.is_loopback)):
        return {"ceiling_data_pps": None, "ceiling_ratio": None}
    reached = row.get("data_pps")
    return {"ceiling_data_pps": data_pps, "ceiling_ratio": None if reached is None else reached / data_pps}


def _work(cell: Cell, pinning: Pinning, *, busy_polls: bool) -> CeilingCell:
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
    )


def _written(key: Key, arrangement: Arrangement) -> dict[str, object]:
    cell_key, busy_polls = key
    return {
        "cell_key": cell_key,
        "server_busy_polls": busy_polls,
        "arrangement": arrangement.recorded,
        "text": str(arrangement),
    }


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
