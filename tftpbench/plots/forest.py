"""The forest plot: ratios in rows with their intervals, and the budget that they are held against.

It never estimates: ratios come from `tftpbench.analysis.stats`, verdicts from the comparison.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.model.errors import PlotError
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

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
_BUDGET = "#e3eef6"
_BUDGET_END = "#8FB4CC"


def forest(ratios: pd.DataFrame, budget: float | None = None, axis: str = "ratio") -> Plot:
    """Ratios in rows, with 95 % intervals, on a logarithmic axis; 1/(1 + budget) to 1 + budget is shaded.

    `ratios` has columns label, ratio, low, high, n, verdict; low and high may be unknown: then the range lowest to
    highest, where it has these columns, is drawn thin and the point hollow. Rows with budgets of their own have
    budget_low, budget_high or both: the ratios within which they pass, shaded. `axis` says what is divided by what.
    PlotError where no row has a ratio, and for a budget that is not over 0 and under 1.
    """
    if budget is not None and not 0 < budget < 1:
        raise PlotError(f"forest: budget is {budget!r}; allowed: over 0 and under 1, as in 0.05 for 5 %")
    data = _known(ratios)
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
        _draw(grid.axes[0], data, labels, texts, budget)
        grid.axes[0].set_xlabel(style.plain(axis))
    return Plot(grid.figure, data, title, _alt(data, title, budget))


def _known(ratios: pd.DataFrame) -> pd.DataFrame:
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


def _draw(axes: Axes, data: pd.DataFrame, labels: list[str], texts: list[str], budget: float | None) -> None:
    places = np.arange(len(data))
    ratio, low, high, lowest, highest = data[["ratio", "low", "high", "lowest", "highest"]].to_numpy(dtype=float).T
    own = data.reindex(columns=list(_BOUNDS)).to_numpy(dtype=float)
    shared = [] if budget is None else [1 / (1 + budget), 1 + budget]  # which is divided by which must not matter
    limits = np.concatenate([ratio, low, high, lowest, highest, own.ravel(), shared, [1.0]])
    style.log_axis(axes.xaxis, limits[np.isfinite(limits)])
    if shared:
        axes.axvspan(*shared, color=_BUDGET, linewidth=0, zorder=0)
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
    axes.barh(shaded, right - left, 0.84, left=left, color=_BUDGET, linewidth=0, zorder=0)
    for ends in bounds[shaded].T:
        axes.vlines(ends, shaded - 0.42, shaded + 0.42, color=_BUDGET_END, linewidth=1.2, zorder=1)


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
