"""Plots: a data frame in, a Plot (matplotlib figure, the plotted data, a title, a sentence for screen readers) out.

    from tftpbench import load_run, plots
    run = load_run("results/...")
    plots.throughput(run.trials)                        # shows itself in Jupyter
    plots.throughput(run.trials).save("throughput.png") # or .svg, .csv; without an end, all three

Frames are as `tftpbench.Run` gives them, or any with the columns that a plot names. A contender has one colour in all
plots of a run: its place in the categories of the column `contender`. It must never read a run, and never use pyplot:
no window, no state. What can't be drawn is a PlotError.
"""

from tftpbench.plots.against import against, capacity, cpu_per_block, fairness, scaling, throughput
from tftpbench.plots.boots import arrivals, machines_up, response_times
from tftpbench.plots.gate import alarm_rates, forest, gate_pairs, noise, pairs
from tftpbench.plots.latency import latency_heatmap, latency_spectrum, transfer_times
from tftpbench.plots.loss import loss
from tftpbench.plots.plot import Plot

__all__ = [
    "Plot",
    "against",
    "alarm_rates",
    "arrivals",
    "capacity",
    "cpu_per_block",
    "fairness",
    "forest",
    "gate_pairs",
    "latency_heatmap",
    "latency_spectrum",
    "loss",
    "machines_up",
    "noise",
    "pairs",
    "response_times",
    "scaling",
    "throughput",
    "transfer_times",
]
