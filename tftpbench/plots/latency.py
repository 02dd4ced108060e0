"""Latency by percentile, from merged histograms.

A percentile is read from one merged histogram, never averaged.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.units import counted, format_duration
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

# Beyond the tenth sample from the end, a percentile says more about luck than about a server.
SAMPLES_MIN = 10
# Points per factor of ten along x: a step is narrower than the line is wide, and files stay small.
_STEPS = 25


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
        _spectrum(ours).assign(panel=panel.label, contender=name)
        for panel in panels
        for name, ours in frames.each_contender(panel.rows)
    ]
    if not sum(map(len, spectra)):
        raise PlotError(f"latency_spectrum: no contender has {SAMPLES_MIN} samples, so there is nothing to draw")
    data = pd.concat(spectra, ignore_index=True)[["panel", "contender", "percentile", "value_ns", "samples"]]
    styles = style.looks(frames.contenders(frame))
    names = list(dict.fromkeys(data["contender"]))
    title = f"{what} by percentile"
    samples = data.groupby(["panel", "contender"])["samples"].first()
    subtitle = f"{frames.span(list(samples), 'sample')} a line, cut where fewer than {SAMPLES_MIN} remain"
    with style.applied():
        grid = style.grid(
            title,
            "; ".join(filter(None, [subtitle, cut])),
            [panel.label for panel in panels],
            columns=style.columns_for(len(panels), names),
            height=style.panel_height(len(panels), names),
            right=style.key_width(names),
        )
        for panel, axes in zip(panels, grid.axes, strict=True):
            _draw(axes, data[data["panel"] == panel.label], styles)
        style.percentile_axis(grid, float(_nines(data["percentile"]).max()))
        style.duration_axis(grid.axes[0].yaxis, data["value_ns"])
        grid.label("percentile", f"{what[0].lower()}{what[1:]}" if what else "latency")
        for panel, axes in zip(panels, grid.axes, strict=True):
            style.draw_key(axes, _entries(data[data["panel"] == panel.label]), styles)
    return Plot(grid.figure, data, title, _alt(data, title))


def _spectrum(rows: pd.DataFrame) -> pd.DataFrame:
    """Percentiles that enough samples lie beyond, thinned to what the eye can tell apart."""
    counts = rows.groupby("value_ns")["count"].sum()
    reached = counts.cumsum().to_numpy()
    total = int(reached[-1])
    kept = total - reached >= SAMPLES_MIN
    values, reached = counts.index.to_numpy()[kept], reached[kept]
    if not len(values):
        return pd.DataFrame({"percentile": [], "value_ns": [], "samples": []})
    percentile = 100 * reached / total
    step = np.floor(np.log10(_nines(percentile)) * _STEPS)
    is_last = np.append(step[1:] != step[:-1], True)  # a mask
    is_last[0] = True
    return pd.DataFrame({"percentile": percentile[is_last], "value_ns": values[is_last], "samples": total})


def _nines(percentile: "frames.Floats | pd.Series[float]") -> frames.Floats:
    return np.asarray(100 / (100 - percentile), dtype=np.float64)


def _draw(axes: Axes, data: pd.DataFrame, styles: Mapping[str, style.Look]) -> None:
    for name, rows in data.groupby("contender", sort=False):
        look = styles[str(name)]
        x, y = _nines(rows["percentile"]), rows["value_ns"]
        axes.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=1.5)
        axes.plot(x[-1:], y.iloc[-1:], look.marker, color=look.colour, markersize=4.5)


def _entries(data: pd.DataFrame) -> list[style.Entry]:
    return [
        style.Entry(str(name), (float(_nines(rows["percentile"])[-1]), float(rows["value_ns"].iloc[-1])))
        for name, rows in data.groupby("contender", sort=False)
    ]


def _alt(data: pd.DataFrame, title: str) -> str:
    found = []
    for _, rows in data.groupby(["panel", "contender"], sort=False):
        panel, name = rows["panel"].iloc[0], rows["contender"].iloc[0]
        where = f" ({panel})" if panel else ""
        beyond = rows[rows["percentile"] >= 99]
        farthest = (beyond if len(beyond) else rows).iloc[0 if len(beyond) else -1]
        found.append(f"{name} {format_duration(farthest['value_ns'])} at {farthest['percentile']:.4g} %{where}")
    return f"{title}, {counted(len(found), 'line')}: {', '.join(found)}."
