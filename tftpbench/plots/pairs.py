"""The pairs behind a ratio, in the order in which they were done: where drift and order show. Of a run and of a gate.

Estimates come from `tftpbench.analysis.stats`; ratios of a gate come from the gate.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.analysis.stats import paired_ratio
from tftpbench.model.axes import CELL
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


def pairs(trials: pd.DataFrame, reference: str | None = None) -> Plot:
    """data_pps of each contender / that of `reference` (the first, unless named), round by round in the order done.

    One panel per cell. A filled mark: the reference went first in that round; a hollow one: it went second. The line is
    the estimate over all pairs, its band the 95 % interval (none under 6). A drift or an effect of the order is to be
    seen here. PlotError where no round has a valid trial of both.
    """
    frame = frames.needing(trials, ("contender", "concurrency", "round", "order", "data_pps"), "pairs")
    base = _reference(frame, reference)
    found = [(label, _paired(rows, base)) for label, rows in frames.panels(frame, CELL)]
    tables, cut = frames.shown([each for each in found if len(each[1])])
    if not tables:
        raise PlotError(f"pairs: no round has a valid trial of {base or 'any contender'} and of another")
    data = pd.concat([table.assign(panel=label) for label, table in tables], ignore_index=True)
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


def gate_pairs(pairs: pd.DataFrame) -> Plot:
    """Ratios of head to base, pair by pair in the order done; one panel per metric and cell, on one scale.

    `pairs` is what `GateResult.to_frame` gives. A filled mark: the base was loaded first; a hollow one:
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
    figure = style.drawn(title, [*_key(data), cut], data, _draw_gate, lambda _: [], scale, labels, under=_BELOW_MAX)
    return Plot(figure, data, title, _gate_alt(found, names, title))


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


def _draw_gate(axes: Axes, rows: pd.DataFrame) -> None:
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


def _gate_alt(found: list[pd.DataFrame], names: list[str], title: str) -> str:
    parts = []
    for rows, name in zip(found, names, strict=True):
        heads = rows[rows["valid"] & (rows["compared"] != "control")]["ratio"]
        if len(heads):
            words = name.replace("\n", ", ")
            parts.append(f"{words} {heads.min():.3g} to {heads.max():.3g} ({counted(len(heads), 'pair')})")
    return f"{title}: {'; '.join(parts) if parts else 'no pair counts'}."
