"""A survey of this machine: the ceilings of the cells that people ask about, measured side by side."""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tftpbench.host.ceiling.calibration import calibrate
from tftpbench.host.ceiling.exchange import NEVER_SLEEP_US, Arrangement, Ceiling, CeilingCell, Effort, measure


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
