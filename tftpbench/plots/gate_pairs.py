"""The pairs behind a gate's ratios, in the order in which they were done, beside pairs of equal code.

Ratios come from the gate; it must never estimate.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.model.budgets import KNOWN
from tftpbench.model.errors import PlotError
from tftpbench.model.units import counted
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

_HEAD = style.looks([""])[""]
_BUDGET = "#D55E00"
_BELOW_MAX = 3  # panels under each other, as wide as the page; more stand side by side
_COLUMNS = ("pair", "ratio", "base_first", "valid")
_TEXTS = ("cell", "cell_key", "metric", "compared")


def gate_pairs(pairs: pd.DataFrame) -> Plot:
    """Ratios of head to base, pair by pair in the order done; one panel per metric and cell, on one scale.

    `pairs` is what `tftpbench.gate.result.pairs_frame` gives. A filled mark: the base was loaded first; a hollow one:
    it was not. Grey squares are a second base / the base, which are equal code; crosses are pairs that do not count. An
    optional column budget_ratio is drawn dashed: where the budget of the row's metric ends. PlotError where no pair has
    a ratio.
    """
    data = _known(pairs)
    found = [rows for _, rows in data.groupby(["cell_key", "metric"], sort=False)]
    cut = f"the first {frames.PANELS_MAX} of {counted(len(found), 'panel')}" if len(found) > frames.PANELS_MAX else ""
    found = found[: frames.PANELS_MAX]
    names = _panel_names(found)
    data = pd.concat([rows.assign(panel=name) for rows, name in zip(found, names, strict=True)], ignore_index=True)
    title = "Pairs: head / base, in the order done"

    def scale(grid: style.Grid) -> None:
        style.order_axis(grid.axes[0].xaxis, data["pair"])
        ratios = data["ratio"].to_numpy(dtype=float)
        style.log_axis(grid.axes[0].yaxis, [float(ratios.min()), float(ratios.max()), 1, *_budgets(data)])

    labels = ("pair, in the order done", "head / base")
    figure = style.drawn(title, [*_key(data), cut], data, _draw, lambda _: [], scale, labels, under=_BELOW_MAX)
    return Plot(figure, data, title, _alt(found, names, title))


def _known(pairs: pd.DataFrame) -> pd.DataFrame:
    optional = [name for name in ("base", "other", "budget_ratio") if name in pairs.columns]
    missing = [name for name in _TEXTS if name not in pairs.columns]
    if missing:
        raise PlotError(f"gate_pairs needs the columns {', '.join(missing)}, which the frame has not")
    known = frames.needing(pairs, (*_COLUMNS, *optional), "gate_pairs")
    texts = {name: pairs[name].astype("string").fillna("") for name in _TEXTS}
    whole = known.assign(**texts)[[*_TEXTS, *_COLUMNS, *optional]]
    drawn = whole[(whole["ratio"] > 0) & whole["pair"].notna()].reset_index(drop=True)
    if drawn.empty:
        raise PlotError("gate_pairs: no pair has a ratio, so there is nothing to draw")
    marks = {name: drawn[name].fillna(0).astype(bool) for name in ("base_first", "valid")}
    return drawn.assign(**marks)


def _panel_names(found: list[pd.DataFrame]) -> list[str]:
    """The metric in words, and the cell where there are several."""
    several = len({rows["cell_key"].iloc[0] for rows in found}) > 1
    names = []
    for rows in found:
        metric, cell = str(rows["metric"].iloc[0]), style.printable(rows["cell"].iloc[0])
        known = KNOWN.get(metric)
        words = known.words if known else style.printable(metric)
        names.append(f"{words}\n{cell}" if several else words)
    return names


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(1, color=style.GREY, linewidth=0.9, zorder=1)
    for end in _budgets(rows):
        axes.axhline(end, color=_BUDGET, linewidth=1.1, linestyle="--", zorder=1)
    valid, is_control = rows["valid"], rows["compared"] == "control"
    heads = rows[valid & ~is_control].sort_values("pair")
    for some, marker, colour in ((rows[valid & is_control], "s", "#999999"), (rows[~valid], "x", style.GREY)):
        axes.plot(some["pair"], some["ratio"], marker, color=colour, markersize=4.5, zorder=3)
    style.in_order(axes, heads["pair"], heads["ratio"], heads["base_first"], _HEAD)


def _budgets(rows: pd.DataFrame) -> list[float]:
    if "budget_ratio" not in rows.columns:
        return []
    ends = rows["budget_ratio"].to_numpy(dtype=float)
    return sorted({float(end) for end in ends[np.isfinite(ends) & (ends > 0)]})


def _key(data: pd.DataFrame) -> list[str]:
    """Only what is to be seen."""
    valid, is_control = data["valid"], data["compared"] == "control"
    return [
        "filled: base was loaded first, hollow: it was not" if (valid & ~is_control).any() else "",
        "grey squares: a second base / base, equal code" if (valid & is_control).any() else "",
        "crosses: pairs that do not count" if (~valid).any() else "",
        "dashed: where the budget ends" if _budgets(data) else "",
    ]


def _alt(found: list[pd.DataFrame], names: list[str], title: str) -> str:
    parts = []
    for rows, name in zip(found, names, strict=True):
        heads = rows[rows["valid"] & (rows["compared"] != "control")]["ratio"]
        if len(heads):
            words = name.replace("\n", ", ")
            parts.append(f"{words} {heads.min():.3g} to {heads.max():.3g} ({counted(len(heads), 'pair')})")
    return f"{title}: {'; '.join(parts) if parts else 'no pair counts'}."
