"""Plots of frames that hold little, nothing or nonsense, and of names that mean something to a renderer."""

import functools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import tftpbench
from tests.unit.plots import plot_frames as frames
from tftpbench import plots
from tftpbench.model.errors import PlotError

Draw = Callable[[pd.DataFrame], plots.Plot]
# Each plot, a frame for it, and the columns whose figures it draws.
PLOTS: dict[str, tuple[Draw, Callable[..., pd.DataFrame], tuple[str, ...]]] = {
    "throughput": (plots.throughput, frames.trials, ("data_pps",)),
    "cpu_per_block": (plots.cpu_per_block, frames.trials, ("server_cpu_ns_per_block",)),
    "fairness": (plots.fairness, frames.trials, ("fairness",)),
    "scaling": (plots.scaling, frames.trials, ("data_pps",)),
    "pairs": (plots.pairs, frames.trials, ("data_pps",)),
    "loss": (plots.loss, frames.trials, ("started",)),
    "spectrum": (plots.latency_spectrum, frames.latency, ("value_ns", "count")),
    "times": (plots.transfer_times, frames.transfers, ("end_ns",)),
    "ccdf": (lambda frame: plots.transfer_times(frame, ccdf=True), frames.transfers, ("end_ns",)),
    "heatmap": (plots.latency_heatmap, frames.transfers, ("end_ns",)),
    "forest": (plots.forest, frames.ratios, ("ratio",)),
    "machines up": (lambda frame: plots.machines_up(frame, wire_bytes=1e6), frames.boots, ("end_ns",)),
    "response": (plots.response_times, frames.cohort, ("value_ns", "count")),
    "arrivals": (plots.arrivals, frames.intervals, ("in_flight", "started")),
}
NAMES = (
    "$\\frac{1}{0}$",
    "<script>alert(1)</script>&amp;",
    "_hidden",
    "a\nb\x00\x1b[31m",
    "x" * 200,
    "服务器 🚀",
    "$5 and $6",
    "",
    "\\$",
)
every_plot = pytest.mark.parametrize("name", PLOTS)


@every_plot
def test_an_empty_frame_is_one_line(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    with pytest.raises(PlotError, match=r"^[^\n]+ is empty[^\n]+$"):
        draw(frame()[:0])


@every_plot
def test_a_missing_column_is_named(name: str) -> None:
    draw, frame, columns = PLOTS[name]
    with pytest.raises(PlotError, match=columns[0]):
        draw(frame().drop(columns=columns[0]))
    with pytest.raises(PlotError, match="needs the columns"):
        draw(pd.DataFrame())


@every_plot
@pytest.mark.parametrize("nothing", [None, np.nan, np.inf, pd.NA, "no number"])
def test_a_column_without_a_known_figure_is_one_line(name: str, nothing: object) -> None:
    draw, frame, columns = PLOTS[name]
    with pytest.raises(PlotError, match=r"^[^\n]+$"):
        draw(frame().assign(**{columns[0]: pd.Series([nothing] * len(frame()), dtype=object)}))


@every_plot
@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 0, -5.0])
def test_a_single_nonsense_figure_does_not_spoil_the_others(name: str, nothing: float) -> None:
    draw, frame, columns = PLOTS[name]
    some = frame()
    figures = some[columns[0]].astype("float64").to_numpy(copy=True)
    figures[0] = nothing
    plot = draw(some.assign(**{columns[0]: figures}))
    assert np.isfinite(plot.data.select_dtypes("number").to_numpy(dtype=float, na_value=0)).any()
    assert plot.svg


