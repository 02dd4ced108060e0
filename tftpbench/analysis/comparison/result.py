"""Two runs in, a Comparison out: the sentence, a row for each server and cell, what to know before believing it.

It reads runs and changes none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tftpbench.analysis.comparison.differences import (
    CPU,
    METRIC,
    ROW_FIELDS,
    VERDICTS,
    Compared,
    Side,
    by_cell,
    judged,
    left_out,
    notes,
    refuse_mixed,
    refuse_quick,
    warnings,
)
from tftpbench.model.axes import AXES
from tftpbench.model.errors import NotComparable, UsageError
from tftpbench.model.shown import Shown
from tftpbench.store import Run, load_run

if TYPE_CHECKING:
    import pandas as pd

# A difference within the noise of most machines is not worth acting on; a run can be held to less with `within`.
WITHIN = 0.05
_COLUMNS = ("cell_key", "contender", "round", "verdict", METRIC, CPU, *ROW_FIELDS)
_BOUNDS = ("ratio", "low", "high")
_REASONS_MAX = 3  # a fourth seldom differs in kind
# These files of a trial are not looked at here, and need not be there.
_UNREAD = ("transfers.parquet", "intervals.parquet", "latency.hlog", "latency.parquet")
_NOT_INTERLEAVED = (
    "the runs were not interleaved with each other: what the machine did between them looks like a difference of "
    "servers; to be sure, measure both sides in one run"
)


@dataclass(frozen=True)
class RunName:
    """Which run one side is."""

    path: str
    scenario: str | None
    method_key: str | None
    host_key: str | None


@dataclass(frozen=True)
class Comparison(Shown):
    """Two runs, A and B. Every ratio is B over A: above 1, B moved more."""

    a: RunName
    b: RunName
    within: float
    """What counts as the same: 0.05 for 5 %."""
    rows: tuple[Compared, ...]
    left_out: tuple[str, ...]
    """What could not be compared, and why."""
    warnings: tuple[str, ...]
    """What makes any difference doubtful."""
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Comparison of {self.a.path} and {self.b.path}: {self.sentence}>"

    def to_frame(self) -> "pd.DataFrame":
        """One row for each contender in each cell that both runs have; NaN where a figure is not known.

        `cell_key contender label`, the axes of the cell, `a_data_pps` and `b_data_pps` (blocks per second, medians),
        `ratio` (B over A) with its 95 % interval `low` to `high` over `n` pairs (NaN under six), `lowest` and
        `highest` pair, `p_holm`, `verdict`; `cpu_ratio cpu_low cpu_high`: the server's CPU time per block.
        """
        import pandas as pd

        frame = pd.DataFrame([record(row) for row in self.rows])
        frame["contender"] = pd.Categorical(frame["contender"], list(dict.fromkeys(frame["contender"])))
        frame["verdict"] = pd.Categorical(frame["verdict"], list(VERDICTS))
        numbers = [*_BOUNDS, "p_holm", "cpu_ratio", "cpu_low", "cpu_high"]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    @property
    def ratios(self) -> "pd.DataFrame":
        """The rows of `plots.forest`: `label`, "contender, cell", and `ratio low high lowest highest n verdict`."""
        frame = self.to_frame()[[*_BOUNDS, "lowest", "highest", "n", "verdict"]]
        frame.insert(0, "label", [f"{row.contender}, {row.label}" for row in self.rows])
        return frame

    @property
    def counts(self) -> dict[str, int]:
        """How many cells have each verdict."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def sentence(self) -> str:
        """How often there is which verdict, and the largest difference that is certain, or else the largest seen."""
        sure = [row for row in self.rows if row.verdict in ("faster", "slower")]
        widest = max(sure or self.rows, key=lambda row: max(row.moved.ratio, 1 / row.moved.ratio))
        times = f"B is {widest.moved.ratio:.2f} times as fast as A ({widest.moved.certainty})"
        most = f"{widest.contender}, {widest.label}: {times}"
        if len(self.rows) == 1:
            return f"{most}: {self._said(widest.verdict)}."
        each = ", ".join(f"{self._said(verdict)} in {count}" for verdict, count in self.counts.items() if count)
        kind = "that is certain" if sure else "seen, which is not certain"
        return f"B against A in {len(self.rows)} comparisons: {each}. Largest difference {kind}: {most}."

    def _said(self, verdict: str) -> str:
        return f"the same within {100 * self.within:.3g} %" if verdict == "same" else verdict


class WithinError(UsageError, ValueError):
    """`within` is no share: a mistake of the user, and a ValueError to Python."""


