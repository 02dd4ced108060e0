"""What figures of a trial must obey, whatever measured them: counters add up, and Little's law.

Pure: a row of results goes in, and what is wrong with it comes out in words, or None. It must never read a file.
"""

import math
from collections.abc import Mapping

Row = Mapping[str, object]

# Little's law holds for steady windows. One round of transfers sticks out at either end, on average by half: where even
# the slowest takes a tenth of the window, that shifts the mean time by a tenth at most.
STEADY_WINDOW_TRANSFERS = 10
LITTLES_LAW_TOLERANCE = 0.15
# Between two transfers of one client lies the making of a request: 20 us measured on a slow core.
TURNAROUND_NS = 100_000


# Two counts of the same figures: what is left is what was in flight at the window's edges, a fiftieth of it at most.
OPEN_LOOP_TOLERANCE = 0.05
OPEN_LOOP_WINDOW_TIMES = 50
_BOOTS = ("booted", "boots_failed", "boots_late", "boots_shed", "boots_interrupted")


def counters_fault(row: Row) -> str | None:
    """Every transfer that was intended was started or shed, and every one that was started has ended in one way.

    So has every machine that was to boot.
    """
    return _transfers_fault(row) or _boots_fault(row)


def _boots_fault(row: Row) -> str | None:
    machines, parts = number(row, "machines"), [number(row, name) for name in _BOOTS]
    if machines is None or None in parts:
        return None
    total = sum(part for part in parts if part is not None)
    return None if machines == total else f"{machines:.0f} machines were to boot, but {total:.0f} are accounted for"


def _transfers_fault(row: Row) -> str | None:
    parts = [number(row, name) for name in ("completed", "failed", "timed_out", "interrupted")]
    started, late = number(row, "started"), number(row, "late") or 0  # older runs knew no deadline
    if started is None or None in parts:
        return None
    total = sum(part for part in parts if part is not None) + late
    if started != total:
        return f"{started:.0f} transfers were started, but {total:.0f} are accounted for"
    intended, shed = number(row, "intended"), number(row, "shed") or 0
    if intended is None or intended == started + shed:
        return None
    return f"{intended:.0f} transfers were intended, but {started + shed:.0f} were started or shed"


def littles_law_fault(row: Row, mean_transfer_ns: float | None) -> str | None:
    """Transfers in flight = transfers per second x seconds per transfer, for windows of fixed time.

    The rate comes from bytes counted inside the window, the time from the transfers' own stamps: two independent ways
    to the number of transfers in flight that was asked for. Failures hold a place without moving bytes, so a
    window that has them is not steady. A place is also held while a last answer waits to be read and the next request
    is made, which is in no transfer's time: the law may be broken by less than that.
    """
    rate, size = number(row, "goodput_bytes_per_s"), number(row, "file_size_bytes")
    window_s, slowest_ns = number(row, "duration_s"), number(row, "transfer_ns_max")
    asked, mean_ns = number(row, "concurrency"), mean_transfer_ns
    if any(row.get(name) is not None for name in ("rate_per_s", "machines_asked", "shape", "boot", "mix")):
        return None  # an open loop asks for no number in flight, and a boot is many transfers
    if row.get("transfers") is not None or not (rate and size and window_s and slowest_ns and asked and mean_ns):
        return None
    if number(row, "failed") or number(row, "timed_out") or window_s * 1e9 < STEADY_WINDOW_TRANSFERS * slowest_ns:
        return None
    between_ns = TURNAROUND_NS + (number(row, "generator_lag_ns_p99") or 0)
    in_flight, at_most = (rate / size * each_ns / 1e9 for each_ns in (mean_ns, mean_ns + between_ns))
    if in_flight <= asked * (1 + LITTLES_LAW_TOLERANCE) and at_most >= asked * (1 - LITTLES_LAW_TOLERANCE):
        return None
    return f"rate and transfer time speak of {in_flight:.3g} transfers in flight, not {asked:.0f}"


def open_loop_law_fault(row: Row, mean_ns: float | None) -> str | None:
    """What was in flight on average = starts per second x seconds in flight, at a steady rate.

    `mean_ns`: from actual start to end, of all that started inside the window, whatever became of them; of machines
    where they boot. The number in flight is counted as time passes, by the worker; the times are the rows' own.
    Judged where even the slowest takes a small part of the window, and the end of the trial cut nothing off. A place
    is held a little longer than the transfer's time, as in a closed loop.
    """
    is_boots = row.get("boot") is not None or row.get("mix") is not None
    name = "boot_ns_max" if is_boots else "response_ns_max"
    # What did not complete was ended by its client, or at its deadline.
    slowest_ns = number(row, "deadline_ns") if row.get(f"{name}_is_never") else number(row, name)
    starts_per_s, counted = number(row, "achieved_per_s"), number(row, "in_flight_mean")
    window_s, cut_off = number(row, "duration_s"), "boots_interrupted" if is_boots else "interrupted"
    if number(row, "rate_per_s") is None or number(row, cut_off) != 0 or counted is None:
        return None
    if not (starts_per_s and mean_ns and window_s and slowest_ns):
        return None
    if window_s * 1e9 < OPEN_LOOP_WINDOW_TIMES * slowest_ns:
        return None
    between_ns = TURNAROUND_NS + (number(row, "generator_lag_ns_p99") or 0)
    low, high = (starts_per_s * each_ns / 1e9 for each_ns in (mean_ns, mean_ns + between_ns))
    if low * (1 - OPEN_LOOP_TOLERANCE) <= counted <= high * (1 + OPEN_LOOP_TOLERANCE):
        return None
    return f"rate and time in flight speak of {low:.3g} in flight on average, not {counted:.3g}"


def cohort(row: Row) -> int | None:
    """How many transfers, or machines where these boot, were intended in the measured time.

    All of them where the work is fixed, as in a storm or a shape; None in a closed loop's window, which intends none.
    """
    is_fixed = any(row.get(name) is not None for name in ("transfers", "machines_asked", "shape"))
    if is_fixed:
        known = number(row, "machines" if row.get("machines") is not None else "intended")
        return None if known is None else int(known)
    offered = number(row, "offered_per_s")
    return None if offered is None else round(offered * (number(row, "duration_s") or 0))


def number(row: Row, name: str) -> float | None:
    """The figure as a finite number; None where it is unknown or no number."""
    value = row.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]
