"""Machines and other arrivals over time: how many are up, how long they waited, and what was in flight meanwhile.

What never came to its end is drawn as never, and no curve leaves it out. Of several trials a curve is their median. It
must never ask whether a server is good.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.metrics import NEVER
from tftpbench.model.units import counted, format_count, format_duration
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

_BOOTED = ("trial", "contender", "intended_start_ns", "end_ns", "outcome")
# Curves whose ends lie further apart than this can be seen apart on a logarithmic axis only.
_LINEAR_MAX = 10
_WIRE = style.Look(style.GREY, "", "--")
_KINDS = {"response": "", "service": ", service"}
_BEGUN = ("actual_start", "end")
# Of the course of a trial: as many as the picture shows.
_INTERVALS = 100
_RATES, _IN_FLIGHT = "starts a second", "in flight at once"


def machines_up(boots: pd.DataFrame, wire_bytes: float | None = None) -> Plot:
    """Machines that are up against the time since the first was to start, from Run.boots: a panel for each cell.

    Place k of a curve is the median over valid trials of when k machines were up; it ends where fewer came up.
    `wire_bytes`: of one machine, all headers included; then a dashed line shows when a network of 1 Gb/s can have
    carried the files of so many. PlotError where no machine came up.
    """
    rows = frames.needing(boots, _BOOTED, "machines_up")
    rows["up_ns"] = rows["end_ns"] - rows.groupby("trial")["intended_start_ns"].transform("min")
    rows["is_up"] = (rows["outcome"].astype("string") == "booted").fillna(False).astype(bool) & (rows["up_ns"] > 0)
    rows = rows[frames.valid(rows)].dropna(subset=["contender"])
    rows = _one_profile(rows)
    panels, cut = frames.shown(frames.panels(rows, CELL)) if len(rows) else ([], "")
    curves = [
        _up(ours).assign(panel=label, contender=name)
        for label, cell in panels
        for name, ours in frames.each_contender(cell)
    ]
    if not sum(map(len, curves)):
        raise PlotError("machines_up: no valid trial has a machine that came up, so there is nothing to draw")
    wires = [_wire(cell, wire_bytes).assign(panel=label) for label, cell in panels if wire_bytes]
    data = pd.concat([*curves, *wires], ignore_index=True)
    data = data[["panel", "contender", "machines", "s", "asked", "trials"]]
    styles = style.looks(frames.contenders(rows))
    is_log = _is_spread(data.groupby(["panel", "contender"], dropna=False)["s"].max())

    def draw(axes: Axes, here: pd.DataFrame) -> None:
        for name, ours in here.groupby("contender", sort=False):
            axes.plot(ours["s"], ours["machines"], **styles[str(name)].line, linewidth=1.5, markevery=[len(ours) - 1])
        wire = here[here["contender"].isna()]
        axes.plot(wire["s"], wire["machines"], **_WIRE.line, linewidth=1.2, zorder=1)
        if len(wire):
            axes.axvline(float(wire["s"].iloc[-1]), color=style.GREY, linewidth=0.9, linestyle="--", zorder=1)

    def key(here: pd.DataFrame) -> list[style.Entry]:
        entries = style.ends("s", "machines", styles)(here.dropna(subset=["contender"]))
        wire = here[here["contender"].isna()]
        ends = [(float(wire["s"].iloc[-1]), float(wire["machines"].iloc[-1]))] if len(wire) else []
        return [*entries, *(style.Entry("wire, 1 Gb/s", _WIRE, end) for end in ends)]

    def scale(grid: style.Grid) -> None:
        first = grid.axes[0]
        seconds = data["s"][data["s"] > 0]
        style.figures_axis(first.xaxis, seconds, _seconds, is_log=is_log)
        style.figures_axis(first.yaxis, data["machines"], _whole)
        first.set_ylim(0, float(data["asked"].max()) * 1.05)
        if not is_log:
            first.set_xlim(0, float(data["s"].max()) * 1.05)

    title = "Machines that are up against time"
    known = data.dropna(subset=["contender"]).drop_duplicates(["panel", "contender"])
    trials = frames.span([int(count) for count in known["trials"]], "valid trial")
    notes = [f"lines: when so many were up, median of {trials}", "a line ends at its last machine", cut]
    figure = style.drawn(title, notes, data, draw, key, scale, ("since the first was to start", "machines up"))
    return Plot(figure, data, title, _alt_up(data, title))


def _one_profile(rows: pd.DataFrame) -> pd.DataFrame:
    """Without what each machine of a mix boots, so that they stand together."""
    if "mix" not in rows or "boot" not in rows:
        return rows
    return rows.assign(boot=rows["boot"].astype("string").mask(rows["mix"].notna(), pd.NA))


def _up(rows: pd.DataFrame) -> pd.DataFrame:
    """When so many machines were up, at the median of trials; with how many were asked for."""
    trials = [ours for _, ours in rows.groupby("trial")]
    asked = max(map(len, trials))
    times = np.full((len(trials), asked), np.inf)
    for place, ours in enumerate(trials):
        up = np.sort(ours.loc[ours["is_up"], "up_ns"].to_numpy(dtype=np.float64))
        times[place, : len(up)] = up
    with np.errstate(invalid="ignore"):  # between two that are never
        median = np.median(times, axis=0)
    reached = int(np.isfinite(median).sum())
    if not reached:
        return pd.DataFrame({"machines": [], "s": [], "asked": [], "trials": []})
    places = np.unique(np.linspace(1, reached, min(reached, frames.POINTS)).astype(int))
    return pd.DataFrame({"machines": places, "s": median[places - 1] / 1e9, "asked": asked, "trials": len(trials)})


def _wire(rows: pd.DataFrame, wire_bytes: float | None) -> pd.DataFrame:
    """When a network of 1 Gb/s can have carried the files of so many machines."""
    asked = int(rows.groupby(["trial"]).size().max())
    places = np.unique(np.linspace(1, asked, min(asked, frames.POINTS)).astype(int))
    seconds = places * (wire_bytes or 0) * 8 / 1e9
    return pd.DataFrame({"machines": places, "s": seconds, "asked": asked, "trials": 0, "contender": None})


def _alt_up(data: pd.DataFrame, title: str) -> str:
    last = data.dropna(subset=["contender"]).groupby(["panel", "contender"], sort=False).last().reset_index()
    texts = [
        f"{up:.0f} of {asked:.0f} after {_seconds(s)}"
        for up, asked, s in zip(last["machines"], last["asked"], last["s"], strict=True)
    ]
    return f"{title}: {frames.listed(last['panel'], last['contender'], texts)}."


def response_times(spectrum: pd.DataFrame, what: str = "transfer") -> Plot:
    """Response and service time against percentile, the axis 1/(1-p), so that each nine has as much room as the last.

    `spectrum` is what Run.cohort gives: `contender kind value_ns count`, where `kind` is response or service, and a row
    of infinite value counts what never came to its end; one panel per combination of the axes that it has. A curve that
    reaches what never ended goes on along the line "never". PlotError where nothing was counted.
    """
    never = np.isposinf(pd.to_numeric(spectrum["value_ns"], errors="coerce")) if "value_ns" in spectrum else None
    rows = frames.needing(spectrum, ("contender", "kind", "value_ns", "count"), "response_times")
    rows["kind"] = spectrum["kind"].astype("string")
    rows["value_ns"] = rows["value_ns"].mask(never, np.inf) if never is not None else rows["value_ns"]
    rows = rows[(rows["value_ns"] > 0) & (rows["count"] > 0)].dropna(subset=["contender"])
    panels, cut = frames.shown(frames.panels(rows, CELL)) if len(rows) else ([], "")
    curves = [
        _ranks(some).assign(panel=label, contender=name, kind=kind)
        for label, cell in panels
        for name, ours in frames.each_contender(cell)
        for kind in _KINDS
        if len(some := ours[ours["kind"] == kind])
    ]
    finite = [curve for curve in curves if np.isfinite(curve["value_ns"]).any()]
    if not finite:
        raise PlotError(f"response_times: no {what} came to its end, so there is nothing to draw")
    data = pd.concat(curves, ignore_index=True)[["panel", "contender", "kind", "percentile", "value_ns", "cohort"]]
    styles = style.looks(frames.contenders(spectrum))
    highest = float(data["value_ns"][np.isfinite(data["value_ns"])].max())
    top = highest * 3  # it stands above all figures
    drawn = data.assign(nines=100 / (100 - data["percentile"]), ns=data["value_ns"].replace(np.inf, top))
    has_never = bool(np.isinf(data["value_ns"]).any())

    def looks(name: object, kind: str) -> style.Look:
        ours = styles[str(name)]
        return ours if kind == "response" else style.Look(ours.colour, ours.marker, ":")

    def each(here: pd.DataFrame) -> Iterator[tuple[str, style.Look, pd.DataFrame]]:
        for (name, kind), ours in here.groupby(["contender", "kind"], sort=False, observed=True):
            yield f"{name}{_KINDS[str(kind)]}", looks(name, str(kind)), ours

    def draw(axes: Axes, here: pd.DataFrame) -> None:
        for _, look, ours in each(here):
            axes.plot(ours["nines"], ours["ns"], **look.line, linewidth=1.5, markevery=[len(ours) - 1])

    def key(here: pd.DataFrame) -> list[style.Entry]:
        return [
            style.Entry(name, look, (float(ours["nines"].iloc[-1]), float(ours["ns"].iloc[-1])))
            for name, look, ours in each(here)
        ]

    def scale(grid: style.Grid) -> None:
        style.percentile_axis(grid, float(drawn["nines"].max()))
        axis = grid.axes[0].yaxis
        style.figures_axis(axis, drawn["ns"], format_duration, is_log=True)
        if has_never:
            style.name_never(axis, top, highest)

    title = f"Response and service time of a {what} by percentile"
    cohorts = frames.span([int(count) for count in data.groupby(["panel", "contender"])["cohort"].max()], what)
    notes = [
        f"solid: response, from the intended start; dotted: service, from the request; {cohorts} a line",
        f"a line at {NEVER}: so many did not come to their end" if has_never else "",
        cut,
    ]
    figure = style.drawn(title, notes, drawn, draw, key, scale, ("percentile", f"time of a {what}"))
    return Plot(figure, data, title, _alt_times(data, title))


def _ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """Percentiles of the whole cohort, thinned to what the eye can tell apart; each value at the middle of its rank."""
    counts = rows.groupby("value_ns")["count"].sum()
    total = float(counts.sum())
    percentile = 100 * (counts.cumsum().to_numpy(dtype=np.float64) - 0.5) / total
    values = counts.index.to_numpy(dtype=np.float64)
    is_kept = frames.thinned(percentile)
    if np.isinf(values[-1]) and len(values) > 1:  # the last that ended, and the line from there on
        is_kept[-2] = True
        values = np.append(values, np.inf)
        percentile = np.append(percentile[:-1], [100 * (total - counts.iloc[-1] + 0.5) / total, percentile[-1]])
        is_kept = np.append(is_kept, True)
    return pd.DataFrame({"percentile": percentile[is_kept], "value_ns": values[is_kept], "cohort": total})


def _alt_times(data: pd.DataFrame, title: str) -> str:
    """The first percentile of each response curve that is at least 99, or else its last."""
    ends = []
    for _, ours in data[data["kind"] == "response"].groupby(["panel", "contender"], sort=False, observed=True):
        beyond = ours[ours["percentile"] >= 99]
        ends.append(beyond.head(1) if len(beyond) else ours.tail(1))
    found = pd.concat(ends) if ends else data[:0]
    texts = [
        f"{NEVER if np.isinf(value) else format_duration(value)} at {at:.4g} %"
        for value, at in zip(found["value_ns"], found["percentile"], strict=True)
    ]
    return f"{title}: {frames.listed(found['panel'], found['contender'], texts)}."


def arrivals(frame: pd.DataFrame) -> Plot:
    """Offered and achieved starts a second, and what was in flight, against time; of one cell.

    `frame`: Run.intervals, whose offered are starts and what was shed; or Run.boots, of machines. Medians over valid
    trials at each interval. Of several cells the first is drawn. PlotError where no start is known.
    """
    is_boots = "intended_start_ns" in frame
    needed = _BOOTED if is_boots else ("trial", "contender", "interval", "in_flight", "started", "shed", "duration_ns")
    rows = frames.needing(frame, (*needed, "actual_start_ns") if is_boots else needed, "arrivals")
    rows = _one_profile(rows[frames.valid(rows)].dropna(subset=["contender"]))
    cells = frames.panels(rows, CELL) if len(rows) else [("", rows)]
    label, rows = cells[0]
    rows = _counted(rows) if is_boots else _rates(rows)
    if rows.empty:
        raise PlotError("arrivals: no valid trial knows its starts, so there is nothing to draw")
    columns = ["s", "offered", "achieved", "in_flight"]
    medians = rows.groupby(["contender", "interval"], observed=True)[columns].median().reset_index()
    data = pd.concat(
        [
            medians[["contender", "s"]].assign(panel=panel, kind=kind, value=medians[kind])
            for panel, kind in ((_RATES, "offered"), (_RATES, "achieved"), (_IN_FLIGHT, "in_flight"))
        ],
        ignore_index=True,
    )[["panel", "contender", "kind", "s", "value"]]
    styles = style.looks(frames.contenders(frame))

    def draw(axes: Axes, here: pd.DataFrame) -> None:
        for (name, kind), ours in here.groupby(["contender", "kind"], sort=False, observed=True):
            look = styles[str(name)]
            if kind == "offered":
                axes.plot(ours["s"], ours["value"], color=look.colour, linestyle=":", linewidth=1.5, zorder=2)
            else:
                axes.plot(ours["s"], ours["value"], **look.line, linewidth=1.5, markevery=[len(ours) - 1], zorder=3)

    def key(here: pd.DataFrame) -> list[style.Entry]:
        return style.ends("s", "value", styles)(here[here["kind"] != "offered"])

    def scale(grid: style.Grid) -> None:
        grid.axes[0].set_xlim(0, float(data["s"].max()) * 1.02)
        for axes, (_, here) in zip(grid.axes, data.groupby("panel", sort=False), strict=True):
            style.figures_axis(axes.yaxis, here["value"], _whole)
            axes.set_ylim(0, max(float(here["value"].max()), 1) * 1.08)

    title = f"Starts and {'machines' if is_boots else 'transfers'} in flight over the course of a trial"
    trials = frames.span([int(ours["trial"].nunique()) for _, ours in frames.each_contender(rows)], "valid trial")
    notes = [
        label, f"median of {trials}", "dotted: offered; solid: achieved",
        f"the first of {counted(len(cells), 'cell')}" if len(cells) > 1 else "",
    ]  # fmt: skip
    figure = style.drawn(title, notes, data, draw, key, scale, ("s", ""), under=2, share_y=False)
    return Plot(figure, data, title, _alt_arrivals(data, title))


def _rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Of intervals: when each ended, and its starts a second."""
    rows = rows[rows["duration_ns"] > 0].dropna(subset=["started", "in_flight"])
    return rows.assign(
        s=rows.groupby("trial")["duration_ns"].cumsum() / 1e9,
        achieved=rows["started"] * 1e9 / rows["duration_ns"],
        offered=(rows["started"] + rows["shed"].fillna(0)) * 1e9 / rows["duration_ns"],
    )


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    """The same of machines: how many were to start, started and were booting, in intervals of equal length."""
    first = rows.groupby("trial")["intended_start_ns"].transform("min")
    times = {name: (rows[f"{name}_ns"] - first) / 1e9 for name in ("intended_start", "actual_start", "end")}
    last = max(float(each.max()) for each in times.values()) if len(rows) else np.nan
    if not last > 0:
        return rows[:0]
    edges = np.linspace(0, last * 1.000001, _INTERVALS + 1)
    parts = []
    for trial, here in rows.groupby("trial"):
        begun = times["actual_start"][here.index].notna()  # what was shed is never in flight
        known = [times["intended_start"][here.index], *(times[name][here.index][begun] for name in _BEGUN)]
        offered, started, ended = (np.histogram(each.dropna(), edges)[0] for each in known)
        parts.append(
            pd.DataFrame(
                {
                    "contender": here["contender"].iloc[0], "trial": trial, "interval": range(_INTERVALS),
                    "s": edges[1:], "offered": offered / edges[1], "achieved": started / edges[1],
                    "in_flight": np.cumsum(started - ended),
                }
            )
        )  # fmt: skip
    whole = pd.concat(parts, ignore_index=True)
    whole["contender"] = pd.Categorical(whole["contender"], frames.contenders(rows))
    return whole


def _alt_arrivals(data: pd.DataFrame, title: str) -> str:
    most = data[data["kind"] == "in_flight"].groupby("contender", sort=False, observed=True)["value"].max()
    return f"{title}; most in flight: {frames.listed([''] * len(most), most.index, map(_whole, most))}."


def _is_spread(ends: "pd.Series[float]") -> bool:
    known = ends[ends > 0]
    return len(known) > 1 and float(known.max() / known.min()) > _LINEAR_MAX


def _seconds(value: float) -> str:
    return format_duration(value * 1e9)


def _whole(value: float) -> str:
    return format_count(value) if value >= 10_000 else f"{value:,.0f}"
