"""The pairs of trials behind a ratio, in the order in which they were done: where drift and order show.

Estimates come from `tftpbench.analysis.stats`.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

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
    pairs_each = frames.span([int(n) for n in data["n"]], "pair")
    figure = style.drawn(
        title,
        [f"filled: {base} went first, hollow: second; line: estimate over {pairs_each}{band}", cut],
        data,
        lambda axes, rows: _draw(axes, rows, styles, is_few=is_few),
        lambda rows: [
            style.Entry(str(name), styles[str(name)], (last["place"], last["estimate"]), f" {last['estimate']:.3g}")
            for name, ours in rows.groupby("contender", sort=False)
            for _, last in ours.tail(1).iterrows()
        ],
        lambda grid: _scale(grid, data),
        ("pairs, in the order done", "ratio"),
    )
    firsts = data.drop_duplicates(["panel", "contender"])
    texts = [f"{row.estimate:.3g}, n={row.n}" for row in firsts.itertuples()]
    estimates = frames.listed(firsts["panel"], firsts["contender"], texts)
    return Plot(figure, data, title, f"{title}, round by round; estimates: {estimates}.")


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
        look, first = styles[str(name)], ours.iloc[0]
        axes.axhline(first["estimate"], color=look.colour, linewidth=1, zorder=2)
        if pd.notna(first["low"]) and is_few:
            axes.axhspan(first["low"], first["high"], color=look.colour, alpha=0.15, linewidth=0, zorder=1)
        style.in_order(axes, ours["place"], ours["ratio"], ours["reference_first"], look)


def _scale(grid: style.Grid, data: pd.DataFrame) -> None:
    style.order_axis(grid.axes[0].xaxis, pd.Series([1, data["place"].max()]))
    values = data[["ratio", "low", "high"]].to_numpy(dtype=float)
    style.log_axis(grid.axes[0].yaxis, [float(np.nanmin(values)), float(np.nanmax(values)), 1])