@pytest.mark.parametrize("name", ["throughput", "cpu_per_block", "fairness", "scaling"])
def test_trials_that_are_all_invalid_are_shown_as_such(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    if name == "scaling":
        with pytest.raises(PlotError):
            draw(frame().assign(verdict="invalid"))
        return
    plot = draw(frame().assign(verdict="invalid"))
    assert set(plot.data["mark"]) == {"invalid trial"}
    assert "epoll (invalid)" in [text.get_text() for text in plot.figure.axes[0].texts]
    assert "none of them valid" in plot.alt


@pytest.mark.parametrize("name", ["pairs", "times", "heatmap", "machines up", "arrivals"])
def test_what_needs_valid_trials_says_that_there_are_none(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    with pytest.raises(PlotError, match="valid trial"):
        draw(frame().assign(verdict="invalid"))


@every_plot
def test_one_contender_is_drawn_or_said_to_be_alone(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    if name == "pairs":
        with pytest.raises(PlotError, match="of epoll and of another"):
            draw(frame(["epoll"]))
        return
    assert draw(frame(["epoll"])).svg


@pytest.mark.parametrize("name", ["throughput", "cpu_per_block", "fairness", "scaling", "loss"])
def test_one_trial_is_drawn(name: str) -> None:
    plot = PLOTS[name][0](frames.trials(["epoll"], [3], rounds=1))
    assert plot.svg
    assert "to" not in plot.figure.texts[1].get_text().split()


def test_one_transfer_is_drawn_and_has_no_far_end() -> None:
    one = frames.transfers(["epoll"], each=1)
    assert plots.transfer_times(one).data["share"].tolist() == [1]
    assert plots.latency_heatmap(one).data["transfers"].tolist() == [1]
    with pytest.raises(PlotError, match="10 transfers"):
        plots.transfer_times(one, ccdf=True)


def test_a_histogram_of_one_bucket_has_a_spectrum_only_where_enough_lie_beyond() -> None:
    with pytest.raises(PlotError, match="10 samples"):
        plots.latency_spectrum(frames.latency(["epoll"])[:1])


def test_a_frame_may_be_plain_objects_without_verdict_or_categories() -> None:
    trials = frames.trials().drop(columns=["verdict", "operation"]).astype({"contender": object, "concurrency": object})
    assert set(plots.throughput(trials).data["contender"]) == {"epoll", "threads"}


@every_plot
def test_the_frame_that_was_given_is_left_as_it_was(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    given = frame()
    draw(given)
    pd.testing.assert_frame_equal(given, frame())


@every_plot
def test_names_are_shown_as_they_are_and_run_as_nothing(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    plot = draw(frame(NAMES))
    root = ET.fromstring(plot.svg)
    assert plot.png
    assert "script" not in {each.tag.rpartition("}")[2] for each in root.iter()}
    words = " ".join("".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text"))
    shown = {"_hidden", "$5 and $6", "服务器"}
    if name == "pairs":  # its reference, the first name, is in the title
        shown -= {"$5 and $6"}
    assert [each for each in shown if each not in words] == []


@every_plot
@pytest.mark.parametrize("names", [["epoll", "threads"], ["y" * 200, "x" * 200], [f"server-{n}" for n in range(20)]])
def test_no_text_leaves_the_picture_or_is_too_small_to_read(name: str, names: list[str]) -> None:
    draw, frame, _ = PLOTS[name]
    figure = draw(frame(names)).figure
    figure.set_dpi(plots.plot.PNG_DPI)
    with plots.style.applied():
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        figure.draw(renderer)
        drawn = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
    assert frames.overlaps(figure) == []
    assert min(float(text.get_fontsize()) for text in figure.findobj(Text)) >= 9


@functools.cache
def recorded(run: str) -> pd.DataFrame:
    return tftpbench.load_run(Path(__file__).parents[3] / "results/reference" / run).trials


@pytest.mark.parametrize("run", ["ceiling", "concurrency", "peers"])
@pytest.mark.parametrize("name", ["throughput", "cpu_per_block", "fairness", "scaling", "pairs", "loss"])
def test_no_label_of_a_recorded_run_lies_on_a_curve_or_on_another(run: str, name: str) -> None:
    assert frames.overlaps(PLOTS[name][0](recorded(run)).figure) == []


def test_a_label_among_curves_would_be_seen() -> None:
    figure = plots.throughput(frames.trials()).figure
    figure.axes[0].text(10, frames.BASE_PPS, "ceiling")
    assert frames.overlaps(figure) == ["'ceiling' on a curve"]
