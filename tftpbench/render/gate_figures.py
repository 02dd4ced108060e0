"""The gate's two pictures: ratios with their budgets, and the pairs behind them in the order done.

It must never draw: that is `tftpbench.plots`.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tftpbench import plots
from tftpbench.gate.result import HEAD, GateResult, Judgement, judgements_frame
from tftpbench.gate.text import metric_words
from tftpbench.model.errors import PlotError, ResultsError
from tftpbench.model.gate_settings import KNOWN


def save_figures(result: GateResult, folder: Path) -> list[Path]:
    """Write forest and pairs as PNG, SVG and CSV; what can't be drawn is left out.

    Without a judgement that has a ratio nothing is written. Raises ResultsError, naming the file, where one can't be.
    """
    if not any(each.ratio for each in result.judgements):
        return []
    wanted: list[tuple[str, Callable[[], plots.Plot]]] = [
        ("forest", lambda: _forest(result)),
        ("pairs", lambda: plots.gate_pairs(_gated_pairs(result))),
    ]
    written: list[Path] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # figures that overflow draw a picture of nothing
        for name, draw in wanted:
            try:
                plot = draw()
            except (PlotError, ValueError, OverflowError, RuntimeWarning):
                continue
            written += _saved(plot, folder / name)
    return written


def _saved(plot: plots.Plot, stem: Path) -> tuple[Path, ...]:
    try:
        return plot.save(stem)
    except PlotError as error:
        raise ResultsError(str(error)) from None
    except (ValueError, OverflowError, RuntimeWarning):  # found only where ticks are placed
        return ()


def _forest(result: GateResult) -> plots.Plot:
    frame = judgements_frame(result)
    cells = frame["cell"].nunique()
    bounds = [passing(each) for each in result.judgements]
    frame = frame.assign(
        label=_labels(result.judgements),
        n=frame["pairs"],
        verdict=[_verdict(each) for each in result.judgements],
        budget_low=np.array([low for low, _ in bounds], dtype=float),
        budget_high=np.array([high for _, high in bounds], dtype=float),
    )
    where = f", {frame['cell'].iloc[0]}" if cells == 1 and frame["cell"].iloc[0] else ""
    frame = frame.merge(_ranges(result), how="left", on=["cell_key", "metric"])
    ends = ["lowest", "highest"]
    frame[ends] = frame[ends].where(frame["low"].isna())  # beside an interval they would only lengthen the axis
    return plots.forest(frame, axis=f"head / base{where}")


def passing(judgement: Judgement) -> tuple[float | None, float | None]:
    """The ratios of head to base within which a metric passes: lowest and highest, None where that side is open."""
    metric = KNOWN.get(judgement.metric)
    if metric is None or judgement.budget is None:
        return None, None
    share = judgement.budget
    return (None, 1 + share) if metric.lower_is_better else (1 - share, None)


def _ranges(result: GateResult) -> pd.DataFrame:
    """Lowest and highest pair, for rows that have too few for an interval."""
    pairs = result.to_frame()
    ratios = pairs[pairs["valid"] & (pairs["compared"] == HEAD)].groupby(["cell_key", "metric"])["ratio"]
    return pd.DataFrame({"lowest": ratios.min(), "highest": ratios.max()}).reset_index()


def _gated_pairs(result: GateResult) -> pd.DataFrame:
    """Pairs of what is gated, in the order of the judgements: a tail beside them would squeeze their scale."""
    pairs = result.to_frame()
    parts = []
    for each in result.judgements:
        if each.budget is not None:
            low, high = passing(each)
            rows = pairs[(pairs["cell_key"] == each.cell_key) & (pairs["metric"] == each.metric)]
            parts.append(rows.assign(budget_ratio=high if low is None else low))
    return pd.concat(parts, ignore_index=True) if parts else pairs[:0]


def _labels(judgements: Sequence[Judgement]) -> list[str]:
    """The metric, and of its cell only what tells it from the others: there is room for few words."""
    words = [metric_words(each, named=False) for each in judgements]
    cells = {each.cell: each.cell.split(", ") for each in judgements}
    if len(cells) < 2:
        return words
    labels = []
    for name, each in zip(words, judgements, strict=True):
        own = [part for part in cells[each.cell] if not all(part in parts for parts in cells.values())]
        labels.append(f"{name}, {', '.join(own) or each.cell}")
    return labels


def _verdict(judgement: Judgement) -> str:
    return judgement.verdict or ("not gated" if judgement.budget is None else "not judged")
