"""The pairs behind a gate's ratios, in the order in which they were done, beside pairs of equal code.

Ratios come from the gate; it must never estimate.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tftpbench.model.budgets import KNOWN
from tftpbench.model.errors import PlotError
from tftpbench.model.units import counted
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

_HEAD = "#0072B2"
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
    data = pd.concat(found, ignore_index=True)
    title = "Pairs: head / base, in the order done"
    names = _panel_names(found)
    columns = 2 if len(found) > _BELOW_MAX else 1
    with style.applied():
        grid = style.grid(
            title,
            "; ".join(filter(None, [*_key(data), cut])),
            names,
            columns=columns,
            height=2.3 if len(found) == 1 else 1.5 if columns == 1 else 1.7,
        )
        for rows, axes in zip(found, grid.axes, strict=True):
            _draw(axes, rows)
        _finish(grid, data)
    return Plot(grid.figure, data.assign(panel=_panel_of(data, found, names)), title, _alt(found, names, title))


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


def _panel_of(data: pd.DataFrame, found: list[pd.DataFrame], names: list[str]) -> "pd.Series[str]":
    lengths = [len(rows) for rows in found]
    return pd.Series(np.repeat(np.array(names, dtype=object), lengths), index=data.index)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(1, color=style.GREY, linewidth=0.9, zorder=1)
    for end in _budgets(rows):
        axes.axhline(end, color=_BUDGET, linewidth=1.1, linestyle="--", zorder=1)
    counted_ones, others = rows[rows["valid"]], rows[~rows["valid"]]
    heads = counted_ones[counted_ones["compared"] != "control"].sort_values("pair")
    controls = counted_ones[counted_ones["compared"] == "control"]
    axes.plot(heads["pair"], heads["ratio"], color=_HEAD, linestyle=":", linewidth=0.8, zorder=2)
    axes.plot(controls["pair"], controls["ratio"], "s", color="#999999", markersize=4, zorder=3)
    for is_first, here in heads.groupby("base_first"):
        fill = _HEAD if is_first else "white"
        axes.plot(here["pair"], here["ratio"], "o", color=_HEAD, mfc=fill, markersize=4.5, zorder=4)
    axes.plot(others["pair"], others["ratio"], "x", color=style.GREY, markersize=4.5, zorder=3)


def _budgets(rows: pd.DataFrame) -> list[float]:
    if "budget_ratio" not in rows.columns:
        return []
    ends = rows["budget_ratio"].to_numpy(dtype=float)
    return sorted({float(end) for end in ends[np.isfinite(ends) & (ends > 0)]})


def _finish(grid: style.Grid, data: pd.DataFrame) -> None:
    first, last = float(data["pair"].min()), float(data["pair"].max())
    grid.axes[0].set_xlim(first - 0.5, last + 0.5)
    grid.axes[0].xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ratios = data["ratio"].to_numpy(dtype=float)
    style.log_axis(grid.axes[0].yaxis, [float(ratios.min()), float(ratios.max()), 1, *_budgets(data)])
    grid.label("pair, in the order done", "head / base")


def _key(data: pd.DataFrame) -> list[str]:
    """Only what is to be seen."""
    is_valid, is_control = data["valid"], data["compared"] == "control"
    heads = data[is_valid & ~is_control]
    parts = []
    if len(heads):
        parts.append("filled: base was loaded first, hollow: it was not")
    if (is_valid & is_control).any():
        parts.append("grey squares: a second base / base, equal code")
    if (~is_valid).any():
        parts.append("crosses: pairs that do not count")
    if _budgets(data):
        parts.append("dashed: where the budget ends")
    return parts


def _alt(found: list[pd.DataFrame], names: list[str], title: str) -> str:
    parts = []
    for rows, name in zip(found, names, strict=True):
        heads = rows[rows["valid"] & (rows["compared"] != "control")]["ratio"]
        if len(heads):
            words = name.replace("\n", ", ")
            parts.append(f"{words} {heads.min():.3g} to {heads.max():.3g} ({counted(len(heads), 'pair')})")
    return f"{title}: {'; '.join(parts) if parts else 'no pair counts'}."
