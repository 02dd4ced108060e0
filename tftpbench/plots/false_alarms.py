"""What a gate would see: equal trials in the order in which they were done, and how often a loss is noticed."""

import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from tftpbench.model.axes import CELL
from tftpbench.model.errors import PlotError
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.units import format_count
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
    panel = frames.panels(usable, CELL)[0]
    data = panel.rows[["contender", "order", column]].sort_values("order")
    names = [name for name, _ in frames.each_contender(data)]
    styles = style.looks(frames.contenders(frame))
    title = f"{column}, trial by trial"
    words = f"{panel.label}; {frames.span([len(data)], 'trial')}; dotted: median"
    with style.applied():
        grid = style.grid(title, words, [""], columns=1, height=2.2, right=style.key_width(names) + 0.6)
        axes, entries = grid.axes[0], []
        for name, ours in frames.each_contender(data):
            look, middle = styles[name], float(ours[column].median())
            axes.axhline(middle, color=look.colour, linestyle=":", linewidth=1)
            axes.plot(ours["order"], ours[column], look.marker, color=look.colour, markersize=4.5)
            spread = float((ours[column] / middle - 1).abs().median())
            entries.append(style.Entry(name, (float(data["order"].max()), middle), f" ± {100 * spread:.1f} %"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        unit = COLUMNS[column].unit if column in COLUMNS else ""
        if unit == "ns":
            style.duration_axis(axes.yaxis, data[column], is_log=False)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
        grid.label("trials, in the order done", "" if unit == "ns" else unit)
        axes.autoscale_view()  # the key points at where things are in the end
        style.draw_key(axes, entries, styles)
    alt = f"{title}: {', '.join(f'{each.contender}{each.remark} around its median' for each in entries)}."
    return Plot(grid.figure, data.reset_index(drop=True), title, alt)


def alarm_rates(rates: pd.DataFrame) -> Plot:
    """How often a head slower by `loss` is called slower, a line per number of pairs; at loss 0 each is a false alarm.

    `rates`: as `false_alarms.alarm_rates` gives them (pairs loss draws fraction). PlotError where empty.
    """
    frame = frames.needing(rates, ("pairs", "loss", "draws", "fraction"), "alarm_rates")
    data = frame.sort_values(["pairs", "loss"]).reset_index(drop=True)
    names = {count: f"{count:.0f} pairs" for count in data["pairs"].unique()}
    styles = style.looks(list(names.values()))
    title = "How often a slower head is called slower"
    words = f"{data['draws'].max():.0f} draws from one recording each; at 0 % every alarm is false"
    with style.applied():
        grid = style.grid(title, words, [""], columns=1, height=2.3, right=style.key_width(list(names.values())) + 0.2)
        axes, entries = grid.axes[0], []
        for count, ours in data.groupby("pairs"):
            name = names[float(str(count))]
            look = styles[name]
            axes.plot(ours["loss"], ours["fraction"], color=look.colour, marker=look.marker, linestyle=look.dash,
                      markersize=4.5, linewidth=1.3)  # fmt: skip
            entries.append(style.Entry(name, (float(ours["loss"].max()), float(ours["fraction"].iloc[-1]))))
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        grid.label("really slower by", "called slower")
        style.draw_key(axes, entries, styles)
    at_zero = data[data["loss"] == 0]
    false_texts = ", ".join(f"{row.fraction:.1%} with {row.pairs:.0f} pairs" for row in at_zero.itertuples())
    return Plot(grid.figure, data, title, f"{title}; false alarms: {false_texts or 'not measured'}.")
