"""What a gate would see: equal trials in the order in which they were done, and how often a loss is noticed."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.metrics import METRICS
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot


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
