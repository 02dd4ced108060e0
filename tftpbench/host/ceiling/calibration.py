"""Which arrangement of sockets is the fastest for a cell: short runs of all that make sense.

What it measured is never a ceiling: the fastest of many short runs is fast by chance, too.
"""

import random
import statistics
from collections.abc import Callable
from dataclasses import replace

from tftpbench.host.ceiling.exchange import MS, Arrangement, Ceiling, CeilingCell, Effort, Stop, measure
from tftpbench.model.errors import CeilingError

# After the first round only those go on that reached this share of the best; the others differ by more than noise.
KEEP_RATIO = 0.75
# What a flow that fell silent loses at least before it is started again (25 ms ticks, after 50 ms).
SILENCE_NS = 75 * MS
# More sockets than this for flows of their own lose to shared ones by far, and take longer to open than to measure.
OWN_SOCKETS_MAX = 100
BATCH = 64
# Asking each of so many sockets costs more than asking epoll.
SWEPT_MAX = 16


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
    return found


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
