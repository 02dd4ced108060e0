"""How much work a trial is: found once, before the first pair, by what the base needs; then the same for all arms.

It must never keep a figure: what is measured here is thrown away.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tftpbench.gate.pair import Work, sliced
from tftpbench.host.generator import Stop
from tftpbench.host.server import Server
from tftpbench.measure import Bench, Contender, Trial, load_config, server_of
from tftpbench.model.errors import ServerError
from tftpbench.model.gate_settings import Gate
from tftpbench.model.invariants import number
from tftpbench.model.workload import Cell

# A pair's slices: fewer don't interleave, more gain nothing.
SLICES_MIN, SLICES_MAX = 4, 40
STOP_GRACE_S = 0.3
RATE = "data_pps"
# An arm is stopped at so many times what the budget allows: beyond what a pair needs to show a severe loss
# (pair_figures.SEVERE), since the base itself is now and then half as fast as it was before the first pair.
SLOW_FACTOR = 3.0


def pilot_transfer_s(cell: Cell, contender: Contender, name: str, bench: Bench) -> float:
    """Seconds that one transfer of the cell takes when all of them are at it: the window / the transfers.

    Raises ServerError where the server can't be started, or completes nothing.
    """
    with _started(cell, contender, name, bench) as (trial, server):
        stop = Stop()
        config = load_config(trial, bench, server, stop)
        # Once cold, once warm: the second says how long it takes.
        for index in (1, 2):
            load = sliced(config, index, index * cell.concurrency)
            figures = bench.tools.generator.run(load, stop).figures
    completed, window_s = number(figures, "completed"), number(figures, "duration_s")
    if not completed or not window_s:
        asked = number(figures, "started") or 0
        raise ServerError(f"{name}: completed none of {asked:.0f} transfers; try it by hand with tftpbench load")
    return window_s / completed


def starts(cell: Cell, contender: Contender, name: str, bench: Bench) -> None:
    """Raises ServerError where the server can't be started. What it does under load is for the pairs to show."""
    with _started(cell, contender, name, bench):
        pass


@contextmanager
def _started(cell: Cell, contender: Contender, name: str, bench: Bench) -> Iterator[tuple[Trial, Server]]:
    trial = Trial(0, 0, 0, cell, contender)
    with bench.folder_of(trial) as root:
        server = server_of(trial, bench, root, bench.roots.base / f"{name}.log")
        try:
            server.start()
            yield trial, server
        except ServerError as error:
            raise type(error)(f"{name}: {error}") from None
        finally:
            server.stop(STOP_GRACE_S)


def work(cell: Cell, gate: Gate, transfer_s: float) -> Work:
    """Slices of about `gate.slice` that together are the cell's transfers, or take the base the cell's duration."""
    wanted = cell.transfers or max(1, round((cell.duration_ns or 0) / 1e9 / transfer_s))
    in_a_slice = max(cell.concurrency, round(gate.slice_ns / 1e9 / transfer_s))
    slices = min(max(round(wanted / in_a_slice), SLICES_MIN), SLICES_MAX)
    transfers = max(cell.concurrency, round(wanted / slices))
    allowed = 1 / (1 - gate.gated.get(RATE, 0.0))
    return Work(transfers, slices, round(1e9 * transfers * transfer_s), SLOW_FACTOR * allowed)
