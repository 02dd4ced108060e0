"""How long transfers took: their distribution, and a heat map over time. From Run.transfers.

Only valid trials and completed transfers, each from its request to its end.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.units import counted, format_duration
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

_NEEDED = ("trial", "contender", "actual_start_ns", "end_ns", "outcome")
# Points of a distribution's line: finer than the picture shows, whatever the number of transfers.
_POINTS = 300
_TIME_BINS, _LATENCY_BINS = 60, 40
# The far end of a CCDF rests on single transfers.
_SAMPLES_MIN = 10


def transfer_times(transfers: pd.DataFrame, *, ccdf: bool = False) -> Plot:
    """Share of completed transfers that took no longer (ECDF), or longer (CCDF, logarithmic), per contender.

    One panel per cell. The CCDF ends where fewer than 10 transfers remain. PlotError where none was completed.
    """
    rows = _durations(transfers, "transfer_times")
    panels, cut = frames.shown(frames.panels(rows, CELL))
    curves = [
        _curve(ours["duration_ns"].to_numpy(), ccdf=ccdf).assign(panel=panel.label, contender=name)
        for panel in panels
        for name, ours in frames.each_contender(panel.rows)
    ]
    data = pd.concat(curves, ignore_index=True)[["panel", "contender", "duration_ns", "share", "transfers", "p50_ns"]]
    if data.empty:
        raise PlotError(f"transfer_times: no contender completed {_SAMPLES_MIN} transfers: nothing to draw as a CCDF")
    title = f"Duration of transfers: share {'that took longer' if ccdf else 'done within'}"
    first = data.drop_duplicates(["panel", "contender"])
    notes = [
        f"{frames.span([int(n) for n in first['transfers']], 'completed transfer')} a line; fastest median first",
        f"cut where fewer than {_SAMPLES_MIN} remain" if ccdf else "",
        cut,
    ]
    styles = style.looks(frames.contenders(rows))
    lines = style.curves("duration_ns", "share", styles, "middle")

    def draw(axes: Axes, here: pd.DataFrame) -> None:
        lines(axes, here)
        style.figures_axis(axes.xaxis, here["duration_ns"], format_duration, is_log=True)

    def scale(grid: style.Grid) -> None:
        if ccdf:
            style.log_axis(grid.axes[0].yaxis, [float(data["share"].min()), 1])
        else:
            grid.axes[0].set_ylim(0, 1.02)

    figure = style.drawn(
        title,
        notes,
        data,
        draw,
        lambda here: [
            style.Entry(str(name), styles[str(name)])
            for name in here.groupby("contender", sort=False)["p50_ns"].first().sort_values().index
        ],
        scale,
        ("duration of a transfer", "share that took longer" if ccdf else "share of transfers"),
        share_x=False,
    )
    medians = frames.listed(first["panel"], first["contender"], map(format_duration, first["p50_ns"]))
    return Plot(figure, data, title, f"{title}; medians: {medians}.")


def latency_heatmap(transfers: pd.DataFrame) -> Plot:
    """When transfers ended, in seconds since the trial's first start, and how long they had taken, in log bins.

    Colour is the count, logarithmic. One panel per contender, its valid trials over one another. Of several cells, the
    one with most transfers at once is drawn. PlotError where no transfer was completed.
    """
    rows = _durations(transfers, "latency_heatmap")
    cells = frames.panels(rows, CELL)
    cell = max(cells, key=lambda panel: (_concurrency(panel.rows), -cells.index(panel)))
    found = list(frames.each_contender(cell.rows))
    counted_bins, edges = _binned(found)
    data = _filled(counted_bins, edges)
    title = "Duration of transfers over the course of a trial"
    trials = [int(ours["trial"].nunique()) for _, ours in found]
    parts = [
        cell.label,
        f"{frames.span(trials, 'valid trial')} over one another",
        f"of {counted(len(cells), 'cell')}, the one with most transfers at once" if len(cells) > 1 else "",
    ]
    columns = min(3, len(found))
    with style.applied():
        grid = style.grid(
            title,
            "; ".join(filter(None, parts)),
            [f"{style.shortened(name)}: {counted(len(ours), 'transfer')}" for name, ours in found],
            columns=columns,
            height=1.6 if columns > 1 else 2.4,
            gap=0.15,
            right=0.1,
            foot=1,
        )
        _draw_heat(grid, list(counted_bins.values()), edges)
        style.figures_axis(grid.axes[0].yaxis, rows["duration_ns"], format_duration, is_log=True)
        grid.label("end, s after the first start", "duration")
    return Plot(grid.figure, data, title, f"Heat map, {title.lower()}, for {', '.join(counted_bins)}; {cell.label}.")


def _durations(transfers: pd.DataFrame, plot: str) -> pd.DataFrame:
    """Completed transfers of valid trials: duration_ns, and ended_ns since the trial's first start."""
    rows = frames.needing(transfers, _NEEDED, plot)
    rows["ended_ns"] = rows["end_ns"] - rows.groupby("trial")["actual_start_ns"].transform("min")
    rows["duration_ns"] = rows["end_ns"] - rows["actual_start_ns"]
    is_done = (rows["outcome"].astype("string") == "completed").fillna(False).astype(bool)
    rows = rows[is_done & frames.valid(rows) & (rows["duration_ns"] > 0)].dropna(subset=["contender"])
    if rows.empty:
        raise PlotError(f"{plot}: no valid trial completed a transfer, so there is nothing to draw")
    return rows


