"""One line per server and cell: the first figures of metrics.HEADLINE, and the paired ratio to the first server.

Pure. It must never average a percentile: those come from merged histograms, which the caller reads, or else are the
median of the trials' own. What was lost counts in every trial, and any other figure in valid ones only.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from tftpbench.analysis.stats import Ratio, paired_ratio, plain_ratio
from tftpbench.measure.findings import stopped_at
from tftpbench.model import invariants, metrics
from tftpbench.model.axes import AXES, LOAD_HOSTS
from tftpbench.model.metrics import BOOTS, HEADLINE, METRICS, OPEN_LOOP, with_never
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import server_name
from tftpbench.model.workload import Cell

NOTHING_MEASURED = "No answer: nothing was measured."
# Up to three, people look for a server where the scenario names it; in a longer list they look for the fastest.
MANY_SERVERS = 3

RATIO_FIELDS = ("ratio", "low", "high", "n", "lowest", "highest")
FRAME_COLUMNS = (
    "label", "contender", *AXES, *HEADLINE, "ceiling_mark", *RATIO_FIELDS, "lost", "valid", "trials",
    *(name for name in OPEN_LOOP if name not in HEADLINE),
    *(name for name in BOOTS if name not in HEADLINE | OPEN_LOOP),
    LOAD_HOSTS,
)  # fmt: skip

_CEILING_RATIO = "ceiling_ratio"

Row = Mapping[str, Any]
Metric = Literal["data_pps", "goodput_bytes_per_s", "boot_ns_max", "boot_ns_p99"]


class Histogram(Protocol):
    """Of several trials, merged."""

    @property
    def count(self) -> int:
        """How many values it holds."""

    def percentile(self, p: float, /) -> float:
        """In ns."""


# (kind of histogram, cell key, server) to the histogram of the valid trials; None where none was recorded.
Merged = Callable[[str, str, str], Histogram | None]


@dataclass(frozen=True)
class Line:
    """One server in one cell, or in its best one of several.

    `label` names what all servers of the cell had in common. `figures` are those of HEADLINE, by name. `ratio` compares
    with the first server, which has None, or with the ceiling; an open loop of transfers, whose rate is not the
    server's, has none, and boots are compared by their time. A time that is never is infinite.
    """

    cell: Cell
    label: str
    server: str
    valid: int
    trials: int
    figures: Mapping[str, float | None]
    ratio: Ratio | None
    ceiling_mark: str
    """Why its share of the ceiling is not usable; "" where it is."""
    lost: int
    """Transfers that failed, timed out or never got an answer, over all trials; of an open loop, all not completed.

    Of boots the machines that did not come up.
    """
    is_its_own_doing: bool
    """Whether every trial ended in the server's own doing: it died, never was ready, or gave wrong bytes."""
    stopped: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How many machines stopped at which step of their boot for which reason, over all trials."""

    @property
    def asked(self) -> float | None:
        """Of how many it counts what was served: transfers begun, at a rate to be begun, or machines to be booted."""
        return self.figures["machines" if self.cell.is_boots else "intended" if self.cell.open_loop else "started"]

    @property
    def done(self) -> float | None:
        """How many of them were completed, or booted."""
        return self.figures["booted" if self.cell.is_boots else "completed"]

    @property
    def served(self) -> str:
        """How many of those asked for were completed or booted, as "all 5,000", "1,638 of 5,000 (33 %)" or "0"."""
        completed, started = self.done, self.asked
        if completed is None or started is None or completed > started:  # counters that do not add up tell nothing
            return "-"
        if not started:
            return "0"
        if completed == started:
            return f"all {started:,.0f}"
        percent = f"{100 * completed / started:.0f}"
        # A loss, or a single success, must not be rounded away.
        shown = ">99" if percent == "100" else "<1" if percent == "0" and completed else percent
        return f"{completed:,.0f} of {started:,.0f} ({shown} %)"


def lines(
    scenario: Scenario,
    present: Sequence[str],
    rows: Sequence[Row],
    left_out: set[tuple[str, str | None]],
    merged: Merged,
) -> tuple[Line, ...]:
    """Cell by cell in the scenario's order; in each, the servers in theirs, and those of many by what they moved."""
    found: list[Line] = []
    metric = metric_of(scenario)
    for label, cells in _groups(scenario):
        here: list[Line] = []
        best: dict[str, Cell] = {}
        for server in present:
            able = [cell for cell in cells if (server, cell.key) not in left_out]
            if able:
                best[server] = max(able, key=lambda cell: _median(_valid(rows, cell, server), metric) or 0)
                against_ceiling = scenario.compare_with == "ceiling"
                ratio = (
                    _ratio_to_ceiling(_of(rows, best[server], server))
                    if against_ceiling
                    else None
                    if best[server].open_loop and not best[server].is_boots
                    else _ratio(best, server, present[0], rows, metric)
                )
                mark = _mark(ratio) if against_ceiling else unusable(_CEILING_RATIO, _of(rows, best[server], server))
                if ratio is not None and (len(cells) > 1 or scenario.is_quick):
                    # The cell was chosen for these very trials, or they are too short: an interval would promise much.
                    ratio = replace(ratio, low=None, high=None, p_value=None)
                here.append(_line(best[server], label, server, ratio, mark, rows, merged))
        if len(here) > MANY_SERVERS:
            here.sort(
                key=_rank if cells[0].open_loop or cells[0].is_boots else lambda line: -(line.figures[metric] or 0)
            )
        found += here
    return tuple(found)


