"""Ratios with what stands behind them: the forest, the pairs in the order done, and what a gate would see.

The forest has ratios in rows with their intervals and the budget that they are held against; pairs, of a run and of a
gate, show drift and order; equal trials tell how often a loss is noticed. It never estimates: estimates come from
`tftpbench.analysis`, ratios and verdicts of a gate from the gate.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from tftpbench.analysis.stats import paired_ratio
from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.gate_settings import KNOWN
from tftpbench.model.metrics import METRICS
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
    frames.refuse_missing(pairs, _TEXTS, "gate_pairs")
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


ROWS_MAX = 60  # more is taller than three screens
_LABEL_MAX = 46
_ROW = 0.2  # inches
# Ratios within which a row passes; one of them may be unknown: then that side is open.
_BOUNDS = ("budget_low", "budget_high")

# Words of comparisons and of the gate, their colour and its name; any other is grey.
_VERDICTS = {
    "faster": ("#0072B2", "blue"),
    "improved": ("#0072B2", "blue"),
    "slower": ("#D55E00", "orange"),
    "regressed": ("#D55E00", "orange"),
    "suspected": ("#E69F00", "amber"),
    "inconclusive": ("#CC79A7", "pink"),
    "same": ("#000000", "black"),
    "pass": ("#000000", "black"),
    "passed": ("#000000", "black"),
    "invalid": (style.GREY, "grey"),
    "not gated": ("#A6A6A6", "light grey"),
}
_OTHER = (style.GREY, "grey")
_PASSING = "#e3eef6"
_PASSING_END = "#8FB4CC"


def forest(ratios: pd.DataFrame, budget: float | None = None, axis: str = "ratio") -> Plot:
    """Ratios in rows, with 95 % intervals, on a logarithmic axis; 1/(1 + budget) to 1 + budget is shaded.

    `ratios` has columns label, ratio, low, high, n, verdict; low and high may be unknown: then the range lowest to
    highest, where it has these columns, is drawn thin and the point hollow. Rows with budgets of their own have
    budget_low, budget_high or both: the ratios within which they pass, shaded. `axis` says what is divided by what.
    PlotError where no row has a ratio, and for a budget that is not over 0 and under 1.
    """
    if budget is not None and not 0 < budget < 1:
        raise PlotError(f"forest: budget is {budget!r}; allowed: over 0 and under 1, as in 0.05 for 5 %")
    data = _known_ratios(ratios)
    cut = f"; the first {ROWS_MAX} of {len(data)} rows" if len(data) > ROWS_MAX else ""
    data = data.head(ROWS_MAX)
    has_interval = bool(data["low"].notna().any())
    title = "Ratios with 95 % intervals" if has_interval else "Ratios"
    with style.applied():
        labels = [style.plain(style.shortened(label, _LABEL_MAX)) for label in data["label"]]
        texts = [_row_text(*row) for row in zip(data["ratio"], data["low"], data["high"], data["n"], strict=True)]
        grid = style.grid(
            title,
            _subtitle(data, budget) + cut,
            [""],
            columns=1,
            height=max(len(data) + 1, 3) * _ROW,
            left=max(map(style.text_width, labels)) + 0.2,
            right=max(map(style.text_width, texts)) + 0.15,
        )
        _draw_forest(grid.axes[0], data, labels, texts, budget)
        grid.axes[0].set_xlabel(style.plain(axis))
    return Plot(grid.figure, data, title, _alt(data, title, budget))


def _known_ratios(ratios: pd.DataFrame) -> pd.DataFrame:
    columns = ("label", "ratio", "low", "high", "n", "verdict")
    optional = ("lowest", "highest", *(name for name in _BOUNDS if name in ratios.columns))
    wide = ratios.reindex(columns=list(dict.fromkeys([*ratios.columns, *optional])))
    data = frames.needing(wide, (*columns, *optional), "forest")
    data = data[data["ratio"] > 0].reset_index(drop=True)
    if data.empty:
        raise PlotError("forest: no row has a ratio, so there is nothing to draw")
    for name in ("low", "high", *optional):
        data[name] = data[name].where(data[name] > 0)
    return data


def _draw_forest(axes: Axes, data: pd.DataFrame, labels: list[str], texts: list[str], budget: float | None) -> None:
    places = np.arange(len(data))
    ratio, low, high, lowest, highest = data[["ratio", "low", "high", "lowest", "highest"]].to_numpy(dtype=float).T
    own = data.reindex(columns=list(_BOUNDS)).to_numpy(dtype=float)
    shared = [] if budget is None else [1 / (1 + budget), 1 + budget]  # which is divided by which must not matter
    limits = np.concatenate([ratio, low, high, lowest, highest, own.ravel(), shared, [1.0]])
    style.log_axis(axes.xaxis, limits[np.isfinite(limits)])
    if shared:
        axes.axvspan(*shared, color=_PASSING, linewidth=0, zorder=0)
    if np.isfinite(own).any():
        _shade(axes, own)
    axes.axvline(1, color=style.GREY, linewidth=0.9, zorder=1)
    is_interval = np.isfinite(low) & np.isfinite(high)
    colours = [_VERDICTS.get(str(verdict), _OTHER)[0] for verdict in data["verdict"]]
    left, right = np.where(is_interval, (low, high), (lowest, highest))
    axes.hlines(places, left, right, colors=colours, linewidths=np.where(is_interval, 2.0, 0.8), zorder=2)
    for place, colour, text in zip(places, colours, texts, strict=True):
        fill = colour if is_interval[place] else "white"
        axes.plot(ratio[place], place, "o", color=colour, mfc=fill, markersize=5, zorder=3)
        axes.annotate(text, (1, place), (6, 0), ("axes fraction", "data"), "offset points", va="center")
    axes.set_ylim(len(data) - 0.4, -0.6)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _shade(axes: Axes, bounds: frames.Floats) -> None:
    """Behind each row, where it passes, as far as the axis where that side is open; a line where its budget ends."""
    shaded = np.flatnonzero(np.isfinite(bounds).any(axis=1))
    left, right = np.where(np.isnan(bounds), axes.get_xlim(), bounds)[shaded].T
    axes.barh(shaded, right - left, 0.84, left=left, color=_PASSING, linewidth=0, zorder=0)
    for ends in bounds[shaded].T:
        axes.vlines(ends, shaded - 0.42, shaded + 0.42, color=_PASSING_END, linewidth=1.2, zorder=1)


def _row_text(ratio: float, low: float, high: float, n: float) -> str:
    count = "" if np.isnan(n) else f"  n={n:.0f}"
    bounds = "" if np.isnan(low) or np.isnan(high) else f" ({_digits(low)} to {_digits(high)})"
    return f"{_digits(ratio)}{bounds}{count}"


def _digits(ratio: float) -> str:
    """Three, zeros too: 1 beside 0.996 looks exact, 1.00 does not."""
    return f"{ratio:#.3g}".removesuffix(".")


def _subtitle(data: pd.DataFrame, budget: float | None) -> str:
    has_own = data.reindex(columns=list(_BOUNDS)).notna().any(axis=None)
    parts = [
        "thick: 95 % interval over pairs of trials" if data["low"].notna().any() else "",
        "thin, hollow: range of too few pairs for an interval" if data["low"].isna().any() else "",
        f"shaded: within {100 * budget:.3g} % of 1, either way" if budget is not None else "",
        "shaded: within the row's budget" if budget is None and has_own else "",
        *(f"{_VERDICTS.get(each, _OTHER)[1]}: {each}" for each in data["verdict"].dropna().astype(str).unique()),
    ]
    return "; ".join(filter(None, parts))


def _alt(data: pd.DataFrame, title: str, budget: float | None) -> str:
    within = "" if budget is None else f", budget {100 * budget:.3g} %"
    few = [f"{label} {ratio:.3g}" for label, ratio in zip(data["label"].head(10), data["ratio"].head(10), strict=True)]
    more = f" and {len(data) - len(few)} more" if len(data) > len(few) else ""
    return f"{title}{within}: {', '.join(few)}{more}."


def noise(trials: pd.DataFrame, column: str = "data_pps") -> Plot:
    """`column` of each valid trial in the order done, one line per contender; the dotted line is its median.

    Meant for a run that repeats one cell; of several, the first. PlotError where no valid trial has the column.
    """
    frame = frames.needing(trials, ("contender", "order", column), "noise")
    usable = frame[frames.valid(frame)].dropna(subset=[column, "order"])
    if usable.empty:
        raise PlotError(f"noise: no valid trial has {column}")
    label, rows = frames.panels(usable, CELL)[0]
    data = rows[["contender", "order", column]].sort_values("order").reset_index(drop=True)
    styles = style.looks(frames.contenders(frame))
    last = float(data["order"].max())

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        for name, ours in frames.each_contender(rows):
            look = styles[name]
            axes.axhline(float(ours[column].median()), color=look.colour, linestyle=":", linewidth=1)
            axes.plot(ours["order"], ours[column], look.marker, color=look.colour, markersize=4.5)

    def key(rows: pd.DataFrame) -> list[style.Entry]:
        entries = []
        for name, ours in frames.each_contender(rows):
            middle = float(ours[column].median())
            spread = float((ours[column] / middle - 1).abs().median())
            entries.append(style.Entry(name, styles[name], (last, middle), f" ± {100 * spread:.1f} %"))
        return entries

    def scale(grid: style.Grid) -> None:
        axes = grid.axes[0]
        axes.autoscale_view()  # the key points at where things are in the end
        style.order_axis(axes.xaxis, data["order"])
        style.figures_axis(axes.yaxis, (), known.text if known else "{:.6g}".format)

    known = METRICS.get(column)
    words = known.words or known.heading if known else column
    title = f"{words[0].upper()}{words[1:]}, trial by trial"
    notes = [label, frames.span([len(data)], "trial"), "dotted: median"]
    figure = style.drawn(title, notes, data.assign(panel=""), draw, key, scale, ("trials, in the order done", words))
    alt = f"{title}: {', '.join(f'{each.name}{each.remark} around its median' for each in key(data))}."
    return Plot(figure, data, title, alt)


def alarm_rates(rates: pd.DataFrame) -> Plot:
    """How often a head slower by `loss` is called slower, a line per number of pairs; at loss 0 each is a false alarm.

    `rates`: as `false_alarms.alarm_rates` gives them (pairs loss draws fraction). PlotError where empty.
    """
    frame = frames.needing(rates, ("pairs", "loss", "draws", "fraction"), "alarm_rates")
    data = frame.sort_values(["pairs", "loss"]).reset_index(drop=True)
    lines = data.assign(panel="", contender=[f"{count:.0f} pairs" for count in data["pairs"]])
    styles = style.looks(frames.contenders(lines))

    def scale(grid: style.Grid) -> None:
        axes = grid.axes[0]
        axes.set_ylim(-0.03, 1.03)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))

    title = "How often a slower head is called slower"
    figure = style.drawn(
        title,
        [f"{data['draws'].max():.0f} draws from one recording each; at 0 % every alarm is false"],
        lines,
        style.curves("loss", "fraction", styles, "all"),
        style.ends("loss", "fraction", styles),
        scale,
        ("really slower by", "called slower"),
    )
    at_zero = data[data["loss"] == 0]
    false_texts = ", ".join(f"{row.fraction:.1%} with {row.pairs:.0f} pairs" for row in at_zero.itertuples())
    return Plot(figure, data, title, f"{title}; false alarms: {false_texts or 'not measured'}.")
