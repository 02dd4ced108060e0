"""Each server in each cell that two runs have in common: pairs of trials, their ratio, and a verdict.

Pure, of rows of results.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tftpbench.analysis.stats import CONFIDENCE, Ratio, holm, paired_ratio
from tftpbench.measure.validity import is_open_loop
from tftpbench.model.axes import AXES, CELL, label

Row = Mapping[str, Any]
Key = tuple[str, str]
"""(cell_key, contender)"""
Verdict = Literal["faster", "slower", "same", "can't tell"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

METRIC, CPU = "data_pps", "server_cpu_ns_per_block"


@dataclass(frozen=True)
class Compared:
    """One server in one cell. Ratios are B over A; cpu is None where no pair knows the server's CPU time.

    *_data_pps are medians over the pairs, as the ratio is: over all valid trials they could contradict it.
    """

    cell_key: str
    contender: str
    row: Row
    a_data_pps: float
    b_data_pps: float
    moved: Ratio
    cpu: Ratio | None
    p_holm: float | None
    verdict: Verdict

    @property
    def label(self) -> str:
        """Of the cell, as the summary of a run writes it."""
        return cell_label(self.row)


def by_cell(rows: Iterable[Row], contenders: Sequence[str]) -> dict[Key, list[Row]]:
    """Trials by cell and server: cells along their axes, in each the servers in the order of `contenders`."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((row["cell_key"], row["contender"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: (*axes(item[1][0]), item[0][0], contenders.index(item[0][1]))))


def axes(row: Row) -> tuple[str | int, ...]:
    """Where the row's cell is in a matrix; unknown numbers first."""
    return tuple(str(row.get(name)) if AXES[name].dtype == "text" else row.get(name) or 0 for name in CELL)


def cell_label(row: Row) -> str:
    """For people: "read, 100 at once, 64 KiB"; by its key where a row does not say."""
    known = {name: row.get(name) for name, axis in AXES.items() if axis.added is None or row.get(name) is not None}
    return f"cell {row['cell_key']}" if None in known.values() else label(known)


def pairs(a: Sequence[Row], b: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    """The figures of A and of B in the rounds in which both have a valid trial that knows them."""
    ours, theirs = _by_round(a, metric), _by_round(b, metric)
    rounds = sorted(ours.keys() & theirs.keys())
    return [ours[each] for each in rounds], [theirs[each] for each in rounds]


def usable(row: Row, metric: str) -> bool:
    """Whether the trial is valid and knows the figure. One that moved nothing has no ratio; its own summary tells.

    Nor has one whose starts followed a schedule: how much it moves a second is not its server's doing.
    """
    value = None if is_open_loop(row) else row.get(metric)
    return bool(row["verdict"] == "valid" and isinstance(value, (int, float)) and math.isfinite(value) and value > 0)


def judged(a: Mapping[Key, Sequence[Row]], b: Mapping[Key, Sequence[Row]], within: float) -> tuple[Compared, ...]:
    """All that have a pair, in A's order. `within`: what counts as the same, 0.05 for 5 %."""
    ratios = {key: ratio for key in a if key in b and (ratio := _ratio(a[key], b[key], METRIC)) is not None}
    judgeable = {key: ratio.p_value for key, ratio in ratios.items() if ratio.p_value is not None}
    adjusted = {key: float(p_value[0]) for key, p_value in holm(judgeable).items()}
    medians = {key: [statistics.median(side) for side in pairs(a[key], b[key], METRIC)] for key in ratios}
    return tuple(
        Compared(
            *key, a[key][0], medians[key][0], medians[key][1], ratio, _ratio(a[key], b[key], CPU), adjusted.get(key),
            verdict(ratio, adjusted.get(key), within),
        )
        for key, ratio in ratios.items()
    )  # fmt: skip


def verdict(ratio: Ratio, p_holm: float | None, within: float) -> Verdict:
    """What may be said. "same" comes first: a difference can be sure and too small to matter."""
    if ratio.low is None or ratio.high is None or p_holm is None:
        return "can't tell"
    # 1/1.05 to 1.05 rather than 0.95 to 1.05: which run is A must not matter.
    if max(abs(math.log(ratio.low)), abs(math.log(ratio.high))) <= math.log1p(within):
        return "same"
    if ratio.differs and p_holm < 1 - CONFIDENCE:
        return "faster" if ratio.ratio > 1 else "slower"
    return "can't tell"


def _ratio(a: Sequence[Row], b: Sequence[Row], metric: str) -> Ratio | None:
    first, second = pairs(a, b, metric)
    return paired_ratio(second, first) if first else None


def _by_round(rows: Sequence[Row], metric: str) -> dict[int, float]:
    return {row["round"]: float(row[metric]) for row in rows if row.get("round") and usable(row, metric)}
