"""Latency by percentile, from merged histograms.

A percentile is read from one merged histogram, never averaged.
"""

import numpy as np
import pandas as pd

from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.units import format_duration
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
    samples = data.groupby(["panel", "contender"])["samples"].first()
    nines = data.assign(nines=_nines(data["percentile"]))

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
    step = np.floor(np.log10(_nines(percentile)) * _STEPS)
    is_last = np.append(step[1:] != step[:-1], True)[: len(values)]  # a mask
    is_last[:1] = True
    return pd.DataFrame({"percentile": percentile[is_last], "value_ns": values[is_last], "samples": total})


def _nines(percentile: "frames.Floats | pd.Series[float]") -> frames.Floats:
    return np.asarray(100 / (100 - percentile), dtype=np.float64)


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
