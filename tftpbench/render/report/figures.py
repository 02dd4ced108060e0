"""Which plots a report shows, of which part of the run, and which it can't.

A run may have many servers and cells: what shows single round trips or transfers is of the headline cell, and of the
servers that moved most in it. It must never draw: that is `tftpbench.plots`.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from tftpbench import plots
from tftpbench.analysis import capacity
from tftpbench.analysis.summary import Line
from tftpbench.model.errors import PlotError, ResultsError, ResultsWarning
from tftpbench.render.report.contents import Contents
from tftpbench.render.report.forms import csv_text

# Lines that the eye can tell apart where they lie close together, and panels of one picture.
CURVES_MAX = 6
PANELS_MAX = 4
# More servers, or servers in cells, make no picture that says anything, and take minutes to draw.
SERVERS_MAX = 60
MARKS_MAX = 1000
# Rows of a forest; with more of them it shows the headline cell alone.
FOREST_MAX = 24


@dataclass(frozen=True)
class Shown:
    """A plot as it stands in the page: what it is, the picture, how to read it, its data."""

    name: str
    title: str
    svg: str
    reading: str
    csv: str


@dataclass(frozen=True)
class Figures:
    """The plots, losses apart, and a line for each that could not be drawn."""

    plots: tuple[Shown, ...]
    losses: tuple[Shown, ...]
    left_out: tuple[str, ...]


def figures_of(contents: Contents) -> Figures:
    """Draw what this run has; a plot without data is named in one line."""
    trials = contents.run.trials
    drawable = _drawable(trials)
    wanted: list[tuple[str, str, Callable[[], plots.Plot]]] = [
        ("throughput", _THROUGHPUT, lambda: plots.throughput(drawable())),
        ("slowest-transfers", _SLOWEST, lambda: plots.against(drawable(), "transfer_ns_max", is_log=True)),
        ("ratios", _FOREST, lambda: _forest(contents)),
        ("pairs", _PAIRS, lambda: plots.pairs(_chosen(contents, CURVES_MAX), contents.answer.reference)),
        ("round-trips", _SPECTRUM, lambda: _spectrum(contents)),
        ("cpu-per-block", _CPU, lambda: plots.cpu_per_block(drawable())),
        ("scaling", _SCALING, lambda: plots.scaling(drawable())),
        ("fairness", _FAIRNESS, lambda: plots.fairness(drawable())),
        ("transfer-times", _TIMES, lambda: plots.transfer_times(_transfers(contents, CURVES_MAX), ccdf=True)),
        ("transfers-over-time", _HEAT, lambda: plots.latency_heatmap(_transfers(contents, PANELS_MAX))),
        ("losses", _LOSS, lambda: plots.loss(drawable())),
    ]
    if all(line.cell.open_loop for line in contents.answer.lines):
        wanted = [
            (
                "response-times",
                _RESPONSE,
                lambda: plots.against(drawable(), "response_ns_p99", "rate_per_s", is_log=True),
            ),
            ("response-and-service", _COHORT, lambda: _cohort(contents)),
            ("arrivals", _ARRIVALS, lambda: _arrivals(contents)),
            *(each for each in wanted if each[0] in _AT_A_RATE),
        ]
    if any(line.cell.is_boots for line in contents.answer.lines):
        wanted = [
            ("machines-up", _UP, lambda: _machines_up(contents)),
            ("response-and-service", _COHORT, lambda: _cohort(contents)),
            ("arrivals", _ARRIVALS, lambda: _arrivals(contents)),
            *(each for each in wanted if each[0] in _AT_A_RATE),
        ]
    if found := contents.run.searches:
        wanted = [("capacity", _CAPACITY, lambda: plots.capacity(capacity.frame(found)))]
    if len(trials["contender"].unique()) < 2:
        wanted = [each for each in wanted if each[0] not in {"ratios", "pairs"}]
    shown, left_out = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # the report tells them all, as problems
        warnings.simplefilter("error", RuntimeWarning)  # figures that overflow draw a picture of nothing
        for name, reading, draw in wanted:
            try:
                shown.append(_shown(name, reading, draw()))
            except (PlotError, ResultsError) as error:
                reason = re.sub(r"^[a-z_]+: ", "", str(error))  # what plots call themselves
                left_out.append(f"{name}: {reason}")
            except (ValueError, OverflowError, RuntimeWarning):
                left_out.append(f"{name}: its figures are too large or too small to be drawn")
    losses = tuple(each for each in shown if each.name == "losses")
    return Figures(tuple(each for each in shown if each not in losses), losses, tuple(left_out))


def _drawable(trials: pd.DataFrame) -> Callable[[], pd.DataFrame]:
    """Gives the trials; PlotError, when a plot asks for them, where there is too much for one picture."""
    servers = trials["contender"].nunique()
    marks = len(trials[["contender", "cell_key"]].drop_duplicates())

    def given() -> pd.DataFrame:
        if servers > SERVERS_MAX or marks > MARKS_MAX:
            raise PlotError(
                f"{servers} servers with {marks} figures are too many for a picture; allowed: {SERVERS_MAX} with "
                f"{MARKS_MAX}"
            )
        return trials

    return given


def _shown(name: str, reading: str, plot: plots.Plot) -> Shown:
    data = plot.data.astype(object).where(plot.data.notna(), None)
    return Shown(name, plot.title, plot.svg, reading, csv_text(map(str, data.columns), data.itertuples(index=False)))


def _forest(contents: Contents) -> plots.Plot:
    answer = contents.answer
    frame = answer.ratios
    if len(frame) > FOREST_MAX:
        frame = frame[frame["cell"] == answer.headline]
    where = ""
    if len(frame["cell"].unique()) == 1:
        where = f", {frame['cell'].iloc[0]}"
        frame = frame.assign(label=frame["contender"])
    what = "bytes" if answer.metric == "goodput_bytes_per_s" else "blocks"
    return plots.forest(frame, axis=f"{what} per second against {answer.against}{where}")


def _spectrum(contents: Contents) -> plots.Plot:
    """Round trips of blocks in the headline cell."""
    lines = _top(contents, CURVES_MAX)
    names = contents.run.trials["contender"]
    parts = []
    for line in lines:
        frame = contents.run.latency("block_rtt", cell_key=line.cell.key, contender=line.server).to_frame()
        cell = {axis: getattr(line.cell, axis) for axis in ("operation", "concurrency", "file_size_bytes")}
        parts.append(frame.assign(**cell, contender=pd.Categorical([line.server] * len(frame), names.cat.categories)))
    if not parts:
        raise PlotError("no server has a valid trial in the headline cell, so there is nothing to draw")
    return plots.latency_spectrum(pd.concat(parts, ignore_index=True), "Block round trip")


def _machines_up(contents: Contents) -> plots.Plot:
    """Of the headline cell, with what the wire needs for its profile."""
    boots = contents.run.boots
    if boots.empty:
        raise PlotError("the run keeps no single machines")
    chosen = boots[boots["trial"].isin(_chosen(contents, CURVES_MAX)["trial"])]
    return plots.machines_up(chosen, contents.answer.wire_bytes)


def _cohort(contents: Contents) -> plots.Plot:
    """Of the headline cell."""
    lines = _top(contents, CURVES_MAX)
    if not lines:
        raise PlotError("no server has a valid trial in the headline cell, so there is nothing to draw")
    frame = contents.run.cohort(cell_key=lines[0].cell.key)
    frame = frame[frame["contender"].isin([line.server for line in lines])]
    return plots.response_times(frame, "boot" if lines[0].cell.is_boots else "transfer")


def _arrivals(contents: Contents) -> plots.Plot:
    """Of the headline cell."""
    is_boots = any(line.cell.is_boots for line in contents.answer.lines)
    frame = contents.run.boots if is_boots else contents.run.intervals
    return plots.arrivals(frame[frame["trial"].isin(_chosen(contents, CURVES_MAX)["trial"])])


def _transfers(contents: Contents, most: int) -> pd.DataFrame:
    """Transfers of the headline cell, of the servers that moved most in it."""
    transfers = contents.run.transfers
    if transfers.empty:
        raise PlotError("the run keeps no single transfers")
    return transfers[transfers["trial"].isin(_chosen(contents, most)["trial"])]


def _chosen(contents: Contents, most: int) -> pd.DataFrame:
    """Trials of the cell that the answer speaks of, of the servers that moved most in it."""
    trials = contents.run.trials
    wanted = {(line.server, line.cell.key) for line in _top(contents, most)}
    return trials[[pair in wanted for pair in zip(trials["contender"], trials["cell_key"], strict=True)]]


def _top(contents: Contents, most: int) -> list[Line]:
    """The servers of the headline cell that moved most, in the order of the lines; the reference is among them."""
    answer = contents.answer
    here = [line for line in answer.lines if line.label == answer.headline and line.valid]
    if here and here[0].cell.is_boots:  # of many servers, who served most is first already
        return here[:most]
    ranked = sorted(here, key=lambda line: (line.server != answer.reference, -(line.figures[answer.metric] or 0)))
    return [line for line in here if line in ranked[:most]]


_CAPACITY = (
    "Filled: the load was borne. Hollow: it was too much. Between the two lines lies the capacity; the dotted one is "
    "where the generator itself could offer no more."
)
# Of a rate. The others compare what a server moves, which the rate says, or leave out what did not complete.
_AT_A_RATE = {"round-trips", "losses"}
_RESPONSE = (
    "Lower is better. From the intended start, of all that was intended: where more than one in a hundred transfers "
    "did not complete, it is never."
)
_UP = (
    "Further left is better. The dashed line is when a network of 1 Gb/s can have carried the files of so many "
    "machines: a curve left of it was measured on a faster one, and would end there."
)
_COHORT = (
    "Lower is better. Of all that were intended: where a curve goes on at never, so many did not come to their end. "
    "Where response lies above service, starts were late."
)
_ARRIVALS = "Where achieved is below offered, starts were shed. In flight that grows is a server that does not keep up."
_THROUGHPUT = "Higher is better. A line joins the medians of valid trials."
_SLOWEST = "Lower is better. How long the slowest client waited; one that gave up is not in it."
_FOREST = (
    "Left of 1 the server moves less than the one it is compared with, right of 1 more. A difference is shown by "
    "the trials only where the interval does not touch 1."
)
_PAIRS = (
    "Each point is one pair of trials of the same round. A cloud away from 1 is a difference; a slope is a "
    "machine that changed while it was measured."
)
_SPECTRUM = (
    "Lower is better. The wait for a transfer's first answer is not in it. To the right stand ever rarer blocks: at "
    "99 %, one in a hundred takes longer than the line says. Curves end where too few samples remain."
)
_CPU = "Lower is better. What a server spends on a block bounds how many it can move on its cores."
_SCALING = "A server that keeps its rate as more transfers run at once stays level or rises."
_FAIRNESS = "1 is fair: the slowest transfer took no longer than the median one."
_TIMES = "Lower left is better. The share of transfers that took longer than a time; the tail is who waited most."
_HEAT = "Darker is more transfers. Bands high above the others are clients that had to wait for a timeout."
_LOSS = (
    "What went wrong for each 1000 transfers, by whose doing: retransmissions are the generator's answer to silence."
)
