"""A metric of trials against an axis of the matrix: throughput, CPU per block, fairness, scaling. A line per contender.

A line goes through medians of valid trials; its band is a bootstrap interval over trials, never over packets. What a
metric and an axis are called, and how their figures are written, are in their records.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.analysis.stats import PAIRS_MIN, median_interval
from tftpbench.model.axes import AXES, CELL, WORK
from tftpbench.model.errors import PlotError, suggest
from tftpbench.model.metrics import METRICS, Metric
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

_CEILING = "ceiling_data_pps"
_CEILING_LOOK = style.Look(style.GREY, "_", "--")
_INTERVAL = "95 % interval"
_VALUE, _AXIS = 4, 3  # the columns of the figure itself, and of where it stands
_SCALING = Metric("", "data_pps / its median at the contender's smallest concurrency.", "float", name="scaling")


def against(trials: pd.DataFrame, metric: str = "data_pps", axis: str = "concurrency", *, is_log: bool = False) -> Plot:
    """Any metric against any numeric axis, from Run.trials: one panel per combination of the other axes.

    Median of valid trials per contender with its 95 % bootstrap interval, or the range of fewer than six; each trial as
    a faint point, invalid ones as hollow crosses. Blocks per second have their ceiling where it is known. `is_log`: on
    a logarithmic axis, which begins where the figures do and not at zero. What is never stands above all figures, on a
    line that says so. PlotError where no trial has a figure.
    """
    if metric not in METRICS:
        raise PlotError(f"against: no metric is called {metric!r}{suggest(metric, METRICS)}")
    numeric = [name for name, each in AXES.items() if each.dtype != "text"]
    if axis not in numeric:
        raise PlotError(f"against: axis is {axis!r}{suggest(axis, numeric)}")
    return _against(trials, METRICS[metric], axis, "against", is_log=is_log)


def throughput(trials: pd.DataFrame) -> Plot:
    """DATA blocks per second (data_pps) against concurrency, with its ceiling, drawn as `against` is."""
    return _against(trials, METRICS["data_pps"], "concurrency", "throughput")


def cpu_per_block(trials: pd.DataFrame) -> Plot:
    """CPU time of the server per DATA block (server_cpu_ns_per_block) against concurrency, drawn as `against` is."""
    return _against(trials, METRICS["server_cpu_ns_per_block"], "concurrency", "cpu_per_block")


def fairness(trials: pd.DataFrame) -> Plot:
    """Slowest / median transfer time (fairness) against concurrency, logarithmic, drawn as `against` is. 1 is fair."""
    return _against(trials, METRICS["fairness"], "concurrency", "fairness", is_log=True, at_one="all equal")


def scaling(trials: pd.DataFrame) -> Plot:
    """Throughput relative to that at the contender's smallest concurrency, drawn as `against` is.

    Each trial's data_pps / the median data_pps of the same contender's valid trials at the smallest concurrency that
    it has one at. 1 keeps what few transfers got; below 1, more transfers at once move less in total.
    """
    frame = frames.needing(trials, ("contender", "concurrency", "data_pps"), "scaling")
    frame["scaling"] = np.nan
    for _, cell in frames.panels(frame, WORK):
        for _, rows in frames.each_contender(cell):
            usable = rows[frames.valid(rows) & (rows["data_pps"] > 0)].dropna(subset=["concurrency"])
            if len(usable):
                base = usable.loc[usable["concurrency"] == usable["concurrency"].min(), "data_pps"].median()
                frame.loc[rows.index, "scaling"] = rows["data_pps"] / base
    return _against(frame, _SCALING, "concurrency", "scaling", at_one="no gain, no loss")


_OF_SEARCHES = ("panel", "load", "is_borne", "response_ns_p99", "lower", "upper", "limit")


def capacity(searches: pd.DataFrame) -> Plot:
    """Load against the 99th percentile of response times by analysis.capacity.frame: a panel a search, a mark a trial.

    Filled marks were borne, hollow ones not; what is never stands above all figures. Solid lines are the bounds, a
    dotted one the load that the generator could not offer. PlotError where no trial has a time.
    """
    frames.refuse_missing(searches, _OF_SEARCHES, "capacity")
    data = searches[list(_OF_SEARCHES)].copy()
    data["response_s"] = data["response_ns_p99"].astype(np.float64) / 1e9
    known = data["response_s"][np.isfinite(data["response_s"]) & (data["response_s"] > 0)]
    if known.empty:
        raise PlotError("capacity: no trial has a response time, so there is nothing to draw")
    data = data[data["load"] > 0]
    never = float(known.max()) * 3
    has_never = bool(np.isposinf(data["response_s"]).any())
    data["response_s"] = data["response_s"].where(np.isfinite(data["response_s"]), never)
    look = style.looks(["all"])["all"]

    def draw(axes: Axes, here: pd.DataFrame) -> None:
        borne = here["is_borne"].astype(bool)
        for mask, fill in ((borne, look.colour), (~borne, "white")):
            axes.plot(
                here["load"][mask], here["response_s"][mask], look.marker, color=look.colour, mfc=fill, markersize=4.5,
                linestyle="", zorder=4,
            )  # fmt: skip
        for name, line in (("lower", "-"), ("upper", "-"), ("limit", ":")):
            for at in here[name].dropna().unique():
                axes.axvline(float(at), color=style.GREY, linewidth=1.0, linestyle=line, zorder=1)

    def scale(sheet: style.Grid) -> None:
        for axes in sheet.axes:
            style.log_axis(axes.xaxis, data["load"])
            style.log_axis(axes.yaxis, [*known, never] if has_never else known)
            if has_never:
                style.name_never(axes.yaxis, never, float(known.max()))

    title = "Load against response time, trial by trial"
    figure = style.drawn(
        title, ["99th percentile, s", "lines: the bounds"], data, draw, lambda _: [], scale,
        ("starts a second, or machines", "p99 (s)"), share_x=False, share_y=False,
    )  # fmt: skip
    alt = f"{title}: {len(data)} trials of {data['panel'].nunique()} searches, with the bounds of each."
    return Plot(figure, data, title, alt)


def _against(
    trials: pd.DataFrame, metric: Metric, axis: str, plot: str, *, is_log: bool = False, at_one: str = ""
) -> Plot:
    frame = frames.needing(trials, ("contender", axis, metric.name), plot)
    has_ceiling = metric.name == "data_pps" and _CEILING in trials.columns
    frame[_CEILING] = frames.numbers(trials[_CEILING]) if has_ceiling else np.nan
    highest = _highest(frame[metric.name])
    never = highest * (3 if is_log else 1.2)  # it stands above all figures
    if metric.may_be_never:
        is_never = np.isposinf(
            pd.to_numeric(trials[metric.name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        )
        frame.loc[is_never, metric.name] = never
    frame = frame.dropna(subset=[axis, metric.name, "contender"])
    frame = frame[((frame[axis] > 0) | (axis != "concurrency")) & ((frame[metric.name] > 0) | (not is_log))]
    if frame.empty:
        raise PlotError(f"{plot}: no trial has a known {metric.name}, so there is nothing to draw")
    hidden = {axis, *(name for name in CELL if axis in AXES[name].unless)}  # at a rate, how many at once is no matter
    panels, cut = frames.shown(frames.panels(frame, [name for name in CELL if name not in hidden]))
    data = pd.concat([_marks(rows, metric.name, axis).assign(panel=label) for label, rows in panels], ignore_index=True)
    styles = style.looks(frames.contenders(frame))
    is_few = data["contender"].nunique() <= frames.FEW
    words = metric.words or metric.heading
    title = f"{words[0].upper()}{words[1:]} against {AXES[axis].key.replace('_', ' ')}"
    at_ones = [1, 0.85] if at_one else []
    figures = [metric.name, "low", "high"]
    drawn = data
    if metric.may_be_never:  # so is a median between a figure and never
        data = data.assign(**{name: data[name].mask(data[name] > highest, np.inf) for name in figures})
        drawn = data.replace(dict.fromkeys(figures, np.inf), never)

    def scale(grid: style.Grid) -> None:
        first = grid.axes[0]
        style.values_axis(first.xaxis, data[axis], AXES[axis].text)
        values = drawn[figures].to_numpy(dtype=float)
        low, high = min(float(np.nanmin(values)), *at_ones, np.inf), max(float(np.nanmax(values)), *at_ones, 1e-12)
        style.figures_axis(first.yaxis, [low, high], metric.text, is_log=is_log)
        if not is_log:
            first.set_ylim(min(low, 0) if low < 0 else 0, high * 1.06)
        if np.isinf(data[metric.name]).any():
            style.name_never(first.yaxis, never, highest)
        for each in grid.axes if at_one else ():
            each.axhline(1, color=style.GREY, linewidth=0.9, zorder=1)

    notes = [
        "" if metric.unit else metric.meaning.rstrip("."),
        at_one and f"grey line at 1: {at_one}",
        *_notes(data, is_few=is_few),
        cut,
    ]
    figure = style.drawn(
        title,
        notes,
        drawn,
        lambda axes, rows: _draw(axes, rows, styles, is_few=is_few),
        lambda rows: _key(rows, styles),
        scale,
        (frames.axis_label(axis), words),
    )
    return Plot(figure, data, title, _alt(data, title, metric))


def _highest(values: "pd.Series[float]") -> float:
    """The largest figure; a second where there is none."""
    return float(values.max()) if values.notna().any() else 1e9


def _marks(cell: pd.DataFrame, column: str, axis: str) -> pd.DataFrame:
    """One row per mark: trials and invalid trials, medians with their bounds, the ceiling."""
    rows: list[dict[str, object]] = []
    for name, ours in frames.each_contender(cell):
        is_valid = frames.valid(ours)
        for kind, some in (("trial", ours[is_valid]), ("invalid trial", ours[~is_valid])):
            for at, here in some.groupby(axis):
                values = here[column].to_numpy(dtype=float)
                same = {"contender": name, axis: at}
                rows += [{"mark": kind, **same, column: value, "n": 1} for value in values]
                if kind == "trial":
                    interval = median_interval([float(value) for value in values])
                    low, high = interval or (values.min(), values.max())
                    median = {column: float(np.median(values)), "low": low, "high": high, "n": len(values)}
                    rows.append({"mark": "median", **same, **median, "bounds": _INTERVAL if interval else "range"})
    ceilings = cell[cell[_CEILING] > 0].groupby(axis)[_CEILING]
    rows += [{"mark": "ceiling", axis: at, column: found.median(), "n": len(found)} for at, found in ceilings]
    columns = ["panel", "mark", "contender", axis, column, "low", "high", "bounds", "n"]
    return pd.DataFrame(rows, columns=columns)


def _draw(axes: Axes, data: pd.DataFrame, styles: Mapping[str, style.Look], *, is_few: bool) -> None:
    axis, value = data.columns[[_AXIS, _VALUE]]
    for name, ours in data.groupby("contender", sort=False):
        look = styles[str(name)]
        marks = {str(mark): rows.sort_values(axis) for mark, rows in ours.groupby("mark")}
        if "trial" in marks and is_few:
            axes.plot(marks["trial"][axis], marks["trial"][value], ".", color=look.colour, alpha=0.5, markersize=3)
        if "invalid trial" in marks:
            crosses = marks["invalid trial"]
            axes.plot(crosses[axis], crosses[value], "X", color=look.colour, mfc="none", markersize=7, zorder=2)
        if "median" in marks:
            _line(axes, marks["median"], look, is_few=is_few)
    ceiling = data[data["mark"] == "ceiling"].sort_values(axis)
    axes.plot(ceiling[axis], ceiling[value], **_CEILING_LOOK.line, linewidth=1.2, zorder=1)


def _line(axes: Axes, rows: pd.DataFrame, look: style.Look, *, is_few: bool) -> None:
    """Medians; what bounds them is a band where there is room for one, else bars."""
    x, y, low, high = (rows[name].to_numpy(dtype=float) for name in (*rows.columns[[_AXIS, _VALUE]], "low", "high"))
    axes.plot(x, y, **look.line, linewidth=1.5, zorder=3)
    in_band = (rows["bounds"] == _INTERVAL).to_numpy() & is_few & (len(x) > 1)
    band = np.where(in_band, low, np.nan), np.where(in_band, high, np.nan)
    axes.fill_between(x, *band, color=look.colour, alpha=0.18, linewidth=0, zorder=1)
    bars = (rows["n"] > 1).to_numpy() & ~in_band
    axes.vlines(x[bars], low[bars], high[bars], color=look.colour, linewidth=1, alpha=0.7, zorder=2)


def _key(data: pd.DataFrame, styles: Mapping[str, style.Look]) -> list[style.Entry]:
    entries = []
    for name, ours in data.assign(contender=data["contender"].fillna("")).groupby("contender", sort=False):
        lines = ours[ours["mark"].isin(["median", "ceiling"])]
        last = (lines if len(lines) else ours).sort_values(data.columns[_AXIS]).iloc[-1]
        place, remark = (last.iloc[_AXIS], last.iloc[_VALUE]), "" if len(lines) else " (invalid)"
        is_ceiling = last["mark"] == "ceiling"
        look = _CEILING_LOOK if is_ceiling else styles[str(name)]
        entries.append(style.Entry("ceiling" if is_ceiling else str(name), look, place, remark))
    return entries


def _notes(data: pd.DataFrame, *, is_few: bool) -> list[str]:
    medians = data[data["mark"] == "median"]
    bounds = set(medians.loc[medians["n"] > 1, "bounds"])
    invalid = int((data["mark"] == "invalid trial").sum())
    return [
        f"lines: median of {frames.span([int(n) for n in medians['n']], 'valid trial')}",
        "points: trials" if is_few else "",
        f"{'bands' if is_few else 'bars'}: 95 % bootstrap interval of the median" if _INTERVAL in bounds else "",
        f"{'bars: ' if is_few else ''}range of fewer than {PAIRS_MIN}" if "range" in bounds else "",
        f"crosses: {frames.span([invalid], 'invalid trial')}, in no line" if invalid else "",
    ]


def _alt(data: pd.DataFrame, title: str, metric: Metric) -> str:
    medians = data[data["mark"] == "median"]
    if medians.empty:
        return f"{title}: {frames.span([len(data)], 'trial')}, none of them valid."
    axis = str(data.columns[_AXIS])
    at = medians[axis].max()
    last = medians[medians[axis] == at]
    found = frames.listed(last["panel"], last["contender"], map(metric.text, last[metric.name]))
    return f"{title}; medians at {at:g}: {found}."