def metric_of(scenario: Scenario) -> Metric:
    """What is compared: blocks where all have one size, else the bytes of the files.

    Of boots the time until the last machine is up; at rates, which have no last one, until 99 % are.
    """
    cells = scenario.cells()
    if cells[0].is_boots:
        return "boot_ns_p99" if all(cell.rate_per_s is not None for cell in cells) else "boot_ns_max"
    return "goodput_bytes_per_s" if scenario.best_of else "data_pps"


def _groups(scenario: Scenario) -> list[tuple[str, list[Cell]]]:
    """Cells that differ in nothing but what each server takes its best value of."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in scenario.cells():
        fixed = tuple(getattr(cell, axis) for axis in AXES if axis not in scenario.best_of)
        groups.setdefault(fixed, []).append(cell)
    return [(cells[0].label_without(scenario.best_of), cells) for cells in groups.values()]


def _line(
    cell: Cell,
    label: str,
    server: str,
    ratio: Ratio | None,
    mark: str,
    rows: Sequence[Row],
    merged: Merged,
) -> Line:
    ours = _of(rows, cell, server)
    valid = _valid(rows, cell, server)
    return Line(
        cell=cell,
        label=label,
        server=server,
        valid=len(valid),
        trials=len(ours),
        figures={name: _figure(each, ours, valid, cell.key, server, merged) for name, each in _of_cell(cell).items()},
        ratio=ratio,
        ceiling_mark=mark,
        lost=sum(map(lost, ours)),
        is_its_own_doing=bool(ours) and all(_is_its_own_doing(row) for row in ours),
        stopped=_stopped(ours),
    )


def _of_cell(cell: Cell) -> dict[str, metrics.Metric]:
    """The metrics whose figures a line of the cell has."""
    return HEADLINE | (OPEN_LOOP if cell.open_loop else {}) | (BOOTS if cell.is_boots else {})


def _stopped(rows: Sequence[Row]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for finding in (each for row in rows for each in row.get("server_findings") or ()):
        if place := stopped_at(str(finding["text"])):
            found[place] += int(finding["count"])
    return found


def _ratio(best: Mapping[str, Cell], server: str, reference: str, rows: Sequence[Row], metric: Metric) -> Ratio | None:
    """Over the rounds in which both sides have a valid trial that moved anything at all.

    A time that is never in any of them has no ratio: those that are left would flatter.
    """
    if server == reference or reference not in best:
        return None
    if any(row.get(f"{metric}_is_never") for each in (server, reference) for row in _valid(rows, best[each], each)):
        return None
    ours, theirs = (
        {
            row["round"]: row[metric]
            for row in _valid(rows, best[each], each)
            if row.get("round") and _moved(row, metric)
        }
        for each in (server, reference)
    )
    rounds = sorted(ours.keys() & theirs.keys())
    return paired_ratio([ours[each] for each in rounds], [theirs[each] for each in rounds]) if rounds else None


def unusable(column: str, rows: Sequence[Row]) -> str:
    """Why a figure of trials of one server in one cell is not usable, by its metric's record; "" where it is."""
    if column != _CEILING_RATIO or not (pairs := _pairs_with_ceiling(rows)):
        return ""
    # What is not even above the limit by itself is not surely so; a bootstrap takes tens of milliseconds.
    is_beyond = METRICS[column].mark(plain_ratio([ours for ours, _ in pairs], [ceiling for _, ceiling in pairs]))
    return _mark(_ratio_to_ceiling(rows)) if is_beyond else ""


