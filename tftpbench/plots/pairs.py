"""The pairs of trials behind a ratio, in the order in which they were done: where drift and order show.

Estimates come from `tftpbench.analysis.stats`.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tftpbench.analysis.stats import paired_ratio
from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot


def pairs(trials: pd.DataFrame, reference: str | None = None) -> Plot:
    """data_pps of each contender / that of `reference` (the first, unless named), round by round in the order done.

    One panel per cell. A filled mark: the reference went first in that round; a hollow one: it went second. The line is
    the estimate over all pairs, its band the 95 % interval (none under 6). A drift or an effect of the order is to be
    seen here. PlotError where no round has a valid trial of both.
    """
    frame = frames.needing(trials, ("contender", "concurrency", "round", "order", "data_pps"), "pairs")
    base = _reference(frame, reference)
    found = [(panel.label, _paired(panel.rows, base)) for panel in frames.panels(frame, CELL)]
    tables, cut = frames.shown([frames.Panel(label, table) for label, table in found if len(table)])
    if not tables:
        raise PlotError(f"pairs: no round has a valid trial of {base or 'any contender'} and of another")
    data = pd.concat([table.rows.assign(panel=table.label) for table in tables], ignore_index=True)
    names = list(dict.fromkeys(data["contender"]))
    styles = style.looks(frames.contenders(frame))
    title = f"Pairs of trials: throughput / that of {base}"
    is_few = len(names) <= frames.FEW
    band = "; band: its 95 % interval" if is_few and data["low"].notna().any() else ""
    text = f"filled: {base} went first, hollow: second; line: estimate over {_span(data)}{band}"
    with style.applied():
        grid = style.grid(
            title,
            "; ".join(filter(None, [text, cut])),
            [table.label for table in tables],
            columns=style.columns_for(len(tables), names),
            height=style.panel_height(3, names),
            right=style.key_width(names, " 0.0000"),
        )
        for table, axes in zip(tables, grid.axes, strict=True):
            _draw(axes, table.rows, styles, is_few=is_few)
        _finish(grid, data)
        for table, axes in zip(tables, grid.axes, strict=True):
            style.draw_key(axes, _entries(table.rows), styles)
    return Plot(grid.figure, data, title, _alt(data, title))


def _span(data: pd.DataFrame) -> str:
    return frames.span([int(n) for n in data["n"]], "pair")


def _reference(frame: pd.DataFrame, asked: str | None) -> str:
    known = frames.contenders(frame)
    if asked is not None and asked not in known:
        raise PlotError(f"pairs: no contender is called {asked!r}; there are: {', '.join(known)}")
    present = [name for name, _ in frames.each_contender(frame[frames.valid(frame)])]
    return asked or (present[0] if present else "")


def _paired(rows: pd.DataFrame, base: str) -> pd.DataFrame:
    """One row per pair: contender, place (1, 2... in the order done), round, ratio, what went first, the estimate."""
    usable = rows[frames.valid(rows) & (rows["data_pps"] > 0)].dropna(subset=["round", "order"])
    by_name = {name: ours.drop_duplicates("round") for name, ours in frames.each_contender(usable)}
    theirs = by_name.pop(base, usable[:0])[["round", "order", "data_pps"]]
    place = usable.groupby("round")["order"].min().rank(method="first")
    tables = []
    for name, ours in by_name.items():
        both = ours.merge(theirs, on="round", suffixes=("", "_base"))
        if len(both):
            estimate = paired_ratio(both["data_pps"].tolist(), both["data_pps_base"].tolist())
            table = pd.DataFrame(
                {
                    "contender": name,
                    "place": both["round"].map(place),
                    "round": both["round"],
                    "ratio": both["data_pps"] / both["data_pps_base"],
                    "reference_first": both["order_base"] < both["order"],
                    "estimate": estimate.ratio,
                    "low": np.nan if estimate.low is None else estimate.low,
                    "high": np.nan if estimate.high is None else estimate.high,
                    "n": estimate.n,
                }
            )
            tables.append(table.sort_values("place"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _draw(axes: Axes, rows: pd.DataFrame, styles: Mapping[str, style.Look], *, is_few: bool) -> None:
    axes.axhline(1, color=style.GREY, linewidth=0.9, zorder=1)
    for name, ours in rows.groupby("contender", sort=False):
        look = styles[str(name)]
        first = ours.iloc[0]
        axes.axhline(first["estimate"], color=look.colour, linewidth=1, zorder=2)
        if pd.notna(first["low"]) and is_few:
            axes.axhspan(first["low"], first["high"], color=look.colour, alpha=0.15, linewidth=0, zorder=1)
        axes.plot(ours["place"], ours["ratio"], color=look.colour, linestyle=":", linewidth=0.8, zorder=2)
        for is_first, here in ours.groupby("reference_first"):
            fill = look.colour if is_first else "white"
            axes.plot(here["place"], here["ratio"], look.marker, color=look.colour, mfc=fill, markersize=4.5, zorder=3)


def _finish(grid: style.Grid, data: pd.DataFrame) -> None:
    last = float(data["place"].max())
    grid.axes[0].set_xlim(0.5, last + 0.5)
    grid.axes[0].xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    values = data[["ratio", "low", "high"]].to_numpy(dtype=float)
    style.log_axis(grid.axes[0].yaxis, [float(np.nanmin(values)), float(np.nanmax(values)), 1])
    grid.label("pairs, in the order done", "ratio")


def _entries(rows: pd.DataFrame) -> list[style.Entry]:
    found = []
    for name, ours in rows.groupby("contender", sort=False):
        last = ours.iloc[-1]
        found.append(style.Entry(str(name), (last["place"], last["estimate"]), f" {last['estimate']:.3g}"))
    return found


def _alt(data: pd.DataFrame, title: str) -> str:
    firsts = data.groupby(["panel", "contender"], sort=False).first()
    found = [
        f"{name} {row.estimate:.3g} (n={row.n}{f', {panel}' if panel else ''})"
        for (panel, name), row in zip(firsts.index, firsts.itertuples(index=False), strict=True)
    ]
    return f"{title}, round by round; estimates: {', '.join(found)}."
