"""Figures against concurrency: throughput, CPU per block, fairness, scaling. One line per contender.

A line goes through medians of valid trials; its band is a bootstrap interval over trials, never over packets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.analysis.stats import PAIRS_MIN, median_interval
from tftpbench.model.axes import WORK
from tftpbench.model.errors import PlotError
from tftpbench.model.units import format_duration, format_rate
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

_CEILING = "ceiling_data_pps"
_INTERVAL = "95 % interval"
_VALUE = 4  # the column of the figure itself


@dataclass(frozen=True)
class _Metric:
    """What is drawn, and how."""

    plot: str
    column: str
    title: str
    axis: str
    scale: Literal["rate", "duration", "log", "plain"]
    text: Callable[[float], str]
    line: tuple[float, str] | None = None
    """A horizontal line and what it means."""


def throughput(trials: pd.DataFrame) -> Plot:
    """DATA blocks per second (data_pps) against concurrency, from Run.trials. The ceiling is drawn where it is known.

    Median of valid trials per contender with its 95 % bootstrap interval, or the range of fewer than six; each trial as
    a faint point, invalid ones as hollow crosses. PlotError where no trial has a figure.
    """
    metric = _Metric(
        "throughput",
        "data_pps",
        "Throughput against concurrency",
        "DATA blocks per second",
        "rate",
        lambda value: format_rate(value, "blocks"),
    )
    return _against_concurrency(trials, metric)


def cpu_per_block(trials: pd.DataFrame) -> Plot:
    """CPU time of the server per DATA block (server_cpu_ns_per_block) against concurrency, drawn as throughput is."""
    metric = _Metric(
        "cpu_per_block",
        "server_cpu_ns_per_block",
        "Server CPU time per DATA block",
        "CPU time per block",
        "duration",
        format_duration,
    )
    return _against_concurrency(trials, metric)


def fairness(trials: pd.DataFrame) -> Plot:
    """Slowest / median transfer time (fairness) against concurrency, logarithmic, drawn as throughput is. 1 is fair."""
    metric = _Metric(
        "fairness",
        "fairness",
        "Fairness: how much longer the slowest transfer took than the median one",
        "slowest / median transfer time",
        "log",
        lambda value: f"{value:.3g}",
        (1, "1: all equal"),
    )
    return _against_concurrency(trials, metric)


def scaling(trials: pd.DataFrame) -> Plot:
    """Throughput relative to that at the contender's smallest concurrency, drawn as throughput is.

    Each trial's data_pps / the median data_pps of the same contender's valid trials at the smallest concurrency that
    it has one at. 1 keeps what few transfers got; below 1, more transfers at once move less in total.
    """
    frame = frames.needing(trials, ("contender", "concurrency", "data_pps"), "scaling")
    frame["scaling"] = np.nan
    for panel in frames.panels(frame, WORK):
        for _, rows in frames.each_contender(panel.rows):
            usable = rows[frames.valid(rows) & (rows["data_pps"] > 0)].dropna(subset=["concurrency"])
            if len(usable):
                base = usable.loc[usable["concurrency"] == usable["concurrency"].min(), "data_pps"].median()
                frame.loc[rows.index, "scaling"] = rows["data_pps"] / base
    metric = _Metric(
        "scaling",
        "scaling",
        "Scaling: throughput relative to the smallest concurrency",
        "data_pps / data_pps at the smallest concurrency",
        "plain",
        lambda value: f"{value:.3g}",
        (1, "1: no gain, no loss"),
    )
    return _against_concurrency(frame, metric)


def _against_concurrency(trials: pd.DataFrame, metric: _Metric) -> Plot:
    frame = frames.needing(trials, ("contender", "concurrency", metric.column), metric.plot)
    frame[_CEILING] = frames.numbers(trials[_CEILING]) if _has_ceiling(trials, metric) else np.nan
    frame = frame.dropna(subset=["concurrency", metric.column, "contender"])
    frame = frame[(frame["concurrency"] > 0) & ((frame[metric.column] > 0) | (metric.scale != "log"))]
    if frame.empty:
        raise PlotError(f"{metric.plot}: no trial has a known {metric.column}, so there is nothing to draw")
    panels, cut = frames.shown(frames.panels(frame, WORK))
    data = pd.concat([_marks(panel, metric) for panel in panels], ignore_index=True)
    names = list(dict.fromkeys(data["contender"].dropna()))
    styles = style.looks(frames.contenders(frame))
    is_few = len(names) <= frames.FEW
    with style.applied():
        columns = style.columns_for(len(panels), names)
        grid = style.grid(
            metric.title,
            _subtitle(data, cut, is_few=is_few),
            [panel.label for panel in panels],
            columns=columns,
            height=style.panel_height(len(panels), names),
            right=style.key_width(names) if names else 0.15,
        )
        for panel, axes in zip(panels, grid.axes, strict=True):
            _draw(axes, data[data["panel"] == panel.label], styles, is_few=is_few)
        _finish(grid, data, metric)
        for panel, axes in zip(panels, grid.axes, strict=True):
            style.draw_key(axes, _entries(data[data["panel"] == panel.label]), styles)
    return Plot(grid.figure, data, metric.title, _alt(data, metric))


def _has_ceiling(trials: pd.DataFrame, metric: _Metric) -> bool:
    return metric.column == "data_pps" and _CEILING in trials.columns


def _marks(panel: frames.Panel, metric: _Metric) -> pd.DataFrame:
    """One row per mark: trials and invalid trials, medians with their bounds, the ceiling."""
    rows: list[dict[str, object]] = []
    for name, ours in frames.each_contender(panel.rows):
        is_valid = frames.valid(ours)
        for kind, some in (("trial", ours[is_valid]), ("invalid trial", ours[~is_valid])):
            for concurrency, here in some.groupby("concurrency"):
                values = here[metric.column].to_numpy(dtype=float)
                same = {"contender": name, "concurrency": concurrency}
                rows += [{"mark": kind, **same, metric.column: value, "n": 1} for value in values]
                if kind == "trial":
                    rows.append({"mark": "median", **same, **_median(values, metric.column)})
    ceilings = panel.rows[panel.rows[_CEILING] > 0].groupby("concurrency")[_CEILING]
    rows += [
        {"mark": "ceiling", "concurrency": at, metric.column: found.median(), "n": len(found)} for at, found in ceilings
    ]
    columns = ["panel", "mark", "contender", "concurrency", metric.column, "low", "high", "bounds", "n"]
    return pd.DataFrame(rows, columns=columns).assign(panel=panel.label)


def _median(values: frames.Floats, column: str) -> dict[str, object]:
    interval = median_interval([float(value) for value in values])
    low, high = interval or (values.min(), values.max())
    bounds = _INTERVAL if interval else "range"
    return {column: float(np.median(values)), "low": low, "high": high, "bounds": bounds, "n": len(values)}


def _draw(axes: Axes, data: pd.DataFrame, styles: Mapping[str, style.Look], *, is_few: bool) -> None:
    value = data.columns[_VALUE]
    for name, ours in data.groupby("contender", sort=False):
        look = styles[str(name)]
        marks = {str(mark): rows.sort_values("concurrency") for mark, rows in ours.groupby("mark")}
        if "trial" in marks and is_few:
            x, y = marks["trial"]["concurrency"], marks["trial"][value]
            axes.plot(x, y, ".", color=look.colour, alpha=0.35, markersize=4, zorder=2)
        if "invalid trial" in marks:
            x, y = marks["invalid trial"]["concurrency"], marks["invalid trial"][value]
            axes.plot(x, y, "X", color=look.colour, mfc="none", markersize=6.5, markeredgewidth=0.9, zorder=4)
        if "median" in marks:
            _line(axes, marks["median"], value, look, is_few=is_few)
    ceiling = data[data["mark"] == "ceiling"].sort_values("concurrency")
    if len(ceiling):
        axes.plot(ceiling["concurrency"], ceiling[value], "--_", color=style.GREY, linewidth=1.2, zorder=1)
        # At its highest point nothing lies above it.
        top = int(ceiling[value].argmax())
        place = (ceiling["concurrency"].iloc[top], ceiling[value].iloc[top])
        side = "left" if top == 0 else "right" if top == len(ceiling) - 1 else "center"
        axes.annotate("ceiling", place, (0, 3), textcoords="offset points", color=style.GREY, va="bottom", ha=side)


def _line(axes: Axes, rows: pd.DataFrame, value: str, look: style.Look, *, is_few: bool) -> None:
    """Medians; what bounds them is a band where there is room for one, else bars."""
    x, y, low, high = (rows[name].to_numpy(dtype=float) for name in ("concurrency", value, "low", "high"))
    axes.plot(x, y, color=look.colour, linestyle=look.dash, marker=look.marker, markersize=4.5, linewidth=1.5, zorder=3)
    in_band = (rows["bounds"] == _INTERVAL).to_numpy() & is_few & (len(x) > 1)
    band = np.where(in_band, low, np.nan), np.where(in_band, high, np.nan)
    axes.fill_between(x, *band, color=look.colour, alpha=0.18, linewidth=0, zorder=1)
    bars = (rows["n"] > 1).to_numpy() & ~in_band
    axes.vlines(x[bars], low[bars], high[bars], color=look.colour, linewidth=1, alpha=0.7, zorder=2)


def _finish(grid: style.Grid, data: pd.DataFrame, metric: _Metric) -> None:
    axes = grid.axes[0]
    style.counts_axis(axes.xaxis, data["concurrency"])
    values = data[[metric.column, "low", "high"]].to_numpy(dtype=float)
    if metric.scale == "log":
        style.log_axis(axes.yaxis, [float(np.nanmin(values)), float(np.nanmax(values)), *_at(metric)])
    else:
        axes.set_ylim(0, max(float(np.nanmax(values)), *_at(metric), 1e-12) * 1.06)
    if metric.scale == "rate":
        style.rate_axis(axes.yaxis)
    elif metric.scale == "duration":
        style.duration_axis(axes.yaxis, [], is_log=False)
    for each in grid.axes if metric.line else ():
        each.axhline(metric.line[0] if metric.line else 0, color=style.GREY, linewidth=0.9, zorder=1)
    if metric.line:
        place = (0.01, metric.line[0])
        axes.annotate(
            metric.line[1], place, (0, -2), ("axes fraction", "data"), "offset points", color=style.GREY, va="top"
        )
    grid.label("transfers at once (concurrency)", metric.axis)


def _at(metric: _Metric) -> Sequence[float]:
    return (metric.line[0], metric.line[0] * 0.85) if metric.line else (0,)


def _entries(data: pd.DataFrame) -> list[style.Entry]:
    entries = []
    for name, ours in data.groupby("contender", sort=False):
        medians = ours[ours["mark"] == "median"]
        last = (medians if len(medians) else ours).sort_values("concurrency").iloc[-1]
        remark = "" if len(medians) else " (invalid)"
        entries.append(style.Entry(str(name), (last["concurrency"], last.iloc[_VALUE]), remark))
    return entries


def _subtitle(data: pd.DataFrame, cut: str, *, is_few: bool) -> str:
    medians = data[data["mark"] == "median"]
    parts = [f"lines: median of {frames.span([int(n) for n in medians['n']], 'valid trial')}"]
    bounds = set(medians.loc[medians["n"] > 1, "bounds"])
    if is_few:
        parts.append("points: trials")
    if _INTERVAL in bounds:
        parts.append(f"{'bands' if is_few else 'bars'}: 95 % bootstrap interval of the median over trials")
    if "range" in bounds:
        parts.append(f"{'bars: ' if is_few else ''}range of fewer than {PAIRS_MIN}")
    invalid = int((data["mark"] == "invalid trial").sum())
    if invalid:
        parts.append(f"crosses: {frames.span([invalid], 'invalid trial')}, in no line")
    return "; ".join([*parts, *([cut] if cut else [])])


def _alt(data: pd.DataFrame, metric: _Metric) -> str:
    medians = data[data["mark"] == "median"]
    if medians.empty:
        return f"{metric.title}: {frames.span([len(data)], 'trial')}, none of them valid."
    at = medians["concurrency"].max()
    last = medians[medians["concurrency"] == at]
    found = [
        f"{name} {metric.text(value)}{f' ({panel})' if panel else ''}"
        for panel, name, value in zip(last["panel"], last["contender"], last[metric.column], strict=True)
    ]
    return f"{metric.title}; medians at {at:g} at once: {', '.join(found)}."