def _curve(durations: frames.Floats, *, ccdf: bool) -> pd.DataFrame:
    """The distribution at evenly spaced ranks; for the far end of a CCDF, at evenly spaced logarithms of the share."""
    ordered = np.sort(durations)
    total = len(ordered)
    ranks = np.linspace(1, total, min(total, _POINTS))
    if ccdf:
        beyond = np.geomspace(_SAMPLES_MIN, total, _POINTS) if total >= _SAMPLES_MIN else np.empty(0)
        ranks = np.append(0, total - beyond[beyond < total][::-1]) if len(beyond) else np.empty(0)
    ranks = np.unique(ranks.astype(int))
    reached = ranks / total
    return pd.DataFrame(
        {
            "duration_ns": ordered[np.maximum(ranks, 1) - 1],
            "share": 1 - reached if ccdf else reached,
            "transfers": total,
            "p50_ns": float(np.median(ordered)),
        }
    )


def _concurrency(rows: pd.DataFrame) -> float:
    return float(rows["concurrency"].max()) if "concurrency" in rows.columns else 0


Edges = tuple[frames.Floats, frames.Floats]


def _binned(found: list[tuple[str, pd.DataFrame]]) -> tuple[dict[str, frames.Floats], Edges]:
    """Counts by contender: a row per bin of time, a column per bin of duration; and the bins' edges."""
    last = max(float(rows["ended_ns"].max()) for _, rows in found) / 1e9
    durations = [float(each) for _, rows in found for each in (rows["duration_ns"].min(), rows["duration_ns"].max())]
    low, high = min(durations), max(durations)
    times = np.linspace(0, max(last, 1e-9) * 1.0001, _TIME_BINS + 1)
    bins = np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, _LATENCY_BINS + 1)
    return {
        name: np.histogram2d(rows["ended_ns"] / 1e9, rows["duration_ns"], bins=(times, bins))[0] for name, rows in found
    }, (times, bins)


def _filled(counts: Mapping[str, frames.Floats], edges: Edges) -> pd.DataFrame:
    """One row per bin that holds something."""
    names, filled = list(counts), np.stack(list(counts.values()))
    whose, at, of = np.nonzero(filled)
    return pd.DataFrame(
        {
            "contender": [names[each] for each in whose],
            "from_s": edges[0][at],
            "to_s": edges[0][at + 1],
            "from_ns": edges[1][of],
            "to_ns": edges[1][of + 1],
            "transfers": filled[whose, at, of].astype(int),
        }
    )


def _draw_heat(grid: style.Grid, counts: list[frames.Floats], edges: Edges) -> None:
    most = max(float(each.max()) for each in counts)
    norm = LogNorm(1, max(most, 2))
    for axes, each in zip(grid.axes, counts, strict=True):
        filled = np.ma.masked_equal(each.T, 0)
        axes.pcolormesh(*edges, filled, cmap="viridis_r", norm=norm, rasterized=True)
        axes.set_xlim(0, edges[0][-1])
    style.colour_bar(grid, ScalarMappable(norm, "viridis_r"), "transfers in a bin")