def _mark(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return METRICS[_CEILING_RATIO].mark(ratio.lowest if ratio.low is None else ratio.low)


def _ratio_to_ceiling(rows: Sequence[Row]) -> Ratio | None:
    pairs = _pairs_with_ceiling(rows)
    return paired_ratio([ours for ours, _ in pairs], [ceiling for _, ceiling in pairs]) if pairs else None


def _pairs_with_ceiling(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Each valid trial and the ceiling of its round are a pair."""
    return [
        (row["data_pps"], row["ceiling_data_pps"])
        for row in rows
        if row["verdict"] == "valid" and _moved(row, "data_pps") and row.get("ceiling_data_pps")
    ]


def _moved(row: Row, metric: Metric) -> bool:
    return (row.get(metric) or 0) > 0


def _valid(rows: Sequence[Row], cell: Cell, server: str) -> list[Row]:
    return [row for row in _of(rows, cell, server) if row["verdict"] == "valid"]


def _of(rows: Sequence[Row], cell: Cell, server: str) -> list[Row]:
    key = cell.key  # a hash, made anew each time
    return [row for row in rows if row["cell_key"] == key and server_name(row) == server]


def lost(row: Row) -> int:
    """How many transfers of a trial were lost; of an open loop all that did not complete.

    Those cut off at the trial's end had the server's silence from their first request on. Of boots the machines that
    did not come up.
    """
    if row.get("machines") is not None:
        return int(row["machines"] - (row.get("booted") or 0))
    if row.get("deadline_ns") is not None:
        return int((row.get("intended") or 0) - (row.get("completed") or 0))
    counts = {each["kind"]: each["count"] for each in row.get("server_findings") or ()}
    silent = sum(counts.get(kind, 0) for kind in ("silent", "timed_out"))
    return int((row.get("failed") or 0) + max(silent, row.get("timed_out") or 0))


def _is_its_own_doing(row: Row) -> bool:
    kinds = {finding["kind"] for finding in row.get("server_findings") or ()}
    return row["verdict"] != "valid" and not kinds.isdisjoint({"died", "not_ready", "wrong_bytes"})


def _figure(
    metric: metrics.Metric, rows: Sequence[Row], valid: Sequence[Row], cell_key: str, server: str, merged: Merged
) -> float | None:
    """Of all trials of a cell, combined as the metric's record says."""
    if metric.is_count:
        return _known(rows, metric.name, sum)
    if metric.is_max:
        return max(_values(valid, metric.name), default=None)
    if metric.histogram and valid:
        kind, percent = metric.histogram
        histogram = merged(kind, cell_key, server)
        cohorts = [invariants.cohort(row) for row in valid] if metric.may_be_never else []
        if histogram is not None and not metric.may_be_never:
            return histogram.percentile(percent)
        if histogram is not None and None not in cohorts:
            return _over_cohort(histogram, percent, sum(each or 0 for each in cohorts))
    middle = _median(valid, metric.name)
    # A rate that counts ends of transfers says nothing where none fell into the window, though transfers were served.
    is_unseen = metric.name == "transfers_per_s" and not middle and any(row.get("completed") for row in valid)
    return None if is_unseen else middle


def _over_cohort(histogram: Histogram, percent: float, cohort: int) -> float | None:
    """A percentile of all that were intended in these trials, of which the histogram holds those that completed."""
    rank = max(1, math.ceil(percent * cohort / 100))
    if not cohort:
        return None
    if rank > histogram.count:
        return math.inf
    return histogram.percentile(100 * (rank - 0.5) / histogram.count)  # half a rank back: no rounding reaches the next


def _rank(line: Line) -> tuple[float, float]:
    """Of servers under one rate: who served more of what was intended, then who was sooner done with nearly all."""
    p99 = line.figures["boot_ns_p99" if line.cell.is_boots else "response_ns_p99"]
    return -(line.done or 0) / (line.asked or 1), math.inf if p99 is None else p99


def _known(rows: Sequence[Row], column: str, combine: Callable[[list[Any]], float]) -> float | None:
    known = [row[column] for row in rows if row.get(column) is not None]
    return combine(known) if known else None


def _median(rows: Sequence[Row], column: str) -> float | None:
    known = _values(rows, column)
    return float(statistics.median(known)) if known else None


def _values(rows: Sequence[Row], column: str) -> list[float]:
    """Those that are known; never is infinite."""
    found = (math.inf if row.get(f"{column}_is_never") else row.get(column) for row in rows)
    return [value for value in found if value is not None]


def flat(line: Line) -> dict[str, object]:
    """A line as one row of FRAME_COLUMNS (and others), the ratio's fields beside the rest."""
    ratio = _ratio_fields(line.ratio) or dict.fromkeys(RATIO_FIELDS)
    return {**record(line), **line.figures, **ratio, "label": line.label, "contender": line.server}


def record(line: Line) -> dict[str, object]:
    """A line as plain values under the names of results; `ratio` is an object, or None."""
    cell = line.cell
    return {
        "cell_key": cell.key,
        "server": line.server,
        **cell.point,
        LOAD_HOSTS: cell.load_hosts,
        "trials": line.trials,
        "valid": line.valid,
        **with_never(line.figures),
        "ceiling_mark": line.ceiling_mark or None,
        "ratio": _ratio_fields(line.ratio),
        "lost": line.lost,
    }


def _ratio_fields(ratio: Ratio | None) -> dict[str, float | int | None] | None:
    if ratio is None:
        return None
    return {name: getattr(ratio, name) for name in RATIO_FIELDS}