def compare(a: Run | Path | str, b: Run | Path | str, *, within: float = WITHIN) -> Comparison:
    """How many times the blocks of run `a` does run `b` move, for each server in each cell that both have.

    Pairs are valid trials of the same round. A cell is "same" where the 95 % interval of the ratio lies inside
    1/(1 + within) to 1 + within; "faster" or "slower" where the interval excludes 1 and the p-value, raised by Holm's
    method for all cells that are judged, is under 5 %; else, and always under 6 pairs, "can't tell".

    Raises NotComparable where nothing can be paired or one is a quick run, ResultsError where one is no run,
    WithinError for `within`.
    """
    if not _is_share(within):
        raise WithinError(f"within is {repr(within)[:40]}; allowed: a number from 0 to under 1, as in 0.05 for 5 %")
    runs = [each if isinstance(each, Run) else load_run(each) for each in (a, b)]
    for run in runs:
        refuse_quick(run.manifest, run.path)
    refuse_mixed(runs[0].manifest, runs[1].manifest, (runs[0].path, runs[1].path))
    first, second = (_side(name, run) for name, run in zip("AB", runs, strict=True))
    rows = judged(first.trials, second.trials, within)
    absent = left_out(first, second)
    if not rows:
        raise NotComparable(*_nothing(runs, (first, second), absent))
    return Comparison(
        a=_name(runs[0], first),
        b=_name(runs[1], second),
        within=within,
        rows=rows,
        left_out=absent,
        warnings=warnings(first, second),
        notes=_notes(runs, first, second),
    )


def _is_share(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and 0 <= float(value) < 1


def _side(name: str, run: Run) -> Side:
    return Side(name, run.manifest, by_cell(_rows(run), list(run.trials["contender"].cat.categories)))


def _rows(run: Run) -> list[Mapping[str, Any]]:
    """What is needed of the trials, as plain values; what isn't known is None."""
    frame = run.trials[list(_COLUMNS)].astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in frame.where(frame.notna(), None).to_dict("records")
    ]


def _notes(runs: Sequence[Run], a: Side, b: Side) -> tuple[str, ...]:
    """What is not whole in either, what else differs, and why a difference may be none."""
    broken = [
        f"{side.name}: {line}"
        for side, run in zip((a, b), runs, strict=True)
        for line in run.problems
        if not any(name in line for name in _UNREAD)
    ]
    if a.manifest == b.manifest and a.trials == b.trials:
        return (*broken, "A and B are the same run")
    return (*broken, *notes(a, b), _NOT_INTERLEAVED)


def _name(run: Run, side: Side) -> RunName:
    scenario, keys = side.part("scenario").get("name"), side.part("keys")
    known = [str(value) if value else None for value in (scenario, keys.get("method_key"), keys.get("host_key"))]
    return RunName(str(run.path), *known)


def _nothing(runs: Sequence[Run], sides: tuple[Side, Side], absent: tuple[str, ...]) -> list[str]:
    """Lines: which runs and why, or, of several reasons, one for each."""
    empty = [f"{run.path} has no finished trial" for run, side in zip(runs, sides, strict=True) if not side.trials]
    reasons = empty or absent
    lines = [*reasons[:_REASONS_MAX], *([f"and {len(reasons) - _REASONS_MAX} more"] * (len(reasons) > _REASONS_MAX))]
    start = f"{runs[0].path} (A) and {runs[1].path} (B) can't be compared:"
    return [start, *lines] if len(lines) > 1 else [f"{start} {''.join(lines)}"]


def record(row: Compared) -> dict[str, Any]:
    """A row as plain values, unknown ones None; the keys are the columns of `Comparison.to_frame`."""
    moved, cpu = row.moved, row.cpu
    return {
        "cell_key": row.cell_key,
        "contender": row.contender,
        "label": row.label,
        **{name: row.row.get(name) for name in AXES},
        "a_data_pps": row.a_data_pps,
        "b_data_pps": row.b_data_pps,
        **{name: getattr(moved, name) for name in (*_BOUNDS, "lowest", "highest", "n")},
        "p_holm": row.p_holm,
        "verdict": row.verdict,
        **{f"cpu_{name}": getattr(cpu, name) if cpu else None for name in _BOUNDS},
    }


SCHEMA = "tftpbench.comparison/1"


def document(comparison: Comparison) -> dict[str, object]:
    """Plain JSON values."""
    return {
        "schema": SCHEMA,
        "a": asdict(comparison.a),
        "b": asdict(comparison.b),
        "within": comparison.within,
        "sentence": comparison.sentence,
        "verdicts": comparison.counts,
        "cells": [record(row) for row in comparison.rows],
        "left_out": list(comparison.left_out),
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
    }
