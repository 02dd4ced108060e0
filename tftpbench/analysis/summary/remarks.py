"""What is said beside the figures: what was found of servers, protocol faults, cells that could not be judged.

Pure. Each kind of each server once, however many trials showed it.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from tftpbench.analysis.stats import median_interval
from tftpbench.analysis.summary.lines import Line
from tftpbench.measure.findings import FORMER_KINDS, ORIGINS, Origin, place_of
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted, format_duration

_EXAMPLE_MAX = 60  # of a datagram's hex dump, enough to know it; the whole is in trials.jsonl
_TEXT_MAX = 160
# Fewer say nothing of a spread.
_NOISE_TRIALS_MIN = 4
# What fixed work varies by on a machine at rest; and a share of the time that is worth a word.
_QUIET = 0.25
_SHARE_SHOWN = 0.01

Row = Mapping[str, Any]


def findings(rows: Sequence[Row], labels: Mapping[str, str]) -> dict[Origin, tuple[str, ...]]:
    """What was found of each server, by whose doing it was and by its worst trial.

    As in "atftpd: never answered 900 of 1000 transfers (read, ...)". Every origin is there, and may be empty. A kind
    that this version does not know is the server's. Machines stand by profile, and by each step at which they stopped.
    """
    found: dict[tuple[str, str, str, tuple[str, ...]], list[tuple[int, str, str]]] = {}
    for row in rows:
        for finding in row.get("server_findings") or ():
            text = str(finding["text"])
            seen = (int(finding["count"]), _shortened(text), labels[row["cell_key"]])
            kind = str(finding["kind"])
            profile = str(row.get("boot") or row.get("mix") or "")
            key = server_name(row), FORMER_KINDS.get(kind, kind), profile, place_of(text)
            found.setdefault(key, []).append(seen)
    kinds: dict[str, Origin] = {str(kind): origin for kind, origin in ORIGINS.items()}
    return {
        origin: tuple(
            f"{server}: {_worst(seen)}"
            for (server, kind, *_), seen in sorted(found.items())
            if kinds.get(kind, "server") == origin
        )
        for origin in get_args(Origin)
    }


def faults(rows: Sequence[Row]) -> tuple[str, ...]:
    """Breaches of the protocol, with the first example, over the trials that had something go wrong.

    Where nothing failed they are harmless: a late datagram, or a second answer to a request that was sent twice.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for row in rows:
        hurt = any(row.get(name) for name in ("failed", "timed_out", "content_mismatches"))
        for fault in (row.get("protocol_faults") or ()) if hurt else ():
            against = f" ({fault['rfc_section']})" if fault.get("rfc_section") else ""
            kind = (server_name(row), f"{fault['kind']}{against}")
            counts[kind] += int(fault["count"])
            examples.setdefault(kind, str(fault["example"]))
    return tuple(
        f"{server}, {kind}: {counted(count, 'time')}, as in: {examples[server, kind][:_EXAMPLE_MAX]}"
        for (server, kind), count in counts.items()
    )


def noise(rows: Sequence[Row], width: float | None) -> str:
    """How noisy the machine was, what that did to the headline's interval, and what to do; "" where no trial says.

    `width`: of that interval, as `interval_width` has it.
    The spread of the calibration is that of 90 of 100 trials: the same work each time, so all of it is the machine's.
    """
    known = [row for row in rows if row.get("calibration_user_ns") and row.get("calibration_kernel_ns")]
    if len(known) < _NOISE_TRIALS_MIN:
        return ""
    spread = max(_spread([row[f"calibration_{kind}_ns"] for row in known]) for kind in ("user", "kernel"))
    shares = {
        "stolen by the hypervisor": _median(known, "steal_fraction"),
        "under pressure for a core": _median(known, "cpu_pressure_fraction"),
    }
    throttled = sum(row.get("throttled_ns") or 0 for row in known)
    causes = [f"{100 * share:.0f} % of the time {what}" for what, share in shares.items() if share >= _SHARE_SHOWN]
    causes += [f"held back by a quota for {format_duration(throttled)}"] if throttled else []
    beside = f" ({', '.join(causes)})" if causes else ""
    interval = "" if width is None else f" The headline's interval is {100 * width:.2g} % wide."
    if spread < _QUIET and not throttled:
        return f"The machine was quiet: fixed work took the same time within {100 * spread:.0f} %{beside}.{interval}"
    advice = (
        "Lift the quota (tftpbench doctor)."
        if throttled
        else "More trials (--until 5%), longer ones (--set duration=5s) or another time help; see tftpbench doctor."
    )
    return f"The machine was noisy: fixed work took up to {1 + spread:.1f} times as long{beside}.{interval} {advice}"


