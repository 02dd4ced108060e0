"""From two run folders to a Comparison.

It reads runs and changes none.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from tftpbench.analysis.comparison.cells import CPU, METRIC, by_cell, judged
from tftpbench.analysis.comparison.differences import ROW_FIELDS, Side, left_out, notes, refuse_quick, warnings
from tftpbench.analysis.comparison.result import Comparison, RunName
from tftpbench.model.errors import NotComparable, UsageError
from tftpbench.store import Run, load_run

# A difference within the noise of most machines is not worth acting on; a run can be held to less with `within`.
WITHIN = 0.05
_COLUMNS = ("cell_key", "contender", "round", "verdict", METRIC, CPU, *ROW_FIELDS)
_REASONS_MAX = 3  # a fourth seldom differs in kind
# These files of a trial are not looked at here, and need not be there.
_UNREAD = ("transfers.parquet", "intervals.parquet", "latency.hlog", "latency.parquet")
_NOT_INTERLEAVED = (
    "the runs were not interleaved with each other: what the machine did between them looks like a difference of "
    "servers; to be sure, measure both sides in one run"
)


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
