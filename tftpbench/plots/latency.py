"""How long things took: latency by percentile, the distribution of transfers, and a heat map over time.

A percentile is read from one merged histogram, never averaged. Of transfers (Run.transfers) only completed ones of
valid trials count, each from its request to its end.
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

# Beyond the tenth sample from the end, a percentile or a share says more about luck than about a server.
SAMPLES_MIN = 10
_NEEDED = ("trial", "contender", "actual_start_ns", "end_ns", "outcome")
_TIME_BINS, _LATENCY_BINS = 60, 40


def latency_spectrum(frame: pd.DataFrame, what: str = "Latency") -> Plot:
    """Latency against percentile, the axis 1/(1-p), so that each nine has as much room as the one before.

    `frame` holds the rows of Latency.to_frame() (value_ns, count) and whose they are: `contender`; one panel per
    combination of operation, file_size_bytes, blksize, windowsize and concurrency as far as it has these. `what` is the
    latency's name. Lines end where fewer than 10 samples remain. PlotError where nothing was counted.
    """
    rows = frames.needing(frame, ("contender", "value_ns", "count"), "latency_spectrum")
    rows = rows[(rows["value_ns"] > 0) & (rows["count"] > 0)]
    panels, cut = frames.shown(frames.panels(rows, CELL)) if len(rows) else ([], "")
    spectra = [
        _spectrum(ours).assign(panel=label, contender=name)
        for label, cell in panels
        for name, ours in frames.each_contender(cell)
    ]
    if not sum(map(len, spectra)):
        raise PlotError(f"latency_spectrum: no contender has {SAMPLES_MIN} samples, so there is nothing to draw")
    data = pd.concat(spectra, ignore_index=True)[["panel", "contender", "percentile", "value_ns", "samples"]]
    styles = style.looks(frames.contenders(frame))
    samples = data.groupby(["panel", "contender"])["samples"].first()
    nines = data.assign(nines=frames.nines(data["percentile"]))

    def scale(grid: style.Grid) -> None:
        style.percentile_axis(grid, float(nines["nines"].max()))
        style.figures_axis(grid.axes[0].yaxis, data["value_ns"], format_duration, is_log=True)

    title = f"{what} by percentile"
    figure = style.drawn(
        title,
        [f"{frames.span(list(samples), 'sample')} a line, cut where fewer than {SAMPLES_MIN} remain", cut],
        nines,
        style.curves("nines", "value_ns", styles, "last"),
        style.ends("nines", "value_ns", styles),
        scale,
        ("percentile", f"{what[0].lower()}{what[1:]}" if what else "latency"),
    )
    return Plot(figure, data, title, _alt(data, title))


def _spectrum(rows: pd.DataFrame) -> pd.DataFrame:
    """Percentiles that enough samples lie beyond, thinned to what the eye can tell apart."""
    counts = rows.groupby("value_ns")["count"].sum()
    reached = counts.cumsum().to_numpy()
    total = int(reached[-1])
    kept = total - reached >= SAMPLES_MIN
    values, reached = counts.index.to_numpy()[kept], reached[kept]
    percentile = 100 * reached / total
    is_kept = frames.thinned(percentile)
    return pd.DataFrame({"percentile": percentile[is_kept], "value_ns": values[is_kept], "samples": total})


def _alt(data: pd.DataFrame, title: str) -> str:
    """Of each line the first percentile that is at least 99, or else the last one."""
    lines = [ours for _, ours in data.groupby(["panel", "contender"], sort=False)]
    beyond = [(ours[ours["percentile"] >= 99].head(1), ours.tail(1)) for ours in lines]
    ends = pd.concat([far if len(far) else last for far, last in beyond])
    texts = [
        f"{format_duration(value)} at {at:.4g} %"
        for value, at in zip(ends["value_ns"], ends["percentile"], strict=True)
    ]
    return f"{title}: {frames.listed(ends['panel'], ends['contender'], texts)}."


def transfer_times(transfers: pd.DataFrame, *, ccdf: bool = False) -> Plot:
    """Share of completed transfers that took no longer (ECDF), or longer (CCDF, logarithmic), per contender.

    One panel per cell. The CCDF ends where fewer than 10 transfers remain. PlotError where none was completed.
    """
    rows = _durations(transfers, "transfer_times")
    panels, cut = frames.shown(frames.panels(rows, CELL))
    curves = [
        _curve(ours["duration_ns"].to_numpy(), ccdf=ccdf).assign(panel=label, contender=name)
        for label, cell in panels
        for name, ours in frames.each_contender(cell)
    ]
    data = pd.concat(curves, ignore_index=True)[["panel", "contender", "duration_ns", "share", "transfers", "p50_ns"]]
    if data.empty:
        raise PlotError(f"transfer_times: no contender completed {SAMPLES_MIN} transfers: nothing to draw as a CCDF")
    title = f"Duration of transfers: share {'that took longer' if ccdf else 'done within'}"
    first = data.drop_duplicates(["panel", "contender"])
    notes = [
        f"{frames.span([int(n) for n in first['transfers']], 'completed transfer')} a line; fastest median first",
        f"cut where fewer than {SAMPLES_MIN} remain" if ccdf else "",
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
    label, busiest = max(cells, key=lambda cell: cell[1]["concurrency"].max() if "concurrency" in cell[1] else 0)
    found = list(frames.each_contender(busiest))
    counted_bins, edges = _binned(found)
    data = _filled(counted_bins, edges)
    title = "Duration of transfers over the course of a trial"
    trials = [int(ours["trial"].nunique()) for _, ours in found]
    parts = [
        label,
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
        norm = LogNorm(1, max(*(float(each.max()) for each in counted_bins.values()), 2))
        for axes, each in zip(grid.axes, counted_bins.values(), strict=True):
            filled = np.ma.masked_equal(each.T, 0)
            axes.pcolormesh(*edges, filled, cmap="viridis_r", norm=norm, rasterized=True)
            axes.set_xlim(0, edges[0][-1])
        style.colour_bar(grid, ScalarMappable(norm, "viridis_r"), "transfers in a bin")
        style.figures_axis(grid.axes[0].yaxis, rows["duration_ns"], format_duration, is_log=True)
        grid.label("end, s after the first start", "duration")
    return Plot(grid.figure, data, title, f"Heat map, {title.lower()}, for {', '.join(counted_bins)}; {label}.")


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
    ranks = np.linspace(1, total, min(total, frames.POINTS))
    if ccdf:
        beyond = np.geomspace(SAMPLES_MIN, total, frames.POINTS) if total >= SAMPLES_MIN else np.empty(0)
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