def headroom(lines: Sequence[Line], headline: str, rows: Sequence[Row]) -> str:
    """How much more the generator could have done in the headline's cell; "" where it is not known.

    By the server that left it least, and that by the median of its valid trials. What it did before the null server,
    and the time in which it was not busy, need not agree: the smaller of the two is sure (docs/network.md).
    """
    left = {
        line.server: statistics.median(known)
        for line in lines
        if line.label == headline
        if (known := [_sure(row) for row in _valid(rows, line) if row.get("generator_headroom")])
    }
    if not left:
        return ""
    server = min(left, key=lambda each: left[each])
    beside = f" as it did with {server}" if len(left) > 1 else ""
    return f"The generator could have done {left[server]:.1f} times as much{beside} ({headline})."


def _sure(row: Row) -> float:
    """How many times as much the generator could have done, by the less of two ways to know it."""
    busy = row.get("generator_busy_fraction")
    return min(float(row["generator_headroom"]), 1 / float(busy) if busy else float("inf"))


def _valid(rows: Sequence[Row], line: Line) -> list[Row]:
    """The valid trials of a line."""
    ours = [row for row in rows if row["cell_key"] == line.cell.key and server_name(row) == line.server]
    return [row for row in ours if row["verdict"] == "valid"]


def interval_width(lines: Sequence[Line], headline: str, rows: Sequence[Row], metric: str) -> float | None:
    """Upper end / lower end - 1 of the widest interval of the headline's cell; None where one has none.

    Of ratios; where only one server is in the cell, of its median.
    """
    here = [line for line in lines if line.label == headline]
    ratios = [line.ratio for line in here if line.ratio is not None]
    bounds = [(ratio.low, ratio.high) for ratio in ratios]
    if len(here) == 1 and not ratios:
        [line] = here
        known = [float(row[metric]) for row in _valid(rows, line) if row.get(metric)]
        bounds = [median_interval(known) or (None, None)]
    if not bounds:
        return None
    widths = [high / low - 1 for low, high in bounds if low and high]
    return max(widths) if len(widths) == len(bounds) else None


def _spread(values: Sequence[float]) -> float:
    """The 95th of 100 over the 5th, less 1."""
    ordered = sorted(values)
    edge = len(ordered) // 20
    return float(ordered[-1 - edge] / ordered[edge] - 1)


def _median(rows: Sequence[Row], name: str) -> float:
    return float(statistics.median([row.get(name) or 0.0 for row in rows]))


def incomplete(lines: Sequence[Line], reference: str | None) -> tuple[str, ...]:
    """A server without a valid trial in a cell, or without a pair to compare it by, where that is not its own doing.

    `reference` None: each trial is compared with its own ceiling.
    """
    comparable = {
        line.label for line in lines if reference is None or (line.server == reference and line.figures["data_pps"])
    }
    found: list[str] = []
    for line in lines:
        if line.is_its_own_doing:
            continue
        if line.valid == 0:
            found.append(f"{line.server}, {line.cell.label}: none of {line.trials} trials is valid")
        elif line.cell.open_loop or line.cell.is_boots:
            continue  # it is compared by no ratio, or by one of times, which may be never
        elif line.ratio is None and line.server != reference and line.figures["data_pps"] and line.label in comparable:
            found.append(f"{line.server}, {line.cell.label}: no pair of valid trials to compare it by")
    return tuple(found)


def _shortened(text: str) -> str:
    """A finding up to the last word for which there is room, with no mark at its end that promises more."""
    if len(text) > _TEXT_MAX:
        head, space, _ = text[: _TEXT_MAX - 3].rpartition(" ")
        text = f"{(head if space else text[: _TEXT_MAX - 4]).rstrip(' ,:;(')} ..."
    return text.rstrip(" ,:;")


def _worst(seen: Sequence[tuple[int, str, str]]) -> str:
    _, text, where = max(seen, key=lambda each: each[0])
    others = len({label for _, _, label in seen}) - 1
    elsewhere = f", and in {counted(others, 'other cell')}" if others else ""
    return f"{text} ({where}{elsewhere}; {counted(len(seen), 'trial')})"
